"""The worker process: it runs the adapter, and emits one JSON event per line; the parent computes the verdict.

If it ends early, for whatever reason, checks whose outcome was not emitted count as not run. Output of any other code
in this process to standard output is redirected to standard error, so that it cannot be taken for an event.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

from vectoracl.adapter_api.local_servers.start import MissingServerError
from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.grades.grading import WIRE_GRADES, Grading, engine_grade, wire_grades
from vectoracl_conformance.harness import Harness, HarnessError, load_harness
from vectoracl_conformance.isolated.store_service import serve as serve_stores
from vectoracl_conformance.running.kill_mutant import kill, known
from vectoracl_conformance.running.run_checks import run_checks
from vectoracl_conformance.running.timing import timing
from vectoracl_conformance.running.worker_output import parts_of


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
    from vectoracl.adapter_api.loading import installed

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
        limit=data["limit"],
        python=data["python"],
        elsewhere=frozenset(data["elsewhere"]),
    )


def work(data: dict[str, Any], teller: Teller) -> None:
    """Do what *data* asks and tell it."""
    harness = load_harness(data["name"])
    options = options_of(data)
    try:
        teller.tell("start", name=harness.adapter, **described(harness))
        run_checks(harness, options, lambda note: teller.tell("note", **asdict(note)))
        if any(map(options.wants, options.elsewhere)):
            offer(teller, harness, sys.stdin)
        if not options.only and not data["quick"]:
            _grade(teller, WIRE_GRADES, lambda: wire_grades(harness, options))
            _grade(teller, ("E3",), lambda: [engine_grade(harness, options)])
        if data["timing"]:
            teller.tell("timing", text=_timed(harness, options))
        if data["mutants"]:
            for one in known(harness, data["only_mutants"]):
                teller.tell("known", name=one.name, breaks=one.breaks, expected=one.expected)
        teller.tell("end")
        if options.kept:
            teller.tell("kept", config=options.kept[0], on=harness.server().version)
            sys.stdin.readline()
    finally:
        harness.close()


def _timed(harness: Harness, options: Options) -> str:
    try:
        return str(timing(harness, options))
    except Exception as error:  # noqa: BLE001 - it is reported only
        return f"timing: abstained, it could not be measured ({type(error).__name__}: {error})"


def offer(teller: Teller, harness: Harness, lines: TextIO) -> None:
    """Make and read stores for the parent, which performs the checks of the isolated process, until it is done."""
    teller.tell("serving", metrics=list(harness.metrics), thousands=harness.thousands)

    def answer(text: str) -> None:
        for part, more in parts_of(text):
            teller.tell("answer", part=part, more=more)

    serve_stores(harness, lines, answer)


def _grade(teller: Teller, names: Sequence[str], measure: Callable[[], list[Grading]]) -> None:
    try:
        gradings = measure()
    except Exception as error:  # noqa: BLE001 - what could not be measured abstains
        gradings = [Grading(name, "abstained", f"{type(error).__name__}: {error}") for name in names]
    for one in gradings:
        teller.tell("grade", grade=one.grade, state=one.state, reason=one.reason)


def serve(data: dict[str, Any], teller: Teller, names: TextIO) -> None:
    """Try to kill the mutants that the parent names, a line of JSON each, until it names no more."""
    harness = load_harness(data["name"])
    options = replace(options_of(data), keep=False)
    try:
        by_name = {one.name: one for one in known(harness, data["only_mutants"])}
        for line in names:
            mutant = by_name[json.loads(line)]
            try:
                result = kill(harness, mutant, options, whole=data["mutants"] == "matrix")
                died, reasons = result.killed_by, result.reasons
            except Exception as error:  # noqa: BLE001 - a mutant that cannot be run was not killed
                died, reasons = (), (f"{type(error).__name__}: {error}",)
            teller.tell("mutant", name=mutant.name, killed_by=died, reasons=reasons)
    finally:
        harness.close()


def main() -> int:
    """Read the request from standard input, work, and tell on what was standard output."""
    data = json.loads(sys.stdin.readline())
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path[:0] = [path for path in data["path"] if path not in sys.path]
    teller = Teller(stream, data["token"])
    try:
        if data["serve"]:
            serve(data, teller, sys.stdin)
        else:
            work(data, teller)
    except (HarnessError, MissingServerError) as error:
        teller.tell("error", message=str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
