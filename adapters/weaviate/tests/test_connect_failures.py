"""Each cause of a connection that fails has its own words, over HTTP and gRPC, whichever way it is met."""

from __future__ import annotations

import asyncio
import http.server
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from typer.testing import CliRunner

import vectoracl as v
from vectoracl.cli.app import app
from vectoracl.errors import StoreError
from vectoracl.testing import principal
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.failures import mapped, rest_at
from vectoracl_weaviate.ports import AsyncWeaviatePort, WeaviatePort
from vectoracl_weaviate.requests import Describe, Tenants

from weaviate_support.tls import in_front_of

WHO = principal("u", "acme")
SECRET = "key-canary-77"
PLACES = pytest.mark.parametrize("place", ["url", "grpc"])


@contextmanager
def listener(reply: bytes | None) -> Iterator[int]:
    """Give the port of something that sends *reply* to whoever asks and hangs up; None: says nothing."""
    sock = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                link, _ = sock.accept()
                kept.append(link)
                if reply is not None:
                    with suppress(OSError):
                        link.sendall(reply)
                        link.recv(4096)
                    link.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(sock.getsockname()[1])
    finally:
        for one in (sock, *kept):
            one.close()


@contextmanager
def swallowing() -> Iterator[int]:
    """Give a port whose queue is full, so that packets of new connections are dropped."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(0)
    kept = [sock]
    for _ in range(8):
        one = socket.socket()
        one.setblocking(False)
        with suppress(BlockingIOError):
            one.connect(sock.getsockname())
        kept.append(one)
    try:
        yield int(sock.getsockname()[1])
    finally:
        for one in kept:
            one.close()


@contextmanager
def some_web_server(status: int, body: bytes, kind: str = "text/html", **headers: str) -> Iterator[int]:
    """Give the port of a web server that answers everything alike."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"content-type": kind, "content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the base class's name

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def everything(error: BaseException | None) -> str:
    if error is None:
        return ""
    return f"{error!s} {error!r} {vars(error)!r} {everything(error.__cause__ or error.__context__)}"


def asked(port: int, place: str, *, scheme: str = "http", host: str = "127.0.0.1", **more: Any) -> StoreError:
    """Return the one error of both ports for a request that goes to *place*."""
    config = WeaviateConfig.model_validate(
        {"url": f"{scheme}://{host}:{port}", "grpc_port": port, "dimension": 8, "request_timeout": 2.0,
         "api_key": {"env": "CANARY"}, **more}
    )  # fmt: skip
    request: Any = Describe() if place == "url" else Tenants()
    one = WeaviatePort(config, Path("/"), debug=False)
    with pytest.raises(StoreError) as sync:
        one.execute(request, None)
    one.close()

    async def again() -> StoreError:
        other = AsyncWeaviatePort(config, Path("/"), debug=False)
        with pytest.raises(StoreError) as caught:
            await other.execute(request, None)
        await other.close()
        return caught.value

    other = asyncio.run(again())
    assert (other.code, other.message) == (sync.value.code, sync.value.message)
    for error in (sync.value, other):
        assert SECRET not in everything(error)
        where = f"{host}:{port}" if place == "url" else f"{host}:{port}, gRPC"
        assert f"({where})" in error.message
        assert error.message.endswith(".")
    return sync.value


@pytest.fixture(autouse=True)
def canary(monkeypatch):
    monkeypatch.setenv("CANARY", SECRET)


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def secret(ca):
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(made)
    return made


@PLACES
def test_each_cause_has_its_own_text(place, ca, secret, tmp_path):
    file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    said = {"dns": asked(1, place, host="no-such-host.invalid"), "refused": asked(closed(), place)}
    with swallowing() as port:
        said["timeout"] = asked(port, place)
    with listener(None) as port:
        assert asked(port, place).code == "timeout"
    with some_web_server(404, b"<html>nothing</html>") as port:
        said["not weaviate"] = asked(port, place)
        said["tls"] = asked(port, place, scheme="https", host="localhost")
        with in_front_of(port, secret) as behind:
            said["untrusted"] = asked(behind, place, scheme="https", host="localhost")
            assert "https://" in asked(behind, place, host="localhost").message
            other = asked(behind, place, scheme="https", ca_file=str(file))
            assert other.code == "untrusted", "another host's"
            assert asked(behind, place, scheme="https", host="localhost", ca_file=str(file)).code == "not_weaviate"
    assert {name: one.code for name, one in said.items()} == {
        "dns": "unreachable", "refused": "unreachable", "timeout": "timeout", "not weaviate": "not_weaviate",
        "tls": "tls", "untrusted": "untrusted",
    }  # fmt: skip
    assert len({one.message for one in said.values()}) == len(said)
    cures = {"dns": "DNS", "refused": "Nothing listens", "timeout": "request_timeout", "not weaviate": "8080 and 50051",
             "tls": "http://", "untrusted": "ca_file"}  # fmt: skip
    for name, words in cures.items():
        assert words in said[name].message


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (200, b"<html>", "not_weaviate", "8080"),
        (200, b'"a text"', "not_weaviate", "8080"),
        (302, b"", "not_weaviate", "8080"),
        (400, b"Client sent an HTTP request to an HTTPS server.\n", "tls", "https://"),
        (401, b'{"code":401,"message":"unauthorized: invalid api key"}', "unauthorized", "does not know the key"),
        (401, b'{"code":401,"message":"anonymous access not enabled. Please"}', "unauthorized", "none was sent"),
        (403, b'{"error":[{"message":"rbac: authorization, forbidden action"}]}', "unauthorized", "roles"),
        (503, b"starting", "unavailable", "503"),
    ],
)
def test_what_a_web_server_answers(status, body, code, words):
    with some_web_server(status, body, location="https://example.invalid/") as port:
        config = WeaviateConfig(url=f"http://127.0.0.1:{port}", dimension=8)
        one = WeaviatePort(config, Path("/"), debug=False)
        with pytest.raises(StoreError) as caught:
            found = one.execute(Describe(), None)
            pytest.fail(f"it was taken for Weaviate's: {found}")
        one.close()
    assert caught.value.code == code
    assert words in caught.value.message


@pytest.mark.parametrize("reply", [b"SSH-2.0-OpenSSH_9.6\r\n", b"220 mail ESMTP\r\n", b"\x00\x01\x02"])
@PLACES
def test_what_speaks_another_protocol_is_not_weaviate(place, reply):
    with listener(reply) as port:
        error = asked(port, place)
    assert re.search("Check|check|Write", error.message)
    assert error.code in ("not_weaviate", "unavailable", "tls")
    assert error.code != asked(closed(), place).code


@pytest.mark.parametrize(
    "error",
    [httpx.ConnectError("[Errno 113] No route to host"), httpx.PoolTimeout(""), httpx.ReadError("canary"),
     ConnectionResetError("canary"), httpx.RemoteProtocolError("canary of a line")],
)  # fmt: skip
def test_whatever_else_fails_on_the_way_has_words(error):
    made = mapped(error, write=True, debug=False, at=rest_at("http://127.0.0.1:1"))
    assert made.code in ("unreachable", "unavailable")
    assert "canary" not in everything(made)


def ways(config: dict[str, Any], tmp_path: Path) -> Iterator[str]:
    """Yield what is said by a call, sync and async, by check, by provision, and by the command line."""

    async def later() -> None:
        async with v.aconnect(config) as acl:
            await acl.scoped(WHO).count()

    def now(act: Callable[[Any], Any], opened: Any) -> None:
        with opened as acl:
            act(acl)

    def provision(acl: Any) -> None:
        operator = acl.operator()
        try:
            operator.provision()
        finally:
            operator.close()

    for act in (
        lambda: now(lambda acl: acl.scoped(WHO).count(), v.connect(config)),
        lambda: asyncio.run(later()),
        lambda: now(lambda acl: acl.check(), v.VectorACL(config)),
        lambda: now(provision, v.VectorACL(config)),
    ):
        with pytest.raises(StoreError) as caught:
            act()
        assert SECRET not in everything(caught.value)
        yield caught.value.message
    file = tmp_path / "vectoracl.toml"
    store = {key: one for key, one in config["stores"]["main"].items() if key != "metadata"}
    file.write_text("version = 1\n[stores.main]\n" + "".join(f"{key} = {_toml(one)}\n" for key, one in store.items()))
    for command in ("check", "provision"):
        result = CliRunner().invoke(app, [command, "--config", str(file)])
        assert result.exit_code not in (0, 1)
        assert SECRET not in result.output
        yield " ".join(result.output.split())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {json.dumps(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


@pytest.mark.parametrize("cause", ["dns", "refused", "timeout", "not weaviate", "tls", "wrong key", "no key"])
def test_every_way_in_says_the_cause(store, tmp_path, monkeypatch, cause):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "2000")
    here = store.config["stores"]["main"]
    changes, words = {
        "dns": ({"url": "http://no-such-host.invalid:1"}, "DNS"),
        "refused": ({"url": f"http://127.0.0.1:{closed()}"}, "Nothing listens"),
        "timeout": ({}, "drops the packets"),
        "not weaviate": ({}, "8080 and 50051"),
        "tls": ({"url": here["url"].replace("http:", "https:")}, "speak TLS"),
        "wrong key": ({"api_key": {"env": "CANARY"}}, "does not know the key"),
        "no key": ({"api_key": None}, "none was sent"),
    }[cause]
    config = store.with_(timeout=1.0, request_timeout=1.0, **changes)
    main = config["stores"]["main"]
    for key in [key for key, one in main.items() if one is None]:
        del main[key]
    with swallowing() as deaf, some_web_server(404, b'{"detail":"Not Found"}', "application/json") as web:
        if cause in ("timeout", "not weaviate"):
            main["url"] = f"http://127.0.0.1:{deaf if cause == 'timeout' else web}"
        for said in ways(config, tmp_path):
            assert words in said


@pytest.mark.parametrize("cause", ["refused", "http", "dns", "deaf"])
def test_a_wrong_address_of_grpc_is_named_as_that(store, tmp_path, cause):
    with listener(None) as deaf:
        changes, words = {
            "refused": ({"grpc_port": closed()}, "Nothing listens"),
            "http": ({"grpc_port": store.running.ports["http"]}, "REST and gRPC have different ports"),
            "dns": ({"grpc_host": "no-such-host.invalid"}, "DNS"),
            "deaf": ({"grpc_port": deaf}, "drops the packets"),
        }[cause]
        config = store.with_(timeout=1.0, request_timeout=1.0, **changes)
        with v.connect(config) as acl, pytest.raises(StoreError, match="grpc_port") as caught:
            acl.scoped(WHO).count()
        assert words in caught.value.message
        with v.VectorACL(config) as acl:
            operator = acl.operator()
            with pytest.raises(StoreError, match="grpc_port") as caught:
                operator.provision()
            operator.close()
        assert words in caught.value.message
