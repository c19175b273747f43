"""Why a server could not be used, each cause with its own words: for adapters whose clients speak HTTP or gRPC.

A client's own text quotes addresses, headers and rows, so the cause is read from the class of what it raised and of
what caused that. gRPC has one class for everything: there it is read from the part of its text that its own library
writes (in English).
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from vectoracl.errors import StoreError

Cause = Literal[
    "name", "refused", "no_route", "slow", "untrusted", "plain", "encrypted", "tls", "closed", "foreign"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """Where a client connects, as messages say it: never a key, a user's name or a path.

    `setting` is the key of the configuration that names it, `limit` those that say how long to wait, and `trust`
    says how the server's certificate gets trusted.
    """

    store: str
    where: str
    setting: str
    limit: str = "timeout and request_timeout"
    trust: str = "Name the authority that signed it as ca_file"


_TEXTS: Final[Mapping[Cause, tuple[str, str]]] = {
    "name": (
        "unreachable",
        "The name of the host could not be resolved ({where}). Check its spelling in {setting}, and the DNS of this "
        "machine.",
    ),
    "refused": (
        "unreachable",
        "Nothing listens there for {store} ({where}). Check that the server runs, that it listens on this address, and "
        "the port in {setting}.",
    ),
    "no_route": (
        "unreachable",
        "The network has no way to that host ({where}). Check the address in {setting}, the VPN and the firewall.",
    ),
    "slow": (
        "timeout",
        "{store} did not answer in time ({where}). If it never does, check the host and the port in {setting}, and "
        "whether a firewall drops the packets. How long to wait is set by {limit}.",
    ),
    "untrusted": (
        "untrusted",
        "The server's certificate is not trusted, or is another host's ({where}). {trust}, or ask for the host by the "
        "name in its certificate.",
    ),
    "plain": (
        "tls",
        "The encrypted connection could not be made: what listens there does not speak TLS ({where}). Check the port, "
        "or write http:// in {setting} for a server without a certificate.",
    ),
    "encrypted": ("tls", "What listens there takes encrypted connections only ({where}). Write https:// in {setting}."),
    "tls": (
        "tls",
        "The encrypted connection could not be made ({where}). Check that {store} listens there with TLS, and which "
        "versions of it and which certificates it takes.",
    ),
    "closed": (
        "unavailable",
        "The connection was closed before {store} answered ({where}). Try again. If it always is, check that {store} "
        "listens there, and write https:// in {setting} where it takes encrypted connections only.",
    ),
    "foreign": (
        "foreign",
        "What answers there is not {store} ({where}). Check the host, the port and the path in {setting}, and whether "
        "a proxy or a login page stands before the server.",
    ),
}
_RETRYABLE: Final = frozenset({"name", "refused", "no_route", "closed"})
_NOT_SENT: Final = frozenset({"name", "refused", "no_route", "untrusted", "plain", "tls"})
_NO_WAY: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})
# Of several addresses of a host, the one that says most.
_ORDER: Final[tuple[Cause, ...]] = (
    "untrusted", "encrypted", "plain", "foreign", "tls", "slow", "refused", "closed", "no_route", "name",
)  # fmt: skip
# By name, so that no client has to be there: httpx's and httpcore's classes, and anyio's.
_CLOSED: Final = frozenset({"ReadError", "WriteError", "CloseError", "BrokenResourceError", "EndOfStream"})
_ALERT: Final = "illegal request line"  # so h11 calls a first byte that no text begins with, as a TLS alert does


def host_and_port(url: str, port: int | Mapping[str, int]) -> str:
    """Return HOST:PORT of *url*, or of a host with or without a port; *port* where it names none, by its scheme."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        default = port if isinstance(port, int) else port.get(parts.scheme, 0)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{host}:{parts.port or default}" if host else "an unreadable address"
    except ValueError:
        return "an unreadable address"


def failed(cause: Cause, at: Address, *, adapter: str, write: bool = False, sent: bool = True) -> StoreError:
    """Return the error of *cause*; *write*: of a request that writes; *sent*: it may have reached the server."""
    code, text = _TEXTS[cause]
    unknown = write and sent and cause not in _NOT_SENT
    return StoreError(
        text.format(store=at.store, where=at.where, setting=at.setting, limit=at.limit, trust=at.trust),
        code=code,
        adapter=adapter,
        sent="unknown" if unknown else "no",
        retryable=cause in _RETRYABLE,
    )


def cause_of(error: BaseException | None) -> Cause | None:
    """Return why *error*, of a client over HTTP, came instead of an answer; None where it says nothing of that."""
    for one in _behind(error):
        if isinstance(one, BaseExceptionGroup):
            causes = {cause_of(member) for member in one.exceptions}
            return next((cause for cause in _ORDER if cause in causes), None)
        cause = _own(one)
        if cause == "closed" and before_sending(error):
            return "tls"  # a connection that stands and is closed before anything is sent: in the handshake
        if cause is not None:
            return cause
    return None


def before_sending(error: BaseException | None) -> bool:
    """Tell whether *error* came while the connection was made, so that nothing was sent."""
    return any(type(one).__name__ in ("ConnectError", "ConnectTimeout", "PoolTimeout") for one in _behind(error))


def _own(error: BaseException) -> Cause | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "untrusted"
    if isinstance(error, ssl.SSLError):
        return "plain" if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG") else "tls"
    if isinstance(error, socket.gaierror):
        return "name"
    name = type(error).__name__
    if isinstance(error, TimeoutError) or name.endswith("Timeout"):
        return "slow"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, OSError) and error.errno in _NO_WAY:
        return "no_route"
    if isinstance(error, ConnectionError) or name in _CLOSED:
        return "closed"
    if name == "RemoteProtocolError":  # the answer is not HTTP; "Server disconnected": there was no answer
        text = str(error)
        return "encrypted" if _ALERT in text else "foreign" if "illegal" in text else "closed"
    return None


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """Yield *error*, what it wraps and what caused it, the nearest first."""
    depth = 0
    while error is not None and depth < 16:
        yield error
        source = getattr(error, "source", None)
        if isinstance(source, BaseException):
            error = source
        else:
            error = error.__cause__ or error.__context__  # httpcore raises `from None`, and the context has the reason
        depth += 1


_CONNECTING: Final = re.compile(r"failed to connect to all addresses|DNS resolution failed|[Nn]ame resolution")
_GRPC: Final[tuple[tuple[str, Cause], ...]] = (
    (r"CERTIFICATE_VERIFY_FAILED|not in peer certificate|[Hh]ostname [Vv]erification", "untrusted"),
    (r"WRONG_VERSION_NUMBER|HTTP_REQUEST|PACKET_LENGTH_TOO_LONG", "plain"),
    (r"SSL_ERROR|[Tt]ls handshake|handshake failed", "tls"),
    (r"http1\.x server|HTTP status|Failed parsing HTTP/2|last error: OK", "foreign"),
    (rf"[Cc]onnection refused|\({errno.ECONNREFUSED}\)", "refused"),
    (r"No route to host|etwork is unreachable|Host is down", "no_route"),
    (r"[Tt]imed out|timeout|[Dd]eadline", "slow"),
    (r"DNS resolution|[Nn]ame resolution", "name"),
)


def cause_of_grpc(details: str) -> Cause | None:
    """Return why gRPC got no answer, from *details* of the status UNAVAILABLE; None if the server answered."""
    if _CONNECTING.search(details) is None:
        return "closed" if re.search(r"[Ss]ocket closed|reset by peer|Broken pipe|GOAWAY", details) else None
    return next((cause for pattern, cause in _GRPC if re.search(pattern, details)), "closed")


def sent_by_grpc(details: str) -> bool:
    """Tell whether a request may have reached the server, by what gRPC says in *details*."""
    return _CONNECTING.search(details) is None


__all__ = [
    "Address",
    "Cause",
    "before_sending",
    "cause_of",
    "cause_of_grpc",
    "failed",
    "host_and_port",
    "sent_by_grpc",
]
