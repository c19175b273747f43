"""The principal: made explicitly, immutable, compared by exact claims, and over when its time is."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectoracl import InvalidPrincipalError, InvalidTenantError, Principal, VectorACLError


def make(**claims):
    return Principal("ann", "acme", authenticated_by="test", **claims)


def test_is_immutable():
    one = make(attributes={"a": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.tenant = "globex"
    with pytest.raises((AttributeError, TypeError)):  # a frozen class with slots raises the one or the other
        one.other = 1
    with pytest.raises(TypeError):
        one.attributes["a"] = 2


def test_what_was_passed_in_can_change_without_effect():
    roles, tags = ["r"], ["x"]
    attributes = {"tags": tags}
    one = make(roles=roles, attributes=attributes)
    before = hash(one)
    roles.append("admin")
    tags.append("secret")
    attributes["clearance"] = "top"
    assert one.roles == {"r"}
    assert dict(one.attributes) == {"tags": ("x",)}
    assert hash(one) == before


def test_equal_by_value_and_hashable():
    assert make(roles={"a", "b"}) == make(roles=["b", "a"])
    assert len({make(roles={"a"}), make(roles={"a"})}) == 1


CLAIMS = [
    {},
    {"roles": {"x"}},
    {"groups": {"x"}},
    {"kind": "agent"},
    {"expires_at": 5},
    {"attributes": {"a": True}},
    {"attributes": {"a": 1}},
    {"attributes": {"a": 1.0}},
    {"attributes": {"a": "1"}},
    {"attributes": {"a": ("1",)}},
    {"attributes": {"a": 0}},
    {"attributes": {"a": False}},
    {"attributes": {"b": 1}},
]


@pytest.mark.parametrize("left", range(len(CLAIMS)))
@pytest.mark.parametrize("right", range(len(CLAIMS)))
def test_any_other_claim_is_another_principal(left, right):
    assert (make(**CLAIMS[left]) == make(**CLAIMS[right])) is (left == right)


def test_another_tenant_id_or_source_is_another_principal():
    one = Principal("ann", "acme", authenticated_by="a")
    assert one != Principal("ann", "ACME", authenticated_by="a")
    assert one != Principal("Ann", "acme", authenticated_by="a")
    assert one != Principal("ann", "acme", authenticated_by="b")


class Sly(str):
    __slots__ = ()

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("acme")

    def __str__(self):
        return "acme"


class SlyInt(int):
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


def test_subclasses_bring_no_equality_of_their_own():
    one = Principal(
        Sly("eve"),
        Sly("globex"),
        roles=[Sly("r")],
        attributes={Sly("n"): SlyInt(3), "t": [Sly("u")]},
        authenticated_by=Sly("test"),
    )
    parts = [one.id, one.tenant, one.authenticated_by, *one.roles, *one.attributes, *one.attributes["t"]]
    assert {type(part) for part in parts} == {str}
    assert type(one.attributes["n"]) is int
    assert (one.id, one.tenant, one.roles, one.attributes["n"]) == ("eve", "globex", {"r"}, 3)
    assert one != Principal("ann", "acme", authenticated_by="test")


@pytest.mark.parametrize("transport", [pickle.dumps, copy.copy, copy.deepcopy])
def test_is_not_serialised(transport):
    with pytest.raises(InvalidPrincipalError):
        transport(make())


@pytest.mark.parametrize(
    "source", ["ann@acme", {"id": "ann", "tenant": "acme"}, ("ann", "acme"), None, b"ann", object()]
)
def test_nothing_becomes_a_principal_implicitly(api, source):
    acl = api.connect()
    port = acl.tap()
    with pytest.raises(InvalidPrincipalError):
        acl.scoped(source)
    assert port.requests == []


def test_neither_does_a_subclass(api):
    class Mine(Principal):
        pass

    with pytest.raises(InvalidPrincipalError):
        api.connect().scoped(Mine("ann", "acme", authenticated_by="test"))


def test_duck_typing_does_not_help(api):
    class Duck:
        id = "ann"
        tenant = "acme"
        attributes: dict[str, str] = {}  # noqa: RUF012 - a lookalike for one test

        def __init__(self):
            self.__class__ = Duck

        def expired(self, now):
            return False

    with pytest.raises(InvalidPrincipalError):
        api.connect().scoped(Duck())


@pytest.mark.parametrize(
    "claims",
    [
        {"roles": "admin"},
        {"roles": None},
        {"roles": [1]},
        {"roles": [""]},
        {"roles": ["*"]},
        {"groups": "g"},
        {"groups": [b"g"]},
        {"attributes": None},
        {"attributes": [("a", 1)]},
        {"attributes": {"": 1}},
        {"attributes": {1: 1}},
        {"attributes": {"a": None}},
        {"attributes": {"a": math.nan}},
        {"attributes": {"a": math.inf}},
        {"attributes": {"a": {"b": 1}}},
        {"attributes": {"a": [1]}},
        {"attributes": {"a": b"x"}},
        {"attributes": {"a": "\0"}},
        {"attributes": {"a": "\ud800"}},
        {"kind": "root"},
        {"kind": None},
        {"kind": ["user"]},
        {"authenticated_by": ""},
        {"authenticated_by": "  "},
        {"authenticated_by": None},
        {"authenticated_by": "x" * 2000},
        {"expires_at": True},
        {"expires_at": "soon"},
        {"expires_at": math.nan},
        {"expires_at": math.inf},
        {"expires_at": datetime(2030, 1, 1)},
    ],
    ids=str,
)
def test_bad_claims(claims):
    with pytest.raises(InvalidPrincipalError):
        Principal("ann", "acme", **{"authenticated_by": "test", **claims})


def test_bad_ids():
    with pytest.raises(InvalidTenantError):
        Principal("ann", "", authenticated_by="test")
    with pytest.raises(InvalidPrincipalError):
        Principal("", "acme", authenticated_by="test")
    with pytest.raises(TypeError):
        Principal("ann", "acme")  # type: ignore[call-arg]


def test_expiry():
    assert not make().expired(1e18)
    one = make(expires_at=100)
    assert [one.expired(now) for now in (99.999, 100, 101)] == [False, True, True]
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    aware = make(expires_at=moment)
    assert aware.expires_at == moment.timestamp()
    assert not aware.expired((moment - timedelta(seconds=1)).timestamp())
    assert aware.expired(moment.timestamp())


def test_service_needs_a_reason():
    one = Principal.service("loader", "acme", "nightly ingestion")
    assert (one.kind, one.authenticated_by) == ("service", "service: nightly ingestion")
    for reason in ("", "  ", None):
        with pytest.raises(InvalidPrincipalError):
            Principal.service("loader", "acme", reason)


def test_repr_shows_no_values_of_attributes():
    shown = repr(make(attributes={"email": "canary@example.com"}, roles={"r"}))
    assert "canary" not in shown
    assert "email" in shown


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(
            st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.text(max_size=3)), st.none()
        ),
        max_size=3,
    )
)
def test_any_mapping_of_claims_is_taken_or_refused_with_our_error(attributes):
    try:
        one = make(attributes=attributes)
    except VectorACLError:
        return
    assert one == make(attributes=dict(reversed(attributes.items())))
    assert hash(one) == hash(make(attributes=attributes))
