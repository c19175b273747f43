"""What goes wrong on a real server: bounded, named, and without the client's texts."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import httpx
import numpy as np
import pytest
from weaviate.proto.v1 import batch_pb2

import vectoracl as v
from vectoracl import Chunk, F
from vectoracl.errors import ClosedError, InvalidInputError, StoreError
from vectoracl.testing import principal
from vectoracl_weaviate.failures import mapped, rpc_at
from vectoracl_weaviate.ports import _written, compiled
from vectoracl_weaviate.requests import Find, Put, Tally

from weaviate_support.shapes import COMPILER, CONFIG, TENANT, VECTOR, records
from weaviate_support.stores import made

AT = rpc_at("127.0.0.1:50051")
E = np.eye(8, dtype=np.float32)


def test_no_server_is_said_soon(stores):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    store = stores()
    for settings, named in (({"url": f"http://127.0.0.1:{port}"}, "in url"), ({"grpc_port": port}, "grpc_port")):
        begun = time.monotonic()
        with pytest.raises(StoreError) as caught, v.connect(store.with_(**settings)) as acl:
            acl.scoped(principal("u", "acme")).count()
        assert caught.value.code == "unreachable"
        assert str(port) in str(caught.value)
        assert named in str(caught.value)
        assert time.monotonic() - begun < 10  # the official client's own methods wait 63 s here


def test_a_server_that_ends_in_the_middle_and_comes_back_to_nobody(own_server):
    store = made(own_server)
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk("1", "d", "kept", E[0])])
        stop = threading.Timer(0.3, own_server.close)
        stop.start()
        outcomes = []
        try:
            for place in range(100_000):
                docs.upsert([Chunk(f"{place}-{i}", "e", "secret-text", E[i % 8]) for i in range(200)])
        except StoreError as error:
            outcomes.append(error)
        stop.join()
        (error,) = outcomes
        # While it ends it refuses all of a batch, or it is gone.
        assert error.code in ("rejected", "unreachable", "unavailable", "timeout")
        assert "secret-text" not in str(error)
        begun = time.monotonic()
        for work in (docs.count, lambda: docs.search(E[0], 3), lambda: docs.delete(document="d")):
            with pytest.raises(StoreError) as caught:
                work()
            assert caught.value.code == "unreachable"
        assert time.monotonic() - begun < 15


def test_time_limits_are_kept_without_retrying(store):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk(str(i), "d", "", E[i % 8]) for i in range(500)])
        begun = time.monotonic()
        with pytest.raises(StoreError) as caught:
            docs.search(E[0], 100, timeout=1e-4)
        assert caught.value.code == "timeout"
        assert time.monotonic() - begun < 2

    async def work():
        async with v.aconnect(store.config) as aacl:
            adocs = aacl.scoped(principal("u", "acme"))
            with pytest.raises(StoreError) as late:
                await adocs.search(E[0], 100, timeout=1e-4)
            assert late.value.code == "timeout"
            assert (await adocs.count()) == 500

    asyncio.run(work())


def test_a_silent_server_is_given_up_after_the_ports_own_limit(stores):
    store = stores()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        begun = time.monotonic()
        config = store.with_(grpc_port=deaf.getsockname()[1], request_timeout=0.5)
        with v.connect(config) as acl, pytest.raises(StoreError) as caught:
            acl.scoped(principal("u", "acme")).count()
        assert caught.value.code in ("timeout", "unavailable", "unreachable")
        assert time.monotonic() - begun < 10


def test_objects_that_a_batch_refuses_are_raised_and_counted():
    reply = batch_pb2.BatchObjectsReply()
    _written(reply, 3)
    reply.errors.add(index=1, error="secret text of an object")
    with pytest.raises(StoreError) as caught:
        _written(reply, 3)
    assert (caught.value.code, caught.value.sent, caught.value.written) == ("rejected", "unknown", 2)
    assert "secret" not in str(caught.value)
    for index in (0, 2):
        reply.errors.add(index=index, error="x")
    with pytest.raises(StoreError) as caught:
        _written(reply, 3)
    assert (caught.value.sent, caught.value.written) == ("no", 0)


def test_an_object_that_the_server_refuses_fails_the_call_and_nothing_is_logged(store, caplog):
    caplog.set_level(logging.DEBUG)
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk("1", "d", "", E[0])])
        port = acl._stores["main"].port
        request = COMPILER.put(TENANT, [(one, "") for one in records(2)])
        for one in request.message.objects:
            one.collection = store.collection  # vectors of two numbers, where the collection has eight
        with pytest.raises(StoreError) as caught:
            port.execute(Put("acme", request.message), 10)
        assert caught.value.code == "rejected"
        assert docs.count() == 1
    assert "text 0" not in caplog.text
    assert "text 0" not in str(caught.value)


class _Refusing:
    """A port that refuses the first requests of the data, as the server does where the tenant is not there yet."""

    def __init__(self, inner, refusals, sent="no"):
        self.inner, self.refusals, self.sent, self.refused = inner, refusals, sent, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def execute(self, request, timeout):
        if isinstance(request, Find | Tally) and self.refused < self.refusals:
            self.refused += 1
            raise StoreError("refused", code="rejected", adapter="weaviate", sent=self.sent)
        return self.inner.execute(request, timeout)


@pytest.mark.parametrize("call", ["upsert", "replace", "count", "search"])
@pytest.mark.parametrize(("refusals", "sent"), [(1, "no"), (9, "no"), (1, "unknown")])
def test_a_tenant_that_another_writer_made_meanwhile_is_asked_again_once(store, monkeypatch, call, refusals, sent):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk("1", "d", "", E[0])])
        ports = acl._stores["main"].ports
        port = _Refusing(ports["store"], refusals, sent)
        monkeypatch.setitem(ports, "store", port)
        work = {
            "upsert": lambda: docs.upsert([Chunk("2", "d", "", E[1])]),
            "replace": lambda: docs.replace("d", [Chunk("2", "d", "", E[1])]),
            "count": docs.count,
            "search": lambda: docs.search(E[0], 3),
        }[call]
        if refusals == 1 and sent == "no":
            work()
            monkeypatch.undo()
            assert docs.count() == {"upsert": 2}.get(call, 1)
        else:
            with pytest.raises(StoreError) as caught:
                work()
            assert (caught.value.code, caught.value.sent) == ("rejected", sent)
            assert port.refused <= 4  # two requests side by side, twice


class _Blind:
    """A port that loses the server right after the first objects are written."""

    def __init__(self, inner):
        self.inner, self.puts = inner, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def execute(self, request, timeout):
        if self.puts:
            raise StoreError("gone", code="unavailable", adapter="weaviate", sent="no", retryable=True)
        self.puts += isinstance(request, Put)
        return self.inner.execute(request, timeout)


def test_a_look_that_fails_after_the_write_is_no_reason_to_write_again(store, monkeypatch):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk("1", "d", "", E[0])])
        ports = acl._stores["main"].ports
        port = _Blind(ports["store"])
        monkeypatch.setitem(ports, "store", port)
        with pytest.raises(StoreError) as caught:
            docs.upsert([Chunk("2", "d", "", E[1])])
        assert (caught.value.sent, port.puts) == ("unknown", 1)
        monkeypatch.undo()
        assert docs.count() == 2


def test_too_large_a_call_is_refused_before_anything_is_sent(store):
    with v.connect(store.with_(max_request_bytes=20_000)) as acl:
        docs = acl.scoped(principal("u", "acme"))
        with pytest.raises(InvalidInputError, match="max_request_bytes"):
            docs.upsert([Chunk(str(i), "d", "x" * 5000, E[0]) for i in range(5)])
        with pytest.raises(InvalidInputError):
            docs.upsert([Chunk("1", "d", "", E[0][:4])])
    assert store.tenants() == {}


@pytest.mark.parametrize(
    ("code", "expected", "sent"),
    [
        (grpc.StatusCode.UNAVAILABLE, "unavailable", "unknown"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "timeout", "unknown"),
        (grpc.StatusCode.PERMISSION_DENIED, "unauthorized", "no"),
        (grpc.StatusCode.UNAUTHENTICATED, "unauthorized", "no"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate_limited", "no"),
        (grpc.StatusCode.UNKNOWN, "rejected", "unknown"),
        (grpc.StatusCode.INTERNAL, "unavailable", "unknown"),
    ],
)
def test_what_grpc_says(code, expected, sent):
    class Refused(grpc.RpcError):
        def code(self):
            return code

    error = mapped(Refused("secret details"), write=True, debug=False, at=AT)
    assert (error.code, error.sent, error.__cause__) == (expected, sent, None)
    assert "secret" not in str(error)
    assert mapped(Refused("secret"), write=True, debug=True, at=AT).__cause__ is not None


@pytest.mark.parametrize(
    ("raised", "expected", "sent"),
    [
        (httpx.ConnectError("x"), "unreachable", "no"),
        (httpx.ReadTimeout("x"), "timeout", "unknown"),
        (httpx.RemoteProtocolError("x"), "unavailable", "unknown"),
        (TimeoutError(), "timeout", "unknown"),
        (ValueError("secret"), "rejected", "no"),
        (RuntimeError("secret"), "client", "unknown"),
    ],
)
def test_what_else_is_raised(raised, expected, sent):
    error = mapped(raised, write=True, debug=False, at=AT)
    assert (error.code, error.sent) == (expected, sent)
    assert "secret" not in str(error)


def test_a_missing_property_is_named_by_the_check(store):
    config = store.with_(metadata={"year": "number", "lang": "keyword", "extra": "number"})
    config["minimum_grade"] = "none"
    with v.connect(store.config) as acl:
        acl.scoped(principal("u", "acme")).upsert([Chunk("1", "d", "", E[0])])
    with v.VectorACL(config) as acl:
        assert "m_num_extra" in str(acl.check()["main"].findings)
        with pytest.raises((StoreError, v.PostureError)):
            acl.scoped(principal("u", "acme")).search(E[0], where=F.extra == 1)


def test_a_port_is_not_used_across_a_fork_and_a_new_process_has_its_own(store):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk("1", "d", "", E[0])])
        port = acl._stores["main"].port
        here = os.getpid()
        try:
            port._pid = here + 1  # as a child sees it
            with pytest.raises(ClosedError, match="fork"):
                port.execute(COMPILER.state("acme"), 1)
        finally:
            port._pid = here
        script = (
            "import json, sys, vectoracl as v\n"
            "with v.connect(json.load(sys.stdin)) as acl:\n"
            "    print(acl.scoped(v.testing.principal('u', 'acme')).count())\n"
        )
        asked = {"input": json.dumps(store.config), "capture_output": True, "text": True, "timeout": 60}
        assert subprocess.run([sys.executable, "-c", script], check=True, **asked).stdout == "1\n"
        assert docs.count() == 1


def test_ctrl_c_in_a_call_stays_ctrl_c_and_leaves_the_store_usable(store):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        ended = threading.Event()

        def press() -> None:
            time.sleep(0.3)
            for _ in range(8):  # one that Python raises where nothing can (a finalizer) is lost: a person presses again
                os.kill(os.getpid(), signal.SIGINT)
                if ended.wait(5):
                    return

        presser = threading.Thread(target=press, daemon=True)
        presser.start()
        place = 0
        with pytest.raises(KeyboardInterrupt):
            for place in range(100_000):
                docs.upsert([Chunk(f"{place}-{i}", "d", "", E[i % 8]) for i in range(100)])
        ended.set()
        presser.join()
        docs.upsert([Chunk("after", "e", "", E[0])])
        # The rest of the batch that was cut off may still be written, but only that.
        assert docs.count(F["@document"] == "e") == 1
        assert docs.count() <= place * 100 + 101


def test_cancelled_tasks_leave_nothing_that_sticks(store):
    async def work():
        async with v.aconnect(store.config) as acl:
            docs = {tenant: acl.scoped(principal("u", tenant)) for tenant in ("acme", "beta")}
            for tenant, one in docs.items():
                await one.upsert([Chunk(str(i), "d", tenant, E[i % 8]) for i in range(50)])
            tasks = [asyncio.create_task(one.search(E[0], 20)) for one in docs.values() for _ in range(30)]
            await asyncio.sleep(0.005)
            for task in tasks[::2]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(one, v.Result | asyncio.CancelledError) for one in done)
            for tenant, one in docs.items():
                assert {hit.text for hit in await one.search(E[0], 50)} == {tenant}

    asyncio.run(work())


def test_a_closed_store_says_so(store):
    acl = v.connect(store.config)
    docs = acl.scoped(principal("u", "acme"))
    acl.close()
    acl.close()
    with pytest.raises(ClosedError):
        docs.count()


def test_requests_and_errors_show_no_content():
    request = Find(TENANT, COMPILER.near(TENANT, True, VECTOR, 1, frozenset()).message)
    assert compiled(CONFIG, request).method == "Search"
