"""SQL for the copy of one tenant's rows that a move fills, and for the triggers that keep it in sync. Pure.

Every transaction that writes the tenant's rows in the shared partition also writes the copy. After the filling, *every
snapshot* therefore sees the same rows in both, which is what the switch needs: whichever partition a reader's plan
names, and however old its snapshot, it reads each row once. Catching up by differences cannot guarantee this: the rows
that are caught up last are invisible to an older REPEATABLE READ snapshot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from vectoracl_pgvector import schema
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import CONSTRAINT, UNFINISHED, Names, literal, quote

# The move's own DELETE must not reach the copy. Any role could set the setting alone, so the role is checked too.
MOVING = "vectoracl.moving"
TRIGGERS = ("vectoracl_moving_write", "vectoracl_moving_delete")
TOGETHER = 20
"""The number of tenants that can be moved together; each has its own triggers and function, with its number."""


class ShadowCopy:
    """The names and statements of one tenant's copy; *number* is 0, or from 1 if several tenants move together."""

    def __init__(self, config: PgvectorConfig, tenant: str, number: int = 0) -> None:
        self._config = config
        self.names = names = Names.of(config)
        self.tenant = tenant
        self.copy = names.partition(tenant)
        self.index = names.partition_name(tenant) + "_hnsw"
        self.function = f"{names.schema}.{quote(function_name(config.table, number))}"
        self.triggers = tuple(numbered(name, number) for name in TRIGGERS)
        self.barrier = f"{names.schema}.{quote(config.table + '_barrier')}"
        c = names.c
        self.key = (c.document, c.generation, c.chunk)
        self.columns = names.written
        self.marker = marker(config, tenant)

    def create(self) -> Iterator[str]:
        """Yield the statements that create the copy, closed before its first row, and the triggers: one transaction."""
        yield from self.create_table()
        yield from self.create_triggers()

    def create_table(self) -> Iterator[str]:
        """Yield the statements that create the copy: one transaction."""
        names, c = self.names, self.names.c
        yield f"CREATE TABLE {self.copy} (LIKE {names.table} INCLUDING ALL)"
        yield from schema.protection(self._config, self.copy)
        yield f"REVOKE ALL ON {self.copy} FROM PUBLIC, {quote(self._config.runtime_role)}"
        # With this constraint ATTACH need not read the copy.
        yield (
            f"ALTER TABLE {self.copy} ADD CONSTRAINT {CONSTRAINT} "
            f"CHECK ({c.tenant} IS NOT NULL AND {c.tenant} = {literal(self.tenant)})"
        )
        yield f"COMMENT ON TABLE {self.copy} IS {literal(self.marker)}"

    def create_triggers(self) -> Iterator[str]:
        """Yield the statements that keep the copy in sync from now on."""
        names, c = self.names, self.names.c
        yield self._function()
        yield f"REVOKE ALL ON FUNCTION {self.function}() FROM PUBLIC"
        for name, when, row in zip(self.triggers, ("INSERT OR UPDATE", "DELETE"), ("NEW", "OLD"), strict=True):
            yield (
                f"CREATE TRIGGER {name} AFTER {when} ON {names.default} FOR EACH ROW WHEN ("
                f"{row}.{c.tenant} = {literal(self.tenant)} AND NOT (current_user = "
                f"{literal(self._config.owner_role)} AND pg_catalog.current_setting('{MOVING}', true) "
                f"IS NOT DISTINCT FROM 'switch')) EXECUTE FUNCTION {self.function}()"
            )

    def _function(self) -> str:
        written = ", ".join(self.columns)
        updates = ", ".join(f"{column} = EXCLUDED.{column}" for column in self.columns if column not in self._unique)
        new = ", ".join(f"NEW.{column}" for column in self.columns)
        old = ", ".join(f"OLD.{column}" for column in self.columns)
        upsert = f"ON CONFLICT ({', '.join(self._unique)}) DO UPDATE SET {updates}"
        same = " AND ".join(f"OLD.{column} = NEW.{column}" for column in self._unique)
        where = " AND ".join(f"{column} = OLD.{column}" for column in self._unique)
        # Under REPEATABLE READ a DELETE skips a row of the copy that its snapshot is too old to see, and the row would
        # reappear with the switch. The preceding INSERT conflicts with such a row and fails with 40001 instead.
        body = (
            # PL/pgSQL has its own variables in every trigger (`found`, `tg_op`); a column may have the same name.
            "#variable_conflict use_column\nBEGIN\n"
            f"IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND NOT ({same})) THEN\n"
            "  IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN\n"
            f"    INSERT INTO {self.copy} ({written}) VALUES ({old}) {upsert};\n"
            "  END IF;\n"
            f"  DELETE FROM {self.copy} WHERE {where};\n"
            "END IF;\n"
            "IF TG_OP <> 'DELETE' THEN\n"
            f"  INSERT INTO {self.copy} ({written}) VALUES ({new}) {upsert};\n"
            "END IF;\n"
            "RETURN NULL;\nEND"
        )
        # The writer has no privilege on the copy, hence SECURITY DEFINER; row-level security binds the owner too.
        return (
            f"CREATE OR REPLACE FUNCTION {self.function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
            f"SET search_path = pg_catalog, pg_temp AS {literal(body)}"
        )

    @property
    def _unique(self) -> tuple[str, ...]:
        return (self.names.c.tenant, *self.key)

    def remove(self) -> Iterator[str]:
        """Yield the statements that remove the triggers, if they exist."""
        for name in self.triggers:
            yield f"DROP TRIGGER IF EXISTS {name} ON {self.names.default}"
        yield f"DROP FUNCTION IF EXISTS {self.function}()"

    def fill(self, *, first: bool) -> str:
        """Return the statement that copies one batch.

        Its parameters are the tenant, the key before the batch unless *first*, and the batch size. It returns the
        number of rows and the last key. The row locks make it exact with concurrent writers.
        """
        names = self.names
        key, written = ", ".join(self.key), ", ".join(self.columns)
        after = "" if first else f" AND ({key}) > (%s::text, %s::int8, %s::text)"
        last = ", ".join(f"(array_agg({column} ORDER BY {key}))[count(*)]" for column in self.key)
        return (
            f"WITH batch AS MATERIALIZED (SELECT {written} FROM ONLY {names.default} "
            f"WHERE {names.c.tenant} = %s::text{after} ORDER BY {key} LIMIT %s FOR SHARE), "
            f"put AS (INSERT INTO {self.copy} ({written}) SELECT {written} FROM batch ON CONFLICT DO NOTHING) "
            f"SELECT count(*), {last} FROM batch"
        )

    def differences(self) -> str:
        """Return the statement that counts the rows that differ in any byte, in one snapshot. Its parameter: tenant."""
        names = self.names
        # Aliases with a space, which no column name has: an alias means the whole row only if no column has that name.
        original, duplicate = '"the row"', '"the copy"'
        same = " AND ".join(f"{original}.{column} = {duplicate}.{column}" for column in self._unique)
        columns = ", ".join(self.columns)
        # *<> compares the rows' bytes, so it distinguishes values that are equal by = (0.0 and -0.0, 1 and 1.0).
        return (
            f"SELECT count(*) FROM "
            f"(SELECT {columns} FROM ONLY {names.default} WHERE {names.c.tenant} = %s::text) AS {original} "
            f"FULL JOIN (SELECT {columns} FROM {self.copy}) AS {duplicate} ON {same} "
            f"WHERE {original}.{names.c.tenant} IS NULL OR {duplicate}.{names.c.tenant} IS NULL "
            f"OR {original} OPERATOR(pg_catalog.*<>) {duplicate}"
        )

    def allow(self) -> str:
        """Return the statement that undoes `forbid`."""
        return f"ALTER TABLE ONLY {self.names.default} DROP CONSTRAINT IF EXISTS {CONSTRAINT}"

    def attach(self) -> str:
        """Return the switch itself."""
        return f"ALTER TABLE {self.names.table} ATTACH PARTITION {self.copy} FOR VALUES IN ({literal(self.tenant)})"

    def forget(self) -> Iterator[str]:
        """Yield the statements that remove every trace of the move from the attached copy."""
        yield f"ALTER TABLE {self.copy} DROP CONSTRAINT {CONSTRAINT}"
        yield f"COMMENT ON TABLE {self.copy} IS NULL"


def forbid(config: PgvectorConfig, tenants: Iterable[str]) -> str:
    """Return the constraint that keeps *tenants* out of the shared partition.

    Once it is valid, ATTACH need not read that partition for any of them.
    """
    names = Names.of(config)
    each = " AND ".join(f"{names.c.tenant} <> {literal(tenant)}" for tenant in tenants)
    return f"ALTER TABLE ONLY {names.default} ADD CONSTRAINT {CONSTRAINT} CHECK ({each}) NOT VALID"


def numbered(name: str, number: int) -> str:
    """Return *name* for the copy with this number."""
    return f"{name}_{number}" if number else name


def function_name(table: str, number: int) -> str:
    """Return the unquoted name of the function that keeps a copy in sync."""
    return numbered(f"{table}_moving", number)


def marker_prefix(config: PgvectorConfig) -> str:
    """Return the beginning of the comment of every unfinished copy of this table."""
    return f"{UNFINISHED}{config.table}, "


def marker(config: PgvectorConfig, tenant: str) -> str:
    """Return the comment of *tenant*'s unfinished copy. All roles can read comments, so it holds no tenant id."""
    return marker_prefix(config) + hashlib.blake2b(tenant.encode(), digest_size=16).hexdigest()
