"""Adapters that are odd but right pass."""

import pytest

from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.harnesses.unusual import ODD
from vectoracl_conformance.running.run_checks import run_checks
from vectoracl_conformance.verdict import CALLS, judge


@pytest.mark.parametrize("name", sorted(ODD))
def test_passes(name):
    judged = judge(run_checks(ODD[name], Options(name=name, seed=17), variant=ODD[name].variant), left_out=CALLS)
    wrong = [
        (note.id, note.mode, note.outcome, note.reason)
        for note in judged.checks
        if note.outcome not in ("passed", "unsupported, verified") and note.id not in CALLS
    ]
    assert not wrong
    assert judged.verdict == "nothing certified"  # without the generated calls
