"""The share of a worker in a job over documents: every document of a tenant belongs to exactly one share.

A document's place is a number from a digest of tenant and document, so it is the same on every machine and does not
depend on the number of shares. All chunks of a document have one place: their order is kept, and two of them are never
written by two workers.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from vectoracl.errors import InvalidInputError

WHOLE = 1 << 32
"""Places are whole numbers from 0 up to, but without, this one."""
PLACE_BYTES = 4


def place_of(tenant: str, document: str) -> int:
    """Return the place of a document: the first four bytes of SHA-256 over the tenant, a zero byte and the document."""
    raw = tenant.encode(errors="surrogatepass") + b"\0" + document.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(raw).digest()[:PLACE_BYTES])


@dataclass(frozen=True, slots=True)
class Share:
    """The documents with a place from `low` to below `high`.

    `tenants` are the tenants with rows in it and their numbers, if the plan of the job has counted them.
    """

    low: int = 0
    high: int = WHOLE
    tenants: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= WHOLE:
            raise InvalidInputError(f"A share lies between 0 and {WHOLE}, and has a low end below its high one.")

    def has(self, tenant: str, document: str) -> bool:
        """Return whether the document is one of this share."""
        return self.low <= place_of(tenant, document) < self.high


def shares(count: int) -> list[Share]:
    """Return *count* shares of equal size that together are everything."""
    bounds = [index * WHOLE // count for index in range(count + 1)]
    return [Share(low, high) for low, high in pairwise(bounds)]


class ShareCounter:
    """Counts the rows of each tenant in each of some shares, which do not overlap and are in order."""

    def __init__(self, parts: Sequence[Share]) -> None:
        self._parts = parts
        self._lows = [one.low for one in parts]
        self._tenants: list[dict[str, int]] = [{} for _ in parts]

    def take(self, tenant: str, document: str) -> None:
        """Count one more row of the document."""
        place = place_of(tenant, document)
        index = bisect_right(self._lows, place) - 1
        if index >= 0 and place < self._parts[index].high:
            counts = self._tenants[index]
            counts[tenant] = counts.get(tenant, 0) + 1

    def shares(self) -> list[Share]:
        """Return the shares with their tenants."""
        return [
            replace(part, tenants=dict(sorted(tenants.items())))
            for part, tenants in zip(self._parts, self._tenants, strict=True)
        ]
