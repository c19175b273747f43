"""The capabilities of the Qdrant adapter, which depend on its configuration."""

from __future__ import annotations

from vectoracl.adapter_api.contract import Capabilities
from vectoracl_qdrant.compile_predicate import PREDICATES
from vectoracl_qdrant.config import QdrantConfig

MAX_EF = 10_000
WRITES_IN_FLIGHT = 8
NUMBER_BYTES = 24
"""The most bytes of a float in JSON, with its comma."""


def capabilities(config: QdrantConfig) -> Capabilities:
    """Return the capabilities.

    The grade is "predicate": our filter is the wall. Strict mode without exact search is the tripwire on a server,
    and its price is that exact ranking is refused and that counts are paged, those by value too: the server's facets
    are estimates unless they are exact, and exact ones are refused. A replacement is several operations, so
    it is not declared atomic, although readers see one version (`adapter.QdrantAdapter.replace`). Lexical scores hold
    statistics of the scope with `idf`, and depend on the chunk alone without it.
    """
    return Capabilities(
        grade="predicate",
        metric=config.metric,
        queries=frozenset({"vector"} if config.words is False else {"vector", "lexical", "hybrid"}),
        lexical_scores="partition" if config.idf else "comparable",
        dimension=config.dimension,
        operations=frozenset({"search", "fetch", "count", "scan", "upsert", "replace", "delete"}),
        predicates=PREDICATES,
        count="paged",
        facets="paged",
        exact=config.local,
        atomic_replace=False,
        max_batch=config.max_batch,
        max_write_bytes=config.max_request_bytes,
        number_bytes=NUMBER_BYTES,
        writes_in_flight=1 if config.local else min(WRITES_IN_FLIGHT, config.parallel),
        max_k=config.max_k,
        deadlines="none" if config.local else "client",
        parallel=1 if config.local else config.parallel,
        verbatim=True,
        relabel="conditional",
        tuning={} if config.local else {"hnsw_ef": (1, MAX_EF)},
    )
