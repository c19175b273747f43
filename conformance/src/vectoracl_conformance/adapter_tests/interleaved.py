"""Tests of reads that take several requests, with concurrent writes in between: an answer has one version per document.

The store is a model in memory that performs one request at a time. A read and a write are flows whose requests are
interleaved in every order (see `interleave`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import ChunkRef, Delete, Fetch, Scan, Upsert
from vectoracl.engine.drivers import confined, run
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import ALWAYS, Predicate
from vectoracl.filters.validation import check_fields
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.adapter_tests.shapes import TENANT, TEXT
from vectoracl_conformance.interleave import World, schedules

FIELDS: Final = check_fields({"by": "keyword"})
OLD, NEW = ("a", "b", "c", "d"), ("b", "c", "d", "e")

Read = Callable[[], Flow[list[str]]]
"""Makes a flow that returns the texts of the chunks of document "d"; each text is the writer's name."""


class FunctionPort:
    """A port that performs requests by a function."""

    parallel = 1

    def __init__(self, perform: Callable[[Any], Any]) -> None:
        self.perform = perform

    def execute(self, request: Any, _: float | None) -> Any:
        """Perform *request*; there is no time limit."""
        return self.perform(request)

    def close(self) -> None:
        """Do nothing."""


class Engine:
    """A server made of *model*: performs a request, or a whole flow where a step is a function that makes one."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, step: Any) -> Any:
        """Perform *step*."""
        return run(step(), {"store": FunctionPort(self.model)}) if callable(step) else self.model(step)


def records(writer: str, chunks: tuple[str, ...], time: float, document: str = "d") -> tuple[Record, ...]:
    """Return *chunks* of *document* as *writer* writes them: the writer is their text and in their metadata."""
    return tuple(
        Record(
            Tag(TENANT, document, one, producer=writer, time=time, position=place),
            writer,
            np.array([1.0, float(place)], np.float32),
            {"by": writer},
        )
        for place, one in enumerate(chunks)
    )


def upsert(adapter: Any, writer: str, chunks: tuple[str, ...], time: float) -> Flow[Any]:
    """Return the flow that writes *chunks*."""
    flow: Flow[Any] = adapter.upsert(Upsert(TENANT, ALWAYS, records(writer, chunks, time)))
    return flow


def begin(adapter: Any, model: Any) -> Any:
    """Return *model* with the old document, which was written in two parts, and another one."""
    for flow in (
        upsert(adapter, "old", OLD[:2], 1.0),
        upsert(adapter, "old", OLD[2:], 2.0),
        adapter.upsert(Upsert(TENANT, ALWAYS, records("other", ("a", "b"), 1.0, "c"))),
    ):
        run(flow, {"store": FunctionPort(model)})
    return model


def made_again(adapter: Any) -> Flow[None]:
    """Delete the document, and write it again in two parts, as one that is large; each of the three is one step."""
    yield lambda: adapter.delete(Delete(TENANT, ALWAYS, document="d"))  # type: ignore[misc]
    yield lambda: upsert(adapter, "new", NEW[:2], 3.0)  # type: ignore[misc]
    yield lambda: upsert(adapter, "new", NEW[2:], 4.0)  # type: ignore[misc]


def scan(adapter: Any, where: Predicate = ALWAYS, size: int = 10) -> Flow[list[str]]:
    """Read by a scan."""
    rows = yield from adapter.scan(Scan(TENANT, ALWAYS, where, size, None, TEXT))
    return [hit.text for hit in rows.hits if hit.document == "d"]


def fetch(adapter: Any) -> Flow[list[str]]:
    """Read by name."""
    refs = tuple(ChunkRef(one, "d") for one in "abcde")
    rows = yield from adapter.fetch(Fetch(TENANT, ALWAYS, refs, TEXT))
    return [hit.text for hit in rows.hits]


def one_by_one(flow: Flow[Any]) -> Flow[Any]:
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


def world(read: Read, write: Flow[Any], model: Any) -> World:
    """Return the world in which *read* meets *write* on *model*."""
    return World([one_by_one(confined(read(), TENANT)), write], Engine(model))


def assert_one_version(make: Callable[[], World], sample: int | None = None) -> None:
    """Assert that the read of every world has one version of the document, and that both versions are met.

    A read may refuse with the code "replacing". *sample* bounds how many orders are tried.
    """
    versions = set()
    for ended in schedules(make, sample=sample):
        reader = ended[0]
        if reader.ended == "failed":
            assert isinstance(reader.error, StoreError)
            assert reader.error.code == "replacing"
            continue
        assert len(set(reader.value)) <= 1, (reader.value, ended.schedule)
        versions.update(reader.value)
    assert versions == {"old", "new"}
