"""Contexts whose adapter runs in its own process behave as those whose adapter runs here."""

import asyncio
import sys
import time

import pytest

from vectoracl.errors import ClosedError, DeniedError, InvalidPrincipalError, StoreError
from vectoracl_conformance.context.check_context import USER, CheckContext, drive
from vectoracl_conformance.context.corpus import DIMENSION, FIELDS, build
from vectoracl_conformance.context.table_policy import everything, nothing
from vectoracl_conformance.harness import Needs
from vectoracl_conformance.harnesses.memory import MemoryStore
from vectoracl_conformance.isolated import remote
from vectoracl_conformance.isolated.remote import RemoteContext, end_process, process_of

SLOW = """
import asyncio, dataclasses, time

class Slow:
    parallel = 8

    def __init__(self, inner):
        self.inner = inner

    def execute(self, request, timeout):
        time.sleep(0.3)
        return self.inner.execute(request, timeout)

    def close(self):
        self.inner.close()

class AsyncSlow(Slow):
    async def execute(self, request, timeout):
        await asyncio.sleep(0.3)
        return await self.inner.execute(request, timeout)

    async def close(self):
        await self.inner.close()

def dress(opened):
    port, aport = opened.port, opened.aport
    return dataclasses.replace(opened, port=lambda: Slow(port()), aport=lambda: AsyncSlow(aport()))
"""


FAIL = """
from vectoracl import StoreError

def work(client):
    raise StoreError("x", code="c") from ValueError("hidden cause")
"""


@pytest.fixture(scope="module", params=["sync", "async"])
def mode(request):
    return request.param


@pytest.fixture
def context(mode):
    store = MemoryStore(Needs(DIMENSION, FIELDS))
    yield RemoteContext(store, build(3, 20), mode)
    end_process(store)


def in_mode(context, work):
    async def whole():
        await context.open()
        try:
            return await work()
        finally:
            await context.close()

    return drive(whole()) if context.mode == "sync" else asyncio.run(whole())


def test_nothing_of_the_adapter_is_imported_here(context):
    assert type(context.client if hasattr(context, "client") else None) is type(None)
    look = "import sys\ndef work(client):\n    return sorted(sys.modules)"

    async def work():
        return await context.client.run(look)

    modules = in_mode(context, work)
    assert "vectoracl.memory.ports" in modules
    assert not [name for name in modules if "conformance" in name or name.startswith("pytest")]


def test_handles_iterators_and_events(context):
    async def work():
        own, other = context.tenant(), context.tenant()
        await context.plant(own, context.chunks(7))
        await context.plant(other, context.chunks(2))
        assert {row.tag.tenant for row in context.census()} == {own, other}
        assert context.parts() == {own, other}
        context.recorder.clear()
        hits = context.handle(own).scan(size=3)
        first = await anext(hits)
        assert len(context.recorder) == 1  # one page so far
        rest = [hit async for hit in hits]
        assert len({first.id, *(hit.id for hit in rest)}) == 7
        assert len(await context.handle(own).all()) == 7
        events = context.recorder.since(1)
        assert {type(event.request).__name__ for event in events} == {"Perform"}
        assert all(event.request.partition == own for event in events)
        assert all(context.store.carries(event.request, own) for event in events)
        narrow = context.handle(own).narrow(actions={"search"})
        with pytest.raises(DeniedError):
            await narrow.delete(ids=["x"])
        with pytest.raises(InvalidPrincipalError):
            context.client.as_principal("someone")
        with pytest.raises(TypeError):
            context.client.acl.scoped()
        assert "VectorACL" in context.client.shown()[0]

    in_mode(context, work)


def test_a_closed_handle_is_closed(context):
    async def work():
        handle = context.handle(context.tenant())
        if context.mode == "sync":
            with handle.inner:
                pass
        else:
            async with handle.inner:
                pass
        with pytest.raises(ClosedError):
            await handle.search(context.corpus.centre, 1)

    in_mode(context, work)


def test_rules_travel_and_change(context):
    async def work():
        own, other = context.tenant(), context.tenant()
        await context.plant(own, context.chunks(1))
        await context.plant(other, context.chunks(1))
        client = context.new_client(policy=everything(USER, {other: remote.ALWAYS}))
        await client.open()
        handle = client.handle(own)
        assert {hit.tenant for hit in await handle.all()} == {other}
        client.change(everything(USER, {}))
        assert list(await handle.search(context.corpus.centre, 3)) == []
        client.change(nothing(USER))
        with pytest.raises(DeniedError):
            await handle.search(context.corpus.centre, 3)
        await client.close()

    in_mode(context, work)


def test_calls_run_together(context):
    process_of(context.store).far.ask("source", SLOW)

    async def work():
        handle = context.handle(context.tenant())
        started = time.monotonic()
        await context.together([lambda: handle.search(context.corpus.centre, 1) for _ in range(8)])
        assert time.monotonic() - started < 1.5  # one after the other they take 2.4 s

    in_mode(context, work)


def test_a_call_is_cut_there(context):
    process_of(context.store).far.ask("source", SLOW)

    async def work():
        own = context.tenant()
        handle = context.handle(own)
        error = await context.cut(lambda limit: handle.upsert(context.chunks(1), timeout=limit), 0.05)
        await context.pause(0.5)
        if context.mode == "async":
            assert isinstance(error, asyncio.CancelledError)
            assert not context.state(own)  # the port was cancelled while it waited, before it wrote
        assert len(await context.handle(own).search(context.corpus.centre, 1)) <= 1

    in_mode(context, work)


def test_what_is_logged_there_is_heard(context):
    say = "import logging, sys, warnings\ndef work(client, word):\n    logging.getLogger('x.y').debug(word)\n"
    say += "    warnings.warn('warned of ' + word)\n    print('printed', word)"

    async def work():
        with context.listening() as heard:
            await context.client.run(say, "swordfish")
            with pytest.raises(StoreError) as raised:
                await context.client.run(FAIL)
        assert heard().count("swordfish") == 3
        assert "hidden cause" in raised.value.report
        with context.listening() as later:
            pass
        assert "swordfish" not in later()

    in_mode(context, work)


def test_what_the_kit_wraps_stays_here():
    context = CheckContext(MemoryStore(Needs(DIMENSION, FIELDS)), build(3, 20), "sync", lambda opened: opened)

    async def work():
        assert await context.client.run("import sys\ndef work(client):\n    return 'pytest' in sys.modules")

    assert "pytest" in sys.modules
    in_mode(context, work)
