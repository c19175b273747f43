"""Scopes: the rows that a principal may touch, as pairs of a partition and a predicate. There is no "no filter"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vectoracl.errors import InvalidInputError
from vectoracl.filters.predicate import Never, Predicate, check_predicate, conjunction, disjunction
from vectoracl.model.identifiers import check_tenant


@dataclass(frozen=True, slots=True)
class Grant:
    """The rows of one partition that match a predicate. It has no meaning outside its partition.

    Attributes:
        partition: A tenant's id.
        predicate: The condition on the rows of that tenant.
    """

    partition: str
    predicate: Predicate

    def __post_init__(self) -> None:
        object.__setattr__(self, "partition", check_tenant(self.partition))
        check_predicate(self.predicate, "predicate")


@dataclass(frozen=True, slots=True)
class Scope:
    """The grants of a decision.

    Attributes:
        grants: At most one grant per partition, in the order in which results are merged. Without grants, nothing may
            be touched.
    """

    grants: tuple[Grant, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.grants, tuple) or not all(type(one) is Grant for one in self.grants):
            raise InvalidInputError("The grants of a scope must be a tuple of Grant.", field="scope")
        partitions = [one.partition for one in self.grants]
        if len(set(partitions)) != len(partitions):
            raise InvalidInputError(
                "A scope may name a partition only once; use Scope.of to join grants.", field="scope"
            )

    @classmethod
    def of(cls, grants: Iterable[Grant]) -> Scope:
        """Return the union of *grants*.

        Args:
            grants: Any number of grants. Those of one partition are joined by "or"; those that match nothing are
                dropped.

        Returns:
            The scope.
        """
        by_partition: dict[str, list[Predicate]] = {}
        for one in grants:
            by_partition.setdefault(one.partition, []).append(one.predicate)
        joined = (Grant(partition, disjunction(parts)) for partition, parts in by_partition.items())
        return cls(tuple(one for one in joined if not isinstance(one.predicate, Never)))

    def narrowed(self, where: Predicate) -> Scope:
        """Return the part of this scope that also matches *where*; it can only shrink.

        Args:
            where: A further condition on every row.

        Returns:
            The narrowed scope.
        """
        return Scope.of(Grant(one.partition, conjunction((one.predicate, where))) for one in self.grants)

    @property
    def empty(self) -> bool:
        """Whether nothing may be touched; such a scope never reaches a store."""
        return not self.grants

    @property
    def partitions(self) -> tuple[str, ...]:
        """The partitions, in merge order."""
        return tuple(one.partition for one in self.grants)


NOTHING = Scope()
