"""Exports of a package that are imported at their first use, so that what a program does not use is not loaded."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping


def lazy_exports(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of *package*.

    Args:
        package: The `__name__` of the package.
        names: The exported names of each module, separated by spaces, by the module's full name. Modules and packages
            in *package* need no entry: they are found by their own name.
    """
    modules = {name: module for module, listed in names.items() for name in listed.split()}

    def find(name: str) -> object:
        if name.startswith("_") or not name.isidentifier():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = modules.get(name, f"{package}.{name}")
        try:
            value: object = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None
        if name in modules:
            value = getattr(value, name)
            setattr(sys.modules[package], name, value)
        return value

    def list_names() -> list[str]:
        module = sys.modules[package]
        return sorted({*vars(module), *modules, *module.__all__})

    return find, list_names
