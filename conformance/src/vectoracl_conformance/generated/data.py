"""The plan of hostile data: what is written is read back exactly, by every operation, and nothing else with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from vectoracl.adapter_api.chunk_validation import check_metadata
from vectoracl.adapter_api.contract import Capabilities
from vectoracl.errors import VectorACLError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import ContainsAny, Eq, In, Missing, Not, Predicate, Range, StartsWith
from vectoracl.model.actions import ALL_ACTIONS
from vectoracl.model.identifiers import check_id, check_tenant, check_text
from vectoracl.model.principal import Principal
from vectoracl.model.queries import Lexical, Like
from vectoracl.model.records import NEVER_EXPIRES, Chunk
from vectoracl_conformance.generated.calls import Call
from vectoracl_conformance.generated.content import chunk_bytes
from vectoracl_conformance.generated.covering import Coverage, Mode, Plan, Planned, Watch, unwatched
from vectoracl_conformance.generated.scopes import Ground, principal_of
from vectoracl_conformance.generated.values import BOUNDARIES, HOSTILE, MOMENTS, NUMBERS, Draw, alike, tenant_names
from vectoracl_conformance.generated.world import Size, World, ids

_LONGEST_WORD = 2_000
"""The bytes of the longest word that is looked for: PostgreSQL indexes no word of more than 2,046."""
_TOGETHER = 20
"""How many hostile chunks are written by one call."""
_LENGTHS = tuple(
    sorted({one + more for one in (*BOUNDARIES, 255, 4_096, 8_191, 32_768, 65_535) for more in (-1, 0, 1)})
)
"""Numbers of characters of texts."""
_LARGE = 8_000
"""Chunks with longer texts are written one by one: a store may refuse what is too large for one of its requests."""
_KEY = 128
_GONE = (0.0, 0.5, 1.0, 1_000_000_000.25, 1_600_000_000.0)
_LASTING = (4e9, 4e9 + 0.25, 9e9, 2.0**33 + 1 / 1024, NEVER_EXPIRES - 1.5, NEVER_EXPIRES, None)
"""Times from which a chunk is invisible: long ago, and long after every run."""
_MOST_METADATA = 30_000
_UNDECLARED = "not a field"
"""A key that no field has: the name of a field is an identifier."""


@dataclass(frozen=True)
class Kind:
    """One kind of hostile data: the chunks that have it, and the filters that ask for it."""

    name: str
    chunks: Sequence[Chunk]
    filters: Sequence[Predicate] = ()


class Data:
    """Draws hostile chunks, and the calls that write and read them."""

    def __init__(self, world: World, can: Capabilities, size: Size) -> None:
        self.world = world
        self.can = can
        self.size = size
        self.ground = Ground(world, can)
        self.draw = Draw(world.seed, "data")
        self.place = 0

    def chunk(
        self, document: str = "", name: str = "", text: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Chunk:
        """Return a chunk with a random vector; what is not given is drawn."""
        self.place += 1
        draw = self.draw
        return Chunk(
            name or f"{draw.word(2, 3)}{self.place}",
            document or draw.word(2, 4),
            f"{draw.words(3)}." if text is None else text,
            draw.vector(self.world.dimension),
            position=self.place,
            metadata=metadata or {},
        )

    def _with(self, name: str, value: Any) -> Chunk:
        return self.chunk(metadata={name: value})

    # --- what is hostile

    def kinds(self) -> Iterator[Kind]:
        """Yield every kind of hostile data."""
        yield Kind("ids", [self.chunk(document, name) for document, name in ids(self.draw)])
        yield Kind("ids of values", self._ids_of_values())
        yield Kind("texts", [self.chunk(text=one) for one in self._texts()])
        yield from self._values()
        keys = self._keys()
        apart = [self.chunk(metadata={one: self.draw.word()}) for one in keys]
        yield Kind("keys", [*apart, *self._keys_together(keys)])
        yield Kind("undeclared values", [self.chunk(metadata={self.draw.word(): one}) for one in self._json()])
        yield Kind("vectors", list(self._vectors()))
        if self.world.expiring:
            yield Kind("expiry", self._expiring())

    def _ids_of_values(self) -> list[Chunk]:
        chunks = []
        for one in HOSTILE:
            try:
                check_id(one, "chunk id")
            except VectorACLError:
                continue
            chunks += [self.chunk(one, self.draw.word()), self.chunk(self.draw.word(), one), self.chunk(one, one)]
        return chunks

    def _texts(self) -> list[str]:
        draw = self.draw
        texts = [*HOSTILE, " ", "\n", "\t\n\r ", "\r\n", "a\r\nb", "a\nb\n", "\n\n\n", "".join(HOSTILE)]
        line = draw.words(12_000)
        texts += [line[:length] for length in _LENGTHS]
        texts += ["é" * 2_000, "中" * 2_001, "😀" * 1_001, f"{draw.word()}\n" * 1_025]
        texts += [f"{line[:length]}{draw.word()}" for length in (2_000, 10_000)]
        return [one for one in dict.fromkeys(texts) if _is(check_text, one, "text")]

    def _values(self) -> Iterator[Kind]:
        roles = self.world.roles
        words = [one for one in HOSTILE if _is(check_text, one, "value", 1_024)]
        prose, number, moment = roles["prose"], roles["number"], roles["datetime"]
        yield Kind(
            "keyword",
            [self.chunk(metadata={prose: one}) for one in ("", *words)],
            [*self._keyword(prose, ["", *words])],
        )
        numbers = [*NUMBERS, *(-one for one in NUMBERS if one)]
        yield Kind("number", [self._with(number, one) for one in numbers], [*self._ordered(number, numbers)])
        yield Kind("datetime", [self._with(moment, one) for one in MOMENTS], [*self._ordered(moment, MOMENTS)])
        both = [self.chunk(metadata={roles["boolean"]: one}) for one in (True, False)]
        yield Kind("boolean", [*both, self.chunk()], [Eq(roles["boolean"], value=True), Missing(roles["boolean"])])
        many = roles["keywords"]
        lists = [[one] for one in words] + [words[:30], words[30:60], [words[0]] * 3, ["", words[1]]]
        yield Kind(
            "keyword[]",
            [self.chunk(metadata={many: one}) for one in lists],
            [*(ContainsAny(many, (one,)) for one in words), ContainsAny(many, tuple(words)), Not(Missing(many))],
        )
        some = roles["numbers"]
        yield Kind(
            "number[]",
            [self.chunk(metadata={some: [one, 1]}) for one in numbers],
            [ContainsAny(some, (one,)) for one in numbers],
        )

    def _keyword(self, name: str, words: Sequence[str]) -> Iterator[Predicate]:
        for one in words:
            yield Eq(name, one)
            if one:
                yield StartsWith(name, one)
        yield from (Not(Eq(name, one)) for one in words[:10])
        yield In(name, tuple(words))
        yield Not(In(name, tuple(words[::2])))

    def _ordered(self, name: str, values: Sequence[Any]) -> Iterator[Predicate]:
        for one in values:
            yield Eq(name, one)
            side = self.draw.py.choice(("gt", "gte", "lt", "lte"))
            yield Range(name, **{side: one})
        yield In(name, tuple(values))

    def _keys(self) -> list[str]:
        draw = self.draw
        fields = list(self.world.fields)
        near = [one for name in fields for one in (f"{name} ", name.swapcase(), f"{name}.x", f"{name}[]", f"kw_{name}")]
        keys = [
            *near, *HOSTILE, "id", "_id", "vector", "text", "document", "chunk", "label", "rev", "expires", "metadata",
            "payload", "score", "distance", "uuid", "a.b", "a[0]", "a/b", "0", "a" * _KEY, "é" * 64, draw.word(),
        ]  # fmt: skip
        return [one for one in dict.fromkeys(keys) if self._fits({one: "x"}) and one not in fields]

    def _keys_together(self, keys: Sequence[str]) -> list[Chunk]:
        """Return chunks each of which has several keys that a store may take for one."""
        near: dict[str, list[str]] = {}
        for one in (*self.world.fields, *keys, *(one.swapcase() for one in keys)):
            if self._fits({one: self.draw.word()}) or one in self.world.fields:
                near.setdefault(alike(one), []).append(one)
        chunks = []
        for some in near.values():
            names = [one for one in dict.fromkeys(some) if one not in self.world.fields]
            declared = [one for one in some if self.world.fields.get(one) == "keyword"]
            metadata = {one: self.draw.word() for one in (*declared, *names)}
            if len(metadata) > 1 and self._fits(metadata):
                chunks.append(self.chunk(metadata=metadata))
        return chunks

    def _json(self) -> list[Any]:
        draw = self.draw
        nested: Any = [draw.word()]
        for _ in range(6):
            nested = {draw.word(): nested, "": [None, nested] if len(str(nested)) < 2_000 else 1}
        values: list[Any] = [
            "", [], {}, [[]], [{}], {"": ""}, [None], [1, "1", True, None, 1.0], {"a": {"a": {"a": {"a": 1}}}}, True,
            False, 0, 0.0, -1, 1e300, 2**53, [2**53, -(2**53)], {"2020-01-01T00:00:00Z": "2020-01-01T00:00:00Z"},
            nested, ["x" * 100] * 250, {draw.word(3, 4): place for place in range(300)}, "y" * _MOST_METADATA,
            {"a": 1, "A": 2}, {"a.b": 1, "a": {"b": 2}},
            *HOSTILE, {one[:_KEY]: one for one in HOSTILE if len(one.encode()) <= _KEY},
        ]  # fmt: skip
        return [one for one in values if self._fits({_UNDECLARED: one})]

    def _fits(self, metadata: Mapping[str, Any]) -> bool:
        return _is(check_metadata, metadata, {name: FieldType(kind) for name, kind in self.world.fields.items()})

    def _vectors(self) -> Iterator[Chunk]:
        dimension = self.world.dimension
        one = np.zeros(dimension, np.float32)
        one[-1] = 1.0
        for vector in (one, -one, np.full(dimension, 1e-3, np.float32), np.arange(1, dimension + 1, dtype=np.float32)):
            made = self.chunk()
            yield Chunk(made.id, made.document, made.text, vector, made.position, made.metadata)

    def _expiring(self) -> list[Chunk]:
        """Return chunks that have expired and chunks that have not, in any order; some of both share a document."""
        few = self.world.roles["few"]
        words = [self.draw.word() for _ in range(2)]
        chunks = []
        for place, times in enumerate(product(_GONE, _LASTING)):
            document = self.draw.word(3, 4) if place % 3 == 0 else ""
            made = [self.chunk(document, metadata={few: words[place % 2]}) for _ in times]
            chunks += [replace(one, expires=expires) for one, expires in zip(made, times, strict=True)]
        self.draw.py.shuffle(chunks)
        return chunks

    def _expired_again(self, tenant: str, name: str, chunks: Sequence[Chunk]) -> Iterator[Call]:
        """Write chunks again, those that had expired without an expiry and the others with one, and read and delete."""
        who = principal_of(self.world, f"{name}-again", tenant)
        size = min(_TOGETHER, self.can.max_batch)
        turned = [replace(one, expires=None if one.expires in _GONE else _GONE[-1]) for one in chunks[: 2 * size : 2]]
        turned += chunks[1 : 2 * size : 4]
        yield Call(who, "upsert", {"chunks": turned[:size]})
        for document, expires in ((chunks[-1].document, _GONE[-1]), (chunks[-2].document, _LASTING[0])):
            own = [one for one in chunks if one.document == document][:size]
            yield Call(who, "replace", {"document": document, "chunks": own, "expires": expires})
        yield from self._whole(who)
        if "delete" in self.can.operations:
            yield Call(who, "delete", {"ids": [(one.document, one.id) for one in chunks[:4]]})
            yield Call(who, "delete", {"document": chunks[-1].document})

    def _whole(self, who: Principal) -> Iterator[Call]:
        """Ask for everything of a tenant, in each way, without a filter."""
        if self.can.count != "none":
            yield Call(who, "count", {})
        if self.can.facets != "none":
            yield Call(who, "facets", {"field": self.world.roles["few"]})
        yield Call(who, "search", {"query": self.draw.vector(self.world.dimension), "k": self.can.max_k})
        yield Call(who, "scan", {"size": 7, "include": frozenset({"text", "metadata", "vector"})})

    # --- the calls

    def plan(self, watch: Watch = unwatched) -> Plan:
        """Return the calls; *watch* receives the progress."""
        planned = [Planned(call, "sync", {"data": "one tenant"}) for call in self._alone()]
        left_out = {}
        share = 4 if self.size == "quick" else 1
        for number, kind in enumerate(self.kinds()):
            watch(kind.name)
            tenant, name = self._tenant(number), f"data-{kind.name}"
            chunks = [one for one in kind.chunks if chunk_bytes(one) <= self.can.max_chunk_bytes]
            if len(chunks) < len(kind.chunks):
                left_out[f"{kind.name}: {len(kind.chunks) - len(chunks)} chunks"] = (
                    f"more than {self.can.max_chunk_bytes:,} bytes of a chunk"
                )
            chunks = chunks[::share]
            filters = [one for one in kind.filters if self.ground.supports(one)][::share]
            if len(filters) < len(kind.filters):
                left_out[f"{kind.name}: filters"] = "the adapter does not declare them, or the plan is a quick one"
            mode: Mode = "async" if number % 2 else "sync"
            calls = [*self._written(tenant, name, chunks), *self._read(tenant, name, chunks, filters)]
            if kind.name == "expiry":
                calls += self._expired_again(tenant, name, chunks)
            planned += [Planned(call, mode, {"data": kind.name}) for call in calls]
        for number, tenant in enumerate(self._names()[::share]):
            calls = list(self._in_tenant(tenant, number))
            planned += [Planned(call, "async" if number % 2 else "sync", {"data": "tenants' names"}) for call in calls]
        count = len({one.parameters["data"] for one in planned})
        return Plan(tuple(planned), Coverage(len(planned), (count, count), (0, 0), left_out))

    def _alone(self) -> Iterator[Call]:
        """Write to one tenant, before any other has rows where the world was not written, and change a part of it."""
        tenant, name, draw = self._tenant(0), self.world.roles["few"], self.draw
        values = [draw.word(), draw.word()]
        part = Eq(name, values[0])
        if not self.ground.supports(part):
            return
        chunks = [self.chunk(metadata={name: values[place % 2]}) for place in range(12)]
        everything = principal_of(self.world, "data-all", tenant)
        some = principal_of(self.world, "data-part", tenant)
        self.world.grant(some.id, {action: {tenant: part} for action in ALL_ACTIONS})
        yield Call(everything, "upsert", {"chunks": chunks[: self.can.max_batch]})
        if self.can.count != "none":
            yield Call(some, "count", {})
        if self.can.facets != "none":
            yield Call(some, "facets", {"field": name})
        yield Call(some, "search", {"query": chunks[1].vector, "k": 12})
        if "delete" in self.can.operations:
            yield Call(some, "delete", {"ids": [(one.document, one.id) for one in chunks[:3]]})
            yield Call(some, "delete", {"ids": [one.id for one in chunks[3:6]]})
            yield Call(some, "delete", {"where": Eq(name, values[1])})
            yield Call(some, "delete", {"document": chunks[7].document})
        yield Call(everything, "scan", {})

    def _tenant(self, number: int) -> str:
        names = sorted(self.world.small)
        return names[number % len(names)]

    def _names(self) -> list[str]:
        """Return tenants' names of every shape that the world has not written to, those that look alike together."""
        draw = Draw(self.world.seed, "names")
        return [one for one in tenant_names(draw, 46) if one not in self.world.tenants and _is(check_tenant, one)]

    def _written(self, tenant: str, name: str, chunks: Sequence[Chunk]) -> Iterator[Call]:
        size = min(_TOGETHER, self.can.max_batch)
        who = principal_of(self.world, f"{name}-writer", tenant)
        large = [one for one in chunks if len(one.text) > _LARGE]
        chunks = [one for one in chunks if len(one.text) <= _LARGE]
        yield from (Call(who, "upsert", {"chunks": [one]}) for one in large)
        for start in range(0, len(chunks), size):
            some = list(chunks[start : start + size])
            if start % (4 * size) == 2 * size:
                yield Call(who, "load", {"stream": some})
            else:
                yield Call(who, "upsert", {"chunks": some})

    def _read(self, tenant: str, name: str, chunks: Sequence[Chunk], filters: Sequence[Predicate]) -> Iterator[Call]:
        """Read what was written, by id, by filter, by similarity and by paging."""
        draw = self.draw
        who = principal_of(self.world, f"{name}-reader", tenant)
        everything = frozenset({"text", "metadata", "vector"})
        # Whether "ß" is found by "ss" is the store's own: some fold letters, some only write them small.
        either = {word.casefold() for one in chunks for word in one.text.split() if word.casefold() != word.lower()}
        for start in range(0, len(chunks), _TOGETHER):
            some = chunks[start : start + _TOGETHER]
            yield Call(who, "fetch", {"ids": [(one.document, one.id) for one in some], "include": everything})
            yield Call(who, "fetch", {"ids": [one.id for one in some], "include": everything})
            one = draw.py.choice(some)
            vector = draw.near(np.asarray(one.vector, np.float32), 0.01)
            yield Call(who, "search", {"query": vector, "k": 5, "include": everything})
            yield Call(who, "search", {"query": Like(one.id, one.document), "k": 3})
            named = Eq("@document", one.document)
            if self.ground.supports(named):
                yield Call(who, "search", {"query": vector, "k": 3, "where": named})
                yield Call(who, "page", {"where": named, "include": everything})
            words = [
                word
                for word in one.text.split()
                if word.isalpha() and len(word.encode()) <= _LONGEST_WORD and word.casefold() not in either
            ][:3]
            if words and "lexical" in self.can.queries:
                yield Call(who, "search", {"query": Lexical(" ".join(words)), "k": 5})
        for place, where in enumerate(filters):
            yield Call(who, "page", {"where": where, "include": frozenset({"metadata"})})
            if place % 3 == 0 and self.can.count != "none":
                yield Call(who, "count", {"where": where})
            if place % 3 == 1:
                yield Call(who, "search", {"query": draw.vector(self.world.dimension), "where": where})
        if self.can.facets != "none":
            counted = [one for one, kind in self.world.fields.items() if kind != "datetime"]
            yield from (Call(who, "facets", {"field": one}) for one in ("@document", *counted))
        if self.can.count != "none":
            yield Call(who, "count", {})
        yield Call(who, "scan", {"size": 7, "include": everything})

    def _in_tenant(self, tenant: str, number: int) -> Iterator[Call]:
        """Write a few chunks to a tenant, read them, and delete one; all such tenants have the same ids."""
        who = principal_of(self.world, f"names-{number}", tenant)
        document, name = Draw(self.world.seed, "shared").word(), Draw(self.world.seed, "shared id").word()
        chunks = [self.chunk(document, name), self.chunk(document, f"{name}1"), self.chunk(document.upper(), name)]
        yield Call(who, "count", {}) if self.can.count != "none" else Call(who, "page", {})
        yield Call(who, "upsert", {"chunks": chunks})
        yield Call(who, "scan", {"include": frozenset({"text", "metadata", "vector"})})
        yield Call(who, "search", {"query": chunks[0].vector, "k": 4})
        yield Call(who, "delete", {"ids": [(document, name)]})
        yield Call(who, "fetch", {"ids": [(document, name), (document.upper(), name), name]})


def _is(check: Any, *args: Any) -> bool:
    try:
        check(*args)
    except VectorACLError:
        return False
    return True
