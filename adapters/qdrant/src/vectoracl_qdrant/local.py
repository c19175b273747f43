"""The client's local mode: one client for each place in this process, behind one lock, for sync and async callers.

It is a Python re-implementation for a start without a server: exact, and it enforces nothing. It is not thread-safe,
and a folder is locked by the one client that opened it, so all ports of a process share it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock

from qdrant_client import QdrantClient

from vectoracl.errors import StoreError
from vectoracl_qdrant.config import QdrantConfig

_OPEN: dict[str, Local] = {}
_OPENING = RLock()


@dataclass(slots=True)
class Local:
    """A shared local client; every call happens under `lock`."""

    key: str
    client: QdrantClient
    users: int = 0
    pid: int = field(default_factory=os.getpid)
    lock: RLock = field(default_factory=RLock)

    def release(self) -> None:
        """Let go of it; the last user closes it."""
        with _OPENING:
            self.users -= 1
            if self.users > 0:
                return
            if _OPEN.get(self.key) is self:
                del _OPEN[self.key]
            if self.pid == os.getpid():
                with self.lock:
                    self.client.close()


def key_of(config: QdrantConfig, base: Path) -> str:
    """Return what names the place; a new one for a store in memory that has no name."""
    if config.path is not None:
        return f"path:{(base / config.path).resolve()}"
    return f"memory:{config.name}" if config.name is not None else f"memory-of-its-own:{uuid.uuid4()}"


def acquire(key: str) -> Local:
    """Return the client of *key*, opened at first use. Raises: StoreError if another process holds the folder."""
    with _OPENING:
        local = _OPEN.get(key)
        if local is None or local.pid != os.getpid():
            local = _OPEN[key] = Local(key, _open(key))
        local.users += 1
        return local


def _open(key: str) -> QdrantClient:
    kind, _, place = key.partition(":")
    if kind != "path":
        return QdrantClient(":memory:")
    failed = None
    try:
        client = QdrantClient(path=place)
        hasten(client)
        return client
    except Exception as error:  # noqa: BLE001 - RuntimeError or what the file system says; the text names the folder
        failed = type(error).__name__
    raise StoreError(
        f"The folder of the local store cannot be opened ({failed}): one process at a time may use it.",
        code="unavailable",
        adapter="qdrant",
        sent="no",
    )


def hasten(client: QdrantClient) -> None:
    """Let SQLite, in which local mode keeps its points, write ahead instead of waiting for the disk at every point.

    The client commits each point by itself, which took 15 ms each where the disk is slow. A crash of the process loses
    nothing and one of the machine the last points, but never the file. Nothing is done where the client is built
    otherwise: it is then only slow.
    """
    collections = getattr(getattr(client, "_client", None), "collections", {})
    for collection in collections.values():
        connection = getattr(getattr(collection, "storage", None), "storage", None)
        if isinstance(connection, sqlite3.Connection):
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
