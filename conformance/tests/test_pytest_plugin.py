"""One line subscribes; whatever pytest is made to say, the kit's own notes decide."""

import pytest

from vectoracl_conformance.verdict import REQUIRED

pytest_plugins = ["pytester"]

FAST = """
import pytest
from vectoracl_conformance.checks import CHECKS
async def right(assertions):
    assertions.positive_control(True, "it works")
    assertions.assert_safe(True, "an attack", "nothing", "none")
async def wrong(assertions):
    assertions.assert_safe(False, "an attack", "7 rows", "foreign rows")
for one in CHECKS.values():
    object.__setattr__(one, "body", right)
"""
BREACH = 'object.__setattr__(CHECKS["W3"], "body", wrong)\n'
TESTS = """
from vectoracl_conformance.pytest_plugin import subscribe
TestMemory = subscribe("memory", decoys=60)
"""


def run(pytester, conftest="", *args, tests=TESTS):
    pytester.makeconftest(FAST + conftest)
    pytester.makepyfile(test_it=tests)
    plugin = ("-p", "vectoracl_conformance.pytest_plugin", "-p", "no:randomly", "-p", "no:cacheprovider")
    return pytester.runpytest_subprocess(*plugin, "-q", *args)


def said(result):
    return result.stdout.str()


def test_conformant(pytester):
    result = run(pytester)
    assert result.ret == 0, said(result)
    assert "conformant at E1" in said(result)
    result.assert_outcomes(passed=2 * len(REQUIRED))


def test_a_breach_tells_its_story_and_fails(pytester):
    result = run(pytester, BREACH)
    assert result.ret == 1
    for part in ("W3 sync: failed", "attack: an attack", "result: 7 rows", "not conformant"):
        assert part in said(result)


MARK = """
def pytest_collection_modifyitems(items):
    for item in items:
        if "W3" in item.name:
            item.add_marker({mark})
"""
REWRITE = """
@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    report.outcome, report.longrepr = "passed", None
"""
SKIP = """
@pytest.fixture(autouse=True)
def skipping(request):
    if "W3" in request.node.name:
        pytest.skip("no")
"""
EXIT = """
def pytest_sessionfinish(session):
    session.exitstatus = 0
"""
OVERRIDE = (
    TESTS
    + """
class TestOurs(TestMemory):
    def test_check(self):
        pass
del TestMemory
"""
)


@pytest.mark.parametrize(
    ("conftest", "args", "tests", "verdict"),
    [
        ("", ("-k", "not W3"), TESTS, "not measured"),
        ("", ("-k", "nothing_at_all"), TESTS, "not measured"),
        ("", ("--deselect", "test_it.py::TestMemory::test_check[R1-sync]"), TESTS, "not measured"),
        (MARK.format(mark='pytest.mark.skip("no")'), (), TESTS, "not measured"),
        (SKIP, (), TESTS, "not measured"),
        (BREACH + MARK.format(mark='pytest.mark.xfail(reason="known")'), (), TESTS, "not conformant"),
        (BREACH + REWRITE, (), TESTS, "not conformant"),
        (BREACH + REWRITE + EXIT, (), TESTS, "not conformant"),
        ("", (), OVERRIDE, "not measured"),
        (BREACH, ("-x",), TESTS, "not conformant"),
    ],
)
def test_pytest_cannot_be_talked_into_a_pass(pytester, conftest, args, tests, verdict):
    result = run(pytester, conftest, *args, tests=tests)
    assert result.ret != 0, said(result)
    assert said(result).count(verdict) >= 1


def test_inert_without_a_subscription(pytester):
    result = run(pytester, tests="def test_something(): pass\n")
    assert result.ret == 0
    assert "conformance" not in said(result)


def test_with_workers(pytester):
    result = run(pytester, "", "-n", "2")
    assert result.ret == 0, said(result)
    assert "conformant at E1" in said(result)
    result = run(pytester, BREACH, "-n", "2")
    assert result.ret == 1
    assert "not conformant" in said(result)
