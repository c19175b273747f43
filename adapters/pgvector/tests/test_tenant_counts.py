"""The list of tenants counts each under its own scope, in batches, directly and through a pooler."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl_pgvector import schema, tenant_counts
from vectoracl_pgvector.tiers import move

pytestmark = pytest.mark.server

NAMES = [
    "acme", "Acme", "A-CME", "a'; DROP TABLE x; --", "a\\b", 'a"b', "ünïcödé", "a_b", *(f"t{n}" for n in range(9)),
]  # fmt: skip


@pytest.fixture(scope="module")
def listed(provisioned: Any) -> Any:
    store = provisioned()
    with v.connect(store.config) as acl:
        for number, name in enumerate(NAMES):
            docs = acl.scoped(testing.principal("ann", name))
            docs.upsert([Chunk(f"c{one}", "d", "text", [1.0] * 8) for one in range(number % 4)])
            docs.count()
        acl.operator().promote("Acme")
    return store


def expected() -> dict[str, int]:
    return {name: number % 4 for number, name in enumerate(NAMES) if number % 4}


def counts(config: dict[str, Any]) -> dict[str, int]:
    with v.connect(config) as acl:
        return {one.tenant: one.rows for one in acl.operator().tenants() if one.rows}


@pytest.mark.parametrize("batch", [1, 2, 5, 25])
def test_each_tenant_has_its_own_number(listed: Any, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_counts, "BATCH", batch)
    assert counts(listed.config) == expected()


def test_progress_is_shown_while_tenants_are_counted(listed: Any) -> None:
    seen: list[Any] = []
    with v.connect(listed.config) as acl:
        acl.operator().tenants(progress=lambda *one: seen.append(one))
    assert {what for what, _, _ in seen} == {"counting tenants"}
    assert [done for _, done, _ in seen] == list(range(1, seen[0][2] + 1))


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_through_a_pooler(listed: Any, pgbouncer: Any, mode: str) -> None:
    database = str(conninfo_to_dict(listed.runtime)["dbname"])
    pooler = pgbouncer(mode, default_pool_size="2")
    config = listed.changed(owner_dsn=pooler.dsn("owner", database))
    assert counts(config) == counts(config) == expected()


@pytest.mark.parametrize("together", [1, 2, 5, 1000])
def test_tenants_of_the_shared_partition_are_counted_together(
    listed: Any, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant_counts, "TOGETHER", together)
    monkeypatch.setattr(tenant_counts, "_anywhere", only({"Acme"}))
    assert counts(listed.config) == expected()


def only(allowed: set[str]) -> Any:
    """Return the counting by single statements, which fails for other tenants than *allowed*."""
    original = tenant_counts._anywhere

    def watched(connection: Any, names: Any, tenants: list[str]) -> Any:
        assert set(tenants) <= allowed, tenants
        return original(connection, names, tenants)

    return watched


def test_a_partition_made_by_hand_for_several_tenants(provisioned: Any) -> None:
    store = provisioned()
    with v.connect(store.config) as acl, psycopg.connect(store.owner) as owner:
        owner.execute(f"CREATE TABLE {store.names.schema}.several PARTITION OF {store.names.table} "
                      "FOR VALUES IN ('one', 'two')")  # fmt: skip
        for statement in schema.protection(store.pg, f"{store.names.schema}.several"):
            owner.execute(statement)
        owner.commit()
        for name, size in {"one": 2, "two": 3, "three": 4}.items():
            acl.scoped(testing.principal("ann", name)).upsert(
                [Chunk(f"c{one}", "d", "text", [1.0] * 8) for one in range(size)]
            )
        assert counts(store.config) == {"one": 2, "two": 3, "three": 4}


def test_a_tenant_that_moves_while_it_is_counted(provisioned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = provisioned()
    with v.connect(store.config) as acl:
        for name in ("one", "two"):
            acl.scoped(testing.principal("ann", name)).upsert([Chunk("c", "d", "text", [1.0] * 8)])
        original = move.number_of_partitions

        def moving(connection: Any, config: Any) -> int:
            number = original(connection, config)
            acl.operator().promote("two")
            return number

        monkeypatch.setattr(move, "number_of_partitions", moving)
        found = {one.tenant: (one.tier, one.rows) for one in acl.operator().tenants()}
    assert found == {"one": ("shared", 1), "two": ("own", 1)}


def test_without_the_scope_no_rows_are_counted(listed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counting owner is bound by the policies too: it is the scope that shows it the rows."""
    monkeypatch.setattr(tenant_counts, "SETTING", "vectoracl.other")
    with psycopg.connect(listed.owner, autocommit=True) as owner:
        found = dict(tenant_counts.tenant_counts(owner, listed.names, ["A-CME", "t1"], {"A-CME", "t1"}))
    assert found == {"A-CME": 0, "t1": 0}
