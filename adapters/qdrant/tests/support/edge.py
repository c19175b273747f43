"""Compiled filters on the server's own engine, in process: `qdrant-edge-py` is the Rust shard without the server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from vectoracl_qdrant import schema
from vectoracl_qdrant.config import QdrantConfig


def convert(condition: Any) -> Any:
    """Return a condition of the client's models in the engine's own classes."""
    match condition:
        case models.Filter():
            parts = {name: getattr(condition, name) for name in ("must", "should", "must_not")}
            return edge.Filter(
                **{name: [convert(one) for one in some] for name, some in parts.items() if some is not None}
            )
        case models.HasIdCondition(has_id=ids):
            return edge.HasIdCondition({_id(one) for one in ids})
        case models.IsEmptyCondition(is_empty=field):
            return edge.IsEmptyCondition(field.key)
        case models.FieldCondition(key=key, match=models.MatchValue(value=value)):
            return edge.FieldCondition(key, match=edge.MatchValue(value))
        case models.FieldCondition(key=key, match=models.MatchAny(any=values)):
            return edge.FieldCondition(key, match=edge.MatchAny(values))
        case models.FieldCondition(key=key, range=models.Range() as bounds):
            return edge.FieldCondition(key, range=edge.RangeFloat(**bounds.model_dump()))
        case models.FieldCondition(key=key, range=models.DatetimeRange() as bounds):
            # What REST sends: the model's JSON.
            return edge.FieldCondition(key, range=edge.RangeDateTime(**bounds.model_dump(mode="json")))
    raise NotImplementedError(type(condition))


def _id(value: Any) -> Any:
    import uuid

    return uuid.UUID(value) if isinstance(value, str) else value


def _vectors(vector: Any) -> Any:
    if isinstance(vector, list):
        return vector
    return {name: sparse(one) if isinstance(one, models.SparseVector) else one for name, one in vector.items()}


def sparse(vector: models.SparseVector) -> Any:
    return edge.SparseVector(vector.indices, vector.values)


class Shard:
    """One shard with the payload indexes of a configuration, or with none."""

    def __init__(self, folder: Path, config: QdrantConfig, fields: Mapping[str, Any], *, indexed: bool) -> None:
        self.indexed = indexed
        self._shard = edge.EdgeShard.create(
            str(folder),
            edge.EdgeConfig(
                vectors=edge.EdgeVectorParams(size=config.dimension, distance=edge.Distance.Cosine),
                sparse_vectors={"words": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
                hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10, payload_m=16),
            ),
        )
        kinds = {
            "keyword": edge.KeywordIndexParams,
            "float": edge.FloatIndexParams,
            "datetime": edge.DatetimeIndexParams,
            "bool": edge.BoolIndexParams,
        }
        if indexed:
            for key, params in schema.indexes(config, fields).items():
                self._shard.update(edge.UpdateOperation.create_field_index(key, kinds[params.type.value]()))

    def upsert(self, points: list[models.PointStruct]) -> None:
        made = [edge.Point(_id(point.id), _vectors(point.vector), point.payload) for point in points]
        self._shard.update(edge.UpdateOperation.upsert_points(made))

    def ids(self, where: models.Filter) -> set[str]:
        points, _ = self._shard.scroll(
            edge.ScrollRequest(limit=100_000, filter=convert(where), with_payload=False, with_vector=False)
        )
        return {str(point.id) for point in points}

    def ordered(self, where: models.Filter, key: str, limit: int, start: float | None) -> list[str]:
        order = edge.OrderBy(key, edge.Direction.Asc, start)
        points, _ = self._shard.scroll(
            edge.ScrollRequest(
                limit=limit, filter=convert(where), with_payload=False, with_vector=False, order_by=order
            )
        )
        return [str(point.id) for point in points]

    def ranked(self, where: models.Filter, vector: list[float], limit: int) -> list[tuple[str, float]]:
        found = self._shard.query(
            edge.QueryRequest(limit=limit, query=edge.Query.Nearest(vector), filter=convert(where))
        )
        return [(str(point.id), point.score) for point in found]

    def worded(
        self, where: models.Filter, words: models.SparseVector, limit: int, corpus: models.Filter | None
    ) -> list[tuple[str, float]]:
        params = None if corpus is None else edge.SearchParams(idf=edge.IdfParams(corpus=convert(corpus)))
        query = edge.Query.Nearest(sparse(words), using="words")
        found = self._shard.query(edge.QueryRequest(limit=limit, query=query, filter=convert(where), params=params))
        return [(str(point.id), point.score) for point in found]

    def fused(
        self, where: models.Filter, words: models.SparseVector, vector: list[float], depth: int, k: int
    ) -> list[tuple[str, float]]:
        """Let the engine fuse both legs."""
        legs = [
            edge.Prefetch(limit=depth, query=edge.Query.Nearest(vector), filter=convert(where)),
            edge.Prefetch(
                limit=depth,
                query=edge.Query.Nearest(sparse(words), using="words"),
                filter=convert(where),
                params=edge.SearchParams(idf=edge.IdfParams(corpus=convert(where))),
            ),
        ]
        found = self._shard.query(
            edge.QueryRequest(limit=2 * depth, query=edge.Fusion.Rrf(k=k), prefetches=legs, filter=convert(where))
        )
        return [(str(point.id), point.score) for point in found]

    def close(self) -> None:
        self._shard.close()
