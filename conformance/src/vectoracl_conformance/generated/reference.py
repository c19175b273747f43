"""Stores as sides of a comparison: the adapter that is measured, and the memory adapter as the reference.

Both are driven by the same program in a separate process, and get the same messages. So the reference knows every
operation and every argument that the library has.
"""

from __future__ import annotations

import atexit
import base64
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.errors import TooLargeError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.principal import Principal
from vectoracl.model.records import Chunk, Page, Record
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.context.check_context import STORE
from vectoracl_conformance.context.check_context import Mode as Mode
from vectoracl_conformance.generated.calls import After, Call, Rules
from vectoracl_conformance.generated.comparison import Outcome, of_the_store, widened
from vectoracl_conformance.generated.content import Census
from vectoracl_conformance.generated.filters import WRITER, written_by
from vectoracl_conformance.harnesses.memory import census_text
from vectoracl_conformance.isolated.changed_rows import changed_rows
from vectoracl_conformance.isolated.interpreter import PlainEnvironment, plain
from vectoracl_conformance.isolated.process import Far
from vectoracl_conformance.verdict import MODES

MOST = 10_000
ADDS = frozenset({"upsert", "replace", "load"})
"""The methods that write rows."""
_LIMITED = frozenset({"search", "search_many", "fetch", "count", "facets", "page"})
_UNLIMITED = frozenset({"scan"})
"""Reads without a time limit for the whole call: only each request has one."""
_PATIENCE = (90.0, 240.0)
"""The time limit of a read that was too slow, in seconds, with one more for each query: at least, and at most."""
_TURN = 5.0
"""The time that one group of calls should take, in seconds: a process that is long silent looks like one that hangs."""
_END: Outcome = ("ok", Page((), None))
_UNBOUND = "report"
_ATTEMPTS = 6
_GROUP = 40
_WEIGHT = 200
"""The chunks and queries of one such group, if it has several calls: the pace of small ones says little."""

_DECLARES = """
from dataclasses import replace
import base64, pickle
DECLARED = pickle.loads(base64.b64decode({declared!r}))

class Declares:
    def __init__(self, inner, declared):
        self._inner = inner
        self._declared = declared

    def __getattr__(self, name):
        return getattr(self._inner, name)

    @property
    def capabilities(self):
        own = self._inner.capabilities
        return replace(self._declared, grade=own.grade, metric=own.metric, dimension=own.dimension)

def dress(opened, declared=DECLARED):  # each client keeps what held when it was opened
    return replace(opened, adapter=Declares(opened.adapter, declared))
"""


_NUMBERS = """
from vectoracl.memory.ports import shelf_of

def work(client, settings, numbers):
    shelf = shelf_of(*settings)
    with shelf.lock:
        for tenant, documents in numbers.items():
            rows = shelf.partitions[tenant]
            for key in [key for key in rows if key[0] in documents]:
                row = rows.pop(key)
                tag = row.tag._replace(generation=documents[key[0]])
                rows[tag.document, tag.generation, tag.chunk] = row._replace(tag=tag)
        shelf.writes += 1
"""
"""Gives documents of the reference other generations."""


def declares(capabilities: Capabilities) -> str:
    """Return a text after which a store declares *capabilities*, so that the library refuses what it would there."""
    alone = replace(capabilities, writes_in_flight=1)  # so that what a load has written when it fails is certain
    return _DECLARES.format(declared=base64.b64encode(pickle.dumps(alone)).decode())


@dataclass
class Side:
    """One store in its process, with a client for each mode.

    Attributes:
        far: The process.
        settings: `[stores.NAME]` without `metadata`.
        fields: The declared metadata fields.
        rules: The policy's table. A client gets the rows of the principals that call next: the whole one is large.
        read_census: Reads every row; None: the process has a function that does.
        settle: Waits until what was written is visible.
        admit: Registers a tenant before its first write.
        more: Settings of the configuration besides the store.
        identical: Whether a row is unchanged that consists of the same objects.
        expiring: Whether chunks may have a time to live.
        cursors: The cursor behind the page of each scan that was read last.
    """

    far: Far
    settings: Mapping[str, Any]
    fields: Mapping[str, str]
    rules: Rules
    read_census: Callable[[], Sequence[Record]] | None = None
    settle: Callable[[], None] = lambda: None
    admit: Callable[[str], None] = lambda _: None
    more: Mapping[str, Any] = field(default_factory=dict)
    clients: dict[Mode, int] = field(default_factory=dict)
    numbers: int = 0
    installed: dict[int, Rules] = field(default_factory=dict)
    admitted: set[str] = field(default_factory=set)
    tenants: tuple[str, ...] = ()
    group: int = 8
    identical: bool = False
    expiring: bool = False
    cursors: dict[str, str | None] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        """Return the configuration of its clients."""
        expiring = {"expiring": True} if self.expiring else {}
        store = {**self.settings, "metadata": dict(self.fields), **expiring}
        return {"version": 1, "stores": {STORE: store}, **self.more}

    def open(self, *, provision: bool = False, faulty: bool = False) -> None:
        """Open both clients."""
        for mode in ("sync", "async"):
            self.clients[mode] = self._client(mode, provision=provision and mode == "sync", faulty=faulty)

    def _client(self, mode: Mode, *, provision: bool = False, faulty: bool = False) -> int:
        self.numbers += 1
        self.far.ask("client", self.numbers, self.config(), mode, provision, {}, faulty)
        self.installed[self.numbers] = {}
        return self.numbers

    def _install(self, number: int, calls: Sequence[Call]) -> None:
        """Let the client have the rules for the principals of *calls*, and the store the tenants that they write to."""
        for tenant in {call.principal.tenant for call in calls if call.method in ADDS} - self.admitted:
            self.admitted.add(tenant)
            self.admit(tenant)
        rules = {call.principal.id: self.rules[call.principal.id] for call in calls if call.principal.id in self.rules}
        installed = self.installed[number]
        if any(installed.get(name) is not table for name, table in rules.items()) or (
            any(call.principal.id in installed and call.principal.id not in self.rules for call in calls)
        ):
            self.far.ask("rules", number, rules)
            self.installed[number] = rules

    def close(self) -> None:
        """Close the clients."""
        for number in self.clients.values():
            self.far.ask("close", number)
        self.clients = {}

    def end(self) -> None:
        """End the process."""
        self.far.close()

    @contextmanager
    def branch(self, source: str = "", *, faulty: bool = False) -> Iterator[None]:
        """Have fresh clients in a copy of the process, which ends afterwards; *source* dresses its adapter.

        After an error of the process itself it is not known who would answer next, so the process has to be dropped.
        """
        state = dict(self.clients), dict(self.installed)
        self.far.ask("branch")
        if source:
            self.far.ask("source", source)
        self.open(faulty=faulty)
        yield
        self.clients, self.installed = state
        self.far.ask("end")

    def capabilities(self) -> Capabilities:
        """Ask the adapter what it declares. Raises: Abstain."""
        can = self.far.ask("capabilities", next(iter(self.clients.values())))
        if not isinstance(can, Capabilities):
            raise Abstain("the adapter's process did not say what the adapter can do")
        return can

    def calls(self, mode: Mode, calls: Sequence[Call]) -> list[Outcome]:
        """Perform *calls* one after the other; a conflict that changed nothing is tried again, as a program would."""
        outcomes = self._send(mode, [self._own(mode, call) for call in calls])
        in_time(calls, outcomes)
        slow = [place for place, one in enumerate(outcomes) if late(one, calls[place])]
        for place in slow:  # the limits are for one request of an application, and the machine may be busy
            call = calls[place]
            limit = min(_PATIENCE[1], _PATIENCE[0] + len(call.arguments.get("queries", ())))
            longer = {} if call.method in _UNLIMITED else {"timeout": limit}
            patient = replace(call, arguments={**call.arguments, **longer})
            outcomes[place] = self._send(mode, [self._own(mode, patient)])[0]
            if late(outcomes[place], call):
                raise Abstain(f"the store did not answer a call ({call.method}) within {limit:g} seconds")
        for _ in range(_ATTEMPTS):
            again = [
                place
                for place, one in enumerate(outcomes)
                if conflicted(one) or (unsent(one) and calls[place].method in _LIMITED | _UNLIMITED)
            ]
            if not again:
                break
            for place, one in zip(again, self._send(mode, [self._own(mode, calls[at]) for at in again]), strict=True):
                outcomes[place] = one
        for call, (kind, page) in zip(calls, outcomes, strict=True):
            if call.method == "page" and kind == "ok" and isinstance(page, Page):
                self.cursors[_scan_of(mode, call)] = page.after
        return outcomes

    def attempt(self, mode: Mode, call: Call) -> list[Outcome]:
        """Perform *call* once, whatever comes of it."""
        return self._send(mode, [self._own(mode, call)])

    def _send(self, mode: Mode, calls: Sequence[Call | None]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while len(outcomes) < len(calls):
            some = _light(calls[len(outcomes) : len(outcomes) + self.group])
            started = time.monotonic()
            outcomes += self._ask("calls", self.clients[mode], some)
            pace = (time.monotonic() - started) / len(some)
            self.group = max(1, min(_GROUP, int(_TURN / max(pace, 1e-6))))
        return outcomes

    def _ask(self, how: str, number: int, own: Sequence[Call | None], *more: Any) -> list[Outcome]:
        """Perform calls; behind the last page there is an empty one."""
        calls = [call for call in own if call is not None]
        if not calls:
            return [_END for _ in own]
        answers = iter(self._asked(how, number, calls, *more))
        return [_END if call is None else next(answers) for call in own]

    def _asked(self, how: str, number: int, calls: Sequence[Call], *more: Any) -> list[Outcome]:
        self._install(number, calls)
        outcomes = self.far.ask(how, number, [call.message() for call in calls], *more)
        if not isinstance(outcomes, list) or len(outcomes) != len(calls):
            raise Abstain("the adapter's process did not answer each call")
        return [_checked(one) for one in outcomes]

    def together(self, mode: Mode, calls: Sequence[Call], width: int) -> list[Outcome]:
        """Perform *calls* side by side."""
        return self._ask("together", self.clients[mode], [self._own(mode, call) for call in calls], width)

    def cut(self, mode: Mode, call: Call, after: float) -> Outcome:
        """Perform *call* and cancel it."""
        own = self._own(mode, call)
        if own is None:
            return _END
        self._install(self.clients[mode], [own])
        return _checked(self.far.ask("cut", self.clients[mode], own.message(), after))

    def _own(self, mode: Mode, call: Call) -> Call | None:
        """Return *call* with the cursor of this store; None behind the last page."""
        after = call.arguments.get("after")
        if not isinstance(after, After):
            return call
        cursor = self._cursor(mode, call, after)
        return None if cursor is None else replace(call, arguments={**call.arguments, "after": cursor})

    def _cursor(self, mode: Mode, call: Call, after: After) -> str | None:
        if after.kept and (name := _scan_of(mode, call)) in self.cursors:
            return self.cursors[name]
        first = after.call or replace(call, arguments={**call.arguments, "after": None})
        cursor: str | None = None
        for _ in range(after.pages):
            one = replace(first, arguments={**first.arguments, "after": cursor})
            kind, page = self.calls(mode, [one])[0]
            cursor = page.after if kind == "ok" else None
            if cursor is None:
                break
        return cursor

    def fail(self, mode: Mode, plan: Mapping[int, str]) -> None:
        """Let the next requests fail, by their number; an empty *plan* ends that."""
        self.far.ask("faults", self.clients[mode], dict(plan))

    def census(self, before: Census | None = None) -> Census:
        """Read every row; from a process only those that changed since *before*."""
        if self.read_census is not None:
            return Census(self.read_census(), before)
        mark, gone, rows = changed_rows(self.far.ask("changes", "" if before is None else before.mark, self.identical))
        return Census(rows, before, mark, gone)

    def load(self, tenants: Mapping[str, Sequence[Chunk]], batch: int) -> None:
        """Write each tenant's chunks through a handle, in batches. Raises: Abstain if one is not written."""
        self.tenants = tuple(tenants)
        calls = laid_out(tenants, batch)
        for place, mode in enumerate(MODES):
            some = calls[place :: len(MODES)]
            for call, (kind, value) in zip(some, self.calls(mode, some), strict=True):
                if kind != "ok":
                    self._load_halves(mode, call, kind, value)

    def _load_halves(self, mode: Mode, call: Call, kind: str, value: Any) -> None:
        """Write in two calls what was refused as too large for one. Raises: LoadError for another failure."""
        ((argument, chunks),) = call.arguments.items()
        if kind != "error" or value[0] != TooLargeError.__name__ or len(chunks) < 2:
            raise LoadError(call, kind, value)
        middle = len(chunks) // 2
        for half in (chunks[:middle], chunks[middle:]):
            one = replace(call, arguments={argument: half})
            ((kind, value),) = self.calls(mode, [one])
            if kind != "ok":
                self._load_halves(mode, one, kind, value)


def laid_out(tenants: Mapping[str, Sequence[Chunk]], batch: int) -> list[Call]:
    """Return the calls that write each tenant's chunks, in batches, each chunk by its own principal and method."""
    calls = []
    for tenant, chunks in tenants.items():
        parts: dict[tuple[str, str], list[Chunk]] = {}
        for one in chunks:
            parts.setdefault(written_by(one), []).append(one)
        for (name, method), some in parts.items():
            who, argument = replace(writer(tenant), id=name), "stream" if method == "load" else "chunks"
            calls += [
                Call(who, method, {argument: some[start : start + batch]}) for start in range(0, len(some), batch)
            ]
    return calls


def keeps_cursor(call: Call) -> bool:
    """Return whether the call continues from a cursor that was read before other calls."""
    after = call.arguments.get("after")
    return isinstance(after, After) and after.kept


def _scan_of(mode: Mode, call: Call) -> str:
    """Return what is the same in all pages of a scan: who asks, and for what."""
    arguments = sorted((name, repr(one)) for name, one in call.arguments.items() if name != "after")
    return repr((mode, call.principal.id, call.principal.tenant, call.narrowings, arguments))


def _light(calls: Sequence[Call | None]) -> Sequence[Call | None]:
    """Return the first of *calls*, without those that would make it many chunks or queries at once."""
    weight = 0
    for place, call in enumerate(calls):
        arguments: Mapping[str, Any] = {} if call is None else call.arguments
        weight += sum(len(arguments.get(name, ())) for name in ("chunks", "queries"))
        if place and weight > _WEIGHT:
            return calls[:place]
    return calls


class LoadError(Exception):
    """A legitimate write of the world's rows failed."""

    def __init__(self, call: Call, kind: str, value: Any) -> None:
        super().__init__(f"{kind}: {value!r:.300}")
        self.call = call
        self.outcome = (kind, value)


def writer(tenant: str) -> Principal:
    """Return a principal that may do everything in *tenant*."""
    return Principal(WRITER, tenant, kind="service", authenticated_by="mtls:ingest")


def late(outcome: Outcome, call: Call) -> bool:
    """Return whether a time limit ended a read."""
    return _timed_out(outcome) and call.method in _LIMITED | _UNLIMITED


def in_time(calls: Sequence[Call], outcomes: Sequence[Outcome]) -> None:
    """Demand that no time limit ended a write, of which it is unknown what it did. Raises: Abstain."""
    for call, outcome in zip(calls, outcomes, strict=True):
        if _timed_out(outcome) and call.method not in _LIMITED | _UNLIMITED:
            raise Abstain(f"the store did not perform a write ({call.method}) within its time limit: is it too busy?")


def _timed_out(outcome: Outcome) -> bool:
    return outcome[0] == "error" and outcome[1][3].get("code") == "timeout"


def conflicted(outcome: Outcome) -> bool:
    """Return whether the store certainly changed nothing, and may be asked again."""
    if outcome[0] != "error":
        return False
    data = outcome[1][3]
    return bool(data.get("retryable")) and data.get("sent") == "no"


def unsent(outcome: Outcome) -> bool:
    """Return whether the store was not asked at all, as where no connection of a pool became free in time."""
    return of_the_store(outcome) and bool(outcome[1][3].get("sent") == "no")


def _checked(outcome: object) -> Outcome:
    """Return *outcome*, of an untrusted process, if it has the form of one. Raises: Abstain."""
    match outcome:
        case ("ok", value):
            return "ok", value
        case ("cut", None):
            return "cut", None
        case ("error", (str() as known, str() as name, str() as text, dict() as data)):
            return "error", (known, name, text, data)
    raise Abstain("the adapter's process answered a call with neither an answer nor an error")


@cache
def _own_environment() -> PlainEnvironment:
    """Return the environment of all references of this process: that of this interpreter, whatever is measured."""
    environment = plain()
    atexit.register(environment.close)
    return environment


class Reference(Side):
    """The memory adapter, which declares what the measured adapter declares; `wide` searches without its limits."""

    def __init__(
        self,
        fields: Mapping[str, str],
        rules: Rules,
        declared: Capabilities,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        settings = {
            "adapter": "memory",
            "dimension": declared.dimension,
            "metric": declared.metric,
            "name": "reference",
        }
        super().__init__(Far(environment=_own_environment()), settings, fields, rules, more=more or {})
        self.identical = True
        self.declared = declared
        self._wide = 0
        self.far.ask("source", census_text(settings, copied=False))

    def open(self, *, provision: bool = False, faulty: bool = False) -> None:
        """Open the clients, and one for which only the limits of the memory store hold."""
        self.far.ask("source", declares(replace(self.declared, max_k=MOST, max_batch=MOST)))
        self._wide = self._client("sync")
        self.far.ask("source", declares(self.declared))
        super().open(provision=provision, faulty=faulty)

    @contextmanager
    def branch(self, source: str = "", *, faulty: bool = False) -> Iterator[None]:
        """Have fresh clients in a copy of the process, which ends afterwards, whatever happens."""
        state = self._wide, dict(self.clients), dict(self.installed)
        self.far.ask("branch")
        try:
            if source:
                self.far.ask("source", source)
            self.open(faulty=faulty)
            yield
        finally:
            self._wide, self.clients, self.installed = state
            self.far.ask("end")

    def close(self) -> None:
        """Close the clients."""
        self.far.ask("close", self._wide)
        super().close()

    def unscoped(self, call: Call) -> Outcome:
        """Answer as a store would that leaves out the whole scope: rows of all tenants, for everything."""
        table = {call.action: dict.fromkeys(self.tenants, ALWAYS)}
        bare = replace(call, principal=replace(writer(call.principal.tenant), id=_UNBOUND), narrowings=())
        own = self._own("sync", bare)
        if own is None:
            return _END
        self.far.ask("rules", self._wide, {_UNBOUND: table})
        self.installed[self._wide] = {}
        return _checked(self.far.ask("calls", self._wide, [own.message()])[0])

    def number(self, numbers: Mapping[str, Mapping[str, int]]) -> None:
        """Give documents of tenants the generations that another store has given them, which may be any numbers."""
        settings = [self.settings[name] for name in ("metric", "dimension", "name")]
        self.far.ask("run", self._wide, _NUMBERS, [settings, {name: dict(own) for name, own in numbers.items()}], 0)

    def wider(self, call: Call) -> Outcome:
        """Search for every visible hit."""
        return self._ask("calls", self._wide, [self._own("sync", widened(call, MOST))])[0]
