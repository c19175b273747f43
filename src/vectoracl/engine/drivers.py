"""The two drivers of flows (`run`, `arun`), their combinator (`side_by_side`) and the confinement to a partition.

`run` and `arun` differ only by `await`. They are the only place where a port, and so I/O, is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

from vectoracl.adapter_api.contract import AsyncPort, Flow, Port, Request, Step
from vectoracl.errors import RefusedError, StoreError, VectorACLError

R = TypeVar("R")
AnyFlow = Generator[Any, Any, R]


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    time_left = deadline - time.monotonic()
    if time_left <= 0:
        raise StoreError("The time limit was reached before the request was sent.", code="timeout", sent="no")
    return time_left


def _later(deadline: float | None, started: float) -> float | None:
    """Return *deadline* moved by the time that has passed since *started*."""
    return None if deadline is None else deadline + (time.monotonic() - started)


def run(
    flow: AnyFlow[R],
    ports: Mapping[str, Port],
    *,
    timeout: float | None = None,
    pool: Callable[[], Executor] | None = None,
    separate_limit: frozenset[str] = frozenset(),
) -> R:
    """Drive *flow* to its end with sync *ports*; *timeout* is in seconds for the whole flow.

    The time of the ports named in *separate_limit* does not count: they have their own limits. *pool* returns the
    threads that perform the further legs of a tuple; without it, threads are created for each tuple.
    An exception of a port is thrown into the flow. A BaseException that is not an Exception (KeyboardInterrupt) closes
    the flow and is raised again. Raises: what the flow raises.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    value: Any = None
    error: Exception | None = None
    while True:
        try:
            step = flow.send(value) if error is None else flow.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        value, error = None, None
        # A separate try: with the call inside send(…), a client's StopIteration would become the flow's result.
        try:
            if isinstance(step, tuple):
                value = _legs(step, ports, deadline, pool)
            elif step.port in separate_limit:
                started = time.monotonic()
                try:
                    value = ports[step.port].execute(step, None)
                finally:
                    deadline = _later(deadline, started)
            else:
                value = ports[step.port].execute(step, _left(deadline))
        except Exception as caught:  # noqa: BLE001 - every exception of a port goes to the flow
            error = caught
        except BaseException:
            close_flow(flow)
            raise


async def arun(
    flow: AnyFlow[R],
    ports: Mapping[str, AsyncPort],
    *,
    timeout: float | None = None,
    separate_limit: frozenset[str] = frozenset(),
) -> R:
    """Drive *flow* to its end with async *ports*; the same as `run`. Cancellation closes the flow and is re-raised."""
    deadline = None if timeout is None else time.monotonic() + timeout
    value: Any = None
    error: Exception | None = None
    while True:
        try:
            step = flow.send(value) if error is None else flow.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        value, error = None, None
        try:
            if isinstance(step, tuple):
                value = await _alegs(step, ports, deadline)
            elif step.port in separate_limit:
                started = time.monotonic()
                try:
                    value = await ports[step.port].execute(step, None)
                finally:
                    deadline = _later(deadline, started)
            else:
                value = await ports[step.port].execute(step, _left(deadline))
        except Exception as caught:  # noqa: BLE001 - every exception of a port goes to the flow
            error = caught
        except BaseException:
            close_flow(flow)
            raise


def close_flow(flow: AnyFlow[Any]) -> None:
    """Close *flow*. A flow that yields while it is closed breaks the contract, but must not hide the first error."""
    try:  # noqa: SIM105 - contextlib.suppress costs an object for each leg of each call
        flow.close()
    except RuntimeError:
        pass


def _legs(
    step: tuple[Request[Any], ...],
    ports: Mapping[str, Port],
    deadline: float | None,
    pool: Callable[[], Executor] | None,
) -> tuple[Any, ...]:
    """Perform the legs of a tuple, in parallel where their ports allow it; all finish, and errors are values."""

    def leg(request: Request[Any]) -> Any:
        try:
            return ports[request.port].execute(request, _left(deadline))
        except Exception as caught:  # noqa: BLE001 - an error of one leg is a value of the tuple
            return caught

    width = min([ports[request.port].parallel for request in step], default=1)
    if len(step) < 2 or width < 2:
        return tuple([leg(request) for request in step])
    threads = min(width, len(step))
    if pool is not None:
        return _shared_out(step, leg, pool(), threads)
    with ThreadPoolExecutor(threads - 1, thread_name_prefix="vectoracl-leg") as own:
        return _shared_out(step, leg, own, threads)


def _shared_out(
    step: tuple[Request[Any], ...], leg: Callable[[Request[Any]], Any], pool: Executor, threads: int
) -> tuple[Any, ...]:
    """Perform *step* in this thread and *threads* - 1 of *pool*; each takes the next leg that has not begun.

    So a busy pool never delays a call, and legs of a few microseconds do not wait for another thread.
    """
    results: list[Any] = [None] * len(step)
    waiting = deque(enumerate(step))

    def work() -> None:
        while True:
            try:
                index, request = waiting.popleft()
            except IndexError:
                return
            results[index] = leg(request)

    helpers = []
    try:
        with contextlib.suppress(RuntimeError):  # if the pool was closed in the meantime, this thread does all legs
            for _ in range(threads - 1):
                helpers.append(pool.submit(contextvars.copy_context().run, work))
        contextvars.copy_context().run(work)
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()
    return tuple(results)


async def _alegs(
    step: tuple[Request[Any], ...], ports: Mapping[str, AsyncPort], deadline: float | None
) -> tuple[Any, ...]:
    """Perform the legs of a tuple, as many at the same time as their ports allow; all finish, and errors are values."""

    async def leg(request: Request[Any]) -> Any:
        try:
            return await ports[request.port].execute(request, _left(deadline))
        except Exception as caught:  # noqa: BLE001 - an error of one leg is a value of the tuple
            return caught

    width = min((ports[request.port].parallel for request in step), default=1)
    if len(step) < 2 or width < 2:
        return tuple([await leg(request) for request in step])
    results: list[Any] = [None] * len(step)
    waiting = deque(enumerate(step))

    async def work() -> None:
        while waiting:
            index, request = waiting.popleft()
            results[index] = await leg(request)

    # A TaskGroup waits for all its tasks when it is cancelled; a plain gather leaves orphans behind.
    async with asyncio.TaskGroup() as group:
        for _ in range(min(width, len(step))):
            group.create_task(work())
    return tuple(results)


def confined(flow: Flow[R], partition: str) -> Flow[R]:
    """Pass *flow* on, but refuse a request to the store that names a partition other than *partition*.

    The refusal is raised before any I/O and cannot be swallowed: the flow is closed. A StoreError that is raised after
    one of the requests has written, or may have, gets `sent` = "unknown", whatever the last request was: a later read
    that did not reach the store does not undo the write. The exception is a flow that undid its writes
    (`StoreError.undone`).

    Raises: RefusedError with the code "confinement".
    """
    value: Any = None
    error: Exception | None = None
    written = False
    try:
        while True:
            try:
                step = flow.send(value) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            except StoreError as failed:
                if written and not failed.undone:
                    failed.sent = "unknown"
                raise
            for request in step if isinstance(step, tuple) else (step,):
                if request.port != "store" or request.partition != partition:
                    refusal = RefusedError("The adapter's request leaves its operation's partition; nothing was sent.")
                    refusal.code = "confinement"
                    raise refusal
            value, error = None, None
            try:
                value = yield step
            except Exception as caught:  # noqa: BLE001 - handed to the flow, whose error it is
                error = caught
            written = written or _may_have_written(step, value if error is None else error)
    finally:
        close_flow(flow)


def _may_have_written(step: Step, value: Any) -> bool:
    """Return whether one of the requests of *step* has written, or may have; *value* is the reply, or the error.

    In a tuple of replies an error stands for its own request. An error of the library's tree that is not a StoreError
    is a refusal, and a StoreError says whether its request was sent.
    """
    if not isinstance(step, tuple):
        return step.writes and not _certainly_unsent(value)
    replies = [value] * len(step) if isinstance(value, Exception) else value
    return any(one.writes and not _certainly_unsent(reply) for one, reply in zip(step, replies, strict=True))


def _certainly_unsent(reply: Any) -> bool:
    return isinstance(reply, VectorACLError) and getattr(reply, "sent", "no") == "no"


def side_by_side(flows: Sequence[Flow[R]]) -> Flow[list[R]]:
    """Drive several flows in lock step: their next requests are yielded as one tuple, and each gets its own replies.

    All flows finish; then the first error in their order is raised. It is a flow itself; the drivers do not know it.
    """
    if len(flows) == 1:
        return [(yield from flows[0])]
    results: list[Any] = [None] * len(flows)
    errors: dict[int, Exception] = {}
    waiting: dict[int, Step] = {}

    def advance(index: int, value: Any, error: Exception | None) -> None:
        try:
            waiting[index] = flows[index].send(value) if error is None else flows[index].throw(error)
        except StopIteration as stop:
            waiting.pop(index, None)
            results[index] = stop.value
        except Exception as caught:  # noqa: BLE001 - kept, and raised when all have finished
            waiting.pop(index, None)
            errors[index] = caught

    try:
        for index in range(len(flows)):
            advance(index, None, None)
        while waiting:
            batch = list(waiting.items())  # in the order of the flows: they are entered once, in order
            flat: list[Request[Any]] = []
            for _, step in batch:
                if isinstance(step, tuple):
                    flat.extend(step)
                else:
                    flat.append(step)
            replies = yield tuple(flat)
            offset = 0
            for index, step in batch:
                if isinstance(step, tuple):
                    advance(index, tuple(replies[offset : offset + len(step)]), None)
                    offset += len(step)
                else:
                    reply = replies[offset]
                    failed = isinstance(reply, Exception)
                    advance(index, None if failed else reply, reply if failed else None)
                    offset += 1
    finally:
        for flow in flows:
            close_flow(flow)
    if errors:
        raise errors[min(errors)]
    return results


def wrapped(error: BaseException, message: str, *, debug: bool, code: str = "port") -> VectorACLError:
    """Return *error* if it is a VectorACLError, else a StoreError with *message*, which does not quote *error*.

    The text of *error* may hold rows or secrets; it becomes the cause only with *debug*.
    """
    if isinstance(error, VectorACLError):
        return error
    store_error = StoreError(message, code=code, sent="unknown")
    if debug:
        store_error.__cause__ = error
    return store_error
