"""A role and a key for each tenant, on a real server with RBAC."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from weaviate.proto.v1 import weaviate_pb2_grpc

import vectoracl as v
from vectoracl import Chunk
from vectoracl.errors import ConfigError, RefusedError, StoreError
from vectoracl.filters.boolean_compiler import ALL_ROWS
from vectoracl.model.records import Record, Tag
from vectoracl.testing import principal
from vectoracl_weaviate import tenant_keys
from vectoracl_weaviate.compile import WeaviateCompiler
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.ports import WeaviatePort, compiled
from vectoracl_weaviate.requests import Tenants

VECTOR = [1.0] * 8


def path_of(store) -> Path:
    return Path(store.config["stores"]["main"]["tenant_keys"])


@pytest.fixture
def two(keyed_store):
    with keyed_store.operator() as operator:
        operator.create("acme")
        operator.create("beta")
    return keyed_store


def test_each_tenant_is_served_with_its_own_key_alone(two):
    with v.connect({**two.config, "minimum_grade": "credential"}) as acl:
        for tenant in ("acme", "beta"):
            docs = acl.scoped(principal("u", tenant))
            docs.upsert([Chunk("1", "d", f"of {tenant}", VECTOR)])
            docs.replace("d", [Chunk("1", "d", f"new of {tenant}", VECTOR)])
            assert [hit.text for hit in docs.search(VECTOR)] == [f"new of {tenant}"]
            assert docs.count() == 1
        assert acl.check()["main"].grade == "credential"
        with pytest.raises(RefusedError):
            next(acl._named("main").opened.adapter.unscoped(v.model.queries.VectorQuery(VECTOR), 3))


def test_a_key_reaches_no_other_tenant_past_the_library_either(two):
    keys = tenant_keys.read(path_of(two))
    with v.connect(two.config) as acl:
        acl.scoped(principal("u", "beta")).upsert([Chunk("1", "d", "", VECTOR)])
    own = two.config["stores"]["main"]["api_key"]
    for key in (keys["t_acme"], own):
        headers = {"authorization": f"Bearer {key}"}
        for query in (f"&tenant=t_beta", "", "&tenant=t_nobody"):  # noqa: F541
            url = f"{two.running.url}/v1/objects?class={two.collection}{query}"
            answer = httpx.get(url, headers=headers)
            assert answer.status_code == 403 or answer.json().get("objects") == []
        listed = httpx.get(f"{two.running.url}/v1/schema/{two.collection}/tenants", headers=headers)
        assert "t_beta" not in listed.text


def raw(two, key):
    """Return a function that makes a tenant's requests with *key* of ours over gRPC, past ports and keys."""
    config = WeaviateConfig.model_validate({one: value for one, value in two.config["stores"]["main"].items()
                                            if one not in ("adapter", "metadata")})  # fmt: skip
    compiler = WeaviateCompiler(config, {})
    record = Record(Tag("any", "d", "1", producer="u", path="upsert", time=1.0), "", np.ones(8, np.float32), {})

    def ask(tenant):
        """Return by request whether the server did it."""
        with grpc.insecure_channel(config.grpc_target) as channel:
            stub, done = weaviate_pb2_grpc.WeaviateStub(channel), {}
            for request in (
                compiler.near(tenant, ALL_ROWS, np.ones(8, np.float32), 3, frozenset()),
                compiler.tally(tenant, ALL_ROWS),
                compiler.put(tenant, [(record, "")]),
                compiler.drop(tenant, compiler.whole()),
                compiler.state(tenant),
            ):
                call = compiled(config, request)
                try:
                    reply = getattr(stub, call.method)(call.message, metadata=(("authorization", f"Bearer {key}"),))
                    call.reply(reply)
                    done[call.method] = call.method != "TenantsGet" or len(reply.tenants) > 0
                except (grpc.RpcError, StoreError):
                    done[call.method] = False
        return done

    return ask


def test_the_server_itself_refuses_a_key_every_call_on_another_tenant(two):
    """Also where one's name is the beginning of the other's, or the same in another case."""
    names = ("acme", "acme2", "ACME", "ac", "beta")
    with two.operator() as operator:
        for name in names:
            operator.create(name)
    ask = raw(two, tenant_keys.read(path_of(two))["t_acme"])
    for name in names:
        assert ask(name) == dict.fromkeys(
            ("Search", "Aggregate", "BatchObjects", "BatchDelete", "TenantsGet"), name == "acme"
        ), name


def test_a_tenant_without_a_key_reads_like_one_that_is_not_there(two):
    with v.connect(two.config) as acl:
        for tenant in ("nobody", "acme2"):
            docs = acl.scoped(principal("u", tenant))
            assert (list(docs.search(VECTOR)), docs.count(), docs.delete(document="d").count) == ([], 0, 0)
            with pytest.raises(StoreError) as caught:
                docs.upsert([Chunk("1", "d", "", VECTOR)])
            assert (caught.value.code, caught.value.sent) == ("tenant_not_served", "no")


def test_keys_are_taken_up_and_given_up_while_the_process_runs(two):
    with v.connect(two.config) as acl, two.operator() as operator:
        docs = acl.scoped(principal("u", "gamma"))
        assert docs.count() == 0
        operator.create("gamma")
        docs.upsert([Chunk("1", "d", "", VECTOR)])
        assert docs.count() == 1
        operator.remove("gamma")
        assert docs.count() == 0
        with pytest.raises(StoreError):
            docs.upsert([Chunk("1", "d", "", VECTOR)])


def test_a_key_that_the_server_refuses_is_named_so(two):
    keys = tenant_keys.read(path_of(two))
    tenant_keys.write(path_of(two), {**keys, "t_acme": "wrong-key"})
    with v.connect(two.config) as acl:
        assert "WV016" in {one.rule.id for one in acl.check()["main"].findings}
        docs = acl.scoped(principal("u", "acme"))
        for work in (docs.count, lambda: docs.upsert([Chunk("1", "d", "", VECTOR)])):
            with pytest.raises(StoreError) as caught:
                work()
            assert caught.value.code == "unauthorized"
            assert "wrong-key" not in str(caught.value)


def test_an_own_key_that_the_server_refuses(two):
    for key in ("wrong-key", None):
        with pytest.raises(StoreError) as caught, v.connect(two.with_(api_key=key)) as acl:
            acl.open()
        assert caught.value.code == "unauthorized"


def test_the_file_is_its_owners_alone_and_tells_nothing(two, capsys):
    path = path_of(two)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = tenant_keys.read(path)
    with two.operator() as operator:
        text = operator.plan() + " ".join(operator.provision()) + repr(operator.tenants())
    out = capsys.readouterr()
    with v.connect(two.config) as acl:
        text += repr(acl.config) + str(acl.check()["main"]) + repr(acl)
    assert not [key for key in keys.values() if key in text + out.out + out.err]
    with v.connect(two.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        assert docs.count() == 0
        path.chmod(0o640)
        for work in (docs.count, lambda: v.connect(two.config)):
            with pytest.raises(ConfigError, match="chmod 600"):
                work()
        path.chmod(0o600)
        assert docs.count() == 0


@pytest.mark.parametrize("data", ["", "[]", '{"version": 2, "keys": {}}', '{"version": 1, "keys": {"a": ""}}'])
def test_a_file_of_another_form_is_refused_and_not_quoted(tmp_path, data):
    path = tmp_path / "keys.json"
    path.write_text(data)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="does not have the format"):
        tenant_keys.read(path)


def test_a_file_that_is_not_there_has_no_keys(tmp_path):
    assert tenant_keys.read(tmp_path / "none.json") == {}
    with tenant_keys.changing(tmp_path / "new" / "keys.json") as keys:
        keys["t_a"] = "secret"
    assert json.loads((tmp_path / "new" / "keys.json").read_text()) == {"version": 1, "keys": {"t_a": "secret"}}


def test_provision_gives_keys_to_tenants_that_are_there_already(keyed_store):
    path = f"/v1/schema/{keyed_store.collection}/tenants"
    keyed_store.ask("POST", path, [{"name": "t_old"}])
    with keyed_store.operator() as operator:
        assert "the tenant t_old" in operator.plan()
        assert "a key for the tenant" in operator.provision()[0]
        assert operator.provision() == ["everything is in place"]
        # The file was lost: the next one gets new keys, and the old ones are worth nothing.
        old = tenant_keys.read(path_of(keyed_store))["t_old"]
        path_of(keyed_store).unlink()
        operator.provision()
    assert tenant_keys.read(path_of(keyed_store))["t_old"] != old
    headers = {"authorization": f"Bearer {old}"}
    assert httpx.get(f"{keyed_store.running.url}/v1/users/own-info", headers=headers).status_code == 401


def test_with_keys_for_tenants_no_request_about_objects_goes_with_the_processs_own(tmp_path):
    config = WeaviateConfig.model_validate(
        {"url": "http://127.0.0.1:9", "dimension": 8, "tenant_keys": "keys.json", "api_key": "own-key"}
    )
    compiler, port = WeaviateCompiler(config, {}), WeaviatePort(config, tmp_path, debug=False)
    vector = np.ones(8, np.float32)
    for request in (compiler.near_of("t_acme", vector, 3), compiler.tally_of("t_acme", ALL_ROWS), Tenants()):
        with pytest.raises(StoreError) as caught:
            port.execute(request, 1)
        assert (caught.value.code, caught.value.sent) == ("unauthorized", "no")
    with pytest.raises(StoreError) as caught:
        port.execute(compiler.near("acme", ALL_ROWS, vector, 3, frozenset()), 1)
    assert caught.value.code == "tenant_not_served"
    port.close()
