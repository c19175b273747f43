"""The triggers of constructed mutants: when a broken adapter does wrong.

They are derived from the fields of the operations' dataclasses, from the nodes of the filter algebra, from the fields
of the tag and from the capabilities. A field of an operation that is not listed here is an error, so an argument that
is added to the library cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Literal

from vectoracl.adapter_api.operations import OPERATIONS, Delete, Facets, Operation, Replace, Scan, Search, Upsert
from vectoracl.engine.arguments import MAX_FETCH
from vectoracl.filters.field_types import CALLER_TAG_FIELDS, TAG_FIELDS
from vectoracl.filters.predicate import NODES, Always, And, Never, Or
from vectoracl.model.identifiers import MAX_ID_BYTES, MAX_TENANT_BYTES
from vectoracl.model.queries import MAX_QUERY_WORDS

BOUNDARIES = (10, 20, 50, 64, 100, 128, 256, 300, 500, 512, 1_000, 1_024, 2_000)
"""Numbers beyond which an implementation may take another path, of whatever is counted.

The generator of calls has the same ones, in a list that mutants may not share: they would not notice what it lacks.
"""
FEW = (1, 10, 50, 100, 300)
"""The same for what rarely has a large number."""

Kind = Literal["always", "argument", "size", "operand", "state"]


@dataclass(frozen=True, slots=True)
class Trigger:
    """A condition on the history (`s`) and the operation (`o`), as Python text.

    Attributes:
        name: A stable name, such as "k>100".
        test: The condition.
        kind: What it is about.
        without: The parts of an operation or of its answer that are absent where it holds, so that their loss cannot
            be observed.
        latency: The time that each request takes, in seconds, where the trigger is about calls at the same time.
        dimension: The number of components that vectors must have more of, so that it can hold; 0: any.
    """

    name: str
    test: str
    kind: Kind
    without: frozenset[str] = frozenset()
    latency: float = 0.0
    dimension: int = 0


LATENCY = 0.002


def _beyond(name: str, measure: str, limits: tuple[int, ...], below: int = 1 << 30) -> Iterator[Trigger]:
    for limit in limits:
        if limit < below:
            yield Trigger(f"{name}>{limit}", f"{measure} > {limit}", "size")


def _text(name: str, measure: str, below: int) -> Iterator[Trigger]:
    """Yield triggers on a text that names something: its length in characters and its characters."""
    yield from _beyond(name, f"len({measure})", (20, 64, 100, 128, 256, 500), below)
    yield Trigger(f"{name} not ASCII", f"not {measure}.isascii()", "operand")
    yield Trigger(f"{name} with capitals", f"{measure} != {measure}.lower()", "operand")
    yield Trigger(f"{name} with separators", f"not {measure}.isalnum()", "operand")
    yield Trigger(f"{name} with quotes", f"bool(set({measure}) & set('\\x27\\x22\\x5c'))", "operand")


def _partition(operation: type[Operation]) -> Iterator[Trigger]:
    yield from _text("tenant", "o.partition", MAX_TENANT_BYTES)
    yield Trigger("not the first tenant", "o.partition != s.partitions[0]", "state")
    yield Trigger("the second tenant", "s.partitions[1:2] == [o.partition]", "state")
    if not OPERATIONS[operation].writes:  # a write has one partition
        for number in (1, 2, 5, 10, 20, 50):
            yield Trigger(f"partitions>{number}", f"s.partition_number(o) > {number}", "state")


def _predicate(name: str, tag_fields: frozenset[str], *, optional: bool = False) -> Iterator[Trigger]:
    value = f"o.{name}"
    yield Trigger(f"{name} given", f"given({value})", "operand")
    for node in NODES:
        if node not in (Always, Never):  # the algebra simplifies them away; a scope of Never is not sent
            yield Trigger(f"{name} has {node.__name__}", f"has({value}, {node.__name__})", "operand")
    for node in (And, Or):
        yield Trigger(f"{name} is {node.__name__}", f"isinstance({value}, {node.__name__})", "operand")
    for field in sorted(tag_fields):
        yield Trigger(f"{name} has {field}", f"names({value}, {field!r})", "operand")
    yield from _beyond(f"{name}.values", f"longest({value})", BOUNDARIES)
    if not optional:
        yield from _beyond(f"{name}.depth", f"{value}.depth", (2, 3, 5))


def _scope(operation: type[Operation]) -> Iterator[Trigger]:
    own = {"@generation", "@docgen"}  # the core refuses a write whose scope names them
    yield from _predicate("scope", frozenset(TAG_FIELDS) - (own if operation in (Upsert, Replace) else set()))


def _where(operation: type[Operation]) -> Iterator[Trigger]:
    if operation is Delete:
        other = frozenset({"refs", "document"})
        for one in _predicate("where", CALLER_TAG_FIELDS, optional=True):
            yield Trigger(one.name, one.test, one.kind, other)
        return
    yield from _predicate("where", CALLER_TAG_FIELDS)
    yield Trigger("where is Never", "isinstance(o.where, Never)", "operand", frozenset({"rows", "scope"}))
    yield Trigger("where with scope", "given(o.where) and given(o.scope)", "operand")
    yield Trigger("no where", "not given(o.where)", "argument", frozenset({"where"}))


def _query(_: type[Operation]) -> Iterator[Trigger]:
    yield Trigger("by vector", "isinstance(o.query, VectorQuery)", "argument", frozenset({"lexical"}))
    yield Trigger("lexical", "isinstance(o.query, Lexical)", "argument", frozenset({"vector-query", "scores"}))
    # Fused scores only define an order, and the core refuses a lowest one.
    without = frozenset({"vector-query", "scores", "min_score"})
    yield Trigger("hybrid", "isinstance(o.query, HybridQuery)", "argument", without)
    yield from _beyond("words", "words(o.query)", BOUNDARIES, MAX_QUERY_WORDS)
    yield from _beyond("characters", "len(getattr(o.query, 'text', ''))", (100, 256, 1_000, 2_000))
    for limit in (64, 128, 256):
        name, test = f"dimension>{limit}", f"size_of(o.query) > {limit}"
        yield Trigger(name, test, "size", dimension=limit)
    for number in (1, 2, 5):
        yield Trigger(f"queries>{number}", f"s.query_number() > {number}", "state")


def _include(_: type[Operation]) -> Iterator[Trigger]:
    for part in ("text", "metadata", "vector"):
        yield Trigger(f"include {part}", f"{part!r} in o.include", "argument")
        yield Trigger(f"include no {part}", f"{part!r} not in o.include", "argument", frozenset({part}))
    yield Trigger("include nothing", "not o.include", "argument", frozenset({"text", "metadata", "vector"}))


def _size(name: str) -> Callable[[type[Operation]], Iterator[Trigger]]:
    def triggers(_: type[Operation]) -> Iterator[Trigger]:
        yield Trigger(f"{name}=1", f"o.{name} == 1", "argument", frozenset({"many"}))
        yield from _beyond(name, f"o.{name}", (1, *BOUNDARIES))

    return triggers


def _given(name: str, test: str) -> Callable[[type[Operation]], Iterator[Trigger]]:
    def triggers(_: type[Operation]) -> Iterator[Trigger]:
        yield Trigger(name, test, "argument")

    return triggers


def _per_group(_: type[Operation]) -> Iterator[Trigger]:
    for limit in (1, 2, 5, 10):
        yield Trigger(f"per_group>{limit}", f"o.group_by is not None and o.per_group > {limit}", "argument")


def _refs(operation: type[Operation]) -> Iterator[Trigger]:
    refs, without = "(o.refs or ())", frozenset({"where", "document"} if operation is Delete else ())
    yield Trigger("ids without a document", f"any(r.document is None for r in {refs})", "argument", without)
    yield Trigger("ids with a document", f"any(r.document is not None for r in {refs})", "argument", without)
    for one in _beyond("ids", f"len({refs})", (1, *BOUNDARIES), MAX_FETCH):
        yield Trigger(one.name, one.test, one.kind, without)
    for one in _text("id", "r.chunk", MAX_ID_BYTES):
        yield Trigger(one.name, f"any({one.test} for r in {refs})", one.kind, without)


def _document(operation: type[Operation]) -> Iterator[Trigger]:
    without = frozenset({"where", "refs"} if operation is Delete else ())
    yield Trigger("document given", "o.document is not None", "argument", without)
    for one in _text("document", "(o.document or '')", MAX_ID_BYTES):
        yield Trigger(one.name, f"bool(o.document) and {one.test}", one.kind, without)


def _field(_: type[Operation]) -> Iterator[Trigger]:
    yield Trigger("by document", "o.field == '@document'", "argument")
    yield Trigger("by metadata", "o.field != '@document'", "argument")
    yield from _beyond("field", "len(o.field)", (10, 20, 50))


def _after(_: type[Operation]) -> Iterator[Trigger]:
    yield Trigger("further page", "o.after is not None", "argument")
    yield Trigger("first page", "o.after is None", "argument", frozenset({"after"}))
    yield Trigger("page in a later generation", "o.after is not None and o.after.generation > 0", "argument")


def _records(operation: type[Operation]) -> Iterator[Trigger]:
    yield from _beyond("records", "len(o.records)", (1, *BOUNDARIES))
    yield Trigger("one record", "len(o.records) == 1", "argument", frozenset({"many"}))
    if operation is Replace:
        yield Trigger("no records", "not o.records", "argument", frozenset({"records", "many"}))
    else:
        paths = "any(r.tag.path == 'load' for r in o.records)"
        yield Trigger("load", paths, "argument")
        for number in (1, 10, 50):
            test = f"len({{r.tag.document for r in o.records}}) > {number}"
            yield Trigger(f"documents>{number}", test, "argument")
        yield Trigger(
            "chunks of one document", "len({r.tag.document for r in o.records}) == 1 < len(o.records)", "argument"
        )


_UNUSED = "handles never set it"
FIELDS: Mapping[str, Callable[[type[Operation]], Iterator[Trigger]] | str] = {
    "partition": _partition,
    "scope": _scope,
    "where": _where,
    "query": _query,
    "k": _size("k"),
    "include": _include,
    "min_score": _given("min_score", "o.min_score is not None"),
    "group_by": _given("group_by", "o.group_by is not None"),
    "per_group": _per_group,
    "exact": _given("exact", "o.exact"),
    "tuning": "the memory adapter declares no setting",
    "refs": _refs,
    "most": _given("like", "o.most == 1"),
    "field": _field,
    "size": _size("size"),
    "after": _after,
    "records": _records,
    "verbatim": f"{_UNUSED}, only an operator's copy does",
    "document": _document,
}
"""The triggers of each field of an operation, or the reason why it has none."""
_UNVARIED = {(Facets, "most")}


def _history(operation: type[Operation]) -> Iterator[Trigger]:
    yield Trigger("always", "True", "always")
    for mode in ("sync", "async"):
        yield Trigger(mode, f"s.mode == {mode!r}", "state")
    for number in (1, 10, 20, 50):
        yield Trigger(f"in flight>{number}", f"s.executing >= {number}", "state", latency=LATENCY)
    yield Trigger("after a failure", "s.ended == 'failed'", "state")
    yield Trigger("after a cancellation", "s.ended == 'cut'", "state", latency=LATENCY)
    yield Trigger("after a denied write", "s.ended == 'denied'", "state")
    yield Trigger("after a write", "s.wrote", "state")
    yield Trigger("after another tenant", "s.last is not None and s.last.partition != o.partition", "state")
    for number in (20, 100) if operation not in (Replace, Delete) else (10, 20):
        yield Trigger(f"calls>{number}", f"s.calls >= {number}", "state")


def triggers(operation: type[Operation]) -> list[Trigger]:
    """Return the triggers of *operation*. Raises: LookupError for a field that has no entry in `FIELDS`."""
    found = list(_history(operation))
    for one in fields(operation):
        make = FIELDS[one.name]
        if not isinstance(make, str) and (operation, one.name) not in _UNVARIED:
            found += make(operation)
    return found


@dataclass(frozen=True, slots=True)
class RowTrigger:
    """A condition on one row (`r`), a hit or a record, as Python text; see `Trigger`."""

    name: str
    test: str


def row_triggers(operation: type[Operation]) -> Iterator[RowTrigger]:
    """Yield the triggers that rows of *operation* can have."""
    limits = {
        "text": ("len(r.text or '')", (0, 100, 256, 300, 1_000, 2_000)),
        "text.bytes": ("len((r.text or '').encode())", (1_024,)),
        "id": ("len(r.tag.chunk)", (20, 64, 100, 128, 256, 500)),
        "document": ("len(r.tag.document)", (20, 64, 100, 128, 256, 500)),
        "metadata": ("len(r.metadata or {})", (0, 1, 5, 8)),
        "metadata.depth": ("depth(r.metadata or {})", (1, 2, 4)),
        "position": ("r.tag.position", (0, 100, 500)),
    }
    for name, (measure, values) in limits.items():
        for limit in values:
            yield RowTrigger(f"{name}>{limit}", f"{measure} > {limit}")
    for name, part in (("id", "r.tag.chunk"), ("document", "r.tag.document"), ("text", "(r.text or '')")):
        yield RowTrigger(f"{name} not ASCII", f"not {part}.isascii()")
        yield RowTrigger(f"{name} with quotes", f"bool(set({part}) & set('\\x27\\x22\\x5c'))")
    yield RowTrigger("id with capitals", "r.tag.chunk != r.tag.chunk.lower()")
    yield RowTrigger("id with separators", "not r.tag.chunk.isalnum()")
    yield RowTrigger("text with lines", "'\\n' in (r.text or '')")
    yield RowTrigger("metadata with undeclared keys", "any(' ' in one for one in keys(r.metadata or {}))")
    if operation in (Search, Scan):
        yield RowTrigger("later generation", "r.tag.generation > 0")
