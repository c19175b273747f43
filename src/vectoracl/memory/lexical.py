"""The reference of lexical ranking: BM25 over the rows in scope; exact and deterministic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from vectoracl.text.sparse_words import K1, B, words


def bm25(query: str, texts: Sequence[str]) -> dict[int, float]:
    """Return the scores of those *texts* that contain a word of *query*, by their index.

    Okapi BM25 with k1 = 1.2, b = 0.75 and the inverse document frequency ln(1 + (N - n + 0.5) / (n + 0.5)), which is
    never negative (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009). The statistics are those
    of *texts*, which are the rows in scope: texts of others do not influence a score.
    """
    terms = set(words(query))
    bags = [Counter(words(text)) for text in texts]
    lengths = [sum(bag.values()) for bag in bags]
    average = sum(lengths) / len(lengths) if lengths else 0.0
    held = [sorted(terms & bag.keys()) for bag in bags]  # the cost depends on the texts, not on the length of the query
    holders = Counter(word for matches in held for word in matches)
    weight = {word: math.log(1 + (len(bags) - n + 0.5) / (n + 0.5)) for word, n in holders.items()}
    scores: dict[int, float] = {}
    for place, (bag, matches) in enumerate(zip(bags, held, strict=True)):
        if matches:
            norm = K1 * (1 - B + B * lengths[place] / average)
            scores[place] = sum(weight[word] * bag[word] * (K1 + 1) / (bag[word] + norm) for word in matches)
    return scores


__all__ = ["bm25", "words"]
