"""Translation of Weaviate's error texts to vectoracl errors, each with the next step.

The server uses one status, 422, and one gRPC code, UNKNOWN, for most errors, from a wrong filter to a node that is
down; only the text distinguishes them. The text may contain objects and addresses, so it is matched but never shown,
except as the cause with `debug_errors`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from vectoracl.errors import StoreError

ADAPTER: Final = "weaviate"
NOT_SERVED: Final = "The tenant is not served here: it does not exist, or is not active. See `vectoracl tenants`."


@dataclass(frozen=True, slots=True)
class Answer:
    """One kind of answer: the code of the error, its text, whether to try again, and whether a write may have begun."""

    code: str
    text: str
    retryable: bool = False
    begun: bool = False


UNREPLICATED: Final = Answer(
    "unavailable",
    "A node of the Weaviate cluster does not answer, and fewer nodes are left than `consistency` requires. Try again "
    "when it is back.",
    retryable=True,
    begun=True,
)
UNSETTLED: Final = Answer(
    "unavailable",
    "The nodes of the Weaviate cluster do not agree yet: one of them has just failed, or has just come back and has "
    "not caught up. Try again.",
    retryable=True,
    begun=True,
)
NOT_PROVISIONED: Final = Answer(
    "not_provisioned",
    "The collection does not exist; right after its creation, one node of a cluster may not know it yet. Run "
    "`vectoracl provision`.",
)
EXISTS: Final = Answer(
    "conflict",
    "It already exists: another `vectoracl provision` created it in the meantime. Run the command again.",
    retryable=True,
)
NO_ASYNC_INDEXING: Final = Answer(
    "no_async_indexing",
    'Weaviate refused the collection. index = "dynamic" needs a server with ASYNC_INDEXING=true; "hnsw" and "flat" do '
    "not.",
)
UNKNOWN: Final = Answer(
    "rejected",
    "Weaviate refused the request for a reason that vectoracl does not recognise. The reason is in the server's log, "
    "and with debug_errors = true in the error's cause; `vectoracl check` compares the collection with the "
    "configuration.",
)

NO_KEY: Final = Answer(
    "unauthorized",
    "Weaviate requires an API key, and none was sent. Configure `api_key` (or `tenant_keys`), and `operator_key` for "
    "operators' commands.",
)
WRONG_KEY: Final = Answer(
    "unauthorized",
    "Weaviate refused the credentials: it does not know the key. Check `api_key`, `operator_key` or the file of "
    "`tenant_keys`, and whether the key was revoked or rotated.",
)
NO_RIGHTS: Final = Answer(
    "unauthorized",
    "Weaviate refused the credentials: it knows the key, but its roles do not allow this, or not for this collection "
    "or tenant. Give its user a role that does; `vectoracl provision` needs an operator's key (`operator_key`).",
)

BUSY: Final = Answer(
    "unavailable",
    "No connection became free in time: all of them are in use. Try again, or raise `parallel`.",
    retryable=True,
)

# The first match counts. Errors of other nodes come first: they are often quoted inside of other messages.
_ANSWERS: Final[tuple[tuple[str, Answer], ...]] = (
    (
        r"cannot achieve consistency level|cannot reach enough replicas|connection refused|no replica found"
        r"|failed to connect|unable to resolve node name|no such host",
        UNREPLICATED,
    ),
    (
        r"enough (weaviate nodes|storage replicas|replicas)",
        Answer("unavailable", "The Weaviate cluster has fewer nodes now than replication_factor. Try again when the "
               "others are up, or set replication_factor to the number of nodes.", retryable=True),
    ),
    (
        r"leader not found|not the leader|leadership (lost|transfer)|deadline exceeded|context canceled"
        r"|rpc error: code = (Canceled|Unavailable|DeadlineExceeded|Aborted)|client connection is closing"
        r"|store not open|is not ready|already shutdown|shutting down|timed out enqueuing|snapshot restored while"
        r"|transport (shutdown|is closing)|append pipeline closed|changed concurrently|transitional state"
        r"|connection reset|broken pipe|i/o timeout|movement in progress|version increment failed",
        UNSETTLED,
    ),
    # The flows ask for the tenant's state, and raise this error only if the tenant is active.
    (
        r"tenant not (found|active)|tenant .{0,80} (not found|not active)|shard not found",
        Answer("rejected", "The tenant exists, but the Weaviate node that answered does not serve it yet. Try again.",
               retryable=True),
    ),
    (
        r'could not find class|class not found|class \\*"\w*\\*": not found|class \S* not present in schema',
        NOT_PROVISIONED,
    ),
    (r"already exists|already in use", EXISTS),
    (r"async indexing is enabled", NO_ASYNC_INDEXING),
    (
        r"vector lengths don't match|vector dimensions do not match|vector with length",
        Answer("rejected", "The vectors have another dimension than the tenant's stored vectors. Configure the "
               "dimension and the embedder of the stored vectors, or re-embed (vectoracl copy --reembed); `vectoracl "
               "check` names both dimensions."),
    ),
    (
        r"does not have named vector|have configuration for vector|target vectors? .{0,80}not found",
        Answer("rejected", "The collection has no vector with the configured name. `vectoracl check` names the vectors "
               "that it has."),
    ),
    (
        r"no such prop|property .{0,80} (does not exist|not found)|IndexFilterable|inverted index|data type filter"
        r"|invalid .{0,40} filter",
        Answer("rejected", "A property of the collection is missing, has another type, or has no index for the filter. "
               "`vectoracl check` names it; `vectoracl provision` adds missing properties."),
    ),
    (
        r"read-?only",
        Answer("unavailable", "Weaviate has made the tenant's shard read-only, as it does when its disk is almost "
               "full. Free disk space, then set the shard to READY.", retryable=True, begun=True),
    ),
    (
        r"not enough memory|memory mappings",
        Answer("unavailable", "Weaviate does not have enough memory for this. Free some, or try again later.",
               retryable=True, begun=True),
    ),
    (
        r"multi-tenancy is not enabled|multi-tenancy disabled",
        Answer("rejected", "The collection is not multi-tenant, which cannot be changed. Configure another name, and "
               "import this collection: vectoracl provision --adopt"),
    ),
)  # fmt: skip
_COMPILED: Final = tuple((re.compile(pattern, re.IGNORECASE | re.DOTALL), answer) for pattern, answer in _ANSWERS)


class ServerMessage(Exception):  # noqa: N818 - not a vectoracl error, but the cause of one
    """The server's original text; it is only used as the cause of an error, with `debug_errors`."""


def answer_for(details: str) -> Answer:
    """Return the answer that matches the server's text *details*; `UNKNOWN` if none does."""
    for pattern, answer in _COMPILED:
        if pattern.search(details):
            return answer
    return UNKNOWN


def error_of(answer: Answer, *, write: bool) -> StoreError:
    """Return the error of *answer*; a *write* that has begun may be applied in part."""
    return StoreError(
        answer.text,
        code=answer.code,
        adapter=ADAPTER,
        sent="unknown" if write and answer.begun else "no",
        retryable=answer.retryable,
    )
