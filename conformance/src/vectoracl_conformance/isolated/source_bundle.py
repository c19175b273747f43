"""Modules of the kit as one text that can be run where the kit is not installed, under another name.

Only for adapters that the kit itself breaks or varies (mutants, unusual ones). What a harness hands over to be
certified is never bundled.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import distributions
from pathlib import Path

from vectoracl_conformance.isolated.interpreter import LIBRARY, packages_of, shows_kit

KIT = "vectoracl_conformance"
ROOT = "store_parts"
_FINDER = """
import importlib.abc, importlib.util, sys
class _Texts(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    texts = {texts!r}
    def find_spec(self, name, path=None, target=None):
        if name in self.texts:
            return importlib.util.spec_from_loader(name, self, is_package=self.texts[name][0])
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        module.__file__ = module.__name__.replace(".", "/") + ".py"  # there is none; a module may still ask
        exec(compile(self.texts[module.__name__][1], module.__name__, "exec"), vars(module))
if not any(type(one).__name__ == "_Texts" for one in sys.meta_path):
    sys.meta_path.append(_Texts())
"""


@cache
def bundle(*modules: str) -> str:
    """Return text that makes *modules*, and what they import of the kit, importable by their `bundled` names."""
    found = _found(modules)
    names = _names(found)
    texts = {ROOT: (True, ""), **{_renamed(name, names): (one[0], _renamed(one[1], names)) for name, one in found}}
    return _FINDER.format(texts=texts)


@cache
def bundled(name: str, *modules: str) -> str:
    """Return the name under which the bundle of *modules* has the module *name*. Raises: ModuleNotFoundError."""
    names = _names(_found(modules))
    if name != KIT and not name.startswith(f"{KIT}.") and name not in names:
        raise ModuleNotFoundError(f"{name} imports nothing of the kit, and is not bundled")
    return _renamed(name, names)


@cache
def _found(modules: tuple[str, ...]) -> tuple[tuple[str, tuple[bool, str]], ...]:
    """Return the modules to bundle with whether they are packages, and their texts.

    These are modules of the kit, modules that import it, and whatever is in the packages of *modules* where no adapter
    is installed: nothing of that is in an adapter's process.
    """
    apart = {name.partition(".")[0] for name in modules} - {KIT} - _installed()
    found: dict[str, tuple[bool, str]] = {}
    waiting, seen = list(modules), {KIT}
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if name in seen or top in sys.stdlib_module_names or top == LIBRARY:
            continue
        seen.add(name)
        spec = _spec(name)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            if name in modules:
                raise ModuleNotFoundError(f"the module {name} has no source text")
            continue
        source = Path(spec.origin).read_text(encoding="utf-8")
        if top != KIT and top not in apart and not shows_kit(source):
            continue
        found[name] = (spec.submodule_search_locations is not None, source)
        waiting += _imported(source)
        if top == KIT:
            waiting.append(name.rpartition(".")[0])
    return tuple(found.items())


def _installed() -> set[str]:
    """Return the packages of the library and of what offers an adapter."""
    return {
        name
        for one in distributions()
        if any(point.group == LIBRARY for point in one.entry_points)
        for name in packages_of(one)
    }


def _names(found: tuple[tuple[str, tuple[bool, str]], ...]) -> Mapping[str, str]:
    """Return the new names of modules that are not the kit's, the longest old names first."""
    own = sorted((name for name, _ in found if not name.startswith(f"{KIT}.")), key=len, reverse=True)
    return {name: f"{ROOT}_{number}" for number, name in enumerate(own)}


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        text = re.sub(rf"(?<![\w.]){re.escape(old)}(?![\w.])", new, text)
    return text.replace(KIT, ROOT)


def _imported(source: str) -> list[str]:
    """Return the modules that *source* imports, whole or in part, when it is run."""
    names: list[str] = []
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names.append(node.module)
            if node.module.startswith(KIT):
                names += [f"{node.module}.{one.name}" for one in node.names if _exists(node.module, one.name)]
        elif isinstance(node, ast.Import):
            names += [one.name for one in node.names]
    return names


def _exists(package: str, name: str) -> bool:
    spec = _spec(package)
    return spec is not None and spec.submodule_search_locations is not None and _spec(f"{package}.{name}") is not None


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):  # a part of its name is not a package, or is not there
        return None
