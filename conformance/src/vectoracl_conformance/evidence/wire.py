"""What a store's harness says about its wire, so that a runner can stand in front of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vectoracl_conformance.evidence.canaries import CONSTANT
from vectoracl_conformance.evidence.exchanges import Decoder
from vectoracl_conformance.evidence.sessions import Recorder
from vectoracl_conformance.evidence.structure import Judge


@dataclass(frozen=True, slots=True)
class Wire:
    """One store's wire.

    `recorder` makes a recorder in front of the store. `config` is `[stores.NAME]` of a client that connects to the
    given host and port, with one connection at the most, so that samples of its traffic can be compared. `served`
    counts the sessions that the store served so far, when all have ended; None: it cannot count. `decode` None (TLS,
    a managed store) leaves E2v; `judge` None leaves out E2s. `constant` is how many rows a reply may have beyond what
    answers the question.
    """

    recorder: Callable[[], Recorder]
    config: Callable[[str, int], Mapping[str, Any]]
    served: Callable[[], int | None]
    decode: Decoder | None = None
    judge: Judge | None = None
    constant: int = CONSTANT
