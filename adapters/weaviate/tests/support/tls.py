"""A proxy that ends TLS in front of a plain server of this machine, for both protocols: gRPC asks for h2 by ALPN."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError, ValueError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _serve(secret: ssl.SSLContext, client: socket.socket, port: int) -> None:
    with suppress(OSError), client:
        inner = secret.wrap_socket(client, server_side=True)
        with inner, socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=_pump, args=(server, inner), daemon=True)
            back.start()
            _pump(inner, server)
            back.join(5)


@contextmanager
def in_front_of(port: int, secret: ssl.SSLContext) -> Iterator[int]:
    """Accept TLS with the certificate of *secret*, and pass on to *port*; give the proxy's own port."""
    secret.set_alpn_protocols(["h2", "http/1.1"])
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=_serve, args=(secret, client, port), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
