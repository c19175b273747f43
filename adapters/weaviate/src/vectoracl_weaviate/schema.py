"""The configuration that the adapter needs of a collection, as data. `operator` applies it, `posture` compares it.

Everything here is pure.
"""

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
    """Change the settings of an existing collection to the required ones, where Weaviate allows it."""

    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AddProperty:
    """Add one property. `field` is the metadata field that it holds; older objects then need its values."""

    name: str
    body: Mapping[str, Any]
    field: str | None


Step = CreateCollection | UpdateCollection | AddProperty


def exact(kind: str) -> dict[str, Any]:
    """Return the settings of a property that is compared as a whole."""
    settings: dict[str, Any] = {"dataType": [kind], "indexFilterable": True, "indexSearchable": False}
    if kind.startswith("text"):
        settings["tokenization"] = "field"
    return settings


def properties(config: WeaviateConfig, fields: Mapping[str, FieldType]) -> dict[str, dict[str, Any]]:
    """Return every property with its settings.

    Everything that is filtered by is compared as a whole (FIELD): the default tokenization by words would let one id
    match another. Only the text is indexed for BM25.
    """
    keys = config.properties
    settings: dict[str, dict[str, Any]] = {}
    for key in (keys.tenant, keys.document, keys.docgen, keys.chunk, keys.label, keys.producer, keys.path, keys.seek,
                keys.version, keys.pending):  # fmt: skip
        settings[key] = exact("text")
    for key in (keys.generation, keys.rev, keys.expires, keys.time, keys.position):
        settings[key] = exact("number")
    settings[keys.committed] = exact("boolean")
    settings[keys.present] = exact("text[]")
    settings[keys.text] = {
        "dataType": ["text"], "indexFilterable": False, "indexSearchable": True, "tokenization": "word",
    }  # fmt: skip
    settings[keys.metadata] = {
        "dataType": ["text"], "indexFilterable": False, "indexSearchable": False, "tokenization": "field",
    }  # fmt: skip
    for name, kind in fields.items():
        settings[property_of(name, kind)] = exact(_TYPES[kind])
    return settings


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
    """Return the note about the collection's vectors that its description contains."""
    return store_notes.read(found.get("description"))


def kept_registry(found: Mapping[str, Any]) -> str | None:
    """Return the registry that governs the collection; a mark that cannot be read is not ours."""
    notes = kept(found)
    if store_notes.REGISTRY not in notes:
        return None
    return store_notes.registry_of(notes) or "(unreadable)"


def description(config: WeaviateConfig, found: str | None, embedder: str | None) -> str:
    """Return the description with a note of the embedder and the dimension; Weaviate has no setting for either."""
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
    """Describe the vectors of the collection as *found*, if they differ from the configured ones; None if not."""
    dimension = kept(found).get(store_notes.DIMENSION, config.dimension)
    if dimension != config.dimension:
        return f"its vectors have dimension {dimension}, but dimension = {config.dimension}"
    has = (found.get("vectorConfig") or {}).get(config.vector)
    if has is None:
        names = ", ".join(repr(name) for name in sorted(found.get("vectorConfig") or ())) or "no named vector"
        return f"it does not have the vector {config.vector!r}; it has {names}"
    settings = has.get("vectorIndexConfig") or {}
    inner = settings.get("hnsw") or {} if has.get("vectorIndexType") == "dynamic" else {}
    distances = {settings.get("distance"), inner.get("distance")} - {None}
    if distances != {DISTANCE[config.metric]}:
        distance = ", ".join(sorted(map(str, distances))) or "none"
        return f"its distance is {distance}, but metric = {config.metric!r} ({DISTANCE[config.metric]})"
    if settings.get("skip"):
        return f"its vectors are not indexed, but metric = {config.metric!r}"
    return None


def compressed(config: WeaviateConfig, found: Mapping[str, Any]) -> bool:
    """Return whether searches rank by compressed vectors."""
    settings = ((found.get("vectorConfig") or {}).get(config.vector) or {}).get("vectorIndexConfig") or {}
    parts = [settings, settings.get("hnsw") or {}, settings.get("flat") or {}]
    return any((part.get(kind) or {}).get("enabled") for part in parts for kind in ("pq", "bq", "sq", "rq"))


def collection(config: WeaviateConfig, fields: Mapping[str, FieldType], embedder: str | None = None) -> dict[str, Any]:
    """Return the collection as it is created: a shard per tenant; no request creates or activates a tenant."""
    factor = config.replication_factor
    return {
        "class": config.collection,
        **({} if factor is None else {"replicationConfig": {"factor": factor}}),
        "description": description(config, None, embedder),
        "multiTenancyConfig": {"enabled": True, "autoTenantCreation": False, "autoTenantActivation": False},
        "vectorConfig": {config.vector: vector_index(config)},
        # BM25 over all words: none is left out as a stop word.
        "invertedIndexConfig": {"stopwords": {"preset": "none"}},
        "properties": [{"name": name, **body} for name, body in properties(config, fields).items()],
    }


def replicas(found: Mapping[str, Any] | None) -> int:
    """Return the number of nodes that keep each tenant of the collection as *found*."""
    return int(((found or {}).get("replicationConfig") or {}).get("factor") or 1)


def steps(
    config: WeaviateConfig,
    fields: Mapping[str, FieldType],
    found: Mapping[str, Any] | None,
    embedder: str | None = None,
) -> Iterator[Step]:
    """Yield the remaining steps, given the collection as *found* (None: it does not exist)."""
    if found is None:
        yield CreateCollection(collection(config, fields, embedder))
        return
    changed = dict(found)
    tenancy = found.get("multiTenancyConfig") or {}
    if tenancy.get("enabled") and (tenancy.get("autoTenantCreation") or tenancy.get("autoTenantActivation")):
        changed["multiTenancyConfig"] = {**tenancy, "autoTenantCreation": False, "autoTenantActivation": False}
    new_description = description(config, found.get("description"), embedder)
    if store_notes.read(new_description) != kept(found):
        changed["description"] = new_description
    if changed != dict(found):
        yield UpdateCollection(changed)
    there = {one["name"] for one in found.get("properties") or ()}
    of = {property_of(name, kind): name for name, kind in fields.items()}
    for name, body in properties(config, fields).items():
        if name not in there:
            yield AddProperty(name, {"name": name, **body}, of.get(name))


def misfit(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Describe how the property as *found* differs in type, tokenization or indexes; None if it does not."""
    for key in ("dataType", "tokenization", "indexFilterable", "indexSearchable"):
        if key in wanted and not _moot(key, wanted) and found.get(key) != wanted[key]:
            return f"its {key} is {_plain(found.get(key))}, but must be {_plain(wanted[key])}"
    return None


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return {None: "the default", True: "on", False: "off"}.get(value, str(value))


def other_type(name: str, fields: Mapping[str, FieldType], found: Mapping[str, Any]) -> str | None:
    """Describe the other type as which the collection holds the metadata field of the property *name*, if any."""
    there = {one["name"] for one in found.get("properties") or ()}
    for field, kind in fields.items():
        if property_of(field, kind) == name:
            held = [other for other in FieldType if other is not kind and property_of(field, other) in there]
            if held:
                return f"the collection holds {field!r} as {held[0].value}, but it is declared as {kind.value}"
    return None


def _moot(key: str, wanted: Mapping[str, Any]) -> bool:
    # Numbers never have a searchable index, and a text without an index has no tokens.
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
