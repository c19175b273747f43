"""What the client raises, as ours. Its texts quote objects and addresses, so they are causes only with debug."""

from __future__ import annotations

from typing import Any, Literal

import grpc  # type: ignore[import-untyped]
import httpx

from vectoracl.certificates import UNTRUSTED, untrusted
from vectoracl.errors import StoreError, VectorACLError, caused

ADAPTER = "weaviate"
NOT_SERVED = "The tenant is not served here: it does not exist, or is not active. See `vectoracl tenants`."
_Sent = Literal["no", "unknown"]
_NOT_PROVISIONED = "The collection is not there. Run `vectoracl provision`."
_REJECTED = "Weaviate refused the request: a missing property, or vectors of another size. Run `vectoracl check`."
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
        return error
    return caused(_mapped(error, write=write), error, debug=debug)


def _mapped(error: BaseException, *, write: bool) -> StoreError:
    if isinstance(error, grpc.RpcError):
        code = error.code() if hasattr(error, "code") else None
        details = str(error.details() or "") if hasattr(error, "details") else ""
        if code is grpc.StatusCode.UNAVAILABLE:
            unknown = write and "failed to connect" not in details
            return StoreError(_NO_GRPC, code="unavailable", adapter=ADAPTER, sent="unknown" if unknown else "no",
                              retryable=True)  # fmt: skip
        if code is grpc.StatusCode.UNKNOWN and down(details):
            return unreplicated(write=write)
        made = status(_CODES.get(code, 500), write=write)
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
        return StoreError(_REJECTED, code="rejected", adapter=ADAPTER, sent="no")
    return StoreError(f"The Weaviate client failed ({type(error).__name__}).", code="client", adapter=ADAPTER)


_DOWN = ("cannot achieve consistency level", "cannot reach enough replicas", "connection refused", "no replica found",
         "failed to connect", "is not ready", "unable to resolve node name", "no such host")  # fmt: skip


def down(said: str) -> bool:
    """Tell whether the server *said* that another of its nodes does not answer: it has no code for that."""
    return any(one in said for one in _DOWN)


def unreplicated(*, write: bool) -> StoreError:
    """Return the error of a request for which too few nodes answer."""
    text = (
        "A node of the Weaviate cluster does not answer, and fewer are left than `consistency` waits for. Ask again "
        "when it is back."
    )
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent="unknown" if write else "no", retryable=True)


def status(number: int, *, write: bool) -> StoreError:
    """Return the error of an HTTP status, or of the gRPC code that stands for it."""
    unknown: _Sent = "unknown" if write else "no"
    if number in (401, 403):
        text = "Weaviate refused the credentials, or they do not reach this collection or tenant."
        return StoreError(text, code="unauthorized", adapter=ADAPTER, sent="no")
    if number == 404:
        return StoreError(_NOT_PROVISIONED, code="not_provisioned", adapter=ADAPTER, sent="no")
    if number in (408, 504):
        return StoreError("Weaviate did not answer in time.", code="timeout", adapter=ADAPTER, sent=unknown)
    if number == 429:
        text = "Weaviate's limit of requests or of their size is reached."
        return StoreError(text, code="rate_limited", adapter=ADAPTER, sent="no", retryable=True)
    if 400 <= number < 500:
        return StoreError(_REJECTED, code="rejected", adapter=ADAPTER, sent="no")
    text = f"Weaviate is not able to serve this now (status {number})."
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent=unknown, retryable=True)


def not_served(sent: _Sent = "no") -> StoreError:
    """Return the one error of a tenant that is missing or not active."""
    return StoreError(NOT_SERVED, code="tenant_not_served", adapter=ADAPTER, sent=sent)
