"""An ETag is held against the bytes once it is known to be their digest, and never before."""

from __future__ import annotations

import hashlib

import pytest

from lib.errors import IncompleteTransferError
from lib.transport.http_wire import Answer, Headers
from lib.transport.s3.reader import EtagProof


def tag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def check(
    proof: EtagProof, data: bytes, etag: str | None, headers: dict[str, str] | None = None
) -> None:
    named = {name.lower(): value for name, value in (headers or {}).items()}
    if etag is not None:
        named["etag"] = etag
    (fault,) = proof.faults([Answer(200, Headers(named), memoryview(data), lasting=True)])
    if fault is not None:
        raise fault


def test_once_tags_are_digests_other_bytes_are_refused_every_time() -> None:
    proof = EtagProof()
    check(proof, b"one", tag(b"one"))
    for _ in range(3):
        with pytest.raises(IncompleteTransferError, match="not those of the object's ETag"):
            check(proof, b"cut", tag(b"whole"))
    check(proof, b"whole", tag(b"whole"))


def test_a_bucket_whose_tags_are_something_else_is_believed_after_a_second_look() -> None:
    """Encrypted objects: their tags look like digests, and are none."""
    proof = EtagProof()
    with pytest.raises(IncompleteTransferError):
        check(proof, b"one", tag(b"the encrypted form"))
    check(proof, b"one", tag(b"the encrypted form"))
    check(proof, b"two", tag(b"of something else"))


def test_bytes_that_differ_the_second_time_prove_nothing_about_the_tags() -> None:
    proof = EtagProof()
    for data in (b"cut here", b"cut there", b"cut elsewhere"):
        with pytest.raises(IncompleteTransferError):
            check(proof, data, tag(b"whole"))
    check(proof, b"whole", tag(b"whole"))


@pytest.mark.parametrize("etag", [None, "", '"0123-4"', '"not a digest"'])
def test_a_tag_that_cannot_be_a_digest_is_left_alone(etag: str | None) -> None:
    check(EtagProof(), b"one", etag)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-server-side-encryption": "aws:kms"},
        {"x-amz-server-side-encryption": "aws:kms:dsse"},
        {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
    ],
)
def test_an_object_that_is_said_to_be_encrypted_proves_nothing(headers: dict[str, str]) -> None:
    """A bucket may hold objects of both kinds."""
    proof = EtagProof()
    for _ in range(2):
        check(proof, b"one", tag(b"its encrypted form"), headers)
        check(proof, b"two", tag(b"two"), {"x-amz-server-side-encryption": "AES256"})
    with pytest.raises(IncompleteTransferError):
        check(proof, b"cut", tag(b"whole"), {"x-amz-server-side-encryption": "AES256"})


def test_over_tls_the_default_trusts_the_wire_and_always_does_not() -> None:
    check(EtagProof("plain-http", over_tls=True), b"cut", tag(b"whole"))
    for looks in (EtagProof("always", over_tls=True), EtagProof("plain-http")):
        with pytest.raises(IncompleteTransferError):
            check(looks, b"cut", tag(b"whole"))


def test_a_sample_looks_at_one_object_of_sixteen_and_at_the_same_ones_again() -> None:
    refused = [[n for n in range(640) if _refused(n)] for _ in range(2)]
    assert refused[0] == refused[1]
    assert 20 < len(refused[0]) < 65


def _refused(number: int) -> bool:
    proof = EtagProof("sample")
    try:
        check(proof, b"cut", tag(str(number).encode()))
    except IncompleteTransferError:
        return True
    return False
