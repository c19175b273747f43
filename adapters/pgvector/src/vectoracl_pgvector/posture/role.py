"""Judges the role and the session: their attributes, and the roles that the runtime role can become."""

from __future__ import annotations

from collections.abc import Iterator

from vectoracl.adapter_api.postgres_roles import STRONG_PREDEFINED
from vectoracl.adapter_api.posture import Finding
from vectoracl_pgvector.posture import releases
from vectoracl_pgvector.posture.fix_sql import advice, ident, role
from vectoracl_pgvector.posture.rows import Membership, Role, Setting
from vectoracl_pgvector.posture.snapshot import (
    Snapshot,
    database_of,
    grantee_name,
    make_finding,
    name_of,
    new_owner,
)

_OFF = {"off", "false", "no", "0", "of", "f", "n", "fa", "fal", "fals"}


def runtime_role(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge the runtime role's attributes, what it owns, and which roles it can become."""
    me = next((r for r in snapshot.roles if r.is_runtime), None)
    if me is None:
        return
    who = ident(me.name)
    if me.superuser:
        yield make_finding("PG001", me.name, f"{me.name} is a superuser.", f"ALTER ROLE {who} NOSUPERUSER;")
    if me.bypassrls:
        yield make_finding("PG002", me.name, f"{me.name} has BYPASSRLS.", f"ALTER ROLE {who} NOBYPASSRLS;")
    if me.createrole:
        yield make_finding("PG006", me.name, f"{me.name} has CREATEROLE.", f"ALTER ROLE {who} NOCREATEROLE;")
    if me.replication:
        yield make_finding("PG007", me.name, f"{me.name} has REPLICATION.", f"ALTER ROLE {who} NOREPLICATION;")
    for relation in snapshot.relations:
        if relation.owner == me.name:
            kind = "FOREIGN TABLE" if relation.kind == "f" else "TABLE"
            yield make_finding(
                "PG003", name_of(relation), f"{me.name} is the owner of {name_of(relation)}.",
                f"ALTER {kind} {ident(relation.schema, relation.name)} OWNER TO {ident(new_owner(snapshot))};",
            )  # fmt: skip
    yield from _members(snapshot, me)
    for name, arguments, grantee in snapshot.rows.get("file_functions", []):
        yield make_finding(
            "PG012", f"pg_catalog.{name}", f"{grantee_name(grantee)} may execute {name}({arguments}).",
            f"REVOKE EXECUTE ON FUNCTION pg_catalog.{ident(name)}({arguments}) FROM {role(grantee)};",
        )  # fmt: skip


def _members(snapshot: Snapshot, me: Role) -> Iterator[Finding]:
    memberships = snapshot.read("memberships", Membership)

    def leave(group: str) -> str:
        """Return the revocation of the role's own memberships that lead to *group*: the operator controls these."""
        hops = sorted(m.group for m in memberships if m.member == me.name and _leads(memberships, m.group, group))
        return " ".join(f"REVOKE {ident(hop)} FROM {ident(me.name)};" for hop in hops)

    for other in snapshot.roles:
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
            yield make_finding("PG004", other.name, message, leave(other.name))
        if other.name in STRONG_PREDEFINED:
            yield make_finding("PG005", other.name, f"{me.name} is a member of {other.name}.", leave(other.name))
        if other.name in releases.STATISTICS_PREDEFINED:
            yield make_finding("PG009", other.name, f"{me.name} is a member of {other.name}.", leave(other.name))


def _leads(memberships: list[Membership], start: str, end: str) -> bool:
    visited, todo = set(), [start]
    while todo:
        at = todo.pop()
        if at == end:
            return True
        if at not in visited:
            visited.add(at)
            todo += [m.group for m in memberships if m.member == at]
    return False


def session(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge the login role and the initial settings of the session."""
    server = snapshot.server
    if server is None:
        return
    login = next((r for r in snapshot.roles if r.is_session), None)
    if snapshot.target.runtime_role is None and login is not None and not login.is_runtime:
        powers = [t for has, t in ((login.superuser, "is a superuser"), (login.bypassrls, "has BYPASSRLS"),
                                   (login.owns, "owns the table or a part of it")) if has]  # fmt: skip
        if powers:
            yield make_finding(
                "PG008", login.name, f"The session logged in as {login.name}, which {' and '.join(powers)}.",
                advice(f"Log in as {server.role} itself: put that role into the connection string."),
            )  # fmt: skip
    settings = snapshot.read("settings", Setting)
    tenant = snapshot.target.setting.lower()
    preset = [s for s in settings if s.name == tenant and s.rank > 0]
    for setting in preset:
        yield make_finding(
            "PG011", _scope(snapshot, setting), f"The setting {tenant} has a value before any scope was set.",
            f"ALTER {_scope_sql(snapshot, setting)} RESET {ident(*tenant.split('.'))};",
        )  # fmt: skip
    if server.tenant_preset and not preset:
        yield make_finding(
            "PG011", "session", f"The setting {tenant} has a value in this session, outside any scope.",
            advice(f"Remove {tenant} from the connection's options and from postgresql.conf; set it only by "
                   "set_config(…, true) inside a transaction."),
        )  # fmt: skip
    off = [s for s in settings if s.name == "row_security" and s.rank > 0 and s.value.lower() in _OFF]
    for setting in off:
        yield make_finding(
            "PG010", _scope(snapshot, setting), "row_security is switched off.",
            f"ALTER {_scope_sql(snapshot, setting)} RESET row_security;",
        )  # fmt: skip
    if server.row_security == "off" and not off:
        yield make_finding("PG010", "session", "row_security is off in this session.", "SET row_security = on;")


def _scope(snapshot: Snapshot, setting: Setting) -> str:
    return (
        " in ".join(p for p in (setting.role, database_of(snapshot) if setting.in_database else None) if p)
        or "all roles"
    )


def _scope_sql(snapshot: Snapshot, setting: Setting) -> str:
    database = ident(database_of(snapshot))
    if setting.role is None:
        return f"DATABASE {database}" if setting.in_database else "ROLE ALL"
    return f"ROLE {ident(setting.role)}" + (f" IN DATABASE {database}" if setting.in_database else "")
