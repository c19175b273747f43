"""The rules of the posture check; an id never changes its meaning."""

from __future__ import annotations

from typing import Final

from vectoracl.adapter_api.posture import Rules

RULES: Final = Rules()

MISSING = RULES.add(
    "PC001",
    "The index exists",
    "error",
    "Without the index requests cannot be served, and its configuration cannot be checked.",
    lowers=True,
)
KEY = RULES.add(
    "PC002",
    "The API key is accepted",
    "error",
    "The key was refused, or it may not read this index. It needs at least the role DataPlaneViewer.",
    lowers=True,
)
DIMENSION = RULES.add(
    "PC003",
    "The index's vectors have the configured dimension",
    "error",
    "Vectors of another size are refused, so every search and every write would fail.",
    lowers=True,
)
METRIC = RULES.add(
    "PC004",
    "The index ranks by the configured metric",
    "error",
    "With another metric the ranking differs from the configuration, and scores have another meaning.",
    lowers=True,
)
DEFAULT = RULES.add(
    "PC005",
    "The default namespace is empty",
    "error",
    "The API treats a request without a namespace as one to the default namespace. vectoracl never stores a tenant "
    "there; records in it were written by a program that does not name a tenant, and all such programs read them.",
    lowers=True,
)
READ_ONLY = RULES.add(
    "PC006",
    "The API key may write",
    "warning",
    "The key may only read. That is right for a service that only searches; upserts, replacements and deletes fail.",
    lowers=False,
)
UNKNOWN_METRIC = RULES.add(
    "PC007",
    "The index's metric is known",
    "warning",
    "An index that is named by its host alone reveals its metric only together with a list of all namespaces. With a "
    "wrong metric, scores and thresholds would have another meaning; isolation is not affected.",
    lowers=False,
)
PLAIN = RULES.add(
    "PC008",
    "The connection is encrypted",
    "warning",
    "Over http the API key and all records cross the network unencrypted.",
    lowers=False,
)
WORDS = RULES.add(
    "PC009",
    "The index ranks by words",
    "error",
    "With lexical = true the words of each text are written, and lexical queries are sent. This index refuses them: a "
    "vector index has to rank by the inner product (dotproduct), and a document index has to be created with the "
    "sparse vector field that words_field names, which cannot be added later.",
    lowers=True,
)
FIELDS = RULES.add(
    "PC010",
    "The index is of the configured kind, with the configured vector field",
    "error",
    "Vector indexes and document indexes take different requests, and a document index holds its vectors in the fields "
    "with which it was created: every request of the other kind, or to another field, fails.",
    lowers=True,
)
