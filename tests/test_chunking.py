import os
import re
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vectoracl.errors import InvalidInputError
from vectoracl.model.identifiers import check_id
from vectoracl.text.chunking import Document, chunk_ids, chunks, document_chunks, documents
from vectoracl.text.extract import docstrings, html_text

TITLES = ["# Title", "Title\n=====", "====\nOver\n====", "```python\ncode = 1\n\n# no heading\n```", "~~~", "---"]
PROSE = ["word", "a. b! c?", "x" * 90, "e\u0301" * 30, "👩\u200d💻" * 20, "検索。" * 25, "- item"]
BLANKS = ["\n", "\n\n", "\r\n", " ", "\t"]
pieces = st.sampled_from([*TITLES, *PROSE, *BLANKS])
texts = st.lists(pieces | st.text(max_size=30), max_size=30).map("".join)


def solid(text):
    return "".join(text.split())


@settings(max_examples=300)
@given(texts, st.integers(16, 200))
def test_chunks_hold_the_whole_text_in_order_and_none_is_too_long(text, size):
    made = chunks(text, size)
    assert solid("".join(made)) == solid(text)
    assert all(one == one.strip() and 0 < len(one) <= size for one in made)
    assert chunks(text, size) == made


@settings(max_examples=200)
@example([". ", ". ", "\n\n# "], 16, 50)
@given(
    st.lists(st.sampled_from([" ", ". ", "\n", "\n\n", "\n\n# "]), max_size=150),
    st.integers(16, 200),
    st.integers(0, 100),
)
def test_overlap_only_repeats_what_came_before(blanks, size, share):
    overlap = size // 2 * share // 100
    text = "".join(f"w{index}{blank}" for index, blank in enumerate(blanks))  # no word comes twice
    made = chunks(text, size, overlap)
    assert all(0 < len(one) <= size for one in made)
    covered = 0
    for one in made:
        words = [int(word) for word in re.findall(r"w(\d+)", one)]
        if not words:  # the mark of a heading without a text, at the very end
            assert one == "#"
            continue
        assert words == list(range(words[0], words[-1] + 1))
        if one.endswith("#") and covered == words[-1] + 1:  # that mark again, after words that are repeated
            assert sum(len(f"w{word}") for word in words) <= overlap
            continue
        assert words[0] <= covered <= words[-1]
        assert sum(len(f"w{word}") for word in range(words[0], covered)) <= overlap
        covered = words[-1] + 1
    assert covered == len(blanks)
    if overlap > 20 and len(made) > 1 and len(set(blanks)) == 1 and blanks[0] == " ":
        assert made[1].split()[0] in made[0].split()


def test_paragraphs_stay_whole_and_headings_stay_with_their_text():
    body = "One sentence here. " * 15
    text = f"# First\n\n{body}\n\n## Second\n\n{body}\n\nThird\n-----\n\n{body}"
    made = chunks(text, 400)
    assert [one.split("\n")[0] for one in made] == ["# First", "## Second", "Third"]
    assert all(one.endswith("here.") for one in made)
    assert len(chunks("# A\n\nshort\n\n# B\n\nshort", 400)) == 1


def test_rst_titles_with_a_line_above():
    made = chunks("=====\nTitle\n=====\n\n" + "text " * 60 + "\n\nNext\n~~~~\n" + "more " * 60, 320)
    assert made[0].startswith("=====\nTitle\n=====\n\ntext")
    assert made[1].startswith("Next\n~~~~\nmore")


def test_a_fenced_block_is_one_paragraph_and_its_comments_are_no_headings():
    code = "```python\n# not a heading\n\nx = 1\n\n# nor this\ny = 2\n```"
    made = chunks("before " * 25 + "\n\n" + code + "\n\n" + "after " * 25, 200)
    assert code in made


def test_long_text_is_cut_after_sentences_then_between_words_then_anywhere():
    made = chunks("This is a sentence of words. " * 40, 200)
    assert all(one.endswith(".") for one in made)
    made = chunks("word " * 200, 99)
    assert all(set(one.split()) == {"word"} for one in made)
    assert [len(one) for one in chunks("x" * 250, 100)] == [100, 100, 50]


def test_what_a_reader_sees_as_one_character_is_not_divided():
    for sign in ("e\u0301", "👩\u200d💻", "👍🏽", "க்"):
        made = chunks(sign * 60, 31)
        assert all(len(one) % len(sign) == 0 for one in made), sign
        assert "".join(made) == sign * 60


@pytest.mark.parametrize(("size", "overlap"), [(15, 0), (0, 0), (-1, 0), (100, -1), (100, 51)])
def test_sizes_that_make_no_sense_are_refused(size, overlap):
    with pytest.raises(InvalidInputError):
        chunks("text", size, overlap)


def test_a_long_text_takes_linear_time():
    assert len(chunks("x" * 1_000_000)) == 1250
    assert len(chunks("a b. " * 200_000)) > 1000
    assert len(chunks("#\n" * 200_000)) > 400


@given(st.lists(st.sampled_from(["a", "b", "c", "a\ud800"]), max_size=12))
def test_ids_are_unique_and_follow_the_text_not_the_place(made):
    ids = chunk_ids(made)
    assert len(set(ids)) == len(ids)
    assert all(check_id(one, "id") for one in ids)
    assert chunk_ids([*made, "new"])[: len(made)] == ids
    assert chunk_ids(["new", *made])[1:] == ids


def test_chunks_of_a_document():
    document = Document("guide.md", "# A\n\n" + "same words. " * 10 + "\n\n# B\n\n" + "other words. " * 10)
    first, second = document_chunks(document, 140)
    assert (first.document, first.position, second.position) == ("guide.md", 0, 1)
    assert first.vector is None
    assert "same words" not in repr(document)
    code = (
        "from vectoracl.text.chunking import *;"
        f"print([c.id for c in document_chunks(Document('guide.md', {document.text!r}), 140)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "99"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == repr([first.id, second.id])


# Reading files.


@pytest.fixture
def docs(tmp_path):
    root = tmp_path / "docs"
    (root / "guide").mkdir(parents=True)
    (root / "index.md").write_text("\ufeff# Index\n", encoding="utf-8")
    (root / "guide" / "a.rst").write_text("Title\n=====\n")
    (root / "page.html").write_text("<title>no</title><h1>Page</h1><script>evil()</script><p>One <b>two</b>&amp;three")
    (root / "code.py").write_text('"""Module text."""\nraise SystemExit("it ran")\ndef f():\n    """F text."""\n')
    return root


def read(*paths, **options):
    skipped = []
    found = list(documents(paths, report=skipped.append, **options))
    return {one.name: one.text for one in found}, {one.name: one.reason for one in skipped}


def test_a_folder_is_read_by_kind(docs):
    found, skipped = read(docs)
    assert list(found) == ["docs/code.py", "docs/guide/a.rst", "docs/index.md", "docs/page.html"]
    assert found["docs/index.md"] == "# Index\n"
    assert found["docs/page.html"] == "# Page\n\nOne two&three"
    assert found["docs/code.py"] == "# docs/code.py\n\nModule text.\n\n## f\n\nF text."
    assert skipped == {}


def test_names_do_not_depend_on_where_it_runs(docs, monkeypatch):
    whole, _ = read(docs)
    monkeypatch.chdir(docs)
    assert read(".")[0] == whole
    monkeypatch.chdir(docs / "guide")
    assert read("..")[0] == whole
    assert list(read("a.rst", docs / "index.md")[0]) == ["a.rst", "index.md"]


def test_what_cannot_be_read_is_reported(docs):
    (docs / "image.png").write_bytes(b"\x89PNG")
    (docs / "binary.txt").write_bytes(b"a\0b")
    (docs / "latin.txt").write_bytes("é".encode("latin-1"))
    (docs / "large.txt").write_text("x" * 2001)
    (docs / "exact.txt").write_text("x" * 2000)
    (docs / "blank.txt").write_text(" \n")
    (docs / "broken.py").write_text("def (")
    (docs / "nul.py").write_bytes(b"'a'\0")
    (docs / "empty.py").write_text("x = 1\n")
    (docs / "bad\u200bname.txt").write_text("text")
    (docs / ".hidden.md").write_text("text")
    (docs / ".git").mkdir()
    (docs / ".git" / "secret.md").write_text("text")
    os.mkfifo(docs / "pipe.txt")
    found, skipped = read(docs, max_bytes=2000)
    assert sorted(found) == ["docs/code.py", "docs/exact.txt", "docs/guide/a.rst", "docs/index.md", "docs/page.html"]
    assert skipped == {
        "docs/image.png": "is not a text of a known kind",
        "docs/binary.txt": "is binary",
        "docs/latin.txt": "is not UTF-8",
        "docs/large.txt": "is larger than 2000 bytes",
        "docs/blank.txt": "contains no text",
        "docs/broken.py": "It cannot be parsed as Python (SyntaxError).",
        "docs/nul.py": "is binary",
        "docs/empty.py": "contains no text",
        "'docs/bad\\u200bname.txt'": skipped["'docs/bad\\u200bname.txt'"],
        "docs/.hidden.md": "is hidden",
        "docs/.git": "is hidden",
        "docs/pipe.txt": "is not a regular file",
    }
    assert "cannot be a document id" in skipped["'docs/bad\\u200bname.txt'"]


def test_unreadable_files_are_reported(docs, monkeypatch):
    from pathlib import Path

    real = Path.open

    def refuse(self, *args, **kwargs):
        if self.name == "index.md":
            raise PermissionError(13, "no")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    found, skipped = read(docs)
    assert skipped == {"docs/index.md": "cannot be read (PermissionError)"}
    assert len(found) == 3


def test_links_out_of_the_folder_are_not_followed(docs, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.md").write_text("secret")
    (docs / "out.md").symlink_to(tmp_path / "outside" / "secret.md")
    (docs / "relative.md").symlink_to("../outside/secret.md")
    (docs / "folder").symlink_to(tmp_path / "outside", target_is_directory=True)
    (docs / "nowhere.md").symlink_to("absent.md")
    (docs / "loop.md").symlink_to("loop.md")
    (docs / "twice.md").symlink_to("index.md")
    (docs / ".store").mkdir()
    (docs / ".store" / "real.md").write_text("inside")
    (docs / "inside.md").symlink_to(".store/real.md")
    found, skipped = read(docs)
    assert "secret" not in found.values()
    assert found["docs/inside.md"] == "inside"
    assert "docs/index.md" in found or "docs/twice.md" in found
    assert len([one for one in found.values() if one == "# Index\n"]) == 1
    assert skipped["docs/out.md"] == skipped["docs/relative.md"] == "is a link that leads out of the folder"
    assert skipped["docs/folder"] == "is a linked folder"
    assert skipped["docs/nowhere.md"] == skipped["docs/loop.md"] == "is a broken link"


def test_missing_paths_and_two_of_one_name_are_refused_before_anything_is_read(docs, tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist"):
        documents([docs, tmp_path / "absent"])
    other = tmp_path / "other" / "docs"
    other.mkdir(parents=True)
    (other / "index.md").write_text("another index")
    with pytest.raises(InvalidInputError, match="Two files"):
        documents([docs, other])
    assert len(read(docs, docs, docs / "index.md")[0]) == 4


def test_html():
    page = (
        "<html><head><title>T</title><style>p{}</style></head><body><nav>menu</nav><h2>Head<br>line</h2>"
        "<p>a\n   b</p><ul><li>x<li>y</ul><pre>  keep\n   this</pre><template>no</template>"
        "<table><tr><td>1<td>2</table><svg><text>no</text></svg>&lt;end&gt;"
    )
    assert html_text(page) == "## Head\nline\n\na b\n\nx\n\ny\n\n  keep\n   this\n\n 1 2\n\n<end>"


@given(st.text(alphabet="<>/!-ahpre &#x0;'\"\n", max_size=60))
def test_broken_html_is_read_as_far_as_it_goes(source):
    assert isinstance(html_text(source), str)


def test_docstrings_are_named_and_nested_functions_left_out():
    source = (
        '"""M."""\nclass A:\n    """C."""\n'
        '    async def b(self):\n        """B\n        two."""\n        def c(): "no"\n'
    )
    assert docstrings(source, "m") == "# m\n\nM.\n\n## A\n\nC.\n\n### A.b\n\nB\ntwo."
    assert docstrings('def f():\n    "a\\udc80b\\0c"', "m") == "## f\n\nabc"
    assert docstrings('"""bad \\d escape"""', "m").endswith("escape")
    with pytest.raises(InvalidInputError):
        docstrings("(" * 5000, "m")
