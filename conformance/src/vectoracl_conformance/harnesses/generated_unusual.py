"""Unusual but right adapters over the memory store, as text: each peculiarity by itself, and drawn combinations.

Between them they declare each value that a capability may have; `values_of` lists those, from `Capabilities` itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.filters.predicate import NODES, Always, Never, Predicate
from vectoracl.model.records import Record
from vectoracl_conformance.harness import Mutant, Needs, Store
from vectoracl_conformance.harnesses.memory import MemoryHarness, MemoryStore
from vectoracl_conformance.verdict import MODES

Metric = Literal["cosine", "inner", "l2"]


@dataclass(frozen=True, slots=True)
class Unusual:
    """One unusual adapter.

    Attributes:
        name: A stable name.
        layers: The layers as Python text, from the inside out; see `peculiar`.
        metric: The metric of the memory store.
    """

    name: str
    layers: tuple[str, ...]
    metric: Metric = "cosine"

    @property
    def source(self) -> str:
        """The text of a program that defines `dress(opened)` and `restored(row)`."""
        imports = f"from vectoracl.filters.predicate import {', '.join(node.__name__ for node in NODES)}"
        return f"{_base()}\n\n{imports}\nLAYERS = [{', '.join(self.layers)}]\n"


@cache
def _base() -> str:
    first, second = (
        Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("peculiar.py", "peculiar_storage.py")
    )
    lines = [line for line in second.splitlines() if not line.startswith(("from __future__", "from vectoracl_conform"))]
    return first + "\n".join(lines)


class UnusualStore(MemoryStore):
    """A memory store whose census gives the rows as they were written, whatever form the adapter gave them."""

    def __init__(self, needs: Needs, restored: Callable[[Record], Record]) -> None:
        super().__init__(needs)
        self._restored = restored
        self.census_source += _CENSUS

    def census(self) -> Sequence[Record]:
        """Read every row."""
        return [self._restored(row) for row in super().census()]


class UnusualHarness(MemoryHarness):
    """The memory adapter in the layers of *unusual*, which only the kit's own tests put around it: `variant`."""

    def __init__(self, unusual: Unusual) -> None:
        self._names: dict[str, Any] = {}
        exec(compile(unusual.source, "<unusual>", "exec"), self._names)  # noqa: S102 - the kit's own text
        self.metrics: Sequence[Metric] = (unusual.metric,)  # type: ignore[assignment]
        self.variant = Mutant(unusual.name, "nothing", "", source=unusual.source, modes=MODES)

    def fresh(self, needs: Needs) -> Store:
        """Return an empty store."""
        return UnusualStore(needs, self._names["restored"])


_CENSUS = """
_rows_as_stored = census

def census(client):
    return [restored(row) for row in _rows_as_stored(client)]
"""
_SIMPLE = {
    "small limits": "SmallLimits",
    "short chunks": "ShortChunks",
    "tuned": "Tuned",
    "deletes uncounted": "Uncounted",
    "approximate": "Approximate",
    "never exact": "Unsure",
    "distances": "Distances",
    "single scores": "SingleScores",
    "other ties": "OtherTies",
    "generous": "Generous",
    "over-asking": "OverAsking",
    "tuples": "Tuples",
    "unsorted facets": "UnsortedFacets",
    "doubles": "Doubles",
    "small pages": "SmallPages",
    "pages of one": "PagesOfOne",
    "one more page": "OneMorePage",
    "ranked, then fetched": "RankedThenFetched",
    "lists in parts": "ListsInParts",
    "paged counts": "PagedCounts",
    "paged facets": "PagedFacets",
    "deletes by ids": "DeletesByIds",
    "writes in batches": "InBatches",
    "removes, then writes": "RemovesThenWrites",
    "writes twice": "WritesTwice",
    "retries inside": "RetriesInside",
    "conflicts": "Conflicts",
    "half precision": "Half",
    "normalises": "Normalises",
    "extra fields": "ExtraFields",
    "renamed ids": "RenamedIds",
    "slow": "Slow",
    "slow start": "SlowStart",
    "side by side": "SideBySide",
    "enveloped": "Enveloped",
    "talkative": "Talkative",
    "by words": "ByWords",
    "no unscoped search": "NoUnscoped",
    "eventual": "declaring(visible='eventual')",
    "no labels": "declaring(relabel='none')",
    "labels one by one": "declaring(relabel='conditional')",
    "labels blindly": "declaring(relabel='blind')",
    "governed numbers by rows": "declaring(governed_numbers='rows')",
    "no updates": "declaring(atomic_update='none')",
    "updates one by one": "declaring(atomic_update='chunks')",
    "no exact": "declaring(exact=False)",
    "no groups": "declaring(group_by=False)",
    "counts nothing": "declaring(count='none')",
    "no facets": "declaring(facets='none')",
    "no copy": "declaring(verbatim=False)",
    "no words": "declaring(queries=frozenset({'vector'}))",
    "no hybrid": "declaring(queries=frozenset({'vector', 'lexical'}))",
    "no lexical": "declaring(queries=frozenset({'vector', 'hybrid'}))",
    "deadlines of the server": "declaring(deadlines='server')",
    "no deadlines": "declaring(deadlines='none')",
    "grade none": "graded('none')",
    "grade predicate": "graded('predicate')",
    "grade engine": "graded('engine')",
    "grade credential": "graded('credential')",
    "less than it reaches": "declaring(grade='predicate')",
    "loads by bytes": "declaring(max_write_bytes=30_000, number_bytes=8, writes_in_flight=4)",
    **{f"no {one}": f"unable({one!r})" for one in ("fetch", "count", "scan", "replace", "delete")},
    **{f"no {node.__name__}": f"without({node.__name__})" for node in NODES if node not in (Always, Never)},
}
UNDECLARABLE = {
    ("operations", "search"): "the kit could not ask anything",
    ("operations", "upsert"): "the kit could not write anything through a handle",
    ("queries", "vector"): "every store ranks by vector",
}
"""Capabilities that every adapter of this kit has, with the reason."""
_APART = (
    {"approximate", "never exact"},
    {"distances", "single scores", "other ties"},
    {"small pages", "pages of one", "one more page"},
    {"half precision", "normalises"},
    {"no words", "no hybrid", "no lexical", "by words"},
    {"counts nothing", "no count", "paged counts", "single scores"},
    {"no facets", "paged facets", "unsorted facets"},
    {"writes in batches", "writes twice"},
    {"deletes by ids", "no scan", "paged counts"},
    {"conflicts", "retries inside"},
    {"grade none", "grade predicate", "grade engine", "grade credential", "less than it reaches"},
    {"deadlines of the server", "no deadlines"},
    {"no exact", "never exact"},
    {"ranked, then fetched", "no fetch", "lists in parts"},
    {"tuples", "over-asking"},
)
"""Peculiarities that exclude each other."""
# They use operations that those around them may not have.
_INSIDE = ("removes, then writes", "writes in batches", "by words", "deletes by ids", "paged counts", "renamed ids")


def _combined(seed: int, count: int) -> Iterable[Unusual]:
    rng = random.Random(seed)  # noqa: S311 - repeatable, and no secret
    usable = [name for name in _SIMPLE if name not in ("slow start", "grade none")]
    for number in range(count):
        names: list[str] = []
        for name in rng.sample(usable, len(usable)):
            if len(names) < 4 and not any(name in group and set(names) & group for group in _APART):
                names.append(name)
        names.sort(key=lambda name: name not in _INSIDE)
        metric: Metric = ("cosine", "inner", "l2")[number % 3] if "normalises" not in names else "cosine"
        yield Unusual(", ".join(names), tuple(_SIMPLE[name] for name in names), metric)


@cache
def unusual(seed: int = 1, combinations: int = 12) -> Sequence[Unusual]:
    """Return every peculiarity by itself, each metric, and *combinations* that are drawn by *seed*."""
    single = [Unusual(name, (layer,)) for name, layer in _SIMPLE.items()]
    metrics = [Unusual(f"metric {one}", (), one) for one in get_args(Metric)]
    return (*single, *metrics, *_combined(seed, combinations))


def values_of(field: str, kind: Any, default: Any) -> Mapping[str, Any]:
    """Return the values that the capability *field* may be declared with, by a name for each.

    A set is declared with and without each member; a number or a mapping with its default and with something else.
    Raises: TypeError for a type that is not known here.
    """
    if get_origin(kind) is Literal:
        return {repr(one): (lambda value, one=one: value == one) for one in get_args(kind)}
    if kind is bool:
        return {"True": lambda value: value is True, "False": lambda value: value is False}
    if get_origin(kind) is frozenset:
        (member,) = get_args(kind)
        members = NODES if member == type[Predicate] else get_args(member)
        names = {getattr(one, "__name__", one): one for one in members if one not in (Always, Never)}
        return {
            f"without {name}": (lambda value, one=one: one not in value)
            for name, one in names.items()
            if (field, name) not in UNDECLARABLE
        }
    if kind in (int, int | None) or (isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Mapping)):
        if default is MISSING or default is NoneType:
            return {"any": lambda _: True}
        return {"default": lambda value: value == default, "other": lambda value: value != default}
    raise TypeError(f"Capabilities.{field} is of a type that no unusual adapter is made for: {kind}.")


def declarable() -> Mapping[str, Any]:
    """Return a test for each value that can be declared, by "field: value"."""
    hints = get_type_hints(Capabilities)
    tests: dict[str, Any] = {}
    for one in fields(Capabilities):
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        for name, test in values_of(one.name, hints[one.name], default).items():
            tests[f"{one.name}: {name}"] = lambda able, field=one.name, test=test: test(getattr(able, field))
    return tests
