"""Permission-aware vector retrieval: the asking principal's scope is applied before the store ranks.

What is named here is imported when it is first used, so that the command line can begin before everything is loaded.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from vectoracl import hazmat, testing
    from vectoracl.access.policy import Decision, Policy, TenantPolicy
    from vectoracl.access.scope import Grant, Scope
    from vectoracl.adapter_api.posture import Finding, Posture, Rule
    from vectoracl.client.bulk_load import LoadReport
    from vectoracl.client.connect import AsyncVectorACL, VectorACL, aconnect, connect
    from vectoracl.client.retriever import AsyncScopedRetriever, ScopedRetriever
    from vectoracl.config import Config
    from vectoracl.engine.explain import Explanation
    from vectoracl.errors import (
        AdapterNotFoundError,
        ClosedError,
        ConfigError,
        DeniedError,
        InvalidInputError,
        InvalidPrincipalError,
        InvalidTenantError,
        PostureError,
        RefusedError,
        ReservedFieldError,
        ScopeViolationError,
        StoreError,
        TooLargeError,
        UnsupportedPredicateError,
        UntaggedWriteError,
        VectorACLError,
    )
    from vectoracl.filters.predicate import ALWAYS, NEVER, F, Predicate
    from vectoracl.filters.validation import FieldType
    from vectoracl.model.actions import ALL_ACTIONS, READ, WRITE, Action
    from vectoracl.model.principal import Principal
    from vectoracl.model.queries import Hybrid, Lexical, Like
    from vectoracl.model.records import Chunk, Facet, Hit, Page, Result, Tag, Written
else:
    _NAMES = {
        "model.actions": "ALL_ACTIONS READ WRITE Action",
        "client.connect": "AsyncVectorACL VectorACL aconnect connect",
        "config": "Config",
        "errors": (
            "AdapterNotFoundError ClosedError ConfigError DeniedError InvalidInputError InvalidPrincipalError "
            "InvalidTenantError PostureError RefusedError ReservedFieldError ScopeViolationError StoreError "
            "TooLargeError UnsupportedPredicateError UntaggedWriteError VectorACLError"
        ),
        "engine.explain": "Explanation",
        "filters.validation": "FieldType",
        "adapter_api.posture": "Finding Posture Rule",
        "client.bulk_load": "LoadReport",
        "access.policy": "Decision Policy TenantPolicy",
        "filters.predicate": "ALWAYS NEVER F Predicate",
        "model.principal": "Principal",
        "model.queries": "Hybrid Lexical Like",
        "model.records": "Chunk Facet Hit Page Result Tag Written",
        "client.retriever": "AsyncScopedRetriever ScopedRetriever",
        "access.scope": "Grant Scope",
    }
    _MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        """Return what is exported, or a module of the package; both are imported now."""
        if name.startswith("_") or not name.isidentifier():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = f"{__name__}.{_MODULES.get(name, name)}"
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        if name in _MODULES:
            found = globals()[name] = getattr(found, name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "ALL_ACTIONS",
    "ALWAYS",
    "NEVER",
    "READ",
    "WRITE",
    "Action",
    "AdapterNotFoundError",
    "AsyncScopedRetriever",
    "AsyncVectorACL",
    "Chunk",
    "ClosedError",
    "Config",
    "ConfigError",
    "Decision",
    "DeniedError",
    "Explanation",
    "F",
    "Facet",
    "FieldType",
    "Finding",
    "Grant",
    "Hit",
    "Hybrid",
    "InvalidInputError",
    "InvalidPrincipalError",
    "InvalidTenantError",
    "Lexical",
    "Like",
    "LoadReport",
    "Page",
    "Policy",
    "Posture",
    "PostureError",
    "Predicate",
    "Principal",
    "RefusedError",
    "ReservedFieldError",
    "Result",
    "Rule",
    "Scope",
    "ScopeViolationError",
    "ScopedRetriever",
    "StoreError",
    "Tag",
    "TenantPolicy",
    "TooLargeError",
    "UnsupportedPredicateError",
    "UntaggedWriteError",
    "VectorACL",
    "VectorACLError",
    "Written",
    "aconnect",
    "connect",
    "hazmat",
    "testing",
]
