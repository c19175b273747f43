"""Reciprocal rank fusion: one ranking from several, by the ranks alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

from vectoracl.model.queries import RRF_K

K = TypeVar("K", bound=Hashable)


def fused(legs: Iterable[Iterable[K]]) -> dict[K, float]:
    """Return the fused score of each row that is in one of *legs*, each a ranking, best first (see `RRF_K`).

    The rows may be named by any key. They come in the order in which they are first met, which is not that of the
    scores: several rows may have one score, and the caller breaks such ties.
    """
    scores: dict[K, float] = {}
    for leg in legs:
        for rank, row in enumerate(leg, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (RRF_K + rank)
    return scores
