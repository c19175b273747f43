"""The place of the tenant in a row: a column, or a key of a JSON column. Shared by `check` and `provision --adopt`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vectoracl.adapter_api.adoption import TENANT
from vectoracl_pgvector.posture.fix_sql import ident, literal

JSON_KINDS = frozenset({"json", "jsonb"})
METADATA = ("metadata", "meta", "cmetadata", "langchain_metadata", "metadata_", "payload")
"""Well-known names of JSON columns with a chunk's metadata, in order of preference."""
LESS_TELLING = ("team_id", "project_id", "namespace", "group_id", "collection_id", "owner_id", "user_id")
"""Names that often, but not always, mean the tenant: `check` proposes them if there is no better one."""
_USUAL = {"payload": "user_id"}  # mem0
_ARROW = re.compile(r"^(?P<column>.+?)\s*->>\s*(?:'(?P<quoted>(?:[^']|'')+)'|(?P<bare>.+))$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TenantField:
    """A column or, with `key`, a top-level key of the JSON object in it; `column` is empty for none."""

    column: str
    key: str | None = None

    def __str__(self) -> str:
        return self.column if self.key is None else f"{self.column}->>{self.key}"

    def __bool__(self) -> bool:
        return bool(self.column)

    @property
    def sql(self) -> str:
        """The tenant in SQL; a JSON key's is text."""
        return ident(self.column) if self.key is None else f"({ident(self.column)} ->> {literal(self.key)})"


def parse(text: str, columns: Iterable[str] | None = None) -> TenantField:
    """Parse `column`, `column->>key` or `column->>'key'`; an existing column of that exact name comes first."""
    match = _ARROW.match(text)
    if match is None or (columns is not None and text in set(columns)):
        return TenantField(text)
    quoted = match["quoted"]
    return TenantField(match["column"].strip(), quoted.replace("''", "'") if quoted else match["bare"].strip())


def candidates(kinds: Mapping[str, str], expressions: Iterable[str] = ()) -> list[TenantField]:
    """Return the possible places of the tenant, the most likely first.

    Args:
        kinds: The columns' types, by name.
        expressions: Expressions of policies, indexes and constraints, which name JSON keys. A JSON column without any
            is proposed with its usual key.
    """
    lowered = {name.lower(): name for name in kinds}
    named = [TenantField(lowered[name]) for name in TENANT if name in lowered]
    less = [TenantField(lowered[name]) for name in LESS_TELLING if name in lowered]
    json = [lowered[name] for name in METADATA if name in lowered and kinds[lowered[name]] in JSON_KINDS]
    json += [name for name, kind in kinds.items() if kind in JSON_KINDS and name not in json]
    keyed = [field for text in expressions for field in keys_in(text, json)]
    by_key = sorted(dict.fromkeys(keyed), key=lambda field: _rank(field.key or ""))
    telling = [field for field in by_key if field.key in TENANT]
    rest = [field for field in by_key if field.key not in TENANT]
    assumed = [TenantField(name, _USUAL.get(name.lower(), TENANT[0])) for name in json if name.lower() in METADATA]
    return list(dict.fromkeys([*named, *telling, *rest, *assumed, *less]))


def _rank(key: str) -> int:
    return TENANT.index(key) if key in TENANT else len(TENANT)


def keys_in(text: str, columns: Iterable[str]) -> Iterable[TenantField]:
    """Yield the keys of JSON columns that an SQL expression names."""
    for column in columns:
        quoted = re.escape(ident(column))
        pattern = rf"(?:{quoted}|(?<![\w\"]){re.escape(column)}(?![\w\"]))\)?\s*(?:::jsonb?\s*)?->>\s*'((?:[^']|'')+)'"
        for key in re.findall(pattern, text):
            yield TenantField(column, key.replace("''", "'"))
