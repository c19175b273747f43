"""`vectoracl check --data`: whether every stored row is one that its store would take today."""

from __future__ import annotations

from pathlib import Path

from vectoracl.cli import shards
from vectoracl.cli.common import CLEAN, FINDINGS, Steps, done, opened, out, person, plain, print_json
from vectoracl.sharding import CheckJob, Total


def check_data(config: Path, store: str | None, *, shard: str | None, journal: Path | None, as_json: bool) -> None:
    """Check the rows of *store*, or of all stores; with *shard* only a part of them."""
    kept = shards.journal_for(shard, journal)
    reason = f"vectoracl check --data, run by {person()} at the command line"
    with opened(config, store, contact=False) as acl, Steps(quiet=as_json) as steps:
        job = CheckJob(acl, reason=reason, stores=None if store is None else [store])
        if shard is not None and kept is not None:
            ran = shards.run(job, shard, kept, steps.report)
        else:
            plan = job.plan_shards(1, progress=steps.report)
            total = job.finish(plan, [job.run_shard(one, progress=steps.report) for one in plan.shards])
    if shard is not None:
        shards.show(ran, as_json=as_json)
    _show(total, plan.notes, as_json=as_json)


def _show(total: Total, notes: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        print_json({**shards.total_json(total), "notes": [plain(note) for note in notes]})
    else:
        for note in notes:
            out().print(f"note: {plain(note)}", soft_wrap=True, markup=False)
        shards.show_faults(total.census)
        shards.show_total(total)
    done(CLEAN if total.good else FINDINGS)
