"""An async ACL belongs to one event loop: the clients of most stores do."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import vectoracl
from vectoracl import testing
from vectoracl.audit.sinks import JsonlSink

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


@pytest.mark.parametrize("at", ["a port is made", "the sink is closed"])
def test_a_close_that_is_cancelled_leaves_nothing_open(at: str, tmp_path: Path) -> None:
    held, go = threading.Event(), threading.Event()

    class Slow(JsonlSink):
        def close(self) -> None:
            if at == "the sink is closed":
                held.set()
                assert go.wait(10)
            super().close()

    def make(acl: Any) -> None:
        with acl._making:
            held.set()
            assert go.wait(10)

    async def use() -> None:
        acl = vectoracl.aconnect(CONFIG, sink=Slow(tmp_path / "audit.jsonl"))
        await acl.scoped(ALICE).count()
        maker = threading.Thread(target=make, args=(acl,))
        if at == "a port is made":
            maker.start()
            held.wait(10)
        closing = asyncio.create_task(acl.close())
        await asyncio.sleep(0.01)
        await asyncio.to_thread(held.wait, 10)
        for _ in range(2):
            closing.cancel()
            await asyncio.sleep(0.01)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        if maker.ident is not None:
            maker.join()
        port: Any = acl._stores["main"].aport
        with pytest.raises(vectoracl.ClosedError):
            await port.execute(None, None)

    asyncio.run(use())
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert ['"outcome":"ok"' in line for line in lines] == [False, True]
