"""Mutants of the core: the same adapters with a core in which one guard is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from vectoracl.adapter_api.operations import Found
from vectoracl.filters.field_types import TAG_FIELDS
from vectoracl_conformance.harness import Mutant


def _accept(_: Any) -> Any:
    return lambda value: value


def _ahead(old: Any) -> Any:
    def scan(self: Any, *args: Any, **given: Any) -> Iterator[Any]:
        hits: list[Any] = []

        def first() -> Iterator[Any]:
            if not hits:
                hits.extend(old(self, *args, **given))
            yield from hits

        return first()

    return scan


def _ahead_async(old: Any) -> Any:
    async def scan(self: Any, *args: Any, **given: Any) -> AsyncIterator[Any]:
        for hit in [hit async for hit in old(self, *args, **given)]:
            yield hit

    return scan


def _joined(_: Any) -> Any:
    return lambda found, ask: Found([hit for one in found for hit in one.hits][: ask.k])


CORE = (
    Mutant(
        "tag fields in filters",
        "a caller may filter by any field of the tag",
        "R7",
        patches=(("vectoracl.filters.validation", "CALLER_TAG_FIELDS", lambda _: frozenset(TAG_FIELDS)),),
    ),
    Mutant(
        "cursors of others",
        "a cursor is followed whoever it belongs to",
        "R11",
        patches=(("vectoracl.engine.paging", "_binding", lambda _: lambda *_args: "any"),),
    ),
    Mutant(
        "hits joined, not merged",
        "the hits of several partitions are not merged by score",
        "R15",
        patches=(("vectoracl.engine.reads", "merge", _joined),),
    ),
    Mutant(
        "any tenant's name",
        "blank, NUL and wildcard names are accepted",
        "P1",
        patches=(("vectoracl.model.principal", "check_tenant", _accept),),
    ),
    Mutant(
        "expiry forgotten",
        "an expired principal is answered",
        "P5",
        patches=(("vectoracl.model.principal:Principal", "expired", lambda _: lambda _self, _now: False),),
    ),
    Mutant(
        "handles never close",
        "a closed handle is answered",
        "P5",
        patches=(("vectoracl.engine.handle:Lifetime", "open", lambda _: lambda _self: True),),
    ),
    Mutant(
        "scan reads ahead",
        "a scan has all pages before it yields the first",
        "S4",
        patches=(
            ("vectoracl.client.retriever:ScopedRetriever", "scan", _ahead),
            ("vectoracl.client.retriever:AsyncScopedRetriever", "scan", _ahead_async),
        ),
        modes=("sync", "async"),
    ),
    Mutant(
        "hits show their text",
        "a repr holds stored text",
        "X1",
        patches=(("vectoracl.model.records:Hit", "__repr__", lambda _: lambda self: f"Hit({self.text})"),),
    ),
    Mutant(
        "a deaf recorder",
        "the kit's recorder hears nothing",
        "X5",
        patches=(("vectoracl_conformance.isolated.remote:RemoteRecorder", "since", lambda _: lambda *_args: []),),
    ),
)
