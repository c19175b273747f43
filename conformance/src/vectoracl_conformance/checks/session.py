"""S1 to S5: connections that serve several tenants in turn."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectoracl.adapter_api.operations import Fetch, Search
from vectoracl.errors import DeniedError, StoreError, VectorACLError
from vectoracl.filters.predicate import ALWAYS, F
from vectoracl.model.queries import HybridQuery, VectorQuery
from vectoracl_conformance.context.assertions import Assertions
from vectoracl_conformance.context.check_context import USER
from vectoracl_conformance.context.oracle import Oracle, key
from vectoracl_conformance.context.registry import check
from vectoracl_conformance.context.table_policy import nothing


async def _right(t: Assertions, oracle: Oracle, handle: Any, tenant: str, after: str) -> None:
    """Judge what *tenant* sees through *handle*."""
    context = t.context
    result = await handle.search(context.corpus.centre, context.k)
    t.positive_control(len(result) > 0, f"the next tenant is answered after {after}", len(result))
    problem = oracle.rank(oracle.of(tenant), context.corpus.centre).problem(result.hits, context.k)
    t.assert_safe(
        problem is None, f"search by the next tenant after {after}", problem, "the scope of another call was used"
    )
    listed = sorted(key(hit) for hit in await handle.all(size=200))
    t.assert_equal(
        sorted(key(row) for row in oracle.of(tenant)),
        listed,
        f"scan by the next tenant after {after}",
        "the scope of another call was used",
    )


@check(
    "S1",
    "an error, then the connection serves another tenant",
    attack="Make calls of one tenant fail inside the store, then ask as another tenant on the same connection.",
    breach="The next tenant gets the scope, the rows or the error of the failed call.",
)
async def s1_error_leaves_nothing_on_the_connection(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    oracle = context.oracle()
    wrong = VectorQuery(np.ones(len(corpus.centre) + 3, np.float32))
    failed = 0
    async with context.another(single=True) as client:
        for turn in range(4):
            for bad in (
                Search(corpus.other_tenants[0], ALWAYS, ALWAYS, wrong, 5, frozenset({"text"})),
                Search(corpus.other_tenants[0], ALWAYS, ALWAYS, HybridQuery("x", wrong.vector), 5, frozenset()),
                Fetch(corpus.other_tenants[0], object(), (), frozenset()),  # type: ignore[arg-type]  # has to fail
            ):
                try:
                    await client.raw(bad)
                except Exception:  # noqa: BLE001 - it has to fail, however
                    failed += 1
                tenant = (corpus.small_tenant, corpus.large_tenant)[turn % 2]
                await _right(t, oracle, client.handle(tenant), tenant, "an error of another tenant's call")
            await t.refused(
                client.handle(corpus.other_tenants[1]).search(corpus.centre, context.k, timeout=1e-7),
                StoreError,
                attacked="a search whose time is over before it begins",
            )
            await _right(
                t,
                oracle,
                client.handle(corpus.small_tenant),
                corpus.small_tenant,
                "a time-out of another tenant's call",
            )
    t.kit_control(failed > 0, "no call failed, so nothing was shown")


@check(
    "S2",
    "a cancellation, then the connection serves another tenant",
    attack=("Cancel reads and writes of one tenant at many points, then ask as another tenant on the same connection."),
    breach="The next tenant gets the scope or the rows of the cancelled call, or half of a write remains.",
)
async def s2_cancellation_leaves_nothing_on_the_connection(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    own = context.tenant()
    await context.plant(own, context.chunks(2))
    oracle = context.oracle()
    cut = 0
    async with context.another(single=True) as client:
        big = client.handle(corpus.other_tenants[0])
        writer = client.handle(own)
        for turn in range(10):
            after = 0.0001 * 2 ** (turn % 7)
            batch = context.chunks(30, document=f"cut-{turn}")
            for make in (
                lambda limit: big.search(corpus.centre, 200, timeout=limit),
                lambda limit: big.page(size=300, timeout=limit),
                lambda limit, some=batch: writer.upsert(some, timeout=limit),
            ):
                cut += await context.cut(make, after) is not None
                await _right(t, oracle, client.handle(corpus.small_tenant), corpus.small_tenant, "a call that was cut")
            await _right(t, oracle, client.handle(corpus.large_tenant), corpus.large_tenant, "a call that was cut")
    documents: dict[str, int] = {}
    for row in context.census():
        if row.tag.tenant == own:
            documents[row.tag.document] = documents.get(row.tag.document, 0) + 1
    torn = {name: count for name, count in documents.items() if name.startswith("cut-") and count != 30}
    whole = context.client.adapter.capabilities.atomic_upsert
    t.assert_safe(not torn or not whole, "writes that were cut", torn, "half a write is in the store")


@check(
    "S3",
    "many principals interleaved on few connections",
    attack=(
        "Let many tenants concurrently search, page, fetch, count and write, then check the history of their answers."
    ),
    breach="An answer does not match any state that the tenant's rows had during the call.",
)
async def s3_principals_interleaved_on_few_connections(t: Assertions) -> None:
    context = t.context
    can = context.client.adapter.capabilities
    tenants = [context.tenant() for _ in range(8)]
    for place, tenant in enumerate(tenants):
        await context.plant(tenant, context.chunks(2 + place, document="doc"))
    oracle = context.oracle()
    history: list[tuple[str, str, Any]] = []

    def client(tenant: str, number: int) -> Any:
        async def work() -> None:
            handle = context.handle(tenant)
            for turn in range(6):
                history.append((tenant, "search", list(await handle.search(context.corpus.centre, 4))))
                history.append((tenant, "page", list((await handle.page(size=100)).hits)))
                history.append((tenant, "fetch", await handle.fetch(everything)))
                if can.count != "none":
                    history.append((tenant, "count", await handle.count(F["@document"] == "doc")))
                if number % 2 and turn % 3 == 0:
                    await handle.upsert(context.chunks(1, document="more", near=0.9))

        return work

    everything = [
        ("doc", row.tag.chunk) for row in oracle.rows if row.tag.tenant in tenants and row.tag.document == "doc"
    ]
    await context.together([client(tenant, place) for place, tenant in enumerate(tenants * 2)], width=16)
    t.kit_control(len(history) >= 16 * 18, "the history is not whole")
    for tenant, name, answer in history:
        own = oracle.of(tenant)
        if name == "count":
            t.assert_equal(len(own), answer, "count, interleaved", "it is not the own number")
        elif name == "search":
            problem = oracle.rank(own, context.corpus.centre).problem(answer, 4) if len(own) >= 4 else None
            t.assert_safe(problem is None, "search, interleaved", problem, "an answer for another principal")
            t.assert_equal({tenant}, {hit.tenant for hit in answer}, "search, interleaved", "foreign rows")
        else:
            got = sorted(key(hit) for hit in answer if hit.document == "doc")
            t.assert_equal(sorted(map(key, own)), got, f"{name}, interleaved", "an answer for another principal")
            t.assert_equal({tenant}, {hit.tenant for hit in answer}, f"{name}, interleaved", "foreign rows")
    t.positive_control(len(history) > 0, "everybody was answered", len(history))


@check(
    "S4",
    "an iterator does not outlive its scope",
    attack=(
        "Start a scan, then let the principal expire, close the handle or revoke the right, and continue to iterate."
    ),
    breach="It returns further pages.",
)
async def s4_iterator_does_not_outlive_its_scope(t: Assertions) -> None:
    context = t.context
    own = context.tenant()
    await context.plant(own, context.chunks(9))

    async def rest(hits: Any) -> int:
        number = 0
        async for _ in hits:
            number += 1
        return number

    for name in ("revoked", "closed", "client"):
        client = context.new_client(policy={})
        await client.open()
        try:
            handle = client.handle(own)
            hits = handle.scan(size=3)
            page = [await anext(hits) for _ in range(3)]
            t.positive_control(len({hit.id for hit in page}) == 3, "the first page is yielded", page)
            if name == "revoked":
                client.change(nothing(USER))
            elif name == "client":
                await client.close()
            elif context.mode == "sync":
                with handle.inner:
                    pass
            else:
                async with handle.inner:
                    pass
            kind = DeniedError if name == "revoked" else VectorACLError
            await t.refused(rest(hits), kind, attacked=f"going on with a scan after it was {name}")
        finally:
            await client.close()


@check(
    "S5",
    "a small tenant after many queries by a large one",
    attack=(
        "Ask many times as a large tenant on one connection, so that plans and caches settle, then as a small tenant."
    ),
    breach="The small tenant gets fewer than its k rows, or other rows.",
)
async def s5_small_tenant_after_many_large_queries(t: Assertions) -> None:
    context, corpus = t.context, t.context.corpus
    oracle = context.oracle()
    where = F.note.exists()
    async with context.another(single=True) as client:
        for turn in range(12):
            hits = await client.handle(corpus.other_tenants[0]).search(
                corpus.centre, context.k, where=where if turn % 2 else ALWAYS
            )
            t.positive_control(len(hits) == context.k, "the large tenant is answered", len(hits))
        for tenant in (corpus.small_tenant, corpus.large_tenant):
            for k in (context.k, min(50, client.adapter.capabilities.max_k)):
                for condition in (ALWAYS, where):
                    result = await client.handle(tenant).search(corpus.centre, k, where=condition)
                    problem = oracle.rank(oracle.of(tenant, condition), corpus.centre).problem(result.hits, k)
                    t.assert_safe(
                        problem is None, f"k = {k} by a small tenant after a large one", problem, "the plan stuck"
                    )
