"""Fuses the rankings of a hybrid query, and groups hits by document. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vectoracl.adapter_api import rank_fusion
from vectoracl.adapter_api.operations import Search
from vectoracl.model.records import Hit

_LEAST = 50
_DEEPER = 4
_LEG = 10
_LEAST_LEG = 100


class Groups(NamedTuple):
    """The hits of the best documents; `full` is whether they are as many as were asked for, of each document too."""

    hits: list[Hit]
    full: bool


def leg_depth(limit: int, most: int) -> int:
    """Return how many hits each leg of a fused ranking of *limit* hits is asked for.

    Ten times as many, at least a hundred: a chunk that is further down in a leg counts as absent from it.
    """
    return min(most, max(_LEAST_LEG, _LEG * limit))


def fused(legs: Sequence[Sequence[Hit]]) -> list[Hit]:
    """Return the reciprocal rank fusion of *legs*, each best first, with the fused scores."""
    scores = rank_fusion.fused(map(_key, leg) for leg in legs)
    hits = {_key(hit): hit for leg in reversed(legs) for hit in reversed(leg)}  # the first of each
    order = sorted(scores, key=lambda key: (-scores[key], key))
    return [hits[key]._replace(score=scores[key]) for key in order]


def _key(hit: Hit) -> tuple[str, int, str]:
    return hit.document, hit.tag.generation, hit.id


def first_depth(operation: Search) -> int:
    """Return how many hits a grouped ranking begins with."""
    return max(_LEAST, operation.k * max(2, operation.per_group))


def deeper(depth: int, most: int) -> int:
    """Return the next depth of a grouped ranking."""
    return min(most, depth * _DEEPER)


def grouped(hits: Sequence[Hit], operation: Search) -> Groups:
    """Return up to `per_group` hits of each of the best `k` documents, in the order of the scores."""
    counts: dict[str, int] = {}
    best_hits: list[Hit] = []
    for hit in hits:
        if hit.document not in counts and len(counts) == operation.k:
            continue
        position = counts.get(hit.document, 0)
        counts[hit.document] = position + 1
        if position < operation.per_group:
            best_hits.append(hit)
    full = len(counts) == operation.k and all(count >= operation.per_group for count in counts.values())
    return Groups(best_hits, full)
