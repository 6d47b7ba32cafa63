"""IDR's OMERO web service in small: the JSON API, the web gateway and the annotations."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router

from emulators import documents

_DEFAULT_LIMIT, _MAX_LIMIT = 200, 1000
_VERSION = {"x-omero-apiversion": "0"}
_API = "/api/v0/m"


def _host(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _number(request: Request, name: str = "id") -> int:
    """An id from the path, or -1, which nothing has."""
    text = str(request.path_params[name])
    return int(text) if text.isdecimal() else -1


def _found(content: Any) -> Response:
    return JSONResponse(content, headers=_VERSION)


def _not_found(kind: str, request: Request) -> Response:
    message = f"{kind} {request.path_params.get('id', '')} not found"
    return JSONResponse({"message": message}, 404, headers=_VERSION)


def _page(request: Request, rows: list[dict[str, Any]]) -> Response:
    """One page of a list, with OMERO's ``meta``."""
    try:
        offset = max(0, int(request.query_params.get("offset", 0)))
        limit = min(_MAX_LIMIT, int(request.query_params.get("limit", _DEFAULT_LIMIT)))
    except ValueError as error:
        return JSONResponse({"message": str(error)}, 400, headers=_VERSION)
    meta = {"offset": offset, "limit": limit, "maxLimit": _MAX_LIMIT, "totalCount": len(rows)}
    return _found({"data": rows[offset : offset + limit], "meta": meta})


async def _versions(request: Request) -> Response:
    base = f"{_host(request)}/api/v0/"
    return _found({"data": [{"version": "0", "url:base": base}]})


async def _index(request: Request) -> Response:
    root = f"{_host(request)}{_API}"
    return _found({"url:images": f"{root}/images/", "url:datasets": f"{root}/datasets/"})


async def _image(request: Request) -> Response:
    image = documents.omero_image(_number(request), _host(request))
    return _found(image) if image else _not_found("Image", request)


async def _images(request: Request) -> Response:
    dataset = request.query_params.get("dataset")
    if dataset is not None:
        number = int(dataset) if dataset.isdecimal() else -1
        return _page(request, documents.dataset_images(number, _host(request)) or [])
    every = [documents.omero_image(number, _host(request)) for number in documents.OMERO_IMAGES]
    return _page(request, [image["data"] for image in every if image])


async def _dataset_images(request: Request) -> Response:
    rows = documents.dataset_images(_number(request), _host(request))
    return _not_found("Dataset", request) if rows is None else _page(request, rows)


async def _image_datasets(request: Request) -> Response:
    rows = documents.image_datasets(_number(request), _host(request))
    return _not_found("Image", request) if rows is None else _page(request, rows)


async def _original_file_paths(request: Request) -> Response:
    paths = documents.original_file_paths(_number(request))
    return _found(paths) if paths else _not_found("Image", request)


async def _img_data(request: Request) -> Response:
    data = documents.img_data(_number(request))
    return _found(data) if data else _not_found("Image", request)


async def _projects(request: Request) -> Response:
    return _page(request, documents.projects())


async def _project_datasets(request: Request) -> Response:
    rows = documents.project_datasets(_number(request), _host(request))
    return _not_found("Project", request) if rows is None else _page(request, rows)


async def _annotations(request: Request) -> Response:
    project = request.query_params.get("project", "")
    if project.isdecimal():
        known = documents.project_annotations(int(project))
        return _found(known or {"annotations": [], "experimenters": []})
    image = request.query_params.get("image", "")
    found = documents.map_annotations(int(image)) if image.isdecimal() else None
    return _found(found or {"annotations": [], "experimenters": []})


async def _webclient(request: Request) -> Response:
    """The page that gives a public visitor a session."""
    response = PlainTextResponse("<!DOCTYPE html><title>IDR</title>", media_type="text/html")
    response.set_cookie("sessionid", "public")
    return response


async def _filtered(request: Request) -> Response:
    """Downloads are outside what the public user may call."""
    return JSONResponse({"message": "Forbidden"}, 403)


async def _missing(request: Request) -> Response:
    return PlainTextResponse("<h1>Not Found</h1>", 404, media_type="text/html")


def omero_app() -> Router:
    """The routes that the stand-in knows; all others are 404."""
    routes = [
        Route("/api/", _versions),
        Route("/api/v0/", _index),
        Route(f"{_API}/images/", _images),
        Route(f"{_API}/images/{{id}}/", _image),
        Route(f"{_API}/images/{{id}}/datasets/", _image_datasets),
        Route(f"{_API}/datasets/{{id}}/images/", _dataset_images),
        Route(f"{_API}/projects/", _projects),
        Route(f"{_API}/projects/{{id}}/datasets/", _project_datasets),
        Route("/webgateway/original_file_paths/{id}/", _original_file_paths),
        Route("/webgateway/imgData/{id}/", _img_data),
        Route("/webclient/imgData/{id}/", _img_data),
        Route("/webclient/api/annotations/", _annotations),
        Route("/webclient/render_image_download/{path:path}", _filtered),
        Route("/webgateway/archived_files/{path:path}", _filtered),
        Route("/webclient/", _webclient),
        Route("/{path:path}", _missing),
    ]
    return Router(routes, redirect_slashes=False)
