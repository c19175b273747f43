"""Values of other libraries: one rule for filters, metadata, policies and attributes, and for what adapters count."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectoracl import (
    ALWAYS,
    Chunk,
    Decision,
    F,
    Grant,
    InvalidInputError,
    Predicate,
    Principal,
    Scope,
    StoreError,
    VectorACLError,
    hazmat,
)
from vectoracl.audit.sinks import JsonlSink
from vectoracl.filters import predicate as p
from vectoracl.model.records import Facet
from vectoracl.model.values import native

V = [1.0, 0.0, 0.0]


class Letter(StrEnum):
    A = "a"


class Whole(IntEnum):
    ONE = 1


class Plain(Enum):
    A = "a"


INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
# (field, value, what it is in Python)
accepted = st.one_of(
    st.builds(lambda kind, n: ("year", kind(n), n), st.sampled_from(INTEGERS), st.integers(0, 100)),
    st.builds(lambda n: ("year", np.int64(n), n), st.integers(-(2**53), 2**53)),
    st.builds(
        lambda kind, n: ("year", kind(n), n), st.sampled_from([np.float16, np.float32, np.float64]), st.integers(0, 99)
    ),
    st.builds(lambda n: ("year", np.float32(n), float(np.float32(n))), st.floats(-1e6, 1e6, width=32)),
    st.builds(lambda n: ("year", np.longdouble(n), n), st.floats(-1e6, 1e6)),
    st.builds(lambda b: ("public", np.bool_(b), b), st.booleans()),
    st.builds(lambda t: ("lang", np.str_(t), t), st.text(st.characters(codec="ascii", exclude_characters="\0"))),
    st.just(("lang", Letter.A, "a")),
    st.just(("year", Whole.ONE, 1)),
)
REFUSED = {
    "UUID": (uuid.UUID(int=7), r"str\(value\)"),
    "Decimal": (Decimal("1.10"), r"str\(value\)"),
    "Fraction": (Fraction(1, 3), "use str, int"),
    "date": (date(2020, 1, 1), "isoformat"),
    "time": (time(1), "isoformat"),
    "timedelta": (timedelta(1), "total_seconds"),
    "datetime64": (np.datetime64("2020-01-01T00:00:00"), "tzinfo=UTC"),
    "datetime64 in ns": (np.datetime64("2020-01-01", "ns"), "tzinfo=UTC"),
    "timedelta64": (np.timedelta64(1, "s"), "number"),
    "complex": (np.complex64(1), "use str"),
    "Enum": (Plain.A, r"value\.value"),
    "bytes": (b"x", "decode"),
    "NumPy's bytes": (np.bytes_(b"x"), "decode"),
    "set": ({"x"}, "sorted"),
    "an array": (np.array([1, 2]), "tolist"),
    "an array without dimensions": (np.array(1), "item"),
    "too many digits": (np.longdouble(1) / 3, "float"),
    "an object": (object(), "use str"),
}
if np.finfo(np.longdouble).nmant == np.finfo(np.float64).nmant:
    del REFUSED["too many digits"]


def typed(value):
    """Return *value* with the exact type of every part, so that 1, 1.0, True and NumPy's are different."""
    if isinstance(value, dict):
        return {name: typed(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [typed(one) for one in value]
    return type(value), value


PYTHON = (str, int, float, bool, datetime)


@pytest.mark.parametrize("form", ["sync", "async"])
@given(given=accepted)
def test_numpy_scalars_are_pythons(make_api, form, given):
    """In declared and other metadata, nested, in lists, filters, JSON filters, policies and attributes alike."""
    field, value, python = given
    api = make_api(form)
    try:
        grants = []
        rules = type(
            "Rules",
            (),
            {"version": None, "decide": lambda self, who, action: Decision(True, Scope(tuple(grants)), ("r",), None)},
        )()
        acl = api.connect(policy=rules)
        port = acl.tap()
        grants[:] = [Grant("acme", ALWAYS)]
        docs = acl.scoped(Principal("ann", "acme", authenticated_by="test", attributes={"x": value}))
        numbers = {"sizes": [value]} if field == "year" else {"tags": [value]} if field == "lang" else {}
        metadata = {field: value, "free": value, "deep": {"in": [value, {"it": value}]}, **numbers}
        docs.upsert([Chunk("c", "d", "text", V, metadata=metadata, position=np.int64(3))])
        docs.load([Chunk("l", "d", "text", V, metadata=metadata)])
        stored = port.requests[-1].operation.records[0].metadata
        for one in (stored, *(hit.metadata for hit in docs.scan())):
            assert typed(one["free"]) == typed(one["deep"]["in"][0]) == typed(one["deep"]["in"][1]["it"])
            for found in (one[field], one["free"], *one.get("sizes", ()), *one.get("tags", ())):
                assert type(found) in PYTHON
                assert (found, type(found) is bool) == (python, type(python) is bool)
        filters = [F[field] == value, F[field].in_([value]), ~(F[field] != value), p.Eq(field, value)]
        filters.append(Predicate.from_dict({"field": field, "op": "eq", "value": value}))
        filters.append(Predicate.from_dict({"field": field, "op": "in", "value": [value]}))
        if field == "year":
            filters += [F[field] >= value, F[field] <= value, p.Range(field, gte=value), F.sizes.contains(value)]
        if field == "lang":
            filters += [F.tags.contains_any([value]), F.tags.contains_all([value])]
        for one in filters:
            assert docs.count(one) == docs.narrow(one).count() == 2
            grants[:] = [Grant("acme", one)]
            assert docs.count() == 2
            grants[:] = [Grant("acme", ALWAYS)]
        assert len(port.requests) > 2 * len(filters)
    finally:
        api.close()


@pytest.mark.parametrize("case", REFUSED)
def test_everything_else_is_refused_with_what_to_write(api, case):
    value, cure = REFUSED[case]
    grants = [Grant("acme", ALWAYS)]

    class Rules:
        version = None

        def decide(self, principal, action):
            return Decision(True, Scope(tuple(grants)), ("r",), None)

    acl = api.connect(policy=Rules())
    port = acl.tap()
    docs = acl.scoped(Principal("ann", "acme", authenticated_by="test"))
    places = [{field: value} for field in ("lang", "year", "public", "seen", "free")]
    places += [{"tags": [value]}, {"sizes": [value]}, {"free": [value]}, {"free": {"x": value}}]
    for metadata in places:
        for write in (
            lambda one: docs.upsert([one]),
            lambda one: docs.replace("d", [one]),
            lambda one: docs.load([one]),
        ):
            with pytest.raises(InvalidInputError, match=cure):
                write(Chunk("c", "d", "text", V, metadata=metadata))
    for make in (
        lambda: F.lang == value,
        lambda: F.lang != value,
        lambda: F.year >= value,
        lambda: F.lang.in_([value]),
        lambda: F.tags.contains(value),
        lambda: Predicate.from_dict({"field": "lang", "op": "eq", "value": value}),
        lambda: docs.count(p.Eq("lang", value)),
        lambda: docs.search(V, where=p.Range("year", gte=value)),
    ):
        with pytest.raises(InvalidInputError, match=cure):
            make()
    assert port.requests == []
    # A policy's own predicate: refused, and recorded.
    before = len(acl.records)
    for predicate in (p.Eq("lang", value), p.In("lang", (value,)), p.ContainsAny("tags", (value,))):
        grants[:] = [Grant("acme", predicate)]
        with pytest.raises(InvalidInputError, match=cure):
            docs.count()
    assert port.requests == []
    assert len(acl.records) == before + 3
    assert acl.outcomes[-1]["outcome"] == "error:invalid_input"
    with pytest.raises(VectorACLError):
        Principal("ann", "acme", authenticated_by="test", attributes={"x": value}) if case != "set" else docs.count()


def test_a_copy_follows_the_rule(config):
    """What was written past the gate is checked when it is copied."""
    import vectoracl
    from vectoracl.model.records import Record, Tag

    with vectoracl.connect(config) as acl:
        door = hazmat.operate(acl, reason="a test of the rule")
        vector = np.array(V, np.float32)
        door.write(
            "acme", [Record(Tag("acme", "d", "c"), "text", vector, {"year": np.int64(3), "free": np.float32(1)})]
        )
        (hit,) = acl.scoped(Principal("ann", "acme", authenticated_by="test")).scan()
        assert typed(hit.metadata) == typed({"year": 3, "free": 1.0})
        with pytest.raises(InvalidInputError, match=r"str\(value\)"):
            door.write("acme", [Record(Tag("acme", "d", "c"), "text", vector, {"free": uuid.UUID(int=1)})])


@given(st.floats(width=64))
def test_native_is_exact(number):
    for kind in (np.float16, np.float32, np.float64, np.longdouble):
        with np.errstate(all="ignore"):
            value = kind(number)
        found = native(value)
        assert type(found) is float
        assert found == value or np.isnan(value)


# --- what adapters count ---


class Counting:
    """An adapter that answers with *number* wherever it counts."""

    def __init__(self, inner, number):
        self._inner, self._number = inner, number

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def _answer(self, flow):
        yield from flow
        return self._number

    def count(self, operation):
        return self._answer(self._inner.count(operation))

    def upsert(self, operation):
        return self._answer(self._inner.upsert(operation))

    def replace(self, operation):
        return self._answer(self._inner.replace(operation))

    def delete(self, operation):
        return self._answer(self._inner.delete(operation))

    def facets(self, operation):
        found = yield from self._inner.facets(operation)
        return [Facet(np.str_(value), self._number) for value, _ in found]


def counts(docs, chunk):
    return {
        "count": docs.count,
        "upsert": lambda: docs.upsert([chunk()]).count,
        "replace": lambda: docs.replace("doc", [chunk()]).count,
        "delete": lambda: docs.delete(document="doc").count,
    }


@pytest.mark.parametrize("kind", [int, *INTEGERS])
def test_numpy_integers_are_counts(api, who, chunk, tmp_path, kind):
    acl = api.connect(sink=JsonlSink(tmp_path / "audit.jsonl"))
    docs = acl.scoped(who())
    docs.upsert([chunk(lang="en")])
    acl.tap(adapter=lambda inner: Counting(inner, kind(3)))
    assert typed(docs.facets("lang")) == typed([("en", 3)])
    for name, call in counts(docs, chunk).items():
        assert typed(call()) == typed(6 if name == "count" else 3)  # the shared tenant counts too
    acl.close()
    assert b'"returned":3' in (tmp_path / "audit.jsonl").read_bytes()


BAD = [True, np.bool_(True), 1.0, np.float64(1), -1, np.int64(-1), "1", [1], np.array([1]), Decimal(1), float("nan")]


@pytest.mark.parametrize("number", BAD, ids=repr)
def test_what_is_no_count_is_malformed(api, who, chunk, number):
    acl = api.connect()
    docs = acl.scoped(who())
    docs.upsert([chunk(lang="en")])
    acl.tap(adapter=lambda inner: Counting(inner, number))
    with pytest.raises(StoreError) as caught:
        docs.facets("lang")
    assert caught.value.code == "malformed"
    for name, call in counts(docs, chunk).items():
        with pytest.raises(StoreError) as caught:
            call()
        assert (caught.value.code, caught.value.sent) == ("malformed", "no" if name == "count" else "unknown")
        assert acl.outcomes[-1]["outcome"] == "error:malformed"


def test_no_count_is_a_count_of_a_delete_only(api, who, chunk):
    acl = api.connect()
    docs = acl.scoped(who())
    acl.tap(adapter=lambda inner: Counting(inner, None))
    assert docs.delete(document="doc").count is None
    for name, call in counts(docs, chunk).items():
        if name != "delete":
            with pytest.raises(StoreError):
                call()


def test_datetimes_stay_what_they_are():
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    assert native(moment) is moment
