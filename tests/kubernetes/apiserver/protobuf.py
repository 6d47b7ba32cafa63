"""The binary form in which helm sends its own Secrets: enough of it for a Secret.

Field numbers are those of Kubernetes' ``generated.proto``, the wire format is Protocol Buffers'.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

MAGIC = b"k8s\0"


def secret(sent: bytes) -> dict[str, Any]:
    """A Secret out of a request's body; options of a deletion come to an empty object."""
    assert sent.startswith(MAGIC)
    unknown = dict(_fields(sent[len(MAGIC) :]))
    about = dict(_fields(unknown[1]))
    if about.get(2) != b"Secret":
        return {}
    found: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {}}
    meta = found["metadata"]
    for number, value in _fields(unknown[2]):
        if number == 1:
            for field, part in _fields(value):
                if field in (1, 3, 6):
                    meta[{1: "name", 3: "namespace", 6: "resourceVersion"}[field]] = part.decode()
                elif field in (11, 12):
                    key, text = _pair(part)
                    meta.setdefault({11: "labels", 12: "annotations"}[field], {})[key] = (
                        text.decode()
                    )
        elif number == 2:
            key, data = _pair(value)
            found["data"][key] = base64.b64encode(data).decode()
        elif number == 3:
            found["type"] = value.decode()
    return {**found, "metadata": {key: text for key, text in meta.items() if text}}


def _pair(entry: bytes) -> tuple[str, bytes]:
    fields = dict(_fields(entry))
    return fields[1].decode(), fields.get(2, b"")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers and contents of the fields that have a length; numbers are passed over."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        value, place = _varint(message, place)
        if tag & 7 == 2:
            yield tag >> 3, message[place : place + value]
            place += value
        else:
            assert tag & 7 == 0, f"wire type {tag & 7}"


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
