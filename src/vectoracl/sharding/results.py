"""The results of shards, as plain data, and their sum, which does not depend on the number of shards."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from vectoracl.copying.compare import Comparison, added, first
from vectoracl.errors import InvalidInputError, RefusedError
from vectoracl.sharding.shards import Count, Json, Kind, Plan, ShardModel, parsed

_Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


class Compared(ShardModel):
    """A comparison of source and target (`vectoracl.copying.compare.Comparison`) as plain data.

    `vector_difference` is None if vectors cannot be compared, since their lengths differ.
    """

    tenant: str
    source_rows: Count = 0
    target_rows: Count = 0
    missing: Count = 0
    extra: Count = 0
    different: Count = 0
    vector_difference: Annotated[float, Field(ge=0)] | None = 0.0
    source_digest: _Digest = ""
    target_digest: _Digest = ""
    examples: tuple[str, ...] = ()

    @classmethod
    def of(cls, one: Comparison) -> Compared:
        """Return *one* as plain data."""
        parts = {name: getattr(one, name) for name in one.__slots__}
        difference = one.vector_difference if math.isfinite(one.vector_difference) else None
        return cls(**{**parts, "vector_difference": difference, "examples": tuple(one.examples)})

    @property
    def comparison(self) -> Comparison:
        """The comparison."""
        difference = math.inf if self.vector_difference is None else self.vector_difference
        parts = {**self.model_dump(), "vector_difference": difference, "examples": list(self.examples)}
        return Comparison(**parts)

    def plus(self, other: Compared) -> Compared:
        """Return the comparison of the rows of both."""
        whole = self.comparison
        whole.add(other.comparison)
        return Compared.of(whole)


class Census(ShardModel):
    """The rows of one tenant in one store that a shard read.

    Attributes:
        store: The store; of a copy, the source.
        tenant: The tenant.
        rows: The number of rows that were read there.
        digest: Their digest (`RowsDigest`), the same for the same rows however they were divided; "" for a load.
        comparison: Of a copy: the comparison of source and target.
        faults: Of a check: the number of rows for each reason why the store would not take them today.
        examples: Some of the rows with faults.
    """

    store: str
    tenant: str
    rows: Count
    digest: _Digest = ""
    comparison: Compared | None = None
    faults: dict[str, Count] = Field(default_factory=dict)
    examples: tuple[str, ...] = ()

    def plus(self, other: Census) -> Census:
        """Return the census of both."""
        faults = {name: self.faults.get(name, 0) + other.faults.get(name, 0) for name in self.faults | other.faults}
        comparison = self.comparison
        if comparison is not None and other.comparison is not None:
            comparison = comparison.plus(other.comparison)
        return self.model_copy(
            update={
                "rows": self.rows + other.rows,
                "digest": added(self.digest, other.digest) if self.digest or other.digest else "",
                "comparison": comparison,
                "faults": dict(sorted(faults.items())),
                "examples": tuple(first(self.examples, other.examples)),
            }
        )

    @property
    def good(self) -> bool:
        """Whether both sides agree, and no row has a fault."""
        return not self.faults and (self.comparison is None or self.comparison.comparison.same)


class Result(ShardModel):
    """The result of one shard.

    `written` and `changed` are the numbers of rows that the call which finished it wrote, as new ones and over older
    ones; `present` is the number of rows that were there already, also from an attempt that was interrupted. `kept` is
    whether the journal had the result from an earlier call, so that nothing was done by this one.
    """

    vectoracl_result: Literal[1] = 1
    job: Kind
    plan: str
    shard: str
    index: Count
    written: Count = 0
    present: Count = 0
    changed: Count = 0
    census: tuple[Census, ...] = ()
    kept: bool = False

    @property
    def good(self) -> bool:
        """Whether every row agrees and has no fault."""
        return all(one.good for one in self.census)

    def data(self) -> Json:
        """Return the result as plain data."""
        return self.model_dump(mode="json")

    @classmethod
    def parse(cls, given: object) -> Result:
        """Return *given*, plain data or its JSON, as a result. Raises: InvalidInputError."""
        return given if isinstance(given, Result) else parsed(cls, given, "the result of a shard", "results")


class Total(ShardModel):
    """The sum of the results of all shards of a plan; `notes` are for people."""

    job: Kind
    plan: str
    shards: int
    written: int
    present: int
    changed: int
    census: tuple[Census, ...]
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether every row agrees and has no fault."""
        return all(one.good for one in self.census)

    @property
    def rows(self) -> int:
        """The number of rows that were read."""
        return sum(one.rows for one in self.census)

    def data(self) -> Json:
        """Return the sum as plain data."""
        return self.model_dump(mode="json")


def by_tenant(census: Iterable[Census]) -> tuple[Census, ...]:
    """Return one census for each tenant and store, in their order."""
    found: dict[tuple[str, str], Census] = {}
    for one in census:
        key = one.store, one.tenant
        found[key] = found[key].plus(one) if key in found else one
    return tuple(found[key] for key in sorted(found))


def total(plan: Plan, results: Iterable[object]) -> Total:
    """Return the sum of *results*; of two results of one shard the last one counts.

    Raises:
        InvalidInputError: A result is not one of this plan.
        RefusedError: The results of some shards are missing.
    """
    found: dict[int, Result] = {}
    for given in results:
        result = Result.parse(given)
        if result.index >= len(plan) or result.shard != plan.parts[result.index].digest or result.job != plan.job:
            raise InvalidInputError("A result belongs to another plan. Pass the results of this plan.", field="results")
        found[result.index] = result
    missing = [one.name for one in plan.parts if one.index not in found]
    if missing:
        more = f" and {len(missing) - 10:,} more" if len(missing) > 10 else ""
        raise RefusedError(
            f"{len(missing):,} of {len(plan):,} shards are not finished: {', '.join(missing[:10])}{more}. Run them, "
            "then ask for the sum again.",
            field="results",
        )
    ordered = [found[index] for index in sorted(found)]
    return Total(
        job=plan.job,
        plan=plan.digest,
        shards=len(plan),
        written=sum(one.written for one in ordered),
        present=sum(one.present for one in ordered),
        changed=sum(one.changed for one in ordered),
        census=by_tenant(one for result in ordered for one in result.census),
    )
