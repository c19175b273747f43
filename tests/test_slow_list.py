"""The split of the tests by their time: every test is in exactly one part, and the list names tests that exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

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
    listed = frozenset({f"{path.name}::test_one", f"{path.name}::TestThree::test_four"})
    monkeypatch.setattr(slow_tests, "slow_tests", lambda: listed)
    for speed, passed in {"all": 4, "quick": 1, "slow": 3}.items():
        run = pytester.inline_run("-p", "no:randomly", f"--speed={speed}", plugins=[slow_tests])
        run.assertoutcome(passed=passed)
    monkeypatch.setattr(slow_tests, "slow_tests", lambda: frozenset({path.name}))
    pytester.inline_run("-p", "no:randomly", "--speed=slow", plugins=[slow_tests]).assertoutcome(passed=4)


def test_listed_tests_exist():
    for test in slow_tests.slow_tests():
        path, *names = test.split("::")
        assert (ROOT / path).is_file(), test
        text = (ROOT / path).read_text(encoding="utf-8")
        for name in names:
            assert re.search(rf"^\s*(async def|def|class) {re.escape(name)}\b", text, re.MULTILINE), test
