"""A load and a check in shards on Ray, with two workers on an embedded PostgreSQL. Needs `pip install ray`.

Each worker opens the configuration itself: clients and credentials do not travel, shards and results do.
"""

import logging
import os
import tempfile
from pathlib import Path

import ray

import vectoracl
from vectoracl import Chunk, Principal
from vectoracl.sharding import CheckJob, LoadJob

REASON = "an example of shards on Ray"
CONFIG = {
    "version": 1,
    "stores": {"main": {"adapter": "pgvector", "embedded": "pg", "dimension": 384}},
    "embedder": {"use": "hashed"},
}


def stream():
    """Return the chunks from the beginning: every worker reads them, and writes its share."""
    return (
        Chunk(f"c{n}", f"document {n % 50}", f"The {n}th sentence of a large corpus.", position=n) for n in range(2000)
    )


def jobs(acl):
    # In an application: Principal(...) from a verified token, or Principal.service as here.
    loader = Principal.service("loader", "acme", "loads the corpus of acme")
    return {"load": LoadJob(acl, loader, stream), "check": CheckJob(acl, reason=REASON)}


@ray.remote(max_retries=3)  # Ray runs the shard of a lost worker again; nothing is doubled
def run_shard(config, folder, shard):
    os.chdir(folder)
    with vectoracl.connect(config) as acl:
        return jobs(acl)[shard["job"]].run_shard(shard)


def main(config, folder):
    os.chdir(folder)  # the configuration names the server's folder by a relative path
    acl = vectoracl.VectorACL(config)
    acl.operator().provision()
    for name, job in jobs(acl).items():
        plan = job.plan_shards(6)
        results = ray.get([run_shard.remote(config, folder, shard) for shard in plan.shards])
        total = job.finish(plan, results)
        print(f"{name}: {len(plan)} shards, {total.written} written, {total.rows} rows checked, good: {total.good}")
    acl.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        try:
            main(CONFIG, str(Path(place).resolve()))
        finally:
            ray.shutdown()
