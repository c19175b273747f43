"""Repeats the generated calls of a run with new seeds, for hours: for adapters that are right only at first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vectoracl_conformance.running.runner import Ask, Report, Watch, run
from vectoracl_conformance.verdict import CALLS


def soak(
    report: Report,
    hours: float,
    watch: Watch = lambda _: None,
    *,
    now: Callable[[], float] = time.monotonic,
    repeat: Callable[[Ask, Watch], Report] = run,
) -> Report:
    """Repeat the generated checks until *hours* are over, a run fails, or Ctrl-C; add what was done to *report*.

    The verdict of *report* stays, unless a repetition fails or cannot be measured.

    Args:
        report: The report of the complete run before.
        hours: The time, in hours; a repetition that has begun is completed.
        watch: Called with the events of each run, and with "soak" after it.
        now: The clock, in seconds.
        repeat: Performs one run.
    """
    start, runs, seeds, ended = now(), 0, list[int](), "the time is over"
    failures: list[dict[str, Any]] = []
    ask = replace(report.ask, only=CALLS, seed=None, keep=False, timing=False, mutants="", only_mutants=())
    try:
        while now() - start < hours * 3600 and not failures:
            one = repeat(ask, watch)
            runs += 1
            seeds.append(one.seed)
            failures = _failures(one)
            left = max(0.0, hours - (now() - start) / 3600)
            watch({"event": "soak", "runs": runs, "seed": one.seed, "left": left, "failures": failures})
            if failures:
                ended = "a run failed"
    except KeyboardInterrupt:
        ended = "it was interrupted"
    report.soak = {
        "hours": round((now() - start) / 3600, 3),
        "asked": hours,
        "runs": runs,
        "seeds": seeds,
        "ended": ended,
        "failures": failures,
    }
    if failures and report.judged.verdict not in ("not conformant",):
        failed = any(one["outcome"] in ("failed", "known deviation") for one in failures)
        report.judged.verdict = "not conformant" if failed else "not measured"
        report.judged.grades["E1"] = "failed" if failed else "not run"
        report.problem = f"run {runs} of --hours, seed {seeds[-1]}: {failures[0]['id']} {failures[0]['outcome']}"
    return report


def _failures(one: Report) -> list[dict[str, Any]]:
    """Return what did not pass in a repetition; a run that ended early is one failure."""
    notes = [note for note in one.judged.checks if note.id in CALLS]
    wrong = [note for note in notes if note.outcome not in ("passed", "unsupported, verified")]
    if one.problem and not wrong:
        return [{"seed": one.seed, "id": "", "mode": "", "outcome": "not run", "reason": one.problem, "reproduce": ""}]
    return [
        {
            "seed": one.seed,
            "id": note.id,
            "mode": note.mode,
            "outcome": note.outcome,
            "reason": note.reason,
            "reproduce": note.reproduce,
        }
        for note in wrong
    ]


def summary(soak: dict[str, Any]) -> str:
    """Return what a soak has done, as one line."""
    seeds = ", ".join(map(str, soak["seeds"][:3])) + (", …" if len(soak["seeds"]) > 3 else "")
    bad = f"; {len(soak['failures'])} outcomes did not pass" if soak["failures"] else ""
    return (
        f"--hours: {soak['runs']} repetitions in {soak['hours']:g} of {soak['asked']:g} hours ({soak['ended']}), "
        f"seeds {seeds or 'none'}{bad}"
    )
