"""Checks of the arguments of reads, done before anything else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from vectoracl.adapter_api.operations import ChunkRef, Include
from vectoracl.engine.pipeline import Store, check_supported
from vectoracl.errors import InvalidInputError, UnsupportedPredicateError
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.filters.predicate import ALWAYS, Predicate, check_predicate
from vectoracl.filters.validation import check_filter
from vectoracl.model.identifiers import check_id, plain
from vectoracl.model.values import native

INCLUDE: Include = frozenset({"text", "metadata"})
_INCLUDABLE: Include = frozenset({"text", "metadata", "vector"})
MAX_FETCH = 1_000
MAX_PAGE = 10_000
MAX_CURSOR = 8_192
MAX_TIMEOUT = 86_400  # a day; servers count milliseconds in 31 bits
_MAX_FLOAT = sys.float_info.max  # compared, since math.isfinite raises for an integer beyond it


class SearchArguments(NamedTuple):
    """The checked arguments of a search, without the query."""

    k: int
    where: Predicate
    min_score: float | None
    group_by: Literal["document"] | None
    per_group: int
    include: Include
    exact: bool
    tuning: Mapping[str, int]


def check_include(include: object) -> Include:
    """Return *include* as a set of "text", "metadata" and "vector". Raises: InvalidInputError."""
    if include is INCLUDE:
        return INCLUDE
    if isinstance(include, str) or not isinstance(include, Iterable):
        raise InvalidInputError(
            f'include must be a collection, for example {{"text", "vector"}}, got {type(include).__name__}.',
            field="include",
        )
    named = list(include)
    parts = frozenset(one for one in _INCLUDABLE if one in named)
    if not all(isinstance(one, str) and plain(one) in _INCLUDABLE for one in named):
        raise InvalidInputError(f"include may only hold {', '.join(sorted(_INCLUDABLE))}.", field="include")
    return parts


def integer(value: object, name: str, low: int, high: int) -> int:
    """Return *value* if it is an integer from *low* to *high*. Raises: InvalidInputError."""
    if type(value) is int and low <= value <= high:
        return value
    whole = native(value)
    if isinstance(whole, bool) or not isinstance(whole, int) or not low <= whole <= high:
        raise InvalidInputError(f"{name} must be an integer from {low} to {high:,}.", field=name)
    return int(whole)


def check_timeout(timeout: object) -> None:
    """Refuse a timeout that is not a positive number of seconds. Raises: InvalidInputError."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MAX_TIMEOUT:
        raise InvalidInputError(
            f"timeout must be a positive number of seconds, at most {MAX_TIMEOUT:,}.", field="timeout"
        )


def check_where(store: Store, where: object) -> Predicate:
    """Check a caller's filter against the store's fields and capabilities. Raises: subclasses of RefusedError."""
    if where is ALWAYS:
        return ALWAYS
    checked = check_filter(check_predicate(where), store.fields)
    check_supported(checked, store.capabilities)
    return checked


_FACETED = frozenset({FieldType.KEYWORD, FieldType.NUMBER, FieldType.BOOLEAN})
_FACETED_TAGS = frozenset({"@document"})


def check_facet(store: Store, name: object) -> FieldType:
    """Return the type of the field *name*, whose values can be counted. Raises: InvalidInputError."""
    if type(name) is not str:  # a subclass could be one name here and another one in the store
        raise InvalidInputError(
            f'field must be the name of a field, for example "lang", got {type(name).__name__}.', field="field"
        )
    kind = TAG_FIELDS[name] if name in _FACETED_TAGS else store.fields.get(name)
    if kind is None:
        known = ", ".join(sorted(one for one, its in store.fields.items() if its.element in _FACETED)) or "none"
        raise InvalidInputError(
            f"facets() cannot count by {name!r}: it is not a declared field. Possible are {known} and @document. "
            "Declare the field under [stores.NAME.metadata].",
            field="field",
        )
    if kind.element not in _FACETED:
        raise InvalidInputError(
            f"facets() cannot count by {name!r}, a {kind.value}: only by keywords, numbers and booleans. Call count() "
            "with a filter for each range instead.",
            field="field",
        )
    return kind


def check_ask(
    store: Store,
    k: object,
    where: object,
    min_score: object,
    group_by: object,
    per_group: object,
    include: object,
    exact: object,
    tuning: object,
) -> SearchArguments:
    """Check the arguments of a search against the store's capabilities.

    Raises: InvalidInputError, ReservedFieldError, UnsupportedPredicateError.
    """
    can = store.capabilities
    if min_score is not None and (
        isinstance(min_score, bool) or not isinstance(min_score, int | float) or not abs(min_score) <= _MAX_FLOAT
    ):
        raise InvalidInputError("min_score must be a finite number.", field="min_score")
    if group_by not in (None, "document"):
        raise InvalidInputError('group_by must be None or "document".', field="group_by")
    if group_by is not None and not can.group_by:
        raise UnsupportedPredicateError(f"The adapter {store.adapter_name!r} cannot group hits.", field="group_by")
    if not isinstance(exact, bool):
        raise InvalidInputError("exact must be True or False.", field="exact")
    if exact and not can.exact:
        raise UnsupportedPredicateError(f"The adapter {store.adapter_name!r} cannot rank exactly.", field="exact")
    if not isinstance(tuning, Mapping):
        raise InvalidInputError("tuning must be a mapping.", field="tuning")
    settings: dict[str, int] = {}
    for name, value in tuning.items():
        if name not in can.tuning:
            known = ", ".join(sorted(can.tuning)) or "none"
            raise UnsupportedPredicateError(f"The store has no setting {name!r}; it has: {known}.", field="tuning")
        settings[name] = integer(value, name, *can.tuning[name])
    return SearchArguments(
        integer(k, "k", 1, can.max_k),
        check_where(store, where),
        None if min_score is None else float(min_score),
        "document" if group_by is not None else None,
        integer(per_group, "per_group", 1, can.max_k),
        check_include(include),
        exact,
        settings,
    )


def check_refs(ids: object, name: str = "ids") -> tuple[ChunkRef, ...]:
    """Return *ids* (chunk ids, or (document, chunk id) pairs) as references. Raises: InvalidInputError."""
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable):
        raise InvalidInputError(f"{name} must be a list of chunk ids or (document, chunk id) pairs.", field=name)
    refs: dict[ChunkRef, None] = {}
    for one in ids:
        if isinstance(one, tuple):
            if len(one) != 2:
                raise InvalidInputError(f"{name}: a pair must be (document, chunk id).", field=name)
            refs[ChunkRef(check_id(one[1], "chunk id"), check_id(one[0], "document"))] = None
        else:
            refs[ChunkRef(check_id(one, "chunk id"))] = None
        if len(refs) > MAX_FETCH:
            raise InvalidInputError(f"{name} may hold at most {MAX_FETCH:,} ids.", field=name)
    return tuple(refs)
