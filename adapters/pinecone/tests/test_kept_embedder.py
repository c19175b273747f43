"""The index keeps whose vectors it holds; another embedder is refused with the cure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vectoracl import Chunk, RefusedError, VectorACL, connect, testing

from pinecone_support.stores import Provisioned

WRITER = testing.principal("writer", "acme")


class One:
    name = "one:8"
    dimension = 8

    def embed_documents(self, texts: Any) -> Any:
        return np.tile(np.arange(1, 8 + 1, dtype=np.float32), (len(texts), 1))

    embed_queries = embed_documents


class Other(One):
    name = "other:8"


def provision(config: Any, embedder: Any = None) -> list[str]:
    with VectorACL(config, embedder=embedder) as acl:
        operator = acl.operator()
        try:
            return operator.provision()
        finally:
            operator.close()


def test_an_existing_store_learns_its_embedder_at_the_next_provision(store: Provisioned) -> None:
    with connect(store.config, embedder=One()) as acl:  # nothing is known yet, so nothing is refused
        acl.scoped(WRITER).upsert([Chunk("a", "d", "text")])
        assert acl.check()["main"].embedder is None
    provision(store.config, One())
    provision(store.config, One())
    with connect(store.config, embedder=One()) as acl:
        assert acl.check()["main"].embedder == One.name
        docs = acl.scoped(WRITER)
        assert [hit.id for hit in docs.search("text")] == ["a"]
        assert docs.count() == 1
    with connect(store.config, embedder=Other()) as acl:
        docs = acl.scoped(WRITER)
        for call in (lambda: docs.search("text"), lambda: docs.upsert([Chunk("b", "d", "text")])):
            with pytest.raises(RefusedError, match="copy --reembed"):
                call()
        assert len(docs.search([1.0] * 8)) == 1
        assert "VA002" in {one.rule.id for one in acl.check()["main"].findings}
        operator = acl.operator()
        assert [one.tenant for one in operator.tenants()] == ["acme"]
        operator.close()
    with pytest.raises(RefusedError, match="copy --reembed"):
        provision(store.config, Other())
