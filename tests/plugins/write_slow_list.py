"""Write `slow.txt` from JUnit reports: `python write_slow_list.py SECONDS REPORT.xml…`.

A test is listed where all of its cases together took more than SECONDS, set-up included. The reports are of runs with
`-o junit_duration_report=total` and `-o junit_family=xunit1`, which names the file of each case.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

HEAD = """\
# Tests whose cases take long together; `uv run nox` leaves them out and `nox -s slow` runs them.
# Written by `nox -s durations`: seconds, test. A line may be added or taken away by hand.
"""


def main() -> None:
    limit = float(sys.argv[1])
    spent: Counter[str] = Counter()
    for report in sys.argv[2:]:
        for case in ET.parse(report).iter("testcase"):
            spent[f"{case.get('file')}::{(case.get('name') or '').partition('[')[0]}"] += float(case.get("time") or 0)
    slow = sorted((seconds, test) for test, seconds in spent.items() if seconds > limit)
    lines = [f"{seconds:6.1f} {test}" for seconds, test in reversed(slow)]
    Path(__file__).with_name("slow.txt").write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    kept = sum(spent.values()) - sum(seconds for seconds, _ in slow)
    sys.stdout.write(f"{len(slow)} slow tests of {len(spent)}; the others take {kept:.0f} s, one after the other\n")


if __name__ == "__main__":
    main()
