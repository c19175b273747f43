"""SQL of a search by vector in each of its forms (`ranking`). Pure.

Every form has the same two steps: a narrow query ranks and returns the place of each row, then only the best rows are
read whole. A place is one of a table: where a tenant's partition was divided further, rows of other parts have the same
places. So the outer query repeats the whole scope: what it returns in addition are permitted rows with their true
distances, of which the best k are kept. As an array the places cost the planner less than a join.

- exact: the distance plus 0, a form that no vector index can order by.
- indexed: `ORDER BY distance LIMIT`, which an HNSW index can serve, if the planner likes it.
- hnsw: the same with every other plan switched off, for rows of which some are hidden: the index is searched on until
  ten times as many rows were found, in a relaxed order, of which the nearest are taken. Without that it ends as soon as
  it has k rows, and misses a third of the hits that lie among hidden ones.
- bits: the nearest by bits are ranked inside the scope, from the index alone; of these the nearest by distance. Also
  returned: for each row its distance by bits, and the distance of the candidate at the end of the first quarter. If
  too many hits are not before it, others may lie beyond the last candidate (`vector_search.reaches_far`).
- chosen: exact, bits and hnsw. The server counts the visible rows, reads whether the tenant has its own partition and
  whether the index of bits can be used, and runs one of the three subqueries: PostgreSQL evaluates one that does not
  depend on the row when it is first needed, and CASE needs only the one that it takes.
- filtered: the same without bits, for a filter over fields that the index of bits lacks. The rows are counted that meet
  the rest of scope and filter, which is an upper bound.

The forms with bits do not rely on the planner's estimates: plans that would compete with the intended one are switched
off for the transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

from vectoracl.adapter_api.operations import Include
from vectoracl_pgvector.compile_words import NearByBits, Ranking, Rows
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import Names, literal
from vectoracl_pgvector.ranking import CANDIDATES, FAR, MOST_EXACT
from vectoracl_pgvector.requests import Statement, VectorParam

Form = Literal["exact", "indexed", "hnsw", "bits", "chosen", "filtered"]
Settings = tuple[tuple[str, str], ...]
# Tuples after which an HNSW search gives up; the adapter then uses the exact form. Bounds the work of one query.
_MAX_SCAN = "200000"
# Times `exact_rows`: the number of rows up to which all are compared if other fields may hide a part of them.
_FILTERED = 5
_OVER, _MOST_OVER = 10, 1000  # rows that an HNSW search finds for each hit, and at most
_SHARE = 4  # of a tenant's rows; with more than this part of them visible, HNSW loses little to its filter
WAY, VISIBLE, BITS_DISTANCE, EDGE = range(16, 20)
"""The columns that the forms "bits" and "chosen" return in addition."""
MORE = 16
"""The first column that groups and hybrid searches by bits return in addition."""
# What remains: scans of an index in the order of the tenant or of the vectors, and nested loops.
PARTLY_FORCED: Settings = tuple(
    (f"enable_{plan}", "off") for plan in ("seqscan", "bitmapscan", "hashjoin", "mergejoin")
)
"""The settings of groups and hybrid searches by bits, which sort rows of documents and of words as well."""
_FORCED: Settings = (*PARTLY_FORCED, ("enable_sort", "off"))


def unindexed(distance: str) -> str:
    """Return *distance* in a form that no vector index can order by.

    A setting does not keep an index out of a plan: after pruning to one partition, PostgreSQL 18.4 used the vector
    index with enable_indexscan off (the plan shows "Disabled: true"), and recall fell to 0.4.
    """
    return f"(({distance}) + 0::float8)"


@lru_cache(maxsize=64)
def effort_settings(effort: int, order: str = "strict_order") -> Settings:
    """Return the settings of a search of the HNSW index."""
    return (
        ("hnsw.ef_search", str(effort)),
        ("hnsw.iterative_scan", order),
        ("hnsw.max_scan_tuples", _MAX_SCAN),
    )


def settings_for(form: Form, effort: int) -> Settings:
    """Return the settings of *form*: what PostgreSQL must not do, and the effort of the index."""
    match form:
        case "exact":
            return ()
        case "indexed":
            return effort_settings(effort)
        case "bits":
            return _FORCED
    return (*effort_settings(effort, "relaxed_order"), *_FORCED)


class Statements:
    """The statements of one store. *select* returns the columns of a hit."""

    def __init__(self, config: PgvectorConfig, names: Names, select: Callable[[Include], str]) -> None:
        self._config = config
        self._names = names
        self._half = config.type == "halfvec"
        self._select = select
        c = names.c
        self._key = f"{c.document}, {c.generation}, {c.chunk}"
        self.distance = f"{c.vector} {names.operator} %s::{names.vector_type}"
        self._bits_distance = f"({c.bits} {names.hamming} {names.quantize}(%s::{names.vector_type}))"
        self._text = lru_cache(maxsize=256)(self._sql)

    def ranked(
        self,
        form: Form,
        include: Include,
        vector: VectorParam,
        rows: Rows,
        k: int,
        candidates: int,
        tenant: str,
        counted: Rows,
    ) -> Statement:
        """Return the statement of *form* for the nearest *k* of *rows*; *counted* decides, if that is not known."""
        text = self._text(form, include, rows.where, counted.where)
        own: tuple[Any, ...] = (*rows.params, vector, k)
        hnsw = (vector, *rows.params, vector, max(k, min(_OVER * k, _MOST_OVER)), k)
        near = (vector, *rows.params, candidates)
        outer = (vector, vector, candidates // 4, *rows.params)
        if form == "bits":
            return Statement(text, (*near, *outer, *own))
        if form == "chosen":
            choices = (*own, *hnsw, *own) if self._config.indexable else (*own, *own)
            return Statement(text, (*self._deciding(counted, tenant, candidates), *near, *outer, *choices))
        if form == "filtered":
            deciding = self._deciding(counted, tenant, candidates, filtered=True)
            return Statement(text, (*deciding, vector, *rows.params, *hnsw, *own))
        return Statement(text, (vector, *rows.params, *(hnsw if form == "hnsw" else own)))

    def decision(self, rows: Rows, tenant: str, *, filtered: bool) -> Statement:
        """Return the statement that decides, without a search: way, visible rows, own partition, usable index."""
        sql = f"WITH {self._chosen(rows.where, bits=not filtered)} SELECT way, visible, own, usable FROM chosen"
        return Statement(sql, self._deciding(rows, tenant, CANDIDATES, filtered=filtered))

    def _deciding(self, rows: Rows, tenant: str, candidates: int, *, filtered: bool = False) -> tuple[Any, ...]:
        """Return the parameters of `_chosen`."""
        names, config = self._names, self._config
        few = _FILTERED * config.exact_rows if filtered else self._exact_rows(candidates)
        limits = (few, few if filtered else config.bits_rows)
        shown = limits if config.indexable else limits[:1]
        part = (names.bits_index(names.partition_name(tenant)), names.partition(tenant))
        return (*part, *shown, *rows.params, max(limits))

    def _exact_rows(self, candidates: int) -> int:
        """Return the number of visible rows up to which every vector is compared."""
        few = self._config.exact_rows
        return few if candidates <= CANDIDATES else max(few, MOST_EXACT * candidates)

    def _sql(self, form: Form, include: Include, where: str, counted: str) -> str:
        table = self._names.table
        distance = self.distance if form in ("indexed", "hnsw") else unindexed(self.distance)
        columns = f"{self._select(include)}, {distance} AS distance"
        if form == "bits":
            return (
                f"WITH {self._near(where)} SELECT {columns}, 'bits' AS way, NULL::int8 AS visible, "
                f"{self._bits_distance} AS near_distance, {self._edge()} AS near_edge FROM {table} WHERE {where} AND "
                f"ctid = ANY({self._by_bits(where)})"
            )
        if form == "chosen":
            way = "(SELECT way FROM chosen)"
            hnsw = f"WHEN 'hnsw' THEN {self._by_hnsw(where)} " if self._config.indexable else ""
            return (
                f"WITH {self._chosen(counted, bits=True)}, {self._near(where)} SELECT {columns}, {way} AS way, "
                f"(SELECT visible FROM chosen) AS visible, "
                f"CASE {way} WHEN 'bits' THEN {self._bits_distance} END AS near_distance, "
                f"CASE {way} WHEN 'bits' THEN {self._edge()} END AS near_edge FROM {table} WHERE {where} AND "
                f"ctid = ANY(CASE {way} WHEN 'bits' THEN {self._by_bits(where)} {hnsw}"
                f"ELSE {self._by_distance(where, exact=True)} END)"
            )
        if form == "filtered":
            way = "(SELECT way FROM chosen)"
            return (
                f"WITH {self._chosen(counted, bits=False)} SELECT {columns}, {way} AS way, "
                f"(SELECT visible FROM chosen) AS visible FROM {table} WHERE {where} AND "
                f"ctid = ANY(CASE {way} WHEN 'hnsw' THEN {self._by_hnsw(where)} "
                f"ELSE {self._by_distance(where, exact=True)} END)"
            )
        places = self._by_hnsw(where) if form == "hnsw" else self._by_distance(where, exact=form == "exact")
        return f"SELECT {columns} FROM {table} WHERE {where} AND ctid = ANY({places})"

    def _by_distance(self, where: str, *, exact: bool) -> str:
        order = f"{unindexed(self.distance)}, {self._key}" if exact else self.distance
        return f"ARRAY(SELECT ctid FROM {self._names.table} WHERE {where} ORDER BY {order} LIMIT %s)"

    def _by_hnsw(self, where: str) -> str:
        return (
            f"ARRAY(SELECT place FROM (SELECT ctid AS place, {self.distance} AS distance FROM {self._names.table} "
            # Plus 0: the index's relaxed order counts as that of the distances, so PostgreSQL would not sort again.
            f"WHERE {where} ORDER BY {self.distance} LIMIT %s) AS found ORDER BY distance + 0::float8 LIMIT %s)"
        )

    def groups(self, vector: VectorParam, rows: Rows, k: int, candidates: int) -> Ranking:
        """Rank all rows of the documents that are nearest by the candidates, twice as many as the *k* best.

        Which of a document's rows are best, and the order of the documents, is then exact. Also returned: for each row
        its distance by bits and the edge, as in the form "bits".
        """
        table, document = self._names.table, self._names.c.document
        best = (
            f"near_documents AS MATERIALIZED (SELECT {document} AS best_document FROM {table} WHERE {rows.where} "
            f"AND ({self._key}) IN (SELECT near_document, near_generation, near_chunk FROM near) GROUP BY {document} "
            f"ORDER BY min({unindexed(self.distance)}), {document} LIMIT %s)"
        )
        return Ranking(
            unindexed(self.distance),
            table,
            (vector,),
            before=f"WITH {self._near(rows.where)}, {best} ",
            before_params=(vector, *rows.params, candidates, *rows.params, vector, 2 * k),
            also=f" AND {document} = ANY(ARRAY(SELECT best_document FROM near_documents))",
            extra=f", {self._bits_distance} AS near_distance",
            extra_params=(vector,),
            last=f", near_distance, {self._edge()} AS near_edge",
            last_params=(candidates // 4,),
        )

    def leg(self, vector: VectorParam, rows: Rows, candidates: int, depth: int) -> NearByBits:
        """Return the vector leg of a hybrid search: *depth* rows, and whether many of them lie beyond the edge.

        The rows of the words are candidates, too: what is high in both legs is what the fusion puts first.
        """
        c = self._names.c
        nearest = (
            f"nearest AS MATERIALIZED (SELECT {c.document} AS leg_document, {c.generation} AS leg_generation, "
            f"{c.chunk} AS leg_chunk, {unindexed(self.distance)} AS leg_distance, {self._bits_distance} AS leg_bits "
            f"FROM {self._names.table} WHERE {rows.where} AND ({self._key}) IN (SELECT near_document, near_generation, "
            "near_chunk FROM by_bits UNION ALL SELECT leg_document, leg_generation, leg_chunk FROM lexical) "
            f"ORDER BY leg_distance, {self._key} LIMIT %s)"
        )
        late = (
            f"late AS MATERIALIZED (SELECT count(*) FILTER (WHERE leg_bits >= {self._edge('by_bits')}) "
            f">= greatest(1, count(*) / {FAR}) AS far FROM nearest)"
        )
        params = (vector, *rows.params, candidates, vector, vector, *rows.params, depth, candidates // 4)
        return NearByBits(
            f"{self._near(rows.where, 'by_bits')}, {nearest}, {late}", params, "(SELECT far FROM late) AS far"
        )

    def _near(self, where: str, name: str = "near") -> str:
        c = self._names.c
        return (
            f"{name} AS MATERIALIZED (SELECT {c.document} AS near_document, {c.generation} AS near_generation, "
            f"{c.chunk} AS near_chunk, {self._bits_distance} AS near_distance FROM {self._names.table} WHERE {where} "
            "ORDER BY near_distance LIMIT %s)"
        )

    def _edge(self, near: str = "near") -> str:
        return f"(SELECT near_distance FROM {near} ORDER BY near_distance OFFSET %s LIMIT 1)"

    def _by_bits(self, where: str) -> str:
        return (
            f"ARRAY(SELECT ctid FROM {self._names.table} WHERE {where} AND ({self._key}) IN "
            "(SELECT near_document, near_generation, near_chunk FROM near) "
            f"ORDER BY {unindexed(self.distance)}, {self._key} LIMIT %s)"
        )

    def _chosen(self, where: str, *, bits: bool) -> str:
        """Return the CTEs that decide: the partition and its index from the catalog, and the number of visible rows."""
        names = self._names
        default = f"to_regclass({literal(names.default)})"
        index = f"to_regclass({literal(names.bits_index(names.raw_table + '_default'))})"
        by_bits = "WHEN usable THEN 'bits' " if bits else ""
        hnsw, unusable = "", "'exact'"
        if self._config.indexable:
            hnsw = f"WHEN own AND visible > greatest(%s::int8, rows / {_SHARE}) THEN 'hnsw' "
            unusable = "CASE WHEN own THEN 'hnsw' ELSE 'exact' END"
        return (
            f"part AS MATERIALIZED (SELECT kind.oid <> {default} AS own, kind.reltuples::int8 AS rows, "
            "coalesce(entry.indisvalid, false) AND kind.relallvisible * 2 >= kind.relpages AS usable "
            "FROM pg_catalog.pg_class AS kind LEFT JOIN pg_catalog.pg_index AS entry ON entry.indrelid = kind.oid "
            f"AND entry.indexrelid IN ({index}, to_regclass(%s::text)) "
            f"WHERE kind.relispartition AND kind.oid IN ({default}, to_regclass(%s::text)) "
            f"ORDER BY kind.oid = {default} LIMIT 1), "
            "chosen AS MATERIALIZED (SELECT own, usable, CASE WHEN visible <= %s::int8 THEN 'exact' "
            f"{hnsw}{by_bits}ELSE {unusable} END AS way, visible FROM (SELECT own, rows, usable, "
            f"(SELECT count(*) FROM (SELECT 1 FROM {names.table} WHERE {where} LIMIT "
            f"(SELECT greatest(%s::int8, CASE WHEN own THEN rows / {_SHARE} ELSE 0 END) + 1 FROM part)) AS counted) "
            "AS visible FROM part) AS facts)"
        )
