"""An adapter whose tenants are admitted before their first write, as an operator does where no writer can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vectoracl.adapter_api.chunk_validation import check_tagged
from vectoracl.adapter_api.contract import Adapter, Flow, Opened
from vectoracl.adapter_api.operations import Replace, Upsert
from vectoracl_conformance.harness import Store


class _Admitted:
    def __init__(self, inner: Adapter, store: Store) -> None:
        self._inner = inner
        self._store = store
        self._known: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _first(self, operation: Upsert | Replace) -> None:
        check_tagged(operation.records, operation.partition)
        if operation.records and operation.partition not in self._known:
            self._store.admit(operation.partition)
            self._known.add(operation.partition)

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Admit, then write."""
        self._first(operation)
        return (yield from self._inner.upsert(operation))

    def replace(self, operation: Replace) -> Flow[int]:
        """Admit, then write."""
        self._first(operation)
        return (yield from self._inner.replace(operation))


def admitting(opened: Opened, store: Store) -> Opened:
    """Return *opened* with an adapter whose tenants are admitted by *store* first, where it does that at all."""
    if type(store).admit is Store.admit:
        return opened
    return replace(opened, adapter=_Admitted(opened.adapter, store))
