"""Ways in which a store may take one value for another, and which of them a leaf shows on the rows that there are.

A leaf that no row nearly matches is answered rightly also by a store that compares carelessly.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import numpy as np

from vectoracl.filters.predicate import ContainsAny, Eq, In, Missing, Predicate, Range, StartsWith

_FEW = 8
"""The number of values of a list up to which each is compared with every value of the rows."""


def _bare(text: str) -> str:
    return "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))


def _single(number: float) -> float:
    return float(np.float32(number)) if abs(number) < 1e38 else float(number)


_TEXTS: Mapping[str, Callable[[str], Any]] = {
    "case": str.casefold,
    "blanks": str.strip,
    "form": lambda one: unicodedata.normalize("NFKC", one),
    "accents": _bare,
    "letters": lambda one: "".join(filter(str.isalnum, one)),
    "first 60": lambda one: one[:60],
    "first 100": lambda one: one[:100],
    "first 250": lambda one: one[:250],
    "backslashes": lambda one: one.replace("\\", ""),
}
_NUMBERS: Mapping[str, Callable[[float], Any]] = {"whole": int, "single precision": _single, "sign": abs}
_TIMES: Mapping[str, Callable[[datetime], Any]] = {
    "milliseconds": lambda one: one.replace(microsecond=one.microsecond // 1000 * 1000),
    "seconds": lambda one: one.replace(microsecond=0),
    "days": datetime.date,
}


def keys_of(kind: type[Any]) -> Mapping[str, Callable[[Any], Any]]:
    """Return what a store may compare in place of values of *kind*, by name."""
    if kind is str:
        return _TEXTS
    if kind is datetime:
        return _TIMES
    return _NUMBERS if kind in (int, float) else {}


class Values(Protocol):
    """The values of the rows of a tenant."""

    def values(self, name: str) -> Sequence[Any]:
        """Return the different values of a field or of its lists."""
        ...

    def index(self, name: str, key: str) -> Mapping[Any, Sequence[Any]]:
        """Return the values of `values` that have one *key* of `keys_of`."""
        ...


def confusions(leaf: Predicate, rows: Values) -> frozenset[str]:
    """Return the names of the ways to misread *leaf* that some row shows."""
    return frozenset(_shown(leaf, rows))


def _shown(leaf: Predicate, rows: Values) -> Iterator[str]:
    match leaf:
        case Eq(name, value):
            yield from _alike(name, (value,), rows)
        case In(name, values) | ContainsAny(name, values):
            yield from _alike(name, values, rows)
        case StartsWith(name, value):
            texts = [one for one in rows.values(name) if isinstance(one, str) and not one.startswith(value)]
            others = {
                "case": lambda one: one.casefold().startswith(value.casefold()),
                "accents": lambda one: _bare(one).startswith(_bare(value)),
                "inside": lambda one: value in one,
                "pattern": pattern(f"{value}%"),
            }
            yield from (what for what, test in others.items() if any(map(test, texts)))
        case Range(name):
            bounds = [one for one in (leaf.gt, leaf.gte, leaf.lt, leaf.lte) if one is not None]
            if any(one in bounds for one in rows.values(name)):
                yield "bound"
            yield from (f"bound {what}" for what in _alike(name, bounds, rows))
        case Missing(name):
            if any(not one for one in rows.values(name)):
                yield "empty"


def _alike(name: str, members: Sequence[Any], rows: Values) -> Iterator[str]:
    own = {(type(one), one) for one in members}
    for kind in {type(one) for one in members}:
        for what, key in keys_of(kind).items():
            index = rows.index(name, what)
            asked = (one for one in members if type(one) is kind)
            if any((type(other), other) not in own for one in asked for other in index.get(key(one), ())):
                yield what
    texts = [one for one in members if isinstance(one, str)]
    if not texts or len(members) > _FEW:
        return
    others = [one for one in rows.values(name) if isinstance(one, str) and (str, one) not in own]
    tests: dict[str, Callable[[str], bool]] = {
        "beginning": lambda other: any(other.startswith(one) for one in texts),
        "longer": lambda other: bool(other) and any(one.startswith(other) for one in texts),
        "pattern": lambda other: any(pattern(one)(other) for one in texts),
    }
    yield from (what for what, test in tests.items() if any(map(test, others)))


def pattern(text: str) -> Callable[[str], bool]:
    """Return the test of SQL's LIKE."""
    if "%" not in text and "_" not in text:
        return text.__eq__
    parts = [".*" if one == "%" else "." if one == "_" else re.escape(one) for one in text]
    found = re.compile("".join(parts), re.DOTALL)
    return lambda one: found.fullmatch(one) is not None
