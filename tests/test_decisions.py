"""How long a decision lives: the cache, its clocks, the look before the send, and policies that wait."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vectoracl
from vectoracl import ALWAYS, Chunk, ConfigError, Decision, DeniedError, F, Grant, Principal, Scope, StoreError, testing
from vectoracl.audit.sinks import MemorySink

V = [1.0, 0.0, 0.0]
DOCUMENTS = ("a", "b", "c")
TENANTS = ("acme", "globex")


class Time:
    """Both clocks; the wall clock may be set, the monotonic one only goes on."""

    def __init__(self):
        self.wall, self.tick = 1_700_000_000.0, 50.0

    def on(self, seconds):
        self.wall += seconds
        self.tick += seconds

    def of(self, acl):
        acl.pipeline.clock, acl.pipeline.monotonic = lambda: self.wall, lambda: self.tick
        return acl


class Rights:
    """A policy that looks in the application's own tables: who may see which documents."""

    def __init__(self, kind, time_):
        self.kind, self.time, self.number = kind, time_, 0
        self.table = {}
        self.raises = None
        self.asked = 0

    @property
    def version(self):
        return {"none": None, "constant": "rules-1"}.get(self.kind, f"rules-{self.number}")

    def decide(self, principal, action):
        self.asked += 1
        if self.raises is not None:
            raise self.raises
        documents = self.table.get((principal.tenant, principal.id), frozenset())
        until = self.time.wall + 2 if self.kind == "until" else None
        if not documents:
            return Decision(False, Scope(), ("nothing",), self.version, until)
        grant = Grant(principal.tenant, F["@document"].in_(sorted(documents)))
        return Decision(True, Scope((grant,)), ("table",), self.version, until)


def config(**policy):
    store = {"adapter": "memory", "dimension": 3, "metadata": {"lang": "keyword"}}
    return {
        "version": 1,
        "default_store": "one",
        "stores": {"one": store, "two": store},
        "tenants": {"store": {"globex": "two"}},
        "policy": policy,
    }


def person(name, tenant):
    return Principal(name, tenant, authenticated_by="test")


def opened(api, rights, **policy):
    """Return an ACL over two stores that hold three documents of each tenant, written before *rights* decide."""
    acl = api.connect(config(**policy), policy=rights)
    rights.time.of(acl.real)
    for tenant in TENANTS:
        rights.table[tenant, "writer"] = frozenset(DOCUMENTS)
        chunks = [Chunk("c", document, "text", V, metadata={"lang": "en"}) for document in DOCUMENTS]
        acl.scoped(person("writer", tenant)).upsert(chunks)
    return acl


def documents(hits):
    return frozenset(hit.document for hit in hits)


# Each returns the documents that are seen, by another operation.
LOOKS = {
    "search": lambda acl, who, docs: documents(docs.search(V)),
    "search_many": lambda acl, who, docs: documents(hit for one in docs.search_many([V, V]) for hit in one),
    "fetch": lambda acl, who, docs: documents(docs.fetch(["c"])),
    "page": lambda acl, who, docs: documents(docs.page().hits),
    "scan": lambda acl, who, docs: documents(docs.scan(size=1)),
    "narrowed": lambda acl, who, docs: documents(docs.narrow(F.lang == "en").search(V)),
    "facets": lambda acl, who, docs: frozenset(one.value for one in docs.facets("@document")),
    "explain": lambda acl, who, docs: frozenset(
        one for one in DOCUMENTS if acl.explain(who, document=one).document_visible
    ),
}

person_ = st.tuples(st.sampled_from(TENANTS), st.sampled_from(["ann", "bob"]))
step = st.one_of(
    st.tuples(st.just("set"), person_, st.frozensets(st.sampled_from(DOCUMENTS))),
    st.tuples(st.just("on"), st.sampled_from([0.1, 1.0, 2.0, 4.9, 5.0, 60.0])),
    st.tuples(st.just("wall"), st.sampled_from([-3600.0, -3.0, 3600.0])),
    st.tuples(st.just("look"), person_, st.sampled_from(sorted(LOOKS)), st.booleans()),
)
steps = st.lists(step, min_size=4, max_size=25)


@pytest.mark.parametrize("kind", ["none", "constant", "counted", "until"])
@pytest.mark.parametrize("form", ["sync", "async"])
@settings(max_examples=25, deadline=None)
@given(steps=steps)
def test_nobody_sees_longer_than_a_decision_lives(make_api, form, kind, steps):
    """Against a model: what is seen is what was granted now, or at a moment that a decision may still be from."""
    api, time_ = make_api(form), Time()
    try:
        rights = Rights(kind, time_)
        acl = opened(api, rights)
        back = False
        life = {"none": 0.0, "constant": 5.0, "counted": 0.0, "until": 2.0}[kind]
        history = {(tenant, name): [(-math.inf, frozenset())] for tenant in TENANTS for name in ("ann", "bob")}
        handles = {}
        for what, *args in steps:
            if what == "set":
                who, granted = args
                rights.table[who] = granted
                rights.number += 1
                history[who].append((time_.tick, granted))
            elif what == "on":
                time_.on(args[0])
            elif what == "wall":
                time_.wall += args[0]
                back = back or args[0] < 0
            else:
                who, name, kept = args
                principal = person(who[1], who[0])
                docs = handles.setdefault(who, acl.scoped(principal)) if kept else acl.scoped(principal)
                try:
                    seen = LOOKS[name](acl, principal, docs)
                except DeniedError:
                    seen = frozenset()
                told = history[who]
                # What was in force at some moment of the last `life` seconds, by the clock that nobody can set.
                ends = [then for then, _ in told[1:]] + [math.inf]
                allowed = [one for (_, one), end in zip(told, ends, strict=True) if time_.tick - end < life]
                # A moment that the policy names by a clock that was set back may be over: then it is a denial.
                assert seen in allowed or (kind == "until" and back and not seen), (name, seen, allowed)
    finally:
        api.close()


def test_a_revocation_arrives_at_once_without_a_version(api):
    rights = Rights("none", Time())
    acl = opened(api, rights)
    docs = acl.scoped(person("ann", "acme"))
    for granted in (frozenset("ab"), frozenset("b"), frozenset(), frozenset("abc")):
        rights.table["acme", "ann"] = granted
        if granted:
            assert documents(docs.search(V)) == granted
        else:
            with pytest.raises(DeniedError):
                docs.search(V)
    assert acl.records[-1]["policy"] is None


def test_a_constant_version_lives_for_decision_ttl(api):
    for ttl in (0.0, 1.5, 5.0):
        time_ = Time()
        rights = Rights("constant", time_)
        acl = opened(api, rights, decision_ttl=ttl)
        rights.table["acme", "ann"] = frozenset("ab")
        docs = acl.scoped(person("ann", "acme"))
        assert docs.count() == 2
        rights.table["acme", "ann"] = frozenset("b")
        assert docs.count() == (1 if ttl == 0 else 2)
        time_.on(ttl)
        assert docs.count() == 1


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "5 s", 3_601])
def test_decision_ttl_is_checked(value):
    if value is True:
        assert vectoracl.Config.model_validate(config(decision_ttl=1)).policy.decision_ttl == 1.0
        return
    with pytest.raises(ConfigError, match="decision_ttl"):
        vectoracl.connect(config(decision_ttl=value))


@pytest.mark.parametrize("until", [-math.inf, 0.0, -1.0, 0])
def test_a_decision_that_has_ended_is_not_used(api, until):
    time_ = Time()

    class Ended(Rights):
        def decide(self, principal, action):
            end = until if until < -1 else time_.wall + until
            return Decision(True, Scope((Grant(principal.tenant, ALWAYS),)), ("r",), self.version, end)

    for kind in ("none", "constant"):
        acl = api.connect(config(), policy=Ended(kind, time_))
        time_.of(acl.real)
        port = acl.tap("one")
        with pytest.raises(DeniedError, match="no longer valid"):
            acl.scoped(person("ann", "acme")).count()
        assert port.requests == []
        assert (acl.records[-1]["permit"], acl.outcomes[-1]["outcome"]) == (False, "denied")


class Slow:
    """Lets time pass, by the fake clocks, while it is asked."""

    def __init__(self, time_, policy=0.0, embedding=0.0, **more):
        self.time, self.policy, self.embedding = time_, policy, embedding
        self.version = more.get("version")
        self.valid = more.get("valid")
        self.scope = Scope((Grant("acme", ALWAYS),))
        self.asked = 0
        self.name, self.dimension = "slow", 3

    def decide(self, principal, action):
        self.asked += 1
        self.time.on(self.policy)
        until = None if self.valid is None else self.time.wall + self.valid
        return Decision(bool(self.scope.grants), self.scope, ("r",), self.version, until)

    def embed_documents(self, texts):
        self.time.on(self.embedding)
        return [V for _ in texts]

    embed_queries = embed_documents


def test_a_principal_that_expires_while_the_policy_decides(api, chunk):
    time_ = Time()
    acl = api.connect(config(), policy=Slow(time_, policy=10))
    time_.of(acl.real)
    port = acl.tap("one")
    docs = acl.scoped(Principal("ann", "acme", authenticated_by="test", expires_at=time_.wall + 5))
    for call in (docs.count, lambda: docs.search(V), lambda: docs.upsert([chunk()])):
        with pytest.raises(DeniedError, match="expired"):
            call()
    assert port.requests == []


@pytest.mark.parametrize("call", ["search", "upsert", "replace"])
def test_expiry_is_seen_after_embedding(api, call):
    time_ = Time()
    slow = Slow(time_, embedding=10)
    acl = api.connect(config(), policy=slow, embedder=slow)
    time_.of(acl.real)
    port = acl.tap("one")
    calls = {
        "search": lambda docs: docs.search("some text"),
        "upsert": lambda docs: docs.upsert([Chunk("c", "d", "some text")]),
        "replace": lambda docs: docs.replace("d", [Chunk("c", "d", "some text")]),
    }
    with pytest.raises(DeniedError, match="expired") as caught:
        calls[call](acl.scoped(Principal("ann", "acme", authenticated_by="test", expires_at=time_.wall + 5)))
    assert port.requests == []
    assert [one["outcome"] for one in acl.outcomes] == ["denied"]
    assert caught.value.decision_id == acl.records[-1]["id"]
    # Not expired, but decided longer ago than a decision lives: the policy is asked again, and nothing has changed.
    before = slow.asked
    calls[call](acl.scoped(person("ann", "acme")))
    assert slow.asked == before + 2
    assert len(acl.records) == 2
    # And here something has.

    def revoked(texts):
        time_.on(10)
        slow.scope = Scope()
        return [V for _ in texts]

    slow.embed_documents = slow.embed_queries = revoked
    before = len(port.requests)
    with pytest.raises(DeniedError):
        calls[call](acl.scoped(person("ann", "acme")))
    assert len(port.requests) == before


def test_a_narrower_scope_after_embedding_is_a_denial(api):
    time_ = Time()
    slow = Slow(time_)
    acl = api.connect(config(), policy=slow, embedder=slow)
    time_.of(acl.real)
    port = acl.tap("one")

    def embed(texts):
        time_.on(6)
        slow.scope = Scope((Grant("acme", F["@document"] == "d"),))
        return [V for _ in texts]

    slow.embed_queries = embed
    with pytest.raises(DeniedError, match="changed during"):
        acl.scoped(person("ann", "acme")).search("text")
    assert port.requests == []


@pytest.mark.parametrize("write", [False, True])
def test_expiry_is_seen_before_each_further_try(api, chunk, write):
    time_ = Time()
    acl = api.connect(config())
    time_.of(acl.real)
    port = acl.tap("one")

    def fails(request, go):
        time_.on(3)
        raise StoreError("busy", code="unavailable", sent="no", retryable=True)

    port.answer = fails
    docs = acl.scoped(Principal("ann", "acme", authenticated_by="test", expires_at=time_.wall + 5))
    with pytest.raises(DeniedError, match="expired"):
        docs.upsert([chunk()]) if write else docs.count()
    assert len(port.requests) == 2  # of three tries
    assert acl.outcomes[-1]["outcome"] == "denied"


@pytest.mark.parametrize("kind", ["constant", "until"])
@pytest.mark.parametrize("back", [0.5, 3.0, 1000.0])
def test_a_clock_that_is_set_back_keeps_no_decision_alive(api, kind, back):
    time_ = Time()
    rights = Rights(kind, time_)
    acl = opened(api, rights)
    rights.table["acme", "ann"] = frozenset("ab")
    docs = acl.scoped(person("ann", "acme"))
    for _ in range(4):
        assert docs.count() == 2
        time_.wall -= back
    rights.table["acme", "ann"] = frozenset("b")
    time_.tick += 5
    assert docs.count() == 1
    time_.wall -= back
    rights.table["acme", "ann"] = frozenset()
    with pytest.raises(DeniedError):
        docs.count()


@pytest.mark.parametrize("said", [math.nan, math.inf, -math.inf, None, "later"])
def test_a_clock_that_says_no_time_expires_everybody(api, said):
    acl = api.connect(config())
    acl.real.pipeline.clock = lambda: said
    with pytest.raises(DeniedError, match="expired"):
        acl.scoped(Principal("ann", "acme", authenticated_by="test", expires_at=4e9)).count()
    assert acl.scoped(person("ann", "acme")).count() == 0
    assert acl.records[-1]["time"] is None


ERRORS = [
    ValueError("the policy's own words"),
    StopIteration(5),
    TimeoutError(),
    DeniedError("x", action="y"),
    StoreError("x", code="timeout", sent="no"),
    StoreError("x", code="timeout"),
    StoreError("x"),
    vectoracl.ScopeViolationError("v"),
    vectoracl.RefusedError("r"),
    MemoryError(),
    TimeoutError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("where", ["decide", "version"])
def test_whatever_a_policy_raises_is_a_denial_with_a_record(api, error, debug, where, caplog):
    class Raises:
        @property
        def version(self):
            if where == "version":
                raise error
            return "1"

        def decide(self, principal, action):
            raise error

    acl = api.connect(config() | {"debug_errors": debug}, policy=Raises())
    port = acl.tap("one")
    with caplog.at_level(logging.WARNING, "vectoracl"), pytest.raises(DeniedError, match="the policy failed") as caught:
        acl.scoped(person("ann", "acme")).count(timeout=20)
    assert (acl.records[-1]["permit"], acl.outcomes[-1]["outcome"]) == (False, "denied")
    assert port.requests == []
    assert caught.value.__cause__ is (error if debug else None)
    assert caught.value.__context__ is None
    assert type(error).__name__ in caplog.text
    assert str(error) in caplog.text


class Waits:
    """A policy that waits for *seconds* in each place."""

    def __init__(self, seconds, where="decide", version="1"):
        self.seconds, self.where, self._version = seconds, where, version
        self.threads = set()

    @property
    def version(self):
        if self.where == "version":
            time.sleep(self.seconds)
        return self._version

    def decide(self, principal, action):
        self.threads.add(threading.get_ident())
        if self.where == "decide":
            time.sleep(self.seconds)
        return Decision(True, Scope((Grant(principal.tenant, ALWAYS),)), (SEEN.get(),), self._version)


SEEN = contextvars.ContextVar("seen", default="nothing")


@pytest.mark.parametrize("where", ["decide", "version"])
def test_a_time_limit_holds_while_a_policy_waits(api, where):
    acl = api.connect(config(), policy=Waits(2.0, where))
    docs = acl.scoped(person("ann", "acme"))
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        docs.count(timeout=0.3)
    assert (caught.value.code, caught.value.sent) == ("timeout", "no")
    assert time.monotonic() - begun < 1.5
    assert docs.count(timeout=20) == 0


class WaitingSink(MemorySink):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def write(self, record):
        time.sleep(self.seconds)
        super().write(record)


def test_a_time_limit_holds_while_a_sink_waits(api):
    sink = WaitingSink(2.0)
    acl = api.connect(config(), sink=sink)
    port = acl.tap("one")
    docs = acl.scoped(person("ann", "acme"))
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        docs.count(timeout=0.3)
    assert (caught.value.code, caught.value.sent) == ("timeout", "no")
    assert time.monotonic() - begun < 1.5
    assert port.requests == []
    sink.seconds = 0
    assert docs.count() == 0
    while len(sink.records) < 2:
        time.sleep(0.02)
    # The one that was late is in the file after all, so its outcome is there too.
    assert {one["id"] for one in sink.records} == {one["decision"] for one in sink.outcomes}


@pytest.mark.parametrize("part", ["decide", "version", "sink"])
def test_other_tasks_go_on_while_it_waits(part):
    sink = WaitingSink(0.5) if part == "sink" else MemorySink()
    policy = Waits(0.5, part)

    async def go():
        acl = vectoracl.aconnect(config(), policy=policy, sink=sink)
        await acl.open()
        ticks = []

        async def tick():
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.01)

        task = asyncio.create_task(tick())
        await acl.scoped(person("ann", "acme")).count()
        task.cancel()
        await acl.close()
        return ticks

    assert len(asyncio.run(go())) > 8


def test_a_policy_sees_the_context_of_its_caller(api):
    policy = Waits(0.0, version=None)
    acl = api.connect(config(), policy=policy)
    docs = acl.scoped(person("ann", "acme"))
    token = SEEN.set("the caller's")
    try:
        docs.count()
    finally:
        SEEN.reset(token)
    assert acl.records[-1]["reasons"] == ["the caller's"] if not api.is_async else True
    policy.same_thread = True
    docs.count()
    assert policy.threads >= {threading.get_ident()}


def test_a_cancelled_call_leaves_an_outcome_of_its_record():
    async def go():
        sink = WaitingSink(0.2)
        acl = vectoracl.aconnect(config(), sink=sink)
        await acl.open()
        task = asyncio.create_task(acl.scoped(person("ann", "acme")).count())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.4)
        await acl.close()
        return [one["id"] for one in sink.records], [(one["decision"], one["outcome"]) for one in sink.outcomes]

    (record,), outcomes = asyncio.run(go())
    assert outcomes == [(record, "cancelled")]


def test_late_denials_are_denials(api, chunk):
    """What the rows themselves refuse is recorded as what it is."""
    acl = api.connect()
    docs = acl.scoped(testing.principal(tenant="acme"))
    docs.upsert([chunk("c", "d", lang="z")])
    calls = [
        lambda: docs.narrow(F.lang == "a").upsert([chunk("c", "d", lang="a")]),
        lambda: docs.narrow(F.lang == "a").upsert([chunk("n", "d", lang="b")]),
        lambda: docs.narrow(F.lang == "a").replace("d", [chunk("c", "d", lang="a")]),
        lambda: docs.narrow(actions=["search"]).count(),
    ]
    for call in calls:
        with pytest.raises(DeniedError) as caught:
            call()
        assert [one["outcome"] for one in acl.outcomes if one["decision"] == caught.value.decision_id] == ["denied"]
