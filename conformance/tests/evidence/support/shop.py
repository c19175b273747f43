"""Databases with the same own rows beside none, some and many foreign ones, a tap in front, and the server's count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl_conformance.evidence.sessions import Recording, Window
from vectoracl_conformance.evidence.tap import Tap
from vectoracl_pgvector.embedded.server import EmbeddedServer

from pgvector_support.stores import Store

DIMENSION = 8
K = 5
OWNED = 2
LEVELS = (0, 60, 600)
OWN = "5f3c7a52-9d0e-4b57-a1a4-27b7c9a1e7d1"
FOES = ("1c9b0d7e-07fb-4b8e-8f3e-2f4d1f1c2a90", "b7a4c1d2-6a0f-4c5e-9d8b-0a1b2c3d4e5f")
CENTRE = np.ones(DIMENSION, np.float32) / np.float32(np.sqrt(DIMENSION))


def canary(tenant: str, place: int, what: str) -> str:
    return f"cnry{what}{tenant[:8]}{place:06}x"


def chunks(tenant: str, count: int, distance: float) -> list[Chunk]:
    rng = np.random.default_rng(sum(tenant.encode()))
    made = []
    for place in range(count):
        side = rng.normal(size=DIMENSION)
        side -= CENTRE * float(side @ CENTRE)
        vector = np.asarray(CENTRE + (distance + 0.0005 * place) * side / np.linalg.norm(side), np.float32)
        made.append(
            Chunk(
                canary(tenant, place, "id"),
                canary(tenant, place % 7, "doc"),
                f"text {canary(tenant, place, 'text')}",
                vector,
                metadata={"lang": canary(tenant, place, "meta")},
            )
        )
    return made


def canaries(tenant: str, count: int) -> list[str]:
    return [canary(tenant, place, what) for place in range(count) for what in ("id", "text", "meta")]


@dataclass(frozen=True)
class Level:
    """One database with `foreign` foreign rows."""

    foreign: int
    store: Store
    server: EmbeddedServer

    def dsn(self, role: str, tap: Tap | None = None) -> str:
        name = urlsplit(self.store.runtime).path.lstrip("/")
        dsn = self.server.dsn(role, name, tcp=True)
        if tap is None:
            return dsn
        parts = urlsplit(dsn)
        host, port = tap.address
        return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{host}:{port}"))

    def served(self) -> int:
        """How many sessions of this database began; all of them have to have ended."""
        name = urlsplit(self.store.runtime).path.lstrip("/")
        with psycopg.connect(self.server.dsn("bootstrap", "postgres"), autocommit=True) as connection:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (name,)).fetchone()
                assert row is not None
                if row[0] == 0:
                    break
                time.sleep(0.01)
            connection.execute("SELECT pg_stat_clear_snapshot()")
            row = connection.execute("SELECT sessions FROM pg_stat_database WHERE datname = %s", (name,)).fetchone()
            assert row is not None
            return int(row[0])

    def config(self, tap: Tap) -> dict[str, Any]:
        # A kept posture would make one run shorter than the others, if the port of an earlier tap is given out again.
        return self.store.changed(dsn=self.dsn("runtime", tap), pool_max=1, keep_posture=False)


@dataclass
class Take:
    """One recorded run of one client: the recording and the window of its one search."""

    recording: Recording
    window: Window
    hits: int


Client = Callable[[Level, Tap, "Watch"], int]


class Watch:
    """Marks the search inside a client's run."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self.window: Window | None = None

    @contextmanager
    def query(self) -> Iterator[None]:
        since = self._tap.mark()
        yield
        self.window = Window(since, self._tap.mark())


def run(level: Level, client: Client, **tap_settings: Any) -> Take:
    before = level.served()
    with Tap.tcp(level.server.host, level.server.port, **tap_settings) as tap:
        watch = Watch(tap)
        hits = client(level, tap, watch)
        assert tap.settle()
        recording = Recording(tap.sessions(), level.served() - before)
    assert watch.window is not None
    return Take(recording, watch.window, hits)


def right(level: Level, tap: Tap, watch: Watch) -> int:
    """The adapter itself."""
    with v.connect(level.config(tap)) as acl:
        handle = acl.scoped(testing.principal("alice", OWN))
        with watch.query():
            hits = handle.search(CENTRE, K)
    assert {hit.tenant for hit in hits} <= {OWN}
    return len(hits)


@pytest.fixture(scope="module")
def shop(provisioned: Callable[..., Store], server: EmbeddedServer) -> dict[int, Level]:
    """The three databases."""
    made = {}
    for foreign in LEVELS:
        store = provisioned(dimension=DIMENSION)
        with v.connect(store.config) as acl:
            acl.scoped(testing.principal("alice", OWN)).upsert(chunks(OWN, OWNED, 0.6))
            for foe in FOES if foreign else ():
                acl.scoped(testing.principal("mallory", foe)).upsert(chunks(foe, foreign // len(FOES), 0.01))
        with psycopg.connect(store.bootstrap, autocommit=True) as connection:
            # A relation that a harness wrongly declares free of tenants' data.
            connection.execute("CREATE TABLE vectoracl.digest AS SELECT tenant_id, content FROM vectoracl.chunks")
        made[foreign] = Level(foreign, store, server)
    return made
