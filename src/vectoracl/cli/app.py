"""The commands of the command line, and its entry point."""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer
from rich.markup import escape

from vectoracl.cli import (
    adapters,
    audit,
    check,
    conformance,
    copy,
    documents,
    explain,
    ingest,
    init,
    provision,
    search,
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


def _add(name: str, function: Callable[..., None], panel: str, *examples: str, to: typer.Typer = app) -> None:
    """Add a command with its examples, which are printed below its options."""
    lines = ["[b]Examples[/b]", *(f"[cyan]  {escape(one)}[/cyan]" for one in examples)] if examples else []
    # Unwraps the lines of a docstring, which would otherwise be broken where the source breaks them.
    text = "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(function.__doc__ or "").split("\n\n"))
    to.command(name, rich_help_panel=panel, help=text, epilog="\n\n".join(lines))(command(function))


_add(
    "demo",
    demo.demo,
    _USE,
    "vectoracl demo",
    "vectoracl demo --store qdrant",
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
    "vectoracl check --format sarif > findings.sarif",
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
    "vectoracl provision --adopt public.documents",
)
_add(
    "copy",
    copy.copy,
    _OPERATE,
    "vectoracl copy --from pg.toml --to qdrant.toml --dry-run",
    "vectoracl copy --from pg.toml --to qdrant.toml",
    "vectoracl copy --from pg.toml --to qdrant.toml --tenant acme --overwrite",
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
_add("list", tenants.tenants_list, "Commands", "vectoracl tenants list", to=of_tenants)
_add("promote", tenants.promote, "Commands", "vectoracl tenants promote acme", to=of_tenants)
_add("demote", tenants.demote, "Commands", "vectoracl tenants demote acme", to=of_tenants)
_add("create", tenants.create, "Lifecycle", "vectoracl tenants create acme", to=of_tenants)
_add("deactivate", tenants.deactivate, "Lifecycle", "vectoracl tenants deactivate acme", to=of_tenants)
_add("offload", tenants.offload, "Lifecycle", "vectoracl tenants offload acme", to=of_tenants)
_add("activate", tenants.activate, "Lifecycle", "vectoracl tenants activate acme", to=of_tenants)
_add("remove", tenants.remove, "Lifecycle", "vectoracl tenants remove acme", to=of_tenants)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal lacks must not cause an error
    app()
