"""Base classes of an adapter's configuration: a model that forbids unknown keys, and a secret that is never shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from vectoracl.errors import ConfigError, without_context


class Model(BaseModel):
    """The base of every model of a configuration: unknown keys are errors, and errors quote no input."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True, validate_default=True)


class Secret(Model):
    """A secret: text, `{ env = "NAME" }` or `{ file = "path" }`. Read when it is needed; its repr shows nothing."""

    text: SecretStr | None = None
    env: str | None = None
    file: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"text": value} if isinstance(value, str | SecretStr) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Secret:
        if sum(one is not None for one in (self.text, self.env, self.file)) != 1 or self.text == SecretStr(""):
            raise ValueError('give a text, { env = "NAME" } or { file = "path" }')
        return self

    @without_context
    def reveal(self, base: Path | None = None) -> str:
        """Return the secret.

        Args:
            base: The folder that a relative `file` starts from; None for the current one.

        Raises:
            ConfigError: The source, which the message names, is missing, unreadable or empty.
        """
        if self.text is not None:
            return self.text.get_secret_value()
        if self.env is not None:
            value = os.environ.get(self.env)
            if not value:
                raise ConfigError(f"The environment variable {self.env} is not set; config reads a secret from it.")
            return value
        assert self.file is not None
        path = (base or Path()) / self.file
        try:
            value = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"The secret's file {path} cannot be read.") from None
        if not value:
            raise ConfigError(f"The secret's file {path} is empty.")
        return value
