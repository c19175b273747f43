"""The collection keeps whose vectors it holds; another embedder, dimension, metric or type is refused with the cure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from qdrant_client import models

from vectoracl import PostureError, RefusedError, VectorACL, connect
from vectoracl_conformance.adapter_tests import kept_embedder
from vectoracl_conformance.adapter_tests.kept_embedder import One, Other, provision
from vectoracl_qdrant import posture, schema
from vectoracl_qdrant.config import QdrantConfig

from qdrant_support.stores import Provisioned


def test_an_existing_store_learns_its_embedder_at_the_next_provision(store: Provisioned) -> None:
    kept_embedder.write_before(store.config)
    store.client.update_collection(store.collection, metadata={"owner": "us"})
    plan, done = provision(store.config, One())
    assert "one:8" in plan
    assert any(line.startswith("PATCH") for line in done)
    found = store.client.get_collection(store.collection).config.metadata
    assert found == {"owner": "us", "vectoracl": {"embedder": "one:8"}}
    assert "one:8" not in provision(store.config, One())[0]
    kept_embedder.assert_kept(store.config, One(), Other())


def test_two_configurations_with_embedders_of_one_length_meet_in_one_store_for_asyncio(store: Provisioned) -> None:
    kept_embedder.assert_second_is_refused(store.config)


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
