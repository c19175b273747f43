"""Mutants of governance: registries, flows and adapters in which one rule of rights inside a tenant is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from vectoracl import TenantPolicy
from vectoracl.adapter_api.contract import Adapter, Flow
from vectoracl.adapter_api.operations import Count, Facets, Fetch, Operation, Relabel, Scan, Search
from vectoracl.filters.predicate import ALWAYS, And, In, Not, Predicate, conjunction
from vectoracl.filters.semantics import compile_test
from vectoracl.model.records import NEVER_EXPIRES
from vectoracl_conformance.harness import Mutant, Store
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper, wrapped

_DOCUMENTS = "vectoracl.registry.documents"
_READING = "vectoracl.registry.reading"
_SCOPES = "vectoracl.registry.scopes"


def without_quarantine(scope: Predicate) -> Predicate:
    """Return a governed scope without its exclusions, but for that of the overlay, which is a list of documents."""
    if not isinstance(scope, And):
        return scope
    return conjunction(
        [one for one in scope.operands if not (isinstance(one, Not) and not isinstance(one.operand, In))]
    )


def _ignoring_quarantine(kind: type[Operation]) -> Callable[[Adapter, Store], AdapterWrapper]:
    class Ignoring(AdapterWrapper):
        def perform(self, operation: Any) -> Flow[Any]:
            if isinstance(operation, kind):
                operation = dataclasses.replace(operation, scope=without_quarantine(operation.scope))
            return super().perform(operation)

    return Ignoring


class RankThenFilter(AdapterWrapper):
    """Ranks the whole tenant, and then drops what the scope does not permit."""

    def search(self, operation: Search) -> Flow[Any]:
        """Search without the scope, and filter the k best."""
        found = yield from self.inner.search(dataclasses.replace(operation, scope=ALWAYS))
        test = compile_test(operation.scope)
        return found._replace(hits=[one for one in found.hits if test(one.tag, one.metadata or {})])


class LateLabels(AdapterWrapper):
    """Writes labels whatever number the chunks have."""

    def relabel(self, operation: Relabel) -> Flow[int | None]:
        """Make every change the newest."""
        newest = tuple(one._replace(rev=one.rev + 1_000_000) for one in operation.changes)
        return (yield from super().relabel(dataclasses.replace(operation, changes=newest)))


class LabelsOnly(AdapterWrapper):
    """Writes labels and leaves the time of expiry as it was."""

    def relabel(self, operation: Relabel) -> Flow[int | None]:
        """Forget the expiry."""
        changes = tuple(one._replace(expires=NEVER_EXPIRES) for one in operation.changes)
        return (yield from super().relabel(dataclasses.replace(operation, changes=changes)))


class FirstLabels(AdapterWrapper):
    """Writes labels into the first 500 chunks of a tenant only."""

    def relabel(self, operation: Relabel) -> Flow[int | None]:
        """Leave out documents with more chunks than that."""
        rows = [row.tag for row in self.store.census() if row.tag.tenant == operation.partition]
        small = tuple(one for one in operation.changes if sum(tag.document == one.document for tag in rows) <= 500)
        return (yield from super().relabel(dataclasses.replace(operation, changes=small)))


class NoLabels(AdapterWrapper):
    """Says that labels were written, and writes none."""

    def relabel(self, _: Relabel) -> Flow[int | None]:
        """Do nothing."""
        yield from ()
        return 2


class _Free:
    """A row of a document that is never held."""

    def __init__(self, row: Any) -> None:
        self._row = row

    def __getattr__(self, name: str) -> Any:
        return 0 if name == "held" else getattr(self._row, name)


def _never_held(old: Any) -> Any:
    return lambda *args: {name: _Free(row) for name, row in old(*args).items()}


def _last_matter(old: Any) -> Any:
    def update(change: Any, documents: Any, **values: Any) -> None:
        if type(values.get("held")).__name__ == "ScalarSelect":  # the number of matters that are left
            values["held"] = 0
        old(change, documents, **values)

    return update


def _without_generations(old: Any) -> Any:
    return lambda self: old(dataclasses.replace(self, granted=()))


def _not_withdrawn(old: Any) -> Any:
    def partition(connection: Any, settings: Any, tenant: str, labels: Any, found: Any) -> Any:
        return dataclasses.replace(old(connection, settings, tenant, labels, found), labels=labels)

    return partition


def _for_all_children(_: Any) -> Any:
    def foreign_labels(connection: Any, tenant: str, _now: float, *, child: bool, shared: bool) -> frozenset[str]:
        import sqlalchemy as sa

        from vectoracl.registry import tables

        c = tables.labels.c
        names = connection.execute(sa.select(c.label).where(c.tenant == tenant)).scalars()
        return frozenset(names) if child or shared else frozenset()

    return foreign_labels


def _by_words(old: Any) -> Any:
    return lambda principal: (
        *old(principal),
        *(f"group:{word}" for name in principal.groups for word in name.split()),
    )


def _permitting(_: Any) -> Any:
    def failed(self: Any, _cause: Any, _version: Any, caller: Any, action: Any, store: Any) -> Any:
        return self._compile(TenantPolicy().decide(caller.principal, action), caller, action, store)

    return failed


def _quiet(old: Any) -> Any:
    return lambda self, tenant, raises=True: old(self, tenant, raises=False)  # noqa: ARG005 - the form of what it replaces


def _as_they_arrive(old: Any) -> Any:
    def apply(change: Any, database: Any, settings: Any, source: str, records: Any) -> Any:
        now = [dataclasses.replace(one, as_of=change.now) for one in records]
        return old(change, database, settings, source, now)

    return apply


def _without_sources(old: Any) -> Any:
    return lambda connection, settings, tenant, now: old(
        connection, dataclasses.replace(settings, sources={}), tenant, now
    )


def _ignored(kind: type[Operation]) -> Mutant:
    name = kind.__name__.lower()
    return Mutant(
        f"quarantine ignored by {name}",
        f"the exclusions of quarantine do not reach the store in {name}",
        "G1",
        wrap=wrapped(_ignoring_quarantine(kind)),
    )


def _patched(name: str, breaks: str, expected: str, target: str, attribute: str, make: Any) -> Mutant:
    return Mutant(name, breaks, expected, patches=((target, attribute, make),))


GOVERNANCE = (
    *(_ignored(kind) for kind in (Search, Fetch, Scan, Count, Facets)),
    _patched(
        "a scope that never ends",
        "a cached scope outlives its version",
        "G1",
        f"{_SCOPES}:GovernedScope",
        "holds",
        lambda _: lambda _self, _found: True,
    ),
    _patched(
        "changes without a version",
        "a change of rights raises no version",
        "G1",
        "vectoracl.registry.database:Database",
        "change",
        _quiet,
    ),
    _patched(
        "rules of quarantine are not read",
        "a rule of quarantine has no effect",
        "G1",
        _READING,
        "rules_of",
        lambda _: lambda *_args: (),
    ),
    _patched(
        "a denial is overridden",
        "a permission wins over a denial",
        "G1",
        "vectoracl.registry.labels",
        "effective",
        lambda old: lambda chain, entries: [row for row in old(chain, entries) if row.allow],
    ),
    _patched(
        "no overlay",
        "a document that changed is not taken out of the filter",
        "G1",
        _DOCUMENTS,
        "enter",
        lambda _: lambda *_args: None,
    ),
    _patched(
        "generations left out of the filter",
        "a document that changed is in the filter of no one",
        "G2",
        f"{_SCOPES}:PartitionScope",
        "predicate",
        _without_generations,
    ),
    _patched("holds stop nothing", "a held document is deleted", "G3", _DOCUMENTS, "rows_by_name", _never_held),
    _patched("one matter frees", "the release of one matter ends all", "G3", _DOCUMENTS, "update", _last_matter),
    _patched(
        "expiry ends no scope",
        "a cached scope lasts beyond an expiry",
        "G4",
        _READING,
        "boundary",
        lambda _: lambda *_args: NEVER_EXPIRES,
    ),
    Mutant("rights after ranking", "the scope filters the k best", "G5", wrap=wrapped(RankThenFilter)),
    _patched(
        "levels without order",
        "each level permits every other",
        "G5",
        _READING,
        "_levels",
        lambda _: lambda levels, _operator, claim: levels if claim in levels else (),
    ),
    _patched("groups by words", "a group's name is read as several", "G5", _READING, "subjects_of", _by_words),
    _patched(
        "children see all",
        "a child reads every label of its parent",
        "G6",
        _READING,
        "foreign_labels",
        _for_all_children,
    ),
    _patched(
        "circles of tenants",
        "a tenant may be below itself",
        "G6",
        "vectoracl.registry.sql_registry:Registry",
        "_check_family",
        lambda _: lambda *_args: None,
    ),
    _patched(
        "a policy that fails permits",
        "a failure of the policy is taken for a permission",
        "G7",
        "vectoracl.engine.pipeline:Pipeline",
        "_failed",
        _permitting,
    ),
    _patched(
        "no cap", "rights are given beyond the cap", "G8", _DOCUMENTS, "check_room", lambda _: lambda *_args: None
    ),
    _patched(
        "labels beyond the cap stay",
        "documents beyond the cap are not hidden",
        "G8",
        _READING,
        "_partition",
        _not_withdrawn,
    ),
    Mutant("late labels win", "labels are written whatever number the chunks have", "G9", wrap=wrapped(LateLabels)),
    Mutant("no expiry with labels", "a change of labels leaves the expiry", "G9", wrap=wrapped(LabelsOnly)),
    Mutant("no labels", "labels are not written", "G9", wrap=wrapped(NoLabels)),
    _patched(
        "staleness bound ignored",
        "a source that was not read for long is still believed",
        "G10",
        _READING,
        "withdrawn",
        lambda _: lambda *_args: frozenset(),
    ),
    _patched(
        "an older record undoes a newer one",
        "records are in force as they arrive",
        "G10",
        "vectoracl.registry.sources",
        "apply",
        _as_they_arrive,
    ),
    _patched(
        "an older source undoes a newer one",
        "of several sources the oldest record is in force",
        "G10",
        "vectoracl.registry.sources:_Stored",
        "in_force",
        lambda _: (
            lambda self: min(((s, one[1]) for s, one in self.items()), key=lambda it: self[it[0]][0], default=None)
        ),
    ),
    _patched(
        "staleness ends no scope",
        "a cached scope lasts beyond the bound of a source",
        "G10",
        _READING,
        "boundary",
        _without_sources,
    ),
    _patched(
        "folders vouch for nothing",
        "the sources of the folders above are not asked",
        "G10",
        "vectoracl.registry.labels",
        "_store_vouchers",
        lambda _: lambda *_args: None,
    ),
    _patched(
        "marks are not looked at",
        "a governed store is opened by anyone",
        "G12",
        "vectoracl.client.connect:_Base",
        "_check_registry",
        lambda _: lambda *_args: None,
    ),
    Mutant("half of the labels", "labels reach small documents only", "G9", wrap=wrapped(FirstLabels)),
    _patched(
        "everyone governs",
        "a governor need not be named",
        "G11",
        "vectoracl.engine.governing",
        "refusals",
        lambda _: lambda *_args: (),
    ),
)
