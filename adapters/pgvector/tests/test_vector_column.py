"""The vector column says whose vectors it holds; another embedder, dimension or type is refused with the cure."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from vectoracl import PostureError, RefusedError, VectorACL, connect
from vectoracl_conformance.adapter_tests import kept_embedder
from vectoracl_conformance.adapter_tests.kept_embedder import WRITER, One, provision
from vectoracl_pgvector.vector_column import escaped

from pgvector_support.stores import Store


class Odd(One):
    name = 'it\'s 100% "other"\\:8'


def comment(store: Store) -> str | None:
    with psycopg.connect(store.owner) as owner:
        row = owner.execute(
            "SELECT col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
            (store.names.table, store.pg.columns.vector),
        ).fetchone()
    assert row is not None
    return row[0]


def test_an_existing_store_learns_its_embedder_at_the_next_provision(store: Store) -> None:
    kept_embedder.write_before(store.config)
    provision(store.config)
    assert comment(store) is None
    plan, _ = provision(store.config, Odd())
    assert plan.count("COMMENT ON COLUMN") >= 1
    provision(store.config, Odd())
    kept_embedder.assert_kept(store.config, Odd(), One())
    with connect(store.config) as acl:
        assert len(acl.scoped(WRITER).search([1.0] * 8)) == 1


def test_a_comment_of_somebody_else_stays(store: Store) -> None:
    with psycopg.connect(store.owner) as owner:
        owner.execute(f"COMMENT ON COLUMN {store.names.table}.{store.names.c.vector} IS 'ours: 100%\n''x'''")
    provision(store.config, One())
    found = comment(store)
    assert found is not None
    assert found.startswith("ours: 100%\n'x'\n[vectoracl] {")


def test_the_printed_sql_keeps_it_too(store: Store) -> None:
    plan, _ = provision(store.config)
    plan, _ = provision(store.config, One())
    with psycopg.connect(store.owner) as owner:
        owner.execute(plan[plan.index("DO $vectoracl$") : plan.rindex("RESET ROLE;")].encode())
    assert One.name in str(comment(store))
    assert escaped("a%b") == "a%%b"


@pytest.mark.parametrize(
    "changed",
    [{"dimension": 7}, {"dimension": 9}, {"type": "halfvec", "dimension": 16}],
    ids=str,
)
def test_another_dimension_is_said_everywhere(store: Store, changed: dict[str, object]) -> None:
    config = store.changed(**changed)
    with pytest.raises(RefusedError, match=r"vector\(8\).*--reembed") as caught:
        provision(config)
    assert caught.value.field == "dimension"
    with VectorACL(config) as acl:
        found = acl.check()["main"]
        assert "PG113" in {one.rule.id for one in found.findings}
        assert found.grade == "none"
    with pytest.raises(PostureError, match="PG113"):
        connect(config)
    provision(store.config)
    connect(store.config).close()


def test_the_other_precision_is_said_and_provision_changes_it(provisioned: Callable[..., Store]) -> None:
    store = provisioned(type="halfvec", dimension=4)
    with connect(store.changed(type="vector")) as acl:
        assert "PG115" in {one.rule.id for one in acl.check()["main"].findings}
    with pytest.raises(PostureError, match="PG113"):
        connect(store.changed(dimension=5))
    provision(store.changed(type="vector"))
    with connect(store.changed(type="vector")) as acl:
        assert "PG115" not in {one.rule.id for one in acl.check()["main"].findings}
