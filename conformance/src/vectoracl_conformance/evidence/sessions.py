"""The result of a recording: every connection from its first byte to its close, and marks between calls.

Nothing here depends on a protocol. A mark is a position in every stream, not a time: late data is still counted where
it belongs, and clocks need not agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Side = Literal["client", "server"]


class Piece(NamedTuple):
    """Bytes that travelled together; `at` is a monotonic time in seconds."""

    at: float
    side: Side
    data: bytes


class Place(NamedTuple):
    """How far one connection was: pieces, and bytes of each side."""

    pieces: int = 0
    client: int = 0
    server: int = 0


START = Place()


@dataclass(frozen=True, slots=True)
class Mark:
    """How far each connection was; one that is not named had not begun."""

    places: Mapping[int, Place] = field(default_factory=dict)

    def place(self, session: int) -> Place:
        """Return the place of *session*."""
        return self.places.get(session, START)


@dataclass(frozen=True, slots=True)
class Window:
    """The traffic between two marks: one call of the adapter."""

    since: Mark
    until: Mark

    def holds(self, session: int, offset: int) -> bool:
        """Tell whether the request that begins at *offset* of the client's stream of *session* lies inside."""
        return self.since.place(session).client <= offset < self.until.place(session).client


@dataclass(frozen=True, slots=True)
class Session:
    """One connection. `closed` is None while it is open; `dropped` counts bytes that were carried and not kept."""

    number: int
    opened: float
    closed: float | None
    pieces: tuple[Piece, ...]
    dropped: int = 0

    def stream(self, side: Side) -> bytes:
        """Return all bytes of *side*."""
        return b"".join(piece.data for piece in self.pieces if piece.side == side)

    @property
    def end(self) -> Place:
        """How far the connection came."""
        up = sum(len(piece.data) for piece in self.pieces if piece.side == "client")
        return Place(len(self.pieces), up, sum(len(piece.data) for piece in self.pieces) - up)


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything between the start and the stop of a recorder.

    `served` is how many sessions the store itself counted in that time, `answered` how many requests; None where it
    cannot count them. Either of them shows whether something went past the recorder.
    """

    sessions: tuple[Session, ...]
    served: int | None = None
    answered: int | None = None

    @property
    def dropped(self) -> int:
        """Bytes that were carried and not kept."""
        return sum(session.dropped for session in self.sessions)

    def doubts(self, *, requests: int | None = None, uncounted: bool = False) -> tuple[str, ...]:
        """Say why this recording proves nothing.

        *requests* is how many of them were decoded, for a store that counts requests; *uncounted* permits one that
        counts nothing.
        """
        problems = []
        if not self.sessions:
            problems.append("no connection went through the tap")
        if self.dropped:
            problems.append(f"the recorder dropped {self.dropped} bytes")
        still = [str(session.number) for session in self.sessions if session.closed is None]
        if still:
            problems.append(f"still open, so not recorded to the close: connection {', '.join(still)}")
        if self.served is not None and self.served != len(self.sessions):
            problems.append(f"the store served {self.served} sessions, {len(self.sessions)} went through the tap")
        if self.answered is not None and requests is not None and self.answered != requests:
            problems.append(f"the store answered {self.answered} requests, {requests} went through the tap")
        if self.served is None and (self.answered is None or requests is None) and not uncounted:
            problems.append("the store did not say how many sessions it served, so one may have gone past the tap")
        return tuple(problems)


class WireRecorder(Protocol):
    """Whatever stands in front of a store and records."""

    def start(self) -> None:
        """Begin; from here on `address` can be connected to."""
        ...

    def stop(self) -> None:
        """End; connections that are still open are cut and stay marked as open."""
        ...

    @property
    def address(self) -> tuple[str | int, ...]:
        """Host and port to connect to instead of the store's; with `Taps` the other ports behind it."""
        ...

    def mark(self) -> Mark:
        """Return how far every connection is now."""
        ...

    def sessions(self) -> tuple[Session, ...]:
        """Return every connection that was seen, by number."""
        ...


def mark_of(sessions: Iterable[Session]) -> Mark:
    """Return the mark behind everything in *sessions*."""
    return Mark({session.number: session.end for session in sessions})
