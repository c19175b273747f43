"""The kit's checks with `lexical = true`, over the stub's engine of both kinds of index: no certificate of anything."""

import pytest

from vectoracl_conformance.engine import Options, run_checks, run_mutant
from vectoracl_conformance.mutants.words import WORDS
from vectoracl_conformance.verdict import judge

from pinecone_support.worded import MUTANTS, WordedHarness


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["vector", "document"])
def test_the_checks_pass(kind):
    judged = judge(run_checks(WordedHarness(kind), Options(name="stub", seed=17, decoys=100)))
    wrong = [
        (note.id, note.mode, note.outcome, note.reason)
        for note in judged.checks
        if note.outcome not in ("passed", "unsupported, verified")
    ]
    assert not wrong
    assert {note.outcome for note in judged.checks if note.id == "R13"} == {"passed"}


@pytest.mark.parametrize("kind", ["vector", "document"])
@pytest.mark.parametrize("mutant", [*MUTANTS, *WORDS], ids=lambda one: one.name)
def test_a_broken_leg_dies_by_its_check(kind, mutant):
    kill = run_mutant(WordedHarness(kind), mutant, Options(seed=3, decoys=60, only=frozenset({mutant.expected})))
    assert kill.right, (kill.expected, kill.died_by, kill.reasons)
