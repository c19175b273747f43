"""What a store keeps of itself beside its rows: which embedder made its vectors. Pure.

`provision` writes it where the store has room for words on a table or a collection (a comment, a description,
metadata), as one line that leaves whatever else stands there as it is; the posture reads it. A store from before has
no such line and is served as ever; it gets one at its next `provision`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from vectoracl.errors import RefusedError

_MARK = "[vectoracl] "
EMBEDDER = "embedder"
DIMENSION = "dimension"


def read(text: object) -> dict[str, Any]:
    """Return the notes in *text*; none where it holds no such line."""
    for line in text.split("\n") if isinstance(text, str) else ():
        if line.startswith(_MARK):
            try:
                found = orjson.loads(line.removeprefix(_MARK))
            except orjson.JSONDecodeError:
                continue
            if isinstance(found, dict):
                return found
    return {}


def written(text: str | None, notes: Mapping[str, Any]) -> str:
    """Return *text* with the line of *notes* in place of an earlier one."""
    kept = [line for line in (text or "").split("\n") if line and not line.startswith(_MARK)]
    return "\n".join([*kept, _MARK + orjson.dumps(dict(notes), option=orjson.OPT_SORT_KEYS).decode()])


def embedder_of(notes: Mapping[str, Any]) -> str | None:
    """Return the identity of the embedder that *notes* name."""
    found = notes.get(EMBEDDER)
    return found if isinstance(found, str) and found else None


def learned(store: str, kept: str | None, wanted: str | None) -> str | None:
    """Return the identity that `provision` has to write; None where there is nothing to write.

    *kept* is what the store has, *wanted* the configured embedder. Raises: RefusedError if they are two embedders.
    """
    if wanted is None or wanted == kept:
        return None
    if kept is not None:
        raise other_embedder(store, kept, wanted)
    return wanted


def other_embedder(store: str, kept: str, wanted: str) -> RefusedError:
    """Return the refusal of vectors that *wanted* would make, for a store whose vectors *kept* has made."""
    return RefusedError(
        f"The store {store!r} holds vectors of the embedder {kept!r}, and the one that is configured is {wanted!r}. "
        "Vectors of two embedders cannot be compared, also where they are of one length; nothing was embedded and "
        f"nothing was sent. Configure the embedder {kept!r}, or embed the texts again into a new place: "
        "`vectoracl copy --reembed --from OLD.toml --to NEW.toml`. An embedder of your own that moved or was renamed "
        f"keeps its identity by the attribute identity = {kept!r}.",
        field="embedder",
    )
