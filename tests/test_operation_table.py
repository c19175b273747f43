"""One table holds all operations, and what has to know every one of them reads it."""

from __future__ import annotations

from typing import get_args

import pytest

from vectoracl import ALL_ACTIONS, WRITE, UnsupportedPredicateError
from vectoracl.adapter_api.contract import flow_of
from vectoracl.adapter_api.operations import METHODS, OPERATIONS, Count, Facets, Operation
from vectoracl.filters.predicate import ALWAYS
from vectoracl.memory.adapter import MemoryAdapter
from vectoracl.memory.config import MemoryConfig


def test_the_table_has_every_operation_once():
    assert set(OPERATIONS) == set(get_args(Operation))
    assert len(METHODS) == len(OPERATIONS)
    assert {kind.action for kind in OPERATIONS.values()} == ALL_ACTIONS
    assert {kind.method for kind in OPERATIONS.values() if kind.writes} == WRITE


def test_the_reference_has_a_flow_of_each():
    adapter = MemoryAdapter(MemoryConfig(dimension=8), {})
    assert all(callable(getattr(adapter, method)) for method in METHODS)
    (request,) = flow_of(adapter, Count("acme", ALWAYS, ALWAYS))
    assert request.partition == "acme"


def test_an_adapter_without_such_a_flow_is_refused():
    with pytest.raises(UnsupportedPredicateError) as refused:
        flow_of(object(), Facets("acme", ALWAYS, ALWAYS, "lang"))
    assert refused.value.field == "facets"
