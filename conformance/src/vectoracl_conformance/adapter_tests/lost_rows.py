"""Chunks of a few documents that an approximate ranking may lose, and whether the answer is then complete."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from vectoracl.model.records import Record, Tag
from vectoracl_conformance.adapter_tests.shapes import TENANT

ROWS: Final = {"one": 3, "two": 2, "three": 1}
"""Documents, and how many chunks each has."""
CASES: Final[list[Any]] = [
    ([], 10, None, True),
    ([("two", "c1")], 10, None, False),
    ([("two", "c1")], 5, None, True),  # five of six were found
    ([], 10, 3, True),
    ([("three", "c0")], 3, 1, False),  # a document
    ([("three", "c0")], 2, 1, True),  # as many as were asked for
    ([("one", "c1")], 3, 3, False),  # a chunk of one
    ([("one", "c1")], 3, 2, True),
    ([("one", "c1")], 3, 1, True),
    ([(one, f"c{n}") for one, chunks in ROWS.items() for n in range(chunks)], 3, 1, False),  # everything
]
"""The lost chunks, k, the chunks of a group (None: no groups), and whether the answer is complete."""


def records(document: str, chunks: int, text: str) -> tuple[Record, ...]:
    """Return the chunks of *document*."""
    return tuple(
        Record(Tag(TENANT, document, f"c{n}", time=1.0, position=n), text, np.array([1.0, n], np.float32), {})
        for n in range(chunks)
    )
