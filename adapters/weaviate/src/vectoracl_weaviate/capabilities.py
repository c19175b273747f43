"""The capabilities of the Weaviate adapter, which depend on its configuration."""

from __future__ import annotations

from vectoracl.adapter_api.contract import Capabilities
from vectoracl_weaviate.compile_predicate import PREDICATES
from vectoracl_weaviate.config import WeaviateConfig


def capabilities(config: WeaviateConfig) -> Capabilities:
    """Return the capabilities.

    The grade is "engine": the server refuses a request that names no tenant, and answers one tenant's from its own
    shard alone. With a key for each tenant it is "credential". A batch is not a transaction, so neither an upsert nor
    a replacement is declared atomic, although readers see one version (`adapter.WeaviateAdapter.replace`). BM25's
    statistics are those of the tenant's shard.
    """
    whole = (config.replication_factor or 1) == 1
    return Capabilities(
        grade="engine" if config.tenant_keys is None else "credential",
        metric=config.metric,
        dimension=config.dimension,
        operations=frozenset({"search", "fetch", "count", "scan", "upsert", "replace", "delete"}),
        predicates=PREDICATES,
        queries=frozenset({"vector", "lexical", "hybrid"}),
        lexical_scores="partition",
        count="exact",
        facets="exact",
        exact=config.index == "flat",
        atomic_upsert=False,
        atomic_replace=False,
        visible="immediate" if whole and not config.async_indexing else "eventual",
        max_batch=config.max_batch,
        max_k=config.max_k,
        deadlines="client",
        parallel=config.parallel,
        verbatim=True,
        relabel="blind",
        governed_numbers="rows",
    )
