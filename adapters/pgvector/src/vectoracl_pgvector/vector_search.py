"""The flow of a search by vector whose way the number of visible rows decides; see `ranking`."""

from __future__ import annotations

from collections.abc import Sequence

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Search
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import And, Predicate, conjunction
from vectoracl.filters.validation import fields_of
from vectoracl.model.queries import VectorQuery
from vectoracl_pgvector.bits import COVERED
from vectoracl_pgvector.compile import PgCompiler
from vectoracl_pgvector.compile_ranking import BITS_DISTANCE, EDGE, VISIBLE, WAY, Form
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.decode import IN_SHARED
from vectoracl_pgvector.ranking import GROWTH, MOST_EXACT, USES, Learned, Memory, Way, candidates
from vectoracl_pgvector.requests import Row


def covers(*predicates: Predicate) -> bool:
    """Return whether the index of bits has every field of *predicates*."""
    return all(fields_of(one) <= COVERED for one in predicates)


def countable(predicate: Predicate) -> Predicate:
    """Return the conjuncts of *predicate* that the index can evaluate; at least as many rows meet them."""
    operands = predicate.operands if isinstance(predicate, And) else (predicate,)
    return conjunction(one for one in operands if covers(one))


class VectorSearch:
    """Searches of one store that has bits. What it learns is shared by all callers of the adapter."""

    def __init__(self, config: PgvectorConfig) -> None:
        self._indexable = config.indexable
        self._memory = Memory()
        self._without = 0  # searches until the column of bits is looked for again

    def applies(self, operation: Search) -> bool:
        """Return whether the number of visible rows decides. A chosen effort means the vector index."""
        if "ef_search" in operation.tuning:
            return False
        if not self._indexable and not covers(operation.scope, operation.where):
            return False  # every vector is compared
        if self._without > 0:
            self._without -= 1
            return False
        return True

    def search(
        self, compiler: PgCompiler, operation: Search, query: VectorQuery
    ) -> Flow[tuple[list[Row], bool] | None]:
        """Return the rows and whether they are as many as there can be; None if the table has no bits."""
        key = (operation.partition, operation.scope, operation.where)
        learned = self._memory.recall(key)
        covered = covers(operation.scope, operation.where)
        counted = None if covered else (countable(operation.scope), countable(operation.where))
        undecided: Form = "chosen" if covered else "filtered"
        form: Form = undecided if learned is None else learned.way
        base = candidates(operation.k, self._memory.base(key))
        try:
            (rows,) = yield from compiler.nearest(operation, query, form, base, counted)
        except StoreError as error:
            if error.code != "not_provisioned":
                raise
            self._without = USES
            return None
        if learned is None:
            if not rows:
                return [], False
            learned = self._memory.learn(key, rows[0][WAY], rows[0][VISIBLE])
            form = learned.way
        if form == "bits":
            rows = yield from self._widened(compiler, operation, query, learned, base, rows)
        complete = form != "hnsw" or len(rows) >= operation.k or any(row[IN_SHARED] for row in rows)
        return [row[:WAY] for row in rows], complete

    def explain(self, compiler: PgCompiler, config: PgvectorConfig, partition: str, scope: Predicate) -> Flow[str]:
        """Tell how a search ranks the rows of *scope*, and why."""
        filtered = not covers(scope)
        counted = countable(scope) if filtered else scope
        ((row,),) = yield from compiler.decision(partition, counted, filtered=filtered)
        if not filtered:
            return reason(config, *row)
        fields = ", ".join(sorted(fields_of(scope) - COVERED))
        how = "by HNSW" if row[0] == "hnsw" else "by comparing every vector"
        return f"{how}: the index of bits lacks {fields}, and the rest of the scope holds at least {row[1]:,} chunks"

    def _widened(
        self,
        compiler: PgCompiler,
        operation: Search,
        query: VectorQuery,
        learned: Learned,
        base: int,
        rows: list[Row],
    ) -> Flow[list[Row]]:
        """Repeat a search by bits with more candidates while its hits reach too far into the order by bits."""
        while base < learned.visible and reaches_far(rows):
            learned.widen()
            base *= GROWTH
            exact = base * MOST_EXACT >= learned.visible
            (rows,) = yield from compiler.nearest(operation, query, "exact" if exact else "bits", base)
            if exact:
                break
        return rows


def reason(config: PgvectorConfig, way: Way, visible: int, own: bool, usable: bool) -> str:  # noqa: FBT001 - a row
    """Return the way and the reason in words."""
    if visible <= config.exact_rows:
        return f"by comparing every vector: {visible:,} chunks are visible, at most {config.exact_rows:,} (exact_rows)"
    counted = f"more than {config.exact_rows:,} chunks (exact_rows) are visible"
    if way == "bits":
        return f"by bits, then the nearest of these by distance: {counted}"
    if not usable:
        how = "by HNSW" if own and way == "hnsw" else "by comparing every vector"
        return f"{how}: {counted}, but the index of bits is not usable (see `vectoracl check`)"
    return f"by HNSW: {counted}, and most of the tenant's own partition"


def reaches_far(rows: Sequence[Row]) -> bool:
    """Return whether a fifth of the hits lie beyond the first quarter of the candidates.

    Hits get rarer along the order by bits; if this many come that late, some lie beyond the last candidate.
    """
    edge = rows[0][EDGE] if rows else None
    if edge is None:
        return False
    late = len([row for row in rows if row[BITS_DISTANCE] >= edge])
    return late >= max(1, len(rows) // 5)
