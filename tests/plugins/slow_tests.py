"""A pytest plugin that splits the tests by their measured time: `pytest -p slow_tests --speed quick`.

`slow.txt` lists the tests whose cases take long together, and files of such. `uv run nox` leaves them out, `nox -s
slow` and `.ci/run` run them; a test that is not listed is quick, so that no test is in neither part. `nox -s durations`
measures and writes the list.
"""

from __future__ import annotations

from pathlib import Path

import pytest

LIST = Path(__file__).with_name("slow.txt")


def slow_tests() -> frozenset[str]:
    """Return the listed tests as `path::name`, without the parameters of a case, and the listed files."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return frozenset(line.split()[-1] for line in lines if line.strip() and not line.startswith("#"))


def is_listed(nodeid: str, listed: frozenset[str]) -> bool:
    """Tell whether the test that a case belongs to, or its file, is *listed*."""
    return nodeid.partition("[")[0] in listed or nodeid.partition("::")[0] in listed


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--speed`."""
    parser.addoption(
        "--speed", choices=("all", "quick", "slow"), default="all", help="which tests to run, by their time"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of the other part."""
    speed = config.getoption("--speed")
    if speed == "all":
        return
    listed = slow_tests()
    kept = [item for item in items if is_listed(item.nodeid, listed) == (speed == "slow")]
    left = [item for item in items if is_listed(item.nodeid, listed) != (speed == "slow")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept
