"""Reads that show one version of each document, and the lookup of the published version. Pure flows.

A document's points can belong to several versions while it is replaced: those of the published version and those of a
version that is being written or removed. Every point that takes part in a write carries a mark (`writes`), so a read
works in two steps:

1. Run the query. If no returned point has a mark, and there is one version per document, the answer is final. This is
   the common case and costs no further request.
2. Otherwise read the heads of the documents with marks (`heads`). Points of a version other than the published one are
   stale: exclude that version, and run the query again without it. Before an answer is returned, the heads of excluded
   versions are read once more: a version that was not published when it was excluded may have been published since, and
   the old one deleted; the answer would then lack both.

After `ROUNDS` rounds the read raises StoreError with the code "replacing".

Under a registry none of this is done: generations are written by tickets, without marks and heads, and the scope names
those that are read. What interrupted writes had left was settled before (`operator.QdrantOperator.settle`).

A document that was last replaced before heads existed has none. Its marks have the form "generation:id of the deciding
point", and its published version is the highest one that is not undecided.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from qdrant_client import models

from vectoracl.adapter_api.contract import Flow, together
from vectoracl.adapter_api.operations import Search
from vectoracl.errors import StoreError
from vectoracl.filters.boolean_compiler import ALL_ROWS
from vectoracl_qdrant.compile import QdrantCompiler
from vectoracl_qdrant.compile_predicate import Compiled, none
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.decode import ADAPTER, Decoder, Point
from vectoracl_qdrant.heads import Head, Heads
from vectoracl_qdrant.names import NO_VERSION, head_id, named
from vectoracl_qdrant.pages import Pages
from vectoracl_qdrant.requests import Order, Scroll

ROUNDS = 6
SHORT_ANSWER_TRIES = 3
"""How often a short answer of a server is asked for before it is taken for what there is."""
_CONCURRENT = 64
_HEADLESS_MARK = re.compile(r"\d+:")
Ask = Callable[[Compiled], Flow[Sequence[Any]]]
Version = tuple[str, int, str]
"""A document, and a generation and the name of a version of it."""
Stamp = tuple[str, float | None]
"""A point's id, and when it was written."""
VersionMarks = dict[tuple[int, str], str | None]
"""The existing versions of one document, with a mark of each."""


class DocumentState(NamedTuple):
    """The state of a document before a write: its head (real or derived), and the next generation."""

    head: Head
    next: int
    probe_replies: tuple[Any, ...]


class Versions:
    """Finds and distinguishes the versions of documents in one configured collection."""

    def __init__(
        self, config: QdrantConfig, compiled: QdrantCompiler, decode: Decoder, pages: Pages, *, governed: bool = False
    ) -> None:
        self.governed = governed
        self._config = config
        self._compile = compiled
        self._decode = decode
        self._pages = pages
        self.heads = Heads(config, compiled)

    def steady(self, partition: str, ask: Ask) -> Flow[Sequence[Any]]:
        """Return the points of *ask*, repeated without stale versions until every document is of its published version.

        The excluded versions are checked again after the last answer: one that was not published when it was excluded
        may have been published since, and the old one deleted. Then the answer would contain neither.

        Raises: StoreError with the code "replacing" after `ROUNDS` rounds.
        """
        hidden: frozenset[Version] = frozenset()
        for _ in range(ROUNDS):
            points = yield from ask(self._compile.hidden(hidden) if hidden else ALL_ROWS)
            stale = yield from self.stale(partition, points)
            if stale:
                hidden |= stale
                continue
            republished = (yield from self._published(partition, hidden)) if hidden else frozenset()
            if not republished:
                return points
            hidden -= republished
        raise too_many_conflicts()

    def missed(self, operation: Search, scope: Compiled, points: Sequence[Point]) -> Flow[bool]:
        """Return whether there is more in *scope* than *points*, the answer to *operation*, where they are too few.

        With groups they are too few documents, or too few of a document.
        """
        partition = operation.partition
        if operation.group_by is None:
            return len(points) < operation.k and (yield from self._more(partition, len(points), scope))
        numbers = Counter(self.of(point)[0] for point in points)
        if len(numbers) < operation.k:
            others = none(self._compile.documents(numbers))
            if (yield from self._more(partition, 0, scope, others)):
                return True
        few = {name: number for name, number in numbers.items() if number < operation.per_group}
        return bool(few) and (yield from self._more(partition, sum(few.values()), scope, self._compile.documents(few)))

    def _more(self, partition: str, number: int, *conditions: Compiled) -> Flow[bool]:
        """Return whether more than *number* points of published versions meet *conditions*."""

        def ask(visible: Compiled) -> Flow[Sequence[Any]]:
            where = self._compile.rows(partition, *conditions, visible)
            return [] if where is None else (yield from self._pages.keys(partition, where, number + 1))

        return len((yield from self.steady(partition, ask))) > number

    def listed(self, first: Scroll) -> Flow[list[models.Record]]:
        """Return all points of a listing; those of one document were there at one moment.

        A document may be deleted and written again between two pages of it, which begins at the same generation and the
        same ids. Then it has rows of several times of writing, as one has that was written bit by bit: of such ones the
        keys are read once more. Where nothing differs all of it was there in between; the others are asked for again.
        """
        settled: list[models.Record] = []
        request = first
        for _ in range(ROUNDS):
            page = yield from request
            if page.offset is None:
                return [*settled, *page.points]
            points = [*page.points, *(yield from self._pages.all(replace(request, offset=page.offset)))]
            several = self._several_times(points)
            now = (yield from self._stamps(request, several)) if several else {}
            moved = {name for name, stamps in several.items() if now.get(name) != stamps}
            settled.extend(point for point in points if self.of(point)[0] not in moved)
            if not moved:
                return settled
            request = self._of_documents(first, moved)
        raise too_many_conflicts()

    def _several_times(self, points: Iterable[Point]) -> dict[str, set[Stamp]]:
        """Return the stamps of the documents among *points* whose rows were not all written at one time."""
        stamps_by_document: dict[str, set[Stamp]] = {}
        for point in points:
            stamps_by_document.setdefault(self.of(point)[0], set()).add(self.stamp(point))
        return {name: stamps for name, stamps in stamps_by_document.items() if len({time for _, time in stamps}) > 1}

    def _stamps(self, asked: Scroll, documents: Iterable[str]) -> Flow[dict[str, set[Stamp]]]:
        keys = replace(self._of_documents(asked, documents), payload=self._compile.versions, vectors=False)
        stamps: dict[str, set[Stamp]] = {}
        for point in (yield from self._pages.all(keys)):
            stamps.setdefault(self.of(point)[0], set()).add(self.stamp(point))
        return stamps

    def _of_documents(self, first: Scroll, documents: Iterable[str]) -> Scroll:
        """Return *first* with the documents as an additional condition."""
        own = self._compile.documents(documents)
        assert not isinstance(own, bool)
        return replace(first, filter=models.Filter(must=[first.filter, own]))

    def stamp(self, point: Point) -> Stamp:
        """Return what no other point has, before or after it: its id, and when it was written."""
        return str(point.id), (point.payload or {}).get(self._config.payload.time)

    def _published(self, partition: str, hidden: frozenset[Version]) -> Flow[frozenset[Version]]:
        """Return those of *hidden* that are published now."""
        documents = sorted({document for document, _, _ in hidden})
        heads = yield from self._heads(partition, documents)
        marks = yield from self._ends(partition, [one for one in documents if one not in heads])
        heads.update((yield from self._headless(partition, marks)))
        return frozenset(one for one in hidden if one[0] in heads and heads[one[0]].shows(one[1], one[2]))

    def stale(self, partition: str, points: Iterable[Point]) -> Flow[frozenset[Version]]:
        """Return the versions among *points* that are not published; asks only where a write left marks."""
        if self.governed:
            return frozenset()
        marks: dict[str, VersionMarks] = {}
        for point in points:
            document, generation, version, mark = self.of(point)
            versions = marks.setdefault(document, {})
            versions[generation, version] = versions.get((generation, version)) or mark
        unsettled = {document: versions for document, versions in marks.items() if not _is_settled(versions)}
        if not unsettled:
            return frozenset()
        heads = yield from self._heads(partition, unsettled)
        heads.update(
            (yield from self._headless(partition, {one: unsettled[one] for one in unsettled if one not in heads}))
        )
        return frozenset(
            (document, generation, version)
            for document, versions in unsettled.items()
            for generation, version in versions
            if document not in heads or not heads[document].shows(generation, version)
        )

    def of(self, point: Point) -> tuple[str, int, str, str | None]:
        """Return the document, generation, version and mark of *point*. Raises: StoreError where there is no tag."""
        keys, payload = self._config.payload, point.payload or {}
        try:
            return (
                payload[keys.document],
                int(payload[keys.generation]),
                str(payload.get(keys.version, NO_VERSION)),
                payload.get(keys.pending),
            )
        except (KeyError, TypeError, ValueError):
            self._decode.tag(point)  # raises what fits
            raise

    # Documents with a head

    def _heads(self, partition: str, documents: Iterable[str]) -> Flow[dict[str, Head]]:
        """Return the heads of those of *documents* that have one."""
        names = {head_id(partition, one): one for one in documents}
        if not names:
            return {}
        points = yield from self._pages.all(self.heads.read(partition, names.values()))
        return {names[str(point.id)]: self.heads.decode(point) for point in points}

    def head(self, partition: str, document: str) -> Flow[Head]:
        """Return the head of *document*, which has one unless its tenant was removed in the meantime."""
        heads = yield from self._heads(partition, [document])
        return heads.get(document, Head())

    def look(self, partition: str, document: str, *more: Scroll) -> Flow[DocumentState]:
        """Look at one document before it is replaced; *more* is asked at the same time."""
        where = self._compile.rows(partition, self._compile.documents([document]))
        assert where is not None
        replies = yield from together(self.heads.read(partition, [document]), *self._both_ends(where, partition), *more)
        marks = self._seen(replies[1:3])
        if replies[0].points:
            head = self.heads.decode(replies[0].points[0])
            if head.generation >= 0:
                return DocumentState(head, head.generation + 1, replies[3:])
        else:
            head = (yield from self._headless(partition, {document: marks} if marks else {})).get(document, Head())
        return DocumentState(head, 1 + max((head.generation, *(generation for generation, _ in marks))), replies[3:])

    def current(self, partition: str, documents: Sequence[str]) -> Flow[dict[str, Head]]:
        """Return the real or derived head of each of *documents*; for most it is generation 0."""
        compiled = self._compile
        where = compiled.rows(partition, compiled.documents(documents), compiled.versioned())
        assert where is not None
        first = self.heads.read(partition, documents)
        page, later = yield from together(first, Scroll(partition, where, 1, compiled.versions))
        if page.offset is None:
            names = {head_id(partition, one): one for one in documents}
            heads = {names[str(point.id)]: self.heads.decode(point) for point in page.points}
        else:
            heads = yield from self._heads(partition, documents)
        headless = [one for one in documents if one not in heads]
        if later.points and headless and heads:
            where = compiled.rows(partition, compiled.documents(headless), compiled.versioned())
            assert where is not None
            later = yield from Scroll(partition, where, 1, compiled.versions)
        if later.points and headless:
            heads.update((yield from self._headless(partition, (yield from self._ends(partition, headless)))))
        return {one: heads.get(one, Head(0)) for one in documents}

    # Documents without

    def _headless(self, partition: str, found: Mapping[str, VersionMarks]) -> Flow[dict[str, Head]]:
        """Return derived heads for documents without one, from their versions in *found*."""
        marks = {mark for entries in found.values() for mark in entries.values() if mark and _HEADLESS_MARK.match(mark)}
        decided: set[str] = set()
        if marks:
            compiled = self._compile
            where = compiled.rows(partition, compiled.ids(mark.partition(":")[2] for mark in marks))
            assert where is not None
            key = self._config.payload.committed
            points = yield from self._pages.all(Scroll(partition, where, self._config.page, (key,)))
            decided = {str(point.id) for point in points if (point.payload or {}).get(key) is True}
        published = {document: _published(entries, decided) for document, entries in found.items()}
        return {document: Head(*place) for document, place in published.items() if place is not None}

    def _ends(self, partition: str, documents: Sequence[str]) -> Flow[dict[str, VersionMarks]]:
        """Return the oldest and the newest version of each existing document of *documents*."""
        ends: dict[str, VersionMarks] = {}
        for start in range(0, len(documents), _CONCURRENT):
            some = documents[start : start + _CONCURRENT]
            requests: list[Scroll] = []
            for document in some:
                where = self._compile.rows(partition, self._compile.documents([document]))
                assert where is not None
                requests.extend(self._both_ends(where, partition))
            replies = yield from together(*requests)
            for place, document in enumerate(some):
                marks = self._seen(replies[2 * place : 2 * place + 2])
                if marks:
                    ends[document] = marks
        return ends

    def _both_ends(self, where: models.Filter, partition: str) -> tuple[Scroll, Scroll]:
        key = self._config.payload.generation
        return (
            Scroll(partition, where, 1, self._compile.versions, order=Order(key)),
            Scroll(partition, where, 1, self._compile.versions, order=Order(key, descending=True)),
        )

    def _seen(self, replies: Iterable[Any]) -> VersionMarks:
        marks: VersionMarks = {}
        for reply in replies:
            for point in reply.points:
                _, generation, version, mark = self.of(point)
                marks[generation, version] = mark
        return marks


def too_many_conflicts() -> StoreError:
    """Return the error of a read that was overtaken by one replacement after another."""
    text = "A document was replaced repeatedly while it was read; try again."
    return StoreError(text, code="replacing", adapter=ADAPTER, sent="no", retryable=True)


def _is_settled(seen: VersionMarks) -> bool:
    """Return whether there is one version and no mark. Unnamed versions are distinguished by generation."""
    if any(seen.values()):
        return False
    if len(seen) < 2:
        return True
    (generation, version), *others = seen
    return all(Head(generation, version).shows(*one) for one in others)


def _published(seen: VersionMarks, decided: set[str]) -> tuple[int, str] | None:
    """Return the published version without a head: the highest that is neither undecided nor unannounced."""
    announced: dict[int, bool] = {}
    for mark in seen.values():
        if mark and _HEADLESS_MARK.match(mark):
            number, _, lead = mark.partition(":")
            announced[int(number)] = announced.get(int(number), False) or lead in decided
    candidates = {generation for generation, _ in seen if announced.get(generation, True)}
    candidates |= {number for number, decision in announced.items() if decision}
    if not candidates:
        return None
    highest = max(candidates)
    names = [version for generation, version in seen if generation == highest and named(version)]
    return highest, max(names, default=NO_VERSION)
