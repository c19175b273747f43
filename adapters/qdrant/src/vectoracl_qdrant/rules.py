"""The rules of the posture check; an id never changes its meaning."""

from __future__ import annotations

from typing import Final

from vectoracl.adapter_api.posture import Rules

RULES: Final = Rules()

MISSING = RULES.add(
    "QD001",
    "The collection exists",
    "error",
    "Without the collection requests cannot be served, and its configuration cannot be checked.",
    lowers=True,
)
TENANT_INDEX = RULES.add(
    "QD002",
    "The tenant's key has a keyword index with is_tenant",
    "error",
    "Strict mode requires a condition on a key with is_tenant in a vector query, and the tenants' graphs are built by "
    "that index. Without it, queries do not have to name a tenant.",
    lowers=True,
)
GLOBAL_GRAPH = RULES.add(
    "QD003",
    "There is no graph over all tenants (m = 0)",
    "error",
    "With m above 0 a vector query without a tenant is answered from one graph over the points of all tenants.",
    lowers=True,
)
STRICT_OFF = RULES.add(
    "QD004",
    "Strict mode is on",
    "error",
    "Strict mode is off by default; without it the server accepts every query, with and without a tenant.",
    lowers=True,
)
EXACT = RULES.add(
    "QD005",
    "Strict mode forbids exact search (search_allow_exact = false)",
    "error",
    "This flag is decisive: with its default, a vector query without a tenant is answered by an exact search over the "
    "points of all tenants. The price is that exact ranking and exact counts are refused.",
    lowers=True,
)
UNINDEXED = RULES.add(
    "QD006",
    "Strict mode forbids filters on keys without an index",
    "warning",
    "A filter on a key without an index reads every point of the collection: the cost of one tenant's query depends on "
    "the size of all others.",
    lowers=False,
)
INDEX = RULES.add(
    "QD007",
    "Every key that filters use has its index",
    "error",
    "Under strict mode a filter on a key without its index is refused; without strict mode it reads every point.",
    lowers=False,
)
VECTORS = RULES.add(
    "QD008",
    "The collection's vectors match the configuration",
    "error",
    "With another size or distance every search fails, or ranks differently from the configuration.",
    lowers=True,
)
UNTAGGED = RULES.add(
    "QD009",
    "Every point has a tenant",
    "error",
    "Qdrant accepts points without the tenant's key. No tenant's query returns them, but a program writes without "
    "vectoracl, and a filter with must_not would return them to all tenants.",
    lowers=True,
)
UNREAD = RULES.add(
    "QD010",
    "The points could be examined",
    "warning",
    "The check could not ask whether there are points without a tenant.",
    lowers=False,
)
LOCAL = RULES.add(
    "QD011",
    "A server serves the points",
    "warning",
    "The client's local mode is a Python re-implementation for use without a server. It ignores payload indexes, "
    "strict mode, shard keys and credentials: only our filter separates tenants, and every search reads every point. "
    "Do not use it for other people's data.",
    lowers=False,
)
PLAIN = RULES.add(
    "QD012",
    "The connection is encrypted",
    "warning",
    "Over http the API key and all points cross the network unencrypted.",
    lowers=False,
)
OLD = RULES.add(
    "QD013",
    "The server is Qdrant 1.16 or newer",
    "error",
    "An older server silently ignores the condition of a conditional upsert, so a write under a narrowed scope could "
    "overwrite what is outside it; and the rule that a query has to name a tenant exists since 1.14.1.",
    lowers=True,
)
WORDS = RULES.add(
    "QD014",
    "The sparse vector of the words exists",
    "error",
    "Without it the server refuses lexical and hybrid queries.",
    lowers=False,
)
STATISTICS = RULES.add(
    "QD015",
    "Words are weighed inside the query's scope",
    "error",
    "The IDF modifier weighs words by the texts of all tenants unless the query names its corpus, which servers before "
    "1.19 ignore: scores would depend on other tenants' texts.",
    lowers=True,
)
UNWEIGHED = RULES.add(
    "QD016",
    "Words are weighed by their rarity, as configured",
    "warning",
    "Without the IDF modifier all words of a query have the same weight, so frequent ones decide the order.",
    lowers=False,
)
TIERS = RULES.add(
    "QD017",
    "The collection's sharding matches the configuration",
    "error",
    "With tiers = true on a collection without custom sharding every request is refused; without it, on a collection "
    "that has it, every request would go to all shards, and a tenant that is being moved is in two of them.",
    lowers=True,
)
MARKS = RULES.add(
    "QD018",
    "The key of the marks has its index",
    "error",
    "Concurrent writers distinguish each other's marks by a filter on this key, which strict mode refuses without its "
    "index: a replacement could publish a version and not remove its marks. For an older collection, run "
    "`vectoracl provision`.",
    lowers=True,
)
FIELD = RULES.add(
    "QD019",
    "Every declared field holds values of its type only",
    "error",
    "A value of another type than the declared one does not count: filters do not find it, and negated filters return "
    "it. Write the chunks again under the new declaration.",
    lowers=False,
)
QUANTISED = RULES.add(
    "QD031",
    "Vectors are ranked by their stored numbers",
    "note",
    "The collection keeps a coarser form of its vectors and may rank by it, so scores and their order are not exactly "
    "those of the vectors. Isolation is not affected.",
    lowers=False,
)
