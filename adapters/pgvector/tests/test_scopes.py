"""A policy's predicates: over every field of the tag, beside metadata, with and without Not, as the reference means.

The caller's filters are held against the reference in `test_operations`; a policy may say more than a caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, F, testing
from vectoracl.access.policy import Decision
from vectoracl.access.scope import Grant, Scope
from vectoracl.filters.predicate import ALWAYS, Eq, In, Missing, Not, Predicate, Range, conjunction, disjunction

ALICE = testing.principal("alice", "acme")
METADATA: list[dict[str, Any]] = [
    {},
    {"year": 0.1, "ok": True},
    {"year": 2**53, "lang": "\u00df"},
    {"year": 0.1 + 0.2, "lang": "\U0001f600"},
    {"ok": False, "lang": "ss"},
]
LEAVES: list[Predicate] = [
    Eq("@label", "default"),
    Eq("@label", "DEFAULT"),
    In("@label", ("default", "other")),
    Eq("@producer", "alice"),
    In("@path", ("load", "replace")),
    Range("@expires", gt=1.5, lte=3e11),
    Eq("@expires", 253_402_300_799),
    Range("@time", lt=5),
    Range("@time", gte=0, lt=1e18),
    Eq("@rev", 0),
    Eq("@rev", 0.5),
    In("@rev", (0, 1.5)),
    Eq("@docgen", "2:d\u00e9:0"),
    In("@docgen", ("1:d:1", "1:d:0")),
    Eq("@generation", 1),
    In("@generation", (0, 0.5)),
    Range("@generation", gte=0.5),
    In("@chunk", ("c1", "c2", "C1")),
    In("@document", ("d", "d\u00e9")),
    Range("@position", gt=-1e300, lt=1.5),
    In("@position", (1, 2.5, 2**40)),
    Eq("year", 2**53),
    Range("year", gt=2**53 - 1),
    Range("year", gte=0.1, lte=0.1),
    Missing("year"),
    Eq("ok", False),
    In("lang", ("a" * 1000, "\U0001f600")),
    Eq("lang", "\u00df"),
    Eq("lang", "ss"),
]
predicates = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(conjunction),
        st.lists(inner, min_size=2, max_size=3).map(disjunction),
        inner.map(Not),
    ),
    max_leaves=6,
)
# Hypothesis reads the lambdas' source now, before other threads run: CPython gh-106905 (SystemError in ast.parse).
predicates.validate()


class Says:
    """A policy that grants what it was last told; each time is another version."""

    def __init__(self) -> None:
        self.predicate: Predicate = ALWAYS
        self.turn = 0

    @property
    def version(self) -> str:
        return str(self.turn)

    def say(self, predicate: Predicate) -> None:
        self.predicate, self.turn = predicate, self.turn + 1

    def decide(self, principal: v.Principal, action: v.Action) -> Decision:
        scope = Scope((Grant(principal.tenant, self.predicate),))
        return Decision(permit=True, scope=scope, reasons=("said",), policy_version=self.version)


@pytest.fixture(scope="module")
def pair(provisioned: Any) -> Any:
    store = provisioned()
    memory = {"adapter": "memory", "dimension": 8, "metadata": store.config["stores"]["main"]["metadata"]}
    policy = Says()
    acls = [v.connect(one, policy=policy) for one in (store.config, {"version": 1, "stores": {"m": memory}})]
    for acl in acls:
        docs = acl.scoped(ALICE)
        chunks = {
            name: [
                Chunk(f"c{i}", name, "t", np.ones(8) * (1 + i), position=i, metadata=METADATA[i % 5]) for i in range(6)
            ]
            for name in ("d", "d\u00e9")
        }
        docs.upsert([*chunks["d"], *chunks["d\u00e9"]])
        docs.replace("d", chunks["d"])
        docs.load([Chunk("C1", "e", "x", np.ones(8))])
    yield acls, policy
    for acl in acls:
        acl.close()


def seen(acl: v.VectorACL) -> list[tuple[str, str]]:
    return [(hit.document, hit.id) for hit in acl.scoped(ALICE).scan()]


@pytest.mark.parametrize("negated", [False, True])
def test_every_leaf_of_a_scope_on_both_sides_of_not(pair: Any, negated: bool) -> None:
    (here, memory), policy = pair
    sizes = set()
    for leaf in LEAVES:
        policy.say(Not(leaf) if negated else leaf)
        assert seen(here) == seen(memory), leaf
        sizes.add(len(seen(memory)))
    assert len(sizes) > 4, "the control: the leaves tell rows apart"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scope=predicates, where=predicates)
def test_scope_and_narrowing_mean_what_the_reference_means(pair: Any, scope: Predicate, where: Predicate) -> None:
    (here, memory), policy = pair
    policy.say(conjunction((scope, where)))
    assert seen(here) == seen(memory)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scope=predicates)
def test_what_a_scope_refuses_to_overwrite(pair: Any, scope: Predicate) -> None:
    """The conflict test of an upsert is compiled apart, over the existing row."""
    (here, memory), policy = pair
    outcomes = []
    for acl in (here, memory):
        policy.say(scope)
        try:
            written = acl.scoped(ALICE).upsert([Chunk("c1", "d\u00e9", "t", np.ones(8) * 2, position=1,
                                                      metadata=METADATA[1])])  # fmt: skip
            outcomes.append(f"{written.count} written")
        except v.VectorACLError as error:
            outcomes.append(type(error).__name__)
        policy.say(ALWAYS)
        acl.scoped(ALICE).upsert([Chunk("c1", "d\u00e9", "t", np.ones(8) * 2, position=1, metadata=METADATA[1])])
    assert outcomes[0] == outcomes[1]


def test_numbers_of_both_kinds_in_one_list(pair: Any) -> None:
    (here, _), policy = pair
    policy.say(ALWAYS)
    docs = here.scoped(ALICE)
    assert docs.count(F["@position"].in_([1, 2.5])) == 2
    assert docs.count(F["@position"].in_([1, 2.0, 2**53])) == 4
    assert docs.count(F["@time"].in_([1, 2.5])) == 0
