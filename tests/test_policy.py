"""Scope and policy: what is granted, that narrowing only shrinks, that a broken policy denies, when the cache ends."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectoracl import (
    ALL_ACTIONS,
    ALWAYS,
    NEVER,
    Decision,
    DeniedError,
    F,
    Grant,
    InvalidInputError,
    InvalidTenantError,
    RefusedError,
    Scope,
    StoreError,
    Tag,
    TenantPolicy,
)
from vectoracl.filters import predicate as p
from vectoracl.filters.semantics import matches

V = [1.0, 0.0, 0.0]


class Rules:
    """A policy made of two functions."""

    def __init__(self, decide, version=lambda: "1"):
        self._decide, self._version = decide, version
        self.asked = 0

    @property
    def version(self):
        return self._version()

    def decide(self, principal, action):
        self.asked += 1
        return self._decide(principal, action)


def permit(*grants, version="1", **given):
    return Decision(permit=True, scope=Scope(grants), reasons=("rule",), policy_version=version, **given)


def calls(docs, chunk):
    return {
        "search": lambda: docs.search(V),
        "fetch": lambda: docs.fetch(["c1"]),
        "count": docs.count,
        "scan": docs.page,
        "upsert": lambda: docs.upsert([chunk()]),
        "replace": lambda: docs.replace("doc", [chunk()]),
        "delete": lambda: docs.delete(document="doc"),
    }


leaf = st.sampled_from([ALWAYS, NEVER, F.a == 1, F.a != 1, F.b == "x", F.a.is_missing(), ~(F.b == "x")])
predicates = st.recursive(
    leaf, lambda inner: st.builds(lambda a, b, w: a & b if w else a | b, inner, inner, st.booleans())
)
grants = st.lists(st.builds(Grant, st.sampled_from(["t1", "t2", "t3"]), predicates), max_size=5)
ROWS = [
    (t, m) for t in ("t1", "t2", "t3") for m in ({}, {"a": 1}, {"a": 2}, {"b": "x"}, {"a": 1, "b": "x"}, {"a": True})
]


def seen(scope):
    rows = set()
    for one in scope.grants:
        rows |= {
            n for n, (t, m) in enumerate(ROWS) if t == one.partition and matches(one.predicate, Tag(t, "d", "c"), m)
        }
    return rows


@given(grants)
def test_of_is_the_union(given_grants):
    wanted = set()
    for one in given_grants:
        wanted |= seen(Scope((one,)))
    scope = Scope.of(given_grants)
    assert seen(scope) == wanted
    assert not any(isinstance(one.predicate, p.Never) for one in scope.grants)
    assert len(set(scope.partitions)) == len(scope.partitions)


@given(grants, predicates, predicates)
def test_narrowing_only_shrinks(given_grants, first, second):
    scope = Scope.of(given_grants)
    narrow = scope.narrowed(first)
    assert seen(narrow) == {n for n in seen(scope) if matches(first, Tag(ROWS[n][0], "d", "c"), ROWS[n][1])}
    assert seen(narrow.narrowed(second)) <= seen(narrow) <= seen(scope)
    assert set(narrow.partitions) <= set(scope.partitions)
    assert scope.narrowed(NEVER).empty


def test_a_scope_has_no_other_form():
    for bad in (None, [], [Grant("t", ALWAYS)], (None,), ("t",), {"t": ALWAYS}, "*"):
        with pytest.raises(InvalidInputError):
            Scope(bad)
    with pytest.raises(InvalidInputError):
        Scope((Grant("t", ALWAYS), Grant("t", NEVER)))
    for bad in ("", "*", None, "t ", "t\u200b"):
        with pytest.raises(InvalidTenantError):
            Grant(bad, ALWAYS)
    for bad in (None, {}, True, "x"):
        with pytest.raises(InvalidInputError):
            Grant("t", bad)
    assert Scope().empty


def test_tenants_are_apart_and_shared_ones_are_read_by_all(acl, who, chunk):
    for tenant in ("acme", "globex", "commons"):
        acl.scoped(who(tenant)).upsert([chunk("c1", tenant)])
    assert {hit.tenant for hit in acl.scoped(who("acme")).search(V)} == {"acme", "commons"}
    assert {hit.tenant for hit in acl.scoped(who("globex")).scan()} == {"globex", "commons"}
    assert {hit.tenant for hit in acl.scoped(who("commons")).search(V)} == {"commons"}
    assert acl.scoped(who("unknown")).count() == 1
    assert acl.scoped(who("ACME")).count() == 1


def test_shared_tenants_are_written_by_their_own_only(acl, who, chunk):
    owner, other = acl.scoped(who("commons")), acl.scoped(who("acme"))
    owner.upsert([chunk("c1", "doc")])
    other.upsert([chunk("c1", "doc")])
    other.replace("doc", [chunk("c2", "doc")])
    assert other.delete(where=ALWAYS).count == 1
    assert other.delete(ids=["c1"]).count == 0
    assert [(hit.tenant, hit.id) for hit in owner.scan()] == [("commons", "c1")]


@pytest.mark.parametrize("action", sorted(ALL_ACTIONS))
def test_an_empty_scope_sends_nothing(api, who, chunk, action):
    acl = api.connect(policy=Rules(lambda principal, action: permit()))
    port = acl.tap()
    call = calls(acl.scoped(who()), chunk)[action]
    if action in ("upsert", "replace", "delete"):
        with pytest.raises(DeniedError):
            call()
    else:
        answer = call()
        assert not answer or (hasattr(answer, "hits") and not answer.hits)
    assert port.requests == []
    assert len(acl.records) == len(acl.outcomes) == 1


class Evil:
    permit = True
    scope = Scope((Grant("globex", ALWAYS),))
    reasons = ()
    policy_version = "1"
    valid_until = None


def raising(error):
    def decide(*_args):
        raise error

    return decide


GARBAGE = {
    "raises": raising(ValueError("canary")),
    "raises StopIteration": raising(StopIteration(permit(Grant("globex", ALWAYS)))),
    "raises a denial": raising(DeniedError("no", action="search")),
    "raises RecursionError": raising(RecursionError()),
    "None": lambda *_: None,
    "True": lambda *_: True,
    "a scope": lambda *_: Scope((Grant("globex", ALWAYS),)),
    "a lookalike": lambda *_: Evil(),
    "a coroutine": lambda *_: SimpleNamespace(permit=True),
    "permit a text": lambda *_: Decision("deny", Scope((Grant("acme", ALWAYS),)), ("r",), "1"),
    "permit None": lambda *_: Decision(None, Scope((Grant("acme", ALWAYS),)), ("r",), "1"),
    "permit 1": lambda *_: Decision(1, Scope((Grant("acme", ALWAYS),)), ("r",), "1"),
    "no scope": lambda *_: Decision(True, None, ("r",), "1"),
    "scope a list": lambda *_: Decision(True, [Grant("acme", ALWAYS)], ("r",), "1"),
    "reasons None": lambda *_: Decision(True, Scope((Grant("acme", ALWAYS),)), None, "1"),
    "reasons a text": lambda *_: Decision(True, Scope((Grant("acme", ALWAYS),)), "r", "1"),
    "reasons of numbers": lambda *_: Decision(True, Scope((Grant("acme", ALWAYS),)), (1,), "1"),
    "no version": lambda *_: Decision(True, Scope((Grant("acme", ALWAYS),)), ("r",), None),
    "valid until NaN": lambda *_: Decision(True, Scope((Grant("acme", ALWAYS),)), ("r",), "1", math.nan),
    "valid until text": lambda *_: Decision(True, Scope((Grant("acme", ALWAYS),)), ("r",), "1", "later"),
}


@pytest.mark.parametrize("case", GARBAGE)
@pytest.mark.parametrize("action", sorted(ALL_ACTIONS))
def test_a_broken_policy_denies(api, who, chunk, case, action):
    acl = api.connect(policy=Rules(GARBAGE[case]))
    port = acl.tap()
    with pytest.raises(DeniedError) as caught:
        calls(acl.scoped(who()), chunk)[action]()
    assert port.requests == []
    assert "canary" not in str(caught.value)
    assert [one["outcome"] for one in acl.outcomes] == ["denied"]
    assert acl.records[0]["permit"] is False


@pytest.mark.parametrize("version", [raising(ValueError("canary")), lambda: b"1", lambda: 1])
def test_a_policy_without_a_version_denies(api, who, version):
    good = Rules(lambda principal, action: permit(Grant("acme", ALWAYS)))
    acl = api.connect(policy=good)
    port = acl.tap()
    docs = acl.scoped(who())
    docs.count()
    assert len(port.requests) == 1
    good._version = version
    with pytest.raises(DeniedError):
        docs.count()
    assert len(port.requests) == 1


def test_a_policy_with_a_filter_that_the_store_does_not_know_is_refused(api, who):
    for predicate, error in (
        (F.unknown == 1, RefusedError),
        (p.Eq("lang", 1), RefusedError),
        (F["@x"] == 1, RefusedError),
    ):
        acl = api.connect(policy=Rules(lambda *_, one=predicate: permit(Grant("acme", one))))
        port = acl.tap()
        with pytest.raises(error):
            acl.scoped(who()).count()
        assert port.requests == []


def test_decisions_are_kept_for_one_version(api, who, clock):
    version = ["1"]
    rules = Rules(lambda *_: permit(Grant("acme", ALWAYS), version=version[0]), lambda: version[0])
    docs = api.connect(policy=rules, clock=clock).scoped(who())
    docs.count()
    docs.count()
    assert rules.asked == 1
    version[0] = "2"
    docs.count()
    docs.count()
    assert rules.asked == 2


def test_a_revocation_is_in_force_at_the_next_call(api, who, chunk):
    version, open_ = ["1"], [True]
    rules = Rules(
        lambda *_: permit(Grant("acme", ALWAYS), version=version[0]) if open_[0] else Decision.deny("gone", version[0]),
        lambda: version[0],
    )
    docs = api.connect(policy=rules).scoped(who())
    docs.upsert([chunk()])
    assert len(docs.search(V)) == 1
    version[0], open_[0] = "2", False
    with pytest.raises(DeniedError, match="gone"):
        docs.search(V)


def test_decisions_end_with_valid_until(api, who, clock):
    rules = Rules(lambda *_: permit(Grant("acme", ALWAYS), valid_until=clock.now + 10))
    docs = api.connect(policy=rules, clock=clock).scoped(who())
    docs.count()
    clock.now += 9.9
    docs.count()
    assert rules.asked == 1
    clock.now += 0.1
    docs.count()
    assert rules.asked == 2


def refusing(config):
    """Return two configurations' worth of decisions that have no form on the store: (config, policy, code)."""
    two = {**config, "default_store": "main", "tenants": {"shared": ["commons"], "store": {"commons": "eu"}}}
    two["stores"] = {**config["stores"], "eu": dict(config["stores"]["main"])}
    over = Rules(lambda *_: permit(Grant("acme", ALWAYS), Grant("commons", ALWAYS)))
    undeclared = Rules(lambda *_: permit(Grant("acme", F.nosuch == "x")))
    mistyped = Rules(lambda *_: permit(Grant("acme", F.year == "x")))
    return {
        "two stores": (two, over, "refused"),
        "undeclared": (config, undeclared, "unsupported"),
        "mistyped": (config, mistyped, "invalid_input"),
    }


@pytest.mark.parametrize("action", sorted(ALL_ACTIONS))
@pytest.mark.parametrize("kind", ["two stores", "undeclared", "mistyped"])
def test_a_decision_whose_scope_has_no_form_is_recorded(api, who, chunk, config, kind, action):
    given, rules, code = refusing(config)[kind]
    acl = api.connect(given, policy=rules)
    port = acl.tap()
    call = calls(acl.scoped(who()), chunk)[action]
    for number in (1, 2):  # an error is raised once: what is raised the second time is another one
        with pytest.raises(RefusedError) as caught:
            call()
        assert caught.value.code == code
        assert len(acl.records) == len(acl.outcomes) == number
    record, outcome = acl.records[-1], acl.outcomes[-1]
    assert (record["action"], record["permit"], record["reasons"]) == (action, True, ["rule"])
    assert record["partitions"] == (["acme", "commons"] if kind == "two stores" else ["acme"])
    assert (outcome["decision"], outcome["outcome"]) == (record["id"], f"error:{code}")
    assert port.requests == []


@pytest.mark.parametrize("kind", ["two stores", "undeclared", "mistyped"])
def test_a_refused_scope_is_not_raised_without_its_record(api, who, config, kind):
    given, rules, _ = refusing(config)[kind]
    acl = api.connect(given, policy=rules)

    def broken(record):
        raise OSError

    acl.real.sink.write = broken
    with pytest.raises(StoreError) as caught:
        acl.scoped(who()).count()
    assert caught.value.code == "audit"


def test_a_decision_that_is_only_explained_is_recorded(api, who, config):
    acl = api.connect(policy=Rules(lambda *_: Decision.deny("closed", "1")))
    assert acl.explain(who()).permit is False
    assert [(one["action"], one["permit"]) for one in acl.records] == [("search", False)]
    assert [one["outcome"] for one in acl.outcomes] == ["explained"]
    given, rules, _ = refusing(config)["undeclared"]
    acl = api.connect(given, policy=rules)
    with pytest.raises(RefusedError):
        acl.explain(who())
    assert [one["outcome"] for one in acl.outcomes] == ["error:unsupported"]


@pytest.mark.parametrize("action", sorted(ALL_ACTIONS))
def test_an_expired_principal_is_denied_in_spite_of_the_cache(api, who, chunk, clock, action):
    acl = api.connect(clock=clock)
    docs = acl.scoped(who(expires_at=clock.now + 10))
    call = calls(docs, chunk)[action]
    call()
    port = acl.tap()
    clock.now += 10
    with pytest.raises(DeniedError, match="expired"):
        call()
    assert port.requests == []


def test_a_principal_that_expires_in_the_middle_of_a_scan(api, who, chunk, clock):
    acl = api.connect(clock=clock)
    docs = acl.scoped(who(expires_at=clock.now + 10))
    docs.upsert([chunk(f"c{n}") for n in range(6)])
    rows = docs.scan(size=2)
    assert [next(rows).id for _ in range(2)] == ["c0", "c1"]
    clock.now += 10
    with pytest.raises(DeniedError):
        next(rows)


def test_the_cache_tells_principals_apart(api, who):
    """Claims that are equal in Python and are not the same claim."""

    def decide(principal, action):
        admin = principal.attributes.get("admin")
        return permit(Grant("globex" if admin is True else "acme", ALWAYS))

    acl = api.connect(policy=Rules(decide))
    port = acl.tap()
    for value, partition in (
        (True, "globex"),
        (1, "acme"),
        (1.0, "acme"),
        ("True", "acme"),
        (True, "globex"),
        (1, "acme"),
    ):
        acl.scoped(who(attributes={"admin": value})).count()
        assert port.requests[-1].partition == partition


def test_the_cache_tells_handles_apart(acl, who, chunk):
    docs = acl.scoped(who())
    docs.upsert([chunk("c1", year=1, public=True), chunk("c2", year=2)])
    assert docs.narrow(F.year == 1).count() == 1
    assert docs.count() == 2
    assert docs.narrow(F.year == 2).count() == 1
    assert docs.narrow(F.public == True).count() == 1  # noqa: E712 - makes a filter
    assert docs.narrow(F.public == False).count() == 0  # noqa: E712 - makes a filter
    with pytest.raises(DeniedError):
        docs.narrow(actions=["search"]).count()
    assert docs.count() == 2


def test_equal_hashes_do_not_merge(api, who):
    """-1 and -2 have one hash in Python; the cache compares, it does not trust hashes."""

    def decide(principal, action):
        return permit(Grant("acme" if principal.attributes["n"] == -1 else "globex", ALWAYS))

    acl = api.connect(policy=Rules(decide))
    port = acl.tap()
    for number in (-1, -2, -1, -2):
        acl.scoped(who(attributes={"n": number})).count()
    assert [one.partition for one in port.requests] == ["acme", "globex", "acme", "globex"]


def test_a_write_goes_to_one_partition(api, who, chunk):
    rules = Rules(lambda *_: permit(Grant("globex", ALWAYS), Grant("commons", ALWAYS)))
    acl = api.connect(policy=rules)
    port = acl.tap()
    with pytest.raises(RefusedError):
        acl.scoped(who()).upsert([chunk()])
    assert port.requests == []


def test_a_scope_over_two_stores_is_refused(api, who, config):
    config["stores"]["eu"] = dict(config["stores"]["main"])
    config |= {"default_store": "main", "tenants": {"shared": ["commons"], "store": {"acme": "eu"}}}
    acl = api.connect(config)
    ports = [acl.tap("main"), acl.tap("eu")]
    with pytest.raises(RefusedError, match="two stores"):
        acl.scoped(who("acme")).count()
    assert acl.scoped(who("globex")).count() == 0
    assert len(ports[0].requests) == 2
    assert not [one for one in ports[1].requests if getattr(one, "partition", None)]


def test_a_tenant_is_routed_to_its_store(api, who, chunk, config):
    config["stores"]["eu"] = dict(config["stores"]["main"])
    config |= {"default_store": "main", "tenants": {"store": {"acme": "eu"}}}
    acl = api.connect(config)
    acl.scoped(who("acme")).upsert([chunk()])
    acl.scoped(who("globex")).upsert([chunk()])
    shelves = {name: acl.tap(name) for name in ("main", "eu")}
    assert acl.scoped(who("acme")).count() == 1
    assert acl.scoped(who("globex")).count() == 1
    assert [one.partition for one in shelves["eu"].requests] == ["acme"]
    assert [one.partition for one in shelves["main"].requests] == ["globex"]


def test_the_version_of_the_default_policy_follows_its_tenants():
    assert TenantPolicy(["a"]).version != TenantPolicy(["b"]).version
    assert TenantPolicy(["a", "b"]).version == TenantPolicy(["b", "a"]).version
    for bad in ("", "*", "a ", None):
        with pytest.raises(InvalidTenantError):
            TenantPolicy([bad])


def test_explain_says_what_is_visible_and_nothing_of_others(acl, who, chunk):
    acl.scoped(who()).upsert([chunk("c1", "mine"), chunk("c2", "mine")])
    acl.scoped(who("globex")).upsert([chunk("c1", "theirs")])
    mine = acl.explain(who(), document="mine")
    assert (mine.permit, mine.visible, mine.document_visible) == (True, 2, 2)
    theirs, missing = acl.explain(who(), document="theirs"), acl.explain(who(), document="missing")
    assert theirs.document_visible == missing.document_visible == 0
    assert theirs.summary().replace("theirs", "missing") == missing.summary()


def test_explain_where_only_searching_is_permitted(api, who):
    def decide(principal, action):
        return permit(Grant("acme", ALWAYS)) if action == "search" else Decision.deny("only search", "1")

    acl = api.connect(policy=Rules(decide))
    found = acl.explain(who(), "search")
    assert (found.permit, found.visible) == (True, None)
    assert acl.explain(who(), "count").permit is False
