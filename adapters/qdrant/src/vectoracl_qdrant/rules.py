"""The rules of the posture check; an id never changes its meaning."""

from __future__ import annotations

from typing import Final

from vectoracl.adapter_api.posture import Rules

RULES: Final = Rules()

MISSING = RULES.add(
    "QD001",
    "The collection is there",
    "error",
    "Without the collection nothing can be served, and nothing of its configuration can be judged.",
    lowers=True,
)
TENANT_INDEX = RULES.add(
    "QD002",
    "The tenant's key has a keyword index with is_tenant",
    "error",
    "Strict mode demands a condition on a key with is_tenant from a vector query, and the tenants' own graphs are "
    "built by that index. Without it no query has to name a tenant.",
    lowers=True,
)
GLOBAL_GRAPH = RULES.add(
    "QD003",
    "There is no graph over all tenants (m = 0)",
    "error",
    "With m above 0 a vector query that names no tenant walks one graph over everybody's points and is answered.",
    lowers=True,
)
STRICT_OFF = RULES.add(
    "QD004",
    "Strict mode is on",
    "error",
    "Strict mode is off by default; without it the server takes every query, with and without a tenant.",
    lowers=True,
)
EXACT = RULES.add(
    "QD005",
    "Strict mode forbids exact search (search_allow_exact = false)",
    "error",
    "This one flag makes the rule: left at its default, a vector query without a tenant is answered by an exact search "
    "over everybody's points. Its price is that exact ranking and exact counts are refused.",
    lowers=True,
)
UNINDEXED = RULES.add(
    "QD006",
    "Strict mode forbids filters on keys without an index",
    "warning",
    "A filter on a key without an index reads every point of the collection: one tenant's query costs by the size of "
    "all others.",
    lowers=False,
)
INDEX = RULES.add(
    "QD007",
    "Every key that is filtered by has its index",
    "error",
    "Under strict mode a filter on a key without its index is refused; without strict mode it reads every point.",
    lowers=False,
)
VECTORS = RULES.add(
    "QD008",
    "The collection's vectors are those of the configuration",
    "error",
    "Another size or distance makes every search fail, or rank by something else than the configuration says.",
    lowers=True,
)
UNTAGGED = RULES.add(
    "QD009",
    "No point is without a tenant",
    "error",
    "Qdrant accepts points without the tenant's key. No tenant's query returns them, but somebody writes past "
    "vectoracl, and a filter by must_not would return them to everybody.",
    lowers=True,
)
UNREAD = RULES.add(
    "QD010",
    "The points could be looked at",
    "warning",
    "Whether there are points without a tenant could not be asked.",
    lowers=False,
)
LOCAL = RULES.add(
    "QD011",
    "A server serves the points",
    "warning",
    "The client's local mode is a Python re-implementation for a start without a server. It ignores payload indexes, "
    "strict mode, shard keys and credentials: nothing but our filter stands between tenants, and every search reads "
    "every point. Do not put other people's data there.",
    lowers=False,
)
PLAIN = RULES.add(
    "QD012",
    "The connection is encrypted",
    "warning",
    "Over http the API key and all points cross the network readable by everybody on the way.",
    lowers=False,
)
OLD = RULES.add(
    "QD013",
    "The server is Qdrant 1.16 or newer",
    "error",
    "An older server ignores the condition of a conditional upsert without a word, so a write under a narrowed scope "
    "could overwrite what is outside of it; and the rule that a query has to name a tenant came with 1.14.1.",
    lowers=True,
)
WORDS = RULES.add(
    "QD014",
    "The sparse vector of the words is there",
    "error",
    "Without it lexical and hybrid queries are refused by the server.",
    lowers=False,
)
STATISTICS = RULES.add(
    "QD015",
    "Words are weighed inside the query's own scope",
    "error",
    "The IDF modifier weighs words by everybody's texts unless the query names its corpus, which servers before 1.19 "
    "do not know and ignore: scores would tell of other tenants' texts.",
    lowers=True,
)
UNWEIGHED = RULES.add(
    "QD016",
    "Words are weighed by their rarity, as configured",
    "warning",
    "Without the IDF modifier the words of a query weigh the same, so frequent ones decide the order.",
    lowers=False,
)
TIERS = RULES.add(
    "QD017",
    "The collection's sharding is that of the configuration",
    "error",
    "With tiers = true on a collection without custom sharding every request is refused; without it, on a collection "
    "that has it, every request would go to all shards, where a tenant that moves lies twice.",
    lowers=True,
)
MARKS = RULES.add(
    "QD018",
    "The key of the marks has its index",
    "error",
    "Writers that meet tell each other's marks apart by a filter on this key, which strict mode refuses without its "
    "index: a replacement could publish a version and not take its marks away. Collections from before get it by "
    "`vectoracl provision`.",
    lowers=True,
)
FIELD = RULES.add(
    "QD019",
    "Every declared field holds values of its type only",
    "error",
    "What is stored as another type than the declared one is no value: no filter finds it, and a negated one returns "
    "it. The chunks have to be written again under the new declaration.",
    lowers=False,
)
QUANTISED = RULES.add(
    "QD031",
    "Vectors are ranked by their own numbers",
    "note",
    "The collection keeps a coarser form of its vectors and may rank by it, so that scores and their order are not "
    "exactly those of the vectors. It opens nothing.",
    lowers=False,
)
