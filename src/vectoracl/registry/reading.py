"""Scopes from SQL: every function reads in the one transaction that it is given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, assert_never

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vectoracl.model.principal import AttributeValue, Principal
from vectoracl.model.records import NEVER_EXPIRES
from vectoracl.registry import tables as t
from vectoracl.registry.access import GOVERNOR
from vectoracl.registry.row_security import name_tenants
from vectoracl.registry.scopes import DocumentState, GovernedScope, PartitionScope, Probe, Quarantine
from vectoracl.registry.settings import (
    TENANT_WIDE,
    Attribute,
    AttributeRule,
    Condition,
    RegistrySettings,
    claim_of,
    subjects_of,
)

LIVE, ERASING, ERASED = "live", "erasing", "erased"
_MANY = 900
"""The most values of one IN list: SQLite of older builds takes 999 parameters."""


def probe(connection: Connection, tenants: Sequence[str], now: float) -> Probe:
    """Return the versions of *tenants* (0 for one without changes) and the time, which never runs backwards."""
    c = t.tenants.c
    statement = sa.select(c.tenant, c.version, c.clock, c.stopped).where(c.tenant.in_(tenants))
    rows = connection.execute(statement).all()
    versions = dict.fromkeys(tenants, 0)
    versions.update({row.tenant: row.version for row in rows})
    stopped = {row.tenant: row.stopped for row in rows if row.stopped is not None}
    return Probe(versions, max([now, *(row.clock for row in rows)]), stopped)


def parent_of(connection: Connection, tenant: str) -> str | None:
    """Return the parent of *tenant* in its family."""
    c = t.tenants.c
    parent: str | None = connection.execute(sa.select(c.parent).where(c.tenant == tenant)).scalar_one_or_none()
    return parent


def take(
    connection: Connection,
    settings: RegistrySettings,
    principal: Principal,
    partitions: Sequence[str],
    now: float,
    *,
    writes: bool,
    family: bool,
) -> GovernedScope:
    """Return what *principal* may do in *partitions*; with *family*, for reads also in its parent's partition."""
    parent = parent_of(connection, principal.tenant)
    if parent is not None:
        name_tenants(connection, (*partitions, principal.tenant, parent))
    added: tuple[str, ...] = ()
    if family and not writes and parent is not None and principal.tenant in partitions and parent not in partitions:
        added = (parent,)
    whole = (*partitions, *added)
    # The tenant's own version is part of it also where only others are read: its row names the parent.
    found = probe(connection, tuple(dict.fromkeys((*whole, principal.tenant))), now)
    found.check_running()
    parts: dict[str, PartitionScope] = {}
    until = NEVER_EXPIRES
    for tenant in whole:
        if tenant == principal.tenant:
            labels = own_labels(connection, settings, principal, found.now, writes=writes)
        elif writes:
            labels = frozenset()
        else:
            labels = foreign_labels(
                connection, tenant, found.now, child=tenant == parent, shared=tenant in settings.shared
            ) - withdrawn(connection, settings, tenant, found.now)
        parts[tenant] = _partition(connection, settings, tenant, labels, found)
        until = min(until, boundary(connection, settings, tenant, found.now))
    if principal.tenant not in parts:
        parts[principal.tenant] = PartitionScope(
            principal.tenant, found.versions[principal.tenant], found.now, frozenset()
        )
    return GovernedScope(parts, found.now, until, added)


def _in_force(now: float) -> sa.ColumnElement[bool]:
    c = t.grants.c
    return sa.and_(
        sa.or_(c.valid_from.is_(None), c.valid_from <= now), sa.or_(c.valid_until.is_(None), c.valid_until > now)
    )


def own_labels(
    connection: Connection, settings: RegistrySettings, principal: Principal, now: float, *, writes: bool
) -> frozenset[str]:
    """Return the labels of *principal*'s tenant that it may read, or write: a deny wins over every allow."""
    c = t.grants.c
    # Not grouped in SQL: SQLite would then read all grants in the order of their labels.
    statement = sa.select(c.label, c.allow, c.can_write).where(
        c.tenant == principal.tenant, c.subject.in_(subjects_of(principal)), _in_force(now)
    )
    allowed: set[str] = set()
    denied: set[str] = set()
    for label, allow, can_write in connection.execute(statement):
        if not allow:
            denied.add(label)
        elif can_write or not writes:
            allowed.add(label)
    allowed |= rule_labels(connection, settings, principal, writes=writes)
    return frozenset(allowed - denied) - withdrawn(connection, settings, principal.tenant, now)


def fresh_until(settings: RegistrySettings, source: str, as_of: float) -> float:
    """Return the time from which *source*, last read *as_of*, vouches for nothing; a governor always does."""
    if source == GOVERNOR:
        return NEVER_EXPIRES
    declared = settings.sources.get(source)
    if declared is None or as_of <= 0:  # it is not one, or was never read as a whole
        return 0.0
    return NEVER_EXPIRES if declared.serve else as_of + declared.max_age_seconds


def freshness(connection: Connection, settings: RegistrySettings, tenant: str) -> dict[str, float]:
    """Return the time until which each source of *tenant* vouches."""
    c = t.sources.c
    rows = connection.execute(sa.select(c.source, c.as_of).where(c.tenant == tenant))
    return {row.source: fresh_until(settings, row.source, row.as_of) for row in rows}


def withdrawn(connection: Connection, settings: RegistrySettings, tenant: str, now: float) -> frozenset[str]:
    """Return the labels for which, or for a label above which, no source vouches at *now*."""
    c, w = t.vouchers.c, t.vouchers.alias()
    until = freshness(connection, settings, tenant)
    vouching = connection.execute(sa.select(c.source).where(c.tenant == tenant).distinct()).scalars().all()
    if not vouching:
        return frozenset()
    fresh = sorted(name for name, moment in until.items() if moment > now)
    stale = sorted(set(vouching).difference(fresh))  # also one of which nothing is known
    other = (
        sa.select(w.c.label)
        .where(w.c.tenant == c.tenant, w.c.label == c.label, w.c.owner == c.owner)
        # With the bare column SQLite would read every label of the tenant for each one, by the index of times.
        .where(w.c.source.in_(fresh), w.c.valid_until + 0 > now)
    )
    # Two statements, each by its index: SQLite takes none for an OR of both.
    return frozenset(
        label
        for condition in (c.source.in_(stale), c.valid_until <= now)
        for label in connection.execute(
            sa.select(c.label).where(c.tenant == tenant, condition, ~other.exists())
        ).scalars()
    )


def rule_labels(connection: Connection, settings: RegistrySettings, principal: Principal, *, writes: bool) -> set[str]:
    """Return the labels that a rule over attributes allows, before denials."""
    labels: set[str] = set()
    for rule in settings.rules:
        if rule.write or not writes:
            labels |= _of_rule(connection, settings, principal, rule)
    return labels


def _of_rule(connection: Connection, settings: RegistrySettings, principal: Principal, rule: AttributeRule) -> set[str]:
    labels: set[str] | None = None
    c = t.values.c
    for one in rule.conditions:
        condition = _compared(settings.attributes[one.attribute], one, claim_of(principal, one.claim))
        if condition is None:
            return set()
        rows = connection.execute(
            sa.select(c.label).where(c.tenant == principal.tenant, c.name == one.attribute, condition)
        ).scalars()
        labels = set(rows) if labels is None else labels.intersection(rows)
        if not labels:
            return set()
    return labels or set()


def _compared(
    attribute: Attribute, condition: Condition, claim: AttributeValue | None
) -> sa.ColumnElement[bool] | None:
    """Return the condition on a label's value; None, which denies, for a claim that is missing or of another type."""
    c = t.values.c
    match condition.operator:
        case "==":
            return None if isinstance(claim, tuple) else _equal(attribute, claim)
        case "in":
            if attribute.kind != "keyword" or not isinstance(claim, tuple) or not claim:
                return None
            return c.text.in_(claim)
        case "<=" | "<" | ">=" | ">":
            if attribute.levels:
                return c.text.in_(_levels(attribute.levels, condition.operator, claim))
            if isinstance(claim, bool) or not isinstance(claim, int | float):
                return None
            return {"<=": c.number <= claim, "<": c.number < claim, ">=": c.number >= claim, ">": c.number > claim}[
                condition.operator
            ]
    assert_never(condition.operator)


def _equal(attribute: Attribute, claim: AttributeValue | None) -> sa.ColumnElement[bool] | None:
    c = t.values.c
    if attribute.kind == "keyword":
        return c.text == claim if isinstance(claim, str) else None
    if attribute.kind == "boolean":
        return c.number == float(claim) if isinstance(claim, bool) else None
    return c.number == claim if isinstance(claim, int | float) and not isinstance(claim, bool) else None


def _levels(levels: tuple[str, ...], operator: str, claim: AttributeValue | None) -> tuple[str, ...]:
    """Return the levels that stand in this relation to *claim*; none for a claim that is not a level."""
    if not isinstance(claim, str) or claim not in levels:
        return ()
    at = levels.index(claim)
    return {"<=": levels[: at + 1], "<": levels[:at], ">=": levels[at:], ">": levels[at + 1 :]}[operator]


def foreign_labels(connection: Connection, tenant: str, now: float, *, child: bool, shared: bool) -> frozenset[str]:
    """Return the labels of *tenant* that principals of others read: shared with children, or with every tenant.

    The names in its entries are those of that tenant's directory, so they mean nothing here; a tenant-wide deny holds.
    """
    c, g = t.labels.c, t.grants.c
    flags = [flag for flag, applies in ((c.children, child), (c.shared, shared)) if applies]
    if not flags:
        return frozenset()
    denied = sa.select(g.label).where(g.tenant == tenant, g.subject == TENANT_WIDE, g.allow == 0, _in_force(now))
    statement = sa.select(c.label).where(c.tenant == tenant, sa.or_(*flags), c.label.not_in(denied))
    return frozenset(connection.execute(statement).scalars())


def _partition(
    connection: Connection, settings: RegistrySettings, tenant: str, labels: frozenset[str], found: Probe
) -> PartitionScope:
    """Return the scope of one partition: overlay, granted generations and rules, as they are in this transaction."""
    o, d = t.overlay.c, t.documents.c
    joined = t.overlay.outerjoin(t.documents, sa.and_(o.tenant == d.tenant, o.document == d.document))
    statement = (
        sa.select(o.document, d.label, d.generation, d.expires, d.state, d.held, d.stored_labels)
        .select_from(joined)
        .where(o.tenant == tenant)
        .order_by(o.seq, o.document)
    )
    named = connection.execute(statement.limit(settings.overlay_max)).all()
    # The filter cannot name the documents beyond the cap: each label that their chunks may carry is hidden as a whole.
    withdrawn: frozenset[str] = frozenset()
    if len(named) == settings.overlay_max:
        beyond = statement.offset(settings.overlay_max).limit(1 << 40).subquery()
        kinds = connection.execute(sa.select(beyond.c.stored_labels).distinct()).scalars()
        withdrawn = frozenset(label for one in kinds for label in json.loads(one or "[]"))
    allowed = labels - withdrawn
    granted = [
        (row.document, row.generation)
        for row in named
        if row.state == LIVE
        and row.generation is not None
        and not row.held
        and row.expires > found.now
        and row.label in allowed
    ]
    return PartitionScope(
        tenant,
        found.versions[tenant],
        found.now,
        allowed,
        tuple(row.document for row in named),
        tuple(granted),
        rules_of(connection, tenant),
        withdrawn,
    )


def rules_of(connection: Connection, tenant: str) -> tuple[Quarantine, ...]:
    """Return the quarantine rules of *tenant*."""
    c = t.quarantine.c
    statement = sa.select(c.name, c.producer, c.source, c.document, c.generation, c.since, c.until)
    rows = connection.execute(statement.where(c.tenant == tenant).order_by(c.name))
    return tuple(Quarantine(*row) for row in rows)


def boundary(connection: Connection, settings: RegistrySettings, tenant: str, now: float) -> float:
    """Return the next time at which a grant begins or ends, a document expires, or a source becomes stale."""
    g, d, w = t.grants.c, t.documents.c, t.vouchers.c
    times = (
        sa.select(sa.func.min(g.valid_from)).where(g.tenant == tenant, g.valid_from > now),
        sa.select(sa.func.min(g.valid_until)).where(g.tenant == tenant, g.valid_until > now),
        sa.select(sa.func.min(d.expires)).where(d.tenant == tenant, d.expires > now),
        sa.select(sa.func.min(w.valid_until)).where(w.tenant == tenant, w.valid_until > now),
    )
    stale = [moment for moment in freshness(connection, settings, tenant).values() if moment > now]
    found = connection.execute(sa.union_all(*times)).scalars()
    return min([*stale, *(one for one in found if one is not None)], default=NEVER_EXPIRES)


def document_states(
    connection: Connection, documents: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], DocumentState]:
    """Return the rows of the documents that exist, by (tenant, document)."""
    by_tenant: dict[str, list[str]] = {}
    for tenant, document in documents:
        by_tenant.setdefault(tenant, []).append(document)
    c = t.documents.c
    states: dict[tuple[str, str], DocumentState] = {}
    for tenant, names in by_tenant.items():
        for start in range(0, len(names), _MANY):
            rows = connection.execute(
                sa.select(c.document, c.label, c.generation, c.expires, c.state, c.held, c.rev).where(
                    c.tenant == tenant, c.document.in_(names[start : start + _MANY])
                )
            )
            for row in rows:
                states[tenant, row.document] = state_of(row)
    return states


def state_of(row: Any) -> DocumentState:
    """Return the row of a document as a value."""
    return DocumentState(row.label, row.generation, row.expires, row.state == LIVE, bool(row.held), row.rev)


def in_slices(names: Sequence[str], size: int = _MANY) -> Iterable[Sequence[str]]:
    """Yield *names* in lists of at most *size*, by default as many as fit one statement."""
    for start in range(0, len(names), size):
        yield names[start : start + size]


def rows_by_name(connection: Connection, tenant: str, names: Sequence[str]) -> Mapping[str, Any]:
    """Return whole rows of documents by their names."""
    c = t.documents.c
    found: dict[str, Any] = {}
    for part in in_slices(names):
        statement = sa.select(t.documents).where(c.tenant == tenant, c.document.in_(part))
        found.update({row.document: row for row in connection.execute(statement)})
    return found
