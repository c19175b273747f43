"""The harness of the pgvector adapter: one database for each check, on an embedded or a configured server.

`VECTORACL_PGVECTOR_KIT` is a superuser's connection string of a server that may be used for tests. The census uses
separate SQL, as a superuser, and shares only the names of the default columns with the adapter.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from vectoracl.errors import VectorACLError
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.evidence import SqlScope, Tap, Wire, sql_judge
from vectoracl_conformance.evidence.protocols import postgres
from vectoracl_conformance.harness import Engine, Harness, HarnessError, Mutant, Needs, Server, Store, Weakening
from vectoracl_pgvector import word_index
from vectoracl_pgvector.conformance.engine_counters import PgEngine, wait_alone
from vectoracl_pgvector.requests import Statement, Transaction

_SETTINGS = {"track_functions": "all", "fsync": "off"}
_SCOPE = SqlScope(
    {("vectoracl", "chunks"): "tenant_id", ("vectoracl", "chunks_tenants"): "tenant_id"},
    "vectoracl.tenant",
    functions=frozenset(("public.binary_quantize",)),
    operators=frozenset(("public.<=>", "public.<#>", "public.<->", "public.<~>")),
)
# So that tenants of a test's size are ranked by bits, and the large one of E3 through its HNSW index.
_BITS = {"bits": True, "exact_rows": 8, "bits_rows": 1000}
_TABLE = '"vectoracl"."chunks"'
_VERSION = "pg_relation_filenode(tableoid)::int8, ctid::text, xmin::text"
"""The identity of one version of a row; a table that is rewritten has another file."""
_ROW = (
    "tenant_id, document, chunk_id, generation, label, rev, expires, producer, path, written_at, position, content, "
    "metadata::text, embedding::text"
)
_READ = re.compile(r'\bFROM "vectoracl"\."chunks"(?:, (?:fused|scored))? WHERE "tenant_id" = %s::text')
_WRITE = re.compile(r'\bINSERT INTO "vectoracl"\."chunks"(?: AS old)? \([^()]*\) SELECT %s::text,')
_KNOWN = re.compile(r'INSERT INTO "vectoracl"\."chunks_tenants" \(tenant_id\) VALUES \(%s::text\) ON CONFLICT DO ')
_BOUND = 3  # the place of the partition's bound among the parameters of the statement that finds an index of words
_LOCK = re.compile(r"SELECT pg_advisory_xact_lock(?:_shared)?\(hashtextextended\(%s::text, 0\)\)\Z")


def _census(columns: str, where: str = "true") -> str:
    """Return a query of *columns* of all rows; *where*, with its parameters, stands in it twice."""
    return (
        f"SELECT {columns} FROM ONLY vectoracl.chunks_default WHERE {where} UNION ALL SELECT {columns} "
        f"FROM vectoracl.chunks WHERE tableoid <> 'vectoracl.chunks_default'::regclass AND {where}"
    )


class PgStore(Store):
    """One database, which is dropped at the end."""

    settings: ClassVar[Mapping[str, Any]] = {}
    """More settings of the store."""

    def __init__(self, needs: Needs, dsn: Callable[[str, str], str]) -> None:
        self._needs = needs
        self._name = f"kit_{secrets.token_hex(6)}"
        self._dsn = dsn
        self._admin: psycopg.Connection[Any] | None = None
        self._seen: dict[tuple[Any, ...], Record] = {}
        with self.superuser("postgres") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self._name)))
            connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO vectoracl_owner").format(sql.Identifier(self._name)))
        with self.superuser() as connection:
            connection.execute("CREATE EXTENSION vector WITH SCHEMA public")
            connection.execute("CREATE SCHEMA vectoracl AUTHORIZATION vectoracl_owner")
        self.config = {
            "adapter": "pgvector",
            "dsn": dsn("runtime", self._name),
            "owner_dsn": dsn("owner", self._name),
            "dimension": needs.dimension,
            "metric": needs.metric,
            # Sessions are compared by their volume, and one that finds a kept posture reads less than the first.
            "keep_posture": False,
            **(_BITS if needs.metric == "cosine" else {}),
            **self.settings,
        }
        self.single = {**self.config, "pool_min": 1, "pool_max": 1}
        parts = [conninfo_to_dict(dsn(role, self._name)) for role in ("runtime", "owner")]
        self.secrets = tuple(str(one["password"]) for one in parts if one.get("password"))
        self._provision()

    def _provision(self) -> None:
        from vectoracl import VectorACL

        with VectorACL(
            {"version": 1, "stores": {"kit": {**self.config, "metadata": dict(self._needs.metadata)}}}
        ) as acl:
            operator = acl.operator()
            operator.provision()
            operator.close()

    @contextmanager
    def superuser(self, name: str | None = None) -> Iterator[psycopg.Connection[Any]]:
        """Yield a superuser's connection to the database, or to the database *name*."""
        with psycopg.connect(self._dsn("bootstrap", name or self._name), autocommit=True) as connection:
            yield connection

    def _reading(self) -> psycopg.Connection[Any]:
        if self._admin is None or self._admin.closed:
            self._admin = psycopg.connect(self._dsn("bootstrap", self._name), autocommit=True)
        return self._admin

    def census(self) -> Sequence[Record]:
        """Read every row, past row-level security."""
        connection = self._reading()
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            versions = connection.execute(_census(_VERSION)).fetchall()
            # The census is read repeatedly and most rows are unchanged. A version of a row never changes, so only those
            # that were not seen before are read.
            new = [one[1] for one in versions if one not in self._seen]
            if new:
                for row in connection.execute(_census(f"{_VERSION}, {_ROW}", "ctid = ANY(%s::tid[])"), (new, new)):
                    self._seen[row[:3]] = self._record(row[3:])
        self._seen = {one: self._seen[one] for one in versions}
        return list(self._seen.values())

    def _record(self, row: tuple[Any, ...]) -> Record:
        return Record(Tag(*row[:11]), row[11], np.array(json.loads(row[13]), np.float32), self._metadata(row[12]))

    def _metadata(self, text: str) -> Mapping[str, Any]:
        read: dict[str, Any] = json.loads(text)
        for name, kind in self._needs.metadata.items():
            if kind == "datetime" and name in read:
                read[name] = datetime.fromisoformat(read[name])
        return read

    def parts(self) -> frozenset[str]:
        """Return the registered tenants."""
        rows = self._reading().execute("SELECT tenant_id FROM vectoracl.chunks_tenants").fetchall()
        return frozenset(row[0] for row in rows)

    def carries(self, request: Any, tenant: str) -> bool | None:
        """Require the transaction-local setting, and the tenant as the first conjunct of every WHERE, without OR."""
        if not isinstance(request, Transaction):
            return False
        if request.settings[:1] != (("vectoracl.tenant", tenant),):
            return False
        return all(_scoped(statement, tenant) for statement in request.statements)

    def wire(self) -> Wire:
        """Describe PostgreSQL's protocol, without TLS, so that the kit can read it."""
        parts = conninfo_to_dict(self._dsn("tcp", self._name))

        def config(host: str, port: int) -> Mapping[str, Any]:
            dsn = make_conninfo(self._dsn("tcp", self._name), host=host, port=port, sslmode="disable")
            dsn = make_conninfo(dsn, gssencmode="disable")
            return {**self.config, "dsn": dsn, "pool_min": 1, "pool_max": 1}

        return Wire(
            recorder=lambda: Tap.tcp(str(parts["host"]), int(str(parts["port"]))),
            config=config,
            served=self._served,
            decode=postgres.decode,
            judge=sql_judge(_SCOPE),
        )

    def promote(self, tenant: str) -> None:
        """Move *tenant* to its own partition, as an operator does."""
        from vectoracl import VectorACL

        with VectorACL(
            {"version": 1, "stores": {"kit": {**self.config, "metadata": dict(self._needs.metadata)}}}
        ) as acl:
            operator = acl.operator()
            operator.promote(tenant)
            operator.close()

    def alone(self, connection: psycopg.Connection[Any]) -> None:
        """Wait until every other session of this database has ended, including the census's own."""
        if self._admin is not None:
            self._admin.close()
        wait_alone(connection)

    def _gone(self, connection: psycopg.Connection[Any]) -> None:
        """Wait until no session of the runtime role is left: statistics are flushed when a session ends."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND usename = 'vectoracl_runtime'",
                (self._name,),
            ).fetchone()
            if row == (0,):
                return
            time.sleep(0.01)
        raise HarnessError("Sessions of the runtime role stay open, so nothing can be counted.")

    def _served(self) -> int:
        """Count the sessions that this database has served; the kit's own sessions use another database."""
        if self._admin is not None:
            self._admin.close()
        with self.superuser("postgres") as connection:
            self._gone(connection)
            row = connection.execute(
                "SELECT sessions FROM pg_stat_database WHERE datname = %s", (self._name,)
            ).fetchone()
        return int(row[0]) if row else 0

    def engine(self) -> Engine:
        """Return PostgreSQL's own counters."""
        return PgEngine(self)

    def weakenings(self) -> Sequence[Weakening]:
        """Return mistakes that an operator can make."""

        def run(*statements: str) -> Callable[[], None]:
            def work() -> None:
                with self.superuser() as connection:
                    for statement in statements:
                        connection.execute(statement)

            return work

        table = "ALTER TABLE vectoracl.chunks"

        def give_back() -> None:
            run(f"{table} OWNER TO vectoracl_owner")()
            self._provision()  # changing the owner removed the owner's grants

        return (
            Weakening(
                "row-level security switched off",
                run(f"{table} DISABLE ROW LEVEL SECURITY"),
                run(f"{table} ENABLE ROW LEVEL SECURITY"),
            ),
            Weakening(
                "FORCE taken away",
                run(f"{table} NO FORCE ROW LEVEL SECURITY"),
                run(f"{table} FORCE ROW LEVEL SECURITY"),
            ),
            Weakening(
                "policies that let everyone read",
                run(
                    'ALTER POLICY "vectoracl_select_permissive" ON vectoracl.chunks USING (true)',
                    'ALTER POLICY "vectoracl_select_restrictive" ON vectoracl.chunks USING (true)',
                ),
                self._provision,
            ),
            Weakening(
                "the runtime role as the table's owner",
                run(f"{table} OWNER TO vectoracl_runtime"),
                give_back,
            ),
            Weakening(
                "a partition that is open by name",
                run(
                    "ALTER TABLE vectoracl.chunks_default DISABLE ROW LEVEL SECURITY",
                    "GRANT SELECT ON vectoracl.chunks_default TO vectoracl_runtime",
                ),
                run(
                    "ALTER TABLE vectoracl.chunks_default ENABLE ROW LEVEL SECURITY",
                    "REVOKE SELECT ON vectoracl.chunks_default FROM vectoracl_runtime",
                ),
            ),
        )

    def close(self) -> None:
        """Drop the database."""
        if self._admin is not None:
            self._admin.close()
        with self.superuser("postgres") as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self._name)))


def _scoped(statement: Statement, tenant: str) -> bool:
    """Return whether the tenant is a separate condition wherever the table is read, as in each leg of a fusion.

    What is inserted has it as its first value; a write's lock, and the list of tenants, name it too.
    """
    text, params = statement.sql, statement.params
    if not isinstance(params, tuple):
        return False
    if _KNOWN.match(text):
        return params == (tenant,)
    if text == word_index.FIND:
        return bool(params[_BOUND] == word_index.bound(tenant))
    if _LOCK.match(text):
        return len(params) == 1 and str(params[0]).endswith(f":{tenant}")
    read, written = list(_READ.finditer(text)), list(_WRITE.finditer(text))
    if not (read or written) or len(read) + len(written) != text.count(_TABLE):
        return False
    named = all(params[text[: match.end()].count("%s") - 1] == tenant for match in (*read, *written))
    return named and not any(_loose_or(text[match.end() :]) for match in read)


def _loose_or(text: str) -> bool:
    """Return whether *text*, which follows the tenant's condition, has an OR outside of parentheses."""
    depth = 0
    for word in re.findall(r"[()]|\w+", text):
        if word == "(":
            depth += 1
        elif word == ")":
            depth -= 1
            if depth < 0:
                return False
        elif depth == 0 and word.upper() == "OR":
            return True
        elif depth == 0 and word.upper() in ("ORDER", "LIMIT", "GROUP"):
            return False
    return False


class PgvectorHarness(Harness):
    """PostgreSQL with pgvector."""

    adapter = "pgvector"
    store = "PostgreSQL"
    metrics = ("cosine", "inner", "l2")

    def __init__(self) -> None:
        self._given = os.environ.get("VECTORACL_PGVECTOR_KIT")
        self._server: Any = None
        self._folder: Path | None = None

    def _dsn(self, role: str, name: str) -> str:
        if self._given:
            changes: dict[str, str] = {"dbname": name}
            if role != "bootstrap":
                changes |= {"user": f"vectoracl_{'runtime' if role == 'tcp' else role}"}
            return make_conninfo(self._given, **changes)
        if self._server is None:
            self._start()
        if role == "tcp":
            return str(self._server.dsn("runtime", name, tcp=True))
        return str(self._server.dsn(role, name))

    def _start(self) -> None:
        try:
            from vectoracl_pgvector.embedded import server as embedded

            self._folder = Path(tempfile.mkdtemp(prefix="vectoracl-kit-"))
            self._server = embedded.start(self._folder / "server", settings=_SETTINGS, tcp=True)
        except (ImportError, VectorACLError) as error:
            raise HarnessError(
                f'No PostgreSQL: {error} Install "vectoracl-pgvector[embedded]", or name a server for tests in '
                "VECTORACL_PGVECTOR_KIT (a superuser's connection string)."
            ) from None

    def server(self) -> Server:
        """Return the server's kind and version, from the server itself. Raises: HarnessError."""
        try:
            with psycopg.connect(self._dsn("bootstrap", "postgres")) as connection:
                row = connection.execute("SHOW server_version").fetchone()
                extension = connection.execute(
                    "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
                ).fetchone()
        except psycopg.Error as error:
            raise HarnessError(f"PostgreSQL cannot be reached: {type(error).__name__}.") from None
        version = row[0] if row else "?"
        return Server("real", f"PostgreSQL {version}, pgvector {extension[0] if extension else '?'}")

    def fresh(self, needs: Needs) -> Store:
        """Create a database for one check."""
        return PgStore(needs, self._dsn)

    def mutants(self) -> Sequence[Mutant]:
        """Return the mutants that only PostgreSQL can have."""
        from vectoracl_pgvector.conformance.mutants import MUTANTS

        return MUTANTS

    def close(self) -> None:
        """Stop the server, if the harness started it."""
        if self._server is not None:
            from vectoracl_pgvector.embedded import server as embedded

            embedded.release(self._server)
            self._server = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


harness = PgvectorHarness
