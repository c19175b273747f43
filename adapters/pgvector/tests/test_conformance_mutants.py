"""The faults that only PostgreSQL can have: each dies by the check or grade that is named for it."""

from __future__ import annotations

import pytest

from vectoracl_conformance.running.runner import Ask, run
from vectoracl_pgvector.conformance.mutants import MUTANTS


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("server")  # not run, and said so, where no server can be started
def test_every_own_mutant_dies_by_its_check() -> None:
    names = [one.name for one in MUTANTS]
    # One check is enough before them: the whole of them is another test's.
    report = run(Ask("pgvector", ("X5",), seed=9, mutants="quick", jobs=2, only_mutants=names))
    assert [one["name"] for one in report.mutants] == names, report.problem
    alive = [
        (one["name"], one["killed_by"], one["reasons"][:2])
        for one in report.mutants
        if one["expected"] not in one["killed_by"]
    ]
    assert not alive
