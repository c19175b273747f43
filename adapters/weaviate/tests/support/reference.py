"""Rows and filters that a store and the reference are asked alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import strategies as st

from vectoracl import Chunk, F

FIELDS = {
    "year": "number",
    "lang": "keyword",
    "ok": "boolean",
    "when": "datetime",
    "tags": "keyword[]",
    "nums": "number[]",
}
START = datetime(2024, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
EDGES = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), START)
BIG = 2**53


def unit(rng: np.random.Generator, dimension: int = 8) -> np.ndarray:
    return rng.normal(size=dimension).astype(np.float32)


def rows(count: int, seed: int = 1) -> list[Chunk]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        metadata: dict[str, Any] = {"free": {"nested": [1, None, {"a": "b"}]}, "a.b": i, "kw_lang": "en", "": None}
        del metadata[""]
        if i % 3:
            metadata["year"] = [2019, 2020.5, 2021, -0.0, 1e15, BIG, BIG - 1, -BIG, 0.1 + 0.2][i % 9]
        if i % 4:
            metadata["lang"] = ["en", "fr", "EN", "é", "'; DROP --", "", "a.b[]"][i % 7]
        if i % 5:
            metadata["ok"] = bool(i % 2)
        if i % 6:
            metadata["when"] = EDGES[i % 3] if i % 7 == 0 else START + timedelta(microseconds=i % 4)
        if i % 7:
            metadata["tags"] = [["x"], ["x", "y"], ["%s", "z"], ["y", ""]][i % 4]
        if i % 2:
            metadata["nums"] = [[1, 2], [2.5], [3, BIG]][i % 3]
        # Documents that share their first six bytes, and some that do not.
        document = f"d{i % 5}" if i % 3 else f"https://host/{i % 4}"
        made.append(Chunk(f"c{i:03}", document, f"text {i}", unit(rng), position=i, metadata=metadata))
    return made


values = {
    "year": st.sampled_from([2019, 2020.5, 2021, 0, 1e15, 7, BIG, BIG - 1, -BIG, 0.1 + 0.2, 0.3]),
    "lang": st.sampled_from(["en", "fr", "EN", "é", "'; DROP --", "%s", "", "a.b[]"]),
    "ok": st.booleans(),
    "when": st.one_of(
        st.integers(0, 4).map(lambda micro: START + timedelta(microseconds=micro)), st.sampled_from(EDGES)
    ),
}
leaf = st.one_of(
    *(
        st.one_of(
            value.map(lambda one, name=name: F[name] == one),
            value.map(lambda one, name=name: F[name] != one),
            st.lists(value, max_size=3).map(lambda some, name=name: F[name].in_(some)),
            st.lists(value, max_size=3).map(lambda some, name=name: F[name].not_in(some)),
            st.just(F[name].is_missing()),
        )
        for name, value in values.items()
    ),
    values["year"].map(lambda one: F.year >= one),
    values["year"].map(lambda one: F.year < one),
    values["year"].map(lambda one: F.year > one),
    values["when"].map(lambda one: F.when > one),
    values["when"].map(lambda one: F.when <= one),
    st.lists(st.sampled_from(["x", "y", "z", "%s", "q", ""]), min_size=1, max_size=2).map(F.tags.contains_any),
    st.lists(st.sampled_from(["x", "y"]), min_size=1, max_size=2).map(F.tags.contains_all),
    st.lists(st.sampled_from([1, 2, 2.5, 9, BIG]), min_size=1, max_size=2).map(F.nums.contains_any),
    st.just(F.tags.is_missing()),
    st.sampled_from(["d0", "d1", "https://host/1", "nowhere"]).map(lambda one: F["@document"] == one),
    st.integers(0, 120).map(lambda one: F["@position"] >= one),
    st.floats(0, 120).map(lambda one: F["@position"] < one),
)
predicate = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        inner.map(lambda one: ~one),
    ),
    max_leaves=5,
)
# Hypothesis reads the lambdas' source now, before other threads run: CPython gh-106905 (SystemError in ast.parse).
predicate.validate()
