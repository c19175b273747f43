"""E2s: every data request carries the asking tenant as an unconditional conjunct.

No request may be sent outside of a call. The meaning of a request is decided by a judge: `sql_scope.sql_judge` for SQL,
a store's own judge for its messages. A judge that cannot prove it must answer no; finding the tenant somewhere in the
request proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vectoracl_conformance.evidence.calls import ScopedCall, sort
from vectoracl_conformance.evidence.canaries import place
from vectoracl_conformance.evidence.exchanges import Decoded, Exchange, requests
from vectoracl_conformance.evidence.outcome import Graded, judged
from vectoracl_conformance.evidence.sessions import Recording


@dataclass(frozen=True, slots=True)
class Proof:
    """A judge's verdict on one request: `data` is whether it reaches tenants' rows; `proved` None is "cannot tell"."""

    proved: bool | None
    data: bool
    reason: str = ""


Judge = Callable[[Any, str | None], Proof]
"""Judges a request that was sent for a tenant; None: outside of any question, where no data may be reached."""


def grade_structure(
    recording: Recording, decoded: Sequence[Decoded], questions: Sequence[ScopedCall], judge: Judge
) -> Graded:
    """Grade every request of every session. A question without its own data request makes the grade abstain."""
    doubts = [*recording.doubts(requests=requests(decoded)), *(doubt for one in decoded for doubt in one.doubts)]
    breaches: list[str] = []
    inside, outside, twice = sort(decoded, questions)
    if twice:
        doubts.append("questions overlap, so requests cannot be attributed")
    if not questions:
        doubts.append("nothing was asked")
    counts = {"data": 0, "control": 0}
    tally = []
    for question, exchanges in zip(questions, inside, strict=True):
        data = sum([_judge(judge, exchange, question.tenant, counts, breaches, doubts) for exchange in exchanges])
        if not data:
            doubts.append(f"control: question of {question.tenant}: no data request was sent for it")
        tally.append({"tenant": question.tenant, "data requests": data})
    for exchange in outside:
        _judge(judge, exchange, None, counts, breaches, doubts)
    facts = {"sessions": len(recording.sessions), "served": recording.served, "questions": tally, **counts}
    return judged("E2s", breaches, doubts, facts)


def _judge(
    judge: Judge, exchange: Exchange, tenant: str | None, counts: dict[str, int], breaches: list[str], doubts: list[str]
) -> bool:
    if exchange.request is None:
        return False
    try:
        proof = judge(exchange.request, tenant)
    except Exception as error:  # noqa: BLE001 - a judge is a store's own code, and its mistake is not a verdict
        doubts.append(f"{place(exchange)}: the judge failed with {type(error).__name__}")
        return False
    counts["data" if proof.data else "control"] += 1
    text = f"{place(exchange)}: {exchange.name}: {proof.reason}"
    if proof.proved is None:
        doubts.append(text)
    elif not proof.proved:
        breaches.append(f"{text}, for {tenant}" if tenant is not None else f"{text}, outside of any question")
    return proof.data


def by_carries(
    carries: Callable[[Any, str], bool | None], is_data: Callable[[Any], bool | None] = lambda _: True
) -> Judge:
    """Make a judge of a store's own *carries*; *is_data* False exempts requests that reach no rows (health, schema)."""

    def judge(request: Any, tenant: str | None) -> Proof:
        data = is_data(request)
        if data is None:
            return Proof(None, data=True, reason="it is not known what this request reaches")
        if not data:
            return Proof(proved=True, data=False)
        if tenant is None:
            return Proof(proved=False, data=True, reason="a data request")
        held = carries(request, tenant)
        reason = "it is not known whether the request carries the scope"
        return Proof(held, data=True, reason=reason if held is None else "the request does not carry the scope")

    return judge
