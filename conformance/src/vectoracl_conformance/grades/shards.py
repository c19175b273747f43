"""E3 at shard level, for engines that keep each tenant in a separate shard and report where they ranked.

A correct search ranks in the asking tenant's shard and reads in no other one, next to many foreign rows as next to
none, and gives the same answer while every foreign shard is out of service. Vectors are not counted, so this proves
where the engine ranked, not how many vectors it scored there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from vectoracl_conformance.context.corpus import Corpus, K
from vectoracl_conformance.harness import Shards
from vectoracl_conformance.verdict import EvidenceState

Stage = Literal["next to none", "next to foreign rows", "foreign parts shut"]
STAGES: tuple[Stage, ...] = ("next to none", "next to foreign rows", "foreign parts shut")


@dataclass(frozen=True, slots=True)
class Seen:
    """One search of *tenant*: its hits (None: an error), and what moved while it ran, by part."""

    tenant: str
    mode: str
    stage: Stage
    hits: int | None
    ranked: dict[str, int]
    read: frozenset[str]


def watched(engine: Shards, tenant: str, mode: str, stage: Stage, search: Callable[[], int]) -> Seen:
    """Search, and note what moved."""
    rankings, work = engine.rankings(), engine.work()
    try:
        hits: int | None = search()
    except Exception:  # noqa: BLE001 - whatever it is, an answer changed
        hits = None
    now, work_now = engine.rankings(), engine.work()
    ranked = {part: count - rankings.get(part, 0) for part, count in now.items() if count != rankings.get(part, 0)}
    return Seen(tenant, mode, stage, hits, ranked, frozenset(p for p, one in work_now.items() if one != work.get(p, 0)))


def judge_shards(engine: Shards, corpus: Corpus, seen: Sequence[Seen], *, refused: bool) -> tuple[EvidenceState, str]:
    """Judge what was seen; *refused* is whether a part that was shut refused the kit's own ranking."""
    breach = _breach(engine, seen)
    if breach:
        return "failed", breach
    doubt = _doubt(engine, corpus, seen, refused=refused)
    if doubt:
        return "abstained", doubt
    parts = len({engine.part(tenant) for tenant in corpus.other_tenants})
    return "passed", (
        f"shard level: {len(seen)} searches ranked in the asking tenant's shard alone, read in no other one, and "
        f"answered the same with all {parts} foreign shards out of service; vectors are not counted"
    )


def _breach(engine: Shards, seen: Sequence[Seen]) -> str:
    first = {(one.mode, one.tenant): one for one in seen if one.stage == STAGES[0]}
    for one in seen:
        own = engine.part(one.tenant)
        where = f"{one.mode}, {one.stage}"
        if foreign := sorted(set(one.ranked) - {own}):
            return f"{where}: it ranked in {len(foreign)} parts of other tenants"
        if foreign := sorted(one.read - {own}):
            return f"{where}: it read in {len(foreign)} parts of other tenants"
        alone = first[one.mode, one.tenant]
        if one.hits != alone.hits:
            return f"{where}: {one.hits} hits, {alone.hits} next to none"
        if one.ranked != alone.ranked:
            return f"{where}: {sum(one.ranked.values())} rankings, {sum(alone.ranked.values())} next to none"
    return ""


def _doubt(engine: Shards, corpus: Corpus, seen: Sequence[Seen], *, refused: bool) -> str:
    for one in seen:
        if not one.ranked.get(engine.part(one.tenant)) or not one.hits:
            return f"{one.mode}, {one.stage}: no ranking was seen in the asking tenant's own part"
    if not refused:
        return "the control: a part that was shut still answered"
    foe = corpus.other_tenants[0]
    control = watched(
        engine, foe, "control", "next to foreign rows",
        lambda: engine.rank(foe, [float(number) for number in corpus.centre], K) or 0,
    )  # fmt: skip
    part = engine.part(foe)
    if not control.hits or not control.ranked.get(part) or part not in control.read:
        return "the control: the kit's own ranking in a foreign part moved nothing there"
    idle = watched(engine, foe, "control", "next to foreign rows", lambda: 0)
    if idle.ranked or idle.read:
        return "the counters move by themselves"
    return ""
