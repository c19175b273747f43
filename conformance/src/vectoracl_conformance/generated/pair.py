"""A store and the reference side by side: both perform the same steps, and each answer and census is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.client.bulk_load import Limit, batches
from vectoracl.engine.load_journal import Journal
from vectoracl.errors import InvalidInputError, RefusedError, TooLargeError
from vectoracl.filters.predicate import Predicate
from vectoracl.filters.validation import fields_of
from vectoracl.model.actions import WRITE
from vectoracl.model.records import Chunk, Record
from vectoracl_conformance.generated.calls import Call, Step, tenants
from vectoracl_conformance.generated.comparison import Comparison, Outcome, error_of, shown
from vectoracl_conformance.generated.content import Census, Key, chunk_bytes
from vectoracl_conformance.generated.reference import ADDS, Mode, Reference, Side, keeps_cursor

T = TypeVar("T")
U = TypeVar("U")
_REQUEST = 300_000
"""The bytes of text, metadata and vectors that every store takes by one request."""
_NUMBER = 12
"""The bytes of a number of a vector as text."""
_GENERATIONS = frozenset({"@generation", "@docgen"})
_NUMBERING = frozenset({"replace", "delete"})
"""The writes that may leave a document with another generation than the reference, now or when it is written again."""
_BATCH = 500
"""The most chunks of a batch of a load that does not say it."""
WRITES = frozenset(WRITE) | {"load"}


@dataclass(frozen=True)
class Difference:
    """A call whose answer or effect is not that of the reference.

    Attributes:
        mode: The mode of the client.
        call: The call; None for a difference of the rows that were written first.
        problem: What differs.
        right: The right answer, as text.
        got: The answer, as text.
        before: The steps since the world was written.
    """

    mode: Mode
    call: Call | None
    problem: str
    right: str = ""
    got: str = ""
    before: tuple[tuple[Mode, Step], ...] = ()

    def __str__(self) -> str:
        return f"{'the first rows' if self.call is None else self.call.method} ({self.mode}): {self.problem}"


def writes(call: Call) -> bool:
    """Return whether the call may change rows."""
    return call.method in WRITES


@dataclass
class Counts:
    """Numbers that show whether a run could have noticed anything.

    Attributes:
        calls: The number of compared answers.
        full: The number of those whose right answer is neither empty nor an error.
    """

    calls: int = 0
    full: int = 0

    def __iadd__(self, other: Counts) -> Counts:
        self.calls += other.calls
        self.full += other.full
        return self


@dataclass(repr=False)
class Pair:
    """The measured store, through one or more processes, and the reference.

    Attributes:
        sides: The processes of the store; writes go to the first one, reads to each in turn.
        reference: The reference.
        comparison: The judge.
        counts: Counts by mode.
        history: The steps so far.
        taken: The bytes up to which the store certainly takes a write: half of the largest that it took.
    """

    sides: Sequence[Side]
    reference: Reference
    comparison: Comparison
    counts: dict[Mode, Counts] = field(default_factory=lambda: {"sync": Counts(), "async": Counts()})
    history: list[tuple[Mode, Step]] = field(default_factory=list)
    settled: bool = False
    taken: int = _REQUEST
    _censuses: tuple[Census, Census] | None = None
    _removed: bool = False
    _written_since: bool = False
    _rows_since: Mapping[Key, Record] | None = None
    _names: dict[int, tuple[Mapping[str, Predicate], bool]] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))

    @property
    def store(self) -> Side:
        """The process that writes."""
        return self.sides[0]

    def __repr__(self) -> str:
        return f"<Pair of {len(self.sides)} processes and the reference, after {len(self.history)} steps>"

    def __post_init__(self) -> None:
        self.comparison.follow = lambda call: self.store.calls("sync", [call])[0]

    def begin(self, right: Census, got: Census) -> None:
        """Start from rows that were read before."""
        self._censuses = right, got

    def close(self) -> None:
        """Release the threads."""
        self._pool.shutdown()

    def rows(self) -> Mapping[Key, Record]:
        """Return the reference's rows, also after a write that no census has followed yet."""
        if self._censuses is None:
            return self.reference.census().rows
        if not self._written_since:
            return self._censuses[0].rows
        if self._rows_since is None:
            self._rows_since = self.reference.census(self._censuses[0]).rows
        return self._rows_since

    def both(self, one: Callable[[], T], other: Callable[[], U]) -> tuple[T, U]:
        """Do two things at the same time; both end before an error is raised."""
        first, second = self._pool.submit(one), self._pool.submit(other)
        error = first.exception() or second.exception()
        if error is not None:
            raise error
        return first.result(), second.result()

    def compare_census(self, mode: Mode = "sync", call: Call | None = None) -> Difference | None:
        """Compare all rows of all tenants with those of the reference."""
        old = self._censuses
        self._censuses = right, got = self._read()
        self._written_since = False
        problem = got.problem(right, self.comparison.precision, old)
        if problem is not None:
            return self.difference(mode, call, problem)
        self._number()
        return None

    def _read(self) -> tuple[Census, Census]:
        """Read all rows of both."""
        self.settle()
        old = self._censuses
        return self.both(
            lambda: self.reference.census(old and old[0]),
            lambda: self.store.census(old and old[1]),
        )

    def agree(self, calls: Sequence[tuple[Mode, Call]] = ()) -> bool:
        """Return whether the store holds the rows of the reference after *calls*; then the reference has made them."""
        self.settled = False
        if calls and not self._would_agree(calls):
            return False
        for mode, call in calls:
            self.reference.calls(mode, [call])
        self._censuses = right, got = self._read()
        self._written_since = False
        if got.problem(right, self.comparison.precision) is not None:
            return False
        self._number()
        return True

    def _would_agree(self, calls: Sequence[tuple[Mode, Call]]) -> bool:
        """Do the same with a copy of the reference."""
        before = self._censuses
        with self.reference.branch():
            for mode, call in calls:
                self.reference.calls(mode, [call])
            right, got = self._read()
        self._censuses = before and (before[0], got)
        return got.problem(right, self.comparison.precision) is None

    def settle(self) -> None:
        """Wait until what was written is visible, where the store needs that."""
        if not self.settled and self.comparison.capabilities.visible == "eventual":
            self.store.settle()
        self.settled = True

    def unchanged(self, mode: Mode, call: Call) -> Difference | None:
        """Compare, and demand that nothing changed at all."""
        old = self._censuses
        found = self.compare_census(mode, call)
        if found is None and old is not None and self._censuses is not None and not self._censuses[1].same(old[1]):
            return self.difference(mode, call, "the store's rows changed, although the call failed")
        return found

    def _shared(self, mode: Mode, calls: Sequence[Call]) -> list[Outcome]:
        """Let each process of the store perform a part of the reads, all at the same time."""
        if len(self.sides) == 1 or len(calls) == 1:
            return self.store.calls(mode, calls)
        width = len(self.sides)
        parts = [self._pool.submit(side.calls, mode, calls[number::width]) for number, side in enumerate(self.sides)]
        wait(parts)
        outcomes: list[Any] = [None] * len(calls)
        for number, part in enumerate(parts):
            outcomes[number::width] = part.result()
        return outcomes

    def judge(
        self, mode: Mode, calls: Sequence[Call], right: Sequence[Outcome], got: Sequence[Outcome]
    ) -> list[Difference]:
        """Compare answers."""
        found = []
        for call, one, other in zip(calls, right, got, strict=True):
            self.count(mode, one)
            problem = self.comparison.problem(call, one, other)
            if problem is not None:
                found.append(replace(self.difference(mode, call, problem), right=shown(one), got=shown(other)))
            self.history.append((mode, call))
        return found

    def count(self, mode: Mode, right: Outcome) -> None:
        """Count a compared answer."""
        self.counts[mode].calls += 1
        self.counts[mode].full += full(right)

    def difference(self, mode: Mode, call: Call | None, problem: str) -> Difference:
        """Return a difference after the steps so far."""
        return Difference(mode, call, problem, before=tuple(self.history))

    def is_unchanged(self) -> bool:
        """Read the store's rows; return whether they are those of the last census."""
        self.settled = False
        self.settle()
        if self._censuses is None:
            return False
        old = self._censuses[1]
        return self.store.census(old).same(old)

    def perform(self, group: Sequence[tuple[Mode, Call]]) -> list[Difference]:
        """Perform calls in their order on both, compare their answers, and after writes all rows."""
        found: list[Difference] = []
        failed, last = True, None
        numbered: set[str] = set()
        for mode, calls, write in self._runs(group):
            if last is not None and self._need_numbers(calls, numbered):
                found += self._after_writes(*last, failed=failed)
                if found:
                    return found
                failed, last, numbered = True, None, set()
            if write:
                numbered.update(*(tenants(one, self.reference.rules) for one in calls if one.method in _NUMBERING))
                right, got = self._written(mode, calls)
                failed = failed and all(one[0] == "error" for one in right) and not any(map(in_parts, calls))
                last = mode, calls[-1]
            else:
                self.settle()
                right, got = self.both(lambda: self.reference.calls(mode, calls), lambda: self._shared(mode, calls))  # noqa: B023
            found += self.judge(mode, calls, right, got)
        return found if last is None else found + self._after_writes(*last, failed=failed)

    def _after_writes(self, mode: Mode, call: Call, *, failed: bool) -> list[Difference]:
        """Compare all rows after writes; if all of them *failed*, nothing may have changed."""
        more = self.unchanged(mode, call) if failed and not self._removed else self.compare_census(mode, call)
        self._removed = False
        return [] if more is None else [more]

    def _runs(self, group: Sequence[tuple[Mode, Call]]) -> Iterator[tuple[Mode, list[Call], bool]]:
        """Yield the calls as `runs`. A load that may be followed is the last one of its run.

        A call that depends on generations, which are then compared, is the first one, and so is a page whose cursor
        came with an answer before it.
        """
        for mode, calls, write in runs(group):
            start = 0
            for end, call in enumerate(calls, 1):
                if (
                    end == len(calls)
                    or in_parts(call)
                    or keeps_cursor(calls[end])
                    or (write and self._by_generation(calls[end]))
                ):
                    yield mode, calls[start:end], write
                    start = end

    def _need_numbers(self, calls: Sequence[Call], numbered: set[str]) -> bool:
        """Return whether one of *calls* depends on generations of tenants that have new ones."""
        rules = self.reference.rules
        return any(self._by_generation(one) and not numbered.isdisjoint(tenants(one, rules)) for one in calls)

    def _by_generation(self, call: Call) -> bool:
        """Return whether the call's scope or filter names generations, of which each store has its own numbers."""
        table, where = self.reference.rules.get(call.principal.id), call.arguments.get("where")
        own = [one for one, _ in call.narrowings] + ([where] if isinstance(where, Predicate) else [])
        if table is not None and call.action in table:
            known = self._names.get(id(table[call.action]))
            if known is None or known[0] is not table[call.action]:
                scopes = table[call.action]
                known = self._names[id(scopes)] = scopes, any(map(_names_generations, scopes.values()))
            if known[1]:
                return True
        return any(map(_names_generations, own))

    def _number(self) -> None:
        """Let the reference's documents have the generations that the store has given them."""
        assert self._censuses is not None
        right, got = self._censuses
        numbers: dict[str, dict[str, int]] = {}
        for place, row in got.rows.items():
            if row.tag.generation != right.rows[place].tag.generation:
                numbers.setdefault(place[0], {})[place[1]] = row.tag.generation
        if numbers:
            self.reference.number(numbers)
            self._censuses = self.reference.census(right), got

    def follow(self, mode: Mode, call: Call, got: Outcome) -> None:
        """After a load that failed, let the reference write the batches that the store holds besides.

        A load may have several batches in flight, and ends when those behind the one that failed have ended. The
        reference writes one after the other. What it refuses stays a difference, and so does more than was in flight.
        The batches before one that the store refused for its size were not performed by the reference, see `made`.
        """
        can = self.comparison.capabilities
        large, ahead = too_large(call, got, can), can.writes_in_flight - 1
        if got[0] != "error" or not in_parts(call) or not (large or ahead):
            return
        held, rows = self._read()
        strays = rows.differing(held, self.comparison.precision, self._censuses)
        pieces, own = list(_pieces(call, can)), tenants(call, self.reference.rules)  # of another one, by a policy
        named = [{(tenant, one.document, one.id) for tenant in own for one in piece} for piece in pieces]
        written = [not keys.isdisjoint(strays) for keys in named]
        before = written.index(False) if large and False in written else 0
        behind = [piece for piece, there in zip(pieces[before:], written[before:], strict=True) if there]
        for piece in (*pieces[:before], *behind[:ahead]):
            self.reference.calls(mode, [replace(call, arguments={**call.arguments, "stream": piece})])

    def remove(self, calls: Sequence[Call]) -> list[Difference]:
        """Perform deletions on both and compare what they answer; the next census compares the rows."""
        self._removed = self._removed or bool(calls)
        return self.judge("sync", calls, *self._written("sync", calls)) if calls else []

    def _written(self, mode: Mode, calls: Sequence[Call]) -> tuple[list[Outcome], list[Outcome]]:
        self.settled = False
        self._written_since, self._rows_since = True, None
        can = self.comparison.capabilities
        chunks = [list(map(chunk_bytes, added(call))) for call in calls]
        sizes = [_request(some, can) for some in chunks]
        if max(sizes) <= self.taken and not any(_large_chunk(some, can) for some in chunks):
            right, got = self.both(lambda: self.reference.calls(mode, calls), lambda: self.store.calls(mode, calls))
            self.follow(mode, calls[-1], right[-1])
            return right, got
        got = self.store.calls(mode, calls)
        right = self.made(mode, calls, got)
        for one, size in zip(got, sizes, strict=True):
            if one[0] == "ok":
                self.taken = max(self.taken, size // 2)  # sizes are estimates: metadata may be sent twice
        return right, got

    def made(self, mode: Mode, calls: Sequence[Call], got: Sequence[Outcome]) -> list[Outcome]:
        """Let the reference perform writes that the store has answered by *got*. Returns: the right outcomes.

        A write that the store refused for its size is right, and the reference does not perform it either. Of a load
        it performs what the store may hold, see `follow`; after one that failed, no other write may have been made.
        """
        right: list[Outcome] = []
        for call, one in zip(calls, got, strict=True):
            large = too_large(call, one, self.comparison.capabilities)
            right.append(one if large else self.reference.calls(mode, [call])[0])
            if large or right[-1][0] == "error":
                self.follow(mode, call, one if large else right[-1])
        return right


def _names_generations(predicate: Predicate) -> bool:
    return not fields_of(predicate).isdisjoint(_GENERATIONS)


def in_parts(call: Call) -> bool:
    """Return whether the call may write a part of its rows and fail."""
    return call.method == "load" and len(call.arguments["stream"]) > 1


def _pieces(call: Call, can: Capabilities) -> Iterator[list[Chunk]]:
    """Yield the batches of a load, which the library also cuts by bytes if the call does not say their size."""
    given = call.arguments.get("batch")
    limit = Limit(min(given or _BATCH, can.max_batch), can if given is None else None)
    with suppress(RefusedError):  # a chunk that ends the load
        for part in batches(call.arguments["stream"], limit, Journal(None, call.principal.tenant)):
            yield part.chunks


def runs(group: Sequence[tuple[Mode, Call]]) -> list[tuple[Mode, list[Call], bool]]:
    """Return *group* in parts of one mode that only read or only write, in its order."""
    parts: list[tuple[Mode, list[Call], bool]] = []
    for mode, call in group:
        write = writes(call)
        if parts and parts[-1][0] == mode and parts[-1][2] == write:
            parts[-1][1].append(call)
        else:
            parts.append((mode, [call], write))
    return parts


def full(outcome: Outcome) -> bool:
    """Return whether an answer shows something: rows, a number, values, or that rows were written."""
    kind, value = outcome
    if kind != "ok":
        return False
    counted = getattr(value, "count", None)
    if isinstance(counted, int):
        return counted > 0
    if isinstance(value, int):
        return value > 0
    content = getattr(value, "hits", value)
    return bool(content) if hasattr(content, "__len__") else True


def added(call: Call) -> list[Chunk]:
    """Return the chunks that a write adds."""
    given = call.arguments.get("chunks", call.arguments.get("stream", ())) if call.method in ADDS else ()
    return [one for one in given if isinstance(one, Chunk)]


def _request(sizes: Sequence[int], can: Capabilities) -> int:
    """Return about how many bytes a write of chunks of these *sizes* sends; 0 for one chunk, which is not divided."""
    return sum(sizes) + _NUMBER * can.dimension * len(sizes) if len(sizes) > 1 else 0


def _large_chunk(sizes: Sequence[int], can: Capabilities) -> bool:
    """Return whether one of the chunks may be too large."""
    return 4 * max(sizes, default=0) > can.max_chunk_bytes


def too_large(call: Call, outcome: Outcome, can: Capabilities) -> bool:
    """Return whether a write may have been refused for its size, whatever else is wrong with it.

    A store may limit what one request holds, and one chunk by what it declares.
    """
    if outcome[0] != "error" or call.method not in ADDS:
        return False
    name, pieces = error_of(outcome)[0], _pieces(call, can) if call.method == "load" else [added(call)]
    sizes = [list(map(chunk_bytes, piece)) for piece in pieces]
    if name == TooLargeError.__name__:
        return any(_request(some, can) > _REQUEST for some in sizes)
    return name == InvalidInputError.__name__ and any(_large_chunk(some, can) for some in sizes)
