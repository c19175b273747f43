"""The flow that embeds texts for one store."""

from __future__ import annotations

from collections.abc import Sequence

from vectoracl.adapter_api.contract import Flow
from vectoracl.engine.core_ports import EmbedDocuments, EmbedQueries
from vectoracl.engine.pipeline import Store
from vectoracl.errors import StoreError
from vectoracl.model.records import Vector
from vectoracl.text.embedders import BATCH


def embedded(kind: type[EmbedQueries | EmbedDocuments], texts: Sequence[str], store: Store) -> Flow[list[Vector]]:
    """Embed *texts* in batches, one request each, so that a time limit that includes them is checked in between.

    Raises: RefusedError if another embedder is noted in *store*; StoreError. Nothing was sent to the store then.
    """
    vectors: list[Vector] = []
    for start in range(0, len(texts), BATCH):
        late = False
        try:
            vectors.extend((yield from kind(tuple(texts[start : start + BATCH]), store.name, store.embedder())))
        except StoreError as error:
            if error.code != "timeout":
                raise
            late = True
        if late:  # after the block, so that the port's error does not become the context
            raise _out_of_time(len(vectors), len(texts))
    return vectors


def _out_of_time(made: int, wanted: int) -> StoreError:
    return StoreError(
        f"The time limit of the call was reached while texts were being embedded ({made:,} of {wanted:,} done); "
        "nothing was sent to the store. timeout= covers the whole call: pass a longer one, or omit it. Without it, "
        "each embedding batch is limited by [embedder] timeout, and the store by its own timeout.",
        code="timeout",
        sent="no",
    )
