"""Import paths in a configuration; allowed only where the file says so, which the callers check."""

from __future__ import annotations

import importlib
from typing import Any

from vectoracl.errors import ConfigError, without_context


@without_context
def import_path(path: str, key: str) -> Any:
    """Return what "package.module:attribute" names. Raises: ConfigError that names *key*."""
    module, _, attribute = path.partition(":")
    if not module or not attribute:
        raise ConfigError(f'{key} must have the form "package.module:attribute".')
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # noqa: BLE001 - raised as ours
        # What is missing is said by the cause; what a module does and says while it is imported may be anything.
        known = isinstance(error, ImportError | AttributeError)
        text = f"{key}: {path!r} cannot be imported ({type(error).__name__})."
        raise ConfigError(text) from (error if known else None)
    return found
