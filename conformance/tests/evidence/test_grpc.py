"""The gRPC decoder, on frames that hyperframe and hpack make as a client and a server would."""

from __future__ import annotations

import gzip
from dataclasses import replace
from itertools import pairwise
from typing import Any

import hpack
import pytest
from hyperframe import frame as frames
from hypothesis import given, settings
from hypothesis import strategies as st

from vectoracl_conformance.evidence import (
    Mark,
    Recording,
    ScopedCall,
    Session,
    Window,
    by_carries,
    grade_canaries,
    grade_structure,
)
from vectoracl_conformance.evidence.protocols.grpc import PREFACE, Call, decoder
from vectoracl_conformance.evidence.sessions import Piece, mark_of


class Words:
    """Stands for a class that protobuf generated: words with commas between."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Words) and other.words == self.words

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def FromString(cls, data: bytes, /) -> Words:  # noqa: N802
        return cls(data.decode().split(","))


SEARCH = "/store.Points/Search"
decode = decoder({SEARCH: (Words, Words)}, lambda call: sum(len(one.words) for one in call.replies))


def prefixed(*bodies: bytes, compress: bool = False) -> bytes:
    made = b""
    for body in bodies:
        data = gzip.compress(body) if compress else body
        made += bytes([compress]) + len(data).to_bytes(4, "big") + data
    return made


class Side:
    """One direction of a connection, with its own table of headers."""

    def __init__(self, *, client: bool) -> None:
        self.encoder = hpack.Encoder()
        self.bytes = PREFACE if client else b""
        self.frame(frames.SettingsFrame(0))

    def frame(self, one: frames.Frame) -> None:
        self.bytes += one.serialize()

    def headers(self, stream: int, pairs: list[tuple[str, str]], *, end: bool = False, split: int = 1) -> None:
        block = self.encoder.encode(pairs)
        size = max(1, -(-len(block) // split))
        parts = [block[start : start + size] for start in range(0, len(block), size)]
        for place, part in enumerate(parts):
            one: frames.Frame
            one = frames.HeadersFrame(stream, part) if place == 0 else frames.ContinuationFrame(stream, part)
            if place == len(parts) - 1:
                one.flags.add("END_HEADERS")
            if place == 0 and end:
                one.flags.add("END_STREAM")
            self.frame(one)

    def data(self, stream: int, data: bytes, *, size: int = 10_000, pad: int = 0, end: bool = False) -> None:
        parts = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
        for place, part in enumerate(parts):
            one = frames.DataFrame(stream, part)
            if pad:
                one.flags.add("PADDED")
                one.pad_length = pad
            if end and place == len(parts) - 1:
                one.flags.add("END_STREAM")
            self.frame(one)


def ask(client: Side, stream: int, tenant: str, *, path: str = SEARCH, coding: str = "", **how: Any) -> None:
    pairs = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a"), ("te", "trailers"),
             ("content-type", "application/grpc")]  # fmt: skip
    client.headers(stream, [*pairs, *([("grpc-encoding", coding)] if coding else [])], split=how.pop("split", 1))
    client.data(stream, prefixed(tenant.encode(), compress=bool(coding)), end=True, **how)


def answer(server: Side, stream: int, *words: str, coding: str = "", **how: Any) -> None:
    pairs = [(":status", "200"), ("content-type", "application/grpc+proto")]
    server.headers(stream, [*pairs, *([("grpc-encoding", coding)] if coding else [])], split=how.pop("split", 1))
    server.data(stream, prefixed(",".join(words).encode(), compress=bool(coding)), **how)
    server.headers(stream, [("grpc-status", "0"), ("grpc-message", how.get("message", ""))], end=True)


def session(client: Side | bytes, server: Side | bytes) -> Session:
    up = client.bytes if isinstance(client, Side) else client
    down = server.bytes if isinstance(server, Side) else server
    return Session(1, 0.0, 1.0, (Piece(0.0, "client", up), Piece(0.0, "server", down)))


def typical(*, foreign: bool = False) -> Session:
    client, server = Side(client=True), Side(client=False)
    client.frame(frames.WindowUpdateFrame(0, window_increment=1000))
    ask(client, 1, "a", coding="gzip", split=3)
    ask(client, 3, "a", size=3, pad=7)
    answer(server, 3, "cnry-own", size=4, pad=3)
    server.frame(frames.PingFrame(0, b"12345678"))
    answer(server, 1, "cnry-own", *(["cnry-foreign"] if foreign else []), coding="gzip", split=4)
    client.frame(frames.GoAwayFrame(0))
    return session(client, server)


def question(one: Session, limit: int = 1) -> ScopedCall:
    window = Window(Mark(), mark_of([one]))
    return ScopedCall("a", window, limit, frozenset({"cnry-own"}), frozenset({"cnry-foreign"}))


def test_calls_by_stream() -> None:
    decoded = decode(typical())
    assert decoded.doubts == ()
    first, second = decoded.exchanges
    for one in (first, second):
        assert isinstance(one.request, Call)
        assert one.request.path == SEARCH
        assert one.request.requests == (Words(["a"]),)
        assert one.request.replies == (Words(["cnry-own"]),)
        assert one.request.status == "0"
        assert one.rows == 1
        assert one.complete
    assert dict(first.request.metadata)["grpc-encoding"] == "gzip"


def test_grades() -> None:
    def canaries(one: Session) -> str:
        return grade_canaries(Recording((one,), 1), [decode(one)], [question(one)], constant=0).outcome

    assert canaries(typical()) == "passed"
    assert canaries(typical(foreign=True)) == "failed"
    judge = by_carries(lambda call, tenant: all(one.words == [tenant] for one in call.requests))
    one = typical()
    assert grade_structure(Recording((one,), 1), [decode(one)], [question(one)], judge).outcome == "passed"
    other = replace(question(one), tenant="b")
    assert grade_structure(Recording((one,), 1), [decode(one)], [other], judge).outcome == "failed"


def test_thirty_interleaved_calls_are_not_mixed_up() -> None:
    client, server = Side(client=True), Side(client=False)
    streams = list(range(1, 61, 2))
    for stream in streams:
        ask(client, stream, f"tenant-{stream}")
    for stream in reversed(streams):
        answer(server, stream, f"answer-{stream}")
    decoded = decode(session(client, server))
    assert decoded.doubts == ()
    for stream, one in zip(streams, decoded.exchanges, strict=True):
        assert one.request.requests[0].words == [f"tenant-{stream}"]
        assert one.request.replies[0].words == [f"answer-{stream}"]


def test_a_foreign_canary_in_a_trailer() -> None:
    client, server = Side(client=True), Side(client=False)
    ask(client, 1, "a")
    server.headers(1, [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "3"),
                       ("grpc-message", "no cnry-foreign")], end=True)  # fmt: skip
    one = session(client, server)
    assert grade_canaries(Recording((one,), 1), [decode(one)], [question(one)]).outcome == "failed"


def broken(kind: str) -> Session:
    client, server = Side(client=True), Side(client=False)
    if kind == "unknown method":
        ask(client, 1, "a", path="/store.Points/Other")
    elif kind == "unknown coding":
        client.headers(1, [(":path", SEARCH), ("content-type", "application/grpc"), ("grpc-encoding", "zstd")])
        client.data(1, prefixed(b"a", compress=True), end=True)
    elif kind == "compressed without coding":
        client.headers(1, [(":path", SEARCH), ("content-type", "application/grpc")])
        client.data(1, prefixed(b"a", compress=True), end=True)
    elif kind == "not grpc":
        client.headers(1, [(":path", SEARCH), ("content-type", "application/json")])
    elif kind == "not its class":
        ask(client, 1, "a")
        answer(server, 1, "x")
        server.bytes = server.bytes.replace(b"\0\0\0\0\x01x", b"\0\0\0\0\x01\xff")
    elif kind == "short message":
        client.headers(1, [(":path", SEARCH), ("content-type", "application/grpc")])
        client.data(1, prefixed(b"abc")[:-1], end=True)
    elif kind == "push":
        server.frame(frames.PushPromiseFrame(1, 2, b"", flags=["END_HEADERS"]))
    elif kind == "frame inside headers":
        client.frame(frames.HeadersFrame(1, client.encoder.encode([(":path", SEARCH)])))
        client.frame(frames.PingFrame(0, b"12345678"))
    elif kind == "open headers":
        client.frame(frames.HeadersFrame(1, client.encoder.encode([(":path", SEARCH)])))
    elif kind == "data first":
        client.data(1, b"x")
    elif kind == "answer without a call":
        answer(server, 1, "x")
    elif kind == "encrypted":
        return session(b"\x16\x03\x01", b"\x16\x03\x03")
    elif kind == "joined late":
        return session(typical().stream("client")[len(PREFACE) :], b"")
    elif kind == "a later start of the table":
        # What the first call put into the table is missing: the second one's headers cannot be read.
        ask(client, 1, "a")
        late = len(client.bytes)
        ask(client, 3, "a")
        return session(PREFACE + client.bytes[late:], b"")
    return session(client, server)


@pytest.mark.parametrize(
    "kind",
    ["unknown method", "unknown coding", "compressed without coding", "not grpc", "not its class", "short message",
     "push", "frame inside headers", "open headers", "data first", "answer without a call", "encrypted", "joined late",
     "a later start of the table"],
)  # fmt: skip
def test_what_is_not_read_is_a_doubt(kind: str) -> None:
    one = broken(kind)
    assert decode(one).doubts
    assert grade_canaries(Recording((one,), 1), [decode(one)], [question(one)]).outcome == "abstained"


def test_a_call_that_was_reset_is_not_complete() -> None:
    client, server = Side(client=True), Side(client=False)
    ask(client, 1, "a")
    server.headers(1, [(":status", "200"), ("content-type", "application/grpc")])
    server.data(1, prefixed(b"cnry-own"))
    server.frame(frames.RstStreamFrame(1))
    one = session(client, server)
    assert not decode(one).exchanges[0].complete
    assert grade_canaries(Recording((one,), 1), [decode(one)], [question(one)]).outcome == "abstained"


WHOLE = typical()


@settings(max_examples=80, deadline=None)
@given(cuts=st.lists(st.integers(0, 10**6), max_size=20))
def test_how_bytes_travel_changes_nothing(cuts: list[int]) -> None:
    pieces = []
    for side in ("server", "client"):
        data = WHOLE.stream(side)  # type: ignore[arg-type]
        places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
        pieces += [Piece(0.0, side, data[a:b]) for a, b in pairwise(places)]  # type: ignore[arg-type]
    assert decode(replace(WHOLE, pieces=tuple(pieces))) == decode(WHOLE)


@settings(max_examples=300, deadline=None)
@given(
    side=st.sampled_from(["client", "server"]), at=st.integers(0, 10**6), junk=st.binary(max_size=30), cut=st.booleans()
)
def test_garbage_and_truncation_never_raise(side: Any, at: int, junk: bytes, cut: bool) -> None:
    data = WHOLE.stream(side)
    at %= len(data)
    data = data[:at] if cut else data[:at] + junk + data[at + len(junk) :]
    rest = tuple(piece for piece in WHOLE.pieces if piece.side != side)
    decoded = decode(replace(WHOLE, pieces=(*rest, Piece(0.0, side, data))))
    if cut and side == "server":
        assert decoded.doubts or not all(one.complete for one in decoded.exchanges) or data == WHOLE.stream(side)
