"""The parts of a long job, as plain data: they travel through a queue, and are checked where they arrive.

A `Shard` holds what one worker does: rows of tenants between two keys (copy, check), or documents by their places
(load, adopt). It names no credentials, no reason and no principal: those are the worker's own. It is bound to what the
rows mean and to the physical stores, and to the plan that it belongs to; a worker refuses a shard that does not match
its own configuration. A digest over everything shows that a shard was damaged or edited. It is not a signature: whoever
can write to the queue can make shards, so a shard can never do more than the job that the worker itself has made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vectoracl.adapter_api.operations import Position
from vectoracl.adapter_api.shares import WHOLE, Share, place_of
from vectoracl.errors import InvalidInputError, without_context

MAX_SHARDS = 100_000
"""The most shards of a plan."""
Kind = Literal["load", "copy", "adopt", "check"]
Json = dict[str, Any]
Count = Annotated[int, Field(ge=0, le=1 << 46)]
"""A number of rows: the sum of those of all shards is still a 64-bit integer."""
_Key = tuple[str, Annotated[int, Field(ge=0, lt=1 << 63)], str]
_M = TypeVar("_M", bound="ShardModel")
__all__ = ["MAX_SHARDS", "WHOLE", "Documents", "KeyRange", "Plan", "Shard", "StoreKey", "place_of", "planned"]


class ShardModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, strict=True, allow_inf_nan=False)


class StoreKey(ShardModel):
    """One store of a plan: digests of the texts that identify it, and a digest of what its rows mean."""

    identity: tuple[str, ...] = Field(min_length=1)
    meaning: str


class KeyRange(ShardModel):
    """The rows of a tenant in a store behind the key `after` up to and with `upto`; None is an end of the tenant."""

    store: str
    tenant: str
    after: _Key | None = None
    upto: _Key | None = None
    rows: Count | None = None

    @property
    def begin(self) -> Position | None:
        """The key before the first row."""
        return None if self.after is None else Position(*self.after)

    @property
    def end(self) -> Position | None:
        """The key of the last row."""
        return None if self.upto is None else Position(*self.upto)


class Documents(ShardModel):
    """The documents of tenants whose place (`place_of`) is at least `low` and below `high`.

    `tenants` are the tenants with their numbers of rows, where the plan has read the source.
    """

    low: Annotated[int, Field(ge=0, lt=WHOLE)]
    high: Annotated[int, Field(gt=0, le=WHOLE)]
    tenants: dict[str, Count]

    @property
    def share(self) -> Share:
        """The same, for an adapter."""
        return Share(self.low, self.high, self.tenants)


class Shard(ShardModel):
    """One part of a plan. See the module."""

    vectoracl_shard: Literal[1] = 1
    job: Kind
    index: Annotated[int, Field(ge=0, lt=MAX_SHARDS)]
    of: Annotated[int, Field(ge=1, le=MAX_SHARDS)]
    options: dict[str, Any]
    stores: dict[str, StoreKey]
    ranges: tuple[KeyRange, ...] = ()
    documents: Documents | None = None
    plan: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The shard for people: "3/8"."""
        return f"{self.index + 1}/{self.of}"

    @property
    def content(self) -> str:
        """The digest of everything but the plan's digest and the shard's."""
        return digest_of(self.model_dump(exclude={"plan", "digest"}))

    def bound(self, plan: str) -> Shard:
        """Return the shard as a part of the plan with the digest *plan*."""
        return self.model_copy(update={"plan": plan, "digest": digest_of([plan, self.content])})

    def data(self) -> Json:
        """Return the shard as plain data."""
        return self.model_dump(mode="json")

    @classmethod
    def parse(cls, given: object) -> Shard:
        """Return *given*, plain data or its JSON, as a shard. Raises: InvalidInputError."""
        shard = given if isinstance(given, Shard) else parsed(cls, given, "a shard", "shard")
        if shard.index >= shard.of or shard.digest != digest_of([shard.plan, shard.content]):
            raise InvalidInputError(
                "The shard is not as it was planned: it was changed on its way. Take it from the plan again.",
                field="shard",
            )
        return shard


@dataclass(frozen=True, slots=True)
class Plan:
    """The shards of one job. `digest` identifies the plan; `notes` are for people."""

    job: Kind
    digest: str
    parts: tuple[Shard, ...]
    notes: tuple[str, ...] = ()

    @property
    def shards(self) -> list[Json]:
        """The shards as plain data, for `run_shard`."""
        return [one.data() for one in self.parts]

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self.parts)

    def data(self) -> Json:
        """Return the plan as plain data."""
        return {
            "vectoracl_plan": 1,
            "job": self.job,
            "digest": self.digest,
            "notes": list(self.notes),
            "shards": self.shards,
        }

    @classmethod
    def parse(cls, given: object) -> Plan:
        """Return *given*, plain data or its JSON, as a plan. Raises: InvalidInputError."""
        if isinstance(given, Plan):
            return given
        read = parsed(_Plan, given, "a plan", "plan")
        plan = planned([Shard.parse(one.model_dump()) for one in read.shards], read.notes)
        if (plan.digest, plan.job) != (read.digest, read.job):
            raise InvalidInputError("The plan was changed after it was made. Plan again.", field="plan")
        return plan


class _Plan(ShardModel):
    vectoracl_plan: Literal[1]
    job: Kind
    digest: str
    notes: tuple[str, ...]
    shards: tuple[Shard, ...] = Field(min_length=1, max_length=MAX_SHARDS)


def planned(shards: Sequence[Shard], notes: Sequence[str] = ()) -> Plan:
    """Return the plan of *shards*, which have their indices. Raises: InvalidInputError if they are not one job's."""
    job = shards[0].job
    whole = [(one.job, one.index, one.of) for one in shards] == [(job, n, len(shards)) for n in range(len(shards))]
    if not whole or any((one.options, one.stores) != (shards[0].options, shards[0].stores) for one in shards):
        raise InvalidInputError("The shards of a plan are not those of one job. Plan again.", field="plan")
    digest = digest_of([job, *(one.content for one in shards)])
    return Plan(job, digest, tuple(one.bound(digest) for one in shards), tuple(notes))


@without_context
def parsed(model: type[_M], given: object, what: str, field: str) -> _M:
    """Return *given*, plain data or JSON, as *model*. Raises: InvalidInputError, which quotes nothing of it."""
    try:
        # Read and written again: JSON that another reader takes may hold numbers of which no digest can be made.
        read = orjson.loads(given if isinstance(given, str | bytes) else orjson.dumps(given))
        return model.model_validate_json(orjson.dumps(read))
    except (TypeError, ValueError) as error:
        where = ""
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = f" ({'.'.join(map(str, first['loc']))[:80] or 'the whole'}: {first['msg'][:200]})"
        raise InvalidInputError(
            f"This is not {what} of this version{where}. Pass it as plan_shards() returned it.", field=field
        ) from None


def digest_of(value: object) -> str:
    """Return a digest of *value*, plain data, whatever the order of its keys."""
    raw = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def same_store(one: StoreKey, other: StoreKey) -> bool:
    """Return whether two keys are of one physical store whose rows mean the same."""
    return one.meaning == other.meaning and not set(one.identity).isdisjoint(other.identity)


def key_of_store(identity: Sequence[str], meaning: Mapping[str, object]) -> StoreKey:
    """Return the key of a store."""
    return StoreKey(identity=tuple(sorted(digest_of(one) for one in identity)), meaning=digest_of(dict(meaning)))
