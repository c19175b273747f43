"""`vectoracl ingest`: files into documents of one principal's tenant, each known by the file that it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

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
from vectoracl.client.retriever import ScopedRetriever
from vectoracl.errors import InvalidInputError, RefusedError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import F
from vectoracl.filters.validation import typed
from vectoracl.model.identifiers import check_id
from vectoracl.text.chunking import SIZE, document_chunks
from vectoracl.text.sources import Failed, File, Skipped, find, read

MARK = "ingested_from"  # the metadata key that says, by digests, from which root and file a document came
_SHOWN = 10
_FEW = 10  # documents that --prune deletes without --prune-many, however many there are


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
    size: Annotated[int, typer.Option("--size", help="The most characters in a chunk.", min=16)] = SIZE,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            "-m",
            metavar="KEY=VALUE",
            help="Metadata of every chunk, of the type that the configuration declares; again for more, or for more "
            "values of a list.",
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
            help="Know the files by this name instead of by where they lie, so that they can be read from another "
            "folder or machine next time.",
        ),
    ] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    store: StoreOption = None,
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace documents that came from another file.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Then delete the tenant's documents that came from these folders and whose file is gone. Asks first.",
        ),
    ] = False,
    prune_many: Annotated[
        bool,
        typer.Option(
            "--prune-many",
            help=f"With --prune: also if that is more than {_FEW} documents and more than half of the tenant's.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --prune: do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Chunk, embed and write files, as documents of one principal's tenant.

    A file is named by its file name, a file of a folder by its path from that folder on; where two would have one name,
    by their path from the folder that holds both. Ingesting a file again replaces its document. A document that came
    from another file is never replaced without --overwrite, and then nothing is written. One `ingest` writes to a
    tenant at a time, as far as one user on one machine can tell: another one is refused.

    Exit codes: 0 all was written; 1 the rest was written, but a file could not be read or --prune was not agreed to; 2
    nothing was written, or it stopped at an error, which says how much was.
    """
    principal = operator(who, "ingest")
    skipped: list[Skipped] = []
    with Steps(quiet=as_json) as steps:
        steps.step("finding files", 0, None)
        files = _under(find(paths, skipped.append, distinct=True), under)
        steps.step("finding files", 1, 1)
        steps.step("opening the store", 0, None)
        with opened_for(principal, config, store) as acl:
            steps.step("opening the store", 1, 1)
            given = _metadata(metadata or [], acl.config.stores[acl.store_of(principal.tenant)].metadata)
            handle = acl.scoped(principal)
            marks = {file.name: _mark(file, source) for file in files}
            with alone(acl.places_for_journal(acl.store_of(principal.tenant)), principal.tenant):
                if not overwrite:
                    _check_origins(handle, marks, steps)
                written, count, words = _write(handle, files, marks, given, size, skipped, steps)
                gone = _gone(handle, files, marks, under, source, skipped, many=prune_many) if prune else []
                kept = acl.keeps(acl.store_of(principal.tenant))
                steps.pause()
                forgotten = _forget(handle, gone, yes=yes, as_json=as_json)
    failed = [one for one in skipped if isinstance(one, Failed)]
    if as_json:
        left = [{"name": plain(one.name), "reason": one.reason} for one in skipped]
        more = {"gone": [plain(one) for one in gone], "forgotten": [plain(one) for one in forgotten]} if prune else {}
        print_json({"principal": who, "documents": written, "chunks": count, "skipped": left, **more})
    else:
        console = out()
        wrote = f"Wrote {counted(written, 'document')} in {counted(count, 'chunk')}"
        console.print(Text(f"{wrote} for the tenant {principal.tenant}."))
        if prune:
            console.print(Text(f"Deleted {counted(len(forgotten), 'document')} whose file is gone."))
        _tell_skipped([*failed, *(one for one in skipped if not isinstance(one, Failed))])
        if written and not kept:
            console.print(Text("This store is in the memory of the command, so nothing of it is there any more."))
        elif written:
            console.print(Text("Next:", "dim"))
            show_commands(console, [command_line("search", "--as", who, words, config=config, store=store)])
    if not written:
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
    """Return what a document of *file* is marked with. A path is not readable from it: readers see metadata."""
    if not source:
        return f"{_root(file.root, '')}-{_digest('path', str(file.path))}"
    below = file.path.relative_to(file.root).as_posix() if file.path != file.root else ""
    return f"{_root(file.root, source)}-{_digest('name', f'{source}/{file.root.name}/{below}')}"


def _same_file(left: str, right: str) -> bool:
    """Tell whether two marks name one file. Their roots may differ: a file is read alone, or with its folder."""
    return left.rpartition("-")[2] == right.rpartition("-")[2]


def _metadata(given: Sequence[str], declared: Mapping[str, str]) -> dict[str, Any]:
    """Read `--metadata KEY=VALUE`, each value as the type that is declared. Raises: InvalidInputError."""
    made: dict[str, Any] = {}
    for one in given:
        key, equals, text = one.partition("=")
        if not key or not equals:
            raise InvalidInputError(f"--metadata takes KEY=VALUE, not {one!r}.", field="metadata")
        if key == MARK:
            raise InvalidInputError(f"The metadata key {MARK!r} is written by `ingest` itself.", field=key)
        kind = FieldType(declared[key]) if key in declared else None
        value = text if kind is None else typed(key, kind, _value(key, kind, text))
        if kind is not None and kind.is_list:
            made.setdefault(key, []).append(value)
        elif key in made:
            raise InvalidInputError(f"--metadata gives {key!r} twice, and it is not a list.", field=key)
        else:
            made[key] = value
    return made


def _value(key: str, kind: FieldType, text: str) -> Any:
    match kind:
        case FieldType.NUMBER | FieldType.NUMBERS:
            for number in (int, float):
                try:
                    return number(text)
                except ValueError:
                    continue
            raise InvalidInputError(f"The field {key!r} holds a {kind.value}, and {text!r} is none.", field=key)
        case FieldType.BOOLEAN:
            if text not in ("true", "false"):
                raise InvalidInputError(f"The field {key!r} is true or false, not {text!r}.", field=key)
            return text == "true"
    return text


def _check_origins(handle: ScopedRetriever, marks: Mapping[str, str], steps: Steps) -> None:
    """Refuse to write over documents that came from other files. Raises: RefusedError, with nothing written."""
    foreign = []
    for place, (name, mark) in enumerate(marks.items()):
        found = handle.page(F["@document"] == name, size=1, include=("metadata",)).hits
        if found and not _same_file(str((found[0].metadata or {}).get(MARK, "")), mark):
            foreign.append(name)
        steps.step("looking for what is there", place + 1, len(marks))
    if foreign:
        shown = ", ".join(repr(plain(one)) for one in foreign[:_SHOWN])
        more = f" and {len(foreign) - _SHOWN:,} more" if len(foreign) > _SHOWN else ""
        raise RefusedError(
            f"There is already {shown}{more}, which came from another file or was not written by `ingest`, so nothing "
            "was written. Pass --under NAME to store these as NAME/…, or --overwrite to put them in its place. (Files "
            "that are read from another folder each time are known by --source NAME.)",
            field="paths",
        )


def _write(
    handle: ScopedRetriever,
    files: Sequence[File],
    marks: Mapping[str, str],
    given: Mapping[str, Any],
    size: int,
    skipped: list[Skipped],
    steps: Steps,
) -> tuple[int, int, str]:
    """Write the files one by one; return the numbers of documents and chunks, and words that one of them holds."""
    written = count = 0
    words = ""
    steps.step("writing documents", 0, len(files))
    for place, file in enumerate(files):
        try:
            document = read(file, skipped.append)
            if document is not None:
                parts = document_chunks(document, size)
                marked = {**given, MARK: marks[file.name]}
                found = handle.replace(file.name, [replace(one, metadata=marked) for one in parts])
                count += found.count or 0
                written += 1
                words = words or _words(parts[0].text if parts else "")
        except BaseException as error:  # Ctrl-C too
            error.add_note(
                f"ingest: {written:,} of {len(files):,} documents were written, not {file.name!r}. The same command "
                "begins again and replaces them."
            )
            raise
        steps.step("writing documents", place + 1, len(files))
    return written, count, words


def _words(text: str) -> str:
    """Return the first words of *text* that a search can be shown with."""
    found = ["".join(filter(str.isalnum, one)) for one in text.split()]
    return " ".join([one for one in found if len(one) > 1][:4])[:60] or "…"


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
    """Return the documents that came from the roots of *files* and have no file any more.

    One that was read from a file of *files* with another `--under` has one.

    Raises: RefusedError where that is not known for certain, or without *many* they are most of the tenant's.
    """
    failed = [one for one in skipped if isinstance(one, Failed)]
    if failed:
        raise RefusedError(
            f"{plain(failed[0].name)!r} {failed[0].reason}, so it is not certain what is gone: the documents were "
            "written and none was deleted. Leave it out or make it readable, then run the same command again.",
            field="prune",
        )
    if not files:
        raise RefusedError(
            "There are no files at these paths, so nothing was deleted: they may not be mounted. `vectoracl documents "
            "delete` deletes documents by name.",
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
            f"--prune would delete {len(gone):,} of the {len(every):,} documents that there are now, as if most of the "
            "files had gone: the documents were written and none was deleted. If they have, pass --prune-many as well.",
            field="prune",
        )
    return sorted(gone)


def _forget(handle: ScopedRetriever, gone: Sequence[str], *, yes: bool, as_json: bool) -> list[str]:
    """Delete the documents *gone* once the person agrees; return those that were deleted."""
    if gone and as_json and not yes:
        return []  # the report of what was written is not given up for it; the exit code says that it was not done
    if not gone or not confirmed(f"Delete {counted(len(gone), 'document')} whose file is gone", gone, yes=yes):
        return []
    for name in gone:
        handle.delete(document=name)
    return list(gone)


def _tell_skipped(skipped: Sequence[Skipped]) -> None:
    console = out()
    for one in skipped[:_SHOWN]:
        style = "bold red" if isinstance(one, Failed) else "yellow"
        console.print(Text(f"left out: {one_line(one.name, 200)} {one_line(one.reason, 200)}", style), soft_wrap=True)
    if len(skipped) > _SHOWN:
        console.print(Text(f"left out: {len(skipped) - _SHOWN:,} more (all of them with --json)", "yellow"))
