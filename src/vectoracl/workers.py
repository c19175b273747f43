"""Threads for calls that may wait (a policy, an audit sink), so that a time limit holds and an event loop goes on."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")
_MOST = 32


class LateError(Exception):
    """The call did not end in time. It goes on in its thread, and what it returns is dropped."""


class Workers:
    """A few threads, started when they are first needed. Each call sees a copy of its caller's context variables."""

    def __init__(self, name: str = "vectoracl-core") -> None:
        self._name = name
        self._lock = Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    def call(self, function: Callable[[], T], timeout: float | None) -> T:
        """Return what *function* returns. Raises: LateError after *timeout* seconds; what *function* raises."""
        future = self._started(function)
        if not wait((future,), timeout).done:
            future.cancel()
            raise LateError
        return future.result()

    async def acall(self, function: Callable[[], T], timeout: float | None) -> T:
        """Do the same without holding the event loop up. A caller that is cancelled leaves the call to its end."""
        future = asyncio.wrap_future(self._started(function))
        future.add_done_callback(_seen)
        done, _ = await asyncio.wait((future,), timeout=timeout)
        if not done:
            raise LateError
        return future.result()

    def _started(self, function: Callable[[], T]) -> Future[T]:
        with self._lock:
            if self._threads is None:
                if self._closed:
                    raise RuntimeError("closed")
                self._threads = ThreadPoolExecutor(_MOST, thread_name_prefix=self._name)
            return self._threads.submit(contextvars.copy_context().run, function)

    def close(self) -> None:
        """Start nothing more; what runs comes to its end."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)


def _seen(future: asyncio.Future[Any]) -> None:
    """Take the exception of a call that has no caller any more, so that asyncio does not complain about it."""
    if not future.cancelled():
        future.exception()
