"""The flows of the pgvector adapter."""

from __future__ import annotations

from collections.abc import Mapping

from vectoracl.adapter import Capabilities, Flow
from vectoracl.errors import RefusedError, UnsupportedPredicateError
from vectoracl.fields import FieldType
from vectoracl.findings import Posture
from vectoracl.operations import Count, Delete, Fetch, Found, Replace, Rows, Scan, Search, Upsert
from vectoracl.prepare import check_tagged
from vectoracl.queries import ResolvedQuery, VectorQuery
from vectoracl_pgvector import posture as postures
from vectoracl_pgvector.capabilities import capabilities
from vectoracl_pgvector.compile import MAX_EF, PgCompiler
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.decode import IN_SHARED, Decoder
from vectoracl_pgvector.requests import RankAll, Statement, Transaction


class PgvectorAdapter:
    """Each operation is one transaction in one round trip; a search that came up short is asked again, exactly."""

    def __init__(self, config: PgvectorConfig, fields: Mapping[str, FieldType]) -> None:
        self.config = config
        self._capabilities = capabilities(config)
        self._compile = PgCompiler(config, fields)
        self._decode = Decoder(config, fields)

    @property
    def capabilities(self) -> Capabilities:
        """What this adapter can do."""
        return self._capabilities

    def search(self, operation: Search) -> Flow[Found]:
        """Rank inside the scope.

        Fewer rows than asked for prove nothing where a vector index chose the candidates, so they are asked for again
        without it; rows of the shared partition, which has no vector index, need no second question.
        """
        query = _vector(operation.query)
        exact = operation.exact or operation.k > MAX_EF
        (rows,) = yield from self._compile.search(operation, query, exact=exact)
        complete = exact or operation.group_by is not None or len(rows) >= operation.k
        complete = complete or any(row[IN_SHARED] for row in rows)
        if not complete:
            (rows,) = yield from self._compile.search(operation, query, exact=True)
        hits = self._decode.hits(rows, ranked=True)
        if operation.min_score is not None:
            hits = [hit for hit in hits if hit.score >= operation.min_score]
        return Found(hits)

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Return chunks by id."""
        (rows,) = yield from self._compile.fetch(operation)
        return Rows(self._decode.hits(rows, ranked=False))

    def count(self, operation: Count) -> Flow[int]:
        """Count exactly."""
        (((number,),),) = yield from self._compile.count(operation)
        return int(number)

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Return one page in key order."""
        (rows,) = yield from self._compile.scan(operation)
        return Rows(self._decode.hits(rows[: operation.size], ranked=False), more=len(rows) > operation.size)

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write all or none."""
        check_tagged(operation.records, operation.partition)
        yield from self._compile.upsert(operation)
        return len(operation.records)

    def replace(self, operation: Replace) -> Flow[int]:
        """Make a new generation of one document, atomically."""
        check_tagged(operation.records, operation.partition)
        yield from self._compile.replace(operation)
        return len(operation.records)

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Delete and count."""
        if operation.refs is None and operation.document is None and operation.where is None:
            raise RefusedError("A delete needs a selector; there is none that means everything.")
        replies = yield from self._compile.delete(operation)
        return int(replies[-1])

    def posture(self) -> Flow[Posture]:
        """Read role, row-level security, policies, partitions and what goes around them; one round trip."""
        config = self.config
        target = postures.Target(config.schema_name, config.table, config.columns.tenant)
        asked = postures.queries(target)
        statements = tuple(Statement(sql, params or (), binary=False) for _, sql, params in asked)
        replies = yield from Transaction(None, statements)
        return postures.judge(target, {name: rows for (name, _, _), rows in zip(asked, replies, strict=True)})

    def unscoped(self, query: ResolvedQuery, k: int) -> Flow[Found]:
        """Rank over all tenants, for `hazmat`: needs the owner's connection."""
        if self.config.owner_dsn is None and self.config.embedded is None:
            raise RefusedError("An unscoped search needs owner_dsn: the runtime role can reach no other tenant.")
        settings = (("search_path", "pg_catalog"), ("enable_indexscan", "off"))
        rows = yield from RankAll(None, self._compile.rank_all(_vector(query), k), settings)
        return Found(self._decode.hits(rows, ranked=True)[:k])


def _vector(query: ResolvedQuery) -> VectorQuery:
    if not isinstance(query, VectorQuery):
        raise UnsupportedPredicateError("The pgvector adapter answers vector queries.", field="query")
    return query
