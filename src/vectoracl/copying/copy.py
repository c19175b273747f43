"""Moving tenants between two stores of any kind: planned, refused as a whole where it cannot be exact, verified.

Rows go through both adapters' own flows (`hazmat.operate`), each read and write recorded on its side, with their tags
as they are. Nothing is deleted in the source. Work that was interrupted goes on from a checkpoint.
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
_SETTLE = 60.0  # seconds that an eventually consistent target gets until its rows have to be visible
_SHOWN = 10
State = Literal["copy", "anew", "resume", "verify", "there"]


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a copy: an opened configuration, and the one store that is meant (None: each tenant's own)."""

    acl: VectorACL
    store: str | None = None

    def stores(self) -> tuple[str, ...]:
        """Return the names of the stores that are meant."""
        return tuple(sorted(self.acl.config.stores)) if self.store is None else (self.store,)

    def store_of(self, tenant: str) -> str:
        """Return the name of the store that *tenant* lives in."""
        config = self.acl.config
        return config.tenants.store.get(tenant, config.default) if self.store is None else self.store


@dataclass(frozen=True, slots=True)
class Move:
    """One tenant's part of a plan.

    `rows` is None where the source cannot count. `state` is what is left to do: "copy" all of it, copy it "anew" after
    other rows that the target holds were deleted, "resume" after what the checkpoint has, "verify" what was copied; or
    rows of the tenant are "there" already, the same ones.
    """

    tenant: str
    source: Operated
    target: Operated
    rows: int | None
    state: State


@dataclass(frozen=True, slots=True)
class Plan:
    """What a copy would do. `notes` say what will be otherwise in the target, though the rows are the same."""

    moves: tuple[Move, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class Report:
    """What a copy did: rows written by this call, and what the comparison of each tenant found."""

    written: int = 0
    tenants: list[Comparison] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def different(self) -> list[Comparison]:
        """The tenants whose rows differ."""
        return [one for one in self.tenants if not one.same]


class Copy:
    """One copy between two sides, with its reason, checkpoint and progress.

    *different_stores* is a person's word that the two are different stores where what the server and its address say
    (`VectorACL.places`) shows one; it stands in every record of the copy. Equal settings are one store all the same.
    With *reembed* the target's embedder makes the vectors again, from the texts; dimension and metric may differ then.
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
            f"{reason}; the stores are said to be different (--different-stores)" if different_stores else reason
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
        """Look at both sides and say what is to be done, or refuse all of it; writes nothing.

        *tenants* None means all that the source's adapters list. *named* says that a person chose each of them, so
        that two which look alike are meant. With *overwrite* other rows that the target holds of them are no obstacle;
        the same ones are never deleted, so that nothing is lost where both sides turn out to be one store.

        Raises: RefusedError and InvalidInputError with what to do; StoreError, PostureError.
        """
        chosen, sizes = self._tenants(tenants)
        if not named:
            self._refuse_look_alikes(chosen, sizes)
        notes: dict[str, None] = {}
        moves: list[Move] = []
        taken: list[str] = []
        for tenant in chosen:
            notes.update(dict.fromkeys(self._refuse_one_store(tenant)))
            source = self._operated(self._source, self._source.store_of(tenant), source=True)
            target = self._operated(self._target, self._target.store_of(tenant), source=False)
            notes.update(dict.fromkeys(self._check(source, target)))
            rows = sizes[tenant] if tenant in sizes else _counted(source, tenant)
            move = Move(tenant, source, target, rows, self._state(tenant, target))
            if self._other_rows(move, overwrite=overwrite):
                if overwrite:
                    move = replace(move, state="anew")
                else:
                    taken.append(tenant)
            moves.append(move)
        empty = [move.tenant for move in moves if move.rows == 0 and tenants is not None]
        if empty:
            raise RefusedError(
                f"The source has no rows of {_listed(empty)}. Ids are compared exactly; `vectoracl tenants list` shows "
                "them where the store can list them.",
                field="tenant",
            )
        if taken:
            listed = _listed(taken)
            raise RefusedError(
                f"The target holds other rows of {listed}. Copy into an empty store, leave them out, or, if what is "
                "there can go: --tenant ID --overwrite. A copy that was begun goes on with its checkpoint "
                "(--checkpoint FILE).",
                field="tenant",
            )
        notes.update(dict.fromkeys(self._shared()))
        return Plan(tuple(moves), tuple(notes))

    def _tenants(self, given: Sequence[str] | None) -> tuple[list[str], dict[str, int]]:
        """Return the tenants to copy, sorted, and their sizes as far as the source lists them."""
        if given is not None:
            chosen = sorted({check_tenant(one) for one in given})
            if not chosen:
                raise InvalidInputError("No tenants were given.", field="tenants")
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
        way = "Pass the tenants with --tenant ID or --tenants FILE (one id a line)."
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
            shown = "; ".join(" and ".join(ascii(one) for one in group) for group in groups[:_SHOWN])
            more = f" and {len(groups) - _SHOWN:,} more groups" if len(groups) > _SHOWN else ""
            raise RefusedError(
                f"Tenants that a person could take for each other: {shown}{more}. Nothing was copied. If they are "
                "different tenants, name each of them: --tenant ID --tenant ID.",
                field="tenant",
            )

    def _refuse_one_store(self, tenant: str) -> Iterator[str]:
        """Refuse a tenant whose store is one and the same on both sides, by settings or by what the server says.

        Yields what was said by the server, where a person said otherwise.
        """
        names = [(side.acl, side.store_of(tenant)) for side in (self._source, self._target)]
        (_, one_name), (_, other_name) = names
        one, other = (acl.place(name) for acl, name in names)
        if one == other:
            raise RefusedError(
                f"--from and --to are the same store of {tenant!a}. In one file, name two with --from-store and "
                "--to-store.",
                field="to",
            )
        mine, theirs = (self._places(acl, name) for acl, name in names)
        found = ", ".join(map(ascii, shared(mine, theirs)))
        if found and not self._different:
            raise RefusedError(
                f"--from and --to are the same store of {tenant!a} by different settings: both reach one place on one "
                f"server ({found}). Nothing was copied, and nothing is left to do. If you know that they are two "
                "stores: --different-stores, which is recorded.",
                field="to",
            )
        if found:
            yield f"not refused because of --different-stores: {one_name!r} and {other_name!r} both reach {found}"

    def _places(self, acl: VectorACL, store: str) -> frozenset[str]:
        found = self._found.get((id(acl), store))
        if found is None:
            found = self._found[id(acl), store] = acl.places(store)
        return found

    def _operated(self, side: Side, name: str, *, source: bool) -> Operated:
        found = self._opened.get((source, name))
        if found is None:
            found = hazmat.operate(side.acl, store=name, reason=self._reason)
            self._opened[source, name] = found
        return found

    def _check(self, source: Operated, target: Operated) -> Iterator[str]:
        """Refuse stores between which a copy is not exact; yield what will be otherwise all the same."""
        one, other = source.store, target.store
        can, will = one.capabilities, other.capabilities
        vectors = (("dimension", can.dimension, will.dimension), ("metric", can.metric, will.metric))
        for what, mine, theirs in () if self._reembed else vectors:
            if mine != theirs:
                raise RefusedError(
                    f"The source {one.name!r} has the {what} {mine} and the target {other.name!r} {theirs}. Vectors "
                    f"are copied as they are: set the target's {what} to {mine}, or embed the texts again (--reembed).",
                    field=what,
                )
        if dict(one.fields) != dict(other.fields):
            names = sorted(
                name for name in {*one.fields, *other.fields} if one.fields.get(name) != other.fields.get(name)
            )
            said = "; ".join(
                f"{name}: {_kind(one.fields.get(name))} in the source, {_kind(other.fields.get(name))} in the target"
                for name in names
            )
            raise RefusedError(
                f"The declared metadata differs ({said}). Make [stores.{other.name}.metadata] the same as "
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
            yield f"queries that {other.name!r} does not answer: {', '.join(sorted(can.queries - will.queries))}"
        if can.count != "none" and will.count == "none":
            yield f"{other.name!r} does not count"
        if can.visible == "immediate" and will.visible == "eventual":
            yield f"what is written to {other.name!r} is visible a little later"

    def _check_embedders(self, source: Operated, target: Operated) -> Iterator[str]:
        one, other = source.embedder, target.embedder
        if self._reembed:
            configured = self._target.acl.embedder_identity
            if configured is None:
                raise RefusedError(
                    "The target has no embedder to make the vectors with: add [embedder] to its configuration.",
                    field="embedder",
                )
            if other != configured:
                raise other_embedder(target.store.name, str(other), configured)
            yield f"vectors are made again from the texts, by {configured!r}"
            return
        mine, theirs = self._source.acl.config.embedder, self._target.acl.config.embedder
        said = mine is None or theirs is None or (mine.use, mine.dimension) == (theirs.use, theirs.dimension)
        if not said or (None not in (one, other) and one != other):
            raise RefusedError(
                f"The source's embedder is {one!r} and the target's {other!r}. Vectors of two embedders are not "
                "comparable: configure the source's embedder in the target, in the same words, or embed the texts "
                "again (--reembed).",
                field="embedder",
            )

    def _shared(self) -> Iterator[str]:
        one, other = (set(side.acl.config.tenants.shared) for side in (self._source, self._target))
        if one != other:
            yield (
                f"shared tenants: {', '.join(sorted(one)) or 'none'} in the source, "
                f"{', '.join(sorted(other)) or 'none'} in the target (who reads what follows the target's)"
            )

    def _state(self, tenant: str, target: Operated) -> State:
        if self._checkpoint.knows(tenant):
            reached = self._checkpoint.reached(tenant)
            return "resume" if reached.state == "begun" else "verify"
        return "there" if target.read(tenant, 1).hits else "copy"

    def _other_rows(self, move: Move, *, overwrite: bool) -> bool:
        """Tell whether the target holds rows that the copy would not have written; who made its vectors is not seen."""
        if self._reembed:
            return move.state == "there"
        return (move.state == "there" or (move.state == "verify" and overwrite)) and not self._same(move)

    def _same(self, move: Move) -> bool:
        return self._compared(move, "comparing what is there").same

    # Doing

    def run(self, plan: Plan) -> Report:
        """Do *plan*, then compare every tenant. What was planned "anew" is deleted in the target first.

        The checkpoint is held meanwhile. Raises: RefusedError if another copy holds it; StoreError and others, with a
        note that says exactly what was written and how to go on. A comparison that finds a difference is no error but
        stands in the report.
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
            if move.state == "anew":
                with self._telling(move.tenant):
                    self._clear(move)
            if move.state in ("copy", "anew", "resume"):
                before = self._copy(move, before, total)
            else:
                before += move.rows or 0
        seen = 0
        for move in plan.moves:
            with self._telling(move.tenant):
                comparison = self._settled(move, seen, total)
            seen += comparison.source_rows
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
        # Only now: where it is cut off before, the rows that are left are found again and need the same consent.
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
        """Write *hits* in batches as large as the target takes; yield each when it is written."""
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
                    size = 1  # so that the error names the one row that the target does not take
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
                f"The chunk {empty.chunk!r} of the document {empty.document!r} has no text, so its vector cannot be "
                "made again. Delete it in the source, or write its tenant into the target by your own means.",
                field="text",
            )
        vectors = move.target.embed([one.text for one in records])
        return [one._replace(vector=vector) for one, vector in zip(records, vectors, strict=True)]

    def _settled(self, move: Move, before: int, total: int | None) -> Comparison:
        """Compare; where the target shows writes later, again until it does."""
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
            reading(move.target),  # type: ignore[arg-type]  # likewise
            metric=can.metric,
            tolerance=None if self._reembed else TOLERANCE["half" if half else "single"],
            size=self._batch,
            seen=lambda rows: self._progress(
                doing, before + rows, None if total is None else max(total, before + rows)
            ),
        )

    @contextmanager
    def _telling(self, tenant: str) -> Iterator[None]:
        """Say on any error, also Ctrl-C, exactly what was written and how to go on."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, StoreError):
                error.written = self.report.written
            reached = self._checkpoint.reached(tenant)
            where = f" up to chunk {reached.after.chunk!r} of {reached.after.document!r}" if reached.after else ""
            sure = isinstance(error, RefusedError) or (isinstance(error, StoreError) and error.sent == "no")
            doubt = "" if sure else " The batch after that may or may not have been written; going on writes it again."
            go_on = (
                f" The same command goes on there (checkpoint: {self._checkpoint.path})."
                if self._checkpoint.exists
                else " Nothing has to be undone."
            )
            error.add_note(
                f"copy: {self.report.written:,} chunks were written by this call, {self._finished:,} tenants to their "
                f"end. Of {tenant!r} {reached.rows:,} chunks are written{where}.{doubt}{go_on}"
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
    shown = ", ".join(ascii(one) for one in tenants[:_SHOWN])
    more = f" and {len(tenants) - _SHOWN:,} more" if len(tenants) > _SHOWN else ""
    return f"{'the tenant' if len(tenants) == 1 else f'{len(tenants):,} tenants:'} {shown}{more}"
