"""What the help says is so: options, defaults, exit codes, one JSON object; and progress in a pipe."""

from __future__ import annotations

import json
import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import vectoracl
from vectoracl import StoreError
from vectoracl.cli import app
from vectoracl.cli.common import Steps
from vectoracl.config import DEFAULT_PATH
from vectoracl.memory.ports import MemoryPort

CONFIG = """
version = 1
default_store = "main"
[stores.main]
adapter = "memory"
dimension = 64
metric = "inner"
name = "{name}"
[stores.eu]
adapter = "memory"
dimension = 64
name = "{name}-eu"
[embedder]
use = "hashed:64"
[tenants.store]
acme = "eu"
"""
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


def walk(one=None, path=()):
    one = one or get_command(app)
    yield path, one
    for name, below in getattr(one, "commands", {}).items():
        yield from walk(below, (*path, name))


COMMANDS = {" ".join(path): one for path, one in walk() if not hasattr(one, "commands")}
OWN = {name: one for name, one in COMMANDS.items() if name != "conformance"}


def options(command):
    found = {"--help", "-h", *(name for one in command.params for name in (*one.opts, *one.secondary_opts))}
    return {name for name in found if name.startswith("-")}


def run(*arguments, **given):
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "100", "TERM": "dumb"}, **given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectoracl.toml").write_text(CONFIG.format(name=tmp_path))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A\n\nSome words.")
    with vectoracl.connect("vectoracl.toml") as acl:
        acl.check()  # both stores live as long as the test
        yield tmp_path


# --- options and defaults


SECTION = re.compile(r"\[(?!b\])[a-z_]+(?:\.[a-z_]+)*\]")


def sections(command):
    """Return the sections of the configuration that the help of *command* names, as its source has them."""
    texts = [command.callback.__doc__ or ""]
    for one in command.params:
        texts += [text for text in (one.help, one.show_default) if isinstance(text, str)]
    return {name for text in texts for name in SECTION.findall(text.replace("\\[", "["))}


def test_every_section_that_a_help_names_is_shown():
    found = set()
    for name, command in OWN.items():
        named = sections(command)
        text = run(*name.split(), "--help").stdout
        assert not {one for one in named if one not in text}, name
        assert "\\[" not in text, name
        found |= named
    assert found >= {"[tenants]", "[audit]", "[registry.attributes]"}


def test_every_option_that_a_help_names_exists():
    every = {one for command in OWN.values() for one in options(command)}
    for name, command in OWN.items():
        text = run(*name.split(), "--help").stdout
        # A command may name another one's option only with that command: `vectoracl explain --as …`.
        own = re.sub(r"`[^`]*`", "", text)
        assert set(OPTION.findall(own)) - options(command) - {"-level"} <= set(), name
        assert set(OPTION.findall(text)) <= every | {"-level"}, name


def test_every_option_and_argument_is_explained():
    for name, command in OWN.items():
        for one in command.params:
            assert len(getattr(one, "help", None) or "") > 10, (name, one.name)


def test_the_kits_command_has_the_help_options_of_the_others():
    kit = pytest.importorskip("vectoracl_conformance.cli")
    for flag in ("-h", "--help"):
        result = CliRunner().invoke(kit.app, [flag])
        assert result.exit_code == 0
        assert "--only" in result.stdout


def test_the_defaults_that_are_written_are_the_real_ones():
    from vectoracl.cli import check
    from vectoracl.cli.demo import command as demo
    from vectoracl.text.chunking import SIZE

    shown = {
        ("check", "adapter"): check.DEFAULT_ADAPTER,
        ("demo", "store"): demo.DEFAULT,
        ("demo", "embedder"): demo.EMBEDDER,
        ("ingest", "size"): str(SIZE),
        ("ingest", "config"): DEFAULT_PATH,
    }
    for (name, parameter), default in shown.items():
        (one,) = [one for one in OWN[name].params if one.name == parameter]
        text = str(one.show_default if isinstance(one.show_default, str) else one.default)
        assert default in text, (name, parameter)


@pytest.mark.parametrize("name", [name for name, one in OWN.items() if "config" in {each.name for each in one.params}])
def test_each_example_of_a_help_is_a_command_with_real_options(name):
    command = OWN[name]
    for line in re.findall(r"vectoracl ([^\[\n]+?)(?:\[/|\n|$| [|>])", command.epilog or ""):
        words = line.split()
        assert words[: len(name.split())] == name.split()
        assert {word for word in words if word.startswith("-")} <= options(command)


# --- one JSON object, whatever happens


CALLS = {
    "demo": ["--docs", "nothing-here"],
    "init": [],
    "ingest": ["--as", "ann@acme", "docs"],
    "search": ["--as", "ann@acme", "words"],
    "explain": ["--as", "ann@acme"],
    "check": [],
    "adapters": [],
    "provision": ["--adopt", "public.documents"],
    "copy": ["--from", "vectoracl.toml", "--to", "nothing.toml"],
    "audit find": ["--as", "ann@acme", "--document", "docs/a.md"],
    "documents list": ["--as", "ann@acme"],
    "documents delete": ["--as", "ann@acme", "docs/a.md"],
    "tenants list": [],
    "tenants rebalance": [],
    "tenants switch": ["acme", "--to", "main"],
    **{f"tenants {one}": ["acme"] for one in ("promote", "demote", "create", "deactivate", "offload", "activate")},
    "tenants remove": ["acme"],
    "tenants parent": ["acme-lab", "--of", "acme"],
    "labels list": ["--tenant", "acme"],
    "labels define": ["hr", "--tenant", "acme", "--read", "group:hr"],
    "labels drop": ["hr", "--tenant", "acme"],
    "documents move": ["docs/a.md", "--tenant", "acme", "--label", "hr"],
    "documents registered": ["--tenant", "acme"],
    "hold": ["docs/a.md", "--tenant", "acme", "--matter", "m", "--reason", "r"],
    "release": ["--tenant", "acme", "--matter", "m", "--reason", "r"],
    "retain": ["docs/a.md", "--tenant", "acme", "--until", "always"],
    "quarantine add": ["q", "--tenant", "acme", "--producer", "x", "--reason", "r"],
    "quarantine lift": ["q", "--tenant", "acme", "--reason", "r"],
    "quarantine list": ["--tenant", "acme"],
    "reconcile": ["--tenant", "acme"],
    "sweep": ["--tenant", "acme"],
    "erase": ["docs/a.md", "--tenant", "acme", "--reason", "r"],
    "access who": ["docs/a.md", "--tenant", "acme"],
    "access what": ["--as", "ann@acme"],
    "access apply": ["drive.jsonl", "--source", "drive", "--tenant", "acme"],
    "access posix": ["docs", "--source", "drive", "--tenant", "acme"],
    "access sources": ["--tenant", "acme"],
    "registry verify": ["--tenant", "acme"],
    "registry receipt": ["erasure.json"],
    "registry export": ["registry.jsonl"],
    "registry import": ["registry.jsonl"],
}


def test_there_is_a_call_of_every_command():
    assert set(CALLS) == set(OWN)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("broken", [False, True])
def test_json_is_one_object_on_standard_output_and_nothing_else(here, monkeypatch, name, broken):
    run("ingest", "--as", "ann@acme", "docs")
    if broken:

        def away(*_):
            raise StoreError("The store is away.", sent="no")

        monkeypatch.setattr(MemoryPort, "execute", away)
    result = run(*name.split(), *CALLS[name], "--json")
    assert isinstance(json.loads(result.stdout), dict), result.stdout
    assert result.stderr == ""
    assert ("error" in json.loads(result.stdout)) == (result.exit_code == 2)


def test_a_question_that_nobody_can_be_asked_is_an_object_too(here):
    run("ingest", "--as", "ann@acme", "docs")
    for call in (["documents", "delete", "--as", "ann@acme", "docs/a.md"], ["tenants", "remove", "acme"]):
        result = run(*call, "--json")
        assert result.exit_code == 2
        assert "--yes" in json.loads(result.stdout)["error"]["message"]
    assert run("search", "--as", "ann@acme", "words", "--json").stdout.count("docs/a.md") == 1


# --- stores, exit codes, options that do not go together


def test_a_tenant_is_served_where_it_lives_and_another_store_is_refused(here):
    run("ingest", "--as", "ann@acme", "docs")
    for call in (["ingest", "--as", "ann@acme", "docs"], ["search", "--as", "ann@acme", "words"],
                 ["explain", "--as", "ann@acme"], ["documents", "list", "--as", "ann@acme"]):  # fmt: skip
        result = run(*call, "--store", "main")
        assert result.exit_code == 2
        assert "routes the tenant acme to the store 'eu'" in result.stderr
        assert run(*call, "--store", "eu").exit_code == 0


def test_only_the_store_of_the_tenant_is_contacted(here, monkeypatch):
    right = MemoryPort.execute

    def execute(self, request, timeout):
        if self._shelf.metric == "inner":
            raise StoreError("The store is away.", sent="no")
        return right(self, request, timeout)

    monkeypatch.setattr(MemoryPort, "execute", execute)
    assert run("ingest", "--as", "ann@acme", "docs").exit_code == 0
    assert run("search", "--as", "ann@acme", "words").exit_code == 0
    assert run("search", "--as", "ann@globex", "words").exit_code == 2
    assert run("check", "--store", "eu").exit_code == 0
    assert run("check").exit_code == 2


def test_an_ingest_that_writes_nothing_is_no_success(here):
    (here / "empty").mkdir()
    assert run("ingest", "--as", "ann@acme", "empty").exit_code == 2


@pytest.mark.parametrize(
    "call",
    [
        ["check", "other.toml", "-c", "third.toml"],
        ["check", "--dsn", "postgresql://x@127.0.0.1:1/x", "--store", "eu"],
        ["check", "--adapter", "qdrant"],
        ["check", "--json", "--format", "sql"],
        ["demo", "-c", "vectoracl.toml", "--embedder", "hashed"],
        ["search", "--as", "ann@acme", "words", "--lexical", "--hybrid"],
    ],
    ids=" ".join,
)
def test_what_does_not_go_together_is_refused_and_not_ignored(here, call):
    result = run(*call)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") != ("--json" in call)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not UTF-8"),
        (lambda path: path.write_text("version = 1\n[stores.x\n"), "not valid TOML"),
        (lambda path: path.write_text("version = 1\nstorez = 1\n"), "storez: is not a known key"),
    ],
)
def test_a_configuration_that_cannot_be_read_says_why(here, make, says):
    make(here / "bad.toml")
    result = run("search", "--as", "ann@acme", "words", "-c", "bad.toml")
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())
    assert result.stderr.count("error:") == 1


# --- progress in a pipe


def test_a_pipe_gets_plain_lines_at_the_start_and_again(here, monkeypatch):
    import time

    monkeypatch.setattr(Steps, "EVERY", 0.05)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes a pipe for a terminal
    right = MemoryPort.execute

    def execute(self, request, timeout):
        if type(getattr(request, "operation", None)).__name__ == "Replace":
            time.sleep(0.3)
        return right(self, request, timeout)

    monkeypatch.setattr(MemoryPort, "execute", execute)
    lines = run("ingest", "--as", "ann@acme", "docs").stderr.splitlines()
    assert lines[0] == "finding files …"
    assert sum(line.startswith("writing documents") for line in lines) > 2
    assert all(line.isprintable() for line in lines)
    assert run("ingest", "--as", "ann@acme", "docs", "--json").stderr == ""


def test_nothing_is_told_of_a_step_that_is_over(monkeypatch, capsys):
    import time

    monkeypatch.setattr(Steps, "EVERY", 0.02)
    with Steps(quiet=False) as steps:
        steps.step("copying", 0, 2)
        steps.step("copying", 2, 2)
        time.sleep(0.1)
    assert capsys.readouterr().err == "copying: 0 of 2 …\n"


def test_steps_stop_telling_when_they_end(capsys):
    with Steps(quiet=False) as steps:
        steps.step("copying", 0, None)
    assert steps._stopped.is_set()
    assert capsys.readouterr().err == "copying …\n"
