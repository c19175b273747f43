"""The marks in a store, by which a restored backup is noticed: `registry.restores` explains them."""

from __future__ import annotations

import math
import os
from contextlib import suppress

import numpy as np

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Delete, Upsert
from vectoracl.engine import governed_store as stored
from vectoracl.engine.drivers import confined
from vectoracl.engine.pipeline import Store
from vectoracl.engine.second_lock import counted
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import ALWAYS, Eq, F, conjunction
from vectoracl.model.records import NEVER_EXPIRES, Record, Tag
from vectoracl.registry.requests import CompareMarks, ReadMarks
from vectoracl.registry.restores import MARK_DOCUMENT, MARK_LABEL, Closing, Marks, SeenMarks

_OF_MARKS = Eq("@document", MARK_DOCUMENT)
OLD_SECONDS = 3_600.0
"""The age of a mark whose drain cannot be under way any more: a request takes minutes at most."""


def has_marks(store: Store) -> bool:
    """Return whether *store* carries marks; where reads lag behind writes, a missing mark would prove nothing."""
    return store.capabilities.visible == "immediate"


def check_restored(store: Store, partition: str, decision_id: str) -> Flow[None]:
    """Compare the marks of *partition* with the registry. Raises: StoppedTenantError, and the tenant is stopped."""
    if not has_marks(store):
        return
    before = yield from ReadMarks(partition, store.name)
    seen = yield from see_marks(store, partition, decision_id)
    yield from CompareMarks(partition, store.name, before, seen)


def see_marks(
    store: Store, partition: str, decision_id: str, *, own: str = "", now: float = -math.inf
) -> Flow[SeenMarks]:
    """Return the marks that are in the store; the version and age of the mark *own* do not count."""
    hits = yield from stored.scan_all(store, partition, ALWAYS, _OF_MARKS, frozenset(), decision_id)
    others = [hit for hit in hits if hit.id != own]
    newest = max((hit.tag.generation for hit in others), default=0)
    old = frozenset(hit.id for hit in others if hit.tag.time < now - OLD_SECONDS)
    return SeenMarks(frozenset(hit.id for hit in hits), newest, old)


def insert_mark(store: Store, partition: str, drawn: Marks) -> Flow[str]:
    """Insert a mark and return its name. It is sent once: an insert that arrives late must not be one that counts."""
    name = os.urandom(16).hex()
    tag = Tag(
        partition,
        MARK_DOCUMENT,
        name,
        drawn.version,
        MARK_LABEL,
        expires=NEVER_EXPIRES,
        producer="vectoracl",
        path="mark",
        time=drawn.now,
    )
    vector = np.zeros(store.capabilities.dimension, np.float32)
    vector[0] = 1.0
    operation = Upsert(partition, ALWAYS, (Record(tag, "", vector, {}),), verbatim=True)
    written = yield from confined(store.adapter.upsert(operation), partition)
    counted(written, store.adapter_name, write=True)
    return name


def seal(store: Store, partition: str, decision_id: str) -> Flow[Closing]:
    """Mark what was written so far. The census has to follow it, and the transaction that takes rows out follows that.

    Raises: StoppedTenantError.
    """
    drawn = yield from ReadMarks(partition, store.name)
    if not has_marks(store):
        return Closing(store.name, "", drawn.version, frozenset(), frozenset())
    name = yield from insert_mark(store, partition, drawn)
    seen = yield from see_marks(store, partition, decision_id, own=name, now=drawn.now)
    return Closing(store.name, name, drawn.version, drawn.required, seen.names, seen.newest, seen.old)


def drop_marks(store: Store, partition: str, closing: Closing, *, closed: bool) -> Flow[None]:
    """Delete the marks that the one of *closing* replaces, and old ones of drains that did not end.

    If nothing was *closed*, those are still required, and only the new one goes. What cannot be deleted stays, and
    means nothing.
    """
    names = sorted((closing.required | closing.old) & closing.names) if closed else [closing.mark] * bool(closing.mark)
    if not names:
        return
    operation = Delete(partition, ALWAYS, where=conjunction((_OF_MARKS, F["@chunk"].in_(names))))
    with suppress(StoreError):
        yield from confined(store.adapter.delete(operation), partition)
