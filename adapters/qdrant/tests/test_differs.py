"""A collection that differs from the configuration: check names both values; provision refuses, or does it right.

Local mode has no payload indexes; there a reply stands in for what a server says.
"""

from __future__ import annotations

import contextlib
from functools import partial
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

import vectoracl as v
from vectoracl import Chunk
from vectoracl.engine.drivers import run
from vectoracl.errors import RefusedError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.validation import check_fields
from vectoracl.testing import principal
from vectoracl_conformance.adapter_tests import differing
from vectoracl_conformance.adapter_tests.kept_embedder import provision
from vectoracl_qdrant import posture, schema
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.names import field_path
from vectoracl_qdrant.operator import QdrantOperator
from vectoracl_qdrant.requests import Describe, Scroll, Tenants, Version

from qdrant_support.stores import make

WHO = principal("u", "acme")
VALUES = {"keyword": "one", "number": 1, "boolean": True, "datetime": "2026-05-01T00:00:00Z", "keyword[]": ["one"],
          "number[]": [1, 2]}  # fmt: skip
NAMED = {"cosine": "Cosine", "inner": "Dot", "l2": "Euclid"}
INDEX = {"keyword": "keyword", "keyword[]": "keyword", "number": "float", "number[]": "float", "boolean": "keyword",
         "datetime": "datetime"}  # fmt: skip
SERVER = QdrantConfig(url="https://qdrant.example", dimension=8)


@pytest.fixture(scope="module")
def filled():
    """A collection for each metric."""
    kept = {metric: make(metric=metric) for metric in schema.DISTANCE}
    yield kept
    for one in kept.values():
        one.close()


def with_(store, **changes):
    return {**store.config, "stores": {"main": {**store.config["stores"]["main"], **changes}}}


# QD011: local mode has no payload indexes.
findings = partial(differing.findings, ignored={"QD011"})
differs = partial(differing.assert_differs, ignored={"QD011"})


@pytest.mark.parametrize("dimension", [1, 7, 9, 4096])
def test_another_dimension(filled, dimension):
    differs(with_(filled["cosine"], dimension=dimension), "vectors have dimension 8", f"of dimension {dimension}")


@pytest.mark.parametrize(("has", "metric"), list(permutations(NAMED, 2)))
def test_another_metric(filled, has, metric):
    differs(with_(filled[has], metric=metric), f"distance {NAMED[has]}", f"distance {NAMED[metric]}")


@pytest.mark.parametrize(
    ("has", "wanted", "words"),
    [
        (None, "b", ("an unnamed vector", "'b'")),
        ("a", None, ("'a'", "unnamed")),
        ("a", "b", ("'a'", "'b'")),
    ],
)
def test_another_vector(has, wanted, words):
    store = make(vector=has)
    differs(with_(store, vector=wanted), *words)
    store.close()


@pytest.mark.parametrize(("has", "wanted"), [("words", "other"), (False, "words")])
def test_the_words_of_another_name_are_named_and_added(has, wanted):
    store = make(words=has)
    config = with_(store, words=wanted)
    said = findings(config)[1]
    assert any(wanted in one and ("'words'" in one or has is False) for one in said), said
    with contextlib.suppress(RefusedError):  # local mode, and an old server, cannot add one
        assert provision(config)[1] != ["everything is in place"]
        assert findings(config)[1] == []
    store.close()


# What a server says of its payload indexes.


class Told:
    """A server with one collection: it says what it holds, and takes payload indexes."""

    def __init__(self, config, fields, indexes):
        store = make(vector=config.vector)
        info = store.client.get_collection(store.collection)
        store.close()
        strict = models.StrictModeConfigOutput(**schema.strict_mode(config).model_dump(exclude_none=True))
        hnsw = info.config.hnsw_config.model_copy(update={"m": 0, "payload_m": config.payload_m})
        settings = info.config.model_copy(update={"hnsw_config": hnsw, "strict_mode_config": strict})
        self.info = info.model_copy(update={"config": settings, "payload_schema": dict(indexes)})
        self.config, self.fields, self.done = config, fields, []

    def execute(self, request, _timeout):
        match request:
            case Describe():
                return self.info
            case Version():
                return "1.19.0"
            case Tenants():
                return ()
            case Scroll():
                return type("Page", (), {"points": [], "offset": None})()
        raise AssertionError(request)

    def read(self, *_args, **_options):
        return [], None

    def apply(self, step):
        assert isinstance(step, schema.CreateIndex), step
        self.done.append(step)
        self.info.payload_schema[step.key] = there(step.params)

    def close(self):
        pass

    def check(self):
        found = run(posture.look(self.config, self.fields), {"store": self})
        return found.grade, [f"{one.subject}: {one.message}" for one in found.findings]

    def provision(self):
        operator = QdrantOperator(self.config, self.fields, lambda: self, lambda: self)
        operator.plan()
        return operator.provision()


def there(params: Any, points: int = 0) -> models.PayloadIndexInfo:
    return models.PayloadIndexInfo(data_type=params.type.value, params=params, points=points)


def indexes(fields):
    return {key: there(params) for key, params in schema.indexes(SERVER, fields).items()}


def of_type(kind, points=1):
    return models.PayloadIndexInfo(data_type=kind, points=points)


def repaired(server, key, *words):
    """Hold that check names both types of the index on *key*, and that provision makes it the right one."""
    said = server.check()[1]
    assert any(key in one and all(word in one for word in words) for one in said), said
    assert any(key in line or "/index" in line for line in server.provision())
    assert [step.key for step in server.done] == [key]
    assert server.check() == ("predicate", [])
    assert server.provision() == ["everything is in place"]


@pytest.mark.parametrize(("kind", "type_"), list(product(INDEX, models.PayloadSchemaType)))
def test_an_index_of_another_type(kind, type_):
    fields = check_fields({"f": kind})
    key = field_path(SERVER.payload, "f", FieldType(kind))
    server = Told(SERVER, fields, {**indexes(fields), key: of_type(type_)})
    if type_.value == INDEX[kind]:
        assert server.check() == ("predicate", [])
        assert server.provision() == ["everything is in place"]
    else:
        repaired(server, key, f"has a {type_.value} index", f"needs a {INDEX[kind]} index")


@pytest.mark.parametrize("key", [*schema.indexes(SERVER, {})])
@pytest.mark.parametrize("type_", [None, *models.PayloadSchemaType])
def test_an_index_of_our_own_of_another_type(key, type_):
    wanted = schema.indexes(SERVER, {})[key].type.value
    some = indexes({})
    del some[key]
    if type_ is None:
        repaired(Told(SERVER, {}, some), key, "has no", wanted)
    elif type_.value != wanted:
        repaired(Told(SERVER, {}, {**some, key: of_type(type_)}), key, f"has a {type_.value} index", wanted)
    elif key == "group_id":
        repaired(Told(SERVER, {}, {**some, key: of_type(type_)}), key, "does not have is_tenant", "with is_tenant")
    else:
        assert Told(SERVER, {}, {**some, key: of_type(type_)}).provision() == ["everything is in place"]


@pytest.mark.parametrize(("has", "declared"), list(permutations(VALUES, 2)))
@pytest.mark.parametrize("points", [0, 3])
def test_a_field_that_a_server_holds_as_another_type(has, declared, points):
    before, fields = check_fields({"f": has}), check_fields({"f": declared})
    old = field_path(SERVER.payload, "f", FieldType(has))
    server = Told(SERVER, fields, {**indexes(before), old: of_type(INDEX[has], points)})
    said = server.check()[1]
    assert any(f"it has no {INDEX[declared]} index" in one for one in said), said
    if not points:  # its chunks were written again, or there were none
        assert server.provision()
        assert server.check() == ("predicate", [])
        return
    for _ in range(2):
        assert any(f"'f' as {has}" in one and f"declared as {declared}" in one for one in server.check()[1])
        with pytest.raises(RefusedError, match=f"'f' as {has[:6]}.*declared as {declared[:6]}"):
            server.provision()
        assert server.done == [], "nothing was changed"
        new = field_path(SERVER.payload, "f", FieldType(declared))
        server.info.payload_schema[new] = of_type(INDEX[declared])  # somebody added the index by hand


@pytest.mark.parametrize(("has", "declared"), list(permutations(VALUES, 2)))
def test_a_field_that_local_mode_holds_as_another_type(has, declared):
    store = make(metadata={"f": has})
    with v.connect(store.config) as acl:
        acl.scoped(WHO).upsert([Chunk("1", "d", "x", np.eye(8)[0], metadata={"f": VALUES[has]})])
    config = with_(store, metadata={"f": declared})
    for _ in range(2):
        said = findings(config)[1]
        assert any(f"'f' as {has}" in one and f"declared as {declared}" in one for one in said), said
        with pytest.raises(RefusedError, match=f"'f' as {has[:6]}.*declared as {declared[:6]}"):
            provision(config)
    with v.connect(config) as acl:
        acl.scoped(WHO).upsert([Chunk("1", "d", "x", np.eye(8)[0], metadata={"f": VALUES[declared]})])
    assert findings(config)[1] == [], "it was written again"
    assert provision(config)[1] == ["everything is in place"]
    store.close()


@pytest.mark.parametrize("kind", VALUES)
def test_a_field_that_is_new_is_provisioned(kind):
    fields = check_fields({"f": kind})
    server = Told(SERVER, fields, indexes({}))
    repaired(server, field_path(SERVER.payload, "f", FieldType(kind)), "has no", INDEX[kind])
