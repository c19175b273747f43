"""The flow that asks the validators of the configuration about a write, after embedding and before it is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vectoracl.adapter_api.chunk_validation import ValidatedChunk
from vectoracl.adapter_api.contract import Flow
from vectoracl.engine.core_ports import Validate
from vectoracl.engine.pipeline import Caller, Pipeline
from vectoracl.errors import ContentRefusedError
from vectoracl.ingestion.validators import Ingestion, Judgement, Operation
from vectoracl.model.principal import Principal
from vectoracl.model.records import Chunk, Record, Vector

MOST_ENTRIES = 100
"""The most different verdicts that an outcome lists; the last entry counts the others."""


def validate_chunks_of(
    pipeline: Pipeline,
    caller: Caller,
    operation: Operation,
    prepared: Sequence[ValidatedChunk],
    vectors: Sequence[Vector | None],
    decision_id: str,
    document: str | None = None,
) -> Flow[Mapping[str, str]]:
    """Ask about chunks that a handle writes; *document* is that of a replacement, which may be by nothing.

    Returns the documents to quarantine, with the reasons; see `ask`.
    """
    if not pipeline.validated:
        return {}
    grouped: dict[str, list[Chunk]] = {} if document is None else {document: []}
    for one, vector in zip(prepared, vectors, strict=True):
        chunk = one.chunk
        whole = Chunk(
            chunk.id, chunk.document, chunk.text, vector, chunk.position, dict(one.metadata), expires=chunk.expires
        )
        grouped.setdefault(chunk.document, []).append(whole)
    given = [
        Ingestion(caller.principal, name, operation, tuple(chunks), caller.source) for name, chunks in grouped.items()
    ]
    return (yield from ask(pipeline, given, decision_id))


def validate_changes(
    pipeline: Pipeline, caller: Caller, document: str, changes: Mapping[str, Any], decision_id: str
) -> Flow[Mapping[str, str]]:
    """Ask about changes of a document's metadata; see `ask`."""
    if not pipeline.validated:
        return {}
    given = Ingestion(caller.principal, document, "update_metadata", (), caller.source, dict(changes))
    return (yield from ask(pipeline, [given], decision_id))


def validate_rows(pipeline: Pipeline, principal: Principal, records: Sequence[Record], decision_id: str) -> Flow[None]:
    """Ask about rows of another configuration that an operator copies. Raises: ContentRefusedError."""
    if not pipeline.validated:
        return
    grouped: dict[str, list[Chunk]] = {}
    for record in records:
        tag = record.tag
        chunk = Chunk(tag.chunk, tag.document, record.text, record.vector, tag.position, dict(record.metadata))
        grouped.setdefault(tag.document, []).append(chunk)
    given = [Ingestion(principal, name, "copy", tuple(chunks)) for name, chunks in grouped.items()]
    yield from ask(pipeline, given, decision_id)


def ask(pipeline: Pipeline, given: Sequence[Ingestion], decision_id: str) -> Flow[Mapping[str, str]]:
    """Ask every validator about every ingestion, and note the verdicts for the outcome of the decision.

    Returns the documents that are to be quarantined, with the reasons. Without a registry such a verdict refuses.

    Raises: ContentRefusedError at the first refusal; nothing was sent.
    """
    judgements = yield Validate(tuple(given))
    pipeline.judged(decision_id, entries(judgements))
    held: dict[str, str] = {}
    for one in judgements:
        if one.verdict.answer == "refuse" or (one.verdict.answer == "quarantine" and pipeline.registry is None):
            raise _refusal(one, decision_id, debug=pipeline.debug)
        if one.verdict.answer == "quarantine":
            held.setdefault(one.document, f"{one.validator}: {one.verdict.reason}")
    return held


def entries(judgements: Iterable[Judgement]) -> list[dict[str, Any]]:
    """Return the verdicts as an outcome lists them: each validator's, with the number of documents, and no content."""
    numbers: dict[tuple[str, str, str], int] = {}
    for one in judgements:
        key = (one.validator, one.verdict.answer, one.verdict.reason)
        numbers[key] = numbers.get(key, 0) + 1
    listed = [
        {"validator": validator, "verdict": answer, "reason": reason, "documents": number}
        for (validator, answer, reason), number in numbers.items()
    ]
    # A refusal is the last one of all, and is never among those that are only counted.
    kept = listed if len(listed) <= MOST_ENTRIES else [*listed[: MOST_ENTRIES - 1], listed[-1]]
    return kept if len(kept) == len(listed) else [*kept, {"more": len(listed) - len(kept)}]


def _refusal(one: Judgement, decision_id: str, *, debug: bool) -> ContentRefusedError:
    cure = "" if one.verdict.answer == "refuse" else " Without a registry nothing can be quarantined."
    error = ContentRefusedError(
        f"The validator {one.validator!r} does not accept the document {one.document!r}, so nothing was written: "
        f"{one.verdict.reason}.{cure} Decision {decision_id}.",
        validator=one.validator,
        document=one.document,
        reason=one.verdict.reason,
        decision_id=decision_id,
    )
    if debug:
        error.__cause__ = one.cause
    return error
