import os
import subprocess
import sys

import numpy as np
import pytest

from vectoracl.cli.demo.corpus import GENERIC_QUERIES, demo_queries, folder_corpus, installed_corpus
from vectoracl.errors import InvalidInputError, InvalidTenantError
from vectoracl.model.identifiers import check_id, check_tenant, check_text
from vectoracl.text.chunking import Skipped, chunks, document_chunks
from vectoracl.text.embedders import HashedEmbedder


@pytest.fixture(scope="module")
def corpora():
    return installed_corpus(limit_tenants=6, limit_chunks_per_tenant=150)


def test_the_installed_corpus_is_real_text_of_several_tenants(corpora):
    tenants = [one.tenant for one in corpora]
    assert len(tenants) == 6
    assert tenants == sorted(set(tenants))
    assert not [one for one in tenants if one.startswith("vectoracl")]
    for corpus in corpora:
        assert check_tenant(corpus.tenant) == corpus.tenant.lower()
        assert 20 < corpus.chunk_count() <= 150
        assert len({one.name for one in corpus.documents}) == len(corpus.documents)
        for document in corpus.documents:
            assert check_id(document.name, "document")
            assert check_text(document.text, "text") == document.text
            assert chunks(document.text)


def test_nothing_is_imported_and_another_process_finds_the_same(corpora):
    code = (
        "import sys\n"
        "from vectoracl.cli.demo.corpus import *\n"
        "before = set(sys.modules)\n"
        "made = installed_corpus(limit_tenants=6, limit_chunks_per_tenant=150)\n"
        "roots = {one.split('.')[0] for one in set(sys.modules) - before}\n"
        "assert not roots & {'django', 'sqlalchemy', 'hypothesis', 'mypy', 'pytest'}, roots\n"
        "import hashlib; print(hashlib.sha256(repr([(c.tenant, [tuple(d) for d in c.documents]) for c in made]"
        " + demo_queries(made)).encode()).hexdigest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_the_demo_gets_enough_of_it():
    corpora = installed_corpus()
    assert 3 <= len(corpora) <= 12
    assert 1_500 <= sum(one.chunk_count() for one in corpora) <= 6_000


def test_demo_queries_are_others_words_and_mostly_reach_other_tenants(corpora):
    asked = demo_queries(corpora)
    assert asked == demo_queries(corpora)
    owners = [one.tenant for one in corpora for doc in one.documents for _ in document_chunks(doc)]
    stored = HashedEmbedder().embed_documents(
        [part.text for one in corpora for doc in one.documents for part in document_chunks(doc)]
    )
    whole = {one.tenant: "\n".join(doc.text for doc in one.documents) for one in corpora}
    foreign = []
    for corpus in corpora:
        own = [query for tenant, query in asked if tenant == corpus.tenant]
        special = [query for query in own if query not in GENERIC_QUERIES]
        assert len(special) == 3
        assert own == [*special, *GENERIC_QUERIES]
        for query in special:
            sources = [tenant for tenant, text in whole.items() if query in text]
            assert set(sources) - {corpus.tenant}, query
            best = np.argsort(-(stored @ HashedEmbedder().embed_queries([query])[0]))[:5]
            foreign.append(np.mean([owners[at] != corpus.tenant for at in best]))
    assert np.mean(foreign) > 0.6


def test_no_queries_of_others_for_one_tenant(corpora):
    assert demo_queries(corpora[:1]) == [(corpora[0].tenant, one) for one in GENERIC_QUERIES]
    assert demo_queries([]) == []


def test_a_folder_has_a_tenant_for_each_subfolder(tmp_path):
    for tenant in ("globex", "acme", ".git", "empty"):
        (tmp_path / tenant / "deep").mkdir(parents=True)
    for tenant in ("globex", "acme", ".git"):
        (tmp_path / tenant / "deep" / "a.md").write_text(f"# {tenant}\n")
    (tmp_path / "nobodys.md").write_text("no tenant")
    (tmp_path / "linked").symlink_to(tmp_path / "acme", target_is_directory=True)
    (tmp_path / "acme" / "peek.md").symlink_to(tmp_path / "globex" / "deep" / "a.md")
    skipped: list[Skipped] = []
    found = folder_corpus(tmp_path, report=skipped.append)
    assert [(one.tenant, [tuple(doc) for doc in one.documents]) for one in found] == [
        ("acme", [("acme/deep/a.md", "# acme\n")]),
        ("globex", [("globex/deep/a.md", "# globex\n")]),
    ]
    assert ("acme/peek.md", "is a link that leads out of the folder") in skipped


def test_folders_that_cannot_be_tenants(tmp_path):
    with pytest.raises(InvalidInputError, match="There is no folder"):
        folder_corpus(tmp_path / "absent")
    with pytest.raises(InvalidInputError, match="no subfolder with text"):
        folder_corpus(tmp_path)
    (tmp_path / "any*").mkdir()
    (tmp_path / "any*" / "a.md").write_text("text")
    with pytest.raises(InvalidTenantError):
        folder_corpus(tmp_path)
