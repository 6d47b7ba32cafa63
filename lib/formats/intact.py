"""What JPEG and PNG say of their own wholeness, which Pillow's decoders do not ask."""

from __future__ import annotations

import zlib

_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"


def check_picture(kind: str, data: bytes | bytearray) -> None:
    """Raise `ValueError` for a picture that is not whole by its own marks.

    Parameters
    ----------
    kind
        ``JPEG`` or ``PNG``.
    """
    if kind == "JPEG":
        _check_jpeg(data)
    else:
        _check_png(data)


def _check_jpeg(data: bytes | bytearray) -> None:
    """The end mark must stand behind the last scan: a decoder fills up what is missing.

    The data of a scan cannot hold the mark: a byte 255 in them is followed by a zero (ITU T.81,
    B.1.1.5). A thumbnail's mark lies before the scan of its picture.
    """
    scan = data.rfind(_SCAN)
    if scan < 0 or data.find(_END, scan) < 0:
        raise ValueError("it ends before its picture does")


def _check_png(data: bytes | bytearray) -> None:
    """Every chunk must fit its CRC-32, up to the last one: the decoder looks at those of few."""
    view, at = memoryview(data), len(_PNG)
    if data[:at] != _PNG:
        raise ValueError("it does not begin as one")
    while True:
        length = int.from_bytes(view[at : at + 4], "big")
        stop = at + 12 + length
        if stop > len(view):
            raise ValueError("it ends before its picture does")
        body = view[at + 4 : stop - 4]
        if zlib.crc32(body) != int.from_bytes(view[stop - 4 : stop], "big"):
            raise ValueError(f"its chunk at {at} does not fit its CRC-32")
        if bytes(body[:4]) == b"IEND":
            return
        at = stop
