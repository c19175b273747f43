"""The settings of one transaction, which end with it: the scope, limits, and how the server plans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from vectoracl_pgvector.names import NO_EXCLUSION, NO_JIT, literal
from vectoracl_pgvector.requests import RankAll, Statement, Transaction

TIME_LIMIT = "statement_timeout"


def milliseconds(timeout: float) -> str:
    """Return a time limit for the server; at most 86,400 seconds (`arguments.MAX_TIMEOUT`), so it fits 31 bits."""
    return str(max(1, math.ceil(timeout * 1000)))


@lru_cache(maxsize=64)
def settings_sql(names: tuple[str, ...]) -> str:
    """Return the statement that sets *names*, each to the value of one placeholder, until the transaction ends."""
    return "SELECT " + ", ".join([f"pg_catalog.set_config({literal(name)}, %s, true)" for name in names])


def settings_of(request: Transaction | RankAll, timeout: float | None) -> list[tuple[str, str]]:
    """Return the settings of this transaction: the scope, a time limit for the server, and two of the planner's.

    PostgreSQL's just-in-time compilation (on by default in Debian) takes up to seconds for statements that run for
    milliseconds, because the cost estimates of row-level security and of catalog functions are far too high.
    """
    settings = [*request.settings, NO_JIT, NO_EXCLUSION]
    if timeout is not None:
        settings.append((TIME_LIMIT, milliseconds(timeout)))
    return settings


def settings_statement(settings: Sequence[tuple[str, str]]) -> Statement:
    """Return the statement that applies all *settings* until the transaction ends."""
    return Statement(settings_sql(tuple([name for name, _ in settings])), tuple([value for _, value in settings]))
