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

_ORPHAN = 10.0  # seconds; without its files an initdb ends much sooner

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
    """Close the locks in a forked child: they are the parent's, who must be able to let go of them."""
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
        """Unlock and close. Unlocks also what a process that inherited the lock would keep."""
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
    """How the server was started: what it listens on, and the settings it was given.

    `host` is "" where it does not listen on TCP; `socket_dir` is None where there are no unix sockets; `temporary`
    is the folder that was made for the socket because the cluster's path is too long for one.
    """

    version: str
    host: str
    port: int
    socket_dir: str | None
    temporary: str | None = None
    settings: dict[str, str] = field(default_factory=dict)


def _remove(folder: Path) -> None:
    """Remove *folder*, in which an initdb whose maker was killed may still write, for as long as it takes it to end."""
    until = time.monotonic() + _ORPHAN
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists() or time.monotonic() > until:
            return  # what is left then, the next start removes
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
        """What the server says; never the text of a statement."""
        return self.cluster / "server.log"

    @without_context
    def prepare(self) -> None:
        """Create the folder, or check that an existing one is safe to use. Raises: ConfigError."""
        if self.path.is_file() and not self.path.is_symlink():
            raise ConfigError("The embedded server's folder is a file.")
        if sys.platform != "win32" and self.path.is_dir() and self.path.stat().st_mode & 0o002:
            raise ConfigError("All users can write to the embedded server's folder: name a folder that only it uses.")
        try:
            # As root without /proc, the server's id has to walk through.
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
        """Hold the folder's lock. Raises: StoreError if somebody else holds it for three minutes."""
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
        """Return the lock that a living server holds, not taken yet."""
        return Lock(self.path / "server.lock")

    def has_server(self) -> bool:
        """Return whether a process of the server lives. Not on Windows, where the lock cannot be handed down."""
        if not (self.path / "server.lock").exists():
            return False
        lock = self.server_lock()
        if not lock.take():
            lock.close()
            return True
        lock.drop()
        return False

    def users(self) -> int:
        """Count the living processes that use the server, and forget the dead ones. Needs the folder's lock."""
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
        """Register this process as a user. Needs the folder's lock; dropping the result ends the use."""
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
        """Return how the server was started last."""
        content = self._read(self.path / "run.json")
        try:
            return None if content is None else Run(**json.loads(content))
        except (TypeError, ValueError):
            raise ConfigError(
                "The embedded server's file run.json is damaged: stop the server and remove it."
            ) from None

    def record(self, run: Run) -> None:
        """Keep how the server is about to be started."""
        self._write(self.path / "run.json", json.dumps(asdict(run)))

    @property
    def provisioned(self) -> bool:
        """Whether the roles and the database are there."""
        return (self.path / "provisioned").exists()

    def set_provisioned(self) -> None:
        """Say that the roles and the database are there."""
        self._write(self.path / "provisioned", "1")

    def sweep(self) -> None:
        """Remove what an interrupted start or a killed server left. Needs the folder's lock, and no living server."""
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
        """Make the folder for a cluster in the making."""
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
        """Write a file of mode 0600 that is there whole or not at all."""
        try:
            replace_atomically(path, text.encode())
        except OSError as error:
            raise _unusable(path, error) from None
