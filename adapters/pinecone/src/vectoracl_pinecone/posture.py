"""The posture check: what the index's isolation really is. A flow that reads, and a pure judgement.

The grade is "partition" where the index can be served from and its default namespace is empty, else "none".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from vectoracl.adapter_api import store_notes
from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.posture import Finding, Posture, Rule
from vectoracl.errors import StoreError
from vectoracl_pinecone import rules
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.names import about
from vectoracl_pinecone.requests import (
    DefaultNamespaceProbe,
    MayRank,
    MayRead,
    MayWrite,
    Put,
    Query,
    Record,
    Schema,
    Stats,
)
from vectoracl_pinecone.schema import METRICS, VECTOR_FIELD

_PROVISION = "vectoracl provision"
_HERE: Final = ("localhost", "127.0.0.1", "::1")


def look(config: PineconeConfig) -> Flow[Posture]:
    """Look at the index from outside of all tenants' namespaces; changes nothing.

    What the index says of all its namespaces is not asked for: their names and numbers are the tenants' affair, and
    grow with them. Dimension and key are tried on nobody's namespace, the metric is known to the control plane only.
    """
    seen = Seen()
    try:
        seen = seen._replace(schema=(yield from Schema()))
    except StoreError as error:
        if error.code == "not_provisioned":
            return judge(config, seen._replace(missing=True))
        if error.code != "unauthorized":  # a key of the data plane alone: the index answers for itself
            raise
    if other_fields(config, seen.schema) is not None:
        return judge(config, seen)  # whatever else is asked is asked in the wrong form
    try:
        yield from MayRead()
    except StoreError as error:
        if error.code not in ("not_provisioned", "unauthorized", "rejected"):
            raise
        seen = seen._replace(
            missing=error.code == "not_provisioned",
            refused=error.code == "unauthorized",
            dimension=error.code != "rejected",
        )
        if error.code != "rejected":
            return judge(config, seen)
    if config.lexical:
        try:
            yield from MayRank()
        except StoreError as error:
            if error.code != "rejected":
                raise
            seen = seen._replace(words=False)
    try:
        seen = seen._replace(stray=(yield from DefaultNamespaceProbe()))
    except StoreError as error:
        if error.code not in ("rejected", "not_provisioned"):
            raise
        return judge(config, seen._replace(answers=False))
    try:
        yield from MayWrite()
    except StoreError as error:
        # Not found is the namespace: the key got as far as being told so.
        if error.code not in ("unauthorized", "not_provisioned"):
            raise
        seen = seen._replace(writes=error.code == "not_provisioned")
    return judge(config, seen._replace(embedder=(yield from kept_embedder(config))))


def kept_embedder(config: PineconeConfig) -> Flow[str | None]:
    """Return the identity of the embedder that the index keeps, in a record that no tenant's namespace holds."""
    direction = [1.0] + [0.0] * (config.dimension - 1)
    try:
        found = yield from Query(None, about(config.namespace_prefix), direction, 1, None, metadata=True)
    except StoreError as error:
        if error.code not in ("not_provisioned", "rejected"):
            raise
        return None
    said = [store_notes.read((one.metadata or {}).get(config.keys.metadata)) for one in found if one.id == ABOUT]
    return store_notes.embedder_of(said[0]) if said else None


def keeping(config: PineconeConfig, embedder: str) -> Put:
    """Return the request that keeps *embedder*."""
    line = store_notes.written(None, {store_notes.EMBEDDER: embedder})
    direction = [1.0] + [0.0] * (config.dimension - 1)
    return Put(None, about(config.namespace_prefix), (Record(ABOUT, direction, {config.keys.metadata: line}),))


ABOUT = "about"
"""The id of the record that says whose vectors the index holds."""


class Seen(NamedTuple):
    """What was seen: the control plane's `schema` (None: not known), and what was tried on the index itself."""

    schema: Stats | None = None
    missing: bool = False
    refused: bool = False
    dimension: bool = True
    words: bool = True
    stray: bool = False
    writes: bool = True
    answers: bool = True
    embedder: str | None = None


def judge(config: PineconeConfig, seen: Seen) -> Posture:
    """Judge what was *seen*."""
    findings = tuple(_findings(config, seen))
    grade = "none" if any(one.rule.lowers for one in findings) else "partition"
    facts = [("index", config.index or config.host or ""), ("client", f"pinecone {version('pinecone')}")]
    if seen.schema is not None:
        facts.append(("kind", f"{seen.schema.kind} index"))
    return Posture(grade, findings, tuple(facts), embedder=seen.embedder)


def _findings(config: PineconeConfig, seen: Seen) -> Iterator[Finding]:
    name = config.index or "index"
    if seen.refused:
        yield _finding(rules.KEY, name, "the API key was refused", "check api_key, and the role of the key")
    elif seen.missing:
        other = "" if seen.schema is not None else f", or it is no {config.kind or 'vector'} index"
        yield _finding(rules.MISSING, name, f"there is no such index{other}", _PROVISION)
    else:
        yield from compared(config, name, seen.schema, dimension=seen.dimension)
        if not seen.words:
            fix = "an index with the metric dotproduct" if config.kind == "vector" else "an index with the sparse field"
            yield _finding(rules.WORDS, name, "it refuses a query by words", f"name {fix}, or set lexical = false")
        if not seen.answers:
            message = f"it refuses the requests of a {config.kind or 'vector'} index"
            yield _finding(rules.FIELDS, name, message, "set kind to that of the index, or index beside host")
        if seen.stray:
            yield _finding(
                rules.DEFAULT,
                f"{name}, default namespace",
                "there are records in it",
                "move them with `vectoracl provision --adopt`, or delete them",
            )
        if not seen.writes:
            yield _finding(rules.READ_ONLY, name, "the key may not write", "use a key with the role DataPlaneEditor")
    if config.host is not None and _plain(config.host):
        yield _finding(rules.PLAIN, name, "the address is http and not of this machine", 'set host = "https://…"')


def compared(config: PineconeConfig, name: str, found: Stats | None, *, dimension: bool = True) -> Iterator[Finding]:
    """Compare the configuration with what an index says of itself; *dimension*: a vector of that size was taken."""
    other = "configure what it holds, or name another index, provision it and copy there (vectoracl copy)"
    fields = other_fields(config, found)
    if fields is not None:
        yield _finding(rules.FIELDS, name, fields, other)
        return
    if found is not None and found.kind == "document" and found.dense is not None and config.lexical:
        words = config.words_field
        if words not in found.sparse:
            message = f"it has no sparse vector field {words!r}; it has {_named(found.sparse)}"
            fix = f"{other}; a sparse field cannot be added later"
            yield _finding(rules.WORDS, name, message, fix)
    if found is not None and found.dimension is not None and found.dimension != config.dimension:
        message = f"it holds vectors of {found.dimension} numbers, and dimension is {config.dimension}"
        yield _finding(rules.DIMENSION, name, message, other)
    elif not dimension:
        message = f"it refuses a query by a vector of {config.dimension} numbers"
        yield _finding(rules.DIMENSION, name, message, "set dimension to that of the index")
    wanted = METRICS[config.metric]
    if found is None or found.metric is None:
        message = f"only the control plane knows the metric, and it was not asked; {wanted} is taken on trust"
        yield _finding(rules.UNKNOWN_METRIC, name, message, "set index beside host, or run `vectoracl provision`")
    elif found.metric != wanted:
        yield _finding(rules.METRIC, name, f"it ranks by {found.metric}, and the configuration says {wanted}", other)


def other_fields(config: PineconeConfig, found: Stats | None) -> str | None:
    """Say of which other kind the index was *found* to be, or in which other fields it holds vectors."""
    if found is None or found.dense is None:
        return None
    if config.kind is not None and config.kind != found.kind:
        return f"it is a {found.kind} index, and kind is {config.kind}"
    wanted = VECTOR_FIELD if found.kind == "vector" else config.vector_field
    if wanted in found.dense:
        return None
    if found.kind == "vector":
        return f"it holds sparse vectors alone, and dense ones of {config.dimension} numbers are needed"
    held = f"dense vectors in {_named(found.dense)} and sparse ones in {_named(found.sparse)}"
    return f"it holds {held}, and vector_field is {wanted!r}"


def _named(fields: Sequence[str]) -> str:
    return ", ".join(repr(one) for one in fields) or "none"


def _finding(rule: Rule, subject: str, message: str, fix: str) -> Finding:
    return Finding(rule, subject, message, fix)


def _plain(host: str) -> bool:
    parts = urlsplit(host if "://" in host else f"https://{host}")
    return parts.scheme != "https" and parts.hostname not in _HERE
