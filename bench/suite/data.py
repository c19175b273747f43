"""Seeded synthetic rows and queries, and the exact answers by numpy.

Overlap: clusters that all tenants share; a query lies in a random cluster. Hostile: some clusters hold rows of other
tenants only, and the measured tenants' queries lie there, surrounded by rows that they may not see.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DIMENSION = 128
CHUNKS_OF_A_DOCUMENT = 20
_CLUSTERS = 256
_HOSTILE = 32
_SPREAD = 0.9
Array = NDArray[np.float32]


@dataclass
class Corpus:
    """`vectors` (n, d) with the tenant of each row; the id of a row is its index. `measured` names tenants by role."""

    vectors: Array
    tenant_of: NDArray[np.int32]
    measured: dict[str, int]
    centres: Array
    seed: int
    _rows: dict[int, NDArray[np.int64]] = field(default_factory=dict)

    def rows(self, tenant: int) -> NDArray[np.int64]:
        """Return the indices of a tenant's rows."""
        if tenant not in self._rows:
            self._rows[tenant] = np.flatnonzero(self.tenant_of == tenant)
        return self._rows[tenant]

    def queries(self, geometry: str, count: int) -> Array:
        """Return *count* queries, the same for every layout."""
        rng = np.random.default_rng([self.seed, 7, geometry == "hostile"])
        low, high = (0, _HOSTILE) if geometry == "hostile" else (_HOSTILE, _CLUSTERS)
        return _around(rng, self.centres, rng.integers(low, high, count))

    def nearest(self, tenant: int, query: Array, k: int) -> set[int]:
        """Return the ids of the tenant's *k* nearest rows, exactly."""
        rows = self.rows(tenant)
        similarity = self.vectors[rows] @ query
        best = np.argsort(-similarity, kind="stable")[:k]
        return {int(one) for one in rows[best]}

    def documents(self) -> list[tuple[int, NDArray[np.int64]]]:
        """Return (tenant, rows) of each document, in the order in which they arrive: mixed over the tenants."""
        found = []
        for tenant in np.unique(self.tenant_of):
            rows = self.rows(int(tenant))
            for start in range(0, len(rows), CHUNKS_OF_A_DOCUMENT):
                found.append((int(tenant), rows[start : start + CHUNKS_OF_A_DOCUMENT]))
        np.random.default_rng([self.seed, 3]).shuffle(found)
        return found


def name(tenant: int) -> str:
    """Return the tenant's id."""
    return f"t{tenant}"


def _around(rng: np.random.Generator, centres: Array, which: NDArray[np.int64]) -> Array:
    found = centres[which] + _SPREAD * rng.normal(size=(len(which), centres.shape[1])) / np.sqrt(centres.shape[1])
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def sizes(rows: int, tenants: int) -> list[int]:
    """Return Zipf sizes (exponent 1), largest first, that add up to *rows*; one tenant has exactly 0.5 %."""
    weights = 1 / np.arange(1, tenants + 1)
    found = [max(10, int(rows * one / weights.sum())) for one in weights]
    share = rows // 200
    found[int(np.argmin([abs(one - share) for one in found]))] = share
    found[-1] += max(0, rows - sum(found))
    return found


def make(rows: int, tenants: int, seed: int = 20) -> Corpus:
    """Make a corpus of about *rows* rows."""
    rng = np.random.default_rng(seed)
    counts = sizes(rows, tenants)
    share = rows // 200
    measured = {"largest": 0, "0.5 %": counts.index(share)}
    for role, part in (("2.5 %", 0.025), ("0.13 %", 0.0013), ("smallest", 0.0)):
        nearest = min(range(tenants), key=lambda one, part=part: abs(counts[one] - rows * part))
        measured.setdefault(role, nearest)
    centres = rng.normal(size=(_CLUSTERS, DIMENSION)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    tenant_of = np.repeat(np.arange(tenants, dtype=np.int32), counts)
    kept_out = np.isin(tenant_of, list(measured.values()))
    which = np.where(
        kept_out, rng.integers(_HOSTILE, _CLUSTERS, len(tenant_of)), rng.integers(0, _CLUSTERS, len(tenant_of))
    )
    # Half of the other tenants' rows crowd the hostile clusters.
    crowd = ~kept_out & (rng.random(len(tenant_of)) < 0.5)
    which[crowd] = rng.integers(0, _HOSTILE, int(crowd.sum()))
    return Corpus(_around(rng, centres, which), tenant_of, measured, centres, seed)
