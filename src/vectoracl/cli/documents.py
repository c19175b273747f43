"""`vectoracl documents`: lists and deletes the documents of a principal's tenant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    NOT_MEASURED,
    AsOption,
    ConfigOption,
    JsonOption,
    PipelineOption,
    Steps,
    StoreOption,
    confirmed,
    counted,
    done,
    opened_for,
    operator,
    out,
    plain,
    print_json,
)
from vectoracl.errors import InvalidInputError
from vectoracl.filters.predicate import F
from vectoracl.model.identifiers import check_id

_MOST = 50


@dataclass(slots=True)
class _Listed:
    chunks: int = 0
    written: float = 0.0


def listed(
    who: AsOption,
    config: ConfigOption = DEFAULT_CONFIG,
    store: StoreOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the documents that a principal sees, with the number of chunks and the time of writing.

    It scans the tenant's chunks, without their texts.
    """
    principal = operator(who, "documents list")
    documents: dict[str, _Listed] = {}
    with opened_for(principal, config, store) as acl, Steps(quiet=as_json) as steps:
        for place, hit in enumerate(acl.scoped(principal).scan(include=())):
            one = documents.setdefault(hit.document, _Listed())
            one.chunks += 1
            one.written = max(one.written, hit.tag.time)
            if place % 500 == 0:
                steps.step("reading chunks", place + 1, None)
    if as_json:
        print_json(
            {
                "principal": who,
                "documents": [
                    {"document": name, "chunks": one.chunks, "written": _moment(one.written)}
                    for name, one in sorted(documents.items())
                ],
            }
        )
        return
    console = out()
    if not documents:
        console.print(Text(f"{plain(who)} sees no documents."))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("document", overflow="fold")
    table.add_column("chunks", justify="right")
    table.add_column("written", no_wrap=True)
    for name, one in sorted(documents.items())[:_MOST]:
        table.add_row(Text(plain(name), "bold"), f"{one.chunks:,}", _moment(one.written))
    console.print(table)
    if len(documents) > _MOST:
        console.print(Text(f"… and {len(documents) - _MOST:,} more documents (all of them with --json)", "dim"))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds > 0 else ""


def delete(
    names: Annotated[
        list[str], typer.Argument(metavar="DOCUMENT…", help="The documents, as `documents list` shows them.")
    ],
    who: AsOption,
    config: ConfigOption = DEFAULT_CONFIG,
    store: StoreOption = None,
    source: PipelineOption = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete documents of a principal's tenant with all their chunks. It asks first; this cannot be undone.

    If one of them does not exist, nothing is deleted; another tenant's document reads like one that does not exist.
    Exit codes: 0 all were deleted, 2 not all; the message states whether some were.
    """
    principal = operator(who, "documents delete")
    documents = list(dict.fromkeys(check_id(one, "document") for one in names))
    with opened_for(principal, config, store) as acl:
        handle = acl.scoped(principal, source=source)
        absent = [one for one in documents if not handle.page(F["@document"] == one, size=1, include=()).hits]
        if absent:
            raise InvalidInputError(
                f"{plain(who)} sees no document {', '.join(repr(plain(one)) for one in absent)}, so nothing was "
                "deleted. `vectoracl documents list` lists the documents.",
                field="document",
            )
        if not confirmed(
            f"Delete {counted(len(documents), 'document')} of the tenant {principal.tenant}",
            documents,
            yes=yes,
            as_json=as_json,
        ):
            done(NOT_MEASURED)
        deleted: list[str] = []
        try:
            for one in documents:
                handle.delete(document=one)
                deleted.append(one)
        except BaseException as error:  # Ctrl-C too
            error.add_note(f"documents delete: {len(deleted):,} of {len(documents):,} documents were deleted before.")
            raise
    if as_json:
        print_json({"principal": who, "deleted": [plain(one) for one in deleted]})
    else:
        out().print(Text(f"Deleted {counted(len(deleted), 'document')}."))
    done(CLEAN)
