"""The split of the tests by their time: every test is in exactly one part, and the list names tests that exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("slow_tests", ROOT / "tests" / "plugins" / "slow_tests.py")
assert SPEC is not None
assert SPEC.loader is not None
slow_tests = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(slow_tests)

TEST = """
import pytest

@pytest.mark.parametrize("case", [1, 2])
def test_one(case): pass
def test_one_more(): pass
class TestThree:
    def test_four(self): pass
"""


def test_the_parts_are_disjoint_and_whole(pytester, monkeypatch):
    path = pytester.makepyfile(test_listed=TEST)
    one, four = f"{path.name}::test_one", f"{path.name}::TestThree::test_four"
    lists = {"slow": frozenset({one, four}), "long": frozenset({four})}
    monkeypatch.setattr(slow_tests, "listed_tests", lists.__getitem__)
    for speed, passed in {"all": 4, "quick": 1, "slow": 2, "long": 1}.items():
        run = pytester.inline_run("-p", "no:randomly", f"--speed={speed}", plugins=[slow_tests])
        run.assertoutcome(passed=passed)
    lists["slow"] = frozenset({path.name})
    lists["long"] |= {f"{one}[2]"}
    for speed, passed in {"slow": 2, "long": 2}.items():
        run = pytester.inline_run("-p", "no:randomly", f"--speed={speed}", plugins=[slow_tests])
        run.assertoutcome(passed=passed)


def test_a_listed_case_that_is_gone_is_an_error():
    there = {"a.py::test_one[1]", "a.py::test_one[2]", "a.py::test_two"}
    assert slow_tests.unknown_cases(there, frozenset({"a.py::test_one[1]", "a.py", "b.py::test_one[7]"})) == set()
    assert slow_tests.unknown_cases(there, frozenset({"a.py::test_one[3]"})) == {"a.py::test_one[3]"}


@pytest.mark.parametrize("part", slow_tests.PARTS)
def test_listed_tests_exist(part):
    for test in slow_tests.listed_tests(part):
        path, *names = test.split("::")
        assert (ROOT / path).is_file(), test
        text = (ROOT / path).read_text(encoding="utf-8")
        for name in (one.partition("[")[0] for one in names):
            assert re.search(rf"^\s*(async def|def|class) {re.escape(name)}\b", text, re.MULTILINE), test
