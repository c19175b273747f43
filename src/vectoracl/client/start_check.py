"""The check of a store when it is opened: a kept posture if nothing has changed, else a measured one.

A posture is kept under the fingerprint from before it was read. A change while it was read is noticed at the next
start, whose fingerprint is then another one, so none is taken afterwards: the first request does not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.posture import Posture
from vectoracl.client import kept_postures
from vectoracl.engine.pipeline import Store
from vectoracl.errors import StoreError

_NOT_ANSWERED = frozenset({"unavailable", "unreachable", "timeout", "pool_timeout", "closed"})
"""Codes of failures after which another attempt would fail too, and only later."""


def _raise_unanswered(error: StoreError) -> None:
    """Raise *error* if the store did not answer; else it refused a part, and is measured without a fingerprint."""
    if error.code in _NOT_ANSWERED:
        raise error


def posture_at_start(
    store: Store, perform: Callable[[Flow[Any]], Any], *, satisfies: Callable[[Posture], bool]
) -> Posture:
    """Return the posture of *store*; a kept one has to satisfy the configuration. *perform* drives a flow."""
    measuring = kept_postures.fingerprinted(store.adapter)
    posture: Posture
    if measuring is not None:
        try:
            if kept_postures.some():
                kept = kept_postures.find(store.name, store.adapter, perform(measuring.fingerprint()))
                if kept is not None and satisfies(kept):
                    return kept
            posture, fingerprint = perform(measuring.fingerprinted_posture())
        except StoreError as error:
            _raise_unanswered(error)
        else:
            if fingerprint is not None and satisfies(posture):
                kept_postures.keep(store.name, store.adapter, fingerprint, posture)
            return posture
    posture = perform(store.adapter.posture())
    return posture


async def aposture_at_start(
    store: Store, perform: Callable[[Flow[Any]], Awaitable[Any]], *, satisfies: Callable[[Posture], bool]
) -> Posture:
    """`posture_at_start` for asyncio."""
    measuring = kept_postures.fingerprinted(store.adapter)
    posture: Posture
    if measuring is not None:
        try:
            if await asyncio.to_thread(kept_postures.some):
                now = await perform(measuring.fingerprint())
                kept = await asyncio.to_thread(kept_postures.find, store.name, store.adapter, now)
                if kept is not None and await asyncio.to_thread(satisfies, kept):
                    return kept
            posture, fingerprint = await perform(measuring.fingerprinted_posture())
        except StoreError as error:
            _raise_unanswered(error)
        else:
            if fingerprint is not None and await asyncio.to_thread(satisfies, posture):
                await asyncio.to_thread(kept_postures.keep, store.name, store.adapter, fingerprint, posture)
            return posture
    posture = await perform(store.adapter.posture())
    return posture
