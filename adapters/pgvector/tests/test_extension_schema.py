"""The extension in another schema than public, as managed services have it: found; in one without USAGE: named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg_pool import ConnectionPool

import vectoracl as v
from vectoracl import Chunk, F, Hybrid, Lexical, hazmat, testing
from vectoracl_pgvector import join, schema
from vectoracl_pgvector.config import PgvectorConfig

from pgvector_support.driven import KINDS, Driven

ANN = testing.principal("ann", "acme")
BOB = testing.principal("bob", "beta")
ODD = 'Ex "t'


@pytest.fixture
def moved(database: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """A factory of databases whose extension is in *place*, not provisioned yet; gives the configuration."""

    def make(place: str, *, usage: tuple[str, ...] = ("owner", "runtime"), **settings: Any) -> dict[str, Any]:
        made = database()
        quoted = '"' + place.replace('"', '""') + '"'
        with psycopg.connect(made.bootstrap, autocommit=True) as boss:
            boss.execute("DROP EXTENSION vector")
            boss.execute(f"CREATE SCHEMA {quoted}")
            boss.execute(f"CREATE EXTENSION vector WITH SCHEMA {quoted}")
            for role in usage:
                boss.execute(f"GRANT USAGE ON SCHEMA {quoted} TO vectoracl_{role}")
        main = {"adapter": "pgvector", "dsn": made.runtime, "owner_dsn": made.owner, "dimension": 8, **settings}
        return {"version": 1, "stores": {"main": {**main, "metadata": {"year": "number"}}}, "boss": made.bootstrap}

    return make


def opened(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "boss"}


def chunks(document: str, count: int) -> list[Chunk]:
    return [
        Chunk(f"c{i}", document, f"word{i} common", np.eye(8)[i % 8] + 0.1, metadata={"year": i}) for i in range(count)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("type_", ["vector", "halfvec"])
@pytest.mark.parametrize(("place", "said"), [("extensions", None), ("extensions", "extensions"), (ODD, None)])
def test_every_operation(moved: Any, kind: str, type_: str, place: str, said: str | None) -> None:
    config = moved(place, type=type_, **({} if said is None else {"extension_schema": said}))
    boss = config["boss"]
    config = opened(config)
    operator: Any = v.VectorACL(config).operator()
    operator.provision()
    operator.provision()
    with Driven(kind, config) as driven:
        for who in (ANN, BOB):
            docs = driven.scoped(who)
            assert docs.upsert(chunks("d", 12)).count == 12
            assert docs.replace("d", chunks("d", 10)).count == 10
        docs = driven.scoped(ANN)
        for tier in ("shared", "own"):
            for query in (np.ones(8), Lexical("common"), Hybrid("common", np.ones(8))):
                for more in ({}, {"exact": True}, {"group_by": "document", "per_group": 3}):
                    hits = docs.search(query, 5, where=F.year < 8, include={"text", "metadata", "vector"}, **more)
                    assert hits
                    assert {hit.tenant for hit in hits} == {"acme"}
                    assert all(len(hit.vector) == 8 for hit in hits)
            assert docs.count() == len(docs.fetch([f"c{i}" for i in range(10)], include={"vector"})) == 10
            assert [one.count for one in docs.facets("year")] == [1] * 10
            assert len(list(docs.scan(include={"vector"}))) == 10
            if tier == "shared":
                assert any("own" in line for line in operator.promote("acme"))
        assert [(one.tenant, one.tier, one.rows) for one in operator.tenants()] == [
            ("acme", "own", 10),
            ("beta", "shared", 10),
        ]
        assert docs.delete(where=F.year == 1).count == 1
        operator.demote("acme")
        assert docs.count() == 9
    with v.connect(config) as acl:
        assert {one.grade for one in acl.check().values()} == {"engine"}
        assert len(hazmat.unscoped(acl, reason="a test of names").search(np.ones(8), 30)) == 19
        with psycopg.connect(config["stores"]["main"]["dsn"]) as connection:
            joined = join(acl, ANN, connection)
            joined.upsert(chunks("joined", 2))
            assert len(joined.search(np.ones(8), 20)) == 11
        dsn = config["stores"]["main"]["dsn"]
        with (
            ConnectionPool(dsn, min_size=1, max_size=1) as pool,
            v.connect(config, clients={"main": pool}) as given,
        ):
            assert given.scoped(ANN).count() == 11
            assert len(given.scoped(ANN).search(np.ones(8), 20)) == 11
    name = '"' + place.replace('"', '""') + '"'
    with psycopg.connect(boss, autocommit=True) as superuser:
        superuser.execute(
            f"CREATE TABLE public.old (id text PRIMARY KEY, tenant_id text, content text, embedding {name}.vector(8))"
        )
        superuser.execute(f"INSERT INTO public.old VALUES ('a', 'gamma', 'x', '[1,2,3,4,5,6,7,8]'::{name}.vector)")
        superuser.execute(
            "GRANT USAGE ON SCHEMA public TO vectoracl_owner; GRANT SELECT ON public.old TO vectoracl_owner"
        )
    assert "gamma" in operator.plan(adopt="public.old")
    operator.provision(adopt="public.old")
    operator.close()
    with v.connect(config) as acl:
        assert acl.scoped(testing.principal("gus", "gamma")).count() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_schema_is_named_exactly(moved: Any, kind: str) -> None:
    config = opened(moved("extensions", extension_schema="public"))
    with pytest.raises(v.PostureError, match=r'extension_schema = "extensions"'):
        Driven(kind, config).close()
    operator: Any = v.VectorACL(config).operator()
    with pytest.raises(v.PostureError, match=r'extension_schema = "extensions"'):
        operator.provision()
    operator.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_without_usage_is_named_exactly(moved: Any, kind: str) -> None:
    config = moved("extensions")
    boss = config["boss"]
    config = opened(config)
    operator: Any = v.VectorACL(config).operator()
    operator.provision()
    grant = 'GRANT USAGE ON SCHEMA "extensions" TO "vectoracl_{}";'
    with psycopg.connect(boss, autocommit=True) as superuser:
        superuser.execute("REVOKE USAGE ON SCHEMA extensions FROM vectoracl_runtime")
        with pytest.raises(v.PostureError) as refused:
            Driven(kind, config).close()
        assert grant.format("runtime") in refused.value.message
        with pytest.raises(v.ConfigError) as known:
            operator.provision()
        assert grant.format("runtime") in known.value.message
        superuser.execute(grant.format("runtime"))
        with Driven(kind, config) as driven:
            assert driven.scoped(ANN).count() == 0
        superuser.execute("REVOKE USAGE ON SCHEMA extensions FROM vectoracl_owner")
        other: Any = v.VectorACL(config).operator()
        with pytest.raises(v.PostureError) as refused:
            other.provision()
        assert grant.format("owner") in refused.value.message
        other.close()
    operator.close()


def test_the_printed_sql_stops_where_the_extension_is_elsewhere(moved: Any) -> None:
    config = moved("extensions", usage=())
    pg = PgvectorConfig(dsn="-", dimension=8)  # type: ignore[arg-type]
    with psycopg.connect(config["boss"]) as boss:
        with pytest.raises(psycopg.errors.RaiseException, match="set extension_schema"):
            for statement in schema.roles(pg):
                boss.execute(statement)
        boss.rollback()
        said = PgvectorConfig(dsn="-", dimension=8, extension_schema="extensions")  # type: ignore[arg-type]
        for statement in (*schema.roles(said), *schema.roles(said), *schema.migrations(said)):
            boss.execute(statement)
        boss.execute(f"SET LOCAL ROLE {pg.runtime_role}")
        assert boss.execute("SELECT '[1]'::extensions.vector::text").fetchone() == ("[1]",)
        boss.rollback()


def test_what_another_schema_calls_vector_is_not_taken_for_it(moved: Any) -> None:
    """A type and an operator of the same names, in a schema that comes first."""
    config = moved("extensions")
    boss = config["boss"]
    config = opened(config)
    operator: Any = v.VectorACL(config).operator()
    with psycopg.connect(boss, autocommit=True) as superuser:
        superuser.execute("CREATE DOMAIN public.vector AS text")
        superuser.execute("GRANT USAGE ON SCHEMA public TO vectoracl_owner, vectoracl_runtime")
    operator.provision()
    operator.close()
    with v.connect(config) as acl:
        acl.scoped(ANN).upsert(chunks("d", 3))
        assert len(acl.scoped(ANN).search(np.ones(8))) == 3
