"""The posture on a real server: what is wrong is found, named, and mended by the line that the finding gives."""

from __future__ import annotations

from typing import Any

import pytest

import vectoracl as v
from vectoracl import Chunk
from vectoracl.errors import PostureError, RefusedError
from vectoracl.testing import principal
from vectoracl_weaviate import posture, rules, schema
from vectoracl_weaviate.config import WeaviateConfig

FIELDS = {"year": "number", "lang": "keyword"}


def found(config: Any) -> dict[str, Any]:
    with v.VectorACL(config) as acl:
        one = acl.check()["main"]
    return {"grade": one.grade, **{finding.rule.id: finding for finding in one.findings}}


def opens(config: Any) -> bool:
    try:
        with v.VectorACL(config) as acl:
            acl.open()
    except PostureError:
        return False
    return True


def keyless(store: Any) -> set[str]:
    """Return the finding of a process without a key: of a server at an address that was given."""
    return set() if store.running.key else {"WV011"}


def own(store: Any) -> WeaviateConfig:
    """Return the store's part of the configuration."""
    settings = store.config["stores"]["main"]
    return WeaviateConfig(**{key: one for key, one in settings.items() if key not in ("adapter", "metadata")})


def test_a_provisioned_collection(store):
    seen = found(store.config)
    assert seen["grade"] == "engine"
    assert set(seen) == {"grade", *keyless(store)}
    assert opens(store.config)
    assert not opens({**store.config, "minimum_grade": "credential"})


def test_a_collection_that_is_not_there(stores):
    store = stores(provision=False)
    assert set(found(store.config)) == {"grade", "WV001", *keyless(store)}
    assert not opens(store.config)
    store.ask("POST", "/v1/schema", {"class": store.collection})


@pytest.mark.parametrize(("setting", "rule"), [("autoTenantCreation", "WV003"), ("autoTenantActivation", "WV004")])
def test_what_creates_or_wakes_tenants_by_itself(store, setting, rule):
    store.schema(multiTenancyConfig={"enabled": True, setting: True})
    seen = found(store.config)
    assert seen["grade"] == "none"
    assert rule in seen
    assert not opens(store.config)
    with store.operator() as operator:
        assert "PUT /v1/schema" in operator.plan()
        operator.provision()
        assert operator.provision() == ["everything is in place"]
    assert opens(store.config)


def test_a_collection_without_tenants_is_refused_and_left_as_it_is(stores):
    store = stores(provision=False)
    config = WeaviateConfig(
        **{k: one for k, one in store.config["stores"]["main"].items() if k not in ("adapter", "metadata")}
    )
    body = schema.collection(config, {})
    store.ask("POST", "/v1/schema", {**body, "multiTenancyConfig": {"enabled": False}})
    seen = found(store.config)
    assert seen["grade"] == "none"
    assert "--adopt" in seen["WV002"].fix
    assert not opens(store.config)
    with store.operator() as operator, pytest.raises(RefusedError, match="not multi-tenant"):
        operator.provision()


@pytest.mark.parametrize(
    ("name", "changes", "rule"),
    [
        ("label", {"tokenization": "word"}, "WV006"),
        ("document", {"tokenization": "lowercase"}, "WV006"),
        ("m_kw_lang", {"tokenization": "trigram"}, "WV006"),
        ("m_num_year", {"dataType": ["text"], "tokenization": "field"}, "WV005"),
        ("m_num_year", {"dataType": ["int"]}, "WV005"),
        ("seek", {"indexFilterable": False}, "WV005"),
        ("present", None, "WV005"),
        ("content", {"indexSearchable": False}, "WV005"),
    ],
)
def test_a_property_that_compares_by_something_else(stores, name, changes, rule):
    store = stores(provision=False, metadata=FIELDS)
    config = WeaviateConfig(
        **{k: one for k, one in store.config["stores"]["main"].items() if k not in ("adapter", "metadata")}
    )
    body = schema.collection(config, v.filters.validation.check_fields(FIELDS))
    body["properties"] = [
        {**one, **changes} if one["name"] == name and changes else one
        for one in body["properties"]
        if one["name"] != name or changes is not None
    ]
    store.ask("POST", "/v1/schema", body)
    seen = found(store.config)
    assert seen["grade"] == "none"
    assert rule in seen
    assert name in seen[rule].subject
    assert not opens(store.config)


@pytest.mark.parametrize(
    ("settings", "rule", "lowers"),
    [
        ({"metric": "l2"}, "WV007", True),
        ({"vector": "other"}, "WV007", True),
        ({"index": "flat"}, "WV007", True),
    ],
)
def test_another_vector_than_the_configured_one(store, settings, rule, lowers):
    seen = found(store.with_(**settings))
    assert rule in seen
    assert (seen["grade"] == "none") is lowers
    assert not opens(store.with_(**settings))


def test_another_index_that_promises_no_less(stores):
    store = stores(index="flat")
    seen = found(store.with_(index="hnsw"))
    assert (seen["grade"], "WV008" in seen) == ("engine", True)
    assert opens(store.with_(index="hnsw"))


def test_dynamic_index_needs_a_server_that_indexes_asynchronously(stores):
    store = stores(provision=False)
    with (
        store.operator(index="dynamic", async_indexing=True) as operator,
        pytest.raises(RefusedError, match="ASYNC_INDEXING"),
    ):
        operator.provision()
    store.ask("POST", "/v1/schema", {"class": store.collection})


def test_provisioning_twice_changes_nothing(store):
    before = store.schema()
    with store.operator() as operator:
        assert operator.plan() == "# Everything is in place.\n"
        assert operator.provision() == ["everything is in place"]
    assert store.schema() == before


def test_an_object_that_somebody_else_wrote_is_noticed_when_it_is_read(store):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk("1", "d", "", [1.0] * 8)])
        body = {"tenant": "t_acme", "vectors": {"default": [1.0] * 8}, "properties": {"content": "untagged"}}
        store.ask("POST", "/v1/objects", {"class": store.collection, **body})
        assert [hit.id for hit in docs.search([1.0] * 8)] == ["1"]  # it does not name the tenant, and is not ranked
        with pytest.raises(v.StoreError, match="no complete tag"):
            list(docs.scan())


def test_a_tag_that_somebody_rewrote_is_a_violation(store):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk("1", "d", "", [1.0] * 8)])
        (one,) = store.ask("GET", f"/v1/objects?class={store.collection}&tenant=t_acme")["objects"]
        body = {"class": store.collection, "tenant": "t_acme", "properties": {"tenant": "|beta|"}}
        store.ask("PATCH", f"/v1/objects/{store.collection}/{one['id']}", body)
        assert not docs.search([1.0] * 8)  # it does not name the tenant any more, and is not ranked
        with pytest.raises(v.ScopeViolationError):
            list(docs.scan())


# --- judged without a server


def judged(changes: Any = None, about: Any = None, **settings: Any) -> set[str]:
    config = WeaviateConfig(url=settings.pop("url", "http://localhost"), dimension=2, **settings)
    body = schema.collection(config, {})
    looked = posture.Snapshot({**body, **(changes or {})}, about or {"version": "1.39.0"}, {})
    return {one.rule.id for one in posture.judge(config, {}, looked).findings}


def test_lines_versions_and_stop_words():
    assert judged() == {"WV011"}
    assert judged(url="http://elsewhere.example") == {"WV010", "WV011"}
    assert judged(url="https://elsewhere.example", api_key={"env": "K"}) == set()
    for version in ("1.35.9", "0.9", "", "unknown"):
        assert "WV015" in judged(about={"version": version})
    assert "WV009" in judged({"invertedIndexConfig": {"stopwords": {"preset": "en"}}})


def role(*permissions: Any) -> Any:
    return {"roles": [{"name": "r", "permissions": list(permissions)}]}


OWN = {"action": "read_data", "data": {"collection": "Vectoracl", "tenant": "t_acme"}}
CONFIG_ONLY = {"action": "read_collections", "collections": {"collection": "Vectoracl"}}


@pytest.mark.parametrize(
    ("own", "tenants", "expected"),
    [
        (role(CONFIG_ONLY), role(CONFIG_ONLY, OWN), set()),
        (role(CONFIG_ONLY, OWN), role(OWN), {"WV012"}),
        (role({"action": "manage_roles"}), role(OWN), {"WV012"}),
        (role({"action": "anything_new"}), role(OWN), {"WV012"}),
        (None, role(OWN), {"WV014"}),
        ({"roles": None}, role(OWN), {"WV014"}),
        (role(), role({**OWN, "data": {"collection": "Vectoracl", "tenant": "*"}}), {"WV013"}),
        (role(), role({**OWN, "data": {"collection": "Vectoracl", "tenant": "t_beta"}}), {"WV013"}),
        (role(), role({**OWN, "data": {"collection": "*", "tenant": "t_acme"}}), {"WV013"}),
        (role(), role({**OWN, "data": {"collection": "Vectoracl"}}), {"WV013"}),
        (role(), role(OWN, {"action": "assign_and_revoke_users"}), {"WV013"}),
        (role(), role({"action": "read_tenants", "tenants": {"collection": "Vectoracl", "tenant": "*"}}), {"WV013"}),
    ],
)
def test_what_keys_may_do(own, tenants, expected):
    config = WeaviateConfig(url="http://localhost", dimension=2, tenant_keys="keys.json")
    looked = posture.Snapshot(
        schema.collection(config, {}), {"version": "1.39.0"}, {None: own, "t_acme": tenants}, (), 1
    )
    made = posture.judge(config, {}, looked)
    assert {one.rule.id for one in made.findings} == expected
    assert made.grade == ("engine" if expected else "credential")


def test_the_rules_have_stable_ids():
    assert list(rules.RULES) == sorted(rules.RULES)
    assert all(rule.explanation and rule.title for rule in rules.RULES.values())
