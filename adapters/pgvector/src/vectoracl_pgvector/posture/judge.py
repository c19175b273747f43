"""Turns catalog rows into findings and a grade. Pure; each topic has its own module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from vectoracl.adapter_api import store_notes
from vectoracl.adapter_api.posture import Finding, Posture
from vectoracl_pgvector.accepted import split_accepted
from vectoracl_pgvector.posture import releases
from vectoracl_pgvector.posture.backups import backups
from vectoracl_pgvector.posture.bits import bits
from vectoracl_pgvector.posture.bypasses import (
    called_code,
    copies,
    extensions,
    functions,
    logs,
    moves,
    schema_and_database,
    server_versions,
    views,
)
from vectoracl_pgvector.posture.fix_sql import advice, ident
from vectoracl_pgvector.posture.policies import policies, related, row_security
from vectoracl_pgvector.posture.policy_expressions import Binding
from vectoracl_pgvector.posture.reach import reach
from vectoracl_pgvector.posture.role import runtime_role, session
from vectoracl_pgvector.posture.rows import Extension
from vectoracl_pgvector.posture.securing import script
from vectoracl_pgvector.posture.snapshot import Snapshot, Target, make_finding, name_of, object_name
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
from vectoracl_pgvector.posture.words import words


def judge(target: Target, rows: Mapping[str, list[tuple[Any, ...]]], *, scripted: bool = True) -> Posture:
    """Judge the rows of `queries(target)`.

    Args:
        target: The table.
        rows: The rows of each statement, by name. A missing statement counts as refused.
        scripted: Whether to write the script that secures the table, which only reports need.

    Returns:
        The grade, the findings, facts, and the script that secures the table.
    """
    missing = frozenset(name for name, _ in STATEMENTS if name != "search_path") - rows.keys()
    snapshot = Snapshot(target, rows, missing)
    remaining, accepted, unused = split_accepted(reach(snapshot, list(_all(snapshot))), target.accept)
    remaining += [
        make_finding("PG139", f"{one.rule} {one.object}", "An entry of accept covers no finding.",
              advice("Remove the entry, or correct its rule or object, so that it cannot cover something later."))
        for one in unused
    ]  # fmt: skip
    findings = tuple(sorted(remaining, key=lambda f: (f.rule.id, f.subject, f.message)))
    (comment,) = (snapshot.rows.get("notes") or [(None,)])[0]
    notes = store_notes.read(comment)
    accepted_reasons = tuple((finding, entry.reason) for finding, entry in accepted)
    cures = script(snapshot, findings) if scripted else ()
    posture = Posture(
        _grade(snapshot, findings),
        findings,
        _facts(snapshot),
        cures,
        store_notes.embedder_of(notes),
        accepted_reasons,
        store_notes.registry_of(notes),
    )
    facts = tuple((f"accepted {number}", text) for number, text in enumerate(posture.acceptances, 1))
    return replace(posture, facts=posture.facts + facts)


def _all(snapshot: Snapshot) -> Iterator[Finding]:
    yield from _unread(snapshot)
    if snapshot.server is not None and not snapshot.server.role_exists:
        yield make_finding(
            "PG029",
            snapshot.role,
            f"The role {snapshot.role} does not exist.",
            f"CREATE ROLE {ident(snapshot.role)} LOGIN;",
        )
        return
    for topic in (runtime_role, session, server_versions, extensions, schema_and_database, logs, backups):
        yield from topic(snapshot)
    if snapshot.table is None:
        if "relations" not in snapshot.missing:
            yield make_finding(
                "PG028", object_name(snapshot.target.schema, snapshot.target.table), "The table was not found in this "
                "database.",
                advice("Correct the schema and table in the configuration, or provision the store."),
            )  # fmt: skip
        return
    if snapshot.table.kind not in "rp":
        yield make_finding(
            "PG027", name_of(snapshot.table), "This is not an ordinary or partitioned table, so it cannot have "
            "policies.",
            advice("Point the configuration at the table behind it, or move the rows into a table."),
        )  # fmt: skip
    for topic in (
        row_security, policies, grants, tenant_column, expected_columns, keys, foreign_keys, views, functions,
        called_code, copies, related, indexes, bits, words, catalog, planning, moves,
    ):  # fmt: skip
        yield from topic(snapshot)


def _grade(snapshot: Snapshot, findings: Iterable[Finding]) -> str:
    if snapshot.table is None or snapshot.server is None or any(f.rule.lowers for f in findings):
        return "none"
    # Thousands of partitions have few different policies, each as one object.
    policies = {id(p): p for relation in snapshot.relations for p in snapshot.policies[relation.oid]}
    bounds = [
        side
        for policy in policies.values()
        if policy.applies and policy.permissive
        for side in (snapshot.bound(policy.using, policy), snapshot.bound(policy.check, policy))
        if side is not None and side.binding is not Binding.NEVER
    ]
    by_role = bool(bounds) and all(b.binding is Binding.ROLE for b in bounds)
    role_is_alone = not any(r.reachable and not r.is_runtime for r in snapshot.roles) and (
        snapshot.target.runtime_role is not None or snapshot.server.session_user == snapshot.role
    )
    sound = not releases.affected(snapshot.server.number, releases.ROLE_PLAN_HOLE[1])
    return "credential" if by_role and role_is_alone and sound else "engine"


def _facts(snapshot: Snapshot) -> tuple[tuple[str, str], ...]:
    server, facts = snapshot.server, []
    if server is not None:
        facts += [("server", f"PostgreSQL {server.version}"), ("database", server.database), ("role", server.role)]
        if server.session_user != server.role:
            facts.append(("session user", server.session_user))
        newest = releases.SECURITY_RELEASE.get(snapshot.major)
        if snapshot.target.embedded and releases.affected(server.number, releases.SECURITY_RELEASE):
            # Only its package can update it, and only its own user reaches it: not a finding.
            newer = f"{snapshot.major}.{newest} has security fixes that this one lacks; for production use a dsn"
            facts.append(("embedded server", newer))
    vector = next((e for e in snapshot.read("extensions", Extension) if e.name == "vector"), None)
    facts.append(("pgvector", vector.version if vector else "not installed"))
    facts.append(("table", object_name(snapshot.target.schema, snapshot.target.table)))
    guessed = " (a guess: confirm it with --tenant-column)" if snapshot.target.guessed else ""
    facts.append(("tenant column", f"{(snapshot.tenant.column and snapshot.tenant) or 'none'}{guessed}"))
    facts.append(("setting", snapshot.target.setting))
    facts.append(("partitions and children", str(len(snapshot.children))))
    facts.append(("policies", str(sum(len(snapshot.policies[r.oid]) for r in snapshot.relations))))
    return tuple(facts)


def _unread(snapshot: Snapshot) -> Iterator[Finding]:
    for name in sorted(snapshot.missing):
        yield make_finding(
            "PG110", name, f"The server refused the query “{name}”, so this part could not be judged.",
            advice("Let the checking role read the system catalogs (the default grants of pg_catalog to PUBLIC)."),
        )  # fmt: skip
