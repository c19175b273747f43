"""A policy from a table, so that it can be used in another process as well."""

from __future__ import annotations

from collections.abc import Mapping

from vectoracl import Decision, Grant, Principal, Scope, TenantPolicy
from vectoracl.filters.predicate import ALWAYS, Predicate
from vectoracl.model.actions import ALL_ACTIONS, Action

Rules = Mapping[str, Mapping[Action, Mapping[str, Predicate]]]
"""For the id of a principal, for each permitted action, the predicate of each granted tenant."""


def everything(user: str, grants: Mapping[str, Predicate]) -> Rules:
    """Return rules by which *user* may do everything to *grants*; without any, nothing is in scope."""
    return {user: {action: dict(grants) for action in ALL_ACTIONS}}


def nothing(user: str) -> Rules:
    """Return rules by which *user* may do nothing."""
    return {user: {}}


class TablePolicy:
    """Grants by principal, action and tenant. A principal who is not listed has the rights of `TenantPolicy`."""

    def __init__(self, table: Rules) -> None:
        self._table = table
        self._changes = 0

    @property
    def version(self) -> str:
        """The version, which changes with the table."""
        return f"rules-{self._changes}"

    def change(self, table: Rules) -> None:
        """Have another table."""
        self._table = table
        self._changes += 1

    def decide(self, principal: Principal, action: Action) -> Decision:
        """Decide by the table."""
        own = self._table.get(principal.id)
        if own is None:
            return TenantPolicy().decide(principal, action)
        if action not in own:
            return Decision.deny("there is no rule for it", self.version)
        scope = Scope.of(Grant(tenant, predicate) for tenant, predicate in own[action].items())
        return Decision(permit=True, scope=scope, reasons=("a rule",), policy_version=self.version)


__all__ = ["ALWAYS", "Rules", "TablePolicy", "everything", "nothing"]
