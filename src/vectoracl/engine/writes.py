"""The flows of upsert, replace and delete. A write has exactly one partition: that in which the principal may write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from vectoracl.adapter_api.chunk_validation import ValidatedChunk, check_tagged, record_of
from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import ChunkRef, Delete, Replace, Upsert
from vectoracl.engine.core_ports import EmbedDocuments
from vectoracl.engine.drivers import confined
from vectoracl.engine.embedding import embedded
from vectoracl.engine.pipeline import Caller, Leg, Pipeline, Plan, Store, denied, retried
from vectoracl.engine.second_lock import counted
from vectoracl.engine.validating import validate_chunks_of
from vectoracl.errors import DeniedError, RefusedError, UnsupportedPredicateError
from vectoracl.filters.predicate import Predicate
from vectoracl.filters.validation import fields_of
from vectoracl.ingestion.validators import Operation
from vectoracl.model.actions import Action
from vectoracl.model.queries import check_vector
from vectoracl.model.records import DEFAULT_LABEL, NEVER_EXPIRES, Chunk, Record, Tag, Vector, Written

_STORES_OWN = frozenset({"@generation", "@docgen"})


def one_leg(plan: Plan, caller: Caller) -> Leg:
    """Return the leg of the one partition that a write goes to. Raises: RefusedError."""
    legs = [leg for leg in plan.legs if leg.partition == caller.principal.tenant]
    if len(plan.legs) == 1:
        return plan.legs[0]
    if len(legs) == 1:
        return legs[0]
    raise RefusedError(
        "The policy permits writing to several partitions, and none is the principal's own. Let it permit one."
    )


def embed_chunks(store: Store, prepared: Sequence[ValidatedChunk]) -> Flow[list[Vector | None]]:
    """Embed the texts of the chunks without a vector."""
    texts = tuple(one.chunk.text for one in prepared if one.vector is None)
    if not texts:
        return [one.vector for one in prepared]
    vectors = iter((yield from embedded(EmbedDocuments, texts, store)))
    can = store.capabilities
    nonzero = can.metric == "cosine"
    return [
        check_vector(next(vectors), can.dimension, nonzero=nonzero, name="embedding")
        if one.vector is None
        else one.vector
        for one in prepared
    ]


def _records(
    pipeline: Pipeline,
    store: Store,
    caller: Caller,
    leg: Leg,
    prepared: Sequence[ValidatedChunk],
    path: str,
    action: Action,
    decision_id: str,
    document: str | None = None,
) -> Flow[tuple[Record, ...]]:
    """Return the records of a write, which its validators have accepted; *document* is that of a replacement."""
    if not fields_of(leg.predicate).isdisjoint(_STORES_OWN):
        raise UnsupportedPredicateError(
            "The scope of this write refers to the generation, which the store assigns when a chunk is written. Let "
            "the policy permit writes by document or label.",
            field="scope",
        )
    vectors = yield from embed_chunks(store, prepared)
    now = pipeline.stamp()
    producer = caller.principal.id
    partition = leg.partition

    def make_tag(chunk: Chunk) -> Tag:
        # Positional arguments: keywords would double the cost of this call, which runs for every chunk.
        expires = NEVER_EXPIRES if chunk.expires is None else chunk.expires
        return Tag(
            partition, chunk.document, chunk.id, 0, DEFAULT_LABEL, 0, expires, producer, path, now, chunk.position
        )

    records = record_of(prepared, vectors, make_tag)
    check_tagged(records, leg.partition)
    if leg.test is not None and not all(leg.test(one.tag, one.metadata) for one in records):
        raise denied(action, decision_id, ("a chunk is outside the scope in which this handle may write",))
    yield from validate_chunks_of(pipeline, caller, operation_of(path), prepared, vectors, decision_id, document)
    return records


def operation_of(path: str) -> Operation:
    """Return the operation of a path that chunks are tagged with, without the pipeline's name."""
    return cast("Operation", path.partition(":")[0])


def upsert(
    pipeline: Pipeline, store: Store, caller: Caller, prepared: Sequence[ValidatedChunk], path: str = "upsert"
) -> Flow[Written]:
    """Write all chunks of *prepared* or none."""

    def body(plan: Plan, decision_id: str) -> Flow[Written]:
        leg = one_leg(plan, caller)
        records = yield from _records(pipeline, store, caller, leg, prepared, path, "upsert", decision_id)
        if not records:
            return Written(0, decision_id)
        operation = Upsert(leg.partition, leg.predicate, records)
        written = yield from _named(
            decision_id, lambda: retried(lambda: confined(store.adapter.upsert(operation), leg.partition), write=True)
        )
        return Written(counted(written, store.adapter_name, write=True), decision_id)

    return (yield from guarded(pipeline, store, caller, "upsert", body))


def replace(
    pipeline: Pipeline,
    store: Store,
    caller: Caller,
    document: str,
    prepared: Sequence[ValidatedChunk],
    path: str = "replace",
) -> Flow[Written]:
    """Replace the whole content of *document* by *prepared*."""

    def body(plan: Plan, decision_id: str) -> Flow[Written]:
        leg = one_leg(plan, caller)
        records = yield from _records(pipeline, store, caller, leg, prepared, path, "replace", decision_id, document)
        operation = Replace(leg.partition, leg.predicate, document, records)
        written = yield from _named(decision_id, lambda: confined(store.adapter.replace(operation), leg.partition))
        return Written(counted(written, store.adapter_name, write=True), decision_id)

    return (yield from guarded(pipeline, store, caller, "replace", body))


def delete(
    pipeline: Pipeline,
    store: Store,
    caller: Caller,
    refs: tuple[ChunkRef, ...] | None,
    document: str | None,
    where: Predicate | None,
) -> Flow[Written]:
    """Delete by the one selector that is not None."""

    def body(plan: Plan, decision_id: str) -> Flow[Written]:
        if refs is not None and not refs:
            return Written(0, decision_id)
        leg = one_leg(plan, caller)
        operation = Delete(leg.partition, leg.predicate, refs, document, where)
        flow = confined(store.adapter.delete(operation), leg.partition)
        deleted = yield from flow
        return Written(None if deleted is None else counted(deleted, store.adapter_name, write=True), decision_id)

    return (yield from guarded(pipeline, store, caller, "delete", body))


def _named(decision_id: str, make: Callable[[], Flow[Any]]) -> Flow[Any]:
    """Add the decision's id to a denial that an adapter raised from inside the store."""
    try:
        return (yield from make())
    except DeniedError as error:
        error.decision_id = decision_id
        raise


def guarded(
    pipeline: Pipeline, store: Store, caller: Caller, action: Action, body: Callable[[Plan, str], Flow[Written]]
) -> Flow[Written]:
    """Run the body of a write through the pipeline."""
    return pipeline.run(
        caller, action, store, body, empty=lambda one: Written(0, one), size=lambda written: written.count
    )
