"""The description of a store's connection by its harness, with which a runner can put a tap in front of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vectoracl_conformance.evidence.canaries import CONSTANT
from vectoracl_conformance.evidence.exchanges import Decoder
from vectoracl_conformance.evidence.sessions import WireRecorder
from vectoracl_conformance.evidence.structure import Judge


@dataclass(frozen=True, slots=True)
class Wire:
    """One store's wire.

    `recorder` makes a recorder in front of the store. `config` is `[stores.NAME]` of a client that connects to the
    recorder's address (host and port; with `Taps` a port for each), with one connection at the most, so that samples
    of its traffic can be compared. `served` counts the sessions that the store served so far, when all have ended,
    and `answered` the requests (its own metrics, less those of the kit); None: it cannot. A store has to count one of
    them, or E2 abstains; only a managed one (`managed`), which shows neither, keeps E2v. `decode` None (TLS, a
    managed store) leaves E2v; `judge` None leaves out E2s. `constant` is how many rows a reply may have beyond what
    answers the question. `samples` is how
    often the same query is heard at each level of foreign rows, of which the least counts.
    """

    recorder: Callable[[], WireRecorder]
    config: Callable[..., Mapping[str, Any]]
    served: Callable[[], int | None] = lambda: None
    decode: Decoder | None = None
    judge: Judge | None = None
    constant: int = CONSTANT
    answered: Callable[[], int | None] = lambda: None
    managed: bool = False
    samples: int = 2
