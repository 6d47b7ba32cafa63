"""The arrays that a path of a data set names: itself, or levels of the multiscales below it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lib.bytesource.tree import join
from lib.errors import FormatError, NotFoundError
from lib.formats.zarr.hierarchy import Hierarchy, ZarrArray
from lib.formats.zarr.ngff import Multiscale


def find_arrays(
    hierarchy: Hierarchy, path: str, levels: str | list[str] | tuple[str, ...]
) -> dict[str, Callable[[], ZarrArray]]:
    """Find arrays; their documents are read by who wants them.

    Parameters
    ----------
    path
        Inside the data set's ``.zarr``.

    Returns
    -------
    dict
        Path of each -> what reads its document; raises `NotFoundError` where a multiscale lacks
        the level (the error lists what there is), `FormatError` where it cannot be read.

    Raises
    ------
    NotFoundError
        Nothing is there; the error lists what there is.
    """
    root, where = hierarchy.root, join(hierarchy.root, path)
    if hierarchy.document(where, ".zarray") is not None:
        return {path.strip("/"): partial(_array, hierarchy, where)}
    found = hierarchy.multiscales_below(where)
    if not found and hierarchy.unreadable:
        unreadable, why = next(iter(hierarchy.unreadable.items()))
        raise FormatError(why, location=unreadable)
    if not found:
        above = where.rpartition("/")[0]
        children = (hierarchy.children(folder) for folder in (where, above, root))
        here = next((names for names in children if names), [])
        raise NotFoundError(
            f"there is no array or multiscale at {path.strip('/')!r}",
            location=where,
            advice=f"There are: {', '.join(here) or 'nothing'}",
        )
    return {
        f"{at}/{level}".removeprefix(f"{root}/"): partial(hierarchy.level, at, multiscale, level)
        for at, multiscale in found
        for level in _chosen(levels, multiscale)
    }


def _array(hierarchy: Hierarchy, where: str) -> ZarrArray:
    array = hierarchy.array(where)
    if array is None:
        raise NotFoundError("the array is not there any more", location=where)
    return array


def _chosen(levels: str | list[str] | tuple[str, ...], multiscale: Multiscale) -> list[str]:
    if levels == "all":
        return [level.path for level in multiscale.levels]
    return [levels] if isinstance(levels, str) else list(levels)
