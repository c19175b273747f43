"""The adapter is certified by the kit, on the independent engine, with what the engine itself counted."""

import pytest

from vectoracl_conformance.running.runner import Ask, run


@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("needle")  # not run, and said so, where none can be started
def test_conformant():
    report = run(Ask("pinecone", timeout=1400))
    wrong = [
        (note.id, note.mode, note.outcome, note.reason)
        for note in report.judged.checks
        if note.outcome not in ("passed", "unsupported, verified")
    ]
    assert not wrong, report.problem
    assert report.judged.verdict == "conformant", report.problem
    assert set(report.judged.grades.values()) == {"passed"}, report.reasons
    assert report.judged.evidence == "E3"
    assert report.about["server"]["kind"] == "independent"  # never called Pinecone
