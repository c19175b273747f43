"""The configuration that the adapter needs of a collection, as data. `operator` applies it, `posture` compares it.

Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import orjson
from pydantic import BaseModel
from qdrant_client import models

from vectoracl.adapter_api import store_notes
from vectoracl.filters.field_types import FieldType
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.names import field_path

DISTANCE = {"cosine": models.Distance.COSINE, "inner": models.Distance.DOT, "l2": models.Distance.EUCLID}
IndexParams = models.KeywordIndexParams | models.FloatIndexParams | models.DatetimeIndexParams


@dataclass(frozen=True, slots=True)
class CreateCollection:
    """Create the collection: no graph over all tenants (m=0), one for each (payload_m), strict mode on."""

    name: str
    vectors: models.VectorParams | dict[str, models.VectorParams]
    words: dict[str, models.SparseVectorParams] | None
    hnsw: models.HnswConfigDiff
    strict: models.StrictModeConfig
    tiers: bool = False


@dataclass(frozen=True, slots=True)
class UpdateCollection:
    """Change the graph and strict mode of an existing collection to the required settings."""

    name: str
    hnsw: models.HnswConfigDiff
    strict: models.StrictModeConfig


@dataclass(frozen=True, slots=True)
class CreateWords:
    """Add the sparse vector of the words to an existing collection; its points get their words in a later step."""

    name: str
    key: str
    params: models.SparseVectorParams


@dataclass(frozen=True, slots=True)
class UpdateWords:
    """Change the weighting of words to the configured one."""

    name: str
    key: str
    params: models.SparseVectorParams


@dataclass(frozen=True, slots=True)
class CreateShard:
    """Create a shard: the shared one of small tenants or, with `partial`, one that is not read before it is filled."""

    name: str
    key: str
    partial: bool = False


@dataclass(frozen=True, slots=True)
class DropShard:
    """Remove a tenant's own shard, with its points."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class CopyTenant:
    """Have the server copy the points that match `where` from one shard into another, while both are served."""

    name: str
    where: models.Filter
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class CreateIndex:
    """Create one payload index, before points are written: the server builds the tenants' graphs from it."""

    name: str
    key: str
    params: IndexParams


@dataclass(frozen=True, slots=True)
class KeepEmbedder:
    """Write into the collection's metadata which embedder its vectors are from; other metadata stays."""

    name: str
    embedder: str

    @property
    def metadata(self) -> dict[str, object]:
        """Return vectoracl's part of the metadata."""
        return {METADATA: {store_notes.EMBEDDER: self.embedder}}


@dataclass(frozen=True, slots=True)
class KeepRegistry:
    """Write into the collection's metadata which registry governs it; None writes that none does."""

    name: str
    registry: str | None

    @property
    def metadata(self) -> dict[str, object]:
        """Return the mark, under a separate key: the server merges metadata by their outermost keys."""
        return {MARK: {store_notes.REGISTRY: self.registry}}


METADATA = "vectoracl"
MARK = "vectoracl_registry"
Step = (
    KeepEmbedder
    | KeepRegistry
    | CreateCollection
    | CreateShard
    | DropShard
    | CopyTenant
    | UpdateCollection
    | CreateWords
    | UpdateWords
    | CreateIndex
)


def vectors(config: QdrantConfig) -> models.VectorParams | dict[str, models.VectorParams]:
    """Return the collection's one dense vector, unnamed unless the configuration names it."""
    dense = models.VectorParams(size=config.dimension, distance=DISTANCE[config.metric])
    return dense if config.vector is None else {config.vector: dense}


def dense(config: QdrantConfig, found: models.CollectionInfo) -> models.VectorParams | None:
    """Return the parameters of the configured dense vector in the collection as *found*; None if it does not exist."""
    has = found.config.params.vectors
    if isinstance(has, models.VectorParams):
        return has if config.vector is None else None
    return None if has is None or config.vector is None else has.get(config.vector)


def kept_embedder(found: models.CollectionInfo) -> str | None:
    """Return the embedder that the collection's metadata names."""
    ours = (found.config.metadata or {}).get(METADATA)
    return store_notes.embedder_of(ours) if isinstance(ours, dict) else None


def kept_registry(found: models.CollectionInfo) -> str | None:
    """Return the registry that the metadata names; a mark that cannot be read is not ours."""
    metadata = found.config.metadata or {}
    if metadata.get(MARK) is None:
        return None
    ours = metadata[MARK]
    if isinstance(ours, dict) and ours.get(store_notes.REGISTRY, "") is None:
        return None
    return (store_notes.registry_of(ours) if isinstance(ours, dict) else None) or "(unreadable)"


def other_vectors(config: QdrantConfig, found: models.CollectionInfo) -> str | None:
    """Describe the vectors of the collection as *found*, if they differ from the configured ones; None if not."""
    has, kind = dense(config, found), "unnamed vector" if config.vector is None else f"vector {config.vector!r}"
    description = f"one {kind} of dimension {config.dimension} with the distance {DISTANCE[config.metric].value}"
    if has is None:
        return f"it does not have {description}; it has {_named(found)}"
    if has.multivector_config is not None:
        return f"it has several vectors per point under that name, not {description}"
    if has.datatype not in (None, models.Datatype.FLOAT32):
        return f"its numbers are {has.datatype.value}, not float32: scores would be rounded silently"
    if (has.size, has.distance) != (config.dimension, DISTANCE[config.metric]):
        return f"its vectors have dimension {has.size} and the distance {has.distance.value}, not {description}"
    return None


def _named(found: models.CollectionInfo) -> str:
    """Return the names of the dense vectors of the collection as *found*."""
    has = found.config.params.vectors
    if isinstance(has, models.VectorParams):
        return "an unnamed vector"
    return ", ".join(f"the vector {name!r}" for name in sorted(has or ())) or "no dense vector"


def words(config: QdrantConfig) -> models.SparseVectorParams:
    """Return the sparse vector of the words. With the modifier the server weights them over the corpus of the query."""
    return models.SparseVectorParams(modifier=models.Modifier.IDF if config.idf else models.Modifier.NONE)


def weighs(found: models.SparseVectorParams) -> bool:
    """Return whether the sparse vector as *found* is weighted by rarity."""
    return found.modifier == models.Modifier.IDF


def hnsw(config: QdrantConfig) -> models.HnswConfigDiff:
    """Return the graph's settings: with m=0 there is no graph for a vector query that does not name a tenant."""
    return models.HnswConfigDiff(m=0, payload_m=config.payload_m)


def query_limit(config: QdrantConfig) -> int:
    """Return the largest `limit` of any request; strict mode refuses larger ones."""
    return max(config.max_k, config.page)


def strict_mode(config: QdrantConfig) -> models.StrictModeConfig:
    """Return strict mode. `search_allow_exact=False` is what makes a query without a tenant an error.

    At its default, such a query is answered by reading the points of all tenants. The limits are those of the core.
    """
    return models.StrictModeConfig(
        enabled=True,
        unindexed_filtering_retrieve=False,
        unindexed_filtering_update=False,
        search_allow_exact=False,
        max_query_limit=query_limit(config),
    )


def indexes(config: QdrantConfig, fields: Mapping[str, FieldType]) -> dict[str, IndexParams]:
    """Return every payload index, the tenant's first. Only the tenant's index creates graphs.

    All numbers have float indexes: an integer index would truncate the fraction of a bound.
    """
    keys = config.payload
    params: dict[str, IndexParams] = {
        keys.tenant: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    }
    for key in (keys.document, keys.docgen, keys.chunk, keys.label, keys.producer, keys.path, keys.version,
                keys.pending, keys.present):  # fmt: skip
        params[key] = _keyword()
    for key in (keys.generation, keys.rev, keys.expires, keys.time, keys.position, keys.order):
        params[key] = _number()
    for name, kind in fields.items():
        path = field_path(keys, name, kind)
        match kind:
            case FieldType.KEYWORD | FieldType.KEYWORDS | FieldType.BOOLEAN:
                params[path] = _keyword()
            case FieldType.NUMBER | FieldType.NUMBERS:
                params[path] = _number()
            case FieldType.DATETIME:
                params[path] = models.DatetimeIndexParams(type=models.DatetimeIndexType.DATETIME, enable_hnsw=False)
    return params


def _keyword() -> models.KeywordIndexParams:
    return models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, enable_hnsw=False)


def _number() -> models.FloatIndexParams:
    return models.FloatIndexParams(type=models.FloatIndexType.FLOAT, enable_hnsw=False)


def steps(
    config: QdrantConfig,
    fields: Mapping[str, FieldType],
    found: models.CollectionInfo | None,
    *,
    sharded: bool = True,
) -> Iterator[Step]:
    """Yield the remaining steps, given the collection as *found* (None: it does not exist).

    *sharded* is whether the shard that small tenants share exists.
    """
    name = config.collection
    if found is None:
        some = None if config.words is False else {config.words: words(config)}
        yield CreateCollection(name, vectors(config), some, hnsw(config), strict_mode(config), tiers=config.tiers)
    if config.tiers and (found is None or not sharded):
        yield CreateShard(name, config.shared_shard)
    if found is None:
        pass
    elif not config.local and not (_same_hnsw(config, found) and _same_strict(config, found)):
        yield UpdateCollection(name, hnsw(config), strict_mode(config))
    if found is not None and config.words is not False:
        has = (found.config.params.sparse_vectors or {}).get(config.words)
        if has is None:
            yield CreateWords(name, config.words, words(config))
        elif weighs(has) != config.idf:
            yield UpdateWords(name, config.words, words(config))
    there = {} if found is None else found.payload_schema
    for key, params in indexes(config, fields).items():
        if config.local or (key in there and same_index(params, there[key])):
            continue
        yield CreateIndex(name, key, params)


def _same_hnsw(config: QdrantConfig, found: models.CollectionInfo) -> bool:
    has = found.config.hnsw_config
    return has.m == 0 and has.payload_m == config.payload_m


def _same_strict(config: QdrantConfig, found: models.CollectionInfo) -> bool:
    has = found.config.strict_mode_config
    settings = strict_mode(config).model_dump(exclude_none=True)
    return has is not None and all(getattr(has, key, None) == value for key, value in settings.items())


def same_index(wanted: IndexParams, found: models.PayloadIndexInfo) -> bool:
    """Return whether the index as *found* can serve as the wanted one: its type, and is_tenant."""
    return misfit(wanted, found) is None


def misfit(wanted: IndexParams, found: models.PayloadIndexInfo | None) -> str | None:
    """Describe how the index as *found* (None: there is none) differs from the wanted one; None if it does not."""
    of_tenant = isinstance(wanted, models.KeywordIndexParams) and wanted.is_tenant is True
    kind = f"{wanted.type.value} index{' with is_tenant' if of_tenant else ''}"
    if found is None:
        return f"it has no {kind}"
    if found.data_type.value != wanted.type.value:
        return f"it has a {found.data_type.value} index, but needs a {kind}"
    if of_tenant and getattr(found.params, "is_tenant", None) is not True:
        return f"its index does not have is_tenant, but it needs a {kind}"
    return None


def of_other_types(config: QdrantConfig, fields: Mapping[str, FieldType]) -> dict[str, tuple[str, FieldType]]:
    """Return the payload paths of values whose type differs from the declared one: field and type by path."""
    return {
        field_path(config.payload, name, other): (name, other)
        for name, kind in fields.items()
        for other in FieldType
        if other is not kind
    }


def held_otherwise(config: QdrantConfig, fields: Mapping[str, FieldType], paths: Collection[str]) -> Iterator[str]:
    """Yield a description of each declared field that has values of another type at one of *paths*."""
    for path, (name, other) in of_other_types(config, fields).items():
        if path in paths:
            yield f"chunks hold {name!r} as {other.value}, but it is declared as {fields[name].value}"


def indexed_paths(found: models.CollectionInfo) -> frozenset[str]:
    """Return the payload paths at which points have a value, according to the indexes."""
    return frozenset(path for path, index in found.payload_schema.items() if index.points)


def lies_otherwise(config: QdrantConfig, fields: Mapping[str, FieldType]) -> models.Filter:
    """Return the filter of points that hold a value of another type than its field's; for local mode only.

    On a server it would need an index on each path.
    """
    paths = of_other_types(config, fields)
    return models.Filter(
        should=[
            models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=path))]) for path in paths
        ]
    )


def paths_of(config: QdrantConfig, payload: Mapping[str, object]) -> frozenset[str]:
    """Return the paths at which the *payload* of a point has a field's value."""
    held = payload.get(config.payload.fields)
    return frozenset(f"{config.payload.fields}.{key}" for key in held) if isinstance(held, Mapping) else frozenset()


def text_of(step: Step) -> str:
    """Return *step* as the HTTP request that does it: a line, and a body where there is one."""
    match step:
        case CreateCollection():
            body: dict[str, object] = {
                "vectors": _each(step.vectors) if isinstance(step.vectors, dict) else _dump(step.vectors),
                **({} if step.words is None else {"sparse_vectors": _each(step.words)}),
                **({"sharding_method": "custom"} if step.tiers else {}),
                "hnsw_config": _dump(step.hnsw),
                "strict_mode_config": _dump(step.strict),
            }
            return f"PUT /collections/{step.name}\n{_json(body)}"
        case UpdateCollection():
            body = {"hnsw_config": _dump(step.hnsw), "strict_mode_config": _dump(step.strict)}
            return f"PATCH /collections/{step.name}\n{_json(body)}"
        case KeepEmbedder() | KeepRegistry():
            return f"PATCH /collections/{step.name}\n{_json({'metadata': step.metadata})}"
        case CreateShard():
            key = {"shard_key": step.key, **({"initial_state": "Partial"} if step.partial else {})}
            return f"PUT /collections/{step.name}/shards\n{_json(key)}"
        case DropShard():
            return f"POST /collections/{step.name}/shards/delete\n{_json({'shard_key': step.key})}"
        case CopyTenant():
            copy = {"filter": _dump(step.where), "from_shard_key": step.source, "to_shard_key": step.target}
            return f"POST /collections/{step.name}/cluster\n{_json({'replicate_points': copy})}"
        case CreateWords():
            return f"PUT /collections/{step.name}/vectors/{step.key}\n{_json({'sparse': _dump(step.params)})}"
        case UpdateWords():
            return f"PATCH /collections/{step.name}\n{_json({'sparse_vectors': {step.key: _dump(step.params)}})}"
        case CreateIndex():
            body = {"field_name": step.key, "field_schema": _dump(step.params)}
            return f"PUT /collections/{step.name}/index?wait=true\n{_json(body)}"


def _each(some: Mapping[str, BaseModel]) -> dict[str, object]:
    return {name: _dump(one) for name, one in some.items()}


def _dump(model: BaseModel) -> dict[str, object]:
    return model.model_dump(mode="json", exclude_none=True)


def _json(body: object) -> str:
    return orjson.dumps(body).decode()
