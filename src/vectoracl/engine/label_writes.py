"""Writing labels into chunks, as the kind of the store needs it.

Where the store has a condition on a write ("conditional", "transaction"), a label that arrives late changes nothing,
and any process may write at any time. A "blind" store has none. There one process at a time writes labels of a tenant,
under a lease that it renews before each request, and a request whose outcome is unknown is not sent again: the lease
then ends unclean, and the next one starts only when that request cannot be under way any more (`registry.leases`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import LabelChange, Relabel
from vectoracl.engine.drivers import close_flow, confined
from vectoracl.engine.pipeline import Store, retried
from vectoracl.errors import StoreError, VectorACLError
from vectoracl.registry.requests import EndLease, RenewLease, TakeLease
from vectoracl.registry.values import Pending

T = TypeVar("T")


def write_labels(store: Store, partition: str, given: Sequence[Pending]) -> Flow[tuple[int | None, float]]:
    """Write what the registry says into the chunks of published generations.

    Returns: how many chunks were changed, None where the store cannot count; and the seconds to wait before anything
    may be written, with nothing written: another process writes labels of the tenant, or has stopped while it did.
    """
    changes = tuple(
        LabelChange(one.document, one.generation, one.label, one.expires, one.rev)
        for one in given
        if one.generation is not None
    )
    if not changes:
        return 0, 0.0
    make: Callable[[Relabel], Flow[int | None]] = store.adapter.relabel  # type: ignore[attr-defined]  # see `Relabeling`
    operation = Relabel(partition, changes)
    if store.capabilities.relabel != "blind":
        return (yield from retried(lambda: confined(make(operation), partition))), 0.0
    token = os.urandom(16).hex()
    wait = yield from TakeLease(partition, token)
    if wait > 0:
        return None, wait
    try:
        changed = yield from retried(
            lambda: _renewing(confined(make(operation), partition), partition, token), write=True
        )
    except VectorACLError as error:
        clean = isinstance(error, StoreError) and error.sent == "no"
        with suppress(StoreError):  # it ends by itself
            yield from EndLease(partition, token, clean)
        raise
    yield from EndLease(partition, token, clean=True)
    return changed, 0.0


def _renewing(flow: Flow[T], partition: str, token: str) -> Flow[T]:
    """Pass *flow* on; renew the lease before each of its requests that writes."""
    value: object = None
    error: Exception | None = None
    try:
        while True:
            try:
                step = flow.send(value) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # the value of a generator is typed by the flow
            value, error = None, None
            if any(one.writes for one in (step if isinstance(step, tuple) else (step,))):
                yield from RenewLease(partition, token)
            try:
                value = yield step
            except Exception as caught:  # noqa: BLE001 - handed to the flow, whose error it is
                error = caught
    finally:
        close_flow(flow)
