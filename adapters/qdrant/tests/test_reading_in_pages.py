"""An answer that takes several requests has one version of each document, whatever is written between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import ChunkRef, Count, Delete, Facets, Fetch, Replace, Scan, Search, Upsert
from vectoracl.engine.drivers import confined, run
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import ALWAYS, Eq, Not
from vectoracl.filters.validation import check_fields
from vectoracl.model.queries import HybridQuery
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.interleave import World, schedules
from vectoracl_qdrant.adapter import QdrantAdapter
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.ports import LocalPort
from vectoracl_qdrant.requests import RankLegs

from qdrant_support.model import Model

TENANT = "acme"
FIELDS = check_fields({"by": "keyword"})
ADAPTER = QdrantAdapter(QdrantConfig(memory=True, dimension=2, words=False, page=2), FIELDS)
TEXT: Any = frozenset({"text", "metadata"})
OLD, NEW = ("a", "b", "c", "d"), ("b", "c", "d", "e")
PART = 1.0  # when the first part of a document was written that came in two


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


def upsert(writer: str, chunks: tuple[str, ...], time: float, adapter: QdrantAdapter = ADAPTER) -> Flow[Any]:
    return adapter.upsert(Upsert(TENANT, ALWAYS, records(writer, chunks, time)))


def made_again() -> Flow[None]:
    """Delete the document, and write it again in two parts, as one that is large; each of the three is one step."""
    yield lambda: ADAPTER.delete(Delete(TENANT, ALWAYS, document="d"))  # type: ignore[misc]
    yield lambda: upsert("new", NEW[:2], 3.0)  # type: ignore[misc]
    yield lambda: upsert("new", NEW[2:], 4.0)  # type: ignore[misc]


def replaced() -> Flow[None]:
    yield from ADAPTER.replace(Replace(TENANT, ALWAYS, "d", records("new", NEW, 3.0)))


def scan() -> Flow[list[str]]:
    rows = yield from ADAPTER.scan(Scan(TENANT, ALWAYS, ALWAYS, 10, None, TEXT))
    return [hit.text for hit in rows.hits if hit.document == "d"]


def scan_of_some() -> Flow[list[str]]:
    rows = yield from ADAPTER.scan(Scan(TENANT, ALWAYS, Not(Eq("by", "other")), 3, None, TEXT))
    return [hit.text for hit in rows.hits if hit.document == "d"]


def fetch() -> Flow[list[str]]:
    refs = tuple(ChunkRef(one, "d") for one in "abcde")
    rows = yield from ADAPTER.fetch(Fetch(TENANT, ALWAYS, refs, TEXT))
    return [hit.text for hit in rows.hits]


def facets() -> Flow[list[str]]:
    found = yield from ADAPTER.facets(Facets(TENANT, ALWAYS, Not(Eq("by", "other")), "by"))
    return [str(one.value) for one in found for _ in range(one.count)]


def count() -> Flow[list[str]]:
    number = yield from ADAPTER.count(Count(TENANT, ALWAYS, Not(Eq("by", "other"))))
    return ["?"] * number


READS: dict[str, Callable[[], Flow[list[str]]]] = {
    "scan": scan, "scan of some": scan_of_some, "fetch": fetch, "facets": facets,
}  # fmt: skip
WRITES: dict[str, Callable[[], Flow[None]]] = {"made again": made_again, "replaced": replaced}
SAMPLE = {"made again": None, "replaced": 200}  # a replacement has too many steps of its own to try each order


class Port:
    parallel = 1

    def __init__(self, perform: Callable[[Any], Any]) -> None:
        self.perform = perform

    def execute(self, request: Any, _: float | None) -> Any:
        return self.perform(request)

    def close(self) -> None:
        pass


class Engine:
    """A model of the server, which performs requests, and whole flows where a step is one."""

    def __init__(self, model: Model) -> None:
        self.model = Model(model.points)

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
        ADAPTER.upsert(Upsert(TENANT, ALWAYS, records("other", ("a", "b"), 1.0, "c"))),
    ):
        run(flow, {"store": Port(model)})
    return model


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("read", READS)
def test_one_version_of_a_document_in_every_order(read: str, write: str) -> None:
    first = begun()

    def world() -> World:
        return World([apart(confined(READS[read](), TENANT)), WRITES[write]()], Engine(first))

    seen = set()
    for ended in schedules(world, sample=SAMPLE[write]):
        reader = ended[0]
        if reader.ended == "failed":
            assert isinstance(reader.error, StoreError)
            assert reader.error.code == "replacing"
            continue
        assert len(set(reader.value)) <= 1, (reader.value, ended.schedule)
        seen.update(reader.value)
    assert seen == {"old", "new"}


@pytest.mark.parametrize("write", WRITES)
def test_a_count_is_of_one_version(write: str) -> None:
    """Of a document that is made again while it is counted, a part may be: never parts of two versions."""
    first = begun()

    def world() -> World:
        return World([apart(confined(count(), TENANT)), WRITES[write]()], Engine(first))

    for ended in schedules(world, sample=SAMPLE[write]):
        if ended[0].ended == "done":
            assert len(ended[0].value) <= 4, (ended[0].value, ended.schedule)


def test_the_scores_of_a_hybrid_query_are_those_of_the_rows_that_come() -> None:
    """Its ranking and its rows are two requests: what is written again between them is ranked again."""
    config = QdrantConfig(memory=True, dimension=2)
    adapter = QdrantAdapter(config, FIELDS)
    port: Any = LocalPort(config, "memory-of-its-own:scores", debug=False)
    run(upsert("old words", ("a", "b"), 1.0, adapter), {"store": port})
    query = HybridQuery("words", np.array([1.0, 0.5], np.float32))
    search = Search(TENANT, ALWAYS, ALWAYS, query, 5, TEXT)
    done = []

    def meeting(request: Any) -> Any:
        reply = port.execute(request, None)
        if isinstance(request, RankLegs) and not done:
            done.append(True)
            run(adapter.delete(Delete(TENANT, ALWAYS, document="d")), {"store": port})
            again = records("new", ("b", "a"), 3.0)  # the order of their vectors is another one, and no word is there
            run(adapter.upsert(Upsert(TENANT, ALWAYS, again)), {"store": port})
        return reply

    found = run(adapter.search(search), {"store": Port(meeting)})
    assert done
    assert found == run(adapter.search(search), {"store": port})
    assert {hit.text for hit in found.hits} == {"new"}
    port.close()
