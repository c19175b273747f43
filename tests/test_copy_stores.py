"""`vectoracl copy` between the real stores, each once a source and once a target; counted by the kit's own census.

The census of a harness reads its store without the adapter, so that a copy is not judged by what made it.
"""

import math
import os
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest

import vectoracl as v
from vectoracl import Chunk, hazmat, testing
from vectoracl.copying.checkpoint import Checkpoint
from vectoracl.copying.copy import Copy
from vectoracl.copying.planning import Side
from vectoracl.model.records import Record, Tag
from vectoracl.sharding import CheckJob, CopyJob

pytest.importorskip("vectoracl_conformance")

from vectoracl.adapter_api.local_servers.start import MissingServerError
from vectoracl_conformance.harness import HarnessError, Needs, load_harness

FIELDS = {"year": "number", "lang": "keyword", "seen": "datetime", "tags": "keyword[]", "ok": "boolean"}
DIMENSION = 24
ROUND = ["pgvector", "qdrant", "weaviate", "pinecone", "pgvector"]
REASON = "a test of the copy"
TENANTS = ("acme", "Société Générale", "a" * 200, "00000000-0000-4000-8000-000000000000")

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def stores():
    """The stores by name, made at first use; a harness that has no server here is skipped, or fails where required."""
    made = {}

    def get(name):
        if name not in made:
            try:
                made[name] = load_harness(name).fresh(Needs(DIMENSION, FIELDS))
            except (HarnessError, MissingServerError) as error:
                fail = pytest.fail if os.environ.get("VECTORACL_REQUIRE_SERVERS") == "1" else pytest.skip
                fail(f"not run: {error}")
        return made[name]

    yield get
    for store in made.values():
        store.close()


def opened(store):
    return v.VectorACL({"version": 1, "stores": {"main": {**store.config, "metadata": dict(FIELDS)}}})


def unit(rng):
    vector = rng.normal(size=DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def fill(acl, seed):
    """Write what an application writes, and one document with a tag of every kind."""
    rng = np.random.default_rng(seed)
    for tenant in TENANTS:
        handle = acl.scoped(testing.principal("writer", tenant))
        handle.upsert(
            [
                Chunk(
                    f"c{n}",
                    f"document {n % 5} ü",
                    f"The {n}th text of {tenant[:20]}, “quoted”\n\twith lines",
                    unit(rng),
                    n,
                    {
                        "year": 1990.5 + n,
                        "lang": "fr" if n % 2 else "en",
                        "seen": datetime(2024, 2, 29, 12, 30, n, 250_000, UTC),
                        "tags": ["a", "b c", "ü"][: 1 + n % 3],
                        "ok": n % 2 == 0,
                        "free": {"deep": [1, 2.5, None, {"x": "y"}], "null": None},
                    },
                )
                for n in range(23)
            ]
        )
        handle.replace("document 1 ü", [Chunk("c1", "document 1 ü", "replaced", unit(rng))])
        odd = Tag(tenant, "held", "x/1", 5, "#staged", 3, 4_000_000_000.25, "someone ü", "load", 1_700_000_000.125, 7)
        hazmat.operate(acl, reason=REASON).write(tenant, [Record(odd, "kept", unit(rng), {"lang": "de"})])


def census(store):
    store.settle()
    return {
        row.tag: (row.text, dict(row.metadata), np.asarray(row.vector, np.float64))
        for row in store.census()
        if row.tag.tenant in TENANTS
    }


def prepare(left, source, right, target, seed):
    """Empty both stores of the tenants, and fill the source."""
    source.open()
    for tenant in TENANTS:
        hazmat.operate(target, reason=REASON).clear(tenant)
        hazmat.operate(source, reason=REASON).clear(tenant)
    left.settle()
    right.settle()
    fill(source, seed)
    left.settle()


@pytest.mark.parametrize(("one", "other"), list(pairwise(ROUND)), ids=lambda name: name)
def test_from_one_store_to_another(stores, tmp_path, one, other):
    for name in (one, other):
        pytest.importorskip(f"vectoracl_{name}")
    left, right = stores(one), stores(other)
    with opened(left) as source, opened(right) as target:
        prepare(left, source, right, target, ROUND.index(one))
        kept = Checkpoint(tmp_path / "checkpoint", [one, other])
        work = Copy(Side(source), Side(target), reason=REASON, checkpoint=kept, batch=10)
        plan = work.plan(TENANTS)
        assert {move.state for move in plan.moves} == {"copy"}
        report = work.run(plan)
        assert [one.examples for one in report.different] == []
        before, after = census(left), census(right)
        assert before.keys() == after.keys()
        assert len(after) == report.written == sum(move.rows for move in plan.moves) == 4 * (23 - 5 + 1 + 1)
        for tag, (text, metadata, vector) in before.items():
            there = after[tag]
            assert there[:2] == (text, metadata)
            assert math.isclose(float(there[2] @ vector), 1.0, abs_tol=1e-5)

        # The handles of the target see what those of the source see.
        for tenant in TENANTS:
            reader = testing.principal("reader", tenant)
            query = unit(np.random.default_rng(7))
            answers = [[hit.tag for hit in acl.scoped(reader).search(query, 8)] for acl in (source, target)]
            assert answers[0] == answers[1]
            assert {tag.tenant for tag in answers[1]} == {tenant}
            where = v.F.lang == "en"
            assert len(list(source.scoped(reader).scan(where))) == len(list(target.scoped(reader).scan(where))) > 0
        testing.assert_isolated(target, testing.principal("r", TENANTS[0]), testing.principal("r", TENANTS[1]))

        # Again there is nothing to do, and rows that differ are refused.
        again = Copy(Side(source), Side(target), reason=REASON, checkpoint=Checkpoint(tmp_path / "2", []))
        plan = again.plan(TENANTS)
        assert {move.state for move in plan.moves} == {"there"}
        more = Chunk("more", "more", "x", unit(np.random.default_rng(1)))
        target.scoped(testing.principal("writer", TENANTS[0])).upsert([more])
        right.settle()
        with pytest.raises(v.RefusedError, match="other rows of the tenant"):
            again.plan(TENANTS)


@pytest.mark.parametrize(("one", "other"), list(pairwise(ROUND)), ids=lambda name: name)
def test_in_shards_from_one_store_to_another(stores, one, other):
    """Ranges of keys mean the same on every store; a shard that is repeated finds its rows."""
    for name in (one, other):
        pytest.importorskip(f"vectoracl_{name}")
    left, right = stores(one), stores(other)
    with opened(left) as source, opened(right) as target:
        prepare(left, source, right, target, ROUND.index(one))
        job = CopyJob(Side(source), Side(target), reason=REASON, tenants=TENANTS, batch=7)
        plan = job.plan_shards(6)
        assert sum(len(shard["ranges"]) for shard in plan.shards) > len(TENANTS)
        results = [job.run_shard(shard) for shard in reversed(plan.shards)]
        right.settle()
        repeated = job.run_shard(plan.shards[2])
        assert (repeated["written"], repeated["present"]) == (0, sum(part["rows"] for part in plan.shards[2]["ranges"]))
        total = job.finish(plan, results)
        assert total.good
        assert total.written == 4 * (23 - 5 + 1 + 1)
        before, after = census(left), census(right)
        assert {tag: row[:2] for tag, row in before.items()} == {tag: row[:2] for tag, row in after.items()}
        digests = []
        for acl, count in ((source, 1), (target, 5)):
            check = CheckJob(acl, reason=REASON, tenants=TENANTS)
            whole = check.plan_shards(count)
            checked = check.finish(whole, [check.run_shard(shard) for shard in whole.shards])
            assert checked.good
            digests.append({each.tenant: each.digest for each in checked.census})
        assert digests[0] == digests[1] == {each.tenant: each.digest for each in total.census}
