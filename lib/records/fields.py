"""What a field of a record states beside its type: whether it must be there, how it is proven, and
how people and other machines are told of it. Everything that shows or checks a record reads these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema
from typing_extensions import TypeAliasType

from lib.geometry import LengthsZYX

T = TypeVar("T")
LENIENT: Mapping[str, bool] = {"lenient": True}
"""Validation context under which a value that cannot be read counts as absent."""

# --- marks of a field -----------------------------------------------------------------------

Form = Literal[
    "text", "shape", "lengths", "nm", "bytes", "share", "duration", "count", "names", "sentences",
    "licence", "doi", "address", "code",
]  # fmt: skip


class Proof(NamedTuple):
    """How a field is proven from the store (empty: never), or why it is not, and what that takes.

    ``deep`` proofs read every byte; the others read listings and documents.
    """

    how: str = ""
    why_not: str = ""
    deep: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """How a field is shown to people and exported to other machines.

    Attributes
    ----------
    label
        What it is called: the row of a table, the name of a measured property.
    form
        How its value reads: see `lib.present.rows`.
    absent
        What stands in its place where the record does not say it; empty leaves the row out.
    report
        Where the HTML report has it: on the card, in its fold of details, or not.
    artifact
        Whether the table in Prefect's UI has it.
    crate
        In RO-Crates: a term of schema.org that the volume states it under, or ``property`` for a
        measured property of its own; empty for what is written there in another way.
    unit
        Of a measured property, in the words of schema.org's ``unitText``.
    column
        Its column of the Croissant table; a value along the axes has one for each.
    """

    label: str
    form: Form = "text"
    absent: str = ""
    report: Literal["card", "details", ""] = "card"
    artifact: bool = True
    crate: str = ""
    unit: str = ""
    column: str = ""


@dataclass(frozen=True, slots=True)
class Presence:
    """When a record has to have a field that need not have a value in the model."""

    when: Literal["always", "complete"]


ALWAYS = Presence("always")
COMPLETE = Presence("complete")


class _NotNull:
    """What may be absent is None here, and never null in a document."""

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        written = handler(core_schema)
        if "anyOf" in written:
            (written,) = (one for one in written["anyOf"] if one != {"type": "null"})
        else:
            written["type"] = next(name for name in written["type"] if name != "null")
            if "enum" in written:
                written["enum"] = [word for word in written["enum"] if word is not None]
        return written


OrAbsent = Annotated[T | None, _NotNull()]

# --- kinds of value -------------------------------------------------------------------------

Count = Annotated[int, Field(ge=0)]
Voxels = Annotated[int, Field(ge=1)]
Shape = TypeAliasType(
    "Shape",
    Annotated[tuple[Voxels, Voxels, Voxels], Field(description="Voxels, in z, y, x.")],
)
Words = Annotated[str, Field(min_length=1)]
Moment = TypeAliasType(
    "Moment",
    Annotated[
        str,
        Field(
            description="UTC, ISO 8601.",
            pattern=r"Z$|\+00:00$",
            json_schema_extra={"format": "date-time"},
        ),
    ],
)
Sha256 = TypeAliasType("Sha256", Annotated[str, Field(pattern="^[0-9a-f]{64}$")])
Address = TypeAliasType(
    "Address",
    Annotated[
        str,
        Field(
            description="Without credentials and signatures.",
            pattern=r"^[a-z][a-z0-9+.-]*://[^\s/@]*(/[^\x00-\x1f]*)?$",
        ),
    ],
)
Day = TypeAliasType(
    "Day",
    Annotated[
        str,
        WithJsonSchema(
            {
                "description": "ISO 8601: a date, a time (without a zone where the source states "
                "none), or a year or month where no more is known.",
                "type": "string",
                "anyOf": [
                    {"format": "date"},
                    {"format": "date-time"},
                    {"pattern": "^[0-9]{4}(-(0[1-9]|1[0-2]))?$"},
                    {
                        "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
                        "T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]+)?)?$"
                    },
                ],
            }
        ),
    ],
)
DataType = TypeAliasType(
    "DataType",
    Literal[
        "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
        "float16", "float32", "float64",
    ],
)  # fmt: skip


def word_of(read: Callable[[str], T | None]) -> BeforeValidator:
    """Read free text as one of the closed words of a field; what is no text is left as it is."""
    return BeforeValidator(lambda value: read(value) if isinstance(value, str) else value)


# --- parts of a record ----------------------------------------------------------------------


class Part(BaseModel):
    """A frozen object of a record. No field is unknown, and none is filled in by a guess."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _absent_if_unreadable(
        cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        try:
            return read(value)
        except ValidationError:
            field = cls.model_fields[str(info.field_name)]
            if info.context != LENIENT or field.is_required():
                raise
            return field.get_default(call_default_factory=True, validated_data={})

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        written = handler(core_schema)
        described = handler.resolve_ref_schema(written)
        required = [
            name
            for name, field in cls.model_fields.items()
            if field.is_required() or ALWAYS in field.metadata
        ]
        if required:
            described["required"] = required
        return written


class _Axes(Part):
    """Nanometres along the axes, by name, so that nobody has to guess their order."""

    @property
    def zyx(self) -> LengthsZYX:
        """In the order z, y, x."""
        return (self.z, self.y, self.x)  # type: ignore[attr-defined]

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any, info: ValidationInfo) -> Any:
        """Older records have three numbers, in z, y, x."""
        if info.context == LENIENT and isinstance(value, list) and len(value) == 3:
            return dict(zip("zyx", value, strict=True))
        return value


class Lengths(_Axes):
    """Lengths along the axes, in nanometres."""

    x: float = Field(gt=0)
    y: float = Field(gt=0)
    z: float = Field(gt=0)


class Position(_Axes):
    """A place, in nanometres."""

    x: float
    y: float
    z: float
