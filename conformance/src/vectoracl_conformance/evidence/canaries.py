"""E2c: canaries in the decoded replies of every connection, over its whole life.

A missing foreign canary proves nothing if the reply could not be read: with a store that compresses, a tap finds
neither foreign nor own canaries. So each call's own canary must be found in its reply first. A call whose reply has no
canary (a count, a write) needs other calls in the same recording that do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from vectoracl_conformance.evidence.calls import Canary, ScopedCall, every, sort
from vectoracl_conformance.evidence.exchanges import Decoded, Exchange, requests
from vectoracl_conformance.evidence.outcome import Graded, judged
from vectoracl_conformance.evidence.sessions import Recording

CONSTANT = 2
_SHOWN = 5


def forms(canary: Canary) -> tuple[bytes, ...]:
    """Return the byte strings that show *canary*: as it is, and as JSON writes it."""
    if isinstance(canary, bytes):
        return (canary,)
    return tuple({canary.encode(), json.dumps(canary)[1:-1].encode()})


def found(canaries: Iterable[Canary], values: Sequence[bytes]) -> list[Canary]:
    """Return those of *canaries* that occur in *values*."""
    text = b"\0".join(values)
    if not text:
        return []
    return [canary for canary in canaries if any(form in text for form in forms(canary))]


def grade_canaries(
    recording: Recording, decoded: Sequence[Decoded], questions: Sequence[ScopedCall], *, constant: int = CONSTANT
) -> Graded:
    """Grade every reply of every session; *constant* is how many rows a reply may have beyond `ScopedCall.limit`.

    Breaches: a foreign canary in the reply to a question, any tenant's canary in a reply that no question asked for,
    or more rows than the answer needs.
    """
    doubts = [*recording.doubts(requests=requests(decoded)), *(doubt for one in decoded for doubt in one.doubts)]
    breaches: list[str] = []
    inside, outside, twice = sort(decoded, questions)
    if twice:
        doubts.append("questions overlap, so replies cannot be attributed")
    if all(question.silent for question in questions):
        doubts.append("nothing was asked that has to be answered with own words")
    facts: dict[str, Any] = {"sessions": len(recording.sessions), "served": recording.served, "questions": []}
    for question, exchanges in zip(questions, inside, strict=True):
        facts["questions"].append(_question(question, exchanges, constant, breaches, doubts))
    anyone = frozenset().union(*(question.own | question.foreign for question in questions))
    facts["outside"] = len(outside)
    # One search over everything first: it nearly always finds nothing.
    if found(anyone, [value for exchange in outside for value in exchange.values]):
        for exchange in outside:
            if canaries := found(anyone, exchange.values):
                breaches.append(f"{place(exchange)}: {_shown(canaries)} came back although nothing was asked for")
    facts["exchanges"] = sum(1 for _ in every(decoded))
    return judged("E2c", breaches, doubts, facts)


def _question(
    question: ScopedCall, exchanges: list[Exchange], constant: int, breaches: list[str], doubts: list[str]
) -> dict[str, Any]:
    who = f"question of {question.tenant}"
    own: set[Canary] = set()
    most = 0
    counted = False
    for exchange in exchanges:
        mine = found(question.own, exchange.values)
        own.update(mine)
        if theirs := found(question.foreign, exchange.values):
            breaches.append(f"{who}: {place(exchange)}: {len(theirs)} foreign canaries came back, {_shown(theirs)}")
        if exchange.rows is None:
            if mine:
                doubts.append(f"{who}: {place(exchange)}: how many rows came back is not known")
            continue
        counted = counted or bool(mine)
        most = max(most, exchange.rows)
        if exchange.rows > question.limit + constant:
            breaches.append(
                f"{who}: {place(exchange)}: {exchange.rows} rows came back, {question.limit} answer it "
                f"(and {constant} are allowed beyond)"
            )
        elif exchange.rows > constant and not mine:
            doubts.append(f"{who}: {place(exchange)}: {exchange.rows} rows without a canary, own or foreign")
        if not exchange.complete:
            doubts.append(f"{who}: {place(exchange)}: the reply is not complete")
    if not own and not question.silent:
        doubts.append(f"control: {who}: no own canary in the reply, so its bytes are not understood")
    return {
        "tenant": question.tenant,
        "exchanges": [f"{place(exchange)} {exchange.name}" for exchange in exchanges],
        "own canaries": len(own),
        "most rows": most,
        "limit": question.limit,
    }


def place(exchange: Exchange) -> str:
    """Say where *exchange* is."""
    return f"connection {exchange.session}, exchange {exchange.number}"


def _shown(canaries: Sequence[Canary]) -> str:
    text = ", ".join(repr(canary) for canary in canaries[:_SHOWN])
    return text if len(canaries) <= _SHOWN else f"{text} and {len(canaries) - _SHOWN} more"
