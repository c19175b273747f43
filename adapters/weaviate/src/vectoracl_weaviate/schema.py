"""What the adapter needs of a collection, as data: pure. `operator` applies it, `posture` compares with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from vectoracl.adapter_api import store_notes
from vectoracl.filters.field_types import FieldType
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.names import property_of

DISTANCE = {"cosine": "cosine", "inner": "dot", "l2": "l2-squared"}
_TYPES = {
    FieldType.KEYWORD: "text",
    FieldType.KEYWORDS: "text[]",
    FieldType.NUMBER: "number",
    FieldType.NUMBERS: "number[]",
    FieldType.BOOLEAN: "boolean",
    FieldType.DATETIME: "text",
}


@dataclass(frozen=True, slots=True)
class CreateCollection:
    """Create the collection."""

    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class UpdateCollection:
    """Bring the settings of an existing collection that can be changed to what they have to be."""

    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AddProperty:
    """Add one property; `field` is the metadata field that it holds, whose values older objects have to be given."""

    name: str
    body: Mapping[str, Any]
    field: str | None


Step = CreateCollection | UpdateCollection | AddProperty


def exact(kind: str) -> dict[str, Any]:
    """Return the settings of a property that is compared as a whole."""
    made: dict[str, Any] = {"dataType": [kind], "indexFilterable": True, "indexSearchable": False}
    if kind.startswith("text"):
        made["tokenization"] = "field"
    return made


def properties(config: WeaviateConfig, fields: Mapping[str, FieldType]) -> dict[str, dict[str, Any]]:
    """Return every property with its settings.

    Everything that is filtered by is compared as a whole (FIELD): the default tokenization by words would let one id
    match another. Only the text is indexed for BM25.
    """
    keys = config.properties
    made: dict[str, dict[str, Any]] = {}
    for key in (keys.tenant, keys.document, keys.docgen, keys.chunk, keys.label, keys.producer, keys.path, keys.seek,
                keys.version, keys.pending):  # fmt: skip
        made[key] = exact("text")
    for key in (keys.generation, keys.rev, keys.expires, keys.time, keys.position):
        made[key] = exact("number")
    made[keys.committed] = exact("boolean")
    made[keys.present] = exact("text[]")
    made[keys.text] = {
        "dataType": ["text"], "indexFilterable": False, "indexSearchable": True, "tokenization": "word",
    }  # fmt: skip
    made[keys.metadata] = {
        "dataType": ["text"], "indexFilterable": False, "indexSearchable": False, "tokenization": "field",
    }  # fmt: skip
    for name, kind in fields.items():
        made[property_of(name, kind)] = exact(_TYPES[kind])
    return made


def vector_index(config: WeaviateConfig) -> dict[str, Any]:
    """Return the configuration of the collection's one named vector."""
    distance = DISTANCE[config.metric]
    hnsw = {
        "distance": distance, "maxConnections": config.max_connections, "efConstruction": config.ef_construction,
    }  # fmt: skip
    settings: dict[str, Any]
    match config.index:
        case "hnsw":
            settings = hnsw
        case "flat":
            settings = {"distance": distance}
        case "dynamic":
            settings = {
                "distance": distance, "threshold": config.dynamic_threshold, "hnsw": hnsw,
                "flat": {"distance": distance},
            }  # fmt: skip
    return {"vectorizer": {"none": {}}, "vectorIndexType": config.index, "vectorIndexConfig": settings}


def kept(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the collection's description says of its vectors."""
    return store_notes.read(found.get("description"))


def description(config: WeaviateConfig, found: str | None, embedder: str | None) -> str:
    """Return the description with whose the vectors are, and their dimension, which no setting of Weaviate has."""
    before = store_notes.read(found)
    return store_notes.written(
        found,
        {
            **before,
            store_notes.DIMENSION: config.dimension,
            **({} if embedder is None else {store_notes.EMBEDDER: embedder}),
        },
    )


def other_vectors(config: WeaviateConfig, found: Mapping[str, Any]) -> str | None:
    """Say which vectors the collection was *found* to hold, where they are not the configured ones."""
    dimension = kept(found).get(store_notes.DIMENSION, config.dimension)
    if dimension != config.dimension:
        return f"it holds vectors of {dimension} numbers, and dimension is {config.dimension}"
    has = (found.get("vectorConfig") or {}).get(config.vector)
    if has is None:
        names = ", ".join(repr(name) for name in sorted(found.get("vectorConfig") or ())) or "none that has a name"
        return f"there is no vector {config.vector!r}; it has {names}"
    settings = has.get("vectorIndexConfig") or {}
    inner = settings.get("hnsw") or {} if has.get("vectorIndexType") == "dynamic" else {}
    distances = {settings.get("distance"), inner.get("distance")} - {None}
    if distances != {DISTANCE[config.metric]}:
        by = ", ".join(sorted(map(str, distances))) or "nothing"
        return f"it is ranked by {by}, and metric is {config.metric} ({DISTANCE[config.metric]})"
    if settings.get("skip"):
        return f"its vectors are in no index, and metric is {config.metric}"
    return None


def compressed(config: WeaviateConfig, found: Mapping[str, Any]) -> bool:
    """Tell whether the vectors are ranked by a coarser form of theirs."""
    settings = ((found.get("vectorConfig") or {}).get(config.vector) or {}).get("vectorIndexConfig") or {}
    parts = [settings, settings.get("hnsw") or {}, settings.get("flat") or {}]
    return any((part.get(kind) or {}).get("enabled") for part in parts for kind in ("pq", "bq", "sq", "rq"))


def collection(config: WeaviateConfig, fields: Mapping[str, FieldType], embedder: str | None = None) -> dict[str, Any]:
    """Return the collection as it is created: a shard for each tenant, none of them made or woken by a request."""
    factor = config.replication_factor
    return {
        "class": config.collection,
        **({} if factor is None else {"replicationConfig": {"factor": factor}}),
        "description": description(config, None, embedder),
        "multiTenancyConfig": {"enabled": True, "autoTenantCreation": False, "autoTenantActivation": False},
        "vectorConfig": {config.vector: vector_index(config)},
        # A word of the text is a word: none is left out of BM25.
        "invertedIndexConfig": {"stopwords": {"preset": "none"}},
        "properties": [{"name": name, **body} for name, body in properties(config, fields).items()],
    }


def replicas(found: Mapping[str, Any] | None) -> int:
    """Return how many nodes keep each tenant of the collection that was *found*."""
    return int(((found or {}).get("replicationConfig") or {}).get("factor") or 1)


def steps(
    config: WeaviateConfig,
    fields: Mapping[str, FieldType],
    found: Mapping[str, Any] | None,
    embedder: str | None = None,
) -> Iterator[Step]:
    """Yield what is left to do, given the collection as it was *found* (None: there is none)."""
    if found is None:
        yield CreateCollection(collection(config, fields, embedder))
        return
    changed = dict(found)
    tenancy = found.get("multiTenancyConfig") or {}
    if tenancy.get("enabled") and (tenancy.get("autoTenantCreation") or tenancy.get("autoTenantActivation")):
        changed["multiTenancyConfig"] = {**tenancy, "autoTenantCreation": False, "autoTenantActivation": False}
    said = description(config, found.get("description"), embedder)
    if store_notes.read(said) != kept(found):
        changed["description"] = said
    if changed != dict(found):
        yield UpdateCollection(changed)
    there = {one["name"] for one in found.get("properties") or ()}
    of = {property_of(name, kind): name for name, kind in fields.items()}
    for name, body in properties(config, fields).items():
        if name not in there:
            yield AddProperty(name, {"name": name, **body}, of.get(name))


def misfit(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Say how the property that was *found* is not the wanted one: by type, tokenization or indexes; None: it is."""
    for key in ("dataType", "tokenization", "indexFilterable", "indexSearchable"):
        if key in wanted and not _moot(key, wanted) and found.get(key) != wanted[key]:
            return f"its {key} is {_plain(found.get(key))}, and {_plain(wanted[key])} is needed"
    return None


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return {None: "the default", True: "on", False: "off"}.get(value, str(value))


def other_type(name: str, fields: Mapping[str, FieldType], found: Mapping[str, Any]) -> str | None:
    """Say of which other type the collection that was *found* holds the metadata field of the property *name*."""
    there = {one["name"] for one in found.get("properties") or ()}
    for field, kind in fields.items():
        if property_of(field, kind) == name:
            held = [other for other in FieldType if other is not kind and property_of(field, other) in there]
            if held:
                return f"it holds {field!r} as {held[0].value}, and it is declared as {kind.value}"
    return None


def _moot(key: str, wanted: Mapping[str, Any]) -> bool:
    # Numbers have no searchable index whatever is said, and a text that nothing looks into no tokens.
    if key == "indexSearchable":
        return not str(wanted["dataType"][0]).startswith("text")
    return key == "tokenization" and not wanted["indexFilterable"] and not wanted["indexSearchable"]


def text_of(step: Step, name: str) -> str:
    """Return *step* as the HTTP request that does it: a line and a body."""
    match step:
        case CreateCollection(body=body):
            return f"POST /v1/schema\n{_json(body)}"
        case UpdateCollection(body=body):
            return f"PUT /v1/schema/{name}\n{_json(body)}"
        case AddProperty(body=body, field=field):
            more = "" if field is None else f"\n# and {field!r} of every object, from its metadata"
            return f"POST /v1/schema/{name}/properties\n{_json(body)}{more}"


def _json(body: object) -> str:
    return orjson.dumps(body).decode()
