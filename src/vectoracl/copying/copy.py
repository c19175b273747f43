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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from vectoracl.adapter_api.contract import Progress
from vectoracl.copying.checkpoint import Checkpoint
from vectoracl.copying.compare import Comparison, key_of
from vectoracl.copying.planning import PAGE, SETTLE, Move, Plan, Planner, Side, State
from vectoracl.copying.writing import Writer
from vectoracl.errors import (
    RefusedError,
    StoreError,
)


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
        self._checkpoint = checkpoint
        self._progress: Progress = progress or (lambda _what, _done, _total: None)
        self._batch = batch
        self._planner = Planner(
            source,
            target,
            reason=reason,
            begun=self._begun,
            progress=self._progress,
            batch=batch,
            different_stores=different_stores,
            reembed=reembed,
        )
        self._writer = Writer(batch, reembed=reembed)
        self._finished = 0
        self.report = Report()

    def plan(self, tenants: Sequence[str] | None = None, *, named: bool = False, overwrite: bool = False) -> Plan:
        """Read both sides and return the plan, or refuse everything; see `Planner.plan`."""
        return self._planner.plan(tenants, named=named, overwrite=overwrite)

    def _begun(self, tenant: str) -> State | None:
        if not self._checkpoint.knows(tenant):
            return None
        return "resume" if self._checkpoint.reached(tenant).state == "begun" else "verify"

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
                comparison = self._planner.settled(move, row_count, total)
            row_count += comparison.source_rows
            self.report.tenants.append(comparison)
            if comparison.same and move.state != "there":
                self._checkpoint.note(move.tenant, comparison.source_rows, None, "verified")
        if not self.report.different:
            self._checkpoint.finish()

    def _clear(self, move: Move) -> None:
        move.target.clear(move.tenant)
        until = time.monotonic() + SETTLE
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
                for batch in self._writer.written(move, page.hits):
                    rows, after = rows + len(batch), key_of(batch[-1])
                    self.report.written += len(batch)
                    self._checkpoint.note(move.tenant, rows, after)
                    self._progress("copying", before + rows, _at_least(total, before + rows))
                if not page.more or not page.hits:
                    break
            self._checkpoint.note(move.tenant, rows, after, "copied")
        self._finished += 1
        return before + rows

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


def _at_least(total: int | None, done: int) -> int | None:
    return None if total is None else max(total, done)
