"""Validators of what is written: they see a document after embedding, before anything is sent, and answer a verdict.

They are the other half of scoped reads: a poisoned chunk in one's own tenant passes every scope. Whatever is not a
verdict refuses: an exception, another answer, no answer in time. Each validator gets a separate copy, so that what is
written is exactly what every one of them has seen.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol, Self, get_args, runtime_checkable

import numpy as np

from vectoracl._util.worker_threads import LateError
from vectoracl.errors import InvalidInputError
from vectoracl.model.principal import Principal
from vectoracl.model.records import Chunk

_log = logging.getLogger("vectoracl")
Answer = Literal["accept", "refuse", "quarantine"]
Operation = Literal["upsert", "replace", "load", "update_metadata", "copy"]
ANSWERS: frozenset[str] = frozenset(get_args(Answer))
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Ingestion:
    """The part of one write that is about one document, as a validator sees it.

    Attributes:
        principal: The principal that writes; for the rows of `vectoracl copy` an operator.
        document: The document's id.
        operation: "upsert", "replace", "load", "update_metadata" or "copy".
        chunks: The chunks, each with its text, metadata and vector (float32, not writable). Empty for
            "update_metadata" and for a replacement by nothing.
        source: The pipeline that the handle names (`scoped(source=…)`).
        changes: For "update_metadata" the changes: new values by their keys, and None for a key that goes. Else None.
    """

    principal: Principal
    document: str
    operation: Operation
    chunks: tuple[Chunk, ...] = ()
    source: str | None = None
    changes: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Ingestion({self.operation} of {self.document!r}, {len(self.chunks)} chunks)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a validator.

    Attributes:
        answer: "accept", "refuse" or "quarantine".
        reason: Why, on one line of at most 200 characters; required unless it accepts. It is recorded in the audit and
            quoted in errors, so it must not repeat content.
    """

    answer: Answer
    reason: str = ""

    def __post_init__(self) -> None:
        answer: object = self.answer
        reason: object = self.reason
        if type(answer) is not str or answer not in ANSWERS:
            raise InvalidInputError("A verdict is accept, refuse or quarantine.", field="answer")
        if type(reason) is not str or len(reason) > MAX_REASON or not reason.isprintable():
            raise InvalidInputError(
                f"The reason of a verdict is one line of at most {MAX_REASON} characters.", field="reason"
            )
        if answer != "accept" and not reason.strip():
            raise InvalidInputError("A verdict that does not accept needs a reason.", field="reason")

    @classmethod
    def accept(cls) -> Self:
        """Return the verdict that lets the write go on."""
        return cls("accept")

    @classmethod
    def refuse(cls, reason: str) -> Self:
        """Return the verdict that refuses the whole write."""
        return cls("refuse", reason)

    @classmethod
    def quarantine(cls, reason: str) -> Self:
        """Return the verdict that hides the document from every reader; without a registry the write is refused."""
        return cls("quarantine", reason)


@runtime_checkable
class Validator(Protocol):
    """The protocol of a validator (`[[ingest.validators]]`). It is called in several threads at the same time."""

    def validate(self, ingestion: Ingestion) -> Verdict:
        """Return a verdict about *ingestion*. An exception, or anything else than a `Verdict`, refuses the write."""
        ...


@dataclass(frozen=True, slots=True)
class NamedValidator:
    """A configured validator with its name in records; a shipped one is `quick`, and called without a thread."""

    name: str
    validator: Validator
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """One verdict of one validator about one document; `cause` is the exception that it raised instead."""

    document: str
    validator: str
    verdict: Verdict
    cause: Exception | None = None


Perform = Callable[[Callable[[], object], NamedValidator], object]


def judge(
    validators: Sequence[NamedValidator], ingestions: Sequence[Ingestion], perform: Perform
) -> tuple[Judgement, ...]:
    """Ask every validator about every document, in their order, up to the first refusal.

    *perform* makes the call, and raises LateError if the validator does not answer in time.
    """
    found: list[Judgement] = []
    for one in validators:
        for ingestion in ingestions:
            found.append(_judged(one, ingestion, perform))
            if found[-1].verdict.answer == "refuse":
                return tuple(found)
    return tuple(found)


def _judged(one: NamedValidator, ingestion: Ingestion, perform: Perform) -> Judgement:
    cause: Exception | None = None
    try:
        answer = perform(partial(one.validator.validate, _copied(ingestion)), one)
    except LateError:
        why = "it did not answer in time"
    except Exception as error:  # noqa: BLE001 - a validator that fails refuses
        # The class alone: the text of an exception may quote what the validator has read.
        _log.warning("the validator %s failed: %s", one.name, type(error).__name__)
        cause, why = error, f"it raised {type(error).__name__}"[:MAX_REASON]
    else:
        if type(answer) is Verdict and _whole(answer):
            return Judgement(ingestion.document, one.name, answer)
        if inspect.iscoroutine(answer):
            answer.close()
        why = "its answer is not a Verdict"
    return Judgement(ingestion.document, one.name, Verdict.refuse(why), cause)


def _whole(verdict: Verdict) -> bool:
    """Return whether *verdict* is one that its class would make: code in the process can change even a frozen one."""
    try:
        Verdict(verdict.answer, verdict.reason)
    except (InvalidInputError, AttributeError):
        return False
    return True


def _copied(given: Ingestion) -> Ingestion:
    return replace(
        given, chunks=tuple([_copied_chunk(one) for one in given.chunks]), changes=copy.deepcopy(given.changes)
    )


def _copied_chunk(one: Chunk) -> Chunk:
    vector = np.array(one.vector, np.float32)
    vector.flags.writeable = False
    return replace(one, vector=vector, metadata=copy.deepcopy(dict(one.metadata)))
