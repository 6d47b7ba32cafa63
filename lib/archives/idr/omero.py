"""OMERO.web's JSON as IDR answers it: images, their files, their annotations.

``/api/v0/m/images/{id}/`` leaves keys without a value out; lengths carry a unit by its enumeration
name (``MICROMETER``). ``/webgateway/original_file_paths/{id}/`` names the files; organism, licence
and the like are key-value pairs of map annotations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lib import vocabulary
from lib.about import Provenance
from lib.archives.voxels import CatalogueZYX
from lib.errors import BadAnswerError, NotFoundError
from lib.geometry import to_nm
from lib.plan import About
from lib.safety import reading
from lib.transport.http import HttpClient

_PAGE = 200
_MAX_IMAGES = 100_000


@dataclass(frozen=True, slots=True)
class Image:
    """What the API says of one image; None where it says nothing.

    Attributes
    ----------
    size_zyx
        Voxels of one channel and time point.
    voxel_nm_zyx
        Physical sizes in nm; None per axis where absent or without a unit of length.
    """

    image_id: int
    name: str
    description: str | None
    series: int
    size_zyx: tuple[int | None, int | None, int | None]
    channels: int
    times: int
    dtype: str | None
    voxel_nm_zyx: CatalogueZYX
    acquired: str | None
    notes: tuple[str, ...] = ()


def get_image(client: HttpClient, root: str, image_id: int) -> Image:
    """Ask for one image.

    Raises
    ------
    NotFoundError
        IDR has no such image.
    BadAnswerError
        The answer describes none.
    """
    url = f"{root}/api/v0/m/images/{image_id}/"
    try:
        response = client.get_json(url)
    except NotFoundError as error:
        error.advice = f"Check image_ids: the archive has no image {image_id}"
        raise
    data = response.get("data") if isinstance(response, dict) else None
    return _image(data, image_id, url)


def list_images(client: HttpClient, root: str, dataset_id: int) -> list[int]:
    """Ids of all images of a dataset, page by page.

    Raises
    ------
    NotFoundError
        There is no such dataset, or it is empty.
    BadAnswerError
        A page repeats itself or is none.
    """
    url = f"{root}/api/v0/m/datasets/{dataset_id}/images/"
    found = list_objects(client, url, "images")
    if not found:
        raise NotFoundError(
            f"dataset {dataset_id} has no images",
            location=url,
            advice="Check dataset_id",
        )
    return list(found)


def list_objects(
    client: HttpClient, url: str, what: str, most: int | None = None
) -> dict[int, dict[str, Any]]:
    """Objects of a list of the JSON API by their ids, page by page; no more than `most`.

    Raises
    ------
    BadAnswerError
        A page repeats itself or is none.
    """
    found: dict[int, dict[str, Any]] = {}
    total = 1
    while len(found) < total and (most is None or len(found) < most):
        answer = client.get_json(url, {"limit": str(_PAGE), "offset": str(len(found))})
        with reading(f"the list of {what}", url, BadAnswerError):
            page = {int(one["@id"]): dict(one) for one in answer["data"]}
            total = int(answer["meta"]["totalCount"])
        before = len(found)
        found = {**found, **page}
        if total > _MAX_IMAGES or (len(found) == before and total):
            raise BadAnswerError(
                f"the list ends after {len(found)} of {total} {what}", location=url
            )
    return found


def read_image(data: Any, url: str) -> Image:
    """An image of a list. Raises `BadAnswerError`."""
    image_id = data.get("@id") if isinstance(data, dict) else None
    return _image(data, image_id if isinstance(image_id, int) else -1, url)


def get_paths(client: HttpClient, root: str, image_id: int) -> list[str]:
    """Paths of the image's original files on the OMERO server, with a leading slash.

    Raises
    ------
    BadAnswerError
        The answer names no file.
    """
    url = f"{root}/webgateway/original_file_paths/{image_id}/"
    response = client.get_json(url)
    paths = response.get("client") if isinstance(response, dict) else None
    if not isinstance(paths, list) or not paths or not all(isinstance(p, str) for p in paths):
        raise BadAnswerError("the answer names no original file", location=url)
    return ["/" + path.lstrip("/") for path in paths]


def get_annotations(
    client: HttpClient, root: str, number: int, of: str = "image"
) -> dict[str, str]:
    """Key-value pairs of the map annotations of an image or project; the first of each key."""
    url = f"{root}/webclient/api/annotations/"
    response = client.get_json(url, {"type": "map", of: str(number)})
    found: dict[str, str] = {}
    for key, value in _pairs(response):
        found.setdefault(key, value)
    return found


def about_image(image: Image, annotations: dict[str, str], study: str | None) -> About:
    """What goes into the record, out of the image and its annotations."""

    def first(*keys: str) -> str | None:
        folded = {key.casefold(): value for key, value in annotations.items()}
        return next((folded[key.casefold()] for key in keys if key.casefold() in folded), None)

    paper = vocabulary.doi(first("Publication DOI", "Paper DOI") or "")
    extra: dict[str, Any] = {"image_id": image.image_id, "annotations": annotations}
    if study is not None:
        extra["study"] = study
    title = first("Publication Title", "Study Title")
    # the image's own name is narrower than the study's imaging method
    named = re.search(r"FIB[-_ ]?SEM", image.name, re.IGNORECASE) is not None
    stated = {"modality": Provenance(source="name", where="name of the image")} if named else {}
    if image.acquired:
        stated["imaging_date"] = Provenance(source="api", where="AcquisitionDate")
    return About(
        title=f"{image.name} ({title})" if title else image.name,
        description=image.description,
        modality="FIB-SEM" if named else annotations.get("Imaging Method"),
        organism=first("Organism"),
        specimen=first("Cell Line", "Tissue", "Organism Part"),
        authors=tuple(
            filter(None, (first("Publication Authors", "Author List") or "").split("; "))
        ),
        licence=first("License", "Licence", "Copyright"),
        citation=f"doi:{paper}" if paper else None,
        doi=first("Data DOI", "Data DOI 1", "DOI"),
        imaging_date=image.acquired,
        release_date=first("Release Date", "Study Public Release Date"),
        extra=extra,
        origin=Provenance(source="api", where="annotations of the image"),
        stated=stated,
    )


def _image(data: Any, image_id: int, url: str) -> Image:
    pixels = data.get("Pixels") if isinstance(data, dict) else None
    if not isinstance(data, dict) or data.get("@id", image_id) != image_id:
        raise BadAnswerError(f"the answer does not describe image {image_id}", location=url)
    pixels = pixels if isinstance(pixels, dict) else {}
    kind = pixels.get("Type")
    dtype = kind.get("value") if isinstance(kind, dict) else None
    z, y, x = (_count(pixels.get(f"Size{axis}")) for axis in "ZYX")
    z_nm, y_nm, x_nm = (_length(pixels.get(f"PhysicalSize{axis}")) for axis in "ZYX")
    return Image(
        image_id=image_id,
        name=_text(data.get("Name")) or f"image {image_id}",
        description=_text(data.get("Description")),
        series=_count(data.get("omero:series")) or 0,
        size_zyx=(z, y, x),
        channels=_count(pixels.get("SizeC")) or 1,
        times=_count(pixels.get("SizeT")) or 1,
        dtype={"float": "float32", "double": "float64"}.get(dtype, dtype)
        if isinstance(dtype, str)
        else None,
        voxel_nm_zyx=(z_nm, y_nm, x_nm),
        acquired=_moment(data.get("AcquisitionDate")),
        notes=tuple(_unread_lengths(pixels)),
    )


def _length(value: Any) -> float | None:
    if not isinstance(value, dict):
        return None
    try:
        length = to_nm(float(value["Value"]), str(value.get("Unit") or value.get("Symbol") or ""))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return length if length is not None and length > 0 else None


def _unread_lengths(pixels: dict[str, Any]) -> Iterator[str]:
    """Physical sizes in units that are no length (``PIXEL``, ``REFERENCEFRAME``)."""
    for axis in "XYZ":
        value = pixels.get(f"PhysicalSize{axis}")
        if isinstance(value, dict) and _length(value) is None:
            said = vocabulary.plain_text(f"{value.get('Value')} {value.get('Unit')}", 60)
            yield f"the API gives PhysicalSize{axis} as {said!r}, which is no length"


def _moment(value: Any) -> str | None:
    """Milliseconds since 1970, as ISO 8601."""
    if type(value) not in (int, float):
        return None
    try:
        return datetime.fromtimestamp(value / 1000, UTC).date().isoformat()
    except (OverflowError, OSError, ValueError):
        return None


def _pairs(response: Any) -> Iterator[tuple[str, str]]:
    annotations = response.get("annotations") if isinstance(response, dict) else None
    for annotation in annotations if isinstance(annotations, list) else []:
        values = annotation.get("values") if isinstance(annotation, dict) else None
        for pair in values if isinstance(values, list) else []:
            if isinstance(pair, list) and len(pair) == 2:
                key, value = _text(pair[0]), _text(pair[1])
                if key and value:
                    yield key, value


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _text(value: Any) -> str | None:
    return vocabulary.plain_text(value) if isinstance(value, str) else None
