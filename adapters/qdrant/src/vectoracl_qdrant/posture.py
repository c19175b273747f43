"""The posture check: what the collection's isolation really is. A flow that reads, and a pure judgement.

The grade is "predicate" where the tripwire is in place or cannot be (local mode), else "none".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

from qdrant_client import models

from vectoracl.adapter import Flow
from vectoracl.errors import StoreError
from vectoracl.fields import FieldType
from vectoracl.findings import Finding, Posture, Rule
from vectoracl_qdrant import rules, schema
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.requests import Describe, Scroll

_PROVISION = "vectoracl provision"
_HERE: Final = ("localhost", "127.0.0.1", "::1")


def look(config: QdrantConfig, fields: Mapping[str, FieldType]) -> Flow[Posture]:
    """Read the collection's configuration, and look for one point without a tenant; changes nothing."""
    try:
        found = yield from Describe()
    except StoreError as error:
        if error.code != "not_provisioned":
            raise
        return judge(config, fields, None, untagged=None)
    untagged: bool | None = None
    if config.local or config.payload.tenant in found.payload_schema:
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=config.payload.tenant))
        try:
            page = yield from Scroll(None, models.Filter(must=[empty]), 1)
            untagged = bool(page.points)
        except StoreError as error:
            if error.code != "rejected":
                raise
    return judge(config, fields, found, untagged=untagged)


def judge(
    config: QdrantConfig,
    fields: Mapping[str, FieldType],
    found: models.CollectionInfo | None,
    *,
    untagged: bool | None,
) -> Posture:
    """Judge what was found (None: no collection); *untagged* is whether there is a point without a tenant."""
    findings = tuple(_findings(config, fields, found, untagged))
    grade = "none" if any(one.rule.lowers for one in findings) else "predicate"
    facts = [("collection", config.collection), ("client", f"qdrant-client {version('qdrant-client')}")]
    facts.append(("place", "local mode" if config.local else "server"))
    if found is not None:
        facts.append(("points", str(found.points_count)))
        facts.append(("indexes", str(len(found.payload_schema))))
    return Posture(grade, findings, tuple(facts))


def _findings(
    config: QdrantConfig,
    fields: Mapping[str, FieldType],
    found: models.CollectionInfo | None,
    untagged: bool | None,  # noqa: FBT001 - three-valued
) -> Iterator[Finding]:
    name = config.collection
    if found is None:
        yield _finding(rules.MISSING, name, "there is no such collection", _PROVISION)
    else:
        yield from _vectors(config, found)
        if not config.local:
            yield from _server(config, fields, found)
        if untagged:
            yield _finding(
                rules.UNTAGGED,
                name,
                f"at least one point has no {config.payload.tenant!r}",
                f"find it with a scroll by is_empty on {config.payload.tenant!r}, and delete it or give it a tenant",
            )
        elif untagged is None:
            yield _finding(rules.UNREAD, name, "the question was refused", _PROVISION)
    if config.local:
        yield _finding(
            rules.LOCAL,
            name,
            "local mode: no strict mode, no indexes, no credentials; only our filter keeps tenants apart",
            'run a server and set url = "https://…"',
        )
    elif config.url is not None and _plain(config.url):
        yield _finding(rules.PLAIN, name, "the address is http and not of this machine", 'set url = "https://…"')


def _vectors(config: QdrantConfig, found: models.CollectionInfo) -> Iterator[Finding]:
    has, wanted = found.config.params.vectors, schema.vectors(config)
    if not isinstance(has, models.VectorParams) or (has.size, has.distance) != (wanted.size, wanted.distance):
        message = f"it does not hold one vector of {wanted.size} numbers by {wanted.distance.value}"
        yield _finding(rules.VECTORS, config.collection, message, "name another collection and provision it")


def _server(config: QdrantConfig, fields: Mapping[str, FieldType], found: models.CollectionInfo) -> Iterator[Finding]:
    name, tenant = config.collection, config.payload.tenant
    wanted = schema.indexes(config, fields)
    there = found.payload_schema
    if tenant not in there or not schema.same_index(wanted[tenant], there[tenant]):
        yield _finding(
            rules.TENANT_INDEX, f"{name}.{tenant}", "there is no keyword index with is_tenant on it", _PROVISION
        )
    if found.config.hnsw_config.m != 0:
        yield _finding(rules.GLOBAL_GRAPH, name, f"m is {found.config.hnsw_config.m}", _PROVISION)
    strict = found.config.strict_mode_config
    if strict is None or strict.enabled is not True:
        yield _finding(rules.STRICT_OFF, name, "strict mode is off", _PROVISION)
    else:
        if strict.search_allow_exact is not False:
            yield _finding(rules.EXACT, name, "search_allow_exact is not false", _PROVISION)
        if strict.unindexed_filtering_retrieve is not False or strict.unindexed_filtering_update is not False:
            yield _finding(rules.UNINDEXED, name, "filters on keys without an index are allowed", _PROVISION)
    for key, params in wanted.items():
        if key != tenant and (key not in there or not schema.same_index(params, there[key])):
            yield _finding(rules.INDEX, f"{name}.{key}", f"there is no {params.type.value} index on it", _PROVISION)


def _finding(rule: Rule, subject: str, message: str, fix: str) -> Finding:
    return Finding(rule, subject, message, fix)


def _plain(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme != "https" and parts.hostname not in _HERE
