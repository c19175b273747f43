"""Facets: the values of a field with their counts, each the same as count() says; one body for sync and async."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import ALWAYS, Chunk, F, Facet, InvalidInputError, StoreError, UnsupportedPredicateError, testing
from vectoracl.access.policy import Decision
from vectoracl.access.scope import Grant, Scope
from vectoracl.adapter_api.operations import MAX_FACETS
from vectoracl.engine.facets import summed
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.semantics import tallied, values_of

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def docs(acl, who, chunk):
    handle = acl.scoped(who())
    handle.upsert(
        [
            chunk("a", "one", lang="en", year=2019, tags=["red", "red", "blue"], sizes=[1, 1.0, 0.5], public=True),
            chunk("b", "one", lang="de", year=2020, tags=["red"], public=False),
            chunk("c", "two", lang="en", year=2020.0, seen=NOON, sizes=[0.5]),
            chunk("d", "three", lang="en", year=0.5, public=True),
            chunk("e", "three"),
        ]
    )
    acl.scoped(who("globex")).upsert([chunk("a", "one", lang="fr", year=1, tags=["secret"]), chunk("b", lang="en")])
    return handle


def test_each_kind_of_field(docs):
    assert docs.facets("lang") == [("en", 3), ("de", 1)]
    assert docs.facets("year") == [(2020, 2), (0.5, 1), (2019, 1)]
    assert [type(facet.value) for facet in docs.facets("year")] == [int, float, int]
    assert docs.facets("public") == [(True, 2), (False, 1)]
    assert [type(facet.value) for facet in docs.facets("public")] == [bool, bool]
    assert docs.facets("tags") == [("red", 2), ("blue", 1)], "an element that comes twice counts once"
    assert docs.facets("sizes") == [(0.5, 2), (1, 1)], "1 and 1.0 are one value"
    assert docs.facets("@document") == [("one", 2), ("three", 2), ("two", 1)]


def test_filter_narrowed_handle_limit_and_ties(docs):
    assert docs.facets("lang", where=F.year >= 2019) == [("en", 2), ("de", 1)]
    assert docs.facets("lang", where=F.lang == "fr") == []
    assert docs.narrow(F.lang == "de").facets("lang") == [("de", 1)]
    assert docs.narrow(F.lang == "en").facets("year", where=F.year > 1) == [(2019, 1), (2020, 1)]
    assert docs.facets("@document", limit=2) == [("one", 2), ("three", 2)], "ties by value, then the cut"
    assert docs.facets("year", limit=1) == [(2020, 2)]


def test_another_tenants_values_are_not_there(docs, acl, who):
    assert docs.facets("tags", where=F.tags.contains("secret")) == []
    assert acl.scoped(who("globex")).facets("lang") == [("en", 1), ("fr", 1)]
    assert acl.scoped(who("nobody")).facets("lang") == []


def test_over_several_partitions_the_counts_add_up_before_the_cut(docs, acl, who, chunk):
    acl.scoped(who("commons")).upsert([chunk(f"s{i}", "shared", lang="de" if i < 3 else "it") for i in range(5)])
    assert docs.facets("lang") == [("de", 4), ("en", 3), ("it", 2)]
    assert docs.facets("lang", limit=1) == [("de", 4)], "the best of both, not the best of one"
    assert docs.facets("@document")[0] == ("shared", 5)


@pytest.mark.parametrize(
    "field", ["seen", "nowhere", "@chunk", "@label", "@tenant", "tenant", "@position", "", None, 7, F.lang, ["lang"]]
)
def test_other_fields_are_refused_before_anything_is_asked(docs, acl, field):
    port = acl.tap()
    records = len(acl.records)
    with pytest.raises(InvalidInputError) as refused:
        docs.facets(field)
    assert refused.value.field == "field"
    assert (port.requests, len(acl.records)) == ([], records)


@pytest.mark.parametrize("given", [{"limit": 0}, {"limit": 10_001}, {"limit": True}, {"where": None}, {"timeout": 0}])
def test_other_arguments_are_checked_too(docs, acl, given):
    port = acl.tap()
    with pytest.raises(InvalidInputError):
        docs.facets("lang", **given)
    assert port.requests == []


def test_what_is_not_declared_is_refused_before_any_io(docs, acl):
    port = acl.tap(facets="none")
    records = len(acl.records)
    with pytest.raises(UnsupportedPredicateError, match="cannot count the values") as refused:
        docs.facets("lang")
    assert (refused.value.field, port.requests, len(acl.records)) == ("facets", [], records)


def test_an_adapter_that_declares_it_and_has_no_such_flow_is_refused(docs, acl):
    class Without:
        def __init__(self, inner):
            self.capabilities = inner.capabilities

    port = acl.tap(adapter=Without)
    with pytest.raises(UnsupportedPredicateError):
        docs.facets("lang")
    assert port.requests == []


def test_it_is_decided_as_a_scan_and_recorded_before_it_is_asked(docs, acl):
    port = acl.tap()
    docs.facets("lang")
    assert [(one.partition, type(one).__name__) for one in port.operations] == [
        ("acme", "Facets"),
        ("commons", "Facets"),
    ]
    assert acl.records[-1]["action"] == "scan"
    assert (acl.outcomes[-1]["outcome"], acl.outcomes[-1]["returned"]) == ("ok", 2)
    asked = len(port.requests)
    for actions in (["search"], ["count"]):  # who may only count would have to guess the values
        with pytest.raises(v.DeniedError):
            docs.narrow(actions=actions).facets("lang")
    assert len(port.requests) == asked


def test_more_values_than_an_answer_holds_are_an_error_and_no_cut(api, who):
    acl = api.connect()
    docs = acl.scoped(who())
    docs.upsert([Chunk(str(i), "d", vector=[1.0, 0, 0], metadata={"year": i}) for i in range(MAX_FACETS)])
    assert len(docs.facets("year", limit=MAX_FACETS)) == MAX_FACETS
    docs.upsert([Chunk("more", "d", vector=[1.0, 0, 0], metadata={"year": -1})])
    with pytest.raises(StoreError, match="more than 10,000 values") as failed:
        docs.facets("year", limit=1)
    assert (failed.value.code, failed.value.sent, failed.value.retryable) == ("too_many_values", "no", False)
    assert docs.facets("year", where=F.year < 1) == [(-1, 1), (0, 1)]


class Grants:
    version = "test"

    def decide(self, principal, action):
        scope = Scope.of([Grant("acme", F["@document"] == "one"), Grant("commons", F["@document"] == "two")])
        return Decision(permit=True, scope=scope, reasons=("test",), policy_version=self.version)


def test_the_scopes_own_filter_holds(api, who, chunk):
    writer = api.connect({**_named("facets-grants"), "tenants": {"shared": []}})
    for tenant in ("acme", "commons"):
        writer.scoped(who(tenant)).upsert([chunk(d, d, lang=f"{tenant}-{d}") for d in ("one", "two")])
    acl = api.connect(_named("facets-grants"), policy=Grants())
    assert acl.scoped(who()).facets("lang") == [("acme-one", 1), ("commons-two", 1)]
    assert acl.scoped(who()).facets("@document") == [("one", 1), ("two", 1)]


def _named(name, **fields):
    store = {"adapter": "memory", "dimension": 3, "name": name, "metadata": fields or {"lang": "keyword"}}
    return {"version": 1, "stores": {"main": store}}


def test_what_was_stored_before_its_field_was_declared_is_a_value_only_in_the_fields_type(api, who):
    before = api.connect(_named("facets-later", lang="keyword"))
    stored = ["2020", 2020, 2020.0, True, 1, [2020], {"a": 1}]
    chunks = [Chunk(str(i), "d", vector=[1.0, 0, 0], metadata={"x": one}) for i, one in enumerate(stored)]
    chunks.append(Chunk("list", "d", vector=[1.0, 0, 0], metadata={"x": ["2020", 7, True, "2020", [1]]}))
    before.scoped(who()).upsert(chunks)
    for kind, wanted, has in (
        ("number", [(2020, 2), (1, 1)], lambda one: F.x == one),
        ("keyword", [("2020", 1)], lambda one: F.x == one),
        ("boolean", [(True, 1)], lambda one: F.x == one),
        ("number[]", [(7, 1), (2020, 1)], lambda one: F.x.contains(one)),
        ("keyword[]", [("2020", 1)], lambda one: F.x.contains(one)),
    ):
        docs = api.connect(_named("facets-later", x=kind)).scoped(who())
        assert docs.facets("x") == wanted, kind
        assert [docs.count(has(one)) for one, _ in wanted] == [count for _, count in wanted]


scalars = st.one_of(st.text(max_size=3), st.integers(-3, 3), st.sampled_from([0.0, -0.0, 1.0, 0.5]), st.booleans())


@given(st.lists(st.one_of(st.none(), scalars, st.lists(scalars, max_size=4)), max_size=12), st.sampled_from(FieldType))
def test_values_are_what_equality_says(rows, kind):
    """For every row and value: it is counted if, and only if, the filter by this value matches the row."""
    from vectoracl.filters.predicate import ContainsAny, Eq
    from vectoracl.filters.semantics import matches
    from vectoracl.model.records import Tag

    tag = Tag("t", "d", "c")
    found = dict(tallied((values_of(kind, row) for row in rows), MAX_FACETS))
    everything = {one for row in rows for one in (row if isinstance(row, list) else [row]) if one is not None}
    families = {FieldType.KEYWORD: str, FieldType.BOOLEAN: bool}
    for one in everything | set(found):
        fits = type(one) is families[kind.element] if kind.element in families else type(one) in (int, float)
        if not fits or kind is FieldType.DATETIME:
            continue
        where = ContainsAny("x", (one,)) if kind.is_list else Eq("x", one)
        assert found.get(one, 0) == sum(matches(where, tag, {} if row is None else {"x": row}) for row in rows)
    if kind is FieldType.DATETIME:
        assert found == {}


def test_an_adapters_answer_is_checked_and_added_up():
    assert summed([Facet(1.0, 2), Facet(1, 3), Facet(0.5, 1)], FieldType.NUMBER, "x") == [(1, 5), (0.5, 1)]
    assert summed([Facet("b", 1), Facet("a", 1)], FieldType.KEYWORDS, "x") == [("a", 1), ("b", 1)]
    for kind, facet in (
        (FieldType.NUMBER, Facet(True, 1)),
        (FieldType.NUMBER, Facet(float("nan"), 1)),
        (FieldType.KEYWORD, Facet(7, 1)),
        (FieldType.BOOLEAN, Facet(1, 1)),
        (FieldType.BOOLEAN, Facet("true", 1)),
        (FieldType.DATETIME, Facet("2024", 1)),
        (FieldType.KEYWORD, Facet("a", 0)),
        (FieldType.KEYWORD, Facet("a", 1.0)),
    ):
        with pytest.raises(StoreError) as failed:
            summed([facet], kind, "x")
        assert failed.value.code == "malformed"


def test_a_facet_is_a_pair_whose_repr_shows_no_content():
    facet = Facet("secret", 3)
    value, count = facet
    assert (value, count, facet.value, facet.count) == ("secret", 3, "secret", 3)
    assert repr([facet]) == "[Facet(str, count 3)]"
    assert pickle.loads(pickle.dumps(facet)) == facet


def test_several_tenants_side_by_side():
    with v.connect(
        {
            "version": 1,
            "stores": {"m": {"adapter": "memory", "dimension": 2, "metadata": {"n": "number"}}},
            "tenants": {"shared": ["s1", "s2"]},
        }
    ) as acl:
        for place, tenant in enumerate(("own", "s1", "s2", "other")):
            chunks = [Chunk(f"c{i}", "d", vector=[1.0, 0.0], metadata={"n": i % (place + 1)}) for i in range(6)]
            acl.scoped(testing.principal("loader", tenant)).upsert(chunks)
        docs = acl.scoped(testing.principal("alice", "own"))
        assert docs.facets("n", where=ALWAYS) == [(0, 6 + 3 + 2), (1, 3 + 2), (2, 2)]
