"""Receipts of erasures: what they say, that they cannot be changed, and the erasure of what a producer has written."""

from __future__ import annotations

import json
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.test_cli_governance import CONFIG, here, run  # noqa: F401 - a fixture
from tests.test_governance import ANN, BOB, BOSS, acl, chunk, clock, config, fill, govern, opened, rows  # noqa: F401
from vectoracl import ConfigError, DeniedError, Entry, HeldError, InvalidInputError, StoreError
from vectoracl.cli import app
from vectoracl.client.governance import Governance
from vectoracl.registry import receipts

REASON = "a request of the person"


def pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


KEY, OTHER = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()


def test_a_receipt_is_signed_and_says_where_it_looked(tmp_path):
    with opened(config(tmp_path, receipt_key=pem(KEY))) as one:
        governor = one.governance(BOSS)
        governor.define_label("open", entries=[Entry("tenant", write=True)])
        fill(one, "a", "b")
        receipt = governor.erase(["a", "nothing"], reason=REASON)
    content, signed = receipts.check(receipt.signed, receipts.public_key(public(KEY)))
    assert signed
    assert (content["tenant"], content["erased"], content["left"]) == ("acme", ["a"], [])
    assert (content["by"], content["reason"], content["store"]) == ("boss", REASON, "main")
    assert tuple(content["looked_at"]) == receipt.looked_at
    assert any("scan" in one for one in receipt.looked_at)
    assert any("backups" in one for one in content["not_looked_at"])
    with pytest.raises(InvalidInputError, match="another key"):
        receipts.check(receipt.signed, receipts.public_key(public(OTHER)))
    with pytest.raises(InvalidInputError, match="you trust"):
        receipts.check(receipt.signed, None)


def test_without_a_key_it_says_so(acl, govern):  # noqa: F811 - fixtures
    fill(acl, "a")
    receipt = govern.erase("a", reason=REASON)
    content, signed = receipts.check(receipt.signed, None)
    assert not signed
    assert content["key"] is None
    assert receipts.check(receipt.signed, receipts.public_key(public(KEY)))[1] is False
    assert govern.sweep().signed


SIGNED = receipts.Signer(pem(KEY)).receipt({"tenant": "acme", "erased": ["ä", "b"], "left": [], "time": 1.5})


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(SIGNED) - 2), byte=st.integers(0, 255))
def test_a_changed_byte_is_noticed(at, byte):
    changed = SIGNED[:at] + bytes([byte]) + SIGNED[at + 1 :]
    if changed == SIGNED:
        return
    with pytest.raises(InvalidInputError):
        receipts.check(changed, receipts.public_key(public(KEY)))


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(signature=None),
        lambda one: one.update(key=receipts.fingerprint(OTHER.public_key())),
        lambda one: one.update(erased=["b"]),
        lambda one: one.pop("signature"),
        lambda one: one.pop("key"),
        lambda one: one.update(vectoracl_receipt=2),
        lambda one: one.update(more=1),
    ],
)
def test_a_changed_part_is_noticed(change):
    content = json.loads(SIGNED)
    change(content)
    with pytest.raises(InvalidInputError):
        receipts.check(receipts.canonical(content), receipts.public_key(public(KEY)))


def test_a_signature_that_is_taken_away_is_not_one(capsys):
    """Whoever takes signature and key away has an unsigned receipt, and the check says that it is one."""
    content = {**json.loads(SIGNED), "signature": None, "key": None}
    assert receipts.check(receipts.canonical(content), receipts.public_key(public(KEY)))[1] is False


@pytest.mark.parametrize("key", ["", "nonsense", pem(ec.generate_private_key(ec.SECP256R1())), public(KEY)])
def test_a_key_of_another_kind_is_refused_before_anything_is_erased(tmp_path, key):
    with opened(config(tmp_path, receipt_key=key or " ")) as one, pytest.raises(ConfigError, match="Ed25519"):
        one.governance(BOSS)


@pytest.mark.parametrize("key", ["", "nonsense", pem(KEY)])
def test_what_is_not_a_public_key(key):
    with pytest.raises(InvalidInputError):
        receipts.public_key(key)


# --- everything of one producer


def test_what_one_producer_alone_has_written_is_erased(acl, govern):  # noqa: F811 - fixtures
    fill(acl, "a", "b", who=ANN)
    fill(acl, "c", "d", who=BOB)
    acl.scoped(BOB).upsert([chunk("x", "b")])  # b is of both
    acl.scoped(BOB).replace("a2", [chunk("x", "a2")])
    acl.scoped(ANN).replace("d", [chunk("x", "d")])  # nothing of it is bob's any more
    receipt = govern.erase_producer("bob", reason=REASON)
    assert sorted(receipt.documents) == ["a2", "c"]
    assert receipt.shared == ("b",)
    assert receipt.left == ()
    assert json.loads(receipt.signed)["shared"] == ["b"]
    assert {document for document, _ in rows(acl)} >= {"a", "b", "d"}
    assert not {document for document, _ in rows(acl)} & {"a2", "c"}
    assert govern.erase_producer("no one", reason=REASON).documents == ()


def test_a_held_document_stops_it_and_only_governors_may(acl, govern):  # noqa: F811 - fixtures
    fill(acl, "a", who=BOB)
    govern.hold("a", "matter", reason=REASON)
    with pytest.raises(HeldError):
        govern.erase_producer("bob", reason=REASON)
    with pytest.raises(DeniedError):
        acl.governance(BOB).erase_producer("bob", reason=REASON)


def test_what_was_written_in_the_meantime_stays(acl, govern):  # noqa: F811 - fixtures
    fill(acl, "a", who=BOB)
    found, _ = govern._run(govern._of_producer("bob", REASON))
    acl.scoped(ANN).replace("a", [chunk("x", "a")])
    receipt = govern._joined([govern._run(one) for one in govern._parts(list(found), "erase", REASON, found)], REASON)
    assert receipt.documents == ()
    assert receipt.left == ("a",)
    assert acl.scoped(ANN).count() == 1


def test_the_commands(here):  # noqa: F811 - the fixture
    (here / "private.pem").write_text(pem(KEY))
    (here / "public.pem").write_text(public(KEY))
    (here / "other.pem").write_text(public(OTHER))
    run("labels", "define", "everyone", "--tenant", "acme", "--write", "tenant")
    run("ingest", "--as", "ann@acme", "docs")
    erase = ("erase", "--tenant", "acme", "--reason", "r", "--yes", "--json")
    assert "NOT SIGNED" in run("registry", "receipt", unsigned(here, erase), code=2)
    with (here / "vectoracl.toml").open("a") as file:
        file.write('receipt_key = { file = "private.pem" }\n')
    found = run(*erase, "--producer", "ann", "--receipt", "signed.json")
    assert found["documents"] == ["docs/b.md"]
    assert (here / "signed.json").read_text() == found["signed"]
    assert "signed by this key" in run("registry", "receipt", "signed.json", "--key", "public.pem")
    for wrong in (["--key", "other.pem"], [], ["--key", "private.pem"], ["--key", "nothing.pem"]):
        run("registry", "receipt", "signed.json", *wrong, code=2)
    run("registry", "receipt", "vectoracl.toml", code=2)
    run(*erase, "docs/a.md", "--receipt", "signed.json", code=2)  # it exists
    run(*erase, "docs/a.md", "--producer", "ann", code=2)
    run(*erase, code=2)


def test_a_receipt_that_cannot_be_written_is_refused_before_anything_is_erased(here, monkeypatch):  # noqa: F811 - the fixture
    run("labels", "define", "everyone", "--tenant", "acme", "--write", "tenant")
    run("ingest", "--as", "ann@acme", "docs")
    erase = ("erase", "--tenant", "acme", "--reason", "r", "docs/a.md", "--receipt", here / "new.json")
    answered = CliRunner().invoke(app, [str(one) for one in erase], input="no\n")
    assert answered.exit_code == 2
    assert not (here / "new.json").exists()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "rfc8785", None)
        missing = CliRunner().invoke(app, [str(one) for one in erase], input="yes\n")
        assert missing.exit_code == 2
        assert "receipts" in missing.output
        assert "Erase" not in missing.output  # it did not ask
    run(*erase[:-1], here / "nowhere" / "new.json", "--yes", code=2)
    with monkeypatch.context() as patch:
        patch.setattr(
            Governance, "erase", lambda *_, **__: (_ for _ in ()).throw(StoreError("no", code="x", sent="no"))
        )
        run(*erase, "--yes", code=2)
    assert not (here / "new.json").exists()
    assert run(*erase, "--yes", "--json")["documents"] == ["docs/a.md"]
    assert (here / "new.json").read_bytes()


def unsigned(folder, erase):
    run(*erase, "docs/a.md", "--receipt", folder / "unsigned.json")
    return folder / "unsigned.json"
