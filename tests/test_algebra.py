"""The algebra over compiled conditions: constants fold away, and what is left means what the predicate means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectoracl.errors import UnsupportedPredicateError
from vectoracl.filters.boolean_compiler import ALL_ROWS, NO_ROWS, BooleanCompiler, bounds, kind_of, numbers, texts
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import ALWAYS, NEVER, And, Eq, Missing, Not, Or, Predicate, Range

# A condition is a function of the row, and the text of how it was made.
WORDS = BooleanCompiler(
    all_of=lambda parts: ("all", *parts),
    one_of=lambda parts: ("one", *parts),
    negated=lambda part: ("not", part),
)
leaves = st.sampled_from([Eq("a", "x"), Eq("b", "x"), Eq("c", "x")])
predicates = st.recursive(
    st.one_of(leaves, st.just(ALWAYS), st.just(NEVER), st.just(Missing("@document"))),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda some: And(tuple(some))),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: Or(tuple(some))),
        inner.map(Not),
    ),
)


def meaning(predicate: Predicate, row: frozenset[str]) -> bool:
    match predicate:
        case And(operands):
            return all(meaning(one, row) for one in operands)
        case Or(operands):
            return any(meaning(one, row) for one in operands)
        case Not(operand):
            return not meaning(operand, row)
        case Eq(name):
            return name in row
    return predicate == ALWAYS


def said(condition, row):
    match condition:
        case bool():
            return condition
        case ("all", *parts):
            return all(said(one, row) for one in parts)
        case ("one", *parts):
            return any(said(one, row) for one in parts)
        case ("not", part):
            return not said(part, row)
        case ("has", name):
            return name in row
        case ("lacks", name):
            return name not in row
    raise AssertionError(condition)


def walk(condition):
    yield condition
    if isinstance(condition, tuple) and condition[0] in ("all", "one", "not"):
        for part in condition[1:]:
            yield from walk(part)


rows = st.frozensets(st.sampled_from("abc"))


@given(predicates, rows)
def test_both_forms_mean_what_the_predicate_means(predicate, row):
    whole = WORDS.compile(predicate, lambda one: ("has", one.field))
    pushed = WORDS.compile_pushed(predicate, lambda one, negated: ("lacks" if negated else "has", one.field))
    assert said(whole, row) == said(pushed, row) == meaning(predicate, row)
    for condition in (whole, pushed):
        inner = list(walk(condition))[1:]
        assert not any(isinstance(one, bool) for one in inner), "a constant inside of a condition"
        assert all(len(one) > 2 for one in [condition, *inner] if isinstance(one, tuple) and one[0] in ("all", "one"))
    assert not any(isinstance(one, tuple) and one[0] == "not" for one in walk(pushed))
    denied = WORDS.compile_pushed(
        predicate, lambda one, negated: ("lacks" if negated else "has", one.field), negated=True
    )
    assert said(denied, row) != meaning(predicate, row)


def test_of_nothing_all_is_every_row_and_one_of_them_is_none():
    assert WORDS.every([]) is ALL_ROWS
    assert WORDS.some([]) is NO_ROWS
    assert WORDS.every([("has", "a")]) == ("has", "a")
    assert WORDS.none(ALL_ROWS) is NO_ROWS
    assert WORDS.none(NO_ROWS) is ALL_ROWS


def test_a_part_that_cannot_be_said_is_refused_beside_a_constant_too():
    def refuse(*_):
        raise UnsupportedPredicateError("no form")

    for predicate in (And((NEVER, Eq("a", "x"))), Or((ALWAYS, Eq("a", "x")))):
        with pytest.raises(UnsupportedPredicateError):
            WORDS.compile(predicate, refuse)
        with pytest.raises(UnsupportedPredicateError):
            WORDS.compile_pushed(predicate, refuse)


def test_values_and_bounds():
    values = ("x", 1, True, 2.5)
    assert texts(values) == ["x"]
    assert numbers(values) == [1, 2.5]
    assert bounds(Range("a", gt=1, lte=2)) == {"gt": 1, "lte": 2}
    assert kind_of("@rev", {}) is FieldType.NUMBER
    assert kind_of("year", {"year": FieldType.NUMBER}) is FieldType.NUMBER
    with pytest.raises(UnsupportedPredicateError):
        kind_of("year", {})
