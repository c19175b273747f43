"""The Pinecone adapter: each operation as a flow of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vectoracl.adapter_api.contract import Capabilities, Flow, together
from vectoracl.adapter_api.operations import (
    Count,
    Delete,
    Fetch,
    Found,
    Relabel,
    Replace,
    Rows,
    Scan,
    Search,
    Upsert,
)
from vectoracl.adapter_api.posture import Posture
from vectoracl.errors import StoreError, UnsupportedPredicateError
from vectoracl.filters.field_types import FieldType
from vectoracl.model.queries import ResolvedQuery, VectorQuery
from vectoracl_pinecone import posture as postures
from vectoracl_pinecone.capabilities import capabilities
from vectoracl_pinecone.compile import ALL_ROWS, NO_ROWS, PineconeCompiler, numbers
from vectoracl_pinecone.compile_predicate import Compiled, every
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.decode import Decoder
from vectoracl_pinecone.lexical import WordSearch
from vectoracl_pinecone.names import tenant_of
from vectoracl_pinecone.pages import ROUNDS, Pages, too_many_conflicts
from vectoracl_pinecone.requests import Describe, Match, Patch, Query
from vectoracl_pinecone.writes import Writer

_CONCURRENT = 64
_SHORT = "the index returned fewer hits than the scope has"


class PineconeAdapter:
    """The Pinecone adapter. Every request names the tenant's namespace; scope and filter are one `$and` in it.

    With *governed* a registry says which generation of a document is read, and deletes are not counted.
    """

    def __init__(self, config: PineconeConfig, fields: Mapping[str, FieldType], *, governed: bool = False) -> None:
        self.config = config
        self._governed = governed
        self._fields = fields
        self._capabilities = capabilities(config)
        self._compile = PineconeCompiler(config, fields)
        self._decode = Decoder(config, fields)
        self._pages = Pages(config, self._compile, self._decode)
        self._writer = Writer(config, self._compile, self._pages)
        self._words = WordSearch(config, self._compile, self._decode, self._pages)
        self._offers_fetch_by = config.fetch_by_metadata

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of this adapter."""
        return self._capabilities

    # Reads

    def search(self, operation: Search) -> Flow[Found]:
        """Rank inside the scope; if there are fewer hits than requested, ask whether the scope has another one."""
        if not isinstance(operation.query, VectorQuery) and self.config.lexical:
            return (yield from self._words.search(operation, operation.query))
        vector = numbers(_vector(operation.query).vector)
        where = self._compile.scope(operation.scope, operation.where)
        if where is NO_ROWS:
            return Found([])
        partition, k = operation.partition, operation.k
        values = "vector" in operation.include
        matches: Sequence[Match]
        if operation.group_by is not None:
            matches = yield from self._grouped(partition, where, vector, k, operation.per_group, values=values)
        else:
            matches = yield from self._best(partition, where, vector, k, values=values)
        shortfall = None
        if self.config.check_complete and (operation.group_by is not None or len(matches) < k):
            shortfall = yield from self._shortfall(operation, where, vector, matches)
        hits = self._decode.ranked(matches, operation.include)
        if operation.min_score is not None:
            hits = [hit for hit in hits if hit.score >= operation.min_score]
        return Found(hits, shortfall is None, shortfall)

    def _best(
        self, partition: str, where: Compiled, vector: list[float], k: int, *, values: bool
    ) -> Flow[Sequence[Match]]:
        """Return the *k* best whole records."""
        if k <= self._compile.per_reply(values=values):
            return (yield from self._compile.query(partition, where, k, vector, rows=True, values=values))
        return (yield from self._ranked(partition, where, vector, k, values=values))

    def _grouped(
        self, partition: str, where: Compiled, vector: list[float], k: int, each: int, *, values: bool
    ) -> Flow[Sequence[Match]]:
        """Return up to *each* records of the *k* documents whose best records are nearest. Pinecone cannot group.

        The nearest records are asked for, and again without the documents that were found, until there are *k*: what
        was not found in a round is further away than all that was. Then each document's own records are asked for.
        """
        documents: list[str] = []
        first: list[Match] = []
        size = min(self._compile.per_reply(values=values), max(2 * k, k * each))
        remaining, whole = where, False
        while len(documents) < k and not whole and remaining is not NO_ROWS:
            matches = yield from self._compile.query(partition, remaining, size, vector, rows=True, values=values)
            whole = len(matches) < size
            for match in matches:
                document = self._decode.tag(match).document
                if document not in documents:
                    documents.append(document)
                    first.append(match)
            if not documents or whole:
                break
            remaining = every([where, self._compile.other_documents(documents)])
        kept = documents[:k]
        if each == 1:
            return first[:k]
        best_rows: list[Match] = []
        for document in kept:
            own = every([where, self._compile.documents([document])])
            best_rows.extend((yield from self._best(partition, own, vector, each, values=values)))
        return best_rows

    def _ranked(
        self, partition: str, where: Compiled, vector: list[float], k: int, *, values: bool
    ) -> Flow[list[Match]]:
        """Rank for more hits than one reply holds: ids first, then their records, by the same vector and scope."""
        for _ in range(ROUNDS):
            best = yield from self._compile.query(partition, where, k, vector)
            rows = yield from self._pages.rows(partition, [match.id for match in best], where, vector, values=values)
            if (yield from self._pages.one_moment(partition, rows)):
                return rows
        raise too_many_conflicts()

    def _shortfall(
        self, operation: Search, where: Compiled, vector: list[float], matches: Sequence[Match]
    ) -> Flow[str | None]:
        """Return why there are fewer hits than the scope has, if so: the index is asked for any other record."""
        pairs = [(self._decode.tag(match).document, match.id) for match in matches]
        for others in self._compile.missing(operation, pairs):
            if (yield from self._compile.query(operation.partition, every([where, others]), 1, vector)):
                return _SHORT
        return None

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Return chunks by id; the ids are conditions in addition to the scope, in the tenant's namespace."""
        where = every([self._compile.scope(operation.scope), self._compile.refs(operation.refs)])
        matches = yield from self._selected(operation.partition, where, values="vector" in operation.include)
        return Rows(self._decode.listed(matches, operation.include))

    def _selected(self, partition: str, where: Compiled, *, values: bool) -> Flow[list[Match]]:
        """Return all whole records that pass *where*."""
        if where is NO_ROWS:
            return []
        size = self._compile.per_reply(values=values)
        first = yield from self._compile.query(partition, where, size, rows=True, values=values)
        if len(first) < size:
            return list(first)
        for _ in range(ROUNDS):
            rows = yield from self._many(partition, where, values=values)
            if (yield from self._pages.one_moment(partition, rows)):
                return rows
        raise too_many_conflicts()

    def _many(self, partition: str, where: Compiled, *, values: bool) -> Flow[list[Match]]:
        if where is not ALL_ROWS and self._offers_fetch_by is not False:
            try:
                return (yield from self._fetched_by(partition, where))
            except StoreError as error:
                if self._offers_fetch_by or error.code not in ("not_offered", "not_provisioned"):
                    raise
                self._offers_fetch_by = False  # asked once: this server does not have it
        ids = yield from self._pages.matching(partition, where)
        return (yield from self._pages.rows(partition, ids, where, values=values))

    def _fetched_by(self, partition: str, where: Compiled) -> Flow[list[Match]]:
        rows: list[Match] = []
        token: str | None = None
        while True:
            limit = self._compile.per_reply(values=True)
            page = yield from self._compile.fetch_by(partition, where, limit, token)
            self._offers_fetch_by = True
            rows.extend(page.matches)
            if page.token is None:
                return rows
            token = page.token

    def listed(self, partition: str, prefix: str) -> Flow[list[str]]:
        """Return the ids of one tenant that begin with *prefix*; for `adopt`."""
        return (yield from self._pages.ids(partition, prefix))

    def count(self, operation: Count) -> Flow[int]:
        """Count exactly: Pinecone counts no scope, so its ids are listed and those that pass are counted."""
        where = self._compile.scope(operation.scope, operation.where)
        return len((yield from self._pages.matching(operation.partition, where)))

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Return one page in key order (see `pages`)."""
        where = self._compile.scope(operation.scope, operation.where)
        if where is NO_ROWS:
            return Rows([])
        rows = yield from self._pages.next(
            operation.partition, where, operation.after, operation.size + 1, values="vector" in operation.include
        )
        hits = self._decode.listed(rows[: operation.size], operation.include)
        return Rows(hits, more=len(rows) > operation.size)

    # Writes

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write all in one request, into the generation of each document; see `writes.Writer`."""
        return (yield from self._writer.upsert(operation))

    def replace(self, operation: Replace) -> Flow[int]:
        """Make a new generation of one document: the new one is written before the old one goes."""
        return (yield from self._writer.replace(operation))

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Count the records that are selected, then delete by the same condition; see `writes.Writer`.

        Under a registry nothing is looked at first: a replica that lags behind may not have what is to be deleted.
        """
        if self._governed and operation.where is not None:
            where = self._compile.scope(operation.scope, operation.where)
            if where is not NO_ROWS:
                yield from self._compile.remove_all(operation.partition, where)
                if self.config.wait_visible:
                    yield from self._compile.settle(operation.partition, None, NO_ROWS, where)
            return None
        return (yield from self._writer.delete(operation))

    def relabel(self, operation: Relabel) -> Flow[int | None]:
        """Write the labels of documents into their records of a lower rev, as read before: an update has no condition.

        The core lets one process at a time do so. An update creates no record.
        """
        compiled, partition = self._compile, operation.partition
        changes = {(one.document, one.generation): one for one in operation.changes}
        patches: list[Patch] = []
        for match in (yield from self._selected(partition, compiled.generations(changes), values=False)):
            tag = self._decode.tag(match)
            change = changes.get((tag.document, tag.generation))
            if change is not None and tag.rev < change.rev:
                patches.append(compiled.label(partition, match.id, change))
        for start in range(0, len(patches), _CONCURRENT):
            yield from together(*patches[start : start + _CONCURRENT])
        if patches and self.config.wait_visible:
            last = patches[-1]
            seen = compiled.labelled(last.id, last.metadata[self.config.keys.rev])
            yield from compiled.settle(partition, None, seen, NO_ROWS)
        return None  # a replica that lags behind may not have shown them all

    # What touches no rows, and what touches all

    def posture(self) -> Flow[Posture]:
        """Read the index's configuration, and whether its default namespace is empty."""
        return (yield from postures.look(self.config))

    def unscoped(self, query: ResolvedQuery, k: int) -> Flow[Found]:
        """Search the namespaces of all tenants, one after the other: there is no index over all of them."""
        vector = numbers(_vector(query).vector)
        stats = yield from Describe()
        prefix = self.config.namespace_prefix
        matches: list[Match] = []
        for namespace in sorted(stats.namespaces):
            if namespace.startswith(prefix) and (tenant_of(prefix, namespace) or namespace.startswith(f"{prefix}h-")):
                top = min(k, self._compile.per_reply(values=False))
                matches.extend((yield from Query(None, namespace, vector, top, None, metadata=True)))
        include = frozenset({"text", "metadata"})
        return Found(self._decode.ranked(matches, include)[:k])  # type: ignore[arg-type]  # the literals of Include


def _vector(query: ResolvedQuery) -> VectorQuery:
    if not isinstance(query, VectorQuery):
        raise UnsupportedPredicateError("This store answers only vector queries (lexical = false).", field="query")
    return query
