"""E2c: the own canary first, no foreign one anywhere, and no more rows than the answer needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vectoracl_conformance.evidence.calls import ScopedCall
from vectoracl_conformance.evidence.canaries import forms, grade_canaries
from vectoracl_conformance.evidence.exchanges import Decoded, Exchange
from vectoracl_conformance.evidence.outcome import Graded
from vectoracl_conformance.evidence.sessions import Mark, Place, Recording, Session, Window

RECORDING = Recording((Session(1, 0.0, 1.0, ()),), 1)
WINDOW = Window(Mark({1: Place(0, 100, 0)}), Mark({1: Place(0, 200, 0)}))
QUESTION = ScopedCall(
    "a", WINDOW, 2, frozenset({"own-1", "own-2", b"\0\1own"}), frozenset({"foe-1", 'foe"2', b"\0\2foe"})
)


def reply(start: int, rows: int | None, *values: bytes, complete: bool = True) -> Exchange:
    return Exchange(1, start, start, "SELECT", "request", values, rows, complete=complete)


OWN = reply(150, 2, b"the own-1 text")


def graded(*exchanges: Exchange, recording: Recording = RECORDING, doubts: tuple[str, ...] = ()) -> Graded:
    return grade_canaries(recording, [Decoded(exchanges, doubts)], [QUESTION], constant=1)


@pytest.mark.parametrize(
    ("exchanges", "outcome"),
    [
        ([OWN], "passed"),
        ([reply(10, 1, b"version"), OWN, reply(300, 0)], "passed"),
        ([OWN, reply(160, 1, b"t")], "passed"),
        ([reply(150, 2, b"\0\1own")], "passed"),
        ([reply(150, 3, b"own-1")], "passed"),
        ([reply(150, 4, b"own-1")], "failed"),
        ([OWN, reply(160, 4)], "failed"),
        ([OWN, reply(160, 1, b"the foe-1 text")], "failed"),
        ([reply(150, 2, b"own-1", b"\0\2foe")], "failed"),
        ([reply(150, 2, b"own-1", b'say foe\\"2')], "failed"),
        ([reply(150, 2, b"foe-1")], "failed"),
        ([reply(10, 600, b"foe-1"), OWN], "failed"),
        ([reply(10, 1, b"own-2"), OWN], "failed"),
        ([OWN, reply(250, 1, b"foe-1")], "failed"),
        ([reply(150, 2, b"unreadable")], "abstained"),
        ([OWN, reply(160, 2, b"unreadable")], "abstained"),
        ([reply(150, 0)], "abstained"),
        ([reply(150, None, b"own-1")], "abstained"),
        ([replace(OWN, complete=False)], "abstained"),
        ([], "abstained"),
    ],
)
def test_the_rules(exchanges: list[Exchange], outcome: str) -> None:
    assert graded(*exchanges).outcome == outcome


def test_doubts_abstain_and_do_not_hide_a_breach() -> None:
    assert graded(OWN, doubts=("cut off",)).outcome == "abstained"
    assert graded(OWN, recording=replace(RECORDING, served=2)).outcome == "abstained"
    assert graded(OWN, recording=replace(RECORDING, served=None)).outcome == "abstained"
    assert graded(OWN, recording=replace(RECORDING, sessions=(replace(RECORDING.sessions[0], dropped=1),))).outcome == (
        "abstained"
    )
    assert graded(OWN, reply(160, 1, b"foe-1"), recording=replace(RECORDING, served=2)).outcome == "failed"


def test_no_question_and_overlapping_ones() -> None:
    decoded = [Decoded((OWN,))]
    assert grade_canaries(RECORDING, decoded, []).outcome == "abstained"
    assert grade_canaries(RECORDING, decoded, [QUESTION, QUESTION]).outcome == "abstained"


def test_what_is_mine_is_foreign_to_the_next() -> None:
    later = Window(WINDOW.until, Mark({1: Place(0, 300, 0)}))
    theirs = ScopedCall("b", later, 2, QUESTION.foreign, QUESTION.own)
    both = [QUESTION, theirs]
    right = [Decoded((OWN, reply(250, 1, b"foe-1")))]
    assert grade_canaries(RECORDING, right, both).outcome == "passed"
    cached = [Decoded((OWN, reply(250, 2, b"foe-1", b"own-1")))]
    assert grade_canaries(RECORDING, cached, both).outcome == "failed"


def test_forms() -> None:
    assert set(forms('é"')) == {'é"'.encode(), b'\\u00e9\\"'}
    assert forms(b"\0") == (b"\0",)
