"""Takes down what is logged in this process."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """Take down everything that is logged by anyone, at every level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setLevel(1)
    root = logging.getLogger()
    loggers = [root, *(one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    levels = [(one, one.level) for one in loggers]
    for one in loggers:
        one.setLevel(1)
    root.addHandler(handler)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        for one, level in levels:
            one.setLevel(level)
