"""The call space: everything that the public surface has is in a plan, and a full plan covers all possible pairs."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass, replace
from itertools import combinations

import pytest

import vectoracl
from vectoracl import F, ScopedRetriever
from vectoracl.adapter_api.contract import Capabilities
from vectoracl.filters.field_types import TAG_FIELDS
from vectoracl.filters.predicate import ALWAYS, NODES, And, Eq, In, Not, Or, Predicate
from vectoracl.memory.adapter import capabilities
from vectoracl.memory.config import MemoryConfig
from vectoracl.model.identifiers import check_tenant
from vectoracl.model.queries import MAX_QUERY_WORDS, Hybrid, Lexical, Query
from vectoracl_conformance.generated import parameters, writes
from vectoracl_conformance.generated.covering import Parameter, Space, measured, rows_of
from vectoracl_conformance.generated.data import Data
from vectoracl_conformance.generated.filters import LEAVES, SHAPES, Rows
from vectoracl_conformance.generated.parameters import (
    NoLevelsError,
    argument_of,
    operations,
    plan_data,
    plan_reads,
    plan_writes,
    query_levels,
)
from vectoracl_conformance.generated.scopes import SCOPES, Ground, check_tables
from vectoracl_conformance.generated.values import Draw
from vectoracl_conformance.generated.world import SMALL, build_world

CAN = capabilities(MemoryConfig(dimension=8))
SEED = 11


def world_of(size="quick", seed=SEED, can=CAN):
    return build_world(seed, can, size=size, metrics=["cosine", "inner", "l2"])


@pytest.fixture(scope="module")
def full():
    world = world_of("full")
    return world, plan_reads(world, CAN, size="full")


def test_a_full_plan_covers_every_possible_pair(full):
    _, plan = full
    for covered, possible in (plan.coverage.pairs, plan.coverage.triples):
        assert covered == possible > 10_000
    assert 1_500 <= plan.coverage.calls == len(plan.calls) <= 4_000


def test_the_share_is_counted_from_the_calls(full):
    """Without its last calls a plan reports less, so the number does not come from the generator."""
    _, plan = full
    searches = [one for one in plan.calls if one.call.method == "count"]
    space = Space([Parameter("scope", tuple(SCOPES)), Parameter("where", ("default", "Or|Or in And", "Not"))], {})
    whole, _ = measured(space, [one.parameters for one in searches], ("scope",))
    part, _ = measured(space, [one.parameters for one in searches[:40]], ("scope",))
    assert whole == (whole[1], whole[1])
    assert part[0] < part[1] == whole[1]


def test_every_operation_argument_scope_and_mode_occurs(full):
    _, plan = full
    used = {(one.call.method, name) for one in plan.calls for name in one.call.arguments}
    wanted = {(name, argument) for name in parameters.READS for argument in operations()[name]}
    assert wanted - used == {("search", "tuning"), ("search_many", "tuning"), ("page", "after")}  # memory declares none
    assert {one.parameters["scope"] for one in plan.calls} == set(SCOPES)
    assert {one.parameters["after"] for one in plan.calls if one.call.method == "page"} == set(parameters.PAGES)
    assert {one.mode for one in plan.calls} == {"sync", "async"}


def test_most_calls_show_what_is_lost(full):
    """A filter or a policy whose loss changes no answer would hide a fault."""
    _, plan = full
    filtered = [one for one in plan.calls if one.call.arguments.get("where", ALWAYS) != ALWAYS]
    assert sum("where" in one.sensitive for one in filtered) > 0.65 * len(filtered)
    narrowed = [one for one in plan.calls if one.call.narrowings]
    assert sum("narrow" in one.sensitive for one in narrowed) > 0.55 * len(narrowed)


def test_a_plan_is_repeatable():
    for make in (plan_reads, plan_writes, plan_data):
        first, second = ((world, make(world, CAN, size="quick")) for world in (world_of(), world_of()))
        assert first[0].fields == second[0].fields
        assert repr(first[0].rules) == repr(second[0].rules)
        assert [one.parameters for one in first[1].calls] == [one.parameters for one in second[1].calls]
        messages = [[pickle.dumps(one.call.message()) for one in plan.calls] for _, plan in (first, second)]
        assert messages[0] == messages[1]


def test_seeds_differ_and_name_nothing_of_the_kit():
    worlds = [world_of(seed=seed) for seed in range(12)]
    assert len({tuple(one.tenants) for one in worlds}) == len({tuple(one.fields) for one in worlds}) == 12
    assert len({one.dimension for one in worlds}) > 3
    assert len({one.metric for one in worlds}) == 3
    for world in worlds[:3]:
        plan = plan_reads(world, CAN, size="quick")
        data = pickle.dumps([one.call.message() for one in plan.calls]) + pickle.dumps(world.tenants)
        for word in (b"canary", b"conform", b"vectoracl_", b"pytest", b"mutant"):
            assert word not in data.lower()


def test_a_quick_plan_says_that_it_is_one():
    world = world_of()
    plan = plan_reads(world, CAN, size="quick")
    assert plan.coverage.calls <= parameters.QUICK
    assert plan.coverage.pairs[0] < plan.coverage.pairs[1]
    assert plan.coverage.left_out["search: further pairs"] == "a quick plan"
    assert sum(map(len, world.tenants.values())) <= 600


def test_the_world_has_tenants_of_each_size_and_valid_names():
    world = world_of("full")
    assert set(world.asking) == {0, 1, 2, 12, 303, 2_060}
    assert len(world.small) == SMALL
    assert len({check_tenant(name) for name in world.tenants}) == len(world.tenants)
    shared = [{(one.document, one.id) for one in world.tenants[world.asking[size]]} for size in (12, 303, 2_060)]
    assert shared[0] & shared[1] & shared[2]


# --- nothing new stays uncovered


class Widened(ScopedRetriever):
    def search(self, query, k=10, *, freshness=None):
        """Search with an argument that the kit does not know."""


class Extended(ScopedRetriever):
    def summarise(self, where):
        """An operation that the kit does not know."""


@dataclass(frozen=True, slots=True)
class Near(Predicate):
    field: str


@dataclass(frozen=True, slots=True)
class Geographic:
    latitude: float


def test_a_new_argument_has_to_get_levels():
    assert "freshness" in operations(Widened)["search"]
    with pytest.raises(NoLevelsError, match="freshness of search"):
        argument_of("search", "freshness")
    with pytest.raises(NoLevelsError, match="urgency of upsert"):
        writes.Writes(world_of(), CAN).parameters("upsert", ["chunks", "urgency"], {})


def test_a_new_argument_makes_the_plan_fail(monkeypatch):
    known = operations()
    monkeypatch.setattr(parameters, "operations", lambda: {**known, "search": [*known["search"], "freshness"]})
    with pytest.raises(NoLevelsError, match="freshness"):
        plan_reads(world_of(), CAN, size="quick")


def test_a_new_operation_has_to_get_a_place():
    with pytest.raises(NoLevelsError, match="summarise"):
        operations(Extended)


def test_a_new_node_or_tag_field_has_to_get_levels():
    check_tables()
    with pytest.raises(NoLevelsError, match="Near"):
        check_tables(nodes=[*NODES, Near])
    with pytest.raises(NoLevelsError, match="@region"):
        check_tables(tags=[*TAG_FIELDS, "@region"])


def test_a_new_kind_of_query_has_to_get_levels():
    ground = Ground(world_of(), CAN)
    assert query_levels(ground, {})
    with pytest.raises(NoLevelsError, match="Geographic"):
        query_levels(ground, {}, Query | Geographic)


# --- what the adapter does not declare


def test_what_is_not_declared_is_left_out_with_the_reason():
    able = replace(
        CAN, predicates=CAN.predicates - {Or}, exact=False, group_by=False, count="none", facets="none", max_k=100,
        max_batch=50, queries=frozenset({"vector"}), tuning={"effort": (1, 9)},
    )  # fmt: skip
    world = world_of(can=able)
    plan = plan_reads(world, able, size="full")
    reasons = plan.coverage.left_out
    assert {"count", "facets", "exact: True", "group_by: document", "scope: policy Or", "query: hybrid 3"} <= set(
        reasons
    )
    assert any(name.startswith("k: 101") for name in reasons)
    assert plan.coverage.pairs[0] == plan.coverage.pairs[1]
    ground = Ground(world, able)
    for one in plan.calls:
        assert one.call.method not in ("count", "facets")
        assert one.call.arguments.get("k", 1) <= 100
        assert not one.call.arguments.get("exact")
        assert all(ground.supports(where) for where, _ in one.call.narrowings)
        assert ground.supports(one.call.arguments.get("where", ALWAYS))
    assert {"effort=1", "effort=9"} <= {one.parameters.get("tuning") for one in plan.calls}
    changes = plan_writes(world, able, size="full")
    sizes = [len(one.call.arguments["chunks"]) for one in changes.calls if "chunks" in one.call.arguments]
    assert max(sizes) == 50
    assert changes.coverage.pairs[0] == changes.coverage.pairs[1]


# --- covering arrays


def naive(space, rows):
    """Count the pairs that are possible and covered, the slow way."""
    seen = {frozenset(pair) for row in rows for pair in combinations(enumerate(row), 2)}
    total = covered = 0
    for (i, first), (j, second) in combinations(enumerate(space.parameters), 2):
        for a, x in enumerate(first.levels):
            for b, y in enumerate(second.levels):
                if x in first.alone and y in second.alone:
                    continue
                total += 1
                covered += frozenset(((i, a + space.starts[i]), (j, b + space.starts[j]))) in seen
    return covered, total


def test_rows_cover_every_pair_with_few_calls():
    counts = {"v": 6, "w": 6, "x": 5, "y": 3, "z": 2}
    levels = [Parameter(name, tuple("abcdef"[:count]), frozenset("f")) for name, count in counts.items()]
    space = Space(levels, {})
    rows = rows_of(space, 1)
    assert naive(space, rows)[0] == naive(space, rows)[1]
    assert len(rows) <= 60
    pairs, triples = measured(space, [space.names(row) for row in rows], ("v",))
    assert pairs == naive(space, rows)
    assert triples[0] == triples[1] < pairs[1]


def test_what_is_forbidden_never_occurs():
    levels = [Parameter(name, tuple("abc")) for name in "xyz"]
    forbidden = {(("x", "a"), ("y", "b")): "why", (("y", "c"), ("z", "a")): "why"}
    rows = [Space(levels, forbidden).names(row) for row in rows_of(Space(levels, forbidden), 1)]
    assert not [row for row in rows if (row["x"], row["y"]) == ("a", "b") or (row["y"], row["z"]) == ("c", "a")]


def test_what_cannot_be_covered_is_named():
    levels = [Parameter("x", ("a",)), Parameter("y", ("b", "c")), Parameter("z", ("d",))]
    forbidden = {(("y", "b"), ("z", "d")): "why"}
    with pytest.raises(ValueError, match="x = a and y = b"):
        rows_of(Space(levels, forbidden), 1)


# --- filters and writes


def test_every_leaf_and_shape_is_a_filter_that_the_library_takes():
    world = world_of("full")
    ground = Ground(world, CAN)
    config = {"adapter": "memory", "dimension": world.dimension, "metric": world.metric, "metadata": dict(world.fields)}
    rows: Rows = ground.rows[world.asking[303]]
    with vectoracl.connect({"version": 1, "stores": {"main": config}}) as acl:
        handle = acl.scoped(vectoracl.Principal("a", rows.tenant, authenticated_by="here"))
        handle.upsert(rows.chunks)
        for kind, leaf in LEAVES.items():
            if leaf.policy:
                continue
            for place in range(4):
                where = ground._pooled(kind, rows, place)
                assert handle.count(where) == rows.mask(where).sum(), (kind, where)
        first, second = F[world.roles["few"]].exists(), F[world.roles["boolean"]] == True  # noqa: E712 - a filter
        for name, shape in SHAPES.items():
            where = shape.make(first, lambda: second)
            assert handle.count(where) == rows.mask(where).sum(), name


def test_a_list_has_own_values_at_both_ends_and_in_between():
    world = world_of("full")
    ground = Ground(world, CAN)
    rows = ground.rows[world.asking[303]]
    own = set(rows.distinct("code"))
    for kind, count in (("In keyword 101", 101), ("In keyword 301", 301)):
        where = ground._pooled(kind, rows, 0)
        assert isinstance(where, In)
        assert len(where.values) == count
        assert where.values[0] in own
        assert where.values[-1] in own
        assert any(one in own for one in where.values[100:])


def test_writes_are_inside_and_outside_and_reach_the_store():
    world = world_of("full")
    plan = plan_writes(world, CAN, size="full")
    assert plan.coverage.pairs[0] == plan.coverage.pairs[1]
    written = [one for one in plan.calls if "layout" not in one.parameters]
    assert {one.call.method for one in written} == set(parameters.WRITES)
    assert {len(one.call.arguments["chunks"]) for one in written if one.call.method == "upsert"} >= {0, 1, 2, 1_001}
    unseen = {one.call.principal.tenant for one in written} - set(world.tenants)
    assert len(unseen) > 100


def test_a_replacement_by_nothing_names_documents_that_the_scope_hides_a_part_of():
    """Without such calls an adapter passes that deletes hidden rows where a replacement has no records."""
    writes = [one for one in plan_writes(world_of("full"), CAN, size="full").calls if one.call.method == "replace"]
    emptying = [one.parameters for one in writes if not one.call.arguments["chunks"]]
    leaves = {one["scope_leaf"] for one in emptying if one["scope"] not in ("tenant", "policy none")}
    assert len(leaves) > 5
    assert {one["scope_leaf"] for one in emptying if one["document"] == "part outside"} == leaves


def test_data_has_each_kind():
    plan = plan_data(world_of("full"), CAN, size="full")
    assert {"ids", "texts", "keyword", "number", "datetime", "keys", "tenants' names"} <= {
        one.parameters["data"] for one in plan.calls
    }
    written = [one.call.arguments for one in plan.calls if one.call.method in ("upsert", "load")]
    texts = [one.text for given in written for one in given.get("chunks", given.get("stream", ()))]
    assert {1_999, 2_000, 2_001, 65_536} <= set(map(len, texts))


@pytest.mark.parametrize("name", ["x", "y"])
def test_undeclared_values_do_not_depend_on_the_names_of_fields(name):
    world = world_of("full")
    own = world.roles["number"]
    fields = {name if one == own else one: kind for one, kind in world.fields.items()}
    roles = {role: name if one == own else one for role, one in world.roles.items()}
    kinds = Data(replace(world, fields=fields, roles=roles), CAN, "full").kinds()
    (values,) = [kind.chunks for kind in kinds if kind.name == "undeclared values"]
    held = [one for chunk in values for one in chunk.metadata.values()]
    for one in ("", [], {}, [None], True, {"a": {"a": {"a": {"a": 1}}}}):
        assert one in held


@pytest.mark.parametrize("kind", ["Eq number", "In number", "Range number"])
def test_numbers_of_filters_have_either_form(kind):
    """1 and 1.0 are equal: an adapter that compares them by their text passes where filters take them from the rows."""
    world = world_of("full")
    rows = Ground(world, CAN).rows[world.asking[303]]
    held = {(type(one), one) for role in ("number", "fraction") for one in rows.held(role)}
    leaves = [LEAVES[kind].make(rows, Draw(seed, kind)) for seed in range(60)]
    bounds = [getattr(leaf, name, None) for leaf in leaves for name in ("value", "gt", "gte", "lt", "lte")]
    numbers = [*(one for leaf in leaves for one in getattr(leaf, "values", ())), *bounds]
    forms = {(type(one), one) in held for one in numbers if one in [number for _, number in held]}
    assert forms == {True, False}


def test_data_has_chunks_whose_keys_a_store_may_take_for_one():
    calls = [one.call for one in plan_data(world_of("full"), CAN, size="full").calls]
    written = [one for call in calls for one in call.arguments.get("chunks", call.arguments.get("stream", ()))]
    several = [one for one in written if len({key.casefold() for key in one.metadata}) < len(one.metadata)]
    assert len(several) > 5


@pytest.mark.parametrize("size", ["quick", "full"])
def test_chunks_expire_where_the_world_says_so(size):
    """Some have expired and some have not, in one document too; then each is written again with another time."""
    plan = plan_data(replace(world_of(size), expiring=True), CAN, size=size)
    calls = [one.call for one in plan.calls if one.parameters["data"] == "expiry"]
    first = {}
    again = set()
    for call in calls:
        for one in call.arguments.get("chunks", call.arguments.get("stream", ())):
            expires = call.arguments.get("expires", one.expires)
            gone = expires is not None and expires < 2e9
            if first.setdefault((one.document, one.id), gone) != gone:
                again.add(gone)
    assert again == {True, False}
    assert {"count", "facets", "search", "scan", "fetch", "page"} <= {one.method for one in calls if not one.narrowings}
    assert not [one for one in plan_data(world_of(size), CAN, size=size).calls if one.parameters["data"] == "expiry"]


def test_words_of_queries_are_repeated_and_have_signs(full):
    """They are words in every store; a store that hands the text on to its query language reads them as more."""
    _, plan = full
    texts = [one.call.arguments.get("query") for one in plan.calls]
    texts = [one.text for one in texts if isinstance(one, Lexical | Hybrid)]
    words = [re.findall(r"\w+", one) for one in texts]
    assert len([one for one in words if len(set(one)) < len(one)]) > 10
    for sign in ("-", "+", "!", '"', "*", "NOT "):
        assert [one for one in texts if sign in one], sign
    assert max(len(set(one)) for one in words) == MAX_QUERY_WORDS


def test_a_mapping_of_the_metadata_is_replaced_by_another():
    """Without such changes an adapter passes that merges the two."""
    plan, held = plan_writes(world_of("full"), CAN, size="full"), {}
    replaced = 0
    for one in plan.calls:
        call = one.call
        for chunk in call.arguments.get("chunks", call.arguments.get("stream", ())):
            held.setdefault(chunk.document, []).append(chunk.metadata)
        for key, value in call.arguments.get("changes", {}).items():
            old = [row.get(key) for row in held.get(call.arguments["document"], ())]
            replaced += isinstance(value, dict) and any(isinstance(one, dict) and one.keys() - value for one in old)
    assert replaced > 2


def test_a_load_of_as_many_records_as_a_write_may_have_is_not_written_one_by_one():
    can = replace(CAN, max_batch=1_000)
    plan = plan_writes(world_of("quick"), can, size="quick")
    loads = [one.parameters for one in plan.calls if one.call.method == "load" and "count" in one.parameters]
    assert any(int(one["count"]) > 500 for one in loads)
    assert not [one for one in loads if int(one["count"]) > 500 and one["batch"] in ("1", "10", "11")]


def test_capabilities_that_are_declared_are_used():
    """A capability that is added to the library has to be looked at here."""
    assert set(Capabilities.__dataclass_fields__) == {
        "grade", "metric", "dimension", "operations", "predicates", "queries", "lexical_scores", "count", "facets",
        "exact", "group_by", "delete_counts", "atomic_upsert", "atomic_replace", "visible", "max_batch", "max_k",
        "max_write_bytes", "number_bytes", "writes_in_flight", "max_chunk_bytes", "deadlines", "parallel", "tuning",
        "verbatim", "vectors", "relabel", "atomic_update", "governed_numbers",
    }  # fmt: skip


def test_masks_are_those_of_the_reference():
    world = world_of("full")
    rows = Ground(world, CAN).rows[world.asking[303]]
    few = world.roles["few"]
    some = rows.distinct("few")
    where = Or((And((Eq(few, some[0]), Not(Eq("@document", rows.chunks[0].document)))), In(few, tuple(some[1:]))))
    expected = [
        (one.metadata.get(few) == some[0] and one.document != rows.chunks[0].document)
        or one.metadata.get(few) in some[1:]
        for one in rows.chunks
    ]
    assert rows.mask(where).tolist() == expected


@pytest.mark.parametrize("seed", range(4))
def test_no_word_is_looked_for_that_stores_fold_differently(seed):
    world = build_world(seed, CAN, size="quick", metrics=["cosine"])
    calls = [one.call for one in plan_data(world, replace(CAN, dimension=world.dimension), size="full").calls]
    texts = [chunk.text for call in calls for chunk in call.arguments.get("chunks", call.arguments.get("stream", ()))]
    either = {word.casefold() for text in texts for word in text.split() if word.casefold() != word.lower()}
    queries = [call.arguments.get("query") for call in calls]
    looked_for = [word.casefold() for one in queries if isinstance(one, Lexical) for word in one.text.split()]
    assert either
    assert looked_for
    assert either.isdisjoint(looked_for)
