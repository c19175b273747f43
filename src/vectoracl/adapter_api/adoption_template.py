"""Template of `provision --adopt`: look at every row of a source, copy the rows tenant by tenant, verify the copies.

The order of the steps, the decisions (which row is new, which was changed in the source, which was written here since)
and the messages are the same on every store and stand here. A store's adapter states how its rows are read, mapped to
records, looked up and written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from vectoracl.adapter_api import adoption
from vectoracl.adapter_api.adoption import Checks, Findings, Groups
from vectoracl.adapter_api.contract import Adopted, Progress
from vectoracl.adapter_api.shares import Share, ShareCounter
from vectoracl.errors import StoreError
from vectoracl.filters.field_types import FieldType
from vectoracl.model.records import Record, Tag

Row = TypeVar("Row")
Copy = TypeVar("Copy")


class Adoption(ABC, Generic[Row, Copy]):
    """Import of the existing rows of one source, which is only read.

    A row that cannot be imported stops everything: nothing is copied until it is fixed, and there is no default tenant.
    A row may hold what `upsert` would accept; the checks are the same ones.

    Args:
        config: The store's configuration, with `dimension`, `metric` and `adopt.prefix`.
        fields: The declared metadata fields.
        source: The source as the tags of the copies name it.
        progress: Called with the step, the rows done and the rows in total.
        known: The store's tenants, which a new one must not look like.
        title: The source as messages name it; *source* if it is not given.

    Attributes:
        place: Returns the store's name for a tenant, where a plan shows it.
        expected: The number of rows that the source reports before it is read, if it does.
        total: The number of rows that were checked.
    """

    adapter: ClassVar[str]
    """The adapter's name."""
    row: ClassVar[str]
    """The store's word for one row: point, object, record."""
    chunk: ClassVar[str] = "chunk id"
    """The store's word for the id of a chunk."""
    compared: ClassVar[str] = "the texts, metadata and vectors"
    """The parts of a row that `same_content` compares."""

    def __init__(
        self,
        config: Any,
        fields: Mapping[str, FieldType],
        source: str,
        progress: Progress | None,
        known: Collection[str] = (),
        title: str | None = None,
    ) -> None:
        self.source = source
        self.title = source if title is None else title
        self.known = known
        self.progress: Progress = progress or (lambda *_: None)
        self.checks = Checks(fields, config.dimension, config.metric, source=source, prefix=config.adopt.prefix)
        self.place: Callable[[str], str] | None = None
        self.expected: int | None = None
        self.total = 0
        self._share: Share | None = None
        self._counter: ShareCounter | None = None

    # The store's part

    @abstractmethod
    def read(self) -> Iterator[Sequence[Row]]:
        """Yield every row of the source in batches."""

    @abstractmethod
    def row_id(self, row: Row) -> str:
        """Return the id by which messages name *row*."""

    @abstractmethod
    def record(self, row: Row) -> Record:
        """Return *row* as a chunk that `upsert` would accept. Raises: RefusedError with the reason."""

    @abstractmethod
    def key(self, tag: Tag) -> str:
        """Return the id of the copy of the chunk with *tag*, unique within its tenant."""

    @abstractmethod
    def mapping(self) -> Iterator[str]:
        """Yield the lines of the plan that show what is read, and which part of a row becomes which part of a chunk.

        Called when every row was checked.
        """

    @abstractmethod
    def existing(self, tenant: str, records: Sequence[Record], *, content: bool) -> Mapping[str, Copy]:
        """Return the existing copies of *records* by their keys; without *content* at least their tags."""

    @abstractmethod
    def replaced(self, tenant: str, records: Sequence[Record]) -> Collection[str]:
        """Return the documents of *records* that were replaced since; their old chunks do not come back."""

    @abstractmethod
    def path(self, copy: Copy) -> object:
        """Return the ingestion path in the tag of *copy*."""

    @abstractmethod
    def same_content(self, record: Record, copy: Copy) -> bool:
        """Tell whether *copy* holds the text, the metadata and the vector of *record*."""

    @abstractmethod
    def write(self, tenant: str, records: Sequence[Record]) -> None:
        """Write *records* of one batch, of which none or an older copy exists."""

    # What a store may add

    def check(self, row: Row, findings: Findings) -> Record:
        """Return *row* as a record while every row is checked. Raises: RefusedError with the reason."""
        del findings
        return self.record(row)

    def look_alike_names(self) -> Collection[str]:
        """Return the names that a tenant of the source must not look like."""
        return self.known

    def prepare(self, findings: Findings) -> None:
        """Do what must come before the first write: nothing, where tenants come into being with their first row."""

    def advice(self, findings: Findings) -> Iterator[str]:
        """Yield what is left for the operator to do after the copy."""
        del findings
        yield from ()

    def disagreement(self, different: Mapping[str, int], seen: int) -> StoreError | None:
        """Return the error for copies that differ (how many by tenant) or for *seen* rows where others were checked."""
        del seen
        if not different:
            return None
        return adoption.differs(self.adapter, self.title, f"{sum(different.values())} chunks", sorted(different))

    def refused_title(self) -> str:
        """Return the beginning of the sentence that refuses the source."""
        return f"{self.title} was not"

    # The steps

    def look(self) -> Findings:
        """Check every row."""
        findings = Findings(self.row, chunk=self.chunk)
        self.total = adoption.look(
            findings,
            self.read(),
            lambda row: self._placed(self.check(row, findings)),
            self.row_id,
            lambda tag: (tag.tenant, self.key(tag)),
            self.progress,
            self.expected,
            taken=self._taken,
        )
        findings.refuse_look_alikes(self.look_alike_names())
        return findings

    def plan(self) -> Iterator[str]:
        """Yield the plan, a line each. Every row is read and checked; nothing is changed."""
        findings = self.look()
        yield from self.mapping()
        yield from self.checks.described()
        yield from findings.summary(self.total, self.place)

    def copy(self, adopted: Adopted | None = None) -> list[str]:
        """Copy every row; return what was done. Can be run again: chunks that exist stay as they are.

        *adopted* is kept up to date during the copy.

        Raises:
            RefusedError: Rows were refused; the message lists them, and nothing was copied.
            StoreError: In the end a copy is not as its row was read.
        """
        findings = self.look()
        adopted = adopted or Adopted()
        findings.settle(adopted, self.refused_title())
        self.prepare(findings)
        adoption.copy(self.read(), self._groups, self._update, adopted, self.progress, self.total)
        different, row_count = adoption.compare(self.read(), self._groups, self._differing, self.progress, self.total)
        if error := self.disagreement(different, row_count):
            raise error
        return [findings.report(self.title, adopted, self.compared), *self.advice(findings)]

    # The steps, for an import in shares

    def survey(self, parts: Sequence[Share]) -> list[Share]:
        """Check every row as `copy` does; return *parts* with their tenants. Raises: RefusedError as `copy`."""
        self._counter = ShareCounter(parts)
        findings = self.look()
        findings.settle(Adopted(), self.refused_title())
        self.prepare(findings)
        return self._counter.shares()

    def copy_share(self, share: Share, adopted: Adopted | None = None) -> dict[str, int]:
        """Copy and compare the rows of *share*, which `survey` returned; return the number of rows by tenant.

        Raises: as `copy`; RefusedError also for a tenant that *share* does not name.
        """
        self._share = share
        self.total = sum(share.tenants.values())
        adopted = adopted or Adopted()
        adopted.tenants = len(share.tenants)
        counts: Counter[str] = Counter()

        def differing(tenant: str, records: Sequence[Record]) -> int:
            counts[tenant] += len(records)
            return self._differing(tenant, records)

        adoption.copy(self.read(), self._groups, self._update, adopted, self.progress, self.total)
        different, _ = adoption.compare(self.read(), self._groups, differing, self.progress, self.total)
        # Rows that came or went since the survey are not an error of the copies: the counts by tenant show them.
        if error := self.disagreement(different, self.total):
            raise error
        return dict(counts)

    def finished(self, tenants: Mapping[str, int]) -> list[str]:
        """Return the advice after all shares were copied, which held the rows of *tenants*."""
        return list(self.advice(Findings(self.row, chunk=self.chunk, tenants=dict(tenants))))

    def _placed(self, record: Record) -> Record:
        if self._counter is not None:
            self._counter.take(record.tag.tenant, record.tag.document)
        return record

    def _groups(self, rows: Collection[Row]) -> Groups:
        groups = adoption.by_tenant(rows, self.record, self.row_id, self.title, self.row)
        return groups if self._share is None else adoption.in_share(groups, self._share, self.title)

    def _taken(self, tenant: str, records: Sequence[Record]) -> list[Record]:
        """Return those of *records* whose ids are those of chunks that were adopted from another source."""
        copies = self.existing(tenant, records, content=False)
        paths = {key: self.path(copy) for key, copy in copies.items()}
        return [one for one in records if adoption.from_another(paths.get(self.key(one.tag)), self.source)]

    def _compared(self, tenant: str, records: Sequence[Record]) -> Iterator[tuple[Record, Copy | None]]:
        """Yield *records* with their copies, without those of documents that were replaced since."""
        copies, replaced = self.existing(tenant, records, content=True), self.replaced(tenant, records)
        for record in records:
            if record.tag.document not in replaced:
                yield record, copies.get(self.key(record.tag))

    def _update(self, tenant: str, records: Sequence[Record]) -> tuple[int, int]:
        """Write what does not exist yet, and again what changed in the source since; return how many of each."""
        new, changed = [], []
        for record, copy in self._compared(tenant, records):
            if copy is None:
                new.append(record)
            elif not self._same(record, copy):
                changed.append(record)
        if new or changed:
            self.write(tenant, [*new, *changed])
        return len(new), len(changed)

    def _differing(self, tenant: str, records: Sequence[Record]) -> int:
        """Return how many of *records* have no copy that is the same."""
        return sum(copy is None or not self._same(record, copy) for record, copy in self._compared(tenant, records))

    def _same(self, record: Record, copy: Copy) -> bool:
        path = self.path(copy)
        if not adoption.was_adopted(path, self.source):
            # Modified since through the normal API, which an adoption leaves as it is.
            return not adoption.from_another(path, self.source)
        return self.same_content(record, copy)


class AdoptsInShares(ABC):
    """A base of operators whose `_adoption` is an `Adoption`: the methods of `contract.ShareAdopter`."""

    @abstractmethod
    def _adoption(self, source: str, progress: Progress | None) -> Adoption[Any, Any]:
        """Return the import of *source*."""

    def survey(self, source: str, parts: Sequence[Share], *, progress: Progress | None = None) -> list[Share]:
        """Check every row of *source*; see `contract.ShareAdopter`."""
        return self._adoption(source, progress).survey(parts)

    def adopt_share(
        self, source: str, share: Share, *, progress: Progress | None = None, adopted: Adopted | None = None
    ) -> dict[str, int]:
        """Import and compare the rows of *share*; see `contract.ShareAdopter`."""
        return self._adoption(source, progress).copy_share(share, adopted)

    def adopt_end(self, source: str, tenants: Mapping[str, int]) -> list[str]:
        """Do what is left when every share was imported; see `contract.ShareAdopter`."""
        return self._adoption(source, None).finished(tenants)
