"""The flows of the Qdrant adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from qdrant_client import models

from vectoracl.adapter import Capabilities, Flow, together
from vectoracl.errors import DeniedError, StoreError, UnsupportedPredicateError
from vectoracl.fields import FieldType
from vectoracl.findings import Posture
from vectoracl.operations import Count, Delete, Fetch, Found, Replace, Rows, Scan, Search, Upsert
from vectoracl.prepare import check_tagged
from vectoracl.queries import ResolvedQuery, VectorQuery
from vectoracl.records import Record, docgen
from vectoracl_qdrant import posture as postures
from vectoracl_qdrant.capabilities import capabilities
from vectoracl_qdrant.compile import NO_VERSION, QdrantCompiler
from vectoracl_qdrant.compile_predicate import EVERY, NONE, Compiled, none
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.decode import ADAPTER, Decoder, Point
from vectoracl_qdrant.pages import Pages
from vectoracl_qdrant.requests import Order, Scroll, Tenants
from vectoracl_qdrant.schema import query_limit

_ROUNDS = 6
_SIDE_BY_SIDE = 64
_SHORT = "the vector index gave fewer hits than the scope holds"
_Ask = Callable[[Compiled], Flow[Sequence[Any]]]


class _Versions(NamedTuple):
    """The generations of one document, with what is pending on each; `stale` are those that readers must not see."""

    seen: dict[int, str | None]
    published: int | None

    @property
    def quiet(self) -> bool:
        return len(self.seen) < 2 and not any(self.seen.values())


class QdrantAdapter:
    """Every request carries the tenant in `must`; a document that is being replaced is read in one version."""

    def __init__(self, config: QdrantConfig, fields: Mapping[str, FieldType]) -> None:
        self.config = config
        self._fields = fields
        self._capabilities = capabilities(config)
        self._compile = QdrantCompiler(config, fields)
        self._decode = Decoder(config, fields)
        self._pages = Pages(config, self._compile)

    @property
    def capabilities(self) -> Capabilities:
        """What this adapter can do."""
        return self._capabilities

    # Reads

    def search(self, operation: Search) -> Flow[Found]:
        """Rank inside the scope; on a server, fewer hits than asked for are compared with what there is."""
        query = _vector(operation.query)
        compiled = self._compile
        scope = compiled.scope(operation.scope, operation.where)

        def ask(more: Compiled) -> Flow[Sequence[Any]]:
            where = compiled.rows(operation.partition, scope, more)
            if where is None:
                return []
            return (yield from compiled.search(operation, query, where))

        points = yield from self._steady(operation.partition, ask)
        shortfall = None
        if not self.config.local and operation.group_by is None and len(points) < operation.k:
            where = compiled.rows(operation.partition, scope)
            visible = [] if where is None else (yield from self._pages.keys(operation.partition, where, operation.k))
            shortfall = _SHORT if len(visible) > len(points) else None
        hits = self._decode.ranked(points)
        if operation.min_score is not None:
            hits = [hit for hit in hits if hit.score >= operation.min_score]
        return Found(hits, shortfall is None, shortfall)

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Return chunks by id, which are conditions beside the tenant and the scope."""
        compiled = self._compile
        conditions = (compiled.scope(operation.scope), compiled.refs(operation.refs))

        def ask(more: Compiled) -> Flow[Sequence[Any]]:
            where = compiled.rows(operation.partition, *conditions, more)
            if where is None:
                return []
            return (yield from self._pages.all(compiled.listing(operation.partition, where, operation.include)))

        return Rows(self._decode.listed((yield from self._steady(operation.partition, ask))))

    def count(self, operation: Count) -> Flow[int]:
        """Count exactly, by paging through the keys: strict mode refuses exact counts, and others are estimates."""
        scope = self._compile.scope(operation.scope, operation.where)
        return len((yield from self._keys(operation.partition, scope)))

    def _keys(self, partition: str, *conditions: Compiled) -> Flow[Sequence[Any]]:
        """Return the keys of all visible points that meet *conditions*."""

        def ask(more: Compiled) -> Flow[Sequence[Any]]:
            where = self._compile.rows(partition, *conditions, more)
            return [] if where is None else (yield from self._pages.keys(partition, where))

        return (yield from self._steady(partition, ask))

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

        for _ in range(_ROUNDS):
            keys = yield from self._steady(operation.partition, ask)
            wanted = compiled.ids(str(point.id) for point in keys[: operation.size])
            where = compiled.rows(operation.partition, scope, wanted)
            if where is None:
                return Rows([])
            rows = yield from self._pages.all(compiled.listing(operation.partition, where, operation.include))
            if len(rows) == len(keys[: operation.size]) and not (yield from self._stale(operation.partition, rows)):
                return Rows(self._decode.listed(rows), more=len(keys) > operation.size)
            # Between the keys and their rows a document was replaced or deleted.
        raise _restless()

    # Versions of documents

    def _steady(self, partition: str, ask: _Ask) -> Flow[Sequence[Any]]:
        """Ask, and again without what is stale, until every document in the reply is of its published version."""
        hidden: frozenset[str] = frozenset()
        for _ in range(_ROUNDS):
            points = yield from ask(self._compile.hidden(hidden) if hidden else EVERY)
            stale = yield from self._stale(partition, points)
            if not stale:
                return points
            hidden |= stale
        raise _restless()

    def _stale(self, partition: str, points: Iterable[Point]) -> Flow[frozenset[str]]:
        """Return the versions among *points* that are not published; asks only where a replacement left marks."""
        found: dict[str, dict[int, str | None]] = {}
        for point in points:
            document, generation, pending = self._version(point)
            found.setdefault(document, {})[generation] = pending
        loud = {document: seen for document, seen in found.items() if not _Versions(seen, None).quiet}
        if not loud:
            return frozenset()
        resolved = yield from self._resolve(partition, loud)
        return frozenset(
            docgen(document, generation)
            for document, versions in resolved.items()
            for generation in versions.seen
            if generation != versions.published
        )

    def _resolve(self, partition: str, found: dict[str, dict[int, str | None]]) -> Flow[dict[str, _Versions]]:
        """Find out which generation of each document is published: the highest that is not undecided."""
        marks = {mark for seen in found.values() for mark in seen.values() if mark}
        decided: set[str] = set()
        if marks:
            compiled = self._compile
            where = compiled.rows(partition, compiled.ids(mark.partition(":")[2] for mark in marks))
            assert where is not None
            key = self.config.payload.committed
            points = yield from self._pages.all(Scroll(partition, where, self.config.page, (key,)))
            decided = {str(point.id) for point in points if (point.payload or {}).get(key) is True}
        return {document: _Versions(seen, _published(seen, decided)) for document, seen in found.items()}

    def _version(self, point: Point) -> tuple[str, int, str | None]:
        keys, payload = self.config.payload, point.payload or {}
        try:
            return payload[keys.document], int(payload[keys.generation]), payload.get(keys.pending)
        except (KeyError, TypeError, ValueError):
            self._decode.tag(point)  # raises what fits
            raise

    def _document(self, partition: str, document: str, *more: Scroll) -> Flow[tuple[_Versions, tuple[Any, ...]]]:
        """Look at one document: its oldest and its newest generation; *more* is asked at the same time."""
        where = self._compile.rows(partition, self._compile.documents([document]))
        assert where is not None
        replies = yield from together(*self._ends(partition, where), *more)
        seen = self._seen(replies[:2])
        resolved = yield from self._resolve(partition, {document: seen})
        return resolved[document], replies[2:]

    def _ends(self, partition: str, where: models.Filter) -> tuple[Scroll, Scroll]:
        key = self.config.payload.generation
        return (
            Scroll(partition, where, 1, self._compile.versions, order=Order(key)),
            Scroll(partition, where, 1, self._compile.versions, order=Order(key, descending=True)),
        )

    def _seen(self, replies: Iterable[Any]) -> dict[int, str | None]:
        seen: dict[int, str | None] = {}
        for reply in replies:
            for point in reply.points:
                _, generation, pending = self._version(point)
                seen[generation] = pending
        return seen

    def _generations(self, partition: str, documents: Sequence[str]) -> Flow[dict[str, int]]:
        """Return the published generation of each document that was ever replaced; all others have 0."""
        compiled = self._compile
        where = compiled.rows(partition, compiled.documents(documents), compiled.generations(gte=1))
        assert where is not None
        page = yield from Scroll(partition, where, 1, compiled.versions)
        found: dict[str, dict[int, str | None]] = {}
        if page.points:
            for start in range(0, len(documents), _SIDE_BY_SIDE):
                some = documents[start : start + _SIDE_BY_SIDE]
                asked: list[Scroll] = []
                for document in some:
                    where = compiled.rows(partition, compiled.documents([document]))
                    assert where is not None
                    asked.extend(self._ends(partition, where))
                replies = yield from together(*asked)
                for place, document in enumerate(some):
                    found[document] = self._seen(replies[2 * place : 2 * place + 2])
        resolved = yield from self._resolve(partition, found)
        return {document: versions.published or 0 for document, versions in resolved.items()}

    # Writes

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write all in one request. Existing points outside of the scope are looked for first, and never touched."""
        check_tagged(operation.records, operation.partition)
        if not operation.records:
            return 0
        compiled, partition = self._compile, operation.partition
        compiled.check_size(operation.records)
        records = list(operation.records)
        if not operation.verbatim:
            documents = sorted({record.tag.document for record in records})
            generations = yield from self._generations(partition, documents)
            records = [
                record._replace(tag=record.tag._replace(generation=generations.get(record.tag.document, 0)))
                for record in records
            ]
        points = compiled.points(records, NO_VERSION)
        scope = compiled.scope(operation.scope)
        ids = compiled.ids(str(point.id) for point in points)
        if (yield from self._outside(partition, scope, ids)):
            raise _denied("upsert")
        yield from compiled.upsert(partition, points, scope)
        if (yield from self._outside(partition, scope, ids)):
            raise StoreError(
                "Another writer took a chunk out of the handle's scope meanwhile; it was left as it is.",
                code="conflict",
                adapter=ADAPTER,
            )
        return len(records)

    def _outside(self, partition: str, scope: Compiled, *conditions: Compiled) -> Flow[bool]:
        """Tell whether a point that meets *conditions* is outside of *scope*."""
        where = self._compile.rows(partition, *conditions, none(scope))
        if where is None:
            return False
        page = yield from Scroll(partition, where, 1, self._compile.versions)
        return bool(page.points)

    def replace(self, operation: Replace) -> Flow[int]:
        """Make a new generation of one document; readers see the old one or the new one.

        A replacement that met another one of the same document gives way to the newer, or goes again if it cannot
        be told which is.
        """
        check_tagged(operation.records, operation.partition)
        compiled, partition, document = self._compile, operation.partition, operation.document
        compiled.check_size(operation.records)
        scope = compiled.scope(operation.scope)
        version = compiled.version_of(operation.records)
        step = 1
        for _ in range(_ROUNDS):
            outside = compiled.rows(partition, compiled.documents([document]), none(scope))
            probe = () if outside is None else (Scroll(partition, outside, 1, compiled.versions),)
            versions, probed = yield from self._document(partition, document, *probe)
            if any(page.points for page in probed):
                raise _denied("replace")
            if not operation.records:
                where = compiled.rows(partition, compiled.documents([document]))
                assert where is not None
                yield from compiled.delete(partition, where)
                return 0
            generation = max(versions.seen, default=-1) + step
            records = [record._replace(tag=record.tag._replace(generation=generation)) for record in operation.records]
            yield from compiled.replace(partition, document, records, version, self._garbage(versions))
            if (yield from self._alone(partition, document, records, version)):
                return len(records)
            step = 2 + int(version, 16) % 7
        raise StoreError(
            "Others replace the same document at the same time; replace it again.", code="conflict", adapter=ADAPTER
        )

    def _garbage(self, versions: _Versions) -> Compiled:
        """Return the condition of what an interrupted replacement left of a document."""
        if versions.quiet:
            return NONE
        if versions.published is None:
            return EVERY
        return none(self._compile.generations(gte=versions.published, lte=versions.published))

    def _alone(self, partition: str, document: str, records: Sequence[Record], version: str) -> Flow[bool]:
        """Settle with another replacement of *document*; False where both took the same generation."""
        compiled = self._compile
        mine = records[0].tag.generation
        name = compiled.documents([document])
        where = compiled.rows(partition, name, compiled.generations(gte=mine), compiled.other_versions(version))
        assert where is not None
        page = yield from Scroll(partition, where, 1, compiled.versions, order=Order(self.config.payload.generation))
        if not page.points:
            return True
        _, other, pending = self._version(page.points[0])
        if other == mine:
            return False
        resolved = yield from self._resolve(partition, {document: {mine: None, other: pending}})
        if resolved[document].published == other:
            gone = compiled.rows(partition, name, compiled.generations(lte=mine))
            assert gone is not None
            yield from compiled.delete(partition, gone)
        return True

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Count by the filter, then delete by it."""
        compiled, partition = self._compile, operation.partition
        conditions = (compiled.scope(operation.scope), compiled.selected(operation))
        number = len((yield from self._keys(partition, *conditions)))
        where = compiled.rows(partition, *conditions)
        if number and where is not None:
            yield from compiled.delete(partition, where)
        return number

    # What touches no rows, and what touches all

    def posture(self) -> Flow[Posture]:
        """Read the collection's configuration, and whether there is a point without a tenant."""
        return (yield from postures.look(self.config, self._fields))

    def unscoped(self, query: ResolvedQuery, k: int) -> Flow[Found]:
        """Rank over all tenants, one after the other: there is no graph over all of them, by design."""
        wanted = _vector(query)
        tenants = yield from Tenants(query_limit(self.config))
        points: list[models.ScoredPoint] = []
        for tenant in tenants:
            points.extend((yield from self._compile.unscoped(tenant, wanted, k)))
        return Found(self._decode.ranked(points)[:k])


def _vector(query: ResolvedQuery) -> VectorQuery:
    if not isinstance(query, VectorQuery):
        raise UnsupportedPredicateError("The Qdrant adapter answers vector queries.", field="query")
    return query


def _restless() -> StoreError:
    text = "A document was replaced again and again while it was read; ask again."
    return StoreError(text, code="replacing", adapter=ADAPTER, sent="no", retryable=True)


def _denied(action: str) -> DeniedError:
    return DeniedError("The write touches a chunk outside of what this handle may write.", action=action)


def _published(seen: Mapping[int, str | None], decided: set[str]) -> int | None:
    """Return the published generation: the highest that is neither undecided nor unannounced.

    A mark is "generation:id of the deciding point".
    """
    announced: dict[int, bool] = {}
    for mark in seen.values():
        if mark:
            number, _, lead = mark.partition(":")
            announced[int(number)] = announced.get(int(number), False) or lead in decided
    candidates = [one for one in seen if announced.get(one, True)] + [one for one, done in announced.items() if done]
    return max(candidates, default=None)
