"""The gate that every adapter's writes pass, by itself: the core's tags are right, so nothing else shows its faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vectoracl import UntaggedWriteError, VectorACL, hazmat
from vectoracl.adapter_api.chunk_validation import check_tagged
from vectoracl.model.records import Record, Tag

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


class Trusting:
    """An adapter that has forgotten the gate: it notes what it is given to write, and writes nothing."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.given: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _note(self, operation: Any) -> Any:
        self.given.append(operation)
        return len(operation.records)
        yield

    upsert = replace = _note


WRONG = [
    lambda tag: tag._replace(tenant="globex"),
    lambda tag: tag._replace(tenant=""),
    lambda tag: tag._replace(document=""),
    lambda tag: tag._replace(chunk=""),
    lambda tag: tag._replace(label=""),
    tuple,
    lambda tag: None,
]


@pytest.fixture
def trusting(api: Any) -> Any:
    """Make a VectorACL whose adapter trusts the core; the core's own gate is all there is."""
    made: list[Any] = []

    def wrap(inner: Any) -> Any:
        made.append(Trusting(inner))
        return made[0]

    acl = api.connect()
    acl.tap(adapter=wrap)
    return acl, made[0]


@pytest.mark.parametrize("wrong", WRONG)
def test_the_core_passes_the_gate_itself(
    trusting: Any, who: Any, chunk: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vectoracl.engine import writes

    acl, adapter = trusting
    docs = acl.scoped(who())
    docs.upsert([chunk("c1"), chunk("c2")])
    assert len(adapter.given) == 1  # the control: what is right is handed on
    right = writes.record_of
    monkeypatch.setattr(
        writes,
        "record_of",
        lambda *given: tuple([one._replace(tag=wrong(one.tag)) if n else one for n, one in enumerate(right(*given))]),
    )
    batch = [chunk("c1"), chunk("c2")]
    for call in (lambda: docs.upsert(batch), lambda: docs.replace("doc", batch), lambda: docs.load(batch)):
        with pytest.raises(UntaggedWriteError):
            call()
    assert len(adapter.given) == 1


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_written_past_every_scope_passes_it_too(config: Any, wrong: Any) -> None:
    with VectorACL(config) as acl:
        door = hazmat.operate(acl, reason="a copy of one tenant")
        named = acl._named("main")
        adapter = Trusting(named.store.adapter)
        object.__setattr__(named.store, "adapter", adapter)
        assert door.write("acme", [record(GOOD)]) == len(adapter.given) == 1
        with pytest.raises(UntaggedWriteError):
            door.write("acme", [record(GOOD), record(wrong(GOOD._replace(chunk="c2")))])
        assert len(adapter.given) == 1
