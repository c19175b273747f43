"""The index keeps whose vectors it holds; another embedder is refused with the cure."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from vectoracl import Chunk, RefusedError, VectorACL, aconnect, connect, testing

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


class Never(Other):
    def embed_documents(self, _: Any) -> Any:
        raise AssertionError("it is asked for vectors that cannot be compared")

    embed_queries = embed_documents


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
