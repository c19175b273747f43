"""Whatever a column is called: a name that a query, a trigger or a move uses for itself changes no answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, F, Hybrid, Lexical, hazmat, testing
from vectoracl.errors import ConfigError
from vectoracl_pgvector import schema
from vectoracl_pgvector.config import _OURS, Columns, PgvectorConfig
from vectoracl_pgvector.tiers import move

ANN, BOB = testing.principal("ann", "acme"), testing.principal("bob", "beta")
COLUMNS = tuple(Columns.model_fields)
VECTORS = np.random.default_rng(5).normal(size=(24, 8)).astype(np.float32)
# Aliases of the queries and of a move, variables of PL/pgSQL, and words of SQL. Every column is called by each of them.
HOSTILE = (
    "found", "tg_op", "new", "old", "excluded", "here", "there", "batch", "put", "query", "word", "asked", "given",
    "near", "said", "fused", "legs", "stored", "item", "present", "kept", "one", "written", "document", "chunk",
    "Distance", "select",
)  # fmt: skip


def chunks(count: int = 24) -> list[Chunk]:
    return [
        Chunk(
            f"c{i:02}", f"d{i % 5}", f"word{i % 3} of text {i}", VECTORS[i], i,
            {"year": 2000 + i, "lang": "en" if i % 2 else "de", "tags": ["a", f"t{i % 4}"]},
        )
        for i in range(count)
    ]  # fmt: skip


def answers(acl: v.VectorACL, *, exact: bool) -> list[Any]:
    """Return what every reading operation answers, in one form; with *exact* no search that may miss something."""
    docs, seen = acl.scoped(ANN), []  # type: ignore[var-annotated]  # answers of any kind
    where = (F.year >= 2003) & ~F.tags.contains("t1") | (F["@document"] == "d1")
    for handle in (docs, docs.narrow(F["@position"] < 20)):
        for query in (VECTORS[3], Lexical("word1 text"), Hybrid("word2", VECTORS[4])):
            for more in ({}, {"where": where}, {"group_by": "document", "per_group": 2}):
                parts = {"text", "metadata", "vector"}
                found = handle.search(query, 7, include=parts, exact=exact, **more)  # type: ignore[arg-type]  # drawn
                seen.append([(hit.document, hit.id, round(hit.score, 5), hit.text, hit.metadata, hit.position,
                              hit.tag.generation, hit.tag.label, hit.tag.producer) for hit in found])  # fmt: skip
        seen.append(sorted((hit.document, hit.id, hit.text) for hit in handle.fetch(["c01", "c21"], include={"text"})))
        seen.append([(hit.document, hit.id) for hit in handle.page(size=9, where=where).hits])
        seen.append([(hit.document, hit.id, hit.text) for hit in handle.scan(where=where, include={"text"})])
        seen.append([handle.count(where=where), handle.facets("lang"), handle.facets("tags", where=where)])
    seen.append([(hit.tenant, hit.id) for hit in hazmat.unscoped(acl, reason="a test of names").search(VECTORS[3], 9)])
    return seen


def write(acl: v.VectorACL) -> list[Any]:
    docs = acl.scoped(ANN)
    docs.upsert(chunks())
    acl.scoped(BOB).upsert(chunks(6))
    docs.upsert([Chunk("c00", "d0", "word0 once more", VECTORS[0])])
    docs.replace("d2", [Chunk("new", "d2", "word1 replaced", VECTORS[1], metadata={"year": 2050})])
    narrow = docs.narrow(F["@position"] < 20)
    narrow.upsert([Chunk("c03", "d3", "word0 narrow", VECTORS[3], 3, {"year": 2003})])
    with pytest.raises(v.DeniedError):
        narrow.upsert([Chunk("c23", "d3", "word0 narrow", VECTORS[3], 3, {"year": 2003})])
    return [docs.delete(where=F.year == 2004).count, docs.delete(ids=["c05"]).count, acl.scoped(BOB).count()]


def disturbing(acl: v.VectorACL, pg: PgvectorConfig, runtime: str) -> Callable[[str], None]:
    """Return what runs each kind of trigger of a promotion, and leaves the rows as they were."""
    docs, c = acl.scoped(ANN), pg.columns
    table = f'"{pg.schema_name}".chunks'

    def step(sql: str) -> None:
        if not sql.startswith("CREATE INDEX CONCURRENTLY") or "barrier" in sql:
            return
        docs.upsert([Chunk("x", "dx", "word1", VECTORS[2]), Chunk("y", "dx", "word1", VECTORS[2])])
        docs.upsert([Chunk("y", "dx", "word2", VECTORS[2])])
        docs.replace("dx", [Chunk("y", "dx", "word1", VECTORS[2])])
        with psycopg.connect(runtime) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute("SELECT set_config('vectoracl.tenant', 'acme', true)")
            for change in (f"\"{c.chunk}\" = 'z'", f'"{c.rev}" = 1'):
                done = connection.execute(f"UPDATE {table} SET {change} WHERE \"{c.document}\" = 'dx'")
                assert done.rowcount == 1
        docs.delete(document="dx")

    return step


@pytest.fixture(scope="module")
def plain(provisioned: Any) -> tuple[Any, list[Any], list[Any], list[Any]]:
    """A database whose columns have their usual names, and what the operations answer there."""
    store = provisioned()
    with v.connect(store.config) as acl:
        done = write(acl)
        return store, done, answers(acl, exact=False), answers(acl, exact=True)


@pytest.mark.server
@pytest.mark.parametrize("turn", range(len(HOSTILE)))
def test_a_hostile_name_for_each_column_changes_no_answer(plain: Any, turn: int) -> None:
    store, done, shared, exact = plain
    columns = {column: HOSTILE[(place + turn) % len(HOSTILE)] for place, column in enumerate(COLUMNS)}
    given = {"schema": f"s{turn}", "columns": columns}
    main = {key: value for key, value in store.config["stores"]["main"].items() if key not in ("adapter", "metadata")}
    pg = PgvectorConfig(**{**main, **given})
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        superuser.execute(f"CREATE SCHEMA s{turn} AUTHORIZATION vectoracl_owner")
    with (
        psycopg.connect(store.owner, autocommit=True, prepare_threshold=None) as owner,
        v.VectorACL(store.changed(**given)) as acl,
    ):
        for statement in schema.migrations(pg):
            owner.execute(statement)
        assert acl.open().check()["main"].grade == "engine"
        assert write(acl) == done
        assert answers(acl, exact=False) == shared
        move.promote(owner, pg, "acme", step=disturbing(acl, pg, store.runtime))
        assert answers(acl, exact=True) == exact
        move.demote(owner, pg, "acme")
        assert answers(acl, exact=False) == shared


@pytest.mark.parametrize("column", COLUMNS)
def test_a_name_that_queries_need_is_refused_with_the_column_that_has_it(column: str) -> None:
    for name in ("distance", "fused_distance", "leg_document", "place", "in_shared", "returned_text", "ctid"):
        assert name in _OURS
    for name in sorted(_OURS):
        store = {"adapter": "pgvector", "dsn": "postgresql://db/x", "dimension": 8, "columns": {column: name}}
        with pytest.raises(ConfigError, match=f"{column} = '{name}': queries use that name .* Rename the column"):
            v.VectorACL({"version": 1, "stores": {"main": store}})._named("main")
