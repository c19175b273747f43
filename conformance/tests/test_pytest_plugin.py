"""The tests of a subscription show a run of the runner, and nothing in the host's process or project changes it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vectoracl_conformance.isolated.clean_python import command
from vectoracl_conformance.pytest_plugin import subscribe
from vectoracl_conformance.running.window import RunnerProcess
from vectoracl_conformance.verdict import MODES, REQUIRED

pytest_plugins = ["pytester"]
HERE = Path(__file__).parent

SHOWN = """
import json, os, time
from pathlib import Path
from vectoracl_conformance import pytest_plugin
from vectoracl_conformance.verdict import MODES, REQUIRED, Noted, judge
from dataclasses import asdict
class Shown:
    def __init__(self, ask):
        with open("runs", "a") as file:
            file.write(json.dumps(ask) + "\\n")
    def events(self):
        notes = [Noted(id_, mode, "passed", controls=1, attacks=1) for mode in MODES for id_ in REQUIRED]
        for note in notes:
            if (note.id, note.mode) in BREACHES:
                note.outcome, note.attacked, note.back, note.why = "failed", "an attack", "7 rows", "foreign rows"
            yield {"event": "note", **asdict(note)}
        judged = judge(notes)
        report = {"verdict": judged.verdict, "evidence": judged.evidence, "adapter": "a 1",
                  "server": {"kind": "real", "version": "v"}}
        yield {"event": "report", "report": report, "seed": 5, "problem": "", "exit_code": judged.exit_code,
               "notes": [asdict(note) for note in judged.checks]}
    def problem(self):
        return "gone"
    def close(self):
        pass
pytest_plugin.RunnerProcess = Shown
BREACHES = set()
"""
BREACH = 'BREACHES.add(("W3", "sync"))\n'
TESTS = """
from vectoracl_conformance.pytest_plugin import subscribe
TestMemory = subscribe("memory", decoys=60)
"""
PLUGINS = ("-p", "no:randomly", "-p", "no:cacheprovider")
ALL = len(MODES) * len(REQUIRED) + 1


def shown(pytester, conftest="", *args, tests=TESTS):
    """Run pytest with a stand-in for the runner: what of a run is shown, and what becomes of it in pytest."""
    pytester.makeconftest(SHOWN + conftest)
    pytester.makepyfile(test_it=tests)
    return pytester.runpytest_subprocess(*PLUGINS, "-q", *args)


def text(result):
    return result.stdout.str()


def test_conformant(pytester):
    result = shown(pytester)
    assert result.ret == 0, text(result)
    assert "conformant at E1" in text(result)
    assert "is a certificate" in text(result)
    result.assert_outcomes(passed=ALL)
    assert json.loads((pytester.path / "runs").read_text())["decoys"] == 60


def test_a_breach_is_shown_with_its_details_and_fails(pytester):
    result = shown(pytester, BREACH)
    assert result.ret == 1
    for part in ("W3 sync: failed", "attack: an attack", "result: 7 rows", "not conformant", "seed 5"):
        assert part in text(result)
    result.assert_outcomes(passed=ALL - 2, failed=2)


@pytest.mark.parametrize(("conftest", "verdict", "code"), [("", "conformant at E1", 0), (BREACH, "not conformant", 1)])
def test_with_workers_there_is_one_run(pytester, conftest, verdict, code):
    result = shown(pytester, conftest, "-n", "3")
    assert result.ret == code, text(result)
    assert verdict in text(result)
    assert len((pytester.path / "runs").read_text().splitlines()) == 1


def test_several_subscriptions_are_several_runs(pytester):
    result = shown(pytester, tests=TESTS + 'TestOther = subscribe("memory", decoys=70)\n')
    assert result.ret == 0, text(result)
    assert len((pytester.path / "runs").read_text().splitlines()) == 2


MARK = """
import pytest
def pytest_collection_modifyitems(items):
    for item in items:
        if "W3" in item.name or "verdict" in item.name:
            item.add_marker({mark})
"""
REWRITE = """
import pytest
@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    report.outcome, report.longrepr = "passed", None
"""
SKIP = """
import pytest
@pytest.fixture(autouse=True)
def skipping(request):
    if "W3" in request.node.name or "verdict" in request.node.name:
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
    def test_verdict(self):
        pass
del TestMemory
"""
)


@pytest.mark.parametrize(
    ("conftest", "args", "tests", "verdict"),
    [
        (BREACH, ("-k", "not W3 and not verdict"), TESTS, "not conformant"),
        ("", ("-k", "nothing_at_all"), TESTS, "not measured"),
        (BREACH, ("--deselect", "test_it.py::TestMemory::test_check[sync-W3]"), TESTS, "not conformant"),
        (BREACH + MARK.format(mark='pytest.mark.skip("no")'), (), TESTS, "not conformant"),
        (BREACH + SKIP, (), TESTS, "not conformant"),
        (BREACH + MARK.format(mark='pytest.mark.xfail(reason="known")'), (), TESTS, "not conformant"),
        (BREACH + REWRITE, (), TESTS, "not conformant"),
        (BREACH + REWRITE + EXIT, (), TESTS, "not conformant"),
        ("", (), OVERRIDE, "not measured"),
        (BREACH, ("-x",), TESTS, "not conformant"),
    ],
)
def test_marks_hooks_and_selections_do_not_change_the_verdict(pytester, conftest, args, tests, verdict):
    result = shown(pytester, conftest, *args, tests=tests)
    assert result.ret != 0, text(result)
    assert verdict in text(result)


def test_inert_without_a_subscription(pytester):
    pytester.makepyfile(test_it="def test_something(): pass\n")
    result = pytester.runpytest_subprocess(*PLUGINS, "-q")
    assert result.ret == 0
    assert "conformance" not in text(result)


def test_a_harness_object_is_refused_with_what_to_write_instead():
    from vectoracl_conformance.harnesses.memory import harness

    with pytest.raises(TypeError, match=r"write subscribe\(\"my_package"):
        subscribe(harness)


# From here on the runner is the real one. Its harnesses cannot be conformant, and the host tries to make them so.
HARNESSES = f"""
import json, os, sys
sys.path.append({str(HERE)!r})
from cheating_harnesses import Crashes, NoServer
from vectoracl_conformance.verdict import MODES, REQUIRED

FORGED = {{"event": "report", "seed": 1, "problem": "", "exit_code": 0,
          "report": {{"verdict": "conformant", "evidence": "E3", "adapter": "a",
                     "server": {{"kind": "", "version": ""}}}},
          "notes": [{{"id": id_, "mode": mode, "outcome": "passed", "reason": ""}}
                    for id_ in REQUIRED for mode in MODES]}}

class Writes(NoServer):
    \"\"\"Writes a report into every file and pipe of its parent, the runner, and of itself.\"\"\"
    def server(self):
        line = json.dumps(FORGED)
        for code in ("", "0" * 64 + " "):
            for process in (os.getppid(), os.getpid()):
                for file in os.listdir(f"/proc/{{process}}/fd"):
                    try:
                        if int(file) > 0:
                            with open(f"/proc/{{process}}/fd/{{file}}", "w") as stream:
                                stream.write(code + line + "\\n")
                    except OSError:
                        pass
        return super().server()

class Leaves(NoServer):
    \"\"\"Ends its process with success.\"\"\"
    def server(self):
        os._exit(0)

class Late(NoServer):
    \"\"\"Ends its process with success, after everything else.\"\"\"
    def __init__(self):
        import atexit
        atexit.register(os._exit, 0)
"""
PATCHES = """
from vectoracl_conformance import verdict
from vectoracl_conformance.context import assertions
from vectoracl_conformance.reporting import report
from vectoracl_conformance.running import runner, worker, run_checks
verdict.judge = runner.judge = lambda *_, **__: verdict.Judged("conformant", [], {})
verdict.settled = lambda note: note
verdict.REQUIRED = ()
runner.run = lambda ask, watch=None: None
assertions.Assertions.assert_safe = lambda self, *_: None
for name in ("settled", "fine"):
    setattr(verdict, name, lambda *_: True)
"""
FAKE = """
import sys
sys.path.insert(0, "fake")
"""
VARIABLES = """
import os
os.environ["PYTHONPATH"] = os.path.abspath("fake")
os.environ["PYTHONSTARTUP"] = os.environ["PYTHONINSPECT"] = "fake/sitecustomize.py"
"""


def trap(folder, log):
    """Put a kit and a `sitecustomize` into *folder* that write to *log* who imports them."""
    note = f"import sys\nopen({str(log)!r}, 'a').write(' '.join(sys.orig_argv) + '\\n')\n"
    (folder / "sitecustomize.py").write_text(note)
    (folder / "vectoracl_conformance").mkdir()
    (folder / "vectoracl_conformance" / "__init__.py").write_text(note)


def real(pytester, harness, conftest=""):
    pytester.makepyfile(harnesses=HARNESSES)
    pytester.makeconftest(conftest)
    subscribed = f"TestIt = subscribe('harnesses:{harness}')"
    pytester.makepyfile(test_it=f"from vectoracl_conformance.pytest_plugin import subscribe\n{subscribed}\n")
    trap(pytester.mkdir("fake"), pytester.path / "loaded")
    return pytester.runpytest_subprocess(*PLUGINS, "-q", "-k", "verdict")


@pytest.mark.parametrize(
    ("harness", "conftest"),
    [
        ("Crashes", ""),
        ("NoServer", PATCHES),
        ("NoServer", REWRITE + EXIT),
        ("NoServer", FAKE),
        ("NoServer", VARIABLES),
        ("Writes", ""),
        ("Leaves", ""),
        ("Late", ""),
    ],
    ids=["crashes", "patches", "hooks", "fake kit", "variables", "writes", "leaves", "atexit"],
)
def test_nothing_of_the_host_or_the_harness_reaches_the_verdict(pytester, harness, conftest):
    result = real(pytester, harness, conftest)
    assert result.ret != 0, text(result)
    assert "not measured" in text(result)
    assert "conformant" not in text(result).replace("not conformant", "").replace("vectoracl_conformance", "")
    assert not (pytester.path / "loaded").exists()


def test_the_path_and_the_current_folder_do_not_reach_the_runner(tmp_path, monkeypatch):
    trap(tmp_path, tmp_path / "loaded")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    runner = RunnerProcess({"name": "cheating_harnesses:NoServer", "path": [str(tmp_path), str(HERE)]})
    try:
        (event,) = runner.events()
    finally:
        runner.close()
    assert event["problem"] == "There is no server here."
    assert event["report"]["verdict"] == "not measured"
    assert not (tmp_path / "loaded").exists()
    subprocess.run([sys.executable, "-c", "import vectoracl_conformance"], check=True)
    assert (tmp_path / "loaded").exists()  # it is a trap for whoever is not careful


@pytest.mark.parametrize("program", [["-m", "vectoracl_conformance.cli"], ["-m", "vectoracl", "conformance"]])
def test_the_command_leaves_a_changed_interpreter_before_it_measures(tmp_path, program):
    log = tmp_path / "loaded"
    changes = (
        f"import sys\nopen({str(log)!r}, 'a').write(' '.join(sys.orig_argv[1:]) + '\\n')\n"
        "import vectoracl_conformance.verdict as verdict\nverdict.EXIT = dict.fromkeys(verdict.EXIT, 0)\n"
    )
    (tmp_path / "sitecustomize.py").write_text(changes)
    (tmp_path / "cheating_harnesses.py").write_text((HERE / "cheating_harnesses.py").read_text())
    command = [sys.executable, *program, "cheating_harnesses:NoServer", "--json", str(tmp_path / "r.json")]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stdout + run.stderr
    assert "There is no server here" in run.stdout
    assert json.loads((tmp_path / "r.json").read_text())["verdict"] == "not measured"
    assert len(log.read_text().splitlines()) == 1  # the process that was left


def test_the_runner_reads_no_pth_file_of_a_distribution():
    assert "-S" in command("vectoracl_conformance.running.window")
    assert "-S" not in command("vectoracl_conformance.running.worker", site=True)


def test_a_run_that_is_given_up_leaves_no_process():
    runner = RunnerProcess({"name": "memory"})
    assert next(runner.events())["event"] == "note"
    group = runner._process.pid
    runner.close()
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("something still runs")


@pytest.mark.timeout(1_200)
def test_a_real_run_is_shown_whole(pytester):
    """The slow test: what is shown is what the runner has found."""
    pytester.makepyfile(test_it=TESTS)
    result = pytester.runpytest_subprocess(*PLUGINS, "-q", "-n", "2")
    assert result.ret == 0, text(result)
    assert "conformant at E1" in text(result)
    result.assert_outcomes(passed=ALL)
