"""C1 to C4 on the memory store: a right adapter passes, and a broken one is shown by a program without the kit."""

import subprocess
import sys

import pytest

from vectoracl_conformance.generated.run import Setting, run_generated
from vectoracl_conformance.harness import load_harness
from vectoracl_conformance.isolated.interpreter import plain

pytestmark = pytest.mark.timeout(900)

BROKEN = """
from dataclasses import replace
from vectoracl.filters.predicate import ALWAYS

class Broken:
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

{body}

def dress(opened):
    return replace(opened, adapter=Broken(opened.adapter))
"""
UNSCOPED_COUNT = """
    def count(self, operation):
        return self._inner.count(replace(operation, scope=ALWAYS))
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
    source = BROKEN.format(body=body) if body else ""
    setting = Setting(load_harness("memory"), seed, size, environment, source)
    return run_generated(setting, frozenset(ids))


def test_the_memory_adapter_passes(environment):
    notes, report = run(environment, "C1", "C2", "C3")
    assert [(note.id, note.mode, note.outcome, note.reason) for note in notes if note.outcome != "passed"] == []
    assert len(notes) == 6
    assert report.calls > 300
    assert report.census == "in-process"


@pytest.mark.parametrize(("id_", "body"), [("C1", UNSCOPED_COUNT), ("C3", AFTER_FAILURE)])
def test_a_fault_is_shown_by_a_program_without_the_kit(environment, tmp_path, id_, body):
    notes, _ = run(environment, id_, body=body)
    failed = [note for note in notes if note.outcome == "failed"]
    assert failed
    program = tmp_path / "fault.py"
    program.write_text(failed[0].script, encoding="utf-8")
    assert "conformance" not in failed[0].script
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120, check=True)
    got, right = (line.split(":", 1)[1].strip() for line in done.stdout.splitlines() if line[:4] in ("got:", "righ"))
    assert got != right, done.stdout


def test_what_is_printed_is_found(environment):
    notes, _ = run(environment, "C1", body=PRINTS)
    assert {note.outcome for note in notes} == {"failed"}
    assert "it shows a text" in notes[0].reason
