"""Servers that die, networks that cut or fall silent, Ctrl-C, wrong servers; and no secret or content in any of it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import vectoracl as v
from vectoracl import Chunk, F, testing
from vectoracl_pgvector import schema
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.embedded import server as embedded
from vectoracl_pgvector.embedded.folder import Folder
from vectoracl_pgvector.requests import Statement, Transaction

from pgvector_support.driven import KINDS, Driven, Loop, everything
from pgvector_support.fixtures import SETTINGS
from pgvector_support.proxy import Proxy

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def shared(provisioned: Any) -> Any:
    return provisioned()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def somebody() -> v.Principal:
    return testing.principal("alice", f"t-{secrets.token_hex(4)}")


def chunks(document: str, count: int, **metadata: Any) -> list[Chunk]:
    return [Chunk(f"c{i:04}", document, "text", np.eye(8)[i % 8] + 0.1, metadata=metadata) for i in range(count)]


def database(dsn: str) -> str:
    return str(conninfo_to_dict(dsn)["dbname"])


def written(store: Any, tenant: str) -> int:
    """Count the rows of a tenant, past everything that is tested."""
    with psycopg.connect(store.owner, autocommit=True) as owner, owner.transaction():
        owner.execute("SELECT set_config('vectoracl.tenant', %s, true)", (tenant,))
        return owner.execute(f"SELECT count(*) FROM {store.names.table}").fetchone()[0]


@contextmanager
def locked(store: Any) -> Iterator[None]:
    """Hold a lock that everything on the table waits for."""
    with psycopg.connect(store.owner) as blocker:
        blocker.execute(f"LOCK TABLE {store.names.table} IN ACCESS EXCLUSIVE MODE")
        yield
        blocker.rollback()


def wait_for(condition: Callable[[], Any], seconds: float = 40) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.005)
    return found


# --- time limits and silence


def test_the_servers_time_limit_leaves_nothing(shared: Any, kind: str) -> None:
    alice = somebody()
    with Driven(kind, shared.changed(pool_min=1, pool_max=1)) as driven:
        docs = driven.scoped(alice)
        docs.upsert(chunks("d", 3))
        with locked(shared):
            for use in (
                lambda: docs.search(np.ones(8), timeout=0.2),
                lambda: docs.count(timeout=0.2),
                lambda: docs.upsert(chunks("new", 3), timeout=0.2),
                lambda: docs.replace("d", chunks("d", 1), timeout=0.2),
                lambda: docs.delete(document="d", timeout=0.2),
            ):
                began = time.monotonic()
                with pytest.raises(v.StoreError) as failed:
                    use()
                assert (failed.value.code, failed.value.sent) == ("timeout", "no")
                assert time.monotonic() - began < 3
        assert docs.count() == 3
        assert driven.raw("SELECT current_setting('vectoracl.tenant', true), current_setting('statement_timeout')") == [
            ("", "0")
        ]


@contextmanager
def behind(store: Any, server: Any, kind: str, **settings: Any) -> Iterator[tuple[Proxy, Driven]]:
    """Open the store through a proxy, with one connection."""
    with Proxy(server.host, server.port) as proxy:
        dsn = proxy.dsn(server.dsn("runtime", database(store.runtime), tcp=True))
        limits = {"pool_min": 1, "pool_max": 1, "connect_timeout": 0.5, **settings}
        with Driven(kind, store.changed(dsn=f"{dsn}?sslmode=disable", **limits)) as driven:
            yield proxy, driven


def connected(docs: Any) -> None:
    """Wait until the pool has a connection that works."""
    for _ in range(100):
        try:
            docs.count()
        except v.StoreError:
            time.sleep(0.05)
        else:
            return


async def _eventually(use: Callable[[], Any]) -> Any:
    """Return the result of *use*, as soon as the pool has a connection that works."""
    for _ in range(100):
        with suppress(v.StoreError):
            return await use()
        await asyncio.sleep(0.05)
    return await use()


def test_a_silent_network_is_an_error_in_bounded_time(shared: Any, server: Any, kind: str) -> None:
    alice = somebody()
    with behind(shared, server, kind) as (proxy, driven):
        docs = driven.scoped(alice)
        docs.upsert(chunks("d", 3))
        for use, all_or_nothing in (
            (lambda: docs.count(timeout=0.3), {3}),
            (lambda: docs.upsert(chunks("new", 4), timeout=0.3), {3, 7}),
        ):
            connected(docs)
            proxy.cut_after("server", 0, silently=True)
            began = time.monotonic()
            with pytest.raises(v.StoreError) as failed:
                use()
            assert time.monotonic() - began < 6
            assert (failed.value.code, failed.value.sent) == ("timeout", "unknown")
            proxy.heal()
            assert wait_for(lambda: written(shared, alice.tenant)) in all_or_nothing
        connected(docs)  # the pool tries again at growing intervals
        assert docs.count() == written(shared, alice.tenant)


def test_silence_at_the_first_contact(shared: Any, server: Any, kind: str) -> None:
    with Proxy(server.host, server.port) as proxy:
        dsn = proxy.dsn(server.dsn("runtime", database(shared.runtime), tcp=True)) + "?sslmode=disable"
        with Driven(kind, shared.changed(dsn=dsn)) as driven:
            driven.scoped(somebody()).count()
        whole = len(proxy.links[0].sent["server"])
    for count in (200, whole - 20):
        with Proxy(server.host, server.port) as proxy:
            dsn = proxy.dsn(server.dsn("runtime", database(shared.runtime), tcp=True)) + "?sslmode=disable"
            proxy.cut_after("server", count, silently=True)
            began = time.monotonic()
            with pytest.raises(v.StoreError) as failed:
                Driven(kind, shared.changed(dsn=dsn, connect_timeout=0.2)).close()
            assert (failed.value.code, failed.value.sent) == ("unreachable", "no")
            assert time.monotonic() - began < 6


def test_cancelled_on_a_silent_network(shared: Any, server: Any) -> None:
    alice = somebody()

    async def main(proxy: Proxy, dsn: str) -> None:
        async with v.aconnect(shared.changed(dsn=dsn, pool_max=1, connect_timeout=0.5)) as acl:
            docs = acl.scoped(alice)
            await docs.upsert(chunks("d", 2))
            proxy.cut_after("server", 0, silently=True)
            task = asyncio.create_task(docs.count(timeout=1))
            await asyncio.sleep(0.1)
            began = time.monotonic()
            task.cancel()
            await asyncio.wait([task])
            assert time.monotonic() - began < 12
            proxy.heal()
            assert await _eventually(docs.count) == 2

    with Proxy(server.host, server.port) as proxy:
        dsn = proxy.dsn(server.dsn("runtime", database(shared.runtime), tcp=True)) + "?sslmode=disable"
        asyncio.run(main(proxy, dsn))


# --- cut at chosen bytes


def test_cut_at_any_byte_a_write_is_whole_or_absent_and_sent_is_true(shared: Any, server: Any, kind: str) -> None:
    alice = somebody()
    outcomes, codes = set(), set()
    with behind(shared, server, kind, connect_timeout=0.3) as (proxy, driven):
        docs = driven.scoped(alice)
        docs.upsert(chunks("d-000", 20))

        def sizes(use: Callable[[], Any]) -> dict[str, int]:
            before = {side: len(proxy.sent(side)) for side in ("client", "server")}
            use()
            return {side: len(proxy.sent(side)) - before[side] for side in ("client", "server")}

        whole = sizes(lambda: docs.upsert(chunks("d-001", 20)))
        sent = proxy.sent("client")[-whole["client"] :]
        assert b"BEGIN" in sent
        commit = sent.rindex(b"COMMIT")
        marks = {
            "client": (0, 3, sent.index(b"BEGIN") + 6, len(sent) // 2, commit - 1, commit + 7, len(sent) - 1),
            "server": (0, 1, whole["server"] // 2, whole["server"] - 1),
        }
        turn = 1
        for side, counts in marks.items():
            for count in counts:
                turn += 1
                name = f"d-{turn:03}"
                wait_for(lambda: _tried(docs.count), 20)  # a connection that works is there
                before = written(shared, alice.tenant)
                proxy.cut_after(side, count)
                try:
                    docs.upsert(chunks(name, 20))
                    said = "done"
                except v.StoreError as error:
                    said = error.sent
                    codes.add(error.code)
                finally:
                    proxy.heal()
                # The server may still be working on what it got.
                time.sleep(0.05)
                new = written(shared, alice.tenant) - before
                assert new in (0, 20), (side, count)
                assert said != "done" or new == 20
                assert said != "no" or new == 0, (side, count)
                outcomes.add((said, new))
        # The same with a network that is back at once. A write is not sent again by itself, as somebody else may have
        # written meanwhile; if the caller says it again, it is there once.
        for side, count in (("client", len(sent) // 2), ("server", 0), ("server", whole["server"] - 1)):
            turn += 1
            name = f"d-{turn:03}"
            wait_for(lambda: _tried(docs.count), 20)
            before = written(shared, alice.tenant)
            cut = sum(link.cut for link in proxy.links)
            proxy.cut_after(side, count)

            ended = threading.Event()

            def heal(cut: int = cut, ended: threading.Event = ended) -> None:
                # A connection that its client has given up is not cut; then the network is back after the call.
                wait_for(lambda: ended.is_set() or sum(link.cut for link in proxy.links) > cut, 120)
                proxy.heal()

            healer = threading.Thread(target=heal)
            healer.start()
            # On a busy machine the pool's own reconnecting may be what is cut; then the write simply succeeds.
            try:
                docs.upsert(chunks(name, 20))
            except v.StoreError as error:
                said = error.sent
            else:
                said = "done"
            finally:
                ended.set()
                healer.join()
            assert said in ("unknown", "done")
            assert said != "done" or written(shared, alice.tenant) - before == 20
            connected(docs)
            docs.upsert(chunks(name, 20))
            assert written(shared, alice.tenant) - before == 20
    assert codes == {"unavailable"}
    assert ("unknown", 20) in outcomes, "the control: some cuts came after the commit"
    assert ("unknown", 0) in outcomes or ("no", 0) in outcomes


def test_a_later_attempt_does_not_make_a_doubtful_write_certain(shared: Any, server: Any, kind: str) -> None:
    """The reply to COMMIT is lost, and then nothing can connect: it was applied, and nobody may say that it was not."""
    alice = somebody()
    with behind(shared, server, kind, connect_timeout=0.2) as (proxy, driven):
        docs = driven.scoped(alice)
        docs.upsert(chunks("first", 1))
        proxy.cut_after("server", 0)
        with pytest.raises(v.StoreError) as failed:
            docs.upsert(chunks("d", 5))
        proxy.heal()
        wait_for(lambda: written(shared, alice.tenant) == 6)
        assert failed.value.sent == "unknown"


def test_dead_connections_of_a_pool_cost_no_request(shared: Any, kind: str) -> None:
    alice = somebody()
    name = f"idle-{secrets.token_hex(4)}"
    with Driven(
        kind, shared.changed(dsn=f"{shared.runtime}&application_name={name}", pool_min=6, pool_max=6)
    ) as driven:
        docs = driven.scoped(alice)
        docs.upsert(chunks("d", 3))
        with psycopg.connect(shared.bootstrap, autocommit=True) as boss:
            found = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            wait_for(lambda: boss.execute(found, (name,)).fetchone() == (6,))
            boss.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s", (name,)
            )
        # Not idempotent, so never asked for again: it may not meet a dead connection.
        began = time.monotonic()
        assert docs.replace("d", chunks("d", 2)).count == 2
        assert docs.delete(document="d").count == 2
        assert time.monotonic() - began < 5


# --- a server that dies


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server of this module's own, that may be killed; provisioned, with its database `vectoracl`."""
    data = tmp_path_factory.mktemp("mortal") / "server"
    running = embedded.start(data, settings=SETTINGS, tcp=True)
    pg = PgvectorConfig(dsn=running.dsn("runtime"), dimension=8)
    with psycopg.connect(running.dsn("owner")) as owner:
        for statement in schema.migrations(pg):
            owner.execute(statement)
    yield data
    embedded.stop(data, mode="immediate")


def kill(data: Path) -> None:
    postmaster = int((Folder(data).cluster / "postmaster.pid").read_text().partition("\n")[0])
    os.kill(postmaster, signal.SIGKILL)


def test_a_killed_server_in_the_middle_of_a_load(mortal: Path, kind: str, tmp_path: Path) -> None:
    server = embedded.start(mortal, settings=SETTINGS, tcp=True)
    alice = somebody()
    journal = tmp_path / "journal"
    stream = chunks("d", 1000)
    with Proxy(server.host, server.port) as proxy:  # the same place before and after, whatever the port
        dsn = proxy.dsn(server.dsn("runtime", tcp=True))
        main = {"adapter": "pgvector", "dsn": dsn, "dimension": 8, "connect_timeout": 1, "pool_max": 3}
        with Driven(kind, {"version": 1, "stores": {"main": main}}) as driven:
            docs = driven.scoped(alice)

            def progress(count: int) -> None:
                if count == 300:
                    threading.Timer(0.005, kill, [mortal]).start()

            began = time.monotonic()
            with pytest.raises(v.StoreError) as failed:
                docs.load(iter(stream), batch=10, resume=journal, progress=progress)
            assert time.monotonic() - began < 15
            error = failed.value
            assert error.code == "unavailable"
            assert error.written >= 300
            assert error.written % 10 == 0
            assert re.search(rf"{error.written:,} chunks were written by this call", error.__notes__[0])
            with pytest.raises(v.StoreError) as failed:
                docs.count(timeout=2)
            assert failed.value.code in ("unavailable", "timeout")

            server = embedded.start(mortal, settings=SETTINGS, tcp=True)
            try:
                proxy.target = (server.host, server.port)
                # The same VectorACL works again. What failed is there whole or not at all.
                there = wait_for(lambda: _tried(docs.count), 20)
                assert there - error.written in (0, 10)
                if there > error.written:
                    assert error.sent == "unknown"
                report = docs.load(iter(stream), batch=10, resume=journal)
                assert report.skipped + report.written == 1000
                assert report.skipped == error.written
                assert docs.count() == 1000
                assert not journal.exists()
                assert len({hit.id for hit in docs.scan()}) == 1000
            finally:
                embedded.release(server)


def _tried(use: Callable[[], Any]) -> Any:
    try:
        return use()
    except v.StoreError:
        return None


def test_an_orderly_restart_between_searches_is_not_seen(mortal: Path, kind: str) -> None:
    server = embedded.start(mortal, settings=SETTINGS, tcp=True)
    alice = somebody()
    with Proxy(server.host, server.port) as proxy:
        main = {"adapter": "pgvector", "dsn": proxy.dsn(server.dsn("runtime", tcp=True)), "dimension": 8}
        with Driven(kind, {"version": 1, "stores": {"main": {**main, "pool_min": 4}}}) as driven:
            docs = driven.scoped(alice)
            docs.upsert(chunks("d", 5))
            with ThreadPoolExecutor(4) as threads:
                assert list(threads.map(lambda _: docs.count(), range(20))) == [5] * 20
            embedded.stop(mortal)
            server = embedded.start(mortal, settings=SETTINGS, tcp=True)
            proxy.target = (server.host, server.port)
            for _ in range(6):
                assert len(docs.search(np.ones(8), 10)) == 5
            assert docs.upsert(chunks("e", 2)).count == 2


FORKED = """
import json, os, sys
import vectoracl as v
from vectoracl import testing

acl = v.connect({"version": 1, "stores": {"main": {"adapter": "pgvector", "embedded": sys.argv[1], "dimension": 8}}})
docs = acl.scoped(testing.principal("a", "t"))
docs.count()
child = os.fork()
if child == 0:
    try:
        docs.count()
    except v.ClosedError:
        sys.exit(0)
    sys.exit(7)
_, status = os.waitpid(child, 0)
docs.count()
print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_the_end_of_a_forked_child_stops_no_embedded_server(mortal: Path) -> None:
    server = embedded.start(mortal, settings=SETTINGS, tcp=True)
    try:
        done = subprocess.run([sys.executable, "-c", FORKED, str(mortal)], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr
        with psycopg.connect(server.dsn("runtime")) as connection:
            connection.execute("SELECT 1")
    finally:
        embedded.release(server)


# --- Ctrl-C

INTERRUPTED = """
import json, sys, time
import numpy as np
import vectoracl as v
from vectoracl import Chunk, testing

config, tenant, what, journal, kind = json.loads(sys.argv[1]), *sys.argv[2:6]
stream = (Chunk(f"c{i:04}", "d", "text", np.ones(8)) for i in range(500))
alice = testing.principal("alice", tenant)

def progress(count):
    if what == "load" and count == 300:
        print("ready", flush=True)
        sys.stdin.readline()

if kind == "sync":
    with v.connect(config) as acl:
        docs = acl.scoped(alice)
        if what == "search":
            print("ready", flush=True)
            sys.stdin.readline()
            docs.search(np.ones(8))
        else:
            report = docs.load(stream, batch=100, resume=journal, progress=progress)
            print(json.dumps([report.skipped, report.written]))
else:
    import asyncio

    async def main():
        async with v.aconnect(config) as acl:
            docs = acl.scoped(alice)
            if what == "search":
                await acl.open()
                print("ready", flush=True)
                sys.stdin.readline()
                await docs.search(np.ones(8))
            else:
                report = await docs.load(stream, batch=100, resume=journal, progress=progress)
                print(json.dumps([report.skipped, report.written]))

    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
@pytest.mark.parametrize("what", ["search", "load"])
def test_control_c_in_the_middle(shared: Any, kind: str, what: str, tmp_path: Path) -> None:
    alice = somebody()
    name = f"ctrl-c-{secrets.token_hex(4)}"
    config = json.dumps(shared.changed(dsn=f"{shared.runtime}&application_name={name}"))
    journal = str(tmp_path / "journal")
    command = [sys.executable, "-c", INTERRUPTED, config, alice.tenant]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, what, journal, kind], **pipes)
    try:
        assert process.stdout.readline() == "ready\n"
        with psycopg.connect(shared.bootstrap, autocommit=True) as boss, locked(shared):
            process.stdin.write("\n")
            process.stdin.flush()
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
            wait_for(lambda: boss.execute(waiting, (name,)).fetchone()[0])
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, shown = process.communicate(timeout=20)
            assert time.monotonic() - began < 8
            assert process.returncode == -signal.SIGINT, shown
            assert "KeyboardInterrupt" in shown
            left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            wait_for(lambda: boss.execute(left, (name,)).fetchone() == (0,))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
    if what == "search":
        return
    assert "load: 300 chunks were written by this call, 0 before." in shown
    assert f"resume={journal!r}" in shown
    assert written(shared, alice.tenant) == 300
    again = subprocess.run(
        [*command, "again", journal, kind], input="", capture_output=True, text=True, timeout=60, check=False
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == [300, 200]
    assert written(shared, alice.tenant) == 500


# --- a wrong server


def test_an_old_extension_is_said(provisioned: Any) -> None:
    store = provisioned()
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute("UPDATE pg_catalog.pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    with v.connect(store.config) as acl:
        with pytest.raises(v.ConfigError, match=r"vector is 0\.7\.4; 0\.8\.0 is needed.*ALTER EXTENSION vector UPDATE"):
            acl.operator().provision()
        (posture,) = acl.check().values()
        said = [one for one in posture.findings if "0.7.4" in one.message]
        assert said
        assert all("ALTER EXTENSION" in one.fix for one in said)


def test_a_missing_extension_is_said(shared: Any, kind: str) -> None:
    with pytest.raises(v.PostureError, match='extension_schema = "public"'):
        Driven(kind, shared.changed(extension_schema="nowhere")).close()
    with psycopg.connect(shared.bootstrap, autocommit=True) as boss:
        name = f"bare_{secrets.token_hex(4)}"
        boss.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            parts = conninfo_to_dict(shared.runtime)
            boss.execute(f"GRANT CONNECT ON DATABASE {name} TO vectoracl_runtime, vectoracl_owner")
            bare = {
                role: make_conninfo(**{**conninfo_to_dict(dsn), "dbname": name})
                for role, dsn in (("dsn", shared.runtime), ("owner_dsn", shared.owner))
            }
            assert parts["dbname"] != name
            with pytest.raises(v.PostureError, match="CREATE EXTENSION vector"):
                Driven(kind, shared.changed(**bare)).close()
            acl = v.VectorACL(shared.changed(**bare))
            operator = acl.operator()
            with pytest.raises(v.ConfigError, match="CREATE EXTENSION vector"):
                operator.provision()
            operator.close()
            acl.close()
        finally:
            boss.execute(f"DROP DATABASE {name} WITH (FORCE)")


# --- secrets and content

CANARY = "c4n4ry"


class Watch:
    """All that was logged, and all that errors showed."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.errors: list[BaseException] = []

    def fails(self, use: Callable[[], Any], *kinds: type[BaseException]) -> None:
        with pytest.raises(kinds or v.VectorACLError) as failed:
            use()
        self.errors.append(failed.value)

    def clean(self, out: str) -> None:
        shown = [text for error in self.errors for text in everything(error)]
        shown += ["".join(traceback.format_exception(error)) for error in self.errors]
        logged = [
            f"{record.getMessage()} {record.args!r} {record.exc_info!r} {record.exc_text!r}"
            for record in self._caplog.records
        ]
        assert len(self._caplog.records) > 5, "the control: loggers are heard"
        for text in (*shown, *logged, out):
            found = text.find(CANARY)
            # The source lines of a traceback are this file's own.
            if found >= 0 and 'File "' not in text:
                pytest.fail(text[max(0, found - 300) : found + 100])
        for error in self.errors:
            for text in everything(error):
                assert CANARY not in text


def test_no_secret_and_no_content_in_errors_logs_and_reprs(
    provisioned: Any, server: Any, kind: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("psycopg", "psycopg.pool", "vectoracl", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    store = provisioned()
    alice = somebody()
    watch = Watch(caplog)
    secret, role = f"{CANARY}-password", f"r_{secrets.token_hex(4)}"
    hidden = [
        Chunk(f"c{i}", "d", f"{CANARY} text", np.ones(8), metadata={"lang": f"{CANARY}-en", "other": CANARY})
        for i in range(3)
    ]
    where = F.lang == f"{CANARY}-en"
    boss = psycopg.connect(store.bootstrap, autocommit=True)
    boss.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{secret}' IN ROLE vectoracl_runtime")
    loop = Loop() if kind == "async" else None
    try:
        with Proxy(server.host, server.port) as proxy:
            dsn = f"postgresql://{role}:{secret}@127.0.0.1:{proxy.port}/{database(store.runtime)}?sslmode=disable"
            config = store.changed(dsn=dsn, connect_timeout=0.4, pool_min=1, pool_max=1)
            with Driven(kind, config, loop=loop) as driven:
                docs = driven.scoped(alice)
                docs.upsert(hidden)
                assert len(docs.search(np.ones(8), where=where)) == 3
                for text in (repr(driven.acl), repr(driven.scoped(alice)), repr(docs.search(np.ones(8))),
                             repr(driven.acl.config), repr(docs.page()), repr(hidden), repr(driven.pool),
                             repr(driven.sink.records), repr(driven.sink.outcomes)):  # fmt: skip
                    assert CANARY not in text
                # What the server itself refuses, quoting rows and values in its own text.
                names = store.names
                for sql, params in (
                    (f"UPDATE {names.table} SET document = '' WHERE tenant_id = %s", (alice.tenant,)),
                    (f"UPDATE {names.table} SET chunk_id = 'same' WHERE tenant_id = %s", (alice.tenant,)),
                    (f"UPDATE {names.table} SET tenant_id = 'other' WHERE tenant_id = %s", (alice.tenant,)),
                    (f"UPDATE {names.table} SET content = NULL WHERE tenant_id = %s", (alice.tenant,)),
                    ("SELECT %s::int4", (f"{CANARY} number",)),
                    ("SELECT %s::jsonb", (f'{{"{CANARY}": ',)),
                    (f"SELECT '{CANARY}' FROM nowhere", ()),
                    (f"SELECT '{CANARY}", ()),
                    ("SELECT %s::text", (f"{CANARY}\0",)),
                    ("SELECT %s, %s", (CANARY,)),
                    (f"SELECT pg_sleep(5), '{CANARY}'", ()),
                ):
                    settings = (("vectoracl.tenant", alice.tenant),)
                    request = Transaction(alice.tenant, (Statement(sql, params),), settings, read_only=False)
                    watch.fails(lambda one=request: driven.perform(one, 0.3), v.StoreError)
                # Refused by us, and denied.
                watch.fails(lambda: docs.upsert([Chunk("c", "d", CANARY, [1.0])]))
                watch.fails(lambda: docs.upsert([Chunk("c", "d", CANARY, np.ones(8), metadata={"year": CANARY})]))
                watch.fails(lambda: docs.upsert([Chunk("c", "d", f"{CANARY}\0", np.ones(8))]))
                watch.fails(lambda: docs.search(np.ones(8), where=F.year == CANARY))
                watch.fails(lambda: docs.search(CANARY))
                watch.fails(lambda: docs.narrow(F.year >= 2020).upsert(hidden), v.DeniedError)
                # Time, and the network.
                with psycopg.connect(store.owner) as blocker:
                    blocker.execute(f"LOCK TABLE {names.table} IN ACCESS EXCLUSIVE MODE")
                    watch.fails(lambda: docs.search(np.ones(8), where=where, timeout=0.2), v.StoreError)
                    watch.fails(lambda: docs.upsert(hidden, timeout=0.2), v.StoreError)
                    blocker.rollback()
                proxy.cut_after("client", 700)
                watch.fails(lambda: docs.upsert(hidden), v.StoreError)
                watch.fails(lambda: docs.load(iter(hidden), batch=2), v.StoreError)
                proxy.heal()
                wait_for(lambda: _tried(docs.count))
                proxy.cut_after("server", 0, silently=True)
                watch.fails(lambda: docs.search(np.ones(8), where=where, timeout=0.1), v.StoreError)
                proxy.heal()
                wait_for(lambda: _tried(docs.count))
                # The password is changed under way, so that the pool cannot reconnect.
                boss.execute(f"ALTER ROLE {role} PASSWORD 'another'")
                proxy.cut()
                watch.fails(lambda: docs.search(np.ones(8), where=where), v.StoreError)
                watch.fails(lambda: docs.upsert(hidden), v.StoreError)
            watch.fails(docs.count, v.ClosedError)
        # First contact: wrong password, dead proxy, and connection strings that are none.
        for wrong in (
            dsn,
            dsn.replace(f":{proxy.port}/", f":{server.port}/"),
            f"{role}:{secret}@127.0.0.1/db",
            f"postgresql://{role}:{secret}@127.0.0.1:notaport/db",
            f"postgresql://{role}:{secret}@127.0.0.1:1/db?{CANARY}=1",
            f"host=127.0.0.1 port=1 user={role} password='{secret}",
            f"host=127.0.0.1 port=1 user={role} password={secret} nonsense",
            f"postgresql://{role}:{secret}%zz@127.0.0.1:1/db",
            f"postgresql://{role}:{secret}@[::1/db",
        ):
            config = store.changed(dsn=wrong, connect_timeout=0.4)
            watch.fails(lambda config=config: Driven(kind, config, loop=loop).close(), v.VectorACLError)
            opened = v.VectorACL(store.changed(owner_dsn=wrong, connect_timeout=0.4))
            watch.fails(lambda opened=opened: opened.operator().tenants(), v.VectorACLError)
            opened.close()
        watch.fails(lambda: v.connect({**store.config, "stores": {"main": {"adapter": "pgvector", "dsn": [secret]}}}))
        watch.fails(lambda: v.connect(store.changed(dsn=dsn, password=secret)))
        watch.fails(lambda: v.connect(store.changed(dsn=dsn, dimension=secret)))
    finally:
        if loop is not None:
            loop.close()
        boss.execute(f"DROP ROLE {role}")
        boss.close()
    watch.clean("".join(capsys.readouterr()))


def test_with_debug_errors_the_clients_error_is_the_cause(shared: Any, kind: str) -> None:
    with Driven(kind, {**shared.config, "debug_errors": True}) as driven:
        with pytest.raises(v.StoreError) as failed:
            driven.perform(Transaction("t", (Statement("SELECT * FROM never"),), (("vectoracl.tenant", "t"),)))
        assert isinstance(failed.value.__cause__, psycopg.errors.UndefinedTable)
