"""A server behind TLS, with a certificate of an authority that only `ca_file` names: REST, sync and async; gRPC."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
import trustme
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client import grpc as messages

from vectoracl.errors import ConfigError, StoreError
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.ports import AsyncQdrantPort, QdrantPort
from vectoracl_qdrant.requests import Scroll

EMPTY = {"result": {"points": [], "next_page_offset": None}, "status": "ok", "time": 0.0}
SCROLL = Scroll("acme", models.Filter(must=[]), 10)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@contextmanager
def rest(ca: trustme.CA) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = json.dumps(EMPTY).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A handshake that the client broke off is what some of these tests want."""

    server = Server(("127.0.0.1", 0), Handler)
    secret = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(secret)
    server.socket = secret.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def rpc(ca: trustme.CA) -> Iterator[int]:
    def scrolled(_request: object, _context: object) -> messages.ScrollResponse:
        return messages.ScrollResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        scrolled,
        request_deserializer=messages.ScrollPoints.FromString,
        response_serializer=messages.ScrollResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("qdrant.Points", {"Scroll": handler})])
    made = ca.issue_cert("localhost")
    key, chain = made.private_key_pem.bytes(), b"".join(one.bytes() for one in made.cert_chain_pems)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(5)


def written(folder: Path, ca: trustme.CA) -> Path:
    file = folder / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    return file


def config(port: int, **more: object) -> QdrantConfig:
    return QdrantConfig(url=f"https://localhost:{port}", collection="c", dimension=4, **more)


def asked(made: QdrantConfig, base: Path) -> object:
    port = QdrantPort(made, base, debug=False)
    try:
        return port.execute(SCROLL, 10)
    finally:
        port.close()


async def aasked(made: QdrantConfig, base: Path) -> object:
    port = AsyncQdrantPort(made, base, debug=False)
    try:
        return await port.execute(SCROLL, 10)
    finally:
        await port.close()


def test_rest_trusts_the_authority_that_is_named(ca: trustme.CA, tmp_path: Path) -> None:
    written(tmp_path, ca)
    with rest(ca) as port:
        made = config(port, ca_file="ca.pem")  # relative to the config's folder
        assert asked(made, tmp_path) == asyncio.run(aasked(made, tmp_path))


def test_grpc_trusts_the_authority_that_is_named(ca: trustme.CA, tmp_path: Path) -> None:
    written(tmp_path, ca)
    with rpc(ca) as port:
        made = config(6333, ca_file="ca.pem", grpc=True, grpc_port=port)
        assert asked(made, tmp_path) == asyncio.run(aasked(made, tmp_path))


def test_a_certificate_that_nobody_named_is_refused_and_said(ca: trustme.CA, tmp_path: Path) -> None:
    written(tmp_path, trustme.CA())
    with rest(ca) as port:
        for made in (config(port), config(port, ca_file="ca.pem")):
            for work in (
                lambda made=made: asked(made, tmp_path),
                lambda made=made: asyncio.run(aasked(made, tmp_path)),
            ):
                with pytest.raises(StoreError, match="ca_file") as caught:
                    work()
                assert (caught.value.code, caught.value.sent) == ("untrusted", "no")
    with rpc(ca) as port, pytest.raises(StoreError) as caught:
        asked(config(6333, ca_file="ca.pem", grpc=True, grpc_port=port), tmp_path)
    assert (caught.value.code, caught.value.sent) == ("untrusted", "no")


def test_a_file_that_holds_no_certificate_is_a_wrong_config(tmp_path: Path) -> None:
    for content in (None, "", "no certificate"):
        if content is not None:
            (tmp_path / "ca.pem").write_text(content)
        with pytest.raises(ConfigError, match="ca_file"):
            asked(config(1, ca_file="ca.pem"), tmp_path)


def test_an_authority_for_a_plain_address_is_a_wrong_config() -> None:
    with pytest.raises(ValueError, match="ca_file can only be used with an https url"):
        QdrantConfig(url="http://localhost:6333", dimension=4, ca_file="ca.pem")


def test_a_client_of_the_applications_own_decides_what_it_trusts(tmp_path: Path) -> None:
    made = config(6333, ca_file="ca.pem")
    with pytest.raises(ConfigError, match="verify"):
        QdrantPort(made, tmp_path, debug=False, client=QdrantClient(":memory:"))
    with pytest.raises(ConfigError, match="verify"):
        AsyncQdrantPort(made, tmp_path, debug=False, client=AsyncQdrantClient(":memory:"))


def test_text_around_a_certificate_is_no_matter(ca: trustme.CA, tmp_path: Path) -> None:
    pem = ca.cert_pem.bytes()
    (tmp_path / "ca.pem").write_bytes("\ufeff# Zertifikat von Müller\n".encode() + pem)
    with rest(ca) as port:
        assert asked(config(port, ca_file="ca.pem"), tmp_path)
    (tmp_path / "ca.pem").write_bytes(pem[: len(pem) // 2])
    with pytest.raises(ConfigError, match="no complete certificate"):
        asked(config(1, ca_file="ca.pem"), tmp_path)
