"""Texts as Qdrant's sparse vectors (see `vectoracl.text.sparse_words`).

The server computes the inverse document frequency, over the rows of the query's scope (`compile.QdrantCompiler.words`).
Indices have 32 bits, as Qdrant stores them.
"""

from __future__ import annotations

from collections.abc import Sequence

from qdrant_client import models

from vectoracl.text import sparse_words


def stored(text: str) -> models.SparseVector | None:
    """Return what is stored of a chunk's *text*; None where it has no word."""
    word_weights = sparse_words.weights(text)
    return models.SparseVector(indices=list(word_weights), values=list(word_weights.values())) if word_weights else None


def wanted(text: str) -> models.SparseVector | None:
    """Return what is asked for by *text*: each of its words once; None where it has no word."""
    order = sparse_words.token_indices(text)
    return models.SparseVector(indices=order, values=[1.0] * len(order)) if order else None


def bytes_of(vectors: Sequence[models.SparseVector | None]) -> int:
    """Return the most bytes that *vectors* need in a request's JSON: an index has 10 digits, a weight 6."""
    return sum(20 * len(one.indices) for one in vectors if one is not None)
