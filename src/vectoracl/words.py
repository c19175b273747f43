"""Words, and texts as sparse vectors of them: without a model and without a look at any other text. Pure.

A word's place is a hash of it; a chunk's weight of it is the term-frequency part of Okapi BM25 (Robertson and
Zaragoza, "The Probabilistic Relevance Framework", 2009) with k1 = 1.2 and b = 0.75, against a fixed length instead of
the corpus's average: so a chunk's vector depends on the chunk alone and never has to be written again.

Places are 32 bits: two different words have the same one with a chance of 2**-32.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from hashlib import blake2b

K1, B = 1.2, 0.75
LENGTH = 128.0
"""The number of words that counts as neither short nor long."""
_WORD = re.compile(r"\w+")
_KEPT = 32  # characters of a word whose place is kept: a "word" may be a whole text, which nobody would free again
_DIGITS = 4  # of a weight, which is between 0 and K1 + 1: no more than a float32 keeps


def words(text: str) -> list[str]:
    """Return the words of *text*, caseless: runs of letters, digits and underscores."""
    return _WORD.findall(text.casefold())


def place(word: str) -> int:
    """Return the index of a (caseless) word: 32 bits of its hash."""
    return _known(word) if len(word) <= _KEPT else _hashed(word)


def _hashed(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")


_known = lru_cache(1 << 16)(_hashed)


def weights(text: str) -> dict[int, float]:
    """Return the weight of each word of a chunk's *text* by its place, in the order of the places."""
    found = words(text)
    norm = K1 * (1 - B + B * len(found) / LENGTH)
    made: dict[int, float] = {}
    for word, times in Counter(found).items():
        at = place(word)
        made[at] = made.get(at, 0.0) + times * (K1 + 1) / (times + norm)
    return {at: round(made[at], _DIGITS) for at in sorted(made)}


def places(text: str) -> list[int]:
    """Return the place of each word that is asked for by *text*, once and in order."""
    return sorted({place(word) for word in words(text)})
