"""Runs of constructed mutants: shards, results that are kept, and what is enough."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from queue import Queue

import pytest
from typer.testing import CliRunner

from vectoracl_conformance.mutants.constructed import CONTROL, constructed
from vectoracl_conformance.running import run_constructed
from vectoracl_conformance.running.run_constructed import Result, app, read, shard, summary


def result(name: str, problem: str = "2 instead of 1") -> Result:
    return Result(name, "count", "scope", 1, problem, 0.1)


def test_shards_are_a_partition() -> None:
    everything = constructed()
    parts = [shard(everything, f"{number}/8") for number in range(1, 9)]
    assert sorted(one.name for part in parts for one in part) == sorted(one.name for one in everything)
    with pytest.raises(ValueError, match="from 1 to 8"):
        shard(everything, "9/8")


def test_survivors_are_named() -> None:
    numbers = summary([result("a"), result("c", ""), result("b", ""), result("d")])
    assert numbers == {"mutants": 4, "killed": 2, "share": 0.5, "survivors": ["b", "c"]}


def test_a_run_continues_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.jsonl"
    everything = shard(constructed(), "1/2000")
    first, *others = everything
    path.write_text(json.dumps(asdict(result(first.name))) + "\n", encoding="utf-8")
    tried: list[str] = []

    def run_all(mutants, *_):  # type: ignore[no-untyped-def]
        for one in mutants:
            tried.append(one.name)
            yield result(one.name, "" if one is others[0] else "different")

    monkeypatch.setattr(run_constructed, "run_all", run_all)
    arguments = ["--shard", "1/2000", "--results", str(path), "--seed", "3"]
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1
    assert f"survived: {others[0].name}" in again.output
    assert sorted(tried) == sorted(one.name for one in others)
    assert {one.name for one in read(path)} == {one.name for one in everything}
    tried.clear()
    assert CliRunner().invoke(app, arguments).exit_code == 1
    assert not tried


def test_a_run_in_which_the_control_dies_measures_nothing() -> None:
    results: Queue[Result | None] = Queue()
    for one in (result("a"), result(CONTROL.name), None):
        results.put(one)
    kept = []
    with pytest.raises(RuntimeError, match="nothing is broken"):
        for one in run_constructed._collected([None], results):
            kept.append(one.name)
    assert kept == ["a"]


def test_a_run_without_the_control_measures_nothing() -> None:
    results: Queue[Result | None] = Queue()
    for one in (result("a"), None):
        results.put(one)
    with pytest.raises(RuntimeError, match="was not run"):
        list(run_constructed._collected([None], results))


def test_mutants_that_were_not_run_are_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_constructed, "run_all", lambda mutants, *_: [result(one.name) for one in mutants[1:]])
    run = CliRunner().invoke(app, ["--shard", "1/2000", "--seed", "3"])
    assert (run.exit_code, "1 were not run" in run.output) == (2, True)
