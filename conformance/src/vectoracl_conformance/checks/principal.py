"""P1 to P5: principals."""

from __future__ import annotations

import time
import unicodedata
from typing import Any

from vectoracl import Principal
from vectoracl.errors import (
    ClosedError,
    DeniedError,
    InvalidInputError,
    InvalidPrincipalError,
    InvalidTenantError,
)
from vectoracl.filters.predicate import F
from vectoracl.model.records import Chunk
from vectoracl_conformance.context.assertions import Assertions
from vectoracl_conformance.context.check_context import user
from vectoracl_conformance.context.oracle import key
from vectoracl_conformance.context.registry import check


async def _call(make: Any) -> Any:
    return make()


_SUBCLASS = """
from vectoracl import Principal

class Own(Principal):
    __slots__ = ()

def work(client, tenant):
    return client.scoped(Own("a", tenant, authenticated_by="x"))
"""


@check(
    "P1",
    "no principal, no answer",
    attack=(
        "Ask without a valid principal: none, empty, blank, NUL, huge, of a wrong type, a wildcard, a string, a dict."
    ),
    breach="It is accepted, or refused only after a request was sent.",
)
async def p1_no_principal_no_answer(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    nobody: tuple[Any, ...] = (
        None, "", " ", "\t", "\0", f"{corpus.large_tenant}\0", "x" * 300, "é" * 200, 5, 5.0, True, b"x",
        [corpus.large_tenant],
        {"tenant": corpus.large_tenant}, "*", "%", "?", f"{corpus.large_tenant}*",
        "a%", "\u200b", f"{corpus.large_tenant}\u200b", "\ud800",
        f" {corpus.large_tenant}", f"{corpus.large_tenant} ", "a\nb", "\u202eabc",
    )  # fmt: skip
    for bad in nobody:
        await t.refused(
            _call(lambda one=bad: user(one)), InvalidTenantError, attacked=f"a principal of the tenant {bad!r:.40}"
        )
        if not isinstance(bad, str) or not bad.isprintable() or bad.strip() != bad or not bad or len(bad) > 280:
            await t.refused(
                _call(lambda one=bad: user(corpus.large_tenant, id=one)),
                InvalidInputError,
                attacked=f"a principal with the id {bad!r:.40}",
            ) if bad != "x" * 300 else None
    others: tuple[Any, ...] = (
        None,
        "",
        corpus.large_tenant,
        {"tenant": corpus.large_tenant},
        [user(corpus.large_tenant)],
        b"x",
        1,
        Principal,
    )
    for bad in others:
        await t.refused(
            _call(lambda one=bad: context.client.as_principal(one)),
            InvalidPrincipalError,
            attacked=f"a handle for {type(bad).__name__} instead of a principal",
        )
    await t.refused(_call(lambda: context.client.acl.scoped()), TypeError, attacked="a handle without a principal")

    await t.refused(
        context.client.run(_SUBCLASS, corpus.large_tenant),
        InvalidPrincipalError,
        attacked="a handle for a subclass of Principal",
    )
    result = await context.handle(corpus.large_tenant).search(corpus.centre)
    t.positive_control(len(result) == context.k, "a right principal is answered", len(result))


@check(
    "P2",
    "look-alike tenants never merge",
    attack=(
        "Act as tenants whose names differ from the victim's in case, Unicode form, blanks, length or one character."
    ),
    breach="The look-alike sees, counts, changes or deletes the victim's chunks.",
)
async def p2_lookalike_tenants_never_merge(t: Assertions) -> None:
    context = t.context
    base = f"Acme é {context.rng.uuid()}"
    long = base + "x" * 180
    alike = [
        base, base.upper(), base.lower(), base[:-1], base + "0", base.replace("-", "_"), base.replace("-", "."),
        base.replace(" ", "-"), base.replace("é", "e"), base.replace("é", "É"), base + "'", base + '"', base + "\\",
        base + ":", base + "/", long, long + "y", long[:-1] + "z", base.replace("A", "А"),  # Cyrillic
        f"{base}:a", f"{base}_", base.replace("Acme", "Acm_"),
    ]  # fmt: skip
    alike = list(dict.fromkeys(alike))
    for place, tenant in enumerate(alike):
        await context.plant(tenant, [Chunk("same", "doc", f"text {place}", context.vector())])
    t.positive_control(
        len(context.state(*alike)) == len(alike), "each look-alike has its own row", len(context.state(*alike))
    )
    state, most = context.state(*alike), min(50, context.client.adapter.capabilities.max_k)
    for place, tenant in enumerate(alike):
        handle = context.handle(tenant)
        right = [(tenant, f"text {place}")]
        for name, hits in (
            ("search", list(await handle.search(context.corpus.centre, most))),
            ("scan", await handle.all()),
            ("fetch", await handle.fetch(["same"])),
        ):
            got = [(hit.tenant, hit.text) for hit in hits]
            t.assert_equal(right, got, f"{name} as the look-alike {tenant!r:.60}", "it sees another tenant's chunks")
    for place, tenant in enumerate(alike):
        await context.handle(tenant).upsert([Chunk("same", "doc", f"new {place}", context.vector())])
    t.assert_equal(
        sorted(f"new {place}" for place in range(len(alike))),
        sorted(row[2] for row in context.state(*alike).values()),
        "overwriting as each look-alike",
        "one overwrote another's",
    )
    await context.handle(alike[1]).delete(document="doc")
    t.assert_equal(len(state) - 1, len(context.state(*alike)), "deleting as a look-alike", "another's chunk is gone")
    for bad in (unicodedata.normalize("NFD", base), base + " ", " " + base, base + "\u200b", base + "\u00a0"):
        await t.refused(_call(lambda one=bad: user(one)), InvalidTenantError, attacked=f"the look-alike {bad!r:.60}")


@check(
    "P3",
    "an unknown tenant sees and creates nothing",
    attack="Read, page, count and delete as a tenant that the store has never seen.",
    breach="It sees rows, it gets a different error, or the store creates something for it.",
)
async def p3_unknown_tenant_sees_and_creates_nothing(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    before, parts = context.state(), context.parts()
    can = context.client.adapter.capabilities
    for _ in range(2):
        unknown = context.tenant()
        handle = context.handle(unknown)
        result = await handle.search(corpus.centre, context.k)
        t.assert_equal([], list(result), "search as an unknown tenant", "it sees something")
        t.assert_equal([], await handle.all(), "scan as an unknown tenant", "it sees something")
        t.assert_equal(
            [], await handle.fetch([corpus.shared_ids[0]]), "fetch as an unknown tenant", "it sees something"
        )
        if can.count != "none":
            t.assert_equal(0, await handle.count(), "count as an unknown tenant", "it sees something")
        for selector in (
            {"ids": [corpus.shared_ids[0]]}, {"document": corpus.shared_ids[0][0]}, {"where": F.note.exists()},
        ):  # fmt: skip
            gone = await handle.delete(**selector)
            t.assert_equal(0, gone.count or 0, "delete as an unknown tenant", "it deleted")
    t.assert_equal(before, context.state(), "all of that", "the store changed")
    t.assert_equal(parts, context.parts(), "all of that", "something was created for the unknown tenant")
    owned = await context.handle(corpus.small_tenant).all()
    t.positive_control(len(owned) == 2, "a known tenant sees its rows", len(owned))


@check(
    "P4",
    "no ambient principal",
    attack=(
        "Use handles of two tenants alternately, in one thread and in several, and look for state that is left over."
    ),
    breach="A call is answered for the principal of another call.",
)
async def p4_no_ambient_principal(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    oracle = context.oracle()
    tenants = (corpus.large_tenant, corpus.small_tenant, corpus.other_tenants[0])
    handles = {tenant: context.handle(tenant) for tenant in tenants}
    for _ in range(3):
        for tenant in tenants:
            hits = await handles[tenant].search(corpus.centre, context.k)
            t.positive_control(len(hits) > 0, "each handle is answered", len(hits))
            problem = oracle.rank(oracle.of(tenant), corpus.centre).problem(hits.hits, context.k)
            t.assert_safe(problem is None, "handles in turns", problem, "it was answered for another principal")
            refs = [(row.tag.document, row.tag.chunk) for row in oracle.of(tenant)[:3]]
            got = [hit.tenant for hit in await handles[tenant].fetch(refs)]
            t.assert_equal([tenant] * min(3, len(refs)), got, "fetch in turns", "it was answered for another principal")

    def ask(tenant: str) -> Any:
        async def one() -> tuple[str, list[Any]]:
            return tenant, [key(hit) for hit in await handles[tenant].all(size=50)]

        return one

    answers = await context.together([ask(tenant) for tenant in tenants * 3])
    for tenant, rows in answers:
        right = sorted(key(row) for row in oracle.of(tenant))
        t.assert_equal(right, sorted(rows), "handles used in other threads or tasks", "answered for another principal")


@check(
    "P5",
    "an expired principal, or a closed or narrowed handle, has no further rights",
    attack=(
        "Continue to use a handle after its principal has expired, after it was closed, or beyond its narrowed scope."
    ),
    breach="It is answered.",
)
async def p5_expired_or_closed_handle_is_refused(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    own = context.tenant()
    await context.plant(own, context.chunks(4, metadata=True))
    before = context.state()

    counts = context.client.adapter.capabilities.count != "none"

    def calls(handle: Any) -> list[tuple[str, Any]]:
        return [
            ("search", lambda: handle.search(corpus.centre, 3)),
            ("fetch", lambda: handle.fetch(["x"])),
            *([("count", handle.count)] if counts else []),
            ("scan", lambda: handle.page()),
            ("upsert", lambda: handle.upsert(context.chunks(1))),
            ("replace", lambda: handle.replace("d", [])),
            ("delete", lambda: handle.delete(where=F.year.exists())),
        ]

    short = context.handle(own, expires_at=time.time() + 0.4)
    result = await short.search(corpus.centre, 3)
    t.positive_control(len(result) == 3, "a principal that has not expired is answered", len(result))
    await context.pause(0.45)
    past = context.handle(own, expires_at=time.time() - 1)
    for handle in (short, past, short.narrow(F.year.exists())):
        for name, call in calls(handle):
            await t.refused(call(), DeniedError, attacked=f"{name} by an expired principal")
    closed = context.handle(own)
    child = closed.narrow(F.year.exists())
    if context.mode == "sync":
        with closed.inner:
            pass
    else:
        async with closed.inner:
            pass
    for handle in (closed, child):
        for name, call in calls(handle):
            await t.refused(_later(call), ClosedError, attacked=f"{name} by a closed handle")
    reader = context.handle(own).narrow(actions={"search"})
    t.positive_control(len(await reader.search(corpus.centre, 3)) == 3, "what the handle was narrowed to is answered")
    for name, call in calls(reader)[1:]:
        await t.refused(call(), DeniedError, attacked=f"{name} by a handle narrowed to searching")
    wider = reader.narrow(actions={"search", "delete"})
    await t.refused(wider.delete(where=F.year.exists()), DeniedError, attacked="widening a narrowed handle")
    narrow = context.handle(own).narrow(F.lang == "fr").narrow(F.year.exists())
    right = sorted(key(row) for row in context.oracle().narrowing(own, (F.lang == "fr") & F.year.exists()))
    t.assert_equal(right, sorted(key(hit) for hit in await narrow.all()), "a handle narrowed twice", "it is both")
    other = context.new_client()
    await other.open()
    handle = other.handle(own)
    t.positive_control(len(await handle.search(corpus.centre, 3)) == 3, "another client is answered")
    await other.close()
    for name, call in calls(handle):
        await t.refused(_later(call), ClosedError, attacked=f"{name} after its client was closed")
    t.assert_equal(before, context.state(), "all of that", "the store changed")


async def _later(make: Any) -> Any:
    return await make()
