"""Hypothesis strategies: rows and filters with which an adapter's store is compared with the memory adapter.

The rows contain values at which stores fail (the largest exact integers, the first and the last datetime, text that is
a pattern or SQL elsewhere, a missing key), and the filters ask for these values. Both stores must give the same answer.

    @given(predicate)
    def test_a_filter_means_what_the_reference_means(where): assert ours.count(where) == memory.count(where)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from vectoracl import Chunk, F, Predicate
from vectoracl.model.records import Vector

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("vectoracl_conformance.strategies needs Hypothesis: pip install hypothesis") from error

FIELDS: Final[Mapping[str, str]] = {
    "year": "number",
    "lang": "keyword",
    "ok": "boolean",
    "when": "datetime",
    "tags": "keyword[]",
    "nums": "number[]",
}
"""The declared fields of the rows: `[stores.NAME.metadata]` of both stores."""
_START = datetime(2024, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
_EDGES = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), _START)
_BIG = 2**53


def unit(rng: np.random.Generator, dimension: int = 8) -> Vector:
    """Return a random vector of *dimension* numbers."""
    return rng.normal(size=dimension).astype(np.float32)


def rows(count: int, seed: int = 1) -> list[Chunk]:
    """Return *count* chunks with vectors of 8 numbers, the same ones for the same *seed*.

    They have the ids c000, c001, … in nine documents, each field of `FIELDS` is missing in some, and all hold metadata
    that is not declared, whose names are those of stores' own keys.
    """
    rng = np.random.default_rng(seed)
    chunks = []
    for i in range(count):
        metadata: dict[str, Any] = {"free": {"nested": [1, None, {"a": "b"}]}, "a.b": i, "kw_lang": "en"}
        if i % 3:
            metadata["year"] = [2019, 2020.5, 2021, -0.0, 1e15, _BIG, _BIG - 1, -_BIG, 0.1 + 0.2][i % 9]
        if i % 4:
            metadata["lang"] = ["en", "fr", "EN", "é", "'; DROP --", "", "a.b[]"][i % 7]
        if i % 5:
            metadata["ok"] = bool(i % 2)
        if i % 6:
            metadata["when"] = _EDGES[i % 3] if i % 7 == 0 else _START + timedelta(microseconds=i % 4)
        if i % 7:
            metadata["tags"] = [["x"], ["x", "y"], ["%s", "z"], ["y", ""]][i % 4]
        if i % 2:
            metadata["nums"] = [[1, 2], [2.5], [3, _BIG]][i % 3]
        # Documents that share their first six bytes, and some that do not.
        document = f"d{i % 5}" if i % 3 else f"https://host/{i % 4}"
        chunks.append(Chunk(f"c{i:03}", document, f"text {i}", unit(rng), position=i, metadata=metadata))
    return chunks


_VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "year": st.sampled_from([2019, 2020.5, 2021, 0, 1e15, 7, _BIG, _BIG - 1, -_BIG, 0.1 + 0.2, 0.3]),
    "lang": st.sampled_from(["en", "fr", "EN", "é", "'; DROP --", "%s", "", "a.b[]"]),
    "ok": st.booleans(),
    "when": st.one_of(
        st.integers(0, 4).map(lambda micro: _START + timedelta(microseconds=micro)), st.sampled_from(_EDGES)
    ),
}


def _comparisons(name: str) -> st.SearchStrategy[Predicate]:
    field, value = F[name], _VALUES[name]
    return st.one_of(
        value.map(lambda one: field == one),
        value.map(lambda one: field != one),
        st.lists(value, max_size=3).map(field.in_),
        st.lists(value, max_size=3).map(field.not_in),
        st.just(field.is_missing()),
    )


_LEAF: st.SearchStrategy[Predicate] = st.one_of(
    *map(_comparisons, _VALUES),
    _VALUES["year"].map(lambda one: F.year >= one),
    _VALUES["year"].map(lambda one: F.year < one),
    _VALUES["year"].map(lambda one: F.year > one),
    _VALUES["when"].map(lambda one: F.when > one),
    _VALUES["when"].map(lambda one: F.when <= one),
    st.lists(st.sampled_from(["x", "y", "z", "%s", "q", ""]), min_size=1, max_size=2).map(F.tags.contains_any),
    st.lists(st.sampled_from(["x", "y"]), min_size=1, max_size=2).map(F.tags.contains_all),
    st.lists(st.sampled_from([1, 2, 2.5, 9, _BIG]), min_size=1, max_size=2).map(F.nums.contains_any),
    st.just(F.tags.is_missing()),
    st.sampled_from(["d0", "d1", "https://host/1", "nowhere"]).map(lambda one: F["@document"] == one),
    st.integers(0, 120).map(lambda one: F["@position"] >= one),
    st.floats(0, 120).map(lambda one: F["@position"] < one),
)
_PREFIX = st.sampled_from(["e", "en", "E", "é", "'", "%", "a.b[", "a_b", "\\"]).map(F.lang.starts_with)


def _joined(leaf: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
            st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
            inner.map(lambda one: ~one),
        ),
        max_leaves=5,
    )


predicate: st.SearchStrategy[Predicate] = _joined(_LEAF)
"""Filters over `FIELDS`, a document and a position: up to five comparisons, joined and negated."""
predicate_with_prefixes: st.SearchStrategy[Predicate] = _joined(st.one_of(_LEAF, _PREFIX))
"""Those and `starts_with`, for a store that declares `StartsWith`."""
# Hypothesis reads the lambdas' source now, before other threads run: CPython gh-106905 (SystemError in ast.parse).
predicate_with_prefixes.validate()
predicate.validate()
