"""The calls that are recorded for E2c and E2s, and the texts of their outcome.

One client makes each kind of read and write, for a tenant with fewer rows than k and for one with more. Each call
states the canaries that may and that may not return.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from vectoracl.filters.predicate import F
from vectoracl.model.queries import Hybrid, Lexical
from vectoracl.model.records import Chunk
from vectoracl_conformance.context.check_context import CheckContext
from vectoracl_conformance.context.corpus import CANARY, K
from vectoracl_conformance.evidence.calls import Canary, ScopedCall
from vectoracl_conformance.evidence.outcome import Graded
from vectoracl_conformance.evidence.sessions import Mark, Window
from vectoracl_conformance.evidence.structure import Judge

WIDE = 50
_SHOWN = 4


def words(chunks: Iterable[Chunk]) -> set[Canary]:
    """Return the canaries of *chunks*: of their ids, documents, texts and metadata."""
    canaries: set[Canary] = set()
    for one in chunks:
        for text in (one.id, one.document, one.text, *map(str, one.metadata.values())):
            canaries.update(CANARY.findall(text))
    return canaries


class Tour:
    """Asks and writes for some tenants of a corpus, all of whose foes are planted, and notes the questions."""

    def __init__(self, context: CheckContext, mark: Callable[[], Mark]) -> None:
        self.questions: list[ScopedCall] = []
        self._context = context
        self._mark = mark
        corpus = context.corpus
        shared = {word for pair in corpus.shared_ids for name in pair for word in CANARY.findall(name)}
        self._words = {tenant: words(chunks) - shared for tenant, chunks in corpus.chunks.items()}

    async def take(self) -> list[ScopedCall]:
        """Go through every call for both tenants."""
        for tenant in (self._context.corpus.small_tenant, self._context.corpus.large_tenant):
            await self._reads(tenant)
            await self._writes(tenant)
        return self.questions

    async def _reads(self, tenant: str) -> None:
        context, corpus = self._context, self._context.corpus
        handle, mine = context.handle(tenant), corpus.chunks[tenant]
        owned, where = len(mine), F.note.exists()
        refs = [(one.document, one.id) for some in corpus.chunks.values() for one in some[:4]]
        fetched = len({(one.document, one.id) for one in mine} & set(refs))
        everything = {"text", "metadata", "vector"}
        await self._ask(tenant, min(K, owned), lambda: handle.search(corpus.centre, K))
        await self._ask(tenant, min(WIDE, owned), lambda: handle.search(corpus.centre, WIDE, where=where))
        await self._ask(tenant, min(K, owned), lambda: handle.search(corpus.centre, K, include=everything))
        for kind, query in (("lexical", Lexical(mine[0].text)), ("hybrid", Hybrid(mine[0].text, corpus.centre))):
            if kind in context.client.adapter.capabilities.queries:
                await self._ask(tenant, owned, lambda query=query: handle.search(query, K))  # type: ignore[misc]
        await self._ask(tenant, fetched, lambda: handle.fetch(refs))
        await self._ask(tenant, min(K, owned), lambda: handle.page(where, K))
        if context.client.adapter.capabilities.count != "none":
            await self._ask(tenant, owned, lambda: handle.count(where), silent=True)
        if context.client.adapter.capabilities.facets != "none":
            await self._ask(tenant, owned, lambda: handle.facets("note", where=where))

    async def _writes(self, tenant: str) -> None:
        context = self._context
        handle, owned = context.handle(tenant), len(context.corpus.chunks[tenant])
        document = f"d-{context.rng.word()}"
        first, second = context.chunks(2, document=document), context.chunks(1, document=document)
        other = context.chunks(1)
        self._words[tenant] |= words([*first, *second, *other])
        name = (other[0].document, other[0].id)
        calls: Sequence[Callable[[], Coroutine[Any, Any, Any]]] = (
            lambda: handle.upsert([*first, *other]),
            lambda: handle.replace(document, second),
            lambda: handle.delete(ids=[name]),
            lambda: handle.delete(document=document),
        )
        for call in calls:
            await self._ask(tenant, owned + len(first) + len(other), call, silent=True)

    async def _ask(
        self, tenant: str, limit: int, call: Callable[[], Coroutine[Any, Any, Any]], *, silent: bool = False
    ) -> None:
        since = self._mark()
        await call()
        window = Window(since, self._mark())
        own = frozenset(self._words[tenant])
        foreign = frozenset(word for other, some in self._words.items() if other != tenant for word in some)
        self.questions.append(ScopedCall(tenant, window, limit, own, foreign - own, silent=silent))


def in_words(graded: Graded, judge: Judge | None) -> str:
    """Put an outcome into words; a structure's with what the harness asked the judge to take on trust."""
    calls = len(graded.facts.get("questions", ()))
    text = "; ".join(graded.reasons[:_SHOWN])
    if len(graded.reasons) > _SHOWN:
        text += f"; and {len(graded.reasons) - _SHOWN} more"
    text = text or (f"{calls} calls" if calls else "equal")
    if graded.grade != "E2s" or judge is None:
        return text
    trusted: Sequence[str] | None = getattr(judge, "trusted", None)
    if trusted is None:
        return f"{text}; judged by the harness's own code"
    return f"{text}; the harness declares free of tenants' data: {', '.join(trusted) or 'nothing'}"
