"""Row-level security and policies, of the tree and of related tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vectoracl.adapter_api.posture import Finding
from vectoracl_pgvector.posture.fix_sql import advice, ident
from vectoracl_pgvector.posture.policy_expressions import Binding, Bound
from vectoracl_pgvector.posture.rows import Policy, Related, Relation
from vectoracl_pgvector.posture.snapshot import Look, found, listed, place_of

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


def row_security(look: Look) -> Iterator[Finding]:
    """Judge ENABLE and FORCE on the table, its parents and its parts."""
    for relation in look.relations:
        at, sql = place_of(relation), ident(relation.schema, relation.name)
        enable, force = f"ALTER TABLE {sql} ENABLE ROW LEVEL SECURITY;", f"ALTER TABLE {sql} FORCE ROW LEVEL SECURITY;"
        if relation.kind == "f":
            if relation.place == "child":
                parent = ident(relation.parent_schema or "", relation.parent_name or "")
                undo = f"ALTER TABLE {parent} DETACH PARTITION {sql};"
                if not relation.is_partition:
                    undo = f"ALTER FOREIGN TABLE {sql} NO INHERIT {parent};"
                yield found("PG026", at, f"{at} is a foreign table.", undo)
        elif relation.kind not in "rp":
            continue
        elif relation.place == "parent":
            if not (relation.rls and relation.forced):
                policy = f"CREATE POLICY tenant ON {sql} USING ({look.condition()}) WITH CHECK ({look.condition()});"
                fix = " ".join([enable, force] + ([] if look.policies[relation.oid] else [policy]))
                yield found("PG024", at, f"The parent {at} does not have forced row-level security.", fix)
        else:
            target = relation.place == "target"
            if (
                look.target.foreign
                and not target
                and not (relation.rls and relation.forced)
                and _closed(look, relation)
            ):
                yield found(
                    "PG104", at, f"{at} has no forced row-level security, and no role of the application may name it.",
                    " ".join([enable, force, *_policy(look, relation, sql)]),
                )  # fmt: skip
                continue
            if not relation.rls:
                yield found("PG020" if target else "PG022", at, f"Row-level security is not enabled on {at}.", enable)
            if not relation.forced:
                yield found("PG021" if target else "PG023", at, f"Row-level security is not forced on {at}.", force)


def _closed(look: Look, relation: Relation) -> bool:
    """Whether the role, and what it can become, has no right on the part itself, so that it goes through the parent."""
    owner = any(r.reachable and r.name == relation.owner for r in look.roles)
    return not owner and not any(g.oid == relation.oid for g in look.grants)


def _policy(look: Look, relation: Relation, sql: str) -> list[str]:
    if look.policies[relation.oid]:
        return []
    return [f"CREATE POLICY tenant ON {sql} USING ({look.condition()}) WITH CHECK ({look.condition()});"]


def policies(look: Look) -> Iterator[Finding]:
    """Judge the policies of the table, its parents and its parts."""
    if "policies" in look.missing or not look.tenant:
        return
    sound: set[tuple[int, ...]] = set()  # by identity: thousands of partitions have the same policies
    for relation in look.relations:
        alike = tuple(map(id, look.policies[relation.oid]))
        if relation.kind in "rp" and alike not in sound:
            findings = list(_policies_of(look, relation))
            yield from findings
            if not findings:
                sound.add(alike)
    table = look.table
    if table is None:
        return
    mine = [p for p in look.policies[table.oid] if p.applies and p.permissive]
    for privilege, command in _COMMANDS.items():
        if table.rls and look.holds(privilege, table.oid) and not any(p.command in (command, "*") for p in mine):
            yield found(
                "PG030", place_of(table), f"{look.role} is granted {privilege}, but no policy for it applies.",
                f"CREATE POLICY {ident('tenant_' + privilege.lower())} ON {ident(table.schema, table.name)} "
                f"FOR {privilege} TO {ident(look.role)} {clauses(command, look.condition())};",
            )  # fmt: skip
    bounds = [b for p in mine for b in (look.bound(p.using, p), look.bound(p.check, p)) if b]
    if any(b.binding is Binding.SETTING for b in bounds):
        yield found(
            "PG039", place_of(table), "The policies compare the tenant with a setting that the role itself can set.",
            advice("Nothing to mend at grade engine. For grade credential give each tenant a role of its own and "
                   "compare the tenant column with CURRENT_USER."),
        )  # fmt: skip


def _policies_of(look: Look, relation: Relation) -> Iterator[Finding]:
    table = ident(relation.schema, relation.name)
    for weak in weak_policies(look, look.policies[relation.oid]):
        policy = weak.policy
        said = "accepts" if weak.rule == "PG033" else "shows"
        yield found(
            weak.rule, f"{place_of(relation)}.{policy.name}",
            f"The {'WITH CHECK' if weak.side == 'check' else 'USING'} condition of policy {policy.name} on "
            f"{place_of(relation)} {said} more than the tenant's rows, and no restrictive policy narrows it.",
            _of_token(look, policy, table)
            or f"ALTER POLICY {ident(policy.name)} ON {table} {clauses(policy.command, look.condition())};",
        )  # fmt: skip
    for policy in look.policies[relation.oid]:
        bounds = [b for b in (look.bound(policy.using, policy), look.bound(policy.check, policy)) if b]
        if policy.applies and policy.volatile:
            yield found(
                "PG035", f"{place_of(relation)}.{policy.name}",
                f"Policy {policy.name} calls {policy.volatile}, which can do more than compare: it is called for rows "
                "of every tenant, and can keep or pass on what it sees.",
                f"DROP POLICY {ident(policy.name)} ON {table};",
            )  # fmt: skip
        mend = f"ALTER POLICY {ident(policy.name)} ON {table} {clauses(policy.command, look.condition())};"
        names = frozenset().union(*(b.settings for b in bounds))
        if policy.applies and names and look.target.setting not in names:
            yield found(
                "PG036", f"{place_of(relation)}.{policy.name}",
                f"Policy {policy.name} reads {', '.join(sorted(names))}; configured is {look.target.setting}.", mend,
            )  # fmt: skip
        if not look.target.foreign and policy.permissive and policy.roles == ["public"] and policy.name.startswith(
            "vectoracl_"
        ):  # fmt: skip
            yield found(
                "PG041", f"{place_of(relation)}.{policy.name}",
                f"Policy {policy.name} on {place_of(relation)} is for every role: an earlier version made it.",
                advice("Run `vectoracl provision`: it makes the policies of this version, in one transaction."),
            )  # fmt: skip
        if any(b.binding is Binding.SETTING and b.lenient for b in bounds) and not _strictly_narrowed(
            look, look.policies[relation.oid], policy
        ):
            yield found(
                "PG038", f"{place_of(relation)}.{policy.name}",
                f"Policy {policy.name} reads the setting without NULLIF(current_setting(…, true), '').", mend,
            )  # fmt: skip


def _of_token(look: Look, policy: Policy, table: str) -> str:
    """What to write in the place of Supabase's helpers, whose bodies are not part of the policy; empty without one."""
    text = f"{policy.using} {policy.check}"
    claims = "NULLIF(current_setting('request.jwt.claims', true), '')::jsonb"
    if "auth.uid()" in text:
        cast = "" if look.type_text.startswith(("text", "character varying")) else f"::{look.type_text}"
        condition = f"{look.tenant.sql} = ({claims} ->> 'sub'){cast}"
        return f"ALTER POLICY {ident(policy.name)} ON {table} {clauses(policy.command, condition)};"
    if "auth.jwt()" in text:
        return advice(
            f"Write what auth.jwt() reads in its place: {look.tenant.sql} = {claims} ->> 'CLAIM' (-> 'app_metadata' "
            "before it, if the claim is there), with a claim that the user cannot change: nothing of user_metadata."
        )
    return ""


def weak_policies(look: Look, policies: list[Policy]) -> Iterator[_Weak]:
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


def _narrowed(look: Look, policies: list[Policy], command: str, side: str) -> bool:
    for policy in policies:
        if policy.permissive or policy.command not in (command, "*"):
            continue
        if policy.roles != ["public"] and not _always(look, policy):
            continue  # it stops to apply as soon as the session is another role
        bound = look.bound(policy.check or policy.using if side == "check" else policy.using, policy)
        if bound is not None and bound.binding >= Binding.SETTING:
            return True
    return False


def _strictly_narrowed(look: Look, policies: list[Policy], policy: Policy) -> bool:
    """Whether restrictive policies, which take an empty setting for none, stand beside every side of *policy*."""
    commands = "rawd" if policy.command == "*" else policy.command
    strict = [
        p
        for p in policies
        if all(bound is None or not bound.lenient for bound in (look.bound(p.using, p), look.bound(p.check, p)))
    ]
    sides = [side for side, text in (("using", policy.using), ("check", policy.check)) if text is not None]
    return policy.permissive and all(
        _narrowed(look, strict, command, side)
        for side in sides
        for command in commands
        if command in ("aw" if side == "check" else "rwd")
    )


def _always(look: Look, policy: Policy) -> bool:
    """Whether a policy names every role that the session can be."""
    return {r.name for r in look.roles if r.reachable} <= set(policy.roles)


def clauses(command: str, condition: str) -> str:
    """Write USING and WITH CHECK as a command takes them."""
    using, check = f"USING ({condition})", f"WITH CHECK ({condition})"
    return {"r": using, "d": using, "a": check}.get(command, f"{using} {check}")


def related(look: Look) -> Iterator[Finding]:
    """Judge tables of the same schema that have the tenant column too."""
    for table in look.read("related", Related):
        at, sql = f"{table.schema}.{table.name}", ident(table.schema, table.name)
        force = f"ALTER TABLE {sql} FORCE ROW LEVEL SECURITY;"
        mine = sorted({g.privilege for g in look.grants if g.oid == table.oid})
        if not table.rls:
            if mine:
                condition = look.condition(table.type_text)
                create = f" CREATE POLICY tenant ON {sql} USING ({condition}) WITH CHECK ({condition});"
                yield found(
                    "PG100", at, f"{look.role} is granted {listed(mine)} on {at}, where no policy holds.",
                    f"ALTER TABLE {sql} ENABLE ROW LEVEL SECURITY; {force}"
                    + ("" if look.policies[table.oid] else create),
                )  # fmt: skip
            continue
        if not table.forced:
            yield found("PG101", at, f"Row-level security is not forced on {at}.", force)
        for weak in weak_policies(look, look.policies[table.oid]):
            yield found(
                "PG102", f"{at}.{weak.policy.name}", f"Policy {weak.policy.name} on {at} is not bound to the tenant.",
                f"ALTER POLICY {ident(weak.policy.name)} ON {sql} "
                f"{clauses(weak.policy.command, look.condition(table.type_text))};",
            )  # fmt: skip
