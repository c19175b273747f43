"""An existing pgvector table becomes governed: planned, checked as a whole, copied tenant by tenant. Never changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from vectoracl.adapter import Progress
from vectoracl.errors import RefusedError
from vectoracl.fields import FieldType
from vectoracl_pgvector.config import PgvectorConfig


def plan(connection: psycopg.Connection[Any], config: PgvectorConfig, source: str) -> str:
    """Return, as text, how *source* would be adopted."""
    raise RefusedError("Adopting a table is not there yet.")


def adopt(
    connection: psycopg.Connection[Any],
    config: PgvectorConfig,
    fields: Mapping[str, FieldType],
    source: str,
    progress: Progress | None,
) -> list[str]:
    """Copy *source* into the governed table."""
    raise RefusedError("Adopting a table is not there yet.")
