"""Servers on loopback that are not a store, for tests of an adapter's messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from typer.testing import CliRunner

import vectoracl
from vectoracl._util import toml
from vectoracl.cli.app import app

SECRET: Final = "key-canary-77"  # noqa: S105 - which it is not
"""For what no message may show."""


@contextmanager
def listener(reply: bytes | None, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Give the port of something that sends *reply* to whoever says something and hangs up; None: it says nothing."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(16)
    sockets: list[socket.socket] = []

    def answer(link: socket.socket) -> None:
        with contextlib.suppress(OSError):
            stream = link if tls is None else tls.wrap_socket(link, server_side=True)
            sockets.append(stream)
            if reply is not None:
                stream.settimeout(5)
                stream.recv(65_536)
                stream.sendall(reply)
                # Closed with a part of the request unread, the connection would be reset and the reply lost.
                if tls is None:
                    stream.shutdown(socket.SHUT_WR)
                while stream.recv(65_536):
                    pass
                stream.close()
            return
        link.close()

    def serve() -> None:
        while True:
            try:
                link, _ = sock.accept()
            except OSError:
                return
            sockets.append(link)
            threading.Thread(target=answer, args=(link,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(sock.getsockname()[1])
    finally:
        # A thread in accept() keeps the socket open, whoever closes it: a last connection wakes it.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        for one in sockets:
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
    data = body.encode()
    head = f"HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\nconnection: close\r\n{more}"
    return f"{head}\r\n".encode() + data


def first_contacts(settings: Mapping[str, Any], folder: Path) -> dict[str, tuple[str, str]]:
    """Return what each first contact with a store of *settings* fails with: its code and its message, by its name.

    Nothing that it says or carries has `SECRET` in it. Raises: AssertionError.
    """
    config = {"version": 1, "stores": {"main": dict(settings)}}
    file = folder / "vectoracl.toml"
    file.write_text(f"version = 1\n[stores.main]\n{toml.lines(settings)}\n")

    async def asynchronous() -> None:
        async with vectoracl.aconnect(config) as acl:
            await acl.open()

    async def check() -> None:
        async with vectoracl.AsyncVectorACL(config) as acl:
            await acl.check()

    def operator() -> None:
        with vectoracl.VectorACL(config) as acl:
            acl.operator().provision()

    def checked() -> None:
        with vectoracl.VectorACL(config) as acl:
            acl.check()

    ways: dict[str, Callable[[], object]] = {
        "connect": lambda: vectoracl.connect(config).close(),
        "aconnect": lambda: asyncio.run(asynchronous()),
        "check": checked,
        "acheck": lambda: asyncio.run(check()),
        "provision": operator,
    }
    failures = {name: _failure(way) for name, way in ways.items()}
    for command in ("check", "provision"):
        ran = CliRunner().invoke(app, [command, "-c", str(file), "--json"])
        assert SECRET not in ran.output, "a secret is printed"
        assert ran.exit_code == 2, ran.output
        error = json.loads(ran.stdout)["error"]
        failures[f"vectoracl {command}"] = (error["code"], error["message"])
    return failures


def _failure(way: Callable[[], object]) -> tuple[str, str]:
    failed: vectoracl.VectorACLError | None = None
    try:
        way()
    except vectoracl.VectorACLError as error:
        failed = error
    assert failed is not None, "it did not fail"
    assert getattr(failed, "sent", "no") == "no", "nothing was written"
    one: BaseException | None = failed
    while one is not None:
        assert SECRET not in f"{one!r} {one} {vars(one)}", "a secret is in an error"
        one = one.__cause__ or one.__context__
    return failed.code, failed.message
