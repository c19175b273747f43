"""The verdict over the list of ids: everything that is not exactly passed counts."""

from importlib.metadata import version

import pytest

from vectoracl_conformance.checks import CHECKS
from vectoracl_conformance.verdict import (
    EXCUSABLE,
    GRADES,
    MODES,
    NOT_QUICK,
    OPTIONAL,
    PROVISIONAL,
    REQUIRED,
    Noted,
    judge,
)


def passed(id_, mode, **changed):
    return Noted(id_, mode, "passed", controls=1, attacks=1, **changed)


def everything():
    return [passed(id_, mode) for id_ in REQUIRED for mode in MODES]


def test_the_list_is_the_registry():
    assert set(CHECKS) == set(REQUIRED)
    assert set(PROVISIONAL) <= set(REQUIRED)
    assert {id_ for id_, one in CHECKS.items() if one.optional} == set(OPTIONAL)
    assert all(one.attack and one.breach and one.title for one in CHECKS.values())


def test_all_passed_is_conformant():
    judged = judge(everything())
    assert (judged.verdict, judged.exit_code, judged.evidence) == ("conformant", 0, "E1")


@pytest.mark.parametrize("place", range(2 * len(REQUIRED)))
def test_each_single_check_counts(place):
    for outcome, verdict, code in (
        ("failed", "not conformant", 1),
        ("known deviation", "not conformant", 1),
        ("abstained", "not measured", 2),
        ("not run", "not measured", 2),
        ("skipped", "not measured", 2),
        ("xfailed", "not measured", 2),
        ("", "not measured", 2),
    ):
        notes = everything()
        notes[place].outcome = outcome
        judged = judge(notes)
        assert (judged.verdict, judged.exit_code) == (verdict, code), outcome
        assert judged.evidence is None
    notes = everything()
    del notes[place]
    assert judge(notes).verdict == "not measured"


@pytest.mark.parametrize("change", [{"controls": 0}, {"attacks": 0}])
def test_a_check_that_did_not_reach_its_assertion_is_not_passed(change):
    notes = everything()
    for name, value in change.items():
        setattr(notes[5], name, value)
    judged = judge(notes)
    assert judged.verdict == "not measured"
    assert judged.checks[5].outcome == "not run"


def test_a_declared_deviation_of_a_check_of_versions_is_conformant_and_shown_as_such():
    for id_ in REQUIRED:
        notes = everything()
        note = next(one for one in notes if one.id == id_)
        note.outcome = "known deviation"
        judged = judge(notes, known=[id_])
        if id_ in EXCUSABLE:
            assert (judged.verdict, judged.exit_code) == ("conformant with a declared deviation", 0)
        else:
            assert (judged.verdict, judged.exit_code) == ("not conformant", 1)
        assert judge(notes).verdict == "not conformant"  # a worker reports what was not declared
        note.outcome = "failed"
        assert judge(notes, known=[id_]).verdict == "not conformant"


def test_isolation_cannot_be_excused():
    assert {"R17", "W12"} == EXCUSABLE
    assert set(PROVISIONAL) >= EXCUSABLE


def test_a_check_is_provisional_for_one_release():
    here = tuple(map(int, version("vectoracl-conformance").split(".")[:2]))
    assert all(tuple(map(int, until.split("."))) > here for until in PROVISIONAL.values())


def test_unsupported_only_where_a_capability_may_be_absent_and_refused():
    for id_ in REQUIRED:
        notes = [one for one in everything() if one.id != id_]
        notes += [Noted(id_, mode, "unsupported, verified", attacks=1) for mode in MODES]
        assert judge(notes).verdict == ("conformant" if id_ in OPTIONAL else "not conformant")
    notes = [one for one in everything() if one.id != "R13"]
    assert judge([*notes, *(Noted("R13", mode, "unsupported, verified") for mode in MODES)]).verdict == "not measured"


@pytest.mark.parametrize(
    "extra",
    [
        passed("R1", "sync"),  # told twice: the second telling could hide the first
        passed("R99", "sync"),
        passed("R1", "both"),
    ],
)
def test_what_is_doubled_or_unknown_spoils_the_run(extra):
    assert judge([*everything(), extra]).verdict == "not measured"


def test_a_second_telling_does_not_replace_a_failure():
    notes = everything()
    notes[0].outcome = "failed"
    assert judge([*notes, passed(notes[0].id, notes[0].mode)]).verdict == "not conformant"


def test_evidence_is_the_highest_with_all_below_it():
    full = dict.fromkeys(GRADES, "passed")
    assert judge(everything(), full).evidence == "E3"
    for missing in ("E2v", "E2c", "E2s"):
        for state in ("not run", "abstained"):
            judged = judge(everything(), {**full, missing: state})
            assert (judged.verdict, judged.evidence) == ("conformant", "E1")
    assert judge(everything(), {**full, "E3": "abstained"}).evidence == "E2"
    for grade in GRADES[1:]:
        assert judge(everything(), {**full, grade: "failed"}).verdict == "not conformant"
    assert judge([], full).evidence is None


def test_quick_leaves_out_what_it_names_and_never_certifies():
    notes = [one for one in everything() if one.id not in NOT_QUICK]
    judged = judge(notes, left_out=NOT_QUICK)
    assert (judged.verdict, judged.exit_code, judged.conformant) == ("nothing certified", 3, False)
    assert judge(notes).verdict == "not measured"
    assert judge(notes[1:], left_out=NOT_QUICK).verdict == "not measured"
    notes[0].outcome = "failed"
    assert judge(notes, left_out=NOT_QUICK).exit_code == 1
