"""Identifiers: what is refused, and that look-alikes never become one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectoracl import InvalidInputError, InvalidPrincipalError, InvalidTenantError
from vectoracl.filters.validation import reserved_key
from vectoracl.model import identifier_tables as tables
from vectoracl.model import identifiers
from vectoracl.model.identifiers import (
    MAX_ID_BYTES,
    MAX_TENANT_BYTES,
    _ranges,
    check_id,
    check_principal_id,
    check_tenant,
    check_text,
    look_alikes,
)

CHECKS = {
    "tenant": (check_tenant, InvalidTenantError),
    "principal": (check_principal_id, InvalidPrincipalError),
    "document": (lambda value: check_id(value, "document"), InvalidInputError),
}
BAD = {
    "empty": "",
    "blank": " ",
    "tab": "\t",
    "newline at the end": "acme\n",
    "leading blank": " acme",
    "trailing blank": "acme ",
    "trailing no-break space": "acme\u00a0",
    "NUL": "ac\0me",
    "bell": "ac\x07me",
    "delete": "ac\x7fme",
    "zero-width space": "ac\u200bme",
    "zero-width joiner": "ac\u200dme",
    "byte order mark": "\ufeffacme",
    "right-to-left override": "ac\u202eme",
    "soft hyphen": "ac\u00adme",
    "line separator": "ac\u2028me",
    "lone surrogate": "ac\ud800me",
    "decomposed": unicodedata.normalize("NFD", "café"),
    "private use": "ac\ue000me",
    "too long": "x" * 10_000,
    "too long in bytes": "é" * 400,
    "none": None,
    "bytes": b"acme",
    "number": 7,
    "bool": True,
    "list": ["acme"],
    "object": object(),
}


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize("case", BAD)
def test_refused(kind, case):
    check, error = CHECKS[kind]
    with pytest.raises(error) as caught:
        check(BAD[case])
    if isinstance(BAD[case], str) and len(BAD[case].strip()) > 3:
        assert BAD[case] not in str(caught.value)


@pytest.mark.parametrize("kind", ["tenant", "principal"])
@pytest.mark.parametrize("wildcard", ["*", "acme*", "?", "%", "a%b"])
def test_wildcards_are_no_tenants_and_no_principals(kind, wildcard):
    check, error = CHECKS[kind]
    with pytest.raises(error, match="wildcard"):
        check(wildcard)
    assert check_id(wildcard, "document") == wildcard


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize(
    "good", ["acme", "ACME", "a", "café", "東京", "a b", "a/b", "a.b-c_d:e", "'; DROP TABLE x;--", "{}"]
)
def test_kept_exactly(kind, good):
    assert CHECKS[kind][0](good) == good


@pytest.mark.parametrize(("kind", "limit"), [("tenant", MAX_TENANT_BYTES), ("document", MAX_ID_BYTES)])
def test_limit_is_in_bytes(kind, limit):
    check, error = CHECKS[kind]
    assert check("x" * limit) == "x" * limit
    assert check("é" * (limit // 2)) == "é" * (limit // 2)
    with pytest.raises(error):
        check("x" * (limit + 1))
    with pytest.raises(error):
        check("é" * (limit // 2) + "x")


@given(st.text(max_size=20))
def test_identity_or_refusal(text):
    """Nothing is trimmed, folded or normalised: what is accepted comes back as it is."""
    try:
        kept = check_tenant(text)
    except InvalidTenantError:
        return
    assert kept == text
    assert type(kept) is str
    assert kept.encode().decode() == text
    assert unicodedata.normalize("NFC", kept) == kept


class Sly(str):
    """A string that says it is another."""

    __slots__ = ()

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("victim")

    def __str__(self):
        return "victim"

    def casefold(self):
        return "harmless"

    def encode(self, *_args):
        return b"victim"

    def isascii(self):
        return True

    def isprintable(self):
        return True


@pytest.mark.parametrize("kind", CHECKS)
def test_subclass_of_str_loses_its_behaviour(kind):
    kept = CHECKS[kind][0](Sly("acme"))
    assert type(kept) is str
    assert "".join(list(kept)) == "acme"
    with pytest.raises(CHECKS[kind][1]):
        CHECKS[kind][0](Sly("ac\u200bme"))


def test_text_loses_the_behaviour_of_a_subclass_too():
    assert type(check_text(Sly("acme"), "text")) is str
    assert check_text(Sly("acme"), "text") == "acme"


@pytest.mark.parametrize("bad", ["a\0b", "\ud800", None, 3, b"x", "x" * 11])
def test_text_refused(bad):
    with pytest.raises(InvalidInputError):
        check_text(bad, "text", 10)


HIDDEN = ["ㅤ", "️", "͏", "ᅟ", "ᅠ", "⠀", "󠄀", "̸", "￼", "឴", "᠋", "\u200c", "\u200d", "\ufeff", "\xad"]


@pytest.mark.parametrize("hidden", HIDDEN, ids=ascii)
def test_what_nobody_sees_is_in_no_tenant_s_and_no_principal_s_id(hidden):
    for value in (f"ac{hidden}me", f"acme{hidden}", f"{hidden}acme", f"می{hidden}خواهم", f"क्{hidden}ष", f"☺{hidden}☺"):
        with pytest.raises(InvalidTenantError):
            check_tenant(value)
        with pytest.raises(InvalidPrincipalError):
            check_principal_id(value)


@pytest.mark.parametrize("hidden", HIDDEN, ids=ascii)
def test_look_alikes_with_what_nobody_sees_are_noticed(hidden):
    assert look_alikes(["acme", f"ac{hidden}me", "globex"]) == [sorted(["acme", f"ac{hidden}me"])]


IGNORABLE = [code for first, last in _ranges(tables.IGNORABLE) for code in range(first, last + 1)]


@given(st.sampled_from(IGNORABLE), st.text("abcé漢", max_size=3), st.text("abcé漢", max_size=3))
def test_nothing_ignorable_by_default_is_in_an_id_of_rights(code, before, after):
    with pytest.raises(InvalidTenantError):
        check_tenant(f"{before}{chr(code)}{after}")


@given(st.text(min_size=1, max_size=20))
def test_an_id_of_rights_holds_only_what_the_standard_allows(text):
    allowed = {code for first, last in _ranges(tables.ALLOWED) for code in (first, last)}
    try:
        assert check_tenant(text) == text
    except InvalidTenantError:
        return
    for char in text:
        assert char.isascii() or char.isalnum() or unicodedata.category(char)[0] == "M" or ord(char) in allowed


@pytest.mark.parametrize(
    "value",
    [
        "acme",
        "Acme Corp",
        "a-b_c.d:e@f/g",
        "org/42",
        "user@example.com",
        "müller",
        "株式会社",
        "данные",
        "عربي",
        "हिन्दी",
        "a~b+c",
    ],
)
def test_the_ids_that_people_have_are_still_taken(value):
    assert check_tenant(value) == value
    assert check_principal_id(value) == value


NAMES = [
    "می\u200cخواهم.pdf",  # Persian: the non-joiner between letters that would join
    "خانه\u200cها",
    "क्\u200dष",  # Indic: a joiner behind a virama
    "ක්\u200dරි",
    "क्\u200cष",
    "👨\u200d👩\u200d👧 photos",  # a family of emoji
    "👩🏽\u200d💻",
    "❤\ufe0f\u200d🔥",
    "☺\ufe0f notes",
    "1\ufe0f\u20e3 first",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "葛\U000e0100城",
    "ᠠ\u180b",
    "read:*",
    "100% Remote",
    "why?",
    "naïve café",
]


@pytest.mark.parametrize("value", NAMES, ids=ascii)
def test_documents_groups_and_roles_take_what_people_have(value):
    assert check_id(value, "document") == value
    assert check_principal_id(value, "groups") == value
    assert check_principal_id(value, "roles") == value


@pytest.mark.parametrize(
    "value",
    [
        *("a\u200db", "a\u200cb", "\u200dabc", "abc\u200d", "漢\u200d字", "a\ufe0fb", "\ufe0fa", "a\U000e0100"),
        *("a\U000e0067", "ac\u3164me", "a\u034fb", "🏴a\U000e0067"),
    ],
    ids=ascii,
)
def test_what_is_invisible_where_it_stands_is_in_no_name(value):
    with pytest.raises(InvalidInputError):
        check_id(value, "document")
    with pytest.raises(InvalidPrincipalError):
        check_principal_id(value, "groups")


@pytest.mark.parametrize("value", ["*", "%", "?", "**", "*?%"])
def test_a_wildcard_alone_is_no_group(value):
    for field in ("groups", "roles"):
        with pytest.raises(InvalidPrincipalError, match="wildcard"):
            check_principal_id(value, field)


def test_a_metadata_key_that_looks_like_one_of_ours_is_reserved():
    for hidden in HIDDEN:
        assert reserved_key(f"tenant{hidden}_id"), ascii(hidden)


def test_the_tables_are_those_of_a_version_of_the_standard():
    assert tables.UNICODE == "15.0.0"
    assert sum(last - first + 1 for first, last in _ranges(tables.ALLOWED)) == 112_087
    assert len(IGNORABLE) == 4174


def test_a_check_of_ascii_looks_at_no_table(monkeypatch):
    monkeypatch.setattr(identifiers, "_first_problem", None)
    monkeypatch.setattr(identifiers, "_patterns", None)
    assert check_tenant("acme-42") == "acme-42"
    assert check_id("read:*", "document") == "read:*"
