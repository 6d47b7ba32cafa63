"""From a candidate to the plan of a volume: names, voxel size, kind, files, what it will take."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any, Literal
from urllib.parse import unquote

from lib.about import Provenance
from lib.archives.address.finding import Candidate
from lib.archives.address.places import Place, source_of
from lib.archives.selection import Crop, choose_crop
from lib.archives.voxels import Voxel, decide_voxel
from lib.config.loader_base import AddressConfig
from lib.errors import NotFoundError
from lib.formats import registry
from lib.formats.format import Origin, Survey, VolumeDescription
from lib.plan import About, SourceFile, VolumePlan
from lib.rawfiles.ranged import digest_reads
from lib.safety import marked_file_name, slug
from lib.transport.listing import ObjectInfo

Way = Literal["local", "ranges", "chunks", "fetch"]
"""How voxels come: from files of this machine; from ranges of a remote file that is kept on the
way; chunk by chunk; from files that are brought first."""


def plan_of(
    config: AddressConfig, place: Place, one: Candidate, header: tuple[int, int]
) -> VolumePlan:
    """The plan of one volume.

    Parameters
    ----------
    header
        Bytes and requests that describing took: opening takes them again.
    """
    volume = one.volume
    voxel = _voxel(config, volume)
    crop = choose_crop(config.box, volume.shape_zyx, voxel.nm_zyx, voxel.origin_nm_zyx)
    files, places = _chosen_files(place, one, crop)
    before = place.traffic()
    survey = _survey(place, one, crop)
    after = place.traffic()
    way = _way(place, one, survey, crop)
    if one.container == "tree":
        header = (after[0] - before[0], after[1] - before[1])
        name = (volume.path or one.root).rpartition("/")[2] or "array"
        source_files = [
            SourceFile(url=one.address, name=name, size=survey.nbytes, etag=survey.etag)
        ]
    else:
        source_files = [_source_file(place, info) for info in files]
    cost, cost_notes = _cost(config, way, survey, crop, header, files)
    if not place.tree.remote:
        cost = (0, 0)
    if way == "fetch" and not (place.tree.ranged or one.container == "stack"):
        cost_notes.append("the server gives no ranges of files: the file is fetched whole first")
    lossy = (f"the source holds its voxels compressed with loss ({volume.lossy})",)
    notes = [
        *volume.notes,
        *(lossy if volume.lossy else ()),
        *voxel.notes,
        *survey.notes,
        *cost_notes,
    ]
    reader: dict[str, Any] = {
        "place": place.address,
        "way": way,
        "format": one.format,
        "container": one.container,
        "root": one.root,
        "handle": volume.handle,
        "shape_zyx": [*volume.shape_zyx],
    }
    if place.mark:
        reader["query"] = place.mark
    if one.container == "stack":
        first, stop = crop.box.start_zyx[0], crop.box.stop_zyx[0]
        reader |= {"places": [*places], "first_z": first, "depth": stop - first}
    return VolumePlan(
        source="address",
        source_id=_source_id(place, one),
        source_path=_source_path(config, place, one),
        name=_name(config, one, crop),
        shape_zyx=crop.box.shape_zyx,
        dtype=volume.dtype,
        voxel_nm_zyx=voxel.nm_zyx,
        voxel_size_provenance=voxel.provenance,
        voxel_size_approximate=voxel.approximate,
        origin_nm_zyx=crop.origin_nm_zyx,
        corner_nm_zyx=volume.corner_nm_zyx,
        box_zyx=crop.chosen,
        kind=volume.kind or "image",
        kind_evidence=volume.kind_evidence if volume.kind else None,
        scale_level=volume.level,
        internal_path=volume.path or None,
        stored_as="files" if survey.grid is None else "boxes",
        reader=reader,
        source_grid=survey.grid,
        sections=reader.get("depth"),
        files=tuple(source_files),
        about=_about(config, volume),
        download_bytes=cost[0],
        download_requests=cost[1],
        notes=tuple(notes),
        stated=voxel.stated,
    )


def _survey(place: Place, one: Candidate, crop: Crop) -> Survey:
    """What the container says of reading a crop."""
    if one.container == "tree":
        fmt = registry.tree_format(one.format)
        return fmt.survey(place.tree, one.root, one.volume, crop.box)
    if one.container == "stack":
        return Survey(None, 0, 0)
    with closing(source_of(place.tree, one.files)) as source:
        return registry.file_format(one.format).survey(source, one.volume, crop.box)


def _way(place: Place, one: Candidate, survey: Survey, crop: Crop) -> Way:
    if one.container == "tree":
        return "chunks"
    if not place.tree.remote:
        return "local"
    together = len(one.files) > 1 and crop.whole  # of a part, only what it takes is read
    if one.container == "stack" or together or one.volume.needs_file or not place.tree.ranged:
        return "fetch"
    return "ranges" if survey.grid is None else "chunks"


def _cost(
    config: AddressConfig,
    way: Way,
    survey: Survey,
    crop: Crop,
    header: tuple[int, int],
    files: Sequence[ObjectInfo],
) -> tuple[tuple[int, int], list[str]]:
    """Bytes and requests of a run, headers and listings that are read again included; notes."""
    if way == "fetch":
        return (sum(info.size or 0 for info in files), len(files)), []
    notes, times = [], 1
    if way == "ranges" and not crop.whole:
        notes.append("only the pages of the box are fetched; the raw file is not kept")
    elif way == "ranges" and not config.keep_raw:
        times = digest_reads(survey.nbytes, config.max_workers, files[0].checksum)
    nbytes, requests = survey.nbytes + header[0], survey.requests + header[1]
    return (nbytes * times, requests * times), notes


def _chosen_files(
    place: Place, one: Candidate, crop: Crop
) -> tuple[tuple[ObjectInfo, ...], tuple[int, ...]]:
    """The files that the crop needs, and the z of each from the crop's first.

    Raises
    ------
    NotFoundError
        None of its sections is there.
    """
    if one.container != "stack":
        return one.files, ()
    first, stop = crop.box.start_zyx[0], crop.box.stop_zyx[0]
    inside = [
        (info, z - first)
        for info, z in zip(one.files, one.places, strict=True)
        if first <= z < stop
    ]
    if not inside:
        raise NotFoundError(f"there is no section from {first} to {stop - 1}", location="box")
    infos = [info for info, _ in inside]
    if any(info.size is None for info in infos):  # an index page gives names only
        infos = [*place.tree.ordered([partial(_looked_at, place, info.key) for info in infos])]
    return tuple(infos), tuple(z for _, z in inside)


def _looked_at(place: Place, key: str) -> ObjectInfo:
    found = place.tree.head(key)
    if found is None:
        raise NotFoundError("a file that is listed is not there", location=place.below(key))
    return found


def _source_file(place: Place, info: ObjectInfo) -> SourceFile:
    name = info.key.rpartition("/")[2]
    below = place.beside if place.info is not None else place.below
    return SourceFile(
        url=place.address if info.key == place.root else below(name),
        name=marked_file_name(name, place.mark) if place.mark and info is place.info else name,
        size=info.size,
        etag=info.etag,
        last_modified=info.last_modified,
        publisher_checksum=info.checksum,
    )


def _voxel(config: AddressConfig, volume: VolumeDescription) -> Voxel:
    own = (volume.voxel.z_nm, volume.voxel.y_nm, volume.voxel.x_nm)
    given = config.voxel_size_nm
    place = volume.origin or Origin(nm_zyx=volume.origin_nm_zyx, provenance=volume.voxel.provenance)
    if given is None:
        return decide_voxel(volume.voxel, (None, None, None), "the user", place)
    notes = tuple(
        f"voxel size along {axis}: the data say {said:g} nm, the user {told:g} nm; the user's was "
        "taken"
        for axis, said, told in zip("zyx", own, given, strict=True)
        if said is not None and not math.isclose(said, told, rel_tol=1e-6)
    )
    by_user = Provenance(source="configuration", where="voxel_size_nm")
    stated = {f"voxel_size_nm.{axis}": by_user for axis in "zyx"}
    return Voxel(given, "user", False, notes, place.at(given), stated)


def _name(config: AddressConfig, one: Candidate, crop: Crop) -> str:
    if config.name is not None:
        return f"{config.name}{crop.suffix}"
    place, *inside = one.address.split("|")
    words = [_word(place.rstrip("/").rpartition("/")[2].partition(".")[0]) or "volume"]
    words += [_word(step.partition(":")[2]) for step in inside]
    return slug("_".join(word for word in words if word))[:120] + crop.suffix


def _word(path: str) -> str:
    """``a/slice_*.tif`` -> ``a_slice``, ``M%C3%BCller`` -> ``Muller``."""
    folder, _, name = unquote(path).strip("/").rpartition("/")
    if "*" in name:  # what numbered sections have in common
        name = name.partition(".")[0].replace("*", "")
    letters = unicodedata.normalize("NFKD", f"{folder}/{name}")
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return slug(plain.strip("/").replace("/", "_")) if plain.strip("/") else ""


def _source_id(place: Place, one: Candidate) -> str:
    return f"{one.address} query {place.mark}" if place.mark else one.address


def _source_path(config: AddressConfig, place: Place, one: Candidate) -> str:
    """The address, and what the settings choose inside of what it names."""
    chosen = {"channel": config.channel, "time": config.time}
    marks = [f"{axis} {number}" for axis, number in chosen.items() if number is not None]
    return " ".join([_source_id(place, one), *marks])


def _about(config: AddressConfig, volume: VolumeDescription) -> About:
    """What the data state, and over it what the user states."""
    fields = (
        "title", "description", "modality", "organism", "specimen", "licence", "citation", "doi",
    )  # fmt: skip
    said: dict[str, Any] = {key: volume.about.get(key) for key in fields}
    given = {key: getattr(config, key) for key in fields if getattr(config, key) is not None}
    if config.authors:
        given["authors"] = tuple(config.authors)
    return About(
        **{**said, **given},
        imaging_date=volume.acquired,
        extra=dict(volume.extra),
        origin=Provenance(source="file"),
        stated={key: Provenance(source="configuration", where=key) for key in given},
    )
