"""The commands together, and the entry point."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from vectoracl.cli import adapters, init, use
from vectoracl.cli.common import EXIT_CODES, command

app = typer.Typer(
    name="vectoracl",
    help="Permission-aware vector retrieval: who may see which chunks, answered before the store ranks.\n\n"
    "New here? `vectoracl demo` shows it on real text in under a minute.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    # A traceback with local variables would show connection strings and stored text.
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(value: bool) -> None:  # noqa: FBT001 - the form of an option's callback
    if value:
        typer.echo(f"vectoracl {version('vectoracl')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del show_version


_TRY, _OPERATE, _LOOK = "Use", "Operate", "Look"
app.command("init", rich_help_panel=_TRY)(command(init.init))
app.command("ingest", rich_help_panel=_TRY)(command(use.ingest))
app.command("search", rich_help_panel=_TRY)(command(use.search))
app.command("explain", rich_help_panel=_LOOK)(command(use.explain))
app.command("adapters", rich_help_panel=_LOOK)(command(adapters.adapters))


def main() -> None:
    """Run the command line."""
    app()
