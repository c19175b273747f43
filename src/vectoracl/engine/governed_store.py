"""The work of the governed flows on a store: generations are written, counted again and deleted.

Labels are written by `label_writes`.

Everything here names documents together with generations. A generation number is never used again, so a request that
arrives late can neither delete nor re-label what was written after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Delete, Include, Position, Rows, Scan, Upsert
from vectoracl.engine.drivers import confined
from vectoracl.engine.operator_flows import WHOLE
from vectoracl.engine.pipeline import Store, retried
from vectoracl.engine.second_lock import counted, verify
from vectoracl.errors import RefusedError
from vectoracl.filters.predicate import ALWAYS, Eq, F, Predicate, Range, conjunction, disjunction
from vectoracl.model.records import Hit, Record, Tag, docgen
from vectoracl.registry.scopes import STAGED
from vectoracl.registry.values import Pending

PAGE = 500
ROUND = 250
"""The documents of one round: a filter that names them stays small."""
_TAGS: Include = frozenset()


def check_governable(store: Store) -> None:
    """Refuse a store whose adapter cannot keep the protocol. Raises: RefusedError."""
    can = store.capabilities
    needed = {"scan", "fetch", "upsert", "delete"} - can.operations
    if can.relabel == "none" or not can.verbatim or needed:
        raise RefusedError(
            f"The adapter {store.adapter_name!r} cannot re-label chunks, so a registry cannot govern its store. "
            "Leave out [registry], or use an adapter that declares `relabel`.",
            field="registry",
        )


def write_generation(store: Store, partition: str, records: Sequence[Record]) -> Flow[None]:
    """Write staged *records* with their tags as they are, in requests that the store takes."""
    rest = iter(records)
    while batch := tuple(islice(rest, store.capabilities.max_batch)):
        operation = Upsert(partition, ALWAYS, batch, verbatim=True)
        written = yield from retried(
            lambda one=operation: confined(store.adapter.upsert(one), partition),  # type: ignore[misc]  # mypy does not type a default of a lambda
            write=True,
        )
        counted(written, store.adapter_name, write=True)


def staged(tag: Tag, generation: int) -> Tag:
    """Return *tag* in an unpublished generation: its label is allowed to no one."""
    return tag._replace(generation=generation, label=STAGED, rev=0)


def scan_all(
    store: Store, partition: str, scope: Predicate, where: Predicate, include: Include, decision_id: str
) -> Flow[list[Hit]]:
    """Return every row that matches, page by page."""
    hits: list[Hit] = []
    after: Position | None = None
    while True:
        operation = Scan(partition, scope, where, PAGE, after, include)
        rows: Rows = yield from retried(lambda one=operation: confined(store.adapter.scan(one), partition))  # type: ignore[misc]  # mypy does not type a default of a lambda
        verify(rows.hits, partition, None, adapter=store.adapter_name, decision_id=decision_id)
        hits.extend(rows.hits)
        if not rows.more or not rows.hits:
            return hits
        last = rows.hits[-1]
        after = Position(last.document, last.tag.generation, last.id)


def read_generation(store: Store, partition: str, document: str, generation: int, decision_id: str) -> Flow[list[Hit]]:
    """Return the whole rows of one generation."""
    where = Eq("@docgen", docgen(document, generation))
    return (yield from scan_all(store, partition, ALWAYS, where, WHOLE, decision_id))


def record_of_hit(hit: Hit, tag: Tag) -> Record:
    """Return the row *hit* as a record with *tag*."""
    if hit.vector is None or hit.text is None or hit.metadata is None:
        raise RefusedError("A stored chunk came back without its vector, text or metadata; nothing was written.")
    return Record(tag, hit.text, hit.vector, hit.metadata)


def delete_generations(store: Store, partition: str, chosen: Iterable[Predicate]) -> Flow[None]:
    """Delete what any of *chosen* matches; each names a document and generations of it."""
    where = disjunction(chosen)
    operation = Delete(partition, ALWAYS, where=where)
    yield from confined(store.adapter.delete(operation), partition)


def generations_until(document: str, last: int) -> Predicate:
    """Return the condition on the generations of *document* up to *last*."""
    return conjunction((Eq("@document", document), Range("@generation", lte=last)))


def superseded(one: Pending) -> Predicate | None:
    """Return the condition on the generations of a live document that no reader and no writer needs; None if none."""
    if not one.due:
        return None
    rest: list[Predicate] = []
    if one.generation is None:
        if not one.ticketed and one.last_generation >= 0:
            rest.append(Range("@generation", lte=one.last_generation))
    else:
        if one.generation > 0:
            rest.append(Range("@generation", lt=one.generation))
        if not one.ticketed and one.last_generation > one.generation:
            rest.append(Range("@generation", gt=one.generation, lte=one.last_generation))
    return conjunction((Eq("@document", one.document), disjunction(rest))) if rest else None


def census(store: Store, partition: str, given: Sequence[Pending], decision_id: str) -> Flow[list[Pending]]:
    """Return those of *given* whose stored chunks are all there and carry exactly what was captured, and no others."""
    published = {one.document: one for one in given}
    where = F["@document"].in_(sorted(published))
    hits = yield from scan_all(store, partition, ALWAYS, where, _TAGS, decision_id)
    seen = dict.fromkeys(published, 0)
    wrong: set[str] = set()
    for hit in hits:
        one, tag = published[hit.document], hit.tag
        if tag.generation != one.generation:
            if not (one.ticketed or tag.generation > one.last_generation):
                wrong.add(one.document)
        elif (tag.label, tag.expires, tag.rev) == (one.label, one.expires, one.rev):
            seen[one.document] += 1
        else:
            wrong.add(one.document)
    return [one for one in given if one.document not in wrong and seen[one.document] == _expected(one)]


def _expected(one: Pending) -> int:
    return 0 if one.generation is None else one.chunks


def gone(store: Store, partition: str, given: Sequence[Pending], decision_id: str) -> Flow[list[Pending]]:
    """Return those of *given* of which no chunk up to the last generation is left."""
    where = disjunction([generations_until(one.document, one.last_generation) for one in given])
    left = yield from scan_all(store, partition, ALWAYS, where, _TAGS, decision_id)
    documents = {hit.document for hit in left}
    return [one for one in given if one.document not in documents]
