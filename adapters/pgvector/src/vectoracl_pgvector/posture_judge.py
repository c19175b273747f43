"""From catalog rows to findings: pure, one small function a topic."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from vectoracl.findings import Finding, Posture
from vectoracl_pgvector import versions
from vectoracl_pgvector.policy_text import Binding, Bound, bind
from vectoracl_pgvector.posture_rows import (
    Code,
    Column,
    DefaultGrant,
    Extension,
    ForeignKey,
    Function,
    Grant,
    Index,
    Membership,
    Policy,
    Publication,
    Related,
    Relation,
    Role,
    Server,
    Setting,
    View,
)
from vectoracl_pgvector.posture_sql import STATEMENTS
from vectoracl_pgvector.rules import RULES
from vectoracl_pgvector.sql_text import advice, columns, ident, literal, role

_Row = TypeVar("_Row", bound=tuple[Any, ...])
_COMMANDS = {"SELECT": "r", "INSERT": "a", "UPDATE": "w", "DELETE": "d"}
_TEXT_TYPES = {"text", "varchar", "bpchar", "citext", "name"}
_ACTIONS = {"r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_WEAK = {
    Binding.TRUE: "PG032",
    Binding.LOOSE: "PG031",
    Binding.DEFAULTED: "PG034",
    Binding.OPAQUE: "PG035",
    Binding.FIXED: "PG040",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What is looked at. `runtime_role` None means the role of the connection; an empty `tenant_column`, none."""

    schema: str = "vectoracl"
    table: str = "chunks"
    tenant_column: str = "tenant_id"
    setting: str = "vectoracl.tenant"
    runtime_role: str | None = None


class _Weak(NamedTuple):
    policy: Policy
    rule: str
    side: str
    bound: Bound


@dataclass(frozen=True)
class _Look:
    """The target and the rows, typed, with what several topics need."""

    target: Target
    rows: Mapping[str, list[tuple[Any, ...]]]
    missing: frozenset[str] = field(default=frozenset())

    def read(self, name: str, row: Callable[..., _Row]) -> list[_Row]:
        return [row(*values) for values in self.rows.get(name, [])]

    @cached_property
    def server(self) -> Server | None:
        found = self.read("server", Server)
        return found[0] if found else None

    @cached_property
    def role(self) -> str:
        return self.server.role if self.server else (self.target.runtime_role or "")

    @cached_property
    def major(self) -> int:
        return self.server.number // 10000 if self.server else 0

    @cached_property
    def roles(self) -> list[Role]:
        return self.read("roles", Role)

    @cached_property
    def relations(self) -> list[Relation]:
        return self.read("relations", Relation)

    @cached_property
    def table(self) -> Relation | None:
        return next((r for r in self.relations if r.place == "target"), None)

    @cached_property
    def children(self) -> list[Relation]:
        return [r for r in self.relations if r.place == "child"]

    @cached_property
    def policies(self) -> dict[int, list[Policy]]:
        found: dict[int, list[Policy]] = defaultdict(list)
        for policy in self.read("policies", Policy):
            found[policy.oid].append(policy)
        return found

    @cached_property
    def grants(self) -> list[Grant]:
        return self.read("grants", Grant)

    @cached_property
    def column(self) -> Column | None:
        found = self.read("columns", Column)
        return found[0] if found else None

    @cached_property
    def type_text(self) -> str:
        return self.column.type_text if self.column else "text"

    def bound(self, expression: str | None, policy: Policy) -> Bound | None:
        found = bind(expression, self.target.tenant_column)
        if found is not None and found.binding is Binding.FIXED and policy.roles == [self.role]:
            return Bound(Binding.ROLE)
        return found

    def condition(self, type_text: str | None = None) -> str:
        """The policy that this check wants to see."""
        value = f"NULLIF(current_setting({literal(self.target.setting)}, true), '')"
        kind = type_text or self.type_text
        cast = "" if kind.startswith(("text", "character varying")) else f"::{kind}"
        return f"{ident(self.target.tenant_column)} = {value}{cast}"

    def holds(self, privilege: str, oid: int) -> bool:
        return any(g.oid == oid and g.privilege == privilege for g in self.grants)


def judge(target: Target, rows: Mapping[str, list[tuple[Any, ...]]]) -> Posture:
    """Judge what `queries(target)` answered. A statement that is missing in *rows* counts as refused."""
    missing = frozenset(name for name, _ in STATEMENTS if name != "search_path") - rows.keys()
    look = _Look(target, rows, missing)
    findings = tuple(sorted(_all(look), key=lambda f: (f.rule.id, f.subject, f.message)))
    return Posture(_grade(look, findings), findings, _facts(look))


def _all(look: _Look) -> Iterator[Finding]:
    yield from _unread(look)
    if look.server is not None and not look.server.role_exists:
        yield _found("PG029", look.role, f"There is no role {look.role}.", f"CREATE ROLE {ident(look.role)} LOGIN;")
        return
    for topic in (_role, _session, _versions, _extensions, _around_schema, _logs):
        yield from topic(look)
    if look.table is None:
        if "relations" not in look.missing:
            yield _found(
                "PG028", _name(look.target.schema, look.target.table), "The table was not found in this database.",
                advice("Correct the schema and table in the configuration, or provision the store."),
            )  # fmt: skip
        return
    if look.table.kind not in "rp":
        yield _found(
            "PG027", _at(look.table), "It is not an ordinary or partitioned table, so it cannot carry policies.",
            advice("Point the configuration at the table behind it, or move the rows into a table."),
        )  # fmt: skip
    for topic in (
        _row_security, _policies, _grants, _tenant_column, _keys, _foreign_keys, _views, _functions, _code,
        _copies, _related, _indexes, _catalog,
    ):  # fmt: skip
        yield from topic(look)


def _grade(look: _Look, findings: Iterable[Finding]) -> str:
    if look.table is None or look.server is None or any(f.rule.lowers for f in findings):
        return "none"
    bounds = [
        side
        for relation in look.relations
        for policy in look.policies[relation.oid]
        if policy.applies and policy.permissive
        for side in (look.bound(policy.using, policy), look.bound(policy.check, policy))
        if side is not None and side.binding is not Binding.NEVER
    ]
    by_role = bool(bounds) and all(b.binding is Binding.ROLE for b in bounds)
    alone = not any(r.reachable and not r.is_runtime for r in look.roles) and (
        look.target.runtime_role is not None or look.server.session_user == look.role
    )
    sound = not versions.affected(look.server.number, versions.ROLE_PLAN_HOLE[1])
    return "credential" if by_role and alone and sound else "engine"


def _facts(look: _Look) -> tuple[tuple[str, str], ...]:
    server, facts = look.server, []
    if server is not None:
        facts += [("server", f"PostgreSQL {server.version}"), ("database", server.database), ("role", server.role)]
        if server.session_user != server.role:
            facts.append(("session user", server.session_user))
    vector = next((e for e in look.read("extensions", Extension) if e.name == "vector"), None)
    facts.append(("pgvector", vector.version if vector else "not installed"))
    facts.append(("table", _name(look.target.schema, look.target.table)))
    facts.append(("tenant column", look.target.tenant_column or "none"))
    facts.append(("partitions and children", str(len(look.children))))
    facts.append(("policies", str(sum(len(look.policies[r.oid]) for r in look.relations))))
    return tuple(facts)


def _unread(look: _Look) -> Iterator[Finding]:
    for name in sorted(look.missing):
        yield _found(
            "PG110", name, f"The server refused to answer the part “{name}”, so it could not be judged.",
            advice("Let the checking role read the system catalogs (the default grants of pg_catalog to PUBLIC)."),
        )  # fmt: skip


# --- the role and the session


def _role(look: _Look) -> Iterator[Finding]:
    me = next((r for r in look.roles if r.is_runtime), None)
    if me is None:
        return
    who = ident(me.name)
    if me.superuser:
        yield _found("PG001", me.name, f"{me.name} is a superuser.", f"ALTER ROLE {who} NOSUPERUSER;")
    if me.bypassrls:
        yield _found("PG002", me.name, f"{me.name} has BYPASSRLS.", f"ALTER ROLE {who} NOBYPASSRLS;")
    if me.createrole:
        yield _found("PG006", me.name, f"{me.name} has CREATEROLE.", f"ALTER ROLE {who} NOCREATEROLE;")
    if me.replication:
        yield _found("PG007", me.name, f"{me.name} has REPLICATION.", f"ALTER ROLE {who} NOREPLICATION;")
    for relation in look.relations:
        if relation.owner == me.name:
            kind = "FOREIGN TABLE" if relation.kind == "f" else "TABLE"
            yield _found(
                "PG003", _at(relation), f"{me.name} is the owner of {_at(relation)}.",
                f"ALTER {kind} {ident(relation.schema, relation.name)} OWNER TO {ident(_new_owner(look))};",
            )  # fmt: skip
    yield from _members(look, me)
    for name, arguments, grantee in look.rows.get("file_functions", []):
        yield _found(
            "PG012", f"pg_catalog.{name}", f"{_who(grantee)} may execute {name}({arguments}).",
            f"REVOKE EXECUTE ON FUNCTION pg_catalog.{ident(name)}({arguments}) FROM {role(grantee)};",
        )  # fmt: skip


def _members(look: _Look, me: Role) -> Iterator[Finding]:
    memberships = look.read("memberships", Membership)

    def leave(group: str) -> str:
        """Cut the ways by which the role itself leads there; the first hop is what its operator controls."""
        hops = sorted(m.group for m in memberships if m.member == me.name and _leads(memberships, m.group, group))
        return " ".join(f"REVOKE {ident(hop)} FROM {ident(me.name)};" for hop in hops)

    for other in look.roles:
        if not other.reachable or other.is_runtime:
            continue
        powers = [
            text
            for has, text in (
                (other.superuser, "is a superuser"),
                (other.bypassrls, "has BYPASSRLS"),
                (other.createrole, "has CREATEROLE"),
                (other.replication, "has REPLICATION"),
                (other.owns, "owns the table or a part of it"),
            )
            if has
        ]
        if powers:
            message = f"{me.name} can act as {other.name}, which {' and '.join(powers)}."
            yield _found("PG004", other.name, message, leave(other.name))
        if other.name in versions.STRONG_PREDEFINED:
            yield _found("PG005", other.name, f"{me.name} is a member of {other.name}.", leave(other.name))
        if other.name in versions.STATISTICS_PREDEFINED:
            yield _found("PG009", other.name, f"{me.name} is a member of {other.name}.", leave(other.name))


def _leads(memberships: list[Membership], start: str, end: str) -> bool:
    seen, todo = set(), [start]
    while todo:
        at = todo.pop()
        if at == end:
            return True
        if at not in seen:
            seen.add(at)
            todo += [m.group for m in memberships if m.member == at]
    return False


def _session(look: _Look) -> Iterator[Finding]:
    server = look.server
    if server is None:
        return
    login = next((r for r in look.roles if r.is_session), None)
    if look.target.runtime_role is None and login is not None and not login.is_runtime:
        powers = [t for has, t in ((login.superuser, "is a superuser"), (login.bypassrls, "has BYPASSRLS"),
                                   (login.owns, "owns the table or a part of it")) if has]  # fmt: skip
        if powers:
            yield _found(
                "PG008", login.name, f"The session logged in as {login.name}, which {' and '.join(powers)}.",
                advice(f"Log in as {server.role} itself: put that role into the connection string."),
            )  # fmt: skip
    settings = look.read("settings", Setting)
    tenant = look.target.setting.lower()
    preset = [s for s in settings if s.name == tenant and s.rank > 0]
    for setting in preset:
        yield _found(
            "PG011", _scope(look, setting), f"The setting {tenant} has a value before any scope was set.",
            f"ALTER {_scope_sql(look, setting)} RESET {ident(*tenant.split('.'))};",
        )  # fmt: skip
    if server.tenant_preset and not preset:
        yield _found(
            "PG011", "session", f"The setting {tenant} has a value in this session, outside any scope.",
            advice(f"Remove {tenant} from the connection's options and from postgresql.conf; set it only by "
                   "set_config(…, true) inside a transaction."),
        )  # fmt: skip
    off = [s for s in settings if s.name == "row_security" and s.rank > 0 and s.value.lower() in _OFF]
    for setting in off:
        yield _found(
            "PG010", _scope(look, setting), "row_security is switched off.",
            f"ALTER {_scope_sql(look, setting)} RESET row_security;",
        )  # fmt: skip
    if server.row_security == "off" and not off:
        yield _found("PG010", "session", "row_security is off in this session.", "SET row_security = on;")


_OFF = {"off", "false", "no", "0", "of", "f", "n", "fa", "fal", "fals"}


def _scope(look: _Look, setting: Setting) -> str:
    return " in ".join(p for p in (setting.role, _database(look) if setting.in_database else None) if p) or "all roles"


def _scope_sql(look: _Look, setting: Setting) -> str:
    database = ident(_database(look))
    if setting.role is None:
        return f"DATABASE {database}" if setting.in_database else "ROLE ALL"
    return f"ROLE {ident(setting.role)}" + (f" IN DATABASE {database}" if setting.in_database else "")


def _database(look: _Look) -> str:
    return look.server.database if look.server else ""


# --- row-level security


def _row_security(look: _Look) -> Iterator[Finding]:
    for relation in look.relations:
        at, sql = _at(relation), ident(relation.schema, relation.name)
        enable, force = f"ALTER TABLE {sql} ENABLE ROW LEVEL SECURITY;", f"ALTER TABLE {sql} FORCE ROW LEVEL SECURITY;"
        if relation.kind == "f":
            if relation.place == "child":
                parent = ident(relation.parent_schema or "", relation.parent_name or "")
                undo = f"ALTER TABLE {parent} DETACH PARTITION {sql};"
                if not relation.is_partition:
                    undo = f"ALTER FOREIGN TABLE {sql} NO INHERIT {parent};"
                yield _found("PG026", at, f"{at} is a foreign table.", undo)
        elif relation.kind not in "rp":
            continue
        elif relation.place == "parent":
            if not (relation.rls and relation.forced):
                policy = f"CREATE POLICY tenant ON {sql} USING ({look.condition()}) WITH CHECK ({look.condition()});"
                fix = " ".join([enable, force] + ([] if look.policies[relation.oid] else [policy]))
                yield _found("PG024", at, f"The parent {at} does not have forced row-level security.", fix)
        else:
            target = relation.place == "target"
            if not relation.rls:
                yield _found("PG020" if target else "PG022", at, f"Row-level security is not enabled on {at}.", enable)
            if not relation.forced:
                yield _found("PG021" if target else "PG023", at, f"Row-level security is not forced on {at}.", force)


# --- policies


def _policies(look: _Look) -> Iterator[Finding]:
    if "policies" in look.missing or not look.target.tenant_column:
        return
    for relation in look.relations:
        if relation.kind in "rp":
            yield from _policies_of(look, relation)
    table = look.table
    if table is None:
        return
    mine = [p for p in look.policies[table.oid] if p.applies and p.permissive]
    for privilege, command in _COMMANDS.items():
        if table.rls and look.holds(privilege, table.oid) and not any(p.command in (command, "*") for p in mine):
            yield _found(
                "PG030", _at(table), f"{look.role} is granted {privilege}, but no policy for it applies.",
                f"CREATE POLICY {ident('tenant_' + privilege.lower())} ON {ident(table.schema, table.name)} "
                f"FOR {privilege} TO {ident(look.role)} {_clauses(command, look.condition())};",
            )  # fmt: skip
    bounds = [b for p in mine for b in (look.bound(p.using, p), look.bound(p.check, p)) if b]
    if any(b.binding is Binding.SETTING for b in bounds):
        yield _found(
            "PG039", _at(table), "The policies compare the tenant with a setting that the role itself can set.",
            advice("Nothing to mend at grade engine. For grade credential give each tenant a role of its own and "
                   "compare the tenant column with CURRENT_USER."),
        )  # fmt: skip


def _policies_of(look: _Look, relation: Relation) -> Iterator[Finding]:
    table = ident(relation.schema, relation.name)
    for weak in _weak_policies(look, look.policies[relation.oid]):
        policy = weak.policy
        said = "accepts" if weak.rule == "PG033" else "shows"
        yield _found(
            weak.rule, f"{_at(relation)}.{policy.name}",
            f"The {'WITH CHECK' if weak.side == 'check' else 'USING'} condition of policy {policy.name} on "
            f"{_at(relation)} {said} more than the tenant's rows, and no restrictive policy narrows it.",
            f"ALTER POLICY {ident(policy.name)} ON {table} {_clauses(policy.command, look.condition())};",
        )  # fmt: skip
    for policy in look.policies[relation.oid]:
        bounds = [b for b in (look.bound(policy.using, policy), look.bound(policy.check, policy)) if b]
        mend = f"ALTER POLICY {ident(policy.name)} ON {table} {_clauses(policy.command, look.condition())};"
        names = frozenset().union(*(b.settings for b in bounds))
        if policy.applies and names and look.target.setting not in names:
            yield _found(
                "PG036", f"{_at(relation)}.{policy.name}",
                f"Policy {policy.name} reads {', '.join(sorted(names))}; configured is {look.target.setting}.", mend,
            )  # fmt: skip
        if any(b.binding is Binding.SETTING and b.lenient for b in bounds):
            yield _found(
                "PG038", f"{_at(relation)}.{policy.name}",
                f"Policy {policy.name} reads the setting without NULLIF(current_setting(…, true), '').", mend,
            )  # fmt: skip


def _weak_policies(look: _Look, policies: list[Policy]) -> Iterator[_Weak]:
    """Permissive policies that let more through than one tenant, unless a restrictive one narrows that command."""
    for policy in policies:
        if not (policy.permissive and policy.applies):
            continue
        for side, expression in (("using", policy.using), ("check", policy.check)):
            bound = look.bound(expression, policy)
            if bound is None or bound.binding >= Binding.SETTING:
                continue
            commands = "rawd" if policy.command == "*" else policy.command
            commands = "".join(c for c in commands if c in ("aw" if side == "check" else "rwd"))
            if all(_narrowed(look, policies, command, side) for command in commands):
                continue
            rule = _WEAK[bound.binding]
            if side == "check" and bound.binding in (Binding.TRUE, Binding.LOOSE):
                rule = "PG033"
            yield _Weak(policy, rule, side, bound)


def _narrowed(look: _Look, policies: list[Policy], command: str, side: str) -> bool:
    for policy in policies:
        if policy.permissive or policy.command not in (command, "*"):
            continue
        if policy.roles != ["public"] and policy.roles != [look.role]:
            continue  # it stops to apply as soon as the session is another role
        bound = look.bound(policy.check or policy.using if side == "check" else policy.using, policy)
        if bound is not None and bound.binding >= Binding.SETTING:
            return True
    return False


def _clauses(command: str, condition: str) -> str:
    using, check = f"USING ({condition})", f"WITH CHECK ({condition})"
    return {"r": using, "d": using, "a": check}.get(command, f"{using} {check}")


# --- grants


def _grants(look: _Look) -> Iterator[Finding]:
    places = {r.oid: r for r in look.relations}
    on_child: dict[tuple[int, str | None], set[str]] = defaultdict(set)
    public: dict[int, set[str]] = defaultdict(set)
    for grant in look.grants:
        relation = places.get(grant.oid)
        if relation is None:
            continue
        at, sql = _at(relation), ident(relation.schema, relation.name)
        rule = {"TRUNCATE": "PG050", "REFERENCES": "PG051", "TRIGGER": "PG052", "MAINTAIN": "PG053"}.get(
            grant.privilege
        )
        if rule is not None:
            what = grant.privilege + (f" ({ident(grant.column)})" if grant.column else "")
            yield _found(
                rule, at, f"{_who(grant.grantee)} is granted {grant.privilege} on {at}.",
                f"REVOKE {what} ON TABLE {sql} FROM {role(grant.grantee)};",
            )  # fmt: skip
        if grant.grantable:
            what = grant.privilege + (f" ({ident(grant.column)})" if grant.column else "")
            yield _found(
                "PG055", at, f"{_who(grant.grantee)} may grant {grant.privilege} on {at} to others.",
                f"REVOKE GRANT OPTION FOR {what} ON TABLE {sql} FROM {role(grant.grantee)} CASCADE;",
            )  # fmt: skip
        if relation.place == "child":
            on_child[grant.oid, grant.grantee].add(grant.privilege)
        elif grant.grantee is None:
            public[grant.oid].add(grant.privilege)
    for (oid, grantee), privileges in on_child.items():
        relation = places[oid]
        yield _found(
            "PG025", _at(relation), f"{_who(grantee)} is granted {_list(privileges)} on {_at(relation)} itself.",
            f"REVOKE ALL ON TABLE {ident(relation.schema, relation.name)} FROM {role(grantee)};",
        )  # fmt: skip
    for oid, privileges in public.items():
        relation = places[oid]
        yield _found(
            "PG054", _at(relation), f"PUBLIC is granted {_list(privileges)} on {_at(relation)}.",
            f"REVOKE ALL ON TABLE {ident(relation.schema, relation.name)} FROM PUBLIC;",
        )  # fmt: skip


# --- tenant column and keys


def _tenant_column(look: _Look) -> Iterator[Finding]:
    table, column = look.table, look.column
    if table is None or "columns" in look.missing:
        return
    at, sql = _at(table), ident(table.schema, table.name)
    if column is None:
        name = look.target.tenant_column or "tenant_id"
        yield _found(
            "PG060", at, f"{at} has no tenant column" + (f" {name}." if look.target.tenant_column else "."),
            f"ALTER TABLE {sql} ADD COLUMN {ident(name)} text NOT NULL CHECK ({ident(name)} <> '');",
        )  # fmt: skip
        return
    subject, name = f"{at}.{column.name}", ident(column.name)
    if not column.not_null:
        yield _found("PG061", subject, "Rows without a tenant are accepted.",
                     f"ALTER TABLE {sql} ALTER COLUMN {name} SET NOT NULL;")  # fmt: skip
    if column.type_name in _TEXT_TYPES and not any("<> ''" in c for c in column.checks):
        yield _found("PG062", subject, "Rows with the empty string as tenant are accepted.",
                     f"ALTER TABLE {sql} ADD CHECK ({name} <> '');")  # fmt: skip
    if column.default is not None and not column.generated:
        yield _found("PG063", subject, "Rows that name no tenant get one by default.",
                     f"ALTER TABLE {sql} ALTER COLUMN {name} DROP DEFAULT;")  # fmt: skip
    if column.type_name in ("citext", "bpchar") or not column.deterministic:
        yield _found(
            "PG064", subject, f"Tenants of the type {column.type_text} with this collation can compare as equal.",
            advice("Drop the policies and keys of the column, run the next line, and create them again:")
            + f'\nALTER TABLE {sql} ALTER COLUMN {name} TYPE text COLLATE "C";',
        )  # fmt: skip


def _keys(look: _Look) -> Iterator[Finding]:
    tenant, places = look.target.tenant_column, {r.oid: r for r in look.relations}
    for index in look.read("indexes", Index):
        if not (index.unique or index.exclusion) or index.parent or (tenant and tenant in index.keys):
            continue
        relation = places[index.oid]
        sql = ident(relation.schema, relation.name)
        keys = [k for k in index.keys if k]
        plain = len(keys) == len(index.keys) and not index.exclusion
        if index.constraint:
            fix = f"ALTER TABLE {sql} DROP CONSTRAINT {ident(index.constraint)}"
            kind = "PRIMARY KEY" if index.constraint_type == "p" else "UNIQUE"
            if plain:
                fix += f", ADD CONSTRAINT {ident(index.constraint)} {kind} ({columns([tenant, *keys])})"
            fix += ";"
        else:
            fix = f"DROP INDEX {ident(index.schema, index.name)};"
            if plain:
                where = f" WHERE {index.predicate}" if index.predicate else ""
                fix += f" CREATE UNIQUE INDEX {ident(index.name)} ON {sql} ({columns([tenant, *keys])}){where};"
        yield _found("PG065", f"{_at(relation)}.{index.name}",
                     f"{index.name} is unique over all tenants: {', '.join(k or 'an expression' for k in index.keys)}.",
                     fix)  # fmt: skip


def _foreign_keys(look: _Look) -> Iterator[Finding]:
    tenant = look.target.tenant_column
    for key in look.read("foreign_keys", ForeignKey):
        if any(a == tenant and b == tenant for a, b in zip(key.columns, key.to_columns, strict=False)):
            continue
        here, there = ident(key.schema, key.table), ident(key.to_schema, key.to_table)
        drop = f"ALTER TABLE {here} DROP CONSTRAINT {ident(key.name)};"
        if key.has_tenant and key.to_has_tenant:
            wanted = [tenant, *key.to_columns]
            unique = "" if ",".join(sorted(wanted)) in {",".join(sorted(u.split(","))) for u in key.to_unique} else (
                f" ALTER TABLE {there} ADD UNIQUE ({columns(wanted)});")  # fmt: skip
            fix = (
                f"{drop}{unique} ALTER TABLE {here} ADD CONSTRAINT {ident(key.name)} "
                f"FOREIGN KEY ({columns([tenant, *key.columns])}) REFERENCES {there} ({columns(wanted)})"
                f"{_action(look, 'UPDATE', key.on_update, key.columns)}"
                f"{_action(look, 'DELETE', key.on_delete, key.columns)};"
            )
        else:
            fix = drop
        yield _found(
            "PG066" if key.direction == "in" else "PG067", f"{key.schema}.{key.table}.{key.name}",
            f"{key.name} goes from {key.schema}.{key.table} to {key.to_schema}.{key.to_table} without the tenant.", fix,
        )  # fmt: skip


def _action(look: _Look, event: str, action: str, names: list[str]) -> str:
    if action not in _ACTIONS:
        return ""
    text = f" ON {event} {_ACTIONS[action]}"
    if action in "nd":
        if event == "UPDATE" or look.major < 15:
            return ""  # it would set the tenant itself
        text += f" ({columns(names)})"
    return text


# --- ways round the policy


def _views(look: _Look) -> Iterator[Finding]:
    for view in look.read("views", View):
        if not view.grantees:
            continue
        at, sql, who = f"{view.schema}.{view.name}", ident(view.schema, view.name), view.grantees
        revoke = f"REVOKE ALL ON TABLE {sql} FROM {', '.join(role(g) for g in who)};"
        if view.kind == "m":
            yield _found("PG071", at, f"{_whom(who)} may read the materialized view {at}.", revoke)
        elif not view.invoker and view.owner_exempt:
            fix = f"ALTER VIEW {sql} SET (security_invoker = true);" if look.major >= 15 else revoke
            yield _found("PG070", at, f"{at} runs as {view.owner}, whom no policy binds; {_whom(who)} may use it.", fix)


def _functions(look: _Look) -> Iterator[Finding]:
    for function in look.read("functions", Function):
        at = f"{function.schema}.{function.name}({function.arguments})"
        kind = "PROCEDURE" if function.kind == "p" else "FUNCTION"
        sql = f"{kind} {ident(function.schema, function.name)}({function.arguments})"
        revoke = f"REVOKE EXECUTE ON {sql} FROM {', '.join(role(g) for g in function.grantees)};"
        whom = f"{at} runs as {function.owner}, whom no policy binds; {_whom(function.grantees)} may call it"
        if function.mentions:
            yield _found("PG072", at, f"{whom}, and it mentions the table.", revoke)
        elif function.opaque:
            yield _found("PG074", at, f"{whom}; what it does at run time cannot be read.", revoke)
        if not function.pinned:
            pin = ", ".join(["pg_catalog", *dict.fromkeys(ident(s) for s in (function.schema, look.target.schema))])
            yield _found("PG073", at, f"{whom}, with a search_path of the caller's choice.",
                         f"ALTER {sql} SET search_path = {pin}, pg_temp;")  # fmt: skip


def _code(look: _Look) -> Iterator[Finding]:
    for code in look.read("code", Code):
        at = f"{code.schema}.{code.function}({code.arguments})"
        fix = (
            f"ALTER FUNCTION {ident(code.schema, code.function)}({code.arguments}) "
            f"OWNER TO {ident(_new_owner(look, code.table_owner))};"
        )
        user = f"{code.kind} {code.name} on {code.table_schema}.{code.table}"
        if code.reachable:
            yield _found("PG037", at, f"{look.role} can replace {at}, which {user} calls.", fix)
        elif code.kind == "trigger" and not code.trusted:
            yield _found("PG075", at, f"{user} calls {at}, which belongs to {code.owner}.", fix)


def _copies(look: _Look) -> Iterator[Finding]:
    for schema, table, name in look.rows.get("rewrite_rules", []):
        yield _found("PG076", f"{schema}.{table}.{name}", f"The rule {name} acts on {schema}.{table}.",
                     f"DROP RULE {ident(name)} ON {ident(schema, table)};")  # fmt: skip
    for publication in look.read("publications", Publication):
        alter = f"ALTER PUBLICATION {ident(publication.name)}"
        if publication.all_tables:
            fix = f"DROP PUBLICATION {ident(publication.name)};"
        elif publication.named_tables:
            named = zip(publication.named_schemas, publication.named_tables, strict=True)
            fix = f"{alter} DROP TABLE {', '.join(ident(*names) for names in named)};"
        else:
            fix = f"{alter} DROP TABLES IN SCHEMA {ident(publication.schema)};"
        yield _found("PG077", publication.name, f"Publication {publication.name} sends rows of every tenant.", fix)


# --- schema, database, settings


def _around_schema(look: _Look) -> Iterator[Finding]:
    for schema, grantee, owner in look.rows.get("schemas", []):
        fix = f"REVOKE CREATE ON SCHEMA {ident(schema)} FROM {role(grantee)};"
        if owner:
            fix = f"ALTER SCHEMA {ident(schema)} OWNER TO {ident(_new_owner(look))};"
        yield _found("PG080", schema, f"{_who(grantee)} may create objects in the schema {schema}.", fix)
    for database, grantee, owner in look.rows.get("database", []):
        fix = f"REVOKE CREATE ON DATABASE {ident(database)} FROM {role(grantee)};"
        if owner:
            fix = f"ALTER DATABASE {ident(database)} OWNER TO {ident(_new_owner(look))};"
        yield _found("PG081", database, f"{_who(grantee)} may create schemas in the database {database}.", fix)
    for default in look.read("default_grants", DefaultGrant):
        schema = f" IN SCHEMA {ident(default.schema)}" if default.schema else ""
        yield _found(
            "PG082", default.schema or "all schemas",
            f"Tables that {default.creator} will create are granted to {_who(default.grantee)}.",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {ident(default.creator)}{schema} "
            f"REVOKE ALL ON TABLES FROM {role(default.grantee)};",
        )  # fmt: skip
    for schema, name, arguments in look.rows.get("leakproof", []):
        yield _found("PG083", f"{schema}.{name}({arguments})", f"{schema}.{name} is marked LEAKPROOF.",
                     f"ALTER FUNCTION {ident(schema, name)}({arguments}) NOT LEAKPROOF;")  # fmt: skip
    for count, compatible in look.rows.get("large_objects", []):
        if compatible:
            yield _found("PG085", "lo_compat_privileges", "Every role may read and write every large object.",
                         "ALTER SYSTEM SET lo_compat_privileges = off; SELECT pg_reload_conf();")  # fmt: skip
        if count:
            yield _found(
                "PG085", "large objects", f"{look.role} can reach {count} large objects, which have no tenant.",
                advice("Move what belongs to tenants into a table with policies, and lo_unlink the rest."),
            )  # fmt: skip


def _logs(look: _Look) -> Iterator[Finding]:
    settings: dict[str, Setting] = {}
    for setting in sorted(look.read("settings", Setting), key=lambda s: s.rank):
        settings[setting.name] = setting
    value = {name: setting.value for name, setting in settings.items()}
    whole = value.get("log_statement", "none") in ("all", "mod")
    timed = any(value.get(n, "-1") != "-1" for n in ("log_min_duration_statement", "log_min_duration_sample"))
    if (whole or timed) and value.get("log_parameter_max_length", "-1") != "0":
        yield _found(
            "PG087", look.role, "Statements are logged, and their parameters with them.",
            f"ALTER ROLE {ident(look.role)} IN DATABASE {ident(_database(look))} SET log_parameter_max_length = 0;",
        )  # fmt: skip


# --- versions


def _versions(look: _Look) -> Iterator[Finding]:
    server = look.server
    if server is None:
        return
    newest = versions.SECURITY_RELEASE.get(look.major)
    update = advice(
        f"Update the server to PostgreSQL {look.major}.{newest} or newer." if newest
        else f"Move to a supported major version (at least PostgreSQL {versions.OLDEST_MAJOR + 2})."
    )  # fmt: skip
    for identifier, fixed in versions.ROW_SECURITY_HOLES:
        if versions.affected(server.number, fixed):
            yield _found(
                "PG090", f"PostgreSQL {server.version}",
                f"{identifier} is closed in {look.major}.{fixed[look.major]}; this is {server.version}.", update,
            )  # fmt: skip
    if look.major < versions.OLDEST_MAJOR:
        yield _found("PG090", f"PostgreSQL {server.version}", "This version is older than what is known here.", update)
    elif versions.affected(server.number, versions.SECURITY_RELEASE):
        yield _found(
            "PG091", f"PostgreSQL {server.version}",
            f"{look.major}.{newest} closes holes that {server.version} has ({versions.SECURITY_RELEASE_CLOSES}).", update,
        )  # fmt: skip
    end = versions.END_OF_LIFE.get(look.major)
    if look.major < versions.OLDEST_MAJOR or (end is not None and server.today > end):
        yield _found(
            "PG092", f"PostgreSQL {server.version}", f"Support of PostgreSQL {look.major} ended" + (f" on {end}." if end else "."),
            advice("Move to a supported major version with pg_upgrade."),
        )  # fmt: skip


def _extensions(look: _Look) -> Iterator[Finding]:
    for extension in look.read("extensions", Extension):
        name = ident(extension.name)
        if extension.name == "vector":
            parts = tuple(int(n) for n in re.findall(r"\d+", extension.version)[:3])
            if parts < versions.PGVECTOR_AT_LEAST:
                yield _found("PG093", "vector", f"pgvector is {extension.version}.", f"ALTER EXTENSION {name} UPDATE;")
        if extension.name in versions.OUTSIDE_EXTENSIONS and extension.usable:
            yield _found("PG084", extension.name, f"{look.role} may use the extension {extension.name}.",
                         f"DROP EXTENSION {name};")  # fmt: skip
        if extension.name == "pg_stat_statements" and extension.statements_readable:
            view = ident(extension.schema, "pg_stat_statements")
            yield _found("PG086", extension.name, f"{look.role} may read pg_stat_statements.",
                         f"REVOKE ALL ON TABLE {view} FROM PUBLIC, {ident(look.role)};")  # fmt: skip


# --- related tables and side channels


def _related(look: _Look) -> Iterator[Finding]:
    for table in look.read("related", Related):
        at, sql = f"{table.schema}.{table.name}", ident(table.schema, table.name)
        force = f"ALTER TABLE {sql} FORCE ROW LEVEL SECURITY;"
        mine = sorted({g.privilege for g in look.grants if g.oid == table.oid})
        if not table.rls:
            if mine:
                condition = look.condition(table.type_text)
                create = f" CREATE POLICY tenant ON {sql} USING ({condition}) WITH CHECK ({condition});"
                yield _found(
                    "PG100", at, f"{look.role} is granted {_list(mine)} on {at}, where no policy holds.",
                    f"ALTER TABLE {sql} ENABLE ROW LEVEL SECURITY; {force}"
                    + ("" if look.policies[table.oid] else create),
                )  # fmt: skip
            continue
        if not table.forced:
            yield _found("PG101", at, f"Row-level security is not forced on {at}.", force)
        for weak in _weak_policies(look, look.policies[table.oid]):
            yield _found(
                "PG102", f"{at}.{weak.policy.name}", f"Policy {weak.policy.name} on {at} is not bound to the tenant.",
                f"ALTER POLICY {ident(weak.policy.name)} ON {sql} "
                f"{_clauses(weak.policy.command, look.condition(table.type_text))};",
            )  # fmt: skip


def _indexes(look: _Look) -> Iterator[Finding]:
    places = {r.oid: r for r in look.relations}
    roots: dict[str, list[str]] = defaultdict(list)
    for index in look.read("indexes", Index):
        relation = places[index.oid]
        if index.method not in ("hnsw", "ivfflat") or index.kind == "I" or _one_tenant(look, relation):
            continue
        partial = bind(index.predicate, look.target.tenant_column)
        if partial is not None and partial.binding is Binding.FIXED:
            continue
        roots[index.parent or ident(index.schema, index.name)].append(_at(relation))
    for root, tables in roots.items():
        parts = root if root.startswith('"') else ident(*root.split(".", 1))
        yield _found(
            "PG105", parts.replace('"', ""), f"An approximate index on {', '.join(sorted(tables))} holds many tenants.",
            f"DROP INDEX {parts};",
        )  # fmt: skip


def _one_tenant(look: _Look, relation: Relation) -> bool:
    """A LIST partition by the tenant column alone, for exactly one value."""
    parent = next(
        (r for r in look.relations if (r.schema, r.name) == (relation.parent_schema, relation.parent_name)), None
    )
    if parent is None or relation.bound is None or parent.partition_key is None:
        return False
    key = parent.partition_key.replace('"', "")
    values = re.fullmatch(r"FOR VALUES IN \(((?:'(?:[^']|'')*')|[-\w.]+)\)", relation.bound)
    if key == f"LIST ({look.target.tenant_column})" and values is not None and values.group(1) != "NULL":
        return True
    return _one_tenant(look, parent)


def _catalog(look: _Look) -> Iterator[Finding]:
    if look.table is not None:
        yield _found(
            "PG106", _at(look.table), f"Row estimates of {len(look.relations)} relations, and the bounds of their "
            "partitions, are open to every role that can connect.",
            advice("Let no stranger run SQL; name partitions by a number or a hash instead of by the tenant."),
        )  # fmt: skip


# --- words


def _found(rule: str, subject: str, message: str, fix: str) -> Finding:
    return Finding(RULES[rule], subject, message, fix)


def _name(schema: str, name: str) -> str:
    return f"{schema}.{name}"


def _at(relation: Relation) -> str:
    return f"{relation.schema}.{relation.name}"


def _who(grantee: str | None) -> str:
    return grantee or "PUBLIC"


def _whom(grantees: Iterable[str]) -> str:
    return ", ".join(_who(g) for g in grantees)


def _list(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def _new_owner(look: _Look, preferred: str | None = None) -> str:
    """A role for `OWNER TO` that the runtime role cannot become; the database's bootstrap name where none is seen."""
    reachable = {r.name for r in look.roles if r.reachable}
    candidates = [preferred, *(r.owner for r in look.relations), look.target.schema + "_owner"]
    return next(c for c in candidates if c and c not in reachable)
