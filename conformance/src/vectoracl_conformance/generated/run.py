"""C1 to C4: performs the generated calls on fresh stores of a harness, next to the reference, and notes the outcomes.

Everything is planned and judged in this process. The adapter runs in its own, which holds nothing of the kit.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, pairwise
from typing import Any, Protocol

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Chunk
from vectoracl_conformance.context.assertions import Abstain, short
from vectoracl_conformance.generated.bench import Bench as Bench
from vectoracl_conformance.generated.bench import groups, timed
from vectoracl_conformance.generated.calls import Call
from vectoracl_conformance.generated.comparison import Comparison, words_of
from vectoracl_conformance.generated.covering import Coverage, Plan
from vectoracl_conformance.generated.pair import Counts, Difference, Pair, added, writes
from vectoracl_conformance.generated.planning import Planner, Space
from vectoracl_conformance.generated.reference import LoadError, Mode, Reference, Side, writer
from vectoracl_conformance.generated.script import script
from vectoracl_conformance.generated.sequences import Walk, drawn_changes, walk
from vectoracl_conformance.generated.shrinking import Opening, Rows, Shrinker, Steps
from vectoracl_conformance.generated.simultaneous import rounds
from vectoracl_conformance.generated.world import Size, World
from vectoracl_conformance.harness import HarnessError, Needs, Store
from vectoracl_conformance.isolated.identity import Identity, identify
from vectoracl_conformance.isolated.interpreter import PlainEnvironment
from vectoracl_conformance.isolated.process import Far, OtherError
from vectoracl_conformance.verdict import CALLS, MODES, CallCheck, Noted

READS = 40
_FULL = 0.1
_SAMPLE = 40
_BARE = 16
"""How many answers are compared with those of a store without any scope, which reads all rows for each."""
_TELLING = 16
_LIMIT = 300.0
_ORDER: Sequence[CallCheck] = ("C4", "C3", "C1", "C2")
"""The order of the checks: those whose calls are soon drawn come first; the next ones are drawn during them."""
_WRITES = 330
"""How many planned writes are performed on one store."""
_PROGRAM = 50_000_000
"""The most characters of a program that shows a difference. What nothing shows again has a whole run in it."""
_MANY = 300
"""The number of rows from which a tenant that writes have added is emptied after a census."""
_CENSUS_AFTER = 120
"""After how many calls that write all rows are compared."""
_HITS, _RECALL = 40, 0.5
"""The share of all hits that answers which say that they are not complete have to hold."""
Progress = Callable[[str], None]


class Stores(Protocol):
    """The stores of a harness; `metrics` are those that it can make a store for, `thousands` is as in `Harness`."""

    thousands: bool

    @property
    def metrics(self) -> Sequence[Any]:
        """The metrics."""
        ...

    def fresh(self, needs: Needs) -> Store:
        """Make an empty store. Raises: HarnessError."""
        ...


@dataclass
class CallsReport:
    """The generated calls of a run, for the report.

    Attributes:
        seed: The seed.
        size: "quick" or "full".
        calls: The number of compared answers.
        pairs: Covered pairs, and all that are possible.
        triples: Covered triples of operation, form of the scope and argument, and all that are possible.
        left_out: The reason for each thing that is not among them.
        census: How the rows were read: "out-of-band", or "in-process" where the store lives in the adapter's process.
        seconds: The time that each check took.
        dimension: The dimension of the vectors of the first check.
        metric: Its metric.
    """

    seed: int
    size: Size
    calls: int = 0
    pairs: tuple[int, int] = (0, 0)
    triples: tuple[int, int] = (0, 0)
    left_out: dict[str, str] = field(default_factory=dict)
    census: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    dimension: int = 0
    metric: str = ""

    def add(self, coverage: Coverage) -> None:
        """Add what one plan covers."""
        self.pairs = (self.pairs[0] + coverage.pairs[0], self.pairs[1] + coverage.pairs[1])
        self.triples = (self.triples[0] + coverage.triples[0], self.triples[1] + coverage.triples[1])
        self.left_out |= coverage.left_out

    def as_json(self) -> dict[str, Any]:
        """Return it as the report has it."""
        return asdict(self)


@dataclass(frozen=True)
class Setting:
    """The things that all checks of a run have in common.

    Attributes:
        stores: The harness's stores.
        seed: The seed.
        size: The size of the plans.
        environment: The environment of the adapter's process.
        source: Text that defines `dress(opened)`, for a broken adapter.
        progress: Called with what is done.
        line: Returns the command that repeats a check.
        measured: Takes the code that the adapter's processes ran.
    """

    stores: Stores
    seed: int
    size: Size
    environment: PlainEnvironment | None = None
    source: str = ""
    progress: Progress = lambda _: None
    line: Callable[[str], str] = lambda id_: id_
    measured: list[Identity] = field(default_factory=list)


def _far(setting: Setting) -> Far:
    far = Far(environment=setting.environment, limit=_LIMIT)
    if setting.source:
        far.ask("source", setting.source)
    return far


def declared(setting: Setting) -> Capabilities:
    """Return what the adapter declares, asked in its process on a store that is then removed."""
    with _store(setting, Needs(8, {})) as store:
        far = _far(setting)
        try:
            side = Side(far, dict(store.config), {}, {})
            side.open(provision=True)
            return side.capabilities()
        finally:
            far.close()


@contextmanager
def _store(setting: Setting, needs: Needs) -> Iterator[Store]:
    store = setting.stores.fresh(needs)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def loaded(
    setting: Setting, world: World, capabilities: Capabilities, tenants: Mapping[str, Sequence[Chunk]], *, faulty: bool
) -> Iterator[Pair]:
    """Open a fresh store and the reference, and write *tenants* to both. Raises: LoadError."""
    with ExitStack() as stack:
        metric: Any = world.metric
        store = stack.enter_context(_store(setting, Needs(world.dimension, world.fields, metric)))
        inside = store.census_source
        able = replace(capabilities, dimension=world.dimension, metric=metric)
        sides = [_side(stack, setting, store, world, faulty=faulty, first=True)]
        if not inside:  # rows that live only in the process that wrote them are not seen by another one
            sides.append(_side(stack, setting, store, world, faulty=faulty, first=False))
            sides[1].cursors = sides[0].cursors
        reference = Reference(world.fields, world.rules, able, world.more)
        reference.expiring = world.expiring
        stack.callback(reference.end)
        reference.open()
        comparison = Comparison(able, reference.wider, lambda: pair.rows())
        pair = Pair(sides, reference, comparison)
        stack.callback(pair.close)
        pair.both(
            lambda: reference.load(tenants, able.max_batch), lambda: sides[0].load(tenants, min(500, able.max_batch))
        )
        yield pair


def _side(stack: ExitStack, setting: Setting, store: Store, world: World, *, faulty: bool, first: bool) -> Side:
    far = _far(setting)
    source = store.census_source
    read_census = None if source else store.census
    side = Side(far, dict(store.config), world.fields, world.rules, read_census, store.settle, more=world.more)
    side.admit, side.expiring = store.admit, world.expiring
    stack.callback(side.end)
    if source:
        far.ask("source", source)
    side.open(provision=first, faulty=faulty)
    return side


class Found:
    """Collects differences: the first one of each mode."""

    def __init__(self) -> None:
        self.first: dict[Mode, Difference] = {}

    def add(self, differences: Iterable[Difference]) -> None:
        """Keep those that are the first of their mode."""
        for one in differences:
            self.first.setdefault(one.mode, one)

    @property
    def enough(self) -> bool:
        """Whether both modes have one."""
        return len(self.first) == len(MODES)


def perform(pair: Pair, plan: Plan, found: Found, progress: Callable[[int], None] = lambda _: None) -> None:
    """Perform a plan on both. After a difference of rows the two stores are no longer comparable, and it ends."""
    if (difference := pair.compare_census()) is not None:
        found.add(replace(difference, mode=mode) for mode in MODES)
        return
    _calibrate(pair, plan)
    if any(writes(one.call) for one in plan.calls):
        for group in groups(plan, _CENSUS_AFTER):
            progress(len(pair.history))
            differences = pair.perform(group)
            found.add(differences)
            if any(one.call is None or writes(one.call) for one in differences) or found.enough:
                return
            if (difference := _emptied(pair)) is not None:
                found.add((difference,))
                return
        return
    for mode in MODES:
        calls = [timed(one) for one in plan.calls if one.mode == mode]
        for start in range(0, len(calls), READS):
            progress(len(pair.history))
            found.add(pair.perform(calls[start : start + READS]))
            if mode in found.first:
                break


def few_hits(got: int, right: int) -> str:
    """Return what is wrong if searches that are not complete return *got* of *right* hits in all; "" if nothing is."""
    return f"{got} of {right} hits in all" if right >= _HITS and got < _RECALL * right else ""


def _emptied(pair: Pair) -> Difference | None:
    """Remove the rows of tenants that have many and were not there at first, so that the next census is a small one."""
    many = [name for name, count in Counter(place[0] for place in pair.rows()).items() if count > _MANY]
    added = [name for name in many if name not in pair.reference.tenants]
    calls = [Call(writer(name), "delete", {"where": ALWAYS}) for name in added]
    differences = pair.remove(calls)
    return differences[0] if differences else None


def _calibrate(pair: Pair, plan: Plan) -> None:
    """Find out whether the store ranks words as the reference does."""
    calls = [
        one.call for one in plan.calls if one.call.method == "search" and words_of(one.call.arguments.get("query"))
    ]
    calls = random.Random(len(calls)).sample(calls, min(len(calls), _SAMPLE))  # noqa: S311 - a repeatable sample
    right, got = pair.both(lambda: pair.reference.calls("sync", calls), lambda: pair.store.calls("sync", calls))
    pair.comparison.calibrate(list(zip(calls, right, got, strict=True)))


def unscoped_differs(pair: Pair, calls: Sequence[Call]) -> tuple[int, int]:
    """Return in how many of a sample of *calls* an answer without any scope would have been another, and its size."""
    known = [
        call
        for call in calls
        if call.method in ("search", "count", "fetch") and call.principal.id in pair.reference.rules
    ]
    sample = random.Random(len(known)).sample(known, min(_BARE, len(known)))  # noqa: S311 - a repeatable sample
    right = pair.reference.calls("sync", sample)
    bare = [pair.reference.unscoped(call) for call in sample]
    differing = 0
    for call, one, other in zip(sample, right, bare, strict=True):
        differing += pair.comparison.problem(call, one, other) is not None
    return differing, len(sample)


def leaked(world: World, plan: Plan, said: Iterable[str]) -> str:
    """Return the first text, id or value that a process of the adapter printed or logged; "" if none.

    What may not be printed are the rows of the world, and what the calls of the plan write.
    """
    printed = "\n".join(said)
    if not printed.strip():
        return ""
    written = (added(one.call) for one in plan.calls)
    for chunk in chain.from_iterable((*world.tenants.values(), *written)):
        for kind, one in _telling(chunk):
            if len(one) >= _TELLING and one in printed:
                return f"{kind} ({one[:40]!r})"
    return ""


def _telling(chunk: Chunk) -> Iterator[tuple[str, str]]:
    text = chunk.text
    for start in (0, len(text) // 2, max(0, len(text) - 40)):
        yield "a text", text[start : start + 40]
    yield "a chunk's id", chunk.id
    yield "a document's id", chunk.document
    for value in chunk.metadata.values():
        if isinstance(value, str):
            yield "a value of metadata", value


def perform_walk(
    pair: Pair, world: World, plan: Plan, found: Found, progress: Progress = lambda _: None, *, whole: bool
) -> None:
    """Perform a walk of the calls of *plan* and of writes; its first difference ends it."""
    if (difference := pair.compare_census()) is not None:
        found.add(replace(difference, mode=mode) for mode in MODES)
        return
    _calibrate(pair, plan)
    reads = [timed(one)[1] for one in plan.calls if not writes(one.call)]
    telling = [timed(one)[1] for one in plan.calls if one.sensitive] or reads
    batch = pair.comparison.capabilities.max_batch
    laid_out = rounds(world, plan.calls, whole=whole)
    steps = walk(world, telling, drawn_changes(world, reads), laid_out, whole=whole, batch=batch)
    difference = Walk(pair).perform(steps, lambda done: progress(f"C3: {done:,} of {len(steps):,} steps"))
    found.add(() if difference is None else (difference,))


def run_generated(
    setting: Setting, wanted: frozenset[str] = frozenset(), known: Mapping[str, str] | None = None
) -> tuple[list[Noted], CallsReport]:
    """Perform C1 to C4, or those that are *wanted*.

    Args:
        setting: The harness's stores, the seed, and where the adapter runs.
        wanted: The ids of the checks; empty: all.
        known: Reasons of declared deviations by id.

    Returns:
        An outcome for each check and mode, and the report's data.
    """
    report = CallsReport(setting.seed, setting.size)
    chosen = [id_ for id_ in CALLS if not wanted or id_ in wanted]
    notes: list[Noted] = []
    if not chosen:
        return notes, report
    try:
        capabilities = declared(setting)
    except (Abstain, HarnessError, OtherError) as error:
        return [note for id_ in chosen for note in _all(id_, "abstained", str(error), setting)], report
    stores = setting.stores
    chosen.sort(key=_ORDER.index)
    with Planner(Space(setting.seed, setting.size, capabilities, stores.metrics, stores.thousands), chosen) as planner:
        for id_ in chosen:
            started = time.perf_counter()
            made = _one(id_, setting, capabilities, planner, report)
            report.seconds[id_] = round(time.perf_counter() - started, 2)
            for note in made:
                note.seconds = report.seconds[id_] / len(made)
                if note.outcome == "failed" and known and id_ in known:
                    note.outcome, note.reason = "known deviation", f"{known[id_]}: {note.reason}"
            notes += made
    return sorted(notes, key=lambda note: note.id), report


def _parts(plan: Plan) -> list[Plan]:
    """Divide writes, each after those that lay out its rows, so that no store grows large: each is read many times."""
    starts = [
        place
        for place, one in enumerate(plan.calls)
        if "layout" in one.parameters and (not place or "layout" not in plan.calls[place - 1].parameters)
    ]
    cuts = [0, *starts[_WRITES::_WRITES], len(plan.calls)]
    return [replace(plan, calls=plan.calls[start:end]) for start, end in pairwise(cuts) if start < end]


def _all(id_: str, outcome: Any, reason: str, setting: Setting, **more: Any) -> list[Noted]:
    return [Noted(id_, mode, outcome, reason=reason, reproduce=setting.line(id_), **more) for mode in MODES]


def _one(
    id_: CallCheck, setting: Setting, capabilities: Capabilities, planner: Planner, report: CallsReport
) -> list[Noted]:
    """Perform one check in both modes."""
    try:
        setting.progress(f"{id_}: its calls are drawn")
        world, plan = planner.plan(id_, lambda done: setting.progress(f"{id_}: its calls are drawn ({done})"))
        if id_ == "C4":  # nothing is written before, so that a store with one tenant occurs
            world = replace(world, tenants=dict.fromkeys(world.tenants, ()))
        if id_ == "C3":
            plan = replace(plan, coverage=Coverage(0, (0, 0), (0, 0), {}))

        def progress(done: int, of: int = len(plan.calls)) -> None:
            setting.progress(f"{id_}: {min(before + done, of):,} of {of:,} calls")

        report.add(plan.coverage)
        if not setting.stores.thousands:
            report.left_out["tenants of thousands of rows, reads of 64 partitions"] = (
                "the harness says that its store is too slow for them"
            )
        found, counts, before = Found(), {mode: Counts() for mode in MODES}, 0
        for part in (_parts(plan) if id_ == "C2" else None) or [plan]:
            with loaded(setting, world, capabilities, world.tenants, faulty=id_ == "C3") as pair:
                report.dimension, report.metric = report.dimension or world.dimension, report.metric or world.metric
                report.census = "in-process" if pair.store.read_census is None else "out-of-band"
                if id_ == "C3":
                    perform_walk(pair, world, plan, found, setting.progress, whole=setting.size == "full")
                else:
                    perform(pair, part, found, progress)
                    before += len(part.calls)
                for mode in MODES:
                    counts[mode] += pair.counts[mode]
                differing = unscoped_differs(pair, [one.call for one in plan.calls]) if id_ == "C1" else (1, 1)
                program = _program(id_, setting, world, capabilities, pair, found)
                _identify(setting, pair)
                few = few_hits(*pair.comparison.hits)
                shown = leaked(world, plan, [side.far.said() for side in pair.sides])
            if found.first or shown or few:
                break
        report.calls += sum(one.calls for one in counts.values())
        notes = [_noted(id_, mode, setting, counts[mode], plan, found, differing, (shown, few)) for mode in MODES]
        for note in notes:
            note.script = program if note.outcome == "failed" and found.first else ""
        return notes
    except LoadError as error:
        back, why = f"{error}", "what is permitted has to work"
        attacked = f"a legitimate {error.call.method}"
        return _all(
            id_, "failed", f"{attacked}: {back}; {why}", setting, attacked=attacked, back=back, why=why, attacks=1
        )
    except (Abstain, HarnessError) as error:
        return _all(id_, "abstained", f"the kit's own control failed: {error}", setting)


@contextmanager
def openings(setting: Setting, world: World, capabilities: Capabilities, *, faulty: bool) -> Iterator[Opening]:
    """Return what opens a fresh pair with some rows: a copy of an empty one, where a copy has a store for itself."""
    with loaded(setting, world, capabilities, {}, faulty=faulty) as base:
        if base.store.read_census is not None:
            yield lambda rows: loaded(setting, world, capabilities, rows, faulty=faulty)
            return

        @contextmanager
        def branched(rows: Rows) -> Iterator[Pair]:
            with base.reference.branch(), base.store.branch(faulty=faulty):
                comparison = Comparison(base.comparison.capabilities, base.reference.wider, lambda: pair.rows())
                comparison.ranked_alike = {"lexical", "hybrid"}
                pair = Pair([base.store], base.reference, comparison)
                for side in (base.reference, base.store):
                    side.load(rows, min(500, capabilities.max_batch))
                try:
                    yield pair
                finally:
                    pair.close()

        yield branched


def _program(
    id_: CallCheck, setting: Setting, world: World, capabilities: Capabilities, pair: Pair, found: Found
) -> str:
    """Return a program that shows the first difference without the kit; "" if there is none."""
    difference = next(iter(found.first.values()), None)
    if difference is None:
        return ""
    rows: Rows = world.tenants
    steps: Steps = difference.before
    if difference.call is not None and steps[-1:] != ((difference.mode, difference.call),):
        steps = (*steps, (difference.mode, difference.call))
    try:
        with openings(setting, world, capabilities, faulty=id_ == "C3") as opening:
            shrunk = Shrinker(opening, world.rules).shrink(rows, difference)
    except (Abstain, HarnessError, LoadError, OtherError):
        shrunk = None
    if shrunk is not None:
        rows, steps, difference = shrunk.rows, shrunk.steps, shrunk.difference
    text = script(pair.store.config(), world.rules, rows, steps, difference, setting.source)
    return text if len(text) < _PROGRAM else ""


def _identify(setting: Setting, pair: Pair) -> None:
    """Note which code the processes run."""
    for side in pair.sides:
        if side.far.environment.site is not None:
            setting.measured.append(identify(side.far, str(side.settings["adapter"])))


def _noted(
    id_: str,
    mode: Mode,
    setting: Setting,
    counts: Counts,
    plan: Plan,
    found: Found,
    differing: tuple[int, int],
    whole_run: tuple[str, str],
) -> Noted:
    shown, few = whole_run
    note = Noted(id_, mode, "passed", reproduce=setting.line(id_), controls=counts.full, attacks=counts.calls)
    difference = found.first.get(mode)
    if difference is not None:
        failed(note, difference)
    elif shown:
        note.outcome, note.attacked, note.back = "failed", "the output of the adapter's process", f"it shows {shown}"
        note.why = "what is stored must not be printed or logged"
    elif few:
        note.outcome, note.attacked, note.back = "failed", "all searches together", f"they return {few}"
        note.why = "an index that is not complete has to find at least half of them"
    elif found.first:
        note.outcome, note.reason = "not run", "the other mode failed, and the stores are no longer comparable"
    elif setting.size == "full" and not _complete(plan.coverage):
        note.outcome, note.reason = (
            "not run",
            f"not measured: {plan.coverage.pairs} pairs, {plan.coverage.triples} triples",
        )
    elif counts.full < _FULL * counts.calls or 4 * differing[0] < differing[1]:
        note.outcome = "abstained"
        note.reason = f"{counts.full} of {counts.calls} answers show something; a scope matters in {differing}"
    note.reason = note.reason or (f"{note.attacked}: {note.back}; {note.why}" if note.why else "")
    return note


def failed(note: Noted, difference: Difference) -> None:
    """Note a difference."""
    call = difference.call
    note.outcome = "failed"
    note.attacked = "the rows that were written first" if call is None else described(call)
    note.back = difference.problem
    note.why = f"the reference answers {difference.right}" if difference.right else "the reference holds other rows"


def described(call: Call) -> str:
    """Return a call in one line."""
    arguments = ", ".join(f"{name}={short(value, 60)}" for name, value in call.arguments.items())
    narrowed = f", {len(call.narrowings)} times narrowed" if call.narrowings else ""
    return f"{call.method}({arguments}) as {call.principal.id!r} of {call.principal.tenant!r}{narrowed}"


def _complete(coverage: Coverage) -> bool:
    return coverage.pairs[0] == coverage.pairs[1] and coverage.triples[0] == coverage.triples[1]
