"""SQL for full text search: the words of the query, their rank in a chunk, and the fusion with a vector ranking. Pure.

PostgreSQL's own parser reads text and query alike; the lexemes of the query are joined by OR. No index serves `@@`: the
operator is not leakproof, so under row-level security it is evaluated after the policy and cannot be an index condition
(PostgreSQL documentation, "Rules and Privileges"; `docs/pgvector.md` has the measurements). The words are therefore
searched in the tenant's own rows, which its partition or the first column of the key selects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vectoracl.model.queries import RRF_K
from vectoracl_pgvector.names import Names

# Option of ts_rank: divide by 1 + the logarithm of the chunk's length, so that length alone does not win.
_BY_LENGTH = 1
QUERY = "(SELECT asked.query FROM asked)"


@dataclass(frozen=True, slots=True)
class Ranking:
    """The order of a search: ascending by `distance`, over the rows of `source` (FROM) that also meet `also`.

    `before` precedes the SELECT, `extra` are further columns of the ranked rows and `last` of the statement, each with
    a comma before it. The parameters follow the order of the statement.
    """

    distance: str
    source: str
    params: tuple[Any, ...] = ()
    before: str = ""
    before_params: tuple[Any, ...] = ()
    also: str = ""
    extra: str = ""
    extra_params: tuple[Any, ...] = ()
    last: str = ""
    last_params: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one partition in scope: a WHERE, whose first condition is the tenant's, and its parameters."""

    where: str
    params: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Near:
    """The vector leg: a distance with its parameters, and the expression that orders its rows, indexed or exact."""

    distance: str
    order: str
    params: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class NearByBits:
    """The vector leg by bits: expressions after the leg `lexical`, among them `nearest`, its rows.

    `far` is whether too many of its best rows lie far down in the order by bits.
    """

    expressions: str
    params: tuple[Any, ...]
    far: str


@dataclass(frozen=True, slots=True)
class Scored:
    """Common table expressions, with their parameters; the last one is `scored`: the keys and the distance of rows.

    The rows are permitted ones that hold a word, all of them or the best; see `compile_bm25`.
    """

    expressions: str
    params: tuple[Any, ...]


def query_cte(names: Names) -> str:
    """Return the CTE with the query as a tsquery: any of the lexemes of its one parameter, NULL if it has none.

    It is built from the lexemes, not by rewriting the text of plainto_tsquery, since a lexeme may contain an operator.
    In the text form of a tsquery, quotes and backslashes within a lexeme are doubled.
    """
    lexeme = "replace(replace(word, chr(92), repeat(chr(92), 2)), chr(39), repeat(chr(39), 2))"
    return (
        "asked AS MATERIALIZED (SELECT string_agg(concat(chr(39), "
        f"{lexeme}, chr(39)), ' | ')::tsquery AS query "
        f"FROM unnest(tsvector_to_array(to_tsvector({names.text_search}, %s::text))) AS given(word))"
    )


def lexical(names: Names, text: str) -> Ranking:
    """Rank the chunks that contain at least one word of *text*.

    The distance is minus ts_rank, which depends only on the chunk and the query (PostgreSQL documentation, "Ranking
    Search Results"), not on statistics of other rows or tenants.
    """
    return Ranking(
        _rank(names), names.table, before=f"WITH {query_cte(names)} ", before_params=(text,), also=_holds(names)
    )


def _rank(names: Names) -> str:
    return f"(- ts_rank({names.c.lexemes}, {QUERY}, {_BY_LENGTH})::float8)"


def _holds(names: Names) -> str:
    return f" AND {names.c.lexemes} @@ {QUERY}"


def hybrid(
    names: Names,
    text: str,
    near: Near | NearByBits,
    rows: Rows,
    *,
    depth: int | None,
    scored: Scored | None = None,
) -> Ranking:
    """Rank by reciprocal rank fusion (`queries.RRF_K`) of words and vector, in one statement and one snapshot.

    Each leg, and the outer query, has its own copy of the tenant's condition, scope and filter. A leg has at most
    *depth* rows, or all if it is None. With *scored*, those rows are the leg of the words.
    """
    c = names.c
    key = f"{c.document}, {c.generation}, {c.chunk}"
    limit = "" if depth is None else " LIMIT %s"
    most = () if depth is None else (depth,)

    def leg(name: str, distance: str, order: str, also: str) -> str:
        return _numbered(
            name,
            f"(SELECT {c.document} AS leg_document, {c.generation} AS leg_generation, {c.chunk} AS leg_chunk, "
            f"{distance} AS leg_distance FROM {names.table} WHERE {rows.where}{also} ORDER BY {order}{limit}) AS found",
        )

    lexical_params: tuple[Any, ...]
    if scored is None:
        first, first_params = query_cte(names), (text,)
        lexical_leg = leg("lexical", _rank(names), f"leg_distance, {key}", _holds(names))
        lexical_params = (*rows.params, *most)
    else:
        first, first_params = scored.expressions, scored.params
        lexical_leg, lexical_params = _numbered("lexical", "scored"), ()
    legs: tuple[str, ...]
    near_params: tuple[Any, ...]
    last = ""
    if isinstance(near, NearByBits):
        legs = (lexical_leg, near.expressions, _numbered("near", "nearest"))
        near_params, last = (*lexical_params, *near.params), f", {near.far}"
    else:
        legs = (leg("near", near.distance, near.order, ""), lexical_leg)
        ordered = near.params if near.order != "leg_distance" else ()
        near_params = (*near.params, *rows.params, *ordered, *most, *lexical_params)
    fused = (
        "fused AS (SELECT leg_document, leg_generation, leg_chunk, "
        f"(- sum(1::float8 / ({RRF_K} + place))) AS fused_distance "
        "FROM (SELECT * FROM near UNION ALL SELECT * FROM lexical) AS legs "
        "GROUP BY leg_document, leg_generation, leg_chunk)"
    )
    return Ranking(
        "fused_distance",
        f"{names.table}, fused",
        before=f"WITH {first}, {', '.join(legs)}, {fused} ",
        before_params=(*first_params, *near_params),
        also=f" AND ({key}) = (leg_document, leg_generation, leg_chunk)",
        last=last,
    )


def _numbered(name: str, source: str) -> str:
    """Return the leg *name* with the place of each row of *source* in the order of its distance."""
    return (
        f"{name} AS (SELECT leg_document, leg_generation, leg_chunk, row_number() OVER "
        f"(ORDER BY leg_distance, leg_document, leg_generation, leg_chunk) AS place FROM {source})"
    )
