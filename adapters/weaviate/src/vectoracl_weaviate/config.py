"""The configuration of a Weaviate store: `[stores.NAME]` with adapter = "weaviate"."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictBool, model_validator

from vectoracl.adapter_api.settings import Model, Secret

# Weaviate folds the first letter of a property to lower case and that of a collection to upper case: such names are
# refused here, so that what is configured is what is there.
_PROPERTY = re.compile(r"[a-z_][A-Za-z0-9_]{0,62}\Z")
_COLLECTION = re.compile(r"[A-Z][A-Za-z0-9_]{0,127}\Z")
_VECTOR = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\Z")
_RESERVED = frozenset({"id", "_id", "_additional", "_creationTimeUnix", "_lastUpdateTimeUnix"})


def _property(value: str) -> str:
    if not _PROPERTY.match(value) or value in _RESERVED or value.startswith("m_"):
        raise ValueError(
            "must be a property name of letters, digits and _ that begins with a lower-case letter or _, but not m_"
        )
    return value


def _collection(value: str) -> str:
    if not _COLLECTION.match(value):
        raise ValueError("must be a collection name of letters, digits and _ that begins with a capital letter")
    return value


def _vector(value: str) -> str:
    if not _VECTOR.match(value):
        raise ValueError("must be a name of at most 63 letters, digits and _")
    return value


PropertyName = Annotated[str, AfterValidator(_property)]
CollectionName = Annotated[str, AfterValidator(_collection)]
VectorName = Annotated[str, AfterValidator(_vector)]


class Properties(Model):
    """The property names, where they are not ours. Metadata fields have separate properties, which begin with m_.

    `present` lists the declared fields that an object has, `metadata` the metadata as it was written (JSON text),
    `seek` the key that sorts as document, generation and chunk id do. `version` distinguishes the objects of one
    replacement from those of another; `pending` and `committed` say that a document is being replaced.
    """

    tenant: PropertyName = "tenant"
    document: PropertyName = "document"
    generation: PropertyName = "generation"
    docgen: PropertyName = "docgen"
    chunk: PropertyName = "chunk_id"
    label: PropertyName = "label"
    rev: PropertyName = "rev"
    expires: PropertyName = "expires"
    producer: PropertyName = "producer"
    path: PropertyName = "path"
    time: PropertyName = "written_at"
    position: PropertyName = "position"
    seek: PropertyName = "seek"
    version: PropertyName = "version"
    pending: PropertyName = "pending"
    committed: PropertyName = "committed"
    text: PropertyName = "content"
    metadata: PropertyName = "metadata"
    present: PropertyName = "present"

    @model_validator(mode="after")
    def _distinct(self) -> Properties:
        names = [name.lower() for name in self.model_dump().values()]
        if len(set(names)) != len(names):
            raise ValueError("two properties have the same name (case is ignored)")
        return self


class AdoptProperties(Model):
    """`[stores.NAME.adopt]`: what the objects of an existing collection hold, where `--adopt` cannot tell by itself.

    Each is a property's name; `vector` is the name of a vector ("" for the unnamed one). `tenant` is for a collection
    without tenants, or for one whose tenants' names are not the tenants' ids. Every other property becomes
    metadata, unless it is in `leave_out`. Without `chunk` an object's id is the chunk's. `text` may lie in JSON that is
    kept as a text: `_node_content->>text`. `prefix` comes in front of the ids of chunks and documents.
    """

    tenant: str | None = Field(default=None, min_length=1)
    document: str | None = Field(default=None, min_length=1)
    chunk: str | None = Field(default=None, min_length=1)
    text: str | None = Field(default=None, min_length=1)
    vector: str | None = None
    leave_out: tuple[str, ...] = ()
    prefix: str = Field(default="", max_length=64)


class Node(Model):
    """One more address of the same cluster: REST, and gRPC on the same host where no other is named."""

    url: str = Field(min_length=1)
    grpc_host: str | None = Field(default=None, min_length=1)
    grpc_port: int = Field(default=50_051, ge=1, le=65_535)

    @property
    def grpc_target(self) -> str:
        """Host and port of gRPC."""
        return _target(self.grpc_host or urlsplit(self.url).hostname or "", self.grpc_port)


def _target(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_url(url: str) -> str:
    """Return the scheme of *url*. Raises: ValueError if it is not exactly an address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.rstrip("/") or parts.query:
        raise ValueError("url must be http://host:port or https://host:port")
    if parts.username or parts.password:
        raise ValueError("url must not contain credentials; use api_key")
    return parts.scheme


class WeaviateConfig(Model):
    """`[stores.NAME]` with adapter = "weaviate".

    `url` is the REST address; gRPC goes to `grpc_port` of `grpc_host` (None: the same host), encrypted if the address
    is https; `ca_file` is a PEM file (relative to the config's folder) with the only authority that is trusted then,
    for both. `api_key` is the key that the process acts with. `tenant_keys` names a file of keys, one for each tenant
    (relative to the config's folder), which `vectoracl provision` and `vectoracl tenants create` write: with it every
    request about rows is sent with its tenant's key, and `api_key` needs no rights on rows. `operator_key` is used by
    the command line only.
    `dimension` counts the numbers of a vector. `index` is "hnsw", "flat" (exact, for small tenants) or "dynamic"
    (flat up to `dynamic_threshold` vectors of a tenant, then HNSW; the server has to run with ASYNC_INDEXING).
    `async_indexing` says that the server does so, which makes writes visible to searches only after a while.
    `new_tenants` is whether the first write of a tenant creates it ("create"), or whether the operator does.
    `page` bounds the objects of one answer of a listing, `max_request_bytes` one request.
    `nodes` are further addresses of the same cluster, tried in turn where one does not answer. `replication_factor` is
    how many nodes keep each tenant (None: the server's default, when the collection is created). `consistency` is how
    many of them a write, and the reading of an object, waits for (None: the server's default).
    """

    url: str = Field(min_length=1)
    grpc_host: str | None = Field(default=None, min_length=1)
    grpc_port: int = Field(default=50_051, ge=1, le=65_535)
    nodes: tuple[Node, ...] = Field(default=(), max_length=64)
    replication_factor: int | None = Field(default=None, ge=1, le=64)
    consistency: Literal["one", "quorum", "all"] | None = None
    ca_file: Path | None = None
    api_key: Secret | None = None
    operator_key: Secret | None = None
    tenant_keys: Path | None = None
    collection: CollectionName = "Vectoracl"
    vector: VectorName = "default"
    properties: Properties = Properties()
    adopt: AdoptProperties = AdoptProperties()
    dimension: int = Field(ge=1, le=65_535)
    metric: Literal["cosine", "inner", "l2"] = "cosine"
    index: Literal["hnsw", "flat", "dynamic"] = "hnsw"
    dynamic_threshold: int = Field(default=10_000, ge=100, le=1_000_000)
    async_indexing: StrictBool = False
    max_connections: int = Field(default=32, ge=4, le=2047)
    ef_construction: int = Field(default=128, ge=4, le=4096)
    new_tenants: Literal["create", "refuse"] = "create"
    parallel: int = Field(default=8, ge=1, le=256)
    page: int = Field(default=1000, ge=2, le=9_999)
    max_batch: int = Field(default=1000, ge=1, le=10_000)
    max_k: int = Field(default=9_999, ge=1, le=9_999)
    max_request_bytes: int = Field(default=64_000_000, ge=10_000)
    request_timeout: float = Field(default=30.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _whole(self) -> WeaviateConfig:
        scheme = _check_url(self.url)
        if {_check_url(one.url) for one in self.nodes} - {scheme}:
            raise ValueError("the addresses of a cluster must all be http or all be https")
        if self.ca_file is not None and scheme != "https":
            raise ValueError("ca_file can only be used with an https url")
        if self.index == "dynamic" and not self.async_indexing:
            raise ValueError('index = "dynamic" needs a server with ASYNC_INDEXING: set async_indexing = true')
        if self.tenant_keys is not None and self.new_tenants == "create" and "new_tenants" in self.model_fields_set:
            raise ValueError('with tenant_keys the operator creates tenants: new_tenants cannot be "create"')
        return self

    @property
    def secure(self) -> bool:
        """Whether the connections are encrypted."""
        return urlsplit(self.url).scheme == "https"

    @property
    def grpc_target(self) -> str:
        """Host and port of gRPC."""
        return _target(self.grpc_host or urlsplit(self.url).hostname or "", self.grpc_port)

    @property
    def addresses(self) -> tuple[tuple[str, str], ...]:
        """The REST address and the gRPC target of each node that is known."""
        return ((self.url, self.grpc_target), *((one.url, one.grpc_target) for one in self.nodes))

    @property
    def anonymous(self) -> bool:
        """Whether requests carry no key at all."""
        return self.api_key is None and self.tenant_keys is None

    @property
    def creates(self) -> bool:
        """Whether a first write creates its tenant."""
        return self.tenant_keys is None and self.new_tenants == "create"
