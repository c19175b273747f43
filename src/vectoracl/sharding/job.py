"""The base of the jobs that are run in shards: planned once, run anywhere, added up at the end.

An engine such as Ray, or a batch system, maps `run_shard` over `Plan.shards`. A shard is checked before anything is
done: it is whole, belongs to this kind of job with these options, to the stores that this configuration reaches, and,
with a journal, to the plan in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from vectoracl.adapter_api.contract import Progress
from vectoracl.errors import InvalidInputError, RefusedError, StoreError
from vectoracl.sharding.journal import Journal, opened
from vectoracl.sharding.results import Census, Result, Total, by_tenant, total
from vectoracl.sharding.shards import MAX_SHARDS, Json, Kind, Plan, Shard, StoreKey, same_store


def nothing(_what: str, _done: int, _total: int | None) -> None:
    """Show no progress."""


class Tally:
    """The result of a shard, while it is made."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.written = self.present = self.changed = 0
        self.census: list[Census] = []

    def result(self) -> Result:
        """Return the result of the finished shard."""
        shard = self._shard
        return Result(
            job=shard.job,
            plan=shard.plan,
            shard=shard.digest,
            index=shard.index,
            written=self.written,
            present=self.present,
            changed=self.changed,
            census=by_tenant(self.census),
        )


class BaseJob(ABC):
    """The base of sync and async jobs: options, and the checks of a shard."""

    kind: ClassVar[Kind]

    @property
    @abstractmethod
    def options(self) -> Mapping[str, Any]:
        """The options of the job that change its result, as plain data; a worker's have to be the same."""

    def _made(self, journal: Journal | None, count: int) -> Plan | None:
        """Return the plan that *journal* holds already. Raises: RefusedError if it is of another job."""
        _check_count(count)
        plan = None if journal is None else journal.plan()
        if plan is None:
            return None
        self._check_options(plan.parts[0])
        if len(plan) != count:
            raise RefusedError(
                f"The journal {str(journal and journal.folder)!r} holds a plan of {len(plan):,} shards, not of "
                f"{count:,}. Pass that number, or another folder to plan again.",
                field="count",
            )
        return plan

    def _parsed(self, given: object, journal: Journal | None) -> Shard:
        """Return *given* as a shard of this job. Raises: InvalidInputError, RefusedError."""
        shard = Shard.parse(given)
        self._check_options(shard)
        if journal is not None:
            journal.admit(shard)
        return shard

    def _check_options(self, shard: Shard) -> None:
        if shard.job != self.kind:
            raise RefusedError(f"The shard is one of the job {shard.job!r}, not of {self.kind!r}.", field="shard")
        mine = dict(self.options)
        differences = sorted(name for name in mine | shard.options if mine.get(name) != shard.options.get(name))
        if differences:
            raise RefusedError(
                f"The shard was planned with other options ({', '.join(differences)[:200]}). Make the job as the one "
                "that planned it, or plan again.",
                field="shard",
            )

    def _check_store(self, shard: Shard, name: str, own: StoreKey) -> None:
        planned_for = shard.stores.get(name)
        if planned_for is None or not same_store(planned_for, own):
            raise RefusedError(
                f"The shard was planned for another store than {name!r} of this configuration, or its dimension, "
                "metric, metadata fields or embedder differ; or the server was restarted or restored since, so that it "
                "is not certain what it holds. Give every worker the configuration that planned it, or plan again.",
                field="shard",
            )

    def finish(self, plan: Plan | Json, results: Iterable[object]) -> Total:
        """Return the sum of the results of all shards; it is the same for every number of shards.

        Args:
            plan: The plan.
            results: The results of its shards in any order; of a shard that was run twice, the last one counts.

        Returns:
            The sum.

        Raises:
            RefusedError: The results of some shards are missing; the message names them.
            RefusedError: The plan is one of another job, or was made with other options.
            InvalidInputError: A result is not one of this plan.
        """
        parsed = Plan.parse(plan)
        self._check_options(parsed.parts[0])
        return total(parsed, results)


class Job(BaseJob):
    """A job that is run in shards."""

    def plan_shards(
        self, count: int, *, journal: Journal | str | Path | None = None, progress: Progress | None = None
    ) -> Plan:
        """Divide the job into *count* shards; nothing is written.

        More shards than workers even out their loads, and less work is lost with a worker. Some may be empty.

        Args:
            count: The number of shards, from 1 to 100,000.
            journal: A folder that keeps the plan and the results. If it holds the plan of this job, that is returned.
            progress: A callback for progress.

        Returns:
            The plan; `Plan.shards` are plain data.

        Raises:
            RefusedError: The job cannot be done, or the journal belongs to another job.
            StoreError: The store failed.
        """
        kept = opened(journal)
        if kept is None:
            return self._made(None, count) or self._planned(count, progress or nothing)
        with kept.planning():
            plan = self._made(kept, count)
            if plan is None:
                plan = self._planned(count, progress or nothing)
                kept.keep(plan)
        return plan

    def run_shard(
        self, shard: Json, *, journal: Journal | str | Path | None = None, progress: Progress | None = None
    ) -> Json:
        """Do the work of one shard. It can be run again after any failure; nothing is doubled.

        Args:
            shard: One of `Plan.shards`, or its JSON.
            journal: The folder that was passed to `plan_shards`. A shard whose result it holds is not run again, and
                its result says `kept`; but one with differences or faults is.
            progress: A callback for progress.

        Returns:
            The result, as plain data.

        Raises:
            RefusedError: The shard does not belong to this job, configuration or plan; nothing was done.
            BusyError: Another worker is running the shard; nothing was done.
            StoreError: The store failed; running the shard again continues.
        """
        kept = opened(journal)
        part = self._parsed(shard, kept)
        if kept is None:
            return self._ran(part, None, progress or nothing).data()
        with kept.claimed(part):
            result = kept.kept(part)
            if result is None:
                result = self._ran(part, kept, progress or nothing)
                kept.finish(part, result)
        return result.data()

    def _ran(self, shard: Shard, journal: Journal | None, progress: Progress) -> Result:
        tally = Tally(shard)
        self._check_stores(shard)
        with noted(shard, tally):
            self._run(shard, tally, journal, progress)
        return tally.result()

    @abstractmethod
    def _planned(self, count: int, progress: Progress) -> Plan:
        """Return the plan."""

    @abstractmethod
    def _check_stores(self, shard: Shard) -> None:
        """Refuse a shard of other stores. Raises: RefusedError, StoreError."""

    @abstractmethod
    def _run(self, shard: Shard, tally: Tally, journal: Journal | None, progress: Progress) -> None:
        """Do the work of *shard* and note it in *tally*."""


@contextmanager
def noted(shard: Shard, tally: Tally) -> Iterator[None]:
    """Attach the progress, and how to continue, to any error, also to Ctrl-C."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, StoreError):
            error.written = max(error.written or 0, tally.written)
        error.add_note(
            f"shard {shard.name}: {tally.written:,} rows were written by this call before it stopped. Run the same "
            "shard again: what is there stays as it is, and nothing is doubled."
        )
        raise


def _check_count(count: object) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_SHARDS:
        raise InvalidInputError(f"The number of shards must be an integer from 1 to {MAX_SHARDS:,}.", field="count")
