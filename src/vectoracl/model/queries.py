"""What may be searched for: a closed union. A plain string is text, a sequence of numbers is a vector."""

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
"""How many different words a lexical or hybrid query may hold: a store's work grows with words times rows.

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
    """Match words (the store's full text or BM25); no vector is used."""

    text: str


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Fuse a lexical and a vector ranking; without *vector* the text is embedded. Fused scores only order."""

    text: str
    vector: Sequence[float] | Vector | None = None


@dataclass(frozen=True, slots=True)
class Like:
    """Search by the vector of a stored chunk, which is looked up inside the scope first and left out of the hits.

    A chunk that the principal may not see reads like one that does not exist: no hits. *document* is needed where
    several documents have a chunk of this id.
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
        raise InvalidInputError(f"{name} must be {dimension} numbers, not {type(value).__name__}.", field=name)
    # Always a copy: who keeps the array that was passed in can change it after the check.
    vector = value.copy() if type(value) is np.ndarray and value.dtype == np.float32 else _numbers(value, name)
    if vector.shape != (dimension,):
        raise InvalidInputError(
            f"{name} has the shape {vector.shape}; the store holds vectors of {dimension} numbers.",
            field=name,
        )
    # One reduction: the sum of squares is finite only if every number is, and zero only if all are.
    # In float64 it cannot overflow, so NumPy has nothing to warn of.
    wide = vector.astype(np.float64)
    length = float(np.dot(wide, wide))
    if not length <= _MAX_SQUARE:
        if not bool(np.isfinite(vector).all()):
            raise InvalidInputError(f"{name} holds a number that is not finite.", field=name)
        raise InvalidInputError(f"{name} is too long: the square of its length is beyond float32.", field=name)
    if nonzero and length < 1e-30:
        raise InvalidInputError(f"{name} is (almost) zero, and the cosine needs a direction.", field=name)
    return vector


@without_context
def _numbers(value: object, name: str) -> Vector:
    """Return *value* as a new float32 array; texts, booleans, complex and masked numbers are not taken as numbers."""
    try:
        given = np.asarray(value)
    except Exception:  # noqa: BLE001 - ragged lists, and arrays of other libraries that cannot be converted
        raise InvalidInputError(f"{name} must be a sequence of numbers.", field=name) from None
    if given.dtype.kind not in "fiu" or isinstance(value, np.ma.MaskedArray):
        raise InvalidInputError(f"{name} must be a sequence of numbers.", field=name)
    with np.errstate(over="ignore", invalid="ignore"):
        return given.astype(np.float32, order="C")


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
            f"The query holds more than {MAX_QUERY_WORDS:,} different words. Ask for the words that matter, or by "
            "vector, where a text of any words will do.",
            field="query",
        )
