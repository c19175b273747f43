"""Heads: for each document, a point that names the published version and the replacement in progress. Pure.

Qdrant has no transactions, and the condition of a write can only refer to the point that is written. So everything that
must be decided once is decided on one point per document, its head, which exists from the first replacement on:

- A replacement claims the head, on the condition that the head is as it was read. It commits with a write that requires
  its own claim and the same published version. A later claim overwrites an earlier one, and a commit changes the
  version, so of several concurrent replacements only one commits.
- The claim records whether the replacement may not take every chunk (`narrowed`). An upsert that meets such a claim
  removes it.

A head has no vector and no text. Its group does not belong to a tenant, so no search, scroll or count of a tenant
reaches it; the tenant is a condition next to the group. The head stays when its document is deleted, so that remains of
older versions can always be recognised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from qdrant_client import models

from vectoracl_qdrant.compile import QdrantCompiler
from vectoracl_qdrant.compile_predicate import Condition, keyword, numeric
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.names import HEADS, NO_VERSION, head_id, named
from vectoracl_qdrant.requests import Operation, Scroll

_REMEMBERED = 32
"""The number of commits that a head remembers; a slower writer does not learn whether its commit succeeded."""
_ABSENT = -1
_NARROWED = "n:"


class Head(NamedTuple):
    """The published version of a document, by generation and name; who claims it; the commits before, newest last.

    The generation is below 0 while the document's first replacement is under way and there was nothing before.
    """

    generation: int = _ABSENT
    version: str = NO_VERSION
    intent: str = ""
    past: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[int, str]:
        """The generation and version in which a chunk that is added is written."""
        return max(self.generation, 0), self.version

    @property
    def contended(self) -> bool:
        """Whether a replacement has claimed it that is not committed."""
        return self.intent not in ("", self.version)

    @property
    def narrowed(self) -> bool:
        """Whether the replacement that has claimed it may not take every chunk."""
        return self.intent.startswith(_NARROWED)

    def shows(self, generation: int, version: str) -> bool:
        """Return whether a point of *generation* and *version* is of the published version."""
        if named(version) or named(self.version):
            return (generation, version) == self.place
        return generation == self.place[0]

    def next(self, version: str, generation: int, *, narrowed: bool = False) -> Head:
        """Return the head that a replacement with *version* in *generation* commits, with the claim that it makes."""
        intent = _NARROWED + version if narrowed else version
        return Head(generation, version, intent, (*self.past, _entry(generation, version))[-_REMEMBERED:])

    def committed(self, new: Head) -> bool | None:
        """Return whether *new* was committed; None where that is too long ago to be known."""
        if new.past[-1] in self.past:
            return True
        return None if self.generation - new.generation >= _REMEMBERED else False


def _entry(generation: int, version: str) -> str:
    return f"{generation}:{version}"


class Heads:
    """Compiles what is read and written of heads in one configured collection."""

    def __init__(self, config: QdrantConfig, compiled: QdrantCompiler) -> None:
        self._config = config
        self._keys = config.payload
        self._compile = compiled

    def _where(self, partition: str, documents: Iterable[str], *conditions: Condition) -> models.Filter:
        ids = sorted(head_id(partition, one) for one in documents)
        return models.Filter(must=[*self.of(partition), models.HasIdCondition(has_id=list(ids)), *conditions])

    def of(self, partition: str) -> list[models.FieldCondition]:
        """Return that the point is the head of a document of *partition*."""
        return [
            models.FieldCondition(key=self._keys.tenant, match=models.MatchValue(value=HEADS)),
            models.FieldCondition(key=self._keys.document, match=models.MatchValue(value=partition)),
        ]

    def everything(self, partition: str) -> models.Filter:
        """Return the filter of all that is held of *partition*: its chunks, and the heads of its documents.

        For operators: what moves or removes a tenant.
        """
        rows = self._compile.rows(partition)
        assert rows is not None
        return models.Filter(should=[rows, models.Filter(must=[*self.of(partition)])])

    def _at(self, head: Head) -> list[Condition]:
        keys = self._keys
        version = keyword(keys.version, head.version)
        assert not isinstance(version, bool)
        return [numeric(keys.generation, gte=head.generation, lte=head.generation), version]

    def read(self, partition: str, documents: Iterable[str]) -> Scroll:
        """Compile the first page of the heads of *documents*."""
        keys = self._keys
        payload = (keys.generation, keys.version, keys.docgen, keys.present)
        return Scroll(partition, self._where(partition, documents), self._config.page, payload)

    def decode(self, point: models.Record) -> Head:
        """Return *point* as a head."""
        keys, payload = self._keys, point.payload or {}
        return Head(
            int(payload[keys.generation]),
            payload[keys.version],
            payload[keys.docgen],
            tuple(payload.get(keys.present) or ()),
        )

    def claim(self, partition: str, document: str, base: Head, intent: str) -> Operation:
        """Return the step that claims *document* for *intent*, if its head is still *base*, or does not exist."""
        keys = self._keys
        payload = {
            keys.tenant: HEADS,
            keys.document: partition,
            keys.generation: base.generation,
            keys.version: base.version,
            keys.docgen: intent,
            keys.present: list(base.past),
        }
        point = models.PointStruct(id=head_id(partition, document), vector={}, payload=payload)
        return self._compile.put(partition, [point], models.Filter(must=[*self.of(partition), *self._at(base)]))

    def commit(self, partition: str, document: str, base: Head, new: Head) -> Operation:
        """Return the step that publishes *new*, if the head is *base* and the claim is that of *new*."""
        keys = self._keys
        claimed = keyword(keys.docgen, new.intent)
        assert not isinstance(claimed, bool)
        payload: dict[str, object] = {
            keys.generation: new.generation,
            keys.version: new.version,
            keys.present: list(new.past),
        }
        if new.narrowed:
            payload[keys.docgen] = new.version
        return self._set(partition, payload, self._where(partition, [document], *self._at(base), claimed))

    def release(self, partition: str, document: str, intent: str) -> Operation:
        """Return the step that ends the claim of *intent*."""
        claimed = keyword(self._keys.docgen, intent)
        assert not isinstance(claimed, bool)
        return self._set(partition, {self._keys.docgen: ""}, self._where(partition, [document], claimed))

    def reset(self, partition: str, generations: Mapping[str, int]) -> list[Operation]:
        """Return the steps that set existing heads to the generations of a copy."""
        keys = self._keys
        documents: dict[int, list[str]] = {}
        for document, generation in generations.items():
            documents.setdefault(generation, []).append(document)
        return [
            self._set(
                partition,
                {keys.generation: generation, keys.version: NO_VERSION, keys.docgen: "", keys.present: []},
                self._where(partition, some),
            )
            for generation, some in sorted(documents.items())
        ]

    def _set(self, partition: str, payload: dict[str, object], where: models.Filter) -> Operation:
        change = models.SetPayload(payload=payload, filter=where, shard_key=self._compile.shard(partition))
        return models.SetPayloadOperation(set_payload=change)
