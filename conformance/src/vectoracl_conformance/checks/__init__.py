"""The checks, by stable ids.

A check is one coroutine that serves sync and async. Importing this package registers all of them.
"""

from vectoracl_conformance.checks import (
    calls,
    concurrent_writers,
    governance,
    isolation,
    lexical,
    principal,
    read,
    session,
    side_channels,
    versions,
    write,
)
from vectoracl_conformance.context.registry import CHECKS, Check

MODULES = (
    read,
    lexical,
    concurrent_writers,
    versions,
    write,
    principal,
    session,
    side_channels,
    isolation,
    governance,
    calls,
)
__all__ = ["CHECKS", "MODULES", "Check"]
