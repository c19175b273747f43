"""No statement of ours is compiled, whatever the server's setting; and no other one's setting is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, ConnectionPool

import vectoracl as v
from vectoracl import Chunk, F, Hybrid, Lexical, hazmat, testing
from vectoracl.engine.recorded_operator import unrecorded
from vectoracl_pgvector import join
from vectoracl_pgvector.posture import check
from vectoracl_pgvector.requests import Statement, Transaction

from pgvector_support.driven import KINDS, Driven

ANN = testing.principal("ann", "acme")
ON = "on"


@pytest.fixture(scope="module")
def compiled(provisioned: Callable[..., Any]) -> Any:
    """A store whose database has jit on for every plan, and whose tables fail any statement that would be compiled."""
    store = provisioned()
    name = conninfo_to_dict(store.runtime)["dbname"]
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute(f"ALTER DATABASE {name} SET jit = on")
        boss.execute(f"ALTER DATABASE {name} SET jit_above_cost = 0")
        boss.execute(
            "CREATE FUNCTION vectoracl.not_compiled() RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN "
            "IF pg_catalog.current_setting('jit') <> 'off' THEN RAISE EXCEPTION 'jit is on'; END IF; RETURN true; "
            "END $$"
        )
        for table in ("chunks", "chunks_default", "chunks_tenants"):
            boss.execute(
                f"CREATE POLICY not_compiled ON vectoracl.{table} AS RESTRICTIVE "
                "USING (vectoracl.not_compiled()) WITH CHECK (vectoracl.not_compiled())"
            )
    with psycopg.connect(store.runtime) as control:
        assert control.execute("SHOW jit").fetchone() == (ON,)
        control.execute("SELECT set_config('vectoracl.tenant', 'acme', true)")
        with pytest.raises(psycopg.errors.RaiseException, match="jit is on"):
            control.execute("INSERT INTO vectoracl.chunks_tenants VALUES ('acme')")
    store.config["minimum_grade"] = "none"  # the policy's function is not PostgreSQL's, which proves nothing
    return store


def chunks(count: int) -> list[Chunk]:
    return [Chunk(f"c{i}", "d", f"w{i} common", np.eye(8)[i % 8] + 0.1, metadata={"year": i}) for i in range(count)]


def everything(docs: Any) -> None:
    docs.upsert(chunks(6))
    docs.replace("d", chunks(5), timeout=20)
    for timeout in (None, 20):
        more = {} if timeout is None else {"timeout": timeout}
        for query in (np.ones(8), Lexical("common"), Hybrid("common", np.ones(8))):
            assert len(docs.search(query, 9, where=F.year < 9, **more)) == 5
        assert docs.count(F.year < 9, **more) == 5
    assert len(docs.fetch(["c1", "c2"])) == 2
    assert len(list(docs.scan(F.year < 9))) == 5
    assert docs.facets("year")
    assert docs.delete(ids=["c4"]).count == 1


@pytest.mark.parametrize("kind", KINDS)
def test_serving(compiled: Any, kind: str) -> None:
    with Driven(kind, compiled.config) as driven:
        everything(driven.scoped(ANN))
        asked = Statement("SELECT current_setting('jit')")
        for settings in ((), (("vectoracl.tenant", "acme"),)):
            for timeout in (None, 5.0):
                assert driven.perform(Transaction(None, (asked,), settings), timeout) == ([("off",)],)
        assert driven.raw("SHOW jit") == [(ON,)], "only inside of our transactions"


def test_the_applications_pool(compiled: Any) -> None:
    with ConnectionPool(compiled.runtime, min_size=1, max_size=1) as pool:
        with v.connect(compiled.config, clients={"main": pool}) as acl:
            everything(acl.scoped(ANN))
        with pool.connection() as connection:
            assert connection.execute("SHOW jit").fetchone() == (ON,)


def test_the_applications_async_pool(compiled: Any) -> None:
    import asyncio

    async def main() -> None:
        async with AsyncConnectionPool(compiled.runtime, min_size=1, max_size=1, open=False) as pool:
            async with v.aconnect(compiled.config, clients={"main": pool}) as acl:
                assert await acl.scoped(ANN).count() >= 0
            async with pool.connection() as connection:
                assert await (await connection.execute("SHOW jit")).fetchone() == (ON,)

    asyncio.run(main())


def test_join_restores_what_the_caller_had(compiled: Any) -> None:
    with v.connect(compiled.config) as acl:
        for had in (ON, "off"):
            with psycopg.connect(compiled.runtime) as connection:
                connection.execute("SELECT set_config('jit', %s, true)", (had,))
                docs = join(acl, ANN, connection)
                everything(docs)
                with pytest.raises(v.DeniedError):
                    docs.narrow(F.year > 2000).upsert(chunks(1))
                assert connection.execute("SHOW jit").fetchone() == (had,)
                connection.commit()
                assert connection.execute("SHOW jit").fetchone() == (ON,)


def test_the_operator(compiled: Any) -> None:
    with psycopg.connect(compiled.bootstrap, autocommit=True) as boss:
        boss.execute(
            "CREATE TABLE public.old (id text PRIMARY KEY, tenant_id text, content text, embedding public.vector(8))"
        )
        boss.execute("INSERT INTO public.old VALUES ('a', 'acme', 'x', '[1,2,3,4,5,6,7,8]') ON CONFLICT DO NOTHING")
        boss.execute("GRANT SELECT ON public.old TO vectoracl_owner")
        boss.execute("ALTER TABLE public.old ENABLE ROW LEVEL SECURITY")
        boss.execute("CREATE POLICY all_of_it ON public.old FOR SELECT TO vectoracl_owner USING (true)")
    with v.connect(compiled.config) as acl:
        acl.scoped(ANN).upsert(chunks(6))
        operator: Any = acl.operator()
        operator.provision(adopt="public.old")
        assert [one.tenant for one in operator.tenants()] == ["acme"]
        for tenant in ("acme",):
            operator.promote(tenant)
            operator.demote(tenant)
        # What runs outside of a transaction, too: batches of an adoption, and an index that is built concurrently.
        own: Any = unrecorded(operator)
        assert own._connection.execute("SHOW jit").fetchone() == ("off",)
        operator.close()
        assert len(hazmat.unscoped(acl, reason="a test of settings").search(np.ones(8), 30)) == 7


def test_the_posture(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = check.judge

    def judged(target: Any, rows: Any, **more: Any) -> Any:
        seen.append(rows.pop("jit"))
        return real(target, rows, **more)

    monkeypatch.setattr(
        check, "STATEMENTS", (*check.STATEMENTS, ("jit", "SELECT current_setting('jit'), %(schema)s::text"))
    )
    monkeypatch.setattr(check, "judge", judged)
    with psycopg.connect(compiled.runtime) as connection:
        check.read_posture(connection, check.Target())
        assert connection.execute("SHOW jit").fetchone() == (ON,)
        assert check.discover(connection)
    for kind in KINDS:
        Driven(kind, compiled.changed(keep_posture=False)).close()
    assert seen == [[("off", "vectoracl")]] * 3


def test_behind_a_pooler_nothing_is_left(compiled: Any, pgbouncer: Any) -> None:
    """A pooler that takes no options: the operator connects all the same, and no other client's setting changes."""
    bouncer = pgbouncer("transaction", default_pool_size="1")
    name = str(conninfo_to_dict(compiled.runtime)["dbname"])
    config = compiled.changed(dsn=bouncer.dsn("runtime", name), owner_dsn=bouncer.dsn("owner", name))

    def settings() -> Iterator[Any]:
        for role in ("runtime", "owner"):
            with psycopg.connect(bouncer.dsn(role, name), autocommit=True, prepare_threshold=None) as other:
                yield other.execute("SHOW jit").fetchone()

    for kind in KINDS:
        with Driven(kind, config) as driven:
            everything(driven.scoped(ANN))
    operator: Any = v.VectorACL(config).operator()
    operator.provision()
    assert operator.tenants()
    operator.close()
    assert list(settings()) == [(ON,), (ON,)]


def test_the_options_of_the_dsn_stay(compiled: Any) -> None:
    dsn = compiled.owner + "&options=-c%20work_mem%3D7MB%20-c%20application_name%3Da%5C%20b"
    operator: Any = v.VectorACL(compiled.changed(owner_dsn=dsn)).operator()
    operator.tenants()
    own: Any = unrecorded(operator)
    assert own._connection.execute("SELECT current_setting('work_mem'), current_setting('jit')").fetchone() == (
        "7MB", "off",
    )  # fmt: skip
    operator.close()
