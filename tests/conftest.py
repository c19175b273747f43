"""What the core's tests share: one body for sync and async, taps on the ports, principals, a clock."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import tempfile
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import vectoracl
from vectoracl import Chunk, Principal
from vectoracl.audit.sinks import MemorySink

# A job in the background ignores Ctrl-C, and its children inherit that; tests of Ctrl-C send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests leave nothing in the home of whoever runs them.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="vectoracl-state-")

# A busy machine is slow, not wrong. In CI the examples are the same in each run; elsewhere they are new ones.
settings.register_profile(
    "vectoracl", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("vectoracl")

FIELDS = {
    "lang": "keyword",
    "year": "number",
    "public": "boolean",
    "seen": "datetime",
    "tags": "keyword[]",
    "sizes": "number[]",
}
CONFIG: dict[str, Any] = {
    "version": 1,
    "stores": {"main": {"adapter": "memory", "dimension": 3, "metadata": FIELDS}},
    "tenants": {"shared": ["commons"]},
}


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class TapPort:
    """Passes requests on and keeps them; `answer` may replace what is done with one."""

    def __init__(self, port: Any, *, is_async: bool) -> None:
        self.port = port
        self.is_async = is_async
        self.requests: list[Any] = []
        self.timeouts: list[float | None] = []
        self.answer: Any = None

    @property
    def parallel(self) -> int:
        return int(self.port.parallel)

    def execute(self, request: Any, timeout: float | None) -> Any:
        self.requests.append(request)
        self.timeouts.append(timeout)
        if self.answer is None:
            return self.port.execute(request, timeout)
        if self.is_async:
            return self._later(request, timeout)
        return self.answer(request, lambda: self.port.execute(request, timeout))

    async def _later(self, request: Any, timeout: float | None) -> Any:
        inner = getattr(self.port, "_port", self.port)
        found = self.answer(request, lambda: inner.execute(request, timeout))
        return await found if inspect.isawaitable(found) else found

    def close(self) -> Any:
        return self.port.close()

    @property
    def operations(self) -> list[Any]:
        return [one.operation for one in self.requests if hasattr(one, "operation")]


class Api:
    """The sync or the async form under one face: every method returns its result."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.is_async = kind == "async"
        self._runner = asyncio.Runner() if self.is_async else None
        self._opened: list[Any] = []

    def __repr__(self) -> str:
        return self.kind

    def wait(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            assert self._runner is not None

            async def waiting() -> Any:
                return await value

            return self._runner.run(waiting())
        return value

    def connect(self, config: Any = None, *, clock: Clock | None = None, **given: Any) -> Face:
        given.setdefault("sink", MemorySink())
        make = vectoracl.aconnect if self.is_async else vectoracl.connect
        acl = make(CONFIG if config is None else config, **given)
        self._opened.append(acl)
        if self.is_async:
            self.wait(acl.open())
        if clock is not None:
            acl.pipeline.clock = clock
        return Face(self, acl)

    def close(self) -> None:
        for acl in self._opened:
            self.wait(acl.close())
        if self._runner is not None:
            self._runner.close()


class Face:
    """Calls a VectorACL or a handle, sync or async, and gives the result."""

    def __init__(self, api: Api, real: Any) -> None:
        self.api = api
        self.real = real

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, name)
        if not inspect.ismethod(found):
            return found

        def call(*args: Any, **given: Any) -> Any:
            made = found(*args, **given)
            if hasattr(made, "__anext__"):
                return self._iterate(made)
            made = self.api.wait(made)
            handles = (vectoracl.ScopedRetriever, vectoracl.AsyncScopedRetriever)
            return Face(self.api, made) if isinstance(made, handles) else made

        return call

    def _iterate(self, made: Any) -> Any:
        try:
            while True:
                try:
                    yield self.api.wait(made.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            self.api.wait(made.aclose())

    def enter(self) -> None:
        self.api.wait(self.real.__aenter__() if self.api.is_async else self.real.__enter__())

    def leave(self) -> None:
        method = self.real.__aexit__ if self.api.is_async else self.real.__exit__
        self.api.wait(method(None, None, None))

    def tap(self, store: str = "main", adapter: Any = None, **capabilities: Any) -> TapPort:
        """Record what the store is asked from now on; *adapter*: a callable that wraps the adapter."""
        named = self.real._named(store)
        attribute = "aport" if self.api.is_async else "port"
        if getattr(named, attribute) is None:
            setattr(named, attribute, getattr(named.opened, attribute)())
        port = TapPort(getattr(named, attribute), is_async=self.api.is_async)
        setattr(named, attribute, port)
        (named.aports if self.api.is_async else named.ports)["store"] = port
        if adapter is not None:
            named.store = replace(named.store, adapter=adapter(named.store.adapter))
        if capabilities:
            inner = named.store.adapter
            inner._capabilities = replace(inner.capabilities, **capabilities)
        return port

    @property
    def records(self) -> list[Any]:
        return list(self.real.sink.records)

    @property
    def outcomes(self) -> list[Any]:
        return list(self.real.sink.outcomes)


@pytest.fixture(scope="session")
def make_api():
    """Make an `Api`, for tests whose examples each need one; close it."""
    return Api


@pytest.fixture(params=["sync", "async"])
def api(request):
    """The sync and the async form, one after the other."""
    made = Api(request.param)
    yield made
    made.close()


@pytest.fixture
def acl(api):
    """A memory store of dimension 3 with one declared field of each type; "commons" is shared."""
    return api.connect()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def config() -> dict[str, Any]:
    """A copy of the configuration that may be changed."""
    return {
        "version": 1,
        "stores": {"main": {"adapter": "memory", "dimension": 3, "metadata": dict(FIELDS)}},
        "tenants": {"shared": ["commons"]},
    }


@pytest.fixture
def who():
    """Make a principal: who("acme"), who("acme", "ann", expires_at=…)."""

    def make(tenant: str = "acme", name: str = "ann", **claims: Any) -> Principal:
        claims.setdefault("authenticated_by", "test")
        return Principal(name, tenant, **claims)

    return make


@pytest.fixture
def chunk():
    """Make a chunk: chunk("c1"), chunk("c1", "doc", lang="en"); its vector is [1, 0, 0] unless told."""

    def make(name: str = "c1", document: str = "doc", vector: Any = (1.0, 0.0, 0.0), **metadata: Any) -> Chunk:
        return Chunk(name, document, f"text of {name}", vector, metadata=metadata)

    return make
