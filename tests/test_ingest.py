"""`vectoracl ingest` and `documents`: no document is replaced by another file, and what is gone is forgotten."""

from __future__ import annotations

import io
import json
import os
import shlex
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import vectoracl
from vectoracl import Chunk, InvalidInputError, Principal
from vectoracl.cli import app, common
from vectoracl.cli.ingest import MARK
from vectoracl.text.sources import Failed, File, find, read

CONFIG = """
version = 1
[stores.main]
adapter = "memory"
dimension = 64
name = "{name}"
[stores.main.metadata]
year = "number"
public = "boolean"
seen = "datetime"
tags = "keyword[]"
[embedder]
use = "hashed:64"
"""
WHO = Principal("ann", "acme", authenticated_by="test")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    (tmp_path / "vectoracl.toml").write_text(CONFIG.format(name=tmp_path))
    with vectoracl.connect("vectoracl.toml") as acl:
        tmp_path.joinpath("a").mkdir()
        tmp_path.joinpath("b").mkdir()
        (tmp_path / "a" / "README.md").write_text("about cats")
        (tmp_path / "b" / "README.md").write_text("about dogs")
        yield acl


def run(*arguments, code=0, **given):
    result = CliRunner().invoke(app, [str(one) for one in arguments], **given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def ingest(*arguments, code=0, **given):
    return run("ingest", "--as", "ann@acme", *arguments, code=code, **given)


def texts(acl):
    found = {}
    for hit in acl.scoped(WHO).scan():
        found[hit.document] = found.get(hit.document, "") + hit.text
    return found


# --- names and origins


def test_two_files_of_one_name_are_two_documents_whatever_the_order(here):
    ingest("b/README.md", "a/README.md")
    assert texts(here) == {"a/README.md": "about cats", "b/README.md": "about dogs"}
    ingest("a/README.md", "./b/../b/README.md", "a/README.md")
    assert len(texts(here)) == 2


def test_a_document_of_another_file_is_not_replaced_and_the_cures_work(here):
    ingest("a/README.md")
    (Path("b") / "new.md").write_text("news")
    said = ingest("b/README.md", "b/new.md", code=2).stderr
    assert "from another file" in said
    assert texts(here) == {"README.md": "about cats"}  # the other file was not written either
    ingest("--under", "dogs", "b/README.md")
    assert texts(here) == {"README.md": "about cats", "dogs/README.md": "about dogs"}
    ingest("--overwrite", "b/README.md")
    assert texts(here)["README.md"] == "about dogs"
    ingest("a/README.md", code=2)  # it is the other file's now


def test_a_file_is_the_same_one_however_its_folder_was_named(here):
    ingest("a/README.md", "b/README.md")
    ingest("a")  # the folder that the first one lies in gives it the same name
    (Path("a") / "README.md").write_text("more about cats")
    ingest("a", "b")
    assert texts(here) == {"a/README.md": "more about cats", "b/README.md": "about dogs"}
    Path("a/README.md").rename("gone")
    (Path("a") / "other.md").write_text("other")
    ingest("a", "--prune", "--yes")
    assert set(texts(here)) == {"a/other.md", "b/README.md"}


def test_what_the_application_wrote_is_not_replaced(here):
    here.scoped(WHO).replace("README.md", [Chunk("c", "README.md", "the application's")])
    ingest("a/README.md", code=2)
    assert texts(here) == {"README.md": "the application's"}


def test_one_file_under_many_spellings_is_one_document(here, tmp_path):
    Path("link.md").symlink_to("a/README.md")
    os.link("a/README.md", "second.md")
    Path("folder").symlink_to("a")
    ingest("a/README.md", "./a/README.md", tmp_path / "a" / "README.md", "link.md", "folder/README.md", "second.md")
    assert list(texts(here).values()) == ["about cats"]
    for one in ("./a/README.md", "link.md", "folder/README.md"):
        ingest(one)
        assert list(texts(here)) == ["README.md"]


def test_files_that_lie_elsewhere_each_time_are_known_by_their_source(here, tmp_path):
    for build in ("build1", "build2"):
        folder = tmp_path / build / "docs"
        folder.mkdir(parents=True)
        (folder / "x.md").write_text(f"from {build}")
    ingest("--source", "handbook", "build1/docs")
    ingest("--source", "handbook", "build2/docs")
    assert texts(here) == {"docs/x.md": "from build2"}
    ingest("--source", "another", "build1/docs", code=2)
    ingest("build1/docs", code=2)
    Path("build2/docs/x.md").unlink()
    (tmp_path / "build2" / "docs" / "y.md").write_text("y")
    ingest("--source", "handbook", "build2/docs", "--prune", "--yes")
    assert texts(here) == {"docs/y.md": "y"}


NAMES = st.sampled_from(["a", "b", "docs", "x.md", "README.md"])
TREES = st.sets(
    st.tuples(st.lists(st.sampled_from(["a", "b", "docs"]), max_size=3), st.sampled_from(["x.md", "README.md"])).map(
        lambda one: "/".join([*one[0], one[1]])
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=25)
@given(tree=TREES, data=st.data())
def test_no_document_is_ever_replaced_by_another_file(tmp_path_factory, tree, data):
    """The texts are the files' own paths, so each document says which file it came from."""
    folder = tmp_path_factory.mktemp("tree")
    for one in tree:
        path = folder / "root" / one
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))
    everything = sorted({path for one in tree for path in ((folder / "root" / one), *(folder / "root" / one).parents)})
    choice = [path for path in everything if path.is_relative_to(folder / "root")]
    links = folder / "links"
    links.mkdir()
    config = folder / "vectoracl.toml"
    config.write_text(CONFIG.format(name=folder))
    first: dict[str, str] = {}
    with vectoracl.connect(config) as acl:
        for turn in range(data.draw(st.integers(2, 5))):
            given_ = []
            for number, path in enumerate(data.draw(st.lists(st.sampled_from(choice), min_size=1, max_size=3))):
                spelling = data.draw(st.sampled_from(["plain", "dots", "link", "relative"]))
                if spelling == "link":
                    link = links / f"{turn}-{number}{path.suffix}"
                    link.symlink_to(path)
                    given_.append(str(link))
                elif spelling == "relative":
                    given_.append(os.path.relpath(path))
                else:
                    given_.append(str(path) if spelling == "plain" else f"{path.parent}/./{path.name}/../{path.name}"
                                  if path.is_dir() else f"{path.parent}/./{path.name}")  # fmt: skip
            under = data.draw(st.sampled_from([[], [], ["--under", "a"]]))
            result = CliRunner().invoke(app, ["ingest", "--as", "ann@acme", "-c", str(config), *under, *given_])
            assert result.exit_code in (0, 2), result.output
            now = texts(acl)
            for name, text in first.items():
                assert now[name] == text
            first |= now
            wanted = {str(f.path) for f in find(given_, lambda _: None, distinct=True)}
            assert result.exit_code == 2 or wanted <= set(now.values())


def test_two_files_that_no_folder_tells_apart_are_refused(tmp_path):
    (tmp_path / "e\u0301.md").write_text("one")
    try:
        (tmp_path / "\u00e9.md").write_text("two")
    except OSError:
        pytest.skip("this file system knows both as one")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system knows both as one")
    with pytest.raises(InvalidInputError, match="Two files"):
        find([tmp_path], lambda _: None, distinct=True)


# --- prune


def test_prune_forgets_only_what_came_from_the_folder_and_is_gone(here):
    for name in ("one", "two"):
        (Path("a") / f"{name}.md").write_text(name)
    ingest("a")
    ingest("b")
    here.scoped(WHO).replace("a/app.md", [Chunk("c", "a/app.md", "the application's")])
    Path("a/one.md").unlink()
    Path("b/README.md").unlink()
    before = texts(here)
    said = ingest("a", "--prune", code=1)  # nobody to ask
    assert "a/one.md" in said.stderr
    assert "--yes" in said.stderr
    assert texts(here) == before
    assert "Deleted 1 document " in ingest("a", "--prune", "--yes").stdout
    assert texts(here) == {name: text for name, text in before.items() if name != "a/one.md"}
    found = json.loads(ingest("a", "--prune", "--json").stdout)
    assert found["forgotten"] == []


@pytest.mark.parametrize("more", [(), ("--source", "handbook")])
def test_prune_keeps_what_came_from_a_file_that_is_there_under_another_name(here, more):
    (Path("a") / "one.md").write_text("one")
    ingest("a", "--under", "v1", *more)
    Path("a/one.md").unlink()
    assert "Deleted 1 document " in ingest("a", "--under", "v2", "--prune", "--yes", *more).stdout
    assert sorted(texts(here)) == ["v1/a/README.md", "v2/a/README.md"]


def test_prune_asks(here, monkeypatch):
    (Path("a") / "one.md").write_text("one")
    ingest("a")
    Path("a/one.md").unlink()
    monkeypatch.setattr(common, "interactive", lambda: True)
    ingest("a", "--prune", input="n\n", code=1)
    assert "a/one.md" in texts(here)
    ingest("a", "--prune", input="y\n")
    assert "a/one.md" not in texts(here)


def test_prune_deletes_nothing_where_a_file_cannot_be_read(here):
    for name in ("one", "two"):
        (Path("a") / f"{name}.md").write_text(name)
    ingest("a")
    Path("a/one.md").unlink()
    (Path("a") / "two.md").write_bytes("é".encode("latin-1"))
    ingest("a", "--prune", "--yes", code=2)
    assert {"a/one.md", "a/two.md"} <= set(texts(here))


def test_an_empty_folder_prunes_nothing(here):
    """Such as one whose disk is not mounted."""
    ingest("a")
    Path("a/README.md").unlink()
    ingest("a", "--prune", "--yes", code=2)
    assert "a/README.md" in texts(here)


# --- files that cannot be read, PDF and DOCX, metadata


def test_a_file_that_cannot_be_read_is_no_success(here):
    (Path("a") / "latin.txt").write_bytes("é".encode("latin-1"))
    (Path("a") / "photo.jpg").write_bytes(b"\xff\xd8")
    (Path("a") / "empty.md").write_text("")
    said = ingest("a", code=1).stdout
    assert "a/latin.txt is not UTF-8" in said
    assert texts(here) == {"a/README.md": "about cats"}
    assert [one["name"] for one in json.loads(ingest("a", "--json", code=1).stdout)["skipped"]] == [
        "a/photo.jpg", "a/empty.md", "a/latin.txt",
    ]  # fmt: skip
    Path("a/latin.txt").unlink()
    ingest("a")  # a picture in a folder and an empty file are not expected to be read
    assert "Wrote 0 documents" in ingest("a/photo.jpg", code=2).stdout  # one that was named is
    if os.geteuid() != 0:
        Path("a/README.md").chmod(0)
        ingest("a", code=2)


def docx(*paragraphs):
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    body = "".join(f"<w:p><w:r><w:t>{one}</w:t></w:r></w:p>" for one in paragraphs)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "[Content_Types].xml",
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override '
            f'PartName="/word/document.xml" ContentType="{kind}"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r" '
            f'Type="{relation}" Target="word/document.xml"/></Relationships>',
        )
        archive.writestr(
            "word/document.xml",
            '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
            f"{body}</w:body></w:document>",
        )
    return packed.getvalue()


def pdf(text=""):
    stream = f"BT /F1 24 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n" % len(stream) + stream + b"\nendstream",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    made, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n" % number + one + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table
    return made + head + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(made))


def test_pdf_and_docx(here):
    pytest.importorskip("markitdown", reason="not run: the extra `documents` is not installed")
    Path("a/leave.pdf").write_bytes(pdf("Sick leave starts on the first day."))
    Path("a/days.DOCX").write_bytes(docx("Thirty days of holidays.", "And Sundays."))
    ingest("a")
    found = texts(here)
    assert "Sick leave starts on the first day." in found["a/leave.pdf"]
    assert "Thirty days of holidays." in found["a/days.DOCX"]
    Path("a/broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    Path("a/broken.docx").write_bytes(b"PK nothing")
    Path("a/scan.pdf").write_bytes(pdf())
    said = " ".join(ingest("a", code=1).stdout.split())
    assert "a/broken.docx cannot be read as DOCX" in said
    assert "a/broken.pdf cannot be read as PDF" in said
    assert "a/scan.pdf contains no text: a scan requires OCR first" in said


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    pytest.importorskip("markitdown", reason="not run: the extra `documents` is not installed")
    monkeypatch.setattr("vectoracl.text.sources._MAX_UNPACKED_BYTES", 1_000_000)
    (tmp_path / "bomb.docx").write_bytes(docx("x" * 2_000_000))
    told = []
    assert read(File("bomb.docx", tmp_path / "bomb.docx", tmp_path), told.append) is None
    assert told == [Failed("bomb.docx", "unpacks to more than 1,000,000 bytes")]


def test_without_the_extra_it_says_what_to_install(here, monkeypatch):
    import sys

    from vectoracl.text import sources

    sources._converter.cache_clear()
    monkeypatch.setitem(sys.modules, "markitdown", None)
    Path("a/leave.pdf").write_bytes(pdf("x"))
    said = " ".join(ingest("a", code=1).stdout.split())
    assert "a/leave.pdf requires a package that is not installed" in said
    assert "markitdown" in said
    assert "about cats" in texts(here).values()


def test_metadata_has_the_declared_types(here):
    given_ = ["year=2024", "public=true", "seen=2026-01-31T12:00:00Z", "tags=hr", "tags=law", "note=a=b"]
    ingest(*(part for one in given_ for part in ("--metadata", one)), "a")
    (hit,) = here.scoped(WHO).scan()
    kept = dict(hit.metadata)
    assert (kept.pop("seen").isoformat(), kept.pop(MARK).count("-")) == ("2026-01-31T12:00:00+00:00", 1)
    assert kept == {"year": 2024, "public": True, "tags": ["hr", "law"], "note": "a=b"}
    assert here.scoped(WHO).count(vectoracl.F.year >= 2020) == 1
    for wrong in ("year=soon", "public=yes", "seen=today", "year", "=x", f"{MARK}=x"):
        ingest("--metadata", wrong, "b", code=2)
    ingest("-m", "year=1", "-m", "year=2", "b", code=2)
    assert "b/README.md" not in texts(here)


# --- documents


def test_documents_are_listed_and_deleted(here):
    ingest("a", "b")
    found = json.loads(run("documents", "list", "--as", "ann@acme", "--json").stdout)["documents"]
    assert [(one["document"], one["chunks"]) for one in found] == [("a/README.md", 1), ("b/README.md", 1)]
    assert found[0]["written"].endswith("Z")
    assert "a/README.md" in run("documents", "list", "--as", "ann@acme").stdout
    assert "sees no documents" in run("documents", "list", "--as", "bob@globex").stdout
    ask = ("documents", "delete", "--as")
    for who in ("bob@globex", "ann@acme"):  # another tenant's, and a missing one beside one that is there
        names = ["a/README.md"] if who != "ann@acme" else ["a/README.md", "none.md"]
        assert "sees no document" in run(*ask, who, *names, "--yes", code=2).stderr
    assert "--yes" in run(*ask, "ann@acme", "a/README.md", code=2).stderr
    assert len(texts(here)) == 2
    assert json.loads(run(*ask, "ann@acme", "a/README.md", "a/README.md", "-y", "--json").stdout)["deleted"] == [
        "a/README.md"
    ]
    assert list(texts(here)) == ["b/README.md"]


def test_the_next_command_that_ingest_prints_works(here, monkeypatch):
    config = Path("other place.toml")
    config.write_text(Path("vectoracl.toml").read_text())
    monkeypatch.setattr(vectoracl.VectorACL, "keeps", lambda *_: True)  # the test keeps the store while commands end
    shown = ingest("a", "-c", config, env={"COLUMNS": "80"}).stdout.replace("\\\n", " ")
    (line,) = [one.strip() for one in shown.splitlines() if one.strip().startswith("vectoracl ")]
    assert "about cats" in run(*shlex.split(line)[1:]).stdout


def test_what_only_the_commands_memory_holds_is_not_shown_as_there(here):
    shown = ingest("a").stdout
    assert "Next:" not in shown
    assert "in the memory of the command" in shown
