"""Faults that only a Weaviate adapter can have, each to be noticed by one check of the kit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from vectoracl.adapter_api.contract import Opened
from vectoracl.adapter_api.operations import METHODS
from vectoracl_conformance.harness import Mutant, Store
from vectoracl_weaviate.compile_predicate import Filters
from vectoracl_weaviate.conformance.store import WeaviateStore
from vectoracl_weaviate.requests import Create, Drop, Find, Groups, Tally

_ADAPTER = "vectoracl_weaviate.adapter:WeaviateAdapter"
_PREDICATES = "vectoracl_weaviate.compile_predicate:Compiler"


def _flow(name: str, change: Callable[[Any, Any], Any]) -> Callable[[Opened, Store], Opened]:
    """Change the requests that the adapter's flows make; *change* gets the store and the request."""

    def wrap(opened: Opened, store: Store) -> Opened:
        adapter: Any = _Changed(opened.adapter, lambda request: change(store, request))
        return replace(opened, adapter=adapter)

    wrap.__name__ = name
    return wrap


class _Changed:
    """An adapter whose flows' requests are changed."""

    def __init__(self, inner: Any, change: Callable[[Any], Any]) -> None:
        self._inner = inner
        self._change = change

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name not in METHODS:
            return attribute
        return lambda operation: self._changed(attribute(operation))

    def _changed(self, flow: Any) -> Any:
        reply, error = None, None
        while True:
            try:
                step = flow.send(reply) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value
            reply, error = None, None
            try:
                reply = yield tuple(map(self._change, step)) if isinstance(step, tuple) else self._change(step)
            except Exception as caught:  # noqa: BLE001 - the flow's own
                error = caught


class _Also(_Changed):
    """An adapter that ranks in another tenant's shard first, and drops what comes."""

    def _changed(self, flow: Any) -> Any:
        reply, error = None, None
        while True:
            try:
                step = flow.send(reply) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value
            reply, error = None, None
            other = self._change(step)
            if other is not step:
                yield other
            try:
                reply = yield step
            except Exception as caught:  # noqa: BLE001 - the flow's own
                error = caught


def _also(opened: Opened, store: Store) -> Opened:
    return replace(opened, adapter=_Also(opened.adapter, lambda request: _foreign(store, request)))


def _message(request: Any, **changes: Any) -> Any:
    message = type(request.message)()
    message.CopyFrom(request.message)
    for name, value in changes.items():
        setattr(message, name, value)
    return replace(request, message=message)


def _without(kinds: tuple[type[Any], ...]) -> Callable[[Any, Any], Any]:
    """Drop the tenant from messages of *kinds*, as `with_tenant` forgotten does."""
    return lambda _store, request: _message(request, tenant="") if isinstance(request, kinds) else request


def _foreign(store: Any, request: Any) -> Any:
    """Send a search to another tenant's shard: the first that the store lists besides the own one."""
    if not isinstance(request, Find) or not request.message.HasField("near_vector"):
        return request
    others = sorted(name for name in store.parts() if name != request.message.tenant)
    return _message(request, tenant=others[0]) if others else request


def _either(kind: type[Any]) -> Callable[[Any, Any], Any]:
    """Turn the conjunction of scope and filter into a disjunction."""

    def change(_store: Any, request: Any) -> Any:
        if not isinstance(request, kind) or request.message.filters.operator != Filters.OPERATOR_AND:
            return request
        changed = _message(request)
        changed.message.filters.operator = Filters.OPERATOR_OR
        return changed

    return change


def _unfiltered(test: Callable[[Any], bool]) -> Callable[[Any, Any], Any]:
    """Send a request without its filter."""

    def change(_store: Any, request: Any) -> Any:
        if not isinstance(request, Find | Tally | Groups) or not test(request.message):
            return request
        changed = _message(request)
        changed.message.ClearField("filters")
        return changed

    return change


def _cut_off(_store: Any, request: Any) -> Any:
    """Leave the server its default."""
    if not isinstance(request, Groups):
        return request
    changed = _message(request)
    changed.message.ClearField("limit")
    return changed


def _creates(old: Any) -> Any:
    """Let a read create its tenant."""

    def reading(self: Any, partition: str, flow: Any, empty: Any) -> Any:
        name = self._compile.state(partition).tenant
        yield Create(partition, name)
        return (yield from old(self, partition, flow, empty))

    return reading


def _trusting(**changes: Any) -> Callable[[Any], Any]:
    """Rest on the server's own negations: what finds rows, and compares them, is taken for sure."""

    def change(old: Any) -> Any:
        def condition(self: Any, *predicates: Any) -> Any:
            result = old(self, *predicates)
            return result._replace(sure=result.rows, **changes)

        return condition

    return change


def _bare(_old: Any) -> Any:
    """Derive ids from the chunk alone."""
    import uuid

    return lambda tag, version="": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{tag.chunk}{version}"))


def _folded(old: Callable[[str], str]) -> Any:
    """Name tenants without regard to case."""
    return lambda tenant: old(tenant.casefold())


def _cut(_old: Callable[[str], str]) -> Any:
    """Cut long names off instead of hashing them."""
    import re

    return lambda tenant: f"t_{re.sub(r'[^A-Za-z0-9_-]', '-', tenant)[:62]}"


def _auto(store: Store) -> None:
    assert isinstance(store, WeaviateStore)
    definition = store.ask("GET", f"/v1/schema/{store.collection}")
    definition["multiTenancyConfig"] = {**definition["multiTenancyConfig"], "autoTenantCreation": True}
    store.ask("PUT", f"/v1/schema/{store.collection}", definition)


def _mutant(name: str, breaks: str, expected: str, change: Callable[[Any, Any], Any]) -> Mutant:
    return Mutant(name, breaks, expected, wrap=_flow(name, change))


MUTANTS: Sequence[Mutant] = (
    _mutant("with_tenant dropped in searches", "a search names no tenant", "R1", _without((Find,))),
    _mutant("with_tenant dropped in counts", "a count names no tenant", "R12", _without((Tally,))),
    _mutant("with_tenant dropped in facets", "a count by value names no tenant", "R12", _without((Groups,))),
    _mutant("no filter in facets", "a count by value has no filter", "R12",
            _unfiltered(lambda one: one.DESCRIPTOR.name == "AggregateRequest" and one.HasField("group_by"))),
    _mutant("the server's own cut", "a count by value names no limit: a hundred values come back", "R12", _cut_off),
    _mutant("with_tenant dropped in deletes", "a delete names no tenant", "W6", _without((Drop,))),
    _mutant("another tenant's shard", "a search is sent to the next shard", "R1", _foreign),
    _mutant("scope in any_of", "scope and filter are alternatives in a search", "R5", _either(Find)),
    _mutant("scope in any_of of a delete", "scope and filter are alternatives in a delete", "W7", _either(Drop)),
    _mutant(
        "one leg of a hybrid unscoped", "the lexical leg has no filter", "R13",
        _unfiltered(lambda message: message.DESCRIPTOR.name == "SearchRequest" and message.HasField("bm25_search")),
    ),
    _mutant(
        "no filter in listings", "a scan or a fetch has no filter", "R10",
        _unfiltered(lambda one: one.DESCRIPTOR.name == "SearchRequest" and not one.HasField("near_vector")),
    ),
    _mutant("no filter in counts", "a count has no filter", "R12",
            _unfiltered(lambda one: one.DESCRIPTOR.name == "AggregateRequest" and not one.HasField("group_by")
                        and "pending" not in str(one))),
    Mutant("ranks in another tenant's shard too", "a foreign shard is searched, its hits dropped", "E3",
           wrap=_also),
    Mutant("negations counted by the server", "a count rests on the server's negation", "R16",
           patches=((_PREDICATES, "condition", _trusting()),)),
    Mutant("negations deleted by the server", "facets and deletes rest on the server's negation", "R16",
           patches=((_PREDICATES, "condition", _trusting(fixed=True)),)),
    Mutant("a read creates its tenant", "an unknown tenant is made by reading", "P3",
           patches=((_ADAPTER, "_reading", _creates),)),
    Mutant("tenants created by a write", "autoTenantCreation is on", "X2", store=_auto),
    Mutant("bare ids", "an object's id is of the chunk alone", "W9",
           patches=(("vectoracl_weaviate.adapter", "id_of", _bare), ("vectoracl_weaviate.compile", "id_of", _bare),
                    ("vectoracl_weaviate.decode", "id_of", _bare))),
    Mutant("names of tenants without case", "Acme and acme are one tenant", "P2",
           patches=(("vectoracl_weaviate.compile", "tenant_name", _folded),)),
    Mutant("names of tenants cut off", "long names are cut, and signs replaced", "P2",
           patches=(("vectoracl_weaviate.compile", "tenant_name", _cut),)),
)  # fmt: skip
