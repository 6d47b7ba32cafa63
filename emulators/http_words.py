"""How each stand-in words a refusal: the bodies that clients of the real services meet."""

from __future__ import annotations

import html
import json
from http import HTTPStatus
from typing import NamedTuple
from xml.sax.saxutils import escape

HTML_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Service maintenance</title></head>"
    b"<body><h1>We will be back soon</h1></body></html>\n"
)
_S3_CODES = {
    403: ("AccessDenied", "Access Denied"),
    404: ("NoSuchKey", "The specified key does not exist."),
    412: ("PreconditionFailed", "At least one of the pre-conditions you specified did not hold"),
    429: ("SlowDown", "Please reduce your request rate."),
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("SlowDown", "Please reduce your request rate."),
}


class Refusal(NamedTuple):
    """Body and media type of an error answer."""

    body: bytes
    media_type: str


def refusal(service: str, status: int, path: str) -> Refusal:
    """The answer of `service` to a request for `path` that ends in `status`."""
    if service in ("s3", "destination"):
        return Refusal(s3_error(status, path), "application/xml")
    if service == "dvid":
        return Refusal(_dvid_error(status, path), "text/plain; charset=utf-8")
    if service in ("empiar", "omero"):
        return Refusal(_json_error(service, status, path), "application/json")
    return Refusal(apache_error(status, path), "text/html; charset=iso-8859-1")


def s3_error(status: int, path: str) -> bytes:
    """XML of an S3 error; `path` is ``/bucket/key``."""
    code, message = _S3_CODES.get(status, ("InternalError", HTTPStatus(status).phrase))
    return s3_document(code, message, path)


def s3_document(code: str, message: str, path: str) -> bytes:
    """XML of an S3 error with any code; `path` is ``/bucket/key``."""
    _, _, key = path.lstrip("/").partition("/")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message><Key>{escape(key)}</Key>"
        "<RequestId>0000000000000000</RequestId><HostId>samples</HostId></Error>"
    ).encode()


def apache_error(status: int, path: str) -> bytes:
    """Error page of an Apache server."""
    phrase = HTTPStatus(status).phrase
    return (
        '<!DOCTYPE HTML PUBLIC "-//IETF//DTD HTML 2.0//EN">\n<html><head>\n'
        f"<title>{status} {phrase}</title>\n</head><body>\n<h1>{phrase}</h1>\n"
        f"<p>The request for {html.escape(path)} ended here.</p>\n</body></html>\n"
    ).encode()


def _dvid_error(status: int, path: str) -> bytes:
    if status == 503:
        return b"Server already running 1 throttled operations (max = 1)\n"
    if status == 404:
        return f"Could not find the URL: {path}".encode()
    return f"{HTTPStatus(status).phrase} ({path}).".encode()


def _json_error(service: str, status: int, path: str) -> bytes:
    if service == "empiar":
        detail = "Not found." if status == 404 else HTTPStatus(status).phrase
        return json.dumps({"detail": detail}, separators=(",", ":")).encode()
    last = path.rstrip("/").rpartition("/")[2]
    message = f"Image {last} not found" if status == 404 else HTTPStatus(status).phrase
    return json.dumps({"message": message}).encode()
