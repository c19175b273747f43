"""The commands of the command line, and its entry point."""

from __future__ import annotations

import inspect
import io
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer
from rich.markup import escape

from vectoracl.cli import (
    access,
    adapters,
    audit,
    check,
    conformance,
    copy,
    documents,
    explain,
    governance,
    ingest,
    init,
    posix,
    provision,
    registry,
    search,
    switch,
    tenants,
)
from vectoracl.cli.common import EXIT_CODES, command
from vectoracl.cli.demo import command as demo

app = typer.Typer(
    name="vectoracl",
    help="Permission-aware vector retrieval: permissions are applied before the store ranks.\n\n"
    "New here? `vectoracl demo` shows it on real text in about a minute.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    # A traceback with local variables would show connection strings and stored text.
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"vectoracl {version('vectoracl')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del show_version


_USE, _OPERATE, _LOOK = "Use it", "Operate a store", "Look"


def _literal(text: str) -> str:
    """Return *text* so that only [b] is markup: [tenants] is a section of the configuration, not a style."""
    return "".join(part if part in ("[b]", "[/b]") else escape(part) for part in re.split(r"(\[/?b\])", text))


def _add(name: str, function: Callable[..., None], panel: str, *examples: str, to: typer.Typer = app) -> None:
    """Add a command with its examples, which are printed below its options."""
    lines = ["[b]Examples[/b]", *(f"[cyan]  {escape(one)}[/cyan]" for one in examples)] if examples else []
    # Unwraps the lines of a docstring, which would otherwise be broken where the source breaks them.
    text = "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(function.__doc__ or "").split("\n\n"))
    to.command(name, rich_help_panel=panel, help=_literal(text), epilog="\n\n".join(lines))(command(function))


_add(
    "demo",
    demo.demo,
    _USE,
    "vectoracl demo",
    "vectoracl demo --store qdrant",
    "vectoracl demo --governance --store memory",
    "vectoracl demo --docs handbooks/",
    "vectoracl demo --json",
)
_add("init", init.init, _USE, "vectoracl init", "vectoracl init --adapter memory -c tests/vectoracl.toml")
_add(
    "ingest",
    ingest.ingest,
    _USE,
    "vectoracl ingest --as you@acme docs/ README.md",
    "vectoracl ingest --as you@acme --metadata year=2024 --prune handbook/",
)
_add(
    "search",
    search.search,
    _USE,
    'vectoracl search --as reader@acme "how is an index built?"',
    'vectoracl search --as reader@acme --hybrid "error E4711"',
    'vectoracl search --as reader@acme -k 3 --json "how is an index built?"',
)
_add("explain", explain.explain, _LOOK, "vectoracl explain --as reader@acme --document docs/setup.md")
_add(
    "check",
    check.check,
    _LOOK,
    "vectoracl check",
    "vectoracl check --dsn postgresql://app@db/prod --table public.documents",
    "vectoracl check --explain PG001",
    "vectoracl check --all --format sarif > findings.sarif",
    "vectoracl check --data --json",
)
_add("adapters", adapters.adapters, _LOOK)
app.command(
    "conformance",
    rich_help_panel=_LOOK,
    add_help_option=False,  # the kit's own command has its own
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(command(conformance.conformance))
_add(
    "provision",
    provision.provision,
    _OPERATE,
    "vectoracl provision --sql | less",
    "vectoracl provision",
    "vectoracl provision --all",
    "vectoracl provision --adopt public.documents",
)
_add(
    "copy",
    copy.copy,
    _OPERATE,
    "vectoracl copy --from pg.toml --to qdrant.toml --dry-run",
    "vectoracl copy --from pg.toml --to qdrant.toml",
    "vectoracl copy --from pg.toml --to qdrant.toml --tenant acme --overwrite",
    "vectoracl copy --from pg.toml --to qdrant.toml --shard 3/16 --journal /shared/copy",
)

of_documents = typer.Typer(help="List and delete the documents of a tenant.", no_args_is_help=True)
app.add_typer(of_documents, name="documents", rich_help_panel=_USE)
_add("list", documents.listed, "Commands", "vectoracl documents list --as you@acme", to=of_documents)
_add(
    "delete",
    documents.delete,
    "Commands",
    "vectoracl documents delete --as you@acme docs/old.md",
    to=of_documents,
)

of_audit = typer.Typer(help="Search the audit records.", no_args_is_help=True)
app.add_typer(of_audit, name="audit", rich_help_panel=_LOOK)
_add(
    "find",
    audit.find_reads,
    "Commands",
    "vectoracl audit find --as auditor@acme --document docs/salaries.md",
    "vectoracl audit find --as auditor@acme --document old.md --chunk c1 --file audit.jsonl.1.gz --file audit.jsonl",
    to=of_audit,
)

of_tenants = typer.Typer(
    help="List tenants with their sizes; move, create, deactivate and remove them.", no_args_is_help=True
)
app.add_typer(of_tenants, name="tenants", rich_help_panel=_OPERATE)
_add("list", tenants.tenants_list, "Commands", "vectoracl tenants list", "vectoracl tenants list --all", to=of_tenants)
_add("promote", tenants.promote, "Commands", "vectoracl tenants promote acme", to=of_tenants)
_add("demote", tenants.demote, "Commands", "vectoracl tenants demote acme", to=of_tenants)
_add(
    "rebalance",
    tenants.rebalance,
    "Commands",
    "vectoracl tenants rebalance --dry-run",
    "vectoracl tenants rebalance --limit 20 --seconds 600",
    to=of_tenants,
)
_add(
    "switch",
    switch.switch,
    "Commands",
    "vectoracl tenants switch acme --to cluster --dry-run",
    "vectoracl tenants switch acme --to cluster",
    "vectoracl tenants switch acme --to cluster --remove-former",
    to=of_tenants,
)
_add("create", tenants.create, "Lifecycle", "vectoracl tenants create acme", to=of_tenants)
_add("deactivate", tenants.deactivate, "Lifecycle", "vectoracl tenants deactivate acme", to=of_tenants)
_add("offload", tenants.offload, "Lifecycle", "vectoracl tenants offload acme", to=of_tenants)
_add("activate", tenants.activate, "Lifecycle", "vectoracl tenants activate acme", to=of_tenants)
_add("remove", tenants.remove, "Lifecycle", "vectoracl tenants remove acme", to=of_tenants)

_add("parent", governance.parent, "Families", "vectoracl tenants parent acme-lab --of acme", to=of_tenants)

_GOVERN = "Govern documents"
of_labels = typer.Typer(help="Labels: who may read the documents that point at them.", no_args_is_help=True)
app.add_typer(of_labels, name="labels", rich_help_panel=_GOVERN)
_add("list", governance.labels_list, "Commands", "vectoracl labels list --tenant acme", to=of_labels)
_add(
    "define",
    governance.labels_define,
    "Commands",
    "vectoracl labels define hr --tenant acme --read group:hr --write role:hr-admin",
    to=of_labels,
)
_add("drop", governance.labels_drop, "Commands", "vectoracl labels drop old --tenant acme", to=of_labels)
_add(
    "move",
    governance.move,
    "Registry",
    "vectoracl documents move salaries.md --tenant acme --label hr",
    to=of_documents,
)
_add(
    "registered",
    governance.registered,
    "Registry",
    "vectoracl documents registered --tenant acme --label hr",
    to=of_documents,
)
_add(
    "hold",
    governance.hold,
    _GOVERN,
    'vectoracl hold contract.md --tenant acme --matter smith --reason "litigation"',
)
_add("release", governance.release, _GOVERN, 'vectoracl release --tenant acme --matter smith --reason "settled"')
_add("retain", governance.retain, _GOVERN, "vectoracl retain cv.md --tenant acme --until 2030-01-31T00:00:00Z")
of_quarantine = typer.Typer(help="Take chunks out of retrieval by who wrote them, and when.", no_args_is_help=True)
app.add_typer(of_quarantine, name="quarantine", rich_help_panel=_GOVERN)
_add(
    "add",
    governance.quarantine_add,
    "Commands",
    'vectoracl quarantine add incident --tenant acme --producer crawler --reason "poisoned pages"',
    to=of_quarantine,
)
_add(
    "lift",
    governance.quarantine_lift,
    "Commands",
    'vectoracl quarantine lift incident --tenant acme --reason "false alarm"',
    to=of_quarantine,
)
_add("list", governance.quarantine_list, "Commands", "vectoracl quarantine list --tenant acme", to=of_quarantine)
_add(
    "reconcile",
    governance.reconcile,
    _GOVERN,
    "vectoracl reconcile --tenant acme",
    "vectoracl reconcile --tenant acme --watch 60",
)
_add("sweep", governance.sweep, _GOVERN, "vectoracl sweep --tenant acme")
_add("erase", governance.erase, _GOVERN, 'vectoracl erase cv.md --tenant acme --reason "request of the applicant"')
of_access = typer.Typer(
    help="Who may read a document, what a principal may read, and what sources of rights say.", no_args_is_help=True
)
app.add_typer(of_access, name="access", rich_help_panel=_GOVERN)
_add("who", governance.access_who, "Commands", "vectoracl access who salaries.md --tenant acme", to=of_access)
_add("what", governance.access_what, "Commands", "vectoracl access what --as ann@acme --group hr", to=of_access)
_add(
    "apply",
    access.access_apply,
    "Sources of rights",
    "vectoracl access apply drive.jsonl --source drive --tenant acme",
    "vectoracl access apply drive.jsonl --source drive --tenant acme --json",
    to=of_access,
)
_add(
    "posix",
    posix.access_posix,
    "Sources of rights",
    "vectoracl access posix /srv/docs --source files --tenant acme --dry-run",
    "vectoracl access posix /srv/docs --source files --tenant acme --writer user:loader",
    to=of_access,
)
_add("sources", access.access_sources, "Sources of rights", "vectoracl access sources --tenant acme", to=of_access)
of_registry = typer.Typer(help="The registry: verify it after a restore, export and import it.", no_args_is_help=True)
app.add_typer(of_registry, name="registry", rich_help_panel=_GOVERN)
_add("verify", registry.verify, "Commands", "vectoracl registry verify --tenant acme", to=of_registry)
_add("export", registry.export, "Commands", "vectoracl registry export registry.jsonl", to=of_registry)
_add(
    "receipt", registry.receipt, "Commands", "vectoracl registry receipt erasure.json --key public.pem", to=of_registry
)
_add("import", registry.import_, "Commands", "vectoracl registry import registry.jsonl", to=of_registry)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal lacks must not cause an error
    app()
