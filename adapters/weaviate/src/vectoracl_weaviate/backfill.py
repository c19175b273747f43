"""Repairs the objects of writers that did not know a declared field: gives them its property and its marker. Pure.

Weaviate has no conditional write, so somebody may rewrite an object between its reading and its repair. Each is read
again behind the repair, and repaired again where it has become another: at the end it says what its metadata says.
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

_SIDE_BY_SIDE = 64
_ROUNDS = 20


def backfill(
    compiled: WeaviateCompiler,
    decode: Decoder,
    page: int,
    name: str,
    fields: Sequence[str],
    progress: Progress | None = None,
) -> Flow[int]:
    """Repair every object of the tenant *name* (Weaviate's) whose writer did not know one of *fields*.

    Returns how many there were. It can be repeated, and asks once where there is nothing to do. Raises:
    InvalidInputError where a value is of another type than the declared one: then nothing of that page was changed;
    StoreError where objects were rewritten again and again meanwhile.
    """
    done = 0
    after: Compiled = ALL_ROWS
    strange = compiled.strange(*fields)
    while fields:
        where = every([strange, after])
        objects = yield from compiled.listing_of(name, where, page, compiled.repairable)
        if not objects:
            break
        after = compiled.after(max(map(decode.seek, objects)))
        left = {one.metadata.id: decode.metadata(one) for one in objects if decode.strange(one, fields)}
        done += len(left)
        for start in range(0, len(left), _SIDE_BY_SIDE):
            some = dict(list(left.items())[start : start + _SIDE_BY_SIDE])
            yield from _repair(compiled, decode, name, some)
            if progress is not None:
                progress(f"the declared fields of {name}", done - len(left) + start + len(some), None)
        if len(objects) < page:
            break
    return done


def compare(compiled: WeaviateCompiler, decode: Decoder, page: int, name: str, fields: Sequence[str]) -> Flow[None]:
    """Read every object that `backfill` would repair, and change nothing.

    Raises: InvalidInputError where a value is of another type than the declared one.
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


def _repair(compiled: WeaviateCompiler, decode: Decoder, name: str, left: dict[str, Mapping[str, Any]]) -> Flow[None]:
    """Repair the objects that had the metadata *left* when they were read, until each still has it afterwards."""
    for _ in range(_ROUNDS):
        merges: list[Request[bool]] = [
            Merge(None, name, id_, compiled.repaired(metadata)) for id_, metadata in left.items()
        ]
        yield from together(*merges)
        look: Find = compiled.listing_of(name, compiled.ids(left), len(left), compiled.repairable)
        objects = yield from look
        now = {one.metadata.id: decode.metadata(one) for one in objects}
        left = {id_: metadata for id_, metadata in now.items() if metadata != left[id_]}
        if not left:
            return
    raise StoreError(
        "Objects were rewritten again and again while they were repaired; provision again when fewer write.",
        code="replacing",
        adapter=ADAPTER,
        retryable=True,
    )
