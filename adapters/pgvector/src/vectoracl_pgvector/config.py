"""The pgvector adapter's part of the configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from vectoracl.adapter_api.settings import Model, Secret
from vectoracl_pgvector.accepted import ACCEPTABLE, Accept

# Names of compile.py's own columns, which queries use along with the table's, and PostgreSQL's system columns.
_OURS = (
    frozenset({"distance", "best", "turn", "place", "fused_distance", "in_shared"})
    | {f"leg_{name}" for name in ("document", "generation", "chunk", "distance", "words", "lexemes", "permitted")}
    | {f"returned_{name}" for name in ("text", "metadata", "vector")}
    | {f"near_{name}" for name in ("document", "generation", "chunk", "distance")}
    | {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}
)
_PROMOTE = 2000  # rows of a tenant that are compared one by one in about two milliseconds
# From this dimension on, bits are faster than comparing every vector and miss almost nothing (docs/benchmarks.md).
BITS_DIMENSION = 256
# A row of the index with the longest ids that are accepted fits a page up to here.
MAX_BITS_DIMENSION = 4000
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\Z")


def _identifier(value: str) -> str:
    if not _IDENTIFIER.match(value):
        raise ValueError("must be an SQL name of letters, digits and _, 63 at most")
    return value


def _text_search(value: str) -> str:
    for part in value.split(".", 1):
        _identifier(part)
    return value


Identifier = Annotated[str, AfterValidator(_identifier)]
# Partitions are named after the table, so its name leaves room for a suffix within PostgreSQL's 63 bytes.
TextSearch = Annotated[str, AfterValidator(_text_search)]
TableName = Annotated[str, AfterValidator(_identifier), Field(max_length=20)]


class Columns(Model):
    """The names of the columns, if they differ from the defaults."""

    tenant: Identifier = "tenant_id"
    document: Identifier = "document"
    generation: Identifier = "generation"
    chunk: Identifier = "chunk_id"
    label: Identifier = "label"
    rev: Identifier = "rev"
    expires: Identifier = "expires"
    producer: Identifier = "producer"
    path: Identifier = "path"
    time: Identifier = "written_at"
    position: Identifier = "position"
    text: Identifier = "content"
    metadata: Identifier = "metadata"
    vector: Identifier = "embedding"
    lexemes: Identifier = "lexemes"
    word_count: Identifier = "word_count"
    bits: Identifier = "bits"

    @model_validator(mode="after")
    def _distinct(self) -> Columns:
        columns = self.model_dump()
        names = list(columns.values())
        if len(set(names)) != len(names):
            raise ValueError("two columns have the same name")
        reserved = [f"{column} = {name!r}" for column, name in columns.items() if name in _OURS]
        if reserved:
            raise ValueError(
                f"{', '.join(reserved)}: queries use that name for something else. Rename the column, here and in the "
                f"table; reserved names are {', '.join(sorted(_OURS))}"
            )
        return self


class AdoptColumns(Model):
    """`[stores.NAME.adopt]`: the meaning of an existing table's columns, if `provision --adopt` cannot infer it.

    Each is a column's name; `tenant` and `document` may also be a key of a JSON column, written `column->>key`, and
    `text` may be nested deeper, also in JSON that is stored as text (`metadata_->>_node_content->>text`).
    `leave_out` names columns that are not copied; all others that are not named become metadata. `prefix` is put before
    the ids of chunks and documents, for tables whose ids collide.
    """

    tenant: str | None = None
    document: str | None = None
    chunk: str | None = None
    text: str | None = None
    metadata: str | None = None
    vector: str | None = None
    leave_out: tuple[str, ...] = ()
    prefix: str = Field(default="", max_length=64)


class AcceptEntry(Model):
    """An entry of `accept`: a finding of `vectoracl check` that does not lower the grade, with the reason.

    `object` is the finding's subject as the report prints it; `*` and `?` match any text and any character.
    """

    rule: str
    object: str
    reason: str

    @model_validator(mode="after")
    def _named(self) -> AcceptEntry:
        if self.rule not in ACCEPTABLE:
            raise ValueError(
                f"findings of {self.rule!r} cannot be accepted, only corrected; those of "
                f"{', '.join(sorted(ACCEPTABLE))} can"
            )
        if not self.object.strip("*?. ()"):
            raise ValueError("object must name what is accepted, not everything")
        if len(self.reason.split()) < 2:
            raise ValueError("reason must say in a few words why this is harmless")
        return self

    def plain(self) -> Accept:
        """Return it in the form that the judgement uses."""
        return Accept(self.rule, self.object, self.reason)


class PgvectorConfig(Model):
    """`[stores.NAME]` with adapter = "pgvector": a `dsn`, or `embedded` with the folder of an embedded server.

    `dsn` is the runtime role's: no SUPERUSER, no BYPASSRLS, owns nothing. `owner_dsn` is needed to provision and to
    move tenants, never to serve. `dimension` is the number of dimensions of a vector; `type` is how it is stored.
    With `lexical` the store indexes the words of each text for lexical and hybrid queries, as parsed by `text_search`
    (a text search configuration of the server, with its schema unless that is pg_catalog). `words` is how they rank a
    chunk: "ts_rank" by the chunk alone, "bm25" also by the rarity of each word in the tenant's texts, through an index
    of pg_textsearch where the tenant has its own partition and the server that extension.
    `demote_stall` is the longest copying of a tenant's rows back to the shared partition, in seconds, during which all
    sessions wait; a longer demotion is refused. The locks and the commit around it are not included.
    `accept` lists findings of `vectoracl check` that do not lower the grade, each with its reason.
    `backup_roles` lists the roles, or patterns of them, that may dump or restore everything; `check` reports others.
    `extension_schema` is the schema of pgvector, detected by default.
    `bits` keeps the sign of each number of a vector in an index, from which searches of more than `exact_rows` visible
    chunks take their candidates: "auto" from 256 dimensions on, for cosine similarity only. In a tenant's own partition
    the HNSW index takes over when more than `bits_rows` chunks, and a quarter of the tenant's, are visible.
    `ef_search` is the default effort of an HNSW search (1 to 1000); `pool_max` limits the connections of a process.
    `prepare` prepares the statements of searches: "auto" on connections without a pooler, true also behind one that
    supports them (PgBouncer 1.21 or later, with max_prepared_statements), false never.
    """

    dsn: Secret | None = None
    owner_dsn: Secret | None = None
    embedded: Path | None = None
    schema_name: Identifier = Field(default="vectoracl", alias="schema")
    table: TableName = "chunks"
    columns: Columns = Columns()
    extension_schema: Identifier | None = None
    owner_role: Identifier = "vectoracl_owner"
    runtime_role: Identifier = "vectoracl_runtime"
    backup_roles: tuple[str, ...] = ()
    dimension: int = Field(ge=1, le=16_000)
    type: Literal["vector", "halfvec"] = "vector"
    metric: Literal["cosine", "inner", "l2"] = "cosine"
    ef_search: int = Field(default=200, ge=1, le=1000)
    pool_min: int = Field(default=1, ge=0, le=1000)
    pool_max: int = Field(default=8, ge=1, le=1000)
    connect_timeout: float = Field(default=10.0, gt=0)
    prepare: Literal["auto"] | bool = "auto"
    max_batch: int = Field(default=10_000, ge=1, le=100_000)
    lexical: bool = True
    text_search: TextSearch = "simple"
    words: Literal["ts_rank", "bm25"] = "ts_rank"
    bits: Literal["auto"] | bool = "auto"
    exact_rows: int = Field(default=1500, ge=1, le=1_000_000)
    bits_rows: int = Field(default=50_000, ge=1, le=10_000_000)
    promote_rows: int | None = Field(default=None, ge=1)
    demote_stall: float = Field(default=2.0, gt=0, le=3600)
    adopt: AdoptColumns = AdoptColumns()
    accept: tuple[AcceptEntry, ...] = ()

    @model_validator(mode="after")
    def _one_server(self) -> PgvectorConfig:
        if (self.dsn is None) == (self.embedded is None):
            raise ValueError("give either dsn or embedded")
        if self.pool_min > self.pool_max:
            raise ValueError("pool_min is larger than pool_max")
        if self.words == "bm25" and not self.lexical:
            raise ValueError('words = "bm25" ranks by words, which lexical = false does not store')
        return self

    @model_validator(mode="after")
    def _bits_are_possible(self) -> PgvectorConfig:
        if self.bits is True and self.metric != "cosine":
            raise ValueError(
                'bits = true needs metric = "cosine": the signs of a vector keep its direction, not its length'
            )
        if self.bits is True and self.dimension > MAX_BITS_DIMENSION:
            raise ValueError(f"bits = true is possible up to {MAX_BITS_DIMENSION:,} dimensions")
        return self

    @property
    def promotes_above(self) -> int:
        """The number of rows above which `tenants list` advises a partition of the tenant's own."""
        if self.promote_rows is not None:
            return self.promote_rows
        # Only a separate partition has an index of words.
        return self.bits_rows if self.has_bits and self.words == "ts_rank" else _PROMOTE

    @property
    def demotes_below(self) -> int:
        """The number of rows below which it advises the shared partition; the gap keeps tenants where they are."""
        return min(self.promotes_above, _PROMOTE) // 2

    @property
    def has_bits(self) -> bool:
        """Whether this store ranks by the signs of the vectors; see `bits`."""
        if self.metric != "cosine" or self.dimension > MAX_BITS_DIMENSION:
            return False
        return self.dimension >= BITS_DIMENSION if self.bits == "auto" else self.bits

    @property
    def indexable(self) -> bool:
        """Whether pgvector can index this many dimensions (HNSW: 2,000 for vector, 4,000 for halfvec)."""
        return self.dimension <= (2000 if self.type == "vector" else 4000)
