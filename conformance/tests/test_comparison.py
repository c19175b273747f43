"""The comparison of answers and rows: what is a difference, and what a store may do differently."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from vectoracl import Chunk, F, Hybrid, Lexical, Principal
from vectoracl.client.bulk_load import LoadReport
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
    chunks = [Chunk(f"c{n}", f"d{n % 2}", f"text {n}", np.eye(4)[n % 4] + 0.1 * n, n, {"n": n}) for n in range(9)]
    for one in (side, reference):
        one.load({"a": chunks, "b": chunks[:2]}, 4)
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


def test_writes_are_followed_by_a_census(pair):
    narrow = Principal("narrow", "a", authenticated_by="a test")
    inside, outside = (Chunk("new", "d9", "x", np.ones(4), 0, {"n": n}) for n in (1, 5))
    assert pair.perform([("sync", Call(narrow, "upsert", {"chunks": [inside]}))]) == []
    assert pair.perform([("async", Call(narrow, "upsert", {"chunks": [outside]}))]) == []
    assert pair.perform([("sync", Call(WHO, "delete", {"where": F.n > 6})), ("sync", Call(WHO, "count", {}))]) == []
    other = Principal("w", "b", authenticated_by="a test")
    pair.store.calls("sync", [Call(other, "delete", {"document": "d0"})])
    (found,) = pair.perform([("sync", Call(WHO, "delete", {"document": "d1"}))])
    assert "has lost 'c0' of 'd0', tenant 'b'" in found.problem


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
        assert max(map(chunk_bytes, chunks)) < 40_000
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
