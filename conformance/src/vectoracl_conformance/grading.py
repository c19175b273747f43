"""The grades of evidence beyond results: what goes over the wire (E2) and what the engine scored (E3).

Each is measured on a store of its own, with a client of its own, beside none, some and many foreign rows. A grade
whose control fails abstains; a store that offers no wire or counter leaves it not run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from vectoracl_conformance.corpus import DIMENSION, FIELDS, OWN_FEW, OWN_MANY, Corpus, build
from vectoracl_conformance.engine import Options
from vectoracl_conformance.evidence.sessions import Recording, Window
from vectoracl_conformance.evidence.tap import Tap
from vectoracl_conformance.evidence.volume import Sample, grade_volume, sample
from vectoracl_conformance.harness import Engine, Harness, Mutant, Needs, Store
from vectoracl_conformance.lab import Lab, Mode, Wrap, drive
from vectoracl_conformance.verdict import EvidenceState

SANITY = 8  # a right search may score a row for the output, for the order and once more if it has to ask again


@dataclass(frozen=True, slots=True)
class Grading:
    """What became of one grade, and why."""

    grade: str
    state: EvidenceState
    reason: str


def _do(mode: Mode, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return drive(make()) if mode == "sync" else asyncio.run(make())


def _plant(
    store: Store, corpus: Corpus, tenants: tuple[str, ...], count: int | None = None, mutant: Mutant | None = None
) -> None:
    """Write the corpus's chunks of *tenants*, the first *count* of them; a broken store takes them from its mutant."""

    async def write() -> None:
        lab = Lab(store, corpus, "sync", _wrap(store, mutant))
        await lab.open()
        try:
            left = count
            for tenant in tenants:
                chunks = corpus.chunks[tenant] if left is None else corpus.chunks[tenant][:left]
                left = None if left is None else left - len(chunks)
                if chunks:
                    await lab.handle(tenant).upsert(chunks)
        finally:
            await lab.close()

    drive(write())
    store.settle()


def _wrap(store: Store, mutant: Mutant | None) -> Wrap | None:
    if mutant is None or mutant.wrap is None:
        return None
    make = mutant.wrap
    return lambda opened: make(opened, store)


async def _search(lab: Lab, tenant: str) -> int:
    """Search once by a client of its own; return the number of hits."""
    await lab.open()
    try:
        return len(await lab.handle(tenant).search(lab.corpus.centre, lab.k))
    finally:
        await lab.close()


def engine_grade(harness: Harness, options: Options, mutant: Mutant | None = None) -> Grading:
    """E3: the engine scores as many vectors beside many foreign rows as beside none."""
    corpus = build(options.seed, options.decoys)
    store = harness.fresh(Needs(DIMENSION, FIELDS))
    try:
        engine = store.engine()
        if engine is None:
            return Grading("E3", "not run", "the harness offers no counter of the engine")
        _plant(store, corpus, (corpus.many, corpus.few))
        if mutant is not None and mutant.store is not None:
            mutant.store(store)
        counts: dict[tuple[Mode, str, int], int] = {}
        for foreign in (0, options.decoys):
            if foreign:
                _plant(store, corpus, corpus.foes, mutant=mutant)
            for mode in options.modes if mutant is None else mutant.modes:
                for tenant in (corpus.many, corpus.few):
                    counts[mode, tenant, foreign] = _scored(engine, store, corpus, mode, tenant, mutant)
        return _judged(engine, corpus, counts, options)
    finally:
        store.close()


def _scored(engine: Engine, store: Store, corpus: Corpus, mode: Mode, tenant: str, mutant: Mutant | None) -> int:
    before = engine.scored()
    _do(mode, lambda: _search(Lab(store, corpus, mode, _wrap(store, mutant)), tenant))
    return engine.scored() - before


def _judged(engine: Engine, corpus: Corpus, counts: dict[tuple[Mode, str, int], int], options: Options) -> Grading:
    total = OWN_MANY + OWN_FEW + options.decoys
    before = engine.scored()
    engine.unscoped([float(one) for one in corpus.centre], 5)
    control = engine.scored() - before
    if control < total:
        return Grading(
            "E3", "abstained", f"the control scored {control} vectors of {total}: the counter does not count"
        )
    before = engine.scored()
    if engine.scored() != before:
        return Grading("E3", "abstained", "the counter moves by itself")
    lines = []
    doubt = ""
    for (mode, tenant, foreign), scored in counts.items():
        if not foreign:
            continue
        owned = OWN_MANY if tenant == corpus.many else OWN_FEW
        alone = counts[mode, tenant, 0]
        lines.append(f"{mode}: {scored} scored for {owned} owned beside {foreign} foreign, {alone} beside none")
        if scored != alone or scored > SANITY * owned:
            return Grading("E3", "failed", f"{lines[-1]}: foreign vectors were scored")
        if scored < owned:
            doubt = f"{lines[-1]}: fewer than owned, so not all were counted"
    return Grading("E3", "abstained" if doubt else "passed", doubt or "; ".join(lines))


def volume_grade(harness: Harness, options: Options, mutant: Mutant | None = None) -> Grading:
    """E2v: the same query costs the same on the wire beside none, some and many foreign rows."""
    corpus = build(options.seed, options.decoys)
    store = harness.fresh(Needs(DIMENSION, FIELDS))
    try:
        upstream = store.upstream()
        if upstream is None:
            return Grading("E2v", "not run", "the harness offers no wire to be heard")
        _plant(store, corpus, (corpus.few,))
        if mutant is not None and mutant.store is not None:
            mutant.store(store)
        states: list[Grading] = []
        samples: dict[Mode, list[Sample]] = {mode: [] for mode in (options.modes if mutant is None else mutant.modes)}
        for foreign in (0, options.decoys // 10, options.decoys):
            if foreign:
                _plant(store, corpus, corpus.foes, foreign, mutant)
            for mode, made in samples.items():
                made.extend(_heard(store, corpus, mode, upstream, foreign, mutant) for _ in range(2))
        for mode, made in samples.items():
            graded = grade_volume(made, owned=OWN_FEW, k=5)
            states.append(Grading("E2v", graded.outcome, f"{mode}: {'; '.join(graded.reasons) or 'equal'}"))
        for state in ("failed", "abstained"):
            for one in states:
                if one.state == state:
                    return one
        return Grading("E2v", "passed", "; ".join(one.reason for one in states))
    finally:
        store.close()


def _heard(store: Store, corpus: Corpus, mode: Mode, upstream: Any, foreign: int, mutant: Mutant | None) -> Sample:
    """Search once through a tap, from the first byte of each connection to its close."""
    before = store.served()
    with Tap.tcp(*upstream) as tap:
        host, port = tap.address
        config = store.through(host, port)

        class Tapped(Lab):
            def config(self, *, single: bool = False, **more: Any) -> dict[str, Any]:
                made = super().config(single=single, **more)
                made["stores"]["kit"] |= config
                return made

        async def work() -> tuple[int, Window]:
            lab = Tapped(store, corpus, mode, _wrap(store, mutant))
            await lab.open()
            try:
                await lab.pause(0.05)
                since = tap.mark()
                hits = len(await lab.handle(corpus.few).search(corpus.centre, lab.k))
                return hits, Window(since, tap.mark())
            finally:
                await lab.close()

        hits, window = _do(mode, work)
        tap.settle()
        sessions = tap.sessions()
    after = store.served()
    served = None if before is None or after is None else after - before
    return sample(Recording(sessions, served), window, foreign=foreign, hits=hits)
