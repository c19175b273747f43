"""The caller's own transaction: psycopg, SQLAlchemy and Django."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.rows import dict_row

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl_pgvector import join

ANN = testing.principal("ann", "acme")
BOB = testing.principal("bob", "beta")
ONE = np.ones(8, np.float32)


@pytest.fixture
def acl(store: Any) -> Any:
    with v.connect(store.config) as opened:
        opened.scoped(BOB).upsert([Chunk("foreign", "d", "beta's", ONE)])
        yield opened


def setting(connection: Any) -> Any:
    return (
        connection.cursor(row_factory=psycopg.rows.tuple_row)
        .execute(
            "SELECT current_setting('vectoracl.tenant', true), current_setting('search_path'), "
            "current_setting('statement_timeout')"
        )
        .fetchone()
    )


def test_it_commits_and_rolls_back_with_the_callers_work(acl: v.VectorACL, store: Any) -> None:
    with psycopg.connect(store.runtime) as connection:
        docs = join(acl, ANN, connection)
        docs.upsert([Chunk("c", "d", "mine", ONE)])
        assert [hit.id for hit in docs.search(ONE)] == ["c"]
        assert acl.scoped(ANN).count() == 0, "nothing is committed before the caller commits"
        connection.rollback()
    assert acl.scoped(ANN).count() == 0
    with psycopg.connect(store.runtime) as connection:
        join(acl, ANN, connection).upsert([Chunk("c", "d", "mine", ONE)])
    assert acl.scoped(ANN).count() == 1


def test_a_joined_handle_passes_the_list_of_pipelines_and_the_validators(store: Any) -> None:
    ingest = {"sources": ["nightly"], "validators": [{"use": "size", "options": {"text_bytes": 4}}]}
    config = {**store.config, "ingest": ingest}

    def check(refused: type[v.RefusedError], source: str | None, text: str) -> None:
        with v.connect(config) as acl, psycopg.connect(store.runtime) as connection:
            docs = join(acl, ANN, connection, source=source)
            with pytest.raises(refused):
                docs.upsert([Chunk("c", "d", text, ONE)])
            assert docs.count() == 0

    async def acheck(refused: type[v.RefusedError], source: str | None, text: str) -> None:
        async with v.aconnect(config) as acl, await psycopg.AsyncConnection.connect(store.runtime) as connection:
            docs = join(acl, ANN, connection, source=source)
            with pytest.raises(refused):
                await docs.upsert([Chunk("c", "d", text, ONE)])
            assert await docs.count() == 0

    for refused, source, text in [
        (v.SourceRefusedError, None, "mine"),
        (v.SourceRefusedError, "crawler", "mine"),
        (v.ContentRefusedError, "nightly", "mine!"),
    ]:
        check(refused, source, text)
        asyncio.run(acheck(refused, source, text))
    with v.connect(config) as acl:
        with psycopg.connect(store.runtime) as connection:
            join(acl, ANN, connection, source="nightly").upsert([Chunk("c", "d", "mine", ONE)])
        (hit,) = acl.scoped(ANN).scan()
        assert hit.tag.path == "upsert:nightly"


def test_it_restores_what_was_set_also_after_an_error(acl: v.VectorACL, store: Any) -> None:
    acl.scoped(ANN).upsert([Chunk("c", "d", "mine", ONE, metadata={"year": 1999})])
    with psycopg.connect(store.runtime) as connection:
        connection.execute(
            "SELECT set_config('vectoracl.tenant', 'beta', true), set_config('search_path', 'public', true)"
        )
        before = setting(connection)
        docs = join(acl, ANN, connection)
        docs.search(ONE, timeout=5)
        assert setting(connection) == before
        with pytest.raises(v.DeniedError):
            docs.narrow(v.F.year > 2000).upsert([Chunk("c", "d", "x", ONE, metadata={"year": 2001})])
        assert setting(connection) == before
        # The caller's transaction is still usable, and still has its own scope.
        assert connection.execute(f"SELECT chunk_id FROM {store.names.table}").fetchall() == [("foreign",)]


def test_the_row_factory_and_types_of_the_caller_stay_as_they_were(acl: v.VectorACL, store: Any) -> None:
    with psycopg.connect(store.runtime, row_factory=dict_row) as connection:
        docs = join(acl, ANN, connection)
        docs.upsert([Chunk("c", "d", "mine", ONE)])
        assert docs.fetch(["c"], include={"vector"})[0].vector is not None
        connection.execute("SELECT set_config('vectoracl.tenant', 'acme', true)")
        row = connection.execute(f"SELECT embedding FROM {store.names.table}").fetchone()
        assert row == {"embedding": "[1,1,1,1,1,1,1,1]"}


def test_what_it_refuses(acl: v.VectorACL, store: Any) -> None:
    with psycopg.connect(store.runtime, autocommit=True) as connection:
        docs = join(acl, ANN, connection)
        with pytest.raises(v.RefusedError, match="autocommit"):
            docs.count()
        with connection.transaction():
            assert docs.count() == 0
    with psycopg.connect(store.runtime) as connection:
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT nonsense")
        with pytest.raises(v.RefusedError, match="failed"):
            join(acl, ANN, connection).count()
    for role in (store.owner, store.bootstrap):
        with psycopg.connect(role) as connection, pytest.raises(v.PostureError):
            join(acl, ANN, connection).count()
    with pytest.raises(v.InvalidInputError):
        join(acl, ANN, object())
    with psycopg.connect(store.runtime) as connection, pytest.raises(v.InvalidPrincipalError):
        join(acl, "acme", connection)  # type: ignore[arg-type]


@pytest.mark.parametrize("power", ["BYPASSRLS", "SUPERUSER"])
def test_a_role_that_no_policy_binds_is_refused_also_by_set_role(acl: v.VectorACL, store: Any, power: str) -> None:
    name = f"exempt_{secrets.token_hex(4)}"
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute(f"CREATE ROLE {name} NOLOGIN {power}")
        boss.execute(f"GRANT USAGE ON SCHEMA vectoracl TO {name}")
        boss.execute(f"GRANT ALL ON {store.names.table} TO {name}")
        try:
            with boss.transaction():
                boss.execute(f"SET LOCAL ROLE {name}")
                with pytest.raises(v.PostureError):
                    join(acl, ANN, boss).count()
                boss.execute(f"SET LOCAL ROLE {store.pg.runtime_role}")
                assert join(acl, ANN, boss).count() == 0, "the control: the same connection as the runtime role"
        finally:
            boss.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize("level", ["REPEATABLE_READ", "SERIALIZABLE"])
def test_writes_need_a_snapshot_of_now(acl: v.VectorACL, store: Any, level: str) -> None:
    with psycopg.connect(store.runtime) as connection:
        connection.isolation_level = psycopg.IsolationLevel[level]
        docs = join(acl, ANN, connection)
        assert docs.count() == 0
        for write in (
            lambda: docs.upsert([Chunk("c", "d", "", ONE)]),
            lambda: docs.replace("d", [Chunk("c", "d", "", ONE)]),
            lambda: docs.delete(document="d"),
        ):
            with pytest.raises(v.RefusedError, match="READ COMMITTED"):
                write()
    assert acl.scoped(ANN).count() == 0


def test_handles_of_two_tenants_take_turns_on_one_connection(acl: v.VectorACL, store: Any) -> None:
    acl.scoped(ANN).upsert([Chunk("c", "d", "mine", ONE)])
    with psycopg.connect(store.runtime) as connection:

        def work(who: v.Principal) -> set[tuple[str, ...]]:
            docs = join(acl, who, connection)
            return {tuple(hit.id for hit in docs.search(ONE)) for _ in range(25)}

        with ThreadPoolExecutor(4) as threads:
            seen = list(threads.map(work, [ANN, BOB, ANN, BOB]))
    assert seen == [{("c",)}, {("foreign",)}, {("c",)}, {("foreign",)}]


def test_what_the_transaction_made_stands_in_for_nothing(acl: v.VectorACL, store: Any) -> None:
    """Temporary tables and types of the same names, an operator of its own first in the path, savepoints around it."""
    acl.scoped(ANN).upsert([Chunk("c", "d", "mine", ONE)])
    schema = f"evil_{secrets.token_hex(4)}"
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {store.pg.runtime_role}")
        boss.execute(f"GRANT TEMP ON DATABASE {boss.info.dbname} TO {store.pg.runtime_role}")
    with psycopg.connect(store.runtime) as connection:
        connection.execute("CREATE TEMP TABLE chunks AS SELECT 'acme' AS tenant_id, 'forged' AS chunk_id")
        connection.execute("CREATE TEMP TABLE pg_roles AS SELECT current_user AS rolname, false AS rolsuper")
        for kind in ("text", "name"):
            connection.execute(
                f"CREATE FUNCTION {schema}.yes({kind}, {kind}) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
                f"CREATE OPERATOR {schema}.= (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = {schema}.yes)"
            )
        connection.execute(f"SET LOCAL search_path = pg_temp, {schema}, public, pg_catalog")
        docs = join(acl, ANN, connection)
        with connection.transaction():
            assert [hit.id for hit in docs.search(ONE)] == ["c"]
            assert [hit.text for hit in docs.fetch(["c", "foreign", "forged"])] == ["mine"]
            assert docs.count() == 1
            assert docs.delete(ids=["foreign"]).count == 0
        with pytest.raises(ZeroDivisionError), connection.transaction():
            docs.upsert([Chunk("new", "d", "", ONE)])
            raise ZeroDivisionError
        assert docs.count() == 1
        assert setting(connection)[0] in (None, "")
    assert acl.scoped(BOB).count() == 1


def test_decisions_are_recorded_and_expired_principals_are_denied(acl: v.VectorACL, store: Any) -> None:
    late = testing.principal("ann", "acme", expires_at=1.0)
    with psycopg.connect(store.runtime) as connection:
        before = len(acl.sink.records)  # type: ignore[attr-defined]
        with pytest.raises(v.DeniedError):
            join(acl, late, connection).count()
        assert len(acl.sink.records) == before + 1  # type: ignore[attr-defined]


def test_sqlalchemy(acl: v.VectorACL, store: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")
    url = store.runtime.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.begin() as connection:
            join(acl, ANN, connection).upsert([Chunk("a", "d", "x", ONE)])
        assert acl.scoped(ANN).count() == 1
        with pytest.raises(ZeroDivisionError), engine.begin() as connection:
            join(acl, ANN, connection).upsert([Chunk("b", "d", "x", ONE)])
            raise ZeroDivisionError
        assert acl.scoped(ANN).count() == 1
        with orm.Session(engine) as session:
            docs = join(acl, ANN, session)
            docs.upsert([Chunk("b", "d", "x", ONE)])
            assert docs.count() == 2
            session.commit()
        assert acl.scoped(ANN).count() == 2
        auto = engine.execution_options(isolation_level="AUTOCOMMIT")
        with auto.connect() as connection, pytest.raises(v.RefusedError):
            join(acl, ANN, connection).count()
    finally:
        engine.dispose()


def test_django(acl: v.VectorACL, store: Any) -> None:
    django = pytest.importorskip("django")
    from django.conf import settings
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(store.runtime)
    if not settings.configured:
        settings.configure(
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.postgresql",
                    "NAME": parts["dbname"],
                    "USER": parts["user"],
                    "PASSWORD": parts["password"],
                    "HOST": parts.get("host", ""),
                    "PORT": parts.get("port", ""),
                }
            }
        )
        django.setup()
    from django.db import connection, transaction

    try:
        with pytest.raises(v.RefusedError, match="atomic"):
            join(acl, ANN, connection).count()
        with transaction.atomic():
            join(acl, ANN, connection).upsert([Chunk("a", "d", "x", ONE)])
        assert acl.scoped(ANN).count() == 1
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            join(acl, ANN, connection).upsert([Chunk("b", "d", "x", ONE)])
            raise ZeroDivisionError
        assert acl.scoped(ANN).count() == 1
    finally:
        connection.close()


def test_a_joined_handle_is_bound_to_its_connection_and_ends_with_the_acl(acl: v.VectorACL, store: Any) -> None:
    with psycopg.connect(store.runtime) as connection:
        docs = join(acl, ANN, connection)
        tool = docs.narrow(actions={"count"})
        assert tool.count() == 0
        with pytest.raises(v.DeniedError):
            tool.upsert([Chunk("a", "d", "x", ONE)])
    with pytest.raises(v.VectorACLError):
        docs.count()
    acl.close()
    with psycopg.connect(store.runtime) as connection, pytest.raises(v.ClosedError):
        join(acl, ANN, connection)


def test_async_checks_the_same_and_commits_with_the_callers_work(acl: v.VectorACL, store: Any) -> None:
    async def main() -> None:
        async with v.aconnect(store.config) as aacl, await psycopg.AsyncConnection.connect(store.runtime) as connection:
            await connection.execute("SELECT set_config('vectoracl.tenant', 'beta', true)")
            docs = join(aacl, ANN, connection)
            await docs.upsert([Chunk("c", "d", "mine", ONE, metadata={"year": 1999})])
            assert [hit.id for hit in await docs.search(ONE)] == ["c"]
            assert (await docs.fetch(["c"], include={"vector"}))[0].vector is not None
            assert acl.scoped(ANN).count() == 0
            with pytest.raises(v.DeniedError):
                await docs.narrow(v.F.year > 2000).upsert([Chunk("c", "d", "x", ONE, metadata={"year": 2001})])
            tenant = await (await connection.execute("SELECT current_setting('vectoracl.tenant')")).fetchone()
            assert tenant == ("beta",)
            await connection.commit()
            assert acl.scoped(ANN).count() == 1
            seen = await asyncio.gather(*(join(aacl, who, connection).search(ONE) for who in [ANN, BOB] * 5))
            assert [[hit.id for hit in hits] for hits in seen] == [["c"], ["foreign"]] * 5
            await connection.rollback()
            await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            with pytest.raises(v.RefusedError, match="READ COMMITTED"):
                await docs.delete(document="d")
            with pytest.raises(psycopg.Error):
                await connection.execute("SELECT nonsense")
            with pytest.raises(v.RefusedError, match="failed"):
                await docs.count()
            await connection.rollback()
            await connection.set_autocommit(True)
            with pytest.raises(v.RefusedError, match="autocommit"):
                await docs.count()
            for role in (store.owner, store.bootstrap):
                async with await psycopg.AsyncConnection.connect(role) as strong:
                    with pytest.raises(v.PostureError):
                        await join(aacl, ANN, strong).count()

    asyncio.run(main())


def test_sqlalchemy_async(acl: v.VectorACL, store: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy.ext.asyncio")
    url = store.runtime.replace("postgresql://", "postgresql+psycopg://", 1)

    async def main() -> None:
        engine = sqlalchemy.create_async_engine(url)
        maker = sqlalchemy.async_sessionmaker(engine)
        async with v.aconnect(store.config) as aacl:
            async with engine.begin() as connection:
                await join(aacl, ANN, connection).upsert([Chunk("a", "d", "x", ONE)])
                assert not aacl.sink.outcomes  # type: ignore[attr-defined]
            with pytest.raises(ZeroDivisionError):
                async with maker.begin() as session:
                    await join(aacl, ANN, session).upsert([Chunk("b", "d", "x", ONE)])
                    raise ZeroDivisionError
            async with maker() as session:
                docs = join(aacl, ANN, session)
                await docs.upsert([Chunk("c", "d", "x", ONE)])
                assert await docs.count() == 2
                await session.commit()
            found = [one["outcome"] for one in aacl.sink.outcomes]  # type: ignore[attr-defined]
            assert found == ["ok", "rolled_back", "ok", "ok"]
            for opener in (engine, maker):
                with pytest.raises(v.InvalidInputError, match="async with"):
                    join(aacl, ANN, opener)
        await engine.dispose()

    asyncio.run(main())
    assert acl.scoped(ANN).count() == 2


def test_what_opens_connections_is_refused_with_the_cure(acl: v.VectorACL, store: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")
    aio = pytest.importorskip("sqlalchemy.ext.asyncio")
    pool = pytest.importorskip("psycopg_pool")
    url = store.runtime.replace("postgresql://", "postgresql+psycopg://", 1)
    engine, aengine = sqlalchemy.create_engine(url), aio.create_async_engine(url)
    openers = [
        engine, engine.execution_options(isolation_level="SERIALIZABLE"), engine.pool, aengine,
        orm.sessionmaker(engine), aio.async_sessionmaker(aengine),
        pool.ConnectionPool(store.runtime, open=False), pool.AsyncConnectionPool(store.runtime, open=False),
    ]  # fmt: skip
    others = [sqlalchemy.MetaData(), orm.sessionmaker, None, store.runtime, acl]
    aacl = v.aconnect(store.config)
    for each in (acl, aacl):
        for one in openers:
            with pytest.raises(
                v.InvalidInputError, match=r"Pass a connection or session: (async )?with .* as "
            ) as told:
                join(each, ANN, one)
            assert told.value.field == "connection"
        for other in others:
            with pytest.raises(v.InvalidInputError):
                join(each, ANN, other)
    with psycopg.connect(store.runtime) as connection, pytest.raises(v.InvalidInputError, match=r"vectoracl\.connect"):
        join(aacl, ANN, connection)
    with engine.connect() as connection, pytest.raises(v.InvalidInputError, match=r"vectoracl\.connect"):
        join(aacl, ANN, connection)
    with pytest.raises(v.InvalidInputError, match=r"vectoracl\.aconnect"):
        join(acl, ANN, aio.AsyncSession(aengine))
    assert engine.pool.checkedout() == 0
    engine.dispose()
    fairy = engine.raw_connection()  # which is a connection
    join(acl, ANN, fairy).upsert([Chunk("c", "d", "x", ONE)])
    fairy.commit()
    fairy.close()
    assert acl.scoped(ANN).count() == 1
    engine.dispose()
