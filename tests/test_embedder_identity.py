"""A store keeps whose vectors it holds; another embedder is refused, also one of the same dimension."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectoracl import Chunk, ConfigError, Hybrid, RefusedError, connect, testing
from vectoracl.adapter_api import store_notes
from vectoracl.text.embedders import CallableEmbedder, identity_of


class One:
    name = "one:3"
    dimension = 3

    def embed_documents(self, texts):
        return np.tile(np.array([[1, 2, 3]], np.float32), (len(texts), 1))

    embed_queries = embed_documents


class Other(One):
    name = "other:3"


@pytest.fixture
def config():
    store = {"adapter": "memory", "dimension": 3, "name": uuid.uuid4().hex}
    return {"version": 1, "stores": {"main": store}}


V = [1.0, 0.0, 0.0]


def test_another_embedder_of_the_same_dimension_is_refused(api, who, config):
    first = api.connect(config, embedder=One())
    first.scoped(who()).upsert([Chunk("a", "d", "text")])
    acl = api.connect(config, embedder=Other())
    port = acl.tap()
    docs = acl.scoped(who())
    for call in (
        lambda: docs.search("text"),
        lambda: docs.search_many(["text", V]),
        lambda: docs.search(Hybrid("text")),
        lambda: docs.upsert([Chunk("b", "d", "text")]),
        lambda: docs.upsert([Chunk("b", "d", "text"), Chunk("c", "d", "text", V)]),
        lambda: docs.replace("d", [Chunk("b", "d", "text")]),
        lambda: docs.load([Chunk("b", "d", "text")]),
    ):
        with pytest.raises(RefusedError, match="--reembed") as caught:
            call()
        assert "'one:3'" in str(caught.value)
        assert "'other:3'" in str(caught.value)
    assert port.requests == []
    assert {one["outcome"] for one in acl.outcomes} == {"error:refused"}
    found = acl.check()["main"]
    assert [(one.rule.id, one.subject) for one in found.findings] == [("VA002", "main")]


def test_vectors_of_the_caller_are_not_compared(api, who, config):
    api.connect(config, embedder=One()).scoped(who()).upsert([Chunk("a", "d", "text")])
    docs = api.connect(config, embedder=Other()).scoped(who())
    docs.upsert([Chunk("b", "d", "text", V)])
    docs.replace("e", [Chunk("b", "e", "text", V)])
    assert len(docs.search(V)) == 3
    without = api.connect(config).scoped(who())
    assert len(without.search(V)) == 3


def test_the_same_identity_under_another_name_is_the_same_embedder(api, who, config):
    class Renamed(Other):
        identity = "one:3"

    api.connect(config, embedder=One()).scoped(who()).upsert([Chunk("a", "d", "text")])
    assert len(api.connect(config, embedder=Renamed()).scoped(who()).search("text")) == 1


def test_an_application_s_embedder_may_declare_its_identity():
    class Mine:
        dimension = 3
        identity = "model-x, revision 7, normalised"

        def __call__(self, texts):
            return np.zeros((len(texts), 3))

    assert identity_of(CallableEmbedder(Mine(), path="a.b:c")) == Mine.identity
    assert identity_of(CallableEmbedder(lambda texts: np.zeros((len(texts), 4)), path="a.b:c")) == "a.b:c:4"
    for wrong in ("", "a\nb", "x" * 501, 7):
        with pytest.raises(ConfigError, match="identity"):
            identity_of(type("Wrong", (One,), {"identity": wrong})())


@given(st.text(max_size=200), st.text(min_size=1, max_size=50))
def test_notes_leave_what_else_is_written_as_it_is(text, identity):
    once = store_notes.written(text, {"embedder": identity, "dimension": 3})
    assert store_notes.read(once) == {"embedder": identity, "dimension": 3}
    assert store_notes.written(once, {"embedder": identity, "dimension": 3}) == once
    again = store_notes.written(once, {"embedder": "b"})
    assert store_notes.read(again) == {"embedder": "b"}
    mine = [line for line in text.split("\n") if line and not line.startswith("[vectoracl] ")]
    assert again.split("\n")[: len(mine)] == mine


@pytest.mark.parametrize("text", [None, "", "a table", "[vectoracl] ", "[vectoracl] [1]", "[vectoracl] {", 7])
def test_what_holds_no_notes_has_none(text):
    assert store_notes.read(text) == {}
    assert store_notes.embedder_of({"embedder": 7}) is None


def test_what_provision_has_to_write():
    assert store_notes.learned("main", None, None) is None
    assert store_notes.learned("main", "a", None) is None
    assert store_notes.learned("main", "a", "a") is None
    assert store_notes.learned("main", None, "a") == "a"
    with pytest.raises(RefusedError, match="copy --reembed"):
        store_notes.learned("main", "a", "b")


def test_a_named_memory_store_of_another_dimension_is_refused(config):
    with connect(config) as acl:
        acl.scoped(testing.principal("w", "acme")).upsert([Chunk("a", "d", "text", V)])
        other = {**config, "stores": {"main": {**config["stores"]["main"], "dimension": 4}}}
        with pytest.raises(Exception, match="dimension = 3"):
            connect(other)
