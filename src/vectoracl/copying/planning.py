"""The plan of a copy: what is to be done for each tenant, or why the whole copy is refused.

Planning reads both sides and writes nothing. See `vectoracl.copying.copy` for what an exact copy requires.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from vectoracl import hazmat
from vectoracl.adapter_api.contract import Progress
from vectoracl.adapter_api.equality import TOLERANCE
from vectoracl.adapter_api.operations import Position
from vectoracl.adapter_api.store_identity import shared
from vectoracl.adapter_api.store_notes import other_embedder
from vectoracl.client.connect import VectorACL
from vectoracl.copying.compare import Comparison, compare, within
from vectoracl.errors import (
    ConfigError,
    InvalidInputError,
    RefusedError,
    StoreError,
    VectorACLError,
    without_context,
)
from vectoracl.hazmat import Operated
from vectoracl.model.identifiers import check_tenant, look_alikes

PAGE = 500
SETTLE = 60.0
"""The seconds until the rows of an eventually consistent target must be visible."""
_SHOWN = 10
State = Literal["copy", "overwrite", "resume", "verify", "there"]


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a copy: an opened configuration, and one of its stores (None: the store of each tenant)."""

    acl: VectorACL
    store: str | None = None

    def stores(self) -> tuple[str, ...]:
        """Return the names of the stores of this side."""
        return tuple(sorted(self.acl.config.stores)) if self.store is None else (self.store,)

    def store_of(self, tenant: str) -> str:
        """Return the name of the store of *tenant*."""
        return self.acl.store_of(tenant) if self.store is None else self.store


@dataclass(frozen=True, slots=True)
class Move:
    """One tenant's part of a plan.

    `rows` is None if the source cannot count. `state` is the work that is left: "copy" everything; delete the target's
    rows and copy everything ("overwrite"); "resume" after the checkpoint; "verify" copied rows; or nothing, since the
    same rows are "there" already.
    """

    tenant: str
    source: Operated
    target: Operated
    rows: int | None
    state: State


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a copy. `notes` list differences between the stores that the rows do not show."""

    moves: tuple[Move, ...]
    notes: tuple[str, ...]


class Planner:
    """Plans a copy between two sides.

    *begun* returns the state of a tenant whose copy was begun by an earlier call, or None. *different_stores* overrides
    the check that both sides are different stores (`VectorACL.store_identity`); every record of the copy shows it.
    Equal settings are refused even then. With *reembed* the target makes the vectors again from the texts; then
    dimension and metric may differ.
    """

    def __init__(
        self,
        source: Side,
        target: Side,
        *,
        reason: str,
        begun: Callable[[str], State | None],
        progress: Progress,
        batch: int = PAGE,
        different_stores: bool = False,
        reembed: bool = False,
    ) -> None:
        self._source = source
        self._target = target
        self._reason = (
            f"{reason}; the stores are declared to be different (--different-stores)" if different_stores else reason
        )
        self._begun = begun
        self._progress = progress
        self._batch = batch
        self._different = different_stores
        self._reembed = reembed
        self._opened: dict[tuple[bool, str], Operated] = {}
        self._found: dict[tuple[int, str], frozenset[str]] = {}

    def plan(
        self,
        tenants: Sequence[str] | None = None,
        *,
        named: bool = False,
        overwrite: bool = False,
        continuing: bool = False,
    ) -> Plan:
        """Read both sides and return the plan, or refuse everything; writes nothing.

        *tenants* None means all tenants that the source's adapters list. *named* means that a person chose each of
        them, so ids that look alike are intended. With *overwrite* other rows of a tenant in the target are deleted
        before copying; equal rows are never deleted, so nothing is lost if both sides turn out to be one store.
        With *continuing* the target may hold a part of a tenant's rows, if each of them equals that of the source.

        Raises: RefusedError and InvalidInputError with the remedy; StoreError, PostureError.
        """
        chosen, sizes = self._tenants(tenants)
        if not named:
            self._refuse_look_alikes(chosen, sizes)
        notes: dict[str, None] = {}
        moves: list[Move] = []
        conflicts: list[str] = []
        for tenant in chosen:
            source, target, differences = self.sides(tenant)
            notes.update(dict.fromkeys(differences))
            rows = sizes[tenant] if tenant in sizes else _counted(source, tenant)
            move = Move(tenant, source, target, rows, self._state(tenant, target))
            if self._partly_other(move) if continuing else self._other_rows(move, overwrite=overwrite):
                if overwrite:
                    move = replace(move, state="overwrite")
                else:
                    conflicts.append(tenant)
            moves.append(move)
        empty = [move.tenant for move in moves if move.rows == 0 and tenants is not None]
        if empty:
            raise RefusedError(
                f"The source has no rows of {_listed(empty)}. Ids are compared exactly; `vectoracl tenants list` lists "
                "them if the store can.",
                field="tenant",
            )
        if conflicts:
            listed = _listed(conflicts)
            raise RefusedError(
                f"The target holds other rows of {listed}. Copy into an empty store, omit these tenants, or replace "
                "their rows with --tenant ID --overwrite. To continue a copy that was begun, pass its checkpoint "
                "(--checkpoint FILE).",
                field="tenant",
            )
        notes.update(dict.fromkeys(self._shared()))
        return Plan(tuple(moves), tuple(notes))

    def sides(self, tenant: str) -> tuple[Operated, Operated, list[str]]:
        """Return the access to the two stores of *tenant*, and notes on them. Raises: as `plan`."""
        notes = list(self._refuse_one_store(tenant))
        source = self._operated(self._source, self._source.store_of(tenant), source=True)
        target = self._operated(self._target, self._target.store_of(tenant), source=False)
        return source, target, [*notes, *self._check(source, target)]

    def _tenants(self, given: Sequence[str] | None) -> tuple[list[str], dict[str, int]]:
        """Return the tenants to copy, sorted, and the sizes that the source lists."""
        if given is not None:
            chosen = sorted({check_tenant(one) for one in given})
            if not chosen:
                raise InvalidInputError("The list of tenants is empty.", field="tenants")
            return chosen, {}
        sizes: dict[str, int] = {}
        for name in self._source.stores():
            for tenant, rows in self._listed(name):
                if self._source.store_of(tenant) == name:
                    sizes[tenant] = rows
        return sorted(sizes), sizes

    @without_context
    def _listed(self, store: str) -> list[tuple[str, int]]:
        adapter = self._source.acl.config.stores[store].adapter
        way = "Pass the tenants with --tenant ID or --tenants FILE (one id per line)."
        try:
            operator = self._source.acl.operator(store)
        except ConfigError:
            raise
        except RefusedError:
            raise RefusedError(f"The adapter {adapter!r} cannot list tenants. {way}", field="tenants") from None
        try:
            return [(one.tenant, one.rows) for one in operator.tenants()]
        except (RefusedError, ConfigError) as error:
            error.add_note(way)
            raise
        finally:
            operator.close()

    def _refuse_look_alikes(self, chosen: Sequence[str], sizes: dict[str, int]) -> None:
        groups = look_alikes({*chosen, *sizes})
        if groups:
            names = "; ".join(" and ".join(ascii(one) for one in group) for group in groups[:_SHOWN])
            more = f" and {len(groups) - _SHOWN:,} more groups" if len(groups) > _SHOWN else ""
            raise RefusedError(
                f"Tenant ids that look alike: {names}{more}. Nothing was copied. If they are different tenants, name "
                "each of them: --tenant ID --tenant ID.",
                field="tenant",
            )

    def _refuse_one_store(self, tenant: str) -> Iterator[str]:
        """Refuse a tenant whose store is the same on both sides, by its settings or by its physical identity.

        Yields a note if the second check was overridden.
        """
        names = [(side.acl, side.store_of(tenant)) for side in (self._source, self._target)]
        (_, one_name), (_, other_name) = names
        one, other = (acl.place(name) for acl, name in names)
        if one == other:
            raise RefusedError(
                f"--from and --to are the same store for {tenant!a}. To copy between two stores of one file, pass "
                "--from-store and --to-store.",
                field="to",
            )
        mine, theirs = (self._identity(acl, name) for acl, name in names)
        evidence = ", ".join(map(ascii, shared(mine, theirs)))
        if evidence and not self._different:
            raise RefusedError(
                f"--from and --to are the same store for {tenant!a} under different settings: both reach {evidence}. "
                "Nothing was copied, and nothing has to be. If you know that they are two stores, pass "
                "--different-stores, which is recorded.",
                field="to",
            )
        if evidence:
            yield f"not refused because of --different-stores: {one_name!r} and {other_name!r} both reach {evidence}"

    def _identity(self, acl: VectorACL, store: str) -> frozenset[str]:
        identity = self._found.get((id(acl), store))
        if identity is None:
            identity = self._found[id(acl), store] = acl.store_identity(store)
        return identity

    def _operated(self, side: Side, name: str, *, source: bool) -> Operated:
        handle = self._opened.get((source, name))
        if handle is None:
            handle = hazmat.operate(side.acl, store=name, reason=self._reason)
            self._opened[source, name] = handle
        return handle

    def _check(self, source: Operated, target: Operated) -> Iterator[str]:
        """Refuse stores between which a copy would not be exact; yield notes on other differences."""
        one, other = source.store, target.store
        can, will = one.capabilities, other.capabilities
        vectors = (("dimension", can.dimension, will.dimension), ("metric", can.metric, will.metric))
        for what, mine, theirs in () if self._reembed else vectors:
            if mine != theirs:
                raise RefusedError(
                    f"The source {one.name!r} has the {what} {mine} and the target {other.name!r} {theirs}. Vectors "
                    f"are copied unchanged: set the target's {what} to {mine}, or embed the texts again (--reembed).",
                    field=what,
                )
        if dict(one.fields) != dict(other.fields):
            names = sorted(
                name for name in {*one.fields, *other.fields} if one.fields.get(name) != other.fields.get(name)
            )
            differences = "; ".join(
                f"{name}: {_kind(one.fields.get(name))} in the source, {_kind(other.fields.get(name))} in the target"
                for name in names
            )
            raise RefusedError(
                f"The declared metadata differs ({differences}). Make [stores.{other.name}.metadata] equal to "
                f"[stores.{one.name}.metadata]: filters have to mean the same in both.",
                field="metadata",
            )
        if one.expiring and not other.expiring:
            raise RefusedError(
                f"Chunks of the source {one.name!r} can expire, and reads of the target {other.name!r} would not "
                f"look at it. Set expiring = true in [stores.{other.name}], in every process that reads it.",
                field="expires",
            )
        yield from self._check_embedders(source, target)
        if "scan" not in can.operations:
            raise RefusedError(f"The adapter {one.adapter_name!r} cannot scan, so nothing can be copied out of it.")
        if not will.verbatim or "upsert" not in will.operations:
            raise RefusedError(
                f"The adapter {other.adapter_name!r} cannot keep tags unchanged, so nothing can be copied into it.",
                field="verbatim",
            )
        if source.reached != target.reached:
            yield f"isolation grade: {source.reached} in {one.name!r}, {target.reached} in {other.name!r}"
        if will.vectors == "half" and can.vectors != "half":
            yield f"vectors are rounded to half precision in {other.name!r}"
        if can.queries - will.queries:
            yield f"queries that {other.name!r} does not support: {', '.join(sorted(can.queries - will.queries))}"
        if can.count != "none" and will.count == "none":
            yield f"{other.name!r} cannot count"
        if can.visible == "immediate" and will.visible == "eventual":
            yield f"writes to {other.name!r} become visible with a delay"

    def _check_embedders(self, source: Operated, target: Operated) -> Iterator[str]:
        one, other = source.embedder, target.embedder
        if self._reembed:
            configured = self._target.acl.embedder_identity
            if configured is None:
                raise RefusedError(
                    "The target has no embedder to make the vectors: add [embedder] to its configuration.",
                    field="embedder",
                )
            if other != configured:
                raise other_embedder(target.store.name, str(other), configured)
            yield f"vectors are made again from the texts, by {configured!r}"
            return
        mine, theirs = self._source.acl.config.embedder, self._target.acl.config.embedder
        equal = mine is None or theirs is None or (mine.use, mine.dimension) == (theirs.use, theirs.dimension)
        if not equal or (None not in (one, other) and one != other):
            raise RefusedError(
                f"The source's embedder is {one!r} and the target's {other!r}. Vectors of two embedders are not "
                "comparable: configure the source's embedder in the target, with the same settings, or embed the texts "
                "again (--reembed).",
                field="embedder",
            )

    def _shared(self) -> Iterator[str]:
        one, other = (set(side.acl.config.tenants.shared) for side in (self._source, self._target))
        if one != other:
            yield (
                f"shared tenants: {', '.join(sorted(one)) or 'none'} in the source, "
                f"{', '.join(sorted(other)) or 'none'} in the target (access follows the target's configuration)"
            )

    def _state(self, tenant: str, target: Operated) -> State:
        return self._begun(tenant) or ("there" if target.read(tenant, 1).hits else "copy")

    def _other_rows(self, move: Move, *, overwrite: bool) -> bool:
        """Return whether the target holds rows that this copy would not write; their embedder cannot be checked."""
        if self._reembed:
            return move.state == "there"
        return (move.state == "there" or (move.state == "verify" and overwrite)) and not self._same(move)

    def _partly_other(self, move: Move) -> bool:
        """Return whether the target holds a row that is not that of the source."""
        if move.state != "there":
            return False
        comparison = self.compared(move, "comparing existing rows")
        return bool(comparison.extra or comparison.different)

    def _same(self, move: Move) -> bool:
        return self.compared(move, "comparing existing rows").same

    def compared(
        self,
        move: Move,
        doing: str,
        before: int = 0,
        total: int | None = None,
        after: Position | None = None,
        upto: Position | None = None,
    ) -> Comparison:
        """Compare the rows of *move* behind *after* up to *upto*; *before* and *total* count rows for the progress."""
        return compare(
            move.tenant,
            within(partial(move.source.read, move.tenant), upto),
            within(partial(move.target.read, move.tenant), upto),
            metric=move.source.store.capabilities.metric,
            tolerance=self.tolerance(move),
            size=self._batch,
            seen=lambda rows: self._progress(
                doing, before + rows, None if total is None else max(total, before + rows)
            ),
            after=after,
        )

    def settled(
        self,
        move: Move,
        before: int = 0,
        total: int | None = None,
        after: Position | None = None,
        upto: Position | None = None,
    ) -> Comparison:
        """Compare as `compared` does; repeat it for a while if the target shows writes with a delay."""
        until = time.monotonic() + SETTLE
        while True:
            comparison = self.compared(move, "verifying", before, total, after, upto)
            eventual = move.target.store.capabilities.visible == "eventual"
            if comparison.same or not eventual or time.monotonic() > until:
                return comparison
            time.sleep(1)

    def tolerance(self, move: Move) -> float | None:
        """Return the largest difference of equal vectors; None if the target has vectors of another embedder."""
        can, will = move.source.store.capabilities, move.target.store.capabilities
        return None if self._reembed else TOLERANCE["half" if "half" in (can.vectors, will.vectors) else "single"]


def _counted(source: Operated, tenant: str) -> int | None:
    try:
        return source.count(tenant)
    except StoreError:
        raise
    except VectorACLError:
        return None


def _kind(kind: object) -> str:
    return "not declared" if kind is None else str(getattr(kind, "value", kind))


def _listed(tenants: Sequence[str]) -> str:
    ids = ", ".join(ascii(one) for one in tenants[:_SHOWN])
    more = f" and {len(tenants) - _SHOWN:,} more" if len(tenants) > _SHOWN else ""
    return f"{'the tenant' if len(tenants) == 1 else f'{len(tenants):,} tenants:'} {ids}{more}"
