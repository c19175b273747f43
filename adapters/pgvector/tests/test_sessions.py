"""Sessions: no scope stays on a connection, whatever went wrong on it; pools, the application's own ones, and forks."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import secrets
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector, register_vector_async
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

import vectoracl as v
from vectoracl import Chunk, F, testing
from vectoracl.audit.sinks import MemorySink
from vectoracl_pgvector.connection.ports import AsyncPgPort, PgPort
from vectoracl_pgvector.requests import Statement, Transaction

from pgvector_support.driven import KINDS, Driven

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def shared(provisioned: Any) -> Any:
    """One database for the module; each test has tenants of its own."""
    return provisioned()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def two() -> tuple[v.Principal, v.Principal]:
    """Two principals of two new tenants."""
    mark = secrets.token_hex(4)
    return testing.principal("alice", f"a-{mark}"), testing.principal("bob", f"b-{mark}")


def chunks(document: str, count: int, *, text: str = "", **metadata: Any) -> list[Chunk]:
    return [Chunk(f"c{i}", document, text, np.eye(8)[i % 8] + 0.1, metadata=metadata) for i in range(count)]


def nothing_left(driven: Driven, store: Any) -> None:
    """Assert that a connection of the pool has no scope, no transaction and so no row."""
    setting, rows, assigned = driven.raw(
        "SELECT current_setting('vectoracl.tenant', true), "
        f"(SELECT count(*) FROM {store.names.table}), pg_current_xact_id_if_assigned()::text"
    )[0]
    assert setting in (None, "")
    assert rows == 0
    assert assigned is None
    assert driven.raw("SELECT current_setting('search_path'), current_setting('statement_timeout')") == [
        ('"$user", public', "0")
    ]


def scope(tenant: str) -> tuple[tuple[str, str], ...]:
    return (("vectoracl.tenant", tenant), ("search_path", "pg_catalog, pg_temp"))


INSERT = (
    "INSERT INTO {table} (tenant_id, document, generation, chunk_id, label, rev, expires, producer, path, written_at, "
    "position, content, metadata, embedding) VALUES (%s, %s, 0, 'raw', 'default', 0, 1, '', '', 0, 0, '', '{{}}', "
    "'[1,1,1,1,1,1,1,1]'::public.vector)"
)

BAD: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "syntax": ("SELECT nonsense FROM", (), "sqlstate:42601"),
    "no such table": ("SELECT * FROM vectoracl.never", (), "not_provisioned"),
    "division": ("SELECT 1/0", (), "denied"),
    "another tenant's tag": (INSERT, ("somebody-else", "d"), "rejected"),
    "no tenant": (INSERT, (None, "d"), "rejected"),
    "constraint": (INSERT, ("{tenant}", ""), "sqlstate:23514"),
    "duplicate": (INSERT + ", (%s, %s" + INSERT.partition("%s, %s")[2], ("{tenant}", "d", "{tenant}", "d"), "23505"),
    "closed partition": ("SELECT * FROM vectoracl.chunks_default", (), "rejected"),
    "a value that cannot be sent": ("SELECT %s::text", ("a\0b",), "bad_value"),
    "too few values": ("SELECT %s, %s", ("a",), "bad_value"),
    "server's time limit": ("SELECT pg_sleep(5)", (), "timeout"),
    "the connection ends itself": ("SELECT pg_terminate_backend(pg_backend_pid())", (), "unavailable"),
    "its own commit": ("SELECT 1; COMMIT; SELECT 1", (), "sqlstate:42601"),
}


@pytest.mark.parametrize("fault", BAD)
def test_an_error_leaves_no_scope_on_the_connection(shared: Any, kind: str, fault: str) -> None:
    alice, bob = two()
    sql, params, code = BAD[fault]
    sql = sql.replace("{table}", shared.names.table).replace("{{}}", "{}")
    params = tuple(alice.tenant if one == "{tenant}" else one for one in params)
    with Driven(kind, shared.changed(pool_min=1, pool_max=1)) as driven:
        a, b = driven.scoped(alice), driven.scoped(bob)
        a.upsert(chunks("d", 3))
        b.upsert(chunks("d", 2))
        control = Statement(f"SELECT count(*) FROM {shared.names.table}")
        assert driven.perform(Transaction(alice.tenant, (control,), scope(alice.tenant))) == ([(3,)],)
        before = driven.raw("SELECT pg_backend_pid()")
        request = Transaction(alice.tenant, (control, Statement(sql, params)), scope(alice.tenant), read_only=False)
        with pytest.raises(v.VectorACLError) as failed:
            driven.perform(request, 0.2 if code == "timeout" else 10.0)
        assert failed.value.code.endswith(code)
        if isinstance(failed.value, v.StoreError):
            assert failed.value.sent == ("unknown" if code == "unavailable" else "no")
        nothing_left(driven, shared)
        assert {hit.tenant for hit in b.search(np.ones(8), 50)} == {bob.tenant}
        assert (a.count(), b.count()) == (3, 2)
        assert code == "unavailable" or driven.raw("SELECT pg_backend_pid()") == before


def test_a_denied_write_leaves_no_scope_and_nothing_written(shared: Any, kind: str) -> None:
    alice, bob = two()
    with Driven(kind, shared.changed(pool_min=1, pool_max=1)) as driven:
        a, b = driven.scoped(alice), driven.scoped(bob)
        a.upsert(chunks("d", 3, year=1999))
        b.upsert(chunks("d", 2, year=2021))
        narrow = a.narrow(F.year >= 2020)
        for write in (
            lambda: narrow.upsert([*chunks("new", 2, year=2021), *chunks("d", 1, year=2022)]),
            lambda: narrow.replace("d", chunks("d", 1, year=2022)),
        ):
            with pytest.raises(v.DeniedError):
                write()
            nothing_left(driven, shared)
            assert {hit.tenant for hit in b.search(np.ones(8), 50)} == {bob.tenant}
        assert (a.count(), a.count(F.year >= 2020), b.count()) == (3, 0, 2)


def history(driven: Driven, people: list[v.Principal], asked: Callable[[v.Principal, int], Any], turns: int) -> None:
    """Let everybody ask at once, then check that every answer belongs to who asked, and is whole."""
    kept: list[tuple[v.Principal, list[v.Hit]]] = []
    jobs = [(person, turn) for turn in range(turns) for person in people]
    random.Random(5).shuffle(jobs)
    with ThreadPoolExecutor(16) as threads:
        for person, hits in threads.map(lambda job: (job[0], asked(*job)), jobs):
            kept.append((person, list(hits)))
    assert len(kept) == len(jobs)
    for person, hits in kept:
        assert hits
        assert {hit.tenant for hit in hits} == {person.tenant}
        assert {hit.text for hit in hits} == {person.tenant}


def test_many_principals_on_few_connections(shared: Any, kind: str) -> None:
    mark = secrets.token_hex(4)
    people = [testing.principal(f"p{i}", f"{mark}-{i}") for i in range(20)]
    with Driven(kind, shared.changed(pool_min=1, pool_max=2)) as driven:
        handles = {person: driven.scoped(person) for person in people}
        for person in people:
            handles[person].upsert(chunks("d", 5, text=person.tenant))

        def ask(person: v.Principal, turn: int) -> Any:
            mine = handles[person]
            match turn % 4:
                case 0:
                    return mine.search(np.ones(8), 10)
                case 1:
                    return mine.fetch(["c0", "c1"])
                case 2:
                    mine.replace("d", chunks("d", 5, text=person.tenant))
            return mine.page(size=50).hits

        history(driven, people, ask, 12)
        assert all(handles[person].count() == 5 for person in people)
        nothing_left(driven, shared)
        assert driven.pool.get_stats()["pool_size"] <= 2


def test_hundreds_of_tasks_half_of_them_cancelled(shared: Any) -> None:
    rng = random.Random(11)
    mark = secrets.token_hex(4)
    people = [testing.principal(f"p{i}", f"{mark}-{i}") for i in range(5)]
    sink = MemorySink()
    cancelled = 0

    async def work(acl: v.AsyncVectorACL, turn: int) -> tuple[v.Principal, list[v.Hit]]:
        person = people[turn % 5]
        docs = acl.scoped(person)
        match turn % 6:
            case 0 | 1:
                await docs.upsert(chunks(f"u{turn}", 7, text=person.tenant))
            case 2:
                await docs.replace(f"r{turn % 12}", chunks(f"r{turn % 12}", 7, text=person.tenant))
            case 3:
                await docs.count()
            case 4:
                return person, list(await docs.search(np.ones(8), 20))
            case 5:
                return person, list((await docs.page(size=20)).hits)
        return person, []

    async def main() -> None:
        nonlocal cancelled
        config = shared.changed(pool_min=2, pool_max=4)
        async with v.aconnect(config, sink=sink) as acl:
            await acl.open()
            for person in people:
                await acl.scoped(person).upsert(chunks("first", 7, text=person.tenant))

            async def one(turn: int) -> Any:
                task = asyncio.create_task(work(acl, turn))
                if turn % 2:
                    await asyncio.sleep(rng.random() ** 3 * 0.25)  # many at once, some late, whatever the machine
                    task.cancel()
                    if turn % 4 == 1:
                        await asyncio.sleep(rng.random() * 0.002)
                        task.cancel()
                try:
                    return await task
                except asyncio.CancelledError:
                    return None

            for wave in range(5):
                answers = await asyncio.gather(*(one(wave * 72 + turn) for turn in range(72)))
                cancelled += answers.count(None)
                for answer in answers:
                    if answer is not None:
                        person, hits = answer
                        assert {(hit.tenant, hit.text) for hit in hits} <= {(person.tenant, person.tenant)}
            pool = acl._stores["main"].aport._pool
            # The pool is whole: all its connections can be had at once, and none has a scope.
            connections = [await pool.getconn(timeout=10) for _ in range(4)]
            for connection in connections:
                cursor = await connection.execute(
                    f"SELECT current_setting('vectoracl.tenant', true), (SELECT count(*) FROM {shared.names.table})"
                )
                setting, rows = await cursor.fetchone()
                assert setting in (None, "")
                assert rows == 0
            for connection in connections:
                await pool.putconn(connection)
            for person in people:
                sizes: Counter[str] = Counter()
                async for hit in acl.scoped(person).scan():
                    assert hit.tenant == hit.text == person.tenant
                    sizes[hit.document] += 1
                assert set(sizes.values()) == {7}, "a batch is there whole, or not at all"

    asyncio.run(main())
    assert cancelled > 30, "the control: many really were cancelled"
    decided = Counter(record["id"] for record in sink.records)
    assert decided == Counter(outcome["decision"] for outcome in sink.outcomes)
    assert set(decided.values()) == {1}
    assert {outcome["outcome"] for outcome in sink.outcomes} == {"ok", "cancelled"}


def test_a_call_that_is_cancelled_while_it_returns_its_connection_loses_none(shared: Any) -> None:
    (person, _) = two()

    async def main() -> None:
        async with v.aconnect(shared.changed(pool_min=2, pool_max=2)) as acl:
            docs = acl.scoped(person)
            await docs.upsert(chunks("d", 2, text=person.tenant))
            pool = acl._stores["main"].aport._pool
            for _ in range(3):
                reading = asyncio.create_task(docs.count())
                while len(pool._pool) == 2:
                    await asyncio.sleep(0)
                await pool._lock.acquire()  # as another call does that takes or returns one at this moment
                while not pool._lock._waiters:
                    await asyncio.sleep(0.001)
                reading.cancel()
                await asyncio.wait([reading], timeout=5)
                assert reading.cancelled()
                pool._lock.release()
            both = [await pool.getconn(timeout=5) for _ in range(2)]
            for connection in both:
                await pool.putconn(connection)
            assert await docs.count() == 2

    asyncio.run(main())


def test_a_cancelled_opening_leaves_no_connection(shared: Any) -> None:
    name = f"opening-{secrets.token_hex(4)}"
    config = shared.changed(dsn=f"{shared.runtime}&application_name={name}")

    async def main() -> None:
        for turn in range(12):
            acl = v.aconnect(config)
            opening = asyncio.create_task(acl.open())
            await asyncio.sleep(turn * 0.004)
            opening.cancel()
            await asyncio.wait([opening])
            await acl.close()

    asyncio.run(main())
    with psycopg.connect(shared.bootstrap, autocommit=True) as look:
        until = time.monotonic() + 5
        asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        while look.execute(asked, (name,)).fetchone() != (0,):
            assert time.monotonic() < until
            time.sleep(0.02)


# --- the pool runs short


def test_one_connection_serves_many_threads_and_several_partitions(provisioned: Any, kind: str) -> None:
    store = provisioned()
    config = {**store.changed(pool_min=1, pool_max=1), "tenants": {"shared": ["public", "common"]}}
    people = [testing.principal(f"p{i}", f"t{i}") for i in range(6)]
    with Driven(kind, config) as driven:
        for person in (*people, testing.principal("x", "public"), testing.principal("y", "common")):
            driven.scoped(person).upsert(chunks("d", 2, text=person.tenant))
        with ThreadPoolExecutor(20) as threads:
            jobs = [person for person in people for _ in range(15)]
            found = threads.map(lambda one: (one, driven.scoped(one).search(np.ones(8), 50)), jobs)
            for person, hits in found:
                assert {hit.tenant for hit in hits} == {person.tenant, "public", "common"}
                assert len(hits) == 6


def test_a_pool_that_runs_dry_says_so(shared: Any, kind: str) -> None:
    alice, _ = two()
    with Driven(kind, shared.changed(pool_min=1, pool_max=1, connect_timeout=0.3)) as driven:
        docs = driven.scoped(alice)
        docs.upsert(chunks("d", 1))
        with psycopg.connect(shared.owner) as blocker:
            blocker.execute(f"LOCK TABLE {shared.names.table} IN ACCESS EXCLUSIVE MODE")
            waiting = threading.Thread(target=lambda: docs.count(timeout=20))
            waiting.start()
            until = time.monotonic() + 5
            while driven.pool.get_stats()["pool_available"] and time.monotonic() < until:
                time.sleep(0.005)
            for refused in (lambda: docs.count(), lambda: docs.upsert(chunks("new", 3))):
                began = time.monotonic()
                with pytest.raises(v.StoreError) as failed:
                    refused()
                assert (failed.value.code, failed.value.sent) == ("busy", "no")
                assert time.monotonic() - began < 3
            blocker.rollback()
            waiting.join(10)
            assert not waiting.is_alive()
        assert docs.count() == 1


def test_a_tenant_with_many_slow_calls_delays_another_by_one(
    shared: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty calls of one tenant wait for one connection when another tenant's call comes; it is the next but one."""
    alice, bob = two()
    begun: list[str] = []
    with Driven(kind, shared.changed(pool_min=1, pool_max=1)) as driven:
        for who in (alice, bob):
            driven.scoped(who).upsert(chunks("d", 1))

        record_order(monkeypatch, begun)
        with ThreadPoolExecutor(21) as threads, psycopg.connect(shared.owner) as blocker:
            blocker.execute(f"LOCK TABLE {shared.names.table} IN ACCESS EXCLUSIVE MODE")
            calls = [threads.submit(driven.scoped(alice).count) for _ in range(20)]
            until = time.monotonic() + 10
            while _in_line(driven) < 19 and time.monotonic() < until:
                time.sleep(0.005)
            calls.append(threads.submit(driven.scoped(bob).count))
            while _in_line(driven) < 20 and time.monotonic() < until:
                time.sleep(0.005)
            blocker.rollback()
            for one in calls:
                one.result(20)
    assert begun.index(bob.tenant) <= 2, begun


def record_order(monkeypatch: pytest.MonkeyPatch, begun: list[str]) -> None:
    """Append the partition of each request to *begun* when its turn comes.

    The order in which the calling threads return says nothing: on a busy machine the last may be woken first.
    """
    for port in (PgPort, AsyncPgPort):

        def execute(self: Any, request: Any, timeout: float | None, execute: Any = port.execute) -> Any:
            begun.append(request.partition)
            return execute(self, request, timeout)

        monkeypatch.setattr(port, "execute", execute)


def _in_line(driven: Any) -> int:
    """Return how many requests wait for their turn."""
    store = driven.acl._stores["main"]
    gate = store.gate or store.agate
    return sum(map(len, gate._queue._turns.values()))


# --- the application's own pools


def served(acl: Any, call: Callable[[Any], Any], shared: Any) -> None:
    alice, bob = two()
    a, b = acl.scoped(alice), acl.scoped(bob)
    call(a.upsert(chunks("d", 3, year=2020)))
    call(b.upsert(chunks("d", 1)))
    (hit, *_) = call(a.search(np.ones(8), 10, where=F.year == 2020, include={"text", "metadata", "vector"}))
    assert (hit.tenant, hit.metadata, hit.vector.shape) == (alice.tenant, {"year": 2020}, (8,))
    assert {one.tenant for one in call(b.search(np.ones(8), 10))} == {bob.tenant}
    call(a.replace("d", chunks("d", 2)))
    with pytest.raises(v.DeniedError):
        call(a.narrow(F.year >= 2020).upsert(chunks("d", 1, year=2022)))
    assert call(a.count()) == 2
    assert call(b.delete(document="d")).count == 1


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("factory", ["dict_row", "tuples"])
@pytest.mark.parametrize("registered", [True, False])
def test_the_applications_pool_is_left_as_it_was(shared: Any, autocommit: bool, factory: str, registered: bool) -> None:
    arguments: dict[str, Any] = {"autocommit": autocommit, "prepare_threshold": 0}
    if factory == "dict_row":
        arguments["row_factory"] = dict_row
    with ConnectionPool(
        shared.runtime, kwargs=arguments, min_size=1, max_size=1, configure=register_vector if registered else None
    ) as pool:
        with v.connect(shared.config, clients={"main": pool}) as acl:
            served(acl, lambda answer: answer, shared)
        assert not pool.closed
        with pool.connection() as connection:
            assert connection.autocommit is autocommit
            assert connection.info.transaction_status == TransactionStatus.IDLE
            assert "wait" not in vars(connection)
            row = connection.execute(
                "SELECT current_setting('vectoracl.tenant', true) AS t, '[1,2]'::vector AS v, "
                f"(SELECT count(*) FROM {shared.names.table}) AS n"
            ).fetchone()
            tenant, vector, rows = row.values() if factory == "dict_row" else row
            assert (tenant, rows) == ("", 0)
            assert isinstance(vector, str) is not registered


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("registered", [True, False])
def test_the_applications_async_pool_is_left_as_it_was(shared: Any, autocommit: bool, registered: bool) -> None:
    async def main() -> None:
        arguments: dict[str, Any] = {"autocommit": autocommit, "row_factory": dict_row}
        configure = register_vector_async if registered else None
        async with AsyncConnectionPool(
            shared.runtime, kwargs=arguments, min_size=1, max_size=1, configure=configure, open=False
        ) as pool:
            loop = asyncio.get_running_loop()
            async with v.aconnect(shared.config, clients={"main": pool}) as acl:
                await acl.open()

                def call(answer: Any) -> Any:
                    return asyncio.run_coroutine_threadsafe(answer, loop).result(30)

                await asyncio.to_thread(served, acl, call, shared)
                # A cancelled request leaves the application's connection as it was, too.
                slow = Transaction("x", (Statement("SELECT pg_sleep(5)"),), scope("x"))
                task = asyncio.create_task(acl._stores["main"].aport.execute(slow, 10.0))
                await asyncio.sleep(0.1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert not pool.closed
            async with pool.connection() as connection:
                assert connection.autocommit is autocommit
                assert connection.info.transaction_status == TransactionStatus.IDLE
                cursor = await connection.execute("SELECT current_setting('vectoracl.tenant', true) AS t")
                assert (await cursor.fetchone())["t"] in ("", None)

    asyncio.run(main())


def test_a_wrong_client_is_refused(shared: Any) -> None:
    with psycopg.connect(shared.runtime) as connection, pytest.raises(v.ConfigError, match="ConnectionPool"):
        v.connect(shared.config, clients={"main": connection})


# --- forks and processes

FORK = """
import json, os, sys, threading
import numpy as np
import vectoracl as v
from vectoracl import Chunk, testing

config = json.loads(sys.argv[1])
alice = testing.principal("alice", sys.argv[2])
acl = v.connect(config)
docs = acl.scoped(alice)
docs.upsert([Chunk("c", "d", "", np.ones(8))])
assert docs.count() == 1
said = []
for ending in ("exit", "_exit", "close"):
    child = os.fork()
    if child == 0:
        try:
            for use in (lambda: docs.count(), lambda: docs.upsert([Chunk("x", "x", "", np.ones(8))]),
                        lambda: acl.scoped(alice).count(), lambda: acl.check(), acl._stores["main"].port.execute):
                try:
                    use() if use.__name__ == "<lambda>" else use(None, 1.0)
                    os._exit(11)
                except v.ClosedError:
                    pass
            if ending == "close":
                acl.close()
            with v.connect(config) as own:
                if own.scoped(alice).count() != 1:
                    os._exit(12)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(13)
        if ending == "_exit":
            os._exit(0)
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    said.append(os.waitstatus_to_exitcode(status))
    assert docs.count() == 1, ending
acl.close()
print(json.dumps(said))
"""


def script(source: str, *arguments: str, timeout: float = 60, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(source), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **more)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork on this platform")
def test_a_forked_child_has_nothing_of_the_parents(shared: Any) -> None:
    done = script(FORK, json.dumps(shared.config), two()[0].tenant)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, 0, 0], done.stderr


WORKER = """
import json, random, sys
import numpy as np
import vectoracl as v
from vectoracl import Chunk, testing

config, tenants, name = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
rng = random.Random(name)
foreign = torn = 0
with v.connect(config) as acl:
    for turn in range(60):
        tenant = rng.choice(tenants)
        docs = acl.scoped(testing.principal(name, tenant))
        document = f"d{rng.randrange(3)}"
        docs.replace(document, [Chunk(f"{name}{turn}-{i}", document, tenant, np.ones(8)) for i in range(6)])
        texts = [(hit.tenant, hit.text) for hit in docs.search(np.ones(8), 100)]
        foreign += any(one != (tenant, tenant) for one in texts)
        torn += len(texts) % 6 != 0
print(json.dumps([foreign, torn]))
"""


def test_two_processes_on_one_store(shared: Any) -> None:
    tenants = [person.tenant for person in two()]
    arguments = (json.dumps(shared.config), json.dumps(tenants))
    with ThreadPoolExecutor(2) as both:
        for done in both.map(lambda name: script(WORKER, *arguments, name), ("one", "other")):
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout) == [0, 0]
    with v.connect(shared.config) as acl:
        for tenant in tenants:
            hits = list(acl.scoped(testing.principal("x", tenant)).scan())
            assert set(Counter(hit.document for hit in hits).values()) == {6}
    assert not multiprocessing.active_children()


# --- before anything is sent


class BrokenSink(MemorySink):
    """Takes no record from now on."""

    broken = False

    def write(self, record: Any) -> None:
        if self.broken:
            raise OSError("disk full: c4n4ry")
        super().write(record)


def test_without_a_record_nothing_is_sent(shared: Any, kind: str) -> None:
    alice, _ = two()
    sink = BrokenSink()
    with Driven(kind, shared.changed(pool_min=1, pool_max=1), sink=sink) as driven:
        docs = driven.scoped(alice)
        docs.upsert(chunks("d", 2))
        sent = driven.pool.get_stats()["requests_num"]
        sink.broken = True
        for use in (
            lambda: docs.search(np.ones(8)),
            lambda: docs.fetch(["c0"]),
            docs.count,
            lambda: docs.page(),
            lambda: docs.upsert(chunks("new", 3)),
            lambda: docs.replace("d", []),
            lambda: docs.delete(document="d"),
        ):
            with pytest.raises(v.StoreError) as failed:
                use()
            assert (failed.value.code, failed.value.sent) == ("audit", "no")
            assert "c4n4ry" not in str(failed.value)
        assert driven.pool.get_stats()["requests_num"] == sent, "no connection was even asked for"
        sink.broken = False
        assert docs.count() == 2


# --- roles


@pytest.mark.parametrize(("role", "rule"), [("bootstrap", "PG001"), ("owner", "PG003"), ("bypass", "PG002")])
def test_a_role_that_goes_around_row_level_security_is_refused(shared: Any, kind: str, role: str, rule: str) -> None:
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    alice, bob = two()
    made = f"r_{secrets.token_hex(4)}"
    with psycopg.connect(shared.bootstrap, autocommit=True) as boss:
        boss.execute(f"CREATE ROLE {made} LOGIN PASSWORD 'c4n4ry-s3cret' BYPASSRLS IN ROLE vectoracl_runtime")
        try:
            dsn = {
                "bootstrap": shared.bootstrap,
                "owner": shared.owner,
                "bypass": make_conninfo(
                    **{**conninfo_to_dict(shared.runtime), "user": made, "password": "c4n4ry-s3cret"}
                ),
            }[role]
            with pytest.raises(v.PostureError) as refused:
                Driven(kind, shared.changed(dsn=dsn)).close()
            assert rule in str(refused.value)
            assert rule in {finding.rule.id for finding in refused.value.findings}
            assert "'engine' is required" in str(refused.value)
            with pytest.raises(v.PostureError):
                Driven(kind, {**shared.changed(dsn=dsn), "minimum_grade": "predicate"}).close()
            # Only in so many words; and then the explicit predicate still keeps tenants apart.
            with Driven(kind, {**shared.changed(dsn=dsn), "minimum_grade": "none"}) as driven:
                a, b = driven.scoped(alice), driven.scoped(bob)
                a.upsert(chunks("d", 2))
                b.upsert(chunks("d", 1))
                assert {hit.tenant for hit in a.search(np.ones(8), 50)} == {alice.tenant}
                assert (a.count(), b.count()) == (2, 1)
        finally:
            boss.execute(f"DROP ROLE {made}")
