"""What may be found at an address instead of a store, on loopback: for tests of an adapter's messages."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def listener(reply: bytes | None, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Give the port of something that sends *reply* to whoever says something and hangs up; None: it says nothing."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(16)
    kept: list[socket.socket] = []

    def answer(link: socket.socket) -> None:
        with contextlib.suppress(OSError):
            made = link if tls is None else tls.wrap_socket(link, server_side=True)
            kept.append(made)
            if reply is not None:
                made.settimeout(5)
                made.recv(65_536)
                made.sendall(reply)
                made.close()
            return
        link.close()

    def serve() -> None:
        while True:
            try:
                link, _ = sock.accept()
            except OSError:
                return
            kept.append(link)
            threading.Thread(target=answer, args=(link,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(sock.getsockname()[1])
    finally:
        # A thread in accept() keeps the socket open, whoever closes it: a last connection wakes it.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        for one in kept:
            one.close()


@contextmanager
def unanswered() -> Iterator[int]:
    """Give a port whose queue of connections is full, so that the packets of another one go unanswered (Linux)."""
    with socket.socket() as sock, contextlib.ExitStack() as queued:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(3):
            one = queued.enter_context(socket.socket())
            one.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                one.connect(sock.getsockname())
        yield int(sock.getsockname()[1])


def closed_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def http(status: int, body: str = "", kind: str = "application/json", **headers: str) -> bytes:
    """Return an answer over HTTP."""
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    sent = body.encode()
    head = f"HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\ncontent-length: {len(sent)}\r\nconnection: close\r\n{more}"
    return f"{head}\r\n".encode() + sent
