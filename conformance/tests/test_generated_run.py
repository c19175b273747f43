"""C1 to C4 on the memory store: a right adapter passes, and a broken one is shown by a program without the kit."""

import io
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from html import escape
from pathlib import Path

import pytest
from rich.console import Console

from vectoracl_conformance.generated.bench import memory_capabilities
from vectoracl_conformance.generated.pair import Difference
from vectoracl_conformance.generated.run import Setting, run_generated
from vectoracl_conformance.generated.script import script
from vectoracl_conformance.generated.world import build_world
from vectoracl_conformance.harness import load_harness
from vectoracl_conformance.isolated.interpreter import plain
from vectoracl_conformance.mutants.generated_calls import altered
from vectoracl_conformance.reporting.report import html, print_table
from vectoracl_conformance.running.runner import Ask, collected

pytestmark = pytest.mark.timeout(900)

UNSCOPED_COUNT = """
    def count(self, operation):
        return self._inner.count(replace(operation, scope=ALWAYS))
"""
HARDLY_ANYTHING = """
    def search(self, operation):
        found = yield from self._inner.search(operation)
        if operation.exact or operation.group_by:
            return found
        return found._replace(hits=found.hits[: len(found.hits) // 4], complete=False, shortfall="approximate")
"""
PRINTS = """
    def scan(self, operation):
        rows = yield from self._inner.scan(operation)
        for hit in rows.hits:
            print(hit.text)
        return rows
"""
AFTER_FAILURE = """
    lost = False

    def count(self, operation):
        scope = ALWAYS if self.lost else operation.scope
        self.lost = False
        try:
            return (yield from self._inner.count(replace(operation, scope=scope)))
        except Exception:
            self.lost = True
            raise
"""


@pytest.fixture(scope="module")
def environment():
    made = plain("", [path for path in sys.path if path])
    yield made
    made.close()


def run(environment, *ids, body="", size="quick", seed=3):
    source = altered(body) if body else ""
    setting = Setting(load_harness("memory"), seed, size, environment, source)
    return run_generated(setting, frozenset(ids))


def test_the_memory_adapter_passes(environment):
    notes, report = run(environment, "C1", "C2", "C3")
    assert [(note.id, note.mode, note.outcome, note.reason) for note in notes if note.outcome != "passed"] == []
    assert len(notes) == 6
    assert report.calls > 300
    assert report.census == "in-process"


def test_an_index_that_is_not_complete_has_to_find_something(environment):
    notes, _ = run(environment, "C1", body=HARDLY_ANYTHING, seed=8)  # its searches have more than 700 hits
    assert {(note.outcome, note.attacked, note.script) for note in notes} == {("failed", "all searches together", "")}


def test_a_slow_store_has_no_large_tenant_and_the_report_says_so(environment):
    harness = load_harness("memory")
    harness.thousands = False
    seen = []
    setting = Setting(harness, 3, "quick", environment, progress=seen.append)
    notes, report = run_generated(setting, frozenset({"C4"}))
    assert seen[0] == "C4: its calls are drawn"
    # Drawing that takes longer than a second, as on a busy machine, is reported in between.
    assert next(one for one in seen if "drawn" not in one) == f"C4: 0 of {report.calls:,} calls"
    assert {note.outcome for note in notes} == {"passed"}
    assert "too slow" in report.left_out["tenants of thousands of rows, reads of 64 partitions"]
    world = build_world(3, memory_capabilities(), size="full", metrics=("cosine",), thousands=False)
    assert max(map(len, world.tenants.values())) == 303


def printed(notes, folder, monkeypatch):
    """Return the program that the report of *notes* names, after a look at its other forms."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    events = [{"event": "note", **asdict(note)} for note in notes]
    report = collected(Ask("memory", only=[notes[0].id]), 3, events, "")
    stream = io.StringIO()
    print_table(report, Console(file=stream, width=200))
    (path,) = set(re.findall(r"without the kit: (\S+)", stream.getvalue()))
    text = Path(path).read_text(encoding="utf-8")
    assert text in [one["script"] for one in report.as_json()["checks"]]
    assert f"<pre><code>{escape(text)}</code></pre>" in html(report)
    return path


@pytest.mark.parametrize(("id_", "body"), [("C1", UNSCOPED_COUNT), ("C3", AFTER_FAILURE)])
def test_a_fault_is_shown_by_a_program_without_the_kit(environment, tmp_path, monkeypatch, id_, body):
    notes, _ = run(environment, id_, body=body)
    failed = [note for note in notes if note.outcome == "failed"]
    assert failed
    assert "conformance" not in failed[0].script
    program = printed(notes, tmp_path, monkeypatch)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120, check=True)
    got, right = (line.split(":", 1)[1].strip() for line in done.stdout.splitlines() if line[:4] in ("got:", "righ"))
    assert got != right, done.stdout


def test_a_program_shows_no_secret():
    store = {"adapter": "x", "dsn": "postgresql://me:hush@h/d", "api_key": "hush", "conninfo": "user=me password=hush"}
    shown = script({"version": 1, "stores": {"main": store}}, {}, {}, (), Difference("sync", None, "it differs"))
    assert "hush" not in shown
    assert "postgresql://me:...@h/d" in shown


@pytest.mark.parametrize("id_", ["C1", "C4"])
def test_what_is_printed_is_found(environment, id_):
    notes, _ = run(environment, id_, body=PRINTS)
    assert {note.outcome for note in notes} == {"failed"}
    assert "it shows a text" in notes[0].reason
