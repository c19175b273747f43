"""Draws the calls of C1 to C4 in a separate process: those of one check while the calls of another are performed.

What is drawn follows from the seed, the size and what the adapter declares alone, so that it is the same in any
process. This one is started by the runner, with its code, and holds nothing of the adapter.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, BinaryIO

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.filters.predicate import Range
from vectoracl.model.principal import Principal
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.context.check_context import claims_of
from vectoracl_conformance.generated.covering import Plan, Watch, unwatched
from vectoracl_conformance.generated.parameters import plan_data, plan_reads, plan_writes
from vectoracl_conformance.generated.values import LARGE_DIMENSIONS
from vectoracl_conformance.generated.world import Size, World, build_world
from vectoracl_conformance.isolated.clean_python import command
from vectoracl_conformance.verdict import CALLS, CallCheck

_WALKED = 448
"""The number of reads from which those of a walk are drawn."""
_CHANGED = 320
"""The number of writes from which those of a walk are drawn that are made at the same time."""
_LENGTH = struct.Struct(">Q")
_PAUSE = 1.0
"""How many seconds pass at least between two reports of the progress."""
_GRACE = 60.0
"""How many seconds a process that has ended its output may take to end, on a busy machine."""


def _walked(world: World, can: Capabilities, *, size: Size, watch: Watch) -> Plan:
    """Draw the reads and the writes of a walk, and of the coverage that of the reads."""
    reads = plan_reads(world, can, size=size, quick=_WALKED, watch=watch)
    changes = plan_writes(world, can, size=size, quick=_CHANGED, watch=watch)
    return replace(reads, calls=(*reads.calls, *changes.calls))


PLANS: Mapping[CallCheck, Callable[..., Plan]] = {
    "C1": plan_reads,
    "C2": plan_writes,
    "C3": _walked,
    "C4": plan_data,
}


@dataclass(frozen=True)
class Space:
    """The things that the calls are drawn from.

    Attributes:
        seed: The seed of the run.
        size: The size of the plans.
        capabilities: What the adapter declares.
        metrics: The metrics that the harness can make a store for.
        thousands: As in `Harness`.
    """

    seed: int
    size: Size
    capabilities: Capabilities
    metrics: Sequence[Any]
    thousands: bool

    def plan(self, id_: CallCheck, watch: Watch = unwatched) -> tuple[World, Plan]:
        """Draw the rows and the calls of one check; *watch* receives the progress."""
        size: Size = "quick" if id_ == "C3" else self.size
        # Writes lay out their own rows, and each census reads all: the world's are there to be left alone.
        large = self.thousands and id_ != "C2"
        turn = CALLS.index(id_)
        metrics = sorted(self.metrics)
        first = random.Random(self.seed).randrange(len(metrics))  # noqa: S311 - a repeatable choice
        world = build_world(
            self.seed + turn,
            self.capabilities,
            size=size,
            metrics=metrics,
            thousands=large,
            metric=metrics[(first + turn) % len(metrics)],  # so that a run has each, if there are not more than checks
            dimensions=LARGE_DIMENSIONS if id_ == "C4" else (),
        )
        # Only here, since every read then asks for the time, and a scope of everything is none.
        world = replace(world, expiring=id_ == "C4" and Range in self.capabilities.predicates)
        metric: Any = world.metric
        can = replace(self.capabilities, dimension=world.dimension, metric=metric)
        return world, PLANS[id_](world, can, size=size, watch=watch)


class Planner:
    """Draws the plans of some checks in their order, in a process that is started here and ends with the context."""

    def __init__(self, space: Space, ids: Sequence[CallCheck]) -> None:
        self._ids = list(ids)
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command(__name__), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            self._ask((space, self._ids))
        except BaseException:
            self.close()
            raise

    def _ask(self, request: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has already ended, which is noticed when its answer is read
            _write(self._process.stdin, pickle.dumps(request, 5))

    def plan(self, id_: CallCheck, watch: Watch = unwatched) -> tuple[World, Plan]:
        """Return the rows and the calls of the next check; *watch* receives the progress of their drawing.

        Raises: Abstain, if they could not be drawn.
        """
        following = self._ids.pop(0)
        assert following == id_, "the plans come in their order"
        assert self._process.stdout is not None
        while data := _read(self._process.stdout):
            answer = pickle.loads(data)  # noqa: S301 - written by our own process
            if not isinstance(answer, str):
                world, plan = answer
                return world, plan
            watch(answer)
        raise Abstain(f"the process that draws the calls ended early (exit code {self._process.wait(_GRACE)})")

    def __enter__(self) -> Planner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # what was not read is written again
                stream.close()


class _Carrying(pickle.Pickler):
    """Writes plans; a principal, which cannot be pickled, as what it is made from."""

    def reducer_override(self, value: Any) -> Any:
        """Return how *value* is made again, if it is a principal."""
        return (_principal, (claims_of(value),)) if isinstance(value, Principal) else NotImplemented


def _principal(claims: Mapping[str, Any]) -> Principal:
    return Principal(**claims)


def dumps(world: World, plan: Plan) -> bytes:
    """Return rows and calls as bytes, for a process that trusts this one."""
    data = io.BytesIO()
    _Carrying(data, 5).dump((world, plan))
    return data.getvalue()


def _write(stream: Any, data: bytes) -> None:
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def _read(stream: BinaryIO | Any) -> bytes | None:
    """Return the next message; None at the end."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data: bytes = stream.read(length)
    return data if len(data) == length else None


class _Progress:
    """Writes the progress of the drawing, once a second at most."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._reported = time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() >= self._reported + _PAUSE:
            self._reported = time.monotonic()
            _write(self._stream, pickle.dumps(text, 5))


def main() -> int:
    """Draw what is asked for on standard input, and write it to standard output. Returns: the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner ends this process
    request = _read(sys.stdin.buffer)
    if request is None:
        return 1
    space, ids = pickle.loads(request)  # noqa: S301 - the runner asks
    for id_ in ids:
        try:
            _write(sys.stdout.buffer, dumps(*space.plan(id_, _Progress(sys.stdout.buffer))))
        except OSError:
            return 0  # the runner has enough
    return 0
