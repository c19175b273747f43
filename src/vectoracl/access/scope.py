"""What a principal may touch now: nothing, or pairs of a partition and a predicate. Never "no filter"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vectoracl.errors import InvalidInputError
from vectoracl.filters.predicate import Never, Predicate, check_predicate, conjunction, disjunction
from vectoracl.model.identifiers import check_tenant


@dataclass(frozen=True, slots=True)
class Grant:
    """Rows of one partition (a tenant's id) that match *predicate*. Outside of its partition it means nothing."""

    partition: str
    predicate: Predicate

    def __post_init__(self) -> None:
        object.__setattr__(self, "partition", check_tenant(self.partition))
        check_predicate(self.predicate, "predicate")


@dataclass(frozen=True, slots=True)
class Scope:
    """The grants, at most one for each partition, in the order in which they are merged. Empty: nothing."""

    grants: tuple[Grant, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.grants, tuple) or not all(type(one) is Grant for one in self.grants):
            raise InvalidInputError("A scope is made of grants; there is no other form.", field="scope")
        partitions = [one.partition for one in self.grants]
        if len(set(partitions)) != len(partitions):
            raise InvalidInputError("A scope names a partition once; use Scope.of to join grants.", field="scope")

    @classmethod
    def of(cls, grants: Iterable[Grant]) -> Scope:
        """Join *grants*: those of one partition are or-ed, those that match nothing are dropped."""
        by_partition: dict[str, list[Predicate]] = {}
        for one in grants:
            by_partition.setdefault(one.partition, []).append(one.predicate)
        joined = (Grant(partition, disjunction(parts)) for partition, parts in by_partition.items())
        return cls(tuple(one for one in joined if not isinstance(one.predicate, Never)))

    def narrowed(self, where: Predicate) -> Scope:
        """Return the part of this scope that also matches *where*. It can only shrink."""
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
