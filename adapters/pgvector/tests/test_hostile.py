"""What a hostile review found: each test failed once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg_pool import ConnectionPool

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl_pgvector import join
from vectoracl_pgvector.connection.dsn import Connections
from vectoracl_pgvector.embedded.programs import _complaint
from vectoracl_pgvector.operator import PgOperator
from vectoracl_pgvector.tiers import move

from pgvector_support.driven import KINDS, Driven

ANN = testing.principal("ann", "acme")
BOB = testing.principal("bob", "beta")
ONE = np.ones(8, np.float32)
ACCENTS = Chunk("cé", "café", "thé", ONE, metadata={"lang": "é"})


@pytest.mark.parametrize("kind", KINDS)
def test_the_environment_cannot_change_how_ids_are_read(kind: str, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # "é" was stored as "Ã©": another document's name, whose chunks it would have overwritten.
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with Driven(kind, store.config) as driven:
        docs = driven.scoped(ANN)
        docs.upsert([ACCENTS])
        docs.replace("naïve", [Chunk("ü", "naïve", "ö", ONE)])
        assert [(hit.document, hit.id, hit.text) for hit in docs.scan()] == [
            ("café", "cé", "thé"),
            ("naïve", "ü", "ö"),
        ]
        assert docs.count(v.F.lang == "é") == 1


def test_a_connection_in_another_encoding_is_refused(store: Any) -> None:
    refused = pytest.raises(v.RefusedError, match="client_encoding")
    latin = {"client_encoding": "LATIN1"}
    with ConnectionPool(store.runtime, kwargs=latin, min_size=1, open=True) as pool, refused:
        v.connect(store.config, clients={"main": pool})
    with (
        v.connect(store.config) as acl,
        psycopg.connect(store.runtime, client_encoding="LATIN1") as connection,
        refused,
    ):
        join(acl, ANN, connection).upsert([ACCENTS])


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_a_snapshot_from_before_a_replacement_cannot_mix_two_generations(
    level: psycopg.IsolationLevel, store: Any
) -> None:
    with v.connect(store.config) as acl, psycopg.connect(store.runtime) as connection:
        connection.isolation_level = level
        connection.execute("SELECT 1")
        docs = join(acl, ANN, connection)
        assert docs.count() == 0
        acl.scoped(ANN).replace("d", [Chunk("new", "d", "", ONE)])
        for write in (
            lambda: docs.upsert([Chunk("old", "d", "", ONE)]),
            lambda: docs.replace("d", [Chunk("old", "d", "", ONE)]),
            lambda: docs.delete(document="d"),
        ):
            with pytest.raises(v.RefusedError, match="READ COMMITTED"):
                write()
        assert docs.count() == 0, "reads go on in the caller's snapshot"
        connection.commit()
        assert [hit.id for hit in acl.scoped(ANN).scan()] == ["new"]


def test_handles_that_threads_share_on_one_connection_take_turns(store: Any) -> None:
    with v.connect(store.config) as acl, psycopg.connect(store.runtime) as connection:
        for who in (ANN, BOB):
            acl.scoped(who).upsert([Chunk(who.tenant, "d", "", ONE)])
        wrong: list[Any] = []

        def work(who: v.Principal) -> None:
            docs = join(acl, who, connection)
            for _ in range(30):
                try:
                    wrong.extend(hit for hit in docs.search(ONE) if hit.id != who.tenant)
                except v.VectorACLError as error:
                    wrong.append(error)

        connection.execute("SELECT 1")
        threads = [threading.Thread(target=work, args=(who,)) for who in (ANN, BOB)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert connection.execute(f"SELECT count(*) FROM {store.names.table}").fetchone() == (0,)


def test_a_session_that_gave_its_connection_back_is_not_followed_to_the_next_user(store: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(store.runtime.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        with v.connect(store.config) as acl:
            with engine.begin() as connection:
                docs = join(acl, ANN, connection)
                assert docs.count() == 0
            with engine.begin() as other:  # the same connection, out of the engine's pool
                with pytest.raises(v.RefusedError):
                    docs.upsert([Chunk("c", "d", "", ONE)])
                other.execute(sqlalchemy.text("SELECT 1"))
            assert acl.scoped(ANN).count() == 0
    finally:
        engine.dispose()


def test_join_takes_no_asyncio_form(store: Any) -> None:
    with psycopg.connect(store.runtime) as connection, pytest.raises(v.InvalidInputError):
        join(v.aconnect(store.config), ANN, connection)  # type: ignore[arg-type]


def test_a_tenant_called_move_writes_while_another_one_moves(store: Any) -> None:
    mover = testing.principal("ann", "move")
    with v.connect(store.config) as acl:
        acl.scoped(ANN).upsert([Chunk("c", "d", "", ONE)])
        wrote: list[Any] = []

        def step(_sql: str) -> None:
            if not wrote:
                wrote.append(acl.scoped(mover).upsert([Chunk("c", "d", "", ONE)], timeout=2))

        with psycopg.connect(store.owner, autocommit=True) as owner:
            move.promote(owner, store.pg, "acme", step=lambda sql: step(sql) if "LIKE" in sql else None)
        assert wrote


@pytest.mark.parametrize("name", ["distance", "best", "turn", "place"])
def test_columns_that_would_be_ambiguous_are_refused(name: str, provisioned: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="Rename the column"):
        provisioned(columns={"label": name})


def test_two_who_provision_at_once_do_not_fail(store: Any) -> None:
    # PostgreSQL reports "tuple concurrently updated" (XX000) to the second of two GRANTs.
    def provision(_turn: int) -> None:
        operator = PgOperator(store.pg, {}, Connections(store.pg, Path()))
        try:
            operator.provision()
        finally:
            operator.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(provision, range(12)))


def test_a_full_disk_is_named_and_not_what_was_cleaned_up_after_it() -> None:
    said = """running bootstrap script ... FATAL:  could not extend file "base/1": No space left on device
    PANIC:  cannot abort transaction 1, it was already committed
    initdb: removing contents of data directory"""
    assert "No space left" in _complaint(said)
    assert _complaint("one\ntwo") == "two"


def test_a_temporary_type_never_stands_in_for_postgresqls_own(store: Any) -> None:
    # pg_temp comes first for types unless it is named: a role with TEMP could plant a "jsonb" on a pooled connection.
    with psycopg.connect(store.bootstrap, autocommit=True) as bootstrap:
        database = bootstrap.info.dbname
        bootstrap.execute(f'GRANT TEMPORARY ON DATABASE "{database}" TO vectoracl_runtime')
    config = store.changed(pool_min=1, pool_max=1)
    with v.connect(config) as acl:
        docs = acl.scoped(ANN)
        docs.upsert([Chunk("c", "d", "x", [1.0] * 8, metadata={"year": 2020})])
        port = acl._ready("main").port
        with port._pool.connection() as connection:
            connection.execute("CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (false)")
            connection.execute("CREATE TEMPORARY TABLE tables (x int)")
        assert [hit.id for hit in docs.search([1.0] * 8, where=v.F.year == 2020)] == ["c"]
