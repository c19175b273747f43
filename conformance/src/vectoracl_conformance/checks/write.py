"""W1 to W12: writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from vectoracl.adapter_api.operations import Replace, Upsert
from vectoracl.errors import (
    DeniedError,
    InvalidInputError,
    StoreError,
    UnsupportedPredicateError,
    UntaggedWriteError,
    VectorACLError,
)
from vectoracl.filters.predicate import ALWAYS, F
from vectoracl.model.records import Chunk, Record, Tag
from vectoracl_conformance.context.assertions import Assertions, Unsupported, short
from vectoracl_conformance.context.check_context import CheckContext
from vectoracl_conformance.context.oracle import key
from vectoracl_conformance.context.registry import check


def record(context: CheckContext, tenant: str, **parts: Any) -> Record:
    """Return a new record, whole and tagged, of *tenant*; *parts* replace parts of its tag."""
    tag = Tag(tenant, f"d-{context.rng.word()}", f"c-{context.rng.word()}", producer="kit", path="upsert", time=1.0)
    return Record(tag._replace(**parts), context.rng.word(), context.vector(), {"note": context.rng.word()})


@check(
    "W1",
    "an untagged write is rejected",
    attack="Pass records without a tag, or with an incomplete one, to the adapter, among complete ones.",
    breach="They are accepted or repaired, or a part of the call is written.",
)
async def w1_untagged_write_is_rejected(t: Assertions) -> None:
    context = t.context
    own = context.tenant()
    await context.client.raw(Upsert(own, ALWAYS, (record(context, own), record(context, own))))
    t.positive_control(len(context.state(own)) == 2, "whole records are written", len(context.state(own)))
    before = context.state()
    whole = record(context, own)
    for name, bad in (
        ("no tag", whole._replace(tag=None)),  # type: ignore[arg-type]  # the attack
        ("no tenant", record(context, "")),
        ("no document", record(context, own, document="")),
        ("no chunk id", record(context, own, chunk="")),
        ("no label", record(context, own, label="")),
        ("a tag that is a dict", whole._replace(tag={"tenant": own})),  # type: ignore[arg-type]  # likewise
    ):
        for call in ((bad,), (record(context, own), bad)):
            await t.refused(
                context.client.raw(Upsert(own, ALWAYS, call)),
                UntaggedWriteError,
                attacked=f"upsert of a record with {name}",
            )
            await t.refused(
                context.client.raw(Replace(own, ALWAYS, whole.tag.document, call)),
                UntaggedWriteError,
                attacked=f"replace with a record with {name}",
            )
    await t.refused(
        context.handle(own).upsert([Chunk("", "d", vector=context.vector())]),
        InvalidInputError,
        attacked="a chunk without id",
    )
    await t.refused(
        context.handle(own).upsert([Chunk("c", "", vector=context.vector())]),
        InvalidInputError,
        attacked="without document",
    )
    t.assert_equal(before, context.state(), "the store after all of that", "something was written")


@check(
    "W2",
    "another tenant's tag is rejected",
    attack="Pass a record with the tag of another tenant to the adapter, alone and among correct ones.",
    breach="It is written, under either tenant.",
)
async def w2_foreign_tag_is_rejected(t: Assertions) -> None:
    context = t.context
    own, victim = context.tenant(), context.tenant()
    await context.plant(victim, context.chunks(2))
    await context.client.raw(Upsert(own, ALWAYS, (record(context, own),)))
    t.positive_control(len(context.state(own)) == 1, "a right record is written")
    before = context.state()
    theirs = next(row for row in context.census() if row.tag.tenant == victim)
    for bad in (record(context, victim), theirs._replace(text="overwritten"), record(context, own.upper())):
        for call in ((bad,), (record(context, own), bad), (bad, record(context, own))):
            await t.refused(
                context.client.raw(Upsert(own, ALWAYS, call)),
                UntaggedWriteError,
                attacked="upsert with another tenant's tag",
            )
            await t.refused(
                context.client.raw(Replace(own, ALWAYS, bad.tag.document, call)),
                UntaggedWriteError,
                attacked="replace with another tenant's tag",
            )
    t.assert_equal(before, context.state(), "the store after all of that", "something was written")


@check(
    "W3",
    "one bad record: nothing is written",
    attack="Put one bad record first, in the middle, last, and after a client's usual batch size.",
    breach="The good records are written: half of the call is in the store.",
)
async def w3_one_bad_record_writes_nothing(t: Assertions) -> None:
    context = t.context
    own = context.tenant()
    handle = context.handle(own)
    can = context.client.adapter.capabilities
    await context.plant(own, [Chunk("taken", "d", "old", context.vector(), metadata={"lang": "fr"})])
    t.positive_control(len(context.state(own)) == 1, "a right record is written")
    before = context.state()
    size = min(can.max_batch, 140)
    bad = [
        Chunk("b", "d", vector=[0.5]),
        Chunk("b", "d", vector=[float("nan")] * len(context.corpus.centre)),
        Chunk("b", "d", vector=context.vector(), metadata={"year": "late"}),
        Chunk("b", "d", vector=context.vector(), metadata={"tenant": "x"}),
        Chunk("b", "d\0", vector=context.vector()),
    ]
    for place in sorted({0, size // 2, size - 1, min(size - 1, 100)}):
        for one in bad:
            call = context.chunks(size - 1)
            call.insert(place, one)
            await t.refused(handle.upsert(call), attacked=f"a bad chunk at place {place} of {size}")
    t.assert_equal(before, context.state(), "the store after all of that", "a part of a call was written")
    for place in (0, size // 2, size - 1):
        records = [record(context, own) for _ in range(size - 1)]
        records.insert(place, record(context, context.corpus.large_tenant))
        await t.refused(
            context.client.raw(Upsert(own, ALWAYS, tuple(records))),
            UntaggedWriteError,
            attacked=f"a foreign record at place {place} of {size}",
        )
        t.assert_equal(before, context.state(), f"a foreign record at place {place}", "a part of the call was written")
    narrow = handle.narrow(F.lang == "en")
    if can.atomic_upsert:
        for place in (0, size // 2, size - 1):
            call = context.chunks(size - 1, document="n")
            call = [replace(one, metadata={"lang": "en"}) for one in call]
            call.insert(place, Chunk("taken", "d", "new", context.vector(), metadata={"lang": "en"}))
            await t.refused(
                narrow.upsert(call), DeniedError, attacked=f"overwriting a row outside of the handle at {place}",
                silent=False,
            )  # fmt: skip
            t.assert_equal(
                before, context.state(), f"overwriting a row outside of the handle at place {place}", "part was written"
            )
    good = context.chunks(size)
    await context.plant(own, good)
    t.positive_control(
        len(context.state(own)) == 1 + size, "the same call without the bad one is written", len(context.state(own))
    )


@check(
    "W4",
    "the same id in two tenants is two chunks",
    attack="Write, overwrite, replace and delete a chunk under ids that another tenant uses.",
    breach="The other tenant's chunk is changed or deleted, or a request of such a write could reach it.",
)
async def w4_same_id_in_two_tenants_is_two_chunks(t: Assertions) -> None:
    context = t.context
    a, b = context.tenant(), context.tenant()
    for tenant in (a, b):
        await context.plant(
            tenant, [Chunk("same", "doc", f"of {tenant}", context.vector()), Chunk("2", "doc", "x", context.vector())]
        )
    t.assert_equal(4, len(context.state(a, b)), "the same ids in two tenants", "they are one chunk")
    theirs = context.state(b)
    handle = context.handle(a)
    mark = len(context.recorder)
    await handle.upsert([Chunk("same", "doc", "changed", context.vector())])
    t.assert_equal(theirs, context.state(b), "overwriting an id that another tenant has", "its chunk changed")
    (hit,) = await handle.fetch(["same"])
    t.positive_control(hit.text == "changed", "the own chunk was overwritten", hit.text)
    await handle.replace("doc", [Chunk("same", "doc", "replaced", context.vector())])
    t.assert_equal(theirs, context.state(b), "replacing a document that another tenant has", "its chunks changed")
    t.positive_control(len(context.state(a)) == 1, "the own document was replaced", len(context.state(a)))
    await handle.delete(ids=["same"])
    t.assert_equal(theirs, context.state(b), "deleting an id that another tenant has", "its chunk changed")
    t.positive_control(not context.state(a), "the own chunk was deleted")
    # A step that reaches everybody's rows may leave them as they were, or not show in what is compared.
    for event in context.recorder.since(mark):
        t.assert_safe(
            context.store.carries(event.request, a) is not False,
            "a request of these writes",
            short(type(event.request).__name__),
            "it does not carry the tenant as an unconditional conjunct",
        )
    (hit,) = await context.handle(b).fetch([("doc", "same")])
    t.assert_equal(f"of {b}", hit.text, "the other tenant's fetch", "it is not its text")


@check(
    "W5",
    "an update cannot re-tag",
    attack="Overwrite a chunk through a handle that may not see it, or with the tag of another tenant or document.",
    breach="A chunk changes its rights, or a chunk outside of the handle's scope is overwritten.",
)
async def w5_update_cannot_retag(t: Assertions) -> None:
    context = t.context
    own, other = context.tenant(), context.tenant()
    handle = context.handle(own)
    await context.plant(
        own,
        [
            Chunk("fr", "d", "old", context.vector(), metadata={"lang": "fr"}),
            Chunk("en", "d", "old", context.vector(), metadata={"lang": "en"}),
        ],
    )
    await context.plant(other, [Chunk("fr", "d", "theirs", context.vector(), metadata={"lang": "en"})])
    narrow = handle.narrow(F.lang == "en")
    await narrow.upsert([Chunk("en", "d", "new", context.vector(), metadata={"lang": "en"})])
    context.store.settle()
    (hit,) = await handle.fetch(["en"])
    t.positive_control(
        hit.text == "new" and hit.tag.tenant == own, "a row inside of the handle is overwritten", hit.text
    )
    before = context.state()
    await t.refused(
        narrow.upsert([Chunk("fr", "d", "stolen", context.vector(), metadata={"lang": "en"})]),
        DeniedError,
        attacked="overwriting a row that the handle may not see",
        silent=False,
    )
    t.assert_equal(before, context.state(), "overwriting a row that the handle may not see", "it was overwritten")
    await t.refused(
        narrow.upsert([Chunk("new", "d", "x", context.vector(), metadata={"lang": "fr"})]),
        DeniedError,
        attacked="writing a row outside of the handle",
    )
    await t.refused(
        narrow.replace("d", [Chunk("en", "d", "x", context.vector(), metadata={"lang": "en"})]),
        DeniedError,
        attacked="replacing a document with rows outside of the handle",
        silent=False,
    )
    t.assert_equal(before, context.state(), "replacing a document with rows outside of the handle", "something changed")
    await t.refused(
        narrow.replace("d", []),
        DeniedError,
        attacked="emptying a document with rows outside of the handle",
        silent=False,
    )
    t.assert_equal(before, context.state(), "emptying a document with rows outside of the handle", "something changed")
    mine = next(row for row in context.census() if row.tag.tenant == own)
    await t.refused(
        context.client.raw(Upsert(own, ALWAYS, (mine._replace(tag=mine.tag._replace(tenant=other)),))),
        UntaggedWriteError,
        attacked="an update with another tenant's tag",
    )
    await handle.upsert([Chunk("fr", "d", "again", context.vector(), metadata={"lang": "en", "label": "public"})])
    tags = {row.tag.chunk: row.tag for row in context.census() if row.tag.tenant == own}
    t.assert_equal(
        (own, "d", 0, "default"),
        (tags["fr"].tenant, tags["fr"].document, tags["fr"].generation, tags["fr"].label),
        "an update whose metadata names a label",
        "the tag changed",
    )
    t.assert_equal(
        {k: v for k, v in before.items() if k[0] == other}, context.state(other), "all of that", "another's row changed"
    )


@check(
    "W6",
    "deleting a foreign id is answered as for a missing one",
    attack="Delete foreign ids and foreign documents, and compare the answers with those for missing ones.",
    breach="The row is deleted, or the answer (count, error) reveals that it exists.",
)
async def w6_delete_of_foreign_id_equals_missing(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    own = context.tenant()
    handle = context.handle(own)
    await context.plant(own, context.chunks(3, document="mine"))
    before = context.state()
    missing = await handle.delete(ids=[context.rng.word()])
    missing_document = await handle.delete(document=context.rng.word())
    foreign = [row for row in context.census() if row.tag.tenant == corpus.other_tenants[1]][:3]
    for work, right, name in (
        (handle.delete(ids=[row.tag.chunk for row in foreign]), missing, "foreign ids"),
        (handle.delete(ids=[(row.tag.document, row.tag.chunk) for row in foreign]), missing, "foreign pairs"),
        (handle.delete(document=foreign[0].tag.document), missing_document, "a foreign document"),
        (handle.delete(where=F["@document"] == foreign[0].tag.document), missing, "a foreign document by filter"),
    ):
        outcome = await t.outcome(work)
        got = ("ok", outcome[1].count) if outcome[0] == "ok" else outcome
        t.assert_equal(("ok", right.count), got, f"delete {name}", "it differs from a missing one")
        t.assert_equal(before, context.state(), f"delete {name}", "a row is gone")
    gone = await handle.narrow(F["@document"] != "mine").delete(document="mine")
    t.assert_equal(right.count, gone.count, "delete past a narrowed handle", "it differs from a missing one")
    t.assert_equal(before, context.state(), "delete past a narrowed handle", "a row is gone")
    mine = next(row for row in context.census() if row.tag.tenant == own)
    gone = await handle.delete(ids=[mine.tag.chunk])
    context.store.settle()
    t.positive_control(
        len(context.state(own)) == 2 and gone.count in (1, None), "deleting an own id works and is counted", gone.count
    )
    if context.client.adapter.capabilities.delete_counts:
        t.positive_control(gone.count == 1, "the delete is counted", gone.count)


@check(
    "W7",
    "clearing is scoped",
    attack="Delete everything, by filter and by document, as one tenant and through a narrowed handle.",
    breach="More is deleted than the handle may write, or a missing selector means everything.",
)
async def w7_clearing_is_scoped(t: Assertions) -> None:
    context = t.context
    own, other = context.tenant(), context.tenant()
    for tenant in (own, other):
        await context.plant(
            tenant, context.chunks(8, metadata=True, document="doc") + context.chunks(2, document="more")
        )
    handle = context.handle(own)
    others = {place: row for place, row in context.state().items() if place[0] != own}

    def untouched(name: str) -> None:
        now = {place: row for place, row in context.state().items() if place[0] != own}
        t.assert_equal(len(others), len(now), name, "rows of other tenants are gone")
        t.assert_safe(others == now, name, "rows of other tenants changed", "rows of other tenants changed")

    selectors: tuple[dict[str, Any], ...] = (
        {},
        {"ids": ["a"], "document": "doc"},
        {"where": None},
        {"where": {}},
        {"document": ""},
        {"ids": None},
    )
    for selector in selectors:
        await t.refused(handle.delete(**selector), attacked=f"delete with {selector}")
    t.assert_equal(10, len(context.state(own)), "a delete without a selector", "it deleted")
    t.assert_equal(0, (await handle.delete(ids=[])).count or 0, "a delete of no ids", "it deleted")
    right = [key(row) for row in context.oracle().narrowing(own, (F.lang == "fr") & (F.year >= 2001))]
    t.kit_control(len(right) < len(context.oracle().of(own, F.lang == "fr")), "the filter is all of the handle")
    await handle.narrow(F.lang == "fr").delete(where=F.year >= 2001)
    rest = {place[3] for place in context.state(own)}
    t.assert_equal(
        10 - len(right), len(rest), "delete by filter through a narrowed handle", "more or less than both conditions"
    )
    t.assert_safe(not rest & {one[2] for one in right}, "delete by filter", "a row that matches is left", "it stays")
    untouched("delete by filter through a narrowed handle")
    await handle.delete(document="more")
    t.assert_equal(0, sum(place[1] == "more" for place in context.state(own)), "delete by document", "rows are left")
    untouched("delete by document")
    await handle.delete(where=ALWAYS)
    t.positive_control(not context.state(own), "clearing one's own tenant", len(context.state(own)))
    untouched("clearing")


@check(
    "W8",
    "a conflict at creation reveals nothing",
    attack="Create chunks under ids that another tenant uses, and compare with ids that no tenant uses.",
    breach="An error or a count reveals that the id exists elsewhere.",
)
async def w8_create_conflict_reveals_nothing(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    own = context.tenant()
    handle = context.handle(own)
    fresh = await handle.upsert([Chunk(context.rng.word(), context.rng.word(), "x", context.vector())])
    t.positive_control(fresh.count == 1, "a new chunk is written", fresh.count)
    for row in [one for one in context.census() if one.tag.tenant in (corpus.other_tenants[0], corpus.small_tenant)][
        :4
    ]:
        for document in (row.tag.document, f"d-{context.rng.word()}"):
            outcome = await t.outcome(handle.upsert([Chunk(row.tag.chunk, document, "x", context.vector())]))
            got = outcome[1].count if outcome[0] == "ok" else outcome
            t.assert_equal(fresh.count, got, "create under another tenant's id", "it reveals that the id exists")
        outcome = await t.outcome(
            handle.replace(row.tag.document, [Chunk("n", row.tag.document, "x", context.vector())])
        )
        got = outcome[1].count if outcome[0] == "ok" else outcome
        t.assert_equal(1, got, "replace another tenant's document", "it reveals that the document exists")
        tags = [one.tag for one in context.census() if one.tag.tenant == own and one.tag.document == row.tag.document]
        t.assert_equal(1, len(tags), "replace another tenant's document", "the chunk is not in the own tenant")
    t.positive_control(len(context.state(own)) > 1, "the chunks are the own tenant's")


@check(
    "W9",
    "the same chunk id in two documents is two chunks",
    attack="Write, overwrite and delete one chunk id in several documents.",
    breach="One document's chunk overwrites or deletes the other's.",
)
async def w9_same_id_in_two_documents_is_two_chunks(t: Assertions) -> None:
    context = t.context
    own = context.tenant()
    handle = context.handle(own)
    names = ("a", "ab", "a:b", "A")
    await context.plant(own, [Chunk("1", name, f"in {name}", context.vector()) for name in names])
    await context.plant(
        own, [Chunk("b1", "a", "joined", context.vector()), Chunk("1", "ab1", "other", context.vector())]
    )
    t.assert_equal(len(names) + 2, len(context.state(own)), "one chunk id in several documents", "they are one chunk")
    await handle.upsert([Chunk("1", "a", "changed", context.vector())])
    context.store.settle()
    hits = {hit.document: hit.text for hit in await handle.fetch(["1"])}
    right = {**{name: f"in {name}" for name in names}, "a": "changed", "ab1": "other"}
    t.assert_equal(right, hits, "overwriting it in one document", "another document's chunk changed, or one is missing")
    await handle.delete(ids=[("ab", "1")])
    context.store.settle()
    hits = {hit.document: hit.text for hit in await handle.fetch(["1"])}
    right.pop("ab")
    t.assert_equal(right, hits, "deleting it in one document", "another document's chunk is gone")
    t.positive_control(bool(await handle.fetch([("a", "1")])), "the pair is fetched")


@check(
    "W10",
    "re-ingestion shows the old or the new version",
    attack="Read a document while it is replaced repeatedly, and interrupt replacements in the middle.",
    breach="A reader sees neither version, both, or half of one.",
)
async def w10_reingestion_shows_the_old_or_the_new_version(t: Assertions) -> None:
    context = t.context
    own = context.tenant()
    handle = context.handle(own)
    can = context.client.adapter.capabilities
    size = min(6, can.max_batch - 1)

    def version(number: int) -> list[Chunk]:
        # The ids overlap from version to version, and the number of chunks changes.
        return [
            Chunk(f"c{place + number % 3}", "doc", f"v{number}", context.vector(), metadata={"year": number})
            for place in range(size + number % 2)
        ]

    await context.plant(own, [*version(0), Chunk("keep", "other", "kept", context.vector())])

    def judge(hits: Any, name: str) -> None:
        counts: dict[str, int] = {}
        for hit in hits:
            if hit.document == "doc":
                counts[hit.text or ""] = counts.get(hit.text or "", 0) + 1
        whole = {text for text, count in counts.items() if count == size + int(text[1:]) % 2}
        t.assert_safe(bool(whole), name, counts, "neither version is whole")
        if can.atomic_replace:
            t.assert_equal(1, len(counts), name, "two versions at once, where the replacement is declared atomic")

    ends: list[int] = []

    async def write() -> None:
        try:
            for number in range(1, 9):
                await handle.replace("doc", version(number))
                await context.pause(0.001)
        finally:
            ends.append(1)

    async def read() -> None:
        turns = 0
        while (not ends or turns < 2) and turns < 400:
            judge((await handle.page(F["@document"] == "doc", 100)).hits, "scan during re-ingestion")
            judge(await handle.search(context.corpus.centre, 50), "search during re-ingestion")
            turns += 1
            await context.pause(0.0005)

    await context.together([write, read, read])
    context.store.settle()
    hits = await handle.all()
    t.positive_control(
        {hit.text for hit in hits} == {"v8", "kept"}, "the last version is there, and the other document", hits
    )
    t.assert_equal(size, len([hit for hit in hits if hit.text == "v8"]), "the last version", "old chunks are left")
    number = 9
    for after in (0.0002, 0.001, 0.002, 0.004, 0.008):
        with contextlib.suppress(VectorACLError):
            await context.cut(lambda limit, n=number: handle.replace("doc", version(n), timeout=limit), after)  # type: ignore[misc]
        number += 1
        await context.pause(0.03)
        context.store.settle()
        judge(await handle.all(), f"re-ingestion cut after {after} s")
    await t.refused(
        handle.replace("doc", [Chunk("x", "another", vector=context.vector())]), attacked="replace with another's chunk"
    )
    await handle.replace("doc", [])
    context.store.settle()
    t.assert_equal(
        {"kept"}, {hit.text for hit in await handle.all()}, "replace with nothing", "the document is not empty"
    )


@check(
    "W11",
    "only an operator's copy chooses a tag",
    attack=(
        "Copy rows whose tags differ from those of new chunks, then write to the same documents, and ask a handle "
        "to write a given tag unchanged."
    ),
    breach="A copy changes a generation, a label, an expiry or another part of a tag, or a handle can choose one.",
    optional=True,
)
async def w11_only_an_operator_copy_chooses_a_tag(t: Assertions) -> None:
    context = t.context
    own, other = context.tenant(), context.tenant()
    handle = context.handle(own)
    calls: dict[str, Callable[[], Any]] = {
        "upsert": lambda: handle.upsert(context.chunks(1), verbatim=True),
        "replace": lambda: handle.replace("d", context.chunks(1, document="d"), verbatim=True),
        "load": lambda: handle.load(iter(context.chunks(1)), verbatim=True),
    }
    for name, call in calls.items():
        await t.refused(call(), TypeError, attacked=f"{name} of a tag as it is, by a handle")
    rows = tuple(
        record(
            context,
            own,
            document=document,
            chunk=chunk,
            generation=generation,
            label=label,
            rev=rev,
            expires=expires,
            producer="someone",
            path="load",
            time=1234.5,
            position=position,
        )
        for document, chunk, generation, label, rev, expires, position in (
            ("d", "1", 4, "default", 0, 253_402_300_799.0, 3),
            ("d", "2", 4, "internal", 7, 4_000_000_000.25, 0),
            ("e", "1", 0, "#staged", 1, 0.5, 2**31 - 1),
        )
    )
    copied = context.client.copied(own, rows)
    if not context.client.adapter.capabilities.verbatim:
        await t.refused(copied, UnsupportedPredicateError, attacked="a copy, which is not declared")
        raise Unsupported("writing tags as they are")
    foreign = record(context, other)
    await t.refused(
        context.client.copied(own, (*rows, foreign)), UntaggedWriteError, attacked="a copy with a row of another tenant"
    )
    t.assert_equal({}, context.state(own, other), "a copy with a row of another tenant", "something was written")

    def tags() -> list[Tag]:
        return sorted(row.tag for row in context.census() if row.tag.tenant == own)

    right = sorted(row.tag for row in rows)
    await copied
    t.assert_equal(right, tags(), "a copy", "a tag changed")
    await context.client.copied(own, rows)
    t.assert_equal(right, tags(), "the same copy again", "a tag changed, or a row is there twice")
    copies = {hit.tag for hit in await handle.all()}
    t.positive_control(copies == set(right), "the copied rows are the tenant's", len(copies))
    await handle.upsert([Chunk("3", "d", "new", context.vector())])
    t.assert_equal(
        {4}, {tag.generation for tag in tags() if tag.document == "d"}, "an upsert after a copy", "two generations"
    )
    await handle.replace("d", [Chunk("1", "d", "newer", context.vector())])
    context.store.settle()
    t.assert_equal(
        [(5, "default", 0)],
        [(hit.tag.generation, hit.tag.label, hit.tag.rev) for hit in await handle.all(F["@document"] == "d")],
        "a replacement after a copy",
        "it is not the next generation, in its own tag",
    )


@check(
    "W12",
    "concurrent writers of one document do not mix",
    attack="Let several writers concurrently replace one document and add to another, in threads or as tasks.",
    breach=(
        "Two versions are mixed, a written chunk is missing, a row combines two writers' values, or a writer is "
        "refused for a reason that it cannot act on."
    ),
)
async def w12_writers_of_one_document_take_turns(t: Assertions) -> None:
    context = t.context
    own = context.tenant()
    writers, size = 4, min(5, context.client.adapter.capabilities.max_batch - 1)
    vectors = [context.vector(0.1 + 0.1 * place) for place in range(writers)]
    added = ["common"]

    def writer(number: int, turn: int) -> Any:
        text = f"w{number}t{turn}"
        handle = context.handle(own)

        def made(document: str, name: str) -> Chunk:
            return Chunk(name, document, text, vectors[number], metadata={"year": number, "note": text})

        async def work() -> None:
            names = ["c0", "c1", *(f"of-{text}-{place}" for place in range(size - 2 + number % 2))]
            version = [made("one", name) for name in names]
            await _again(t, lambda: handle.replace("one", version), f"replace by writer {number}")
            more = [made("two", f"of-{text}"), made("two", "common")]
            added.append(more[0].id)
            await _again(t, lambda: handle.upsert(more), f"upsert by writer {number}")

        return work

    for turn in range(3):
        await context.together([writer(number, turn) for number in range(writers)], width=writers)
        context.store.settle()
        hits = await context.handle(own).all(include={"text", "metadata", "vector"})
        for hit in hits:
            number = int((hit.text or "w0t")[1:].partition("t")[0])
            whole = hit.metadata == {"year": number, "note": hit.text} and _same_direction(hit.vector, vectors[number])
            t.assert_safe(whole, f"row {hit.id!r} of {hit.document!r}", hit.text, "it is half of one writer's row")
        one = [hit for hit in hits if hit.document == "one"]
        texts = sorted({hit.text or "" for hit in one})
        t.assert_equal(1, len(texts), "one document, replaced by several writers", f"versions are mixed: {texts}")
        right = size + int(texts[0][1:].partition("t")[0]) % 2
        t.assert_equal(right, len(one), "one document, replaced by several writers", "the version is not whole")
        t.assert_equal(
            sorted(added),
            sorted(hit.id for hit in hits if hit.document == "two"),
            "one document, added to by several writers",
            "a chunk that was written is gone, or there twice",
        )
        if context.client.adapter.capabilities.atomic_replace:
            stored = [
                row.tag.generation for row in context.census() if (row.tag.tenant, row.tag.document) == (own, "one")
            ]
            t.assert_equal(right, len(stored), "the census of that document", "old chunks are left")
            t.assert_equal(1, len(set(stored)), "the census of that document", "its chunks are of several generations")
    last = [Chunk(f"l{place}", "one", "last", context.vector()) for place in range(3)]
    await context.handle(own).replace("one", last)
    context.store.settle()
    got = sorted(hit.text or "" for hit in await context.handle(own).all(F["@document"] == "one"))
    t.positive_control(got == ["last"] * 3, "a writer on its own replaces the document", got)


async def _again(t: Assertions, make: Any, what: str) -> None:
    """Write, and again where the store asks for it: a conflict is an answer, as long as it is named."""
    for _ in range(40):
        try:
            await make()
        except StoreError as error:
            retry = error.code == "conflict" or error.retryable
            t.assert_safe(retry, what, f"{error.code}: {short(error)}", "it is neither written nor to be tried again")
            await t.context.pause(t.context.rng.py.uniform(0.001, 0.02))
        else:
            return
    t.assert_safe(safe=False, attacked=what, back="40 conflicts in a row", why="others' writes keep it out for good")


def _same_direction(one: Any, other: Any) -> bool:
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) > 0.9999
