"""Date, versions and kind of host of a run, for its reports.

They contain no name of a host or a person, since reports are passed on.
"""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import distributions
from typing import Any

EVIDENCE = {
    "E1": "results, against an oracle, with hundreds of decoys nearer than every owned chunk",
    "E2v": "bytes and round trips next to none, some and many foreign rows",
    "E2c": "every reply of every connection, decoded: no canary of another tenant",
    "E2s": "every request of every connection: the tenant as an unconditional conjunct",
    "E3": "the engine's own counts: vectors scored, indexes searched, rows read",
}


def run_facts() -> dict[str, Any]:
    """Return the date (UTC), the versions of Python and the distributions, and the kind of host."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": {"python": platform.python_version(), **_versions()},
        "host": f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count() or '?'} processors",
    }


def _versions() -> dict[str, str]:
    names = {str(one.metadata["Name"]): one.version for one in distributions()}
    return {name: names[name] for name in sorted(names) if name == "vectoracl" or name.startswith("vectoracl-")}


def one_line(run: dict[str, Any]) -> str:
    """Return *run* as one line."""
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    return f"{run['date']}, {run['host']}; {versions}"
