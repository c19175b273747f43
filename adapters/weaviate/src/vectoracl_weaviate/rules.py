"""The rules of the posture check; an id never changes its meaning."""

from __future__ import annotations

from typing import Final

from vectoracl.adapter_api.posture import Rules

RULES: Final = Rules()

MISSING = RULES.add(
    "WV001",
    "The collection is there",
    "error",
    "Without the collection requests cannot be served, and its configuration cannot be checked.",
    lowers=True,
)
NO_TENANCY = RULES.add(
    "WV002",
    "The collection is multi-tenant",
    "error",
    "In a collection without multi-tenancy a request without a tenant is answered from the objects of all tenants. It "
    "cannot be switched on later: copy the objects into a collection that has it.",
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
    "Tenants are not activated by a request (autoTenantActivation is off)",
    "error",
    "With automatic activation a read activates a tenant that an operator has deactivated.",
    lowers=True,
)
PROPERTY = RULES.add(
    "WV005",
    "Every property exists, with its type and its index",
    "error",
    "A filter on a property that is missing or not indexed fails or finds nothing; the server creates a missing "
    "property at the next write, tokenized by words.",
    lowers=True,
)
TOKENS = RULES.add(
    "WV006",
    "Everything that is compared is compared as a whole (tokenization FIELD)",
    "error",
    "The default tokenization splits a value into words in lower case: one document's id, label or keyword then "
    "matches another's, and a filter widens.",
    lowers=True,
)
VECTOR = RULES.add(
    "WV007",
    "The collection's vector matches the configuration",
    "error",
    "With another distance the ranking differs from the configuration; without the named vector every search fails.",
    lowers=True,
)
INDEX = RULES.add(
    "WV008",
    "The vector index is of the configured kind",
    "warning",
    "Only a flat index guarantees exact ranking; each kind of index gives different guarantees.",
    lowers=False,
)
STOPWORDS = RULES.add(
    "WV009",
    "No word is left out of the text index",
    "warning",
    "Lexical queries do not find words on the list of stop words.",
    lowers=False,
)
PLAIN = RULES.add(
    "WV010",
    "The connection is encrypted",
    "warning",
    "Over http the keys and all chunks cross the network unencrypted.",
    lowers=False,
)
ANONYMOUS = RULES.add(
    "WV011",
    "The process acts with a key",
    "warning",
    "Without a key the server serves everyone who can connect, without this library.",
    lowers=False,
)
OWN_RIGHTS = RULES.add(
    "WV012",
    "With a key for each tenant, the process's own key reaches no objects",
    "error",
    "If a key in the process reaches several tenants, the tenants' keys protect nothing: the grade is then that of the "
    "server's tenants, not of the credential.",
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
    "The server has a tested version",
    "warning",
    "Negated filters, and pages in key order under a filter, need Weaviate 1.36 or newer; 1.39 was tested.",
    lowers=False,
)
STALE_KEY = RULES.add(
    "WV016",
    "The server accepts each tenant's key",
    "warning",
    "A key that the server does not know gives no access: the tenant reads as if it did not exist.",
    lowers=False,
)
REPLICAS = RULES.add(
    "WV017",
    "The collection has the configured number of replicas",
    "warning",
    "With more than one replica a result is never known to be complete; with fewer than configured, losing a node can "
    "mean losing its tenants.",
    lowers=False,
)
COMPRESSED = RULES.add(
    "WV031",
    "Vectors are ranked by their stored numbers",
    "note",
    "The index ranks by a coarser form of the vectors (PQ, BQ, SQ or RQ), so scores and their order may not be exactly "
    "those of the vectors. Isolation is not affected.",
    lowers=False,
)
