"""The decision point: principal and action in, decision out. No rule applied, or evaluation broke: deny."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from vectoracl.access.scope import NOTHING, Grant, Scope
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.actions import READ, Action
from vectoracl.model.identifiers import check_tenant
from vectoracl.model.principal import Principal


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy said.

    A permit carries the scope, which may be empty (reads then answer nothing). `reasons` are for people and audit
    records and hold no rows. `policy_version` is the version of the rules that decided; None: it has none, and the
    decision serves one operation. `valid_until` (POSIX seconds) is when the decision ends: it is not used from then on.
    None leaves that to the configuration's `decision_ttl`.
    """

    permit: bool
    scope: Scope
    reasons: tuple[str, ...]
    policy_version: str | None
    valid_until: float | None = None

    @classmethod
    def deny(cls, reason: str, policy_version: str | None) -> Decision:
        """Return a denial."""
        return cls(permit=False, scope=NOTHING, reasons=(reason,), policy_version=policy_version)


@runtime_checkable
class Policy(Protocol):
    """The decision point. It runs in a thread of ours, so that a `timeout` holds while it waits for a database.

    Where it may only be called in the thread of the caller (a connection of sqlite3 or Django belongs to one thread),
    it says so by an attribute `same_thread = True`; while it waits, no time limit is kept and an event loop stands.
    """

    @property
    def version(self) -> str | None:
        """The version of everything that decisions depend on; a new one ends the cached ones at the next operation.

        None: decisions also depend on what has no version (the application's own tables), so that none is cached.
        A text promises that `decide` answers the same for the same principal, action and text.
        """
        ...

    def decide(self, principal: Principal, action: Action) -> Decision:
        """Decide. An exception counts as a denial."""
        ...


class TenantPolicy:
    """The default: a principal reads its own tenant and the shared ones, and writes its own tenant only.

    *shared* are tenants that everybody reads and only their own principals write. A missing tenant never means
    shared: a principal always has one.
    """

    def __init__(self, shared: Iterable[str] = ()) -> None:
        self._shared = tuple(sorted({check_tenant(one) for one in shared}))
        digest = hashlib.blake2b("\n".join(self._shared).encode(), digest_size=4).hexdigest()
        self._version = f"tenant-policy/1+{digest}"

    @property
    def version(self) -> str:
        """The version of the rules."""
        return self._version

    def decide(self, principal: Principal, action: Action) -> Decision:
        """Decide; see the class."""
        own = Grant(principal.tenant, ALWAYS)
        if action not in READ:
            return _permit(Scope((own,)), ("own tenant",), self._version)
        shared = tuple(Grant(one, ALWAYS) for one in self._shared if one != principal.tenant)
        reasons = ("own tenant", *(f"shared tenant {one.partition}" for one in shared))
        return _permit(Scope((own, *shared)), reasons, self._version)


def _permit(scope: Scope, reasons: tuple[str, ...], version: str) -> Decision:
    return Decision(permit=True, scope=scope, reasons=reasons, policy_version=version)
