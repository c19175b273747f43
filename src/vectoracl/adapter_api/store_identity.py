"""Where a store is, as text that is equal only for one and the same place: for adapters' `Opened.places`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

_LOOPBACK = "loopback"
_ORIGINAL, _REPLICA = " (original)", " (replica)"
_HERE = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104 - compared, nothing binds to it


def address(url: str, port: int | Mapping[str, int]) -> str:
    """Return *url*, or a host with or without a port, as HOST:PORT/PATH in one spelling; *port* where it names none.

    Case and a dot at the end of the host do not count, nor do a slash at the end of the path, a query and credentials.
    `localhost`, 127.0.0.1, ::1 and the unspecified address, to which a client connects as to these, are one host.
    Beyond that a name is itself and an address is itself, those of the loopback too: behind one address several servers
    may be told apart by the name or the path that a request asks for. *port* may depend on the scheme.
    """
    parts = urlsplit(url if "//" in url else f"//{url}")
    default = port if isinstance(port, int) else port.get(parts.scheme, 0)
    return f"{_host(parts.hostname or '')}:{parts.port or default}{parts.path.rstrip('/')}"


def original(data: str) -> str:
    """Return the text of a store that holds *data* and follows no other; a backup that was restored says the same."""
    return data + _ORIGINAL


def replica(data: str) -> str:
    """Return the text of a store that follows the original of *data*, so that what is written there is seen here."""
    return data + _REPLICA


def shared(one: frozenset[str], other: frozenset[str]) -> list[str]:
    """Return what shows that two stores are one by their places, nothing where they are two.

    That is a text that both have, or of one data a replica and any other. Two originals of one data are two stores: one
    was made from the other, and lives on by itself.
    """
    found = {text for text in one & other if not text.endswith(_ORIGINAL)}
    for here, there in ((one, other), (other, one)):
        found |= {replica(_data(text)) for text in here} & there
    return sorted(found)


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
