"""Which generation of a document is published; reads that show one version of each. Flows; pure.

A replacement leaves marks on the points of the old and the new generation while it is under way (`compile.replace`).
Whoever meets a mark looks at the point that decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from qdrant_client import models

from vectoracl.adapter import Flow, together
from vectoracl.algebra import EVERY
from vectoracl.errors import StoreError
from vectoracl.records import docgen
from vectoracl_qdrant.compile import QdrantCompiler
from vectoracl_qdrant.compile_predicate import Compiled
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.decode import ADAPTER, Decoder, Point
from vectoracl_qdrant.pages import Pages
from vectoracl_qdrant.requests import Order, Scroll

ROUNDS = 6
AGAIN = 3
"""How often a short answer of a server is asked for before it is taken for what there is."""
_SIDE_BY_SIDE = 64
Ask = Callable[[Compiled], Flow[Sequence[Any]]]
Version = tuple[str, int]
"""A document and one of its generations."""


class Known(NamedTuple):
    """The generations of one document that are there, with the mark on each, and the published one."""

    seen: dict[int, str | None]
    published: int | None

    @property
    def quiet(self) -> bool:
        """Whether there is one generation and no mark: nothing to be decided."""
        return len(self.seen) < 2 and not any(self.seen.values())


class Versions:
    """Tells the versions of documents of one configured collection apart."""

    def __init__(self, config: QdrantConfig, compiled: QdrantCompiler, decode: Decoder, pages: Pages) -> None:
        self._config = config
        self._compile = compiled
        self._decode = decode
        self._pages = pages

    def steady(self, partition: str, ask: Ask) -> Flow[Sequence[Any]]:
        """Ask, and again without what is stale, until every document in the reply is of its published version.

        What was hidden is looked at once more behind the last answer: a replacement that was undecided when it was
        hidden may have been decided since, and its old version be gone. Then neither would be in the answer.
        """
        hidden: frozenset[Version] = frozenset()
        for _ in range(ROUNDS):
            without = self._compile.hidden(frozenset(docgen(*one) for one in hidden)) if hidden else EVERY
            points = yield from ask(without)
            stale = yield from self.stale(partition, points)
            if stale:
                hidden |= stale
                continue
            wrongly = (yield from self._published(partition, hidden)) if hidden else frozenset()
            if not wrongly:
                return points
            hidden -= wrongly
        raise restless()

    def _published(self, partition: str, hidden: frozenset[Version]) -> Flow[frozenset[Version]]:
        """Return those of *hidden* that are published now."""
        documents = sorted({document for document, _ in hidden})
        found: dict[str, dict[int, str | None]] = {}
        for start in range(0, len(documents), _SIDE_BY_SIDE):
            some = documents[start : start + _SIDE_BY_SIDE]
            found.update((yield from self._oldest_and_newest(partition, some)))
        resolved = yield from self.resolve(partition, found)
        return frozenset((name, versions.published) for name, versions in resolved.items()
                         if versions.published is not None) & hidden  # fmt: skip

    def _oldest_and_newest(self, partition: str, documents: Sequence[str]) -> Flow[dict[str, dict[int, str | None]]]:
        asked: list[Scroll] = []
        for document in documents:
            where = self._compile.rows(partition, self._compile.documents([document]))
            assert where is not None
            asked.extend(self._ends(partition, where))
        replies = yield from together(*asked)
        return {document: self._seen(replies[2 * place : 2 * place + 2]) for place, document in enumerate(documents)}

    def stale(self, partition: str, points: Iterable[Point]) -> Flow[frozenset[Version]]:
        """Return the versions among *points* that are not published; asks only where a replacement left marks."""
        found: dict[str, dict[int, str | None]] = {}
        for point in points:
            document, generation, pending = self.of(point)
            found.setdefault(document, {})[generation] = pending
        loud = {document: seen for document, seen in found.items() if not Known(seen, None).quiet}
        if not loud:
            return frozenset()
        resolved = yield from self.resolve(partition, loud)
        return frozenset(
            (document, generation)
            for document, versions in resolved.items()
            for generation in versions.seen
            if generation != versions.published
        )

    def resolve(self, partition: str, found: dict[str, dict[int, str | None]]) -> Flow[dict[str, Known]]:
        """Find out which generation of each document is published: the highest that is not undecided."""
        marks = {mark for seen in found.values() for mark in seen.values() if mark}
        decided: set[str] = set()
        if marks:
            compiled = self._compile
            where = compiled.rows(partition, compiled.ids(mark.partition(":")[2] for mark in marks))
            assert where is not None
            key = self._config.payload.committed
            points = yield from self._pages.all(Scroll(partition, where, self._config.page, (key,)))
            decided = {str(point.id) for point in points if (point.payload or {}).get(key) is True}
        return {document: Known(seen, _published(seen, decided)) for document, seen in found.items()}

    def of(self, point: Point) -> tuple[str, int, str | None]:
        """Return the document, the generation and the mark of *point*. Raises: StoreError where there is no tag."""
        keys, payload = self._config.payload, point.payload or {}
        try:
            return payload[keys.document], int(payload[keys.generation]), payload.get(keys.pending)
        except (KeyError, TypeError, ValueError):
            self._decode.tag(point)  # raises what fits
            raise

    def document(self, partition: str, document: str, *more: Scroll) -> Flow[tuple[Known, tuple[Any, ...]]]:
        """Look at one document: its oldest and its newest generation; *more* is asked at the same time."""
        where = self._compile.rows(partition, self._compile.documents([document]))
        assert where is not None
        replies = yield from together(*self._ends(partition, where), *more)
        seen = self._seen(replies[:2])
        resolved = yield from self.resolve(partition, {document: seen})
        return resolved[document], replies[2:]

    def _ends(self, partition: str, where: models.Filter) -> tuple[Scroll, Scroll]:
        key = self._config.payload.generation
        return (
            Scroll(partition, where, 1, self._compile.versions, order=Order(key)),
            Scroll(partition, where, 1, self._compile.versions, order=Order(key, descending=True)),
        )

    def _seen(self, replies: Iterable[Any]) -> dict[int, str | None]:
        seen: dict[int, str | None] = {}
        for reply in replies:
            for point in reply.points:
                _, generation, pending = self.of(point)
                seen[generation] = pending
        return seen

    def generations(self, partition: str, documents: Sequence[str]) -> Flow[dict[str, int]]:
        """Return the published generation of each document that was ever replaced; all others have 0."""
        compiled = self._compile
        where = compiled.rows(partition, compiled.documents(documents), compiled.generations(gte=1))
        assert where is not None
        page = yield from Scroll(partition, where, 1, compiled.versions)
        found: dict[str, dict[int, str | None]] = {}
        if page.points:
            for start in range(0, len(documents), _SIDE_BY_SIDE):
                some = documents[start : start + _SIDE_BY_SIDE]
                found.update((yield from self._oldest_and_newest(partition, some)))
        resolved = yield from self.resolve(partition, found)
        return {document: versions.published or 0 for document, versions in resolved.items()}


def restless() -> StoreError:
    """Return the error of a reader who was overtaken by one replacement after the other."""
    text = "A document was replaced again and again while it was read; ask again."
    return StoreError(text, code="replacing", adapter=ADAPTER, sent="no", retryable=True)


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
