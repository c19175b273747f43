"""The flow of a search by vector whose way the number of visible rows decides; see `ranking`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Search
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import And, Predicate, conjunction
from vectoracl.filters.validation import fields_of
from vectoracl.model.queries import VectorQuery
from vectoracl_pgvector.bits import COVERED
from vectoracl_pgvector.compile import PgCompiler
from vectoracl_pgvector.compile_ranking import BITS_DISTANCE, EDGE, MORE, VISIBLE, WAY, Form
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.decode import IN_SHARED
from vectoracl_pgvector.ranking import FAR, GROWTH, MOST_EXACT, USES, Kind, Learned, Memory, Way, candidates
from vectoracl_pgvector.requests import Row

_DOCUMENT = 2  # the column of a row


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
        key = _key(operation, "hits")
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

    def known(self, compiler: PgCompiler, operation: Search, kind: Kind) -> Flow[Learned | None]:
        """Return how the vectors of *operation* are ranked, asked or remembered; None if bits cannot answer it."""
        if not covers(operation.scope, operation.where):
            return None
        key = _key(operation, kind)
        learned = self._memory.recall(key)
        if learned is not None:
            return learned
        (rows,) = yield from compiler.decision(operation.partition, operation.scope, operation.where, filtered=False)
        if not rows:
            return None
        ((way, visible, _, usable),) = rows
        if kind == "groups" and way == "hnsw":  # which would have to be searched for an unknown number of rows
            way = "bits" if usable else "exact"
        return self._memory.learn(key, way, visible)

    def groups(
        self, compiler: PgCompiler, operation: Search, query: VectorQuery
    ) -> Flow[tuple[list[Row], bool] | None]:
        """Return the best documents by bits with their best rows, and whether no other document can be missing.

        None if every row has to be compared. With fewer than k documents, or if many best rows lie far down in the
        order by bits, the search is repeated with more candidates, until comparing every row is as fast.
        """
        learned = yield from self.known(compiler, operation, "groups")
        if learned is None or learned.way != "bits":
            return None
        base, rows = candidates(operation.k, learned.base), None
        while base * MOST_EXACT < learned.visible:
            try:
                (rows,) = yield from compiler.groups(operation, query, base)
            except StoreError as error:
                if error.code != "not_provisioned":
                    raise
                self._without = USES
                return None
            best = _best_of_documents(rows)
            if len(best) >= operation.k and not _far((row[MORE], row[MORE + 1]) for row in best):
                return [row[:MORE] for row in rows], True
            learned.widen()
            base *= GROWTH
        return None if rows is None else ([row[:MORE] for row in rows], False)

    def leg(
        self, compiler: PgCompiler, operation: Search, run: Callable[[tuple[Way, int]], Flow[list[Row]]]
    ) -> Flow[list[Row] | None]:
        """Return the rows of a hybrid search whose vectors are ranked by bits or all compared; None if neither is best.

        The fusion needs the places of all rows of the leg, so it has as many candidates as a search for this many hits,
        and is repeated with more while many of its rows lie far down in the order by bits.
        """
        learned = yield from self.known(compiler, operation, "hybrid")
        if learned is None or learned.way == "hnsw":
            return None
        base = candidates(compiler.depth(operation), learned.base)
        try:
            while learned.way == "bits" and base * MOST_EXACT < learned.visible:
                rows = yield from run(("bits", base))
                if not (rows and rows[0][MORE]):
                    return [row[:MORE] for row in rows]
                learned.widen()
                base *= GROWTH
            return (yield from run(("exact", 0)))
        except StoreError as error:
            if error.code != "not_provisioned":
                raise
            self._without = USES
            return None

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
        return f"by bits, then the nearest of these by distance: {counted}; {_others(config, visible)}"
    if not usable:
        how = "by HNSW" if own and way == "hnsw" else "by comparing every vector"
        return f"{how}: {counted}, but the index of bits is not usable (see `vectoracl check`)"
    return f"by HNSW: {counted}, and most of the tenant's own partition; groups by bits"


def _others(config: PgvectorConfig, visible: int) -> str:
    """Return how groups and hybrid searches are ranked where hits are ranked by bits."""
    most = MOST_EXACT * candidates(config.ef_search)
    if visible > most:
        return "groups and the vectors of hybrid searches, too"
    return f"groups, too; a hybrid search compares every vector, up to {most:,} chunks"


def reaches_far(rows: Sequence[Row]) -> bool:
    """Return whether a fifth of the hits lie beyond the first quarter of the candidates.

    Hits get rarer along the order by bits; if this many come that late, some lie beyond the last candidate.
    """
    return _far((row[BITS_DISTANCE], row[EDGE]) for row in rows)


def _far(distances: Iterable[tuple[int, int | None]]) -> bool:
    """`reaches_far` of hits by their distances by bits, each with the edge; None if there are too few candidates."""
    late = [edge is not None and distance >= edge for distance, edge in distances]
    return sum(late) >= max(1, len(late) // FAR)


def _best_of_documents(rows: Sequence[Row]) -> list[Row]:
    """Return the first, and so the best, row of each document."""
    best: dict[str, Row] = {}
    for row in rows:
        best.setdefault(row[_DOCUMENT], row)
    return list(best.values())


def _key(operation: Search, kind: Kind) -> Hashable:
    return operation.partition, operation.scope, operation.where, kind
