"""A corpus that is hostile by construction: for each owned chunk, many chunks of other tenants are nearer to the query.

Tenant names are random UUIDs derived from the run's seed, so that an adapter cannot know them. Every text, id, document
and metadata value contains a canary, which is a random word that occurs nowhere else.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from vectoracl.model.records import Chunk, Vector

DIMENSION = 16
FIELDS: Mapping[str, str] = {
    "year": "number",
    "lang": "keyword",
    "tags": "keyword[]",
    "sizes": "number[]",
    "when": "datetime",
    "live": "boolean",
    "note": "keyword",
}
K = 5
OWN_MANY = 12
OWN_FEW = 2
DECOYS = 600
LOOKALIKE_KEYS = (
    "Document",
    "chunk_id",
    "label",
    "generation",
    "embedding",
    "content",
    "metadata",
    "_id",
    "id",
    "vector",
)


CANARY = re.compile(r"(?<![0-9a-f])[0-9a-f]{24}(?![0-9a-f])")
"""How canaries are found in a text. Nothing in them says that they are some: a UUID has no run that long."""


class Rng:
    """Everything random of a run comes from here, so that a seed repeats it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.py = random.Random(seed)  # noqa: S311 - repeatable, and no secret
        self.np = np.random.default_rng(seed)

    def uuid(self) -> str:
        """Return a random UUID as text."""
        return str(uuid.UUID(int=self.py.getrandbits(128), version=4))

    def word(self) -> str:
        """Return a canary: a word that occurs nowhere else, and by which nothing but this run is recognised."""
        return f"{self.py.getrandbits(96):024x}"

    def plain(self) -> str:
        """Return a word that every store takes for one and leaves as it is: twelve consonants that end no suffix."""
        return "".join(self.py.choice("bcdfghjkmnpqrtvwxz") for _ in range(12))

    def unit(self) -> Vector:
        """Return a random direction."""
        vector = self.np.normal(size=DIMENSION)
        return np.asarray(vector / np.linalg.norm(vector), np.float32)

    def near(self, centre: Vector, distance: float) -> Vector:
        """Return a direction at about *distance* (as an L2 offset) from *centre*."""
        side = self.np.normal(size=DIMENSION)
        side -= centre * float(side @ centre)
        vector = centre + distance * side / np.linalg.norm(side)
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


@dataclass(slots=True)
class Corpus:
    """The data that is written before the checks: chunks by tenant, all around one `centre`, which is the main query.

    `large_tenant` owns more chunks than K and `small_tenant` fewer; `other_tenants` hold the decoys. `shared_ids` are
    (document, chunk id) pairs that `large_tenant`, `small_tenant` and the first foe all have.
    """

    rng: Rng
    decoys: int
    centre: Vector
    large_tenant: str
    small_tenant: str
    other_tenants: tuple[str, ...]
    chunks: dict[str, list[Chunk]]
    shared_ids: tuple[tuple[str, str], ...]
    canaries: dict[str, set[str]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows the corpus has."""
        return sum(len(some) for some in self.chunks.values())


def chunk(
    rng: Rng,
    vector: Vector,
    *,
    name: str = "",
    document: str = "",
    metadata: Mapping[str, Any] | None = None,
    text: str = "",
) -> Chunk:
    """Return a chunk whose id, document, text and metadata are canaries unless they are given."""
    return Chunk(
        name or f"c-{rng.word()}",
        document or f"d-{rng.word()}",
        text or f"{rng.plain().capitalize()} {rng.word()} {rng.plain()}.",
        vector,
        position=rng.py.randrange(1000),
        metadata={"note": rng.word()} if metadata is None else metadata,
    )


def metadata(rng: Rng, place: int) -> dict[str, Any]:
    """Return metadata in which each field is sometimes there, sometimes not, and keys ape the tag's names."""
    fields: dict[str, Any] = {"note": rng.word()}
    if place % 3:
        fields["year"] = 2000 + place % 7
    if place % 2:
        fields["lang"] = ("en", "fr", "de")[place % 3]
    if place % 4:
        fields["tags"] = [("red", "green", "blue")[one % 3] for one in range(place % 4)]
    if place % 5 == 1:
        fields["sizes"] = [place % 5, 0.5]
    if place % 3 == 1:
        fields["when"] = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=place % 9, microseconds=place)
    if place % 4 == 2:
        fields["live"] = place % 8 == 2
    fields[LOOKALIKE_KEYS[place % len(LOOKALIKE_KEYS)]] = f"{rng.plain()} {rng.word()}"
    return fields


def build(seed: int, decoys: int = DECOYS) -> Corpus:
    """Build the corpus of *seed* with *decoys* foreign chunks nearer to the query than every own chunk."""
    rng = Rng(seed)
    centre = rng.unit()
    many, few = rng.uuid(), rng.uuid()
    other_tenants = tuple(rng.uuid() for _ in range(3))
    shared = tuple((f"d-{rng.word()}", f"c-{rng.word()}") for _ in range(2))
    chunks: dict[str, list[Chunk]] = {}
    for tenant, count in ((many, OWN_MANY), (few, OWN_FEW)):
        documents = [f"d-{rng.word()}" for _ in range(4)]
        own = []
        for place in range(count):
            document, name = shared[place] if place < len(shared) else (documents[place % 4], f"c-{rng.word()}")
            vector = rng.near(centre, 0.35 + 0.05 * place)
            own.append(chunk(rng, vector, name=name, document=document, metadata=metadata(rng, place)))
        chunks[tenant] = own
    for tenant in other_tenants:
        chunks[tenant] = []
    for place in range(decoys):
        document, name = shared[place] if place < len(shared) else (f"d-{rng.word()}", f"c-{rng.word()}")
        owner = other_tenants[0] if place < len(shared) else other_tenants[place % len(other_tenants)]
        vector = rng.near(centre, 0.01 + 0.2 * place / max(1, decoys))
        chunks[owner].append(chunk(rng, vector, name=name, document=document, metadata=metadata(rng, place)))
    return Corpus(rng, decoys, centre, many, few, other_tenants, chunks, shared)
