"""What the client raises, as ours. Its texts quote filters, rows and addresses, so they are causes only with debug."""

from __future__ import annotations

import json
import logging
from typing import Final, Literal, NamedTuple

import grpc  # type: ignore[import-untyped]
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from vectoracl.adapter_api.connect_failures import (
    Address,
    before_sending,
    cause_of,
    cause_of_grpc,
    failed,
    host_and_port,
    sent_by_grpc,
)
from vectoracl.adapter_api.grpc_status import code_of, http_status
from vectoracl.errors import StoreError, VectorACLError, caused
from vectoracl_qdrant.config import QdrantConfig

ADAPTER = "qdrant"
# httpx logs every address; the client logs what it retries.
for _name in ("httpx", "httpcore", "qdrant_client"):
    logging.getLogger(_name).addHandler(logging.NullHandler())

_Sent = Literal["no", "unknown"]
_NOT_PROVISIONED = "The collection is not there. Run `vectoracl provision`."
_REJECTED = (
    "Qdrant refused the request: strict mode, a missing payload index, or vectors of another size. "
    "Run `vectoracl check`."
)
_KEYS: Final = {
    "none": "Qdrant asks for a key, and none is configured ({where}). Set api_key.",
    "api_key": "Qdrant refused the key, or it does not reach this collection ({where}). Check api_key, how "
    "long it is valid, and what it gives access to.",
    "the client's": "Qdrant refused the credentials of the client that was passed, or they do not reach this "
    "collection. Give it another key.",
}


class Server(NamedTuple):
    """What messages say of the server: its addresses, and which key is sent."""

    rest: Address
    rpc: Address
    key: Literal["api_key", "none", "the client's"]


_UNKNOWN: Final = Address("Qdrant", "the configured address", "url")
UNKNOWN: Final = Server(_UNKNOWN, _UNKNOWN, "api_key")


def server_of(config: QdrantConfig, *, given: bool = False) -> Server:
    """Return what messages say of the configured server; *given*: a client that was passed knows its own address."""
    if given:
        address = Address("Qdrant", "the address of the client that was passed", "it", "timeout")
        return Server(address, address, "the client's")
    if config.url is None:
        return UNKNOWN
    rest = host_and_port(config.url, 6333)
    rpc = f"{rest.rpartition(':')[0] or rest}:{config.grpc_port}, gRPC"
    key: Literal["api_key", "none"] = "none" if config.api_key is None else "api_key"
    return Server(Address("Qdrant", rest, "url"), Address("Qdrant", rpc, "url and grpc_port"), key)


def mapped(
    error: BaseException, *, write: bool, debug: bool, missing: bool = False, server: Server = UNKNOWN
) -> VectorACLError:
    """Return *error* as ours; *missing* is whether the collection is known not to be there.

    Raise it after the `except` block, not in it: there Python would attach *error* as its `__context__`.
    """
    if isinstance(error, VectorACLError):
        return error
    made = not_provisioned() if missing else _mapped(error, server, write=write)
    return caused(made, error, debug=debug)


def slow(server: Server, *, rpc: bool, write: bool) -> StoreError:
    """Return the error of a request that was not answered in time."""
    return failed("slow", server.rpc if rpc else server.rest, adapter=ADAPTER, write=write)


def _mapped(error: BaseException, server: Server, *, write: bool) -> StoreError:
    if isinstance(error, ResourceExhaustedResponse):
        made = _status(429, server.rest, server.key, write=write)
        made.retry_after = float(error.retry_after_s)
        return made
    if isinstance(error, UnexpectedResponse):
        return _answered(error, server, write=write)
    if isinstance(error, grpc.RpcError):
        return _rpc(error, server, write=write)
    if isinstance(error, ResponseHandlingException) and isinstance(error.source, ValidationError):
        return _malformed(server.rest, write=write)
    cause = cause_of(error)
    if cause is not None:
        return failed(cause, server.rest, adapter=ADAPTER, write=write, sent=not before_sending(error))
    if isinstance(error, ResponseHandlingException | OSError):
        return _no_answer(error, server, write=write)
    if isinstance(error, json.JSONDecodeError):  # of an answer, in which no JSON came
        return failed("foreign", server.rest, adapter=ADAPTER, write=write)
    if isinstance(error, AssertionError) and "returned None" in str(error):  # of an answer, without what it is about
        return _malformed(server.rest, write=write)
    if isinstance(error, ValueError | TypeError | AssertionError):
        # The client's own checks, before anything is sent, and all that local mode ever says.
        return StoreError(_REJECTED, code="rejected", adapter=ADAPTER, sent="no")
    return StoreError(f"The Qdrant client failed ({type(error).__name__}).", code="client", adapter=ADAPTER)


def _no_answer(error: BaseException, server: Server, *, write: bool) -> StoreError:
    """Return the error of an exchange of which is only known that it failed."""
    if not before_sending(error):
        return _status(503, server.rest, server.key, write=write)
    text = (
        f"No connection to Qdrant could be made ({server.rest.where}). Check that the server runs, and that "
        f"{server.rest.setting} is its address."
    )
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent="no", retryable=True)


def _rpc(error: grpc.RpcError, server: Server, *, write: bool) -> StoreError:
    code, details = code_of(error)
    cause = cause_of_grpc(details) if code == "UNAVAILABLE" else None
    if cause is not None:
        return failed(cause, server.rpc, adapter=ADAPTER, write=write, sent=sent_by_grpc(details))
    if code == "UNIMPLEMENTED":
        text = (
            f"What answers there is not Qdrant, or an older one that does not know this request ({server.rpc.where}). "
            f"Check the host and the port in {server.rpc.setting}."
        )
        return StoreError(text, code="foreign", adapter=ADAPTER, sent="no")
    return _status(http_status(code), server.rpc, server.key, write=write)


def _answered(error: UnexpectedResponse, server: Server, *, write: bool) -> StoreError:
    """Return the error of an answer over HTTP, which may be that of something else than Qdrant."""
    status, at = error.status_code or 500, server.rest
    if status in (301, 302, 303, 307, 308, 404, 405) and not _ours(error.content):
        return failed("foreign", at, adapter=ADAPTER)
    if status == 400 and b"HTTPS" in error.content:
        return failed("encrypted", at, adapter=ADAPTER)
    return _status(status, at, server.key, write=write)


def _ours(content: bytes) -> bool:
    """Tell whether *content* has the form of Qdrant's own errors."""
    try:
        found = json.loads(content)
    except ValueError:
        return False
    return isinstance(found, dict) and isinstance(found.get("status"), dict)


def _malformed(at: Address, *, write: bool) -> StoreError:
    text = (
        f"An answer came that the client of Qdrant cannot read ({at.where}). Check that it is Qdrant that answers "
        f"there, and whether the versions of client and server go together."
    )
    return StoreError(text, code="malformed", adapter=ADAPTER, sent="unknown" if write else "no")


def _status(status: int, at: Address, key: str, *, write: bool) -> StoreError:
    """Return the error of an HTTP status, or of the gRPC code that stands for it."""
    unknown: _Sent = "unknown" if write else "no"
    if status in (401, 403):
        return StoreError(_KEYS[key].format(where=at.where), code="unauthorized", adapter=ADAPTER, sent="no")
    if status == 404:
        return not_provisioned()
    if status in (408, 504):
        return failed("slow", at, adapter=ADAPTER, write=write)
    if status == 429:
        text = "Qdrant's rate limit is reached; try again later (`retry_after` seconds, where it says so)."
        return StoreError(text, code="rate_limited", adapter=ADAPTER, sent="no", retryable=True)
    if 400 <= status < 500:
        return StoreError(_REJECTED, code="rejected", adapter=ADAPTER, sent="no")
    text = f"Qdrant, or what stands before it, is not able to serve this now ({at.where}; status {status})."
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent=unknown, retryable=True)


def not_provisioned() -> StoreError:
    """Return the error of a collection that is not there."""
    return StoreError(_NOT_PROVISIONED, code="not_provisioned", adapter=ADAPTER, sent="no")
