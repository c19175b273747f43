"""What the documentation says is run: every Python block, page by page, and every command that it names exists."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import typer
from markdown_it import MarkdownIt

from vectoracl.adapter_api.loading import load

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
NEEDS_SERVER = {"pgvector.md"}  # run by adapters/pgvector/tests/test_docs.py
EXCERPTS = {"write-an-adapter.md"}  # of a distribution with tests of its own; held to it by test_write_an_adapter.py


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the fenced blocks of *language* with their line."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    return [(one.map[0] + 2, one.content) for one in tokens if one.type == "fence" and one.info.strip() == language]


def run(page: Path, namespace: dict[str, object]) -> int:
    found = blocks(page, "python")
    for line, code in found:
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)
    return len(found)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name not in NEEDS_SERVER | EXCERPTS], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if page.name == "README.md":
        # The README shows a file by name; this is one that fits what it shows.
        (tmp_path / "vectoracl.toml").write_text(
            'version = 1\n[stores.main]\nadapter = "memory"\ndimension = 384\n'
            '[stores.main.metadata]\nyear = "number"\n[embedder]\nuse = "hashed"\n'
        )
    count = run(page, {})
    if page.name in {"README.md", "index.md", "concepts.md"}:
        assert count > 0


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for _, text in blocks(page, "console"):
            for line in text.splitlines():
                match = re.search(r"(?:^|\s|&& )vectoracl (.*)", line.removeprefix("$ "))
                if match:
                    found.append((page.name, match.group(1).split("#")[0].strip()))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_that_is_shown_exists_with_its_options(page: str, line: str) -> None:
    from vectoracl.cli.app import app
    from vectoracl_conformance.cli import app as kit

    words = shlex.split(line.split("|")[0])
    command = typer.main.get_command(app)
    if words[:1] == ["conformance"]:  # the core only hands over to the kit's own command, which has the options
        command = typer.main.get_command(kit)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        sub = command.commands.get(words[0])
        assert sub is not None, f"{page} shows `vectoracl {line}`, and there is no such command"
        command = sub
        words.pop(0)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word.split("=")[0] in known | {"--help"}, f"{page} shows `vectoracl {line}`: no option {word}"


STORES = ("pgvector", "qdrant", "weaviate", "pinecone")
SAID = {True: "yes", False: "no"}


def beside(rows: dict[str, list[str]], *, first: str) -> str:
    """Return a table: a row for each of *rows*, a column for each store."""
    lines = [f"| {first} | {' | '.join(STORES)} |", "|---" * (len(STORES) + 1) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())])


def described() -> dict[str, dict[str, object]]:
    from vectoracl.adapter_api.loading import load
    from vectoracl.cli.adapters import described as of

    found = {}
    for store in STORES:
        pytest.importorskip(f"vectoracl_{store}")
        can = load(store).vectoracl_describe()
        found[store] = {**of(can), "grade": can.grade, "queries": sorted(can.queries)}
    return found


def cells(key: str) -> list[str]:
    def text(value: object) -> str:
        if isinstance(value, list):
            return ", ".join(value) or "none"
        return SAID[value] if isinstance(value, bool) else f"{value:,}" if isinstance(value, int) else str(value)

    return [text(one[key]) for one in described().values()]


def held(page: str, name: str, table: str) -> None:
    """Demand that *page* shows *table*; `VECTORACL_REWRITE_TABLES=1` writes it."""
    path = ROOT / "docs" / page
    before, begin, rest = path.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    old, end, after = rest.partition(f"<!-- /{name} -->")
    assert begin
    assert end
    if os.environ.get("VECTORACL_REWRITE_TABLES") == "1":
        path.write_text(f"{before}{begin}{table}\n{end}{after}", encoding="utf-8")
        return
    assert old == f"{table}\n", (
        f"run: VECTORACL_REWRITE_TABLES=1 uv run pytest tests/test_docs.py -k adapters_say\n{table}"
    )


def test_what_changes_between_stores_is_what_the_adapters_say() -> None:
    rows = {
        "isolation grade": "grade",
        "query kinds": "queries",
        "exact counts": "count",
        "counts by value (facets)": "facets",
        "exact ranking on demand": "exact",
        "an upsert is all or nothing": "atomic_upsert",
        "a replacement is one step": "atomic_replace",
        "a write is seen": "visible",
        "a delete says how many": "delete_counts",
        "chunks of one call, at most": "max_batch",
        "k, at most": "max_k",
        "settings of a query": "tuning",
        "target of `vectoracl copy`": "copy_into",
    }
    table = beside({name: cells(key) for name, key in rows.items()}, first="at best")
    held("switching-stores.md", "capabilities", table)


def test_the_query_kinds_are_what_the_adapters_say() -> None:
    found = described()
    kinds = {
        kind: [SAID[kind in one["queries"]] for one in found.values()]  # type: ignore[operator]  # a list of names
        for kind in ("vector", "lexical", "hybrid")
    }
    scores = {"partition": "the tenant's own", "comparable": "comparable", "None": "none"}
    kinds["lexical scores of several tenants"] = [scores[one] for one in cells("lexical_scores")]
    table = beside(kinds, first="query")
    held("searching.md", "queries", table)


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert f": {name}\n" in nav, f"{name} is not in mkdocs.yml"


def test_every_method_of_a_handle_and_every_helper_of_testing_is_in_a_page_by_name() -> None:
    """The reference lists them without being asked; a reader meets them in a page that says what they are for."""
    import vectoracl
    from vectoracl import testing

    text = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "api.md")
    names = [name for name in dir(vectoracl.ScopedRetriever) if not name.startswith("_") and name != "with_driver"]
    helpers = [name for name, one in vars(testing).items() if getattr(one, "__module__", "") == testing.__name__]
    missing = [name for name in names if not re.search(rf"\.{name}\(|`{name}`", text)]
    missing += [f"testing.{name}" for name in helpers if not name.startswith("_") and f"testing.{name}" not in text]
    assert missing == []


@pytest.mark.parametrize("adapter", ["memory", "pgvector", "qdrant", "weaviate", "pinecone"])
def test_every_key_of_an_adapter_is_on_the_page_of_the_configuration(adapter: str) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = page.split(f'\n### adapter = "{adapter}"\n')[1].split("\n##")[0]
    fields = {field.alias or name: field for name, field in load(adapter).vectoracl_config_model().model_fields.items()}
    named = {key.removesuffix(".*") for key in re.findall(r"`([a-z_]+(?:\.\*)?)`", section)}
    assert fields.keys() - named == set()
    for line in section.splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if len(cells) != 5:
            continue
        keys, defaults = (re.findall(r"`([^`]+)`", cells[column]) for column in (1, 3))
        assert {key.removesuffix(".*") for key in keys} <= fields.keys()
        if len(keys) == len(defaults):
            for key, default in zip(keys, defaults, strict=True):
                known = fields.get(key)
                if known is not None and isinstance(known.default, str | int | float):
                    value = str(known.default).lower() if isinstance(known.default, bool) else known.default
                    assert default in {str(value), f"{value:g}" if isinstance(value, float) else ""}, key
