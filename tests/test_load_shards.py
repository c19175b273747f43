"""Loads in shards of documents: together they are one load, and each worker writes its documents alone."""

import asyncio
import json
import uuid
from collections import Counter
from contextlib import ExitStack, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, hazmat, testing
from vectoracl.adapter_api.shares import WHOLE, Share, ShareCounter, place_of, shares
from vectoracl.errors import DeniedError, InvalidInputError, RefusedError
from vectoracl.sharding import AsyncLoadJob, CheckJob, Journal, LoadJob, Shard

WHO = testing.principal("w", "acme")
DRAWN = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def config(name, **more):
    return {"version": 1, "stores": {"main": {"adapter": "memory", "name": name, "dimension": 2}}, **more}


def connected(stack, **more):
    return stack.enter_context(v.VectorACL(config(uuid.uuid4().hex, **more)))


def rows(acl, tenant="acme"):
    found = hazmat.operate(acl, reason="a test of shards").read(tenant, 10_000).hits
    return [(hit.document, hit.id, hit.text, hit.position, hit.vector.tolist()) for hit in found]


CHUNKS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), max_size=60).map(
    lambda ids: [Chunk(f"c{c}", f"d{d}", f"the {n}th", [1.0, n], n) for n, (d, c) in enumerate(ids)]
)


class Lost(Exception):  # noqa: N818 - a worker is lost
    pass


def lost_after(calls):
    left = [calls]

    def progress(what, done, total):
        left[0] -= 1
        if left[0] < 0:
            raise Lost

    return progress


@DRAWN
@given(
    chunks=CHUNKS,
    count=st.integers(1, 9),
    order=st.randoms(use_true_random=False),
    batch=st.one_of(st.none(), st.integers(1, 5)),
    losses=st.lists(st.integers(0, 4), max_size=4),
    journalled=st.booleans(),
)
def test_loads_in_any_shards_are_one_load(chunks, count, order, batch, losses, journalled, tmp_path_factory):
    """The later of two chunks with one id wins, as in one load; lost workers repeat their shards."""
    folder = tmp_path_factory.mktemp("journal") / "j" if journalled else None
    with ExitStack() as stack:
        once, parts = connected(stack), connected(stack)
        once.scoped(WHO).load(chunks)
        plan = LoadJob(parts, WHO, lambda: iter(chunks), batch=batch).plan_shards(count, journal=folder)
        shards = [*plan.shards, *order.choices(plan.shards, k=2)]
        order.shuffle(shards)
        results = []
        for shard in shards:
            job = LoadJob(parts, WHO, lambda: iter(chunks), batch=batch)
            if losses:
                with suppress(Lost):
                    job.run_shard(shard, journal=folder, progress=lost_after(losses.pop()))
            results.append(job.run_shard(json.loads(json.dumps(shard)), journal=folder))
        total = job.finish(plan, results)
        assert total.written + total.present == len(chunks)
        assert rows(parts) == rows(once)
        sums = []
        for acl in (once, parts):
            check = CheckJob(acl, reason="a test of shards", tenants=["acme"])
            whole = check.plan_shards(1)
            census = check.finish(whole, [check.run_shard(one) for one in whole.shards]).census
            sums.append([(one.tenant, one.rows, one.faults) for one in census])
        assert sums[0] == sums[1]


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 200), ids=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=50))
def test_every_document_is_in_one_share(count, ids):
    parts = shares(count)
    assert (parts[0].low, parts[-1].high) == (0, WHOLE)
    counter = ShareCounter(parts)
    for tenant, document in ids:
        assert sum(part.has(tenant, document) for part in parts) == 1
        counter.take(tenant, document)
    counted = counter.shares()
    for part in counted:
        assert part.tenants == Counter(tenant for tenant, document in ids if part.has(tenant, document))
    assert sum(sum(part.tenants.values()) for part in counted) == len(ids)


def test_places_never_change():
    """A batch system deals documents by them, on machines with any version."""
    assert place_of("acme", "handbook.md") == 0xD8BBBE7F
    assert place_of("a", "bc") != place_of("ab", "c")


@pytest.mark.parametrize(("low", "high"), [(-1, 5), (5, 5), (6, 5), (0, WHOLE + 1)])
def test_a_share_has_bounds(low, high):
    with pytest.raises(InvalidInputError):
        Share(low, high)


def test_a_load_in_shards_asks_the_policy_for_the_workers_own_principal():
    with ExitStack() as stack:
        acl = connected(stack)
        (shard,) = LoadJob(acl, WHO, list).plan_shards(1).shards
        reader = testing.principal("r", "acme", roles=("reader",))
        other = testing.principal("w", "globex")
        with pytest.raises(RefusedError, match="other options"):
            LoadJob(acl, other, list).run_shard(shard)

        class ReadOnly:
            version = None

            def decide(self, principal, action):
                return v.Decision.deny("it only reads", None)

        denied = stack.enter_context(v.VectorACL(acl.config, policy=ReadOnly()))
        with pytest.raises(DeniedError) as caught:
            LoadJob(denied, reader, lambda: [Chunk("c", "d", "t", [1.0, 0.0])]).run_shard(shard)
        assert caught.value.reasons == ("it only reads",)
        assert rows(acl) == []


def test_a_stream_of_other_things_is_refused_by_every_shard():
    with ExitStack() as stack:
        acl = connected(stack)
        for stream, shards_ in [(lambda: [3], 3), (lambda: [Chunk("c", 7, "t", [1.0, 0.0])], 3), (lambda: "text", 1)]:
            job = LoadJob(acl, WHO, stream)
            for shard in job.plan_shards(shards_).shards:
                with pytest.raises(InvalidInputError):
                    job.run_shard(shard)
        with pytest.raises(InvalidInputError, match="a function that returns the stream"):
            LoadJob(acl, WHO, [])


def test_a_shard_without_documents_is_refused():
    with ExitStack() as stack:
        job = LoadJob(connected(stack), WHO, list)
        (shard,) = job.plan_shards(1).shards
        one = Shard.model_validate_json(json.dumps({**shard, "documents": None}))
        with pytest.raises(RefusedError, match="names no documents"):
            job.run_shard(one.bound(one.plan).data())


def test_a_load_continues_inside_its_shard(tmp_path):
    chunks = [Chunk(f"c{n}", "one", f"t {n}", [1.0, n]) for n in range(20)]
    with ExitStack() as stack:
        acl = connected(stack)
        job = LoadJob(acl, WHO, lambda: chunks, batch=4)
        (shard,) = job.plan_shards(1, journal=tmp_path / "j").shards
        with pytest.raises(Lost):
            job.run_shard(shard, journal=tmp_path / "j", progress=lost_after(2))
        result = job.run_shard(shard, journal=tmp_path / "j")
        assert (result["written"], result["present"]) == (8, 12)


def test_async_workers_load_at_once(tmp_path):
    chunks = [Chunk(f"c{n}", f"d{n % 7}", f"t {n}", [1.0, n], n) for n in range(50)]

    async def load(made):
        async with v.AsyncVectorACL(made) as acl:
            job = AsyncLoadJob(acl, WHO, lambda: chunks, batch=3)
            plan = await job.plan_shards(4, journal=tmp_path / "j")
            done = []
            results = await asyncio.gather(
                *(job.run_shard(one, journal=tmp_path / "j", progress=lambda *a: done.append(a)) for one in plan.shards)
            )
            again = [await job.run_shard(one, journal=tmp_path / "j") for one in plan.shards]
            assert again == [{**one, "kept": True} for one in results]
            assert done
            with pytest.raises(RefusedError, match="of 4 shards, not of 5"):
                await job.plan_shards(5, journal=tmp_path / "j")
            return job.finish(plan, results)

    made = config(uuid.uuid4().hex)
    with ExitStack() as stack:
        acl, once = stack.enter_context(v.VectorACL(made)), connected(stack)
        once.scoped(WHO).load(chunks)
        acl.open()
        assert asyncio.run(load(made)).written == 50
        assert rows(acl) == rows(once)
        # A sync worker finishes what an async one has planned.
        job = LoadJob(acl, WHO, lambda: chunks)
        assert job.plan_shards(4, journal=tmp_path / "j").digest


def test_a_cancelled_plan_keeps_no_lock(tmp_path):
    made = config(uuid.uuid4().hex)

    async def cancelled():
        async with v.AsyncVectorACL(made) as acl:
            job = AsyncLoadJob(acl, WHO, list)
            held = Journal(tmp_path / "j")
            with held.planning():
                waiting = asyncio.ensure_future(job.plan_shards(2, journal=held))
                await asyncio.sleep(0.3)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            async with asyncio.timeout(10):
                return await job.plan_shards(2, journal=held)

    assert len(asyncio.run(cancelled())) == 2
