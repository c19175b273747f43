"""One table reached in two ways is one store to `vectoracl copy`; the server says so, to the role that serves."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl.copying.checkpoint import Checkpoint
from vectoracl.copying.copy import Copy
from vectoracl.copying.planning import Plan, Side
from vectoracl.errors import RefusedError, StoreError
from vectoracl_pgvector import schema
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.failures import mapped
from vectoracl_pgvector.embedded import server as embedded
from vectoracl_pgvector.names import Names
from vectoracl_pgvector.store_identity import places

pytestmark = pytest.mark.server


def otherwise(dsn: str, **more: str) -> str:
    """Return another DSN of the same database."""
    return psycopg.conninfo.make_conninfo(dsn, application_name="other", **more)


def planned(one: dict[str, Any], other: dict[str, Any], folder: Path, **how: Any) -> Plan:
    with v.VectorACL(one) as source, v.VectorACL(other) as target:
        checkpoint = Checkpoint(folder / "checkpoint", ["a", "b"])
        return Copy(Side(source), Side(target), reason="a test of places", checkpoint=checkpoint).plan(**how)


@pytest.mark.parametrize("readable", [True, False], ids=["system identifier", "start of the server"])
def test_two_ways_to_one_table_are_one_store(store: Any, tmp_path: Path, readable: bool) -> None:
    with v.connect(store.config) as acl:
        acl.scoped(testing.principal("ann", "acme")).upsert([Chunk("c", "d", "", [1.0] * 8)])
        if not readable:
            with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
                superuser.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        named = acl.store_identity("main")
        assert len(named) == (2 if readable else 1)
    other = store.changed(dsn=otherwise(store.runtime), ef_search=100)
    with pytest.raises(RefusedError, match="the same store for 'acme' under different settings"):
        planned(store.config, other, tmp_path)
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        superuser.execute("ALTER ROLE ALL SET timezone = 'Asia/Tokyo'")
        superuser.execute("ALTER ROLE ALL SET datestyle = 'German'")
    try:
        with v.VectorACL(other) as acl:
            assert acl.store_identity("main") == named
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
        assert acl.store_identity("main") == frozenset()


@pytest.fixture
def twins() -> Iterator[tuple[Any, Any]]:
    """Start a server whose table holds one tenant's chunk, and another one made from a physical backup of it."""
    folder = Path(tempfile.mkdtemp(prefix="vectoracl-places-", dir="/tmp"))
    running: list[Any] = []
    try:
        first = embedded.start(folder / "live")
        try:
            with psycopg.connect(first.dsn("owner")) as owner:
                for statement in schema.migrations(PgvectorConfig(dsn=first.dsn("runtime"), dimension=3)):
                    owner.execute(statement)
            with v.connect(settings(first)) as acl:
                acl.scoped(testing.principal("ann", "acme")).upsert([Chunk("c", "d", "", [1.0] * 3)])
        finally:
            embedded.release(first)
            embedded.stop(folder / "live")
        copied(folder / "live", folder / "restored")
        for name in ("live", "restored"):
            running.append(embedded.start(folder / name))
        yield running[0], running[1]
    finally:
        for one in running:
            embedded.release(one)
            embedded.stop(folder / ("live", "restored")[running.index(one)])
        shutil.rmtree(folder, ignore_errors=True)


def copied(source: Path, target: Path) -> None:
    """Copy a stopped server's folder with owners and modes."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=60)


def settings(server: Any) -> dict[str, Any]:
    store = {"adapter": "pgvector", "dsn": server.dsn("runtime"), "owner_dsn": server.dsn("owner"), "dimension": 3}
    return {"version": 1, "stores": {"main": store}}


def test_a_restored_physical_backup_is_another_store(twins: tuple[Any, Any], tmp_path: Path) -> None:
    """It has the system identifier and the oids of the server that it was made of."""
    live, restored = map(settings, twins)
    with v.connect(live) as acl:
        acl.scoped(testing.principal("ann", "acme")).delete(document="d")  # the accident
    (move,) = planned(restored, live, tmp_path, tenants=["acme"], named=True).moves
    assert (move.rows, move.state) == (1, "copy")
    with pytest.raises(RefusedError, match="the same store for 'acme'"):
        other = {
            "version": 1,
            "stores": {"main": {**live["stores"]["main"], "dsn": otherwise(twins[0].dsn("runtime"))}},
        }
        planned(live, other, tmp_path, tenants=["acme"])


class Server:
    """Answers what `places` asks for, the system identifier with an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def execute(self, request: Any, timeout: float | None) -> Any:
        if "FROM pg_control_system()" in request.statements[0].sql:
            raise mapped(self._error, debug=False)
        return (((5, 7, "2026-01-01", True, False),),)


NAMES = Names.of(PgvectorConfig(dsn="postgresql://x/y", dimension=3))


@pytest.mark.parametrize("error", [psycopg.errors.FeatureNotSupported, psycopg.errors.InsufficientPrivilege])
def test_a_server_that_does_not_say_its_identifier_is_named_by_its_start(error: type[Exception]) -> None:
    """Managed services do not support pg_control_system()."""
    server: Any = Server(error())  # stands in for a connection
    assert places(server, NAMES) == {"started 2026-01-01, database 5, table 7"}


def test_a_server_that_cannot_answer_now_is_asked_again_later() -> None:
    with pytest.raises(StoreError) as raised:
        places(Server(psycopg.errors.TooManyConnections()), NAMES)  # type: ignore[arg-type]
    assert raised.value.retryable
