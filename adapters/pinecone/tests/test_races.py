"""Writers that meet: flows driven by hand, one request at a time, against the stub's engine.

What a write says of itself where it is cut off half-way is here too: `sent` and `written`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectoracl import F
from vectoracl.adapter_api.operations import Delete, Replace, Scan, Upsert
from vectoracl.engine.drivers import run
from vectoracl.errors import ClosedError, DeniedError, StoreError
from vectoracl.filters.predicate import ALWAYS, Eq, Predicate
from vectoracl.model.records import Record, Tag
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.names import record_id
from vectoracl_pinecone.ports import PineconePort
from vectoracl_pinecone.requests import Done, Listing, Match, Page, Put, Query, Remove, Settle
from vectoracl_pinecone.writes import ROUNDS

from pinecone_support.shapes import FIELDS, TENANT, checked, config
from pinecone_support.stub import Stub, stub


class Meeting:
    """An adapter and its port, and flows of it that stop before a request that a test names."""

    def __init__(self, server: Stub, **settings: Any) -> None:
        made = config(host=server.host, kind=server.kind, **settings)
        self.adapter = PineconeAdapter(made, FIELDS)
        self.port = PineconePort(made, Path(), debug=True)
        self.server = server

    def upsert(self, *chunks: str, scope: Predicate = ALWAYS, **metadata: Any) -> Any:
        return self.adapter.upsert(Upsert(TENANT, scope, records(chunks, **metadata)))

    def replace(self, *chunks: str, scope: Predicate = ALWAYS, **metadata: Any) -> Any:
        return self.adapter.replace(Replace(TENANT, scope, "d", records(chunks, text="replaced", **metadata)))

    def run(self, flow: Any) -> Any:
        return run(flow, {"store": self.port})

    def stopped(self, flow: Any, before: Callable[[Any], bool]) -> Held:
        return Held(self, flow, before)

    def rows(self) -> list[tuple[str, str, int, str | None]]:
        hits = self.run(self.adapter.scan(Scan(TENANT, ALWAYS, ALWAYS, 1000, None, frozenset({"text"})))).hits
        return [(hit.document, hit.id, hit.tag.generation, hit.text) for hit in hits]


class Held:
    """A flow that was run up to a request, which is not performed yet."""

    def __init__(self, meeting: Meeting, flow: Any, before: Callable[[Any], bool]) -> None:
        self._meeting = meeting
        self._flow = flow
        self._step = next(flow)
        self.go(before)

    def go(self, before: Callable[[Any], bool] = lambda _: False) -> Any:
        """Go on, up to the next request that *before* names; return the flow's value if it ends."""
        while not before(self._step):
            try:
                self._step = self._flow.send(self._performed(self._step))
            except StopIteration as stop:
                return stop.value
        return None

    def perform(self) -> None:
        """Perform the one request at which the flow stands."""
        self._step = self._flow.send(self._performed(self._step))

    def _performed(self, step: Any) -> Any:
        port = self._meeting.port
        return tuple(port.execute(one, None) for one in step) if isinstance(step, tuple) else port.execute(step, None)


def puts(step: Any) -> bool:
    return isinstance(step, Put)


def records(chunks: Sequence[str], text: str = "upserted", **metadata: Any) -> tuple[Record, ...]:
    """Make a record of each "chunk" of the document d, or "document/chunk"."""
    return tuple(
        Record(
            Tag(TENANT, *(("d", one) if "/" not in one else one.split("/")), producer="alice", time=float(place)),
            text,
            np.array([1.0, float(place)], np.float32),
            metadata,
        )
        for place, one in enumerate(chunks)
    )


@contextmanager
def meeting(kind: str = "vector", **settings: Any) -> Iterator[Meeting]:
    with stub(kind=kind, dimension=2) as server:
        made = Meeting(server, **settings)
        yield made
        made.port.close()


@pytest.mark.parametrize("kind", ["vector", "document"])
@pytest.mark.parametrize("others", [0, 9])
@pytest.mark.parametrize("wait", [0, 5])
def test_an_upsert_that_meets_a_replacement_leaves_nothing_in_the_generation_that_went(
    kind: str, others: int, wait: float
) -> None:
    with meeting(kind, wait_visible=wait) as here:
        here.run(here.replace("old"))
        here.run(here.replace("old"))
        more = [f"other {number}/c" for number in range(others)]
        upsert = here.stopped(here.upsert("late", *more), puts)
        here.run(here.replace("new", "late"))
        assert upsert.go() == 1 + others
        assert [row for row in here.rows() if row[0] == "d"] == [
            ("d", "late", 3, "upserted"),
            ("d", "new", 3, "replaced"),
        ]
        assert len(here.rows()) == 2 + others


def test_an_upsert_is_followed_through_several_replacements() -> None:
    with meeting() as here:
        upsert = here.stopped(here.upsert("late"), puts)
        for number in range(3):
            here.run(here.replace(f"v{number}"))
            upsert.perform()
            here.run(here.replace(f"w{number}"))
            upsert.go(puts)
        assert upsert.go() == 1
        rows = here.rows()
        assert [row[1] for row in rows] == ["late", "w2"]
        assert len({row[2] for row in rows}) == 1


def test_a_replacement_that_comes_after_the_second_look_takes_the_chunk_away() -> None:
    """The other order: the upsert is done before the new version is written, so it is of the version that goes."""
    with meeting() as here:
        here.run(here.replace("old"))
        replacement = here.stopped(here.replace("new"), puts)
        assert here.run(here.upsert("late")) == 1
        replacement.go()
        assert [row[1:3] for row in here.rows()] == [("new", 2)]


def test_an_upsert_that_meets_replacements_for_ever_says_so_and_leaves_nothing_behind() -> None:
    with meeting() as here:
        here.run(here.replace("old"))
        upsert = here.stopped(here.upsert("late", "else/c"), puts)
        for number in range(ROUNDS):
            here.run(here.replace(f"v{number}"))
            upsert.perform()
            if number < ROUNDS - 1:
                upsert.go(puts)
        with pytest.raises(StoreError, match="repeatedly") as failed:
            upsert.go()
        assert (failed.value.code, failed.value.sent, failed.value.written) == ("replacing", "unknown", 1)
        assert failed.value.retryable
        assert [row[:2] for row in here.rows()] == [("d", f"v{ROUNDS - 1}"), ("else", "c")]


def test_an_upsert_does_not_overwrite_what_a_replacement_put_out_of_its_scope() -> None:
    with meeting() as here:
        here.run(here.replace("c", year=2024))
        narrow = checked(F.year >= 2020)
        upsert = here.stopped(here.upsert("c", scope=narrow, year=2025), puts)
        here.run(here.replace("c", year=1999))
        with pytest.raises(StoreError, match="may not overwrite") as failed:
            upsert.go()
        assert (failed.value.code, failed.value.sent, failed.value.written) == ("conflict", "unknown", 0)
        assert here.rows() == [("d", "c", 2, "replaced")]
        with pytest.raises(DeniedError):
            here.run(here.upsert("c", scope=narrow, year=2025))


def test_a_copy_keeps_the_generations_that_it_brings() -> None:
    """`vectoracl copy` writes every part of a tag as it is, and looks neither before nor after."""
    with meeting() as here:
        here.run(here.replace("c"))
        here.run(here.replace("c"))
        here.server.asked.clear()
        here.run(here.adapter.upsert(Upsert(TENANT, ALWAYS, records(["e"]), verbatim=True)))
        assert [one.path for one in here.server.asked] == ["/vectors/upsert"]


@pytest.mark.parametrize("kind", ["vector", "document"])
def test_a_newer_rival_is_found_behind_however_many_records_of_the_same_generation(kind: str) -> None:
    """One record is asked for at a time, so no reply can be too short for what matters."""
    with meeting(kind) as here:
        told = [here.run(here.adapter._writer.rival(TENANT, "d", 1, "mine"))]
        for generation, number in ((0, 1), (1, 20), (2, 1)):
            some = records([f"c{generation}-{place}" for place in range(number)])
            tagged = tuple(one._replace(tag=one.tag._replace(generation=generation)) for one in some)
            here.run(here.adapter.upsert(Upsert(TENANT, ALWAYS, tagged, verbatim=True)))
            here.server.asked.clear()
            told.append(here.run(here.adapter._writer.rival(TENANT, "d", 1, "mine")))
            assert {one.body.get("topK", one.body.get("top_k")) for one in here.server.asked} == {1}
        assert told == [None, None, "same", "newer"]


@pytest.mark.parametrize("kind", ["vector", "document"])
def test_replacements_that_meet_leave_one_of_them(kind: str) -> None:
    with meeting(kind) as here:
        here.run(here.replace("old"))
        first = here.stopped(here.replace("a"), puts)
        second = here.stopped(here.replace("b", "c"), puts)
        first.perform()
        second.perform()
        assert second.go() == 2  # both took the same generation: it goes again, and is the newer one
        assert first.go() == 1
        assert [row[1] for row in here.rows()] in (["a"], ["b", "c"])


# What a write says of itself where it fails half-way


def failing(here: Meeting, flow: Any, at: Callable[[Any], bool], error: Exception) -> StoreError:
    """Run *flow* up to the request that *at* names, and let that fail."""
    held = here.stopped(flow, at)
    assert at(held._step)
    with pytest.raises(StoreError) as failed:
        held._flow.throw(error)
    return failed.value


def lost(sent: Any = "no") -> StoreError:
    return StoreError("no connection", code="unavailable", sent=sent, retryable=True)


class After:
    """Names a request that comes after a number of those of a kind."""

    def __init__(self, kind: type, number: int, then: type) -> None:
        self._kind, self._left, self._then = kind, number, then

    def __call__(self, step: Any) -> bool:
        if self._left == 0 and isinstance(step, self._then):
            return True
        if isinstance(step, self._kind):
            self._left -= 1
        return False


def test_a_first_look_that_fails_has_changed_nothing() -> None:
    with meeting() as here:
        failed = failing(here, here.upsert("c"), lambda _: True, lost())
        assert (failed.sent, failed.written) == ("no", 0)


@pytest.mark.parametrize("error", [lost(), ClosedError("The store was closed.")])
def test_a_second_look_that_fails_says_that_the_chunks_are_in(error: Exception) -> None:
    with meeting() as here:
        failed = failing(here, here.upsert("c", "e/c"), After(Put, 1, Query), error)
        assert (failed.sent, failed.written) == ("unknown", 2)
        assert len(here.rows()) == 2


def test_a_wait_that_fails_says_that_the_chunks_are_in() -> None:
    with meeting(wait_visible=5) as here:
        failed = failing(here, here.upsert("c", "e/c"), After(Put, 1, Settle), lost())
        assert (failed.sent, failed.written) == ("unknown", 2)


@pytest.mark.parametrize(("then", "written"), [(Query, 1), (Put, 1), (Remove, 2)])
def test_a_chunk_that_is_followed_is_counted_where_it_is(then: type, written: int) -> None:
    """Of two chunks one is settled; the other one is not in until it is in the new generation."""
    with meeting() as here:
        upsert = here.stopped(here.upsert("late", "e/c", scope=checked(F.year.is_missing())), puts)
        here.run(here.replace("new"))
        here.run(here.replace("newer"))
        upsert.perform()
        if then is Query:  # the look at the scope, before the chunk is written again
            upsert.go(lambda step: isinstance(step, Query) and "acl_record" in str(step.filter))
        else:
            upsert.go(lambda step: isinstance(step, then))
        with pytest.raises(StoreError) as failed:
            upsert._flow.throw(lost())
        assert (failed.value.sent, failed.value.written) == ("unknown", written)


@pytest.mark.parametrize("sent", ["no", "unknown"])
def test_of_several_requests_those_that_were_made_are_counted(sent: Any) -> None:
    with meeting(split_upserts=True, max_batch=5000) as here:
        many = [f"c{number}" for number in range(1500)]
        failed = failing(here, here.upsert(*many), After(Put, 1, Put), lost(sent))
        assert (failed.sent, failed.written) == ("unknown", 1000)
        failed = failing(here, here.upsert(*many), puts, lost(sent))
        assert (failed.sent, failed.written) == (sent, 0)


@pytest.mark.parametrize("then", [Query, Remove])
def test_a_replacement_that_fails_after_it_wrote_says_so(then: type) -> None:
    with meeting() as here:
        here.run(here.replace("old"))
        failed = failing(here, here.replace("new"), After(Put, 1, then), lost())
        assert (failed.sent, failed.written) == ("unknown", 1)


def test_a_replacement_that_meets_what_it_may_not_touch_takes_itself_away() -> None:
    with meeting() as here:
        here.run(here.replace("old", year=2024))
        narrow = here.stopped(here.replace("mine", scope=checked(F.year >= 2020), year=2024), puts)
        other = here.stopped(here.replace("theirs", year=1999), puts)
        narrow.perform()
        other.perform()
        with pytest.raises(StoreError) as failed:
            narrow.go()
        assert (failed.value.code, failed.value.sent) == ("conflict", "unknown")
        assert other.go() == 1
        assert [row[1] for row in here.rows()] == ["theirs"]


def test_a_delete_is_one_request_however_many_records_it_has() -> None:
    """So an upsert that meets it is before it or after it, whole."""
    with meeting(split_upserts=True, max_batch=5000) as here:
        here.run(here.upsert(*(f"c{number}" for number in range(1500))))
        delete = Delete(TENANT, ALWAYS, document="d")
        failed = failing(here, here.adapter.delete(delete), lambda step: isinstance(step, Remove), lost("unknown"))
        assert failed.sent == "unknown"
        assert len(here.rows()) == 1000, "a page of them"
        here.server.asked.clear()
        assert here.run(here.adapter.delete(delete)) == 1500
        assert [one.path for one in here.server.asked if one.path.endswith("delete")] == ["/vectors/delete"]
        assert here.rows() == []


def test_what_a_replacement_took_back_is_not_counted_as_written() -> None:
    """After it wrote, a chunk outside of its scope has appeared beside it, and a rival of the same number."""

    class Racing:
        parallel = 1

        def __init__(self) -> None:
            self.mine: list[str] = []
            self.removed: list[str] = []

        def execute(self, request: Any, timeout: float | None) -> Any:
            match request:
                case Put():
                    self.mine = [one.id for one in request.records]
                    return Done()
                case Remove():
                    self.removed += request.ids or ()
                    return Done()
                case Listing():
                    others = (Match(record_id("acme", "d", 1, "other")),) if self.mine else ()
                    return Page((*(Match(one) for one in self.mine), *others), None)
                case Query() if "acl_label" in str(request.filter):
                    return (Match("x"),)
                case Query() if "$ne" in str(request.filter):
                    return (Match(self.mine[0]),)
            return ()

        def close(self) -> None:
            pass

    port = Racing()
    adapter = PineconeAdapter(PineconeConfig.model_validate({"api_key": "none", "index": "i", "dimension": 3}), {})
    record = Record(Tag("acme", "d", "c", producer="u", path="replace", time=1.0), "text", np.ones(3, np.float32), {})
    with pytest.raises(StoreError) as caught:
        run(adapter.replace(Replace("acme", Eq("@label", "standard"), "d", (record,))), {"store": port}, timeout=5)
    assert (caught.value.sent, caught.value.written) == ("unknown", 0)
    assert port.removed == port.mine
