"""Starts a module of this kit in an interpreter that nothing of the surrounding project has changed.

The interpreter runs in isolated mode: it ignores the current folder, the user's packages and every variable that
changes Python (`PYTHONPATH`, and what a `sitecustomize` there would do). The runner also starts without `site`, so
that no `.pth` file of a distribution runs in it, such as the adapter's. The kit and the library are taken from where
this module and the library lie, before any other package of the same name that is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import vectoracl

_KIT, _LIBRARY = Path(__file__).resolve().parents[2], Path(vectoracl.__file__).resolve().parents[1]
_ROOTS = list(dict.fromkeys([str(_KIT), str(_LIBRARY)]))
_BOOT = """import sys
sys.prefix, sys.exec_prefix = {prefixes!r}
sys.path += [one for one in {packages!r} if one not in sys.path]
at = next((place for place, one in enumerate(sys.path) if one.endswith("-packages")), len(sys.path))
sys.path[at:at] = {roots!r}
try:
    from {module} import main
    code = main({arguments})
except KeyboardInterrupt:
    sys.stderr.write("Interrupted.\\n")
    code = 130
sys.exit(code)"""
# What changes an interpreter, and what test runners leave for those whom they start.
_CHANGING = re.compile(r"PYTHON|PYTEST|COVERAGE|COV_|LD_PRELOAD|LD_AUDIT|DYLD_INSERT")


def command(module: str, *arguments: object, site: bool = False) -> list[str]:
    """Return the command that runs `main(*arguments)` of *module*, a module of this kit.

    *site*: with `.pth` files, for code that has to find editable installs.
    """
    packages = [] if site else [one for one in sys.path if one.endswith("-packages")]
    text = _BOOT.format(
        prefixes=(sys.prefix, sys.exec_prefix),
        packages=packages,
        roots=_ROOTS,
        module=module,
        arguments=", ".join(map(repr, arguments)),
    )
    return [sys.executable, "-I", *(() if site else ("-S",)), "-c", text]


def environment() -> dict[str, str]:
    """Return the variables of this process without those that change an interpreter or name a test runner."""
    return {name: value for name, value in os.environ.items() if not _CHANGING.match(name)}


def is_clean() -> bool:
    """Return whether this process was started by `command`, without `site`."""
    return bool(sys.flags.isolated and sys.flags.no_site)


def become(module: str, *arguments: object, words: Sequence[str] = ()) -> NoReturn:
    """Replace this process by one that `command` starts, with *words* as its command line."""
    line = [*command(module, *arguments), *words]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":
        sys.exit(subprocess.run(line, env=environment(), check=False).returncode)  # noqa: S603 - our own module
    os.execve(sys.executable, line, environment())  # noqa: S606 - likewise
