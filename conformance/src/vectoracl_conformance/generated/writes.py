"""The plan of writes: each follows a write that lays out the rows which it changes, leaves alone, or is denied for.

The rows that are laid out have the ids of rows of other tenants, so that a write that reaches too far is seen there.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from vectoracl.adapter_api.chunk_validation import check_metadata
from vectoracl.adapter_api.contract import Capabilities
from vectoracl.errors import VectorACLError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import ALWAYS, Predicate, conjunction
from vectoracl.filters.semantics import compile_test
from vectoracl.model.principal import Principal
from vectoracl.model.records import DEFAULT_LABEL, NEVER_EXPIRES, Chunk, Tag
from vectoracl_conformance.generated.calls import ACTIONS, Call
from vectoracl_conformance.generated.covering import (
    Coverage,
    Pair,
    Parameter,
    Plan,
    Planned,
    Space,
    Watch,
    measured,
    rows_of,
    unwatched,
    watched,
)
from vectoracl_conformance.generated.episodes import planned_episodes
from vectoracl_conformance.generated.filters import WRITER, Rows, misread
from vectoracl_conformance.generated.scopes import (
    SCOPE_PARAMETERS,
    SCOPES,
    Draft,
    Ground,
    NoLevelsError,
    declared,
    draft,
    leaf_of,
    scope_constraints,
    scope_parameters,
    shape_nodes,
)
from vectoracl_conformance.generated.values import HOSTILE, Draw, tenant_names
from vectoracl_conformance.generated.world import Size, World

FEW_WRITES = 60
"""The number of writes of a quick plan, besides those that lay out rows."""
_EPISODES: Mapping[Size, int] = {"quick": 1, "full": 6}
_DOCUMENTS, _EACH = 5, 4
_LAID = 130
"""The largest number of rows that are laid out before one write."""
_LAID_LARGE = 160
"""The same before a replacement, with seven of eight rows in one document: more than the boundaries near 100."""
_SCOPES = (
    "tenant", "policy", "policy Not", "policy And", "policy Or", "policy Or in And", "policy Not of And", "policy deep",
    "policy none", "narrow", "narrow Or", "narrow twice", "narrow actions", "policy Or, narrow Or",
)  # fmt: skip
_LEAVES = (
    "Always", "Eq", "In", "In 101, In 301", "In 1001, In 2001", "Range", "ContainsAny", "StartsWith", "Missing",
    "@document, @chunk", "@label, @expires",
)  # fmt: skip
_POLICY_LEAVES = (
    ("@path, @time, @position", "@rev, @producer"),
    ("@path, @time, @position", "@rev, @producer", "@docgen, @generation"),
)
"""Further leaves of the scope of what adds rows, and of a delete: the former may not name the generation."""
_COUNTS = (0, 1, 2, 10, 11, 51, 65, 101, 129, 257, 301, 501, 1_001, 2_001)
_DEAR = {"257": 1.0, "301": 1.0, "501": 2.0, "1001": 4.0, "2001": 8.0}
_ARGUMENTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "upsert": {"chunks": ("count", "records", "content"), "timeout": ("timeout",)},
    "replace": {
        "document": ("document",), "chunks": ("count", "records", "content"), "expires": (), "timeout": ("timeout",),
    },
    "update_metadata": {"document": ("updated",), "changes": ("changes",), "timeout": ("timeout",)},
    "delete": {"ids": ("selector",), "document": ("selector",), "where": ("selector",), "timeout": ("timeout",)},
    "load": {
        "stream": ("count", "records", "content"), "batch": ("batch",), "resume": (), "progress": (),
    },
}  # fmt: skip
"""The parameters that stand for each argument of a write."""
_UNUSED = {
    "resume": "a file of the caller",
    "progress": "a function of the caller, which cannot be sent",
    "expires": "refused but with `expiring = true`, as the plan of hostile data has it",
}
_CHANGES = ("one key", "several keys", "a new key", "a key removed", "set and removed", "nothing new", "bad")
"""The changes of metadata of a document."""
_RECORDS = (
    "new", "overwrite", "mixed", "outside", "overwrites outside first", "overwrites outside last", "bad",
)  # fmt: skip
"""The records of a write; "outside" and "bad" have one such record at the first, a middle or the last place."""
_FAULTY = ("outside", "overwrites outside first", "overwrites outside last", "bad")
_CONTENT = (
    "usual", "no text", "text 1999", "text 2001", "text 10001", "text 70000", "text hostile", "no metadata",
    "large metadata", "deep metadata", "many keys", "vector as list", "position limits", "long ids",
)  # fmt: skip
_BYTES = {"text 10001": 10_001, "text 70000": 70_000, "large metadata": 14_000}
"""The bytes of a chunk of some contents, at least."""
_WHERE = (
    "Always", "Eq keyword", "Eq hostile", "In", "In 101, In 301", "In 1001, In 2001", "Range", "ContainsAny",
    "StartsWith", "Missing", "@document, @chunk", "@position",
)  # fmt: skip
_SHAPES = ("Not|And", "Or|Or in And", "deep|deepest")
_AS_SCOPE = "as the scope"
_MANY = 500
"""More records than these, in one call, are written in fewer ways: it takes long."""
_ONE_BY_ONE = ("ContainsAny", "StartsWith", "Missing", "@path, @time, @position")
_SCALED_ONE_BY_ONE = (
    "text 1999", "text 10001", "text 70000", "no metadata", "deep metadata", "many keys", "vector as list",
    "position limits",
)  # fmt: skip
"""Leaves and contents that are not combined with the largest numbers of records, which take long."""
_IDS = (0, 1, 2, 10, 11, 51, 65, 101, 129, 301, 501, 1_000)
_SAME_TEXT = 0.2
_DRAWS = 2
"""How often a write is drawn, at most, until a share of `_ENOUGH` of the misread forms of its scope changes it."""
_ENOUGH = 0.5
_NESTED = 0.5
"""How often the metadata that change are those of a chunk that has a mapping among them."""
_USES = 4
"""How many writes, at most, are about the same laid out rows, while most of those are there."""
_WHOLE = ("tenant", "policy none")
"""The scopes that hide no row."""
_BEYOND: Mapping[str, tuple[int, ...]] = {"257": (257, 263), "501": (501, 531), "1001": (1_001, 1_001, 1_060)}
"""Numbers of chunks that a level stands for, where the store takes as many in one call."""
_QUOTED = ('{0}\'s "{1}"', "{0}'; --{1}", "{0}\\\\{1}", "{0}%_{1}", '{0}"{1}')
_TENANTS = ("never seen", "written before", "of the world")
_PARTITIONS = ("own", "another", "own of three")
_BARE = (0.0, 0.0, 0.3)
"""The shares of the ids of a deletion that are chunk ids alone, next to pairs."""
_LARGEST = 0.4
"""How often the document that is replaced or deleted is the largest one."""


def _bad(draw: Draw, dimension: int, fields: Mapping[str, str]) -> Callable[[Chunk], Chunk]:
    """Return what makes a chunk one that has to be refused before anything is sent."""
    number = next((name for name, kind in fields.items() if kind == "number"), "")
    kinds: list[Callable[[Chunk], Chunk]] = [
        lambda one: replace(one, vector=[0.5] * (dimension + 1)),
        lambda one: replace(one, vector=[float("nan")] * dimension),
        lambda one: replace(one, text=f"{one.text}\0"),
        lambda one: replace(one, id=""),
        lambda one: replace(one, id="x" * 513),
        lambda one: replace(one, id=f"{one.id} "),
        lambda one: replace(one, document="\u200b"),
        lambda one: replace(one, position=-1),
        lambda one: replace(one, metadata={**one.metadata, "tenant": "x"}),
        lambda one: replace(one, metadata={**one.metadata, "@label": "x"}),
        lambda one: replace(one, metadata={**one.metadata, "big": "x" * 40_000}),
        lambda one: replace(one, metadata={**one.metadata, number: "1"}),
    ]
    return draw.py.choice(kinds)


def _scaled(content: str, chunk: Chunk, draw: Draw, fields: Mapping[str, str]) -> Chunk:
    """Return *chunk* with one extreme part, with the metadata of its declared fields where possible."""
    metadata: dict[str, Any] = dict(chunk.metadata)
    match content.split():
        case ["no", "text"]:
            return replace(chunk, text="")
        case ["text", "hostile"]:
            return replace(chunk, text="\n".join(one for one in HOSTILE if len(one) < 300))
        case ["text", length]:
            return replace(chunk, text=(chunk.text + f" {draw.words(40)}\n" * (int(length) // 80 + 2))[: int(length)])
        case ["no", "metadata"]:
            return replace(chunk, metadata={})
        case ["large", "metadata"]:
            metadata[draw.word()] = "é" * 7_000
        case ["deep", "metadata"]:
            nested: Any = draw.word()
            for _ in range(8):
                nested = {draw.word(): [nested]}
            metadata[draw.word()] = nested["".join(nested)]
        case ["many", "keys"]:
            metadata |= {f"{draw.word(2, 4)} {place}": place for place in range(200)}
        case ["vector", "as", "list"]:
            return replace(chunk, vector=np.asarray(chunk.vector, np.float32).tolist())
        case ["position", "limits"]:
            return replace(chunk, position=draw.py.choice((0, 2**31 - 1)))
        case ["long", "ids"]:
            name = chunk.id + draw.words(200)
            return replace(chunk, id=name[: draw.py.choice((65, 101, 129, 257, 301, 501, 512))].strip())
    try:
        check_metadata(metadata, {name: FieldType(kind) for name, kind in fields.items()})
    except VectorACLError:
        return chunk
    return replace(chunk, metadata=metadata)


@dataclass
class Stage:
    """The rows that are laid out in one partition before a write, and the scope of the write.

    Attributes:
        draw: The source of everything random.
        partition: The partition that is written to.
        laid: The rows.
        written: Who lays out a row, and by which method.
        other: Rows of other tenants, from which new ones are made.
        inside: Whether the scope permits to write a chunk.
        method: The write.
    """

    draw: Draw
    partition: str
    laid: Sequence[Chunk]
    other: Sequence[Chunk]
    written: Callable[[Chunk], tuple[str, str]]
    test: Callable[[Tag, Mapping[str, Any]], bool]
    producer: str
    method: str
    numbers: int = 0
    last: str = ""
    where: str = ""

    def updated(self, chunk: Chunk, changes: Mapping[str, Any]) -> Chunk:
        """Return *chunk* with *changes* of its metadata."""
        kept = {key: value for key, value in {**chunk.metadata, **changes}.items() if value is not None}
        return replace(chunk, metadata=kept)

    def _updates(self, arguments: Mapping[str, Any], roles: Mapping[str, str]) -> Callable[[Predicate], object]:
        named = [one for one in self.laid if one.document == arguments["document"]]
        old = Rows(self.partition, named, roles, written=self.written)
        after = [self.updated(one, arguments["changes"]) for one in named]
        new = Rows(self.partition, after, roles, written=self.written)

        def effect(scope: Predicate) -> object:
            before = old.mask(scope)
            return bool(before.any()), bool(before.all() and new.mask(scope).all())

        return effect

    def effects(self, arguments: Mapping[str, Any], roles: Mapping[str, str]) -> Callable[[Predicate], object]:
        """Return what says what the write does in a given scope: which rows it deletes, or whether it is refused."""
        if self.method == "update_metadata":
            return self._updates(arguments, roles)
        if self.method == "delete":
            gone = self.selected(arguments)
            named = Rows(self.partition, [one for one in self.laid if gone(one)], roles, written=self.written)
            return lambda scope: named.mask(scope).tobytes()
        chunks = arguments["stream" if self.method == "load" else "chunks"]
        keys = {(one.document, one.id) for one in chunks}
        document = arguments.get("document")
        kept = [one for one in self.laid if one.document == document or (one.document, one.id) in keys]
        old = Rows(self.partition, kept, roles, written=self.written)
        new = Rows(self.partition, chunks, roles, written=lambda _: (self.producer, self.method))
        return lambda scope: bool(old.mask(scope).all() and new.mask(scope).all())

    def left(self, arguments: Mapping[str, Any]) -> list[Chunk]:
        """Return the laid out rows that are still there, as they were, after the write."""
        if self.method == "delete":
            gone = self.selected(arguments)
            return [one for one in self.laid if not (gone(one) and self.inside(one, old=True))]
        if self.method == "update_metadata":
            return [one for one in self.laid if one.document != arguments["document"]]
        keys = {(one.document, one.id) for one in arguments["stream" if self.method == "load" else "chunks"]}
        named = arguments.get("document")
        return [one for one in self.laid if one.document != named and (one.document, one.id) not in keys]

    def selected(self, arguments: Mapping[str, Any]) -> Callable[[Chunk], bool]:
        """Return the test whether the arguments of a deletion name a row."""
        if "ids" in arguments:
            named = frozenset(arguments["ids"])
            return lambda one: one.id in named or (one.document, one.id) in named
        if "document" in arguments:
            return lambda one: bool(one.document == arguments["document"])
        test = compile_test(arguments["where"])
        return lambda one: test(self.tag(one, *self.written(one)), one.metadata)

    def tag(self, chunk: Chunk, producer: str, path: str) -> Tag:
        """Return the tag of *chunk* as a row that *producer* wrote by the method *path*."""
        return Tag(
            self.partition, chunk.document, chunk.id, 0, DEFAULT_LABEL, 0, NEVER_EXPIRES, producer, path, 2e9,
            chunk.position,
        )  # fmt: skip

    def inside(self, chunk: Chunk, *, old: bool = False) -> bool:
        """Return whether the scope permits to write *chunk*, or if it is *old* to overwrite the row that it is."""
        producer, path = self.written(chunk) if old else (self.producer, self.method)
        return self.test(self.tag(chunk, producer, path), chunk.metadata)

    def fresh(self, template: Chunk, document: str) -> Chunk:
        """Return a new chunk with the content of *template*."""
        self.numbers += 1
        name = f"{self.draw.word(2, 3)}{self.numbers}"
        if self.numbers % 6 == 0 and not document and self.last:  # one id in two documents
            name = self.last if template.document != self.where else name
        self.last, self.where = name, template.document
        return replace(template, id=name, document=document or template.document)

    def new(self, count: int, document: str, *, inside: bool) -> list[Chunk]:
        """Return up to *count* new chunks inside of the scope or outside; any, if there are none."""
        templates = [*self.laid, *self.other]
        fit = list(islice((one for one in templates if self.inside(self.fresh(one, document)) is inside), count))
        return [self.fresh(one, document) for one in _cycled(fit or (templates if inside else ()), count)]

    def old(self, document: str, *, inside: bool) -> list[Chunk]:
        """Return laid out chunks that the scope permits to change, or those that it does not, with other content."""
        found = []
        for one in self.laid:
            if (not document or one.document == document) and self.inside(one, old=True) is inside:
                found.append(one)
        self.draw.py.shuffle(found)
        # A chunk that is outside is overwritten by one that is inside, so that only the old one is in the way.
        changed = [self._changed(one) for one in found[: None if inside else 6]]
        return [one for one in changed if inside or self.inside(one)]

    def _changed(self, chunk: Chunk) -> Chunk:
        """Return *chunk* with other content that the scope permits, or if there is none with another text."""
        for other in self.draw.some(self.other, 12):
            changed: Chunk = replace(other, id=chunk.id, document=chunk.document)
            if self.draw.py.random() < _SAME_TEXT:
                changed = replace(changed, text=chunk.text)
            if self.inside(changed):
                return changed
        return replace(chunk, text=f"{chunk.text} {self.draw.word()}")


def _cycled(items: Sequence[Chunk], count: int) -> list[Chunk]:
    return [items[place % len(items)] for place in range(count)] if items else []


@dataclass(frozen=True)
class Layout:
    """The rows that are laid out in one partition, and by whom.

    Attributes:
        tenant: The tenant of the principal who then writes.
        others: Two other tenants.
        partition: The partition.
        laid: The rows; after writes, those that are still there.
        clerks: Who lays out rows, and by which method.
        uses: The number of writes so far.
    """

    tenant: str
    others: Sequence[str]
    partition: str
    laid: list[Chunk]
    clerks: Sequence[tuple[str, str]]
    uses: int = 0

    def written(self, chunk: Chunk) -> tuple[str, str]:
        """Return who lays out *chunk*, and by which method."""
        return self.clerks[zlib.crc32(f"{chunk.document} {chunk.id}".encode()) % len(self.clerks)]

    def calls(self, batch: int) -> list[Call]:
        """Return the calls that lay out the rows."""
        return [
            _layout(clerk, path, self.partition, part)
            for clerk, path in dict.fromkeys(self.clerks)
            for part in _parts([one for one in self.laid if self.written(one) == (clerk, path)], batch)
        ]


class Writes:
    """Plans the calls of all writes."""

    def __init__(self, world: World, can: Capabilities) -> None:
        self.world = world
        self.can = can
        self.ground = Ground(world, can)
        self.draw = draw = Draw(world.seed, "writers")
        names = [one for one in tenant_names(draw, 400) if one not in world.tenants]
        self.known = names[:8]
        self.unseen = names[8:]
        self._emptying: list[dict[str, str]] = []
        biggest = max(world.tenants.values(), key=len)
        by_document: dict[str, list[Chunk]] = {}
        for one in biggest:
            by_document.setdefault(one.document, []).append(one)
        self.documents = [some for some in by_document.values() if len(some) > 2] or list(by_document.values())
        self.biggest = biggest
        self._layouts: dict[tuple[object, ...], Layout | None] = {}

    # --- the parameters

    def parameters(self, method: str, names: Sequence[str], left_out: dict[str, str]) -> list[Parameter]:
        """Return the parameters of one write. Raises: NoLevelsError."""
        table = _ARGUMENTS.get(method)
        if table is None:
            raise NoLevelsError(f"the operation {method} has no place in the plan of writes")
        wanted: dict[str, None] = {}
        for name in names:
            if name not in table:
                raise NoLevelsError(f"the argument {name} of {method} has no levels")
            wanted |= dict.fromkeys(table[name])
            if name in _UNUSED:
                left_out[f"{method}: {name}"] = _UNUSED[name]
        if method != "delete":
            left_out[f"{method}: @docgen, @generation in the scope"] = "the library refuses it: the store assigns them"
        left_out[f"{method}: several partitions, none the own"] = "the library refuses it"
        scope = {one.name: one for one in scope_parameters(self.world, self.can, left_out)}
        found = [
            scope["mode"],
            replace(scope["scope"], levels=tuple(one for one in _SCOPES if one in scope["scope"].levels)),
            Parameter("scope_leaf", tuple(declared([*_LEAVES, *_POLICY_LEAVES[method == "delete"]], self.can))),
            Parameter("partition", _PARTITIONS),
            Parameter("tenant", _TENANTS),
        ]
        return [*found, *(self._parameter(method, name, left_out) for name in wanted)]

    def _parameter(self, method: str, name: str, left_out: dict[str, str]) -> Parameter:
        most = self.can.max_batch
        match name:
            case "count":
                large = [one for one in _COUNTS if one > most and method != "load"]
                if large:
                    left_out[f"{method}: {', '.join(map(str, large))} chunks"] = f"beyond the limit of {most:,}"
                levels = sorted({one for one in _COUNTS if one not in large} | ({most} & set(range(2_100))))
                return Parameter(name, tuple(map(str, levels)), frozenset({"0"}), _DEAR)
            case "records":
                return Parameter(name, _RECORDS, frozenset(_FAULTY))
            case "content":
                over = [one for one in _CONTENT if _BYTES.get(one, 0) > self.can.max_chunk_bytes]
                if over:
                    left_out[f"{method}: {', '.join(over)}"] = (
                        f"more than {self.can.max_chunk_bytes:,} bytes of a chunk"
                    )
                usual = [one for one in _CONTENT if one not in over]
                return Parameter(name, (*usual, *(("embedded",) if self.world.embedder else ())))
            case "document":
                return Parameter(name, ("new", "new and long", "inside", "part outside"), frozenset({"part outside"}))
            case "updated":
                documents_ = ("inside", "part outside", "of others", "of none")
                return Parameter(name, documents_, frozenset(documents_[1:]))
            case "changes":
                return Parameter(name, _CHANGES, frozenset({"bad"}))
            case "batch":
                sizes = [one for one in (1, 10, 11, 101, 301, 1_001) if one <= most]
                return Parameter(name, ("default", *map(str, sizes)), frozenset(), {"1": 1.0})
            case "timeout":
                return Parameter(name, ("default", "60"))
            case "selector":
                ids = [f"{one} ids" for one in _IDS] + [f"{one} bare ids" for one in (1, 11, 101)]
                shapes = [one for one in _SHAPES if shape_nodes([one]) <= self.can.predicates]
                wheres = [f"where {one}" for one in (*declared(_WHERE, self.can), *shapes, _AS_SCOPE)]
                documents = ["document inside", "document outside", "document of others", "document of none"]
                alone = {"0 ids", "document of others", "document of none"}
                return Parameter(name, (*ids, *documents, *wheres), frozenset(alone))
        raise NoLevelsError(f"the parameter {name} of {method} has no levels")

    def constraints(self, method: str, parameters: Sequence[Parameter]) -> dict[Pair, str]:
        """Return the pairs of levels that no call has."""
        levels = {one.name: one.levels for one in parameters}
        like = ("selector", f"where {_AS_SCOPE}")
        forbidden = scope_constraints([like] if like[1] in levels.get(like[0], ()) else ())
        many = [one for one in levels.get("count", ()) if int(one) > _MANY]

        def forbid(first: str, some: Iterable[str], second: str, others: Iterable[str], why: str) -> None:
            forbidden.update({((first, a), (second, b)): why for a in some for b in others})

        plain = [form for form in _SCOPES if not SCOPES[form][0] or SCOPES[form][0] == "none"]
        forbid("scope", plain, "partition", _PARTITIONS[1:], "without a table there is one partition")
        outside = [one for one in _RECORDS if "outside" in one]
        forbid("records", outside, "scope", _WHOLE, "there is nothing outside")
        for name in ("document", "updated"):
            forbid(name, ("part outside",), "scope", _WHOLE, "there is nothing outside")
        forbid("selector", ("document outside",), "scope", _WHOLE, "there is nothing outside")
        forbid("records", [one for one in _RECORDS if one != "new"], "count", ("0",), "there are no records")
        forbid("content", _CONTENT[1:], "count", ("0",), "there are no records")
        forbid("content", ("embedded",), "count", ("0", *many), "embedding takes long")
        forbid("content", _SCALED_ONE_BY_ONE, "count", many, "one record in hundreds shows the same as in fewer")
        forbid("scope_leaf", _ONE_BY_ONE, "count", many, "hundreds of records take long; each meets one filter")
        forbid("records", ("mixed",), "count", ("1",), "there is one record")
        forbid("records", _FAULTY, "content", [*_CONTENT[1:], "embedded"], "such a write fails whatever the content is")
        if method == "load":
            forbid("count", many, "batch", ("1", "10", "11"), "hundreds of requests")
            forbid("count", ("101", "129", "257", "301"), "batch", ("1",), "hundreds of requests")
        return {
            pair: why
            for pair, why in forbidden.items()
            if pair[0][1] in levels.get(pair[0][0], ()) and pair[1][1] in levels.get(pair[1][0], ())
        }

    # --- the calls

    def plan(
        self, method: str, names: Sequence[str], most: int | None, watch: Watch = unwatched
    ) -> tuple[list[Planned], Coverage]:
        """Return the calls of one write, with what they cover."""
        left_out: dict[str, str] = {}
        parameters = self.parameters(method, names, left_out)
        forbidden = self.constraints(method, parameters)
        for (first, second), why in forbidden.items():
            left_out.setdefault(f"{method}: {first[0]} with {second[0]}: {why}", why)
        space = Space(parameters, forbidden)
        planned: list[Planned] = []
        rows = [space.names(row) for row in rows_of(space, self.world.seed, most)]
        for number, levels in watched(method, rows, watch):
            planned += self.call(method, levels, number)
        if method == "replace" and most is None:
            self._emptying = [one for one in rows if one["count"] == "0" and one["scope"] not in _WHOLE]
        if most is not None:
            left_out[f"{method}: further pairs"] = "a quick plan"
        pairs, triples = measured(space, rows, SCOPE_PARAMETERS)
        return planned, Coverage(len(planned), pairs, triples, left_out)

    def emptying(self) -> Iterator[Planned]:
        """Yield replacements by nothing of documents that the scope hides a part of, one for each that was planned.

        Such a write adds no row that could be outside. Only the rows that it would delete show what its scope is, and
        among the pairs there is none of the two: each by itself has nothing to write, or is refused.
        """
        for number, levels in enumerate(self._emptying):
            yield from self.call("replace", {**levels, "document": "part outside"}, f"emptying-{number}")

    def new_tenant(self) -> str:
        """Return a tenant that has never been written to."""
        return self.unseen.pop() if self.unseen else self.draw.uuid()

    def _tenant(self, levels: Mapping[str, str], draw: Draw) -> str:
        match levels["tenant"]:
            case "never seen":
                return self.new_tenant()
            case "written before":
                return draw.py.choice(self.known)
        return draw.py.choice([*self.world.small, self.world.sized(12)])

    def call(self, method: str, levels: Mapping[str, str], number: int | str) -> list[Planned]:
        """Return the calls that lay out rows, and the write.

        Of a few draws it is the one that most changes if its scope is misread: without a condition, or half a list.
        """
        needed = self._needed(method, levels)
        place = (method, levels["tenant"], levels["partition"], _by_clerks(levels), needed)
        known = self._layouts.get(place)
        name = f"{method}-{number}"
        layout = known or self._layout(levels, needed, Draw(self.world.seed, name))
        best: tuple[float, Draft, Stage, Planned] | None = None
        for attempt in range(_DRAWS):
            drawn = self._drawn(method, levels, f"{name}-{attempt}", layout)
            if best is None or drawn[0] > best[0]:
                best = drawn
            if drawn[0] >= _ENOUGH:
                break
        assert best is not None
        _, made, stage, planned = best
        made.enter()
        left = replace(layout, laid=stage.left(planned.call.arguments), uses=layout.uses + 1)
        self._layouts[place] = left if left.uses < _USES and len(left.laid) * 4 > 3 * needed else None
        calls = [] if known else layout.calls(min(self.can.max_batch, 500))
        return [*(Planned(one, planned.mode, {"layout": name}) for one in calls), planned]

    def _layout(self, levels: Mapping[str, str], needed: int, draw: Draw) -> Layout:
        """Draw the rows that are laid out for a write."""
        tenant = self._tenant(levels, draw)
        others = draw.some([one for one in self.world.small if one != tenant], 2)
        partition = others[0] if levels["partition"] == "another" else tenant
        laid = self._laid(needed, draw)
        if "document" in levels and needed > _DOCUMENTS * _EACH:
            laid = _one_large(laid)
        return Layout(tenant, tuple(others), partition, laid, tuple(self._clerks(levels, draw)))

    def _drawn(
        self, method: str, levels: Mapping[str, str], name: str, layout: Layout
    ) -> tuple[float, Draft, Stage, Planned]:
        """Draw a write, and return first the share of the parts of its scope that change what it does."""
        draw = Draw(self.world.seed, name)
        tenant, others, partition = layout.tenant, layout.others, layout.partition
        order = {"own": [tenant], "another": others[:1]}.get(levels["partition"], draw.some([tenant, *others], 3))
        laid, written = layout.laid, layout.written
        others_rows = self.ground.rows[_most(self.world)]
        rows = {partition: Rows(partition, laid, self.world.roles, others_rows, name, written)}
        rows.setdefault(tenant, rows[partition])
        leaves = [*_LEAVES, *_POLICY_LEAVES[method == "delete"]]
        made = draft(self.ground, draw, levels, name, tenant, order, rows, leaves)
        parts = [made.partitions.get(partition, ALWAYS), *(where for where, _ in made.narrowings)]
        scope = conjunction(parts)
        stage = Stage(
            draw, partition, laid, draw.some(self.biggest, 40), written, compile_test(scope), made.principal.id, method
        )
        arguments = self._arguments(method, levels, stage, made)
        mode: Any = levels["mode"]
        changed = [
            conjunction((*parts[:place], form, *parts[place + 1 :]))
            for place, part in enumerate(parts)
            if part != ALWAYS
            for form in misread(part)
        ]
        share = 1.0
        if changed:
            effect = stage.effects(arguments, self.world.roles)
            usual = effect(scope)
            share = sum(effect(one) != usual for one in changed) / len(changed)
        return share, made, stage, Planned(Call(made.principal, method, arguments, made.narrowings), mode, levels)

    def _clerks(self, levels: Mapping[str, str], draw: Draw) -> list[tuple[str, str]]:
        """Return who lays out rows, and by which methods: two whose ids are alike, where the scope may name them."""
        first = draw.py.choice((WRITER, WRITER.upper()))
        if not _by_clerks(levels):
            return [(first, "upsert")]
        other = draw.py.choice((first.capitalize(), f"{first}2", f"{first}-admin"))
        return [(first, "upsert"), (other, "load")]

    def _needed(self, method: str, levels: Mapping[str, str]) -> int:
        """Return how many rows have to be there before a write: some of a few documents, or as many as it names."""
        needed = _DOCUMENTS * _EACH
        if method == "delete" and "ids" in levels["selector"]:
            needed = max(needed, min(_LAID, int(levels["selector"].split()[0]) * 2 // 3))
        elif levels.get("records", "new") in ("overwrite", "mixed"):
            needed = max(needed, min(_LAID_LARGE if method == "replace" else _LAID, int(levels["count"]) * 3 // 2))
        return needed

    def _laid(self, needed: int, draw: Draw) -> list[Chunk]:
        """Return the rows to lay out, of another tenant."""
        if needed > _DOCUMENTS * _EACH:
            return self._again(draw.some(self.biggest, needed), draw)
        laid: list[Chunk] = []
        for place, some in enumerate(draw.some(self.documents, _DOCUMENTS)):
            few = draw.some(some, _EACH)
            if place % 3 == 1:  # the others have the names of documents of other tenants
                name = draw.py.choice(_QUOTED).format(draw.word(), draw.word() if place == 1 else draw.words(200))
                few = [replace(one, document=name[:500].strip()) for one in few]
            elif place % 3 == 2:
                few = [replace(one, document=_look_alike(laid[0].document, draw)) for one in few]
            laid += few
        return self._again(laid, draw)

    def _again(self, chunks: list[Chunk], draw: Draw) -> list[Chunk]:
        """Return *chunks* and for some of them one more with the same id in another document."""
        known = {(one.document, one.id) for one in chunks}
        more = []
        for one in draw.some(chunks, max(2, len(chunks) // 6)):
            document = draw.py.choice(chunks).document
            if (document, one.id) not in known:
                known.add((document, one.id))
                other = draw.py.choice(chunks)
                more.append(replace(other, id=one.id, document=document))
        return [*chunks, *more]

    def _arguments(self, method: str, levels: Mapping[str, str], stage: Stage, made: Draft) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if levels.get("timeout", "default") != "default":
            arguments["timeout"] = 60.0
        match method:
            case "upsert":
                arguments["chunks"] = self._chunks(levels, stage, "")
            case "replace":
                document = self._document(levels["document"], stage)
                arguments["document"] = document
                arguments["chunks"] = self._chunks(levels, stage, document)
            case "load":
                arguments["stream"] = self._chunks(levels, stage, "")
                if levels["batch"] != "default":
                    arguments["batch"] = int(levels["batch"])
            case "update_metadata":
                document = self._selector(f"document {levels['updated']}", stage, made)[1]
                arguments["document"] = document
                arguments["changes"] = self._changes(levels["changes"], stage, document)
            case "delete":
                name, value = self._selector(levels["selector"], stage, made)
                arguments[name] = value
        return arguments

    def _changes(self, level: str, stage: Stage, document: str) -> dict[str, Any]:
        """Return changes of the metadata of *document*: where there are some, ones after which it is in the scope."""
        draw, found = stage.draw, dict[str, Any]()
        if level == "bad":
            number = next((name for name, kind in self.world.fields.items() if kind == "number"), "")
            kinds: tuple[dict[str, Any], ...] = (
                {}, {"tenant": "x"}, {"@label": "x"}, {number: "1"}, {draw.word(): "x" * 40_000}, {"": 1},
            )  # fmt: skip
            return draw.py.choice(kinds)
        named = [one for one in stage.laid if one.document == document] or list(stage.laid)
        nested = [one for one in named if any(isinstance(value, dict) for value in one.metadata.values())]
        for _ in range(6):
            chunk = draw.py.choice(nested if nested and draw.py.random() < _NESTED else named)
            found = self._some_changes(level, draw, chunk, draw.py.choice(stage.other))
            if all(stage.inside(stage.updated(one, found), old=True) for one in named):
                break
        return found

    def _some_changes(self, level: str, draw: Draw, chunk: Chunk, other: Chunk) -> dict[str, Any]:
        own, others = list(chunk.metadata), draw.some(list(other.metadata.items()), 5)
        inner = [key for key, value in chunk.metadata.items() if isinstance(value, dict)]
        if inner and level in ("one key", "several keys"):  # it takes the old one's place, whatever that has
            others.insert(0, (inner[0], {draw.word(): [draw.word()], "a": {draw.word(): 1}}))
        removed = dict.fromkeys(draw.some(own, 1 if level == "a key removed" else 2))
        match level:
            case "one key":
                return dict(others[:1]) or {draw.word(): draw.word()}
            case "several keys":
                return dict(others) or {draw.word(): draw.word()}
            case "a new key":
                return {draw.word(): draw.word()}
            case "nothing new":
                return {key: chunk.metadata[key] for key in draw.some(own, 2)} or {draw.word(): None}
            case "set and removed":
                return {**removed, **dict(others[:2])} or {draw.word(): None}
        return removed or {draw.word(): None}

    def _document(self, level: str, stage: Stage) -> str:
        """Return a document for a replacement: a new one, one that may be replaced, or one with a row that may not."""
        by_document: dict[str, list[bool]] = {}
        for one in stage.laid:
            by_document.setdefault(one.document, []).append(stage.inside(one, old=True))
        match level:
            case "inside":
                fit = [name for name, some in by_document.items() if all(some)]
            case "part outside":
                mixed = [name for name, some in by_document.items() if any(some) and not all(some)]
                fit = mixed or [name for name, some in by_document.items() if not all(some)]
            case _:
                fit = []
        if fit and stage.draw.py.random() < _LARGEST:
            return max(sorted(fit), key=lambda name: len(by_document[name]))
        if fit:
            return stage.draw.py.choice(sorted(fit))
        if level == "new" and stage.draw.py.random() < 0.4:
            return stage.draw.py.choice(_QUOTED).format(stage.draw.word(), stage.draw.word())
        if level == "new and long":
            return (stage.draw.words(200))[: stage.draw.py.choice((101, 256, 501, 511))].strip()
        return stage.draw.word(3, 5) if level == "new" else stage.draw.py.choice(sorted(by_document))

    def _chunks(self, levels: Mapping[str, str], stage: Stage, document: str) -> list[Chunk]:
        kind = levels["records"]
        most = self.can.max_batch if "batch" not in levels else 10_000
        counts = [one for one in _BEYOND.get(levels["count"], ()) if one <= most]
        count = stage.draw.py.choice(counts or [int(levels["count"])])
        if count == 0:
            return []
        chunks = []
        if kind in ("overwrite", "mixed"):
            chunks = stage.old(document, inside=True)[: count if kind == "overwrite" else (count + 1) // 2]
        chunks += stage.new(count - len(chunks), document, inside=True)
        places = {"first": [0], "last": [count - 1]}.get(kind.split()[-1], [0, count // 2, count - 1])
        place = stage.draw.py.choice(places)
        if kind.startswith("overwrites outside"):
            chunks[place : place + 1] = stage.old(document, inside=False)[:1] or chunks[place : place + 1]
        elif kind == "outside":
            chunks[place : place + 1] = stage.new(1, document, inside=False) or chunks[place : place + 1]
        elif kind == "bad" and count > 1 and levels.get("batch") is None and stage.draw.py.random() < 0.1:
            chunks[-1] = replace(chunks[0], text=f"{chunks[0].text}.")
        elif kind == "bad":
            chunks[place] = _bad(stage.draw, self.world.dimension, self.world.fields)(chunks[place])
        if levels["content"] == "embedded":
            return [replace(one, vector=None) for one in chunks]
        if kind not in _FAULTY:
            place = stage.draw.py.choice((0, len(chunks) - 1))
            chunks[place] = _scaled(levels["content"], chunks[place], stage.draw, self.world.fields)
        return chunks

    def _selector(self, level: str, stage: Stage, made: Draft) -> tuple[str, Any]:
        draw = stage.draw
        words = level.split(maxsplit=1)
        if level.endswith("ids"):
            count = int(words[0])
            pairs = dict.fromkeys((one.document, one.id) for one in stage.laid[:count])
            pairs |= dict.fromkeys((one.document, one.id) for one in stage.other[: max(0, count - len(pairs)) // 2])
            while len(pairs) < count:
                pairs[draw.word(), f"{draw.word()}{len(pairs)}"] = None
            refs = draw.some(list(pairs), count)
            bare = 1.0 if "bare" in level else draw.py.choice(_BARE)
            return "ids", list(dict.fromkeys(pair[1] if draw.py.random() < bare else pair for pair in refs))
        if words[0] == "where":
            kind = words[1]
            if kind == _AS_SCOPE:
                return "where", made.as_scope(self._rows(made, stage))
            if kind in _SHAPES:
                kinds = [one for one in declared(_WHERE, self.can) if not leaf_of(one).alone and one != "Always"]
                shape = draw.py.choice(kind.split("|"))
                where: Predicate = self.ground.filter(
                    shape, draw.py.choice(kinds), self._rows(made, stage), draw, kinds
                )
            else:
                where = self.ground.leaf(kind, self._rows(made, stage), draw)
            return "where", where
        match words[1]:
            case "of none":
                return "document", draw.word(5, 6)
            case "of others":
                laid = {one.document for one in stage.laid}
                names = [one.document for one in self.biggest if one.document not in laid]
                return "document", draw.py.choice(names or sorted(laid))
        return "document", self._document("inside" if level == "document inside" else "part outside", stage)

    def _rows(self, made: Draft, stage: Stage) -> Rows:
        return made.known[stage.partition]


def _look_alike(document: str, draw: Draw) -> str:
    """Return a name that a pattern, a comparison without regard to case or one of beginnings takes for *document*."""
    place = draw.py.randrange(len(document))
    one, wild = document[:place] + "_" + document[place + 1 :], document[: place + 1] + "%"
    names = [document.upper(), document.capitalize(), document.swapcase(), f"{document}.", document[:-1], one, wild]
    return draw.py.choice([name for name in names if name.strip() == name != document and name])


def _one_large(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return *chunks*, seven of eight in one document."""
    rows = {
        (one.document, one.id): one
        for place, chunk in enumerate(chunks)
        for one in [replace(chunk, document=chunks[0].document) if place % 8 else chunk]
    }
    return list(rows.values())


def _by_clerks(levels: Mapping[str, str]) -> bool:
    """Return whether the scope may name who wrote a row, or how."""
    return any(name in levels["scope_leaf"] for name in ("@producer", "@path"))


def _layout(clerk: str, method: str, tenant: str, chunks: list[Chunk]) -> Call:
    who = Principal(clerk, tenant, kind="service", authenticated_by="mtls:ingest")
    return Call(who, method, {"stream" if method == "load" else "chunks": chunks})


def _most(world: World) -> str:
    return max(world.tenants, key=lambda name: len(world.tenants[name]))


def _parts(chunks: Sequence[Chunk], size: int) -> list[list[Chunk]]:
    return [list(chunks[start : start + size]) for start in range(0, len(chunks), size)]


def planned_writes(
    world: World,
    can: Capabilities,
    size: Size,
    found: Mapping[str, Sequence[str]],
    quick: int = FEW_WRITES,
    watch: Watch = unwatched,
) -> Plan:
    """Return the plan of the writes among *found*, the names of the arguments of every operation."""
    writes = Writes(world, can)
    planned: list[Planned] = []
    coverage = []
    for method in _ARGUMENTS:
        if (missing := _undeclared(method, can)) is not None:
            coverage.append(Coverage(0, (0, 0), (0, 0), {method: missing}))
            continue
        calls, covered = writes.plan(
            method, found[method], quick // len(_ARGUMENTS) if size == "quick" else None, watch
        )
        planned += calls
        coverage.append(covered)
    planned += writes.emptying()
    if {"upsert", "replace"} <= can.operations:
        planned += planned_episodes(writes.ground, writes.biggest, writes.new_tenant, _EPISODES[size])
    return Plan(tuple(planned), Coverage.of(coverage))


def _undeclared(method: str, can: Capabilities) -> str | None:
    """Return why a write is not a part of the plan, or None."""
    if ACTIONS.get(method, method) not in can.operations:
        return "the adapter does not declare the operation"
    if method == "update_metadata" and can.atomic_update == "none":
        return "the adapter does not declare that it changes metadata in place"
    return None
