"""Runs a worker process and judges its events. The verdict is computed here, never in the adapter's process."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import vectoracl_conformance.checks  # noqa: F401 - registers the checks, of which the isolated process performs some
from vectoracl.adapter_api.loading import installed
from vectoracl_conformance.checks.reference_checks import Place, noted
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.context.check_context import Mode
from vectoracl_conformance.context.corpus import DECOYS, DIMENSION, FIELDS
from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.generated.run import Setting, run_generated
from vectoracl_conformance.harness import HarnessError, Needs, Store
from vectoracl_conformance.isolated.clean_python import command
from vectoracl_conformance.isolated.identity import Identity
from vectoracl_conformance.isolated.interpreter import PlainEnvironment, plain
from vectoracl_conformance.isolated.store_service import StoreService
from vectoracl_conformance.running.certificate import NOT_PROVED, Calls, certified
from vectoracl_conformance.running.run_facts import run_facts
from vectoracl_conformance.running.worker_output import Lines, StoreExchange, say
from vectoracl_conformance.running.worker_pool import Crew
from vectoracl_conformance.verdict import CALLS, GRADES, MODES, NOT_QUICK, EvidenceState, Judged, Noted, judge

TIMEOUT = 600.0
GRACE = 20.0
ISOLATED = ("X6", *CALLS)
"""The checks that are performed here, next to the adapter's own process."""
_STATES = ("passed", "failed", "abstained", "not run")
_FROM_HERE = ("calls", "identity")
_ABOUT = ("adapter", "store", "server", "kit", "name")
_NOTED = frozenset(one.name for one in fields(Noted))


@dataclass(slots=True)
class Ask:
    """The options of a run.

    Attributes:
        name: The adapter, or the harness as MODULE:HARNESS.
        only: The ids of the checks to run; empty: all.
        decoys: The number of foreign chunks that are nearer than each owned one.
        seed: The seed of the corpus; None: a random one.
        keep: Whether to keep the store after the run.
        known: Declared deviations: reasons by check id, for checks of `EXCUSABLE`.
        mutants: "quick": run each mutant against its own check first, and against the others only if that did not kill
            it. "matrix": run each mutant against every check.
        jobs: The number of mutants to run in parallel; 0: one per processor, at most four.
        only_mutants: The names of the mutants to run, or ids of their checks; empty: all.
        timeout: Seconds that the checks may be without output, and that each mutant may take.
        timing: Whether to time a search next to few and many foreign rows.
        python: The interpreter for X6, ideally of an environment without the kit; "": this one.
        quick: Whether to run less, for no certificate.
        path: Folders from which the adapter's processes import the harness and the adapter; this one does not.
    """

    name: str
    only: Sequence[str] = ()
    decoys: int = DECOYS
    seed: int | None = None
    keep: bool = False
    known: dict[str, str] = field(default_factory=dict)
    mutants: Literal["", "quick", "matrix"] = ""
    jobs: int = 0
    only_mutants: Sequence[str] = ()
    timeout: float = TIMEOUT
    timing: bool = False
    python: str = ""
    quick: bool = False
    path: Sequence[str] = ()

    @property
    def left_out(self) -> frozenset[str]:
        """The ids of the checks that the run leaves out."""
        return NOT_QUICK if self.quick else frozenset()


@dataclass(slots=True)
class Report:
    """The result of a run. `soak` is what `--hours` has repeated (see `soak`)."""

    ask: Ask
    judged: Judged
    about: dict[str, Any]
    reasons: dict[str, str]
    mutants: list[dict[str, Any]]
    seed: int
    problem: str = ""
    run: dict[str, Any] = field(default_factory=run_facts)
    calls: Calls = field(default_factory=Calls)
    soak: dict[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        """The exit code of the verdict; also 1 if a mutant survives or is killed only by other checks."""
        if self.judged.conformant and any(one["expected"] not in one["killed_by"] for one in self.mutants):
            return 1
        return self.judged.exit_code

    @property
    def census(self) -> str:
        """How the rows were read by which the generated calls are judged: "in-process" or "out-of-band"."""
        return self.calls.census

    @property
    def deviations(self) -> dict[str, str]:
        """The deviations that were declared and found: reasons by check id."""
        ids = {note.id for note in self.judged.checks if note.outcome == "known deviation"}
        return {id_: why for id_, why in self.ask.known.items() if id_ in ids}

    def as_json(self) -> dict[str, Any]:
        """Return the machine-readable report: exactly these keys."""
        return {
            "verdict": self.judged.verdict,
            "evidence": None if self.ask.quick else self.judged.evidence,
            "deviations": [{"id": id_, "why": why} for id_, why in self.deviations.items()],
            "grades": self.judged.grades,
            "adapter": self.about.get("adapter", self.ask.name),
            "store": self.about.get("store", ""),
            "server": self.about.get("server", {"kind": "", "version": ""}),
            "certified": certified(self.about) if self.judged.conformant else None,
            "census": self.census,
            "run": self.run,
            "seed": self.seed,
            "decoys": self.ask.decoys,
            "calls": self.calls.as_json(),
            "not_proved": [what for what, _ in NOT_PROVED],
            "quick": self.ask.quick,
            "soak": self.soak,
            "checks": [
                {
                    "id": note.id,
                    "mode": note.mode,
                    "outcome": note.outcome,
                    "seconds": note.seconds,
                    "reason": note.reason,
                    "reproduce": note.reproduce,
                    "script": note.script,
                }
                for note in self.judged.checks
            ],
            "mutants": [
                {name: one[name] for name in ("name", "breaks", "expected", "killed_by")} for one in self.mutants
            ],
        }


Watch = Callable[[dict[str, Any]], None]


def run(ask: Ask, watch: Watch = lambda _: None) -> Report:
    """Run the checks in a separate process, and judge the result."""
    token = secrets.token_hex(16)
    seed = secrets.randbelow(2**31) if ask.seed is None else ask.seed
    request = {
        "token": token,
        "name": ask.name,
        "only": list(ask.only),
        "decoys": ask.decoys,
        "seed": seed,
        "keep": ask.keep,
        "known": ask.known,
        "mutants": ask.mutants,
        "serve": False,
        "timing": ask.timing,
        "quick": ask.quick,
        "python": ask.python,
        "limit": ask.timeout / 5,
        "elsewhere": [*ISOLATED],
        "only_mutants": list(ask.only_mutants),
        "path": _paths(ask),
    }
    events, problem = _worker(request, token, ask, seed, watch)
    mutants = [event for event in events if event["event"] == "known"]
    if mutants and not problem:
        crew = Crew({**request, "serve": True, "elsewhere": []}, _start, _event, timeout=ask.timeout)
        jobs = ask.jobs or max(1, min(4, os.cpu_count() or 1))
        events += crew.run([{**one, "event": "mutant"} for one in mutants], jobs, watch)
    return collected(ask, seed, events, problem)


def _start(request: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a worker, and send it *request*."""
    process = subprocess.Popen(  # noqa: S603 - our own module
        command("vectoracl_conformance.running.worker", site=True),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
    except OSError:
        pass  # it has already ended, which is noticed when its output is read
    return process


def _worker(request: dict[str, Any], token: str, ask: Ask, seed: int, watch: Watch) -> tuple[list[dict[str, Any]], str]:
    process = _start(request)
    assert process.stdin is not None
    lines = Lines(process, ask.timeout)
    events: list[dict[str, Any]] = []

    def take(line: str) -> dict[str, Any] | None:
        event = _event(line, token)
        if event is not None and (event["event"] in _FROM_HERE or event.get("id") in request["elsewhere"]):
            return None  # it is measured here, and only its result from here counts
        if event is not None:
            lines.heard()
            events.append(event)
            watch(event)
        return event

    try:
        for line in lines:
            event = take(line)
            if event is not None and event["event"] == "serving":
                exchange = StoreExchange(process, lines, token)
                for note in _isolated(event, ask, seed, events, exchange, watch):
                    events.append({"event": "note", **asdict(note)})
                    watch(events[-1])
                lines.heard()
                say(process, "done")
            elif event is not None and event["event"] == "kept":
                say(process, "done")  # the watcher has waited for the user
        code = lines.ended()
    except BaseException:
        lines.stop(grace=GRACE)  # it received the same Ctrl-C, and has time to clean up
        raise
    if lines.late:
        return events, f"the run was stopped after {ask.timeout:g} seconds without output"
    ended = any(event["event"] == "end" for event in events)
    message = next((event["message"] for event in events if event["event"] == "error"), "")
    if message:
        return events, message
    return events, "" if ended and code == 0 else f"the process of the adapter ended early (exit code {code})"


def _paths(ask: Ask) -> list[str]:
    return list(dict.fromkeys(path for path in (*ask.path, *sys.path) if path))


def _adapters() -> set[str]:
    """Return the names of the installed adapters. A harness with one of these names must measure that adapter."""
    return {"memory", *(one.adapter for one in installed())}


def _isolated(
    event: dict[str, Any],
    ask: Ask,
    seed: int,
    events: list[dict[str, Any]],
    exchange: StoreExchange,
    watch: Watch,
) -> Iterator[Noted]:
    """Perform X6 and C1 to C4 in this process, where no code of the adapter or its harness could change the verdict."""

    def progress(text: str) -> None:
        exchange.heard()
        watch({"event": "progress", "text": text})

    options = Options(ask.name, frozenset(ask.only), ask.decoys, seed, known=ask.known)
    wanted = [id_ for id_ in ISOLATED if options.wants(id_) and id_ not in ask.left_out]
    named = next((one.get("name") for one in events if one["event"] == "start"), None)
    if sum(one["event"] == "serving" for one in events) > 1:
        why = "the harness's process offered its stores twice"
        yield from _abstained(wanted, why, options)
        return
    metrics = event.get("metrics")
    thousands = event.get("thousands") is not False
    service = StoreService(exchange, metrics if isinstance(metrics, list) else (), thousands=thousands)
    stores = _OfOneAdapter(service, str(ask.name if ask.name in _adapters() else named))
    environment = plain(ask.python, _paths(ask))
    measured: list[Identity] = []
    try:
        if "X6" in wanted:
            for mode in MODES:
                yield _in_mode(mode, stores, environment, options, measured)
        setting = Setting(
            stores,
            seed,
            "quick" if ask.quick else "full",
            environment,
            progress=progress,
            line=options.line,
            measured=measured,
        )
        if any(id_ in CALLS for id_ in wanted):
            notes, report = run_generated(setting, frozenset(wanted), ask.known)
            yield from notes
            events.append({"event": "calls", **report.as_json()})
        for one in dict.fromkeys(measured):
            events.append({"event": "identity", **asdict(one)})
    finally:
        environment.close()


def _abstained(ids: Sequence[str], why: str, options: Options) -> list[Noted]:
    return [Noted(id_, mode, "abstained", reason=why, reproduce=options.line(id_)) for id_ in ids for mode in MODES]


class _OfOneAdapter:
    """The stores of a harness, of which each has to be configured for the adapter that is measured."""

    def __init__(self, service: StoreService, adapter: str) -> None:
        self.metrics = service.metrics
        self.thousands = service.thousands
        self._service = service
        self._adapter = adapter

    def fresh(self, needs: Needs) -> Store:
        """Make an empty store. Raises: HarnessError."""
        store = self._service.fresh(needs)
        if store.config.get("adapter") != self._adapter:
            store.close()
            raise HarnessError("The harness's configuration names another adapter than the one that is measured.")
        return store


def _in_mode(
    mode: Mode, stores: _OfOneAdapter, environment: PlainEnvironment, options: Options, measured: list[Identity]
) -> Noted:
    try:
        store = stores.fresh(Needs(DIMENSION, FIELDS))
    except (HarnessError, Abstain) as error:
        return Noted("X6", mode, "abstained", reason=str(error), reproduce=options.line("X6"))
    try:
        place = Place(store.config, settle=store.settle, admit=store.admit, environment=environment, measured=measured)
        return noted(place, mode, options)
    finally:
        with contextlib.suppress(HarnessError, Abstain):
            store.close()


def _event(line: str, token: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and event.get("token") == token and "event" in event else None


def collected(ask: Ask, seed: int, events: Sequence[dict[str, Any]], problem: str) -> Report:
    """Judge *events*. If the process ended early, checks without a complete outcome count as not run."""
    notes = [
        Noted(**{name: value for name, value in event.items() if name in _NOTED})
        for event in events
        if event["event"] == "note"
    ]
    start = next((event for event in events if event["event"] == "start"), {})
    about = {name: value for name, value in start.items() if name in _ABOUT}
    identities = [event for event in events if event["event"] == "identity"]
    if len(identities) == 1:  # seen from outside, and asked of the process that was measured
        code = {name: str(identities[0][name]) for name in ("adapter", "distribution", "version", "digest")}
        about["code"] = code
        about["adapter"] = f"{code['adapter']} {code['version']} ({code['distribution']})"
    elif identities:
        problem = problem or "the adapter's processes did not run the same code"
    grades: dict[str, EvidenceState] = {}
    reasons: dict[str, str] = {}
    for event in events:
        if event["event"] == "grade" and event["grade"] in GRADES and event["state"] in _STATES:
            grades[event["grade"]] = event["state"]
            reasons[event["grade"]] = event["reason"]
    calls = next((Calls.of(event) for event in events if event["event"] == "calls"), Calls())
    if calls.number and not calls.whole and not ask.quick:
        problem = problem or f"not all of the calls that the adapter declares were made ({calls.line()})"
    judged = judge(notes, grades, ask.known, left_out=ask.left_out)
    if problem and judged.verdict != "not conformant":
        judged.verdict = "not measured"
        judged.grades["E1"] = "not run"
    mutants = [
        {name: event[name] for name in ("name", "breaks", "expected", "killed_by", "reasons")}
        for event in events
        if event["event"] == "mutant"
    ]
    for event in events:
        if event["event"] == "timing":
            for note in judged.checks:
                if (note.id, note.mode) == ("R4", "sync"):  # the timing does not affect its outcome
                    note.reason = "; ".join(part for part in (note.reason, str(event["text"])) if part)
    return Report(ask, judged, about, reasons, mutants, seed, problem, calls=calls)
