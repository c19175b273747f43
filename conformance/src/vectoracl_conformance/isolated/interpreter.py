"""An environment like that of any application: a folder with a program and a `.venv`, in which nothing of a test is.

Its `site-packages` holds what the environment of *python* holds, except

- this kit, everything that requires it or a test framework (pytest, Hypothesis, nox, tox, coverage), those frameworks,
  and what only they require;
- `.pth` files and the finders of editable installs. What such a file leads to lies in `site-packages`, as if it had
  been installed from a wheel: its packages and modules, without tests, without the files of test runners, and without
  modules that import this kit;
- folders that only the running process has on its path (of a test, of a harness). They are carried over, by the same
  rule, only where a distribution that offers an adapter lies in them.

A distribution that offers an adapter is copied whole, its own `conformance` package too if it ships one: its wheel has
that as well, so that its absence, not its presence, would reveal the kit. Other distributions are links.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

KIT = "vectoracl-conformance"
LIBRARY = "vectoracl"
_FRAMEWORKS = frozenset({KIT, "pytest", "hypothesis", "nox", "tox", "coverage", "pytest-cov"})
_FACTS = (
    "import json, sys, sysconfig; "
    "print(json.dumps([sys.path, sys.base_prefix, sys.prefix, sysconfig.get_path('stdlib'), "
    "getattr(sys, '_base_executable', sys.executable), list(sys.version_info[:2])]))"
)
_TESTS = re.compile(r"(tests?|testing|conftest|noxfile|toxfile|setup|tasks|test_\w+|\w+_test)\Z")
_IMPORTS_KIT = re.compile(r"^\s*(?:from|import)\s+vectoracl_conformance\b", re.MULTILINE)
_SKIPPED = frozenset({"__pycache__", "_virtualenv.py", "_virtualenv.pth", "distutils-precedence.pth"})
_PREFIX, _LOCK = "app-", ".lock"
DISTRIBUTION = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class _Facts:
    """An interpreter: its path, where its own library is, and the program that a virtual environment starts."""

    path: tuple[str, ...]
    base_prefix: str
    prefix: str
    library: str
    executable: str
    version: tuple[int, int]


def _facts(python: str) -> _Facts:
    """Ask *python*, with the environment's packages but none of the variables that change its path."""
    line = subprocess.run([python, "-E", "-c", _FACTS], capture_output=True, check=True, text=True, cwd=os.sep).stdout  # noqa: S603 - the interpreter that the user named
    path, base, prefix, library, executable, version = json.loads(line.splitlines()[-1])
    return _Facts(tuple(one for one in path if one), base, prefix, library, executable, tuple(version))


def canonical(name: str) -> str:
    """Return the name of a distribution in the one form in which names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(one: Distribution) -> set[str]:
    """Return the names that *one* requires without any extra."""
    names = set()
    for line in one.requires or ():
        match = DISTRIBUTION.match(line)
        if match is not None and "extra ==" not in line.partition(";")[2]:
            names.add(canonical(match.group()))
    return names


def _kept(found: Mapping[str, Distribution]) -> set[str]:
    """Return the names of the distributions that an application may have."""
    needs = {name: _required(one) for name, one in found.items()}
    away = set(_FRAMEWORKS)
    while more := {name for name in found if name not in away and needs[name] & away}:
        away |= more
    kept = set(found) - away
    roots = {name for name in kept if not any(name in needs[other] for other in found if other != name)}
    reached: set[str] = set()
    waiting = list(roots | {name for name in kept if _offers(found[name])})
    while waiting:
        name = waiting.pop()
        if name in kept and name not in reached:
            reached.add(name)
            extras = {
                canonical(match.group()) for line in found[name].requires or () if (match := DISTRIBUTION.match(line))
            }
            waiting += extras & kept
    return reached


def _offers(one: Distribution) -> bool:
    """Return whether *one* is the library or offers an adapter."""
    return canonical(one.name) == LIBRARY or any(point.group == LIBRARY for point in one.entry_points)


def _folder_of(one: Distribution) -> Path:
    return Path(str(one.locate_file("")))


def _top(one: Distribution) -> set[str]:
    """Return what *one* has put into its folder, by the first part of each name."""
    tops = {str(file).partition("/")[0] for file in one.files or ()}
    return {name for name in tops if name not in ("..", "")}


class PlainEnvironment:
    """The environment of *python* as an application's. On Windows, *python* itself.

    `paths` are the folders of the running process's path; they matter where *python* is the running interpreter.
    """

    def __init__(self, python: str, paths: Sequence[str] = ()) -> None:
        self.python = python
        self.root: Path | None = None
        self.site: Path | None = None
        self._editable: list[tuple[Path, Path]] = []
        self._lock = -1
        if os.name == "nt":
            return
        facts = _facts(python)
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = _locked(self.root)
        self.library = Path(facts.library)
        try:
            self._make(facts, paths)
        except BaseException:
            self.close()
            raise

    def _make(self, facts: _Facts, paths: Sequence[str]) -> None:
        assert self.root is not None
        venv = self.root / ".venv"
        self.site = venv / "lib" / f"python{facts.version[0]}.{facts.version[1]}" / "site-packages"
        self.site.mkdir(parents=True)
        (venv / "bin").mkdir()
        (venv / "bin" / "python").symlink_to(facts.executable)
        home = Path(facts.executable).parent
        settings = [
            f"home = {home}",
            "include-system-site-packages = false",
            f"version = {facts.version[0]}.{facts.version[1]}",
        ]
        (venv / "pyvenv.cfg").write_text("\n".join(settings) + "\n", encoding="utf-8")
        self.python = str(venv / "bin" / "python")
        sites, sources = self._folders(facts, paths)
        found = {canonical(one.name): one for one in distributions(path=[str(one) for one in (*sites, *sources)])}
        kept = _kept(found)
        for folder in sites:
            self._install(folder, found, kept)
        for folder in sources:
            self._copy(folder)
        self._record()

    def _folders(self, facts: _Facts, paths: Sequence[str]) -> tuple[list[Path], list[Path]]:
        """Return the folders that hold installed packages, and those that editable installs lead to."""
        own = Path(facts.library)
        sites: list[Path] = []
        sources: list[Path] = []
        for text in facts.path:
            folder = Path(text)
            if not folder.is_dir() or folder == own or folder == own / "lib-dynload":
                continue
            (sites if folder.name in ("site-packages", "dist-packages") else sources).append(folder)
        if Path(facts.prefix).resolve() == Path(sys.prefix).resolve():
            known = {one.resolve() for one in (*sites, *sources, own, own / "lib-dynload")}
            for text in paths:
                folder = Path(text)
                if (
                    folder.is_dir()
                    and folder.resolve() not in known
                    and any(_offers(one) for one in distributions(path=[text]))
                ):
                    sources.append(folder)
        for site in list(sites):
            sources += [one.parent for one in _mapped(site)]
        return sites, list(dict.fromkeys(sources))

    def _install(self, folder: Path, found: Mapping[str, Distribution], kept: set[str]) -> None:
        """Link what lies in *folder*; copy what the library and the adapters have there."""
        here = {name: one for name, one in found.items() if _folder_of(one) == folder}
        tops = {name: _top(one) for name, one in here.items()}
        held = set[str]().union(*(tops[name] for name in here if name in kept))
        copied = set[str]().union(*(tops[name] for name in here if name in kept and _offers(here[name])))
        gone = set[str]().union(*(tops[name] for name in here if name not in kept)) - held
        infos = {one.name for one in folder.glob("*-info")}
        gone |= {one for one in infos if one not in held}
        for entry in sorted(folder.iterdir()):
            name = entry.name
            if name in gone or name in _SKIPPED or name.endswith(".pth") or name.startswith("__editable__"):
                continue
            self._put(entry, copy=name in copied or name in infos)

    def _copy(self, folder: Path) -> None:
        """Copy what can be imported from *folder*, as its wheel would have it."""
        for entry in sorted(folder.iterdir()):
            if _TESTS.match(entry.stem) or entry.name in _SKIPPED:
                continue
            module = entry.suffix in (".py", ".so", ".pyd") and entry.is_file()
            package = entry.is_dir() and entry.name.isidentifier() and any(entry.rglob("*.py"))
            info = entry.is_dir() and entry.suffix in (".dist-info", ".egg-info")
            if (module and not _shows_kit(entry)) or (package and not _is_kit(entry)) or (info and not _is_kit(entry)):
                self._put(entry, copy=True)

    def _put(self, entry: Path, *, copy: bool) -> None:
        assert self.site is not None
        target = self.site / entry.name
        if target.exists() or target.is_symlink():
            return  # the first on the path wins
        if not copy:
            target.symlink_to(entry.resolve())
        elif entry.is_dir():
            shutil.copytree(entry, target, ignore=_ignored)
            if _editable(entry):
                self._editable.append((target, entry))
        else:
            shutil.copy2(entry, target)

    def _record(self) -> None:
        """List the files of what was editable, as an installer does."""
        assert self.site is not None
        for target, entry in self._editable:
            names = [*self.entries(Distribution.at(entry)), target.name]
            files = [file for name in names for file in files_of(self.site / name)]
            lines = [
                f"{file.relative_to(self.site).as_posix()},{_hashed(file)},{file.stat().st_size}" for file in files
            ]
            lines.append(f"{target.name}/RECORD,,")
            (target / "RECORD").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def offering(self, adapter: str) -> Distribution | None:
        """Return the installed distribution that offers *adapter*; None unless it is exactly one."""
        assert self.site is not None
        offers = [
            one
            for one in distributions(path=[str(self.site)])
            if any(point.group == LIBRARY and point.name == adapter for point in one.entry_points)
        ]
        return offers[0] if len(offers) == 1 else None

    def entries(self, one: Distribution) -> list[str]:
        """Return the names of what *one* has in `site`, in order: its packages and modules."""
        assert self.site is not None
        names = packages_of(one)
        return sorted(
            entry.name
            for entry in self.site.iterdir()
            if entry.name in names or (entry.is_file() and entry.name.partition(".")[0] in names)
        )

    def digest(self, one: Distribution) -> str:
        """Return the SHA-256 over the installed files of *one*: each one's path and content, in order."""
        assert self.site is not None
        whole = hashlib.sha256()
        for name in self.entries(one):
            for file in files_of(self.site / name):
                whole.update(file.relative_to(self.site).as_posix().encode() + bytes(1))
                whole.update(hashlib.sha256(file.read_bytes()).digest())
        return whole.hexdigest()

    def write(self, name: str, text: str) -> Path:
        """Write a file of the application."""
        folder = self.root or Path(tempfile.mkdtemp(prefix="app-"))
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def close(self) -> None:
        """Remove the folder; what it points to stays."""
        if self.root is not None:
            shutil.rmtree(self.root, ignore_errors=True)
            self.root = None
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1


def _locked(folder: Path) -> int:
    """Put a lock into *folder* that the system holds as long as this process lives; return its descriptor."""
    import fcntl

    descriptor = os.open(folder / f"{_LOCK}-", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    (folder / f"{_LOCK}-").rename(folder / _LOCK)  # it is there only when it is held
    return descriptor


@cache
def remove_abandoned() -> None:
    """Remove the environments that killed runs have left: those of this user whose lock no process holds any more.

    It is done once in a process.
    """
    if os.name == "nt":
        return
    import fcntl

    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # it has no lock, or is gone
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its process lives
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _ignored(folder: str, names: list[str]) -> set[str]:
    """Return what a wheel does not have, and what says how a distribution was installed."""
    away = {name for name in names if name in _SKIPPED}
    if folder.endswith(".dist-info"):
        away |= {name for name in names if name in ("direct_url.json", "uv_cache.json", "uv_build.json")}
    return away


def _editable(info: Path) -> bool:
    """Return whether the distribution of *info* is installed as editable."""
    if not info.name.endswith(".dist-info"):
        return False
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return bool(
            json.loads((info / "direct_url.json").read_text(encoding="utf-8")).get("dir_info", {}).get("editable")
        )
    return False


def packages_of(one: Distribution) -> set[str]:
    """Return the packages and modules that *one* has installed, also where it is editable: its adapters' are there."""
    tops = {name for name in _top(one) if not name.endswith((".pth", "-info", ".data")) and name not in _SKIPPED}
    return tops | {
        point.value.partition(":")[0].partition(".")[0] for point in one.entry_points if point.group == LIBRARY
    }


def files_of(entry: Path) -> list[Path]:
    """Return the files of a package, or of a module, in order."""
    files = sorted(entry.rglob("*")) if entry.is_dir() else [entry]
    return [file for file in files if file.is_file() and "__pycache__" not in file.parts]


def _hashed(file: Path) -> str:
    digest = hashlib.sha256(file.read_bytes()).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def _shows_kit(file: Path) -> bool:
    if file.suffix != ".py":
        return False
    with contextlib.suppress(OSError):
        return shows_kit(file.read_text(encoding="utf-8", errors="replace"))
    return True


def shows_kit(source: str) -> bool:
    """Return whether *source* imports this kit."""
    return _IMPORTS_KIT.search(source) is not None


def _is_kit(folder: Path) -> bool:
    return canonical(folder.name.partition(".")[0].rpartition("-")[0] or folder.name).startswith(KIT)


def _mapped(site: Path) -> Iterator[Path]:
    """Yield the packages that finders of editable installs lead to (`__editable___x_finder.py` of setuptools)."""
    for finder in site.glob("__editable__*finder.py"):
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            for node in ast.walk(ast.parse(finder.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                    yield from _paths_of(node)


def _paths_of(node: ast.Assign | ast.AnnAssign) -> Iterable[Path]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if not any(isinstance(one, ast.Name) and one.id == "MAPPING" for one in targets):
        return ()
    assert node.value is not None
    return [Path(one) for one in ast.literal_eval(node.value).values()]


def plain(python: str = "", paths: Sequence[str] = ()) -> PlainEnvironment:
    """Return the environment of *python*, "" for the running one, as an application's."""
    remove_abandoned()
    return PlainEnvironment(python or sys.executable, paths)
