"""Chooses the way of a search by words: by the index of the tenant's own partition where one is proved usable.

What is known of a tenant is remembered: an index, or that its rows are in the partition that tenants share, where there
is none. Every reply shows in which partition its rows are, so a promotion is noticed by the next search. An index that
has vanished, or that fails, is forgotten, and the search is repeated without it.
"""

from __future__ import annotations

from collections.abc import Callable

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Search
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import Always, Predicate
from vectoracl_pgvector.compile import PgCompiler
from vectoracl_pgvector.decode import IN_SHARED
from vectoracl_pgvector.requests import Row
from vectoracl_pgvector.word_index import MAX_RANKED, WordIndex, found

_REMEMBERED = 10_000
# The index was dropped, may not be used, or is damaged. A lost connection or a time limit is not the index's fault.
_FAULTS = frozenset({"not_provisioned", "rejected", "internal"})


class WordSearch:
    """The indexes of words that one adapter knows."""

    def __init__(self, compiler: Callable[[], PgCompiler]) -> None:
        self._compiler = compiler
        self._known: dict[str, WordIndex | None] = {}

    def run(
        self, partition: str, search: Callable[[WordIndex | None], Flow[list[Row]]]
    ) -> Flow[tuple[list[Row], WordIndex | None]]:
        """Run *search* with the index of *partition*, or with None, also if the index fails; return which it was."""
        index = yield from self.index(partition)
        if index is not None:
            try:
                rows = yield from search(index)
            except StoreError as error:
                if error.code not in _FAULTS and not error.code.startswith("sqlstate:"):
                    raise
                self._known.pop(partition, None)
            else:
                return rows, index
        rows = yield from search(None)
        if index is None:
            self._learn(partition, rows)
        return rows, None

    def index(self, partition: str) -> Flow[WordIndex | None]:
        """Return the usable index of *partition*, from memory or from the catalogs."""
        if partition in self._known:
            return self._known[partition]
        (rows,) = yield from self._compiler().find_words(partition)
        index = found(self._compiler().config, partition, rows)
        if index is not None:
            self._remember(partition, index)
        return index

    def explain(self, partition: str, scope: Predicate) -> Flow[str]:
        """Return the way of a search by words in *scope*, and the reason."""
        self._known.pop(partition, None)
        index = yield from self.index(partition)
        if index is None:
            return "by BM25 over all rows of the tenant: it has no usable index of words"
        if type(scope) is Always:
            return f"by BM25 through the index {index.name}: all rows of the tenant are visible"
        return (
            f"by BM25 through the index {index.name}, skipping rows that are not visible, or over the visible rows if "
            "it gives too few"
        )

    def _learn(self, partition: str, rows: list[Row]) -> None:
        """Remember that *partition* is in the shared partition, or ask for its index at the next search."""
        if rows and rows[0][IN_SHARED]:
            self._remember(partition, None)
        else:
            self._known.pop(partition, None)

    def _remember(self, partition: str, index: WordIndex | None) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[partition] = index


def is_complete(operation: Search, rows: list[Row], index: WordIndex | None) -> bool:
    """Return whether *rows*, ranked by *index*, are min(k, all) of the rows that match.

    The index returns rows in order and skips those that do not meet the conditions, until it has k. It stops after a
    number of entries, those of deleted rows included, and the server has no exact number of these: statistics lag
    behind, are lost in a crash, and do not know uncommitted deletions. So fewer than k rows of the index prove nothing.
    """
    return index is None or not ranks(operation) or len(rows) >= operation.k


def ranks(operation: Search) -> bool:
    """Return whether an index of words may rank the rows of *operation*; otherwise it only provides statistics."""
    return not operation.exact and operation.group_by is None and operation.k <= MAX_RANKED
