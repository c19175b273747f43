"""Attack attempts of `vectoracl demo` against a live store, as data shared by the command line and adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from vectoracl.model.principal import Principal

Outcome = Literal["refused", "nothing", "LEAK"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One forged attempt.

    Attributes:
        attack: The kind of the attack.
        tried: A description of the attempt.
        outcome: Computed from the reply: "refused" (an error), "nothing" (no row of another tenant) or "LEAK".
        error: The error's name or text, never a row; None if there was no error.
    """

    attack: str
    tried: str
    outcome: Outcome
    error: str | None = None


@dataclass(frozen=True, slots=True)
class AttackContext:
    """The context of an adapter's own attacks, which bypass the API (`vectoracl_demo_attacks`).

    Attributes:
        own: The attacker; its tenant has chunks.
        foreign: A principal of the attacked tenant, which has chunks too.
        vector: A query vector for which both tenants have hits.
        reopen: Opens the same configuration as a `VectorACL` on a client that the adapter made. The type is not named
            here, since the client imports the adapter API.
    """

    own: Principal
    foreign: Principal
    vector: Sequence[float]
    reopen: Callable[[Any], AbstractContextManager[Any]]
