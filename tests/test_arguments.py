"""What is passed in: refused before any I/O where it is wrong, and without effect when it changes afterwards."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectoracl import (
    ALWAYS,
    Chunk,
    DeniedError,
    F,
    InvalidInputError,
    Like,
    RefusedError,
    ReservedFieldError,
    UnsupportedPredicateError,
    VectorACLError,
)
from vectoracl.adapter_api.chunk_validation import check_metadata
from vectoracl.adapter_api.contract import Capabilities
from vectoracl.filters.predicate import Always, Eq
from vectoracl.filters.validation import check_fields
from vectoracl.model.queries import check_vector

V = [1.0, 0.0, 0.0]


@pytest.fixture
def docs(acl, who, chunk):
    handle = acl.scoped(who())
    handle.upsert([chunk("c1", lang="en", year=2020, tags=["a"]), chunk("c2", vector=(0.0, 1.0, 0.0), lang="de")])
    return handle


BAD_SEARCHES = {
    "k of 0": {"k": 0},
    "k negative": {"k": -1},
    "k huge": {"k": 10**9},
    "k a boolean": {"k": True},
    "k a float": {"k": 1.0},
    "k text": {"k": "1"},
    "k None": {"k": None},
    "where None": {"where": None},
    "where empty": {"where": {}},
    "where a dict": {"where": {"field": "lang", "op": "eq", "value": "en"}},
    "where a field": {"where": F.lang},
    "where True": {"where": True},
    "where text": {"where": "lang = 'en'"},
    "where unknown": {"where": F.unknown == 1},
    "where reserved": {"where": F.tenant_id == "globex"},
    "where tag": {"where": F["@label"] == "x"},
    "min_score NaN": {"min_score": math.nan},
    "min_score infinite": {"min_score": math.inf},
    "min_score text": {"min_score": "0"},
    "min_score boolean": {"min_score": True},
    "group_by unknown": {"group_by": "tenant"},
    "per_group 0": {"per_group": 0},
    "include text": {"include": "text"},
    "include unknown": {"include": {"tag"}},
    "include unhashable": {"include": [["text"]]},
    "include None": {"include": None},
    "exact text": {"exact": "yes"},
    "tuning unknown": {"tuning": {"ef": 1}},
    "tuning a list": {"tuning": [1]},
    "timeout 0": {"timeout": 0},
    "timeout negative": {"timeout": -1},
    "timeout NaN": {"timeout": math.nan},
    "timeout infinite": {"timeout": math.inf},
    "timeout text": {"timeout": "1"},
    "timeout boolean": {"timeout": True},
}


@pytest.mark.parametrize("case", BAD_SEARCHES)
@pytest.mark.parametrize("method", ["search", "search_many"])
def test_bad_searches_reach_no_store(docs, acl, case, method):
    port = acl.tap()
    query = V if method == "search" else [V, V]
    with pytest.raises(RefusedError):
        getattr(docs, method)(query, **BAD_SEARCHES[case])
    assert port.requests == []
    assert len(docs.search(V, k=5)) == 2


BAD_VECTORS = {
    "NaN": [math.nan, 0, 0],
    "infinite": [math.inf, 0, 0],
    "too large for float32": [1e39, 0, 0],
    "square too large": [1e30, 0, 0],
    "huge integer": [10**400, 0, 0],
    "zero": [0, 0, 0],
    "almost zero": [1e-30, 0, 0],
    "too short": [1, 0],
    "too long": [1, 0, 0, 0],
    "empty": [],
    "nested": [[1, 0, 0]],
    "a number": 1,
    "texts": ["1", "0", "0"],
    "booleans": [True, False, False],
    "complex": [1j, 0, 0],
    "None inside": [None, 0, 0],
    "a dict": {0: 1, 1: 0, 2: 0},
    "a set": {1, 0, 2},
    "bytes": b"abc",
    "boolean array": np.array([True, False, True]),
    "text array": np.array(["1", "2", "3"]),
    "complex array": np.array([1j, 0, 0]),
    "datetime array": np.array([1, 2, 3], dtype="datetime64[s]"),
    "object array": np.array([object(), 0, 0]),
    "masked": np.ma.masked_array([1, 2, 3], mask=[0, 1, 0]),
}


@pytest.mark.parametrize("case", BAD_VECTORS)
def test_bad_vectors(docs, acl, case):
    port = acl.tap()
    bad = BAD_VECTORS[case]
    with pytest.raises(InvalidInputError):
        docs.search(bad)
    with pytest.raises(InvalidInputError):
        docs.search_many([V, bad])
    with pytest.raises(InvalidInputError):
        docs.upsert([Chunk("good", "doc", "t", V), Chunk("bad", "doc", "t", bad)])
    assert port.requests == []
    assert docs.count() == 2


@pytest.mark.parametrize(
    "good", [V, (1, 0, 0), np.array(V), np.array(V, np.float32), np.array([1, 0, 0]), np.array(V, ">f8")]
)
def test_good_vectors(docs, good):
    assert docs.search(good, k=1).hits[0].id == "c1"


@pytest.mark.parametrize(
    "query", ["", "  ", "a\0b", "\ud800", "x" * 70_000, None, Like(""), Like("a\0"), Like("c1", ""), object()]
)
def test_bad_queries(docs, acl, query):
    port = acl.tap()
    with pytest.raises(VectorACLError):
        docs.search(query)
    assert port.requests == []


@pytest.mark.parametrize("queries", ["text", [], None, {}, 7, V, [None], (V for _ in range(1001))])
def test_bad_lists_of_queries(docs, acl, queries):
    port = acl.tap()
    with pytest.raises(RefusedError):
        docs.search_many(queries)
    assert port.requests == []


@pytest.mark.parametrize(
    "ids",
    [
        "c1",
        b"c1",
        None,
        7,
        {"doc": "c1"},
        [None],
        [""],
        ["a\0"],
        [7],
        [("doc",)],
        [("doc", "c1", "x")],
        [("", "c1")],
        [["doc", "c1"]],
        [str(n) for n in range(1001)],
    ],
)
def test_bad_ids(docs, acl, ids):
    port = acl.tap()
    for call in (lambda: docs.fetch(ids), lambda: docs.delete(ids=ids)):
        with pytest.raises(InvalidInputError):
            call()
    assert port.requests == []


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"ids": ["c1"], "document": "doc"},
        {"document": "doc", "where": ALWAYS},
        {"ids": [], "where": ALWAYS, "document": "doc"},
        {"ids": None},
        {"document": None},
        {"document": ""},
        {"where": None},
        {"where": {}},
        {"where": F.lang},
    ],
)
def test_delete_takes_exactly_one_selector(docs, acl, given):
    port = acl.tap()
    with pytest.raises(InvalidInputError):
        docs.delete(**given)
    assert port.requests == []
    assert docs.count() == 2


@pytest.mark.parametrize(
    "given", [{"size": 0}, {"size": -1}, {"size": True}, {"size": 10_001}, {"size": "5"}, {"where": {}}]
)
def test_bad_pages(docs, acl, given):
    port = acl.tap()
    with pytest.raises(InvalidInputError):
        docs.page(**given)
    with pytest.raises(InvalidInputError):
        list(docs.scan(**given))
    assert port.requests == []


@pytest.mark.parametrize("actions", ["search", b"search", 7, ["read"], [None], [7], ["SEARCH"], [["search"]]])
def test_bad_actions(acl, who, actions):
    with pytest.raises(InvalidInputError):
        acl.scoped(who(), actions=actions)
    with pytest.raises(InvalidInputError):
        acl.scoped(who()).narrow(actions=actions)


RESERVED = [
    "tenant",
    "TENANT",
    " tenant",
    "tenant ",
    "Tenant_Id",
    "group_id",
    "Namespace",
    "@label",
    "@x",
    " @x",
    "$where",
    "#staged",
    "vectoracl",
    "VectorACL.tag",
    "_vectoracl_x",
    "ｔｅｎａｎｔ",
    "ten\u200bant",
    "\u200bvectoracl",
]


@pytest.mark.parametrize("key", RESERVED)
def test_reserved_keys_of_metadata(docs, acl, key):
    port = acl.tap()
    with pytest.raises(ReservedFieldError):
        docs.upsert([Chunk("x", "doc", "t", V, metadata={key: "globex"})])
    assert port.requests == []


@pytest.mark.parametrize("key", ["tenancy", "my tenant", "label", "document", "id", "text", "vector", "a.b", "é"])
def test_other_keys_are_kept(docs, key):
    docs.upsert([Chunk("x", "doc", "t", V, metadata={key: "kept"})])
    assert docs.fetch(["x"])[0].metadata == {key: "kept"}


def deep(levels):
    made = "x"
    for _ in range(levels):
        made = [made]
    return made


BAD_METADATA = {
    "none": None,
    "list": [("a", 1)],
    "text": "a",
    "number key": {1: 1},
    "empty key": {"": 1},
    "blank key": {" ": 1},
    "NUL key": {"a\0": 1},
    "surrogate key": {"\ud800": 1},
    "long key": {"x" * 129: 1},
    "null": {"a": None},
    "bytes": {"a": b"x"},
    "set": {"a": {1}},
    "object": {"a": object()},
    "class": {"a": int},
    "function": {"a": lambda: 1},
    "complex": {"a": 1j},
    "NaN": {"a": math.nan},
    "infinite": {"a": [math.inf]},
    "big integer": {"a": 2**53 + 1},
    "big integer inside": {"a": {"b": [2**60]}},
    "NUL": {"a": "x\0"},
    "NUL inside": {"a": {"b": "x\0"}},
    "surrogate": {"a": "\ud800"},
    "number key inside": {"a": {1: 1}},
    "datetime, not declared": {"a": datetime(2020, 1, 1, tzinfo=UTC)},
    "array": {"a": np.array([1, 2])},
    "deep": {"a": deep(20)},
    "large": {"a": "x" * 40_000},
    "keyword a number": {"lang": 1},
    "keyword a list": {"lang": ["en"]},
    "number a text": {"year": "2020"},
    "number a boolean": {"year": True},
    "boolean a number": {"public": 1},
    "datetime naive": {"seen": datetime(2020, 1, 1)},
    "datetime text": {"seen": "soon"},
    "list a text": {"tags": "a"},
    "list empty": {"tags": []},
    "list mixed": {"tags": ["a", 1]},
    "list of lists": {"tags": [["a"]]},
    "numbers of texts": {"sizes": ["1"]},
}


def levels(count, inner, kind):
    """Return *inner* within *count* lists, mappings, or the two by turns."""
    for number in range(count):
        inner = [inner] if kind == "lists" or (kind == "both" and number % 2) else {"a": inner}
    return inner


@pytest.mark.parametrize("kind", ["lists", "mappings", "both"])
@pytest.mark.parametrize("inner", [7, "x", None, [], {}], ids=repr)
def test_metadata_is_nested_16_levels_deep_and_no_deeper(docs, acl, chunk, kind, inner):
    own = isinstance(inner, list | dict)
    deepest = levels(16 - own, inner, kind)
    docs.upsert([chunk("deepest", a=deepest)])
    assert docs.fetch(["deepest"])[0].metadata == {"a": deepest}
    port = acl.tap()
    with pytest.raises(InvalidInputError, match="nested deeper than 16 levels") as caught:
        docs.upsert([chunk("deeper", a=levels(17 - own, inner, kind))])
    assert caught.value.field == "a"
    assert port.requests == []


@pytest.mark.parametrize("case", BAD_METADATA)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_one_bad_record_writes_nothing(docs, acl, chunk, case, place):
    port = acl.tap()
    bad = Chunk("bad", "doc", "t", V, metadata=BAD_METADATA[case])
    batch = [chunk("n1"), chunk("n2"), chunk("n3")]
    batch.insert({"first": 0, "middle": 1, "last": 3}[place], bad)
    for call in (lambda: docs.upsert(batch), lambda: docs.replace("doc", batch)):
        with pytest.raises(RefusedError, match=f"Chunk {batch.index(bad)} of the call") as caught:
            call()
        assert "x\0" not in str(caught.value)
    assert port.requests == []
    assert docs.count() == 2


@pytest.mark.parametrize(
    "bad",
    [
        lambda: None,
        lambda: {"id": "x", "document": "doc"},
        lambda: ("x", "doc"),
        lambda: Chunk("", "doc", "t", V),
        lambda: Chunk("x", "", "t", V),
        lambda: Chunk(7, "doc", "t", V),
        lambda: Chunk("x", None, "t", V),
        lambda: Chunk("x", "doc", None, V),
        lambda: Chunk("x", "doc", "a\0b", V),
        lambda: Chunk("x", "doc", "\ud800", V),
        lambda: Chunk("x", "doc", "t", V, position=-1),
        lambda: Chunk("x", "doc", "t", V, position=True),
        lambda: Chunk("x", "doc", "t", V, position=2**31),
        lambda: Chunk("x", "doc", "t", V, position="1"),
        lambda: Chunk("x\u200b", "doc", "t", V),
        lambda: Chunk("x", "cafe\u0301", "t", V),
    ],
)
def test_bad_chunks(docs, acl, chunk, bad):
    port = acl.tap()
    with pytest.raises(InvalidInputError):
        docs.upsert([chunk("n1"), bad()])
    assert port.requests == []


@pytest.mark.parametrize("chunks", [None, "chunks", b"x", {}, 7, Chunk("a", "b")])
def test_no_chunks(docs, acl, chunks):
    port = acl.tap()
    with pytest.raises(InvalidInputError):
        docs.upsert(chunks)
    assert port.requests == []


def test_the_same_chunk_twice_in_one_call(docs, acl, chunk):
    port = acl.tap()
    with pytest.raises(InvalidInputError, match="Chunks 0 and 2"):
        docs.upsert([chunk("n"), chunk("m"), chunk("n")])
    assert port.requests == []
    docs.upsert([chunk("n", "one"), chunk("n", "two")])
    assert [hit.document for hit in docs.fetch(["n"])] == ["one", "two"]


def test_replace_takes_chunks_of_its_document(docs, acl, chunk):
    port = acl.tap()
    with pytest.raises(InvalidInputError):
        docs.replace("doc", [chunk("a"), chunk("b", "other")])
    for bad in ("", None, 7):
        with pytest.raises(InvalidInputError):
            docs.replace(bad, [])
    assert port.requests == []


def test_an_iterable_that_raises_writes_nothing(docs, acl, chunk):
    port = acl.tap()

    def stream():
        yield chunk("n1")
        raise LookupError("the source broke")

    with pytest.raises(LookupError):
        docs.upsert(stream())
    assert port.requests == []


def test_an_endless_iterable_ends(docs, acl, chunk):
    port = acl.tap(max_batch=50)
    taken = []

    def stream():
        while True:
            taken.append(1)
            yield chunk(f"n{len(taken)}")

    with pytest.raises(InvalidInputError, match="at most 50"):
        docs.upsert(stream())
    assert len(taken) == 51
    assert port.requests == []


class Sly(str):
    """Text that folds, compares and encodes as something else."""

    __slots__ = ()

    def casefold(self):
        return "harmless"

    def strip(self, *_args):
        return "harmless"

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("c1")

    def __str__(self):
        return "c1"

    def __contains__(self, _part):
        return False


def test_a_sly_key_is_seen_through(docs):
    with pytest.raises(ReservedFieldError):
        docs.upsert([Chunk("x", "doc", "t", V, metadata={Sly("tenant"): 1})])


def test_what_is_stored_is_of_no_subclass(docs):
    docs.upsert([Chunk(Sly("x"), Sly("d"), Sly("t"), V, metadata={Sly("k"): [Sly("v"), {Sly("n"): Sly("w")}]})])
    (hit,) = [hit for hit in docs.scan() if hit.document == "d"]
    texts = [hit.id, hit.document, hit.text, hit.tag.chunk, hit.tag.document, *hit.metadata, hit.metadata["k"][0]]
    assert [type(text) for text in texts] == [str] * len(texts)
    assert (hit.id, hit.document, hit.text, hit.metadata) == ("x", "d", "t", {"k": ["v", {"n": "w"}]})


class Shifting(dict):
    """Shows the check one thing and the store another."""

    def __init__(self, first, then):
        super().__init__(first)
        self.shows = [first, then]

    def items(self):
        return self.shows.pop(0).items() if len(self.shows) > 1 else self.shows[0].items()

    def __iter__(self):
        return iter(dict(self.items()))

    def __getitem__(self, key):
        return dict(self.items())[key]


@pytest.mark.parametrize("nested", [False, True])
def test_a_mapping_that_shifts_is_stored_as_it_was_checked(docs, nested):
    shifting = Shifting({"a": 1}, {"tenant": "globex", "bad": math.nan})
    metadata = {"outer": shifting} if nested else shifting
    docs.upsert([Chunk("x", "doc", "t", V, metadata=metadata)])
    assert docs.fetch(["x"])[0].metadata == ({"outer": {"a": 1}} if nested else {"a": 1})


def test_tuning_that_shifts(docs, acl):
    port = acl.tap(tuning={"ef": (1, 10)})
    docs.search(V, tuning=Shifting({"ef": 5}, {"ef": 10**9, "other": 1}))
    assert dict(port.operations[-1].tuning) == {"ef": 5}


def test_metadata_is_checked_into_a_copy(api, who):
    """The embedder runs between the check and the write: what it changes must not be written."""
    inner = ["a"]
    outer = {"tags": inner, "free": {"list": [1]}}
    vector = np.array(V, np.float32)

    class Meddler:
        name = "meddler"
        dimension = 3

        def embed_documents(self, texts):
            inner.append("b")
            outer["free"]["list"].append(math.nan)
            outer["tenant"] = "globex"
            vector[:] = math.nan
            return np.array([V] * len(texts))

        embed_queries = embed_documents

    docs = api.connect(embedder=Meddler()).scoped(who())
    docs.upsert([Chunk("x", "doc", "t", vector, metadata=outer), Chunk("y", "doc", "t")])
    (hit,) = docs.fetch(["x"], include={"metadata", "vector"})
    assert hit.metadata == {"tags": ["a"], "free": {"list": [1]}}
    assert hit.vector.tolist() == V


def test_what_the_caller_changes_later_changes_no_row(docs):
    inner, vector = ["a"], np.array(V, np.float32)
    metadata = {"tags": inner, "free": {"list": [1]}}
    docs.upsert([Chunk("x", "doc", "t", vector, metadata=metadata)])
    inner.append("b")
    metadata["free"]["list"].append(2)
    vector[:] = 9
    (hit,) = docs.fetch(["x"], include={"metadata", "vector"})
    assert hit.metadata == {"tags": ["a"], "free": {"list": [1]}}
    assert hit.vector.tolist() == V


def test_a_reader_changes_no_row(acl, who, chunk):
    """Rows of a shared tenant are handed to everybody; nobody gets the store's own objects."""
    owner, reader = acl.scoped(who("commons")), acl.scoped(who("globex"))
    owner.upsert([Chunk("x", "doc", "t", V, metadata={"tags": ["a"], "free": {"list": [1]}})])
    for read in (
        lambda: reader.fetch(["x"], include={"metadata", "vector"}),
        lambda: reader.search(V, include={"metadata", "vector"}),
        lambda: list(reader.scan(include={"metadata", "vector"})),
    ):
        (hit,) = read()
        hit.metadata["tags"].append("public")
        hit.metadata["free"]["list"].append(2)
        hit.metadata["lang"] = "en"
        hit.vector[:] = 0
    (hit,) = owner.fetch(["x"], include={"metadata", "vector"})
    assert hit.metadata == {"tags": ["a"], "free": {"list": [1]}}
    assert hit.vector.tolist() == V


def test_a_query_vector_is_copied(docs, acl):
    port = acl.tap()
    query = np.array(V, np.float32)
    docs.search(query)
    query[:] = 0
    assert port.operations[-1].query.vector.tolist() == V


FIELDS = check_fields(
    {"lang": "keyword", "year": "number", "tags": "keyword[]", "seen": "datetime", "public": "boolean"}
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=2)
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["lang", "year", "tags", "seen", "public", "free", "tenant"]) | st.text(max_size=4), anything
    )
)
def test_metadata_is_taken_as_it_is_or_refused(metadata):
    try:
        kept = check_metadata(metadata, FIELDS)
    except RefusedError:
        return
    assert "tenant" not in kept
    assert kept.keys() == metadata.keys()
    for name, value in kept.items():
        if name not in FIELDS:
            assert value == metadata[name]
    assert check_metadata(kept, FIELDS) == kept


@given(
    st.one_of(anything, st.lists(st.floats(), min_size=3, max_size=3), st.lists(st.integers(), min_size=3, max_size=3))
)
def test_any_vector_is_taken_or_refused(value):
    try:
        kept = check_vector(value, 3, nonzero=True)
    except InvalidInputError:
        return
    assert kept.dtype == np.float32
    assert np.isfinite(kept).all()
    assert float(np.dot(kept, kept)) > 0


def test_narrowing_with_another_stores_field(acl, who):
    with pytest.raises(UnsupportedPredicateError):
        acl.scoped(who()).narrow(F.unknown == 1)


def test_denied_is_not_invalid(acl, who):
    with pytest.raises(DeniedError):
        acl.scoped(who(), actions=[]).search(V)


def test_a_filter_that_the_adapter_does_not_declare_is_refused_before_it_is_recorded(docs, acl):
    port = acl.tap(predicates=frozenset({Always, Eq}))
    records = len(acl.records)
    for where in (F.lang.in_(["en", "de"]), ~(F.lang == "en"), (F.lang == "en") | (F.lang == "fr")):
        with pytest.raises(UnsupportedPredicateError, match="no exact form"):
            docs.count(where)
    assert (port.requests, len(acl.records)) == ([], records)
    docs.count(F.lang == "en")
    assert {request.partition for request in port.requests} == {"acme", "commons"}


def test_an_adapter_names_what_it_can():
    with pytest.raises(TypeError, match="'operations' and 'predicates'"):
        Capabilities("predicate", "cosine", 8)
