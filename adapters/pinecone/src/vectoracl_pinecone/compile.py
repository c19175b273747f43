"""Compiles operations to Pinecone requests. Pure.

Every request is built here, with the namespace of its one tenant. The scope and the caller's filter are unchanged
operands of one `$and`. They are never merged: a key of one would replace the same key of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import orjson

from vectoracl.adapter_api.chunk_validation import dump_metadata
from vectoracl.adapter_api.operations import ChunkRef, LabelChange, Search
from vectoracl.adapter_api.selectors import refs_condition
from vectoracl.errors import InvalidInputError, RefusedError, TooLargeError
from vectoracl.filters.boolean_compiler import ALL_ROWS, NO_ROWS
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import Predicate
from vectoracl.model.records import Record as Chunk
from vectoracl.model.records import Vector, docgen, tag_fields
from vectoracl.text.sparse_words import weights
from vectoracl_pinecone.compile_predicate import ALGEBRA, Compiled, Compiler, among, every, exists, some
from vectoracl_pinecone.config import MAX_REQUEST_BYTES, MAX_UPSERT, PineconeConfig
from vectoracl_pinecone.names import filterable, id_of, namespace_of
from vectoracl_pinecone.requests import FetchBy, Filter, Listing, Patch, Put, Query, Record, Remove, Settle, Sparse

MAX_METADATA_BYTES = 40_000
"""Metadata of one record as JSON. Pinecone's limit is 40 KB ("Database limits"); the smaller reading of it."""
MAX_REPLY_BYTES = 4_000_000
MAX_FILTER_BYTES = 1_900_000
"""A filter with its vector has to fit into a request of 2 MB."""
MAX_IDS = 1000
MAX_LISTED = 100
MAX_WORDS = 1000
"""The size of a sparse vector next to a dense one: "no more than 1000 non-zero values" ("Limits"), which is the
smaller of the limits in Pinecone's documentation."""
NUMBER_BYTES = 12  # a float32 in JSON, with its comma, at the most (as orjson writes it)
_WORD_BYTES = 20  # a place of 10 digits and a weight of 6 in JSON, with their commas
_NO_WORD = "-"  # what a text without a word has in its place: a list that is empty may not be there at all
TINY = 1e-30
_BESIDE = 64  # braces, quotes and names around a record
NO_VERSION = ""


class PineconeCompiler:
    """Compiles the operations on one configured index."""

    def __init__(self, config: PineconeConfig, fields: Mapping[str, FieldType]) -> None:
        self._config = config
        self._keys = config.keys
        self._predicates = Compiler(config, fields)
        # Where nothing is ranked a vector is asked for all the same; the cosine needs one with a direction.
        self.direction = [1.0] + [0.0] * (config.dimension - 1)
        # Next to words: too faint to change their order, and not all zeros, which Pinecone does not take for a vector.
        self.tiny = [TINY, *self.direction[1:]]

    # Conditions

    def scope(self, *predicates: Predicate) -> Compiled:
        """Return the conjunction of *predicates*, each a separate operand."""
        return every([self._predicates.compile(one) for one in predicates])

    def outside(self, predicate: Predicate) -> Compiled:
        """Return the negation of *predicate*."""
        return self._predicates.compile(predicate, negated=True)

    def documents(self, names: Iterable[str]) -> Compiled:
        """Return that the document is one of *names*."""
        return among(self._keys.document, sorted(names), negated=False, always=True)

    def other_documents(self, names: Iterable[str]) -> Compiled:
        """Return that the document is none of *names*."""
        return among(self._keys.document, sorted(names), negated=True, always=True)

    def later(self) -> Compiled:
        """Return that the record is of a later generation than the first."""
        return {self._keys.generation: {"$gte": 1}}

    def newer(self, generations: Mapping[str, int]) -> Compiled:
        """Return that the record is of a later generation of its document than the one in *generations*."""
        names: dict[int, list[str]] = {}
        for name, number in generations.items():
            names.setdefault(number, []).append(name)
        return some(
            [
                every([self.documents(some_), {self._keys.generation: {"$gte": number + 1}}])
                for number, some_ in sorted(names.items())
            ]
        )

    def rival(self, document: str, generation: int, version: str) -> Compiled:
        """Return that the record is of this generation or a later one, but not of *version*."""
        return every(
            [
                self.documents([document]),
                {self._keys.generation: {"$gte": generation}},
                {self._keys.version: {"$ne": version}},
            ]
        )

    def replaced_by_another(self, document: str, generation: int, version: str) -> Compiled:
        """Return that the record is of another replacement of this generation; an upsert may have followed into it."""
        return every([self.rival(document, generation, version), {self._keys.version: {"$ne": NO_VERSION}}])

    def records(self, ids: Iterable[str]) -> Compiled:
        """Return that the record has one of *ids*."""
        return among(self._keys.record, list(ids), negated=False, always=True)

    def stamped(self, ids: Mapping[float, Sequence[str]]) -> Compiled:
        """Return that the record has one of *ids*, and was written at the time under which that is."""
        return some([every([self.records(some_), {self._keys.time: {"$eq": time}}]) for time, some_ in ids.items()])

    def others(self, ids: Iterable[str]) -> Compiled:
        """Return that the record has none of *ids*."""
        return among(self._keys.record, list(ids), negated=True, always=True)

    def missing(self, operation: Search, found: Sequence[tuple[str, str]]) -> list[Compiled]:
        """Return what a record passes that would be in the answer too, a filter each; none where that is full.

        *found* are the documents and ids of the records in it.
        """
        if operation.group_by is None:
            return [self.others(id_ for _, id_ in found)] if len(found) < operation.k else []
        groups: dict[str, list[str]] = {}
        for document, id_ in found:
            groups.setdefault(document, []).append(id_)
        conditions = [self.other_documents(groups)] if len(groups) < operation.k else []
        part: list[str] = []
        ids: list[str] = []
        for document, own in [*groups.items(), ("", [])]:
            if part and (not document or len(ids) + len(own) > MAX_IDS):
                conditions.append(every([self.documents(part), self.others(ids)]))
                part, ids = [], []
            if len(own) < operation.per_group:
                part.append(document)
                ids.extend(own)
        return conditions

    def written(self, chunk: Chunk, version: str) -> Compiled:
        """Return that the record is this chunk as it was just written."""
        return every(
            [
                self.records([id_of(chunk.tag)]),
                {self._keys.time: {"$eq": chunk.tag.time}},
                {self._keys.version: {"$eq": version}},
            ]
        )

    def holds(self, query: Sequence[int]) -> Compiled:
        """Return that the text has one of the words at the places *query*."""
        return among(self._keys.words, [_word(one) for one in query], negated=False, always=True)

    def wordless(self) -> Compiled:
        """Return that the record was written without words, whatever its text."""
        return exists(self._keys.words, there=False)

    def refs(self, refs: Sequence[ChunkRef]) -> Compiled:
        """Return that the record is one of the chunks that *refs* name."""
        chunks = partial(among, self._keys.chunk, negated=False, always=True)
        return refs_condition(refs, ALGEBRA, self.documents, chunks)

    # Requests

    def namespace(self, partition: str) -> str:
        """Return the namespace of a tenant."""
        return namespace_of(self._config.namespace_prefix, partition)

    def per_reply(self, *, values: bool) -> int:
        """Return how many whole records fit one reply, whatever is in them; "page" at the most."""
        one = MAX_METADATA_BYTES + (NUMBER_BYTES * self._config.dimension if values else 0)
        return max(1, min(self._config.page, MAX_REPLY_BYTES // one))

    def query(
        self,
        partition: str,
        where: Compiled,
        top_k: int,
        vector: list[float] | None = None,
        *,
        rows: bool = False,
        values: bool = False,
    ) -> Query:
        """Compile a query of the records that pass *where*, which is not NO_ROWS; *rows* asks for whole records."""
        return Query(
            partition, self.namespace(partition), self.direction if vector is None else vector, top_k, _filter(where),
            rows, values,
        )  # fmt: skip

    def by_words(
        self,
        partition: str,
        where: Compiled,
        top_k: int,
        query: Sequence[int],
        *,
        rows: bool = False,
        values: bool = False,
    ) -> Query:
        """Compile a query of the records that pass *where*, ranked by the words at the places *query*."""
        words = Sparse(list(query), [1.0] * len(query))
        return Query(partition, self.namespace(partition), self.tiny, top_k, _filter(where), rows, values, words)

    def listing(
        self, partition: str, prefix: str | None = None, token: str | None = None, limit: int = MAX_LISTED
    ) -> Listing:
        """Compile one page of a listing of ids."""
        return Listing(partition, self.namespace(partition), prefix, token, limit)

    def fetch_by(self, partition: str, where: Compiled, limit: int, token: str | None = None) -> FetchBy:
        """Compile one page of whole records by a filter."""
        condition = _filter(where)
        if condition is None:
            raise RefusedError("A fetch without a filter was refused before it was sent.")
        return FetchBy(partition, self.namespace(partition), condition, limit, token)

    def remove(self, partition: str, ids: Sequence[str], where: Compiled) -> Remove:
        """Compile a delete of those of *ids* that pass *where*. Raises: RefusedError without ids."""
        if not ids:
            raise RefusedError("A delete without ids was refused before it was sent.")
        if where is ALL_ROWS:
            return Remove(partition, self.namespace(partition), ids=tuple(ids))
        return Remove(partition, self.namespace(partition), filter=_filter(every([where, self.records(ids)])))

    def remove_all(self, partition: str, where: Compiled) -> Remove:
        """Compile a delete of the records that pass *where*, in one request; ALL_ROWS is all of the tenant's."""
        own = every([where, {self._keys.tenant: {"$eq": partition}}])
        return Remove(partition, self.namespace(partition), filter=_filter(own))

    def settle(self, partition: str, lsn: int | None, seen: Compiled, gone: Compiled) -> Settle:
        """Compile the wait for a write; NO_ROWS as *seen* or *gone* is nothing to wait for."""
        return Settle(
            partition,
            self.namespace(partition),
            self.direction,
            lsn,
            None if isinstance(seen, bool) else seen,
            None if isinstance(gone, bool) else gone,
        )

    # Writes

    def generations(self, places: Iterable[tuple[str, int]]) -> Compiled:
        """Return that the record is of one of these generations of documents."""
        names = [docgen(document, number) for document, number in places]
        return among(self._keys.docgen, names, negated=False, always=True)

    def labelled(self, id_: str, rev: int) -> Compiled:
        """Return that the record *id_* has *rev*."""
        return every([self.records([id_]), {self._keys.rev: {"$eq": rev}}])

    def label(self, partition: str, id_: str, change: LabelChange) -> Patch:
        """Compile the writing of label, expiry and rev into one record."""
        keys = self._keys
        metadata = {keys.label: change.label, keys.expires: change.expires, keys.rev: change.rev}
        return Patch(partition, self.namespace(partition), id_, metadata)

    def records_of(self, records: Sequence[Chunk], version: str) -> list[Record]:
        """Return *records*, whose tags have their generation, as Pinecone's. Raises: InvalidInputError."""
        return [self._record(record, place, version) for place, record in enumerate(records)]

    def _record(self, record: Chunk, place: int, version: str) -> Record:
        keys, tag = self._keys, record.tag
        id_ = id_of(tag)
        metadata: dict[str, Any] = {
            **tag_fields(keys, tag),
            keys.version: version,
            keys.record: id_,
            keys.text: record.text,
            keys.metadata: dump_metadata(record.metadata).decode(),
            **filterable(keys, record.metadata),
        }
        words = self._words(record.text, place, metadata) if self._config.lexical else None
        if not record.vector.any():
            raise InvalidInputError(
                f"Chunk {place} of the call has a vector of zeros, which Pinecone refuses with any metric.",
                field="vector",
            )
        size = len(orjson.dumps(metadata))
        if size > MAX_METADATA_BYTES:
            raise InvalidInputError(
                f"Chunk {place} of the call has {size:,} bytes of text, metadata and tag, but Pinecone's limit is "
                f"{MAX_METADATA_BYTES:,} per vector. Make the chunk shorter.",
                field="chunks",
            )
        written = orjson.dumps(record.vector, option=orjson.OPT_SERIALIZE_NUMPY)
        # Read again: the shortest decimals of float32, half as long as those of the same numbers as doubles.
        size += len(written) + len(id_) + _BESIDE + (0 if words is None else _BESIDE + _WORD_BYTES * len(words.indices))
        return Record(id_, orjson.loads(written), metadata, size, words)

    def _words(self, text: str, place: int, metadata: dict[str, Any]) -> Sparse | None:
        """Add the places of *text*'s words to *metadata*; return its sparse vector, None where it has no word."""
        entries = weights(text)
        if len(entries) > MAX_WORDS:
            raise InvalidInputError(
                f"Chunk {place} of the call has {len(entries):,} distinct words, but Pinecone's limit is {MAX_WORDS:,} "
                "per vector. Make the chunk shorter.",
                field="chunks",
            )
        metadata[self._keys.words] = [_word(one) for one in entries] or [_NO_WORD]
        return Sparse(list(entries), list(entries.values())) if entries else None

    def batches(self, records: Sequence[Chunk]) -> list[list[Chunk]]:
        """Return *records* in parts that one request each takes."""
        chunk_lists: list[list[Chunk]] = []
        chunks = iter(records)
        for part in _parts(self.records_of(records, NO_VERSION)):
            chunk_lists.append([next(chunks) for _ in part])
        return chunk_lists

    def puts(self, partition: str, records: Sequence[Record]) -> list[Put]:
        """Return the requests that write *records*, as few as the limits permit.

        Raises: InvalidInputError if it takes more than one and config does not permit that, with nothing sent.
        """
        batches = _parts(records)
        if len(batches) > 1 and not self._config.split_upserts:
            raise TooLargeError(
                f"The call needs {len(batches)} requests, since a request has at most {MAX_UPSERT:,} records and 2 MB, "
                "and only a single request is all or nothing. Write fewer chunks per call, or set split_upserts = "
                "true.",
                field="chunks",
            )
        if any(record.size > MAX_REQUEST_BYTES - 512 for record in records):
            raise InvalidInputError("A chunk is larger than a request may be (2 MB).", field="chunks")
        return [Put(partition, self.namespace(partition), tuple(batch)) for batch in batches]


def _parts(records: Sequence[Record]) -> list[list[Record]]:
    """Return *records* in parts of at most 1,000 records and 2 MB; a larger record is a separate part."""
    parts: list[list[Record]] = []
    room = 0
    for record in records:
        if not parts or record.size > room or len(parts[-1]) == MAX_UPSERT:
            parts.append([])
            room = MAX_REQUEST_BYTES - 2 * _BESIDE - 256
        parts[-1].append(record)
        room -= record.size
    return parts


def numbers(vector: Vector) -> list[float]:
    """Return a vector as the shortest decimals that read as the same float32 numbers."""
    decimals: list[float] = orjson.loads(orjson.dumps(np.ascontiguousarray(vector), option=orjson.OPT_SERIALIZE_NUMPY))
    return decimals


def _word(place: int) -> str:
    return f"{place:08x}"


def _filter(where: Compiled) -> Filter | None:
    """Return what is sent: None for every record. Raises: RefusedError for none, which is never asked."""
    if where is NO_ROWS:
        raise RefusedError("A request that cannot match anything was refused before it was sent.")
    if isinstance(where, bool):
        return None
    if not where:
        raise RefusedError(
            "A request with an empty filter, which matches every record, was refused before it was sent."
        )
    size = len(orjson.dumps(where))
    if size > MAX_FILTER_BYTES:
        raise RefusedError(
            f"The filter of the scope has {size:,} bytes, and {MAX_FILTER_BYTES:,} are the most that is sent. Under a "
            "registry use coarser labels, and run `vectoracl reconcile` if documents have changed.",
            field="scope",
        )
    return where


__all__ = ["ALL_ROWS", "MAX_IDS", "MAX_LISTED", "NO_ROWS", "NO_VERSION", "PineconeCompiler", "numbers"]
