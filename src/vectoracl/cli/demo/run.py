"""The steps of the demo: fill the store through the API, search as several principals, and compare."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vectoracl import hazmat
from vectoracl.adapter_api.demo_attacks import Attempt
from vectoracl.cli.common import Steps
from vectoracl.cli.demo.corpus import TenantCorpus, demo_queries
from vectoracl.client.connect import VectorACL
from vectoracl.errors import RefusedError
from vectoracl.model.principal import Principal
from vectoracl.model.queries import Hybrid
from vectoracl.model.records import Chunk, Hit
from vectoracl.text.chunking import document_chunks
from vectoracl.text.embedders import Embedder, embed_checked

WRITER = "vectoracl-demo"  # the producer of every chunk that a demo wrote; other chunks are never changed
REASON = "The demo shows what a search without a scope would have returned."
REPETITIONS = 2, 15  # at least, and at most
_SPENT_MS = 800.0
_EMBED_AT_ONCE = 256
_DELETE_AT_ONCE = 100
_WRITING = "embedding and writing chunks"


class Line(NamedTuple):
    """One hit as it is shown, without its text."""

    tenant: str
    document: str
    score: float


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of one principal: the result without a scope, and the principal's result."""

    principal: Principal
    query: str
    k: int
    unscoped: tuple[Line, ...]
    returned: tuple[Line, ...]
    p50_ms: float

    def foreign(self, lines: Sequence[Line]) -> int:
        """Count the lines of other tenants."""
        return sum(line.tenant != self.principal.tenant for line in lines)

    def as_json(self) -> dict[str, object]:
        """Return the question's part of the demo's JSON."""
        return {
            "principal": name_of(self.principal),
            "query": self.query,
            "k": self.k,
            "unscoped_foreign": self.foreign(self.unscoped),
            "returned": len(self.returned),
            "foreign_returned": self.foreign(self.returned),
            "p50_ms": round(self.p50_ms, 3),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of the demo."""

    store: str
    server: str
    grade: str
    tenants: int
    documents: int
    chunks: int
    seconds: float
    asked: tuple[Asked, ...]
    attempts: tuple[Attempt, ...]
    hybrid: bool = False

    @property
    def leaked(self) -> bool:
        """Whether a chunk of another tenant was returned."""
        leak = any(one.foreign(one.returned) for one in self.asked)
        return leak or any(one.outcome == "LEAK" for one in self.attempts)

    def as_json(self) -> dict[str, object]:
        """Return the object that `vectoracl demo --json` prints."""
        return {
            "store": self.store,
            "server": self.server,
            "tenants": self.tenants,
            "chunks": self.chunks,
            "queries": [one.as_json() for one in self.asked],
            "attempts": [{"attack": one.attack, "outcome": one.outcome, "error": one.error} for one in self.attempts],
        }


def reader(tenant: str) -> Principal:
    """Return the principal that the demo reads and writes as in *tenant*."""
    return hazmat.operator_principal("reader", tenant, "vectoracl demo made this principal up")


def writer(tenant: str) -> Principal:
    """Return the principal that the demo writes as in *tenant*."""
    return hazmat.operator_principal(WRITER, tenant, "vectoracl demo made this principal up")


def check_own(acl: VectorACL, corpora: Sequence[TenantCorpus], tenants: Sequence[str]) -> None:
    """Check that the store holds only chunks that a demo wrote; *tenants* are those that the store lists.

    Raises: RefusedError, with nothing written.
    """
    operated = hazmat.operate(acl, reason="The demo looks whether the store is its own.")
    filled = {one.tenant for one in corpora}
    for tenant in [*sorted(set(tenants) - filled), *sorted(filled)]:
        if tenant in filled:  # every chunk, since this tenant's documents are replaced and removed
            other_writer = any(hit.tag.producer != WRITER for hit in acl.scoped(reader(tenant)).scan(include=()))
        else:
            other_writer = any(hit.tag.producer != WRITER for hit in operated.read(tenant, 1).hits)
        if other_writer:
            raise RefusedError(
                f"This store holds documents of the tenant {tenant!r} that no demo wrote, so the demo was not started "
                "and nothing was changed. Run it without -c in another folder, where it creates a separate store, or "
                "pass a configuration whose store is empty."
            )


def name_of(principal: Principal) -> str:
    """Return the form that `--as` takes."""
    return f"{principal.id}@{principal.tenant}"


def load(
    acl: VectorACL, embedder: Embedder, corpora: Sequence[TenantCorpus], steps: Steps, *, prune: bool
) -> tuple[int, int]:
    """Write every document as a principal of its tenant; return the numbers of documents and chunks.

    An empty tenant is written in large batches. Otherwise each document is replaced, so a second run leaves the same
    content; with *prune*, documents of these tenants from an earlier demo that this demo lacks are deleted.
    """
    work = [(writer(one.tenant), [document_chunks(doc) for doc in one.documents]) for one in corpora]
    total = sum(len(parts) for _, docs in work for parts in docs)
    written = documents = 0
    for principal, docs in work:
        handle = acl.scoped(principal)
        if not handle.page(size=1, include=()).hits:
            flat = [chunk for parts in _embedded(embedder, docs) for chunk in parts]
            done = written
            handle.load(flat, progress=lambda count, done=done: steps.step(_WRITING, done + count, total))  # type: ignore[misc]
            documents += sum(bool(parts) for parts in docs)
            written += len(flat)
            continue
        for parts in _embedded(embedder, docs):
            if parts:
                handle.replace(parts[0].document, parts)
                documents += 1
            written += len(parts)
            steps.step(_WRITING, written, total)
        if prune:
            names = {parts[0].document for parts in docs if parts}
            gone = [
                (hit.document, hit.id)
                for hit in handle.scan(include=())
                if hit.tag.producer == WRITER and hit.document not in names
            ]
            for start in range(0, len(gone), _DELETE_AT_ONCE):
                handle.delete(ids=gone[start : start + _DELETE_AT_ONCE])
    return documents, written


def _embedded(embedder: Embedder, docs: Sequence[list[Chunk]]) -> list[list[Chunk]]:
    """Return the chunks with vectors, with one call of the embedder for all documents of a tenant."""
    flat = [chunk for parts in docs for chunk in parts]
    vectors = embed_checked(embedder, [chunk.text for chunk in flat], "document", batch=_EMBED_AT_ONCE)
    chunks = iter(
        Chunk(chunk.id, chunk.document, chunk.text, vector, chunk.position)
        for chunk, vector in zip(flat, vectors, strict=True)
    )
    return [[next(chunks) for _ in parts] for parts in docs]


def questions(corpora: Sequence[TenantCorpus], principals: int) -> list[tuple[str, str]]:
    """Choose pairs of tenant and question: a specific one for each of some tenants, and one that two of them share."""
    pairs = demo_queries(corpora, per_tenant=1)
    first: dict[str, str] = {}
    everyone: dict[str, list[str]] = {}
    for tenant, query in pairs:
        first.setdefault(tenant, query)
        everyone.setdefault(query, []).append(tenant)
    step = max(1, len(first) // principals)
    chosen = list(first.items())[::step][:principals]
    shared = next((query for query, tenants in everyone.items() if len(tenants) == len(first) > 1), None)
    if shared is not None:
        chosen += [(tenant, shared) for tenant, query in chosen[:2] if query != shared]
    return chosen


def has_words(acl: VectorACL) -> bool:
    """Return whether the default store supports hybrid queries."""
    return "hybrid" in acl._named(acl.config.default).store.capabilities.queries  # noqa: SLF001 - as configured


def ask(
    acl: VectorACL, embedder: Embedder, chosen: Sequence[tuple[str, str]], k: int, steps: Steps, *, hybrid: bool
) -> tuple[Asked, ...]:
    """Ask every question without a scope (through `hazmat`) and as the principal, and time the latter.

    The principal's search is hybrid if the store supports that, since the demo's vectors alone rank poorly.
    """
    past = hazmat.unscoped(acl, reason=REASON)
    vectors = embed_checked(embedder, [query for _, query in chosen], "query")
    answers = []
    for place, ((tenant, query), vector) in enumerate(zip(chosen, vectors, strict=True)):
        principal = reader(tenant)
        handle = acl.scoped(principal)
        request = Hybrid(query, vector) if hybrid else vector
        unscoped = _lines(past.search(vector, k=k))
        times: list[float] = []
        while len(times) < REPETITIONS[0] or (len(times) < REPETITIONS[1] and sum(times) < _SPENT_MS):
            start = time.perf_counter()
            result = handle.search(request, k=k)
            times.append((time.perf_counter() - start) * 1000)
        answers.append(Asked(principal, query, k, unscoped, _lines(result), statistics.median(times)))
        steps.step("asking", place + 1, len(chosen))
    return tuple(answers)


def _lines(hits: Sequence[Hit]) -> tuple[Line, ...]:
    return tuple(Line(hit.tenant, hit.document, hit.score) for hit in hits)
