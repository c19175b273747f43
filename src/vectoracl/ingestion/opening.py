"""Opens the validators of a configuration: those that are shipped by their names, others by their import paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from vectoracl._util.import_path import import_path, made_by
from vectoracl.errors import ConfigError, without_context
from vectoracl.ingestion.outliers import OutlierOptions, Outliers
from vectoracl.ingestion.size import Size, SizeOptions
from vectoracl.ingestion.validators import NamedValidator, Validator

SHIPPED: Mapping[str, Callable[[Mapping[str, Any]], Validator]] = {
    "size": lambda given: Size(SizeOptions.model_validate(given)),
    "outliers": lambda given: Outliers(OutlierOptions.model_validate(given)),
}


@without_context
def open_validator(
    use: str, name: str, options: Mapping[str, Any], *, key: str, allow_import: bool, debug: bool
) -> NamedValidator:
    """Return the validator *use*: a shipped one, or with *allow_import* the import path of one or of what makes one.

    A callable is called with *options* as keyword arguments. Raises: ConfigError that names *key* and quotes no value.
    """
    if use in SHIPPED:
        try:
            return NamedValidator(name, SHIPPED[use](dict(options)), quick=True)
        except ValidationError as error:
            raise ConfigError(f"{key}.options: {'; '.join(_reasons(error))}.") from None
    if ":" not in use:
        raise ConfigError(f'{key}.use is one of {", ".join(sorted(SHIPPED))}, or "package.module:attribute".')
    if not allow_import:
        raise ConfigError(
            f"{key}.use is an import path, which runs code. If you trust it, set allow_import = true in the same table."
        )
    found = import_path(use, f"{key}.use")
    if isinstance(found, type) or not isinstance(found, Validator):
        if not callable(found):
            raise ConfigError(f"{key}.use must name a Validator, or a callable that returns one.")
        found = made_by(found, f"{key}.use", "validator", debug=debug, options=options)
    elif options:
        raise ConfigError(f"{key}.options: the import path names a validator that exists already; it takes no options.")
    if isinstance(found, type) or not isinstance(found, Validator):
        raise ConfigError(f"{key}.use must name a Validator, or a callable that returns one.")
    return NamedValidator(name, found)


def _reasons(error: ValidationError) -> list[str]:
    lines = []
    for one in error.errors(include_input=False, include_url=False, include_context=False):
        where = ".".join(str(part) for part in one["loc"])
        message = "is not a known option" if one["type"] == "extra_forbidden" else one["msg"]
        lines.append(f"{where + ': ' if where else ''}{message.removeprefix('Value error, ')}")
    return lines
