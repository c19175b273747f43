"""Identifiers: what is refused, and that look-alikes never become one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectoracl import InvalidInputError, InvalidPrincipalError, InvalidTenantError
from vectoracl.ids import MAX_ID_BYTES, MAX_TENANT_BYTES, check_id, check_principal_id, check_tenant, check_text

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
