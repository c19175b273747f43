"""An answer that takes several requests has one version of each document, whatever is written between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import ChunkRef, Delete, Fetch, Scan, Search, Upsert
from vectoracl.engine.drivers import confined, run
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import ALWAYS, Eq, Not
from vectoracl.filters.validation import check_fields
from vectoracl.model.queries import VectorQuery
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.interleave import World, schedules
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.config import PineconeConfig

from pinecone_support.model import Model

TENANT = "acme"
FIELDS = check_fields({"by": "keyword"})
SETTINGS = {"api_key": "none", "index": "i", "dimension": 2, "page": 2}
TEXT: Any = frozenset({"text", "metadata"})
OLD, NEW = ("a", "b", "c", "d"), ("b", "c", "d", "e")


def adapter(*, fetch_by: bool = True) -> PineconeAdapter:
    return PineconeAdapter(PineconeConfig.model_validate({**SETTINGS, "fetch_by_metadata": fetch_by}), FIELDS)


def records(writer: str, chunks: tuple[str, ...], time: float, document: str = "d") -> tuple[Record, ...]:
    return tuple(
        Record(
            Tag(TENANT, document, one, producer=writer, time=time, position=place),
            writer,
            np.array([1.0, float(place)], np.float32),
            {"by": writer},
        )
        for place, one in enumerate(chunks)
    )


def upsert(writer: str, chunks: tuple[str, ...], time: float) -> Flow[Any]:
    return adapter().upsert(Upsert(TENANT, ALWAYS, records(writer, chunks, time)))


def made_again() -> Flow[None]:
    """Delete the document, and write it again in two parts, as one that is large; each of the three is one step."""
    yield lambda: adapter().delete(Delete(TENANT, ALWAYS, document="d"))  # type: ignore[misc]
    yield lambda: upsert("new", NEW[:2], 3.0)  # type: ignore[misc]
    yield lambda: upsert("new", NEW[2:], 4.0)  # type: ignore[misc]


def scan(where: Any = ALWAYS, size: int = 10) -> Flow[list[str]]:
    rows = yield from adapter().scan(Scan(TENANT, ALWAYS, where, size, None, TEXT))
    return [hit.text for hit in rows.hits if hit.document == "d"]


def fetch(*, fetch_by: bool) -> Flow[list[str]]:
    refs = tuple(ChunkRef(one, "d") for one in "abcde")
    rows = yield from adapter(fetch_by=fetch_by).fetch(Fetch(TENANT, ALWAYS, refs, TEXT))
    return [hit.text for hit in rows.hits]


def search() -> Flow[list[str]]:
    query = VectorQuery(np.array([1.0, 0.5], np.float32))
    found = yield from adapter().search(Search(TENANT, ALWAYS, Not(Eq("by", "other")), query, 9, TEXT))
    return [hit.text for hit in found.hits]


READS: dict[str, Callable[[], Flow[list[str]]]] = {
    "scan": scan,
    "scan of some": lambda: scan(Not(Eq("by", "other")), 3),
    "fetch": lambda: fetch(fetch_by=True),
    "fetch by listing": lambda: fetch(fetch_by=False),
    "search": search,
}


class Port:
    parallel = 1

    def __init__(self, perform: Callable[[Any], Any]) -> None:
        self.perform = perform

    def execute(self, request: Any, _: float | None) -> Any:
        return self.perform(request)

    def close(self) -> None:
        pass


class Engine:
    """A model of the index, which performs requests, and whole flows where a step is one."""

    def __init__(self, model: Model) -> None:
        self.model = Model(model.records)

    def __call__(self, request: Any) -> Any:
        return run(request(), {"store": Port(self.model)}) if callable(request) else self.model(request)


def apart(flow: Flow[Any]) -> Flow[Any]:
    """Make the requests of *flow* that go side by side one after the other, so that others may come in between."""
    reply: Any = None
    while True:
        try:
            step: Any = flow.send(reply)
        except StopIteration as stop:
            return stop.value
        if isinstance(step, tuple):
            replies = []
            for one in step:
                replies.append((yield one))
            reply = tuple(replies)
        else:
            reply = yield step


def begun() -> Model:
    model = Model()
    for flow in (
        upsert("old", OLD[:2], 1.0),
        upsert("old", OLD[2:], 2.0),
        adapter().upsert(Upsert(TENANT, ALWAYS, records("other", ("a", "b"), 1.0, "c"))),
    ):
        run(flow, {"store": Port(model)})
    return model


@pytest.mark.parametrize("read", READS)
def test_one_version_of_a_document_in_every_order(read: str) -> None:
    first = begun()

    def world() -> World:
        return World([apart(confined(READS[read](), TENANT)), made_again()], Engine(first))

    seen = set()
    for ended in schedules(world):
        reader = ended[0]
        if reader.ended == "failed":
            assert isinstance(reader.error, StoreError)
            assert reader.error.code == "replacing"
            continue
        assert len(set(reader.value)) <= 1, (reader.value, ended.schedule)
        seen.update(reader.value)
    assert seen == {"old", "new"}
