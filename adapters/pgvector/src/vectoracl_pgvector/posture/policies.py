"""Judges row-level security and policies of the table, its partitions and related tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vectoracl.adapter_api.posture import Finding
from vectoracl_pgvector.posture.fix_sql import advice, ident
from vectoracl_pgvector.posture.policy_expressions import Binding, Bound
from vectoracl_pgvector.posture.rows import Policy, Related, Relation
from vectoracl_pgvector.posture.snapshot import Snapshot, joined, make_finding, name_of

_COMMANDS = {"SELECT": "r", "INSERT": "a", "UPDATE": "w", "DELETE": "d"}


_WEAK = {
    Binding.TRUE: "PG032",
    Binding.LOOSE: "PG031",
    Binding.DEFAULTED: "PG034",
    Binding.OPAQUE: "PG035",
    Binding.FIXED: "PG040",
}


class _Weak(NamedTuple):
    policy: Policy
    rule: str
    side: str
    bound: Bound


def row_security(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge ENABLE and FORCE on the table, its parents, and its partitions and children."""
    for relation in snapshot.relations:
        at, sql = name_of(relation), ident(relation.schema, relation.name)
        enable, force = f"ALTER TABLE {sql} ENABLE ROW LEVEL SECURITY;", f"ALTER TABLE {sql} FORCE ROW LEVEL SECURITY;"
        if relation.kind == "f":
            if relation.position == "child":
                parent = ident(relation.parent_schema or "", relation.parent_name or "")
                undo = f"ALTER TABLE {parent} DETACH PARTITION {sql};"
                if not relation.is_partition:
                    undo = f"ALTER FOREIGN TABLE {sql} NO INHERIT {parent};"
                yield make_finding("PG026", at, f"{at} is a foreign table.", undo)
        elif relation.kind not in "rp":
            continue
        elif relation.position == "parent":
            if not (relation.rls and relation.forced):
                policy = (
                    f"CREATE POLICY tenant ON {sql} USING ({snapshot.condition()}) WITH CHECK ({snapshot.condition()});"
                )
                fix = " ".join([enable, force] + ([] if snapshot.policies[relation.oid] else [policy]))
                yield make_finding("PG024", at, f"The parent {at} does not have forced row-level security.", fix)
        else:
            target = relation.position == "target"
            if (
                snapshot.target.foreign
                and not target
                and not (relation.rls and relation.forced)
                and _has_no_privilege(snapshot, relation)
            ):
                yield make_finding(
                    "PG104", at, f"{at} has no forced row-level security, and the application's roles cannot query it "
                    "directly.",
                    " ".join([enable, force, *_policy(snapshot, relation, sql)]),
                )  # fmt: skip
                continue
            if not relation.rls:
                yield make_finding(
                    "PG020" if target else "PG022", at, f"Row-level security is not enabled on {at}.", enable
                )
            if not relation.forced:
                yield make_finding(
                    "PG021" if target else "PG023", at, f"Row-level security is not forced on {at}.", force
                )


def _has_no_privilege(snapshot: Snapshot, relation: Relation) -> bool:
    """Return whether the role, and the roles it can become, have no privilege on the relation itself."""
    owner = any(r.reachable and r.name == relation.owner for r in snapshot.roles)
    return not owner and not any(g.oid == relation.oid for g in snapshot.grants)


def _policy(snapshot: Snapshot, relation: Relation, sql: str) -> list[str]:
    if snapshot.policies[relation.oid]:
        return []
    return [f"CREATE POLICY tenant ON {sql} USING ({snapshot.condition()}) WITH CHECK ({snapshot.condition()});"]


def policies(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge the policies of the table, its parents, and its partitions and children."""
    if "policies" in snapshot.missing or not snapshot.tenant:
        return
    sound: set[tuple[int, ...]] = set()  # by identity: thousands of partitions share the same policies
    for relation in snapshot.relations:
        alike = tuple(map(id, snapshot.policies[relation.oid]))
        if relation.kind in "rp" and alike not in sound:
            findings = list(_policies_of(snapshot, relation))
            yield from findings
            if not findings:
                sound.add(alike)
    table = snapshot.table
    if table is None:
        return
    mine = [p for p in snapshot.policies[table.oid] if p.applies and p.permissive]
    for privilege, command in _COMMANDS.items():
        if table.rls and snapshot.holds(privilege, table.oid) and not any(p.command in (command, "*") for p in mine):
            yield make_finding(
                "PG030", name_of(table), f"{snapshot.role} is granted {privilege}, but no policy for it applies.",
                f"CREATE POLICY {ident('tenant_' + privilege.lower())} ON {ident(table.schema, table.name)} "
                f"FOR {privilege} TO {ident(snapshot.role)} {clauses(command, snapshot.condition())};",
            )  # fmt: skip
    bounds = [b for p in mine for b in (snapshot.bound(p.using, p), snapshot.bound(p.check, p)) if b]
    if any(b.binding is Binding.SETTING for b in bounds):
        yield make_finding(
            "PG039", name_of(table), "The policies compare the tenant with a setting that the role itself can set.",
            advice("Nothing to fix for grade engine. For grade credential give each tenant its own role and compare "
                   "the tenant column with CURRENT_USER."),
        )  # fmt: skip


def _policies_of(snapshot: Snapshot, relation: Relation) -> Iterator[Finding]:
    table = ident(relation.schema, relation.name)
    for weak in weak_policies(snapshot, snapshot.policies[relation.oid]):
        policy = weak.policy
        verb = "accepts" if weak.rule == "PG033" else "shows"
        yield make_finding(
            weak.rule, f"{name_of(relation)}.{policy.name}",
            f"The {'WITH CHECK' if weak.side == 'check' else 'USING'} condition of policy {policy.name} on "
            f"{name_of(relation)} {verb} more than the tenant's rows, and no restrictive policy narrows it.",
            _of_token(snapshot, policy, table)
            or f"ALTER POLICY {ident(policy.name)} ON {table} {clauses(policy.command, snapshot.condition())};",
        )  # fmt: skip
    for policy in snapshot.policies[relation.oid]:
        bounds = [b for b in (snapshot.bound(policy.using, policy), snapshot.bound(policy.check, policy)) if b]
        if policy.applies and policy.volatile:
            yield make_finding(
                "PG035", f"{name_of(relation)}.{policy.name}",
                f"Policy {policy.name} calls {policy.volatile}, which can do more than compare: it is called for rows "
                "of every tenant, and can keep or pass on what it sees.",
                f"DROP POLICY {ident(policy.name)} ON {table};",
            )  # fmt: skip
        fix = f"ALTER POLICY {ident(policy.name)} ON {table} {clauses(policy.command, snapshot.condition())};"
        names = frozenset().union(*(b.settings for b in bounds))
        if policy.applies and names and snapshot.target.setting not in names:
            yield make_finding(
                "PG036", f"{name_of(relation)}.{policy.name}",
                f"Policy {policy.name} reads {', '.join(sorted(names))}; the configured setting is "
                f"{snapshot.target.setting}.", fix,
            )  # fmt: skip
        if not snapshot.target.foreign and policy.permissive and policy.roles == ["public"] and policy.name.startswith(
            "vectoracl_"
        ):  # fmt: skip
            yield make_finding(
                "PG041", f"{name_of(relation)}.{policy.name}",
                f"Policy {policy.name} on {name_of(relation)} applies to every role: an earlier version created it.",
                advice("Run `vectoracl provision`: it creates the policies of this version, in one transaction."),
            )  # fmt: skip
        if any(b.binding is Binding.SETTING and b.lenient for b in bounds) and not _strictly_narrowed(
            snapshot, snapshot.policies[relation.oid], policy
        ):
            yield make_finding(
                "PG038", f"{name_of(relation)}.{policy.name}",
                f"Policy {policy.name} reads the setting without NULLIF(current_setting(…, true), '').", fix,
            )  # fmt: skip


def _of_token(snapshot: Snapshot, policy: Policy, table: str) -> str:
    """Return the fix for a policy that calls Supabase's helper functions, or "" if it calls none."""
    text = f"{policy.using} {policy.check}"
    claims = "NULLIF(current_setting('request.jwt.claims', true), '')::jsonb"
    if "auth.uid()" in text:
        cast = "" if snapshot.type_text.startswith(("text", "character varying")) else f"::{snapshot.type_text}"
        condition = f"{snapshot.tenant.sql} = ({claims} ->> 'sub'){cast}"
        return f"ALTER POLICY {ident(policy.name)} ON {table} {clauses(policy.command, condition)};"
    if "auth.jwt()" in text:
        return advice(
            f"Replace auth.jwt() with what it reads: {snapshot.tenant.sql} = {claims} ->> 'CLAIM' (preceded by -> "
            "'app_metadata' if the claim is there). Use a claim that the user cannot change, not user_metadata."
        )
    return ""


def weak_policies(snapshot: Snapshot, policies: list[Policy]) -> Iterator[_Weak]:
    """Yield permissive policies that permit more than one tenant, unless a restrictive one narrows that command."""
    for policy in policies:
        if not (policy.permissive and policy.applies):
            continue
        for side, expression in (("using", policy.using), ("check", policy.check)):
            bound = snapshot.bound(expression, policy)
            if bound is None or bound.binding >= Binding.SETTING:
                continue
            commands = "rawd" if policy.command == "*" else policy.command
            commands = "".join(c for c in commands if c in ("aw" if side == "check" else "rwd"))
            if all(_narrowed(snapshot, policies, command, side) for command in commands):
                continue
            rule = _WEAK[bound.binding]
            if side == "check" and bound.binding in (Binding.TRUE, Binding.LOOSE):
                rule = "PG033"
            yield _Weak(policy, rule, side, bound)


def _narrowed(snapshot: Snapshot, policies: list[Policy], command: str, side: str) -> bool:
    for policy in policies:
        if policy.permissive or policy.command not in (command, "*"):
            continue
        if policy.roles != ["public"] and not _always(snapshot, policy):
            continue  # it no longer applies when the session uses another role
        bound = snapshot.bound(policy.check or policy.using if side == "check" else policy.using, policy)
        if bound is not None and bound.binding >= Binding.SETTING:
            return True
    return False


def _strictly_narrowed(snapshot: Snapshot, policies: list[Policy], policy: Policy) -> bool:
    """Return whether restrictive policies that reject an empty setting narrow every side of *policy*."""
    commands = "rawd" if policy.command == "*" else policy.command
    strict = [
        p
        for p in policies
        if all(bound is None or not bound.lenient for bound in (snapshot.bound(p.using, p), snapshot.bound(p.check, p)))
    ]
    sides = [side for side, text in (("using", policy.using), ("check", policy.check)) if text is not None]
    return policy.permissive and all(
        _narrowed(snapshot, strict, command, side)
        for side in sides
        for command in commands
        if command in ("aw" if side == "check" else "rwd")
    )


def _always(snapshot: Snapshot, policy: Policy) -> bool:
    """Return whether a policy names every role that the session can become."""
    return {r.name for r in snapshot.roles if r.reachable} <= set(policy.roles)


def clauses(command: str, condition: str) -> str:
    """Return the USING and WITH CHECK clauses that *command* accepts."""
    using, check = f"USING ({condition})", f"WITH CHECK ({condition})"
    return {"r": using, "d": using, "a": check}.get(command, f"{using} {check}")


def related(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge tables of the same schema that also have the tenant column."""
    for table in snapshot.read("related", Related):
        at, sql = f"{table.schema}.{table.name}", ident(table.schema, table.name)
        force = f"ALTER TABLE {sql} FORCE ROW LEVEL SECURITY;"
        mine = sorted({g.privilege for g in snapshot.grants if g.oid == table.oid})
        if not table.rls:
            if mine:
                condition = snapshot.condition(table.type_text)
                create = f" CREATE POLICY tenant ON {sql} USING ({condition}) WITH CHECK ({condition});"
                yield make_finding(
                    "PG100", at, f"{snapshot.role} is granted {joined(mine)} on {at}, where no policy applies.",
                    f"ALTER TABLE {sql} ENABLE ROW LEVEL SECURITY; {force}"
                    + ("" if snapshot.policies[table.oid] else create),
                )  # fmt: skip
            continue
        if not table.forced:
            yield make_finding("PG101", at, f"Row-level security is not forced on {at}.", force)
        for weak in weak_policies(snapshot, snapshot.policies[table.oid]):
            yield make_finding(
                "PG102", f"{at}.{weak.policy.name}", f"Policy {weak.policy.name} on {at} is not bound to the tenant.",
                f"ALTER POLICY {ident(weak.policy.name)} ON {sql} "
                f"{clauses(weak.policy.command, snapshot.condition(table.type_text))};",
            )  # fmt: skip
