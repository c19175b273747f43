"""Tests that a store records its embedder, and refuses another one with the next step."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pytest

from vectoracl import Chunk, RefusedError, VectorACL, aconnect, connect, testing
from vectoracl.model.records import Vector

WRITER: Final = testing.principal("writer", "acme")
CURE: Final = "copy --reembed"


class One:
    """An embedder of eight numbers."""

    name = "one:8"
    dimension = 8

    def embed_documents(self, texts: Sequence[str]) -> Vector:
        """Return the same vector for each of *texts*."""
        return np.tile(np.arange(1, 9, dtype=np.float32), (len(texts), 1))

    def embed_queries(self, texts: Sequence[str]) -> Vector:
        """Return the same vector for each of *texts*."""
        return self.embed_documents(texts)


class Other(One):
    """Another embedder of the same dimension."""

    name = "other:8"


class Never(Other):
    """An embedder that must not be asked: its vectors cannot be compared with those of the store."""

    def embed_documents(self, _: Sequence[str]) -> Vector:
        """Fail."""
        raise AssertionError("it is asked for vectors that cannot be compared")


def provision(config: Mapping[str, Any], embedder: Any = None) -> tuple[str, list[str]]:
    """Provision the store of *config*; return the plan and what was done."""
    with VectorACL(config, embedder=embedder) as acl:
        operator = acl.operator()
        try:
            return operator.plan(), operator.provision()
        finally:
            operator.close()


def write_before(config: Mapping[str, Any]) -> None:
    """Write a chunk to a store that knows no embedder yet, so that nothing is refused."""
    with connect(config, embedder=One()) as acl:
        acl.scoped(WRITER).upsert([Chunk("a", "d", "text")])
        assert acl.check()["main"].embedder is None


def assert_kept(config: Mapping[str, Any], embedder: One, other: One) -> None:
    """Assert that the store of *config* keeps *embedder*, which finds the chunk, and refuses *other*."""
    with connect(config, embedder=embedder) as acl:
        assert acl.check()["main"].embedder == embedder.name
        docs = acl.scoped(WRITER)
        assert [hit.id for hit in docs.search("text")] == ["a"]
        assert docs.count() == 1
    with connect(config, embedder=other) as acl:
        docs = acl.scoped(WRITER)
        for call in (lambda: docs.search("text"), lambda: docs.upsert([Chunk("b", "d", "text")])):
            with pytest.raises(RefusedError, match=CURE):
                call()
        assert len(docs.search([1.0] * 8)) == 1
        assert "VA002" in {one.rule.id for one in acl.check()["main"].findings}
        operator = acl.operator()
        assert [one.tenant for one in operator.tenants()] == ["acme"]
        operator.close()
    with pytest.raises(RefusedError, match=CURE):
        provision(config, other)


def assert_second_is_refused(config: Mapping[str, Any]) -> None:
    """Let two configurations with embedders of one length meet in one store, over asyncio.

    The second one is refused with the cure before anything is embedded or sent; its own vectors are not.
    """
    provision(config, One())

    async def first() -> None:
        async with aconnect(config, embedder=One()) as acl:
            await acl.scoped(WRITER).upsert([Chunk("a", "d", "text")])

    async def second() -> None:
        async with aconnect(config, embedder=Never()) as acl:
            docs = acl.scoped(WRITER)
            for call in (
                lambda: docs.search("text"),
                lambda: docs.upsert([Chunk("b", "d", "text")]),
                lambda: docs.replace("d", [Chunk("b", "d", "text")]),
                lambda: docs.load([Chunk("b", "d", "text")]),
            ):
                with pytest.raises(RefusedError, match=CURE) as failed:
                    await call()
                assert "'one:8'" in str(failed.value)
                assert "'other:8'" in str(failed.value)
            assert [hit.id for hit in await docs.search([1.0] * 8)] == ["a"]
            assert "VA002" in {one.rule.id for one in (await acl.check())["main"].findings}
            assert await docs.count() == 1

    asyncio.run(first())
    asyncio.run(second())
