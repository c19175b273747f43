"""The commands of sources of rights: apply a feed, and list how far each source has been read."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from vectoracl import hazmat
from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    FINDINGS,
    ConfigOption,
    JsonOption,
    Steps,
    counted,
    done,
    opened,
    out,
    person,
    plain,
    print_json,
)
from vectoracl.cli.governance import ReasonOption, TenantOption, governing, moment
from vectoracl.errors import InvalidInputError
from vectoracl.registry.access import Access, Applied, parse

SourceOption = Annotated[
    str, typer.Option("--source", metavar="NAME", help=r"The source's name in \[registry.sources].")
]


def access_apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help='A file of JSON Lines, or "-" for standard input.')],
    tenant: TenantOption,
    source: SourceOption,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take over who may read which documents from a feed of another system: JSON Lines, one record a line.

    A line that is not a record is refused with its number, and nothing of the file is applied. The order of the lines
    does not matter: a record that is older (`as_of`) than what is in force changes nothing. It can be repeated, and
    after an interruption it continues where it ended.
    """
    apply_records(_read(file), tenant, source, config, reason, as_json=as_json)


def apply_records(
    records: Sequence[Access], tenant: str, source: str, config: Path, reason: str, *, as_json: bool
) -> None:
    """Apply *records* with progress, and print what they have changed."""
    with opened(config, contact=False) as acl, Steps(quiet=as_json) as steps:
        govern = hazmat.govern(acl, tenant, reason=f"vectoracl access, run by {person()} at the command line")

        def report(number: int) -> None:
            steps.report("applied", number, len(records))

        found = govern.apply_access(records, source=source, progress=report, reason=reason)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        show_applied(found)


def _read(file: Path) -> list[Access]:
    try:
        if str(file) == "-":
            return parse(sys.stdin)
        with file.open(encoding="utf-8-sig") as lines:
            return parse(lines)
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    raise InvalidInputError(f"The feed {problem}; nothing was applied.", field="file")


def show_applied(found: Applied) -> None:
    """Print the result of a feed."""
    lines = [
        f"{plain(found.source)} was read until {moment(found.as_of)}: {counted(found.records, 'record')}, "
        f"{counted(len(found.changed), 'document')} changed"
    ]
    if found.older:
        lines.append(f"{counted(found.older, 'record')} older than those that are recorded")
    for line in lines:
        out().print(Text.assemble(("✓ ", "green"), line), soft_wrap=True)
    if found.unplaced:
        names = plain(", ".join(found.unplaced[:5]))
        number = counted(len(found.unplaced), "document")
        text = f"no one reads {number}, whose folders are not known or not a tree: {names}"
        out().print(Text.assemble(("! ", "yellow"), text), soft_wrap=True)
    if found.over:
        text = (
            f"{counted(found.over, 'more document')} changed than filters can name, so their former labels are hidden "
            "as a whole. Run `vectoracl reconcile`."
        )
        out().print(Text.assemble(("! ", "yellow"), text), soft_wrap=True)


def access_sources(tenant: TenantOption, config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """List the sources of rights, how far each has been read, and which are too old to be believed."""
    with governing(config, tenant, "access sources") as govern:
        found = govern.sources()
    late = [one for one in found if one.stale or one.serves]
    if as_json:
        print_json({"tenant": tenant, "sources": [dataclasses.asdict(one) for one in found]})
        done(FINDINGS if late else CLEAN)
    for one in found:
        read = "was never read" if one.as_of is None else f"was read until {moment(one.as_of)}"
        state = ""
        if one.serves:
            state = "; that is too old, and its documents are served nevertheless"
        elif one.stale:
            state = "; no one reads what only it vouches for"
        text = f"{plain(one.name)} {read}, {counted(one.documents, 'document')}{state}"
        out().print(Text(text), soft_wrap=True)
    if not found:
        out().print("No sources. Declare them under [registry.sources.NAME].", markup=False)
    done(FINDINGS if late else CLEAN)
