"""A posture as text, JSON and SARIF 2.1.0: pure functions from data to str, the same for every store.

Names of a store's objects are foreign text: control characters are shown as escapes and never as markup.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vectoracl.findings import Finding, Posture, Rule, Severity

_ORDER: Final[dict[Severity, int]] = {"error": 0, "warning": 1, "note": 2}
_STYLE: Final[dict[Severity, str]] = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_SARIF_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_HOME: Final = "https://pypi.org/project/vectoracl/"


def render_text(posture: Posture, *, width: int = 100, color: bool = False) -> str:
    """For people: what was looked at, each finding with the statement that mends it, and the grade at the end."""
    parts: list[Any] = []
    if posture.facts:
        facts = Table.grid(padding=(0, 2))
        for name, value in posture.facts:
            facts.add_row(Text(_clean(name), style="dim"), Text(_clean(value)))
        parts.append(Panel(facts, title="posture", title_align="left", border_style="dim"))
    findings = _sorted(posture.findings)
    parts += [_panel(finding) for finding in findings]
    counts = [f"{n} {severity}{'' if n == 1 else 's'}" for severity in _ORDER if (n := _count(findings, severity))]
    end = Text("grade ")
    end.append(posture.grade, style="bold red" if posture.grade == "none" else "bold green")
    end.append(f" · {', '.join(counts) or 'nothing found'}")
    lowering = sorted({f.rule.id for f in findings if f.rule.lowers})
    if lowering:
        end.append(f" · lowered by {', '.join(lowering)}")
    return _drawn(Group(*parts, end), width, color=color)


def render_rule(rule: Rule, *, width: int = 100, color: bool = False) -> str:
    """What `--explain ID` prints."""
    effect = "lowers the grade to none" if rule.lowers else "does not lower the grade"
    body = Group(Text(rule.explanation), Text(f"\n{rule.severity} · {effect}", style="dim"))
    title = Text(f"{rule.id} {rule.title}")
    return _drawn(Panel(body, title=title, title_align="left", border_style=_STYLE[rule.severity]), width, color=color)


def render_json(posture: Posture) -> str:
    """For programs. Keys are only ever added; `format` changes if one has to change its meaning."""
    findings = [
        {
            "rule": finding.rule.id,
            "title": finding.rule.title,
            "severity": finding.rule.severity,
            "lowers": finding.rule.lowers,
            "subject": finding.subject,
            "message": finding.message,
            "explanation": finding.rule.explanation,
            "fix": finding.fix,
        }
        for finding in _sorted(posture.findings)
    ]
    document = {
        "format": "vectoracl-posture/1",
        "grade": posture.grade,
        "facts": dict(posture.facts),
        "findings": findings,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


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


def _panel(finding: Finding) -> Panel:
    rule = finding.rule
    style = _STYLE[rule.severity]
    title = Text.assemble((rule.id, style), " ", (rule.title, "bold"), (f"  {rule.severity}", style))
    body = Group(
        Text(_clean(finding.message)),
        Text(rule.explanation, style="dim"),
        Text(_clean(finding.fix), style="green", overflow="fold"),
    )
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
