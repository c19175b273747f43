import hashlib
import os
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectoracl.cli.demo.corpus import installed_corpus
from vectoracl.errors import ConfigError, InvalidInputError, StoreError
from vectoracl.text.chunking import document_chunks
from vectoracl.text.embedders import (
    CallableEmbedder,
    Embedder,
    FastEmbedder,
    HashedEmbedder,
    embed_checked,
    open_embedder,
)

SECRET = "the merger closes on friday"
TEXTS = ["How to install the package", "naïve café, Straße", "=> ::", "", "検索拡張生成", "a" * 5000, "word " * 3000]
# Pinned: a change of these bits is a new embedder and needs a new name.
DIGEST = "91d89423123c68e5c29d40a6147b3f94"


def digest(vectors):
    return hashlib.blake2b(np.ascontiguousarray(vectors, "<f4").tobytes(), digest_size=16).hexdigest()


EMBEDDER = HashedEmbedder()
any_text = st.text(max_size=300)


@given(st.lists(any_text, max_size=5))
def test_every_text_has_a_row_of_length_one_that_its_batch_does_not_change(texts):
    vectors = EMBEDDER.embed_documents(texts)
    assert vectors.shape == (len(texts), 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, row in zip(texts, vectors, strict=True):
        assert np.array_equal(EMBEDDER.embed_queries([text])[0], row)


@settings(max_examples=30)
@given(any_text, st.lists(any_text, max_size=5), st.integers(8, 700))
def test_no_text_changes_the_vector_of_another(text, others, dimension):
    seen_others = HashedEmbedder(dimension)
    seen_others.embed_documents(others)
    assert np.array_equal(seen_others.embed_queries([text]), HashedEmbedder(dimension).embed_queries([text]))


def test_the_bits_are_pinned_and_do_not_depend_on_the_process():
    assert digest(HashedEmbedder().embed_documents(TEXTS)) == DIGEST
    code = (
        "import hashlib, sys, numpy as np; from vectoracl.text.embedders import HashedEmbedder;"
        f"v = HashedEmbedder().embed_documents({TEXTS!r});"
        "print(hashlib.blake2b(np.ascontiguousarray(v, '<f4').tobytes(), digest_size=16).hexdigest())"
    )
    for seed in ("0", "4242"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "OPENBLAS_NUM_THREADS": seed[:1]}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == DIGEST


def test_a_full_cache_and_many_threads_change_nothing():
    texts = [f"word{one} other{one * 7} shared text" for one in range(400)]
    wanted = HashedEmbedder(8192).embed_documents(texts)
    small = HashedEmbedder(8192)
    assert small._row.cache_parameters()["maxsize"] * 2 * 8192 <= 32 << 20
    results = [None] * 4

    def work(index):
        results[index] = embed_checked(small, texts, "document", batch=16)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert all(np.array_equal(one, wanted) for one in results)


def test_texts_without_words():
    blank, empty, arrow, other = HashedEmbedder().embed_documents([" \n\t", "", "=>", "a text about something"])
    assert np.array_equal(blank, empty)
    assert not np.array_equal(arrow, empty)
    assert abs(float(empty @ other)) < 0.2


def test_words_meet_their_other_forms():
    embed = HashedEmbedder().embed_queries

    def like(a, b):
        return float(embed([a])[0] @ embed([b])[0])

    assert like("Café", "cafe") == pytest.approx(1)
    assert like("cafe\u0301", "caf\u00e9") == pytest.approx(1)
    for a, b in [("install", "installing"), ("names", "naming"), ("queries", "query"), ("install", "installation")]:
        assert like(a, b) > 0.2, (a, b)  # unrelated words are about 0.05 apart from 0
    assert like("検索拡張生成", "拡張生成の検索") > 0.5
    assert like("how to install", "configuration") < 0.2


def test_short_queries_find_the_chunk_that_is_about_them():
    chunks = [
        one.text for corpus in installed_corpus(4, 200) for doc in corpus.documents for one in document_chunks(doc)
    ]
    assert len(chunks) > 300
    embedder = HashedEmbedder()
    stored = embed_checked(embedder, chunks, "document")
    found = asked = 0
    for index in range(0, len(chunks), 7):
        long = [w for w in dict.fromkeys(chunks[index][:250].split()) if w.isalpha() and len(w) > 4]
        rare = sorted(long, key=lambda w: (sum(w.lower() in c.lower() for c in chunks), w))[:3]
        if len(rare) < 3:
            continue
        asked += 1
        scores = stored @ embed_checked(embedder, [" ".join(rare)], "query")[0]
        best = np.argsort(-scores)[:5]
        found += any(all(w.lower() in chunks[at].lower() for w in rare) for at in best)
    assert asked > 30
    assert found / asked > 0.85


@pytest.mark.parametrize("dimension", [0, 7, 65_537])
def test_a_dimension_out_of_range_is_refused(dimension):
    with pytest.raises(InvalidInputError):
        HashedEmbedder(dimension)
    with pytest.raises(ConfigError):
        open_embedder(f"hashed:{dimension}")


def test_names_tell_every_parameter():
    assert HashedEmbedder().name == "hashed-v1:384"
    assert len({HashedEmbedder(d, seed=s).name for d in (64, 128) for s in (0, 1)}) == 4
    a, b = (HashedEmbedder(64, seed=s).embed_queries(["text"]) for s in (0, 1))
    assert not np.array_equal(a, b)
    assert isinstance(HashedEmbedder(), Embedder)


def test_specs():
    assert open_embedder("hashed").dimension == 384
    assert open_embedder("hashed", dimension=64).dimension == 64
    assert open_embedder("hashed:256").dimension == 256
    assert open_embedder("hashed:256", dimension=256).name == "hashed-v1:256"
    bad = ["", "hash", "hashed:", "hashed:x", "hashed:-8", "hashed:²", "fastembed", "fastembed:", "package.module:"]
    for spec in bad:
        with pytest.raises(ConfigError):
            open_embedder(spec, allow_import=True)
    with pytest.raises(ConfigError, match="Omit one"):
        open_embedder("hashed:256", dimension=384)


# An application's own embedder.


def letters(texts):
    return [[len(one), one.count("e"), 1.0] for one in texts]


class Own:
    dimension = 3
    name = "own-v2"

    def embed_documents(self, texts):
        return np.array(letters(texts), np.float64)

    def embed_queries(self, texts):
        return np.array(letters(texts), np.int64) * 2


class LangChainLike:
    def embed_documents(self, texts):
        return letters(texts)

    def embed_query(self, text):
        assert isinstance(text, str)
        return letters([text])[0]


async def coroutine(texts):
    return letters(texts)


@pytest.fixture
def module(monkeypatch):
    made = types.ModuleType("an_application")
    made.letters, made.Own, made.LangChainLike, made.coroutine, made.number = letters, Own, LangChainLike, coroutine, 3
    monkeypatch.setitem(sys.modules, "an_application", made)
    return made


def test_an_import_path_needs_permission(module):
    with pytest.raises(ConfigError, match="allow_import = true"):
        open_embedder("an_application:letters")
    with pytest.raises(ConfigError, match="cannot be imported"):
        open_embedder("an_application:absent", allow_import=True)


@pytest.mark.parametrize("attribute", ["letters", "Own", "LangChainLike"])
def test_functions_classes_and_objects(module, attribute):
    embedder = open_embedder(f"an_application:{attribute}", allow_import=True)
    assert embedder.dimension == 3
    assert embedder.name.endswith(":3")
    made = embed_checked(embedder, ["one", "two", "three"], "document", batch=2)
    assert made.dtype == np.float32
    assert made.tolist() == [[3, 1, 1], [3, 0, 1], [5, 2, 1]]
    factor = 2 if attribute == "Own" else 1
    assert embed_checked(embedder, ["one"], "query").tolist() == [[3 * factor, factor, factor]]
    assert embed_checked(embedder, [], "query").shape == (0, 3)


def test_what_is_no_embedder_is_refused(module):
    for attribute, said in [("number", "must name"), ("coroutine", "synchronous")]:
        with pytest.raises(ConfigError, match=said):
            open_embedder(f"an_application:{attribute}", allow_import=True)
    with pytest.raises(ConfigError, match="dimension is 4"):
        open_embedder("an_application:Own", dimension=4, allow_import=True)


def broken(error):
    def embed(texts):
        raise error

    return embed


@pytest.mark.parametrize(
    "embed",
    [
        broken(RuntimeError(SECRET)),
        broken(UnicodeEncodeError("utf-8", SECRET, 0, 1, SECRET)),
        broken(StopIteration(SECRET)),
        broken(ConfigError(SECRET)),
        lambda texts: None,
        lambda texts: SECRET,
        lambda texts: [SECRET] * len(texts),
        lambda texts: [["1.0", "2.0", "3.0"]] * len(texts),
        lambda texts: [[1.0, 2.0, 3.0]] * (len(texts) + 1),
        lambda texts: [[1.0, 2.0]] * len(texts),
        lambda texts: [[1.0, 2.0, 3.0], [1.0]],
        lambda texts: [1.0, 2.0, 3.0],
        lambda texts: [[1.0, float("nan"), 3.0]] * len(texts),
        lambda texts: [[1.0, 1e300, 3.0]] * len(texts),
        lambda texts: [[True, False, True]] * len(texts),
        lambda texts: np.zeros((len(texts), 3, 1)),
        lambda texts: np.zeros((len(texts), 3), complex),
        lambda texts: [],
        lambda texts: (one for one in [[1.0]]),
        lambda texts: coroutine(texts),
    ],
)
@pytest.mark.parametrize("kind", ["document", "query"])
def test_whatever_goes_wrong_is_one_error_that_quotes_nothing(embed, kind):
    embedder = CallableEmbedder(embed, path="a:b", dimension=3)
    with pytest.raises(StoreError) as caught:
        embed_checked(embedder, [SECRET, "other"], kind)
    error = caught.value
    assert (error.code, error.sent, error.written) == ("embedder", "no", 0)
    assert error.__cause__ is None
    assert SECRET not in str(error)
    assert SECRET not in repr(error)


def test_a_foreign_embedder_behind_the_protocol_is_checked_too():
    class Lying:
        name, dimension = "lying", 3

        def embed_documents(self, texts):
            return np.ones((len(texts), 2), np.float32)

        embed_queries = embed_documents

    with pytest.raises(StoreError, match="was expected"):
        embed_checked(Lying(), ["a"], "query")


def test_an_interrupt_is_not_wrapped():
    with pytest.raises(KeyboardInterrupt):
        embed_checked(CallableEmbedder(broken(KeyboardInterrupt()), path="a:b", dimension=3), ["a"], "query")


def test_generators_are_read_and_the_result_is_a_copy():
    kept = np.ones((2, 3), np.float32)
    made = embed_checked(CallableEmbedder(lambda texts: kept, path="a:b", dimension=3), ["a", "b"], "document")
    kept[:] = 7
    assert made.max() == 1
    lazy = CallableEmbedder(lambda texts: (np.ones(3) for _ in texts), path="a:b")
    assert embed_checked(lazy, ["a", "b"], "query").shape == (2, 3)


@given(st.integers(0, 20), st.integers(1, 7))
def test_batches_are_bounded_and_keep_the_order(count, batch):
    sizes = []

    def embed(texts):
        sizes.append(len(texts))
        return [[float(one), 1.0] for one in texts]

    made = embed_checked(
        CallableEmbedder(embed, path="a:b", dimension=2), [str(one) for one in range(count)], "document", batch=batch
    )
    assert made[:, 0].tolist() == list(range(count))
    assert max(sizes, default=0) <= batch
    assert sum(sizes) == count


# fastembed, without its network.


class FakeTextEmbedding:
    loads = 0
    fails: Exception | None = None

    def __init__(self, model_name):
        if self.fails is not None:
            raise self.fails
        type(self).loads += 1
        self.model_name = model_name

    @classmethod
    def list_supported_models(cls):
        return [{"model": "BAAI/bge-small-en-v1.5", "dim": 4}, {"model": "other/model", "dim": 8}]

    def passage_embed(self, texts, **kwargs):
        yield from (np.full(4, 1.0, np.float32) for _ in texts)

    def query_embed(self, query, **kwargs):
        yield from (np.full(4, 2.0, np.float32) for _ in query)


@pytest.fixture
def fastembed(monkeypatch):
    fake = types.ModuleType("fastembed")
    fake.TextEmbedding = type("TextEmbedding", (FakeTextEmbedding,), {"loads": 0})
    monkeypatch.setitem(sys.modules, "fastembed", fake)
    return fake


def test_fastembed_is_loaded_once_at_its_first_use(fastembed):
    embedder = open_embedder("fastembed:baai/bge-small-en-v1.5")
    assert isinstance(embedder, FastEmbedder)
    assert (embedder.name, embedder.dimension) == ("fastembed:BAAI/bge-small-en-v1.5:4", 4)
    assert fastembed.TextEmbedding.loads == 0
    assert embed_checked(embedder, ["a", "b"], "document").tolist() == [[1.0] * 4] * 2
    assert embed_checked(embedder, ["a"], "query").tolist() == [[2.0] * 4]
    assert fastembed.TextEmbedding.loads == 1


def test_fastembed_refuses_what_it_cannot_know(fastembed):
    with pytest.raises(ConfigError, match="does not know"):
        open_embedder("fastembed:no/such-model")
    with pytest.raises(ConfigError, match="dimension is 5"):
        open_embedder("fastembed:other/model", dimension=5)


def test_fastembed_that_is_not_installed_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastembed", None)
    with pytest.raises(ConfigError, match=r"pip install .fastembed"):
        open_embedder("fastembed:BAAI/bge-small-en-v1.5")


def test_a_model_that_cannot_be_downloaded_says_what_to_do_and_may_be_tried_again(fastembed):
    fastembed.TextEmbedding.fails = OSError(SECRET)
    embedder = open_embedder("fastembed:other/model")
    with pytest.raises(StoreError, match="FASTEMBED_CACHE_PATH") as caught:
        embed_checked(embedder, ["a"], "query")
    assert (caught.value.code, caught.value.sent, caught.value.retryable) == ("embedder", "no", True)
    assert SECRET not in str(caught.value)
    fastembed.TextEmbedding.fails = None
    assert fastembed.TextEmbedding.loads == 0
    with pytest.raises(StoreError, match="1 x 8 was expected"):  # the fake makes 4 numbers
        embed_checked(embedder, ["a"], "query")
    assert fastembed.TextEmbedding.loads == 1
