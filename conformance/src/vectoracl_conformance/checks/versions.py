"""R17: scans over documents that are replaced, or deleted and written again, between two pages."""

from __future__ import annotations

from typing import Any

from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Chunk, Hit
from vectoracl_conformance.context.assertions import Assertions
from vectoracl_conformance.context.check_context import AwaitableHandle, CheckContext
from vectoracl_conformance.context.registry import check

_CHUNKS = 5


def _version(context: CheckContext, document: str, text: str, number: int = _CHUNKS) -> list[Chunk]:
    return [Chunk(f"c{place}", document, text, context.vector(), place) for place in range(number)]


async def _rest(handle: AwaitableHandle, after: str | None) -> list[Hit]:
    hits: list[Hit] = []
    while after is not None:
        page = await handle.page(ALWAYS, 2, after)
        hits.extend(page.hits)
        after = page.after
    return hits


@check(
    "R17",
    "a scan shows one version of each document",
    attack=(
        "Between two pages of a scan, replace the current document, or delete it and write it again under the same "
        "ids; in another run only add chunks to it."
    ),
    breach=(
        "One scan returns chunks of two versions of a document, omits chunks of a document to which chunks were "
        "only added, or omits other documents."
    ),
)
async def r17_scan_shows_one_version_of_each_document(t: Assertions) -> None:
    context = t.context

    async def replaced(handle: AwaitableHandle) -> Any:
        most = context.client.adapter.capabilities.max_batch
        return await handle.replace("d", _version(context, "d", "new", min(_CHUNKS + 2, most)))

    async def again(handle: AwaitableHandle) -> Any:
        await handle.delete(document="d")
        return await handle.upsert(_version(context, "d", "new"))

    async def added(handle: AwaitableHandle) -> Any:
        return await handle.upsert([Chunk("c3x", "d", "old", context.vector(), 9)])

    for name, change in (("a replacement", replaced), ("a delete and an upsert", again), ("an upsert", added)):
        own = context.tenant()
        handle = context.handle(own)
        await context.plant(own, [*_version(context, "d", "old"), *_version(context, "e", "other")])
        context.store.settle()
        first = await handle.page(size=2)
        t.positive_control(
            [(hit.document, hit.text) for hit in first.hits] == [("d", "old")] * 2 and first.after is not None,
            "the first page ends inside of the document",
            first.hits,
        )
        await change(handle)
        context.store.settle()
        hits = [*first.hits, *await _rest(handle, first.after)]
        texts = {hit.text for hit in hits if hit.document == "d"}
        t.assert_safe(texts == {"old"}, f"{name} between two pages", texts, "chunks of two versions come in one scan")
        chunks = [hit.id for hit in hits if hit.document == "d"]
        if change is added:
            t.assert_equal(
                ["c0", "c1", "c2", "c3", "c3x", "c4"],
                sorted(chunks),
                f"{name} between two pages",
                "the document is not whole",
            )
        else:
            ids = [hit.id for hit in first.hits]  # in the order of the store, whichever it is
            t.assert_equal(ids, chunks, f"{name} between two pages", "its version is gone, and the scan goes on in it")
        t.assert_equal(
            _CHUNKS, sum(hit.document == "e" for hit in hits), f"{name} between two pages", "another is not whole"
        )
