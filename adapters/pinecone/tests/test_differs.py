"""An index that differs from the configuration: check names both values, provision refuses; neither passes it."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import permutations

import pytest

import vectoracl as v
from vectoracl.errors import PostureError
from vectoracl_conformance.adapter_tests.differing import findings
from vectoracl_pinecone.schema import METRICS

from pinecone_support.stub import KEY, Answer, stub

DENSE = {"type": "dense_vector", "dimension": 8, "metric": "cosine"}
SPARSE = {"type": "sparse_vector"}


def settings(server, **changes):
    main = {"adapter": "pinecone", "index": "docs", "control_host": server.host, "api_key": KEY, "dimension": 8}
    return {"version": 1, "stores": {"main": {**main, **changes}}}


def told(*findings):
    return [f"{one.subject}: {one.message}" for one in findings]


async def for_asyncio(config):
    async with v.aconnect({**config, "minimum_grade": "none"}) as acl:
        return (await acl.check())["main"]


def differs(config, *words, provision=None):
    """Hold that check lowers the grade with one finding that has all of *words*, and that provision refuses so too."""
    grade, said = findings(config)
    assert grade == "none"
    assert any(all(word in one for word in words) for one in said), said
    with v.VectorACL(config) as acl, contextlib.closing(acl.operator()) as operator:
        with pytest.raises(PostureError) as caught:
            operator.provision()
        assert all(word in caught.value.message for word in provision or words), caught.value.message


@pytest.mark.parametrize("dimension", [1, 7, 9, 4096])
@pytest.mark.parametrize("kind", ["vector", "document"])
def test_another_dimension(kind, dimension):
    with stub(kind=kind) as server:
        differs(settings(server, dimension=dimension), "vectors have dimension 8", f"dimension = {dimension}")


@pytest.mark.parametrize("dimension", [7, 9])
def test_another_dimension_of_an_index_that_is_named_by_its_host(dimension):
    """Only an operator may ask the index itself, which tells the tenants' namespaces too."""
    with stub() as server:
        config = settings(server, index=None, control_host=None, host=server.host, dimension=dimension)
        differs(
            config,
            f"a vector of dimension {dimension}",
            provision=("vectors have dimension 8", f"dimension = {dimension}"),
        )


@pytest.mark.parametrize(("has", "metric"), list(permutations(METRICS, 2)))
@pytest.mark.parametrize("kind", ["vector", "document"])
def test_another_metric(kind, has, metric):
    with stub(kind=kind, metric=METRICS[has]) as server:
        differs(settings(server, metric=metric), f"ranks by {METRICS[has]}", f"asks for {METRICS[metric]}")


@pytest.mark.parametrize(("has", "kind"), list(permutations(["vector", "document"], 2)))
@pytest.mark.parametrize("lexical", [False, True])
def test_another_kind_of_index(has, kind, lexical):
    with stub(kind=has, metric="dotproduct") as server:
        config = settings(server, kind=kind, metric="inner", lexical=lexical)
        differs(config, f"a {has} index", f'kind = "{kind}"')


def test_another_kind_is_said_everywhere():
    with stub(kind="document") as server:
        config = settings(server, kind="vector")
        found = asyncio.run(for_asyncio(config))
        assert (found.grade, told(*found.findings)) == findings(config)
        with pytest.raises(PostureError, match="PC010"):
            v.connect(config)
        with v.VectorACL(config) as acl, contextlib.closing(acl.operator()) as operator:
            for call in (operator.plan, operator.provision, lambda: operator.provision(adopt="*")):
                with pytest.raises(PostureError, match="a document index"):
                    call()


@pytest.mark.parametrize("kind", ["vector", "document"])
def test_another_kind_of_index_that_is_named_by_its_host(kind):
    other = "document" if kind == "vector" else "vector"
    with stub(kind=other) as server:
        config = settings(server, index=None, control_host=None, host=server.host, kind=kind)
        grade, said = findings(config)
    assert grade == "none", said


@pytest.mark.parametrize(
    ("fields", "changes", "words"),
    [
        ({"other": DENSE}, {}, ("'other'", "'embedding'")),
        ({"embedding": DENSE}, {"vector_field": "other"}, ("'embedding'", "'other'")),
        ({"embedding": SPARSE}, {}, ("sparse vectors in 'embedding'", "vector_field = 'embedding'")),
        ({"text": {"type": "string"}}, {}, ("dense vectors in none", "'embedding'")),
        ({"_sparse_values": SPARSE}, {}, ("only sparse vectors", "dense vectors of dimension 8")),
        ({"_sparse_values": SPARSE}, {"kind": "vector"}, ("only sparse vectors", "dense vectors of dimension 8")),
        ({"_sparse_values": SPARSE}, {"kind": "document"}, ("a vector index", 'kind = "document"')),
        ({"embedding": DENSE}, {"kind": "document", "lexical": True}, ("'words'", "none")),
        (
            {"embedding": DENSE, "others": SPARSE},
            {"kind": "document", "lexical": True},
            ("'words'", "'others'"),
        ),
        ({"embedding": DENSE, "words": DENSE}, {"kind": "document", "lexical": True}, ("'words'", "none")),
    ],
)
def test_other_fields(fields, changes, words):
    with stub(kind="document") as server:
        body = {
            "name": "docs", "host": server.host, "status": {"ready": True, "state": "Ready"},
            "schema": {"fields": fields}, "deletion_protection": "disabled",
            "deployment": {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1",
                           "environment": "us-east-1-aws"},
        }  # fmt: skip
        server.fault = lambda one: Answer(200, body) if one.path.startswith("/indexes") else None
        differs(settings(server, **changes), *words)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_vector_index_that_cannot_rank_by_words(metric):
    with stub(metric=METRICS[metric]) as server:
        config = settings(server, kind="vector", metric="inner", lexical=True)
        differs(config, f"ranks by {METRICS[metric]}", "asks for dotproduct")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", [None, "vector", "document"])
def test_an_index_that_does_not_differ(kind, metric):
    with stub(kind=kind or "vector", metric=METRICS[metric]) as server:
        config = settings(server, metric=metric, **({} if kind is None else {"kind": kind}))
        assert findings(config) == ("partition", [])
        with v.VectorACL(config) as acl, contextlib.closing(acl.operator()) as operator:
            assert operator.provision() == ["the index exists; Pinecone creates a namespace with its first record"]
