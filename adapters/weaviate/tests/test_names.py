"""The names that the adapter makes: injective, and of the form that Weaviate takes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectoracl.errors import VectorACLError
from vectoracl.model.identifiers import check_tenant
from vectoracl.model.records import Tag
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.names import escape, id_of, readable, seek_key, tenant_name, unescape

ALLOWED = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
ids = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cn", "Cf", "Co", "Zl", "Zp")), min_size=1)


@given(st.lists(st.one_of(ids, st.from_regex(r"[ht]_[a-zA-Z0-9_-]{1,70}", fullmatch=True)), min_size=2, unique=True))
def test_tenants_never_meet(some):
    names = [tenant_name(one) for one in some]
    assert len(set(names)) == len(names)
    assert all(ALLOWED.match(name) for name in names)
    for tenant, name in zip(some, names, strict=True):
        assert readable(name) in (tenant, None)


@pytest.mark.parametrize(
    ("tenant", "name"),
    [
        ("acme", "t_acme"),
        ("Acme", "t_Acme"),
        ("a" * 62, "t_" + "a" * 62),
        ("h_1", "t_h_1"),
        ("t_1", "t_t_1"),
    ],
)
def test_a_safe_id_stays_readable(tenant, name):
    assert tenant_name(tenant) == name
    assert readable(name) == tenant


@pytest.mark.parametrize("tenant", ["a" * 63, "a b", "a.b", "é", "acme ", "a/b", "a*", "acme\n"])
def test_any_other_id_is_hashed(tenant):
    assert re.fullmatch(r"h_[0-9a-f]{60}", tenant_name(tenant))
    assert readable(tenant_name(tenant)) is None


@given(st.lists(st.tuples(ids, st.integers(0, 2**40), ids), min_size=2))
def test_keys_sort_as_their_parts_do(some):
    by_parts = sorted(some, key=lambda one: (one[0].encode(), one[1], one[2].encode()))
    assert [seek_key(*one) for one in by_parts] == sorted(seek_key(*one) for one in some)


@given(ids, ids)
def test_a_keyword_is_kept_whole(one, other):
    assert unescape(escape(one)) == one
    assert (escape(one).strip() == escape(other).strip()) == (one == other)


def test_versions_of_one_generation_are_different_objects():
    tag = Tag("acme", "d", "c", 3)
    assert len({id_of(tag), id_of(tag, "aa"), id_of(tag, "ab"), id_of(tag._replace(generation=4), "aa")}) == 4


@pytest.mark.parametrize(
    "bad",
    [
        {"url": "ftp://host"},
        {"url": "http://user:secret-pw@host"},
        {"url": "http://host/path"},
        {"collection": "lower"},
        {"collection": "A-b"},
        {"index": "dynamic"},
        {"dimension": 0},
        {"properties": {"tenant": "m_kw_x"}},
        {"properties": {"tenant": "Document"}},
        {"properties": {"tenant": "id"}},
        {"properties": {"tenant": "label"}},
        {"tenant_keys": "keys.json", "new_tenants": "create"},
        {"grade": "none"},
    ],
)
def test_what_the_configuration_refuses(bad):
    with pytest.raises(ValueError) as caught:
        WeaviateConfig(**{"url": "http://host", "dimension": 2, **bad})
    assert "secret-pw" not in str(caught.value)


def test_a_tenant_id_with_a_pattern_in_it_never_gets_here():
    for bad in (".*", "*", "a%"):
        if bad != ".*":
            with pytest.raises(VectorACLError):
                check_tenant(bad)
        assert "*" not in tenant_name(bad)
