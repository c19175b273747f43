"""Shards on Ray, with two workers: the example, and a copy whose workers are killed. Run by `nox -s ray`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.environ.get("VECTORACL_RAY") != "1", reason="not run: nox -s ray installs Ray"),
]
EXAMPLE = Path(__file__).parents[1] / "examples" / "shards_on_ray.py"
# Functions of a script travel by value; those of a test's module could not be imported by a worker.
COPY = """
import json, logging, os, signal, sys
import ray
import vectoracl as v
from vectoracl import Chunk, hazmat, testing
from vectoracl.copying.planning import Side
from vectoracl.sharding import CopyJob

TENANTS = ("acme", "globex", "initech")

def config(folder, name):
    store = {"adapter": "pgvector", "embedded": f"{folder}/{name}", "dimension": 3}
    return {"version": 1, "stores": {"main": store}}

def copying(one, other):
    return CopyJob(Side(one), Side(other), reason="a test of shards", tenants=TENANTS, batch=5)

@ray.remote(max_retries=2)
def run_shard(folder, shard):
    write, marker = hazmat.Operated.write, f"{folder}/killed-{shard['index']}"

    def kills(*given, **named):
        if os.path.exists(marker):
            return write(*given, **named)
        count = write(*given, **named)
        open(marker, "x").close()
        os.kill(os.getpid(), signal.SIGKILL)

    if shard["index"] % 2 == 0:
        hazmat.Operated.write = kills
    try:
        with v.VectorACL(config(folder, "one")) as one, v.VectorACL(config(folder, "other")) as other:
            return copying(one, other).run_shard(shard, journal=f"{folder}/journal")
    finally:
        hazmat.Operated.write = write

def rows(acl):
    operated = hazmat.operate(acl, reason="a test of shards")
    return [[*hit.tag, hit.text, hit.vector.tolist()] for one in TENANTS for hit in operated.read(one, 10_000).hits]

folder = sys.argv[1]
with v.VectorACL(config(folder, "one")) as one, v.VectorACL(config(folder, "other")) as other:
    for acl in (one, other):
        acl.operator().provision()
    for size, tenant in enumerate(TENANTS, 1):
        chunks = [Chunk(f"c{n}", f"d{n % 7}", f"{tenant} {n}", [1.0, n, 2.0], n) for n in range(30 * size)]
        one.scoped(testing.principal("w", tenant)).load(chunks)
    job = copying(one, other)
    plan = job.plan_shards(5, journal=f"{folder}/journal")
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    results = ray.get([run_shard.remote(folder, shard) for shard in plan.shards])
    ray.shutdown()
    total = job.finish(plan, results)
    whole = job.plan_shards(1)
    answer = {
        "killed": sorted(name for name in os.listdir(folder) if name.startswith("killed")),
        "same": total.census == job.finish(whole, [job.run_shard(whole.shards[0])]).census,
        "good": total.good, "rows": total.rows, "written": total.written, "present": total.present,
        "equal": rows(one) == rows(other), "count": len(rows(other)),
    }
print(json.dumps(answer))
"""


def ran(script: Path, *arguments: str) -> str:
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd=script.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example() -> None:
    lines = ran(EXAMPLE).splitlines()
    assert lines == [
        "load: 6 shards, 2000 written, 0 rows checked, good: True",
        "check: 6 shards, 0 written, 2000 rows checked, good: True",
    ]


def test_killed_workers_repeat_their_shards_and_nothing_is_doubled(tmp_path: Path) -> None:
    script = tmp_path / "copying.py"
    script.write_text(COPY)
    answer = json.loads(ran(script, str(tmp_path)).splitlines()[-1])
    assert answer["killed"] == ["killed-0", "killed-2", "killed-4"]
    assert (answer["rows"], answer["count"]) == (180, 180)
    assert answer["written"] + answer["present"] == 180
    assert answer["present"] >= 3 * 5  # what the killed workers had written
    assert answer["good"] and answer["same"] and answer["equal"]  # noqa: PT018 - one result
