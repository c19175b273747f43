"""Jobs in shards: the result is that of one run, whatever their number and order, and what was lost or repeated."""

import json
import random
import threading
import uuid
from contextlib import ExitStack, suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, hazmat, testing
from vectoracl.audit.sinks import MemorySink
from vectoracl.copying.planning import Side
from vectoracl.errors import BusyError, ConfigError, InvalidInputError, RefusedError, StoreError
from vectoracl.model.records import Record, Tag
from vectoracl.sharding import CheckJob, CopyJob, Journal, Plan, Shard

REASON = "a test of shards"
QUICK = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
DRAWN = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def config(name, **more):
    store = {"adapter": "memory", "name": name, "dimension": 2, "metadata": {"year": "number"}, **more}
    return {"version": 1, "stores": {"main": store}}


def connected(stack, **more):
    return stack.enter_context(v.VectorACL(config(uuid.uuid4().hex, **more)))


@pytest.fixture
def pair():
    with ExitStack() as stack:
        source, target = connected(stack), connected(stack)
        fill(source, {"acme": 23, "globex": 4, "initech": 1})
        yield source, target


def fill(acl, sizes):
    for tenant, size in sizes.items():
        chunks = [
            Chunk(f"c{n}", f"d{n % 4}", f"{tenant} {n}", [1.0, n], n, {"year": 2000 + n, "odd": n}) for n in range(size)
        ]
        acl.scoped(testing.principal("w", tenant)).upsert(chunks)


def everything(acl, *tenants):
    operated = hazmat.operate(acl, reason=REASON)
    rows = [hit for tenant in tenants for hit in operated.read(tenant, 10_000).hits]
    return [(hit.tag, hit.text, hit.metadata, hit.vector.tolist()) for hit in rows]


def over_the_wire(data):
    return json.loads(json.dumps(data))


def copying(source, target, **more):
    return CopyJob(Side(source), Side(target), reason=REASON, **more)


SIZES = st.dictionaries(st.sampled_from(["acme", "globex", "initech", "umbrella"]), st.integers(1, 40), min_size=1)


class Lost(Exception):  # noqa: N818 - a worker is lost, which is no error of ours
    pass


class Loses:
    """A progress callback that ends its worker after some calls."""

    def __init__(self, after):
        self.left = after

    def __call__(self, what, done, total):
        self.left -= 1
        if self.left < 0:
            raise Lost


@DRAWN
@given(
    sizes=SIZES,
    count=st.integers(1, 12),
    batch=st.integers(1, 7),
    seed=st.randoms(use_true_random=False),
    losses=st.lists(st.integers(0, 8), max_size=6),
    journalled=st.booleans(),
)
def test_copies_in_any_shards_are_one_copy(sizes, count, batch, seed, losses, journalled, tmp_path_factory):
    """Workers are lost after any batch and repeat their shards; some shards run twice; the order is random."""
    folder = tmp_path_factory.mktemp("journal") / "j" if journalled else None
    with ExitStack() as stack:
        source, once, parts = (connected(stack) for _ in range(3))
        fill(source, sizes)
        whole = copying(source, once)
        plan = whole.plan_shards(1)
        right = whole.finish(plan, [whole.run_shard(plan.shards[0])])
        plan = copying(source, parts, batch=batch).plan_shards(count, journal=folder)
        shards = [*plan.shards, *seed.choices(plan.shards, k=3)]
        seed.shuffle(shards)
        results = []
        for shard in shards:
            if losses:
                with suppress(Lost):
                    worker = copying(source, parts, batch=batch)
                    worker.run_shard(over_the_wire(shard), journal=folder, progress=Loses(losses.pop()))
            results.append(over_the_wire(copying(source, parts, batch=batch).run_shard(shard, journal=folder)))
        total = copying(source, parts).finish(over_the_wire(plan.data()), results)
        assert total.good
        assert total.census == right.census
        assert everything(parts, *sizes) == everything(source, *sizes) == everything(once, *sizes)


@QUICK
@given(sizes=SIZES, count=st.integers(1, 12), batch=st.integers(1, 7))
def test_every_key_is_in_one_range_of_one_shard(sizes, count, batch):
    with ExitStack() as stack:
        source, target = connected(stack), connected(stack)
        fill(source, sizes)
        plan = copying(source, target, batch=batch).plan_shards(count)
        assert len(plan) == count
        for tenant in sizes:
            parts = sorted(
                (one for shard in plan.parts for one in shard.ranges if one.tenant == tenant),
                key=lambda one: one.after or ("", -1, ""),
            )
            assert parts[0].after is None
            assert parts[-1].upto is None
            assert [one.upto for one in parts[:-1]] == [one.after for one in parts[1:]]
            assert sum(one.rows for one in parts) == sizes[tenant]
        rows = [sum(one.rows for one in shard.ranges) for shard in plan.parts]
        assert max(rows) <= max(1, -(-sum(sizes.values()) // count)) * 2


def test_a_lost_worker_repeats_its_shard_and_writes_only_the_rest(pair):
    source, target = pair
    (shard,) = copying(source, target, batch=4).plan_shards(1).shards
    with pytest.raises(Lost) as caught:
        copying(source, target, batch=4).run_shard(shard, progress=Loses(3))
    written = len(everything(target, "acme", "globex", "initech"))
    assert 0 < written < 28
    (note,) = caught.value.__notes__
    assert f"{written} rows were written by this call" in note
    assert "Run the same shard again" in note
    result = copying(source, target, batch=4).run_shard(shard)
    assert (result["written"], result["present"]) == (28 - written, written)


def test_a_finished_shard_is_not_run_again(pair, tmp_path):
    source, target = pair
    plan = copying(source, target).plan_shards(3, journal=tmp_path / "j")
    first = [copying(source, target).run_shard(one, journal=tmp_path / "j") for one in plan.shards]
    hazmat.operate(target, reason=REASON).clear("acme")
    assert [copying(source, target).run_shard(one, journal=tmp_path / "j") for one in plan.shards] == [
        {**one, "kept": True} for one in first
    ]
    assert not everything(target, "acme")
    assert {path.name for path in (tmp_path / "j").iterdir()} == {"plan.json", *(f"shard-{n}.json" for n in (1, 2, 3))}


def test_a_result_with_faults_is_not_kept(tmp_path):
    with ExitStack() as stack:
        acl = connected(stack)
        fill(acl, {"acme": 3})
        operated = hazmat.operate(acl, reason=REASON)
        operated.write("acme", [Record(Tag("acme", "odd", "c", rev=-1), "t", np.ones(2, np.float32), {})])
        job = CheckJob(acl, reason=REASON)
        plan = job.plan_shards(1, journal=tmp_path / "j")
        (shard,) = plan.shards
        for _ in range(2):
            result = job.run_shard(shard, journal=tmp_path / "j")
            assert (result["census"][0]["faults"] != {}, result["kept"]) == (True, False)
            assert not job.finish(plan, Journal(tmp_path / "j").results()).good
        operated.clear("acme")
        fill(acl, {"acme": 3})
        assert job.run_shard(shard, journal=tmp_path / "j")["kept"] is False
        kept = job.run_shard(shard, journal=tmp_path / "j")
        assert (kept["kept"], kept["present"]) == (True, 3)
        assert job.finish(plan, [kept]).good


def test_workers_on_one_journal_share_the_work(pair, tmp_path):
    """Threads that each try every shard: each shard is done once, and every worker ends with the same sum."""
    source, target = pair
    sums, errors = [], []

    def work():
        try:
            job = copying(source, target, batch=2)
            plan = job.plan_shards(6, journal=tmp_path / "j")
            left = list(plan.shards)
            random.shuffle(left)
            while left:
                shard = left.pop(0)
                try:
                    job.run_shard(shard, journal=tmp_path / "j")
                except BusyError:
                    left.append(shard)
            sums.append(job.finish(plan, Journal(tmp_path / "j").results()))
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not errors
    assert sums == [sums[0]] * 4
    assert (sums[0].written, sums[0].good) == (28, True)
    assert everything(target, "acme", "globex", "initech") == everything(source, "acme", "globex", "initech")


def test_a_shard_that_another_worker_runs_is_refused(pair, tmp_path):
    source, target = pair
    job, journal = copying(source, target), Journal(tmp_path / "j")
    plan = job.plan_shards(2, journal=journal)
    with (
        journal.claimed(plan.parts[0]),
        pytest.raises(BusyError, match="Another worker is running the shard 1/2") as caught,
    ):
        job.run_shard(plan.shards[0], journal=journal)
    assert caught.value.sent == "no"
    assert not everything(target, "acme", "globex", "initech")
    job.run_shard(plan.shards[0], journal=journal)


# Rows of the target that are not the source's


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk("c0", "d0", "another text", [1.0, 0.0], 0, {"year": 2000, "odd": 0}),
        Chunk("x", "d0", "an own row", [1.0, 0.0]),
        Chunk("x", "zz", "an own row behind all", [1.0, 0.0]),
    ],
)
@pytest.mark.parametrize("count", [1, 4])
def test_another_row_in_the_target_is_never_written_over(pair, chunk, count):
    source, target = pair
    plan = copying(source, target).plan_shards(count)
    target.scoped(testing.principal("w", "acme")).upsert([chunk])
    before = everything(target, "acme")
    errors = []
    for shard in plan.shards:
        try:
            copying(source, target).run_shard(shard)
        except RefusedError as error:
            errors.append(str(error))
    (error,) = errors
    assert "holds another row of 'acme'" in error
    assert "--overwrite" in error
    assert [one for one in everything(target, "acme") if one[0][1:3] == before[0][0][1:3]] == before
    with pytest.raises(RefusedError, match="holds other rows of the tenant 'acme'"):
        copying(source, target).plan_shards(count)


def test_a_copy_that_was_begun_is_planned_again(pair):
    source, target = pair
    copying(source, target).run_shard(copying(source, target).plan_shards(5).shards[2])
    assert everything(target, "acme", "globex", "initech")
    job = copying(source, target)
    plan = job.plan_shards(3)
    assert job.finish(plan, [job.run_shard(one) for one in plan.shards]).good


def test_with_reembed_rows_that_are_there_are_made_again(tmp_path):
    with ExitStack() as stack:
        embedder = {"use": "hashed", "dimension": 8}
        made = {**config(uuid.uuid4().hex, dimension=8), "embedder": embedder}
        source, target = connected(stack), stack.enter_context(v.VectorACL(made))
        fill(source, {"acme": 9})
        job = copying(source, target, reembed=True)
        plan = job.plan_shards(2)
        for _ in range(2):
            total = job.finish(plan, [job.run_shard(one) for one in plan.shards])
            assert (total.good, total.written) == (True, 9)
        assert {len(one[3]) for one in everything(target, "acme")} == {8}


# Shards from outside


def changed(shard, **more):
    return {**shard, **more}


def resealed(shard, **more):
    """Return *shard* changed by someone who computes the digests again."""
    one = Shard.model_validate_json(json.dumps({**shard, **more}))
    return one.bound(one.plan).data()


@pytest.mark.parametrize("bad", [None, 3, "", "{}", b"\xff", [], {}, {"vectoracl_shard": 2}, "\ud800", object()])
def test_what_is_not_a_shard_is_refused(pair, bad):
    with pytest.raises(InvalidInputError, match="plan_shards"):
        copying(*pair).run_shard(bad)


def test_a_damaged_shard_is_refused(pair):
    source, target = pair
    (shard,) = copying(source, target).plan_shards(1).shards
    other = {**shard["ranges"][0], "tenant": "umbrella"}
    changes = [
        {"index": 1},
        {"of": 2},
        {"plan": "0" * 32},
        {"digest": ""},
        {"ranges": [*shard["ranges"][1:], other]},
        {"ranges": []},
        {"options": {**shard["options"], "reembed": True}},
        {"stores": {}},
        {"more": 1},
        {"index": "0"},
        {"ranges": [{**shard["ranges"][0], "after": ["a", "0", "c"]}]},
    ]
    for one in changes:
        with pytest.raises(InvalidInputError):
            copying(source, target).run_shard(changed(shard, **one))
    assert not everything(target, "acme", "globex", "initech")


def test_a_forged_shard_cannot_do_more_than_the_workers_job(pair, tmp_path):
    source, target = pair
    (shard,) = copying(source, target, tenants=["acme"]).plan_shards(1).shards
    job = copying(source, target, tenants=["acme"])
    elsewhere = {**shard["ranges"][0], "tenant": "globex"}
    forged = [
        (resealed(shard, ranges=[elsewhere]), "'globex', which is not copied"),
        (resealed(shard, options={**shard["options"], "tenants": None}), "other options"),
        (resealed(shard, options={**shard["options"], "different_stores": True}), "other options"),
        (resealed(shard, options={**shard["options"], "more": 1}), "other options"),
        (resealed(shard, job="check"), "the job 'check'"),
        (resealed(shard, stores={}), "another store"),
        (resealed(shard, ranges=[{**shard["ranges"][0], "store": "other"}]), "in 'other'"),
    ]
    for one, why in forged:
        with pytest.raises(RefusedError, match=why):
            job.run_shard(one)
    job.plan_shards(1, journal=tmp_path / "j")
    narrower = resealed(shard, ranges=[{**shard["ranges"][0], "upto": ["d0", 0, "c0"]}])
    with pytest.raises(RefusedError, match="belongs to another plan"):
        job.run_shard(narrower, journal=tmp_path / "j")
    assert not everything(target, "acme", "globex", "initech")


@pytest.mark.parametrize("more", [{"metric": "l2"}, {"metadata": {"year": "keyword"}}, {"name": "another"}])
def test_a_worker_with_another_configuration_refuses(pair, more):
    source, target = pair
    (shard,) = copying(source, target).plan_shards(1).shards
    with v.VectorACL(config(**{"name": uuid.uuid4().hex, **more})) as other:
        other.scoped(testing.principal("w", "acme")).upsert([Chunk("c0", "d0", "acme 0", [1.0, 0.0])])
        for job in (copying(other, target), copying(source, other)):
            with pytest.raises(RefusedError):
                job.run_shard(shard)
    assert not everything(target, "acme", "globex", "initech")


def test_a_journal_of_another_job_is_refused(pair, tmp_path):
    source, target = pair
    copying(source, target).plan_shards(2, journal=tmp_path / "j")
    for count, more, why in [(3, {}, "a plan of 2 shards, not of 3"), (2, {"tenants": ["acme"]}, "other options")]:
        with pytest.raises(RefusedError, match=why):
            copying(source, target, **more).plan_shards(count, journal=tmp_path / "j")
    with pytest.raises(RefusedError, match="the job 'copy', not of 'check'"):
        CheckJob(source, reason=REASON).plan_shards(2, journal=tmp_path / "j")
    with pytest.raises(RefusedError, match="holds no plan"):
        copying(source, target).run_shard(copying(source, target).plan_shards(1).shards[0], journal=tmp_path / "empty")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"vectoracl_plan":1}', b"\xff"])
def test_a_damaged_journal_is_refused(pair, tmp_path, content):
    source, target = pair
    plan = copying(source, target).plan_shards(2, journal=tmp_path / "j")
    copying(source, target).run_shard(plan.shards[0], journal=tmp_path / "j")
    (tmp_path / "j" / "shard-1.json").write_bytes(content)
    with pytest.raises(InvalidInputError):
        copying(source, target).run_shard(plan.shards[0], journal=tmp_path / "j")
    (tmp_path / "j" / "plan.json").write_bytes(content)
    with pytest.raises(InvalidInputError):
        copying(source, target).run_shard(plan.shards[1], journal=tmp_path / "j")


def test_a_journal_is_private(pair, tmp_path):
    copying(*pair).plan_shards(1, journal=tmp_path / "j")
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "j" / "plan.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be used"):
        copying(*pair).plan_shards(1, journal=tmp_path / "file")


def test_the_sum_is_of_a_plan_of_this_job(pair):
    source, target = pair
    plan = copying(source, target).plan_shards(1)
    results = [copying(source, target).run_shard(one) for one in plan.shards]
    with pytest.raises(RefusedError, match="the job 'copy', not of 'check'"):
        CheckJob(source, reason=REASON).finish(plan, results)
    with pytest.raises(RefusedError, match="other options"):
        copying(source, target, tenants=["acme"]).finish(plan, results)


@pytest.mark.parametrize(
    ("texts", "fits"),
    [
        ({"memory: a", "memory: system 1 (original)"}, True),
        ({"memory: a"}, True),
        ({"memory: b", "memory: system 1 (original)"}, False),  # restored from a backup, or started again
        ({"memory: b", "memory: system 1 (replica)"}, False),
    ],
)
def test_a_restored_backup_is_another_store(pair, monkeypatch, texts, fits):
    source, _ = pair
    found = {"memory: a", "memory: system 1 (original)"}
    monkeypatch.setattr(type(source), "store_identity", lambda *_: frozenset(found))
    job = CheckJob(source, reason=REASON)
    (shard,) = job.plan_shards(1).shards
    monkeypatch.setattr(type(source), "store_identity", lambda *_: frozenset(texts))
    if fits:
        job.run_shard(shard)
        return
    with pytest.raises(RefusedError, match="restarted or restored"):
        job.run_shard(shard)


def test_the_sum_needs_every_shard_of_this_plan(pair):
    source, target = pair
    job = copying(source, target)
    plan, other = job.plan_shards(3), job.plan_shards(4)
    results = [job.run_shard(one) for one in plan.shards]
    with pytest.raises(RefusedError, match=r"1 of 3 shards are not finished: 2/3\."):
        job.finish(plan, [results[0], results[2]])
    with pytest.raises(InvalidInputError, match="another plan"):
        job.finish(other, results)
    with pytest.raises(InvalidInputError):
        job.finish(plan, [{}])
    damaged = plan.data()
    damaged["shards"] = damaged["shards"][:2]
    with pytest.raises(InvalidInputError):
        job.finish(damaged, results)
    assert job.finish(Plan.parse(json.dumps(plan.data())), [*results, *results]).good


@pytest.mark.parametrize("count", [0, -1, 100_001, True, 1.5, "2", None])
def test_the_number_of_shards_is_checked(pair, count):
    with pytest.raises(InvalidInputError, match="number of shards"):
        copying(*pair).plan_shards(count)


def test_each_shard_leaves_records_of_its_own_reads_and_writes():
    sinks = MemorySink(), MemorySink()
    with ExitStack() as stack:
        source, target = (stack.enter_context(v.VectorACL(config(uuid.uuid4().hex), sink=sink)) for sink in sinks)
        fill(source, {"acme": 5, "globex": 5})
        for sink in sinks:
            sink.records.clear()
        job = copying(source, target)
        plan = job.plan_shards(2)
        for sink in sinks:
            sink.records.clear()
        shard = next(one for one in plan.shards if one["ranges"])
        job.run_shard(shard)
        tenants = {one["tenant"] for one in shard["ranges"]}
        for sink, action in zip(sinks, ("hazmat.read", "hazmat.write"), strict=True):
            records = [one for one in sink.records if one["action"] == action]
            assert records
            assert {tenant for one in records for tenant in one["partitions"]} == tenants
            assert all(one["reasons"] == [REASON] for one in records)


# The check of the rows


@DRAWN
@given(sizes=SIZES, count=st.integers(1, 9), bad=st.sets(st.integers(0, 30), max_size=8))
def test_a_check_in_any_shards_finds_the_same_faults(sizes, count, bad):
    with ExitStack() as stack:
        acl = connected(stack)
        fill(acl, sizes)
        operated = hazmat.operate(acl, reason=REASON)
        tenant = next(iter(sizes))
        odd = [Record(Tag(tenant, "odd", f"{n:02}", rev=-1), "t", np.ones(2, np.float32), {}) for n in sorted(bad)]
        if odd:
            operated.write(tenant, odd)
        sums = []
        for number in (1, count):
            job = CheckJob(acl, reason=REASON, batch=3)
            plan = job.plan_shards(number)
            sums.append(job.finish(plan, [over_the_wire(job.run_shard(over_the_wire(one))) for one in plan.shards]))
        assert sums[0].census == sums[1].census
        assert sums[1].rows == sum(sizes.values()) + len(bad)
        faults = {one.tenant: one.faults for one in sums[1].census if one.faults}
        wanted = {"The tag's rev is not a whole number from 0.": len(bad)}
        assert faults == ({tenant: wanted} if bad else {})
        assert sums[1].good is not bool(bad)


def test_a_check_finds_rows_that_the_store_would_not_take_today():
    name = uuid.uuid4().hex
    with v.VectorACL(config(name, metadata={})) as before:
        before.scoped(testing.principal("w", "acme")).upsert(
            [Chunk("1", "d", "t", [1.0, 0.0], 0, {"year": "none"}), Chunk("2", "d", "t", [1.0, 0.0], 1, {"year": 3})]
        )
        with v.VectorACL(config(name)) as now:
            job = CheckJob(now, reason=REASON)
            plan = job.plan_shards(1)
            (census,) = job.finish(plan, [job.run_shard(plan.shards[0])]).census
    assert sum(census.faults.values()) == 1
    assert census.examples[0].startswith("d / 1: ")
    assert "none" not in json.dumps(census.model_dump())


@pytest.mark.parametrize("count", [1, 3])
def test_tenants_of_an_unknown_size_are_divided_evenly(pair, monkeypatch, count):
    source, target = pair
    monkeypatch.setattr("vectoracl.copying.planning._counted", lambda *_: None)
    for job in (CheckJob(source, reason=REASON, tenants=["acme"]), copying(source, target, tenants=["acme"])):
        plan = job.plan_shards(count)
        sizes = [part.rows for shard in plan.parts for part in shard.ranges]
        assert sum(sizes) == 23
        assert len(sizes) <= 2 * count
        assert job.finish(plan, [job.run_shard(one) for one in plan.shards]).rows == 23


def test_a_check_of_named_tenants_reads_no_others():
    sink = MemorySink()
    with v.VectorACL(config(uuid.uuid4().hex), sink=sink) as acl:
        fill(acl, {"acme": 3, "globex": 3})
        sink.records.clear()
        job = CheckJob(acl, reason=REASON, tenants=["acme"])
        plan = job.plan_shards(2)
        assert job.finish(plan, [job.run_shard(one) for one in plan.shards]).rows == 3
        forged = resealed(plan.shards[0], ranges=[{"store": "main", "tenant": "globex"}])
        with pytest.raises(RefusedError, match="which is not checked"):
            job.run_shard(forged)
    assert {tenant for one in sink.records for tenant in one.get("partitions", ())} == {"acme"}


def test_a_store_that_does_not_identify_itself_has_no_shards(pair, monkeypatch):
    source, target = pair
    monkeypatch.setattr(type(source), "store_identity", lambda *_: frozenset())
    with pytest.raises(RefusedError, match="does not identify the physical store"):
        copying(source, target).plan_shards(2)


def test_an_error_of_the_store_reports_what_was_written(pair, monkeypatch):
    source, target = pair
    (shard,) = copying(source, target, batch=4).plan_shards(1).shards
    write, calls = hazmat.Operated.write, []

    def failing(self, tenant, records, **given):
        calls.append(records)
        if len(calls) > 2:
            raise StoreError("It is full.", code="full", sent="no")
        return write(self, tenant, records, **given)

    monkeypatch.setattr(hazmat.Operated, "write", failing)
    with pytest.raises(StoreError) as caught:
        copying(source, target, batch=4).run_shard(shard)
    assert caught.value.written == 8
    assert "shard 1/1: 8 rows were written" in caught.value.__notes__[0]
