"""Mutants of negations during concurrent writes: the negated part is evaluated first, the rest a moment later."""

from __future__ import annotations

from dataclasses import replace

from vectoracl.adapter_api.contract import Adapter, Capabilities, Flow
from vectoracl.adapter_api.operations import ChunkRef, Count, Delete, Facets, Position, Scan
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import ALWAYS, And, Not, Or, Predicate
from vectoracl.filters.semantics import compile_test, getter, tallied, values_of
from vectoracl.model.records import Facet, Hit
from vectoracl_conformance.context.corpus import FIELDS
from vectoracl_conformance.harness import Mutant
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper, Nap, wrapped

_MOMENT = 0.05


def negates(predicate: Predicate) -> bool:
    """Tell whether there is a negation in *predicate*."""
    match predicate:
        case Not():
            return True
        case And(operands) | Or(operands):
            return any(map(negates, operands))
    return False


def listed(inner: Adapter, partition: str) -> Flow[list[Hit]]:
    """List all rows of the partition."""
    hits: list[Hit] = []
    after: Position | None = None
    while True:
        rows = yield from inner.scan(Scan(partition, ALWAYS, ALWAYS, 500, after, frozenset({"metadata"})))
        hits += rows.hits
        if not rows.more:
            return hits
        last = rows.hits[-1]
        after = Position(last.document, last.tag.generation, last.id)


def apart(inner: Adapter, partition: str, scope: Predicate, where: Predicate) -> Flow[list[Hit]]:
    """Return what was not outside a moment ago."""
    tests = [compile_test(one) for one in (scope, where)]
    before = yield from listed(inner, partition)
    outside = {(hit.document, hit.id) for hit in before if not all(test(hit.tag, hit.metadata or {}) for test in tests)}
    yield from Nap(partition, _MOMENT)
    now = yield from listed(inner, partition)
    return [hit for hit in now if (hit.document, hit.id) not in outside]


class CountsApart(AdapterWrapper):
    """Counts by a negation over two moments."""

    def count(self, operation: Count) -> Flow[int]:
        """Count."""
        if not negates(operation.scope):
            return (yield from self.inner.count(operation))
        return len((yield from apart(self.inner, operation.partition, operation.scope, operation.where)))

    @property
    def capabilities(self) -> Capabilities:
        """Declare it."""
        can = self.inner.capabilities
        return replace(can, count="paged") if can.count == "none" else can


class FacetsApart(AdapterWrapper):
    """Counts by value by a negation over two moments."""

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Count by value."""
        if not negates(operation.scope) or operation.field.startswith("@"):
            return (yield from self.perform(operation))  # type: ignore[no-any-return]
        hits = yield from apart(self.inner, operation.partition, operation.scope, operation.where)
        kind, get = FieldType(FIELDS[operation.field]), getter(operation.field)
        return tallied((values_of(kind, get(hit.tag, hit.metadata or {})) for hit in hits), operation.most)

    @property
    def capabilities(self) -> Capabilities:
        """Declare it."""
        can = self.inner.capabilities
        return replace(can, facets="paged") if can.facets == "none" else can


class DeletesApart(AdapterWrapper):
    """Deletes by a negation over two moments."""

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Delete."""
        if operation.where is None or not negates(operation.scope):
            return (yield from self.inner.delete(operation))
        hits = yield from apart(self.inner, operation.partition, operation.scope, operation.where)
        refs = tuple(ChunkRef(hit.id, hit.document) for hit in hits)
        gone = 0
        for start in range(0, len(refs), 500):
            one = Delete(operation.partition, ALWAYS, refs=refs[start : start + 500])
            gone += (yield from self.inner.delete(one)) or 0
        return gone if self.inner.capabilities.delete_counts else None


class CountsApartLater(CountsApart):
    """The same, of a store that says that it shows writes later: that is not a reason to count what is outside."""

    @property
    def capabilities(self) -> Capabilities:
        """Declare it."""
        return replace(super().capabilities, visible="eventual")


class DeletesApartLater(DeletesApart):
    """The same, of a store that says that it shows writes later."""

    @property
    def capabilities(self) -> Capabilities:
        """Declare it."""
        return replace(super().capabilities, visible="eventual")


def _mutant(kind: type[AdapterWrapper], name: str, breaks: str) -> Mutant:
    return Mutant(name, breaks, "R16", wrapped(kind))


BESIDE = (
    _mutant(CountsApart, "negated counts of two moments", "what is outside is looked up before the rest is counted"),
    _mutant(FacetsApart, "negated facets of two moments", "what is outside is looked up before values are counted"),
    _mutant(DeletesApart, "negated deletes of two moments", "what is outside is looked up before the rest is deleted"),
    _mutant(CountsApartLater, "negated counts of two moments, shown later", "as above, and visible is eventual"),
    _mutant(DeletesApartLater, "negated deletes of two moments, shown later", "as above, and visible is eventual"),
)
