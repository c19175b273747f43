"""Mutants in processes of their own: one that ends or hangs is not taken for dead, and the others go on."""

import sys
from pathlib import Path

import pytest

from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.harness import load_harness
from vectoracl_conformance.running import runner
from vectoracl_conformance.running.kill_mutant import kill, known
from vectoracl_conformance.running.runner import Ask, collected, run
from vectoracl_conformance.running.worker_pool import Crew

HERE = str(Path(__file__).parent)
NAMES = ["exits", "hangs", "open", "right"]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, HERE])


def crew(timeout):
    request = {
        "token": "t",
        "name": "deadly_harness:Deadly",
        "only": [],
        "decoys": 60,
        "seed": 1,
        "keep": False,
        "known": {},
        "mutants": "quick",
        "serve": True,
        "timing": False,
        "python": "",
        "limit": 120.0,
        "elsewhere": [],
        "only_mutants": NAMES,
        "path": [path for path in sys.path if path],
    }
    return Crew(request, runner._start, runner._event, timeout=timeout)


@pytest.mark.parametrize("jobs", [1, 3])
def test_what_ends_or_hangs_lives_and_the_others_go_on(jobs):
    seen = []
    told = [{"event": "mutant", "name": name, "breaks": "b", "expected": "R1"} for name in NAMES]
    events = crew(60).run(told, jobs, seen.append)
    assert [(one["name"], one["killed_by"][:1]) for one in events] == [
        ("exits", []),
        ("hangs", []),
        ("open", ["R1"]),
        ("right", []),
    ]
    assert "its process ended" in events[0]["reasons"][0]
    assert [(one["done"], one["total"]) for one in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    report = collected(Ask("x"), 1, events, "")
    assert [one["name"] for one in report.mutants] == NAMES


def test_the_own_check_comes_first_and_the_others_only_if_it_does_not_see_it():
    harness = load_harness("deadly_harness:Deadly")
    options = Options(seed=1, decoys=60)
    foreign, odd = [one for one in known(harness, []) if one.name.startswith("open")]
    assert kill(harness, foreign, options, whole=False).killed_by == ("R1",)
    every = kill(harness, foreign, options, whole=True).killed_by
    assert {"R1", "R2"} <= set(every)
    assert kill(harness, odd, options, whole=False).killed_by == kill(harness, odd, options, whole=True).killed_by


def test_a_run_with_mutants_fails_where_one_lives():
    report = run(
        Ask("deadly_harness:Deadly", ("R1",), decoys=60, seed=1, mutants="quick", only_mutants=["open", "right"])
    )
    assert [(one["name"], bool(one["killed_by"])) for one in report.mutants] == [("open", True), ("right", False)]
    assert report.as_json()["mutants"][0] == {
        "name": "open",
        "breaks": "foreign rows come back",
        "expected": "R1",
        "killed_by": ["R1"],
    }
