"""Text that a store holds in a declared datetime field and others wrote: refused by name, never passed over."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from vectoracl import F, StoreError, VectorACL, hazmat, testing
from vectoracl.adapter_api.chunk_validation import load_metadata
from vectoracl.adapter_api.operations import Found, Rows
from vectoracl.filters.datetimes import datetime_text
from vectoracl.filters.field_types import FieldType

V = [1.0, 0.0, 0.0]
FIELDS = {"seen": FieldType.DATETIME, "lang": FieldType.KEYWORD}
GOOD = datetime(2024, 5, 1, 12, tzinfo=UTC)
OTHER = [
    "canary",
    "",
    "2024-05-01",
    "2024-05-01T12:00:00",
    "2024-05-01T12:00:00Z",
    "2024-05-01T12:00:00.000000",
    "2024-05-01T12:00:00.000000+00:00",
    "2024-05-01T14:00:00.000000+02:00",
    "2024-05-01T12:00:00.0000000Z",
    "2024-05-01t12:00:00.000000z",
    "2024-05-01 12:00:00.000000Z",
    "2024-02-30T12:00:00.000000Z",
    "2024-05-01T24:00:00.000000Z",
    "2024-05-01T12:00:60.000000Z",
    "2024-05-01T12:00:00.000000Z\n",
    "２024-05-01T12:00:00.000000Z",
]


@pytest.mark.parametrize("moment", [GOOD, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_what_is_written_is_read(moment):
    assert load_metadata(orjson.dumps({"seen": datetime_text(moment)}), FIELDS) == {"seen": moment}


@pytest.mark.parametrize("text", OTHER)
def test_other_text_is_refused_by_the_name_of_its_field(text):
    with pytest.raises(StoreError, match="declared datetime field 'seen'") as caught:
        load_metadata({"seen": text, "lang": text}, FIELDS)
    error = caught.value
    assert (error.code, error.field, error.sent, error.retryable) == ("stored_form", "seen", "no", False)
    assert error.__cause__ is None
    assert "canary" not in str(error)
    assert load_metadata({"lang": text}, FIELDS) == {"lang": text}


def test_a_value_of_another_type_is_no_datetime_and_stays():
    """As in the reference: every comparison with it is false, on every store."""
    for value in (7, True, None, ["x"], {"a": 1}):
        assert load_metadata({"seen": value}, FIELDS) == {"seen": value}


class OldRows:
    """Answers with the adapter's own rows, read from a store in which somebody wrote dates by hand."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def _read(self, found):
        found.hits[:] = [hit._replace(metadata=load_metadata({"seen": "canary 2024"}, FIELDS)) for hit in found.hits]
        return found

    def search(self, operation):
        found: Found = yield from self._inner.search(operation)
        return self._read(found)

    def fetch(self, operation):
        found: Rows = yield from self._inner.fetch(operation)
        return self._read(found)

    def scan(self, operation):
        found: Rows = yield from self._inner.scan(operation)
        return self._read(found)


def test_the_error_names_store_and_field_and_quotes_nothing(api, who, chunk):
    acl = api.connect()
    docs = acl.scoped(who())
    docs.upsert([chunk(seen=datetime(2020, 1, 1, tzinfo=UTC))])
    acl.tap(adapter=OldRows)
    for call in (
        lambda: docs.search(V),
        lambda: docs.search(V, where=F.seen < GOOD),
        lambda: docs.search_many([V, V]),
        lambda: docs.fetch(["c1"]),
        docs.page,
        lambda: list(docs.scan()),
    ):
        with pytest.raises(StoreError, match=r"The store 'main' holds text in the declared .* 'seen'") as caught:
            call()
        assert (caught.value.code, caught.value.field, caught.value.adapter) == ("stored_form", "seen", "memory")
        assert "canary" not in f"{caught.value} {caught.value.__context__}"
        assert acl.outcomes[-1]["outcome"] == "error:stored_form"
    assert docs.search([0.0, 1.0, 0.0], where=F.lang == "nowhere").complete  # no such row is met: the control


def test_a_copy_says_it_too(config, chunk):
    with VectorACL(config) as acl:
        acl.scoped(testing.principal(tenant="acme")).upsert([chunk()])
        door = hazmat.operate(acl, reason="rows that were written by hand")
        named = acl._named("main")
        object.__setattr__(named.store, "adapter", OldRows(named.store.adapter))
        with pytest.raises(StoreError, match=r"The store 'main' holds text in the declared .* 'seen'"):
            door.read("acme", 10)
