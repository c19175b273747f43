"""What a policy's expression comes to, as `pg_get_expr` prints it; `test_posture` shows the same on a real server."""

from __future__ import annotations

import pytest

from vectoracl_pgvector.posture.policy_expressions import Binding, bind
from vectoracl_pgvector.posture.tenant_field import TenantField, parse

S = "current_setting('app.t'::text, true)"
N = f"NULLIF({S}, ''::text)"

EXPECTED = {
    Binding.TRUE: ["true", "(true)", "(NOT false)", "(1 = 1)"],
    Binding.NEVER: ["false", "NULL", "(NOT true)", "(false AND true)", f"((tenant_id = {N}) AND false)"],
    Binding.LOOSE: [
        "(doc = 'open'::text)",
        "(1 = 2)",
        "('a'::text = 'a'::text)",
        f"((doc = 'x'::text) OR (tenant_id = {N}))",
        f"((tenant_id = {N}) OR (current_setting('app.admin'::text, true) = 'on'::text))",
        "(tenant_idx = 'x'::text)",
        "(doc ~~ 'tenant'::text)",
    ],
    Binding.DEFAULTED: [
        f"(tenant_id = COALESCE({S}, 'x'::text))",
        f"(tenant_id = CASE WHEN (1 = 1) THEN {S} ELSE 'x'::text END)",
        f"(tenant_id = GREATEST({S}, 'x'::text))",
        f"(COALESCE(tenant_id, {S}) = {S})",
    ],
    Binding.OPAQUE: [
        "(tenant_id = app.who())",
        "(tenant_id = evil.current_setting('app.t'::text))",
        f"(lower(tenant_id) = lower({S}))",
        f"((tenant_id)::character varying(3))::text = {S}",
        f"((tenant_id)::numeric = ({S})::numeric)",
        f"(tenant_id = ({S})::name)",
        f"(tenant_id <> {S})",
        f"(NOT (tenant_id = {S}))",
        f"((tenant_id = {S}) IS NOT FALSE)",
        f"(tenant_id OPERATOR(evil.=) {S})",
        f"(tenant_id = ({S} || ''::text))",
        f"(tenant_id = ALL (string_to_array({S}, ','::text)))",
        "(tenant_id IN ( SELECT m.tenant_id FROM m))",
        f"(tenant_id = ( SELECT {S} AS current_setting WHERE false UNION ALL SELECT 'x'::text))",
        f"(tenant_id = ( SELECT {S} AS current_setting FROM t))",
        "(tenant_id = other_column)",
        f"(tenant_id = ANY (string_to_array({S}, ','::text)))",
        f"(tenant_id = ANY (string_to_array({N}, ','::text)))",
        f"((tenant_id = {N}) OR (tenant_id = NULLIF(current_setting('app.other'::text, true), ''::text)))",
        "(tenant_id = NULLIF(current_setting(('app.'::text || tenant_id), true), ''::text))",
        f"(tenant_id = (({S})::json ->> doc))",
        f"(tenant_id = (({S})::json ->> ('a'::text || doc)))",
        "(tenant_id = NULLIF(app.who(), ''::text))",
        "(tenant_id = 'a'::text) \u00a7",
        f"(CASE WHEN (doc = 'a'::text) THEN (tenant_id = {S}) ELSE true END)",
    ],
    Binding.FIXED: [
        "(tenant_id = 'acme'::text)",
        "(7 = tenant_id)",
        f"((tenant_id = {N}) OR (tenant_id = 'shared'::text))",
    ],
    Binding.SETTING: [
        f"(tenant_id = {N})",
        f"(NULLIF({S}, ''::text) = tenant_id)",
        f"((tenant_id)::text = {N})",
        f"(t.tenant_id = {N})",
        f'("tenant_id" = {N})',
        f"(tenant_id = ({N})::uuid)",
        f"(tenant_id = ( SELECT {N} AS nullif))",
        f'(( SELECT ({N})::uuid AS "nullif") = tenant_id)',
        f"(tenant_id = (( SELECT {N} AS current_setting))::uuid)",
        f"(tenant_id = ((({N})::json ->> 'tenant_id'::text))::uuid)",
        f"(tenant_id = (({S})::json ->> 'tenant'::text))",
        "(tenant_id = pg_catalog.current_setting('app.t'::text, true))",
        f"((tenant_id = {N}) AND (doc = 'x'::text))",
        f"((tenant_id)::uuid = ({N})::uuid)",
        f"(tenant_id = ((({S})::json -> 'app_metadata'::text) ->> 'tenant'::text))",
        f"((doc = 'a'::text) AND ((tenant_id = {N}) OR (tenant_id = {S})))",
    ],
    Binding.ROLE: ["(tenant_id = CURRENT_USER)", "(tenant_id = (SESSION_USER)::text)"],
}  # fmt: skip
CASES = [(binding, text) for binding, texts in EXPECTED.items() for text in texts]


@pytest.mark.parametrize(("binding", "text"), CASES, ids=[text for _, text in CASES])
def test_how_strongly_it_binds(binding: Binding, text: str) -> None:
    found = bind(text, "tenant_id")
    assert found is not None
    assert found.binding is binding
    if binding is Binding.SETTING:
        assert found.settings == {"app.t"}


def test_no_expression_is_none() -> None:
    assert bind(None, "tenant_id") is None


def test_what_cannot_be_read_is_loose_only_where_the_tenant_is_not_in_it() -> None:
    assert bind("doc = 'a' \u00a7", "tenant_id").binding is Binding.LOOSE  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "lenient"),
    [
        (f"(tenant_id = {N})", False),
        (f"(tenant_id = {S})", True),
        ("(tenant_id = NULLIF(current_setting('app.t'::text), ''::text))", True),
        ("(tenant_id = NULLIF(current_setting('app.t'::text, false), ''::text))", True),
        (f"(tenant_id = NULLIF({S}, 'x'::text))", None),
        (f"((tenant_id = {N}) OR (tenant_id = {S}))", True),
        (f"((tenant_id = {N}) AND (tenant_id = {S}))", False),
        (f"((tenant_id = {S}) AND ({S} <> ''::text))", False),
        (f"((tenant_id = {S}) AND (tenant_id <> ''::text))", False),
        (f"((tenant_id = {S}) AND ({S} <> 'x'::text))", True),
        (f"((tenant_id = {S}) AND (doc <> ''::text))", True),
        (f"((tenant_id = {S}) AND (current_setting('app.u'::text, true) <> ''::text))", True),
        (f"((tenant_id = {S}) OR ({S} <> ''::text))", None),
        ("((tenant_id = current_setting('app.t'::text)) AND (current_setting('app.t'::text) <> ''::text))", True),
    ],
)
def test_an_unset_setting_is_nothing_only_with_nullif_and_missing_ok(text: str, lenient: bool | None) -> None:
    found = bind(text, "tenant_id")
    assert found is not None
    if lenient is None:
        assert found.binding in (Binding.OPAQUE, Binding.LOOSE)
    else:
        assert (found.binding, found.lenient) == (Binding.SETTING, lenient)


@pytest.mark.parametrize(
    ("text", "binding"),
    [
        (f"((meta ->> 'tenant_id'::text) = {N})", Binding.SETTING),
        (f"({N} = (meta ->> 'tenant_id'::text))", Binding.SETTING),
        (f"(((meta)::jsonb ->> 'tenant_id'::text) = {N})", Binding.SETTING),
        (f"(((meta ->> 'tenant_id'::text))::uuid = ({N})::uuid)", Binding.SETTING),
        (f"(((meta ->> 'tenant_id'::text))::integer = ({N})::integer)", Binding.SETTING),
        (f"(((meta ->> 'tenant_id'::text))::numeric = ({N})::numeric)", Binding.OPAQUE),
        (f"((meta ->> 'tenant'::text) = {N})", Binding.OPAQUE),
        (f"((meta -> 'tenant_id'::text) = ({N})::jsonb)", Binding.OPAQUE),
        (f"((meta ->> ('tenant_id'::text || doc)) = {N})", Binding.OPAQUE),
        (f"((meta #>> '{{tenant_id}}'::text[]) = {N})", Binding.OPAQUE),
        (f"((other ->> 'tenant_id'::text) = {N})", Binding.LOOSE),
        ("(meta @> '{}'::jsonb)", Binding.OPAQUE),
        (f"(lower((meta ->> 'tenant_id'::text)) = {N})", Binding.OPAQUE),
    ],
)
def test_a_key_of_a_json_column_is_the_tenant(text: str, binding: Binding) -> None:
    found = bind(text, TenantField("meta", "tenant_id"))
    assert found is not None
    assert found.binding is binding


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ("tenant_id", TenantField("tenant_id")),
        ("meta->>tenant_id", TenantField("meta", "tenant_id")),
        ("meta ->> 'tenant_id'", TenantField("meta", "tenant_id")),
        ("meta->>'it''s'", TenantField("meta", "it's")),
        ("a->>b->>c", TenantField("a", "b->>c")),
        ("->>x", TenantField("->>x")),
        ("x->>", TenantField("x->>")),
    ],
)
def test_how_the_tenant_is_said(said: str, field: TenantField) -> None:
    assert parse(said) == field
    assert parse(str(field)) == field
    assert parse(said, [said]) == TenantField(said)
