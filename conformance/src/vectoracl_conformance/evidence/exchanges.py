"""What every decoder hands over, whatever the protocol: requests with their replies, in order, in plain bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vectoracl_conformance.evidence.sessions import Session


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its reply.

    `start` is the place of the request in the client's stream; `request` is the protocol's own form of it, None for
    bytes of the server that no request asked for; `values` is everything that came back, decoded, errors and notices
    among it; `rows` is None where it is not known.
    """

    session: int
    number: int
    start: int
    name: str
    request: Any
    values: tuple[bytes, ...] = field(repr=False)
    rows: int | None
    complete: bool

    @property
    def size(self) -> int:
        """How many bytes of data came back."""
        return sum(len(value) for value in self.values)


@dataclass(frozen=True, slots=True)
class Decoded:
    """One session, decoded. With doubts, what is missing or unreadable proves nothing; what is there is right."""

    exchanges: tuple[Exchange, ...]
    doubts: tuple[str, ...] = ()


Decoder = Callable[[Session], Decoded]


class CannotDecodeError(Exception):
    """The bytes are not what the decoder reads; it says why in the doubts of what it returns."""
