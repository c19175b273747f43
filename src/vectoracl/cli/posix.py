"""`vectoracl access posix`: takes over who may read files from their POSIX permissions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from vectoracl import hazmat
from vectoracl.cli.access import SourceOption, show_applied
from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    FINDINGS,
    ConfigOption,
    JsonOption,
    Steps,
    counted,
    done,
    one_line,
    opened,
    out,
    person,
    plain,
    print_json,
)
from vectoracl.cli.governance import ReasonOption, TenantOption
from vectoracl.cli.ingest import show_skipped
from vectoracl.registry.access import Access, Applied
from vectoracl.registry.posix import NumericNames, PosixFiles, ReaderSet, SystemNames
from vectoracl.registry.values import Entry
from vectoracl.text.sources import Failed, Skipped

_OFTEN = 1000


def access_posix(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="The directory that `ingest` reads.")],
    tenant: TenantOption,
    source: SourceOption,
    config: ConfigOption = DEFAULT_CONFIG,
    under: Annotated[
        str, typer.Option("--under", metavar="NAME", help="Put NAME/ in front of the documents' names, as in `ingest`.")
    ] = "",
    writer: Annotated[
        list[str] | None,
        typer.Option(
            "--writer",
            metavar="SUBJECT",
            help='Who may read and write every document, such as "user:loader"; repeat it.',
        ),
    ] = None,
    *,
    others: Annotated[
        bool,
        typer.Option("--others", help="The whole tenant reads what all others may read; else no one does by that."),
    ] = False,
    numeric: Annotated[
        bool, typer.Option("--numeric", help="Users and groups are named by their ids: user:1000, group:100.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show who would read how many files; change nothing.")
    ] = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take over who may read files from their owners, groups, modes and access control lists (Linux).

    A file is read by whom its own permissions and those of every directory from DIRECTORY on let read it. Documents
    that this source knew and whose files are not there any more are read by no one: a source is of one DIRECTORY. What
    cannot be read is given to no one and reported. It can be repeated; a later run wins.

    Exit codes: 0 everything was read; 1 files or directories could not be read, and no one reads those; 2 nothing was
    applied, or it stopped at an error.
    """
    skipped: list[Skipped] = []
    names = NumericNames() if numeric else SystemNames()
    files = PosixFiles(directory, under, others, tuple(writer or ()), names, skipped.append)
    applied: Applied | None = None
    with opened(config, contact=False) as acl, Steps(quiet=as_json) as steps:
        govern = hazmat.govern(acl, tenant, reason=f"vectoracl access, run by {person()} at the command line")
        records = _read(files, govern.access_records(source), steps)
        if not dry_run:

            def report(number: int) -> None:
                steps.report("applied", number, len(records))

            applied = govern.apply_access(records, source=source, progress=report, reason=reason)
    if as_json:
        _print_json(files, applied, skipped)
    else:
        _print(files, applied, skipped)
    done(FINDINGS if any(isinstance(one, Failed) for one in skipped) else CLEAN)


def _read(files: PosixFiles, known: Sequence[Access], steps: Steps) -> list[Access]:
    records = []
    for record in files.records(known):
        records.append(record)
        if len(records) % _OFTEN == 0:
            steps.step("reading permissions", len(records), None)
    steps.step("reading permissions", len(records), len(records))
    return records


def _print_json(files: PosixFiles, applied: Applied | None, skipped: Sequence[Skipped]) -> None:
    result: dict[str, Any] = {} if applied is None else dataclasses.asdict(applied)
    sets = [
        {"entries": [_entry(entry) for entry in one.entries], "files": one.files, "exact": one.exact}
        for one in files.sets
    ]
    omissions = [{"name": plain(one.name), "reason": one.reason} for one in skipped]
    more = {"applied": applied is not None, "sets": sets, "ended": files.ended, "skipped": omissions}
    print_json({**result, "as_of": files.as_of, **more, "without_name": sorted(files.unknown)})


def _entry(entry: Entry) -> dict[str, Any]:
    return {"subject": plain(entry.subject), "allow": entry.allow, "write": entry.write}


def _print(files: PosixFiles, applied: Applied | None, skipped: Sequence[Skipped]) -> None:
    console = out()
    if applied is None:
        console.print(_table(files.sets))
    else:
        show_applied(applied)
    number = sum(one.files for one in files.sets)
    console.print(Text(f"{counted(number, 'file')} with {counted(len(files.sets), 'set')} of readers."))
    fewer = sum(one.files for one in files.sets if not one.exact)
    if fewer:
        text = f"{counted(fewer, 'file')} may be read by fewer than the permissions say, which entries cannot express."
        console.print(Text(text, "yellow"), soft_wrap=True)
    if files.ended:
        console.print(Text(f"{counted(files.ended, 'document')} whose file is not there: no one reads them."))
    if files.unknown:
        unknown = one_line(", ".join(sorted(files.unknown)), 200)
        console.print(Text(f"No name, so no one reads by them: {unknown}.", "yellow"))
    show_skipped(sorted(skipped, key=lambda one: not isinstance(one, Failed)))


def _table(sets: Sequence[ReaderSet]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("readers", overflow="fold")
    table.add_column("files", justify="right")
    for one in sorted(sets, key=lambda one: -one.files):
        table.add_row(
            _readers(one.entries) + ("" if one.exact else " (fewer than the permissions say)"), f"{one.files:,}"
        )
    return table


def _readers(entries: Sequence[Entry]) -> str:
    permitted = ", ".join(one.subject + (" (writes)" if one.write else "") for one in entries if one.allow)
    denied = ", ".join(one.subject for one in entries if not one.allow)
    return one_line((permitted or "no one") + (f"; not {denied}" if denied else ""), 400)
