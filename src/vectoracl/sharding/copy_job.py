"""Copies tenants between two stores in shards of key ranges.

The plan refuses what `vectoracl.copying` refuses. A shard reads a range of the source page by page, looks up the same
keys in the target, and writes what is missing there; then it compares the range in both stores. It never writes over a
row that differs, nor next to a row that the source does not have, but refuses. So a shard that is repeated, or run by
two workers at once, changes nothing that is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from vectoracl.adapter_api.contract import Progress
from vectoracl.adapter_api.operations import Position
from vectoracl.copying.compare import differing, key_of, rows, within
from vectoracl.copying.planning import PAGE, Move, Planner, Side
from vectoracl.copying.writing import Writer
from vectoracl.errors import RefusedError
from vectoracl.model.records import Hit
from vectoracl.sharding import ranges
from vectoracl.sharding.job import Job, Tally, nothing
from vectoracl.sharding.journal import Journal
from vectoracl.sharding.results import Census, Compared
from vectoracl.sharding.shards import KeyRange, Plan, Shard, digest_of, planned
from vectoracl.sharding.stores import store_key


class CopyJob(Job):
    """A copy of tenants in shards. See `vectoracl.copying.copy.Copy` for what an exact copy requires.

    Rows of the target are never deleted. Every worker needs the operator's access to both stores.

    Args:
        source: The configuration to copy from.
        target: The configuration to copy to.
        reason: A sentence of at least three words, recorded with each read and write.
        tenants: The tenants; None means all that the source's adapters list.
        named: Whether a person chose each of *tenants*, so that ids which look alike are intended.
        batch: The maximum number of rows per request.
        different_stores: Override the check that both sides are different stores.
        reembed: Make the vectors again from the texts, with the target's embedder.
    """

    kind = "copy"

    def __init__(
        self,
        source: Side,
        target: Side,
        *,
        reason: str,
        tenants: Sequence[str] | None = None,
        named: bool = False,
        batch: int = PAGE,
        different_stores: bool = False,
        reembed: bool = False,
    ) -> None:
        self._source = source
        self._target = target
        self._tenants = None if tenants is None else sorted(set(tenants))
        self._named = named
        self._batch = batch
        self._different = different_stores
        self._reembed = reembed
        self._writer = Writer(batch, reembed=reembed)
        self._planner = Planner(
            source,
            target,
            reason=reason,
            begun=lambda _: None,
            progress=nothing,
            batch=batch,
            different_stores=different_stores,
            reembed=reembed,
        )

    @property
    def options(self) -> Mapping[str, Any]:
        """The tenants, and how they are copied."""
        return {
            "tenants": None if self._tenants is None else digest_of(self._tenants),
            "different_stores": self._different,
            "reembed": self._reembed,
        }

    def _planned(self, count: int, progress: Progress) -> Plan:
        progress("planning", 0, None)
        plan = self._planner.plan(self._tenants, named=self._named, continuing=True)
        tenants = [
            ranges.Tenant.of(one.source.store.name, one.tenant, one.rows, partial(one.source.keys, one.tenant))
            for one in plan.moves
        ]
        stores = {f"from/{one}": store_key(self._source.acl, one) for one in {m.source.store.name for m in plan.moves}}
        stores |= {f"to/{one}": store_key(self._target.acl, one) for one in {m.target.store.name for m in plan.moves}}
        hands = ranges.dealt_evenly(tenants, count, progress)
        return planned(
            [
                Shard(job="copy", index=n, of=count, options=dict(self.options), stores=stores, ranges=tuple(hand))
                for n, hand in enumerate(hands)
            ],
            plan.notes,
        )

    def _check_stores(self, shard: Shard) -> None:
        for tenant in sorted({one.tenant for one in shard.ranges}):
            if self._tenants is not None and tenant not in self._tenants:
                raise RefusedError(f"The shard names the tenant {tenant!a}, which is not copied.", field="shard")
        for name in sorted({self._source.store_of(one.tenant) for one in shard.ranges}):
            self._check_store(shard, f"from/{name}", store_key(self._source.acl, name))
        for name in sorted({self._target.store_of(one.tenant) for one in shard.ranges}):
            self._check_store(shard, f"to/{name}", store_key(self._target.acl, name))
        for one in shard.ranges:
            if self._source.store_of(one.tenant) != one.store:
                raise RefusedError(
                    f"The shard reads {one.tenant!a} in {one.store!r}, and this configuration has it in "
                    f"{self._source.store_of(one.tenant)!r}. Give every worker the same configuration.",
                    field="shard",
                )

    def _run(self, shard: Shard, tally: Tally, journal: Journal | None, progress: Progress) -> None:
        del journal
        whole = sum(one.rows or 0 for one in shard.ranges)
        moves = {one.tenant: self._move(one.tenant) for one in shard.ranges}
        for one in shard.ranges:
            self._bring(moves[one.tenant], one, tally, partial(_shown, progress, "copying", whole))
        compared = 0
        for one in shard.ranges:
            comparison = self._planner.settled(moves[one.tenant], after=one.begin, upto=one.end)
            compared += comparison.source_rows
            progress("verifying", compared, max(whole, compared))
            census = Census(
                store=one.store,
                tenant=one.tenant,
                rows=comparison.source_rows,
                digest=comparison.source_digest,
                comparison=Compared.of(comparison),
            )
            tally.census.append(census)

    def _move(self, tenant: str) -> Move:
        source, target, _ = self._planner.sides(tenant)
        return Move(tenant, source, target, None, "copy")

    def _bring(self, move: Move, part: KeyRange, tally: Tally, seen: Any) -> None:
        """Write the rows of *part* that the target lacks. Raises: RefusedError at a row that is not the source's."""
        read = within(partial(move.source.read, move.tenant), part.end)
        after = part.begin
        while True:
            page = read(self._batch, after)
            last = key_of(page.hits[-1]) if page.more and page.hits else part.end
            missing = self._missing(move, page.hits, after, last)
            tally.present += len(page.hits) - len(missing)
            for batch in self._writer.written(move, missing):
                tally.written += len(batch)
                seen(tally)
            seen(tally)
            if not page.more or not page.hits:
                return
            after = last

    def _missing(self, move: Move, hits: Sequence[Hit], after: Position | None, last: Position | None) -> list[Hit]:
        """Return those of *hits* that are to be written: all that the target lacks, with `reembed` also those there."""
        source = {key_of(hit): hit for hit in hits}
        present = within(partial(move.target.read, move.tenant), last)
        for theirs in rows(present, self._batch, "The target", after):
            key = key_of(theirs)
            mine = source.get(key)
            parts = ["the source does not have it"] if mine is None else []
            if mine is not None:
                metric = move.source.store.capabilities.metric
                parts, _ = differing(mine, theirs, metric, self._planner.tolerance(move))
            if parts:
                raise RefusedError(
                    f"The target holds another row of {move.tenant!a} than the source: the chunk {key.chunk!r} of the "
                    f"document {key.document!r} ({', '.join(parts)}). It was left as it is. If it was written during "
                    "the copy, stop the writers and copy this tenant with `vectoracl copy --tenant ID --overwrite`.",
                    field="tenant",
                )
            if not self._reembed:
                del source[key]
        return list(source.values())


def _shown(progress: Progress, what: str, whole: int, tally: Tally) -> None:
    done = tally.written + tally.present
    progress(what, done, max(whole, done))
