"""The posture check: a flow that reads the collection's configuration, and a pure function that judges it.

The grade is "predicate" if strict mode is set up as required, or cannot be (local mode); otherwise it is "none".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

from qdrant_client import models

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.posture import Finding, Posture, Rule
from vectoracl.errors import StoreError
from vectoracl.filters.field_types import FieldType
from vectoracl_qdrant import rules, schema
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.requests import Describe, Scroll, Version

_PROVISION = "vectoracl provision"
OLDEST: Final = (1, 16)
"""The oldest server that supports `update_filter` and fallback shards."""
SCOPED_STATISTICS: Final = (1, 19)
"""The oldest server that computes the rarity of words over a corpus that the query names."""
_HERE: Final = ("localhost", "127.0.0.1", "::1")


def look(config: QdrantConfig, fields: Mapping[str, FieldType]) -> Flow[Posture]:
    """Read the collection's configuration, and look for one point without a tenant; changes nothing."""
    try:
        info = yield from Describe()
    except StoreError as error:
        if error.code != "not_provisioned":
            raise
        return judge(config, fields, None, untagged=None)
    server = None if config.local else (yield from Version())
    untagged: bool | None = None
    if config.local or config.payload.tenant in info.payload_schema:
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=config.payload.tenant))
        try:
            page = yield from Scroll(None, models.Filter(must=[empty]), 1)
            untagged = bool(page.points)
        except StoreError as error:
            if error.code != "rejected":
                raise
    held = yield from paths_held(config, fields, info)
    return judge(config, fields, info, untagged=untagged, server=server, held=held)


def paths_held(
    config: QdrantConfig, fields: Mapping[str, FieldType], found: models.CollectionInfo
) -> Flow[frozenset[str]]:
    """Return the paths at which points have values: from a server's indexes, in local mode from one such point."""
    if not config.local:
        return schema.indexed_paths(found)
    if not fields:
        return frozenset()
    page = yield from Scroll(None, schema.lies_otherwise(config, fields), 1, (config.payload.fields,))
    return frozenset().union(*(schema.paths_of(config, point.payload or {}) for point in page.points))


def judge(
    config: QdrantConfig,
    fields: Mapping[str, FieldType],
    found: models.CollectionInfo | None,
    *,
    untagged: bool | None,
    server: str | None = None,
    held: frozenset[str] = frozenset(),
) -> Posture:
    """Judge the configuration of the collection.

    Args:
        config: The store's configuration.
        fields: The declared metadata fields.
        found: The collection as it was read; None if it does not exist.
        untagged: Whether there is a point without a tenant; None if that could not be checked.
        server: The version that the server reports.
        held: The payload paths at which points have values of fields.
    """
    findings = (*_findings(config, fields, found, untagged, server), *_fields(config, fields, held))
    grade = "none" if any(one.rule.lowers for one in findings) else "predicate"
    facts = [("collection", config.collection), ("client", f"qdrant-client {version('qdrant-client')}")]
    facts.append(("place", "local mode" if config.local else f"server {server or '(unknown version)'}"))
    if found is not None:
        facts.append(("points", str(found.points_count)))
        facts.append(("indexes", str(len(found.payload_schema))))
    recorded = None if found is None else schema.kept_embedder(found)
    marked = None if found is None else schema.kept_registry(found)
    return Posture(grade, findings, tuple(facts), embedder=recorded, registry=marked)


def _findings(
    config: QdrantConfig,
    fields: Mapping[str, FieldType],
    found: models.CollectionInfo | None,
    untagged: bool | None,  # noqa: FBT001 - three-valued
    server: str | None,
) -> Iterator[Finding]:
    name = config.collection
    if found is None:
        yield _finding(rules.MISSING, name, "the collection does not exist", _PROVISION)
    else:
        yield from _vectors(config, found)
        if not config.local:
            yield from _server(config, fields, found)
            yield from _old(config, server)
        yield from _words(config, found, server)
        if untagged:
            yield _finding(
                rules.UNTAGGED,
                name,
                f"at least one point has no {config.payload.tenant!r}",
                f"find it with a scroll that filters by is_empty on {config.payload.tenant!r}; delete it, or set its "
                "tenant",
            )
        elif untagged is None:
            yield _finding(rules.UNREAD, name, "the server refused the query", _PROVISION)
    if config.local:
        yield _finding(
            rules.LOCAL,
            name,
            "local mode: no strict mode, no indexes, no credentials; only vectoracl's filter separates the tenants",
            'run a server and set url = "https://…"',
        )
    elif config.url is not None and _plain(config.url):
        yield _finding(rules.PLAIN, name, "the address is http, and not on this machine", 'set url = "https://…"')


def _fields(config: QdrantConfig, fields: Mapping[str, FieldType], held: frozenset[str]) -> Iterator[Finding]:
    for message in schema.held_otherwise(config, fields, held):
        fix = "declare the field as it was, or write those documents again"
        yield _finding(rules.FIELD, config.collection, message, fix)


def _vectors(config: QdrantConfig, found: models.CollectionInfo) -> Iterator[Finding]:
    message, has = schema.other_vectors(config, found), schema.dense(config, found)
    if message is not None:
        fix = (
            "configure the vectors that it holds, or name another collection, provision it, and copy the chunks "
            "(vectoracl copy)"
        )
        yield _finding(rules.VECTORS, config.collection, message, fix)
    if (has is not None and has.quantization_config is not None) or found.config.quantization_config is not None:
        yield _finding(
            rules.QUANTISED, config.collection, "its vectors are quantised", "remove quantization_config, or keep it"
        )


def _version(text: str | None) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)", text or "")
    return (int(match[1]), int(match[2])) if match else None


def _old(config: QdrantConfig, server: str | None) -> Iterator[Finding]:
    release = _version(server)
    if release is None:
        fix = "ask its operator for the version"
        yield _finding(rules.OLD, config.collection, "the server does not report its version", fix)
    elif release < OLDEST:
        yield _finding(rules.OLD, config.collection, f"the server is Qdrant {server}", "upgrade the server")


def _words(config: QdrantConfig, found: models.CollectionInfo, server: str | None) -> Iterator[Finding]:
    if config.words is False:
        return
    name = f"{config.collection}.{config.words}"
    has = (found.config.params.sparse_vectors or {}).get(config.words)
    if has is None:
        others = ", ".join(repr(one) for one in sorted(found.config.params.sparse_vectors or ()))
        message = "this sparse vector does not exist" + (f"; the collection has {others}" if others else "")
        yield _finding(rules.WORDS, name, message, f"{_PROVISION}, or set words = false")
        return
    if not schema.weighs(has):
        if config.idf:
            yield _finding(rules.UNWEIGHED, name, "it has no IDF modifier", f"{_PROVISION}, or set idf = false")
    elif not config.idf:
        yield _finding(rules.STATISTICS, name, "it has the IDF modifier, but idf = false", _PROVISION)
    elif not config.local and (_version(server) or (0, 0)) < SCOPED_STATISTICS:
        message = f"the server is Qdrant {server}" if server else "the server's version is unknown"
        yield _finding(rules.STATISTICS, name, message, f"set idf = false, then {_PROVISION}")


def _server(config: QdrantConfig, fields: Mapping[str, FieldType], found: models.CollectionInfo) -> Iterator[Finding]:
    name, tenant = config.collection, config.payload.tenant
    indexes = schema.indexes(config, fields)
    there = found.payload_schema
    if found.config.hnsw_config.m != 0:
        yield _finding(rules.GLOBAL_GRAPH, name, f"m is {found.config.hnsw_config.m}", _PROVISION)
    custom = found.config.params.sharding_method == models.ShardingMethod.CUSTOM
    if custom != config.tiers:
        message = f"tiers = {str(config.tiers).lower()}, but its sharding is {'custom' if custom else 'automatic'}"
        yield _finding(rules.TIERS, name, message, "name another collection and provision it, or change tiers")
    strict = found.config.strict_mode_config
    if strict is None or strict.enabled is not True:
        yield _finding(rules.STRICT_OFF, name, "strict mode is off", _PROVISION)
    else:
        if strict.search_allow_exact is not False:
            yield _finding(rules.EXACT, name, "search_allow_exact is not false", _PROVISION)
        if strict.unindexed_filtering_retrieve is not False or strict.unindexed_filtering_update is not False:
            yield _finding(rules.UNINDEXED, name, "filters on keys without an index are allowed", _PROVISION)
    special = {tenant: rules.TENANT_INDEX, config.payload.pending: rules.MARKS}
    for key, params in indexes.items():
        wrong = schema.misfit(params, there.get(key))
        if wrong is not None:
            yield _finding(special.get(key, rules.INDEX), f"{name}.{key}", wrong, _PROVISION)


def _finding(rule: Rule, subject: str, message: str, fix: str) -> Finding:
    return Finding(rule, subject, message, fix)


def _plain(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme != "https" and parts.hostname not in _HERE
