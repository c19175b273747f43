"""What `vectoracl demo` tries against a live store, as data that the command line and adapters share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from vectoracl.model.principal import Principal

Outcome = Literal["refused", "nothing", "LEAK"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One forged attempt: its family, what was tried, and what it met.

    `outcome` is computed from what came back: "refused" (an error), "nothing" (no foreign row) or "LEAK". `error` is
    the error's name or text, never a row; None where there was none.
    """

    attack: str
    tried: str
    outcome: Outcome
    error: str | None = None


@dataclass(frozen=True, slots=True)
class AttackContext:
    """What an adapter needs to try its own attacks, for which it goes around the API (`vectoracl_demo_attacks`).

    `own` is the attacker, `foreign` a principal of the tenant that is attacked; both have chunks. `vector` is a query
    that both have answers to. `reopen` opens the same configuration, a `VectorACL`, on a client that the adapter made;
    the type is not named here, since the client imports the adapters' API.
    """

    own: Principal
    foreign: Principal
    vector: Sequence[float]
    reopen: Callable[[Any], AbstractContextManager[Any]]
