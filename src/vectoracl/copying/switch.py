"""Switches a tenant to another store while its processes run: copy, catch up, route.

1. *Begin.* The former store is marked, so that a process without the routes refuses it; the routes note the switch;
   calls that began before are waited for. The tenant is served from its store as before.
2. *Copy.* Passes of `mirror` make the target's rows those of the source, until one finds little to do.
3. *Freeze.* The tenant's writes are held back for at most `stall` seconds; reads continue. What changed since the last
   pass is brought over, and both stores are compared row by row.
4. *Flip.* If they are the same, the routes name the target from then on, and the writes continue there. If the time is
   over, the writes continue in the source, and another pass follows.

Whatever stops it (Ctrl-C, an error, kill -9), the source stays the tenant's store until the flip, and the target is
from then on; nothing is held back by a process that has ended. The same call continues. The rows in the former store
stay until `remove_former`; they are not read any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from shlex import quote
from typing import Any, Literal, TypeVar

from vectoracl import hazmat
from vectoracl.adapter_api.contract import Operator, Progress, TenantRemover
from vectoracl.client.connect import VectorACL
from vectoracl.copying.compare import Comparison
from vectoracl.copying.mirror import Mirror
from vectoracl.copying.planning import PAGE, Move, Planner, Side
from vectoracl.engine.routes import InFlightError, Route, Routes
from vectoracl.errors import ConfigError, InvalidInputError, RefusedError, StoreError
from vectoracl.model.identifiers import check_tenant

T = TypeVar("T")
STALL = 10.0
"""The most seconds for which writes are held back at a time; less than they wait (`routes.WAIT`)."""
MOST_STALL = 25.0
_WAIT = 60.0  # seconds for calls that began before the switch
_PASSES = 5  # of the copy, before a freeze is tried whatever is left
_FREEZES = 3
Step = Literal["new", "begun", "switched"]


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of a switch: from store to store, the tenant's rows (None: unknown), and how far it has come."""

    tenant: str
    former: str
    to: str
    rows: int | None
    step: Step
    notes: tuple[str, ...]


@dataclass(slots=True)
class Switched:
    """The result: rows written and deleted in the target, the comparison, and for how long writes were held back."""

    written: int = 0
    deleted: int = 0
    passes: int = 0
    held: float = 0.0
    comparison: Comparison | None = None


class _TimeOverError(Exception):
    """The writes were held back for as long as permitted."""


class Switch:
    """The switch of *tenant* to the store *to*.

    Args:
        acl: The opened configuration, with `[tenants] routes`.
        tenant: The tenant.
        to: The name of the target in the configuration.
        reason: A sentence of at least three words, recorded with each read and write.
        stall: The most seconds for which writes are held back at a time.
        progress: A callback for progress.
        batch: The maximum number of rows per request.
    """

    def __init__(
        self,
        acl: VectorACL,
        tenant: str,
        to: str,
        *,
        reason: str,
        stall: float = STALL,
        progress: Progress | None = None,
        batch: int = PAGE,
    ) -> None:
        if not 0 < stall <= MOST_STALL:
            raise InvalidInputError(f"stall must be a number of seconds up to {MOST_STALL:g}.", field="stall")
        if to not in acl.config.stores:
            raise ConfigError(
                f"There is no store {to!r} in the configuration. Its stores: {', '.join(sorted(acl.config.stores))}."
            )
        self._acl = acl
        self._tenant = check_tenant(tenant)
        self._to = to
        self._reason = reason
        self._stall = stall
        self._progress: Progress = progress or (lambda _what, _done, _total: None)
        self._batch = batch
        self._until: float | None = None
        self._routes = _routes_of(acl)

    # Planning

    def plan(self) -> Planned:
        """Read both stores and return what would be done, or refuse it; nothing is written.

        Raises: RefusedError, ConfigError, InvalidInputError with the remedy; StoreError, PostureError.
        """
        return self._planned()[0]

    def _planned(self) -> tuple[Planned, Move | None, Planner | None]:
        entry = self._entry()
        if entry.store == self._to:
            notes = () if entry.former is None else (f"the rows in {entry.former!r} were not removed yet",)
            return Planned(self._tenant, entry.former or "", self._to, None, "switched", notes), None, None
        if entry.to not in (None, self._to):
            raise RefusedError(
                f"A switch of {self._tenant!a} to {entry.to!r} was begun. Finish it with --to {entry.to}, or give it "
                f"up with --to {entry.to} --abort.",
                field="to",
            )
        if entry.former not in (None, self._to):
            raise RefusedError(
                f"The rows of {self._tenant!a} in its former store {entry.former!r} were not removed yet. Do that "
                f"first: --to {entry.store} --remove-former.",
                field="to",
            )
        self._refuse_shared()
        planner = Planner(
            Side(self._acl, entry.store),
            Side(self._acl, self._to),
            reason=self._reason,
            begun=lambda _: None,
            progress=self._shown,
            batch=self._batch,
        )
        source, target, notes_of_sides = planner.sides(self._tenant)
        if target.store.capabilities.visible == "eventual":
            raise RefusedError(
                f"Writes to {self._to!r} become visible with a delay, so no moment is certain in which both stores "
                "hold the same rows. Stop the writers and use `vectoracl copy`.",
                field="to",
            )
        self._marker(entry.store)
        begun = entry.to == self._to
        if not begun and entry.former != self._to and target.read(self._tenant, 1).hits:
            raise RefusedError(
                f"The store {self._to!r} holds rows of {self._tenant!a} already, which a switch would change or "
                "delete. If they are not needed, remove them first: `vectoracl tenants remove "
                f"{quote(self._tenant)} --store {quote(self._to)}`.",
                field="to",
            )
        rows = source.count(self._tenant) if source.store.capabilities.count != "none" else None
        step: Step = "begun" if begun else "new"
        planned = Planned(self._tenant, entry.store, self._to, rows, step, tuple(notes_of_sides))
        return planned, Move(self._tenant, source, target, rows, "copy"), planner

    def _entry(self) -> Route:
        entry = self._routes.state().tenants.get(self._tenant)
        return Route(self._acl.store_of(self._tenant)) if entry is None else entry

    def _refuse_shared(self) -> None:
        if self._acl.config.tenants.shared:
            raise RefusedError(
                "There are shared tenants, which every tenant reads together with its own rows, and that is possible "
                "only in one store. A tenant can be switched only without [tenants] shared.",
                field="shared",
            )

    def _marker(self, store: str) -> Operator:
        """Return the operator of *store*, which can mark it. Raises: RefusedError."""
        operator = self._acl.operator(store, reason=self._reason)
        if not callable(getattr(operator, "mark", None)):
            operator.close()
            raise RefusedError(
                f"The adapter {self._acl.config.stores[store].adapter!r} cannot mark its store, so a process without "
                "the routes would go unnoticed. Stop the processes and use `vectoracl copy`.",
                field="tenant",
            )
        return operator

    # Running

    def run(self) -> Switched:
        """Switch the tenant, or continue a switch that was begun. Nothing is removed from the former store.

        Raises: as `plan`; RefusedError if another switch is running; StoreError with the code "stall" if the writes
        would have to be held back longer than permitted. Until the switch is done the tenant is served as before.
        """
        with self._routes.switching():
            planned, move, planner = self._planned()
            result = Switched()
            if move is None or planner is None:
                return result
            self._step("preparing", 0, 1)
            self._mark(planned.former)
            self._noted("begin", lambda: self._routes.begin(self._tenant, self._to, wait=_WAIT))
            self._step("preparing", 1, 1)
            mirror = Mirror(move, self._batch, planner.tolerance(move))
            self._copy(mirror, result)
            for _ in range(_FREEZES):
                if self._frozen(mirror, planner, move, result):
                    return result
                self._copy(mirror, result)
        raise StoreError(
            f"In {self._stall:g} seconds, {_FREEZES} times, writes in flight did not end, or the last changes could "
            "not be brought over and compared. The tenant is served by its former store. Run the same command again "
            "with more time (--stall), or when less is written.",
            code="stall",
            sent="no",
            retryable=True,
        )

    def _noted(self, step: str, act: Callable[[], None]) -> None:
        """Take a *step* of the switch, which is recorded before."""
        hazmat.on_route(self._acl, act, step=step, tenant=self._tenant, store=self._to, reason=self._reason)

    def _mark(self, store: str) -> None:
        operator: Any = self._marker(store)
        try:
            posture = self._acl.check_store(store)
            if posture.registry != self._routes.mark:
                operator.mark(self._routes.mark)
        finally:
            operator.close()

    def _copy(self, mirror: Mirror, result: Switched) -> None:
        for _ in range(_PASSES):
            changes = mirror.update(lambda rows: self._shown("copying", rows, None))
            self._add(result, changes)
            if changes.changed <= self._batch:
                return

    @staticmethod
    def _add(result: Switched, changes: Any) -> None:
        result.passes += 1
        result.written += changes.written
        result.deleted += changes.deleted

    def _frozen(self, mirror: Mirror, planner: Planner, move: Move, result: Switched) -> bool:
        """Hold the writes back, bring over what is left, compare and flip; return False if the time was over."""
        began = time.monotonic()
        self._until = began + self._stall
        try:
            with self._routes.frozen(self._tenant, self._until):
                self._add(result, mirror.update(lambda rows: self._shown("catching up", rows, None)))
                comparison = planner.compared(move, "comparing")
                if not comparison.same:
                    raise StoreError(
                        f"The target does not keep the rows of {self._tenant!a} as they are in the source: "
                        f"{'; '.join(comparison.examples) or 'the digests differ'}. The tenant is served by its former "
                        "store. Something else writes to the target, or the adapter changes rows; `--abort` gives the "
                        "switch up.",
                        code="differs",
                        sent="no",
                    )
                self._shown("comparing", comparison.source_rows, None)
                self._noted("flip", lambda: self._routes.flip(self._tenant))
        except (_TimeOverError, InFlightError):
            return False
        finally:
            self._until = None
            result.held += time.monotonic() - began
        result.comparison = comparison
        return True

    def _shown(self, what: str, done: int, total: int | None) -> None:
        """Show progress; while writes are held back, end the attempt when the time is over."""
        if self._until is not None and time.monotonic() > self._until:
            raise _TimeOverError
        self._progress(what, done, total)

    def _step(self, what: str, done: int, total: int) -> None:
        self._progress(what, done, total)

    # Afterwards

    def abort(self) -> int | None:
        """Give up a switch that was begun and not finished, and delete what it wrote; return the number of rows.

        Raises: RefusedError if there is none; StoreError.
        """
        with self._routes.switching():
            entry = self._entry()
            if entry.to != self._to or entry.store == self._to:
                raise RefusedError(
                    f"No switch of {self._tenant!a} to {self._to!r} is under way. `--dry-run` shows how far it is.",
                    field="to",
                )
            deleted = hazmat.operate(self._acl, store=self._to, reason=self._reason).clear(self._tenant)
            self._noted("abort", lambda: self._routes.settle(self._tenant, former=False))
        return deleted

    def remove_former(self) -> list[str]:
        """Remove the tenant's rows from its former store, when no call reads them there; return what was done.

        Raises: RefusedError if the tenant was not switched to this store, or nothing is left; StoreError.
        """
        with self._routes.switching():
            entry = self._entry()
            if entry.store != self._to or entry.former is None:
                raise RefusedError(
                    f"There is no former store of {self._tenant!a} with rows that a switch to {self._to!r} left. "
                    "`--dry-run` shows how far it is.",
                    field="to",
                )
            if entry.to is not None:
                raise RefusedError(
                    f"A switch of {self._tenant!a} to {entry.to!r} is under way. Finish or abort it first.", field="to"
                )
            with self._routes.unread(self._tenant, entry.former, time.monotonic() + _WAIT):
                lines = self._removed(entry.former)
            self._routes.settle(self._tenant, former=True)
        return lines

    def _removed(self, store: str) -> list[str]:
        try:
            operator: object = self._acl.operator(store)
        except ConfigError:
            raise
        except RefusedError:
            operator = None
        if operator is not None and not isinstance(operator, TenantRemover):
            operator = None
        if operator is None:
            deleted = hazmat.operate(self._acl, store=store, reason=self._reason).clear(self._tenant)
            return [f"deleted {'the' if deleted is None else f'{deleted:,}'} rows of {self._tenant!a} in {store!r}"]

        def remove(one: Any) -> list[str]:
            return list(one.remove(self._tenant))

        return hazmat.on_tenant(
            self._acl, remove, action="remove", tenant=self._tenant, store=store, reason=self._reason
        )


def _routes_of(acl: VectorACL) -> Routes:
    if acl.registry is not None:
        raise RefusedError(
            "The stores are under a registry, which is asked about rows in one store, so a tenant cannot be switched.",
            field="registry",
        )
    if acl.routes is None:
        raise RefusedError(
            "The configuration names no routes. Set [tenants] routes to a folder, run `vectoracl provision`, give "
            "every process this configuration, and start them again: only then do all of them follow a switch.",
            field="routes",
        )
    return acl.routes
