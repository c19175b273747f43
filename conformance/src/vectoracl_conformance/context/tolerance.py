"""Comparison of numbers that a store may return slightly changed, since it scales vectors or sums in another order.

Rounding before the comparison does not work: two almost equal numbers can be on different sides of a boundary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


class Nearly:
    """A number or vector that equals another one within *apart*, in every place."""

    __hash__ = None  # type: ignore[assignment]  # what is nearly equal has no common hash

    def __init__(self, value: ArrayLike, apart: float) -> None:
        self.value = np.asarray(value, np.float64)
        self.apart = apart

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Nearly):
            return NotImplemented
        return self.value.shape == other.value.shape and bool(
            np.all(np.abs(self.value - other.value) <= max(self.apart, other.apart))
        )

    def __repr__(self) -> str:
        return str(np.round(self.value, 6).tolist())
