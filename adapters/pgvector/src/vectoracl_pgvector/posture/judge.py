"""From catalog rows to findings and a grade: pure; the topics are in the judge_ modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from vectoracl.adapter_api import store_notes
from vectoracl.adapter_api.posture import Finding, Posture
from vectoracl_pgvector.accepted import apart
from vectoracl_pgvector.posture import releases
from vectoracl_pgvector.posture.backups import backups
from vectoracl_pgvector.posture.bypasses import (
    around_schema,
    code_it_runs,
    copies,
    extensions,
    functions,
    logs,
    moves,
    server_versions,
    views,
)
from vectoracl_pgvector.posture.fix_sql import advice, ident
from vectoracl_pgvector.posture.policies import policies, related, row_security
from vectoracl_pgvector.posture.policy_expressions import Binding
from vectoracl_pgvector.posture.reach import reach
from vectoracl_pgvector.posture.role import role_itself, session
from vectoracl_pgvector.posture.rows import Extension
from vectoracl_pgvector.posture.securing import script
from vectoracl_pgvector.posture.snapshot import Look, Target, dotted, found, place_of
from vectoracl_pgvector.posture.sql import STATEMENTS
from vectoracl_pgvector.posture.table import (
    catalog,
    expected_columns,
    foreign_keys,
    grants,
    indexes,
    keys,
    planning,
    tenant_column,
)


def judge(target: Target, rows: Mapping[str, list[tuple[Any, ...]]]) -> Posture:
    """Judge what `queries(target)` answered. A statement that is missing in *rows* counts as refused."""
    missing = frozenset(name for name, _ in STATEMENTS if name != "search_path") - rows.keys()
    look = Look(target, rows, missing)
    stay, accepted, unused = apart(reach(look, list(_all(look))), target.accept)
    stay += [
        found("PG139", f"{one.rule} {one.object}", "An entry of accept covers no finding.",
              advice("Remove the entry, or correct its rule or object, so that it cannot cover something later."))
        for one in unused
    ]  # fmt: skip
    findings = tuple(sorted(stay, key=lambda f: (f.rule.id, f.subject, f.message)))
    (comment,) = (look.rows.get("notes") or [(None,)])[0]
    embedder = store_notes.embedder_of(store_notes.read(comment))
    taken = tuple((finding, entry.reason) for finding, entry in accepted)
    found_ = Posture(_grade(look, findings), findings, _facts(look), script(look, findings), embedder, taken)
    facts = tuple((f"accepted {number}", text) for number, text in enumerate(found_.acceptances, 1))
    return replace(found_, facts=found_.facts + facts)


def _all(look: Look) -> Iterator[Finding]:
    yield from _unread(look)
    if look.server is not None and not look.server.role_exists:
        yield found("PG029", look.role, f"There is no role {look.role}.", f"CREATE ROLE {ident(look.role)} LOGIN;")
        return
    for topic in (role_itself, session, server_versions, extensions, around_schema, logs, backups):
        yield from topic(look)
    if look.table is None:
        if "relations" not in look.missing:
            yield found(
                "PG028", dotted(look.target.schema, look.target.table), "The table was not found in this database.",
                advice("Correct the schema and table in the configuration, or provision the store."),
            )  # fmt: skip
        return
    if look.table.kind not in "rp":
        yield found(
            "PG027", place_of(look.table), "It is not an ordinary or partitioned table, so it cannot carry policies.",
            advice("Point the configuration at the table behind it, or move the rows into a table."),
        )  # fmt: skip
    for topic in (
        row_security, policies, grants, tenant_column, expected_columns, keys, foreign_keys, views, functions,
        code_it_runs, copies, related, indexes, catalog, planning, moves,
    ):  # fmt: skip
        yield from topic(look)


def _grade(look: Look, findings: Iterable[Finding]) -> str:
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
    sound = not releases.affected(look.server.number, releases.ROLE_PLAN_HOLE[1])
    return "credential" if by_role and alone and sound else "engine"


def _facts(look: Look) -> tuple[tuple[str, str], ...]:
    server, facts = look.server, []
    if server is not None:
        facts += [("server", f"PostgreSQL {server.version}"), ("database", server.database), ("role", server.role)]
        if server.session_user != server.role:
            facts.append(("session user", server.session_user))
        newest = releases.SECURITY_RELEASE.get(look.major)
        if look.target.embedded and releases.affected(server.number, releases.SECURITY_RELEASE):
            # Nobody but its package can update it, and nobody but its own user reaches it: not a finding.
            newer = f"{look.major}.{newest} has security fixes that this one lacks; for production use a dsn"
            facts.append(("embedded server", newer))
    vector = next((e for e in look.read("extensions", Extension) if e.name == "vector"), None)
    facts.append(("pgvector", vector.version if vector else "not installed"))
    facts.append(("table", dotted(look.target.schema, look.target.table)))
    guessed = " (a guess: say it with --tenant-column)" if look.target.guessed else ""
    facts.append(("tenant column", f"{(look.tenant.column and look.tenant) or 'none'}{guessed}"))
    facts.append(("setting", look.target.setting))
    facts.append(("partitions and children", str(len(look.children))))
    facts.append(("policies", str(sum(len(look.policies[r.oid]) for r in look.relations))))
    return tuple(facts)


def _unread(look: Look) -> Iterator[Finding]:
    for name in sorted(look.missing):
        yield found(
            "PG110", name, f"The server refused to answer the part “{name}”, so it could not be judged.",
            advice("Let the checking role read the system catalogs (the default grants of pg_catalog to PUBLIC)."),
        )  # fmt: skip
