"""Each way to pass without being right ends in "not conformant" or "not measured"."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vectoracl.adapter_api.loading import Installed
from vectoracl_conformance.generated.run import CallsReport
from vectoracl_conformance.running import runner
from vectoracl_conformance.running.runner import Ask, collected, run
from vectoracl_conformance.verdict import CALLS, MODES, Noted

HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, HERE, str(Path(HERE) / "wrong_adapter")])


@pytest.fixture(autouse=True)
def _calls(monkeypatch):
    """Let C1 to C4 pass at once: here it is about the runner, and not about the adapter."""

    def performed(setting, wanted, _known):
        notes = [Noted(id_, mode, "passed", controls=1, attacks=1) for id_ in CALLS if id_ in wanted for mode in MODES]
        return notes, CallsReport(setting.seed, setting.size)

    monkeypatch.setattr(runner, "run_generated", performed)


@pytest.mark.parametrize(
    ("harness", "verdict", "id_", "outcome"),
    [
        ("Emptied", "not measured", "R2", "not run"),
        ("Returned", "not measured", "W3", "not run"),
        ("Skipped", "not measured", "R1", "not run"),
        ("Xfailed", "not measured", "R1", "not run"),
        ("Deselected", "not measured", "S3", "not run"),
        ("Exits", "not measured", "W7", "not run"),
        ("Vanishes", "not measured", "W7", "not run"),
        ("Prints", "not measured", "R1", "not run"),
        ("CensusFrozen", "not conformant", "W1", "failed"),
        ("CensusOwn", "not conformant", None, None),
        ("CensusEmpty", "not conformant", None, None),
        ("Recognises", "not conformant", "R2", "failed"),
        ("NoServer", "not measured", "R1", "not run"),
        ("Crashes", "not measured", "R1", "not run"),
        ("PatchesTheKit", "not conformant", "X6", "failed"),
        ("Forges", "not conformant", "X6", "failed"),
        ("ForgesAll", "not measured", None, None),
        ("OffersAnother", "not measured", "X6", "abstained"),
        ("Orphans", "not measured", "R1", "not run"),
        ("Hooks", "not measured", "X6", "not run"),
    ],
)
def test_a_cheat_does_not_pass(harness, verdict, id_, outcome):
    report = run(Ask(f"cheating_harnesses:{harness}", seed=11))
    judged = report.judged
    assert judged.verdict == verdict, (report.problem, [(n.id, n.outcome, n.reason) for n in judged.checks][:6])
    assert report.exit_code == {"not conformant": 1, "not measured": 2}[verdict]
    if id_ is not None:
        assert {note.outcome for note in judged.checks if note.id == id_} == {outcome}
    assert judged.evidence is None


def test_a_boast_changes_no_evidence():
    report = run(Ask("cheating_harnesses:Boasting", seed=11))
    assert report.as_json()["server"] == {"kind": "real", "version": "Boast 1"}
    assert (report.judged.verdict, report.judged.evidence) == ("conformant", "E1")


def test_a_hanging_adapter_is_stopped():
    report = run(Ask("cheating_harnesses:Boasting", seed=11, timeout=0.5))
    assert report.judged.verdict == "not measured"
    assert "stopped after" in report.problem


def test_a_flood_is_neither_kept_nor_waited_for():
    report = run(Ask("cheating_harnesses:Floods", seed=11, timeout=3))
    assert report.judged.verdict == "not measured"
    assert "stopped after" in report.problem


def test_events_without_the_token_are_no_events():
    assert runner._event('{"event": "note", "token": "other"}', "mine") is None
    assert runner._event("not json", "mine") is None
    assert runner._event('["event"]', "mine") is None
    assert runner._event('{"event": "end", "token": "mine"}', "mine") == {"event": "end", "token": "mine"}


def test_a_process_that_ends_early_is_not_conformant_even_if_everything_was_told():
    from test_report import events

    assert collected(Ask("x"), 1, events(), "").judged.verdict == "conformant"
    assert collected(Ask("x"), 1, events(), "it ended early").judged.verdict == "not measured"


def test_a_mutant_that_lives_or_dies_by_the_wrong_check_is_a_failure():
    from test_report import events

    def told(killed_by):
        mutant = {
            "event": "mutant",
            "name": "m",
            "breaks": "b",
            "expected": "R1",
            "killed_by": killed_by,
            "reasons": [],
        }
        return collected(Ask("x"), 1, [*events(), mutant], "").exit_code

    assert told(["R2", "R1"]) == 0
    assert told([]) == 1
    assert told(["R2"]) == 1


@pytest.mark.parametrize(
    ("asked", "told", "offered", "refused"),
    [
        ("weaviate", "weaviate", "weaviate", False),
        ("weaviate-rbac", "weaviate", "weaviate", False),
        ("mine:harness", "mine", "mine", False),
        ("weaviate", "memory", "memory", True),
        ("weaviate", "weaviate", "memory", True),
        ("weaviate-rbac", "weaviate", "memory", True),
        ("mine:harness", "mine", "memory", True),
        ("memory", "pgvector", "pgvector", True),
    ],
)
def test_out_of_sight_the_adapter_is_measured_that_was_asked_for(monkeypatch, asked, told, offered, refused):
    class Service:
        metrics = ("cosine",)
        thousands = True

        def __init__(self, exchange, metrics, *, thousands):
            pass

        def fresh(self, needs):
            return SimpleNamespace(config={"adapter": offered}, settle=None, admit=None, close=lambda: None)

    class Environment:
        def close(self):
            pass

    monkeypatch.setattr(runner, "noted", lambda _place, mode, _options: Noted("X6", mode, "passed"))
    monkeypatch.setattr(runner, "StoreService", Service)
    monkeypatch.setattr(runner, "plain", lambda *_: Environment())
    there = [Installed(name, "d", "1", "m") for name in ("weaviate", "pgvector")]
    monkeypatch.setattr(runner, "installed", lambda: there)
    found = list(
        runner._isolated(
            {}, Ask(asked, only=["X6"]), 0, [{"event": "start", "name": told}], lambda _: "", lambda _: None
        )
    )
    assert [one.outcome for one in found] == ["abstained" if refused else "passed"] * 2
