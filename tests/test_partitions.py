"""A search over several partitions: merged by score, the same whatever order the legs are in or answer in."""

from __future__ import annotations

import itertools
import random

import pytest

import vectoracl as v
from vectoracl import Chunk, F, Hybrid, testing
from vectoracl.adapter_api.operations import Found
from vectoracl.engine.arguments import SearchArguments
from vectoracl.engine.reads import merge
from vectoracl.model.records import Hit, Tag

TENANTS = ("own", "s1", "s2", "s3")


def asked(k):
    return SearchArguments(k, v.ALWAYS, None, None, 1, frozenset(), False, {})


def connected(shared):
    store = {"adapter": "memory", "dimension": 2, "metadata": {"n": "number"}, "name": f"partitions-{random.random()}"}
    config = {"version": 1, "stores": {"m": store}, "tenants": {"shared": list(shared)}}
    acl = v.connect(config)
    for tenant in TENANTS:
        # Every tenant has the same ids, documents and vectors: all scores are equal in fours.
        chunks = [Chunk(f"c{i}", f"d{i % 2}", "word", [1.0, float(i // 2)], metadata={"n": i}) for i in range(8)]
        acl.scoped(testing.principal("loader", tenant)).upsert(chunks)
    return acl


@pytest.mark.parametrize("k", [1, 3, 4, 5, 17, 32])
def test_ties_over_partitions_do_not_depend_on_the_order_of_the_legs(k):
    seen = set()
    for order in itertools.permutations(TENANTS[1:]):
        with connected(order) as acl:
            docs = acl.scoped(testing.principal("alice", "own"))
            for query in ([1.0, 0.0], Hybrid("word", [1.0, 0.0])):
                for more in ({}, {"where": F.n < 6}, {"group_by": "document", "per_group": 2}):
                    hits = docs.search(query, k, **more)
                    key = (repr(query), repr(more))
                    seen.add((key, tuple((hit.tenant, hit.document, hit.id, hit.score) for hit in hits)))
                    scores = [hit.score for hit in hits]
                    assert scores == sorted(scores, reverse=True)
                    assert hits.complete
    assert len(seen) == 6, "one answer for each question, whatever the order"


def test_each_hit_keeps_its_partition_and_equal_scores_go_by_name():
    with connected(TENANTS[1:]) as acl:
        hits = acl.scoped(testing.principal("alice", "own")).search([1.0, 0.0], 8)
    assert [(hit.tenant, hit.document, hit.id) for hit in hits] == [
        (tenant, document, chunk) for tenant in TENANTS for document, chunk in (("d0", "c0"), ("d1", "c1"))
    ]


def test_the_merge_is_the_sorted_union_however_the_legs_are_shuffled():
    rng = random.Random(7)
    for _ in range(50):
        legs = []
        for tenant in "abcd":
            rows = [Hit(f"c{i}", f"d{i % 3}", rng.choice([0.1, 0.2, 0.3]), tenant, 0, None, None, None,
                        Tag(tenant, f"d{i % 3}", f"c{i}")) for i in range(rng.randrange(6))]  # fmt: skip
            rows.sort(key=lambda hit: (-hit.score, hit.document, hit.id))
            legs.append(Found(rows))
        ask = asked(5)
        wanted = sorted(
            (hit for leg in legs for hit in leg.hits), key=lambda hit: (-hit.score, hit.tenant, hit.document, hit.id)
        )[:5]
        for order in itertools.permutations(legs):
            assert merge(order, ask).hits == wanted


def test_one_incomplete_leg_makes_the_whole_incomplete():
    hit = Hit("c", "d", 0.5, "a", 0, None, None, None, Tag("a", "d", "c"))
    for order in itertools.permutations([Found([hit]), Found([], complete=False, shortfall="short")]):
        merged = merge(order, asked(3))
        assert (merged.complete, merged.shortfall) == (False, "short")
