"""Outcomes that wait for the end of the caller's transaction: each is noted once, whoever settles it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vectoracl.access.policy import TenantPolicy
from vectoracl.audit.sinks import MemorySink
from vectoracl.engine.pipeline import Pipeline


def guard_and_sink() -> tuple[Pipeline, MemorySink]:
    sink = MemorySink()
    return Pipeline(TenantPolicy(), sink, lambda partition: "main"), sink


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["ok", "rolled_back", "unknown"]))))
def test_each_held_outcome_is_noted_once(ends: list[tuple[int, str]]) -> None:
    guard, sink = guard_and_sink()
    for number in range(5):
        guard.hold({"decision": str(number), "outcome": "ok", "returned": number, "ms": 1.0})
    assert not sink.outcomes
    expected: dict[str, str] = {}
    for number, ended in ends:
        expected.setdefault(str(number), ended)
        guard.settle(str(number), ended)
    guard.settle_rest()
    guard.settle_rest()
    said = {one["decision"]: one["outcome"] for one in sink.outcomes}
    assert len(sink.outcomes) == 5
    assert said == {str(number): expected.get(str(number), "unknown") for number in range(5)}
    assert all(one["returned"] == int(one["decision"]) for one in sink.outcomes)


def test_a_guard_that_notes_elsewhere_shares_what_is_held() -> None:
    guard, sink = guard_and_sink()
    other: Any = MemorySink()
    derived = guard.noting(other)
    derived.note({"decision": "a", "outcome": "ok"})
    derived.hold({"decision": "b", "outcome": "ok"})
    guard.settle_rest()
    assert [one["decision"] for one in other.outcomes] == ["a"]
    assert [dict(one) for one in sink.outcomes] == [{"decision": "b", "outcome": "unknown"}]
