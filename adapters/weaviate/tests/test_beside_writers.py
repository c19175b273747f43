"""Filters beside writers: the server reads each comparison of a filter at a moment of its own (see `Condition`).

Rows outside of a scope are written, rewritten in place and taken away all the time. None may be counted, faceted,
returned or deleted, and every row inside, which nobody touches, is there each time.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import vectoracl as v
from vectoracl import ALWAYS, Chunk, F, Hybrid, Lexical
from vectoracl.errors import DeniedError, StoreError
from vectoracl.filters.validation import check_fields, check_filter
from vectoracl.testing import principal
from vectoracl_conformance.strategies import FIELDS as DRAWN
from vectoracl_conformance.strategies import predicate
from vectoracl_weaviate.compile_predicate import Compiler, Filters
from vectoracl_weaviate.config import Properties

FIELDS = {
    "kw": "keyword",
    "lang": "keyword",
    "num": "number",
    "flag": "boolean",
    "tags": "keyword[]",
    "level": "keyword",
}
SECONDS = 1.5
E = np.eye(8, dtype=np.float32)
OPEN = {"kw": "open", "lang": "en", "num": 1, "flag": False, "tags": ["o"]}
SECRET = {"kw": "secret", "lang": "de", "num": 7, "flag": True, "tags": ["s", "o"], "level": "high"}
INSIDE = [f"open{i:02}" for i in range(30)]

SCOPES = {
    "not equal": F.kw != "secret",
    "not": ~(F.kw == "secret"),
    "not in": F.kw.not_in(["secret", "other"]),
    "not of a number": F.num != 7,
    "not of a range": ~(F.num >= 7),
    "not of a boolean": F.flag != True,  # noqa: E712 - a filter
    "not of a list": ~F.tags.contains("s"),
    "missing": F.level.is_missing(),
    "not of a conjunction": ~((F.kw == "secret") & (F.num > 1)),
    "not of a disjunction": ~((F.kw == "secret") | (F.level == "low")),
    "deep": ~~~((F.kw == "secret") | ~(F.num < 7)) & ~(F["@document"] == "nothing"),
    "beside a positive one": (F.lang == "en") & (F.kw != "secret"),
}
TORN = {
    "two fields": (F.kw == "open") & (F.lang == "en"),
    "two fields, one negated": (F.kw != "secret") & (F.lang == "en"),
    "a range": (F.num >= 1) & (F.num <= 3),
}


def chunk(name: str, metadata: dict[str, Any], document: str = "d") -> Chunk:
    return Chunk(name, document, "words of a text", E[0], metadata=metadata)


@contextmanager
def written(acl: Any, who: Any, flips: Callable[[int], dict[str, Any]]) -> Iterator[set[str]]:
    """Write chunks outside of every scope meanwhile; give the ids that are acknowledged and stay."""
    stop, kept, failed = threading.Event(), set[str](), list[BaseException]()

    def inserts() -> None:
        try:
            while not stop.is_set():
                ids = [f"secret{secrets.token_hex(6)}" for _ in range(20)]
                acl.scoped(who).upsert([chunk(one, SECRET) for one in ids])
                kept.update(ids[:2])
                acl.scoped(who).delete(ids=[("d", one) for one in ids[2:]])
        except BaseException as error:
            failed.append(error)

    def rewrites() -> None:
        ids, turn = [f"flip{i}" for i in range(15)], 0
        try:
            while not stop.is_set():
                turn += 1
                acl.scoped(who).upsert([chunk(one, flips(turn)) for one in ids])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one) for one in (inserts, inserts, rewrites)]
    for one in threads:
        one.start()
    try:
        yield kept
    finally:
        stop.set()
        for one in threads:
            one.join()
    assert not failed, failed


QUERIES = (E[0], Lexical("words"), Hybrid("words", E[0]))


def look(handle: Any, others: list[str]) -> None:
    """Do every read once: what is inside is seen, all of it, and nothing else."""
    refs = [("d", one) for one in (*INSIDE, *others)]
    assert sorted(hit.id for hit in handle.fetch(refs)) == INSIDE
    assert handle.count() == len(INSIDE)
    assert [hit.id for hit in handle.scan(size=7)] == INSIDE
    assert handle.facets("kw") == [("open", len(INSIDE))]
    assert handle.facets("@document") == [("d", len(INSIDE))]
    for query in QUERIES:
        found = handle.search(query, len(INSIDE) + 50)
        assert sorted(hit.id for hit in found) == INSIDE
        assert len(handle.search(query, 5)) == 5


async def alook(handle: Any, others: list[str]) -> None:
    refs = [("d", one) for one in (*INSIDE, *others)]
    fetched, count, facets, *found = await asyncio.gather(
        handle.fetch(refs), handle.count(), handle.facets("kw"),
        *(handle.search(query, len(INSIDE) + 50) for query in QUERIES),
    )  # fmt: skip
    assert sorted(hit.id for hit in fetched) == INSIDE
    assert (count, facets) == (len(INSIDE), [("open", len(INSIDE))])
    assert all(sorted(hit.id for hit in one) == INSIDE for one in found)
    assert [hit.id async for hit in handle.scan(size=7)] == INSIDE


@pytest.mark.parametrize("name", [*SCOPES, *TORN])
def test_a_read_beside_writers_is_of_the_scope(stores, name):
    where = {**SCOPES, **TORN}[name]
    flips = (
        (lambda turn: {**SECRET, "lang": "en"} if turn % 2 else {**OPEN, "lang": "de", "num": 0})
        if name in TORN
        else (
            lambda turn: {**SECRET, "lang": ("de", "fr")[turn % 2], "num": 7 + turn % 3 if "number" not in name else 7}
        )
    )
    if name == "a range":
        flips = lambda turn: {**OPEN, "num": (0, 9)[turn % 2]}  # noqa: E731
    who = principal("u", "acme")
    with v.connect(stores(metadata=FIELDS, index="flat").config) as acl:
        acl.scoped(who).upsert([chunk(one, OPEN) for one in INSIDE])
        handle = acl.scoped(who).narrow(where)
        with written(acl, who, flips):
            end, rounds = time.monotonic() + SECONDS, 0
            while time.monotonic() < end or rounds < 3:
                look(handle, [f"flip{i}" for i in range(15)])
                rounds += 1


def test_an_async_read_beside_writers_is_of_the_scope(stores):
    config = stores(metadata=FIELDS, index="flat").config
    who = principal("u", "acme")

    async def reads() -> None:
        async with v.aconnect(config) as acl:
            for where in (SCOPES["not equal"], SCOPES["not of a list"], SCOPES["missing"], TORN["two fields"]):
                end, rounds = time.monotonic() + SECONDS, 0
                handle = acl.scoped(who).narrow(where)
                while time.monotonic() < end or rounds < 3:
                    await alook(handle, [f"flip{i}" for i in range(15)])
                    rounds += 1

    with v.connect(config) as acl:
        acl.scoped(who).upsert([chunk(one, OPEN) for one in INSIDE])
        with written(acl, who, lambda turn: {**SECRET, "lang": ("de", "fr")[turn % 2]}):
            asyncio.run(reads())


@pytest.mark.parametrize("name", ["not equal", "not in", "not of a list", "missing", "deep", "beside a positive one"])
@pytest.mark.parametrize("by", ["where", "ids", "document"])
def test_a_delete_beside_writers_leaves_what_is_outside(stores, name, by):
    who = principal("u", "acme")
    with v.connect(stores(metadata=FIELDS, index="flat").config) as acl:
        acl.scoped(who).upsert([chunk(one, OPEN) for one in INSIDE])
        handle = acl.scoped(who).narrow(SCOPES[name])
        deleted, rounds = 0, 0
        with written(acl, who, lambda turn: {**SECRET, "num": 7 + turn % 2}) as kept:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end or rounds < 3:
                ids = [("d", one) for one in (*INSIDE, *list(kept)[-40:], *(f"flip{i}" for i in range(15)))]
                which: dict[str, Any] = {"where": {"where": ALWAYS}, "ids": {"ids": ids}, "document": {"document": "d"}}
                deleted += handle.delete(**which[by]).count
                rounds += 1
                assert handle.count() == 0
                if by == "where":
                    acl.scoped(who).upsert([chunk("again", OPEN)])
                    deleted -= handle.delete(ids=[("d", "again")]).count
        left = {hit.id for hit in acl.scoped(who).scan()}
    assert kept <= left, "an acknowledged chunk outside of the scope is gone"
    assert deleted <= len(INSIDE) + (rounds if by == "where" else 0)
    assert not left & set(INSIDE)


def test_a_write_is_permitted_or_not_whoever_else_writes(stores):
    """Neither an upsert nor a replacement is denied for a chunk that is inside, or not denied for one outside."""
    who = principal("u", "acme")
    with v.connect(stores(metadata=FIELDS, index="flat").config) as acl:
        acl.scoped(who).upsert([chunk("outside", SECRET), chunk("other", SECRET, "outside")])
        handle = acl.scoped(who).narrow(F.kw != "secret")
        with written(acl, who, lambda _: SECRET):
            for turn in range(8):
                handle.upsert([chunk(f"own{turn}", OPEN), chunk("own", OPEN)])
                handle.replace(f"doc{turn % 2}", [chunk("c", OPEN, f"doc{turn % 2}")])
                with pytest.raises(DeniedError):
                    handle.upsert([chunk("outside", OPEN)])
                with pytest.raises(DeniedError):
                    handle.replace("outside", [chunk("c", OPEN, "outside")])
                with pytest.raises(DeniedError):
                    handle.replace("outside", [])


def test_a_replacement_beside_negated_reads_is_of_one_version(stores):
    """The adapter's own conditions, "of another document" and "is being replaced", are negations too."""
    who = principal("u", "acme")
    with v.connect(stores(metadata=FIELDS, index="flat").config) as acl:
        docs = acl.scoped(who)
        docs.replace("d", [chunk(f"v{i}", {**OPEN, "num": 0}) for i in range(6)])
        stop, failed = threading.Event(), []

        def replaces() -> None:
            turn = 0
            try:
                while not stop.is_set():
                    turn += 1
                    docs.replace("d", [chunk(f"v{i}", {**OPEN, "num": turn}) for i in range(6)])
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=replaces)
        thread.start()
        try:
            handle, end = docs.narrow(F.kw != "secret"), time.monotonic() + 3
            while time.monotonic() < end:
                for ask in (
                    lambda: [hit.metadata["num"] for hit in handle.search(E[0], 20, include={"metadata"})],
                    lambda: [one.value for one in handle.facets("num") for _ in range(one.count)],
                    lambda: [hit.metadata["num"] for hit in handle.fetch([("d", f"v{i}") for i in range(6)])],
                    lambda: [0] * handle.count(),
                ):
                    try:
                        found = ask()
                    except StoreError as error:
                        if error.code != "replacing":
                            raise
                        continue
                    assert len(found) == 6
                    assert len(set(found)) == 1
        finally:
            stop.set()
            thread.join()
        assert not failed, failed


# The forms

COMPILER = Compiler(Properties(), check_fields(DRAWN))
NEGATIONS = {Filters.OPERATOR_NOT, Filters.OPERATOR_NOT_EQUAL, Filters.OPERATOR_CONTAINS_NONE, Filters.OPERATOR_IS_NULL}


def parts(where: Any) -> Iterator[Any]:
    yield where
    for one in where.filters:
        yield from parts(one)


@settings(max_examples=400, deadline=None)
@given(predicate, predicate)
def test_what_rests_on_the_server_alone_has_no_negation_and_joins_no_two_things_that_change(one, two):
    fields = check_fields(DRAWN)
    condition = COMPILER.condition(check_filter(one, fields), check_filter(two, fields))
    for where in (condition.sure, condition.rows if condition.fixed else None):
        if where is None or isinstance(where, bool):
            continue
        for part in parts(where):
            assert part.operator not in NEGATIONS
            if part.operator == Filters.OPERATOR_AND:
                assert sum(not COMPILER._lasts(each) for each in part.filters) <= 1
    if not condition.fixed:
        assert condition.test is not None, "what comes back is compared"


@pytest.mark.parametrize(
    ("where", "sure"),
    [
        (F.lang != "en", True), (~(F.lang == "en"), True), (F.year.is_missing(), True), (F.year.exists(), True),
        (F.ok != True, True), (~(F.year >= 3), True), (F.year != 3, True), (~F.tags.contains("a"), False),  # noqa: E712
        (F.lang.not_in(["a", "b"]), False), ((F.lang == "en") & (F.year == 3), False),
        ((F["@document"] == "d") & (F.year == 3), True), (~(F["@document"] == "d"), True),
        ((F.lang == "en") | ~(F.year < 3), True),
    ],
    ids=str,
)  # fmt: skip
def test_a_count_needs_no_listing_where_a_positive_form_is_known(where, sure):
    condition = COMPILER.condition(check_filter(where, check_fields(DRAWN)))
    assert (condition.sure is not None) is sure
