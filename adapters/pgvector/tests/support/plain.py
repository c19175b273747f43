"""Servers as an administrator would install them, with nothing of ours in them: the wheel's 16 and 18, Debian's own 15.

Debian 12 has no package of pgvector; the 15 is used where somebody has built the extension for it, else skipped.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import PGconn, Ping

from vectoracl_pgvector.embedded.identity import identity_for
from vectoracl_pgvector.embedded.programs import Programs, programs_for

from pgvector_support.processes import begin, end

DEBIAN = Path("/usr/lib/postgresql/15/bin")
_DEBIAN_VECTOR = Path("/usr/share/postgresql/15/extension/vector.control")
KINDS = ("debian 15", "wheel 16", "wheel 18")


@dataclass(frozen=True, slots=True)
class Plain:
    """A running server with password logins over TCP; `boss` is its superuser."""

    kind: str
    port: int
    programs: Path
    secret: str

    def dsn(self, database: str, user: str = "boss", password: str = "") -> str:
        """Return a connection string of *user*."""
        return f"postgresql://{user}:{password or self.secret}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self, *, owner: str = "boss", extension: bool = True) -> Iterator[str]:
        """Make an empty database, with the extension or without."""
        name = f"d_{secrets.token_hex(5)}"
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as boss:
            boss.execute(f'CREATE DATABASE {name} OWNER "{owner}"')
            if extension:
                with psycopg.connect(self.dsn(name), autocommit=True) as there:
                    there.execute("CREATE EXTENSION vector")
            try:
                yield name
            finally:
                boss.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def start_plain(kind: str) -> Iterator[Plain]:
    """Start a fresh cluster of *kind*, and throw it away at the end."""
    stage = Path(tempfile.mkdtemp(prefix="vectoracl-plain-", dir="/tmp"))
    try:
        identity = identity_for(stage / "cluster")
        if kind.startswith("debian"):
            if not (DEBIAN / "postgres").exists() or not _DEBIAN_VECTOR.exists():
                pytest.skip("Debian's PostgreSQL 15 with pgvector is not installed")
            programs = Programs(DEBIAN, identity, "15")
        else:
            programs = programs_for(int(kind.split()[1]), identity)
        (stage / "cluster").mkdir(mode=0o700)
        secret = secrets.token_urlsafe(12)
        (stage / "password").write_text(secret + "\n")
        programs.initdb(stage, "-U", "boss", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        options = {"port": str(port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        command = [str(programs.folder / "postgres"), "-D", ".", *(f"--{name}={one}" for name, one in options.items())]
        process = begin(command, stage / "cluster", identity)
        try:
            until = time.monotonic() + 60
            where = f"host=127.0.0.1 port={port} dbname=postgres user=boss connect_timeout=2".encode()
            while PGconn.ping(where) != Ping.OK:
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"PostgreSQL ({kind}) did not start")
                time.sleep(0.05)
            yield Plain(kind, port, programs.folder, secret)
        finally:
            end(process)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
