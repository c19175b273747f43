"""The posture check: what the collection's isolation really is. A flow that reads, and a pure judgement.

The grade is "engine" where the collection is multi-tenant and creates and wakes no tenant by itself, "credential"
where also every key reaches its own tenant alone, else "none".
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
"""How many tenants' keys are looked at: a start costs the same however many tenants there are."""
_HARMLESS = frozenset({"read_collections", "read_tenants", "read_nodes", "read_cluster"})
_OF_TENANT = frozenset({"create_data", "read_data", "update_data", "delete_data", "read_tenants"})


@dataclass(frozen=True, slots=True)
class Looked:
    """What was read: the collection, the server, and whose rights (None is the process's own key)."""

    found: Mapping[str, Any] | None
    about: Mapping[str, Any]
    rights: Mapping[str | None, Mapping[str, Any] | None]
    stale: Sequence[str] = ()
    keys: int = 0


def look(
    config: WeaviateConfig, fields: Mapping[str, FieldType], learn: Callable[[int], None] = lambda _: None
) -> Flow[Posture]:
    """Read the collection's configuration and the rights of keys; changes nothing, touches no objects.

    *learn* is told how many replicas each tenant has.
    """
    found = yield from Describe()
    learn(schema.replicas(found))
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
    return judge(config, fields, Looked(found, about, rights, tuple(stale), len(names)))


def judge(config: WeaviateConfig, fields: Mapping[str, FieldType], looked: Looked) -> Posture:
    """Judge what was read."""
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
        facts.append(("tenants' keys", f"{looked.keys}, of which {len(looked.rights) - 1} were looked at"))
    kept = None if looked.found is None else store_notes.embedder_of(schema.kept(looked.found))
    return Posture(grade, findings, tuple(facts), embedder=kept)


def _findings(config: WeaviateConfig, fields: Mapping[str, FieldType], looked: Looked) -> Iterator[Finding]:
    name = config.collection
    if looked.found is None:
        yield Finding(rules.MISSING, name, "there is no such collection", _PROVISION)
    else:
        yield from _tenancy(name, looked.found)
        yield from _properties(config, fields, looked.found)
        yield from _vector(config, looked.found)
        yield from _replicas(config, looked.found)
        stopwords = (looked.found.get("invertedIndexConfig") or {}).get("stopwords") or {}
        if stopwords.get("preset") not in (None, "none") or stopwords.get("additions"):
            fix = f'PUT /v1/schema/{name} with invertedIndexConfig.stopwords = {{"preset": "none"}}'
            yield Finding(rules.STOPWORDS, name, "a list of stop words applies", fix)
    found = re.match(r"(\d+)\.(\d+)", str(looked.about.get("version", "")))
    if found is None or tuple(int(one) for one in found.groups()) < _OLDEST:
        said = str(looked.about.get("version", "unknown"))
        yield Finding(rules.VERSION, "server", f"its version is {said}", "upgrade the server")
    if config.tenant_keys is not None:
        yield from _rights(config, looked)
    elif config.api_key is None:
        yield Finding(rules.ANONYMOUS, config.grpc_target, "no api_key is configured", 'set api_key = { env = "…" }')
    if not config.secure and urlsplit(config.url).hostname not in _HERE:
        message = "the address is http and not of this machine"
        yield Finding(rules.PLAIN, config.grpc_target, message, 'set url = "https://…"')


def _tenancy(name: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    tenancy = found.get("multiTenancyConfig") or {}
    if tenancy.get("enabled") is not True:
        fix = f"name another collection, provision it, and copy this one in: vectoracl provision --adopt {name}"
        yield Finding(rules.NO_TENANCY, name, "multi-tenancy is not enabled", fix)
        return
    if tenancy.get("autoTenantCreation"):
        yield Finding(rules.AUTO_CREATION, name, "autoTenantCreation is on", _PROVISION)
    if tenancy.get("autoTenantActivation"):
        yield Finding(rules.AUTO_ACTIVATION, name, "autoTenantActivation is on", _PROVISION)


def _properties(config: WeaviateConfig, fields: Mapping[str, FieldType], found: Mapping[str, Any]) -> Iterator[Finding]:
    there = {one["name"]: one for one in found.get("properties") or ()}
    for name, wanted in schema.properties(config, fields).items():
        subject, has = f"{config.collection}.{name}", there.get(name)
        if has is None:
            parts = ["there is no such property", schema.other_type(name, fields, found)]
            yield Finding(rules.PROPERTY, subject, "; ".join(filter(None, parts)), _PROVISION)
            continue
        message = schema.misfit(wanted, has)
        if message is not None:
            rule = rules.TOKENS if "tokenization" in message and wanted["indexFilterable"] else rules.PROPERTY
            yield Finding(rule, subject, message, "name another collection and provision it")


def _vector(config: WeaviateConfig, found: Mapping[str, Any]) -> Iterator[Finding]:
    has = (found.get("vectorConfig") or {}).get(config.vector)
    subject = f"{config.collection}.{config.vector}"
    wanted = schema.vector_index(config)
    message = schema.other_vectors(config, found)
    if message is not None:
        fix = "configure what it holds, or name another collection, provision it and copy there (vectoracl copy)"
        yield Finding(rules.VECTOR, subject, message, fix)
    if has is None:
        return
    if schema.compressed(config, found):
        yield Finding(rules.COMPRESSED, subject, "its vectors are compressed", "accept it, or provision another")
    if has.get("vectorIndexType") != wanted["vectorIndexType"]:
        message = f"the index is {has.get('vectorIndexType')}, not {config.index}"
        rule = rules.VECTOR if config.index == "flat" else rules.INDEX
        yield Finding(rule, subject, message, f'set index = "{has.get("vectorIndexType")}", or provision another')


def _replicas(config: WeaviateConfig, found: Mapping[str, Any]) -> Iterator[Finding]:
    there, wanted = schema.replicas(found), config.replication_factor
    if wanted is not None and there != wanted:
        fix = f"set replication_factor = {there}, or move the collection's replicas on the server"
        yield Finding(rules.REPLICAS, config.collection, f"each tenant is kept by {there} nodes, not {wanted}", fix)
    elif wanted is None and there > 1:
        fix = f"set replication_factor = {there}"
        yield Finding(rules.REPLICAS, config.collection, f"each tenant is kept by {there} nodes", fix)


def _rights(config: WeaviateConfig, looked: Looked) -> Iterator[Finding]:
    fix = "vectoracl provision"
    for name in looked.stale:
        message = "the server does not take it"
        mend = "take its line out of the file of tenant_keys, then vectoracl provision"
        yield Finding(rules.STALE_KEY, f"the key of {name}", message, mend)
    for tenant, held in looked.rights.items():
        subject = "api_key" if tenant is None else f"the key of {tenant}"
        rule = rules.OWN_RIGHTS if tenant is None else rules.TENANT_RIGHTS
        if held is None or held.get("roles") is None:
            yield Finding(
                rules.KEYS_UNUSED, subject, "the server knows no roles of it", "set AUTHORIZATION_RBAC_ENABLED"
            )
            continue
        problem = _reaches(config.collection, tenant, held)
        if problem:
            yield Finding(rule, subject, problem, fix)


def _reaches(collection: str, tenant: str | None, held: Mapping[str, Any]) -> str:
    """Say what *held* may do beyond its tenant (None: beyond nothing); empty where there is nothing."""
    for role in held.get("roles") or ():
        for one in role.get("permissions") or ():
            action = str(one.get("action", ""))
            if tenant is not None and action in _OF_TENANT:
                place = one.get("data") or one.get("tenants") or {}
                if (place.get("collection"), place.get("tenant")) == (collection, tenant):
                    continue
            if action == "read_tenants" and tenant is not None:
                return "it may list tenants of its own accord"
            if action in _HARMLESS:
                continue
            return f"its role {role.get('name', '?')!r} permits {action or 'something unknown'} beyond it"
    return ""
