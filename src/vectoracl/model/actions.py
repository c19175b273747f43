"""The actions that a policy decides about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from vectoracl.errors import InvalidInputError

Action = Literal["search", "fetch", "count", "scan", "upsert", "replace", "delete"]
ALL_ACTIONS: frozenset[Action] = frozenset(get_args(Action))
READ: frozenset[Action] = frozenset({"search", "fetch", "count", "scan"})
WRITE: frozenset[Action] = ALL_ACTIONS - READ
GovernAction = Literal[
    "label",
    "classify",
    "access",
    "move",
    "hold",
    "release",
    "retain",
    "quarantine",
    "lift",
    "reconcile",
    "sweep",
    "erase",
    "look",
    "family",
    "verify",
]
GOVERN: frozenset[GovernAction] = frozenset(get_args(GovernAction))
"""The actions of a governor on rights. No handle has them and no policy permits one, only `[registry] governors`."""


def check_action(value: object) -> Action:
    """Return *value* if it is an action. Raises: InvalidInputError."""
    for known in ALL_ACTIONS:
        if value == known:
            return known
    raise InvalidInputError(f"An action must be one of {', '.join(sorted(ALL_ACTIONS))}.", field="action")


def check_actions(values: object) -> frozenset[Action]:
    """Return *values* as a set of actions; an empty set is allowed and permits nothing. Raises: InvalidInputError."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInputError("actions must be a collection, for example vectoracl.READ.", field="actions")
    return frozenset(check_action(one) for one in values)
