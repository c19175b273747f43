"""Compiles operations to Weaviate requests. Pure.

One function begins every message, and it sets the tenant: a message without a tenant cannot be created here. The scope,
the caller's filter and other conditions are separate operands of one conjunction in that message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, assert_never

import numpy as np
from weaviate.proto.v1 import aggregate_pb2, base_pb2, base_search_pb2, batch_delete_pb2, batch_pb2, search_get_pb2

from vectoracl.adapter_api.chunk_validation import dump_metadata
from vectoracl.adapter_api.operations import ChunkRef, Delete, Include, LabelChange
from vectoracl.adapter_api.selectors import refs_condition, selected
from vectoracl.errors import InvalidInputError, RefusedError, TooLargeError
from vectoracl.filters.boolean_compiler import ALL_ROWS, NO_ROWS
from vectoracl.filters.datetimes import datetime_text
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.filters.predicate import Predicate
from vectoracl.model.records import Record, Vector, docgen, tag_fields
from vectoracl_weaviate.compile_predicate import (
    ALGEBRA,
    Compiled,
    Compiler,
    Condition,
    Filters,
    every,
    ids,
    keyword,
    leaf,
    none,
    numbers,
    numeric,
    some,
)
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.decode import Number
from vectoracl_weaviate.names import escape, id_of, markers, present, property_of, tenant_name
from vectoracl_weaviate.names import seek_key as seek_of
from vectoracl_weaviate.requests import Create, Drop, Find, Groups, Merge, Put, State, Tally

NO_MARK = "-"
NO_VERSION = ""
_TAG_BYTES = 4096
_LEVELS: Mapping[str, Any] = {
    "one": base_pb2.CONSISTENCY_LEVEL_ONE,
    "quorum": base_pb2.CONSISTENCY_LEVEL_QUORUM,
    "all": base_pb2.CONSISTENCY_LEVEL_ALL,
}


class WeaviateCompiler:
    """Compiles the operations on one configured collection."""

    def __init__(self, config: WeaviateConfig, fields: Mapping[str, FieldType]) -> None:
        self._config = config
        self._fields = fields
        self._keys = config.properties
        self._level = {} if config.consistency is None else {"consistency_level": _LEVELS[config.consistency]}
        self._predicates = Compiler(config.properties, fields)
        keys = config.properties
        # The properties that distinguish versions of documents; part of every read.
        self.versions = (keys.document, keys.generation, keys.version, keys.pending, keys.committed)
        self.places = (*self.versions, keys.seek)
        self.repairable = (keys.seek, keys.metadata, keys.present)
        # For a merge: makes an object one whose writer knew no field.
        self.unknown: Mapping[str, Any] = {keys.present: None}
        self._tag = (
            keys.tenant, *self.versions, keys.chunk, keys.label, keys.rev, keys.expires, keys.producer, keys.path,
            keys.time, keys.position,
        )  # fmt: skip

    # Conditions

    def condition(self, *predicates: Predicate) -> Condition:
        """Return the conjunction of *predicates*, each a separate operand."""
        return self._predicates.condition(*predicates)

    def strange(self, *fields: str) -> Compiled:
        """Return that the object's writer did not know one of *fields* as what it is here."""
        return self._predicates.strange(fields)

    def documents(self, names: Iterable[str]) -> Compiled:
        """Return that the document is one of *names*."""
        return keyword(self._keys.document, *sorted(names))

    def generations(self, **bounds: int) -> Compiled:
        """Return that the generation is within *bounds*."""
        return numeric(self._keys.generation, **bounds)

    def only(self, published: Mapping[str, Number | None]) -> Compiled:
        """Return that the object is, if of one of these documents, of its *published* version (None: of none)."""
        if not published:
            return ALL_ROWS
        versions = [self.exactly(name, number) for name, number in sorted(published.items()) if number is not None]
        return some([none(keyword(self._keys.document, *sorted(published))), *versions])

    def marked(self) -> Compiled:
        """Return that a replacement of the object's document is going on.

        Without a negation: a mark begins with a digit, which sorts behind the sign that stands for none.
        """
        return leaf(Filters.OPERATOR_GREATER_THAN, self._keys.pending, value_text=escape(NO_MARK))

    def replaced(self) -> Compiled:
        """Return that the object is of another version of its document than the first."""
        named = leaf(Filters.OPERATOR_LESS_THAN, self._keys.version, value_text=escape(NO_VERSION))
        return some([self.generations(gte=1), named])  # hex digits sort before the bar that ends an empty name

    def before(self, document: str, number: Number) -> Compiled:
        """Return that the object is of an older version of *document* than *number*."""
        generation, version = number
        same = every(
            [
                self.generations(gte=generation, lte=generation),
                leaf(Filters.OPERATOR_LESS_THAN, self._keys.version, value_text=escape(version)),
            ]
        )
        return every([self.documents([document]), some([self.generations(lt=generation), same])])

    def exactly(self, document: str, number: Number) -> Compiled:
        """Return that the object is of the version *number* of *document*."""
        return every([keyword(self._keys.docgen, docgen(document, number[0])), keyword(self._keys.version, number[1])])

    def ids(self, wanted: Iterable[str]) -> Compiled:
        """Return that the object has one of the ids *wanted*; in its tenant, like every condition."""
        return ids(sorted(wanted))

    def after(self, seek: str) -> Compiled:
        """Return that the object comes after *seek* in key order."""
        return leaf(Filters.OPERATOR_GREATER_THAN, self._keys.seek, value_text=seek)

    def refs(self, refs: tuple[ChunkRef, ...]) -> Compiled:
        """Return that the object is one of the chunks that *refs* name."""
        return refs_condition(refs, ALGEBRA, self.documents, lambda ids: keyword(self._keys.chunk, *ids))

    def selected(self, operation: Delete) -> Compiled:
        """Return the selector of a delete; a predicate is in the condition. Raises: RefusedError without one."""
        return selected(operation, self.refs, self.documents, lambda _: ALL_ROWS)

    # Reads

    def properties(self, include: Include, *, markers: bool = False) -> tuple[str, ...]:
        """Return the properties of a whole hit, with what *include* names and, if asked, the markers of its fields."""
        more = [key for name, key in (("text", self._keys.text), ("metadata", self._keys.metadata)) if name in include]
        return (*self._tag, *more, *([self._keys.present] if markers else ()))

    def _search(
        self, name: str, where: Compiled, limit: int, properties: Sequence[str], **more: Any
    ) -> search_get_pb2.SearchRequest:
        """Begin every search: the one tenant, and *where* as the filter."""
        if where is NO_ROWS:
            raise RefusedError("A request that cannot match anything was refused before it was sent.")
        message = search_get_pb2.SearchRequest(
            collection=self._config.collection,
            tenant=name,
            limit=limit,
            properties=search_get_pb2.PropertiesRequest(non_ref_properties=properties),
            uses_123_api=True,
            uses_125_api=True,
            uses_127_api=True,
            **self._level,
            **more,
        )
        if where is not ALL_ROWS:
            message.filters.CopyFrom(unlimited(where) if message.sort_by else where)
        return message

    def _metadata(self, *, vectors: bool, **more: bool) -> search_get_pb2.MetadataRequest:
        names = [self._config.vector] if vectors else []
        return search_get_pb2.MetadataRequest(uuid=True, vectors=names, **more)

    def near(
        self, partition: str, where: Compiled, vector: Vector, limit: int, include: Include, *, markers: bool = False
    ) -> Find:
        """Compile a ranking by *vector* of the objects that pass *where*. Raises: InvalidInputError.

        Without a filter an HNSW index walks its graph and may miss near objects. It compares each object that a filter
        names, as long as they are fewer than the collection's `flatSearchCutoff`. So there always is a filter.
        """
        named = self._named(partition, where)
        return Find(partition, self._near(_name(partition), named, vector, limit, include, markers=markers))

    def _named(self, partition: str, where: Compiled) -> Compiled:
        """Return *where* of the objects that name the tenant, as each of its shard does; a flat index does not need it.

        A negation alone would not do: in a shard that was loaded again it also names the objects that were deleted
        before, and may seem to name too many.
        """
        if self._config.index == "flat":
            return where
        return every([keyword(self._keys.tenant, partition), where])

    def _near(
        self, name: str, where: Compiled, vector: Vector, limit: int, include: Include, *, markers: bool = False
    ) -> search_get_pb2.SearchRequest:
        if vector.shape != (self._config.dimension,):
            raise InvalidInputError(
                f"The query's vector has dimension {vector.size}; the store's have {self._config.dimension}.",
                field="query",
            )
        return self._search(
            name,
            where,
            limit,
            self.properties(include, markers=markers),
            metadata=self._metadata(vectors="vector" in include, distance=True),
            near_vector=base_search_pb2.NearVector(
                vectors=[self._vector(vector)],
                targets=base_search_pb2.Targets(target_vectors=[self._config.vector]),
            ),
        )

    def near_of(self, name: str, vector: Vector, k: int) -> Find:
        """Compile one tenant's part (by Weaviate's *name*) of a search over all tenants; for `hazmat` only."""
        named = self.generations(gte=0)  # each object: see `near`
        return Find(None, self._near(name, named, vector, k, frozenset({"text", "metadata"})))

    def words(
        self, partition: str, where: Compiled, text: str, limit: int, include: Include, *, markers: bool = False
    ) -> Find:
        """Compile a ranking by BM25 of the objects that pass *where*; its statistics are the tenant's own."""
        return Find(
            partition,
            self._search(
                _name(partition),
                where,
                limit,
                self.properties(include, markers=markers),
                metadata=self._metadata(vectors="vector" in include, score=True),
                bm25_search=base_search_pb2.BM25(query=text, properties=[self._keys.text]),
            ),
        )

    def listing(
        self, partition: str, where: Compiled, limit: int, properties: Sequence[str], *, vectors: bool = False,
        ordered: bool = False,
    ) -> Find:  # fmt: skip
        """Compile a listing of the objects that pass *where*, in key order if *ordered*."""
        sort = [search_get_pb2.SortBy(ascending=True, path=[self._keys.seek])] if ordered else []
        return Find(
            partition,
            self._search(
                _name(partition), where, limit, properties, metadata=self._metadata(vectors=vectors), sort_by=sort
            ),
        )

    def listing_of(self, name: str, where: Compiled, limit: int, properties: Sequence[str]) -> Find:
        """Compile a listing in key order by Weaviate's *name* of a tenant; for operators only."""
        sort = [search_get_pb2.SortBy(ascending=True, path=[self._keys.seek])]
        message = self._search(name, where, limit, properties, metadata=self._metadata(vectors=False), sort_by=sort)
        return Find(None, message)

    def property(self, field: str) -> str:
        """Return the property that holds the values of *field*, a declared one or "@document"."""
        return self._keys.document if field in TAG_FIELDS else property_of(field, self._fields[field])

    def groups(self, partition: str, where: Compiled, field: str, limit: int) -> Groups:
        """Compile a count, by the values of *field*, of the objects that pass *where*; the server cuts at *limit*."""
        message = self._tally(_name(partition), where)
        message.group_by.CopyFrom(
            aggregate_pb2.AggregateRequest.GroupBy(collection=self._config.collection, property=self.property(field))
        )
        message.limit = limit
        return Groups(partition, message)

    def repaired(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return the properties of all declared fields, and the markers, that go with *metadata*, for a merge."""
        properties: dict[str, Any] = {self._keys.present: _marked(metadata, self._fields)}
        for name, kind in self._fields.items():
            properties[property_of(name, kind)] = stored(kind, metadata[name]) if name in metadata else None
        return properties

    def tally(self, partition: str, where: Compiled) -> Tally:
        """Compile a count of the objects that pass *where*."""
        return Tally(partition, self._tally(_name(partition), where))

    def tally_of(self, name: str, where: Compiled) -> Tally:
        """Compile the same by Weaviate's *name* of a tenant; for operators only."""
        return Tally(None, self._tally(name, where))

    def first_of(self, name: str) -> Find:
        """Compile the reading of one object's tag by Weaviate's *name* of its tenant; for operators only."""
        message = self._search(name, ALL_ROWS, 1, self._tag, metadata=self._metadata(vectors=False))
        return Find(None, message)

    def _tally(self, name: str, where: Compiled) -> aggregate_pb2.AggregateRequest:
        if where is NO_ROWS:
            raise RefusedError("A request that cannot match anything was refused before it was sent.")
        message = aggregate_pb2.AggregateRequest(collection=self._config.collection, tenant=name, objects_count=True)
        if where is not ALL_ROWS:
            message.filters.CopyFrom(where)
        return message

    # Writes

    def check_size(self, records: Sequence[Record]) -> None:
        """Refuse what would not fit one request, before anything is sent. Raises: TooLargeError."""
        size = 0
        for record in records:
            if record.vector.shape != (self._config.dimension,):
                raise InvalidInputError(
                    f"A vector has dimension {record.vector.size}; the store's have {self._config.dimension}.",
                    field="vector",
                )
            size += (
                _TAG_BYTES
                + 4 * self._config.dimension
                + len(record.text.encode())
                + 3 * len(dump_metadata(record.metadata))
            )
        if size > self._config.max_request_bytes:
            raise TooLargeError(
                f"The call may need a request of {size:,} bytes, but {self._config.max_request_bytes:,} are allowed "
                "(max_request_bytes). Write fewer chunks per call.",
                field="chunks",
            )

    def put(self, partition: str, records: Iterable[tuple[Record, str]], pending: str = NO_MARK) -> Put:
        """Compile the writing of *records*, whose tags have their generation, each with its version's name."""
        tenant = _name(partition)
        objects = [self._object(tenant, record, version, pending) for record, version in records]
        return Put(partition, batch_pb2.BatchObjectsRequest(objects=objects, **self._level))

    def _vector(self, vector: Vector) -> base_pb2.Vectors:
        return base_pb2.Vectors(
            name=self._config.vector,
            vector_bytes=np.ascontiguousarray(vector, "<f4").tobytes(),
            type=base_pb2.Vectors.VECTOR_TYPE_SINGLE_FP32,
        )

    def _object(self, tenant: str, record: Record, version: str, pending: str) -> batch_pb2.BatchObject:
        keys, tag = self._keys, record.tag
        message = batch_pb2.BatchObject(
            uuid=id_of(tag, version),
            collection=self._config.collection,
            tenant=tenant,
            vectors=[self._vector(record.vector)],
        )
        own = message.properties
        own.non_ref_properties.update(
            {
                **{key: escape(part) if isinstance(part, str) else part for key, part in tag_fields(keys, tag).items()},
                keys.seek: seek_of(tag.document, tag.generation, tag.chunk),
                keys.version: escape(version),
                keys.pending: escape(pending),
                keys.committed: False,
                keys.text: record.text,
                keys.metadata: dump_metadata(record.metadata).decode(),
            }
        )
        marked = _marked(record.metadata, self._fields)
        if marked:
            own.text_array_properties.add(prop_name=keys.present, values=marked)
        for name, kind in self._fields.items():
            if name not in record.metadata:
                continue
            path, value = property_of(name, kind), stored(kind, record.metadata[name])
            match kind:
                case FieldType.KEYWORDS:
                    own.text_array_properties.add(prop_name=path, values=value)
                case FieldType.NUMBERS:
                    packed = np.asarray(value, "<f8").tobytes()
                    own.number_array_properties.add(prop_name=path, values_bytes=packed)
                case _:
                    own.non_ref_properties.update({path: value})
        return message

    def drop(self, partition: str, where: Compiled) -> Drop:
        """Compile a delete of the objects that pass *where*. Raises: RefusedError if that is not a condition."""
        if isinstance(where, bool):
            raise RefusedError("A delete without a condition was refused before it was sent.")
        return Drop(
            partition,
            batch_delete_pb2.BatchDeleteRequest(
                collection=self._config.collection, tenant=_name(partition), filters=where, **self._level
            ),
        )

    def as_seen(self, seen: Iterable[tuple[str, float]]) -> Compiled:
        """Return that the object is one of these, by its id and the time it was written at: not rewritten since."""
        at: dict[float, list[str]] = {}
        for id_, time in seen:
            at.setdefault(time, []).append(id_)
        return some([every([ids(sorted(own)), numbers(self._keys.time, [time])]) for time, own in sorted(at.items())])

    def whole(self) -> Compiled:
        """Return a condition that every object of ours meets: a delete of everything needs one."""
        return numeric(self._keys.generation, gte=0)

    def mark(self, partition: str, id_: str, pending: str) -> Merge:
        """Compile the marking of one object of a document that is being replaced."""
        return Merge(partition, _name(partition), id_, {self._keys.pending: escape(pending)})

    def commit(self, partition: str, id_: str) -> Merge:
        """Compile the one write that decides a replacement."""
        return Merge(partition, _name(partition), id_, {self._keys.committed: True})

    def unmark(self, partition: str, id_: str) -> Merge:
        """Compile the end of a replacement, for one object."""
        return Merge(
            partition, _name(partition), id_, {self._keys.pending: escape(NO_MARK), self._keys.committed: False}
        )

    def generation(self, places: Iterable[tuple[str, int]]) -> Compiled:
        """Return that the object is of one of these generations of documents."""
        return keyword(self._keys.docgen, *(docgen(document, number) for document, number in places))

    def label(self, partition: str, id_: str, change: LabelChange) -> Merge:
        """Compile the writing of label, expiry and rev into one object; one that is gone is not created."""
        keys = self._keys
        properties = {keys.label: escape(change.label), keys.expires: change.expires, keys.rev: change.rev}
        return Merge(partition, _name(partition), id_, properties)

    def state(self, partition: str) -> State:
        """Compile the question whether the tenant is served."""
        return State(partition, _name(partition))

    def create(self, partition: str) -> Create:
        """Compile the creation of the tenant."""
        return Create(partition, _name(partition))


def unlimited(where: Filters) -> Filters:
    """Return *where* in a form that the server reads to its end before it sorts.

    A filter that is one range (seen on 1.39, and in a conjunction of one operand too) is read only until it has as
    many objects as the limit, in the order of the property, and those are then sorted: the first page of a listing
    would lose rows. Negated twice it is read whole.
    """
    ranges = (
        Filters.OPERATOR_GREATER_THAN,
        Filters.OPERATOR_GREATER_THAN_EQUAL,
        Filters.OPERATOR_LESS_THAN,
        Filters.OPERATOR_LESS_THAN_EQUAL,
    )
    twice = none(none(where)) if where.operator in ranges else where
    assert not isinstance(twice, bool)
    return twice


def _marked(metadata: Mapping[str, Any], fields: Mapping[str, FieldType]) -> list[str]:
    return [escape(one) for one in (*present(metadata), *markers(metadata, fields))]


def stored(kind: FieldType, value: Any) -> Any:
    """Return *value* of a declared field in the form in which it is stored and compared."""
    match kind:
        case FieldType.KEYWORD:
            return escape(value)
        case FieldType.KEYWORDS:
            return [escape(one) for one in value]
        case FieldType.DATETIME:
            return datetime_text(value)
        case FieldType.NUMBER:
            return value + 0.0
        case FieldType.NUMBERS:
            return [one + 0.0 for one in value]
        case FieldType.BOOLEAN:
            return value
    assert_never(kind)


def _name(partition: str) -> str:
    if not partition:
        raise RefusedError("A request without a tenant was refused before it was sent.")
    return tenant_name(partition)


__all__ = ["ALL_ROWS", "NO_MARK", "NO_ROWS", "NO_VERSION", "WeaviateCompiler"]
