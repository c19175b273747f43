"""Judging a hybrid query: its scores come from ranks, and near ties change ranks.

A fused score is the sum of 1 / (60 + rank) over the legs, in one partition. Two rows whose similarity is equal to the
precision of the store may swap their ranks, and a leg need not be read further than a search asks for. So each row has
a lowest and a highest right score, from the reference's ranking by each leg alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vectoracl.model.queries import RRF_K
from vectoracl.model.records import Hit
from vectoracl_conformance.generated.content import Key, Precision, key, named

_EXACT = 2e-6
"""The largest error of a fused score, which may have been added up in single precision."""
Range = tuple[float, float]


def ranges(legs: Sequence[Sequence[Hit]], depth: int, precision: Precision) -> dict[Key, Range]:
    """Return the lowest and the highest right score of each row, whose rank is that in its own partition.

    Args:
        legs: The rows of all partitions by each leg alone, with scores.
        depth: How many rows of a leg count for certain.
        precision: How exactly the store ranks.
    """
    found: dict[Key, Range] = {}
    for leg in (part for every in legs for part in _by_partition(every)):
        scores = np.sort(np.array([hit.score for hit in leg]))
        for hit in leg:
            near = precision.around(hit.score)
            best = len(leg) - int(np.searchsorted(scores, hit.score + near, side="right")) + 1
            worst = len(leg) - int(np.searchsorted(scores, hit.score - near, side="left"))
            low, high = found.get(key(hit), (0.0, 0.0))
            found[key(hit)] = low + (1 / (RRF_K + worst) if worst <= depth else 0.0), high + 1 / (RRF_K + best)
    return found


def _by_partition(leg: Sequence[Hit]) -> Iterable[Sequence[Hit]]:
    """Divide a leg: each partition is searched, and fused, by itself, and only then are their hits merged."""
    parts: dict[str, list[Hit]] = {}
    for hit in leg:
        parts.setdefault(hit.tenant, []).append(hit)
    return parts.values()


def score_problem(got: Sequence[Hit], right: Mapping[Key, Range]) -> str | None:
    """Say which hit has a score that it cannot have, or None."""
    for hit in got:
        low, high = right.get(key(hit), (0.0, 0.0))
        if not low - _EXACT <= hit.score <= high + _EXACT:
            return f"the fused score of {named(hit)} is {hit.score:.6f}, which is not between {low:.6f} and {high:.6f}"
    return None


def missing_problem(got: Sequence[Hit], right: Mapping[Key, Range]) -> str | None:
    """Say which row is missing although its lowest score is above that of the last hit, or None."""
    if not got:
        return None
    keys = {key(hit) for hit in got}
    last = min(hit.score for hit in got)
    for place, (low, _) in right.items():
        if place not in keys and low > last + _EXACT:
            return f"{named(place)} is missing, whose fused score is at least {low:.6f}"
    return None
