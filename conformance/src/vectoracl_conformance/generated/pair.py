"""A store and the reference side by side: both perform the same steps, and each answer and census is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.errors import InvalidInputError, TooLargeError
from vectoracl.model.actions import WRITE
from vectoracl.model.records import Chunk, Record
from vectoracl_conformance.generated.calls import Call, Step
from vectoracl_conformance.generated.comparison import Comparison, Outcome, error_of, shown
from vectoracl_conformance.generated.content import Census, Key, chunk_bytes
from vectoracl_conformance.generated.reference import ADDS, Mode, Reference, Side

T = TypeVar("T")
U = TypeVar("U")
_REQUEST = 300_000
"""The bytes of text, metadata and vectors that every store takes by one request."""
_NUMBER = 12
"""The bytes of a number of a vector as text."""
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


@dataclass
class Pair:
    """The measured store, through one or more processes, and the reference.

    Attributes:
        sides: The processes of the store; writes go to the first one, reads to each in turn.
        reference: The reference.
        comparison: The judge.
        counts: Counts by mode.
        history: The steps so far.
        taken: The bytes of the largest write that the store took.
    """

    sides: Sequence[Side]
    reference: Reference
    comparison: Comparison
    counts: dict[Mode, Counts] = field(default_factory=lambda: {"sync": Counts(), "async": Counts()})
    history: list[tuple[Mode, Step]] = field(default_factory=list)
    settled: bool = False
    taken: int = _REQUEST
    _censuses: tuple[Census, Census] | None = None
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))

    @property
    def store(self) -> Side:
        """The process that writes."""
        return self.sides[0]

    def __post_init__(self) -> None:
        self.comparison.follow = lambda call: self.store.calls("sync", [call])[0]

    def begin(self, right: Census, got: Census) -> None:
        """Start from rows that were read before."""
        self._censuses = right, got

    def close(self) -> None:
        """Release the threads."""
        self._pool.shutdown()

    def rows(self) -> Mapping[Key, Record]:
        """Return the reference's rows."""
        if self._censuses is None:
            return self.reference.census().rows
        return self._censuses[0].rows

    def both(self, one: Callable[[], T], other: Callable[[], U]) -> tuple[T, U]:
        """Do two things at the same time; both end before an error is raised."""
        first, second = self._pool.submit(one), self._pool.submit(other)
        error = first.exception() or second.exception()
        if error is not None:
            raise error
        return first.result(), second.result()

    def compare_census(self, mode: Mode = "sync", call: Call | None = None) -> Difference | None:
        """Compare all rows of all tenants with those of the reference."""
        self.settle()
        old = self._censuses
        right, got = self.both(
            lambda: self.reference.census(old and old[0]),
            lambda: self.store.census(old and old[1]),
        )
        problem = got.problem(right, self.comparison.precision, old)
        self._censuses = right, got
        return None if problem is None else self.difference(mode, call, problem)

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
        found, failed, last = [], True, None
        for mode, calls, write in runs(group):
            if write:
                right, got = self._written(mode, calls)
                failed = failed and all(one[0] == "error" for one in right)
                last = mode, calls[-1]
            else:
                self.settle()
                right, got = self.both(lambda: self.reference.calls(mode, calls), lambda: self._shared(mode, calls))  # noqa: B023
            found += self.judge(mode, calls, right, got)
        if last is not None:
            more = self.unchanged(*last) if failed else self.compare_census(*last)
            found += [] if more is None else [more]
        return found

    def _written(self, mode: Mode, calls: Sequence[Call]) -> tuple[list[Outcome], list[Outcome]]:
        self.settled = False
        can = self.comparison.capabilities
        chunks = [list(map(chunk_bytes, added(call))) for call in calls]
        sizes = [_request(some, can) for some in chunks]
        if max(sizes) <= self.taken and not any(_large_chunk(some, can) for some in chunks):
            return self.both(lambda: self.reference.calls(mode, calls), lambda: self.store.calls(mode, calls))
        got = self.store.calls(mode, calls)
        right: list[Outcome] = []
        for call, one, size in zip(calls, got, sizes, strict=True):
            if too_large(call, one, can):
                right.append(one)  # the reference does not perform it either, so nothing may have changed
            else:
                right += self.reference.calls(mode, [call])
            if one[0] == "ok":
                self.taken = max(self.taken, size)
        return right, got


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
    name, sizes = error_of(outcome)[0], list(map(chunk_bytes, added(call)))
    if name == TooLargeError.__name__:
        return _request(sizes, can) > _REQUEST
    return name == InvalidInputError.__name__ and _large_chunk(sizes, can)
