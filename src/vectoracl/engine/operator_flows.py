"""Operator-only flows that move rows between stores, past policy and scope: for `hazmat` only.

Each flow handles one page or batch of one partition. It is recorded before anything is sent, confined to its
partition, and the rows that it returns are verified by the second lock. No handle reaches these flows.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from vectoracl.adapter_api.chunk_validation import check_metadata, check_tagged
from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import ChunkRef, Count, Delete, Include, Position, Rows, Scan, Upsert
from vectoracl.adapter_api.posture import Posture
from vectoracl.engine.drivers import confined
from vectoracl.engine.pipeline import Pipeline, Store, described, retried
from vectoracl.engine.second_lock import counted, verify
from vectoracl.engine.validating import validate_rows
from vectoracl.errors import DeniedError, InvalidInputError, RefusedError, StoreError, UnsupportedPredicateError
from vectoracl.filters.predicate import ALWAYS, NEVER, Range
from vectoracl.model.identifiers import check_id, check_tenant, check_text
from vectoracl.model.principal import Principal
from vectoracl.model.queries import check_vector
from vectoracl.model.records import Hit, Record

T = TypeVar("T")
WHOLE: Include = frozenset({"text", "metadata", "vector"})


def recorded(
    pipeline: Pipeline,
    store: Store,
    action: str,
    reason: str | Sequence[str],
    partitions: Sequence[str],
    body: Callable[[str], Flow[T]],
    *,
    size: Callable[[T], int | None],
    reached: Callable[[], Mapping[str, Any]] = dict,
    door: str = "hazmat",
    hits: Callable[[T], Iterable[Hit]] | None = None,
    principal: Principal | None = None,
    denial: tuple[str, ...] = (),
) -> Flow[T]:
    """Write a record of the action *door*.*action* with *reason*, run *body* with its id, and note the outcome.

    *reached* returns further keys of the outcome, also if *body* fails. *principal* is who acts, if that is not the
    operator. With *denial*, the reasons of one, nothing is run.

    Raises: StoreError with the code "audit" if the record cannot be written, with nothing sent; DeniedError; what
    *body* raises.
    """
    decision_id = os.urandom(16).hex()
    record: Mapping[str, Any] = {
        "v": 1,
        "id": decision_id,
        "time": pipeline.now()[0],
        "action": f"{door}.{action}",
        "permit": not denial,
        "reasons": list(denial) or ([reason] if isinstance(reason, str) else list(reason)),
        "policy": "none",
        "store": store.name,
        "partitions": list(partitions),
        "scope": "unscoped",
        "principal": None if principal is None else described(principal),
    }
    started = time.perf_counter_ns()
    yield from pipeline.record(record)
    outcome, returned = "cancelled", None
    more: Mapping[str, Any] = {}
    try:
        if denial:
            raise DeniedError(
                f"{door}.{action} is not permitted: {'; '.join(denial)}. Decision {decision_id}.",
                action=f"{door}.{action}",
                decision_id=decision_id,
                reasons=denial,
            )
        result = yield from body(decision_id)
        if pipeline.returned is not None and hits is not None:
            more = {"ids": pipeline.returned.of(hits(result))}
        outcome, returned = "ok", size(result)
        return result
    except Exception as error:  # noqa: BLE001 - mapped, and raised after the block
        outcome, failed = pipeline.failure(error, store, decision_id)
    finally:
        spent = (time.perf_counter_ns() - started) // 1000 / 1000
        entry = {"decision": decision_id, "outcome": outcome, "returned": returned, "ms": spent}
        pipeline.note({**entry, **more, **reached()})
    raise failed


def accepting(pipeline: Pipeline, store: Store, door: str, posture: Posture) -> Flow[None]:
    """Record the accepted findings of *posture*, which do not lower its grade, as read by *door*; none, no record.

    Raises: StoreError with the code "audit" if the record cannot be written.
    """
    if not posture.accepted:
        return

    def body(_: str) -> Flow[None]:
        yield from ()

    reasons, count = posture.acceptances, len(posture.accepted)
    yield from recorded(pipeline, store, "accepted", reasons, ["*"], body, size=lambda _: count, door=door)


def read_page(
    pipeline: Pipeline,
    store: Store,
    reason: str,
    partition: str,
    size: int,
    after: Position | None,
    include: Include = WHOLE,
) -> Flow[Rows]:
    """Return a page of all rows of *partition* in the order of document, generation and chunk id.

    The rows are complete, or with *include* () only their ids and tags.

    Raises: UnsupportedPredicateError if the adapter cannot scan; ScopeViolationError; StoreError.
    """
    check_tenant(partition)
    if "scan" not in store.capabilities.operations:
        raise UnsupportedPredicateError(f"The adapter {store.adapter_name!r} cannot scan.", field="scan")

    def body(decision_id: str) -> Flow[Rows]:
        operation = Scan(partition, ALWAYS, ALWAYS, size, after, include)
        rows: Rows = yield from retried(lambda: confined(store.adapter.scan(operation), partition))
        verify(rows.hits, partition, None, adapter=store.adapter_name, decision_id=decision_id)
        if include and any(hit.vector is None or hit.text is None or hit.metadata is None for hit in rows.hits):
            raise StoreError(
                f"The store {store.name!r} returned rows without their vector, text or metadata.",
                code="incomplete",
                adapter=store.adapter_name,
                sent="no",
            )
        return rows

    return (yield from recorded(pipeline, store, "read", reason, [partition], body, size=lambda rows: len(rows.hits)))


def write_rows(
    pipeline: Pipeline,
    store: Store,
    reason: str,
    partition: str,
    records: Sequence[Record],
    *,
    validate_as: Principal | None,
) -> Flow[int]:
    """Write *records* with unchanged tags: all of them or none.

    The validators of the configuration see them as written by *validate_as*; None for rows that are moved within the
    configuration.

    Raises: UnsupportedPredicateError if the adapter cannot keep tags unchanged (`Capabilities.verbatim`);
    InvalidInputError, UntaggedWriteError, ContentRefusedError, with nothing sent; StoreError.
    """
    check_tenant(partition)
    can = store.capabilities
    if not can.verbatim or "upsert" not in can.operations:
        raise UnsupportedPredicateError(
            f"The adapter {store.adapter_name!r} cannot keep tags unchanged, so nothing can be copied into it.",
            field="verbatim",
        )
    check_tagged(records, partition)
    if len({(record.tag.document, record.tag.chunk) for record in records}) != len(records):
        raise InvalidInputError("The batch holds two generations of one chunk, or one chunk twice.", field="rows")
    checked = tuple(checked_row(record, store) for record in records)

    def body(decision_id: str) -> Flow[int]:
        if validate_as is not None:
            yield from validate_rows(pipeline, validate_as, checked, decision_id)
        operation = Upsert(partition, ALWAYS, checked, verbatim=True)
        written = yield from retried(lambda: confined(store.adapter.upsert(operation), partition), write=True)
        return counted(written, store.adapter_name, write=True)

    return (yield from recorded(pipeline, store, "write", reason, [partition], body, size=lambda count: count))


def checked_row(record: Record, store: Store) -> Record:
    """Check *record* like a handle's write: a store with imported rows may hold rows that cannot be written.

    Raises: RefusedError with the reason.
    """
    tag, can = record.tag, store.capabilities
    check_id(tag.document, "document")
    check_id(tag.chunk, "chunk id")
    text = check_text(record.text, "text")
    vector = check_vector(record.vector, can.dimension, nonzero=can.metric == "cosine")
    return Record(tag, text, vector, check_metadata(record.metadata, store.fields))


def clear(pipeline: Pipeline, store: Store, reason: str, partition: str) -> Flow[int | None]:
    """Delete every row of *partition*; return the number, or None if the store cannot count. Raises: StoreError."""
    check_tenant(partition)

    def body(_: str) -> Flow[int | None]:
        operation = Delete(partition, ALWAYS, where=ALWAYS)
        deleted = yield from confined(store.adapter.delete(operation), partition)
        return None if deleted is None else counted(deleted, store.adapter_name, write=True)

    return (yield from recorded(pipeline, store, "clear", reason, [partition], body, size=lambda count: count))


def delete_rows(
    pipeline: Pipeline, store: Store, reason: str, partition: str, document: str, chunks: Sequence[str] | None
) -> Flow[int | None]:
    """Delete *chunks* of *document* in *partition*, or all of them with None; see `clear`. Raises: StoreError."""
    check_tenant(partition)
    refs = None if chunks is None else tuple(ChunkRef(one, document) for one in chunks)

    def body(_: str) -> Flow[int | None]:
        operation = Delete(partition, ALWAYS, refs, document if refs is None else None)
        deleted = yield from confined(store.adapter.delete(operation), partition)
        return None if deleted is None else counted(deleted, store.adapter_name, write=True)

    return (yield from recorded(pipeline, store, "delete", reason, [partition], body, size=lambda count: count))


def sweep(pipeline: Pipeline, store: Store, reason: str, partition: str, largest_share: float) -> Flow[int]:
    """Delete the rows of *partition* whose time has passed, unless they are more than *largest_share* of all.

    A clock that jumped ahead must not empty a tenant. Returns the number. Raises: RefusedError; StoreError.
    """
    check_tenant(partition)
    if not store.expiring:
        raise RefusedError(
            f"Chunks of the store {store.name!r} cannot expire, so there is nothing to sweep. If they can, set "
            f"expiring = true in [stores.{store.name}], in every process that reads it.",
            field="expires",
        )
    if store.capabilities.count == "none":
        raise UnsupportedPredicateError(f"The adapter {store.adapter_name!r} cannot count exactly.", field="count")
    now = pipeline.now()[0]
    expired = Range("@expires", lte=now) if math.isfinite(now) else NEVER

    def body(_: str) -> Flow[int]:
        numbers = []
        for where in (expired, ALWAYS):
            operation = Count(partition, ALWAYS, where)
            flow = retried(lambda one=operation: confined(store.adapter.count(one), partition))  # type: ignore[misc]  # mypy does not type a default of a lambda
            numbers.append(counted((yield from flow), store.adapter_name))
        number, total = numbers
        if number > max(1.0, largest_share * total):
            raise too_many_expired("chunks", number, total, largest_share)
        if number:
            yield from confined(store.adapter.delete(Delete(partition, ALWAYS, where=expired)), partition)
        return number

    return (yield from recorded(pipeline, store, "sweep", reason, [partition], body, size=lambda count: count))


def too_many_expired(what: str, number: int, total: int, share: float) -> RefusedError:
    """Return the refusal of a sweep that would delete more than a share that no retention explains."""
    return RefusedError(
        f"{number:,} of {total:,} {what} have expired, which is more than a share of {share:g}. If the clock is right, "
        "repeat it with a larger share.",
        field="largest_share",
    )


def count_rows(pipeline: Pipeline, store: Store, reason: str, partition: str) -> Flow[int]:
    """Count the rows of *partition*. Raises: UnsupportedPredicateError where the store cannot; StoreError."""
    check_tenant(partition)
    if store.capabilities.count == "none":
        raise UnsupportedPredicateError(f"The adapter {store.adapter_name!r} cannot count exactly.", field="count")

    def body(_: str) -> Flow[int]:
        operation = Count(partition, ALWAYS, ALWAYS)
        return counted(
            (yield from retried(lambda: confined(store.adapter.count(operation), partition))), store.adapter_name
        )

    return (yield from recorded(pipeline, store, "count", reason, [partition], body, size=lambda count: count))
