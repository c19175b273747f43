"""Compiles operations to Qdrant requests. Pure.

Every filter begins with the tenant, in `must` at the root; the scope and the caller's filter are separate operands next
to it. They are never merged: Qdrant joins the clause lists of nested filters, so a merge could widen them. One
function, `QdrantCompiler.rows`, builds these filters, and no request takes bare ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from qdrant_client import models

from vectoracl.adapter_api.chunk_validation import dump_metadata
from vectoracl.adapter_api.operations import ChunkRef, Delete, Include, LabelChange, Search
from vectoracl.adapter_api.selectors import refs_condition, selected
from vectoracl.errors import RefusedError, TooLargeError
from vectoracl.filters.boolean_compiler import ALL_ROWS, NO_ROWS
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.filters.predicate import Predicate
from vectoracl.model.queries import VectorQuery
from vectoracl.model.records import Record, Vector, docgen, tag_fields
from vectoracl_qdrant import words as words_
from vectoracl_qdrant.capabilities import NUMBER_BYTES
from vectoracl_qdrant.compile_predicate import ALGEBRA, Compiled, Compiler, every, keyword, none, numeric, some
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.names import NO_VERSION, filterable, id_of, named, order_of, shard_of
from vectoracl_qdrant.requests import Operation, Rank, RankGroups, RankLegs, RankWords, Scroll, Write

_TAG_BYTES = 2048
Words = Sequence[models.SparseVector | None]


class QdrantCompiler:
    """Compiles the operations on one configured collection."""

    def __init__(self, config: QdrantConfig, fields: Mapping[str, FieldType]) -> None:
        self._config = config
        self._keys = config.payload
        self._predicates = Compiler(config.payload, fields)
        keys = config.payload
        # The payload keys that distinguish versions of documents; part of every read.
        self.versions = (keys.document, keys.generation, keys.pending, keys.version, keys.time)
        self.names = (*self.versions, keys.chunk)
        self._tag = (
            keys.tenant, *self.names, keys.label, keys.rev, keys.expires, keys.producer, keys.path,
            keys.position,
        )  # fmt: skip

    # Conditions

    def scope(self, *predicates: Predicate) -> Compiled:
        """Return the conjunction of *predicates*, each a separate operand."""
        return every([self._predicates.compile(one) for one in predicates])

    def rows(self, partition: str, *conditions: Compiled) -> models.Filter | None:
        """Return the filter of one tenant's points that meet every condition; None where there cannot be any."""
        if not partition:
            raise RefusedError("A request without a tenant was refused before it was sent.")
        if any(one is NO_ROWS for one in conditions):
            return None
        tenant = keyword(self._keys.tenant, partition)
        return models.Filter(must=[one for one in (tenant, *conditions) if not isinstance(one, bool)])

    def documents(self, names: Iterable[str]) -> Compiled:
        """Return that the document is one of *names*."""
        return keyword(self._keys.document, *sorted(names))

    def generations(self, **bounds: int) -> Compiled:
        """Return that the generation is within *bounds*."""
        return numeric(self._keys.generation, **bounds)

    def versioned(self) -> Compiled:
        """Return that a replacement wrote the point, or that it was written after one."""
        return some([self.generations(gte=1), none(keyword(self._keys.version, NO_VERSION))])

    def exactly(self, version: str) -> Compiled:
        """Return that the point is of *version*."""
        return keyword(self._keys.version, version)

    def marked(self, mark: str) -> Compiled:
        """Return that the point has this mark."""
        return keyword(self._keys.pending, mark)

    def hidden(self, versions: Iterable[tuple[str, int, str]]) -> Compiled:
        """Return that the point is of none of these versions: documents, generations and names."""
        names, docgens = [], dict[str, list[str]]()
        for document, generation, version in sorted(versions):
            if named(version):
                names.append(version)
            else:
                docgens.setdefault(version, []).append(docgen(document, generation))
        keys = self._keys
        unnamed = [
            none(every([keyword(keys.version, version), keyword(keys.docgen, *some_)]))
            for version, some_ in docgens.items()
        ]
        return every([none(keyword(keys.version, *names)), *unnamed])

    def ids(self, ids: Iterable[str]) -> Compiled:
        """Return that the point has one of *ids*; always combined with the tenant, never alone."""
        point_ids: list[models.ExtendedPointId] = sorted(ids)
        return models.HasIdCondition(has_id=point_ids) if point_ids else NO_ROWS

    def refs(self, refs: tuple[ChunkRef, ...]) -> Compiled:
        """Return that the point is one of the chunks that *refs* name."""
        return refs_condition(refs, ALGEBRA, self.documents, lambda ids: keyword(self._keys.chunk, *ids))

    def selected(self, operation: Delete) -> Compiled:
        """Return the one selector of a delete. Raises: RefusedError if there is none."""
        return selected(operation, self.refs, self.documents, self.scope)

    def has(self, name: str) -> Compiled:
        """Return that the point has the field *name*; every point has those of the tag."""
        return ALL_ROWS if name in TAG_FIELDS else keyword(self._keys.present, name)

    def path(self, name: str) -> str:
        """Return the payload path of the field *name*. Raises: UnsupportedPredicateError."""
        return self._predicates.path(name)[0]

    def payload(self, include: Include) -> tuple[str, ...]:
        """Return the payload keys of a reply with what *include* names; the whole tag is always among them."""
        more = [key for name, key in (("text", self._keys.text), ("metadata", self._keys.metadata)) if name in include]
        return (*self._tag, *more)

    # Reads

    def search(self, operation: Search, query: VectorQuery, where: models.Filter) -> Rank | RankGroups:
        """Compile a search of the points that pass *where*."""
        vector = query.vector.tolist()
        payload = self.payload(operation.include)
        vectors = "vector" in operation.include
        effort = operation.tuning.get("hnsw_ef", self._config.hnsw_ef)
        if operation.group_by is None:
            return Rank(operation.partition, where, vector, operation.k, payload, vectors, effort, operation.exact)
        return RankGroups(
            operation.partition, where, vector, self._keys.document, operation.k, operation.per_group, payload,
            vectors, effort, operation.exact,
        )  # fmt: skip

    def words(
        self, operation: Search, words: models.SparseVector, where: models.Filter, limit: int, payload: tuple[str, ...]
    ) -> RankWords:
        """Compile the ranking of the points that pass *where* by their words.

        The rarity of words is computed over the same points: without a corpus in the query the server would use all
        tenants' points, and scores would reveal information about other tenants' texts.
        """
        vectors = "vector" in operation.include and payload != self.names
        return RankWords(operation.partition, where, words, limit, payload, vectors, self._config.idf)

    def hybrid(
        self, operation: Search, words: models.SparseVector, vector: Vector, where: models.Filter, limit: int
    ) -> RankLegs:
        """Compile both legs of a hybrid query, each with the whole filter; they are fused by `lexical`."""
        effort = operation.tuning.get("hnsw_ef", self._config.hnsw_ef)
        dense = Rank(
            operation.partition, where, vector.tolist(), limit, self.names, hnsw_ef=effort, exact=operation.exact
        )
        return RankLegs(operation.partition, (dense, self.words(operation, words, where, limit, self.names)))

    def unscoped(self, tenant: str, query: VectorQuery, k: int) -> Rank:
        """Compile one tenant's part of a search over all tenants; for `hazmat` only."""
        where = self.rows(tenant)
        assert where is not None
        return Rank(None, where, query.vector.tolist(), k, self.payload(frozenset({"text", "metadata"})))

    def listing(self, partition: str, where: models.Filter, include: Include) -> Scroll:
        """Compile the first page of a listing, with what *include* names."""
        return Scroll(partition, where, self._config.page, self.payload(include), "vector" in include)

    # Writes

    def words_of(self, records: Sequence[Record]) -> Words:
        """Return the words of each record's text, as they are stored."""
        if self._config.words is False:
            return [None] * len(records)
        return [words_.stored(record.text) for record in records]

    def check_size(self, records: Sequence[Record], words: Words) -> None:
        """Refuse what would not fit one request, before anything is sent. Raises: InvalidInputError."""
        size = words_.bytes_of(words)
        for record in records:
            text = len(record.text) * (1 if record.text.isascii() else 6)
            size += _TAG_BYTES + NUMBER_BYTES * self._config.dimension + text + 3 * len(dump_metadata(record.metadata))
        if size > self._config.max_request_bytes:
            raise TooLargeError(
                f"The call may need a request of {size:,} bytes, but {self._config.max_request_bytes:,} are allowed "
                "(max_request_bytes); a write is one request, all or nothing. Write fewer chunks per call.",
                field="chunks",
            )

    def points(
        self, records: Sequence[Record], words: Words, version: str | Sequence[str], pending: str | None = None
    ) -> list[models.PointStruct]:
        """Return *records*, whose tags have their generation, as points, each with its words.

        *version* is that of all, or one for each.
        """
        versions = [version] * len(records) if isinstance(version, str) else version
        return [
            self._point(record, some, name, pending)
            for record, some, name in zip(records, words, versions, strict=True)
        ]

    def _point(
        self, record: Record, words: models.SparseVector | None, version: str, pending: str | None
    ) -> models.PointStruct:
        keys, tag = self._keys, record.tag
        fields, present = filterable(record.metadata)
        payload = {
            **tag_fields(keys, tag),
            keys.order: order_of(tag.document),
            keys.version: version,
            keys.text: record.text,
            keys.metadata: dump_metadata(record.metadata).decode(),
            keys.fields: fields,
            keys.present: present,
        }
        if pending is not None:
            payload[keys.pending] = pending
        return models.PointStruct(id=id_of(tag, version), vector=self._vectors(record, words), payload=payload)

    def _vectors(self, record: Record, words: models.SparseVector | None) -> models.VectorStruct:
        dense: list[float] = record.vector.tolist()
        if words is None:
            return dense if self._config.vector is None else {self._config.vector: dense}
        return {self._config.vector or "": dense, str(self._config.words): words}

    def upsert(self, partition: str, points: list[models.PointStruct], scope: Compiled, *more: Operation) -> Write:
        """Compile an upsert, all or nothing; a point outside of *scope* is left as it is. *more* is done after it."""
        guard = self.rows(partition, scope)
        assert guard is not None
        return Write(partition, (self.put(partition, points, guard), *more))

    def shard(self, partition: str) -> models.ShardKeyWithFallback | None:
        """Return where the points of *partition* are written."""
        return shard_key(self._config, partition)

    def put(self, partition: str, points: list[models.PointStruct], guard: models.Filter) -> Operation:
        """Return the step that writes *points*; an existing point is overwritten if it matches *guard*."""
        return models.UpsertOperation(
            upsert=models.PointsList(points=points, update_filter=guard, shard_key=self.shard(partition))
        )

    def drop(self, partition: str, *conditions: Compiled) -> list[Operation]:
        """Return the step that deletes the points that meet every condition; none where there cannot be any."""
        where = self.rows(partition, *conditions)
        if where is None:
            return []
        return [models.DeleteOperation(delete=models.FilterSelector(filter=where, shard_key=self.shard(partition)))]

    def mark(self, partition: str, mark: str, *conditions: Compiled) -> Operation:
        """Return the step that puts a mark on the points that meet every condition."""
        where = self.rows(partition, *conditions)
        assert where is not None
        change = models.SetPayload(payload={self._keys.pending: mark}, filter=where, shard_key=self.shard(partition))
        return models.SetPayloadOperation(set_payload=change)

    def unmark(self, partition: str, mark: str, *conditions: Compiled) -> list[Operation]:
        """Return the step that takes the mark *mark*, and no other, off the points that meet every condition."""
        where = self.rows(partition, *conditions, self.marked(mark))
        return [] if where is None else self._without_mark(partition, where)

    def unmarked(self, partition: str, *conditions: Compiled) -> list[Operation]:
        """Return the step that takes any mark off the points that meet every condition; for `settle` only."""
        where = self.rows(partition, *conditions)
        return [] if where is None else self._without_mark(partition, where)

    def _without_mark(self, partition: str, where: models.Filter) -> list[Operation]:
        gone = models.DeletePayload(keys=[self._keys.pending], filter=where, shard_key=self.shard(partition))
        return [models.DeletePayloadOperation(delete_payload=gone)]

    def relabel(self, partition: str, change: LabelChange) -> Operation:
        """Return the step that writes label, expiry and rev into the points of a generation that have a lower rev.

        The server applies the writes of a shard one after the other, so the condition holds when the point is written;
        and setting a payload creates no point.
        """
        keys = self._keys
        generation = keyword(keys.docgen, docgen(change.document, change.generation))
        where = self.rows(partition, generation, numeric(keys.rev, lt=change.rev))
        payload = {keys.label: change.label, keys.expires: change.expires, keys.rev: change.rev}
        return models.SetPayloadOperation(
            set_payload=models.SetPayload(payload=payload, filter=where, shard_key=self.shard(partition))
        )

    def delete(self, partition: str, where: models.Filter) -> Write:
        """Compile a delete by filter."""
        gone = models.FilterSelector(filter=where, shard_key=self.shard(partition))
        return Write(partition, (models.DeleteOperation(delete=gone),))


def shard_key(config: QdrantConfig, partition: str | None) -> models.ShardKeyWithFallback | None:
    """Return where the points of *partition* are: its own shard, else the shared one; None without tiers.

    This is routing, not isolation: a tenant without its own shard reads the shared one, so the filter stays complete.
    """
    if not config.tiers or partition is None:
        return None
    return models.ShardKeyWithFallback(target=shard_of(partition), fallback=config.shared_shard)


__all__ = ["ALL_ROWS", "NO_ROWS", "NO_VERSION", "QdrantCompiler", "Words", "shard_key"]
