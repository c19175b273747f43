"""Other text in a declared datetime field: what has to compare it fails as a whole, and what need not is exact."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, F, testing
from vectoracl.adapter_api.chunk_validation import load_metadata
from vectoracl.errors import StoreError
from vectoracl.filters.datetimes import datetime_text
from vectoracl.filters.field_types import FieldType
from vectoracl_pgvector import join
from vectoracl_pgvector.compile_predicate import is_moment

pytestmark = pytest.mark.server

ALICE, BOB = testing.principal("alice", "acme"), testing.principal("bob", "beta")
DAY = datetime(2024, 5, 1, tzinfo=UTC)
ONES = np.ones(8, np.float32)
# What others write. As bytes, each sorts before or after DAY whatever moment it means.
FOREIGN = ["2024-05-02", "2024-05-01T02:00:00+02:00", "01.05.2024", "", "2023-02-29T00:00:00.000000Z"]
DECIDED_BY_THE_DATE = [
    F.when < DAY,
    F.when >= DAY,
    F.when == DAY,
    F.when.in_([DAY, datetime(2025, 1, 1, tzinfo=UTC)]),
    ~(F.when < DAY),
    (F.when < DAY) | (F.when >= DAY),
    (F.lang == "old") & (F.when < DAY),
    (F.when < DAY) | (F.lang == "none"),
    ~((F.lang == "old") & (F.when < DAY)),
]
DECIDED_WITHOUT = [
    (F.lang == "en") & (F.when >= DAY),
    (F.when >= DAY) & (F.lang == "en") & (F.year > 0),
    (F.when < DAY) | (F.lang == "old") | (F.lang == "en"),
    F.when.exists() & (F.lang == "old"),
    ~((F.lang == "en") & ~(F.when < DAY)),
]


def planted(store: Any, tenant: str, text: str = FOREIGN[1]) -> None:
    """Write three rows that are right, and one as somebody else would."""
    with v.connect(store.config) as acl:
        docs = acl.scoped(testing.principal("who", tenant))
        for i, moment in enumerate((DAY, datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))):
            docs.upsert([Chunk(f"c{i}", "d", "", ONES, metadata={"when": moment, "lang": "en", "year": i + 1})])
        docs.upsert([Chunk("foreign", "old", "", ONES, metadata={"lang": "old", "year": 9})])
    names = store.names
    with psycopg.connect(store.owner, autocommit=True) as owner, owner.transaction():
        owner.execute("SELECT set_config('vectoracl.tenant', %s, true)", (tenant,))
        done = owner.execute(
            f"UPDATE {names.table} SET {names.c.metadata} = {names.c.metadata} || jsonb_build_object('when', %s::text) "
            f"WHERE {names.c.chunk} = 'foreign'",
            (text,),
        )
        assert done.rowcount == 1


def every_use(docs: Any, where: Any) -> dict[str, Any]:
    """Return what each operation makes of *where*: how many rows, or its error; the delete comes last."""
    calls = {
        "count": lambda: docs.count(where=where),
        "scan": lambda: len(list(docs.scan(where=where, include=set()))),
        "search": lambda: len(docs.search(ONES, 10, where=where, include=set())),
        "exact": lambda: len(docs.search(ONES, 10, where=where, include=set(), exact=True)),
        "delete": lambda: docs.delete(where=where).count,
    }
    found: dict[str, Any] = {}
    for name, call in calls.items():
        try:
            found[name] = call()
        except StoreError as error:
            said = "The store 'main' holds text in the declared datetime field 'when'" in str(error)
            found[name] = (error.code, error.field, error.adapter, error.sent, error.retryable, said)
    return found


@pytest.mark.parametrize("where", DECIDED_BY_THE_DATE, ids=repr)
@pytest.mark.parametrize("text", FOREIGN)
def test_where_the_date_decides_nothing_is_counted_and_nothing_deleted(store: Any, text: str, where: Any) -> None:
    planted(store, "acme", text)
    with v.connect(store.config) as acl:
        docs = acl.scoped(ALICE)
        assert set(every_use(docs, where).values()) == {("stored_form", "when", "pgvector", "no", False, True)}
        assert docs.count() == 4


@pytest.mark.parametrize("where", DECIDED_WITHOUT, ids=repr)
def test_where_it_decides_nothing_the_answer_is_the_reference_s(store: Any, where: Any) -> None:
    planted(store, "acme")
    memory = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 8}}}
    memory["stores"]["main"]["metadata"] = store.config["stores"]["main"]["metadata"]  # type: ignore[index]
    with v.connect(store.config) as acl, v.connect(memory) as reference:
        same = reference.scoped(ALICE)
        for i, moment in enumerate((DAY, datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))):
            same.upsert([Chunk(f"c{i}", "d", "", ONES, metadata={"when": moment, "lang": "en", "year": i + 1})])
        # Whatever moment it means: the answer does not depend on it.
        for moment in (datetime(1990, 1, 1, tzinfo=UTC), DAY, datetime(2100, 1, 1, tzinfo=UTC)):
            same.upsert([Chunk("foreign", "old", "", ONES, metadata={"when": moment, "lang": "old", "year": 9})])
            expected = same.count(where=where)
            assert expected > 0
            assert acl.scoped(ALICE).count(where=where) == expected
        assert every_use(acl.scoped(ALICE), where) == every_use(same, where)
        assert acl.scoped(ALICE).count() == same.count()


def test_a_row_outside_of_the_scope_changes_nothing(store: Any) -> None:
    """Neither another tenant's, nor one of the same tenant that the handle may not see."""
    planted(store, "beta")
    planted(store, "acme")
    with v.connect(store.config) as acl:
        with pytest.raises(StoreError):
            acl.scoped(BOB).count(where=F.when < DAY)
        narrow = acl.scoped(ALICE).narrow(F.lang == "en")
        found = every_use(narrow, F.when < DAY)
        assert found == dict.fromkeys(("count", "scan", "search", "exact", "delete"), 1)
        assert acl.scoped(ALICE).count() == 3
        assert acl.scoped(BOB).count() == 4


def test_a_scope_that_would_have_to_compare_it_refuses_writes_too(store: Any) -> None:
    planted(store, "acme")
    with v.connect(store.config) as acl:
        docs = acl.scoped(ALICE)
        narrow = docs.narrow(F.when >= DAY)
        new = Chunk("foreign", "old", "new", ONES, metadata={"when": DAY, "lang": "old"})
        for write in (
            lambda: narrow.upsert([new]),
            lambda: narrow.replace("old", [new]),
            lambda: narrow.delete(document="old"),
        ):
            with pytest.raises(StoreError) as caught:
                write()
            assert (caught.value.code, caught.value.field) == ("stored_form", "when")
        assert docs.count() == 4
        docs.upsert([new])  # written again through a handle that need not compare it
        assert narrow.count() == 3


def test_inside_of_a_transaction_of_ones_own(store: Any) -> None:
    planted(store, "acme")
    with v.connect(store.config) as acl, psycopg.connect(store.runtime) as connection:
        docs = join(acl, ALICE, connection)
        for call in (lambda: docs.count(where=F.when < DAY), lambda: docs.delete(where=F.when < DAY)):
            with pytest.raises(StoreError) as caught:
                call()
            assert caught.value.code == "stored_form"
        assert docs.count() == 4  # the transaction goes on


def _texts(count: int) -> list[str]:
    """Return texts in the stored form and near it."""
    chance = random.Random(7)
    made = ["2000-02-29T00:00:00.000000Z", "1900-02-29T00:00:00.000000Z", "0000-02-29T00:00:00.000000Z",
            "0400-02-29T00:00:00.000000Z", "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z",
            "2024-05-01T12:00:00.000000Z\n", "２024-05-01T12:00:00.000000Z", *FOREIGN]  # fmt: skip
    alphabet = "0123456789TZ:-. +\tＺ\n"
    while len(made) < count:
        parts = (chance.choice([0, 1, 4, 100, 400, 1900, 2000, 2023, 2024, 9999, chance.randrange(10000)]),
                 chance.randrange(0, 14), chance.randrange(0, 33), chance.randrange(0, 25),
                 chance.choice([0, 59, 60]), chance.choice([0, 59, 60]),
                 chance.choice([0, 1, 120_000, chance.randrange(1_000_000)]))  # fmt: skip
        text = "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z".format(*parts)
        for _ in range(chance.choice([0, 0, 1, 2])):
            place = chance.randrange(len(text))
            text = text[:place] + chance.choice(alphabet) + text[place + chance.choice([0, 1, 1, 1]) :]
        made.append(text)
    return made


def test_the_server_takes_the_same_texts_for_moments_as_the_reader(store: Any) -> None:
    texts = _texts(20_000)
    with psycopg.connect(store.runtime) as connection:
        rows = connection.execute(
            f"SELECT COALESCE({is_moment('one.metadata', 'when')}, false) FROM (SELECT place, "
            "jsonb_build_object('when', said) AS metadata "
            "FROM unnest(%s::text[]) WITH ORDINALITY AS given(said, place)) AS one ORDER BY place",
            (texts,),
        ).fetchall()
    read = []
    for text in texts:
        try:
            moment = load_metadata({"when": text}, {"when": FieldType.DATETIME})["when"]
        except StoreError:
            read.append(False)
        else:
            assert datetime_text(moment) == text, "the order of bytes is the order of time for one form only"
            read.append(True)
    assert [row[0] for row in rows] == read
    assert 1000 < sum(read) < 19_000
