"""The checks, by stable ids. A check is one coroutine that serves sync and async; importing this collects them all."""

from vectoracl_conformance.checks import beside, beyond, legs, principal, read, session, versions, write
from vectoracl_conformance.context.registry import CHECKS, Check

MODULES = (read, legs, beside, versions, write, principal, session, beyond)
__all__ = ["CHECKS", "MODULES", "Check"]
