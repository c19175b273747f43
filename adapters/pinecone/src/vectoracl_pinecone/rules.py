"""The rules of the posture check; an id never changes its meaning."""

from __future__ import annotations

from typing import Final

from vectoracl.adapter_api.posture import Rules

RULES: Final = Rules()

MISSING = RULES.add(
    "PC001",
    "The index is there",
    "error",
    "Without the index nothing can be served, and nothing of its configuration can be judged.",
    lowers=True,
)
KEY = RULES.add(
    "PC002",
    "The API key is accepted",
    "error",
    "The key was refused, or it may not read this index. Its role has to be DataPlaneViewer at least.",
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
    "Another metric ranks by something else than the configuration says, and its scores mean something else.",
    lowers=True,
)
DEFAULT = RULES.add(
    "PC005",
    "The default namespace is empty",
    "error",
    "A request without a namespace is one to the default namespace, in the API itself. No tenant of ours is ever "
    "there; records in it were written by something that names no tenant, and are read by all that name none.",
    lowers=True,
)
READ_ONLY = RULES.add(
    "PC006",
    "The API key may write",
    "warning",
    "The key may read only. That is right for a service that only searches; upserts, replacements and deletes fail.",
    lowers=False,
)
UNKNOWN_METRIC = RULES.add(
    "PC007",
    "The index's metric is known",
    "warning",
    "An index that is named by its host alone does not say by what it ranks without listing every tenant's namespace. "
    "A wrong metric would make scores mean something else, and thresholds with them; it opens nothing.",
    lowers=False,
)
PLAIN = RULES.add(
    "PC008",
    "The connection is encrypted",
    "warning",
    "Over http the API key and all records cross the network readable by everybody on the way.",
    lowers=False,
)
WORDS = RULES.add(
    "PC009",
    "The index ranks by words",
    "error",
    "With lexical = true every text's words are written, and queries by words are sent. This index refuses them: a "
    "vector index has to rank by the inner product (dotproduct), a document index has to have been created with the "
    "sparse vector field that words_field names, which cannot be added later.",
    lowers=True,
)
FIELDS = RULES.add(
    "PC010",
    "The index is of the configured kind, with the configured vector field",
    "error",
    "A vector index and a document index are served by different requests, and a document index holds its vectors in "
    "the fields that it was created with: every request of the other kind, or to another field, fails.",
    lowers=True,
)
