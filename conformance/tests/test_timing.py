"""Timing is reported between two controls and changes no verdict."""

from pathlib import Path

import pytest

from vectoracl_conformance.running.runner import Ask, collected
from vectoracl_conformance.running.timing import _turns, compared


@pytest.mark.parametrize(
    ("few", "again", "many", "leaky", "state"),
    [
        (1.0, 1.0, 1.05, (1.0, 4.0), "measured"),
        (1.0, 1.0, 3.0, (1.0, 4.0), "measured"),
        (1.0, 1.3, 1.0, (1.0, 4.0), "abstained"),
        (1.0, 0.7, 1.0, (1.0, 4.0), "abstained"),
        (1.0, 1.0, 1.0, (1.0, 1.4), "abstained"),
    ],
)
def test_it_abstains_where_a_control_does_not_hold(few, again, many, leaky, state):
    found = compared([few] * 3, [again] * 3, [many] * 3, [*leaky] * 3)
    assert found.state == state
    assert ("abstained" in str(found)) == (state == "abstained")
    if state == "measured":
        assert f"{many / few:.2f} times as long next to 20000 foreign rows as next to 500" in str(found)


def test_each_has_its_turn_and_the_warm_up_is_not_counted():
    ticks = iter(range(1000))
    taken = _turns([lambda: next(ticks), lambda: -next(ticks)], 3)
    assert taken == [[4, 6, 8], [-5, -7, -9]]


def test_it_changes_no_verdict_and_no_key(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from test_report import events

    told = {"event": "timing", "text": "timing, reported only: 9.99 times as long"}
    report = collected(Ask("x", timing=True), 1, [*events(), told], "")
    assert report.judged.verdict == "conformant"
    assert report.exit_code == 0
    (note,) = [one for one in report.as_json()["checks"] if (one["id"], one["mode"]) == ("R4", "sync")]
    assert (note["outcome"], note["reason"]) == ("passed", "timing, reported only: 9.99 times as long")
    assert set(report.as_json()) == set(collected(Ask("x"), 1, events(), "").as_json())
