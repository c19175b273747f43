"""Harnesses of a store with `words = "bm25"`, for the checks of lexical and hybrid queries.

`harness` leaves the tenants in the shared partition. `indexed` gives each tenant its own partition with an index of
words as soon as it has rows; it needs a server with `pg_textsearch`, which VECTORACL_PGVECTOR_KIT names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from vectoracl.model.records import Record
from vectoracl_conformance.harness import Needs, Store
from vectoracl_pgvector.conformance.harness import PgStore, PgvectorHarness
from vectoracl_pgvector.word_index import EXTENSION


class WordsStore(PgStore):
    """A database whose words are ranked by BM25."""

    settings: ClassVar = {"words": "bm25"}


class IndexedStore(WordsStore):
    """A database in which every tenant is promoted as soon as the kit looks at its rows."""

    def __init__(self, needs: Needs, dsn: Callable[[str, str], str]) -> None:
        super().__init__(needs, dsn)
        self._promoted: set[str] = set()
        with self.superuser() as connection:
            connection.execute(f"CREATE EXTENSION IF NOT EXISTS {EXTENSION} WITH SCHEMA public")

    def census(self) -> Sequence[Record]:
        """Read every row, and promote the tenants that are new."""
        for tenant in sorted({row.tag.tenant for row in super().census()} - self._promoted):
            self.promote(tenant)
            self._promoted.add(tenant)
        return super().census()


class WordsHarness(PgvectorHarness):
    """PostgreSQL with pgvector, words ranked by BM25."""

    store = "PostgreSQL, words by BM25"

    def fresh(self, needs: Needs) -> Store:
        """Make a database."""
        return WordsStore(needs, self._dsn)


class IndexedHarness(PgvectorHarness):
    """PostgreSQL with pgvector and pg_textsearch, words ranked through an index."""

    store = "PostgreSQL, words by index"

    def fresh(self, needs: Needs) -> Store:
        """Make a database."""
        return IndexedStore(needs, self._dsn)


harness = WordsHarness
indexed = IndexedHarness
