"""What the client raises, as ours. Its texts quote ids, namespaces and addresses: they are causes only with debug."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from pinecone.errors import exceptions as theirs

from vectoracl.errors import StoreError, VectorACLError, caused

ADAPTER = "pinecone"
_ours: ContextVar[bool] = ContextVar("vectoracl_pinecone_call", default=False)


class _Quiet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or not _ours.get()


# httpx logs every address, with namespace, prefix and ids in it; the application's own calls are logged as before.
logging.getLogger("httpx").addFilter(_Quiet())
# The client logs every namespace, in loggers below this one, which take its level. Who wants them sets another.
if logging.getLogger("pinecone").level == logging.NOTSET:
    logging.getLogger("pinecone").setLevel(logging.WARNING)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the calls inside name (tenants, documents, ids) out of the application's logs."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


_Sent = Literal["no", "unknown"]
NOT_PROVISIONED = "The index is not there. Run `vectoracl provision`, and check index and host."
_REJECTED = (
    "Pinecone refused the request: vectors of another size, a record above a limit, or a filter that this server "
    "does not know. Run `vectoracl check`."
)
_UNAUTHORIZED = (
    "Pinecone refused the API key, or the key may not do this: reading takes the role DataPlaneViewer, writing "
    "DataPlaneEditor, `provision` ControlPlaneEditor."
)


def mapped(error: BaseException, *, write: bool, debug: bool) -> VectorACLError:
    """Return *error* as ours.

    Raise it after the `except` block, not in it: there Python would attach *error* as its `__context__`.
    """
    if isinstance(error, VectorACLError):
        return error
    return caused(_mapped(error, write=write), error, debug=debug)


def _mapped(error: BaseException, *, write: bool) -> StoreError:
    if isinstance(error, theirs.ApiError):
        return _status(error.status_code, write=write)
    if isinstance(error, theirs.PineconeTimeoutError | TimeoutError):
        return _status(408, write=write)
    if isinstance(error, theirs.PineconeConnectionError):
        return _connection(error, write=write)
    if isinstance(error, theirs.ResponseParsingError):
        text = "Pinecone answered something that its client cannot read."
        return StoreError(text, code="malformed", adapter=ADAPTER, sent="unknown" if write else "no")
    if isinstance(error, theirs.PineconeValueError | theirs.PineconeTypeError | ValueError | TypeError):
        # The client's own checks, before anything is sent.
        return StoreError(_REJECTED, code="rejected", adapter=ADAPTER, sent="no")
    if isinstance(error, OSError):
        return _status(503, write=write)
    return StoreError(f"The Pinecone client failed ({type(error).__name__}).", code="client", adapter=ADAPTER)


def _connection(error: BaseException, *, write: bool) -> StoreError:
    """Tell apart, by the class of httpx's error behind it, what never reached the server."""
    cause = error.__cause__
    if cause is not None and type(cause).__name__ in ("ConnectError", "ProxyError", "LocalProtocolError"):
        text = "No connection to Pinecone could be made. Check the network, and that `host` is the index's address."
        return StoreError(text, code="unavailable", adapter=ADAPTER, sent="no", retryable=True)
    return _status(503, write=write)


def _status(status: int, *, write: bool) -> StoreError:
    """Return the error of an HTTP status."""
    unknown: _Sent = "unknown" if write else "no"
    if status in (401, 403):
        return StoreError(_UNAUTHORIZED, code="unauthorized", adapter=ADAPTER, sent="no")
    if status == 402:
        return StoreError(
            "Pinecone says that the project has to be paid for.", code="quota", adapter=ADAPTER, sent="no"
        )
    if status == 404:
        return StoreError(NOT_PROVISIONED, code="not_provisioned", adapter=ADAPTER, sent="no")
    if status in (408, 504):
        return StoreError("Pinecone did not answer in time.", code="timeout", adapter=ADAPTER, sent=unknown)
    if status == 413:
        text = "Pinecone says that the request is too large. Write fewer chunks a call."
        return StoreError(text, code="too_large", adapter=ADAPTER, sent="no")
    if status == 429:
        text = "Pinecone's rate limit is reached, and waiting did not help within rate_limit_wait."
        return StoreError(text, code="rate_limited", adapter=ADAPTER, sent="no", retryable=True)
    if status in (405, 501):
        text = "This server does not have the operation."
        return StoreError(text, code="not_offered", adapter=ADAPTER, sent="no")
    if 400 <= status < 500:
        return StoreError(_REJECTED, code="rejected", adapter=ADAPTER, sent="no")
    text = f"Pinecone is not able to serve this now (status {status})."
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent=unknown, retryable=True)
