"""The calls that were made during a recording: the tenant, the window, and the canaries that may and may not return."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from vectoracl_conformance.evidence.exchanges import Decoded, Exchange
from vectoracl_conformance.evidence.sessions import Window

Canary = str | bytes


@dataclass(frozen=True, slots=True)
class ScopedCall:
    """One call of the adapter for `tenant`.

    `limit` is min(k, owned), the rows that are needed to answer. `own` and `foreign` are canaries: words that occur
    in texts, ids and metadata of chunks (or the bytes of a vector as this store sends it). Names of tenants are none,
    since catalogs and lists of tenants may hold them. `silent` is a call whose answer needs no own word (a count, a
    write): own canaries may come back for it and need not.
    """

    tenant: str
    window: Window
    limit: int
    own: frozenset[Canary] = field(default=frozenset(), repr=False)
    foreign: frozenset[Canary] = field(default=frozenset(), repr=False)
    silent: bool = False


def sort(
    decoded: Sequence[Decoded], questions: Sequence[ScopedCall]
) -> tuple[list[list[Exchange]], list[Exchange], bool]:
    """Return the exchanges of each question, those of none, and whether one belongs to several.

    An exchange belongs to the question in whose window its request begins; its reply goes with it, whenever it came.
    """
    inside: list[list[Exchange]] = [[] for _ in questions]
    outside: list[Exchange] = []
    twice = False
    for exchange in every(decoded):
        places = [
            place for place, question in enumerate(questions) if question.window.holds(exchange.session, exchange.start)
        ]
        twice |= len(places) > 1
        for place in places:
            inside[place].append(exchange)
        if not places:
            outside.append(exchange)
    return inside, outside, twice


def every(decoded: Iterable[Decoded]) -> Iterable[Exchange]:
    """Yield every exchange."""
    for one in decoded:
        yield from one.exchanges
