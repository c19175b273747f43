"""The capabilities of the pgvector adapter, as configured."""

from __future__ import annotations

from vectoracl.adapter_api.contract import Capabilities
from vectoracl_pgvector.compile import MAX_EF
from vectoracl_pgvector.compile_predicate import PREDICATES
from vectoracl_pgvector.config import PgvectorConfig


def capabilities(config: PgvectorConfig) -> Capabilities:
    """Return the capabilities; forced row-level security with a setting gives the grade "engine"."""
    return Capabilities(
        grade="engine",
        metric=config.metric,
        dimension=config.dimension,
        operations=frozenset({"search", "fetch", "count", "scan", "upsert", "replace", "delete"}),
        predicates=PREDICATES,
        queries=frozenset({"vector", "lexical", "hybrid"}) if config.lexical else frozenset({"vector"}),
        lexical_scores="comparable" if config.words == "ts_rank" else "partition",
        facets="exact",
        max_batch=config.max_batch,
        deadlines="server",
        parallel=config.pool_max,
        verbatim=True,
        relabel="transaction",
        atomic_update="transaction",
        vectors="half" if config.type == "halfvec" else "single",
        tuning={"ef_search": (1, MAX_EF)},
    )
