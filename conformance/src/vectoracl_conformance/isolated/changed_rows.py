"""Reads the rows of a census that another process sent: what changed since the one before (`changed_since`)."""

from __future__ import annotations

import numpy as np

from vectoracl.model.records import Record, Tag
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.context.oracle import Key


def changed_rows(answer: object) -> tuple[str, list[Key] | None, list[Record]]:
    """Return the mark of a census, the keys of the rows that are gone, and those that are new or changed.

    Without keys (None) the rows are all. Raises: Abstain if *answer*, of an untrusted process, is not a census.
    """
    match answer:
        case (str() as mark, None | list() as gone, packed) if all(map(_is_key, gone or ())):
            return mark, gone, _unpacked(packed)
    raise Abstain("a process did not answer with the rows of a store")


def _is_key(one: object) -> bool:
    return isinstance(one, tuple) and all(isinstance(part, str) for part in one)


def _unpacked(packed: object) -> list[Record]:
    """Return rows that come one by one, or with their vectors in one array. Raises: Abstain."""
    match packed:
        case list() as rows if all(isinstance(one, Record) and isinstance(one.tag, Tag) for one in rows):
            return rows
        case (list() as tags, list() as texts, np.ndarray() as vectors, list() as metadata):
            try:
                made = zip(map(Tag._make, tags), texts, vectors, metadata, strict=True)
                return [Record(*parts) for parts in made]
            except (TypeError, ValueError):
                pass
    raise Abstain("a process did not answer with the rows of a store")
