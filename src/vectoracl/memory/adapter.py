"""The flows of the memory adapter: each operation is one request, which filters rows before it ranks them."""

from __future__ import annotations

from collections.abc import Mapping

from vectoracl.adapter_api.chunk_validation import check_tagged
from vectoracl.adapter_api.contract import Capabilities, Flow
from vectoracl.adapter_api.operations import (
    Count,
    Delete,
    Facets,
    Fetch,
    Found,
    Relabel,
    Replace,
    Rows,
    Scan,
    Search,
    UpdateMetadata,
    Upsert,
)
from vectoracl.adapter_api.posture import Posture
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.filters.predicate import NODES
from vectoracl.memory.config import MemoryConfig
from vectoracl.memory.ports import ChangeLabels, ChangeMetadata, Look, Perform, RankAll
from vectoracl.model.queries import ResolvedQuery
from vectoracl.model.records import Facet


def capabilities(config: MemoryConfig) -> Capabilities:
    """Return the capabilities: each partition is a separate dictionary, chosen by vectoracl."""
    return Capabilities(
        grade="partition",
        metric=config.metric,
        dimension=config.dimension,
        operations=frozenset({"search", "fetch", "count", "scan", "upsert", "replace", "delete"}),
        predicates=frozenset(NODES),
        queries=frozenset({"vector", "lexical", "hybrid"}),
        facets="exact",
        verbatim=True,
        relabel="transaction",
        atomic_update="transaction",
    )


class MemoryAdapter:
    """Keeps rows in one dictionary per partition; ranks only the rows that the scope permits."""

    def __init__(self, config: MemoryConfig, fields: Mapping[str, FieldType]) -> None:
        self._capabilities = capabilities(config)
        self.fields = fields

    @property
    def capabilities(self) -> Capabilities:
        """The adapter's capabilities."""
        return self._capabilities

    def search(self, operation: Search) -> Flow[Found]:
        """Rank inside the scope, exactly."""
        reply: Found = yield from Perform(operation.partition, operation)
        return reply

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Return chunks by id."""
        reply: Rows = yield from Perform(operation.partition, operation)
        return reply

    def count(self, operation: Count) -> Flow[int]:
        """Count."""
        reply: int = yield from Perform(operation.partition, operation)
        return reply

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Count by value."""
        name = operation.field
        kind = TAG_FIELDS[name] if name in TAG_FIELDS else self.fields[name]
        reply: list[Facet] = yield from Perform(operation.partition, operation, kind)
        return reply

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Return one page."""
        reply: Rows = yield from Perform(operation.partition, operation)
        return reply

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write all or none."""
        check_tagged(operation.records, operation.partition)
        reply: int = yield from Perform(operation.partition, operation)
        return reply

    def replace(self, operation: Replace) -> Flow[int]:
        """Make a new generation of one document."""
        check_tagged(operation.records, operation.partition)
        reply: int = yield from Perform(operation.partition, operation)
        return reply

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Delete and count."""
        reply: int = yield from Perform(operation.partition, operation)
        return reply

    def relabel(self, operation: Relabel) -> Flow[int | None]:
        """Write the labels of documents into their chunks."""
        return (yield from ChangeLabels(operation.partition, operation))

    def update_metadata(self, operation: UpdateMetadata) -> Flow[int]:
        """Change the metadata of a document's chunks."""
        return (yield from ChangeMetadata(operation.partition, operation))

    def posture(self) -> Flow[Posture]:
        """Return the posture; nothing can be misconfigured."""
        return (yield from Look(None))

    def unscoped(self, query: ResolvedQuery, k: int) -> Flow[Found]:
        """Rank over all partitions, for `hazmat`."""
        return (yield from RankAll(None, query, k))
