"""Threads for calls that may wait (a policy, an audit sink), so that a time limit holds and an event loop goes on."""

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
    """The call did not end in time. It goes on in its thread, and what it returns is dropped."""


class Workers:
    """A few threads, started when they are first needed. Each call sees a copy of its caller's context variables.

    They are daemons, and so not those of an Executor, which Python waits for when the process ends: one that hangs in a
    policy would hold that up for good.
    """

    def __init__(self, name: str = "vectoracl-core") -> None:
        self._queue = _Queue(name)
        weakref.finalize(self, self._queue.close)

    def call(self, function: Callable[[], T], timeout: float | None) -> T:
        """Return what *function* returns. Raises: LateError after *timeout* seconds; what *function* raises."""
        future = self._queue.put(function)
        if not wait((future,), timeout).done:
            future.cancel()
            raise LateError
        return future.result()

    async def acall(self, function: Callable[[], T], timeout: float | None) -> T:
        """Do the same without holding the event loop up. A caller that is cancelled leaves the call to its end."""
        future = asyncio.wrap_future(self._queue.put(function))
        future.add_done_callback(_seen)
        done, _ = await asyncio.wait((future,), timeout=timeout)
        if not done:
            future.cancel()
            raise LateError
        return future.result()

    def close(self) -> None:
        """Start nothing more; what runs, or waits to, comes to its end."""
        self._queue.close()


class _Queue:
    """What the threads share. They know nothing of `Workers`, so that they end when that is not used any more."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = Condition()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._idle = 0
        self._number = 0
        self._closed = False

    def put(self, function: Callable[[], T]) -> Future[T]:
        """Let a thread perform *function*: one that is idle, else a new one while there are few."""
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
        """Let the threads end when all that was put is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _seen(future: asyncio.Future[Any]) -> None:
    """Take the exception of a call that has no caller any more, so that asyncio does not complain about it."""
    if not future.cancelled():
        future.exception()
