"""The checks in pytest, with one line: `TestConformance = subscribe("my_package:harness")`.

The plugin does nothing until such a class is collected. The verdict is then computed from the outcomes that the checks
recorded, not from pytest's reports: a check that was skipped, deselected, overridden or marked makes the result not
conformant or not measured, and the session fails.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import pytest

from vectoracl_conformance.context.corpus import DECOYS
from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.harness import Harness, load_harness
from vectoracl_conformance.reporting.report import failure_details
from vectoracl_conformance.running.run_checks import fresh, run_mode
from vectoracl_conformance.verdict import MODES, REQUIRED, Judged, Noted, fine, judge

_PROPERTY = "vectoracl conformance"
_subscribed = pytest.StashKey[dict[str, "Subscription"]]()
_told = pytest.StashKey[dict[str, list[Noted]]]()


class Subscription:
    """One harness in one session: its store, made at the first check, and what the checks noted."""

    def __init__(self, name: str, harness: str | Harness, decoys: int, seed: int | None) -> None:
        self.name = name
        self._harness = harness
        self._decoys = decoys
        self._seed = secrets.randbelow(2**31) if seed is None else seed
        self._stack = ExitStack()
        self._made: Any = None
        self.notes: list[Noted] = []

    def perform(self, id_: str, mode: Any) -> Noted:
        """Run one check in one mode."""
        if self._made is None:
            harness = load_harness(self._harness) if isinstance(self._harness, str) else self._harness
            self._stack.callback(harness.close)
            options = Options(name=self.name, decoys=self._decoys, seed=self._seed)
            self._made = self._stack.enter_context(fresh(harness, options))
        store, corpus = self._made
        options = Options(name=self.name, only=frozenset({id_}), decoys=self._decoys, seed=self._seed)
        notes = run_mode(store, corpus, mode, options, lambda _: None)
        note = notes[0] if notes else Noted(id_, mode, "not run", reason="there is no such check")
        self.notes.append(note)
        return note

    def close(self) -> None:
        """Remove the store."""
        self._stack.close()
        self._made = None


def subscribe(harness: str | Harness, *, decoys: int = DECOYS, seed: int | None = None) -> type:
    """Return a class of tests, one for each check and mode, for a test module to hold under any name."""
    name = harness if isinstance(harness, str) else harness.adapter
    subscription = Subscription(name, harness, decoys, seed)

    class Conformance:
        """The checks of the kit."""

        vectoracl_conformance = subscription

        @pytest.mark.parametrize("mode", MODES)
        @pytest.mark.parametrize("id_", REQUIRED)
        def test_check(self, id_: str, mode: str, record_property: Any) -> None:
            """Run one check."""
            note = subscription.perform(id_, mode)
            record_property(_PROPERTY, {"subscription": name, **asdict(note)})
            if not fine(note):
                lines = "\n".join(f"{heading}: {text}" for heading, text in failure_details(note))
                pytest.fail(f"{note.id} {note.mode}: {note.outcome}\n{lines}", pytrace=False)

    Conformance.__name__ = Conformance.__qualname__ = f"Conformance of {name}"
    return Conformance


def pytest_itemcollected(item: pytest.Item) -> None:
    """Notice that a check of the kit is there."""
    subscription = getattr(getattr(item, "cls", None), "vectoracl_conformance", None)
    if isinstance(subscription, Subscription):
        item.config.stash.setdefault(_subscribed, {})[subscription.name] = subscription


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take what the workers of pytest-xdist tell; without workers the subscriptions know by themselves."""
    if report.when != "call" or not hasattr(report, "node"):
        return
    for key, value in report.user_properties:
        if key == _PROPERTY and isinstance(value, dict):
            note = {name: one for name, one in value.items() if name != "subscription"}
            notes: dict[str, list[Noted]] = report.node.config.stash.setdefault(_told, {})
            notes.setdefault(str(value["subscription"]), []).append(Noted(**note))


def _judged(config: pytest.Config) -> dict[str, Judged]:
    if hasattr(config, "workerinput"):
        return {}
    judgements = {name: judge(one.notes) for name, one in config.stash.get(_subscribed, {}).items()}
    return judgements | {name: judge(notes) for name, notes in config.stash.get(_told, {}).items()}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session where the verdict is not "conformant", whatever pytest counted."""
    for subscription in session.config.stash.get(_subscribed, {}).values():
        subscription.close()
    if session.config.option.collectonly:
        return
    if any(one.verdict != "conformant" for one in _judged(session.config).values()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say the verdict."""
    for name, judged in _judged(config).items():
        terminalreporter.section(f"conformance of {name}")
        for note in judged.checks:
            if note.outcome not in ("passed", "unsupported, verified"):
                terminalreporter.line(f"{note.id} {note.mode}: {note.outcome}  {note.reason}")
        evidence = f" at {judged.evidence}" if judged.evidence else ""
        terminalreporter.line(f"{judged.verdict}{evidence}")
