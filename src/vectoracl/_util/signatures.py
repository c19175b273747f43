"""The parameters of functions that other distributions wrote, perhaps for an earlier version."""

from __future__ import annotations

import inspect
from collections.abc import Callable


def takes(function: Callable[..., object], name: str) -> bool:
    """Return whether *function* takes the keyword *name*; True if that cannot be determined."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())
