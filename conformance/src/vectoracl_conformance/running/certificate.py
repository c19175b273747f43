"""The parts of a report that say what was measured, how much of it, and what no kit can see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NOT_PROVED: tuple[tuple[str, str], ...] = (
    (
        "after the first hour",
        "The run took minutes; `--hours` repeats its generated calls.",
    ),
    (
        "after midnight",
        "The run has one date, and a token or a rule may end or begin.",
    ),
    ("on another host", "One machine, its processors, clock and limits."),
    ("with another account", "One account of the store, with its role and its rights."),
    (
        "in another region or network",
        "One server and one way to it, with its proxies and caches.",
    ),
    ("at another size", "The sizes, the dimension and the metric that the report names."),
    ("in another process", "A few processes of one interpreter; not a fork, a restart or many hosts at once."),
    ("with other versions", "The versions that the report names, of the adapter, its client, the server and Python."),
    ("where it expects this kit's data", "Names, data and calls are drawn, but by rules that can be read."),
)
"""The cases that no kit can see, in short, and what was seen instead."""


@dataclass(frozen=True, slots=True)
class Calls:
    """The generated calls of a run, and the share of their space that they cover.

    Attributes:
        number: The number of calls.
        pairs: Pairs of two parameters' levels in one operation: those covered, and all that the adapter declares.
        triples: The same for an operation, a form of the scope and a level of an argument.
        left_out: The reason for each part of the space that was left out, by what it is.
        dimension: The number of components of the vectors; 0: no calls were generated.
        metric: The metric of the store.
        census: How the rows were read: "in-process" if the store lives in the adapter's process, else "out-of-band".
    """

    number: int = 0
    pairs: tuple[int, int] = (0, 0)
    triples: tuple[int, int] = (0, 0)
    left_out: Mapping[str, str] = field(default_factory=dict)
    dimension: int = 0
    metric: str = ""
    census: str = "out-of-band"

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Calls:
        """Return the calls that the runner's event "calls" describes."""
        pairs, triples = (tuple(map(int, event[name])) for name in ("pairs", "triples"))
        left_out = {str(what): str(why) for what, why in event["left_out"].items()}
        world = (int(event["dimension"]), str(event["metric"]), str(event["census"]))
        return cls(int(event["calls"]), pairs, triples, left_out, *world)  # type: ignore[arg-type]  # pairs have two

    @property
    def whole(self) -> bool:
        """Whether everything that the adapter declares is covered."""
        return all(covered == possible for covered, possible in (self.pairs, self.triples))

    def as_json(self) -> dict[str, Any]:
        """Return the calls for the machine-readable report."""
        return {
            "number": self.number,
            "pairs": {"covered": self.pairs[0], "possible": self.pairs[1]},
            "triples": {"covered": self.triples[0], "possible": self.triples[1]},
            "left_out": [{"what": what, "why": why} for what, why in sorted(self.left_out.items())],
            "dimension": self.dimension,
            "metric": self.metric,
        }

    def line(self) -> str:
        """Return the calls as one line."""
        if not self.number:
            return "no generated calls"
        shares = (f"{_share(*of)} of the {name}" for name, of in (("pairs", self.pairs), ("triples", self.triples)))
        return f"{self.number:,} generated calls: {' and '.join(shares)}; dimension {self.dimension}, {self.metric}"


def _share(covered: int, possible: int) -> str:
    """Return a share that is rounded down, so that only all of them are 100 %."""
    return f"{1000 * covered // possible / 10:g} % ({covered:,})" if possible else "none"


def certified(about: Mapping[str, Any]) -> dict[str, str]:
    """Return what the report is about: the adapter, its distribution, version and the digest of its files."""
    code = about.get("code", {})
    return {name: str(code.get(name, "")) for name in ("adapter", "distribution", "version", "digest")}
