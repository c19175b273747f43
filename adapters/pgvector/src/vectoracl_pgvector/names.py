"""Every SQL name that the adapter writes, quoted once. No other text is inserted into SQL."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from vectoracl_pgvector.config import Columns, PgvectorConfig

SETTING = "vectoracl.tenant"
# pg_temp is named last to be searched last: if omitted, it is searched first for types and tables.
SAFE_PATH = ("search_path", "pg_catalog, pg_temp")
NO_JIT = ("jit", "off")
# Without it the planner tries to prove that a filter contradicts itself, every value of its lists against every other
# one: seconds for a filter of a few thousand. Partitions are pruned without it.
NO_EXCLUSION = ("constraint_exclusion", "off")
READ_ONLY = ("transaction_read_only", "on")
# A prepared statement is planned at each execution, so no plan is kept for another tenant.
CUSTOM_PLANS = ("plan_cache_mode", "force_custom_plan")
# Names of the copy that a move fills; the posture check and the messages of failures use them too.
CONSTRAINT = "vectoracl_moving"
RIGHTS_CHANGED = "vectoracl:rights_changed"  # casting this text to a number fails the statement
UNFINISHED = "vectoracl: unfinished copy for "
BITS_SUFFIX = "_bits"
GENERATED = ("lexemes", "word_count", "bits")
EXTENSION_SCHEMA = "public"  # the extension's schema, unless configured
_OPERATOR = {"cosine": "<=>", "inner": "<#>", "l2": "<->"}
_OPCLASS = {"cosine": "cosine_ops", "inner": "ip_ops", "l2": "l2_ops"}
_SAFE = re.compile(r"[a-z0-9_]{1,32}\Z")


def quote(name: str) -> str:
    """Return *name* as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """Return *value* as an SQL literal, correct with any standard_conforming_strings, for DDL without parameters."""
    if "\0" in value:
        raise ValueError("NUL in an SQL literal")
    if "\\" in value:
        return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + value.replace("'", "''") + "'"


def _text_search(name: str) -> str:
    schema, _, short = name.rpartition(".")
    return literal(f"{quote(schema or 'pg_catalog')}.{quote(short)}") + "::regconfig"


@dataclass(frozen=True, slots=True)
class Names:
    """The quoted names of one configuration; `c` are the columns."""

    schema: str
    table: str
    default: str
    tenants: str
    versions: str
    vector_type: str
    operator: str
    opclass: str
    quantize: str
    hamming: str
    text_search: str
    c: Columns
    raw_schema: str
    raw_table: str

    @classmethod
    def of(cls, config: PgvectorConfig) -> Names:
        """Quote the names of *config*."""
        schema = quote(config.schema_name)
        extension = quote(config.extension_schema or EXTENSION_SCHEMA)
        quoted = {key: quote(name) for key, name in config.columns.model_dump().items()}
        columns = Columns.model_construct(_fields_set=None, **quoted)
        return cls(
            schema=schema,
            table=f"{schema}.{quote(config.table)}",
            default=f"{schema}.{quote(config.table + '_default')}",
            tenants=f"{schema}.{quote(config.table + '_tenants')}",
            versions=f"{schema}.{quote(config.table + '_version')}",
            vector_type=f"{extension}.{quote(config.type)}",
            operator=f"OPERATOR({extension}.{_OPERATOR[config.metric]})",
            opclass=f"{extension}.{config.type}_{_OPCLASS[config.metric]}",
            quantize=f"{extension}.binary_quantize",
            hamming=f"OPERATOR({extension}.<~>)",
            text_search=_text_search(config.text_search),
            c=columns,
            raw_schema=config.schema_name,
            raw_table=config.table,
        )

    @property
    def written(self) -> tuple[str, ...]:
        """The quoted columns that are written: all except those that PostgreSQL generates."""
        return tuple(name for key, name in self.c.model_dump().items() if key not in GENERATED)

    def partition_name(self, tenant: str) -> str:
        """Return the unquoted name of *tenant*'s own partition: injective, at most 63 bytes.

        Readable (`chunks_t_acme`) where the id fits a safe alphabet, else a hash under another prefix.
        """
        if _SAFE.match(tenant):
            return f"{self.raw_table}_t_{tenant}"
        return f"{self.raw_table}_h_{hashlib.blake2b(tenant.encode(), digest_size=16).hexdigest()}"

    def word_index_name(self, tenant: str) -> str:
        """Return the unquoted name of the BM25 index of *tenant*'s own partition."""
        return self.partition_name(tenant) + "_bm25"

    def bits_index(self, partition_name: str) -> str:
        """Return the quoted, schema-qualified name of the bits' index of the partition with that unquoted name."""
        return f"{self.schema}.{quote(partition_name + BITS_SUFFIX)}"

    def partition(self, tenant: str) -> str:
        """Return the quoted, schema-qualified name of *tenant*'s own partition."""
        return f"{self.schema}.{quote(self.partition_name(tenant))}"
