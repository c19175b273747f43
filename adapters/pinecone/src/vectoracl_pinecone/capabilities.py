"""The capabilities of the Pinecone adapter, which depend on its configuration."""

from __future__ import annotations

from vectoracl.adapter_api.contract import Capabilities
from vectoracl_pinecone.compile import MAX_METADATA_BYTES, NUMBER_BYTES
from vectoracl_pinecone.compile_predicate import PREDICATES
from vectoracl_pinecone.config import MAX_REQUEST_BYTES, PineconeConfig

WRITES_IN_FLIGHT = 8
LOAD_BYTES = MAX_REQUEST_BYTES // 2
"""The bytes of a batch of a load: smaller requests overlap better."""


def capabilities(config: PineconeConfig) -> Capabilities:
    """Return the capabilities.

    The grade is "partition": a namespace is a physical part of the index, and we choose it; the key reaches them all.
    Ranking may be approximate and reads may be behind writes, as Pinecone's documentation says. An upsert is one
    request unless `split_upserts` is set; a replacement is several, new before old. Lexical and hybrid queries rest on
    sparse vectors that the adapter makes, with `lexical`: a score depends on the chunk alone. A document index's BM25
    is not used: whether its statistics are the namespace's own or the whole index's is not documented, so another
    tenant's texts could show in the scores.
    """
    return Capabilities(
        grade="partition",
        metric=config.metric,
        dimension=config.dimension,
        operations=frozenset({"search", "fetch", "count", "scan", "upsert", "replace", "delete"}),
        predicates=PREDICATES,
        queries=frozenset({"vector", "lexical", "hybrid"} if config.lexical else {"vector"}),
        lexical_scores="comparable",
        count="paged",
        exact=False,
        atomic_upsert=not config.split_upserts,
        atomic_replace=False,
        visible="eventual",
        max_batch=config.max_batch,
        max_write_bytes=None if config.split_upserts else LOAD_BYTES,
        number_bytes=NUMBER_BYTES,
        writes_in_flight=min(WRITES_IN_FLIGHT, config.parallel),
        max_chunk_bytes=MAX_METADATA_BYTES,
        max_k=config.max_k,
        deadlines="client",
        parallel=config.parallel,
        verbatim=True,
        relabel="blind",
        governed_numbers="rows",
    )
