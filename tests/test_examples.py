"""Every example runs as it is shown."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {
    "two_tenants.py": ["ann of acme", "Initech", "cartel office"],
    "agent_tool.py": ["booked by the office", "1998 is out", "refused: 'tenant_id'"],
    "own_transaction.py": ["inside the transaction: 1 - outside: 0", "after the rollback: 0", "Thirty days"],
}


ELSEWHERE = {"shards_on_ray.py"}
"""Examples that need more than the tests have: `nox -s ray` runs it."""


def test_every_example_is_named_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SAYS, *ELSEWHERE}


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for words in SAYS[name]:
        assert words in done.stdout
    if name == "two_tenants.py":
        bob = done.stdout.partition("bob of beta")[2]
        assert "Lyon" in bob
        assert "Initech" not in bob


STORES = ("pgvector", "qdrant", "weaviate", "pinecone")


def test_the_configurations_of_any_store_differ_in_their_store_alone() -> None:
    """What is not under [stores.main] is the same in all; there, only what says where the store is differs."""
    read = {name: tomllib.loads((EXAMPLES / "any_store" / f"{name}.toml").read_text()) for name in STORES}
    mains = {name: whole["stores"].pop("main") for name, whole in read.items()}
    assert all(whole == read["pgvector"] for whole in read.values())
    assert all(main["adapter"] == name for name, main in mains.items())
    assert all(main["metadata"] == {"year": "number"} and main["dimension"] == 384 for main in mains.values())


@pytest.mark.server
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", STORES)
def test_any_store(name: str, tmp_path: Path) -> None:
    """The same program on each store; where that needs a server, at the address that the kit has for one."""
    pytest.importorskip(f"vectoracl_{name}")
    harness = pytest.importorskip("vectoracl_conformance.harness")
    config = tmp_path / f"{name}.toml"
    text = (EXAMPLES / "any_store" / f"{name}.toml").read_text()
    store = None
    if name in ("weaviate", "pinecone"):
        try:
            store = harness.load_harness(name).fresh(harness.Needs(384, {"year": "number"}))
        except harness.HarnessError as error:
            fail = pytest.fail if os.environ.get("VECTORACL_REQUIRE_SERVERS") == "1" else pytest.skip
            fail(f"not run: {error}")
        assert store is not None
        text = addressed(text, store.config)
    try:
        config.write_text(text)
        said = run(config, ["-m", "vectoracl", "provision", "-c", str(config)]) if store is None else ""
        said = run(config, [str(EXAMPLES / "any_store" / "any_store.py"), str(config)])
        again = run(config, [str(EXAMPLES / "any_store" / "any_store.py"), str(config)])
    finally:
        if store is not None:
            store.close()
    ann, _, bob = said.partition("bob of beta")
    assert "Initech" in ann
    assert "newsletters" not in ann.partition("by the word")[0]  # the filter holds
    assert "Lyon" in bob.partition("by the word")[0]
    assert "merger" not in bob.partition("by the word")[0]
    words = [line for line in said.splitlines() if "by the word" in line]
    if "refused" in words[0]:
        assert name == "pinecone"
    else:
        assert words[0].count("merger") == 2
        assert words[1].endswith("[]")
    assert again == said


def addressed(text: str, config: dict[str, object]) -> str:
    """Return *text* with the keys of its store that say where it is replaced by those of *config*."""
    from vectoracl._util import toml

    where = ("url", "grpc_port", "index", "host", "api_key", "collection", "namespace_prefix", "negation")
    kept = [line for line in text.splitlines() if line.partition(" = ")[0] not in where]
    place = kept.index("dimension = 384")
    return "\n".join([*kept[:place], toml.lines({k: v for k, v in config.items() if k in where}), *kept[place:]])


def run(config: Path, command: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=config.parent, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
