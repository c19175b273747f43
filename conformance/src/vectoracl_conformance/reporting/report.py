"""Writes the report in four forms, from the same data: JSON, a table in the terminal, JUnit XML and an HTML page."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vectoracl._util.private_files import write_output
from vectoracl_conformance.checks import CHECKS
from vectoracl_conformance.generated.script import case
from vectoracl_conformance.running.certificate import NOT_PROVED, certified
from vectoracl_conformance.running.run_facts import EVIDENCE, one_line
from vectoracl_conformance.running.runner import Ask, Report, collected
from vectoracl_conformance.running.soak import summary
from vectoracl_conformance.verdict import GRADES, MISSING, MODES, PROVISIONAL, REQUIRED, Noted

_COLOURS = {
    "passed": "green",
    "unsupported, verified": "green",
    "failed": "red",
    "known deviation": "red",
    "abstained": "yellow",
    "not run": "yellow",
    "conformant": "green",
    "conformant with a declared deviation": "yellow",
    "not conformant": "red",
    "not measured": "yellow",
    "nothing certified": "yellow",
}


def title(id_: str) -> str:
    """Return the title of a check."""
    check = CHECKS.get(id_)
    new = f" (provisional until {PROVISIONAL[id_]})" if id_ in PROVISIONAL else ""
    return check.title + new if check is not None else ""


def failure_details(note: Noted) -> Iterator[tuple[str, str]]:
    """Yield the details of a check that did not pass: pairs of heading and text."""
    if note.why:
        yield "attack", note.attacked
        yield "result", note.back
        yield "why it is a breach", note.why
    elif note.reason:
        yield "reason", note.reason
    if note.reproduce:
        yield "reproduce", note.reproduce
    if note.script:
        yield _PROGRAM, note.script


_PROGRAM = "program that shows it without the kit"
_SHORT, _LINES = 8_000, 60
"""The number of characters, and of lines, up to which a case is printed in the terminal."""


def _for_terminal(note: Noted, written: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the details with the path of a file instead of the program, and its case where that is short.

    Both modes may have the same program; *written* has the paths of those that are already in a file.
    """
    for heading, text in failure_details(note):
        if heading != _PROGRAM:
            yield heading, text
            continue
        if text in written:
            yield heading, written[text]
            continue
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix=f"vectoracl-{note.id}-{note.mode}-", suffix=".py", delete=False
        ) as file:
            file.write(text)
        written[text] = file.name
        yield heading, file.name
        lines = case(text).splitlines()
        if len(lines) <= _LINES and sum(map(len, lines)) <= _SHORT:
            yield "its case", "\n" + "\n".join(f"    {line}" for line in lines)


def wrong(report: Report) -> list[Noted]:
    """Return the outcomes that are neither passed nor verified as unsupported."""
    return [note for note in report.judged.checks if note.outcome not in ("passed", "unsupported, verified")]


def measured(report: Report) -> Iterator[str]:
    """Yield lines about what was measured: the code, the calls, what was left out, the census, and repetitions."""
    code = certified(report.about)
    if code["digest"]:
        yield f"{code['distribution']} {code['version']}, sha256 of its files {code['digest']}"
    yield f"{report.calls.line()}; {report.census} census"
    by_reason: dict[str, list[str]] = {}
    for what, why in sorted(report.calls.left_out.items()):
        by_reason.setdefault(why, []).append(what.removesuffix(f": {why}"))
    for why, parts in by_reason.items():
        more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
        yield f"  left out: {parts[0]}{more} ({why})"
    if report.soak is not None:
        yield summary(report.soak)


def next_step(report: Report) -> str:
    """Return what to do after this verdict."""
    verdict, ask = report.judged.verdict, report.ask
    if verdict == "nothing certified":
        return f"Nothing failed. For a certificate: vectoracl conformance {ask.name}, without --quick."
    if verdict == "not conformant" and not ask.only:
        return 'Repeat one failure by the line after "reproduce".'
    if verdict == "not measured" and not ask.only:
        limit = " If the machine is busy, give --timeout more seconds." if "timeout" in _reasons(report) else ""
        return f"A check that was not run or abstained is not passed: remove the reason above, and run it again.{limit}"
    return ""


def _reasons(report: Report) -> str:
    return " ".join([report.problem, *(note.reason for note in report.judged.checks)])


def write_json(report: Report, path: Path) -> None:
    """Write the machine-readable report."""
    text = json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n"
    write_output(path, text.encode("utf-8", "replace"))


def print_table(report: Report, console: Console) -> None:
    """Print the table of checks, the details of those that did not pass, and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "check", *MODES, "seconds"):
        table.add_column(name, overflow="fold")
    by_place = {(note.id, note.mode): note for note in report.judged.checks}
    for id_ in dict.fromkeys(note.id for note in report.judged.checks):
        notes = [by_place[id_, mode] for mode in MODES]
        if report.ask.only and id_ not in report.ask.only:
            continue
        cells = [Text(note.outcome, _COLOURS[note.outcome]) for note in notes]
        table.add_row(Text(id_, "bold"), title(id_), *cells, f"{sum(note.seconds for note in notes):.2f}")
    if report.about:
        console.print(table)
    written: dict[str, str] = {}
    for note in wrong(report):
        if (report.ask.only and note.id not in report.ask.only) or note.reason == MISSING:
            continue
        console.print(Text(f"\n{note.id} {note.mode}: {note.outcome}", f"bold {_COLOURS[note.outcome]}"))
        for heading, text in _for_terminal(note, written):
            console.print(Text.assemble((f"  {heading}: ", "dim"), text), soft_wrap=True)
    if report.mutants:
        console.print()
        matrix = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("mutant", "must be killed by", "killed by"):
            matrix.add_column(name, overflow="fold")
        for one in report.mutants:
            right = one["expected"] in one["killed_by"]
            matrix.add_row(
                one["name"],
                one["expected"],
                Text(" ".join(one["killed_by"]) or "survived", "green" if right else "red"),
            )
        console.print(matrix)
    if report.ask.timing:
        for note in report.judged.checks:
            if (note.id, note.mode, note.outcome) == ("R4", "sync", "passed"):
                console.print(Text(f"\nR4 {note.reason}", "dim"), soft_wrap=True)
    if report.about:
        server, adapter = report.about.get("server", {}), report.about.get("adapter", report.ask.name)
        who = f"{adapter} on {server.get('version', '?')} ({server.get('kind', '?')})"
        console.print(Text(f"\n{who}, {report.ask.decoys} decoys, seed {report.seed}", "dim"), soft_wrap=True)
        console.print(Text(one_line(report.run), "dim"), soft_wrap=True)
        for line in measured(report):
            console.print(Text(line, "dim"), soft_wrap=True)
    for grade in GRADES if report.about and not report.ask.only else ():
        state = report.judged.grades[grade]
        reason = report.reasons.get(grade, "")
        console.print(Text.assemble((f"  {grade:4}", "bold"), (state, _COLOURS[state]), f"  {reason}"), soft_wrap=True)
        console.print(Text(f"      examines {EVIDENCE[grade]}", "dim"), soft_wrap=True)
    if report.problem:
        console.print(Text(report.problem, "red"), soft_wrap=True)
    verdict = report.judged.verdict
    evidence = f" at {report.judged.evidence}" if report.judged.conformant and report.judged.evidence else ""
    if report.ask.only and not report.problem:
        bad = sum(note.id in report.ask.only for note in wrong(report))
        console.print(f"{len(report.ask.only)} of {len(REQUIRED)} checks were run; {bad or 'none'} did not pass.")
    for id_, why in report.deviations.items():
        console.print(Text(f"declared deviation {id_}: {why}", "yellow"), soft_wrap=True)
    if report.judged.conformant:
        missing = ", ".join(what for what, _ in NOT_PROVED)
        console.print(Text(f"not proved, since no kit can see it: what it does {missing}", "dim"), soft_wrap=True)
    step = next_step(report)
    if step:
        console.print(Text(step, "dim"), soft_wrap=True)
    console.print(Text(f"{verdict}{evidence}", f"bold {_COLOURS[verdict]}"))


def write_junit(report: Report, path: Path) -> None:
    """Write JUnit XML: a test case for each check and mode. A check that was not run is an error, never skipped."""
    bad = wrong(report)
    failed = [note for note in bad if note.outcome in ("failed", "known deviation")]
    suite = ET.Element(
        "testsuite",
        name=f"vectoracl conformance {report.ask.name}",
        tests=str(len(report.judged.checks)),
        failures=str(len(failed)),
        errors=str(len(bad) - len(failed)),
        time=f"{sum(note.seconds for note in report.judged.checks):.3f}",
        timestamp=report.run["date"],
    )
    properties = ET.SubElement(suite, "properties")
    facts = {"verdict": report.judged.verdict, "host": report.run["host"], **report.run["versions"]}
    facts |= {"evidence": report.judged.evidence or "", "seed": str(report.seed)}
    facts |= {f"measured {number}": line.strip() for number, line in enumerate(measured(report), 1)}
    facts |= {f"not proved {number}": what for number, (what, _) in enumerate(NOT_PROVED, 1)}
    facts |= {f"declared deviation {id_}": why for id_, why in report.deviations.items()}
    for name, value in facts.items():
        ET.SubElement(properties, "property", name=name, value=_clean(str(value)))
    for note in report.judged.checks:
        case = ET.SubElement(
            suite, "testcase", classname=f"conformance.{note.id}", name=f"{note.mode}", time=f"{note.seconds:.3f}"
        )
        if note in bad:
            kind = "failure" if note in failed else "error"
            text = "\n".join(f"{heading}: {one}" for heading, one in failure_details(note))
            ET.SubElement(case, kind, message=_clean(f"{note.outcome}: {note.reason}")).text = _clean(text)
    write_output(path, ET.tostring(suite, encoding="utf-8", xml_declaration=True))


def _clean(text: str) -> str:
    """Replace characters that XML cannot contain."""
    return "".join(
        char if char in "\n\t" or (char >= " " and not "\ud800" <= char <= "\udfff") else "�" for char in text
    )


_STYLE = """
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8884;
vertical-align:top}.passed,.conformant,.unsupported{color:#187a34}.failed,.not-conformant,.known{color:#b3261e}
.abstained,.not-run,.not-measured{color:#8a5a00}@media (prefers-color-scheme:dark){.passed,.conformant,.unsupported{
color:#6bd38a}.failed,.not-conformant,.known{color:#ff8a80}.abstained,.not-run,.not-measured{color:#ffc66d}}
code{font-size:.9em;word-break:break-word}dt{font-weight:600}dd{margin:0 0 .5rem 1rem;word-break:break-word}
pre{white-space:pre-wrap}
"""


def _class(outcome: str) -> str:
    short = {"unsupported, verified": "unsupported", "known deviation": "known"}
    short |= {"conformant with a declared deviation": "abstained", "nothing certified": "not-measured"}
    return short.get(outcome, outcome.replace(" ", "-"))


def _span(outcome: str) -> str:
    return f'<span class="{_class(outcome)}">{escape(outcome)}</span>'


def _shown(heading: str, text: str) -> str:
    if heading != _PROGRAM:
        return f"<code>{escape(text)}</code>"
    return f"<details><summary>Python</summary><pre><code>{escape(text)}</code></pre></details>"


def html(report: Report) -> str:
    """Return the report as one self-contained HTML page."""
    verdict = report.judged.verdict
    server = report.about.get("server", {})
    evidence = f" at {report.judged.evidence}" if report.judged.conformant and report.judged.evidence else ""
    rows = []
    by_place = {(note.id, note.mode): note for note in report.judged.checks}
    for id_ in dict.fromkeys(note.id for note in report.judged.checks):
        check = CHECKS.get(id_)
        more = f"<details><summary>{escape(title(id_))}</summary>"
        if check is not None:
            more += f"<dl><dt>Attack</dt><dd>{escape(check.attack)}</dd>"
            more += f"<dt>Breach</dt><dd>{escape(check.breach)}</dd></dl>"
        more += "</details>"
        for note in (by_place[id_, mode] for mode in MODES):
            if note.outcome == "passed" and note.reason:
                more += f"<p>{note.mode}: {escape(note.reason)}</p>"
            if note in wrong(report):
                lines = "".join(
                    f"<dt>{escape(head)}</dt><dd>{_shown(head, text)}</dd>" for head, text in failure_details(note)
                )
                more += f"<p>{note.mode}</p><dl>{lines}</dl>"
        cells = "".join(f"<td>{_span(by_place[id_, mode].outcome)}</td>" for mode in MODES)
        rows.append(f'<tr id="{id_}"><th scope="row">{id_}</th><td>{more}</td>{cells}</tr>')
    grades = "".join(
        f"<tr><th scope=row>{grade}</th><td>{_span(report.judged.grades[grade])}</td>"
        f"<td>{escape(report.reasons.get(grade, ''))}</td><td>{escape(EVIDENCE[grade])}</td></tr>"
        for grade in GRADES
    )
    mutants = "".join(
        f"<tr><td>{escape(one['name'])}</td><td>{escape(one['breaks'])}</td><td>{one['expected']}</td>"
        f'<td class="{"passed" if one["expected"] in one["killed_by"] else "failed"}">'
        f"{escape(' '.join(one['killed_by']) or 'survived')}</td></tr>"
        for one in report.mutants
    )
    unseen = "".join(f"<dt>{escape(what)}</dt><dd>{escape(why)}</dd>" for what, why in NOT_PROVED)
    declared = "".join(
        f'<p class="known">Declared deviation {escape(id_)}: {escape(why)}</p>'
        for id_, why in report.deviations.items()
    )
    matrix = (
        "<h2>Mutants</h2><table><tr><th>mutant</th><th>what is broken</th><th>must be killed by</th>"
        "<th>killed by</th></tr>"
        f"{mutants}</table>"
        if mutants
        else ""
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(report.ask.name)}: {verdict}</title><style>{_STYLE}</style>"
        f'<h1><span class="{_class(verdict)}">{verdict}{evidence}</span></h1>'
        f"<p>{escape(str(report.about.get('adapter', report.ask.name)))} on {escape(str(server.get('version', '?')))} "
        f"({escape(str(server.get('kind', '?')))}); {report.ask.decoys} decoys, seed {report.seed}, "
        f"kit {escape(str(report.about.get('kit', '?')))}.</p><p>{escape(report.problem)}</p>{declared}"
        f"<p>{escape(one_line(report.run))}</p>{''.join(f'<p>{escape(line)}</p>' for line in measured(report))}"
        f"<h2>Evidence</h2><table>{grades}</table>"
        f"<h2>Checks</h2><table><tr><th></th><th>check</th><th>sync</th><th>async</th></tr>{''.join(rows)}</table>{matrix}"
        f"<h2>Not proved</h2><p>No kit can see what an adapter does:</p><dl>{unseen}</dl></html>"
    )


def begin(ask: Ask, path: Path, write: Callable[[Report, Path], None]) -> None:
    """Write a report that says that the run has not ended, so that an older one is not taken for its result."""
    write(collected(ask, 0, [], "the run has not ended, or was stopped before its end"), path)


def write_html(report: Report, path: Path) -> None:
    """Write the HTML page."""
    write_output(path, html(report).encode("utf-8", "replace"))
