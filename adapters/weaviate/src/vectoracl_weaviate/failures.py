"""Maps exceptions of gRPC, httpx and the Weaviate client to vectoracl errors.

Their messages may contain objects and addresses, so the original exception is chained as the cause only when
`debug_errors` is set.
"""

from __future__ import annotations

from typing import Literal

import grpc  # type: ignore[import-untyped]
import httpx

from vectoracl.adapter_api.connect_failures import (
    Address,
    Cause,
    before_sending,
    cause_of,
    cause_of_grpc,
    failed,
    host_and_port,
    sent_by_grpc,
)
from vectoracl.adapter_api.grpc_status import code_of, http_status
from vectoracl.errors import StoreError, VectorACLError, caused, unchained
from vectoracl_weaviate.answers import (
    ADAPTER,
    BUSY,
    NO_KEY,
    NO_RIGHTS,
    NOT_PROVISIONED,
    NOT_SERVED,
    UNKNOWN,
    WRONG_KEY,
    answer_for,
    error_of,
)

_Sent = Literal["no", "unknown"]
_ANONYMOUS = "anonymous access not enabled"
_UNSENT = "The Weaviate client cannot send this request ({}): it has a value that Weaviate does not support."
# All checks of the server are reported as UNKNOWN, whatever their kind.
_STATUS = {"UNKNOWN": 422, "UNIMPLEMENTED": 501}


def rest_at(url: str) -> Address:
    """Return the description of the REST address *url* for error messages."""
    return Address("Weaviate", host_and_port(url, {"http": 80, "https": 443}), "url")


def rpc_at(target: str) -> Address:
    """Return the description of the gRPC address *target* (HOST:PORT) for error messages."""
    return Address("Weaviate", f"{target}, gRPC", "url, grpc_port and grpc_host")


def mapped(error: BaseException, *, write: bool, debug: bool, at: Address) -> VectorACLError:
    """Return the vectoracl error for *error*.

    Raise it after the `except` block, not inside: there Python would attach *error* as its `__context__`.

    Args:
        error: An exception of the client.
        write: Whether the request was a write.
        debug: Whether to chain *error* as the cause.
        at: The address to which the request was sent.
    """
    if isinstance(error, VectorACLError):
        return unchained(error, debug=debug)
    return caused(_mapped(error, at, write=write), error, debug=debug)


def _mapped(error: BaseException, at: Address, *, write: bool) -> StoreError:
    if isinstance(error, grpc.RpcError):
        return _rpc(error, at, write=write)
    if isinstance(error, httpx.PoolTimeout):
        return error_of(BUSY, write=write)
    cause = cause_of(error)
    if cause is not None:
        return _no_answer(cause, at, write=write, sent=not before_sending(error))
    if isinstance(error, httpx.TransportError | OSError):
        # The reason of the failure is unknown.
        cause = "no_route" if before_sending(error) else "closed"
        return _no_answer(cause, at, write=write, sent=not before_sending(error))
    if isinstance(error, ValueError | TypeError):
        # A check of the message classes or the client, before anything is sent.
        return StoreError(_UNSENT.format(type(error).__name__), code="rejected", adapter=ADAPTER, sent="no")
    return StoreError(f"The Weaviate client failed ({type(error).__name__}).", code="client", adapter=ADAPTER)


def _rpc(error: grpc.RpcError, at: Address, *, write: bool) -> StoreError:
    code, details = code_of(error)
    cause = cause_of_grpc(details) if code == "UNAVAILABLE" else None
    if cause is not None:
        return _no_answer(cause, at, write=write, sent=sent_by_grpc(details))
    if code == "UNIMPLEMENTED":
        return not_weaviate(at)
    mapped_error = status(_STATUS.get(code) or http_status(code), at, write=write, details=details)
    if write and code in ("UNKNOWN", "UNAVAILABLE"):
        mapped_error.sent = "unknown"  # these codes are also used after a part was written
    return mapped_error


def _no_answer(cause: Cause, at: Address, *, write: bool, sent: bool) -> StoreError:
    """Return the error of *cause*."""
    if cause == "foreign":
        return not_weaviate(at)
    return failed(cause, at, adapter=ADAPTER, write=write, sent=sent)


def status(number: int, at: Address, *, write: bool, details: str = "") -> StoreError:
    """Return the error of an HTTP status, or of the gRPC code that stands for it, with the server's *details*."""
    unknown: _Sent = "unknown" if write else "no"
    if number == 401:
        return error_of(NO_KEY if _ANONYMOUS in details.lower() else WRONG_KEY, write=write)
    if number == 403:
        return error_of(NO_RIGHTS, write=write)
    if 300 <= number < 400:
        return not_weaviate(at)
    if number == 400 and "HTTP request to an HTTPS server" in details:
        return failed("encrypted", at, adapter=ADAPTER)
    if number == 404:
        return error_of(NOT_PROVISIONED, write=write)
    if number in (408, 504):
        return failed("slow", at, adapter=ADAPTER, write=write)
    if number == 429:
        text = "Weaviate's limit on the rate or the size of requests is reached."
        return StoreError(text, code="rate_limited", adapter=ADAPTER, sent="no", retryable=True)
    answer = answer_for(details)
    if 400 <= number < 500 or answer is not UNKNOWN:
        return error_of(answer, write=write)
    text = f"Weaviate cannot serve the request now (status {number})."
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent=unknown, retryable=True)


def not_weaviate(at: Address) -> StoreError:
    """Return the error of a server that is not Weaviate; it has its own code, since two ports are easily confused."""
    text = (
        f"The server at that address is not Weaviate ({at.where}). Check the host and the port in {at.setting}: REST "
        "and gRPC have different ports (by default 8080 and 50051)."
    )
    return StoreError(text, code="not_weaviate", adapter=ADAPTER, sent="no")


def not_served(sent: _Sent = "no") -> StoreError:
    """Return the one error of a tenant that is missing or not active."""
    return StoreError(NOT_SERVED, code="tenant_not_served", adapter=ADAPTER, sent=sent)
