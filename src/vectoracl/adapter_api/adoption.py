"""The part of `provision --adopt` that every store shares: rows that lie there already become governed ones.

An adapter reads its store's rows, finds what they hold and writes the copies. Here is what is the same for all: the
well-known names, the checks that make a row a record as `upsert` would, the findings of a look at every row and their
report, and the copy in batches that is compared afterwards. A row that cannot be taken stops all, and is named by its
id, never by its content.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

import numpy as np

from vectoracl.adapter_api.chunk_validation import validate_chunks
from vectoracl.adapter_api.contract import Adopted, Progress
from vectoracl.adapter_api.shares import Share
from vectoracl.errors import RefusedError, StoreError, without_context
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.validation import reserved_key
from vectoracl.model.identifiers import check_tenant, look_alikes
from vectoracl.model.records import Chunk, Record, Tag, Vector

PATH = "adopt"
"""The ingestion path in the tag of an adopted row whose source is not recorded; see `path_of`."""
RENAMED = "adopted_"
"""The prefix that a metadata key gets if it is a name of the framework."""
PRODUCER = "operator"
SHOWN = 20
"""How many ids, or tenants, a list for people has at most."""
_CLOSE = 1e-5

TENANT = ("tenant_id", "tenant", "tenant_uuid", "tenantid", "org_id", "organization_id", "organisation_id", "org",
          "account_id", "workspace_id", "company_id", "customer_id", "client_id")  # fmt: skip
DOCUMENT = ("document_id", "doc_id", "document", "source_id", "source")
TEXT = ("text", "content", "page_content", "body", "chunk", "chunk_text")

Row = TypeVar("Row")
Groups = list[tuple[str, list[Record]]]
"""Records by their tenants."""


# What a row holds


def only(what: str, found: Sequence[str], of: str) -> str | None:
    """Return the one of the names *found*, or None if there is none; *of* says of what they are ("keys of old").

    Raises: RefusedError that names them, and the line to write, where several could be meant.
    """
    if len(found) > 1:
        raise RefusedError(
            f"Several {of} could hold the {what}: {', '.join(found)}. Say which: "
            f'[stores.NAME.adopt] {what} = "{found[0]}" (and leave_out those that are not to be copied).'
        )
    return found[0] if found else None


def tenant_in(value: object) -> str:
    """Return *value* if it names a tenant. Raises: RefusedError if there is none, InvalidTenantError."""
    if not isinstance(value, str) or not value.strip():
        raise RefusedError("No tenant.")
    return check_tenant(value)


def id_in(value: object) -> str | None:
    """Return *value* as an id: a text or a whole number; anything else is none."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def text_in(value: object) -> str:
    """Return *value* if it is a text. Raises: RefusedError."""
    if not isinstance(value, str):
        raise RefusedError(f"The text is not a string, but {type(value).__name__}.")
    return value


@without_context
def moments(metadata: Mapping[str, Any], fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """Return *metadata* with the texts of its datetime fields as datetimes. Raises: RefusedError."""
    result = dict(metadata)
    for key, value in metadata.items():
        if fields.get(key) is FieldType.DATETIME and isinstance(value, str):
            try:
                result[key] = datetime.fromisoformat(value)
            except ValueError:
                raise RefusedError(f"The field {key!r} holds no date.") from None
    return result


def path_of(source: str) -> str:
    """Return the ingestion path in the tag of a row that was taken over from *source*."""
    return f"{PATH}:{source}"


def was_adopted(path: object, source: str) -> bool:
    """Tell whether a row with this *path* in its tag is as an adoption of *source* wrote it.

    A row of an earlier version does not say its source.
    """
    return path in (PATH, path_of(source))


def from_another(path: object, source: str) -> bool:
    """Tell whether a row with this *path* in its tag was taken over from another source than *source*."""
    return isinstance(path, str) and path.startswith(f"{PATH}:") and path != path_of(source)


def steps(said: str) -> tuple[str, ...]:
    """Return the names in `name->>key->>key`: where a text lies inside JSON."""
    return tuple(part.strip().removeprefix("'").removesuffix("'") for part in said.split("->>"))


@without_context
def text_at(value: object, keys: Sequence[str]) -> str | None:
    """Return the text in *value* at *keys*; JSON that is kept as a text is read. None: there is none.

    Raises: RefusedError for what is not a text, or not JSON.
    """
    for key in keys:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise RefusedError(f"The JSON that should hold the text under {key!r} cannot be read.") from None
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return None if value is None else text_in(value)


@dataclass(frozen=True, slots=True)
class Checks:
    """The checks of `upsert`, for rows of *source* that are taken over at *time*.

    *prefix* comes in front of each chunk's and each document's id, so that rows of two sources with the same numbers
    stay apart. `renamed` fills with the metadata keys that are names of the framework, and what they became.
    """

    fields: Mapping[str, FieldType]
    dimension: int
    metric: str
    time: float = field(default_factory=time.time)
    source: str = ""
    prefix: str = ""
    renamed: dict[str, str] = field(default_factory=dict)

    def metadata(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return *found* without the keys that are null, and with other names for those that are the framework's.

        Raises: RefusedError where the other name is there already.
        """
        result: dict[str, Any] = {}
        for key, value in found.items():
            if value is None:
                continue
            name = key
            if isinstance(key, str) and reserved_key(key):
                name = RENAMED + key.strip()
                if name in found:
                    raise RefusedError(f"The key {key!r} is a name of the framework, and {name!r} is there already.")
                self.renamed[key] = name
            result[name] = value
        return result

    def record(self, tenant: str, chunk: Chunk) -> Record:
        """Return *chunk* as a record of *tenant*. Raises: RefusedError with the reason."""
        nonzero = self.metric == "cosine"
        if self.prefix:
            chunk = replace(chunk, id=self.prefix + chunk.id, document=self.prefix + chunk.document)
        (ready,) = validate_chunks([chunk], self.fields, self.dimension, nonzero=nonzero, limit=1)
        assert ready.vector is not None
        path = path_of(self.source) if self.source else PATH
        tag = Tag(tenant, ready.chunk.document, ready.chunk.id, producer=PRODUCER, path=path, time=self.time)
        return Record(tag, ready.chunk.text, ready.vector, ready.metadata)

    def described(self) -> Iterator[str]:
        """Yield what the checks did to names, for a plan."""
        if self.prefix:
            yield f"prefix      {self.prefix!a} in front of the ids of chunks and documents"
        for key, name in sorted(self.renamed.items()):
            yield f"renamed     the metadata key {key!a} is a name of the framework: {name!a}"

    def alike(self, ours: Vector, theirs: Vector) -> bool:
        """Tell whether the two vectors are the same one to a store: under the cosine their lengths may differ."""
        one, other = ours.astype(np.float64), theirs.astype(np.float64)
        if self.metric == "cosine":
            one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
        return bool(np.allclose(one, other, rtol=_CLOSE, atol=_CLOSE))


# What a look at every row found


@dataclass(slots=True)
class Findings:
    """The result of a look at every row: rows by tenant, and the refused ones by reason with some of their ids.

    `row` is the store's word for one, `ids` and `chunk` what it calls its ids and a chunk's.
    """

    row: str
    ids: str = "Ids"
    chunk: str = "chunk id"
    tenants: dict[str, int] = field(default_factory=dict)
    refused: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    shown: dict[str, list[str]] = field(default_factory=dict)

    def take(self, tenant: str) -> None:
        """Count one more row of *tenant*."""
        self.tenants[tenant] = self.tenants.get(tenant, 0) + 1

    def show(self, tenant: str, id_: str) -> None:
        """Keep *id_* as one of *tenant*'s rows, while they are few."""
        examples = self.shown.setdefault(tenant, [])
        if len(examples) < SHOWN:
            examples.append(id_)

    def refuse(self, reason: str, ids: Sequence[str], count: int = 1) -> None:
        """Count *count* more rows as refused for *reason*."""
        number, examples = self.refused.get(reason, (0, []))
        self.refused[reason] = (number + count, [*examples, *ids][:SHOWN])

    def refuse_same(self, ids: Sequence[str], count: int = 1) -> None:
        """Refuse rows that would be one chunk."""
        self.refuse(f"The same tenant, document and {self.chunk} as another {self.row}.", ids, count)

    def refuse_taken(self, ids: Sequence[str]) -> None:
        """Refuse rows whose ids are those of rows that were adopted from another source."""
        if ids:
            self.refuse(
                "The same tenant and document as rows that were adopted from another source. Keep them apart: "
                '[stores.NAME.adopt] prefix = "articles/" (in front of the ids of chunks and documents).',
                ids,
                len(ids),
            )

    def refuse_look_alikes(self, known: Iterable[str]) -> None:
        """Refuse tenants that a person could take for each other, among the found ones or with one of *known*."""
        for group in look_alikes({*known, *self.tenants}):
            ours = [tenant for tenant in group if tenant in self.tenants]
            if ours:
                ids = [id_ for tenant in ours for id_ in self.shown.get(tenant, ())]
                count = sum(self.tenants[tenant] for tenant in ours)
                self.refuse(f"Tenants that look alike: {', '.join(ascii(tenant) for tenant in group)}.", ids, count)

    def lines(self) -> Iterator[str]:
        """Describe the refused rows by reason and id, never by content."""
        for reason, (count, ids) in sorted(self.refused.items(), key=lambda one: -one[1][0]):
            listed = f" {self.ids}: {', '.join(ids)}{'' if count <= len(ids) else ', …'}" if ids else ""
            yield f"{count} {self.row}s: {reason}{listed}"

    def summary(self, total: int, place: Callable[[str], str] | None = None) -> Iterator[str]:
        """Yield the end of a plan: *total*, the largest tenants (*place*: what each becomes), the refused rows."""
        yield f"{total} {self.row}s of {len(self.tenants)} tenants; the largest:"
        for tenant, count in sorted(self.tenants.items(), key=lambda one: (-one[1], one[0]))[:SHOWN]:
            yield f"  {count:>10}  {tenant!a}{'' if place is None else f' -> {place(tenant)}'}"
        if self.refused:
            yield f"REFUSED. Nothing is copied while there are such {self.row}s:"
            yield from (f"  {line}" for line in self.lines())

    def settle(self, adopted: Adopted, what: str) -> None:
        """Note in *adopted* what was found. Raises: RefusedError with the refused rows, *what* was then not adopted."""
        adopted.tenants = len(self.tenants)
        adopted.refused = sum(count for count, _ in self.refused.values())
        if self.refused:
            listed = "\n".join(f"  {line}" for line in self.lines())
            raise RefusedError(f"{what} adopted and nothing was copied. Fix these {self.row}s first:\n{listed}")

    def report(self, source: str, adopted: Adopted, compared: str) -> str:
        """Say what was done."""
        changed = f", {adopted.changed} brought up to date" if adopted.changed else ""
        return (
            f"adopted {source}: {adopted.copied} {self.row}s copied{changed}, {adopted.there} were there already; "
            f"{compared} of {len(self.tenants)} tenants agree; {source} is as it was"
        )


def look(
    findings: Findings,
    batches: Iterable[Collection[Row]],
    record: Callable[[Row], Record],
    id_of: Callable[[Row], str],
    identity: Callable[[Tag], Hashable],
    progress: Progress,
    total: int | None = None,
    taken: Callable[[str, Sequence[Record]], Collection[Record]] | None = None,
) -> int:
    """Check every row into *findings*; return how many there are. Two rows with one *identity* would be one chunk.

    *taken* returns those of a tenant's records whose place is taken by a row from another source.
    """
    identities: set[Hashable] = set()
    count = 0
    for rows in batches:
        groups: dict[str, list[Record]] = {}
        for row in rows:
            try:
                new_record = record(row)
            except RefusedError as error:
                findings.refuse(error.message, [id_of(row)])
                continue
            tag = new_record.tag
            groups.setdefault(tag.tenant, []).append(new_record)
            findings.take(tag.tenant)
            ours = identity(tag)
            if ours in identities:
                findings.refuse_same([id_of(row)])
            identities.add(ours)
        if taken is not None:
            for tenant, records in groups.items():
                findings.refuse_taken([f"{one.tag.document!a} {one.tag.chunk!a}" for one in taken(tenant, records)])
        count += len(rows)
        progress(f"checking {findings.row}s", count, None if total is None else max(total, count))
    return count


# The copy


@without_context
def by_tenant(
    rows: Iterable[Row], record: Callable[[Row], Record], id_of: Callable[[Row], str], source: str, what: str
) -> Groups:
    """Return the records of *rows* by tenant, sorted. Raises: RefusedError for one (*what*) that was changed since."""
    groups: dict[str, list[Record]] = {}
    for row in rows:
        try:
            new_record = record(row)
        except RefusedError as error:
            raise RefusedError(
                f"{source} was changed while it was copied; the {what} {id_of(row)} is refused: "
                f"{error.message} Fix it and adopt again: what was copied stays."
            ) from None
        groups.setdefault(new_record.tag.tenant, []).append(new_record)
    return sorted(groups.items())


def in_share(groups: Groups, share: Share, source: str) -> Groups:
    """Return the records of *groups* that are in *share*. Raises: RefusedError for a tenant that was not planned."""
    mine = [(tenant, [one for one in records if share.has(tenant, one.tag.document)]) for tenant, records in groups]
    mine = [(tenant, records) for tenant, records in mine if records]
    for tenant, _ in mine:
        if tenant not in share.tenants:
            raise RefusedError(
                f"{source} has rows of the tenant {tenant!a} that were not there when the import was planned, so they "
                "were not checked. Plan it again: what was copied stays."
            )
    return mine


def copy(
    batches: Iterable[Collection[Row]],
    groups: Callable[[Collection[Row]], Groups],
    write: Callable[[str, Sequence[Record]], tuple[int, int]],
    adopted: Adopted,
    progress: Progress,
    total: int,
) -> None:
    """Write every row by *write*, which returns how many are new and how many it brought up to date.

    *adopted* is kept up to date while this runs.
    """
    row_count = 0
    for rows in batches:
        for tenant, records in groups(rows):
            new, changed = write(tenant, records)
            adopted.copied += new
            adopted.changed += changed
            row_count += len(records)
        adopted.there = row_count - adopted.copied - adopted.changed
        progress("copying", row_count, max(total, row_count))


def compare(
    batches: Iterable[Collection[Row]],
    groups: Callable[[Collection[Row]], Groups],
    differing: Callable[[str, Sequence[Record]], int],
    progress: Progress,
    total: int,
) -> tuple[dict[str, int], int]:
    """Compare every row with its copy; return how many differ by tenant, and how many rows there are."""
    different: dict[str, int] = {}
    row_count = 0
    for rows in batches:
        for tenant, records in groups(rows):
            if count := differing(tenant, records):
                different[tenant] = different.get(tenant, 0) + count
            row_count += len(records)
        progress("verifying", row_count, max(total, row_count))
    return different, row_count


def differs(adapter: str, source: str, what: str, tenants: Sequence[str]) -> StoreError:
    """Return the error of a copy of which *what* of *tenants* differ from *source*."""
    return StoreError(
        f"The copy was made, but {what} of {len(tenants)} tenants differ from {source}: "
        f"{', '.join(map(ascii, tenants[:SHOWN]))}. They were written to since, here or there; adopt again for what is "
        "missing, or look at them.",
        code="adopt_differs",
        adapter=adapter,
        sent="unknown",
    )


def printable(line: str) -> str:
    """Return *line* with what is not printable escaped: a line break in a name would end the comment it stands in."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
