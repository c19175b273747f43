"""The cluster of an embedded server: creates, starts, pings and stops it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from vectoracl.errors import ConfigError, StoreError
from vectoracl_pgvector.embedded.folder import Folder, Run
from vectoracl_pgvector.embedded.identity import Identity, identity_for
from vectoracl_pgvector.embedded.programs import Programs, programs_for

_READY_SECONDS = 120.0
# The maximum length of a socket's path is 107 bytes on Linux, 103 on macOS.
_SOCKET_FOLDER_BYTES = 103 - len("/.s.PGSQL.65535")
_SOCKET_FOLDER = re.compile(r"/[A-Za-z0-9_./-]*\Z")
_SETTING = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?\Z")

# Durability keeps PostgreSQL's defaults. The log must not contain rows, so statements and details are not logged.
_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "shared_buffers": "256MB",
        "maintenance_work_mem": "256MB",
        "max_connections": "100",
        "password_encryption": "scram-sha-256",
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_timezone": "UTC",
        "timezone": "UTC",
        "cluster_name": "vectoracl",
    }
)
_OURS = frozenset(
    {
        "config_file",
        "data_directory",
        "external_pid_file",
        "hba_file",
        "ident_file",
        "listen_addresses",
        "logging_collector",
        "password_encryption",
        "port",
        "unix_socket_directories",
        "unix_socket_group",
        "unix_socket_permissions",
    }
)


def check(settings: Mapping[str, str]) -> None:
    """Refuse settings that are malformed or would weaken the isolation that `start` promises. Raises: ConfigError."""
    for name, value in settings.items():
        if not _SETTING.match(name) or name in _OURS or any(ord(character) < 32 for character in value):
            raise ConfigError("A setting of the embedded server is malformed, or must not be set by the caller.")


def check_version(folder: Folder, postgres: int) -> None:
    """Refuse to start data of another major version, which PostgreSQL cannot read. Raises: ConfigError."""
    with suppress(FileNotFoundError):
        version = (folder.cluster / "PG_VERSION").read_text("ascii").strip()
        if version != str(postgres):
            raise ConfigError(
                f"The embedded server's data belongs to PostgreSQL {version}: start it with postgres={version}, or "
                "dump it and load it into a new folder."
            )


def _is_alive(folder: Folder) -> bool:
    if sys.platform == "win32":
        run = folder.run()
        return run is not None and _answers(run)
    return folder.has_server()


def _answers(run: Run) -> bool:
    conninfo = make_conninfo(
        host=run.socket_dir or run.host,
        port=run.port,
        user="vectoracl_bootstrap",  # without it libpq looks up the caller's account, which may not exist
        dbname="postgres",
        connect_timeout=5,
    )
    return PGconn.ping(conninfo.encode()) == Ping.OK


def running(folder: Folder) -> Run | None:
    """Return the running server once it answers, or None. Waits for a server that is starting or stopping."""
    until = time.monotonic() + _READY_SECONDS
    while _is_alive(folder):
        run = folder.run()
        if run is not None and _answers(run):
            return run
        if time.monotonic() > until:
            raise _failure("The embedded PostgreSQL runs but does not answer", folder)
        time.sleep(0.02)
    return None


def _failure(what: str, folder: Folder) -> StoreError:
    text = ""
    with suppress(OSError):
        text = folder.log.read_text("utf-8", errors="replace")
    lines = [line for line in text.splitlines() if "FATAL:" in line and "starting up" not in line]
    fatal = [line.partition("FATAL:")[2].strip() for line in lines]
    why = f": {fatal[-1]}" if fatal else ""
    return StoreError(f"{what}{why}. Its log is {folder.log}.", code="embedded", adapter="pgvector", sent="no")


def halt(folder: Folder, mode: str) -> None:
    """Stop a running server, and wait until all of its processes have ended. Needs the folder's lock."""
    if not _is_alive(folder):
        return
    identity = identity_for(folder.cluster)
    major = int((folder.cluster / "PG_VERSION").read_text("ascii"))
    arguments = ("-D", identity.folder(folder.cluster), "-m", mode, "-w", "-t", "60", "stop")
    try:
        programs_for(major, identity).run("pg_ctl", *arguments, cwd=folder.cluster, timeout=90)
    except StoreError:
        if _is_alive(folder):  # otherwise it was stopping by itself
            raise
    until = time.monotonic() + 30
    while _is_alive(folder):
        if time.monotonic() > until:
            raise _failure("The embedded PostgreSQL did not stop", folder)
        time.sleep(0.01)
    folder.sweep()


def launch(folder: Folder, postgres: int, settings: Mapping[str, str], *, tcp: bool) -> Run:
    """Start the server, which must not be running, and wait until it answers. Needs the folder's lock."""
    folder.sweep()
    identity = identity_for(folder.cluster)
    programs = programs_for(postgres, identity)
    if not folder.cluster.exists():
        _initialise(folder, programs)
    _clear_pid_files(folder)
    for last in (False, False, True):
        run = _configure(folder, programs, settings, tcp=tcp)
        lock = folder.server_lock()
        try:
            if not lock.take():
                raise _failure("The embedded PostgreSQL was started by another process", folder)
            arguments = ("-D", identity.folder(folder.cluster), "-l", folder.log.name, "-W", "start")
            programs.run("pg_ctl", *arguments, cwd=folder.cluster, timeout=60, pass_fds=(lock.descriptor,))
        finally:
            lock.close()
        if running(folder) is not None:
            return run
        if last or not run.host:  # only a free port that was taken in the meantime is worth a second attempt
            break
    folder.sweep()
    raise _failure("The embedded PostgreSQL did not start", folder)


def _initialise(folder: Folder, programs: Programs) -> None:
    """Create the cluster in a staging folder and move it, so that it exists completely or not at all."""
    password = folder.password("bootstrap", make=True)
    stage = folder.stage()
    try:
        (stage / "cluster").mkdir(mode=0o700)
        descriptor = os.open(stage / "password", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password)
        locale = ["--locale=C"]
        if int(programs.version.split(".")[0]) >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        programs.initdb(
            stage,
            "--username=vectoracl_bootstrap",
            "--auth-local=scram-sha-256",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--data-checksums",
            "--no-instructions",
            *locale,
        )
        with (stage / "cluster" / "postgresql.conf").open("a") as file:
            file.write("\ninclude 'vectoracl.conf'\n")
        (stage / "cluster").rename(folder.cluster)
    finally:
        _remove(stage)


def _remove(stage: Path) -> None:
    """Remove *stage*; an interrupted initdb and its children may still write to it, or remove it themselves."""
    for _ in range(40):
        shutil.rmtree(stage, ignore_errors=True)
        if not stage.exists():
            return
        time.sleep(0.05)


def _configure(folder: Folder, programs: Programs, settings: Mapping[str, str], *, tcp: bool) -> Run:
    """Write the server's configuration, and record its connection parameters, before it starts."""
    unix = sys.platform != "win32"
    temporary = None
    socket_folder = str(folder.cluster)
    if unix and not (len(os.fsencode(socket_folder)) <= _SOCKET_FOLDER_BYTES and _SOCKET_FOLDER.match(socket_folder)):
        socket_folder = temporary = _short_folder(programs.identity)
    host = "127.0.0.1" if tcp or not unix else ""
    run = Run(
        version=programs.version,
        host=host,
        port=_free_port() if host else 5432,
        socket_dir=socket_folder if unix else None,
        temporary=temporary,
        settings=dict(settings),
    )
    server_side = socket_folder if temporary else programs.identity.folder(folder.cluster)
    values = dict(_SETTINGS) | _memory() | dict(settings)
    values |= {"listen_addresses": host, "port": str(run.port)}
    if unix:
        values |= {"unix_socket_directories": server_side, "unix_socket_permissions": "0700"}
    text = "".join(f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in values.items())
    half = folder.cluster / "vectoracl.conf.tmp"
    half.unlink(missing_ok=True)
    with half.open("x") as file:
        file.write(text)
    half.chmod(0o600)
    programs.identity.give(half)
    half.replace(folder.cluster / "vectoracl.conf")
    with suppress(FileNotFoundError):
        folder.log.replace(folder.log.with_suffix(".log.1"))
    folder.record(run)
    return run


def _memory() -> dict[str, str]:
    """Return settings that keep shared memory in files if /dev/shm is too small for an index build."""
    if sys.platform != "linux":
        return {}
    try:
        shm = os.statvfs("/dev/shm")  # noqa: S108 - only its size is read
    except OSError:
        return {"dynamic_shared_memory_type": "mmap"}
    return {"dynamic_shared_memory_type": "mmap"} if shm.f_bavail * shm.f_frsize < 512_000_000 else {}


def _short_folder(identity: Identity) -> str:
    """Create a folder with a short path for the socket, which the server's id can reach."""
    base = tempfile.gettempdir()
    if identity.uid is not None or len(os.fsencode(base)) > 60 or not _SOCKET_FOLDER.match(base):
        base = "/tmp"  # noqa: S108 - mkdtemp creates a folder of mode 0700 with an unpredictable name
    folder = Path(tempfile.mkdtemp(dir=base, prefix="vectoracl-"))
    identity.give(folder)
    return str(folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def _clear_pid_files(folder: Folder) -> None:
    """Remove stale pid files (`postmaster.pid`, the socket's lock) that name another process.

    PostgreSQL removes these files itself if the process is gone. It refuses to start if the number belongs to another
    process, as after a reboot, or to a dead server that was not reaped, as in a container without an init. The lock
    shows that no server that we started is running; one that was started by hand is left unchanged.
    """
    for path in (folder.cluster / "postmaster.pid", *folder.cluster.glob(".s.PGSQL.*.lock")):
        with suppress(OSError, ValueError):
            pid = int(path.read_text("ascii", errors="replace").partition("\n")[0])
            if not _serves(Path("/proc") / str(pid), folder.cluster):
                path.unlink()


def _serves(process: Path, cluster: Path) -> bool:
    """Return whether *process*, a folder of /proc, is a running server of *cluster*. Raises: OSError if hidden."""
    state = (process / "stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()[0]
    command = (process / "comm").read_text("utf-8", errors="replace").strip()
    return state not in {"Z", "X"} and command == "postgres" and (process / "cwd").samefile(cluster)
