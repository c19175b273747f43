"""Makes the rows of a tenant in one store those of another, while the other is being written to.

A pass reads both stores in the order of their keys, document by document, and writes what the target lacks or has
otherwise, and deletes what the source does not have. A document whose generation differs is deleted and written whole,
since stores hide rows of an earlier generation. Rows that change during a pass are left to the next one. Memory holds
the rows of one document, twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from vectoracl.copying.compare import differing, rows
from vectoracl.copying.planning import Move
from vectoracl.copying.writing import Writer
from vectoracl.model.records import Hit

Seen = Callable[[int], None]


class Changes(NamedTuple):
    """The numbers of rows of the source that a pass read, of those that it wrote, and of rows that it deleted."""

    read: int = 0
    written: int = 0
    deleted: int = 0

    @property
    def changed(self) -> int:
        """The number of rows that were written or deleted."""
        return self.written + self.deleted


class Mirror:
    """The rows of *move* in both stores; *tolerance* is the largest difference of equal vectors."""

    def __init__(self, move: Move, batch: int, tolerance: float | None) -> None:
        self._move = move
        self._batch = batch
        self._tolerance = tolerance
        self._writer = Writer(batch, foreign=False)  # both stores are of one configuration

    def update(self, seen: Seen) -> Changes:
        """Make one pass; *seen* gets the number of rows of the source after each document and batch. Raises: as both.

        Stores whose writes are visible at once need no second pass if nothing was written during this one.
        """
        tenant, read, written, deleted = self._move.tenant, 0, 0, 0
        source = _documents(partial(self._move.source.read, tenant), self._batch, "The source")
        target = _documents(partial(self._move.target.read, tenant), self._batch, "The target")
        mine, theirs = next(source, None), next(target, None)
        while mine is not None or theirs is not None:
            if theirs is not None and (mine is None or theirs[0] < mine[0]):
                deleted += self._delete(theirs[0], theirs[1], None)
                theirs = next(target, None)
                continue
            assert mine is not None
            document, hits = mine
            present = theirs[1] if theirs is not None and theirs[0] == document else []
            extra, missing = self._differences(hits, present)
            if extra is None or extra:
                deleted += self._delete(document, present, extra)
            for batch in self._writer.written(self._move, missing):
                written += len(batch)
                seen(read)
            read += len(hits)
            seen(read)
            if present:
                theirs = next(target, None)
            mine = next(source, None)
        return Changes(read, written, deleted)

    def _differences(self, hits: Sequence[Hit], present: Sequence[Hit]) -> tuple[list[str] | None, Sequence[Hit]]:
        """Return the chunks to delete, None for the whole document, and the rows to write."""
        if present and _generations(hits) != _generations(present):
            return None, hits
        metric = self._move.source.store.capabilities.metric
        found = {hit.tag.chunk: hit for hit in present}
        missing = [
            hit
            for hit in hits
            if (theirs := found.get(hit.tag.chunk)) is None or differing(hit, theirs, metric, self._tolerance)[0]
        ]
        kept = {hit.tag.chunk for hit in hits}
        return [chunk for chunk in found if chunk not in kept], missing

    def _delete(self, document: str, present: Sequence[Hit], chunks: list[str] | None) -> int:
        target, tenant = self._move.target, self._move.tenant
        if chunks is None:
            target.delete(tenant, document)
            return len(present)
        size = max(1, min(self._batch, target.store.capabilities.max_batch))
        for start in range(0, len(chunks), size):
            target.delete(tenant, document, chunks[start : start + size])
        return len(chunks)


def _documents(read: Callable[..., object], size: int, where: str) -> Iterator[tuple[str, list[Hit]]]:
    every = rows(read, size, where)  # type: ignore[arg-type]  # a partial of Operated.read, which has this form
    for document, hits in groupby(every, lambda hit: hit.tag.document):
        yield document, list(hits)


def _generations(hits: Sequence[Hit]) -> set[int]:
    return {hit.tag.generation for hit in hits}
