"""What adapters share by name: pinned, since what is stored depends on it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vectoracl.adapter_api.generations import at_generation, version_of
from vectoracl.adapter_api.operations import ChunkRef, refs_by_document
from vectoracl.filters.field_types import SHORT_NAMES, FieldType
from vectoracl.filters.validation import check_fields, declarable
from vectoracl.model.records import Record, Tag, tag_fields

TAG = Tag("acme", "d", "c", producer="ann", time=1.5)
ROW = Record(TAG, "text", np.ones(3, np.float32), {"a": 1})


def test_a_version_names_what_is_written_by_whom_and_when() -> None:
    others = [
        ROW._replace(text="other"),
        ROW._replace(metadata={"a": 2}),
        *(ROW._replace(tag=TAG._replace(**part)) for part in ({"chunk": "x"}, {"producer": "bob"}, {"time": 2.5})),
    ]
    versions = [version_of([one]) for one in (ROW, *others)]
    assert len(set(versions)) == len(versions)
    assert {len(one) for one in versions} == {24}
    assert version_of([ROW]) == versions[0]
    # A generation is what replacements that meet may share, so it is no part of it.
    assert version_of(at_generation([ROW], 7)) == versions[0]
    assert version_of([ROW, others[0]]) != version_of([others[0], ROW])


def test_a_generation_is_put_into_every_tag() -> None:
    made = at_generation([ROW, ROW._replace(tag=TAG._replace(chunk="e"))], 7)
    assert [one.tag for one in made] == [TAG._replace(generation=7), TAG._replace(chunk="e", generation=7)]
    assert ROW.tag.generation == 0


def test_references_by_document() -> None:
    refs = [ChunkRef("a"), ChunkRef("b", "d"), ChunkRef("a", "d"), ChunkRef("c"), ChunkRef("a", "e"), ChunkRef("x", "")]
    assert refs_by_document(refs) == (["a", "c"], {"d": ["b", "a"], "e": ["a"], "": ["x"]})
    assert refs_by_document([]) == ([], {})


@pytest.mark.parametrize("name", ["a", "_a9", "A" * 63, "A" * 64, "", "9a", "a.b", "é", "a\n", "a b", "@a", "a-b"])
def test_what_can_be_declared_is_what_the_configuration_takes(name: str) -> None:
    try:
        taken = bool(check_fields({name: "keyword"}))
    except Exception:
        taken = False
    assert declarable(name) is taken


def test_each_type_has_one_short_name_without_an_underscore() -> None:
    assert dict(SHORT_NAMES) == {
        FieldType.KEYWORD: "kw",
        FieldType.NUMBER: "num",
        FieldType.BOOLEAN: "bool",
        FieldType.DATETIME: "date",
        FieldType.KEYWORDS: "kws",
        FieldType.NUMBERS: "nums",
    }


def test_every_part_of_a_tag_is_stored() -> None:
    parts = (*Tag._fields, "docgen")
    keys = SimpleNamespace(**{part: f"acl_{part}" for part in parts})
    tag = Tag("acme", "d", "c", 3, "l", 4, 5.0, "p", "upsert", 6.0, 7)
    assert tag_fields(keys, tag) == {f"acl_{part}": getattr(tag, part) for part in parts}
