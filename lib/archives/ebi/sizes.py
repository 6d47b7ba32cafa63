"""Voxel sizes that stand in names and in the text of an entry, with their place.

``20140801_hela-wt_xy5z8nm_as`` (5 nm in plane, 8 nm along z), ``8x8x8nm``, ``z=12.6376um`` in the
name of each section, "50 nm per section" in the description of an image set. Nothing is read that
could be understood in two ways.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lib.archives.voxels import Claim
from lib.units import to_nm

_FLOAT = r"(\d+(?:\.\d+)?)"
_UNIT = r"(nm|um|µm|μm)"
_XY_Z = re.compile(rf"(?<![A-Za-z])xy[ _=-]?{_FLOAT}[ _-]?z[ _=-]?{_FLOAT}[ _]?{_UNIT}", re.I)
_THREE = re.compile(rf"(?<![\d.]){_FLOAT}[ _]?x[ _]?{_FLOAT}[ _]?x[ _]?{_FLOAT}[ _]?{_UNIT}", re.I)
_POSITION = re.compile(rf"(?<![A-Za-z])z[ _]?=[ _]?{_FLOAT}[ _]?{_UNIT}", re.IGNORECASE)
_THICKNESS = (
    re.compile(rf"{_FLOAT}\s?{_UNIT}\s?(?:per|/)\s?(?:section|slice|cut)\b", re.IGNORECASE),
    re.compile(
        rf"\b(?:section|slice|cutting)[- ](?:thickness|spacing|interval)\s?"
        rf"(?:was|is|of|=|:)?\s?{_FLOAT}\s?{_UNIT}\b",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\bz[- ](?:step|spacing|resolution|interval)(?: size)?\s?(?:was|is|of|=|:)?\s?"
        rf"{_FLOAT}\s?{_UNIT}\b",
        re.IGNORECASE,
    ),
    re.compile(
        rf"{_FLOAT}\s?{_UNIT}[- ](?:thick )?(?:sections|slices|section thickness|"
        rf"slice thickness|in z)\b",
        re.IGNORECASE,
    ),
)


def stated_in_names(path: str) -> Claim | None:
    """The voxel size in the nearest file or folder name that has one, z, y, x in nm.

    Of three different lengths the one that stands alone is z: ``4x4x40nm`` and ``40x4x4nm``.
    """
    for name in reversed(path.split("/")):
        match = _XY_Z.search(name)
        if match is not None:
            xy, z = _nm(match[1], match[3]), _nm(match[2], match[3])
            return Claim((z, xy, xy), "name", f"{match[0]!r} in {name!r}")
        match = _THREE.search(name)
        if match is None:
            continue
        a, b, c = (_nm(match[n], match[4]) for n in (1, 2, 3))
        if a == b:
            return Claim((c, b, a), "name", f"{match[0]!r} in {name!r}")
        if b == c:
            return Claim((a, b, c), "name", f"{match[0]!r} in {name!r}")
    return None


def positions_in_names(names: Sequence[str], places: Sequence[int]) -> Claim | None:
    """The mean distance of sections whose names say where each lies.

    Parameters
    ----------
    places
        z of each section, in sections.
    """
    matches = [_POSITION.search(name.rpartition("/")[2]) for name in names]
    found = [_nm(m[1], m[2]) for m in matches if m is not None]
    heights = [height for height in found if height is not None]
    if len(heights) < 2 or len(heights) != len(names):
        return None
    step = abs(heights[-1] - heights[0]) / (places[-1] - places[0])
    each = [
        abs(b - a) / (q - p)
        for a, b, p, q in zip(heights, heights[1:], places, places[1:], strict=False)
    ]
    spread = f", {min(each):.4g} to {max(each):.4g} nm" if max(each) - min(each) > 1e-6 else ""
    where = f"mean distance of the positions z=... in the names of {len(names)} sections{spread}"
    return Claim((float(f"{step:.6g}"), None, None), "name", where, 0.02) if step else None


def thickness_in_text(text: str) -> Claim | None:
    """The section thickness that a description states; None where it states several."""
    found = {
        _nm(match[1], match[2]): match[0] for words in _THICKNESS for match in words.finditer(text)
    }
    if len(found) != 1:
        return None
    ((nm, said),) = found.items()
    where = f"{said!r} in the description of the image set"
    return Claim((nm, None, None), "api", where) if nm else None


def _nm(number: str, unit: str) -> float | None:
    return to_nm(float(number), unit)
