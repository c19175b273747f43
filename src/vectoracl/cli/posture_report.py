"""A posture as text, JSON and SARIF 2.1.0: pure functions from data to str, the same for every store.

Names of a store's objects are foreign text: control characters are shown as escapes and never as markup.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vectoracl.adapter_api.posture import Finding, Posture, Rule, Severity

_ORDER: Final[dict[Severity, int]] = {"error": 0, "warning": 1, "note": 2}
_STYLE: Final[dict[Severity, str]] = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_SARIF_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_HOME: Final = "https://pypi.org/project/vectoracl/"


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in several places, with what is the same in more than one of them told once.

    `common` holds a finding with the names of the places that share it (the role, the server); `own` the rest by place.
    """

    postures: Mapping[str, Posture]
    common: tuple[tuple[Finding, tuple[str, ...]], ...]
    own: Mapping[str, tuple[Finding, ...]]

    @classmethod
    def of(cls, found: Mapping[str, Posture]) -> Report:
        """Sort the findings of *found*."""
        places: dict[Finding, list[str]] = {}
        for name, posture in found.items():
            for finding in dict.fromkeys(posture.findings):
                places.setdefault(finding, []).append(name)
        common = {finding: tuple(names) for finding, names in places.items() if len(names) > 1}
        own = {name: tuple(_sorted(f for f in one.findings if f not in common)) for name, one in found.items()}
        return cls(found, tuple((finding, common[finding]) for finding in _sorted(common)), own)

    @property
    def count(self) -> int:
        """How many different findings there are."""
        return len(self.common) + sum(len(findings) for findings in self.own.values())


def render_report(report: Report, *, width: int = 100, color: bool = False) -> str:
    """For people: a summary, what is true of several tables, and then each table."""
    if len(report.postures) == 1:
        (posture,) = report.postures.values()
        return render_text(posture, width=width, color=color)
    grid = Table.grid(padding=(0, 2))
    for name, posture in report.postures.items():
        grid.add_row(Text(_clean(name), "bold", overflow="fold"), _conclusion(posture))
    parts: list[Any] = [Panel(grid, title="summary", title_align="left", border_style="dim")]
    if report.common:
        parts.append(Text("The role, the server and what several tables share", "bold"))
        parts += [_panel(finding, names, report) for finding, names in report.common]
    text = _drawn(Group(*parts), width, color=color)
    for name, posture in report.postures.items():
        text += _drawn(Text(_clean(name), "bold"), width, color=color)
        text += render_text(replace(posture, findings=report.own[name]), width=width, color=color, summary=False)
    return text


def render_script(report: Report) -> str:
    """The scripts of all places, one after the other: each part once, and at its end what no script changes."""
    parts: dict[tuple[str, str], None] = {}
    for posture in report.postures.values():
        parts.update(dict.fromkeys(posture.script))
    # What is for all of them goes first, in the order in which the places begin with it.
    first = [posture.script[0] for posture in report.postures.values() if posture.script]
    ordered = [*dict.fromkeys(first), *(part for part in parts if part not in first)]
    return "\n".join(_clean(text) for _, text in ordered)


def render_text(posture: Posture, *, width: int = 100, color: bool = False, summary: bool = True) -> str:
    """For people: the grade, what was looked at, each finding with the statement that fixes it, and the grade again."""
    parts: list[Any] = []
    if summary and posture.findings:
        parts.append(_conclusion(posture))
    if posture.facts:
        facts = Table.grid(padding=(0, 2))
        for name, value in posture.facts:
            facts.add_row(Text(_clean(name), style="dim"), Text(_clean(value)))
        parts.append(Panel(facts, title="posture", title_align="left", border_style="dim"))
    findings = _sorted(posture.findings)
    parts += [_panel(finding) for finding in findings]
    if summary:
        parts.append(_conclusion(posture))
    return _drawn(Group(*parts), width, color=color) if parts else ""


def _conclusion(posture: Posture) -> Text:
    findings = posture.findings
    counts = [f"{n} {severity}{'' if n == 1 else 's'}" for severity in _ORDER if (n := _count(findings, severity))]
    end = Text("grade ")
    end.append(posture.grade, style="bold red" if posture.grade == "none" else "bold green")
    end.append(f" · {', '.join(counts) or 'nothing found'}")
    lowering = sorted({f.rule.id for f in findings if f.rule.lowers})
    if lowering:
        end.append(f" · lowered by {', '.join(lowering)}")
    return end


def render_rule(rule: Rule, *, width: int = 100, color: bool = False) -> str:
    """What `--explain ID` prints."""
    effect = "lowers the grade to none" if rule.lowers else "does not lower the grade"
    page = f" · {rule.page}" if rule.page else ""
    body = Group(Text(rule.explanation), Text(f"\n{rule.severity} · {effect}{page}", style="dim"))
    title = Text(f"{rule.id} {rule.title}")
    return _drawn(Panel(body, title=title, title_align="left", border_style=_STYLE[rule.severity]), width, color=color)


def render_json(posture: Posture) -> str:
    """For programs. Keys are only ever added; `format` changes if one has to change its meaning."""
    findings = [json_finding(finding) for finding in _sorted(posture.findings)]
    document = {
        "format": "vectoracl-posture/1",
        "grade": posture.grade,
        "facts": dict(posture.facts),
        "findings": findings,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def json_finding(finding: Finding) -> dict[str, object]:
    """Return one finding as `render_json` has it."""
    return {
        "rule": finding.rule.id,
        "title": finding.rule.title,
        "severity": finding.rule.severity,
        "lowers": finding.rule.lowers,
        "subject": finding.subject,
        "message": finding.message,
        "explanation": finding.rule.explanation,
        "fix": finding.fix,
        "page": finding.rule.page,
    }


def json_summary(report: Report) -> list[dict[str, object]]:
    """Return a line for each place: its grade, and which rules lower it, also those that several places share."""
    return [
        {
            "store": _clean(name),
            "grade": posture.grade,
            **{f"{severity}s": _count(posture.findings, severity) for severity in _ORDER},
            "lowered_by": sorted({f.rule.id for f in posture.findings if f.rule.lowers}),
        }
        for name, posture in report.postures.items()
    ]


def render_sarif(posture: Posture, *, version: str = "0", rules: Sequence[Rule] = ()) -> str:
    """For code scanning: SARIF 2.1.0 with one run. Locations are logical, as a posture has no file.

    *version* is vectoracl's; *rules* may hold the adapter's whole catalogue, else those that were found are listed.
    """
    catalogue = {rule.id: rule for rule in [*rules, *(finding.rule for finding in posture.findings)]}
    index = {identifier: at for at, identifier in enumerate(sorted(catalogue))}
    run = {
        "tool": {
            "driver": {
                "name": "vectoracl",
                "version": version,
                "informationUri": _HOME,
                "rules": [_sarif_rule(catalogue[identifier]) for identifier in index],
            }
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True}],
        "results": [_sarif_result(finding, index) for finding in _sorted(posture.findings)],
        "properties": {"grade": posture.grade, "facts": dict(posture.facts)},
    }
    return (
        json.dumps({"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"
    )


def _sarif_rule(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "name": "".join(word[:1].upper() + word[1:] for word in _words(rule.title)),
        "shortDescription": {"text": f"{rule.title}."},
        "fullDescription": {"text": rule.explanation},
        "help": {"text": rule.explanation, "markdown": f"**{rule.id}: {rule.title}**\n\n{rule.explanation}"},
        "defaultConfiguration": {"level": rule.severity},
        "properties": {"tags": ["security"], "lowersGrade": rule.lowers},
    }


def _sarif_result(finding: Finding, index: dict[str, int]) -> dict[str, object]:
    print_of = hashlib.sha256("\0".join((finding.rule.id, finding.subject, finding.message)).encode()).hexdigest()
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": index[finding.rule.id],
        "level": finding.rule.severity,
        "message": {"text": f"{finding.message}\nFix: {finding.fix}"},
        "locations": [
            {
                "logicalLocations": [
                    {
                        "name": finding.subject.rpartition(".")[2] or finding.subject,
                        "fullyQualifiedName": finding.subject,
                        "kind": "resource",
                    }
                ]
            }
        ],
        "partialFingerprints": {"vectoraclFinding/v1": print_of},
        "properties": {"fix": finding.fix, "lowersGrade": finding.rule.lowers},
    }


def _panel(finding: Finding, places: tuple[str, ...] = (), report: Report | None = None) -> Panel:
    rule = finding.rule
    style = _STYLE[rule.severity]
    title = Text.assemble((rule.id, style), " ", (rule.title, "bold"), (f"  {rule.severity}", style))
    lines = [Text(_clean(finding.message))]
    if report is not None and len(places) < len(report.postures):
        lines.append(Text(f"In {_clean(', '.join(places))}.", overflow="fold"))
    lines.append(Text(rule.explanation, style="dim"))
    lines.append(Text(_clean(finding.fix), style="green", overflow="fold"))
    if rule.page:
        lines.append(Text(f"{rule.page} · vectoracl check --explain {rule.id}", style="dim", overflow="fold"))
    body = Group(*lines)
    return Panel(body, title=title, title_align="left", subtitle=Text(_clean(finding.subject)), subtitle_align="right",
                 border_style=style if rule.lowers else "dim")  # fmt: skip


def _drawn(content: object, width: int, *, color: bool) -> str:
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=color, color_system="standard" if color else None, no_color=not color,
        highlight=False, markup=False, emoji=False, legacy_windows=False,
    )  # fmt: skip
    console.print(content)
    return out.getvalue()


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    """What refuses the start first, then by severity; stable within."""
    return sorted(findings, key=lambda f: (not f.rule.lowers, _ORDER[f.rule.severity], f.rule.id, f.subject, f.message))


def _count(findings: Iterable[Finding], severity: Severity) -> int:
    return sum(finding.rule.severity == severity for finding in findings)


def _words(title: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in title).split()


def _clean(text: str) -> str:
    """Show control and format characters as escapes, except line ends: a name must not steer the terminal."""
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)
