"""Writers of one document that meet, in every order of their requests, over a model of an index that keeps up."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest

from vectoracl.adapter_api.operations import ChunkRef, Delete, Replace, Scan, Upsert
from vectoracl.engine.drivers import confined, run
from vectoracl.errors import DeniedError, StoreError
from vectoracl.filters.predicate import ALWAYS, Eq
from vectoracl.filters.validation import check_fields
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.interleave import Ended, World, frozen, moments, outcomes, schedules
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.config import PineconeConfig

from pinecone_support.model import Model

TENANT = "acme"
FIELDS = check_fields({"by": "keyword"})
CONFIG = PineconeConfig.model_validate({"api_key": "none", "index": "i", "dimension": 2})
TEXT: Any = frozenset({"text", "metadata"})


def adapter() -> PineconeAdapter:
    return PineconeAdapter(CONFIG, FIELDS)


def records(writer: str, *chunks: str) -> tuple[Record, ...]:
    time = float(zlib.crc32(repr((writer, chunks)).encode()))
    return tuple(
        Record(
            Tag(TENANT, "d", one, producer=writer, path="upsert", time=time, position=place),
            writer,
            np.array([1.0, float(place)], np.float32),
            {"by": writer},
        )
        for place, one in enumerate(chunks)
    )


def drive(model: Model, flow: Any) -> Any:
    return run(flow, {"store": model})


def upsert(writer: str, *chunks: str) -> tuple[Any, Any]:
    return (
        lambda: adapter().upsert(Upsert(TENANT, ALWAYS, records(writer, *chunks))),
        lambda state: {**state, **dict.fromkeys(chunks, writer)},
    )


def replace(writer: str, *chunks: str) -> tuple[Any, Any]:
    return (
        lambda: adapter().replace(Replace(TENANT, ALWAYS, "d", records(writer, *chunks))),
        lambda _: dict.fromkeys(chunks, writer),
    )


def delete(keep: Callable[[str, str], bool], **selector: Any) -> tuple[Any, Any]:
    return (
        lambda: adapter().delete(Delete(TENANT, ALWAYS, **selector)),
        lambda state: {chunk: text for chunk, text in state.items() if keep(chunk, text)},
    )


WRITES: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "upsert": lambda n: upsert(f"u{n}", "b", f"y{n}"),
    "replace": lambda n: replace(f"r{n}", "a", "b", f"x{n}"),
    "delete ids": lambda _: delete(
        lambda chunk, _: chunk not in ("b", "y0"), refs=(ChunkRef("b", "d"), ChunkRef("y0", "d"))
    ),
    "delete bare ids": lambda _: delete(
        lambda chunk, _: chunk not in ("b", "y0"), refs=(ChunkRef("b"), ChunkRef("y0"))
    ),
    "delete document": lambda _: delete(lambda *_: False, document="d"),
    "delete where": lambda _: delete(lambda _, text: text not in ("old", "u0"), where=Eq("by", "old") | Eq("by", "u0")),
    "clear": lambda _: delete(lambda *_: False, where=ALWAYS),
    "replace with nothing": lambda _: (lambda: adapter().replace(Replace(TENANT, ALWAYS, "d", ())), lambda _: {}),
}
STARTS: dict[str, tuple[tuple[Any, Any], ...]] = {
    "absent": (),
    "added": (upsert("old", "a", "b"),),
    "replaced": (replace("older", "a"), replace("old", "a", "b")),
}


def visible(model: Model) -> dict[str, str]:
    hits = drive(model, adapter().scan(Scan(TENANT, ALWAYS, ALWAYS, 100, None, TEXT))).hits
    assert len({hit.id for hit in hits}) == len(hits), hits
    return {hit.id: hit.text for hit in hits}


class Meeting:
    def __init__(self, start: str, names: Sequence[str], *, watched: bool) -> None:
        self.first = self.model = Model()
        self.begin: dict[str, str] = {}
        for make, effect in STARTS[start]:
            drive(self.first, make())
            self.begin = effect(self.begin)
        self.writes = [WRITES[name](number) for number, name in enumerate(names)]
        self.effects = [effect for _, effect in self.writes]
        self.seen = moments(self.begin, self.effects) if watched else None

    def __call__(self) -> World:
        self.model = Model(self.first.records)
        return World([confined(make(), TENANT) for make, _ in self.writes], self.model, self.look)

    def look(self) -> None:
        if self.seen is not None:
            state = visible(self.model)
            assert frozen(state) in self.seen, state

    def judge(self, ended: Ended) -> None:
        assert [actor.ended for actor in ended] == ["done"] * len(ended)
        state = visible(self.model)
        assert frozen(state) in outcomes(self.begin, self.effects, ended), (state, ended.schedule)


PAIRS = [pair for pair in combinations_with_replacement(WRITES, 2) if {"upsert", "replace"} & set(pair)]


MEETINGS = [(names, start) for names in PAIRS for start in STARTS]


@pytest.mark.parametrize(("names", "start"), MEETINGS, ids=[f"{' and '.join(names)}-{one}" for names, one in MEETINGS])
def test_two_writers_in_every_order(names: tuple[str, str], start: str) -> None:
    """What is there at the end is what some order of the two gives; without replacements, at every moment too."""
    meeting = Meeting(start, names, watched=not any(name == "replace" for name in names))
    # Two replacements that took one number go again, each by a step that is its own: too many orders to try each.
    for ended in schedules(meeting, sample=200 if names == ("replace", "replace") else None):
        meeting.judge(ended)


# Of a document that was replaced before, a reader may then see a chunk in two generations: see the guide.
@pytest.mark.parametrize("start", ["absent", "added"])
@pytest.mark.parametrize("name", [name for name in WRITES if name.startswith(("delete", "clear"))])
def test_an_upsert_a_delete_and_another_writer(name: str, start: str) -> None:
    for third in ("upsert", "delete document", "clear"):
        meeting = Meeting(start, ("upsert", name, third), watched=True)
        for ended in schedules(meeting, sample=40):
            meeting.judge(ended)


@pytest.mark.parametrize("chunks", [(), ("x",), ("a", "x")], ids=["nothing", "another", "both"])
@pytest.mark.parametrize("replaced", [False, True], ids=["first", "again"])
def test_a_narrowed_replacement_takes_no_chunk_that_it_may_not_touch(chunks: tuple[str, ...], replaced: bool) -> None:
    """Another writer adds one between any two of its requests, and that is acknowledged."""
    moments = 0
    while True:
        model = Model()
        begin = replace if replaced else upsert
        drive(model, begin("ann", "a", "b")[0]())
        flow = adapter().replace(Replace(TENANT, Eq("by", "ann"), "d", records("ann", *chunks)))
        reply: Any = None
        refused = False
        turn = 0
        try:
            while True:
                step = flow.send(reply)
                if turn == moments:
                    drive(model, upsert("bob", "z")[0]())
                reply = tuple(map(model, step)) if isinstance(step, tuple) else model(step)
                turn += 1
        except StopIteration:
            pass
        except (DeniedError, StoreError):
            refused = True
        if turn <= moments:
            break
        rows = drive(model, adapter().scan(Scan(TENANT, ALWAYS, ALWAYS, 10, None, TEXT))).hits
        kept = {hit.id for hit in rows}
        assert kept == ({"a", "b", "z"} if refused else {*chunks, "z"}), moments
        moments += 1
    assert moments >= 2
