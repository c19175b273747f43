"""Numbers that are compared though a store may change them a little."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vectoracl_conformance.context.tolerance import Nearly

VECTORS = arrays(np.float64, st.integers(1, 8), elements=st.floats(-2, 2))


@given(VECTORS, st.floats(-0.9e-4, 0.9e-4))
def test_a_change_within_the_tolerance_is_none_wherever_a_boundary_of_rounding_lies(vector, change):
    assert Nearly(vector, 1e-4) == Nearly(vector + change, 1e-4)


@given(VECTORS, st.data())
def test_a_change_of_one_place_beyond_it_is_seen(vector, data):
    changed = vector.copy()
    changed[data.draw(st.integers(0, len(vector) - 1))] += data.draw(st.sampled_from([-1, 1])) * 2e-4
    assert Nearly(vector, 1e-4) != Nearly(changed, 1e-4)


@pytest.mark.parametrize("other", [Nearly([1.0, 2.0], 1), Nearly(float("nan"), 1), 1.0, None])
def test_another_shape_or_kind_is_not_equal(other):
    assert Nearly(1.0, 1) != other
