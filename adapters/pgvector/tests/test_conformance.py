"""The adapter is certified by the kit, against a real server, with what the engine itself counted."""

import pytest

from vectoracl_conformance.running.runner import Ask, run


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("server")  # not run, and said so, where no server can be started
def test_conformant():
    report = run(Ask("pgvector", timeout=800))
    wrong = [
        (note.id, note.mode, note.outcome, note.reason)
        for note in report.judged.checks
        if note.outcome not in ("passed", "unsupported, verified")
    ]
    assert not wrong, report.problem
    assert report.judged.verdict == "conformant", report.problem
    assert set(report.judged.grades.values()) == {"passed"}, report.reasons
    assert report.judged.evidence == "E3"
    assert report.about["server"]["kind"] == "real"
