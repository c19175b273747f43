"""What the framework itself costs: searches on a store whose reply is prepared, in CPU time of the calling thread."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import Timing, interleaved
from null_store import DIMENSION, null_acl

from vectoracl import testing
from vectoracl.audit.sinks import JsonlSink

BATCH = 200


def measure(rounds: int) -> dict[str, Timing]:
    """Return, in microseconds a search, the cost of each variant and of an A/A control."""
    query = np.random.default_rng(0).normal(size=DIMENSION).astype(np.float32)
    principal = testing.principal("bench", "acme")
    with tempfile.TemporaryDirectory() as folder:
        acls = {
            "one partition": null_acl(),
            "one partition (A/A control)": null_acl(),
            "two partitions": null_acl(("shared",)),
            "two partitions, port with concurrent requests": null_acl(("shared",), parallel=4),
            "one partition, records in a file": null_acl(sink=JsonlSink(Path(folder) / "audit.jsonl")),
        }
        timings = {}
        for clock_name, clock in (("", time.thread_time), (" (elapsed)", time.perf_counter)):
            calls: dict[str, Callable[[int], Any]] = {}
            for name, acl in acls.items():
                docs = acl.scoped(principal)

                def batch(_: int, search: Callable[..., Any] = docs.search) -> None:
                    for _ in range(BATCH):
                        search(query, 10)

                calls[name + clock_name] = batch
            timings |= interleaved(calls, rounds, clock=clock)
        for acl in acls.values():
            acl.close()
    return {name: Timing([one * 1e3 / BATCH for one in found.times]) for name, found in timings.items()}
