"""The registry of checks: id, title, attack, breach, and the function."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from vectoracl_conformance.context.assertions import Assertions

Body = Callable[[Assertions], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `optional` says that an adapter may not have the capability, and then has to refuse."""

    id: str
    title: str
    attack: str
    breach: str
    body: Body
    optional: bool = False


CHECKS: dict[str, Check] = {}


def check(id: str, title: str, *, attack: str, breach: str, optional: bool = False) -> Callable[[Body], Body]:  # noqa: A002
    """Register a check under its stable *id*, with which the name of its function begins: `r1_…` for "R1".

    Raises:
        ValueError: The id is taken, since a check is never replaced, or the function is called after another one.
    """

    def register(body: Body) -> Body:
        if id in CHECKS:
            raise ValueError(f"the check {id} exists; a check is never replaced")
        if not body.__name__.startswith(f"{id.lower()}_"):
            raise ValueError(f"the function of the check {id} is called {body.__name__}; its name begins with its id")
        CHECKS[id] = Check(id, title, attack, breach, body, optional)
        return body

    return register
