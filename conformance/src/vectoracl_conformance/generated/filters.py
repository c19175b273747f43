"""Filters drawn from the rows of the world: a leaf of every node and field, and the shapes in which they are joined."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectoracl.errors import VectorACLError
from vectoracl.filters.predicate import (
    ALWAYS,
    MAX_EXACT_INT,
    MAX_KEYWORD_BYTES,
    NEVER,
    Always,
    And,
    ContainsAny,
    Eq,
    In,
    Missing,
    Never,
    Not,
    Or,
    Predicate,
    Range,
    Scalar,
    StartsWith,
)
from vectoracl.filters.semantics import compile_test
from vectoracl.model.identifiers import check_text
from vectoracl.model.records import DEFAULT_LABEL, NEVER_EXPIRES, Chunk, Tag
from vectoracl_conformance.generated.confusions import keys_of
from vectoracl_conformance.generated.values import HOSTILE, Draw, alike

Mask = NDArray[np.bool_]
Pick = Callable[[], Predicate]
WRITER = "import"
"""The id of the principal that writes most of the world."""
_OTHERS = {0: ("Import", "upsert"), 1: ("import-admin", "load"), 2: ("import2", "upsert")}
"""Those that write the rest, each by one method: their ids differ in case, or one is the beginning of another."""
_SHARE = 16
_CLOSE = 0.5
"""How often a value is drawn next to which rows have one that a store may take for it."""
_ODD = 0.25
"""How often an empty, long or other than ASCII text is drawn."""
_SAME_FORM = 0.5
"""How often a whole number of a filter has the type, int or float, that it has in the rows."""
_LATER = 2e9
"""A time after that of any write of a run."""


def written_by(chunk: Chunk) -> tuple[str, str]:
    """Return the id of the principal that writes a chunk of the world, and the method by which it does."""
    return _OTHERS.get(zlib.crc32(f"{chunk.document} {chunk.id}".encode()) % _SHARE, (WRITER, "upsert"))


class Rows:
    """The rows of one tenant, against which filters are drawn and evaluated; *written* says who writes each."""

    def __init__(
        self,
        tenant: str,
        chunks: Sequence[Chunk],
        roles: Mapping[str, str],
        others: Rows | None = None,
        name: str = "",
        written: Callable[[Chunk], tuple[str, str]] = written_by,
    ) -> None:
        self.name = name or tenant
        self.written = written
        self.tenant = tenant
        self.chunks = tuple(chunks)
        self.roles = roles
        self.others = others
        self._masks: dict[int, tuple[Predicate, Mask]] = {}
        self._held: dict[str, list[Any]] = {}
        self._distinct: dict[str, list[Any]] = {}
        self._odd: dict[str, list[Any]] = {}
        self._columns: dict[str, list[Any]] = {}
        self._close: dict[str, list[list[Any]]] = {}
        self._values: dict[str, list[Any]] = {}
        self._indexes: dict[tuple[str, str], dict[Any, list[Any]]] = {}

    @cached_property
    def tags(self) -> list[Tag]:
        """The tags, with what is known of them before the rows are written."""
        return [self._tag(one, *self.written(one)) for one in self.chunks]

    def _tag(self, one: Chunk, producer: str, path: str) -> Tag:
        expires = NEVER_EXPIRES
        return Tag(
            self.tenant, one.document, one.id, 0, DEFAULT_LABEL, 0, expires, producer, path, _LATER, one.position
        )

    def held(self, role: str) -> list[Any]:
        """Return the values of a field or of "@document" or "@chunk"; those of other tenants if there are none here."""
        if role not in self._held:
            self._held[role] = self._read(role)
        return self._held[role]

    def distinct(self, role: str) -> list[Any]:
        """Return the different values of `held`; of lists those of their elements."""
        if role not in self._distinct:
            values = [one for value in self.held(role) for one in (value if isinstance(value, list) else [value])]
            self._distinct[role] = _scalars(values)
        return self._distinct[role]

    def close(self, role: str) -> list[list[Any]]:
        """Return the groups of different values that a store may take for one another."""
        if role not in self._close:
            groups: dict[Any, list[Any]] = {}
            for value in self.distinct(role):
                groups.setdefault(alike(value), []).append(value)
            self._close[role] = [some for some in groups.values() if len(some) > 1 and not isinstance(some[0], bool)]
        return self._close[role]

    def odd(self, role: str) -> list[Any]:
        """Return the different texts that are empty, long, or not ASCII."""
        if role not in self._odd:
            texts = [one for one in self.distinct(role) if isinstance(one, str)]
            self._odd[role] = [one for one in texts if not one or len(one) > 64 or not one.isascii()]
        return self._odd[role]

    def _read(self, role: str) -> list[Any]:
        if role == "@document":
            values: list[Any] = [one.document for one in self.chunks]
        elif role == "@chunk":
            values = [one.id for one in self.chunks]
        elif role == "@position":
            values = [one.position for one in self.chunks]
        else:
            name = self.roles[role]
            values = [one.metadata[name] for one in self.chunks if name in one.metadata]
        return values or ([] if self.others is None else self.others.held(role))

    def mask(self, predicate: Predicate) -> Mask:
        """Return which rows match, by the reference meaning."""
        known = self._masks.get(id(predicate))
        if known is not None:
            return known[1]
        match predicate:
            case Always():
                return np.ones(len(self.chunks), bool)
            case Never():
                return np.zeros(len(self.chunks), bool)
            case And(operands):
                return self._joined(operands, np.logical_and)
            case Or(operands):
                return self._joined(operands, np.logical_or)
            case Not(operand):
                return ~self.mask(operand)
            case In(name, members) if all(type(one) is str for one in members):  # lists are long, and this is fast
                among = frozenset(members)
                values = [type(one) is str and one in among for one in self._column(name)]
            case Eq(name, str(value)):
                values = [type(one) is str and one == value for one in self._column(name)]
            case _:
                test = compile_test(predicate)
                values = [test(tag, one.metadata) for tag, one in zip(self.tags, self.chunks, strict=True)]
        mask = np.array(values, bool)
        self._masks[id(predicate)] = (predicate, mask)
        return mask

    def values(self, name: str) -> Sequence[Any]:
        """Return the different values of the field *name*; of lists those of their elements."""
        if name not in self._values:
            held = [one for one in self._column(name) if one is not None]
            flat = [one for value in held for one in (value if isinstance(value, list) else [value])]
            self._values[name] = _scalars([one for one in flat if isinstance(one, str | int | float | datetime)])
        return self._values[name]

    def index(self, name: str, key: str) -> Mapping[Any, Sequence[Any]]:
        """Return the values of `values` by what a store may compare in their place; see `confusions.keys_of`."""
        if (name, key) not in self._indexes:
            index: dict[Any, list[Any]] = {}
            for one in self.values(name):
                make = keys_of(type(one)).get(key)
                if make is not None:
                    index.setdefault(make(one), []).append(one)
            self._indexes[name, key] = index
        return self._indexes[name, key]

    def keep(self, predicate: Predicate) -> None:
        """Evaluate a composite *predicate* once and for all."""
        self._masks[id(predicate)] = (predicate, self.mask(predicate))

    def _column(self, name: str) -> list[Any]:
        if name not in self._columns:
            if name.startswith("@"):
                self._columns[name] = [getattr(tag, name[1:]) for tag in self.tags]
            else:
                self._columns[name] = [one.metadata.get(name) for one in self.chunks]
        return self._columns[name]

    def _joined(self, operands: Sequence[Predicate], join: Callable[[Mask, Mask], Mask]) -> Mask:
        mask = self.mask(operands[0])
        for one in operands[1:]:
            mask = join(mask, self.mask(one))
        return mask


@dataclass(frozen=True)
class Leaf:
    """One kind of a leaf: a node over a kind of field.

    Attributes:
        node: The node.
        make: Draws one; None if the rows have nothing to draw it from.
        policy: Whether only a policy may use it.
        alone: Whether it matches no row, so that it hides what else a call does.
        fields: The fields of the tag that it uses.
    """

    node: type[Predicate]
    make: Callable[[Rows, Draw], Predicate | None]
    policy: bool = False
    alone: bool = False
    fields: tuple[str, ...] = ()


def _scalars(values: Sequence[Any]) -> list[Any]:
    """Return the distinct values by type."""
    return list({(type(one), one): one for one in values}.values())


def _fitting(value: object) -> bool:
    try:
        check_text(value, "value", MAX_KEYWORD_BYTES)
    except VectorACLError:
        return False
    return True


def _either_form(value: Any, draw: Draw) -> Any:
    """Return a whole number as an int or as a float, which are equal; anything else as it is."""
    whole = type(value) is int or (type(value) is float and value.is_integer())
    if not whole or abs(value) > MAX_EXACT_INT or draw.py.random() < _SAME_FORM:
        return value
    return float(value) if type(value) is int else int(value)


def _eq(*roles: str) -> Callable[[Rows, Draw], Predicate | None]:
    def make(rows: Rows, draw: Draw) -> Predicate | None:
        role = draw.py.choice(roles)
        values = rows.held(role)
        close, odd = rows.close(role), rows.odd(role)
        if odd and draw.py.random() < _ODD:
            return Eq(_name(rows, role), draw.py.choice(odd))
        if close and draw.py.random() < _CLOSE:
            return Eq(_name(rows, role), _either_form(draw.py.choice(draw.py.choice(close)), draw))
        return Eq(_name(rows, role), _either_form(draw.py.choice(values), draw)) if values else None

    return make


def _name(rows: Rows, role: str) -> str:
    return role if role.startswith("@") else rows.roles[role]


def _listed(node: type[In] | type[ContainsAny], count: int, *roles: str) -> Callable[[Rows, Draw], Predicate | None]:
    """Draw a list of *count* values: own ones at the first, the last and every place in between, the rest foreign."""

    def make(rows: Rows, draw: Draw) -> Predicate | None:
        role = draw.py.choice(roles)
        values = rows.distinct(role)
        if not values:
            return None
        own = draw.some(values, max(1, min(count, (len(values) + 1) // 2)))
        close = rows.close(role)
        if count < 10 and len(close) >= count and draw.py.random() < _CLOSE:
            own = [draw.py.choice(some) for some in draw.some(close, count)]
        own = [_either_form(one, draw) for one in own]
        if len(own) >= count:
            return node(_name(rows, role), tuple(own[:count]))
        known = {(type(one), one) for one in own}
        foreign = [] if rows.others is None else draw.some(rows.others.distinct(role), count)
        filler = [one for one in foreign if (type(one), one) not in known]
        stems = [draw.word(3, 5) for _ in range(20)]
        while len(filler) < count - len(own):
            filler.append(_other(values[0], stems, len(filler)))
        places = set(np.linspace(0, count - 1, len(own)).round().astype(int).tolist())
        sequence = [own.pop() if place in places and own else filler.pop() for place in range(count)]
        return node(_name(rows, role), tuple(_scalars(sequence)))

    return make


def _other(like: object, stems: Sequence[str], place: int) -> Any:
    """Return a value of the type of *like* that no row has."""
    if isinstance(like, str):
        return f"{stems[place % len(stems)]}{place}"
    if isinstance(like, datetime):
        return like.replace(microsecond=0, year=1980 + place % 40, second=place % 60)
    return 10**6 + place if not isinstance(like, bool) else like


def _range(role: str, *sides: str) -> Callable[[Rows, Draw], Predicate | None]:
    def make(rows: Rows, draw: Draw) -> Predicate | None:
        values = sorted(rows.distinct(role))
        if not values:
            return None
        close = rows.close(role)
        if len(sides) == 1 and draw.py.random() < _CLOSE:
            zero = not isinstance(values[0], datetime) and values[0] < 0 < values[-1] and draw.py.random() < _CLOSE
            if zero or close:
                value = _either_form(0 if zero else draw.py.choice(draw.py.choice(close)), draw)
                return Range(_name(rows, role), **{draw.py.choice(("gt", "gte", "lt", "lte")): value})
        if len(sides) == 2:
            low = draw.py.randrange(max(1, (len(values) + 1) // 2))
            high = draw.py.randrange(low, len(values))
            return Range(_name(rows, role), **{sides[0]: values[low], sides[1]: values[high]})
        middle = values[draw.py.randrange(len(values) // 4, max(len(values) // 4 + 1, 3 * len(values) // 4))]
        return Range(_name(rows, role), **{sides[0]: _either_form(middle, draw)})

    return make


def _starts(*roles: str) -> Callable[[Rows, Draw], Predicate | None]:
    def make(rows: Rows, draw: Draw) -> Predicate | None:
        role = draw.py.choice(roles)
        values = [one for one in rows.held(role) if one]
        if not values:
            return None
        value = draw.py.choice(values)
        close = [one for some in rows.close(role) for one in some if one] if draw.py.random() < _CLOSE else []
        if close:
            value = draw.py.choice(close)
        odd = [one for one in rows.odd(role) if one]
        if odd and draw.py.random() < _ODD:
            value = draw.py.choice(odd)
            return StartsWith(_name(rows, role), value[: max(1, len(value) - 1)])
        return StartsWith(_name(rows, role), value[: draw.py.choice((1, 2, 3, max(1, len(value) - 1), len(value)))])

    return make


def _missing(rows: Rows, draw: Draw) -> Predicate | None:
    return Missing(rows.roles[draw.py.choice(sorted(rows.roles))])


def _docgen(count: int) -> Callable[[Rows, Draw], Predicate | None]:
    def make(rows: Rows, draw: Draw) -> Predicate | None:
        documents = rows.distinct("@document")
        if not documents:
            return None
        # Every generated world is in generation 0 of its documents until something is replaced.
        names = [f"{len(one)}:{one}:0" for one in draw.some(documents, max(1, min(count, (len(documents) + 1) // 2)))]
        if count == 1:
            return Eq("@docgen", names[0])
        return In("@docgen", tuple(dict.fromkeys([*names, *(f"{len(one)}:{one}:1" for one in documents)]))[:count])

    return make


def _label(rows: Rows, draw: Draw) -> Predicate | None:
    del rows
    others = tuple(draw.word() for _ in range(3))
    wrong = draw.py.choice((DEFAULT_LABEL.upper(), DEFAULT_LABEL.capitalize(), f"{DEFAULT_LABEL} ", DEFAULT_LABEL[:-1]))
    right: tuple[Predicate, ...] = (Eq("@label", DEFAULT_LABEL), In("@label", (*others, DEFAULT_LABEL)))
    return draw.py.choice((*right, Not(Eq("@label", wrong)), Not(In("@label", (wrong, *others)))))


def _expires(rows: Rows, draw: Draw) -> Predicate | None:
    del rows
    now = 1_700_000_000 + draw.py.randrange(10**8)
    return draw.py.choice((Range("@expires", gt=now), Range("@expires", gte=NEVER_EXPIRES)))


def _of(name: str, right: Scalar, among: tuple[Scalar, ...], wrong: Scalar) -> Callable[[Rows, Draw], Predicate | None]:
    """Draw a filter on a field that is the same in most rows: one that they match, or one that they do not."""

    def make(rows: Rows, draw: Draw) -> Predicate | None:
        del rows
        return draw.py.choice((Eq(name, right), In(name, among), Not(Eq(name, wrong)), Not(Eq(name, right))))

    return make


def _producer(rows: Rows, draw: Draw) -> Predicate | None:
    """Draw a filter on the writers of the rows, or of a tenant, whose ids are alike."""
    names = [name for name, _ in _OTHERS.values()]
    there = sorted({tag.producer for tag in rows.tags}) or [WRITER]
    one, other = draw.py.choice(there), draw.py.choice([*there, *names])
    some = tuple(dict.fromkeys((WRITER, draw.py.choice(names), one[:-1])))
    return draw.py.choice((Eq("@producer", one), In("@producer", some), Not(Eq("@producer", other))))


def _time(rows: Rows, draw: Draw) -> Predicate | None:
    """Draw a filter on the time of writing that all rows match, or one that none does: nothing else is known of it."""
    del rows
    past, future = draw.py.randrange(1_600_000_000), _LATER + draw.py.randrange(1, 10**9)
    all_match = (Range("@time", gt=past), Range("@time", lte=future), Range("@time", gte=past, lt=future))
    none_match = (Range("@time", lt=past), Range("@time", gt=future))
    return draw.py.choice(draw.py.choice((all_match, none_match)))


def _hostile(rows: Rows, draw: Draw) -> Predicate | None:
    """Draw a value that is a pattern, SQL or JSON elsewhere, from the rows or not."""
    name = rows.roles["prose"]
    held = rows.held("prose")
    values = [one for one in (*held, *HOSTILE) if one and _fitting(one)]
    return draw.py.choice(
        (Eq(name, draw.py.choice(values)), In(name, tuple(_scalars(draw.some(values, 4)))), Not(Eq(name, values[0])))
    )


_FIELDS = ("few", "stem", "prose", "code")
LEAVES: Mapping[str, Leaf] = {
    "Always": Leaf(Always, lambda _rows, _draw: ALWAYS),
    "Never": Leaf(Never, lambda _rows, _draw: NEVER, alone=True),
    "Eq keyword": Leaf(Eq, _eq("few", "few", "stem", "prose")),
    "Eq number": Leaf(Eq, _eq("number", "fraction")),
    "Eq boolean": Leaf(Eq, _eq("boolean")),
    "Eq datetime": Leaf(Eq, _eq("datetime")),
    "Eq hostile": Leaf(Eq, _hostile),
    "In keyword 1": Leaf(In, _listed(In, 1, "few", "prose")),
    "In keyword 3": Leaf(In, _listed(In, 3, "few", "stem", "prose")),
    "In keyword 100": Leaf(In, _listed(In, 100, "code")),
    "In keyword 101": Leaf(In, _listed(In, 101, "code")),
    "In keyword 301": Leaf(In, _listed(In, 301, "code")),
    "In keyword 1001": Leaf(In, _listed(In, 1_001, "code")),
    "In keyword 2001": Leaf(In, _listed(In, 2_001, "code")),
    "In number": Leaf(In, _listed(In, 20, "number")),
    "In datetime": Leaf(In, _listed(In, 5, "datetime")),
    "Range number": Leaf(Range, _range("number", "gte")),
    "Range number <": Leaf(Range, _range("fraction", "lt")),
    "Range number two-sided": Leaf(Range, _range("number", "gt", "lte")),
    "Range datetime": Leaf(Range, _range("datetime", "gt")),
    "Range datetime two-sided": Leaf(Range, _range("datetime", "gte", "lt")),
    "ContainsAny keyword": Leaf(ContainsAny, _listed(ContainsAny, 2, "keywords")),
    "ContainsAny number": Leaf(ContainsAny, _listed(ContainsAny, 2, "numbers")),
    "ContainsAny 101": Leaf(ContainsAny, _listed(ContainsAny, 101, "keywords")),
    "StartsWith": Leaf(StartsWith, _starts("stem", "few", "prose")),
    "Missing": Leaf(Missing, _missing),
    "@document": Leaf(Eq, _eq("@document"), fields=("@document",)),
    "@document In": Leaf(In, _listed(In, 30, "@document"), fields=("@document",)),
    "@document StartsWith": Leaf(StartsWith, _starts("@document"), fields=("@document",)),
    "@chunk In": Leaf(In, _listed(In, 101, "@chunk"), fields=("@chunk",)),
    "@position": Leaf(Range, _range("@position", "gte"), fields=("@position",)),
    "@time": Leaf(Range, _time, fields=("@time",)),
    "@docgen": Leaf(Eq, _docgen(1), policy=True, fields=("@docgen",)),
    "@docgen In": Leaf(In, _docgen(60), policy=True, fields=("@docgen",)),
    "@label": Leaf(Eq, _label, policy=True, fields=("@label",)),
    "@expires": Leaf(Range, _expires, policy=True, fields=("@expires",)),
    "@path": Leaf(In, _of("@path", "upsert", ("load", "upsert"), "load"), policy=True, fields=("@path",)),
    "@rev": Leaf(Eq, _of("@rev", 0, (1, 0), 1), policy=True, fields=("@rev",)),
    "@generation": Leaf(Eq, _of("@generation", 0, (2, 0), 1), policy=True, fields=("@generation",)),
    "@producer": Leaf(Eq, _producer, policy=True, fields=("@producer",)),
    "Eq code": Leaf(Eq, _eq("code")),
}
"""The leaves, by the names of their levels."""


@dataclass(frozen=True)
class Shape:
    """A way to join a leaf with others; `nodes` are those that it needs in addition to that of the leaf."""

    nodes: frozenset[type[Predicate]]
    make: Callable[[Predicate, Callable[[], Predicate]], Predicate]


def _halves(leaf: Predicate, other: Callable[[], Predicate]) -> Predicate:
    """Split a list of values over both sides of an "or", as one may where a store has a limit."""
    if isinstance(leaf, In) and len(leaf.values) > 1:
        return _split(leaf)
    return Or((other(), leaf))


@lru_cache(4_096)
def _split(leaf: In) -> Predicate:
    middle = 100 if len(leaf.values) > 100 else len(leaf.values) // 2
    return Or((In(leaf.field, leaf.values[:middle]), In(leaf.field, leaf.values[middle:])))


def _deepest(leaf: Predicate, other: Callable[[], Predicate]) -> Predicate:
    """Nest *leaf* in 16 levels of "and" and "or"; it counts where the first of two others does not match."""
    first, second = other(), other()
    joined = leaf
    for _ in range(8):
        joined = Or((And((joined, Not(first))), And((first, second))))
    return joined


SHAPES: Mapping[str, Shape] = {
    "leaf": Shape(frozenset(), lambda leaf, _: leaf),
    "Not": Shape(frozenset({Not}), lambda leaf, _: Not(leaf)),
    "And": Shape(frozenset({And, Not}), lambda leaf, other: And((leaf, Not(other())))),
    "Or": Shape(frozenset({Or}), lambda leaf, other: Or((leaf, other()))),
    "Or in And": Shape(frozenset({And, Or, Not}), lambda leaf, other: And((Not(other()), Or((other(), leaf))))),
    "Not of And": Shape(frozenset({Not, And}), lambda leaf, other: Not(And((leaf, Not(other()))))),
    "Not of Or": Shape(frozenset({Not, Or}), lambda leaf, other: Not(Or((leaf, other())))),
    "Or of halves": Shape(frozenset({Or}), _halves),
    "deepest": Shape(frozenset({And, Or, Not}), _deepest),
    "deep": Shape(
        frozenset({And, Or, Not}),
        lambda leaf, other: Or((And((Not(leaf), other())), And((leaf, Not(And((other(), Or((leaf, other()))))))))),
    ),
}
"""The shapes, by the names of their levels."""


def _negated(many: Sequence[Predicate]) -> tuple[Predicate, ...]:
    return tuple(map(Not, many))


def _wide(leaf: Predicate, other: Pick, single: Pick) -> Predicate:
    """Join *leaf* with more than 130 parts."""
    groups = tuple(And((single(), Not(single()))) for _ in range(32))
    return And((Or((*groups, leaf, single())), Or((leaf, Not(other()), single()))))


def _tree(leaf: Predicate, other: Pick, single: Pick) -> Predicate:
    """Join *leaf* with others to a tree of two or three levels; what has been drawn decides its form."""
    first, second = other(), other()
    # What was drawn is the source of the form: a maker has no other one.
    form = zlib.crc32(repr((first, second)).encode())
    inner = (leaf, first) if form & 1 else (first, leaf)
    join, outer = (Or, And) if form & 2 else (And, Or)
    made: Predicate = join((*inner, single())) if form & 4 else join(inner)
    made = Not(made) if form & 8 else made
    more: tuple[Predicate, ...] = (second,) if form & 16 else (Not(second), single())
    made = outer((made, *more)) if form & 32 else outer((*more, made))
    if form & 64:
        last = other()
        made = join((last, made)) if form & 128 else join((made, last))
    return made


@dataclass(frozen=True)
class Variant:
    """Another way to make a shape: `single` draws a leaf that one row or none matches.

    With `alike`, the others are over the field of the leaf if possible: a store that keeps one condition a field loses
    some of them.
    """

    nodes: frozenset[type[Predicate]]
    make: Callable[[Predicate, Pick, Pick], Predicate]
    alike: bool = False


_ALL = frozenset({And, Or, Not})
VARIANTS: Mapping[str, tuple[Variant, ...]] = {
    "Not": (
        Variant(frozenset({Not, And}), lambda leaf, other, _: Not(And((leaf, other())))),
        Variant(frozenset({Not, Or}), lambda leaf, other, _: Not(Or((leaf, other())))),
        Variant(frozenset({Not, And}), lambda leaf, other, _: Not(And((leaf, other()))), alike=True),
    ),
    "And": (
        Variant(frozenset({And}), lambda leaf, other, _: And((leaf, other())), alike=True),
        Variant(frozenset({And, Not}), lambda leaf, other, _: And((leaf, Not(other()))), alike=True),
        Variant(frozenset({And, Not}), lambda leaf, _, single: And((leaf, *_negated([single() for _ in range(9)])))),
        Variant(frozenset({And, Not}), lambda leaf, _, single: And((*_negated([single() for _ in range(12)]), leaf))),
        Variant(_ALL, lambda leaf, other, single: And((Not(Or((single(), Not(leaf)))), Not(And((other(), other())))))),
        Variant(frozenset({And}), lambda leaf, other, _: And((leaf, other()))),
    ),
    "Or": (
        Variant(frozenset({Or}), lambda leaf, other, _: Or((other(), other(), leaf))),
        Variant(frozenset({Or}), lambda leaf, other, single: Or((single(), leaf, single(), other()))),
        Variant(frozenset({Or}), lambda leaf, _, single: Or((leaf, *(single() for _ in range(24))))),
        Variant(frozenset({Or}), lambda leaf, _, single: Or((*(single() for _ in range(21)), leaf))),
    ),
    "Or in And": (
        Variant(_ALL, lambda leaf, other, _: And((Not(And((other(), other()))), leaf))),
        Variant(_ALL, lambda leaf, other, single: And((Not(Or((other(), single()))), Or((single(), leaf))))),
        Variant(_ALL, lambda leaf, other, single: Or((single(), And((leaf, other())))), alike=True),
        Variant(_ALL, _tree),
        Variant(_ALL, _tree),
    ),
    "Not of And": (
        Variant(frozenset({Not, And}), lambda leaf, other, _: Not(And((leaf, other())))),
        Variant(_ALL, lambda leaf, other, single: Not(_tree(leaf, other, single))),
    ),
    "Not of Or": (
        Variant(frozenset({Not, Or, And}), lambda leaf, other, _: And((Not(Or((leaf, other()))), Not(other())))),
        Variant(frozenset({Not, Or}), lambda leaf, other, single: Not(Or((single(), other(), single(), leaf)))),
    ),
    "deep": (Variant(_ALL, _wide), Variant(_ALL, _tree)),
    "deepest": (Variant(_ALL, _wide),),
}
"""Other ways to make some of the shapes, which take turns with theirs."""
_MOST_PARTS = 8
_FEW = 10
"""Of filters of fewer rows it is enough that some match and some do not."""


def arranged(predicate: Predicate, rng: random.Random) -> Predicate:
    """Return *predicate* with the operands of each "and" and "or" in a drawn order, which changes no meaning."""
    match predicate:
        case Not(operand):
            return Not(arranged(operand, rng))
        case And(operands) | Or(operands):
            return type(predicate)(tuple(arranged(one, rng) for one in rng.sample(operands, len(operands))))
    return predicate


def _loose(predicate: And | Or) -> Predicate | None:
    """Return what *predicate* becomes without the parentheses around one of its parts; None if it has none.

    "And" binds more strongly than "or", as in SQL; where a store has no such rule, parts are joined from the left.
    """
    other = Or if isinstance(predicate, And) else And
    for place, one in enumerate(predicate.operands):
        if isinstance(one, other):
            before, after = predicate.operands[:place], predicate.operands[place + 1 :]
            left = _join(type(predicate), (*before, one.operands[0]))
            right = _join(type(predicate), (one.operands[-1], *after))
            return other((left, *one.operands[1:-1], right))
    return None


def weakened(predicate: Predicate) -> Iterator[Predicate]:
    """Yield what a composite *predicate* becomes where a store loses one part of it or joins the parts wrongly."""
    match predicate:
        case Not(And(operands) as inner):
            yield And(_negated(operands))
            yield And((Not(operands[0]), *operands[1:]))
            yield from (Not(one) for one in weakened(inner))
        case Not(Or(operands) as inner):
            yield Or(_negated(operands))
            yield Or((Not(operands[0]), *operands[1:]))
            yield from (Not(one) for one in weakened(inner))
        case And(operands) | Or(operands):
            node = type(predicate)
            yield _join(node, operands[:-1])
            yield _join(node, operands[1:])
            if (loose := _loose(predicate)) is not None:
                yield loose
            if len(operands) > 8:
                yield _join(node, operands[:8])
                return
            for place, one in enumerate(operands[:3]):
                yield from (_join(node, (*operands[:place], weak, *operands[place + 1 :])) for weak in weakened(one))


def misread(predicate: Predicate) -> Iterator[Predicate]:
    """Yield what a store may take *predicate* for: nothing, without one of its parts, or with one half of a list."""
    yield ALWAYS
    yield from islice(weakened(predicate), _MOST_PARTS)
    yield from _halved(predicate)


def _halved(predicate: Predicate) -> Iterator[Predicate]:
    """Yield *predicate* with the first or the last half of one of its lists."""
    match predicate:
        case (In(_, values) | ContainsAny(_, values)) as node if len(values) > 1:
            middle = len(values) // 2
            yield replace(node, values=values[:middle])
            yield replace(node, values=values[middle:])
        case Not(operand):
            yield from map(Not, _halved(operand))
        case And(operands) | Or(operands) if len(operands) <= 8:
            for place, one in enumerate(operands):
                for half in _halved(one):
                    yield type(predicate)((*operands[:place], half, *operands[place + 1 :]))


def with_other_end(predicate: Predicate, rows: Rows, draw: Draw) -> Predicate | None:
    """Return *predicate* with another last part or value, as far behind as possible; None if *rows* cannot tell them.

    A store that keeps answers by the beginning of a scope, its fields or its nodes takes one for the other.
    """
    for _ in range(_MOST_PARTS):
        other = _other_end(predicate, rows, draw)
        if other is not None and other != predicate and (rows.mask(other) != rows.mask(predicate)).any():
            return other
    return None


def _other_end(predicate: Predicate, rows: Rows, draw: Draw) -> Predicate | None:
    match predicate:
        case Not(operand):
            inner = _other_end(operand, rows, draw)
            return None if inner is None else Not(inner)
        case And(operands) | Or(operands):
            last = _other_end(operands[-1], rows, draw)
            return None if last is None else type(predicate)((*operands[:-1], last))
        case (In(_, values) | ContainsAny(_, values)) as node if len(values) > 1:
            return replace(node, values=values[: len(values) - draw.py.randint(1, len(values) // 2)])
        case Eq(name, value):
            alike = [one for one in rows.values(name) if type(one) is type(value)]
            return Eq(name, draw.py.choice(alike)) if alike else None
        case StartsWith(name, prefix) if len(prefix) > 1:
            return StartsWith(name, prefix[:-1])
        case Range() as node:
            return _other_bound(node, rows, draw)
    return None


def _other_bound(node: Range, rows: Rows, draw: Draw) -> Predicate | None:
    side = next(one for one in ("lte", "lt", "gte", "gt") if getattr(node, one) is not None)
    kind = datetime if isinstance(getattr(node, side), datetime) else (int, float)
    fit = [one for one in rows.values(node.field) if isinstance(one, kind)]
    changed: dict[str, Any] = {side: draw.py.choice(fit)} if fit else {}
    return replace(node, **changed) if fit else None


def _join(node: type[And] | type[Or], operands: Sequence[Predicate]) -> Predicate:
    return operands[0] if len(operands) == 1 else node(tuple(operands))


def telling(predicate: Predicate, rows: Rows) -> float:
    """Return the share of the parts of *predicate* whose loss changes which of *rows* match; -1 if none or all do."""
    mask = rows.mask(predicate)
    if not mask.any() or mask.all():
        return -1.0
    if len(mask) < _FEW:
        return 1.0
    parts = [weak for weak, _ in zip(weakened(predicate), range(_MOST_PARTS), strict=False)]
    return sum(bool((rows.mask(one) != mask).any()) for one in parts) / len(parts) if parts else 1.0
