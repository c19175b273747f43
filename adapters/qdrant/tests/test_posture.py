"""What the posture check says of a collection, and what provisioning does to it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from qdrant_client import models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

import vectoracl as v
from vectoracl import testing
from vectoracl.adapter_api.posture import Posture
from vectoracl.filters.validation import check_fields
from vectoracl_qdrant import ports, schema
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.failures import mapped
from vectoracl_qdrant.local import acquire
from vectoracl_qdrant.plugin import vectoracl_rules
from vectoracl_qdrant.posture import judge

from qdrant_support.stores import NEEDS_SERVER, URL, Provisioned, make

FIELDS = check_fields({"year": "number", "lang": "keyword", "ok": "boolean", "when": "datetime", "tags": "keyword[]"})
CONFIG = QdrantConfig(url="https://qdrant.example", dimension=8)
ALICE = testing.principal("alice", "acme")
OTHER = testing.principal("bob", "globex")


def found(**changes: Any) -> models.CollectionInfo:
    """Return what a server says of a collection that `provision` made, with *changes*."""
    client = acquire("memory:posture")
    name = "described"
    if not client.client.collection_exists(name):
        client.client.create_collection(
            name, vectors_config=schema.vectors(CONFIG), sparse_vectors_config={"words": schema.words(CONFIG)}
        )
    info = client.client.get_collection(name)
    client.release()
    strict = models.StrictModeConfigOutput(**schema.strict_mode(CONFIG).model_dump(exclude_none=True))
    hnsw = info.config.hnsw_config.model_copy(update={"m": 0, "payload_m": 16})
    config = info.config.model_copy(update={"hnsw_config": hnsw, "strict_mode_config": strict, **changes})
    indexes = {
        key: models.PayloadIndexInfo(data_type=params.type.value, params=params, points=0)
        for key, params in schema.indexes(CONFIG, FIELDS).items()
    }
    return info.model_copy(update={"config": config, "payload_schema": indexes})


def rules_of(posture: Posture) -> set[str]:
    return {one.rule.id for one in posture.findings}


def test_what_provision_makes_has_no_findings_and_nothing_is_left_to_do() -> None:
    posture = judge(CONFIG, FIELDS, found(), untagged=False, server="1.19.0")
    assert (posture.grade, posture.findings) == ("predicate", ())
    assert list(schema.steps(CONFIG, FIELDS, found())) == []


def strict(**changes: Any) -> dict[str, Any]:
    made = {**schema.strict_mode(CONFIG).model_dump(exclude_none=True), **changes}
    return {"strict_mode_config": models.StrictModeConfigOutput(**made)}


@pytest.mark.parametrize(
    ("changes", "rule", "grade"),
    [
        ({"strict_mode_config": None}, "QD004", "none"),
        (strict(enabled=False), "QD004", "none"),
        (strict(search_allow_exact=True), "QD005", "none"),
        (strict(search_allow_exact=None), "QD005", "none"),
        (strict(unindexed_filtering_retrieve=True), "QD006", "predicate"),
        (strict(unindexed_filtering_update=None), "QD006", "predicate"),
    ],
)
def test_strict_mode(changes: dict[str, Any], rule: str, grade: str) -> None:
    posture = judge(CONFIG, FIELDS, found(**changes), untagged=False, server="1.19.0")
    assert (rules_of(posture), posture.grade) == ({rule}, grade)
    (step,) = schema.steps(CONFIG, FIELDS, found(**changes))
    assert isinstance(step, schema.UpdateCollection)


def test_a_graph_over_all_tenants() -> None:
    info = found()
    hnsw = info.config.hnsw_config.model_copy(update={"m": 16})
    posture = judge(CONFIG, FIELDS, found(hnsw_config=hnsw), untagged=False, server="1.19.0")
    assert (rules_of(posture), posture.grade) == ({"QD003"}, "none")


@pytest.mark.parametrize("how", ["missing", "another type", "not a tenant's"])
def test_the_tenants_index(how: str) -> None:
    info = found()
    indexes = dict(info.payload_schema)
    if how == "missing":
        del indexes["group_id"]
    else:
        params: Any = models.KeywordIndexParams(type="keyword") if how == "not a tenant's" else None
        kind = "keyword" if params else "integer"
        indexes["group_id"] = models.PayloadIndexInfo(data_type=kind, params=params, points=0)
    info = info.model_copy(update={"payload_schema": indexes})
    posture = judge(CONFIG, FIELDS, info, untagged=False, server="1.19.0")
    assert (rules_of(posture), posture.grade) == ({"QD002"}, "none")
    (step,) = schema.steps(CONFIG, FIELDS, info)
    assert isinstance(step, schema.CreateIndex)
    assert step.key == "group_id"


def test_a_collection_from_before_the_marks_had_an_index_is_provisioned_again() -> None:
    info = found()
    indexes = {key: one for key, one in info.payload_schema.items() if key != "pending"}
    info = info.model_copy(update={"payload_schema": indexes})
    posture = judge(CONFIG, FIELDS, info, untagged=False, server="1.19.0")
    assert (rules_of(posture), posture.grade) == ({"QD018"}, "none")
    (step,) = schema.steps(CONFIG, FIELDS, info)
    assert isinstance(step, schema.CreateIndex)
    assert step.key == "pending"


def test_another_index_that_is_missing() -> None:
    info = found()
    indexes = {key: one for key, one in info.payload_schema.items() if key != "fields.num_year"}
    posture = judge(
        CONFIG, FIELDS, info.model_copy(update={"payload_schema": indexes}), untagged=False, server="1.19.0"
    )
    assert (rules_of(posture), posture.grade) == ({"QD007"}, "predicate")
    assert posture.findings[0].subject.endswith("fields.num_year")


def test_other_findings() -> None:
    assert rules_of(judge(CONFIG, FIELDS, None, untagged=None)) == {"QD001"}
    assert rules_of(judge(CONFIG, FIELDS, found(), untagged=True, server="1.19.0")) == {"QD009"}
    assert rules_of(judge(CONFIG, FIELDS, found(), untagged=None, server="1.19.0")) == {"QD010"}
    other = CONFIG.model_copy(update={"dimension": 9})
    assert rules_of(judge(other, FIELDS, found(), untagged=False, server="1.19.0")) == {"QD008"}
    plain = CONFIG.model_copy(update={"url": "http://qdrant.example"})
    assert rules_of(judge(plain, FIELDS, found(), untagged=False, server="1.19.0")) == {"QD012"}
    here = CONFIG.model_copy(update={"url": "http://localhost:6333"})
    assert rules_of(judge(here, FIELDS, found(), untagged=False, server="1.19.0")) == set()


@pytest.mark.parametrize(
    ("settings", "modifier", "server", "rules", "grade"),
    [
        ({}, "idf", "1.19.0", set(), "predicate"),
        ({}, "idf", "1.21.3-dev", set(), "predicate"),
        ({}, "idf", "2.0.0", set(), "predicate"),
        ({}, "idf", "1.18.3", {"QD015"}, "none"),
        ({}, "idf", None, {"QD013", "QD015"}, "none"),
        ({}, "idf", "1.15.5", {"QD013", "QD015"}, "none"),
        ({}, "none", "1.18.3", {"QD016"}, "predicate"),
        ({"idf": False}, "none", "1.16.0", set(), "predicate"),
        ({"idf": False}, "none", "1.9.0", {"QD013"}, "none"),
        ({"idf": False}, "idf", "1.19.0", {"QD015"}, "none"),
        ({}, None, "1.19.0", {"QD014"}, "predicate"),
        ({"words": False}, None, "1.16.0", set(), "predicate"),
        ({"words": False}, "idf", "1.16.0", set(), "predicate"),
        ({"tiers": True}, "idf", "1.19.0", {"QD017"}, "none"),
        ({"vector": "text"}, "idf", "1.19.0", {"QD008"}, "none"),
    ],
)
def test_words_and_versions(
    settings: dict[str, Any], modifier: str | None, server: str | None, rules: set[str], grade: str
) -> None:
    info = found()
    sparse = None if modifier is None else {"words": models.SparseVectorParams(modifier=models.Modifier(modifier))}
    params = info.config.params.model_copy(update={"sparse_vectors": sparse})
    config = CONFIG.model_copy(update=settings)
    posture = judge(config, FIELDS, found(params=params), untagged=False, server=server)
    assert (rules_of(posture), posture.grade) == (rules, grade)
    steps = [type(one) for one in schema.steps(config, FIELDS, found(params=params))]
    wanted = {"QD014": schema.CreateWords, "QD016": schema.UpdateWords}
    expected = [wanted[rule] for rule in rules if rule in wanted]
    if settings == {"idf": False} and modifier == "idf":
        expected = [schema.UpdateWords]
    assert steps == expected


def test_a_collection_with_shards_of_its_own_needs_tiers() -> None:
    info = found()
    params = info.config.params.model_copy(update={"sharding_method": models.ShardingMethod.CUSTOM})
    posture = judge(CONFIG, FIELDS, found(params=params), untagged=False, server="1.19.0")
    assert (rules_of(posture), posture.grade) == ({"QD017"}, "none")
    tiers = CONFIG.model_copy(update={"tiers": True})
    assert judge(tiers, FIELDS, found(params=params), untagged=False, server="1.19.0").findings == ()


def test_every_rule_has_its_own_id_and_says_why() -> None:
    rules = vectoracl_rules()
    assert len({one.id for one in rules}) == len(rules) == 20
    assert all(one.explanation.endswith(".") for one in rules)


def test_the_plan_is_what_an_operator_can_send(store: Provisioned) -> None:
    text = "\n".join(schema.text_of(step) for step in schema.steps(CONFIG, FIELDS, None))
    assert text.startswith("PUT /collections/vectoracl\n")
    for part in ('"search_allow_exact":false', '"m":0', '"payload_m":16', '"is_tenant":true', '"fields.kws_tags"'):
        assert part in text
    with v.connect(store.config) as acl:
        operator = acl.operator()
        assert operator.plan() == "# Everything is in place.\n"
        assert operator.provision() == ["everything is in place"]
        with pytest.raises(v.RefusedError):
            operator.promote("acme")
        operator.close()


def test_a_store_that_was_not_provisioned_is_refused(tmp_path: Path) -> None:
    config = {"adapter": "qdrant", "path": str(tmp_path / "points"), "dimension": 8, "collection": "other"}
    with v.VectorACL({"version": 1, "stores": {"main": config}}) as acl:
        with pytest.raises(v.PostureError) as error:
            acl.scoped(ALICE).count()
        assert [one.rule.id for one in error.value.findings] == ["QD001"]


def test_a_store_in_memory_needs_no_provisioning() -> None:
    """Nobody else could provision it: each VectorACL has one, or those that give it the same name."""
    settings: dict[str, Any] = {"adapter": "qdrant", "memory": True, "dimension": 8}
    chunk = v.Chunk("c", "d", "text", np.ones(8))
    with v.connect({"version": 1, "stores": {"main": settings}}) as acl:
        acl.scoped(ALICE).upsert([chunk])
        assert [hit.id for hit in acl.scoped(ALICE).search(np.ones(8), 5)] == ["c"]
        operator = acl.operator()
        assert operator.provision() == ["everything is in place"]
        assert [one.tenant for one in operator.tenants()] == [ALICE.tenant]
        operator.close()
    named = {"version": 1, "stores": {"main": {**settings, "name": "self-made"}}}

    async def counted() -> int:
        async with v.aconnect(named) as here:
            await here.scoped(ALICE).upsert([chunk])
            return await here.scoped(ALICE).count()

    with v.VectorACL(dict(named)) as first:  # an operator's copy of the configuration comes first
        operator = first.operator()
        assert operator.tenants() == []
        assert asyncio.run(counted()) == 1
        assert first.scoped(ALICE).count() == 1
        assert [one.rows for one in operator.tenants()] == [1]
        operator.close()


def test_a_removed_tenant_leaves_nothing_in_the_collection(store: Provisioned) -> None:
    """Its chunks, those that a writer left in the middle, and the heads of its documents; and no other tenant's."""
    with v.connect(store.config) as acl:
        docs, others = acl.scoped(ALICE), acl.scoped(OTHER)
        for handle in (docs, others):
            handle.replace("d", [v.Chunk("c", "d", "text", np.ones(8))])
            handle.replace("d", [v.Chunk("c", "d", "text", np.ones(8))])
        before = [one for one in raw(store) if OTHER.tenant in repr(one)]
        operator = acl.operator()
        assert operator.remove("nemo") == []
        assert operator.remove(ALICE.tenant) == [f"removed the chunks of the tenant {ALICE.tenant}"]
        assert operator.remove(ALICE.tenant) == []
        assert [one.tenant for one in operator.tenants()] == [OTHER.tenant]
        assert raw(store) == before, "nothing is left of it, and all of the other"
        docs.upsert([v.Chunk("e", "d", "again", np.ones(8))])
        assert [(hit.id, hit.tag.generation) for hit in docs.scan()] == [("e", 0)], "a later write makes it again"
        assert operator.remove(ALICE.tenant)
        assert raw(store) == before
        operator.close()


def raw(store: Provisioned) -> list[Any]:
    found = store.client.scroll(store.collection, limit=1000, with_payload=True)[0]
    return sorted(({"id": str(one.id), **(one.payload or {})} for one in found), key=repr)


def test_a_point_without_a_tenant_is_noticed_at_start(store: Provisioned) -> None:
    store.client.upsert(store.collection, [models.PointStruct(id=1, vector=[1.0] * 8, payload={})], wait=True)
    with v.VectorACL(store.config) as acl, pytest.raises(v.PostureError) as error:
        acl.scoped(ALICE).count()
    assert [one.rule.id for one in error.value.findings] == ["QD009"]


@pytest.mark.skipif(bool(URL), reason="local mode only")
def test_local_mode_says_what_it_cannot_enforce(store: Provisioned) -> None:
    with v.connect(store.config) as acl:
        (posture,) = acl.check().values()
    assert posture.grade == "predicate"
    assert rules_of(posture) == {"QD011"}


def test_the_run_that_provisions_a_folder_writes_ahead(tmp_path: Path) -> None:
    """The client opens the file when the collection is made, after the folder: that one needs the setting, too."""
    own = {"adapter": "qdrant", "path": str(tmp_path / "points"), "dimension": 2}
    with v.VectorACL({"version": 1, "stores": {"main": own}}) as acl:
        operator = acl.operator()
        operator.provision()
        (file,) = tmp_path.rglob("*.sqlite")
        with sqlite3.connect(file) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()
        operator.close()


def test_a_folder_keeps_its_points_and_belongs_to_one_process(tmp_path: Any) -> None:
    own = {"adapter": "qdrant", "path": str(tmp_path / "points"), "dimension": 2}
    config = {"version": 1, "stores": {"main": own}}
    with v.VectorACL(config) as acl:
        operator = acl.operator()
        operator.provision()
        operator.close()
    with v.connect(config) as acl, v.connect(config) as again:
        acl.scoped(ALICE).upsert([v.Chunk("c", "d", "kept", [1.0, 0.0])])
        assert again.scoped(ALICE).count() == 1
    with v.connect(config) as acl:
        assert [hit.text for hit in acl.scoped(ALICE).scan()] == ["kept"]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"memory": True, "path": "x"},
        {"path": "x", "api_key": "secret"},
        {"path": "x", "name": "n"},
        {"url": "http://x", "collection": "a/b"},
        {"memory": True, "payload": {"tenant": "a.b"}},
        {"memory": True, "payload": {"tenant": "document"}},
    ],
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(v.ConfigError) as error, v.connect({"version": 1, "stores": {"m": {"adapter": "qdrant", "dimension": 2, **wrong}}}):  # fmt: skip  # noqa: E501
        pass
    assert "secret" not in str(error.value)


def test_an_old_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "installed_version", lambda _: "1.19.0")
    with pytest.raises(v.ConfigError, match="is the oldest"):
        v.connect({"version": 1, "stores": {"m": {"adapter": "qdrant", "dimension": 2, "memory": True}}})


class Rpc(grpc.RpcError):  # type: ignore[misc]
    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__("a secret filter")
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


def http(status: int) -> UnexpectedResponse:
    said = b'{"status": {"error": "a secret filter"}, "time": 0.0}'
    return UnexpectedResponse(status, "x", said, httpx.Headers())


@pytest.mark.parametrize(
    ("error", "code", "sent", "retryable"),
    [
        (http(400), "rejected", "no", False),
        (http(401), "unauthorized", "no", False),
        (http(403), "unauthorized", "no", False),
        (http(404), "not_provisioned", "no", False),
        (http(413), "rejected", "no", False),
        (http(429), "rate_limited", "no", True),
        (http(500), "unavailable", "unknown", True),
        (http(504), "timeout", "unknown", False),
        (ResourceExhaustedResponse("x", 3), "rate_limited", "no", True),
        (ResponseHandlingException(httpx.ConnectError("x")), "unavailable", "no", True),
        (ResponseHandlingException(httpx.ReadTimeout("x")), "timeout", "unknown", False),
        (ResponseHandlingException(httpx.ReadError("x")), "unavailable", "unknown", True),
        (Rpc(grpc.StatusCode.INVALID_ARGUMENT), "rejected", "no", False),
        (Rpc(grpc.StatusCode.PERMISSION_DENIED), "unauthorized", "no", False),
        (Rpc(grpc.StatusCode.NOT_FOUND), "not_provisioned", "no", False),
        (Rpc(grpc.StatusCode.DEADLINE_EXCEEDED), "timeout", "unknown", False),
        (Rpc(grpc.StatusCode.UNAVAILABLE), "unavailable", "unknown", True),
        (Rpc(grpc.StatusCode.RESOURCE_EXHAUSTED), "rate_limited", "no", True),
        (ValueError("a secret filter"), "rejected", "no", False),
        (TimeoutError(), "timeout", "unknown", False),
        (KeyError("a secret filter"), "client", "unknown", False),
    ],
)
def test_the_clients_errors_are_ours(error: Exception, code: str, sent: str, retryable: bool) -> None:
    made = mapped(error, write=True, debug=False)
    assert isinstance(made, v.StoreError)
    assert (made.code, made.sent, made.retryable, made.__cause__) == (code, sent, retryable, None)
    assert "secret" not in str(made)
    assert mapped(error, write=True, debug=True).__cause__ is error


def test_a_server_that_is_not_there() -> None:
    config = {
        "version": 1,
        "stores": {"m": {"adapter": "qdrant", "dimension": 2, "url": "http://127.0.0.1:9", "api_key": "hidden"}},
    }
    with v.VectorACL(config) as acl, pytest.raises(v.StoreError) as error:
        acl.scoped(ALICE).count()
    assert error.value.code == "unreachable"
    assert "hidden" not in str(error.value)


@NEEDS_SERVER
def test_the_server_itself_refuses_a_vector_query_without_a_tenant(store: Provisioned) -> None:
    with v.connect(store.config) as acl:
        acl.scoped(ALICE).upsert([v.Chunk("c", "d", "", [1.0] * 8)])
        assert len(acl.scoped(ALICE).search([1.0] * 8, 5)) == 1
    with pytest.raises(UnexpectedResponse):
        store.client.query_points(store.collection, query=[1.0] * 8)


@NEEDS_SERVER
def test_the_server_takes_every_step_and_provisioning_ends() -> None:
    store = make(metadata={"year": "number", "when": "datetime", "ok": "boolean", "tags": "keyword[]"})
    store.client.update_collection(store.collection, strict_mode_config=models.StrictModeConfig(enabled=False))
    with v.VectorACL(store.config) as acl:
        assert "QD004" in rules_of(next(iter(acl.check().values())))
        operator = acl.operator()
        operator.provision()
        assert operator.plan() == "# Everything is in place.\n"
        operator.close()
        assert rules_of(next(iter(acl.check().values()))) <= {"QD012"}
    store.close()


@pytest.mark.parametrize("name", ["gone\u3164", "a*b"])
def test_a_tenant_whose_id_is_refused_now_is_listed_and_removed(
    store: Provisioned, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A former version took it. It is neither read nor written any more, and nothing else is done to it."""
    chunk = v.Chunk("c", "d", "text", np.ones(8))
    with v.connect(store.config) as acl:
        with monkeypatch.context() as patch:
            patch.setattr("vectoracl.model.identifiers._strict_problem", lambda *_: None)
            acl.scoped(v.Principal("u", name, authenticated_by="test")).upsert([chunk])
        acl.scoped(OTHER).upsert([chunk])
        operator = acl.operator()
        assert {one.tenant: one.rows for one in operator.tenants()} == {name: 1, OTHER.tenant: 1}
        with pytest.raises(v.InvalidTenantError):
            operator.remove("never*was")
        assert operator.remove(name) == [f"removed the chunks of the tenant {name}"]
        assert [one.tenant for one in operator.tenants()] == [OTHER.tenant]
        assert acl.scoped(OTHER).count() == 1
        with pytest.raises(v.InvalidTenantError):
            operator.remove(name)  # it is there no more
        operator.close()
