"""Searches of tenants between the exact way and HNSW, and of scopes that see a part of a large tenant.

Shared: a tenant in the shared partition between as many rows of others. Visible: a tenant in a separate partition,
each of whose topics is a label; the principal sees topics that hold a share of the rows, and asks near hidden ones.
The vectors have 32 latent numbers and some noise; the questions are drawn like the rows of a topic.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from data import Array
from measure import Timing, interleaved, ratio, recall
from numpy.typing import NDArray
from server import Database

import vectoracl
from vectoracl import F, testing
from vectoracl.access.policy import Decision
from vectoracl.access.scope import Grant, Scope
from vectoracl.client.connect import VectorACL

DIMENSION = 384
TOPICS = 1000
SHARES = (0.01, 0.1, 0.5)
K = 10
_LATENT = 32
_COLUMNS = (
    "tenant_id, document, generation, chunk_id, label, rev, expires, producer, path, written_at, position, content, "
    "metadata, embedding"
)


class Topics:
    """Rows of one tenant in topics; row i has the topic `topic[i]`."""

    def __init__(self, rows: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._centres = self._rng.normal(size=(TOPICS, _LATENT)).astype(np.float32)
        self._out = self._rng.normal(size=(_LATENT, DIMENSION)).astype(np.float32) / np.sqrt(_LATENT)
        self.topic = self._rng.integers(0, TOPICS, rows)
        self.vectors = self.near(self.topic)

    def near(self, topics: NDArray[Any]) -> Array:
        """Return a vector near the centre of each of *topics*."""
        latent = self._centres[topics] + 0.7 * self._rng.normal(size=(len(topics), _LATENT)).astype(np.float32)
        found = latent @ self._out + 0.1 * self._rng.normal(size=(len(topics), DIMENSION)).astype(np.float32)
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    def hidden(self, share: float, count: int) -> Array:
        """Return questions near topics beyond the first *share* of them, or any if all are visible."""
        low = int(TOPICS * share) if share < 1 else 0
        return self.near(self._rng.integers(low, TOPICS, count))

    def truth(self, question: Array, share: float, where: NDArray[Any] | None = None) -> set[int]:
        """Return the nearest visible rows, exactly."""
        seen = self.topic < int(TOPICS * share)
        rows = np.flatnonzero(seen if where is None else seen & where)
        return set(rows[np.argsort(-(self.vectors[rows] @ question), kind="stable")[:K]].tolist())


class Sees:
    """A policy: the tenant's rows with the labels of the first `share` of the topics."""

    version = "1"

    def __init__(self, share: float) -> None:
        labels = [f"l{one:05}" for one in range(int(TOPICS * share))]
        self._predicate = F["@label"].in_(labels) if share < 1 else vectoracl.ALWAYS

    def decide(self, principal: Any, action: Any) -> Decision:  # noqa: ARG002 - the protocol of a policy
        return Decision(True, Scope((Grant(principal.tenant, self._predicate),)), ("bench",), self.version)


def add(database: Database, tenant: str, rows: Topics, progress: Callable[[int, int], None]) -> None:
    """Write the rows of *tenant* by COPY, as a superuser."""
    count = len(rows.vectors)
    with database.superuser() as connection, connection.cursor() as cursor:
        with cursor.copy(f"COPY vectoracl.chunks ({_COLUMNS}) FROM STDIN") as copy:
            for i, place in enumerate(np.random.default_rng(5).permutation(count).tolist()):
                topic = int(rows.topic[place])
                vector = "[" + ",".join(f"{one:.6f}" for one in rows.vectors[place]) + "]"
                copy.write_row(
                    (
                        tenant, f"document-{place // 20:07}", 0, f"chunk-{place:08}", f"l{topic:05}", 0, float("inf"),
                        "u:bench", "api", 1.7e9, place % 20, "words of a chunk " * 20, json.dumps({"year": topic}),
                        vector,
                    )
                )  # fmt: skip
                if not i % 1000:
                    progress(i, count)
        connection.execute("INSERT INTO vectoracl.chunks_tenants VALUES (%s) ON CONFLICT DO NOTHING", (tenant,))


@contextmanager
def searcher(
    database: Database,
    tenant: str,
    share: float,
    tuning: dict[str, int] | None = None,
    *,
    where: Any = vectoracl.ALWAYS,
    **config: Any,
) -> Iterator[Callable[[Array], list[int]]]:
    """Yield a function that searches as a principal of *tenant* who sees *share* of it."""
    settings = database.config(dimension=DIMENSION, **config)
    with vectoracl.connect(settings, policy=Sees(share)) as acl:
        docs = acl.scoped(testing.principal("bench", tenant))
        yield lambda question: [int(hit.id[6:]) for hit in docs.search(question, K, where=where, tuning=tuning or {})]


def compare(searchers: dict[str, Callable[[Array], list[int]]], questions: Array, truth: Sequence[set[int]],
            rounds: int, base: str) -> dict[str, dict[str, float]]:  # fmt: skip
    """Time the searchers in turns; return p50, the ratio to *base*, recall and the share of full answers."""
    calls = {
        name: (lambda number, search=search: search(questions[number % len(questions)]))
        for name, search in searchers.items()
    }
    timings: dict[str, Timing] = interleaved(calls, rounds)
    measured = {}
    for name, search in searchers.items():
        found = [search(one) for one in questions]
        measured[name] = {
            "p50_ms": round(timings[name].p50, 3),
            "p25_ms": round(sorted(timings[name].times)[len(timings[name].times) // 4], 3),
            f"times_{base}": round(ratio(timings[name], timings[base]), 3),
            "recall": round(float(np.mean([recall(*one) for one in zip(found, truth, strict=True)])), 4),
            "full": round(float(np.mean([len(one) == K for one in found])), 3),
        }
    return measured


def _operate(database: Database, call: Callable[[Any], object]) -> None:
    with VectorACL(database.config(dimension=DIMENSION)) as acl:
        operator = acl.operator()
        call(operator)
        operator.close()


def shared(database: Database, sizes: Sequence[int], questions: int, rounds: int,
           progress: Callable[[int, int], None]) -> list[dict[str, Any]]:  # fmt: skip
    """Measure tenants of several sizes in the shared partition, next to as many rows of others as the largest has."""
    _operate(database, lambda operator: operator.provision())
    tenants = {f"t{size}": Topics(size, size) for size in sizes}
    for name, rows in {**tenants, "others": Topics(max(sizes), 3)}.items():
        add(database, name, rows, progress)
    before = _one(database, f"t{max(sizes)}", tenants[f"t{max(sizes)}"], questions, rounds)
    _operate(database, lambda operator: operator.provision())  # which vacuums
    measured = [{"rows": max(sizes), "vacuumed": False, **before}]
    for size in sizes:
        measured.append({"rows": size, "vacuumed": True, **_one(database, f"t{size}", tenants[f"t{size}"], questions,
                                                                rounds)})  # fmt: skip
    return measured


def _one(database: Database, tenant: str, rows: Topics, count: int, rounds: int) -> dict[str, Any]:
    questions = rows.hidden(1, count)
    truth = [rows.truth(one, 1) for one in questions]
    with (
        searcher(database, tenant, 1) as ours,
        searcher(database, tenant, 1, bits=False) as without,
        searcher(database, tenant, 1, exact_rows=1_000_000) as exact,
    ):
        return {"layouts": compare({"ours": ours, "bits = false": without, "exact, counted": exact}, questions, truth,
                                   rounds, "ours")}  # fmt: skip


def visible(database: Database, size: int, questions: int, rounds: int,
            progress: Callable[[int, int], None]) -> list[dict[str, Any]]:  # fmt: skip
    """Measure scopes that see a share of one tenant in a separate partition, by label and by metadata."""
    _operate(database, lambda operator: operator.provision())
    rows = Topics(size, 9)
    add(database, "large", rows, progress)
    _operate(database, lambda operator: operator.promote("large"))
    return shares(database, rows, questions, rounds)


def shares(database: Database, rows: Topics, questions: int, rounds: int) -> list[dict[str, Any]]:
    """Ask in each of the shares, where nothing is visible."""
    measured = []
    asked = rows.hidden(1, questions)
    truth = [rows.truth(one, 1) for one in asked]
    unscoped = _unscoped(database, asked, truth)
    for share in SHARES:
        asked = rows.hidden(share, questions)
        truth = [rows.truth(one, share) for one in asked]
        year = F.year < int(TOPICS * share)
        with (
            searcher(database, "large", 1, {"ef_search": unscoped["ef_search"]}) as whole,
            searcher(database, "large", share) as ours,
            searcher(database, "large", 1, where=year) as metadata,
            searcher(database, "large", share, bits=False) as hnsw,
        ):
            one = compare({"unscoped": whole, "ours, by label": ours, "ours, by metadata": metadata,
                           "HNSW, by label": hnsw}, asked, truth, rounds, "unscoped")  # fmt: skip
        del one["unscoped"]["recall"]  # it sees more: its recall is that of `unscoped`
        measured.append({"rows": len(rows.vectors), "share": share, "unscoped": unscoped, "layouts": one})
    return measured


def _unscoped(database: Database, questions: Array, truth: Sequence[set[int]]) -> dict[str, Any]:
    """Return the least effort at which the unscoped search has a recall of .99, or the largest."""
    for effort in (100, 200, 400, 800):
        with searcher(database, "large", 1, {"ef_search": effort}) as search:
            found = [search(one) for one in questions]
        reached = float(np.mean([recall(*one) for one in zip(found, truth, strict=True)]))
        if reached >= 0.99:
            break
    return {"ef_search": effort, "recall": round(reached, 4)}
