"""The memory store keeps which rows a filter permits, but never beyond a write, whichever port makes it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vectoracl import F
from vectoracl.adapter_api.operations import Count, Delete, Replace, Scan, Upsert
from vectoracl.errors import DeniedError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.memory.operator import MemoryOperator
from vectoracl.memory.ports import MemoryPort, Perform, Shelf
from vectoracl.model.records import Record, Tag

# The same objects in every request: by those the port knows a filter again.
FILTERS = {
    ALWAYS: lambda _: True,
    F.n > 1: lambda n: n > 1,
    ~(F.n == 2): lambda n: n != 2,
    (F.n < 3) & (F.n > 0): lambda n: 0 < n < 3,
}
NODES = list(FILTERS)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["count", "scan", "upsert", "replace", "delete", "denied", "remove"]),
        st.integers(0, 1),
        st.sampled_from("ab"),
        st.integers(0, len(NODES) - 1),
        st.integers(0, 4),
    ),
    max_size=30,
)


def record(tenant, document, chunk, n):
    return Record(Tag(tenant, document, chunk, time=1.0), "t", np.ones(2, np.float32), {"n": n})


@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_every_port_sees_what_the_last_write_left(steps):
    shelf = Shelf("cosine", 2)
    ports = MemoryPort(shelf), MemoryPort(shelf)
    rows = {"a": {}, "b": {}}
    for what, number, tenant, place, n in steps:
        where, held = NODES[place], rows[tenant]
        right = {key for key, value in held.items() if FILTERS[where](value)}
        document, chunk = f"d{n % 2}", f"c{n}"

        def perform(operation, number=number, tenant=tenant):
            return ports[number].execute(Perform(tenant, operation), None)

        match what:
            case "count":
                assert perform(Count(tenant, where, ALWAYS)) == len(right)
            case "scan":
                found = perform(Scan(tenant, ALWAYS, where, 50, None, frozenset())).hits
                assert {(hit.document, hit.id) for hit in found} == right
            case "upsert":
                perform(Upsert(tenant, ALWAYS, (record(tenant, document, chunk, n),)))
                held[document, chunk] = n
            case "replace":
                perform(Replace(tenant, ALWAYS, document, (record(tenant, document, "new", n),)))
                rows[tenant] = {key: value for key, value in held.items() if key[0] != document}
                rows[tenant][document, "new"] = n
            case "delete":
                assert perform(Delete(tenant, where, where=ALWAYS)) == len(right)
                rows[tenant] = {key: value for key, value in held.items() if key not in right}
            case "denied":
                outside = [key for key in held if key not in right]
                try:
                    perform(Upsert(tenant, where, tuple(record(tenant, *key, 9) for key in held)))
                    assert not outside
                    rows[tenant] = dict.fromkeys(held, 9)
                except DeniedError:
                    assert outside
            case "remove":
                MemoryOperator(shelf).remove(tenant)
                rows[tenant] = {}
