"""Drawn filters: trees in any order, and leaves whose values a store may confuse with those of other rows."""

import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectoracl import Chunk
from vectoracl.filters.predicate import And, ContainsAny, Eq, In, Missing, Not, Or, Range, StartsWith, operands_of
from vectoracl_conformance.checks.reference_checks import _memory_capabilities
from vectoracl_conformance.generated.confusions import confusions, pattern
from vectoracl_conformance.generated.filters import SHAPES, VARIANTS, Rows, arranged, weakened
from vectoracl_conformance.generated.scopes import SCOPE_LEAVES, Ground, declared
from vectoracl_conformance.generated.values import Draw
from vectoracl_conformance.generated.world import build_world
from vectoracl_conformance.harness import Needs
from vectoracl_conformance.harnesses.memory import MemoryStore

CAPABILITIES = replace(_memory_capabilities(MemoryStore(Needs(8, {}))), dimension=8)
ALL = [dict(zip("abcd", values, strict=True)) for values in product((False, True), repeat=4)]
BITS = Rows("t", [Chunk(str(n), "d", "", np.ones(2), 0, one) for n, one in enumerate(ALL)], {})
A, B, C, D = (Eq(name, value=True) for name in "abcd")

LEAF = st.sampled_from([A, B, C, D])
TREE = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: And(tuple(some))),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: Or(tuple(some))),
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(TREE, st.randoms(use_true_random=False))
def test_the_order_of_operands_changes_no_meaning(tree, rng):
    moved = arranged(tree, rng)
    assert (BITS.mask(moved) == BITS.mask(tree)).all()
    assert sorted(map(str, leaves(moved))) == sorted(map(str, leaves(tree)))


def leaves(predicate):
    inner = operands_of(predicate)
    return [leaf for one in inner for leaf in leaves(one)] if inner else [predicate]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (And((Or((A, B)), C)), Or((A, And((B, C))))),
        (And((A, Or((B, C)))), Or((And((A, B)), C))),
        (And((A, Or((B, C)), D)), Or((And((A, B)), And((C, D))))),
        (Or((A, And((B, C)))), And((Or((A, B)), C))),
        (Not(Or((A, B))), Or((Not(A), B))),
        (Not(And((A, B))), And((Not(A), B))),
    ],
)
def test_a_tree_without_its_parentheses_is_one_of_its_weakened_forms(right, wrong):
    assert wrong in list(weakened(right))


def drawn_forms(shape, count=400):
    rng = random.Random(7)
    ways = [one.make for one in VARIANTS.get(shape, ())]
    forms = set()
    for _ in range(count):
        leaf, other = rng.choice([A, B]), lambda: rng.choice([C, D, Range("n", gt=rng.randrange(50))])
        made = rng.choice(ways)(leaf, other, other) if ways and rng.random() < 0.6 else SHAPES[shape].make(leaf, other)
        forms.add(form(arranged(made, rng)))
    return forms


def form(predicate):
    inner = operands_of(predicate)
    return f"{type(predicate).__name__}({', '.join(map(form, inner))})" if inner else "leaf"


def test_an_or_comes_first_last_and_deeper_in_an_and():
    forms = drawn_forms("Or in And")
    assert {one for one in forms if one.startswith("And(Or(leaf, leaf), ")}
    assert {one for one in forms if one.startswith("And(") and one.endswith("Or(leaf, leaf))")}
    assert {one for one in forms if one.startswith("Or(") and "And(" in one}
    assert len(forms) > 40


def rows(*values, field="f"):
    return Rows("t", [Chunk(str(n), "d", "", np.ones(2), 0, {field: one}) for n, one in enumerate(values)], {})


@pytest.mark.parametrize(
    ("leaf", "other", "shown"),
    [
        (Eq("f", "d1"), "d10", "beginning"),
        (Eq("f", "d10"), "d1", "longer"),
        (Eq("f", "ab"), "aB", "case"),
        (Eq("f", "ab"), "ab ", "blanks"),
        (Eq("f", "é"), "e\u0301", "form"),
        (Eq("f", "é"), "e", "accents"),
        (Eq("f", "a_c"), "abc", "pattern"),
        (Eq("f", "x" * 70), "x" * 60 + "y", "first 60"),
        (Eq("f", 2.5), 2.25, "whole"),
        (Eq("f", 16_777_217), 16_777_216, "single precision"),
        (In("f", ("a", "B")), "b", "case"),
        (ContainsAny("f", ("a",)), ["A", "c"], "case"),
        (StartsWith("f", "ab"), "cab", "inside"),
        (StartsWith("f", "a%"), "abc", "pattern"),
        (Range("f", gt=3), 3, "bound"),
        (Missing("f"), "", "empty"),
    ],
)
def test_a_leaf_shows_what_its_value_may_be_taken_for(leaf, other, shown):
    assert shown in confusions(leaf, rows(getattr(leaf, "value", None), other))
    assert shown not in confusions(leaf, rows("quite another", 1_000.0, ["else"]))


def test_a_pattern_is_that_of_like():
    assert [one for one in ("ab", "axb", "a%b", "b") if pattern("a%b")(one)] == ["ab", "axb", "a%b"]
    assert [one for one in ("ab", "a.b", "a_b") if pattern("a_b")(one)] == ["a.b", "a_b"]
    assert not pattern("a.b")("axb")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_leaves_of_a_large_tenant_show_many_confusions(seed):
    world = build_world(seed, CAPABILITIES, size="quick", metrics=["cosine"])
    ground = Ground(world, CAPABILITIES)
    own = ground.rows[world.sized(303)]
    shown = {}
    for kind in declared(SCOPE_LEAVES, CAPABILITIES):
        for place in range(60):
            leaf = ground.leaf(kind, own, Draw(seed, f"{kind}{place}"))
            shown.setdefault(type(leaf).__name__, set()).update(confusions(leaf, own))
    assert shown["Eq"] >= {"case", "blanks", "letters", "beginning", "longer"}
    assert shown["In"] >= {"case", "letters"}
    assert shown["StartsWith"] >= {"case"}
    assert "bound" in shown["Range"]
    documents = [ground.leaf("@document", own, Draw(seed, str(place))) for place in range(60)]
    assert any("beginning" in confusions(leaf, own) for leaf in documents)
