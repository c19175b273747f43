"""What the adapter needs of a collection, as data: pure. `operator` applies it, `posture` compares with it."""

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
    """Bring an existing collection's graph and strict mode to what they have to be."""

    name: str
    hnsw: models.HnswConfigDiff
    strict: models.StrictModeConfig


@dataclass(frozen=True, slots=True)
class CreateWords:
    """Add the sparse vector of the words to an existing collection; its points get theirs after that."""

    name: str
    key: str
    params: models.SparseVectorParams


@dataclass(frozen=True, slots=True)
class UpdateWords:
    """Bring the weighing of words to what is configured."""

    name: str
    key: str
    params: models.SparseVectorParams


@dataclass(frozen=True, slots=True)
class CreateShard:
    """Create a shard: the one that small tenants share, or, `partial`, one that is not read before it is filled."""

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
    """Let the server copy the points that pass `where` from one shard into another, while both are served."""

    name: str
    where: models.Filter
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class CreateIndex:
    """Create one payload index, before points are written: the tenants' graphs are built by it."""

    name: str
    key: str
    params: IndexParams


@dataclass(frozen=True, slots=True)
class KeepEmbedder:
    """Write into the collection's metadata whose vectors it holds; what else is there stays."""

    name: str
    embedder: str

    @property
    def metadata(self) -> dict[str, object]:
        """Return the part of the metadata that is ours."""
        return {METADATA: {store_notes.EMBEDDER: self.embedder}}


METADATA = "vectoracl"
Step = (
    KeepEmbedder
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
    """Return the parameters of the configured dense vector, as they were *found*; None if it is not there."""
    has = found.config.params.vectors
    if isinstance(has, models.VectorParams):
        return has if config.vector is None else None
    return None if has is None or config.vector is None else has.get(config.vector)


def kept_embedder(found: models.CollectionInfo) -> str | None:
    """Return the identity of the embedder that the collection's metadata name."""
    ours = (found.config.metadata or {}).get(METADATA)
    return store_notes.embedder_of(ours) if isinstance(ours, dict) else None


def other_vectors(config: QdrantConfig, found: models.CollectionInfo) -> str | None:
    """Say which vectors the collection was *found* to hold, where they are not the configured ones."""
    has, what = dense(config, found), "unnamed vector" if config.vector is None else f"vector {config.vector!r}"
    wanted = f"one {what} of {config.dimension} numbers by {DISTANCE[config.metric].value}"
    if has is None:
        return f"it does not hold {wanted}; it has {_named(found)}"
    if has.multivector_config is not None:
        return f"it holds several vectors a point under that name, not {wanted}"
    if has.datatype not in (None, models.Datatype.FLOAT32):
        return f"its numbers are {has.datatype.value}, not float32: scores would be rounded in silence"
    if (has.size, has.distance) != (config.dimension, DISTANCE[config.metric]):
        return f"it holds vectors of {has.size} numbers by {has.distance.value}, not {wanted}"
    return None


def _named(found: models.CollectionInfo) -> str:
    """Return the names of the dense vectors that the collection was *found* to hold."""
    has = found.config.params.vectors
    if isinstance(has, models.VectorParams):
        return "an unnamed vector"
    return ", ".join(f"the vector {name!r}" for name in sorted(has or ())) or "no dense vector"


def words(config: QdrantConfig) -> models.SparseVectorParams:
    """Return the sparse vector of the words; with the modifier the server weighs them, in the corpus it is told."""
    return models.SparseVectorParams(modifier=models.Modifier.IDF if config.idf else models.Modifier.NONE)


def weighs(found: models.SparseVectorParams) -> bool:
    """Tell whether the sparse vector as it was *found* is weighed by rarity."""
    return found.modifier == models.Modifier.IDF


def hnsw(config: QdrantConfig) -> models.HnswConfigDiff:
    """Return the graph's settings: with m=0 a vector query that names no tenant has nothing to walk."""
    return models.HnswConfigDiff(m=0, payload_m=config.payload_m)


def query_limit(config: QdrantConfig) -> int:
    """Return the largest `limit` of any request; strict mode refuses larger ones."""
    return max(config.max_k, config.page)


def strict_mode(config: QdrantConfig) -> models.StrictModeConfig:
    """Return strict mode. `search_allow_exact=False` is what makes a query without a tenant an error.

    Left at its default, such a query is answered by reading everybody's points. The limits are those of the core.
    """
    return models.StrictModeConfig(
        enabled=True,
        unindexed_filtering_retrieve=False,
        unindexed_filtering_update=False,
        search_allow_exact=False,
        max_query_limit=query_limit(config),
    )


def indexes(config: QdrantConfig, fields: Mapping[str, FieldType]) -> dict[str, IndexParams]:
    """Return every payload index, the tenant's first. Only the tenant's makes graphs.

    Numbers have float indexes throughout: an integer index would cut the fraction off a bound.
    """
    keys = config.payload
    made: dict[str, IndexParams] = {
        keys.tenant: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    }
    for key in (keys.document, keys.docgen, keys.chunk, keys.label, keys.producer, keys.path, keys.version,
                keys.pending, keys.present):  # fmt: skip
        made[key] = _keyword()
    for key in (keys.generation, keys.rev, keys.expires, keys.time, keys.position, keys.order):
        made[key] = _number()
    for name, kind in fields.items():
        path = field_path(keys, name, kind)
        match kind:
            case FieldType.KEYWORD | FieldType.KEYWORDS | FieldType.BOOLEAN:
                made[path] = _keyword()
            case FieldType.NUMBER | FieldType.NUMBERS:
                made[path] = _number()
            case FieldType.DATETIME:
                made[path] = models.DatetimeIndexParams(type=models.DatetimeIndexType.DATETIME, enable_hnsw=False)
    return made


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
    """Yield what is left to do, given the collection as it was *found* (None: there is none).

    *sharded* is whether the shard that small tenants share is there.
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
    wanted = strict_mode(config).model_dump(exclude_none=True)
    return has is not None and all(getattr(has, key, None) == value for key, value in wanted.items())


def same_index(wanted: IndexParams, found: models.PayloadIndexInfo) -> bool:
    """Tell whether the index that was found serves as the wanted one: its type, and is_tenant."""
    return misfit(wanted, found) is None


def misfit(wanted: IndexParams, found: models.PayloadIndexInfo | None) -> str | None:
    """Say how the index that was *found* (None: there is none) is not the wanted one; None: it is."""
    of_tenant = isinstance(wanted, models.KeywordIndexParams) and wanted.is_tenant is True
    kind = f"{wanted.type.value} index{' with is_tenant' if of_tenant else ''}"
    if found is None:
        return f"there is no {kind} on it"
    if found.data_type.value != wanted.type.value:
        return f"the index on it is {found.data_type.value}, and a {kind} is needed"
    if of_tenant and getattr(found.params, "is_tenant", None) is not True:
        return f"the index on it is without is_tenant, and a {kind} is needed"
    return None


def of_other_types(config: QdrantConfig, fields: Mapping[str, FieldType]) -> dict[str, tuple[str, FieldType]]:
    """Return where values of a declared field lie that are of another type than its own: field and type by path."""
    return {
        field_path(config.payload, name, other): (name, other)
        for name, kind in fields.items()
        for other in FieldType
        if other is not kind
    }


def held_otherwise(config: QdrantConfig, fields: Mapping[str, FieldType], paths: Collection[str]) -> Iterator[str]:
    """Yield for each declared field of which there are values of another type, at one of *paths*, what is there."""
    for path, (name, other) in of_other_types(config, fields).items():
        if path in paths:
            yield f"chunks hold {name!r} as {other.value}, and it is declared as {fields[name].value}"


def indexed_paths(found: models.CollectionInfo) -> frozenset[str]:
    """Return the payload paths at which points have a value, as far as indexes say."""
    return frozenset(path for path, index in found.payload_schema.items() if index.points)


def lies_otherwise(config: QdrantConfig, fields: Mapping[str, FieldType]) -> models.Filter:
    """Return what passes the points that hold a value of another type than its field's; for local mode alone.

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
        case KeepEmbedder():
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
