"""The fault matrix: which fault hits which source, and how that must end.

A cell ends in one of two ways: every voxel is right after recovery, or a named error with nothing
lost. A way of ending that is neither is a defect, and `judge.prove` raises it as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    FormatError,
    IncompleteTransferError,
    MacroscopeError,
    MissingChunksError,
    NotFoundError,
    RequestRefusedError,
    SourceChangedError,
    TransportError,
)
from tests.faults.bench import STALL_S, STALLED
from tests.faults.situations import Situation

Ends = tuple[type[MacroscopeError], ...]
Rules = tuple[dict[str, Any], ...]
Truth = Callable[[NDArray[Any]], NDArray[Any]]


def _as_it_is(voxels: NDArray[Any]) -> NDArray[Any]:
    return voxels


@dataclass(frozen=True)
class Lane:
    """One way by which bytes come in.

    Attributes
    ----------
    service
        Its stand-in, by the name of the control.
    match
        Requests for voxels, or for the document, that faults are to hit.
    """

    name: str
    source: str
    service: str
    match: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One fault on one lane.

    Attributes
    ----------
    rules
        Faults for the stand-ins' control.
    ends
        Errors of which one must come; empty where every voxel must be right.
    once
        The request that is refused must be sent exactly once.
    situation
        Faults that are no switch of a stand-in.
    mended
        Settings of the later run that must succeed, where the fault lay in the settings.
    new_source
        The later run meets another source, so nothing of the first half may be used.
    bucket
        The destination is a bucket behind the control, not a folder.
    unwritable
        Nothing can be written at the destination, the record included.
    truth
        What has become of the voxels at the archive.
    """

    fault: str
    lane: Lane
    rules: Rules = ()
    ends: Ends = ()
    said: str = ""
    once: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    situation: Situation | None = None
    mended: dict[str, Any] = field(default_factory=dict)
    new_source: bool = False
    bucket: bool = False
    unwritable: bool = False
    truth: Truth = _as_it_is
    slow: bool = False

    @property
    def name(self) -> str:
        return f"{self.lane.name}: {self.fault}"


RETINA, FIGURE = r"slice_0001\.dm3", r"Figure_S3B"
CHUNK = r"s1/0/1/1"

EMPIAR_API = Lane("EMPIAR API", "ebi", "empiar", "", {"protocol": "https"})
EMPIAR_FTP = Lane("EMPIAR FTP", "ebi", "ftp", RETINA, {"protocol": "ftp"})
EMPIAR_HTTPS = Lane("EMPIAR HTTPS", "ebi", "mirror", RETINA, {"protocol": "https"})
EPFL = Lane("EPFL", "epfl", "epfl", "volumedata")
DVID = Lane("FlyEM DVID", "flyem", "dvid", "/raw/")
DVID_INFO = Lane("FlyEM info", "flyem", "dvid", "/info")
IDR_API = Lane("IDR API", "idr", "omero", "", {"protocol": "https"})
IDR_FTP = Lane("IDR FTP", "idr", "ftp", FIGURE, {"protocol": "ftp"})
IDR_HTTPS = Lane("IDR HTTPS", "idr", "mirror", FIGURE, {"protocol": "https"})
IDR_RANGES = Lane("IDR ranges", "idr", "mirror", FIGURE, {"protocol": "https", "keep_raw": False})
S3 = Lane("OpenOrganelle S3", "openorganelle", "s3", CHUNK)
S3_DOCUMENTS = Lane("OpenOrganelle JSON", "openorganelle", "s3", r"/\.z(array|attrs|group)")

APIS = (EMPIAR_API, DVID_INFO, IDR_API, S3_DOCUMENTS)
FILES = (EMPIAR_HTTPS, EPFL, IDR_HTTPS, IDR_RANGES)
HTTP = (*APIS, *FILES, DVID, S3)
FTP = (EMPIAR_FTP, IDR_FTP)
LANES = (
    EMPIAR_API, EMPIAR_FTP, EMPIAR_HTTPS, EPFL, DVID_INFO, DVID,
    IDR_API, IDR_FTP, IDR_HTTPS, IDR_RANGES, S3_DOCUMENTS, S3,
)  # fmt: skip


def rule(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, **more}


def _http() -> Iterator[Cell]:
    twice: dict[str, Any] = {"first_n": 2}
    for lane in HTTP:
        yield Cell("503 twice", lane, (rule("status_503", **twice),))
        yield Cell("503 with Retry-After", lane, (rule("status_503", first_n=1, retry_after=1),))
        yield Cell("503 for ever", lane, (rule("status_503"),), (TransportError,), "status 503")
        yield Cell("429 twice", lane, (rule("status_429", **twice),))
        yield Cell("500 twice", lane, (rule("status_500", **twice),))
        yield Cell("403", lane, (rule("status_403"),), (AccessDeniedError,), once=True)
        yield Cell("reset in the body, twice", lane, (rule("reset", **twice),))
        yield Cell("reset before the answer", lane, (rule("reset", first_n=1, before=True),))
        stall = (rule("stall", first_n=1, seconds=STALL_S),)
        yield Cell("stall beyond the time-out", lane, stall, settings=STALLED)
        yield Cell("short body, once", lane, (rule("short_body", first_n=1),))
        yield Cell("web page as 200, once", lane, (rule("html_200", first_n=1),))
        yield Cell("web page as 200, for ever", lane, (rule("html_200"),), (BadAnswerError,))
    for lane in (EMPIAR_API, DVID_INFO, IDR_API, *FILES, DVID):
        yield Cell(
            "redirect to a private address",
            lane,
            (rule("redirect", location="http://169.254.169.254/latest/meta-data/"),),
            (RequestRefusedError,),
            once=True,
        )
    for lane in (*FILES, DVID, S3):
        short = (IncompleteTransferError, TransportError)
        yield Cell("short body, for ever", lane, (rule("short_body"),), short)
    yield Cell("404", S3_DOCUMENTS, (rule("status_404"),), (NotFoundError,))
    for lane in (EMPIAR_API, DVID_INFO, IDR_API, *FILES):
        yield Cell("404", lane, (rule("status_404"),), (NotFoundError,), once=True)
    yield Cell(
        "stall for ever",
        EPFL,
        (rule("stall", seconds=STALL_S),),
        (TransportError,),
        "in time",
        settings=STALLED,
        slow=True,
    )


def _files() -> Iterator[Cell]:
    for lane in FILES:
        yield Cell("Range ignored", lane, (rule("ignore_range"),))
        yield Cell(
            "another ETag and time between two requests",
            lane,
            (rule("changed_file", skip=2),),
            (SourceChangedError,),
            new_source=True,
        )
        yield Cell("another ETag between two requests", lane, (rule("changed_etag", skip=2),))
        yield Cell("a mirror's nodes alternate", lane, (rule("other_node", every=2),))
        yield Cell("a proxy marks ETags as weak", lane, (rule("weak_etag", every=2),))
        yield Cell(
            "wrong bytes in the header",
            lane,
            (rule("wrong_bytes", after_bytes=0),),
            (FormatError, BadAnswerError, SourceChangedError),
        )
    yield Cell("404 at a tile", DVID, (rule("status_404"),), (NotFoundError,), once=True)


def _ftp() -> Iterator[Cell]:
    for lane in FTP:
        yield Cell("greeting reset, twice", lane, (rule("greeting_reset", match="", first_n=2),))
        yield Cell("421 twice", lane, (rule("reply_421", match="", first_n=2),))
        yield Cell("421 for ever", lane, (rule("reply_421", match=""),), (TransportError,), "421")
        yield Cell("425 twice", lane, (rule("reply_425", first_n=2),))
        login = {"kind": "login_incorrect", "match": ""}
        yield Cell("530 login incorrect, once", lane, ({**login, "first_n": 1},))
        yield Cell("530 login incorrect, for ever", lane, (login,), (AccessDeniedError,), "530")
        yield Cell("226 after a cut", lane, (rule("cut_226", first_n=1),))
        yield Cell(
            "226 after a cut, for ever", lane, (rule("cut_226", after_bytes=0),), (TransportError,)
        )
        yield Cell("426 after a cut", lane, (rule("cut_426", first_n=2),))
        yield Cell("reset in the body", lane, (rule("reset", first_n=1),))
        stall = (rule("stall", first_n=1, seconds=STALL_S),)
        yield Cell("stall beyond the time-out", lane, stall, settings=STALLED)
        yield Cell("private PASV address", lane, (rule("private_pasv", match=""),))
        yield Cell("229 to PASV", lane, (rule("epsv_for_pasv", match="", first_n=1),))
        yield Cell("SIZE refused", lane, (rule("size_refused", match=""),))
        yield Cell(
            "REST refused after a cut",
            lane,
            (rule("cut_426", first_n=1), rule("rest_refused", match="")),
        )
        yield Cell("550 for a file", lane, (rule("reply_550"),), (NotFoundError,))
        yield Cell(
            "wrong bytes in the header",
            lane,
            (rule("wrong_bytes", after_bytes=0, methods=["RETR"]),),
            (FormatError, SourceChangedError),
        )
    yield Cell(
        "half a listing", EMPIAR_FTP, (rule("short_list", match=""),), (IncompleteTransferError,)
    )


def _zarr() -> Iterator[Cell]:
    chunk_403 = (rule("status_403"),)
    yield Cell("403 on a chosen chunk", S3, chunk_403, (AccessDeniedError,), "refuses", once=True)
    yield Cell(
        "404 on a listed chunk", S3, (rule("status_404"),), (TransportError,), "lists is not there"
    )
    for fault, status, code, end, said in (
        ("clock skew", 403, "RequestTimeTooSkewed", AccessDeniedError, "clock"),
        ("object in an archive tier", 403, "InvalidObjectState", RequestRefusedError, "tier"),
        ("bucket in another region", 301, "", RequestRefusedError, "region"),
        ("bucket whose requesters pay", 400, "UserProjectMissing", AccessDeniedError, "pay"),
    ):
        state = rule("s3_error", status=status, code=code, region="eu-west-1")
        yield Cell(fault, S3, (state,), (end,), said, once=True)
    gone = (rule("hide"),)
    yield Cell(
        "chunk gone from listing too", S3, gone, (MissingChunksError,), "lacks 1", new_source=True
    )
    yield Cell("bucket partly encrypted by KMS", S3, (rule("kms"),))
    yield Cell("wrong bytes in a chunk, once", S3, (rule("wrong_bytes", first_n=1),))
    yield Cell(
        "wrong bytes in a chunk, for ever",
        S3,
        (rule("wrong_bytes"),),
        (IncompleteTransferError,),
    )
    yield Cell(
        "no .zmetadata where there was one",
        S3_DOCUMENTS,
        (rule("hide", match=r"\.zmetadata"),),
        settings={"dataset_id": "jrc_hela-2", "scale_level": "s0"},
    )
    yield Cell(
        "no dimension_separator in .zarray",
        S3_DOCUMENTS,
        settings={
            "dataset_id": "jrc_sample-separator",
            "zarr_path": "recon-1/em",
            "scale_level": "s0",
        },
    )
    hole = {"dataset_id": "jrc_sample-holes", "zarr_path": "recon-1/em", "scale_level": "s0"}
    yield Cell(
        "a hole of the archive's own",
        S3,
        settings=hole,
        ends=(MissingChunksError,),
        said="lacks 1 of",
        mended={"max_missing_fraction": 0.5},
    )


def _json() -> Iterator[Cell]:
    for lane in (EMPIAR_API, IDR_API, DVID_INFO):
        yield Cell("optional JSON keys absent", lane, (rule("missing_json_keys"),))
    # the files of EMPIAR and IDR say all that is needed by themselves
    for lane, key in ((EMPIAR_API, "imagesets"), (IDR_API, "Pixels")):
        alone: Rules = (rule("missing_json_keys", keys=[key]),)
        yield Cell("all of the catalogue's facts absent", lane, alone)
    without: Rules = (rule("missing_json_keys", keys=["Extended"]),)
    yield Cell("needed JSON keys absent", DVID_INFO, without, (BadAnswerError, FormatError))
    yield Cell(
        "no NGFF block in .zattrs",
        S3_DOCUMENTS,
        (rule("missing_json_keys", match=r"fibsem-int16/\.zattrs", keys=["multiscales"]),),
        (FormatError, NotFoundError, BadAnswerError),
    )


def switch_cells() -> list[Cell]:
    """Cells whose faults are switches of the stand-ins."""
    return [*_http(), *_files(), *_ftp(), *_zarr(), *_json()]
