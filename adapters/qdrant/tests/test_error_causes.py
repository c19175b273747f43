"""Each cause of a failed connection has its own words and cure, whichever way the store is contacted first."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from vectoracl.errors import StoreError
from vectoracl_conformance.servers.loopback import SECRET, closed_port, first_contacts, http, listener, unanswered
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.ports import QdrantPort
from vectoracl_qdrant.requests import Describe

PROTOCOLS = ("http", "grpc")


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(made)
    return made


@pytest.fixture
def said(tmp_path: Path, protocol: str) -> Callable[..., tuple[str, str]]:
    """Return the one code and message that every first contact gives."""

    def contact(port: int, scheme: str = "http", host: str = "127.0.0.1", **more: Any) -> tuple[str, str]:
        if protocol == "grpc":
            more |= {"grpc": True, "grpc_port": port}
        settings = {"adapter": "qdrant", "dimension": 4, "timeout": 1, "request_timeout": 1, "api_key": SECRET, **more}
        settings = {name: value for name, value in settings.items() if value is not None}
        found = first_contacts({"url": f"{scheme}://{host}:{port}", **settings}, tmp_path)
        assert len(found) == 7
        assert len(set(found.values())) == 1, found
        code, message = found["connect"]
        assert f"{host}:{port}" in message
        assert ("gRPC" in message) == (protocol == "grpc")
        return code, message

    return contact


def refusing(code: grpc.StatusCode) -> Any:
    def refuse(_request: object, context: Any) -> bytes:
        context.abort(code, "Invalid API key or JWT")
        raise AssertionError

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, _: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(refuse)

    return Handler()


@contextmanager
def answering(protocol: str, status: int, code: grpc.StatusCode) -> Iterator[int]:
    """Give the port of a server that answers every request with *status*, over gRPC with *code*."""
    if protocol == "http":
        with listener(http(status, "Invalid API key or JWT", "text/plain")) as port:
            yield port
        return
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([refusing(code)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_cause_has_its_words(said: Callable[..., tuple[str, str]], protocol: str, tls: ssl.SSLContext) -> None:
    made = {"name": said(6333, host="no-such-host.invalid"), "refused": said(closed_port())}
    with listener(None) as port:
        made["timeout"] = said(port)
    if protocol == "http":
        with unanswered() as port:
            assert said(port)[0] == "timeout"
    with listener(http(200)) as port:
        made["no TLS there"] = said(port, "https")
    with listener(http(200), tls) as port:
        made["unknown authority"] = said(port, "https", "localhost")
        made["plain to TLS"] = said(port)
    with answering(protocol, 401, grpc.StatusCode.UNAUTHENTICATED) as port:
        made["key"] = said(port)
        made["no key"] = said(port, api_key=None)
    with answering(protocol, 403, grpc.StatusCode.PERMISSION_DENIED) as port:
        assert said(port)[0] == "unauthorized"
    with listener(http(200, "<html>", "text/html")) as port:
        made["foreign"] = said(port)
    assert {name: code for name, (code, _) in made.items()} == {
        "name": "unreachable", "refused": "unreachable", "timeout": "timeout", "no TLS there": "tls",
        "unknown authority": "untrusted", "plain to TLS": "unavailable", "key": "unauthorized",
        "no key": "unauthorized", "foreign": "foreign",
    }  # fmt: skip
    assert len({message for _, message in made.values()}) == len(made)
    words = {
        "name": "DNS", "refused": "Nothing listens", "timeout": "firewall", "no TLS there": "write http:// in url",
        "unknown authority": "ca_file", "plain to TLS": "write https:// in url", "key": "Check api_key",
        "no key": "Set api_key", "foreign": "is not Qdrant",
    }  # fmt: skip
    for name, cure in words.items():
        assert cure in made[name][1], name


FOREIGN = {
    "a login page": (http(302, location="http://login.example/"), "foreign"),
    "another path": (http(404, "<html>not here</html>", "text/html"), "foreign"),
    "another API": (http(404, '{"detail": "Not Found"}'), "foreign"),
    "another answer": (http(200, "{}"), "malformed"),
    "another form": (http(200, '{"result": {"status": 7}}'), "malformed"),
    "SSH": (b"SSH-2.0-OpenSSH_9\r\n\r\n\r\n", "foreign"),
    "a proxy without its server": (http(502, "<html>", "text/html"), "unavailable"),
    "HTTP on a port of HTTPS": (http(400, "Client sent an HTTP request to an HTTPS server.", "text/plain"), "tls"),
    "a TLS alert": (b"\x15\x03\x03\x00\x02\x02\x46", "tls"),
}


@pytest.mark.parametrize("protocol", ["http"])
def test_what_answers_and_is_no_qdrant(said: Callable[..., tuple[str, str]], protocol: str) -> None:
    for name, (reply, code) in FOREIGN.items():
        with listener(reply) as port:
            assert said(port)[0] == code, name


def test_a_server_of_grpc_that_is_no_qdrant(tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        settings = {"adapter": "qdrant", "dimension": 4, "url": "http://127.0.0.1:1", "grpc": True, "grpc_port": port}
        found = first_contacts(settings, tmp_path)
    finally:
        server.stop(None).wait(5)
    assert {code for code, _ in found.values()} == {"foreign"}


def test_qdrants_own_refusals_stay_what_they_are() -> None:
    for status, code in ((404, "not_provisioned"), (400, "rejected"), (405, "rejected")):
        body = json.dumps({"status": {"error": "a secret"}, "time": 0.1})
        with listener(http(status, body)) as number:
            port = QdrantPort(QdrantConfig(url=f"http://127.0.0.1:{number}", dimension=4), Path(), debug=False)
            with pytest.raises(StoreError) as failed:
                port.execute(Describe(), 1)
            port.close()
        assert failed.value.code == code
