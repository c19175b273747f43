"""`vectoracl copy --reembed`: the same chunks and tags, with vectors that the target's embedder makes."""

from __future__ import annotations

import json
import uuid

import numpy as np
import pytest
from typer.testing import CliRunner

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl.cli.app import app
from vectoracl.copying.checkpoint import Checkpoint
from vectoracl.copying.copy import Copy
from vectoracl.copying.planning import Side
from vectoracl.errors import RefusedError
from vectoracl.text.embedders import HashedEmbedder


def config(dimension, embedder=None, *, metric="cosine", name=None):
    store = {"adapter": "memory", "name": name or uuid.uuid4().hex, "dimension": dimension, "metric": metric}
    whole = {"version": 1, "stores": {"main": store}}
    return whole if embedder is None else {**whole, "embedder": {"use": embedder}}


WRITER = testing.principal("writer", "acme")


def copy(source, target, tmp_path, *, reembed=True, tenants=("acme",), **given):
    kept = Checkpoint(tmp_path / "copy", [])
    work = Copy(Side(source), Side(target), reason="a test of the copy", checkpoint=kept, reembed=reembed)
    return work, work.plan(list(tenants), named=True, **given)


@pytest.fixture
def source():
    with v.VectorACL(config(32, "hashed:32")) as acl:
        docs = acl.scoped(WRITER)
        docs.upsert([Chunk(f"c{n}", "d", f"a text of {n} words", position=n) for n in range(7)])
        docs.replace("d", [Chunk(f"c{n}", "d", f"another text of {n} words", position=n) for n in range(70)])
        yield acl


def test_vectors_are_those_of_the_target_s_embedder_and_all_else_is_the_source_s(source, tmp_path):
    with v.VectorACL(config(64, "hashed:64", metric="inner")) as target:
        work, plan = copy(source, target, tmp_path)
        assert any("hashed-v1:64" in note for note in plan.notes)
        report = work.run(plan)
        assert (report.written, report.different) == (70, [])
        kinds = {"text", "metadata", "vector"}
        before = list(source.scoped(WRITER).scan(include=kinds))
        after = list(target.scoped(WRITER).scan(include=kinds))
        assert [hit.tag for hit in after] == [hit.tag for hit in before]
        assert [hit.text for hit in after] == [hit.text for hit in before]
        wanted = HashedEmbedder(64).embed_documents([hit.text for hit in before])
        assert np.array_equal(np.stack([hit.vector for hit in after]), wanted)
        assert target.scoped(WRITER).search("another text of 3 words", 1)[0].id == "c3"
        with pytest.raises(RefusedError, match="other rows"):  # whose vectors they are is not seen
            copy(source, target, tmp_path)
        work, plan = copy(source, target, tmp_path, overwrite=True)
        assert work.run(plan).written == 70


def test_without_it_another_embedder_is_refused_with_the_way_out(source, tmp_path):
    with v.VectorACL(config(32, "hashed:32")) as same:
        copy(source, same, tmp_path, reembed=False)

    class Other:
        name, dimension = "other:32", 32

        def embed_documents(self, texts):
            return np.ones((len(texts), 32), np.float32)

        embed_queries = embed_documents

    with v.VectorACL(config(32), embedder=Other()) as target, pytest.raises(RefusedError, match="--reembed"):
        copy(source, target, tmp_path, reembed=False)
    with v.VectorACL(config(64, "hashed:64")) as target, pytest.raises(RefusedError, match="--reembed"):
        copy(source, target, tmp_path, reembed=False)


def test_a_target_without_an_embedder_is_refused(source, tmp_path):
    with v.VectorACL(config(64)) as target, pytest.raises(RefusedError, match=r"add \[embedder\]"):
        copy(source, target, tmp_path)


def test_a_chunk_without_text_is_named(source, tmp_path):
    source.scoped(WRITER).upsert([Chunk("empty", "e", " ", [1.0] * 32)])
    with v.VectorACL(config(64, "hashed:64")) as target:
        work, plan = copy(source, target, tmp_path)
        with pytest.raises(RefusedError, match="'empty' of the document 'e' has no text"):
            work.run(plan)


def test_the_command(tmp_path):
    names = uuid.uuid4().hex, uuid.uuid4().hex
    files = []
    for name, dimension in zip(names, (32, 64), strict=True):
        path = tmp_path / f"{dimension}.toml"
        path.write_text(
            f'version = 1\n[stores.main]\nadapter = "memory"\nname = "{name}"\ndimension = {dimension}\n'
            f'[embedder]\nuse = "hashed:{dimension}"\n'
        )
        files.append(path)
    with v.connect(files[0]) as source, v.connect(files[1]) as target:
        source.scoped(WRITER).upsert([Chunk("c", "d", "a text")])
        given = ["copy", "--from", str(files[0]), "--to", str(files[1]), "--tenant", "acme", "--json"]
        refused = CliRunner().invoke(app, given)
        assert refused.exit_code == 2
        done = CliRunner().invoke(app, [*given, "--reembed"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["result"]["written"] == 1
        assert target.scoped(WRITER).search("a text", 1)[0].score == pytest.approx(1.0)
