"""Where a store is, as text that is equal only for one and the same place: for adapters' `Opened.places`."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

_LOOPBACK = "loopback"


def address(url: str, port: int | Mapping[str, int]) -> str:
    """Return *url*, or a host with or without a port, as HOST:PORT in one spelling; *port* where it names none.

    Case, a dot at the end and the path do not count, and every name and address of this machine's loopback is one host.
    Beyond that a name is itself and an address is itself: behind one address several servers may be told apart by the
    name that a request asks for. *port* may depend on the scheme.
    """
    parts = urlsplit(url if "//" in url else f"//{url}")
    default = port if isinstance(port, int) else port.get(parts.scheme, 0)
    return f"{_host(parts.hostname or '')}:{parts.port or default}"


def _host(name: str) -> str:
    name = name.rstrip(".").casefold()
    try:
        return _numeric(name)
    except ValueError:
        pass
    if name == "localhost" or name.endswith(".localhost"):
        return _LOOPBACK
    try:
        found = {_numeric(str(one[4][0])) for one in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except (OSError, ValueError):  # a name that is not known here: whoever connects will say so
        return name
    return _LOOPBACK if found == {_LOOPBACK} else name


def _numeric(text: str) -> str:
    """Return an IP address in one spelling. Raises: ValueError if it is none."""
    one = ipaddress.ip_address(text.split("%")[0])
    if isinstance(one, ipaddress.IPv6Address) and one.ipv4_mapped is not None:
        one = one.ipv4_mapped
    return _LOOPBACK if one.is_loopback or one.is_unspecified else str(one)
