"""The flows of the pgvector adapter: one generator for each operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np

from vectoracl.adapter_api.chunk_validation import check_tagged
from vectoracl.adapter_api.contract import Capabilities, Flow, Request
from vectoracl.adapter_api.operations import (
    Count,
    Delete,
    Facets,
    Fetch,
    Found,
    Relabel,
    Replace,
    Rows,
    Scan,
    Search,
    UpdateMetadata,
    Upsert,
)
from vectoracl.adapter_api.posture import Posture
from vectoracl.adapter_api.versions import WITNESS_SQL, ExpectedVersion, VersionTable, Witness, witness_of
from vectoracl.errors import InvalidInputError, RefusedError, StoreError, UnsupportedPredicateError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import Predicate
from vectoracl.model.queries import HybridQuery, Lexical, ResolvedQuery, VectorQuery
from vectoracl.model.records import Facet, Record, Vector
from vectoracl_pgvector import schema, word_index
from vectoracl_pgvector.capabilities import capabilities
from vectoracl_pgvector.compile import MAX_EF, PgCompiler
from vectoracl_pgvector.compile_assertion import with_version
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.extension import Extension
from vectoracl_pgvector.decode import IN_SHARED, Decoder
from vectoracl_pgvector.names import SAFE_PATH
from vectoracl_pgvector.posture import check as postures
from vectoracl_pgvector.posture import fingerprint as fingerprints
from vectoracl_pgvector.posture.reach_sql import SINCE
from vectoracl_pgvector.ranking import Way
from vectoracl_pgvector.requests import RankAll, Row, Statement, Transaction
from vectoracl_pgvector.vector_search import VectorSearch
from vectoracl_pgvector.word_index import WordIndex
from vectoracl_pgvector.word_search import WordSearch, is_complete, ranks

R = TypeVar("R")
T = TypeVar("T")
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
        self._words = WordSearch(lambda: self._compile)
        self._bits: VectorSearch | None
        self.rank_by_bits(possible=True)

    def rank_by_bits(self, *, possible: bool) -> None:
        """Use bits where the configuration has them, or not at all."""
        self._bits = VectorSearch(self.config) if possible and self.config.has_bits else None

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

        An HNSW index may return fewer rows than requested although more match; the search is then repeated without it.
        The shared partition has no such index, so a search of its rows is never repeated.
        """
        query = self._query(operation.query)
        if isinstance(query, Lexical) and self.config.words == "bm25":
            return (yield from self._search_by_words(operation, query))
        exact = operation.exact or operation.k > MAX_EF or isinstance(query, Lexical)
        rows, complete = yield from self._ranked(operation, query, exact=exact)
        shortfall = None
        if not complete:
            index = "vector index" if operation.group_by is None else "index of bits"
            rows, shortfall = yield from self._run_exactly(operation, query, rows, index)
        return self._found(operation, rows, shortfall, by="distance" if isinstance(query, VectorQuery) else "words")

    def _search_by_words(self, operation: Search, query: Lexical) -> Flow[Found]:
        """Rank by BM25: through the index of the tenant's words if it has one (`word_search`)."""
        exact = not ranks(operation)
        rows, index = yield from self._explained(self._run_words(operation, query, exact=exact))
        complete = is_complete(operation, rows, index)
        shortfall = None
        if not complete:
            rows, shortfall = yield from self._run_exactly(operation, query, rows, "index of words")
        return self._found(operation, rows, shortfall, by="words")

    def _found(
        self, operation: Search, rows: list[Row], shortfall: str | None, *, by: Literal["distance", "words"]
    ) -> Found:
        hits = self._decode.hits(rows, ranked=by)
        if operation.group_by is None:
            del hits[operation.k :]
        if operation.min_score is not None:
            hits = [hit for hit in hits if hit.score >= operation.min_score]
        return Found(hits, shortfall is None, shortfall)

    def _ranked(self, operation: Search, query: ResolvedQuery, *, exact: bool) -> Flow[tuple[list[Row], bool]]:
        """Return the best rows, and whether they are as many as there can be."""
        if not exact and self._bits is not None and self._bits.applies(operation):
            ranked = yield from self._ranked_by_bits(self._bits, operation, query)
            if ranked is not None:
                return ranked
        rows = yield from self._run_search(operation, query, exact=exact)
        complete = exact or operation.group_by is not None or len(rows) >= operation.k
        return rows, complete or any(row[IN_SHARED] for row in rows)

    def _ranked_by_bits(
        self, bits: VectorSearch, operation: Search, query: ResolvedQuery
    ) -> Flow[tuple[list[Row], bool] | None]:
        """`_ranked` in the way that the number of visible rows decides; None if it decides nothing."""
        if isinstance(query, VectorQuery):
            ranking = bits.search if operation.group_by is None else bits.groups
            return (yield from ranking(self._compile, operation, query))
        if not isinstance(query, HybridQuery) or operation.group_by is not None:
            return None
        rows = yield from bits.leg(
            self._compile, operation, lambda leg: self._run_once(operation, query, exact=False, leg=leg)
        )
        return None if rows is None else (rows, True)  # the leg has min(k, visible) rows

    def _run_exactly(
        self, operation: Search, query: ResolvedQuery, rows: list[Row], index: str
    ) -> Flow[tuple[list[Row], str | None]]:
        """Repeat a search of which the *index* gave too few *rows*; return those and a reason if it takes too long."""
        try:
            exact_rows = yield from self._run_search(operation, query, exact=True)
        except StoreError as error:
            if error.code != "timeout":
                raise
            lack = "gave fewer hits" if operation.group_by is None else "may have missed documents"
            return rows, f"the {index} {lack}, and the exact search reached the time limit"
        return exact_rows, None

    def _run_search(self, operation: Search, query: ResolvedQuery, *, exact: bool) -> Flow[list[Row]]:
        """Run one search. Raises: UnsupportedPredicateError for words that the schema does not have yet."""
        return (yield from self._explained(self._run_once(operation, query, exact=exact), query))

    def _run_once(
        self, operation: Search, query: ResolvedQuery, *, exact: bool, leg: tuple[Way, int] | None = None
    ) -> Flow[list[Row]]:
        if isinstance(query, VectorQuery) or self.config.words != "bm25":
            return (yield from self._run_way(operation, query, None, exact=exact, leg=leg))
        rows, _ = yield from self._run_words(operation, query, exact=exact, leg=leg)
        return rows

    def _run_words(
        self, operation: Search, query: ResolvedQuery, *, exact: bool, leg: tuple[Way, int] | None = None
    ) -> Flow[tuple[list[Row], WordIndex | None]]:
        return (
            yield from self._words.run(
                operation.partition, lambda index: self._run_way(operation, query, index, exact=exact, leg=leg)
            )
        )

    def _run_way(
        self,
        operation: Search,
        query: ResolvedQuery,
        index: WordIndex | None,
        *,
        exact: bool,
        leg: tuple[Way, int] | None = None,
    ) -> Flow[list[Row]]:
        (rows,) = yield from self._compile.search(operation, query, exact=exact, index=index, leg=leg)
        return rows  # type: ignore[no-any-return]  # a request's reply is typed by the request

    def _explained(self, flow: Flow[T], query: ResolvedQuery | None = None) -> Flow[T]:
        """Run *flow*; a column that is missing for a search by words is explained."""
        try:
            return (yield from flow)
        except StoreError as error:
            if error.code != "not_provisioned" or isinstance(query, VectorQuery):
                raise
            cause = error.__cause__
        raise UnsupportedPredicateError(
            "This store cannot be searched by words: it was provisioned by a version without lexical queries, or with "
            "other settings of words. `vectoracl provision` adds what is missing (it rewrites the table, and blocks "
            "reads and writes while it runs).",
            field="query",
        ) from cause

    def ranking(self, partition: str, scope: Predicate) -> Flow[str]:
        """Tell how a search by vector ranks the rows of *scope*, and why."""
        if self._bits is None:
            return "by HNSW in the tenant's own partition, else by comparing every vector: this store has no bits"
        return (yield from self._bits.explain(self._compile, self.config, partition, scope))

    def words(self, partition: str, scope: Predicate) -> Flow[str]:
        """Tell how a search by words ranks the rows of *scope*, and why."""
        if not self.config.lexical:
            return "not at all: this store keeps no words (lexical = false)"
        if self.config.words != "bm25":
            return 'by ts_rank, over all rows of the tenant: words = "ts_rank" has no index'
        return (yield from self._words.explain(partition, scope))

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

    def relabel(self, operation: Relabel) -> Flow[int | None]:
        """Write the labels of documents into their chunks, in one transaction."""
        replies = yield from self._compile.relabel(operation)
        return int(replies[-1])

    def update_metadata(self, operation: UpdateMetadata) -> Flow[int]:
        """Change the metadata of a document's chunks, in one transaction."""
        replies = yield from self._compile.update_metadata(operation)
        return int(replies[-1])

    def witness(self, table: VersionTable) -> Flow[Witness | None]:
        """Return how the runtime role reaches the registry's table; None if there is no such table."""
        statement = Statement(WITNESS_SQL, (table.quoted,), binary=False)
        (rows,) = yield from Transaction(None, (statement,), (SAFE_PATH,))
        return witness_of(rows[0]) if rows else None

    def asserted(self, request: Request[R], expected: ExpectedVersion) -> Request[R]:
        """Return the read *request*, which fails unless the tenant's version is the *expected* one."""
        if (
            not isinstance(request, Transaction)
            or request.partition != expected.tenant
            or request.writes
            or len(request.statements) != 1
        ):
            raise RefusedError("Only a read of one statement can assert a version; nothing was sent.", field="registry")
        (statement,) = request.statements
        return replace(request, statements=(with_version(statement, expected),))  # type: ignore[return-value]  # its reply stays

    def posture(self) -> Flow[Posture]:
        """Read role, row-level security, policies, partitions and possible bypasses: one round trip, one snapshot."""
        target = self._target()
        replies = yield from Transaction(None, self._checks(target), snapshot=True)
        return self._judged(target, replies)

    def fingerprint(self) -> Flow[str | None]:
        """Return the fingerprint of everything that `posture` reads and judges by, in one round trip."""
        target = self._target()
        replies = yield from Transaction(None, self._marks(target), fingerprints.ORDERED)
        return fingerprints.fingerprint(target, replies)

    def fingerprinted_posture(self) -> Flow[tuple[Posture, str | None]]:
        """Return the posture and the fingerprint of the state that it was read from, both in one snapshot.

        What PostgreSQL's functions print (names, expressions) is of the moment at which they are called. A change
        between the snapshot and that moment gives every later fingerprint another value. The posture has no script,
        which is neither kept nor needed to serve.
        """
        target = self._target()
        marks = self._marks(target)
        replies = yield from Transaction(None, (*marks, *self._checks(target)), fingerprints.ORDERED, snapshot=True)
        posture = self._judged(target, replies[len(marks) :], scripted=False)
        return posture, fingerprints.fingerprint(target, replies[: len(marks)])

    def _marks(self, target: postures.Target) -> tuple[Statement, ...]:
        params = postures.parameters(target)
        return tuple(
            Statement(sql, params if "%(" in sql else (), binary=False, since=since)
            for sql, since in fingerprints.STATEMENTS
        )

    def _checks(self, target: postures.Target) -> tuple[Statement, ...]:
        return tuple(
            Statement(sql, params or (), binary=False, since=SINCE.get(name, 0))
            for name, sql, params in postures.queries(target)
        )

    def _judged(self, target: postures.Target, replies: Sequence[list[Row]], *, scripted: bool = True) -> Posture:
        names = (name for name, _, _ in postures.queries(target))
        return postures.judge(target, dict(zip(names, replies, strict=True)), scripted=scripted)

    def _target(self) -> postures.Target:
        config = self.config
        return postures.Target(
            config.schema_name,
            config.table,
            config.columns.tenant,
            expected=schema.expected(config),
            embedded=config.embedded is not None,
            backup_roles=(config.owner_role, *config.backup_roles),
            accept=tuple(entry.plain() for entry in config.accept),
            vector_column=config.columns.vector,
            words_column=config.columns.text if config.words == "bm25" else "",
            words_options=tuple(f"{key}={value}" for key, value in word_index.options(config).items()),
            bits_column=config.columns.bits if config.has_bits else "",
        )

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
