"""A time limit for clients that run in this process and can be interrupted from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupted_after(timeout: float | None, interrupt: Callable[[], object]) -> Iterator[threading.Event]:
    """Call *interrupt* from another thread when the block has run for *timeout* seconds.

    A client may miss an interruption that comes between two of its statements, so look at the event before a commit.

    Args:
        timeout: The limit in seconds, as a port gets it; None for no limit.
        interrupt: Stops the running statement, for example `sqlite3.Connection.interrupt`. Not called after the block.

    Yields:
        An event that is set as soon as the time is up.
    """
    late = threading.Event()
    if timeout is None:
        yield late
        return

    def strike() -> None:
        late.set()
        interrupt()

    timer = threading.Timer(min(max(timeout, 0), threading.TIMEOUT_MAX), strike)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        timer.join()
