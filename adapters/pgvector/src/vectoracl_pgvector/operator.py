"""What an operator does with the owner's credentials: provision, list tenants, move them, adopt a table. Blocking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg

from vectoracl.adapter import Adopted, Progress, TenantInfo
from vectoracl.errors import ConfigError, VectorACLError, apart
from vectoracl.fields import FieldType
from vectoracl.ids import check_tenant
from vectoracl_pgvector import adopt as adoption
from vectoracl_pgvector import move, schema
from vectoracl_pgvector.arguments import connect_arguments, session_arguments
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connect_failures import cause_of, connect_failed
from vectoracl_pgvector.connections import Connections
from vectoracl_pgvector.extension import Extension
from vectoracl_pgvector.failures import mapped
from vectoracl_pgvector.mirror import marker
from vectoracl_pgvector.names import EXTENSION_SCHEMA, NO_JIT, SETTING, Names, quote
from vectoracl_pgvector.patience import migrate

_MINIMUM_EXTENSION = (0, 8, 4)
_LOCKS = (
    "-- While a statement waits for a table, everybody waits behind it. If this part ends with 55P03, nothing was\n"
    "-- changed: run it again when no long transaction is open.\n"
    f"SET LOCAL lock_timeout = '{schema.LOCK_TIMEOUT}s';"
)
_MOVING = "a move is under way, and this tenant has an unfinished one: list again when it has ended"
_BROKEN_OFF = "a move was broken off; this finishes it, and demote instead of promote takes it back"


class PgOperator:
    """Owner's work on one configured store."""

    def __init__(self, config: PgvectorConfig, fields: Mapping[str, FieldType], where: Connections) -> None:
        self._config = config
        self._fields = fields
        self._where = where
        self._extension = Extension(config)
        self._names = Names.of(config)
        self._found = False
        self._connection: psycopg.Connection[Any] | None = None

    @contextmanager
    def _owner(self) -> Iterator[psycopg.Connection[Any]]:
        """Give the owner's connection (autocommit), opened at first use; the client's errors come out as ours."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connect(self._where.owner())
        try:
            self._find(self._connection)
            yield self._connection
        except psycopg.Error as error:
            raise mapped(error, debug=False, action="provision") from None

    @contextmanager
    def _alone(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Hold a transaction in which nobody else provisions: PostgreSQL fails two GRANTs on one object at a time."""
        with connection.transaction():
            connection.execute(
                "SELECT pg_catalog.set_config('jit', 'off', true), "
                "pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('vectoracl', 0))"
            )
            yield

    def _find(self, connection: psycopg.Connection[Any]) -> None:
        """Take the names as the database has them, where the extension is there. Raises: PostureError."""
        if self._found:
            return
        asked = self._extension.asked()
        rows = connection.execute(asked.sql, asked.params, prepare=False).fetchall()
        if rows:
            self._extension.learn(rows)
            self._config = self._extension.config
            self._names = Names.of(self._config)
            self._found = True

    @apart
    def _connect(self, dsn: str) -> psycopg.Connection[Any]:
        try:
            try:
                return psycopg.connect(dsn, **session_arguments(dsn, self._config, jit="off"))
            except psycopg.OperationalError as error:
                if cause_of(error).code != "startup_parameter":
                    raise
            return psycopg.connect(dsn, **connect_arguments(dsn, self._config))  # a pooler that takes no options
        except (psycopg.Error, OSError) as error:
            raise connect_failed(dsn, error, debug=False) from None

    @apart
    def plan(self, *, adopt: str | None = None) -> str:
        """Return the SQL of `provision`: what a superuser runs once, then what the owner runs, in one transaction."""
        if adopt is not None:
            with self._owner() as connection:
                return adoption.plan(connection, self._config, adopt, self._fields)
        lines = ["-- As a superuser, once:", *schema.roles(self._config), ""]
        lines += [f"-- As {self._config.owner_role}:", "BEGIN;", _LOCKS, *schema.migrations(self._config), "COMMIT;"]
        return "\n".join(lines) + "\n"

    @apart
    def provision(
        self, *, adopt: str | None = None, progress: Progress | None = None, adopted: Adopted | None = None
    ) -> list[str]:
        """Create or update the schema; with *adopt*, then copy that table into it. Can be run again at any time."""
        done = []
        bootstrap = self._where.bootstrap()
        if bootstrap is not None:
            with self._connect(bootstrap) as connection, self._alone(connection):
                for statement in schema.roles(self._config):
                    connection.execute(statement)
            done.append("roles, extension and schema are there")
        with self._owner() as connection:
            self._check_server(connection)
            migrate(connection, schema.migrations(self._config), lambda: self._alone(connection), self._names)
            done.append(f"schema version {schema.VERSION} is in place: {self._names.table}")
            if adopt is not None:
                done += adoption.adopt(connection, self._config, self._fields, adopt, progress, adopted)
        return done

    def _check_server(self, connection: psycopg.Connection[Any]) -> None:
        row = connection.execute("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector'").fetchone()
        if row is None:
            raise ConfigError(
                'The database has no extension "vector". As a superuser: '
                f"CREATE EXTENSION vector WITH SCHEMA {quote(self._config.extension_schema or EXTENSION_SCHEMA)}; "
                "(`vectoracl provision --sql` prints all that a superuser runs.)"
            )
        version = tuple(int(part) for part in row[0].split(".")[:3])
        if version < _MINIMUM_EXTENSION:
            raise ConfigError(
                f"The extension vector is {row[0]}; 0.8.4 is needed (earlier ones can corrupt an HNSW index). "
                "Update it: ALTER EXTENSION vector UPDATE;"
            )
        row = connection.execute(
            "SELECT space.nspname, pg_catalog.has_schema_privilege(one.oid, space.oid, 'USAGE') "
            "FROM pg_catalog.pg_extension AS found JOIN pg_catalog.pg_namespace AS space "
            "ON space.oid = found.extnamespace JOIN pg_catalog.pg_roles AS one ON one.rolname = %s "
            "WHERE found.extname = 'vector'",
            (self._config.runtime_role,),
        ).fetchone()
        if row is not None and not row[1]:
            raise ConfigError(
                f"The extension vector is in the schema {quote(row[0])}, which {self._config.runtime_role} may not "
                "use. As the schema's owner: "
                f"GRANT USAGE ON SCHEMA {quote(row[0])} TO {quote(self._config.runtime_role)};"
            )
        owner = connection.execute("SELECT current_user").fetchone()
        if owner is not None and owner[0] != self._config.owner_role:
            raise ConfigError(
                f"owner_dsn connects as {owner[0]!r} but owner_role is {self._config.owner_role!r}: use one."
            )

    @apart
    def tenants(self) -> list[TenantInfo]:
        """List the tenants with their rows and tier; each is counted under its own scope, as the owner.

        A tenant that a broken-off move left unable to write can write again after it; one whose move is not finished
        is said, with what finishes it.
        """
        found = []
        with self._owner() as connection:
            move.release(connection, self._config)
            with connection.transaction():
                connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", NO_JIT)
                names = connection.execute(f"SELECT tenant_id FROM {self._names.tenants} ORDER BY 1").fetchall()
            own = move.own_partitions(connection, self._config)
            markers, alive = move.unfinished(connection, self._config)
            for (tenant,) in names:
                with connection.transaction():
                    connection.execute(
                        "SELECT pg_catalog.set_config(%s, %s, true), pg_catalog.set_config(%s, %s, true)",
                        (SETTING, tenant, *NO_JIT),
                    )
                    row = connection.execute(
                        f"SELECT count(*) FROM {self._names.table} WHERE {self._names.c.tenant} = %s", (tenant,)
                    ).fetchone()
                rows = int(row[0]) if row else 0
                tier = "own" if tenant in own else "shared"
                if marker(self._config, tenant) not in markers:
                    found.append(TenantInfo(tenant, rows, tier, self._advice(rows, tier)))
                else:
                    advice, note = ("", _MOVING) if alive else ("promote", _BROKEN_OFF)
                    found.append(TenantInfo(tenant, rows, tier, advice, note=note))
        return found

    def _advice(self, rows: int, tier: str) -> str:
        """Advise a move past the threshold, with a gap so that no tenant goes to and fro."""
        if tier == "shared" and rows > self._config.promote_rows:
            return "promote"
        if tier == "own" and rows < self._config.promote_rows // 2:
            return "demote"
        return ""

    @apart
    def promote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:
        """Give *tenant* a partition of its own with an HNSW index, while reads and writes go on."""
        with self._releasing(), self._owner() as connection:
            return move.promote(connection, self._config, check_tenant(tenant), progress)

    @contextmanager
    def _releasing(self) -> Iterator[None]:
        """Let the tenant write again, on a new connection, where the mover's was lost; the error stays the error."""
        try:
            yield
        except VectorACLError:
            if self._connection is None or self._connection.closed:
                with suppress(VectorACLError), self._owner() as connection:
                    move.release(connection, self._config)
            raise

    @apart
    def demote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:
        """Move *tenant* back into the partition that small tenants share; others wait while its rows are copied.

        That takes `demote_stall` seconds at the most, else it is rolled back (RefusedError).
        """
        with self._owner() as connection:
            patience = replace(move.PATIENCE, stall=self._config.demote_stall)
            return move.demote(connection, self._config, check_tenant(tenant), progress, patience=patience)

    def close(self) -> None:
        """Close the owner's connection."""
        if self._connection is not None:
            self._connection.close()
