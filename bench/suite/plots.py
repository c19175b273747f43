"""The plots of a run, from its JSON alone: `python bench/suite/plots.py` draws them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

OUT = Path(__file__).parent.parent / "out"


def searches(found: dict[str, Any], out: Path) -> None:
    """Recall and p50 by the tenant's size, a panel a geometry."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), sharex=True, layout="constrained")
    layouts = list(dict.fromkeys(one["layout"] for one in found["rows"]))
    for column, geometry in enumerate(("overlap", "hostile")):
        for layout in layouts:
            picked = sorted(
                (one for one in found["rows"] if one["layout"] == layout and one["geometry"] == geometry),
                key=lambda one: one["tenant_rows"],
            )
            sizes = [one["tenant_rows"] for one in picked]
            axes[0, column].plot(sizes, [one["recall"] for one in picked], marker="o", label=layout)
            axes[1, column].plot(sizes, [one["p50_ms"] for one in picked], marker="o", label=layout)
        axes[0, column].set(title=geometry, ylabel="recall@10", ylim=(-0.03, 1.03))
        axes[1, column].set(ylabel="p50, ms", xlabel="rows of the tenant", xscale="log", yscale="log")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(out / "searches.png", dpi=120)
    plt.close(figure)


def growth(found: dict[str, Any], out: Path) -> None:
    """P50 of a tenant of fixed size while the table grows."""
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for title, points in found.items():
        axis.plot([one["rows"] for one in points], [one["p50_ms"] for one in points], marker="o", label=title)
    axis.set(xlabel="rows of the table", ylabel="p50, ms", xscale="log", yscale="log")
    axis.legend()
    figure.savefig(out / "growth.png", dpi=120)
    plt.close(figure)


def round_trips(found: dict[str, Any], out: Path) -> None:
    """Ratio to a bare query at each round-trip time."""
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    names = list(next(iter(found.values()))["ratio"])
    width = 0.8 / len(names)
    for number, title in enumerate(names):
        values = [one["ratio"][title] for one in found.values()]
        axis.bar([place + number * width for place in range(len(found))], values, width, label=title)
    axis.set_xticks([place + 0.3 for place in range(len(found))], [f"{float(key) * 1e3:g} ms" for key in found])
    axis.axhline(1.15, color="grey", linestyle="--", linewidth=1)
    axis.set(xlabel="added round-trip time", ylabel="times a bare query")
    axis.legend()
    figure.savefig(out / "round_trips.png", dpi=120)
    plt.close(figure)


def visible(found: list[dict[str, Any]], out: Path) -> None:
    """Recall, and p50 as a multiple of the unscoped search, by the share of a tenant that is visible."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharex=True, layout="constrained")
    shares = [100 * one["share"] for one in found]
    for name in (name for name in found[0]["layouts"] if name != "unscoped"):
        layouts = [one["layouts"][name] for one in found]
        axes[0].plot(shares, [one["recall"] for one in layouts], marker="o", label=name)
        axes[1].plot(shares, [one["times_unscoped"] for one in layouts], marker="o", label=name)
    axes[0].axhline(0.99, color="grey", linestyle="--", linewidth=1)
    axes[0].set(ylabel="recall@10", ylim=(-0.03, 1.03), xlabel="visible, %", xscale="log")
    axes[1].set(ylabel="times the unscoped search", xlabel="visible, %", xscale="log", yscale="log")
    axes[0].legend(fontsize=8)
    figure.savefig(out / "bits_visible.png", dpi=120)
    plt.close(figure)


def draw(results: dict[str, Any], out: Path) -> list[str]:
    """Draw what *results* hold; return the files' names."""
    made = []
    every = {"searches": searches, "growth": growth, "round_trips": round_trips, "bits_visible": visible}
    for name, plot in every.items():
        if results.get(name):
            plot(results[name], out)
            made.append(f"{name}.png")
    return made


if __name__ == "__main__":
    draw(json.loads((OUT / "pgvector.json").read_text())["results"], OUT)
