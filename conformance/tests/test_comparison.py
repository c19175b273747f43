"""The comparison of answers and rows: what is a difference, and what a store may do differently."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectoracl import Chunk, F, Hybrid, Lexical, Principal
from vectoracl.client.bulk_load import LoadReport
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Facet, Page, Record, Result, Tag, Written, hit_of
from vectoracl_conformance.checks.reference_checks import _memory_capabilities
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.generated.calls import After, Call
from vectoracl_conformance.generated.comparison import Comparison, structure_problem
from vectoracl_conformance.generated.content import Census, Precision, chunk_bytes, same
from vectoracl_conformance.generated.pair import Pair, too_large
from vectoracl_conformance.generated.parameters import plan_data, plan_writes
from vectoracl_conformance.generated.reference import LoadError, Reference, Side
from vectoracl_conformance.generated.sequences import Drawn, Walk
from vectoracl_conformance.generated.world import build_world
from vectoracl_conformance.harness import Needs
from vectoracl_conformance.harnesses.memory import MemoryStore, census_text
from vectoracl_conformance.isolated.process import Far

CAPABILITIES = replace(_memory_capabilities(MemoryStore(Needs(4, {}))), dimension=4)
WHO = Principal("u", "a", authenticated_by="a test")


def hit(name, score=0.0, document="d", **parts):
    tag = Tag("a", document, name, time=5.0)
    metadata = parts.get("metadata", {})
    return hit_of(tag, score, parts.get("text", "text"), metadata, parts.get("vector"))


def result(*hits, complete=True):
    return Result(hits, complete=complete, shortfall=None if complete else "a reason", decision_id="1")


def search(**arguments):
    return Call(WHO, "search", {"query": [1.0, 0, 0, 0], **arguments})


def problem(call, right, got, wide=(), **options):
    capabilities = replace(CAPABILITIES, **options.pop("declared", {}))
    comparison = Comparison(capabilities, lambda _: ("ok", wide), dict, **options)
    return comparison.problem(call, ("ok", right), ("ok", got))


A, B, C = hit("a", 0.9), hit("b", 0.5), hit("c", 0.50001)


@pytest.mark.parametrize(
    ("right", "got"),
    [
        (1, True),
        (1.0, True),
        (0, None),
        ("1", 1),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 1, "b": None}),
        (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1)),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1.5}]}),
    ],
)
def test_values_have_types(right, got):
    assert not same(right, got)
    assert same(right, right)


def test_a_store_may_keep_numbers_as_doubles():
    assert same({"a": [1, 2]}, {"a": [1.0, 2.0]})
    assert same(-1e300, -(10**300))
    assert not same(2**53 - 1, 2**53)


def test_equal_scores_come_in_any_order():
    assert problem(search(), result(A, C, B), result(A, B, C), [A, C, B]) is None
    assert "nearer" in problem(search(), result(A, B), result(B, A), [A, B])


def test_at_the_end_a_row_of_an_equal_score_may_come_instead():
    assert problem(search(k=2), result(A, C), result(A, B), [A, C, B]) is None
    far = hit("far", 0.1)
    assert "missing" in problem(search(k=2), result(A, C), result(A, far), [A, C, B, far])
    assert "must not" in problem(search(k=2), result(A, C), result(A, hit("x", 0.5)), [A, C, B])


def test_rows_near_the_lowest_score_may_be_missing():
    assert problem(search(min_score=0.5), result(A, C), result(A), [A, C, B]) is None
    assert "missing" in problem(search(min_score=0.4), result(A, C), result(A), [A, C, B])
    assert "below" in problem(search(min_score=0.6), result(A), result(A, B), [A, C, B])


def test_what_is_not_complete_may_be_less_but_never_wrong():
    assert problem(search(), result(A, B), result(B, complete=False), [A, B]) is None
    assert "missing" in problem(search(exact=True), result(A, B), result(B, complete=False), [A, B])
    assert "must not" in problem(search(), result(A), result(B, complete=False), [A])
    assert "1 were asked for" in problem(search(k=1), result(A), result(A, B, complete=False), [A, B])
    assert "hits of one document" in problem(
        search(group_by="document"), result(A), result(A, B, complete=False), [A, B]
    )
    assert "score" in problem(search(), result(A), result(A._replace(score=0.8), complete=False), [A])


def test_groups():
    one, two, three = hit("1", 0.9, "d"), hit("2", 0.8, "d"), hit("3", 0.1, "e")
    call = search(group_by="document", k=1, per_group=1)
    assert problem(call, result(one), result(one), [one, two, three]) is None
    assert "were asked for" in problem(call, result(one), result(one, three), [one, two, three])
    assert "missing" in problem(call, result(one), result(two), [one, two, three])
    assert "missing" in problem(call, result(one), result(three), [one, two, three])


def test_content_is_compared():
    for name, value in (("text", "other"), ("metadata", {"n": 1.0}), ("vector", np.ones(4, np.float32))):
        right = hit("a", 0.9, metadata={"n": 2}, vector=np.eye(4, dtype=np.float32)[0])
        assert problem(search(), result(right), result(right), [right]) is None
        assert "a" in problem(search(), result(right), result(right._replace(**{name: value})), [right])
        assert "without" in problem(search(include={name}), result(right), result(right._replace(**{name: None})))


def test_more_than_was_asked_for_has_to_be_right():
    row = Record(Tag("a", "d", "a", time=5.0), "text", np.eye(4, dtype=np.float32)[0], {})
    comparison = Comparison(CAPABILITIES, lambda _: ("ok", []), lambda: {("a", "d", "a"): row})
    bare = A._replace(text=None, metadata=None)
    call = search(include=set())
    assert comparison.problem(call, ("ok", result(bare)), ("ok", result(A))) is None
    assert "text" in comparison.problem(call, ("ok", result(bare)), ("ok", result(A._replace(text="of another"))))


def test_words_are_judged_by_membership_number_and_order():
    call = Call(WHO, "search", {"query": Lexical("text"), "k": 2})
    one, other = A._replace(score=7.0), B._replace(score=3.0)
    assert problem(call, result(A, B), result(other, one), [A, B]) is not None
    assert problem(call, result(A, B), result(one, other), [A, B]) is None
    assert "instead of 2" in problem(call, result(A, B), result(one), [A, B])
    assert "score" in problem(call, result(A, B), result(one, other), [A, B], words=True)


def test_a_store_that_ranks_words_like_the_reference_always_has_to():
    comparison = Comparison(CAPABILITIES, lambda _: ("ok", [A, B]), dict)
    call = Call(WHO, "search", {"query": Lexical("text"), "k": 2})
    fusion = Call(WHO, "search", {"query": Hybrid("text", [1.0, 0, 0, 0])})
    alike, other = ("ok", result(A, B)), ("ok", result(A._replace(score=9.0), B))
    comparison.calibrate([(call, alike, alike)] * 9 + [(fusion, alike, alike), (fusion, alike, other)])
    assert comparison.ranked_alike == {"lexical"}
    assert comparison.problem(call, alike, other) is not None
    assert comparison.problem(fusion, alike, other) is None


def fused_problem(got, *, k=10, dense=(A, C, B), lexical=(A, B, C)):
    def wider(call):
        query = call.arguments["query"]
        legs = {Lexical: lexical, Hybrid: dense, list: dense}
        return "ok", list(legs[type(query)])

    comparison = Comparison(CAPABILITIES, wider, dict, words=True)
    call = Call(WHO, "search", {"query": Hybrid("text", [1.0, 0, 0, 0]), "k": k})
    return comparison.problem(call, ("ok", result(hit("z", 1.0))), ("ok", result(*got)))


def at(one, *ranks):
    return one._replace(score=sum(1 / (60 + rank) for rank in ranks))


def test_near_ties_of_a_leg_may_change_ranks_and_so_fused_scores():
    words = (A._replace(score=3.0), B._replace(score=2.0), C._replace(score=1.0))
    right = at(A, 1, 1), at(B, 3, 2), at(C, 2, 3)
    swapped = at(A, 1, 1), at(B, 2, 2), at(C, 3, 3)  # B and C are equally near
    assert fused_problem(right, lexical=words) is None
    assert fused_problem(swapped, lexical=words) is None
    # A foreign row stood in a leg, and was left out afterwards.
    assert "between" in fused_problem((at(A, 2, 2), at(B, 3, 3), at(C, 4, 4)), lexical=words)
    assert "between" in fused_problem((at(A, 1, 1), at(C, 2, 2), at(B, 3, 3)), lexical=words)


def test_a_leg_is_read_as_deep_as_the_search_asks_for():
    words = (A._replace(score=3.0),)
    dense = (B._replace(score=0.9), C._replace(score=0.8), A._replace(score=0.1))
    assert fused_problem((at(A, 1, 3),), k=1, dense=dense, lexical=words) is None
    assert fused_problem((at(A, 1), at(B, 1)), k=2, dense=dense, lexical=words) is None
    assert "between" in fused_problem((at(A, 1), at(B, 1), at(C, 2)), k=3, dense=dense, lexical=words)
    assert "missing" in fused_problem((at(A, 1, 3), at(C, 2)), k=2, dense=dense, lexical=words)


def test_the_ranks_of_a_fused_score_are_those_of_one_partition():
    other = B._replace(tenant="b")
    dense = (A._replace(score=0.9), other._replace(score=0.8), C._replace(score=0.1))
    words = (other._replace(score=3.0), A._replace(score=2.0), C._replace(score=1.0))
    assert fused_problem((at(A, 1, 1), at(other, 1, 1), at(C, 2, 2)), dense=dense, lexical=words) is None
    over_all = at(A, 1, 2), at(other, 2, 1), at(C, 3, 3)
    assert "between" in fused_problem(over_all, dense=dense, lexical=words)


def test_a_hybrid_query_is_judged_by_the_words_scores_of_the_store_itself():
    query = Hybrid("text", [1.0, 0, 0, 0])
    call = Call(WHO, "search", {"query": query, "k": 10})
    words = Call(WHO, "search", {"query": Lexical("text")})
    own = result(C._replace(score=9.0), B._replace(score=8.0))
    dense = [A._replace(score=0.9), B._replace(score=0.5), C._replace(score=0.4)]
    comparison = Comparison(CAPABILITIES, lambda _: ("ok", dense), dict)
    comparison.follow = lambda _: ("ok", own)
    ours = ("ok", result(at(A, 1, 1), at(B, 2, 2), at(C, 3, 3)))
    good = ("ok", result(at(C, 3, 1), at(B, 2, 2), at(A, 1)))
    comparison.calibrate([(words, ("ok", result(A, B)), ("ok", own)), (call, ours, good)])
    assert comparison.ranked_alike == {"hybrid"}
    assert comparison.problem(call, ours, good) is None
    assert "between" in comparison.problem(call, ours, ("ok", result(at(C, 4, 2), at(B, 3, 3), at(A, 1))))


def test_errors_are_told_apart_by_class_and_code():
    comparison = Comparison(CAPABILITIES, lambda _: ("ok", []), dict)
    denied = ("error", ("DeniedError", "DeniedError", "no", {"code": "denied"}))
    assert (
        comparison.problem(search(), denied, ("error", ("DeniedError", "Mine", "it may not", {"code": "denied"})))
        is None
    )
    assert comparison.problem(search(), denied, ("error", ("StoreError", "StoreError", "no", {"code": "denied"})))
    assert comparison.problem(search(), denied, ("ok", result()))


def test_counts_of_deletes():
    call = Call(WHO, "delete", {"document": "d"})
    assert problem(call, Written(2), Written(None)) is not None
    assert problem(call, Written(2), Written(None), declared={"delete_counts": False}) is None
    assert problem(call, Written(2), Written(1), declared={"delete_counts": False}) is not None


def test_pages_lists_and_facets():
    page = Call(WHO, "page", {})
    assert problem(page, Page((A, B), "x"), Page((A, B), "another")) is None
    assert "cursor" in problem(page, Page((A,), None), Page((A,), "x"))
    comparison = Comparison(CAPABILITIES, lambda _: ("ok", []), dict)
    comparison.follow = lambda call: (
        ("ok", Page((), None)) if call.arguments["after"] == "x" else ("ok", Page((A,), None))
    )
    assert comparison.problem(page, ("ok", Page((A,), None)), ("ok", Page((A,), "x"))) is None
    assert comparison.problem(page, ("ok", Page((A,), None)), ("ok", Page((A,), "y"))) is not None
    assert "comes first" in problem(page, Page((A, B), None), Page((B, A), None))
    assert "missing" in problem(Call(WHO, "fetch", {"ids": ["a"]}), [A], [])
    assert "twice" in problem(Call(WHO, "fetch", {"ids": ["a"]}), [A], [A, A])
    facets = Call(WHO, "facets", {"field": "n"})
    assert problem(facets, [Facet(1, 2)], [Facet(1, 2)]) is None
    assert problem(facets, [Facet(1, 2)], [Facet(1.0, 2)]) is not None
    assert problem(facets, [Facet("a", 1), Facet("b", 1)], [Facet("b", 1), Facet("a", 1)]) is not None


def test_an_answer_of_a_new_form_is_compared_part_by_part():
    assert structure_problem([{"a": (1, 2)}], [{"a": (1, 2)}]) is None
    assert structure_problem(Chunk("a", "b", "c"), Chunk("a", "b", "d")).startswith("text")


def record(name, generation=0, time=5.0, **parts):
    return Record(Tag("a", "d", name, generation, time=time), parts.get("text", "t"), np.ones(4, np.float32), {})


def test_a_census_shows_what_a_write_did_and_what_it_did_not():
    precision = Precision.of(CAPABILITIES)
    right = Census([record("a"), record("b")])
    got = Census([record("a", 7), record("b", 7)])
    assert got.problem(right, precision) is None
    assert "lost" in Census([record("a")]).problem(right, precision)
    assert "never written" in Census([record("a"), record("b"), record("c")]).problem(right, precision)
    assert "twice" in Census([record("a"), record("b"), record("b", 1)]).problem(right, precision)
    assert "generations" in Census([record("a"), record("b", 1)]).problem(right, precision)
    assert "text" in Census([record("a"), record("b", text="x")]).problem(right, precision)
    after = Census([record("a"), record("b")], right), Census([record("a", 7, time=9.0), record("b", 7)], got)
    assert "wrote" in after[1].problem(after[0], precision, (right, got))
    assert not after[1].same(got)


CHUNKS = [Chunk(f"c{n}", f"d{n % 2}", f"text {n}", np.eye(4)[n % 4] + 0.1 * n, n, {"n": n}) for n in range(9)]


@pytest.fixture(scope="module")
def pair():
    fields = {"n": "number"}
    rules = {"narrow": {key: {"a": F.n < 3} for key in ("search", "fetch", "count", "scan", "upsert")}}
    far = Far()
    settings = {"adapter": "memory", "dimension": 4, "metric": "cosine", "name": "x"}
    far.ask("source", census_text(settings))
    side = Side(far, settings, fields, rules)
    side.open(provision=True)
    reference = Reference(fields, rules, CAPABILITIES)
    reference.open()
    comparison = Comparison(CAPABILITIES, reference.wider, lambda: both.rows(), words=True)
    both = Pair([side], reference, comparison)
    for one in (side, reference):
        one.load({"a": CHUNKS, "b": CHUNKS[:2]}, 4)
    assert both.compare_census() is None
    yield both
    side.end()
    reference.end()
    both.close()


def test_right_calls_are_equal(pair):
    narrow = Principal("narrow", "a", authenticated_by="a test")
    calls = [
        Call(who, method, arguments)
        for who in (WHO, narrow)
        for method, arguments in (
            ("search", {"query": [1.0, 0, 0, 0], "k": 3}),
            ("search", {"query": Lexical("text 3"), "k": 3}),
            ("page", {"size": 2, "after": After(1)}),
            ("count", {}),
            ("fetch", {"ids": ["c1", ("d0", "c8")]}),
            ("scan", {"size": 2}),
            ("count", {"where": 7}),
        )
    ]
    assert pair.perform([(mode, call) for call in calls for mode in ("sync", "async")]) == []
    assert pair.counts["sync"].full >= 10


@pytest.mark.parametrize(("sent", "wrong"), [("no", False), ("unknown", True)])
def test_a_call_in_flight_that_was_not_sent_is_made_again_alone(pair, monkeypatch, sent, wrong):
    step = Drawn("together", "sync", (Call(WHO, "count"),) * 3, 3)
    busy = ("error", ("StoreError", "StoreError", "no connection", {"code": "pool_timeout", "sent": sent}))
    monkeypatch.setattr(pair.store, "together", lambda mode, calls, _: [busy, *pair.store.calls(mode, calls[1:])])
    found = Walk(pair).step(step)
    assert bool(found) is wrong


@pytest.mark.parametrize(("answers", "wrong"), [("before after", False), ("after before", False), ("after foul", True)])
def test_a_read_in_flight_twice_may_see_the_rows_before_and_after_a_write(pair, monkeypatch, answers, wrong):
    read, write = (
        Call(WHO, "count"),
        Call(WHO, "upsert", {"chunks": [Chunk("new", "d9", "x", np.ones(4), 0, {"n": 1})]}),
    )

    def performed(mode, calls, _):
        state = {"before": pair.store.calls(mode, [read])[0]}
        done = pair.store.calls(mode, [write])[0]
        state |= {"after": pair.store.calls(mode, [read])[0], "foul": ("ok", 1)}
        seen = iter([state[name] for name in answers.split()])
        return [done if call == write else next(seen) for call in calls]

    monkeypatch.setattr(pair.store, "together", performed)
    assert bool(Walk(pair).step(Drawn("together", "sync", (read, write, read), 3))) is wrong


def test_a_read_of_several_requests_is_not_in_flight_beside_a_write_that_concerns_it(pair, monkeypatch):
    write = Call(WHO, "upsert", {"chunks": [Chunk("new", "d9", "x", np.ones(4), 0, {"n": 1})]})
    sent = []
    monkeypatch.setattr(
        pair.store, "together", lambda mode, calls, _: sent.extend(calls) or pair.store.calls(mode, calls)
    )
    reads = [Call(WHO, method) for method in ("scan", "count", "page")]
    assert Walk(pair).step(Drawn("together", "sync", (*reads, write), 4)) == []
    assert [call.method for call in sent] == ["upsert", "count"]


def test_writes_are_followed_by_a_census(pair):
    narrow = Principal("narrow", "a", authenticated_by="a test")
    inside, outside = (Chunk("new", "d9", "x", np.ones(4), 0, {"n": n}) for n in (1, 5))
    assert pair.perform([("sync", Call(narrow, "upsert", {"chunks": [inside]}))]) == []
    assert pair.perform([("async", Call(narrow, "upsert", {"chunks": [outside]}))]) == []
    assert pair.perform([("sync", Call(WHO, "delete", {"where": F.n > 6})), ("sync", Call(WHO, "count", {}))]) == []
    other = Principal("w", "b", authenticated_by="a test")
    lost = Call(other, "delete", {"document": "d0"})
    pair.store.calls("sync", [lost])
    (found,) = pair.perform([("sync", Call(WHO, "delete", {"document": "d1"}))])
    assert "has lost 'c0' of 'd0', tenant 'b'" in found.problem
    pair.reference.calls("sync", [lost])
    assert pair.compare_census() is None  # as the other tests expect


WRITES = {
    "document": Call(WHO, "delete", {"document": "d1"}),
    "ids": Call(WHO, "delete", {"ids": ["c2", "c4"]}),
    "filter": Call(WHO, "delete", {"where": F.n > 6}),
    "new": Call(WHO, "upsert", {"chunks": [Chunk("new", "d9", "x", np.ones(4), 0, {"n": 1})]}),
    "changed": Call(WHO, "upsert", {"chunks": [replace(CHUNKS[0], text="changed")]}),
}


@settings(max_examples=40, deadline=None)
@given(
    names=st.permutations(sorted(WRITES)),
    when=st.lists(st.sampled_from(["at once", "late", "never"]), min_size=2, max_size=2),
    foreign=st.booleans(),
    misread=st.booleans(),
)
def test_only_a_cancelled_write_itself_may_appear_in_a_later_step(pair, names, when, foreign, misread):
    """It goes on in the store after its caller has stopped waiting, and after it was looked at."""
    walk, reads = Walk(pair), (Call(WHO, "count"), Call(WHO, "scan", {"include": {"text", "vector"}}))
    writes, other = [WRITES[name] for name in names[:2]], WRITES[names[2]]

    def cut(mode, call, _):
        if when[writes.index(call)] == "at once":
            pair.store.calls(mode, [call])
        return "cut", None

    def calls(mode, some):
        answers = asked(mode, some)
        return [
            ("ok", 99) if misread and call.method == "count" else one for call, one in zip(some, answers, strict=True)
        ]

    asked = pair.store.calls
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair.store, "cut", cut)
        for write in writes:
            assert walk.step(Drawn("cut", "async", (write, *reads), 0.001)) == []
        performed = [call for call, time in zip(writes, when, strict=True) if time == "late"]
        asked("sync", [*performed, *([other] if foreign else [])])
        patch.setattr(pair.store, "calls", calls)
        found = walk.step(Drawn("calls", "sync", reads))
    try:
        assert bool(found) is (misread or foreign)
    finally:  # as the other tests expect
        for side in (pair.reference, pair.store):
            side.calls("sync", [Call(WHO, "delete", {"where": ALWAYS})])
            side.load({"a": CHUNKS}, 4)
        assert pair.agree()


OTHER_NUMBERS = """
from dataclasses import replace

class Other:
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def replace(self, operation):
        yield from self._inner.replace(replace(operation, records=operation.records[:1]))
        return (yield from self._inner.replace(operation))

def dress(opened):
    return replace(opened, adapter=Other(opened.adapter))
"""


@pytest.mark.parametrize("where", [~(F["@generation"] == 0), F["@docgen"] == "5:fresh:1"])
def test_generations_may_have_other_numbers_also_where_a_policy_names_them(where):
    """A store may begin with generation 1 where a document is replaced that it does not have."""
    fresh = [replace(CHUNKS[0], id=f"c{place}", document="fresh") for place in range(12)]
    rules = {"narrow": {key: {"a": where} for key in ("count", "scan", "delete")}}
    far, settings = Far(), {"adapter": "memory", "dimension": 4, "metric": "cosine", "name": "numbers"}
    far.ask("source", census_text(settings))
    far.ask("source", OTHER_NUMBERS)
    side, reference = Side(far, settings, {"n": "number"}, rules), Reference({"n": "number"}, rules, CAPABILITIES)
    for one in (side, reference):
        one.open(provision=one is side)
        one.load({"a": CHUNKS}, 4)
    made = Pair([side], reference, Comparison(CAPABILITIES, reference.wider, lambda: made.rows(), words=True))
    narrow = replace(WHO, id="narrow")
    write, read = Call(WHO, "replace", {"document": "fresh", "chunks": fresh}), Call(narrow, "count")
    again = Call(narrow, "delete", {"ids": ["c1", "c2"]})
    try:
        assert made.compare_census() is None
        for group in ([write, read, Call(narrow, "scan")], [read], [again, read], [write, again], [read, again, write]):
            assert made.perform([("sync", call) for call in group]) == []
        numbers = [
            {row.tag.generation for row in rows.values() if row.tag.document == "fresh"}
            for rows in (made.rows(), side.census().rows)
        ]
        assert numbers[0] == numbers[1] != {0}
        assert made.counts["sync"].full > 3
    finally:
        made.close()
        side.end()
        reference.end()


@pytest.fixture
def restored(pair):
    """Let this test and the next one find the rows that they expect, in whatever order the tests run."""

    def restore():
        for side in (pair.reference, pair.store):
            for tenant in ("a", "b"):
                side.calls("sync", [Call(replace(WHO, tenant=tenant), "delete", {"where": ALWAYS})])
                side.load({"a": CHUNKS, "b": CHUNKS[:2]} if tenant == "b" else {}, 4)
        assert pair.agree()

    restore()
    yield
    restore()


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("foreign", [True, False])
@pytest.mark.parametrize("others", [(), (replace(WRITES["document"], principal=replace(WHO, tenant="b")),)])
def test_a_part_of_a_cancelled_replacement_may_appear_where_readers_may_see_one(
    pair, monkeypatch, restored, atomic, foreign, others
):
    able = replace(pair.comparison.capabilities, atomic_replace=atomic)
    monkeypatch.setattr(pair.comparison, "capabilities", able)
    monkeypatch.setattr(pair.store, "cut", lambda mode, call, _: ("cut", None))
    new = [replace(CHUNKS[1], id=f"new {place}") for place in range(3)]
    walk, read = Walk(pair), Call(WHO, "count")
    cancelled = [Call(WHO, "replace", {"document": "d1", "chunks": new}), *others]
    for write in cancelled:
        assert walk.step(Drawn("cut", "async", (write,), 0.001)) == []
    part = Call(WHO, "upsert", {"chunks": new})  # the version before is still there, too
    pair.store.calls("sync", [part, *cancelled[1:], *([WRITES["new"]] if foreign else [])])
    assert bool(walk.step(Drawn("calls", "sync", (read,)))) is (atomic or foreign)
    if not (atomic or foreign):
        assert pair.compare_census() is None
        assert {key for key in pair.rows() if key[:2] == ("a", "d1")} == {("a", "d1", one.id) for one in new}


@pytest.mark.parametrize("hidden", [True, False])
def test_a_part_that_no_reader_sees_may_appear_where_a_write_is_declared_to_be_whole(
    pair, monkeypatch, restored, hidden
):
    """A store may keep rows that no reader sees until the next write."""
    write, elsewhere = WRITES["changed"], Call(replace(WHO, tenant="b"), "delete", {"document": "d1"})
    left = replace(CHUNKS[0], id="left behind")
    made_again = []

    def census(before=None):
        rows = list(real["census"]().rows.values())
        if hidden and not made_again:
            rows.append(rows[0]._replace(tag=rows[0].tag._replace(chunk=left.id)))
        return Census(rows, before)

    def calls(mode, some):
        made_again.extend(call for call in some if call is write)
        return real["calls"](mode, some)

    real = {"census": pair.store.census, "calls": pair.store.calls}
    monkeypatch.setattr(pair.store, "cut", lambda mode, call, _: ("cut", None))
    walk = Walk(pair)
    assert walk.step(Drawn("cut", "async", (write,), 0.001)) == []
    monkeypatch.setattr(pair.store, "census", census)
    monkeypatch.setattr(pair.store, "calls", calls)
    if not hidden:
        pair.store.calls("sync", [Call(WHO, "upsert", {"chunks": [left]})])
    assert bool(walk.step(Drawn("calls", "sync", (elsewhere,)))) is not hidden
    assert len(made_again) == hidden


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_failed_write_into_a_partition_that_the_policy_names_is_seen_whole_there(pair, monkeypatch, restored, part):
    rules = {"clerk": {key: {"b": ALWAYS} for key in ("upsert", "scan")}}
    for side in (pair.reference, pair.store):
        monkeypatch.setattr(side, "rules", {**side.rules, **rules})
    chunks = [replace(CHUNKS[place], id=f"new {place}") for place in range(2)]
    call = Call(replace(WHO, id="clerk"), "upsert", {"chunks": chunks})

    def attempt(mode, call):
        if part:
            pair.store.calls(mode, [replace(call, arguments={"chunks": chunks[:part]})])
        return [("error", ("StoreError", "StoreError", "lost", {"code": "unreachable", "sent": "unknown"}))]

    monkeypatch.setattr(pair.store, "attempt", attempt)
    monkeypatch.setattr(pair.store, "fail", lambda mode, plan: None)
    assert bool(Walk(pair).step(Drawn("fault", "sync", (call,), {2: "after"}))) is (part == 1)


@pytest.mark.parametrize("when", ["before the next step", "never"])
@pytest.mark.parametrize("how", ["a separate step", "the same step"])
def test_no_step_writes_where_a_cancelled_write_may_still_appear(pair, monkeypatch, restored, when, how):
    """A later write to the same rows would hide whether the cancelled one was performed."""
    late, last = WRITES["filter"], Call(WHO, "delete", {"where": F.n > 5})
    elsewhere = Call(replace(WHO, tenant="b"), "count")
    due = []

    def calls(mode, some):
        if due:
            asked("sync", [due.pop()])
        return asked(mode, some)

    def cut(mode, call, _):
        due.extend([call] if when != "never" else [])
        return "cut", None

    asked = pair.store.calls
    monkeypatch.setattr(pair.store, "cut", cut)
    monkeypatch.setattr(pair.store, "calls", calls)
    following = {
        "a separate step": [Drawn("cut", "async", (late,), 0.001), Drawn("calls", "sync", (Call(WHO, "count"), last))],
        "the same step": [Drawn("cut", "async", (late, last), 0.001)],
    }
    began = len(pair.history)
    assert Walk(pair).perform([*following[how], Drawn("calls", "sync", (elsewhere,))]) is None
    order = [step for _, step in pair.history[began:] if isinstance(step, Call) and step != late]
    assert order[0].principal.tenant == "b"
    assert order[-1].method == "delete"


@pytest.mark.parametrize("sent", ["no", "unknown"])
def test_a_write_that_was_not_sent_may_not_appear(pair, monkeypatch, restored, sent):
    late = ("error", ("StoreError", "StoreError", "too late", {"code": "timeout", "sent": sent}))
    monkeypatch.setattr(pair.store, "cut", lambda mode, call, _: late)
    walk = Walk(pair)
    assert walk.step(Drawn("cut", "sync", (WRITES["filter"],), 0.001)) == []
    pair.store.calls("sync", [WRITES["filter"]])
    assert bool(walk.step(Drawn("calls", "sync", (Call(WHO, "count"),)))) is (sent == "no")


def test_a_wrong_answer_of_a_write_stays_one_when_a_cancelled_write_appears(pair, monkeypatch, restored):
    monkeypatch.setattr(pair.store, "cut", lambda mode, call, _: ("cut", None))
    walk, other = Walk(pair), Call(replace(WHO, tenant="b"), "delete", {"document": "d1"})
    assert walk.step(Drawn("cut", "async", (WRITES["filter"],), 0.001)) == []
    pair.store.calls("sync", [WRITES["filter"]])
    asked = pair.store.calls

    def calls(mode, some):
        answers = asked(mode, some)
        return [("ok", Written(7, "id")) if call is other else one for call, one in zip(some, answers, strict=True)]

    monkeypatch.setattr(pair.store, "calls", calls)
    found = walk.step(Drawn("calls", "sync", (other, Call(WHO, "count"))))
    assert found
    assert "7 rows instead of 1" in found[0].problem


@pytest.mark.parametrize("way", ["calls", "together"])
def test_a_write_that_a_time_limit_ended_is_not_measured(pair, monkeypatch, way):
    late = ("error", ("StoreError", "StoreError", "too late", {"code": "timeout", "sent": "unknown"}))
    write = Call(WHO, "delete", {"document": "none"})
    monkeypatch.setattr(pair.store, "_ask", lambda how, number, own, *more: [late for _ in own])
    with pytest.raises(Abstain, match="within its time limit"):
        Walk(pair).step(Drawn(way, "sync", (write,), 2))


def test_a_read_that_was_not_sent_is_made_again_and_a_write_is_not():
    class Taken:
        free = 2

        def ask(self, what, number, messages, *more):
            data = {"code": "pool_timeout", "sent": "no"}
            self.free -= 1
            answer = ("ok", 1) if self.free < 0 else ("error", ("StoreError", "StoreError", "taken", data))
            return [answer] * len(messages)

    side = Side(Taken(), {}, {}, {}, clients={"sync": 1}, installed={1: {}})
    assert side.calls("sync", [Call(WHO, "count")]) == [("ok", 1)]
    side.far.free = 2
    assert side.calls("sync", [Call(WHO, "delete", {"ids": ["1"]})])[0][0] == "error"
    assert side.far.free == 1


class Busy:
    """A process that answers a read only with a time limit of at least *patience* seconds."""

    def __init__(self, patience):
        self.patience = patience
        self.limits = []

    def ask(self, what, number, messages, *more):
        answers = []
        for *_, arguments in messages:
            self.limits.append(arguments.get("timeout"))
            late = arguments.get("timeout", 30.0) < self.patience
            data = {"code": "timeout", "sent": "unknown"}
            answers.append(("error", ("StoreError", "StoreError", "late", data)) if late else ("ok", 1))
        return answers


def test_a_read_that_is_slow_is_asked_again_and_one_that_stays_slow_is_not_measured():
    def side(patience):
        return Side(Busy(patience), {}, {}, {}, clients={"sync": 1}, installed={1: {}})

    slow, stuck = side(80.0), side(1e9)
    assert slow.calls("sync", [Call(WHO, "count"), Call(WHO, "count", {"timeout": 60.0})]) == [("ok", 1)] * 2
    assert slow.far.limits == [None, 60.0, 90.0, 90.0]
    with pytest.raises(Abstain, match=r"\(scan\)"):
        slow.calls("sync", [Call(WHO, "scan")])
    assert slow.far.limits[4:] == [None, None]
    with pytest.raises(Abstain, match="within 93 seconds"):
        stuck.calls("sync", [Call(WHO, "search_many", {"queries": ["a", "b", "c"]})])


def refused(chunks, name="InvalidInputError", **declared):
    call = Call(WHO, "upsert", {"chunks": chunks})
    return too_large(call, ("error", (name, name, "no", {})), replace(CAPABILITIES, **declared))


def test_a_chunk_is_refused_for_its_size_only_as_declared():
    chunk = Chunk("c", "d", "é" * 1_000, [1.0, 0, 0, 0], metadata={"a": "x" * 1_000})
    assert chunk_bytes(chunk) == 2_002 + 1_009
    assert refused([chunk], max_chunk_bytes=12_000)
    assert not refused([chunk], max_chunk_bytes=13_000)
    assert not refused([replace(chunk, text="x" * (1 << 20))])
    assert not refused([chunk], "DeniedError", max_chunk_bytes=12_000)


def test_a_call_is_refused_for_its_size_only_if_it_is_large():
    chunk = Chunk("c", "d", "x" * 10_000, [1.0, 0, 0, 0])
    assert refused([chunk] * 30, "TooLargeError")
    assert not refused([chunk] * 29, "TooLargeError")
    assert not refused([replace(chunk, text="x" * 400_000)], "TooLargeError")


def test_a_plan_keeps_to_the_declared_size_of_a_chunk():
    can = replace(CAPABILITIES, max_chunk_bytes=20_000)
    world = build_world(1, can, size="quick", metrics=["cosine"])
    for make in (plan_writes, plan_data):
        plan = make(world, replace(can, dimension=world.dimension), size="quick")
        chunks = [one for call in plan.calls for one in call.call.arguments.get("chunks", ())]
        # One of the invalid chunks has 40,000 bytes of metadata, which the core refuses.
        assert max(chunk_bytes(one) for one in chunks if len(str(one.metadata.get("big", ""))) < 40_000) < 40_000
        assert any("20,000 bytes" in why for why in plan.coverage.left_out.values())


def test_calls_with_many_chunks_are_not_sent_together():
    side = Side(Busy(0.0), {}, {}, {}, clients={"sync": 1}, installed={1: {}})
    sent = []
    side.far.ask = lambda what, number, messages: sent.append(len(messages)) or [("ok", 1)] * len(messages)
    many = Call(WHO, "search_many", {"queries": ["a"] * 150})
    assert len(side.calls("sync", [Call(WHO, "count"), many, many, Call(WHO, "count")])) == 4
    assert sent == [2, 2]


_LOADS = {(9, 0, 3): True, (9, 0, 5): True, (9, 0, 2): False, (9, 0, 10): False, (8, 0, 5): False, (9, 1, 5): False}


@pytest.mark.parametrize(("report", "right"), _LOADS.items())
def test_a_load_may_take_more_batches_than_the_reference(report, right):
    call = Call(WHO, "load", {"stream": []})
    assert (problem(call, LoadReport(9, 0, 3), LoadReport(*report)) is None) is right


class Small(Side):
    """A side whose store takes at most two chunks at once."""

    def __init__(self):
        self.taken = []

    def calls(self, mode, calls):
        return [self.answer(*call.arguments.values()) for call in calls]

    def answer(self, chunks):
        if len(chunks) > 2:
            return "error", ("TooLargeError", "TooLargeError", "too large", {})
        if any(one.id == "bad" for one in chunks):
            return "error", ("DeniedError", "DeniedError", "no", {})
        self.taken += chunks
        return "ok", None


def test_the_rows_of_a_world_are_written_in_parts_that_the_store_takes():
    side, chunks = Small(), [Chunk(str(number), "d", "text", [1.0, 0, 0, 0]) for number in range(7)]
    side.load({"a": chunks}, 500)
    assert sorted(one.id for one in side.taken) == [one.id for one in chunks]
    with pytest.raises(LoadError, match="DeniedError"):
        Small().load({"a": [*chunks, replace(chunks[0], id="bad")]}, 500)
