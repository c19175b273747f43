"""The two drivers, the combinator and the confinement. `run` and `arun` differ by `await`; only here is I/O called."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from vectoracl.adapter import AsyncPort, Flow, Port, Request, Step
from vectoracl.errors import RefusedError, StoreError, VectorACLError

R = TypeVar("R")
AnyFlow = Generator[Any, Any, R]


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise StoreError("The time limit was reached before the request was sent.", code="timeout", sent="no")
    return left


def run(flow: AnyFlow[R], ports: Mapping[str, Port], *, timeout: float | None = None) -> R:
    """Drive *flow* to its end with sync *ports*; *timeout* is in seconds for the whole flow.

    An error of a port is thrown into the flow. Anything that is no Exception (KeyboardInterrupt) closes the flow and
    is re-raised. Raises: what the flow raises.
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
        # A try of its own: with the call inside send(…), a client's StopIteration would become the flow's result.
        try:
            if isinstance(step, tuple):
                value = _legs(step, ports, deadline)
            else:
                value = ports[step.port].execute(step, _left(deadline))
        except Exception as caught:  # noqa: BLE001 - whatever a port raises belongs to the flow
            error = caught
        except BaseException:
            flow.close()
            raise


async def arun(flow: AnyFlow[R], ports: Mapping[str, AsyncPort], *, timeout: float | None = None) -> R:
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
            else:
                value = await ports[step.port].execute(step, _left(deadline))
        except Exception as caught:  # noqa: BLE001 - whatever a port raises belongs to the flow
            error = caught
        except BaseException:
            flow.close()
            raise


def _legs(step: tuple[Request[Any], ...], ports: Mapping[str, Port], deadline: float | None) -> tuple[Any, ...]:
    """Perform the legs of a tuple, side by side where their ports allow it; all finish, errors are values."""

    def leg(request: Request[Any]) -> Any:
        try:
            return ports[request.port].execute(request, _left(deadline))
        except Exception as caught:  # noqa: BLE001 - an error of one leg is a value of the tuple
            return caught

    width = min((ports[request.port].parallel for request in step), default=1)
    if len(step) < 2 or width < 2:
        return tuple(leg(request) for request in step)
    with ThreadPoolExecutor(min(width, len(step)), thread_name_prefix="vectoracl-leg") as pool:
        started = [pool.submit(contextvars.copy_context().run, leg, request) for request in step]
        return tuple(future.result() for future in started)


async def _alegs(
    step: tuple[Request[Any], ...], ports: Mapping[str, AsyncPort], deadline: float | None
) -> tuple[Any, ...]:
    async def leg(request: Request[Any]) -> Any:
        try:
            return await ports[request.port].execute(request, _left(deadline))
        except Exception as caught:  # noqa: BLE001 - an error of one leg is a value of the tuple
            return caught

    width = min((ports[request.port].parallel for request in step), default=1)
    if len(step) < 2 or width < 2:
        return tuple([await leg(request) for request in step])
    # A TaskGroup waits for all its tasks when it is cancelled; a plain gather leaves orphans behind.
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(leg(request)) for request in step]
    return tuple(task.result() for task in tasks)


def confined(flow: Flow[R], partition: str) -> Flow[R]:
    """Pass *flow* on, but refuse a request to the store that names another partition than *partition*.

    The refusal is thrown into the flow before any I/O and cannot be swallowed: the flow is closed. Raises:
    RefusedError with the code "confinement".
    """
    value: Any = None
    error: Exception | None = None
    try:
        while True:
            try:
                step = flow.send(value) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
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
    finally:
        flow.close()


def side_by_side(flows: Sequence[Flow[R]]) -> Flow[list[R]]:
    """Drive several flows in lock step: their next requests go out as one tuple, and each gets its own replies.

    All flows finish; then the first error in their order is raised. Pure: the drivers know nothing of it.
    """
    if len(flows) == 1:
        return [(yield from flows[0])]
    results: list[Any] = [None] * len(flows)
    errors: dict[int, Exception] = {}
    waiting: dict[int, Step] = {}

    def advance(index: int, value: Any, error: Exception | None) -> None:
        waiting.pop(index, None)
        try:
            waiting[index] = flows[index].send(value) if error is None else flows[index].throw(error)
        except StopIteration as stop:
            results[index] = stop.value
        except Exception as caught:  # noqa: BLE001 - kept, and raised when all have finished
            errors[index] = caught

    try:
        for index in range(len(flows)):
            advance(index, None, None)
        while waiting:
            batch = sorted(waiting.items())
            flat = tuple(one for _, step in batch for one in (step if isinstance(step, tuple) else (step,)))
            replies = yield flat
            taken = 0
            for index, step in batch:
                if isinstance(step, tuple):
                    advance(index, tuple(replies[taken : taken + len(step)]), None)
                    taken += len(step)
                else:
                    reply = replies[taken]
                    failed = isinstance(reply, Exception)
                    advance(index, None if failed else reply, reply if failed else None)
                    taken += 1
    finally:
        for flow in flows:
            flow.close()
    if errors:
        raise errors[min(errors)]
    return results


def wrapped(error: BaseException, message: str, *, debug: bool, code: str = "port") -> VectorACLError:
    """Return *error* if it is ours, else a StoreError that does not quote it (its text may hold rows or secrets)."""
    if isinstance(error, VectorACLError):
        return error
    store_error = StoreError(message, code=code, sent="unknown")
    if debug:
        store_error.__cause__ = error
    return store_error
