"""Decodes objects to hits. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson

from vectoracl.adapter_api.chunk_validation import check_metadata, load_metadata
from vectoracl.errors import ScopeViolationError, StoreError, without_context
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.filters.semantics import getter, values_of
from vectoracl.model.records import Facet, Hit, Tag, Vector, hit_of
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.names import escape, id_of, known, unescape

ADAPTER = "weaviate"


_MARK = re.compile(r"\d+:[0-9a-f]*:[0-9a-f-]{36}\Z")
Ranking = Literal["near", "words", ""]
Number = tuple[int, str]
"""A generation, and the name of the replacement that made it ("" for none)."""


class Version(NamedTuple):
    """An object's version of its document; `pending` is the mark of a replacement, "" for none.

    `number` is the generation, and the name of the replacement that made it: versions are ordered by it.
    """

    id: str
    document: str
    number: Number
    pending: str
    committed: bool


class Row(NamedTuple):
    """An object as it came: its version, its hit, and whether its writer knew the fields that were asked about."""

    version: Version
    hit: Hit
    known: bool


class Decoder:
    """Decodes the objects of one configured collection."""

    def __init__(self, config: WeaviateConfig, fields: Mapping[str, FieldType]) -> None:
        self._keys = config.properties
        self._metric = config.metric
        self._vector = config.vector
        self._fields = fields
        self._dates = {name: kind for name, kind in fields.items() if kind is FieldType.DATETIME}

    def near(self, objects: Iterable[Any]) -> list[Hit]:
        """Return the hits of a ranking by vector, with their scores."""
        return [self._hit(one, self._score(one.metadata.distance)) for one in objects]

    def rows(self, objects: Iterable[Any], by: Ranking = "", fields: Iterable[str] = ()) -> list[Row]:
        """Return *objects* as rows, with the scores of the ranking that they came *by*.

        Raises: StoreError where one has no whole tag, or a datetime in a form that is not ours.
        """
        fields = tuple(fields)
        rows = []
        for one in objects:
            score = 0.0
            if by == "near":
                score = self._score(one.metadata.distance)
            elif by == "words":
                score = float(one.metadata.score)
            rows.append(Row(self.version(one), self._hit(one, score), not self.strange(one, fields)))
        return rows

    def strange(self, one: Any, fields: Iterable[str]) -> bool:
        """Return whether the writer of *one* did not know one of *fields* as what it is here."""
        marks: frozenset[Any] | None = None
        for name in fields:
            if marks is None:
                held = one.properties.non_ref_props.fields.get(self._keys.present)
                marks = frozenset(() if held is None else _stored(held))
            if marks.isdisjoint(map(escape, known(name, self._fields[name]))):
                return True
        return False

    def _score(self, distance: float) -> float:
        match self._metric:
            case "cosine":
                return 1.0 - distance
            case "inner":
                return -distance
            case "l2":  # the server's is the square
                return -math.sqrt(max(distance, 0.0))

    @without_context
    def version(self, one: Any) -> Version:
        """Return which version of its document *one* is. Raises: StoreError where it has no whole tag."""
        keys, fields = self._keys, one.properties.non_ref_props.fields
        try:
            mark = unescape(_text(fields, keys.pending))
            return Version(
                one.metadata.id,
                unescape(_text(fields, keys.document)),
                (_whole(fields, keys.generation), unescape(_text(fields, keys.version))),
                _mark(mark),
                bool(fields[keys.committed].bool_value) if keys.committed in fields else False,
            )
        except (KeyError, ValueError):
            raise _malformed() from None

    def facets(self, field: str, groups: Iterable[tuple[Any, int]]) -> list[Facet]:
        """Return what was counted by the stored values of *field*. Raises: StoreError for a value that is not ours."""
        return [Facet(self._value(field, stored), count) for stored, count in groups if stored is not None]

    def values(self, field: str, hit: Hit) -> frozenset[str | int | float | bool]:
        """Return the values that the row of *hit* has in *field*."""
        kind = TAG_FIELDS[field] if field in TAG_FIELDS else self._fields[field]
        return values_of(kind, getter(field)(hit.tag, hit.metadata or {}))

    @without_context
    def _value(self, field: str, stored: Any) -> str | int | float | bool:
        kind = (TAG_FIELDS[field] if field in TAG_FIELDS else self._fields[field]).element
        try:
            if kind is FieldType.KEYWORD and type(stored) is str:
                return unescape(stored)
        except ValueError:
            raise _malformed() from None
        if type(stored) is (bool if kind is FieldType.BOOLEAN else float):
            return stored
        raise _malformed()

    @without_context
    def seek(self, one: Any) -> str:
        """Return the key that *one* is listed by. Raises: StoreError where it has none."""
        try:
            return _text(one.properties.non_ref_props.fields, self._keys.seek)
        except (KeyError, ValueError):
            raise _malformed() from None

    @without_context
    def metadata(self, one: Any) -> dict[str, Any]:
        """Return the object's metadata, its declared fields in their types. Raises: StoreError, InvalidInputError."""
        try:
            text = _text(one.properties.non_ref_props.fields, self._keys.metadata)
        except ValueError:
            raise _malformed() from None
        return check_metadata(orjson.loads(text), self._fields)

    @without_context
    def tag(self, one: Any) -> Tag:
        """Return the object's tag.

        Raises: StoreError if it has none; ScopeViolationError if the id does not match the tag, which means that
        another program wrote the object or changed its tag.
        """
        keys, fields = self._keys, one.properties.non_ref_props.fields
        try:
            tag = Tag(
                unescape(_text(fields, keys.tenant)),
                unescape(_text(fields, keys.document)),
                unescape(_text(fields, keys.chunk)),
                _whole(fields, keys.generation),
                unescape(_text(fields, keys.label)),
                _whole(fields, keys.rev),
                _number(fields, keys.expires),
                unescape(_text(fields, keys.producer)),
                unescape(_text(fields, keys.path)),
                _number(fields, keys.time),
                _whole(fields, keys.position),
            )
            version = unescape(_text(fields, keys.version))
        except (KeyError, ValueError):
            raise _malformed() from None
        if one.metadata.id != id_of(tag, version):
            raise ScopeViolationError(
                "An object's tag was changed after it was written; the reply was dropped.",
                adapter=ADAPTER,
                rows=1,
            )
        return tag

    def _hit(self, one: Any, score: float) -> Hit:
        tag = self.tag(one)
        fields = one.properties.non_ref_props.fields
        text = fields[self._keys.text].text_value if self._keys.text in fields else None
        metadata = fields[self._keys.metadata].text_value if self._keys.metadata in fields else None
        return hit_of(
            tag,
            score,
            text,
            None if metadata is None else load_metadata(metadata, self._dates),
            self._vector_of(one),
        )

    def _vector_of(self, one: Any) -> Vector | None:
        for vector in one.metadata.vectors:
            if vector.name == self._vector:
                return np.frombuffer(vector.vector_bytes, "<f4").astype(np.float32)
        return None


def _stored(value: Any) -> list[Any]:
    """Return what a property of an object holds: one value, or those of a list."""
    kind = value.WhichOneof("kind")
    if kind != "list_value":
        return [] if kind in (None, "null_value") else [getattr(value, kind)]
    held = value.list_value
    inner = held.WhichOneof("kind")
    if inner == "number_values":
        return [float(one) for one in np.frombuffer(held.number_values.values, "<f8")]
    return [] if inner is None else list(getattr(held, inner).values)


def _mark(stored: str) -> str:
    """Return a mark as it was written, "" for none. Raises: ValueError."""
    if stored == "-":
        return ""
    if not _MARK.match(stored):
        raise ValueError("not a mark")
    return stored


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None or not value.HasField("text_value"):
        raise ValueError(name)
    text: str = value.text_value
    return text


def _number(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    if value is None or not value.HasField("number_value"):
        raise ValueError(name)
    number: float = value.number_value
    return number


def _whole(fields: Mapping[str, Any], name: str) -> int:
    number = _number(fields, name)
    if not number.is_integer():
        raise ValueError(name)
    return int(number)


def _malformed() -> StoreError:
    return StoreError(
        "An object of the collection has no complete tag, so vectoracl did not write it. Run `vectoracl check`.",
        code="malformed",
        adapter=ADAPTER,
    )
