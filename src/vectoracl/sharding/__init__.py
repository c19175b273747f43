"""Long jobs in shards, for several processes or machines: load, copy, import, check of the rows.

    job = CopyJob(Side(old), Side(new), reason="moving to the new cluster")
    plan = job.plan_shards(16, journal=folder)
    results = engine.map(lambda shard: job.run_shard(shard, journal=folder), plan.shards)
    total = job.finish(plan, results)

Shards and results are plain data. The sum does not depend on the number of shards, and a shard can be repeated.
"""

from vectoracl.sharding.adopt_job import AdoptJob
from vectoracl.sharding.check_job import CheckJob
from vectoracl.sharding.copy_job import CopyJob
from vectoracl.sharding.journal import Journal
from vectoracl.sharding.load_job import AsyncLoadJob, LoadJob
from vectoracl.sharding.results import Census, Result, Total
from vectoracl.sharding.shards import Plan, Shard

__all__ = [
    "AdoptJob",
    "AsyncLoadJob",
    "Census",
    "CheckJob",
    "CopyJob",
    "Journal",
    "LoadJob",
    "Plan",
    "Result",
    "Shard",
    "Total",
]
