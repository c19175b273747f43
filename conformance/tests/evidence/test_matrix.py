"""What kills what: clients that cheat, on a real server, before the three grades."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from evidence_support.cheats import MATRIX
from evidence_support.shop import FOES, LEVELS, OWN, OWNED, Client, K, Level, Take, canaries, right, run

from vectoracl_conformance.evidence.calls import ScopedCall
from vectoracl_conformance.evidence.canaries import grade_canaries
from vectoracl_conformance.evidence.outcome import Graded
from vectoracl_conformance.evidence.protocols import postgres
from vectoracl_conformance.evidence.sql_scope import SqlScope, sql_judge
from vectoracl_conformance.evidence.structure import grade_structure
from vectoracl_conformance.evidence.volume import grade_volume, sample

SCOPE = SqlScope(
    {("vectoracl", "chunks"): "tenant_id", ("vectoracl", "chunks_tenants"): "tenant_id"},
    "vectoracl.tenant",
    frozenset({("vectoracl", "digest")}),
    operators=frozenset({"public.<=>"}),
)
JUDGE = sql_judge(SCOPE)


def graded(takes: dict[int, Take]) -> dict[str, Graded]:
    last = max(takes)
    take = takes[last]
    foreign = frozenset(word for foe in FOES for word in canaries(foe, last // len(FOES)))
    question = ScopedCall(OWN, take.window, min(K, OWNED), frozenset(canaries(OWN, OWNED)), foreign)
    decoded = [postgres.decode(session) for session in take.recording.sessions]
    return {
        "E2v": grade_volume(
            [sample(one.recording, one.window, foreign=level, hits=one.hits) for level, one in takes.items()],
            owned=OWNED,
            k=K,
        ),
        "E2c": grade_canaries(take.recording, decoded, [question]),
        "E2s": grade_structure(take.recording, decoded, [question], JUDGE),
    }


def takes(shop: dict[int, Level], client: Client, **tap_settings: Any) -> dict[int, Take]:
    return {foreign: run(shop[foreign], client, **tap_settings) for foreign in LEVELS}


def test_the_adapter_passes_every_grade(shop: dict[int, Level]) -> None:
    found = graded(takes(shop, right))
    assert [(one.outcome, one.reasons) for one in found.values()] == [("passed", ())] * 3
    (asked,) = found["E2c"].facts["questions"]
    assert asked["own canaries"] >= OWNED
    assert asked["most rows"] == OWNED


@pytest.mark.parametrize("name", MATRIX)
def test_what_kills_what(shop: dict[int, Level], name: str) -> None:
    client, *expected = MATRIX[name]
    found = graded(takes(shop, client))
    assert [one.outcome for one in found.values()] == expected, [one.reasons[:2] for one in found.values()]
    for one in found.values():
        assert bool(one.reasons) == (one.outcome != "passed")


def test_every_grade_has_a_cheat_that_only_it_kills() -> None:
    killed = {
        name: {grade for grade, outcome in zip(("E2v", "E2c", "E2s"), row[1:], strict=True) if outcome == "failed"}
        for name, row in MATRIX.items()
    }
    assert all({grade} in killed.values() for grade in ("E2v", "E2c", "E2s"))
    assert all(killed[name] or "abstained" in MATRIX[name] for name in MATRIX if "right" not in name)


def test_a_recorder_that_drops_bytes_makes_all_abstain(shop: dict[int, Level]) -> None:
    for limit in (0, 500, 20_000):
        found = graded(takes(shop, right, limit=limit))
        assert {one.outcome for one in found.values()} == {"abstained"}, limit


@pytest.mark.parametrize("grade", ["E2c", "E2s"])
def test_an_uncounted_store_abstains(shop: dict[int, Level], grade: str) -> None:
    made: Callable[..., Take] = run
    take = made(shop[60], right)
    uncounted = Take(type(take.recording)(take.recording.sessions, None), take.window, take.hits)
    assert graded({60: uncounted})[grade].outcome == "abstained"
