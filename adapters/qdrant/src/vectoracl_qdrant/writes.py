"""Upsert and replace as sequences of requests; the commit is a compare-and-set on the document's head (`heads`).

Replace. The first request claims the head, marks the points of the published version, writes the new points, also with
a mark, and commits. Then the head is read: it shows whether the commit succeeded. A last request removes the old
version and the marks or, if another replacement was published in between, what this one wrote. A reader that meets a
mark reads the head (`versions`). A writer that dies at any point leaves marks and at most points of an unpublished
version: no reader sees them, and no later write makes them visible.

Upsert. It writes its points with a mark into the published version, and removes the mark when the head shows that no
replacement was published or started in between. If one was published, the points are written again into the new
version; those in the old version stay invisible, because of their mark, and are deleted.

Narrowed handles. A replacement by a handle that may not take every chunk commits in a separate request, after it has
claimed the head and searched again for chunks outside of its scope. An upsert removes such a claim before it is
acknowledged. So either the replacement finds the added chunk, or it has lost its claim and cannot commit, or the upsert
writes again into the new version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vectoracl.adapter_api.chunk_validation import check_tagged
from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.generations import added_outside, at_generation, version_of
from vectoracl.adapter_api.operations import Replace, Upsert
from vectoracl.errors import DeniedError, StoreError
from vectoracl.model.records import Record
from vectoracl_qdrant.compile import QdrantCompiler
from vectoracl_qdrant.compile_predicate import Compiled, none
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.decode import ADAPTER
from vectoracl_qdrant.heads import Head
from vectoracl_qdrant.names import NO_VERSION, id_of, named, version_name
from vectoracl_qdrant.requests import Operation, Scroll, Write
from vectoracl_qdrant.versions import ROUNDS, Versions

_UPSERT = "u:"


class Writer:
    """Writes to one configured collection."""

    def __init__(self, config: QdrantConfig, compiled: QdrantCompiler, versions: Versions) -> None:
        self._config = config
        self._compile = compiled
        self._versions = versions
        self._heads = versions.heads

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write all in one request, into the published version of each document.

        Existing points outside of the scope are looked for first, and never touched. Raises: DeniedError if there is
        one; StoreError with the code "conflict" or "replacing".
        """
        check_tagged(operation.records, operation.partition)
        if not operation.records:
            return 0
        compiled, partition, records = self._compile, operation.partition, list(operation.records)
        compiled.check_size(records, compiled.words_of(records))
        if operation.verbatim:
            return (yield from self._verbatim(operation))
        scope, mark = compiled.scope(operation.scope), _UPSERT + version_of(records)
        heads = yield from self._versions.current(partition, _documents(records))
        written = 0
        for turn in range(ROUNDS):
            ids = compiled.ids(id_of(record.tag, version) for record, version in _placed(records, heads))
            if (yield from self._outside(partition, scope, ids)):
                if turn == 0:
                    raise _denied("upsert")
                raise _taken(written)
            yield from self._put(partition, records, heads, mark, scope)
            now = yield from self._versions.current(partition, _documents(records))
            claims = self._narrowed(partition, heads, now)
            if claims:
                yield from Write(partition, claims)
                now = yield from self._versions.current(partition, _documents(records))
            moved = {name for name, head in now.items() if head.place != heads[name].place}
            yield from self._settle(partition, records, heads, now, mark)
            if (yield from self._outside(partition, scope, ids)):
                raise StoreError(
                    "Another writer concurrently moved a chunk out of the handle's scope; it was not changed.",
                    code="conflict",
                    adapter=ADAPTER,
                )
            written += sum(record.tag.document not in moved for record in records)
            if not moved:
                return len(operation.records)
            records, heads = [record for record in records if record.tag.document in moved], now
        error = StoreError(
            "A document was replaced repeatedly while chunks were added to it; add them again.",
            code="replacing",
            adapter=ADAPTER,
            sent="unknown" if written else "no",
            written=written,
            retryable=not written,
        )
        error.undone = not written
        raise error

    def _put(
        self, partition: str, records: Sequence[Record], heads: Mapping[str, Head], mark: str, scope: Compiled
    ) -> Flow[None]:
        placed = _placed(records, heads)
        some = [record for record, _ in placed]
        points = self._compile.points(some, self._compile.words_of(some), [version for _, version in placed], mark)
        yield from self._compile.upsert(partition, points, scope)

    def _narrowed(self, partition: str, heads: Mapping[str, Head], now: Mapping[str, Head]) -> tuple[Operation, ...]:
        """Return the steps that end the claims of replacements that may not take what was added.

        A claim that comes later is one of a replacement that looks later, and sees it.
        """
        return tuple(
            self._heads.release(partition, name, head.intent)
            for name, head in sorted(now.items())
            if head.narrowed and head.place == heads[name].place
        )

    def _settle(
        self, partition: str, records: Sequence[Record], heads: Mapping[str, Head], now: Mapping[str, Head], mark: str
    ) -> Flow[None]:
        """Take the marks off what was written into published versions, and away what was written into others.

        Where a replacement has claimed the document, the marks stay: it may have marked the others before these were
        written. A replacement that claims it later marks these too, and then they are not taken off here.
        """
        quiet: list[str] = []
        gone: list[str] = []
        for record, version in _placed(records, heads):
            head, id_ = now[record.tag.document], id_of(record.tag, version)
            if head.place != heads[record.tag.document].place:
                gone.append(id_)
            elif not head.contended:
                quiet.append(id_)
        steps = [
            *self._compile.unmark(partition, mark, self._compile.ids(quiet)),
            *self._compile.drop(partition, self._compile.ids(gone)),
        ]
        if steps:
            yield from Write(partition, tuple(steps))

    def _verbatim(self, operation: Upsert) -> Flow[int]:
        """Write rows of another store unchanged, and set existing heads to their generations.

        Under a registry there are no heads, and rows are written before their generation is published.
        """
        compiled, partition, records = self._compile, operation.partition, operation.records
        points = compiled.points(records, compiled.words_of(records), NO_VERSION)
        generations = {record.tag.document: record.tag.generation for record in records}
        heads = [] if self._versions.governed else self._heads.reset(partition, generations)
        yield from compiled.upsert(partition, points, compiled.scope(operation.scope), *heads)
        return len(records)

    def _outside(self, partition: str, scope: Compiled, *conditions: Compiled) -> Flow[bool]:
        """Return whether a point that meets *conditions* is outside of *scope*."""
        where = self._compile.rows(partition, *conditions, none(scope))
        if where is None:
            return False
        page = yield from Scroll(partition, where, 1, self._compile.versions)
        return bool(page.points)

    def replace(self, operation: Replace) -> Flow[int]:
        """Make a new version of one document, in two requests after one that looks and before one that looks again.

        Raises: DeniedError if the document has chunks outside of the scope; StoreError with the code "conflict" if
        another one has replaced it, or begun to, or has added a chunk outside of the scope, after this one looked:
        then nothing of this one is left.
        """
        check_tagged(operation.records, operation.partition)
        compiled, partition, document = self._compile, operation.partition, operation.document
        compiled.check_size(operation.records, compiled.words_of(operation.records))
        name, scope = compiled.documents([document]), compiled.scope(operation.scope)
        outside = compiled.rows(partition, name, none(scope))
        probe = () if outside is None else (Scroll(partition, outside, 1, compiled.versions),)
        looked = yield from self._versions.look(partition, document, *probe)
        if any(page.points for page in looked.probe_replies):
            raise _denied("replace")
        if not operation.records:
            where = compiled.rows(partition, name, scope)
            if where is not None:
                yield from compiled.delete(partition, where)
            return 0
        base, version = looked.head, version_name(version_of(operation.records))
        new = base.next(version, looked.next, narrowed=outside is not None)
        steps, commit = self._prepared(operation, base, new), self._heads.commit(partition, document, base, new)
        added = False
        if outside is None:
            yield from Write(partition, (*steps, commit))
        else:
            yield from Write(partition, steps)
            added = yield from self._outside(partition, scope, name, *self._of(base))
            if not added:
                yield from Write(partition, (commit,))
        head = yield from self._versions.head(partition, document)
        committed = head.committed(new)
        end = self._published_alone if committed else self._withdrawn
        yield from Write(partition, end(partition, document, new, head))
        if committed is None:
            raise StoreError(
                "The document was concurrently replaced so often that it is unknown whether this version was ever "
                "published; it is not the current one.",
                code="conflict",
                adapter=ADAPTER,
            )
        if not committed:
            raise added_outside(ADAPTER) if added else _lost()
        return len(operation.records)

    def _prepared(self, operation: Replace, base: Head, new: Head) -> tuple[Operation, ...]:
        """Return the steps after which *new* can be committed in the place of *base*."""
        compiled, partition, document = self._compile, operation.partition, operation.document
        records = at_generation(operation.records, new.generation)
        points = compiled.points(records, compiled.words_of(records), new.version, new.version)
        whole = compiled.rows(partition)
        assert whole is not None
        return (
            self._heads.claim(partition, document, base, new.intent),
            compiled.mark(partition, new.version, *self._others(document, new)),
            compiled.put(partition, points, whole),
        )

    def _of(self, head: Head) -> tuple[Compiled, ...]:
        """Return that the point is of the version that *head* shows; without a name the generation is all there is."""
        generation, version = head.place
        own = self._compile.generations(gte=generation, lte=generation)
        return (own, self._compile.exactly(version)) if named(version) else (own,)

    def _others(self, document: str, new: Head) -> tuple[Compiled, ...]:
        """Return that the point is of *document* and of another version, but not of one that came after *new*."""
        compiled = self._compile
        return (
            compiled.documents([document]),
            compiled.generations(lte=new.generation),
            none(compiled.exactly(new.version)),
        )

    def _published_alone(self, partition: str, document: str, new: Head, _: Head) -> tuple[Operation, ...]:
        """Return the steps that leave nothing but *new*, which was published; marks of others stay."""
        compiled, name = self._compile, self._compile.documents([document])
        return (
            *compiled.drop(partition, *self._others(document, new)),
            *compiled.unmark(partition, new.version, name, compiled.exactly(new.version)),
            self._heads.release(partition, document, new.version),
        )

    def _withdrawn(self, partition: str, document: str, new: Head, head: Head) -> tuple[Operation, ...]:
        """Return the steps that leave nothing of *new*, which was not published.

        Its marks go from the published version, as *head* says it, if no other one of that had begun: one that did
        may have put its own marks there before these, and needs them. Others go with the points they are on.
        """
        compiled, name = self._compile, self._compile.documents([document])
        own = compiled.generations(gte=new.generation, lte=new.generation)
        generation, version = head.place
        contended = head.contended and head.intent != new.intent
        there = (compiled.generations(gte=generation, lte=generation), compiled.exactly(version))
        return (
            *compiled.drop(partition, name, own, compiled.exactly(new.version)),
            *(() if contended else compiled.unmark(partition, new.version, name, *there)),
            self._heads.release(partition, document, new.intent),
        )


def _documents(records: Sequence[Record]) -> list[str]:
    return sorted({record.tag.document for record in records})


def _placed(records: Sequence[Record], heads: Mapping[str, Head]) -> list[tuple[Record, str]]:
    """Return *records* in the generation of each one's document, with the name of its version."""
    placed = []
    for record in records:
        generation, version = heads[record.tag.document].place
        placed.append((record._replace(tag=record.tag._replace(generation=generation)), version))
    return placed


def _denied(action: str) -> DeniedError:
    return DeniedError("The write touches a chunk outside of what this handle may write.", action=action)


def _lost() -> StoreError:
    """Return the error of a replacement that lost against a concurrent one, and of which nothing is left."""
    error = StoreError(
        "Another writer concurrently replaced the same document; nothing of this version is left. Read the current "
        "document, and replace it again if this version should still win.",
        code="conflict",
        adapter=ADAPTER,
        sent="no",
    )
    error.undone = True
    return error


def _taken(written: int) -> StoreError:
    """Return the error of an upsert whose document was concurrently replaced by chunks that it may not write."""
    error = StoreError(
        "Another writer concurrently replaced the document with one that this handle may not overwrite.",
        code="conflict",
        adapter=ADAPTER,
        sent="unknown" if written else "no",
        written=written,
    )
    error.undone = not written
    return error
