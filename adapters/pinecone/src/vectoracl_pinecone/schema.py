"""The index that the adapter needs, as data. `operator` creates it, `posture` compares it. Everything here is pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from vectoracl.errors import RefusedError
from vectoracl_pinecone.config import PineconeConfig

METRICS = {"cosine": "cosine", "inner": "dotproduct", "l2": "euclidean"}
VECTOR_FIELD = "_values"
"""The reserved field that makes a schema a vector index, which the vectors API serves (pinecone 10.2)."""


@dataclass(frozen=True, slots=True)
class CreateIndex:
    """Create the index on a managed deployment: a dense vector field, and a sparse one for words if configured."""

    name: str
    schema: dict[str, Any]
    deployment: dict[str, Any]


def index(config: PineconeConfig) -> CreateIndex:
    """Return the index that the configuration asks for. Raises: RefusedError if only its host is configured."""
    if config.index is None:
        raise RefusedError(
            'An index that is configured by its host only cannot be created: set index = "NAME", or create it at that '
            f"host, with dimension {config.dimension} and metric {METRICS[config.metric]!r}."
        )
    field = config.vector_field if config.kind == "document" else VECTOR_FIELD
    vector: dict[str, Any] = {"type": "dense_vector", "dimension": config.dimension, "metric": METRICS[config.metric]}
    fields = {field: vector}
    if config.lexical and config.kind == "document":
        fields[config.words_field] = {"type": "sparse_vector"}
    deployment = {"deployment_type": "managed", "cloud": config.cloud, "region": config.region}
    return CreateIndex(config.index, {"fields": fields}, deployment)


def text_of(step: CreateIndex) -> str:
    """Return *step* as the HTTP request that does it."""
    body = {"name": step.name, "schema": step.schema, "deployment": step.deployment}
    return f"POST /indexes\n{orjson.dumps(body).decode()}"
