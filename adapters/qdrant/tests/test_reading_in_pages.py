"""An answer that takes several requests has one version of each document, whatever is written between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Count, Delete, Facets, Replace, Search, Upsert
from vectoracl.engine.drivers import run
from vectoracl.filters.predicate import ALWAYS, Eq, Not
from vectoracl.model.queries import HybridQuery
from vectoracl_conformance.adapter_tests import interleaved
from vectoracl_conformance.adapter_tests.interleaved import FIELDS, NEW, FunctionPort, Read, records, upsert
from vectoracl_conformance.adapter_tests.shapes import TENANT, TEXT
from vectoracl_conformance.interleave import World, schedules
from vectoracl_qdrant.adapter import QdrantAdapter
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.ports import LocalPort
from vectoracl_qdrant.requests import RankLegs

from qdrant_support.model import Model

ADAPTER = QdrantAdapter(QdrantConfig(memory=True, dimension=2, words=False, page=2), FIELDS)
NOT_THE_OTHERS = Not(Eq("by", "other"))


def replaced() -> Flow[None]:
    yield from ADAPTER.replace(Replace(TENANT, ALWAYS, "d", records("new", NEW, 3.0)))


def facets() -> Flow[list[str]]:
    found = yield from ADAPTER.facets(Facets(TENANT, ALWAYS, NOT_THE_OTHERS, "by"))
    return [str(one.value) for one in found for _ in range(one.count)]


def count() -> Flow[list[str]]:
    number = yield from ADAPTER.count(Count(TENANT, ALWAYS, NOT_THE_OTHERS))
    return ["?"] * number


READS: dict[str, Read] = {
    "scan": lambda: interleaved.scan(ADAPTER),
    "scan of some": lambda: interleaved.scan(ADAPTER, NOT_THE_OTHERS, 3),
    "fetch": lambda: interleaved.fetch(ADAPTER),
    "facets": facets,
}
WRITES: dict[str, Callable[[], Flow[None]]] = {
    "made again": lambda: interleaved.made_again(ADAPTER), "replaced": replaced,
}  # fmt: skip
SAMPLE = {"made again": None, "replaced": 200}  # a replacement has too many steps to try each order


def worlds(read: Read, write: str) -> Callable[[], World]:
    first = interleaved.begin(ADAPTER, Model())
    return lambda: interleaved.world(read, WRITES[write](), Model(first.points))


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("read", READS)
def test_one_version_of_a_document_in_every_order(read: str, write: str) -> None:
    interleaved.assert_one_version(worlds(READS[read], write), SAMPLE[write])


@pytest.mark.parametrize("write", WRITES)
def test_a_count_is_of_one_version(write: str) -> None:
    """Of a document that is made again while it is counted, a part may be: never parts of two versions."""
    for ended in schedules(worlds(count, write), sample=SAMPLE[write]):
        if ended[0].ended == "done":
            assert len(ended[0].value) <= 4, (ended[0].value, ended.schedule)


def test_the_scores_of_a_hybrid_query_are_those_of_the_rows_that_come() -> None:
    """Its ranking and its rows are two requests: what is written again between them is ranked again."""
    config = QdrantConfig(memory=True, dimension=2)
    adapter = QdrantAdapter(config, FIELDS)
    port: Any = LocalPort(config, "memory-of-its-own:scores", debug=False)
    run(upsert(adapter, "old words", ("a", "b"), 1.0), {"store": port})
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

    found = run(adapter.search(search), {"store": FunctionPort(meeting)})
    assert done
    assert found == run(adapter.search(search), {"store": port})
    assert {hit.text for hit in found.hits} == {"new"}
    port.close()
