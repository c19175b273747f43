"""The data that the topics of the posture check share: the target, the catalog rows by name, and helpers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from vectoracl.adapter_api.posture import Finding
from vectoracl_pgvector.accepted import Accept
from vectoracl_pgvector.posture.fix_sql import literal
from vectoracl_pgvector.posture.policy_expressions import Binding, Bound, bind
from vectoracl_pgvector.posture.rows import AnyColumn, Column, Grant, Policy, Relation, Role, Server
from vectoracl_pgvector.posture.rules import RULES
from vectoracl_pgvector.posture.tenant_field import TenantField, parse

_Row = TypeVar("_Row", bound=tuple[Any, ...])


@dataclass(frozen=True, slots=True)
class Target:
    """The table to check.

    `runtime_role` is None for the role of the connection, and `tenant_column` is empty if there is none. The tenant
    column may also be a key of a JSON column, written `column->>key`. Findings that `accept` covers do not lower the
    grade; they are listed with their reasons.
    """

    schema: str = "vectoracl"
    table: str = "chunks"
    tenant_column: str = "tenant_id"
    setting: str = "vectoracl.tenant"
    runtime_role: str | None = None
    accept: tuple[Accept, ...] = ()
    # For a table that vectoracl did not create. `guessed`: the tenant column is not confirmed; `others`: alternatives.
    foreign: bool = field(default=False, compare=False)
    guessed: bool = field(default=False, compare=False)
    others: tuple[str, ...] = field(default=(), compare=False)
    # For a configured store: (column, type, dimension or None) from the configuration.
    expected: tuple[tuple[str, str, int | None], ...] = field(default=(), compare=False)
    embedded: bool = field(default=False, compare=False)
    # Roles, or patterns of them, that may dump or restore everything; None without a configuration.
    backup_roles: tuple[str, ...] | None = field(default=None, compare=False)
    vector_column: str = field(default="", compare=False)
    # The column of indexes of words and their options; empty if the configuration needs none.
    words_column: str = field(default="", compare=False)
    words_options: tuple[str, ...] = field(default=(), compare=False)
    bits_column: str = field(default="", compare=False)  # empty where the configuration has no bits

    @property
    def tenant(self) -> TenantField:
        """The tenant's column, or key of a JSON column."""
        return parse(self.tenant_column)


@dataclass(frozen=True)
class Snapshot:
    """The target and the typed catalog rows, with values that several topics need."""

    target: Target
    rows: Mapping[str, list[tuple[Any, ...]]]
    missing: frozenset[str] = field(default=frozenset())

    def read(self, name: str, row: Callable[..., _Row]) -> list[_Row]:
        """Return the rows of the statement *name*, typed as *row*."""
        return [row(*values) for values in self.rows.get(name, [])]

    @cached_property
    def server(self) -> Server | None:
        """The server, database and session."""
        rows = self.read("server", Server)
        return rows[0] if rows else None

    @cached_property
    def role(self) -> str:
        """The runtime role."""
        return self.server.role if self.server else (self.target.runtime_role or "")

    @cached_property
    def major(self) -> int:
        """The major version; 0 if unknown."""
        return self.server.number // 10000 if self.server else 0

    @cached_property
    def roles(self) -> list[Role]:
        """The runtime role, what it can become, and the login role."""
        return self.read("roles", Role)

    @cached_property
    def relations(self) -> list[Relation]:
        """The table, its parents, and its partitions and children."""
        return self.read("relations", Relation)

    @cached_property
    def table(self) -> Relation | None:
        """The table itself."""
        return next((r for r in self.relations if r.position == "target"), None)

    @cached_property
    def children(self) -> list[Relation]:
        """Partitions and children."""
        return [r for r in self.relations if r.position == "child"]

    @cached_property
    def policies(self) -> dict[int, list[Policy]]:
        """Policies by relation; policies that partitions have in common are one object."""
        by_relation: dict[int, list[Policy]] = defaultdict(list)
        for relations, *rest in self.rows.get("policies", []):
            policy = Policy(*rest)
            for oid in relations:
                by_relation[oid].append(policy)
        return by_relation

    @cached_property
    def grants(self) -> list[Grant]:
        """Grants that the role can use."""
        return self.read("grants", Grant)

    @cached_property
    def column(self) -> Column | None:
        """The tenant column."""
        rows = self.read("columns", Column)
        return rows[0] if rows else None

    @cached_property
    def type_text(self) -> str:
        """The tenant's type; a JSON key's is text."""
        return self.column.type_text if self.column and self.tenant.key is None else "text"

    @cached_property
    def tenant(self) -> TenantField:
        """The tenant's column, or key of a JSON column."""
        return self.target.tenant

    @cached_property
    def all_columns(self) -> list[AnyColumn]:
        """Every column of the table."""
        return self.read("all_columns", AnyColumn)

    @cached_property
    def tenant_bounds(self) -> list[Bound]:
        """The strength of each condition in the table's permissive policies that apply to the role."""
        mine = self.policies[self.table.oid] if self.table else []
        sides = ((p, side) for p in mine if p.applies and p.permissive for side in (p.using, p.check))
        return [bound for p, side in sides if (bound := self.bound(side, p)) is not None]

    def bound(self, expression: str | None, policy: Policy) -> Bound | None:
        """Judge a condition. A constant tenant in a policy for this role alone counts as bound by the role."""
        bound = bind(expression, self.tenant)
        if bound is not None and policy.volatile:
            return Bound(Binding.OPAQUE)  # it is called for rows of every tenant, and may store or pass on what it sees
        if bound is not None and bound.binding is Binding.FIXED and policy.roles == [self.role]:
            return Bound(Binding.ROLE)
        return bound

    def condition(self, type_text: str | None = None) -> str:
        """Return the policy condition that this check recommends."""
        value = f"NULLIF(current_setting({literal(self.target.setting)}, true), '')"
        kind = type_text or self.type_text
        cast = "" if kind.startswith(("text", "character varying")) else f"::{kind}"
        return f"{self.tenant.sql} = {value}{cast}"

    def holds(self, privilege: str, oid: int) -> bool:
        """Return whether the role can use *privilege* on the relation."""
        return any(g.oid == oid and g.privilege == privilege for g in self.grants)


def make_finding(rule: str, subject: str, message: str, fix: str) -> Finding:
    """Create a finding of the rule with the id *rule*."""
    return Finding(RULES[rule], subject, message, fix)


def object_name(schema: str, name: str) -> str:
    """Return an object's name for display."""
    return f"{schema}.{name}"


def name_of(relation: Relation) -> str:
    """Return a relation's name for display."""
    return f"{relation.schema}.{relation.name}"


def grantee_name(grantee: str | None) -> str:
    """Return a grantee's name for display."""
    return grantee or "PUBLIC"


def grantee_names(grantees: Iterable[str]) -> str:
    """Return grantees' names for display."""
    return ", ".join(grantee_name(g) for g in grantees)


def joined(words: Iterable[str]) -> str:
    """Join words in a stable order."""
    return ", ".join(sorted(words))


def new_owner(snapshot: Snapshot, preferred: str | None = None) -> str:
    """Return a role for `OWNER TO` that the runtime role cannot become, or "postgres" if none is known."""
    reachable = {r.name for r in snapshot.roles if r.reachable}
    made_up = (f"{snapshot.target.schema}_{suffix}" for suffix in ("owner", *(f"owner_{i}" for i in range(2, 99))))
    candidates = [preferred, *(r.owner for r in snapshot.relations), *made_up]
    return next((c for c in candidates if c and c not in reachable), "postgres")


def database_of(snapshot: Snapshot) -> str:
    """Return the name of the database that was checked."""
    return snapshot.server.database if snapshot.server else ""
