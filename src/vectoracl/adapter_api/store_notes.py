"""Notes in a store's own metadata: the embedder that made its vectors, and the registry that governs it.

`provision` writes them as one line into a comment, description or metadata of the table or collection, and leaves all
other text there unchanged; the posture reads them. A store without such a line is served normally, and gets one at its
next `provision`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from vectoracl.errors import RefusedError

_MARK = "[vectoracl] "
EMBEDDER = "embedder"
DIMENSION = "dimension"
REGISTRY = "registry"


def read(text: object) -> dict[str, Any]:
    """Return the notes in *text*; empty if it has no such line."""
    for line in text.split("\n") if isinstance(text, str) else ():
        if line.startswith(_MARK):
            try:
                notes = orjson.loads(line.removeprefix(_MARK))
            except orjson.JSONDecodeError:
                continue
            if isinstance(notes, dict):
                return notes
    return {}


def written(text: str | None, notes: Mapping[str, Any]) -> str:
    """Return *text* with the line of *notes*, which replaces an earlier one."""
    lines = [line for line in (text or "").split("\n") if line and not line.startswith(_MARK)]
    return "\n".join([*lines, _MARK + orjson.dumps(dict(notes), option=orjson.OPT_SORT_KEYS).decode()])


def embedder_of(notes: Mapping[str, Any]) -> str | None:
    """Return the identity of the embedder in *notes*, or None."""
    identity = notes.get(EMBEDDER)
    return identity if isinstance(identity, str) and identity else None


def registry_of(notes: Mapping[str, Any]) -> str | None:
    """Return the id of the registry in *notes* that governs the store, or None."""
    identity = notes.get(REGISTRY)
    return identity if isinstance(identity, str) and identity else None


def marked(text: str | None, registry: str | None) -> str:
    """Return *text* with *registry* in its notes (None removes it); the other notes stay."""
    notes = {name: value for name, value in read(text).items() if name != REGISTRY}
    return written(text, notes if registry is None else {**notes, REGISTRY: registry})


def learned(store: str, kept: str | None, wanted: str | None) -> str | None:
    """Return the identity that `provision` has to write; None if there is nothing to write.

    *kept* is the noted embedder, *wanted* the configured one. Raises: RefusedError if they differ.
    """
    if wanted is None or wanted == kept:
        return None
    if kept is not None:
        raise other_embedder(store, kept, wanted)
    return wanted


def other_embedder(store: str, kept: str, wanted: str) -> RefusedError:
    """Return the refusal of vectors of the embedder *wanted* for a store with vectors of *kept*."""
    return RefusedError(
        f"The store {store!r} holds vectors of the embedder {kept!r}, and the configured embedder is {wanted!r}. "
        "Vectors of two embedders cannot be compared, even if their dimensions are equal; nothing was embedded and "
        f"nothing was sent. Configure the embedder {kept!r}, or embed the texts again into a new store: "
        "`vectoracl copy --reembed --from OLD.toml --to NEW.toml`. If your own embedder was moved or renamed, keep its "
        f"identity with the attribute identity = {kept!r}.",
        field="embedder",
    )
