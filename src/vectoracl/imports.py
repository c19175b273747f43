"""Import paths in a configuration; allowed only where the file says so, which the callers check."""

from __future__ import annotations

import importlib
from typing import Any

from vectoracl.errors import ConfigError


def import_path(path: str, key: str) -> Any:
    """Return what "package.module:attribute" names. Raises: ConfigError that names *key*."""
    module, _, attribute = path.partition(":")
    if not module or not attribute:
        raise ConfigError(f'{key} must have the form "package.module:attribute".')
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}: {path!r} cannot be imported ({type(error).__name__}).") from error
    return found
