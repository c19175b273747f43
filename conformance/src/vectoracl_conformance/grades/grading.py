"""The grades of evidence beyond results: what is sent over the wire (E2) and what the engine scored (E3).

Each grade is measured on a separate store with a separate client, next to none, some and many foreign rows. A grade
whose control fails abstains; if a store offers no wire or counter, the grade is not run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from vectoracl_conformance.context.check_context import CheckContext, Mode, drive
from vectoracl_conformance.context.corpus import DIMENSION, FIELDS, OWN_FEW, OWN_MANY, Corpus, K, build
from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.evidence.calls import ScopedCall
from vectoracl_conformance.evidence.canaries import grade_canaries
from vectoracl_conformance.evidence.exchanges import requests
from vectoracl_conformance.evidence.outcome import Graded
from vectoracl_conformance.evidence.sessions import Mark, Recording, Window
from vectoracl_conformance.evidence.structure import grade_structure
from vectoracl_conformance.evidence.volume import Sample, grade_volume, sample
from vectoracl_conformance.evidence.wire import Wire
from vectoracl_conformance.grades.partitions import Parts, judge_parts
from vectoracl_conformance.grades.shards import STAGES, Seen, Stage, judge_shards, watched
from vectoracl_conformance.grades.tour import Tour, in_words
from vectoracl_conformance.harness import Engine, Harness, Mutant, Needs, PartEngine, Shards, Store
from vectoracl_conformance.isolated.mutant_text import as_text
from vectoracl_conformance.isolated.remote import RemoteContext, end_process
from vectoracl_conformance.verdict import EvidenceState

WIRE_GRADES = ("E2v", "E2c", "E2s")
SANITY = 8  # a right search may score a row for the output, for the order and once more if it has to ask again


@dataclass(frozen=True, slots=True)
class Grading:
    """The outcome of one grade, and the reason."""

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
        context = _context(store, corpus, "sync", mutant)
        await context.open()
        try:
            budget = count
            for tenant in tenants:
                chunks = corpus.chunks[tenant] if budget is None else corpus.chunks[tenant][:budget]
                budget = None if budget is None else budget - len(chunks)
                if chunks:
                    await context.handle(tenant).upsert(chunks)
        finally:
            await context.close()

    drive(write())
    store.settle()


def _context(store: Store, corpus: Corpus, mode: Mode, mutant: Mutant | None) -> CheckContext:
    """Return a context whose adapter runs in its own process, broken as *mutant* says."""
    return RemoteContext(store, corpus, mode, source="" if mutant is None else mutant.source)


async def _search(context: CheckContext, tenant: str) -> int:
    """Search once with a separate client; return the number of hits."""
    await context.open()
    try:
        return len(await context.handle(tenant).search(context.corpus.centre, context.k))
    finally:
        await context.close()


def engine_grade(harness: Harness, options: Options, mutant: Mutant | None = None) -> Grading:
    """E3: the engine scores as many vectors next to many foreign rows as next to none."""
    corpus = build(options.seed, options.decoys)
    store = harness.fresh(Needs(DIMENSION, FIELDS))
    mutant = None if mutant is None else as_text(mutant, harness, store)
    try:
        engine = store.engine()
        if engine is None:
            return Grading("E3", "not run", "the harness offers no counter of the engine")
        _plant(store, corpus, (corpus.large_tenant, corpus.small_tenant))
        if mutant is not None and mutant.store is not None:
            mutant.store(store)
        if isinstance(engine, Shards):
            return _shards(engine, store, corpus, options.modes if mutant is None else mutant.modes, mutant)
        counts: dict[tuple[Mode, str, int], int] = {}
        for foreign in (0, options.decoys):
            if foreign:
                _plant(store, corpus, corpus.other_tenants, mutant=mutant)
            for mode in options.modes if mutant is None else mutant.modes:
                for tenant in (corpus.large_tenant, corpus.small_tenant):
                    counts[mode, tenant, foreign] = _scored(engine, store, corpus, mode, tenant, mutant)
        scored = _judged(engine, corpus, counts, options)
        if not isinstance(engine, PartEngine):
            return scored
        modes = options.modes if mutant is None else mutant.modes
        parts = judge_parts(engine, store, corpus, modes, lambda mode: _context(store, corpus, mode, mutant), _do)
        return _worse(scored, parts)
    finally:
        end_process(store)
        store.close()


def _worse(scored: Grading, parts: Parts) -> Grading:
    """Return the E3 of both halves: a breach in one is a breach, and both have to pass."""
    for state in ("failed", "abstained"):
        reasons = [one.reason for one in (scored, parts) if one.state == state]
        if reasons:
            return Grading("E3", state, "; ".join(reasons))
    return Grading("E3", "passed", f"{scored.reason}; {parts.reason}")


def _scored(engine: Engine, store: Store, corpus: Corpus, mode: Mode, tenant: str, mutant: Mutant | None) -> int:
    before = engine.scored()
    _do(mode, lambda: _search(_context(store, corpus, mode, mutant), tenant))
    return engine.scored() - before


def _shards(engine: Shards, store: Store, corpus: Corpus, modes: Sequence[Mode], mutant: Mutant | None) -> Grading:
    """Search next to no foreign rows, next to many, and with every foreign part out of service."""
    own = (corpus.large_tenant, corpus.small_tenant)
    searches: list[Seen] = []

    def search(mode: Mode, tenant: str, stage: Stage) -> None:
        searches.append(
            watched(
                engine, tenant, mode, stage,
                lambda: _do(mode, lambda: _search(_context(store, corpus, mode, mutant), tenant)),
            )
        )  # fmt: skip

    for stage in STAGES:
        if stage == "next to foreign rows":
            _plant(store, corpus, corpus.other_tenants, mutant=mutant)
        elif stage == "foreign parts shut":
            engine.shut(corpus.other_tenants)
        for mode in modes:
            for tenant in own:
                search(mode, tenant, stage)
    shut = engine.rank(corpus.other_tenants[0], [float(one) for one in corpus.centre], K)
    engine.open(corpus.other_tenants)
    state, reason = judge_shards(engine, corpus, searches, refused=shut is None)
    return Grading("E3", state, reason)


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
        owned = OWN_MANY if tenant == corpus.large_tenant else OWN_FEW
        alone = counts[mode, tenant, 0]
        lines.append(f"{mode}: {scored} scored for {owned} owned next to {foreign} foreign, {alone} next to none")
        if scored != alone or scored > SANITY * owned:
            return Grading("E3", "failed", f"{lines[-1]}: foreign vectors were scored")
        if scored < owned:
            doubt = f"{lines[-1]}: fewer than owned, so not all were counted"
    return Grading("E3", "abstained" if doubt else "passed", doubt or "; ".join(lines))


def wire_grades(harness: Harness, options: Options, mutant: Mutant | None = None) -> list[Grading]:
    """E2: the same query next to none, some and many foreign rows (v), then every call next to many (c, s)."""
    corpus = build(options.seed, options.decoys)
    store = harness.fresh(Needs(DIMENSION, FIELDS))
    mutant = None if mutant is None else as_text(mutant, harness, store)
    try:
        wire = store.wire()
        if wire is None:
            return [Grading(grade, "not run", "the harness offers no wire to be heard") for grade in WIRE_GRADES]
        _plant(store, corpus, (corpus.small_tenant,))
        if mutant is not None and mutant.store is not None:
            mutant.store(store)
        modes = options.modes if mutant is None else mutant.modes
        samples: dict[Mode, list[Sample]] = {mode: [] for mode in modes}
        for foreign in (0, options.decoys // 10, options.decoys):
            if foreign:
                _plant(store, corpus, corpus.other_tenants, foreign, mutant)
            for mode, takes in samples.items():
                for _ in range(wire.samples):
                    take = _heard(store, wire, corpus, mode, mutant, _one)
                    heard = None if wire.decode is None else requests(map(wire.decode, take.recording.sessions))
                    window = take.questions[0].window
                    takes.append(
                        sample(
                            take.recording,
                            window,
                            foreign=foreign,
                            hits=take.hits,
                            requests=heard,
                            uncounted=wire.managed,
                        )
                    )
        graded = [(mode, grade_volume(takes, owned=OWN_FEW, k=K)) for mode, takes in samples.items()]
        if wire.decode is not None:
            _plant(store, corpus, (corpus.large_tenant,), mutant=mutant)
            for mode in modes:
                take = _heard(store, wire, corpus, mode, mutant, _every)
                decoded = [wire.decode(session) for session in take.recording.sessions]
                graded.append((mode, grade_canaries(take.recording, decoded, take.questions, constant=wire.constant)))
                if wire.judge is not None:
                    graded.append((mode, grade_structure(take.recording, decoded, take.questions, wire.judge)))
        return [_joined(grade, [one for one in graded if one[1].grade == grade], wire) for grade in WIRE_GRADES]
    finally:
        end_process(store)
        store.close()


def _joined(grade: str, parts: Sequence[tuple[Mode, Graded]], wire: Wire) -> Grading:
    """Return the worse of the modes' outcomes."""
    if not parts:
        return Grading(grade, "not run", "the harness offers no decoder or no judge for it")
    for state in ("failed", "abstained"):
        for mode, one in parts:
            if one.outcome == state:
                return Grading(grade, one.outcome, f"{mode}: {in_words(one, wire.judge)}")
    return Grading(grade, "passed", "; ".join(f"{mode}: {in_words(one, wire.judge)}" for mode, one in parts))


@dataclass(frozen=True, slots=True)
class _Take:
    recording: Recording
    questions: list[ScopedCall]
    hits: int


Ask = Callable[[CheckContext, Callable[[], Mark]], Coroutine[Any, Any, tuple[list[ScopedCall], int]]]


async def _one(context: CheckContext, mark: Callable[[], Mark]) -> tuple[list[ScopedCall], int]:
    """Search once."""
    corpus = context.corpus
    handle = context.handle(corpus.small_tenant)
    since = mark()
    hits = len(await handle.search(corpus.centre, K))
    return [ScopedCall(corpus.small_tenant, Window(since, mark()), OWN_FEW)], hits


async def _every(context: CheckContext, mark: Callable[[], Mark]) -> tuple[list[ScopedCall], int]:
    """Ask every kind of read and of write."""
    return await Tour(context, mark).take(), 0


def _heard(store: Store, wire: Wire, corpus: Corpus, mode: Mode, mutant: Mutant | None, ask: Ask) -> _Take:
    """Let a separate client ask through a recorder, from the first byte of each connection to its close."""
    before, answered = wire.served(), wire.answered()
    recorder = wire.recorder()
    recorder.start()
    try:
        config = wire.config(*recorder.address)

        async def work() -> tuple[list[ScopedCall], int]:
            context = _context(store, corpus, mode, mutant)
            context.tapped = config
            await context.open()
            try:
                await context.pause(0.05)
                return await ask(context, recorder.mark)
            finally:
                await context.close()

        questions, hits = _do(mode, work)
        after, now = wire.served(), wire.answered()  # wait until the store has seen every session end
        for _ in range(200):
            if all(session.closed is not None for session in recorder.sessions()):
                break
            time.sleep(0.01)
        sessions = recorder.sessions()
    finally:
        recorder.stop()
    return _Take(Recording(sessions, _difference(before, after), _difference(answered, now)), questions, hits)


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before
