"""The types of fields: of the metadata that config declares, and of the tag."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class FieldType(StrEnum):
    """The type of a metadata field. A row either has a value of exactly this type or does not have the field."""

    KEYWORD = "keyword"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATETIME = "datetime"
    KEYWORDS = "keyword[]"
    NUMBERS = "number[]"

    @property
    def is_list(self) -> bool:
        """Whether the field holds a list of values."""
        return self in (FieldType.KEYWORDS, FieldType.NUMBERS)

    @property
    def element(self) -> FieldType:
        """The type of one value: of the list's elements for a list."""
        match self:
            case FieldType.KEYWORDS:
                return FieldType.KEYWORD
            case FieldType.NUMBERS:
                return FieldType.NUMBER
            case _:
                return self


# The tag's fields, by the name they have in a predicate. Policies may use all of them.
TAG_FIELDS: Mapping[str, FieldType] = {
    "@document": FieldType.KEYWORD,
    "@chunk": FieldType.KEYWORD,
    "@generation": FieldType.NUMBER,
    "@docgen": FieldType.KEYWORD,
    "@label": FieldType.KEYWORD,
    "@rev": FieldType.NUMBER,
    "@expires": FieldType.NUMBER,
    "@producer": FieldType.KEYWORD,
    "@path": FieldType.KEYWORD,
    "@time": FieldType.NUMBER,
    "@position": FieldType.NUMBER,
}
# A caller's own filter may use these; the others would say something about rights.
CALLER_TAG_FIELDS = frozenset({"@document", "@chunk", "@position", "@time"})

# Short names of the types, for stores where the stored key of a field says its type. What is stored depends on them.
SHORT_NAMES: Mapping[FieldType, str] = {
    FieldType.KEYWORD: "kw",
    FieldType.NUMBER: "num",
    FieldType.BOOLEAN: "bool",
    FieldType.DATETIME: "date",
    FieldType.KEYWORDS: "kws",
    FieldType.NUMBERS: "nums",
}
