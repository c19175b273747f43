"""An async ACL belongs to one event loop: the clients of most stores do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import vectoracl
from vectoracl import testing

CONFIG: dict[str, Any] = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 3}}}
ALICE = testing.principal("alice", "acme")


def test_another_loop_is_refused_and_the_first_goes_on() -> None:
    """With a pool of psycopg's, calls of another loop hung for good or failed with errors of asyncio's own."""
    acl = vectoracl.aconnect(CONFIG)

    async def count() -> int:
        return await acl.scoped(ALICE).count()

    async def explain() -> Any:
        return await acl.explain(ALICE)

    with asyncio.Runner() as first, asyncio.Runner() as other:
        assert first.run(count()) == 0
        for use in (count, explain, acl.open, acl.check, acl.close):
            with pytest.raises(vectoracl.ClosedError, match="event loop"):
                other.run(use())
        assert first.run(count()) == 0
        first.run(acl.close())
        with pytest.raises(vectoracl.ClosedError, match="was closed"):
            first.run(count())


def test_what_was_never_used_is_closed_anywhere() -> None:
    acl = vectoracl.aconnect(CONFIG)
    asyncio.run(acl.close())
    asyncio.run(acl.close())
