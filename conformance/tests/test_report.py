"""The report: exactly the documented JSON, JUnit without skips, one page that loads nothing."""

import io
import json
import re
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from vectoracl_conformance.report import html, print_table, write_json, write_junit
from vectoracl_conformance.runner import Ask, collected
from vectoracl_conformance.verdict import MODES, REQUIRED


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
        "verdict", "evidence", "grades", "adapter", "store", "server", "decoys", "checks", "mutants",
    ]  # fmt: skip
    assert data["verdict"] == "not conformant"
    assert data["evidence"] is None
    assert list(data["grades"]) == ["E1", "E2v", "E2c", "E2s", "E3"]
    assert data["server"] == {"kind": "real", "version": "v"}
    assert data["decoys"] == 77
    assert len(data["checks"]) == 2 * len(REQUIRED)
    assert all(set(one) == {"id", "mode", "outcome", "seconds", "reason"} for one in data["checks"])


def test_a_failure_tells_its_story(report):
    stream = io.StringIO()
    print_table(report, Console(file=stream, width=120))
    text = stream.getvalue()
    for part in ("W3 async: failed", "attacked: ", "came back: 7 rows", "why it is a breach: foreign", "--only W3"):
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
