"""The entry point before there is a command: Ctrl-C while the command line is loaded, and what an import loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

import vectoracl

# Sends the signal of Ctrl-C to this process when the module is about to be imported.
_INTERRUPT = """
import os, signal, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
_WAYS = {
    "script": "from vectoracl.__main__ import main; sys.argv[1:] = ['--help']; main()",
    "module": "import runpy; sys.argv[1:] = ['--help']; runpy.run_module('vectoracl', run_name='__main__')",
}


def test_the_installed_script_is_that_entry_point():
    (script,) = [one for one in distribution("vectoracl").entry_points if one.group == "console_scripts"]
    assert (script.name, script.value) == ("vectoracl", "vectoracl.__main__:main")


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize(
    "module",
    ["vectoracl.cli", "vectoracl.cli.app", "typer", "rich.console", "numpy", "numpy.linalg", "pydantic",
     "pydantic_core._pydantic_core", "orjson", "vectoracl.errors", "vectoracl.client.connect", "vectoracl.hazmat"],
)  # fmt: skip
def test_ctrl_c_while_it_loads_is_one_line_and_130(way, module):
    code = _INTERRUPT.replace("sys.argv[1]", repr(module)) + _WAYS[way]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_without_ctrl_c_it_is_the_command_line():
    for way in _WAYS.values():
        code = _INTERRUPT.replace("sys.argv[1]", "'nothing'") + way
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
        assert "tenants" in done.stdout


def test_importing_the_package_loads_nothing_else_until_it_is_used():
    code = (
        "import sys, vectoracl; before = set(sys.modules); vectoracl.connect; vectoracl.adapter_api.contract.Operator; "
        "print(*sorted(one for one in before if one.split('.')[0] in ('vectoracl', 'numpy', 'pydantic', 'typer')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["vectoracl", "vectoracl._util", "vectoracl._util.lazy_exports"]


@pytest.mark.parametrize("package", [vectoracl, vectoracl.adapter_api], ids=lambda one: one.__name__)
def test_what_type_checkers_see_is_what_is_there(package):
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    (branch,) = [one for one in tree.body if isinstance(one, ast.If)]
    seen = {alias.name: one.module for one in branch.body if isinstance(one, ast.ImportFrom) for alias in one.names}
    table = ast.literal_eval(branch.orelse[0].value.args[1])
    there = {name: module for module, names in table.items() for name in names.split()}
    assert seen == there | {name: "vectoracl" for name in ("hazmat", "testing") if package is vectoracl}
    assert set(seen) == set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name) is not None for name in package.__all__)


def test_what_is_not_there_is_said_as_ever():
    for name in ("conect", "_private", "no.such"):
        with pytest.raises(AttributeError, match="module 'vectoracl' has no attribute"):
            getattr(vectoracl, name)
    with pytest.raises(ImportError):
        exec("from vectoracl import conect")
