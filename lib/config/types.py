"""The kinds of value that settings are made of.

Values come from people: typed, pasted, set in an environment or a YAML file. Each kind says in one
place which spellings it takes; everything else is refused with a `ValueError` that says what is
allowed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

_AXIS = re.compile(r"[zyxZYX]\s*=")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$|^[0-9A-Fa-f:.]+$")


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        # pydantic turns only a ValueError into a refusal
        raise ValueError("a number is needed, not true or false")
    return value


def split_list(value: Any) -> Any:
    """Read ``"1,2,3"`` or ``"[1, 2, 3]"``, as an environment variable holds them, as a list."""
    if not isinstance(value, str):
        return [value] if isinstance(value, int) and not isinstance(value, bool) else value
    text = value.strip()
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not valid JSON ({error.msg})") from None
    return [part.strip() for part in text.split(",") if part.strip()]


def split_patterns(value: Any) -> Any:
    """Read patterns of paths: parted by commas, or a JSON list where one holds a comma.

    A pattern may begin with a bracket itself: ``[ab]*.mrc``.
    """
    if not isinstance(value, str):
        return value
    try:
        listed = json.loads(value) if value.strip().startswith("[") else None
    except json.JSONDecodeError:
        listed = None
    if isinstance(listed, list) and all(isinstance(part, str) for part in listed):
        return listed
    return [part.strip() for part in value.split(",") if part.strip()]


def split_addresses(value: Any) -> Any:
    """Read addresses that an environment variable holds: one a line, or a JSON list.

    A comma may belong to an address, so it does not part them.
    """
    if not isinstance(value, str):
        return value
    if value.strip().startswith("["):
        return split_list(value)
    return [line.strip() for line in value.splitlines() if line.strip()]


def _triple(order: str) -> Callable[[Any], Any]:
    """A reader of three values: in an order of axes, or by name as ``z=..,y=..,x=..``."""

    def read(value: Any) -> Any:
        if isinstance(value, str) and _AXIS.match(value.strip()):
            pairs = [part.partition("=") for part in value.split(",") if part.strip()]
            value = {axis.strip().lower(): number.strip() for axis, _, number in pairs}
        value = split_list(value)
        if isinstance(value, Mapping):
            if set(value) != set("xyz"):
                raise ValueError("by name exactly z, y and x are needed, as z=40,y=4,x=4")
            return [value[axis] for axis in order]
        return value

    return read


def _split_address(text: str, default_scheme: str) -> SplitResult:
    if _UNSAFE.search(text):
        raise ValueError("an address has no blanks, control characters or backslashes (write %20)")
    try:
        parts = urlsplit(text if "://" in text else f"{default_scheme}://{text}")
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"not an address ({error})") from None
    if "@" in parts.netloc:
        raise ValueError("credentials do not belong in an address")
    if not _HOST.match(parts.hostname or ""):
        raise ValueError("not an address: host, host:port or a URL is needed")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("an address has no query and no fragment")
    return parts


def http_endpoint(text: str) -> str:
    """Normalise ``host``, ``host:port`` or an http(s) URL to a URL without a trailing slash.

    A bare host means https; a bare ``host:port`` means http, as local servers speak it, except for
    port 443. The path is left as it is, percent signs included.

    Raises
    ------
    ValueError
        The text is no such address, or holds credentials, a query or a fragment.
    """
    text = text.strip()
    parts = _split_address(text, "https")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"the scheme must be http or https, not {parts.scheme}")
    bare = "://" not in text and parts.port not in (None, 443)
    scheme = "http" if bare else parts.scheme
    return f"{scheme}://{parts.netloc}{parts.path}".rstrip("/")


def ftp_endpoint(text: str) -> str:
    """Normalise ``host``, ``host:port`` or ``ftp://host[:port]`` to ``host`` or ``host:port``.

    Raises
    ------
    ValueError
        The text is no such address; a path does not belong in it.
    """
    parts = _split_address(text.strip(), "ftp")
    if parts.scheme != "ftp":
        raise ValueError(f"the scheme must be ftp, not {parts.scheme}")
    if parts.path.strip("/"):
        raise ValueError("an FTP server is host or host:port, without a path")
    return parts.netloc


def s3_location(text: str) -> str:
    """Normalise ``s3://bucket[/prefix]``; no trailing slash.

    Raises
    ------
    ValueError
        The text is no such address.
    """
    text = text.strip()
    if not text.startswith("s3://"):
        raise ValueError("of the form s3://bucket or s3://bucket/prefix")
    parts = _split_address(text, "s3")
    if parts.port is not None:
        raise ValueError("a bucket has no port: the server's address is another setting")
    prefix = inner_path(parts.path) if parts.path.strip("/") else ""
    return f"s3://{parts.netloc}/{prefix}".rstrip("/")


def local_path(text: str) -> str:
    """A path with ``~`` or ``~user`` replaced by that home folder, as a shell does it.

    Raises
    ------
    ValueError
        There is no such home folder.
    """
    if not text.startswith("~"):
        return text
    path = os.path.expanduser(text)
    if path == text:
        raise ValueError(f"there is no home folder {text.split('/')[0]}")
    return path


def store_location(value: Any) -> Any:
    """Normalise a destination: a folder, or ``s3://bucket[/prefix]``."""
    text = str(value).strip() if not isinstance(value, str) else value.strip()
    if not text or "\x00" in text:
        raise ValueError("a folder or s3://bucket/prefix is needed")
    if "://" in text:
        return s3_location(text)
    return local_path(text)


def inner_path(text: str) -> str:
    """Normalise a path inside a container: relative, ``/`` between its parts, no ``..``."""
    path = text.strip().strip("/")
    if not path or "\x00" in path or "\\" in path or {".", "..", ""} & set(path.split("/")):
        raise ValueError("a relative path such as folder/part is needed, without '.' or '..'")
    return path


def _as_text(value: Any) -> Any:
    """An id that JSON gave as a number; a float has lost how it was written, and is refused."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _empiar_number(value: Any) -> Any:
    value = _as_text(value)
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(?:EMPIAR-)?(\d{1,9})\s*", value, re.IGNORECASE)
        if match is None:
            raise ValueError("must be an EMPIAR accession such as 11759 or EMPIAR-11759")
        return match[1]
    return value


def _json_mapping(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg})") from None


def _tree_paths(mappings: dict[str, str]) -> dict[str, str]:
    tree = {}
    for server_path, tree_path in mappings.items():
        inside = inner_path(tree_path) if tree_path.strip("/ ") else ""
        tree[f"/{inner_path(server_path)}"] = inside
    return tree


def _level(text: str) -> str:
    if not re.fullmatch(r"s\d{1,2}", text):
        raise ValueError("must be a level such as s1, a list of levels, or all")
    return text


def _levels(value: str | list[str]) -> str | list[str]:
    if isinstance(value, str) and value.strip() == "all":
        return "all"
    levels = [_level(part) for part in split_list(value)]
    if not levels or len(set(levels)) < len(levels):
        raise ValueError("must name each level once, and at least one")
    return levels if isinstance(value, list) or len(levels) > 1 else levels[0]


def _inner_paths(value: str | list[str]) -> str | list[str]:
    paths = [inner_path(part) for part in split_list(value)]
    if not paths or len(set(paths)) < len(paths):
        raise ValueError("must name each path once, and at least one")
    return paths if isinstance(value, list) or len(paths) > 1 else paths[0]


Whole = Annotated[int, BeforeValidator(_no_bool)]
Count = Annotated[Whole, Field(gt=0)]
Positive = Annotated[float, BeforeValidator(_no_bool), Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1, allow_inf_nan=False)]
CountsXYZ = Annotated[tuple[Count, Count, Count], BeforeValidator(_triple("xyz"))]
CountsZYX = Annotated[tuple[Count, Count, Count], BeforeValidator(_triple("zyx"))]
PointXYZ = Annotated[tuple[Whole, Whole, Whole], BeforeValidator(_triple("xyz"))]
NanometresZYX = Annotated[tuple[Positive, Positive, Positive], BeforeValidator(_triple("zyx"))]
HttpEndpoint = Annotated[str, AfterValidator(http_endpoint)]
FtpEndpoint = Annotated[str, AfterValidator(ftp_endpoint)]
S3Location = Annotated[str, AfterValidator(s3_location)]
LocalPath = Annotated[str, AfterValidator(local_path)]
StoreLocation = Annotated[str, BeforeValidator(store_location)]
AccessionNumber = Annotated[str, BeforeValidator(_empiar_number)]
TreePaths = Annotated[dict[str, str], BeforeValidator(_json_mapping), AfterValidator(_tree_paths)]
PathPatterns = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=1000)]], BeforeValidator(split_patterns)
]
ScaleLevels = Annotated[str | list[str], AfterValidator(_levels)]
InnerPath = Annotated[str, AfterValidator(inner_path)]
InnerPaths = Annotated[str | list[str], AfterValidator(_inner_paths)]
IdText = Annotated[str, BeforeValidator(_as_text)]
Name = Annotated[IdText, Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
