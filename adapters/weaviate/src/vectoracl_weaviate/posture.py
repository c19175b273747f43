"""The posture check: a flow that reads the collection's configuration, and a pure function that judges it.

The grade is "engine" if the collection is multi-tenant and does not create or activate tenants automatically,
"credential" if in addition every key reaches only its own tenant; otherwise it is "none".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlsplit

from vectoracl.adapter_api import store_notes
from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.posture import Finding, Posture
from vectoracl.errors import StoreError
from vectoracl.filters.field_types import FieldType
from vectoracl_weaviate import rules, schema
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.requests import About, Describe, Keys, Rights

_PROVISION = "vectoracl provision"
_HERE: Final = ("localhost", "127.0.0.1", "::1")
_OLDEST = (1, 36)
_LOOKED_AT = 1
"""The number of tenants' keys to check: the cost of a start does not depend on the number of tenants."""
_HARMLESS = frozenset({"read_collections", "read_tenants", "read_nodes", "read_cluster"})
_OF_TENANT = frozenset({"create_data", "read_data", "update_data", "delete_data", "read_tenants"})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The result of reading: the collection, the server, and the rights by tenant (None: the process's own key)."""

    found: Mapping[str, Any] | None
    about: Mapping[str, Any]
    rights: Mapping[str | None, Mapping[str, Any] | None]
    stale: Sequence[str] = ()
    keys: int = 0


def look(
    config: WeaviateConfig, fields: Mapping[str, FieldType], learn: Callable[[int], None] = lambda _: None
) -> Flow[Posture]:
    """Read the collection's configuration and the rights of keys; changes nothing, and reads no objects.

    *learn* is called with the number of replicas of each tenant.
    """
    collection = yield from Describe()
    learn(schema.replicas(collection))
    about = yield from About()
    rights: dict[str | None, Mapping[str, Any] | None] = {}
    names: Sequence[str] = ()
    stale: list[str] = []
    if config.tenant_keys is not None:
        names = yield from Keys()
        rights[None] = yield from Rights(None)
        step = max(1, len(names) // _LOOKED_AT)
        for name in names[::step][:_LOOKED_AT]:
            try:
                rights[name] = yield from Rights(name)
            except StoreError as error:
                if error.code != "unauthorized":
                    raise
                stale.append(name)
    return judge(config, fields, Snapshot(collection, about, rights, tuple(stale), len(names)))


def judge(config: WeaviateConfig, fields: Mapping[str, FieldType], looked: Snapshot) -> Posture:
    """Judge the configuration that was read."""
    findings = tuple(_findings(config, fields, looked))
    lowering = {one.rule.id for one in findings if one.rule.lowers}
    if not lowering:
        grade = "engine" if config.tenant_keys is None else "credential"
    elif lowering <= {rules.OWN_RIGHTS.id, rules.TENANT_RIGHTS.id, rules.KEYS_UNUSED.id}:
        grade = "engine"
    else:
        grade = "none"
    facts = [
        ("collection", config.collection),
        ("server", f"Weaviate {looked.about.get('version', '?')}"),
        ("client", f"weaviate-client {version('weaviate-client')}"),
    ]
    if config.tenant_keys is not None:
        facts.append(("tenants' keys", f"{looked.keys}, {len(looked.rights) - 1} of them checked"))
    embedder = None if looked.found is None else store_notes.embedder_of(schema.kept(looked.found))
    registry = None if looked.found is None else schema.kept_registry(looked.found)
    return Posture(grade, findings, tuple(facts), embedder=embedder, registry=registry)


def _findings(config: WeaviateConfig, fields: Mapping[str, FieldType], looked: Snapshot) -> Iterator[Finding]:
    name = config.collection
    if looked.found is None:
        yield Finding(rules.MISSING, name, "the collection does not exist", _PROVISION)
    else:
        yield from _tenancy(name, looked.found)
        yield from _properties(config, fields, looked.found)
        yield from _vector(config, looked.found)
        yield from _replicas(config, looked.found)
        stopwords = (looked.found.get("invertedIndexConfig") or {}).get("stopwords") or {}
        if stopwords.get("preset") not in (None, "none") or stopwords.get("additions"):
            fix = f'PUT /v1/schema/{name} with invertedIndexConfig.stopwords = {{"preset": "none"}}'
            yield Finding(rules.STOPWORDS, name, "it has a list of stop words", fix)
    match = re.match(r"(\d+)\.(\d+)", str(looked.about.get("version", "")))
    if match is None or tuple(int(one) for one in match.groups()) < _OLDEST:
        reported = str(looked.about.get("version", "unknown"))
        yield Finding(rules.VERSION, "server", f"its version is {reported}", "upgrade the server")
    if config.tenant_keys is not None:
        yield from _rights(config, looked)
    elif config.api_key is None:
        yield Finding(rules.ANONYMOUS, config.grpc_target, "no api_key is configured", 'set api_key = { env = "…" }')
    if not config.secure and urlsplit(config.url).hostname not in _HERE:
        message = "the address is http, and not on this machine"
        yield Finding(rules.PLAIN, config.grpc_target, message, 'set url = "https://…"')


def _tenancy(name: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    tenancy = found.get("multiTenancyConfig") or {}
    if tenancy.get("enabled") is not True:
        fix = f"name another collection, provision it, and import this one: vectoracl provision --adopt {name}"
        yield Finding(rules.NO_TENANCY, name, "multi-tenancy is not enabled", fix)
        return
    if tenancy.get("autoTenantCreation"):
        yield Finding(rules.AUTO_CREATION, name, "autoTenantCreation is on", _PROVISION)
    if tenancy.get("autoTenantActivation"):
        yield Finding(rules.AUTO_ACTIVATION, name, "autoTenantActivation is on", _PROVISION)


def _properties(config: WeaviateConfig, fields: Mapping[str, FieldType], found: Mapping[str, Any]) -> Iterator[Finding]:
    there = {one["name"]: one for one in found.get("properties") or ()}
    for name, settings in schema.properties(config, fields).items():
        subject, has = f"{config.collection}.{name}", there.get(name)
        if has is None:
            parts = ["the property does not exist", schema.other_type(name, fields, found)]
            yield Finding(rules.PROPERTY, subject, "; ".join(filter(None, parts)), _PROVISION)
            continue
        message = schema.misfit(settings, has)
        if message is not None:
            rule = rules.TOKENS if "tokenization" in message and settings["indexFilterable"] else rules.PROPERTY
            yield Finding(rule, subject, message, "name another collection and provision it")


def _vector(config: WeaviateConfig, found: Mapping[str, Any]) -> Iterator[Finding]:
    has = (found.get("vectorConfig") or {}).get(config.vector)
    subject = f"{config.collection}.{config.vector}"
    index = schema.vector_index(config)
    message = schema.other_vectors(config, found)
    if message is not None:
        fix = (
            "configure the vectors that it holds, or name another collection, provision it, and copy the chunks "
            "(vectoracl copy)"
        )
        yield Finding(rules.VECTOR, subject, message, fix)
    if has is None:
        return
    if schema.compressed(config, found):
        fix = "keep it, or provision another collection"
        yield Finding(rules.COMPRESSED, subject, "its vectors are compressed", fix)
    if has.get("vectorIndexType") != index["vectorIndexType"]:
        message = f"the index is {has.get('vectorIndexType')}, not {config.index}"
        rule = rules.VECTOR if config.index == "flat" else rules.INDEX
        fix = f'set index = "{has.get("vectorIndexType")}", or provision another collection'
        yield Finding(rule, subject, message, fix)


def _replicas(config: WeaviateConfig, found: Mapping[str, Any]) -> Iterator[Finding]:
    there, factor = schema.replicas(found), config.replication_factor
    if factor is not None and there != factor:
        fix = f"set replication_factor = {there}, or change the collection's replicas on the server"
        yield Finding(rules.REPLICAS, config.collection, f"each tenant is on {there} nodes, not {factor}", fix)
    elif factor is None and there > 1:
        fix = f"set replication_factor = {there}"
        yield Finding(rules.REPLICAS, config.collection, f"each tenant is on {there} nodes", fix)


def _rights(config: WeaviateConfig, looked: Snapshot) -> Iterator[Finding]:
    fix = "vectoracl provision"
    for name in looked.stale:
        message = "the server does not accept it"
        removal = "remove its line from the file of tenant_keys, then vectoracl provision"
        yield Finding(rules.STALE_KEY, f"the key of {name}", message, removal)
    for tenant, held in looked.rights.items():
        subject = "api_key" if tenant is None else f"the key of {tenant}"
        rule = rules.OWN_RIGHTS if tenant is None else rules.TENANT_RIGHTS
        if held is None or held.get("roles") is None:
            yield Finding(
                rules.KEYS_UNUSED, subject, "the server has no roles for it", "set AUTHORIZATION_RBAC_ENABLED"
            )
            continue
        problem = _reaches(config.collection, tenant, held)
        if problem:
            yield Finding(rule, subject, problem, fix)


def _reaches(collection: str, tenant: str | None, held: Mapping[str, Any]) -> str:
    """Describe a permission of *held* that reaches beyond its tenant (None: that reaches any object); "" if none."""
    for role in held.get("roles") or ():
        for one in role.get("permissions") or ():
            action = str(one.get("action", ""))
            if tenant is not None and action in _OF_TENANT:
                place = one.get("data") or one.get("tenants") or {}
                if (place.get("collection"), place.get("tenant")) == (collection, tenant):
                    continue
            if action == "read_tenants" and tenant is not None:
                return "it may list tenants"
            if action in _HARMLESS:
                continue
            return f"its role {role.get('name', '?')!r} permits {action or 'an unknown action'} beyond it"
    return ""
