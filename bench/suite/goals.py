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
    cost, bulk, sizes = results.get("own_cost"), results.get("bulk"), results.get("sizes")
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
        *[
            _goal(
                f"scoped search over a bare query, {size:,} chunks, local socket",
                "times",
                "<=",
                target,
                sizes[str(size)]["ratio"]["scoped"] if sizes else None,
            )
            for size, target in ((50, 1.5), (500, 1.2), (2_000, 1.0))
        ],
        _goal("overhead of a search, decision cached", "µs", "<=", 40, cost["one partition"] if cost else None),
        _goal("overhead of a search over two partitions", "µs", "<=", 60, cost["two partitions"] if cost else None),
        _goal(
            "bulk write, speed over the raw client's fastest way as the same role",
            "times",
            ">=",
            0.9,
            bulk["ratio_to_fastest_raw"] if bulk else None,
        ),
        *_bits(results),
    ]


def _bits(results: dict[str, Any]) -> list[Goal]:
    """Judge searches by bits; the shares are asked where nothing is visible."""
    shared = next((one for one in results.get("bits_shared", ()) if one["rows"] == 20_000 and one["vacuumed"]), None)
    ours = shared["layouts"]["ours"] if shared else None
    found = [
        _goal("tenant of 20,000 x 384 in the shared partition, p50", "ms", "<=", 6, ours["p50_ms"] if ours else None),
        _goal("recall@10 of the same", "recall", ">=", 0.99, ours["recall"] if ours else None),
    ]
    for number, (share, target) in enumerate(((1, 1.0), (10, 3.0), (50, 4.0))):
        part = results["bits_visible"][number]["layouts"] if "bits_visible" in results else {}
        for way in ("label", "metadata"):
            one = part.get(f"ours, by {way}", {})
            title = f"{share} % visible by {way}, next to hidden topics"
            found += [
                _goal(f"{title}: recall@10", "recall", ">=", 0.99, one.get("recall")),
                _goal(f"{title}: over the unscoped search", "times", "<=", target, one.get("times_unscoped")),
            ]
    return found


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
