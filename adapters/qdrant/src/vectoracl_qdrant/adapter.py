"""The Qdrant adapter: each operation as a flow of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import models

from vectoracl.adapter_api.contract import Capabilities, Flow
from vectoracl.adapter_api.operations import (
    Count,
    Delete,
    Facets,
    Fetch,
    Found,
    Relabel,
    Replace,
    Rows,
    Scan,
    Search,
    Upsert,
)
from vectoracl.adapter_api.posture import Posture
from vectoracl.errors import UnsupportedPredicateError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.semantics import tallied
from vectoracl.model.queries import HybridQuery, Lexical, ResolvedQuery, VectorQuery
from vectoracl.model.records import Facet
from vectoracl_qdrant import posture as postures
from vectoracl_qdrant.capabilities import capabilities
from vectoracl_qdrant.compile import QdrantCompiler
from vectoracl_qdrant.compile_predicate import Compiled
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.decode import Decoder
from vectoracl_qdrant.lexical import WordSearch
from vectoracl_qdrant.pages import Pages
from vectoracl_qdrant.requests import Tenants, Write
from vectoracl_qdrant.schema import query_limit
from vectoracl_qdrant.versions import ROUNDS, SHORT_ANSWER_TRIES, Versions, too_many_conflicts
from vectoracl_qdrant.writes import Writer

_SHORT = "the vector index returned fewer hits than the scope has"


class QdrantAdapter:
    """The Qdrant adapter. Every request has the tenant in `must`; a read shows one version of each document.

    With *governed* a registry says which generation that is, in the scope; see `Versions`.
    """

    def __init__(self, config: QdrantConfig, fields: Mapping[str, FieldType], *, governed: bool = False) -> None:
        self.config = config
        self._fields = fields
        self._capabilities = capabilities(config)
        self._compile = QdrantCompiler(config, fields)
        self._decode = Decoder(config, fields)
        self._pages = Pages(config, self._compile)
        self._versions = Versions(config, self._compile, self._decode, self._pages, governed=governed)
        self._writer = Writer(config, self._compile, self._versions)
        self._by_words = WordSearch(config, self._compile, self._decode, self._pages, self._versions)

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of this adapter."""
        return self._capabilities

    # Reads

    def search(self, operation: Search) -> Flow[Found]:
        """Rank inside the scope; on a server, if there are fewer hits than requested, check whether there are more."""
        query = operation.query
        if not isinstance(query, VectorQuery):
            return (yield from self._worded(operation, query))
        compiled = self._compile
        scope = compiled.scope(operation.scope, operation.where)

        def ask(more: Compiled) -> Flow[Sequence[Any]]:
            where = compiled.rows(operation.partition, scope, more)
            if where is None:
                return []
            return (yield from compiled.search(operation, query, where))

        shortfall = None
        for _ in range(SHORT_ANSWER_TRIES):
            points = yield from self._versions.steady(operation.partition, ask)
            if self.config.local:
                break
            # A server ranks first and then reads the payload: points that are replaced in between are missing in its
            # answer. So a short answer is requested again before the graph is considered incomplete.
            shortfall = _SHORT if (yield from self._versions.missed(operation, scope, points)) else None
            if shortfall is None:
                break
        hits = self._decode.ranked(points)
        if operation.min_score is not None:
            hits = [hit for hit in hits if hit.score >= operation.min_score]
        return Found(hits, shortfall is None, shortfall)

    def _worded(self, operation: Search, query: Lexical | HybridQuery) -> Flow[Found]:
        if self.config.words is False:
            raise UnsupportedPredicateError("This store does not index words (words = false).", field="query")
        return (yield from self._by_words.search(operation, query))

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Return chunks by id; the ids are conditions in addition to the tenant and the scope."""
        compiled = self._compile
        conditions = (compiled.scope(operation.scope), compiled.refs(operation.refs))

        def ask(more: Compiled) -> Flow[Sequence[Any]]:
            where = compiled.rows(operation.partition, *conditions, more)
            if where is None:
                return []
            return (yield from self._versions.listed(compiled.listing(operation.partition, where, operation.include)))

        return Rows(self._decode.listed((yield from self._versions.steady(operation.partition, ask))))

    def count(self, operation: Count) -> Flow[int]:
        """Count exactly, by paging through the keys: strict mode refuses exact counts, and others are estimates."""
        scope = self._compile.scope(operation.scope, operation.where)
        return len((yield from self._keys(operation.partition, scope)))

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Count by value exactly, by paging through the values of all points that have one (see `count`)."""
        compiled, name = self._compile, operation.field
        conditions = (compiled.scope(operation.scope, operation.where), compiled.has(name))
        points = yield from self._keys(operation.partition, *conditions, more=(compiled.path(name),))
        return tallied((self._decode.values(name, point) for point in points), operation.most)

    def _keys(self, partition: str, *conditions: Compiled, more: tuple[str, ...] = ()) -> Flow[Sequence[Any]]:
        """Return the keys of all visible points that meet *conditions*, with the payload *more*."""

        def ask(visible: Compiled) -> Flow[Sequence[Any]]:
            where = self._compile.rows(partition, *conditions, visible)
            return (
                [] if where is None else (yield from self._versions.listed(self._pages.listing(partition, where, more)))
            )

        return (yield from self._versions.steady(partition, ask))

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Return one page in key order: first the keys that come next, then their rows (see `pages`)."""
        compiled = self._compile
        scope = compiled.scope(operation.scope, operation.where)

        def ask(more: Compiled) -> Flow[Sequence[Any]]:
            if compiled.rows(operation.partition, scope, more) is None:
                return []
            return (
                yield from self._pages.next(operation.partition, (scope, more), operation.after, operation.size + 1)
            )

        for _ in range(ROUNDS):
            keys = yield from self._versions.steady(operation.partition, ask)
            id_condition = compiled.ids(str(point.id) for point in keys[: operation.size])
            where = compiled.rows(operation.partition, scope, id_condition)
            if where is None:
                return Rows([])
            rows = yield from self._pages.all(compiled.listing(operation.partition, where, operation.include))
            stale = yield from self._versions.stale(operation.partition, rows)
            # A row that was read twice existed in between: a rewritten row would have another stamp.
            same = set(map(self._versions.stamp, rows)) == set(map(self._versions.stamp, keys[: operation.size]))
            if same and not stale:
                return Rows(self._decode.listed(rows), more=len(keys) > operation.size)
            # Between the keys and their rows a document was replaced or deleted.
        raise too_many_conflicts()

    # Writes

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write all in one request, into the published version of each document; see `writes.Writer`."""
        return (yield from self._writer.upsert(operation))

    def replace(self, operation: Replace) -> Flow[int]:
        """Write a new version of one document; of several concurrent calls, one succeeds. See `writes.Writer`."""
        return (yield from self._writer.replace(operation))

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Count by the filter, then delete by it."""
        compiled, partition = self._compile, operation.partition
        conditions = (compiled.scope(operation.scope), compiled.selected(operation))
        number = len((yield from self._keys(partition, *conditions)))
        where = compiled.rows(partition, *conditions)
        if number and where is not None:
            yield from compiled.delete(partition, where)
        return number

    def relabel(self, operation: Relabel) -> Flow[int | None]:
        """Write the labels of documents into their points, where the rev is lower; the server does not count them."""
        steps = tuple(self._compile.relabel(operation.partition, one) for one in operation.changes)
        if steps:
            yield from Write(operation.partition, steps)
        return None

    # What touches no rows, and what touches all

    def posture(self) -> Flow[Posture]:
        """Read the collection's configuration, and whether there is a point without a tenant."""
        return (yield from postures.look(self.config, self._fields))

    def unscoped(self, query: ResolvedQuery, k: int) -> Flow[Found]:
        """Search all tenants, one after the other: by design there is no graph over all of them."""
        if not isinstance(query, VectorQuery):
            raise UnsupportedPredicateError("Only vector queries can search all tenants.", field="query")
        tenants = yield from Tenants(query_limit(self.config))
        points: list[models.ScoredPoint] = []
        for tenant in tenants:
            points.extend((yield from self._compile.unscoped(tenant, query, k)))
        # While a tenant moves between shards its points are in two of them.
        once = {str(point.id): point for point in points}
        return Found(self._decode.ranked(once.values())[:k])
