"""The plan of writes: each follows a write that lays out the rows which it changes, leaves alone, or is denied for.

The rows that are laid out have the ids of rows of other tenants, so that a write that reaches too far is seen there.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from vectoracl_conformance.generated.calls import Call
from vectoracl_conformance.generated.covering import Coverage, Pair, Parameter, Plan, Planned, Space, measured, rows_of
from vectoracl_conformance.generated.episodes import planned_episodes
from vectoracl_conformance.generated.filters import WRITER, Rows
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

QUICK = 120
_EPISODES: Mapping[Size, int] = {"quick": 1, "full": 6}
_DOCUMENTS, _EACH = 5, 4
_LAID = 130
"""The largest number of rows that are laid out before one write."""
_SCOPES = (
    "tenant", "policy", "policy Not", "policy And", "policy Or", "policy Or in And", "policy Not of And", "policy deep",
    "policy none", "narrow", "narrow Or", "narrow twice", "narrow actions", "policy Or, narrow Or",
)  # fmt: skip
_LEAVES = (
    "Always", "Eq", "In", "In 101, In 301", "Range", "ContainsAny", "StartsWith", "Missing", "@document, @chunk",
    "@label, @expires",
)  # fmt: skip
_POLICY_LEAVES = (
    ("@path, @time, @position", "@rev, @producer"),
    ("@path, @time, @position", "@rev, @producer", "@docgen, @generation"),
)
"""Further leaves of the scope of what adds rows, and of a delete: the former may not name the generation."""
_COUNTS = (0, 1, 2, 10, 11, 51, 65, 101, 129, 257, 301, 501, 1_001)
_DEAR = {"257": 1.0, "301": 1.0, "501": 2.0, "1001": 4.0, "2001": 8.0}
_ARGUMENTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "upsert": {"chunks": ("count", "records", "content"), "timeout": ("timeout",)},
    "replace": {
        "document": ("document",), "chunks": ("count", "records", "content"), "timeout": ("timeout",),
    },
    "delete": {"ids": ("selector",), "document": ("selector",), "where": ("selector",), "timeout": ("timeout",)},
    "load": {
        "stream": ("count", "records", "content"), "batch": ("batch",), "resume": (), "progress": (),
    },
}  # fmt: skip
"""The parameters that stand for each argument of a write."""
_UNUSED = {"resume": "a file of the caller", "progress": "a function of the caller, which cannot be sent"}
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
_SHAPES = ("Not|And", "Or", "deep|deepest")
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
_BEYOND: Mapping[str, tuple[int, ...]] = {"257": (257, 263), "501": (501, 531), "1001": (1_001, 1_001, 1_060)}
"""Numbers of chunks that a level stands for, where the store takes as many in one call."""
_QUOTED = ('{0}\'s "{1}"', "{0}'; --{1}", "{0}\\\\{1}", "{0}%_{1}", '{0}"{1}')
_TENANTS = ("never seen", "written before", "of the world")
_PARTITIONS = ("own", "another", "own of three")


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

    def inside(self, chunk: Chunk, *, old: bool = False) -> bool:
        """Return whether the scope permits to write *chunk*, or if it is *old* to overwrite the row that it is."""
        producer, path = self.written(chunk) if old else (self.producer, self.method)
        tag = Tag(
            self.partition, chunk.document, chunk.id, 0, DEFAULT_LABEL, 0, NEVER_EXPIRES, producer, path, 2e9,
            chunk.position,
        )  # fmt: skip
        return self.test(tag, chunk.metadata)

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
        fit = [one for one in templates if self.inside(self.fresh(one, document)) is inside]
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
        biggest = max(world.tenants.values(), key=len)
        by_document: dict[str, list[Chunk]] = {}
        for one in biggest:
            by_document.setdefault(one.document, []).append(one)
        self.documents = [some for some in by_document.values() if len(some) > 2] or list(by_document.values())
        self.biggest = biggest

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
                counts = [*_COUNTS, *((2_001,) if method == "load" else ())]
                over = [one for one in counts if one > most and method != "load"]
                if over:
                    left_out[f"{method}: {', '.join(map(str, over))} chunks"] = f"beyond the limit of {most:,}"
                levels = sorted({one for one in counts if one not in over} | ({most} & set(range(1_100))))
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
            case "batch":
                sizes = [one for one in (1, 10, 11, 101, 301, 1_001) if one <= most]
                return Parameter(name, ("default", *map(str, sizes)), frozenset(), {"1": 1.0})
            case "timeout":
                return Parameter(name, ("default", "60"))
            case "selector":
                ids = [f"{one} ids" for one in _IDS] + [f"{one} bare ids" for one in (1, 11, 101)]
                shapes = [one for one in _SHAPES if shape_nodes([one]) <= self.can.predicates]
                wheres = [f"where {one}" for one in (*declared(_WHERE, self.can), *shapes)]
                documents = ["document inside", "document outside", "document of others", "document of none"]
                alone = {"0 ids", "document of others", "document of none"}
                return Parameter(name, (*ids, *documents, *wheres), frozenset(alone))
        raise NoLevelsError(f"the parameter {name} of {method} has no levels")

    def constraints(self, method: str, parameters: Sequence[Parameter]) -> dict[Pair, str]:
        """Return the pairs of levels that no call has."""
        forbidden = dict(scope_constraints())
        levels = {one.name: one.levels for one in parameters}
        many = [one for one in levels.get("count", ()) if int(one) > _MANY]

        def forbid(first: str, some: Iterable[str], second: str, others: Iterable[str], why: str) -> None:
            forbidden.update({((first, a), (second, b)): why for a in some for b in others})

        plain = [form for form in _SCOPES if not SCOPES[form][0] or SCOPES[form][0] == "none"]
        forbid("scope", plain, "partition", _PARTITIONS[1:], "without a table there is one partition")
        whole = ("tenant", "policy none")
        outside = [one for one in _RECORDS if "outside" in one]
        forbid("records", outside, "scope", whole, "there is nothing outside")
        forbid("document", ("part outside",), "scope", whole, "there is nothing outside")
        forbid("selector", ("document outside",), "scope", whole, "there is nothing outside")
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

    def plan(self, method: str, names: Sequence[str], most: int | None) -> tuple[list[Planned], Coverage]:
        """Return the calls of one write, with what they cover."""
        left_out: dict[str, str] = {}
        parameters = self.parameters(method, names, left_out)
        forbidden = self.constraints(method, parameters)
        for (first, second), why in forbidden.items():
            left_out.setdefault(f"{method}: {first[0]} with {second[0]}: {why}", why)
        space = Space(parameters, forbidden)
        planned: list[Planned] = []
        rows = [space.names(row) for row in rows_of(space, self.world.seed, most)]
        for number, levels in enumerate(rows):
            planned += self.call(method, levels, number)
        if most is not None:
            left_out[f"{method}: further pairs"] = "a quick plan"
        pairs, triples = measured(space, rows, SCOPE_PARAMETERS)
        return planned, Coverage(len(planned), pairs, triples, left_out)

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

    def call(self, method: str, levels: Mapping[str, str], number: int) -> list[Planned]:
        """Return the calls that lay out rows, and the write."""
        draw = Draw(self.world.seed, f"{method}-{number}")
        tenant = self._tenant(levels, draw)
        others = draw.some([one for one in self.world.small if one != tenant], 2)
        order = {"own": [tenant], "another": others[:1]}.get(levels["partition"], draw.some([tenant, *others], 3))
        partition = others[0] if levels["partition"] == "another" else tenant
        laid = self._laid(method, levels, draw)
        name = f"{method}-{number}"
        clerks = self._clerks(levels, draw)

        def written(chunk: Chunk) -> tuple[str, str]:
            return clerks[zlib.crc32(f"{chunk.document} {chunk.id}".encode()) % len(clerks)]

        others_rows = self.ground.rows[_most(self.world)]
        rows = {partition: Rows(partition, laid, self.world.roles, others_rows, name, written)}
        rows.setdefault(tenant, rows[partition])
        leaves = [*_LEAVES, *_POLICY_LEAVES[method == "delete"]]
        made = draft(self.ground, draw, levels, name, tenant, order, rows, leaves)
        made.enter()
        scope = conjunction((made.partitions.get(partition, ALWAYS), *(where for where, _ in made.narrowings)))
        stage = Stage(
            draw, partition, laid, draw.some(self.biggest, 40), written, compile_test(scope), made.principal.id, method
        )
        arguments = self._arguments(method, levels, stage, made)
        mode: Any = levels["mode"]
        layouts = [
            Planned(_layout(clerk, path, partition, part), mode, {"layout": name})
            for clerk, path in dict.fromkeys(clerks)
            for part in _parts([one for one in laid if written(one) == (clerk, path)], min(self.can.max_batch, 500))
        ]
        return [*layouts, Planned(Call(made.principal, method, arguments, made.narrowings), mode, levels)]

    def _clerks(self, levels: Mapping[str, str], draw: Draw) -> list[tuple[str, str]]:
        """Return who lays out rows, and by which methods: two whose ids are alike, where the scope may name them."""
        first = draw.py.choice((WRITER, WRITER.upper()))
        if levels["scope_leaf"] not in ("@producer", "@path", "@path, @rev, @generation"):
            return [(first, "upsert")]
        other = draw.py.choice((first.capitalize(), f"{first}2", f"{first}-admin"))
        return [(first, "upsert"), (other, "load")]

    def _laid(self, method: str, levels: Mapping[str, str], draw: Draw) -> list[Chunk]:
        """Return the rows to lay out: some of a few documents of another tenant, or as many as the write names."""
        needed = _DOCUMENTS * _EACH
        if method == "delete" and "ids" in levels["selector"]:
            needed = max(needed, min(_LAID, int(levels["selector"].split()[0]) * 2 // 3))
        elif levels.get("records", "new") in ("overwrite", "mixed"):
            needed = max(needed, min(_LAID, int(levels["count"]) * 3 // 2))
        if needed > _DOCUMENTS * _EACH:
            return self._again(draw.some(self.biggest, needed), draw)
        laid = []
        for place, some in enumerate(draw.some(self.documents, _DOCUMENTS)):
            few = draw.some(some, _EACH)
            if place % 3 == 1:  # the others have the names of documents of other tenants
                name = draw.py.choice(_QUOTED).format(draw.word(), draw.word() if place == 1 else draw.words(200))
                few = [replace(one, document=name[:500].strip()) for one in few]
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
            case "delete":
                name, value = self._selector(levels["selector"], stage, made)
                arguments[name] = value
        return arguments

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
            return "ids", [pair[1] for pair in refs] if "bare" in level else refs
        if words[0] == "where":
            kind = words[1]
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


def _layout(clerk: str, method: str, tenant: str, chunks: list[Chunk]) -> Call:
    who = Principal(clerk, tenant, kind="service", authenticated_by="mtls:ingest")
    return Call(who, method, {"stream" if method == "load" else "chunks": chunks})


def _most(world: World) -> str:
    return max(world.tenants, key=lambda name: len(world.tenants[name]))


def _parts(chunks: Sequence[Chunk], size: int) -> list[list[Chunk]]:
    return [list(chunks[start : start + size]) for start in range(0, len(chunks), size)]


def planned_writes(world: World, can: Capabilities, size: Size, found: Mapping[str, Sequence[str]]) -> Plan:
    """Return the plan of the writes among *found*, the names of the arguments of every operation."""
    writes = Writes(world, can)
    planned: list[Planned] = []
    coverage = []
    for method in _ARGUMENTS:
        if (method if method != "load" else "upsert") not in can.operations:
            coverage.append(Coverage(0, (0, 0), (0, 0), {method: "the adapter does not declare the operation"}))
            continue
        calls, covered = writes.plan(method, found[method], QUICK // 8 if size == "quick" else None)
        planned += calls
        coverage.append(covered)
    if {"upsert", "replace"} <= can.operations:
        planned += planned_episodes(writes.ground, writes.biggest, writes.new_tenant, _EPISODES[size])
    return Plan(tuple(planned), Coverage.of(coverage))
