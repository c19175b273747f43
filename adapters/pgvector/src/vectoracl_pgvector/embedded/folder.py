"""The folder of an embedded server: its locks, users, passwords and start parameters.

    lock                    held while something is decided or changed
    server.lock             inherited by the server, so it is held exactly as long as one of its processes lives
    users/PID-…             one for each process that uses the server, held as long as that process lives
    password.ROLE           0600
    run.json                parameters of the last start
    provisioned             exists when the roles and the database exist
    cluster/                PostgreSQL's data folder, which belongs to the server's id
    init-…/                 a cluster in the making, removed by the next start if its maker was stopped

The kernel drops every lock (flock) with its process, so a killed process, a reused process id or a second container on
the same volume cannot confuse it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vectoracl._util.private_files import (
    make_private_folder,
    open_private,
    read_private,
    replace_atomically,
    take_folder,
)
from vectoracl.errors import ConfigError, StoreError, without_context

_ORPHAN = 10.0  # seconds to wait for an orphaned initdb to end after its files were removed

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

ROLES = ("bootstrap", "owner", "runtime")
_OWN = re.compile(
    r"lock|server\.lock|users|password\.[a-z]+|run\.json|provisioned|cluster|init-.*|.*\.tmp|\..*-.*\.new"
)
_LOCK_SECONDS = 180.0
_open_locks: set[int] = set()


def _is_own(name: str) -> bool:
    return _OWN.fullmatch(name) is not None


def _after_fork() -> None:
    """Close the locks in a forked child: they belong to the parent, which must be able to release them."""
    for descriptor in _open_locks:
        with suppress(OSError):
            os.close(descriptor)
    _open_locks.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path.name} in the embedded server's folder cannot be used: {error.strerror}.")


class Lock:
    """An exclusive lock on a file, which the kernel drops when the process ends."""

    @without_context
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise _unusable(path, error) from None
        _open_locks.add(self.descriptor)

    def take(self) -> bool:
        """Try to lock; return whether it worked."""
        try:
            if sys.platform == "win32":
                msvcrt.locking(self.descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def drop(self) -> None:
        """Unlock and close, also for processes that inherited the lock."""
        with suppress(OSError):
            if sys.platform == "win32":
                os.lseek(self.descriptor, 0, os.SEEK_SET)
                msvcrt.locking(self.descriptor, msvcrt.LK_UNLCK, 1)
            else:
                fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        self.close()

    def close(self) -> None:
        """Close without unlocking: a process that inherited the lock keeps it."""
        if self.descriptor in _open_locks:
            _open_locks.discard(self.descriptor)
            os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Run:
    """The parameters of a start: addresses and settings.

    `host` is "" if the server does not listen on TCP, and `socket_dir` is None without unix sockets. `temporary` is the
    folder that was created for the socket because the cluster's path is too long.
    """

    version: str
    host: str
    port: int
    socket_dir: str | None
    temporary: str | None = None
    settings: dict[str, str] = field(default_factory=dict)


def _remove(folder: Path) -> None:
    """Remove *folder*, waiting for an orphaned initdb that may still write to it."""
    until = time.monotonic() + _ORPHAN
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists() or time.monotonic() > until:
            return  # the next start removes the rest
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder that the configuration names."""

    path: Path

    @property
    def cluster(self) -> Path:
        """PostgreSQL's data folder."""
        return self.path / "cluster"

    @property
    def log(self) -> Path:
        """The server's log, which never contains the text of a statement."""
        return self.cluster / "server.log"

    @without_context
    def prepare(self) -> None:
        """Create the folder, or check that an existing one is safe to use. Raises: ConfigError."""
        if self.path.is_file() and not self.path.is_symlink():
            raise ConfigError("The embedded server's folder is a file.")
        if sys.platform != "win32" and self.path.is_dir() and self.path.stat().st_mode & 0o002:
            raise ConfigError("All users can write to the embedded server's folder: name a folder that only it uses.")
        try:
            # As root without /proc, the server's id has to traverse the folder.
            walked = sys.platform not in {"win32", "linux"} and os.geteuid() == 0
            take_folder(self.path, _is_own, 0o711 if walked else 0o700)
        except OSError as error:
            raise ConfigError(f"The embedded server's folder cannot be used: {error.strerror}.") from None
        if self.cluster.is_symlink():
            raise ConfigError(
                "The folder `cluster` of the embedded server is a link, which is not followed: move the whole folder, "
                "and configure its new path."
            )
        if (self.path / "PG_VERSION").exists():
            raise ConfigError("The embedded server's folder is already a PostgreSQL data folder; name another.")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock. Raises: StoreError if another process holds it for three minutes."""
        lock = Lock(self.path / "lock")
        try:
            until = time.monotonic() + _LOCK_SECONDS
            while not lock.take():
                if time.monotonic() > until:
                    raise StoreError(
                        "Another process has been starting or stopping the embedded server for three minutes.",
                        code="embedded",
                        adapter="pgvector",
                        sent="no",
                        retryable=True,
                    )
                time.sleep(0.02)
            yield
        finally:
            lock.drop()

    def server_lock(self) -> Lock:
        """Return the lock that a running server holds, not acquired yet."""
        return Lock(self.path / "server.lock")

    def has_server(self) -> bool:
        """Return whether a process of the server is running. Not on Windows, where the lock cannot be inherited."""
        if not (self.path / "server.lock").exists():
            return False
        lock = self.server_lock()
        if not lock.take():
            lock.close()
            return True
        lock.drop()
        return False

    def users(self) -> int:
        """Count the running processes that use the server, and remove dead ones. Needs the folder's lock."""
        living = 0
        for entry in (self.path / "users").glob("*"):
            lock = Lock(entry)
            if lock.take():
                entry.unlink(missing_ok=True)
                lock.drop()
            else:
                living += 1
                lock.close()
        return living

    @without_context
    def enter(self) -> Lock:
        """Register this process as a user; dropping the returned lock ends the use. Needs the folder's lock."""
        try:
            make_private_folder(self.path / "users")
        except OSError as error:
            raise _unusable(self.path / "users", error) from None
        lock = Lock(self.path / "users" / f"{os.getpid()}-{secrets.token_hex(4)}")
        lock.take()
        return lock

    def password(self, role: str, *, make: bool = False) -> str:
        """Return the password of *role* ("bootstrap", "owner", "runtime"); with *make*, generate a missing one.

        Raises: ConfigError if there is none.
        """
        path = self.path / f"password.{role}"
        content = self._read(path)
        if content is None and not make:
            raise ConfigError(
                f"The file password.{role} of the embedded server is missing: restore it, or remove the whole "
                "folder, which removes its data."
            )
        if content is None:
            content = secrets.token_urlsafe(24)
            self._write(path, content)
        return content.strip()

    @without_context
    def run(self) -> Run | None:
        """Return the parameters of the last start, or None."""
        content = self._read(self.path / "run.json")
        try:
            return None if content is None else Run(**json.loads(content))
        except (TypeError, ValueError):
            raise ConfigError(
                "The embedded server's file run.json is damaged: stop the server and remove it."
            ) from None

    def record(self, run: Run) -> None:
        """Record the parameters of the coming start."""
        self._write(self.path / "run.json", json.dumps(asdict(run)))

    @property
    def provisioned(self) -> bool:
        """Whether the roles and the database exist."""
        return (self.path / "provisioned").exists()

    def set_provisioned(self) -> None:
        """Record that the roles and the database exist."""
        self._write(self.path / "provisioned", "1")

    def sweep(self) -> None:
        """Remove leftovers of an interrupted start or a killed server. Needs the folder's lock, no running server."""
        for pattern in ("init-*", "*.tmp", ".*.new"):
            for entry in self.path.glob(pattern):
                if entry.is_dir() and not entry.is_symlink():
                    _remove(entry)
                else:
                    entry.unlink(missing_ok=True)
        run = self.run()
        if run is not None and run.temporary is not None and Path(run.temporary).name.startswith("vectoracl-"):
            shutil.rmtree(run.temporary, ignore_errors=True)

    def stage(self) -> Path:
        """Create the staging folder for a new cluster."""
        return Path(tempfile.mkdtemp(dir=self.path, prefix="init-"))

    @without_context
    def _read(self, path: Path) -> str | None:
        try:
            content = read_private(path)
        except OSError as error:
            raise _unusable(path, error) from None
        return None if content is None else content.decode()

    @without_context
    def _write(self, path: Path, text: str) -> None:
        """Write a file of mode 0600 atomically."""
        try:
            replace_atomically(path, text.encode())
        except OSError as error:
            raise _unusable(path, error) from None
