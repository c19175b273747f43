"""Operator tasks with the owner's credentials: provision, list, move and remove tenants, import a table. Blocking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg

from vectoracl.adapter_api.contract import Adopted, Progress, TenantInfo
from vectoracl.adapter_api.shares import Share
from vectoracl.errors import ConfigError, VectorACLError, without_context
from vectoracl.filters.field_types import FieldType
from vectoracl.model.identifiers import check_tenant, stored_tenant
from vectoracl_pgvector import schema, vector_column
from vectoracl_pgvector.adoption import adopt as adoption
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.dsn import Connections
from vectoracl_pgvector.connection.extension import Extension
from vectoracl_pgvector.connection.failures import mapped
from vectoracl_pgvector.connection.lock_waits import migrate
from vectoracl_pgvector.connection.owner import connect, connect_owner, identity_of
from vectoracl_pgvector.names import EXTENSION_SCHEMA, NO_JIT, Names, literal, quote
from vectoracl_pgvector.posture import releases
from vectoracl_pgvector.tenant_counts import tenant_counts
from vectoracl_pgvector.tiers import move, retype, vacuum, word_indexes
from vectoracl_pgvector.tiers.shadow_copy import marker

_MOVING = "a move is in progress, and this tenant has an unfinished one: list again when it has ended"
# Microseconds a chunk of a search by words without an index, and the milliseconds from which it is pointed out.
_WORDS_COST = {"ts_rank": 7, "bm25": 20}
_MUCH = 40
_WORDS_ADVICE = 'words = "bm25" and the extension pg_textsearch index them (`vectoracl provision`)'
_BROKEN_OFF = "a move was interrupted; promote completes it, and demote undoes it"


class PgOperator:
    """Operator tasks on one configured store, as the owner."""

    def __init__(
        self,
        config: PgvectorConfig,
        fields: Mapping[str, FieldType],
        connections: Connections,
        *,
        store: str = "",
        embedder: str | None = None,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._config = config
        self._fields = fields
        self._connections = connections
        self._extension = Extension(config)
        self._names = Names.of(config)
        self._extension_located = False
        self._connection: psycopg.Connection[Any] | None = None

    @contextmanager
    def _owner(self) -> Iterator[psycopg.Connection[Any]]:
        """Yield the owner's connection (autocommit), opened at first use; client errors are mapped."""
        if self._connection is None or self._connection.closed:
            self._connection = connect_owner(self._connections.owner(), self._config)
        with self._mapping():
            self._locate_extension(self._connection)
            yield self._connection

    @contextmanager
    def _mapping(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise mapped(error, debug=False, action="provision") from None

    @contextmanager
    def _exclusive(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Open a transaction that excludes other provisioning: PostgreSQL fails concurrent GRANTs on one object."""
        with connection.transaction():
            connection.execute(
                "SELECT pg_catalog.set_config('jit', 'off', true), "
                "pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('vectoracl', 0))"
            )
            yield

    def _locate_extension(self, connection: psycopg.Connection[Any]) -> None:
        """Find the extension's schema, if it is installed, and use it in all names. Raises: PostureError."""
        if self._extension_located:
            return
        find_statement = self._extension.find_statement()
        rows = connection.execute(find_statement.sql, find_statement.params, prepare=False).fetchall()
        if rows:
            self._extension.read_location(rows)
            self._config = self._extension.config
            self._names = Names.of(self._config)
            self._extension_located = True

    def _migrations(self) -> Iterator[str]:
        yield from schema.migrations(self._config)
        yield from vector_column.keep(self._config, self._embedder)

    @without_context
    def plan(self, *, adopt: str | None = None) -> str:
        """Return the SQL of `provision` as one script: the administrator's part, then the owner's.

        It can be run by a role other than the owner, since it sets the role. With *adopt*, return the plan of that
        import instead.
        """
        if adopt is not None:
            with self._owner() as connection:
                return adoption.plan(connection, self._config, adopt, self._fields)
        comment_sql = "".join(
            f"\nSET ROLE {quote(self._config.owner_role)};\n{one}\nRESET ROLE;\n"
            for one in vector_column.keep(self._config, self._embedder)
        )
        return schema.script(self._config) + comment_sql

    @without_context
    def provision(
        self, *, adopt: str | None = None, progress: Progress | None = None, adopted: Adopted | None = None
    ) -> list[str]:
        """Create or update the schema; with *adopt*, then copy that table into it. Can be repeated at any time.

        Args:
            adopt: An existing table to import, as "schema.table" or "table".
            progress: Called with the step, the rows done and the rows in total.
            adopted: Updated with the progress of the import, for its audit record.

        Returns:
            What was done, a line each.
        """
        bootstrap = self._connections.bootstrap()
        lines = self._roles(self._connections.owner() if bootstrap is None else bootstrap)
        with self._owner() as connection:
            lines += self._check_server(connection)
            vector_column.check_columns(connection, self._config)
            vector_column.check(connection, self._config, self._store, self._embedder)
            changed = retype.pending(connection, self._config)
            if changed:
                retype.check_no_move(connection, self._config)
            try:
                migrate(connection, self._migrations(), lambda: self._exclusive(connection), self._names)
            except psycopg.Error as error:
                refusal = retype.refusal_for(error)
                if refusal is None:
                    raise
                raise refusal from None
            if changed:
                lines.append(f"the vectors now have the type {self._config.type}")
            lines += retype.build_indexes(connection, self._config, progress)
            lines += word_indexes.build(connection, self._config, progress)
            lines.append(f"schema version {schema.VERSION} is in place: {self._names.table}")
            if adopt is not None:
                lines += adoption.adopt(connection, self._config, self._fields, adopt, progress, adopted)
            lines += vacuum.vacuum(connection, self._config, progress)
        return lines

    @without_context
    def survey(self, source: str, parts: Sequence[Share], *, progress: Progress | None = None) -> list[Share]:
        """Check every row of the table *source*; return *parts* with their tenants. See `contract.ShareAdopter`."""
        with self._owner() as connection:
            return adoption.survey(connection, self._config, self._fields, source, parts, progress)

    @without_context
    def adopt_share(
        self, source: str, share: Share, *, progress: Progress | None = None, adopted: Adopted | None = None
    ) -> dict[str, int]:
        """Copy the rows of *share* and compare them. See `contract.ShareAdopter`."""
        with self._owner() as connection:
            return adoption.adopt_share(connection, self._config, self._fields, source, share, progress, adopted)

    @without_context
    def adopt_end(self, source: str, tenants: Mapping[str, int]) -> list[str]:
        """Do what is left after the last share. See `contract.ShareAdopter`."""
        with self._owner() as connection:
            return adoption.adopt_end(connection, self._config, self._fields, source, tenants)

    @without_context
    def _roles(self, dsn: str) -> list[str]:
        """Create roles, extension and schema if the role of *dsn* may create roles; return what was done."""
        with self._mapping(), connect(dsn, self._config) as connection:
            connected = identity_of(connection, self._config)
            if connected.role == self._config.owner_role or not connected.may_create_roles:
                return []
            self._locate_extension(connection)
            created_roles = self._missing_roles(connection)
            with self._exclusive(connection):
                for statement in schema.roles(self._config):
                    connection.execute(statement)
                without_password = [role for role in created_roles if not self._set_password(connection, role)]
        lines = ["roles, extension and schema are in place"]
        if without_password:
            lines.append(
                f"{' and '.join(without_password)} have no password yet: set one with \\password in psql, or "
                "permit them by a rule of pg_hba.conf that needs none"
            )
        return lines

    def _missing_roles(self, connection: psycopg.Connection[Any]) -> list[str]:
        role_names = [self._config.owner_role, self._config.runtime_role]
        existing = connection.execute(
            "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY(%s)", (role_names,)
        ).fetchall()
        return [role for role in role_names if (role,) not in existing]

    def _set_password(self, connection: psycopg.Connection[Any], role: str) -> bool:
        """Set the configured password of the new *role*; return whether the configuration has one.

        Only its SCRAM verifier is sent, so the password cannot appear in the server's log.
        """
        for dsn in self._connections.configured_dsns():
            parts = psycopg.conninfo.conninfo_to_dict(dsn)
            if parts.get("user") == role and parts.get("password"):
                secret = str(parts["password"]).encode()
                verifier = connection.pgconn.encrypt_password(secret, role.encode(), b"scram-sha-256").decode()
                connection.execute(f"ALTER ROLE {quote(role)} PASSWORD {literal(verifier)}")
                return True
        return False

    def _check_server(self, connection: psycopg.Connection[Any]) -> list[str]:
        """Refuse a server that cannot be used; return warnings. Raises: ConfigError."""
        row = connection.execute("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector'").fetchone()
        if row is None:
            raise ConfigError(
                'The database has no extension "vector". As a superuser: '
                f"CREATE EXTENSION vector WITH SCHEMA {quote(self._config.extension_schema or EXTENSION_SCHEMA)}; "
                "(`vectoracl provision --sql` prints everything that a superuser runs.)"
            )
        version = row[0]
        if releases.parts(version) < releases.PGVECTOR_NEEDED:
            raise ConfigError(
                f"The extension vector is {version}; 0.8.0 is needed (every search uses its iterative scans). Install "
                "a newer one on the server, then, as the extension's owner: ALTER EXTENSION vector UPDATE;"
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
        wide = connection.execute("SELECT pg_catalog.version() !~ '32-bit'").fetchone()
        holes = releases.pgvector_holes(version, wide=bool(wide and wide[0]))
        return [f"warning: pgvector is {version}: {one}. ALTER EXTENSION vector UPDATE" for one in holes]

    @without_context
    def mark(self, registry: str | None) -> list[str]:
        """Note which registry governs the table; None removes the note."""
        with self._owner() as connection, self._exclusive(connection):
            vector_column.mark(connection, self._config, registry)
        return [f"{'marked' if registry else 'removed the mark of'} {self._names.table} as governed by the registry"]

    @without_context
    def tenants(self, *, progress: Progress | None = None) -> list[TenantInfo]:
        """List the tenants with their rows and tier; each is counted under its own scope, as the owner.

        A tenant that an interrupted move left unable to write can write again afterwards. A tenant with an unfinished
        move has a note that says how to complete it.
        """
        tenants = []
        with self._owner() as connection:
            move.release(connection, self._config)
            with connection.transaction():
                connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", NO_JIT)
                names = self._listed(connection)
            own = move.own_partitions(connection, self._config)
            markers, alive = move.unfinished(connection, self._config)
            if markers and not alive:  # the move may have died since the first check
                move.release(connection, self._config)
            counts, own = self._counts(connection, names, own, progress)
            slow = own.keys() if self._config.words == "ts_rank" else word_indexes.unindexed(connection, self._config)
            for tenant in names:
                rows, tier = counts[tenant], "own" if tenant in own else "shared"
                if marker(self._config, tenant) not in markers:
                    note = self._words_note(rows) if tenant in slow else ""
                    tenants.append(TenantInfo(tenant, rows, tier, self._advice(rows, tier), note=note))
                else:
                    advice, note = ("", _MOVING) if alive else ("promote", _BROKEN_OFF)
                    tenants.append(TenantInfo(tenant, rows, tier, advice, note=note))
        return tenants

    def _counts(
        self,
        connection: psycopg.Connection[Any],
        names: list[str],
        own: Mapping[str, str],
        progress: Progress | None,
    ) -> tuple[dict[str, int], dict[str, str]]:
        """Return the number of rows of each tenant, and the tenants with their own partition at that time."""
        # A partition that was created by hand for several tenants holds rows that are neither shared nor in `own`.
        regular = move.number_of_partitions(connection, self._config) == len(own)
        shared = set(names) - own.keys() if regular else set()
        counts: dict[str, int] = {}
        for tenant, rows in tenant_counts(connection, self._names, names, shared):
            counts[tenant] = rows
            if progress is not None:
                progress("counting tenants", len(counts), len(names))
        now = move.own_partitions(connection, self._config)
        moved = [tenant for tenant in names if tenant in shared and tenant in now]
        return counts | dict(tenant_counts(connection, self._names, moved)), now

    def _listed(self, connection: psycopg.Connection[Any]) -> list[str]:
        rows = connection.execute(f"SELECT tenant_id FROM {self._names.tenants} ORDER BY 1").fetchall()
        return [str(tenant) for (tenant,) in rows]

    def _advice(self, rows: int, tier: str) -> str:
        """Advise a move past the threshold; see `PgvectorConfig.promotes_above`."""
        if tier == "shared" and rows > self._config.promotes_above:
            return "promote"
        if tier == "own" and rows < self._config.demotes_below:
            return "demote"
        return ""

    def _words_note(self, rows: int) -> str:
        """Return what a search by words costs a tenant of *rows* chunks without an index of words, if it is much."""
        milliseconds = rows * _WORDS_COST[self._config.words] / 1000
        if not self._config.lexical or milliseconds < _MUCH:
            return ""
        return f"a search by words reads all {rows:,} chunks, about {milliseconds:,.0f} ms: {_WORDS_ADVICE}"

    @without_context
    def promote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:
        """Move *tenant* to its own partition with an HNSW index, while reads and writes continue."""
        with self._unblocking_after_loss(), self._owner() as connection:
            return move.promote(connection, self._config, check_tenant(tenant), progress)

    @property
    def keeps_rows(self) -> frozenset[str]:
        """The moves: the copy is kept in step by triggers, and one transaction switches to it (`ShadowCopy`)."""
        return frozenset({"promote", "promote_together", "demote"})

    @property
    def together(self) -> int:
        """The number of tenants that `promote_together` takes at most."""
        return move.TOGETHER

    @without_context
    def promote_together(self, tenants: Sequence[str], *, progress: Progress | None = None) -> list[str]:
        """Move all of *tenants*, or none, each to its own partition, reading the shared partition once for all."""
        with self._unblocking_after_loss(), self._owner() as connection:
            return move.promote_together(connection, self._config, [check_tenant(one) for one in tenants], progress)

    @contextmanager
    def _unblocking_after_loss(self) -> Iterator[None]:
        """If the move's connection was lost, let the tenant write again on a new one; then raise the original error."""
        try:
            yield
        except VectorACLError:
            if self._connection is None or self._connection.closed:
                with suppress(VectorACLError), self._owner() as connection:
                    move.release(connection, self._config)
            raise

    @without_context
    def demote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:
        """Move *tenant* back into the shared partition; all other sessions wait while its rows are copied.

        A copy that takes longer than `demote_stall` seconds is rolled back (RefusedError).
        """
        with self._owner() as connection:
            timeouts = replace(move.MOVE_TIMEOUTS, stall=self._config.demote_stall)
            return move.demote(connection, self._config, check_tenant(tenant), progress, timeouts=timeouts)

    @without_context
    def remove(self, tenant: str) -> list[str]:
        """Delete *tenant* with its rows, partition and name; its writers wait while it runs. Can be repeated."""
        with self._owner() as connection:
            return move.remove(connection, self._config, stored_tenant(tenant, lambda: self._listed(connection)))

    def close(self) -> None:
        """Close the owner's connection."""
        if self._connection is not None:
            self._connection.close()
