"""R17: paging through documents that are replaced, deleted and written again between two pages."""

from __future__ import annotations

from typing import Any

from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Chunk, Hit
from vectoracl_conformance.context.assertions import Trial
from vectoracl_conformance.context.check_context import Handle, Lab
from vectoracl_conformance.context.registry import check

_CHUNKS = 5


def _version(lab: Lab, document: str, text: str, number: int = _CHUNKS) -> list[Chunk]:
    return [Chunk(f"c{place}", document, text, lab.vector(), place) for place in range(number)]


async def _rest(handle: Handle, after: str | None) -> list[Hit]:
    found: list[Hit] = []
    while after is not None:
        page = await handle.page(ALWAYS, 2, after)
        found.extend(page.hits)
        after = page.after
    return found


@check(
    "R17",
    "a scan shows one version of each document",
    attack="Between two pages of a scan replace the document that it is in, or delete it and write it again under the "
    "same ids; then only add chunks to it.",
    breach="Chunks of two versions of one document come in one scan, or one that was only added to is not shown to its "
    "end, or other documents are not shown.",
)
async def r17(t: Trial) -> None:
    lab = t.lab

    async def replaced(handle: Handle) -> Any:
        return await handle.replace("d", _version(lab, "d", "new", _CHUNKS + 2))

    async def again(handle: Handle) -> Any:
        await handle.delete(document="d")
        return await handle.upsert(_version(lab, "d", "new"))

    async def added(handle: Handle) -> Any:
        return await handle.upsert([Chunk("c3x", "d", "old", lab.vector(), 9)])

    for name, change in (("a replacement", replaced), ("a delete and an upsert", again), ("an upsert", added)):
        own = lab.tenant()
        handle = lab.handle(own)
        await lab.plant(own, [*_version(lab, "d", "old"), *_version(lab, "e", "other")])
        lab.store.settle()
        first = await handle.page(size=2)
        t.control(
            [(hit.document, hit.text) for hit in first.hits] == [("d", "old")] * 2 and first.after is not None,
            "the first page ends inside of the document",
            first.hits,
        )
        await change(handle)
        lab.store.settle()
        hits = [*first.hits, *await _rest(handle, first.after)]
        texts = {hit.text for hit in hits if hit.document == "d"}
        t.attack(texts == {"old"}, f"{name} between two pages", texts, "chunks of two versions come in one scan")
        chunks = [hit.id for hit in hits if hit.document == "d"]
        if change is added:
            t.same(
                ["c0", "c1", "c2", "c3", "c3x", "c4"],
                sorted(chunks),
                f"{name} between two pages",
                "the document is not whole",
            )
        else:
            seen = [hit.id for hit in first.hits]  # in the order of the store, whichever it is
            t.same(seen, chunks, f"{name} between two pages", "its version is gone, and the scan goes on in it")
        t.same(_CHUNKS, sum(hit.document == "e" for hit in hits), f"{name} between two pages", "another is not whole")
