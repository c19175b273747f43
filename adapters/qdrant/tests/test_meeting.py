"""Writers and readers of one document that meet: every order of their requests, and deaths in the middle.

The flows are the adapter's own; the engine is a model, which is compared with the client's local mode. A request of
several steps is also taken apart, since a server does other writers' steps in between.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from vectoracl.adapter_api.generations import at_generation
from vectoracl.adapter_api.operations import ChunkRef, Count, Delete, Facets, Fetch, Replace, Scan, Search, Upsert
from vectoracl.engine.drivers import confined, run
from vectoracl.errors import DeniedError, StoreError
from vectoracl.filters.predicate import ALWAYS, Eq, Or
from vectoracl.filters.validation import check_fields
from vectoracl.model.queries import VectorQuery
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.adapter_tests.interleaved import FunctionPort
from vectoracl_conformance.interleave import Ended, World, deaths, frozen, moments, outcomes, schedules
from vectoracl_qdrant import schema
from vectoracl_qdrant.adapter import QdrantAdapter
from vectoracl_qdrant.compile import QdrantCompiler
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.names import HEADS, point_id
from vectoracl_qdrant.ports import call, reply_of
from vectoracl_qdrant.requests import Write

from qdrant_support.model import Model

TENANT = "acme"
FIELDS = check_fields({"by": "keyword"})
CONFIG = QdrantConfig(memory=True, dimension=2, words=False)
ADAPTER = QdrantAdapter(CONFIG, FIELDS)
TEXT: Any = frozenset({"text", "metadata"})


def records(writer: str, *chunks: str, document: str = "d") -> tuple[Record, ...]:
    time = float(zlib.crc32(repr((writer, chunks)).encode()))  # the same in every run, so that states are met again
    return tuple(
        Record(
            Tag(TENANT, document, one, producer=writer, time=time, position=place),
            writer,
            np.array([1.0, float(place)], np.float32),
            {"by": writer},
        )
        for place, one in enumerate(chunks)
    )


def upsert(writer: str, *chunks: str) -> tuple[Any, Any]:
    return (
        lambda: ADAPTER.upsert(Upsert(TENANT, ALWAYS, records(writer, *chunks))),
        lambda state: {**state, **dict.fromkeys(chunks, writer)},
    )


def replace(writer: str, *chunks: str) -> tuple[Any, Any]:
    return (
        lambda: ADAPTER.replace(Replace(TENANT, ALWAYS, "d", records(writer, *chunks))),
        lambda _: dict.fromkeys(chunks, writer),
    )


INSIDE = ("older", "old", "n0", "n1", "n2")
"""The writers whose chunks a narrowed handle may take."""


def narrowed(writer: str, *chunks: str) -> tuple[Any, Any]:
    """Replace by a handle that may take only the chunks of some writers. What others add meanwhile stays."""
    scope = Or(tuple(Eq("by", one) for one in INSIDE))
    return (
        lambda: ADAPTER.replace(Replace(TENANT, scope, "d", records(writer, *chunks))),
        lambda state: {
            **dict.fromkeys(chunks, writer),
            **{chunk: text for chunk, text in state.items() if text not in INSIDE},
        },
    )


def delete(keep: Callable[[str, str], bool], **selector: Any) -> tuple[Any, Any]:
    return (
        lambda: ADAPTER.delete(Delete(TENANT, ALWAYS, **selector)),
        lambda state: {chunk: text for chunk, text in state.items() if keep(chunk, text)},
    )


WRITES = {
    "replace": lambda n: replace(f"r{n}", "a", "b", f"x{n}"),
    "narrowed replace": lambda n: narrowed(f"n{n}", "a", "b", f"x{n}"),
    "upsert": lambda n: upsert(f"u{n}", "b", f"y{n}"),
    "delete ids": lambda _: delete(lambda chunk, _: chunk != "a", refs=(ChunkRef("a", "d"),)),
    "delete document": lambda _: delete(lambda *_: False, document="d"),
    "delete where": lambda _: delete(lambda _, text: text != "old", where=Eq("by", "old")),
    "clear": lambda _: delete(lambda *_: False, where=ALWAYS),
    "replace with nothing": lambda _: (
        lambda: ADAPTER.replace(Replace(TENANT, ALWAYS, "d", ())),
        lambda _: {},
    ),
}
STARTS = {
    "absent": (),
    "added": (upsert("old", "a", "b"),),
    "replaced": (replace("older", "a"), replace("old", "a", "b")),
    "emptied": (replace("older", "a"), delete(lambda *_: False, document="d")),
}


def engine(writes: Sequence[tuple[Any, Any]] = ()) -> Model:
    client = Model()
    for make, _ in writes:
        drive(client, make())
    return client


class Local:
    """The client's local mode, which performs the same requests."""

    def __init__(self) -> None:
        self.client = QdrantClient(":memory:")
        (create, *_) = schema.steps(CONFIG, FIELDS, None)
        assert isinstance(create, schema.CreateCollection)
        self.client.create_collection(CONFIG.collection, vectors_config=create.vectors)

    def __call__(self, request: Any) -> Any:
        return reply_of(request, call(self.client, CONFIG, request, None))

    @property
    def points(self) -> dict[str, Any]:
        found = self.client.scroll(CONFIG.collection, limit=1000)[0]
        return {str(one.id): (None, one.payload) for one in found}


def drive(client: Any, flow: Any) -> Any:
    return run(flow, {"store": FunctionPort(client)})


def pieces(step: Any) -> Sequence[Any] | None:
    return [Write(step.partition, (one,)) for one in step.operations] if isinstance(step, Write) else None


def pages(client: Any) -> dict[str, str]:
    hits = drive(client, ADAPTER.scan(Scan(TENANT, ALWAYS, ALWAYS, 100, None, TEXT))).hits
    assert len({hit.id for hit in hits}) == len(hits), hits
    assert len({hit.tag.generation for hit in hits}) <= 1, hits
    return {hit.id: hit.text for hit in hits}


def searched(client: Any) -> dict[str, str]:
    query = VectorQuery(np.array([1.0, 0.5], np.float32))
    hits = drive(client, ADAPTER.search(Search(TENANT, ALWAYS, ALWAYS, query, 100, TEXT))).hits
    assert len({hit.id for hit in hits}) == len(hits)
    return {hit.id: hit.text for hit in hits}


def picture(client: Any) -> str:
    return repr(sorted((id_, sorted(payload.items(), key=str)) for id_, (_, payload) in client.points.items()))


class Reader:
    """Looks at the document in every way; whatever way it is, it sees one version."""

    def __init__(self, client: Any, allowed: set[Any], known: set[str]) -> None:
        self.client, self.allowed, self.known = client, allowed, known

    def __call__(self) -> None:
        now = picture(self.client)
        if now in self.known:
            return
        self.known.add(now)
        state = pages(self.client)
        assert frozen(state) in self.allowed, state
        assert searched(self.client) == state
        assert drive(self.client, ADAPTER.count(Count(TENANT, ALWAYS, ALWAYS))) == len(state)
        facets = drive(self.client, ADAPTER.facets(Facets(TENANT, ALWAYS, ALWAYS, "by")))
        assert {one.value: one.count for one in facets} == {
            text: list(state.values()).count(text) for text in state.values()
        }
        for chunk in ("a", "b", "x0", "x1", "y0", "y1", "y2"):  # a reader whose answer holds no other chunk
            hits = drive(self.client, ADAPTER.fetch(Fetch(TENANT, ALWAYS, (ChunkRef(chunk, "d"),), TEXT))).hits
            assert [hit.text for hit in hits] == [text for one, text in state.items() if one == chunk], chunk


class Meeting:
    def __init__(self, start: str, names: Sequence[str], *, apart: bool = False) -> None:
        self.start, self.names, self.apart = start, names, apart
        self.writes = [WRITES[name](number) for number, name in enumerate(names)]
        self.first = self.client = engine(STARTS[start])
        self.begin: dict[str, str] = {}
        for _, effect in STARTS[start]:
            self.begin = effect(self.begin)
        effects = [effect for _, effect in self.writes]
        again = 2 if "upsert" in names else 1
        self.seen = moments(self.begin, effects, again=again)
        self.known: set[str] = set()
        self.ends: set[Any] = set()

    def __call__(self) -> World:
        self.client = Model(self.first.points)
        flows = [confined(make(), TENANT) for make, _ in self.writes]
        return World(
            flows,
            self.client,
            Reader(self.client, self.seen, self.known),
            pieces if self.apart else lambda _: None,
        )

    def judge(self, ended: Ended) -> None:
        """Compare the end with what some order of the writes gives; then nothing else comes to light."""
        for actor in ended:
            if actor.ended == "failed":
                if isinstance(actor.error, DeniedError):
                    assert "narrowed replace" in self.names
                    continue
                assert isinstance(actor.error, StoreError)
                assert (actor.error.code, actor.error.sent, actor.error.written) == ("conflict", "no", 0)
        end = (picture(self.client), *((actor.ended, actor.undone) for actor in ended))
        if end in self.ends:
            return
        self.ends.add(end)
        state = pages(self.client)
        allowed = outcomes(self.begin, [effect for _, effect in self.writes], ended)
        assert frozen(state) in allowed, (state, ended.schedule, [(one.ended, str(one.error)) for one in ended])
        if all(actor.ended != "died" for actor in ended):
            left = raw(self.client)
            assert {(one["chunk_id"], one["content"]) for one in left} == frozen(state)
            assert len(ended) > 2 or not any("pending" in one for one in left), "a mark is left"
        for chunk in sorted(state):
            drive(self.client, ADAPTER.delete(Delete(TENANT, ALWAYS, refs=(ChunkRef(chunk, "d"),))))
            del state[chunk]
            assert pages(self.client) == state, (chunk, ended.schedule)
        drive(self.client, upsert("late", "z")[0]())
        assert pages(self.client) == searched(self.client) == {"z": "late"}, ended.schedule
        drive(self.client, replace("last", "a", "z")[0]())
        assert pages(self.client) == {"a": "last", "z": "last"}, ended.schedule
        assert len(raw(self.client)) == 2, "the next replacement leaves nothing but its own"


def raw(client: Any) -> list[dict[str, Any]]:
    """Return the payload of every point that is no head."""
    return [payload for _, payload in client.points.values() if payload["group_id"] != HEADS]


PAIRS = [*combinations_with_replacement(list(WRITES), 2)]
THREE = [("replace", "replace"), ("replace", "upsert"), ("upsert", "upsert")]
MEETING = [pair for pair in PAIRS if {"replace", "narrowed replace", "upsert"} & set(pair)]


CASES = [
    pytest.param(start, names, id=f"{' and '.join(names)}, {start}")
    for names in MEETING
    for start in STARTS
    if names in (("replace", "replace"), ("narrowed replace", "upsert")) or start == "replaced"
]


@pytest.mark.parametrize(("start", "names"), CASES)
def test_two_writers_in_every_order(start: str, names: tuple[str, str]) -> None:
    meeting = Meeting(start, names)
    for ended in schedules(meeting):
        meeting.judge(ended)


@pytest.mark.parametrize(("start", "names"), CASES)
@pytest.mark.parametrize("who", [0, 1])
def test_two_writers_of_which_one_dies(start: str, names: tuple[str, str], who: int) -> None:
    meeting = Meeting(start, names)
    for ended in deaths(meeting, who):
        meeting.judge(ended)


@pytest.mark.parametrize("names", MEETING, ids=" and ".join)
def test_two_writers_whose_requests_are_done_step_by_step(names: tuple[str, str]) -> None:
    for start in STARTS:
        meeting = Meeting(start, names, apart=True)
        for ended in schedules(meeting, sample=12):
            meeting.judge(ended)
        for ended in deaths(meeting, 0, sample=2):
            meeting.judge(ended)


@pytest.mark.parametrize("third", WRITES)
@pytest.mark.parametrize(
    "names",
    [("replace", "replace"), ("replace", "upsert"), ("upsert", "upsert"), ("narrowed replace", "upsert")],
    ids=" and ".join,
)
def test_three_writers_in_drawn_orders(names: tuple[str, str], third: str) -> None:
    for start in STARTS:
        meeting = Meeting(start, (*names, third), apart=True)
        for ended in schedules(meeting, sample=8):
            meeting.judge(ended)
        for ended in deaths(meeting, 1, sample=1):
            meeting.judge(ended)


# Documents that were written before there were heads


def before(*versions: tuple[int, str, str | None]) -> Model:
    """Return the points of "a" and "b" as they were written then: generation, digest of the replacement, mark."""
    compiled, model = QdrantCompiler(CONFIG, FIELDS), Model()
    for generation, digest, mark in versions:
        some = at_generation(records(f"g{generation}", "a", "b"), generation)
        for point in compiled.points(some, compiled.words_of(some), digest, mark):
            model.points[str(point.id)] = (point.vector, dict(point.payload or {}))
    return model


def test_a_document_that_was_replaced_before_there_were_heads() -> None:
    client = before((2, "0f" * 12, None))
    assert pages(client) == searched(client) == {"a": "g2", "b": "g2"}
    drive(client, upsert("new", "b", "c")[0]())
    assert pages(client) == {"a": "g2", "b": "new", "c": "new"}
    assert {one["generation"] for one in raw(client)} == {2}
    assert len(client.points) == 3, "no head, and the same points"
    drive(client, replace("last", "a")[0]())
    assert pages(client) == {"a": "last"}
    assert [one["generation"] for one in raw(client)] == [3]


@pytest.mark.parametrize("decided", [False, True])
def test_a_replacement_that_was_left_in_the_middle_before_there_were_heads(decided: bool) -> None:
    lead = point_id(TENANT, "d", 1, "a")
    client = before((0, "", f"1:{lead}"), (1, "0f" * 12, f"1:{lead}"))
    if decided:
        client.points[lead][1]["committed"] = True
    there = "g1" if decided else "g0"
    assert pages(client) == searched(client) == {"a": there, "b": there}
    drive(client, upsert("new", "c")[0]())
    assert pages(client) == searched(client) == {"a": there, "b": there, "c": "new"}
    drive(client, replace("last", "a")[0]())
    assert pages(client) == searched(client) == {"a": "last"}
    assert len(raw(client)) == 1


def test_a_copy_says_which_generation_a_document_has() -> None:
    """Rows of another store come with their own generation, also where the document had another one here before."""
    client = engine(STARTS["emptied"])
    rows = tuple(at_generation(records("copied", "a"), 7))
    drive(client, ADAPTER.upsert(Upsert(TENANT, ALWAYS, rows, verbatim=True)))
    drive(client, upsert("new", "b")[0]())
    assert pages(client) == searched(client) == {"a": "copied", "b": "new"}
    drive(client, replace("last", "a")[0]())
    assert pages(client) == {"a": "last"}
    assert [one["generation"] for one in raw(client)] == [8]


@pytest.mark.parametrize("names", THREE, ids=" and ".join)
def test_the_model_is_the_clients_local_mode(names: tuple[str, str]) -> None:
    """The same schedules on both come to the same points after every step."""
    for start in STARTS:
        pictures: list[list[str]] = []
        for make in (Model, Local):
            seen: list[str] = []

            def world(make: Any = make, seen: list[str] = seen, start: str = start) -> World:
                client = make()
                for write, _ in STARTS[start]:
                    drive(client, write())
                flows = [WRITES[name](number)[0]() for number, name in enumerate(names)]
                return World(flows, client, lambda: seen.append(picture(client)), pieces)

            list(schedules(world, sample=3, seed=7))
            pictures.append(seen)
        assert pictures[0] == pictures[1]


def test_a_narrowed_handle_that_empties_a_document_takes_no_chunk_that_it_may_not_touch() -> None:
    """Another writer adds one between the look and the delete, and that is acknowledged."""
    model = Model()
    drive(model, upsert("ann", "a", "b")[0]())
    flow = ADAPTER.replace(Replace(TENANT, Eq("by", "ann"), "d", ()))
    step = next(flow)
    while not isinstance(step, Write):
        step = flow.send(tuple(map(model, step)) if isinstance(step, tuple) else model(step))
    drive(model, upsert("bob", "z")[0]())
    model(step)
    with pytest.raises(StopIteration):
        flow.send(None)
    assert [hit.id for hit in drive(model, ADAPTER.scan(Scan(TENANT, ALWAYS, ALWAYS, 10, None, TEXT))).hits] == ["z"]
