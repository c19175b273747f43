"""A table that differs from the configuration: check names both values; provision refuses, or does it right."""

from __future__ import annotations

import contextlib
from itertools import product

import psycopg
import pytest

from vectoracl import RefusedError, VectorACL

ROWS = ("rev", "expires", "producer", "time", "position", "text", "metadata")


@pytest.fixture(scope="module")
def plain(provisioned):
    return provisioned(lexical=False)


def findings(config):
    with VectorACL({**config, "minimum_grade": "none"}) as acl:
        found = acl.check()["main"]
    return found.grade, [f"{one.subject}: {one.message}" for one in found.findings
                         if one.rule.id in ("PG112", "PG113", "PG115")]  # fmt: skip


def provision(config):
    with VectorACL(config) as acl, contextlib.closing(acl.operator()) as operator:
        return operator.provision()


def differs(config, *words):
    """Hold that check has one finding with all of *words*, and that provision refuses so too, and changes nothing."""
    said = findings(config)[1]
    assert any(all(word in one for word in words) for one in said), said
    with pytest.raises(RefusedError) as caught:
        provision(config)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert findings(config)[1] == said, "nothing was changed"


@contextlib.contextmanager
def altered(store, column, change, back):
    """Change a column, and change it back."""
    name = f'"{getattr(store.pg.columns, column)}"'
    table = store.names.table
    with psycopg.connect(store.owner, autocommit=True) as owner:
        owner.execute(f"ALTER TABLE {table} {change.format(name)}".encode())
        try:
            yield
        finally:
            owner.execute(f"ALTER TABLE {table} {back.format(name)}".encode())


@pytest.mark.parametrize("dimension", [1, 7, 9, 4096])
@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_another_dimension(plain, kind, dimension):
    differs(plain.changed(dimension=dimension, type=kind), "8", str(dimension) if kind == "vector" else kind)


CASES = [(column, other) for column in ROWS for other in ("text", "json", "integer", "bigint", "real", "bytea")]


@pytest.mark.parametrize(("column", "other"), CASES)
def test_a_column_of_another_type(plain, column, other):
    name = getattr(plain.pg.columns, column)
    wanted = {"rev": "int8", "expires": "float8", "time": "float8", "position": "int4", "metadata": "jsonb"}
    needed = wanted.get(column, "text")
    if needed == {"integer": "int4", "bigint": "int8"}.get(other, other):
        return
    with psycopg.connect(plain.owner, autocommit=True) as owner:
        owner.execute(f'ALTER TABLE {plain.names.table} RENAME COLUMN "{name}" TO kept'.encode())
        owner.execute(f'ALTER TABLE {plain.names.table} ADD COLUMN "{name}" {other}'.encode())
        try:
            differs(plain.config, name, f"of type {other}", needed)
        finally:
            owner.execute(f'ALTER TABLE {plain.names.table} DROP COLUMN "{name}"'.encode())
            owner.execute(f'ALTER TABLE {plain.names.table} RENAME COLUMN kept TO "{name}"'.encode())
    assert findings(plain.config)[1] == []


@pytest.mark.parametrize("column", [*ROWS, "vector"])
def test_a_column_that_is_missing(plain, column):
    name = getattr(plain.pg.columns, column)
    with altered(plain, column, "RENAME COLUMN {} TO kept", f'RENAME COLUMN kept TO "{name}"'):
        differs(plain.config, f"no column {name}")
    assert provision(plain.config)


@pytest.mark.parametrize(("has", "declared"), list(product(["vector", "halfvec"], repeat=2)))
def test_the_other_precision_is_named_and_changed(provisioned, has, declared):
    config = provisioned(type=has, dimension=8).changed(type=declared)
    said = findings(config)[1]
    assert bool(said) == (has != declared)
    assert all(has in one and declared in one for one in said)
    done = provision(config)
    assert any(f"now have the type {declared}" in line for line in done) == (has != declared)
    assert findings(config)[1] == []
