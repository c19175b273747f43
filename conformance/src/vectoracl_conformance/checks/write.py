"""W1 to W12: writing."""

from __future__ import annotations

import contextlib
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
from vectoracl_conformance.context.assertions import Trial, Unsupported, short
from vectoracl_conformance.context.check_context import Lab
from vectoracl_conformance.context.oracle import key
from vectoracl_conformance.context.registry import check


def record(lab: Lab, tenant: str, **parts: Any) -> Record:
    """Return a new record, whole and tagged, of *tenant*; *parts* replace parts of its tag."""
    tag = Tag(tenant, f"d-{lab.rng.word()}", f"c-{lab.rng.word()}", producer="kit", path="upsert", time=1.0)
    return Record(tag._replace(**parts), lab.rng.word(), lab.vector(), {"note": lab.rng.word()})


@check(
    "W1",
    "an untagged write is rejected",
    attack="Hand the adapter records without a tag, or with a hole in it, among whole ones.",
    breach="It is accepted, repaired, or a part of the call is written.",
)
async def w1(t: Trial) -> None:
    lab = t.lab
    own = lab.tenant()
    await lab.door.raw(Upsert(own, ALWAYS, (record(lab, own), record(lab, own))))
    t.control(len(lab.state(own)) == 2, "whole records are written", len(lab.state(own)))
    before = lab.state()
    whole = record(lab, own)
    for name, bad in (
        ("no tag", whole._replace(tag=None)),  # type: ignore[arg-type]  # the attack
        ("no tenant", record(lab, "")),
        ("no document", record(lab, own, document="")),
        ("no chunk id", record(lab, own, chunk="")),
        ("no label", record(lab, own, label="")),
        ("a tag that is a dict", whole._replace(tag={"tenant": own})),  # type: ignore[arg-type]  # likewise
    ):
        for call in ((bad,), (record(lab, own), bad)):
            await t.refused(
                lab.door.raw(Upsert(own, ALWAYS, call)), UntaggedWriteError, attacked=f"upsert of a record with {name}"
            )
            await t.refused(
                lab.door.raw(Replace(own, ALWAYS, whole.tag.document, call)),
                UntaggedWriteError,
                attacked=f"replace with a record with {name}",
            )
    await t.refused(
        lab.handle(own).upsert([Chunk("", "d", vector=lab.vector())]), InvalidInputError, attacked="a chunk without id"
    )
    await t.refused(
        lab.handle(own).upsert([Chunk("c", "", vector=lab.vector())]), InvalidInputError, attacked="without document"
    )
    t.same(before, lab.state(), "the store after all of that", "something was written")


@check(
    "W2",
    "another tenant's tag is rejected",
    attack="Hand the adapter a record with the tag of another tenant than the operation's, alone and among right ones.",
    breach="It is written, under either tenant.",
)
async def w2(t: Trial) -> None:
    lab = t.lab
    own, victim = lab.tenant(), lab.tenant()
    await lab.plant(victim, lab.chunks(2))
    await lab.door.raw(Upsert(own, ALWAYS, (record(lab, own),)))
    t.control(len(lab.state(own)) == 1, "a right record is written")
    before = lab.state()
    theirs = next(row for row in lab.census() if row.tag.tenant == victim)
    for bad in (record(lab, victim), theirs._replace(text="overwritten"), record(lab, own.upper())):
        for call in ((bad,), (record(lab, own), bad), (bad, record(lab, own))):
            await t.refused(
                lab.door.raw(Upsert(own, ALWAYS, call)), UntaggedWriteError, attacked="upsert with another tenant's tag"
            )
            await t.refused(
                lab.door.raw(Replace(own, ALWAYS, bad.tag.document, call)),
                UntaggedWriteError,
                attacked="replace with another tenant's tag",
            )
    t.same(before, lab.state(), "the store after all of that", "something was written")


@check(
    "W3",
    "one bad record: nothing is written",
    attack="Put one bad record first, in the middle, last, and behind a client's usual batch size.",
    breach="The good ones were written: half a call is in the store.",
)
async def w3(t: Trial) -> None:
    lab = t.lab
    own = lab.tenant()
    handle = lab.handle(own)
    can = lab.door.adapter.capabilities
    await lab.plant(own, [Chunk("taken", "d", "old", lab.vector(), metadata={"lang": "fr"})])
    t.control(len(lab.state(own)) == 1, "a right record is written")
    before = lab.state()
    size = min(can.max_batch, 140)
    bad = [
        Chunk("b", "d", vector=[0.5]),
        Chunk("b", "d", vector=[float("nan")] * len(lab.corpus.centre)),
        Chunk("b", "d", vector=lab.vector(), metadata={"year": "late"}),
        Chunk("b", "d", vector=lab.vector(), metadata={"tenant": "x"}),
        Chunk("b", "d\0", vector=lab.vector()),
    ]
    for place in sorted({0, size // 2, size - 1, min(size - 1, 100)}):
        for one in bad:
            call = lab.chunks(size - 1)
            call.insert(place, one)
            await t.refused(handle.upsert(call), attacked=f"a bad chunk at place {place} of {size}")
    t.same(before, lab.state(), "the store after all of that", "a part of a call was written")
    for place in (0, size // 2, size - 1):
        records = [record(lab, own) for _ in range(size - 1)]
        records.insert(place, record(lab, lab.corpus.many))
        await t.refused(
            lab.door.raw(Upsert(own, ALWAYS, tuple(records))),
            UntaggedWriteError,
            attacked=f"a foreign record at place {place} of {size}",
        )
        t.same(before, lab.state(), f"a foreign record at place {place}", "a part of the call was written")
    narrow = handle.narrow(F.lang == "en")
    if can.atomic_upsert:
        for place in (0, size // 2, size - 1):
            call = lab.chunks(size - 1, document="n")
            call = [replace(one, metadata={"lang": "en"}) for one in call]
            call.insert(place, Chunk("taken", "d", "new", lab.vector(), metadata={"lang": "en"}))
            await t.refused(
                narrow.upsert(call), DeniedError, attacked=f"overwriting a row outside of the handle at {place}",
                silent=False,
            )  # fmt: skip
            t.same(before, lab.state(), f"overwriting a row outside of the handle at place {place}", "part was written")
    good = lab.chunks(size)
    await lab.plant(own, good)
    t.control(len(lab.state(own)) == 1 + size, "the same call without the bad one is written", len(lab.state(own)))


@check(
    "W4",
    "the same id in two tenants is two chunks",
    attack="Write, overwrite, replace and delete a chunk under the ids that another tenant uses.",
    breach="The other tenant's chunk changes or is gone, or a request of such a write could reach it.",
)
async def w4(t: Trial) -> None:
    lab = t.lab
    a, b = lab.tenant(), lab.tenant()
    for tenant in (a, b):
        await lab.plant(
            tenant, [Chunk("same", "doc", f"of {tenant}", lab.vector()), Chunk("2", "doc", "x", lab.vector())]
        )
    t.same(4, len(lab.state(a, b)), "the same ids in two tenants", "they are one chunk")
    theirs = lab.state(b)
    handle = lab.handle(a)
    mark = len(lab.tape)
    await handle.upsert([Chunk("same", "doc", "changed", lab.vector())])
    t.same(theirs, lab.state(b), "overwriting an id that another tenant has", "its chunk changed")
    (hit,) = await handle.fetch(["same"])
    t.control(hit.text == "changed", "the own chunk was overwritten", hit.text)
    await handle.replace("doc", [Chunk("same", "doc", "replaced", lab.vector())])
    t.same(theirs, lab.state(b), "replacing a document that another tenant has", "its chunks changed")
    t.control(len(lab.state(a)) == 1, "the own document was replaced", len(lab.state(a)))
    await handle.delete(ids=["same"])
    t.same(theirs, lab.state(b), "deleting an id that another tenant has", "its chunk changed")
    t.control(not lab.state(a), "the own chunk was deleted")
    # A step that reaches everybody's rows may leave them as they were, or not show in what is compared.
    for event in lab.tape.since(mark):
        t.attack(
            lab.store.carries(event.request, a) is not False,
            "a request of these writes",
            short(type(event.request).__name__),
            "it does not carry the tenant as an unconditional conjunct",
        )
    (hit,) = await lab.handle(b).fetch([("doc", "same")])
    t.same(f"of {b}", hit.text, "the other tenant's fetch", "it is not its text")


@check(
    "W5",
    "an update cannot re-tag",
    attack="Overwrite a chunk through a handle that may not see it, or with a tag of another tenant or document.",
    breach="A chunk changes its rights, or one outside of the handle is overwritten.",
)
async def w5(t: Trial) -> None:
    lab = t.lab
    own, other = lab.tenant(), lab.tenant()
    handle = lab.handle(own)
    await lab.plant(
        own,
        [
            Chunk("fr", "d", "old", lab.vector(), metadata={"lang": "fr"}),
            Chunk("en", "d", "old", lab.vector(), metadata={"lang": "en"}),
        ],
    )
    await lab.plant(other, [Chunk("fr", "d", "theirs", lab.vector(), metadata={"lang": "en"})])
    narrow = handle.narrow(F.lang == "en")
    await narrow.upsert([Chunk("en", "d", "new", lab.vector(), metadata={"lang": "en"})])
    lab.store.settle()
    (hit,) = await handle.fetch(["en"])
    t.control(hit.text == "new" and hit.tag.tenant == own, "a row inside of the handle is overwritten", hit.text)
    before = lab.state()
    await t.refused(
        narrow.upsert([Chunk("fr", "d", "stolen", lab.vector(), metadata={"lang": "en"})]),
        DeniedError,
        attacked="overwriting a row that the handle may not see",
        silent=False,
    )
    t.same(before, lab.state(), "overwriting a row that the handle may not see", "it was overwritten")
    await t.refused(
        narrow.upsert([Chunk("new", "d", "x", lab.vector(), metadata={"lang": "fr"})]),
        DeniedError,
        attacked="writing a row outside of the handle",
    )
    await t.refused(
        narrow.replace("d", [Chunk("en", "d", "x", lab.vector(), metadata={"lang": "en"})]),
        DeniedError,
        attacked="replacing a document with rows outside of the handle",
        silent=False,
    )
    t.same(before, lab.state(), "replacing a document with rows outside of the handle", "something changed")
    await t.refused(
        narrow.replace("d", []),
        DeniedError,
        attacked="emptying a document with rows outside of the handle",
        silent=False,
    )
    t.same(before, lab.state(), "emptying a document with rows outside of the handle", "something changed")
    mine = next(row for row in lab.census() if row.tag.tenant == own)
    await t.refused(
        lab.door.raw(Upsert(own, ALWAYS, (mine._replace(tag=mine.tag._replace(tenant=other)),))),
        UntaggedWriteError,
        attacked="an update with another tenant's tag",
    )
    await handle.upsert([Chunk("fr", "d", "again", lab.vector(), metadata={"lang": "en", "label": "public"})])
    tags = {row.tag.chunk: row.tag for row in lab.census() if row.tag.tenant == own}
    t.same(
        (own, "d", 0, "default"),
        (tags["fr"].tenant, tags["fr"].document, tags["fr"].generation, tags["fr"].label),
        "an update whose metadata names a label",
        "the tag changed",
    )
    t.same({k: v for k, v in before.items() if k[0] == other}, lab.state(other), "all of that", "another's row changed")


@check(
    "W6",
    "deleting a foreign id answers as for a missing one",
    attack="Delete foreign ids and foreign documents, and compare the answer with that for missing ones.",
    breach="The row is gone, or the answer (count, error) tells that it exists.",
)
async def w6(t: Trial) -> None:
    lab, corpus = t.lab, t.lab.corpus
    own = lab.tenant()
    handle = lab.handle(own)
    await lab.plant(own, lab.chunks(3, document="mine"))
    before = lab.state()
    missing = await handle.delete(ids=[lab.rng.word()])
    missing_document = await handle.delete(document=lab.rng.word())
    foreign = [row for row in lab.census() if row.tag.tenant == corpus.foes[1]][:3]
    for work, right, name in (
        (handle.delete(ids=[row.tag.chunk for row in foreign]), missing, "foreign ids"),
        (handle.delete(ids=[(row.tag.document, row.tag.chunk) for row in foreign]), missing, "foreign pairs"),
        (handle.delete(document=foreign[0].tag.document), missing_document, "a foreign document"),
        (handle.delete(where=F["@document"] == foreign[0].tag.document), missing, "a foreign document by filter"),
    ):
        outcome = await t.outcome(work)
        got = ("ok", outcome[1].count) if outcome[0] == "ok" else outcome
        t.same(("ok", right.count), got, f"delete {name}", "it differs from a missing one")
        t.same(before, lab.state(), f"delete {name}", "a row is gone")
    gone = await handle.narrow(F["@document"] != "mine").delete(document="mine")
    t.same(right.count, gone.count, "delete past a narrowed handle", "it differs from a missing one")
    t.same(before, lab.state(), "delete past a narrowed handle", "a row is gone")
    mine = next(row for row in lab.census() if row.tag.tenant == own)
    gone = await handle.delete(ids=[mine.tag.chunk])
    lab.store.settle()
    t.control(
        len(lab.state(own)) == 2 and gone.count in (1, None), "deleting an own id works and is counted", gone.count
    )
    if lab.door.adapter.capabilities.delete_counts:
        t.control(gone.count == 1, "the delete is counted", gone.count)


@check(
    "W7",
    "clearing is scoped",
    attack="Delete everything, by filter and by document, as one tenant and through a narrowed handle.",
    breach="More than the handle may touch is gone, or a missing selector means everything.",
)
async def w7(t: Trial) -> None:
    lab = t.lab
    own, other = lab.tenant(), lab.tenant()
    for tenant in (own, other):
        await lab.plant(tenant, lab.chunks(8, metadata=True, document="doc") + lab.chunks(2, document="more"))
    handle = lab.handle(own)
    others = {place: row for place, row in lab.state().items() if place[0] != own}

    def untouched(name: str) -> None:
        now = {place: row for place, row in lab.state().items() if place[0] != own}
        t.same(len(others), len(now), name, "rows of other tenants are gone")
        t.attack(others == now, name, "rows of other tenants changed", "rows of other tenants changed")

    selectors: tuple[dict[str, Any], ...] = (
        {},
        {"ids": ["a"], "document": "doc"},
        {"where": None},
        {"where": {}},
        {"document": ""},
        {"ids": None},
    )
    for given in selectors:
        await t.refused(handle.delete(**given), attacked=f"delete with {given}")
    t.same(10, len(lab.state(own)), "a delete without a selector", "it deleted")
    t.same(0, (await handle.delete(ids=[])).count or 0, "a delete of no ids", "it deleted")
    right = [key(row) for row in lab.oracle().narrowing(own, (F.lang == "fr") & (F.year >= 2001))]
    t.kit(len(right) < len(lab.oracle().of(own, F.lang == "fr")), "the filter is all of the handle")
    await handle.narrow(F.lang == "fr").delete(where=F.year >= 2001)
    left = {place[3] for place in lab.state(own)}
    t.same(
        10 - len(right), len(left), "delete by filter through a narrowed handle", "more or less than both conditions"
    )
    t.attack(not left & {one[2] for one in right}, "delete by filter", "a row that matches is left", "it stays")
    untouched("delete by filter through a narrowed handle")
    await handle.delete(document="more")
    t.same(0, sum(place[1] == "more" for place in lab.state(own)), "delete by document", "rows are left")
    untouched("delete by document")
    await handle.delete(where=ALWAYS)
    t.control(not lab.state(own), "clearing one's own tenant", len(lab.state(own)))
    untouched("clearing")


@check(
    "W8",
    "a create conflict is no oracle",
    attack="Create chunks under ids that another tenant has, and compare with ids that nobody has.",
    breach="An error or a count tells that the id exists elsewhere.",
)
async def w8(t: Trial) -> None:
    lab, corpus = t.lab, t.lab.corpus
    own = lab.tenant()
    handle = lab.handle(own)
    fresh = await handle.upsert([Chunk(lab.rng.word(), lab.rng.word(), "x", lab.vector())])
    t.control(fresh.count == 1, "a new chunk is written", fresh.count)
    for row in [one for one in lab.census() if one.tag.tenant in (corpus.foes[0], corpus.few)][:4]:
        for document in (row.tag.document, f"d-{lab.rng.word()}"):
            outcome = await t.outcome(handle.upsert([Chunk(row.tag.chunk, document, "x", lab.vector())]))
            got = outcome[1].count if outcome[0] == "ok" else outcome
            t.same(fresh.count, got, "create under another tenant's id", "it tells that the id exists")
        outcome = await t.outcome(handle.replace(row.tag.document, [Chunk("n", row.tag.document, "x", lab.vector())]))
        got = outcome[1].count if outcome[0] == "ok" else outcome
        t.same(1, got, "replace another tenant's document", "it tells that the document exists")
        tags = [one.tag for one in lab.census() if one.tag.tenant == own and one.tag.document == row.tag.document]
        t.same(1, len(tags), "replace another tenant's document", "the chunk is not in the own tenant")
    t.control(len(lab.state(own)) > 1, "the chunks are the own tenant's")


@check(
    "W9",
    "the same chunk id in two documents is two chunks",
    attack="Write, overwrite and delete one chunk id in several documents.",
    breach="One document's chunk overwrites or deletes the other's.",
)
async def w9(t: Trial) -> None:
    lab = t.lab
    own = lab.tenant()
    handle = lab.handle(own)
    names = ("a", "ab", "a:b", "A")
    await lab.plant(own, [Chunk("1", name, f"in {name}", lab.vector()) for name in names])
    await lab.plant(own, [Chunk("b1", "a", "joined", lab.vector()), Chunk("1", "ab1", "other", lab.vector())])
    t.same(len(names) + 2, len(lab.state(own)), "one chunk id in several documents", "they are one chunk")
    await handle.upsert([Chunk("1", "a", "changed", lab.vector())])
    lab.store.settle()
    hits = {hit.document: hit.text for hit in await handle.fetch(["1"])}
    right = {**{name: f"in {name}" for name in names}, "a": "changed", "ab1": "other"}
    t.same(right, hits, "overwriting it in one document", "another document's chunk changed, or one is missing")
    await handle.delete(ids=[("ab", "1")])
    lab.store.settle()
    hits = {hit.document: hit.text for hit in await handle.fetch(["1"])}
    right.pop("ab")
    t.same(right, hits, "deleting it in one document", "another document's chunk is gone")
    t.control(bool(await handle.fetch([("a", "1")])), "the pair is fetched")


@check(
    "W10",
    "re-ingestion shows the old or the new version",
    attack="Read a document while it is replaced again and again, and cut replacements in the middle.",
    breach="A reader sees neither version, both, or half of one.",
)
async def w10(t: Trial) -> None:
    lab = t.lab
    own = lab.tenant()
    handle = lab.handle(own)
    can = lab.door.adapter.capabilities
    size = 6

    def version(number: int) -> list[Chunk]:
        # The ids overlap from version to version, and the number of chunks changes.
        return [
            Chunk(f"c{place + number % 3}", "doc", f"v{number}", lab.vector(), metadata={"year": number})
            for place in range(size + number % 2)
        ]

    await lab.plant(own, [*version(0), Chunk("keep", "other", "kept", lab.vector())])

    def judge(hits: Any, name: str) -> None:
        seen: dict[str, int] = {}
        for hit in hits:
            if hit.document == "doc":
                seen[hit.text or ""] = seen.get(hit.text or "", 0) + 1
        whole = {text for text, count in seen.items() if count == size + int(text[1:]) % 2}
        t.attack(bool(whole), name, seen, "neither version is whole")
        if can.atomic_replace:
            t.same(1, len(seen), name, "two versions at once, where the replacement is declared atomic")

    done: list[int] = []

    async def write() -> None:
        try:
            for number in range(1, 9):
                await handle.replace("doc", version(number))
                await lab.pause(0.001)
        finally:
            done.append(1)

    async def read() -> None:
        turns = 0
        while (not done or turns < 2) and turns < 400:
            judge((await handle.page(F["@document"] == "doc", 100)).hits, "scan during re-ingestion")
            judge(await handle.search(lab.corpus.centre, 50), "search during re-ingestion")
            turns += 1
            await lab.pause(0.0005)

    await lab.together([write, read, read])
    lab.store.settle()
    hits = await handle.all()
    t.control({hit.text for hit in hits} == {"v8", "kept"}, "the last version is there, and the other document", hits)
    t.same(size, len([hit for hit in hits if hit.text == "v8"]), "the last version", "old chunks are left")
    number = 9
    for after in (0.0002, 0.001, 0.002, 0.004, 0.008):
        with contextlib.suppress(VectorACLError):
            await lab.cut(lambda limit, n=number: handle.replace("doc", version(n), timeout=limit), after)  # type: ignore[misc]
        number += 1
        await lab.pause(0.03)
        lab.store.settle()
        judge(await handle.all(), f"re-ingestion cut after {after} s")
    await t.refused(
        handle.replace("doc", [Chunk("x", "another", vector=lab.vector())]), attacked="replace with another's chunk"
    )
    await handle.replace("doc", [])
    lab.store.settle()
    t.same({"kept"}, {hit.text for hit in await handle.all()}, "replace with nothing", "the document is not empty")


@check(
    "W11",
    "only an operator's copy chooses a tag",
    attack="Copy rows whose tags are not those of a new chunk; then write to the same documents, and ask a handle to "
    "write a tag as it is.",
    breach="A copy changes a generation, a label, an expiry or another part of a tag; or a handle chooses one.",
    optional=True,
)
async def w11(t: Trial) -> None:
    lab = t.lab
    own, other = lab.tenant(), lab.tenant()
    handle = lab.handle(own)
    for name, call in (
        ("upsert", lambda: handle.upsert(lab.chunks(1), verbatim=True)),
        ("replace", lambda: handle.replace("d", lab.chunks(1, document="d"), verbatim=True)),
        ("load", lambda: handle.load(iter(lab.chunks(1)), verbatim=True)),
    ):
        await t.refused(call(), TypeError, attacked=f"{name} of a tag as it is, by a handle")
    rows = tuple(
        record(
            lab,
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
    copied = lab.door.copied(own, rows)
    if not lab.door.adapter.capabilities.verbatim:
        await t.refused(copied, UnsupportedPredicateError, attacked="a copy, which is not declared")
        raise Unsupported("writing tags as they are")
    foreign = record(lab, other)
    await t.refused(
        lab.door.copied(own, (*rows, foreign)), UntaggedWriteError, attacked="a copy with a row of another tenant"
    )
    t.same({}, lab.state(own, other), "a copy with a row of another tenant", "something was written")

    def tags() -> list[Tag]:
        return sorted(row.tag for row in lab.census() if row.tag.tenant == own)

    right = sorted(row.tag for row in rows)
    await copied
    t.same(right, tags(), "a copy", "a tag changed")
    await lab.door.copied(own, rows)
    t.same(right, tags(), "the same copy again", "a tag changed, or a row is there twice")
    shown = {hit.tag for hit in await handle.all()}
    t.control(shown == set(right), "the copied rows are the tenant's", len(shown))
    await handle.upsert([Chunk("3", "d", "new", lab.vector())])
    t.same({4}, {tag.generation for tag in tags() if tag.document == "d"}, "an upsert after a copy", "two generations")
    await handle.replace("d", [Chunk("1", "d", "newer", lab.vector())])
    lab.store.settle()
    t.same(
        [(5, "default", 0)],
        [(hit.tag.generation, hit.tag.label, hit.tag.rev) for hit in await handle.all(F["@document"] == "d")],
        "a replacement after a copy",
        "it is not the next generation, in a tag of its own",
    )


@check(
    "W12",
    "writers of one document take turns",
    attack="Let several writers replace one document, and add to another, side by side, in threads or as tasks.",
    breach="Two versions are mixed, a chunk that was written is gone, a row is half of one writer's and half of "
    "another's, or a writer is turned away for no reason that it can act on.",
)
async def w12(t: Trial) -> None:
    lab = t.lab
    own = lab.tenant()
    writers, size = 4, 5
    vectors = [lab.vector(0.1 + 0.1 * place) for place in range(writers)]
    added = ["common"]

    def writer(number: int, turn: int) -> Any:
        text = f"w{number}t{turn}"
        handle = lab.handle(own)

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
        await lab.together([writer(number, turn) for number in range(writers)], width=writers)
        lab.store.settle()
        hits = await lab.handle(own).all(include={"text", "metadata", "vector"})
        for hit in hits:
            number = int((hit.text or "w0t")[1:].partition("t")[0])
            whole = hit.metadata == {"year": number, "note": hit.text} and _same_direction(hit.vector, vectors[number])
            t.attack(whole, f"row {hit.id!r} of {hit.document!r}", hit.text, "it is half of one writer's row")
        one = [hit for hit in hits if hit.document == "one"]
        texts = sorted({hit.text or "" for hit in one})
        t.same(1, len(texts), "one document, replaced by several writers", f"versions are mixed: {texts}")
        right = size + int(texts[0][1:].partition("t")[0]) % 2
        t.same(right, len(one), "one document, replaced by several writers", "the version is not whole")
        t.same(
            sorted(added),
            sorted(hit.id for hit in hits if hit.document == "two"),
            "one document, added to by several writers",
            "a chunk that was written is gone, or there twice",
        )
        if lab.door.adapter.capabilities.atomic_replace:
            stored = [row.tag.generation for row in lab.census() if (row.tag.tenant, row.tag.document) == (own, "one")]
            t.same(right, len(stored), "the census of that document", "old chunks are left")
            t.same(1, len(set(stored)), "the census of that document", "its chunks are of several generations")
    last = [Chunk(f"l{place}", "one", "last", lab.vector()) for place in range(3)]
    await lab.handle(own).replace("one", last)
    lab.store.settle()
    got = sorted(hit.text or "" for hit in await lab.handle(own).all(F["@document"] == "one"))
    t.control(got == ["last"] * 3, "a writer on its own replaces the document", got)


async def _again(t: Trial, make: Any, what: str) -> None:
    """Write, and again where the store asks for it: a conflict is an answer, as long as it is named."""
    for _ in range(40):
        try:
            await make()
        except StoreError as error:
            asked = error.code == "conflict" or error.retryable
            t.attack(asked, what, f"{error.code}: {short(error)}", "it was neither written nor told to try again")
            await t.lab.pause(t.lab.rng.py.uniform(0.001, 0.02))
        else:
            return
    t.attack(safe=False, attacked=what, back="40 conflicts in a row", why="others' writes keep it out for good")


def _same_direction(one: Any, other: Any) -> bool:
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) > 0.9999
