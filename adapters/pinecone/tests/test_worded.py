"""The kit's checks with `lexical = true`, over the stub's engine of both kinds of index: no certificate of anything."""

import pytest

from vectoracl_conformance.context.corpus import DIMENSION
from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.mutants import GENERAL
from vectoracl_conformance.mutants.lexical import WORDS
from vectoracl_conformance.running.run_checks import run_checks, run_mutant
from vectoracl_conformance.verdict import CALLS, judge
from vectoracl_pinecone.conformance import harness as conformance
from vectoracl_pinecone.conformance.harness import PineconeHarness

from pinecone_support.stub import KEY, stub
from pinecone_support.worded import MUTANTS, Open, WordedHarness

IN_WORDS = {one.name for one in WORDS}
BROKEN = [*MUTANTS, *(one for one in GENERAL if one.name in IN_WORDS)]


@pytest.mark.timeout(600)
def test_the_checks_pass():
    options = Options(name="stub", seed=17, decoys=100)
    judged = judge(run_checks(WordedHarness("document"), options), left_out=CALLS)
    wrong = [
        (note.id, note.mode, note.outcome, note.reason)
        for note in judged.checks
        if note.outcome not in ("passed", "unsupported, verified") and note.id not in CALLS
    ]
    assert not wrong
    assert {note.outcome for note in judged.checks if note.id == "R13"} == {"passed"}


@pytest.mark.timeout(600)
def test_the_checks_of_words_pass_on_the_other_kind_of_index():
    """The other checks run on it without words, where the adapter is certified."""
    of_words = frozenset({"R13", *(one.expected for one in BROKEN)})
    noted = run_checks(WordedHarness("vector"), Options(name="stub", seed=17, decoys=100, only=of_words))
    assert {(note.id, note.outcome) for note in noted} == {(id_, "passed") for id_ in of_words}


@pytest.mark.parametrize("kind", ["vector", "document"])
@pytest.mark.parametrize("mutant", BROKEN, ids=lambda one: one.name)
def test_a_broken_leg_dies_by_its_check(kind, mutant):
    kill = run_mutant(WordedHarness(kind), mutant, Options(seed=3, decoys=60, only=frozenset({mutant.expected})))
    assert kill.right, (kill.expected, kill.killed_by, kill.reasons)


def test_a_named_index_is_certified_with_words_where_the_environment_says_so(monkeypatch):
    monkeypatch.setattr(conformance, "_PAUSE", 0.01)  # the stub is never behind
    with stub(of=Open, metric="dotproduct", dimension=DIMENSION) as server:
        for name, value in {"HOST": server.host, "API_KEY": KEY, "KIND": "independent", "LEXICAL": "1"}.items():
            monkeypatch.setenv(f"VECTORACL_PINECONE_{name}", value)
        harness = PineconeHarness()
        noted = run_checks(harness, Options(seed=5, decoys=60, only=frozenset({"R13", "R1", "X2"})))
        harness.close()
        outcomes = {(note.id, note.mode): note.outcome for note in noted}
        assert outcomes["R13", "sync"] == outcomes["R13", "async"] == "passed", noted
        assert not any(server.spaces.values())  # its namespaces are gone again
