"""Behind a real PgBouncer: transaction and session mode serve, statement mode is refused at connect."""

from __future__ import annotations

import asyncio
import random
import secrets
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool

import vectoracl as v
from vectoracl import Chunk, F, testing
from vectoracl.audit.sinks import MemorySink

from pgvector_support.driven import KINDS, Driven, everything
from pgvector_support.proxy import Proxy

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def shared(provisioned: Any) -> Any:
    return provisioned()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def two() -> tuple[v.Principal, v.Principal]:
    mark = secrets.token_hex(4)
    return testing.principal("alice", f"a-{mark}"), testing.principal("bob", f"b-{mark}")


def chunks(document: str, count: int, *, text: str = "", **metadata: Any) -> list[Chunk]:
    return [Chunk(f"c{i}", document, text, np.eye(8)[i % 8] + 0.1, metadata=metadata) for i in range(count)]


def database(store: Any) -> str:
    return str(conninfo_to_dict(store.runtime)["dbname"])


def through(store: Any, bouncer: Any, **settings: Any) -> dict[str, Any]:
    """The configuration of *store*, with the runtime role's connections through *bouncer*."""
    return store.changed(dsn=bouncer.dsn("runtime", database(store)), **settings)


def clean(config: dict[str, Any], table: str, connections: int = 3) -> None:
    """Assert that what PgBouncer gives to another client has no scope and no prepared statement."""
    for _ in range(connections):
        dsn = config["stores"]["main"]["dsn"]
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as other:
            assert other.execute(
                f"SELECT COALESCE(current_setting('vectoracl.tenant', true), ''), (SELECT count(*) FROM {table}), "
                "current_setting('statement_timeout'), current_setting('search_path'), "
                "(SELECT count(*) FROM pg_prepared_statements)"
            ).fetchone() == ("", 0, "0", '"$user", public', 0)


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_every_operation(shared: Any, pgbouncer: Any, kind: str, mode: str) -> None:
    config = through(shared, pgbouncer(mode, default_pool_size="1" if mode == "transaction" else "20"))
    alice, bob = two()
    with Driven(kind, config) as driven:
        a, b = driven.scoped(alice), driven.scoped(bob)
        for _ in range(8):  # past psycopg's own threshold for preparing
            for docs, count in ((a, 5), (b, 3)):
                docs.upsert(chunks("d", count, year=2020))
                assert docs.replace("d", chunks("d", count, year=2021)).count == count
                hits = docs.search(np.ones(8), 10, where=F.year == 2021, include={"text", "metadata", "vector"})
                assert len(hits) == count
                assert {hit.tenant for hit in hits} == {docs.search(np.ones(8), 1)[0].tenant}
                assert docs.count() == len(docs.fetch([f"c{i}" for i in range(9)])) == len(list(docs.scan())) == count
                assert docs.load(iter(chunks("e", 4)), batch=3).written == 4
                assert docs.delete(document="e").count == 4
        with pytest.raises(v.DeniedError):
            a.narrow(F.year >= 2030).upsert(chunks("d", 1, year=2031))
        assert (a.count(), b.count()) == (5, 3)
        assert {hit.tenant for hit in a.scan()} == {alice.tenant}
        if mode == "transaction":
            clean(config, shared.names.table)


def messages(data: bytes) -> str:
    """The types of the protocol's messages in *data*, a letter each."""
    found, at = "", 0
    while at < len(data):
        found += chr(data[at])
        at += 1 + int.from_bytes(data[at + 1 : at + 5], "big")
    return found


def test_nothing_follows_sync(shared: Any, server: Any, kind: str) -> None:
    """A Flush that PgBouncer gets after it has given the server's connection back would take one for good."""
    alice, _ = two()
    with Proxy(server.host, server.port) as proxy:
        dsn = proxy.dsn(server.dsn("runtime", database(shared), tcp=True))
        with Driven(kind, shared.changed(dsn=f"{dsn}?sslmode=disable", pool_max=1)) as driven:
            docs = driven.scoped(alice)
            for use in (
                lambda: docs.upsert(chunks("d", 3)),
                lambda: docs.search(np.ones(8)),
                lambda: docs.replace("d", chunks("d", 2)),
                docs.count,
                lambda: docs.delete(document="d"),
            ):
                before = len(proxy.sent("client"))
                use()
                sent = messages(proxy.sent("client")[before:])
                assert sent.endswith("PBDES"), sent
                assert sent.count("S") == 1, "one round trip"


def test_no_server_connection_is_lost_in_the_pooler(shared: Any, pgbouncer: Any, kind: str) -> None:
    config = through(shared, pgbouncer(default_pool_size="1"), pool_max=4)
    alice, _ = two()
    with Driven(kind, config) as driven:
        docs = driven.scoped(alice)
        with ThreadPoolExecutor(4) as threads:
            assert len(list(threads.map(lambda _: docs.count(timeout=8), range(400)))) == 400


def test_tenants_interleaved_over_one_server_connection(shared: Any, pgbouncer: Any, kind: str) -> None:
    config = through(shared, pgbouncer(default_pool_size="1"), pool_max=8)
    mark = secrets.token_hex(4)
    people = [testing.principal(f"p{i}", f"{mark}-{i}") for i in range(4)]
    with Driven(kind, config) as driven:

        def work(turn: int) -> list[tuple[str, str, str]]:
            person = people[turn % 4]
            docs = driven.scoped(person)
            docs.replace(f"d{turn % 8}", chunks(f"d{turn % 8}", 3, text=person.tenant))
            return [(person.tenant, hit.tenant, hit.text) for hit in docs.search(np.ones(8), 50)]

        with ThreadPoolExecutor(8) as threads:
            for answer in threads.map(work, range(120)):
                assert answer
                assert all(asked == tenant == text for asked, tenant, text in answer)
        for person in people:
            sizes = Counter(hit.document for hit in driven.scoped(person).scan())
            assert set(sizes.values()) == {3}
        clean(config, shared.names.table)


def test_cancelled_tasks(shared: Any, pgbouncer: Any) -> None:
    config = through(shared, pgbouncer(default_pool_size="2"), pool_max=4)
    alice, bob = two()
    rng = random.Random(3)
    sink = MemorySink()

    async def main() -> int:
        cancelled = 0
        async with v.aconnect(config, sink=sink) as acl:
            await acl.open()

            async def one(turn: int) -> bool:
                person = (alice, bob)[turn % 2]
                docs = acl.scoped(person)
                make = docs.upsert(chunks(f"u{turn}", 6, text=person.tenant)) if turn % 3 else docs.search(np.ones(8))
                task = asyncio.create_task(make)
                if turn % 4 > 1:
                    await asyncio.sleep(rng.random() ** 3 * 0.15)  # many at once, some late, whatever the machine
                    task.cancel()
                    if turn % 4 == 3:
                        await asyncio.sleep(rng.random() * 0.002)
                        task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    task.result()
                return task.cancelled()

            for wave in range(3):
                cancelled += sum(await asyncio.gather(*(one(wave * 40 + turn) for turn in range(40))))
            for person in (alice, bob):
                sizes: Counter[str] = Counter()
                async for hit in acl.scoped(person).scan():
                    assert hit.tenant == hit.text == person.tenant
                    sizes[hit.document] += 1
                assert set(sizes.values()) == {6}
        return cancelled

    assert asyncio.run(main()) > 10
    clean(config, shared.names.table)
    assert Counter(one["id"] for one in sink.records) == Counter(one["decision"] for one in sink.outcomes)


def test_statement_mode_is_refused_at_connect(shared: Any, pgbouncer: Any, kind: str) -> None:
    bouncer = pgbouncer("statement")
    config = through(shared, bouncer)
    with psycopg.connect(config["stores"]["main"]["dsn"], autocommit=True) as control:
        control.execute("SELECT 1")
    with pytest.raises(v.PostureError, match=r"pool_mode = transaction") as refused:
        Driven(kind, config).close()
    password = bouncer.dsn("runtime").partition("@")[0].rpartition(":")[2]
    assert not any(password in text for text in everything(refused.value))
    alice, _ = two()
    with v.connect(shared.config) as acl:
        assert acl.scoped(alice).count() == 0
    if kind == "sync":  # with the application's own pool, too
        dsn = config["stores"]["main"]["dsn"]
        with ConnectionPool(dsn, kwargs={"prepare_threshold": None}, min_size=1, max_size=1) as pool:
            with pytest.raises(v.PostureError, match="statement mode"):
                v.connect(config, clients={"main": pool})
            assert not pool.closed


def test_a_server_lost_behind_the_pooler_is_no_matter_of_posture(shared: Any, pgbouncer: Any, kind: str) -> None:
    config = through(shared, pgbouncer(default_pool_size="1"), pool_max=2)
    alice, _ = two()
    with Driven(kind, config) as driven, psycopg.connect(shared.bootstrap, autocommit=True) as boss:
        docs = driven.scoped(alice)
        docs.upsert(chunks("d", 2))
        kill = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
            "AND usename = 'vectoracl_runtime'"
        )
        # Idle behind the pooler: a read is asked again, and works.
        assert boss.execute(kill).fetchone() != (0,)
        assert docs.count() == 2
        # In the middle of a write: it waits for a lock when its server is ended.
        with psycopg.connect(shared.owner) as blocker:
            blocker.execute(f"LOCK TABLE {shared.names.table} IN ACCESS EXCLUSIVE MODE")
            failed: list[BaseException] = []

            def write() -> None:
                try:
                    docs.replace("d", chunks("d", 5))
                except v.VectorACLError as error:
                    failed.append(error)

            writing = threading.Thread(target=write)
            writing.start()
            waiting = (  # here, and not in a database of another worker's on the same server
                "SELECT count(*) FROM pg_locks WHERE NOT granted "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            until = time.monotonic() + 10
            while boss.execute(waiting).fetchone() == (0,) and time.monotonic() < until:
                time.sleep(0.01)
            boss.execute(kill)
            writing.join(20)
            blocker.rollback()
        assert not writing.is_alive()
        (error,) = failed
        assert isinstance(error, v.StoreError)
        assert (error.code, error.sent) == ("unavailable", "unknown")
        assert docs.count() == 2


def test_a_busy_pooler_is_no_matter_of_posture(shared: Any, pgbouncer: Any, kind: str) -> None:
    """PgBouncer reports its own trouble by the same SQLSTATE as a BEGIN in statement mode."""
    config = through(shared, pgbouncer(default_pool_size="1", query_wait_timeout="1"), pool_max=2)
    alice, _ = two()
    with Driven(kind, config) as driven:
        docs = driven.scoped(alice)
        docs.upsert(chunks("d", 2))
        with psycopg.connect(config["stores"]["main"]["dsn"], prepare_threshold=None) as holder:
            holder.execute("SELECT 1")
            with pytest.raises(v.StoreError) as failed:
                docs.replace("d", chunks("d", 5))
            assert failed.value.code == "unavailable"
            holder.rollback()
        assert docs.count() == 2


def test_statements_that_an_old_pooler_loses(shared: Any, pgbouncer: Any, kind: str) -> None:
    """`prepare = true` behind a PgBouncer that hands clients to other servers, which lack what they prepared."""
    config = through(shared, pgbouncer(default_pool_size="3", server_round_robin="1"), pool_max=2, prepare=True)
    alice, bob = two()
    with Driven(kind, config) as driven:
        for person, count in ((alice, 5), (bob, 3)):
            driven.scoped(person).upsert(chunks("d", count))
        with ThreadPoolExecutor(4) as threads:

            def work(turn: int) -> tuple[int, int]:
                person, count = ((alice, 5), (bob, 3))[turn % 2]
                return len(driven.scoped(person).search(np.ones(8), 10)), count

            assert all(found == count for found, count in threads.map(work, range(80)))
