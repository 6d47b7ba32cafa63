"""Which axes of an array are z, y, x, and which voxel of the others is taken.

NGFF 0.1 to 0.5 and the 0.6 candidate: axes stand in any order, time and channel among them. What
`lib.formats.zarr.ngff` reads is a multiscale of z, y, x alone; `spatial_only` makes it from any.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import FormatError, UnsupportedFormatError
from lib.geometry import ShapeZYX, zyx

IMPLIED = ("t", "c", "z", "y", "x")  # NGFF 0.1 and 0.2 have these five axes and do not say so
_SPATIAL = ("z", "y", "x")
# what xarray and netCDF call an axis to which nobody gave a name
_UNNAMED = re.compile(r"(phony_)?(dim|axis)_?\d*")


@dataclass(frozen=True, slots=True)
class AxisMap:
    """How the axes of a stored array lead to z, y, x.

    Attributes
    ----------
    dims_zyx
        The array's axis that is z, y and x; None where it has none, which makes one plane.
    fixed
        For each other axis: the index that is taken.
    """

    dims_zyx: tuple[int | None, int | None, int | None]
    fixed: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of_handle(cls, handle: dict[str, Any]) -> AxisMap:
        """As `in_handle` wrote it."""
        z, y, x = handle["dims_zyx"]
        return cls((z, y, x), {int(dim): index for dim, index in handle["fixed"].items()})

    @property
    def in_handle(self) -> dict[str, Any]:
        """Its part of a format's handle, as plain JSON."""
        fixed = {str(dim): index for dim, index in self.fixed.items()}
        return {"dims_zyx": [*self.dims_zyx], "fixed": fixed}

    def pick_zyx(self, of_array: tuple[int, ...]) -> ShapeZYX:
        """Three lengths out of one for each of the array's axes."""
        return zyx(1 if dim is None else of_array[dim] for dim in self.dims_zyx)

    @property
    def plain(self) -> bool:
        """Whether z, y, x are in this order and every other axis stands before them."""
        dims = [dim for dim in self.dims_zyx if dim is not None]
        return dims == sorted(dims) and (not self.fixed or max(self.fixed) < dims[0])


def axis_map(
    names: list[str] | None,
    shape: tuple[int, ...],
    where: str,
    *,
    channel: int | None = None,
    time: int | None = None,
) -> AxisMap:
    """Match the axes of an array.

    Parameters
    ----------
    names
        Of each axis; None where they are not named: the last three are then z, y, x, and the others
        must have length 1 or be chosen as ``t, c``. A last axis of length 1 is c, as tools of
        machine learning keep it.
    channel, time
        What the user chose; needed where that axis is longer than 1.

    Raises
    ------
    UnsupportedFormatError
        An axis has a name that is unknown here, or is longer than 1 and not chosen.
    FormatError
        There are more or fewer names than axes, or an index is out of range.
    """
    if names is None:
        names = list(IMPLIED[-len(shape) :]) if len(shape) <= 5 else []
        if len(names) > 3 and shape[-1] == 1 < shape[-2]:
            names = [*names[: len(names) - 4], *_SPATIAL, "c"]
    if len(names) != len(shape) or len(set(names)) != len(names):
        raise FormatError(f"the axes {names} do not fit the shape {shape}", location=where)
    unknown = [name for name in names if name not in (*_SPATIAL, "t", "c", "time", "channel")]
    if unknown or not {"y", "x"} <= set(names):
        raise UnsupportedFormatError(
            f"the axes {names}, where z, y, x, with t and c at most, are read", location=where
        )
    fixed: dict[int, int] = {}
    for dim, name in enumerate(names):
        if name in _SPATIAL:
            continue
        chosen = channel if name[0] == "c" else time
        word = "channel" if name[0] == "c" else "time"
        if chosen is None and shape[dim] > 1:
            raise UnsupportedFormatError(
                f"axis {name} has length {shape[dim]}: one is read at a time",
                location=where,
                advice=f"Choose one by number: {word}=0 to {shape[dim] - 1}",
            )
        if not 0 <= (chosen or 0) < shape[dim]:
            raise FormatError(
                f"there is no {word} {chosen}, the axis has length {shape[dim]}", location=where
            )
        fixed[dim] = chosen or 0
    return AxisMap(zyx(names.index(name) if name in names else None for name in _SPATIAL), fixed)


def stated_names(names: Sequence[object]) -> list[str] | None:
    """The names of axes in small letters; None where none of them says anything.

    Of some that are named, the others are told where that leaves no choice: one that is missing
    among z, y, x, or several where those that are named stand at their usual places.
    """
    words = [str(name or "").lower() for name in names]
    words = ["" if _UNNAMED.fullmatch(word) else word for word in words]
    usual = list(IMPLIED[-len(words) :])
    left = [name for name in usual if name not in words]
    if not any(words):
        return None
    if words.count("") == len(left) == 1:
        return [word or left[0] for word in words]
    if "" in words and all(w in ("", name) for w, name in zip(words, usual, strict=False)):
        return usual
    return [word or f"unnamed {place}" for place, word in enumerate(words)]


def understood(names: list[str] | None, notes: list[str]) -> list[str] | None:
    """Names of axes, where they are of those that are known here; a note where others are not."""
    if names is None or {*names} <= {*IMPLIED, "time", "channel"}:
        return names
    if any(name in (*IMPLIED, "time", "channel") or " " in name for name in names):
        return names  # some say where they are, so places alone do not
    notes.append(f"the axes are called {', '.join(names)}: the last are taken as z, y, x")
    return None


def block_axes(block: dict[str, Any]) -> list[Any] | None:
    """The axes of a multiscale's arrays as its document has them; None where it names none.

    NGFF 0.6 may know several coordinate systems: that counts to which the transformations of the
    datasets lead, and what leads on to others is nothing of the arrays.
    """
    systems = block.get("coordinateSystems")
    if block.get("axes") is not None or not isinstance(systems, list) or not systems:
        axes: list[Any] | None = block.get("axes")
        return axes
    steps = [s for one in block["datasets"] for s in one.get("coordinateTransformations") or []]
    outputs = [step.get("output") for step in steps]
    named = {one.get("name") if isinstance(one, dict) else one for one in outputs}
    inner: list[Any] | None = next((s for s in systems if s.get("name") in named), systems[0])[
        "axes"
    ]
    return inner


def axis_names(block: dict[str, Any]) -> list[str] | None:
    """Names of a multiscale's axes, of whichever NGFF version; None where none are given."""
    axes = block_axes(block)
    if not axes:
        return None
    names = [axis["name"] if isinstance(axis, dict) else axis for axis in axes]
    return stated_names(names) or list(IMPLIED[-len(names) :])


def spatial_only(block: dict[str, Any], dims: int, where: str) -> dict[str, Any]:
    """A multiscale of z, y, x alone, with the scales and translations of these axes.

    Parameters
    ----------
    dims
        Axes of its arrays, for versions that do not name them.

    Raises
    ------
    UnsupportedFormatError
        A transformation is neither scale, translation, identity nor a sequence of them.
    FormatError
        Lists are of another length than the axes.
    """
    names, axes = axis_names(block) or list(IMPLIED[-dims:]), block_axes(block) or []
    order = [names.index(name) for name in _SPATIAL if name in names]
    given = [axes[i] if axes and isinstance(axes[i], dict) else {} for i in order]
    described = [{**one, "name": names[i]} for one, i in zip(given, order, strict=True)]
    missing = 3 - len(order)

    def three(values: Any, default: float) -> list[float]:
        if not isinstance(values, list) or len(values) != len(names):
            raise FormatError(f"{values!r} does not fit the axes {names}", location=where)
        return [default] * missing + [values[i] for i in order]

    def steps(given: Any) -> list[dict[str, Any]]:
        flat = []
        for step in given or []:
            kind = step.get("type")
            if kind == "sequence":
                flat += steps(step.get("transformations"))
            elif kind == "scale":
                flat.append({"type": "scale", "scale": three(step["scale"], 1.0)})
            elif kind == "translation":
                flat.append({"type": kind, "translation": three(step["translation"], 0.0)})
            elif kind != "identity":
                raise UnsupportedFormatError(
                    f"transformation {kind!r} of a multiscale", location=where
                )
        return flat

    unit = described[0].get("unit") if described else None
    front = [{"name": "z", "type": "space", **({"unit": unit} if unit else {})}] * missing
    return {
        **block,
        "axes": [*front, *described],
        # those of 0.6 lead from these axes to other coordinate systems
        "coordinateTransformations": []
        if "coordinateSystems" in block
        else steps(block.get("coordinateTransformations")),
        "datasets": [
            {
                **dataset,
                "coordinateTransformations": steps(dataset.get("coordinateTransformations")),
            }
            for dataset in block.get("datasets", [])
        ],
    }


def array_index(axes: AxisMap, index_zyx: ShapeZYX, chunk: tuple[int, ...]) -> tuple[int, ...]:
    """Index of a chunk in the array's own axes."""
    index = [0] * len(chunk)
    for dim, at in axes.fixed.items():
        index[dim] = at // chunk[dim]
    for place, axis in enumerate(axes.dims_zyx):
        if axis is not None:
            index[axis] = index_zyx[place]
    return tuple(index)


def to_zyx(voxels: NDArray[Any], axes: AxisMap, chunk: tuple[int, ...]) -> NDArray[Any]:
    """A chunk with the array's axes, as z, y, x at the chosen place of the other axes."""
    for dim in sorted(axes.fixed, reverse=True):
        voxels = np.take(voxels, axes.fixed[dim] % chunk[dim], axis=dim)
    left = sorted(dim for dim in axes.dims_zyx if dim is not None)
    there = [left.index(dim) for dim in axes.dims_zyx if dim is not None]
    voxels = voxels.transpose(there)
    for place, axis in enumerate(axes.dims_zyx):
        if axis is None:
            voxels = np.expand_dims(voxels, place)
    return np.ascontiguousarray(voxels)
