"""Numbers beyond 2**53 as values of facets: jsonb writes them without a point, and they are doubles all the same."""

from __future__ import annotations

import vectoracl as v
from vectoracl import Chunk, F, testing

FIELDS = {"year": "number", "nums": "number[]"}
ALICE = testing.principal("alice", "acme")
NUMBERS = [2.0**60, 1e17, 2.0**53 + 2, 12345678901234567890.0, 1.5e300, -0.0, 0.1, 5e-324, -(2.0**63), 2**53, 7]


def test_values_are_those_of_the_reference_and_filters_take_them_back(provisioned):
    here = v.connect(provisioned(dimension=8, metadata=FIELDS).config)
    reference = v.connect({"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 8, "metadata": FIELDS}}})
    chunks = [
        Chunk(f"c{i}", "d", "", [1.0] * 8, metadata={"year": one, "nums": [one, one]}) for i, one in enumerate(NUMBERS)
    ]
    with here, reference:
        for acl in (here, reference):
            acl.scoped(ALICE).upsert(chunks)
        docs = here.scoped(ALICE)
        for field in ("year", "nums"):
            found = docs.facets(field)
            assert [(one, type(one.value)) for one in found] == [
                (one, type(one.value)) for one in reference.scoped(ALICE).facets(field)
            ]
        assert {docs.count(F.year == one.value) for one in docs.facets("year")} == {1}
