"""Datetimes of filters and metadata: aware, in UTC, and one text form of each."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from vectoracl.errors import InvalidInputError, without_context

# What RFC 3339 allows and Python reads exactly: finer fractions would be cut off.
MOMENT_PATTERN = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)$"
_MOMENT = re.compile(MOMENT_PATTERN.removesuffix("$") + r"\Z", re.ASCII)


@without_context
def utc(moment: datetime, where: str) -> datetime:
    """Return *moment* in UTC, as a datetime of no subclass.

    Raises: InvalidInputError without an offset, outside of the years 1 to 9999, or with nanoseconds.
    """
    try:
        offset = moment.utcoffset()
        if offset is None:
            raise InvalidInputError(f"{where} is a datetime without a time zone; add one.")
        if getattr(moment, "nanosecond", 0):
            raise InvalidInputError(f"{where} is a datetime with nanoseconds; microseconds are the finest.")
        time = (moment.hour, moment.minute, moment.second, moment.microsecond)
        return datetime(moment.year, moment.month, moment.day, *time, tzinfo=UTC) - offset
    except OverflowError:
        raise InvalidInputError(f"{where} is outside of the years 1 to 9999 in UTC.") from None


@without_context
def parse_datetime(name: str, text: str) -> datetime:
    """Read RFC 3339 text with an offset. Raises: InvalidInputError."""
    if not _MOMENT.match(text):
        raise InvalidInputError(
            f"The value for {name!r} is not an RFC 3339 datetime with an offset and at most microseconds, "
            "for example 2026-01-31T12:00:00Z.",
            field=name,
        )
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise InvalidInputError(f"The value for {name!r} is not an RFC 3339 datetime.", field=name) from None
    return utc(moment, f"The value for {name!r}")


def datetime_text(moment: datetime) -> str:
    """Return the one text form of a datetime: UTC, microseconds, fixed width, so that text order is time order."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0") + "Z"
