"""G1 to G12: rights inside a tenant, which a registry decides before anything is ranked."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from vectoracl import Access, ConfigError, DeniedError, Entry, HeldError, Lexical, PostureError, Principal, RefusedError
from vectoracl.adapter_api.operations import LabelChange, Relabel
from vectoracl.model.records import NEVER_EXPIRES
from vectoracl_conformance.context.assertions import Assertions
from vectoracl_conformance.context.check_context import user
from vectoracl_conformance.context.governed import BRIEF_SECONDS, LEVELS, Governed
from vectoracl_conformance.context.registry import check
from vectoracl_conformance.isolated.governed_context import PROVISION

Step = Callable[[], Awaitable[Any]]
EVERYONE = Entry("tenant", write=True)
# What directories really send: these are names, and mean nothing but themselves.
GROUPS = ("read:*", "a b", "50% %_x", "hr' OR '1'='1", "👩\u200d💻 devs", "a")


async def _world(t: Assertions, *documents: str, source: str = "") -> tuple[Governed, Principal]:
    """Return a tenant in which everyone reads and writes the label "open", with *documents* under it, and a user."""
    world = Governed(t)
    await world.define("open", EVERYONE)
    ann = world.person(id="ann", groups=[GROUPS[0]], attributes={"clearance": "internal", "regions": ["eu"]})
    await world.write(ann, *documents, source=source)
    return world, ann


@check(
    "G1",
    "a right that is taken is gone at the next query, and no chunk was written for it",
    attack=(
        "Take a right away in each way there is: from the label, by a denial, a move of the document, an attribute, "
        "a hold, an expiry, a quarantine. Ask by every way to read, with handles from before, and try to write."
    ),
    breach="Something is still shown, counted or changed, or chunks were written to make it so.",
    optional=True,
)
async def g1_revocation_at_the_next_query(t: Assertions) -> None:
    kept, lost = f"d-{t.context.rng.word()}", f"d-{t.context.rng.word()}"
    for name in _TAKEN:
        world, ann = await _world(t, kept)
        crawler = world.person(id="crawler")
        await world.define("own", Entry("user:ann", write=True), Entry("user:crawler", write=True))
        await world.define("closed")
        await world.govern("classify", lost, "own")
        await world.write(crawler, lost, source="crawl")
        await _reconciled(world)
        before = world.handle(ann)
        await world.judge(ann, [kept, lost], f"before the right is taken ({name})", before)
        await world.unchanged(partial(_take, world, name, lost), f"a right that is taken ({name})")
        await world.judge(ann, [kept], f"with a handle from before ({name})", before)
        await world.judge(ann, [kept], f"after the right was taken ({name})")
        await _like_missing(world, ann, lost)
        if name not in _MAY_STILL_WRITE:
            rows = world.rows()
            outcomes = await world.writes(ann, lost)
            t.assert_equal(rows, world.rows(), f"writes ({name}: {outcomes})", "they changed what it may not write")
        await _reconciled(world)
        await world.judge(ann, [kept], f"after the labels were written ({name})")


_TAKEN = ("redefined", "denied", "moved", "attribute", "held", "expired", "producer", "source", "document")
# Who may write a label may replace or delete what has expired or is in quarantine.
_MAY_STILL_WRITE = frozenset({"expired", "producer", "source", "document"})


async def _take(world: Governed, how: str, document: str) -> None:
    """Take the right to read *document*, in one of the ways there are."""
    match how:
        case "redefined":
            await world.define("own", Entry("user:bob"))
        case "denied":
            await world.define("own", Entry("user:ann", write=True), Entry("tenant", allow=False))
        case "moved":
            await world.govern("move", document, "closed")
        case "attribute":
            await world.define("own", attributes={"sensitivity": LEVELS[2], "region": "eu"})
        case "held":
            await world.govern("hold", document, "a matter", reason="a check")
        case "expired":
            await world.govern("retain", document, time.time() - 5)
        case "producer":
            await world.govern("quarantine", "q", producer="crawler", reason="a check")
        case "source":
            await world.govern("quarantine", "q", source="crawl", reason="a check")
        case "document":
            await world.govern("quarantine", "q", document=document, reason="a check")


async def _reconciled(world: Governed) -> None:
    report = await world.govern("reconcile")
    world.t.positive_control(report["left"] == 0, "reconcile writes everything when all is quiet", report)


async def _like_missing(world: Governed, who: Principal, document: str) -> None:
    world.t.assert_equal(
        await world.like(who, "not-there"),
        await world.like(who, document),
        "a search for what is like a hidden chunk",
        "it does not read like one that does not exist",
    )


@check(
    "G2",
    "a right that is given is there at the next query, and no chunk was written for it",
    attack="Give rights in each way there is, to one document among others, and ask by every way to read.",
    breach="The document is not shown, the other one is, or chunks were written.",
    optional=True,
)
async def g2_grant_at_the_next_query(t: Assertions) -> None:
    world, ann = await _world(t)
    boss = world.boss
    documents = world.documents(7)
    await world.define("closed", Entry("role:records", write=True))
    for place, document in enumerate(documents):
        await world.define(f"l{place}", Entry("role:records", write=True))
        await world.govern("classify", document, f"l{place}")
    await world.write(boss, *documents)
    await _reconciled(world)
    await world.govern("hold", documents[3], "a matter", reason="a check")
    await world.govern("retain", documents[4], time.time() - 5)
    await world.govern("quarantine", "q", document=documents[5], reason="a check")
    for place in (3, 4, 5):
        await world.govern("move", documents[place], "open")
    handle = world.handle(ann)
    await world.judge(ann, [], "before a right is given", handle)
    steps: tuple[Step, ...] = (
        lambda: world.define("l0", Entry(f"group:{GROUPS[0]}")),
        lambda: world.govern("move", documents[1], "open"),
        lambda: world.define("l2", attributes={"sensitivity": LEVELS[0], "region": "eu"}),
        lambda: world.govern("release", "a matter", reason="a check"),
        lambda: world.govern("retain", documents[4], None),
        lambda: world.govern("lift", "q", reason="a check"),
    )
    for place, step in enumerate(steps):
        await world.unchanged(step, f"a right that is given ({place})")
        await world.judge(ann, documents[: place + 1], f"after a right was given ({place})", handle)
    await _reconciled(world)
    await world.judge(ann, documents[:6], "after the labels were written")


@check(
    "G3",
    "a held document is stored, never retrieved, never deleted",
    attack="Hold a document by two matters, then delete, replace, overwrite, sweep and erase it by every path.",
    breach="A chunk of it is gone or changed, it is read, or the release of one matter frees it.",
    optional=True,
)
async def g3_hold(t: Assertions) -> None:
    held, free = f"d-{t.context.rng.word()}", f"d-{t.context.rng.word()}"
    world, ann = await _world(t, held, free)
    await _reconciled(world)
    content = [row[4] for _, row in sorted(world.rows().items())]
    for matter in ("first", "second"):
        await world.govern("hold", held, matter, reason="a check")
    for drained in (False, True):
        await world.judge(ann, [free], "while a document is held")
        await t.refused(world.govern("erase", held, reason="a check"), HeldError, attacked="erasure", silent=False)
        await t.refused(world.handle(ann).delete(document=held), HeldError, attacked="a delete", silent=False)
        outcomes = await world.writes(ann, held)
        t.positive_control(all(name in outcomes for name in ("replace", "upsert")), "every path was tried", outcomes)
        await world.govern("retain", held, time.time() - 5)
        swept = await world.govern("sweep", largest_share=1.0)
        await world.govern("retain", held, None)
        t.assert_equal([], list(swept["documents"]), "sweep of a held document", "it was erased")
        kept = [row[4] for _, row in sorted(world.rows().items())]
        t.assert_equal(content, kept, "every path of deletion", "chunks of a held document are gone or changed")
        if not drained:
            await _reconciled(world)
    await world.govern("release", "first", reason="a check")
    await world.judge(ann, [free], "while one of two matters holds it")
    await t.refused(world.handle(ann).delete(document=held), HeldError, attacked="a delete", silent=False)
    await world.govern("release", "second", reason="a check")
    await world.judge(ann, [held, free], "after the last release")
    await world.handle(ann).delete(document=held)
    await world.judge(ann, [free], "after a deletion that no hold forbids")
    left = [key for key in world.rows() if key[0] == held]
    t.assert_equal([], left, "the deletion of a released document", "chunks of it are left")


@check(
    "G4",
    "what has expired is invisible",
    attack="Let a document and an access entry end in a moment, and go on asking with the same handle; then sweep.",
    breach="It is shown after its end, or swept chunks are still stored.",
    optional=True,
)
async def g4_retention(t: Assertions) -> None:
    context = t.context
    short, lent, long = (f"d-{context.rng.word()}" for _ in range(3))
    world, ann = await _world(t, short, long)
    await world.define("lent", Entry("role:records", write=True))
    await world.govern("classify", lent, "lent")
    await world.write(world.boss, lent)
    await _reconciled(world)
    handle, end = world.handle(ann), time.time() + 2.0
    await world.define("lent", Entry("user:ann", valid_until=end), Entry("role:records", write=True))
    await world.govern("retain", short, end)
    found = frozenset(hit.document for hit in await handle.search(context.corpus.centre, 20))
    t.positive_control(time.time() >= end or found == {short, lent, long}, "both are shown until then", found)
    await context.pause(max(0.0, end - time.time()) + 0.05)
    await world.judge(ann, [long], "after the end", handle)
    swept = await world.govern("sweep", largest_share=1.0)
    t.positive_control(list(swept["documents"]) == [short], "sweep erases what has expired", swept)
    left = [key for key in world.rows() if key[0] == short]
    t.assert_equal([], left, "sweep", "chunks of an expired document are left")
    await world.judge(ann, [long], "after the sweep", handle)


@check(
    "G5",
    "roles and ordered sensitivity are applied before ranking",
    attack=(
        "Put chunks that the principal may not see nearer to the query than each one that it may, and ask for exactly "
        "as many as it may see: by entries of groups whose names look like patterns, and by ordered attributes."
    ),
    breach="Fewer come back than there are, others do, or the order is not that of the permitted chunks alone.",
    optional=True,
)
async def g5_roles_before_ranking(t: Assertions) -> None:
    world, _ = await _world(t)
    labels: dict[str, str] = {}
    for place, group in enumerate(GROUPS):
        labels[f"g{place}"] = f"group:{group}"
        await world.define(f"g{place}", Entry(f"group:{group}"), Entry("role:records", write=True))
    for level in LEVELS:
        attributes = {"sensitivity": level, "region": "eu"}
        await world.define(f"s-{level}", Entry("role:records", write=True), attributes=attributes)
    written: dict[str, list[str]] = {}
    for place, label in enumerate([*labels, *(f"s-{level}" for level in reversed(LEVELS))]):
        written[label] = world.documents(2)
        await world.govern("classify", written[label], label)
        await world.write(world.boss, *written[label], near=0.02 + 0.02 * place)
    await _reconciled(world)
    for place, group in enumerate(GROUPS):
        who = world.person(id="ann", groups=[group])
        await _ranked(world, who, written[f"g{place}"])
    for place, level in enumerate(LEVELS):
        who = world.person(id="ann", attributes={"clearance": level, "regions": ["eu", "us"]})
        await _ranked(world, who, [one for lower in LEVELS[: place + 1] for one in written[f"s-{lower}"]])
    claims: tuple[dict[str, Any], ...] = (
        {"clearance": "secret", "regions": ["us"]},
        {"clearance": "secret"},
        {"clearance": "Secret", "regions": ["eu"]},
    )
    for one in claims:
        await world.judge(world.person(id="ann", attributes=one), [], f"with the claims {one}")


async def _ranked(world: Governed, who: Principal, documents: list[str]) -> None:
    """Demand that *who* gets exactly the ranking of the chunks of *documents*, whatever is nearer."""
    t, centre = world.t, world.context.corpus.centre
    await world.judge(who, documents, f"of {sorted(who.groups) or dict(who.attributes)}")
    oracle = world.oracle(documents)
    rows = list(oracle.rows)
    for k in (1, len(rows)):
        found = await world.handle(who).search(centre, k)
        problem = oracle.rank(rows, centre).problem(found.hits, k)
        t.assert_safe(problem is None, f"the {k} best of {len(rows)}", problem, "it was not ranked inside the rights")
    if "lexical" in world.client.adapter.capabilities.queries:
        found = await world.handle(who).search(Lexical("quorum"), len(rows))
        t.assert_equal(len(rows), len(found), "as many hits for a word", "others took the place of permitted ones")


@check(
    "G6",
    "families: a child reads what its parent shares with children, and nothing else is shared",
    attack="Read as child, parent, sibling and stranger, before and after the connection ends; write as a child.",
    breach="A sibling's or child's chunks are shown, a label that is not for children is, or the parent's are changed.",
    optional=True,
)
async def g6_families(t: Assertions) -> None:
    context = t.context
    parent, child, sibling, stranger = (Governed(t) for _ in range(4))
    everyone = (parent, child, sibling, stranger)
    for world in everyone:
        await world.define("open", EVERYONE)
        await world.define("shared", EVERYONE, children=True)
    names = {world.tenant: context.rng.word() for world in everyone}
    own: dict[str, list[str]] = {}
    for world in everyone:
        own[world.tenant] = [f"open-{names[world.tenant]}", f"shared-{names[world.tenant]}"]
        await world.govern("classify", own[world.tenant][1], "shared")
        await world.write(world.person(id="ann"), *own[world.tenant])
        await _reconciled(world)
    every = {document: ids for world in everyone for document, ids in world.chunks.items()}
    for world in everyone:
        world.chunks, world.several = dict(every), True
    await child.child_of(parent.tenant)
    await sibling.child_of(parent.tenant)
    shared = own[parent.tenant][1]
    for world, more in ((parent, []), (child, [shared]), (sibling, [shared]), (stranger, [])):
        await world.judge(world.person(id="ann"), [*own[world.tenant], *more], "in a family")
    rows = parent.rows()
    await child.writes(child.person(id="ann"), shared)
    t.assert_equal(rows, parent.rows(), "writes of a child", "they changed its parent's chunks")
    await t.refused(parent.child_of(child.tenant), RefusedError, attacked="a circle of tenants", silent=False)
    await t.refused(
        child.govern("set_parent", stranger.tenant), DeniedError, attacked="another parent, by a governor", silent=False
    )
    await child.handle(child.person(id="ann")).delete(document=shared)  # it wrote one with this name
    await child.child_of(None)
    await child.judge(child.person(id="ann"), own[child.tenant], "after it has left")
    await sibling.judge(sibling.person(id="ann"), [*own[sibling.tenant], shared], "next to one that has left")


_BROKEN = """
def work(client, how):
    kept = client.pipeline.policy

    class Broken:
        version = None

        def decide(self, principal, action):
            if how == "raises":
                raise RuntimeError("the engine is down")
            if how == "wrong":
                return True
            if how == "nothing":
                return None
            from vectoracl import Decision
            decision = kept.decide(principal, action)
            return Decision(permit="yes", scope=decision.scope)

    client.pipeline.policy = client.core_port._policy = Broken()
"""


@check(
    "G7",
    "a policy that is down, or answers with nonsense, denies",
    attack="Have the policy raise, return nothing, another type, or a decision with a part of another type.",
    breach="A call is answered, or it fails with another error than a denial.",
    optional=True,
)
async def g7_policy_that_fails(t: Assertions) -> None:
    document = f"d-{t.context.rng.word()}"
    world, ann = await _world(t, document)
    await world.judge(ann, [document], "while the policy answers")
    before = world.rows()
    for how in ("raises", "nothing", "wrong", "typed"):
        async with t.context.another() as client:
            await client.run(_BROKEN, how)
            handle = client.as_principal(ann)
            calls: dict[str, Step] = {
                "search": partial(handle.search, t.context.corpus.centre, 3),
                "scan": partial(handle.page, size=3),
                "fetch": partial(handle.fetch, [(document, world.chunks[document][0])]),
                "delete": partial(handle.delete, document=document),
            }
            for name, call in calls.items():
                await t.refused(call(), DeniedError, attacked=f"{name} while the policy {how}")
    t.assert_equal(before, world.rows(), "writes while the policy fails", "something was changed")


@check(
    "G8",
    "more changes than a filter can name: rights are taken, and none is given",
    attack="Change more documents at once than `overlay_max`: hold them, then move others.",
    breach="A held document is shown, a right beyond the cap is given, or nothing is shown again after reconcile.",
    optional=True,
)
async def g8_overlay_above_its_cap(t: Assertions) -> None:
    async with t.context.another(registry=t.context.registry(overlay_max=3)) as client:  # type: ignore[attr-defined]  # a `GovernedContext`
        world = Governed(t, client=client)
        documents = world.documents(6)
        await world.define("open", EVERYONE)
        await world.define("other", EVERYONE)
        ann = world.person(id="ann")
        for document in documents:
            await world.write(ann, document)
            await _reconciled(world)
        held, rest = documents[:5], documents[5:]
        await world.unchanged(
            lambda: world.govern("hold", held, "a matter", reason="a check"), "a hold of more than the cap"
        )
        for door, found in (await world.seen(ann, world.handle(ann))).items():
            t.assert_safe(not found & set(held), f"{door} beyond the cap", sorted(found), "a held document is shown")
        await t.refused(
            world.govern("move", rest, "other"), RefusedError, attacked="a move beyond the cap", silent=False
        )
        await _reconciled(world)
        await world.judge(ann, rest, "after the labels were written")
        await world.govern("release", "a matter", reason="a check")
        for _ in range(3):
            await _reconciled(world)
        await world.judge(ann, documents, "after the release")


@check(
    "G9",
    "a change of labels that arrives late neither undoes a newer one nor creates a chunk",
    attack=(
        "Hand the adapter changes of labels with older, equal and newer numbers, of other generations, documents and "
        "tenants, and of chunks that were deleted."
    ),
    breach="A newer label is overwritten, a chunk appears, another chunk changes, or a right change is not written.",
    optional=True,
)
async def g9_late_labels(t: Assertions) -> None:
    names = tuple(f"d-{t.context.rng.word()}" for _ in range(3))
    world, ann = await _world(t, *names)
    await _reconciled(world)
    other, _ = await _world(t, *names)
    await _reconciled(other)
    one, beside, gone = names
    ((generation, rev),) = {(row.tag.generation, row.tag.rev) for row in world.stored() if row.tag.document == one}
    beginning = (world.rows(), other.rows())

    def late(document: str, number: int, **changed: Any) -> Relabel:
        parts = {"generation": generation, "label": "late", "expires": NEVER_EXPIRES, **changed}
        return Relabel(world.tenant, (LabelChange(document, rev=number, **parts),))

    for operation, what in (
        (late(one, rev), "a change with the same number"),
        (late(one, rev - 1), "a change with an older number"),
        (late(one, rev + 9, generation=generation + 1), "a change of a generation that does not exist"),
        (late("not-there", rev + 9), "a change of a document that does not exist"),
        (late(one[:-1], rev + 9), "a change of a document with a shorter name"),
    ):
        await world.relabel(operation)
        t.assert_equal(beginning, (world.rows(), other.rows()), what, "chunks changed, or appeared")
    await world.relabel(late(one, rev + 1, label="newer", expires=NEVER_EXPIRES - 1))
    for row in world.stored():
        right = (
            ("newer", rev + 1, NEVER_EXPIRES - 1) if row.tag.document == one else ("open", row.tag.rev, row.tag.expires)
        )
        got = (row.tag.label, row.tag.rev, row.tag.expires)
        t.assert_equal(right, got, "a newer change", "it is not in every chunk of its document, and in no other")
    t.positive_control(len(world.rows()) == len(beginning[0]), "no chunk is lost by a change of its label")
    t.assert_equal(beginning[1], other.rows(), "a newer change", "it changed another tenant's chunks")
    await world.handle(ann).delete(document=gone)
    after = world.rows()
    await world.relabel(late(gone, rev + 9))
    t.assert_equal(after, world.rows(), "a change of deleted chunks", "they were created again")
    handle = other.handle(other.person(id="ann"))
    t.positive_control(
        len(await handle.fetch([(beside, other.chunks[beside][0])])) == 1, "the others are read as before"
    )
    await _large(t)


async def _large(t: Assertions) -> None:
    """Demand that a new label reaches every chunk of a document of more than a thousand."""
    context, document = t.context, f"d-{t.context.rng.word()}"
    size = min(1_100, context.client.adapter.capabilities.max_batch)
    world, ann = await _world(t)
    await world.handle(ann).upsert(context.chunks(size, document=document))
    await _reconciled(world)
    await world.define("moved", Entry("user:bob"))
    await world.govern("move", document, "moved")
    await _reconciled(world)
    labels = [row.tag.label for row in world.stored()]
    t.assert_equal(["moved"] * size, labels, "a move of a large document", "its label is not in every chunk")


@check(
    "G10",
    "a source of rights past its staleness bound fails closed, and an older record undoes nothing",
    attack=(
        "Place documents by feeds of sources. Send older records after newer ones; then read no source for longer than "
        "its bound, and ask by every way to read, with handles from before, and try to write."
    ),
    breach=(
        "An older record is in force, or what only a stale source vouches for is shown, counted or changed; or chunks "
        "were written to hide it; or it is not back when the source is read again."
    ),
    optional=True,
)
async def g10_stale_source(t: Assertions) -> None:
    names = {name: f"d-{t.context.rng.word()}" for name in ("kept", *_FED)}
    folder = f"f-{t.context.rng.word()}"
    world, ann = await _world(t, *names.values())
    await _reconciled(world)
    now = time.time() - 60  # not even a host whose clock is set back meets a time that is ahead
    await _feed(world, "lasting", Access(now, names["newer"], entries=()), Access(now, names["ended"], label="open"))
    handle = world.handle(ann)
    rest = [one for name, one in names.items() if name != "newer"]
    await world.judge(ann, rest, "after a feed", handle)
    for source in ("lasting", "served"):
        older = Access(now - 1, names["newer"], label="open")
        await world.unchanged(partial(_feed, world, source, older), "an older record")
        await world.judge(ann, rest, f"after an older record of {source}", handle)
    entries = (Entry("user:ann", write=True),)
    await _feed(world, "lasting", Access(now, names["below"], inherits_from=folder))
    await _feed(world, "served", Access(now, names["served"], label="open"))
    said = (
        Access(now, folder, entries=entries),
        Access(now, names["placed"], label="open"),
        Access(now, names["own"], entries=entries),
    )
    await _feed(world, "brief", *said)
    await _reconciled(world)
    stale = [names[name] for name in ("below", "placed", "own")]
    rows, served = world.rows(), [one for one in rest if one not in stale]
    ends = await _read_again(world, rest, handle)
    await t.context.pause(max(0.0, ends - time.time()) + 0.05)
    await world.judge(ann, served, "past the bound of its source", handle)
    await world.judge(ann, served, "past the bound of its source, by a new handle")
    for document in stale:
        await _like_missing(world, ann, document)
        outcomes = await world.writes(ann, document)
        t.assert_equal(rows, world.rows(), f"writes past the bound ({outcomes})", "chunks were written")
    # Apart from that: a time at which a record ends would end cached scopes for the source, too.
    await _read_again(world, rest, handle, ended=names["ended"])
    rest.remove(names["ended"])
    await _feed(world, "lasting", *said)
    await t.context.pause(BRIEF_SECONDS + 0.05)
    await world.judge(ann, rest, "of which another source says the same", handle)


_FED = ("newer", "ended", "below", "served", "placed", "own")


async def _feed(world: Governed, source: str, *records: Access) -> None:
    await world.govern("apply_access", list(records), source=source, reason="a check")


async def _read_again(world: Governed, documents: list[str], handle: Any, *, ended: str | None = None) -> float:
    """Read the brief source, and demand that *documents* are shown until its bound, which is returned."""
    now = time.time()
    if ended is not None:
        record = Access(now - 1, ended, label="open", valid_until=now + BRIEF_SECONDS)
        await _feed(world, "lasting", record)
    await _feed(world, "brief", Access(now))
    found = await handle.search(world.context.corpus.centre, 2 * len(documents) + 5)
    shown = frozenset(hit.document for hit in found)
    late = time.time() >= now + BRIEF_SECONDS
    world.t.positive_control(late or shown == frozenset(documents), "they are shown until the bound", sorted(shown))
    return now + BRIEF_SECONDS


@check(
    "G11",
    "no one governs by default",
    attack="Call every governing method as principals whom the configuration does not name, and with none named.",
    breach="One is performed, or a scoped handle has such a method.",
    optional=True,
)
async def g11_no_one_governs_by_default(t: Assertions) -> None:
    document = f"d-{t.context.rng.word()}"
    world, ann = await _world(t, document)
    before = world.rows()
    calls: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = (
        ("define_label", ("open",), {"entries": [EVERYONE, Entry("user:eve")]}),
        ("drop_label", ("open",), {}),
        ("classify", (document, "open"), {}),
        ("move", (document, "open"), {}),
        ("hold", (document, "m"), {"reason": "a check"}),
        ("release", ("m",), {"reason": "a check"}),
        ("retain", (document, time.time() - 9), {}),
        ("quarantine", ("q",), {"document": document, "reason": "a check"}),
        ("lift", ("q",), {"reason": "a check"}),
        ("apply_access", ([Access(1.0, document, entries=(Entry("user:eve"),))],), {"source": "lasting"}),
        ("sources", (), {}),
        ("reconcile", (), {}),
        ("sweep", (), {"largest_share": 1.0}),
        ("erase", (document,), {"reason": "a check"}),
        ("set_parent", (t.context.tenant(),), {}),
        ("labels", (), {}),
        ("documents", (), {}),
        ("history", (), {}),
    )
    pretenders = (
        ann,
        world.person(id="records"),
        world.person(id="eve", groups=["records"]),
        world.person(id="eve", roles=["Records", "records-", "record", "record*"]),
        world.person(id="eve", attributes={"role": "records", "roles": ["records"]}),
        user(world.tenant, id="late", roles=["records"], expires_at=time.time() - 1),
    )
    async with t.context.another(registry=t.context.registry(governors={})) as client:  # type: ignore[attr-defined]  # a `GovernedContext`
        unnamed = Governed(t, world.tenant, client)
        for name, args, given in calls:
            for who in pretenders:
                await t.refused(
                    world.govern(name, *args, by=who, **given), DeniedError, attacked=f"{name} as {who!r}", silent=False
                )
            await t.refused(
                unnamed.govern(name, *args, **given), DeniedError, attacked=f"{name} with none named", silent=False
            )
    for name in ("hold", "release", "erase", "define_label", "governance", "reconcile"):
        outcome = await t.outcome(getattr(world.handle(ann), name)())
        t.assert_safe(outcome[0] in _NO_METHOD, f"{name} of a scoped handle", outcome, "it has such a method")
    await world.judge(ann, [document], "after all of that")
    t.assert_equal(before, world.rows(), "all of that", "something was changed")
    await world.govern("hold", document, "m", reason="a check")
    await world.judge(ann, [], "after a hold by the one who may")


# The error of an attribute that is missing, here or in the adapter's process.
_NO_METHOD = ("AttributeError", "OtherError")


@check(
    "G12",
    "a governed store is opened by no process without its registry",
    attack="Open the store without a registry, and with another one, whose tables exist, and bring it under that one.",
    breach="It is opened, so that held and revoked documents are read; or the other registry takes it over.",
    optional=True,
)
async def g12_no_process_without_the_registry(t: Assertions) -> None:
    context: Any = t.context  # a `GovernedContext`
    document = f"d-{context.rng.word()}"
    world, ann = await _world(t, document)
    await world.govern("hold", document, "a matter", reason="a check")
    other = context.registry(url=f"{context.registry()['url']}.other-{context.mode}")
    for client, what in (
        (context.ungoverned(), "without a registry"),
        (context.new_client(registry=other), "with another registry that has no tables"),
    ):
        await t.refused(client.open(), PostureError, ConfigError, attacked=f"a process {what}", silent=False)
    stranger = context.new_client(registry=other)
    await stranger.run(_TABLES)
    for attempt, what in ((stranger.open, "opening"), (lambda: stranger.run(PROVISION), "provisioning")):
        await t.refused(attempt(), PostureError, attacked=f"{what} with another registry", silent=False)
    await world.judge(ann, [], "after all of that")
    await world.govern("release", "a matter", reason="a check")
    await world.judge(ann, [document], "with the right registry")


_TABLES = """
def work(client):
    client.registry.create()
"""
