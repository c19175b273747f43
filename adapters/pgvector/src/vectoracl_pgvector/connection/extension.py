"""Finds the schema of the extension `vector` in the catalogs, so that it need not be configured.

Every name that the adapter writes is qualified, so the schema has to be known before the first statement that names a
vector. It is looked up at the first contact; `extension_schema` in the configuration only has to agree. Every role can
read the catalogs, while `to_regtype` would fail in a schema without USAGE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from vectoracl.errors import PostureError
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import EXTENSION_SCHEMA, SAFE_PATH, quote
from vectoracl_pgvector.requests import Statement, Transaction

_FIND: Final = (
    "SELECT space.nspname::pg_catalog.text, kind.oid::pg_catalog.int8, "
    "pg_catalog.has_schema_privilege(space.oid, 'USAGE'), CURRENT_USER::pg_catalog.text "
    "FROM pg_catalog.pg_extension AS one "
    "JOIN pg_catalog.pg_namespace AS space ON space.oid OPERATOR(pg_catalog.=) one.extnamespace "
    "LEFT JOIN pg_catalog.pg_type AS kind ON kind.typnamespace OPERATOR(pg_catalog.=) space.oid "
    "AND kind.typname OPERATOR(pg_catalog.=) %s::pg_catalog.name "
    "WHERE one.extname OPERATOR(pg_catalog.=) 'vector'"
)


class Extension:
    """The schema of the extension, as configured or as found in the database; `schema` is None while unknown.

    The adapter, which writes the names, and the ports, which find the schema, share one instance.
    """

    __slots__ = ("_config", "schema")

    def __init__(self, config: PgvectorConfig) -> None:
        self._config = config
        self.schema = config.extension_schema

    @property
    def config(self) -> PgvectorConfig:
        """The configuration with the schema in it, where it is known."""
        if self.schema is None or self.schema == self._config.extension_schema:
            return self._config
        return self._config.model_copy(update={"extension_schema": self.schema})

    def find_statement(self) -> Statement:
        """Return the statement whose rows `read_location` takes."""
        return Statement(_FIND, (self._config.type,))

    def request(self) -> Transaction:
        """Return the request of a first contact."""
        return Transaction(None, (self.find_statement(),), (SAFE_PATH,))

    def read_location(self, rows: Sequence[tuple[Any, ...]]) -> int:
        """Record the extension's schema from the rows of `find_statement`; return the OID of the vector type.

        Raises:
            PostureError: The extension is missing, unusable for the current role, too old, or elsewhere than
                configured. The message says what to do.
        """
        configured, kind = self._config.extension_schema, self._config.type
        if not rows:
            raise PostureError(
                'The database has no extension "vector". As a superuser: CREATE EXTENSION vector WITH SCHEMA '
                f"{quote(configured or EXTENSION_SCHEMA)}; (`vectoracl provision --sql` prints everything that a "
                "superuser runs.)"
            )
        schema, oid, usable, role = rows[0]
        if configured is not None and configured != schema:
            raise PostureError(
                f"The extension vector is in the schema {quote(schema)}, and extension_schema says "
                f"{quote(configured)}. Set "
                f'extension_schema = "{schema}" in the store\'s configuration, or leave it out: it is detected.'
            )
        if "%" in schema:
            raise PostureError(
                f"The extension vector is in the schema {quote(schema)}, whose name has a %, which is not supported. "
                "Rename the schema."
            )
        if not usable:
            raise PostureError(
                f"The extension vector is in the schema {quote(schema)}, which {role} may not use. As the schema's "
                f"owner: GRANT USAGE ON SCHEMA {quote(schema)} TO {quote(role)};"
            )
        if oid is None:
            raise PostureError(
                f"The extension vector of this database has no type {kind} (halfvec came with pgvector 0.7.0). Install "
                "a newer one on the server, then: ALTER EXTENSION vector UPDATE;"
            )
        self.schema = schema
        return int(oid)
