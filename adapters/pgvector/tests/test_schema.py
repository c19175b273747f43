"""The provisioning SQL, run the way its text says: a superuser's part once, then the owner's, any number of times."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl.errors import StoreError
from vectoracl_pgvector import schema
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection import lock_waits

pytestmark = pytest.mark.server


def test_the_owner_needs_no_right_to_make_schemas(database: Any) -> None:
    made = database()
    config = PgvectorConfig(dsn="-", dimension=3, schema="elsewhere")  # type: ignore[call-arg, arg-type]
    with psycopg.connect(made.bootstrap, autocommit=True) as superuser:
        row = superuser.execute("SELECT current_database()").fetchone()
        assert row is not None
        superuser.execute(f"ALTER DATABASE {row[0]} OWNER TO CURRENT_USER")
        superuser.execute(f"GRANT CONNECT ON DATABASE {row[0]} TO vectoracl_owner")
        for statement in schema.roles(config):
            superuser.execute(statement)
    with psycopg.connect(made.owner, autocommit=True) as owner:
        allowed = owner.execute("SELECT has_database_privilege(current_database(), 'CREATE')").fetchone()
        assert allowed == (False,)
        for _ in range(2):
            for statement in schema.migrations(config):
                owner.execute(statement)


ACME, BETA = testing.principal("ann", "acme"), testing.principal("bob", "beta")


def superuser(store: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(store.bootstrap, autocommit=True)


def policies(store: Any) -> list[tuple[str, str, bool, list[str]]]:
    with superuser(store) as connection:
        return connection.execute(
            "SELECT polrelid::regclass::text, polname::text, polpermissive, ARRAY(SELECT CASE WHEN o = 0 THEN 'public' "
            "ELSE pg_get_userbyid(o) END::text FROM unnest(polroles) o ORDER BY 1) FROM pg_policy "
            "JOIN pg_class ON pg_class.oid = polrelid WHERE relnamespace = 'vectoracl'::regnamespace ORDER BY 1, 2"
        ).fetchall()


def filled(store: Any) -> None:
    with v.connect(store.config) as acl:
        for who in (ACME, BETA):
            acl.scoped(who).upsert(
                [Chunk(f"{who.tenant}-{i}", "d", "text", [1.0, i, 0, 0, 0, 0, 0, 0]) for i in range(5)]
            )


def test_policies_open_for_two_roles_and_close_for_all(store: Any) -> None:
    filled(store)
    with v.connect(store.config) as acl:
        acl.operator().promote("acme")
    found = policies(store)
    assert len({table for table, *_ in found}) == 5  # the table, two partitions, the tenants and the versions
    for table, name, permissive, roles in found:
        if not permissive:
            assert roles == ["public"], (table, name)
        else:
            assert set(roles) <= {"vectoracl_owner", "vectoracl_runtime"}, (table, name)
    closed = {table for table, _, permissive, _ in found if not permissive}
    assert closed == {table for table, *_ in found} - {"vectoracl.chunks_version"}


def test_what_somebody_adds_later_opens_nothing(store: Any) -> None:
    """A careless policy, for a role of its own or for all, on each table of the schema."""
    filled(store)
    tables = ("chunks", "chunks_default", "chunks_tenants")
    with superuser(store) as boss:
        boss.execute("DROP ROLE IF EXISTS analyst")
        boss.execute("CREATE ROLE analyst; GRANT USAGE ON SCHEMA vectoracl TO analyst")
        for table in tables:
            boss.execute(f"GRANT ALL ON vectoracl.{table} TO analyst, vectoracl_runtime")
            boss.execute(f"CREATE POLICY careless ON vectoracl.{table} USING (true) WITH CHECK (true)")
        for role in ("analyst", "vectoracl_runtime"):
            for table in tables:
                with boss.transaction(force_rollback=True):
                    boss.execute(f"SET LOCAL ROLE {role}")
                    assert boss.execute(f"SELECT count(*) FROM vectoracl.{table}").fetchone() == (0,)
                    assert boss.execute(f"DELETE FROM vectoracl.{table}").rowcount == 0
                    boss.execute("SELECT set_config('vectoracl.tenant', 'acme', true)")
                    seen = boss.execute(f"SELECT DISTINCT tenant_id FROM vectoracl.{table}").fetchall()
                    assert seen == [("acme",)]
                    with pytest.raises(psycopg.errors.InsufficientPrivilege), boss.transaction():
                        boss.execute(f"INSERT INTO vectoracl.{table} (tenant_id) VALUES ('gamma')")
        boss.execute("DROP OWNED BY analyst; DROP ROLE analyst")


def old(store: Any) -> None:
    """Give the database the policies of version 2: for PUBLIC, with NULLIF, and none that restricts the tenants."""
    now = "tenant_id = NULLIF(current_setting('vectoracl.tenant', true), '')"
    with superuser(store) as boss:
        for table, name, _, _ in policies(store):
            if name in ("vectoracl_own_alone", "vectoracl_owner_keeps"):
                boss.execute(f"DROP POLICY {name} ON {table}")
            elif name == "vectoracl_owner_lists":
                boss.execute(f"ALTER POLICY {name} ON {table} USING (true)")
            else:
                using = "" if "insert" in name or name.endswith("add_own") else f" USING ({now})"
                check = (
                    f" WITH CHECK ({now})" if "insert" in name or "update" in name or name.endswith("add_own") else ""
                )
                boss.execute(f"ALTER POLICY {name} ON {table} TO PUBLIC{using}{check}")
        boss.execute("ALTER TABLE vectoracl.chunks_version NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY")
        boss.execute("DELETE FROM vectoracl.chunks_version; INSERT INTO vectoracl.chunks_version VALUES (2)")


def test_an_earlier_schema_serves_is_reported_and_is_made_new(store: Any) -> None:
    filled(store)
    with v.connect(store.config) as acl:
        acl.operator().promote("acme")
    new = policies(store)
    old(store)
    with v.connect(store.config) as acl:
        posture = acl.check()["main"]
        assert posture.grade == "engine"
        reported = {f.subject.split(".")[1] for f in posture.findings if f.rule.id == "PG041"}
        assert reported == {"chunks", "chunks_default", "chunks_t_acme"}
        assert acl.scoped(ACME).count() == acl.scoped(BETA).count() == 5
        acl.operator().provision()
        assert policies(store) == new
        assert "PG041" not in {f.rule.id for f in acl.check()["main"].findings}
        for who in (ACME, BETA):
            acl.scoped(who).upsert([Chunk("more", "d", "text", [1.0] * 8)])
            assert acl.scoped(who).count() == 6
        assert {one.tenant: one.rows for one in acl.operator().tenants()} == {"acme": 6, "beta": 6}
        acl.operator().demote("acme")
        assert acl.scoped(ACME).count() == 6


@contextmanager
def reading(store: Any) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that has read the table and does not end."""
    with psycopg.connect(store.runtime) as connection:
        connection.execute("SELECT count(*) FROM vectoracl.chunks")
        yield connection


def test_provision_does_not_wait_for_ever_and_nobody_behind_it(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_waits, "LOCK_TIMEOUT", 0.3)
    monkeypatch.setattr(lock_waits.migrate, "__kwdefaults__", {"wait": 0.3, "tries": 2})
    before = policies(store)
    longest = 0.0
    done = threading.Event()

    def read() -> None:
        nonlocal longest
        with psycopg.connect(store.runtime, autocommit=True) as connection:
            while not done.is_set():
                start = time.monotonic()
                connection.execute("SELECT count(*) FROM vectoracl.chunks")
                longest = max(longest, time.monotonic() - start)
                time.sleep(0.01)

    thread = threading.Thread(target=read)
    with v.connect(store.config) as acl, reading(store) as held:
        thread.start()
        try:
            with pytest.raises(StoreError, match=f"{held.info.backend_pid} ") as caught:
                acl.operator().provision()
        finally:
            done.set()
            thread.join()
        assert (caught.value.code, caught.value.sent, caught.value.retryable) == ("locked", "no", True)
        assert '"vectoracl"."chunks"' in caught.value.message
    assert longest < 3  # two waits of 0.3 s, and a busy machine
    assert policies(store) == before
    with v.connect(store.config) as acl:
        acl.operator().provision()


def test_provision_tries_again_when_the_table_is_free(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_waits.migrate, "__kwdefaults__", {"wait": 0.2, "tries": 50})
    with v.connect(store.config) as acl, reading(store) as held:
        timer = threading.Timer(1.0, held.close)
        timer.start()
        acl.operator().provision()
        timer.join()


def test_the_printed_sql_bounds_its_waits_too(store: Any) -> None:
    with v.connect(store.config) as acl:
        lines = acl.operator().plan().splitlines()
    assert lines.index(f"SET LOCAL lock_timeout = '{schema.LOCK_TIMEOUT}s';") > lines.index("BEGIN;")
