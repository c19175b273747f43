"""The identity of a physical store, as texts that are equal only for one store: for adapters' `Opened.identity`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

_LOOPBACK = "loopback"
_ORIGINAL, _REPLICA = " (original)", " (replica)"
_HERE = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104 - compared, nothing binds to it


def address(url: str, port: int | Mapping[str, int]) -> str:
    """Return *url*, or a host with or without a port, as HOST:PORT/PATH in one spelling; *port* is the default port.

    Case, a trailing dot of the host, a trailing slash of the path, a query and credentials are ignored. `localhost`,
    127.0.0.1, ::1 and the unspecified address (which connects to the loopback) are one host. All other names and
    addresses are compared literally: one address may serve several servers, which it distinguishes by the requested
    name or path. *port* may depend on the scheme.
    """
    parts = urlsplit(url if "//" in url else f"//{url}")
    default = port if isinstance(port, int) else port.get(parts.scheme, 0)
    return f"{_host(parts.hostname or '')}:{parts.port or default}{parts.path.rstrip('/')}"


def original(data: str) -> str:
    """Return the text of a store that holds *data* and is not a replica; a restored backup has the same text."""
    return data + _ORIGINAL


def replica(data: str) -> str:
    """Return the text of a store that replicates the original of *data*, and so receives its writes."""
    return data + _REPLICA


def shared(one: frozenset[str], other: frozenset[str]) -> list[str]:
    """Return the texts that show that two stores are one; empty if they are two.

    These are texts that both have, and those of a replica if the other store holds the same data. Two originals of the
    same data are two stores: one was restored from the other and is independent now.
    """
    matches = {text for text in one & other if not text.endswith(_ORIGINAL)}
    for here, there in ((one, other), (other, one)):
        matches |= {replica(_data(text)) for text in here} & there
    return sorted(matches)


def running(identity: frozenset[str]) -> frozenset[str]:
    """Return the texts of *identity* that only one running store has, without those that a restored backup shares."""
    return frozenset(text for text in identity if not text.endswith((_ORIGINAL, _REPLICA)))


def _data(text: str) -> str:
    return text.removesuffix(_ORIGINAL)


def _host(name: str) -> str:
    name = name.rstrip(".").casefold()
    try:
        one = ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        pass
    else:
        if isinstance(one, ipaddress.IPv6Address) and one.ipv4_mapped is not None:
            one = one.ipv4_mapped
        name = str(one)
    return _LOOPBACK if name in _HERE else name
