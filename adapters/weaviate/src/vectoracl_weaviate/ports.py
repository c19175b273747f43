"""The only module that talks to Weaviate: each request is one call, over gRPC or REST, by a sync and an async port.

Requests about rows are the client's generated messages on a separate channel, not calls of the client's methods. Those
retry unavailable servers for a minute whatever the deadline, have one time limit and one key for all calls of a
connection, and log the objects that a batch refused. Here each call has its own deadline and its tenant's key, and is
made once. A port is never used across a fork.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, assert_never
from urllib.parse import quote

import grpc  # type: ignore[import-untyped]
import httpx
from weaviate.proto.v1 import tenants_pb2, weaviate_pb2_grpc

from vectoracl.adapter_api.contract import OneProcess
from vectoracl.adapter_api.tls import Authority, authority
from vectoracl.errors import StoreError, VectorACLError
from vectoracl_weaviate.answers import ADAPTER, ServerMessage, answer_for, error_of
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.failures import mapped, not_served, not_weaviate, rest_at, rpc_at, status
from vectoracl_weaviate.names import tenant_name
from vectoracl_weaviate.requests import (
    About,
    AnyRequest,
    Create,
    Describe,
    Drop,
    Dropped,
    Find,
    Groups,
    Keys,
    Merge,
    Put,
    Rights,
    State,
    Tally,
    Tenants,
    TenantState,
)
from vectoracl_weaviate.tenant_keys import NO_KEYS, KeyFile

_STATES: Mapping[int, TenantState] = {
    tenants_pb2.TENANT_ACTIVITY_STATUS_HOT: "active",
    tenants_pb2.TENANT_ACTIVITY_STATUS_ACTIVE: "active",
    tenants_pb2.TENANT_ACTIVITY_STATUS_COLD: "inactive",
    tenants_pb2.TENANT_ACTIVITY_STATUS_INACTIVE: "inactive",
    tenants_pb2.TENANT_ACTIVITY_STATUS_FROZEN: "offloaded",
    tenants_pb2.TENANT_ACTIVITY_STATUS_OFFLOADED: "offloaded",
}
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that comes back is found again soon; the default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # The time limit of an attempt to connect, also without any answer.
    ("grpc.min_reconnect_backoff_ms", 3000),
    # No bandwidth probing by pings: requests are small, and probes are additional traffic.
    ("grpc.http2.bdp_probe", 0),
    # Not shared with other channels of the process: closing one has to close its connection.
    ("grpc.use_local_subchannel_pool", 1),
]
_DETAILS = 2000
"""The number of characters that are read of the server's text of an error."""
_NO_ANSWER = ("unreachable", "unavailable", "timeout")
_OVER_REST = (Merge, Create, Describe, About, Rights)
_WRITES = (Put, Drop, Merge, Create)


class Rest(NamedTuple):
    """One call over REST: what is sent, and what the answer means."""

    method: str
    path: str
    body: Any
    reply: Callable[[httpx.Response], Any]


class Call(NamedTuple):
    """One call over gRPC: the method's name, its message, and what the answer means."""

    method: str
    message: Any
    reply: Callable[[Any], Any]


def compiled(config: WeaviateConfig, request: AnyRequest) -> Rest | Call:
    """Return the one call of *request*."""
    name = config.collection
    match request:
        case Find(message=message):
            return Call("Search", message, lambda answer: answer.results)
        case Tally(message=message):
            return Call("Aggregate", message, lambda answer: int(answer.single_result.objects_count))
        case Groups(message=message):
            return Call("Aggregate", message, _groups)
        case Put(message=message):
            return Call("BatchObjects", message, lambda answer: _written(answer, len(message.objects)))
        case Drop(message=message):
            return Call("BatchDelete", message, lambda one: Dropped(one.matches, one.successful, one.failed))
        case State(tenant=tenant):
            tenants_request = tenants_pb2.TenantsGetRequest(
                collection=name, names=tenants_pb2.TenantNames(values=[tenant])
            )
            return Call("TenantsGet", tenants_request, lambda answer: _states(answer).get(tenant))
        case Tenants():
            return Call("TenantsGet", tenants_pb2.TenantsGetRequest(collection=name), _states)
        case Merge(tenant=tenant, id=id_, properties=properties):
            body = {"class": name, "id": id_, "tenant": tenant, "properties": dict(properties)}
            level = "" if config.consistency is None else f"?consistency_level={config.consistency.upper()}"
            return Rest("PATCH", f"/v1/objects/{name}/{quote(id_, safe='')}{level}", body, _merged)
        case Create(tenant=tenant):
            body_ = [{"name": tenant, "activityStatus": "HOT"}]
            return Rest("POST", f"/v1/schema/{name}/tenants", body_, lambda answer: _done(answer, write=True))
        case Describe():
            return Rest("GET", f"/v1/schema/{name}", None, _maybe)
        case About():
            return Rest("GET", "/v1/meta", None, _about)
        case Rights():
            return Rest("GET", "/v1/users/own-info", None, _maybe)
        case Keys():
            raise StoreError("Keys are not requested from the server.", code="client", adapter=ADAPTER, sent="no")
    assert_never(request)


def _groups(answer: Any) -> list[tuple[Any, int]]:
    """Return (stored value, number of objects) pairs; without a group there is no result in the answer."""
    if answer.WhichOneof("result") == "single_result":
        raise StoreError("Weaviate did not group its counts.", code="malformed", adapter=ADAPTER, sent="no")
    counts = []
    for group in answer.grouped_results.groups:
        kind = group.grouped_by.WhichOneof("value")
        counts.append((None if kind is None else getattr(group.grouped_by, kind), int(group.objects_count)))
    return counts


def _written(answer: Any, number: int) -> None:
    if answer.errors:
        messages = [one.error for one in answer.errors]
        answers = [answer_for(one) for one in messages]
        unavailable = next((one for one in answers if one.code == "unavailable"), None)
        if unavailable is not None:
            raise error_of(unavailable, write=True) from ServerMessage(messages[0])
        refused = len({one.index for one in answer.errors})
        outcome = "none was written" if refused == number else "the others were written"
        raise StoreError(
            f"Weaviate refused {refused} of {number} chunks of a batch; {outcome}. {answers[0].text}",
            code="rejected",
            adapter=ADAPTER,
            sent="no" if refused == number else "unknown",
            written=number - refused,
        ) from ServerMessage(messages[0])


def _states(answer: Any) -> dict[str, TenantState]:
    return {one.name: _STATES.get(one.activity_status, "changing") for one in answer.tenants}


def _merged(answer: httpx.Response) -> bool:
    if answer.status_code == 404:
        return False
    _done(answer, write=True)
    return True


def _done(answer: httpx.Response, *, write: bool) -> None:
    if answer.status_code >= 300:
        details = answer.text[:_DETAILS]
        raise status(answer.status_code, rest_at(str(answer.url)), write=write, details=details) from ServerMessage(
            details
        )


def _foreign(answer: httpx.Response) -> StoreError:
    return not_weaviate(rest_at(str(answer.url)))


def _json(answer: httpx.Response) -> Any:
    _done(answer, write=False)
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _foreign(answer) from ServerMessage(answer.text[:_DETAILS])
    return body


def _maybe(answer: httpx.Response) -> Any:
    if answer.status_code == 404 and answer.text.lstrip()[:1] not in ("", "{"):  # Weaviate's own 404 is empty or JSON
        raise _foreign(answer) from ServerMessage(answer.text[:_DETAILS])
    return None if answer.status_code == 404 else _json(answer)


def _about(answer: httpx.Response) -> Any:
    body = {} if answer.status_code == 404 else _json(answer)
    if "version" not in body:
        raise _foreign(answer) from ServerMessage(answer.text[:_DETAILS])
    return body


def _verify(trusted: Authority | None) -> ssl.SSLContext | bool:
    return True if trusted is None else trusted.context


class _Process(OneProcess):
    """The common part of the ports: one process, open or closed, and which key goes with which request."""

    def __init__(self, config: WeaviateConfig, base: Path, *, debug: bool) -> None:
        super().__init__()
        self._config = config
        self._debug = debug
        self._own = None if config.api_key is None else config.api_key.reveal(base)
        self._authority = authority(base, config.ca_file)
        self._keys = NO_KEYS if config.tenant_keys is None else KeyFile(base / config.tenant_keys)
        self.parallel = config.parallel
        self._at = 0  # which of the addresses is asked: the next one, when it does not answer

    def _moved(self, at: int, failed: VectorACLError, deadline: float) -> bool:
        """Switch to the next address if the one at *at* did not answer; return whether to retry *failed* there."""
        number = len(self._config.addresses)
        if (
            number == 1
            or not isinstance(failed, StoreError)
            or failed.code not in ("unreachable", "unavailable", "timeout")
        ):
            return False
        if self._at == at:  # another call may have been first
            self._at = (at + 1) % number
        return failed.sent == "no" and time.monotonic() < deadline

    def _key(self, request: AnyRequest) -> str | None:
        """Return the key that *request* is sent with. Raises: StoreError for a tenant that has none."""
        if self._config.tenant_keys is None:
            return self._own
        if isinstance(request, Rights):
            return self._own if request.tenant is None else self._keys.get(request.tenant) or self._own
        if request.partition is None:
            if isinstance(request, Find | Tally | Groups | Put | Drop | Merge | State | Create | Tenants):
                raise StoreError(
                    "With per-tenant keys there is no key for a request about all tenants.",
                    code="unauthorized", adapter=ADAPTER, sent="no",
                )  # fmt: skip
            return self._own
        key = self._keys.get(tenant_name(request.partition))
        if key is None:
            raise not_served()
        return key

    def _seconds(self, timeout: float | None) -> float:
        return self._config.request_timeout if timeout is None else max(timeout, 1e-6)

    def _headers(self, key: str | None) -> dict[str, str]:
        return {} if key is None else {"authorization": f"Bearer {key}"}

    def _credentials(self) -> Any:
        if not self._config.secure:
            return None
        return grpc.ssl_channel_credentials(None if self._authority is None else self._authority.pem)

    def _web(self, url: str) -> dict[str, Any]:
        """Return what the web clients are made with."""
        return {
            "base_url": url,
            "trust_env": False,
            "verify": _verify(self._authority),
            "limits": httpx.Limits(max_connections=self._config.parallel),
        }

    def _failed(self, error: BaseException, request: Any, at: int) -> VectorACLError:
        url, target = self._config.addresses[at]
        address = rest_at(url) if isinstance(request, _OVER_REST) else rpc_at(target)
        return mapped(error, write=isinstance(request, _WRITES), debug=self._debug, at=address)


class _Line(NamedTuple):
    """The connections to one address."""

    channel: Any
    stub: Any
    http: Any


class WeaviatePort(_Process):
    """Performs requests for as many threads as like."""

    def __init__(self, config: WeaviateConfig, base: Path, *, debug: bool) -> None:
        super().__init__(config, base, debug=debug)
        self._lines = [self._line(url, target) for url, target in config.addresses]

    def _line(self, url: str, target: str) -> _Line:
        credentials = self._credentials()
        channel = (
            grpc.insecure_channel(target, options=_OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=_OPTIONS)
        )
        stub = weaviate_pb2_grpc.WeaviateStub(channel)  # type: ignore[no-untyped-call]  # generated
        return _Line(channel, stub, httpx.Client(**self._web(url)))

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*, at the next address where one does not answer and nothing was sent."""
        self._check()
        deadline = time.monotonic() + self._seconds(timeout)
        for _ in self._lines:
            at = self._at
            try:
                return self._once(self._lines[at], request, max(deadline - time.monotonic(), 1e-6))
            except Exception as error:  # noqa: BLE001 - mapped and raised below
                failed = self._failed(error, request, at)
            if not self._moved(at, failed, deadline):
                break
        raise failed

    def _once(self, line: _Line, request: Any, seconds: float) -> Any:
        if isinstance(request, Keys):
            return self._keys.tenants()
        headers = self._headers(self._key(request))
        call = compiled(self._config, request)
        if isinstance(call, Call):
            method = getattr(line.stub, call.method)
            return call.reply(method(call.message, timeout=seconds, metadata=tuple(headers.items())))
        answer = line.http.request(call.method, call.path, json=call.body, headers=headers, timeout=seconds)
        return call.reply(answer)

    def close(self) -> None:
        """Close the connections."""
        if not self._closed:
            self._closed = True
            if os.getpid() == self._pid:
                for line in self._lines:
                    line.channel.close()
                    line.http.close()


class AsyncWeaviatePort(_Process):
    """The same for asyncio. The connections are made at the first request: a channel belongs to the running loop."""

    def __init__(self, config: WeaviateConfig, base: Path, *, debug: bool) -> None:
        super().__init__(config, base, debug=debug)
        self._lines: list[_Line] = []

    def _connect(self) -> list[_Line]:
        if not self._lines:
            self._lines = [self._line(url, target) for url, target in self._config.addresses]
        return self._lines

    def _line(self, url: str, target: str) -> _Line:
        credentials = self._credentials()
        channel = (
            grpc.aio.insecure_channel(target, options=_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        )
        stub = weaviate_pb2_grpc.WeaviateStub(channel)  # type: ignore[no-untyped-call]  # generated
        return _Line(channel, stub, httpx.AsyncClient(**self._web(url)))

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*, at the next address where one does not answer and nothing was sent."""
        self._check()
        deadline = time.monotonic() + self._seconds(timeout)
        for _ in self._config.addresses:
            at = self._at
            try:
                return await self._once(at, request, max(deadline - time.monotonic(), 1e-6))
            except Exception as error:  # noqa: BLE001 - mapped and raised below
                failed = self._failed(error, request, at)
            if not self._moved(at, failed, deadline):
                break
        raise failed

    async def _once(self, at: int, request: Any, seconds: float) -> Any:
        if isinstance(request, Keys):
            return self._keys.tenants()
        headers = self._headers(self._key(request))
        call = compiled(self._config, request)
        line = self._connect()[at]
        async with asyncio.timeout(seconds):
            if isinstance(call, Call):
                method: Callable[..., Awaitable[Any]] = getattr(line.stub, call.method)
                return call.reply(await method(call.message, timeout=seconds, metadata=tuple(headers.items())))
            return call.reply(
                await line.http.request(call.method, call.path, json=call.body, headers=headers, timeout=seconds)
            )

    async def close(self) -> None:
        """Close the connections."""
        if not self._closed:
            self._closed = True
            if os.getpid() == self._pid:
                for line in self._lines:
                    await line.channel.close()
                    await line.http.aclose()


class Administrator:
    """An operator's calls over REST, with the operator's key; for `operator` only."""

    def __init__(self, config: WeaviateConfig, base: Path, *, debug: bool) -> None:
        secret = config.operator_key or config.api_key
        headers = {} if secret is None else {"authorization": f"Bearer {secret.reveal(base)}"}
        self._debug = debug
        self._at = rest_at(config.url)
        self._http = httpx.Client(
            base_url=config.url,
            headers=headers,
            timeout=httpx.Timeout(max(60.0, config.request_timeout), connect=config.request_timeout),
            trust_env=False,
            verify=_verify(authority(base, config.ca_file)),
        )

    def ask(self, method: str, path: str, body: Any = None, *, absent: Any = StoreError) -> Any:
        """Make one call and return its JSON (None: there is none); 404 returns *absent*, unless that is the default.

        Raises: StoreError.
        """
        try:
            answer = self._http.request(method, path, json=body)
            if answer.status_code == 404 and absent is not StoreError:
                return absent
            _done(answer, write=method != "GET")
            return answer.json() if answer.content else None
        except Exception as error:  # noqa: BLE001 - mapped and raised below
            failed = mapped(error, write=method != "GET", debug=self._debug, at=self._at)
        raise failed

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
