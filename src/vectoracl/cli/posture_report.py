"""Rendering of a posture as text, JSON and SARIF 2.1.0: pure functions, the same for every store.

Names of a store's objects are untrusted text: control characters are shown as escapes and never as markup.
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
    """The findings of several stores or tables, with shared findings listed once.

    `common` holds findings with the names of the stores or tables that share them (for example about the role or the
    server); `own` holds the other findings by name.
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
        """The number of distinct findings."""
        return len(self.common) + sum(len(findings) for findings in self.own.values())


def render_report(report: Report, *, width: int = 100, color: bool = False) -> str:
    """Return *report* as text for people: a summary, the shared findings, and then each table."""
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
    """Return the scripts of all stores in order: each part once, and at its end what no script can change."""
    parts: dict[tuple[str, str], None] = {}
    for posture in report.postures.values():
        parts.update(dict.fromkeys(posture.script))
    # Shared parts go first, in the order of the scripts that begin with them.
    first = [posture.script[0] for posture in report.postures.values() if posture.script]
    ordered = [*dict.fromkeys(first), *(part for part in parts if part not in first)]
    return "\n".join(_clean(text) for _, text in ordered)


def render_text(posture: Posture, *, width: int = 100, color: bool = False, summary: bool = True) -> str:
    """Return *posture* as text for people: the grade, the facts, each finding with its fix, and the grade again."""
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
    """Return the text of `--explain ID`."""
    effect = "lowers the grade to none" if rule.lowers else "does not lower the grade"
    page = f" · {rule.page}" if rule.page else ""
    body = Group(Text(rule.explanation), Text(f"\n{rule.severity} · {effect}{page}", style="dim"))
    title = Text(f"{rule.id} {rule.title}")
    return _drawn(Panel(body, title=title, title_align="left", border_style=_STYLE[rule.severity]), width, color=color)


def render_json(posture: Posture) -> str:
    """Return *posture* as JSON. Keys are only added; `format` changes if the meaning of a key has to change."""
    findings = [json_finding(finding) for finding in _sorted(posture.findings)]
    document = {
        "format": "vectoracl-posture/1",
        "grade": posture.grade,
        "facts": dict(posture.facts),
        "findings": findings,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def json_finding(finding: Finding) -> dict[str, object]:
    """Return one finding in the form of `render_json`."""
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
    """Return an entry per store or table: its grade and the rules that lower it, including shared findings."""
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
    """Return *posture* as SARIF 2.1.0 with one run, for code scanning. Locations are logical: there are no files.

    *version* is vectoracl's; *rules* may hold all rules of the adapter, else those of the findings are listed.
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
    """Sort findings: those that lower the grade first, then by severity."""
    return sorted(findings, key=lambda f: (not f.rule.lowers, _ORDER[f.rule.severity], f.rule.id, f.subject, f.message))


def _count(findings: Iterable[Finding], severity: Severity) -> int:
    return sum(finding.rule.severity == severity for finding in findings)


def _words(title: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in title).split()


def _clean(text: str) -> str:
    """Show control and format characters as escapes, except line ends: a name must not steer the terminal."""
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)
