"""An interpreter under a name that reveals nothing: environments are called `…/.nox/conformance-x/` or `…/.tox/test/`.

What is started as `/home/ann/conformance/.venv/bin/python` has that in its arguments, its prefix, its path and the
files of its modules, where an adapter that wants to know whether it is measured can read it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_KEPT = ("home", "version", "version_info", "include-system-site-packages")


class PlainEnvironment:
    """The environment of *python*, under the name of a temporary folder; itself where it is none, or on Windows."""

    def __init__(self, python: str) -> None:
        self.python = python
        self._root: Path | None = None
        self._folder: Path | None = None
        executable = Path(python)
        root = executable.parent.parent
        config = root / "pyvenv.cfg"
        if os.name == "nt" or not config.is_file():
            return
        folder = Path(tempfile.mkdtemp(prefix="env-"))
        self._root, self._folder = root, folder
        try:
            lines = config.read_text(encoding="utf-8").splitlines()
            settings = [line for line in lines if line.partition("=")[0].strip().lower() in _KEPT]
            (folder / "pyvenv.cfg").write_text("\n".join(settings) + "\n", encoding="utf-8")
            for part in ("lib", "lib64"):
                if (root / part).exists():
                    (folder / part).symlink_to((root / part).resolve())
            (folder / "bin").mkdir()
            (folder / "bin" / "python").symlink_to(executable.resolve())
        except BaseException:
            self.close()
            raise
        self.python = str(folder / "bin" / "python")

    def paths(self, given: Sequence[str]) -> list[str]:
        """Return those of *given* that are not the environment's own, which it has under its other name."""
        if self._root is None:
            return list(given)
        own = [(self._root / part).resolve() for part in (".", "lib", "lib64")]
        return [one for one in given if not any(Path(one).resolve().is_relative_to(part) for part in own)]

    def close(self) -> None:
        """Remove the folder; what it points to stays."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def plain(python: str = "") -> PlainEnvironment:
    """Return the environment of *python*, "" for the running one, under a plain name."""
    return PlainEnvironment(python or sys.executable)
