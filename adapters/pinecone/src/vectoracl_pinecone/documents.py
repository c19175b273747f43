"""The documents API: the same requests for a document index, in which metadata keys are the documents' fields.

Every call has the namespace in its path, and the client refuses an empty one. A listing is a paginator there, of which
one page is read.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from pinecone import DenseVectorField, SparseValues, SparseVectorField
from pinecone.models.documents.score_by import DenseVectorQuery, SparseVectorQuery

from vectoracl.errors import StoreError
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.names import DEFAULT_NAMESPACE, unused_namespace
from vectoracl_pinecone.requests import (
    ANY_WORD,
    AnyRequest,
    DefaultNamespaceProbe,
    Describe,
    Done,
    FetchBy,
    Listing,
    Match,
    MayRank,
    MayRead,
    MayWrite,
    Page,
    Patch,
    Put,
    Query,
    Record,
    Remove,
    Settle,
    SourceIds,
    SourceRows,
    Sparse,
    Stats,
)

_VECTOR_INDEX_FIELD = "_values"
_VECTOR_INDEX_FIELDS = frozenset({_VECTOR_INDEX_FIELD, "_sparse_values"})
_ALL_FIELDS = ["*"]
_READ = ("tenant", "document", "chunk", "generation", "label", "rev", "expires", "producer", "path", "time", "position",
         "text", "metadata")  # fmt: skip


def kind_of(found: Any) -> str:
    """Tell from an index's description whether it is a vector index, whose fields are reserved, or a document index."""
    return "vector" if _VECTOR_INDEX_FIELDS & set(found.schema.fields) else "document"


def stats_of(found: Any, config: PineconeConfig) -> Stats:
    """Return an index's description, as the control plane gives it."""
    fields: Mapping[str, Any] = found.schema.fields
    kind = kind_of(found)
    vector = fields.get(_VECTOR_INDEX_FIELD if kind == "vector" else config.vector_field)
    dense = tuple(sorted(name for name, one in fields.items() if isinstance(one, DenseVectorField)))
    sparse = tuple(sorted(name for name, one in fields.items() if isinstance(one, SparseVectorField)))
    return Stats(
        getattr(vector, "dimension", None), getattr(vector, "metric", None), 0, {}, kind, found.name, dense, sparse
    )


def call(index: Any, config: PineconeConfig, request: AnyRequest, timeout: float) -> Any:
    """Make the one call of *request* in the documents API."""
    documents = index.documents
    match request:
        case Query():
            fields = _read(config) if request.metadata else []
            if request.values:
                fields.append(config.vector_field)
            return documents.search(
                namespace=request.namespace,
                score_by=[
                    DenseVectorQuery(field=config.vector_field, values=request.vector)
                    if request.words is None
                    else _by_words(config, request.words)
                ],
                top_k=request.top_k,
                include_fields=fields,
                filter=request.filter,
                timeout=timeout,
            )
        case Listing():
            pages = documents.list(
                namespace=request.namespace,
                prefix=request.prefix,
                limit=request.limit,
                pagination_token=request.token,
                timeout=timeout,
            ).pages()
            return anext(pages) if hasattr(pages, "__anext__") else next(pages)
        case SourceIds():
            pages = documents.list(
                namespace=request.namespace, limit=100, pagination_token=request.token, timeout=timeout
            ).pages()
            return anext(pages) if hasattr(pages, "__anext__") else next(pages)
        case SourceRows():
            return documents.fetch(
                namespace=request.namespace, ids=list(request.ids), include_fields=_ALL_FIELDS, timeout=timeout
            )
        case FetchBy():
            return documents.fetch(
                namespace=request.namespace,
                filter=request.filter,
                include_fields=[*_read(config), config.vector_field],
                limit=request.limit,
                pagination_token=request.token,
                timeout=timeout,
            )
        case Put():
            return documents.upsert(
                namespace=request.namespace,
                documents=[_document(config, one) for one in request.records],
                timeout=timeout,
            )
        case Patch():
            return documents.update(
                namespace=request.namespace, documents=[{"_id": request.id, **request.metadata}], timeout=timeout
            )
        case Remove():
            if (request.ids is None) == (request.filter is None) or request.ids == () or request.filter == {}:
                raise StoreError("A delete needs exactly one selector.", code="rejected", adapter="pinecone", sent="no")
            return documents.delete(
                namespace=request.namespace,
                ids=None if request.ids is None else list(request.ids),
                filter=request.filter,
                timeout=timeout,
            )
        case Describe():
            return index.describe_index_stats(timeout=timeout)
        case MayRead():
            vector = [1.0] + [0.0] * (config.dimension - 1)
            return documents.search(
                namespace=unused_namespace(config.namespace_prefix),
                score_by=[DenseVectorQuery(field=config.vector_field, values=vector)],
                top_k=1,
                include_fields=[],
                timeout=timeout,
            )
        case MayRank():
            return documents.search(
                namespace=unused_namespace(config.namespace_prefix),
                score_by=[_by_words(config, ANY_WORD)],
                top_k=1,
                include_fields=[],
                timeout=timeout,
            )
        case DefaultNamespaceProbe():
            # Here it is a name like any other, and one that a careless writer would take.
            pages = documents.list(namespace=DEFAULT_NAMESPACE, limit=1, timeout=timeout).pages()
            return anext(pages) if hasattr(pages, "__anext__") else next(pages)
        case MayWrite():
            return documents.delete(
                namespace=unused_namespace(config.namespace_prefix),
                ids=[f"none-{secrets.token_hex(8)}"],
                timeout=timeout,
            )
    raise StoreError("This is not a call of the data plane.", code="rejected", adapter="pinecone", sent="no")


def _read(config: PineconeConfig) -> list[str]:
    """Return the fields that a reply is read for: not the vectors, nor what is only filtered by."""
    return [getattr(config.keys, one) for one in _READ]


def _by_words(config: PineconeConfig, words: Sparse) -> SparseVectorQuery:
    """Return the scoring by words alone: in a document index a search has one signal."""
    return SparseVectorQuery(field=config.words_field, sparse_values=SparseValues(words.indices, words.values))


def _document(config: PineconeConfig, one: Record) -> dict[str, Any]:
    document = {"_id": one.id, config.vector_field: one.values, **one.metadata}
    return document if one.words is None else {**document, config.words_field: one.words._asdict()}


def reply_of(config: PineconeConfig, request: AnyRequest, answer: Any) -> Any:
    """Return the documents client's *answer* as the reply of *request*."""
    vectors = (config.vector_field, config.words_field if config.lexical else config.vector_field)
    match request:
        case Query():
            return tuple(_match(one.id, one.score or 0.0, one.to_dict(), vectors) for one in answer.matches)
        case SourceRows():
            return tuple(_match(id_, 0.0, one.to_dict(), vectors) for id_, one in answer.documents.items())
        case Listing() | SourceIds():
            return Page(tuple(Match(one.id) for one in answer.items), answer.pagination_token)
        case FetchBy():
            rows = tuple(_match(id_, 0.0, one.to_dict(), vectors) for id_, one in answer.documents.items())
            return Page(rows, None if answer.pagination is None else answer.pagination.next)
        case Put() | Remove():
            info = answer.response_info
            return Done(None if info is None else info.lsn_committed)
    return None if isinstance(request, Settle) else answer


def _match(id_: str, score: float, fields: Mapping[str, Any], vectors: tuple[str, str]) -> Match:
    """Return a document; *vectors* are the fields of its dense and its sparse vector."""
    metadata = {name: value for name, value in fields.items() if name not in ("_id", "_score", *vectors)}
    return Match(id_, score, metadata, fields.get(vectors[0]))
