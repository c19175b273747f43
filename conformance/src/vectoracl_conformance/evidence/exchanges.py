"""The common result of all decoders: requests with their replies, in order, as plain bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


def requests(decoded: Iterable[Decoded]) -> int:
    """Count the requests in *decoded*."""
    return sum(exchange.request is not None for one in decoded for exchange in one.exchanges)


def by_preface(http1: Decoder, grpc: Decoder) -> Decoder:
    """Return the decoder of a store that speaks both: the first bytes of a connection say which."""

    def decode(session: Session) -> Decoded:
        return (grpc if session.stream("client").startswith(b"PRI * HTTP/2") else http1)(session)

    return decode


class CannotDecodeError(Exception):
    """The bytes are not what the decoder reads; it says why in the doubts of what it returns."""
