"""Every operation of the pgvector adapter, whole and narrowed, is proved statement by statement on the wire."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from evidence_support.shop import CENTRE, DIMENSION, OWN, K, Level, chunks

import vectoracl as v
from vectoracl import F, testing
from vectoracl_conformance.evidence import Recording, ScopedCall, SqlScope, Tap, Window, grade_structure, sql_judge
from vectoracl_conformance.evidence.protocols import postgres
from vectoracl_pgvector.embedded.server import EmbeddedServer

from pgvector_support.stores import Store

SCOPE = SqlScope(
    {("vectoracl", "chunks"): "tenant_id", ("vectoracl", "chunks_tenants"): "tenant_id"},
    "vectoracl.tenant",
    operators=frozenset({"public.<=>"}),
)
WHERE = (F.year > 3) & ((F.lang == "en") | F.tags.contains_any(["x"])) & F.ok.in_([True]) & F.when.is_missing()

OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "upsert": lambda handle: handle.upsert(chunks(OWN, 4, 0.5)),
    "search": lambda handle: handle.search(CENTRE, K),
    "search exactly": lambda handle: handle.search(CENTRE, K, exact=True),
    "search with a filter": lambda handle: handle.search(CENTRE, K, where=WHERE),
    "search by document": lambda handle: handle.search(CENTRE, K, group_by="document"),
    "fetch": lambda handle: handle.fetch([("d", "c"), "only"]),
    "count": lambda handle: handle.count(WHERE),
    "page": lambda handle: handle.page(size=2),
    "replace": lambda handle: handle.replace("d", chunks(OWN, 1, 0.5)[:0]),
    "delete ids": lambda handle: handle.delete(ids=[("d", "c")]),
    "delete a document": lambda handle: handle.delete(document="d"),
    "delete by filter": lambda handle: handle.delete(where=WHERE),
}


async def perform(acl: Any, tap: Tap, *, narrow: bool) -> list[ScopedCall]:
    if inspect.isawaitable(opening := acl.open()):  # connections and posture, before any question
        await opening
    handle = acl.scoped(testing.principal("alice", OWN))
    handle = handle.narrow((F["@position"] >= 0) & (F.year != 7)) if narrow else handle
    questions = []
    for name, operation in OPERATIONS.items():
        since = tap.mark()
        try:
            made = operation(handle)
            if inspect.isawaitable(made):
                await made
        except v.DeniedError:
            assert narrow, name  # a narrowed handle may not write everything; what it sent is judged all the same
            await asyncio.sleep(0.1)  # the pool rolls back a little later
        if (until := tap.mark()) != since:
            questions.append(ScopedCall(OWN, Window(since, until), K))
    return questions


@pytest.mark.parametrize("narrow", [False, True], ids=["whole", "narrowed"])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_every_operation(provisioned: Callable[..., Store], server: EmbeddedServer, mode: str, narrow: bool) -> None:
    level = Level(0, provisioned(dimension=DIMENSION), server)
    before = level.served()

    async def work(tap: Tap) -> list[ScopedCall]:
        if mode == "sync":
            with v.connect(level.config(tap)) as acl:
                return await perform(acl, tap, narrow=narrow)
        async with v.aconnect(level.config(tap)) as acl:
            return await perform(acl, tap, narrow=narrow)

    with Tap.tcp(server.host, server.port) as tap:
        questions = asyncio.run(work(tap))
        assert tap.settle()
        recording = Recording(tap.sessions(), level.served() - before)
    decoded = [postgres.decode(session) for session in recording.sessions]
    graded = grade_structure(recording, decoded, questions, sql_judge(SCOPE))
    assert graded.reasons == ()
    assert graded.outcome == "passed"
    assert len(questions) >= len(OPERATIONS) - 2 * narrow
    assert graded.facts["data"] >= len(questions)
