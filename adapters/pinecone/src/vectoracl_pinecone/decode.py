"""Decodes records to hits. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from vectoracl.adapter_api.chunk_validation import load_metadata
from vectoracl.adapter_api.operations import Include
from vectoracl.errors import ScopeViolationError, StoreError, without_context
from vectoracl.filters.field_types import FieldType
from vectoracl.model.records import Hit, Tag, hit_of
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.names import id_of
from vectoracl_pinecone.requests import Match

ADAPTER = "pinecone"
_ROUNDING = 1e-2


class Decoder:
    """Decodes the records of one configured index."""

    def __init__(self, config: PineconeConfig, fields: Mapping[str, FieldType]) -> None:
        keys = self._keys = config.keys
        self._parts = itemgetter(
            keys.tenant, keys.document, keys.chunk, keys.generation, keys.label, keys.rev, keys.expires, keys.producer,
            keys.path, keys.time, keys.position,
        )  # fmt: skip
        self._metric = config.metric
        self._dates = {name: kind for name, kind in fields.items() if kind is FieldType.DATETIME}

    def ranked(self, matches: Iterable[Match], include: Include) -> list[Hit]:
        """Return *matches* as hits, best first, ties by document and chunk id."""
        hits = [self._hit(match, self.score(match.score), include) for match in matches]
        if hits and not (self._possible(hits[0].score) and self._possible(hits[-1].score)):
            raise StoreError(
                "The index does not rank by the configured metric. Run `vectoracl provision`.",
                code="metric",
                adapter=ADAPTER,
                sent="no",
            )
        if any(one.score <= two.score for one, two in pairwise(hits)):
            hits.sort(key=lambda hit: (-hit.score, hit.tenant, hit.document, hit.id))
        return hits

    def listed(self, matches: Iterable[Match], include: Include) -> list[Hit]:
        """Return *matches* as hits in key order."""
        hits = [self._hit(match, 0.0, include) for match in matches]
        hits.sort(key=lambda hit: (hit.document, hit.tag.generation, hit.id))
        return hits

    def scored(self, scored: Iterable[tuple[float, Match]], include: Include) -> list[Hit]:
        """Return records with scores that are ours as hits, best first, ties by document and chunk id."""
        hits = [self._hit(match, score, include) for score, match in scored]
        hits.sort(key=lambda hit: (-hit.score, hit.document, hit.id))
        return hits

    def text(self, match: Match) -> str:
        """Return the record's text. Raises: as `tag`."""
        self.tag(match)
        text = (match.metadata or {}).get(self._keys.text)
        if not isinstance(text, str):
            raise malformed()
        return text

    def score(self, score: float) -> float:
        """Return Pinecone's score in the core's meaning: its "euclidean" is the square of the L2 distance."""
        return -math.sqrt(max(score, 0.0)) if self._metric == "l2" else score

    def _possible(self, score: float) -> bool:
        """Return whether the metric can have given a score: a cosine is 1 at the most."""
        return self._metric != "cosine" or abs(score) < 1 + _ROUNDING

    @without_context
    def tag(self, match: Match) -> Tag:
        """Return the record's tag.

        Raises: StoreError if it has none; ScopeViolationError if the id does not match the tag, which means that
        another program wrote the record or changed its tag.
        """
        try:
            tenant, document, chunk, generation, label, rev, expires, producer, path, time, position = self._parts(
                match.metadata or {}
            )
            # By position: with names this call costs twice as much, for every hit. Numbers come back as doubles.
            tag = Tag(
                tenant, document, chunk, int(generation), label, int(rev), float(expires), producer, path, float(time),
                int(position),
            )  # fmt: skip
            whole = match.id == id_of(tag)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise malformed() from None
        if not whole:
            raise ScopeViolationError(
                "A record's tag was changed after it was written; the reply was dropped.",
                adapter=ADAPTER,
                rows=1,
            )
        return tag

    def _hit(self, match: Match, score: float, include: Include) -> Hit:
        tag = self.tag(match)
        stored: Mapping[str, Any] = match.metadata or {}
        metadata = stored.get(self._keys.metadata) if "metadata" in include else None
        return hit_of(
            tag,
            score,
            stored.get(self._keys.text) if "text" in include else None,
            None if metadata is None else load_metadata(metadata, self._dates),
            np.asarray(match.values, np.float32) if "vector" in include and match.values else None,
        )


def malformed() -> StoreError:
    """Return the error of a record that vectoracl did not write."""
    return StoreError(
        "A record of the namespace has no complete tag, so vectoracl did not write it. Run `vectoracl check`.",
        code="malformed",
        adapter=ADAPTER,
        sent="no",
    )
