"""What the client raises, as ours. Its texts quote objects and addresses, so they are causes only with debug."""

from __future__ import annotations

from typing import Literal

import grpc  # type: ignore[import-untyped]

from vectoracl.adapter_api.grpc_status import code_of, http_status
from vectoracl.errors import StoreError, VectorACLError, caused, unchained
from vectoracl_weaviate.answers import (
    ADAPTER,
    NO_KEY,
    NO_RIGHTS,
    NOT_PROVISIONED,
    NOT_SERVED,
    UNKNOWN,
    WRONG_KEY,
    error_of,
    meant,
)
from vectoracl_weaviate.connect_failures import GRPC, NOT_WEAVIATE, PLAIN, URL, of_grpc, of_http, of_timeout

_Sent = Literal["no", "unknown"]
_ANONYMOUS = "anonymous access not enabled"
_UNSENT = "The Weaviate client cannot send this request ({}): a value of it is not one that Weaviate has."
# The server's own checks, whatever their kind, come as UNKNOWN.
_STATUS = {"UNKNOWN": 422, "UNIMPLEMENTED": 501}


def mapped(error: BaseException, *, write: bool, debug: bool, at: str = URL) -> VectorACLError:
    """Return *error* as ours; *at* is the setting with the address that was asked.

    Raise it after the `except` block, not in it: there Python would attach *error* as its `__context__`.
    """
    if isinstance(error, VectorACLError):
        return unchained(error, debug=debug)
    return caused(_mapped(error, write=write, at=at), error, debug=debug)


def _mapped(error: BaseException, *, write: bool, at: str) -> StoreError:
    if isinstance(error, grpc.RpcError):
        code, details = code_of(error)
        if code == "UNAVAILABLE":
            made = error_of(of_grpc(details), write=write, at=GRPC)
            made.sent = "unknown" if write and "failed to connect" not in details else "no"
            return made
        if code == "UNIMPLEMENTED":
            return error_of(NOT_WEAVIATE, write=write, at=GRPC)
        made = status(_STATUS.get(code) or http_status(code), write=write, said=details, at=GRPC)
        if write and code == "UNKNOWN":
            made.sent = "unknown"  # it may be anything
        return made
    answer = of_http(error)
    if answer is not None:
        return error_of(answer, write=write, at=at)
    if isinstance(error, ValueError | TypeError):
        # Of the message classes and the client, before anything is sent.
        return StoreError(_UNSENT.format(type(error).__name__), code="rejected", adapter=ADAPTER, sent="no")
    return StoreError(f"The Weaviate client failed ({type(error).__name__}).", code="client", adapter=ADAPTER)


def status(number: int, *, write: bool, said: str = "", at: str = URL) -> StoreError:
    """Return the error of an HTTP status, or of the gRPC code that stands for it, and of what the server *said*."""
    unknown: _Sent = "unknown" if write else "no"
    if number == 401:
        return error_of(NO_KEY if _ANONYMOUS in said.lower() else WRONG_KEY, write=write)
    if number == 403:
        return error_of(NO_RIGHTS, write=write)
    if 300 <= number < 400:
        return error_of(NOT_WEAVIATE, write=write, at=at)
    if number == 400 and "HTTP request to an HTTPS server" in said:
        return error_of(PLAIN, write=write, at=at)
    if number == 404:
        return error_of(NOT_PROVISIONED, write=write)
    if number in (408, 504):
        return error_of(of_timeout(), write=write, at=at)
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
