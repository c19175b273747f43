"""Adds the property and marker of a declared field to objects whose writers did not know the field. Pure flows.

Weaviate has no conditional write, so an object may be rewritten between the read and its repair. Each object is
therefore read again after the repair, and repaired again if it has changed: in the end the property agrees with the
object's metadata. A repair that gives up takes the markers away again, so that reads judge those objects by their
metadata and the next repair finds them. Only a process that is ended in the middle (a kill, Ctrl-C) can leave a marker
that disagrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vectoracl.adapter_api.contract import Flow, Progress, Request, together
from vectoracl.errors import StoreError
from vectoracl.filters.boolean_compiler import ALL_ROWS
from vectoracl_weaviate.compile import WeaviateCompiler
from vectoracl_weaviate.compile_predicate import Compiled, every
from vectoracl_weaviate.decode import ADAPTER, Decoder
from vectoracl_weaviate.requests import Find, Merge

_CONCURRENT = 64
_ROUNDS = 20


def backfill(
    compiled: WeaviateCompiler,
    decode: Decoder,
    page: int,
    name: str,
    fields: Sequence[str],
    progress: Progress | None = None,
) -> Flow[int]:
    """Repair every object of a tenant whose writer did not know one of *fields*.

    It can be repeated, and sends one request if there is nothing to do.

    Args:
        compiled: The compiler of the collection.
        decode: The decoder of the collection.
        page: The number of objects that are read at a time.
        name: The tenant's name in Weaviate.
        fields: The declared metadata fields.
        progress: Called after each batch.

    Returns: The number of repaired objects.

    Raises:
        InvalidInputError: A value has another type than the declared one; nothing of that page was changed.
        StoreError: Objects were rewritten repeatedly in the meantime.
    """
    count = 0
    after: Compiled = ALL_ROWS
    strange = compiled.strange(*fields)
    while fields:
        where = every([strange, after])
        objects = yield from compiled.listing_of(name, where, page, compiled.repairable)
        if not objects:
            break
        after = compiled.after(max(map(decode.seek, objects)))
        batch = {one.metadata.id: decode.metadata(one) for one in objects if decode.strange(one, fields)}
        count += len(batch)
        for start in range(0, len(batch), _CONCURRENT):
            some = dict(list(batch.items())[start : start + _CONCURRENT])
            yield from _repair(compiled, decode, name, fields, some)
            if progress is not None:
                progress(f"the declared fields of {name}", count - len(batch) + start + len(some), None)
        if len(objects) < page:
            break
    return count


def compare(compiled: WeaviateCompiler, decode: Decoder, page: int, name: str, fields: Sequence[str]) -> Flow[None]:
    """Read every object that `backfill` would repair, and change nothing.

    Raises: InvalidInputError if a value has another type than the declared one.
    """
    after: Compiled = ALL_ROWS
    while fields:
        where = every([compiled.strange(*fields), after])
        objects = yield from compiled.listing_of(name, where, page, compiled.repairable)
        for one in objects:
            if decode.strange(one, fields):
                decode.metadata(one)
        if len(objects) < page:
            return
        after = compiled.after(max(map(decode.seek, objects)))


def _repair(
    compiled: WeaviateCompiler, decode: Decoder, name: str, fields: Sequence[str], left: dict[str, Mapping[str, Any]]
) -> Flow[None]:
    """Repair the objects that had the metadata *left* when they were read, until none has changed afterwards."""
    try:
        for _ in range(_ROUNDS):
            yield from _merged(name, {id_: compiled.repaired(metadata) for id_, metadata in left.items()})
            look: Find = compiled.listing_of(name, compiled.ids(left), len(left), compiled.repairable)
            objects = yield from look
            now = {one.metadata.id: (decode.metadata(one), decode.strange(one, fields)) for one in objects}
            # One that was rewritten with the same metadata has lost its markers again.
            left = {id_: metadata for id_, (metadata, strange) in now.items() if strange or metadata != left[id_]}
            if not left:
                return
    except Exception:
        yield from _merged(name, dict.fromkeys(left, compiled.unknown))
        raise
    yield from _merged(name, dict.fromkeys(left, compiled.unknown))
    raise StoreError(
        "Objects were rewritten repeatedly while they were repaired; provision again when there are fewer writes.",
        code="replacing",
        adapter=ADAPTER,
        retryable=True,
    )


def _merged(name: str, properties: Mapping[str, Mapping[str, Any]]) -> Flow[None]:
    """Merge *properties* into the objects, concurrently; an object that is gone stays gone."""
    merges: list[Request[bool]] = [Merge(None, name, id_, dict(values)) for id_, values in properties.items()]
    yield from together(*merges)
