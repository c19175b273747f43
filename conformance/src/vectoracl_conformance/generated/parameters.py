"""The plans: for every operation of a handle, calls that cover each pair of levels of its arguments and of its scope.

The arguments are those of the public methods, read from their signatures, and the nodes, kinds of queries and tag
fields are those of the library. Each has its levels in a table here. One that has none raises `NoLevelsError`, so that
nothing new stays uncovered without being noticed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from vectoracl import ScopedRetriever
from vectoracl.adapter_api.contract import Capabilities
from vectoracl.filters.field_types import TAG_FIELDS
from vectoracl.filters.predicate import ALWAYS, NODES, Predicate, operands_of
from vectoracl.model.actions import ALL_ACTIONS, Action
from vectoracl.model.principal import Principal
from vectoracl.model.queries import Hybrid, Lexical, Like, Query
from vectoracl.model.records import Vector
from vectoracl_conformance.generated.calls import Call
from vectoracl_conformance.generated.covering import Coverage, Pair, Parameter, Plan, Planned, Space, measured, rows_of
from vectoracl_conformance.generated.filters import LEAVES, SHAPES, Leaf, Rows
from vectoracl_conformance.generated.values import BOUNDARIES, Draw
from vectoracl_conformance.generated.world import Size, World

Narrowing = tuple[Predicate, frozenset[Action] | None]


class NoLevelsError(Exception):
    """An argument, a node, a kind of query or a tag field has no levels: what is new has to be added to the tables."""


READS = ("search", "search_many", "fetch", "count", "facets", "page", "scan")
WRITES = ("upsert", "replace", "delete", "load")
NOT_OPERATIONS = {"narrow": "it makes the scope of a call", "with_driver": "it takes a driver of an adapter"}
_ACTION: Mapping[str, Action] = {"search_many": "search", "facets": "scan", "page": "scan", "load": "upsert"}
PARTITIONS = (1, 2, 3, 4, 8, 16, 64)
POOL = 4
"""The number of different leaves of one kind that are drawn from the rows of one tenant."""


def operations() -> dict[str, list[str]]:
    """Return the names of the arguments of every operation of a handle. Raises: NoLevelsError."""
    found: dict[str, list[str]] = {}
    for name, method in inspect.getmembers(ScopedRetriever, callable):
        if name.startswith("_") or name in NOT_OPERATIONS:
            continue
        if name not in READS and name not in WRITES:
            raise NoLevelsError(f"the operation {name} has no place in a plan")
        found[name] = [one for one in inspect.signature(method).parameters if one != "self"]
    return found


class Ground:
    """The world with its rows evaluated: what calls are drawn from, and what tells whether a call can show a fault."""

    def __init__(self, world: World, capabilities: Capabilities) -> None:
        self.world = world
        self.can = capabilities
        biggest = max(world.tenants, key=lambda name: len(world.tenants[name]))
        everybody = Rows(biggest, world.tenants[biggest], world.roles)
        self._pool: dict[tuple[str, str, int], Predicate] = {}
        self.rows = {
            name: everybody if name == biggest else Rows(name, chunks, world.roles, everybody)
            for name, chunks in world.tenants.items()
        }

    def supports(self, predicate: Predicate) -> bool:
        """Return whether the adapter declares every node of *predicate*."""
        return type(predicate) in self.can.predicates and all(map(self.supports, operands_of(predicate)))

    def leaf(self, kind: str, rows: Rows, draw: Draw) -> Predicate:
        """Return a leaf of *kind* drawn from *rows*, if possible one that some rows match and some do not.

        There are a few for each tenant and kind, so that each is evaluated once.
        """
        kinds = [one for one in GROUPS.get(kind, (kind,)) if LEAVES[one].node in self.can.predicates]
        return self._pooled(draw.py.choice(kinds), rows, draw.py.randrange(POOL))

    def _pooled(self, kind: str, rows: Rows, place: int) -> Predicate:
        key = (kind, rows.tenant, place)
        if key not in self._pool:
            self._pool[key] = self._drawn(kind, rows, Draw(self.world.seed, f"{rows.tenant}/{kind}/{place}"))
        return self._pool[key]

    def _drawn(self, kind: str, rows: Rows, draw: Draw) -> Predicate:
        best: Predicate | None = None
        for _ in range(4):
            made = LEAVES[kind].make(rows, draw)
            if made is None or not self.supports(made):
                continue
            best = made
            share = rows.mask(made).mean() if rows.chunks else 0.5
            if 0.1 < share < 0.9:
                return made
        return ALWAYS if best is None else best

    def filter(self, shape: str, kind: str, rows: Rows, draw: Draw, kinds: Sequence[str]) -> Predicate:
        """Return a filter of *shape* around a leaf of *kind*; what it is joined with is of some of *kinds*."""
        leaf = self.leaf(kind, rows, draw)
        return SHAPES[shape].make(leaf, lambda: self.leaf(draw.py.choice(list(kinds)), rows, draw))


@dataclass
class Draft:
    """A call that is being put together: its levels, and what was drawn for them so far."""

    ground: Ground
    draw: Draw
    levels: Mapping[str, str]
    tenant: str
    partitions: Mapping[str, Predicate]
    narrowings: tuple[Narrowing, ...]

    @property
    def rows(self) -> Rows:
        """The rows of the asking tenant."""
        return self.ground.rows[self.tenant]


# --- the form of the scope

_NARROWING = {
    "narrow", "narrow Not", "narrow Or", "narrow Or in And", "narrow Not of Or", "narrow twice", "narrow actions",
}  # fmt: skip
SCOPES: Mapping[str, tuple[str, str]] = {
    "tenant": ("", ""),
    "policy": ("leaf", ""),
    "policy Not": ("Not", ""),
    "policy And": ("And", ""),
    "policy Or": ("Or", ""),
    "policy Or in And": ("Or in And", ""),
    "policy Not of And": ("Not of And", ""),
    "policy Not of Or": ("Not of Or", ""),
    "policy Or of halves": ("Or of halves", ""),
    "policy deep": ("deep", ""),
    "policy none": ("none", ""),
    "narrow": ("", "leaf"),
    "narrow Not": ("", "Not"),
    "narrow Or": ("", "Or"),
    "narrow Or in And": ("", "Or in And"),
    "narrow Not of Or": ("", "Not of Or"),
    "narrow twice": ("", "Or/Not"),
    "narrow actions": ("", "leaf!"),
    "policy Or, narrow Or": ("Or", "Or"),
    "policy, narrow twice": ("leaf", "Or/leaf"),
}
"""The forms of a scope: the shape of the policy's predicate and the shapes of the narrowings, one after the other."""
SCOPE_PARAMETERS = ("scope", "scope_leaf")


GROUPS: Mapping[str, tuple[str, ...]] = {
    "Eq": ("Eq keyword", "Eq number", "Eq boolean", "Eq datetime", "Eq hostile"),
    "In": ("In keyword 1", "In keyword 3", "In number", "In datetime"),
    "In 101": ("In keyword 101", "ContainsAny 101"),
    "Range": (
        "Range number", "Range number <", "Range number two-sided", "Range datetime", "Range datetime two-sided",
    ),
    "ContainsAny": ("ContainsAny keyword", "ContainsAny number"),
    "@document": ("@document", "@document StartsWith"),
    "@document In": ("@document In", "@chunk In"),
    "@docgen": ("@docgen", "@docgen In"),
    "@label": ("@label",),
    "@expires": ("@expires",),
    "@path, @rev, @generation": ("@path, @rev, @generation", "@time", "@position"),
}  # fmt: skip
"""Levels of the scope's leaf that stand for several kinds of leaves, which take turns."""
_SCOPE_LEAVES = (
    "Always", "Never", "Eq", "In", "In keyword 100", "In 101", "In keyword 301", "In keyword 1001", "Range",
    "ContainsAny", "StartsWith", "Missing", "@document", "@document In", "@docgen", "@label", "@expires",
    "@path, @rev, @generation",
)  # fmt: skip
_WHERE_LEAVES = (
    "Never", "Eq keyword", "Eq number", "Eq boolean", "Eq datetime", "Eq hostile", "In", "In 101", "In keyword 301",
    "In keyword 1001", "Range", "ContainsAny", "StartsWith", "Missing", "@document", "@document In", "@position",
)  # fmt: skip


def _leaf(kind: str) -> Leaf:
    return LEAVES[GROUPS.get(kind, (kind,))[0]]


def _scope_leaves(can: Capabilities) -> list[str]:
    return [name for name in _SCOPE_LEAVES if _leaf(name).node in can.predicates]


def _shape_nodes(shapes: Sequence[str]) -> frozenset[type[Predicate]]:
    return frozenset().union(*(SHAPES[one].nodes for one in shapes if one in SHAPES))


def scope_parameters(world: World, can: Capabilities, left_out: dict[str, str]) -> list[Parameter]:
    """Return the pseudo-parameters of every operation: mode, asking tenant, partitions and the form of the scope."""
    for node in NODES:
        if node not in {leaf.node for leaf in LEAVES.values()} | _shape_nodes(list(SHAPES)):
            raise NoLevelsError(f"the node {node.__name__} has no leaf and no shape")
    for name in TAG_FIELDS:
        if not any(name in one for one in LEAVES) and name not in ("@producer",):
            raise NoLevelsError(f"the tag field {name} has no leaf")
    forms = []
    for name, (policy, narrow) in SCOPES.items():
        needed = _shape_nodes([policy, *narrow.strip("!").split("/")])
        if needed <= can.predicates:
            forms.append(name)
        else:
            left_out[f"scope: {name}"] = "the adapter does not declare its nodes"
    for name, leaf in LEAVES.items():
        if leaf.node not in can.predicates:
            left_out[f"leaf: {name}"] = f"the adapter does not declare {leaf.node.__name__}"
    sizes = tuple(map(str, sorted(world.asking)))
    leaves = _scope_leaves(can)
    return [
        Parameter("mode", ("sync", "async")),
        Parameter("rows", sizes, frozenset({"0", "1"}), {"2060": 1.0, "0": 2.0, "1": 1.0}),
        Parameter("partitions", tuple(map(str, PARTITIONS)), frozenset(), {"16": 2.0, "64": 8.0, "8": 1.0}),
        Parameter("scope", tuple(forms), frozenset({"policy none"})),
        Parameter("scope_leaf", tuple(leaves), frozenset(one for one in leaves if _leaf(one).alone)),
    ]


def scope_constraints() -> dict[Pair, str]:
    """Return the pairs of levels of the scope's parameters that make no call."""
    forbidden: dict[Pair, str] = {}
    for form, (policy, _) in SCOPES.items():
        for count in PARTITIONS:
            if not policy and count > 1:
                forbidden[("scope", form), ("partitions", str(count))] = "without a table there is one partition"
        for kind in _SCOPE_LEAVES:
            if not policy and _leaf(kind).policy:
                forbidden[("scope", form), ("scope_leaf", kind)] = "a caller's filter may not use this field of the tag"
            if form in ("tenant", "policy none") and kind != "Always":
                forbidden[("scope", form), ("scope_leaf", kind)] = "the form has no filter"
    return forbidden


def draft(ground: Ground, draw: Draw, levels: Mapping[str, str], part: str, number: int) -> tuple[Draft, Principal]:
    """Draw the principal, its rules and its narrowings for *levels*."""
    world = ground.world
    tenant = world.sized(int(levels["rows"]))
    policy, narrow = SCOPES[levels["scope"]]
    kind = levels["scope_leaf"]
    name = f"{part}-{number}"
    who = Draw(world.seed, name)
    principal = Principal(
        f"{who.word()}.{who.word()}{who.py.randrange(1000)}@{who.word()}.example",
        tenant,
        authenticated_by="oidc:https://id.example",
    )
    kinds = [one for one in _scope_leaves(ground.can) if not _leaf(one).alone and one != "Always"]
    caller_kinds = [one for one in kinds if not _leaf(one).policy]
    partitions: dict[str, Predicate] = {tenant: ALWAYS}
    if policy:
        others = draw.some(world.small, int(levels["partitions"]) - 1)
        for place, one in enumerate([tenant, *others]):
            rows = ground.rows[one]
            if policy == "none":
                break
            partitions[one] = ground.filter(policy, kind if place < 2 else draw.py.choice(kinds), rows, draw, kinds)
        if policy == "none":
            partitions = {}
        world.grant(principal.id, dict.fromkeys(ALL_ACTIONS, partitions) if partitions else {})
    narrowings: list[Narrowing] = []
    rows = ground.rows[tenant]
    for shape in narrow.strip("!").split("/") if narrow else ():
        own_kind = kind if not narrowings and not _leaf(kind).policy else draw.py.choice(caller_kinds)
        actions = ALL_ACTIONS - {"delete"} if narrow.endswith("!") else None
        narrowings.append((ground.filter(shape, own_kind, rows, draw, caller_kinds), actions))
    return Draft(ground, draw, levels, tenant, partitions, tuple(narrowings)), principal


# --- the levels of the arguments


@dataclass(frozen=True)
class Argument:
    """The levels of one argument: their names with what draws a value; None leaves the argument out."""

    levels: Callable[[Ground, dict[str, str]], Mapping[str, Callable[[Draft], Any] | None]]
    alone: frozenset[str] = frozenset()
    dear: Mapping[str, float] = None  # type: ignore[assignment]


def _counts(low: int, high: int, boundaries: Sequence[int], what: str, left_out: dict[str, str]) -> list[int]:
    """Return both sides of each boundary from *low* to *high*, and *high* itself."""
    values = sorted({one for mark in boundaries for one in (mark, mark + 1)} | {1})
    over = [one for one in values if one > high]
    if over:
        left_out[f"{what}: {', '.join(map(str, over))}"] = f"beyond the declared limit of {high}"
    return [one for one in values if low <= one <= high]


def _k(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Callable[[Draft], Any] | None]:
    levels: dict[str, Callable[[Draft], Any] | None] = {"default": None}
    for one in _counts(1, ground.can.max_k, BOUNDARIES, "k", left_out):
        levels[str(one)] = lambda _, one=one: one  # type: ignore[misc]
    for name, offset in (("owned-1", -1), ("owned", 0), ("owned+1", 1)):
        levels[name] = lambda draft, offset=offset: max(1, min(ground.can.max_k, len(draft.rows.chunks) + offset))  # type: ignore[misc]
    levels["limit"] = lambda _: ground.can.max_k
    return levels


def _where(ground: Ground, _left_out: dict[str, str]) -> Mapping[str, Callable[[Draft], Any] | None]:
    levels: dict[str, Callable[[Draft], Any] | None] = {"default": None}
    kinds = [one for one in _WHERE_LEAVES if _leaf(one).node in ground.can.predicates]
    plain = [one for one in kinds if not _leaf(one).alone]
    for kind in kinds:
        levels[kind] = lambda draft, kind=kind: ground.leaf(kind, draft.rows, draft.draw)  # type: ignore[misc]
    for name, shape in SHAPES.items():
        if name != "leaf" and shape.nodes <= ground.can.predicates:
            levels[name] = lambda draft, name=name: ground.filter(  # type: ignore[misc]
                name, draft.draw.py.choice(plain), draft.rows, draft.draw, plain
            )
    return levels


def _vector(draft: Draft) -> Vector:
    """Return a vector near a row of the asking tenant or of another."""
    world, draw = draft.ground.world, draft.draw
    chunks = draft.rows.chunks or draft.ground.rows[draw.py.choice(world.small)].chunks
    return draw.near(np.asarray(draw.py.choice(chunks).vector, np.float32), draw.py.choice((0.01, 0.1, 0.4)))


def _words(draft: Draft, count: int) -> str:
    chunks = draft.rows.chunks or draft.ground.rows[draft.draw.py.choice(draft.ground.world.small)].chunks
    words = [word for one in draft.draw.some(chunks, 3) for word in one.text.split()[:4]]
    return " ".join([*draft.draw.some(words, count), *(draft.draw.word() for _ in range(count - len(words)))])


def _like(draft: Draft) -> Like:
    chunks = draft.rows.chunks or draft.ground.rows[draft.draw.py.choice(draft.ground.world.small)].chunks
    one = draft.draw.py.choice(chunks)
    return Like(one.id, one.document)


QUERIES: Mapping[Any, Mapping[str, tuple[str, Callable[[Draft], Any]]]] = {
    str: {},
    Vector: {"vector": ("vector", _vector)},
    Lexical: {
        "lexical 1": ("lexical", lambda draft: Lexical(_words(draft, 1))),
        "lexical 5": ("lexical", lambda draft: Lexical(_words(draft, 5))),
    },
    Hybrid: {"hybrid": ("hybrid", lambda draft: Hybrid(_words(draft, 3), _vector(draft)))},
    Like: {"like": ("vector", _like)},
    "Sequence": {"list": ("vector", lambda draft: _vector(draft).tolist())},
}
"""The levels of a query, by the members of the union `Query`: the capability that it needs, and what draws one."""


def _query(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Callable[[Draft], Any] | None]:
    levels: dict[str, Callable[[Draft], Any] | None] = {}
    for member in get_args(Query):
        kind: Any = member if member in QUERIES else "Sequence" if "Sequence[float]" in str(member) else None
        if kind is None:
            raise NoLevelsError(f"the kind of query {member} has no levels")
        for name, (capability, make) in QUERIES[kind].items():
            if capability in ground.can.queries:
                levels[name] = make
            else:
                left_out[f"query: {name}"] = f"the adapter does not declare {capability} queries"
    return levels


def _include(_ground: Ground, _left_out: dict[str, str]) -> Mapping[str, Callable[[Draft], Any] | None]:
    parts = ("text", "metadata", "vector")
    levels: dict[str, Callable[[Draft], Any] | None] = {"default": None}
    for mask in range(8):
        chosen = tuple(one for bit, one in enumerate(parts) if mask & 1 << bit)
        levels["+".join(chosen) or "nothing"] = lambda _, chosen=chosen: chosen  # type: ignore[misc]
    return levels


def _values(*values: Any) -> Callable[[Ground, dict[str, str]], Mapping[str, Callable[[Draft], Any] | None]]:
    levels: dict[str, Callable[[Draft], Any] | None] = {"default": None}
    for one in values:
        levels[repr(one)] = lambda _, one=one: one  # type: ignore[misc]
    return lambda _ground, _left_out: levels


def _exact(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Callable[[Draft], Any] | None]:
    if not ground.can.exact:
        left_out["exact: True"] = "the adapter does not declare exact ranking"
        return {"default": None}
    return {"default": None, "True": lambda _: True}


def _group_by(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Callable[[Draft], Any] | None]:
    if not ground.can.group_by:
        left_out["group_by: document"] = "the adapter does not declare grouping"
        return {"default": None}
    return {"default": None, "document": lambda _: "document"}


def _tuning(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Callable[[Draft], Any] | None]:
    levels: dict[str, Callable[[Draft], Any] | None] = {"default": None}
    for name, (low, high) in ground.can.tuning.items():
        for value in (low, high):
            levels[f"{name}={value}"] = lambda _, name=name, value=value: {name: value}  # type: ignore[misc]
    if not ground.can.tuning:
        left_out["tuning"] = "the adapter declares no settings"
    return levels


def _min_score(_ground: Ground, _left_out: dict[str, str]) -> Mapping[str, Callable[[Draft], Any] | None]:
    return {"default": None, "low": lambda _: -1e9, "middle": lambda _: 0.2}


def _ids(_ground: Ground, left_out: dict[str, str]) -> Mapping[str, Callable[[Draft], Any] | None]:
    levels: dict[str, Callable[[Draft], Any] | None] = {}
    for count in _counts(1, 1_000, BOUNDARIES, "ids", left_out):
        levels[str(count)] = lambda draft, count=count: _references(draft, count)  # type: ignore[misc]
    return levels


def _references(draft: Draft, count: int) -> list[str | tuple[str, str]]:
    own = draft.draw.some(draft.rows.chunks, count)
    foreign = [one for name in draft.ground.world.small for one in draft.ground.rows[name].chunks]
    refs = [(one.document, one.id) for one in [*own, *draft.draw.some(foreign, max(0, count - len(own)))]]
    refs += [(draft.draw.word(), f"{draft.draw.word()}{place}") for place in range(count - len(refs))]
    draft.draw.py.shuffle(refs)
    return [pair if draft.draw.py.random() < 0.7 else pair[1] for pair in refs]


def _queries(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Callable[[Draft], Any] | None]:
    kinds = {name: one for name, one in _query(ground, left_out).items() if name in ("vector", "list")}
    levels: dict[str, Callable[[Draft], Any] | None] = {}
    for count in (1, 2, 10, 11, 65):
        levels[str(count)] = lambda draft, count=count: [  # type: ignore[misc]
            make(draft) for make in draft.draw.py.choices([one for one in kinds.values() if one], k=count)
        ]
    return levels


def _field(ground: Ground, left_out: dict[str, str]) -> Mapping[str, Callable[[Draft], Any] | None]:
    levels: dict[str, Callable[[Draft], Any] | None] = {"@document": lambda _: "@document"}
    for role, name in ground.world.roles.items():
        if ground.world.fields[name] == "datetime":
            left_out[f"field: {role}"] = "datetimes are not counted by value"
        else:
            levels[role] = lambda _, name=name: name  # type: ignore[misc]
    return levels


def _number(*values: int) -> Callable[[Ground, dict[str, str]], Mapping[str, Callable[[Draft], Any] | None]]:
    return _values(*values)


ARGUMENTS: Mapping[str, Argument] = {
    "query": Argument(_query),
    "queries": Argument(_queries),
    "k": Argument(_k),
    "where": Argument(_where, alone=frozenset({"Never"})),
    "min_score": Argument(_min_score),
    "group_by": Argument(_group_by),
    "per_group": Argument(_values(1, 2, 11)),
    "include": Argument(_include),
    "exact": Argument(_exact),
    "tuning": Argument(_tuning),
    "timeout": Argument(_values(60.0)),
    "ids": Argument(_ids),
    "field": Argument(_field),
    "limit": Argument(_number(1, 2, 10, 11, 101, 10_000)),
    "size": Argument(_number(1, 2, 10, 11, 101, 1_001, 10_000), dear={"1": 1.0}),
    "after": Argument(_values()),
}
"""The levels of every argument of a read, by its name."""


def constraints(
    ground: Ground, levels: Mapping[str, Sequence[str]]
) -> dict[tuple[tuple[str, str], tuple[str, str]], str]:
    """Return the pairs of levels that are refused by the library, so that such a call would show nothing else."""
    forbidden = dict(scope_constraints())
    for query in levels.get("query", ()):
        if query == "hybrid":
            for score in ("low", "middle"):
                forbidden[("query", query), ("min_score", score)] = "fused scores only define an order"
        if query.startswith("lexical") and ground.can.lexical_scores != "comparable":
            for count in PARTITIONS[1:]:
                forbidden[("query", query), ("partitions", str(count))] = "lexical scores are not comparable"
    if "field" not in levels and "after" not in levels:  # a scan reads to the end
        for few in {"1", "2", "10", "11"} & set(levels.get("size", ())):
            forbidden[("size", few), ("rows", "2060")] = "hundreds of pages of one or a few rows; pages show the same"
    return forbidden


def _reads(ground: Ground, name: str, arguments: Sequence[str], size: Size) -> tuple[list[Planned], Coverage]:
    left_out: dict[str, str] = {}
    makers: dict[str, Mapping[str, Callable[[Draft], Any] | None]] = {}
    parameters = scope_parameters(ground.world, ground.can, left_out)
    for argument in arguments:
        known = ARGUMENTS.get(argument)
        if known is None:
            raise NoLevelsError(f"the argument {argument} of {name} has no levels")
        makers[argument] = known.levels(ground, left_out)
        if len(makers[argument]) > 1:
            dear = known.dear or {}
            parameters.append(Parameter(argument, tuple(makers[argument]), known.alone & set(makers[argument]), dear))
    space = Space(parameters, constraints(ground, makers_names(makers)))
    rows = rows_of(space, ground.world.seed)
    if size == "quick":  # the first rows cover the most
        rows = rows[: 300 // len(READS)]
        left_out[f"{name}: further pairs"] = "a quick run"
    planned = []
    for number, row in enumerate(rows):
        levels = space.names(row)
        planned.append(_call(ground, name, levels, makers, number))
    pairs, triples = measured(space, [one.parameters for one in planned], SCOPE_PARAMETERS)
    return planned, Coverage(len(planned), pairs, triples, left_out)


def makers_names(makers: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return the names of the levels of each argument."""
    return {name: tuple(levels) for name, levels in makers.items()}


def _call(
    ground: Ground,
    name: str,
    levels: Mapping[str, str],
    makers: Mapping[str, Mapping[str, Callable[[Draft], Any] | None]],
    number: int,
) -> Planned:
    draw = Draw(ground.world.seed, f"{name}-{number}")
    made, principal = draft(ground, draw, levels, name, number)
    arguments = {}
    for argument, choices in makers.items():
        maker = choices[levels[argument]] if argument in levels else None
        if maker is not None:
            arguments[argument] = maker(made)
    mode: Any = levels["mode"]
    return Planned(Call(principal, name, arguments, made.narrowings), mode, levels)


def plan_reads(world: World, capabilities: Capabilities, *, size: Size) -> Plan:
    """Return reads that cover every pair of levels of each operation's arguments and scope.

    Args:
        world: The world, whose rules get the principals of the calls.
        capabilities: The declared capabilities of the adapter.
        size: "quick" for about 300 calls, "full" for all pairs.

    Returns:
        The plan. With "quick" the coverage says what was left out.

    Raises:
        NoLevelsError: The library has an argument, a node, a kind of query or a tag field without levels.
    """
    ground = Ground(world, capabilities)
    found = operations()
    planned: list[Planned] = []
    coverage = []
    for name in READS:
        if _ACTION.get(name, name) not in capabilities.operations:
            coverage.append(Coverage(0, (0, 0), (0, 0), {name: "the adapter does not declare the operation"}))
            continue
        calls, covered = _reads(ground, name, found[name], size)
        planned += calls
        coverage.append(covered)
    return Plan(tuple(planned), Coverage.of(coverage))


def plan_writes(world: World, capabilities: Capabilities, *, size: Size) -> Plan:
    """Return writes; see `plan_reads`."""
    del world, capabilities, size
    return Plan((), Coverage(0, (0, 0), (0, 0), {}))


def plan_data(world: World, capabilities: Capabilities, *, size: Size) -> Plan:
    """Return writes of hostile data, each followed by reads that have to return it exactly; see `plan_reads`."""
    del world, capabilities, size
    return Plan((), Coverage(0, (0, 0), (0, 0), {}))
