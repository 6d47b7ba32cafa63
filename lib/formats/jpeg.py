"""Whether a JPEG is whole, which its decoders do not say: they fill up what is missing."""

from __future__ import annotations

_SCAN, _END = b"\xff\xda", b"\xff\xd9"


def is_whole(data: bytes | bytearray) -> bool:
    """Whether the end mark stands behind the last scan.

    The data of a scan cannot hold the mark: a byte 255 in them is followed by a zero (ITU T.81,
    B.1.1.5). A thumbnail's mark lies before the scan of its picture.
    """
    scan = data.rfind(_SCAN)
    return scan >= 0 and data.find(_END, scan) >= 0
