"""gRPC over HTTP/2 from the first byte of a connection: calls with their messages, attributed by stream.

hyperframe cuts the frames and hpack reads the headers, whose table lives as long as the connection: a recording that
begins later cannot be read at all. What a message means is known by the store's own client classes, given by path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import hpack
from hyperframe import frame as frames

from vectoracl_conformance.evidence.exchanges import CannotDecodeError, Decoded, Decoder, Exchange
from vectoracl_conformance.evidence.protocols.http1 import inflate
from vectoracl_conformance.evidence.sessions import Session, Side

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TABLE = 1 << 20
_LIST = 1 << 20


class MessageClass(Protocol):
    """A class that protobuf generated."""

    def FromString(self, data: bytes, /) -> Any:  # noqa: N802 - protobuf's name
        """Return the message in *data*."""
        ...


Classes = Mapping[str, tuple[MessageClass, MessageClass]]
"""A method's path ("/package.Service/Method") to the classes of its request and its reply."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: path, metadata, what was sent and what came back as messages; `status` is gRPC's, "" if none came."""

    path: str
    metadata: tuple[tuple[str, str], ...]
    requests: tuple[Any, ...] = field(repr=False)
    replies: tuple[Any, ...] = field(repr=False)
    status: str = ""


CountRows = Callable[[Call], int | None]


def decoder(classes: Classes, rows: CountRows) -> Decoder:
    """Return the decoder of a store; *rows* counts the rows of a call's replies, None where it cannot."""

    def decode(session: Session) -> Decoded:
        return _Reader(session, classes, rows).decoded()

    return decode


@dataclass(slots=True)
class _Half:
    """One direction of one stream."""

    start: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    blocks: int = 0
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


class _Reader:
    def __init__(self, session: Session, classes: Classes, rows: CountRows) -> None:
        self._session = session
        self._classes = classes
        self._rows = rows
        self._doubts: list[str] = []

    def decoded(self) -> Decoded:
        exchanges: list[Exchange] = []
        if self._session.stream("client") or self._session.stream("server"):
            requests = self._direction("client")
            answered = self._direction("server")
            for place, stream in enumerate(sorted(requests, key=lambda one: requests[one].start), 1):
                try:
                    exchanges.append(self._exchange(place, requests[stream], answered.get(stream)))
                except CannotDecodeError as error:
                    self._doubt(f"stream {stream}: {error}")
            for stream in answered.keys() - requests.keys():
                self._doubt(f"stream {stream}: an answer that nothing asked for")
        return Decoded(tuple(exchanges), tuple(self._doubts))

    def _doubt(self, text: str) -> None:
        self._doubts.append(f"connection {self._session.number}: {text}")

    def _direction(self, side: Side) -> dict[int, _Half]:
        halves: dict[int, _Half] = {}
        try:
            self._read(side, halves)
        except CannotDecodeError as error:
            self._doubt(f"the {side}'s side: {error}")
        except Exception as error:  # noqa: BLE001 - whatever the libraries make of garbage, it was not read
            self._doubt(f"the {side}'s side is not HTTP/2 ({type(error).__name__})")
        return halves

    def _read(self, side: Side, halves: dict[int, _Half]) -> None:
        stream = self._session.stream(side)
        at = 0
        if side == "client":
            if stream[:2] == b"\x16\x03":
                raise CannotDecodeError("encrypted")
            if not stream.startswith(PREFACE):
                raise CannotDecodeError("no preface of HTTP/2")
            at = len(PREFACE)
        table = hpack.Decoder(max_header_list_size=_LIST)
        table.max_allowed_table_size = _TABLE  # what was agreed is kept by the two; sizes are announced in the headers
        open_block: tuple[int, bytearray, bool, int] | None = None
        for start, one in _frames(stream, at):
            if open_block is not None and not (
                isinstance(one, frames.ContinuationFrame) and one.stream_id == open_block[0]
            ):
                raise CannotDecodeError("a frame inside of a block of headers")
            match one:
                case frames.PushPromiseFrame():
                    raise CannotDecodeError("a push promise")
                case frames.HeadersFrame():
                    open_block = (one.stream_id, bytearray(one.data), "END_STREAM" in one.flags, start)
                case frames.ContinuationFrame():
                    if open_block is None:
                        raise CannotDecodeError("a continuation of nothing")
                    open_block[1].extend(one.data)
                case frames.DataFrame():
                    if one.stream_id not in halves:
                        raise CannotDecodeError("data before headers")
                    half = halves[one.stream_id]
                    if half.ended:
                        raise CannotDecodeError("data after the end of its stream")
                    half.data += one.data
                    half.ended = "END_STREAM" in one.flags
                    continue
                case frames.SettingsFrame() | frames.PingFrame() | frames.WindowUpdateFrame() | frames.PriorityFrame():
                    continue
                case frames.GoAwayFrame() | frames.RstStreamFrame():
                    continue  # what came before stays; an unfinished message is noticed where it is cut
                case _:
                    continue  # an extension has to be ignored (RFC 9113, 5.5)
            if "END_HEADERS" in one.flags:
                number, block, last, began = open_block
                open_block = None
                half = halves.setdefault(number, _Half(began))
                for name, value in table.decode(bytes(block)):
                    half.headers.append((_text(name), _text(value)))
                half.blocks += 1
                half.ended = half.ended or last
        if open_block is not None:
            raise CannotDecodeError("cut off inside of a block of headers")

    def _exchange(self, place: int, asked: _Half, answered: _Half | None) -> Exchange:
        path = asked.header(":path")
        answer = answered or _Half(0)
        if not asked.header("content-type").startswith("application/grpc"):
            raise CannotDecodeError(f"{path} is not gRPC")
        if path not in self._classes:
            raise CannotDecodeError(f"the method {path} is not known")
        ask, reply = self._classes[path]
        messages = list(_messages(asked))
        got = list(_messages(answer)) if answer.header("content-type").startswith("application/grpc") else None
        if got is None:
            got = []
            if answer.data:
                raise CannotDecodeError(f"the reply of {path} is not gRPC")
        call = Call(
            path,
            tuple((name, value) for name, value in asked.headers if not name.startswith(":")),
            _parsed(ask, messages),
            _parsed(reply, got),
            answer.header("grpc-status"),
        )
        try:
            counted = self._rows(call)
        except Exception:  # noqa: BLE001 - a store's own code; what it cannot read is not counted
            counted = None
        lines = "\n".join(f"{name}: {value}" for name, value in answer.headers).encode("utf-8", "surrogateescape")
        values = (*got, lines) if answered is not None else ()
        complete = answer.ended
        return Exchange(self._session.number, place, asked.start, path, call, values, counted, complete=complete)


def _frames(stream: bytes, at: int) -> Iterator[tuple[int, frames.Frame]]:
    view = memoryview(stream)
    while at < len(stream):
        if len(stream) - at < 9:
            raise CannotDecodeError("the last frame is cut off")
        one, length = frames.Frame.parse_frame_header(view[at : at + 9])
        if at + 9 + length > len(stream):
            raise CannotDecodeError("the last frame is cut off")
        one.parse_body(view[at + 9 : at + 9 + length])
        yield at, one
        at += 9 + length


def _messages(half: _Half) -> Iterator[bytes]:
    """Yield the length-prefixed messages of one direction, decompressed."""
    coding = half.header("grpc-encoding").strip().lower()
    data = bytes(half.data)
    at = 0
    while at < len(data):
        if len(data) - at < 5:
            raise CannotDecodeError("a message is cut off")
        flag, length = data[at], int.from_bytes(data[at + 1 : at + 5], "big")
        body = data[at + 5 : at + 5 + length]
        if len(body) < length:
            raise CannotDecodeError("a message is cut off")
        if flag not in (0, 1):
            raise CannotDecodeError("a message with an unknown flag")
        if flag:
            if coding in ("", "identity"):
                raise CannotDecodeError("a compressed message without a coding")
            body = inflate(body, coding)
        yield body
        at += 5 + length


def _parsed(made_by: MessageClass, bodies: Sequence[bytes]) -> tuple[Any, ...]:
    try:
        return tuple(made_by.FromString(body) for body in bodies)
    except Exception as error:
        raise CannotDecodeError(f"a message is not what its class reads ({type(error).__name__})") from error


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
