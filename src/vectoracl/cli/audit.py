"""`vectoracl audit find`: the recorded reads that returned a certain document or chunk."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from vectoracl.adapter_api.settings import Secret
from vectoracl.audit.search import Read, Search, find, sizes
from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    FINDINGS,
    AsOption,
    ConfigOption,
    JsonOption,
    counted,
    done,
    opened_for,
    operator,
    out,
    plain,
    print_json,
)
from vectoracl.config import Config, read
from vectoracl.errors import ConfigError, InvalidInputError
from vectoracl.filters.predicate import F
from vectoracl.model.identifiers import check_id
from vectoracl.model.principal import Principal

_MOST = 50


def find_reads(
    who: AsOption,
    document: Annotated[str, typer.Option("--document", metavar="ID", help="The document that may have been read.")],
    chunk: Annotated[
        list[str] | None,
        typer.Option(
            "--chunk",
            metavar="ID",
            help="A chunk of the document; can be repeated. With it the store is not asked, so the document may be "
            "deleted.",
            show_default="the chunks in the store now",
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="An audit file, also .gz; can be repeated, oldest first.",
            show_default="[audit] path",
        ),
    ] = None,
    old_key: Annotated[
        list[Path] | None,
        typer.Option("--old-key", metavar="FILE", help="A file with an earlier key of the audit; can be repeated."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the recorded reads that returned chunks of a document, by the hashes of `[audit] returned = "hashed"`.

    The document belongs to the tenant of --as. Without --chunk its chunks are looked up in the store as that principal,
    which is recorded like any read; earlier versions of the document had other chunks, which have to be passed with
    --chunk. Each read is listed with its time, its principal and the chunks. Only the files are searched: the last
    outcomes of a running or killed process may not be in them.

    Exit codes: 0 every recorded read could be judged, 1 some could not (without hashes, under another key, without an
    outcome), 2 not measured.
    """
    principal = operator(who, "audit find")
    parsed, base = read(config)
    keys = _keys(parsed, base, old_key or [])
    files = sizes(_files(parsed, base, file))
    check_id(document, "document")
    chunks = [check_id(one, "chunk") for one in chunk or []] or _chunks_of(config, principal, document)
    search = find(files, keys, principal.tenant, document, list(dict.fromkeys(chunks)))
    if as_json:
        print_json(_json(search, principal.tenant, document, chunks))
    else:
        _show(search, f"{plain(document)} of the tenant {plain(principal.tenant)}")
    done(CLEAN if search.complete else FINDINGS)


def _keys(config: Config, base: Path, older: list[Path]) -> list[str]:
    """Return the configuration's key and *older* ones. Raises: ConfigError."""
    own = [] if config.audit.key is None else [config.audit.key.reveal(base)]
    keys = [*own, *(Secret(file=one).reveal(Path()) for one in older)]
    if not keys:
        raise ConfigError(
            'There is no key to search with: the configuration has no [audit] returned = "hashed" with a key. Only '
            "reads recorded with it can be found; pass an earlier key with --old-key FILE."
        )
    return keys


def _files(config: Config, base: Path, given: list[Path] | None) -> list[Path]:
    """Return the audit files. Raises: ConfigError."""
    if given:
        return given
    if config.audit.path is None:
        raise ConfigError(
            'The configuration keeps its audit records in memory: pass --file FILE, or set sink = "jsonl".'
        )
    return [base / config.audit.path]


def _chunks_of(config: Path, principal: Principal, document: str) -> list[str]:
    """Return the ids of the document's chunks in the store. Raises: InvalidInputError where there are none."""
    with opened_for(principal, config, None) as acl:
        hits = acl.scoped(principal).scan(F["@document"] == document, include=())
        ids = [hit.id for hit in hits if hit.tenant == principal.tenant]
    if not ids:
        raise InvalidInputError(
            f"{plain(principal.id)} of the tenant {plain(principal.tenant)} sees no document {plain(document)!r}, so "
            "its chunks are not known. Pass them with --chunk ID.",
            field="document",
        )
    return ids


def _who(one: Read) -> tuple[dict[str, Any], str]:
    record = one.record or {}
    seconds = record.get("time")
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else ""
    return dict(record.get("principal") or {}), moment


def _json(found: Search, tenant: str, document: str, chunks: list[str]) -> dict[str, Any]:
    reads = []
    for one in found.reads:
        principal, moment = _who(one)
        record = one.record or {}
        more = {name: record.get(name) for name in ("action", "store", "reasons")}
        reads.append(
            {"decision": one.decision, "time": moment, "principal": principal, "chunks": list(one.chunks), **more}
        )
    unjudged = {
        "without_hashes": found.without_hashes,
        "other_key": found.other_key,
        "without_outcome": found.without_outcome,
        "cut": found.cut,
        "unreadable_lines": found.unreadable,
    }
    return {
        "tenant": tenant,
        "document": document,
        "chunks": chunks,
        "reads": reads,
        "judged": found.judged,
        "not_judged": unjudged,
        "complete": found.complete,
    }


def _show(found: Search, what: str) -> None:
    console = out()
    summary = f"{counted(found.judged, 'recorded read')} could be judged; {len(found.reads):,} returned {what}."
    console.print(Text(summary), soft_wrap=True)
    if found.reads:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("time", "principal", "tenant", "action", "chunks", "decision"):
            table.add_column(name, overflow="fold", no_wrap=name == "time")
        for one in found.reads[:_MOST]:
            principal, moment = _who(one)
            words = [principal.get("id") or "?", principal.get("tenant") or "?", (one.record or {}).get("action", "?")]
            table.add_row(moment or "?", *map(plain, words), f"{len(one.chunks):,}", plain(one.decision))
        console.print(table)
        if len(found.reads) > _MOST:
            console.print(Text(f"… and {len(found.reads) - _MOST:,} more (all of them with --json)", "dim"))
    for line in _doubts(found):
        console.print(Text(line, "yellow"), soft_wrap=True)


def _doubts(found: Search) -> list[str]:
    """Return lines on the reads that could not be judged, and why."""
    keys = ", ".join(sorted(found.other_key))
    counts = (
        (found.without_hashes, 'recorded while returned = "hashed" was off'),
        (sum(found.other_key.values()), f"recorded under another key ({keys}); pass it with --old-key"),
        (found.without_outcome, "without an outcome in these files: still running, killed, or in another file"),
        (found.cut, "returned more chunks than an outcome holds"),
    )
    lines = [f"Not judged: {counted(number, 'read')} {why}." for number, why in counts if number]
    if found.unreadable:
        lines.append(f"Not judged: {counted(found.unreadable, 'line')} that cannot be parsed.")
    return lines
