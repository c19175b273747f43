"""What tests of moves share: writers whose history every read is held against, and what a move may have left."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl.errors import StoreError
from vectoracl_pgvector.names import CONSTRAINT

ACME = testing.principal("ann", "acme")
BETA = testing.principal("bob", "beta")
Rows = frozenset[tuple[str, str, str]]


def owner_of(store: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(store.owner, autocommit=True, prepare_threshold=None)


@contextmanager
def another_move(store: Any) -> Iterator[None]:
    """Hold the lock of moves, as a mover does who is alive.

    It is given back before the connection is closed: the server notices that somewhat later.
    """
    with owner_of(store) as mover:
        key = f"vectoracl-move:vectoracl:{store.pg.schema_name}.{store.pg.table}"
        mover.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (key,))
        try:
            yield
        finally:
            mover.execute("SELECT pg_advisory_unlock_all()")


def chunks(document: str, count: int, text: str = "0") -> list[Chunk]:
    rng = np.random.default_rng(len(document) * 1000 + count)
    return [Chunk(f"c{i:04}", document, text, rng.normal(size=8), metadata={"year": i}) for i in range(count)]


def fill(acl: v.VectorACL, who: v.Principal, documents: int = 5, each: int = 40) -> None:
    for number in range(documents):
        acl.scoped(who).upsert(chunks(f"d{number}", each))


def everything(acl: v.VectorACL, who: v.Principal) -> Rows:
    hits = acl.scoped(who).page(size=5000, include={"text"}).hits
    found = [(hit.document, hit.id, hit.text or "") for hit in hits]
    assert len(found) == len(set(found)), "a row was seen twice"
    return frozenset(found)


def leftovers(connection: psycopg.Connection[Any]) -> list[str]:
    """Return whatever a move made that is not a partition, its index or its key."""
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'vectoracl'::regnamespace AND relkind IN ('r', 'p') "
        "AND NOT relispartition AND relname NOT IN ('chunks', 'chunks_tenants', 'chunks_version') "
        "UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'vectoracl'::regnamespace "
        "UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal "
        "UNION ALL SELECT conname FROM pg_constraint WHERE conname = %s "
        "UNION ALL SELECT description FROM pg_description WHERE classoid = 'pg_class'::regclass "
        "AND description LIKE 'vectoracl%%' "
        "UNION ALL SELECT 'advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        (CONSTRAINT,),
    )
    return [row[0] for row in rows]


class History:
    """One writer, and the states that it made one after the other; a read must see one of those it overlapped.

    `refused` counts the writes that came in the last moment of a move that was broken off.
    """

    def __init__(self, acl: v.VectorACL, who: v.Principal, seed: int) -> None:
        self._handle = acl.scoped(who)
        self._random = random.Random(seed)
        self.states: list[Rows] = [everything(acl, who)]
        self.finished = 0
        self.version = 0
        self.refused = 0

    def write(self) -> None:
        self.version += 1
        state = set(self.states[-1])
        document = f"d{self._random.randrange(8)}"
        kind = self._random.randrange(4)
        if kind == 0:
            size = self._random.randrange(1, 40)
            state = {row for row in state if row[0] != document}
            state |= {(document, f"c{i:04}", str(self.version)) for i in range(size)}
            operation: Callable[[], object] = lambda: self._handle.replace(  # noqa: E731
                document, chunks(document, size, str(self.version))
            )
        elif kind == 1:
            state = {row for row in state if row[0] != document}
            operation = lambda: self._handle.delete(document=document)  # noqa: E731
        else:
            size = self._random.randrange(1, 40)
            new = {(document, f"c{i:04}") for i in range(size)}
            state = {row for row in state if row[:2] not in new} | {(*key, str(self.version)) for key in new}
            operation = lambda: self._handle.upsert(chunks(document, size, str(self.version)))  # noqa: E731
        self.states.append(frozenset(state))
        try:
            operation()
        except StoreError as error:
            if (error.code, error.sent) != ("moving", "no"):
                raise
            self.refused += 1
            self.states[-1] = self.states[-2]  # nothing was written, and the error says so
        self.finished += 1

    def check(self, found: Rows, first: int, last: int) -> None:
        if found not in self.states[first : last + 1]:
            closest = min(self.states[first : last + 1], key=lambda state: len(state ^ found))
            raise AssertionError(
                f"a read saw none of the states {first} to {last}: {len(found - closest)} rows too many, "
                f"{len(closest - found)} missing of {len(closest)}"
            )


class Crowd:
    """Threads that read and write until they are stopped; what they raise fails the test."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        self.rounds: dict[str, int] = {}
        self.slowest: dict[str, float] = {}

    def add(self, name: str, work: Callable[[], None]) -> None:
        def loop() -> None:
            try:
                while not self._stop.is_set():
                    start = time.perf_counter()
                    work()
                    self.slowest[name] = max(self.slowest.get(name, 0.0), time.perf_counter() - start)
                    self.rounds[name] = self.rounds.get(name, 0) + 1
            except BaseException as error:
                self.errors.append(error)

        self._threads.append(threading.Thread(target=loop, daemon=True))

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        if self.errors:
            raise self.errors[0]
