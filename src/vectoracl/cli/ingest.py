"""`vectoracl ingest`: writes files as documents of one principal's tenant, each marked with its source file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from vectoracl.adapter_api.shares import shares
from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    FINDINGS,
    NOT_MEASURED,
    AsOption,
    ConfigOption,
    JsonOption,
    Steps,
    StoreOption,
    command_line,
    confirmed,
    counted,
    done,
    one_line,
    opened_for,
    operator,
    out,
    plain,
    print_json,
    show_commands,
)
from vectoracl.cli.ingest_lock import alone
from vectoracl.cli.shards import ShardOption, refuse, which
from vectoracl.client.retriever import ScopedRetriever
from vectoracl.errors import InvalidInputError, RefusedError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import F
from vectoracl.filters.validation import typed
from vectoracl.model.identifiers import check_id
from vectoracl.text.chunking import SIZE, document_chunks
from vectoracl.text.sources import Failed, File, Skipped, find, read

MARK = "ingested_from"  # the metadata key that holds digests of a document's root folder and file
_SHOWN = 10
_FEW = 10  # the number of documents that --prune deletes without --prune-many in any case


def ingest(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH…",
            help="Files or folders: .md .rst .txt, .html (its text), .py (docstrings); with the extra `documents` "
            ".pdf .docx.",
        ),
    ],
    who: AsOption,
    size: Annotated[int, typer.Option("--size", help="The maximum number of characters per chunk.", min=16)] = SIZE,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            "-m",
            metavar="KEY=VALUE",
            help="Metadata of every chunk, parsed as the type that the configuration declares; repeat it for more keys "
            "or for more values of a list.",
        ),
    ] = None,
    under: Annotated[
        str, typer.Option("--under", metavar="NAME", help="Put NAME/ in front of every document's name.")
    ] = "",
    source: Annotated[
        str,
        typer.Option(
            "--source",
            metavar="NAME",
            help="The name of this pipeline. It is noted in the chunks, and identifies the files instead of their "
            "folder, so that they can be read from another folder or machine next time.",
        ),
    ] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    store: StoreOption = None,
    shard: ShardOption = None,
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace documents that came from another file.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Afterwards delete the tenant's documents from these folders whose file no longer exists. Asks first.",
        ),
    ] = False,
    prune_many: Annotated[
        bool,
        typer.Option(
            "--prune-many",
            help=f"With --prune: even if that deletes more than {_FEW} documents and more than half of the tenant's.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --prune: do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Split files into chunks, embed them and write them as documents of one principal's tenant.

    A document is named by its file's name, or by the path starting at the given folder; if two names are equal, by the
    path from the folder that contains both. Ingesting a file again replaces its document. If a document came from
    another file, nothing is written without --overwrite. Only one `ingest` of a user on a machine writes to a tenant at
    a time; another one is refused.

    With --shard I/N only the I-th of N shares of the documents is written, so that several processes or machines can
    share the work: run all of them on the same files. A share can be repeated.

    Exit codes: 0 everything was written; 1 everything else was written, but a file could not be read or --prune was not
    confirmed; 2 nothing was written, or it stopped at an error, whose message states how much was written.
    """
    principal = operator(who, "ingest")
    refuse(shard, prune=prune)
    part = None if shard is None else which(shard)
    skipped: list[Skipped] = []
    with Steps(quiet=as_json) as steps:
        steps.step("finding files", 0, None)
        files = _under(find(paths, skipped.append, distinct=True), under)
        if part is not None:
            share = shares(part.of)[part.number - 1]
            files = [file for file in files if share.has(principal.tenant, file.name)]
        steps.step("finding files", 1, 1)
        steps.step("opening the store", 0, None)
        with opened_for(principal, config, store) as acl:
            steps.step("opening the store", 1, 1)
            chunk_metadata = _metadata(metadata or [], acl.config.stores[acl.store_of(principal.tenant)].metadata)
            handle = acl.scoped(principal, source=source or None)
            marks = {file.name: _mark(file, source) for file in files}
            with alone(acl.identity_for_journal(acl.store_of(principal.tenant)), principal.tenant, part):
                if not overwrite:
                    _check_origins(handle, marks, steps)
                quarantined: list[str] = []
                written, count, words = _write(handle, files, marks, chunk_metadata, size, skipped, quarantined, steps)
                gone = _gone(handle, files, marks, under, source, skipped, many=prune_many) if prune else []
                kept = acl.keeps(acl.store_of(principal.tenant))
                steps.pause()
                forgotten = _forget(handle, gone, yes=yes, as_json=as_json)
    failed = [one for one in skipped if isinstance(one, Failed)]
    if as_json:
        omissions = [{"name": plain(one.name), "reason": one.reason} for one in skipped]
        more = {"gone": [plain(one) for one in gone], "forgotten": [plain(one) for one in forgotten]} if prune else {}
        which_part = {} if part is None else {"shard": str(part)}
        counts = {"documents": written, "chunks": count, "skipped": omissions}
        if quarantined:
            counts["quarantined"] = [plain(one) for one in quarantined]
        print_json({"principal": who, **counts, **more, **which_part})
    else:
        console = out()
        wrote = f"Wrote {counted(written, 'document')} in {counted(count, 'chunk')}"
        console.print(Text(f"{wrote} for the tenant {principal.tenant}."))
        for one in quarantined:
            text = f"quarantined: {one_line(one, 200)} is stored, and no one retrieves it before the rule is lifted"
            console.print(Text(text, "yellow"), soft_wrap=True)
        if prune:
            console.print(Text(f"Deleted {counted(len(forgotten), 'document')} whose file no longer exists."))
        show_skipped([*failed, *(one for one in skipped if not isinstance(one, Failed))])
        if written and not kept:
            console.print(Text("This store is in the memory of the command, so the documents are gone now."))
        elif written:
            console.print(Text("Next:", "dim"))
            show_commands(console, [command_line("search", "--as", who, words, config=config, store=store)])
    if not written and (part is None or files):
        done(NOT_MEASURED)
    done(FINDINGS if failed or len(gone) != len(forgotten) else CLEAN)


def _under(files: Sequence[File], prefix: str) -> list[File]:
    """Put *prefix* in front of the names. Raises: InvalidInputError."""
    if not prefix:
        return list(files)
    return [file._replace(name=check_id(f"{prefix.rstrip('/')}/{file.name}", "document")) for file in files]


def _digest(kind: str, text: str) -> str:
    return blake2b(f"{kind}:{text}".encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _root(root: Path, source: str) -> str:
    return _digest("name", source) if source else _digest("path", str(root))


def _mark(file: File, source: str) -> str:
    """Return the mark of a document from *file*; it does not reveal a path, since readers see metadata."""
    if not source:
        return f"{_root(file.root, '')}-{_digest('path', str(file.path))}"
    below = file.path.relative_to(file.root).as_posix() if file.path != file.root else ""
    return f"{_root(file.root, source)}-{_digest('name', f'{source}/{file.root.name}/{below}')}"


def _same_file(left: str, right: str) -> bool:
    """Return whether two marks mean one file. Their roots may differ: a file is read alone or with its folder."""
    return left.rpartition("-")[2] == right.rpartition("-")[2]


def _metadata(given: Sequence[str], declared: Mapping[str, str]) -> dict[str, Any]:
    """Parse `--metadata KEY=VALUE`, each value as its declared type. Raises: InvalidInputError."""
    metadata: dict[str, Any] = {}
    for one in given:
        key, equals, text = one.partition("=")
        if not key or not equals:
            raise InvalidInputError(f"--metadata takes KEY=VALUE, got {one!r}.", field="metadata")
        if key == MARK:
            raise InvalidInputError(f"The metadata key {MARK!r} is written by `ingest` itself.", field=key)
        kind = FieldType(declared[key]) if key in declared else None
        value = text if kind is None else typed(key, kind, _value(key, kind, text))
        if kind is not None and kind.is_list:
            metadata.setdefault(key, []).append(value)
        elif key in metadata:
            raise InvalidInputError(f"--metadata has {key!r} twice, and it is not a list.", field=key)
        else:
            metadata[key] = value
    return metadata


def _value(key: str, kind: FieldType, text: str) -> Any:
    match kind:
        case FieldType.NUMBER | FieldType.NUMBERS:
            for number in (int, float):
                try:
                    return number(text)
                except ValueError:
                    continue
            raise InvalidInputError(f"The field {key!r} is a {kind.value}, and {text!r} is not a number.", field=key)
        case FieldType.BOOLEAN:
            if text not in ("true", "false"):
                raise InvalidInputError(f"The field {key!r} must be true or false, got {text!r}.", field=key)
            return text == "true"
    return text


def _check_origins(handle: ScopedRetriever, marks: Mapping[str, str], steps: Steps) -> None:
    """Refuse to write over documents that came from other files. Raises: RefusedError, with nothing written."""
    foreign = []
    for place, (name, mark) in enumerate(marks.items()):
        hits = handle.page(F["@document"] == name, size=1, include=("metadata",)).hits
        if hits and not _same_file(str((hits[0].metadata or {}).get(MARK, "")), mark):
            foreign.append(name)
        steps.step("checking existing documents", place + 1, len(marks))
    if foreign:
        names = ", ".join(repr(plain(one)) for one in foreign[:_SHOWN])
        more = f" and {len(foreign) - _SHOWN:,} more" if len(foreign) > _SHOWN else ""
        raise RefusedError(
            f"There is already {names}{more}, from another file or not written by `ingest`, so nothing was written. "
            "Pass --under NAME to store the new documents as NAME/…, or --overwrite to replace the existing ones. If "
            "the files are read from another folder each time, identify them with --source NAME.",
            field="paths",
        )


def _write(
    handle: ScopedRetriever,
    files: Sequence[File],
    marks: Mapping[str, str],
    given: Mapping[str, Any],
    size: int,
    skipped: list[Skipped],
    quarantined: list[str],
    steps: Steps,
) -> tuple[int, int, str]:
    """Write the files one by one; return the numbers of documents and chunks, and some words of one of them.

    Documents that a validator put under quarantine are added to *quarantined*.
    """
    written = count = 0
    words = ""
    steps.step("writing documents", 0, len(files))
    for place, file in enumerate(files):
        try:
            document = read(file, skipped.append)
            if document is not None:
                parts = document_chunks(document, size)
                marked = {**given, MARK: marks[file.name]}
                result = handle.replace(file.name, [replace(one, metadata=marked) for one in parts])
                quarantined += result.quarantined
                count += result.count or 0
                written += 1
                words = words or _words(parts[0].text if parts else "")
        except BaseException as error:  # Ctrl-C too
            error.add_note(
                f"ingest: {written:,} of {len(files):,} documents were written, but not {file.name!r}. The same "
                "command starts again and replaces them."
            )
            raise
        steps.step("writing documents", place + 1, len(files))
    return written, count, words


def _words(text: str) -> str:
    """Return the first words of *text*, for an example of a search."""
    tokens = ["".join(filter(str.isalnum, one)) for one in text.split()]
    return " ".join([one for one in tokens if len(one) > 1][:4])[:60] or "…"


def _gone(
    handle: ScopedRetriever,
    files: Sequence[File],
    marks: Mapping[str, str],
    under: str,
    source: str,
    skipped: Sequence[Skipped],
    *,
    many: bool,
) -> list[str]:
    """Return the documents that came from the roots of *files* and whose file no longer exists.

    A document that was read from one of *files* with another `--under` is not among them.

    Raises: RefusedError if that is uncertain, or without *many* if they are most of the tenant's documents.
    """
    failed = [one for one in skipped if isinstance(one, Failed)]
    if failed:
        raise RefusedError(
            f"{plain(failed[0].name)!r} {failed[0].reason}, so it is not certain which files are gone: the documents "
            "were written and none was deleted. Omit that file or make it readable, then run the same command again.",
            field="prune",
        )
    if not files:
        raise RefusedError(
            "There are no files at these paths, so nothing was deleted: perhaps they are not mounted. `vectoracl "
            "documents delete` deletes documents by name.",
            field="prune",
        )
    roots = {_root(file.root, source) for file in files}
    prefix = f"{under.rstrip('/')}/" if under else ""
    names: dict[str, list[str]] = {}
    for name, mark in marks.items():
        names.setdefault(mark, []).append(name.removeprefix(prefix))
    gone, every = set(), set()
    for hit in handle.scan(include=("metadata",)):
        every.add(hit.document)
        mark = str((hit.metadata or {}).get(MARK, ""))
        there = any(f"/{hit.document}".endswith(f"/{name}") for name in names.get(mark, ()))
        if mark.partition("-")[0] in roots and hit.document not in marks and not there:
            gone.add(hit.document)
    if len(gone) > _FEW and len(gone) * 2 > len(every) and not many:
        raise RefusedError(
            f"--prune would delete {len(gone):,} of the {len(every):,} documents, since most of the files do not exist "
            "any more: the documents were written and none was deleted. If that is right, pass --prune-many as well.",
            field="prune",
        )
    return sorted(gone)


def _forget(handle: ScopedRetriever, gone: Sequence[str], *, yes: bool, as_json: bool) -> list[str]:
    """Delete the documents *gone* after a confirmation; return the deleted ones."""
    if gone and as_json and not yes:
        return []  # the report of the written documents is printed anyway; the exit code shows that it was not done
    if not gone or not confirmed(f"Delete {counted(len(gone), 'document')} whose file no longer exists", gone, yes=yes):
        return []
    for name in gone:
        handle.delete(document=name)
    return list(gone)


def show_skipped(skipped: Sequence[Skipped]) -> None:
    """Print the first of the files that were left out, with the reasons."""
    console = out()
    for one in skipped[:_SHOWN]:
        style = "bold red" if isinstance(one, Failed) else "yellow"
        console.print(Text(f"skipped: {one_line(one.name, 200)} {one_line(one.reason, 200)}", style), soft_wrap=True)
    if len(skipped) > _SHOWN:
        console.print(Text(f"skipped: {len(skipped) - _SHOWN:,} more (all of them with --json)", "yellow"))
