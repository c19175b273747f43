"""Names, ids, texts and values at which stores fail, drawn from a seed. Nothing in them says what they are for."""

from __future__ import annotations

import random
import unicodedata
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.random import Generator

from vectoracl.model.records import Vector

BOUNDARIES: Final = (10, 20, 50, 64, 100, 128, 256, 300, 500, 512, 1_000, 1_024, 2_000)
"""Numbers at which implementations change their path, of whatever is counted."""
DIMENSIONS: Final = (3, 8, 16, 63, 64, 65, 100, 128, 129, 300, 384)
LARGE_DIMENSIONS: Final = (1_025, 1_536)
"""Those behind the boundaries at a thousand, for data of few rows."""
FIRST: Final = datetime(1, 1, 1, tzinfo=UTC)
LAST: Final = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
BIG: Final = 2**53
_KEYWORD: Final = 1_024
"""The largest number of bytes of a keyword."""
_SYLLABLES = "ba be bi bo bu da de di do du fa fe ga go ka ke ki ko la le li lo lu ma me mi mo na ne ni no pa pe ra re ri ro sa se so ta te ti to va ve vi wa za ze zu".split()  # noqa: SIM905, E501
HOSTILE: Final = (
    "it's",
    "'",
    "''",
    '"',
    "\\",
    "\\'",
    "%",
    "%s",
    "_",
    "a%b_c",
    "'; DROP TABLE chunks; --",
    "' OR '1'='1",
    "') OR TRUE --",
    '" or ""="',
    "1) UNION SELECT * FROM x --",
    '{"$ne": null}',
    '{"must": []}',
    "$where",
    "${x}",
    "{{7*7}}",
    "[1,2]",
    "a.b[0]",
    "*",
    "?",
    "NULL",
    "null",
    "true",
    "0",
    "1",
    "1.0",
    "-1",
    "a,b",
    "a;b",
    "a|b",
    "a:b",
    "a/b",
    "a\tb",
    "a\nb",
    "a b",
    " a",
    "a ",
    "A",
    "a",
    "é",
    "e\u0301",
    "É",
    "ß",
    "SS",
    "ss",
    "ı",
    "I",
    "i",
    "İ",
    "ﬁ",
    "Ω",
    "中文",
    "日本語のテキスト",
    "עברית",
    "العربية",
    "😀",
    "👨‍👩‍👧",
    "\u200b",
    "\ufeff",
    "\u0001",
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "x" * 254,
    "x" * 255,
    "x" * 256,
    "x" * 257,
    "y" * 1_023,
    "y" * 1_024,
    "é" * 511,
    "🙂" * 255,
)
"""Values of keyword fields, and parts of texts."""
NUMBERS: Final = (
    0, 1, -1, 0.5, 0.1 + 0.2, 0.3, 1e15, 1e15 + 0.5, BIG, BIG - 1, -BIG, 1 - BIG, 2**31 - 1, 2**31, -(2**31), 2**32,
    1e-300, -1e-300, 1e300, -1e300, 5e-324, 1.7976931348623157e308, 16_777_216, 16_777_217, 1.0000001, 1.0,
    2020, 2020.5, 2020.0,
)  # fmt: skip
"""Numbers at the limits of what a float, a float32 and an integer hold."""
MOMENTS: Final = (
    FIRST,
    FIRST + timedelta(microseconds=1),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2000, 1, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 12, 0, 0, 2, tzinfo=UTC),
    datetime(2024, 2, 29, 12, 0, 0, 1_000, tzinfo=UTC),
    datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    LAST - timedelta(microseconds=1),
    LAST,
)
"""Datetimes at the limits of what is representable, and a microsecond apart."""


def alike(value: Any) -> Any:
    """Return what *value* has in common with those that a store may take for it: case, form, blanks, a rounded part."""
    if isinstance(value, str):
        letters = unicodedata.normalize("NFKD", value[:60]).casefold()
        return "".join(one for one in letters if one.isalnum())
    if isinstance(value, datetime):
        return value.replace(microsecond=0)
    if isinstance(value, bool):
        return value
    return int(value) if abs(value) < 1e6 else float(np.float32(value)) if abs(value) < 1e38 else value


def _texts_like(value: str, draw: Draw) -> list[str]:
    """Return the texts that a store may take for *value*."""
    found = [
        value.swapcase(),
        value.upper(),
        value.capitalize(),
        f"{value} ",
        f"{value}  ",
        f"{value}{draw.word(1, 1)}",
    ]
    found += [unicodedata.normalize(form, value) for form in ("NFC", "NFD")]
    found += [value.replace(one, draw.word(1, 1)[:1]) for one in ("_", "%")]
    found += [value.replace("\\", ""), value.replace("\\", "\\\\"), value.replace("é", "e")]
    if len(value) > 60:
        found += [f"{value[:-1]}{one}" for one in ("x", "y", "z")]
    return [one for one in found if one != value and one.strip("_%\\") and len(one.encode()) <= _KEYWORD]


def neighbour(value: Any, draw: Draw) -> Any:
    """Return another value that a store may take for *value*, or which lies next to it; None: no value."""
    pick = draw.py.choice
    match value:
        case bool():
            return not value
        case str():
            found = _texts_like(value, draw)
            return pick(found) if found else None if value == "" else ""
        case datetime():
            steps = [timedelta(microseconds=1), timedelta(milliseconds=1), timedelta(milliseconds=499)]
            step = pick(steps)
            later = LAST - value >= step and (value - FIRST < step or pick((True, False)))
            return value + step if later else value - step
        case list():
            place = draw.py.randrange(len(value))
            other = neighbour(value[place], draw)
            return [*value[:place], value[place] if other is None else other, *value[place + 1 :]]
        case int():
            choices: list[Callable[[], int | float]] = [lambda: value + 1, lambda: value - 1, lambda: -value]
            if abs(value) < 2**31:
                choices += [lambda: value + 0.25, lambda: float(np.nextafter(value, 1e9))]
            other = pick(choices)()
            return other if abs(other) <= BIG and other != value else value // 2
    near = float(np.nextafter(value, 0.0))
    return pick((near, near, -value, round(value))) if abs(value) < 1e6 else near


class Draw:
    """Everything random of one part of a plan, from a seed and the part's name: no part depends on another."""

    def __init__(self, seed: int, part: str) -> None:
        self.py = random.Random(f"{seed}/{part}")  # noqa: S311 - repeatable, and no secret
        self._bits = self.py.getrandbits(64)

    @cached_property
    def np(self) -> Generator:
        """The source of arrays, which costs much to make."""
        return np.random.default_rng(self._bits)

    def word(self, least: int = 2, most: int = 4) -> str:
        """Return a pronounceable word."""
        return "".join(self.py.choice(_SYLLABLES) for _ in range(self.py.randint(least, most)))

    def words(self, count: int) -> str:
        """Return *count* words."""
        return " ".join(self.word() for _ in range(count))

    def uuid(self) -> str:
        """Return a UUID as text."""
        return str(uuid.UUID(int=self.py.getrandbits(128), version=4))

    def vector(self, dimension: int) -> Vector:
        """Return a vector of a random direction and a length between 0.5 and 2."""
        vector = self.np.normal(size=dimension)
        return np.asarray(vector / np.linalg.norm(vector) * self.py.uniform(0.5, 2.0), np.float32)

    def near(self, centre: Vector, distance: float) -> Vector:
        """Return a vector at about *distance* times its length from *centre*."""
        side = self.np.normal(size=len(centre))
        side *= distance * float(np.linalg.norm(centre)) / np.linalg.norm(side)
        return np.asarray(centre + side, np.float32)

    def some(self, values: Sequence[Any], count: int) -> list[Any]:
        """Return *count* of *values*, each at most once; all of them if there are fewer."""
        return self.py.sample(list(values), min(count, len(values)))


def tenant_names(draw: Draw, count: int) -> list[str]:
    """Return *count* different names of tenants, of every shape that a name may have."""
    stem, other = draw.word(3, 4), draw.word(3, 4)
    shapes = [
        draw.uuid(),
        draw.uuid().upper(),
        draw.py.choice("bcdfgh"),
        stem,
        stem.capitalize(),
        stem.upper(),
        f"{stem}{draw.word()}",
        f"{stem} {other}",
        f"{stem}.{other}",
        f"{stem}/{other}",
        f"{stem}-{other}",
        f"{stem}_{other}",
        f"{stem}:{other}",
        f"{stem}|{other}",
        f"{stem}#{other}",
        f"{stem}'{other}",
        f'{stem}"{other}',
        f"{stem}\\{other}",
        f"{stem}; --",
        f"{stem},{other}",
        f"({stem})",
        f"[{stem}]",
        f"{{{stem}}}",
        f"${stem}",
        f"@{stem}",
        f"={stem}",
        f"<{stem}>",
        f"{stem}é",
        f"{stem}e",
        f"{stem}ü",
        f"ß{stem}",
        f"{other}中文",
        f"{other}の",
        f"б{other}",
        f"{other}@{stem}.example",
        f"https://{other}.example/{stem}",
        f"..{stem}",
        f"../{stem}",
        f"~{stem}",
        f"{draw.py.randrange(10**6)}",
        f"0{draw.py.randrange(10**5)}",
        "null",
        "default",
        "public",
        other[0] * 63,
        other[0] * 64,
        other[0] * 255,
        other[0] * 256,
        f"{stem}{'é' * 100}",
    ]
    draw.py.shuffle(shapes)
    names = dict.fromkeys(shapes)
    while len(names) < count:
        names[draw.py.choice((draw.uuid(), f"{draw.word(2, 3)}-{draw.py.randrange(1000)}"))] = None
    return list(names)[:count]


def field_names(draw: Draw, kinds: Sequence[str]) -> dict[str, str]:
    """Return a name of a metadata field for each of *kinds*, of every shape that the configuration permits."""
    stem = draw.word(2, 3)
    shapes = [
        stem,
        f"{stem}_2",
        f"_{draw.word()}",
        draw.word().capitalize() + draw.word().capitalize(),
        draw.word().upper(),
        draw.py.choice("qwxyz"),
        f"{draw.word()}9",
        "".join(draw.word() for _ in range(24))[:63],
        *draw.some(("select", "order", "user", "group", "type", "key", "value", "text", "vector", "id", "limit"), 3),
        f"{draw.word()}__{draw.word()}",
    ]
    draw.py.shuffle(shapes)
    names = list({one.casefold(): one for one in shapes}.values())
    while len(names) < len(kinds):
        names.append(f"{draw.word(3, 5)}{len(names)}")
    return dict(zip(names, kinds, strict=False))
