"""`connect` reads the catalogs once, and again only after a change: also one that is undone while they are read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest

import vectoracl as v
from vectoracl import testing
from vectoracl.client import kept_postures
from vectoracl.engine.drivers import run
from vectoracl.errors import PostureError
from vectoracl_pgvector.adapter import PgvectorAdapter
from vectoracl_pgvector.requests import Statement, Transaction

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The flows of the adapter that were asked for."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    asked: list[str] = []
    for name in ("posture", "fingerprint", "fingerprinted_posture"):
        original = getattr(PgvectorAdapter, name)

        def flow(self: Any, name: str = name, original: Any = original) -> Any:
            asked.append(name)
            return original(self)

        monkeypatch.setattr(PgvectorAdapter, name, flow)
    return asked


def started(store: Any, measured: list[str], config: Any = None) -> list[str]:
    measured.clear()
    with v.connect(config or store.config) as acl:
        acl.scoped(testing.principal("ann", "acme")).count()
    return list(measured)


FIRST = ["fingerprinted_posture"]
WHOLE = ["fingerprint", "fingerprinted_posture"]


_TRIES = 20
"""Other tests may change roles of the server, which all its databases share, between two starts."""


def known(store: Any, measured: list[str]) -> bool:
    """Return whether one of a few starts asks for the fingerprint alone."""
    return any(started(store, measured) == ["fingerprint"] for _ in range(_TRIES))


def test_an_unchanged_database_is_known(store: Any, measured: list[str]) -> None:
    assert started(store, measured) == FIRST
    assert known(store, measured)

    async def start() -> list[str]:
        measured.clear()
        async with v.aconnect(store.config) as acl:
            await acl.scoped(testing.principal("ann", "acme")).count()
        return list(measured)

    assert any(asyncio.run(start()) == ["fingerprint"] for _ in range(_TRIES))
    with v.connect(store.config) as acl:
        acl.operator().provision()
        acl.scoped(testing.principal("ann", "acme")).upsert([v.Chunk("c", "d", "text", [1.0] * 8)])
    started(store, measured)
    assert known(store, measured), "writing rows is not a change of the posture"


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE {default} NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY vectoracl_select_permissive ON {table}; DROP POLICY vectoracl_select_restrictive ON {table}; "
        "CREATE POLICY vectoracl_select_permissive ON {table} USING (true)",
        "CREATE TABLE {schema}.copy AS SELECT * FROM {table}; GRANT SELECT ON {schema}.copy TO PUBLIC",
    ],
)
def test_a_change_is_refused_at_the_next_start(store: Any, measured: list[str], change: str) -> None:
    assert started(store, measured) == FIRST
    names = store.names
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute(change.format(table=names.table, default=names.default, schema=names.schema).encode())
    for _ in range(2):
        with pytest.raises(PostureError):
            started(store, measured)


def test_another_configuration_is_another_posture(store: Any, measured: list[str]) -> None:
    started(store, measured)
    assert started(store, measured, store.changed(backup_roles=["dumper"])) == WHOLE


def test_a_change_that_is_undone_while_the_check_reads_is_noticed(store: Any) -> None:
    """Before the reading ends a policy is dropped and made again; a role is added and removed again."""
    names = store.names
    with psycopg.connect(store.bootstrap, autocommit=True) as boss, v.connect(store.config) as acl:
        acl.open()
        named = acl._named("main")

        class Meddling:
            def __init__(self, change: str) -> None:
                self.change = change

            def execute(self, request: Any, timeout: float | None) -> Any:
                replies = named.port.execute(request, timeout)
                if isinstance(request, Transaction) and request.snapshot:
                    boss.execute(self.change.encode())
                return replies

        def noticed(change: str) -> bool:
            adapter, port = named.store.adapter, named.port
            flow = adapter.fingerprinted_posture()  # type: ignore[attr-defined]  # this adapter has it
            _, before = run(flow, {"store": Meddling(change)}, timeout=30)  # type: ignore[dict-item]  # a port with the one method that is used
            return bool(run(adapter.fingerprint(), {"store": port}, timeout=30) != before)  # type: ignore[attr-defined, dict-item]  # the same

        assert not all(noticed("SELECT 1") for _ in range(_TRIES))
        assert noticed(
            f"ALTER POLICY vectoracl_select_restrictive ON {names.table} RENAME TO q; "
            f"ALTER POLICY q ON {names.table} RENAME TO vectoracl_select_restrictive"
        )
        assert noticed(f"GRANT SELECT ON {names.default} TO PUBLIC")


def test_check_and_fingerprint_see_one_snapshot(store: Any) -> None:
    """A change that is undone later cannot be found afterwards, so the check must not have been made during it."""
    with v.connect(store.config) as acl:
        acl.open()
        flow = acl._named("main").store.adapter.fingerprinted_posture()
        request = next(flow)
        assert isinstance(request, Transaction)
        assert request.snapshot
        assert request.read_only
        flow.close()
        port = acl._named("main").port
        assert port is not None
        level = request.statements[:1]
        ask = Statement("SELECT pg_catalog.current_setting('transaction_isolation')", binary=False)
        (_, rows) = port.execute(Transaction(None, (*level, ask), snapshot=True), 10)
        assert rows == [("repeatable read",)]
        (rows,) = port.execute(Transaction(None, (ask,), snapshot=True), 10)
        assert rows == [("repeatable read",)]


def test_a_forged_file_of_another_user_is_not_read(store: Any, measured: list[str]) -> None:
    started(store, measured)
    kept_postures.folder().chmod(0o777)
    assert started(store, measured) == WHOLE
