"""The writes of C3 that are made at the same time: what is drawn, and that their scopes matter there."""

from dataclasses import replace

import pytest

from vectoracl_conformance.checks.reference_checks import _memory_capabilities
from vectoracl_conformance.generated.calls import Together, tenants
from vectoracl_conformance.generated.comparison import Comparison
from vectoracl_conformance.generated.pair import Pair, writes
from vectoracl_conformance.generated.parameters import plan_reads, plan_writes
from vectoracl_conformance.generated.reference import Reference
from vectoracl_conformance.generated.sequences import Walk, walk
from vectoracl_conformance.generated.simultaneous import rounds
from vectoracl_conformance.generated.world import build_world
from vectoracl_conformance.harness import Needs
from vectoracl_conformance.harnesses.memory import MemoryStore

CAPABILITIES = _memory_capabilities(MemoryStore(Needs(8, {})))
BEFORE = 40
"""How many reads are in flight at least when the writes begin."""


@pytest.fixture(scope="module")
def world():
    return build_world(3, CAPABILITIES, size="quick", metrics=["cosine"])


@pytest.fixture(scope="module")
def capabilities(world):
    return replace(CAPABILITIES, dimension=world.dimension)


@pytest.fixture(scope="module")
def drawn(world, capabilities):
    planned = plan_writes(world, capabilities, size="quick", quick=320).calls
    return rounds(world, planned, whole=True)


def reference(world, capabilities):
    made = Reference(world.fields, world.rules, capabilities, world.more)
    made.open()
    made.load(world.tenants, 500)
    return made


def test_writes_of_every_kind_concern_different_tenants(world, drawn):
    assert {call.method for one in drawn for call in one.writes} == {"upsert", "load", "replace", "delete"}
    for one in drawn:
        touched = [tenants(call, world.rules) for call in one.writes]
        assert sum(map(len, touched)) == len(frozenset().union(*touched))
    assert max(len(one.writes) for one in drawn) > 10


def test_the_scopes_of_most_of_them_decide_what_they_do(world, capabilities, drawn):
    scoped = [one for one in drawn if len(one.writes) > 10][:1]
    own, bare = reference(world, capabilities), reference(world, capabilities)
    try:
        differing = total = 0
        for one in scoped:
            for call in one.laid:
                own.calls("sync", [call])
                bare.calls("sync", [call])
            for call in one.writes:
                with own.branch(), bare.branch():
                    bare.rules = {
                        **world.rules,
                        call.principal.id: {call.action: dict.fromkeys([call.principal.tenant])},
                    }
                    right = own.calls("sync", [call])[0]
                    wider = bare.calls("sync", [replace(call, narrowings=())])[0]
                    total += 1
                    differing += right != wider or not own.census().same(bare.census())
        assert differing > total // 2
    finally:
        own.end()
        bare.end()


def test_reads_are_in_flight_when_they_begin_and_the_reference_agrees_with_itself(world, capabilities, drawn):
    reads = [one.call for one in plan_reads(world, capabilities, size="quick", quick=140).calls if not one.pages]
    steps = [one for one in walk(world, reads, [], drawn, whole=False) if one.kind == "laid out"]
    assert len(steps) == len(drawn)
    right, got = reference(world, capabilities), reference(world, capabilities)
    comparison = Comparison(capabilities, right.wider, lambda: pair.rows(), words=True)
    pair = Pair([got], right, comparison)
    try:
        for step in steps[:3]:
            assert Walk(pair).step(step) == []
        together = [step.calls for _, step in pair.history if isinstance(step, Together)]
        assert len(together) == 3
        for calls in together:
            places = [place for place, call in enumerate(calls) if writes(call)]
            assert places
            assert min(places) > BEFORE
    finally:
        pair.close()
        right.end()
        got.end()
