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

from vectoracl._util.private_files import close_to_others, take_folder, write_new
from vectoracl.errors import ConfigError, StoreError, without_context
from vectoracl_qdrant.config import QdrantConfig

_ENTRIES = ("meta.json", ".lock", "collection")
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

    def keep_private(self) -> None:
        """Close to others what was made since. Raises: OSError."""
        kind, _, place = self.key.partition(":")
        if kind == "path":
            private(place)

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
        place = base / config.path
        link = next((one for one in (place, *place.parents) if one.is_symlink()), None)
        if link is None or (link != place and link.exists()) or _leads_to_a_store(place):
            return f"path:{place.resolve()}"
        return f"path:{place.absolute()}"  # it is refused when it is opened
    return f"memory:{config.name}" if config.name is not None else f"memory-of-its-own:{uuid.uuid4()}"


def _leads_to_a_store(link: Path) -> bool:
    """Whether this user made *link* to a store that is there."""
    ours = os.name != "posix" or link.lstat().st_uid == os.geteuid()
    return ours and (link / _ENTRIES[0]).is_file()


def acquire(key: str) -> Local:
    """Return the client of *key*, opened at first use. Raises: StoreError if another process holds the folder."""
    with _OPENING:
        local = _OPEN.get(key)
        if local is None or local.pid != os.getpid():
            local = _OPEN[key] = Local(key, _open(key))
        local.users += 1
        return local


@without_context
def _open(key: str) -> QdrantClient:
    kind, _, place = key.partition(":")
    if kind != "path":
        return QdrantClient(":memory:")
    failed = None
    try:
        _prepare(Path(place))
        client = QdrantClient(path=place)
        enable_wal(client)
        private(place)
        return client
    except OSError as error:
        raise ConfigError(f"The folder of the local store cannot be used: {error.strerror}.") from None
    except Exception as error:  # noqa: BLE001 - RuntimeError or what the file system says; the text names the folder
        failed = type(error).__name__
    raise StoreError(
        f"The folder of the local store cannot be opened ({failed}): one process at a time may use it.",
        code="unavailable",
        adapter="qdrant",
        sent="no",
    )


def _prepare(folder: Path) -> None:
    """Make *folder*, and what the client makes in it at the start, for this user alone.

    The client makes them readable by all, and unpickles the points that it finds: what others could have written is
    refused before it is read. Raises: OSError.
    """
    take_folder(folder, _ENTRIES.__contains__)
    for name, empty in (("meta.json", b'{"collections": {}, "aliases": {}}'), (".lock", b"tmp lock file")):
        with contextlib.suppress(FileExistsError):
            write_new(folder / name, empty)
    private(str(folder))


def private(place: str) -> None:
    """Close to others what the client made in the folder *place*. Raises: OSError if something in it is not ours."""
    for name in _ENTRIES:
        with contextlib.suppress(FileNotFoundError):
            close_to_others(Path(place) / name)


def enable_wal(client: QdrantClient) -> None:
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
