"""Jobs in shards by several processes over one PostgreSQL: workers that are killed, and imports of existing rows."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, hazmat, testing
from vectoracl.audit.sinks import MemorySink
from vectoracl.copying.planning import Side
from vectoracl.errors import RefusedError
from vectoracl.sharding import AdoptJob, CheckJob, CopyJob, Journal, Shard

pytestmark = pytest.mark.server
REASON = "a test of shards"
TENANTS = ("acme", "globex", "ä-tenant")
_PRELUDE = """
import json, sys, time
import vectoracl as v
from vectoracl import Chunk, hazmat, testing
from vectoracl.copying.planning import Side
from vectoracl.sharding import CopyJob, LoadJob
source, target, folder, index, writes = json.loads(sys.stdin.readline())
write = hazmat.Operated.write

def waits(*given, **named):
    global writes
    writes -= 1
    if writes < 0:
        print("here", flush=True)
        time.sleep(600)
    return write(*given, **named)

hazmat.Operated.write = waits
"""
_COPIER = (
    _PRELUDE
    + """
with v.VectorACL(source) as one, v.VectorACL(target) as other:
    job = CopyJob(Side(one), Side(other), reason="a test of shards", tenants=["acme", "globex", "ä-tenant"], batch=3)
    plan = job.plan_shards(4, journal=folder)
    print(json.dumps(job.run_shard(plan.shards[index], journal=folder)), flush=True)
"""
)
_LOADER = """
import json, sys, time
import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl.sharding import LoadJob
source, folder, index, writes = json.loads(sys.stdin.readline())

def stream():
    return (Chunk(f"c{n}", f"d{n % 11}", f"text {n}", [1.0, n, 0.5], n) for n in range(120))

def waits(what, done, total):
    global writes
    writes -= 1
    if writes < 0:
        print("here", flush=True)
        time.sleep(600)

with v.VectorACL(source) as acl:
    job = LoadJob(acl, testing.principal("w", "acme"), stream, batch=4)
    plan = job.plan_shards(3, journal=folder)
    print(json.dumps(job.run_shard(plan.shards[index], journal=folder, progress=waits)), flush=True)
"""


def begun(script: str, *given: object) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, stderr=-1, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(given) + "\n")
    process.stdin.flush()
    return process


def ended(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return json.loads(out)


def killed(process: subprocess.Popen[str]) -> None:
    """Kill *process* when it says that it has come to its place."""
    assert process.stdout is not None
    line = process.stdout.readline()
    process.kill()
    _, err = process.communicate(timeout=100)
    assert line == "here\n", err
    assert process.returncode == -signal.SIGKILL


def rows(made: dict[str, Any], *tenants: str) -> list[Any]:
    with v.VectorACL(made) as acl:
        operated = hazmat.operate(acl, reason=REASON)
        found = [hit for tenant in tenants for hit in operated.read(tenant, 10_000).hits]
    return [(hit.tag[:4], hit.text, hit.metadata, hit.position, hit.vector.tolist()) for hit in found]  # type: ignore[union-attr]  # vectors were asked for


@pytest.fixture
def two(provisioned: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    source, target = (provisioned(metadata={"year": "number"}, dimension=3).config for _ in range(2))
    with v.VectorACL(source) as acl:
        for size, tenant in enumerate(TENANTS, 1):
            chunks = [Chunk(f"c{n}", f"d{n % 4}", f"{tenant} {n}", [1.0, n, 2.0], n) for n in range(9 * size)]
            acl.scoped(testing.principal("w", tenant)).upsert(chunks)
    return source, target


def test_killed_workers_repeat_their_shards_and_nothing_is_doubled(two: Any, tmp_path: Path) -> None:
    source, target = two
    folder = str(tmp_path / "j")
    for index, writes in [(0, 0), (0, 1), (1, 2), (2, 1)]:
        killed(begun(_COPIER, source, target, folder, index, writes))
    assert 0 < len(rows(target, *TENANTS)) < 54
    running = [begun(_COPIER, source, target, folder, index, 1000) for index in (3, 1, 0, 2)]  # all at once
    results = [ended(one) for one in running]
    assert rows(target, *TENANTS) == rows(source, *TENANTS)
    assert sum(one["written"] + one["present"] for one in results) == 54
    assert sum(one["present"] for one in results) > 0
    with v.VectorACL(source) as one, v.VectorACL(target) as other:
        job = CopyJob(Side(one), Side(other), reason=REASON, tenants=TENANTS)
        plan = Journal(folder).plan()
        assert plan is not None
        total = job.finish(plan, Journal(folder).results())
        again = job.plan_shards(1)
        assert total.good
        assert job.finish(again, [job.run_shard(again.shards[0])]).census == total.census


def test_two_workers_at_once_on_one_shard_without_a_journal_write_every_row_once(two: Any) -> None:
    source, target = two
    script = _COPIER.replace("journal=folder", "journal=None")
    running = [begun(script, source, target, None, index, 1000) for index in (0, 1, 2, 3, 0, 1, 2, 3)]
    for one in running:
        ended(one)
    assert rows(target, *TENANTS) == rows(source, *TENANTS)


def test_a_load_whose_workers_are_killed_is_one_load(provisioned: Any, tmp_path: Path) -> None:
    made = provisioned(dimension=3).config
    folder = str(tmp_path / "j")
    for index, writes in [(0, 1), (1, 3), (1, 0)]:
        killed(begun(_LOADER, made, folder, index, writes))
    results = [ended(one) for one in [begun(_LOADER, made, folder, index, 1000) for index in (2, 0, 1)]]
    assert sum(one["written"] + one["present"] for one in results) == 120
    assert sum(one["present"] for one in results) >= 8
    whole = [(f"c{n}", f"d{n % 11}", f"text {n}", n) for n in range(120)]
    found = [(tag[2], tag[1], text, position) for tag, text, _, position, _ in rows(made, "acme")]
    assert sorted(found) == sorted(whole)


# Imports


class Old:
    """A provisioned store, and a table of an application next to it."""

    def __init__(self, store: Any) -> None:
        self.config = store.config
        self.app = psycopg.connect(store.bootstrap, autocommit=True)
        self.app.execute("GRANT USAGE ON SCHEMA public TO vectoracl_owner")
        self.app.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO vectoracl_owner")

    def table(self, rows: int) -> None:
        self.app.execute("DROP TABLE IF EXISTS docs CASCADE")
        self.app.execute(
            "CREATE TABLE docs (id text PRIMARY KEY, tenant_id text, doc_id text, content text, embedding vector(3))"
        )
        rng = np.random.default_rng(4)
        with self.app.cursor() as cursor:
            for n in range(rows):
                vector = "[" + ",".join(str(x) for x in rng.normal(size=3).astype(np.float32)) + "]"
                values = (f"é{n}", TENANTS[n % 3], f"dö c{n % 17}", f"text {n}", vector)
                cursor.execute("INSERT INTO docs VALUES (%s, %s, %s, %s, %s)", values)


@pytest.fixture(scope="module")
def database(provisioned: Any) -> Iterator[Old]:
    old = Old(provisioned(dimension=3))
    yield old
    old.app.close()


@pytest.fixture
def old(database: Old) -> Old:
    database.app.execute("TRUNCATE vectoracl.chunks, vectoracl.chunks_tenants")
    database.table(100)
    return database


def contents(old: Old) -> list[Any]:
    """Return every row but the time of its import."""
    return old.app.execute(
        "SELECT tenant_id, document, chunk_id, generation, path, producer, content, metadata::text, embedding::text "
        "FROM vectoracl.chunks ORDER BY 1, 2, 3"
    ).fetchall()


def imported(made: dict[str, Any], count: int, sink: MemorySink | None = None) -> Any:
    with v.VectorACL(made, sink=sink or MemorySink()) as acl:
        job = AdoptJob(acl, "docs", reason=REASON)
        plan = job.plan_shards(count)
        results = [job.run_shard(json.loads(json.dumps(one))) for one in [*plan.shards, plan.shards[0]]]
        return job.finish(plan, results)


def test_an_import_in_shards_is_the_import(old: Old) -> None:
    with v.VectorACL(old.config) as acl:
        operator = acl.operator()
        hazmat.adopt(acl, "docs", operator=operator, reason=REASON)
        operator.close()
    whole = contents(old)
    assert len(whole) == 100
    for count in (1, 2, 7, 40):
        old.app.execute("TRUNCATE vectoracl.chunks, vectoracl.chunks_tenants")
        sink = MemorySink()
        total = imported(old.config, count, sink)
        assert contents(old) == whole
        assert (total.good, total.rows, {one.tenant: one.rows for one in total.census}) == (
            True,
            100,
            {"acme": 34, "globex": 33, "ä-tenant": 33},
        )
        actions = [one["action"] for one in sink.records if "action" in one]
        assert actions.count("hazmat.adopt_share") == count + 1
        assert actions.count("operator.survey") == 1


def test_an_import_that_was_begun_continues(old: Old) -> None:
    with v.VectorACL(old.config) as acl:
        job = AdoptJob(acl, "docs", reason=REASON)
        plan = job.plan_shards(5)
        job.run_shard(plan.shards[3])
        begun_rows = len(contents(old))
        assert 0 < begun_rows < 100
        again = job.plan_shards(2)
        total = job.finish(again, [job.run_shard(one) for one in again.shards])
    assert (total.written, total.present, total.good) == (100 - begun_rows, begun_rows, True)


def test_a_row_that_cannot_be_imported_stops_everything(old: Old) -> None:
    old.app.execute("UPDATE docs SET tenant_id = NULL WHERE id = 'é77'")
    with v.VectorACL(old.config) as acl, pytest.raises(RefusedError, match="é77"):
        AdoptJob(acl, "docs", reason=REASON).plan_shards(4)
    assert contents(old) == []


def test_rows_of_a_tenant_that_came_after_the_plan_are_refused(old: Old) -> None:
    with v.VectorACL(old.config) as acl:
        job = AdoptJob(acl, "docs", reason=REASON)
        plan = job.plan_shards(4)
        old.app.execute("INSERT INTO docs SELECT 'new', 'new-tenant', 'd', content, embedding FROM docs LIMIT 1")
        errors = []
        for one in plan.shards:
            try:
                job.run_shard(one)
            except RefusedError as error:
                errors.append(str(error))
        (error,) = errors
        assert "'new-tenant'" in error
        assert "Plan it again" in error
    assert "new-tenant" not in {row[0] for row in contents(old)}


def test_rows_that_came_or_went_after_the_plan_are_reported(old: Old) -> None:
    with v.VectorACL(old.config) as acl:
        job = AdoptJob(acl, "docs", reason=REASON)
        plan = job.plan_shards(3)
        old.app.execute("DELETE FROM docs WHERE id IN ('é0', 'é3')")
        old.app.execute("INSERT INTO docs SELECT 'more', 'globex', 'd', content, embedding FROM docs LIMIT 1")
        total = job.finish(plan, [job.run_shard(one) for one in plan.shards])
    assert not total.good
    assert {one.tenant: list(one.faults.values()) for one in total.census if one.faults} == {"acme": [2], "globex": [1]}


def test_a_forged_share_imports_no_tenant_that_it_does_not_name(old: Old) -> None:
    with v.VectorACL(old.config) as acl:
        job = AdoptJob(acl, "docs", reason=REASON)
        (shard,) = job.plan_shards(1).shards
        documents = {**shard["documents"], "tenants": {"acme": 34}}
        one = Shard.model_validate_json(json.dumps({**shard, "documents": documents}))
        with pytest.raises(RefusedError, match="'globex'"):
            job.run_shard(one.bound(one.plan).data())
    assert "globex" not in {row[0] for row in contents(old)}


def test_a_prefix_moves_documents_alike_in_sql_and_here(old: Old) -> None:
    made = json.loads(json.dumps(old.config))
    made["stores"]["main"]["adopt"] = {"prefix": "wiki ü/"}
    total = imported(made, 6)
    assert (total.good, total.rows) == (True, 100)
    assert {row[1].split("/")[0] for row in contents(old)} == {"wiki ü"}


def test_a_check_reads_every_tenant_in_ranges(two: Any) -> None:
    source, _ = two
    with v.VectorACL(source) as acl:
        sums = []
        for count in (1, 5):
            job = CheckJob(acl, reason=REASON)
            plan = job.plan_shards(count)
            sums.append(job.finish(plan, [job.run_shard(one) for one in plan.shards]))
    assert sums[0].census == sums[1].census
    assert (sums[1].good, sums[1].rows) == (True, 54)
