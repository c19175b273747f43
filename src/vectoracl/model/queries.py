"""Queries: a closed union of text (a str), a vector (a sequence of numbers), `Lexical`, `Hybrid` and `Like`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vectoracl.errors import InvalidInputError, without_context
from vectoracl.model.identifiers import check_id, check_text
from vectoracl.model.records import Vector

MAX_QUERY_BYTES = 1 << 16
MAX_QUERY_WORDS = 1_000
"""The maximum number of distinct words in a lexical or hybrid query: a store's work grows with words times rows.

On PostgreSQL a query of 13,000 words took 9 s over 2,000 chunks, one of 1,000 words 0.3 s.
"""
_WORD = re.compile(r"\w+")
RRF_K = 60
"""The constant of reciprocal rank fusion: a chunk's score is the sum of 1 / (60 + rank) over the legs, ranks from 1.

Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods",
SIGIR 2009.
"""
_MAX_SQUARE = float(np.finfo(np.float32).max)
_NO_VECTOR = (str, bytes, dict, set, frozenset)


@dataclass(frozen=True, slots=True)
class Lexical:
    """A query by words (the store's full text search or BM25), without a vector.

    Attributes:
        text: The words.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Hybrid:
    """A query by words and by vector, fused by rank. Its scores only define an order.

    Attributes:
        text: The words.
        vector: A vector of the store's dimension; None embeds *text*.
    """

    text: str
    vector: Sequence[float] | Vector | None = None


@dataclass(frozen=True, slots=True)
class Like:
    """A query by the vector of a stored chunk, which is looked up inside the scope and omitted from the hits.

    A chunk that the principal may not see reads like one that does not exist: there are no hits.

    Attributes:
        id: The chunk's id.
        document: The document's id; required if several documents have a chunk with this id.
    """

    id: str
    document: str | None = None


Query = str | Sequence[float] | Vector | Lexical | Hybrid | Like


@dataclass(frozen=True, slots=True, eq=False)
class VectorQuery:
    """A resolved query by vector: float32, finite, of the store's dimension."""

    vector: Vector


@dataclass(frozen=True, slots=True, eq=False)
class HybridQuery:
    """A resolved query by words and vector."""

    text: str
    vector: Vector


ResolvedQuery = VectorQuery | HybridQuery | Lexical


def check_vector(value: object, dimension: int, *, nonzero: bool, name: str = "vector") -> Vector:
    """Return *value* as a contiguous float32 array of *dimension* finite numbers.

    *nonzero* refuses the zero vector, which has no direction (cosine). Raises: InvalidInputError.
    """
    if value is None or isinstance(value, _NO_VECTOR):
        raise InvalidInputError(f"{name} must be {dimension} numbers, got {type(value).__name__}.", field=name)
    # Always a copy: the caller could change the array that was passed in after the check.
    vector = value.copy() if type(value) is np.ndarray and value.dtype == np.float32 else _numbers(value, name)
    if vector.shape != (dimension,):
        raise InvalidInputError(
            f"{name} has the shape {vector.shape}; the store's vectors have {dimension} numbers.",
            field=name,
        )
    # One reduction: the sum of squares is finite only if every number is, and zero only if all are.
    # In float64 it cannot overflow, so NumPy does not warn.
    wide = vector.astype(np.float64)
    length = float(np.dot(wide, wide))
    if not length <= _MAX_SQUARE:
        if not bool(np.isfinite(vector).all()):
            raise InvalidInputError(f"{name} contains a number that is not finite.", field=name)
        raise InvalidInputError(f"{name} is too long: the square of its length exceeds float32.", field=name)
    if nonzero and length < 1e-30:
        raise InvalidInputError(f"{name} is (almost) zero, and the cosine requires a direction.", field=name)
    return vector


@without_context
def _numbers(value: object, name: str) -> Vector:
    """Return *value* as a new float32 array; texts, booleans, complex and masked numbers are refused."""
    try:
        array = np.asarray(value)
    except Exception:  # noqa: BLE001 - ragged lists, and arrays of other libraries that cannot be converted
        raise InvalidInputError(f"{name} must be a sequence of numbers.", field=name) from None
    if array.dtype.kind not in "fiu" or isinstance(value, np.ma.MaskedArray):
        raise InvalidInputError(f"{name} must be a sequence of numbers.", field=name)
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32, order="C")


def check_query(value: object, *, dimension: int, nonzero: bool) -> str | VectorQuery | Lexical | Hybrid | Like:
    """Return *value* as a query: text, a checked vector or one of the classes above. Raises: InvalidInputError."""
    if type(value) is np.ndarray:
        return VectorQuery(check_vector(value, dimension, nonzero=nonzero, name="query"))
    match value:
        case str():
            return _text(value)
        case Lexical(text=text):
            _words(text)
            return value
        case Hybrid(text=text, vector=vector):
            _words(text)
            if vector is None:
                return value
            return Hybrid(text, check_vector(vector, dimension, nonzero=nonzero))
        case Like(id=id_, document=document):
            check_id(id_, "chunk id")
            if document is not None:
                check_id(document, "document")
            return value
    return VectorQuery(check_vector(value, dimension, nonzero=nonzero, name="query"))


def _text(value: object) -> str:
    text = check_text(value, "query", MAX_QUERY_BYTES)
    if not text.strip():
        raise InvalidInputError("The query is blank.", field="query")
    return text


def _words(value: object) -> None:
    text = _text(value)
    if len(text) > MAX_QUERY_WORDS and len(set(_WORD.findall(text.casefold()))) > MAX_QUERY_WORDS:
        raise InvalidInputError(
            f"The query has more than {MAX_QUERY_WORDS:,} distinct words. Search for the important words, or by "
            "vector, which has no such limit.",
            field="query",
        )
