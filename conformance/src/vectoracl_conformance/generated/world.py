"""The generated world: the tenants, their chunks and the policy of a run, from a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.errors import VectorACLError
from vectoracl.filters.predicate import Predicate
from vectoracl.model.actions import Action
from vectoracl.model.identifiers import check_id
from vectoracl.model.records import Chunk, Vector
from vectoracl_conformance.generated.calls import Rules
from vectoracl_conformance.generated.values import (
    BIG,
    DIMENSIONS,
    HOSTILE,
    MOMENTS,
    NUMBERS,
    Draw,
    field_names,
    neighbour,
    tenant_names,
)

Size = Literal["quick", "full"]
_THOUSANDS = 1_000
_FEW_PARTITIONS = 16
SIZES: Mapping[Size, tuple[int, ...]] = {"quick": (0, 1, 2, 12, 303), "full": (0, 1, 2, 12, 303, 2_060)}
"""The numbers of rows of the tenants that ask."""
SMALL = 64
"""The number of further tenants, of two to four rows each, as partitions and decoys."""
_LARGE = 0.2
"""The share of worlds that have a large dimension, as real embedders give it, in addition to those that draw one."""
_KINDS = (
    "keyword", "keyword", "keyword", "keyword", "number", "number", "boolean", "datetime", "keyword[]", "number[]",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """The data that is written before the calls.

    Attributes:
        seed: The seed, from which everything is drawn.
        dimension: The dimension of the vectors.
        metric: The metric.
        fields: The declared metadata fields with their types.
        tenants: The chunks of each tenant, written through a handle of it in batches. A tenant may have none.
        rules: The policy of the run, as a table. `plan_reads`, `plan_writes` and `plan_data` add the principals of
            their calls to it, so it is complete when they have returned.
        roles: The names of the fields by what they hold: "few" (a few values), "code" (a value per row), "prose"
            (values at which stores fail), "stem" (values with common beginnings), "number", "fraction", "boolean",
            "datetime", "keywords" and "numbers".
        partitions: The largest number of partitions of one read.
        expiring: Whether chunks may have a time to live, which every read then asks for.
    """

    seed: int
    dimension: int
    metric: str
    fields: Mapping[str, str]
    tenants: Mapping[str, Sequence[Chunk]]
    rules: Rules
    roles: Mapping[str, str] = field(default_factory=dict)
    partitions: int = 64
    expiring: bool = False

    @property
    def embedder(self) -> str | None:
        """The embedder to configure, for queries by text; None if there is none for the dimension."""
        return f"hashed:{self.dimension}" if self.dimension >= 8 else None

    @property
    def more(self) -> Mapping[str, Any]:
        """The settings of a configuration, besides the store, that the calls need."""
        return {"embedder": {"use": self.embedder}} if self.embedder else {}

    def grant(self, principal: str, table: Mapping[Action, Mapping[str, Predicate]]) -> None:
        """Add a principal to the policy."""
        rules: Any = self.rules
        rules[principal] = dict(table)

    def sized(self, size: int) -> str:
        """Return the asking tenant with *size* rows."""
        return self.asking[size]

    @property
    def asking(self) -> Mapping[int, str]:
        """The tenants that ask, by their number of rows."""
        names = list(self.tenants)[: len(self.tenants) - SMALL]
        return {len(self.tenants[name]): name for name in names}

    @property
    def small(self) -> Sequence[str]:
        """The further tenants."""
        return list(self.tenants)[-SMALL:]


_ROLES = ("few", "code", "prose", "stem", "number", "fraction", "boolean", "datetime", "keywords", "numbers")


def build_world(
    seed: int,
    capabilities: Capabilities,
    *,
    size: Size,
    metrics: Sequence[str],
    thousands: bool = True,
    metric: str = "",
    dimensions: Sequence[int] = (),
) -> World:
    """Return the world of *seed*.

    Args:
        seed: The seed.
        capabilities: The declared capabilities of the adapter that is measured.
        size: "quick" has about 600 rows, "full" one tenant of more than 2,000.
        metrics: The metrics that the store can have.
        thousands: Whether a tenant may have thousands of rows, and a read 64 partitions.
        metric: The metric; without it, one of *metrics*.
        dimensions: The dimensions that it can have; without any, the usual ones.

    Returns:
        The world; the same for the same arguments.
    """
    draw = Draw(seed, "world")
    dimension, metric = draw.py.choice(DIMENSIONS), metric or draw.py.choice(sorted(metrics))
    if draw.py.random() < _LARGE:
        dimension = draw.py.choice([one for one in DIMENSIONS if one >= 300])
    dimension = draw.py.choice(dimensions) if dimensions else dimension
    fields = field_names(draw, _KINDS)
    roles = dict(zip(_ROLES, fields, strict=True))
    sizes = [one for one in SIZES[size] if thousands or one < _THOUSANDS]
    names = tenant_names(draw, len(sizes) + SMALL)
    draw.py.shuffle(names)
    for place, name in enumerate(_rich(draw)):
        names[len(sizes) - 1 - place % len(sizes)] = name
    writer = _Writer(draw, dimension, roles)
    tenants = {name: writer.chunks(count) for name, count in zip(names, sizes, strict=False)}
    tenants |= {name: writer.chunks(draw.py.randint(2, 4)) for name in names[len(sizes) :]}
    del capabilities  # the limits of the store bound the calls, not the rows
    return World(seed, dimension, metric, fields, tenants, {}, roles, 64 if thousands else _FEW_PARTITIONS)


def _rich(draw: Draw) -> list[str]:
    """Return names for the two largest tenants: of several shapes at once, and long."""
    word = draw.word(3, 4)
    names = [
        f"{word.capitalize()} {draw.word()}'s/{draw.word()}.{draw.word()}:é中-{draw.words(40)}"[:120].strip(),
        f'{word}-{draw.uuid().upper()}"{draw.word()}|{draw.words(40)}'[: draw.py.choice((65, 129, 250))].strip(),
    ]
    draw.py.shuffle(names)
    return names


class _Writer:
    """Draws chunks. Vectors lie around a few centres, those of small tenants nearest."""

    def __init__(self, draw: Draw, dimension: int, roles: Mapping[str, str]) -> None:
        self.draw = draw
        self.roles = roles
        self.centres = [draw.vector(dimension) for _ in range(5)]
        self.common = [draw.word() for _ in range(40)]
        few = [draw.word() for _ in range(4)]
        self.few = [*few, few[0].upper(), few[1].capitalize(), f"{few[0]} ", f"{few[1]}é", f"{few[1]}e"]
        long = [draw.words(120) for _ in range(3)]
        rare = [
            f"{few[2]}é{few[3]}",
            f"{few[2]}_{few[3]}",
            f"{few[3]}%{few[2]}",
            f"{few[3]}\\{few[2]}",
            f"{few[0]}'s",
            "",
        ]
        self.joined = [f"{few[2]}{sign}{few[3]}" for sign in (",", ", ", ";", "|", " ")]
        self.rare = [*rare, long[0][:70].strip(), long[1][:140].strip(), long[2][:300].strip()]
        stems = [draw.word(1, 2) for _ in range(3)]
        rare_stems = [f"{stems[0]}_{stems[1]}", f"{stems[1]}%{stems[2]}", f"{stems[2]}é", draw.words(40)[:90].strip()]
        self.stems = [*stems, *stems, stems[0].upper(), stems[1].capitalize(), *rare_stems]
        self.said = [self._sentences(), f"{draw.words(3)}."]
        self.shared_ids = [(draw.word(), draw.word()) for _ in range(6)]
        self.hostile_ids = ids(draw)

    def chunks(self, count: int) -> tuple[Chunk, ...]:
        """Return *count* chunks of one tenant."""
        draw = self.draw
        documents = [draw.word(2, 4) for _ in range(max(2, min(45, count // 6)))]
        for one in documents[: len(documents) // 3]:
            documents.append(draw.py.choice((one.upper(), one.capitalize(), f"{one}.", f"{one}{draw.word(1, 1)}")))
        hostile = draw.some(self.hostile_ids, min(len(self.hostile_ids), count // 3))
        chunks: dict[tuple[str, str], Chunk] = {}
        place = 0
        while len(chunks) < count:
            if place < min(len(self.shared_ids), (count + 1) // 2):
                document, name = self.shared_ids[place]
            elif hostile:
                document, name = hostile.pop()
            else:
                document, name = draw.py.choice(documents), f"{draw.word(1, 3)}{draw.py.randrange(100_000)}"
            like = draw.py.choice(list(chunks.values())[-20:]) if place % 3 == 1 else None
            chunks[document, name] = Chunk(
                name,
                document,
                self.text(place),
                self.vector(place, count) if like is None else draw.near(np.asarray(like.vector, np.float32), 0.15),
                position=draw.py.randrange(1_000) if like is None else like.position + draw.py.choice((0, 1)),
                metadata=self.metadata(place) if like is None else self.altered(like.metadata),
            )
            place += 1
        return tuple(chunks.values())

    def vector(self, place: int, count: int) -> Vector:
        """Return a vector near one of the centres; rows of small tenants are the nearest."""
        least = 0.02 if count < 10 else 0.1
        distance = least + self.draw.py.random() * (0.2 if count < 10 else 0.9)
        return self.draw.near(self.centres[place % len(self.centres)], distance)

    def text(self, place: int) -> str:
        """Return a text of a few words, now and then a long one, or one with lines and hostile parts."""
        draw = self.draw
        words = [*draw.some(self.common, draw.py.randint(1, 5)), draw.word(), draw.word()]
        draw.py.shuffle(words)
        text = " ".join(words)
        match place % 20:
            case 7:
                return f"{text}\n\n{draw.py.choice(HOSTILE)}\r\n\t{draw.word()}"
            case 11:
                return text + f" {draw.words(30)}" * 12 + f" {draw.word()}"
            case 3:
                return f"  {text}"
            case 13:
                return f"{text} \n"
            case 5:
                return draw.py.choice(self.said)
            case 9 if place % 40 == 9:
                return ""
            case 19:
                return self._sentences()
            case 17 if place % 60 == 17:
                return text + f" {draw.words(30)}" * 55 + f" {draw.word()}"
        return text

    def _sentences(self) -> str:
        """Return a natural text: sentences of more than 400 characters together."""
        draw = self.draw
        sentences = [f"{draw.word().capitalize()} {draw.words(draw.py.randint(5, 12))}." for _ in range(10)]
        return " ".join(sentences)

    def altered(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return metadata that a store may take for *metadata*: about half of the declared fields differ a little."""
        declared = set(self.roles.values())
        values = {
            name: neighbour(value, self.draw) if name in declared and self.draw.py.random() < 0.5 else value
            for name, value in metadata.items()
        }
        return {name: value for name, value in values.items() if value is not None or name not in declared}

    def metadata(self, place: int) -> dict[str, Any]:
        """Return metadata in which each field is missing now and then, with a few keys that are not declared."""
        draw, roles = self.draw, self.roles
        pick, chance = draw.py.choice, draw.py.random
        values: dict[str, Any] = {
            "few": pick(self.few) if chance() < 0.65 else pick(self.rare),
            "code": f"{draw.word()}-{draw.py.randrange(10**6)}",
            "prose": pick(HOSTILE),
            "stem": pick(self.stems) + draw.word(0, 2),
            "number": pick(NUMBERS) if chance() < 0.2 else draw.py.randrange(50),
            "fraction": round(draw.py.uniform(-2, 2), 3) if chance() < 0.9 else 0,
            "boolean": chance() < 0.5,
            "datetime": pick(MOMENTS)
            if chance() < 0.3
            else datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=draw.py.randrange(10**8)),
            "keywords": draw.some([*self.few, *self.rare[:5], *self.joined, *self.common[:6]], draw.py.randint(1, 4)),
            "numbers": [pick((1, 2, 3, 2.5, BIG, -1)) for _ in range(draw.py.randint(1, 3))],
        }
        metadata = {roles[role]: value for role, value in values.items() if chance() < 0.8}
        if place % 5 == 0:
            metadata[f"{draw.word()} {draw.word()}"] = {
                "a": [1, None, {"b": [True, "x", {}], "c": None}],
                draw.word(): None,
            }
        if place % 40 == 9:
            metadata[draw.word()] = [draw.words(20) for _ in range(40)]
        return metadata


def ids(draw: Draw) -> list[tuple[str, str]]:
    """Return pairs of (document, chunk id) that only an exact comparison keeps apart."""
    a, b, c = draw.word(3), draw.word(3), draw.word(3)
    long = draw.words(40)[:99].strip().ljust(99, "k")
    signs = ("/", ":", "|", "#", "-", "_", " ", ",", ";", ".", "\\", "~", "::", "--", "__", "->", " - ", "||", "\t")
    pairs = [
        (a, b), (a, b.upper()), (a.upper(), b), (a, b.capitalize()), (a, f"{b}."), (a, f"{b}1"), (a, b[:-1]),
        *(pair for sign in signs for pair in ((a, f"{b}{sign}{c}"), (f"{a}{sign}{b}", c))),
        (a, f"{b}0{c}"), (f"{a}{b}", c), (a, b + c),
        (a, f"{b}é"), (a, f"{b}e"), (a, f"{b}É"), (a, f"{b}ß"), (a, f"{b}ss"), (a, f"{b}ı"), (a, f"{b}i"),
        (a, f"{long}1x"), (a, f"{long}1y"), (a, f"{long}2"), (f"{long}1x", a), (f"{long}1y", a),
        (a, f"{long * 2}{long[:57]}p"), (a, f"{long * 2}{long[:57]}q"), (a, f"{long * 5}p"), (a, f"{long * 5}q"),
        (a, "x" * 512), (a, "x" * 511), ("x" * 512, a), (a, "é" * 256), (a, "'"), (a, '"'), (a, "\\"), (a, "%"),
        (a, "_"), (a, "*"), (a, "0"), (a, "00"), (a, "1"), (a, "1.0"), (a, "null"), (a, "中文"), (a, "😀"),
        (a, "'; DELETE FROM x; --"), (a, '{"a": 1}'), (f"https://{a}.example/{b}?c={c}#d", "0"),
    ]  # fmt: skip
    return [pair for pair in dict.fromkeys(pairs) if _valid(*pair)]


def _valid(document: str, name: str) -> bool:
    try:
        check_id(document, "document")
        check_id(name, "chunk id")
    except VectorACLError:
        return False
    return True


def matrix(chunks: Sequence[Chunk], dimension: int) -> Vector:
    """Return the vectors of *chunks* as one array of shape (chunks, dimension)."""
    if not chunks:
        return np.empty((0, dimension), np.float32)
    return np.stack([np.asarray(one.vector, np.float32) for one in chunks])
