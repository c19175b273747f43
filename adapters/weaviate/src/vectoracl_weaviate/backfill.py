"""Gives the property of a field that was declared later to the objects that were there before. A flow; pure."""

from __future__ import annotations

from vectoracl.adapter import Flow, Progress, together
from vectoracl.algebra import EVERY
from vectoracl_weaviate.compile import WeaviateCompiler
from vectoracl_weaviate.compile_predicate import Compiled, every
from vectoracl_weaviate.decode import Decoder
from vectoracl_weaviate.requests import Merge

_SIDE_BY_SIDE = 64


def backfill(
    compiled: WeaviateCompiler, decode: Decoder, page: int, name: str, field: str, progress: Progress | None
) -> Flow[int]:
    """Set the property of *field* in every object of the tenant *name* (Weaviate's) whose metadata has the key.

    Returns how many were set. It can be repeated. Raises: InvalidInputError where a value is of another type than
    the declared one: then nothing of that page was changed.
    """
    done = 0
    after: Compiled = EVERY
    while True:
        where = every([compiled.has(field), after])
        objects = yield from compiled.listing_of(name, where, page, compiled.backfilled)
        merges = [Merge(None, name, one.metadata.id, compiled.values(decode.metadata(one), field)) for one in objects]
        for start in range(0, len(merges), _SIDE_BY_SIDE):
            yield from together(*merges[start : start + _SIDE_BY_SIDE])
            done += len(merges[start : start + _SIDE_BY_SIDE])
            if progress is not None:
                progress(f"the field {field} of {name}", done, None)
        if len(objects) < page:
            return done
        after = compiled.after(decode.seek(objects[-1]))
