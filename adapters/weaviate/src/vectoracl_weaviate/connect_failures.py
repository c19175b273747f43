"""Why a connection could not be made or was lost, each cause with its own words: of HTTP, and of gRPC.

httpx has the cause among what its error was raised from; gRPC has one code for all of them, and tells them apart by
its text. Neither text is shown: both have addresses in them.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import httpx

from vectoracl.adapter_api.tls import UNTRUSTED
from vectoracl_weaviate.answers import Answer

URL: Final = "`url`"
GRPC: Final = "`grpc_port` (and `grpc_host`, where it is not the host of `url`)"

_NO_NAME: Final = Answer(
    "unavailable",
    "The name of the host could not be resolved: that of {at}. Check its spelling, and the DNS of this machine.",
    retryable=True,
)
_REFUSED: Final = Answer(
    "unavailable",
    "Nothing listens where Weaviate is expected: at {at}. Check that the server runs, that it listens on that address, "
    "and the port.",
    retryable=True,
)
_NO_WAY: Final = Answer(
    "unavailable",
    "The network has no way to the host of {at}. Check the address, the VPN and the firewall.",
    retryable=True,
)
_UNTRUSTED: Final = Answer("untrusted", UNTRUSTED)
_NO_TLS: Final = Answer(
    "tls",
    "The encrypted connection to {at} could not be made. Check whether the server speaks TLS there at all: `url` "
    "begins with http:// where it does not; and which versions of TLS it allows.",
)
PLAIN: Final = Answer(
    "tls", "The server wants encrypted connections at {at}. `url` begins with https:// then, also for gRPC."
)
_TIMEOUT: Final = Answer(
    "timeout",
    "Weaviate did not answer in time at {at}. If it never does: check the host and the port, and whether a firewall "
    "drops the packets. If it is slow: request_timeout, or timeout= of the call, says how long to wait.",
    begun=True,
)
_NO_ANSWER_TO_CONNECT: Final = Answer("timeout", _TIMEOUT.text, retryable=True)
_BUSY: Final = Answer(
    "unavailable",
    "No connection was free in time: all of `parallel` are in use. Try again, or raise it.",
    retryable=True,
)
_HUNG_UP: Final = Answer(
    "unavailable",
    "The connection was closed before Weaviate answered at {at}. Check that it is Weaviate that listens there and not "
    "something else, that `url` begins with https:// where it wants TLS, and the server's log. Try again.",
    retryable=True,
    begun=True,
)
NOT_WEAVIATE: Final = Answer(
    "not_weaviate",
    "What listens at {at} does not answer as Weaviate does. Check the host and the port: REST and gRPC have one each "
    "(8080 and 50051, where nothing else is set).",
)
# Of several addresses one may have answered: what was found there comes before what the network says.
_GRPC: Final[tuple[tuple[str, Answer], ...]] = (
    (r"CERTIFICATE_VERIFY_FAILED|Hostname Verification|certificate verify", _UNTRUSTED),
    (r"handshake failed|SSL_ERROR|WRONG_VERSION_NUMBER|TSI_|peer's cert|ALPN", _NO_TLS),
    (r"parsing HTTP/2|http1|HTTP/1|HTTP status|content-type|Trying to connect an", NOT_WEAVIATE),
    (r"DNS resolution failed|resolve", _NO_NAME),
    (r"Connection refused", _REFUSED),
    (r"No route to host|unreachable|Host is down", _NO_WAY),
    (r"connect.{0,80}tim(ed|e) ?out|tim(ed|e) ?out.{0,80}connect|before receiving SETTINGS", _NO_ANSWER_TO_CONNECT),
)  # fmt: skip
_COMPILED: Final = tuple((re.compile(pattern, re.IGNORECASE | re.DOTALL), answer) for pattern, answer in _GRPC)


def of_grpc(details: str) -> Answer:
    """Return why the server was UNAVAILABLE over gRPC, by the *details* of the error."""
    for pattern, answer in _COMPILED:
        if pattern.search(details):
            return answer
    return _HUNG_UP


def of_timeout() -> Answer:
    """Return the answer of a request that took too long."""
    return _TIMEOUT


def of_http(error: BaseException) -> Answer | None:
    """Return why a request over HTTP failed with *error*; None: it is not about the connection."""
    if isinstance(error, httpx.PoolTimeout):
        return _BUSY
    if isinstance(error, httpx.ConnectTimeout):
        return _NO_ANSWER_TO_CONNECT
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return _TIMEOUT
    if isinstance(error, httpx.RemoteProtocolError) and "illegal" in str(error):  # no HTTP
        return NOT_WEAVIATE
    if not isinstance(error, OSError | httpx.TransportError):
        return None
    causes = list(_causes(error))
    for kinds, answer in (
        (ssl.SSLCertVerificationError, _UNTRUSTED),
        (ssl.SSLError, _NO_TLS),
        (socket.gaierror, _NO_NAME),
        (ConnectionRefusedError, _REFUSED),
    ):
        if any(isinstance(one, kinds) for one in causes):
            return answer
    return _NO_WAY if isinstance(error, httpx.ConnectError) else _HUNG_UP


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and what it was raised from; of several addresses that were tried, all."""
    left, seen = [error], set[int]()
    while left and len(seen) < 64:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [more for more in (one.__cause__, one.__context__) if more is not None]
        left += getattr(one, "exceptions", ())
