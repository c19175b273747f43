"""Worker threads for calls that may block (a policy, an audit sink), so that time limits hold and event loops run."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from threading import Condition, Thread
from typing import Any, TypeVar

T = TypeVar("T")
_MOST = 32


class LateError(Exception):
    """The call did not end in time. It continues in its thread, and its result is dropped."""


class Workers:
    """A small pool of threads, started on demand. Each call runs with a copy of its caller's context variables.

    They are daemon threads, unlike those of an Executor, for which Python waits at the end of the process: a thread
    that hangs in a policy would block the exit forever.
    """

    def __init__(self, name: str = "vectoracl-core") -> None:
        self._queue = _Queue(name)
        weakref.finalize(self, self._queue.close)

    def call(self, function: Callable[[], T], timeout: float | None) -> T:
        """Return the result of *function*. Raises: LateError after *timeout* seconds; what *function* raises."""
        future = self._queue.put(function)
        if not wait((future,), timeout).done:
            future.cancel()
            raise LateError
        return future.result()

    async def acall(self, function: Callable[[], T], timeout: float | None) -> T:
        """Do the same without blocking the event loop. If the caller is cancelled, the call still runs to its end."""
        future = asyncio.wrap_future(self._queue.put(function))
        future.add_done_callback(_seen)
        done, _ = await asyncio.wait((future,), timeout=timeout)
        if not done:
            future.cancel()
            raise LateError
        return future.result()

    def close(self) -> None:
        """Accept no further calls; running and queued ones are completed."""
        self._queue.close()


class _Queue:
    """The state shared by the threads. It does not refer to `Workers`, so the threads end when that is collected."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = Condition()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._idle = 0
        self._number = 0
        self._closed = False

    def put(self, function: Callable[[], T]) -> Future[T]:
        """Let an idle thread run *function*, or a new one up to the limit."""
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("closed")
            if len(self._calls) >= self._idle and self._number < _MOST:
                Thread(target=self._work, name=f"{self._name}_{self._number}", daemon=True).start()
                self._number += 1
            self._calls.append((future, partial(contextvars.copy_context().run, function)))
            self._changed.notify()
        return future

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._calls and not self._closed:
                    self._changed.wait()
                self._idle -= 1
                if not self._calls:
                    return
                future, function = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                    future.set_exception(error)
            del future, function

    def close(self) -> None:
        """Let the threads end after all queued calls."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _seen(future: asyncio.Future[Any]) -> None:
    """Retrieve the exception, so that asyncio does not log "exception was never retrieved"."""
    if not future.cancelled():
        future.exception()
