"""Which number of a file's name counts sections, and which names have another one of them."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath

NUMBER = re.compile(r"([0-9]+)")
_WORD = re.compile(r"([A-Z]?[a-z]+|[A-Z]+)[^A-Za-z]*$")
_LENGTH = re.compile(r"[ _]?(?:nm|um|µm|μm|mm)(?![a-z])", re.IGNORECASE)
_SECTION = frozenset(
    {"z", "slice", "slices", "section", "sections", "sec", "slc", "plane", "layer"}
)
"""Words whose number counts sections, whatever other numbers a name has."""
_TILE = frozenset(
    {"ch", "channel", "channels", "col", "cols", "column", "row", "rows", "tile", "time", "tilt"}
    | {"timepoint", "tp", "angle", "energy", "dose", "foilhole", "gridsquare", "hole", "square"}
    | {"of"}
)
"""Words whose number counts no sections, even where it is the only one that varies."""
_PLACE = (
    _TILE
    | {"tiles", "c", "e", "r", "t", "w", "x", "y", "det", "detector", "se", "bse", "bsed", "bsd"}
    | {"esb", "etd", "lens", "tld", "ild", "mode", "pass", "try", "wd"}
)
"""Words whose number counts no sections where a name has several that vary."""
_THING = frozenset(
    {"animal", "area", "batch", "biopsy", "case", "cell", "condition", "crop", "dataset", "donor"}
    | {"embryo", "exp", "experiment", "fig", "figure", "fish", "grid", "half", "lamella", "larva"}
    | {"mice", "mosaic", "mouse", "neuron", "panel", "patient", "rat", "region", "rep", "roi"}
    | {"replicate", "sample", "set", "site", "specimen", "stack", "subject", "subvolume", "tissue"}
    | {"tomo", "tomogram", "v", "version", "vol", "volume", "well", "worm"}
)
"""Words whose number counts things and no sections where another number varies, too, or where it
has one digit or two."""
_OBJECT = _THING | {"block", "pos", "position", "run", "scan", "series", "session", "ts"}
"""Words whose number counts sections only where no other number does."""
_SETTING = re.compile(
    r"[ _]?(?:k?eV|kV|deg|°|[kM]?Hz)(?![a-z])|(?:k?[xX]|[pn]A|[mµμun]s)(?![A-Za-z0-9])"
    r"|[ _-]?bits?(?![a-z])"
)
"""Behind a number that says how an image was taken: its voltage, magnification or angle."""
_OF_THE_FORMER = re.compile(r"^[A-Za-z]+(?=[^A-Za-z])")
_YEAR = re.compile(r"(?:19|20)[0-9]{2}(?:(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01]))?")
_TIME = re.compile(r"(?:[01][0-9]|2[0-3])(?:[0-5][0-9]){2}")
_DAY = re.compile(r"(?:0[1-9]|[12][0-9]|3[01])")
_YEARS = frozenset(f"{year:02d}" for year in range(5, 30))  # of 2005 and later, without the 20
_MONTH = re.compile(r"(?:0[1-9]|1[0-2])")
_FEWEST_TO_FOLLOW = 3  # of two files, any number follows any other
_MANY_MORE = 3  # times as many values as any other number: it counts sections, without a word
UNDECIDED = (
    "several numbers vary in names like this one, and nothing says which counts sections "
    "(assemble=stack takes the last one)"
)
DECIMALS = "its numbers have a point, as the angles of a tilt series, and count no sections"
_DATE = "a date counts no sections"


@dataclass(frozen=True, slots=True)
class Numbered:
    """A file's name, and the number in it as it is written."""

    number: int
    text: str
    name: str


def split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    return path.name[: len(path.name) - len(path.suffix)], path.suffix


def by_varying_number(
    names: Sequence[str], demanded: bool = False
) -> tuple[dict[str, list[Numbered]], str]:
    """Sort names that differ in nothing but numbers by what tells their stacks apart.

    Of each the files, with the number that counts sections; 0 where no number does, and then why.
    Where they are demanded to be sections, one that varies alone does, or else the last.
    """
    parts = _decimals_joined(_times_joined([NUMBER.split(split(name)[0]) for name in names]))
    columns = range(1, len(parts[0]), 2)
    varying = [c for c in columns if len({Decimal(part[c]) for part in parts}) > 1]
    if not varying:  # alone, or told apart by nothing but leading zeros
        varying = [c for c in columns if len({part[c] for part in parts}) > 1] or [*columns][-1:]
    again = _said_again(parts, varying)
    varying = [c for c in varying if c not in again]
    counter, why = _counter(parts, varying), ""
    column = counter
    if column is None:
        column, why = _by_words(parts, varying, demanded)
    if demanded and len(varying) == 1:
        (column,) = varying
    follow = counter is not None or (column is not None and _is_alone(parts, varying, column))
    noted = {c for c in varying if c != column} if follow else set[int]()
    noted |= {c for c, first in again.items() if first == column}
    times = {c for c in varying if c != column and _is_moment(parts, c)}
    if times and column is not None:  # noted of each section, where none is there twice
        others = [c for c in columns if c not in times]
        if len({tuple(Decimal(part[c]) for c in others) for part in parts}) == len(parts):
            noted |= times
    stacks: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, part in zip(names, parts, strict=True):
        rest = ["*" if c in noted else "#" if c == column else t for c, t in enumerate(part)]
        stacks["".join(rest)].append((name, "0" if column is None else part[column]))
    return {stem: _numbered(files) for stem, files in stacks.items()}, why


def _said_again(parts: Sequence[list[str]], varying: Sequence[int]) -> dict[int, int]:
    """Numbers that say another one again, each with that: ``000018_0-000.s0019``.

    They differ by the same in all names. A cell's or a tile's does not say a section's again.
    """
    found: dict[int, int] = {}
    plain = [c for c in varying if _word_of(parts, c) not in _TILE | _THING]
    for first, second in itertools.combinations(plain, 2):
        if first in found or second in found or any("." in p[c] for p in parts for c in plain):
            continue
        shifts = {int(part[second]) - int(part[first]) for part in parts}
        if len(shifts) == 1 and len({part[first] for part in parts}) >= _FEWEST_TO_FOLLOW:
            found[second] = first
    return found


def _decimals_joined(parts: list[list[str]]) -> list[list[str]]:
    """The same parts of names; positions, whose point parts two numbers, as one number.

    A position follows a ``z`` or has a unit of length; where only its decimals vary, and are
    written to one width, they count as they are.
    """
    for column in range(1, len(parts[0]) - 2, 2):
        before, after = parts[0][column - 1], parts[0][column + 3]
        pairs = {(part[column], part[column + 2]) for part in parts}
        whole, widths = {a for a, _ in pairs}, {len(b) for _, b in pairs}
        if parts[0][column + 1] != "." or len(whole) == len(widths) == 1:
            continue
        if _word(before) == "z" or _LENGTH.match(after):
            joined = [
                [*part[:column], f"{part[column]}.{part[column + 2]}", *part[column + 3 :]]
                for part in parts
            ]
            alone = _counter(parts, range(1, len(parts[0]), 2)) is None
            return joined if alone else parts
    return parts


def _times_joined(parts: list[list[str]]) -> list[list[str]]:
    """The same parts of names; dates with a time (``2019-08-01_12-07-13``) as one number.

    What looks like a time may be a count behind a date (``20190801_000001``), and stays one.
    """
    for start in range(1, len(parts[0]) - 2, 2):
        for stop in range(start + 2, min(start + 12, len(parts[0])), 2):
            joined = [
                [*part[:start], "".join(part[start : stop + 1 : 2]), *part[stop + 1 :]]
                for part in parts
            ]
            between = {text for part in parts for text in part[start + 1 : stop : 2]}
            if max(map(len, between)) == 1 and _is_time(joined, start):
                return parts if _is_count(joined, start) else joined
    return parts


def _is_time(parts: Sequence[list[str]], column: int) -> bool:
    """Whether each of these numbers is a date with a time: 14 digits."""
    texts = [part[column] for part in parts]
    return all(
        len(text) == 14 and _YEAR.fullmatch(text[:8]) and _TIME.fullmatch(text[8:])
        for text in texts
    )


def _is_date(parts: Sequence[list[str]], column: int) -> bool:
    """Whether each of these numbers is a date (``20190601``), or a part of one (``2019-06-01``)."""
    if all(len(part[column]) == 8 and _YEAR.fullmatch(part[column]) for part in parts):
        return True
    return any(
        0 < start <= len(parts[0]) - 6
        and all(
            len(part[start]) == 4
            and part[start + 1] == part[start + 3] in ("-", "_", ".")
            and len("".join(part[start : start + 5 : 2])) == 8
            and _YEAR.fullmatch("".join(part[start : start + 5 : 2]))
            for part in parts
        )
        for start in (column, column - 2, column - 4)
    )


def _is_moment(parts: Sequence[list[str]], column: int) -> bool:
    return _is_time(parts, column) or _is_date(parts, column)


def _is_count(parts: Sequence[list[str]], column: int) -> bool:
    """Whether numbers of several names have equal steps, as times of day do not have."""
    numbers = sorted({Decimal(part[column]) for part in parts})
    steps = {b - a for a, b in itertools.pairwise(numbers)}
    return steps == {1} or (len(steps) == 1 and len(numbers) > 2)


def _numbered(files: Sequence[tuple[str, str]]) -> list[Numbered]:
    """Files with their numbers; of positions the number of usual steps from 0."""
    if not any("." in text for _, text in files):
        return [Numbered(int(text), text, name) for name, text in files]
    ordered = sorted((Decimal(text), name) for name, text in files)
    steps = sorted(b - a for (a, _), (b, _) in itertools.pairwise(ordered) if b > a)
    usual = steps[len(steps) // 2] if steps else Decimal(1)
    number, last, found = round(ordered[0][0] / usual), ordered[0][0], []
    for at, name in ordered:
        if at > last:
            number += max(1, round((at - last) / usual))
        found.append(Numbered(number, str(number), name))
        last = at
    return found


def _word(before: str) -> str:
    """The word that a number belongs to, in lower case, from what stands before it."""
    match = _WORD.search(before)
    return match[1].lower() if match else ""


def _word_of(parts: Sequence[list[str]], column: int) -> str:
    """The word of a number; of ``Tile_001-002`` it is that of both."""
    before = parts[0][column - 1]
    word = _word(before if column < 3 else _OF_THE_FORMER.sub("", before, count=1))
    if (
        word
        or column < 3
        or len({*map(len, (p[c] for p in parts for c in (column, column - 2)))}) > 1
    ):
        return word
    above = _word_of(parts, column - 2)
    return above if above in _TILE else ""


def _by_words(
    parts: Sequence[list[str]], varying: Sequence[int], demanded: bool
) -> tuple[int | None, str]:
    """The number that counts sections by the words before the numbers; None where none does.

    Then also why, where that is no matter of one number's own word.
    """
    if len(varying) == 1 and len(parts) > 1:
        (column,) = varying
        if _has_point(parts, column):
            return None, DECIMALS
        return (None, "") if _counts_other_things(parts, column) else (column, "")
    words = {column: _word_of(parts, column) for column in varying}
    counts = {column: len({part[column] for part in parts}) for column in varying}

    def rank(column: int) -> int:
        word = words[column]
        if word in _PLACE or _is_setting(parts, column) or _is_moment(parts, column):
            return 0
        if word in _SECTION:
            return 3
        if _has_point(parts, column):
            return 0
        return 1 if word in _OBJECT or _is_short(parts, column) else 2

    def padded(column: int) -> bool:
        """Whether alone written with leading zeros, and with more values than any other."""
        many = [counts[c] for c in varying if c != column]
        plain = all(_width(parts, c) < 2 for c in varying if c != column)
        return plain and _width(parts, column) > 2 and counts[column] > max(many, default=0)

    best = max(varying, key=lambda c: (rank(c), padded(c), c), default=None)
    if best is None or (not rank(best) and len(parts) > 1):
        pointed = any(_has_point(parts, column) for column in varying)
        return None, DECIMALS if pointed else ""
    rivals = [c for c in varying if rank(c) == rank(best)]
    counted = [
        c for c in rivals if counts[c] == len(parts) >= _FEWEST_TO_FOLLOW and _is_count(parts, c)
    ]
    if len(counted) == 1 and rank(best) < 3:  # 0007 of ``0007_20190601_0741``
        return counted[0], ""
    clear = rank(best) > 2 or padded(best) or _width(parts, best) > 2 or demanded
    if len(rivals) == 1 or clear or len(parts) == 1:
        return best, ""
    most = max(rivals, key=lambda c: counts[c])
    if all(counts[most] >= _MANY_MORE * counts[c] for c in rivals if c != most):
        return most, ""
    return None, UNDECIDED


def _has_point(parts: Sequence[list[str]], column: int) -> bool:
    """Whether a number stands before or behind a point, with one digit or two behind it.

    Positions, behind a ``z`` or with a unit of length, are none of these.
    """
    for start in (column, column - 2):
        if not 0 < start < len(parts[0]) - 2 or parts[0][start + 1] != ".":
            continue
        place = _word(parts[0][start - 1]) == "z" or _LENGTH.match(parts[0][start + 3])
        if not place and all(len(part[start + 2]) < 3 for part in parts):
            return True
    return False


def _is_short(parts: Sequence[list[str]], column: int) -> bool:
    """Whether each number is a length (``5nm``) or a date without a century (``010619``)."""
    if all(_LENGTH.match(part[column + 1]) for part in parts):
        return True
    texts = {part[column] for part in parts}
    if any(len(text) != 6 for text in texts):
        return False
    thirds = [(text[:2], text[2:4], text[4:]) for text in texts]
    return any(
        all(_DAY.fullmatch(t[day]) and _MONTH.fullmatch(t[month]) for t in thirds)
        and {t[3 - day - month] for t in thirds} <= _YEARS
        and len({t[3 - day - month] for t in thirds}) < 3
        for day, month in ((0, 1), (1, 0), (2, 1))
    )


def _width(parts: Sequence[list[str]], column: int) -> int:
    """To how many digits at least a number is written; 1 without leading zeros."""
    return max(len(part[column]) if part[column].startswith("0") else 1 for part in parts)


def _is_setting(parts: Sequence[list[str]], column: int) -> bool:
    return all(_SETTING.match(part[column + 1]) for part in parts)


def _counts_other_things(parts: Sequence[list[str]], column: int) -> bool:
    """Whether a number that varies alone counts no sections, by what stands around it."""
    word, short = _word_of(parts, column), max(len(part[column]) for part in parts) < 3
    said = word in _TILE or (word in _THING and short) or _is_setting(parts, column)
    return (
        said
        or _is_date(parts, column)
        or (_is_time(parts, column) and not _is_count(parts, column))
    )


def _is_alone(parts: Sequence[list[str]], varying: Sequence[int], column: int) -> bool:
    """Whether a number that counts sections by its word is in no name twice.

    The others are then what was noted of a section (``Z001_X104_Y3``), unless they tell cells or
    tiles apart.
    """
    words = {_word_of(parts, c) for c in varying if c != column}
    unique = len({Decimal(part[column]) for part in parts}) == len(parts)
    by_word = _word_of(parts, column) in _SECTION
    counted = _width(parts, column) > 2 and _is_count(parts, column)
    several = len(parts) >= _FEWEST_TO_FOLLOW
    return unique and several and (by_word or counted) and not words & (_TILE | _OBJECT)


def why_alone(name: str) -> str:
    """Why a file of a numbered name is in no stack, by its last number; empty where that may be."""
    part = NUMBER.split(split(name)[0])
    if len(part) == 1:
        return ""
    column = len(part) - 2
    word = _word_of([part], column)
    if _is_date([part], column):
        return _DATE
    if (word in _PLACE and (len(word) > 1 or word in "xy")) or _counts_other_things([part], column):
        setting = _SETTING.match(part[column + 1])
        said = f"before {setting[0].strip(' _')!r}" if setting else f"behind {word!r}"
        return f"the number {said} counts no sections"
    (joined,) = _times_joined([part])
    if any(_is_time([joined], c) for c in range(1, len(joined), 2)):
        return "a date with a time counts no sections"
    return ""


def _counter(parts: Sequence[list[str]], varying: Sequence[int]) -> int | None:
    """The number that counts sections where all others follow it (``slice_00288_z=1.4263um``).

    Each value of it is there once, and every other number, read as a decimal where a point parts
    two, grows or falls with it. None where no number is of that kind.
    """
    if len(varying) < 2 or len(parts) < _FEWEST_TO_FOLLOW:
        return None
    if any(_word_of(parts, c) in _TILE | _THING or _is_setting(parts, c) for c in varying):
        return None
    found: list[tuple[Decimal, int]] = []
    for column in varying:
        if _is_moment(parts, column):
            continue
        ordered = sorted(parts, key=lambda part: Decimal(part[column]))
        numbers = [Decimal(part[column]) for part in ordered]
        others = [c for c in varying if c != column]
        if len(set(numbers)) == len(numbers) and all(
            _follows([_decimal(part, c) for part in ordered]) for c in others
        ):
            found.append((numbers[-1] - numbers[0], column))
    return min(found)[1] if found else None


def _decimal(part: Sequence[str], column: int) -> float:
    """A number of a name, together with what a point parts from it."""
    if column + 2 < len(part) and part[column + 1] == ".":
        return float(f"{part[column]}.{part[column + 2]}")
    if column >= 3 and part[column - 1] == ".":
        return float(f"{part[column - 2]}.{part[column]}")
    return float(part[column])


def _follows(values: Sequence[float]) -> bool:
    pairs = [*itertools.pairwise(values)]
    return all(a <= b for a, b in pairs) or all(a >= b for a, b in pairs)
