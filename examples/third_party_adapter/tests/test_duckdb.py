"""Every operation, sync and async, held against the memory store, which is the reference meaning itself."""

import asyncio
import math
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, F, hazmat, testing
from vectoracl.adapter_api import ALWAYS, Count

FIELDS = {
    "year": "number",
    "lang": "keyword",
    "ok": "boolean",
    "when": "datetime",
    "tags": "keyword[]",
    "nums": "number[]",
    "Text": "keyword",
}
ALICE, BOB = testing.principal("alice", "acme"), testing.principal("bob", "ACME")
START = datetime(2024, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
NASTY = ["en", "fr", "EN", "é", "e\u0301", "'; DROP TABLE chunks; --", '"', "\\u00e9", "NULL", "", "%s", "🦆"]


def unit(seed: int, dimension: int = 8) -> Any:
    return np.random.default_rng(seed).normal(size=dimension).astype(np.float32)


def rows(count: int) -> list[Chunk]:
    made = []
    for i in range(count):
        metadata: dict[str, Any] = {"free": {"nested": [1, 1.0, None, {"a": 'b"\\'}], "big": 2**53}, "document": "d9"}
        if i % 3:
            metadata["year"] = [2019, 2020.5, 2021, -0.0, 1e15, 0.1, 5e-324][i % 7]
        if i % 4:
            metadata["lang"] = NASTY[i % len(NASTY)]
        if i % 5:
            metadata["ok"] = bool(i % 2)
        if i % 6:
            metadata["when"] = START + timedelta(microseconds=i % 4)
        if i % 7:
            metadata["tags"] = [["x"], ["x", "y"], ["%s", '"', "a,b"], ["y"]][i % 4]
        if i % 2:
            metadata["nums"] = [[1, 2], [2.5], [3]][i % 3]
        made.append(Chunk(f"c{i:03}", f"d{i % 5}", f"text {i} \\ é", unit(i), position=i, metadata=metadata))
    return made


def configs(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same store in DuckDB and in memory; the memory's rows live under a name, for sync and async alike."""
    shared = {"dimension": 8, "metadata": FIELDS}
    duck = {"adapter": "duckdb", "path": str(folder / "chunks.duckdb"), **shared}
    memory = {"adapter": "memory", "name": str(folder), **shared}
    return {"version": 1, "stores": {"main": duck}}, {"version": 1, "stores": {"main": memory}}


@pytest.fixture
def duck(tmp_path: Path) -> Iterator[v.VectorACL]:
    with v.connect(configs(tmp_path)[0]) as acl:
        yield acl


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    here, memory = configs(tmp_path_factory.mktemp("pair"))
    with v.connect(here) as one, v.connect(memory) as other:
        for acl in (one, other):
            acl.scoped(ALICE).upsert(rows(120))
            acl.scoped(BOB).upsert(rows(40))  # the same ids and the same vectors, as a tenant of another case
        yield one, other, here, memory


VALUES = {
    "year": st.sampled_from([2019, 2020.5, 2021, 0, 1e15, 7, 0.1, 5e-324, 2**53]),
    "lang": st.sampled_from(NASTY),
    "ok": st.booleans(),
    "when": st.integers(0, 4).map(lambda micro: START + timedelta(microseconds=micro)),
}


def comparisons(name: str) -> Any:
    field, value = F[name], VALUES[name]
    return st.one_of(
        value.map(lambda one: field == one),
        value.map(lambda one: field != one),
        st.lists(value, max_size=3).map(field.in_),
        st.lists(value, max_size=3).map(field.not_in),
        st.just(field.is_missing()),
    )


LEAF = st.one_of(
    *map(comparisons, VALUES),
    st.tuples(VALUES["year"], VALUES["year"]).map(lambda two: (F.year >= min(two)) & (F.year < max(two))),
    VALUES["when"].map(lambda one: F.when > one),
    VALUES["when"].map(lambda one: F.when <= one),
    st.lists(st.sampled_from(["x", "y", "z", "%s", '"', "a", "a,b"]), min_size=1, max_size=2).map(F.tags.contains_any),
    st.lists(st.sampled_from(["x", "y"]), min_size=1, max_size=2).map(F.tags.contains_all),
    st.lists(st.sampled_from([1, 2, 2.5, 9]), min_size=1, max_size=2).map(F.nums.contains_any),
    st.sampled_from(["d0", "d1", "d9"]).map(lambda one: F["@document"] == one),
    st.sampled_from([0, 2.5, 60, 119.5]).map(lambda one: F["@position"] >= one),
    st.lists(st.sampled_from([2, 2.5, 60]), min_size=1).map(F["@position"].in_),
)
PREDICATE = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        inner.map(lambda one: ~one),
    ),
    max_leaves=6,
)
ASK = st.fixed_dictionaries(
    {"k": st.integers(1, 12), "exact": st.booleans()},
    optional={"min_score": st.sampled_from([-0.2, 0.0, 0.3])},
)
RUN = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
ALL = frozenset({"text", "metadata", "vector"})


def told(hits: Any) -> list[Any]:
    """What has to be equal: everything but the score's last digits and the times of writing."""
    return [(*hit[:2], round(hit.score, 9), *hit[3:7], hit.vector.tolist(), hit.tag._replace(time=0.0)) for hit in hits]


@RUN
@given(scope=PREDICATE, where=PREDICATE, ask=ASK, seed=st.integers(0, 3))
def test_every_filter_means_what_the_reference_means(pair: Any, scope: Any, where: Any, ask: Any, seed: int) -> None:
    one, other = (acl.scoped(ALICE).narrow(scope) for acl in pair[:2])
    got, right = (handle.search(unit(seed), where=where, include=ALL, **ask) for handle in (one, other))
    assert got.complete
    assert told(got) == told(right)
    assert one.count(where) == other.count(where)
    assert told(one.scan(where, size=11, include=ALL)) == told(other.scan(where, size=11, include=ALL))
    ids = ["c001", ("d2", "c002"), ("d3", "c002"), "nowhere"]
    assert told(one.fetch(ids, include=ALL)) == told(other.fetch(ids, include=ALL))


@settings(RUN, max_examples=20)
@given(scope=PREDICATE, where=PREDICATE, ask=ASK)
def test_the_async_form_answers_alike(pair: Any, scope: Any, where: Any, ask: Any) -> None:
    right = pair[1].scoped(ALICE).narrow(scope)

    async def work() -> None:
        acl = v.aconnect(pair[2])
        try:
            handle = acl.scoped(ALICE).narrow(scope)
            got = await handle.search(unit(1), where=where, include=ALL, **ask)
            assert told(got) == told(right.search(unit(1), where=where, include=ALL, **ask))
            assert await handle.count(where) == right.count(where)
            scanned = [hit async for hit in handle.scan(where, size=7, include=ALL)]
            assert told(scanned) == told(right.scan(where, size=7, include=ALL))
        finally:
            await acl.close()

    asyncio.run(work())


WRITE = st.one_of(
    st.tuples(st.just("upsert"), st.lists(st.integers(0, 19), min_size=1, max_size=4, unique=True)),
    st.tuples(st.just("replace"), st.integers(0, 4), st.lists(st.integers(0, 3), max_size=3, unique=True)),
    st.tuples(st.just("ids"), st.lists(st.integers(0, 19), max_size=3)),
    st.tuples(st.just("document"), st.integers(0, 4)),
    st.tuples(st.just("where"), PREDICATE),
)


def attempt(handle: Any, step: Any, turn: int) -> Any:
    def chunk(i: int) -> Chunk:
        return rows(20)[i] if turn % 2 else Chunk(f"c{i:03}", f"d{i % 5}", f"turn {turn}", unit(turn + i))

    try:
        match step:
            case ("upsert", some):
                return handle.upsert([chunk(i) for i in some]).count
            case ("replace", document, some):
                return handle.replace(f"d{document}", [chunk(document + 5 * i) for i in some]).count
            case ("ids", some):
                return handle.delete(ids=[f"c{i:03}" if i % 2 else (f"d{i % 5}", f"c{i:03}") for i in some]).count
            case ("document", document):
                return handle.delete(document=f"d{document}").count
            case (_, where):
                return handle.delete(where=where).count
    except v.DeniedError as error:
        return "denied", error.action, bool(error.decision_id)


@settings(RUN, max_examples=40)
@given(
    steps=st.lists(st.tuples(st.sampled_from([ALICE, BOB]), st.one_of(st.just(ALWAYS), PREDICATE), WRITE), max_size=8)
)
def test_every_write_does_what_the_reference_does(tmp_path_factory: Any, steps: Any) -> None:
    here, memory = configs(tmp_path_factory.mktemp("writes"))
    with v.connect(here) as one, v.connect(memory) as other:
        for acl in (one, other):
            acl.scoped(ALICE).upsert(rows(10))
        for turn, (principal, scope, step) in enumerate(steps):
            got, right = (attempt(acl.scoped(principal).narrow(scope), step, turn) for acl in (one, other))
            assert got == right
        for principal in (ALICE, BOB):
            assert told(one.scoped(principal).scan(include=ALL)) == told(other.scoped(principal).scan(include=ALL))


def test_extreme_lengths_are_ranked_as_the_reference_ranks_them(tmp_path: Path) -> None:
    for config in configs(tmp_path):
        with v.connect(config) as acl:
            docs = acl.scoped(ALICE)
            docs.upsert([Chunk(f"c{i}", "d", "", np.ones(8) * scale) for i, scale in enumerate((1e-14, 1, 1e18))])
            for scale in (1e-14, 1e18):
                assert all(math.isclose(hit.score, 1, abs_tol=1e-6) for hit in docs.search(np.ones(8) * scale))


def test_an_unscoped_search_is_refused(pair: Any) -> None:
    with pytest.raises(v.RefusedError):
        hazmat.unscoped(pair[0], reason="a test of the door").search(unit(1), 9)


def test_concurrent_writers_of_one_document_never_mix_generations(duck: v.VectorACL) -> None:
    def work(name: str) -> None:
        for turn in range(6):
            duck.scoped(ALICE).replace("d", [Chunk(f"{name}{turn}-{i}", "d", name, np.ones(8)) for i in range(4)])
            duck.scoped(ALICE).upsert([Chunk("added", "d", name, np.ones(8))])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hits = list(duck.scoped(ALICE).scan())
    assert {hit.tag.generation for hit in hits} == {17}
    assert len({hit.text for hit in hits if hit.id != "added"}) == 1
    assert duck.scoped(BOB).count() == 0


def test_a_search_that_takes_too_long_is_stopped_and_the_store_goes_on(duck: v.VectorACL) -> None:
    port = duck._stores["main"].port
    from vectoracl_duckdb.adapter import Transaction

    slow = "SELECT count(*) FROM range(100000) a, range(100000) b WHERE a.range * b.range % 7 = 1"
    with pytest.raises(v.StoreError) as stopped:
        port.execute(Transaction("acme", ((slow, ()),)), 0.2)
    assert (stopped.value.code, stopped.value.sent) == ("timeout", "no")
    assert duck.scoped(ALICE).count() == 0


def test_an_error_quotes_nothing(duck: v.VectorACL) -> None:
    from vectoracl_duckdb.adapter import Transaction

    with pytest.raises(v.StoreError) as failed:
        duck._stores["main"].port.execute(Transaction("acme", (("SELECT ?::BIGINT", ("secret",)),)), 1)
    assert "secret" not in str(failed.value)
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__


@pytest.mark.parametrize(
    "weaker",
    [
        "SET GLOBAL default_collation = 'NOCASE'",
        'ALTER TABLE chunks DROP COLUMN "year"',
        "CREATE TABLE other AS FROM chunks; DROP TABLE chunks; ALTER TABLE other RENAME TO chunks",
    ],
)
def test_a_store_that_is_not_as_it_should_be_is_not_served(tmp_path: Path, weaker: str) -> None:
    config = configs(tmp_path)[0]
    with v.connect(config) as acl:
        acl.scoped(ALICE).upsert(rows(3))
        with duckdb.connect(tmp_path / "chunks.duckdb") as behind:
            behind.execute(weaker)
            with pytest.raises(v.PostureError, match="DUCK001"):
                v.connect(config)


def test_requests_are_data(pair: Any) -> None:
    adapter = pair[0]._stores["main"].store.adapter
    one, other = (next(adapter.count(Count("acme", ALWAYS, F.year == 2020))) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one.partition == "acme"
