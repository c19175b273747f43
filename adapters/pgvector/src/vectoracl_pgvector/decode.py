"""Decodes rows to hits. Pure. Each column has the position that `compile.PgCompiler._select` gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Literal

import orjson

from vectoracl.adapter_api.chunk_validation import load_metadata
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.model.records import Facet, Hit, Tag
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.requests import Row, load_vector

IN_SHARED = 0  # the first column: whether the row lies in the partition that small tenants share
_REST_OF_TAG = slice(5, 12)  # from the label to the position, in the order of the tag's fields
_SCORE, _TIE = itemgetter(2), itemgetter(3, 1, 0)  # of a hit: the score; tenant, document and id
_new = tuple.__new__


class Decoder:
    """Decodes the rows of one configured store."""

    def __init__(self, config: PgvectorConfig, fields: Mapping[str, FieldType]) -> None:
        self._half = config.type == "halfvec"
        self._metric = config.metric
        self._dates = {name: kind for name, kind in fields.items() if kind is FieldType.DATETIME}

    def hits(self, rows: Sequence[Row], *, ranked: Literal["distance", "words"] | None) -> list[Hit]:
        """Return *rows* as hits; ranked ones with a score, best first, ties by document and chunk id.

        Args:
            rows: The rows of a search, fetch or scan.
            ranked: "distance" for pgvector's distance (see `score`), "words" for minus a rank or a fused score, None
                for rows without a ranking.
        """
        hits = [self._hit(row, ranked=ranked) for row in rows]
        if ranked:
            hits.sort(key=_TIE)
            hits.sort(key=_SCORE, reverse=True)
        return hits

    def facets(self, field: str, rows: Sequence[Row]) -> list[Facet]:
        """Return *rows* of (value, number of rows) as facets; metadata values are JSON."""
        plain = field in TAG_FIELDS
        return [Facet(value if plain else _value(value), int(count)) for value, count in rows]

    def _hit(self, row: Row, *, ranked: Literal["distance", "words"] | None) -> Hit:
        _, tenant, document, generation, chunk, _, _, _, _, _, _, position, text, metadata, vector, distance = row
        score = self.score(distance) if ranked == "distance" else -distance if ranked else 0.0
        if metadata is not None:
            metadata = load_metadata(metadata, self._dates) if self._dates else orjson.loads(metadata)
        if vector is not None:
            vector = load_vector(vector, half=self._half)
        # As `Hit(…)` and `Tag(…)`, which take three times as long: a search makes ten of each.
        tag = _new(Tag, (tenant, document, chunk, generation, *row[_REST_OF_TAG]))
        return _new(Hit, (chunk, document, score, tenant, position, text, metadata, vector, tag))

    def score(self, distance: float) -> float:
        """Return pgvector's distance as a score; higher is better.

        Cosine: 1 - distance; `<#>` is the negative inner product; L2: minus the distance (pgvector's README).
        """
        return 1.0 - distance if self._metric == "cosine" else -distance


def _value(text: str) -> str | int | float | bool:
    """Parse a JSON value. jsonb writes 2**60 without a decimal point, but it was stored as a double."""
    value: str | int | float | bool = orjson.loads(text)
    return float(value) if type(value) is int else value
