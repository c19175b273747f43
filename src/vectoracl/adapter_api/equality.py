"""Equality of stored rows: when two stores, or a store and its input, hold the same metadata and the same vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import orjson

from vectoracl.adapter_api.chunk_validation import dump_metadata
from vectoracl.model.records import Vector

Metric = Literal["cosine", "inner", "l2"]

TOLERANCE = {"single": 1e-5, "half": 1e-3}
"""The largest difference of two numbers of a vector, relative to its largest one: a few units in the last place of
float32 (2**-24) or float16 (2**-11)."""
_WHOLE = 2.0**63  # from here on a number has no form as a whole one in JSON of 64 bits


def equal_metadata(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two checked mappings are stored alike."""
    return bool(one_form(orjson.loads(dump_metadata(one))) == one_form(orjson.loads(dump_metadata(other))))


def one_form(value: Any) -> Any:
    """Return *value* with each number in one form: a store may give 3 for 3.0, and 0 for -0.0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE:
        return int(value)
    if isinstance(value, list):
        return [one_form(one) for one in value]
    if isinstance(value, dict):
        return {name: one_form(one) for name, one in value.items()}
    return value


def vector_difference(one: Vector, other: Vector, metric: Metric) -> float:
    """Return the largest difference of two numbers, relative to the largest number; of directions for "cosine"."""
    if one.shape != other.shape:
        return float("inf")
    first, second = one.astype(np.float64), other.astype(np.float64)
    if metric == "cosine":
        first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
    largest = float(np.abs(first).max(initial=0.0))
    difference = float(np.abs(first - second).max(initial=0.0))
    return difference if largest == 0 else difference / largest
