"""E3 on a real PostgreSQL: what passes, what only it sees, and where it has to abstain."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.grades.grading import Grading, engine_grade, wire_grades
from vectoracl_conformance.harness import Harness, Mutant, Needs, Server, Store

OPTIONS = Options(seed=3)
ONE = Options(seed=3, modes=("sync",))


@pytest.fixture(scope="module")
def pgvector(server: object) -> Iterator[Harness]:  # `server` says so where none can be started
    from vectoracl_pgvector.conformance.harness import PgvectorHarness

    harness = PgvectorHarness()
    yield harness
    harness.close()


class Changed:
    """An engine with one method replaced."""

    def __init__(self, inner: Any, name: str, made: Callable[..., Any]) -> None:
        self._inner = inner
        setattr(self, name, lambda *args: made(getattr(inner, name), *args))

    def scored(self) -> int:
        return self._inner.scored()  # type: ignore[no-any-return]

    def unscoped(self, vector: Any, k: int) -> int:
        return self._inner.unscoped(vector, k)  # type: ignore[no-any-return]

    def give_own_part(self, tenant: str) -> None:
        self._inner.give_own_part(tenant)

    def others(self, tenant: str) -> Mapping[str, int]:
        return self._inner.others(tenant)  # type: ignore[no-any-return]

    def own_index(self, tenant: str) -> int:
        return self._inner.own_index(tenant)  # type: ignore[no-any-return]

    def sweep(self, vector: Any) -> None:
        self._inner.sweep(vector)

    def lock(self, tenant: str) -> AbstractContextManager[None]:
        return self._inner.lock(tenant)  # type: ignore[no-any-return]

    def explain(self, requests: Any) -> str:
        return self._inner.explain(requests)  # type: ignore[no-any-return]


@dataclass
class With(Harness):
    """A harness whose stores count in another way."""

    inner: Harness
    name: str
    made: Callable[..., Any]

    def server(self) -> Server:
        return self.inner.server()

    def fresh(self, needs: Needs) -> Store:
        store: Any = self.inner.fresh(needs)
        engine = Changed(store.engine(), self.name, self.made)
        store.engine = lambda: engine
        return store


def mutant(harness: Harness, name: str) -> Mutant:
    (found,) = [one for one in harness.mutants() if one.name == name]
    return found


def test_the_adapter_passes_and_its_index_was_searched(pgvector: Harness) -> None:
    graded = engine_grade(pgvector, OPTIONS)
    assert graded.state == "passed", graded.reason
    for mode in ("sync", "async"):
        counted = re.search(rf"{mode}: (\d+) scored for 12 owned next to 600 foreign, (\d+) next to", graded.reason)
        assert counted, graded.reason
        assert counted[1] == counted[2], graded.reason
        assert f"{mode}, large: nothing of others touched; plan: " in graded.reason
    assert "Index Scan on chunks_" in graded.reason


@pytest.mark.parametrize(
    ("name", "moved", "volume"),
    [
        # What an index of many finds is short, so that the adapter asks again: that much shows on the wire.
        ("an index that tenants share", "searches of kit_shared", "failed"),
        ("a policy that reads everyone", "rows of chunks_default", "passed"),
    ],
)
def test_what_no_decoder_sees(pgvector: Harness, name: str, moved: str, volume: str) -> None:
    broken = mutant(pgvector, name)
    graded = engine_grade(pgvector, ONE, broken)
    assert graded.state == "failed"
    assert moved in graded.reason
    wire = wire_grades(pgvector, ONE, broken)
    assert {one.grade: one.state for one in wire} == {"E2v": volume, "E2c": "passed", "E2s": "passed"}, wire


def test_a_lock_that_is_waited_for_proves_nothing(pgvector: Harness) -> None:
    graded = engine_grade(pgvector, ONE, mutant(pgvector, "policy alone"))
    assert graded.state == "abstained"
    assert "it need not have read it" in graded.reason


def _climbing() -> Callable[..., Mapping[str, int]]:
    calls = iter(range(1000))
    return lambda old, tenant: {name: count + next(calls) for name, count in old(tenant).items()}


@pytest.mark.parametrize(
    ("name", "made", "why"),
    [
        ("scored", lambda old: 0, "the counter does not count"),
        ("sweep", lambda old, vector: None, "unscoped ranking did not move rows of chunks_"),
        ("own_index", lambda old, tenant: 0, "own index was not searched"),
        ("others", lambda old, tenant: {}, "names no counter"),
    ],
    ids=["functions not counted", "nothing moves them", "index not used", "no counters"],
)
def test_a_counter_without_its_control_abstains(
    pgvector: Harness, name: str, made: Callable[..., Any], why: str
) -> None:
    graded = engine_grade(With(pgvector, name, made), ONE)
    assert graded.state == "abstained", graded.reason
    assert why in graded.reason


def test_a_counter_that_moves_by_itself_is_no_pass(pgvector: Harness) -> None:
    graded: Grading = engine_grade(With(pgvector, "others", _climbing()), ONE)
    assert graded.state != "passed"
