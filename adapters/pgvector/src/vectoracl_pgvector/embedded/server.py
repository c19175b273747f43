"""An embedded PostgreSQL with pgvector: started at first use, shared by processes, stopped by the last one.

`start` creates the cluster if needed, attaches to a server that already runs, and registers this process as a user of
it. `release` ends the use, and so does the end of the process, however it ends. The last user stops the server. A
killed process cannot stop it: the server continues to run, and the next start attaches to it.

No signal handler is installed. A process that a signal ends without Python's exit handlers leaves the server running,
like a killed one.

The server is reached by a unix socket that only its user id (and root) can open, with a SCRAM password for each of its
three roles. It listens on TCP, on 127.0.0.1 only, if requested or if there are no unix sockets.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import quote

import psycopg

from vectoracl.errors import ConfigError, StoreError, VectorACLError, without_context
from vectoracl_pgvector.embedded.cluster import check, check_version, halt, launch, running
from vectoracl_pgvector.embedded.folder import Folder, Lock, Run
from vectoracl_pgvector.embedded.roles import create_database, create_roles

Role = Literal["bootstrap", "owner", "runtime"]

DATABASE = "vectoracl"


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server. It contains no password, so neither does its repr.

    Attributes:
        data: The folder of the configuration.
        socket_dir: The folder of the unix socket; None on systems without unix sockets.
        host: "127.0.0.1" if the server listens on TCP, else "".
        port: The port, for both.
        version: The version, for example "18.4".
    """

    data: Path
    socket_dir: Path | None
    host: str
    port: int
    version: str

    def dsn(self, role: Role, dbname: str = DATABASE, *, tcp: bool = False) -> str:
        """Return the connection URI of *role*, including its password; with *tcp*, through TCP.

        Raises:
            ConfigError: The password's file is missing, or the server does not listen on TCP.
        """
        if tcp and not self.host:
            raise ConfigError("The embedded server does not listen on TCP: start it with tcp=True.")
        credentials = f"vectoracl_{role}:{quote(Folder(self.data).password(role), safe='')}"
        database = quote(dbname, safe="")
        if tcp or self.socket_dir is None:
            return f"postgresql://{credentials}@{self.host}:{self.port}/{database}"
        return f"postgresql://{credentials}@/{database}?host={quote(str(self.socket_dir), safe='')}&port={self.port}"


class _Hold:
    """This process's use of one server: the number of starts, and the lock that registers it."""

    def __init__(self, lock: Lock) -> None:
        self.lock = lock
        self.count = 0


_holds: dict[Path, _Hold] = {}  # an entry is read and changed under its folder's lock, which also serialises threads


def _after_fork() -> None:
    """Forget the parent's uses in a forked child, which does not end them and may start its own."""
    _holds.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)


def start(
    data: Path,
    *,
    postgres: int = 18,
    settings: Mapping[str, str] = MappingProxyType({}),
    tcp: bool = False,
) -> EmbeddedServer:
    """Return the server of the folder *data*, creating and starting it if needed, and use it until `release`.

    A server that is already running with other settings is restarted if it has no users, else refused. The cluster is
    always in *data*, even if root's PostgreSQL, which runs under a separate id, cannot enter its parent folders; see
    `programs`.

    Args:
        data: The folder.
        postgres: The major version, 16 or 18.
        settings: PostgreSQL settings, for example `{"work_mem": "64MB"}`.
        tcp: Also listen on a free port of 127.0.0.1.

    Raises:
        ConfigError: The folder, the settings or the installation do not permit it.
        StoreError: PostgreSQL failed.
    """
    folder = Folder(Path(data).expanduser().resolve())
    check(settings)
    folder.prepare()
    with folder.locked():
        check_version(folder, postgres)
        run = running(folder)
        if run is not None and not _offers(run, settings, tcp=tcp):
            if folder.users():
                raise ConfigError(
                    "The embedded server is already running, and in use, with other settings: stop its users first."
                )
            halt(folder, "fast")
            run = None
        if run is None:
            run = launch(folder, postgres, settings, tcp=tcp)
        server = _server(folder, run)
        if not folder.provisioned:
            try:
                _provision(folder, server)
            except BaseException:
                if not folder.users():
                    halt(folder, "fast")
                raise
        hold = _holds.get(folder.path)
        if hold is None:
            hold = _holds[folder.path] = _Hold(folder.enter())
        hold.count += 1
    return server


def release(server: EmbeddedServer) -> None:
    """End one use of *server* by this process; the last use in any process stops it. Can be called repeatedly."""
    _leave(server.data, every=False)


def stop(data: Path, *, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
    """Stop the server of the folder *data* now, even if it is in use; its data stays. Does nothing if none is running.

    Args:
        data: The folder.
        mode: `pg_ctl`'s mode: "smart" waits for clients, "fast" ends them, "immediate" also skips the checkpoint.

    Raises:
        StoreError: The server did not stop.
    """
    folder = Folder(Path(data).expanduser().resolve())
    if not folder.cluster.exists():
        return
    with folder.locked():
        hold = _holds.pop(folder.path, None)
        if hold is not None:
            _forget(hold)
        halt(folder, mode)


def _leave(path: Path, *, every: bool) -> None:
    folder = Folder(path)
    if path not in _holds or not folder.cluster.exists():
        return
    with folder.locked():
        hold = _holds.get(path)
        if hold is None:
            return
        hold.count = 0 if every else hold.count - 1
        if hold.count > 0:
            return
        del _holds[path]
        _forget(hold)
        if not folder.users():
            halt(folder, "fast")


def _forget(hold: _Hold) -> None:
    with suppress(OSError):
        hold.lock.path.unlink(missing_ok=True)
    hold.lock.drop()


@atexit.register
def _leave_all() -> None:
    for path in list(_holds):
        with suppress(OSError, VectorACLError):
            _leave(path, every=True)


def _server(folder: Folder, run: Run) -> EmbeddedServer:
    socket_dir = None if run.socket_dir is None else Path(run.socket_dir)
    return EmbeddedServer(folder.path, socket_dir, run.host, run.port, run.version)


def _offers(run: Run, settings: Mapping[str, str], *, tcp: bool) -> bool:
    return (bool(run.host) or not tcp) and all(run.settings.get(name) == value for name, value in settings.items())


@without_context
def _provision(folder: Folder, server: EmbeddedServer) -> None:
    """Create the roles and the database. It can be interrupted anywhere and repeated."""
    try:
        with psycopg.connect(server.dsn("bootstrap", "postgres"), autocommit=True) as connection:
            create_roles(connection, lambda role: folder.password(role, make=True))
        create_database(lambda name: server.dsn("bootstrap", name), DATABASE)
    except psycopg.Error as error:
        raise StoreError(
            f"The embedded PostgreSQL could not be set up ({error.sqlstate}). Its log is {folder.log}.",
            code="embedded",
            adapter="pgvector",
            sent="unknown",
        ) from None
    folder.set_provisioned()
