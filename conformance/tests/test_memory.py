"""The memory adapter is conformant, in both modes, and whatever the seed."""

import pytest

from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.harness import load_harness
from vectoracl_conformance.running.run_checks import run_checks
from vectoracl_conformance.verdict import REQUIRED, judge


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 20260501])
def test_conformant(seed):
    notes = run_checks(load_harness("memory"), Options(name="memory", seed=seed, calls=True, size="quick"))
    judged = judge(notes)
    wrong = [(note.id, note.mode, note.outcome, note.reason) for note in judged.checks if note.outcome != "passed"]
    assert not wrong
    assert judged.verdict == "conformant"
    assert judged.evidence == "E1"
    assert judged.exit_code == 0
    assert len(notes) == 2 * len(REQUIRED)


def test_one_check_is_not_a_certificate():
    judged = judge(run_checks(load_harness("memory"), Options(name="memory", only=frozenset({"W3"}))))
    assert judged.verdict == "not measured"
    assert [note.outcome for note in judged.checks if note.id == "W3"] == ["passed", "passed"]
