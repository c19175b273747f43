"""E2v: the adapter passes, what fetches more is killed, and what proves nothing abstains."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evidence_support.shop import LEVELS, OWNED, Client, K, Level, right, run

from vectoracl_conformance.evidence.outcome import Graded
from vectoracl_conformance.evidence.volume import Sample, Traffic, grade_volume, sample


def samples(shop: dict[int, Level], client: Client, times: int = 2) -> list[Sample]:
    made = []
    for foreign in LEVELS:
        for _ in range(times):
            take = run(shop[foreign], client)
            made.append(sample(take.recording, take.window, foreign=foreign, hits=take.hits))
    return made


def volume(shop: dict[int, Level], client: Client) -> Graded:
    return grade_volume(samples(shop, client), owned=OWNED, k=K)


def test_the_adapter_passes(shop: dict[int, Level]) -> None:
    graded = volume(shop, right)
    assert graded.outcome == "passed", graded
    assert graded.grade == "E2v"


EVEN = [Sample(level, 2, Traffic(300, 900, 1), Traffic(2000, 5000, 9)) for level in LEVELS]


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({}, "passed"),
        ({"query": Traffic(300, 964, 1)}, "passed"),
        ({"query": Traffic(300, 965, 1)}, "failed"),
        ({"query": Traffic(365, 900, 1)}, "failed"),
        ({"query": Traffic(300, 835, 1)}, "failed"),
        ({"query": Traffic(300, 900, 2)}, "failed"),
        ({"whole": Traffic(2000, 5150, 9)}, "passed"),
        ({"whole": Traffic(2000, 5151, 9)}, "failed"),
        ({"whole": Traffic(2000, 5000, 10)}, "failed"),
        ({"hits": 1}, "abstained"),
        ({"hits": 0}, "abstained"),
        ({"query": Traffic(300, 0, 0)}, "failed"),
        ({"doubts": ("the recorder dropped 3 bytes",)}, "abstained"),
        ({"doubts": ("the recorder dropped 3 bytes",), "query": Traffic(300, 9000, 1)}, "abstained"),
        ({"doubts": ("the store served 2 sessions, 1 went through the tap",)}, "abstained"),
    ],
)
def test_the_bounds(change: dict[str, object], outcome: str) -> None:
    changed = [*EVEN[:2], replace(EVEN[2], **change)]
    assert grade_volume(changed, owned=2, k=5).outcome == outcome


def test_noise_within_a_level_does_not_accuse() -> None:
    noisy = [*EVEN, *EVEN[:2], replace(EVEN[2], query=Traffic(300, 900, 2))]
    assert grade_volume(noisy, owned=2, k=5).outcome == "passed"  # the least of each level is equal
    noisy = [*EVEN[:2], replace(EVEN[0], query=Traffic(300, 900, 3)), replace(EVEN[2], query=Traffic(300, 900, 2))]
    assert grade_volume(noisy, owned=2, k=5).outcome == "abstained"


def test_levels_that_prove_nothing() -> None:
    assert grade_volume(EVEN[1:], owned=2, k=5).outcome == "abstained"
    assert grade_volume(EVEN[:2], owned=2, k=5).outcome == "abstained"
    assert grade_volume([], owned=2, k=5).outcome == "abstained"
    assert grade_volume(EVEN, owned=5, k=5).outcome == "abstained"
    assert grade_volume(EVEN, owned=0, k=5).outcome == "abstained"
    few = [replace(one, foreign=place) for place, one in enumerate(EVEN)]
    assert grade_volume(few, owned=2, k=5).outcome == "abstained"


def test_nothing_inside_the_query_abstains() -> None:
    silent = [replace(one, query=Traffic(0, 0, 0)) for one in EVEN]
    assert grade_volume(silent, owned=2, k=5).outcome == "abstained"


def test_a_recorder_that_drops_bytes_abstains(shop: dict[int, Level]) -> None:
    made = []
    for foreign in LEVELS:
        take = run(shop[foreign], right, limit=500)
        made.append(sample(take.recording, take.window, foreign=foreign, hits=take.hits))
    graded = grade_volume(made, owned=OWNED, k=K)
    assert graded.outcome == "abstained"
    assert any("dropped" in reason for reason in graded.reasons)
