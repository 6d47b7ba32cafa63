"""Words of archives and files turned into the closed words of a record, at the place they enter.

Each function takes whatever text came from outside and returns a value that the record's schema
accepts, or None where the text has no such reading. None is never a guess: the caller keeps the
text itself beside it (`lib.about.Provenance.said`).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from enum import StrEnum
from typing import Any, Literal

LONGEST_TEXT = 4000

# --- plain text -----------------------------------------------------------------------------


def plain_text(text: str, longest: int = LONGEST_TEXT) -> str | None:
    """`text` without control characters and blanks at its ends; None where nothing is left.

    Line breaks stay. A lone surrogate, which has no UTF-8 form, becomes a question mark.
    """
    kept = (
        c if c in "\n\t" or unicodedata.category(c) != "Cc" else " " for c in text[: 2 * longest]
    )
    clean = "".join(kept).encode("utf-8", errors="replace").decode().strip()
    return clean[:longest].rstrip() or None


# --- modality -------------------------------------------------------------------------------


class Modality(StrEnum):
    """The imaging methods that a record tells apart."""

    FIB_SEM = "FIB-SEM"
    SBF_SEM = "SBF-SEM"
    SS_SEM = "ssSEM"
    SS_TEM = "ssTEM"
    ATUM_SEM = "ATUM-SEM"
    SEM = "SEM"
    TEM = "TEM"
    STEM = "STEM"
    TOMOGRAPHY = "tomography"
    CRYO_ET = "cryo-ET"
    LIGHT = "light microscopy"
    X_RAY = "X-ray"
    SEGMENTATION = "segmentation"
    OTHER = "other"


_MODALITIES = {
    **{re.sub(r"[^a-z]", "", word.lower()): word for word in Modality},
    "sbem": Modality.SBF_SEM,
    "serialsectionsem": Modality.SS_SEM,
    "serialsectiontem": Modality.SS_TEM,
    "scanningelectronmicroscopy": Modality.SEM,
    "transmissionelectronmicroscopy": Modality.TEM,
    "scanningtransmissionelectronmicroscopy": Modality.STEM,
    "electrontomography": Modality.TOMOGRAPHY,
    "electroncryotomography": Modality.CRYO_ET,
    "cryoelectrontomography": Modality.CRYO_ET,
    "sxt": Modality.X_RAY,
}
# Parts of a longer name that leave no doubt, the narrower ones first.
_MODALITY_PARTS = (
    ("focusedionbeam", Modality.FIB_SEM),
    ("fibsem", Modality.FIB_SEM),
    ("serialblockface", Modality.SBF_SEM),
    ("sbfsem", Modality.SBF_SEM),
    ("fluorescence", Modality.LIGHT),
    ("confocal", Modality.LIGHT),
    ("lightsheet", Modality.LIGHT),
    ("structuredillumination", Modality.LIGHT),
    ("brightfieldmicroscopy", Modality.LIGHT),
    ("xray", Modality.X_RAY),
)


def modality(text: str) -> Modality | None:
    """The record's word for an imaging method; ``other`` for a method it has no word for."""
    letters = re.sub(r"[^a-z]", "", text.lower())
    if not letters:
        return None
    if letters in _MODALITIES:
        return _MODALITIES[letters]
    return next((word for part, word in _MODALITY_PARTS if part in letters), Modality.OTHER)


# --- kind -----------------------------------------------------------------------------------

Kind = Literal["image", "labels"]
"""What voxels are: samples of a signal, or the ids of objects."""

_KINDS: Mapping[str, Kind] = {
    "image": "image", "em": "image", "raw": "image",
    "labels": "labels", "label": "labels", "segmentation": "labels",
}  # fmt: skip


def kind(text: str) -> Kind | None:
    """What voxels are, by a word for it; None where the word says nothing of it."""
    return _KINDS.get(text.strip().lower())


# --- dates ----------------------------------------------------------------------------------

_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_ISO = re.compile(
    r"(?P<y>\d{4})(?P<s>[-/:.]?)(?P<m>\d\d)(?P=s)(?P<d>\d\d)"
    r"(?:[T ]+(?P<hour>\d\d):?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r" ?(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?",
    re.IGNORECASE | re.ASCII,
)
_COARSE = re.compile(r"[0-9]{4}(?:-(?:0[1-9]|1[0-2]))?")
_NUMBERS = re.compile(
    r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?:[T ,]+(\d\d:\d\d(?::\d\d)?))?", re.ASCII
)
_DAY_MONTH = re.compile(
    r"(\d{1,2})(?:st|nd|rd|th)?[ .-]+([a-z]{3,9})\.?,?[ .-]+(\d{4})", re.I | re.A
)
_MONTH_DAY = re.compile(r"([a-z]{3,9})\.? +(\d{1,2})(?:st|nd|rd|th)?,? +(\d{4})", re.I | re.A)


LABEL_WORDS = frozenset(
    {"label", "labels", "labelled", "labeled", "seg", "segs", "segm", "segmented", "segmentation"}
    | {"segmentations", "mask", "masks", "gt", "groundtruth", "instance", "instances", "classes"}
    | {"annotation", "annotations", "annotated", "semantic", "semantics", "labelmap", "lbl", "lbls"}
    | {"msk", "supervoxel", "supervoxels"}
)
"""Words of file and folder names that speak of labels, in lower case; `IMAGE_WORDS` of images."""

IMAGE_WORDS = frozenset(
    {"raw", "em", "image", "images", "img", "grey", "gray", "grayscale", "greyscale"}
)
OF_ANY = frozenset({"em", "image", "images", "img"})
"""Words of `IMAGE_WORDS` that labels are called by, too: ``em_seg.tif``, ``labels/image_1.tif``."""


def words_of(name: str) -> list[str]:
    """The words of a name in lower case, parted by what is no letter or by a capital."""
    parts = re.findall(r"[A-Za-z]+", name)
    return [word.lower() for part in parts for word in re.split(r"(?<=[a-z])(?=[A-Z])", part)]


def any_image(words: Iterable[str], images: frozenset[str] = IMAGE_WORDS) -> bool:
    """Whether a name says no more of its kind than the name of any image, labels' included, may."""
    said = {*words} & (LABEL_WORDS | images)
    return bool(said) and said <= OF_ANY


def kind_of_words(words: Sequence[str], images: frozenset[str] = IMAGE_WORDS) -> Kind | None:
    """What the words of a file's name say, in their order; None where they say nothing, or both.

    Labels are of an image: a word for labels behind those of `OF_ANY` decides.
    """
    said = [word for word in words if word in LABEL_WORDS | images]
    if not said:
        return None
    spoken: set[Kind] = {"labels" if word in LABEL_WORDS else "image" for word in said}
    if len(spoken) == 1:
        return spoken.pop()
    of_any = all(word in LABEL_WORDS | OF_ANY for word in said)
    return "labels" if of_any and said[-1] in LABEL_WORDS else None


_DETECTORS = (".dm3", ".dm4", ".mrc", ".rec", ".st", ".ali")


def from_detector(file_name: str) -> bool:
    """Whether a file is of a format that microscopes write: its 32-bit integers are counts."""
    return file_name.lower().removesuffix(".gz").removesuffix(".bz2").endswith(_DETECTORS)


def labels_by_type(dtype: str, file_names: Iterable[str]) -> bool:
    """Whether integers of which nothing else is known are labels: of 64 bits, or uint32.

    Not in files `from_detector`.
    """
    wide = dtype in ("uint32", "uint64", "int64")
    return wide and not any(from_detector(name) for name in file_names)


def day(text: str) -> str | None:
    """A date, or date and time, in ISO 8601, as exact as `text` says it; None where it is none.

    A time without a zone stays without one. Read are ISO 8601 with its usual variations
    (``20190627``, ``2019/06/27``, a blank for the T, EXIF's colons), a year or a month alone,
    ``27.06.2019`` (no language writes month.day.year), ``27 June 2019``, ``June 27, 2019``, and
    ``6/27/2019`` where only one order of day and month is possible.
    """
    text = " ".join(text.split())
    if match := _ISO.fullmatch(text):
        return _moment(match)
    if _COARSE.fullmatch(text):
        return text if int(text[:4]) else None
    if match := _NUMBERS.fullmatch(text):
        return _numbers(match)
    if match := _DAY_MONTH.fullmatch(text):
        return _calendar(match[3], _month(match[2]), match[1])
    if match := _MONTH_DAY.fullmatch(text):
        return _calendar(match[3], _month(match[1]), match[2])
    return None


def _moment(match: re.Match[str]) -> str | None:
    on = _calendar(match["y"], match["m"], match["d"])
    if on is None or match["hour"] is None:
        return on
    second, part = match["second"] or "00", match["part"]
    try:
        time(int(match["hour"]), int(match["minute"]), int(second))
    except ValueError:  # hour 24, or a leap second
        return on
    clock = f"{match['hour']}:{match['minute']}:{second}" + (f".{part}" if part else "")
    zone = (match["zone"] or "").upper()
    if zone in ("Z", "UTC", "GMT"):
        zone = "Z"
    elif zone:
        digits = zone[1:].replace(":", "").ljust(4, "0")
        zone = f"{zone[0]}{digits[:2]}:{digits[2:]}"
    try:
        datetime.fromisoformat(f"{on}T{match['hour']}:{match['minute']}:{second}{zone}")
    except ValueError:  # a zone of 99 hours
        return on
    return f"{on}T{clock}{zone}"


def _numbers(match: re.Match[str]) -> str | None:
    first, separator, second, year, clock = match.groups()
    day_first, month_first = _calendar(year, second, first), _calendar(year, first, second)
    if separator != "." and day_first and month_first and day_first != month_first:
        return None
    on = day_first or (month_first if separator != "." else None)
    if on is None or clock is None:
        return on
    return day(f"{on} {clock}") or on


def _month(name: str) -> int:
    """The number of a month by its English name or the beginning of it; 0 for none."""
    fitting = [n for n, month in enumerate(_MONTHS, 1) if month.startswith(name.lower())]
    return fitting[0] if fitting else 0


def _calendar(year: str, month: str | int, day_of_month: str) -> str | None:
    try:
        return date(int(year), int(month), int(day_of_month)).isoformat()
    except ValueError:
        return None


# --- identifiers ----------------------------------------------------------------------------

_DOI = re.compile(r"10\.\d{4,9}/\S+")
_SPDX = {
    name.lower(): name
    for name in (
        "CC0-1.0", "PDDL-1.0", "ODC-By-1.0", "ODbL-1.0", "MIT", "Apache-2.0", "BSD-3-Clause",
        *(f"CC-BY{more}-{version}"
          for more in ("", "-SA", "-ND", "-NC", "-NC-SA", "-NC-ND")
          for version in ("1.0", "2.0", "2.5", "3.0", "4.0")),
    )
}  # fmt: skip
_CC = re.compile(
    r"\b(?:CC|Creative Commons)[ -]*"
    r"(?P<kind>(?:BY|Attribution)(?:[ -]*(?:NC|SA|ND|NonCommercial|ShareAlike|NoDerivatives))*)"
    r"[ -]*v?(?P<version>\d\.\d)\b",
    re.IGNORECASE,
)
_CC_PAGE = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)", re.IGNORECASE)
_CC_WORDS = {
    "attribution": "BY", "noncommercial": "NC", "sharealike": "SA", "noderivatives": "ND",
}  # fmt: skip


def doi(text: str) -> str | None:
    """The DOI in `text` (``10.6019/EMPIAR-11759``), without resolver, ``doi:`` and full stop."""
    match = _DOI.search(text)
    found = match[0].rstrip(".,;:)>]}\"'") if match else ""
    return found if _DOI.fullmatch(found) else None


def licence(text: str) -> str | None:
    """The SPDX identifier of a licence for data or code; None for one that is not known.

    Read are the identifiers themselves, Creative Commons' short and long names with their version,
    and the addresses of its licences. A name without a version names no licence.
    """
    text = " ".join(text.split())
    known = _SPDX.get(text.lower())
    if known is not None:
        return known
    if re.search(r"\bCC[ -]?0\b|creativecommons\.org/publicdomain/zero/1\.0", text, re.IGNORECASE):
        return "CC0-1.0"
    if match := _CC_PAGE.search(text):
        return _SPDX.get(f"cc-{match[1]}-{match[2]}".lower())
    # "Attribution 4.0 International (CC BY 4.0)": the short name inside is enough
    if match := _CC.search(text):
        words = re.findall(r"[A-Za-z]+", match["kind"])
        kinds = [_CC_WORDS.get(word.lower(), word.upper()) for word in words]
        return _SPDX.get(f"cc-{'-'.join(kinds)}-{match['version']}".lower())
    return None


IMAGE_LABEL = "image-label, or a group named labels"
_MOST_NAMED = 256  # ids of which colours and properties are kept
_MOST_PROPERTIES = 20
_MOST_TEXT = 200


def labels_said(attributes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What says that a group holds labels, and the colours and properties of their ids.

    NGFF's ``image-label``, or CellMap's ``annotation`` of one class. Both are empty where neither
    is there; what is malformed is left out.
    """
    if "image-label" in attributes:
        given = attributes["image-label"]
        rows = {key: _by_id(given, key) for key in ("colors", "properties")}
        return IMAGE_LABEL, {key: found for key, found in rows.items() if found}
    cellmap = attributes.get("cellmap")
    given = cellmap.get("annotation") if isinstance(cellmap, dict) else None
    if not isinstance(given, dict):
        return "", {}
    kind, name = given.get("annotation_type"), given.get("class_name")
    encoding = kind.get("encoding") if isinstance(kind, dict) else None
    ids = encoding if isinstance(encoding, dict) else {}
    rows_of = [
        {"label-value": ids.get(key), "class": said}
        for key, said in (("present", name), ("unknown", "unknown"))
    ]
    found = _by_id({"properties": rows_of}, "properties")
    return "cellmap's annotation", {"properties": found} if found else {}


def named_ids(rows: Iterable[tuple[int, str, Sequence[int]]]) -> dict[str, Any]:
    """Colours and properties of ids as `labels_said` gives them, from names and colours.

    Parameters
    ----------
    rows
        Of each id: its class, empty where it has none, and red, green, blue of 0 to 255 or none.
    """
    every = [*rows]
    properties = [{"label-value": value, "class": name} for value, name, _ in every if name]
    colors = [{"label-value": value, "rgba": [*rgb, 255]} for value, _, rgb in every if rgb]
    return labels_said({"image-label": {"properties": properties, "colors": colors}})[1]


def _by_id(given: Any, key: str) -> list[dict[str, Any]]:
    """Rows of an ``image-label`` by ascending id, those that can be read."""
    rows = given.get(key) if isinstance(given, dict) else None
    found: dict[int, dict[str, Any]] = {}
    for row in rows if isinstance(rows, list) else []:
        value = row.get("label-value") if isinstance(row, dict) else None
        if type(value) is not int or abs(value) > 2**53:
            continue
        if key == "colors":
            rgba = row.get("rgba")
            if isinstance(rgba, list) and len(rgba) == 4 and all(n in range(256) for n in rgba):
                found[value] = {"label-value": value, "rgba": [int(n) for n in rgba]}
        else:
            rest = [(str(name)[:_MOST_TEXT], one) for name, one in row.items() if _is_plain(one)]
            said = {"label-value": value, **dict(rest[:_MOST_PROPERTIES])}
            if len(said) > 1:
                found[value] = said
    return [found[value] for value in sorted(found)[:_MOST_NAMED]]


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return value.isprintable() and len(value) <= _MOST_TEXT
    return isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
