"""The planner does not try to prove that a filter contradicts itself, which takes it seconds for lists inside of OR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg_pool import ConnectionPool, NullConnectionPool

import vectoracl as v
from vectoracl import Principal
from vectoracl.filters.predicate import And, In, Not, Or, Predicate

pytestmark = pytest.mark.server

ANN = Principal("ann", "acme", authenticated_by="test")
VECTOR = [1.0] * 8
LIST = 90
"""Lists of more than 100 values are not taken apart by these proofs."""
LIMIT = 4.0
"""With the proofs, each statement takes the planner ten seconds or more; without them, milliseconds."""


def listed(number: int) -> In:
    return In("@document", tuple(f"{number}-{one}" for one in range(LIST)))


ALTERNATIVES = Or(tuple(And((listed(number), listed(-number))) for number in range(1, 50)))
DEMANDS = And(tuple(Or((listed(number), Not(listed(-number)))) for number in range(1, 50)))


@pytest.fixture(scope="module")
def store(provisioned: Any) -> Any:
    return provisioned()


@pytest.fixture(params=["a pool of ours", "another pool", "a pool without a limit"])
def docs(store: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "a pool of ours":
        with v.connect(store.config) as acl:
            yield acl.scoped(ANN)
        return
    kind = ConnectionPool if request.param == "another pool" else NullConnectionPool
    with kind(store.runtime) as pool, v.connect(store.config, clients={"main": pool}) as acl:
        yield acl.scoped(ANN)


@pytest.mark.parametrize("where", [ALTERNATIVES, DEMANDS], ids=["alternatives", "demands"])
def test_the_proofs_are_off_where_a_filter_is_planned(docs: Any, where: Predicate) -> None:
    found = where is DEMANDS
    docs.delete(where=where, timeout=LIMIT)
    docs.upsert([v.Chunk("c", "1-1", "text", VECTOR)])
    for _ in range(3):  # the first read of a connection is sent in another form, and later ones are prepared
        assert len(docs.search(VECTOR, where=where, timeout=LIMIT)) == found
        assert docs.count(where=where, timeout=LIMIT) == found
    assert docs.delete(where=where, timeout=LIMIT).count == found
