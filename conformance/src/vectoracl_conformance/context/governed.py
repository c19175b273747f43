"""One governed tenant of a check: its governor changes rights, and every way to read is judged.

The flows that change rights are the library's: what is judged is the answers, and the rows as the census reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vectoracl import Hybrid, Lexical, Like, Principal
from vectoracl.adapter_api.operations import Relabel
from vectoracl.filters.predicate import F
from vectoracl.model.records import Chunk, Record
from vectoracl_conformance.context.assertions import Assertions
from vectoracl_conformance.context.check_context import AwaitableHandle, Client, claims_of, user
from vectoracl_conformance.context.oracle import Oracle

LEVELS = ("public", "internal", "secret")
GOVERNORS = "records"
BRIEF_SECONDS = 3.0
"""The time for which the source "brief" is believed."""
MARK = "#vectoracl-mark"
WORD = "quorum"
"""A word of every chunk that the checks write."""

_GOVERN = """
from vectoracl import Principal

def plain(answer):
    parts = ("written", "erased", "left", "incomplete", "documents")
    if type(answer).__name__ in ("Reconciled", "Receipt"):
        return {one: getattr(answer, one) for one in parts if hasattr(answer, one)}
    return answer if isinstance(answer, int | list | None) else None

async def later(answer):
    return plain(await answer)

def work(client, claims, name, args, given):
    answer = getattr(client.governance(Principal(**claims)), name)(*args, **given)
    return later(answer) if hasattr(answer, "__await__") else plain(answer)
"""
_FAMILY = """
from vectoracl import VectorACL, hazmat

def work(client, tenant, parent):
    acl = VectorACL(client.config)
    try:
        hazmat.govern(acl, tenant, reason="connect two tenants").set_parent(parent)
    finally:
        acl.close()
"""
_EXPLAIN = """
from vectoracl import Principal

async def later(answer):
    return (await answer).document_visible

def work(client, claims, document):
    answer = client.explain(Principal(**claims), "search", document=document)
    return later(answer) if hasattr(answer, "__await__") else answer.document_visible
"""
_RELABEL = """
from vectoracl.engine.drivers import arun, confined, run

def work(client, operation):
    named = client._named(client.config.default)
    flow = confined(named.store.adapter.relabel(operation), operation.partition)
    if named.port is not None:
        return run(flow, {"store": named.port}, timeout=30)
    return arun(flow, {"store": named.aport}, timeout=30)
"""


class Governed:
    """One governed tenant in a check: its documents as the check wrote them, and its governor."""

    def __init__(self, t: Assertions, tenant: str = "", client: Client | None = None) -> None:
        self.t = t
        self.context = t.context
        self.client = client or t.context.client
        self.tenant = tenant or t.context.tenant()
        self.chunks: dict[str, list[str]] = {}
        self.several = False  # whether a principal may read the partitions of several tenants
        self.boss = user(self.tenant, id="boss", roles=[GOVERNORS])

    def person(self, **claims: Any) -> Principal:
        """Return a principal of the tenant."""
        return user(self.tenant, **claims)

    def handle(self, who: Principal, **given: Any) -> AwaitableHandle:
        """Return a handle of *who*."""
        return self.client.as_principal(who, **given)

    async def govern(self, name: str, *args: Any, by: Principal | None = None, **given: Any) -> Any:
        """Call a method of the governor's handle."""
        return await self.client.run(_GOVERN, claims_of(by or self.boss), name, args, given)

    async def define(self, label: str, *entries: Any, **given: Any) -> None:
        """Define a label with its access entries."""
        await self.govern("define_label", label, entries=list(entries), **given)

    async def child_of(self, parent: str | None) -> None:
        """Give the tenant another parent."""
        await self.client.run(_FAMILY, self.tenant, parent)

    async def relabel(self, operation: Relabel) -> Any:
        """Hand a change of labels to the adapter itself."""
        return await self.client.run(_RELABEL, operation)

    def documents(self, count: int) -> list[str]:
        """Return the ids of new documents."""
        return [f"d-{self.context.rng.word()}" for _ in range(count)]

    async def write(self, who: Principal, *documents: str, near: float | None = None, source: str = "") -> None:
        """Write documents of two chunks each as *who*, who has to be permitted to."""
        given: dict[str, Any] = {"source": source} if source else {}
        handle = self.handle(who, **given)
        for document in documents:
            text = f"{WORD} {self.context.rng.word()}"
            pair = [
                replace(one, text=f"{text} {place}")
                for place, one in enumerate(self.context.chunks(2, document=document, near=near))
            ]
            self.chunks[document] = [one.id for one in pair]
            await handle.upsert(pair)
        self.context.store.settle()

    def rows(self) -> dict[tuple[str, int, str], tuple[Any, ...]]:
        """Return the tenant's rows as the census reads them, by document, generation and chunk, with labels."""
        return {
            (row.tag.document, row.tag.generation, row.tag.chunk): (
                row.tag.label,
                row.tag.rev,
                row.tag.expires,
                row.tag.producer,
                row.text,
            )
            for row in self.stored()
        }

    def stored(self) -> list[Record]:
        """Return the tenant's rows, without the marks by which the registry notices a restored store."""
        own = [row for row in self.context.census() if row.tag.tenant == self.tenant]
        return [row for row in own if row.tag.document != MARK]

    def oracle(self, documents: Sequence[str]) -> Oracle:
        """Return an oracle of the published rows of *documents*: those of the newest generation."""
        rows, newest = [row for row in self.stored() if row.tag.document in documents], dict[str, int]()
        for row in rows:
            newest[row.tag.document] = max(newest.get(row.tag.document, 0), row.tag.generation)
        return Oracle([row for row in rows if newest[row.tag.document] == row.tag.generation])

    async def unchanged(self, work: Callable[[], Any], what: str) -> Any:
        """Await a change of rights, and demand that it wrote no chunk."""
        before = self.rows()
        answer = await work()
        self.t.assert_equal(before, self.rows(), what, "it was written to chunks; a change of rights writes none")
        return answer

    async def judge(self, who: Principal, permitted: Sequence[str], what: str, handle: Any = None) -> None:
        """Demand that every way to read shows *who* exactly the documents *permitted* of those that were written."""
        right = frozenset(permitted)
        found = await self.seen(who, handle or self.handle(who))
        for door, documents in found.items():
            missing, foreign = right - documents, documents - right
            self.t.assert_safe(not foreign, f"{door} {what}", sorted(foreign), "it shows what is not permitted")
            self.t.positive_control(not missing, f"{door} {what} shows what is permitted", sorted(missing))

    async def seen(self, who: Principal, handle: AwaitableHandle) -> dict[str, frozenset[str]]:
        """Return, for each way to read, the documents that it shows."""
        can, centre = self.client.adapter.capabilities, self.context.corpus.centre
        refs = [(document, chunk) for document, chunks in self.chunks.items() for chunk in chunks]
        most = min(can.max_k, 2 * len(refs) + 5)
        found: dict[str, Any] = {
            "search": await handle.search(centre, most),
            "a search with a filter": await handle.search(centre, most, where=F["@document"].in_(list(self.chunks))),
            "a search for several queries": [hit for one in await handle.search_many([centre], most) for hit in one],
            "fetch": await handle.fetch(refs),
            "fetch by the chunk's id": await handle.fetch([chunk for _, chunk in refs]),
            "page": (await handle.page(size=most)).hits,
            "scan": await handle.all(size=3),
            "a narrowed handle": await handle.narrow(F["@document"].in_(list(self.chunks))).all(),
        }
        if can.exact:
            found["an exact search"] = await handle.search(centre, most, exact=True)
        if can.group_by:
            found["a grouped search"] = await handle.search(centre, len(self.chunks), group_by="document")
        if "lexical" in can.queries and (not self.several or can.lexical_scores == "comparable"):
            found["a search for words"] = await handle.search(Lexical(WORD), most)
        if "hybrid" in can.queries:
            found["a hybrid search"] = await handle.search(Hybrid(WORD, centre), most)
        shown = {door: frozenset(hit.document for hit in hits) for door, hits in found.items()}
        return {**shown, **await self._counted(who, handle)}

    async def _counted(self, who: Principal, handle: AwaitableHandle) -> dict[str, frozenset[str]]:
        can, shown = self.client.adapter.capabilities, {}
        if can.count != "none":
            numbers = {one: await handle.count(F["@document"] == one) for one in self.chunks}
            shown["count"] = frozenset(one for one, number in numbers.items() if number)
            whole = sum(len(self.chunks[one]) for one in shown["count"])
            self.t.assert_equal(whole, await handle.count(), "count of everything", "it is not the sum of its parts")
            told = {one: await self.client.run(_EXPLAIN, claims_of(who), one) for one in self.chunks}
            shown["explain"] = frozenset(one for one, number in told.items() if number)
        if can.facets != "none":
            shown["facets"] = frozenset(one.value for one in await handle.facets("@document", limit=1000))
        return shown

    async def like(self, who: Principal, document: str) -> tuple[Any, ...]:
        """Return the outcome of a search for what is like a chunk of *document*."""
        chunk = self.chunks[document][0] if document in self.chunks else "none"
        outcome = await self.t.outcome(self.handle(who).search(Like(chunk, document=document), 3))
        return outcome if outcome[0] != "ok" else ("ok", len(outcome[1]))

    async def writes(self, who: Principal, document: str) -> Mapping[str, tuple[Any, ...]]:
        """Try every write on *document* as *who*, and return the outcomes; what they may change is the caller's."""
        handle, ref = self.handle(who), (document, self.chunks[document][0])
        chunk = Chunk(ref[1], document, f"{WORD} overwritten", self.context.vector())
        calls: dict[str, Callable[[], Any]] = {
            "delete by ids": lambda: handle.delete([ref]),
            "delete of the document": lambda: handle.delete(document=document),
            "delete by a filter": lambda: handle.delete(where=F["@document"] == document),
            "replace": lambda: handle.replace(document, [chunk]),
            "replace by nothing": lambda: handle.replace(document, []),
            "upsert": lambda: handle.upsert([chunk]),
        }
        return {name: await self.t.outcome(call()) for name, call in calls.items()}
