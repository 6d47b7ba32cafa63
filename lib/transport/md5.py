"""MD5 of many messages at once, each in a lane of a vector, where that is faster than hashlib.

MD5 is a chain of steps that wait for each other, so that one message leaves most of a core idle.
Sixteen in the lanes of one vector take hardly longer than two by hashlib. The loop is written in
the language of LLVM, which numba brings along, and compiled in some 50 ms; numba itself would take
seconds for it. Where it cannot be compiled, or is found wrong, hashlib does all of it.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from itertools import islice
from typing import Any, cast

import numpy as np

from lib.concurrency.bounded_map import take_compute_slot

LANES = 16
COMPILED_AFTER = 32 * 2**20
"""Bytes hashed before the loop is compiled: a small volume ends sooner without it."""

_LEAST_LANES = 3  # in use: of fewer messages hashlib is as fast
_SMALL = 2**14  # bytes for which nobody looks for others
_START = np.array([0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476], np.uint32)
_log = logging.getLogger(__name__)

Message = memoryview | bytes
_Digests = Callable[[Sequence[Message]], list[str]]


class _Waiting:
    """A message whose digest somebody waits for."""

    __slots__ = ("digest", "message", "size")

    def __init__(self, message: Message) -> None:
        self.message, self.size = message, len(message)
        self.digest: str | None = None


class Md5:
    """Hexadecimal digests of messages; those of several threads are hashed together. Thread-safe.

    A thread leaves its messages where the others find them, and waits for a compute slot. Whoever
    has one hashes, besides its own, what the others wait with, and spares them to do so.
    """

    def __init__(self, compiled_after: int = COMPILED_AFTER) -> None:
        self._compiled_after, self._seen = compiled_after, 0
        self._compiled: _Digests | None = None
        self._guard, self._hashing = threading.Lock(), threading.Lock()
        self._waiting: dict[int, _Waiting] = {}

    def digests(self, messages: Sequence[Message]) -> list[str]:
        """Of each message, in order; a compute slot may have been taken for it."""
        size = sum(map(len, messages))
        if size < _SMALL:
            return [by_hashlib(message) for message in messages]
        if self._compiled is None:
            take_compute_slot()
            found = [by_hashlib(message) for message in messages]
            self._note(size)
            return found
        own = [_Waiting(message) for message in messages]
        with self._guard:
            self._waiting.update((id(one), one) for one in own)
        try:
            take_compute_slot(lambda: own[-1].digest is not None)
            for first in range(0, len(own), LANES):
                self._hash(own[first : first + LANES], self._compiled)
        finally:
            with self._guard:
                for one in own:
                    self._waiting.pop(id(one), None)
        return [one.digest or by_hashlib(one.message) for one in own]

    def _hash(self, own: Sequence[_Waiting], compiled: _Digests) -> None:
        with self._hashing:  # what somebody else hashes at the moment may be ours
            with self._guard:
                batch = [one for one in own if one.digest is None]
                if not batch:
                    return
                longest = max(one.size for one in batch)
                # one that is far longer would keep all other lanes waiting
                others = (one for one in self._waiting.values() if one.size <= 2 * longest)
                others = (one for one in others if one not in batch)
                batch += islice(others, LANES - len(batch))
                if sum(one.size for one in batch) < _LEAST_LANES * max(one.size for one in batch):
                    return
                for one in batch:
                    self._waiting.pop(id(one), None)  # gone where another batch failed
            found = compiled([one.message for one in batch])
            for one, digest in zip(batch, found, strict=True):
                one.digest = digest

    def _note(self, size: int) -> None:
        """Compile the loop once enough was hashed; meanwhile other threads go on with hashlib."""
        with self._guard:
            before = self._seen
            self._seen += size
        if before < self._compiled_after <= before + size:  # once
            self._compiled = compile_lanes()


def by_hashlib(message: Message) -> str:
    return hashlib.md5(message, usedforsecurity=False).hexdigest()


MD5 = Md5()
"""That of the process."""


def compile_lanes() -> _Digests | None:
    """A function that hashes up to `LANES` messages at once; None where there can be none."""
    try:
        digests = partial(_in_lanes, _compile())
    except Exception as error:  # of LLVM, for a processor or a release that it does not know
        _log.info("MD5 is computed one by one: %s", error)
        return None
    samples = [bytes(range(256))[: 17 * n] * (n + 1) for n in range(LANES)]
    if digests(samples) != [by_hashlib(sample) for sample in samples]:
        _log.warning("MD5 is computed one by one: the compiled loop is wrong on this machine")
        return None
    return digests


def _in_lanes(function: Callable[..., None], messages: Sequence[Message]) -> list[str]:
    """Digests of up to `LANES` messages of any length."""
    # RFC 1321, 3.1 and 3.2: a one, zeros, and the length in bits fill the last block or two
    tails, rows = [], []
    for message in messages:
        size = len(message)
        whole, rest = divmod(size, 64)
        ends = 64 if rest < 56 else 128
        padding = b"\x80".ljust(ends - 8 - rest, b"\0") + (8 * size % 2**64).to_bytes(8, "little")
        tails.append((bytes(message[size - rest :]) + padding).ljust(128, b"\0"))
        bytes_ = np.frombuffer(message, np.uint8) if size else _START
        rows.append((bytes_.__array_interface__["data"][0], whole, whole + ends // 64))
    tail = np.frombuffer(b"".join(tails), np.uint8)
    lanes = np.zeros((4, LANES), np.int64)
    lanes[[0, 2, 3], : len(rows)] = np.array(rows, np.int64).T
    lanes[1] = tail.__array_interface__["data"][0]
    lanes[1, : len(rows)] += np.arange(0, 128 * len(rows), 128)
    lanes[3, len(rows) :] = 1  # a lane without a message hashes something that nobody looks at
    state = np.repeat(_START[:, None], LANES, axis=1)
    function(*(a.__array_interface__["data"][0] for a in (state, lanes)), int(lanes[3].max()))
    digests = np.ascontiguousarray(state.T).astype("<u4", copy=False).tobytes().hex()
    return [digests[32 * n : 32 * n + 32] for n in range(len(messages))]


def _compile() -> Callable[..., None]:
    """The compiled loop; it is called without the interpreter's lock."""
    llvm: Any = import_module("llvmlite.binding")  # small volumes do without
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    host = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    machine = llvm.Target.from_default_triple().create_target_machine(*host, opt=2)
    module = llvm.parse_assembly(_source())
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    function: Any = kind(engine.get_function_address("md5"))
    function.lives_in = engine
    return cast(Callable[..., None], function)


# RFC 1321, 3.4: in each of four rounds of 16 steps, which word is added, by how much is rotated
_WORDS = [
    (by * step + first) % 16 for by, first in ((1, 0), (5, 1), (3, 5), (7, 0)) for step in range(16)
]
_TURNS = [
    turns[step % 4]
    for turns in ((7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21))
    for step in range(16)
]
_SINES = [int(abs(math.sin(step + 1)) * 2**32) for step in range(64)]


class _Lines:
    """Instructions of a function, each of whose values has a number of its own."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def __call__(self, instruction: str) -> str:
        name = f"%v{len(self.text)}"
        self.text.append(f"{name} = {instruction}")
        return name


def _all(value: int, kind: str) -> str:
    return "<" + ", ".join([f"{kind} {value}"] * LANES) + ">"


def _source() -> str:
    """The loop over blocks of 64 bytes, for `LANES` messages, in the language of LLVM.

    Its parameters: the state, uint32 of shape (4, lanes), which is read and written; int64 of shape
    (4, lanes): address of the message, address of its padded end, whole blocks in the message, and
    all blocks; how many blocks the longest has.
    """
    vec, wide, mask = f"<{LANES} x i32>", f"<{LANES} x i64>", f"<{LANES} x i1>"
    line = _Lines()
    # where each lane reads: in its message, then in its end; one that is done reads its last again
    one = line(f"insertelement {wide} poison, i64 %block, i64 0")
    zeros = f"<{LANES} x i32> zeroinitializer"
    number = line(f"shufflevector {wide} {one}, {wide} poison, {zeros}")
    goes_on = line(f"icmp ult {wide} {number}, %all")
    last = line(f"sub {wide} %all, {_all(1, 'i64')}")
    number = line(f"select {mask} {goes_on}, {wide} {number}, {wide} {last}")
    inside = line(f"icmp ult {wide} {number}, %whole")
    in_end = line(f"sub {wide} {number}, %whole")
    offset = line(f"select {mask} {inside}, {wide} {number}, {wide} {in_end}")
    base = line(f"select {mask} {inside}, {wide} %message, {wide} %end")
    offset = line(f"shl {wide} {offset}, {_all(6, 'i64')}")
    place = line(f"add {wide} {base}, {offset}")
    rows = []
    for lane in range(LANES):
        address = line(f"extractelement {wide} {place}, i64 {lane}")
        pointer = line(f"inttoptr i64 {address} to ptr")
        rows.append(line(f"load {vec}, ptr {pointer}, align 1"))
    words = _transposed(rows, line)
    a, b, c, d = (f"%old{n}" for n in range(4))
    for step in range(64):
        mixed = _mix(step // 16, b, c, d, line)
        total = line(f"add {vec} {words[_WORDS[step]]}, {_all(_SINES[step], 'i32')}")
        total = line(f"add {vec} {total}, {a}")
        total = line(f"add {vec} {total}, {mixed}")
        by = _all(_TURNS[step], "i32")
        total = line(f"call {vec} @llvm.fshl.v{LANES}i32({vec} {total}, {vec} {total}, {vec} {by})")
        a, b, c, d = d, line(f"add {vec} {total}, {b}"), b, c
    for n, value in enumerate((a, b, c, d)):
        total = line(f"add {vec} {value}, %old{n}")
        line.text.append(f"%new{n} = select {mask} {goes_on}, {vec} {total}, {vec} %old{n}")
    names = enumerate(("message", "end", "whole", "all"))
    return "\n".join(
        [
            f"declare {vec} @llvm.fshl.v{LANES}i32({vec}, {vec}, {vec})",
            "define void @md5(ptr %state, ptr %lanes, i64 %blocks) {",
            "entry:",
            *(f"%at_{name} = getelementptr {wide}, ptr %lanes, i64 {n}" for n, name in names),
            *(
                f"%{name} = load {wide}, ptr %at_{name}, align 8"
                for name in ("message", "end", "whole", "all")
            ),
            *(f"%at{n} = getelementptr {vec}, ptr %state, i64 {n}" for n in range(4)),
            *(f"%start{n} = load {vec}, ptr %at{n}, align 4" for n in range(4)),
            "br label %loop",
            "loop:",
            "%block = phi i64 [0, %entry], [%next, %loop]",
            *(f"%old{n} = phi {vec} [%start{n}, %entry], [%new{n}, %loop]" for n in range(4)),
            *line.text,
            "%next = add i64 %block, 1",
            "%more = icmp ult i64 %next, %blocks",
            "br i1 %more, label %loop, label %end_of_loop",
            "end_of_loop:",
            *(f"store {vec} %new{n}, ptr %at{n}, align 4" for n in range(4)),
            "ret void",
            "}",
        ]
    )


def _mix(round_: int, b: str, c: str, d: str, line: _Lines) -> str:
    """RFC 1321's F, G, H and I, with as few operations as possible."""
    vec = f"<{LANES} x i32>"
    if round_ < 2:  # F chooses c or d by b, G chooses b or c by d
        by, one, other = (b, c, d) if round_ == 0 else (d, b, c)
        differs = line(f"xor {vec} {one}, {other}")
        chosen = line(f"and {vec} {differs}, {by}")
        return line(f"xor {vec} {chosen}, {other}")
    if round_ == 2:
        differs = line(f"xor {vec} {c}, {d}")
        return line(f"xor {vec} {differs}, {b}")
    inverse = line(f"xor {vec} {d}, {_all(-1, 'i32')}")
    either = line(f"or {vec} {b}, {inverse}")
    return line(f"xor {vec} {c}, {either}")


def _transposed(rows: list[str], line: _Lines) -> list[str]:
    """Words of the lanes in place of lanes of words: blocks of twice the size in each step."""
    vec, step = f"<{LANES} x i32>", 1
    while step < LANES:
        new = list(rows)
        for n in range(LANES):
            if n & step:
                continue
            pair = f"{vec} {rows[n]}, {vec} {rows[n + step]}"
            low = [k if not k & step else LANES + k - step for k in range(LANES)]
            high = [k + step if not k & step else LANES + k for k in range(LANES)]
            for at, chosen in ((n, low), (n + step, high)):
                picks = "<" + ", ".join(f"i32 {k}" for k in chosen) + ">"
                new[at] = line(f"shufflevector {pair}, <{LANES} x i32> {picks}")
        rows, step = new, 2 * step
    return rows
