"""`tenants remove`: nothing of the tenant stays, not even its name; nobody else loses anything; it can be repeated."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl.adapter_api.contract import TenantRemover
from vectoracl.cli import app
from vectoracl_pgvector.tiers import move
from vectoracl_pgvector.tiers.base import MoveTimeouts

from pgvector_support.moving import Crowd, another_move, chunks, everything, fill, leftovers, owner_of

pytestmark = pytest.mark.server

NAME = "gonewithit"
GONE = testing.principal("guy", NAME)
BETA = testing.principal("bob", "beta")
HARD = "Straße-名.x"


class Stop(BaseException):
    """A mover that is killed."""


def mentions(store: Any, name: str = NAME) -> list[str]:
    """Return where *name* is in any column of any table of the database, the catalogs and statistics included."""
    found = []
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        tables = boss.execute(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind IN ('r', 'm') AND n.nspname NOT LIKE 'pg_toast%' AND n.nspname <> 'information_schema'"
        ).fetchall()
        for space, table in tables:
            if table in ("pg_largeobject", "pg_auth_members", "pg_authid"):
                continue
            (count,) = boss.execute(  # type: ignore[misc]
                f'SELECT count(*) FROM ONLY "{space}"."{table}" AS one WHERE strpos(one::text, %s) > 0', (name,)
            ).fetchone()
            if count:
                found.append(f"{space}.{table}")
    return found


def analyzed(store: Any) -> None:
    """What autovacuum does at some time: the catalogs have statistics too, of the partitions' names."""
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute("ANALYZE")
        boss.execute("ANALYZE vectoracl.chunks")


@pytest.mark.parametrize("tier", ["shared", "own"])
@pytest.mark.parametrize("others", [True, False])
def test_nothing_stays_not_even_the_name(provisioned: Any, tier: str, others: bool) -> None:
    store = provisioned()
    with v.connect(store.config) as acl:
        fill(acl, GONE)
        if others:
            fill(acl, BETA)
        kept = everything(acl, BETA)
        operator: Any = acl.operator()
        assert isinstance(operator, TenantRemover)
        if tier == "own":
            operator.promote(NAME)
        analyzed(store)
        assert {"vectoracl.chunks_tenants", "pg_catalog.pg_statistic"} <= set(mentions(store)), "the control"
        (line,) = operator.remove(NAME)
        assert "200 rows" in line
        assert mentions(store) == []
        assert [one.tenant for one in operator.tenants()] == (["beta"] if others else [])
        assert everything(acl, BETA) == kept
        assert everything(acl, GONE) == frozenset()
        assert operator.remove(NAME) == []
        # It begins again with its next write, whole.
        fill(acl, GONE, documents=1)
        assert [one.tenant for one in operator.tenants()] == (["beta", NAME] if others else [NAME])
        operator.promote(NAME)
        operator.remove(NAME)
        assert mentions(store) == []
        with psycopg.connect(store.owner, autocommit=True) as owner:
            assert leftovers(owner) == []
        operator.close()
        assert {one.grade for one in acl.check().values()} == {"engine"}


def test_any_name(provisioned: Any) -> None:
    store = provisioned()
    with v.connect(store.config) as acl:
        operator: Any = acl.operator()
        for name in (HARD, "a", "removed-0", "x" * 200):
            who = testing.principal("w", name)
            acl.scoped(who).upsert(chunks("d", 3))
            operator.promote(name)
            assert operator.remove(name)
            acl.scoped(who).upsert(chunks("d", 3))
            assert operator.remove(name)
            assert acl.scoped(who).count() == 0
        assert operator.remove("neverwas") == []
        with pytest.raises(v.InvalidTenantError):
            operator.remove("")
        operator.close()
        assert mentions(store, HARD) == []


def test_a_store_from_before_the_policy(provisioned: Any) -> None:
    store = provisioned()
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute("DROP POLICY vectoracl_owner_forgets ON vectoracl.chunks_tenants")
    with v.connect(store.config) as acl:
        fill(acl, GONE, documents=1)
        operator: Any = acl.operator()
        assert operator.remove(NAME)
        operator.close()
    assert mentions(store) == []


def steps(store: Any) -> int:
    """Return how many statements a removal of a tenant with a partition runs."""
    ran: list[str] = []
    with v.connect(store.config) as acl, owner_of(store) as owner:
        fill(acl, GONE, documents=1, each=5)
        move.promote(owner, store.pg, NAME)
        move.remove(owner, store.pg, NAME, step=ran.append)
    return len(ran)


def test_broken_off_at_any_statement_it_finishes_when_it_is_repeated(provisioned: Any) -> None:
    store = provisioned()
    count = steps(store)
    assert count > 20
    with v.connect(store.config) as acl:
        fill(acl, BETA, documents=1)
        kept = everything(acl, BETA)
        for number in range(0, count, 3):
            fill(acl, GONE, documents=1, each=5)
            with owner_of(store) as owner:
                move.promote(owner, store.pg, NAME)
            left = number

            def dies(_: str) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    raise Stop

            with owner_of(store) as owner, pytest.raises(Stop):
                try:
                    move.remove(owner, store.pg, NAME, step=dies)
                finally:
                    owner.pgconn.finish()
            # Whatever is left is listed, or nothing is.
            with owner_of(store) as owner:
                again = move.remove(owner, store.pg, NAME)
            assert again or mentions(store) == [], number
            assert everything(acl, BETA) == kept
            assert everything(acl, GONE) == frozenset()
        assert mentions(store) == []


def test_what_a_broken_off_move_left_goes_too(provisioned: Any) -> None:
    store = provisioned()
    with v.connect(store.config) as acl:
        for _ in range(2):
            fill(acl, GONE)

            def dies(sql: str) -> None:
                if "ATTACH PARTITION" in sql:
                    raise Stop

            with owner_of(store) as owner, pytest.raises(Stop):
                try:
                    move.promote(owner, store.pg, NAME, step=dies)
                finally:
                    owner.pgconn.finish()
            assert "pg_catalog.pg_trigger" in mentions(store) or "pg_catalog.pg_class" in mentions(store)
            analyzed(store)
            operator: Any = acl.operator()
            assert len(operator.remove(NAME)) == 2
            operator.close()
            assert mentions(store) == []
            with psycopg.connect(store.owner, autocommit=True) as owner:
                assert leftovers(owner) == []


def test_an_unfinished_move_of_another_tenant_is_left_alone(provisioned: Any) -> None:
    store = provisioned()
    with v.connect(store.config) as acl:
        fill(acl, GONE)
        fill(acl, BETA)

        def dies(sql: str) -> None:
            if "CREATE INDEX CONCURRENTLY" in sql:
                raise Stop

        with owner_of(store) as owner, pytest.raises(Stop):
            try:
                move.promote(owner, store.pg, "beta", step=dies)
            finally:
                owner.pgconn.finish()
        operator: Any = acl.operator()
        assert len(operator.remove(NAME)) == 1
        (beta,) = operator.tenants()
        assert (beta.tenant, beta.rows, beta.advice) == ("beta", 200, "promote")
        assert any("resumed" in line for line in operator.promote("beta"))
        operator.close()


def test_statistics_that_are_made_at_the_same_moment_do_not_keep_the_name(provisioned: Any) -> None:
    store = provisioned()
    tables = [f"pg_catalog.{one}" for one in ("pg_class", "pg_type", "pg_constraint", "pg_proc", "pg_description")]
    tables += ["vectoracl.chunks_default", "vectoracl.chunks_tenants"]

    def analyze() -> None:
        with psycopg.connect(store.bootstrap, autocommit=True) as boss:
            for table in tables:
                boss.execute(f"ANALYZE {table}")

    with v.connect(store.config) as acl:
        fill(acl, BETA, documents=1)
        for _ in range(3):
            fill(acl, GONE, documents=1)
            crowd = Crowd()
            for number in range(2):
                crowd.add(f"analyze {number}", analyze)
            with crowd, owner_of(store) as owner:
                move.promote(owner, store.pg, NAME)
                assert len(move.remove(owner, store.pg, NAME, timeouts=MoveTimeouts(total=60))) == 1
            assert mentions(store) == []


def test_an_owner_who_may_not_analyze_the_catalogs_says_who_has_to(provisioned: Any) -> None:
    store = provisioned()
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute(f'ALTER DATABASE "{boss.info.dbname}" OWNER TO CURRENT_USER'.encode())
        boss.execute(f'GRANT CONNECT, TEMPORARY ON DATABASE "{boss.info.dbname}" TO vectoracl_owner'.encode())
    with v.connect(store.config) as acl, owner_of(store) as owner:
        fill(acl, GONE, documents=1)
        move.promote(owner, store.pg, NAME)
        analyzed(store)
        _, line = move.remove(owner, store.pg, NAME)
        with psycopg.connect(store.bootstrap, autocommit=True) as boss:
            for statement in line.partition("remove it now: ")[2].split(";"):
                boss.execute(statement.encode())
        assert mentions(store) == []


@pytest.mark.parametrize("tier", ["shared", "own"])
def test_writers_beside_it_are_gone_or_bring_it_back_whole(provisioned: Any, tier: str) -> None:
    store = provisioned()
    with v.connect(store.config) as acl:
        fill(acl, BETA)
        kept = everything(acl, BETA)
        turn = iter(range(10**6))
        lock = threading.Lock()

        def write() -> None:
            with lock:
                number = next(turn)
            acl.scoped(GONE).replace(f"d{number % 3}", chunks(f"d{number % 3}", 7, str(number)))

        def read() -> None:
            assert everything(acl, BETA) == kept
            sizes: dict[str, int] = {}
            for document, _, _ in everything(acl, GONE):
                sizes[document] = sizes.get(document, 0) + 1
            assert set(sizes.values()) <= {7}

        with Crowd() as crowd:
            pass
        crowd = Crowd()
        for number in range(2):
            crowd.add(f"write {number}", write)
        crowd.add("read", read)
        fill(acl, GONE, documents=1)
        acl.scoped(GONE).delete(document="d0")
        with crowd:
            for _ in range(4):
                acl.scoped(GONE).upsert(chunks("d0", 7))
                with owner_of(store) as owner:
                    if tier == "own":
                        move.promote(owner, store.pg, NAME)
                    assert move.remove(owner, store.pg, NAME, timeouts=MoveTimeouts(total=60))
        operator: Any = acl.operator()
        rows = {one.tenant: one.rows for one in operator.tenants()}
        assert rows.get(NAME, 0) == acl.scoped(GONE).count()
        operator.remove(NAME)
        operator.close()
        assert mentions(store) == []


def test_two_at_once_and_a_transaction_that_holds_on(provisioned: Any) -> None:
    store = provisioned()
    with v.connect(store.config) as acl:
        fill(acl, GONE, documents=1)
        with another_move(store), owner_of(store) as other, pytest.raises(v.RefusedError, match="in progress"):
            move.remove(other, store.pg, NAME)
        with psycopg.connect(store.runtime) as connection, owner_of(store) as owner:
            from vectoracl_pgvector import join

            join(acl, GONE, connection).upsert([Chunk("c", "d", "", np.ones(8))])
            with pytest.raises(v.RefusedError, match="in use"):
                move.remove(owner, store.pg, NAME, timeouts=MoveTimeouts(total=1))
            connection.commit()
            assert acl.scoped(GONE).count() == 41, "nothing was removed"
            assert move.remove(owner, store.pg, NAME)


def test_the_command(provisioned: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = provisioned()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectoracl.toml").write_text(
        f'version = 1\n[stores.main]\nadapter = "pgvector"\ndimension = 8\ndsn = "{store.runtime}"\n'
        f'owner_dsn = "{store.owner}"\n'
    )
    with v.connect("vectoracl.toml") as acl:
        fill(acl, GONE, documents=1)
    result = CliRunner().invoke(app, ["tenants", "remove", NAME, "--yes"])
    assert result.exit_code == 0, result.output
    assert "40 rows" in result.output
    assert mentions(store) == []
    assert CliRunner().invoke(app, ["tenants", "remove", NAME, "--yes"]).exit_code == 2


@pytest.mark.parametrize("name", ["gone\u3164", "a*b"])
def test_a_tenant_whose_id_is_refused_now_is_listed_and_removed(store: Any, monkeypatch: Any, name: str) -> None:
    """A former version took it. It is neither read nor written any more, and nothing else is done to it."""
    with v.connect(store.config) as acl:
        with monkeypatch.context() as patch:
            patch.setattr("vectoracl.model.identifiers._strict_problem", lambda *_: None)
            acl.scoped(testing.principal("guy", name)).upsert(chunks("g", 3))
        acl.scoped(BETA).upsert(chunks("b", 2))
        operator = acl.operator()
        assert {one.tenant: one.rows for one in operator.tenants()} == {name: 3, "beta": 2}
        for act in (operator.promote, operator.demote, acl.store_of):
            with pytest.raises(v.InvalidTenantError):
                act(name)
        with pytest.raises(v.InvalidTenantError):
            operator.remove("never*was")
        assert name in operator.remove(name)[0]
        assert [one.tenant for one in operator.tenants()] == ["beta"]
        assert acl.scoped(BETA).count() == 2
        assert mentions(store, name) == []
        with pytest.raises(v.InvalidTenantError):
            operator.remove(name)  # it is there no more
        operator.close()
