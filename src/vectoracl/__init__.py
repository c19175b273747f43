"""Permission-aware vector retrieval: the asking principal's scope is applied before the store ranks."""

from vectoracl import hazmat, testing
from vectoracl.actions import ALL_ACTIONS, READ, WRITE, Action
from vectoracl.client import AsyncVectorACL, VectorACL, aconnect, connect
from vectoracl.config import Config
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
from vectoracl.explain import Explanation
from vectoracl.fields import FieldType
from vectoracl.findings import Finding, Posture, Rule
from vectoracl.load import LoadReport
from vectoracl.policy import Decision, Policy, TenantPolicy
from vectoracl.predicate import ALWAYS, NEVER, F, Predicate
from vectoracl.principal import Principal
from vectoracl.queries import Hybrid, Lexical, Like
from vectoracl.records import Chunk, Facet, Hit, Page, Result, Tag, Written
from vectoracl.retriever import AsyncScopedRetriever, ScopedRetriever
from vectoracl.scope import Grant, Scope

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
