"""A store that gets several batches of a load at once may hold some that were behind the one that failed."""

from dataclasses import replace

import pytest

from vectoracl.filters.predicate import ALWAYS, F
from vectoracl_conformance.checks.reference_checks import _memory_capabilities
from vectoracl_conformance.generated.calls import Call
from vectoracl_conformance.generated.comparison import Comparison, error_of
from vectoracl_conformance.generated.pair import Pair, _pieces, added
from vectoracl_conformance.generated.reference import Reference, writer
from vectoracl_conformance.generated.sequences import Drawn, Walk
from vectoracl_conformance.generated.world import build_world
from vectoracl_conformance.harness import Needs
from vectoracl_conformance.harnesses.memory import MemoryStore

TENANT = "tenant of the load"


class Ahead(Reference):
    """A store that writes `behind`, another load, while one fails."""

    behind = None

    def calls(self, mode, calls):
        answers = super().calls(mode, calls)
        if self.behind is not None and any(call.method == "load" for call in calls):
            super().calls(mode, [self.behind])
        return answers


@pytest.fixture(scope="module")
def world():
    able = _memory_capabilities(MemoryStore(Needs(8, {})))
    return build_world(4, able, size="quick", metrics=["cosine"])


@pytest.fixture(params=[(8, Ahead), (1, Ahead)])
def pair(world, request):
    width, store = request.param
    able = replace(_memory_capabilities(MemoryStore(Needs(8, {}))), dimension=world.dimension, writes_in_flight=width)
    right, got = (kind(world.fields, world.rules, able, world.more) for kind in (Reference, store))
    for side in (right, got):
        side.open()
    made = Pair([got], right, Comparison(able, right.wider, lambda: made.rows(), words=True))
    assert made.compare_census() is None
    yield made
    made.close()
    right.end()
    got.end()


@pytest.fixture
def load(world):
    """Return a load in batches of one chunk, of which the second is denied."""
    name = world.roles["few"]
    some = [one for chunks in world.tenants.values() for one in chunks][:4]
    chunks = [replace(one, id=f"chunk {place}", metadata={name: "in"}) for place, one in enumerate(some)]
    chunks[1] = replace(chunks[1], metadata={name: "out"})
    return Call(writer(TENANT), "load", {"stream": chunks, "batch": 1}, ((F[name] == "in", None),))


def with_stream(load, chunks):
    return replace(load, arguments={**load.arguments, "stream": chunks})


def test_batches_behind_the_one_that_failed_may_be_there(pair, load):
    pair.store.behind = with_stream(load, load.arguments["stream"][3:])
    found = pair.perform([("sync", load)])
    assert error_of(pair.reference.calls("sync", [load])[0])[0] == "DeniedError"
    if pair.comparison.capabilities.writes_in_flight > 1:
        assert found == []
        assert {chunk for *_, chunk in pair.rows()} == {"chunk 0", "chunk 3"}
    else:
        assert "'chunk 3'" in found[0].problem


@pytest.fixture
def elsewhere(pair):
    """Let the principal of a load write to a partition that is not its own."""
    rules = {"clerk": {"upsert": {"another tenant": ALWAYS}, "scan": {"another tenant": ALWAYS}}}
    for side in (pair.reference, pair.store):
        side.rules = {**side.rules, **rules}
    return lambda call: replace(call, principal=replace(call.principal, id="clerk"))


def test_they_are_followed_in_the_partition_that_the_policy_names(pair, load, elsewhere):
    load = elsewhere(load)
    pair.store.behind = with_stream(load, load.arguments["stream"][3:])
    found = pair.perform([("sync", load)])
    assert bool(found) is (pair.comparison.capabilities.writes_in_flight == 1)
    assert {key[0] for key in pair.store.census().rows} == {"another tenant"}


def test_they_may_write_the_same_content_again(pair, load):
    last = with_stream(load, load.arguments["stream"][3:])
    assert pair.perform([("sync", last)]) == []
    pair.store.behind = last
    found = pair.perform([("sync", load)])
    assert bool(found) is (pair.comparison.capabilities.writes_in_flight == 1)
    pair.store.behind = None
    pair.store.calls("sync", [replace(last, narrowings=())])
    assert "again" in pair.compare_census().problem


class Small(Ahead):
    """A store that refuses a write of more than one chunk with a long text for its size, as one request of it."""

    def calls(self, mode, calls):
        return [self._one(mode, call) for call in calls]

    def _one(self, mode, call):
        chunks = added(call)
        size = call.arguments.get("batch", len(chunks))
        for start in range(0, len(chunks), size):
            piece = chunks[start : start + size]
            if sum(len(one.text) for one in piece) > 400_000:
                return "error", ("TooLargeError", "TooLargeError", "too large", {"code": "too_large"})
            if call.method == "load":
                super().calls(mode, [with_stream(call, piece)])
        return super().calls(mode, [call])[0]


def large_load(load, *texts):
    some = load.arguments["stream"][0]
    stream = [replace(some, id=f"chunk {place}", text="long " * number) for place, number in enumerate(texts)]
    return replace(with_stream(load, stream), arguments={"stream": stream, "batch": 2}, narrowings=())


@pytest.mark.parametrize("pair", [(8, Small), (1, Small)], indirect=True)
@pytest.mark.parametrize("way", ["alone", "at once", "with a failure"])
def test_a_write_that_is_too_large_for_the_store_is_right_however_it_is_made(pair, load, monkeypatch, way):
    load = large_load(load, 1, 1, 1, 1, 50_000, 50_000, 1, 1)
    chunks = load.arguments["stream"]
    upsert = Call(writer("another"), "upsert", {"chunks": [*chunks[4:], replace(chunks[0], text="")]})
    monkeypatch.setattr(pair.store, "together", lambda mode, calls, _: pair.store.calls(mode, calls))
    monkeypatch.setattr(pair.store, "attempt", lambda mode, call: pair.store.calls(mode, [call]))
    monkeypatch.setattr(pair.store, "fail", lambda mode, plan: None)
    walk = Walk(pair)
    for call in (load, upsert):
        steps = {
            "alone": Drawn("calls", "sync", (call,)),
            "at once": Drawn("together", "sync", (call,), 8),
            "with a failure": Drawn("fault", "sync", (call,), {9: "before"}),
        }
        assert walk.step(steps[way]) == []
    assert {chunk for *_, chunk in pair.store.census().rows} == {f"chunk {place}" for place in range(4)}


@pytest.mark.parametrize("pair", [(8, Small), (1, Small)], indirect=True)
def test_what_follows_a_batch_that_is_too_large_is_right_only_as_far_as_it_was_in_flight(pair, load):
    load = large_load(load, 1, 1, 50_000, 50_000, 1, 1)
    pair.store.behind = with_stream(load, load.arguments["stream"][4:])
    assert bool(pair.perform([("sync", load)])) is (pair.comparison.capabilities.writes_in_flight == 1)
    pair.store.behind = None


def test_batches_are_cut_as_the_library_cuts_them(pair, load):
    able = replace(pair.comparison.capabilities, max_write_bytes=6_000)
    some = load.arguments["stream"][0]
    stream = [replace(some, id=f"chunk {place}", text="long " * 500) for place in range(6)]
    sizes = {
        batch: [len(one) for one in _pieces(with_stream(replace(load, arguments={"batch": batch}), stream), able)]
        for batch in (None, 4)
    }
    assert len(sizes[None]) > 1
    assert sizes[4] == [4, 2]


def test_a_load_that_leaves_none_of_them_is_right_too(pair, load):
    assert pair.perform([("sync", load)]) == []
    assert {chunk for *_, chunk in pair.rows()} == {"chunk 0"}


@pytest.mark.parametrize("wrong", ["the denied one", "another text", "another chunk"])
def test_nothing_else_may_be_there(pair, load, wrong):
    _, denied, third, _ = load.arguments["stream"]
    behind = {
        "the denied one": replace(with_stream(load, [denied]), narrowings=()),
        "another text": with_stream(load, [replace(third, text="another text")]),
        "another chunk": with_stream(load, [replace(third, id="chunk 9")]),
    }
    pair.store.behind = behind[wrong]
    assert len(pair.perform([("sync", load)])) == 1
