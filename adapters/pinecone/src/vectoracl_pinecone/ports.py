"""The only module that talks to Pinecone: one dispatch function, which returns a value or an awaitable, and two ports.

The sync and the async client have the same methods. Two features of the client are disabled: its retries, each with the
full timeout (`bounded`), and the default namespace for requests without a namespace (`names.check_namespace`, before
every call). Time limits and waiting are one generator, `steps`, that both ports drive. A port is never used across a
fork.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
import warnings
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

from pinecone import AsyncIndex, AsyncPinecone, Index, Pinecone, RetryConfig
from pinecone.errors import exceptions as theirs

from vectoracl.adapter_api.connect_failures import Address
from vectoracl.adapter_api.contract import OneProcess
from vectoracl.errors import ConfigError, StoreError, VectorACLError, without_context
from vectoracl_pinecone import documents
from vectoracl_pinecone.compile import TINY
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.failures import ADAPTER, mapped, server_of, silence_client_logs
from vectoracl_pinecone.names import DEFAULT_NAMESPACE, check_namespace, unused_namespace
from vectoracl_pinecone.requests import (
    ANY_WORD,
    AnyRequest,
    DefaultNamespaceProbe,
    Describe,
    Done,
    Drop,
    FetchBy,
    Listing,
    Match,
    MayRank,
    MayRead,
    MayWrite,
    Page,
    Patch,
    Put,
    Query,
    Record,
    Remove,
    Schema,
    Settle,
    SourceIds,
    SourceRows,
    Standing,
    Stats,
)
from vectoracl_pinecone.schema import CreateIndex

AnyIndex = Index | AsyncIndex
_NO_RETRIES = RetryConfig(max_retries=0)
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 2.0
_NOT_THERE = object()
Sleep = float
Steps = Generator[AnyRequest | Sleep, Any, Any]


@without_context
def bounded(index: AnyIndex) -> AnyIndex:
    """Return *index* without the client's own retries, which would multiply every timeout by four.

    `RetryConfig(max_retries=0)` of a `Pinecone` does not reach an index that it opens, so the setting is made where
    the index keeps it. Raises: ConfigError if a client keeps it somewhere else; nothing was sent.
    """
    http: Any = getattr(index, "_http", None)
    try:
        if isinstance(index, AsyncIndex):
            if http._client is not None:  # noqa: SLF001 - the client offers no other way
                http._client._transport._config = _NO_RETRIES  # noqa: SLF001
            http._config = replace(http._config, retry_config=_NO_RETRIES)  # noqa: SLF001
        else:
            if http._client._transport._config.max_retries < 0:  # noqa: SLF001
                raise AttributeError
            http._client._transport._config = _NO_RETRIES  # noqa: SLF001
    except (AttributeError, TypeError):
        raise ConfigError(
            'The retries of this version of the Pinecone client cannot be limited: pip install "pinecone>=10.2,<11".'
        ) from None
    return index


def call(index: AnyIndex, config: PineconeConfig, kind: str, request: AnyRequest, timeout: float) -> Any:
    """Make the one call of *request*; the result, or with the async client an awaitable of it, is the client's.

    Raises: RefusedError for a namespace that is not the tenant's own, before any I/O.
    """
    if not isinstance(request, Standing):
        check_namespace(config.namespace_prefix, request.partition, request.namespace)
    return perform(index, config, kind, request, timeout)


def perform(index: AnyIndex, config: PineconeConfig, kind: str, request: AnyRequest, timeout: float) -> Any:
    """Make the call; only `call`, which has looked at the namespace, may do so."""
    if isinstance(request, Drop):
        return index.delete_namespace(name=request.namespace, timeout=timeout)
    if kind == "document":
        return documents.call(index, config, request, timeout)
    match request:
        case Query():
            return index.query(
                namespace=request.namespace,
                vector=request.vector,
                sparse_vector=None if request.words is None else request.words._asdict(),
                top_k=request.top_k,
                filter=request.filter,
                include_metadata=request.metadata,
                include_values=request.values,
                timeout=timeout,
            )
        case Listing():
            return index.list_paginated(
                namespace=request.namespace,
                prefix=request.prefix,
                limit=request.limit,
                pagination_token=request.token,
                timeout=timeout,
            )
        case FetchBy():
            return index.fetch_by_metadata(
                namespace=request.namespace,
                filter=request.filter,
                limit=request.limit,
                pagination_token=request.token,
                timeout=timeout,
            )
        case Put():
            return index.upsert(
                namespace=request.namespace, vectors=[_vector(one) for one in request.records], timeout=timeout
            )
        case Patch():
            return index.update(
                namespace=request.namespace, id=request.id, set_metadata=request.metadata, timeout=timeout
            )
        case Remove():
            if (request.ids is None) == (request.filter is None) or request.ids == () or request.filter == {}:
                raise StoreError("A delete needs exactly one selector.", code="rejected", adapter=ADAPTER, sent="no")
            return index.delete(
                namespace=request.namespace,
                ids=None if request.ids is None else list(request.ids),
                filter=request.filter,
                timeout=timeout,
            )
        case Describe():
            return index.describe_index_stats(timeout=timeout)
        case MayRead():
            vector = [1.0] + [0.0] * (config.dimension - 1)
            return index.query(
                namespace=unused_namespace(config.namespace_prefix), vector=vector, top_k=1, timeout=timeout
            )
        case MayRank():
            vector = [TINY] + [0.0] * (config.dimension - 1)
            return index.query(
                namespace=unused_namespace(config.namespace_prefix),
                vector=vector,
                sparse_vector=ANY_WORD._asdict(),
                top_k=1,
                timeout=timeout,
            )
        case MayWrite():
            ids = [f"none-{secrets.token_hex(8)}"]
            return index.delete(namespace=unused_namespace(config.namespace_prefix), ids=ids, timeout=timeout)
        case DefaultNamespaceProbe():
            return index.list_paginated(limit=1, timeout=timeout)
        case SourceIds():
            return index.list_paginated(
                namespace=_unnamed(request.namespace), limit=100, pagination_token=request.token, timeout=timeout
            )
        case SourceRows():
            return index.fetch(namespace=_unnamed(request.namespace), ids=list(request.ids), timeout=timeout)
        case Settle() | Schema():
            raise StoreError("This is not a call of the data plane.", code="rejected", adapter=ADAPTER, sent="no")
    assert_never(request)


def _vector(one: Record) -> dict[str, Any]:
    vector = {"id": one.id, "values": one.values, "metadata": one.metadata}
    return vector if one.words is None else {**vector, "sparse_values": one.words._asdict()}


def _unnamed(namespace: str) -> str:
    return "" if namespace == DEFAULT_NAMESPACE else namespace


def reply_of(config: PineconeConfig, kind: str, request: AnyRequest, answer: Any) -> Any:
    """Return the client's *answer* as the reply of *request*."""
    if kind == "document" and not isinstance(
        request, Patch | Describe | Schema | MayRead | MayRank | MayWrite | DefaultNamespaceProbe
    ):
        return documents.reply_of(config, request, answer)
    match request:
        case Query():
            return tuple(Match(one.id, one.score, one.metadata, one.values or None) for one in answer.matches)
        case Listing() | SourceIds():
            matches = tuple(Match(one.id) for one in answer.vectors if one.id is not None)
            return Page(matches, None if answer.pagination is None else answer.pagination.next)
        case SourceRows():
            return tuple(Match(id_, 0.0, one.metadata, one.values or None) for id_, one in answer.vectors.items())
        case FetchBy():
            rows = tuple(Match(id_, 0.0, one.metadata, one.values or None) for id_, one in answer.vectors.items())
            return Page(rows, None if answer.pagination is None else answer.pagination.next)
        case Put() | Remove():
            info = getattr(answer, "response_info", None)
            return Done(None if info is None else info.lsn_committed)
        case Patch():
            return answer is not _NOT_THERE
        case Describe():
            return Stats(
                answer.dimension,
                answer.metric,
                answer.total_vector_count,
                {name: one.vector_count for name, one in answer.namespaces.items()},
            )
        case MayRead() | MayRank() | MayWrite():
            return True
        case DefaultNamespaceProbe():
            return bool(answer.items if kind == "document" else answer.vectors)
        case Schema():
            return None if answer is None else documents.stats_of(answer, config)
        case Settle() | Drop():
            return None
    assert_never(request)


def lsn_of(answer: Any) -> int | None:
    """Return the log position up to which a query's answer has seen writes; None if the server does not report it."""
    info = getattr(answer, "response_info", None)
    return None if info is None else info.lsn_reconciled


def steps(config: PineconeConfig, request: AnyRequest, deadline: float) -> Steps:
    """Yield what is to be done for *request*: calls, whose answers or errors come back, and pauses in seconds.

    A call that the rate limit turned away is made again, after the pause that the server names or a growing one with
    some chance in it, as long as `rate_limit_wait` and *deadline* permit; it was certainly not applied. All other
    errors are the caller's.
    """
    if isinstance(request, Settle):
        return (yield from _settling(config, request, deadline))
    return (yield from _called(config, request, deadline))


def _called(config: PineconeConfig, request: AnyRequest, deadline: float) -> Steps:
    pause, last = _FIRST_WAIT, time.monotonic() + config.rate_limit_wait
    while True:
        try:
            return (yield request)
        except theirs.RateLimitError as limited:
            named = getattr(limited, "retry_after", None)
            wait = pause * (0.5 + random.random()) if named is None else float(named)  # noqa: S311 - no secret
            if time.monotonic() + wait > min(last, deadline):
                raise
        except theirs.NotFoundError:  # a server may say so of a record; Pinecone accepts it as nothing to do
            if not isinstance(request, Patch):
                raise
            return _NOT_THERE
        yield wait
        pause = min(pause * 2, _LONGEST_WAIT)


def _settling(config: PineconeConfig, request: Settle, deadline: float) -> Steps:
    """Ask until a query has seen the write. Raises: StoreError with the code "not_visible" when the time is over."""
    pause, last = 0.02, min(deadline, time.monotonic() + config.wait_visible)
    while True:
        if request.lsn is not None:
            answer = yield from _called(config, _probe(request, None), deadline)
            position = lsn_of(answer)
            visible = position is not None and position >= request.lsn
        else:
            visible = True
            for condition, presence in ((request.seen, True), (request.gone, False)):
                if condition is not None and visible:
                    answer = yield from _called(config, _probe(request, condition), deadline)
                    visible = bool(answer.matches) is presence
        if visible:
            return None
        if time.monotonic() + pause > last:
            raise StoreError(
                f"The write was committed, but was not visible to readers within {config.wait_visible:g} s "
                "(wait_visible); it will become visible.",
                code="not_visible",
                adapter=ADAPTER,
            )
        yield pause
        pause = min(pause * 2, 1.0)


def _probe(request: Settle, condition: Any) -> Query:
    return Query(request.partition, request.namespace, request.vector, 1, condition)


class _Process(OneProcess):
    """The common state of the ports: one process, open or closed."""

    def __init__(self, config: PineconeConfig, base: Path, *, debug: bool) -> None:
        super().__init__()
        self._config = config
        self._base = base
        self._debug = debug
        self._kind: str = config.kind or "vector"
        self._server = server_of(config, config.host)
        self.parallel = config.parallel

    def _deadline(self, request: Any, timeout: float | None) -> float:
        limit = self._config.request_timeout if timeout is None else timeout
        if timeout is None and isinstance(request, Settle):
            limit += self._config.wait_visible
        return time.monotonic() + limit

    def _left(self, deadline: float) -> float:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise StoreError("The time limit was reached before the request was sent.", code="timeout", sent="no")
        return seconds

    def _failed(self, error: Exception, request: Any, *, opened: bool = True) -> VectorACLError:
        at = self._server.data if opened and not isinstance(request, Schema) else self._server.control
        return mapped(error, write=isinstance(request, Put | Patch | Remove | Drop), debug=self._debug, at=at)

    def _arguments(self) -> dict[str, Any]:
        return {"api_key": self._config.api_key.reveal(self._base), "timeout": self._config.request_timeout}


class PineconePort(_Process):
    """The sync port, with its own client or the application's index."""

    def __init__(self, config: PineconeConfig, base: Path, *, debug: bool, client: Index | None = None) -> None:
        super().__init__(config, base, debug=debug)
        self._own = client is None
        self._index: Index = self._opened() if client is None else client
        self._server = server_of(config, self._index.host)
        bounded(self._index)

    def _opened(self) -> Index:
        config = self._config
        host = config.host
        if host is None or (config.kind is None and config.index is not None):
            info = _new_client(lambda: _described(config, self._arguments()), self._server.control, debug=self._debug)
            host = host or info.host
            self._kind = config.kind or documents.kind_of(info)
        make = lambda: Index(host=host, **self._arguments())  # noqa: E731 - made where its errors are mapped
        return _new_client(make, self._server.data, debug=self._debug)  # type: ignore[no-any-return]

    @property
    def host(self) -> str:
        """The address of the index, which no other index has."""
        return str(self._index.host)

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*, with what is waited for in it, within *timeout* seconds."""
        self._check()
        deadline = self._deadline(request, timeout)
        try:
            return self._driven(request, deadline)
        except Exception as error:  # noqa: BLE001 - mapped and raised below
            failed = self._failed(error, request)
        raise failed

    def _driven(self, request: AnyRequest, deadline: float) -> Any:
        flow = steps(self._config, request, deadline)
        answer: Any = None
        error: Exception | None = None
        while True:
            try:
                step = flow.send(answer) if error is None else flow.throw(error)
            except StopIteration as stop:
                return reply_of(self._config, self._kind, request, stop.value)
            answer, error = None, None
            if isinstance(step, Schema):
                answer = None if self._config.index is None else _described(self._config, self._arguments())
                continue
            if isinstance(step, float):
                time.sleep(step)
                continue
            try:
                with silence_client_logs():
                    answer = call(self._index, self._config, self._kind, step, self._left(deadline))
            except Exception as caught:  # noqa: BLE001 - handed to the flow, which decides
                error = caught

    def close(self) -> None:
        """Close the client, unless it is the application's."""
        if not self._closed:
            self._closed = True
            if self._own and os.getpid() == self._pid:
                self._index.close()


class AsyncPineconePort(_Process):
    """The same for asyncio; *timeout* is kept exactly."""

    def __init__(self, config: PineconeConfig, base: Path, *, debug: bool, client: AsyncIndex | None = None) -> None:
        super().__init__(config, base, debug=debug)
        self._own = client is None
        self._index: AsyncIndex | None = client
        self._opening = asyncio.Lock()
        if client is not None:
            bounded(client)

    async def _open(self) -> AsyncIndex:
        async with self._opening:
            if self._index is None:
                config = self._config
                host = config.host
                if host is None or (config.kind is None and config.index is not None):
                    info = await _adescribed(config, self._arguments())
                    host = host or info.host
                    self._kind = config.kind or documents.kind_of(info)
                make = lambda: AsyncIndex(host=host or "", **self._arguments())  # noqa: E731 - made where its errors are mapped
                index: AsyncIndex = _new_client(make, self._server.data, debug=self._debug)
                bounded(index)
                self._server = server_of(config, host)
                self._index = index
            return self._index

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*, with what is waited for in it, within *timeout* seconds."""
        self._check()
        deadline = self._deadline(request, timeout)
        try:
            async with asyncio.timeout(timeout):
                index = self._index or await self._open()
                return await self._driven(index, request, deadline)
        except Exception as error:  # noqa: BLE001 - mapped and raised below
            failed = self._failed(error, request, opened=self._index is not None)
        raise failed

    async def _driven(self, index: AsyncIndex, request: AnyRequest, deadline: float) -> Any:
        flow = steps(self._config, request, deadline)
        answer: Any = None
        error: Exception | None = None
        while True:
            try:
                step = flow.send(answer) if error is None else flow.throw(error)
            except StopIteration as stop:
                return reply_of(self._config, self._kind, request, stop.value)
            answer, error = None, None
            if isinstance(step, Schema):
                answer = None if self._config.index is None else await _adescribed(self._config, self._arguments())
                continue
            if isinstance(step, float):
                await asyncio.sleep(step)
                continue
            try:
                with silence_client_logs():
                    answer = await call(index, self._config, self._kind, step, self._left(deadline))
            except Exception as caught:  # noqa: BLE001 - handed to the flow, which decides
                error = caught

    async def close(self) -> None:
        """Close the client, unless it is the application's."""
        if not self._closed:
            self._closed = True
            if self._own and self._index is not None and os.getpid() == self._pid:
                await self._index.close()


def control(config: PineconeConfig, arguments: dict[str, Any]) -> Pinecone:
    """Return a client of the control plane, without retries."""
    return Pinecone(host=config.control_host, retry_config=_NO_RETRIES, **arguments)


def _described(config: PineconeConfig, arguments: dict[str, Any]) -> Any:
    client = control(config, arguments)
    try:
        info = client.indexes.describe(config.index or "")
    finally:
        client.close()
    return _ready(info)


async def _adescribed(config: PineconeConfig, arguments: dict[str, Any]) -> Any:
    client = AsyncPinecone(host=config.control_host, retry_config=_NO_RETRIES, **arguments)
    try:
        info = await client.indexes.describe(config.index or "")
    finally:
        await client.close()
    return _ready(info)


def _ready(found: Any) -> Any:
    if not found.host:
        raise StoreError("The index is not ready yet; try again.", code="unavailable", adapter=ADAPTER, sent="no")
    return found


def create(config: PineconeConfig, base: Path, step: CreateIndex, *, debug: bool) -> None:
    """Create an index and wait until it is ready; for `operator` only. Raises: StoreError."""
    arguments = {"api_key": config.api_key.reveal(base), "timeout": config.request_timeout}
    failed = None
    try:
        client = control(config, arguments)
        try:
            client.indexes.create(name=step.name, schema=step.schema, deployment=step.deployment)
        finally:
            client.close()
    except Exception as error:  # noqa: BLE001 - mapped and raised below
        failed = mapped(error, write=True, debug=debug, at=server_of(config, config.host).control)
    if failed is not None:
        raise failed


def _new_client(make: Callable[[], Any], at: Address, *, debug: bool) -> Any:
    """Return a new client. Its errors are mapped to errors without its arguments."""
    try:
        with warnings.catch_warnings():
            # The client warns about a key over http; the posture check reports that (PC008).
            warnings.simplefilter("ignore", RuntimeWarning)
            return make()
    except VectorACLError:
        raise
    except theirs.PineconeValueError as error:
        failed: VectorACLError = ConfigError("The Pinecone client rejects the value of api_key, host or control_host.")
        failed.__cause__ = error if debug else None
    except Exception as error:  # noqa: BLE001 - mapped and raised below
        failed = mapped(error, write=False, debug=debug, at=at)
    raise failed


__all__ = ["AsyncPineconePort", "PineconePort", "bounded", "call", "control", "create", "perform", "reply_of", "steps"]
