"""Helpers for replacing a document in stores without transactions.

Each store has its own protocol that makes a new generation visible; the digest that identifies a replacement is shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vectoracl.adapter_api.chunk_validation import dump_metadata
from vectoracl.errors import StoreError
from vectoracl.model.records import Record


def version_of(records: Sequence[Record]) -> str:
    """Return a digest, 24 hex digits, of content, producer and time: it identifies one replacement."""
    digest = hashlib.blake2b(digest_size=12)
    for record in records:
        tag = record.tag
        for part in (tag.chunk, tag.producer, repr(tag.time), record.text):
            raw = part.encode()
            digest.update(len(raw).to_bytes(8, "big") + raw)
        digest.update(dump_metadata(record.metadata))
    return digest.hexdigest()


def at_generation(records: Sequence[Record], generation: int) -> list[Record]:
    """Return *records* with *generation* in their tags."""
    return [record._replace(tag=record.tag._replace(generation=generation)) for record in records]


def added_outside(adapter: str) -> StoreError:
    """Return the error of a replacement that met a chunk outside its scope and was undone."""
    error = StoreError(
        "Another writer concurrently added a chunk to the document outside the scope in which this handle may write; "
        "nothing of this version is left.",
        code="conflict",
        adapter=adapter,
        sent="no",
    )
    error.undone = True
    return error
