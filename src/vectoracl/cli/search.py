"""`vectoracl search`: searches as one principal."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer
from rich.table import Table
from rich.text import Text

from vectoracl.cli.common import (
    DEFAULT_CONFIG,
    AsOption,
    ConfigOption,
    JsonOption,
    StoreOption,
    command_line,
    one_line,
    opened_for,
    operator,
    out,
    plain,
    print_json,
    show_commands,
)
from vectoracl.errors import InvalidInputError, without_context
from vectoracl.filters.predicate import ALWAYS, Predicate
from vectoracl.model.queries import Hybrid, Lexical
from vectoracl.model.records import Result


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text to search for.")],
    who: AsOption,
    k: Annotated[int, typer.Option("-k", help="The maximum number of chunks.", min=1)] = 5,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="JSON",
            help='A filter inside the scope: \'{"field": "year", "op": "gte", "value": 2020}\'. '
            "It can only narrow the visible chunks.",
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    store: StoreOption = None,
    *,
    lexical: Annotated[
        bool,
        typer.Option(
            "--lexical", help="Rank by words instead of by vector; only chunks with at least one of the words match."
        ),
    ] = False,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Fuse the ranking by words and by vector.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Print the whole text of each chunk.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Search as one principal: only visible chunks are ranked, by vector unless --lexical or --hybrid is passed.

    The exit code is 0 even without hits.
    """
    principal = operator(who, "search")
    narrowed = _where(where)
    if lexical and hybrid:
        raise InvalidInputError("Pass --lexical or --hybrid, not both.", field="hybrid")
    query = Lexical(text) if lexical else Hybrid(text) if hybrid else text
    with opened_for(principal, config, store) as acl:
        result = acl.scoped(principal).search(query, k, where=narrowed)
    if as_json:
        print_json(_found(who, text, k, result))
        return
    _show(result, command_line("explain", "--as", who, config=config, store=store), full=full)


@without_context
def _where(text: str | None) -> Predicate:
    """Parse the filter of `--where`. Raises: InvalidInputError."""
    if text is None:
        return ALWAYS
    try:
        data = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        raise InvalidInputError("--where is not valid JSON.", field="where") from None
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


def _show(result: Result, why: str, *, full: bool) -> None:
    console = out()
    if not result:
        console.print("Nothing found.")
        console.print(Text("Why?", "dim"))
        show_commands(console, [why])
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
        console.print(Text(f"Fewer hits than requested: {result.shortfall}.", "yellow"))
