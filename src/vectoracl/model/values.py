"""Conversion of values of other libraries, and hints on what to write instead.

One rule applies to filters, metadata, attributes of principals and predicates of policies, on every store: a NumPy
scalar is the Python value that it equals exactly; a value of another type is refused, never rounded or turned into
text.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import numpy as np


def native(value: object) -> object:
    """Return a NumPy scalar as the exactly equal Python value, and any other value unchanged.

    A number that a Python float would round, and NumPy times, which have no time zone, are not converted; all checks
    refuse them.
    """
    if not isinstance(value, np.generic):
        return value
    if isinstance(value, np.floating):
        number = float(value)
        return number if number == value or np.isnan(value) else value
    if isinstance(value, np.timedelta64):  # a subclass of NumPy's integers
        return value
    return value.item() if isinstance(value, np.bool_ | np.integer | np.str_) else value


# Hints for values of these types; the first match counts. A datetime is a date too.
_INSTEAD: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (np.datetime64, "write value.astype('datetime64[us]').item().replace(tzinfo=UTC), if it is a time in UTC"),
    (np.timedelta64, "write a number, such as value / numpy.timedelta64(1, 's')"),
    (np.floating, "it has more digits than a float: write float(value), which rounds it"),
    (np.ndarray, "write value.tolist() for a list, or value.item() for one value"),
    (UUID, "write str(value)"),
    (Decimal, "write str(value) to keep its digits, or float(value) to compare it as a number"),
    (datetime, "declare the field as datetime"),
    (date, "write value.isoformat(), or a datetime with a time zone"),
    (time, "write value.isoformat()"),
    (timedelta, "write value.total_seconds()"),
    (Enum, "write value.value"),
    ((set, frozenset), "write sorted(value)"),
    ((bytes, bytearray, memoryview), "write value.decode() if it is text, or value.hex()"),
)


def instead(value: object) -> str:
    """Return a hint on what to write instead of *value*, whose type no store keeps exactly."""
    for kind, cure in _INSTEAD:
        if isinstance(value, kind):
            return cure
    return "use str, int, float, bool or datetime"
