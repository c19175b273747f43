"""Texts as sparse vectors, without a model and without a look at any other text.

A word's place is a hash of it; a chunk's weight of it is the term-frequency part of Okapi BM25 (Robertson and
Zaragoza, "The Probabilistic Relevance Framework", 2009) with k1 = 1.2 and b = 0.75, against a fixed length instead of
the corpus's average: so a chunk's vector depends on the chunk alone and never has to be written again. The inverse
document frequency is the server's part, over the rows of the query's own scope (`compile.QdrantCompiler.words`).

Places are 32 bits, which is what Qdrant stores: two different words have the same one with a chance of 2**-32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from qdrant_client import models

from vectoracl.memory.lexical import K1, B, words

LENGTH = 128.0
"""The number of words that counts as neither short nor long."""
_KEPT = 32  # characters of a word whose place is kept: a "word" may be a whole text, which nobody would free again
_DIGITS = 4  # of a weight, which is between 0 and K1 + 1: JSON carries no more than is stored


def place(word: str) -> int:
    """Return the index of a (caseless) word: 32 bits of its hash."""
    return _known(word) if len(word) <= _KEPT else _hashed(word)


def _hashed(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")


_known = lru_cache(1 << 16)(_hashed)


def stored(text: str) -> models.SparseVector | None:
    """Return what is stored of a chunk's *text*; None where it has no word."""
    found = words(text)
    if not found:
        return None
    norm = K1 * (1 - B + B * len(found) / LENGTH)
    weights: dict[int, float] = {}
    for word, times in Counter(found).items():
        at = place(word)
        weights[at] = weights.get(at, 0.0) + times * (K1 + 1) / (times + norm)
    order = sorted(weights)
    return models.SparseVector(indices=order, values=[round(weights[at], _DIGITS) for at in order])


def wanted(text: str) -> models.SparseVector | None:
    """Return what is asked for by *text*: each of its words once; None where it has no word."""
    order = sorted({place(word) for word in words(text)})
    return models.SparseVector(indices=order, values=[1.0] * len(order)) if order else None


def bytes_of(vectors: Sequence[models.SparseVector | None]) -> int:
    """Return the most bytes that *vectors* need in a request's JSON: an index has 10 digits, a weight 6."""
    return sum(20 * len(one.indices) for one in vectors if one is not None)
