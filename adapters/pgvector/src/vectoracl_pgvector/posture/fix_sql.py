"""SQL text that people run: identifiers and literals are always quoted, and no other text is inserted."""

from __future__ import annotations

from collections.abc import Iterable


def ident(*names: str) -> str:
    """`"schema"."name"`; every part is quoted, so that no name can be read as SQL."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(value: str) -> str:
    """Write a string literal that reads the same whatever `standard_conforming_strings` is."""
    quoted = "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return "E" + quoted if "\\" in value else quoted


def role(name: str | None) -> str:
    """Write a grantee: a quoted role, or PUBLIC for None and for the empty string."""
    return ident(name) if name else "PUBLIC"


def columns(names: Iterable[str]) -> str:
    """Write `"a", "b"`."""
    return ", ".join(ident(name) for name in names)


def advice(text: str) -> str:
    """Say what no statement can mend: as a comment, so that a file of fixes can be run as a whole."""
    return "-- " + " ".join(text.splitlines())
