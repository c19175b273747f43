"""Builds the script that secures a table: `vectoracl check --format sql`. From the snapshot to SQL text. Pure.

The fix of a finding is one statement that is correct by itself. Run one after the other, the fixes are not: FORCE
before there is a policy empties the table for its application, an owner that does not exist is an error, a constraint
fails halfway on rows without a tenant. So the script is not the list of fixes. Its order:

    changes to the role and the server, once for all tables
    rows without a tenant: the script looks for them first, and stops with instructions if there are any
    the tenant column, the owner, the grants, the policies, then ENABLE and FORCE
    ways around the policies; and, as comments, the decisions that are left to the reader

Each part is one transaction. Only privileges are removed: no key, index, foreign key or column is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from vectoracl.adapter_api.postgres_roles import STRONG_PREDEFINED
from vectoracl.adapter_api.posture import Finding
from vectoracl_pgvector.posture.fix_sql import ident, literal
from vectoracl_pgvector.posture.policies import weak_policies
from vectoracl_pgvector.posture.rows import Application, Relation, Role
from vectoracl_pgvector.posture.snapshot import Snapshot, database_of, name_of

LOCK_TIMEOUT = 5
_DATA = {"SELECT": "r", "INSERT": "a", "UPDATE": "w", "DELETE": "d"}
# Rules whose statement is correct at any position: on the role and the server, and on objects around a table.
_SERVER = frozenset({"PG004", "PG005", "PG009", "PG010", "PG011", "PG012", "PG081", "PG083", "PG086", "PG087"})
_AROUND = frozenset({"PG070", "PG071", "PG072", "PG073", "PG074", "PG080", "PG082"})
# Rules that the parts below handle differently.
_WRITTEN = frozenset({
    "PG001", "PG002", "PG003", "PG006", "PG007", "PG020", "PG021", "PG022", "PG023", "PG024", "PG025", "PG030", "PG031",
    "PG032", "PG033", "PG034", "PG035", "PG036", "PG038", "PG040", "PG050", "PG051", "PG052", "PG053", "PG054", "PG055",
    "PG060", "PG061", "PG062", "PG063", "PG069", "PG088", "PG104",
})  # fmt: skip
_UNKNOWN = Application(bootstrap=False, owns_database=False, schema_usage=True)
_MANAGED = ("superuser", "admin")


def script(snapshot: Snapshot, findings: Iterable[Finding]) -> tuple[tuple[str, str], ...]:
    """Return the parts as (title, SQL): the role and the server, then the table. Two tables can share a part."""
    if snapshot.table is None or snapshot.server is None or snapshot.table.kind not in "rp":
        return ()
    writer = _Script(snapshot, list(findings))
    return (
        ("the application's role and the server", writer.server()),
        (name_of(snapshot.table), writer.table()),
    )


class _Script:
    """The script of one table."""

    def __init__(self, snapshot: Snapshot, findings: list[Finding]) -> None:
        self._snapshot = snapshot
        self._findings = findings
        assert snapshot.table is not None
        self._table = snapshot.table
        self._sql = ident(snapshot.table.schema, snapshot.table.name)
        self._me = next((r for r in snapshot.roles if r.is_runtime), None)
        application = snapshot.read("application", Application)
        self._application = application[0] if application else _UNKNOWN
        # An administrator keeps its privileges: the application gets a new role instead.
        self._new_role = self._me is not None and self._administers(self._me)
        # Roles belong to the whole cluster, so a new one is named after the database.
        self._role = self._new_role_name("app") if self._new_role else snapshot.role
        self._owner = self._new_owner()

    def _administers(self, me: Role) -> bool:
        application, roles = self._application, [r.name for r in self._snapshot.roles if r.reachable]
        managed = any(name in STRONG_PREDEFINED and name.endswith(_MANAGED) for name in roles)
        return (
            application.bootstrap
            or me.createrole
            or managed
            or (application.owns_database and (me.superuser or me.bypassrls))
        )

    def _new_owner(self) -> str:
        reachable = {r.name for r in self._snapshot.roles if r.reachable}
        owners = [r.owner for r in self._snapshot.relations]
        there = next((o for o in owners if o not in reachable), None)
        return there or self._new_role_name("owner")

    def _new_role_name(self, suffix: str) -> str:
        role_names = {r.name for r in self._snapshot.roles}
        base = database_of(self._snapshot).encode()[:50].decode(errors="ignore")
        names = [f"{base}_{suffix}", *(f"{base}_{suffix}_{number}" for number in range(2, 100))]
        return next(name for name in names if name not in role_names)

    # --- the role and the server

    def server(self) -> str:
        """Return the part that runs once."""
        head = (
            f"-- Database {database_of(self._snapshot)}: the role of the application ({self._snapshot.role}) and "
            "the server."
        )
        todo = [*self._roles(), *self._database(), *self._statements(_SERVER)]
        lines = [head, "-- Nothing to change."]
        if todo:
            how = "-- Run it as a superuser, or as the role that created the other roles."
            lines = [head, how, "BEGIN;", *todo, "COMMIT;"]
        return "\n".join(lines) + "\n"

    def _statements(self, rules: frozenset[str]) -> Iterator[str]:
        """Yield the findings' statements, except revocations from an administrator and changes of ownership."""
        mine = ident(self._snapshot.role)
        for one in self._findings:
            if one.rule.id not in rules or not _is_statement(one) or " OWNER TO " in one.fix:
                continue
            if not (self._new_role and mine in one.fix):
                yield _statement(one)

    def _database(self) -> Iterator[str]:
        """Yield the transfer of the database from the application's role, whose owner can drop tables in public."""
        if self._new_role or not self._application.owns_database:
            return
        database, role = ident(database_of(self._snapshot)), ident(self._role)
        yield (
            f"-- A database's owner can create schemas in it and drop every table in public: {self._owner} owns it now."
        )
        yield _create_role(self._owner, "NOLOGIN NOSUPERUSER NOBYPASSRLS")
        yield _grant_membership([self._owner, self._snapshot.role])
        yield f"ALTER DATABASE {database} OWNER TO {ident(self._owner)};"
        yield f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role};"

    def _roles(self) -> Iterator[str]:
        me = self._me
        if self._new_role:
            yield (
                f"-- {self._snapshot.role} administers the server: no policy binds the application while it connects "
                "as\n"
                f"-- {self._snapshot.role}. From now on it connects as a new role; set its password: "
                f"ALTER ROLE {ident(self._role)} PASSWORD '…';"
            )
            yield _create_role(self._role, "LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT")
        elif me is not None:
            options = [
                word
                for has, word in (
                    (me.superuser, "NOSUPERUSER"),
                    (me.bypassrls, "NOBYPASSRLS"),
                    (me.createrole, "NOCREATEROLE"),
                    (me.replication, "NOREPLICATION"),
                )
                if has
            ]
            if options:
                yield f"ALTER ROLE {ident(me.name)} {' '.join(options)};"

    # --- the table

    def table(self) -> str:
        """Return the part for the table."""
        snapshot = self._snapshot
        setting = literal(snapshot.target.setting)
        guess = " (a guess: confirm it with --tenant-column)" if snapshot.target.guessed else ""
        lines = [
            f"-- {name_of(self._table)}: each row belongs to the tenant in {snapshot.tenant or 'tenant_id'}{guess}.",
            "-- Run it as a superuser, or as the table's owner where it may create roles. The application connects",
            f"-- as {self._role} and sets the tenant at the start of each transaction:",
            f"--     SELECT set_config({setting}, 'TENANT', true);",
            *self._column_first(),
            "BEGIN;",
            "-- If it ends with 55P03 the table is in use: nothing was changed, run it again.",
            f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s';",
            "SET LOCAL search_path = pg_catalog, pg_temp;",
            _grant_membership(sorted({r.owner for r in snapshot.relations})),
            *self._orphan_check(),
            *self._column(),
            *self._ownership(),
            *self._grants(),
            *self._policies(),
            *self._row_security(),
            *self._statements(_AROUND),
            "COMMIT;",
            *self._remaining_findings(),
        ]
        return "\n".join(lines) + "\n"

    @property
    def _tenant(self) -> str:
        return self._snapshot.tenant.sql if self._snapshot.tenant else ident("tenant_id")

    @property
    def _is_text(self) -> bool:
        kind = self._snapshot.type_text
        return (
            self._snapshot.column is None
            or self._snapshot.tenant.key is not None
            or kind.startswith(("text", "character"))
        )

    def _condition(self) -> str:
        if self._snapshot.tenant:
            return self._snapshot.condition()
        return f"{ident('tenant_id')} = NULLIF(current_setting({literal(self._snapshot.target.setting)}, true), '')"

    def _missing(self) -> bool:
        return self._snapshot.column is None and self._snapshot.tenant.key is None

    def _column_first(self) -> Iterator[str]:
        """Yield a missing tenant column, outside the transaction, so that it persists while it is filled."""
        if self._missing():
            now = f"NULLIF(current_setting({literal(self._snapshot.target.setting)}, true), '')"
            yield "BEGIN;"
            yield f"ALTER TABLE {self._sql} ADD COLUMN IF NOT EXISTS {self._tenant} text;"
            yield f"ALTER TABLE {self._sql} ALTER COLUMN {self._tenant} SET DEFAULT {now};  -- the tenant that is set"
            yield "COMMIT;"

    def _orphan_check(self) -> Iterator[str]:
        """Yield the check that stops the script if rows have no tenant, unless row-level security could hide them."""
        empty = f" OR {self._tenant} = ''" if self._is_text else ""
        condition = f"{self._tenant} IS NULL{empty}"
        if not self._visible():
            return
        text = (
            f" rows of {name_of(self._table)} have no tenant. Nothing was changed. Look at them: SELECT * FROM "
            f"{self._sql} WHERE {condition}; set the tenant of each, or delete it, and run this again."
        )
        body = (
            f"DECLARE orphans bigint; BEGIN SELECT count(*) INTO orphans FROM {self._sql} WHERE {condition}; "
            f"IF orphans > 0 THEN RAISE EXCEPTION USING MESSAGE = orphans || {literal(text)}; END IF; END"
        )
        yield f"DO {_quoted_body(body)};"

    def _visible(self) -> bool:
        """Return whether all rows are visible; if policies hide some, the constraints below detect them."""
        return not (self._table.rls and self._table.forced)

    def _column(self) -> Iterator[str]:
        snapshot = self._snapshot
        name, ids = self._tenant, {f.rule.id for f in self._findings}
        fixes = " ".join(f.fix for f in self._findings if f.rule.id in ("PG061", "PG062", "PG069"))
        now = f"NULLIF(current_setting({literal(snapshot.target.setting)}, true), '')"
        if snapshot.tenant.key is not None:
            if "PG069" in ids:
                yield f"ALTER TABLE {self._sql} ADD CHECK ({name} IS NOT NULL AND {name} <> '');"
            return
        if "PG063" in ids:
            cast = "" if self._is_text else f"::{snapshot.type_text}"
            yield f"ALTER TABLE {self._sql} ALTER COLUMN {name} SET DEFAULT {now}{cast};  -- the tenant that is set"
        if self._missing() or " SET NOT NULL" in fixes:
            yield f"ALTER TABLE {self._sql} ALTER COLUMN {name} SET NOT NULL;"
        if self._missing() or " ADD CHECK " in fixes:
            yield f"ALTER TABLE {self._sql} ADD CHECK ({name} <> '');"

    def _owned(self) -> list[Relation]:
        """Return the relations that the application's role owns, or can come to own."""
        if self._new_role:
            return []
        reachable = {r.name for r in self._snapshot.roles if r.reachable}
        return [r for r in self._snapshot.relations if r.owner in reachable and r.kind in "rpf"]

    def _ownership(self) -> Iterator[str]:
        owned = self._owned()
        if not owned and not self._owns_schema():
            return
        schema = ident(self._table.schema)
        existing = {r.owner for r in self._snapshot.relations}
        yield f"-- {self._role} could drop the policies while it owns the table: from now on {self._owner} owns it,"
        yield "-- and migrations run as that role."
        if self._owner not in existing:
            yield _create_role(self._owner, "NOLOGIN NOSUPERUSER NOBYPASSRLS")
        yield _grant_membership([self._owner])
        yield f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {ident(self._owner)};"
        if self._owns_schema():
            yield f"ALTER SCHEMA {schema} OWNER TO {ident(self._owner)};"
            yield f"GRANT USAGE ON SCHEMA {schema} TO {ident(self._role)};"
        for relation in owned:
            kind = "FOREIGN TABLE" if relation.kind == "f" else "TABLE"
            yield f"ALTER {kind} {ident(relation.schema, relation.name)} OWNER TO {ident(self._owner)};"

    def _owns_schema(self) -> bool:
        return not self._new_role and any(f.rule.id == "PG088" for f in self._findings)

    def _used_privileges(self) -> set[str]:
        """Return the privileges that the application uses on the table today."""
        snapshot, table = self._snapshot, self._table
        if self._new_role or any(r.oid == table.oid for r in self._owned()):
            return set(_DATA)
        return {g.privilege for g in snapshot.grants if g.oid == table.oid and g.column is None} & _DATA.keys()

    def _grants(self) -> Iterator[str]:
        snapshot, privileges = self._snapshot, self._used_privileges()
        role = ident(self._role)
        for relation in snapshot.relations:
            sql = ident(relation.schema, relation.name)
            theirs = [g for g in snapshot.grants if g.oid == relation.oid]
            names = sorted({g.grantee for g in theirs if g.grantee is not None})
            if relation.position == "child" and names:
                yield f"REVOKE ALL ON TABLE {sql} FROM {', '.join(map(ident, names))};"
            elif any(g.grantable for g in theirs) and names:
                yield f"REVOKE GRANT OPTION FOR ALL ON TABLE {sql} FROM {', '.join(map(ident, names))} CASCADE;"
            if any(g.grantee is None for g in theirs):
                yield f"REVOKE ALL ON TABLE {sql} FROM PUBLIC;"
            more = sorted({g.privilege for g in theirs} - _DATA.keys())
            if relation.position != "child" and names and more:
                yield f"REVOKE {', '.join(more)} ON TABLE {sql} FROM {', '.join(map(ident, names))};"
        if self._new_role or not self._application.schema_usage:
            yield f"GRANT USAGE ON SCHEMA {ident(self._table.schema)} TO {role};"
        if privileges:
            yield f"GRANT {', '.join(c for c in _DATA if c in privileges)} ON TABLE {self._sql} TO {role};"
        if "INSERT" in privileges:
            for column in snapshot.all_columns:
                if column.sequence and column.sequence_schema:
                    sequence = ident(column.sequence_schema, column.sequence)
                    yield f"GRANT USAGE ON SEQUENCE {sequence} TO {role};"

    def _policies(self) -> Iterator[str]:
        """Yield a policy for each used privilege, and a restrictive one where policies show more than the tenant."""
        snapshot, condition, role = self._snapshot, self._condition(), ident(self._role)
        for relation in snapshot.relations:
            if relation.kind not in "rp" or relation.position == "child":
                continue
            sql = ident(relation.schema, relation.name)
            there = snapshot.policies[relation.oid]
            names = {p.name for p in there}
            mine = [p for p in there if p.permissive and (p.applies if not self._new_role else p.roles == ["public"])]
            open_ = [
                c for c in _DATA if c in self._used_privileges() and not any(p.command in (_DATA[c], "*") for p in mine)
            ]
            if self._replaced(relation):
                yield "-- The existing policies show more than a tenant's rows. This one narrows them."
                yield (
                    f"CREATE POLICY {ident(_unused_name('tenant_only', names))} ON {sql} AS RESTRICTIVE FOR ALL TO "
                    f"{role} USING ({condition}) WITH CHECK ({condition});"
                )
            if open_ and not mine:
                yield (
                    f"CREATE POLICY {ident(_unused_name('tenant', names))} ON {sql} AS PERMISSIVE FOR ALL TO {role} "
                    f"USING ({condition}) WITH CHECK ({condition});"
                )
                continue
            for command in open_:
                using = "" if command == "INSERT" else f" USING ({condition})"
                check = f" WITH CHECK ({condition})" if command in ("INSERT", "UPDATE") else ""
                name = ident(_unused_name(f"tenant_{command.lower()}", names))
                yield f"CREATE POLICY {name} ON {sql} AS PERMISSIVE FOR {command} TO {role}{using}{check};"

    def _replaced(self, relation: Relation) -> bool:
        policies = self._snapshot.policies[relation.oid]
        if self._new_role:
            policies = [p._replace(applies=p.roles == ["public"]) for p in policies]
        lenient = any(
            b is not None and b.lenient and p.applies and p.permissive
            for p in policies
            for b in (self._snapshot.bound(p.using, p), self._snapshot.bound(p.check, p))
        )
        foreign = any(f.rule.id == "PG036" for f in self._findings)
        return lenient or foreign or any(True for _ in weak_policies(self._snapshot, policies))

    def _row_security(self) -> Iterator[str]:
        for relation in self._snapshot.relations:
            if relation.kind not in "rp":
                continue
            sql = ident(relation.schema, relation.name)
            if not relation.rls:
                yield f"ALTER TABLE {sql} ENABLE ROW LEVEL SECURITY;"
            if not relation.forced:
                yield f"ALTER TABLE {sql} FORCE ROW LEVEL SECURITY;"

    # --- remaining findings

    def _remaining_findings(self) -> Iterator[str]:
        run = set(self._statements(_SERVER | _AROUND))
        remaining = [f for f in self._findings if f.rule.id not in _WRITTEN and _statement(f) not in run]
        if self._application.owns_database and not self._new_role:
            remaining = [f for f in remaining if f.rule.id != "PG081"]
        if self._new_role:
            yield f"-- Check again as the new role: vectoracl check --role {self._role}"
        if not remaining:
            return
        yield "-- Left for you to decide; the script changes none of this:"
        for one in remaining:
            yield f"-- [{one.rule.id}, {one.rule.severity}] {_comment_line(one.message)}"
            yield from (f"--     {_comment_line(line)}" for line in one.fix.splitlines())


def _is_statement(finding: Finding) -> bool:
    return not finding.fix.startswith("--")


def _statement(finding: Finding) -> str:
    return f"{finding.fix}  -- {finding.rule.id}" if "\n" not in finding.fix else finding.fix


def _comment_line(text: str) -> str:
    """Return *text* as one line of a comment."""
    return " ".join(re.sub(r"^-- ?", "", text).split())


def _quoted_body(text: str) -> str:
    """Quote the body of a DO, in a readable form if its names permit it."""
    return f"$do$ {text} $do$" if "$do$" not in text else literal(text)


def _unused_name(name: str, taken: set[str]) -> str:
    """Return *name*, with a number if a policy of the table already has that name."""
    candidates = [name, *(f"{name}_{number}" for number in range(2, 100))]
    return next(one for one in candidates if one not in taken)


def _create_role(name: str, options: str) -> str:
    body = (
        f"BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {literal(name)}) THEN "
        f"CREATE ROLE {ident(name)} {options}; END IF; END"
    )
    return f"DO {_quoted_body(body)};"


def _grant_membership(names: list[str]) -> str:
    """Return the grant of the owner roles that lets a role without SUPERUSER change or transfer a table."""
    grants = " ".join(
        f"IF NOT pg_catalog.pg_has_role(current_user, {literal(name)}, 'USAGE') THEN "
        f"EXECUTE pg_catalog.format('GRANT %I TO %I', {literal(name)}, current_user); END IF;"
        for name in names
    )
    return f"DO {_quoted_body(f'BEGIN {grants} END')};"
