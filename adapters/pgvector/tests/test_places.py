"""One table reached in two ways is one store to `vectoracl copy`; the server says so, to the role that serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl.checkpoint import Checkpoint
from vectoracl.copying import Copy, Side
from vectoracl.errors import RefusedError
from vectoracl_pgvector import schema

pytestmark = pytest.mark.server


def otherwise(dsn: str, **more: str) -> str:
    """Return another DSN of the same database."""
    return psycopg.conninfo.make_conninfo(dsn, application_name="other", **more)


def planned(one: dict[str, Any], other: dict[str, Any], folder: Path) -> None:
    with v.VectorACL(one) as source, v.VectorACL(other) as target:
        checkpoint = Checkpoint(folder / "checkpoint", ["a", "b"])
        Copy(Side(source), Side(target), reason="a test of places", checkpoint=checkpoint).plan()


@pytest.mark.parametrize("readable", [True, False], ids=["system identifier", "start of the server"])
def test_two_ways_to_one_table_are_one_store(store: Any, tmp_path: Path, readable: bool) -> None:
    with v.connect(store.config) as acl:
        acl.scoped(testing.principal("ann", "acme")).upsert([Chunk("c", "d", "", [1.0] * 8)])
        if not readable:
            with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
                superuser.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        named = acl.places("main")
        assert len(named) == (2 if readable else 1)
    other = store.changed(dsn=otherwise(store.runtime), ef_search=100)
    with pytest.raises(RefusedError, match="the same store of 'acme' by different settings"):
        planned(store.config, other, tmp_path)
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        superuser.execute("ALTER ROLE ALL SET timezone = 'Asia/Tokyo'")
        superuser.execute("ALTER ROLE ALL SET datestyle = 'German'")
    try:
        with v.VectorACL(other) as acl:
            assert acl.places("main") == named
    finally:
        with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
            superuser.execute("ALTER ROLE ALL RESET ALL")


def test_another_table_and_another_database_of_the_server_are_others(provisioned: Any, tmp_path: Path) -> None:
    one, other = provisioned(), provisioned()
    with v.connect(one.config) as acl:
        acl.scoped(testing.principal("ann", "acme")).upsert([Chunk("c", "d", "", [1.0] * 8)])
    planned(one.config, other.config, tmp_path)
    beside = one.changed(table="beside")
    pg = one.pg.model_copy(update={"table": "beside"})
    with psycopg.connect(one.owner) as owner:
        for statement in schema.migrations(pg):
            owner.execute(statement)
    planned(one.config, beside, tmp_path)
    with v.VectorACL(one.changed(table="nowhere")) as acl:
        assert acl.places("main") == frozenset()
