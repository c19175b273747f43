"""What has no way to be reached through the core, and must hold all the same: each wall by itself, without a server."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest

from vectoracl.adapter_api.operations import Delete, Replace, Search, Upsert
from vectoracl.errors import RefusedError, StoreError, UntaggedWriteError
from vectoracl.filters.predicate import ALWAYS, F
from vectoracl.model.queries import VectorQuery
from vectoracl.model.records import Record, Tag
from vectoracl_pgvector.adapter import PgvectorAdapter
from vectoracl_pgvector.compile import PgCompiler
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.failures import mapped

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


def test_an_old_pgvector_says_what_to_do() -> None:
    """As a server with pgvector 0.7 answered: "hnsw" is a reserved prefix, so an unknown setting is an invalid name.

    The reply is recorded; `test_a_setting_that_the_extension_lacks` in test_operations gets the same from a server.
    """
    adapter = PgvectorAdapter(CONFIG, {})
    flow = adapter.search(Search("acme", ALWAYS, ALWAYS, VectorQuery(np.ones(3, np.float32)), 5, frozenset({"text"})))
    request = next(flow)
    assert ("hnsw.iterative_scan", "strict_order") in request.settings  # what the server will not know
    reply = mapped(psycopg.errors.lookup("42602")("canary"), debug=False)
    with pytest.raises(StoreError, match=r"pgvector 0\.8\.0 or later .* ALTER EXTENSION vector UPDATE") as caught:
        flow.throw(reply)
    assert (caught.value.code, caught.value.sent, caught.value.retryable) == ("pgvector_version", "no", False)
    assert "canary" not in str(caught.value)
