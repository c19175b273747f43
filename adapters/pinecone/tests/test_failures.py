"""What goes wrong: limits before any I/O, faults of the server, the client's habits, forks and Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pinecone import AsyncIndex, Index

import vectoracl as v
from vectoracl import Chunk, F, testing
from vectoracl.adapter_api.operations import Replace, Upsert
from vectoracl.errors import RefusedError, StoreError, UntaggedWriteError
from vectoracl_pinecone import names
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.compile import PineconeCompiler
from vectoracl_pinecone.names import check_namespace, namespace_of
from vectoracl_pinecone.ports import AsyncPineconePort, PineconePort, bounded, call
from vectoracl_pinecone.requests import Listing, Put, Query, Remove

from pinecone_support.shapes import config, records
from pinecone_support.stores import Provisioned
from pinecone_support.stub import KEY, Answer, Asked, Stub, stub

ALICE = testing.principal("alice", "acme")
ONES = np.ones(8)


def settings(server: Stub, **more: Any) -> dict[str, Any]:
    main = {"adapter": "pinecone", "host": server.host, "api_key": KEY, "dimension": 8, **more}
    return {"version": 1, "stores": {"main": {"metadata": {"year": "number"}, **main}}}


def chunks(count: int, **more: Any) -> list[Chunk]:
    return [Chunk(f"c{i}", f"d{i % 9}", f"t{i}", ONES + i, metadata={"year": 2000 + i}, **more) for i in range(count)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_applications_logs_name_no_tenant_document_or_chunk(
    store: Provisioned, caplog: pytest.LogCaptureFixture, asynchronous: bool
) -> None:
    caplog.set_level("DEBUG")
    name = names.name_part("secret-document")

    async def work() -> None:
        async with v.aconnect(store.config) as acl:
            docs = acl.scoped(ALICE)
            await docs.upsert([Chunk("secret-chunk", "secret-document", "secret-text", ONES)])
            assert (await docs.search(ONES))[0].text == "secret-text"
            assert (await docs.delete(document="secret-document")).count == 1

    if asynchronous:
        asyncio.run(work())
    else:
        with v.connect(store.config) as acl:
            docs = acl.scoped(ALICE)
            docs.upsert([Chunk("secret-chunk", "secret-document", "secret-text", ONES)])
            assert docs.search(ONES)[0].text == "secret-text"
            assert docs.delete(document="secret-document").count == 1
    store.ask("POST", "/describe_index_stats", json={})  # a call of the application's own is logged as ever
    assert "describe_index_stats" in caplog.text
    for word in ("vectoracl-t-acme", "secret", name, store.needle.key):
        assert word not in caplog.text


# The lowest gate


@pytest.mark.parametrize(
    "name",
    ["", " ", "__default__", "acme", "vectoracl-", "vectoracl-t-beta", "VECTORACL-t-acme", "vectoracl-t-acme ",
     "vectoracl-t-acme\0", "x" * 600, None, 7, "vectoracl-t-ac\u200bme"],
)  # fmt: skip
def test_no_other_namespace_than_the_tenants_own_gets_past_the_gate(name: Any) -> None:
    class Never:
        def __getattr__(self, _: str) -> Any:
            raise AssertionError("the client was called")

    made = config()
    for request in (
        Query("acme", name, [1.0, 0.0], 1),
        Listing("acme", name),
        Put("acme", name, ()),
        Remove("acme", name, ids=("x",)),
    ):
        for kind in ("vector", "document"):
            with pytest.raises(RefusedError) as refused:
                call(Never(), made, kind, request, 1.0)  # type: ignore[arg-type]
            assert refused.value.code == "confinement"


def test_a_delete_has_exactly_one_selector_and_never_an_empty_one() -> None:
    """The client takes an empty list of ids, or an empty filter, for something; here it is nothing that is sent."""

    class Never:
        def __getattr__(self, _: str) -> Any:
            if _ == "documents":
                return self
            raise AssertionError("the client was called")

    made, name = config(), namespace_of("vectoracl-", "acme")
    for more in ({}, {"ids": ()}, {"filter": {}}, {"ids": ("x",), "filter": {"a": {"$eq": 1}}}):
        for kind in ("vector", "document"):
            with pytest.raises(StoreError) as refused:
                call(Never(), made, kind, Remove("acme", name, **more), 1.0)  # type: ignore[arg-type]
            assert (refused.value.code, refused.value.sent) == ("rejected", "no")
    compiler = PineconeCompiler(made, {})
    for make in (
        lambda: compiler.remove("acme", (), True),
        lambda: compiler.remove("acme", ("x",), False),
        lambda: compiler.query("acme", {}, 1),
        lambda: compiler.query("acme", False, 1),
        lambda: compiler.fetch_by("acme", True, 1),
        lambda: compiler.listing(""),
    ):
        with pytest.raises(RefusedError):
            make()


def test_the_write_gate_is_passed_before_a_request_is_made() -> None:
    store = PineconeAdapter(config(), {})
    good = records(1)
    for bad in (records(1, "beta"), [good[0]._replace(tag=None)]):
        for flow in (
            store.upsert(Upsert("acme", v.ALWAYS, (*good, *bad))),
            store.replace(Replace("acme", v.ALWAYS, good[0].tag.document, (*good, *bad))),
        ):
            with pytest.raises(UntaggedWriteError):
                next(flow)


def test_the_gate_lets_the_tenants_own_namespace_through() -> None:
    for tenant in ("acme", "ACME", "é" * 90, "__default__", "default"):
        check_namespace("vectoracl-", tenant, namespace_of("vectoracl-", tenant))
    with pytest.raises(RefusedError):
        namespace_of("vectoracl-", "")


@pytest.mark.parametrize(
    "prefix", ["", "-", "Abc-", "abc", "a b-", "__default__", "x" * 40 + "-", "a-\n", "a-t-", "a-x-", "a-h-b-"]
)
def test_a_prefix_that_could_be_another_name_is_refused(prefix: str) -> None:
    with pytest.raises(v.ConfigError):
        v.connect({"version": 1, "stores": {"m": {"adapter": "pinecone", "host": "https://h.example", "api_key": "k",
                                                  "dimension": 8, "namespace_prefix": prefix}}})  # fmt: skip


# Limits, before any I/O


def test_limits_are_typed_errors_before_anything_is_sent() -> None:
    with stub() as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE)
        docs.count()
        server.asked.clear()
        with pytest.raises(v.InvalidInputError, match="40,000"):
            docs.upsert([Chunk("fine", "d", "x", ONES), Chunk("c", "d", "x" * 40_000, ONES)])
        with pytest.raises(v.InvalidInputError, match="40,000"):
            docs.replace("d", [Chunk("c", "d", "é" * 19_900, ONES)])
        with pytest.raises(v.InvalidInputError, match="2 MB"):
            docs.upsert([Chunk(f"c{i}", "d", "x" * 30_000, ONES) for i in range(80)])
        with pytest.raises(v.InvalidInputError, match="1,000"):
            docs.upsert([Chunk(f"c{i}", "d", "", ONES) for i in range(1001)])
        with pytest.raises(v.InvalidInputError):
            docs.search(ONES, 10_001)
        with pytest.raises(v.UnsupportedPredicateError, match="lexical"):
            docs.search(v.Lexical("words"))
        with pytest.raises(v.UnsupportedPredicateError, match="hybrid"):
            docs.search(v.Hybrid("words", ONES))
        assert server.asked == []


@pytest.mark.parametrize("metric", ["inner", "l2"])
def test_a_vector_of_zeros_is_refused_before_anything_is_sent(metric: str) -> None:
    theirs = {"inner": "dotproduct", "l2": "euclidean"}[metric]
    with stub(metric=theirs) as server, v.connect(settings(server, metric=metric)) as acl:
        docs = acl.scoped(ALICE)
        docs.count()
        server.asked.clear()
        with pytest.raises(v.InvalidInputError, match="zeros"):
            docs.upsert([Chunk("fine", "d", "x", ONES), Chunk("c", "d", "x", [0.0] * len(ONES))])
        assert server.asked == []


def test_a_list_longer_than_pinecone_takes_is_refused() -> None:
    from vectoracl_pinecone.compile_predicate import among

    assert among("k", list(range(10_000)), negated=False, always=True)
    with pytest.raises(v.UnsupportedPredicateError, match="10,000"):
        among("k", list(range(10_001)), negated=False, always=True)


def test_an_upsert_may_be_several_requests_where_config_says_so() -> None:
    with stub() as server, v.connect(settings(server, split_upserts=True, max_batch=5000)) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert([Chunk(f"c{i}", "d", "", ONES) for i in range(2500)])
        puts = [one for one in server.asked if one.path == "/vectors/upsert"]
        assert [len(one.body["vectors"]) for one in puts] == [1000, 1000, 500]

        # The server is gone in the middle: what is sure is told.
        def gone(one: Asked) -> Answer | None:
            mine = [asked for asked in server.asked if asked.path == "/vectors/upsert"]
            return Answer(0, cut=True) if one.path == "/vectors/upsert" and len(mine) == 2 else None

        server.asked.clear()
        server.fault = gone
        with pytest.raises(v.StoreError) as failed:
            docs.upsert([Chunk(f"n{i}", "d", "", ONES) for i in range(2500)])
        assert (failed.value.sent, failed.value.written, failed.value.code) == ("unknown", 1000, "unavailable")


# Faults of the server


def test_the_rate_limit_is_waited_out_within_a_bound() -> None:
    with stub() as server, v.connect(settings(server, rate_limit_wait=5)) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert(chunks(3))
        left = [3]

        def limited(_: Asked) -> Answer | None:
            left[0] -= 1
            return (
                Answer(429, {"error": {"message": "c0 slow down"}}, {"retry-after": "0.05"}) if left[0] >= 0 else None
            )

        server.fault = limited
        assert docs.count() == 3
        left[0] = 2
        assert docs.delete(ids=[("d0", "c0")]).count == 1  # it was certainly not applied, so a write goes again too
    with stub() as server, v.connect(settings(server, rate_limit_wait=0.2)) as acl:
        acl.open()
        server.fault = lambda _: Answer(429, {}, {"retry-after": "30"})
        begun = time.monotonic()
        with pytest.raises(v.StoreError) as failed:
            acl.scoped(ALICE).count()
        assert (failed.value.code, failed.value.sent) == ("rate_limited", "no")
        assert time.monotonic() - begun < 5


def test_a_refused_key_says_what_it_needs() -> None:
    with stub() as server, pytest.raises(v.PostureError, match="PC002") as failed:
        v.connect(settings(server, api_key="wrong-key"))
    assert "wrong-key" not in str(failed.value)
    with stub() as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE)
        docs.count()
        server.fault = lambda _: Answer(403, {"error": {"message": "secret acme c0"}})
        for work in (docs.count, lambda: docs.upsert(chunks(1)), lambda: docs.delete(document="d0")):
            with pytest.raises(v.StoreError, match="DataPlaneEditor") as failed:
                work()
            assert (failed.value.code, failed.value.sent) == ("unauthorized", "no")
            assert "secret" not in str(failed.value)
            assert failed.value.__cause__ is None
            assert failed.value.__context__ is None


@pytest.mark.parametrize(
    ("status", "code", "read", "write"),
    [(500, "unavailable", "no", "unknown"), (503, "unavailable", "no", "unknown"), (504, "timeout", "no", "unknown"),
     (400, "rejected", "no", "no"), (402, "quota", "no", "no"), (404, "not_provisioned", "no", "no"),
     (409, "rejected", "no", "no"), (412, "rejected", "no", "no"), (413, "too_large", "no", "no"),
     (405, "not_offered", "no", "no")],
)  # fmt: skip
def test_every_status_has_its_error(status: int, code: str, read: str, write: str) -> None:
    with stub() as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert(chunks(2))
        server.fault = lambda _: Answer(status, {"error": {"message": "rows: c0"}})
        with pytest.raises(v.StoreError) as failed:
            docs.count()
        assert (failed.value.code, failed.value.sent) == (code, read)
        server.fault = lambda one: Answer(status) if one.path in ("/vectors/upsert", "/vectors/delete") else None
        for work in (lambda: docs.upsert(chunks(2)), lambda: docs.delete(document="d0")):
            with pytest.raises(v.StoreError) as failed:
                work()
            assert (failed.value.code, failed.value.sent) == (code, write)


def test_an_answer_that_is_no_answer() -> None:
    with stub() as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE)
        docs.count()
        for body in ([], {"matches": "x"}, {"matches": [{"id": 7, "score": "x"}]}, "text"):
            server.fault = lambda _, body=body: Answer(200, body)
            with pytest.raises(v.VectorACLError):
                docs.search(ONES, 3)
        nothing = {"matches": [{"id": "x", "score": 1.0, "metadata": {"acl_text": "somebody's"}}]}
        server.fault = lambda _: Answer(200, nothing)
        with pytest.raises(v.StoreError) as failed:
            docs.search(ONES, 3)
        assert failed.value.code == "malformed"
        server.fault = lambda _: Answer(200, {"vectors": [{"id": "strange"}]})
        with pytest.raises(v.StoreError) as failed:
            list(docs.scan())
        assert failed.value.code == "malformed"


def test_scores_that_the_metric_cannot_give_are_refused() -> None:
    with stub(metric="dotproduct") as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert(chunks(5))
        with pytest.raises(v.StoreError) as failed:
            docs.search(ONES, 3)
        assert failed.value.code == "metric"


# The client's habits


def test_the_clients_own_retries_are_off_and_the_timeout_is_the_whole_time() -> None:
    with stub() as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE)
        docs.count()
        server.asked.clear()
        server.fault = lambda _: Answer(200, wait=3)
        begun = time.monotonic()
        with pytest.raises(v.StoreError) as failed:
            docs.search(ONES, 3, timeout=0.3)
        assert failed.value.code == "timeout"
        assert time.monotonic() - begun < 2.5  # the client alone takes four times, and its pauses
        assert len(server.asked) == 1


def test_a_client_that_cannot_be_bounded_is_refused() -> None:
    for index in (Index(host="http://127.0.0.1:1", api_key="k"), AsyncIndex(host="http://127.0.0.1:1", api_key="k")):
        assert bounded(index) is index
        index._http = object()  # type: ignore[assignment]
        with pytest.raises(v.ConfigError, match="pinecone>="):
            bounded(index)


def test_no_server_at_all() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{taken.getsockname()[1]}"
    main = {"adapter": "pinecone", "host": host, "api_key": "k", "dimension": 8}
    with v.VectorACL({"version": 1, "stores": {"m": main}}) as acl, pytest.raises(v.StoreError) as failed:
        acl.scoped(ALICE).upsert(chunks(1))
    assert (failed.value.code, failed.value.sent, failed.value.retryable) == ("unreachable", "no", True)


@pytest.mark.parametrize("bad", ["", " ", "not a host", "http://"])
def test_a_host_that_is_none(bad: str) -> None:
    main = {"adapter": "pinecone", "host": bad, "api_key": "secret-key", "dimension": 8}
    with pytest.raises(v.VectorACLError) as failed, v.connect({"version": 1, "stores": {"m": main}}) as acl:
        acl.scoped(ALICE).count()
    assert "secret-key" not in str(failed.value)


def test_a_blank_key_is_refused_without_being_shown() -> None:
    with stub() as server, pytest.raises(v.VectorACLError) as failed, v.connect(settings(server, api_key="k\n")) as acl:
        acl.scoped(ALICE).count()
    assert "k\\n" not in repr(failed.value)


# Processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_port_is_not_used_across_a_fork(store: Provisioned) -> None:
    with v.connect(store.config) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert(chunks(3))
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            said = b"nothing"
            try:
                docs.count()
            except v.ClosedError as error:
                said = b"refused" if "fork" in str(error) else b"other"
            finally:
                os.write(write, said)
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 20) == b"refused"
        os.close(read)
        os.close(write)
        assert docs.count() == 3


def test_ctrl_c_stays_ctrl_c_and_the_store_goes_on() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with stub() as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert(chunks(3))
        server.fault = lambda _: Answer(200, wait=1.5)
        timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            docs.count()
            time.sleep(3)  # the signal comes while this thread waits
        timer.join()
        server.fault = lambda _: None
        assert docs.count() == 3


def test_a_cancelled_task_leaves_the_client_usable() -> None:
    with stub() as server:

        async def go() -> int:
            async with v.aconnect(settings(server)) as acl:
                docs = acl.scoped(ALICE)
                await docs.upsert(chunks(3))
                server.fault = lambda _: Answer(200, wait=1)
                task = asyncio.create_task(docs.search(ONES, 3))
                await asyncio.sleep(0.2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                server.fault = lambda _: None
                return len(await docs.search(ONES, 3))

        assert asyncio.run(go()) == 3


def test_a_closed_port_says_so() -> None:
    made = config(host="http://127.0.0.1:1")
    port = PineconePort(made, Path(), debug=False)
    port.close()
    port.close()
    with pytest.raises(v.ClosedError):
        port.execute(Listing("acme", "vectoracl-t-acme"), None)

    async def go() -> None:
        other = AsyncPineconePort(made, Path(), debug=False)
        await other.close()
        with pytest.raises(v.ClosedError):
            await other.execute(Listing("acme", "vectoracl-t-acme"), None)

    asyncio.run(go())


# Hostile values


def test_filters_cannot_inject_operators(store: Provisioned) -> None:
    values = ["$gt", '{"$exists": true}', "$or", "a.b", "'; --", "", "*", "\\", "\u202e"]
    with v.connect(store.with_(metadata={"lang": "keyword"})) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert([Chunk(f"c{i}", "d", "", ONES, metadata={"lang": one}) for i, one in enumerate(values)])
        for i, one in enumerate(values):
            assert [hit.id for hit in docs.scan(F.lang == one)] == [f"c{i}"]
            assert {hit.id for hit in docs.scan(F.lang != one)} == {f"c{j}" for j in range(len(values))} - {f"c{i}"}


def test_metadata_cannot_become_a_tag(store: Provisioned) -> None:
    names = ["acl_tenant", "ACL_TENANT", "field_kw_lang", "has_lang", "a.b", "acl_document", "id"]
    metadata = dict.fromkeys(names, "beta") | {"nested": {"acl_tenant": "beta", "$set": 1}}
    with v.connect(store.config) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert([Chunk("c", "d", "t", ONES, metadata=metadata)])
        (hit,) = docs.search(ONES, 3)
        assert (hit.tenant, hit.metadata) == ("acme", metadata)
        assert list(docs.scan(F.lang.exists())) == []
        assert acl.scoped(testing.principal("bob", "beta")).count() == 0
