"""The doors of sharded jobs for data from outside, a queue or a file: they take it, or refuse it with our errors."""

import json
import uuid
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl.copying.compare import Comparison
from vectoracl.copying.planning import Side
from vectoracl.engine.load_journal import Journal as LoadJournal
from vectoracl.errors import VectorACLError
from vectoracl.sharding import CheckJob, CopyJob, Journal, LoadJob, Plan, Result, Shard
from vectoracl.sharding.results import Compared
from vectoracl.sharding.shards import digest_of, planned

REASON = "a test of shards"
WHO = testing.principal("w", "acme")
CHUNKS = [Chunk(f"c{n}", f"d{n % 2}", f"text {n}", [1.0, n], n) for n in range(6)]
DRAWN = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))

NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 10**30, -(10**30), 1 << 46, 1 << 63, (1 << 64) - 1, 1e308]),
    st.floats(),
)
TEXTS = st.one_of(
    st.text(), st.sampled_from(["", "zz", "0" * 64, "f" * 64, "F" * 64, "acme", "main", "copy", "\ud800"])
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


def config(name):
    return {"version": 1, "stores": {"main": {"adapter": "memory", "name": name, "dimension": 2}}}


@pytest.fixture(scope="module")
def stores():
    with ExitStack() as stack:
        opened = [stack.enter_context(v.VectorACL(config(uuid.uuid4().hex))) for _ in range(3)]
        opened[0].scoped(WHO).upsert(CHUNKS)
        yield opened


def jobs(source, target, loaded):
    return [
        CopyJob(Side(source), Side(target), reason=REASON),
        CheckJob(source, reason=REASON),
        LoadJob(loaded, WHO, lambda: CHUNKS),
    ]


def paths(data, here=()):
    """Return the places in *data* whose value can be replaced."""
    found = [here]
    if isinstance(data, dict):
        found += [one for name, value in data.items() for one in paths(value, (*here, name))]
    if isinstance(data, list):
        found += [one for n, value in enumerate(data) for one in paths(value, (*here, n))]
    return found


def replaced(data, path, value):
    if not path:
        return value
    copied = dict(data) if isinstance(data, dict) else list(data)
    copied[path[0]] = replaced(data[path[0]], path[1:], value)
    return copied


def resealed(data):
    """Return *data*, a shard, with the digests of what it holds now, if digests of it can be made."""
    try:
        one = Shard.model_validate_json(json.dumps(data))
        return planned([one.model_copy(update={"index": 0, "of": 1})]).shards[0]
    except (ValueError, TypeError, VectorACLError):
        return data


def taken(call):
    """Call a door; an error must be one of ours."""
    try:
        return call()
    except VectorACLError:
        return None


@DRAWN
@given(data=st.data())
def test_any_json_at_any_place_of_a_shard_is_run_or_refused(stores, data):
    job = data.draw(st.sampled_from(jobs(*stores)))
    (shard,) = job.plan_shards(1).shards
    changed = replaced(shard, data.draw(st.sampled_from(paths(shard))), data.draw(JSON))
    sealed = resealed(changed) if data.draw(st.booleans()) else changed
    for form in (sealed, json.dumps(sealed)):
        taken(lambda form=form: job.run_shard(form))


@DRAWN
@given(data=st.data())
def test_any_json_at_any_place_of_a_plan_or_a_result_is_added_up_or_refused(stores, data):
    job = data.draw(st.sampled_from(jobs(*stores)))
    plan = job.plan_shards(2)
    results = [job.run_shard(one) for one in plan.shards]
    whole = [plan.data(), *results]
    places = [one for one in paths(whole) if len(one) > 0]
    changed = replaced(whole, data.draw(st.sampled_from(places)), data.draw(JSON))
    for form in (changed, [json.dumps(one) for one in changed]):
        total = taken(lambda form=form: job.finish(form[0], form[1:]))
        if total is not None:
            json.dumps(total.data(), allow_nan=False)


@DRAWN
@given(data=st.data())
def test_any_json_in_a_journal_is_read_or_refused(stores, tmp_path_factory, data):
    job = data.draw(st.sampled_from(jobs(*stores)))
    folder = tmp_path_factory.mktemp("journal")
    plan = job.plan_shards(2, journal=folder)
    job.run_shard(plan.shards[0], journal=folder)
    path = folder / data.draw(st.sampled_from(["plan.json", "shard-1.json"]))
    read = json.loads(path.read_bytes())
    changed = replaced(read, data.draw(st.sampled_from(paths(read))), data.draw(JSON))
    path.write_bytes(json.dumps(changed).encode())
    taken(lambda: job.plan_shards(2, journal=folder))
    taken(lambda: [job.run_shard(one, journal=folder) for one in plan.shards])
    taken(lambda: Journal(folder).results())


@DRAWN
@given(data=st.data())
def test_any_json_in_the_journal_of_a_load_is_read_or_refused(stores, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "load"
    with LoadJournal(path, "acme", ["place"]) as journal:
        journal.wrote(CHUNKS[:3])
        journal.wrote(CHUNKS[3:])
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    changed = replaced(lines, data.draw(st.sampled_from([one for one in paths(lines) if one])), data.draw(JSON))
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in changed))

    def read():
        with LoadJournal(path, "acme", ["place"]) as journal:
            return [journal.compare(entry, CHUNKS[: entry.chunks]) for entry in journal.begun()]

    taken(read)


@pytest.mark.parametrize(
    "raw", ["[" * 100_000, '{"a":' * 5_000, "1" * 400, "NaN", '{"options":{"a":' + "9" * 30 + "}}"]
)
@pytest.mark.parametrize("door", [Shard.parse, Plan.parse, Result.parse])
def test_json_that_breaks_readers_is_refused(door, raw):
    with pytest.raises(VectorACLError, match=r"not (a shard|a plan|the result)"):
        door(raw)


def test_a_comparison_of_vectors_of_two_lengths_is_plain_data():
    one = Compared.of(Comparison("acme", vector_difference=float("inf"), different=1))
    data = json.loads(json.dumps(one.model_dump(mode="json"), allow_nan=False))
    again = Compared.model_validate_json(json.dumps(data))
    assert again.comparison.vector_difference == float("inf")
    assert again.plus(again).different == 2
    assert digest_of(data)
