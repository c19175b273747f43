"""Words, and texts as sparse vectors of them: without a model and without a look at any other text. Pure.

A word's place is a hash of it; a chunk's weight of it is the term-frequency part of Okapi BM25 (Robertson and
Zaragoza, "The Probabilistic Relevance Framework", 2009) with k1 = 1.2 and b = 0.75, against a fixed length instead of
the corpus's average: so a chunk's vector depends on the chunk alone and never has to be written again.

Places are 32 bits: two different words have the same one with a chance of 2**-32.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from functools import lru_cache
from hashlib import blake2b

K1, B = 1.2, 0.75
LENGTH = 128.0
"""The number of words that counts as neither short nor long."""
_WORD = re.compile(r"\w+")
_KEPT = 32  # characters of a word whose place is kept: a "word" may be a whole text, which nobody would free again
_FEW = 8
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
    norm = _norm(len(found))
    made: dict[int, float] = {}
    for word, times in Counter(found).items():
        at = place(word)
        made[at] = made.get(at, 0.0) + times * (K1 + 1) / (times + norm)
    return {at: round(made[at], _DIGITS) for at in sorted(made)}


def score(query: Collection[str], text: str) -> float:
    """Return the sum of the weights that *text* gives to the words of *query*, each taken once; 0.0: it holds none."""
    found = words(text)
    norm = _norm(len(found))
    wanted = set(query)
    # A few words are counted faster one by one.
    times: Mapping[str, int] = {one: found.count(one) for one in wanted} if len(wanted) <= _FEW else Counter(found)
    held = ((times.get(one) or 0) for one in wanted)
    # Equal sums are equal numbers, in whatever order they are added up.
    return round(sum(round(one * (K1 + 1) / (one + norm), _DIGITS) for one in held), _DIGITS)


def _norm(length: int) -> float:
    return K1 * (1 - B + B * length / LENGTH)


def places(text: str) -> list[int]:
    """Return the place of each word that is asked for by *text*, once and in order."""
    return sorted({place(word) for word in words(text)})
