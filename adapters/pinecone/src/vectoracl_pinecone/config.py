"""The configuration of a Pinecone store: `[stores.NAME]` with adapter = "pinecone"."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, model_validator

from vectoracl.adapter_api.settings import Model, Secret

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\Z")
_PREFIX = re.compile(r"[a-z][a-z0-9-]{0,30}-\Z")
_INDEX = re.compile(r"[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?\Z")
MAX_REQUEST_BYTES = 2_000_000
MAX_UPSERT = 1000
MAX_TOP_K = 10_000


def _key(value: str) -> str:
    # Dots and $ have a meaning in filters or may get one; a key without them is a name and nothing else.
    if not _KEY.match(value):
        raise ValueError("must be a metadata key of at most 63 letters, digits and _")
    return value


def _prefix(value: str) -> str:
    # Never empty: a tenant's namespace could then be the default one, or that of another application.
    if not _PREFIX.match(value):
        raise ValueError(
            "must have at most 32 lower-case letters, digits and -, and must begin with a letter and end with -"
        )
    if re.search(r"-[txh]-", value):
        # Otherwise tenants of two prefixes in one index could share a namespace.
        raise ValueError("must not contain -t-, -x- or -h-, which precede a tenant's name")
    return value


def _index(value: str) -> str:
    if not _INDEX.match(value):
        raise ValueError("must be an index name of at most 45 lower-case letters, digits and -")
    return value


MetadataKey = Annotated[str, AfterValidator(_key)]
NamespacePrefix = Annotated[str, AfterValidator(_prefix)]
IndexName = Annotated[str, AfterValidator(_index)]


class Keys(Model):
    """`[stores.NAME.keys]`: the metadata keys (in a document index, the fields) of the tag.

    `record` repeats the record's id, so that a filter can name records. `fields` is the prefix of metadata that filters
    can use, `present` the prefix of the markers of present metadata, and `metadata` the metadata as it was written
    (JSON text). `version` distinguishes the records of concurrent replacements. `words` are the indices of the text's
    words, with `lexical`.
    """

    tenant: MetadataKey = "acl_tenant"
    document: MetadataKey = "acl_document"
    generation: MetadataKey = "acl_generation"
    docgen: MetadataKey = "acl_docgen"
    chunk: MetadataKey = "acl_chunk"
    label: MetadataKey = "acl_label"
    rev: MetadataKey = "acl_rev"
    expires: MetadataKey = "acl_expires"
    producer: MetadataKey = "acl_producer"
    path: MetadataKey = "acl_path"
    time: MetadataKey = "acl_time"
    position: MetadataKey = "acl_position"
    version: MetadataKey = "acl_version"
    record: MetadataKey = "acl_record"
    text: MetadataKey = "acl_text"
    metadata: MetadataKey = "acl_metadata"
    words: MetadataKey = "acl_words"
    fields: MetadataKey = "field_"
    present: MetadataKey = "has_"

    @model_validator(mode="after")
    def _distinct(self) -> Keys:
        names = self.model_dump()
        if len(set(names.values())) != len(names):
            raise ValueError("two metadata keys have the same name")
        fields, present = names.pop("fields"), names.pop("present")
        if fields.startswith(present) or present.startswith(fields):
            raise ValueError("the prefixes fields and present must not begin alike")
        if any(name.startswith((fields, present)) for name in names.values()):
            raise ValueError("a key of the tag begins with the prefix of the user's metadata")
        return self


class Adopt(Model):
    """`[stores.NAME.adopt]`: the metadata keys of existing records, if they are not recognised by their names.

    `text` may be inside JSON that is stored as text: `_node_content->>text`. `prefix` is put before the ids of chunks
    and documents, for namespaces with the same ids.
    """

    tenant: str | None = Field(default=None, min_length=1)
    document: str | None = Field(default=None, min_length=1)
    text: str | None = Field(default=None, min_length=1)
    prefix: str = Field(default="", max_length=64)


class PineconeConfig(Model):
    """`[stores.NAME]` with adapter = "pinecone".

    The index is given by `index` (its host and kind are looked up once, when the store is opened) or by `host`, its
    data-plane address; with both, nothing is looked up. `control_host` is the address of the control plane, if it is
    not Pinecone's. `kind` is "vector" or "document"; None: according to the index's schema (with `host` alone:
    "vector"). `vector_field` is the field of the dense vector in a document index.

    `namespace_prefix` begins every tenant's namespace. `negation` selects the filter for "none of these values is in
    the list": "not" uses `$not`, which some servers refuse; "nin" uses `$nin`, for servers whose `$nin` is known to be
    the complement of `$in` also for lists. `fetch_by_metadata` None: it is tried once.
    `wait_visible` is the maximum time in seconds that a write waits until readers see it (0: it does not wait);
    `rate_limit_wait` is the maximum time in seconds that the rate limit may delay a request, including retries.
    `page` is the number of complete records per request: a record has up to 40 KB of metadata, and a reply up to 4 MB.
    With `split_upserts`, one call can be several requests, which are then not atomic.

    `lexical` stores each text's words as a sparse vector, for lexical and hybrid queries: in a vector index next to the
    dense one, which Pinecone supports only with the metric "dotproduct"; in a document index in the sparse field
    `words_field`. It requires `kind`.
    """

    api_key: Secret
    index: IndexName | None = None
    host: str | None = Field(default=None, min_length=1)
    control_host: str | None = Field(default=None, min_length=1)
    kind: Literal["vector", "document"] | None = None
    vector_field: MetadataKey = "embedding"
    lexical: StrictBool = False
    words_field: MetadataKey = "words"
    namespace_prefix: NamespacePrefix = "vectoracl-"
    keys: Keys = Keys()
    adopt: Adopt = Adopt()
    dimension: int = Field(ge=1, le=20_000)
    metric: Literal["cosine", "inner", "l2"] = "cosine"
    negation: Literal["not", "nin"] = "not"
    fetch_by_metadata: StrictBool | None = None
    check_complete: StrictBool = True
    wait_visible: float = Field(default=0.0, ge=0, le=600)
    rate_limit_wait: float = Field(default=10.0, ge=0, le=600)
    request_timeout: float = Field(default=30.0, gt=0, le=3600)
    parallel: int = Field(default=8, ge=1, le=64)
    page: int = Field(default=100, ge=2, le=1000)
    max_batch: int = Field(default=MAX_UPSERT, ge=1, le=10_000)
    max_k: int = Field(default=MAX_TOP_K, ge=1, le=MAX_TOP_K)
    split_upserts: StrictBool = False
    cloud: str = Field(default="aws", min_length=1)
    region: str = Field(default="us-east-1", min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> PineconeConfig:
        if self.index is None and self.host is None:
            raise ValueError("set index, host, or both")
        if self.max_batch > MAX_UPSERT and not self.split_upserts:
            raise ValueError(
                f"a request has at most {MAX_UPSERT} records: a larger max_batch needs split_upserts = true"
            )
        fields = [self.vector_field, *self.keys.model_dump().values()]
        if self.lexical:
            fields.append(self.words_field)
            if self.kind is None:
                raise ValueError(
                    'lexical = true also needs kind = "vector" or kind = "document": they store words differently'
                )
            if self.kind == "vector" and self.metric != "inner":
                raise ValueError(
                    "a vector index supports words only with the inner product: with lexical = true set metric = "
                    '"inner" (for normalised vectors it equals the cosine), or use a document index, kind = "document"'
                )
        if len(set(fields)) != len(fields):
            raise ValueError("vector_field, words_field and the metadata keys must be different names")
        return self
