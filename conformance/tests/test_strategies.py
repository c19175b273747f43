"""The drawn rows and filters; the test that the guide shows, here with the memory adapter on both sides."""

from __future__ import annotations

import importlib
import sys

import pytest
from hypothesis import find, given

import vectoracl
from vectoracl import testing
from vectoracl.filters.predicate import ContainsAny, Eq, In, Missing, Not, Or, Range, StartsWith
from vectoracl_conformance.strategies import FIELDS, predicate, predicate_with_prefixes, rows

STORE = {"adapter": "memory", "dimension": 8, "metadata": FIELDS}
ANN = testing.principal("ann", "acme")


@pytest.fixture(scope="module")
def ours():
    with vectoracl.connect({"version": 1, "stores": {"main": STORE}}) as acl:
        docs = acl.scoped(ANN)
        docs.upsert(rows(120))
        yield docs


memory = ours


@given(predicate_with_prefixes)
def test_a_filter_means_what_the_reference_means(ours, memory, where):
    wanted = [(hit.id, hit.document) for hit in memory.scan(where)]
    assert [(hit.id, hit.document) for hit in ours.scan(where)] == wanted
    assert ours.count(where) == len(wanted)


@pytest.mark.parametrize("node", [ContainsAny, Eq, In, Missing, Not, Or, Range, StartsWith])
def test_every_kind_of_filter_is_drawn(node):
    find(predicate_with_prefixes, lambda one: isinstance(one, node))


def test_filters_are_drawn_that_tell_rows_apart(ours):
    where = find(predicate, lambda one: 0 < ours.count(one) < 120 and ours.count(~one) > 0)
    assert ours.count(where) + ours.count(~where) == 120


def test_the_rows_are_the_same_for_the_same_seed_and_miss_each_field_somewhere():
    one, other = rows(120), rows(120)
    assert [chunk.metadata for chunk in one] == [chunk.metadata for chunk in other]
    assert all((a.vector == b.vector).all() for a, b in zip(one, other, strict=True))
    assert not (rows(1, seed=2)[0].vector == one[0].vector).all()
    for field in FIELDS:
        assert 0 < sum(field in chunk.metadata for chunk in one) < 120
    assert len({chunk.document for chunk in one}) == 9


def test_without_hypothesis_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "vectoracl_conformance.strategies")
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match="pip install hypothesis"):
        importlib.import_module("vectoracl_conformance.strategies")
