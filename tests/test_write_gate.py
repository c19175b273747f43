"""The gate that every adapter's writes pass, by itself: the core's tags are right, so nothing else shows its faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vectoracl import UntaggedWriteError
from vectoracl.prepare import check_tagged
from vectoracl.records import Record, Tag

PARTS = ("", None)
GOOD = Tag("acme", "doc", "c1")


def record(tag: Any) -> Record:
    return Record(tag, "text", np.ones(3, np.float32), {})


def test_whole_tags_of_the_partition_pass() -> None:
    check_tagged([record(GOOD), record(GOOD._replace(chunk="c2"))], "acme")
    check_tagged([], "acme")


@pytest.mark.parametrize(
    "tag",
    [
        None,
        (),
        tuple(GOOD),
        "acme",
        *(GOOD._replace(**{part: nothing}) for part in ("tenant", "document", "chunk", "label") for nothing in PARTS),
        GOOD._replace(tenant="globex"),
        GOOD._replace(tenant="ACME"),
        GOOD._replace(tenant="acme "),
    ],
)  # fmt: skip
def test_one_wrong_tag_refuses_the_whole_batch(tag: Any) -> None:
    for batch in ([record(tag)], [record(GOOD), record(tag)], [record(tag), record(GOOD)]):
        with pytest.raises(UntaggedWriteError):
            check_tagged(batch, "acme")


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(UntaggedWriteError):
        check_tagged([object()], "acme")  # type: ignore[list-item]
