"""Whether a read can show a fault: which parts of its scope and filter would change the answer if they were lost.

The calls of a plan are drawn again until they can, or a few times. This judges plans, never adapters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectoracl.filters.predicate import ALWAYS, Predicate
from vectoracl.model.queries import Hybrid, Lexical, Like
from vectoracl.model.records import Chunk
from vectoracl.text.embedders import HashedEmbedder
from vectoracl_conformance.generated.filters import Mask
from vectoracl_conformance.generated.scopes import Draft, Ground
from vectoracl_conformance.generated.world import matrix

_FAR = 1e8
_LONG = 1_000
"""Texts of more characters are not embedded here: it takes too long."""
Numbers = NDArray[np.int_]
Scores = NDArray[np.float64]


class Judge:
    """The rows of all tenants, numbered through, with their vectors and their places in a scan."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        world = ground.world
        self.start: dict[str, int] = {}
        self.chunks: list[Chunk] = []
        for name, chunks in world.tenants.items():
            self.start[name] = len(self.chunks)
            self.chunks += list(chunks)
        self.vectors = matrix(self.chunks, world.dimension)
        self.norms = np.linalg.norm(self.vectors.astype(np.float64), axis=1)
        self.words = [frozenset(one.text.split()) for one in self.chunks]
        self.documents = np.unique([one.document for one in self.chunks], return_inverse=True)[1]
        self.order = np.zeros(len(self.chunks), int)
        for name, chunks in world.tenants.items():
            ranked = sorted(range(len(chunks)), key=lambda one: (chunks[one].document, chunks[one].id))
            self.order[self.start[name] + np.array(ranked, int)] = np.arange(len(chunks))
        self.named: dict[str | tuple[str, str], list[int]] = {}
        for number, one in enumerate(self.chunks):
            self.named.setdefault(one.id, []).append(number)
            self.named.setdefault((one.document, one.id), []).append(number)
        self.embedder = HashedEmbedder(world.dimension) if world.dimension >= 8 else None

    def scores(self, query: Any) -> Scores | None:
        """Return the score of every row by *query*, or None where it is not a vector's."""
        match query:
            case str():
                if self.embedder is None or len(query) > _LONG:
                    return None
                vector = self.embedder.embed_queries([query])[0].astype(np.float64)
            case Lexical() | Hybrid():
                return None
            case Like(id=name, document=document):
                numbers = self.named.get(name if document is None else (document, name), [])
                if not numbers:
                    return None
                vector = self.vectors[numbers[0]].astype(np.float64)
            case _:
                vector = np.asarray(query, np.float64)
        match self.ground.world.metric:
            case "cosine":
                return np.asarray(self._products(vector) / (self.norms * np.linalg.norm(vector)), np.float64)
            case "inner":
                return self._products(vector)
        squares = self.norms**2 - 2 * self._products(vector) + float(vector @ vector)
        return np.asarray(-np.sqrt(np.maximum(squares, 0.0)), np.float64)

    def _products(self, vector: NDArray[Any]) -> Scores:
        """Return the inner product of each row with *vector*, in one thread: those of BLAS wait for each other."""
        return np.asarray(np.einsum("ij,j->i", self.vectors, vector.astype(np.float32)), np.float64)

    def cut(self, draft: Draft, share: float) -> float:
        """Return a score between two visible rows, after about *share* of them and where scores are far apart."""
        given = draft.arguments
        query = given["query"] if "query" in given else given["queries"][0]
        scores = self.scores(query)
        visible = self.visible(draft, given.get("where", ALWAYS))
        if scores is None or len(visible) < 2:
            return 0.0
        ranked = np.sort(scores[visible])[::-1]
        place = min(int(len(ranked) * share), len(ranked) - 2)
        near = np.arange(max(0, place - 3), min(len(ranked) - 1, place + 4))
        best = int(near[np.argmax(ranked[near] - ranked[near + 1])])
        return float((ranked[best] + ranked[best + 1]) / 2)

    def visible(self, draft: Draft, where: Predicate) -> Numbers:
        """Return the numbers of the rows that the scope and *where* leave."""
        return self._numbers(draft, [self._mask(draft, place, where, "") for place in range(len(draft.partitions))])

    def _mask(self, draft: Draft, place: int, where: Predicate, without: str) -> Mask:
        """Return which rows of one partition are visible, *without* one part of the scope."""
        tenant, predicate = list(draft.partitions.items())[place]
        rows = self.ground.rows[tenant]
        parts = [] if without == f"policy {place}" else [predicate]
        if without != "narrow":
            parts += [narrowing for narrowing, _ in draft.narrowings]
        if without != "where":
            parts.append(where)
        mask = np.ones(len(rows.chunks), bool)
        for one in parts:
            if one != ALWAYS:
                mask &= rows.mask(one)
        return mask

    def _numbers(self, draft: Draft, masks: Sequence[Mask]) -> Numbers:
        found = [
            self.start[tenant] + np.flatnonzero(mask) for tenant, mask in zip(draft.partitions, masks, strict=True)
        ]
        return np.concatenate(found) if found else np.zeros(0, int)

    def sensitive(self, draft: Draft, method: str, arguments: Mapping[str, Any], pages: int) -> tuple[list[str], int]:
        """Return the parts without which the answer would be another, and the number of parts that were tried.

        The parts are the predicate of each partition (of many, of some), all narrowings, and the filter.
        """
        where = arguments.get("where", ALWAYS)
        count = len(draft.partitions)
        masks = [self._mask(draft, place, where, "") for place in range(count)]
        full = self._numbers(draft, masks)
        shows = self._shows(draft, method, arguments, full, pages)
        own = list(draft.partitions).index(draft.tenant) if count else 0
        tried = 0
        found = []
        for place, predicate in enumerate(draft.partitions.values()):
            if predicate == ALWAYS or place not in {0, 1, 2, own, count - 1}:
                continue
            tried += 1
            lost = self._mask(draft, place, where, f"policy {place}") & ~masks[place]
            extra = self.start[list(draft.partitions)[place]] + np.flatnonzero(lost)
            if len(extra) and shows(extra):
                found.append(f"policy {place}")
        for part, there in (("narrow", bool(draft.narrowings)), ("where", where != ALWAYS)):
            if there:
                tried += 1
                more = [self._mask(draft, place, where, part) & ~masks[place] for place in range(count)]
                extra = self._numbers(draft, more)
                if len(extra) and shows(extra):
                    found.append(part)
        if method in ("search", "search_many"):
            query = arguments["query"] if method == "search" else arguments["queries"][0]
            shown = self._shown(self.scores(query), arguments, full)
            found += [name for name, one in shown.items() if one]
            tried += len(shown)
        return found, tried

    def _shown(self, scores: Scores | None, arguments: Mapping[str, Any], full: Numbers) -> dict[str, bool]:
        """Return which of the arguments of a search change its answer, of those that are given."""
        if scores is None:
            return {}
        shown = {}
        least, k = arguments.get("min_score"), arguments.get("k", 10)
        kept = full if least is None else full[scores[full] >= least]
        if least is not None and least > -_FAR:
            shown["min_score"] = len(kept) < min(k, len(full))
        if arguments.get("group_by"):
            ranked = kept[np.argsort(-scores[kept])]
            documents = Counter(self.documents[ranked[:k]].tolist())
            most = max(Counter(self.documents[ranked].tolist()).values(), default=0)
            per_group = arguments.get("per_group", 1)
            shown["group_by"] = len(documents) < min(k, len(ranked))
            if "per_group" in arguments:
                shown["per_group"] = most > per_group or (per_group > 1 and most > 1)
        return shown

    def _shows(
        self, draft: Draft, method: str, arguments: Mapping[str, Any], full: Numbers, pages: int
    ) -> Callable[[Numbers], bool]:
        """Return what shows whether further visible rows would change the answer."""
        match method:
            case "search" | "search_many":
                query = arguments["query"] if method == "search" else arguments["queries"][0]
                return self._ranked(query, arguments, full)
            case "fetch":
                named = np.zeros(len(self.chunks), bool)
                for one in arguments["ids"]:
                    named[self.named.get(one, [])] = True
                return lambda extra: bool(named[extra].any())
            case "facets":
                return self._counted(arguments, full)
            case "page":
                return self._paged(draft, full, arguments.get("size", 100) * (pages + 1))
        return lambda extra: len(extra) > 0

    def _ranked(self, query: Any, arguments: Mapping[str, Any], full: Numbers) -> Callable[[Numbers], bool]:
        scores = self.scores(query)
        if scores is None:
            if not isinstance(query, Lexical):
                return lambda extra: len(extra) > 0 and (not isinstance(query, Like) or query.id in self.named)
            words = frozenset(query.text.split())
            return lambda extra: any(words & self.words[number] for number in extra.tolist())
        least = arguments.get("min_score")
        floor = -np.inf if least is None else float(least)
        k = arguments.get("k", 10)
        kept = full[scores[full] >= floor]
        if arguments.get("group_by"):
            best: dict[int, float] = {}
            for number in kept.tolist():
                document = int(self.documents[number])
                best[document] = max(best.get(document, -np.inf), float(scores[number]))
            ranked = np.array(list(best.values()))
        else:
            ranked = scores[kept]
        if len(ranked) >= k:
            floor = max(floor, float(np.partition(ranked, len(ranked) - k)[len(ranked) - k]))
        return lambda extra: bool((scores[extra] > floor).any())

    def _counted(self, arguments: Mapping[str, Any], full: Numbers) -> Callable[[Numbers], bool]:
        name, limit = arguments["field"], arguments.get("limit", 100)

        def count(numbers: Numbers) -> list[tuple[Any, int]]:
            counts: Counter[Any] = Counter()
            for number in numbers.tolist():
                one = self.chunks[number]
                value = one.document if name == "@document" else one.metadata.get(name)
                counts.update(set(value) if isinstance(value, list) else () if value is None else (value,))
            return sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))[:limit]

        before = count(full)
        return lambda extra: count(np.concatenate([full, extra])) != before

    def _paged(self, draft: Draft, full: Numbers, upto: int) -> Callable[[Numbers], bool]:
        place = np.zeros(len(self.chunks), int)
        for number, tenant in enumerate(draft.partitions):
            start = self.start[tenant]
            end = start + len(self.ground.rows[tenant].chunks)
            place[start:end] = number * 10**6 + self.order[start:end]
        last = np.sort(place[full])[upto - 1] if len(full) >= upto else np.iinfo(int).max
        return lambda extra: bool((place[extra] < last).any())
