"""The algebra: one meaning, checked against an independent evaluator; limits; what raises, and with which cure."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vectoracl import (
    ALWAYS,
    NEVER,
    F,
    FieldType,
    InvalidInputError,
    Predicate,
    RefusedError,
    ReservedFieldError,
    Tag,
    UnsupportedPredicateError,
)
from vectoracl.filters import predicate as p
from vectoracl.filters.semantics import matches
from vectoracl.filters.validation import MAX_NODES, check_fields, check_filter, check_scope_predicate, fields_of

FIELDS = check_fields(
    {
        "lang": "keyword",
        "year": "number",
        "public": "boolean",
        "seen": "datetime",
        "tags": "keyword[]",
        "sizes": "number[]",
    }
)
TAG = Tag("acme", "doc", "c1")
WORDS = ["", "en", "de", "1", "True", "EN", "é"]
NUMBERS = [-1, 0, 1, 1.0, 0.5, 2, 2**53, -(2**53)]
MOMENTS = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=h) for h in range(3)]
VALUES = {
    "lang": st.sampled_from(WORDS),
    "year": st.sampled_from(NUMBERS),
    "public": st.booleans(),
    "seen": st.sampled_from(MOMENTS),
    "tags": st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    "sizes": st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=3),
}
rows = st.fixed_dictionaries({}, optional=VALUES)


def leaf(name):
    one = VALUES[name]
    field = F[name]
    bare = [st.just(field.is_missing()), st.just(field.exists())]
    if FIELDS[name].is_list:
        element = st.sampled_from(WORDS if name == "tags" else NUMBERS)
        return st.one_of(
            element.map(field.contains),
            st.lists(element, max_size=3).map(field.contains_any),
            st.lists(element, min_size=1, max_size=3).map(field.contains_all),
            *bare,
        )
    kinds = [
        one.map(lambda value: field == value),
        one.map(lambda value: field != value),
        st.lists(one, max_size=3).map(field.in_),
        st.lists(one, max_size=3).map(field.not_in),
        *bare,
    ]
    if name == "lang":
        kinds.append(st.sampled_from(["e", "en", "E", "1", "é", "e\u0301"]).map(field.starts_with))
    if name in ("year", "seen"):
        kinds += [
            one.map(lambda value: field < value),
            one.map(lambda value: field <= value),
            one.map(lambda value: field > value),
            one.map(lambda value: field >= value),
            st.builds(lambda a, b: p.Range(name, gte=a, lt=b), one, one),
        ]
    return st.one_of(kinds)


leaves = st.one_of(*(leaf(name) for name in VALUES), st.just(ALWAYS), st.just(NEVER))
# Raw nodes, not through the operators, so that simplification has something to lose.
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: p.And(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: p.Or(tuple(parts))),
        inner.map(p.Not),
    ),
    max_leaves=8,
)


ONE_OF_EACH = [
    p.NEVER,
    p.ALWAYS,
    F.lang == "en",
    F.lang.in_(["en", "de"]),
    F.year > 1,
    F.tags.contains("en"),
    F.lang.starts_with("e"),
    F.year.is_missing(),
    p.And((F.year > 1, F.lang == "en")),
    p.Or((F.year > 1, F.lang == "en")),
    p.Not(F.lang == "en"),
]


def test_there_is_one_of_each_node():
    assert {type(one) for one in ONE_OF_EACH} == set(p.NODES)


@pytest.mark.parametrize("node", ONE_OF_EACH, ids=lambda one: type(one).__name__)
def test_every_node_is_written_read_checked_and_has_a_meaning(node):
    assert Predicate.from_dict(node.to_dict()) == node
    assert check_filter(node, FIELDS) == node
    assert matches(node, TAG, {}) in (True, False)
    assert p.node_of(node) is node
    inner = p.operands_of(node)
    assert fields_of(node) == (frozenset().union(*map(fields_of, inner)) if inner else fields_of(node))
    assert type(node) in (p.Never, p.Always) or fields_of(node)


def test_a_node_from_elsewhere_is_refused():
    class Strange(Predicate):
        pass

    for read in (lambda: matches(Strange(), TAG, {}), Strange().to_dict, lambda: fields_of(Strange())):
        with pytest.raises(InvalidInputError, match="not a part of the algebra"):
            read()


@pytest.mark.parametrize(
    ("prefix", "begins"),
    [("%", False), ("_", False), ("Ca", False), ("caf", True), ("café", True), ("cafe", False), ("café noir", False)],
)
def test_a_prefix_is_compared_character_by_character(prefix, begins):
    assert matches(F.lang.starts_with(prefix), TAG, {"lang": "café"}) is begins
    assert not matches(F.lang.starts_with(prefix), TAG, {})
    assert not matches(F.lang.starts_with("c"), TAG, {"lang": 1})
    assert not matches(F.lang.starts_with("c"), TAG, {"lang": ["café"]})


@pytest.mark.parametrize("prefix", ["", "x" * 1025, "a\0b", 1, None, ["a"], b"a"])
def test_what_is_not_a_prefix_is_refused(prefix):
    with pytest.raises(InvalidInputError):
        F.lang.starts_with(prefix)
    with pytest.raises(InvalidInputError):
        Predicate.from_dict({"field": "lang", "op": "starts_with", "value": prefix})


@pytest.mark.parametrize("name", ["year", "public", "seen", "tags", "sizes", "@position", "nowhere"])
def test_only_a_keyword_starts_with_something(name):
    with pytest.raises(UnsupportedPredicateError):
        check_filter(F[name].starts_with("a"), FIELDS)


def kind_of(value):
    """Which values are comparable: never a boolean with a number, never a number with text."""
    return "bool" if type(value) is bool else "number" if type(value) in (int, float) else type(value).__name__


def same(left, right):
    return kind_of(left) == kind_of(right) and left == right


def naive(node, row):
    """The meaning again, written from the documentation alone."""
    name = getattr(node, "field", None)
    there = name in row
    found = row.get(name)
    kind = type(node).__name__
    if kind in ("Always", "Never"):
        return kind == "Always"
    if kind == "And":
        return all(naive(one, row) for one in node.operands)
    if kind == "Or":
        return any(naive(one, row) for one in node.operands)
    if kind == "Not":
        return not naive(node.operand, row)
    if kind == "Missing":
        return not there
    if not there:
        return False
    if kind == "StartsWith":
        return isinstance(found, str) and found[: len(node.prefix)] == node.prefix
    if kind == "Eq":
        return same(found, node.value)
    if kind == "In":
        return any(same(found, one) for one in node.values)
    if kind == "ContainsAny":
        return isinstance(found, list) and any(same(have, want) for have in found for want in node.values)
    assert kind == "Range"
    for side, holds in (
        ("gt", lambda a, b: a > b),
        ("gte", lambda a, b: a >= b),
        ("lt", lambda a, b: a < b),
        ("lte", lambda a, b: a <= b),
    ):
        bound = getattr(node, side)
        if bound is not None and not (kind_of(found) == kind_of(bound) and holds(found, bound)):
            return False
    return True


@given(trees, rows)
def test_meaning_is_the_documented_one(tree, row):
    assert matches(tree, TAG, row) is naive(tree, row)


@given(trees, rows)
def test_two_valued(tree, row):
    assert matches(tree, TAG, row) is not matches(~tree, TAG, row)
    assert matches(tree, TAG, row) is not matches(p.Not(tree), TAG, row)


@given(st.lists(trees, max_size=4), rows)
def test_simplification_keeps_the_meaning(parts, row):
    assert matches(p.conjunction(parts), TAG, row) is all(naive(one, row) for one in parts)
    assert matches(p.disjunction(parts), TAG, row) is any(naive(one, row) for one in parts)
    for left, right in itertools.pairwise(parts):
        assert matches(left & right, TAG, row) is (naive(left, row) and naive(right, row))
        assert matches(left | right, TAG, row) is (naive(left, row) or naive(right, row))


@given(trees, rows)
def test_json_round_trip_keeps_the_meaning(tree, row):
    read = Predicate.from_dict(tree.to_dict())
    checked = check_filter(read, FIELDS)
    assert matches(checked, TAG, row) is naive(tree, row)
    # What was read once no longer changes.
    again = check_filter(Predicate.from_dict(checked.to_dict()), FIELDS)
    assert again.to_dict() == Predicate.from_dict(again.to_dict()).to_dict()


@given(trees, rows)
def test_the_check_keeps_the_meaning(tree, row):
    assert matches(check_filter(tree, FIELDS), TAG, row) is naive(tree, row)


@given(trees)
def test_equal_predicates_are_equal_keys(tree):
    assert hash(tree) == hash(check_filter(tree, FIELDS)) or tree != check_filter(tree, FIELDS)


@pytest.mark.parametrize("stored", [True, 1, 1.0, "1", "True", [1], ["1"]], ids=repr)
@pytest.mark.parametrize("asked", [True, 1, "1", "True"], ids=repr)
def test_types_are_strict(stored, asked):
    row = {"x": stored}
    expected = same(stored, asked)
    assert matches(F.x == asked, TAG, row) is expected
    assert matches(F.x.in_([asked]), TAG, row) is expected
    assert matches(F.x != asked, TAG, row) is not expected
    assert matches(F.x.contains(asked), TAG, row) is (isinstance(stored, list) and same(stored[0], asked))


def test_missing_makes_every_comparison_false():
    tests = [F.x == 1, F.x != 1, F.x < 1, F.x >= 1, F.x.in_([1]), F.x.not_in([1]), F.x.not_in([]), F.x.contains(1)]
    assert [matches(one, TAG, {}) for one in tests] == [False] * len(tests)
    assert matches(F.x.is_missing(), TAG, {})
    assert not matches(F.x.exists(), TAG, {})
    assert matches(F.x.not_in([]), TAG, {"x": 1})
    assert matches(~(F.x == 1), TAG, {})


def test_the_tag_is_read_by_its_own_names():
    tag = Tag("acme", "doc", "c1", position=3)
    assert matches(F["@document"] == "doc", tag, {"@document": "other", "document": "other"})
    assert not matches(F["document"] == "doc", tag, {})
    assert matches(F["@docgen"] == tag.docgen, tag, {})
    assert matches(F["@position"] > 2, tag, {})


def test_empty_lists():
    assert F.x.in_([]) == NEVER
    assert F.x.contains_any([]) == NEVER
    with pytest.raises(InvalidInputError, match="every row"):
        F.x.contains_all([])


@pytest.mark.parametrize(
    ("write", "cure"),
    [
        (lambda: (F.a == 1) and (F.b == 2), "use &"),
        (lambda: (F.a == 1) or (F.b == 2), "use &"),
        (lambda: not (F.a == 1), "~ for not"),  # noqa: SIM201 - the mistake itself
        (lambda: not F.a, "compare it"),
        (lambda: 1 < F.a < 5, r"\(F.x > 1\) & \(F.x < 5\)"),
        (lambda: F.a in [1, 2], "truth value"),
        (lambda: F.a == None, "is_missing"),  # noqa: E711 - the mistake itself
        (lambda: F.a != None, "is_missing"),  # noqa: E711
        (lambda: F.a == {}, "dict"),
        (lambda: F.a == [1], "list"),
        (lambda: F.a == F.b, "Field"),
        (lambda: F.a == (1,), "tuple"),
        (lambda: (F.a == 1) & F.b, "Compare the field"),
        (lambda: (F.a == 1) & True, "bool"),
        (lambda: p.conjunction([None]), "NoneType"),
        (lambda: p.disjunction([{}]), "dict"),
        (lambda: (F.a == 1) | None, "NoneType"),
        (lambda: (F.a == 1) & {}, "dict"),
        (lambda: F.a < "b", "have an order"),
        (lambda: F.a >= True, "have an order"),
        (lambda: F.a == float("nan"), "finite"),
        (lambda: F.a < float("inf"), "finite"),
        (lambda: F.a == 2**53 + 1, "2\\*\\*53"),
        (lambda: F.a == -(2**60), "2\\*\\*53"),
        (lambda: F.a == datetime(2020, 1, 1), "time zone"),
        (lambda: F.a == "\0", "NUL"),
        (lambda: F.a == "\ud800", "surrogate"),
        (lambda: F.a == "x" * 1025, "limit"),
        (lambda: F.a == b"x", "bytes"),
        (lambda: F.a == np.array([1]), "ndarray"),
        (lambda: F.a == np.array([1, 2]), "ndarray"),
        (lambda: F.a.in_("abc"), "list of values"),
        (lambda: F.a.in_(7), "list of values"),
        (lambda: F.a.in_([[1]]), "list"),
        (lambda: F.a.in_(range(10_001)), "at most"),
        (lambda: F[""], "non-empty"),
        (lambda: F[7], "non-empty"),
        (lambda: F["a\0"], "NUL"),
        (lambda: p.And(()), "operand"),
        (lambda: p.Or(()), "operand"),
        (lambda: p.And(((F.a == 1), {})), "dict"),
        (lambda: p.Not(None), "NoneType"),
        (lambda: p.Range("a"), "bound"),
        (lambda: p.In("a", ()), "value"),
        (lambda: p.ContainsAny("a", ()), "value"),
    ],
)
def test_mistakes_carry_the_cure(write, cure):
    with pytest.raises(RefusedError, match=cure):
        write()


def test_a_field_is_no_key():
    with pytest.raises(TypeError):
        hash(F.a)


def test_numpy_scalars_are_pythons():
    assert (F.a == np.int64(3)) == (F.a == 3)
    assert type((F.a == np.int64(3)).value) is int
    assert type((F.a == np.bool_(True)).value) is bool
    assert type((F.a == np.str_("x")).value) is str


class SlyStr(str):
    __slots__ = ()

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("en")


class SlyInt(int):
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1

    def __abs__(self):
        return 0


class SlyFloat(float):
    def __add__(self, other):
        return self

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


class SlyMoment(datetime):
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


@pytest.mark.parametrize(
    ("sly", "plain"),
    [
        (SlyStr("de"), "de"),
        (SlyInt(7), 7),
        (SlyFloat(0.5), 0.5),
        (SlyMoment(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)),
    ],
)
def test_values_are_of_no_subclass(sly, plain):
    made = (F.x == sly).value
    assert type(made) is type(plain)
    assert made == plain
    assert not matches(
        F.x == sly, TAG, {"x": type(plain)(2021, 1, 1, tzinfo=UTC) if type(plain) is datetime else type(plain)("9")}
    )
    assert matches(F.x.in_([sly]), TAG, {"x": plain})
    assert type(F[SlyStr("de")].name) is str


def test_a_subclass_cannot_pass_the_limit_of_integers():
    with pytest.raises(InvalidInputError):
        F.x == SlyInt(2**60)  # noqa: B015 - it raises


class NoOffset(tzinfo):
    def utcoffset(self, _moment):
        return None


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2020, 1, 1, tzinfo=NoOffset()),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_moments_without_a_utc_form(moment):
    with pytest.raises(InvalidInputError):
        F.x == moment  # noqa: B015 - it raises


def test_moments_are_compared_in_utc():
    east = datetime(2020, 1, 1, 5, tzinfo=timezone(timedelta(hours=5)))
    assert (F.x == east) == (F.x == datetime(2020, 1, 1, tzinfo=UTC))
    assert (F.x == east).to_dict()["value"] == "2020-01-01T00:00:00.000000Z"


def test_depth_is_limited():
    deep = F.year == 1
    for _ in range(p.MAX_DEPTH - 1):
        deep = p.Not(deep)
    assert deep.depth == p.MAX_DEPTH
    assert check_filter(Predicate.from_dict(deep.to_dict()), FIELDS).depth
    with pytest.raises(InvalidInputError, match="nested deeper"):
        p.Not(deep)
    data = {"field": "year", "op": "eq", "value": 1}
    for _ in range(5000):
        data = {"not": data}
    with pytest.raises(InvalidInputError, match="nested deeper"):
        Predicate.from_dict(data)


def test_deepest_range_round_trips():
    deep = p.Range("year", gte=1, lt=5)
    with pytest.raises(InvalidInputError, match="nested deeper"):
        while True:
            deep = p.Not(deep)
    assert Predicate.from_dict(deep.to_dict()).depth


def test_size_is_limited():
    parts = tuple(F.year == n for n in range(MAX_NODES - 1))
    assert check_filter(p.Or(parts), FIELDS).depth
    with pytest.raises(InvalidInputError, match="at most"):
        check_filter(p.Or((*parts, F.year == 0)), FIELDS)
    with pytest.raises(InvalidInputError, match="values"):
        check_filter(F.year.in_(range(6000)) | F.year.in_(range(6000)), FIELDS)


def test_an_endless_list_ends():
    def forever():
        n = 0
        while True:
            yield n
            n += 1

    with pytest.raises(InvalidInputError, match="at most"):
        F.year.in_(forever())


@pytest.mark.parametrize(
    ("where", "error"),
    [
        (F.unknown == 1, UnsupportedPredicateError),
        (F.tenant == "acme", ReservedFieldError),
        (F.TENANT_ID == "acme", ReservedFieldError),
        (F["@tenant"] == "acme", ReservedFieldError),
        (F["@label"] == "x", ReservedFieldError),
        (F["@generation"] == 1, ReservedFieldError),
        (F["@count"] == 1, ReservedFieldError),
        (F["vectoracl.tag"] == 1, ReservedFieldError),
        (F["$where"] == 1, ReservedFieldError),
        (F.lang == 1, InvalidInputError),
        (F.year == "1", InvalidInputError),
        (F.year == True, InvalidInputError),  # noqa: E712 - the type is the point
        (F.public == 1, InvalidInputError),
        (F.seen == "yesterday", InvalidInputError),
        (F.seen == "2020-01-01T00:00:00", InvalidInputError),
        (F.seen == "2020-01-01T00:00:00.123456789Z", InvalidInputError),
        (F.seen == "20200101T000000Z", InvalidInputError),
        (F.lang.contains("x"), UnsupportedPredicateError),
        (F.tags == "x", UnsupportedPredicateError),
        (F.tags.contains(1), InvalidInputError),
        (F.lang.in_(["en", 1]), InvalidInputError),
        (p.Range("lang", gt=1), UnsupportedPredicateError),
        (p.Range("year", gt="a"), InvalidInputError),
        (p.Range("tags", gt=1), UnsupportedPredicateError),
        (p.Eq("year", [1]), InvalidInputError),
        (F["@document"].is_missing(), UnsupportedPredicateError),
    ],
    ids=str,
)
@pytest.mark.parametrize("wrap", [lambda one: one, p.Not, lambda one: p.Or((ALWAYS, p.And((NEVER, one))))])
def test_the_check_refuses(where, error, wrap):
    with pytest.raises(error):
        check_filter(wrap(where), FIELDS)


def test_a_policy_may_use_the_whole_tag_and_a_caller_a_part():
    for name in ("@label", "@generation", "@docgen", "@expires"):
        value = "x" if name in ("@label", "@docgen") else 1
        assert check_scope_predicate(F[name] == value, FIELDS).depth
        with pytest.raises(ReservedFieldError):
            check_filter(F[name] == value, FIELDS)
    assert check_filter(F["@document"] == "x", FIELDS).depth


class SlyEq(p.Eq):
    """Says one thing to the check and another to the store."""

    @property
    def depth(self):
        return 1


class SlyMissing(p.Missing):
    def __getattribute__(self, name):
        return "@tenant" if name == "field" else super().__getattribute__(name)


class SlyAlways(p.Always):
    pass


class SlyAnd(p.And):
    @property
    def depth(self):
        return 1


@pytest.mark.parametrize(
    "sly",
    [SlyEq("year", 1), SlyMissing("year"), SlyAlways(), SlyAnd((F.year == 1, F.year == 2)), Predicate()],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("wrap", [lambda one: one, p.Not, lambda one: one & (F.year == 3)])
def test_the_algebra_is_closed(sly, wrap):
    with pytest.raises(InvalidInputError):
        check_filter(p.check_predicate(wrap(sly)), FIELDS)


def test_operands_are_a_tuple_of_their_own():
    parts = [F.year == 1, F.year == 2]
    made = p.And(parts)  # type: ignore[arg-type]
    parts.append(F.year == 3)
    assert made == p.And((F.year == 1, F.year == 2))
    values = ["en"]
    many = p.In("lang", values)  # type: ignore[arg-type]
    values.append("de")
    assert many.values == ("en",)


@pytest.mark.parametrize("bad", [None, {}, [], "", "year > 1", True, F.year, 1, lambda: True, Predicate])
def test_nothing_else_is_a_filter(bad):
    with pytest.raises(InvalidInputError):
        p.check_predicate(bad)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        [],
        "x",
        {"year": 1},
        {"and": []},
        {"or": []},
        {"and": {}},
        {"and": [{}]},
        {"and": [None]},
        {"not": {}},
        {"not": [{"always": True}]},
        {"always": False},
        {"always": 1},
        {"never": None},
        {"and": [{"always": True}], "or": [{"always": True}]},
        {"field": "year"},
        {"field": "year", "op": "eq"},
        {"field": "year", "op": "EQ", "value": 1},
        {"field": "year", "op": "regex", "value": "."},
        {"field": "year", "op": ["eq"], "value": 1},
        {"field": "year", "op": {"eq": 1}, "value": 1},
        {"field": 7, "op": "eq", "value": 1},
        {"field": "", "op": "eq", "value": 1},
        {"field": "year", "op": "eq", "value": None},
        {"field": "year", "op": "eq", "value": {}},
        {"field": "year", "op": "eq", "value": [1]},
        {"field": "year", "op": "in", "value": 1},
        {"field": "year", "op": "in", "value": "ab"},
        {"field": "year", "op": "in", "value": {"a": 1}},
        {"field": "year", "op": "missing", "value": True},
        {"field": "year", "op": "eq", "value": 1, "extra": 1},
        {"field": "year", "op": "gt", "value": True},
        {"field": "year", "op": "gt", "value": "abc"},
        {"field": "tags", "op": "contains_all", "value": []},
        {1: 2},
    ],
    ids=str,
)
def test_json_form_refused(data):
    with pytest.raises(RefusedError):
        Predicate.from_dict(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["and", "not", "field", "x"]), inner),
    max_leaves=6,
)


@given(
    st.recursive(
        st.fixed_dictionaries(
            {
                "field": json_values | st.just("year"),
                "op": st.sampled_from(["eq", "in", "gt", "ne", "missing", "contains"]),
            },
            optional={"value": json_values},
        )
        | json_values,
        lambda inner: st.dictionaries(st.sampled_from(["and", "or", "not"]), inner | st.lists(inner, max_size=3)),
        max_leaves=6,
    )
)
def test_any_json_is_read_or_refused_with_our_error(data):
    try:
        read = Predicate.from_dict(data)
    except RefusedError:
        return
    p.check_predicate(read)
    try:
        check_filter(read, FIELDS)
    except RefusedError:
        return


class Shifting(dict):
    """A mapping that answers differently the second time."""

    def __init__(self, *answers):
        super().__init__(answers[0])
        self.answers = list(answers)

    def __getitem__(self, key):
        now = self.answers[0]
        if len(self.answers) > 1:
            self.answers.pop(0)
        return now[key]


def test_a_shifting_mapping_is_read_once_or_checked_as_read():
    shifting = Shifting({"field": "year", "op": "eq", "value": 1}, {"field": "@tenant", "op": "eq", "value": "x"})
    try:
        read = Predicate.from_dict(shifting)
        check_filter(read, FIELDS)
    except RefusedError:
        return
    assert read == (F.year == 1)


def accepts(schema, data, root):
    """Decide by the few words of JSON Schema that `json_schema` uses; an unknown word fails the test."""
    import re

    for word, want in schema.items():
        match word:
            case "$schema" | "$defs":
                continue
            case "$ref":
                if not accepts(root["$defs"][want.removeprefix("#/$defs/")], data, root):
                    return False
            case "oneOf":
                if sum(accepts(one, data, root) for one in want) != 1:
                    return False
            case "anyOf":
                if not any(accepts(one, data, root) for one in want):
                    return False
            case "type":
                kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "number": (int, float)}
                fits = isinstance(data, int | float) if want == "number" else isinstance(data, kinds.get(want, int))
                if not fits or (isinstance(data, bool) and want != "boolean"):
                    return False
            case "const":
                if data != want:
                    return False
            case "enum":
                if data not in want:
                    return False
            case "required":
                if isinstance(data, dict) and not all(one in data for one in want):
                    return False
            case "properties":
                if isinstance(data, dict) and not all(
                    accepts(want[key], data[key], root) for key in want if key in data
                ):
                    return False
            case "additionalProperties":
                assert want is False
                if isinstance(data, dict) and not set(data) <= set(schema["properties"]):
                    return False
            case "items":
                if isinstance(data, list) and not all(accepts(want, one, root) for one in data):
                    return False
            case "minItems":
                if isinstance(data, list) and len(data) < want:
                    return False
            case "maxItems":
                if isinstance(data, list) and len(data) > want:
                    return False
            case "maxLength":
                if isinstance(data, str) and len(data) > want:
                    return False
            case "minimum":
                if not isinstance(data, bool) and isinstance(data, int | float) and data < want:
                    return False
            case "maximum":
                if not isinstance(data, bool) and isinstance(data, int | float) and data > want:
                    return False
            case "pattern":
                if isinstance(data, str) and not re.search(want, data):
                    return False
            case "format":
                continue  # an annotation in 2020-12
            case _:
                raise AssertionError(f"unknown word {word}")
    return True


some_values = st.sampled_from(
    [
        "en",
        "",
        "2020-01-01T00:00:00Z",
        "2020-01-01T00:00:00+02:00",
        "2020-01-01",
        "20200101T000000Z",
        "a\0",
        1,
        0,
        -1,
        1.5,
        2**53,
        2**54,
        True,
        False,
        None,
        {},
    ]
)
documents = st.recursive(
    st.fixed_dictionaries(
        {
            "field": st.sampled_from([*FIELDS, "unknown", "@tenant", 7]),
            "op": st.sampled_from(
                [
                    "eq",
                    "ne",
                    "lt",
                    "lte",
                    "gt",
                    "gte",
                    "in",
                    "not_in",
                    "contains",
                    "contains_any",
                    "contains_all",
                    "missing",
                    "exists",
                    "like",
                ]
            ),
        },
        optional={"value": some_values | st.lists(some_values, max_size=2), "extra": st.just(1)},
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2).map(lambda parts: {"and": parts}),
        st.lists(inner, max_size=2).map(lambda parts: {"or": parts}),
        inner.map(lambda one: {"not": one}),
        inner.map(lambda one: {"nor": one}),
    ),
    max_leaves=4,
)


def reads(data):
    try:
        # Every leaf by itself: or-ing with "always" must not hide a wrong one.
        check_filter(Predicate.from_dict(data), FIELDS)
    except RefusedError:
        return False
    return True


def leaves_of(data):
    if isinstance(data, dict):
        for word in ("and", "or", "not", "nor"):
            if word in data:
                inner = data[word]
                for one in inner if isinstance(inner, list) else [inner]:
                    yield from leaves_of(one)
                return
        yield data


@given(documents)
@example({"field": "tags", "op": "in", "value": []})
@example({"field": "lang", "op": "contains_any", "value": []})
def test_the_schema_accepts_exactly_what_is_read(data):
    schema = Predicate.json_schema(FIELDS)
    accepted = accepts(schema, data, schema)
    if accepted:
        assert reads(data)
    elif reads(data):
        # An "in" of nothing simplifies a branch away; each leaf by itself is judged alike.
        # A leaf that asks for one of nothing is read as NEVER, whatever its field holds.
        leaves = [one for one in leaves_of(data) if one.get("value") != []]
        assert all(accepts(schema, one, schema) for one in leaves if reads(one))
        assert len(leaves) < len(list(leaves_of(data))) or not all(map(reads, leaves))


def test_the_schema_has_controls():
    schema = Predicate.json_schema(FIELDS)
    good = {
        "and": [
            {"field": "year", "op": "gte", "value": 2020},
            {"not": {"field": "tags", "op": "contains", "value": "x"}},
        ]
    }
    assert accepts(schema, good, schema)
    assert not accepts(schema, {"field": "year", "op": "gte", "value": "2020"}, schema)
    assert not accepts(schema, {}, schema)
    assert isinstance(FIELDS["year"], FieldType)


WORDS = st.text(st.sampled_from("aZ \0é\ud800中"), max_size=3) | st.sampled_from(["x" * 1_024, "x" * 1_025, "é" * 513])


@given(st.lists(WORDS | st.sampled_from([1, True, None, 0.5]), min_size=1, max_size=6))
def test_a_list_is_checked_as_each_of_its_values(values):
    def outcome(predicate):
        try:
            return check_filter(predicate, {"k": check_fields({"k": "keyword"})["k"]})
        except InvalidInputError as error:
            return type(error)

    each = [outcome(p.Eq("k", value)) for value in values]
    wrong = next((one for one in each if isinstance(one, type)), None)
    assert outcome(p.In("k", tuple(values))) == (wrong or p.In("k", tuple(one.value for one in each)))
