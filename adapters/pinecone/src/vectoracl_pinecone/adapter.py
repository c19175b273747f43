"""The flows of the Pinecone adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from vectoracl.adapter import Capabilities, Flow, together
from vectoracl.errors import DeniedError, RefusedError, StoreError, UnsupportedPredicateError
from vectoracl.fields import FieldType
from vectoracl.findings import Posture
from vectoracl.operations import Count, Delete, Fetch, Found, Replace, Rows, Scan, Search, Upsert
from vectoracl.prepare import check_tagged
from vectoracl.queries import ResolvedQuery, VectorQuery
from vectoracl.records import Record
from vectoracl.replacing import at_generation, version_of
from vectoracl_pinecone import posture as postures
from vectoracl_pinecone.capabilities import capabilities
from vectoracl_pinecone.compile import EVERY, MAX_IDS, NO_VERSION, NONE, PineconeCompiler, numbers
from vectoracl_pinecone.compile_predicate import Compiled, every
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.decode import ADAPTER, Decoder
from vectoracl_pinecone.lexical import WordSearch
from vectoracl_pinecone.names import document_prefix, id_of, name_part, tenant_of
from vectoracl_pinecone.pages import Pages, restless, taken_apart
from vectoracl_pinecone.requests import Describe, Done, Match, Put, Query

_ROUNDS = 6
_SIDE_BY_SIDE = 64
_FEW_DOCUMENTS = 4
_MOST = 10_000
_SHORT = "the index returned fewer hits than the scope holds"


class PineconeAdapter:
    """Every request is of one namespace, the tenant's own; scope and filter are one `$and` inside it."""

    def __init__(self, config: PineconeConfig, fields: Mapping[str, FieldType]) -> None:
        self.config = config
        self._fields = fields
        self._capabilities = capabilities(config)
        self._compile = PineconeCompiler(config, fields)
        self._decode = Decoder(config, fields)
        self._pages = Pages(config, self._compile, self._decode)
        self._words = WordSearch(config, self._compile, self._decode, self._pages)
        self._offers_fetch_by = config.fetch_by_metadata

    @property
    def capabilities(self) -> Capabilities:
        """What this adapter can do."""
        return self._capabilities

    # Reads

    def search(self, operation: Search) -> Flow[Found]:
        """Rank inside the scope; where fewer hits than asked for come, ask whether there is one more."""
        if not isinstance(operation.query, VectorQuery) and self.config.lexical:
            return (yield from self._words.search(operation, operation.query))
        vector = numbers(_vector(operation.query).vector)
        where = self._compile.scope(operation.scope, operation.where)
        if where is NONE:
            return Found([])
        partition, k = operation.partition, operation.k
        values = "vector" in operation.include
        matches: Sequence[Match]
        if operation.group_by is not None:
            matches = yield from self._grouped(partition, where, vector, k, operation.per_group, values=values)
        else:
            matches = yield from self._best(partition, where, vector, k, values=values)
        shortfall = None
        if len(matches) < k and operation.group_by is None and self.config.check_complete:
            shortfall = yield from self._shortfall(partition, where, vector, matches)
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
        left, whole = where, False
        while len(documents) < k and not whole and left is not NONE:
            matches = yield from self._compile.query(partition, left, size, vector, rows=True, values=values)
            whole = len(matches) < size
            for match in matches:
                document = self._decode.tag(match).document
                if document not in documents:
                    documents.append(document)
                    first.append(match)
            if not documents or whole:
                break
            left = every([where, self._compile.other_documents(documents)])
        kept = documents[:k]
        if each == 1:
            return first[:k]
        found: list[Match] = []
        for document in kept:
            own = every([where, self._compile.documents([document])])
            found.extend((yield from self._best(partition, own, vector, each, values=values)))
        return found

    def _ranked(
        self, partition: str, where: Compiled, vector: list[float], k: int, *, values: bool
    ) -> Flow[list[Match]]:
        """Rank for more hits than one reply holds: ids first, then their records, by the same vector and scope."""
        best = yield from self._compile.query(partition, where, k, vector)
        ids = [match.id for match in best]
        size = self._compile.per_reply(values=values)
        asked = [
            self._compile.query(
                partition, every([where, self._compile.records(ids[start : start + size])]), size, vector, rows=True,
                values=values,
            )
            for start in range(0, len(ids), size)
        ]  # fmt: skip
        found: list[Match] = []
        for start in range(0, len(asked), _SIDE_BY_SIDE):
            for matches in (yield from together(*asked[start : start + _SIDE_BY_SIDE])):
                found.extend(matches)
        return found

    def _shortfall(
        self, partition: str, where: Compiled, vector: list[float], matches: Sequence[Match]
    ) -> Flow[str | None]:
        """Say why there are fewer hits than the scope holds, if there are: the index is asked for any other record."""
        others = every([where, self._compile.others(match.id for match in matches)])
        more = yield from self._compile.query(partition, others, 1, vector)
        return _SHORT if more else None

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Return chunks by id, which are conditions beside the scope, inside the tenant's namespace."""
        where = every([self._compile.scope(operation.scope), self._compile.refs(operation.refs)])
        matches = yield from self._selected(operation.partition, where, values="vector" in operation.include)
        return Rows(self._decode.listed(matches, operation.include))

    def _selected(self, partition: str, where: Compiled, *, values: bool) -> Flow[list[Match]]:
        """Return all whole records that pass *where*."""
        if where is NONE:
            return []
        size = self._compile.per_reply(values=values)
        first = yield from self._compile.query(partition, where, size, rows=True, values=values)
        if len(first) < size:
            return list(first)
        if where is not EVERY and self._offers_fetch_by is not False:
            try:
                return (yield from self._fetched_by(partition, where))
            except StoreError as error:
                if self._offers_fetch_by or error.code not in ("not_offered", "not_provisioned"):
                    raise
                self._offers_fetch_by = False  # asked once: this server does not have it
        ids = yield from self._pages.matching(partition, where)
        return (yield from self._pages.rows(partition, ids, where, values=values))

    def _fetched_by(self, partition: str, where: Compiled) -> Flow[list[Match]]:
        found: list[Match] = []
        token: str | None = None
        while True:
            limit = self._compile.per_reply(values=True)
            page = yield from self._compile.fetch_by(partition, where, limit, token)
            self._offers_fetch_by = True
            found.extend(page.matches)
            if page.token is None:
                return found
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
        if where is NONE:
            return Rows([])
        rows = yield from self._pages.next(
            operation.partition, where, operation.after, operation.size + 1, values="vector" in operation.include
        )
        hits = self._decode.listed(rows[: operation.size], operation.include)
        return Rows(hits, more=len(rows) > operation.size)

    # Writes

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write all in one request. Existing records outside of the scope are looked for first.

        Raises: DeniedError if there is one; InvalidInputError if one request cannot hold them.
        """
        check_tagged(operation.records, operation.partition)
        if not operation.records:
            return 0
        partition, records = operation.partition, list(operation.records)
        puts = self._puts(partition, records, NO_VERSION)  # the limits, before any I/O
        generations: dict[str, int] = {}
        if not operation.verbatim:
            documents = sorted({record.tag.document for record in records})
            generations = yield from self._generations(partition, documents)
            if any(generations.values()) or any(record.tag.generation for record in records):
                records = _joined(records, generations)
                puts = self._puts(partition, records, NO_VERSION)
        outside = self._compile.outside(operation.scope)
        if (yield from self._any(partition, _ids(records), outside)):
            raise _denied("upsert")
        yield from self._write(partition, puts, self._compile.written(records[-1], NO_VERSION))
        if not operation.verbatim:
            yield from self._follow(partition, records, generations, outside)
        return len(records)

    def _follow(
        self, partition: str, records: Sequence[Record], generations: Mapping[str, int], outside: Compiled
    ) -> Flow[None]:
        """Look again at the documents of *records*, which are written; follow those that were replaced meanwhile.

        Their chunks are written into the new generation, and go from the one that they were left in. A replacement
        that writes after this look lists after it too, and so takes away what it replaces.

        Raises: StoreError with the code "replacing" if a document was replaced each time, "conflict" if the new
        version has a chunk that may not be overwritten; its chunks are not left in the old generation.
        """
        written = len(records)  # without those that are known to be in a generation that went
        try:
            for turn in range(_ROUNDS):
                now = yield from self._moved(partition, generations)
                late = [record for record in records if record.tag.document in now]
                if not late:
                    return
                written -= len(late)
                left, records, generations = _ids(late), _joined(late, now), now
                refused = turn == _ROUNDS - 1
                if not refused and not (yield from self._any(partition, _ids(records), outside)):
                    puts = self._puts(partition, records, NO_VERSION)
                    yield from self._write(partition, puts, self._compile.written(records[-1], NO_VERSION))
                    written += len(late)
                    yield from self._remove(partition, left, EVERY)
                    continue
                yield from self._remove(partition, left, EVERY)
                raise restless("unknown") if refused else _taken()
        except (StoreError, RefusedError) as error:
            failed = _half_done(error, written)
        raise failed

    def _moved(self, partition: str, generations: Mapping[str, int]) -> Flow[dict[str, int]]:
        """Return the newest generation of each document that has a newer one than *generations* say."""
        if not (yield from self._compile.query(partition, self._compile.newer(generations), 1)):
            return {}
        now = yield from self._generations(partition, sorted(generations))
        return {name: number for name, number in now.items() if number > generations[name]}

    def _puts(self, partition: str, records: Sequence[Record], version: str) -> list[Put]:
        return self._compile.puts(partition, self._compile.records_of(records, version))

    def _write(self, partition: str, puts: Sequence[Put], seen: Compiled) -> Flow[None]:
        """Write all of *puts*; `written` of an error counts the records that are in. *seen* is the last of them."""
        done, written = Done(), 0
        try:
            for put in puts:
                done = yield from put
                written += len(put.records)
            if self.config.wait_visible:
                yield from self._compile.settle(partition, done.lsn, seen, NONE)
            return
        except (StoreError, RefusedError) as error:
            if not written:
                raise
            failed = _half_done(error, written)
        raise failed

    def _generations(self, partition: str, documents: Sequence[str]) -> Flow[dict[str, int]]:
        """Return the newest generation of each of *documents*; 0 of one that was never replaced."""
        found = dict.fromkeys(documents, 0)
        if len(documents) > _FEW_DOCUMENTS:
            where = every([self._compile.documents(documents), self._compile.later()])
            later = yield from self._compile.query(partition, where, _MOST)
            if len(later) < _MOST:  # a full reply may hide a document behind the records of another
                names = {taken_apart(match.id).document for match in later}
                documents = [one for one in documents if name_part(one) in names]
        for start in range(0, len(documents), _SIDE_BY_SIDE):
            some = documents[start : start + _SIDE_BY_SIDE]
            pages = yield from together(
                *(self._compile.listing(partition, document_prefix(document)) for document in some)
            )
            for document, page in zip(some, pages, strict=True):
                ids = [match.id for match in page.matches]
                if page.token is not None:
                    ids = yield from self._pages.ids(partition, document_prefix(document))
                found[document] = max((taken_apart(one).generation for one in ids), default=0)
        return found

    def _any(self, partition: str, ids: Sequence[str], where: Compiled) -> Flow[bool]:
        """Tell whether a record of *ids* passes *where*."""
        if where is NONE:
            return False
        for start in range(0, len(ids), MAX_IDS):
            some = ids[start : start + MAX_IDS]
            matches = yield from self._compile.query(partition, every([where, self._compile.records(some)]), 1)
            if matches:
                return True
        return False

    def replace(self, operation: Replace) -> Flow[int]:
        """Make a new generation of one document: the new one is written before the old one goes.

        A replacement that met another one of the same document gives way to the newer, or goes again if it cannot be
        told which is.
        """
        check_tagged(operation.records, operation.partition)
        partition, document = operation.partition, operation.document
        version = version_of(operation.records)
        self._puts(partition, operation.records, version)  # the limits, before any I/O
        outside = self._compile.outside(operation.scope)
        mine: list[str] = []
        step = 1
        try:
            for turn in range(_ROUNDS):
                old = yield from self._pages.ids(partition, document_prefix(document))
                if (yield from self._any(partition, old, outside)):
                    if not mine:
                        raise _denied("replace")
                    yield from self._remove(partition, mine, EVERY)
                    raise _taken()
                if not operation.records:
                    yield from self._remove(partition, old, EVERY)
                    return 0
                generation = max((taken_apart(one).generation for one in old), default=-1) + step
                records = at_generation(operation.records, generation)
                puts = self._puts(partition, records, version)
                yield from self._write(partition, puts, self._compile.written(records[-1], version))
                mine = _ids(records)
                rival = yield from self._rival(partition, document, generation, version)
                if rival == "newer":
                    yield from self._remove(partition, sorted(mine), EVERY)
                    return len(records)
                # Listed again: another one may have written a generation below this one meanwhile, and be done.
                now = yield from self._pages.ids(partition, document_prefix(document))
                below = [one for one in now if taken_apart(one).generation < generation]
                yield from self._remove(partition, below, EVERY)
                if rival is None:
                    return len(records)
                # Both took the same number: go again, each by a step of its own.
                step = 2 + (int(version, 16) >> (7 * turn)) % 127
            raise StoreError(
                "Others replace the same document at the same time; replace it again.", code="conflict", adapter=ADAPTER
            )
        except (StoreError, RefusedError) as error:
            if not mine:
                raise
            failed = _half_done(error, len(mine))
        failed.written = min(failed.written, len(mine))  # in one generation or another
        raise failed

    def _rival(
        self, partition: str, document: str, generation: int, version: str
    ) -> Flow[Literal["newer", "same"] | None]:
        """Tell whether another one wrote into *document* a newer generation, or into this very one."""
        rival = self._compile.rival(document, generation, version)
        found = yield from self._compile.query(partition, rival, 1)
        if not found:
            return None
        if taken_apart(found[0].id).generation == generation:
            found = yield from self._compile.query(partition, self._compile.newer({document: generation}), 1)
        return "newer" if found else "same"

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Find out which records are meant, then delete those of them that are still so."""
        partition = operation.partition
        where = self._compile.scope(operation.scope)
        if operation.where is not None:
            where = self._compile.scope(operation.scope, operation.where)
        if where is NONE:
            return 0
        if operation.refs is not None:
            meant = yield from self._named(operation)
        elif operation.document is not None:
            meant = yield from self._pages.ids(partition, document_prefix(operation.document))
        else:
            ids = yield from self._pages.matching(partition, where)
            yield from self._remove(partition, ids, where)
            return len(ids)
        ids = yield from self._pages.passing(partition, meant, where)
        yield from self._remove(partition, ids, where)
        return len(ids)

    def _named(self, operation: Delete) -> Flow[list[str]]:
        """Return the ids of the records that a delete names, whatever the scope."""
        partition, refs = operation.partition, operation.refs or ()
        bare = [ref for ref in refs if ref.document is None]
        pairs: dict[str, set[str]] = {}
        for ref in refs:
            if ref.document is not None:
                pairs.setdefault(ref.document, set()).add(name_part(ref.chunk))
        found: dict[str, None] = {}
        if bare:
            where = self._compile.refs(bare)
            matches = yield from self._compile.query(partition, where, _MOST)
            ids = [match.id for match in matches]
            if len(ids) == _MOST:
                ids = yield from self._pages.matching(partition, where)
            found.update(dict.fromkeys(ids))
        for document, chunks in pairs.items():
            ids = yield from self._pages.ids(partition, document_prefix(document))
            found.update(dict.fromkeys(one for one in ids if taken_apart(one).chunk in chunks))
        return list(found)

    def _remove(self, partition: str, ids: Sequence[str], where: Compiled) -> Flow[None]:
        """Delete those of *ids* that still pass *where*."""
        gone = False
        try:
            for start in range(0, len(ids), MAX_IDS):
                yield from self._compile.remove(partition, ids[start : start + MAX_IDS], where)
                gone = True
            if ids and self.config.wait_visible:
                yield from self._compile.settle(partition, None, NONE, self._compile.records(ids[-1:]))
        except StoreError as error:
            if gone:
                error.sent = "unknown"
            raise

    # What touches no rows, and what touches all

    def posture(self) -> Flow[Posture]:
        """Read the index's configuration, and whether its default namespace is empty."""
        return (yield from postures.look(self.config))

    def unscoped(self, query: ResolvedQuery, k: int) -> Flow[Found]:
        """Rank over all tenants' namespaces, one after the other: there is no index over all of them."""
        vector = numbers(_vector(query).vector)
        found = yield from Describe()
        prefix = self.config.namespace_prefix
        matches: list[Match] = []
        for namespace in sorted(found.namespaces):
            if namespace.startswith(prefix) and (tenant_of(prefix, namespace) or namespace.startswith(f"{prefix}h-")):
                top = min(k, self._compile.per_reply(values=False))
                matches.extend((yield from Query(None, namespace, vector, top, None, metadata=True)))
        include = frozenset({"text", "metadata"})
        return Found(self._decode.ranked(matches, include)[:k])  # type: ignore[arg-type]  # the literals of Include


def _vector(query: ResolvedQuery) -> VectorQuery:
    if not isinstance(query, VectorQuery):
        raise UnsupportedPredicateError("This search answers vector queries.", field="query")
    return query


def _ids(records: Sequence[Record]) -> list[str]:
    return [id_of(record.tag) for record in records]


def _joined(records: Sequence[Record], generations: Mapping[str, int]) -> list[Record]:
    """Return *records* in the generation of each one's document."""
    return [record._replace(tag=record.tag._replace(generation=generations[record.tag.document])) for record in records]


def _half_done(error: StoreError | RefusedError, written: int) -> StoreError:
    """Return *error* as that of a write that has begun, of which *written* chunks more are in than it says."""
    if isinstance(error, RefusedError):
        # Such as a store that was closed meanwhile: a refusal says that nothing was sent, and here something was.
        error = StoreError(f"{error} A part of the write was sent before.", code=error.code, adapter=ADAPTER)
    error.sent = "unknown"
    error.written += written
    return error


def _taken() -> StoreError:
    """Return the error of a write whose document was replaced meanwhile by what it may not touch."""
    return StoreError(
        "Another writer replaced the document meanwhile by one that this handle may not overwrite.",
        code="conflict",
        adapter=ADAPTER,
    )


def _denied(action: str) -> DeniedError:
    return DeniedError("The write touches a chunk outside of what this handle may write.", action=action)
