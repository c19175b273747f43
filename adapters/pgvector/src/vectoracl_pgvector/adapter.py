"""The flows of the pgvector adapter: one generator for each operation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vectoracl.adapter_api.chunk_validation import check_tagged
from vectoracl.adapter_api.contract import Capabilities, Flow
from vectoracl.adapter_api.operations import Count, Delete, Facets, Fetch, Found, Replace, Rows, Scan, Search, Upsert
from vectoracl.adapter_api.posture import Posture
from vectoracl.errors import InvalidInputError, RefusedError, StoreError, UnsupportedPredicateError
from vectoracl.filters.field_types import FieldType
from vectoracl.model.queries import Lexical, ResolvedQuery, VectorQuery
from vectoracl.model.records import Facet, Record, Vector
from vectoracl_pgvector import schema
from vectoracl_pgvector.capabilities import capabilities
from vectoracl_pgvector.compile import MAX_EF, PgCompiler
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.extension import Extension
from vectoracl_pgvector.decode import IN_SHARED, Decoder
from vectoracl_pgvector.names import SAFE_PATH
from vectoracl_pgvector.posture import check as postures
from vectoracl_pgvector.posture.reach_sql import SINCE
from vectoracl_pgvector.requests import RankAll, Row, Statement, Transaction

_HALF_MAX = 65504.0


class PgvectorAdapter:
    """The pgvector adapter.

    Each operation is one transaction in one round trip. A search that returns too few rows is repeated exactly.
    """

    def __init__(
        self, config: PgvectorConfig, fields: Mapping[str, FieldType], extension: Extension | None = None
    ) -> None:
        self.config = config
        self.extension = extension or Extension(config)
        self._fields = fields
        self._capabilities = capabilities(config)
        self._compiler = PgCompiler(self.extension.config, fields)
        self._compiled_for = self.extension.schema
        self._decode = Decoder(config, fields)

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of this adapter."""
        return self._capabilities

    @property
    def _compile(self) -> PgCompiler:
        """The compiler, with the extension's schema as found at the first contact."""
        schema = self.extension.schema
        if schema != self._compiled_for:
            self._compiler, self._compiled_for = PgCompiler(self.extension.config, self._fields), schema
        return self._compiler

    def search(self, operation: Search) -> Flow[Found]:
        """Rank within the scope.

        If a vector index chose the candidates, fewer rows than requested do not prove that there are no more, so the
        search is repeated without the index. Rows of the shared partition, which has no vector index, need no second
        search.
        """
        query = self._query(operation.query)
        exact = operation.exact or operation.k > MAX_EF or isinstance(query, Lexical)
        rows = yield from self._run_search(operation, query, exact=exact)
        complete = exact or operation.group_by is not None or len(rows) >= operation.k
        complete = complete or any(row[IN_SHARED] for row in rows)
        shortfall = None
        if not complete:
            try:
                rows = yield from self._run_search(operation, query, exact=True)
            except StoreError as error:
                if error.code != "timeout":
                    raise
                shortfall = "the vector index gave fewer hits, and the exact search reached the time limit"
        hits = self._decode.hits(rows, ranked="distance" if isinstance(query, VectorQuery) else "words")
        if operation.min_score is not None:
            hits = [hit for hit in hits if hit.score >= operation.min_score]
        return Found(hits, shortfall is None, shortfall)

    def _run_search(self, operation: Search, query: ResolvedQuery, *, exact: bool) -> Flow[list[Row]]:
        """Run one search. Raises: UnsupportedPredicateError for words if the schema is older than lexical queries."""
        try:
            (rows,) = yield from self._compile.search(operation, query, exact=exact)
        except StoreError as error:
            if error.code != "not_provisioned" or isinstance(query, VectorQuery):
                raise
            cause = error.__cause__
        else:
            return rows  # type: ignore[no-any-return]  # a request's reply is typed by the request
        raise UnsupportedPredicateError(
            "This store cannot be searched by words: it was provisioned by a version without lexical queries. "
            "`vectoracl provision` adds them (it rewrites the table, and blocks reads and writes while it runs).",
            field="query",
        ) from cause

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Return chunks by id."""
        (rows,) = yield from self._compile.fetch(operation)
        return Rows(self._decode.hits(rows, ranked=None))

    def count(self, operation: Count) -> Flow[int]:
        """Count exactly."""
        (((number,),),) = yield from self._compile.count(operation)
        return int(number)

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Count by value, exactly."""
        (rows,) = yield from self._compile.facets(operation)
        return self._decode.facets(operation.field, rows)

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Return one page in key order."""
        (rows,) = yield from self._compile.scan(operation)
        return Rows(self._decode.hits(rows[: operation.size], ranked=None), more=len(rows) > operation.size)

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write all or none."""
        self._check_records(operation.records, operation.partition)
        yield from self._compile.upsert(operation)
        return len(operation.records)

    def replace(self, operation: Replace) -> Flow[int]:
        """Write a new generation of one document, atomically."""
        self._check_records(operation.records, operation.partition)
        yield from self._compile.replace(operation)
        return len(operation.records)

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Delete and count."""
        if operation.refs is None and operation.document is None and operation.where is None:
            raise RefusedError("A delete needs a selector; no selector means everything.")
        replies = yield from self._compile.delete(operation)
        return int(replies[-1])

    def posture(self) -> Flow[Posture]:
        """Read role, row-level security, policies, partitions and possible bypasses, in one round trip."""
        config = self.config
        target = postures.Target(
            config.schema_name,
            config.table,
            config.columns.tenant,
            expected=schema.expected(config),
            embedded=config.embedded is not None,
            backup_roles=(config.owner_role, *config.backup_roles),
            accept=tuple(entry.plain() for entry in config.accept),
            vector_column=config.columns.vector,
        )
        queries = postures.queries(target)
        statements = tuple(
            Statement(sql, params or (), binary=False, since=SINCE.get(name, 0)) for name, sql, params in queries
        )
        replies = yield from Transaction(None, statements)
        return postures.judge(target, {name: rows for (name, _, _), rows in zip(queries, replies, strict=True)})

    def unscoped(self, query: ResolvedQuery, k: int) -> Flow[Found]:
        """Rank over all tenants, for `hazmat`: needs the owner's connection."""
        if self.config.owner_dsn is None and self.config.embedded is None:
            raise RefusedError("An unscoped search needs owner_dsn: the runtime role cannot reach other tenants.")
        if not isinstance(query, VectorQuery):
            raise UnsupportedPredicateError("An unscoped search needs a vector.", field="query")
        self._check_half(query.vector)
        settings = (SAFE_PATH, ("enable_indexscan", "off"))
        rows = yield from RankAll(None, self._compile.rank_all(query, k), settings)
        return Found(self._decode.hits(rows, ranked="distance")[:k])

    def _check_records(self, records: tuple[Record, ...], partition: str) -> None:
        check_tagged(records, partition)
        if records and self.config.type == "halfvec":
            self._check_half(np.stack([record.vector for record in records]))

    def _query(self, query: ResolvedQuery) -> ResolvedQuery:
        if not isinstance(query, VectorQuery) and not self.config.lexical:
            raise UnsupportedPredicateError("This store does not index words: lexical = false.", field="query")
        if not isinstance(query, Lexical):
            self._check_half(query.vector)
        return query

    def _check_half(self, vectors: Vector) -> None:
        """Refuse vectors that half precision cannot represent: they would become infinite or lose their direction."""
        if self.config.type != "halfvec":
            return
        rows = np.atleast_2d(vectors)
        if float(np.abs(rows).max(initial=0.0)) > _HALF_MAX:
            raise InvalidInputError(f"A number of the vector is beyond ±{_HALF_MAX:.0f}, the range of halfvec.")
        if self.config.metric == "cosine" and not rows.astype(np.float16).any(axis=1).all():
            raise InvalidInputError("A vector is zero in half precision, and cosine similarity needs a direction.")
