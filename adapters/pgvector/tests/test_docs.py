"""The Python of docs/pgvector.md, run against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

PAGE = Path(__file__).parents[3] / "docs" / "pgvector.md"


def test_the_python_of_the_page_runs(provisioned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = provisioned(dimension=384)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectoracl.toml").write_text(
        f'version = 1\n[stores.main]\nadapter = "pgvector"\ndimension = 384\ndsn = {json.dumps(store.runtime)}\n'
        '[embedder]\nuse = "hashed:384"\n'
    )
    tokens = MarkdownIt().parse(PAGE.read_text(encoding="utf-8"))
    blocks = [one for one in tokens if one.type == "fence" and one.info.strip() == "python"]
    assert blocks
    namespace: dict[str, Any] = {"dsn": store.runtime}
    for block in blocks:
        exec(compile(block.content, str(PAGE), "exec"), namespace)
    namespace["acl"].close()


def test_the_configuration_of_the_page_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib

    from vectoracl.config import Config
    from vectoracl_pgvector.config import PgvectorConfig

    tokens = MarkdownIt().parse(PAGE.read_text(encoding="utf-8"))
    shown = [one.content for one in tokens if one.type == "fence" and one.info.strip() == "toml"]
    assert shown
    for text in shown:
        config = Config.model_validate(tomllib.loads(text))
        for store in config.stores.values():
            PgvectorConfig.model_validate(store.own())
