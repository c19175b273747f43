"""`vectoracl init`: a commented configuration to start from."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from vectoracl.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, out, plain, print_json
from vectoracl.errors import ConfigError

_HEAD = """\
# The configuration of vectoracl. Unknown keys are errors, so a misspelt one cannot switch a protection off.
# Secrets are { env = "NAME" } or { file = "path" }; relative paths start from this file's folder.
version = 1

# The isolation that a store must really have, or vectoracl refuses to serve: "predicate", "partition", "engine" or
# "credential". Left out, each store must have what its adapter claims.
# minimum_grade = "engine"

# With several stores, name the one that is used where nothing else is said.
# default_store = "main"

"""
_STORES = {
    "pgvector": """\
[stores.main]
adapter = "pgvector"
dimension = {dimension}                 # numbers in a vector; the embedder below has to make as many
metric = "cosine"               # or "inner", "l2"

# A PostgreSQL of your own, started when it is needed and kept in this folder. Good for development and tests.
embedded = {embedded}

# A server that exists, instead of `embedded`: as a role that owns nothing (no SUPERUSER, no BYPASSRLS).
# dsn = {{ env = "VECTORACL_DSN" }}
# The owner, for `vectoracl provision` and `vectoracl tenants` only. Not needed to serve.
# owner_dsn = {{ env = "VECTORACL_OWNER_DSN" }}
schema = "vectoracl"
table = {table}
""",
    "memory": """\
[stores.main]
adapter = "memory"              # lives as long as the process: for tests
dimension = {dimension}
metric = "cosine"               # or "inner", "l2"
""",
}
_TAIL = """
# The metadata that filters may use, with its type: keyword, number, boolean, datetime, keyword[], number[].
# Everything else in a chunk's metadata is kept and returned, and cannot be filtered by.
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


class Adapter(StrEnum):
    """The adapters that there is a template for."""

    PGVECTOR = "pgvector"
    MEMORY = "memory"


def template(
    adapter: str = "pgvector",
    *,
    embedded: str = ".vectoracl/pg",
    embedder: str = "hashed",
    dimension: int = 384,
    table: str = "chunks",
    allow_import: bool = False,
    audit: str = ".vectoracl/audit.jsonl",
) -> str:
    """Return a commented configuration."""
    values = {
        "embedded": _toml(embedded),
        "embedder": _toml(embedder),
        "dimension": str(dimension),
        "table": _toml(table),
        "allow_import": "allow_import = true\n" if allow_import else "",
        "audit": _toml(audit),
    }
    return _HEAD + _STORES[adapter].format(**values) + _TAIL.format(**values)


def _toml(text: str) -> str:
    """Return *text* as a basic string of TOML."""
    escaped = "".join(
        f"\\u{ord(char):04x}" if ord(char) < 0x20 or ord(char) == 0x7F else char
        for char in text.replace("\\", "\\\\").replace('"', '\\"')
    )
    return f'"{escaped}"'


def write_new(path: Path, text: str, *, force: bool = False) -> None:
    """Write *text* to *path*, which must not exist without *force*. Raises: ConfigError."""
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists and was left as it is; pass --force to overwrite it.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None


def init(
    config: ConfigOption = DEFAULT_CONFIG,
    adapter: Annotated[Adapter, typer.Option("--adapter", help="The store to write the example for.")] = (
        Adapter.PGVECTOR
    ),
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented configuration to start from.

    The example uses an embedded PostgreSQL, so that `provision`, `ingest` and `search` work at once.
    """
    write_new(config, template(adapter.value), force=force)
    if as_json:
        print_json({"written": plain(config), "adapter": adapter.value})
        return
    console = out()
    console.print(Text.assemble("Wrote ", (plain(config), "bold"), "."))
    if adapter is Adapter.PGVECTOR:
        given = "" if config == DEFAULT_CONFIG else f" -c {plain(config)}"
        console.print(Text(f"Next: vectoracl provision{given}", "dim"))
