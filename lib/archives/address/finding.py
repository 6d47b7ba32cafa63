"""Which volumes lie at a place, and by which address each of them is named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lib.archives.address.grammar import Step
from lib.archives.address.places import Place
from lib.bytesource.tree import ObjectInfo
from lib.errors import ConfigError, FormatError, NotFoundError, UnsupportedFormatError
from lib.formats import registry
from lib.formats.format import FileFormat, Options, TreeFormat, VolumeDescription

_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """A volume that a place holds.

    Attributes
    ----------
    address
        Names this volume and no other.
    format
        Name of its format in the registry.
    files
        The file it lies in, or the files of its sections by z; empty for a tree of objects.
    """

    address: str
    format: str
    container: str  # "file" or "tree"
    volume: VolumeDescription
    files: tuple[ObjectInfo, ...] = ()


def find_volumes(place: Place, options: Options) -> list[Candidate]:
    """Every volume that the address names; the caller chooses, or refuses to.

    Raises
    ------
    NotFoundError
        Nothing is there, or nothing of a format that is converted.
    FormatError
        What is there is damaged.
    """
    if len(place.steps) > 1:
        raise ConfigError(
            f"{place.steps[1]}: nothing can follow {place.steps[0]}", location="addresses"
        )
    step = place.steps[0] if place.steps else None
    wanted = None if step is None else registry.named(step.word)
    if place.info is not None:
        return _in_file(place, place.info, wanted, step, options)
    return _in_tree(place, wanted, step, options)


def the_one(candidates: Sequence[Candidate], address: str) -> Candidate:
    """The only candidate that can be opened.

    Raises
    ------
    ConfigError
        There are several; the error lists their addresses.
    UnsupportedFormatError
        None can be opened; the error says why.
    """
    loadable = [one for one in candidates if one.volume.refused is None]
    if len(loadable) == 1:
        return loadable[0]
    if not loadable:
        why = candidates[0].volume.refused if candidates else "there is none"
        raise UnsupportedFormatError(f"no volume can be read here: {why}", location=address)
    shown = "\\n".join(f"  {one.address}" for one in loadable[:_MOST_SHOWN])
    more = f"\\n  and {len(loadable) - _MOST_SHOWN} more" if len(loadable) > _MOST_SHOWN else ""
    raise ConfigError(
        f"{len(loadable)} volumes are here, and an address names one",
        location=address,
        advice=f"Choose from these addresses:\\n{shown}{more}",
    )


def _in_file(
    place: Place,
    info: ObjectInfo,
    wanted: Iterable[str] | None,
    step: Step | None,
    options: Options,
) -> list[Candidate]:
    source = place.source()
    try:
        name = place.root.rpartition("/")[2]
        fitting = registry.formats_of_file(source, name)
        if wanted is not None:
            chosen = [one for one in fitting if one.name in wanted]
            if not chosen:
                said = fitting[0].name if fitting else "a format that is not known here"
                raise FormatError(
                    f"this is no {step.word if step else ''} file but {said}",
                    location=place.address,
                    advice="Leave the format out, or name the one that the file has",
                )
            fitting = chosen
        if not fitting:
            raise UnsupportedFormatError(
                "this file is of no format that is converted",
                location=place.address,
                advice=f"Converted are: {', '.join(registry.words())}",
            )
        return _of_file(place, info, source, fitting[0], step, options)
    finally:
        source.close()


def _of_file(
    place: Place,
    info: ObjectInfo,
    source: object,
    fmt: FileFormat,
    step: Step | None,
    options: Options,
) -> list[Candidate]:
    volumes = fmt.describe(source, step.path if step else "", options)  # type: ignore[arg-type]
    return [
        Candidate(_address(place, fmt.name, one.path), fmt.name, "file", one, (info,))
        for one in volumes
    ]


def _in_tree(
    place: Place, wanted: Sequence[str] | None, step: Step | None, options: Options
) -> list[Candidate]:
    if wanted is None:
        fitting: list[TreeFormat] = registry.formats_of_tree(place.tree, place.root)
    else:
        fitting = [registry.tree_format(n) for n in wanted if n in registry.TREE_FORMATS]
        if len(fitting) > 1:
            fitting = [one for one in fitting if one.fits(place.tree, place.root)] or fitting[:1]
    found = []
    for fmt in fitting:
        volumes = fmt.describe(place.tree, place.root, step.path if step else "", options)
        found += [
            Candidate(_address(place, fmt.name, one.path), fmt.name, "tree", one) for one in volumes
        ]
    if not found:
        raise NotFoundError(
            "nothing of a format that is converted is here",
            location=place.address,
            advice=f"Name what lies inside, as |FORMAT:path; formats: "
            f"{', '.join(registry.words())}",
        )
    return found


def _address(place: Place, word: str, path: str) -> str:
    return f"{place.address}|{Step(word, path)}"
