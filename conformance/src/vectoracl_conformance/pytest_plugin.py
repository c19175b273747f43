"""A window in pytest onto a run of the kit: `TestConformance = subscribe("my_package:harness")`.

The class has a test for each check and mode, and one for the verdict. All of them show one run of the runner, which is
a separate process: nothing in a conftest, a plugin, a hook or a mark reaches it. What pytest makes of the tests is not
a certificate, though: only the report that `vectoracl conformance NAME --json FILE` writes is one.

The plugin does nothing until such a class is collected. With pytest-xdist the run takes place once, in the worker that
comes first; the others read along.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vectoracl._util.file_lock import FileLock
from vectoracl_conformance.context.corpus import DECOYS
from vectoracl_conformance.reporting.report import failure_details
from vectoracl_conformance.running.window import RunnerProcess
from vectoracl_conformance.verdict import EXIT, MISSING, MODES, REQUIRED, Noted

_FOLDER = "vectoracl_conformance"
_POLL = 0.1  # seconds
_NOT_SHOWN = "its tests were not run here, so there was no run to show"
NOT_A_CERTIFICATE = "This shows a run. Only the report of this is a certificate: vectoracl conformance {} --json FILE"
_subscribed = pytest.StashKey[dict[str, "Subscription"]]()
_folder = pytest.StashKey[str]()


class Subscription:
    """One run in one session, seen from one process: it is started by whoever comes first, and read by all."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name = name
        self.ask = {"name": name, **options}
        self.id = hashlib.sha256(json.dumps(self.ask, sort_keys=True).encode()).hexdigest()[:16]
        self._events: Path | None = None
        self._lock: FileLock | None = None
        self._runner: RunnerProcess | None = None
        self._copier: threading.Thread | None = None

    def join(self, folder: str) -> None:
        """Start the run, unless another process of this session has started it, or this one has."""
        if self._events is not None:
            return
        self._events = Path(folder) / f"{self.id}.events"
        lock = FileLock(str(Path(folder) / f"{self.id}.lock"))
        if lock.held and self._events.exists():
            lock.release()  # the run is over
        elif lock.held:
            self._lock = lock
            self._events.touch(0o600)
            self._runner = RunnerProcess({**self.ask, "path": [str(Path(one).resolve()) for one in sys.path]})
            self._copier = threading.Thread(target=self._copy, daemon=True)
            self._copier.start()

    def _copy(self) -> None:
        assert self._events is not None
        assert self._runner is not None
        ended = False
        with self._events.open("a", encoding="utf-8") as file:
            for event in self._runner.events():
                file.write(json.dumps(event) + "\n")
                file.flush()
                ended = event["event"] == "report"
            if not ended:
                file.write(json.dumps({"event": "ended", "problem": self._runner.problem()}) + "\n")

    def _read(self) -> Iterator[dict[str, Any]]:
        if self._events is not None:
            with contextlib.suppress(OSError):
                lines = self._events.read_text(encoding="utf-8").split("\n")[:-1]
                yield from map(json.loads, lines)

    def note(self, id_: str, mode: str) -> Noted:
        """Return the outcome of one check, when it is known."""
        while True:
            running, problem = self._running(), ""
            for event in self._read():
                if event["event"] == "note" and (event["id"], event["mode"]) == (id_, mode):
                    return _noted(event)
                if event["event"] == "report":
                    notes = [_noted(one) for one in event["notes"]]
                    return next(one for one in notes if (one.id, one.mode) == (id_, mode))
                problem = event.get("problem", "") if event["event"] == "ended" else problem
            if problem or not running:
                return Noted(id_, mode, "not run", reason=problem or "the run ended early")
            time.sleep(_POLL)

    def _running(self) -> bool:
        """Return whether the run goes on, or its end was not read yet."""
        if self._copier is not None:
            return self._copier.is_alive()
        assert self._events is not None
        lock = FileLock(str(self._events.with_suffix(".lock")))
        held = lock.held
        lock.release()
        return not held

    def verdict(self) -> dict[str, Any]:
        """Return the runner's last event, when the run is over."""
        while self._events is not None:
            running = self._running()
            for event in self._read():
                if event["event"] in ("report", "ended"):
                    return event
            if not running:
                break
            time.sleep(_POLL)
        return {"event": "ended", "problem": _NOT_SHOWN if self._events is None else "the run ended early"}

    def close(self, *, stop: bool) -> None:
        """End the run. *stop*: at once; otherwise after it has come to its end."""
        if self._runner is not None:
            if not stop:
                self.verdict()
            self._runner.close()
            assert self._copier is not None
            self._copier.join(10)
            self._runner = None
        if self._lock is not None:
            self._lock.release()


def _noted(data: dict[str, Any]) -> Noted:
    return Noted(**{name: value for name, value in data.items() if name in Noted.__slots__})


def subscribe(
    harness: str, *, decoys: int = DECOYS, seed: int | None = None, python: str = "", timeout: float | None = None
) -> type:
    """Return a class of tests that show a run of the kit, for a test module to hold under any name.

    Args:
        harness: An installed adapter, or MODULE:HARNESS, as for the command `vectoracl conformance`.
        decoys: The number of foreign chunks that are nearer than each owned one.
        seed: The seed of the run; None: a random one, which a failure shows.
        python: The interpreter for the adapter's process; "": this one.
        timeout: Seconds without any output after which the run is stopped; None: the command's default.
    """
    if not isinstance(harness, str):
        raise TypeError(
            f"subscribe() takes the name of a harness, got {type(harness).__name__}. The runner imports it in another "
            'process: write subscribe("my_package.module:harness").'
        )
    options = {"decoys": decoys, "seed": seed, "python": python, "timeout": timeout}
    subscription = Subscription(harness, {name: one for name, one in options.items() if one not in (None, "")})

    class Conformance:
        """The checks of the kit."""

        vectoracl_conformance = subscription

        @pytest.mark.parametrize("id_", REQUIRED)
        @pytest.mark.parametrize("mode", MODES)
        def test_check(self, id_: str, mode: str, request: pytest.FixtureRequest) -> None:
            """Show one check."""
            subscription.join(_shared(request.config))
            note = subscription.note(id_, mode)
            if note.outcome not in ("passed", "unsupported, verified"):
                lines = "\n".join(f"{heading}: {text}" for heading, text in failure_details(note))
                pytest.fail(f"{note.id} {note.mode}: {note.outcome}\n{lines}", pytrace=False)

        def test_verdict(self, request: pytest.FixtureRequest) -> None:
            """Show the verdict."""
            subscription.join(_shared(request.config))
            event = subscription.verdict()
            if not _conformant(event):
                pytest.fail("\n".join(_summary(subscription.name, event)), pytrace=False)

    Conformance.__name__ = Conformance.__qualname__ = f"Conformance of {harness}"
    return Conformance


def _conformant(event: dict[str, Any]) -> bool:
    return event.get("exit_code") == EXIT["conformant"]


def _summary(name: str, event: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that say what the runner has found."""
    report = event.get("report")
    if report is None:
        yield f"not measured: {event['problem']}"
    else:
        for note in event["notes"]:
            if note["outcome"] not in ("passed", "unsupported, verified") and note["reason"] != MISSING:
                yield f"{note['id']} {note['mode']}: {note['outcome']}  {note['reason']}"
        missing = [f"{one['id']} {one['mode']}" for one in event["notes"] if one["reason"] == MISSING]
        if missing:
            yield f"not run: {', '.join(missing)}"
        if event["problem"]:
            yield event["problem"]
        yield f"{report['adapter']} on {report['server']['version']} ({report['server']['kind']}), seed {event['seed']}"
        evidence = f" at {report['evidence']}" if report["evidence"] else ""
        yield f"{report['verdict']}{evidence}"
    yield NOT_A_CERTIFICATE.format(name)


def _shared(config: pytest.Config) -> str:
    """Return the folder through which the processes of this session share their runs."""
    if _folder not in config.stash:
        given: str | None = getattr(config, "workerinput", {}).get(_FOLDER)
        config.stash[_folder] = given or tempfile.mkdtemp(prefix="conformance-")
    return config.stash[_folder]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the folder to a worker of pytest-xdist."""
    node.workerinput[_FOLDER] = _shared(node.config)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Notice that a check of the kit is there."""
    subscription = getattr(getattr(item, "cls", None), "vectoracl_conformance", None)
    if isinstance(subscription, Subscription):
        item.config.stash.setdefault(_subscribed, {})[subscription.id] = subscription
        if hasattr(item.config, "workerinput"):  # the controller collects nothing itself
            path = Path(_shared(item.config)) / f"{subscription.id}.name"
            if not path.exists():
                path.write_text(json.dumps(subscription.ask), encoding="utf-8")


def _subscriptions(config: pytest.Config) -> list[Subscription]:
    here: dict[str, Subscription] = config.stash.get(_subscribed, {})
    known = dict(here)
    if _folder in config.stash and not hasattr(config, "workerinput"):
        for path in sorted(Path(config.stash[_folder]).glob("*.name")):
            ask = json.loads(path.read_text(encoding="utf-8"))
            one = Subscription(ask.pop("name"), ask)
            events = path.with_suffix(".events")
            if one.id not in known and events.exists():
                one._events = events  # noqa: SLF001 - it only reads
            known.setdefault(one.id, one)
    return list(known.values())


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the runs, and fail the session where a verdict is not "conformant", whatever pytest counted."""
    stop = bool(session.shouldstop or session.shouldfail) or session.exitstatus == pytest.ExitCode.INTERRUPTED
    for one in session.config.stash.get(_subscribed, {}).values():
        one.close(stop=stop)
    if session.config.option.collectonly or hasattr(session.config, "workerinput"):
        return
    if not all(_conformant(one.verdict()) for one in _subscriptions(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show each verdict."""
    if config.option.collectonly:
        return
    for one in _subscriptions(config):
        terminalreporter.section(f"conformance of {one.name}")
        for line in _summary(one.name, one.verdict()):
            terminalreporter.line(line)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what this session has shared."""
    if _folder in config.stash and not hasattr(config, "workerinput"):
        shutil.rmtree(config.stash[_folder], ignore_errors=True)
