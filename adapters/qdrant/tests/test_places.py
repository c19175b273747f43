"""One collection reached in two ways is one store to `vectoracl copy`, as far as folder, address and telemetry say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import vectoracl as v
from vectoracl.errors import StoreError
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.ports import Administrator


class Port:
    """Gives a client that knows aliases and a process, or has no right to them."""

    def __init__(self, process: str | None) -> None:
        self._process = process

    def administer(self, work: Any) -> None:
        if self._process is None:
            raise StoreError("no right to it", code="rejected", sent="no")
        told = SimpleNamespace(result=SimpleNamespace(id=self._process))
        service = SimpleNamespace(telemetry=lambda **_: told)
        aliases = [SimpleNamespace(alias_name="docs", collection_name="docs_2")]
        work(SimpleNamespace(
            http=SimpleNamespace(service_api=service), get_aliases=lambda: SimpleNamespace(aliases=aliases)
        ))  # fmt: skip


def places(url: str, collection: str, process: str | None) -> frozenset[str]:
    config = QdrantConfig(url=url, collection=collection, dimension=8)
    return Administrator(Port(process), config).places()  # type: ignore[arg-type]


def test_a_process_and_an_alias_are_seen_through() -> None:
    one = places("http://localhost:6333", "docs", "p1")
    assert one & places("http://127.0.0.1", "docs_2", None) == {"loopback:6333/docs_2"}
    assert not one & places("http://127.0.0.1", "docs", None), "an alias is known only where it can be read"
    assert one & places("http://127.0.0.1", "docs_2", "p1")
    assert one & places("https://qdrant.internal.invalid:6333", "docs", "p1") == {"process p1/docs_2"}
    assert not one & places("https://qdrant.internal.invalid:6333", "docs", "p2")
    assert not one & places("http://localhost:6333", "other", "p1")
    assert not one & places("http://localhost:6334", "docs", "p2")
    assert places("http://localhost", "docs", None) == {"loopback:6333/docs"}


def test_two_servers_behind_one_address_are_two() -> None:
    """The client sends its requests under the path of the url."""
    found = [
        places(f"http://{where}", "docs", None)
        for where in ("proxy.invalid/green", "proxy.invalid/blue", "proxy.invalid", "127.0.0.1", "127.0.0.2")
    ]
    assert len(frozenset.union(*found)) == 5
    assert found[0] == places("http://proxy.invalid:6333/green/", "docs", None)


def test_a_folder_is_one_place_however_it_is_written(tmp_path: Any) -> None:
    def at(path: Any) -> frozenset[str]:
        store = {"adapter": "qdrant", "path": str(path), "dimension": 8}
        with v.VectorACL({"version": 1, "stores": {"main": store}}) as acl:
            return acl.store_identity("main")

    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert at(tmp_path / "folder") == at(tmp_path / "link") == at(tmp_path / "x" / ".." / "folder")
    assert not at(tmp_path / "folder") & at(tmp_path / "other")
