"""The rules of the posture check; an id never changes its meaning."""

from __future__ import annotations

from typing import Final

from vectoracl.adapter_api.posture import Rules

RULES: Final = Rules()

MISSING = RULES.add(
    "WV001",
    "The collection is there",
    "error",
    "Without the collection nothing can be served, and nothing of its configuration can be judged.",
    lowers=True,
)
NO_TENANCY = RULES.add(
    "WV002",
    "The collection is multi-tenant",
    "error",
    "In a collection without multi-tenancy a request that names no tenant is answered from everybody's objects. It "
    "cannot be switched on later: the objects have to be copied into a collection that has it.",
    lowers=True,
)
AUTO_CREATION = RULES.add(
    "WV003",
    "Tenants are not created by a write (autoTenantCreation is off)",
    "error",
    "With automatic creation a mistyped tenant silently becomes a new one instead of an error.",
    lowers=True,
)
AUTO_ACTIVATION = RULES.add(
    "WV004",
    "Tenants are not woken by a request (autoTenantActivation is off)",
    "error",
    "With automatic activation a mere read wakes a tenant that an operator has deactivated.",
    lowers=True,
)
PROPERTY = RULES.add(
    "WV005",
    "Every property is there, with its type and its index",
    "error",
    "A filter on a property that is missing or not indexed fails or finds nothing; a missing property is made up by "
    "the server at the next write, tokenized by words.",
    lowers=True,
)
TOKENS = RULES.add(
    "WV006",
    "Everything that is compared is compared as a whole (tokenization FIELD)",
    "error",
    "The default tokenization splits a value into words and lowers them: one document's id, label or keyword then "
    "matches another's, and a filter widens.",
    lowers=True,
)
VECTOR = RULES.add(
    "WV007",
    "The collection's vector is that of the configuration",
    "error",
    "Another distance ranks by something else than the configuration says; a missing named vector makes every search "
    "fail.",
    lowers=True,
)
INDEX = RULES.add(
    "WV008",
    "The vector index is of the configured kind",
    "warning",
    "Exact ranking is promised for a flat index only; another kind than the configured one keeps other promises.",
    lowers=False,
)
STOPWORDS = RULES.add(
    "WV009",
    "No word is left out of the text index",
    "warning",
    "Words on the list of stop words are found by no lexical query.",
    lowers=False,
)
PLAIN = RULES.add(
    "WV010",
    "The connection is encrypted",
    "warning",
    "Over http the keys and all chunks cross the network readable by everybody on the way.",
    lowers=False,
)
ANONYMOUS = RULES.add(
    "WV011",
    "The process acts with a key",
    "warning",
    "Without a key the server serves whoever reaches it, without this library.",
    lowers=False,
)
OWN_RIGHTS = RULES.add(
    "WV012",
    "With a key for each tenant, the process's own key reaches no objects",
    "error",
    "A key in the process that reaches several tenants makes the tenants' own keys worthless: the grade is then that "
    "of the server's tenants, not of the credential.",
    lowers=True,
)
TENANT_RIGHTS = RULES.add(
    "WV013",
    "Each tenant's key reaches that tenant and no other",
    "error",
    "The rights of a key name its tenant; a pattern, another tenant, or the right to change rights lets it reach more.",
    lowers=True,
)
KEYS_UNUSED = RULES.add(
    "WV014",
    "The server checks what keys may do (RBAC is on)",
    "error",
    "Without RBAC any key that the server knows reaches every tenant.",
    lowers=True,
)
VERSION = RULES.add(
    "WV015",
    "The server is of a version that was tried",
    "warning",
    "Negated filters, and pages in key order under a filter, need Weaviate 1.36 or newer; 1.39 was tried.",
    lowers=False,
)
STALE_KEY = RULES.add(
    "WV016",
    "The server takes each tenant's key",
    "warning",
    "A key that the server does not know serves nobody: that tenant reads as if it were not there.",
    lowers=False,
)
REPLICAS = RULES.add(
    "WV017",
    "The collection has as many replicas as the configuration says",
    "warning",
    "With more than one replica a result is never known to be complete; with fewer than configured a node that is lost "
    "takes its tenants with it.",
    lowers=False,
)
COMPRESSED = RULES.add(
    "WV031",
    "Vectors are ranked by their own numbers",
    "note",
    "The index ranks by a coarser form of the vectors (PQ, BQ, SQ or RQ), so that scores and their order may not be "
    "exactly those of the vectors. It opens nothing.",
    lowers=False,
)
