"""Maps exceptions of the Qdrant client to vectoracl errors.

The client's messages may contain filters, rows and addresses, so the original exception is chained as the cause only
when `debug_errors` is set.
"""

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
# httpx logs every address, and the client logs its retries.
for _name in ("httpx", "httpcore", "qdrant_client"):
    logging.getLogger(_name).addHandler(logging.NullHandler())

_Sent = Literal["no", "unknown"]
_NOT_PROVISIONED = "The collection does not exist. Run `vectoracl provision`."
_REJECTED = (
    "Qdrant refused the request. Possible reasons: strict mode, a missing payload index, or vectors of another size. "
    "Run `vectoracl check`."
)
_KEYS: Final = {
    "none": "Qdrant requires an API key, and none is configured ({where}). Set api_key.",
    "api_key": "Qdrant refused the API key, or it has no access to this collection ({where}). Check api_key, whether "
    "it has expired, and its access rights.",
    "the client's": "Qdrant refused the credentials of the client that was passed, or they have no access to this "
    "collection. Give the client another key.",
}


class Server(NamedTuple):
    """The parts of error messages that describe the server: its addresses, and which key is sent."""

    rest: Address
    rpc: Address
    key: Literal["api_key", "none", "the client's"]


_UNKNOWN: Final = Address("Qdrant", "the configured address", "url")
UNKNOWN: Final = Server(_UNKNOWN, _UNKNOWN, "api_key")


def server_of(config: QdrantConfig, *, given: bool = False) -> Server:
    """Return the description of the configured server; *given*: the client was passed, and has its own address."""
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
    """Return the vectoracl error for *error*.

    Raise it after the `except` block, not inside: there Python would attach *error* as its `__context__`.

    Args:
        error: An exception of the client.
        write: Whether the request was a write.
        debug: Whether to chain *error* as the cause.
        missing: Whether the collection is known not to exist.
        server: The description of the server for the message.
    """
    if isinstance(error, VectorACLError):
        return error
    mapped_error = not_provisioned() if missing else _mapped(error, server, write=write)
    return caused(mapped_error, error, debug=debug)


def slow(server: Server, *, rpc: bool, write: bool) -> StoreError:
    """Return the error of a request that was not answered in time."""
    return failed("slow", server.rpc if rpc else server.rest, adapter=ADAPTER, write=write)


def _mapped(error: BaseException, server: Server, *, write: bool) -> StoreError:
    if isinstance(error, ResourceExhaustedResponse):
        limited = _status(429, server.rest, server.key, write=write)
        limited.retry_after = float(error.retry_after_s)
        return limited
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
    if isinstance(error, json.JSONDecodeError):  # the answer was not JSON
        return failed("foreign", server.rest, adapter=ADAPTER, write=write)
    if isinstance(error, AssertionError) and "returned None" in str(error):  # the answer had no result
        return _malformed(server.rest, write=write)
    if isinstance(error, ValueError | TypeError | AssertionError):
        # The client's checks before anything is sent, and every error of local mode.
        return StoreError(_REJECTED, code="rejected", adapter=ADAPTER, sent="no")
    return StoreError(f"The Qdrant client failed ({type(error).__name__}).", code="client", adapter=ADAPTER)


def _no_answer(error: BaseException, server: Server, *, write: bool) -> StoreError:
    """Return the error of an exchange that failed for an unknown reason."""
    if not before_sending(error):
        return _status(503, server.rest, server.key, write=write)
    text = (
        f"Could not connect to Qdrant ({server.rest.where}). Check that the server runs, and that "
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
            f"The server at that address is not Qdrant, or is an older version without this request "
            f"({server.rpc.where}). Check the host and the port in {server.rpc.setting}."
        )
        return StoreError(text, code="foreign", adapter=ADAPTER, sent="no")
    return _status(http_status(code), server.rpc, server.key, write=write)


def _answered(error: UnexpectedResponse, server: Server, *, write: bool) -> StoreError:
    """Return the error of an answer over HTTP, which may come from a server other than Qdrant."""
    status, at = error.status_code or 500, server.rest
    if status in (301, 302, 303, 307, 308, 404, 405) and not _ours(error.content):
        return failed("foreign", at, adapter=ADAPTER)
    if status == 400 and b"HTTPS" in error.content:
        return failed("encrypted", at, adapter=ADAPTER)
    return _status(status, at, server.key, write=write)


def _ours(content: bytes) -> bool:
    """Return whether *content* has the form of Qdrant's errors."""
    try:
        body = json.loads(content)
    except ValueError:
        return False
    return isinstance(body, dict) and isinstance(body.get("status"), dict)


def _malformed(at: Address, *, write: bool) -> StoreError:
    text = (
        f"The Qdrant client cannot read the server's answer ({at.where}). Check that the server at that address is "
        f"Qdrant, and that the versions of client and server are compatible."
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
        text = "Qdrant's rate limit is reached; try again later (after `retry_after` seconds, if it is set)."
        return StoreError(text, code="rate_limited", adapter=ADAPTER, sent="no", retryable=True)
    if 400 <= status < 500:
        return StoreError(_REJECTED, code="rejected", adapter=ADAPTER, sent="no")
    text = f"Qdrant, or a proxy in front of it, cannot serve the request now ({at.where}; status {status})."
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent=unknown, retryable=True)


def not_provisioned() -> StoreError:
    """Return the error of a collection that does not exist."""
    return StoreError(_NOT_PROVISIONED, code="not_provisioned", adapter=ADAPTER, sent="no")
