"""What HTTP/2 says of the connection is no traffic of a query; everything else is."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hyperframe import frame as frames

from vectoracl_conformance.evidence.protocols.grpc import PREFACE
from vectoracl_conformance.evidence.protocols.http2 import without_control
from vectoracl_conformance.evidence.sessions import Piece, Session
from vectoracl_conformance.evidence.volume import traffic

CONTROL = (
    frames.SettingsFrame(0, {1: 4096, 2: 0}).serialize()
    + frames.SettingsFrame(0, flags=["ACK"]).serialize()
    + frames.PingFrame(0, b"12345678").serialize()
    + frames.WindowUpdateFrame(1, 7).serialize()
    + frames.GoAwayFrame(0, 3).serialize()
)
ASKED = frames.HeadersFrame(1, b"asked", flags=["END_HEADERS"]).serialize()
ASKED_DATA = frames.DataFrame(1, b"q" * 40, flags=["END_STREAM"]).serialize()
ANSWER = (
    frames.HeadersFrame(1, b"answer", flags=["END_HEADERS"]).serialize() + frames.DataFrame(1, b"a" * 90).serialize()
)
END = frames.HeadersFrame(1, b"end", flags=["END_HEADERS", "END_STREAM"]).serialize()


def session(*said: tuple[str, bytes]) -> Session:
    pieces = tuple(Piece(float(at), side, data) for at, (side, data) in enumerate(said))  # type: ignore[arg-type]
    return Session(1, 0.0, 9.0, pieces)


PLAIN = session(("client", PREFACE + ASKED + ASKED_DATA), ("server", ANSWER + END))


@pytest.mark.parametrize(
    "noisy",
    [
        session(("client", PREFACE + CONTROL), ("server", CONTROL), ("client", ASKED + ASKED_DATA),
                ("server", ANSWER + END)),
        session(("client", PREFACE + ASKED), ("server", CONTROL), ("client", CONTROL + ASKED_DATA), ("server", CONTROL),
                ("server", ANSWER), ("client", CONTROL), ("server", END), ("client", CONTROL)),
    ],
)  # fmt: skip
def test_control_frames_are_no_traffic(noisy: Session) -> None:
    assert traffic([noisy]) == traffic([PLAIN])
    assert len(without_control(noisy).pieces) == len(noisy.pieces), "marks keep their places"


def test_however_it_is_cut_into_pieces() -> None:
    stream = PREFACE + CONTROL + ASKED + CONTROL + ASKED_DATA + CONTROL
    for size in range(1, len(stream)):
        cuts = [*range(0, len(stream), size), len(stream)]
        cut = session(*(("client", stream[start:end]) for start, end in pairwise(cuts)), ("server", ANSWER + END))
        assert traffic([cut]) == traffic([PLAIN])


@pytest.mark.parametrize(
    "more",
    [
        frames.DataFrame(1, b"x").serialize(),
        frames.HeadersFrame(3, b"x", flags=["END_HEADERS"]).serialize(),
        frames.RstStreamFrame(1, 8).serialize(),
        b"\0\0\x03\xbb\0\0\0\0\0abc",  # an extension
        b"\0\x01\0\x06\0\0\0\0\0" + b"p" * 256,  # no ping: pings have eight bytes
        CONTROL[:-1],  # its end was never heard
    ],
)
def test_everything_else_is(more: bytes) -> None:
    ours = session(*((one.side, one.data) for one in PLAIN.pieces), ("server", more))
    assert traffic([ours]).down > traffic([PLAIN]).down


def test_what_is_not_http2_is_counted_as_it_is() -> None:
    http = session(("client", b"GET / HTTP/1.1\r\n\r\n"), ("server", CONTROL))
    assert without_control(http) is http
