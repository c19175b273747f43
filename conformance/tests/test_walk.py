"""The walk of C3: what it draws."""

import pickle
import random
from dataclasses import fields, replace
from functools import cache

import pytest

from vectoracl.model.queries import Hybrid, Like
from vectoracl.model.records import Result
from vectoracl_conformance.checks.reference_checks import _memory_capabilities
from vectoracl_conformance.generated.bench import timed
from vectoracl_conformance.generated.comparison import Comparison, error_of
from vectoracl_conformance.generated.pair import Pair
from vectoracl_conformance.generated.parameters import plan_reads
from vectoracl_conformance.generated.reference import Reference, keeps_cursor
from vectoracl_conformance.generated.sequences import (
    _forms,
    asked_around_changes,
    asked_between_pages,
    asked_with_one_change,
    asked_with_one_part_changed,
    denied_changes,
    drawn_changes,
    walk,
)
from vectoracl_conformance.generated.world import build_world
from vectoracl_conformance.harness import Needs
from vectoracl_conformance.harnesses.memory import MemoryStore

CAPABILITIES = _memory_capabilities(MemoryStore(Needs(8, {})))


@pytest.fixture(scope="module", params=[1, 2])
def world(request):
    return build_world(request.param, CAPABILITIES, size="quick", metrics=["cosine"])


@pytest.fixture(scope="module")
def planned(world):
    """Return what gives the reads of a plan of about so many; each is drawn once."""
    capabilities = replace(CAPABILITIES, dimension=world.dimension)
    return cache(lambda quick: plan_reads(world, capabilities, size="quick", quick=quick).calls)


def test_writes_that_a_store_has_to_deny_are_denied_as_a_whole(world):
    denied = denied_changes(world)
    assert len({call.principal.tenant for call in denied}) > 40
    reference = Reference(world.fields, world.rules, replace(CAPABILITIES, dimension=world.dimension), world.more)
    try:
        reference.open()
        reference.load(world.tenants, 500)
        before = reference.census()
        outcomes = reference.calls("sync", denied)
        assert {error_of(one)[0] if one[0] == "error" else "ok" for one in outcomes} == {"DeniedError"}
        assert reference.census().same(before)
        good = [replace(call, narrowings=()) for call in denied]
        assert {one[0] for one in reference.calls("sync", good)} == {"ok"}
    finally:
        reference.end()


def test_each_form_of_a_call_comes_directly_after_each_disturbance(world, planned):
    calls = planned(140)
    reads = [timed(one)[1] for one in calls]
    steps = walk(world, reads, drawn_changes(world, reads), whole=True)
    denied = [call.narrowings for call in denied_changes(world)]

    def is_denied(call):
        return call.method == "upsert" and call.narrowings in denied

    for method in {call.method for step in steps for call in step.calls}:
        after = {
            "fault": [step.calls[1] for step in steps if step.kind == "fault"],
            "cut": [step.calls[1] for step in steps if step.kind == "cut"],
            "denied": [step.calls[1] for step in steps if step.kind == "calls" and is_denied(step.calls[0])],
        }
        drawn = {kind: [call for call in calls if call.method == method] for kind, calls in after.items()}
        assert all(drawn.values()), (method, {kind: len(calls) for kind, calls in drawn.items()})
    directly = [step.calls for step in steps if step.kind == "calls" and is_denied(step.calls[0])]
    deletes = [second for _, second, *_ in directly if second.method == "delete"]
    forms = {(frozenset(call.arguments), str(call.arguments.get("ids"))[:2]) for call in deletes}
    assert len(forms) == 4


def test_calls_of_one_form_give_one(world, planned):
    calls = planned(140)
    reads = [timed(one)[1] for one in calls if one.call.method == "search"]
    some = _forms(random.Random(1), reads * 2, 8)
    assert len(some) == 8
    assert len({(frozenset(call.arguments), type(call.arguments["query"])) for call in some}) == 8


def content(answer):
    """Return the bytes of an answer without the id of its decision."""
    if isinstance(answer, list):
        return [content(one) for one in answer]
    return pickle.dumps([*answer] if isinstance(answer, Result) else getattr(answer, "hits", answer))


def test_each_way_to_write_comes_between_two_equal_reads_of_each_method(world, planned):
    capabilities = replace(CAPABILITIES, dimension=world.dimension)
    calls = planned(140)
    reads = [timed(one)[1] for one in calls if one.sensitive]
    steps = asked_around_changes(world, reads)
    assert len(steps) == 7 * 7
    reference = Reference(world.fields, world.rules, capabilities, world.more)
    try:
        reference.open()
        reference.load(world.tenants, 500)
        shown = 0
        for first, write, second, back, third in steps:
            assert first == second == third
            answers = [reference.calls("sync", [one])[0] for one in (first, write, second, back, third)]
            assert answers[1][0] == answers[3][0] == "ok"
            shown += answers[0][0] != answers[2][0] or content(answers[0][1]) != content(answers[2][1])
        assert shown > 0.7 * len(steps)  # a write to one document need not touch the few rows near a query
    finally:
        reference.end()


def test_rows_are_written_between_two_equal_reads_by_one_call_also_with_small_batches(world, planned):
    reads = [timed(one)[1] for one in planned(140) if one.sensitive]
    steps = asked_around_changes(world, reads, 5)
    assert {first.method for first, *_ in steps} >= {"search", "count", "fetch"}
    assert max(len(back.arguments["chunks"]) for *_, back, _ in steps) <= 5


def test_each_argument_is_changed_between_two_equal_reads(world, planned):
    capabilities = replace(CAPABILITIES, dimension=world.dimension)
    calls = planned(448)
    reads = [timed(one)[1] for one in calls]
    steps = asked_with_one_change(world, reads)
    names = {(first.method, name) for first, second, _ in steps for name in changed(first, second)}
    wanted = {(one.method, name) for one in reads for name in one.arguments} - {("page", "after")}
    assert {one for one in wanted if one[1] != "timeout"} <= names
    reference = Reference(world.fields, world.rules, capabilities, world.more)
    try:
        reference.open()
        reference.load(world.tenants, 500)
        shown = 0
        for first, second, third in steps:
            assert first == third
            answers = reference.calls("sync", [first, second])
            shown += content(answers[0][1]) != content(answers[1][1])
        assert shown > 0.5 * len(steps)
    finally:
        reference.end()


def test_pages_continue_behind_other_calls(world, planned):
    """Both stores continue from the cursor that came before the calls in between, and most of those pages have rows."""
    reads = [timed(one)[1] for one in planned(448)]
    steps = asked_between_pages(world, reads)
    methods = {two.method for _, two, *_ in steps}
    assert methods == {"page", "upsert", "replace", "load", "delete"}
    reference = Reference(world.fields, world.rules, replace(CAPABILITIES, dimension=world.dimension), world.more)
    comparison = Comparison(reference.declared, reference.wider, dict)
    try:
        reference.open()
        reference.load(world.tenants, 500)
        pair = Pair([reference], reference, comparison)
        rows = []
        for calls in steps:
            for mode, some, _ in pair._runs([("sync", call) for call in calls]):
                for call, (kind, answer) in zip(some, reference.calls(mode, some), strict=True):
                    assert kind == "ok"
                    if keeps_cursor(call):
                        assert call is some[0]
                        rows.append(len(answer.hits))
        assert len([one for one in rows if one]) > 0.6 * len(rows)
    finally:
        reference.end()


def test_each_part_of_a_query_is_changed_between_equal_reads(world, planned):
    """An adapter may keep the vector of a hybrid query under its words, or a chunk under its id alone."""
    reads = [timed(one)[1] for one in planned(448)]
    parts = set()
    for first, second, third, fourth in asked_with_one_part_changed(world, reads):
        assert (first, second) == (third, fourth)
        assert changed(first, second) == {"query"}
        before, after = first.arguments["query"], second.arguments["query"]
        assert type(before) is type(after)
        names = [one.name for one in fields(before)]
        parts |= {(type(before), one) for one in names if getattr(before, one) is not getattr(after, one)}
    assert {(Hybrid, "text"), (Hybrid, "vector"), (Like, "id"), (Like, "document")} <= parts


def changed(first, second):
    names = first.arguments.keys() | second.arguments.keys()
    return {name for name in names if first.arguments.get(name) is not second.arguments.get(name)}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("methods", [{"search"}, {"count"}, {"scan"}, {"fetch", "page"}])
def test_an_adapter_that_declares_few_reads_has_a_walk(world, planned, methods, whole):
    calls = planned(140)
    reads = [timed(one)[1] for one in calls if one.call.method in methods]
    large = [one for one in reads if len(world.tenants[one.principal.tenant]) > 100]
    for some in filter(None, (reads, large, reads[:1])):
        steps = walk(world, some, drawn_changes(world, reads), whole=whole)
        assert {call.method for step in steps for call in step.calls} >= {one.method for one in some}
