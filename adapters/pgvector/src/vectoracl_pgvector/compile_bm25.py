"""SQL that ranks by BM25 with the statistics of one tenant, whichever way its rows are found. Pure.

Each way is a list of common table expressions of which the last, `scored`, has the keys of permitted rows and their
distance (minus the score). The tenant's condition, the scope and the caller's filter are conditions of the rows that
are ranked, so they hold before any LIMIT; the statement that reads the chunks themselves repeats them.

- `by_index`: the tenant's index gives the rows in the order of their scores; rows that do not meet the conditions are
  skipped and the scan goes on.
- `filtered`: rows that meet the conditions and hold a word are scored with the index's statistics, all of them.
- `linear`: without an index. All rows of the tenant are read once for the statistics.

All three compute the same score, to 7 digits: Okapi BM25 with the inverse document frequency ln(1 + (N - n + 0.5) /
(n + 0.5)), the frequency of a word in the query as a factor, and a chunk's length rounded as Lucene's SmallFloat does,
which keeps four significant bits of a length beyond 40. Texts without words do not count. (pg_textsearch,
src/query/score.c, src/segment/fieldnorm.h.) The statistics of an index include deleted rows for a while: until they are
vacuumed and the extension has merged their segment, and before release 1.1 until the index is built again.
"""

from __future__ import annotations

from vectoracl.text.sparse_words import K1, B
from vectoracl_pgvector.compile_words import QUERY, Ranking, Rows, Scored, query_cte
from vectoracl_pgvector.names import Names
from vectoracl_pgvector.word_index import WordIndex

_EXACT_BELOW = 40  # lengths that are stored as they are
_STEPS = ", ".join(str(2**bit) for bit in range(4, 31))
_KEYS = "leg_document, leg_generation, leg_chunk"


def ranking(names: Names, scored: Scored) -> Ranking:
    """Return the ranking of a lexical query."""
    c = names.c
    return Ranking(
        "leg_distance",
        f"{names.table}, scored",
        before=f"WITH {scored.expressions} ",
        before_params=scored.params,
        also=f" AND ({c.document}, {c.generation}, {c.chunk}) = ({_KEYS})",
    )


def _keys(names: Names) -> str:
    c = names.c
    return f"{c.document} AS leg_document, {c.generation} AS leg_generation, {c.chunk} AS leg_chunk"


def _distance(names: Names, index: WordIndex) -> str:
    return f"{names.c.text} OPERATOR({index.schema}.<@>) {index.schema}.to_bm25query(%s::text, %s::text)"


def by_index(names: Names, index: WordIndex, text: str, rows: Rows, limit: int) -> Scored:
    """Rank the first *limit* rows by the index."""
    ranked = (
        f"SELECT {_keys(names)}, {_distance(names, index)} AS leg_distance FROM {names.table} "
        f"WHERE {rows.where} ORDER BY leg_distance LIMIT %s"
    )
    # Another plan than the index's would also give rows without any of the words, after all others; and before release
    # 1.3.1 the index can give a row twice while rows are written.
    scored = (
        f"scored AS MATERIALIZED (SELECT {_KEYS}, min(leg_distance) AS leg_distance FROM ({ranked}) AS ranked "
        f"WHERE leg_distance < 0 GROUP BY {_KEYS})"
    )
    return Scored(scored, (text, index.name, *rows.params, limit))


def filtered(names: Names, index: WordIndex, text: str, rows: Rows, limit: int | None) -> Scored:
    """Rank all rows by the index's statistics, and keep *limit* of them, or all if it is None."""
    scored = (
        f"SELECT {_keys(names)}, ({_distance(names, index)}) + 0::float8 AS leg_distance FROM {names.table} "
        f"WHERE {rows.where} AND {names.c.lexemes} @@ {QUERY}{_best(limit)}"
    )
    expressions = f"{query_cte(names)}, scored AS MATERIALIZED ({scored})"
    return Scored(expressions, (text, text, index.name, *rows.params, *_most(limit)))


def linear(names: Names, text: str, partition: str, rows: Rows, limit: int | None) -> Scored:
    """Rank all rows by the statistics of the tenant's rows, and keep *limit* of them, or all if it is None."""
    c = names.c
    length = (
        f"(CASE WHEN leg_words < {_EXACT_BELOW} THEN leg_words ELSE ((leg_words - 24 >> "
        f"width_bucket(leg_words - 24, ARRAY[{_STEPS}])) << width_bucket(leg_words - 24, ARRAY[{_STEPS}])) + 24 END)"
    )
    saturation = f"{K1}::float8 * ({1 - B}::float8 + {B}::float8 * {length} / average_words)"
    # In the order of the words, so that rows with the same words have the same sum.
    total = f"sum(word_weight * held_times * {K1 + 1}::float8 / (held_times + {saturation}) ORDER BY held_word)"
    expressions = (
        f"{query_cte(names)}",
        "asked_words AS MATERIALIZED (SELECT given.lexeme AS asked_word, cardinality(given.positions) AS asked_times "
        f"FROM unnest(to_tsvector({names.text_search}, %s::text)) AS given)",
        f"tenant_rows AS MATERIALIZED (SELECT {_keys(names)}, {c.word_count} AS leg_words, "
        f"({rows.where}) AS leg_permitted, CASE WHEN {c.lexemes} @@ {QUERY} THEN {c.lexemes} END AS leg_lexemes "
        f"FROM {names.table} WHERE {c.tenant} = %s::text)",
        "totals AS MATERIALIZED (SELECT count(*)::float8 AS total_rows, sum(leg_words)::float8 / count(*) "
        "AS average_words FROM tenant_rows WHERE leg_words > 0)",
        f"held AS MATERIALIZED (SELECT {_KEYS}, leg_words, leg_permitted, word.lexeme AS held_word, "
        "cardinality(word.positions) AS held_times FROM tenant_rows, unnest(leg_lexemes) AS word "
        "WHERE word.lexeme IN (SELECT asked_word FROM asked_words))",
        "weights AS MATERIALIZED (SELECT asked_word AS weighted_word, asked_times * ln(1 + (total_rows - count(*) + "
        "0.5::float8) / (count(*) + 0.5::float8)) AS word_weight FROM held JOIN asked_words ON asked_word = held_word "
        "CROSS JOIN totals GROUP BY asked_word, asked_times, total_rows)",
        f"scored AS MATERIALIZED (SELECT {_KEYS}, - {total} AS leg_distance FROM held JOIN weights "
        f"ON weighted_word = held_word CROSS JOIN totals WHERE leg_permitted GROUP BY {_KEYS}{_best(limit)})",
    )
    return Scored(", ".join(expressions), (text, text, *rows.params, partition, *_most(limit)))


def _best(limit: int | None) -> str:
    return "" if limit is None else f" ORDER BY leg_distance, {_KEYS} LIMIT %s"


def _most(limit: int | None) -> tuple[int, ...]:
    return () if limit is None else (limit,)
