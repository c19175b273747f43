"""X1 to X5: leaks outside of results, the posture, undeclared operations, random operations, and the kit itself."""

from __future__ import annotations

import inspect
import random
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from vectoracl import ScopedRetriever
from vectoracl.adapter_api.contract import GRADES
from vectoracl.adapter_api.operations import (
    OPERATIONS,
    Count,
    Delete,
    Facets,
    Fetch,
    Operation,
    Position,
    Replace,
    Scan,
    Search,
    Upsert,
)
from vectoracl.adapter_api.posture import Posture
from vectoracl.errors import DeniedError, InvalidInputError, PostureError, UnsupportedPredicateError
from vectoracl.filters.predicate import ALWAYS, NODES, Always, Eq, F, Predicate
from vectoracl.model.actions import ALL_ACTIONS
from vectoracl.model.queries import Hybrid, HybridQuery, Lexical, VectorQuery
from vectoracl.model.records import Chunk, Record, Result, Tag
from vectoracl_conformance.context.assertions import Abstain, Assertions
from vectoracl_conformance.context.check_context import AwaitableHandle, CheckContext
from vectoracl_conformance.context.corpus import CANARY, Corpus
from vectoracl_conformance.context.node_filters import node_filters
from vectoracl_conformance.context.oracle import Oracle, UnfitError, key
from vectoracl_conformance.context.recorder import words
from vectoracl_conformance.context.registry import check

_LOG = """
import logging

def work(client, word):
    logging.getLogger("vectoracl").debug("listening: %s", word)
"""


def report_of(error: BaseException | None) -> str:
    """Return everything that a report of *error* would show: text, repr, notes, data, causes and contexts."""
    if error is None:
        return ""
    if (reported := getattr(error, "report", None)) is not None:  # by the process in which it was raised
        return f"{reported} {error} {error!r}"
    data = " ".join(words({name: value for name, value in vars(error).items() if not isinstance(value, BaseException)}))
    text = "".join(traceback.format_exception_only(type(error), error))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return f"{text} {error!r} {data} {report_of(cause)}"


@check(
    "X1",
    "errors, logs and reprs contain no canary",
    attack=(
        "Make calls fail in every way, with canaries in filters, ids, texts and vectors, and read all that is reported."
    ),
    breach=(
        "A foreign text or id, a filter's value, a stored text or a password appears in an error, a log or a repr."
    ),
)
async def x1_errors_and_logs_carry_no_canary(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    rows = context.census()
    texts = {word for row in rows for word in words((row.text, row.metadata)) if CANARY.search(word)}
    foreign = {
        word for row in rows if row.tag.tenant != corpus.large_tenant for word in (row.tag.chunk, row.tag.document)
    }
    foreign = {word for word in foreign if CANARY.search(word)}
    foreign -= {word for pair in corpus.shared_ids for word in pair}
    secret = context.rng.word()
    handle = context.handle(corpus.large_tenant)
    victim = next(row for row in rows if row.tag.tenant == corpus.other_tenants[0] and row.tag.chunk in foreign)
    wrong = VectorQuery(np.ones(len(corpus.centre) + 1, np.float32))
    tag = Tag(corpus.large_tenant, "d-x", "c-x")
    note = {"note": secret}
    other_size = Search(corpus.large_tenant, F.lang == secret, ALWAYS, wrong, 5, frozenset({"text"}))
    big = Record(tag._replace(position=2**70), secret, context.vector(), note)
    huge = Upsert(corpus.large_tenant, ALWAYS, (big,))
    nul = Upsert(corpus.large_tenant, ALWAYS, (Record(tag, secret + "\0", context.vector(), note),))
    digits = str(context.rng.py.randrange(10**29, 10**30))
    fails = _unkeepable(corpus, big._replace(tag=tag), secret, digits)
    reports: list[tuple[str, str]] = []
    results: list[Any] = []
    control = context.rng.plain()
    with context.listening() as log:
        await context.client.run(_LOG, control)
        attempts: list[tuple[str, Any]] = [
            ("a time-out", lambda: handle.search(corpus.centre, 5, where=F.lang == secret, timeout=1e-7)),
            ("an undeclared field", lambda: handle.search(corpus.centre, 5, where=F.nowhere == secret)),
            ("a filter of another type", lambda: handle.search(corpus.centre, 5, where=F.year == secret)),
            ("a reserved field", lambda: handle.search(corpus.centre, 5, where=F["@tenant"] == secret)),
            ("a query of another size", lambda: context.client.raw(other_size)),
            ("bad metadata", lambda: handle.upsert(
                [Chunk("c", "d", secret, context.vector(), metadata={"year": secret})])),
            ("a bad batch", lambda: handle.upsert([*context.chunks(2), Chunk("c", "d", secret, [0.5])])),
            ("a foreign tag", lambda: context.client.raw(Upsert(corpus.large_tenant, ALWAYS, (victim,)))),
            ("a huge number", lambda: context.client.raw(huge)),
            ("a text that no store keeps", lambda: context.client.raw(nul)),
            ("a foreign id", lambda: handle.fetch([victim.tag.chunk])),
            ("a foreign document", lambda: handle.delete(document=victim.tag.document)),
            ("a write outside of the handle", lambda: handle.narrow(F.lang == secret).upsert(context.chunks(1))),
            ("a cursor of another", lambda: handle.page(F.lang == secret, 3, "AAAA")),
            ("a search", lambda: handle.search(corpus.centre, 5, include={"text", "metadata", "vector"})),
            *((name, partial(context.client.raw, operation)) for name, operation in fails),
            ("other passwords", partial(_opened, context, secret)),
        ]  # fmt: skip
        before = context.state()
        raised = 0
        for name, attempt in attempts:
            try:
                results.append((name, await attempt()))
            except Exception as error:  # noqa: BLE001 - what it says is read below
                raised += 1
                reports.append((name, report_of(error)))
        # A store without its own types keeps what others cannot.
        await handle.delete(document="d-x")
        logged = log()
    t.kit_control(control in logged, "the log was not heard")
    t.kit_control(raised >= 8, "too few calls failed")
    t.assert_equal(before, context.state(), "all of that", "the store changed")
    passwords = {one for one in context.store.secrets if one}
    listed = [
        ("the log", logged),
        *reports,
        ("repr of a handle", repr(handle.inner)),
    ]
    listed += zip(("repr of the client", "repr of the configuration", "str of it"), context.client.shown(), strict=True)
    for name, text in listed:
        bad = [one for one in (*texts, *foreign, *passwords, secret, digits) if one in text]
        t.assert_safe(not bad, name, f"it shows {bad[:3]}", "a canary got out")
    for name, answer in results:
        text = repr(answer) + (" ".join(map(repr, answer)) if isinstance(answer, list | Result) else "")
        bad = [one for one in (*texts, *passwords, secret) if one in text]
        t.assert_safe(not bad, f"repr of the answer of {name}", f"it shows {bad[:3]}", "a canary got out")
    hits = dict(results)["a search"]
    t.positive_control(
        len(hits) > 0 and all(CANARY.search(hit.text or "") for hit in hits),
        "the text itself is there, for who asks for it",
    )


def _unkeepable(corpus: Corpus, record: Record, secret: Any, digits: str) -> list[tuple[str, Operation]]:
    """Return what a store cannot keep or compare, each time *secret* or *digits*: its own error would quote them."""
    own, query, text = corpus.large_tenant, VectorQuery(corpus.centre), frozenset[Any]({"text"})
    tags = (("a number of 30 digits", int(digits)), ("a text for a number", secret))
    written = [(name, record._replace(tag=record.tag._replace(position=value))) for name, value in tags]
    written += [
        (f"a text for the metadata {name}", record._replace(metadata={name: secret}))
        for name in ("year", "when", "sizes")
    ]
    queries: list[tuple[str, Operation]] = [
        (f"a filter of {name} by a text", Search(own, ALWAYS, Eq(name, secret), query, 5, text))
        for name in ("year", "when", "live")
    ]
    queries += [
        ("a count of times by a text", Count(own, ALWAYS, Eq("when", secret))),
        ("a page after a text", Scan(own, ALWAYS, ALWAYS, 3, Position(secret, secret, secret), text)),
        ("a page of a text's size", Scan(own, ALWAYS, ALWAYS, secret, None, text)),
        ("a text for k", Search(own, ALWAYS, ALWAYS, query, secret, text)),
    ]
    return [*((name, Upsert(own, ALWAYS, (one,))) for name, one in written), *queries]


async def _opened(context: CheckContext, secret: str) -> None:
    """Open a client whose every password is *secret*, which a store that has passwords refuses."""
    client = context.new_client(other=lambda text: _swapped(text, context.store.secrets, secret))
    try:
        await client.open()
    finally:
        await client.close()


def _swapped(text: str, passwords: Sequence[str], secret: str) -> str:
    for one in passwords:
        text = text.replace(one, secret) if one else text
    return text


@check(
    "X2",
    "the reported posture is the store's real one",
    attack="Misconfigure the store out of band, or require a higher grade than it can reach, and open it.",
    breach="It is served: the claimed grade is not what the store enforces.",
)
async def x2_posture_is_what_the_store_is(t: Assertions) -> None:
    context = t.context
    claimed = context.client.adapter.capabilities.grade
    posture = await context.client.posture()
    t.positive_control(isinstance(posture, Posture) and posture.grade in GRADES, "the posture is read", posture)
    t.positive_control(
        GRADES.index(posture.grade) >= GRADES.index(claimed),
        "the store reaches the grade that is claimed",
        f"{posture.grade}: {[(one.rule.id, one.message) for one in posture.findings if one.rule.lowers]}",
    )
    t.assert_equal(claimed, posture.grade, "the posture of a fresh store", "it is not the grade that is claimed")
    for demanded in GRADES[GRADES.index(posture.grade) + 1 :]:
        client = context.new_client(minimum_grade=demanded)
        try:
            await t.refused(
                client.open(), PostureError, attacked=f"opening with the minimum grade {demanded!r}", silent=False
            )
        finally:
            await client.close()
    for weakening in context.store.weakenings():
        await context.weaken(weakening.apply)
        try:
            client = context.new_client()
            try:
                error = await t.refused(
                    client.open(), PostureError, attacked=f"opening a store with {weakening.name}", silent=False
                )
                t.assert_safe(
                    bool(getattr(error, "findings", ())), weakening.name, "no finding", "it says what has to be fixed"
                )
            finally:
                await client.close()
        finally:
            await context.weaken(weakening.undo)
    async with context.another() as client:
        t.positive_control((await client.posture()).grade == claimed, "the store is as it was")


@check(
    "X3",
    "an undeclared operation is refused",
    attack=(
        "Use every query kind, operation, filter and option that the adapter does not declare, also without the core."
    ),
    breach="It is answered by another operation: approximated, dropped or widened.",
)
async def x3_undeclared_operation_is_refused(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    can = context.client.adapter.capabilities
    handle = context.handle(corpus.large_tenant)
    queries: list[tuple[Any, str, Any, Any]] = [
        ("lexical", "lexical", Lexical("secret"), Lexical("secret")),
        ("hybrid", "hybrid", Hybrid("secret", corpus.centre), HybridQuery("secret", corpus.centre)),
    ]
    for kind, name, query, resolved in queries:
        if kind not in can.queries:
            await t.refused(handle.search(query, 3), UnsupportedPredicateError, attacked=f"a {name} query")
            operation = Search(corpus.large_tenant, ALWAYS, ALWAYS, resolved, 3, frozenset({"text"}))
            await t.refused(
                context.client.raw(operation), attacked=f"a {name} query, handed to the adapter itself", silent=False
            )
    t.kit_control(can.operations <= ALL_ACTIONS, "unknown operations are declared")
    calls: dict[type[Operation], Callable[[], Any]] = {
        Search: lambda: handle.search(corpus.centre, 3),
        Fetch: lambda: handle.fetch(["x"]),
        Count: lambda: handle.count(),
        Facets: lambda: handle.facets("lang"),
        Scan: lambda: handle.page(),
        Upsert: lambda: handle.upsert(context.chunks(1)),
        Replace: lambda: handle.replace("x", []),
        Delete: lambda: handle.delete(document="x"),
    }
    for kind, (method, action) in OPERATIONS.items():
        if action not in can.operations or getattr(can, method, "exact") == "none":
            await t.refused(calls[kind](), UnsupportedPredicateError, attacked=f"{method}, which is not declared")
    rows = context.oracle().of(corpus.large_tenant)
    for node in NODES:
        if node not in can.predicates:
            made = node_filters(rows, can.predicates, [node])
            t.kit_control(bool(made) or node is Always, f"no filter with {node.__name__} can be made")
            for name, where in made[:: max(1, len(made) // _FILTERS_OF_A_NODE)]:
                for method, call in _filtered(handle, corpus, where):
                    await t.refused(call(), UnsupportedPredicateError, attacked=f"{method} with a filter ({name})")
    for name, arguments in (
        ("a setting that is not declared", {"tuning": {"no_such_setting": 1}}),
        ("group_by of something else", {"group_by": "tenant"}),
        ("include of something else", {"include": {"secret"}}),
        *((("exact ranking", {"exact": True}),) if not can.exact else ()),
        *((("grouping", {"group_by": "document"}),) if not can.group_by else ()),
        ("more than the largest k", {"k": can.max_k + 1}),
        ("k = 0", {"k": 0}),
        ("k = True", {"k": True}),
        ("an undeclared field", {"where": F.nowhere == 1}),
        ("an order of keywords", {"where": _ordered()}),
        ("no filter at all", {"where": None}),
        ("an empty filter", {"where": {}}),
    ):
        await t.refused(handle.search(corpus.centre, **arguments), attacked=name)
    for field in ("when", "nowhere", "@label", "tenant"):
        await t.refused(handle.facets(field), attacked=f"facets of {field}")
    await t.refused(
        handle.upsert([Chunk(f"c{place}", "d", "", corpus.centre) for place in range(can.max_batch + 1)])
        if can.max_batch <= 20_000
        else _refuse(),
        InvalidInputError,
        attacked="more chunks than the largest batch",
    )
    t.positive_control(len(await handle.search(corpus.centre, context.k)) == context.k, "what is declared is answered")


_FILTERS_OF_A_NODE = 8


def _filtered(
    handle: AwaitableHandle, corpus: Corpus, where: Predicate
) -> Iterator[tuple[str, Callable[[], Awaitable[Any]]]]:
    """Yield each method of a handle that takes a filter, and its call with *where*."""
    arguments = {"query": corpus.centre, "queries": [corpus.centre], "field": "lang"}
    for method, function in inspect.getmembers(ScopedRetriever, inspect.isfunction):
        parameters = inspect.signature(function).parameters
        if method.startswith("_") or "where" not in parameters or method in ("scan", "narrow"):
            continue
        given = {
            name: arguments[name] for name, one in parameters.items() if one.default is one.empty and name != "self"
        }
        yield method, partial(getattr(handle, method), **given, where=where)
    yield "scan", partial(handle.all, where)
    yield "narrow", partial(_narrowed, handle, where)


async def _narrowed(handle: AwaitableHandle, where: Predicate) -> Any:
    return await handle.narrow(where).all()


async def _refuse() -> None:
    raise InvalidInputError("The batch is too large to try.")


def _ordered() -> Predicate:
    from vectoracl.filters.predicate import Range

    return Range("lang", gt=1)


@check(
    "X4",
    "random operations match the reference",
    attack="Let three tenants write, overwrite, replace, delete and read at random under the same few names.",
    breach="At some step an answer differs from that of one dictionary per tenant.",
)
async def x4_random_operations_match_the_reference(t: Assertions) -> None:
    context = t.context
    can = context.client.adapter.capabilities
    turn = random.Random(context.rng.seed)  # noqa: S311 - repeatable, and no secret
    tenants = [context.tenant() for _ in range(3)]
    model: dict[str, dict[tuple[str, str], tuple[str, int | None, Any]]] = {tenant: {} for tenant in tenants}
    documents, ids = ("a", "b", "a:b"), ("1", "2", "3", "b:1")
    query = context.vector(0.2)

    def made(document: str, name: str) -> Chunk:
        year = turn.choice((None, 2001, 2002, 2003))
        return Chunk(
            name,
            document,
            context.rng.word(),
            context.vector(turn.uniform(0.1, 1)),
            metadata={} if year is None else {"year": year},
        )

    def rows(tenant: str, where: Any = None) -> list[tuple[tuple[str, str], tuple[str, int | None, Any]]]:
        year = where
        return [one for one in model[tenant].items() if year is None or (one[1][1] is not None and one[1][1] >= year)]

    for step in range(110):
        tenant = turn.choice(tenants)
        handle, own = context.handle(tenant), model[tenant]
        document, name = turn.choice(documents), turn.choice(ids)
        action = turn.choice(
            ("upsert", "upsert", "upsert", "replace", "ids", "document", "where", "narrow", "read", "read")
        )
        what = f"step {step}: {action}"
        gone: Any = None
        if action == "upsert":
            chunks = list(
                {
                    (c.document, c.id): c for c in (made(turn.choice(documents), turn.choice(ids)) for _ in range(3))
                }.values()
            )
            await handle.upsert(chunks)
            own.update({(c.document, c.id): (c.text, c.metadata.get("year"), c.vector) for c in chunks})
        elif action == "replace":
            chunks = [made(document, one) for one in turn.sample(ids, turn.randrange(4))]
            await handle.replace(document, chunks)
            for place in [one for one in own if one[0] == document]:
                del own[place]
            own.update({(c.document, c.id): (c.text, c.metadata.get("year"), c.vector) for c in chunks})
        elif action == "ids":
            gone = (await handle.delete(ids=[(document, name), "3"])).count
            right = [one for one in own if one == (document, name) or one[1] == "3"]
        elif action == "document":
            gone = (await handle.delete(document=document)).count
            right = [one for one in own if one[0] == document]
        elif action == "where":
            gone = (await handle.delete(where=F.year >= 2003)).count
            right = [one for one, _ in rows(tenant, 2003)]
        elif action == "narrow":
            chunk = made(document, name)
            old = own.get((document, name))
            inside = (old is None or (old[1] or 0) >= 2002) and chunk.metadata.get("year", 0) >= 2002
            try:
                await handle.narrow(F.year >= 2002).upsert([chunk])
                t.assert_safe(inside, what, "a write outside of the handle was accepted", "it has to be denied")
                own[document, name] = (chunk.text, chunk.metadata.get("year"), chunk.vector)
            except DeniedError:
                t.assert_safe(not inside, what, "a write inside of the handle was denied", "it has to be accepted")
        if action in ("ids", "document", "where"):
            for one in right:
                del own[one]
            t.assert_safe(
                gone in ((len(right),) if can.delete_counts else (None, len(right))),
                what,
                gone,
                f"{len(right)} were there",
            )
        context.store.settle()
        watched = turn.choice(tenants)
        handle = context.handle(watched)
        listed = {(hit.document, hit.id): hit.text for hit in await handle.all(size=turn.choice((2, 5, 100)))}
        t.assert_equal(
            {place: row[0] for place, row in model[watched].items()}, listed, what, "a scan differs from the model"
        )
        year = turn.choice((None, 2002))
        where = ALWAYS if year is None else F.year >= year
        right_rows = rows(watched, year)
        if can.count != "none":
            t.assert_equal(len(right_rows), await handle.count(where), what, "a count differs from the model")
        result = await handle.search(query, 4, where=where)
        scores = sorted((_cosine(row[2], query) for _, row in right_rows), reverse=True)[:4]
        t.assert_safe(
            len(result) == len(scores) and np.allclose([hit.score for hit in result], scores, atol=2e-4),
            what,
            [round(hit.score, 4) for hit in result],
            f"the model's are {[round(one, 4) for one in scores]}",
        )  # fmt: skip
        t.assert_safe(
            all(model[watched].get((hit.document, hit.id), ("",))[0] == hit.text for hit in result),
            what, "a hit that the model has not", "a search differs from the model",
        )  # fmt: skip
        fetched = {(hit.document, hit.id): hit.text for hit in await handle.fetch([(document, name)])}
        right_one = {(document, name): model[watched][document, name][0]} if (document, name) in model[watched] else {}
        t.assert_equal(right_one, fetched, what, "a fetch differs from the model")
    t.positive_control(any(model.values()), "something was written", model)
    stored = {
        (row.tag.tenant, row.tag.document, row.tag.chunk): row.text
        for row in context.census()
        if row.tag.tenant in tenants
    }
    right_all = {(tenant, *place): row[0] for tenant in tenants for place, row in model[tenant].items()}
    t.assert_equal(right_all, stored, "the census at the end", "the store differs from the model")


def _cosine(one: Any, other: Any) -> float:
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@check(
    "X5",
    "the kit's own controls",
    attack=(
        "Test the kit itself: is the corpus hostile, does the census see every row, does the recorder record, does "
        "the oracle refuse sets that prove nothing?"
    ),
    breach="None: if a control fails, nothing was measured.",
)
async def x5_controls_of_the_kit(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    census = context.census()
    written = {(tenant, c.document, c.id): c.text for tenant, some in corpus.chunks.items() for c in some}
    mine = {key(row): row.text for row in census if row.tag.tenant in corpus.chunks}
    t.kit_control(written == mine, f"the census has {len(mine)} rows of the corpus and {len(written)} were written")
    t.kit_control(
        all(row.tag.tenant and row.tag.document and row.tag.chunk for row in census), "the census has untagged rows"
    )
    vectors = {key(row): row.vector for row in census}
    for tenant, some in corpus.chunks.items():
        for one in some[:5]:
            near = _cosine(vectors[tenant, one.document, one.id], one.vector)
            t.kit_control(near > 0.999, "a vector of the census is not the one that was written")
    oracle = Oracle(census)
    ranked = oracle.rank(census, corpus.centre).rows
    before = next(
        place for place, (row, _) in enumerate(ranked) if row[0] in (corpus.large_tenant, corpus.small_tenant)
    )
    t.kit_control(
        before >= corpus.decoys, f"only {before} of {corpus.decoys} decoys are nearer than the nearest own chunk"
    )
    t.kit_control(
        len(oracle.of(corpus.large_tenant)) > context.k > len(oracle.of(corpus.small_tenant)), "own > k and own < k"
    )
    for bad in ({}, {"unknown": ALWAYS}, {row.tag.tenant: ALWAYS for row in census}):
        try:
            oracle.select(bad)
        except UnfitError:
            t.attacks += 1
        else:
            raise Abstain("the oracle accepted a set that proves nothing")
    mark, spoken = len(context.recorder), context.rng.plain()
    own = context.tenant()
    await context.handle(own).upsert([Chunk("control", "d", spoken, context.vector())])
    t.positive_control(len(context.state(own)) == 1, "the census sees a write at once", len(context.state(own)))
    hits = await context.handle(own).search(corpus.centre, 1)
    events = context.recorder.since(mark)
    heard = [word for event in events for word in words(event.reply)]
    t.positive_control(len(hits) == 1, "the owner finds it")
    t.kit_control(spoken in heard, "the recorder did not hear the reply")
    t.kit_control(
        any(own == getattr(event.request, "partition", None) for event in events),
        "nor the request",
    )
    await context.handle(own).delete(ids=["control"])
    t.positive_control(not context.state(own), "the census sees a delete at once", context.state(own))
