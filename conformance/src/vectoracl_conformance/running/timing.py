"""The timing of R4: a search next to few and next to many foreign rows. It is reported, and never judged.

Times on a shared machine are unreliable, so the ratio is reported only between two controls: the same search relative
to itself must take the same time, and a search that ranks all rows must take longer. Nothing is measured next to no
foreign rows, since a store with a single tenant behaves differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Literal

from vectoracl_conformance.context import corpus as corpora
from vectoracl_conformance.context.check_context import claims_of, drive, user
from vectoracl_conformance.context.corpus import DIMENSION, FIELDS, Corpus, K, build
from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.harness import Harness, Needs, Store
from vectoracl_conformance.isolated.mutant_text import as_text
from vectoracl_conformance.isolated.remote import RemoteContext, end_process
from vectoracl_conformance.mutants.controls import LEAKY

FEW, MANY = 500, 20_000
OWN = 200
ROUNDS = 60
LEAKY_ROUNDS = 5
SAME = (0.8, 1.25)
SHOWS = 1.5


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians as ratios: many to few foreign rows, few to few, and many to few of a search that leaks."""

    ratio: float
    same: float
    leaky: float
    milliseconds: float

    @property
    def state(self) -> Literal["measured", "abstained"]:
        """Whether both controls held."""
        return "measured" if SAME[0] <= self.same <= SAME[1] and self.leaky > SHOWS else "abstained"

    def __str__(self) -> str:
        controls = f"the same against itself {self.same:.2f}, one that ranks everyone {self.leaky:.1f}"
        if self.state == "abstained":
            return (
                f"timing: abstained, the controls do not hold ({controls}; they have to be within {SAME[0]} to "
                f"{SAME[1]} and above {SHOWS})"
            )
        return (
            f"timing, reported only: {self.ratio:.2f} times as long next to {MANY} foreign rows as next to {FEW} "
            f"(median {self.milliseconds:.2f} ms; controls: {controls})"
        )


def compared(few: Sequence[float], again: Sequence[float], many: Sequence[float], leaky: Sequence[float]) -> Timing:
    """Return the ratios of seconds; *leaky* is few and many in turns."""
    base = median(few)
    return Timing(median(many) / base, median(again) / base, median(leaky[1::2]) / median(leaky[::2]), base * 1000)


def timing(harness: Harness, options: Options) -> Timing:
    """Measure on two fresh stores, in turns; a minute or less on a store that takes 1,000 rows in a second.

    The time is taken in the process of the adapter, around the call alone.

    Raises: what the harness or the adapter raises.
    """
    with ExitStack() as stack:
        stores = []
        for foreign in (FEW, MANY):
            corpus = build(options.seed, foreign)
            store = harness.fresh(Needs(DIMENSION, FIELDS))
            stack.callback(store.close)
            stack.callback(end_process, store)
            tenant = corpus.rng.uuid()
            drive(_plant(store, corpus, tenant))
            store.settle()
            stores.append((store, corpus, tenant))
        asks = [stack.enter_context(_Client(*one)) for one in (stores[0], stores[0], stores[1])]
        durations = _turns([one.ask for one in asks], ROUNDS)
        leaks = [stack.enter_context(_Client(*one, as_text(LEAKY, harness, one[0]).source)) for one in stores]
        leaky = _turns([one.ask for one in leaks], LEAKY_ROUNDS)
    pairs = [seconds for turn in zip(*leaky, strict=True) for seconds in turn]
    return compared(durations[0], durations[1], durations[2], pairs)


def _turns(asks: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Take the time of each of *asks* in turns; the first two rounds warm up and are not counted."""
    durations: list[list[float]] = [[] for _ in asks]
    for number in range(rounds + 2):
        for place, ask in enumerate(asks):
            seconds = ask()
            if number > 1:
                durations[place].append(seconds)
    return durations


_SEARCH = """
import time
from vectoracl import Principal

def work(client, claims, vector, k):
    handle = client.scoped(Principal(**claims))
    started = time.perf_counter()
    handle.search(vector, k)
    return time.perf_counter() - started
"""


class _Client:
    """A client that asks for one tenant, as long as it is entered; *source* dresses its adapter."""

    def __init__(self, store: Store, corpus: Corpus, tenant: str, source: str = "") -> None:
        self._context = RemoteContext(store, corpus, "sync", source=source)
        self._tenant = tenant

    def __enter__(self) -> _Client:
        drive(self._context.open())
        return self

    def __exit__(self, *_: object) -> None:
        drive(self._context.close())

    def ask(self) -> float:
        """Search once; return the seconds."""
        claims = claims_of(user(self._tenant))
        seconds = float(drive(self._context.client.run(_SEARCH, claims, self._context.corpus.centre, K)))
        self._context.recorder.clear()
        return seconds


async def _plant(store: Store, corpus: Corpus, tenant: str) -> None:
    context = RemoteContext(store, corpus, "sync")
    own = [
        corpora.chunk(context.rng, context.rng.near(corpus.centre, 0.4 + 0.001 * place), metadata={})
        for place in range(OWN)
    ]
    await context.open()
    try:
        batch = min(500, context.client.adapter.capabilities.max_batch)
        for owner, chunks in [(tenant, own), *((foe, corpus.chunks[foe]) for foe in corpus.other_tenants)]:
            for start in range(0, len(chunks), batch):
                await context.handle(owner).upsert(chunks[start : start + batch])
    finally:
        await context.close()
