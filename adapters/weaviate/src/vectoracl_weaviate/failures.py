"""What the client raises, as ours. Its texts quote objects and addresses, so they are causes only with debug."""

from __future__ import annotations

from typing import Any, Literal

import grpc  # type: ignore[import-untyped]
import httpx

from vectoracl.certificates import UNTRUSTED, untrusted
from vectoracl.errors import StoreError, VectorACLError, caused, unchained
from vectoracl_weaviate.answers import ADAPTER, NOT_PROVISIONED, NOT_SERVED, UNKNOWN, error_of, meant

_Sent = Literal["no", "unknown"]
_UNSENT = "The Weaviate client cannot send this request ({}): a value of it is not one that Weaviate has."
_NO_GRPC = (
    "Weaviate does not answer over gRPC. Check that the server runs, and that `grpc_port`, and `grpc_host` where it is "
    "not that of `url`, are its own."
)
_CODES: dict[Any, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.DEADLINE_EXCEEDED: 408,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.CANCELLED: 503,
    # What the server's own checks say, of whatever kind, comes as UNKNOWN.
    grpc.StatusCode.UNKNOWN: 422,
    grpc.StatusCode.UNIMPLEMENTED: 501,
}


def mapped(error: BaseException, *, write: bool, debug: bool) -> VectorACLError:
    """Return *error* as ours.

    Raise it after the `except` block, not in it: there Python would attach *error* as its `__context__`.
    """
    if isinstance(error, VectorACLError):
        return unchained(error, debug=debug)
    return caused(_mapped(error, write=write), error, debug=debug)


def _mapped(error: BaseException, *, write: bool) -> StoreError:
    if isinstance(error, grpc.RpcError):
        code = error.code() if hasattr(error, "code") else None
        details = str(error.details() or "") if hasattr(error, "details") else ""
        if code is grpc.StatusCode.UNAVAILABLE:
            unknown = write and "failed to connect" not in details
            return StoreError(_NO_GRPC, code="unavailable", adapter=ADAPTER, sent="unknown" if unknown else "no",
                              retryable=True)  # fmt: skip
        made = status(_CODES.get(code, 500), write=write, said=details)
        if write and code is grpc.StatusCode.UNKNOWN:
            made.sent = "unknown"  # it may be anything
        return made
    if untrusted(error):
        return StoreError(UNTRUSTED, code="untrusted", adapter=ADAPTER, sent="no")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        text = (
            "No connection to Weaviate could be made. Check that the server runs and that `url` and `grpc_port` are "
            "where."
        )
        return StoreError(text, code="unavailable", adapter=ADAPTER, sent="no", retryable=True)
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return status(408, write=write)
    if isinstance(error, OSError | httpx.TransportError):
        return status(503, write=write)
    if isinstance(error, ValueError | TypeError):
        # Of the message classes and the client, before anything is sent.
        return StoreError(_UNSENT.format(type(error).__name__), code="rejected", adapter=ADAPTER, sent="no")
    return StoreError(f"The Weaviate client failed ({type(error).__name__}).", code="client", adapter=ADAPTER)


def status(number: int, *, write: bool, said: str = "") -> StoreError:
    """Return the error of an HTTP status, or of the gRPC code that stands for it, and of what the server *said*."""
    unknown: _Sent = "unknown" if write else "no"
    if number in (401, 403):
        text = "Weaviate refused the credentials, or they do not reach this collection or tenant."
        return StoreError(text, code="unauthorized", adapter=ADAPTER, sent="no")
    if number == 404:
        return error_of(NOT_PROVISIONED, write=write)
    if number in (408, 504):
        return StoreError("Weaviate did not answer in time.", code="timeout", adapter=ADAPTER, sent=unknown)
    if number == 429:
        text = "Weaviate's limit of requests or of their size is reached."
        return StoreError(text, code="rate_limited", adapter=ADAPTER, sent="no", retryable=True)
    answer = meant(said)
    if 400 <= number < 500 or answer is not UNKNOWN:
        return error_of(answer, write=write)
    text = f"Weaviate is not able to serve this now (status {number})."
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent=unknown, retryable=True)


def not_served(sent: _Sent = "no") -> StoreError:
    """Return the one error of a tenant that is missing or not active."""
    return StoreError(NOT_SERVED, code="tenant_not_served", adapter=ADAPTER, sent=sent)
