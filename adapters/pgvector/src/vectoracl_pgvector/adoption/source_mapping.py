"""Maps the columns of an existing table to the parts of a chunk.

Columns are found by type and well-known name, or named by `[stores.NAME.adopt]`. If two columns qualify, neither is
chosen: the error names both and the line to write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg

from vectoracl.adapter_api.adoption import DOCUMENT, TENANT, steps
from vectoracl.errors import RefusedError
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import SETTING, Names, literal, quote
from vectoracl_pgvector.posture.tenant_field import LESS_TELLING, METADATA, parse

HELPER = "vectoracl_adopt"
"""The policy that lets the owner role read a table with row-level security during its import."""
_CHUNK = ("chunk_id", "id", "uuid", "langchain_id")
_TEXT = ("text", "content", "body", "chunk", "page_content", "chunk_text")
_VECTOR = ("embedding", "vector")
# pg_type.typcategory: strings, numbers, booleans, dates and times; and three types of the user-defined category.
_CATEGORIES = frozenset("SNBD")
_NAMED = frozenset({"uuid", "json", "jsonb"})
_IDS = frozenset({"text", "varchar", "bpchar", "uuid", "int2", "int4", "int8"})


class Column(NamedTuple):
    """One column: `kind` is the bare name of its type, `element` that of an array's elements."""

    name: str
    type: str
    kind: str
    category: str
    modifier: int
    element: str | None

    @property
    def plain(self) -> bool:
        """Whether JSON can represent it."""
        if self.category == "A":
            return self.element is not None
        return self.category in _CATEGORIES or self.kind in _NAMED


@dataclass(frozen=True, slots=True)
class Part:
    """The source of one part of a chunk: a column, or a key of a JSON column."""

    column: str
    key: str | None = None

    def __str__(self) -> str:
        return self.column if self.key is None else f"{self.column}->>{self.key}"

    @property
    def sql(self) -> str:
        """The SQL that returns the part as text."""
        if self.key is None:
            return f"source.{quote(self.column)}::text"
        # A number is a usable id; true, null, lists and objects are not.
        value = f"(source.{quote(self.column)})::jsonb"
        key = literal(self.key)
        return f"(CASE WHEN jsonb_typeof({value} -> {key}) IN ('string', 'number') THEN {value} ->> {key} END)"


@dataclass(frozen=True, slots=True)
class Source:
    """An existing table and its mapping. `leaves` are the tables that contain its rows; table names are quoted."""

    table: str
    leaves: tuple[str, ...]
    tenant: Part
    document: Part | None
    chunk: str
    text: str | None
    text_keys: tuple[str, ...]
    metadata: str | None
    vector: str
    vector_type: str
    key: tuple[str, ...]
    extra: tuple[str, ...]
    left_out: tuple[Column, ...]

    def select(self) -> str:
        """Return the selected columns: the row's ctid, its key, and the parts of a chunk, the vector in binary."""
        extra = ", ".join(f"source.{quote(name)}" for name in self.extra)
        extra = f"(SELECT to_jsonb(one) FROM (SELECT {extra}) AS one)::text" if extra else "NULL::text"
        metadata = "NULL::text" if self.metadata is None else f"(source.{quote(self.metadata)})::jsonb::text"
        text = "NULL::text" if self.text is None else f"source.{quote(self.text)}::text"
        return (
            f"source.ctid::text, ARRAY[{self.keys}], {self.tenant.sql}, {self.document_sql}, {self.chunk_sql}, "
            f"{text}, {metadata}, {extra}, source.{quote(self.vector)}"
        )

    @property
    def keys(self) -> str:
        """The primary key's columns as text, or the chunk id if there is no primary key."""
        names = self.key or (self.chunk,)
        return ", ".join(f"source.{quote(name)}::text" for name in names)

    @property
    def chunk_sql(self) -> str:
        """The chunk's id."""
        return Part(self.chunk).sql

    @property
    def document_sql(self) -> str:
        """The document's id; a chunk without a document is its own document."""
        return self.chunk_sql if self.document is None else self.document.sql


def find(connection: psycopg.Connection[Any], config: PgvectorConfig, source: str) -> Source:
    """Inspect the table *source* and map its columns.

    Args:
        connection: The owner's connection.
        config: The store's configuration.
        source: The table, as "schema.table" or "table".

    Raises:
        RefusedError: The table cannot be imported; the message says what to do.
    """
    oid, schema, table, kind = _table(connection, config, source)
    full = f"{quote(schema)}.{quote(table)}"
    if kind not in "rp":
        raise RefusedError(f"{full} is not a table (a view has no rows itself); name the table behind it.")
    _readable(connection, config, oid, full)
    columns = _columns(connection, oid)
    rows = connection.execute(
        "WITH RECURSIVE tree(oid) AS (SELECT %s::oid UNION ALL SELECT inhrelid FROM pg_catalog.pg_inherits "
        "JOIN tree ON inhparent = tree.oid) SELECT space.nspname, kind.relname, kind.relkind::text FROM tree "
        "JOIN pg_catalog.pg_class AS kind ON kind.oid = tree.oid "
        "JOIN pg_catalog.pg_namespace AS space ON space.oid = kind.relnamespace ORDER BY tree.oid",
        (oid,),
    ).fetchall()
    leaves = tuple(f"{quote(space)}.{quote(name)}" for space, name, leaf in rows if leaf == "r")
    if len(leaves) + sum(leaf == "p" for _, _, leaf in rows) < len(rows):
        raise RefusedError(f"{full} has foreign tables among its parts; copy them into ordinary tables first.")
    key = tuple(
        row[0]
        for row in connection.execute(
            "SELECT column_.attname FROM pg_catalog.pg_index AS index "
            "JOIN pg_catalog.pg_attribute AS column_ ON column_.attrelid = index.indrelid "
            "AND column_.attnum = ANY(index.indkey) WHERE index.indrelid = %s AND index.indisprimary "
            "ORDER BY array_position(index.indkey::int2[], column_.attnum)",
            (oid,),
        ).fetchall()
    )
    return _Finder(connection, config, full, columns, key).find(leaves)


def _table(connection: psycopg.Connection[Any], config: PgvectorConfig, source: str) -> tuple[int, str, str, str]:
    ours = Names.of(config)
    exact = ".".join(quote(part) for part in source.split(".", 1))
    row = None
    for spelling in (exact, source):
        try:
            row = connection.execute(
                "SELECT kind.oid::int8, space.nspname, kind.relname, kind.relkind::text, "
                "kind.oid = ANY(ARRAY[pg_catalog.to_regclass(%s), pg_catalog.to_regclass(%s)]::oid[]) "
                "FROM pg_catalog.pg_class AS kind JOIN pg_catalog.pg_namespace AS space "
                "ON space.oid = kind.relnamespace WHERE kind.oid = pg_catalog.to_regclass(%s)",
                (ours.table, ours.default, spelling),
            ).fetchone()
        except (psycopg.DataError, psycopg.ProgrammingError):
            row = None
        if row is not None:
            break
    if row is None:
        raise RefusedError(
            f"{config.owner_role} can see no table {source!r}. Write it as schema.table; if it exists, "
            f"grant USAGE on its schema to {config.owner_role}."
        )
    oid, schema, table, kind, own = row
    if own or (schema == config.schema_name and table.startswith(config.table + "_")):
        raise RefusedError("That table belongs to vectoracl already.")
    return oid, schema, table, kind


def _readable(connection: psycopg.Connection[Any], config: PgvectorConfig, oid: int, full: str) -> None:
    """Refuse a table that the owner role cannot read, or whose row-level security could hide rows."""
    role = quote(config.owner_role)
    row = connection.execute(
        "SELECT pg_catalog.has_table_privilege(%(oid)s::oid, 'SELECT'), pg_catalog.row_security_active(%(oid)s::oid), "
        "EXISTS (SELECT 1 FROM pg_catalog.pg_policy WHERE polrelid = %(oid)s AND polpermissive "
        "AND polcmd IN ('r', '*') AND pg_catalog.pg_get_expr(polqual, polrelid) = 'true' AND EXISTS (SELECT 1 FROM "
        "unnest(polroles) AS one(oid) WHERE one.oid = 0 OR pg_catalog.pg_has_role(one.oid, 'MEMBER'))), "
        "EXISTS (SELECT 1 FROM pg_catalog.pg_policy WHERE polrelid = %(oid)s AND NOT polpermissive "
        "AND polcmd IN ('r', '*'))",
        {"oid": oid},
    ).fetchone()
    assert row is not None
    may, active, opened, restricted = row
    if not may:
        raise RefusedError(f"{config.owner_role} cannot read {full}. As its owner: GRANT SELECT ON {full} TO {role};")
    if active and (restricted or not opened):
        raise RefusedError(
            f"Row-level security of {full} may hide rows from {config.owner_role}, and the copy would lack them "
            f"unnoticed. As its owner: CREATE POLICY {HELPER} ON {full} FOR SELECT TO {role} USING (true); "
            "(drop restrictive policies, or copy from a table without them)."
        )


def _columns(connection: psycopg.Connection[Any], oid: int) -> dict[str, Column]:
    rows = connection.execute(
        "SELECT column_.attname, pg_catalog.format_type(column_.atttypid, column_.atttypmod), kind.typname, "
        "kind.typcategory::text, column_.atttypmod, (SELECT one.typname FROM pg_catalog.pg_type AS one "
        "WHERE one.oid = kind.typelem AND (one.typcategory IN ('S', 'N', 'B', 'D') OR one.typname = ANY(%s))) "
        "FROM pg_catalog.pg_attribute AS column_ JOIN pg_catalog.pg_type AS kind ON kind.oid = "
        "COALESCE(NULLIF((SELECT base.typbasetype FROM pg_catalog.pg_type AS base "
        "WHERE base.oid = column_.atttypid), 0), column_.atttypid) "
        "WHERE column_.attrelid = %s AND column_.attnum > 0 AND NOT column_.attisdropped ORDER BY column_.attnum",
        (list(_NAMED), oid),
    ).fetchall()
    return {row[0]: Column(*row) for row in rows}


class _Finder:
    """Decides the meaning of each column."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        config: PgvectorConfig,
        table: str,
        columns: dict[str, Column],
        key: tuple[str, ...],
    ) -> None:
        self._connection = connection
        self._config = config
        self._table = table
        self._columns = columns
        self._key = key

    def find(self, leaves: tuple[str, ...]) -> Source:
        """Return the mapping. Raises: RefusedError."""
        configured = self._config.adopt
        for name in configured.leave_out:
            self._known(name, "leave_out")
        vector = self._vector()
        metadata = self._metadata()
        tenant = self._part("tenant", configured.tenant) or self._tenant(metadata)
        text, text_keys = self._text(metadata)
        document = self._part("document", configured.document) or self._document(tenant, text)
        chunk = self._chunk(tenant, document)
        used = {vector, metadata, chunk, tenant.column if tenant.key is None else None}
        if not text_keys:
            used.add(text)
        if document is not None and document.key is None:
            used.add(document.column)
        rest = [one for name, one in self._columns.items() if name not in used and name not in configured.leave_out]
        extra = tuple(one.name for one in rest if one.plain)
        left_out = (*(one for one in rest if not one.plain), *(self._columns[name] for name in configured.leave_out))
        if any("%" in name for name in (self._table, *self._columns, tenant.key or "", str(document))):
            raise RefusedError(f"{self._table} has a % in a name, which is not supported; rename it, or use a copy.")
        type_ = self._columns[vector].kind
        return Source(
            self._table,
            leaves,
            tenant,
            document,
            chunk,
            text,
            text_keys,
            metadata,
            vector,
            type_,
            self._key,
            extra,
            left_out,
        )

    def _known(self, name: str, role: str) -> Column:
        column = self._columns.get(name)
        if column is None:
            raise RefusedError(f"adopt.{role} names {name!r}, but {self._table} has no such column.")
        return column

    def _part(self, role: str, configured: str | None) -> Part | None:
        if configured is None:
            return None
        if configured in self._columns:
            return Part(configured)
        field = parse(configured)
        column, key = field.column, field.key
        if key is None:
            self._known(configured, role)
        if self._known(column, role).kind not in ("json", "jsonb"):
            raise RefusedError(f"adopt.{role}: the column {column!r} is not of type json or jsonb.")
        return Part(column, key)

    def _choose(self, role: str, configured: str | None, names: tuple[str, ...], kinds: frozenset[str]) -> str | None:
        """Return the column for *role*: the configured one, else the only one with a well-known name."""
        if configured is not None:
            return self._known(configured, role).name
        skip = self._config.adopt.leave_out
        candidates = [name for name in names if name in self._columns and self._columns[name].kind in kinds]
        candidates = [name for name in candidates if name not in skip]
        if len(candidates) > 1:
            self._ambiguous(role, candidates)
        return candidates[0] if candidates else None

    def _ambiguous(self, role: str, candidates: list[str]) -> None:
        raise RefusedError(
            f"{self._table}: {role} could be {' or '.join(candidates)}. "
            f'Name one: [stores.NAME.adopt] {role} = "{candidates[0]}"'
        )

    def _vector(self) -> str:
        configured = self._config.adopt.vector
        vector_columns = [name for name, one in self._columns.items() if one.kind in ("vector", "halfvec")]
        vector_columns = [name for name in vector_columns if name not in self._config.adopt.leave_out]
        named = [name for name in vector_columns if name in _VECTOR]
        candidates = named if len(named) == 1 else vector_columns
        if configured is not None:
            candidates = [self._known(configured, "vector").name]
        if len(candidates) > 1:
            self._ambiguous("vector", candidates)
        if not candidates or self._columns[candidates[0]].kind not in ("vector", "halfvec"):
            raise RefusedError(f"{self._table} has no column of type vector or halfvec.")
        column = self._columns[candidates[0]]
        if column.modifier not in (-1, self._config.dimension):
            raise RefusedError(
                f"{self._table}.{column.name} holds vectors with {column.modifier} dimensions, but the store is "
                f"configured for {self._config.dimension}. Set dimension, or embed the texts again."
            )
        return column.name

    def _metadata(self) -> str | None:
        kinds = frozenset({"json", "jsonb"})
        column = self._choose("metadata", self._config.adopt.metadata, METADATA, kinds)
        if column is not None and self._columns[column].kind not in kinds:
            raise RefusedError(f"adopt.metadata: the column {column!r} is not of type json or jsonb.")
        return column

    def _tenant(self, metadata: str | None) -> Part:
        column = self._choose("tenant", None, TENANT, _IDS)
        if column is not None:
            return Part(column)
        if metadata is not None:
            keys = self._keys_in(metadata, TENANT)
            if len(keys) > 1:
                self._ambiguous("tenant", [f"{metadata}->>{key}" for key in keys])
            if keys:
                return Part(metadata, keys[0])
        less = [name for name in LESS_TELLING if name in self._columns]
        hint = f" If it is {less[0]}, whose name can mean something else, name it explicitly." if less else ""
        raise RefusedError(
            f"{self._table} has no column, and its metadata no key, with a well-known name for the tenant.{hint} "
            'Set it: [stores.NAME.adopt] tenant = "COLUMN" (or "COLUMN->>KEY" for a key of a JSON column). '
            "There is no default."
        )

    def _text(self, metadata: str | None) -> tuple[str | None, tuple[str, ...]]:
        """Return the column with the text, and the keys within it if that is JSON."""
        kinds = frozenset({"text", "varchar", "bpchar"})
        configured = self._config.adopt.text
        if configured is not None and configured not in self._columns and "->>" in configured:
            column, *keys = steps(configured)
            if self._known(column, "text").kind not in {*kinds, "json", "jsonb"}:
                raise RefusedError(f"adopt.text: the column {column!r} does not hold JSON.")
            return column, tuple(keys)
        text_column = self._choose("text", configured, _TEXT, kinds)
        # langchain_pg_embedding stores the text of a chunk in `document`.
        if text_column is None and metadata == "cmetadata" and "document" in self._columns:
            return "document", ()
        if text_column is None and metadata is not None:
            return self._text_in(metadata)
        return text_column, ()

    def _text_in(self, metadata: str) -> tuple[str | None, tuple[str, ...]]:
        """Return the place of the text in the JSON column *metadata*, by well-known keys."""
        usual = {**{key: (key,) for key in _TEXT}, "data": ("data",), "_node_content": ("_node_content", "text")}
        keys = self._keys_in(metadata, tuple(usual))
        if len(keys) > 1:
            keys = [key for key in keys if key != "_node_content"] or keys
        if len(keys) > 1:
            self._ambiguous("text", [f"{metadata}->>{key}" for key in keys])
        return (metadata, usual[keys[0]]) if keys else (None, ())

    def _keys_in(self, metadata: str, keys: tuple[str, ...]) -> list[str]:
        """Return those of *keys* that a row's JSON object in the column *metadata* has."""
        rows = self._connection.execute(
            f"SELECT one.key FROM unnest(%s::text[]) AS one(key) WHERE EXISTS (SELECT 1 FROM {self._table} "
            f"AS source WHERE jsonb_typeof({quote(metadata)}::jsonb) = 'object' "
            f"AND {quote(metadata)}::jsonb ? one.key) ORDER BY 1",
            (list(keys),),
        ).fetchall()
        return [row[0] for row in rows]

    def _document(self, tenant: Part, text: str | None) -> Part | None:
        names = tuple(name for name in DOCUMENT if name not in (tenant.column, text))
        column = self._choose("document", None, names, _IDS)
        return None if column is None else Part(column)

    def _chunk(self, tenant: Part, document: Part | None) -> str:
        configured = self._config.adopt.chunk
        if configured is None:
            others = {tenant.column} | ({document.column} if document is not None else set())
            rest = [name for name in self._key if name not in others]
            if len(rest) == 1:
                return rest[0]
        column = self._choose("chunk", configured, _CHUNK, _IDS)
        if column is None:
            raise RefusedError(
                f"{self._table} has no primary key of one column and no column with a well-known name for the id of a "
                'chunk. Set it: [stores.NAME.adopt] chunk = "COLUMN"'
            )
        return column


SCOPE = f"SELECT pg_catalog.set_config('{SETTING}', %s, true)"
