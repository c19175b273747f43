"""Upsert, replace and delete as sequences of requests, on a store without transactions or conditional writes.

Pinecone can upsert records by id, delete records by id, and delete records by filter. There is no lock, no condition on
a write, and no way to write and delete in one step. A record's id contains its document's generation, so the records of
two generations never overwrite each other. The flows follow three rules.

New before old. `replace` lists the document's ids, writes the new records as generation newest + 1, and then deletes
the older generations. The document never disappears; between the two requests a reader can see both generations. The
first replacement creates generation 1, never 0, which is where an upsert writes that finds no document.

Write, then read again. Concurrent writers cannot exclude each other, so each one queries the document again after its
write and adapts:

- `replace` looks for a rival, which is another version in its own generation or a newer one. A newer generation wins:
  the records written here are deleted, and the call succeeds, as if the other one had replaced them a moment later. If
  another replacement chose the same generation, both delete what is below it and write again, each in a generation that
  its version's digest selects, so that one of them becomes the newer one.
- `upsert` looks for a generation newer than the one it wrote into. If there is one, it writes its chunks into that
  generation and deletes them from the old one. A replacement that writes after this read also lists after it, so it
  deletes what it replaces.

Check the scope twice. Chunks outside of the handle's scope are looked for before the write, and a replacement looks
again before it deletes the older generations.

The second read must see current data: without `wait_visible` it can lag behind, as any query of Pinecone can (see
docs/pinecone.md, "Consistency"). An error after the first request has `sent = "unknown"`, and its `written` counts the
records that were stored. A replacement that was interrupted leaves two generations; the next one deletes the older.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from vectoracl.adapter_api.chunk_validation import check_tagged
from vectoracl.adapter_api.contract import Flow, together
from vectoracl.adapter_api.generations import at_generation, version_of
from vectoracl.adapter_api.operations import Delete, Replace, Upsert
from vectoracl.errors import DeniedError, RefusedError, StoreError
from vectoracl.model.records import Record
from vectoracl_pinecone.compile import ALL_ROWS, MAX_IDS, NO_ROWS, NO_VERSION, PineconeCompiler
from vectoracl_pinecone.compile_predicate import Compiled, every
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.decode import ADAPTER
from vectoracl_pinecone.names import document_prefix, id_of, name_part
from vectoracl_pinecone.pages import Pages, parts_of, too_many_conflicts
from vectoracl_pinecone.requests import Done, Put

ROUNDS = 6
_CONCURRENT = 64
_FEW_DOCUMENTS = 4
_MOST = 10_000


class Writer:
    """Writes to one configured index."""

    def __init__(self, config: PineconeConfig, compiled: PineconeCompiler, pages: Pages) -> None:
        self._config = config
        self._compile = compiled
        self._pages = pages

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
        # Without a scope to check the ids are not computed.
        if outside is not NO_ROWS and (yield from self._any(partition, _ids(records), outside)):
            raise _denied("upsert")
        yield from self._write(partition, puts, self._compile.written(records[-1], NO_VERSION))
        if not operation.verbatim:
            yield from self._follow(partition, records, generations, outside)
        return len(records)

    def _follow(
        self, partition: str, records: Sequence[Record], generations: Mapping[str, int], outside: Compiled
    ) -> Flow[None]:
        """Read the documents of the written *records* again, and follow those that were replaced in the meantime.

        Their chunks are written into the new generation, and go from the one that they were left in. A replacement
        that writes after this look lists after it too, and so takes away what it replaces.

        Raises: StoreError with the code "replacing" if a document was replaced each time, "conflict" if the new
        version has a chunk that may not be overwritten; its chunks are not left in the old generation.
        """
        written = len(records)  # without those that are known to be in a generation that went
        try:
            for turn in range(ROUNDS):
                now = yield from self._moved(partition, generations)
                late = [record for record in records if record.tag.document in now]
                if not late:
                    return
                written -= len(late)
                ids, records, generations = _ids(late), _joined(late, now), now
                refused = turn == ROUNDS - 1
                if not refused and not (yield from self._any(partition, _ids(records), outside)):
                    puts = self._puts(partition, records, NO_VERSION)
                    yield from self._write(partition, puts, self._compile.written(records[-1], NO_VERSION))
                    written += len(late)
                    yield from self._remove(partition, ids, ALL_ROWS)
                    continue
                yield from self._remove(partition, ids, ALL_ROWS)
                raise too_many_conflicts("unknown") if refused else _taken()
        except (StoreError, RefusedError) as error:
            failed = _half_done(error, written)
        raise failed

    def _moved(self, partition: str, generations: Mapping[str, int]) -> Flow[dict[str, int]]:
        """Return the newest generation of each document that has a newer one than in *generations*."""
        if not (yield from self._compile.query(partition, self._compile.newer(generations), 1)):
            return {}
        now = yield from self._generations(partition, sorted(generations))
        return {name: number for name, number in now.items() if number > generations[name]}

    def _puts(self, partition: str, records: Sequence[Record], version: str) -> list[Put]:
        return self._compile.puts(partition, self._compile.records_of(records, version))

    def _write(self, partition: str, puts: Sequence[Put], seen: Compiled) -> Flow[None]:
        """Write all of *puts*; an error's `written` counts the stored records. *seen* matches the last of them."""
        outcome, written = Done(), 0
        try:
            for put in puts:
                outcome = yield from put
                written += len(put.records)
            if self._config.wait_visible:
                yield from self._compile.settle(partition, outcome.lsn, seen, NO_ROWS)
            return
        except (StoreError, RefusedError) as error:
            if not written:
                raise
            failed = _half_done(error, written)
        raise failed

    def _generations(self, partition: str, documents: Sequence[str]) -> Flow[dict[str, int]]:
        """Return the newest generation of each of *documents*; 0 of one that was never replaced."""
        generations = dict.fromkeys(documents, 0)
        if len(documents) > _FEW_DOCUMENTS:
            where = every([self._compile.documents(documents), self._compile.later()])
            later = yield from self._compile.query(partition, where, _MOST)
            if len(later) < _MOST:  # a full reply may hide a document behind the records of another
                names = {parts_of(match.id).document for match in later}
                documents = [one for one in documents if name_part(one) in names]
        for start in range(0, len(documents), _CONCURRENT):
            some = documents[start : start + _CONCURRENT]
            pages = yield from together(
                *(self._compile.listing(partition, document_prefix(document)) for document in some)
            )
            for document, page in zip(some, pages, strict=True):
                ids = [match.id for match in page.matches]
                if page.token is not None:
                    ids = yield from self._pages.ids(partition, document_prefix(document))
                generations[document] = max((parts_of(one).generation for one in ids), default=0)
        return generations

    def _any(self, partition: str, ids: Sequence[str], where: Compiled) -> Flow[bool]:
        """Return whether a record of *ids* passes *where*."""
        if where is NO_ROWS:
            return False
        for start in range(0, len(ids), MAX_IDS):
            some = ids[start : start + MAX_IDS]
            matches = yield from self._compile.query(partition, every([where, self._compile.records(some)]), 1)
            if matches:
                return True
        return False

    def replace(self, operation: Replace) -> Flow[int]:
        """Make a new generation of one document: the new one is written before the old one goes.

        A replacement that meets another one of the same document yields to the newer one, or runs again if neither is
        newer. Chunks outside of the scope are looked for again after the new generation is written: an upsert that
        comes later finds the new generation, and follows it.
        """
        check_tagged(operation.records, operation.partition)
        partition, document = operation.partition, operation.document
        version = version_of(operation.records)
        self._puts(partition, operation.records, version)  # the limits, before any I/O
        outside = self._compile.outside(operation.scope)
        mine: list[str] = []
        step = 1
        try:
            for turn in range(ROUNDS):
                old = yield from self._pages.ids(partition, document_prefix(document))
                if (yield from self._any(partition, old, outside)):
                    if not mine:
                        raise _denied("replace")
                    ids, mine = mine, []  # whatever becomes of their removal, they do not count as written
                    yield from self._remove(partition, ids, ALL_ROWS)
                    raise _taken()
                if not operation.records:
                    own = every([self._compile.documents([document]), self._compile.scope(operation.scope)])
                    yield from self._remove_all(partition, old, own)
                    return 0
                # Never 0, also of a document that is not there: that is where an upsert writes which sees none either.
                generation = max((parts_of(one).generation for one in old), default=0) + step
                records = at_generation(operation.records, generation)
                puts = self._puts(partition, records, version)
                yield from self._write(partition, puts, self._compile.written(records[-1], version))
                mine = _ids(records)
                rival = yield from self.rival(partition, document, generation, version)
                if rival == "same" and not (yield from self._contested(partition, document, generation, version)):
                    rival = None
                if rival == "newer":
                    ids, mine = mine, []
                    yield from self._remove(partition, sorted(ids), ALL_ROWS)
                    return len(records)
                # Listed again: another replacement may have finished a lower generation in the meantime.
                now = yield from self._pages.ids(partition, document_prefix(document))
                below = [one for one in now if parts_of(one).generation < generation]
                if (yield from self._any(partition, below, outside)):
                    ids, mine = mine, []
                    yield from self._remove(partition, ids, ALL_ROWS)
                    raise _taken()
                yield from self._remove(partition, below, ALL_ROWS)
                if rival is None:
                    return len(records)
                # Both chose the same generation: run again, each with a different step.
                step = 2 + (int(version, 16) >> (7 * turn)) % 127
            raise StoreError(
                "Other writers concurrently replace the same document; replace it again.",
                code="conflict",
                adapter=ADAPTER,
            )
        except (StoreError, RefusedError) as error:
            if not mine:
                raise
            failed = _half_done(error, len(mine))
        failed.written = min(failed.written, len(mine))  # in one generation or another
        raise failed

    def rival(
        self, partition: str, document: str, generation: int, version: str
    ) -> Flow[Literal["newer", "same"] | None]:
        """Return whether another one wrote into *document* a newer generation, or into this very one."""
        rival = self._compile.rival(document, generation, version)
        matches = yield from self._compile.query(partition, rival, 1)
        if not matches:
            return None
        if parts_of(matches[0].id).generation == generation:
            matches = yield from self._compile.query(partition, self._compile.newer({document: generation}), 1)
        return "newer" if matches else "same"

    def _contested(self, partition: str, document: str, generation: int, version: str) -> Flow[bool]:
        """Return whether another replacement took *generation* too, and not only an upsert that follows this one."""
        other = self._compile.replaced_by_another(document, generation, version)
        return bool((yield from self._compile.query(partition, other, 1)))

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Count the records that are meant, then delete them in one request, by what they are and not by their ids.

        An upsert that comes between the two is before the delete or after it, whole. Deleted by the ids that were
        counted, a batch would lose those of its records that were there before, and keep the others.
        """
        partition = operation.partition
        where = self._compile.scope(operation.scope)
        selected: Compiled = ALL_ROWS
        if operation.where is not None:
            where = self._compile.scope(operation.scope, operation.where)
        if where is NO_ROWS:
            return 0
        if operation.refs is not None:
            meant, selected = (yield from self._named(operation)), self._compile.refs(operation.refs)
        elif operation.document is not None:
            meant = yield from self._pages.ids(partition, document_prefix(operation.document))
            selected = self._compile.documents([operation.document])
        else:
            ids = yield from self._pages.matching(partition, where)
            yield from self._remove_all(partition, ids, where)
            return len(ids)
        ids = yield from self._pages.passing(partition, meant, where)
        if operation.refs is not None and len(operation.refs) > MAX_IDS:  # more than a filter should hold
            yield from self._remove(partition, ids, where)
        else:
            yield from self._remove_all(partition, ids, every([where, selected]))
        return len(ids)

    def _remove_all(self, partition: str, ids: Sequence[str], where: Compiled) -> Flow[None]:
        """Delete all that pass *where* in one request, if there are any: *ids* are those that were found."""
        if not ids:
            return
        yield from self._compile.remove_all(partition, where)
        if self._config.wait_visible:
            gone = every([where, self._compile.records(ids[-1:])])
            yield from self._compile.settle(partition, None, NO_ROWS, gone)

    def _named(self, operation: Delete) -> Flow[list[str]]:
        """Return the ids of the records that a delete names, whatever the scope."""
        partition, refs = operation.partition, operation.refs or ()
        bare = [ref for ref in refs if ref.document is None]
        pairs: dict[str, set[str]] = {}
        for ref in refs:
            if ref.document is not None:
                pairs.setdefault(ref.document, set()).add(name_part(ref.chunk))
        unique_ids: dict[str, None] = {}
        if bare:
            where = self._compile.refs(bare)
            matches = yield from self._compile.query(partition, where, _MOST)
            ids = [match.id for match in matches]
            if len(ids) == _MOST:
                ids = yield from self._pages.matching(partition, where)
            unique_ids.update(dict.fromkeys(ids))
        for document, chunks in pairs.items():
            ids = yield from self._pages.ids(partition, document_prefix(document))
            unique_ids.update(dict.fromkeys(one for one in ids if parts_of(one).chunk in chunks))
        return list(unique_ids)

    def _remove(self, partition: str, ids: Sequence[str], where: Compiled) -> Flow[None]:
        """Delete those of *ids* that still pass *where*."""
        gone = False
        try:
            for start in range(0, len(ids), MAX_IDS):
                yield from self._compile.remove(partition, ids[start : start + MAX_IDS], where)
                gone = True
            if ids and self._config.wait_visible:
                yield from self._compile.settle(partition, None, NO_ROWS, self._compile.records(ids[-1:]))
        except StoreError as error:
            if gone:
                error.sent = "unknown"
            raise


def _ids(records: Sequence[Record]) -> list[str]:
    return [id_of(record.tag) for record in records]


def _joined(records: Sequence[Record], generations: Mapping[str, int]) -> list[Record]:
    """Return *records* in the generation of each one's document."""
    return [record._replace(tag=record.tag._replace(generation=generations[record.tag.document])) for record in records]


def _half_done(error: StoreError | RefusedError, written: int) -> StoreError:
    """Return *error* as that of a started write, with *written* added to the number of stored chunks."""
    if isinstance(error, RefusedError):
        # For example a store that was closed in the meantime. A refusal means that nothing was sent; here a part was.
        error = StoreError(f"{error} A part of the write had already been sent.", code=error.code, adapter=ADAPTER)
    error.sent = "unknown"
    error.written += written
    return error


def _taken() -> StoreError:
    """Return the error of a write whose document was concurrently replaced by chunks that it may not write."""
    return StoreError(
        "Another writer concurrently replaced the document with one that this handle may not overwrite.",
        code="conflict",
        adapter=ADAPTER,
    )


def _denied(action: str) -> DeniedError:
    return DeniedError("The write touches a chunk outside of what this handle may write.", action=action)
