"""C1 to C4: generated calls. They are performed by the runner (`generated.run`), next to the reference."""

from __future__ import annotations

from vectoracl_conformance.context.assertions import Assertions
from vectoracl_conformance.context.registry import check

_ELSEWHERE = "generated calls are performed by the runner, not next to the harness"


@check(
    "C1",
    "generated reads",
    attack=(
        "Make reads that cover every pair of arguments of each operation, with every form of the scope: predicates of "
        "the policy, narrowed handles, filters, partitions, tenants of all sizes, numbers on both sides of boundaries."
    ),
    breach="An answer differs from the reference in a row, its order, its score, a field, a count or an error.",
)
async def c1_reads_equal_the_reference(t: Assertions) -> None:
    t.kit_control(ok=False, what=_ELSEWHERE)


@check(
    "C2",
    "generated writes",
    attack="Make writes and deletions that cover every pair of arguments, and read all rows of all tenants after each.",
    breach="A write changes other rows than it should, or not all of them, or its answer differs from the reference.",
)
async def c2_writes_equal_the_reference(t: Assertions) -> None:
    t.kit_control(ok=False, what=_ELSEWHERE)


@check(
    "C3",
    "sequences with failures, and calls in flight",
    attack=(
        "Walk through reads and writes of many principals, with lost connections before and after a request, "
        "cancellations, writes that the store denies, changed rules and up to 64 calls in flight in between; ask again "
        "after each way to write, and with each argument changed."
    ),
    breach=(
        "The call after a failure or next to others is answered wrongly, or a failed write leaves neither the old rows "
        "nor the new ones."
    ),
)
async def c3_sequences_equal_the_reference(t: Assertions) -> None:
    t.kit_control(ok=False, what=_ELSEWHERE)


@check(
    "C4",
    "hostile data",
    attack=(
        "Write ids that differ in case, normalisation, a position or their last character, long texts, deep metadata, "
        "and texts that are patterns or statements elsewhere; read all of it in every way."
    ),
    breach="Data come back changed, cut, merged or under another id, or are run.",
)
async def c4_data_come_back_as_they_were(t: Assertions) -> None:
    t.kit_control(ok=False, what=_ELSEWHERE)
