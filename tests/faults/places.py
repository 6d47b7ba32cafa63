"""The rest of the fault matrix: destinations, addresses, credentials, ids, sources that change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lib.config.loaders import EPFL_FILE_PATH
from lib.errors import (
    AccessDeniedError,
    DestinationError,
    DestinationFullError,
    NotFoundError,
    TransportError,
    UnsupportedFormatError,
)
from tests.faults import situations as at
from tests.faults.cells import (
    DVID_INFO,
    EMPIAR_API,
    EMPIAR_FTP,
    EMPIAR_HTTPS,
    EPFL,
    IDR_API,
    IDR_FTP,
    IDR_HTTPS,
    IDR_RANGES,
    S3,
    Cell,
    Lane,
    Rules,
    rule,
)

FOLDER = Lane("to a folder", "epfl", "epfl", "", {"chunk_zyx": (4, 32, 64), "shard_mb": 0.03})
FOLDER_CHUNKS = Lane("to a folder, from Zarr", "openorganelle", "s3", "")
# Few shards: each costs several requests, and SeaweedFS shares the machine.
TO_BUCKET = Lane(
    "to a bucket",
    "epfl",
    "destination",
    "",
    {"chunk_zyx": (12, 48, 64), "shard_mb": 0.08, "keep_raw": False},
)
PLACES = (FOLDER, FOLDER_CHUNKS, TO_BUCKET)

FULL = (DestinationFullError,)
FAILS = (DestinationError,)


def _folder() -> Iterator[Cell]:
    """Real full and read-only disks first, then what only a broken disk would answer."""
    for lane in (FOLDER, FOLDER_CHUNKS):
        for size in ("16k", "160k", "240k"):
            # What is certain to be stored is held against the free space before it is begun.
            certain = size == "16k"
            said = "are needed at least" if certain else "no space is left"
            yield Cell(
                f"disk of {size} is full", lane, ends=FULL, said=said,
                situation=at.full_disk(size), unwritable=True,
            )  # fmt: skip
        yield Cell(
            "disk is mounted read-only", lane, ends=FAILS, said="read-only",
            situation=at.read_only_disk, unwritable=True,
        )  # fmt: skip
        yield Cell(
            "no permission", lane, ends=FAILS, said="perm", situation=at.no_permission,
            unwritable=True,
        )  # fmt: skip
        yield Cell(
            "a file in the folder's place", lane, ends=FAILS, said="a file lies where",
            situation=at.file_in_the_way, unwritable=True,
        )  # fmt: skip
        for number, label, ends in (
            (at.IO_ERROR, "EIO", FAILS),
            (at.FULL, "ENOSPC", FULL),
            (at.QUOTA, "EDQUOT", FULL),
        ):
            for after in (0, 5, 9):
                yield Cell(
                    f"{label} after {after} writes", lane, ends=ends,
                    situation=at.failing_writes(number, after), unwritable=True,
                )  # fmt: skip
    yield Cell("EIO in a raw file", FOLDER, ends=FAILS, situation=at.failing_raw_files(at.IO_ERROR))
    yield Cell("file size limit (EFBIG)", FOLDER, ends=FAILS, situation=at.file_size_limit(20_000))


def _bucket() -> Iterator[Cell]:
    def cell(fault: str, rules: Rules = (), ends: Any = (), **more: Any) -> Cell:
        return Cell(fault, TO_BUCKET, rules, ends, bucket=True, **more)

    put = {"methods": ["PUT"]}
    shard = r"\.ome\.zarr/0/c/"
    yield cell("lost reply to a shard", (rule("lost_reply", match=shard, first_n=2),))
    yield cell("lost reply to a record", (rule("lost_reply", match="metadata_", first_n=1),))
    yield cell("lost reply to each write, once", (rule("lost_reply", per_path=True, first_n=1),))
    yield cell("503 twice", (rule("status_503", match=shard, first_n=2, **put),))
    yield cell("500 twice", (rule("status_500", match=shard, first_n=2, **put),))
    yield cell("reset twice", (rule("reset", before=True, match=shard, first_n=2, **put),))
    yield cell(
        "503 for ever",
        (rule("status_503", match=shard, **put),),
        (DestinationError, TransportError),
    )
    yield cell("403 on a shard", (rule("status_403", match=shard, **put),), (AccessDeniedError,))
    yield cell(
        "403 on the root document",
        (rule("status_403", match=r"\.ome\.zarr/zarr\.json", **put),),
        (AccessDeniedError,),
    )
    yield cell(
        "wrong credentials", ends=(AccessDeniedError,), unwritable=True,
        situation=at.destination(**at.WRONG_SECRET),
    )  # fmt: skip
    yield cell(
        "refused port", ends=(DestinationError, TransportError), unwritable=True,
        situation=at.destination(endpoint_url=f"http://{at.CLOSED}"),
    )  # fmt: skip
    yield cell(
        "DNS failure", ends=(DestinationError, TransportError), unwritable=True,
        situation=at.destination(endpoint_url=f"http://{at.NOWHERE}"),
    )  # fmt: skip


def _addresses() -> Iterator[Cell]:
    """Each source's address is closed, unknown to DNS, unreachable, or does not speak TLS."""
    hosts = (("refused port", at.CLOSED), ("DNS failure", at.NOWHERE), ("no route", at.NO_ROUTE))
    by_lane = (
        (EMPIAR_API, "api_base_url", "http://{}/empiar/api"),
        (EMPIAR_FTP, "ftp_server", "{}"),
        (EMPIAR_HTTPS, "https_base_url", "http://{}"),
        (EPFL, "download_url", "http://{}" + EPFL_FILE_PATH),
        (DVID_INFO, "dvid_server", "http://{}"),
        (IDR_API, "api_base_url", "http://{}"),
        (IDR_FTP, "ftp_host", "{}"),
        (IDR_HTTPS, "https_base_url", "http://{}"),
        (S3, "s3_endpoint_url", "http://{}"),
    )
    for lane, setting, form in by_lane:
        for fault, host in hosts:
            situation = at.given(**{setting: form.format(host)})
            yield Cell(fault, lane, ends=(TransportError,), situation=situation)
        if "http" in form:
            path = form.partition("{}")[2]
            wrong = {setting: at.over_tls(lane.service, path)}
            yield Cell("TLS failure", lane, ends=(TransportError,), situation=at.given(**wrong))


def _ids() -> Iterator[Cell]:
    absent = (NotFoundError,)
    yield Cell("unknown entry", EMPIAR_API, ends=absent, situation=at.given(entry_id="12345"))
    yield Cell("unknown image id", IDR_API, ends=absent, situation=at.given(image_ids=[4242]))
    yield Cell("unknown dataset id", IDR_API, ends=absent, situation=at.given(dataset_id=4242))
    yield Cell("unknown uuid", DVID_INFO, ends=absent, situation=at.given(uuid="deadbeef"))
    yield Cell("unknown instance", DVID_INFO, ends=absent, situation=at.given(instance="absent"))
    yield Cell("unknown file", EPFL, ends=absent, situation=at.given(download_url=at.missing_file))
    yield Cell(
        "missing bucket", S3, ends=absent, said="bucket",
        situation=at.given(s3_uri="s3://no-such-bucket"),
    )  # fmt: skip
    yield Cell(
        "unknown dataset", S3, ends=absent,
        situation=at.given(dataset_id="jrc_absent", zarr_path="recon-1/em"),
    )  # fmt: skip
    yield Cell("unknown level", S3, ends=absent, situation=at.given(scale_level="s7"))
    yield Cell(
        "wrong credentials", S3, ends=(AccessDeniedError,),
        situation=at.given(s3_key="AKIAWRONG", s3_secret="kept-to-itself", s3_anonymous=False),
    )  # fmt: skip
    separator = {
        "dataset_id": "jrc_sample-separator", "zarr_path": "recon-1/em", "scale_level": "s0"
    }  # fmt: skip
    yield Cell(
        "unsupported dtype", S3, ends=(UnsupportedFormatError,), settings=separator,
        situation=at.complex_array,
    )  # fmt: skip


def _changed() -> Iterator[Cell]:
    """The archive's file or array is another one when the second half comes."""
    fault = "changed between two halves"
    later = {"kind": "status_503", "match": r"slice_0002\.dm3", "methods": ["GET"]}
    swapped = at.swapped_files("F57-8*slice_000*.dm3", **{**later, "service": "mirror"})
    yield Cell(fault, EMPIAR_HTTPS, situation=swapped, truth=at.swap_planes)
    ftp = {"kind": "reply_550", "service": "ftp", "match": r"slice_0002\.dm3", "methods": ["RETR"]}
    swapped = at.swapped_files("F57-8*slice_000*.dm3", **ftp)
    yield Cell(fault, EMPIAR_FTP, situation=swapped, truth=at.swap_planes)

    small = {"chunk_size_mb": 0.02, "chunk_zyx": (4, 32, 64), "shard_mb": 0.03}
    late = {"kind": "status_503", "service": "epfl", "skip": 6}
    yield Cell(
        fault, EPFL, settings=small, truth=at.invert_rows,
        situation=at.inverted_rows("volumedata.tif", "epfl/volumedata.tif", **late),
    )  # fmt: skip
    for lane in (IDR_HTTPS, IDR_RANGES):
        cut = {"kind": "short_body", "service": "mirror", "match": "Figure_S3B", "skip": 2}
        yield Cell(
            fault, lane, truth=at.invert_rows,
            situation=at.inverted_rows("Figure_S3B*xy.tif", "idr/9846137", **cut),
        )  # fmt: skip
    chunk = {"kind": "status_503", "service": "s3", "match": "s1/0/1/1"}
    prefix = "jrc_mus-nacc-2/jrc_mus-nacc-2.zarr/recon-2/em/fibsem-int16/s1"
    yield Cell(fault, S3, truth=np.invert, situation=at.inverted_chunks(prefix, **chunk))


def place_cells() -> list[Cell]:
    """Cells whose faults are no switches of the archives' stand-ins."""
    return [*_folder(), *_bucket(), *_addresses(), *_ids(), *_changed()]
