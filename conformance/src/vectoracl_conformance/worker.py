"""The process in which the adapter runs: it performs and tells, a line of JSON each; the parent judges.

If it ends early, however it ends, what it did not tell counts as not run. Anything that is printed to standard output
by whatever runs here goes to standard error, so that it cannot pass for a report.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

from vectoracl_conformance.engine import Options, run_checks, run_mutant
from vectoracl_conformance.grading import Grading, engine_grade, volume_grade
from vectoracl_conformance.harness import Harness, HarnessError, Mutant, load_harness
from vectoracl_conformance.mutants import GENERAL


class Teller:
    """Writes events to the parent, each with the token of this run."""

    def __init__(self, stream: TextIO, token: str) -> None:
        self._stream = stream
        self._token = token

    def tell(self, event: str, **data: Any) -> None:
        """Tell one event."""
        self._stream.write(json.dumps({"event": event, "token": self._token, **data}, default=str) + "\n")
        self._stream.flush()


def described(harness: Harness) -> dict[str, Any]:
    """Return what the report says about who was measured."""
    from vectoracl.plugins import installed

    server = harness.server()
    versions = [
        f"{one.adapter} {one.version} ({one.distribution})" for one in installed() if one.adapter == harness.adapter
    ]
    try:
        kit = version("vectoracl-conformance")
    except PackageNotFoundError:
        kit = "unknown"
    return {
        "adapter": versions[0] if versions else harness.adapter,
        "store": harness.store or harness.adapter,
        "server": {"kind": server.kind, "version": server.version},
        "kit": kit,
    }


def options_of(data: dict[str, Any]) -> Options:
    """Read the options as the parent sent them."""
    return Options(
        name=data["name"],
        only=frozenset(data["only"]),
        decoys=data["decoys"],
        seed=data["seed"],
        keep=data["keep"],
        known=data["known"],
    )


def work(data: dict[str, Any], teller: Teller) -> None:
    """Do what *data* asks and tell it."""
    harness = load_harness(data["name"])
    options = options_of(data)
    try:
        teller.tell("start", **described(harness))
        run_checks(harness, options, lambda note: teller.tell("note", **asdict(note)))
        if not options.only:
            for measure in (volume_grade, engine_grade):
                _grade(teller, measure, harness, options)
        if data["mutants"]:
            _mutants(teller, harness, options, data["only_mutants"])
        teller.tell("end")
    finally:
        harness.close()


def _grade(teller: Teller, measure: Any, harness: Harness, options: Options) -> None:
    name = "E2v" if measure is volume_grade else "E3"
    try:
        grading = measure(harness, options)
    except Exception as error:  # noqa: BLE001 - what could not be measured abstains
        grading = Grading(name, "abstained", f"{type(error).__name__}: {error}")
    teller.tell("grade", grade=grading.grade, state=grading.state, reason=grading.reason)


def _mutants(teller: Teller, harness: Harness, options: Options, names: list[str]) -> None:
    found = [*GENERAL, *harness.mutants()]
    with_weakenings = bool(_weakenings(harness))
    for mutant in found:
        if names and not any(one in (mutant.name, mutant.expected) for one in names):
            continue
        if "weakenings" in mutant.needs and not with_weakenings:
            continue
        try:
            died, reasons = _killed(harness, mutant, options)
        except Exception as error:  # noqa: BLE001 - a mutant that cannot be run was not killed
            died, reasons = (), (f"{type(error).__name__}: {error}",)
        teller.tell(
            "mutant", name=mutant.name, breaks=mutant.breaks, expected=mutant.expected, died_by=died, reasons=reasons
        )


def _killed(harness: Harness, mutant: Mutant, options: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return by what *mutant* died, and why."""
    if mutant.expected not in ("E2v", "E3"):
        kill = run_mutant(harness, mutant, replace(options, only=frozenset()))
        return kill.died_by, kill.reasons
    measure = volume_grade if mutant.expected == "E2v" else engine_grade
    grading = measure(harness, options, mutant)
    died = (mutant.expected,) if grading.state == "failed" else ()
    return died, (f"{grading.grade}: {grading.reason}",)


def _weakenings(harness: Harness) -> Any:
    from vectoracl_conformance.corpus import DIMENSION, FIELDS
    from vectoracl_conformance.harness import Needs

    store = harness.fresh(Needs(DIMENSION, FIELDS))
    try:
        return store.weakenings()
    finally:
        store.close()


def main() -> int:
    """Read the request from standard input, work, and tell on what was standard output."""
    data = json.loads(sys.stdin.readline())
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path[:0] = [path for path in data["path"] if path not in sys.path]
    teller = Teller(stream, data["token"])
    try:
        work(data, teller)
    except HarnessError as error:
        teller.tell("error", message=str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
