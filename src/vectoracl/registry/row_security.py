"""Row-level security of a registry in PostgreSQL: a transaction sees and writes the rows of the tenants that it names.

Two roles: an owner, which makes the tables and serves no request, and the role of `registry.url`, which owns nothing.
Security is forced, so it binds the owner too; the owner alone may list the tenants, and reads the rest by naming them.
A transaction names its tenants in a setting that ends with it (`name_tenants`); without one no row is visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vectoracl.adapter_api.postgres_roles import STRONG_PREDEFINED
from vectoracl.adapter_api.posture import REGISTRY_ROLE, REGISTRY_ROWS, Finding
from vectoracl.adapter_api.versions import COLUMNS
from vectoracl.errors import PostureError
from vectoracl.registry import tables as t

SETTING = "vectoracl.registry_tenants"
PROTECTED: tuple[sa.Table, ...] = tuple(one for one in t.metadata.sorted_tables if "tenant" in one.c)
_OPEN = ("vectoracl_meta", "vectoracl_registry_version")
"""The tables without rows of a tenant: they are read by every process and written by the owner alone."""


class _Condition(NamedTuple):
    """A condition as it is written, and as PostgreSQL prints it: a policy is ours only if it prints exactly so."""

    sql: str
    printed: str


# The subquery is evaluated once for each statement. Unset, the setting is NULL in a new session and '' after a
# transaction that had set it; both name no tenant.
_NAMED = _Condition(
    f"tenant = ANY (CAST((SELECT NULLIF(pg_catalog.current_setting('{SETTING}', true), '') AS named) "
    "AS pg_catalog.text[]))",
    f"(tenant = ANY ((( SELECT NULLIF(current_setting('{SETTING}'::text, true), ''::text) AS named))::text[]))",
)


def _is_role(name: str) -> _Condition:
    """Return the condition that the session acts as the role itself; a member of it is not the role."""
    printed = name.replace("'", "''")
    return _Condition(f"CURRENT_USER = CAST({literal(name)} AS pg_catalog.text)", f"(CURRENT_USER = '{printed}'::text)")


def _either(*conditions: _Condition) -> _Condition:
    sql, printed = (" OR ".join(texts) for texts in zip(*conditions, strict=True))
    return _Condition(sql, f"({printed})")


# The tenant of a read of the store: its statement may see the version that it asserts (`adapter_api.versions`).
_READ = _Condition(
    "tenant = NULLIF(pg_catalog.current_setting('vectoracl.tenant', true), '')",
    "(tenant = NULLIF(current_setting('vectoracl.tenant'::text, true), ''::text))",
)
_PERMITS, _BOUNDS, _LISTS = "vectoracl_registry_permits", "vectoracl_registry_bounds", "vectoracl_registry_lists"
_ASSERTS = "vectoracl_registry_asserts"
_NAME = sa.text("SELECT pg_catalog.set_config(:setting, :tenants, true)")


def name_tenants(connection: Connection, tenants: Iterable[str]) -> None:
    """Let the transaction of *connection* reach the rows of *tenants*, and of no others; nothing on SQLite."""
    if connection.dialect.name == "postgresql":
        connection.execute(_NAME, {"setting": SETTING, "tenants": array_literal(tenants)})


def array_literal(texts: Iterable[str]) -> str:
    """Return *texts* as PostgreSQL writes an array of text."""
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in dict.fromkeys(texts))
    return "{" + ",".join(f'"{one}"' for one in escaped) + "}"


def quote(name: str) -> str:
    """Return *name* as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return *text* as an SQL literal, with any standard_conforming_strings."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def schema_statement(schema: str) -> str:
    """Return the statement that creates the schema of the tables, which an owner need not be permitted to repeat."""
    return (
        f"DO $$ BEGIN IF pg_catalog.to_regnamespace({literal(quote(schema))}) IS NULL THEN "
        f"CREATE SCHEMA {quote(schema)}; END IF; END $$"
    )


def statements(schema: str, runtime: str, owner: str) -> Iterator[str]:
    """Yield what protects the tables, which exist; it can be repeated.

    The condition is in a permissive policy for the two roles and in a restrictive one for all, which no policy that is
    added later widens.
    """
    yield f"REVOKE ALL ON SCHEMA {quote(schema)} FROM PUBLIC"
    yield f"GRANT USAGE ON SCHEMA {quote(schema)} TO {quote(runtime)}"
    for name in _OPEN:
        yield f"REVOKE ALL ON {quote(schema)}.{name} FROM PUBLIC, {quote(runtime)}"
        yield f"GRANT SELECT ON {quote(schema)}.{name} TO {quote(runtime)}"
    for table in PROTECTED:
        yield from _of_table(table, f"{quote(schema)}.{table.name}", runtime, owner)


def _of_table(table: sa.Table, name: str, runtime: str, owner: str) -> Iterator[str]:
    yield f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"
    yield f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY"
    to = {"both": f"{quote(runtime)}, {quote(owner)}", "owner": quote(owner), "all": "PUBLIC"}
    for one in _policies(table, owner):
        kind = "PERMISSIVE" if one.permissive else "RESTRICTIVE"
        check = f" WITH CHECK ({one.check.sql})" if one.check else ""
        yield f"DROP POLICY IF EXISTS {one.name} ON {name}"
        yield (
            f"CREATE POLICY {one.name} ON {name} AS {kind} FOR {one.command} TO {to[one.role]} "
            f"USING ({one.using.sql}){check}"
        )
    yield f"REVOKE ALL ON {name} FROM PUBLIC, {quote(runtime)}"
    yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {quote(runtime)}"
    if "id" in table.c:
        yield f"GRANT USAGE ON SEQUENCE {name}_id_seq TO {quote(runtime)}"


class _Policy(NamedTuple):
    name: str
    permissive: bool
    command: Literal["ALL", "SELECT"]
    role: Literal["both", "owner", "all"]
    using: _Condition
    check: _Condition | None


def _policies(table: sa.Table, owner: str) -> Iterator[_Policy]:
    yield _Policy(_PERMITS, permissive=True, command="ALL", role="both", using=_NAMED, check=_NAMED)
    bounds = _NAMED
    if table is t.tenants:
        lists = _is_role(owner)
        yield _Policy(_LISTS, permissive=True, command="SELECT", role="owner", using=lists, check=None)
        yield _Policy(_ASSERTS, permissive=True, command="SELECT", role="all", using=_READ, check=None)
        bounds = _either(_NAMED, lists, _READ)
    yield _Policy(_BOUNDS, permissive=False, command="ALL", role="all", using=bounds, check=_NAMED)


def assertion_grants(schema: str, role: str) -> Iterator[str]:
    """Yield what lets *role*, which reads a store of the same database, see the version of the tenant that it reads."""
    yield f"GRANT USAGE ON SCHEMA {quote(schema)} TO {quote(role)}"
    yield f"GRANT SELECT ({', '.join(COLUMNS)}) ON {quote(schema)}.{t.tenants.name} TO {quote(role)}"


_ROLES = sa.text(
    "SELECT one.rolname, one.rolsuper, one.rolbypassrls, one.rolcreaterole, one.rolreplication, "
    "one.rolname = CURRENT_USER AS own FROM pg_catalog.pg_roles AS one "
    "WHERE pg_catalog.pg_has_role(CURRENT_USER, one.oid, 'MEMBER') "
    "OR pg_catalog.pg_has_role(SESSION_USER, one.oid, 'MEMBER') ORDER BY one.rolname"
)
_TABLES = sa.text(
    "SELECT one.relname, one.relkind = 'r' AS plain, one.relrowsecurity, one.relforcerowsecurity, "
    "pg_catalog.pg_get_userbyid(one.relowner) AS owner, "
    "pg_catalog.has_table_privilege(one.oid, 'TRUNCATE, TRIGGER, REFERENCES') AS beyond, "
    "pg_catalog.has_table_privilege(one.oid, 'INSERT, UPDATE, DELETE') AS writes, "
    "EXISTS (SELECT FROM pg_catalog.pg_rewrite AS rule WHERE rule.ev_class = one.oid) AS ruled, "
    "EXISTS (SELECT FROM pg_catalog.pg_trigger AS made WHERE made.tgrelid = one.oid AND NOT made.tgisinternal) "
    "AS triggered, "
    "EXISTS (SELECT FROM pg_catalog.pg_inherits AS two WHERE one.oid IN (two.inhparent, two.inhrelid)) AS inherits, "
    "pg_catalog.to_regclass(pg_catalog.quote_ident(one.relname)) IS NOT DISTINCT FROM one.oid AS reached "
    "FROM pg_catalog.pg_class AS one WHERE one.relnamespace = pg_catalog.to_regnamespace(:schema) "
    "AND one.relname = ANY (:names) ORDER BY one.relname"
)
_POLICIES = sa.text(
    "SELECT one.relname, policy.polname, policy.polpermissive, policy.polcmd::text AS command, "
    "ARRAY(SELECT CASE WHEN one = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(one)::text END "
    "FROM pg_catalog.unnest(policy.polroles) AS one) AS roles, "
    "pg_catalog.pg_get_expr(policy.polqual, policy.polrelid) AS visible, "
    "pg_catalog.pg_get_expr(policy.polwithcheck, policy.polrelid) AS written FROM pg_catalog.pg_policy AS policy "
    "JOIN pg_catalog.pg_class AS one ON one.oid = policy.polrelid "
    "WHERE one.relnamespace = pg_catalog.to_regnamespace(:schema) AND one.relname = ANY (:names) "
    "ORDER BY one.relname, policy.polname"
)
_SCHEMA = sa.text(
    "SELECT pg_catalog.has_schema_privilege(one.oid, 'CREATE') AS creates, "
    "pg_catalog.has_schema_privilege(one.oid, 'USAGE') AS uses "
    "FROM pg_catalog.pg_namespace AS one WHERE one.oid = pg_catalog.to_regnamespace(:schema)"
)
_CURRENT = sa.text("SELECT CURRENT_USER::text")
_PRESET = sa.text("SELECT NULLIF(pg_catalog.current_setting(:setting, true), '')")
_FIX = "vectoracl provision"


def deviations(connection: Connection, schema: str) -> list[Finding]:
    """Return what the role of *connection* could get around, or what of the tables is not as `statements` makes it.

    It is read in a transaction that has named no tenant.
    """
    runtime = str(connection.execute(_CURRENT).scalar_one())
    rows, policies = _read(connection, schema)
    found = list(_of_role(connection, {row.owner for row in rows.values()}))
    found += _of_schema(connection, schema)
    for table in PROTECTED:
        found += _judged(table, schema, rows.get(table.name), policies.get(table.name, []), runtime)
    for name in _OPEN:
        found += _of_open(f"{schema}.{name}", rows.get(name))
    if connection.execute(_PRESET, {"setting": SETTING}).scalar() is not None:
        message = f"The setting {SETTING} has a value before a transaction names its tenants."
        fix = f"Remove {SETTING} from the settings of the role, of the database and of the connection."
        found.append(Finding(REGISTRY_ROWS, "the session", message, fix))
    return found


def _read(connection: Connection, schema: str) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return the rows of the tables and their policies, each by the table's name."""
    about = {"schema": quote(schema), "names": [*(one.name for one in PROTECTED), *_OPEN]}
    rows = {row.relname: row for row in connection.execute(_TABLES, about)}
    policies: dict[str, list[Any]] = {}
    for row in connection.execute(_POLICIES, about):
        policies.setdefault(row.relname, []).append(row)
    return rows, policies


def check_lists(connection: Connection, schema: str, runtime: str) -> None:
    """Raise PostureError unless *connection*, the owner's, is sure to list every tenant.

    Where a policy hid some, an export would be without them, and a verification of all would end without a finding.
    """
    current = str(connection.execute(_CURRENT).scalar_one())
    rows, policies = _read(connection, schema)
    table = t.tenants
    found = list(_judged(table, schema, rows.get(table.name), policies.get(table.name, []), runtime, serves=False))
    others = sorted({row.owner for row in rows.values()} - {current})
    if found or others:
        what = found[0].message if found else f"The tables are owned by {', '.join(others)}, not by {current}."
        raise PostureError(
            f"The owner's role of the registry may not see every tenant, so nothing was done. {what} Name the role "
            "that owns the tables in registry.owner_url, and run `vectoracl provision`."
        )


def _of_schema(connection: Connection, schema: str) -> Iterator[Finding]:
    row = connection.execute(_SCHEMA, {"schema": quote(schema)}).first()
    if row is None or not row.uses:
        yield Finding(REGISTRY_ROWS, schema, "The schema does not exist, or the role may not use it.", _FIX)
    elif row.creates:
        message = "The role of registry.url may create objects in the schema, such as tables in the place of ours."
        fix = f"Let another role own the schema, and REVOKE CREATE ON SCHEMA {quote(schema)} FROM PUBLIC and the role."
        yield Finding(REGISTRY_ROWS, schema, message, fix)


def _of_open(subject: str, row: Any) -> Iterator[Finding]:
    """Yield what is wrong with a table that every process reads and the owner alone writes."""
    if row is None:
        yield Finding(REGISTRY_ROWS, subject, "The table does not exist.", _FIX)
        return
    if row.writes or row.beyond:
        yield Finding(REGISTRY_ROWS, subject, "The role of registry.url may write it.", _FIX)
    yield from _of_objects(subject, row)


def _of_objects(subject: str, row: Any) -> Iterator[Finding]:
    """Yield what stands between a statement and the table, or in its place."""
    for has, what, cure in (
        (row.ruled, "It has a rule, which may do something else instead.", "As the owner, DROP RULE."),
        (row.triggered, "It has a trigger, which may change or keep what is written.", "As the owner, DROP TRIGGER."),
        (row.inherits, "It is a child or a parent of another table.", "As the owner, ALTER TABLE … NO INHERIT."),
    ):
        if has:
            yield Finding(REGISTRY_ROWS, subject, what, cure)
    if not row.reached:
        message = "A statement that names the table does not reach it: the connection has another search_path."
        fix = "A pooler may have left out the options of the connection: let it pass `options`, or connect past it."
        yield Finding(REGISTRY_ROWS, subject, message, fix)


def check_protected(connection: Connection, schema: str) -> None:
    """Raise PostureError where `deviations` finds anything."""
    found = deviations(connection, schema)
    if found:
        listed = "".join(f"\n  {one.rule.id} {one.subject}: {one.message}\n    {one.fix}" for one in found[:8])
        error = PostureError(
            f"The registry's tables are not under the row-level security that this version makes.{listed}\n"
            "`vectoracl provision` makes it, by registry.owner_url; `vectoracl check` lists everything."
        )
        error.findings = tuple(found)
        raise error


def _of_role(connection: Connection, owners: set[str]) -> Iterator[Finding]:
    for row in connection.execute(_ROLES):
        powers = [
            text
            for has, text in (
                (row.rolsuper, "is a superuser"),
                (row.rolbypassrls, "has BYPASSRLS"),
                (row.rolcreaterole, "has CREATEROLE"),
                (row.rolreplication, "has REPLICATION"),
                (row.rolname in STRONG_PREDEFINED, "reaches past grants or to the server's files"),
                (row.rolname in owners, "owns tables of the registry"),
            )
            if has
        ]
        if powers:
            who = "The role of registry.url" if row.own else "The role of registry.url can become a role that"
            message = f"{who} {' and '.join(powers)}."
            fix = (
                "Connect registry.url as a role that owns nothing, without SUPERUSER, BYPASSRLS, CREATEROLE and "
                "REPLICATION, and not a member of such a role or of a predefined role that reaches data or files; name "
                "the owner in registry.owner_url."
            )
            yield Finding(REGISTRY_ROLE, row.rolname, message, fix)


def _judged(
    table: sa.Table, schema: str, row: Any, policies: Sequence[Any], runtime: str, *, serves: bool = True
) -> Iterator[Finding]:
    """Yield what is wrong with *table*; with *serves* also what the role of the connection may do."""
    subject = f"{schema}.{table.name}"

    def finding(message: str, fix: str = _FIX) -> Finding:
        return Finding(REGISTRY_ROWS, subject, message, fix)

    if row is None:
        yield finding("The table does not exist.")
        return
    name = f"{quote(schema)}.{table.name}"
    if not row.plain:
        yield finding("It is not a plain table.", "Restore the table from a backup.")
    if not row.relrowsecurity:
        yield finding("Row-level security is not enabled.", f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;")
    if not row.relforcerowsecurity:
        yield finding("Row-level security is not forced.", f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY;")
    if serves and row.beyond:
        fix = "As the owner, REVOKE TRUNCATE, TRIGGER, REFERENCES ON the table FROM PUBLIC and from the role."
        yield finding("The role of registry.url may truncate it or make triggers, which no policy keeps.", fix)
    yield from _of_objects(subject, row)
    expected = {one.name: one for one in _policies(table, row.owner)}
    for policy in policies:
        wanted = expected.pop(policy.polname, None)
        if wanted is None:
            fix = f"DROP POLICY {quote(policy.polname)} ON {name};"
            yield finding(f"It has the policy {policy.polname!a}, which is not the registry's.", fix)
        elif not _is(policy, wanted, runtime, row.owner):
            yield finding(f"The policy {policy.polname} is not as the registry makes it.")
    for missing in expected:
        yield finding(f"The policy {missing} is missing.")


def _is(policy: Any, wanted: _Policy, runtime: str, owner: str) -> bool:
    roles = {"both": {runtime, owner}, "owner": {owner}, "all": {""}}[wanted.role]  # PostgreSQL names PUBLIC by 0
    command = {"ALL": "*", "SELECT": "r"}[wanted.command]
    return (policy.polpermissive, policy.command, set(policy.roles), policy.visible, policy.written) == (
        wanted.permissive,
        command,
        roles,
        wanted.using.printed,
        None if wanted.check is None else wanted.check.printed,
    )
