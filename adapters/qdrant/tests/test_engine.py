"""Compiled filters in Qdrant's own engine agree with the reference on every row; so do they after gRPC's conversion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from vectoracl_conformance.strategies import FIELDS, predicate, rows, unit

pytest.importorskip("qdrant_edge", reason="not run: pip install qdrant-edge-py")

import vectoracl as v
from vectoracl import F
from vectoracl.adapter_api.chunk_validation import record_of, validate_chunks
from vectoracl.filters.boolean_compiler import ALL_ROWS
from vectoracl.filters.semantics import compile_test
from vectoracl.filters.validation import check_fields, check_scope_predicate
from vectoracl.model.records import Record, Tag
from vectoracl_qdrant.compile import NO_VERSION, QdrantCompiler
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.names import id_of, order_of

from qdrant_support.edge import Shard, convert

CONFIG = QdrantConfig(url="http://localhost", dimension=8)
TYPES = check_fields(FIELDS)
COMPILED = QdrantCompiler(CONFIG, TYPES)


def records(tenant: str, count: int) -> list[Record]:
    prepared = validate_chunks(rows(count), TYPES, 8, nonzero=True, limit=1000)
    made = record_of(
        prepared,
        [one.vector for one in prepared],
        lambda chunk: Tag(tenant, chunk.document, chunk.id, chunk.position % 3, time=0.5, position=chunk.position),
    )
    return list(made)


OURS, THEIRS = records("acme", 120), records("beta", 120)


@pytest.fixture(scope="module", params=[True, False], ids=["indexed", "unindexed"])
def shard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shard]:
    made = Shard(tmp_path_factory.mktemp("shard"), CONFIG, TYPES, indexed=request.param)
    both = [*OURS, *THEIRS]
    made.upsert(COMPILED.points(both, COMPILED.words_of(both), NO_VERSION))
    yield made
    made.close()


tagged = st.one_of(
    st.sampled_from([0, 1, 2.5, 1.5]).map(lambda one: F["@generation"] >= one),
    st.sampled_from([0.25, 0.5]).map(lambda one: F["@time"] > one),
    st.sampled_from(["2:d1:0", "2:d1:1", "x"]).map(lambda one: F["@docgen"] == one),
    st.just(F["@label"] == "default"),
)
scoped = st.one_of(predicate, tagged, st.tuples(predicate, tagged).map(lambda two: two[0] | ~two[1]))


def reference(*predicates: v.Predicate) -> set[str]:
    tests = [compile_test(one) for one in predicates]
    return {id_of(one.tag) for one in OURS if all(test(one.tag, one.metadata) for test in tests)}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scope=scoped, where=predicate)
def test_the_engine_agrees_with_the_reference(shard: Shard, scope: v.Predicate, where: v.Predicate) -> None:
    scope, where = (check_scope_predicate(one, TYPES) for one in (scope, where))
    wanted = reference(scope, where)
    compiled = COMPILED.rows("acme", COMPILED.scope(scope), COMPILED.scope(where))
    if compiled is None:
        assert wanted == set()
        return
    assert shard.ids(compiled) == wanted
    again = GrpcToRest.convert_filter(RestToGrpc.convert_filter(compiled))
    assert shard.ids(again) == wanted


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=predicate, start=st.sampled_from([None, *(float(order_of(one.tag.document)) for one in OURS[:9])]))
def test_the_engine_orders_by_the_number_of_the_document(shard: Shard, where: v.Predicate, start: Any) -> None:
    where = check_scope_predicate(where, TYPES)
    compiled = COMPILED.rows("acme", COMPILED.scope(where))
    if compiled is None:
        return
    if not shard.indexed:
        # Not an empty answer and not another order: without the index of the number the engine refuses.
        with pytest.raises(Exception, match="order"):
            shard.ordered(compiled, CONFIG.payload.order, 1000, start)
        return
    got = shard.ordered(compiled, CONFIG.payload.order, 1000, start)
    orders = {id_of(one.tag): order_of(one.tag.document) for one in OURS}
    assert set(got) == {one for one in reference(where) if start is None or orders[one] >= start}
    assert [orders[one] for one in got] == sorted(orders[one] for one in got)


def test_a_search_ranks_inside_the_tenant(shard: Shard) -> None:
    query = unit(np.random.default_rng(9))
    compiled = COMPILED.rows("acme", ALL_ROWS)
    assert compiled is not None
    got = shard.ranked(compiled, query.tolist(), 10)
    exact = sorted(
        (
            (float(one.vector @ query / np.linalg.norm(one.vector) / np.linalg.norm(query)), id_of(one.tag))
            for one in OURS
        ),
        reverse=True,
    )[:10]
    assert np.allclose([score for _, score in got], [score for score, _ in exact], atol=1e-5)
    assert {one for one, _ in got} <= {id_of(one.tag) for one in OURS}


def test_a_point_without_a_tenant_is_found_and_is_nobodys(shard: Shard) -> None:
    stray = models.PointStruct(id="00000000-0000-0000-0000-000000000001", vector=[1.0] * 8, payload={"content": "x"})
    empty = models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="group_id"))])
    assert shard.ids(empty) == set()
    shard.upsert([stray])
    assert shard.ids(empty) == {stray.id}
    everyone = COMPILED.rows("acme", COMPILED.scope(~(F.lang == "en")))
    assert everyone is not None
    assert stray.id not in shard.ids(everyone)


def test_what_is_never_sent() -> None:
    """The control: an empty clause is everything to the engine, so the conversion would not hide one."""
    assert convert(models.Filter(must=[])) is not None
    assert COMPILED.rows("acme", COMPILED.scope(v.NEVER)) is None
