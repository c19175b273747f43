"""Every check has a witness, and the quick ones die here; `--mutants` runs them all."""

import pytest

from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.harness import load_harness
from vectoracl_conformance.mutants import GENERAL
from vectoracl_conformance.running.run_checks import run_mutant
from vectoracl_conformance.verdict import REQUIRED


def test_every_check_has_a_witness():
    assert {mutant.expected for mutant in GENERAL} == set(REQUIRED)
    assert len({mutant.name for mutant in GENERAL}) == len(GENERAL)


@pytest.mark.parametrize("mutant", [one for one in GENERAL if "weakenings" not in one.needs], ids=lambda one: one.name)
def test_dies_by_its_check(mutant):
    kill = run_mutant(load_harness("memory"), mutant, Options(seed=3, decoys=600, only=frozenset({mutant.expected})))
    assert kill.right, (kill.expected, kill.killed_by, kill.reasons)
    assert "AttributeError" not in str(kill.reasons)  # a mutant has to run: this error is a fault of the mutant's code
