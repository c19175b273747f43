"""R1 to R12, R14 and R15: reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.errors import InvalidInputError, ReservedFieldError, UnsupportedPredicateError
from vectoracl.filters.predicate import (
    ALWAYS,
    NEVER,
    And,
    Eq,
    F,
    Missing,
    Never,
    Not,
    Or,
    Predicate,
)
from vectoracl.model.queries import Hybrid, Lexical, Like
from vectoracl.model.records import Chunk, Hit, Record, Result
from vectoracl_conformance.context.assertions import Assertions, Unsupported, short
from vectoracl_conformance.context.check_context import USER
from vectoracl_conformance.context.corpus import CANARY, DIMENSION, chunk
from vectoracl_conformance.context.node_filters import node_filters, nodes_in, untried
from vectoracl_conformance.context.oracle import Directions, Key, Oracle, key
from vectoracl_conformance.context.recorder import arrays, words
from vectoracl_conformance.context.registry import check
from vectoracl_conformance.context.table_policy import everything
from vectoracl_conformance.context.tolerance import Nearly


def found(result: Any) -> list[tuple[Any, ...]]:
    """Return what of a result has to be equal between two calls."""
    return [(hit.tenant, hit.document, hit.id, Nearly(hit.score, 1e-5), hit.text) for hit in result]


@check(
    "R1",
    "the nearest chunk is foreign",
    attack="Ask for the single best chunk, where hundreds of other tenants' chunks are nearer than your best one.",
    breach="A foreign chunk is returned, or nothing is, because the store ranked before it applied the scope.",
)
async def r1_owner_is_found_behind_decoys(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    oracle = context.oracle()
    nearest = oracle.rank(oracle.rows, corpus.centre).rows[: corpus.decoys]
    t.kit_control(
        all(row[0][0] not in (corpus.large_tenant, corpus.small_tenant) for row in nearest),
        "the decoys are not the nearest chunks",
    )
    for tenant in (corpus.large_tenant, corpus.small_tenant):
        result = await context.handle(tenant).search(corpus.centre, 1)
        t.positive_control(
            len(result) == 1, "the owner finds its own best chunk behind the decoys", f"{len(result)} hits"
        )
        t.assert_safe(
            result[0].tenant == tenant and result[0].tag.tenant == tenant,
            "search for the nearest chunk",
            f"a chunk tagged {result[0].tenant!r}",
            "it belongs to another tenant",
        )
        problem = oracle.rank(oracle.of(tenant), corpus.centre).problem(result.hits, 1)
        t.assert_safe(problem is None, "search for the nearest chunk", problem, "the tenant's own best chunk is right")
        own = {row.text for row in oracle.of(tenant)}
        t.assert_safe(
            result[0].text in own,
            "search for the nearest chunk",
            "a text that the tenant does not own",
            "the tag says own and the content is foreign",
        )


@check(
    "R2",
    "exactly min(k, owned) hits, equal to exact search",
    attack=(
        "Ask for k from 1 to more than you own, with more and with fewer owned chunks than k, past any over-fetch "
        "by decoys."
    ),
    breach="Fewer hits than are visible, hits other than the best, or scores that differ from exact search.",
)
async def r2_exactly_k_hits_as_by_exact_search(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    oracle = context.oracle()
    can = context.client.adapter.capabilities
    queries = [corpus.centre, context.vector(0.05), context.rng.unit()]
    stored = {key(row): row for row in oracle.rows}
    for tenant in (corpus.large_tenant, corpus.small_tenant):
        own = oracle.of(tenant)
        handle = context.handle(tenant)
        for query in queries:
            ranked = oracle.rank(own, query)
            for k in sorted({min(one, can.max_k) for one in (1, 2, context.k, len(own), len(own) + 3, 50)}):
                for exact in (False, True) if can.exact and k == context.k else (False,):
                    result = await handle.search(query, k, exact=exact, include={"text", "metadata", "vector"})
                    problem = ranked.problem(result.hits, k) or _content(stored, result.hits)
                    t.assert_safe(problem is None, f"search with k = {k}", problem, "an exact search over the own rows")
                    t.assert_safe(
                        result.complete or not exact,
                        f"search with k = {k}",
                        f"incomplete: {result.shortfall}",
                        "every visible row is there",
                    )
                    t.positive_control(len(result) == min(k, len(own)), "min(k, owned) hits come back", len(result))
        ranked = oracle.rank(own, corpus.centre)
        floor = (ranked.rows[0][1] + ranked.rows[1][1]) / 2
        result = await handle.search(corpus.centre, context.k, min_score=floor)
        t.assert_equal(1, len(result), "search with a minimum score between the two best", "one chunk is above it")
        several = await handle.search_many(queries, context.k)
        for query, one in zip(queries, several, strict=True):
            problem = oracle.rank(own, query).problem(one.hits, context.k)
            t.assert_safe(problem is None, "several searches in one call", problem, "each is a separate exact search")
        await _grouped(t, oracle, tenant)


def _content(stored: Mapping[Key, Record], hits: Sequence[Hit]) -> str | None:
    """Say which hit's content is not that of the row that it says it is, or None."""
    for hit in hits:
        row = stored[key(hit)]
        if hit.text != row.text:
            return f"the text of {hit.id!r} is another row's"
        if dict(hit.metadata or {}) != dict(row.metadata):
            return f"the metadata of {hit.id!r} are another row's"
        if hit.vector is None or Directions([row]).owner(hit.vector) is None:
            return f"the vector of {hit.id!r} is another row's"
    return None


async def _grouped(t: Assertions, oracle: Oracle, tenant: str) -> None:
    context = t.context
    handle = context.handle(tenant)
    if not context.client.adapter.capabilities.group_by:
        await t.refused(
            handle.search(context.corpus.centre, 2, group_by="document"), attacked="group_by, which is not declared"
        )
        return
    best: dict[str, float] = {}
    for (_, document, _), score in oracle.rank(oracle.of(tenant), context.corpus.centre).rows:
        best.setdefault(document, score)
    result = await handle.search(context.corpus.centre, 2, group_by="document")
    got = [(hit.document, Nearly(hit.score, 1e-3)) for hit in result]
    right = [(document, Nearly(score, 1e-3)) for document, score in list(best.items())[:2]]
    t.assert_equal(right, got, "search grouped by document", "the best chunk of each of the two best own documents")


_ALL = frozenset({"text", "metadata", "vector"})


def _canaries(rows: Iterable[Record]) -> set[str]:
    """Return every word of *rows* that occurs nowhere else: in ids, documents, texts and metadata."""
    word_sets = (words((row.tag.chunk, row.tag.document, row.text, row.metadata)) for row in rows)
    return {word for some in word_sets for word in some if CANARY.search(word)}


@check(
    "R3",
    "requests carry the scope, and replies contain no foreign row",
    attack="Record every request and reply of every read operation directly in front of the store.",
    breach=(
        "A request without the tenant as an unconditional conjunct, or a foreign row in a reply (fetched to be "
        "filtered later)."
    ),
)
async def r3_request_carries_scope_and_reply_no_foreign_row(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    census = context.census()
    directions = Directions(census)
    for tenant in (corpus.large_tenant, corpus.small_tenant):
        own = Oracle(census).of(tenant)
        mine = {word for row in own for word in words((row.text, row.metadata)) if CANARY.search(word)}
        foreign = _canaries(row for row in census if row.tag.tenant != tenant)
        foreign -= _canaries(own) | {name for pair in corpus.shared_ids for name in pair}
        handle = context.handle(tenant)
        pairs = [(row.tag.document, row.tag.chunk) for row in own]
        calls: list[tuple[str, Any]] = [
            ("search", partial(handle.search, corpus.centre, context.k)),
            ("search with a filter", partial(handle.search, corpus.centre, context.k, where=F.note.exists())),
            ("search for vectors", partial(handle.search, corpus.centre, context.k, include=_ALL)),
            ("fetch", partial(handle.fetch, [*pairs, *corpus.shared_ids])),
            ("fetch of vectors", partial(handle.fetch, [*pairs, *corpus.shared_ids], include=_ALL)),
            ("scan", partial(handle.page, size=context.k)),
        ]
        can = context.client.adapter.capabilities
        if "lexical" in can.queries:
            calls.append(("search by words", partial(handle.search, Lexical(own[0].text), context.k)))
        if "hybrid" in can.queries:
            calls.append(("hybrid search", partial(handle.search, Hybrid(own[0].text, corpus.centre), context.k)))
        if can.count != "none":
            calls.append(("count", handle.count))
        if can.facets != "none":
            calls += [(f"facets of {field}", partial(handle.facets, field)) for field in ("note", "@document", "tags")]
        for name, ask in calls:
            mark = len(context.recorder)
            answer = await ask()
            events = context.recorder.since(mark)
            t.kit_control(bool(events), f"the recorder saw no request of a {name}")
            # Before the recorder is doubted: an adapter that asks elsewhere gets no own rows back.
            for event in events:
                named = getattr(event.request, "partition", None)
                t.assert_equal(
                    tenant, named, f"the request of a {name}", "it names another partition than the principal's"
                )
                t.assert_safe(
                    context.store.carries(event.request, tenant) is not False,
                    f"the request of a {name}",
                    short(type(event.request).__name__),
                    "it does not carry the tenant as an unconditional conjunct",
                )
            came = [word for event in events for word in words(event.reply)]
            rows = sum(1 for word in came if word in mine and word in {row.text for row in own})
            if name.startswith("facets"):
                t.positive_control(len(answer) > 0, f"{name} finds own values", answer)
            elif name != "count":
                t.kit_control(rows > 0, f"the recorder did not see the own rows in the reply of a {name}")
                t.positive_control(
                    len(answer.hits if hasattr(answer, "hits") else answer) > 0, f"{name} finds own rows"
                )
            bad = sum(1 for word in came if word in foreign)
            t.assert_safe(
                bad == 0, name, f"{bad} foreign rows came out of the store", "the store ranked or read unscoped"
            )
            whose = [directions.owner(one) for event in events for one in arrays(event.reply, DIMENSION)]
            away = sum(1 for row in whose if row is not None and row.tag.tenant != tenant)
            t.assert_safe(
                away == 0, name, f"{away} foreign vectors came out of the store", "it ranked or read unscoped"
            )
            if "vectors" in name:
                back = answer.hits if hasattr(answer, "hits") else answer
                bad_ones = [hit.id for hit in back if getattr(directions.owner(hit.vector), "text", None) != hit.text]
                t.assert_safe(not bad_ones, name, f"vectors of other rows in {bad_ones}", "a vector is not its row's")
            # A store may rank words in more of the asker's own rows than it returns.
            every = name.startswith("fetch") or name in ("search by words", "hybrid search")
            limit = (len(own) if every else min(context.k, len(own))) + 1
            t.assert_safe(
                rows <= limit * len(events), name, f"{rows} rows in {len(events)} replies", "more than were asked for"
            )


@check(
    "R4",
    "growth and text changes of another tenant change nothing",
    attack="Grow another tenant's corpus around your query, then change its texts, and compare your results.",
    breach=("A hit, the order or a score changes: a channel from one tenant to another (fitted embedder, shared IDF)."),
)
async def r4_growth_of_another_tenant_changes_nothing(t: Assertions) -> None:
    context = t.context
    own, other = context.tenant(), context.tenant()
    await context.plant(own, context.chunks(context.k + 2))
    handle = context.handle(own)
    before = found(await handle.search(context.corpus.centre, context.k))
    t.positive_control(len(before) == context.k, "the owner finds its rows", before)
    planted = context.chunks(60, near=0.02)
    await context.plant(other, planted)
    theirs = await context.handle(other).search(context.corpus.centre, context.k)
    t.positive_control(len(theirs) == context.k, "the other tenant finds what it wrote", len(theirs))
    t.assert_equal(
        before,
        found(await handle.search(context.corpus.centre, context.k)),
        "search after another tenant grew",
        "another tenant's growth is visible in the result",
    )
    await context.plant(other, [Chunk(one.id, one.document, before[0][4], one.vector) for one in planted])
    t.assert_equal(
        before,
        found(await handle.search(context.corpus.centre, context.k)),
        "search after another tenant's texts changed",
        "another tenant's text is visible in the result",
    )


def filters() -> list[tuple[str, Predicate]]:
    """Return filters of every shape, each of which matches some of `many`'s rows and not all."""
    return [
        ("or", (F.year >= 2003) | (F.lang == "fr")),
        ("or of everything foreign", (F.note.exists() & (F.year == 2001)) | F.live.is_missing() & (F.lang == "en")),
        ("not", ~(F.lang == "fr")),
        ("not of an or", ~((F.year < 2004) | F.tags.contains("green"))),
        ("one of several", F.lang.in_(["de", "fr"])),
        ("and with what is always true", And((F.lang == "fr", ALWAYS))),
        ("or with what is never true", Or((F.lang == "fr", NEVER))),
        ("nested", ((F.year > 2000) | ~(F.lang == "de")) & ~(F.tags.contains_any(["blue"]) & (F.year < 2005))),
        ("double not of a nest", ~(~(F.year >= 2002) | ~F.lang.in_(["de", "fr"]))),
        ("missing", F.year.is_missing()),
        ("prefix", F.lang.starts_with("f")),
        ("not a prefix", ~F.lang.starts_with("f")),
        ("not equal", F.lang != "fr"),
        ("list", F.tags.contains_all(["red", "green"])),
        ("numbers", F.sizes.contains(0.5)),
        ("boolean", F.live == True),  # noqa: E712 - builds a filter
        ("tag", F["@document"].in_(["-"]) | (F.year == 2002)),
        ("time", F.when > _time()),
    ]


def declared_filters(can: Capabilities) -> list[tuple[str, Predicate]]:
    """Return those of `filters` of which the adapter declares every node."""
    return [(name, where) for name, where in filters() if nodes_in(where) <= can.predicates]


def _time() -> Any:
    from datetime import UTC, datetime

    return datetime(2024, 1, 3, tzinfo=UTC)


@check(
    "R5",
    "filters of every declared kind only narrow",
    attack="Use every kind of filter that is declared, on fields of each type, alone and under AND, OR and NOT.",
    breach="A foreign hit (the scope was merged into the filter's OR), a hit that the filter excludes, or one missing.",
)
async def r5_filters_only_narrow(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    oracle = context.oracle()
    can = context.client.adapter.capabilities
    handle = context.handle(corpus.large_tenant)
    owned = len(oracle.of(corpus.large_tenant))
    made = node_filters(oracle.of(corpus.large_tenant), can.predicates)
    made = [(name, where) for name, where in made if nodes_in(where) <= can.predicates]
    missing = untried(can.predicates, [*made, *declared_filters(can), ("everything", ALWAYS), ("nothing", NEVER)])
    t.assert_safe(
        not missing, "declaring a node that no filter of this check has", missing, "what is not tried may be wrong"
    )
    for name, where in [*filters(), *made]:
        if not nodes_in(where) <= can.predicates:
            await t.refused(
                handle.search(corpus.centre, owned, where=where),
                UnsupportedPredicateError,
                attacked=f"a filter ({name}) of which a part is not declared",
            )
            continue
        own = oracle.narrowing(corpus.large_tenant, where)
        if (name, where) not in made:  # a filter that is made of the own rows may name what only they have
            t.kit_control(
                len(oracle.select(dict.fromkeys(corpus.other_tenants, where))) > 0,
                f"the filter {name} matches no foreign row",
            )
        result = await handle.search(corpus.centre, owned, where=where)
        t.positive_control(len(result) > 0, f"the owner finds rows by the filter {name}", len(result))
        problem = oracle.rank(own, corpus.centre).problem(result.hits, owned)
        t.assert_safe(problem is None, f"search with a filter ({name})", problem, "exactly the own rows that match")
        listed = sorted(key(hit) for hit in await handle.all(where))
        t.assert_equal(
            sorted(key(row) for row in own), listed, f"scan with a filter ({name})", "the own rows that match"
        )
        narrowed = await handle.narrow(where).all()
        t.assert_equal(
            listed, sorted(key(hit) for hit in narrowed), f"a narrowed handle ({name})", "it is the same filter"
        )
    everything = await handle.search(corpus.centre, owned)
    t.positive_control(len(everything) == owned, "the owner finds its rows without a filter", len(everything))
    if Never in can.predicates:
        nothing = await handle.search(corpus.centre, owned, where=NEVER)
        t.assert_equal(0, len(nothing), "search with a filter that is never true", "no row matches")
    for name, inside, filter_ in (
        ("the same field", F.lang.in_(["en", "fr"]), F.lang.in_(["fr", "de"])),
        ("another field", F.lang == "fr", F.year >= 2000),
        ("two conditions each", (F.lang == "fr") & F.year.exists(), (F.year >= 2000) & (F.year < 2100)),
    ):
        both = inside & filter_
        if not all(nodes_in(one) <= can.predicates for one in (inside, filter_, both)):
            continue
        narrow = handle.narrow(inside)
        right = sorted(key(row) for row in oracle.narrowing(corpus.large_tenant, both))
        hits = await narrow.search(corpus.centre, owned, where=filter_)
        t.assert_equal(
            right, sorted(key(hit) for hit in hits), f"a narrowed handle with a filter ({name})", "it is both"
        )
        listed = sorted(key(hit) for hit in await narrow.all(filter_))
        t.assert_equal(right, listed, f"a scan by a narrowed handle with a filter ({name})", "it is both")


HOSTILE = (
    "' OR '1'='1",
    "x'; DROP TABLE chunks; --",
    '"} ] }',
    '{"$ne": null}',
    "%",
    "_",
    "*",
    "\\",
    "\\' OR 1=1 --",
    "$where",
    "a b\tc",
    "${jndi:x}",
    "%s%(x)s{}",
    "$1",
    "éü",
    "null",
    "true",
    "Ω≠\u202f\U0001f512",
)


@check(
    "R6",
    "filter keys and values cannot inject",
    attack="Use SQL, JSON, wildcard and format fragments as filter values, ids, document names and filter keys.",
    breach=(
        "More rows than the one with exactly that text as its value, an error of the store, or a key that is accepted."
    ),
)
async def r6_filters_cannot_inject(t: Assertions) -> None:
    context = t.context
    own, other = context.tenant(), context.tenant()
    for tenant in (own, other):
        chunks = [
            Chunk(f"c{place} {text}".strip(), f"d {text}".strip(), f"{context.rng.word()} {text}", context.vector(),
                  metadata={
                "lang": text, "tags": [text, "plain"]})
            for place, text in enumerate(HOSTILE)
            if "\t" not in text
        ]  # fmt: skip
        await context.plant(tenant, chunks)
    handle, can = context.handle(own), context.client.adapter.capabilities
    oracle = context.oracle()
    for text in HOSTILE:
        if "\t" in text:
            t.assert_equal(
                0, len(await handle.search(context.corpus.centre, 50, where=F.lang == text)), f"filter by {text!r}", ""
            )
            continue
        for name, where in (
            ("==", F.lang == text),
            ("in", F.lang.in_([text])),
            ("contains", F.tags.contains(text)),
            *([("starts_with", F.lang.starts_with(text))] if text else []),
            ("@document", F["@document"] == f"d {text}".strip()),
        ):
            if not nodes_in(where) <= can.predicates:
                continue  # R5 has seen that it is refused
            result = await handle.search(context.corpus.centre, 50, where=where)
            t.positive_control(
                len(result) > 0, f"the owner finds the row whose value is {text!r} ({name})", len(result)
            )
            problem = oracle.rank(oracle.narrowing(own, where), context.corpus.centre).problem(result.hits, 50)
            t.assert_safe(problem is None, f"filter {name} {text!r}", problem, "the value was read as more than text")
        away = await handle.search(context.corpus.centre, 50, where=~(F.lang == text))
        t.assert_equal(len(HOSTILE) - 2, len(away), f"filter not == {text!r}", "all own rows but one")
        for name in (text, f"c {text}"):
            t.assert_equal([], await handle.fetch([name]), f"fetch the id {name!r}", "no row has exactly this id")
    t.assert_equal(len(HOSTILE) - 1, len(await handle.all()), "scan after all of that", "the rows are still there")
    for text in HOSTILE:
        for build in (
            lambda one=text: F[one] == 1,  # the loop's value, kept
            lambda one=text: F[f"year{one}"] >= 1,
            lambda one=text: F[f"year') OR ('{one}"].is_missing(),
        ):
            await t.refused(
                _search(handle, context.corpus.centre, build),
                attacked=f"a filter key with {text!r}",
            )


async def _search(handle: Any, query: Any, build: Any) -> Any:
    return await handle.search(query, 5, where=build())


async def _narrow(handle: Any, where: Predicate) -> Any:
    return handle.narrow(where)


RESERVED = (
    "@tenant", "@label", "@generation", "@rev", "@expires", "@producer", "@path", "@docgen", "@unknown", "tenant",
    "tenant_id", "TENANT_ID", "Tenant", "group_id", "GROUP_ID", "namespace", "$tenant", "vectoracl", "vectoracl.tenant",
    "_vectoracl_tag", "#staged",
)  # fmt: skip


@check(
    "R7",
    "a reserved field in a filter is refused",
    attack="Name a field of the tag, in any spelling, in the filter of a search, count, scan, delete or narrow.",
    breach="It is accepted: a caller's filter could choose the scope.",
)
async def r7_reserved_field_in_filter_is_refused(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    handle = context.handle(corpus.large_tenant)
    for name in RESERVED:
        for where in (F[name] == corpus.other_tenants[0], ~(F[name] == "x"), F[name].in_(["x"]), Not(Missing(name))):
            for work, what in (
                (handle.search(corpus.centre, 5, where=where), "search"),
                (handle.count(where), "count"),
                (handle.page(where), "scan"),
                (handle.delete(where=where), "delete"),
            ):
                await t.refused(work, ReservedFieldError, attacked=f"{what} with a filter by {name!r}")
            await t.refused(_narrow(handle, where), ReservedFieldError, attacked=f"narrow by {name!r}")
    document = context.oracle().of(corpus.large_tenant)[0].tag.document
    result = await handle.search(corpus.centre, 5, where=F["@document"] == document)
    t.positive_control(
        len(result) > 0 and {hit.document for hit in result} == {document},
        "a filter by @document, which callers may use",
    )


@check(
    "R8",
    "metadata cannot move a chunk",
    attack="Write metadata whose keys resemble tags and the store's field names, by case, dots, nesting and blanks.",
    breach="The chunk appears elsewhere, its tag changes, or its metadata is returned changed.",
)
async def r8_metadata_cannot_move_a_chunk(t: Assertions) -> None:
    context = t.context
    own, victim = context.tenant(), context.tenant()
    await context.plant(victim, context.chunks(3))
    theirs = context.state(victim)
    handle = context.handle(own)
    for name in ("tenant", "Tenant_ID", "TENANT", "group_id", "namespace", "@tenant", "@label", "$set", "vectoracl",
                 "_vectoracl.tenant", "docgen", "#staged", " tenant "):  # fmt: skip
        await t.refused(
            handle.upsert([_with(context, {name: victim})]),
            ReservedFieldError,
            attacked=f"metadata with the key {name!r}",
        )
    lookalikes: list[dict[str, Any]] = [
        {"nested": {"tenant": victim, "@tenant": victim, "tenant_id": victim, "_vectoracl": {"tenant": victim}}},
        {"meta.tenant": victim, "metadata.tenant_id": victim, "tag.tenant": victim, "a.b": {"c.d": victim}},
        {"Document": victim, "chunk_id": "x", "document": "elsewhere", "doc": "y", "position": 9},
        {"label": "public", "Label": "public", "generation": 99, "rev": 99, "expires": 0, "producer": victim},
        {"_id": victim, "id": victim, "_tenant": victim, "uuid": victim, "vector": [0.0], "embedding": "x"},
        {"content": "moved", "text": "moved", "metadata": {"tenant": victim}, "score": 1e9, "distance": 0},
        {"owner": victim, "tenants": [victim], "tenant__": victim, "ténant": victim, "te nant": victim},
        {"__proto__": victim, "constructor": 1},
        {"0": victim, "-1": 2, "[0]": 3, "a/b": 4, "a~1b": 5, "'": 6, '"': 7, "\\": 8},
    ]
    chunks = [_with(context, one) for one in lookalikes]
    await context.plant(own, chunks)
    rows = context.state(own)
    t.positive_control(len(rows) == len(chunks), "the chunks are written", len(rows))
    t.assert_equal(theirs, context.state(victim), "metadata that names the victim", "the victim's rows changed")
    tags = {row.tag.chunk: row.tag for row in context.census() if row.tag.tenant == own}
    for one in chunks:
        tag = tags.get(one.id)
        t.assert_safe(
            tag is not None and (tag.document, tag.generation, tag.label) == (one.document, 0, "default"),
            f"metadata {short(one.metadata)}",
            str(tag),
            "the tag is not what the handle decided",
        )
        (hit,) = await handle.fetch([(one.document, one.id)]) or (None,)
        t.assert_safe(
            isinstance(hit, Hit) and dict(hit.metadata or {}) == dict(one.metadata) and hit.text == one.text,
            f"metadata {short(one.metadata)}",
            short(None if hit is None else hit.metadata),
            "it came back different",
        )
    t.assert_equal(
        [], await context.handle(victim).fetch([one.id for one in chunks]), "fetch by the victim", "it moved"
    )
    ranked = await context.handle(victim).search(context.corpus.centre, 50)
    t.assert_equal({victim}, {hit.tenant for hit in ranked}, "search by the victim", "a chunk moved to it")


def _with(context: Any, metadata: dict[str, Any]) -> Chunk:
    return Chunk(
        f"c-{context.rng.word()}", f"d-{context.rng.word()}", context.rng.word(), context.vector(), metadata=metadata
    )


@check(
    "R9",
    "'like this id' with a foreign id equals a missing one",
    attack="Search like a chunk of another tenant, by its id, alone and with its document.",
    breach=(
        "The answer differs from that for an id that does not exist, or the foreign vector influences the ranking."
    ),
)
async def r9_like_foreign_id_equals_missing(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    oracle = context.oracle()
    handle = context.handle(corpus.large_tenant)
    own = oracle.of(corpus.large_tenant)[-1]
    result = await handle.search(Like(own.tag.chunk, own.tag.document), context.k)
    ranked = oracle.rank([row for row in oracle.of(corpus.large_tenant) if key(row) != key(own)], own.vector)
    problem = ranked.problem(result.hits, context.k)
    t.positive_control(problem is None, "like one's own chunk finds its neighbours", problem)
    foreign = oracle.of(corpus.other_tenants[1])[:3]
    missing = await t.outcome(handle.search(Like(context.rng.word()), context.k))
    for row in foreign:
        for like in (Like(row.tag.chunk), Like(row.tag.chunk, row.tag.document)):
            answer = await t.outcome(handle.search(like, context.k))
            t.assert_safe(
                _alike(missing, answer), "search like a foreign id", short(answer), f"a missing id gives {missing}"
            )
    narrow = handle.narrow(F["@document"] != own.tag.document)
    answer = await t.outcome(narrow.search(Like(own.tag.chunk, own.tag.document), context.k))
    t.assert_safe(
        _alike(missing, answer), "search like an id outside of the handle", short(answer), "it reads as missing"
    )
    document, shared = corpus.shared_ids[0]
    result = await handle.search(Like(shared, document), context.k)
    mine = next(row for row in oracle.of(corpus.large_tenant) if row.tag.chunk == shared)
    ranked = oracle.rank([row for row in oracle.of(corpus.large_tenant) if key(row) != key(mine)], mine.vector)
    problem = ranked.problem(result.hits, context.k)
    t.assert_safe(problem is None, "search like an id that several tenants have", problem, "the own vector is right")


def _alike(one: tuple[str, Any], other: tuple[str, Any]) -> bool:
    if isinstance(one[1], Result) and isinstance(other[1], Result):
        return one[1] == other[1]
    return one == other


@check(
    "R10",
    "fetching a foreign id equals a missing one",
    attack="Fetch foreign ids, alone, with their documents, among owned ids, and beyond a narrowed handle.",
    breach="A row, an error or any other difference from the answer for an id that does not exist.",
)
async def r10_fetch_of_foreign_id_equals_missing(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    oracle = context.oracle()
    handle = context.handle(corpus.large_tenant)
    own = oracle.of(corpus.large_tenant)
    refs = [(row.tag.document, row.tag.chunk) for row in own]
    mine = await handle.fetch(refs)
    t.positive_control(sorted(map(key, mine)) == sorted(map(key, own)), "the owner fetches its rows", len(mine))
    kinds = {type(hit.score).__name__ for hit in [*mine, *await handle.all()]}
    t.assert_equal(
        {"float"}, kinds, "the scores of a fetch and a scan", "a score is a float, whatever the store counts in"
    )
    foreign = [row for one in (*corpus.other_tenants, corpus.small_tenant) for row in oracle.of(one)[:6]]
    shared = set(corpus.shared_ids)
    away = [row for row in foreign if (row.tag.document, row.tag.chunk) not in shared]
    missing = await t.outcome(handle.fetch([context.rng.word()]))
    for ask in (
        [row.tag.chunk for row in away],
        [(row.tag.document, row.tag.chunk) for row in away],
        [away[0].tag.chunk],
        [(own[0].tag.document, away[0].tag.chunk)],
    ):
        answer = await t.outcome(handle.fetch(ask, include={"text", "metadata", "vector"}))
        t.assert_equal(missing, answer, "fetch foreign ids", "it differs from a missing id")
    mixed = await handle.fetch([*(row.tag.chunk for row in away), *refs])
    t.assert_equal(
        sorted(map(key, own)), sorted(map(key, mixed)), "fetch own and foreign ids together", "only the own ones"
    )
    texts = {row.text for row in own}
    both = await handle.fetch([chunk for _, chunk in corpus.shared_ids])
    t.assert_safe(
        len(both) == len(shared) and all(hit.text in texts and hit.tenant == corpus.large_tenant for hit in both),
        "fetch ids that several tenants have",
        [hit.tenant for hit in both],
        "only the own chunk is right",
    )
    document = own[0].tag.document
    narrow = handle.narrow(F["@document"] != document)
    inside = await narrow.fetch(refs)
    t.positive_control(0 < len(inside) < len(own), "a narrowed handle fetches what is inside", len(inside))
    t.assert_safe(
        all(hit.document != document for hit in inside),
        "fetch past a narrowed handle",
        [hit.document for hit in inside],
        "a row outside of the handle came back",
    )
    lang = handle.narrow(F.lang == "en")
    right = oracle.narrowing(corpus.large_tenant, F.lang == "en")
    t.assert_equal(
        sorted(map(key, right)),
        sorted(key(hit) for hit in await lang.fetch(refs)),
        "fetch past a handle narrowed by metadata",
        "exactly the rows inside",
    )


@check(
    "R11",
    "a scan reaches the end, and a foreign cursor is useless",
    attack="Scan in pages of every size; then continue with a cursor of another tenant, filter or handle.",
    breach="Rows are lost, duplicated or foreign, or a cursor of another principal is followed.",
)
async def r11_scan_reaches_the_end_and_foreign_cursor_is_useless(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    oracle = context.oracle()
    for tenant in (corpus.large_tenant, corpus.small_tenant):
        right = sorted(key(row) for row in oracle.of(tenant))
        for size in (1, 2, 3, 5, len(right), 100):
            listed = [key(hit) for hit in await context.handle(tenant).all(size=size)]
            t.assert_equal(right, sorted(listed), f"scan in pages of {size}", "each own row once, and no other")
    handle = context.handle(corpus.large_tenant)
    where = F.year >= 2002
    right = sorted(key(row) for row in oracle.narrowing(corpus.large_tenant, where))
    listed = [key(hit) for hit in await handle.all(where, size=2)]
    t.assert_equal(right, sorted(listed), "scan with a filter in pages of 2", "each own row that matches, once")
    first = await handle.page(size=3)
    t.positive_control(first.after is not None and len(first.hits) == 3, "the first page has a cursor", first)
    second = await handle.page(size=3, after=first.after)
    t.positive_control(
        not {key(hit) for hit in first.hits} & {key(hit) for hit in second.hits} and len(second.hits) == 3,
        "one's own cursor goes on",
    )
    theirs = await context.handle(corpus.other_tenants[0]).page(size=3)
    assert theirs.after is not None
    narrow = handle.narrow(F.year >= 2002)
    cut = first.after or ""
    for name, after, who, condition in (
        ("another tenant's cursor", theirs.after, handle, ALWAYS),
        ("a cursor of another filter", first.after, handle, where),
        ("a cursor of a wider handle", first.after, narrow, ALWAYS),
        ("a forged cursor", "AAAA", handle, ALWAYS),
        ("a truncated cursor", cut[: len(cut) // 2], handle, ALWAYS),
        ("an empty cursor", "", handle, ALWAYS),
        ("a cursor of another type", 7, handle, ALWAYS),
    ):
        await t.refused(
            who.page(condition, 3, after),
            InvalidInputError,
            attacked=f"scan with {name}",
        )


@check(
    "R12",
    "counts include only the tenant's chunks",
    attack=(
        "Count, and count by the values of each field, with and without filters that match hundreds of foreign chunks."
    ),
    breach="A number depends on foreign chunks, or a foreign value is returned.",
    optional=True,
)
async def r12_counts_are_of_the_own_tenant(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    oracle = context.oracle()
    handle = context.handle(corpus.large_tenant)
    await _facets(t)
    if context.client.adapter.capabilities.count == "none":
        await t.refused(handle.count(), UnsupportedPredicateError, attacked="count, which is not declared")
        raise Unsupported("exact counts")
    for tenant in (corpus.large_tenant, corpus.small_tenant, corpus.other_tenants[0]):
        total = await context.handle(tenant).count()
        t.positive_control(total > 0, "the owner counts its rows", total)
        t.assert_equal(len(oracle.of(tenant)), total, "count", "the number of own rows")
    for name, where in declared_filters(context.client.adapter.capabilities):
        right = len(oracle.narrowing(corpus.large_tenant, where))
        t.assert_equal(right, await handle.count(where), f"count with a filter ({name})", "the own rows that match")
    foreign = oracle.of(corpus.other_tenants[1])[0].tag.document
    t.assert_equal(0, await handle.count(F["@document"] == foreign), "count a foreign document", "it reads as missing")
    t.assert_equal(
        len(oracle.narrowing(corpus.large_tenant, F.lang == "en")),
        await handle.narrow(F.lang == "en").count(),
        "count by a narrowed handle",
        "the rows inside",
    )


FACETED = ("lang", "year", "live", "tags", "sizes", "note", "@document")


async def _facets(t: Assertions) -> None:
    """Judge the counts by value: of tenants with shared ids, of look-alikes, with filters, and by a narrowed handle."""
    context, corpus = t.context, t.context.corpus
    oracle = context.oracle()
    handle = context.handle(corpus.large_tenant)
    if context.client.adapter.capabilities.facets == "none":
        await t.refused(handle.facets("lang"), UnsupportedPredicateError, attacked="facets, which are not declared")
        return
    for tenant in (corpus.large_tenant, corpus.other_tenants[0]):
        own = oracle.of(tenant)
        foreign = {row.metadata.get("note") for row in oracle.rows} - {row.metadata.get("note") for row in own}
        for field in FACETED:
            facets = await context.handle(tenant).facets(field, limit=10_000)
            t.positive_control(len(facets) > 0, f"the owner counts its rows by {field}", facets)
            leaked = {value for value, _ in facets} & foreign
            t.assert_safe(
                not leaked, f"facets of {field}", f"{len(leaked)} foreign values", "they are another tenant's"
            )
            t.assert_equal(
                oracle.facets(own, field), facets, f"facets of {field}", "the own rows' values, with their numbers"
            )
    for name, where in declared_filters(context.client.adapter.capabilities):
        own = oracle.narrowing(corpus.large_tenant, where)
        t.assert_equal(
            oracle.facets(own, "note"),
            await handle.facets("note", where=where),
            f"facets with a filter ({name})",
            "the values of the own rows that match",
        )
    own = oracle.narrowing(corpus.large_tenant, F.year > 2000)
    t.assert_equal(
        oracle.facets(own, "lang"),
        await handle.narrow(F.year > 2000).facets("lang"),
        "facets by a narrowed handle",
        "the rows inside",
    )
    best = oracle.facets(own, "lang")[:1]
    t.assert_equal(
        best, await handle.facets("lang", where=F.year > 2000, limit=1), "facets with a limit", "the most frequent"
    )
    foreign_one = oracle.of(corpus.other_tenants[1])[0].tag.document
    t.assert_equal([], await handle.facets("lang", where=F["@document"] == foreign_one), "facets of a foreign document",
           "it reads as missing")  # fmt: skip
    await _like_named(t)


async def _like_named(t: Assertions) -> None:
    """Judge the counts by value of tenants whose names, and whose values, look alike."""
    context = t.context
    name = f"Like-{context.rng.word()}"
    alike = (name, name.lower(), name.upper(), f"{name}x", name[:-1])
    values = ("Red", "red", "RED", "r\u00e9d", "re\u0301d", "red%", "1", "true", "Red.")
    for place, tenant in enumerate(alike):
        metadata = [
            {"lang": value, "tags": [value, "red", value], "sizes": [1, 1.0, 0.5], "live": bool(number % 2)}
            for number, value in enumerate(values)
            if number >= place
        ]
        chunks = [chunk(context.rng, context.vector(), document="same", metadata=one) for one in metadata]
        await context.plant(tenant, chunks)
    oracle = context.oracle()
    for tenant in alike:
        own = oracle.of(tenant)
        for field in ("lang", "tags", "sizes", "live"):
            facets = await context.handle(tenant).facets(field)
            t.assert_equal(oracle.facets(own, field), facets, f"facets of {field} by one of several that look alike",
                   "values that look alike are several, and tenants too")  # fmt: skip


@check(
    "R14",
    "no cache serves another principal",
    attack="Repeat one query alternately as different tenants and handles, and after writes and deletes.",
    breach="An answer for another principal, or one from before the write.",
)
async def r14_cache_serves_one_principal_only(t: Assertions) -> None:
    context = t.context
    a, b = context.tenant(), context.tenant()
    for tenant in (a, b):
        await context.plant(tenant, context.chunks(4, metadata=True))
    query = context.vector(0.1)
    for turn in range(2):
        for tenant in (a, b, context.corpus.large_tenant, a):
            oracle = context.oracle()
            result = await context.handle(tenant).search(query, 3)
            t.positive_control(len(result) == 3, "each tenant finds its rows", len(result))
            problem = oracle.rank(oracle.of(tenant), query).problem(result.hits, 3)
            t.assert_safe(
                problem is None, "the same query by another tenant", problem, "it is another's answer, or stale"
            )
            narrow = context.handle(tenant).narrow(F.year.exists())
            result = await narrow.search(query, 3)
            own = oracle.narrowing(tenant, F.year.exists())
            problem = oracle.rank(own, query).problem(result.hits, 3)
            t.assert_safe(
                problem is None, "the same query by a narrowed handle", problem, "it is the wider handle's answer"
            )
            total = (
                await context.handle(tenant).count() if context.client.adapter.capabilities.count != "none" else None
            )
            t.assert_safe(total in (None, len(oracle.of(tenant))), "the same count", total, "it is another's, or stale")
        new = context.chunks(1, near=0.01)
        await context.plant(a, new)
        first = await context.handle(a).search(query, 1)
        oracle = context.oracle()
        problem = oracle.rank(oracle.of(a), query).problem(first.hits, 1)
        t.assert_safe(problem is None, f"the same query after a write (turn {turn})", problem, "the answer is stale")
        await context.handle(a).delete(ids=[new[0].id])
        context.store.settle()
        after = await context.handle(a).search(query, 3)
        t.assert_safe(
            all(hit.id != new[0].id for hit in after), "the same query after a delete", found(after), "it is stale"
        )


@check(
    "R15",
    "rights in one partition do not count in another",
    attack="Read two tenants at once whose documents and labels have the same names.",
    breach=(
        "A document that is permitted in one partition opens its namesake in the other, or scores are merged wrongly."
    ),
)
async def r15_rights_stay_in_their_partition(t: Assertions) -> None:
    context = t.context
    a, s, other = context.tenant(), context.tenant(), context.tenant()
    for tenant in (a, s, other):
        chunks = [
            chunk for document in ("one", "two") for chunk in context.chunks(3, document=f"{document}", metadata=True)
        ]
        await context.plant(tenant, chunks)
    async with context.another(tenants={"shared": [s]}) as client:
        oracle = context.oracle()
        query = context.vector(0.2)
        handle = client.handle(a)
        both = oracle.select({a: ALWAYS, s: ALWAYS})
        for k in (1, 4, 12, 20):
            result = await handle.search(query, k)
            problem = oracle.rank(both, query).problem(result.hits, k)
            t.assert_safe(
                problem is None, f"search over the own and a shared tenant, k = {k}", problem, "merged by score"
            )
        t.positive_control(len(await handle.all()) == len(both), "the shared tenant is read", len(both))
        if client.adapter.capabilities.count != "none":
            t.assert_equal(len(both), await handle.count(), "count over two partitions", "the counts add up")
        paged = [key(hit) for hit in await handle.all(size=4)]
        t.assert_equal(sorted(map(key, both)), sorted(paged), "scan over two partitions in pages", "each row once")
        await handle.upsert(context.chunks(1, document="three"))
        context.store.settle()
        t.assert_equal(0, len([row for row in context.census() if row.tag.tenant == s and row.tag.document == "three"]),
               "a write where a shared tenant is read", "it went to the shared tenant")  # fmt: skip
    document = "@document"
    grants = {a: Eq(document, "one"), s: Eq(document, "two")}
    async with context.another(policy=everything(USER, grants)) as client:
        oracle = context.oracle()
        right = oracle.select(grants)
        handle = client.handle(a)
        result = await handle.search(query, 50)
        t.positive_control(len(result) > 0, "the granted rows are found", len(result))
        problem = oracle.rank(right, query).problem(result.hits, 50)
        t.assert_safe(
            problem is None, "documents granted in two partitions", problem, "a grant counted in the other one"
        )
        t.assert_equal(
            sorted(map(key, right)),
            sorted(key(hit) for hit in await handle.all()),
            "scan of documents granted in two partitions",
            "a grant counted in the other one",
        )
        refs = [(row.tag.document, row.tag.chunk) for row in oracle.rows if row.tag.tenant in (a, s, other)]
        t.assert_equal(
            sorted(map(key, right)),
            sorted(key(hit) for hit in await handle.fetch(refs)),
            "fetch of documents granted in two partitions",
            "a grant counted in the other one",
        )
    async with context.another(policy=everything(USER, {})) as client:
        mark = len(context.recorder)
        result = await client.handle(a).search(query, 5)
        t.assert_equal([], list(result), "an empty scope", "it answered")
        t.assert_equal(mark, len(context.recorder), "an empty scope", "it reached the store")
        await t.refused(client.handle(a).upsert(context.chunks(1)), Exception, attacked="a write under an empty scope")
