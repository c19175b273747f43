"""What has no way to be reached through the core, and must hold all the same: each wall by itself, without a server."""

from __future__ import annotations

import numpy as np
import pytest

from vectoracl.errors import RefusedError, UntaggedWriteError
from vectoracl.operations import Delete, Replace, Upsert
from vectoracl.predicate import ALWAYS, F
from vectoracl.records import Record, Tag
from vectoracl_pgvector.adapter import PgvectorAdapter
from vectoracl_pgvector.compile import PgCompiler
from vectoracl_pgvector.config import PgvectorConfig

CONFIG = PgvectorConfig.model_validate({"dsn": "unused", "dimension": 3})


def test_a_delete_without_a_selector_deletes_nothing() -> None:
    (statement,) = PgCompiler(CONFIG, {}).delete(Delete("acme", ALWAYS)).statements[-1:]
    assert statement.sql.endswith(" AND FALSE")
    (statement,) = PgCompiler(CONFIG, {}).delete(Delete("acme", ALWAYS, where=ALWAYS)).statements[-1:]
    assert "FALSE" not in statement.sql  # the control: to say "all of mine" is a selector
    with pytest.raises(RefusedError):
        next(PgvectorAdapter(CONFIG, {}).delete(Delete("acme", ALWAYS)))


@pytest.mark.parametrize("tag", [None, Tag("globex", "d", "c"), Tag("acme", "d", "")])
def test_the_adapter_passes_the_write_gate_before_its_first_request(tag: Tag | None) -> None:
    record = Record(tag, "", np.ones(3, np.float32), {})  # type: ignore[arg-type]
    adapter = PgvectorAdapter(CONFIG, {})
    for flow in (
        adapter.upsert(Upsert("acme", ALWAYS, (record,))),
        adapter.replace(Replace("acme", ALWAYS, "d", (record,))),
    ):
        with pytest.raises(UntaggedWriteError):
            next(flow)


def test_scope_and_filter_stay_operands_of_their_own() -> None:
    """Neither can end the other: both are closed in parentheses, next to the tenant's condition."""
    adapter = PgCompiler(CONFIG, {})
    either = (F["@label"] == "a") | (F["@label"] == "b")
    sql, params = adapter._rows("acme", either, ~either)
    tenant, rest = sql.split(" AND ", 1)
    assert tenant == '"tenant_id" = %s::text'
    assert (
        rest
        == '(("label" = %s::text) OR ("label" = %s::text)) AND (NOT (("label" = %s::text) OR ("label" = %s::text)))'
    )
    assert params == ("acme", "a", "b", "a", "b")
