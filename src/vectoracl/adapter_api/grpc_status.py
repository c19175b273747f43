"""The codes of gRPC as HTTP statuses, for adapters whose clients speak both. Codes go by name: no client is here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_STATUS: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "DEADLINE_EXCEEDED": 408,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "CANCELLED": 503,
}


def code_of(error: Any) -> tuple[str, str]:
    """Return the name of the code of *error*, a `grpc.RpcError`, and its details; "" for what it does not have."""
    code = error.code() if hasattr(error, "code") else None
    details = error.details() if hasattr(error, "details") else None
    return "" if code is None else code.name, str(details or "")


def http_status(name: str) -> int:
    """Return the HTTP status that stands for the code *name*; 500 for any other."""
    return _STATUS.get(name, 500)
