"""Maps exceptions of the Pinecone client to vectoracl errors.

The client's messages may contain ids, namespaces and addresses, so the original exception is chained as the cause only
when `debug_errors` is set.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal, NamedTuple

from pinecone.errors import exceptions as theirs

from vectoracl.adapter_api.connect_failures import Address, before_sending, cause_of, failed, host_and_port
from vectoracl.errors import StoreError, VectorACLError, caused
from vectoracl_pinecone.config import PineconeConfig

ADAPTER = "pinecone"
_ours: ContextVar[bool] = ContextVar("vectoracl_pinecone_call", default=False)


class _Quiet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or not _ours.get()


# httpx logs every address, including namespace, prefix and ids. The application's own calls are still logged.
logging.getLogger("httpx").addFilter(_Quiet())
# The client logs every namespace, in loggers that inherit the level of this one. Set another level to see them.
if logging.getLogger("pinecone").level == logging.NOTSET:
    logging.getLogger("pinecone").setLevel(logging.WARNING)


@contextmanager
def silence_client_logs() -> Iterator[None]:
    """Keep tenants, documents and ids of the calls inside out of the application's logs."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


_Sent = Literal["no", "unknown"]
NOT_PROVISIONED = "The index does not exist. Run `vectoracl provision`, and check index and host."
_REJECTED = (
    "Pinecone refused the request. Possible reasons: vectors of another size, a record above a limit, or a filter that "
    "this server does not support. Run `vectoracl check`."
)
_UNAUTHORIZED = (
    "Pinecone refused the API key, or the key does not allow this ({where}). Check api_key and its role: reading needs "
    "DataPlaneViewer, writing DataPlaneEditor, and `provision` ControlPlaneEditor."
)


_PORTS: Final = {"http": 80, "https": 443, "": 443}
_TRUST: Final = "Its certificate authority must be one that this machine trusts, or that SSL_CERT_FILE names"


class Server(NamedTuple):
    """The parts of error messages that describe the addresses of the index and of the control plane."""

    data: Address
    control: Address


def server_of(config: PineconeConfig, host: str | None) -> Server:
    """Return the description of the configured server; *host* is the address of the index, if it is known."""
    index, control = host or "an unknown host", config.control_host or "https://api.pinecone.io"
    return Server(
        Address("Pinecone", host_and_port(index, _PORTS), "index" if config.host is None else "host", trust=_TRUST),
        Address("Pinecone", f"{host_and_port(control, _PORTS)}, control plane", "control_host", trust=_TRUST),
    )


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
        return error
    return caused(_mapped(error, at, write=write), error, debug=debug)


def _mapped(error: BaseException, at: Address, *, write: bool) -> StoreError:
    if isinstance(error, theirs.ApiError):
        return _answered(error, at, write=write)
    if isinstance(error, theirs.ResponseParsingError):
        return _unreadable(error, at, write=write)
    if isinstance(error, theirs.PineconeValueError | theirs.PineconeTypeError | ValueError | TypeError):
        # The client's checks, before anything is sent.
        return StoreError(_REJECTED, code="rejected", adapter=ADAPTER, sent="no")
    cause = cause_of(error)
    if cause is not None:
        return failed(cause, at, adapter=ADAPTER, write=write, sent=not before_sending(error))
    if isinstance(error, theirs.PineconeConnectionError | OSError):
        return _status(503, at, write=write)
    return StoreError(f"The Pinecone client failed ({type(error).__name__}).", code="client", adapter=ADAPTER)


def _answered(error: theirs.ApiError, at: Address, *, write: bool) -> StoreError:
    """Return the error of an answer over HTTP, which may come from a server other than Pinecone."""
    text = str(error.message or "").lstrip()
    if 300 <= error.status_code < 400 or (error.status_code in (404, 405) and text.startswith("<")):
        return failed("foreign", at, adapter=ADAPTER)
    if error.status_code == 400 and error.body is None and "HTTPS" in text:
        return failed("encrypted", at, adapter=ADAPTER)
    answered = _status(error.status_code, at, write=write)
    named = getattr(error, "retry_after", None)
    if error.status_code == 429 and named is not None:
        answered.retry_after = float(named)
    return answered


def _unreadable(error: theirs.ResponseParsingError, at: Address, *, write: bool) -> StoreError:
    if "DecodeError" in str(error):  # msgspec's name for an answer that is not JSON
        return failed("foreign", at, adapter=ADAPTER, write=write)
    text = f"The Pinecone client cannot read the server's answer ({at.where}). Check that the server is Pinecone."
    return StoreError(text, code="malformed", adapter=ADAPTER, sent="unknown" if write else "no")


def _status(status: int, at: Address, *, write: bool) -> StoreError:
    """Return the error of an HTTP status."""
    unknown: _Sent = "unknown" if write else "no"
    if status in (401, 403):
        return StoreError(_UNAUTHORIZED.format(where=at.where), code="unauthorized", adapter=ADAPTER, sent="no")
    if status == 402:
        return StoreError("Pinecone requires a payment for this project.", code="quota", adapter=ADAPTER, sent="no")
    if status == 404:
        return StoreError(NOT_PROVISIONED, code="not_provisioned", adapter=ADAPTER, sent="no")
    if status in (408, 504):
        return failed("slow", at, adapter=ADAPTER, write=write)
    if status == 413:
        text = "Pinecone refused the request as too large. Write fewer chunks per call."
        return StoreError(text, code="too_large", adapter=ADAPTER, sent="no")
    if status == 429:
        text = "Pinecone's rate limit is reached, and waiting did not help within rate_limit_wait."
        return StoreError(text, code="rate_limited", adapter=ADAPTER, sent="no", retryable=True)
    if status in (405, 501):
        text = "This server does not support the operation."
        return StoreError(text, code="not_offered", adapter=ADAPTER, sent="no")
    if 400 <= status < 500:
        return StoreError(_REJECTED, code="rejected", adapter=ADAPTER, sent="no")
    text = f"Pinecone, or a proxy in front of it, cannot serve the request now ({at.where}; status {status})."
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent=unknown, retryable=True)
