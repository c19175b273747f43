"""What a store's own client raises, with a row's text or a parameter in it, is nowhere in our errors: four adapters."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from unittest import mock

import pytest

import vectoracl
from vectoracl import Chunk, Principal, VectorACLError
from vectoracl.adapter_api.posture import Posture
from vectoracl.engine.core_ports import CORE_PORTS

V = [1.0, 0.0, 0.0]
CANARY = "canary"
ANN = Principal("ann", "acme", authenticated_by="test")


def reached(error):
    """Every exception that can be reached from *error*."""
    seen, waiting = [], [error]
    while waiting:
        one = waiting.pop()
        if one is None or any(one is other for other in seen):
            continue
        seen.append(one)
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return seen


def behind(error):
    """Return *error* as clients raise it: beside and because of others, with a note."""
    error.__cause__, error.__context__ = ValueError(f"because of {CANARY}"), KeyError(CANARY)
    error.add_note(f"about {CANARY}")
    return error


def of_python():
    return [
        ValueError(CANARY), OSError(5, CANARY), ConnectionResetError(CANARY), TimeoutError(CANARY), KeyError(CANARY),
        RuntimeError(CANARY), MemoryError(CANARY), UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
        ExceptionGroup(CANARY, [ValueError(CANARY)]),
    ]  # fmt: skip


def of_pgvector():
    import psycopg
    from psycopg_pool import PoolClosed, PoolTimeout

    kinds = (
        "UniqueViolation", "CheckViolation", "NotNullViolation", "ForeignKeyViolation", "InvalidTextRepresentation",
        "RaiseException", "InsufficientPrivilege", "SerializationFailure", "QueryCanceled", "DiskFull", "AdminShutdown",
        "UndefinedColumn", "ProgramLimitExceeded", "DivisionByZero", "InternalError_",
    )  # fmt: skip
    plain = ("Error", "DatabaseError", "OperationalError", "InterfaceError", "DataError", "ProgrammingError")
    made = [getattr(psycopg.errors, kind)(f"Key (content)=({CANARY})") for kind in kinds]
    return made + [getattr(psycopg, kind)(CANARY) for kind in plain] + [PoolTimeout(CANARY), PoolClosed(CANARY)]


def of_qdrant():
    import httpx
    from grpc import RpcError, StatusCode
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    class RpcFailedError(RpcError):
        def code(self):
            return StatusCode.INVALID_ARGUMENT

        def details(self):
            return CANARY

    body = f'{{"status":{{"error":"{CANARY}"}}}}'.encode()
    statuses = (400, 401, 403, 404, 409, 413, 422, 429, 500, 503)
    made = [UnexpectedResponse(status, CANARY, body, httpx.Headers({"x": CANARY})) for status in statuses]
    return [*made, ResponseHandlingException(OSError(CANARY)), RpcFailedError(CANARY)]


def of_weaviate():
    import httpx
    from grpc import RpcError, StatusCode

    def rpc(status):
        class RpcFailedError(RpcError):
            def code(self):
                return status

            def details(self):
                return CANARY

        return RpcFailedError(CANARY)

    request = httpx.Request("POST", f"http://127.0.0.1/{CANARY}")
    answers = [httpx.Response(status, text=CANARY, request=request) for status in (401, 422, 500)]
    made = [httpx.HTTPStatusError(CANARY, request=request, response=one) for one in answers]
    return [*made, httpx.ReadTimeout(CANARY), httpx.ConnectError(CANARY), *(rpc(one) for one in list(StatusCode)[:5])]


def of_pinecone():
    from pinecone import exceptions

    made = []
    for name in sorted(vars(exceptions)):
        kind = getattr(exceptions, name)
        if isinstance(kind, type) and issubclass(kind, Exception):
            for given in ({"message": CANARY, "status_code": 400}, {"message": CANARY}):
                with contextlib.suppress(TypeError):
                    made.append(kind(**given))
                    break
    assert len(made) > 3
    return made


ADAPTERS = {
    "pgvector": (of_pgvector, {"dsn": "postgresql://nobody@127.0.0.1:1/none"}),
    "qdrant": (of_qdrant, {"url": "http://127.0.0.1:1"}),
    "weaviate": (of_weaviate, {"url": "http://127.0.0.1:1", "grpc_port": 2}),
    "pinecone": (of_pinecone, {"host": "http://127.0.0.1:1", "api_key": "none"}),
}


def operations(docs):
    chunk = Chunk("c", "d", "text", V, metadata={"lang": CANARY})
    where = vectoracl.F.lang == CANARY
    return {
        "search": lambda: docs.search(V, where=where),
        "search_many": lambda: docs.search_many([V, V]),
        "fetch": lambda: docs.fetch(["c"]),
        "count": lambda: docs.count(where=where),
        "facets": lambda: docs.facets("lang"),
        "page": docs.page,
        "scan": docs.scan,
        "upsert": lambda: docs.upsert([chunk]),
        "replace": lambda: docs.replace("d", [chunk]),
        "delete": lambda: docs.delete(document="d"),
    }


# Where each adapter reaches its client.
PORTS = {
    "pgvector": "vectoracl_pgvector.connection.ports",
    "qdrant": "vectoracl_qdrant.ports",
    "weaviate": "vectoracl_weaviate.ports",
    "pinecone": "vectoracl_pinecone.ports",
}


@contextlib.contextmanager
def failing(adapter, error, *, is_async):
    """Let whatever asks the store's client raise *error*."""
    module = importlib.import_module(PORTS[adapter])

    def fails(*_args, **_given):
        raise error

    with contextlib.ExitStack() as stack:
        if adapter == "pgvector":
            prefix = "a" if is_async else ""
            kind = mock.AsyncMock if is_async else mock.Mock
            stack.enter_context(mock.patch.object(module, f"{prefix}borrow", kind()))
            stack.enter_context(mock.patch.object(module, f"{prefix}recover", kind()))
            stack.enter_context(mock.patch.object(module, "limited", return_value=contextlib.nullcontext()))
            stack.enter_context(mock.patch.object(module, f"{prefix}pipeline", fails))
            stack.enter_context(mock.patch.object(module, "check_encoding"))
        elif adapter == "weaviate":
            for name in ("WeaviatePort", "AsyncWeaviatePort"):
                stack.enter_context(mock.patch.object(getattr(module, name), "_once", fails))
        else:
            for name in ("call", "acall"):
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, fails))
        yield


def client_of(adapter, *, is_async):
    """Return a client to give, where the adapter would connect by itself."""
    if adapter != "pgvector":
        return {}
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

    return {"main": mock.MagicMock(spec=AsyncConnectionPool if is_async else ConnectionPool)}


def ready(acl, *, is_async):
    """Take the store as found, without asking it."""
    named = acl._named("main")
    named.posture = Posture("credential", ())
    if is_async:
        named.aport = named.opened.aport()
        named.aports = {**dict.fromkeys(CORE_PORTS, acl._core_async), "store": named.aport}
    else:
        named.port = named.opened.port()
        named.ports = {**dict.fromkeys(CORE_PORTS, acl.core_port), "store": named.port}


def check(name, error):
    assert isinstance(error, VectorACLError), f"{name}: {error!r}"
    for one in reached(error):
        assert isinstance(one, VectorACLError), f"{name}: {type(one).__name__} is in the chain of {error!r}"
        assert CANARY not in f"{one} {one.args} {getattr(one, '__notes__', '')} {vars(one)}", name


def config_of(adapter, settings, *, debug=False):
    metadata = {"lang": "keyword"}
    main = {"adapter": adapter, "dimension": 3, "metadata": metadata, **settings}
    return {"version": 1, "debug_errors": debug, "stores": {"main": main}}


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_no_text_of_the_client_is_in_our_errors(adapter, form):
    pytest.importorskip(f"vectoracl_{adapter}")
    importlib.import_module(PORTS[adapter])  # a port that was moved is a failure, not a skip
    make, settings = ADAPTERS[adapter]
    is_async = form == "async"
    config = config_of(adapter, settings)
    clients = client_of(adapter, is_async=is_async)
    failed = []

    async def run_async():
        acl = vectoracl.AsyncVectorACL(config, clients=clients)
        acl._check_loop()
        ready(acl, is_async=True)
        for error in (*of_python(), *make()):
            with failing(adapter, behind(error), is_async=True):
                for name, call in operations(acl.scoped(ANN)).items():
                    try:
                        got = call()
                        if hasattr(got, "__aiter__"):
                            [one async for one in got]
                        else:
                            await got
                    except Exception as raised:
                        failed.append((f"{name}, {type(error).__name__}", raised))
                    else:
                        raise AssertionError(f"{name} did not fail")

    def run_sync():
        acl = vectoracl.VectorACL(config, clients=clients)
        ready(acl, is_async=False)
        for error in (*of_python(), *make()):
            with failing(adapter, behind(error), is_async=False):
                for name, call in operations(acl.scoped(ANN)).items():
                    try:
                        got = call()
                        if name == "scan":
                            list(got)
                    except Exception as raised:
                        failed.append((f"{name}, {type(error).__name__}", raised))
                    else:
                        raise AssertionError(f"{name} did not fail")

    with mock.patch("time.sleep"):
        asyncio.run(run_async()) if is_async else run_sync()
    assert len(failed) >= 10 * (len(of_python()) + 3)
    for name, error in failed:
        check(name, error)
