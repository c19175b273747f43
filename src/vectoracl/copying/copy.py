"""Copies of tenants between two stores of any kind.

A copy has two phases. `Copy.plan` reads both sides and decides per tenant what to do, or refuses everything; it writes
nothing. `Copy.run` carries the plan out and then compares every tenant row by row.

*Exact or refused.* Vectors, texts, metadata and tags arrive unchanged, so that policies and filters mean the same in
the target. The plan is refused as a whole if that is impossible: another dimension, metric, embedder or metadata
declaration; other rows of a tenant in the target; tenants whose ids look alike; one store on both sides. With `reembed`
the target's embedder makes new vectors from the texts, and vectors are not compared.

*One store on both sides.* Equal settings are always refused. Different settings that reach the same physical store
(`VectorACL.store_identity`) are refused unless the caller overrides this; then every record of the copy shows it. With
`overwrite` only rows that differ are deleted, so nothing is lost if both sides turn out to be one store.

*Resumable.* Rows are read in key order and written in batches; after each batch the checkpoint records the last key. So
the target may be one batch ahead of the checkpoint, and writing that batch again is harmless. Nothing is deleted in the
source. A tenant is "begun", then "copied", then "verified"; an interrupted copy continues with the same command.

*Recorded.* Rows pass through both adapters' own flows without a scope (`hazmat.operate`); each read and write leaves an
audit record on its side. The second lock verifies every row that is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from vectoracl import hazmat
from vectoracl.adapter_api.contract import Progress
from vectoracl.adapter_api.equality import TOLERANCE
from vectoracl.adapter_api.operations import Position
from vectoracl.adapter_api.store_identity import shared
from vectoracl.adapter_api.store_notes import other_embedder
from vectoracl.client.connect import VectorACL
from vectoracl.copying.checkpoint import Checkpoint
from vectoracl.copying.compare import Comparison, compare, key_of
from vectoracl.errors import (
    ConfigError,
    InvalidInputError,
    RefusedError,
    StoreError,
    TooLargeError,
    VectorACLError,
    without_context,
)
from vectoracl.hazmat import Operated
from vectoracl.model.identifiers import check_tenant, look_alikes
from vectoracl.model.records import Hit, Record

PAGE = 500
_SETTLE = 60.0  # seconds until the rows of an eventually consistent target must be visible
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
        config = self.acl.config
        return config.tenants.store.get(tenant, config.default) if self.store is None else self.store


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


@dataclass(slots=True)
class Report:
    """The result of a copy: the rows written by this call, and the comparison of each tenant."""

    written: int = 0
    tenants: list[Comparison] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def different(self) -> list[Comparison]:
        """The tenants whose rows differ."""
        return [one for one in self.tenants if not one.same]


class Copy:
    """One copy between two sides, with its reason, checkpoint and progress.

    *different_stores* overrides the check that both sides are different stores (`VectorACL.store_identity`); every
    record of the copy shows it. Equal settings are refused even then. With *reembed* the target makes the vectors
    again from the texts; then dimension and metric may differ.
    """

    def __init__(
        self,
        source: Side,
        target: Side,
        *,
        reason: str,
        checkpoint: Checkpoint,
        progress: Progress | None = None,
        batch: int = PAGE,
        different_stores: bool = False,
        reembed: bool = False,
    ) -> None:
        self._source = source
        self._target = target
        self._reason = (
            f"{reason}; the stores are declared to be different (--different-stores)" if different_stores else reason
        )
        self._different = different_stores
        self._reembed = reembed
        self._checkpoint = checkpoint
        self._progress = progress or (lambda _what, _done, _total: None)
        self._batch = batch
        self._opened: dict[tuple[bool, str], Operated] = {}
        self._found: dict[tuple[int, str], frozenset[str]] = {}
        self._finished = 0
        self.report = Report()

    # Planning

    def plan(self, tenants: Sequence[str] | None = None, *, named: bool = False, overwrite: bool = False) -> Plan:
        """Read both sides and return the plan, or refuse everything; writes nothing.

        *tenants* None means all tenants that the source's adapters list. *named* means that a person chose each of
        them, so ids that look alike are intended. With *overwrite* other rows of a tenant in the target are deleted
        before copying; equal rows are never deleted, so nothing is lost if both sides turn out to be one store.

        Raises: RefusedError and InvalidInputError with the remedy; StoreError, PostureError.
        """
        chosen, sizes = self._tenants(tenants)
        if not named:
            self._refuse_look_alikes(chosen, sizes)
        notes: dict[str, None] = {}
        moves: list[Move] = []
        conflicts: list[str] = []
        for tenant in chosen:
            notes.update(dict.fromkeys(self._refuse_one_store(tenant)))
            source = self._operated(self._source, self._source.store_of(tenant), source=True)
            target = self._operated(self._target, self._target.store_of(tenant), source=False)
            notes.update(dict.fromkeys(self._check(source, target)))
            rows = sizes[tenant] if tenant in sizes else _counted(source, tenant)
            move = Move(tenant, source, target, rows, self._state(tenant, target))
            if self._other_rows(move, overwrite=overwrite):
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
        if self._checkpoint.knows(tenant):
            reached = self._checkpoint.reached(tenant)
            return "resume" if reached.state == "begun" else "verify"
        return "there" if target.read(tenant, 1).hits else "copy"

    def _other_rows(self, move: Move, *, overwrite: bool) -> bool:
        """Return whether the target holds rows that this copy would not write; their embedder cannot be checked."""
        if self._reembed:
            return move.state == "there"
        return (move.state == "there" or (move.state == "verify" and overwrite)) and not self._same(move)

    def _same(self, move: Move) -> bool:
        return self._compared(move, "comparing existing rows").same

    # Running

    def run(self, plan: Plan) -> Report:
        """Carry out *plan*, then compare every tenant; "overwrite" first deletes the rows of the target.

        The checkpoint is locked in the meantime. A difference is not raised; the report lists it. Raises: RefusedError
        if another copy holds the checkpoint; StoreError and others, with a note on the progress and how to continue.
        """
        start = time.monotonic()
        with self._checkpoint.held():
            self._do(plan)
        self.report.seconds = time.monotonic() - start
        return self.report

    def _do(self, plan: Plan) -> None:
        total = None if any(move.rows is None for move in plan.moves) else sum(move.rows or 0 for move in plan.moves)
        before = 0
        for move in plan.moves:
            if move.state == "overwrite":
                with self._telling(move.tenant):
                    self._clear(move)
            if move.state in ("copy", "overwrite", "resume"):
                before = self._copy(move, before, total)
            else:
                before += move.rows or 0
        row_count = 0
        for move in plan.moves:
            with self._telling(move.tenant):
                comparison = self._settled(move, row_count, total)
            row_count += comparison.source_rows
            self.report.tenants.append(comparison)
            if comparison.same and move.state != "there":
                self._checkpoint.note(move.tenant, comparison.source_rows, None, "verified")
        if not self.report.different:
            self._checkpoint.finish()

    def _clear(self, move: Move) -> None:
        move.target.clear(move.tenant)
        until = time.monotonic() + _SETTLE
        while move.target.read(move.tenant, 1).hits:
            if time.monotonic() > until:
                raise StoreError("The target still shows rows that were deleted.", code="visible", sent="no")
            time.sleep(0.5)
        # Only now: if it is interrupted before, the remaining rows need the same consent again.
        self._checkpoint.note(move.tenant, 0, None)

    def _copy(self, move: Move, before: int, total: int | None) -> int:
        reached = self._checkpoint.reached(move.tenant)
        rows, after = reached.rows, reached.after
        with self._telling(move.tenant):
            while True:
                page = move.source.read(move.tenant, self._batch, after)
                for batch in self._written(move, page.hits):
                    rows, after = rows + len(batch), key_of(batch[-1])
                    self.report.written += len(batch)
                    self._checkpoint.note(move.tenant, rows, after)
                    self._progress("copying", before + rows, _at_least(total, before + rows))
                if not page.more or not page.hits:
                    break
            self._checkpoint.note(move.tenant, rows, after, "copied")
        self._finished += 1
        return before + rows

    def _written(self, move: Move, hits: Sequence[Hit]) -> Iterator[Sequence[Hit]]:
        """Write *hits* in the largest batches that the target takes; yield each batch after it was written."""
        size = max(1, min(self._batch, move.target.store.capabilities.max_batch))
        start = 0
        while start < len(hits):
            part = hits[start : start + size]
            try:
                move.target.write(move.tenant, self._records(move, part))
            except InvalidInputError as error:
                if isinstance(error, TooLargeError) and len(part) > 1:
                    size = len(part) // 2
                    continue
                if len(part) > 1:
                    size = 1  # so that the error names the row that the target refuses
                    continue
                error.add_note(f"It is the chunk {part[0].id!r} of the document {part[0].document!r}.")
                raise
            yield part
            start += len(part)

    def _records(self, move: Move, hits: Sequence[Hit]) -> list[Record]:
        records = [_record(hit) for hit in hits]
        if not self._reembed:
            return records
        empty = next((one.tag for one in records if not one.text.strip()), None)
        if empty is not None:
            raise RefusedError(
                f"The chunk {empty.chunk!r} of the document {empty.document!r} has no text, so it cannot be embedded "
                "again. Delete it in the source, or write its tenant into the target yourself.",
                field="text",
            )
        vectors = move.target.embed([one.text for one in records])
        return [one._replace(vector=vector) for one, vector in zip(records, vectors, strict=True)]

    def _settled(self, move: Move, before: int, total: int | None) -> Comparison:
        """Compare; repeat for a while if the target shows writes with a delay."""
        until = time.monotonic() + _SETTLE
        while True:
            comparison = self._compared(move, "verifying", before, total)
            eventual = move.target.store.capabilities.visible == "eventual"
            if comparison.same or not eventual or time.monotonic() > until:
                return comparison
            time.sleep(1)

    def _compared(self, move: Move, doing: str, before: int = 0, total: int | None = None) -> Comparison:
        can, will = move.source.store.capabilities, move.target.store.capabilities
        half = "half" in (can.vectors, will.vectors)

        def reading(side: Operated) -> Callable[[int, Position | None], object]:
            return lambda size, after: side.read(move.tenant, size, after)

        return compare(
            move.tenant,
            reading(move.source),  # type: ignore[arg-type]  # a page of rows
            reading(move.target),  # type: ignore[arg-type]  # a page of rows, too
            metric=can.metric,
            tolerance=None if self._reembed else TOLERANCE["half" if half else "single"],
            size=self._batch,
            seen=lambda rows: self._progress(
                doing, before + rows, None if total is None else max(total, before + rows)
            ),
        )

    @contextmanager
    def _telling(self, tenant: str) -> Iterator[None]:
        """Attach a note on the exact progress, and how to continue, to any error, also to Ctrl-C."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, StoreError):
                error.written = self.report.written
            reached = self._checkpoint.reached(tenant)
            where = f" up to chunk {reached.after.chunk!r} of {reached.after.document!r}" if reached.after else ""
            sure = isinstance(error, RefusedError) or (isinstance(error, StoreError) and error.sent == "no")
            doubt = "" if sure else " The next batch may or may not have been written; continuing writes it again."
            go_on = (
                f" The same command continues there (checkpoint: {self._checkpoint.path})."
                if self._checkpoint.exists
                else " Nothing has to be undone."
            )
            error.add_note(
                f"copy: {self.report.written:,} chunks were written by this call, and {self._finished:,} tenants were "
                f"completed. Of {tenant!r} {reached.rows:,} chunks are written{where}.{doubt}{go_on}"
            )
            raise


def _record(hit: Hit) -> Record:
    assert hit.text is not None and hit.vector is not None and hit.metadata is not None  # noqa: PT018 - the flow demands it
    return Record(hit.tag, hit.text, hit.vector, hit.metadata)


def _counted(source: Operated, tenant: str) -> int | None:
    try:
        return source.count(tenant)
    except StoreError:
        raise
    except VectorACLError:
        return None


def _at_least(total: int | None, done: int) -> int | None:
    return None if total is None else max(total, done)


def _kind(kind: object) -> str:
    return "not declared" if kind is None else str(getattr(kind, "value", kind))


def _listed(tenants: Sequence[str]) -> str:
    ids = ", ".join(ascii(one) for one in tenants[:_SHOWN])
    more = f" and {len(tenants) - _SHOWN:,} more" if len(tenants) > _SHOWN else ""
    return f"{'the tenant' if len(tenants) == 1 else f'{len(tenants):,} tenants:'} {ids}{more}"
