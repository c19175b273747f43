"""`vectoracl init`: writes a commented configuration to start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from vectoracl._util import toml
from vectoracl._util.private_files import replace_atomically
from vectoracl._util.private_files import write_new as write_new_file
from vectoracl.adapter_api import loading
from vectoracl.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    command_line,
    out,
    plain,
    print_json,
    show_commands,
)
from vectoracl.errors import ConfigError, RefusedError

_HEAD = """\
# The configuration of vectoracl. Unknown keys are errors, so a misspelt one cannot switch a protection off.
# Secrets are { env = "NAME" } or { file = "path" }; relative paths start from this file's folder.
version = 1

# The isolation grade that a store must actually reach, or vectoracl refuses to serve: "predicate", "partition",
# "engine" or "credential". Without it, each store must reach the grade that its adapter claims.
# minimum_grade = "engine"

# With several stores, the one that is used by default.
# default_store = "main"

"""
_TAIL = """
# The metadata fields that filters may use, with their types: keyword, number, boolean, datetime, keyword[], number[].
# All other metadata of a chunk is stored and returned, but cannot be used in filters.
[stores.main.metadata]
# year = "number"
# lang = "keyword"

# Text to vectors. "hashed" needs no model and no network; "fastembed:MODEL" runs a model on this machine.
[embedder]
use = {embedder}
{allow_import}
# [tenants]
# shared = ["public"]           # read by every tenant; written by its own principals only
# [tenants.store]
# acme = "eu"                   # this tenant lives in [stores.eu]

# Where every decision is recorded (no query text, no chunk text, no vectors).
[audit]
sink = "jsonl"
path = {audit}
"""


def template(
    hooks: Any,
    *,
    settings: Mapping[str, Any] | None = None,
    name: str = "chunks",
    embedder: str = "hashed",
    dimension: int = 384,
    allow_import: bool = False,
    audit: str = ".vectoracl/audit.jsonl",
) -> str:
    """Return a commented configuration of one store, from the *hooks* of its adapter. Raises: RefusedError."""
    store = hooks.vectoracl_template(settings=settings or {}, dimension=dimension, name=name)
    if store is None:
        raise RefusedError("This adapter has no example configuration; see its documentation.")
    values = {
        "embedder": toml.value(embedder),
        "allow_import": "allow_import = true\n" if allow_import else "",
        "audit": toml.value(audit),
    }
    return _HEAD + str(store) + _TAIL.format(**values)


def write_new(path: Path, text: str, *, force: bool = False) -> None:
    """Write *text* to *path*, which must not exist without *force*. Raises: ConfigError."""
    try:
        (replace_atomically if force else write_new_file)(path, text.encode())
    except FileExistsError:
        raise ConfigError(f"{path} exists and was not changed; pass --force to overwrite it.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None


def init(
    config: ConfigOption = DEFAULT_CONFIG,
    adapter: Annotated[
        str, typer.Option("--adapter", metavar="NAME", help="The adapter to write the example for.")
    ] = "pgvector",
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented configuration to start from.

    The example for pgvector uses an embedded PostgreSQL (extra `embedded`) and that for qdrant a folder, so that
    `provision`, `ingest` and `search` work at once; in the others, fill in the server's address. `vectoracl adapters`
    lists the installed adapters.
    """
    write_new(config, template(loading.load(adapter)), force=force)
    if as_json:
        print_json({"written": plain(config), "adapter": plain(adapter)})
        return
    console = out()
    console.print(Text.assemble("Wrote ", (plain(config), "bold"), "."))
    if adapter != "memory":  # memory has nothing to provision
        console.print(Text("Next:", "dim"))
        show_commands(console, [command_line("provision", config=config)])
