"""R13: lexical and hybrid queries. Each leg, and the data its scores depend on, stays inside the scope.

Stores tokenize texts differently, so the words here are runs of consonants that no stemmer changes. How well a text
matches is up to the store; the check judges which rows are returned, that scores do not depend on other tenants, and
that a fusion is the one in the contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from vectoracl.errors import UnsupportedPredicateError
from vectoracl.filters.predicate import ALWAYS, F, Predicate
from vectoracl.model.queries import RRF_K, Hybrid, Lexical
from vectoracl.model.records import Chunk, Hit, Record
from vectoracl_conformance.context.assertions import Assertions, Unsupported
from vectoracl_conformance.context.check_context import AwaitableHandle, CheckContext
from vectoracl_conformance.context.oracle import Key, key
from vectoracl_conformance.context.recorder import words
from vectoracl_conformance.context.registry import check
from vectoracl_conformance.context.tolerance import Nearly

OWNED = 9
HOLDERS = 4
_EN: Predicate = F.lang == "en"
_LATE: Predicate = F.year >= 2002


class _Field:
    """The data that is written for R13: its owners, and the words."""

    def __init__(self, context: CheckContext) -> None:
        self.context = context
        self.own, self.foe, self.twin = context.tenant(), context.tenant(), context.tenant()
        self.both, self.rare, self.theirs, self.nobody = (context.rng.plain() for _ in range(4))
        self.centre = context.corpus.centre

    def text(self, *held: str) -> str:
        """Return a text of twelve words, *held* among them."""
        return " ".join([*held, *(self.context.rng.plain() for _ in range(12 - len(held)))])

    def chunk(self, place: int, text: str, distance: float) -> Chunk:
        """Return the chunk at *place*; its language and its year are metadata that filters use."""
        context = self.context
        metadata = {"lang": "en" if place % 2 else "fr", "year": 2000 + place}
        vector = context.rng.near(self.centre, distance)
        return Chunk(f"c-{context.rng.word()}", f"d-{context.rng.word()}", text, vector, metadata=metadata)

    async def plant(self) -> None:
        """Write: the better a row of the owner matches by words, the further away its vector is."""
        held = [(self.both,) * (place + 1) for place in range(HOLDERS)] + [(self.rare,)]
        held += [() for _ in range(OWNED - len(held))]
        texts = [self.text(*some) for some in held]
        await self.context.plant(self.own, [self.chunk(i, text, 0.3 + 0.05 * i) for i, text in enumerate(texts)])
        await self.context.plant(self.foe, [self.foreign(place) for place in range(30)])
        # The same texts, next to other ones.
        twins = [self.chunk(i, text, 0.4) for i, text in enumerate(texts[:HOLDERS])]
        await self.context.plant(self.twin, twins + [self.chunk(i, self.text(self.both), 0.6) for i in range(5)])

    def foreign(self, place: int) -> Chunk:
        """Return a chunk of the other tenant: nearer by vector, and a better match by words."""
        return self.chunk(place % OWNED, self.text(*[self.both] * 6, self.theirs), 0.01 + 0.001 * place)

    def holders(self, tenant: str, text: str, where: Predicate = ALWAYS) -> list[Record]:
        """Return the rows of *tenant* that match *where* and hold a word of *text*, from the census."""
        query_words = set(text.split())
        return [row for row in self.context.oracle().of(tenant, where) if query_words & set(row.text.split())]


def _keys(rows: Sequence[Record | Hit] | Any) -> list[Key]:
    return sorted(key(row) for row in rows)


def _scored(hits: Any) -> list[tuple[Key, Nearly]]:
    return [(key(hit), Nearly(hit.score, 1e-4)) for hit in hits]


@check(
    "R13",
    "each leg of a hybrid or nested query is scoped",
    attack=(
        "Send lexical and hybrid queries for words that many foreign chunks contain, with filters and through "
        "narrowed handles, and again after another tenant has grown and changed its texts."
    ),
    breach=(
        "A leg is ranked without the scope or the filter, a score depends on other tenants' texts, a fusion differs "
        "from that of its two legs or is incomplete, or an undeclared query kind is answered by another one."
    ),
    optional=True,
)
async def r13_each_leg_of_a_hybrid_query_is_scoped(t: Assertions) -> None:
    context = t.context
    can = context.client.adapter.capabilities
    field = _Field(context)
    handle = context.handle(field.own)
    undeclared = {"lexical", "hybrid"} - can.queries
    for kind, query in (("lexical", Lexical(field.both)), ("hybrid", Hybrid(field.both, field.centre))):
        if kind in undeclared:
            await t.refused(handle.search(query, context.k), UnsupportedPredicateError, attacked=f"a {kind} query")
    if len(undeclared) == 2:
        raise Unsupported("lexical and hybrid queries")
    await field.plant()
    if "lexical" not in undeclared:
        await _lexical(t, field, handle)
    if "hybrid" not in undeclared:
        await _hybrid(t, field, handle, ranked="lexical" not in undeclared)
    await _unmoved(t, field, handle, can.queries)
    await _partitions(t, field, can.queries, comparable=can.lexical_scores == "comparable")


async def _lexical(t: Assertions, field: _Field, handle: AwaitableHandle) -> None:
    """Exactly the own rows that hold a word come, whatever k, filter and handle."""
    either = f"{field.both} {field.rare}"
    for name, text, where in (
        ("a word that many foreign rows hold", field.both, ALWAYS),
        ("two words", either, ALWAYS),
        ("a word, with a filter", field.both, _EN),
        ("a word, with a filter of which the best match is out", either, F.year < 2003),
        ("a word, with a filter", either, _EN | (F.year == 2000)),
    ):
        right = _keys(field.holders(field.own, text, where))
        t.kit_control(0 < len(right) < OWNED, f"{name}: the words choose nothing or everything")
        t.kit_control(len(field.holders(field.foe, field.both, where)) > 0, f"{name}: no foreign row holds it")
        hits = await handle.search(Lexical(text), 50, where=where)
        t.positive_control(len(hits) > 0, f"the owner finds rows by {name}", len(hits))
        t.assert_equal(right, _keys(hits), f"search by {name}", "exactly the own rows that hold it")
        scores = [hit.score for hit in hits]
        t.assert_safe(scores == sorted(scores, reverse=True), f"search by {name}", scores, "the best comes first")
        narrowed = await handle.narrow(where).search(Lexical(text), 50)
        t.assert_equal(
            _scored(hits), _scored(narrowed), f"search by {name} through a narrowed handle", "it is the same filter"
        )
        for k in (1, 2):
            best = await handle.search(Lexical(text), k, where=where)
            t.assert_equal(_scored(hits)[:k], _scored(best), f"search by {name}, k = {k}", "the best of them")
    for name, text in (("a word of another tenant", field.theirs), ("a word of no chunk", field.nobody)):
        t.assert_equal([], list(await handle.search(Lexical(text), 50)), f"search by {name}", "no own row holds it")
    await _silent(t, field, partial(handle.search, Lexical(field.both), 3), "a lexical query")


async def _hybrid(t: Assertions, field: _Field, handle: AwaitableHandle, *, ranked: bool) -> None:
    """min(k, owned) rows come, in the order of the two legs' fusion."""
    oracle = field.context.oracle()
    for name, text, where in (
        ("a word that many foreign rows hold", field.both, ALWAYS),
        ("a word of another tenant", field.theirs, ALWAYS),
        ("a word, with a filter", field.both, _EN),
        ("a word, with a filter of which the best vector is out", field.both, _LATE),
        ("a word, with a filter of which the best match is out", field.both, F.year < 2003),
    ):
        own = oracle.of(field.own, where)
        for k in (1, 3, len(own), 50):
            hits = await handle.search(Hybrid(text, field.centre), k, where=where)
            what = f"hybrid search by {name}, k = {k}"
            t.positive_control(len(hits) > 0, f"the owner finds rows by {what}", len(hits))
            t.assert_safe(
                set(_keys(hits)) <= set(_keys(own)), what, _keys(hits), "a leg was not scoped, or not filtered"
            )
            t.assert_equal(min(k, len(own)), len(set(_keys(hits))), what, "min(k, visible) rows")
        best = [one for one, _ in oracle.rank(own, field.centre).rows]
        matches = await handle.search(Lexical(text), 50, where=where) if ranked else []
        scores = [hit.score for hit in matches]
        if ranked and len({round(one, 6) for one in scores}) == len(scores):  # equal matches have no order
            by_words = [key(hit) for hit in matches]
            fused = {
                one: sum(1 / (RRF_K + leg.index(one) + 1) for leg in (best, by_words) if one in leg) for one in best
            }
            order = [round(fused[key(hit)], 9) for hit in hits]
            t.assert_equal(
                sorted(order, reverse=True), order, what, "the reciprocal rank fusion of the two legs in the scope"
            )
        narrowed = await handle.narrow(where).search(Hybrid(text, field.centre), 50)
        t.assert_equal(_keys(hits), _keys(narrowed), f"{what}, through a narrowed handle", "it is the same filter")
    await t.refused(
        handle.search(Hybrid(field.both, field.centre), 3, min_score=0.1),
        UnsupportedPredicateError,
        attacked="a hybrid query with a minimum score",
    )
    await _silent(t, field, partial(handle.search, Hybrid(field.both, field.centre), 3), "a hybrid query")


async def _silent(t: Assertions, field: _Field, ask: Any, name: str) -> None:
    """No foreign text comes out of the store, and each request carries the scope."""
    context = field.context
    texts = [(row.tag.tenant == field.own, row.text) for row in context.census()]
    foreign = {text for own, text in texts if not own} - {text for own, text in texts if own}
    mark = len(context.recorder)
    await ask()
    for event in context.recorder.since(mark):
        bad = sum(1 for word in words(event.reply) if word in foreign)
        t.assert_safe(bad == 0, name, f"{bad} foreign rows came out of the store", "a leg ranked or read unscoped")
        t.assert_safe(
            context.store.carries(event.request, field.own) is not False,
            f"the request of {name}",
            type(event.request).__name__,
            "it does not carry the tenant as an unconditional conjunct",
        )


async def _unmoved(t: Assertions, field: _Field, handle: AwaitableHandle, kinds: Any) -> None:
    """Another tenant's growth and text move no hit and no score."""
    questions: list[tuple[str, Any]] = []
    if "lexical" in kinds:
        questions += [("lexical", Lexical(field.both)), ("lexical", Lexical(f"{field.rare} {field.both}"))]
    if "hybrid" in kinds:
        questions.append(("hybrid", Hybrid(f"{field.rare} {field.both}", field.centre)))
    before = [_scored(await handle.search(query, 50)) for _, query in questions]
    grown = [field.foreign(place) for place in range(60)]
    for what, chunks in (
        ("grew", grown),
        ("changed its texts", [Chunk(c.id, c.document, field.text(field.rare), c.vector) for c in grown]),
    ):
        await field.context.plant(field.foe, chunks)
        for (kind, query), right in zip(questions, before, strict=True):
            got = _scored(await handle.search(query, 50))
            t.assert_equal(
                right, got, f"a {kind} query after another tenant {what}", "other tenants' texts are in the scores"
            )


async def _partitions(t: Assertions, field: _Field, kinds: Any, *, comparable: bool) -> None:
    """Scores of two tenants are merged only where they mean the same."""
    context = field.context
    async with context.another(tenants={"shared": [field.twin]}) as client:
        handle = client.handle(field.own)
        if "lexical" in kinds and not comparable:
            await t.refused(
                handle.search(Lexical(field.both), 50),
                UnsupportedPredicateError,
                attacked="a lexical query over two tenants, whose scores do not compare",
            )
        elif "lexical" in kinds:
            hits = await handle.search(Lexical(field.both), 50)
            right = _keys([*field.holders(field.own, field.both), *field.holders(field.twin, field.both)])
            t.assert_equal(
                right, _keys(hits), "a lexical query over two tenants", "the rows of both that hold the word"
            )
            scores: dict[str, list[float]] = {}
            for hit in hits:
                scores.setdefault(hit.text or "", []).append(hit.score)
            apart = {text: some for text, some in scores.items() if max(some) - min(some) > 1e-4}
            t.assert_safe(not apart, "one text in two tenants", apart, "declared comparable, and its scores differ")
        if "hybrid" in kinds:
            owned = [*context.oracle().of(field.own), *context.oracle().of(field.twin)]
            for k in (3, 50):
                hits = await handle.search(Hybrid(field.both, field.centre), k)
                what = f"a hybrid query over two tenants, k = {k}"
                t.assert_safe(set(_keys(hits)) <= set(_keys(owned)), what, _keys(hits), "a leg was not scoped")
                t.assert_equal(min(k, len(owned)), len(set(_keys(hits))), what, "min(k, visible) rows")
