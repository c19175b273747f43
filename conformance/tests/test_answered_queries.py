"""Every kind of query is answered in a run: a call that both sides refuse shows nothing."""

from dataclasses import replace

import pytest

from vectoracl_conformance.generated.bench import memory_capabilities, timed
from vectoracl_conformance.generated.parameters import plan_reads
from vectoracl_conformance.generated.reference import Reference
from vectoracl_conformance.generated.world import build_world

pytestmark = pytest.mark.timeout(300)
ARGUMENTS = ("query", "queries")


def test_every_level_of_a_query_is_answered():
    capabilities = memory_capabilities()
    world = build_world(3, capabilities, size="quick", metrics=(capabilities.metric,))
    assert world.embedder is not None
    capabilities = replace(capabilities, dimension=world.dimension)
    plan = plan_reads(world, capabilities, size="quick")
    asked = [one for one in plan.calls if set(ARGUMENTS) & set(one.parameters)]
    reference = Reference(world.fields, world.rules, capabilities, world.more)
    reference.open()
    try:
        reference.load(world.tenants, 500)
        outcomes = reference.calls("sync", [timed(one)[1] for one in asked])
    finally:
        reference.end()
    levels, answered = set(), set()
    for one, (kind, _) in zip(asked, outcomes, strict=True):
        named = {(name, one.parameters[name]) for name in ARGUMENTS if name in one.parameters}
        levels |= named
        answered |= named if kind == "ok" else set()
    assert {level for name, level in levels if name == "query"} >= {"text 1", "text 65", "lexical 1", "hybrid text"}
    assert levels - answered == set()
