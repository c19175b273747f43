"""Writes rows of one store into another, in the largest batches that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vectoracl.copying.planning import Move
from vectoracl.errors import InvalidInputError, RefusedError, TooLargeError
from vectoracl.model.records import Hit, Record


class Writer:
    """Writes rows in batches of at most *batch*; with *reembed* the target makes their vectors again from the texts.

    Rows that are *foreign*, from another configuration, are seen by the target's validators.
    """

    def __init__(self, batch: int, *, reembed: bool = False, foreign: bool = True) -> None:
        self._foreign = foreign
        self._batch = batch
        self._reembed = reembed

    def written(self, move: Move, hits: Sequence[Hit]) -> Iterator[Sequence[Hit]]:
        """Write *hits* in the largest batches that the target takes; yield each batch after it was written."""
        size = max(1, min(self._batch, move.target.store.capabilities.max_batch))
        start = 0
        while start < len(hits):
            part = hits[start : start + size]
            try:
                move.target.write(move.tenant, self._records(move, part), foreign=self._foreign)
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


def _record(hit: Hit) -> Record:
    assert hit.text is not None and hit.vector is not None and hit.metadata is not None  # noqa: PT018 - the flow demands it
    return Record(hit.tag, hit.text, hit.vector, hit.metadata)
