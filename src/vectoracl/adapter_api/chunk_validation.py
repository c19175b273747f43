"""Chunks become records here: every check of a write, before any I/O."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from vectoracl.errors import InvalidInputError, ReservedFieldError, StoreError, UntaggedWriteError, VectorACLError
from vectoracl.filters.datetimes import datetime_text
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import MAX_EXACT_INT
from vectoracl.filters.validation import reserved_key, typed
from vectoracl.model.identifiers import check_id, check_text
from vectoracl.model.queries import check_vector
from vectoracl.model.records import NEVER_EXPIRES, Chunk, Record, Tag, Vector
from vectoracl.model.values import instead, native

MAX_METADATA_BYTES = 32_768
MAX_KEY_BYTES = 128
MAX_METADATA_DEPTH = 16  # lists and mappings inside one another, below one key
_MAX_POSITION = 2**31 - 1
# The form of `fields.datetime_text`; the hours, since newer Pythons read 24:00 as the next day.
STORED_MOMENT = r"^\d{4}-\d\d-\d\dT([01]\d|2[0-3]):\d\d:\d\d\.\d{6}Z$"
_STORED_MOMENT = re.compile(STORED_MOMENT, re.ASCII)


@dataclass(frozen=True, slots=True)
class ValidatedChunk:
    """A chunk whose every part but a missing vector was checked; `metadata` has its declared types.

    Everything here is a copy, so that nothing that the caller keeps can change it before it is written.
    """

    chunk: Chunk
    metadata: Mapping[str, Any]
    vector: Vector | None


def validate_chunks(
    chunks: Iterable[Chunk], fields: Mapping[str, FieldType], dimension: int, *, nonzero: bool, limit: int
) -> tuple[ValidatedChunk, ...]:
    """Check *chunks*: at most *limit* of them, no two with the same document and id.

    Raises: InvalidInputError, ReservedFieldError; the message names the chunk's place in the call, not its content.
    """
    if isinstance(chunks, str | bytes | Mapping | Chunk) or not isinstance(chunks, Iterable):
        raise InvalidInputError(f"A sequence of Chunk is needed, not {type(chunks).__name__}.", field="chunks")
    batch: list[Chunk] = []
    for chunk in chunks:
        batch.append(chunk)
        if len(batch) > limit:
            raise InvalidInputError(
                f"One call writes at most {limit:,} chunks, all or none; use load() for more.", field="chunks"
            )
    places: dict[tuple[str, str], int] = {}
    ready = []
    for place, chunk in enumerate(batch):
        ready.append(_prepare_one(chunk, place, fields, dimension, nonzero=nonzero))
        first = places.setdefault((ready[-1].chunk.document, ready[-1].chunk.id), place)
        if first != place:
            raise InvalidInputError(
                f"Chunks {first} and {place} of the call have the same document and id.", field="chunks"
            )
    return tuple(ready)


def _prepare_one(
    chunk: object, place: int, fields: Mapping[str, FieldType], dimension: int, *, nonzero: bool
) -> ValidatedChunk:
    if type(chunk) is not Chunk:
        raise InvalidInputError(f"Item {place} is {type(chunk).__name__}, not a Chunk.", field="chunks")
    try:
        # From here on only the checked values are used: a subclass of str, or a mapping, may say something else later.
        id_ = check_id(chunk.id, "chunk id")
        document = check_id(chunk.document, "document")
        text = check_text(chunk.text, "text")
        position = native(chunk.position)
        if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position <= _MAX_POSITION:
            raise InvalidInputError("position must be an integer from 0 to 2**31 - 1.", field="position")
        metadata = check_metadata(chunk.metadata, fields)
        vector = None if chunk.vector is None else check_vector(chunk.vector, dimension, nonzero=nonzero)
        expires = check_expires(chunk.expires)
    except (InvalidInputError, ReservedFieldError) as error:
        error.args = (f"Chunk {place} of the call: {error.message}",)
        raise
    return ValidatedChunk(Chunk(id_, document, text, None, int.__int__(position), expires=expires), metadata, vector)


def check_expires(given: object) -> float | None:
    """Return *given* as a time in POSIX seconds, or None. Raises: InvalidInputError."""
    value = native(given)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= NEVER_EXPIRES:
        return float(value)
    raise InvalidInputError("expires is a time in POSIX seconds, from 1970 to the year 9999, or None.", field="expires")


def until_at_most(one: ValidatedChunk, expires: float) -> ValidatedChunk:
    """Return *one* with a time to live that ends at *expires*, or earlier if it does already."""
    own = one.chunk.expires
    return replace(one, chunk=replace(one.chunk, expires=expires if own is None else min(own, expires)))


def check_metadata(metadata: object, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """Return *metadata* with its declared fields in their types; datetimes in UTC.

    A declared field has exactly its declared type or is absent. Other keys hold any JSON value but null; nothing is
    coerced, but a NumPy scalar is the Python value that it equals (see `values`). At most 32,768 bytes as JSON, keys of
    1 to 128 bytes. Raises: InvalidInputError, ReservedFieldError.
    """
    if not isinstance(metadata, Mapping):
        raise InvalidInputError(f"metadata must be a mapping, not {type(metadata).__name__}.", field="metadata")
    checked: dict[str, Any] = {}
    for raw_key, value in metadata.items():
        key = _known_key(raw_key) if type(raw_key) is str else _key(raw_key)
        if value is None:
            raise InvalidInputError(f"The metadata key {key!r} is null; leave the key out instead.", field=key)
        kind = fields.get(key)
        if kind is None:
            checked[key] = _json(value, key, 0)
        elif kind.is_list:
            if not isinstance(value, list | tuple) or not value:
                usual = isinstance(value, list | tuple | str)
                cure = "" if usual else f" In place of {type(value).__name__}: {instead(value)}."
                raise InvalidInputError(
                    f"The field {key!r} holds a {kind.value}: a list of at least one value, or leave it out.{cure}",
                    field=key,
                )
            checked[key] = [typed(key, kind, one) for one in value]
        else:
            checked[key] = typed(key, kind, value)
    if checked and len(dump_metadata(checked)) > MAX_METADATA_BYTES:
        raise InvalidInputError(f"The metadata is larger than {MAX_METADATA_BYTES:,} bytes.", field="metadata")
    return checked


def _key(given: object) -> str:
    """Return *given* as a metadata key. Raises: InvalidInputError, ReservedFieldError."""
    key = check_text(given, "A metadata key", MAX_KEY_BYTES)
    if not key.strip():
        raise InvalidInputError("A metadata key is blank.", field="metadata")
    if reserved_key(key):
        raise ReservedFieldError(
            f"The metadata key {key!r} is a name of the framework: the handle decides the tag.", field=key
        )
    return key


_known_key = lru_cache(1024)(_key)  # the few keys of an application come back with every chunk; errors are not kept


def check_key(given: object) -> str:
    """Return *given* as a metadata key. Raises: InvalidInputError, ReservedFieldError."""
    return _key(given)


def _json(value: object, key: str, depth: int) -> Any:
    """Return a copy of *value* in JSON's own types, inside of *depth* lists and mappings; each part is read once."""
    if depth >= MAX_METADATA_DEPTH and isinstance(value, list | tuple | Mapping):
        raise InvalidInputError(
            f"The metadata key {key!r} is nested deeper than {MAX_METADATA_DEPTH} levels.", field=key
        )
    value = native(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(value, f"The metadata key {key!r}")
    if isinstance(value, int):
        whole = int.__int__(value)
        if abs(whole) > MAX_EXACT_INT:
            raise InvalidInputError(f"The metadata key {key!r} holds an integer beyond ±2**53.", field=key)
        return whole
    if isinstance(value, float):
        number = float.__float__(value)
        if not math.isfinite(number):
            raise InvalidInputError(f"The metadata key {key!r} holds a number that is not finite.", field=key)
        return number
    if isinstance(value, list | tuple):
        return [_json(one, key, depth + 1) for one in value]
    if isinstance(value, Mapping):
        inside = f"A key inside the metadata key {key!r}"
        return {check_text(name, inside, MAX_KEY_BYTES): _json(one, key, depth + 1) for name, one in value.items()}
    raise InvalidInputError(
        f"The metadata key {key!r} holds {type(value).__name__}, which JSON cannot hold; {instead(value)}.", field=key
    )


def dump_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Return checked *metadata* as JSON; datetimes in the one text form of `fields.datetime_text`."""
    return orjson.dumps(metadata, default=_default, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _default(value: object) -> object:
    if isinstance(value, datetime):
        return datetime_text(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


def load_metadata(data: bytes | str | Mapping[str, Any], fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """Read metadata as it is stored; declared datetimes become aware datetimes in UTC again.

    A store compares a datetime as text, which is right in the one form of `fields.datetime_text` only: other text was
    not compared as it reads, so what comes back with it is neither handed out nor left out. Raises: StoreError with the
    code "stored_form" and the field; the core adds the store.
    """
    read: dict[str, Any] = orjson.loads(data) if isinstance(data, bytes | str) else dict(data)
    for name, kind in fields.items():
        if kind is FieldType.DATETIME and isinstance(read.get(name), str):
            read[name] = _stored_moment(name, read[name])
    return read


def _stored_moment(name: str, text: str) -> datetime:
    if _STORED_MOMENT.fullmatch(text):
        with contextlib.suppress(ValueError):  # such as a 30th of February
            return datetime.fromisoformat(text)
    raise stored_form(name)


def stored_form(name: str, store: str | None = None) -> StoreError:
    """Return the error of a row whose declared datetime field *name* is stored as other text; it quotes none of it."""
    error = StoreError(
        f"The store{'' if store is None else f' {store!r}'} holds text in the declared datetime field {name!r} that is "
        "not in the form in which datetimes are stored (2026-01-31T12:00:00.000000Z: UTC, six digits), so filters do "
        "not compare it as a time: nothing is returned, counted or changed. Such rows were written by other means, "
        f"or before the field was declared. Find those whose stored {name!r} does not match {STORED_MOMENT} and write "
        "them again through a handle, or fix their text; until then, declare the field as keyword.",
        code="stored_form",
        sent="no",
    )
    error.field = name
    return error


def name_store(error: VectorACLError, store: str, adapter: str) -> None:
    """Say in an error of `load_metadata`, which does not know it, which store it is about."""
    if isinstance(error, StoreError) and error.code == "stored_form" and error.field is not None:
        error.args = stored_form(error.field, store).args
        error.message, error.adapter = error.args[0], adapter


def record_of(
    prepared: Sequence[ValidatedChunk],
    vectors: Sequence[Vector | None],
    make_tag: Callable[[Chunk], Tag],
) -> tuple[Record, ...]:
    """Tag *prepared* with *make_tag* and join them with *vectors* (in the same order)."""
    records = []
    for one, vector in zip(prepared, vectors, strict=True):
        if vector is None:
            raise InvalidInputError("A chunk has neither a vector nor an embedder to make one.", field="vector")
        records.append(Record(make_tag(one.chunk), one.chunk.text, np.asarray(vector, np.float32), one.metadata))
    return tuple(records)


def check_tagged(records: Sequence[Record], partition: str) -> None:
    """Refuse records without a whole tag of *partition*: the gate that every adapter's writes pass.

    Raises: UntaggedWriteError, with nothing written.
    """
    for record in records:
        tag = getattr(record, "tag", None)
        if not isinstance(tag, Tag) or not tag.tenant or not tag.document or not tag.chunk or not tag.label:
            raise UntaggedWriteError("A record without a tag was about to be written; nothing was.", field="tag")
        if tag.tenant != partition:
            raise UntaggedWriteError("A record with another tenant's tag was about to be written; nothing was.")
