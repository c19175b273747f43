"""Decodes points to hits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from qdrant_client import models

from vectoracl.adapter_api.chunk_validation import load_metadata
from vectoracl.errors import ScopeViolationError, StoreError, without_context
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.filters.semantics import values_of
from vectoracl.model.records import Hit, Tag, hit_of
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.names import NO_VERSION, field_key, flag, id_of

ADAPTER = "qdrant"
Point = models.ScoredPoint | models.Record


class Decoder:
    """Decodes the points of one configured collection."""

    def __init__(self, config: QdrantConfig, fields: Mapping[str, FieldType]) -> None:
        self._keys = config.payload
        self._vector = config.vector or ""
        self._sign = -1.0 if config.metric == "l2" else 1.0
        self._fields = fields
        self._dates = {name: kind for name, kind in fields.items() if kind is FieldType.DATETIME}

    def ranked(self, points: Iterable[models.ScoredPoint]) -> list[Hit]:
        """Return *points* as hits, best first, ties by document and chunk id.

        Qdrant's score is the cosine, the inner product or the L2 distance; the last becomes its negative.
        """
        hits = [self._hit(point, self._sign * point.score) for point in points]
        hits.sort(key=lambda hit: (-hit.score, hit.tenant, hit.document, hit.id))
        return hits

    def worded(self, points: Iterable[tuple[float, Point]]) -> list[Hit]:
        """Return *points* with the scores that are given, in the order they have."""
        return [self._hit(point, score) for score, point in points]

    def dense(self, vector: Any) -> Any:
        """Return the dense vector of a point's *vector*, which may hold several by name; None where there is none."""
        return vector.get(self._vector) if isinstance(vector, dict) else vector

    def listed(self, points: Iterable[models.Record]) -> list[Hit]:
        """Return *points* as hits in key order."""
        hits = [self._hit(point, 0.0) for point in points]
        hits.sort(key=lambda hit: (hit.document, hit.tag.generation, hit.id))
        return hits

    def values(self, name: str, point: Point) -> frozenset[str | int | float | bool]:
        """Return the values that *point* has in the field *name*, which its payload has under the field's path."""
        payload = point.payload or {}
        if name in TAG_FIELDS:
            return values_of(TAG_FIELDS[name], payload.get(self._keys.document))
        kind = self._fields[name]
        stored: Any = (payload.get(self._keys.fields) or {}).get(field_key(name, kind))
        if kind is FieldType.BOOLEAN:
            stored = next((one for one in (True, False) if stored == flag(one)), None)
        return values_of(kind, stored)

    @without_context
    def tag(self, point: Point) -> Tag:
        """Return the point's tag.

        Raises: StoreError if it has none; ScopeViolationError if the id does not match the tag, which means that
        another program wrote the point or changed its tag.
        """
        keys, payload = self._keys, point.payload or {}
        try:
            tag = Tag(
                payload[keys.tenant],
                payload[keys.document],
                payload[keys.chunk],
                int(payload[keys.generation]),
                payload[keys.label],
                int(payload[keys.rev]),
                float(payload[keys.expires]),
                payload[keys.producer],
                payload[keys.path],
                float(payload[keys.time]),
                int(payload[keys.position]),
            )
            whole = str(point.id) == id_of(tag, str(payload.get(keys.version, NO_VERSION)))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise StoreError(
                "A point of the collection has no complete tag, so vectoracl did not write it. Run `vectoracl check`.",
                code="malformed",
                adapter=ADAPTER,
            ) from None
        if not whole:
            raise ScopeViolationError(
                "A point's tag was changed after it was written; the reply was dropped.", adapter=ADAPTER, rows=1
            )
        return tag

    def _hit(self, point: Point, score: float) -> Hit:
        tag = self.tag(point)
        payload: Mapping[str, Any] = point.payload or {}
        metadata = payload.get(self._keys.metadata)
        vector = self.dense(point.vector)
        return hit_of(
            tag,
            score,
            payload.get(self._keys.text),
            None if metadata is None else load_metadata(metadata, self._dates),
            None if vector is None else np.asarray(vector, np.float32),
        )
