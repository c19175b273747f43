"""The renderers of a posture: text for people, JSON for programs, SARIF for code scanning."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vectoracl.adapter_api.loading import load
from vectoracl.adapter_api.posture import CORE_RULES, PREFIXES, Finding, Posture, Rule, demand
from vectoracl.cli import rules_page
from vectoracl.cli.posture_report import (
    Report,
    json_summary,
    render_json,
    render_report,
    render_rule,
    render_sarif,
    render_script,
    render_text,
)

OPEN = Rule("XX001", "Row-level security is not enabled", "error", True, "Anybody reads everything.")
LATE = Rule("XX002", "The server lacks security fixes", "warning", False, "Known holes stay open.")
SAID = Rule("XX003", "Sizes are visible", "note", False, "Everybody sees how many rows there are.")
UNSURE = Rule("XX004", "It could not be judged", "warning", True, "What cannot be proven counts as open.")

POSTURE = Posture(
    "none",
    (
        Finding(SAID, "app.chunks", "Row estimates are open.", "-- Let no stranger run SQL."),
        Finding(LATE, "server", "18.4 is behind 18.6.", "-- Update the server."),
        Finding(UNSURE, "app.f()", "It builds statements.", "REVOKE EXECUTE ON FUNCTION app.f() FROM PUBLIC;"),
        Finding(OPEN, "app.chunks", "Not enabled.", 'ALTER TABLE "app"."chunks" ENABLE ROW LEVEL SECURITY;'),
    ),
    (("server", "PostgreSQL 18.4"), ("role", "app")),
)
CLEAN = Posture("engine", ())


def test_text_tells_all_worst_first() -> None:
    text = render_text(POSTURE)
    assert [text.index(i) for i in ("XX001", "XX004", "XX002", "XX003")] == sorted(
        text.index(i) for i in ("XX001", "XX002", "XX003", "XX004")
    )
    for part in ("PostgreSQL 18.4", 'ALTER TABLE "app"."chunks" ENABLE', "Anybody reads everything.", "app.f()"):
        assert part in text
    summary = "grade none · 1 error, 2 warnings, 1 note · lowered by XX001, XX004"
    assert text.splitlines()[0] == text.splitlines()[-1] == summary
    assert "\x1b" not in text
    assert "\x1b[" in render_text(POSTURE, color=True)
    assert render_text(CLEAN) == "grade engine · nothing found\n"


def test_text_keeps_its_width() -> None:
    long = Finding(OPEN, "s." + "t" * 200, "m " * 200, "ALTER TABLE " + "x" * 300 + ";")
    for line in render_text(Posture("none", (long,)), width=80).splitlines():
        assert len(line) <= 80


def test_foreign_names_steer_neither_terminal_nor_markup() -> None:
    evil = Finding(OPEN, "[bold]x[/bold]\x1b[2J\u202e", ":smile: [red]\x07", "DROP TABLE \x9b31m;")
    text = render_text(Posture("none", (evil,), (("\x1b]0;t", "[/]"),)), color=True)
    assert "[bold]x[/bold]" in text
    assert "\\x1b[2J" in text
    assert ":smile: [red]" in text
    for character in ("\x07", "\x9b", "\u202e", "\x1b[2J", "\x1b]"):
        assert character not in text


def test_explain() -> None:
    text = render_rule(UNSURE)
    assert "XX004 It could not be judged" in text
    assert "counts as open" in text
    assert "warning · lowers the grade to none" in text
    assert "does not lower" in render_rule(LATE)


def test_json_is_stable() -> None:
    document = json.loads(render_json(POSTURE))
    assert list(document) == ["format", "grade", "facts", "findings"]
    assert document["format"] == "vectoracl-posture/1"
    assert document["facts"] == {"server": "PostgreSQL 18.4", "role": "app"}
    assert [f["rule"] for f in document["findings"]] == ["XX001", "XX004", "XX002", "XX003"]
    assert document["findings"][0] == {
        "rule": "XX001",
        "title": OPEN.title,
        "severity": "error",
        "lowers": True,
        "subject": "app.chunks",
        "message": "Not enabled.",
        "explanation": OPEN.explanation,
        "fix": 'ALTER TABLE "app"."chunks" ENABLE ROW LEVEL SECURITY;',
        "page": "",
    }
    shuffled = Posture(POSTURE.grade, POSTURE.findings[::-1], POSTURE.facts)
    assert render_json(shuffled) == render_json(POSTURE)
    assert json.loads(render_json(CLEAN))["findings"] == []


# The parts of the SARIF 2.1.0 schema that a result with logical locations touches: keys that are allowed, and needed.
ALLOWED = {
    "log": ({"$schema", "version", "runs", "properties"}, {"version", "runs"}),
    "run": ({"tool", "columnKind", "invocations", "results", "properties"}, {"tool"}),
    "driver": ({"name", "version", "informationUri", "rules"}, {"name"}),
    "rule": (
        {"id", "name", "shortDescription", "fullDescription", "help", "defaultConfiguration", "properties"},
        {"id"},
    ),
    "message": ({"text", "markdown"}, {"text"}),
    "result": (
        {"ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints", "properties"},
        {"message"},
    ),
    "logical": ({"name", "fullyQualifiedName", "kind"}, set()),
}  # fmt: skip


def shape(kind: str, value: dict[str, object]) -> None:
    allowed, needed = ALLOWED[kind]
    assert needed <= value.keys() <= allowed, kind


@pytest.mark.parametrize("posture", [POSTURE, CLEAN], ids=["findings", "clean"])
def test_sarif_has_the_form_of_2_1_0(posture: Posture) -> None:
    log = json.loads(render_sarif(posture, version="1.2.3", rules=[SAID, LATE]))
    shape("log", log)
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    shape("run", run)
    assert run["columnKind"] in {"utf16CodeUnits", "unicodeCodePoints"}
    assert run["invocations"] == [{"executionSuccessful": True}]
    assert run["tool"].keys() == {"driver"}
    driver = run["tool"]["driver"]
    shape("driver", driver)
    assert driver["version"] == "1.2.3"
    assert driver["informationUri"].startswith("https://")
    rules = driver["rules"]
    assert [r["id"] for r in rules] == sorted({r.id for r in (SAID, LATE)} | {f.rule.id for f in posture.findings})
    for rule in rules:
        shape("rule", rule)
        shape("message", rule["help"])
        assert rule["shortDescription"]["text"]
        assert rule["fullDescription"]["text"]
        assert rule["name"].isalnum()
        assert rule["defaultConfiguration"]["level"] in {"none", "note", "warning", "error"}
    assert len(run["results"]) == len(posture.findings)
    for result in run["results"]:
        shape("result", result)
        shape("message", result["message"])
        assert result["level"] in {"none", "note", "warning", "error"}
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        (location,) = result["locations"]
        assert location.keys() == {"logicalLocations"}
        (logical,) = location["logicalLocations"]
        shape("logical", logical)
        assert logical["fullyQualifiedName"]
        assert all(isinstance(v, str) for v in result["partialFingerprints"].values())
    assert run["properties"]["grade"] == posture.grade


def test_sarif_fingerprints_tell_findings_apart_and_stay() -> None:
    def prints(posture: Posture) -> set[str]:
        results = json.loads(render_sarif(posture))["runs"][0]["results"]
        return {r["partialFingerprints"]["vectoraclFinding/v1"] for r in results}

    assert len(prints(POSTURE)) == len(POSTURE.findings)
    assert prints(POSTURE) == prints(Posture("none", POSTURE.findings[::-1]))


SECOND = Posture(
    "engine",
    (
        Finding(LATE, "server", "18.4 is behind 18.6.", "-- Update the server."),
        Finding(SAID, "app.other", "Row estimates are open.", "-- Let no stranger run SQL."),
    ),
    (("table", "app.other"),),
    (("server", "-- server\n"), ("app.other", "-- other\n")),
)
THIRD = Posture("engine", ())
FOUND = {"app.chunks": POSTURE, "app.other": SECOND, "app.clean": THIRD}


def test_a_summary_comes_first_and_what_is_shared_is_told_once() -> None:
    report = Report.of(FOUND)
    assert report.count == 5
    text = render_report(report)
    lines = text.splitlines()
    assert "summary" in lines[0]
    for number, (name, grade) in enumerate(
        [("app.chunks", "none"), ("app.other", "engine"), ("app.clean", "engine")], 1
    ):
        assert name in lines[number]
        assert f"grade {grade}" in lines[number]
    assert text.count("18.4 is behind 18.6.") == 1
    assert "In app.chunks, app.other." in text
    assert "In app.chunks, app.other." not in render_report(Report.of({"a": SECOND, "b": SECOND}))
    assert json_summary(report)[0] == {
        "store": "app.chunks",
        "grade": "none",
        "errors": 1,
        "warnings": 2,
        "notes": 1,
        "lowered_by": ["XX001", "XX004"],
    }
    assert [(f.rule.id, names) for f, names in report.common] == [("XX002", ("app.chunks", "app.other"))]
    assert render_report(Report.of({"x": POSTURE})) == render_text(POSTURE)


def test_a_script_has_each_part_once_and_the_shared_ones_first() -> None:
    other = Posture("none", (), (), (("server", "-- server\n"), ("x", "-- x\x1b[2J\n")))
    text = render_script(Report.of({"a": SECOND, "b": other}))
    assert text == "-- server\n\n-- other\n\n-- x\\x1b[2J\n"
    assert render_script(Report.of({"a": THIRD})) == ""


def test_every_rule_of_ours_has_its_place_on_the_page() -> None:
    """`python -m vectoracl.cli.rules_page > docs/rules.md` writes it."""
    root = Path(__file__).parent.parent
    written = (root / "docs" / "rules.md").read_text()
    assert written == rules_page.page()
    anchors = {heading.lower() for heading in re.findall(r"^### (\w+)$", written, re.MULTILINE)}
    ours = list(CORE_RULES.values())
    for adapter in PREFIXES.values():
        ours += () if adapter == "vectoracl" else load(adapter).vectoracl_rules()
    for rule in ours:
        page, _, anchor = rule.page.partition("#")
        assert (page, anchor in anchors) == ("rules.md", True), rule.id
        assert rule.page in render_rule(rule)
        assert rule.page in render_text(Posture("none", (Finding(rule, "x", "m", "f"),)))
    assert len(anchors) == len(ours)
    assert "rules.md" in (root / "mkdocs.yml").read_text()


@pytest.mark.parametrize(
    ("grade", "demanded", "found"),
    [("none", "engine", True), ("engine", "engine", False), ("engine", "credential", True), ("none", None, False),
     ("strange", "predicate", True), ("none", "none", False)],
)  # fmt: skip
def test_a_minimum_grade_that_is_not_reached_is_a_finding(grade: str, demanded: str | None, found: bool) -> None:
    grades = ("none", "predicate", "partition", "engine", "credential")
    posture = demand(Posture(grade, POSTURE.findings), demanded, "main", grades)
    assert ("VA001" in {f.rule.id for f in posture.findings}) is found
    if found:
        text = posture.findings[-1]
        assert demanded is not None
        assert grade in text.message
        assert demanded in text.message
        assert "XX001, XX004" in text.fix
