"""The commands of a governor: labels, documents, holds, retention, quarantine, reconcile, sweep, erase and access.

They act for the operator, through `hazmat.govern`, and are recorded so: whoever runs them can read the registry anyway.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.table import Table
from rich.text import Text

from vectoracl import hazmat
from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    NOT_MEASURED,
    ConfigOption,
    JsonOption,
    confirmed,
    counted,
    done,
    opened,
    operator,
    out,
    person,
    plain,
    print_json,
)
from vectoracl.cli.registry import new_file
from vectoracl.client.connect import VectorACL
from vectoracl.client.governance import Governance
from vectoracl.engine.explain import Explanation
from vectoracl.engine.governing import Receipt, Reconciled
from vectoracl.errors import ConfigError, InvalidInputError
from vectoracl.model.principal import Principal
from vectoracl.model.records import NEVER_EXPIRES
from vectoracl.registry.receipts import canonical
from vectoracl.registry.settings import TENANT_WIDE
from vectoracl.registry.values import Entry

TenantOption = Annotated[str, typer.Option("--tenant", metavar="TENANT", help="The tenant that is governed.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="The reason, which is recorded.")]
DocumentsArgument = Annotated[list[str], typer.Argument(metavar="DOCUMENT…", help="The ids of documents.")]
MatterOption = Annotated[str, typer.Option("--matter", metavar="NAME", help="The matter that holds them.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_MANY = 1000


@contextmanager
def governing(config: Path, tenant: str, doing: str) -> Iterator[Governance]:
    """Open *config* and govern *tenant* for the operator."""
    with opened(config, contact=False) as acl:
        reason = f"vectoracl {doing}, run by {person()} at the command line"
        yield hazmat.govern(acl, tenant, reason=reason)


def _told(lines: list[str], data: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(data)
        return
    for line in lines:
        out().print(Text.assemble(("✓ ", "green"), line), soft_wrap=True)


def _entries(given: list[str] | None, *, allow: bool, write: bool) -> list[Entry]:
    return [Entry(one, allow, write) for one in given or []]


def labels_list(tenant: TenantOption, config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """List the labels of a tenant with who may read them."""
    with governing(config, tenant, "labels list") as govern:
        found = govern.labels()
    if as_json:
        print_json({"tenant": tenant, "labels": [dataclasses.asdict(one) for one in found]})
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("label", "below", "attributes", "entries", "chunks"):
        table.add_column(name, overflow="fold", justify="right" if name == "chunks" else "left")
    for one in found:
        entries = ", ".join(
            ("" if entry.allow else "not ") + entry.subject + (" (writes)" if entry.write else "")
            for entry in one.entries
        )
        attributes = ", ".join(f"{name} {value}" for name, value in one.attributes.items())
        table.add_row(plain(one.name), plain(one.parent or ""), plain(attributes), plain(entries), f"{one.chunks:,}")
    out().print(table)


def labels_define(
    name: Annotated[str, typer.Argument(metavar="LABEL", help="The label's name.")],
    tenant: TenantOption,
    config: ConfigOption = DEFAULT_CONFIG,
    parent: Annotated[str | None, typer.Option("--parent", metavar="LABEL", help="The label above it.")] = None,
    read: Annotated[
        list[str] | None,
        typer.Option(
            "--read", metavar="SUBJECT", help='Who may read: "tenant", or "group:", "role:", "user:" and a name.'
        ),
    ] = None,
    write: Annotated[
        list[str] | None, typer.Option("--write", metavar="SUBJECT", help="Who may read and write.")
    ] = None,
    deny: Annotated[
        list[str] | None, typer.Option("--deny", metavar="SUBJECT", help="Who may do neither, whatever else permits.")
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", metavar="NAME=VALUE", help=r"An attribute that \[registry.attributes] declares."),
    ] = None,
    *,
    children: Annotated[bool, typer.Option("--children", help="Child tenants read it.")] = False,
    shared: Annotated[bool, typer.Option("--shared", help="Every tenant reads it, in a shared tenant.")] = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Create a label, or replace its definition; it is in force at the next query, and no chunk is written."""
    entries = [
        *_entries(read, allow=True, write=False),
        *_entries(write, allow=True, write=True),
        *_entries(deny, allow=False, write=False),
    ]
    with governing(config, tenant, "labels define") as govern:
        version = govern.define_label(
            name,
            parent=parent,
            attributes=_attributes(attribute),
            entries=entries,
            children=children,
            shared=shared,
            reason=reason,
        )
    _told([f"{plain(name)} is in force (version {version})"], {"label": name, "version": version}, as_json=as_json)


def _attributes(given: list[str] | None) -> dict[str, str | float | bool]:
    found: dict[str, str | float | bool] = {}
    for one in given or []:
        name, equals, text = one.partition("=")
        if not equals:
            raise InvalidInputError("--attribute takes NAME=VALUE.", field="attribute")
        try:
            value = json.loads(text, parse_constant=_not_json)
        except ValueError:
            value = text
        found[name] = value if isinstance(value, int | float | bool) else text
    return found


def _not_json(name: str) -> float:
    raise ValueError(f"{name} is not JSON, although Python reads it as a number")


def labels_drop(
    name: Annotated[str, typer.Argument(metavar="LABEL", help="The label's name.")],
    tenant: TenantOption,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Remove a label that no document and no other label uses."""
    with governing(config, tenant, "labels drop") as govern:
        version = govern.drop_label(name, reason=reason)
    _told([f"removed {plain(name)}"], {"label": name, "version": version}, as_json=as_json)


def move(
    documents: DocumentsArgument,
    tenant: TenantOption,
    label: Annotated[str, typer.Option("--label", metavar="LABEL", help="The label to which they are moved.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Point documents at another label, in force at the next query; documents that are not registered are."""
    with governing(config, tenant, "documents move") as govern:
        changed = govern.classify(documents, label, reason=reason)
    _told([f"moved {counted(len(changed), 'document')} to {plain(label)}"], {"moved": changed}, as_json=as_json)


def registered(
    tenant: TenantOption,
    config: ConfigOption = DEFAULT_CONFIG,
    label: Annotated[str | None, typer.Option("--label", metavar="LABEL", help="Only documents of this label.")] = None,
    matter: Annotated[str | None, typer.Option("--matter", metavar="NAME", help="Only documents it holds.")] = None,
    after: Annotated[str, typer.Option("--after", metavar="DOCUMENT", help="Continue after this document.")] = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """List documents as the registry knows them: label, holds, expiry; up to 1,000 of them."""
    with governing(config, tenant, "documents registered") as govern:
        found = govern.documents(after=after, size=_MANY, label=label, matter=matter)
    if as_json:
        print_json({"tenant": tenant, "documents": [dataclasses.asdict(one) for one in found]})
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("document", "label", "state", "chunks", "expires", "held for"):
        table.add_column(name, overflow="fold", justify="right" if name == "chunks" else "left")
    for one in found:
        state = one.state + (", changed" if one.changed else "")
        matters = ", ".join(one.matters)
        table.add_row(
            plain(one.document), plain(one.label), state, f"{one.chunks:,}", moment(one.expires), plain(matters)
        )
    out().print(table)


def moment(seconds: float) -> str:
    """Return a time as text; "" for one that never comes."""
    return "" if seconds >= NEVER_EXPIRES else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def hold(
    documents: DocumentsArgument,
    tenant: TenantOption,
    matter: MatterOption,
    reason: ReasonOption,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Hold documents for a matter: they are stored, and no one reads or deletes them before the last release."""
    with governing(config, tenant, "hold") as govern:
        held = govern.hold(documents, matter, reason=reason)
    _told([f"{plain(matter)} holds {counted(len(held), 'more document')}"], {"held": held}, as_json=as_json)


def release(
    tenant: TenantOption,
    matter: MatterOption,
    reason: ReasonOption,
    documents: Annotated[
        list[str] | None, typer.Argument(metavar="[DOCUMENT…]", help="The documents; all of the matter without them.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """End the hold of a matter. Documents that another matter holds stay held."""
    with governing(config, tenant, "release") as govern:
        released = govern.release(matter, documents or None, reason=reason)
    _told([f"released {counted(len(released), 'document')}"], {"released": released}, as_json=as_json)


def retain(
    documents: DocumentsArgument,
    tenant: TenantOption,
    until: Annotated[
        str, typer.Option("--until", metavar="TIME", help='A time such as 2030-01-31T00:00:00Z, or "always".')
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make documents invisible from a time on, by the registry's clock; `sweep` erases them later."""
    end = None if until == "always" else _time(until)
    with governing(config, tenant, "retain") as govern:
        govern.retain(documents, end, reason=reason)
    text = "always" if end is None else moment(end)
    _told([f"kept until {text}: {counted(len(documents), 'document')}"], {"until": end}, as_json=as_json)


def _time(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidInputError("A time has the form 2030-01-31T00:00:00Z, with its zone.", field="time")
    return moment.timestamp()


def quarantine_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The rule's name.")],
    tenant: TenantOption,
    reason: ReasonOption,
    config: ConfigOption = DEFAULT_CONFIG,
    producer: Annotated[
        str | None, typer.Option("--producer", metavar="ID", help="The id that wrote the chunks.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="NAME", help="The pipeline that wrote them.")
    ] = None,
    document: Annotated[str | None, typer.Option("--document", metavar="ID", help="The document.")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="Written at or after this time.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Written before this time.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Take chunks out of retrieval by what was noted when they were written; all given options must match."""
    with governing(config, tenant, "quarantine add") as govern:
        version = govern.quarantine(
            name,
            producer=producer,
            source=source,
            document=document,
            since=None if since is None else _time(since),
            until=None if until is None else _time(until),
            reason=reason,
        )
    _told([f"{plain(name)} is in force (version {version})"], {"rule": name, "version": version}, as_json=as_json)


def quarantine_lift(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The rule's name.")],
    tenant: TenantOption,
    reason: ReasonOption,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """End a quarantine rule: its chunks are retrieved again."""
    with governing(config, tenant, "quarantine lift") as govern:
        version = govern.lift(name, reason=reason)
    _told([f"lifted {plain(name)}"], {"rule": name, "version": version}, as_json=as_json)


def quarantine_list(
    tenant: TenantOption, config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False
) -> None:
    """List the quarantine rules in force."""
    with governing(config, tenant, "quarantine list") as govern:
        rules = govern.rules()
    parts = ("name", "producer", "source", "document", "generation", "since", "until")
    found = [{one: getattr(rule, one) for one in parts} for rule in rules]
    if as_json:
        print_json({"tenant": tenant, "rules": found})
        return
    for one in found:
        text = ", ".join(f"{name} {value}" for name, value in one.items() if value is not None and name != "name")
        out().print(Text(f"{plain(one['name'])}: {plain(text)}"), soft_wrap=True)
    if not found:
        out().print("No quarantine rules.")


def reconcile(
    tenant: TenantOption,
    config: ConfigOption = DEFAULT_CONFIG,
    patience: Annotated[
        float, typer.Option("--patience", metavar="SECONDS", min=0, help="Wait this long for what changed just now.")
    ] = 0.0,
    watch: Annotated[
        float | None, typer.Option("--watch", metavar="SECONDS", min=1, help="Repeat it at this interval.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Write changed labels into the chunks, so that filters become short again. It changes no answer.

    It can be repeated and interrupted at any time; what it has written is never written again.
    """
    with governing(config, tenant, "reconcile") as govern:
        while True:
            report = govern.reconcile(patience=patience)
            _reported(report, as_json=as_json)
            if watch is None:
                break
            time.sleep(watch)
    done(CLEAN if not report.incomplete else NOT_MEASURED)


def _reported(report: Reconciled, *, as_json: bool) -> None:
    lines = [f"wrote {counted(len(report.written), 'document')}, completed {len(report.erased):,} deletions"]
    if report.left:
        wait = f"; {report.wait:.0f} s until more may be written" if report.wait else ""
        lines.append(f"{counted(report.left, 'document')} left{wait}")
    if report.incomplete:
        lines.append(f"chunks are missing or differ: {plain(', '.join(report.incomplete[:10]))}")
    _told(lines, dataclasses.asdict(report), as_json=as_json)


def sweep(
    tenant: TenantOption,
    config: ConfigOption = DEFAULT_CONFIG,
    share: Annotated[
        float, typer.Option("--share", metavar="SHARE", min=0, max=1, help="Erase nothing if more has expired.")
    ] = 0.2,
    *,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Erase documents whose time has passed, holds excepted; made for cron.

    Without a registry it deletes chunks whose time has passed, of a store with `expiring = true`.
    """
    with opened(config, contact=False) as acl:
        why = f"vectoracl sweep, run by {person()} at the command line"
        if acl.registry is None:
            why = f"{why}: {reason}" if reason else why
            number = hazmat.operate(acl, store=acl.store_of(tenant), reason=why).sweep(tenant, largest_share=share)
            _told([f"deleted {counted(number, 'chunk')}"], {"tenant": tenant, "chunks": number}, as_json=as_json)
            return
        receipt = hazmat.govern(acl, tenant, reason=why).sweep(largest_share=share, reason=reason)
    _receipt(receipt, as_json=as_json)


def erase(
    tenant: TenantOption,
    reason: ReasonOption,
    documents: Annotated[list[str] | None, typer.Argument(metavar="DOCUMENT…", help="The ids of documents.")] = None,
    producer: Annotated[
        str | None, typer.Option("--producer", metavar="ID", help="Erase all that this id alone has written.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    receipt: Annotated[
        Path | None, typer.Option("--receipt", metavar="FILE", help="Write the receipt to this new file.")
    ] = None,
    *,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete documents, and look for what is left of them. It asks first; a held document stops it."""
    if (producer is None) == (not documents):
        raise InvalidInputError("Name documents, or a producer with --producer.", field="documents")
    with governing(config, tenant, "erase") as govern:
        _check_receipt(receipt)
        what = counted(len(documents or ()), "document") if producer is None else "all documents of one producer"
        names = documents or [str(producer)]
        if not confirmed(f"Erase {what} of the tenant {plain(tenant)}", names, yes=yes, as_json=as_json):
            done(NOT_MEASURED)
        with _receipt_file(receipt) as target:
            if producer is None:
                found = govern.erase(names, reason=reason)
            else:
                found = govern.erase_producer(producer, reason=reason)
            if target is not None:
                target.write(found.signed)
    _receipt(found, as_json=as_json)


def _check_receipt(path: Path | None) -> None:
    """Refuse a receipt that could not be written, before anything is erased. Raises: ConfigError, InvalidInputError."""
    if path is not None:
        canonical({})  # fails where the packages of the extra are missing
        new_file(path).close()
        path.unlink()


@contextmanager
def _receipt_file(path: Path | None) -> Iterator[BinaryIO | None]:
    """Create *path* for a receipt, and remove it again if there is none to write."""
    if path is None:
        yield None
        return
    file = new_file(path)
    try:
        with file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _receipt(receipt: Receipt, *, as_json: bool) -> None:
    lines = [f"erased {counted(len(receipt.documents), 'document')}; looked at {', '.join(receipt.looked_at)}"]
    if receipt.left:
        lines.append(f"chunks are left of: {plain(', '.join(receipt.left[:10]))}")
    if receipt.shared:
        lines.append(f"left alone, since others have written them too: {plain(', '.join(receipt.shared[:10]))}")
    data = dataclasses.asdict(receipt)
    _told(lines, {**data, "signed": receipt.signed.decode()}, as_json=as_json)
    if receipt.left:
        done(NOT_MEASURED)


def _registry(acl: VectorACL) -> Any:
    if acl.registry is None:
        raise ConfigError(
            "There is no [registry] in the configuration. Add it and run `vectoracl provision` (docs/governance.md)."
        )
    return acl.registry


def parent(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="The tenant that becomes a child.")],
    of: Annotated[
        str | None, typer.Option("--of", metavar="PARENT", help="Its parent; without it, it has none from now on.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a tenant a child of another, whose labels for children it then reads; at most 8 levels."""
    with governing(config, tenant, "tenants parent") as govern:
        version = govern.set_parent(of, reason=reason)
    text = f"{plain(tenant)} has no parent" if of is None else f"{plain(tenant)} is a child of {plain(of)}"
    _told([text], {"tenant": tenant, "parent": of, "version": version}, as_json=as_json)


def access_who(
    document: Annotated[str, typer.Argument(metavar="DOCUMENT", help="The document's id.")],
    tenant: TenantOption,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show who may read a document: the entries in effect for its label, and what hides it from all."""
    with governing(config, tenant, "access who") as govern:
        found = govern.who(document)
    if as_json:
        print_json(found)
        return
    console = out()
    console.print(Text(f"{plain(document)} has the label {plain(found['label'])}."), soft_wrap=True)
    for reason in found["hidden"]:
        console.print(Text(f"No one reads it: {plain(reason)}."), soft_wrap=True)
    for one in found["entries"]:
        verb = ("writes" if one["write"] else "reads") if one["allow"] else "is denied"
        who = "every principal of the tenant" if one["subject"] == TENANT_WIDE else plain(one["subject"])
        console.print(Text(f"{who} {verb}{_bounds(one)}"), soft_wrap=True)


def _bounds(one: dict[str, Any]) -> str:
    since = "" if one["from"] is None else f" from {moment(one['from'])}"
    return since + ("" if one["until"] is None else f" until {moment(one['until'])}")


def access_what(
    who: Annotated[str, typer.Option("--as", metavar="ID@TENANT", help="The principal.")],
    config: ConfigOption = DEFAULT_CONFIG,
    group: Annotated[
        list[str] | None, typer.Option("--group", metavar="NAME", help="A group of the principal.")
    ] = None,
    role: Annotated[list[str] | None, typer.Option("--role", metavar="NAME", help="A role of the principal.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show which labels a principal may read and write, by the decision that its queries get.

    What the policy permits beyond labels is shown as a filter.
    """
    asked = operator(who, "access what")
    principal = Principal(
        asked.id,
        asked.tenant,
        frozenset(role or ()),
        frozenset(group or ()),
        kind="operator",
        authenticated_by=asked.authenticated_by,
    )
    with opened(config) as acl:
        _registry(acl)
        reads, writes = acl.explain(principal, "search"), acl.explain(principal, "upsert")
    decided = {"reads": reads, "writes": writes}
    if as_json:
        found = {verb: {tenant: labels for tenant, labels in one.labels if labels} for verb, one in decided.items()}
        filters = {verb: dict(one.grants) for verb, one in decided.items()}
        denied = {verb: list(one.reasons) for verb, one in decided.items() if not one.permit}
        print_json({"principal": who, **found, "filters": filters, "denied": denied})
        return
    for verb, one in decided.items():
        for line in _labels_of(one):
            out().print(Text(f"{plain(who)} {verb} {plain(line)}"), soft_wrap=True)


def _labels_of(one: Explanation) -> list[str]:
    """Return a line for each tenant in which labels are permitted, with what the policy demands besides."""
    if not one.permit:
        return [f"nothing: the policy denies it ({'; '.join(one.reasons)})"]
    filters = dict(one.grants)
    lines = []
    for tenant, labels in one.labels:
        rest = [part for part in filters[tenant].get("and", []) if part.get("field") != "@label"]
        where = f", where {json.dumps(rest)} holds" if rest else ""
        lines += [f"{tenant}: {', '.join(labels)}{where}"] if labels else []
    return lines or ["nothing"]
