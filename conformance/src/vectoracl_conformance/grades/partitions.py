"""The second part of E3: the engine's counts by index and by partition, where its count of scored vectors is blind.

One tenant is made large and gets an indexed partition, and so does one of the other tenants. A search for any tenant
may then not change a counter of an index that covers rows of others, nor of a partition without its own rows. The
engine's locks and its plan are also reported. If a search waits for a lock, the grade is in doubt, since a store may
lock a partition that it never reads; a plan only explains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from vectoracl.errors import StoreError
from vectoracl_conformance.context import corpus as corpora
from vectoracl_conformance.context.check_context import CheckContext, Mode
from vectoracl_conformance.context.corpus import Corpus, K
from vectoracl_conformance.harness import PartEngine, Store

LARGE = 1500
"""Rows of the large tenant: enough for a planner to take its index."""
PATIENCE = 3.0
"""Seconds that a search may take while another tenant's part is held."""
_BATCH = 500


class Parts(NamedTuple):
    """The verdict, and the reason in words."""

    state: Literal["passed", "failed", "abstained"]
    reason: str


Make = Callable[[Mode], CheckContext]
Do = Callable[[Mode, Callable[[], Any]], Any]


def judge_parts(engine: PartEngine, store: Store, corpus: Corpus, modes: tuple[Mode, ...], make: Make, do: Do) -> Parts:
    """Judge the searches of a large, a middling and a small tenant; *corpus*, with all its foes, is in the store."""
    large, other = corpus.rng.uuid(), corpus.other_tenants[0]
    do("sync", lambda: _grow(make("sync"), large))
    store.settle()
    for tenant in (large, other):
        engine.give_own_part(tenant)
    notes: list[str] = []
    doubts: list[str] = []
    searched = 0
    for mode in modes:
        for name, tenant in (("large", large), ("many", corpus.large_tenant), ("few", corpus.small_tenant)):
            before, own = engine.others(tenant), engine.own_index(large)
            context = make(mode)
            hits = do(mode, lambda: _search(context, tenant))  # noqa: B023 - it is called at once
            moved = _moved(before, engine.others(tenant))
            searched += engine.own_index(large) - own if tenant == large else 0
            plan = engine.explain([event.request for event in context.recorder.events])
            if moved:
                moves = ", ".join(f"{what} {count}" for what, count in moved.items())
                return Parts("failed", f"{mode}, {name}: a search moved what others' rows have: {moves}; plan: {plan}")
            if hits < min(K, corpora.OWN_FEW if tenant == corpus.small_tenant else corpora.OWN_MANY):
                doubts.append(f"{mode}, {name}: only {hits} hits came back")
            notes.append(f"{mode}, {name}: nothing of others touched; plan: {plan}")
    if not searched:
        doubts.append("the large tenant's own index was not searched, so nothing was shown of it")
    doubts += _swept(engine, corpus, large)
    for mode in modes:
        held = make(mode)
        doubts += [f"{mode}: {doubt}" for doubt in do(mode, lambda: _waited(engine, held, other))]  # noqa: B023 - likewise
    return Parts("abstained", "; ".join(doubts)) if doubts else Parts("passed", "; ".join(notes))


def _moved(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {what: count - before.get(what, 0) for what, count in after.items() if count != before.get(what, 0)}


def _swept(engine: PartEngine, corpus: Corpus, large: str) -> list[str]:
    """The control: the kit's own ranking of everyone has to move every counter, and silence none."""
    before = engine.others(large)
    if not before:
        return ["control: the engine names no counter of what others have"]
    if _moved(before, engine.others(large)):
        return ["control: the counters move by themselves"]
    engine.sweep([float(one) for one in corpus.centre])
    still = sorted(before.keys() - _moved(before, engine.others(large)).keys())
    return [f"control: the kit's own unscoped ranking did not move {', '.join(still)}"] if still else []


async def _waited(engine: PartEngine, context: CheckContext, other: str) -> list[str]:
    """Search while another tenant's part is held; the client is open before, since it may look at every part."""
    await context.open()
    try:
        with engine.lock(other):
            await context.handle(context.corpus.small_tenant).search(context.corpus.centre, K, timeout=PATIENCE)
    except (StoreError, TimeoutError) as error:
        what = type(error).__name__
        return [f"a search waited for another tenant's part while that was held ({what}); it need not have read it"]
    finally:
        await context.close()
    return []


async def _grow(context: CheckContext, tenant: str) -> None:
    await context.open()
    try:
        chunks = [
            corpora.chunk(context.rng, context.rng.near(context.corpus.centre, 0.4 + 0.0002 * place), metadata={})
            for place in range(LARGE)
        ]
        batch = min(_BATCH, context.client.adapter.capabilities.max_batch)
        for start in range(0, LARGE, batch):
            await context.handle(tenant).upsert(chunks[start : start + batch])
    finally:
        await context.close()


async def _search(context: CheckContext, tenant: str) -> int:
    await context.open()
    try:
        return len(await context.handle(tenant).search(context.corpus.centre, K))
    finally:
        await context.close()
