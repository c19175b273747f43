"""Records of access: who may read a document, as a source of rights outside of the registry says.

A source is a drive, a wiki, a folder of files: whatever has decided who may read a document before it came here. Its
feed is a list of records, or JSON Lines. Nothing here needs a database.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from vectoracl.errors import InvalidInputError
from vectoracl.model.identifiers import check_id
from vectoracl.model.records import NEVER_EXPIRES
from vectoracl.registry.values import MAX_ENTRIES, Entry, check_label

MAX_RECORDS = 5_000_000
MAX_LINE = 4 << 20
"""The most records of a feed, and the most characters of its line."""
GOVERNOR = "*"
"""In place of a source: a governor has placed the document. A governor does not become stale."""
NOBODY = ""
"""In place of a source: no one has stated yet who may read the document."""


@dataclass(frozen=True, slots=True)
class Access:
    """A source's statement on one document, or folder, at a moment of the source's clock.

    A record without a document is a heartbeat: the source has been read until then, and says nothing new.

    Attributes:
        as_of: The moment for which the source says it, in POSIX seconds; later ones win.
        document: The id of the document, or of a folder that others inherit from; None for a heartbeat.
        label: The label under which it is; or `entries`.
        entries: Its access entries; without any, no one may read it.
        inherits_from: The id of the folder whose entries it takes where it has no separate permission; denials add
            up.
        valid_until: The time until which the record holds, in POSIX seconds; None for as long as no later one comes.
    """

    as_of: float
    document: str | None = None
    label: str | None = None
    entries: tuple[Entry, ...] | None = None
    inherits_from: str | None = None
    valid_until: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "as_of", _moment(self.as_of, "as_of"))
        if self.valid_until is not None:
            object.__setattr__(self, "valid_until", _moment(self.valid_until, "valid_until"))
        says = (self.label, self.entries, self.inherits_from)
        if self.document is None:
            if any(one is not None for one in (*says, self.valid_until)):
                raise InvalidInputError("A record needs a document; a heartbeat has only as_of.", field="document")
            return
        check_id(self.document, "document")
        if self.label is not None:
            check_label(self.label)
            if self.entries is not None or self.inherits_from is not None:
                raise InvalidInputError("A record has a label, or entries and inherits_from.", field="label")
        if all(one is None for one in says):
            raise InvalidInputError(
                "A record says a label, entries or inherits_from; that no one may read it is entries = [].",
                field="entries",
            )
        if self.entries is not None:
            object.__setattr__(self, "entries", tuple(self.entries))
            if not all(type(one) is Entry for one in self.entries or ()):
                raise InvalidInputError("entries holds values of vectoracl.Entry.", field="entries")
            if len(self.entries or ()) > MAX_ENTRIES:
                raise InvalidInputError(f"A record has at most {MAX_ENTRIES:,} entries.", field="entries")
        if self.inherits_from is not None:
            check_id(self.inherits_from, "inherits_from")
            if self.inherits_from == self.document:
                raise InvalidInputError("A document cannot inherit from itself.", field="inherits_from")

    def content(self) -> str:
        """Return what it says, without the document and the moment, in one form: equal for records that agree."""
        entries: list[str] | None = None
        if self.entries is not None:  # their order says nothing
            entries = sorted({json.dumps(_plain(one), sort_keys=True) for one in self.entries})
        parts = {
            "label": self.label,
            "entries": entries,
            "inherits_from": self.inherits_from,
            "valid_until": self.valid_until,
        }
        return json.dumps({name: value for name, value in parts.items() if value is not None}, sort_keys=True)


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "subject": entry.subject,
        "allow": entry.allow is True,
        "write": entry.allow is True and entry.write is True,
        "valid_from": None if entry.valid_from is None else float(entry.valid_from),
        "valid_until": None if entry.valid_until is None else float(entry.valid_until),
    }


def contradiction(document: str | None) -> InvalidInputError:
    """Return the error of a source that says two things of one document for one moment."""
    return InvalidInputError(
        f"The source says two things of {document!r} for one moment (as_of). Give the later one a later time.",
        field="as_of",
    )


class Said(NamedTuple):
    """The content of a stored record."""

    label: str | None
    entries: tuple[Entry, ...] | None
    inherits_from: str | None
    valid_until: float


def said(content: str) -> Said:
    """Return the parts of *content*, which `Access.content` has made."""
    parts = json.loads(content)
    entries = parts.get("entries")
    return Said(
        parts.get("label"),
        None if entries is None else tuple(Entry(**json.loads(one)) for one in entries),
        parts.get("inherits_from"),
        parts.get("valid_until", NEVER_EXPIRES),
    )


def access_of(as_of: float, document: str, content: str) -> Access:
    """Return the record of *document* whose `Access.content` is *content*."""
    parts = said(content)
    until = None if parts.valid_until >= NEVER_EXPIRES else parts.valid_until
    return Access(as_of, document, parts.label, parts.entries, parts.inherits_from, until)


class Outcome(NamedTuple):
    """The changes by one part of a feed.

    Attributes:
        changed: The documents whose rights may be others now.
        older: The number of records that were older than the source's present ones.
        over: How many more documents have changed than filters can name; the labels concerned are hidden.
    """

    changed: list[str]
    older: int
    over: int


class Reading(NamedTuple):
    """The changes by the end of a feed.

    Attributes:
        as_of: The moment until which the source has been read.
        changed: The documents that could be placed only now.
        unplaced: Documents whose folders are not known, form a circle or are too deep.
    """

    as_of: float
    changed: list[str]
    unplaced: list[str]


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of a feed.

    Attributes:
        source: The source's name.
        records: The number of records.
        changed: The documents whose rights may be others now.
        older: The number of records that were older than the source's present ones; they changed nothing.
        as_of: The moment until which the source has been read, by its clock.
        over: How many more documents have changed than filters can name: until `reconcile` has caught up, the labels
            that their chunks may carry are hidden as a whole.
        unplaced: Documents (up to 1,000) that no one reads, since no source has a record of a folder above them,
            or their folders form a circle or are more than 32 deep.
    """

    source: str
    records: int
    changed: tuple[str, ...]
    older: int
    as_of: float
    over: int = 0
    unplaced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """A source of rights, as governors see it.

    Attributes:
        name: Its name.
        as_of: The moment until which it has been read; None if never.
        fresh_until: The time from which it vouches for nothing, by the registry's clock; None for never.
        stale: Whether that time has come.
        serves: Whether it is late but its documents are served, as `stale = "serve"` says.
        documents: The number of documents of which it has a record.
    """

    name: str
    as_of: float | None
    fresh_until: float | None
    stale: bool
    serves: bool
    documents: int


# --- JSON Lines ---

_FIELDS = frozenset({"document", "label", "entries", "inherits_from", "valid_until", "as_of"})
_ENTRY = frozenset({"subject", "allow", "write", "valid_from", "valid_until"})


def parse(lines: Iterable[str]) -> list[Access]:
    """Return the records of a feed in JSON Lines; blank lines are left out.

    Raises: InvalidInputError, with the number of the line, for the first one that is not a record: nothing of such a
    feed is applied.
    """
    found: list[Access] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(found) >= MAX_RECORDS:
            raise InvalidInputError(f"A feed has at most {MAX_RECORDS:,} records; split it.", field="file")
        try:
            found.append(record_of(_object(line)))
        except InvalidInputError as error:
            problem, field = str(error), error.field
        else:
            continue
        raise InvalidInputError(f"Line {number}: {problem}", field=field)
    return found


def _object(line: str) -> Mapping[str, Any]:
    if len(line) > MAX_LINE:
        raise InvalidInputError(f"It has more than {MAX_LINE:,} characters.", field="file")
    try:
        found = json.loads(line, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInputError("It is not a JSON object in which each name occurs once.", field="file")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def record_of(given: Mapping[str, Any]) -> Access:
    """Return a record from its JSON form. Raises: InvalidInputError."""
    _known(given, _FIELDS, "record")
    if "as_of" not in given:
        raise InvalidInputError("A record needs as_of, the moment for which the source says it.", field="as_of")
    entries = given.get("entries")
    if entries is not None and not isinstance(entries, list):
        raise InvalidInputError("entries is a list.", field="entries")
    if any(given.get(name, "") is None for name in ("document", "label", "entries", "inherits_from")):
        raise InvalidInputError("A part that says nothing is left out, not null.", field="entries")
    until = given.get("valid_until")
    return Access(
        _time_of(given["as_of"], "as_of"),
        given.get("document"),
        given.get("label"),
        None if entries is None else tuple(_entry(one) for one in entries),
        given.get("inherits_from"),
        None if until is None else _time_of(until, "valid_until"),
    )


def _known(given: Mapping[str, Any], names: frozenset[str], what: str) -> None:
    unknown = sorted(set(given) - names)
    if unknown:
        raise InvalidInputError(
            f"A {what} has no part {unknown[0]!a}; its parts are {', '.join(sorted(names))}.", field="file"
        )


def _entry(given: object) -> Entry:
    if not isinstance(given, dict):
        raise InvalidInputError("An entry is a JSON object with a subject.", field="entries")
    _known(given, _ENTRY, "entry")
    flags = {name: given.get(name, default) for name, default in (("allow", True), ("write", False))}
    if not all(isinstance(one, bool) for one in flags.values()) or "subject" not in given:
        raise InvalidInputError("An entry has a subject; allow and write are true or false.", field="entries")
    since, until = given.get("valid_from"), given.get("valid_until")
    return Entry(
        given["subject"],
        flags["allow"],
        flags["write"],
        None if since is None else _time_of(since, "valid_from"),
        None if until is None else _time_of(until, "valid_until"),
    )


def _time_of(value: object, field: str) -> float:
    """Return a time that is given as POSIX seconds, or as text with its zone."""
    if not isinstance(value, str):
        return _moment(value, field)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidInputError(
            f"{field} is POSIX seconds, or a time such as 2030-01-31T00:00:00Z, with its zone.", field=field
        )
    return _moment(moment.timestamp(), field)


def _moment(value: object, field: str) -> float:
    # An integer is compared before it becomes a float, which one of hundreds of digits cannot.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= NEVER_EXPIRES:
        raise InvalidInputError(f"{field} is a time in POSIX seconds.", field=field)
    return float(value)
