"""Embedders: text to vectors. The default one is stateless; all others are called only through `embed_checked`."""

from __future__ import annotations

import contextvars
import hashlib
import importlib
import inspect
import math
import re
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from queue import Empty, SimpleQueue
from typing import Any, Literal, Protocol, assert_never, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vectoracl._util.import_path import import_path
from vectoracl.errors import ConfigError, InvalidInputError, StoreError, without_context
from vectoracl.text.minilm import MiniLM

Vectors = NDArray[np.float32]
Kind = Literal["document", "query"]
KEY = "[embedder] use"
DEFAULT_DIMENSION = 384
MAX_DIMENSION = 65_536
BATCH = 64


@runtime_checkable
class Embedder(Protocol):
    """The protocol of an embedder: texts to vectors of `dimension` numbers, one row per text.

    `name` is the embedder's identity, with the dimension and every parameter that changes a vector: scores of two
    stores are comparable only if the names of their embedders are equal. An optional attribute `identity` (a str)
    takes precedence: it survives the renaming of a class or module, and can state more than the name (the revision of a
    model, whether its vectors are normalised).
    """

    name: str
    dimension: int

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return an array of shape (len(texts), dimension) for texts that are stored."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return an array of shape (len(texts), dimension) for query texts."""
        ...


MAX_IDENTITY = 500


def identity_of(embedder: Any) -> str:
    """Return the identity of *embedder*: its attribute `identity`, else its name.

    Raises: ConfigError unless it is a str of 1 to 500 characters on one line.
    """
    declared = getattr(embedder, "identity", None)
    identity = embedder.name if declared is None else declared
    if not isinstance(identity, str) or not 1 <= len(identity) <= MAX_IDENTITY or not identity.isprintable():
        raise ConfigError(f"An embedder's identity must be a str of 1 to {MAX_IDENTITY} characters on one line.")
    return str(identity)


# Function words carry no subject. The list is a constant: frequencies counted over stored texts would be better
# weights, but would also reveal the words of other tenants to each tenant.
_FUNCTION_WORD_LIST = """
a about above after again all also am an and any are as at be because been before being below between both but by can
cannot could did do does doing don down during e each eg either else etc ever every few for from further g get had has
have having he her here hers him his how however i ie if in into is it its itself just let ll make makes many may me
might more most much must my neither no nor not now of off on once one only or other others our out over own per
please re s same see shall she should since so some such t than that the their them then there these they this those
though through thus to too two under until up upon us use used using ve very via was we were what when where whether
which while who whom whose why will with within without would yet you your
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORD_LIST.split())
# A run of letters and digits is a word. Scripts without blanks between words are split into pairs of characters.
_WORD = re.compile(r"[^\W_]+")
_DENSE = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_VOWEL = re.compile(r"[aeiouy]")
_DIACRITICS = re.compile(r"[\u0300-\u036f]+")
_LONGEST_WORD = 64
_CACHE_BYTES = 32 << 20
# The number of words that are summed in float32 at a time: |entry| < 1,200 and factor <= 48, so every partial sum stays
# below 2**24, where float32 holds each integer exactly and the order of a sum does not matter.
_BLOCK = 256
_NOTHING = "\0nothing"


class HashedEmbedder:
    """The default embedder: hashed words and character n-grams under a fixed random projection, without a model.

    Each word is a pseudo-random vector of signs (bits of SHAKE128 of its stem) plus the vectors of its 4-grams, so
    that "install" and "installation" are near each other. A text is the sum of its words, each weighted by
    1 + ln(count) / 2, with lower weights for function words and very short words; rows are float32 of length 1. This
    is a random projection with signs (Achlioptas, "Database-friendly random projections", 2003) of a bag of words: it
    finds texts by shared words, not by meaning.

    It is not a channel between tenants: nothing is fitted, so a vector depends on its text and on constants only, and
    not on stored texts (as with document frequencies, TF-IDF or SVD). The cache of words holds values of the same
    function; it can change the duration of a call, never its result.

    The same text yields the same bits on every platform, in every process and batch: all sums are integer sums, and
    only the last division rounds. (Words with characters that are newer than the interpreter's Unicode tables may
    differ between versions of Python.)

    A text without a letter or digit is embedded by its signs ("=>"), and an empty or blank text as a fixed vector that
    is not close to any other: a zero vector has no cosine, and stores refuse it.

    Raises: InvalidInputError if *dimension* is not from 8 to 65,536.
    """

    def __init__(self, dimension: int = DEFAULT_DIMENSION, *, seed: int = 0) -> None:
        if not 8 <= dimension <= MAX_DIMENSION:
            raise InvalidInputError(
                f"The hashed embedder's dimension must be from 8 to {MAX_DIMENSION}.", field="dimension"
            )
        self.dimension = dimension
        self.name = f"hashed-v1:{dimension}" if seed == 0 else f"hashed-v1:{dimension}:seed={seed}"
        self._salt = b"vectoracl/hashed-v1/%d/" % seed
        slots = max(256, _CACHE_BYTES // (2 * dimension))
        self._row: Callable[[str], NDArray[np.int16]] = lru_cache(maxsize=slots)(self._make_row)

    def __repr__(self) -> str:
        return f"HashedEmbedder({self.name!r})"

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return one row of length 1 for each of *texts*."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        sums = np.stack([self._sum(text) for text in texts])
        # Squares of 23 bits times 2**16 numbers fit into int64, so the squared length is exact.
        peaks = np.abs(sums).max(axis=1)
        for index in np.flatnonzero(peaks >> 23):
            sums[index] >>= int(peaks[index]).bit_length() - 23
        lengths = np.sqrt((sums * sums).sum(axis=1).astype(np.float64))
        vectors: Vectors = (sums / lengths[:, None]).astype(np.float32)
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one row of length 1 for each of *texts*, as for documents."""
        return self.embed_documents(texts)

    def _sum(self, text: str) -> NDArray[np.int64]:
        """Return the unscaled vector of *text*; never zero."""
        counts = Counter(_words(text))
        rows = [self._row(word) for word in counts]
        factors = np.array([_factor(count) for count in counts.values()], np.float32)
        total = np.zeros(self.dimension, np.int64)
        for start in range(0, len(rows), _BLOCK):
            block = np.concatenate(rows[start : start + _BLOCK]).reshape(-1, self.dimension).astype(np.float32)
            total += (factors[start : start + _BLOCK] @ block).astype(np.int64)
        return total if total.any() else _signs(self._bits(_NOTHING)).astype(np.int64)

    def _make_row(self, word: str) -> NDArray[np.int16]:
        """Return the weighted vector of one word with its n-grams; its numbers are below 1,200."""
        padded = f"<{word}>"
        grams = ["\0" + padded[at : at + 4] for at in range(len(padded) - 3)] if len(word) > 2 else []
        bits = self._bits(_stem(word), *grams)
        row = _signs(bits[:1]) * 16
        if grams:
            row += _signs(bits[1:]) * max(1, round(12 / math.sqrt(len(grams))))
        row *= _weight(word)
        return row

    def _bits(self, *features: str) -> NDArray[np.uint8]:
        """Return a row of pseudo-random bits for each feature, always the same."""
        size = (self.dimension + 7) // 8
        raw = b"".join(
            hashlib.shake_128(self._salt + one.encode("utf-8", "surrogatepass")).digest(size) for one in features
        )
        return np.unpackbits(np.frombuffer(raw, np.uint8).reshape(-1, size), axis=1, count=self.dimension)


def _signs(bits: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return the sum of the rows of *bits*, each 1 counting +1 and each 0 counting -1."""
    ones: NDArray[np.int16] = bits.sum(axis=0, dtype=np.int16)
    return ones * np.int16(2) - np.int16(len(bits))


def _words(text: str) -> list[str]:
    """Return the folded words of *text*, or its signs if it has no words."""
    if text.isascii():
        folded = text.lower()
        words = _WORD.findall(folded)
    else:
        # Without diacritics "café" is "cafe", in composed or decomposed form; then syllables are composed again.
        folded = unicodedata.normalize("NFKD", text.casefold())
        folded = unicodedata.normalize("NFC", _DIACRITICS.sub("", folded))
        words = _WORD.findall(_DENSE.sub(_pairs, folded))
    return [word[:_LONGEST_WORD] for word in words] or folded.split()


def _pairs(run: re.Match[str]) -> str:
    """Return a run of a script without blanks as overlapping pairs of characters."""
    chars = run.group()
    return f" {chars} " if len(chars) < 3 else " ".join(["", *(chars[at : at + 2] for at in range(len(chars) - 1)), ""])


def _stem(word: str) -> str:
    """Return an English word without its most common endings (s, ed, ing, e), so that "names" and "naming" are equal.

    It is a constant rule like the list of function words; in other languages it is harmless and of little use.
    """
    if len(word) < 4 or not word.isascii():
        return word
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-3] + "y" if word.endswith("ies") and len(word) > 4 else word[:-1]
    for ending, shortest in (("ing", 3), ("ed", 4)):
        root = word.removesuffix(ending)
        if root != word and len(root) >= shortest and _VOWEL.search(root) and not word.endswith("eed"):
            doubled = root[-1] == root[-2] and root[-1] not in "aeioulsz"
            word = root[:-1] if doubled else root
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _weight(word: str) -> int:
    """Return the weight of a word, from 1 to 8. Short words are frequent ones (Zipf's law of abbreviation)."""
    if word in FUNCTION_WORDS:
        return 1
    return min(8, len(word) + 2) if word.isascii() else 8


@lru_cache(maxsize=1024)
def _factor(count: int) -> int:
    """Return 4 (1 + ln(count) / 2), rounded: a repeated word adds little."""
    return min(48, round(4 * (1 + math.log(count) / 2)))


class CallableEmbedder:
    """An embedder of the application, named by an import path: a class, an object or a function.

    A class is called without arguments. An object has `embed_documents(texts)` and `embed_queries(texts)`, or
    `embed_query(text)` for one text. A function takes a list of texts and embeds documents and queries alike. The
    object's `identity` identifies the embedder (see `Embedder`), else its import path and dimension. *dimension* is
    required only if the object has no `dimension`; without either, one word is embedded to determine it.

    Raises: ConfigError if *target* is none of these or has another dimension; StoreError if it fails.
    """

    def __init__(self, target: Any, *, path: str, dimension: int | None = None) -> None:
        if inspect.isclass(target):
            target = _foreign(target, f"The embedder's class in {KEY}")
        documents = getattr(target, "embed_documents", None)
        if documents is None:
            documents = queries = target
        else:
            queries = getattr(target, "embed_queries", None) or _one_by_one(getattr(target, "embed_query", None))
        for one in (documents, queries):
            if not callable(one):
                raise ConfigError(f"{KEY} must name a function, or an object with embed_documents and embed_queries.")
            if inspect.iscoroutinefunction(one):
                raise ConfigError(f"{KEY} names a coroutine function; an embedder must be synchronous.")
        self._documents: Callable[[list[str]], Any] = documents
        self._queries: Callable[[list[str]], Any] = queries
        own = getattr(target, "dimension", None)
        if not isinstance(own, int) or isinstance(own, bool):
            own = None
        actual_dimension = dimension if own is None else own
        if actual_dimension is None:
            actual_dimension = _array(_foreign(lambda: self._queries(["dimension"]), "The embedder"), 1, None).shape[1]
        if dimension is not None and actual_dimension != dimension:
            raise ConfigError(f"[embedder] dimension is {dimension}, but the embedder of {KEY} has {actual_dimension}.")
        self.dimension: int = actual_dimension
        label = getattr(target, "name", None)
        self.name = (
            f"{path}:{label}:{actual_dimension}" if isinstance(label, str) and label else f"{path}:{actual_dimension}"
        )
        self.identity: str | None = getattr(target, "identity", None)

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return one row for each of *texts*."""
        output = _foreign(lambda: self._documents(list(texts)), f"The embedder {self.name!r}")
        return _array(output, len(texts), self.dimension)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one row for each of *texts*."""
        output = _foreign(lambda: self._queries(list(texts)), f"The embedder {self.name!r}")
        return _array(output, len(texts), self.dimension)


def _one_by_one(embed: Any) -> Any:
    return (lambda texts: [embed(text) for text in texts]) if callable(embed) else None


class FastEmbedder:
    """A model that fastembed runs on this machine. It is loaded, and the first time downloaded, at its first use.

    Raises: ConfigError if fastembed is not installed, does not know *model*, or it has another *dimension*.
    """

    @without_context
    def __init__(self, model: str, *, dimension: int | None = None) -> None:
        try:
            self._class: Any = importlib.import_module("fastembed").TextEmbedding
        except (ImportError, AttributeError):
            raise ConfigError(
                f'{KEY} = "fastembed:…" requires a package that is not installed: pip install "fastembed>=0.7"'
            ) from None
        known = {str(one["model"]).lower(): one for one in self._class.list_supported_models()}
        if model.lower() not in known:
            raise ConfigError(
                f"{KEY} names a model that fastembed does not know. `python -c 'import fastembed as f; "
                f'print(*(m["model"] for m in f.TextEmbedding.list_supported_models()), sep="\\n")\'` lists them.'
            )
        self._model = str(known[model.lower()]["model"])
        self.dimension = int(known[model.lower()]["dim"])
        if dimension not in (None, self.dimension):
            raise ConfigError(f"[embedder] dimension is {dimension}, but the model's dimension is {self.dimension}.")
        self.name = f"fastembed:{self._model}:{self.dimension}"
        self._lock = threading.Lock()
        self._loaded: Any = None

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return one row for each of *texts*, embedded as passages."""
        model = self._load()
        output = _foreign(lambda: list(model.passage_embed(list(texts))), f"The embedder {self.name!r}")
        return _array(output, len(texts), self.dimension)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one row for each of *texts*, embedded as queries."""
        model = self._load()
        output = _foreign(lambda: list(model.query_embed(list(texts))), f"The embedder {self.name!r}")
        return _array(output, len(texts), self.dimension)

    @without_context
    def _load(self) -> Any:
        with self._lock:
            if self._loaded is None:
                try:
                    self._loaded = self._class(model_name=self._model)
                except Exception as error:  # noqa: BLE001 - of the hub, the runtime and the file system
                    raise StoreError(
                        f"The model {self._model!r} could not be loaded ({type(error).__name__}); nothing was sent. "
                        "It is downloaded at its first use. Without a network: run it once on a machine that reaches "
                        "the model hub, copy the folder, set FASTEMBED_CACHE_PATH to it and HF_HUB_OFFLINE=1. Or use "
                        '[embedder] use = "hashed", which needs no model.',
                        code="embedder",
                        sent="no",
                        retryable=True,
                    ) from None
            return self._loaded


def open_embedder(spec: str, *, dimension: int | None = None, allow_import: bool = False) -> Embedder:
    """Return the embedder that `[embedder]` names.

    *spec* is "hashed", "hashed:256", "minilm", "fastembed:MODEL", or with *allow_import* "package.module:attribute".

    Raises: ConfigError with the remedy; StoreError if an embedder of the application fails when it is opened.
    """
    kind, _, rest = spec.partition(":")
    if kind == "hashed":
        return HashedEmbedder(_hashed_dimension(spec, rest, dimension))
    if kind == "fastembed" and rest:
        return FastEmbedder(rest, dimension=dimension)
    if spec == "minilm":
        return CallableEmbedder(MiniLM(), path=spec, dimension=dimension)
    if kind == "fastembed" or not rest:
        raise ConfigError(
            f'{KEY} must be "hashed", "hashed:256", "minilm", "fastembed:MODEL" or "package.module:attribute".'
        )
    if not allow_import:
        raise ConfigError(
            f"{KEY} is an import path, which runs code. If you trust it, set allow_import = true under [embedder]."
        )
    return CallableEmbedder(import_path(spec, KEY), path=spec, dimension=dimension)


def _hashed_dimension(spec: str, rest: str, dimension: int | None) -> int:
    if ":" not in spec:
        actual_dimension = DEFAULT_DIMENSION if dimension is None else dimension
    elif rest.isascii() and rest.isdigit() and len(rest) <= 5:
        actual_dimension = int(rest)
    else:
        raise ConfigError(f'{KEY} = "hashed:N" requires a whole number for N.')
    if dimension not in (None, actual_dimension):
        raise ConfigError(f"[embedder] dimension is {dimension}, but {KEY} has {actual_dimension}. Omit one of them.")
    if not 8 <= actual_dimension <= MAX_DIMENSION:
        raise ConfigError(f"The hashed embedder's dimension must be from 8 to {MAX_DIMENSION}.")
    return actual_dimension


def embed_checked(
    embedder: Embedder,
    texts: Sequence[str],
    kind: Kind,
    *,
    batch: int = BATCH,
    limit: float | None = None,
    within: float | None = None,
) -> Vectors:
    """Embed *texts* in batches and return a new float32 array of shape (len(texts), dimension), all finite.

    *limit* is in seconds for each batch, *within* for all of them. With a limit, an embedder other than the default is
    called in a thread, which cannot be killed: if it is late, it continues there, and its result is dropped.

    Raises: StoreError with the code "timeout" if *within* is exceeded, and with the code "embedder" if *limit* is
    exceeded, or if the embedder raises or returns something invalid; `sent` is "no". It quotes neither a text nor the
    embedder's message, which may quote one.
    """
    match kind:
        case "document":
            embed = embedder.embed_documents
        case "query":
            embed = embedder.embed_queries
        case _:
            assert_never(kind)
    subject = f"The embedder {embedder.name!r}"
    vectors = np.empty((len(texts), embedder.dimension), np.float32)
    deadline = None if within is None else time.monotonic() + within
    for start in range(0, len(texts), batch):
        part = list(texts[start : start + batch])
        time_left = None if deadline is None else deadline - time.monotonic()
        output = _called(embedder, partial(_foreign, partial(embed, part), subject), limit, time_left)
        if output is _LATE:
            if time_left is not None and (limit is None or time_left <= limit):
                raise StoreError(
                    "The time limit was reached while texts were being embedded; nothing was sent.",
                    code="timeout",
                    sent="no",
                )
            raise _failed(
                f"{subject} did not embed {len(part)} texts within {limit:g} s. Increase [embedder] timeout, or find "
                "out why it hangs"
            )
        vectors[start : start + len(part)] = _array(output, len(part), embedder.dimension)
    return vectors


_LATE: Any = object()


def _called(embedder: Embedder, call: Callable[[], Any], limit: float | None, left: float | None) -> Any:
    """Return the result of *call*, or _LATE if it takes longer than *limit* or than the time *left*."""
    most = min((one for one in (limit, left) if one is not None), default=None)
    if most is not None and most <= 0:
        return _LATE
    if most is None or type(embedder) is HashedEmbedder:
        return call()
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def answer() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            answers.put((None, error))

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(answer,), name="vectoracl-embedder", daemon=True).start()
    try:
        result, error = answers.get(timeout=most)
    except Empty:
        return _LATE
    if error is not None:
        raise error
    return result


@without_context
def _foreign(call: Callable[[], Any], subject: str) -> Any:
    """Call code of the application. Raises: StoreError that does not quote the application's exception."""
    try:
        result = call()
        return list(result) if isinstance(result, Iterator) else result
    except Exception as error:
        if isinstance(error, StoreError) and error.code == "embedder":
            raise
        raise _failed(f"{subject} failed ({type(error).__name__})") from None


@without_context
def _array(made: Any, rows: int, dimension: int | None) -> Vectors:
    """Return *made* as float32 of shape (rows, dimension). Raises: StoreError if it is anything else."""
    if inspect.iscoroutine(made):
        made.close()
        raise _failed("The embedder returned a coroutine; it must be synchronous")
    try:
        array = np.asarray(made)
    except Exception as error:  # noqa: BLE001 - ragged lists, and arrays of other libraries that cannot be converted
        raise _failed(f"The embedder did not return an array ({type(error).__name__})") from None
    if array.dtype.kind not in "fiu" or (array.ndim == 1 and rows > 0):
        raise _failed("The embedder did not return one row of numbers per text")
    if rows == 0 and array.size == 0:
        return np.empty((0, dimension or 0), np.float32)
    if array.ndim != 2 or array.shape[0] != rows or array.shape[1] != (dimension or array.shape[1]):
        shape = " x ".join(str(one) for one in array.shape)
        expected_shape = f"{rows} x {dimension or 'its dimension'}"
        raise _failed(f"The embedder returned an array of {shape} numbers; {expected_shape} was expected")
    with np.errstate(over="ignore"):
        vectors = array.astype(np.float32, copy=False)
    if not np.isfinite(vectors).all():
        raise _failed("The embedder returned a number that is not finite")
    return vectors


def _failed(what: str) -> StoreError:
    return StoreError(f"{what}; nothing was sent.", code="embedder", sent="no")
