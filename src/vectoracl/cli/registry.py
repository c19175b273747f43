"""The commands of the registry itself: verify it against its stores after a restore, export and import it."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TextIO

import typer
from rich.text import Text

from vectoracl import hazmat
from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    NOT_MEASURED,
    ConfigOption,
    JsonOption,
    counted,
    done,
    opened,
    out,
    person,
    plain,
    print_json,
)
from vectoracl.errors import ConfigError, InvalidInputError, without_context

if TYPE_CHECKING:
    from vectoracl.client.connect import VectorACL
    from vectoracl.registry.restores import Verified
    from vectoracl.registry.sql_registry import Registry


def _registry(acl: VectorACL) -> Registry:
    if acl.registry is None:
        raise ConfigError(
            "There is no [registry] in the configuration. Add it and run `vectoracl provision` (docs/governance.md)."
        )
    return acl.registry


def verify(
    tenant: Annotated[
        list[str] | None,
        typer.Option("--tenant", metavar="TENANT", help="A tenant; without it, every tenant of the registry."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    accept_registry: Annotated[
        bool,
        typer.Option("--accept-registry", help="Store and registry were restored to one moment, without a journal."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare every chunk with the registry, correct what contradicts it, and let a stopped tenant go on.

    Run it after a backup of a store or of the registry was restored. Changes that the registry has lost are taken from
    the journal. Chunks of erased and of unknown documents are deleted; what is missing is reported. It can be repeated.
    """
    found: list[dict[str, Any]] = []
    with opened(config, contact=False) as acl:
        for one in tenant or _registry(acl).tenants():
            reason = f"vectoracl registry verify, run by {person()} at the command line"
            report = hazmat.govern(acl, one, reason=reason).verify(accept_registry=accept_registry)
            found.append(report._asdict())
            if not as_json:
                _reported(report)
    if as_json:
        print_json({"tenants": found})
    done(NOT_MEASURED if any(one["incomplete"] for one in found) else CLEAN)


def _reported(report: Verified) -> None:
    parts = [f"{plain(report.tenant)}: compared {counted(report.documents, 'document')}"]
    if report.replayed:
        parts.append(f"took {counted(report.replayed, 'change')} from the journal")
    parts.append(f"corrected {len(report.corrected):,}, deleted chunks of {len(report.deleted):,}")
    out().print(Text.assemble(("✓ ", "green"), "; ".join(parts)), soft_wrap=True)
    if report.incomplete:
        names = plain(", ".join(report.incomplete[:10]))
        text = f"  chunks are missing of {counted(len(report.incomplete), 'document')}, write them again: {names}"
        out().print(Text(text, "yellow"), soft_wrap=True)


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; it must not exist.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Write the whole registry of one moment to a file, readable by its owner alone."""
    from vectoracl.registry import exporting

    number = 0
    with opened(config, contact=False) as acl, ExitStack() as closing:
        lines = exporting.lines(_registry(acl))
        first = next(lines)
        target = closing.enter_context(new_file(file))
        target.write(first.encode() + b"\n")
        for line in lines:
            target.write(line.encode() + b"\n")
            number += 1
    _told(f"exported {counted(number - 1, 'row')}", {"rows": number - 1, "file": str(file)}, as_json=as_json)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of `vectoracl registry export`.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Fill a new registry from an export. It creates the tables, and refuses a registry that has content.

    What changed since the export is noticed by the stores' marks and by the journal; run `vectoracl registry verify`.
    """
    from vectoracl.registry import exporting

    with opened(config, contact=False) as acl, ExitStack() as closing:
        registry = _registry(acl)
        registry.create()
        number = exporting.load(registry, closing.enter_context(_text(file)))
    _told(f"imported {counted(number, 'row')}", {"rows": number}, as_json=as_json)


def receipt(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The receipt of an erasure.")],
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The public key that you trust, in PEM.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Check the receipt of an erasure, offline: that it is unchanged, and signed by the key that you trust."""
    from vectoracl.registry import receipts

    trusted = None if key is None else receipts.public_key(_read(key).decode("utf-8", "replace"))
    content, signed = receipts.check(_read(file), trusted)
    erased, left = counted(len(content["erased"]), "document"), len(content["left"])
    text = f"{erased} of {plain(content['tenant'])} erased, {left:,} left"
    if signed or as_json:
        _told(f"signed by this key; {text}", {**content, "signed": signed}, as_json=as_json)
    else:
        out().print(Text(f"! NOT SIGNED, anyone may have written it: {text}", "yellow"), soft_wrap=True)
    done(CLEAN if signed else NOT_MEASURED)


@without_context
def new_file(path: Path) -> BinaryIO:
    """Create *path* for its owner alone; it must not exist. Raises: InvalidInputError."""
    try:
        return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")
    except OSError as error:
        raise InvalidInputError(f"The file cannot be created: {error.strerror}.", field="file") from None


@without_context
def _text(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"The file cannot be read: {error.strerror}.", field="file") from None


@without_context
def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"The file cannot be read: {error.strerror}.", field="file") from None


def _told(text: str, data: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(data)
        return
    out().print(Text.assemble(("✓ ", "green"), text), soft_wrap=True)
