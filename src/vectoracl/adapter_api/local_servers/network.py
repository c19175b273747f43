"""Gives a server a network without other processes: what it listens on is reached only through ports we hand in.

For servers with a port that asks for no key and listens on every address whatever the settings are. `enter` moves this
process, and what it starts afterwards, into a network namespace (Linux; without root through a user namespace, where
the system lets one). Sockets that were made before stay in the network that they were made in, so `relay` can carry
from loopback ports of the machine to the same ports inside.

    python -m vectoracl.adapter_api.local_servers.network      # exits with 0 if this machine lets us
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_NEW_NET, _NEW_USER = 0x40000000, 0x10000000
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1


@functools.cache
def possible() -> bool:
    """Tell whether a process of ours can have a separate network here."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        process = subprocess.run(
            [sys.executable, "-m", "vectoracl.adapter_api.local_servers.network"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return process.returncode == 0


def enter() -> None:
    """Move this process into a new network with nothing but loopback. Call it before there are threads.

    Raises: OSError where the system does not allow it.
    """
    uid, gid = os.getuid(), os.getgid()
    try:
        _unshare(_NEW_NET)
    except PermissionError:
        _unshare(_NEW_NET | _NEW_USER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        (flags,) = struct.unpack_from("H", fcntl.ioctl(one, _GET_FLAGS, request), 16)
        fcntl.ioctl(one, _SET_FLAGS, struct.pack("16sH14s", b"lo", flags | _UP, b""))


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def listeners(ports: Sequence[int]) -> list[socket.socket]:
    """Listen on *ports* of loopback, in the network that this process is in now."""
    return [socket.create_server(("127.0.0.1", port)) for port in ports]


def relay(sockets: Sequence[socket.socket]) -> None:
    """Carry every connection to *sockets* to the same port of loopback in this process's network; returns at once."""
    for one in sockets:
        threading.Thread(target=_accept, args=(one, one.getsockname()[1]), daemon=True).start()


def _accept(listening: socket.socket, port: int) -> None:
    while True:
        try:
            outer, _ = listening.accept()
        except OSError:
            return
        try:
            inner = socket.create_connection(("127.0.0.1", port))
        except OSError:
            outer.close()
            continue
        for end in (outer, inner):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for one, other in ((outer, inner), (inner, outer)):
            threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            end.shutdown(how)


if __name__ == "__main__":
    try:
        enter()
    except OSError:
        sys.exit(1)
