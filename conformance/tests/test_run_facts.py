"""A report says when, with what and on what kind of host it was made, and its place is tried before the run."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vectoracl.adapter_api.local_servers import start
from vectoracl_conformance import cli
from vectoracl_conformance.running.run_facts import EVIDENCE, one_line, run_facts
from vectoracl_conformance.verdict import GRADES


def test_the_facts_name_no_host_and_no_person():
    facts = run_facts()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", facts["date"])
    assert {"python", "vectoracl", "vectoracl-conformance"} <= set(facts["versions"])
    assert set(EVIDENCE) == set(GRADES)
    import platform

    assert platform.node() not in one_line(facts) or len(platform.node()) < 4


@pytest.mark.parametrize("option", ["--json", "--junit", "--html"])
@pytest.mark.parametrize("kind", ["no folder", "a folder", "a link"])
def test_a_report_that_cannot_be_written_is_said_before_the_run(tmp_path, monkeypatch, option, kind):
    monkeypatch.setattr(cli, "run", lambda *_: pytest.fail("it ran"))
    place = tmp_path / "report"
    if kind == "no folder":
        place = tmp_path / "none" / "report"
    elif kind == "a folder":
        place.mkdir()
    else:
        (tmp_path / "victim").write_text("precious")
        place.symlink_to(tmp_path / "victim")
    result = CliRunner().invoke(cli.app, ["memory", option, str(place)])
    assert result.exit_code == 2, result.output
    assert "nothing was run" in result.output
    assert kind != "a link" or (tmp_path / "victim").read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="process groups of POSIX")
def test_what_an_installer_started_ends_with_it(tmp_path, monkeypatch):
    """As Ctrl-C at a `go install`, whose compilers are processes of their own."""
    code = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )
    monkeypatch.setattr(start, "_TELL_EVERY", 0.2)
    pids = []

    def say(_):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            pids.append(int((tmp_path / "pid").read_text()))
            raise KeyboardInterrupt

    class Spec:
        name = version = "x"

    with pytest.raises(KeyboardInterrupt):
        start._run([sys.executable, "-c", code], {}, Spec(), say)
    until = time.monotonic() + 10
    while time.monotonic() < until and _lives(pids[0]):
        time.sleep(0.05)
    assert not _lives(pids[0])


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
