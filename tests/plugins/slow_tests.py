"""A pytest plugin that splits the tests by their measured time: `pytest -p slow_tests --speed quick`.

`slow.txt` lists the tests whose cases take long together, and files of such. `uv run nox` leaves them out, `nox -s
slow` and `.ci/run` run them. `long.txt` lists those that take too long for `.ci/run` as well; `nox -s long` runs
them. A list may also name single cases. A test that is not listed is quick, so that each test is in one part. `nox -s
durations` measures and writes `slow.txt`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PARTS = ("slow", "long")
_SECONDS = re.compile(r"^\s*[\d.]+\s+")


def listed_tests(part: str) -> frozenset[str]:
    """Return what "slow" or "long" lists: tests as `path::name`, cases as `path::name[parameters]`, and files."""
    lines = Path(__file__).with_name(f"{part}.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(_SECONDS.sub("", line) for line in lines if line.strip() and not line.startswith("#"))


def part_of(nodeid: str, lists: dict[str, frozenset[str]]) -> str:
    """Return the part that a case belongs to; a test that is in both lists is a long one."""
    names = {nodeid, nodeid.partition("[")[0], nodeid.partition("::")[0]}
    return next((part for part in reversed(PARTS) if names & lists[part]), "quick")


def unknown_cases(nodeids: set[str], listed: frozenset[str]) -> set[str]:
    """Return the listed cases that are not among *nodeids*, although other cases of their tests are."""
    tests = {one.partition("[")[0] for one in nodeids}
    return {one for one in listed if "[" in one and one.partition("[")[0] in tests} - nodeids


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--speed`."""
    choices = ("all", "quick", *PARTS)
    parser.addoption("--speed", choices=choices, default="all", help="which tests to run, by their time")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of the other parts."""
    speed = config.getoption("--speed")
    if speed == "all":
        return
    lists = {part: listed_tests(part) for part in PARTS}
    unknown = unknown_cases({item.nodeid for item in items}, frozenset().union(*lists.values()))
    if unknown:
        raise pytest.UsageError(f"The lists of tests name cases that are not there any more: {sorted(unknown)}")
    kept = [item for item in items if part_of(item.nodeid, lists) == speed]
    left = [item for item in items if part_of(item.nodeid, lists) != speed]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept
