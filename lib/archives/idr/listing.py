"""Studies of IDR, their data sets and images, as OMERO's JSON API lists them.

A study of volumes is one project for each experiment, ``idr0086-miron-micrographs/experimentD``;
screens hold plates of single planes, and are left out. Projects are some hundreds: a search reads
their names and descriptions, because IDR's own search engine finds single images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from lib import vocabulary
from lib.archives.idr import omero
from lib.archives.listed import Item, holder, planned, refused, voxel_bytes
from lib.config.errors import build
from lib.config.loaders import IDRConfig
from lib.errors import ConfigError, MacroscopeError, NotFoundError, StoppedError
from lib.plan import VolumePlan
from lib.transport.http import HttpClient
from lib.transport.session import Session

API = "idr-api"
MOST_IMAGES = 200
_LICENCE = ("license", "licence", "copyright")
_STUDY = re.compile(r"idr\d{3,5}", re.IGNORECASE)

Planner = Callable[[IDRConfig, Session], list[VolumePlan]]


def list_inside(inside: str, config: IDRConfig, session: Session, plan: Planner) -> list[Item]:
    """What is at ``idr:``, ``idr:idr0086``, ``idr:project/ID``, ``idr:dataset/ID``, ``idr:IMAGE``.

    Raises
    ------
    NotFoundError
        There is no such study, project, data set or image.
    ConfigError
        The text is none of these.
    """
    client, root = session.http(API), config.api_base_url
    if not inside:
        return [_study(number, one) for number, one in _projects(client, root).items()]
    word, _, number = inside.partition("/")
    if word == "dataset" and number.isdecimal():
        return [*_images(client, root, int(number))]
    if word == "project" and number.isdecimal():
        return [*_project_images(client, root, [int(number)])]
    if _STUDY.match(inside):
        wanted = inside.casefold()
        names = {n: _name(one) for n, one in _projects(client, root).items()}
        chosen = [n for n, name in names.items() if _is_study(name.casefold(), wanted)]
        if not chosen:
            raise NotFoundError(
                f"there is no study {inside} of volumes",
                archive="idr",
                advice="`macroscope list idr:` shows all; screens of plates are left out",
            )
        return [*_project_images(client, root, chosen)]
    if not re.fullmatch(r"\d+(,\d+)*", inside):
        raise ConfigError(
            f"'idr:{inside}': neither a study, a project, a data set nor an image",
            archive="idr",
            location="addresses",
            advice="Write idr:idr0086, idr:project/1151, idr:dataset/10740 or idr:9846137",
        )
    own = {"image_ids": [int(one) for one in inside.split(",")]}
    return planned(plan(build(IDRConfig, config.model_dump() | own), session), f"idr:{inside}")


def search_studies(words: list[str], most: int, config: IDRConfig, session: Session) -> list[Item]:
    """The projects of whose name or description all words are part, with their annotations."""
    client, root = session.http(API), config.api_base_url
    found = []
    for number, project in _projects(client, root).items():
        told = f"{_name(project)} {project.get('Description') or ''}".casefold()
        if all(word.casefold() in told for word in words):
            item = _study(number, project)
            known = omero.get_annotations(client, root, number, "project")
            found.append(_annotated(item, known))
        if len(found) == most:
            break
    return found


def _projects(client: HttpClient, root: str) -> dict[int, dict[str, Any]]:
    return omero.list_objects(client, f"{root}/api/v0/m/projects/", "projects")


def _project_images(client: HttpClient, root: str, projects: list[int]) -> Iterator[Item]:
    shown = 0
    for project in projects:
        known = omero.get_annotations(client, root, project, "project")
        url = f"{root}/api/v0/m/projects/{project}/datasets/"
        for number, dataset in omero.list_objects(client, url, "data sets").items():
            name = _name(dataset)
            if shown >= MOST_IMAGES:
                yield holder(f"idr:dataset/{number}", f"{name}/", "dataset")
                continue
            for item in _images(client, root, number, name):
                shown += 1
                told = _annotated(item, known)
                yield told.model_copy(update={"title": item.title, "size": item.size})


def _images(client: HttpClient, root: str, dataset: int, name: str = "") -> Iterator[Item]:
    url = f"{root}/api/v0/m/datasets/{dataset}/images/"
    found = omero.list_objects(client, url, "images", MOST_IMAGES)
    for number, one in found.items():
        try:
            yield _image(omero.read_image(one, url), name)
        except StoppedError:
            raise
        except MacroscopeError as error:
            yield refused(f"idr:{number}", f"image {number}", error.message)
    if len(found) >= MOST_IMAGES:
        yield holder(f"idr:dataset/{dataset}", f"... and more images of {name}", "dataset")


def _image(image: omero.Image, dataset: str) -> Item:
    z, y, x = image.size_zyx
    shape = None if z is None or y is None or x is None else (z, y, x)
    flat = shape is not None and shape[0] == 1
    several = [
        f"{count} {what}"
        for count, what in ((image.channels, "channels"), (image.times, "time points"))
        if count > 1
    ]
    return Item.model_validate(
        {
            "address": f"idr:{image.image_id}",
            "name": f"{dataset}/{image.name}" if dataset else image.name,
            "what": "volume",
            "kind": "image",
            "shape_zyx": shape,
            "dtype": image.dtype,
            "voxel_nm_zyx": None if image.voxel_nm_zyx == (None,) * 3 else image.voxel_nm_zyx,
            "nbytes": voxel_bytes(shape, image.dtype or "") if shape and image.dtype else None,
            "loadable": not flat,
            "why_not": "it is one plane, no volume" if flat else None,
            "notes": (*([", ".join(several)] if several else []), *image.notes),
        }
    )


def _study(number: int, project: dict[str, Any]) -> Item:
    about = vocabulary.plain_text(str(project.get("Description") or "")) or ""
    title = re.search(r"(?:Publication|Study) Title\s+(.+?)(?:\s{2,}|\n|$)", about)
    return holder(
        f"idr:project/{number}",
        _name(project),
        "study",
        title=(title[1] if title else about[:200]) or None,
    )


def _annotated(item: Item, known: dict[str, str]) -> Item:
    folded = {key.casefold(): value for key, value in known.items()}
    licence = next((folded[key] for key in _LICENCE if key in folded), "")
    update = {
        "title": folded.get("publication title") or folded.get("study title") or item.title,
        "organism": folded.get("organism") or folded.get("study organism"),
        "technique": folded.get("imaging method") or folded.get("study type"),
        "licence": vocabulary.licence(licence) or licence or None,
        "size": folded.get("study size") or folded.get("dataset size"),
    }
    return item.model_copy(update=update)


def _name(one: dict[str, Any]) -> str:
    return vocabulary.plain_text(str(one.get("Name") or ""), 300) or f"project {one.get('@id')}"


def _is_study(name: str, wanted: str) -> bool:
    """Whether a project is of a study: idr0086 is not idr00861."""
    return name == wanted or (name.startswith(wanted) and not name[len(wanted)].isdigit())
