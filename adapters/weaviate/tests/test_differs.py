"""A collection that differs from the configuration: check names both values; provision refuses, or does it right."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

import vectoracl as v
from vectoracl import Chunk, F
from vectoracl.errors import InvalidInputError
from vectoracl.filters.field_types import FieldType
from vectoracl.testing import principal
from vectoracl_conformance.adapter_tests.differing import assert_differs as differs
from vectoracl_conformance.adapter_tests.differing import findings
from vectoracl_conformance.adapter_tests.kept_embedder import provision
from vectoracl_weaviate.names import property_of
from vectoracl_weaviate.schema import DISTANCE

from weaviate_support.stores import made

WHO = principal("u", "acme")
VALUES = {"keyword": "one", "number": 1, "boolean": True, "datetime": "2026-05-01T00:00:00Z", "keyword[]": ["one"],
          "number[]": [1, 2]}  # fmt: skip
# The stored types of Weaviate, and those that the adapter wants of each.
TYPES = ("text", "text[]", "number", "number[]", "boolean", "int", "date", "uuid")
WANTED = {"keyword": "text", "keyword[]": "text[]", "number": "number", "number[]": "number[]", "boolean": "boolean",
          "datetime": "text"}  # fmt: skip


@pytest.fixture(scope="module")
def filled(server):
    """A collection for each metric, with a row that has every type of field."""
    kept = {}
    for metric in DISTANCE:
        fields = {f"f{place}": kind for place, kind in enumerate(VALUES)}
        one = made(server, metric=metric, metadata=fields)
        with v.connect(one.config) as acl:
            metadata = {f"f{place}": value for place, value in enumerate(VALUES.values())}
            acl.scoped(WHO).upsert([Chunk("1", "d", "x", np.eye(8)[0], metadata=metadata)])
        kept[metric] = one
    yield kept
    for one in kept.values():
        one.http.delete(f"/v1/schema/{one.collection}")
        one.http.close()


@pytest.mark.parametrize("dimension", [1, 7, 9, 4096])
def test_another_dimension(filled, dimension):
    differs(filled["cosine"].with_(dimension=dimension), "vectors have dimension 8", f"dimension = {dimension}")


@pytest.mark.parametrize(("has", "metric"), list(permutations(DISTANCE, 2)))
def test_another_metric(filled, has, metric):
    differs(filled[has].with_(metric=metric), f"distance is {DISTANCE[has]}", f"metric = {metric!r}")


def test_another_vector(filled):
    differs(filled["cosine"].with_(vector="other"), "'other'", "'default'")


@pytest.mark.parametrize(("kind", "type_"), list(product(WANTED, TYPES)))
def test_a_property_of_another_type(stores, kind, type_):
    store = stores(provision=False)
    name = property_of("f", FieldType(kind))
    tokens = {"tokenization": "field"} if type_.startswith("text") else {}
    body = {"name": name, "dataType": [type_], "indexFilterable": True, "indexSearchable": False, **tokens}
    config = store.with_(metadata={"f": kind})
    with v.VectorACL(store.config) as acl:
        operator = acl.operator()
        operator.provision()
        operator.close()
    store.ask("POST", f"/v1/schema/{store.collection}/properties", body)
    if type_ == WANTED[kind]:
        assert provision(config)[1]
        assert findings(config)[1] == []
    else:
        differs(config, name, type_, f"must be {WANTED[kind]}")


@pytest.mark.parametrize(
    ("change", "words"),
    [({"tokenization": "word"}, ("word", "field")), ({"indexFilterable": False}, ("off", "on"))],
)  # fmt: skip
def test_a_property_with_another_index(stores, change, words):
    store = stores()
    body = {"name": property_of("f", FieldType.KEYWORD), "dataType": ["text"], "tokenization": "field",
            "indexFilterable": True, "indexSearchable": False, **change}  # fmt: skip
    store.ask("POST", f"/v1/schema/{store.collection}/properties", body)
    differs(store.with_(metadata={"f": "keyword"}), *words)


def test_a_field_that_is_new_is_provisioned(stores):
    store = stores()
    config = store.with_(metadata={"f": "keyword"})
    grade, said = findings(config)
    assert (grade, len(said)) == ("none", 1)
    assert "does not exist" in said[0]
    provision(config)
    assert findings(config) == ("engine", [])


@pytest.mark.parametrize(("has", "declared"), list(permutations(VALUES, 2)))
def test_a_field_that_was_declared_as_another_type(stores, has, declared):
    store = stores(metadata={"f": has})
    with v.connect(store.config) as acl:
        acl.scoped(WHO).upsert([Chunk("1", "d", "x", np.eye(8)[0], metadata={"f": VALUES[has]})])
    config = store.with_(metadata={"f": declared})
    grade, said = findings(config)
    assert grade == "none"
    assert any(f"as {has}" in one and f"declared as {declared}" in one for one in said), said
    refused = ""
    try:
        provision(config)
    except InvalidInputError as error:
        refused = error.message
    if refused:
        assert "'f'" in refused
        assert declared in refused
        assert findings(config) == (grade, said), "nothing was changed"
    else:  # every value that is there is one of the new type, too
        with v.connect(config) as acl:
            docs = acl.scoped(WHO)
            (stored,) = [hit.metadata["f"] for hit in docs.scan()]
            assert docs.count(F.f == stored) == 1
