"""A real server behind TLS, with a certificate of an authority that only `ca_file` names."""

from __future__ import annotations

import asyncio
import ssl

import numpy as np
import pytest
import trustme

import vectoracl as v
from vectoracl import Chunk
from vectoracl.errors import ConfigError, StoreError
from vectoracl.testing import principal

from weaviate_support.stores import made
from weaviate_support.tls import in_front_of

E = np.eye(8, dtype=np.float32)


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def behind(server, ca, tmp_path):
    """The configuration of a store behind TLS; its certificate is that of localhost."""
    store = made(server)
    secret = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(secret)
    file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    with in_front_of(server.ports["http"], secret) as rest, in_front_of(server.ports["grpc"], secret) as grpc:
        yield lambda **more: store.with_(
            url=f"https://localhost:{rest}", grpc_port=grpc, **{"ca_file": str(file), **more}
        )


def test_rest_and_grpc_go_through_tls_with_the_authority_that_is_named(behind):
    with v.connect(behind()) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk("1", "d", "kept", E[0])])
        docs.replace("d", [Chunk("1", "d", "kept", E[0]), Chunk("2", "d", "more", E[1])])
        assert [hit.text for hit in docs.search(E[0], 2)] == ["kept", "more"]
        assert docs.count() == 2

    async def asked() -> int:
        async with v.aconnect(behind()) as acl:
            return await acl.scoped(principal("u", "acme")).count()

    assert asyncio.run(asked()) == 2


@pytest.mark.parametrize("settings", [{"ca_file": None}, {"ca_file": "other"}])
def test_a_certificate_that_nobody_named_is_refused_and_said(behind, settings, tmp_path):
    if settings["ca_file"] == "other":
        other = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(str(other))
        settings = {"ca_file": str(other)}
    with pytest.raises(StoreError, match="ca_file") as caught, v.connect(behind(**settings)) as acl:
        acl.scoped(principal("u", "acme")).upsert([Chunk("1", "d", "", E[0])])
    assert (caught.value.code, caught.value.sent) == ("untrusted", "no")


def test_the_name_in_the_certificate_has_to_be_the_hosts(behind):
    config = behind()
    config["stores"]["main"]["url"] = config["stores"]["main"]["url"].replace("localhost", "127.0.0.1")
    with pytest.raises(StoreError, match="another host's"), v.connect(config) as acl:
        acl.scoped(principal("u", "acme")).count()


@pytest.mark.parametrize(
    "content", [None, "", "not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_holds_no_certificate_is_a_wrong_config(behind, tmp_path, content):
    file = tmp_path / "bad.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match="ca_file"), v.connect(behind(ca_file=str(file))) as acl:
        acl.scoped(principal("u", "acme")).count()


def test_an_authority_for_a_plain_address_is_a_wrong_config(store, tmp_path):
    with pytest.raises(ConfigError, match="ca_file can only be used with an https url"):
        v.connect(store.with_(ca_file=str(tmp_path / "ca.pem")))
