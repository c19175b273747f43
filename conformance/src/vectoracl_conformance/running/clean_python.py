"""Starts a module of this kit in an interpreter that nothing of the surrounding project has changed.

The interpreter runs in isolated mode: it ignores the current folder, the user's packages and every variable that
changes Python (`PYTHONPATH` and what a `sitecustomize` there would do). The kit and the library are taken from where
this module and the library lie, before any other package of the same name that is installed.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import vectoracl

_ROOTS = list(
    dict.fromkeys([str(Path(__file__).resolve().parents[2]), str(Path(vectoracl.__file__).resolve().parents[1])])
)
_BOOT = """import sys
at = next((place for place, one in enumerate(sys.path) if one.endswith("-packages")), len(sys.path))
sys.path[at:at] = {roots!r}
from {module} import main
sys.exit(main())"""
# What changes an interpreter, and what test runners leave for those whom they start.
_CHANGING = re.compile(r"PYTHON|PYTEST|COVERAGE|COV_|LD_|DYLD_")


def command(module: str) -> list[str]:
    """Return the command that runs `main()` of *module*, a module of this kit."""
    return [sys.executable, "-I", "-c", _BOOT.format(roots=_ROOTS, module=module)]


def environment() -> dict[str, str]:
    """Return the variables of this process without those that change an interpreter or name a test runner."""
    return {name: value for name, value in os.environ.items() if not _CHANGING.match(name)}
