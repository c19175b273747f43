"""Runs the checks on a store, one mode after the other, and runs mutants. The judgement is in `verdict`."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vectoracl.errors import PostureError
from vectoracl_conformance.checks import CHECKS, Check
from vectoracl_conformance.context.assertions import Unsupported
from vectoracl_conformance.context.check_context import Mode, drive
from vectoracl_conformance.context.corpus import DIMENSION, FIELDS, Corpus, build
from vectoracl_conformance.context.perform import Options, perform
from vectoracl_conformance.generated.run import Setting, run_generated
from vectoracl_conformance.harness import Harness, HarnessError, Mutant, Needs, Store
from vectoracl_conformance.isolated import governed_context
from vectoracl_conformance.isolated.interpreter import plain
from vectoracl_conformance.isolated.mutant_text import as_text
from vectoracl_conformance.isolated.remote import RemoteContext, end_process
from vectoracl_conformance.verdict import CALLS, GOVERNANCE, REQUIRED, Noted, settled

Watch = Callable[[Noted], None]


def checks_of(options: Options, *, governed: bool = False) -> Iterator[Check]:
    """Yield the checks to run, in the order of the list: those of a store under a registry, or the others."""
    for id_ in REQUIRED:
        check = CHECKS.get(id_)
        wanted = options.wants(id_) and id_ not in options.elsewhere and id_ not in CALLS
        if check is not None and wanted and (id_ in GOVERNANCE) == governed:
            yield check


def seed(store: Store, corpus: Corpus, variant: Mutant | None = None, *, python: str = "") -> None:
    """Write the corpus through the adapter as it is, or through a *variant* of it, and wait until it is visible."""
    context = RemoteContext(store, corpus, "sync", python, "" if variant is None else variant.source)

    async def write() -> None:
        await context.open()
        try:
            for tenant, chunks in corpus.chunks.items():
                batch = context.client.adapter.capabilities.max_batch
                for start in range(0, len(chunks), batch):
                    await context.handle(tenant).upsert(chunks[start : start + batch])
        finally:
            await context.close()

    drive(write())
    store.settle()


async def _limited(work: Coroutine[Any, Any, Noted], id_: str, options: Options) -> Noted:
    """Let a check run for so long; one that takes longer was not run, and the next ones have their turn."""
    note: Noted | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(options.limit) as scope:
            note = await work
    if note is not None and not scope.expired():
        return note
    # A check that was cut off has noted that, as it would note what an adapter cancelled.
    why = f"it took longer than {options.limit:g} s; give it more with --timeout"
    return Noted(id_, "async", "not run", options.limit, why, reproduce=options.line(id_))


def run_mode(store: Store, corpus: Corpus, mode: Mode, options: Options, watch: Watch, source: str = "") -> list[Noted]:
    """Run the wanted checks in one mode on a store that holds the corpus; *source* dresses the adapter."""
    context = RemoteContext(store, corpus, mode, options.python, source)
    return _performed(context, list(checks_of(options)), options, watch)


def _performed(context: RemoteContext, checks: Sequence[Check], options: Options, watch: Watch) -> list[Noted]:
    """Perform *checks* in the context, or note why its store could not be opened."""
    mode = context.mode
    notes: list[Noted] = []

    async def work() -> None:
        try:
            await context.open()
        except Unsupported as error:
            why = f"{error}: not declared, and refused"
            for check in checks:
                notes.append(settled(Noted(check.id, mode, "unsupported, verified", reason=why, attacks=1)))
                watch(notes[-1])
            return
        except Exception as error:  # noqa: BLE001 - a store that cannot be opened leaves its checks not run
            why = f"the store was not opened: {type(error).__name__}: {error}"
            for check in checks:
                note = Noted(check.id, mode, "not run", reason=why)
                if check.id == "X2" and isinstance(error, PostureError):
                    note = Noted("X2", mode, "failed", reason=why, attacks=1, reproduce=options.line("X2"))
                notes.append(note)
                watch(note)
            return
        try:
            for check in checks:
                work_ = perform(check, context, options)
                note = await (work_ if mode == "sync" else _limited(work_, check.id, options))
                notes.append(note)
                watch(note)
        finally:
            await context.close()

    if mode == "sync":
        drive(work())
    else:
        asyncio.run(work())
    return notes


@contextlib.contextmanager
def patched(patches: Iterable[tuple[str, str, Callable[[Any], Any]]]) -> Iterator[None]:
    """Replace attributes of modules (or of classes in them: "module:Class") for a while."""
    originals = []
    try:
        for target, name, make in patches:
            module, _, inner = target.partition(":")
            owner: Any = importlib.import_module(module)
            if inner:
                owner = getattr(owner, inner)
            old = owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name)
            originals.append((owner, name, old))
            setattr(owner, name, make(old))
        yield
    finally:
        for owner, name, old in reversed(originals):
            setattr(owner, name, old)


@contextlib.contextmanager
def fresh(harness: Harness, options: Options, variant: Mutant | None = None) -> Iterator[tuple[Store, Corpus]]:
    """Make a fresh store with the corpus in it. Raises: what the harness and the adapter raise."""
    corpus = build(options.seed, options.decoys)
    store = harness.fresh(Needs(DIMENSION, FIELDS))
    try:
        if not isinstance(store, Store):
            raise HarnessError(f"fresh() returned {type(store).__name__}, not a Store")
        seed(store, corpus, variant, python=options.python)
        yield store, corpus
    finally:
        end_process(store)
        if options.keep:
            options.kept.append(dict(store.config))
        else:
            store.close()


def run_checks(
    harness: Harness, options: Options, watch: Watch = lambda _: None, variant: Mutant | None = None
) -> list[Noted]:
    """Run the wanted checks in the wanted modes on one fresh store; the kit's own tests may run a *variant*."""
    notes: list[Noted] = []
    source = "" if variant is None else variant.source
    if any(checks_of(options)):
        with fresh(harness, options, variant) as (store, corpus):
            for mode in options.modes:
                notes += run_mode(store, corpus, mode, options, watch, source)
    return notes + under_registry(harness, options, watch, variant) + generated(harness, options, watch, source)


def under_registry(
    harness: Harness, options: Options, watch: Watch = lambda _: None, variant: Mutant | None = None
) -> list[Noted]:
    """Run the wanted checks of a store under a registry, on a fresh store that no client opens without it."""
    checks = list(checks_of(options, governed=True))
    if not checks:
        return []
    notes: list[Noted] = []
    path = governed_context.folder()
    store = harness.fresh(Needs(DIMENSION, FIELDS))
    try:
        source = "" if variant is None else as_text(variant, harness, store, options.python).source
        corpus = build(options.seed, 0)
        for mode in options.modes if variant is None else variant.modes:
            context = governed_context.GovernedContext(store, corpus, mode, options.python, source, folder=path)
            notes += _performed(context, checks, options, watch)
    finally:
        end_process(store)
        store.close()
        governed_context.removed(path)
    return notes


def generated(harness: Harness, options: Options, watch: Watch, source: str = "") -> list[Noted]:
    """Perform the wanted ones of C1 to C4 in both modes, on fresh stores; *source* dresses the adapter."""
    wanted = frozenset(id_ for id_ in CALLS if options.calls or id_ in options.only) - options.elsewhere
    if not wanted:
        return []
    environment = plain(options.python, [path for path in sys.path if path])
    try:
        setting = Setting(harness, options.seed, options.size, environment, source, line=options.line)
        notes, _ = run_generated(setting, wanted, options.known)
    finally:
        environment.close()
    for note in notes:
        watch(note)
    return notes


@dataclass(frozen=True, slots=True)
class MutantResult:
    """The outcome of one mutant."""

    name: str
    breaks: str
    expected: str
    killed_by: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    mode: Literal["sync", "async"] = "sync"

    @property
    def right(self) -> bool:
        """Whether it died, and by the check that has to see it."""
        return self.expected in self.killed_by


def run_mutant(harness: Harness, mutant: Mutant, options: Options) -> MutantResult:
    """Run every check on a fresh store with the broken adapter."""
    notes: list[Noted] = []
    # X6 and the generated calls have separate processes, in which a mutant that asks for the store's rows is not.
    here = options if mutant.source else replace(options, elsewhere=options.elsewhere | {"X6"})
    with fresh(harness, options) as (store, corpus):
        source = as_text(mutant, harness, store, options.python).source
        if mutant.store is not None:
            mutant.store(store)
        for mode in mutant.modes:
            with patched(mutant.patches):  # what this process does with answers is the library's as well
                notes += run_mode(store, corpus, mode, here, lambda _: None, source)
    if mutant.store is None:
        notes += under_registry(harness, here, variant=mutant)
    if mutant.source:
        notes += generated(harness, replace(options, size="quick"), lambda _: None, mutant.source)
    # X5 is about the kit itself: it dies by abstaining.
    died = [one for one in notes if one.outcome == "failed" or (one.id == "X5" and one.outcome == "abstained")]
    return MutantResult(
        mutant.name,
        mutant.breaks,
        mutant.expected,
        tuple(dict.fromkeys(note.id for note in died)),
        tuple(f"{note.id}: {note.reason}" for note in died),
        mutant.modes[0],
    )
