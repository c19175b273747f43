"""The values that flows and registry share. Nothing here needs a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from vectoracl.errors import HeldError, InvalidInputError, StoreError
from vectoracl.filters.predicate import MAX_KEYWORD_BYTES
from vectoracl.model.identifiers import check_text
from vectoracl.model.records import NEVER_EXPIRES
from vectoracl.registry.settings import check_subject

MAX_ENTRIES = 10_000
"""The most access entries of a label, or of a record of access."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An access entry of a label. A denial wins over every permission, and also holds for the labels below.

    Attributes:
        subject: "tenant" for every principal of the tenant, or "user:", "group:" or "role:" with an exact name.
        allow: Whether it permits or denies.
        write: Whether it also permits writing; a denial always denies both.
        valid_from: The time from which it holds, in POSIX seconds; None for always.
        valid_until: The time until which it holds.
    """

    subject: str
    allow: bool = True
    write: bool = False
    valid_from: float | None = None
    valid_until: float | None = None

    def __post_init__(self) -> None:
        check_subject(self.subject)
        for bound in (self.valid_from, self.valid_until):
            number = isinstance(bound, int | float) and not isinstance(bound, bool)
            if bound is not None and not (number and -NEVER_EXPIRES <= bound <= NEVER_EXPIRES):
                raise InvalidInputError("The bounds of an entry are POSIX seconds.", field="entries")


@dataclass(frozen=True, slots=True)
class LabelDefinition:
    """A label as it is defined: what is left out is taken from its parent.

    Attributes:
        name: The label's name.
        parent: The label above it.
        attributes: Its own attributes, of the types that `[registry.attributes]` declares.
        entries: Its own access entries.
        children: Whether the child tenants read it.
        shared: Whether every tenant reads it, if its own tenant is one of `[tenants] shared`.
        chunks: The number of chunks that carry it, as last counted.
    """

    name: str
    parent: str | None = None
    attributes: Mapping[str, str | float | bool] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    children: bool = False
    shared: bool = False
    chunks: int = 0


def check_label(value: object, field_name: str = "label") -> str:
    """Return *value* if it can name a label; names that begin with "#" are reserved. Raises: InvalidInputError."""
    name = check_text(value, "A label", MAX_KEYWORD_BYTES)
    if not name.strip() or name.startswith("#"):
        raise InvalidInputError("A label's name is not blank and does not begin with #.", field=field_name)
    return name


class Ticket(NamedTuple):
    """The right to write the next generation of a document.

    Attributes:
        document: The document's id.
        token: A random text that the publication must present.
        generation: The generation to write.
        base: The published generation, None if there is none.
        label: The document's label.
        expires: The time from which it is invisible.
        time: The registry's time, written into every chunk of the generation.
        chunks: The number of chunks of the published generation.
        until: The time from which the writer makes the document invisible.
        quarantined: Whether a rule takes the published generation as such out of retrieval.
        copies: Whether chunks of the published generation are copied into the new one.
    """

    document: str
    token: str
    generation: int
    base: int | None
    label: str
    expires: float
    time: float
    chunks: int = 0
    until: float = NEVER_EXPIRES
    quarantined: bool = False
    copies: bool = False


class Content(NamedTuple):
    """A document as a store holds it before it comes under a registry."""

    generation: int
    label: str
    expires: float
    chunks: int


class Pending(NamedTuple):
    """A document of the overlay, as `reconcile` captured it: what its chunks should carry.

    It is `due` when no read that began before the change can still be under way: then what it has superseded may go.
    """

    document: str
    state: str
    rev: int
    generation: int | None
    last_generation: int
    label: str
    expires: float
    ticketed: bool
    chunks: int
    due: bool


class Place(NamedTuple):
    """A place in the overlay, which is ordered by the version with which a document entered it."""

    seq: int
    document: str


class Captured(NamedTuple):
    """Documents of the overlay, for one round of `reconcile`.

    Attributes:
        pending: The documents as they are.
        wait: The seconds until more may be written; 0 if none waits.
        last: The place of the last one, if there may be more after it.
    """

    pending: list[Pending]
    wait: float
    last: Place | None


class Expected(NamedTuple):
    """The values that the chunks of a document should carry; whether it is in the overlay, and whether it is held."""

    document: Pending
    changed: bool
    held: bool


def held_error(document: str) -> HeldError:
    """Return the error of a write to a held document. It names no matter: who may write need not know it."""
    error = HeldError(
        f"The document {document!r} is under a hold, so it can be neither changed nor deleted. A governor can list and "
        "release its holds.",
        field="document",
    )
    error.document = document
    return error


def busy(document: str) -> StoreError:
    """Return the error of a write that meets another one of the same document."""
    return StoreError(
        f"Another writer is writing the document {document!r}. Try again.",
        code="conflict",
        sent="no",
        retryable=True,
    )


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A document as governors see it.

    Attributes:
        document: The document's id.
        label: Its label.
        state: "live", "erasing" or "erased".
        generation: The published generation; None without content.
        chunks: The number of its chunks.
        expires: The time from which it is invisible, in POSIX seconds.
        matters: The matters that hold it.
        changed: Whether its chunks do not yet carry what the registry says.
    """

    document: str
    label: str
    state: str
    generation: int | None
    chunks: int
    expires: float
    matters: tuple[str, ...]
    changed: bool
