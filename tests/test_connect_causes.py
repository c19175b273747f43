"""Why a server could not be used, told apart by what clients over HTTP and gRPC really raise on loopback."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Any, get_args

import grpc
import httpx
import pytest
import trustme

from vectoracl.adapter_api import connect_failures as causes
from vectoracl_conformance.servers.loopback import closed_port, http, listener, unanswered

SECRET = "pw-canary-77"
ALERT = b"\x15\x03\x03\x00\x02\x02\x46"


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(made)
    return made


def sync(url: str) -> BaseException:
    with httpx.Client(timeout=0.5) as client, pytest.raises(httpx.HTTPError) as failed:
        client.get(url)
    return failed.value


def asynchronous(url: str) -> BaseException:
    async def get() -> None:
        async with httpx.AsyncClient(timeout=0.5) as client:
            await client.get(url)

    with pytest.raises(httpx.HTTPError) as failed:
        asyncio.run(get())
    return failed.value


@pytest.mark.parametrize("get", [sync, asynchronous])
def test_each_cause_over_http(get: Any, tls: ssl.SSLContext) -> None:
    assert causes.cause_of(get("http://no-such-host.invalid")) == "name"
    assert causes.cause_of(get(f"http://127.0.0.1:{closed_port()}")) == "refused"
    assert causes.cause_of(get(f"http://localhost:{closed_port()}")) == "refused", "of two addresses"
    with unanswered() as port:
        unanswered_ = get(f"http://127.0.0.1:{port}")
        assert causes.cause_of(unanswered_) == "slow"
        assert causes.before_sending(unanswered_)
    with listener(None) as port:
        swallowed = get(f"http://127.0.0.1:{port}")
        assert causes.cause_of(swallowed) == "slow"
        assert not causes.before_sending(swallowed)
    with listener(http(200)) as port:
        assert causes.cause_of(get(f"https://127.0.0.1:{port}")) == "plain"
    with listener(http(200), tls) as port:
        assert causes.cause_of(get(f"https://localhost:{port}")) == "untrusted"
        assert causes.cause_of(get(f"http://127.0.0.1:{port}")) == "closed", "Python's server resets the connection"
    with listener(ALERT) as port:
        assert causes.cause_of(get(f"http://127.0.0.1:{port}")) == "encrypted", "others say so"
    with listener(b"SSH-2.0-OpenSSH_9\r\n\r\n\r\n") as port:
        assert causes.cause_of(get(f"http://127.0.0.1:{port}")) == "foreign"
    with listener(b"") as port:
        assert causes.cause_of(get(f"http://127.0.0.1:{port}")) == "closed"
        assert causes.cause_of(get(f"https://127.0.0.1:{port}")) == "tls"


def rpc(target: str, credentials: Any = None) -> tuple[Any, str]:
    channel = grpc.insecure_channel(target) if credentials is None else grpc.secure_channel(target, credentials)
    with channel, pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/x.Y/Z", None, None)(b"", timeout=5)
    return failed.value.code(), failed.value.details()  # type: ignore[attr-defined]


def test_each_cause_over_grpc(tls: ssl.SSLContext) -> None:
    secure = grpc.ssl_channel_credentials()
    said = {"name": rpc("no-such-host.invalid:1"), "refused": rpc(f"127.0.0.1:{closed_port()}")}
    with listener(http(200)) as port:
        said["foreign"] = rpc(f"127.0.0.1:{port}")
        said["plain"] = rpc(f"127.0.0.1:{port}", secure)
    with listener(http(404)) as port:
        said["foreign too"] = rpc(f"127.0.0.1:{port}")
    with listener(b"SSH-2.0-OpenSSH_9\r\n") as port:
        said["foreign as well"] = rpc(f"127.0.0.1:{port}")
    with listener(b"", tls) as port:
        said["untrusted"] = rpc(f"localhost:{port}", secure)
    with listener(b"") as port:
        said["closed"] = rpc(f"127.0.0.1:{port}")
    for name, (code, details) in said.items():
        assert code is grpc.StatusCode.UNAVAILABLE, (name, code, details)
        assert causes.cause_of_grpc(details) == name.split()[0], (name, details)
        assert not causes.sent_by_grpc(details)


def test_what_a_server_says_over_grpc_is_no_cause() -> None:
    for text in ("", "overloaded", "the peer: connection refused", "timeout of a shard"):
        assert causes.cause_of_grpc(text) is None
        assert causes.sent_by_grpc(text)
    assert causes.cause_of_grpc("Socket closed") == "closed"
    assert causes.sent_by_grpc("Socket closed")


def test_several_addresses_and_what_is_no_cause() -> None:
    far, refused = OSError(errno.EHOSTUNREACH, "x"), ConnectionRefusedError()
    assert causes.cause_of(ExceptionGroup("x", [far, refused])) == "refused"
    assert causes.cause_of(far) == "no_route"
    assert causes.cause_of(ValueError("a secret")) is None
    assert causes.cause_of(None) is None
    assert causes.cause_of(socket.gaierror(socket.EAI_AGAIN, "x")) == "name"
    round_ = ValueError()
    round_.__cause__ = round_
    assert causes.cause_of(round_) is None


@pytest.mark.parametrize("write", [False, True])
def test_each_cause_has_its_own_words(write: bool) -> None:
    at = causes.Address("Store", "h:1", "url")
    made = [causes.failed(cause, at, adapter="a", write=write) for cause in get_args(causes.Cause)]
    assert len({one.message for one in made}) == len(made)
    for one in made:
        assert "h:1" in one.message
        assert "{" not in one.message
        assert one.adapter == "a"
    maybe = {one.code for one in made if one.sent == "unknown"}
    assert maybe == ({"timeout", "unavailable", "foreign", "tls"} if write else set())
    assert causes.failed("slow", at, adapter="a", write=True, sent=False).sent == "no"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://user:{SECRET}@db.example/{SECRET}?key={SECRET}#{SECRET}", "db.example:443"),
        ("http://db.example", "db.example:80"),
        ("db.example:7", "db.example:7"),
        ("http://[::1]:7", "[::1]:7"),
        ("", "an unreadable address"),
        (f"http://[{SECRET}", "an unreadable address"),
        (f"http://h:{SECRET}", "an unreadable address"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert causes.host_and_port(url, {"http": 80, "https": 443}) == shown
