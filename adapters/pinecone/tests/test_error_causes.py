"""Each cause of a failed connection has its own words and cure, whichever way the store is contacted first."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

import vectoracl as v
from vectoracl_conformance.servers.loopback import SECRET, closed_port, first_contacts, http, listener, unanswered

from pinecone_support.stub import Stub, stub

PLACES = ("index", "control plane")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(made)
    return made


@pytest.fixture
def said(tmp_path: Path, place: str) -> Callable[..., tuple[str, str]]:
    """Return the one code and message that every first contact gives."""

    def contact(port: int, scheme: str = "http", host: str = "127.0.0.1") -> tuple[str, str]:
        settings: dict[str, Any] = {"adapter": "pinecone", "dimension": 4, "timeout": 0.5, "api_key": SECRET}
        settings["request_timeout"] = 0.5
        url = f"{scheme}://{host}:{port}"
        settings |= {"host": url} if place == "index" else {"index": "docs", "control_host": url}
        found = first_contacts(settings, tmp_path)
        assert len(found) == 7
        assert len(set(found.values())) == 1, found
        code, message = found["connect"]
        assert f"{host}:{port}" in message
        assert ("control plane" in message) == (place == "control plane")
        return code, message

    return contact


@pytest.mark.parametrize("place", PLACES)
def test_each_cause_has_its_words(said: Callable[..., tuple[str, str]], place: str, tls: ssl.SSLContext) -> None:
    made = {"name": said(443, host="no-such-host.invalid"), "refused": said(closed_port())}
    with listener(None) as port:
        made["timeout"] = said(port)
    with unanswered() as port:
        assert said(port)[0] == "timeout"
    with listener(http(200)) as port:
        made["no TLS there"] = said(port, "https")
    with listener(http(200), tls) as port:
        made["unknown authority"] = said(port, "https", "localhost")
        made["plain to TLS"] = said(port)
    with listener(http(200, "<html>", "text/html")) as port:
        made["foreign"] = said(port)
    assert {name: code for name, (code, _) in made.items()} == {
        "name": "unreachable", "refused": "unreachable", "timeout": "timeout", "no TLS there": "tls",
        "unknown authority": "untrusted", "plain to TLS": "unavailable", "foreign": "foreign",
    }  # fmt: skip
    assert len({message for _, message in made.values()}) == len(made)
    setting = "host" if place == "index" else "control_host"
    words = {
        "name": "DNS", "refused": "Nothing listens", "timeout": "firewall",
        "no TLS there": f"write http:// in {setting}", "unknown authority": "SSL_CERT_FILE",
        "plain to TLS": f"write https:// in {setting}", "foreign": "is not Pinecone",
    }  # fmt: skip
    for name, (_, message) in made.items():
        assert words[name] in message, name


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("place", PLACES)
def test_a_key_that_is_refused(place: str, status: int) -> None:
    """Where the index refuses it that is a finding; where the control plane does, as soon as it is asked, an error."""
    with listener(http(status, '{"error": {"message": "no"}}')) as port:
        url = f"http://127.0.0.1:{port}"
        settings = {"host": url} if place == "index" else {"index": "docs", "control_host": url}
        main = {"adapter": "pinecone", "dimension": 4, "api_key": SECRET, **settings}
        config = {"version": 1, "stores": {"main": main}}

        async def asynchronous() -> None:
            async with v.aconnect(config) as acl:
                await acl.open()

        def provision() -> None:
            with v.VectorACL(config) as acl:
                acl.operator().provision()

        for way in (lambda: v.connect(config), lambda: asyncio.run(asynchronous()), provision):
            with pytest.raises((v.StoreError, v.PostureError), match=r"[Cc]heck api_key") as failed:
                way()
            assert failed.value.code in ("unauthorized", "posture")
            assert SECRET not in repr(failed.value)


FOREIGN = {
    "a login page": (http(302, location="http://login.example/"), "foreign"),
    "another path": (http(404, "<html>not here</html>", "text/html"), "foreign"),
    "SSH": (b"SSH-2.0-OpenSSH_9\r\n\r\n\r\n", "foreign"),
    "a proxy without its server": (http(502, "<html>", "text/html"), "unavailable"),
    "HTTP on a port of HTTPS": (http(400, "Client sent an HTTP request to an HTTPS server.", "text/plain"), "tls"),
    "a TLS alert": (b"\x15\x03\x03\x00\x02\x02\x46", "tls"),
    "another form": (http(200, '{"matches": 7, "name": 7, "namespaces": 7}'), "malformed"),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_answers_and_is_no_pinecone(said: Callable[..., tuple[str, str]], place: str) -> None:
    for name, (reply, code) in FOREIGN.items():
        with listener(reply) as port:
            assert said(port)[0] == code, name


def test_an_authority_of_ones_own_is_trusted_as_the_message_says(
    authority: trustme.CA, tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with listener(http(200, "<html>", "text/html"), tls) as port:
        main = {"adapter": "pinecone", "dimension": 4, "host": f"https://localhost:{port}", "api_key": SECRET}
        with pytest.raises(v.StoreError) as failed:
            v.connect({"version": 1, "stores": {"main": main}})
    assert failed.value.code == "foreign", "it got past the certificate"


def test_the_looked_up_address_of_the_index_is_the_one_that_is_said() -> None:
    with stub() as server:
        settings = {"adapter": "pinecone", "dimension": 8, "index": "docs", "api_key": "stub-key"}
        config = {"version": 1, "stores": {"main": {**settings, "control_host": server.host}}}
        with v.VectorACL(config) as acl:
            acl.check()
            _gone(server)
            with pytest.raises(v.StoreError) as failed:
                acl.operator().tenants()
    assert failed.value.code == "unavailable"
    assert f"127.0.0.1:{server.port}; status 503" in failed.value.message


def _gone(server: Stub) -> None:
    from pinecone_support.stub import Answer

    server.fault = lambda one: Answer(503) if "indexes" not in one.path else None
