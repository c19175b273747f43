"""The closed algebra of filters, with one meaning.

`matches` in `semantics.py` is that meaning; every adapter has to agree with it on every row. A missing attribute makes
every comparison false (also `!=`), except "is missing". What an adapter cannot say exactly it refuses.

Fields without a prefix are the user's metadata. Fields that begin with "@" belong to the framework's tag
(`@document`, `@label`, …); a caller may filter by few of them, see `field_types.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn, assert_never, cast, get_args

from vectoracl.errors import InvalidInputError, UnsupportedPredicateError
from vectoracl.filters.datetimes import utc
from vectoracl.filters.field_types import FieldType
from vectoracl.model.identifiers import check_text, plain
from vectoracl.model.values import instead, native

Scalar = str | int | float | bool | datetime
MAX_DEPTH = 32
MAX_VALUES = 10_000
MAX_KEYWORD_BYTES = 1024
MAX_EXACT_INT = 1 << 53  # a store that keeps doubles holds no larger integer exactly


def scalar(value: object, where: str = "The value of a filter") -> Scalar:
    """Return *value* as a scalar that every store holds exactly.

    Strings without NUL and up to 1,024 bytes, integers up to ±2**53, finite floats, booleans, aware datetimes
    (returned in UTC), and NumPy's scalars of these kinds (see `native`).

    Raises: InvalidInputError, which says what to write instead.
    """
    value = native(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(value, where, MAX_KEYWORD_BYTES)
    # The conversions are those of the base types: a subclass could compare, add or print as something else.
    if isinstance(value, int):
        whole = int.__int__(value)
        if abs(whole) > MAX_EXACT_INT:
            raise InvalidInputError(f"{where} is an integer beyond ±2**53, which not every store holds exactly.")
        return whole
    if isinstance(value, float):
        number = float.__float__(value)
        if not math.isfinite(number):
            raise InvalidInputError(f"{where} is not a finite number.")
        return number + 0.0  # -0.0 becomes 0.0
    if isinstance(value, datetime):
        return utc(value, where)
    if value is None:
        raise InvalidInputError(f"{where} is None. To ask for rows without the field write F.name.is_missing().")
    raise InvalidInputError(f"{where} has the type {type(value).__name__}; {instead(value)}.")


class Predicate:
    """One filter. Combine with `&`, `|` and `~`; `and`, `or`, `not` raise, since Python would drop a side."""

    __slots__ = ()

    @property
    def depth(self) -> int:
        """How deep the nesting is; 1 for a leaf, 32 at the most."""
        return 1

    def __and__(self, other: object) -> Predicate:
        return conjunction((self, _operand(other)))

    def __or__(self, other: object) -> Predicate:
        return disjunction((self, _operand(other)))

    def __invert__(self) -> Predicate:
        match self:
            case Not(operand=inner):
                return inner
            case Always():
                return NEVER
            case Never():
                return ALWAYS
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise InvalidInputError(
            "A filter has no truth value: use & for and, | for or, ~ for not, and (F.x > 1) & (F.x < 5) "
            "instead of a chained comparison."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, for example {"and": [{"field": "year", "op": "gte", "value": 2020}]}."""
        from vectoracl.filters.json_form import to_dict

        return to_dict(self)

    @staticmethod
    def from_dict(data: object) -> Predicate:
        """Read the JSON form. There is no implicit "and" and an empty object is an error.

        Raises: InvalidInputError with the place that is wrong.
        """
        from vectoracl.filters.json_form import from_dict

        return from_dict(data)

    @staticmethod
    def json_schema(fields: Mapping[str, FieldType]) -> dict[str, Any]:
        """Return the JSON schema (2020-12) of the JSON form over *fields*, for an API or for a model's tool."""
        from vectoracl.filters.json_form import json_schema

        return json_schema(fields)


@dataclass(frozen=True, slots=True)
class Never(Predicate):
    """No row."""


@dataclass(frozen=True, slots=True)
class Always(Predicate):
    """Every row of the partition. As a caller's filter it means "no further condition"."""


@dataclass(frozen=True, slots=True)
class Eq(Predicate):
    """The field is present and equals the value, type included (True is not 1)."""

    field: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class In(Predicate):
    """The field is present and equals one of the values; never empty (that is `Never`)."""

    field: str
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _some(self.values))


@dataclass(frozen=True, slots=True)
class Range(Predicate):
    """The field is present and within the bounds (numbers and datetimes); at least one bound is given."""

    field: str
    gt: int | float | datetime | None = None
    gte: int | float | datetime | None = None
    lt: int | float | datetime | None = None
    lte: int | float | datetime | None = None

    def __post_init__(self) -> None:
        if all(bound is None for bound in (self.gt, self.gte, self.lt, self.lte)):
            raise InvalidInputError("A range needs at least one bound.")

    @property
    def depth(self) -> int:
        """How deep the JSON form is: two bounds are an "and" of two comparisons."""
        return 1 if sum(bound is not None for bound in (self.gt, self.gte, self.lt, self.lte)) == 1 else 2


@dataclass(frozen=True, slots=True)
class ContainsAny(Predicate):
    """The list field is present and has at least one of the values; never empty (that is `Never`)."""

    field: str
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _some(self.values))


@dataclass(frozen=True, slots=True)
class StartsWith(Predicate):
    """The field is present, and its text begins with the prefix, code point by code point; the prefix is not empty."""

    field: str
    prefix: str

    def __post_init__(self) -> None:
        if not self.prefix:
            raise InvalidInputError("Every text begins with the empty prefix; write F.name.exists() instead.")


@dataclass(frozen=True, slots=True)
class Missing(Predicate):
    """The row has no such field."""

    field: str


@dataclass(frozen=True, slots=True)
class _Nested(Predicate):
    _depth: int = field(init=False, repr=False, compare=False)

    @property
    def depth(self) -> int:
        """How deep the nesting is."""
        return self._depth

    def _measure(self, operands: tuple[Predicate, ...]) -> None:
        if not operands:
            raise InvalidInputError("At least one operand is needed: of nothing it would match all or none.")
        depth = 1 + max(_operand(operand).depth for operand in operands)
        if depth > MAX_DEPTH:
            raise InvalidInputError(f"The filter is nested deeper than {MAX_DEPTH} levels; flatten it.")
        object.__setattr__(self, "_depth", depth)


@dataclass(frozen=True, slots=True)
class And(_Nested):
    """Every operand matches; two operands or more. Build it with `&` or `conjunction`."""

    operands: tuple[Predicate, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "operands", tuple(self.operands))
        self._measure(self.operands)


@dataclass(frozen=True, slots=True)
class Or(_Nested):
    """At least one operand matches; two operands or more. Build it with `|` or `disjunction`."""

    operands: tuple[Predicate, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "operands", tuple(self.operands))
        self._measure(self.operands)


@dataclass(frozen=True, slots=True)
class Not(_Nested):
    """The operand does not match: rows without the field of a comparison are among them."""

    operand: Predicate

    def __post_init__(self) -> None:
        self._measure((self.operand,))


NEVER = Never()
ALWAYS = Always()
Leaf = Eq | In | Range | ContainsAny | StartsWith | Missing
"""The nodes that ask something of one field."""
Node = Never | Always | And | Or | Not | Leaf
"""All nodes. The union is closed, so that a type checker reports each match that forgets one of them."""
NODES: tuple[type[Predicate], ...] = get_args(Node)


def node_of(predicate: Predicate) -> Node:
    """Return *predicate* as one of the closed union. Raises: InvalidInputError for a subclass from elsewhere."""
    if type(predicate) not in NODES:
        raise InvalidInputError(f"{type(predicate).__name__} is not a part of the algebra.")
    return cast("Node", predicate)


def operands_of(predicate: Predicate) -> tuple[Predicate, ...]:
    """Return the predicates that *predicate* joins or negates; none for a leaf."""
    node = node_of(predicate)
    match node:
        case And(operands) | Or(operands):
            return operands
        case Not(operand):
            return (operand,)
        case Never() | Always():
            return ()
        case _:
            return () if isinstance(node, Leaf) else assert_never(node)


def _some(values: object) -> tuple[Scalar, ...]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidInputError(f"A list of values is needed, not {type(values).__name__}.")
    scalars = tuple(values)
    if not scalars:
        raise InvalidInputError("A list of at least one value is needed; of none it is NEVER.")
    return scalars


def _operand(value: object) -> Predicate:
    # Exactly the parts of the algebra: a subclass could read differently each time.
    if not isinstance(value, Predicate) or type(value) not in NODES:
        cure = " Compare the field with something, for example F.year >= 2020." if isinstance(value, Field) else ""
        raise InvalidInputError(f"A filter can only be combined with a filter, not {type(value).__name__}.{cure}")
    return value


def check_predicate(value: object, name: str = "where") -> Predicate:
    """Return *value* if it is a predicate. None, {}, a dict or a bare field are errors that carry the cure.

    Raises: InvalidInputError.
    """
    if isinstance(value, Predicate) and type(value) in NODES:
        return value
    cure = {
        "NoneType": "leave the argument out for no further condition",
        "dict": "turn it into a filter with Predicate.from_dict(…)",
        "Field": "compare the field with something, for example F.year >= 2020",
        "bool": "write a comparison of a field, for example F.year >= 2020",
    }.get(type(value).__name__, "write it with F, for example F.year >= 2020")
    raise InvalidInputError(f"{name} must be a filter, not {type(value).__name__}: {cure}.", field=name)


def conjunction(operands: Iterable[Predicate]) -> Predicate:
    """Return the simplest predicate that matches where all *operands* do; of none of them it is `Always`."""
    flat: list[Predicate] = []
    for one in map(_operand, operands):
        if isinstance(one, Never):
            return NEVER
        if isinstance(one, And):
            flat.extend(one.operands)
        elif not isinstance(one, Always):
            flat.append(one)
    if not flat:
        return ALWAYS
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def disjunction(operands: Iterable[Predicate]) -> Predicate:
    """Return the simplest predicate that matches where any of *operands* does; of none of them it is `Never`."""
    flat: list[Predicate] = []
    for one in map(_operand, operands):
        if isinstance(one, Always):
            return ALWAYS
        if isinstance(one, Or):
            flat.extend(one.operands)
        elif not isinstance(one, Never):
            flat.append(one)
    if not flat:
        return NEVER
    return flat[0] if len(flat) == 1 else Or(tuple(flat))


def _values(values: object) -> tuple[Scalar, ...]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidInputError(f"A list of values is needed, not {type(values).__name__}.")
    keys: dict[tuple[type, Scalar], None] = {}
    for item in values:
        one = scalar(item)
        keys[type(one), one] = None
        if len(keys) > MAX_VALUES:
            raise InvalidInputError(f"A filter holds at most {MAX_VALUES:,} values; this one has more.")
    return tuple(value for _, value in keys)


def _bound(value: object) -> int | float | datetime:
    bound = scalar(value)
    if isinstance(bound, bool | str):
        raise UnsupportedPredicateError("Only numbers and datetimes have an order; strings and booleans do not.")
    return bound


class Field:
    """A named field of the metadata; comparing it makes a predicate."""

    __slots__ = ("name",)
    __hash__ = None  # type: ignore[assignment]  # == makes a filter, so a field must not be a key

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not len(plain(name)):
            raise InvalidInputError("The name of a field must be a non-empty string.")
        self.name = check_text(name, "The name of a field", 256)

    def __repr__(self) -> str:
        return f"F[{self.name!r}]"

    def __bool__(self) -> NoReturn:
        raise InvalidInputError(f"F.{self.name} has no truth value: compare it, for example F.{self.name} == 1.")

    def _present(self) -> Predicate:
        """Return the condition that a row has the field; every row has those of the tag."""
        return ALWAYS if self.name.startswith("@") else Not(Missing(self.name))

    def __eq__(self, value: object) -> Predicate:  # type: ignore[override]
        return Eq(self.name, scalar(value))

    def __ne__(self, value: object) -> Predicate:  # type: ignore[override]
        return conjunction((self._present(), Not(Eq(self.name, scalar(value)))))

    def __lt__(self, value: object) -> Predicate:
        return Range(self.name, lt=_bound(value))

    def __le__(self, value: object) -> Predicate:
        return Range(self.name, lte=_bound(value))

    def __gt__(self, value: object) -> Predicate:
        return Range(self.name, gt=_bound(value))

    def __ge__(self, value: object) -> Predicate:
        return Range(self.name, gte=_bound(value))

    def in_(self, values: Iterable[Scalar]) -> Predicate:
        """Match rows whose field equals one of *values*; an empty list matches nothing."""
        scalars = _values(values)
        return In(self.name, scalars) if scalars else NEVER

    def not_in(self, values: Iterable[Scalar]) -> Predicate:
        """Match rows that have the field and whose value is none of *values*."""
        return conjunction((self._present(), ~self.in_(values)))

    def contains(self, value: Scalar) -> Predicate:
        """Match rows whose list has *value*."""
        return ContainsAny(self.name, (scalar(value),))

    def contains_any(self, values: Iterable[Scalar]) -> Predicate:
        """Match rows whose list has at least one of *values*; an empty list matches nothing."""
        scalars = _values(values)
        return ContainsAny(self.name, scalars) if scalars else NEVER

    def contains_all(self, values: Iterable[Scalar]) -> Predicate:
        """Match rows whose list has all of *values*. Raises: InvalidInputError if *values* is empty."""
        scalars = _values(values)
        if not scalars:
            raise InvalidInputError("contains_all of nothing would match every row; leave the condition out instead.")
        return conjunction(ContainsAny(self.name, (value,)) for value in scalars)

    def starts_with(self, prefix: str) -> Predicate:
        """Match rows whose text begins with *prefix*: case, accents and all. Raises: InvalidInputError."""
        if not isinstance(prefix, str):
            raise InvalidInputError(f"A prefix is a str, not {type(prefix).__name__}.")
        return StartsWith(self.name, check_text(prefix, "A prefix", MAX_KEYWORD_BYTES))

    def is_missing(self) -> Predicate:
        """Match rows that do not have the field."""
        return Missing(self.name)

    def exists(self) -> Predicate:
        """Match rows that have the field."""
        return Not(Missing(self.name))


class _Fields:
    """`F.year` and `F["any name"]` name a field of the metadata."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Field:
        if name.startswith("__"):
            raise AttributeError(name)
        return Field(name)

    def __getitem__(self, name: str) -> Field:
        return Field(name)

    def __repr__(self) -> str:
        return "F"


F = _Fields()
