"""The flow of `update_metadata`: keys of the metadata of a whole document change, its texts and vectors stay.

The document is read first, so that the scope can be checked before and after the change and the metadata as a whole.
The write then names the scope and the chunks that were read, each with the time at which it was written; nothing is
changed where one of them is another by now, or outside of the scope. Chunks whose time has passed are left out.
Under a registry the document gets a new generation, which is published in one transaction; see `governed_writes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vectoracl.adapter_api.chunk_validation import check_key, check_metadata
from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Include, UpdateMetadata
from vectoracl.engine import governed_store as stored
from vectoracl.engine.drivers import confined
from vectoracl.engine.pipeline import Caller, Pipeline, Plan, Store, denied
from vectoracl.engine.second_lock import counted
from vectoracl.engine.validating import validate_changes
from vectoracl.engine.writes import one_leg
from vectoracl.errors import InvalidInputError, StoreError, UnsupportedPredicateError
from vectoracl.filters.predicate import ALWAYS, Eq, conjunction
from vectoracl.filters.semantics import Test
from vectoracl.model.records import Hit, Updated

_METADATA: Include = frozenset({"metadata"})


class Changes:
    """Checked changes of metadata: new values, and the keys that go."""

    def __init__(self, values: Mapping[str, Any], removed: tuple[str, ...]) -> None:
        self.values = values
        self.removed = removed

    @property
    def given(self) -> dict[str, Any]:
        """The new values by their keys, and None for each key that goes."""
        return {**self.values, **dict.fromkeys(self.removed)}

    def applied(self, metadata: Mapping[str, Any], store: Store) -> dict[str, Any]:
        """Return *metadata* with the changes. Raises: InvalidInputError where it becomes too large."""
        kept = {key: value for key, value in metadata.items() if key not in self.removed}
        return check_metadata({**kept, **self.values}, store.fields)


def check_changes(store: Store, changes: object) -> Changes:
    """Return changes of metadata: keys with new values, and None for those that go.

    Raises: InvalidInputError, ReservedFieldError.
    """
    if not isinstance(changes, Mapping) or not changes:
        raise InvalidInputError("changes is a mapping of metadata keys to new values, or to None.", field="changes")
    given = dict(changes)
    removed = [key for key, value in given.items() if value is None]
    values = check_metadata({key: value for key, value in given.items() if value is not None}, store.fields)
    return Changes(values, tuple([check_key(key) for key in removed]))


def update_metadata(pipeline: Pipeline, store: Store, caller: Caller, document: str, changes: Changes) -> Flow[Updated]:
    """Change the metadata of every chunk of *document*, without a registry."""
    make: Callable[[UpdateMetadata], Flow[int]] | None = getattr(store.adapter, "update_metadata", None)
    if store.capabilities.atomic_update == "none" or make is None:
        raise UnsupportedPredicateError(
            f"The adapter {store.adapter_name!r} cannot change metadata in place. Write the document again with "
            "replace().",
            field="update_metadata",
        )

    def body(plan: Plan, decision_id: str) -> Flow[Updated]:
        leg = one_leg(plan, caller)
        yield from validate_changes(pipeline, caller, document, changes.given, decision_id)
        atomic = store.capabilities.atomic_update == "transaction"
        alive = pipeline.alive(store)
        where = conjunction((Eq("@document", document), alive))
        hits = yield from stored.scan_all(store, leg.partition, ALWAYS, where, _METADATA, decision_id)
        if not check_rows(leg.test, store, hits, changes, decision_id):
            return Updated(0, atomic, decision_id)
        generations = {hit.tag.generation for hit in hits}
        if len(generations) != 1:
            raise moved(document)
        given = UpdateMetadata(
            leg.partition,
            leg.predicate,
            alive,
            document,
            generations.pop(),
            tuple(sorted((hit.id, hit.tag.time) for hit in hits)),
            dict(changes.values),
            changes.removed,
        )
        number = counted((yield from confined(make(given), leg.partition)), store.adapter_name, write=True)
        if number != len(hits):
            raise moved(document)
        return Updated(number, atomic, decision_id)

    return (yield from run(pipeline, store, caller, body))


def run(pipeline: Pipeline, store: Store, caller: Caller, body: Callable[[Plan, str], Flow[Updated]]) -> Flow[Updated]:
    """Run *body* through the pipeline, as an upsert: it overwrites chunks that exist."""
    return pipeline.run(
        caller,
        "upsert",
        store,
        body,
        empty=lambda one: Updated(0, atomic=True, decision_id=one),
        size=lambda one: one.count,
    )


def check_rows(test: Test | None, store: Store, hits: Sequence[Hit], changes: Changes, decision_id: str) -> bool:
    """Return whether there is a document that may be written; one that may not be seen at all reads like none.

    Raises: DeniedError if a part of it is outside of the scope, before or after the change.
    """
    after = [changes.applied(hit.metadata or {}, store) for hit in hits]
    if test is None:
        return bool(hits)
    permitted = [test(hit.tag, hit.metadata or {}) for hit in hits]
    if not any(permitted):
        return False
    if not all(permitted):
        raise denied("upsert", decision_id, ("an existing chunk is outside the scope in which this handle may write",))
    if not all(test(hit.tag, one) for hit, one in zip(hits, after, strict=True)):
        raise denied("upsert", decision_id, ("a chunk would be outside the scope in which this handle may write",))
    return True


def moved(document: str) -> StoreError:
    """Return the error of a document that was written while its metadata was about to change."""
    return StoreError(
        f"The document {document!r} was written by another call in the meantime, so nothing was changed. Try again.",
        code="conflict",
        sent="no",
        retryable=True,
    )
