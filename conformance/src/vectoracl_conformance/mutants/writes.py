"""Mutants of writes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import ChunkRef, Delete, Replace, Upsert
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.harness import Mutant
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper, Elsewhere, Nap, wrapped


def _mended(record: Record, tenant: str) -> Record:
    tag: Any = record.tag
    if not isinstance(tag, Tag):
        tag = Tag(tenant, "?", "?")
    return record._replace(
        tag=tag._replace(
            tenant=tag.tenant or tenant,
            document=tag.document or "?",
            chunk=tag.chunk or "?",
            label=tag.label or "default",
        )
    )


class Repairs(AdapterWrapper):
    """Fills the holes of a tag instead of refusing it."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Repair."""
        records = tuple(_mended(one, operation.partition) for one in operation.records)
        return (yield from self.inner.upsert(replace(operation, records=records)))


class Retags(AdapterWrapper):
    """Writes records of another tenant under the operation's."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Re-tag."""
        records = tuple(
            one._replace(tag=one.tag._replace(tenant=operation.partition)) if isinstance(one.tag, Tag) else one
            for one in operation.records
        )
        return (yield from self.inner.upsert(replace(operation, records=records)))


class Follows(AdapterWrapper):
    """Writes a record where its tag says, whoever writes it."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Follow the tag."""
        for record in operation.records:
            tag = record.tag
            if isinstance(tag, Tag) and tag.tenant and tag.tenant != operation.partition:
                yield from Elsewhere(operation.partition, Upsert(tag.tenant, ALWAYS, (record,)))
                return len(operation.records)
        return (yield from self.inner.upsert(operation))


class Slices(AdapterWrapper):
    """Writes a call in slices of 50, each for itself."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Slice."""
        written = 0
        for start in range(0, len(operation.records), 50):
            part = replace(operation, records=operation.records[start : start + 50])
            written += yield from self.inner.upsert(part)
        return written


class OneByOne(AdapterWrapper):
    """Writes a call record by record until one is refused."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write one after the other."""
        written = 0
        for record in operation.records:
            written += yield from self.inner.upsert(replace(operation, records=(record,)))
        return written


class Nowhere(AdapterWrapper):
    """Says that it wrote, and did not."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Lie."""
        yield from self.inner.count(_count(operation.partition))
        return len(operation.records)


def _count(partition: str) -> Any:
    from vectoracl.adapter_api.operations import Count

    return Count(partition, ALWAYS, ALWAYS)


class KeyWithoutTenant(AdapterWrapper):
    """The stored key is (document, chunk id): one tenant's write takes another's place."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Overwrite everyone's."""
        written = yield from self.inner.upsert(operation)
        refs = tuple(ChunkRef(one.tag.chunk, one.tag.document) for one in operation.records)
        names = {(ref.document, ref.chunk) for ref in refs}
        others = {
            row.tag.tenant
            for row in self.store.census()
            if row.tag.tenant != operation.partition and (row.tag.document, row.tag.chunk) in names
        }
        for tenant in sorted(others):
            yield from Elsewhere(operation.partition, Delete(tenant, ALWAYS, refs=refs))
        return written


class KeyWithoutDocument(AdapterWrapper):
    """The stored key is (tenant, chunk id)."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Overwrite in other documents."""
        ids = {one.tag.chunk for one in operation.records}
        refs = tuple(
            ChunkRef(row.tag.chunk, row.tag.document)
            for row in self.store.census()
            if row.tag.tenant == operation.partition and row.tag.chunk in ids
        )
        if refs:
            yield from self.inner.delete(Delete(operation.partition, operation.scope, refs=refs))
        last = {one.tag.chunk: one for one in operation.records}
        return (yield from self.inner.upsert(replace(operation, records=tuple(last.values()))))


class Overwrites(AdapterWrapper):
    """An upsert does not look whether the handle may see what it overwrites."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Ignore the scope's predicate."""
        return (yield from self.inner.upsert(replace(operation, scope=ALWAYS)))


class OwnerField(AdapterWrapper):
    """A metadata key decides the tenant."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Follow the metadata."""
        written = yield from self.inner.upsert(operation)
        for record in operation.records:
            owner = record.metadata.get("owner")
            if isinstance(owner, str):
                moved = record._replace(tag=record.tag._replace(tenant=owner))
                yield from Elsewhere(operation.partition, Upsert(owner, ALWAYS, (moved,)))
        return written


class FlatMetadata(AdapterWrapper):
    """Metadata and tag share one name space: a key of the user's overwrites the tag's."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Let "label" through."""
        records = tuple(
            one._replace(tag=one.tag._replace(label=str(one.metadata["label"]))) if "label" in one.metadata else one
            for one in operation.records
        )
        return (yield from self.inner.upsert(replace(operation, records=records)))


class DeletesAnyone(AdapterWrapper):
    """The id alone is enough to delete."""

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Delete in every tenant."""
        gone = yield from self.inner.delete(operation)
        if operation.refs is not None:
            for tenant in self.tenants():
                yield from Elsewhere(operation.partition, Delete(tenant, ALWAYS, refs=operation.refs))
        return gone


class DeleteTells(AdapterWrapper):
    """A delete counts foreign rows, without touching them."""

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Count everyone's."""
        gone = yield from self.inner.delete(operation)
        names = {ref.chunk for ref in operation.refs or ()}
        there = sum(1 for row in self.store.census() if row.tag.chunk in names)
        return (gone or 0) + there if operation.refs is not None else gone


class ClearsAll(AdapterWrapper):
    """Clearing empties the collection."""

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Delete everyone's."""
        gone = yield from self.inner.delete(operation)
        if operation.where is not None:
            for tenant in self.tenants():
                yield from Elsewhere(operation.partition, Delete(tenant, ALWAYS, where=operation.where))
        return gone


class DeleteFilterDropped(AdapterWrapper):
    """A delete by filter deletes all of the tenant's."""

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Drop the filter."""
        if operation.where is not None:
            operation = replace(operation, where=ALWAYS)
        return (yield from self.inner.delete(operation))


class DeleteWide(AdapterWrapper):
    """A delete ignores what the handle was narrowed to."""

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Ignore the scope's predicate."""
        return (yield from self.inner.delete(replace(operation, scope=ALWAYS)))


class ConflictTells(AdapterWrapper):
    """Creating under an id that anyone has is a conflict."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Tell."""
        names = {one.tag.chunk for one in operation.records}
        if any(row.tag.tenant != operation.partition and row.tag.chunk in names for row in self.store.census()):
            raise StoreError("The id exists.", code="conflict", sent="no")
        return (yield from self.inner.upsert(operation))


class DeleteThenWrite(AdapterWrapper):
    """A replacement deletes first and writes then, in two requests."""

    def replace(self, operation: Replace) -> Flow[int]:
        """Leave a gap."""
        right = self.inner.replace(operation)
        if operation.records:
            yield from self.inner.delete(Delete(operation.partition, operation.scope, document=operation.document))
            yield from Nap(operation.partition)
        return (yield from right)


class KeepsOld(AdapterWrapper):
    """A replacement leaves the old chunks."""

    def replace(self, operation: Replace) -> Flow[int]:
        """Only write."""
        if not operation.records:
            return (yield from self.inner.replace(operation))
        return (yield from self.inner.upsert(Upsert(operation.partition, operation.scope, operation.records)))


class ReadsThenReplaces(AdapterWrapper):
    """A replacement takes a moment to look, and then removes only what it saw: two of them keep each other's."""

    def replace(self, operation: Replace) -> Flow[int]:
        """Look, wait, write, remove."""
        if not operation.records:
            return (yield from self.inner.replace(operation))
        place = (operation.partition, operation.document)
        chunks = [row.tag.chunk for row in self.store.census() if (row.tag.tenant, row.tag.document) == place]
        yield from Nap(operation.partition, 0.004)
        written = {one.tag.chunk for one in operation.records}
        gone = tuple(ChunkRef(chunk, operation.document) for chunk in chunks if chunk not in written)
        count = yield from self.inner.upsert(Upsert(operation.partition, operation.scope, operation.records))
        if gone:
            yield from self.inner.delete(Delete(operation.partition, operation.scope, refs=gone))
        return count


class SharedBuffer(AdapterWrapper):
    """The batch is kept on the adapter while a call waits: writers side by side write one of theirs twice."""

    _batch: tuple[Record, ...] = ()

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Keep the batch where others overwrite it."""
        self._batch = operation.records
        yield from Nap(operation.partition)
        batch = self._batch
        if any(not isinstance(one.tag, Tag) or one.tag.tenant != operation.partition for one in batch):
            batch = operation.records
        return (yield from self.inner.upsert(replace(operation, records=batch)))


class Impatient(AdapterWrapper):
    """A writer that meets another one is turned away, with an error that does not say to try again."""

    _busy = 0

    def replace(self, operation: Replace) -> Flow[int]:
        """Turn away."""
        if self._busy:
            raise StoreError("The store failed.", code="store", sent="no")
        self._busy += 1
        try:
            yield from Nap(operation.partition)
            return (yield from self.inner.replace(operation))
        finally:
            self._busy -= 1


class Spares(AdapterWrapper):
    """A delete by document spares chunks of one id."""

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Spare "3"."""
        if operation.document is None:
            return (yield from self.inner.delete(operation))
        refs = tuple(
            ChunkRef(row.tag.chunk, row.tag.document)
            for row in self.store.census()
            if (row.tag.tenant, row.tag.document) == (operation.partition, operation.document) and row.tag.chunk != "3"
        )
        if not refs:
            return (yield from self.inner.count(_count(operation.partition))) * 0
        return (yield from self.inner.delete(Delete(operation.partition, operation.scope, refs=refs)))


class CopyRenews(AdapterWrapper):
    """A copy is written as an ordinary upsert: documents begin again at generation 0."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Forget that it is a copy."""
        return (yield from self.inner.upsert(replace(operation, verbatim=False)))


class CopyRelabels(AdapterWrapper):
    """A copy gives every row the rights of a new chunk."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Re-label."""
        records = operation.records
        if operation.verbatim:
            records = tuple(one._replace(tag=one.tag._replace(label="default", rev=0)) for one in records)
        return (yield from self.inner.upsert(replace(operation, records=records)))


def _mutant(kind: type[AdapterWrapper], name: str, breaks: str, expected: str) -> Mutant:
    return Mutant(name, breaks, expected, wrapped(kind))


WRITING = (
    _mutant(Repairs, "tags repaired", "a record without a whole tag is written after all", "W1"),
    _mutant(Nowhere, "writes nowhere", "an upsert says that it wrote and the census does not see it", "W1"),
    _mutant(Retags, "foreign tags rewritten", "another tenant's record is written under the own tenant", "W2"),
    _mutant(Follows, "foreign tags followed", "a record is written where its tag says", "W2"),
    _mutant(Slices, "slices of 50", "a call is written in parts, each for itself", "W3"),
    _mutant(OneByOne, "one by one", "records before the bad one are written", "W3"),
    _mutant(KeyWithoutTenant, "key without tenant", "the same id in two tenants is one chunk", "W4"),
    _mutant(Overwrites, "overwrites unseen rows", "an upsert ignores the scope's predicate", "W5"),
    _mutant(OwnerField, "metadata decides the tenant", "a metadata key moves the chunk", "R8"),
    _mutant(FlatMetadata, "metadata next to the tag", "a metadata key overwrites the label", "R8"),
    _mutant(DeletesAnyone, "delete by id alone", "the tenant is not a condition of a delete", "W6"),
    _mutant(DeleteTells, "delete reveals rows", "the count of a delete includes foreign rows", "W6"),
    _mutant(ClearsAll, "clearing empties the collection", "a delete by filter is not scoped", "W7"),
    _mutant(DeleteFilterDropped, "filter dropped in delete", "a delete by filter deletes all of the tenant's", "W7"),
    _mutant(DeleteWide, "delete past the handle", "a delete ignores the scope's predicate", "W7"),
    _mutant(ConflictTells, "conflict reveals an id", "an id that exists elsewhere is a conflict", "W8"),
    _mutant(KeyWithoutDocument, "key without document", "the same chunk id in two documents is one chunk", "W9"),
    _mutant(DeleteThenWrite, "delete, then write", "a replacement is two requests", "W10"),
    _mutant(KeepsOld, "old chunks stay", "a replacement only writes", "W10"),
    _mutant(CopyRenews, "a copy renews", "a copied document begins again at generation 0", "W11"),
    _mutant(CopyRelabels, "a copy re-labels", "a copied row gets the label of a new chunk", "W11"),
    _mutant(ReadsThenReplaces, "writers without a lock", "two replacements keep each other's chunks", "W12"),
    _mutant(SharedBuffer, "batch kept on the adapter", "two upserts side by side write one batch twice", "W12"),
    _mutant(Impatient, "a second writer turned away", "its error does not say to try again", "W12"),
    _mutant(Spares, "a delete spares one id", "a fault that only some names meet", "X4"),
)
