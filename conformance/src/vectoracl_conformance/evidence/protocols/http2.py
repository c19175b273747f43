"""Removes connection management from HTTP/2 recordings, so that equal calls have equal sizes.

Settings, pings and window updates come at arbitrary times: grpc's receiver acknowledges by time and by the number of
bytes that it has read at once, so the same call takes different bytes and round trips each time. These frames cannot
carry a message of a store (RFC 9113, 6.5, 6.7 to 6.9: their payload belongs to the protocol and has a fixed form).
Everything else of a connection stays, including extensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hyperframe import frame as frames

from vectoracl_conformance.evidence.protocols.grpc import PREFACE
from vectoracl_conformance.evidence.sessions import Piece, Session, Side

_HEAD = 9
_CONTROL = (frames.SettingsFrame, frames.PingFrame, frames.WindowUpdateFrame, frames.GoAwayFrame)


def without_control(session: Session) -> Session:
    """Return *session* without control frames, as many pieces as before, so that marks keep their places.

    One that is not HTTP/2 in the clear is returned as it is.
    """
    if not session.stream("client").startswith(PREFACE):
        return session
    sides: tuple[Side, Side] = ("client", "server")
    payloads = {side: _kept(session, side) for side in sides}
    return replace(session, pieces=tuple(Piece(one.at, one.side, next(payloads[one.side])) for one in session.pieces))


def _kept(session: Session, side: Side) -> Iterator[bytes]:
    """Yield what is left of each piece of *side*."""
    stream = session.stream(side)
    keep = bytearray(b"\1" * len(stream))
    for start, end in _control(stream, len(PREFACE) if side == "client" else 0):
        keep[start:end] = bytes(end - start)
    at = 0
    for one in session.pieces:
        if one.side == side:
            until = at + len(one.data)
            yield bytes(byte for byte, flag in zip(one.data, keep[at:until], strict=True) if flag)
            at = until


def _control(stream: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Yield where each control frame begins and ends; what is cut off or no frame is none."""
    view = memoryview(stream)
    while at + _HEAD <= len(stream):
        try:
            one, length = frames.Frame.parse_frame_header(view[at : at + _HEAD])
            end = at + _HEAD + length
            if end > len(stream):
                return
            if isinstance(one, _CONTROL):
                one.parse_body(view[at + _HEAD : end])  # of the protocol's form, or it is counted
                yield at, end
        except Exception:  # noqa: BLE001 - whatever the library makes of garbage: from here on everything is counted
            return
        at = end
