"""Loading of the adapter that a configuration names. No other is imported; an adapter claimed twice is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from vectoracl._util import install_hints
from vectoracl.adapter_api.hookspecs import PROJECT, AdapterSpec
from vectoracl.errors import AdapterNotFoundError

_FIRST_PARTY = {
    "pgvector": "vectoracl-pgvector",
    "qdrant": "vectoracl-qdrant",
    "pinecone": "vectoracl-pinecone",
    "weaviate": "vectoracl-weaviate",
}


@dataclass(frozen=True, slots=True)
class Installed:
    """An adapter of an installed distribution, known from its metadata."""

    adapter: str
    distribution: str
    version: str
    module: str


def installed() -> list[Installed]:
    """List the installed adapters without importing them."""
    adapters = set()
    for point in entry_points(group=PROJECT):
        name, version = _distribution(point)
        adapters.add(Installed(point.name, name, version, point.value))
    return sorted(adapters, key=lambda one: (one.adapter, one.distribution))


def _distribution(point: EntryPoint) -> tuple[str, str]:
    dist = point.dist
    return (dist.name, dist.version) if dist is not None else ("unknown", "unknown")


def load(adapter: str, distribution: str | None = None) -> Any:
    """Import the plugin of *adapter*, from *distribution* if it is pinned, and return its hooks.

    Raises: AdapterNotFoundError, with the command that installs it, unless exactly one distribution provides it.
    """
    claims = {}
    for point in entry_points(group=PROJECT):
        if point.name == adapter and (distribution is None or _same(_distribution(point)[0], distribution)):
            claims[_distribution(point)[0]] = point
    if not claims:
        near = get_close_matches(adapter, [*_FIRST_PARTY, *(one.adapter for one in installed())], 1, 0.75)
        if distribution is None and near and near[0] != adapter:
            # Without a command to install: a stranger may have registered a mistyped name.
            raise AdapterNotFoundError(f"There is no adapter {adapter!r}; did you mean {near[0]!r}?", adapter=adapter)
        line, cure = _to_install(adapter, distribution)
        known = ", ".join(sorted({one.adapter for one in installed()})) or "none"
        raise AdapterNotFoundError(
            f"No installed distribution provides the adapter {adapter!r} (installed: {known}). {cure}",
            install=line,
            adapter=adapter,
        )
    if len(claims) > 1:
        raise AdapterNotFoundError(
            f"The adapter {adapter!r} is claimed by {' and '.join(sorted(claims))}. Uninstall one, or pin the other "
            'with distribution = "…" in the store\'s config.',
            adapter=adapter,
        )
    (point,) = claims.values()
    try:
        module = point.load()
    except Exception as error:
        missing = f": {error.name}" if isinstance(error, ImportError) and error.name else ""
        raise AdapterNotFoundError(
            f"The adapter {adapter!r} is installed but cannot be imported ({type(error).__name__}{missing}). "
            f"Reinstall {_distribution(point)[0]}.",
            adapter=adapter,
        ) from error
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(AdapterSpec)
    manager.register(module, name=adapter)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError:
        raise AdapterNotFoundError(
            f"The plugin of {adapter!r} is not compatible with this version of vectoracl.", adapter=adapter
        ) from None
    for hook in ("vectoracl_config_model", "vectoracl_open", "vectoracl_describe"):
        if not getattr(manager.hook, hook).get_hookimpls():
            raise AdapterNotFoundError(f"The plugin of {adapter!r} does not implement {hook}.", adapter=adapter)
    return manager.hook


def _to_install(adapter: str, distribution: str | None) -> tuple[str, str]:
    """Return the command that installs the adapter ("" if its name is uncertain), and a hint."""
    package = distribution or _FIRST_PARTY.get(adapter, "")
    if package in install_hints.FOLDERS:
        return install_hints.line(package), f"To install it: {install_hints.cure(package)}"
    if distribution is not None:  # named in the configuration
        line = f'pip install "{distribution}"'
        return line, f"To install it: {line}"
    return "", "Install the distribution that provides it; its name is in its documentation and is not guessed here."


def _same(one: str, other: str) -> bool:
    """Compare distribution names as PyPI does."""
    return re.sub(r"[-_.]+", "-", one).lower() == re.sub(r"[-_.]+", "-", other).lower()
