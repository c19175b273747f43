"""How well each embedder finds the chunk that answers a question: `python bench/retrieval.py [hashed minilm …]`.

The texts are those of `pydoc_data.topics`, which comes with Python: the reference of the language, in one tenant of a
memory store, with chunks of the default size. A chunk answers a question if it holds the words that the question is
listed with; a question whose words are in no chunk (of another version of Python) is left out, and told.

recall@k is the share of the questions with an answer among the first k chunks, MRR the mean of one by the place of the
first answer among ten. Nothing is approximate here: the store compares every vector.
"""

from __future__ import annotations

import platform
import re
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pydoc_data.topics import topics

from retrieval_questions import OTHER, SAME

import vectoracl
from vectoracl import Hybrid, Lexical, Principal
from vectoracl.text.chunking import Document, document_chunks
from vectoracl.text.embedders import open_embedder

WHO = Principal("bench", "python", authenticated_by="bench")
K = 10
MODES = {"vector": str, "words": Lexical, "both": Hybrid}


def flat(text: str) -> str:
    return " ".join(text.split())


def corpus() -> list:
    """Return the chunks; what a longer topic holds already is left out."""
    seen: set[str] = set()
    chunks = []
    for name, text in sorted(topics.items(), key=lambda one: (-len(one[1]), one[0])):
        lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 30]
        if sum(line not in seen for line in lines) * 2 >= len(lines):
            seen.update(lines)
            chunks += document_chunks(Document(name, text))
    return chunks


def answers(chunks: list, words: str) -> set[tuple[str, str]]:
    """Return the chunks that hold one of the alternatives in *words*, which `|` keeps apart."""
    wanted = [re.compile(re.escape(flat(one)), re.IGNORECASE) for one in words.split("|")]
    return {(one.document, one.id) for one in chunks if any(find.search(flat(one.text)) for find in wanted)}


def places(docs, questions, query) -> list[int | None]:
    """Return for each question the place of its first answer, from 1; None where it is not among the first ten."""
    found = []
    for question, right in questions:
        hits = docs.search(query(question), K)
        found.append(next((n for n, hit in enumerate(hits, 1) if (hit.document, hit.id) in right), None))
    return found


def scores(found: list[int | None]) -> tuple[float, float, float]:
    """Return recall@1, recall@5 and MRR."""
    return (
        sum(one == 1 for one in found) / len(found),
        sum(one is not None and one <= 5 for one in found) / len(found),
        sum(1 / one for one in found if one is not None) / len(found),
    )


def main(embedders: list[str]) -> None:
    chunks = corpus()
    kinds = {}
    for kind, questions in (("same words", SAME), ("other words", OTHER)):
        kept = [(question, answers(chunks, words)) for question, words in questions]
        for question, right in kept:
            if not right:
                print(f"left out, its answer is not in this Python's reference: {question}")
        kinds[kind] = [one for one in kept if one[1]]
    numbers = {kind: len(questions) for kind, questions in kinds.items()}
    right = sorted(len(one[1]) for questions in kinds.values() for one in questions)
    print(f"Python {platform.python_version()}, {len(chunks):,} chunks, questions: {numbers}; answers to a question: "
          f"{right[len(right) // 2]} in the median, {right[-1]} at the most")  # fmt: skip
    print("| embedder | search | s (processor s) per 1,000 chunks | " + " | ".join(
        f"{kind}: recall@1 | @5 | MRR" for kind in (*kinds, "all")) + " |")  # fmt: skip
    print("|" + "---|" * 12)
    for spec in embedders:
        model = open_embedder(spec)
        model.embed_documents(["it is loaded before the clock starts"])
        start, spent = time.perf_counter(), time.process_time()
        for first in range(0, len(chunks), 64):
            some = chunks[first : first + 64]
            rows = model.embed_documents([chunk.text for chunk in some])
            chunks[first : first + 64] = [replace(one, vector=row) for one, row in zip(some, rows, strict=True)]
        scale = 1_000 / len(chunks)
        pace = f"{(time.perf_counter() - start) * scale:.1f} ({(time.process_time() - spent) * scale:.1f})"
        config = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": model.dimension}},
                  "embedder": {"use": spec}}  # fmt: skip
        with vectoracl.connect(config) as acl:
            docs = acl.scoped(WHO)
            docs.load(chunks)
            for mode, query in MODES.items():
                if mode == "words" and spec != embedders[0]:
                    continue  # no embedder has a part in it
                found = {kind: places(docs, questions, query) for kind, questions in kinds.items()}
                found["all"] = [place for one in found.values() for place in one]
                row = " | ".join(f"{value:.2f}" for one in found.values() for value in scores(one))
                name, took = ("–", "–") if mode == "words" else (spec, pace)
                print(f"| {name} | {mode} | {took} | {row} |", flush=True)
    print(f"numpy {version('numpy')}, {platform.machine()}, {platform.system()}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["hashed", "minilm"])
