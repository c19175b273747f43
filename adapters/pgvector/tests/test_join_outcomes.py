"""The outcome of a write in the caller's transaction says how that ended; the same, drawn at random, sync and async."""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import suppress
from typing import Any

import numpy as np
import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl_pgvector import join

ANN = testing.principal("ann", "acme")
ONE = np.ones(8, np.float32)


@pytest.fixture
def acl(store: Any) -> Any:
    with v.connect(store.config) as opened:
        yield opened


def chunk(name: str) -> list[Chunk]:
    return [Chunk(name, f"of {name}", "mine", ONE)]


def outcomes(acl: Any) -> list[str]:
    """The outcomes of all decisions, in their order; "-" for one that waits. Never two of one decision."""
    ended = [one["decision"] for one in acl.sink.outcomes]
    assert len(ended) == len(set(ended))
    said = {one["decision"]: one["outcome"] for one in acl.sink.outcomes}
    return [said.get(one["id"], "-") for one in acl.sink.records]


def test_only_a_commit_is_ok_and_reads_do_not_wait(acl: Any, store: Any) -> None:
    with psycopg.connect(store.runtime) as connection:
        docs = join(acl, ANN, connection)
        docs.upsert(chunk("a"))
        assert docs.count() == 1
        assert outcomes(acl) == ["-", "ok"], "what was read was answered, however the transaction ends"
        connection.rollback()
        assert outcomes(acl) == ["rolled_back", "ok"]
        docs.upsert(chunk("b"))
        docs.delete(ids=["nothing"])
    assert outcomes(acl) == ["rolled_back", "ok", "ok", "ok"]
    assert {"wait", "close"}.isdisjoint(vars(connection)), "the connection is as it was"
    assert all(one["returned"] is not None and one["ms"] > 0 for one in acl.sink.outcomes)


def test_a_savepoint_that_is_rolled_back_takes_its_writes_along(acl: Any, store: Any) -> None:
    with psycopg.connect(store.runtime) as connection:
        docs = join(acl, ANN, connection)
        docs.upsert(chunk("a"))
        with suppress(ZeroDivisionError), connection.transaction():
            docs.upsert(chunk("b"))
            raise ZeroDivisionError
        docs.upsert(chunk("c"))
    assert outcomes(acl) == ["ok", "rolled_back", "ok"]


def test_a_commit_that_the_server_turns_into_a_rollback(acl: Any, store: Any) -> None:
    with psycopg.connect(store.runtime) as connection:
        join(acl, ANN, connection).upsert(chunk("a"))
        with suppress(psycopg.Error):
            connection.execute("SELECT nonsense")
        connection.execute("COMMIT")
    assert outcomes(acl) == ["rolled_back"]
    assert acl.scoped(ANN).count() == 0


@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
@pytest.mark.parametrize("how", ["close", "drop", "text", "block"])
def test_other_ends(acl: Any, store: Any, how: str) -> None:
    connection = psycopg.connect(store.runtime, autocommit=how == "block")
    if how == "block":
        with connection.transaction():
            join(acl, ANN, connection).upsert(chunk("a"))
            assert outcomes(acl) == ["-"]
    else:
        join(acl, ANN, connection).upsert(chunk("a"))
    if how == "text":
        connection.execute("COMMIT")
    if how == "drop":
        del connection
        gc.collect()
    else:
        connection.close()
    assert outcomes(acl) == ["ok" if how in ("text", "block") else "rolled_back"]
    assert acl.scoped(ANN).count() == (how in ("text", "block"))


def test_what_cannot_be_known_says_so(acl: Any, store: Any) -> None:
    """The connection is lost while something is under way, and the audit sink is closed before the end."""
    with suppress(psycopg.Error), psycopg.connect(store.runtime) as connection:
        join(acl, ANN, connection).upsert(chunk("a"))
        with psycopg.connect(store.bootstrap, autocommit=True) as boss:
            boss.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        connection.commit()
    assert outcomes(acl) == ["unknown"]
    with psycopg.connect(store.runtime) as connection:
        join(acl, ANN, connection).upsert(chunk("b"))
        acl.close()
        assert outcomes(acl) == ["unknown", "unknown"]
    assert outcomes(acl) == ["unknown", "unknown"], "and it is said once"


def test_a_sink_or_a_status_that_fails_never_fails_the_commit(
    acl: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError

    monkeypatch.setattr(acl.sink, "note", fail)
    with psycopg.connect(store.runtime) as connection:
        join(acl, ANN, connection).upsert(chunk("a"))
    monkeypatch.undo()
    monkeypatch.setattr("vectoracl_pgvector.transaction.outcomes._query_outcomes", fail)
    with psycopg.connect(store.runtime) as connection:
        join(acl, ANN, connection).upsert(chunk("b"))
    assert [one["outcome"] for one in acl.sink.outcomes] == ["unknown"]
    assert acl.scoped(ANN).count() == 2


@pytest.mark.parametrize("seed", range(6))
def test_drawn_nests_of_savepoints_agree_with_the_rows(acl: Any, store: Any, seed: int) -> None:
    """Whatever is nested and broken off: a write is "ok" exactly where its row is there afterwards."""
    draw = random.Random(seed)
    names: list[str] = []

    def nest(connection: Any, docs: Any, depth: int) -> None:
        for _ in range(draw.randint(1, 3)):
            if depth and draw.random() < 0.5:
                with suppress(ZeroDivisionError), connection.transaction():
                    nest(connection, docs, depth - 1)
                    if draw.random() < 0.5:
                        raise ZeroDivisionError
            else:
                names.append(f"c{len(names)}")
                docs.upsert(chunk(names[-1]))

    with psycopg.connect(store.runtime) as connection:
        docs = join(acl, ANN, connection)
        for _ in range(3):
            nest(connection, docs, 3)
            connection.commit() if draw.random() < 0.7 else connection.rollback()
    said = outcomes(acl)
    there = {hit.id for hit in acl.scoped(ANN).fetch(names)}
    assert said == ["ok" if name in there else "rolled_back" for name in names]


def test_async_says_the_same_also_after_a_cancellation(store: Any) -> None:
    async def main() -> None:
        async with v.aconnect(store.config) as acl:
            async with await psycopg.AsyncConnection.connect(store.runtime) as connection:
                docs = join(acl, ANN, connection)
                await docs.upsert(chunk("a"))
                with suppress(ZeroDivisionError):
                    async with connection.transaction():
                        await docs.upsert(chunk("b"))
                        raise ZeroDivisionError
                assert outcomes(acl) == ["-", "-"]
                await connection.commit()
                assert outcomes(acl) == ["ok", "rolled_back"]
                await docs.upsert(chunk("c"))
                task = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
                await asyncio.sleep(0.2)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                await connection.rollback()
                assert outcomes(acl) == ["ok", "rolled_back", "rolled_back"]
                await docs.upsert(chunk("d"))
            assert outcomes(acl) == ["ok", "rolled_back", "rolled_back", "ok"]
            connection = await psycopg.AsyncConnection.connect(store.runtime)
            await join(acl, ANN, connection).upsert(chunk("e"))
            await connection.close()
            assert outcomes(acl)[-1] == "rolled_back"
            assert await acl.scoped(ANN).count() == 2

    asyncio.run(main())
