"""The addresses on which a process and its children listen, read from the kernel, to test that they are private."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
_INODE = re.compile(r"socket:\[(\d+)\]")


class Listening(NamedTuple):
    """One open port. `shared` says that it is in the network that we are in ourselves."""

    protocol: str
    address: str
    port: int
    shared: bool

    @property
    def outside(self) -> bool:
        """Whether a process on another machine, or in another container, could send to it."""
        return self.shared and not ipaddress.ip_address(self.address).is_loopback


def processes(root: int) -> list[int]:
    """Return *root* and every process below it."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in brackets may hold anything; the parent is the second field behind it.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                below.setdefault(parent, []).append(int(entry.name))
    numbers, queue = [], [root]
    while queue:
        numbers.append(queue.pop())
        queue.extend(below.get(numbers[-1], ()))
    return numbers


def listening(root: int) -> list[Listening]:
    """Return what *root* and the processes below it listen on, in whatever network each is."""
    return sorted({one for pid in processes(root) for one in _of(pid)})


def _of(pid: int) -> Iterator[Listening]:
    folder = Path("/proc") / str(pid)
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                match = _INODE.match(str(entry.readlink()))
                if match:
                    inodes.add(match[1])
    # A process may have sockets of its parent's network: both are read.
    for where, shared in ((folder, _same_network(folder)), (Path("/proc/self"), True)):
        for protocol, state in _LISTENING.items():
            with contextlib.suppress(OSError):
                for line in (where / "net" / protocol).read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == state and fields[9] in inodes:
                        address, _, port = fields[1].partition(":")
                        yield Listening(protocol[:3], _address(address), int(port, 16), shared)


def _same_network(folder: Path) -> bool:
    try:
        return (folder / "ns" / "net").readlink() == Path("/proc/self/ns/net").readlink()
    except OSError:
        return True  # cannot be distinguished: taken for reachable


def _address(text: str) -> str:
    words = [struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
