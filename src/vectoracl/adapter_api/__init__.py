"""The contract between the core and an adapter: the one import of an adapter's author.

    from vectoracl.adapter_api import Capabilities, Flow, Request, Search, hookimpl

A flow of an `Adapter` turns an operation into requests, a `Port` performs each request on the store, and the hooks of
`hookspecs` make both known. What is named here is imported when it is first used.
"""

import typing

from vectoracl._util.lazy_exports import lazy_exports as _lazy_exports

if typing.TYPE_CHECKING:
    from vectoracl.adapter_api.chunk_validation import check_tagged, dump_metadata, load_metadata
    from vectoracl.adapter_api.contract import (
        Adapter,
        Adopted,
        AsyncPort,
        Capabilities,
        DemoStore,
        ExplainsRanking,
        ExplainsWords,
        Faceted,
        Fingerprinted,
        Flow,
        JointMover,
        OneProcess,
        OpenContext,
        Opened,
        Operator,
        Port,
        Progress,
        RegistryMarker,
        Relabeling,
        Request,
        RowKeeper,
        ShareAdopter,
        StoreSettler,
        TenantInfo,
        TenantKeeper,
        TenantRemover,
        Threaded,
        together,
    )
    from vectoracl.adapter_api.deadlines import interrupted_after
    from vectoracl.adapter_api.demo_attacks import AttackContext, Attempt
    from vectoracl.adapter_api.generations import at_generation, version_of
    from vectoracl.adapter_api.hookspecs import hookimpl
    from vectoracl.adapter_api.operations import (
        OPERATIONS,
        ChunkRef,
        Count,
        Delete,
        Facets,
        Fetch,
        Found,
        Include,
        LabelChange,
        Operation,
        Position,
        Relabel,
        Replace,
        Rows,
        Scan,
        Search,
        Upsert,
        selected_by,
    )
    from vectoracl.adapter_api.posture import Finding, Posture, Rule, Rules
    from vectoracl.adapter_api.settings import Model, Secret
    from vectoracl.adapter_api.shares import Share
    from vectoracl.adapter_api.store_identity import address, original, replica
    from vectoracl.adapter_api.tls import Authority, authority
    from vectoracl.errors import (
        AdapterNotFoundError,
        ClosedError,
        ConfigError,
        DeniedError,
        InvalidInputError,
        InvalidTenantError,
        PostureError,
        RefusedError,
        ScopeViolationError,
        StoreError,
        TooLargeError,
        UnsupportedPredicateError,
        UntaggedWriteError,
        VectorACLError,
        caused,
        unchained,
        without_context,
    )
    from vectoracl.filters.boolean_compiler import ALL_ROWS, BOOLEAN_NODES, NO_ROWS, BooleanCompiler
    from vectoracl.filters.datetimes import datetime_text
    from vectoracl.filters.field_types import TAG_FIELDS, FieldType
    from vectoracl.filters.predicate import (
        ALWAYS,
        NEVER,
        Always,
        And,
        ContainsAny,
        Eq,
        In,
        Leaf,
        Missing,
        Never,
        Not,
        Or,
        Predicate,
        Range,
        Scalar,
        StartsWith,
    )
    from vectoracl.filters.semantics import Test, compile_test
    from vectoracl.filters.validation import check_fields
    from vectoracl.model.identifiers import check_tenant, stored_tenant
    from vectoracl.model.queries import RRF_K, HybridQuery, Lexical, ResolvedQuery, VectorQuery
    from vectoracl.model.records import Chunk, Facet, Hit, Record, Tag, Vector, hit_of, stored_key
else:
    __getattr__, __dir__ = _lazy_exports(
        __name__,
        {
            "vectoracl.adapter_api.chunk_validation": "check_tagged dump_metadata load_metadata",
            "vectoracl.adapter_api.contract": (
                "Adapter Adopted AsyncPort Capabilities DemoStore ExplainsRanking ExplainsWords Faceted "
                "Fingerprinted Flow JointMover OneProcess OpenContext Opened Operator Port Progress RegistryMarker "
                "Relabeling Request RowKeeper ShareAdopter StoreSettler TenantInfo TenantKeeper TenantRemover Threaded "
                "together"
            ),
            "vectoracl.adapter_api.deadlines": "interrupted_after",
            "vectoracl.adapter_api.demo_attacks": "Attempt AttackContext",
            "vectoracl.adapter_api.generations": "at_generation version_of",
            "vectoracl.adapter_api.hookspecs": "hookimpl",
            "vectoracl.adapter_api.operations": (
                "OPERATIONS ChunkRef Count Delete Facets Fetch Found Include LabelChange Operation Position "
                "Relabel Replace Rows "
                "Scan Search Upsert "
                "selected_by"
            ),
            "vectoracl.adapter_api.posture": "Finding Posture Rule Rules",
            "vectoracl.adapter_api.settings": "Model Secret",
            "vectoracl.adapter_api.shares": "Share",
            "vectoracl.adapter_api.store_identity": "address original replica",
            "vectoracl.adapter_api.tls": "Authority authority",
            "vectoracl.errors": (
                "AdapterNotFoundError ClosedError ConfigError DeniedError InvalidInputError "
                "InvalidTenantError PostureError RefusedError ScopeViolationError StoreError "
                "TooLargeError UnsupportedPredicateError UntaggedWriteError VectorACLError without_context caused "
                "unchained"
            ),
            "vectoracl.filters.boolean_compiler": "ALL_ROWS BOOLEAN_NODES NO_ROWS BooleanCompiler",
            "vectoracl.filters.datetimes": "datetime_text",
            "vectoracl.filters.field_types": "TAG_FIELDS FieldType",
            "vectoracl.filters.predicate": (
                "ALWAYS NEVER Always And ContainsAny Eq In Leaf Missing Never Not Or Predicate Range Scalar StartsWith"
            ),
            "vectoracl.filters.semantics": "Test compile_test",
            "vectoracl.filters.validation": "check_fields",
            "vectoracl.model.identifiers": "check_tenant stored_tenant",
            "vectoracl.model.queries": "RRF_K HybridQuery Lexical ResolvedQuery VectorQuery",
            "vectoracl.model.records": "Chunk Facet Hit Record Tag Vector hit_of stored_key",
        },
    )

__all__ = [
    "ALL_ROWS",
    "ALWAYS",
    "BOOLEAN_NODES",
    "NEVER",
    "NO_ROWS",
    "OPERATIONS",
    "RRF_K",
    "TAG_FIELDS",
    "Adapter",
    "AdapterNotFoundError",
    "Adopted",
    "Always",
    "And",
    "AsyncPort",
    "AttackContext",
    "Attempt",
    "Authority",
    "BooleanCompiler",
    "Capabilities",
    "Chunk",
    "ChunkRef",
    "ClosedError",
    "ConfigError",
    "ContainsAny",
    "Count",
    "Delete",
    "DemoStore",
    "DeniedError",
    "Eq",
    "ExplainsRanking",
    "ExplainsWords",
    "Facet",
    "Faceted",
    "Facets",
    "Fetch",
    "FieldType",
    "Finding",
    "Fingerprinted",
    "Flow",
    "Found",
    "Hit",
    "HybridQuery",
    "In",
    "Include",
    "InvalidInputError",
    "InvalidTenantError",
    "JointMover",
    "LabelChange",
    "Leaf",
    "Lexical",
    "Missing",
    "Model",
    "Never",
    "Not",
    "OneProcess",
    "OpenContext",
    "Opened",
    "Operation",
    "Operator",
    "Or",
    "Port",
    "Position",
    "Posture",
    "PostureError",
    "Predicate",
    "Progress",
    "Range",
    "Record",
    "RefusedError",
    "RegistryMarker",
    "Relabel",
    "Relabeling",
    "Replace",
    "Request",
    "ResolvedQuery",
    "RowKeeper",
    "Rows",
    "Rule",
    "Rules",
    "Scalar",
    "Scan",
    "ScopeViolationError",
    "Search",
    "Secret",
    "Share",
    "ShareAdopter",
    "StartsWith",
    "StoreError",
    "StoreSettler",
    "Tag",
    "TenantInfo",
    "TenantKeeper",
    "TenantRemover",
    "Test",
    "Threaded",
    "TooLargeError",
    "UnsupportedPredicateError",
    "UntaggedWriteError",
    "Upsert",
    "Vector",
    "VectorACLError",
    "VectorQuery",
    "address",
    "at_generation",
    "authority",
    "caused",
    "check_fields",
    "check_tagged",
    "check_tenant",
    "compile_test",
    "datetime_text",
    "dump_metadata",
    "hit_of",
    "hookimpl",
    "interrupted_after",
    "load_metadata",
    "original",
    "replica",
    "selected_by",
    "stored_key",
    "stored_tenant",
    "together",
    "unchained",
    "version_of",
    "without_context",
]
