"""Computes which roles can act as which, and which roles can read governed rows. `reach` uses both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property

from vectoracl.adapter_api.postgres_roles import STRONG_PREDEFINED
from vectoracl_pgvector.posture import releases
from vectoracl_pgvector.posture.policy_expressions import Binding, bind
from vectoracl_pgvector.posture.reach_rows import (
    Function,
    Native,
    OtherPolicy,
    OtherRelation,
    Outside,
    Owned,
    PolicyCode,
    Privilege,
    RoleRow,
    TreeRelation,
    Trigger,
)
from vectoracl_pgvector.posture.rows import Policy, Relation
from vectoracl_pgvector.posture.snapshot import Snapshot
from vectoracl_pgvector.posture.tenant_field import TenantField, keys_in

PUBLIC = 0
_STRONG = STRONG_PREDEFINED | releases.STATISTICS_PREDEFINED
_BOUND = (Binding.SETTING, Binding.ROLE, Binding.NEVER)


class Graph:
    """The rows of the reach statements, indexed for the judgement."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.roles = {row.oid: row for row in snapshot.read("reach_roles", RoleRow)}
        self.oids = {row.name: row.oid for row in self.roles.values()}
        self._up: dict[int, set[int]] = defaultdict(set)
        for member, role in snapshot.rows.get("reach_members", []):
            self._up[member].add(role)
        self.functions = snapshot.read("reach_functions", Function)
        self.native = snapshot.read("reach_native", Native)
        self.relations = {row.oid: row for row in snapshot.read("reach_relations", OtherRelation)}
        self.nodes = {row.oid: row for row in snapshot.read("reach_tree", TreeRelation)}
        self.policies: dict[int, list[OtherPolicy]] = defaultdict(list)
        for policy in snapshot.read("reach_policies", OtherPolicy):
            self.policies[policy.oid].append(policy)
        self.code = snapshot.read("reach_policy_code", PolicyCode)
        self._code = {(row.oid, row.policy) for row in self.code}
        self.triggers = snapshot.read("reach_triggers", Trigger)
        self.privileges = snapshot.read("reach_privileges", Privilege)
        self.outside = snapshot.read("reach_outside", Outside)
        self.owned = snapshot.read("reach_owned", Owned)

    def name(self, oid: int) -> str:
        """Return a role's name for display."""
        return "PUBLIC" if oid == PUBLIC else self.roles[oid].name if oid in self.roles else f"role {oid}"

    def closure(self, roles: Iterable[int]) -> frozenset[int]:
        """Return *roles* and every role whose privileges they have or can take."""
        visited: set[int] = set()
        todo = list(roles)
        while todo:
            at = todo.pop()
            if at not in visited:
                visited.add(at)
                todo += self._up[at]
        return frozenset(visited)

    def memberships(self, role: int) -> frozenset[int]:
        """Return the roles that *role* is a direct member of."""
        return frozenset(self._up[role])

    @cached_property
    def runtime(self) -> frozenset[int]:
        """The runtime role and all roles that it can become."""
        return self.closure([self.oids[self.snapshot.role]] if self.snapshot.role in self.oids else [])

    @cached_property
    def tree(self) -> dict[int, Relation]:
        """The relations of the tree."""
        return {relation.oid: relation for relation in self.snapshot.relations}

    def exempt(self, roles: Iterable[int]) -> str | None:
        """Return why policies do not bind one of *roles*, or None."""
        for oid in roles:
            row = self.roles.get(oid)
            if row is None:
                return "cannot be looked up"
            for has, why in (
                (row.superuser, "is a superuser"),
                (row.bypassrls, "has BYPASSRLS"),
                (row.createrole, "has CREATEROLE"),
                (row.replication, "has REPLICATION"),
                (row.name in _STRONG, "is a predefined role that reads past grants"),
            ):
                if has:
                    return f"{row.name} {why}"
        return None

    def power(self, owner: int) -> str | None:
        """Return why code that runs as *owner* could read governed rows, or None if it cannot by itself."""
        roles = self.closure([owner])
        if (why := self.exempt(roles)) is not None:
            return why
        for relation in self.snapshot.relations:
            if self.oids.get(relation.owner) in roles:
                return f"{relation.owner} owns {relation.schema}.{relation.name} and can disable its row security"
        for node in self.nodes.values():
            if usable(node.readers, roles) and not self.bound(roles, node.oid):
                relation = self.tree[node.oid]
                return f"{self.name(owner)} may read {relation.schema}.{relation.name} under another policy"
        for privilege in self.privileges:
            if privilege.grantee in roles:
                return f"{self.name(owner)} has {privilege.privilege} on {privilege.schema}.{privilege.name}"
        return None

    def bound(self, roles: frozenset[int], oid: int, *, as_view: bool = False) -> bool:
        """Return whether *roles* together can read only rows of the session's tenant in the relation."""
        if self.exempt(roles) is not None:
            return False
        if oid in self.tree:
            return self._bound_in_tree(roles, self.tree[oid], as_view=as_view)
        other = self.relations.get(oid)
        if other is None or not other.rls or (other.owner in roles and not (other.forced and as_view)):
            return False
        return self._bound_elsewhere(roles, other)

    def _bound_in_tree(self, roles: frozenset[int], relation: Relation, *, as_view: bool) -> bool:
        owner = self.oids.get(relation.owner)
        if not relation.rls or (owner in roles and not (relation.forced and as_view)):
            return False
        names = {self.roles[oid].name for oid in roles} | {"public"}
        mine = [p for p in self.snapshot.policies[relation.oid] if names & set(p.roles) and p.command in ("r", "*")]
        binding_policies = [p for p in mine if self._binds_tenant(relation.oid, p, as_view=as_view)]
        if any(not p.permissive for p in binding_policies):
            return True
        return all(p in binding_policies for p in mine if p.permissive)

    def _binds_tenant(self, oid: int, policy: Policy, *, as_view: bool) -> bool:
        bound = self.snapshot.bound(policy.using, policy)
        if bound is None or (oid, policy.name) in self._code:
            return bound is None and not policy.permissive
        if bound.binding is Binding.SETTING:
            return bound.settings == {self.snapshot.target.setting}
        return bound.binding is Binding.NEVER or (bound.binding is Binding.ROLE and as_view)

    def _bound_elsewhere(self, roles: frozenset[int], other: OtherRelation) -> bool:
        mine = [p for p in self.policies[other.oid]
                if p.command in ("r", "*") and (PUBLIC in p.roles or roles & set(p.roles))]  # fmt: skip
        binding_policies = [
            p for p in mine if (p.oid, p.name) not in self._code and self._binds_candidate(p.using, other)
        ]
        if any(not p.permissive for p in binding_policies):
            return True
        return all(p in binding_policies for p in mine if p.permissive)

    def _binds_candidate(self, expression: str | None, other: OtherRelation) -> bool:
        if expression is None:
            return False
        for field in (*map(TenantField, other.columns), *keys_in(expression, other.columns)):
            bound = bind(expression, field)
            if bound is not None and bound.binding in _BOUND:
                settings = {self.snapshot.target.setting} if bound.binding is Binding.SETTING else set(bound.settings)
                return bound.settings == settings
        return False


def usable(grantees: Iterable[int], roles: frozenset[int]) -> bool:
    """Return whether one of *roles*, or PUBLIC, is among *grantees*."""
    return any(oid == PUBLIC or oid in roles for oid in grantees)
