"""Texts as sparse vectors of words, without a model and without reading any other text.

The index of a word is a hash of it. Its weight in a chunk is the term-frequency part of Okapi BM25 (Robertson and
Zaragoza, "The Probabilistic Relevance Framework", 2009) with k1 = 1.2 and b = 0.75, with a fixed length instead of the
corpus average: so a chunk's vector depends on the chunk alone and never has to be rewritten.

An index has 32 bits: two different words have the same index with a probability of 2**-32.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from functools import lru_cache
from hashlib import blake2b

K1, B = 1.2, 0.75
LENGTH = 128.0
"""The number of words of a text of average length."""
_WORD = re.compile(r"\w+")
_KEPT = 32  # the longest cached word, in characters: a "word" may be a whole text, which would stay in memory
_FEW = 8
_DIGITS = 4  # of a weight, which is between 0 and K1 + 1; a float32 keeps no more


def words(text: str) -> list[str]:
    """Return the words of *text*, caseless: runs of letters, digits and underscores."""
    return _WORD.findall(text.casefold())


def token_index(word: str) -> int:
    """Return the index of a (caseless) word: 32 bits of its hash."""
    return _known(word) if len(word) <= _KEPT else _hashed(word)


def _hashed(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")


_known = lru_cache(1 << 16)(_hashed)


def weights(text: str) -> dict[int, float]:
    """Return the weight of each word of a chunk's *text* by its index, sorted by index."""
    tokens = words(text)
    norm = _norm(len(tokens))
    sums: dict[int, float] = {}
    for word, times in Counter(tokens).items():
        at = token_index(word)
        sums[at] = sums.get(at, 0.0) + times * (K1 + 1) / (times + norm)
    return {at: round(sums[at], _DIGITS) for at in sorted(sums)}


def score(query: Collection[str], text: str) -> float:
    """Return the sum of the weights in *text* of the distinct words of *query*; 0.0 if it contains none of them."""
    tokens = words(text)
    norm = _norm(len(tokens))
    terms = set(query)
    # A few words are counted faster one by one.
    times: Mapping[str, int] = {one: tokens.count(one) for one in terms} if len(terms) <= _FEW else Counter(tokens)
    held = ((times.get(one) or 0) for one in terms)
    # Rounded, so that equal sums are equal numbers in any order of addition.
    return round(sum(round(one * (K1 + 1) / (one + norm), _DIGITS) for one in held), _DIGITS)


def _norm(length: int) -> float:
    return K1 * (1 - B + B * length / LENGTH)


def token_indices(text: str) -> list[int]:
    """Return the indices of the distinct words of *text*, a query, sorted."""
    return sorted({token_index(word) for word in words(text)})
