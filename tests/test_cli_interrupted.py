"""Ctrl-C in the middle of a command in a process of its own: 130, one line, and a second run does its work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("vectoracl_qdrant")

CONFIG = """
version = 1
[stores.main]
adapter = "qdrant"
dimension = 64
path = "{path}"
[embedder]
use = "{embedder}"
dimension = 64
allow_import = true
"""
# An embedder that takes its time, and says on standard error when it begins.
SLOW = """
import sys, time
from vectoracl.text.embedders import HashedEmbedder
class Slow(HashedEmbedder):
    def embed_documents(self, texts):
        print("EMBEDDING", file=sys.stderr, flush=True)
        time.sleep(60)
        return super().embed_documents(texts)
slow = Slow(64)
"""


@pytest.fixture
def here(tmp_path):
    (tmp_path / "slow_one.py").write_text(SLOW)
    for name, embedder in (("slow", "slow_one:slow"), ("quick", "hashed:64")):
        text = CONFIG.format(path="store", embedder=embedder)
        if name == "quick":
            text = text.replace("dimension = 64\nallow_import = true\n", "")
        (tmp_path / f"{name}.toml").write_text(text)
    (tmp_path / "docs").mkdir()
    for number in range(3):
        (tmp_path / "docs" / f"{number}.md").write_text(f"# {number}\n\nSome words.")
    return tmp_path


def start(here, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(here), "COLUMNS": "300", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "vectoracl", *arguments],
        cwd=here, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def interrupted(process, sign):
    """Send Ctrl-C when the process has said *sign*; return what it said after that."""
    try:
        for line in process.stderr:
            if sign in line:
                break
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert out == ""
    assert "Traceback" not in error
    return error.splitlines()


def finished(process):
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


def told(lines):
    """Return the lines that are not progress."""
    return [line for line in lines if not line.endswith(("…", "s)")) and line != "EMBEDDING"]


def test_ingest(here):
    ingest = ("ingest", "-c", "slow.toml", "--as", "a@acme", "docs")
    finished(start(here, "provision", "-c", "slow.toml"))
    process = start(here, *ingest)
    (line,) = told(interrupted(process, "EMBEDDING"))
    assert process.returncode == 130
    assert line.startswith("Interrupted. ingest: 0 of 3 documents were written")
    (here / "slow_one.py").write_text(SLOW.replace("time.sleep(60)", "pass"))
    out = json.loads(finished(start(here, *ingest, "--json")))
    assert out["documents"] == 3


def test_copy(here):
    for name in ("quick", "other"):
        if name == "other":
            text = (here / "slow.toml").read_text().replace('path = "store"', 'path = "other"')
            (here / "other.toml").write_text(text)
        finished(start(here, "provision", "-c", f"{name}.toml"))
    finished(start(here, "ingest", "-c", "quick.toml", "--as", "a@acme", "docs"))
    copy = ("copy", "--from", "quick.toml", "--to", "other.toml", "--reembed")
    process = start(here, *copy)
    (line,) = told(interrupted(process, "EMBEDDING"))
    assert process.returncode == 130
    assert line.startswith("Interrupted.")
    (here / "slow_one.py").write_text(SLOW.replace("time.sleep(60)", "pass"))
    assert "3 chunks written" in finished(start(here, *copy))


def test_demo(here):
    (here / "texts" / "acme").mkdir(parents=True)
    (here / "texts" / "globex").mkdir()
    for tenant in ("acme", "globex"):
        (here / "texts" / tenant / "a.md").write_text(
            "# Configuration\n\nHow to install it and what to configure.\n" * 5
        )
    call = ("demo", "--store", "memory", "--docs", "texts", "--embedder", "slow_one:slow")
    process = start(here, *call)
    (line,) = told(interrupted(process, "EMBEDDING"))
    assert process.returncode == 130
    assert line.startswith("Interrupted.")
    (here / "slow_one.py").write_text(SLOW.replace("time.sleep(60)", "pass"))
    finished(start(here, *call))


def test_conformance(here):
    pytest.importorskip("vectoracl_conformance")
    process = start(here, "conformance", "memory", "--json", "report.json")
    lines = told(interrupted(process, ": "))
    assert process.returncode == 130
    assert lines[-1] == "Stopped; nothing was measured."
    again = start(here, "conformance", "memory", "--only", "R1", "--json", "report.json")
    again.communicate(timeout=120)
    assert again.returncode == 2  # of one check no verdict is made
    assert json.loads((here / "report.json").read_text())
