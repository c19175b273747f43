"""The forms that a scope can have, and the pseudo-parameters that every operation has in addition to its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.filters.field_types import TAG_FIELDS
from vectoracl.filters.predicate import ALWAYS, NODES, Predicate, Range, operands_of
from vectoracl.filters.validation import fields_of
from vectoracl.model.actions import ALL_ACTIONS, Action
from vectoracl.model.principal import Principal
from vectoracl_conformance.generated.confusions import confusions
from vectoracl_conformance.generated.covering import Pair, Parameter
from vectoracl_conformance.generated.filters import (
    LEAVES,
    SHAPES,
    VARIANTS,
    Leaf,
    Pick,
    Rows,
    Variant,
    arranged,
    telling,
)
from vectoracl_conformance.generated.values import Draw
from vectoracl_conformance.generated.world import World

Narrowing = tuple[Predicate, frozenset[Action] | None]
_TELLING = ("admin", "root", "service", "system", "support", "owner")
"""Beginnings of the ids of some principals. What they say means nothing to the library."""
PARTITIONS = (1, 2, 3, 4, 8, 16, 64)
_SINGLE = 40
"""The number of leaves that match at most one row, for each tenant."""
_VARIED = 0.6
"""How often a shape is made in one of its other ways, where it has some."""
_DRAWS = 5
_LEAF_DRAWS = 6
_FEW_ROWS = 9
POOL = 4
"""The number of different filters of one kind that are drawn from the rows of one tenant; of a small one two."""


class NoLevelsError(Exception):
    """An argument, a node, a kind of query or a tag field has no levels: what is new has to be added to the tables."""


GROUPS: Mapping[str, tuple[str, ...]] = {
    "Eq": ("Eq keyword", "Eq number", "Eq boolean", "Eq datetime", "Eq hostile"),
    "Eq other": ("Eq number", "Eq boolean", "Eq datetime"),
    "In": ("In keyword 1", "In keyword 3", "In number", "In datetime"),
    "In 100, In 101": ("In keyword 101", "In keyword 100", "ContainsAny 101"),
    "In 101, In 301": ("In keyword 101", "In keyword 301", "ContainsAny 101"),
    "In 1001, In 2001": ("In keyword 1001", "In keyword 2001"),
    "Range": (
        "Range number", "Range number <", "Range number two-sided", "Range datetime", "Range datetime two-sided",
    ),
    "ContainsAny": ("ContainsAny keyword", "ContainsAny number"),
    "@document": ("@document", "@document StartsWith"),
    "@document In": ("@document In", "@chunk In"),
    "@document, @chunk": ("@document", "@document In", "@document StartsWith", "@chunk In"),
    "@label, @expires": ("@label", "@expires"),
    "@docgen, @path, @rev, @generation": ("@docgen", "@docgen In", "@path", "@rev", "@generation"),
    "@path, @time, @position": ("@path", "@time", "@position"),
    "@rev, @producer": ("@rev", "@producer"),
    "@docgen, @generation": ("@docgen", "@docgen In", "@generation"),
    "@time, @position": ("@time", "@position"),
}  # fmt: skip
"""Levels that stand for several kinds of leaves, which take turns."""
SCOPE_LEAVES = (
    "Always", "Never", "Eq", "In", "In 100, In 101", "In keyword 301", "In 1001, In 2001", "Range", "ContainsAny",
    "StartsWith", "Missing", "@document", "@document In", "@label, @expires", "@docgen, @path, @rev, @generation",
    "@producer", "@time, @position",
)  # fmt: skip
"""The levels of the leaf of a scope."""
LONG = frozenset({"In keyword 301", "In 101, In 301", "In 1001, In 2001"})
SCOPES: Mapping[str, tuple[str, str]] = {
    "tenant": ("", ""),
    "policy": ("leaf", ""),
    "policy Not": ("Not", ""),
    "policy And": ("And", ""),
    "policy Or": ("Or", ""),
    "policy Or in And": ("Or in And|Or of halves", ""),
    "policy Not of And": ("Not of And|Not of Or", ""),
    "policy deep": ("deep|deepest", ""),
    "policy none": ("none", ""),
    "narrow": ("", "leaf"),
    "narrow Not": ("", "Not|Not of Or"),
    "narrow Or": ("", "Or|Or in And"),
    "narrow twice": ("", "Or/Not"),
    "narrow actions": ("", "leaf!"),
    "policy Or, narrow Or": ("Or", "Or"),
    "policy, narrow twice": ("leaf", "Or/leaf"),
}
"""The forms of a scope: the shape of the policy's predicate, and the shapes of the narrowings one after the other.

"none" grants nothing, a "!" takes actions away too, and shapes with a "|" between them take turns.
"""
SCOPE_PARAMETERS = ("scope", "scope_leaf")


def leaf_of(kind: str) -> Leaf:
    """Return the kind of leaf that the level *kind* stands for; the first where it stands for several."""
    return LEAVES[GROUPS.get(kind, (kind,))[0]]


def declared(kinds: Sequence[str], can: Capabilities) -> list[str]:
    """Return those of *kinds* whose node the adapter declares."""
    return [kind for kind in kinds if leaf_of(kind).node in can.predicates]


class Ground:
    """The world with its rows evaluated: what calls are drawn from, and what shows whether a call can show a fault."""

    def __init__(self, world: World, capabilities: Capabilities) -> None:
        self.world = world
        self.can = capabilities
        self.vocabulary = list(dict.fromkeys(Draw(world.seed, "vocabulary").words(3_000).split()))
        self._pool: dict[tuple[str, str, int], Predicate] = {}
        self._seen: dict[tuple[str, str], set[str]] = {}
        biggest = max(world.tenants, key=lambda name: len(world.tenants[name]))
        everybody = Rows(biggest, world.tenants[biggest], world.roles)
        self.rows = {
            name: everybody if name == biggest else Rows(name, chunks, world.roles, everybody)
            for name, chunks in world.tenants.items()
        }

    def supports(self, predicate: Predicate) -> bool:
        """Return whether the adapter declares every node of *predicate*."""
        return type(predicate) in self.can.predicates and all(map(self.supports, operands_of(predicate)))

    def leaf(self, kind: str, rows: Rows, draw: Draw, others: Sequence[Predicate] = ()) -> Predicate:
        """Return a leaf of *kind* drawn from *rows*, if possible one that some rows match and some do not.

        There are a few for each tenant and kind, so that each is evaluated once. If possible it is
        over the field of one of *others*, and each matches rows that the other does not: a store may join two
        conditions on one field wrongly.
        """
        kinds = [one for one in GROUPS.get(kind, (kind,)) if LEAVES[one].node in self.can.predicates]
        places = [(one, place) for one in kinds for place in range(POOL if len(rows.chunks) > _FEW_ROWS else 2)]
        chosen = draw.some(places, len(places) if others else 1)
        leaves = [self._pooled(one, rows, place) for one, place in chosen]
        return max(leaves, key=lambda one: max((_joint(one, other, rows) for other in others), default=(0, 0)))

    def _pooled(self, kind: str, rows: Rows, place: int) -> Predicate:
        key = (kind, rows.name, place)
        if key not in self._pool:
            draw = Draw(self.world.seed, f"{rows.name}/{kind}/{place}")
            self._pool[key] = self._drawn(kind, rows, draw, rare=place % 2 == 1)
        return self._pool[key]

    def _drawn(self, kind: str, rows: Rows, draw: Draw, *, rare: bool) -> Predicate:
        """Draw a leaf that some rows match and some do not.

        In a tenant of the world with many rows it is one that shows what no leaf of this kind showed before, see
        `confusions`.
        """
        judged = kind not in LONG and rows.name in self.rows and len(rows.chunks) > _FEW_ROWS
        seen = self._seen.setdefault((kind, rows.name), set())
        best: tuple[tuple[int, int, float], Predicate, frozenset[str]] | None = None
        for _ in range(1 if kind in LONG else _LEAF_DRAWS):
            made = LEAVES[kind].make(rows, draw)
            if made is None or not self.supports(made):
                continue
            share = float(rows.mask(made).mean()) if rows.chunks else 0.5
            fits = 0.1 < share < 0.9 or (rare and 0 < share < 1)
            if fits and not judged:
                return made
            shown = confusions(made, rows) if judged else frozenset()
            worth = ((0 < share < 1) + fits, len(shown - seen), min(share, 1 - share))
            if best is None or worth > best[0]:
                best = worth, made, shown
        if best is None:
            return ALWAYS
        seen |= best[2]
        return best[1]

    def filter(self, shape: str, kind: str, rows: Rows, draw: Draw, kinds: Sequence[str]) -> Predicate:
        """Return a filter of *shape* around a leaf of *kind*; what it is joined with is of some of *kinds*.

        There are a few for each tenant, shape and kind. Of those that are drawn each is the one of which most parts
        matter to the rows.
        """
        if shape == "leaf":
            return self.leaf(kind, rows, draw)
        place = draw.py.randrange(POOL if len(rows.chunks) > _FEW_ROWS else 2)
        key = (f"{shape}/{kind}/{len(kinds)}", rows.name, place)
        if key not in self._pool:
            made = self._joined(shape, kind, rows, Draw(self.world.seed, "/".join(map(str, key))), kinds)
            rows.keep(made)
            self._pool[key] = made
        return self._pool[key]

    def _joined(self, shape: str, kind: str, rows: Rows, draw: Draw, kinds: Sequence[str]) -> Predicate:
        best: Predicate = ALWAYS
        best_share = -2.0
        short = [one for one in kinds if one not in LONG]
        ways = [one for one in VARIANTS.get(shape, ()) if one.nodes <= self.can.predicates]
        code = LEAVES["Eq code"].node in self.can.predicates

        def other() -> Predicate:
            return self.leaf(draw.py.choice(short), rows, draw)

        def single() -> Predicate:
            return self._pooled("Eq code", rows, draw.py.randrange(_SINGLE)) if code else other()

        def pick(way: Variant, leaf: Predicate) -> Pick:
            return (lambda: self.leaf(kind, rows, draw, [leaf])) if way.alike else other

        many = len(rows.chunks) > _FEW_ROWS
        way = draw.py.choice(ways) if many and ways and draw.py.random() < _VARIED else None
        for _ in range(_DRAWS if many else 2):
            leaf = self.leaf(kind, rows, draw)
            # The number of values of a filter is limited, and some shapes repeat their parts.
            made = SHAPES[shape].make(leaf, other) if way is None else way.make(leaf, pick(way, leaf), single)
            made = arranged(made, draw.py)
            share = telling(made, rows) if rows.chunks else 1.0
            if share > best_share:
                best, best_share = made, share
            if share == 1.0:
                break
        return best


def _joint(one: Predicate, other: Predicate, rows: Rows) -> tuple[int, int]:
    """Return how well two leaves over one field show what a store makes of both: zeros if they are not over one.

    First the number of kinds of rows that there are, of both and of either alone; then whether their form is one.
    """
    if fields_of(one) != fields_of(other) or one == other:
        return (0, 0)
    mine, its = rows.mask(one), rows.mask(other)
    shown = sum(bool(some.any()) for some in (mine & its, mine & ~its, its & ~mine))
    return (1 + shown, _form(one) == _form(other))


def _form(leaf: Predicate) -> tuple[Any, ...]:
    """Return the node of a leaf, and which of its bounds it has."""
    bounds = (leaf.gt, leaf.gte, leaf.lt, leaf.lte) if isinstance(leaf, Range) else ()
    return (type(leaf), *(one is None for one in bounds))


@dataclass
class Draft:
    """A call that is being put together: its levels, and what was drawn for them so far.

    `partitions` are the predicates of the policy by tenant, in the order of the scope, and `granted` says whether the
    table has to name the principal. `cut` returns a score below which the rest lies after a share of the visible rows,
    `permitted` their number.
    """

    ground: Ground
    draw: Draw
    levels: Mapping[str, str]
    principal: Principal
    tenant: str
    partitions: Mapping[str, Predicate]
    narrowings: tuple[Narrowing, ...]
    granted: bool = False
    known: Mapping[str, Rows] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    cut: Callable[[float], float] = lambda _: 0.0
    permitted: Callable[[], int] = lambda: 0

    def enter(self) -> None:
        """Add the principal to the policy of the world, if it needs one."""
        if self.granted:
            table = dict.fromkeys(ALL_ACTIONS, self.partitions) if self.partitions else {}
            self.ground.world.grant(self.principal.id, table)

    @property
    def rows(self) -> Rows:
        """The rows of the asking tenant."""
        return self.known[self.tenant]

    def as_scope(self, rows: Rows) -> Predicate:
        """Return a leaf of the kind of the scope's, if possible another one over the same field."""
        others = [*self.partitions.values(), *(narrowing for narrowing, _ in self.narrowings)]
        return self.ground.leaf(self.levels["scope_leaf"], rows, self.draw, others)


Maker = Callable[[Draft], Any] | None
"""Draws the value of an argument; None leaves the argument out."""


def shape_nodes(shapes: Sequence[str]) -> frozenset[type[Predicate]]:
    """Return the nodes that *shapes* need, of those that take turns all."""
    names = [name for one in shapes for name in one.split("|")]
    return frozenset().union(*(SHAPES[name].nodes for name in names if name in SHAPES))


def check_tables(nodes: Sequence[type[Predicate]] = NODES, tags: Sequence[str] = tuple(TAG_FIELDS)) -> None:
    """Refuse what the tables do not know. Raises: NoLevelsError that names it."""
    for node in nodes:
        if node not in {leaf.node for leaf in LEAVES.values()} | shape_nodes(list(SHAPES)):
            raise NoLevelsError(f"the node {node.__name__} has no leaf and no shape")
    for name in tags:
        if not any(name in leaf.fields for leaf in LEAVES.values()):
            raise NoLevelsError(f"the tag field {name} has no leaf")


def scope_parameters(
    world: World, can: Capabilities, left_out: dict[str, str], sizes: Sequence[str] = ()
) -> list[Parameter]:
    """Return the pseudo-parameters of every operation: mode, asking tenant, partitions and the form of the scope."""
    check_tables()
    forms = []
    for name, (policy, narrow) in SCOPES.items():
        if shape_nodes([policy, *narrow.strip("!").split("/")]) <= can.predicates:
            forms.append(name)
        else:
            left_out[f"scope: {name}"] = "the adapter does not declare its nodes"
    for name, leaf in LEAVES.items():
        if leaf.node not in can.predicates:
            left_out[f"leaf: {name}"] = f"the adapter does not declare {leaf.node.__name__}"
    leaves = declared(SCOPE_LEAVES, can)
    rows = sizes or tuple(map(str, sorted(world.asking)))
    partitions = tuple(str(one) for one in PARTITIONS if one <= world.partitions)
    return [
        Parameter("mode", ("sync", "async")),
        Parameter("rows", tuple(rows), frozenset({"0", "1"} & set(rows)), {"2060": 1.0, "0": 2.0, "1": 1.0}),
        Parameter("partitions", partitions, frozenset(), {"16": 2.0, "64": 8.0, "8": 1.0}),
        Parameter("scope", tuple(forms), frozenset({"policy none"})),
        Parameter("scope_leaf", tuple(leaves), frozenset(one for one in leaves if leaf_of(one).alone)),
    ]


def scope_constraints(filters: Sequence[tuple[str, str]] = ()) -> dict[Pair, str]:
    """Return the pairs of levels of the scope's parameters that make no call, with the reasons.

    *filters* are levels that stand for a filter which is drawn like the scope (`Draft.as_scope`): the scope is a leaf
    then that a caller may use, so that both are over one field.
    """
    forbidden: dict[Pair, str] = {}
    for like in filters:
        for form, parts in SCOPES.items():
            if sorted(one.strip("!") for one in parts) != ["", "leaf"]:
                forbidden[("scope", form), like] = "the filter is drawn like a scope that is a leaf"
        for kind in SCOPE_LEAVES:
            if not _callers(kind):
                forbidden[("scope_leaf", kind), like] = "a caller's filter may not be such a leaf"
    for form, (policy, _) in SCOPES.items():
        for count in PARTITIONS:
            if (not policy or policy == "none") and count > 1:
                forbidden[("scope", form), ("partitions", str(count))] = "without a table there is one partition"
        for kind in SCOPE_LEAVES:
            if not policy and leaf_of(kind).policy:
                forbidden[("scope", form), ("scope_leaf", kind)] = "a caller's filter may not use this field of the tag"
            if form in ("tenant", "policy none") and kind != "Always":
                forbidden[("scope", form), ("scope_leaf", kind)] = "the form has no filter"
    return forbidden


def _callers(kind: str) -> bool:
    """Return whether *kind* is one that a caller's filter can have, and that some rows match and others do not."""
    leaf = leaf_of(kind)
    return kind not in LONG and kind != "Always" and not leaf.policy and not leaf.alone


def _turn(shapes: str, draw: Draw) -> str:
    """Return *shapes* with one of those that take turns."""
    return "/".join(draw.py.choice(one.split("|")) for one in shapes.split("/"))


def principal_of(world: World, name: str, tenant: str) -> Principal:
    """Return a principal of *tenant* whose id follows from *name* and the seed."""
    who = Draw(world.seed, name)
    first = who.py.choice(_TELLING) if who.py.random() < 0.2 else who.word()
    mail = f"{first}.{who.word()}{who.py.randrange(10**5)}@{who.word()}.example"
    return Principal(mail, tenant, authenticated_by="oidc:https://id.example")


def draft(
    ground: Ground,
    draw: Draw,
    levels: Mapping[str, str],
    name: str,
    tenant: str = "",
    order: Sequence[str] = (),
    rows: Mapping[str, Rows] | None = None,
    leaves: Sequence[str] = SCOPE_LEAVES,
) -> Draft:
    """Draw the principal *name*, its rules and its narrowings for *levels*.

    Args:
        ground: The world.
        draw: The source of everything random.
        levels: The levels of the scope's parameters.
        name: A name that no other call has.
        tenant: The tenant of the principal; without one, that of the size of the level "rows".
        order: The partitions that a policy grants; without any, as many as the level "partitions" says.
        rows: The rows of tenants that the world does not have, or that have others by now.
        leaves: The kinds of leaves that may occur.
    """
    world = ground.world
    known = {**ground.rows, **(rows or {})}
    tenant = tenant or world.sized(int(levels["rows"]))
    policy, narrow = (_turn(one, draw) for one in SCOPES[levels["scope"]])
    kind = levels["scope_leaf"]
    principal = principal_of(world, name, tenant)
    kinds = [one for one in declared(leaves, ground.can) if not leaf_of(one).alone and one != "Always"]
    caller_kinds = [one for one in kinds if not leaf_of(one).policy]
    partitions: dict[str, Predicate] = {tenant: ALWAYS}
    if policy == "none":
        partitions = {}
    elif policy:
        partitions = {}
        short = [one for one in kinds if one not in LONG]
        if not order:
            others = draw.some([one for one in world.small if one != tenant], int(levels["partitions"]) - 1)
            order = draw.some([tenant, *others], len(others) + 1)
        for place, one in enumerate(order):
            shape = policy if one == tenant or place % 4 < 3 else draw.py.choice(("leaf", "Or", "Not"))
            repeated = place % 2 and (kind not in LONG or place == 1)  # a list of thousands in each of 64 takes long
            mixed = kind if one == tenant or len(order) == 1 or repeated else draw.py.choice(short)
            partitions[one] = ground.filter(shape, mixed, known[one], draw, kinds)
    narrowings: list[Narrowing] = []
    drawn_from = known[tenant if tenant in partitions or not partitions else next(iter(partitions))]
    for shape in narrow.strip("!").split("/") if narrow else ():
        again = not narrowings or draw.py.random() < _VARIED  # two conditions on one field
        own_kind = kind if again and not leaf_of(kind).policy else draw.py.choice(caller_kinds)
        actions = ALL_ACTIONS - {"delete"} if narrow.endswith("!") else None
        narrowings.append((ground.filter(shape, own_kind, drawn_from, draw, caller_kinds), actions))
    made = Draft(ground, draw, levels, principal, tenant, partitions, tuple(narrowings), granted=bool(policy))
    made.known = known
    return made
