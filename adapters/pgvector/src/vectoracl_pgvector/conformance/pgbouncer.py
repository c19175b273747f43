"""The harness of the pgvector adapter behind a real PgBouncer in transaction mode: `pgvector-pgbouncer`.

Every client of the runtime role connects through it, and all clients share two server connections, so that state which
one tenant leaves behind reaches the next one. The kit's tap is in front of it; its counts are in its log.
"""

from __future__ import annotations

import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn, Ping

from vectoracl_conformance.harness import HarnessError, Needs, Server, Store
from vectoracl_pgvector.conformance.harness import PgStore, PgvectorHarness
from vectoracl_pgvector.embedded.identity import identity_for

_PATIENCE = 15.0
_ADMIN = "vectoracl_kit_pooler"
# Ends with the process that holds the other end of standard input, however that process ends.
_GUARD = '"$1" pgbouncer.ini & pooler=$!; cat >/dev/null; kill "$pooler"; wait "$pooler"'


class Pooler:
    """A running PgBouncer on a free port of 127.0.0.1 in front of one server."""

    def __init__(self, host: str, port: int, user: str, password: str, cluster: Path | None) -> None:
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise HarnessError(
                "PgBouncer is not installed: `apt-get install pgbouncer` (or brew, dnf); `vectoracl conformance "
                "pgvector` measures the adapter without it."
            )
        self._password = secrets.token_urlsafe(24)
        self._folder = Path(tempfile.mkdtemp(prefix="vectoracl-pooler-", dir="/tmp"))
        self._log = self._folder / "pgbouncer.log"
        self.port = _free()
        identity = identity_for(cluster if cluster is not None else self._folder / "none")
        options = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": "users.txt",
            "logfile": "pgbouncer.log",
            "pool_mode": "transaction",
            "max_client_conn": 400,
            "default_pool_size": 2,
            "server_round_robin": 1,
            "admin_users": _ADMIN,
        }
        lines = ["[databases]", f"* = host={host} port={port}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in options.items()]
        users = [f'"{_escaped(name)}" "{_escaped(one)}"' for name, one in ((user, password), (_ADMIN, self._password))]
        for name, content in (("pgbouncer.ini", lines), ("users.txt", users)):
            (self._folder / name).touch(mode=0o600)
            (self._folder / name).write_text("\n".join(content) + "\n", encoding="utf-8")
            identity.give(self._folder / name)
        identity.give(self._folder)
        self._process = subprocess.Popen(  # noqa: S603 - our own line, and PgBouncer
            ["/bin/sh", "-c", _GUARD, "sh", program],
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **identity.arguments(),
        )
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + _PATIENCE
        where = f"host=127.0.0.1 port={self.port} dbname=pgbouncer user={_ADMIN} connect_timeout=2".encode()
        while PGconn.ping(where) != Ping.OK:
            if time.monotonic() > until:
                log = self._text()
                self.close()
                raise HarnessError(f"PgBouncer did not start: {log[-300:] or 'it left no log'}")
            time.sleep(0.02)

    def _text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def version(self) -> str:
        """Return the version that it reports."""
        with self._console() as console:
            row = console.execute("SHOW VERSION").fetchone()
        return str(row[0]) if row else "PgBouncer"

    def _console(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            f"host=127.0.0.1 port={self.port} dbname=pgbouncer user={_ADMIN}",
            password=self._password,
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=psycopg.ClientCursor,
        )

    def drop(self, name: str) -> None:
        """Close its connections to the database *name*, so that the server writes their counts."""
        with self._console() as console:
            for command in ("KILL", "RESUME"):
                try:
                    console.execute(sql.SQL(command + " {}").format(sql.Identifier(name)))
                except psycopg.errors.ProtocolViolation:  # it does not know this database yet
                    return

    def clients(self, name: str) -> int:
        """Count the clients that have logged in to the database *name*."""
        return len(re.findall(rf" C-\S+: {re.escape(name)}/\S+ login attempt:", self._text()))

    def servers(self, name: str) -> int:
        """Count the connections that it has opened to the database *name* of the server."""
        return len(re.findall(rf" S-\S+: {re.escape(name)}/\S+ new connection to server", self._text()))

    def close(self) -> None:
        """Stop PgBouncer and remove its files."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _escaped(text: str) -> str:
    return text.replace('"', '""')


class PooledStore(PgStore):
    """A database whose runtime role connects through the pooler."""

    def __init__(self, needs: Needs, dsn: Callable[[str, str], str], pooler: Pooler) -> None:
        self._pooler = pooler
        super().__init__(needs, dsn)

    def alone(self, connection: psycopg.Connection[Any]) -> None:
        """End the pooler's connections first, so that their counts are written."""
        self._pooler.drop(self._name)
        super().alone(connection)

    def _gone(self, connection: psycopg.Connection[Any]) -> None:
        self._pooler.drop(self._name)
        super()._gone(connection)

    def _served(self) -> int:
        """Count the pooler's clients, and every session of the server that the pooler did not open."""
        sessions = super()._served()
        return self._pooler.clients(self._name) + sessions - self._pooler.servers(self._name)


class PooledHarness(PgvectorHarness):
    """PostgreSQL with pgvector behind PgBouncer."""

    store = "PostgreSQL behind PgBouncer in transaction mode"

    def __init__(self) -> None:
        super().__init__()
        self._pooler: Pooler | None = None

    def _through(self) -> Pooler:
        if self._pooler is None:
            parts = conninfo_to_dict(super()._dsn("tcp", "postgres"))
            self._pooler = Pooler(
                str(parts["host"]),
                int(str(parts.get("port") or 5432)),
                str(parts["user"]),
                str(parts.get("password") or ""),
                None if self._folder is None else self._folder / "server" / "cluster",
            )
        return self._pooler

    def _dsn(self, role: str, name: str) -> str:
        if role not in ("runtime", "tcp"):
            return super()._dsn(role, name)
        port = self._through().port
        return make_conninfo(super()._dsn("tcp", name), host="127.0.0.1", port=port, sslmode="disable")

    def server(self) -> Server:
        """Return the versions of both."""
        postgres = super().server()
        return Server(postgres.kind, f"{postgres.version}, {self._through().version()}")

    def fresh(self, needs: Needs) -> Store:
        """Make a database."""
        return PooledStore(needs, self._dsn, self._through())

    def close(self) -> None:
        """Stop the pooler and the server."""
        if self._pooler is not None:
            self._pooler.close()
            self._pooler = None
        super().close()


harness = PooledHarness
