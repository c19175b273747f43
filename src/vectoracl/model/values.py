"""Values of other libraries' types: which are taken as Python's, and what to write instead of the others.

The one rule of filters, metadata, principals' attributes and policies' predicates, on every store: NumPy's scalars are
the Python values that they equal exactly; whatever is of another type is refused, never rounded or turned into text.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import numpy as np


def native(value: object) -> object:
    """Return a NumPy scalar as the Python value that is exactly equal to it; everything else as it is.

    A number that Python's float would round, and NumPy's times, which know no zone, stay what they are: no check lets
    them pass.
    """
    if not isinstance(value, np.generic):
        return value
    if isinstance(value, np.floating):
        number = float(value)
        return number if number == value or np.isnan(value) else value
    if isinstance(value, np.timedelta64):  # to NumPy it is an integer
        return value
    return value.item() if isinstance(value, np.bool_ | np.integer | np.str_) else value


# What is written instead of a value of this type; the first that fits. A datetime is a date too.
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
    """Say what can be written instead of *value*, whose type no store keeps exactly."""
    for kind, cure in _INSTEAD:
        if isinstance(value, kind):
            return cure
    return "use str, int, float, bool or datetime"
