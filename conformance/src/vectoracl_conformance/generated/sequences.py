"""C3: a walk of reads and writes by many principals, with failures, cancellations, other rules and calls in flight.

The calls are those of the plans, in another order. After a failure the next call is another principal's, and is
compared whole; after a write whose reply was lost, the store holds the old rows or the new ones and nothing between.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectoracl.filters.predicate import ALWAYS, F
from vectoracl.model.records import Chunk
from vectoracl_conformance.generated.calls import After, Call, Cut, Fault, Rules, Together, tenants
from vectoracl_conformance.generated.comparison import Outcome, of_the_store, shown
from vectoracl_conformance.generated.pair import Difference, Pair, in_parts, writes
from vectoracl_conformance.generated.reference import Mode, Side, conflicted, in_time, late, unsent, writer
from vectoracl_conformance.generated.simultaneous import Round
from vectoracl_conformance.generated.values import Draw
from vectoracl_conformance.generated.world import World
from vectoracl_conformance.verdict import MODES

_WIDTHS = (2, 3, 8, 19, 20, 21, 33, 64)
_FAULTS: tuple[dict[int, Any], ...] = (
    {1: "unknown"},
    {1: "after"},
    {1: "before"},
    {2: "before"},
    {2: "after"},
    {2: "unknown"},
    {1: "before", 2: "before", 3: "before"},
)
_CUTS = (0.0005, 0.002, 0.01, 0.05)
_WITHOUT_LIMIT = frozenset({"scan", "load"})
"""The methods that have no time limit as a whole."""
_AGAIN = {True: 20, False: 6}
"""How many reads are asked again by another principal and after a write, in a whole walk or a shorter one."""
_APART = "the other client writes"
"""The detail of a step whose writes are made by the client of the other mode, which the first must not overlook."""
_SAME = 12
"""How many principals ask the same at once."""
_AT_ONCE = frozenset({"search", "fetch", "count", "facets"})
"""Reads that show one state of the rows of a tenant; the others ask again for each page or query."""
_PAIRED = 12
"""The first rows of a tenant, among which are those of `denied_changes`."""
_REWRITES = ("ids", "pairs", "document", "where", "upsert", "replace", "load")
_REWRITTEN = 100
"""The most rows of a tenant that are written between two equal reads."""
_CHANGES = 1
"""How often each argument of a method is changed between two equal reads."""
_NUDGES = (0.0005, 0.003, 0.02)
"""How far a changed vector is from the one before, as shares of its length."""
_FORMS = {True: 4, False: 2}
"""How many forms of a method's calls follow each kind of disturbance, in a whole walk or a shorter one."""
_STEPS = 4
"""During how many steps a cancelled write may still appear: this one, and the next ones."""
_LATE = 0.25
"""How long a write may go on in the store after its caller has stopped waiting, in seconds."""


def drawn_changes(world: World, reads: Sequence[Call], count: int = 200) -> list[Call]:
    """Return writes by the principals of *reads*, with their scopes, and by principals that may write everything."""
    rng = random.Random(world.seed)  # noqa: S311 - repeatable
    full = [name for name, chunks in world.tenants.items() if chunks]
    changes = []
    for _ in range(count):
        tenant = rng.choice(full)
        call = Call(writer(tenant), "upsert")
        if rng.random() < 0.5:
            call = rng.choice([one for one in reads if one.principal.tenant in full])
        method, arguments = _change(rng, world.tenants[call.principal.tenant], call)
        changes.append(replace(call, method=method, arguments=arguments))
    return changes


def _change(rng: random.Random, chunks: Sequence[Chunk], call: Call) -> tuple[str, dict[str, Any]]:
    """Return the method and the arguments of one write to a tenant that has *chunks*."""
    some = rng.sample(chunks, min(len(chunks), rng.choice((1, 2, 3, 30))))
    document = some[0].document
    match rng.choice(("upsert", "upsert", "load", "replace", "replace", "ids", "pairs", "document", "where")):
        case "upsert":
            return "upsert", {"chunks": [_mixed(rng, chunks, one) for one in some]}
        case "load":
            return "load", {"stream": [_mixed(rng, chunks, one) for one in some]}
        case "replace":
            own = [one for one in chunks if one.document == document][: rng.choice((0, 1, 3))]
            return "replace", {"document": document, "chunks": [_mixed(rng, chunks, one) for one in own]}
        case "ids":
            return "delete", {"ids": [one.id for one in some]}
        case "pairs":
            return "delete", {"ids": [(one.document, one.id) for one in some]}
        case "document":
            return "delete", {"document": document}
        case _:
            return "delete", {"where": call.arguments.get("where", F["@document"] == document)}


def asked_around_changes(world: World, reads: Sequence[Call], batch: int = _REWRITTEN) -> list[tuple[Call, ...]]:
    """Return for each method that reads and each way to write: a read, a write to the tenant's rows, and both again.

    The tenants have at most *batch* rows, so that one call writes all of them.

    The second write makes the rows what they were. What a store keeps of an answer shows, whichever write it overlooks.
    """
    rng = Draw(world.seed, "asked around changes").py
    full = {name: chunks for name, chunks in world.tenants.items() if 1 < len(chunks) <= min(batch, _REWRITTEN)}
    steps: list[tuple[Call, ...]] = []
    for method in sorted({call.method for call in reads}):
        own = [one for one in reads if one.method == method and one.principal.tenant in full]
        for how in _REWRITES if own else ():
            call = _broad(rng.choice(own))
            tenant = call.principal.tenant
            back = Call(writer(tenant), "upsert", {"chunks": full[tenant]})
            changed, arguments = _rewrite(rng, how, full[tenant])
            steps.append((call, replace(back, method=changed, arguments=arguments), call, back, call))
    return steps


def asked_before_the_first_write(world: World, reads: Sequence[Call]) -> list[tuple[Call, ...]]:
    """Return for each method a read by a tenant that has never written, its first write, and the read again."""
    draw = Draw(world.seed, "asked before the first write")
    steps: list[tuple[Call, ...]] = []
    for method in sorted({call.method for call in reads} & _AT_ONCE):
        own = [one for one in reads if one.method == method and len(world.tenants.get(one.principal.tenant, ())) > 1]
        for call in draw.some(own, 1):
            who = writer(draw.uuid())
            chunks = list(world.tenants[call.principal.tenant][:3])
            asked = replace(_broad(call), principal=who)
            steps.append((asked, Call(who, "upsert", {"chunks": chunks}), asked))
    return steps


def asked_between_pages(world: World, reads: Sequence[Call], batch: int = _REWRITTEN) -> list[tuple[Call, ...]]:
    """Return a page, a write to the tenant's rows or a page of another principal, and the page behind the first one.

    A store may keep what the first page has found for the next ones, and not for whom or for which rows it holds.
    """
    rng = Draw(world.seed, "asked between pages").py
    full = {name: chunks for name, chunks in world.tenants.items() if 2 < len(chunks) <= min(batch, _REWRITTEN)}
    own = [one for one in reads if one.method == "page" and one.principal.tenant in full]
    known = [one for one in reads if one.principal.tenant in full]
    steps: list[tuple[Call, ...]] = []
    for how in ("", "", "", *_REWRITES) if own else ():
        call = _broad(rng.choice(own))
        tenant = call.principal.tenant
        first = replace(call, arguments={**call.arguments, "size": rng.choice((1, 2))})
        behind = replace(first, arguments={**first.arguments, "after": After(kept=True)})
        if how:
            method, arguments = _rewrite(rng, how, full[tenant])
            change = Call(writer(tenant), method, arguments)
            back = replace(change, method="upsert", arguments={"chunks": full[tenant]})
            steps.append((first, change, behind, back, behind))
            continue
        others = [one for one in known if one.principal.tenant == tenant]
        other = rng.choice(others)
        asked = [replace(one, principal=other.principal, narrowings=other.narrowings) for one in (first, behind)]
        steps.append((first, asked[0], behind, asked[1], first, asked[0], asked[1]))
    return steps


def asked_at_once(reads: Sequence[Call], rng: random.Random) -> list[tuple[Call, ...]]:
    """Return for each method a call as several principals of a tenant ask it at once, each with its own scope."""
    steps: list[tuple[Call, ...]] = []
    for method in sorted({call.method for call in reads} & _AT_ONCE):
        by_tenant: dict[str, list[Call]] = {}
        for call in reads:
            by_tenant.setdefault(call.principal.tenant, []).append(call)
        own = [one for one in reads if one.method == method and len(by_tenant[one.principal.tenant]) > 2]
        for call in rng.sample(own, min(len(own), 2)):
            others = rng.sample(known := by_tenant[call.principal.tenant], min(len(known), _SAME))
            steps.append(tuple(replace(call, principal=one.principal, narrowings=one.narrowings) for one in others))
    return steps


def asked_with_one_change(world: World, reads: Sequence[Call]) -> list[tuple[Call, ...]]:
    """Return for each argument of each read: a call, the same with another value of that argument, and the first again.

    An answer that a store keeps under too little of what was asked shows in the second one.
    """
    rng = Draw(world.seed, "asked with one change").py
    full = {name for name, chunks in world.tenants.items() if len(chunks) > 1}
    steps: list[tuple[Call, ...]] = []
    for method in sorted({call.method for call in reads}):
        own = [one for one in reads if one.method == method and one.principal.tenant in full]
        for name in sorted({name for one in own for name in one.arguments} - {"timeout", "after"}):
            for _ in range(_CHANGES):
                call = _broad(rng.choice(own))
                asked = call.arguments.get(name)
                other = [one for one in own if name in one.arguments and repr(one.arguments[name]) != repr(asked)]
                alike = [one for one in other if one.principal.tenant == call.principal.tenant]
                arguments = {key: one for key, one in call.arguments.items() if key != name}
                if isinstance(asked, np.ndarray):  # the store may keep it rounded
                    shift = _direction(rng, len(asked)) * np.float32(rng.choice(_NUDGES) * np.linalg.norm(asked))
                    arguments[name] = asked + shift
                elif other:
                    arguments[name] = rng.choice(alike or other).arguments[name]
                elif all(name in one.arguments for one in own):
                    continue  # it cannot be left out, and has one value
                changed = replace(call, arguments=arguments)
                steps.append((call, changed, call))
    return steps


def asked_with_one_part_changed(world: World, reads: Sequence[Call]) -> list[tuple[Call, ...]]:
    """Return for each part of each kind of query: a call, the same with another value of that part, and both again.

    An answer, or what a store makes of a query, may be kept under a part of the query.
    """
    rng = Draw(world.seed, "asked with one part changed").py
    full = {name for name, chunks in world.tenants.items() if len(chunks) > 1}
    by_kind: dict[type, list[Call]] = {}
    for call in reads:
        if call.method == "search" and is_dataclass(query := call.arguments["query"]):
            by_kind.setdefault(type(query), []).append(call)
    steps: list[tuple[Call, ...]] = []
    for kind in sorted(by_kind, key=lambda one: one.__name__):
        parts = [one.name for one in fields(kind)]
        for part in parts if len(parts) > 1 else ():
            given = [one for one in by_kind[kind] if getattr(one.arguments["query"], part) is not None]
            own = [one for one in given if one.principal.tenant in full]
            if not own:
                continue
            call = _broad(rng.choice(own))
            query = call.arguments["query"]
            values = [getattr(one.arguments["query"], part) for one in given]
            other = [one for one in values if repr(one) != repr(getattr(query, part))]
            if other:
                changed = {**call.arguments, "query": replace(query, **{part: rng.choice(other)})}
                steps.append((call, replace(call, arguments=changed)) * 2)
    return steps


def _direction(rng: random.Random, dimension: int) -> NDArray[np.float32]:
    """Return a vector of length 1."""
    drawn = np.asarray([rng.gauss(0, 1) for _ in range(dimension)], np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn), np.float32)


def _broad(call: Call) -> Call:
    """Return the read as one by a principal who may see all rows of the tenant, without a filter."""
    arguments = {name: one for name, one in call.arguments.items() if name not in ("where", "min_score", "after")}
    return Call(writer(call.principal.tenant), call.method, arguments)


def _rewrite(rng: random.Random, how: str, chunks: Sequence[Chunk]) -> tuple[str, dict[str, Any]]:
    """Return the method and the arguments of a write to *chunks*, or to those of one document."""
    contents = rng.sample(chunks, len(chunks))
    changed = [
        replace(other, id=one.id, document=one.document, text=f"{one.text} {other.id}")
        for one, other in zip(chunks, contents, strict=True)
    ]
    (document, _), *_ = Counter(one.document for one in chunks).most_common()
    match how:
        case "ids":
            return "delete", {"ids": [one.id for one in chunks]}
        case "pairs":
            return "delete", {"ids": [(one.document, one.id) for one in chunks]}
        case "document":
            return "delete", {"document": document}
        case "where":
            return "delete", {"where": ALWAYS}
        case "replace":
            return "replace", {"document": document, "chunks": [one for one in changed if one.document == document]}
        case "load":
            return "load", {"stream": changed}
    return "upsert", {"chunks": changed}


def denied_changes(world: World) -> list[Call]:
    """Return writes that a store has to deny: one record would replace a row outside the scope of a narrowed handle.

    The core cannot know that before the store is asked. The records before and after it may be written.
    """
    rng = Draw(world.seed, "denied changes").py
    changes = []
    for tenant, chunks in world.tenants.items():
        some = [(one, other, _apart(one, other)) for one, other in permutations(chunks[:_PAIRED], 2)]
        pairs = [(one, other, name) for one, other, name in some if name]
        for one, other, name in rng.sample(pairs, min(len(pairs), 2)):
            good = [replace(other, id=f"{other.id[:200]}{end}") for end in rng.sample(range(1000), 2)]
            records = [good[0], replace(other, id=one.id, document=one.document), *good[1:]]
            rng.shuffle(records)
            narrowed = ((F[name] == other.metadata[name], None),)
            changes.append(Call(writer(tenant), "upsert", {"chunks": records}, narrowed))
    return changes


def _apart(one: Chunk, other: Chunk) -> str:
    """Return a field of keywords in which two chunks differ; "" if there is none."""
    for name, value in other.metadata.items():
        here = one.metadata.get(name)
        if isinstance(value, str) and isinstance(here, str) and value != here:
            return name
    return ""


def _mixed(rng: random.Random, chunks: Sequence[Chunk], one: Chunk) -> Chunk:
    """Return *one* with the content of others, or under a new id."""
    other = rng.choice(chunks)
    id_ = one.id if rng.random() < 0.6 else f"{other.id[:200]}{rng.randrange(1000)}"
    return replace(other, id=id_, document=one.document, metadata=rng.choice(chunks).metadata)


_Cancelled = tuple[int, Mode, Call]
"""A write that was cancelled, and during how many steps it may still appear."""


@dataclass(frozen=True)
class Drawn:
    """One drawn step of a walk: its kind, the mode and the calls."""

    kind: str
    mode: Mode
    calls: tuple[Call, ...]
    detail: Any = None


def walk(
    world: World,
    reads: Sequence[Call],
    changes: Sequence[Call],
    laid_out: Sequence[Round] = (),
    *,
    whole: bool,
    batch: int = _REWRITTEN,
) -> list[Drawn]:
    """Return the steps of one walk.

    Every method meets every kind of failure and cancellation, and is then called by another principal. Every form of a
    call comes directly after a failure, a cancellation and a write that the store denies. The order is drawn.

    Args:
        world: The rows and the policy's table.
        reads: Reads to choose from.
        changes: Writes to choose from.
        laid_out: Writes to make at the same time.
        whole: Whether also the second and third request of a call fail, and every time and number of calls is taken.
        batch: The most rows that the adapter takes by one write.
    """
    draw = Draw(world.seed, "walk")
    rng = draw.py
    rules, denied = world.rules, denied_changes(world)
    limited = [one for one in reads if one.method not in _WITHOUT_LIMIT]
    by_method: dict[str, list[Call]] = {}
    for call in (*reads, *changes):
        by_method.setdefault(call.method, []).append(call)
    steps: list[Drawn] = []

    def add(kind: str, detail: Any, *calls: Call) -> None:
        steps.append(Drawn(kind, rng.choice(MODES), calls, detail))

    for own in by_method.values():
        for fault in _FAULTS if whole else _FAULTS[:3]:
            add("fault", fault, _first(rng.choice(own)), rng.choice(own), rng.choice(own), rng.choice(reads))
        for after in _CUTS if whole else rng.sample(_CUTS, 1):
            if own[0].method not in _WITHOUT_LIMIT:
                add("cut", after, _first(rng.choice(own)), rng.choice(own), rng.choice(reads))
        add("rules", _changed(rng, one := rng.choice(own), rules), one, *rng.choices(reads, k=2))
        for _ in range(4 if writes(own[0]) else 1):
            add("calls", None, *rng.choices(own, k=2), *rng.choices(reads, k=2))
        for call in _forms(rng, own, _FORMS[whole]):
            add("fault", rng.choice(_FAULTS[:3]), _first(rng.choice(reads)), call)
            if limited:
                add("cut", rng.choice(_CUTS), _first(rng.choice(limited)), call)
            add("calls", None, *rng.sample(denied, min(len(denied), 1)), call)
    for call in rng.sample(reads, min(len(reads), _AGAIN[whole])):
        add("calls", None, *_asked_again(rng, call, reads, changes))
    around = asked_around_changes(world, reads, batch)
    changed = [*asked_with_one_change(world, reads), *asked_with_one_part_changed(world, reads)]
    between = asked_between_pages(world, reads, batch)
    around = [*(around if whole else draw.some(around, 2)), *(between if whole else draw.some(between, 2))]
    for place, calls in enumerate(around):
        add("calls", _APART if place % 2 else None, *calls)
    first = asked_before_the_first_write(world, reads)
    for calls in first if whole else draw.some(first, 1):
        add("calls", _APART, *calls)
    for calls in changed if whole else draw.some(changed, 4):
        add("calls", None, *calls)
    for calls in asked_at_once(reads, rng) if whole else draw.some(asked_at_once(reads, rng), 1):
        steps += [Drawn("together", mode, calls, len(calls)) for mode in MODES]
    for width in _WIDTHS if whole else (3, 12, 21, 64):
        for number in (0, 4, 30) if whole and width > 32 else (0, 4):
            some = [*rng.sample(changes, min(len(changes), number)), *rng.sample(denied, min(len(denied), number))]
            add("together", width, *some, *rng.choices(reads, k=width))
    # What takes few requests, and is not left out because it may show the half of a write.
    short = [one for one in reads if one.method in _AT_ONCE and len(tenants(one, rules)) == 1] or reads
    for made in laid_out:
        add("laid out", (len(made.laid), width := max(_WIDTHS)), *made.laid, *made.writes, *rng.choices(short, k=width))
    for own in by_method.values() if whole else ():
        if not writes(own[0]):
            some = rng.sample(own, min(len(own), max(_WIDTHS)))
            add("together", max(_WIDTHS), *some, *rng.choices(own, k=max(_WIDTHS) - len(some)))
    rng.shuffle(steps)
    return steps


def _forms(rng: random.Random, calls: Sequence[Call], most: int) -> list[Call]:
    """Return one call of each form, at most *most*: of the arguments that are given, and the type of what is asked."""
    known: dict[tuple[Any, ...], list[Call]] = {}
    for call in calls:
        asked = call.arguments.get("query", call.arguments.get("ids"))
        each = {type(one) for one in asked} if isinstance(asked, list) else type(asked)
        known.setdefault((frozenset(call.arguments), str(each)), []).append(call)
    return [rng.choice(own) for own in rng.sample(list(known.values()), min(len(known), most))]


def _asked_again(rng: random.Random, call: Call, reads: Sequence[Call], changes: Sequence[Call]) -> Sequence[Call]:
    """Return *call*, the same question of another principal of the tenant, a write there, and both again."""
    tenant = call.principal.tenant
    others = [one for one in reads if one.principal.tenant == tenant and one.principal != call.principal]
    writing = [one for one in changes if one.principal.tenant == tenant]
    other = rng.choice(others or [call])
    asked = (call, replace(call, principal=other.principal, narrowings=other.narrowings))
    return (*asked, *rng.sample(writing, min(len(writing), 1)), *asked)


def _first(call: Call) -> Call:
    """Return the call for the first page: the requests for the pages before would meet the failure."""
    return replace(call, arguments={name: one for name, one in call.arguments.items() if not isinstance(one, After)})


def _changed(rng: random.Random, call: Call, rules: Rules) -> Rules:
    """Return other rules for the principal of *call*: those of another one, none, or the tenant's."""
    name = call.principal.id
    choice = rng.random()
    if choice < 0.3 or not rules:
        return {name: {}}
    return {name: rules[rng.choice(sorted(rules))]}


class Walk:
    """Performs the steps of a walk on a pair of stores."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._cancelled: list[_Cancelled] = []
        self._postponed: list[Drawn] = []
        self._steps: dict[str, Callable[[Drawn], list[Difference]]] = {
            "calls": self._calls,
            "fault": self._fault,
            "cut": self._cut,
            "together": self._together,
            "laid out": self._laid_out,
            "rules": self._rules,
        }

    def perform(self, steps: Iterable[Drawn], progress: Callable[[int], None] = lambda _: None) -> Difference | None:
        """Perform steps until one differs. Returns: the difference, or None. *progress* gets the number before each.

        Steps that write where a cancelled write may still appear come later: of two writes to the same rows, of which
        one may come before the other, within it or after it, no answer could be judged.
        """
        waiting, number = list(steps), 0
        while waiting:
            progress(number)
            found = self.step(waiting.pop(self._next(waiting)))
            if found:
                return found[0]
            waiting[:0], self._postponed = self._postponed, []
            number += 1
        return None

    def _next(self, waiting: Sequence[Drawn]) -> int:
        """Return the place of the first step that may be performed now; if there is none, wait for cancelled writes."""
        for place, step in enumerate(waiting):
            if not self._doubtful(step.calls, step.detail if step.kind == "rules" else {}):
                return place
        time.sleep(_STEPS * self._late)
        self._appeared()
        self._cancelled = []
        return 0

    def _doubtful(self, calls: Iterable[Call], more: Rules | None = None) -> bool:
        """Return whether one of *calls* writes where a cancelled write may still appear, by the rules or by *more*."""
        rules = self.pair.reference.rules
        doubtful = [tenants(call, rules) for _, _, call in self._cancelled]
        if not doubtful:
            return False
        concerned: set[str] = set()
        for call in filter(writes, calls):
            concerned |= tenants(call, rules) | tenants(call, {**rules, **(more or {})})
        return any(map(concerned.intersection, doubtful))

    @property
    def _late(self) -> float:
        """How long a cancelled write may go on, in seconds; where the store lives in the process, hardly at all."""
        return _LATE if self.pair.store.read_census is not None else 0.02

    def step(self, step: Drawn) -> list[Difference]:
        """Perform one step. Returns: what differs."""
        found = self._steps[step.kind](step)
        # A cancelled write cannot change what other writes answer: none of them concerns its rows, see `perform`.
        answered = any(one.right and one.call is not None and writes(one.call) for one in found)
        if found and not answered and self._appeared():
            # The answers were of other rows. What the step reads is asked again, so that nothing else stays unjudged.
            found = self.pair.perform([(step.mode, call) for call in step.calls if not writes(call)])
        self._cancelled = [(left - 1, mode, call) for left, mode, call in self._cancelled if left > 1]
        return found

    def _appeared(self) -> bool:
        """Return whether cancelled writes are all that differs: the store performed them after it was looked at.

        A store may still perform a request whose caller has stopped waiting, on a busy machine for longer than `_LATE`.
        Then the reference performs them too.
        """
        pair, cancelled = self.pair, self._cancelled
        if not cancelled or pair.agree():
            return False
        for number in range(1, len(cancelled) + 1):
            for some in combinations(cancelled, number):
                if pair.agree([(mode, call) for _, mode, call in some]):
                    self._cancelled = [one for one in cancelled if not any(one is other for other in some)]
                    return True
        # Of a write in several requests some may appear. What they left goes when a program writes again.
        again = [(mode, call) for _, mode, call in cancelled if self._permitted(mode, call)]
        if any(pair.store.calls(mode, [call])[0][0] == "error" for mode, call in again) or not pair.agree(again):
            return False
        self._cancelled = []
        return True

    def _permitted(self, mode: Mode, call: Call) -> bool:
        """Return whether readers may see what a cancelled write has left: nothing or all, if that is declared."""
        reference = self.pair.reference
        if not _whole(self.pair, call):
            return True
        before = self._view(reference, call)
        with reference.branch():
            reference.calls(mode, [call])
            return self._seen_whole(call, before)

    def _calls(self, step: Drawn) -> list[Difference]:
        other: Mode = "async" if step.mode == "sync" else "sync"
        writer_mode = other if step.detail == _APART else step.mode
        return self.pair.perform([(writer_mode if writes(call) else step.mode, call) for call in step.calls])

    def _rules(self, step: Drawn) -> list[Difference]:
        pair = self.pair
        before = pair.reference.rules
        for side in (pair.reference, *pair.sides):
            side.rules = {**before, **step.detail}
        named = next(iter(step.detail))
        concerned = [call for call in step.calls if call.principal.id == named]
        found = pair.perform([(step.mode, call) for call in (*concerned, *step.calls)])
        for side in (pair.reference, *pair.sides):
            side.rules = before
        return found or pair.perform([(step.mode, call) for call in concerned])

    def _fault(self, step: Drawn) -> list[Difference]:
        pair, (call, *others) = self.pair, step.calls
        pair.history.append((step.mode, Fault(step.detail)))
        pair.store.fail(step.mode, step.detail)
        try:
            (got,) = pair.store.attempt(step.mode, call)
        finally:
            pair.store.fail(step.mode, {})
        found = self._uncertain(step.mode, call, got, first=1 in step.detail)
        return found or pair.perform([(step.mode, one) for one in others])

    def _cut(self, step: Drawn) -> list[Difference]:
        pair, (call, *others) = self.pair, step.calls
        pair.history.append((step.mode, Cut(call, step.detail)))
        got = pair.store.cut(step.mode, call, step.detail)
        found: list[Difference] = []
        if not writes(call):
            return self._uncertain(step.mode, call, got) or pair.perform([(step.mode, one) for one in others])
        if got[0] != "ok":
            time.sleep(self._late)
        held = pair.rows()
        found = self._uncertain(step.mode, call, got)
        if not found and pair.rows() is held and _may_appear(got):  # what has happened cannot happen again
            self._cancelled.append((_STEPS, step.mode, call))
        later = [one for one in others if self._doubtful([one])]
        self._postponed += [Drawn("calls", step.mode, (one,)) for one in later]
        at_once = [(step.mode, one) for one in others if not any(one is other for other in later)]
        return found or pair.perform(at_once)

    def _uncertain(self, mode: Mode, call: Call, got: Outcome, *, first: bool = False) -> list[Difference]:
        """Judge a call that may have failed on the way: a success is right, and a failure is the store's.

        *first*: the first request failed, so an error that says that nothing was sent has to be right.
        """
        pair = self.pair
        if not writes(call):
            (right,) = pair.reference.calls(mode, [call])
            return [] if _failure(got) else pair.judge(mode, [call], [right], [got])
        if got[0] == "ok":
            return pair.judge(mode, [call], pair.made(mode, [call], [got]), [got]) or _some(
                pair.compare_census(mode, call)
            )
        if not _failure(got):
            return self._refused(mode, call, got)
        return self._either(mode, call, got, certain=first and got[0] == "error" and got[1][3].get("sent") == "no")

    def _refused(self, mode: Mode, call: Call, got: Outcome) -> list[Difference]:
        pair = self.pair
        found = pair.judge(mode, [call], pair.made(mode, [call], [got]), [got])
        # A load may have written the batches before the one that was refused.
        return found or _some(pair.compare_census(mode, call) if in_parts(call) else pair.unchanged(mode, call))

    def _either(self, mode: Mode, call: Call, got: Outcome, *, certain: bool) -> list[Difference]:
        """Demand that a failed write left the old rows or made the new ones."""
        pair = self.pair
        pair.history.append((mode, call))
        if pair.is_unchanged():
            return []
        before = self._view(pair.reference, call)
        pair.reference.calls(mode, [call])
        difference = pair.compare_census(mode, call)
        if difference is None:
            problem = f"it was performed, and reports that it was not: {shown(got)}"
            return [pair.difference(mode, call, problem)] if certain else []
        if _whole(pair, call) and not self._seen_whole(call, before):
            problem = f"after {shown(got)}, the rows are neither the old ones nor the new ones: {difference.problem}"
            return [replace(difference, problem=problem)]
        # What readers see is right. The rows that a broken-off write left are replaced when a program writes again.
        (again,) = pair.store.calls(mode, [call])
        if again[0] == "error":
            return [pair.difference(mode, call, f"after a failed write it cannot be made again: {shown(again)}")]
        pair.reference.calls(mode, [call])
        return _some(pair.compare_census(mode, call))

    def _view(self, side: Side, call: Call) -> list[Outcome]:
        """Return the rows that a reader of each tenant sees which the call may concern."""
        return side.calls("sync", self._views(call))

    def _views(self, call: Call) -> list[Call]:
        include = {"include": {"text", "metadata", "vector"}}
        return [Call(writer(name), "scan", include) for name in sorted(tenants(call, self.pair.reference.rules))]

    def _seen_whole(self, call: Call, before: list[Outcome]) -> bool:
        """Return whether readers of the store see the rows before the write, or those after it."""
        comparison = self.pair.comparison
        got, after = self._view(self.pair.store, call), self._view(self.pair.reference, call)

        def seen(right: list[Outcome]) -> bool:
            return all(comparison.problem(*one) is None for one in zip(self._views(call), right, got, strict=True))

        return seen(before) or seen(after)

    def _laid_out(self, step: Drawn) -> list[Difference]:
        """Lay out rows by the first calls, and make the others at the same time."""
        laid, width = step.detail
        found = self.pair.perform([(step.mode, call) for call in step.calls[:laid]])
        return found or self._together(Drawn("together", step.mode, step.calls[laid:], width))

    def _together(self, step: Drawn) -> list[Difference]:
        pair = self.pair
        changes, reads = self._independent(step.calls)
        first = len(reads) * 7 // 8  # so that writes begin next to reads, too
        calls = [*reads[:first], *changes, *reads[first:]]
        pair.history.append((step.mode, Together(tuple(calls), step.detail)))
        got = pair.store.together(step.mode, calls, step.detail)
        in_time(calls, got)
        for place, (call, one) in enumerate(zip(calls, got, strict=True)):
            if conflicted(one) or late(one, call) or unsent(one):
                got[place] = pair.store.calls(step.mode, [call])[0]
        last = first + len(changes)
        done, seen = got[first:last], [*got[:first], *got[last:]]
        # A read that ran after the write which concerns it shows the rows after that write. By place: one call may
        # stand here twice, with an answer from before and one from after.
        right = pair.reference.calls(step.mode, reads)
        late_ones = [
            place
            for place, call in enumerate(reads if changes else ())
            if pair.comparison.problem(call, right[place], seen[place]) is not None
        ]
        early = [place for place in range(len(reads)) if place not in late_ones]
        found = pair.judge(step.mode, *_at(early, reads, right, seen))
        if changes:
            found += pair.judge(step.mode, changes, pair.made(step.mode, changes, done), done)
            found += _some(pair.compare_census(step.mode, changes[-1]))
            again, answers = _at(late_ones, reads, seen)
            found += pair.judge(step.mode, again, pair.reference.calls(step.mode, again), answers)
        return found

    def _independent(self, calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
        """Return writes that concern different tenants, and reads that show the rows before or after one of them.

        Left out are reads which two of the writes concern, and those that could see the half of one: the write or the
        read takes several requests.
        """
        rules = self.pair.reference.rules
        changes: list[Call] = []
        touched: list[frozenset[str]] = []
        for call in filter(writes, calls):
            own = tenants(call, rules)
            if not any(own & other for other in touched):
                changes.append(call)
                touched.append(own)
        whole = [_whole(self.pair, call) and len(own) == 1 for call, own in zip(changes, touched, strict=True)]
        reads = []
        for call in calls:
            if not writes(call):
                concerned = [at for at, own in enumerate(touched) if tenants(call, rules) & own]
                if not concerned or (len(concerned) == 1 and whole[concerned[0]] and call.method in _AT_ONCE):
                    reads.append(call)
        return changes, reads


def _at(places: Sequence[int], *several: Sequence[Any]) -> tuple[list[Any], ...]:
    """Return what stands at *places* in each of *several*."""
    return tuple([some[place] for place in places] for some in several)


def _failure(got: Outcome) -> bool:
    """Return whether the outcome is a failure of the store, or a cancellation."""
    return got[0] == "cut" or of_the_store(got)


def _may_appear(got: Outcome) -> bool:
    """Return whether a write that left no trace may still be performed: it was cancelled, and perhaps sent before."""
    return got[0] == "cut" or (got[0] == "error" and got[1][3].get("sent") != "no" and of_the_store(got))


def _whole(pair: Pair, call: Call) -> bool:
    """Return whether the store declares that such a write happens as a whole or not at all."""
    can = pair.comparison.capabilities
    if call.method == "load":  # several batches
        return False
    if call.method == "replace":
        return can.atomic_replace
    if call.method == "update_metadata":
        return can.atomic_update == "transaction"
    return can.atomic_upsert


def _some(difference: Difference | None) -> list[Difference]:
    return [] if difference is None else [difference]
