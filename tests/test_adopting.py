"""What every adapter's adoption shares: the checks of a row, what is said of refused ones, the copy in batches."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectoracl.adapter_api import adoption
from vectoracl.adapter_api.adoption import Checks, Findings
from vectoracl.adapter_api.contract import Adopted
from vectoracl.errors import InvalidTenantError, RefusedError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.validation import reserved_key
from vectoracl.model.records import Chunk

CHECKS = Checks({"year": FieldType.NUMBER}, 2, "cosine", time=7.0)


def row(tenant, chunk="c", document="d", vector=(1, 0)):
    return tenant, Chunk(chunk, document, "a text", vector, metadata={"year": 2020})


def record(one):
    tenant, chunk = one
    return CHECKS.record(adoption.tenant_in(tenant), chunk)


def quiet(*_):
    pass


def look(rows):
    findings = Findings("row")
    identity = lambda tag: (tag.tenant, tag.document, tag.chunk)  # noqa: E731
    total = adoption.look(findings, [rows], record, lambda one: one[1].id, identity, quiet)
    return findings, total


def test_one_name_is_taken_and_two_are_refused_with_the_line_to_write():
    assert adoption.only("text", [], "keys of old") is None
    assert adoption.only("text", ["body"], "keys of old") == "body"
    with pytest.raises(RefusedError, match=r'keys of old could .* body, page\. .*text = "body"'):
        adoption.only("text", ["body", "page"], "keys of old")


@pytest.mark.parametrize("value", [None, "", " \t", 7, True, ["acme"]])
def test_there_is_no_default_tenant(value):
    with pytest.raises(RefusedError, match=r"^No tenant\."):
        adoption.tenant_in(value)


def test_a_tenant_has_the_form_of_one():
    assert adoption.tenant_in("acme") == "acme"
    with pytest.raises(InvalidTenantError):
        adoption.tenant_in("acme*")


def test_an_id_is_a_text_or_a_whole_number():
    assert [adoption.id_in(one) for one in ("a", 7, True, 1.0, None)] == ["a", "7", None, None, None]


def test_texts_of_datetime_fields_become_datetimes():
    fields = {"when": FieldType.DATETIME}
    made = adoption.moments({"when": "2024-01-02T03:04:05+00:00", "other": "2024-01-02"}, fields)
    assert made == {"when": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), "other": "2024-01-02"}
    with pytest.raises(RefusedError, match="'when' holds no date"):
        adoption.moments({"when": "soon"}, fields)


def test_a_record_carries_the_path_and_the_time_of_the_adoption():
    made = record(row("acme"))
    assert (made.tag.tenant, made.tag.path, made.tag.producer, made.tag.time) == ("acme", "adopt", "operator", 7.0)
    with pytest.raises(RefusedError):
        record(row("acme", vector=(0, 0)))


def test_vectors_are_alike_up_to_their_length_under_the_cosine_only():
    one, other = np.array([3, 4], np.float32), np.array([0.6, 0.8], np.float32)
    assert CHECKS.alike(one, other)
    assert not Checks({}, 2, "dot").alike(one, other)
    assert not CHECKS.alike(one, np.array([0.8, 0.6], np.float32))


def test_a_look_counts_tenants_and_names_what_is_refused():
    rows = [row("acme"), row("acme"), row("ACME", "e"), row(None, "f"), row("globex", "g")]
    findings, total = look(rows)
    findings.refuse_look_alikes({"Globex"})
    assert total == 5
    assert findings.tenants == {"acme": 2, "ACME": 1, "globex": 1}
    assert set(findings.lines()) == {
        "1 rows: The same tenant, document and chunk id as another row. Ids: c",
        "1 rows: No tenant. Ids: f",
        "3 rows: Tenants that look alike: 'ACME', 'acme'.",
        "1 rows: Tenants that look alike: 'Globex', 'globex'.",
    }
    plan = list(findings.summary(total, str.upper))
    assert plan[:2] == ["5 rows of 3 tenants; the largest:", "           2  'acme' -> ACME"]
    assert "REFUSED. Nothing is copied while there are such rows:" in plan
    adopted = Adopted()
    with pytest.raises(RefusedError, match=r"old was not adopted and nothing was copied\. Fix these rows") as error:
        findings.settle(adopted, "old was not")
    assert "a text" not in str(error.value)
    assert (adopted.tenants, adopted.refused) == (3, 6)


def test_look_alikes_that_are_only_known_refuse_nothing():
    findings, _ = look([row("acme")])
    findings.refuse_look_alikes({"globex", "GLOBEX"})
    findings.settle(Adopted(), "old was not")


def test_few_ids_are_shown_and_all_are_counted():
    findings = Findings("row", ids="Keys")
    for number in range(30):
        findings.take("acme")
        findings.show("acme", str(number))
    findings.refuse_look_alikes({"Acme"})
    (line,) = findings.lines()
    assert line.startswith("30 rows: ")
    assert line.endswith("Keys: " + ", ".join(map(str, range(20))) + ", …")


def test_a_copy_says_how_far_it_came():
    adopted, steps = Adopted(), []
    rows = [[row("b"), row("a")], [row("a", "e")]]

    def groups(batch):
        return adoption.by_tenant(batch, record, lambda one: one[1].id, "old", "row")

    def write(tenant, records):
        if tenant == "a" and records[0].tag.chunk == "e":
            raise OSError
        return (len(records), 0) if tenant == "a" else (0, 0)

    with pytest.raises(OSError):
        adoption.copy(rows, groups, write, adopted, lambda *step: steps.append(step), 1)
    assert (adopted.copied, adopted.there) == (1, 1)
    assert steps == [("copying", 2, 2)]
    with pytest.raises(RefusedError, match=r"old was changed while it was copied; the row c is refused: No tenant\."):
        groups([row(None)])
    different, seen = adoption.compare(rows, groups, lambda tenant, some: len(some) * (tenant == "a"), quiet, 3)
    assert (different, seen) == ({"a": 2}, 3)
    error = adoption.differs("memory", "old", "2 chunks", sorted(different))
    assert (error.code, error.sent, error.adapter) == ("adopt_differs", "unknown", "memory")
    assert "2 chunks of 1 tenants differ from old: 'a'. " in error.message


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(["a", "tenant_id", "Tenant_ID", "@x", "#y", "namespace", "vectoracl_z", "adopted_a"]),
        st.one_of(st.none(), st.integers(0, 9)),
    )
)
def test_metadata_of_any_names_is_taken_whole(found):
    """No value is lost but null, no key is the framework's, and what was renamed is said."""
    checks = Checks({}, 3, "cosine")
    made = checks.metadata(found)
    kept = {key: value for key, value in found.items() if value is not None}
    assert sorted(made.values()) == sorted(kept.values())
    assert not [key for key in made if reserved_key(key)]
    assert {checks.renamed.get(key, key) for key in kept} == set(made)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["a", "b", "text"]), max_size=4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_a_text_is_found_at_any_depth_of_json(keys, as_text):
    value = "THE TEXT"
    for key, packed in zip(reversed(keys), as_text, strict=False):
        value = {key: value, "other": None}
        if packed:
            value = json.dumps(value)
    said = "->>".join(["column", *keys])
    assert adoption.text_at(value, adoption.steps(said)[1:]) == "THE TEXT"
