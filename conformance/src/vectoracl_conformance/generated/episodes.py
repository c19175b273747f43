"""Episodes of writes and reads: the same questions by several principals, before and after each write.

They show what single writes do not: answers that were kept, rows of versions before, pages that continue inside a
document that was replaced, and scopes that are forgotten after many versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from vectoracl.filters.predicate import ALWAYS, Not, Predicate
from vectoracl.filters.semantics import compile_test
from vectoracl.model.actions import ALL_ACTIONS
from vectoracl.model.principal import Principal
from vectoracl.model.queries import Lexical
from vectoracl.model.records import Chunk
from vectoracl_conformance.generated.calls import Call
from vectoracl_conformance.generated.covering import Mode, Planned
from vectoracl_conformance.generated.filters import WRITER, Rows
from vectoracl_conformance.generated.scopes import Ground, declared, leaf_of, principal_of
from vectoracl_conformance.generated.values import Draw

_KINDS = (
    "Eq keyword", "Eq number", "Eq boolean", "In keyword 3", "In number", "Range number", "Range datetime",
    "ContainsAny keyword", "ContainsAny number", "StartsWith", "Missing", "@document", "@chunk In", "@position",
)  # fmt: skip
_SHAPES = ("leaf", "Not", "Or", "leaf", "And")
_ALL = frozenset({"text", "metadata", "vector"})
_VERSIONS = (7, 1, 2)
"""How often the document is replaced, by the number of the episode."""
_ROWS = 14
_MORE = 95


class Episode:
    """The calls of one episode in a tenant that nothing else is written to."""

    def __init__(self, ground: Ground, tenant: str, templates: Sequence[Chunk], number: int) -> None:
        self.ground = ground
        self.tenant = tenant
        self.number = number
        self.draw = Draw(ground.world.seed, f"episode-{number}")
        self.templates = templates
        self.mode: Mode = "async" if number % 2 else "sync"
        word = self.draw.word(3, 4)
        self.document = self.draw.py.choice((word, f"{word}'s", f"{word.capitalize()} 2", f"{word}.{word}"))
        self.made = 0
        self.size = min(_ROWS, ground.can.max_batch)
        self.rows: dict[tuple[str, str], Chunk] = {}
        self.clerk = Principal(WRITER, tenant, kind="service", authenticated_by="mtls:ingest")

    def _fresh(self, count: int, document: str = "") -> list[Chunk]:
        chunks = []
        for one in self.draw.some(self.templates, count):
            self.made += 1
            name = f"{self.draw.word(2, 3)}{self.made}"
            chunks.append(replace(one, id=name, document=document or one.document))
        return chunks

    def _keep(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        self.rows |= {(one.document, one.id): one for one in chunks}
        return list(chunks)

    def _own(self) -> list[Chunk]:
        return [one for one in self.rows.values() if one.document == self.document]

    def _filter(self, part: str) -> Predicate:
        """Return a filter that some rows of the document match and some do not, if one is drawn soon."""
        kinds = declared(_KINDS, self.ground.can)
        best: Predicate = ALWAYS
        for attempt in range(6):
            rows = Rows(
                self.tenant, self._own(), self.ground.world.roles, None, f"episode/{self.number}/{part}/{attempt}"
            )
            kind = self.draw.py.choice([one for one in kinds if not leaf_of(one).policy])
            made = self.ground.filter(self.draw.py.choice(_SHAPES), kind, rows, self.draw, kinds)
            if not self.ground.supports(made):
                continue
            share = rows.mask(made).mean() if rows.chunks else 0.5
            best = made
            if 0.2 < share < 0.8:
                break
        return best

    def _principal(self, name: str) -> tuple[Principal, Predicate]:
        """Return a principal that may do everything with a part of the rows, and what it may see."""
        who = principal_of(self.ground.world, f"episode-{self.number}-{name}", self.tenant)
        where = self._filter(name)
        self.ground.world.grant(who.id, {action: {self.tenant: where} for action in ALL_ACTIONS})
        return who, where

    def _questions(self, who: Principal, where: Predicate, about: Chunk) -> Iterator[Call]:
        """Yield reads that concern one chunk, and the rest of its document."""
        can, draw = self.ground.can, self.draw
        vector = draw.near(np.asarray(about.vector, np.float32), 0.02)
        yield Call(who, "search", {"query": vector, "k": 4, "include": _ALL})
        yield Call(who, "search", {"query": vector, "k": 9, "where": where})
        yield Call(who, "fetch", {"ids": [(about.document, about.id), about.id], "include": _ALL})
        words = [word for word in about.text.split() if word.isalpha()][-3:]
        if words and "lexical" in can.queries:
            yield Call(who, "search", {"query": Lexical(" ".join(words)), "k": 5})
        if can.count != "none":
            yield Call(who, "count", {})
            yield Call(who, "count", {"where": where})
        if can.facets != "none":
            yield Call(who, "facets", {"field": self.ground.world.roles["few"]})

    def calls(self) -> Iterator[tuple[Call, int]]:
        """Yield the calls, each with the number of pages to read before it."""
        draw = self.draw
        yield Call(self.clerk, "upsert", {"chunks": self._keep(self._fresh(self.size, self.document))}), 0
        yield Call(self.clerk, "upsert", {"chunks": self._keep(self._fresh(self.size))}), 0
        one, seen = self._principal("one")
        other, also = self._principal("other")
        where = self._filter("where")
        about = draw.py.choice(self._own())
        asked = list(self._questions(one, where, about))
        asked += [replace(call, principal=other) for call in asked if call.method in ("count", "facets")]
        yield from ((call, 0) for call in asked)
        for _ in range(_VERSIONS[self.number % len(_VERSIONS)]):
            gone = self._own()
            kept = [replace(chunk, text=f"{chunk.text} {draw.word()}") for chunk in draw.some(gone, len(gone) // 2)]
            for chunk in gone:
                del self.rows[chunk.document, chunk.id]
            chunks = self._keep([*kept, *self._fresh(self.size - len(kept), self.document)])
            yield Call(self.clerk, "replace", {"document": self.document, "chunks": chunks}), 0
        yield from ((call, 0) for call in asked)
        for pages in (1, 2):
            yield Call(one, "page", {"size": 2, "where": where, "include": _ALL}), pages
            yield Call(other, "page", {"size": 3, "where": where}), pages
        yield Call(self.clerk, "page", {"size": 4, "where": where}), 1
        yield from self._changes(one, seen)
        if "delete" in self.ground.can.operations:
            gone = draw.some(list(self.rows.values()), 3)
            yield Call(other, "delete", {"ids": [chunk.id for chunk in gone]}), 0
            yield Call(other, "delete", {"where": where}), 0
            yield from ((call, 0) for call in asked)
            yield Call(other, "delete", {"document": self.document}), 0
            yield asked[-1], 0
        more = self._fresh(min(_MORE, self.ground.can.max_batch))
        yield Call(self.clerk, "upsert", {"chunks": more}), 0
        yield from ((call, 0) for call in self._questions(other, Not(also) if also != ALWAYS else where, more[-1]))
        yield from ((call, 0) for call in asked)

    def _changes(self, who: Principal, seen: Predicate) -> Iterator[tuple[Call, int]]:
        """Yield writes by a principal that may change a part of the replaced document, permitted and denied."""
        rows = Rows(self.tenant, self._own(), self.ground.world.roles)
        test = compile_test(seen)
        inside = [chunk for tag, chunk in zip(rows.tags, rows.chunks, strict=True) if test(tag, chunk.metadata)]
        outside = [chunk for chunk in rows.chunks if chunk not in inside]
        for some in (inside[:3], outside[:1]):
            if some:
                changed = [replace(one, vector=self.draw.vector(self.ground.world.dimension)) for one in some]
                yield Call(who, "upsert", {"chunks": changed}), 0
        yield Call(who, "replace", {"document": self.document, "chunks": inside[:2]}), 0


def planned_episodes(
    ground: Ground, templates: Sequence[Chunk], tenant: Callable[[], str], count: int
) -> Iterator[Planned]:
    """Yield the calls of *count* episodes, each in another tenant."""
    for number in range(count):
        episode = Episode(ground, tenant(), templates, number)
        for call, pages in episode.calls():
            if ground.supports(call.arguments.get("where", ALWAYS)):
                yield Planned(call, episode.mode, {"layout": f"episode-{number}"}, pages)
