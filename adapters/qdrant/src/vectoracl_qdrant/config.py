"""The configuration of a Qdrant store: `[stores.NAME]` with adapter = "qdrant"."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, model_validator

from vectoracl.adapter_api.settings import Model, Secret

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\Z")
_COLLECTION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")


def _key(value: str) -> str:
    # Dots, brackets and quotes are syntax in a payload path; a key without them is one step and nothing else.
    if not _KEY.match(value):
        raise ValueError("must be a payload key of at most 63 letters, digits and _")
    return value


def _collection(value: str) -> str:
    if not _COLLECTION.match(value):
        raise ValueError("must be a collection name of at most 128 letters, digits, _, . and -")
    return value


def _name(value: str) -> str:
    if not _COLLECTION.match(value):
        raise ValueError("must be a name of at most 128 letters, digits, _, . and -")
    return value


PayloadKey = Annotated[str, AfterValidator(_key)]
CollectionName = Annotated[str, AfterValidator(_collection)]
VectorName = Annotated[str, AfterValidator(_name)]


class Payload(Model):
    """`[stores.NAME.payload]`: the payload keys.

    `fields` is the object with the metadata that filters can use, `present` the list of the metadata keys that a point
    has, and `metadata` the metadata as it was written (JSON text). `order` is a number that sorts like the document's
    id; `version` distinguishes the points of concurrent replacements; `pending` and `committed` exist only while a
    document is being replaced.
    """

    tenant: PayloadKey = "group_id"
    document: PayloadKey = "document"
    generation: PayloadKey = "generation"
    docgen: PayloadKey = "docgen"
    chunk: PayloadKey = "chunk_id"
    label: PayloadKey = "label"
    rev: PayloadKey = "rev"
    expires: PayloadKey = "expires"
    producer: PayloadKey = "producer"
    path: PayloadKey = "path"
    time: PayloadKey = "written_at"
    position: PayloadKey = "position"
    order: PayloadKey = "order"
    pending: PayloadKey = "pending"
    committed: PayloadKey = "committed"
    version: PayloadKey = "version"
    text: PayloadKey = "content"
    metadata: PayloadKey = "metadata"
    fields: PayloadKey = "fields"
    present: PayloadKey = "present"

    @model_validator(mode="after")
    def _distinct(self) -> Payload:
        names = list(self.model_dump().values())
        if len(set(names)) != len(names):
            raise ValueError("two payload keys have the same name")
        return self


class AdoptKeys(Model):
    """`[stores.NAME.adopt]`: the payload keys of an existing collection, if `--adopt` cannot recognise them.

    Each value is a payload key, or a path of keys separated by dots (`metadata.tenant_id`); `vector` is the name of a
    dense vector ("" for the unnamed one). `metadata` is an object whose keys all become metadata; so do all other
    top-level keys that are not named here, unless they are in `leave_out`. Without `chunk`, the point's id is the id of
    the chunk. `text` may be inside JSON that is stored as text: `_node_content->>text`. `prefix` is put before the ids
    of chunks and documents, for collections with the same numbers as ids.
    """

    tenant: str | None = Field(default=None, min_length=1)
    document: str | None = Field(default=None, min_length=1)
    chunk: str | None = Field(default=None, min_length=1)
    text: str | None = Field(default=None, min_length=1)
    metadata: str | None = Field(default=None, min_length=1)
    vector: str | None = None
    leave_out: tuple[str, ...] = ()
    prefix: str = Field(default="", max_length=64)


class QdrantConfig(Model):
    """`[stores.NAME]` with adapter = "qdrant": a server's `url`, or one of the client's local modes.

    `url` is the REST address; with `grpc`, requests go to `grpc_port` of the same host. `ca_file` is a PEM file
    (relative to the config's folder) with the only certificate authority that is trusted for an https address. `path`
    keeps the points in a folder that one process can open, `memory` in this process; both are for a first try without
    a server, and enforce nothing. Memory stores with the same `name` are one store within the process.
    `vector` is the name of the dense vector, if it has one. `words` is the name of the sparse vector of the chunks'
    words, for lexical and hybrid queries; with words = false there is none, and such queries are refused. `idf` weights
    words by their rarity within the query's scope, which needs Qdrant 1.19 (or local mode); without it all words of a
    query have the same weight, and lexical scores of several tenants can be compared.
    `tiers` keeps small tenants in the shard `shared_shard` and large ones in separate shards (`vectoracl tenants
    promote`, recommended from `promote_rows` chunks on); the collection must be created with it, on a server in cluster
    mode.
    `dimension` is the size of a vector. `payload_m` is the number of links in each tenant's graph; there is no graph
    over all tenants. `hnsw_ef` is the default effort of a search on a server (None: the server's default). `page`
    limits the points per page of a scroll, `max_request_bytes` the body of a request.
    """

    url: str | None = Field(default=None, min_length=1)
    ca_file: Path | None = None
    api_key: Secret | None = None
    grpc: StrictBool = False
    grpc_port: int = Field(default=6334, ge=1, le=65_535)
    path: Path | None = None
    memory: StrictBool = False
    name: str | None = Field(default=None, min_length=1)
    collection: CollectionName = "vectoracl"
    payload: Payload = Payload()
    adopt: AdoptKeys = AdoptKeys()
    vector: VectorName | None = None
    words: VectorName | Literal[False] = "words"
    idf: StrictBool = True
    tiers: StrictBool = False
    shared_shard: VectorName = "shared"
    promote_rows: int = Field(default=20_000, ge=1)
    dimension: int = Field(ge=1, le=65_536)
    metric: Literal["cosine", "inner", "l2"] = "cosine"
    payload_m: int = Field(default=16, ge=2, le=256)
    hnsw_ef: int | None = Field(default=None, ge=1, le=10_000)
    parallel: int = Field(default=8, ge=1, le=256)
    page: int = Field(default=1000, ge=2, le=10_000)
    max_batch: int = Field(default=1000, ge=1, le=10_000)
    max_k: int = Field(default=10_000, ge=1, le=10_000)
    max_request_bytes: int = Field(default=30_000_000, ge=10_000)
    request_timeout: int = Field(default=30, ge=1, le=3600)

    @model_validator(mode="after")
    def _one_place(self) -> QdrantConfig:
        if sum((self.url is not None, self.path is not None, self.memory)) != 1:
            raise ValueError("set exactly one of url, path and memory = true")
        if self.name is not None and not self.memory:
            raise ValueError("name can only be used with memory = true")
        if (self.api_key is not None or self.grpc) and self.url is None:
            raise ValueError("api_key and grpc can only be used with url")
        if self.ca_file is not None and not (self.url or "").startswith("https://"):
            raise ValueError("ca_file can only be used with an https url")
        if self.tiers and self.url is None:
            raise ValueError("tiers can only be used with url: local mode does not separate shards")
        if self.words is not False and self.words == self.vector:
            raise ValueError("vector and words have the same name")
        return self

    @property
    def local(self) -> bool:
        """Whether the client's local mode stands in for a server."""
        return self.url is None
