"""`[audit] returned = "hashed"`: keyed hashes of what a read returned, for whoever has the key."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectoracl
from vectoracl import Chunk, ConfigError, DeniedError, F, Like, Principal, hazmat
from vectoracl.audit.returned_hashes import ReturnedIds, key_id, returned_hash
from vectoracl.audit.sinks import JsonlSink

V = [1.0, 0.0, 0.0]
KEY = "k" * 16 + "0123456789abcdef"
ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@pytest.fixture
def hashed(api, config, monkeypatch):
    monkeypatch.setenv("AUDIT_KEY", KEY)
    config["audit"] = {"returned": "hashed", "key": {"env": "AUDIT_KEY"}}
    acl = api.connect(config)
    for tenant in ("acme", "commons", "globex"):
        chunks = [Chunk(f"c{n}", f"d{n % 2}", "some words", V, metadata={"lang": "en"}) for n in range(4)]
        acl.scoped(person(tenant)).upsert(chunks)
    acl.scoped(person()).upsert([Chunk("only", "d0", "some words", V)])
    return acl


def person(tenant="acme"):
    return Principal("ann", tenant, authenticated_by="test")


def of(hits):
    return list(dict.fromkeys(returned_hash(KEY, hit.tenant, hit.document, hit.id) for hit in hits))


READS = {
    "search": lambda docs: docs.search(V, 3),
    "where": lambda docs: docs.search(V, 3, where=F["@document"] == "d1"),
    "groups": lambda docs: docs.search(V, 2, group_by="document", per_group=2),
    "like": lambda docs: docs.narrow(F["@document"] == "d0").search(Like("only", "d0")),
    "search_many": lambda docs: [hit for one in docs.search_many([V, V], 2) for hit in one],
    "fetch": lambda docs: docs.fetch(["c1", "c2"]),
    "page": lambda docs: docs.page(size=3).hits,
    "nothing": lambda docs: docs.search(V, where=F.lang == "fr"),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_leaves_the_hashes_of_what_it_returned(hashed, name):
    hits = list(READS[name](hashed.scoped(person())))
    outcome = hashed.outcomes[-1]
    assert outcome["ids"] == {"key": key_id(KEY), "hashes": of(hits), "more": 0}
    assert bool(hits) == (name != "nothing")
    assert outcome["outcome"] == "ok"
    for tenant in ("acme", "commons"):
        for number in range(4):
            chunk = (tenant, f"d{number % 2}", f"c{number}")
            assert (returned_hash(KEY, *chunk) in outcome["ids"]["hashes"]) == (
                chunk in {(hit.tenant, hit.document, hit.id) for hit in hits}
            )
    assert not any(returned_hash(KEY, "globex", f"d{n % 2}", f"c{n}") in outcome["ids"]["hashes"] for n in range(4))


def test_every_page_of_a_scan_has_its_own(hashed):
    before = len(hashed.outcomes)
    hits = list(hashed.scoped(person()).scan(size=3))
    found = [one["ids"]["hashes"] for one in hashed.outcomes[before:]]
    assert [hash_ for page in found for hash_ in page] == of(hits)
    assert max(len(page) for page in found) == 3


def test_what_returns_no_chunks_has_none(hashed):
    docs = hashed.scoped(person())
    docs.count()
    docs.facets("lang")
    docs.upsert([Chunk("n", "d", "text", V)])
    docs.delete(document="d")
    hashed.explain(person())
    with pytest.raises(DeniedError):
        docs.narrow(actions=["count"]).search(V)
    assert all("ids" not in one for one in hashed.outcomes)


def test_the_door_past_the_scope_has_them(config, monkeypatch):
    monkeypatch.setenv("AUDIT_KEY", KEY)
    config["audit"] = {"returned": "hashed", "key": {"env": "AUDIT_KEY"}}
    with vectoracl.connect(config) as acl:
        acl.scoped(person()).upsert([Chunk("c", "d", "text", V)])
        hits = hazmat.unscoped(acl, reason="a test of the hashes").search(V)
        assert acl.sink.outcomes[-1]["ids"]["hashes"] == of(hits) != []


def test_it_is_off_by_default(acl):
    acl.scoped(person()).search(V)
    assert "ids" not in acl.outcomes[-1]


def test_no_id_is_in_the_file(api, config, tmp_path, monkeypatch):
    (tmp_path / "key").write_text(KEY + "\n")
    config["audit"] = {"returned": "hashed", "key": {"file": str(tmp_path / "key")}}
    acl = api.connect(config, sink=JsonlSink(tmp_path / "audit.jsonl"))
    docs = acl.scoped(person())
    docs.upsert([Chunk("canary-chunk", "canary-document", "text", V)])
    assert len(docs.search(V)) == 1
    acl.close()
    text = (tmp_path / "audit.jsonl").read_text()
    assert returned_hash(KEY, "acme", "canary-document", "canary-chunk") in text
    assert "canary" not in text
    assert KEY not in text


@pytest.mark.parametrize(
    "audit",
    [
        {"returned": "hashed"},
        {"key": {"env": "AUDIT_KEY"}},
        {"returned": "hashed", "key": KEY},
        {"returned": "hashed", "key": {"env": "SHORT"}},
        {"returned": "hashed", "key": {"env": "NOT_SET"}},
        {"returned": "plain", "key": {"env": "AUDIT_KEY"}},
    ],
)
def test_what_is_refused(config, monkeypatch, audit):
    monkeypatch.setenv("AUDIT_KEY", KEY)
    monkeypatch.setenv("SHORT", "k" * 31)
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError) as caught:
        vectoracl.connect({**config, "audit": audit})
    assert KEY not in str(caught.value)
    assert "k" * 31 not in str(caught.value)


@given(st.lists(st.tuples(ids, ids, ids), unique=True, max_size=20), st.text(min_size=32, max_size=64))
def test_hashes_are_equal_for_the_same_chunk_only(chunks, key):
    key = key.encode(errors="replace").decode()
    hashes = [returned_hash(key, *one) for one in chunks]
    assert len(set(hashes)) == len(chunks)
    assert hashes == [returned_hash(key, *one) for one in chunks]
    for one in chunks:
        assert returned_hash(key + "x", *one) not in hashes
    assert key_id(key) != key_id(key + "x")


def test_it_is_the_hmac_that_is_documented():
    raw = b"".join(len(one).to_bytes(8, "big") + one for one in (b"acme", b"d", b"c"))
    assert returned_hash(KEY, "acme", "d", "c") == hmac.new(KEY.encode(), raw, hashlib.sha256).hexdigest()


def test_a_large_result_is_bounded(monkeypatch):
    monkeypatch.setattr("vectoracl.audit.returned_hashes.MOST_IDS", 3)
    hits = [vectoracl.Hit(f"c{n % 5}", "d", 1.0, "acme", 0, None, None, None, None) for n in range(20)]
    found = ReturnedIds(KEY).of(hits)
    assert (found["hashes"], found["more"]) == (of(hits)[:3], 2)
