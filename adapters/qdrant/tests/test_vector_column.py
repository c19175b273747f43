"""The collection keeps whose vectors it holds; another embedder, dimension, metric or type is refused with the cure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from vectoracl import Chunk, PostureError, RefusedError, VectorACL, aconnect, connect, testing
from vectoracl_qdrant import posture, schema
from vectoracl_qdrant.config import QdrantConfig

from qdrant_support.stores import Provisioned

WRITER = testing.principal("writer", "acme")


class One:
    name = "one:8"
    dimension = 8

    def embed_documents(self, texts: Any) -> Any:
        return np.tile(np.arange(1, 9, dtype=np.float32), (len(texts), 1))

    embed_queries = embed_documents


class Other(One):
    name = "other:8"


class Never(Other):
    def embed_documents(self, _: Any) -> Any:
        raise AssertionError("it is asked for vectors that cannot be compared")

    embed_queries = embed_documents


def provision(config: Any, embedder: Any = None) -> tuple[str, list[str]]:
    with VectorACL(config, embedder=embedder) as acl:
        operator = acl.operator()
        try:
            return operator.plan(), operator.provision()
        finally:
            operator.close()


def test_an_existing_store_learns_its_embedder_at_the_next_provision(store: Provisioned) -> None:
    with connect(store.config, embedder=One()) as acl:  # nothing is known yet, so nothing is refused
        acl.scoped(WRITER).upsert([Chunk("a", "d", "text")])
    store.client.update_collection(store.collection, metadata={"owner": "us"})
    plan, done = provision(store.config, One())
    assert "one:8" in plan
    assert any(line.startswith("PATCH") for line in done)
    found = store.client.get_collection(store.collection).config.metadata
    assert found == {"owner": "us", "vectoracl": {"embedder": "one:8"}}
    assert "one:8" not in provision(store.config, One())[0]
    with connect(store.config, embedder=One()) as acl:
        assert acl.check()["main"].embedder == "one:8"
        assert len(acl.scoped(WRITER).search("text")) == 1
    with connect(store.config, embedder=Other()) as acl:
        docs = acl.scoped(WRITER)
        for call in (lambda: docs.search("text"), lambda: docs.upsert([Chunk("b", "d", "text")])):
            with pytest.raises(RefusedError, match="copy --reembed"):
                call()
        assert len(docs.search([1.0] * 8)) == 1
        assert "VA002" in {one.rule.id for one in acl.check()["main"].findings}
    with pytest.raises(RefusedError, match="copy --reembed"):
        provision(store.config, Other())


def test_two_configurations_with_embedders_of_one_length_meet_in_one_store_for_asyncio(store: Provisioned) -> None:
    """Whichever comes second is refused with the cure before anything is embedded or sent; its own vectors are not."""
    provision(store.config, One())

    async def first() -> None:
        async with aconnect(store.config, embedder=One()) as acl:
            await acl.scoped(WRITER).upsert([Chunk("a", "d", "text")])

    async def second() -> None:
        async with aconnect(store.config, embedder=Never()) as acl:
            docs = acl.scoped(WRITER)
            for call in (
                lambda: docs.search("text"),
                lambda: docs.upsert([Chunk("b", "d", "text")]),
                lambda: docs.replace("d", [Chunk("b", "d", "text")]),
                lambda: docs.load([Chunk("b", "d", "text")]),
            ):
                with pytest.raises(RefusedError, match="copy --reembed") as failed:
                    await call()
                assert "'one:8'" in str(failed.value)
                assert "'other:8'" in str(failed.value)
            assert [hit.id for hit in await docs.search([1.0] * 8)] == ["a"]
            assert "VA002" in {one.rule.id for one in (await acl.check())["main"].findings}
            assert await docs.count() == 1

    asyncio.run(first())
    asyncio.run(second())


@pytest.mark.parametrize(
    "changed", [{"dimension": 7}, {"dimension": 16}, {"metric": "l2"}, {"metric": "inner"}, {"vector": "v"}], ids=str
)
def test_another_dimension_metric_or_name_is_said_everywhere(
    provisioned: Callable[..., Provisioned], changed: dict[str, Any]
) -> None:
    store = provisioned()
    config = {**store.config, "stores": {"main": {**store.config["stores"]["main"], **changed}}}
    with pytest.raises(RefusedError, match="copy the chunks there"):
        provision(config)
    with VectorACL(config) as acl:
        assert "QD008" in {one.rule.id for one in acl.check()["main"].findings}
    with pytest.raises(PostureError, match="QD008"):
        connect(config)


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"datatype": models.Datatype.FLOAT16}, "QD008"),
        ({"datatype": models.Datatype.UINT8}, "QD008"),
        ({"datatype": models.Datatype.FLOAT32}, None),
        ({"multivector_config": models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)}, "QD008"),
        (
            {
                "quantization_config": models.ScalarQuantization(
                    scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
                )
            },
            "QD031",
        ),
    ],
    ids=str,
)
def test_another_type_of_numbers_is_found(store: Provisioned, changed: dict[str, Any], rule: str | None) -> None:
    info = store.client.get_collection(store.collection)
    config = QdrantConfig(memory=True, name="x", collection=store.collection, dimension=8)
    dense = schema.dense(config, info)
    assert dense is not None
    params = info.config.params.model_copy(update={"vectors": dense.model_copy(update=changed)})
    found = info.model_copy(update={"config": info.config.model_copy(update={"params": params})})
    rules = {one.rule.id for one in posture.judge(config, {}, found, untagged=False).findings}
    assert (rule in rules) if rule else rules.isdisjoint({"QD008", "QD031"})
