"""What the client raises, as ours. Its texts quote filters, rows and addresses, so they are causes only with debug."""

from __future__ import annotations

import logging
from typing import Literal

import grpc  # type: ignore[import-untyped]
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from vectoracl.certificates import UNTRUSTED, untrusted
from vectoracl.errors import StoreError, VectorACLError, caused

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
_CODES: dict[grpc.StatusCode, int] = {
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
}


def mapped(error: BaseException, *, write: bool, debug: bool, missing: bool = False) -> VectorACLError:
    """Return *error* as ours; *missing* is whether the collection is known not to be there.

    Raise it after the `except` block, not in it: there Python would attach *error* as its `__context__`.
    """
    if isinstance(error, VectorACLError):
        return error
    return caused(not_provisioned() if missing else _mapped(error, write=write), error, debug=debug)


def _mapped(error: BaseException, *, write: bool) -> StoreError:
    if isinstance(error, ResourceExhaustedResponse):
        made = _status(429, write=write)
        made.retry_after = float(error.retry_after_s)
        return made
    if isinstance(error, UnexpectedResponse):
        return _status(error.status_code or 500, write=write)
    if isinstance(error, grpc.RpcError):
        code = error.code() if hasattr(error, "code") else None
        return _status(_CODES.get(code, 500) if code is not None else 500, write=write)
    if isinstance(error, TimeoutError):
        return _status(408, write=write)
    if isinstance(error, ResponseHandlingException):
        return _transport(error.source)
    if isinstance(error, OSError):
        return _status(503, write=write)
    if isinstance(error, ValueError | TypeError | AssertionError):
        # The client's own checks, before anything is sent, and all that local mode ever says.
        return StoreError(_REJECTED, code="rejected", adapter=ADAPTER, sent="no")
    return StoreError(f"The Qdrant client failed ({type(error).__name__}).", code="client", adapter=ADAPTER)


def _transport(source: BaseException) -> StoreError:
    """Return the error of an HTTP exchange, told apart by its kind: httpx's classes, whose names say which."""
    if untrusted(source):
        return StoreError(UNTRUSTED, code="untrusted", adapter=ADAPTER, sent="no")
    kind = type(source).__name__
    if kind in ("ConnectError", "ConnectTimeout", "PoolTimeout"):
        text = "No connection to Qdrant could be made. Check that the server runs and that `url` is its address."
        return StoreError(text, code="unavailable", adapter=ADAPTER, sent="no", retryable=True)
    if "Timeout" in kind:
        return _status(408, write=True)
    return _status(503, write=True)


def _status(status: int, *, write: bool) -> StoreError:
    """Return the error of an HTTP status, or of the gRPC code that stands for it."""
    unknown: _Sent = "unknown" if write else "no"
    if status in (401, 403):
        text = "Qdrant refused the credentials, or they do not reach this collection."
        return StoreError(text, code="unauthorized", adapter=ADAPTER, sent="no")
    if status == 404:
        return not_provisioned()
    if status in (408, 504):
        return StoreError("Qdrant did not answer in time.", code="timeout", adapter=ADAPTER, sent=unknown)
    if status == 429:
        text = "Qdrant's rate limit is reached; try again later (`retry_after` seconds, where it says so)."
        return StoreError(text, code="rate_limited", adapter=ADAPTER, sent="no", retryable=True)
    if 400 <= status < 500:
        return StoreError(_REJECTED, code="rejected", adapter=ADAPTER, sent="no")
    text = f"Qdrant is not able to serve this now (status {status})."
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent=unknown, retryable=True)


def not_provisioned() -> StoreError:
    """Return the error of a collection that is not there."""
    return StoreError(_NOT_PROVISIONED, code="not_provisioned", adapter=ADAPTER, sent="no")
