"""From vector to halfvec and back, by `provision`: more than 2,000 dimensions get an index; nothing is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl_pgvector import schema
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.tiers import move

from pgvector_support.driven import KINDS, Driven
from pgvector_support.moving import Crowd, another_move, owner_of

pytestmark = pytest.mark.server
ACME = testing.principal("ann", "acme")
BETA = testing.principal("bob", "beta")


def chunks(document: str, count: int, dimension: int = 8, seed: int = 0) -> list[Chunk]:
    rng = np.random.default_rng(seed)
    return [Chunk(f"c{i:03}", document, f"text {i}", rng.normal(size=dimension)) for i in range(count)]


def provision(config: dict[str, Any]) -> list[str]:
    operator: Any = v.VectorACL(config).operator()
    try:
        return list(operator.provision())
    finally:
        operator.close()


def column(store: Any) -> set[str]:
    """Return the types of the vectors of the table and all of its partitions."""
    with psycopg.connect(store.bootstrap) as boss:
        rows = boss.execute(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
            "WHERE relnamespace = 'vectoracl'::regnamespace AND attname = 'embedding' AND relkind IN ('r', 'p')"
        ).fetchall()
    return {row[0].rpartition(".")[2] for row in rows}


def indexes(store: Any) -> list[str]:
    with psycopg.connect(store.bootstrap) as boss:
        rows = boss.execute(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
            "JOIN pg_am ON pg_am.oid = relam WHERE amname = 'hnsw' AND indisvalid"
        ).fetchall()
    return [row[0] for row in rows]


def test_more_than_2000_dimensions_get_an_index(provisioned: Any) -> None:
    store = provisioned(dimension=2100, metadata={})
    with v.connect(store.config) as acl:
        for who in (ACME, BETA):
            acl.scoped(who).upsert(chunks("d", 30, 2100, seed=len(who.tenant)))
        query = np.random.default_rng(9).normal(size=2100)
        before = {who.tenant: [hit.id for hit in acl.scoped(who).search(query, 5)] for who in (ACME, BETA)}
        operator: Any = acl.operator()
        (told,) = operator.promote("acme")
        assert 'set type = "halfvec" and run `vectoracl provision`' in told
        operator.close()
    assert indexes(store) == []
    config = store.changed(type="halfvec")
    with v.VectorACL(config) as unchanged:
        (posture,) = unchanged.check().values()
        (finding,) = [one for one in posture.findings if one.rule.id in ("PG113", "PG115")]
        assert "vectoracl provision" in finding.fix
    told = " ".join(provision(config))
    assert "the vectors now have the type halfvec" in told
    assert "'acme' has a vector index again" in told
    assert column(store) == {"halfvec(2100)"}
    (index,) = indexes(store)
    assert "halfvec_cosine_ops" in index
    assert "type" not in " ".join(provision(config)), "the second time there is nothing to do"
    with v.connect(config) as acl:
        assert {one.grade for one in acl.check().values()} == {"engine"}
        for who in (ACME, BETA):
            docs = acl.scoped(who)
            assert [hit.id for hit in docs.search(query, 5)] == before[who.tenant]
            assert docs.count() == 30
        operator = acl.operator()
        (told,) = operator.promote("beta")
        assert "an HNSW index" in told
        operator.demote("acme")
        operator.close()
    assert len(indexes(store)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_processes_of_both_configurations_go_on_meanwhile(provisioned: Any, kind: str) -> None:
    store = provisioned(metadata={})
    other = {"vector": "halfvec", "halfvec": "vector"}
    types = {"vector": store.config, "halfvec": store.changed(type="halfvec")}
    with Driven(kind, store.config) as old:
        for who in (ACME, BETA):
            old.scoped(who).upsert(chunks("kept", 20))
        with owner_of(store) as owner:
            move.promote(owner, store.pg, "acme")
        written = {"old": 0}

        def work() -> None:
            number = written["old"]
            for who in (ACME, BETA):
                docs = old.scoped(who)
                docs.replace("turn", chunks("turn", 5, seed=number))
                rows = docs.fetch([f"c{i:03}" for i in range(5)], include={"vector"})
                assert {len(one.vector) for one in rows} == {8}
                for one in rows:
                    if one.document == "turn":
                        wanted = {c.id: c.vector for c in chunks("turn", 5, seed=number)}[one.id]
                        assert np.allclose(one.vector, wanted, atol=2e-3, rtol=2e-3)
                assert len(docs.search(np.ones(8), 50, include={"vector"})) == 25
            written["old"] += 1

        crowd = Crowd()
        crowd.add("old", work)
        now = "vector"
        with crowd:
            for _ in range(2):
                now = other[now]
                provision(types[now])
                assert column(store) == {f"{now}(8)"}
                with Driven(kind, types[now]) as new:
                    assert len(new.scoped(BETA).search(np.ones(8), 50, include={"vector"})) == 25
        assert crowd.rounds.get("old", 0) >= 2
        (index,) = indexes(store)
        assert "halfvec" not in index
        assert old.scoped(ACME).count() == old.scoped(BETA).count() == 25


@pytest.mark.parametrize(
    ("vector", "why"), [(np.full(8, 70_000.0), "beyond ±65504"), (np.full(8, 1e-9), "zero in half precision")]
)
def test_what_halfvec_cannot_hold_changes_nothing(provisioned: Any, vector: Any, why: str) -> None:
    store = provisioned(metadata={})
    with v.connect(store.config) as acl:
        acl.scoped(ACME).upsert(chunks("d", 5))
        acl.scoped(BETA).upsert([Chunk("odd", "d", "hidden from the owner's own scope", vector)])
        operator: Any = acl.operator()
        operator.promote("acme")
        operator.close()
    held = indexes(store)
    with pytest.raises(v.RefusedError, match=why):
        provision(store.changed(type="halfvec"))
    assert column(store) == {"vector(8)"}
    assert indexes(store) == held
    with v.connect(store.config) as acl:
        assert acl.scoped(BETA).count() == 1


def test_another_dimension_is_never_changed(provisioned: Any) -> None:
    store = provisioned(metadata={})
    with v.connect(store.config) as acl:
        acl.scoped(ACME).upsert(chunks("d", 5))
    with psycopg.connect(store.owner) as owner:
        for statement in schema.migrations(PgvectorConfig(dsn="-", dimension=9, type="halfvec")):  # type: ignore[arg-type]
            owner.execute(statement)
    assert column(store) == {"vector(8)"}


def test_broken_off_before_the_indexes_it_goes_on(provisioned: Any) -> None:
    store = provisioned(metadata={})
    with v.connect(store.config) as acl:
        acl.scoped(ACME).upsert(chunks("d", 5))
        operator: Any = acl.operator()
        operator.promote("acme")
        operator.close()
    half = store.pg.model_copy(update={"type": "halfvec"})
    with psycopg.connect(store.owner) as owner:  # what `provision --sql` prints
        for statement in schema.migrations(half):
            owner.execute(statement)
    assert indexes(store) == []
    config = store.changed(type="halfvec")
    with v.connect(config) as acl:
        result = acl.scoped(ACME).search(np.ones(8), 10)
        assert (len(result), result.complete) == (5, True)
    assert any("vector index again" in line for line in provision(config))
    assert len(indexes(store)) == 1


def test_a_copy_of_the_old_type_is_not_finished(provisioned: Any) -> None:
    store = provisioned(metadata={})

    class Stop(BaseException):
        pass

    def dies(sql: str) -> None:
        if "CREATE INDEX CONCURRENTLY" in sql:
            raise Stop

    with v.connect(store.config) as acl:
        acl.scoped(ACME).upsert(chunks("d", 50))
        with owner_of(store) as owner, pytest.raises(Stop):
            try:
                move.promote(owner, store.pg, "acme", step=dies)
            finally:
                owner.pgconn.finish()
        config = store.changed(type="halfvec")
        provision(config)
        acl.scoped(ACME).upsert(chunks("e", 5))
    with v.connect(config) as acl:
        operator: Any = acl.operator()
        told = operator.promote("acme")
        assert not any("resumed" in line for line in told)
        operator.close()
        assert acl.scoped(ACME).count() == 55
    assert column(store) == {"halfvec(8)"}


def test_a_move_under_way_is_not_disturbed(provisioned: Any) -> None:
    store = provisioned(metadata={})
    with another_move(store), pytest.raises(v.RefusedError, match="in progress"):
        provision(store.changed(type="halfvec"))
    assert column(store) == {"vector(8)"}
