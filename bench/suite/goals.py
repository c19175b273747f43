"""The goals, what was reached, and the table of both. A ratio below its goal is said, never asserted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Goal:
    """`reached` None: not measured in this run."""

    goal: str
    unit: str
    target: str
    reached: float | None
    met: bool | None


def _goal(text: str, unit: str, way: Literal["<=", ">="], target: float, reached: float | None) -> Goal:
    if reached is None:
        return Goal(text, unit, f"{way} {target:g}", None, None)
    met = reached <= target if way == "<=" else reached >= target
    return Goal(text, unit, f"{way} {target:g}", round(reached, 4), met)


def _searches(found: dict[str, Any] | None) -> list[Goal]:
    rows = found["rows"] if found else []

    every = [one for one in rows if one["layout"] == "ours"]
    overlap = [one for one in every if one["geometry"] == "overlap"]
    hostile = [one for one in every if one["geometry"] == "hostile"]
    small = [one for one in hostile if one["tenant_rows"] <= 2000]
    large = [one for one in hostile if one["tenant_rows"] > 2000]

    def worst(picked: list[dict[str, Any]], key: str) -> float | None:
        return min((one[key] for one in picked), default=None)

    share = next((one for one in overlap if one["role"] == "0.5 %"), None)
    strict = next(
        (
            one
            for one in rows
            if one["layout"] == "strict, index forced" and one["role"] == "0.5 %" and one["geometry"] == "overlap"
        ),
        None,
    )
    return [
        _goal("rows = min(k, owned), share of queries", "share", ">=", 1.0, worst(every, "full")),
        _goal("recall@10, overlap, worst tenant", "recall", ">=", 0.99, worst(overlap, "recall")),
        _goal("recall@10, hostile, tenants up to 2,000 rows", "recall", ">=", 1.0, worst(small, "recall")),
        _goal("recall@10, hostile, larger tenants, defaults", "recall", ">=", 0.98, worst(large, "recall")),
        _goal(
            "p50 of strict iterative scan over ours, tenant of 0.5 %",
            "times",
            ">=",
            20,
            strict["p50_ms"] / share["p50_ms"] if strict and share else None,
        ),
    ]


def goals(results: dict[str, Any]) -> list[Goal]:
    """Judge the *results* of a run; what was not measured is None."""
    growth, trips = results.get("growth"), results.get("round_trips")
    cost, bulk = results.get("own_cost"), results.get("bulk")
    grown = None
    if growth:
        grown = max(growth[title][-1]["ratio"] for title in ("ours, shared partition", "ours, own partition"))
    return [
        *_searches(results.get("searches")),
        _goal("p50 after 16-fold growth over before, worse of two tiers", "times", "<=", 1.25, grown),
        _goal(
            "scoped search over a bare query, 1 ms round trip",
            "times",
            "<=",
            1.15,
            trips["0.001"]["ratio"]["scoped"] if trips else None,
        ),
        _goal("overhead of a search, decision cached", "µs", "<=", 40, cost["one partition"] if cost else None),
        _goal("overhead of a search over two partitions", "µs", "<=", 60, cost["two partitions"] if cost else None),
        _goal(
            "bulk write, speed over the raw client's fastest way as the same role",
            "times",
            ">=",
            0.9,
            bulk["ratio_to_fastest_raw"] if bulk else None,
        ),
    ]


def as_json(found: list[Goal]) -> list[dict[str, Any]]:
    """Return the goals as they are kept in bench/out."""
    return [asdict(one) for one in found]


def show(console: Console, found: list[Goal]) -> None:
    """Print the table of goals."""
    table = Table(title="Goals")
    for column in ("goal", "unit", "target", "reached", ""):
        table.add_column(column, justify="left" if column == "goal" else "right")
    for one in found:
        state = "not measured" if one.met is None else "[green]met[/]" if one.met else "[red]missed[/]"
        reached = "" if one.reached is None else f"{one.reached:.3g}"
        table.add_row(one.goal, one.unit, one.target, reached, state)
    console.print(table)
