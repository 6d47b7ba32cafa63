"""How a refused setting is told: one sentence with its key, its value and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, SecretStr, ValidationError

from lib.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)

_USER_INFO = re.compile(r"[^/\s'\"]*@")
_QUERY = re.compile(r"\?[^\s'\"]*")


class Refusals:
    """Refused settings, collected so that a user is told of all of them at once."""

    def __init__(self) -> None:
        self._found: dict[str, ConfigError] = {}

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note a refusal in place of raising it."""
        try:
            yield
        except ConfigError as error:
            for one in error.parts or (error,):
                self._found.setdefault(one.message, one)

    @property
    def found(self) -> tuple[ConfigError, ...]:
        """What was noted, each once."""
        return tuple(self._found.values())

    def raise_all(self) -> None:
        """Raise what was noted: one as it is, several as one that names them all.

        Raises
        ------
        ConfigError
        """
        if len(self.found) == 1:
            raise self.found[0]
        if errors := self.found:
            lines = "".join(f"\n  {one.message}{_where(one)}" for one in errors)
            error = ConfigError(
                f"{len(errors)} settings are refused:{lines}\n{ConfigError.advice}", advice=""
            )
            error.parts = errors
            raise error


def _where(error: ConfigError) -> str:
    """The place of an error whose sentence does not name it."""
    place = error.location
    return f" [at {place}]" if place and place.rpartition(".")[2] not in error.message else ""


def is_secret(model: type[BaseModel], key: str) -> bool:
    """Whether a field's value may never be shown."""
    field = model.model_fields.get(key)
    if field is None:
        return False
    return SecretStr in (field.annotation, *get_args(field.annotation))


def suggestion(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` where a known name is near, else the list of the known names."""
    names = sorted(known)
    near = nearest(name, names)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"known are {', '.join(names)}"


_MOST_OF_WORDS = 3


def nearest(name: str, known: Collection[str]) -> list[str]:
    """Known names that `name` may mean: one that it slips from, those of its words, one alike.

    ``EM_MODE`` is nearer to ``EM_EXECUTION_MODE``, which has its words, than to ``EM_CODEC``.
    """
    if slip := difflib.get_close_matches(name, known, n=1, cutoff=0.85):
        return slip
    words = _words(name)
    of_words = [one for one in known if words and words <= _words(one)]
    if 0 < len(of_words) <= _MOST_OF_WORDS:
        return of_words
    return difflib.get_close_matches(name, known, n=1, cutoff=0.6)


def _words(name: str) -> set[str]:
    return set(filter(None, re.split(r"[^a-z0-9]+", name.lower())))


def _shown(model: type[BaseModel], key: str, value: Any) -> str:
    if is_secret(model, key):
        return "***"
    text = _QUERY.sub("?***", _USER_INFO.sub("***@", repr(value)))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _sentence(model: type[BaseModel], key: str, full_key: str, detail: Mapping[str, Any]) -> str:
    reason = str(detail["msg"]).removeprefix("Value error, ")
    reason = reason.replace("Input should be", "must be")
    if not key:  # rules between several keys name them themselves
        return full_key + reason
    if detail["type"] == "extra_forbidden":
        return f"{full_key}: there is no such setting; {suggestion(key, model.model_fields)}"
    return f"{full_key}: {_shown(model, key, detail['input'])} is refused: {reason}"


def config_error(
    error: ValidationError,
    model: type[BaseModel],
    *,
    archive: str | None = None,
    prefix: str = "",
    origins: Mapping[str, str] | None = None,
) -> ConfigError:
    """Turn pydantic's refusal into one sentence a key: its name, its value and what is allowed.

    Parameters
    ----------
    prefix
        What stands before the key in the user's file, for example ``sources.ebi.``.
    origins
        Where each full key's value came from, added to its sentence.
    """
    said: dict[str, ConfigError] = {}
    for detail in error.errors(include_url=False):
        key = str(detail["loc"][0]) if detail["loc"] else ""
        origin = (origins or {}).get(prefix + key)
        sentence = _sentence(model, key, prefix + key, detail)
        told = f"{sentence} (from {origin})" if origin else sentence
        first = told.partition(":")[0]
        named = key or (first if first in model.model_fields else "")
        place = prefix + named if named else None
        said.setdefault(key, ConfigError(told, archive=archive, location=place))
    parts = tuple(said.values())
    if len(parts) == 1:
        return parts[0]
    message = "; ".join(one.message for one in parts)
    error_of_all = ConfigError(message, archive=archive, location=parts[0].location)
    error_of_all.parts = parts
    return error_of_all


def build(
    model: type[Model],
    values: Mapping[str, Any],
    *,
    archive: str | None = None,
    prefix: str = "",
    origins: Mapping[str, str] | None = None,
) -> Model:
    """Make a settings model from plain values; `prefix` and `origins` as in `config_error`.

    Raises
    ------
    ConfigError
        A key is unknown, or a value is of the wrong type or impossible.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise config_error(error, model, archive=archive, prefix=prefix, origins=origins) from None
