"""The runner grades the wire of the real adapter and of two that cheat, and abstains where it heard too little."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from vectoracl_conformance.context.check_context import CheckContext, drive
from vectoracl_conformance.context.corpus import K, build
from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.evidence import Graded, ScopedCall, SqlScope, Tap, Window, Wire, sql_judge
from vectoracl_conformance.evidence.sessions import Mark
from vectoracl_conformance.grades.grading import Grading, wire_grades
from vectoracl_conformance.grades.tour import Tour, in_words, words
from vectoracl_conformance.harness import Harness, Mutant, Needs, Server, Store
from vectoracl_conformance.harnesses.memory import MemoryHarness

OPTIONS = Options(seed=3)


@dataclass
class Changed(Harness):
    """A harness whose stores describe their wire in another way."""

    inner: Harness
    change: Callable[[Wire], Wire | None]

    def server(self) -> Server:
        return self.inner.server()

    def fresh(self, needs: Needs) -> Store:
        store: Any = self.inner.fresh(needs)
        wire = store.wire()
        store.wire = lambda: self.change(wire)
        return store


@pytest.fixture(scope="module")
def pgvector(server: object) -> Iterator[Harness]:  # `server` says so where none can be started
    from vectoracl_pgvector.conformance.harness import PgvectorHarness

    harness = PgvectorHarness()
    yield harness
    harness.close()


def grades(harness: Harness, mutant: Mutant | None = None) -> dict[str, Grading]:
    return {one.grade: one for one in wire_grades(harness, OPTIONS, mutant)}


def mutant(harness: Harness, name: str) -> Mutant:
    (found,) = [one for one in harness.mutants() if one.name == name]
    return found


def test_the_adapter_passes(pgvector: Harness) -> None:
    found = grades(pgvector)
    assert {one.state for one in found.values()} == {"passed"}, found
    assert found["E2c"].reason == "sync: 26 calls; async: 26 calls"
    declared = "free of tenants' data: public.binary_quantize(), public.<#>, public.<->, public.<=>, public.<~>"
    assert found["E2s"].reason.count(declared) == 2


def test_a_foreign_row_beside_the_own_ones_fails(pgvector: Harness) -> None:
    found = grades(pgvector, mutant(pgvector, "over-fetch"))
    assert found["E2c"].state == "failed"
    assert "foreign canaries came back, '" in found["E2c"].reason


def test_a_scope_that_is_missing_in_one_statement_fails(pgvector: Harness) -> None:
    found = grades(pgvector, mutant(pgvector, "scope missing in one statement"))
    assert [found[grade].state for grade in ("E2v", "E2c", "E2s")] == ["passed", "passed", "failed"]
    assert "not proved" in found["E2s"].reason


def test_a_recorder_that_drops_bytes_abstains(pgvector: Harness) -> None:
    host, port = _address(pgvector)
    deaf = Changed(pgvector, lambda wire: replace(wire, recorder=lambda: Tap.tcp(host, port, limit=500)))
    for one in grades(deaf).values():
        assert one.state == "abstained"
        assert "dropped" in one.reason or "control" in one.reason


def test_sessions_that_nobody_counted_abstain(pgvector: Harness) -> None:
    found = grades(Changed(pgvector, lambda wire: replace(wire, served=lambda: None)))
    assert {one.state for one in found.values()} == {"abstained"}


def test_what_is_not_offered_is_not_run(pgvector: Harness) -> None:
    found = grades(Changed(pgvector, lambda wire: replace(wire, decode=None)))
    assert [found[grade].state for grade in ("E2v", "E2c", "E2s")] == ["passed", "not run", "not run"]
    found = grades(Changed(pgvector, lambda wire: replace(wire, judge=None)))
    assert [found[grade].state for grade in ("E2v", "E2c", "E2s")] == ["passed", "passed", "not run"]
    assert {one.state for one in grades(MemoryHarness()).values()} == {"not run"}


def _address(harness: Harness) -> tuple[str, int]:
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(harness._dsn("tcp", "postgres"))  # type: ignore[attr-defined]
    return str(parts["host"]), int(str(parts["port"]))


def test_the_tour_asks_every_call_of_both_tenants() -> None:
    from vectoracl_conformance.context.corpus import DIMENSION, FIELDS

    corpus = build(3, 30)
    store = MemoryHarness().fresh(Needs(DIMENSION, FIELDS))

    async def work() -> list[ScopedCall]:
        context = CheckContext(store, corpus, "sync")
        await context.open()
        for tenant, chunks in corpus.chunks.items():
            await context.handle(tenant).upsert(chunks)
        before = context.state()
        questions = await Tour(context, Mark).take()
        assert context.state() == before  # it takes away what it wrote
        await context.close()
        return questions

    questions = drive(work())
    assert [one.tenant for one in questions] == [corpus.small_tenant] * 13 + [corpus.large_tenant] * 13
    assert sum(one.silent for one in questions) == 10
    shared = words([replace(corpus.chunks[corpus.small_tenant][0], text="", metadata={})])
    assert shared
    for one in questions:
        theirs = {word for tenant in corpus.other_tenants for word in words(corpus.chunks[tenant])}
        assert one.own
        assert len(one.foreign & theirs) > 2 * 30
        assert not one.own & one.foreign
        assert not shared & (one.own | one.foreign)  # an id that several tenants have tells nothing
        assert not any(tenant in one.foreign for tenant in corpus.chunks)
    assert [one.limit for one in questions if not one.silent] == [2] * 8 + [K, 12, K, 12, 12, 4, K, 12]


def test_what_the_harness_declares_is_told() -> None:
    scope = SqlScope({}, free=frozenset({("app", "digest")}), functions=frozenset({"helper"}))
    graded = Graded("E2s", "passed", (), {"questions": [1, 2]})
    assert in_words(graded, sql_judge(scope)).endswith("free of tenants' data: app.digest, helper()")
    assert in_words(graded, lambda _request, _tenant: None).endswith("judged by the harness's own code")  # type: ignore[arg-type, return-value]
    many = Graded("E2c", "failed", tuple("abcdefg"))
    assert in_words(many, None) == "a; b; c; d; and 3 more"


def test_a_silent_question_alone_proves_nothing() -> None:
    from vectoracl_conformance.evidence import Decoded, Exchange, Recording, Session, grade_canaries
    from vectoracl_conformance.evidence.sessions import Piece

    pieces = (Piece(0.0, "client", b"ask"), Piece(0.1, "server", b"mine"))
    session = Session(1, 0.0, 1.0, pieces)
    window = Window(Mark(), Mark({1: session.end}))
    silent = ScopedCall("t", window, 1, frozenset({"mine"}), frozenset({"yours"}), silent=True)

    def outcome(question: ScopedCall, value: bytes) -> str:
        decoded = [Decoded((Exchange(1, 1, 0, "ask", None, (value,), 1, complete=True),))]
        return grade_canaries(Recording((session,), 1), decoded, [question]).outcome

    assert outcome(silent, b"mine") == "abstained"
    assert outcome(silent, b"yours") == "failed"
    assert outcome(replace(silent, silent=False), b"mine") == "passed"
    assert outcome(replace(silent, silent=False), b"12") == "abstained"
