"""The report: exactly the documented JSON, JUnit without skips, one page that loads nothing."""

import io
import json
import re
import tempfile
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from typer.testing import CliRunner

from vectoracl import F
from vectoracl_conformance import verdict
from vectoracl_conformance.cli import app
from vectoracl_conformance.generated.calls import Call
from vectoracl_conformance.generated.pair import Difference
from vectoracl_conformance.generated.reference import writer
from vectoracl_conformance.generated.script import script
from vectoracl_conformance.reporting.report import begin, html, measured, print_table, write_json, write_junit
from vectoracl_conformance.running.runner import Ask, collected
from vectoracl_conformance.running.soak import soak, summary
from vectoracl_conformance.verdict import MODES, NOT_QUICK, REQUIRED


def events(**changed):
    made = [{"event": "start", "adapter": "a 1", "store": "s", "server": {"kind": "real", "version": "v"}, "kit": "0"}]
    for id_ in REQUIRED:
        for mode in MODES:
            note = {"event": "note", "id": id_, "mode": mode, "outcome": "passed", "controls": 1, "attacks": 1}
            made.append({**note, **changed.get(f"{id_}_{mode}", {})})
    return [*made, {"event": "end"}]


FAILED = {
    "outcome": "failed",
    "reason": "r",
    "attacked": "a <b>search</b>\x00",
    "back": "7 rows",
    "why": "foreign",
    "reproduce": "vectoracl conformance x --only W3 --seed 1",
}


@pytest.fixture
def report():
    return collected(Ask("x", decoys=77), 1, events(W3_async=FAILED), "")


def test_json_has_exactly_the_documented_keys(report, tmp_path):
    write_json(report, tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text())
    assert list(data) == [
        "verdict", "evidence", "deviations", "grades", "adapter", "store", "server", "certified", "census", "run",
        "seed", "decoys", "calls", "not_proved", "quick", "soak", "checks", "mutants",
    ]  # fmt: skip
    assert data["verdict"] == "not conformant"
    assert data["evidence"] is None
    assert list(data["grades"]) == ["E1", "E2v", "E2c", "E2s", "E3"]
    assert data["server"] == {"kind": "real", "version": "v"}
    assert data["decoys"] == 77
    assert len(data["checks"]) == 2 * len(REQUIRED)
    keys = {"id", "mode", "outcome", "seconds", "reason", "reproduce", "script"}
    assert all(set(one) == keys for one in data["checks"])


def test_a_failure_is_reported_with_its_details(report):
    stream = io.StringIO()
    print_table(report, Console(file=stream, width=120))
    text = stream.getvalue()
    for part in ("W3 async: failed", "attack: ", "result: 7 rows", "why it is a breach: foreign", "--only W3"):
        assert part in text
    assert text.rstrip().endswith("not conformant")


def test_junit(report, tmp_path):
    write_junit(report, tmp_path / "r.xml")
    suite = ET.parse(tmp_path / "r.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == (str(2 * len(REQUIRED)), "1", "0")
    assert not suite.findall(".//skipped")


def test_what_is_missing_is_an_error_in_junit(tmp_path):
    report = collected(Ask("x"), 1, [one for one in events() if one.get("id") != "R1"], "")
    write_junit(report, tmp_path / "r.xml")
    assert ET.parse(tmp_path / "r.xml").getroot().get("errors") == "2"


def test_the_page_is_self_contained_and_escaped(report):
    page = html(report)
    assert "<b>search" not in page
    assert "&lt;b&gt;search" in page
    assert not re.findall(r'(?:src|href)="|url\(|<script|@import', page)
    assert page.count('<tr id="') == len(REQUIRED)


MUTANT = {
    "event": "mutant",
    "name": "m <1>",
    "breaks": "b & c",
    "expected": "R1",
    "killed_by": ["R1", "R2"],
    "reasons": [],
}
GRADES = [
    {"event": "grade", "grade": "E2v", "state": "passed", "reason": "equal"},
    {"event": "grade", "grade": "E3", "state": "abstained", "reason": "the counter does not count"},
]


def of(kind):
    """Return a function that demands exactly this: a type, a set of permitted values, a list or an object."""

    def check(value, place):
        if isinstance(kind, dict):
            assert isinstance(value, dict), place
            assert list(value) == list(kind), place
            for name, inner in kind.items():
                of(inner)(value[name], f"{place}.{name}")
        elif isinstance(kind, list):
            assert isinstance(value, list), place
            for number, one in enumerate(value):
                of(kind[0])(one, f"{place}[{number}]")
        elif isinstance(kind, set):
            assert value in kind, (place, value)
        else:
            assert type(value) in (kind if isinstance(kind, tuple) else (kind,)), (place, value)

    return check


STATE = {"passed", "failed", "abstained", "not run"}
SHAPE = {
    "verdict": {
        "conformant",
        "conformant with a declared deviation",
        "not conformant",
        "not measured",
        "nothing certified",
    },
    "evidence": {None, "E1", "E2", "E3"},
    "deviations": [{"id": {"R17", "W12"}, "why": str}],
    "grades": {"E1": STATE, "E2v": STATE, "E2c": STATE, "E2s": STATE, "E3": STATE},
    "adapter": str,
    "store": str,
    "server": {"kind": {"real", "independent", "in-process"}, "version": str},
    "certified": {"adapter": str, "distribution": str, "version": str, "digest": str},
    "census": {"in-process", "out-of-band"},
    "run": {"date": str, "versions": dict, "host": str},
    "seed": int,
    "decoys": int,
    "calls": {
        "number": int,
        "pairs": {"covered": int, "possible": int},
        "triples": {"covered": int, "possible": int},
        "left_out": [{"what": str, "why": str}],
        "dimension": int,
        "metric": str,
    },
    "not_proved": [str],
    "quick": bool,
    "soak": type(None),
    "checks": [
        {
            "id": set(REQUIRED),
            "mode": {"sync", "async"},
            "outcome": {"passed", "failed", "known deviation", "unsupported, verified", "not run", "abstained"},
            "seconds": (int, float),
            "reason": str,
            "reproduce": str,
            "script": str,
        }
    ],
    "mutants": [{"name": str, "breaks": str, "expected": {*REQUIRED, "E2v", "E2c", "E2s", "E3"}, "killed_by": [str]}],
}


@pytest.fixture
def everything():
    told = [
        *events(W3_async=FAILED, R5_sync={"outcome": "abstained", "reason": "control"}),
        *GRADES,
        {**MUTANT, "reasons": []},
    ]
    return collected(Ask("x", decoys=77), 1, told, "")


def test_the_json_has_the_documented_shape_and_no_other(everything, tmp_path):
    write_json(everything, tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text())
    of({**SHAPE, "certified": type(None)})(data, "report")  # it is not conformant
    assert data["grades"] == {"E1": "failed", "E2v": "passed", "E2c": "not run", "E2s": "not run", "E3": "abstained"}
    assert data["mutants"] == [{"name": "m <1>", "breaks": "b & c", "expected": "R1", "killed_by": ["R1", "R2"]}]
    assert {one["id"] for one in data["checks"]} == set(REQUIRED)
    with pytest.raises(AssertionError):
        of({**SHAPE, "certified": type(None)})({**data, "more": 1}, "report")
    with pytest.raises(AssertionError):
        of({**SHAPE, "certified": type(None)})({**data, "verdict": "fine"}, "report")


def test_junit_and_the_page_say_what_the_json_says(everything, tmp_path):
    write_junit(everything, tmp_path / "r.xml")
    data = everything.as_json()
    suite = ET.parse(tmp_path / "r.xml").getroot()
    told = {}
    for case in suite.findall("testcase"):
        bad = [child.get("message").partition(":")[0] for child in case]
        told[case.get("classname").removeprefix("conformance."), case.get("name")] = bad[0] if bad else "passed"
    assert told == {(one["id"], one["mode"]): one["outcome"] for one in data["checks"]}
    page = html(everything)
    rows = re.findall(
        r'<tr id="([A-Z0-9]+)">.*?</td><td>(?:<span[^>]*>)([^<]*)</span></td><td><span[^>]*>([^<]*)<', page
    )
    assert {(id_, mode): text for id_, *both in rows for mode, text in zip(MODES, both, strict=True)} == told
    for grade, state in data["grades"].items():
        assert re.search(rf"<th scope=row>{grade}</th><td><span[^>]*>{state}</span>", page)
    assert "m &lt;1&gt;" in page
    assert "b &amp; c" in page
    assert "the counter does not count" in page


def test_a_declared_deviation_is_in_every_form_of_the_report(tmp_path):
    known = {"outcome": "known deviation", "reason": "late: 1 row", "reproduce": "x"}
    report = collected(Ask("x", known={"W12": "a <lock> is missing", "R17": "unused"}), 1, events(W12_sync=known), "")
    assert report.exit_code == 0
    data = report.as_json()
    of(SHAPE)(data, "report")
    assert data["verdict"] == "conformant with a declared deviation"
    assert data["deviations"] == [{"id": "W12", "why": "a <lock> is missing"}]
    stream = io.StringIO()
    print_table(report, Console(file=stream, width=120))
    assert "declared deviation W12: a <lock> is missing" in stream.getvalue()
    assert stream.getvalue().rstrip().endswith("conformant with a declared deviation at E1")
    assert "a &lt;lock&gt; is missing" in html(report)
    write_junit(report, tmp_path / "r.xml")
    properties = {one.get("name"): one.get("value") for one in ET.parse(tmp_path / "r.xml").iter("property")}
    assert properties["verdict"] == "conformant with a declared deviation"
    assert properties["declared deviation W12"] == "a <lock> is missing"


@pytest.mark.parametrize("option", ["X6=it is slow", "R1=later", "R16=rare", "C1=later", "W12=", "W12"])
def test_a_deviation_that_cannot_be_declared_is_refused_before_the_run(option):
    result = CliRunner().invoke(app, ["no_such_module:harness", "--known", option])
    assert result.exit_code == 2
    assert "no_such_module" not in result.output


CODE = {"adapter": "a", "distribution": "a-dist", "version": "1", "digest": "0" * 64}
CALLS = {
    "event": "calls",
    "calls": 1234,
    "pairs": [900, 900],
    "triples": [5000, 5000],
    "left_out": {"hybrid queries": "the adapter does not <declare> them"},
    "dimension": 24,
    "metric": "cosine",
    "census": "out-of-band",
}


def measured_events(**changed):
    start, *rest = events()
    return [{**start, **changed}, {"event": "identity", **CODE}, CALLS, *rest]


def test_what_was_measured_is_in_every_form_of_the_report(tmp_path):
    report = collected(Ask("x"), 7, measured_events(), "")
    data = report.as_json()
    of(SHAPE)(data, "report")
    assert data["certified"] == CODE
    assert data["calls"]["left_out"] == [{"what": "hybrid queries", "why": "the adapter does not <declare> them"}]
    assert "on another host" in data["not_proved"]
    stream = io.StringIO()
    print_table(report, Console(file=stream, width=200))
    write_junit(report, tmp_path / "r.xml")
    parts = ("0" * 64, "1,234 generated calls", "100 % (900) of the pairs", "dimension 24", "out-of-band census",
             "hybrid queries (the adapter does not <declare> them)", "on another host")  # fmt: skip
    for text in (stream.getvalue(), html(report), (tmp_path / "r.xml").read_text()):
        for part in parts:
            assert part in text.replace("&lt;", "<").replace("&gt;", ">"), part


def test_fewer_calls_than_are_declared_are_not_measured():
    less = [{**one, "pairs": [899, 900]} if one is CALLS else one for one in measured_events()]
    report = collected(Ask("x"), 7, less, "")
    assert (report.judged.verdict, report.exit_code) == ("not measured", 2)
    assert "99.8 %" in report.problem
    assert report.as_json()["certified"] is None


def test_a_store_in_the_process_has_an_in_process_census():
    assert collected(Ask("x"), 7, events(), "").census == "out-of-band"
    boast = measured_events(census="out-of-band", code={"digest": "1"})  # the worker's own words do not count
    inside = [{**one, "census": "in-process"} if one is CALLS else one for one in boast]
    report = collected(Ask("x"), 7, inside, "")
    assert report.census == "in-process"
    assert report.as_json()["certified"] == CODE


def test_quick_certifies_nothing():
    report = collected(Ask("x", quick=True), 7, measured_events(), "")
    data = report.as_json()
    assert (data["verdict"], data["evidence"], data["certified"], report.exit_code) == (
        "nothing certified",
        None,
        None,
        3,
    )
    stream = io.StringIO()
    print_table(report, Console(file=stream, width=200))
    assert "For a certificate: vectoracl conformance x, without --quick" in stream.getvalue()
    assert collected(Ask("x", quick=True), 7, events(W3_async=FAILED), "").exit_code == 1
    assert collected(Ask("x", quick=True), 7, events()[:-13], "").exit_code == 2


@pytest.mark.parametrize("options", [("--quick", "--only", "R1"), ("--quick", "--hours", "1"), ("--quick", "--mutants"),
                                     ("--hours", "1", "--only", "R1")])  # fmt: skip
def test_options_that_do_not_go_together_are_refused(options):
    result = CliRunner().invoke(app, ["no_such_module:harness", *options])
    assert result.exit_code == 2
    assert "Leave" in result.output


def test_an_older_report_does_not_outlive_the_start_of_a_run(tmp_path):
    path = tmp_path / "r.json"
    write_json(collected(Ask("x"), 7, measured_events(), ""), path)
    assert json.loads(path.read_text())["verdict"] == "conformant"
    begin(Ask("x"), path, write_json)
    assert json.loads(path.read_text())["verdict"] == "not measured"
    write_json(collected(Ask("x"), 7, measured_events(), ""), path)
    result = CliRunner().invoke(app, ["no_such_module:harness", "--json", str(path)])
    assert result.exit_code == 2
    assert json.loads(path.read_text())["verdict"] == "not measured"


HOUR = 3600.0


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def soaked(hours, outcome):
    """Soak a conformant report with runs of half an hour; *outcome* gets the number of a run and returns its events."""
    clock, asks, seen = Clock(), [], []

    def repeat(ask, _watch):
        clock.now += HOUR / 2
        asks.append(ask)
        return collected(ask, len(asks), outcome(len(asks)), "")

    first = collected(Ask("x", seed=1, keep=True, timing=True), 1, events(), "")
    return soak(first, hours, seen.append, now=clock, repeat=repeat), asks, seen


def test_it_repeats_until_the_time_is_over():
    report, asks, seen = soaked(2, lambda _: events())
    assert (report.judged.verdict, report.exit_code) == ("conformant", 0)
    assert report.soak == {
        "hours": 2.0, "asked": 2, "runs": 4, "seeds": [1, 2, 3, 4], "ended": "the time is over", "failures": [],
    }  # fmt: skip
    assert {(one.only, one.seed, one.keep, one.timing) for one in asks} == {(verdict.CALLS, None, False, False)}
    assert [one["left"] for one in seen] == [1.5, 1.0, 0.5, 0.0]
    assert report.as_json()["soak"]["runs"] == 4


def test_a_failure_ends_it_and_decides():
    id_ = verdict.CALLS[0]
    report, asks, _ = soaked(9, lambda run: events(**({f"{id_}_sync": FAILED} if run == 3 else {})))
    assert len(asks) == 3
    assert (report.judged.verdict, report.exit_code) == ("not conformant", 1)
    assert [(one["seed"], one["id"], one["mode"]) for one in report.soak["failures"]] == [(3, id_, "sync")]
    assert "seed 3" in report.problem


def test_a_repetition_that_could_not_be_measured_takes_the_certificate():
    report, _, _ = soaked(9, lambda run: events() if run < 2 else events()[:1])
    assert (report.judged.verdict, report.exit_code) == ("not measured", 2)


def test_ctrl_c_ends_it_with_a_summary():
    def outcome(run):
        if run == 3:
            raise KeyboardInterrupt
        return events()

    report, _, _ = soaked(9, outcome)
    assert (report.judged.verdict, report.soak["runs"], report.soak["ended"]) == ("conformant", 2, "it was interrupted")
    stream = io.StringIO()
    print_table(report, Console(file=stream, width=200))
    assert "2 repetitions in 1.5 of 9 hours (it was interrupted), seeds 1, 2" in stream.getvalue()


@pytest.mark.parametrize("count", [0, 2, 5])
def test_the_summary_names_few_seeds(count):
    line = summary(
        {"runs": count, "hours": 1, "asked": 1, "ended": "it is over", "seeds": list(range(count)), "failures": []}
    )
    assert line.endswith({0: "seeds none", 2: "seeds 0, 1", 5: "seeds 0, 1, 2, …"}[count])


def test_a_run_without_the_generated_calls_certifies_nothing():
    ask = Ask("x", quick=True)
    assert ask.left_out == NOT_QUICK
    without = [one for one in measured_events() if one.get("id") not in ask.left_out and one["event"] != "calls"]
    report = collected(ask, 7, without, "")
    assert (report.judged.verdict, report.exit_code) == ("nothing certified", 3)
    assert "no generated calls; out-of-band census" in measured(report)
    assert (report := collected(Ask("x"), 7, without, "")).judged.verdict == "not measured"
    assert report.exit_code == 2


def test_what_was_left_out_is_shown_by_its_reason():
    left_out = {"a with b: it has no effect": "it has no effect", "c": "it has no effect", "d": "not declared"}
    events = [{**one, "left_out": left_out} if one is CALLS else one for one in measured_events()]
    lines = list(measured(collected(Ask("x"), 7, events, "")))
    assert "  left out: a with b and 1 more (it has no effect)" in lines
    assert "  left out: d (not declared)" in lines


def test_a_short_case_is_printed_and_a_long_program_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = {"version": 1, "stores": {"main": {"adapter": "memory"}}}
    step = ("sync", Call(writer("a"), "count", {"where": F.words == "x" * 900}))
    for steps, shown in (((step,), True), ((step,) * 20, False)):
        program = script(store, {}, {}, steps, Difference("sync", step[1], "it differs"))
        report = collected(Ask("x"), 1, events(C1_sync={**FAILED, "script": program}), "")
        stream = io.StringIO()
        print_table(report, Console(file=stream, width=120))
        (path,) = tmp_path.glob("*.py")
        assert path.name in stream.getvalue().replace("\n", "")
        assert path.read_text(encoding="utf-8") == program
        assert ("    STEPS = [" in stream.getvalue()) == shown
        path.unlink()
