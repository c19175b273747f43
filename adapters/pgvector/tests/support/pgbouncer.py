"""A real PgBouncer in front of an embedded server.

PgBouncer refuses to run as root, so root's runs under the id that the embedded server runs under. It logs in to the
server with the same role and password as its client did with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg.pq import PGconn, Ping

from vectoracl_pgvector.embedded.folder import ROLES, Folder
from vectoracl_pgvector.embedded.identity import identity_for
from vectoracl_pgvector.embedded.server import EmbeddedServer

from pgvector_support.processes import begin, end


@dataclass(frozen=True, slots=True)
class PgBouncer:
    """A running PgBouncer: `mode` is "session", "transaction" or "statement"."""

    server: EmbeddedServer
    port: int
    mode: str
    pid: int
    log: Path

    def dsn(self, role: str, dbname: str = "vectoracl") -> str:
        """Return the connection URI of *role* through this PgBouncer."""
        return f"postgresql://vectoracl_{role}:{Folder(self.server.data).password(role)}@127.0.0.1:{self.port}/{dbname}"


def binary() -> str:
    """Return the path of PgBouncer; skip the test without it, or fail if servers are required."""
    found = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        if os.environ.get("VECTORACL_REQUIRE_SERVERS") == "1":
            pytest.fail("PgBouncer is required and not installed")
        pytest.skip("PgBouncer is not installed")
    return found


@contextmanager
def start_pgbouncer(server: EmbeddedServer, mode: str = "transaction", **settings: str) -> Iterator[PgBouncer]:
    """Start PgBouncer on a free port of 127.0.0.1. *server* must listen on TCP. *settings* go into its [pgbouncer]."""
    assert server.host, "start the server with tcp=True"
    program = binary()
    identity = identity_for(Folder(server.data).cluster)
    folder = Path(tempfile.mkdtemp(prefix="vectoracl-pgbouncer-", dir="/tmp"))
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(port),
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": "users.txt",
            "logfile": "pgbouncer.log",
            "pool_mode": mode,
            "max_client_conn": "200",
            "default_pool_size": "2",
            "server_round_robin": "1",
            "admin_users": "vectoracl_bootstrap",
            **settings,
        }
        lines = ["[databases]", f"* = host=127.0.0.1 port={server.port}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in options.items()]
        passwords = Folder(server.data)
        users = [f'"vectoracl_{role}" "{passwords.password(role)}"' for role in ROLES]
        for name, content in (("pgbouncer.ini", lines), ("users.txt", users)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text("\n".join(content) + "\n")
            identity.give(folder / name)
        identity.give(folder)
        process = begin([program, "pgbouncer.ini"], folder, identity)
        try:
            _wait(process, port, folder / "pgbouncer.log")
            yield PgBouncer(server, port, mode, process.pid, folder / "pgbouncer.log")
        finally:
            end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 15
    where = f"host=127.0.0.1 port={port} dbname=vectoracl user=vectoracl_runtime connect_timeout=2".encode()
    while PGconn.ping(where) != Ping.OK:
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail("PgBouncer did not start: " + (log.read_text() if log.exists() else "no log"))
        time.sleep(0.02)
