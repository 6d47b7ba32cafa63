"""From a candidate to the plan of a volume: names, voxel size, kind, files, what it will take."""

from __future__ import annotations

import hashlib
import math
from pathlib import PurePosixPath
from typing import Any, Literal

from lib.archives.address.finding import Candidate
from lib.archives.address.places import Place
from lib.archives.parts import Part, choose_part
from lib.archives.voxels import Voxel, decide_voxel
from lib.config.loaders import AddressConfig
from lib.formats import registry
from lib.formats.calibration import Origin
from lib.formats.format import Survey, VolumeDescription
from lib.names import slug
from lib.plan import About, SourceFile, VolumePlan
from lib.provenance import Provenance
from lib.rawfiles.ranged import digest_reads

Way = Literal["local", "ranges", "chunks"]
"""How voxels come: from a file of this machine; from ranges of a remote file that is kept on the
way; chunk by chunk."""


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
    part = choose_part(config.box, volume.shape_zyx, voxel.nm_zyx, voxel.origin_nm_zyx)
    way, survey, cost, reading_notes = _survey(config, place, one, part, header)
    kind, kind_notes = _kind(config, volume)
    notes = [*volume.notes, *voxel.notes, *kind_notes, *survey.notes, *reading_notes]
    return VolumePlan(
        source="address",
        source_id=one.address,
        source_path=_source_path(config, one),
        name=_name(config, one, part),
        shape_zyx=part.box.shape_zyx,
        dtype=volume.dtype,
        voxel_nm_zyx=voxel.nm_zyx,
        voxel_size_provenance=voxel.provenance,
        voxel_size_approximate=voxel.approximate,
        origin_nm_zyx=part.origin_nm_zyx,
        box_zyx=part.chosen,
        kind=kind,
        scale_level=volume.level,
        internal_path=volume.path or None,
        stored_as="files" if survey.grid is None else "boxes",
        reader={
            "place": place.address,
            "way": way,
            "format": one.format,
            "container": one.container,
            "root": place.root,
            "handle": volume.handle,
            "shape_zyx": [*volume.shape_zyx],
        },
        source_grid=survey.grid,
        files=_files(place, one, survey),
        about=_about(config, volume),
        download_bytes=cost[0],
        download_requests=cost[1],
        notes=tuple(notes),
        stated=voxel.stated,
    )


def _survey(
    config: AddressConfig, place: Place, one: Candidate, part: Part, header: tuple[int, int]
) -> tuple[Way, Survey, tuple[int, int], list[str]]:
    """How the part will be read, what it holds, the bytes and requests of all that, and notes.

    Headers are read again by whoever opens the volume, and listings for the last look at it.
    """
    before = place.traffic()
    if one.container == "tree":
        survey = registry.tree_format(one.format).survey(
            place.tree, place.root, one.volume, part.box
        )
    else:
        source = place.source()
        try:
            survey = registry.file_format(one.format).survey(source, one.volume, part.box)
        finally:
            source.close()
    after = place.traffic()
    way: Way = "ranges" if survey.grid is None else "chunks"
    if not place.tree.remote:
        return "local", survey, (0, 0), []
    notes, times = [], 1
    if one.container == "tree":
        header = (after[0] - before[0], after[1] - before[1])
    elif way == "ranges" and not part.whole:
        notes.append("only the pages of the box are fetched; the raw file is not kept")
    elif way == "ranges" and not config.keep_raw:
        times = digest_reads(survey.nbytes, config.max_workers)
    nbytes, requests = survey.nbytes + header[0], survey.requests + header[1]
    return way, survey, (nbytes * times, requests * times), notes


def _voxel(config: AddressConfig, volume: VolumeDescription) -> Voxel:
    own = (volume.voxel.z_nm, volume.voxel.y_nm, volume.voxel.x_nm)
    given = config.voxel_size_nm
    place = Origin(nm_zyx=volume.origin_nm_zyx, provenance=volume.voxel.provenance)
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


def _kind(
    config: AddressConfig, volume: VolumeDescription
) -> tuple[Literal["image", "labels"], tuple[str, ...]]:
    if config.kind == "auto":
        if volume.kind is None:
            note = "nothing says whether the voxels are an image or labels: an image is assumed"
            return "image", (note,)
        return volume.kind, (
            (f"{volume.kind}: {volume.kind_evidence}",) * bool(volume.kind_evidence)
        )
    if volume.kind is not None and volume.kind != config.kind:
        note = f"the user says {config.kind}, the data {volume.kind} ({volume.kind_evidence})"
        return config.kind, (note,)
    return config.kind, ()


def _name(config: AddressConfig, one: Candidate, part: Part) -> str:
    if config.name is not None:
        return f"{config.name}{part.suffix}"
    place, *inside = one.address.split("|")
    stem = PurePosixPath(place.rstrip("/")).name.partition(".")[0] or "volume"
    words = [stem, *(step.partition(":")[2].strip("/").replace("/", "_") for step in inside)]
    # Two addresses may end alike: names are for people, the digest keeps them apart.
    digest = hashlib.sha256(one.address.encode()).hexdigest()[:8]
    name = slug("_".join(word for word in words if word))[:120]
    return f"{name}_{digest}{part.suffix}"


def _source_path(config: AddressConfig, one: Candidate) -> str:
    """The address, and what the settings choose inside of what it names."""
    chosen = {"channel": config.channel, "time": config.time}
    marks = [f"{axis} {number}" for axis, number in chosen.items() if number is not None]
    return " ".join([one.address, *marks])


def _files(place: Place, one: Candidate, survey: Survey) -> tuple[SourceFile, ...]:
    if one.container == "tree":
        name = (one.volume.path or place.root).rpartition("/")[2] or "array"
        return (SourceFile(url=one.address, name=name, size=survey.nbytes, etag=survey.etag),)
    return tuple(
        SourceFile(
            url=place.address if len(one.files) == 1 else f"{place.address}/{info.key}",
            name=info.key.rpartition("/")[2],
            size=info.size,
            etag=info.etag,
            last_modified=info.last_modified,
            publisher_checksum=info.checksum,
        )
        for info in one.files
    )


def _about(config: AddressConfig, volume: VolumeDescription) -> About:
    """What the data state, and over it what the user states."""
    fields = ("title", "description", "modality", "organism", "specimen", "licence", "citation")
    said: dict[str, Any] = {key: volume.about.get(key) for key in (*fields, "doi")}
    given = {key: getattr(config, key) for key in (*fields, "doi")}
    by_user = sorted(key for key, value in given.items() if value is not None)
    extra: dict[str, Any] = dict(volume.extra)
    if by_user or config.authors:
        extra["stated_by_user"] = [*by_user, *(["authors"] if config.authors else [])]
    return About(
        **{**said, **{key: given[key] for key in by_user}},
        authors=tuple(config.authors),
        imaging_date=volume.acquired,
        extra=extra,
    )
