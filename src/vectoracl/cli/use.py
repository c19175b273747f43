"""`ingest`, `search` and `explain`: the store as one principal has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table
from rich.text import Text

from vectoracl.actions import ALL_ACTIONS
from vectoracl.chunking import SIZE, Skipped, document_chunks, documents
from vectoracl.cli.common import (
    DEFAULT_CONFIG,
    AsOption,
    ConfigOption,
    JsonOption,
    Steps,
    StoreOption,
    one_line,
    opened,
    operator,
    out,
    plain,
    print_json,
)
from vectoracl.errors import InvalidInputError, apart
from vectoracl.predicate import ALWAYS, Predicate
from vectoracl.queries import Hybrid, Lexical
from vectoracl.records import Result

_NEAR = 'vectoracl search --as {who} "…"'


def ingest(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH…", help="Files or folders: .md .rst .txt, .html (its text), .py (docstrings)."),
    ],
    who: AsOption,
    size: Annotated[int, typer.Option("--size", help="The most characters of a chunk.", min=16)] = SIZE,
    config: ConfigOption = DEFAULT_CONFIG,
    store: StoreOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Chunk, embed and write files, as documents of one principal's tenant.

    A document is named by its path from the given folder on. Ingesting it again replaces its content, so the command
    can be repeated; what was removed from the folder stays stored until it is deleted.
    """
    principal = operator(who, "ingest")
    skipped: list[Skipped] = []
    written = count = 0
    with opened(config, store) as acl, Steps(quiet=as_json) as steps:
        handle = acl.scoped(principal)
        found = list(documents(paths, report=skipped.append))
        for document in found:
            try:
                count += handle.replace(document.name, document_chunks(document, size)).count or 0
            except BaseException as error:  # Ctrl-C too
                error.add_note(
                    f"ingest: {written:,} of {len(found):,} documents were written, not {document.name!r}. The same "
                    "command begins again and replaces them."
                )
                raise
            written += 1
            steps.step("writing documents", written, len(found))
    if as_json:
        left = [{"name": plain(name), "reason": reason} for name, reason in skipped]
        print_json({"principal": who, "documents": written, "chunks": count, "skipped": left})
        return
    console = out()
    console.print(Text(f"Wrote {written:,} documents in {count:,} chunks for the tenant {principal.tenant}."))
    _tell_skipped(skipped)
    if written:
        console.print(Text(f"Next: {_NEAR.format(who=who)}", "dim"))


def _tell_skipped(skipped: list[Skipped]) -> None:
    console = out()
    for one in skipped[:10]:
        console.print(Text(f"left out: {plain(one.name)} {one.reason}", "yellow"))
    if len(skipped) > 10:
        console.print(Text(f"left out: {len(skipped) - 10:,} more (all of them with --json)", "yellow"))


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for.")],
    who: AsOption,
    k: Annotated[int, typer.Option("-k", help="How many chunks.", min=1)] = 5,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="JSON",
            help='A filter inside the scope: \'{"field": "year", "op": "gte", "value": 2020}\'. '
            "It can only narrow what the principal sees.",
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    store: StoreOption = None,
    *,
    lexical: Annotated[
        bool, typer.Option("--lexical", help="Match words instead: only chunks that hold one of them.")
    ] = False,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Fuse the ranking by words and by vector.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Print the whole text of each chunk.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Search as one principal: only what it may see is ranked."""
    principal = operator(who, "search")
    narrowed = _where(where)
    if lexical and hybrid:
        raise InvalidInputError("Pass --lexical or --hybrid, not both.", field="hybrid")
    query = Lexical(text) if lexical else Hybrid(text) if hybrid else text
    with opened(config, store) as acl:
        result = acl.scoped(principal).search(query, k, where=narrowed)
    if as_json:
        print_json(_found(who, text, k, result))
        return
    _show(result, full=full, who=who)


@apart
def _where(text: str | None) -> Predicate:
    """Read the filter of `--where`. Raises: InvalidInputError."""
    if text is None:
        return ALWAYS
    try:
        data = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        raise InvalidInputError("--where is no valid JSON.", field="where") from None
    return Predicate.from_dict(data)


def _found(who: str, text: str, k: int, result: Result) -> dict[str, Any]:
    hits = [
        {
            "id": hit.id,
            "document": hit.document,
            "tenant": hit.tenant,
            "score": hit.score,
            "position": hit.position,
            "text": hit.text,
            "metadata": dict(hit.metadata or {}),
        }
        for hit in result
    ]
    return {
        "principal": who,
        "query": text,
        "k": k,
        "hits": hits,
        "complete": result.complete,
        "shortfall": result.shortfall,
        "decision_id": result.decision_id,
    }


def _show(result: Result, *, full: bool, who: str) -> None:
    console = out()
    if not result:
        console.print("Nothing found.")
        console.print(Text(f"Why? vectoracl explain --as {who}", "dim"))
        return
    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    table.add_column(justify="right", style="cyan", no_wrap=True)
    table.add_column(ratio=1)
    for hit in result:
        body = plain(hit.text or "") if full else one_line(hit.text or "", 2 * max(20, console.width - 10))
        head = Text.assemble((plain(hit.document), "bold"), (f"  #{hit.position}  {plain(hit.tenant)}", "dim"))
        table.add_row(f"{hit.score:.3f}", Text("\n").join([head, Text(body)]))
    console.print(table)
    if not result.complete:
        console.print(Text(f"Fewer than asked for: {result.shortfall}.", "yellow"))


def explain(
    who: AsOption,
    document: Annotated[
        str | None, typer.Option("--document", metavar="NAME", help="Also say whether this document is visible.")
    ] = None,
    action: Annotated[
        str, typer.Option("--action", help=f"The action to ask about: {', '.join(sorted(ALL_ACTIONS))}.")
    ] = "search",
    config: ConfigOption = DEFAULT_CONFIG,
    store: StoreOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Say why a principal sees what it sees: the decision, its reasons, and how much is visible.

    For an answer that is empty and should not be. Of a document it says only whether this principal sees it: another
    tenant's document reads like one that does not exist.
    """
    principal = operator(who, "explain")
    with opened(config, store) as acl:
        found = acl.explain(principal, action, document=document)  # type: ignore[arg-type]  # explain() checks it
    if as_json:
        print_json(
            {
                "principal": who,
                "action": action,
                "permit": found.permit,
                "reasons": list(found.reasons),
                "policy": found.policy_version,
                "scope": [{"partition": partition, "filter": where} for partition, where in found.grants],
                "visible": found.visible,
                "document": found.document,
                "document_visible": found.document_visible,
                "summary": found.summary(),
            }
        )
        return
    out().print(Text.assemble((f"{plain(who)}, {action}: ", "bold"), plain(found.summary())))
    out().print(Text(f"Policy: {plain(found.policy_version or 'without a version')}", "dim"))
