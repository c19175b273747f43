"""Import paths in a configuration. Callers check that the configuration allows them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from vectoracl.errors import ConfigError, VectorACLError, without_context


@without_context
def import_path(path: str, key: str) -> Any:
    """Import and return the object "package.module:attribute". Raises: ConfigError that names *key*."""
    module, _, attribute = path.partition(":")
    if not module or not attribute:
        raise ConfigError(f'{key} must have the form "package.module:attribute".')
    try:
        target: Any = importlib.import_module(module)
        for part in attribute.split("."):
            target = getattr(target, part)
    except Exception as error:  # noqa: BLE001 - raised again as a ConfigError
        # These two name what is missing; the message of any other exception of a module may contain anything.
        known = isinstance(error, ImportError | AttributeError)
        text = f"{key}: {path!r} cannot be imported ({type(error).__name__})."
        raise ConfigError(text) from (error if known else None)
    return target


@without_context
def made_by(maker: Any, key: str, what: str, *, debug: bool, options: Mapping[str, Any] | None = None) -> Any:
    """Return what *maker*, the callable that *key* names, makes of *options*. Raises: ConfigError, its VectorACLError.

    The text of an exception of the maker may contain anything, so only *debug* shows it.
    """
    try:
        return maker(**(options or {}))
    except VectorACLError:
        raise
    except Exception as error:  # noqa: BLE001 - raised again as a ConfigError
        text = f"{key}: creating the {what} failed ({type(error).__name__}). Set debug_errors = true to see the cause."
        raise ConfigError(text) from (error if debug else None)
