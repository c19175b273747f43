"""The posture check: a flow that probes the index, and a pure function that judges the result.

The grade is "partition" if the index is usable as configured and its default namespace is empty; otherwise "none".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from vectoracl.adapter_api import store_notes
from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.posture import Finding, Posture, Rule
from vectoracl.errors import StoreError
from vectoracl_pinecone import rules
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.names import about_namespace
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
    """Check the index without reading any tenant's namespace; changes nothing.

    The index is not asked for its statistics: they list the namespaces of all tenants, and grow with them. Dimension
    and key are tried on a namespace that no tenant uses; only the control plane knows the metric.
    """
    state = Seen()
    try:
        state = state._replace(schema=(yield from Schema()))
    except StoreError as error:
        if error.code == "not_provisioned":
            return judge(config, state._replace(missing=True))
        if error.code != "unauthorized":  # a key without rights on the control plane: probe the index itself
            raise
    if other_fields(config, state.schema) is not None:
        return judge(config, state)  # the other probes would use the API of the wrong kind
    try:
        yield from MayRead()
    except StoreError as error:
        if error.code not in ("not_provisioned", "unauthorized", "rejected"):
            raise
        state = state._replace(
            missing=error.code == "not_provisioned",
            refused=error.code == "unauthorized",
            dimension=error.code != "rejected",
        )
        if error.code != "rejected":
            return judge(config, state)
    if config.lexical:
        try:
            yield from MayRank()
        except StoreError as error:
            if error.code != "rejected":
                raise
            state = state._replace(words=False)
    try:
        state = state._replace(stray=(yield from DefaultNamespaceProbe()))
    except StoreError as error:
        if error.code not in ("rejected", "not_provisioned"):
            raise
        return judge(config, state._replace(answers=False))
    try:
        yield from MayWrite()
    except StoreError as error:
        # "Not found" refers to the namespace, so the key was accepted.
        if error.code not in ("unauthorized", "not_provisioned"):
            raise
        state = state._replace(writes=error.code == "not_provisioned")
    return judge(config, state._replace(notes=(yield from kept_notes(config))))


class Notes(NamedTuple):
    """The notes of an index: the embedder whose vectors it holds, and the registry that governs it."""

    embedder: str | None = None
    registry: str | None = None


def kept_notes(config: PineconeConfig) -> Flow[Notes]:
    """Return the notes that the index keeps, in records outside of all tenants' namespaces."""
    direction = [1.0] + [0.0] * (config.dimension - 1)
    try:
        matches = yield from Query(None, about_namespace(config.namespace_prefix), direction, 10, None, metadata=True)
    except StoreError as error:
        if error.code not in ("not_provisioned", "rejected"):
            raise
        return Notes()
    lines = {one.id: store_notes.read((one.metadata or {}).get(config.keys.metadata)) for one in matches}
    embedder = store_notes.embedder_of(lines.get(ABOUT, {}))
    return Notes(embedder, _registry_of(lines[MARK]) if MARK in lines else None)


def _registry_of(notes: Mapping[str, Any]) -> str | None:
    """Return the registry of the mark; one that cannot be read is not ours."""
    if notes.get(store_notes.REGISTRY, "") is None:
        return None
    return store_notes.registry_of(notes) or "(unreadable)"


def keeping(config: PineconeConfig, embedder: str) -> Put:
    """Return the request that notes *embedder*."""
    return _noting(config, ABOUT, {store_notes.EMBEDDER: embedder})


def marking(config: PineconeConfig, registry: str | None) -> Put:
    """Return the request that marks the index as governed by *registry*.

    It is another record, because a write of one replaces it as a whole and readers may lag behind.
    """
    return _noting(config, MARK, {store_notes.REGISTRY: registry})


def _noting(config: PineconeConfig, id_: str, notes: Mapping[str, Any]) -> Put:
    direction = [1.0] + [0.0] * (config.dimension - 1)
    record = Record(id_, direction, {config.keys.metadata: store_notes.written(None, notes)})
    return Put(None, about_namespace(config.namespace_prefix), (record,))


ABOUT = "about"
"""The id of the record that names the embedder whose vectors the index holds."""
MARK = "registry"
"""The id of the record that names the registry which governs the index."""


class Seen(NamedTuple):
    """The results of the probes: the control plane's `schema` (None: not known), and those on the index itself."""

    schema: Stats | None = None
    missing: bool = False
    refused: bool = False
    dimension: bool = True
    words: bool = True
    stray: bool = False
    writes: bool = True
    answers: bool = True
    notes: Notes = Notes()


def judge(config: PineconeConfig, seen: Seen) -> Posture:
    """Judge the results of the probes."""
    findings = tuple(_findings(config, seen))
    grade = "none" if any(one.rule.lowers for one in findings) else "partition"
    facts = [("index", config.index or config.host or ""), ("client", f"pinecone {version('pinecone')}")]
    if seen.schema is not None:
        facts.append(("kind", f"{seen.schema.kind} index"))
    return Posture(grade, findings, tuple(facts), embedder=seen.notes.embedder, registry=seen.notes.registry)


def _findings(config: PineconeConfig, seen: Seen) -> Iterator[Finding]:
    name = config.index or "index"
    if seen.refused:
        yield _finding(rules.KEY, name, "the API key was refused", "check api_key and the role of the key")
    elif seen.missing:
        other = "" if seen.schema is not None else f", or it is not a {config.kind or 'vector'} index"
        yield _finding(rules.MISSING, name, f"the index does not exist{other}", _PROVISION)
    else:
        yield from compared(config, name, seen.schema, dimension=seen.dimension)
        if not seen.words:
            fix = "an index with the metric dotproduct" if config.kind == "vector" else "an index with the sparse field"
            yield _finding(rules.WORDS, name, "it refuses a lexical query", f"name {fix}, or set lexical = false")
        if not seen.answers:
            message = f"it refuses the requests of a {config.kind or 'vector'} index"
            yield _finding(rules.FIELDS, name, message, "set kind to that of the index, or set index as well as host")
        if seen.stray:
            yield _finding(
                rules.DEFAULT,
                f"{name}, default namespace",
                "it contains records",
                "import them with `vectoracl provision --adopt`, or delete them",
            )
        if not seen.writes:
            yield _finding(rules.READ_ONLY, name, "the key is read-only", "use a key with the role DataPlaneEditor")
    if config.host is not None and _plain(config.host):
        yield _finding(rules.PLAIN, name, "the address is http, and not on this machine", 'set host = "https://…"')


def compared(config: PineconeConfig, name: str, found: Stats | None, *, dimension: bool = True) -> Iterator[Finding]:
    """Yield the differences between the configuration and an index.

    Args:
        config: The store's configuration.
        name: The subject of the findings.
        found: The description of the index, by itself or by the control plane; None if there is none.
        dimension: Whether the index accepted a vector of the configured dimension.
    """
    other = (
        "configure the vectors that it holds, or name another index, provision it, and copy the chunks (vectoracl copy)"
    )
    fields = other_fields(config, found)
    if fields is not None:
        yield _finding(rules.FIELDS, name, fields, other)
        return
    if found is not None and found.kind == "document" and found.dense is not None and config.lexical:
        words = config.words_field
        if words not in found.sparse:
            message = f"it does not have the sparse vector field {words!r}; it has {_named(found.sparse)}"
            fix = f"{other}; a sparse field cannot be added later"
            yield _finding(rules.WORDS, name, message, fix)
    if found is not None and found.dimension is not None and found.dimension != config.dimension:
        message = f"its vectors have dimension {found.dimension}, but dimension = {config.dimension}"
        yield _finding(rules.DIMENSION, name, message, other)
    elif not dimension:
        message = f"it refuses a query with a vector of dimension {config.dimension}"
        yield _finding(rules.DIMENSION, name, message, "set dimension to that of the index")
    metric = METRICS[config.metric]
    if found is None or found.metric is None:
        message = f"only the control plane knows the metric, and it was not asked; {metric} is assumed"
        fix = "set index as well as host, or run `vectoracl provision`"
        yield _finding(rules.UNKNOWN_METRIC, name, message, fix)
    elif found.metric != metric:
        yield _finding(
            rules.METRIC, name, f"it ranks by {found.metric}, but the configuration asks for {metric}", other
        )


def other_fields(config: PineconeConfig, found: Stats | None) -> str | None:
    """Describe how the kind or the vector fields of the index differ from the configuration; None if they do not."""
    if found is None or found.dense is None:
        return None
    if config.kind is not None and config.kind != found.kind:
        return f'it is a {found.kind} index, but kind = "{config.kind}"'
    field = VECTOR_FIELD if found.kind == "vector" else config.vector_field
    if field in found.dense:
        return None
    if found.kind == "vector":
        return f"it holds only sparse vectors, but dense vectors of dimension {config.dimension} are needed"
    held = f"dense vectors in {_named(found.dense)} and sparse vectors in {_named(found.sparse)}"
    return f"it holds {held}, but vector_field = {field!r}"


def _named(fields: Sequence[str]) -> str:
    return ", ".join(repr(one) for one in fields) or "none"


def _finding(rule: Rule, subject: str, message: str, fix: str) -> Finding:
    return Finding(rule, subject, message, fix)


def _plain(host: str) -> bool:
    parts = urlsplit(host if "://" in host else f"https://{host}")
    return parts.scheme != "https" and parts.hostname not in _HERE
