"""SQL text that people run: identifiers and literals are always quoted, and no other text is inserted."""

from __future__ import annotations

from collections.abc import Iterable


def ident(*names: str) -> str:
    """Return `"schema"."name"`, with every part quoted, so that no name can be read as SQL."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(value: str) -> str:
    """Return a string literal that is correct with any `standard_conforming_strings`."""
    quoted = "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return "E" + quoted if "\\" in value else quoted


def role(name: str | None) -> str:
    """Return a grantee: a quoted role, or PUBLIC for None and the empty string."""
    return ident(name) if name else "PUBLIC"


def columns(names: Iterable[str]) -> str:
    """Return `"a", "b"`."""
    return ", ".join(ident(name) for name in names)


def advice(text: str) -> str:
    """Return advice that no statement can express, as a comment, so that a file of fixes can be run as a whole."""
    return "-- " + " ".join(text.splitlines())
