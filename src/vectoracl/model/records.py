"""Stored and returned values: chunks, tags, records, hits. Their reprs show no text, no vector and no metadata."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
_LENGTH = struct.Struct(">Q").pack
DEFAULT_LABEL = "default"
NEVER_EXPIRES = 253_402_300_799.0  # 9999-12-31T23:59:59Z, so that every store can compare `expires > now`


class Tag(NamedTuple):
    """The tag of a stored chunk, which decides who may read it. Only the framework writes it.

    Attributes:
        tenant: The tenant's id.
        document: The document's id.
        chunk: The chunk's id.
        generation: The number of replacements of the document, from 0.
        label: The document's label.
        rev: The number of changes of the document's rights.
        expires: The time from which the chunk is invisible, in POSIX seconds.
        producer: The id of the principal that wrote the chunk.
        path: The operation that wrote it: "upsert", "replace" or "load".
        time: The time of writing, in POSIX seconds.
        position: The chunk's position in its document.
    """

    tenant: str
    document: str
    chunk: str
    generation: int = 0
    label: str = DEFAULT_LABEL
    rev: int = 0
    expires: float = NEVER_EXPIRES
    producer: str = ""
    path: str = ""
    time: float = 0.0
    position: int = 0

    @property
    def docgen(self) -> str:
        """The document and the generation as one keyword."""
        return docgen(self.document, self.generation)

    def key(self) -> str:
        """Return the id for stores whose ids are one keyword: 64 hex digits, see `stored_key`."""
        return stored_key(self.tenant, self.document, self.generation, self.chunk)


def docgen(document: str, generation: int) -> str:
    """Return document and generation as one keyword; the length prefix makes it injective."""
    return f"{len(document)}:{document}:{generation}"


def stored_key(tenant: str, document: str, generation: int, chunk: str) -> str:
    """Return 64 hex digits for (tenant, document, generation, chunk id).

    Each part gets a length prefix before hashing (plain concatenation collides: "a"+"bc" is "ab"+"c"). The raw values
    are stored next to it and compared after every read.
    """
    # One concatenation and one call, for speed: every hit of a search may be checked by it.
    one, two, three, four = tenant.encode(), document.encode(), str(generation).encode(), chunk.encode()
    whole = _LENGTH(len(one)) + one + _LENGTH(len(two)) + two + _LENGTH(len(three)) + three + _LENGTH(len(four)) + four
    return hashlib.blake2b(whole, digest_size=32).hexdigest()


_STORED_PARTS = (
    "tenant", "document", "generation", "docgen", "chunk", "label", "rev", "expires", "producer", "path", "time",
    "position",
)  # fmt: skip


def tag_fields(keys: object, tag: Tag) -> dict[str, str | int | float]:
    """Return the parts of *tag* by their stored names; *keys* has an attribute with the stored name of each part."""
    return {getattr(keys, part): getattr(tag, part) for part in _STORED_PARTS}


@dataclass(frozen=True, slots=True, repr=False)
class Chunk:
    """A chunk to write. It has no tenant: the handle that writes it decides the tenant.

    Args:
        id: The chunk's id, unique within its document.
        document: The document's id.
        text: The text.
        vector: A sequence of floats or a 1-d array of the store's dimension. None embeds *text* with the configured
            embedder.
        position: The chunk's position in its document.
        metadata: Names with JSON values. Declared fields must have their declared type, and datetimes a time zone.
        expires: The time from which the chunk is invisible, in POSIX seconds; None for never. The store needs
            `expiring = true`.
    """

    id: str
    document: str
    text: str = ""
    vector: Sequence[float] | Vector | None = None
    position: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    expires: float | None = None

    def __repr__(self) -> str:
        return f"Chunk({self.id!r} of {self.document!r}, {len(self.text)} characters)"


class Record(NamedTuple):
    """A checked and tagged chunk for an adapter to write. `vector` is float32 of the store's dimension."""

    tag: Tag
    text: str
    vector: Vector
    metadata: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Record({self.tag.chunk!r} of {self.tag.document!r}, tenant {self.tag.tenant!r})"


class Hit(NamedTuple):
    """A returned chunk.

    Attributes:
        id: The chunk's id.
        document: The document's id.
        score: The cosine similarity, the inner product or the negative L2 distance: higher is better. It is 0.0 if
            nothing was ranked.
        tenant: The id of the tenant that owns the chunk.
        position: The chunk's position in its document.
        text: The text; None unless it was included.
        metadata: The metadata; None unless it was included.
        vector: The vector as float32; None unless it was included.
        tag: The chunk's tag.
    """

    id: str
    document: str
    score: float
    tenant: str
    position: int
    text: str | None
    metadata: Mapping[str, Any] | None
    vector: Vector | None
    tag: Tag

    def __repr__(self) -> str:
        return f"Hit({self.id!r} of {self.document!r}, tenant {self.tenant!r}, score {self.score:.4f})"


def hit_of(tag: Tag, score: float, text: str | None, metadata: Mapping[str, Any] | None, vector: Vector | None) -> Hit:
    """Return the hit of the row with *tag*; ids, tenant and position are those of the tag."""
    # Positional arguments: keywords would double the cost of this call, which runs for every hit.
    return Hit(tag.chunk, tag.document, score, tag.tenant, tag.position, text, metadata, vector, tag)


class Result(Sequence[Hit]):
    """The hits of one search, best first, as a sequence.

    Attributes:
        hits: The hits.
        complete: Whether the result holds min(k, number of visible chunks) hits.
        shortfall: The reason why the result is not complete; None if it is.
        decision_id: The id of the decision's audit record.
    """

    __slots__ = ("complete", "decision_id", "hits", "shortfall")

    def __init__(
        self, hits: Sequence[Hit], *, complete: bool, shortfall: str | None = None, decision_id: str = ""
    ) -> None:
        self.hits: tuple[Hit, ...] = tuple(hits)
        self.complete = complete
        self.shortfall = shortfall
        self.decision_id = decision_id

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        return (self.hits, self.complete, self.shortfall) == (other.hits, other.complete, other.shortfall)

    __hash__ = None  # type: ignore[assignment]  # hits may hold arrays

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"incomplete: {self.shortfall}"
        return f"Result({len(self.hits)} hits, {state})"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a scan, ordered by tenant, document, generation and chunk id.

    Attributes:
        hits: The chunks.
        after: The cursor of the next page; None at the end.
        decision_id: The id of the decision's audit record.
    """

    hits: tuple[Hit, ...]
    after: str | None
    decision_id: str = ""


class Facet(NamedTuple):
    """A value of a metadata field, and the number of chunks that have it.

    Attributes:
        value: The value. A whole number is an int, however it is stored: 1 and 1.0 are one value.
        count: The number of chunks, equal to `count` for the same filter and `field == value` (for a list field:
            `contains(value)`).
    """

    value: str | int | float | bool
    count: int  # type: ignore[assignment]  # hides tuple.count, which is useless in a pair

    def __repr__(self) -> str:
        return f"Facet({type(self.value).__name__}, count {self.count})"


@dataclass(frozen=True, slots=True)
class Written:
    """The result of a write.

    Attributes:
        count: The number of written or deleted chunks; None if the store cannot count deleted ones.
        decision_id: The id of the decision's audit record.
        quarantined: The documents that a validator put under quarantine: they are stored, and no one retrieves them.
    """

    count: int | None
    decision_id: str = ""
    quarantined: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Updated:
    """The result of `update_metadata`.

    Attributes:
        count: The number of changed chunks; 0 if there is no such document.
        atomic: Whether every reader saw all chunks of the document changed or none.
        decision_id: The id of the decision's audit record.
        quarantined: Whether a validator put the document under quarantine: no one retrieves it.
    """

    count: int
    atomic: bool
    decision_id: str = ""
    quarantined: bool = False
