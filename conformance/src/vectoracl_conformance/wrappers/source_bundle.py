"""Modules of the kit as one text that can be run where the kit is not installed, under another name.

Only for adapters that the kit itself breaks or varies (mutants, unusual ones). What a harness hands over to be
certified is never bundled.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

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
        exec(compile(self.texts[module.__name__][1], module.__name__, "exec"), vars(module))
if not any(type(one).__name__ == "_Texts" for one in sys.meta_path):
    sys.meta_path.append(_Texts())
"""


@cache
def bundle(*modules: str) -> str:
    """Return text that makes *modules* of the kit, and what they import of it, importable below `ROOT`."""
    texts: dict[str, tuple[bool, str]] = {ROOT: (True, "")}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if renamed(name) in texts:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"there is no module {name}")
        package = spec.submodule_search_locations is not None
        source = Path(spec.origin).read_text(encoding="utf-8")
        texts[renamed(name)] = (package, renamed(source))
        waiting += [name.rpartition(".")[0], *_imported(source)] if "." in name else []
    return _FINDER.format(texts=texts)


def renamed(text: str) -> str:
    """Return *text* with the kit's name replaced."""
    return text.replace(KIT, ROOT)


def _imported(source: str) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith(KIT):
            names.append(node.module)
            names += [
                f"{node.module}.{one.name}"
                for one in node.names
                if importlib.util.find_spec(node.module).submodule_search_locations is not None  # type: ignore[union-attr]
                and importlib.util.find_spec(f"{node.module}.{one.name}") is not None
            ]
        elif isinstance(node, ast.Import):
            names += [one.name for one in node.names if one.name.startswith(KIT)]
    return [name for name in names if name != KIT]
