"""The plans: for every operation of a handle, calls that cover each pair of levels of its arguments and of its scope.

The arguments are those of the public methods, read from their signatures, and the nodes, kinds of queries and tag
fields are those of the library. Each has its levels in a table here. One that has none raises `NoLevelsError`, so that
nothing new stays uncovered without being noticed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, get_args

import numpy as np

from vectoracl import ScopedRetriever
from vectoracl.adapter_api.contract import Capabilities
from vectoracl.filters.predicate import ALWAYS, Predicate
from vectoracl.model.queries import MAX_QUERY_WORDS, Hybrid, Lexical, Like, Query
from vectoracl.model.records import Chunk, Vector
from vectoracl_conformance.generated.calls import ACTIONS, Call
from vectoracl_conformance.generated.covering import (
    Coverage,
    Pair,
    Parameter,
    Plan,
    Planned,
    Space,
    Watch,
    measured,
    rows_of,
    unwatched,
    watched,
)
from vectoracl_conformance.generated.data import Data
from vectoracl_conformance.generated.filters import with_other_end
from vectoracl_conformance.generated.scopes import (
    PARTITIONS,
    SCOPE_PARAMETERS,
    Draft,
    Ground,
    Maker,
    NoLevelsError,
    declared,
    draft,
    leaf_of,
    principal_of,
    scope_constraints,
    scope_parameters,
    shape_nodes,
)
from vectoracl_conformance.generated.sensitivity import Judge
from vectoracl_conformance.generated.values import BOUNDARIES, Draw
from vectoracl_conformance.generated.world import Size, World
from vectoracl_conformance.generated.writes import FEW_WRITES, planned_writes

READS = ("search", "search_many", "fetch", "count", "facets", "page", "scan")
WRITES = ("upsert", "replace", "delete", "load", "update_metadata")
NOT_OPERATIONS: Mapping[str, str] = {
    "narrow": "it makes the scope of a call, and is applied before calls",
    "with_driver": "it takes a driver of an adapter, inside an application's own transaction",
}
"""Public methods of a handle that perform no operation, with what they do instead."""
QUICK = 300
"""About how many reads a quick plan has."""
DRAWS = 3
"""How often a call is drawn, at most, until each part of its scope changes its answer."""
_SIGNS = ("-{}", "+{}", "!{}", '"{}"', "{}*", "NOT {}")
"""Signs at a word that mean something in the language of some store's queries; here they separate words."""
_PLAIN, _SIGNED, _REPEATED = 0.4, 0.5, 0.7
"""How often words of a query are plain, how many of the others have its sign, and how often some come twice."""
_FAR = 1e9
_POSITIVE = 0.15
_AMBIGUOUS = 0.3
_LATE = 0.4
"""How often a vector is drawn near one of the last rows."""
_TWINS = 10
"""Of this number of reads, one is repeated with a scope or a filter that differs in its end alone."""
_WIDE = 300
"""Numbers of rows above this are read in scopes that leave as many, too."""
_WIDE_SCOPES = ("tenant", "policy Not", "narrow Not")


def operations(handle: type = ScopedRetriever) -> dict[str, list[str]]:
    """Return the names of the arguments of every operation of *handle*. Raises: NoLevelsError."""
    found: dict[str, list[str]] = {}
    for name, method in inspect.getmembers(handle, callable):
        if name.startswith("_") or name in NOT_OPERATIONS:
            continue
        if name not in READS and name not in WRITES:
            raise NoLevelsError(f"the operation {name} has no place in a plan")
        found[name] = [one for one in inspect.signature(method).parameters if one != "self"]
    return found


@dataclass(frozen=True)
class Argument:
    """The levels of one argument.

    Attributes:
        levels: Returns the names of the levels with what draws a value, and notes what is left out.
        alone: Levels that hide what else a call does, see `Parameter`.
        dear: The cost of levels, see `Parameter`.
    """

    levels: Callable[[Ground, dict[str, str]], Mapping[str, Maker]]
    alone: frozenset[str] = frozenset()
    dear: Mapping[str, float] = field(default_factory=dict)


def fixed(value: Any) -> Maker:
    """Return what draws always *value*."""
    return lambda _: value


def counts(low: int, high: int, what: str, left_out: dict[str, str], marks: Sequence[int] = BOUNDARIES) -> list[int]:
    """Return numbers on both sides of each of *marks*, as few as do, from *low* to *high*."""
    values = sorted({low, *(one + 1 for one in marks), *({10, 100, 1_000} & set(marks))})
    over = [one for one in values if one > high]
    if over:
        left_out[f"{what}: {', '.join(map(str, over))}"] = f"beyond the limit of {high:,}"
    return sorted({one for one in values if low <= one <= high} | {high} & set(range(low, values[-1] + 1)))


def _k(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Maker]:
    most = ground.can.max_k
    levels: dict[str, Maker] = {"default": None} if most >= 10 else {}
    levels |= {str(one): fixed(one) for one in counts(1, most, "k", left_out)}

    def around(offset: int) -> Maker:
        return lambda made: max(1, min(most, len(made.rows.chunks) + offset))

    def permitted(made: Draft) -> int:
        visible = made.permitted()
        return max(1, min(most, visible if made.draw.py.random() < 0.7 else len(made.rows.chunks)))

    levels |= {"owned-1": around(-1), "owned": permitted, "owned+1": around(1), "limit": fixed(most)}
    return levels


def _few_k(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Maker]:
    levels = _k(ground, left_out)
    return {name: levels[name] for name in levels if name in _FEW_K}


_FEW_K = {"default", "1", "owned", "owned+1", "11", "51", "101", "301", "1001", "limit"}
_WHERE_LEAVES = (
    "Never", "Eq keyword", "Eq other", "Eq hostile", "In", "In 101, In 301", "In 1001, In 2001", "Range", "ContainsAny",
    "StartsWith", "Missing", "@document, @chunk", "@position",
)  # fmt: skip
_AS_SCOPE = "as the scope"
_WHERE_SHAPES = ("Not", "And", "Or|Or in And", "deep|deepest")


def _where(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Maker]:
    kinds = declared(_WHERE_LEAVES, ground.can)
    plain = [one for one in kinds if not leaf_of(one).alone]

    def leaf(kind: str) -> Maker:
        return lambda made: ground.leaf(kind, made.rows, made.draw)

    def joined(shape: str) -> Maker:
        def make(made: Draft) -> Predicate:
            chosen = made.draw.py.choice(shape.split("|"))
            return ground.filter(chosen, made.draw.py.choice(plain), made.rows, made.draw, plain)

        return make

    levels: dict[str, Maker] = {"default": None, **{kind: leaf(kind) for kind in kinds}}
    levels[_AS_SCOPE] = lambda made: made.as_scope(made.rows)
    for shape in _WHERE_SHAPES:
        if shape_nodes([shape]) <= ground.can.predicates:
            levels[shape] = joined(shape)
        else:
            left_out[f"where: {shape}"] = "the adapter does not declare its nodes"
    return levels


# --- queries


def _chunks(made: Draft) -> Sequence[Chunk]:
    """Return the rows of the asking tenant, or if it has none those of another."""
    return made.rows.chunks or made.ground.rows[made.draw.py.choice(made.ground.world.small)].chunks


def _last(chunks: Sequence[Chunk], draw: Draw) -> Sequence[Chunk]:
    """Return *chunks*, or often only the last ones: a store that looks at the first thousands does not find them."""
    few = max(1, len(chunks) // 40)
    ordered = sorted(chunks, key=lambda one: (one.document, one.id)) if draw.py.random() < 0.5 else chunks
    return ordered[-few:] if draw.py.random() < _LATE else chunks


def _vector(made: Draft) -> Vector:
    """Return a vector near a row that the asking tenant has; now and then one without a negative component."""
    chunk = made.draw.py.choice(_last(_chunks(made), made.draw))
    vector = made.draw.near(np.asarray(chunk.vector, np.float32), made.draw.py.choice((0.01, 0.1, 0.4)))
    return np.abs(vector) if made.draw.py.random() < _POSITIVE else vector


def _words(made: Draft, count: int) -> str:
    """Return *count* different words, some of rows, the others of none."""
    words = [word for one in made.draw.some(_chunks(made), 3) for word in one.text.split()[:4] if word.isalpha()]
    known = dict.fromkeys(made.draw.some(list(dict.fromkeys(words)), count))
    known |= dict.fromkeys(made.ground.vocabulary[: count - len(known)])
    return " ".join(known)


def _like(made: Draft) -> Like:
    chunk = made.draw.py.choice(_chunks(made))
    return Like(chunk.id, chunk.document)


def _like_bare(made: Draft) -> Like:
    chunks = _chunks(made)
    times: dict[str, int] = {}
    for one in chunks:
        times[one.id] = times.get(one.id, 0) + 1
    some = [one.id for one in chunks if (times[one.id] > 1) is (made.draw.py.random() < _AMBIGUOUS)]
    return Like(made.draw.py.choice(some or [chunks[0].id]))


def _like_foreign(made: Draft) -> Like:
    name = made.draw.py.choice([one for one in made.ground.world.small if one not in made.partitions])
    chunk = made.ground.rows[name].chunks[-1]
    return Like(chunk.id, chunk.document)


def _said(made: Draft, count: int) -> str:
    """Return *count* words, often some of them twice, or with a sign that has a meaning in a query language."""
    words = _words(made, count)
    pick, chance = made.draw.py.choice, made.draw.py.random
    if chance() < _PLAIN:
        return words
    sign = pick(_SIGNS)
    parts = [sign.format(one) if chance() < _SIGNED else one for one in words.split()]
    twice = made.draw.some(words.split(), 1 + count // 4) * pick((1, 2))
    return " ".join([*parts, *twice] if chance() < _REPEATED else parts)


def _lexical(count: int) -> Callable[[Draft], Lexical]:
    """Return what draws a query of *count* words; where they are as many as a query may have, they are plain."""
    return lambda made: Lexical(_words(made, count) if count == MAX_QUERY_WORDS else _said(made, count))


QUERIES: Mapping[Any, Mapping[str, tuple[str, Callable[[Draft], Any]]]] = {
    str: {
        "text 1": ("text", lambda made: _words(made, 1)),
        "text 65": ("text", lambda made: _words(made, 65)),
        "text 1001": ("text", lambda made: _words(made, 1_001)),
    },
    Vector: {"vector": ("vector", _vector)},
    "Sequence": {"list": ("vector", lambda made: _vector(made).tolist())},
    Lexical: {f"lexical {count}": ("lexical", _lexical(count)) for count in (1, 5, 11, 51, 101, 301, 1_000)},
    Hybrid: {
        "hybrid 3": ("hybrid", lambda made: Hybrid(_said(made, made.draw.py.choice((1, 3))), _vector(made))),
        "hybrid 101": ("hybrid", lambda made: Hybrid(_said(made, 101), _vector(made).tolist())),
        "hybrid text": ("hybrid text", lambda made: Hybrid(_words(made, made.draw.py.choice((1, 4))))),
    },
    Like: {
        "like": ("vector", _like),
        "like bare": ("vector", _like_bare),
        "like foreign": ("vector", _like_foreign),
    },
}
"""The levels of a query, by the members of the union `Query`: the capability that each needs, and what draws it."""


def query_levels(ground: Ground, left_out: dict[str, str], union: Any = Query) -> dict[str, Callable[[Draft], Any]]:
    """Return the levels of a query that the adapter declares. Raises: NoLevelsError for a new kind in *union*."""
    levels: dict[str, Callable[[Draft], Any]] = {}
    for member in get_args(union):
        kind: Any = "Sequence" if "Sequence" in str(member) else member
        if kind not in QUERIES:
            raise NoLevelsError(f"the kind of query {member} has no levels")
        for name, (needs, make) in QUERIES[kind].items():
            capability = needs.split()[0].replace("text", "vector")
            if "text" in needs and ground.world.embedder is None:
                left_out[f"query: {name}"] = f"no embedder makes vectors of {ground.world.dimension} numbers"
            elif capability not in ground.can.queries:
                left_out[f"query: {name}"] = f"the adapter does not declare {capability} queries"
            else:
                levels[name] = make
    return levels


def _query(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Maker]:
    return query_levels(ground, left_out)


_MANY = (1, 2, 10, 11, 65, 101)
_KINDS = ("vector", "text", "like", "lexical", "hybrid")


def _queries(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Maker]:
    """Return lists of queries of one kind in many numbers, and a mixed one."""
    known = query_levels(ground, left_out)

    def drawn(names: Sequence[str], count: int) -> Maker:
        return lambda made: [known[made.draw.py.choice(names)](made) for _ in range(count)]

    vectors = [name for name in known if name in ("vector", "list")]
    levels: dict[str, Maker] = {str(count): drawn(vectors, count) for count in _MANY}
    for kind in _KINDS[1:]:
        names = [name for name in known if name.split()[0] == kind and name not in ("like bare", "like foreign")]
        if names:
            levels[f"3 {kind}"] = drawn(names, 3)
    levels["12 mixed"] = drawn([name for name in known if name in ("vector", "list", "text 1", "like")], 12)
    left_out["queries: 1,000"] = "102 and more take the same path as 101"
    return levels


# --- the other arguments


def _include(_: Ground, __: dict[str, str]) -> Mapping[str, Maker]:
    parts = ("text", "metadata", "vector")
    chosen = [tuple(one for bit, one in enumerate(parts) if mask & 1 << bit) for mask in range(8)]
    return {"default": None, **{"+".join(one) or "nothing": fixed(frozenset(one)) for one in chosen}}


def _values(*values: Any) -> Callable[[Ground, dict[str, str]], Mapping[str, Maker]]:
    levels: dict[str, Maker] = {"default": None, **{str(one): fixed(one) for one in values}}
    return lambda _ground, _left_out: levels


def _exact(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Maker]:
    if ground.can.exact:
        return {"default": None, "True": fixed(value=True)}
    left_out["exact: True"] = "the adapter does not declare exact ranking"
    return {"default": None}


def _group_by(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Maker]:
    if ground.can.group_by:
        return {"default": None, "document": fixed("document")}
    left_out["group_by: document"] = "the adapter does not declare grouping"
    return {"default": None}


def _per_group(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Maker]:
    values = [one for one in (1, 2, 3, 11, 101) if one <= ground.can.max_k]
    return _values(*values)(ground, left_out)


def _tuning(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Maker]:
    levels: dict[str, Maker] = {"default": None}
    for name, limits in ground.can.tuning.items():
        levels |= {f"{name}={value}": fixed({name: value}) for value in limits}
    if not ground.can.tuning:
        left_out["tuning"] = "the adapter declares no settings"
    return levels


def _min_score(_: Ground, __: dict[str, str]) -> Mapping[str, Maker]:
    def cut(share: float) -> Maker:
        return lambda made: made.cut(share)

    return {"default": None, "low": fixed(-_FAR), "zero": fixed(0.0), "half": cut(0.5), "best": cut(0.0)}


def _ids(_: Ground, left_out: dict[str, str]) -> Mapping[str, Maker]:
    def named(count: int) -> Maker:
        return lambda made: references(made, count)

    return {"0": fixed(()), **{str(count): named(count) for count in counts(1, 1_000, "ids", left_out)}}


def references(made: Draft, count: int) -> list[str | tuple[str, str]]:
    """Return *count* ids: of own rows, of rows of other tenants, and of none, as pairs and as chunk ids alone."""
    draw = made.draw
    own = [(one.document, one.id) for one in draw.some(made.rows.chunks, max(1, count - count // 10))]
    foreign = [
        (one.document, one.id)
        for name in draw.some(made.ground.world.small, 20)
        for one in made.ground.rows[name].chunks
    ]
    pairs = dict.fromkeys([*own, *draw.some(foreign, max(0, min(count // 3, count - len(own))))])
    while len(pairs) < count:
        pairs[draw.word(), f"{draw.word()}{draw.py.randrange(10**6)}"] = None
    chosen = list(pairs)[:count]
    draw.py.shuffle(chosen)
    share = draw.py.choice((0.0, 0.3, 1.0))
    refs = dict.fromkeys(pair[1] if draw.py.random() < share else pair for pair in chosen)
    return list(refs)


def _field(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Maker]:
    levels: dict[str, Maker] = {"@document": fixed("@document")}
    for role, name in ground.world.roles.items():
        if ground.world.fields[name] == "datetime":
            left_out[f"field: {role}"] = "datetimes are not counted by value"
        else:
            levels[role] = fixed(name)
    return levels


def _sizes(_: Ground, __: dict[str, str]) -> Mapping[str, Maker]:
    def full(size: int) -> Maker:
        """Draw a page that is exactly full, where there are about as many rows, or one of *size*."""

        def make(made: Draft) -> int:
            visible = made.permitted()
            return visible if visible and size / 3 < visible < 3 * size and made.draw.py.random() < 0.5 else size

        return make

    numbers = (1, 2, 10, 11, 51, 101, 301, 501, 1_001, 2_001, 10_000)
    return {"default": None, **{str(one): full(one) if 10 < one < 2_001 else fixed(one) for one in numbers}}


def _after(_: Ground, __: dict[str, str]) -> Mapping[str, Maker]:
    return {"default": None, "second": None, "third": None}  # `Planned.pages` says it: cursors are the adapter's own


_OWN = ("owned-1", "owned", "owned+1", "limit")
_LAST = ("k", "min_score", "size")
"""Arguments whose values depend on those of others."""
PAGES: Mapping[str, int] = {"default": 0, "second": 1, "third": 2}
ARGUMENTS: Mapping[str, Argument] = {
    "query": Argument(_query, alone=frozenset({"like foreign"})),
    "queries": Argument(_queries, dear={"65": 2.0, "101": 4.0}),
    "k": Argument(_k),
    "where": Argument(_where, alone=frozenset({"Never"})),
    "min_score": Argument(_min_score),
    "group_by": Argument(_group_by),
    "per_group": Argument(_per_group),
    "include": Argument(_include),
    "exact": Argument(_exact),
    "tuning": Argument(_tuning),
    "timeout": Argument(_values(60.0)),
    "ids": Argument(_ids, alone=frozenset({"0"})),
    "field": Argument(_field),
    "limit": Argument(_values(1, 2, 10, 11, 51, 101, 301, 1_001, 10_000)),
    "size": Argument(_sizes, dear={"1": 1.0, "2": 0.5}),
    "after": Argument(_after),
}
"""The levels of every argument of a read, by its name."""
SPECIAL: Mapping[tuple[str, str], Argument] = {("search_many", "k"): Argument(_few_k)}
"""Arguments whose levels differ in one operation."""


def argument_of(method: str, name: str, table: Mapping[str, Argument] = ARGUMENTS) -> Argument:
    """Return the levels of an argument. Raises: NoLevelsError."""
    known = SPECIAL.get((method, name)) or table.get(name)
    if known is None:
        raise NoLevelsError(f"the argument {name} of {method} has no levels")
    return known


def constraints(ground: Ground, method: str, levels: Mapping[str, Sequence[str]]) -> dict[Pair, str]:
    """Return the pairs of levels that no call has: refused by the library, or without effect, or too expensive."""
    forbidden = scope_constraints([("where", _AS_SCOPE)] if "where" in levels else ())

    def forbid(first: str, some: Callable[[str], bool], second: str, others: Callable[[str], bool], why: str) -> None:
        for a in levels.get(first, ()):
            for b in levels.get(second, ()):
                if some(a) and others(b):
                    forbidden[((first, a), (second, b))] = why

    for name in ("query", "queries"):
        forbid(
            name, lambda a: "hybrid" in a, "min_score", lambda b: b != "default", "fused scores only define an order"
        )
        forbid(
            name, lambda a: "lexical" in a, "min_score", lambda b: b in ("zero", "half", "best"),
            "a lexical score is the store's own",
        )  # fmt: skip
        if ground.can.lexical_scores != "comparable":
            forbid(
                name, lambda a: "lexical" in a, "partitions", lambda b: b != "1",
                "lexical scores of several partitions are not comparable",
            )  # fmt: skip
    forbid(
        "where", lambda a: a == _AS_SCOPE, "rows", lambda b: b in ("0", "1", "2"),
        "so few rows show nothing of two conditions",
    )  # fmt: skip
    forbid("query", lambda a: a == "text 1001", "min_score", lambda b: b in ("half", "best"), "it is not scored here")
    forbid("queries", lambda a: a in ("65", "101"), "partitions", lambda b: int(b) > 4, "hundreds of requests")
    if ground.world.partitions < max(PARTITIONS):  # a slow store
        forbid("queries", lambda a: a in ("65", "101"), "partitions", lambda b: b != "1", "the store is slow")
        forbid(
            "queries", lambda a: a in ("10", "11", "12 mixed"), "partitions", lambda b: int(b) > 4, "the store is slow"
        )
    if method == "scan":
        forbid(
            "size", lambda a: a in ("1", "2", "10", "11"), "rows", lambda b: b == "2060",
            "hundreds of pages of a few rows; page() shows the same",
        )  # fmt: skip
        forbid(
            "size", lambda a: a in ("1", "2"), "rows", lambda b: b == "303",
            "hundreds of pages of a few rows; page() shows the same",
        )  # fmt: skip
    forbid("group_by", lambda a: a == "default", "per_group", lambda b: b != "default", "it has no effect")
    later = ("second", "third")
    forbid("after", later.__contains__, "rows", lambda b: b in ("0", "1", "2"), "there is one page")
    forbid("after", later.__contains__, "size", lambda b: b in ("2001", "10000"), "there is one page")
    forbid("after", later.__contains__, "where", lambda b: b == "Never", "there is one page")
    forbid("after", later.__contains__, "scope", lambda b: b == "policy none", "there is one page")
    return forbidden


class Reads:
    """Plans the calls of one read."""

    def __init__(self, ground: Ground, judge: Judge, method: str, names: Sequence[str]) -> None:
        self.ground = ground
        self.judge = judge
        self.method = method
        self.left_out: dict[str, str] = {}
        self.makers: dict[str, Mapping[str, Maker]] = {}
        self.parameters = scope_parameters(ground.world, ground.can, self.left_out)
        for name in names:
            known = argument_of(method, name)
            self.makers[name] = known.levels(ground, self.left_out)
            if len(self.makers[name]) > 1:
                levels = tuple(self.makers[name])
                self.parameters.append(Parameter(name, levels, known.alone & set(levels), known.dear))
        forbidden = constraints(ground, method, {one.name: one.levels for one in self.parameters})
        for (first, second), why in forbidden.items():
            self.left_out.setdefault(f"{method}: {first[0]} with {second[0]}: {why}", why)
        self.space = Space(self.parameters, forbidden)

    def plan(self, most: int | None, watch: Watch = unwatched) -> tuple[list[Planned], Coverage]:
        """Return the calls, at most *most*, with what they cover."""
        drawn = None if most is None else most * _TWINS // (_TWINS + 1)  # the rest are twins
        rows = [self.space.names(row) for row in rows_of(self.space, self.ground.world.seed, drawn)]
        rows += [] if most is not None else self._wide()
        planned = []
        for number, levels in watched(self.method, rows, watch):
            made, one = self.call(levels, number)
            planned.append(one)
            if number % _TWINS == 0 and (other := self._twin(made, one, f"{self.method}-{number}-twin")) is not None:
                planned.append(other)
        if most is not None:
            self.left_out[f"{self.method}: further pairs"] = "a quick plan"
        pairs, triples = measured(self.space, [one.parameters for one in planned], SCOPE_PARAMETERS)
        return planned, Coverage(len(planned), pairs, triples, self.left_out)

    def _wide(self) -> list[dict[str, str]]:
        """Return the levels of reads of many rows: each large number, of a large tenant in scopes that leave most."""
        known = {one.name: one.levels for one in self.parameters}
        rows = max(known["rows"], key=int)
        rest = {name: levels[0] for name, levels in known.items()} | {"rows": rows, "partitions": "1"}
        if self.method == "facets":
            rest["field"] = "code"
        wide = []
        for name in ("k", "size", "limit"):
            large = [one for one in known.get(name, ()) if one in _OWN or (one.isdigit() and int(one) > _WIDE)]
            for place, (level, form) in enumerate(product(large, _WIDE_SCOPES)):
                leaf = "Always" if form == "tenant" else "Eq"
                if form in known["scope"] and leaf in known["scope_leaf"]:
                    mode = known["mode"][place % len(known["mode"])]
                    wide.append({**rest, "mode": mode, "scope": form, "scope_leaf": leaf, name: level})
        return wide

    def _twin(self, made: Draft, planned: Planned, name: str) -> Planned | None:
        """Return the same read with another end of its scope or its filter, so that what is kept of it differs."""
        rows = made.known[next(iter(made.partitions))] if made.partitions else made.rows
        policy = made.partitions.get(made.tenant) if made.granted else None
        where = planned.call.arguments.get("where")
        narrowings, arguments = list(made.narrowings), dict(planned.call.arguments)
        twin = replace(made, principal=principal_of(self.ground.world, name, made.tenant))
        if policy is not None and (other := with_other_end(policy, made.rows, made.draw)) is not None:
            twin.partitions = {**made.partitions, made.tenant: other}
        elif narrowings and (other := with_other_end(narrowings[-1][0], rows, made.draw)) is not None:
            narrowings[-1] = (other, narrowings[-1][1])
        elif where is not None and (other := with_other_end(where, rows, made.draw)) is not None:
            arguments["where"] = other
        else:
            return None
        twin.enter()
        return replace(planned, call=Call(twin.principal, self.method, arguments, tuple(narrowings)))

    def permitted(self, made: Draft) -> int:
        """Return how many rows the scope and the filter of *made* leave."""
        return len(self.judge.visible(made, made.arguments.get("where", ALWAYS)))

    def call(self, levels: Mapping[str, str], number: int) -> tuple[Draft, Planned]:
        """Draw the call of *levels* a few times; return the one whose answer depends on most parts of its scope."""
        best: tuple[float, Draft, Planned] | None = None
        name = f"{self.method}-{number}"
        pages = PAGES[levels.get("after", "default")]
        for attempt in range(DRAWS):
            made = draft(self.ground, Draw(self.ground.world.seed, f"{name}-{attempt}"), levels, f"{name}-{attempt}")
            made.cut = partial(self.judge.cut, made)
            made.permitted = partial(self.permitted, made)
            for argument, choices in sorted(self.makers.items(), key=lambda one: one[0] in _LAST):
                maker = choices[levels[argument]] if argument in levels else next(iter(choices.values()))
                if maker is not None:
                    made.arguments[argument] = maker(made)
            seen, total = self.judge.sensitive(made, self.method, made.arguments, pages)
            share = len(seen) / total if total else 1.0
            if best is None or share > best[0]:
                mode: Any = levels["mode"]
                call = Call(made.principal, self.method, made.arguments, made.narrowings)
                best = share, made, Planned(call, mode, levels, pages, frozenset(seen))
                made.enter()
            if share == 1.0:
                break
        assert best is not None
        return best[1:]


def plan_reads(
    world: World, capabilities: Capabilities, *, size: Size, quick: int = QUICK, watch: Watch = unwatched
) -> Plan:
    """Return reads that cover every pair of levels of each operation's arguments and scope.

    Args:
        world: The world, whose rules get the principals of the calls.
        capabilities: The declared capabilities of the adapter.
        size: "quick" for about *quick* calls, "full" for all pairs.
        quick: The number of calls of a quick plan.
        watch: Receives the progress.

    Returns:
        The plan; the same for the same arguments. With "quick" the coverage says what was left out.

    Raises:
        NoLevelsError: The library has an argument, a node, a kind of query or a tag field without levels.
    """
    ground = Ground(world, capabilities)
    judge = Judge(ground)
    found = operations()
    planned: list[Planned] = []
    coverage = []
    for method in READS:
        missing = _undeclared(method, capabilities)
        if missing:
            coverage.append(Coverage(0, (0, 0), (0, 0), {method: missing}))
            continue
        calls, covered = Reads(ground, judge, method, found[method]).plan(
            quick // len(READS) if size == "quick" else None, watch
        )
        planned += calls
        coverage.append(covered)
    return Plan(tuple(planned), Coverage.of(coverage))


def _undeclared(method: str, can: Capabilities) -> str:
    """Return why an operation is not a part of the plan, or nothing."""
    if ACTIONS.get(method, method) not in can.operations:
        return "the adapter does not declare the operation"
    if (method == "count" and can.count == "none") or (method == "facets" and can.facets == "none"):
        return "the adapter does not declare counts"
    return ""


def plan_writes(
    world: World, capabilities: Capabilities, *, size: Size, quick: int = FEW_WRITES, watch: Watch = unwatched
) -> Plan:
    """Return writes that cover every pair of levels; each follows the writes that lay out the rows it is about.

    The arguments and errors are those of `plan_reads`. The order of the calls matters.
    """
    return planned_writes(world, capabilities, size, operations(), quick, watch)


def plan_data(world: World, capabilities: Capabilities, *, size: Size, watch: Watch = unwatched) -> Plan:
    """Return writes of hostile data, each followed by reads that have to return it exactly.

    The arguments are those of `plan_reads`. The order of the calls matters.
    """
    return Data(world, capabilities, size).plan(watch)
