"""The client's local mode: one client per folder or named memory store in this process, behind one lock.

Local mode is a Python re-implementation for a first try without a server: it is exact, and enforces nothing. It is not
thread-safe, and a folder is locked by the one client that opened it, so all ports of a process, sync and async, share
that client.
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
        """Make new files of the folder accessible to this user only. Raises: OSError."""
        kind, _, folder = self.key.partition(":")
        if kind == "path":
            private(folder)

    def release(self) -> None:
        """Release the client; the last user closes it."""
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
    """Return the key of the store's local client; a new one for a store in memory that has no name."""
    if config.path is not None:
        folder = base / config.path
        link = next((one for one in (folder, *folder.parents) if one.is_symlink()), None)
        if link is None or (link != folder and link.exists()) or _leads_to_a_store(folder):
            return f"path:{folder.resolve()}"
        return f"path:{folder.absolute()}"  # it is refused when it is opened
    return f"memory:{config.name}" if config.name is not None else f"memory-of-its-own:{uuid.uuid4()}"


def _leads_to_a_store(link: Path) -> bool:
    """Return whether this user made *link*, and it leads to an existing store."""
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
    kind, _, folder = key.partition(":")
    if kind != "path":
        return QdrantClient(":memory:")
    failed = None
    try:
        _prepare(Path(folder))
        client = QdrantClient(path=folder)
        enable_wal(client)
        private(folder)
        return client
    except OSError as error:
        raise ConfigError(f"The folder of the local store cannot be used: {error.strerror}.") from None
    except Exception as error:  # noqa: BLE001 - RuntimeError, or one of the file system; its text names the folder
        failed = type(error).__name__
    raise StoreError(
        f"The folder of the local store cannot be opened ({failed}): only one process at a time can use it.",
        code="unavailable",
        adapter="qdrant",
        sent="no",
    )


def _prepare(folder: Path) -> None:
    """Create *folder* and the client's first files in it, accessible to this user only.

    The client would make them readable by all, and unpickles the points that it finds: files that other users could
    have written are refused before they are read. Raises: OSError.
    """
    take_folder(folder, _ENTRIES.__contains__)
    for name, empty in (("meta.json", b'{"collections": {}, "aliases": {}}'), (".lock", b"tmp lock file")):
        with contextlib.suppress(FileExistsError):
            write_new(folder / name, empty)
    private(str(folder))


def private(folder: str) -> None:
    """Make the client's files in *folder* accessible to this user only.

    Raises: OSError if one of them belongs to another user.
    """
    for name in _ENTRIES:
        with contextlib.suppress(FileNotFoundError):
            close_to_others(Path(folder) / name)


def enable_wal(client: QdrantClient) -> None:
    """Enable the write-ahead log of SQLite, in which local mode keeps its points.

    The client commits each point separately, which took 15 ms per point on a slow disk. With the log, a crash of the
    process loses nothing, and a crash of the machine can lose the last points but never the file. If the client has
    another structure than expected, nothing is done: it is then only slow.
    """
    collections = getattr(getattr(client, "_client", None), "collections", {})
    for collection in collections.values():
        connection = getattr(getattr(collection, "storage", None), "storage", None)
        if isinstance(connection, sqlite3.Connection):
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
