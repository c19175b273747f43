"""Permission-aware vector retrieval: the asking principal's scope is applied before the store ranks.

The exported names are imported at first use, so that the command line starts before everything is loaded.
"""

import typing

from vectoracl._util.lazy_exports import lazy_exports as _lazy_exports

if typing.TYPE_CHECKING:
    from vectoracl import hazmat, testing
    from vectoracl.access.policy import Decision, Policy, TenantPolicy
    from vectoracl.access.scope import Grant, Scope
    from vectoracl.adapter_api.posture import Finding, Posture, Rule
    from vectoracl.client.bulk_load import LoadReport
    from vectoracl.client.connect import AsyncVectorACL, VectorACL, aconnect, connect
    from vectoracl.client.governance import AsyncGovernance, Governance
    from vectoracl.client.retriever import AsyncScopedRetriever, ScopedRetriever
    from vectoracl.config import Config
    from vectoracl.engine.explain import Explanation
    from vectoracl.errors import (
        AdapterNotFoundError,
        BusyError,
        ClosedError,
        ConfigError,
        ContentRefusedError,
        DeniedError,
        HeldError,
        InvalidInputError,
        InvalidPrincipalError,
        InvalidTenantError,
        PostureError,
        RefusedError,
        ReservedFieldError,
        ScopeViolationError,
        SourceRefusedError,
        StoppedTenantError,
        StoreError,
        TooLargeError,
        UnsupportedPredicateError,
        UntaggedWriteError,
        VectorACLError,
    )
    from vectoracl.filters.field_types import FieldType
    from vectoracl.filters.predicate import ALWAYS, NEVER, F, Predicate
    from vectoracl.ingestion.validators import Ingestion, Validator, Verdict
    from vectoracl.model.actions import ALL_ACTIONS, READ, WRITE, Action
    from vectoracl.model.principal import Principal
    from vectoracl.model.queries import Hybrid, Lexical, Like
    from vectoracl.model.records import Chunk, Facet, Hit, Page, Result, Tag, Updated, Written
    from vectoracl.registry.access import Access
    from vectoracl.registry.scopes import Quarantine
    from vectoracl.registry.values import Entry, LabelDefinition
else:
    __getattr__, __dir__ = _lazy_exports(
        __name__,
        {
            "vectoracl.model.actions": "ALL_ACTIONS READ WRITE Action",
            "vectoracl.client.connect": "AsyncVectorACL VectorACL aconnect connect",
            "vectoracl.config": "Config",
            "vectoracl.errors": (
                "AdapterNotFoundError BusyError ClosedError ConfigError ContentRefusedError DeniedError HeldError "
                "InvalidInputError InvalidPrincipalError InvalidTenantError PostureError RefusedError "
                "ReservedFieldError ScopeViolationError SourceRefusedError StoppedTenantError StoreError TooLargeError "
                "UnsupportedPredicateError UntaggedWriteError VectorACLError"
            ),
            "vectoracl.engine.explain": "Explanation",
            "vectoracl.filters.field_types": "FieldType",
            "vectoracl.adapter_api.posture": "Finding Posture Rule",
            "vectoracl.client.bulk_load": "LoadReport",
            "vectoracl.ingestion.validators": "Ingestion Validator Verdict",
            "vectoracl.access.policy": "Decision Policy TenantPolicy",
            "vectoracl.filters.predicate": "ALWAYS NEVER F Predicate",
            "vectoracl.model.principal": "Principal",
            "vectoracl.model.queries": "Hybrid Lexical Like",
            "vectoracl.model.records": "Chunk Facet Hit Page Result Tag Updated Written",
            "vectoracl.client.retriever": "AsyncScopedRetriever ScopedRetriever",
            "vectoracl.access.scope": "Grant Scope",
            "vectoracl.client.governance": "AsyncGovernance Governance",
            "vectoracl.registry.access": "Access",
            "vectoracl.registry.scopes": "Quarantine",
            "vectoracl.registry.values": "Entry LabelDefinition",
        },
    )


__all__ = [
    "ALL_ACTIONS",
    "ALWAYS",
    "NEVER",
    "READ",
    "WRITE",
    "Access",
    "Action",
    "AdapterNotFoundError",
    "AsyncGovernance",
    "AsyncScopedRetriever",
    "AsyncVectorACL",
    "BusyError",
    "Chunk",
    "ClosedError",
    "Config",
    "ConfigError",
    "ContentRefusedError",
    "Decision",
    "DeniedError",
    "Entry",
    "Explanation",
    "F",
    "Facet",
    "FieldType",
    "Finding",
    "Governance",
    "Grant",
    "HeldError",
    "Hit",
    "Hybrid",
    "Ingestion",
    "InvalidInputError",
    "InvalidPrincipalError",
    "InvalidTenantError",
    "LabelDefinition",
    "Lexical",
    "Like",
    "LoadReport",
    "Page",
    "Policy",
    "Posture",
    "PostureError",
    "Predicate",
    "Principal",
    "Quarantine",
    "RefusedError",
    "ReservedFieldError",
    "Result",
    "Rule",
    "Scope",
    "ScopeViolationError",
    "ScopedRetriever",
    "SourceRefusedError",
    "StoppedTenantError",
    "StoreError",
    "Tag",
    "TenantPolicy",
    "TooLargeError",
    "UnsupportedPredicateError",
    "UntaggedWriteError",
    "Updated",
    "Validator",
    "VectorACL",
    "VectorACLError",
    "Verdict",
    "Written",
    "aconnect",
    "connect",
    "hazmat",
    "testing",
]
