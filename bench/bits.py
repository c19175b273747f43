"""The recall of searches by bits on embeddings of real texts: `python bench/bits.py [hashed minilm …] [--texts N]`.

The texts are the paragraphs of the documentation strings of Python's standard library, which every Python has, in one
tenant of an embedded PostgreSQL. The questions are other paragraphs. Compared are the ten hits of a search and those of
`exact=True`, as it is and with fixed numbers of candidates that never widen.
"""

from __future__ import annotations

# ruff: noqa: E402 - the suite's folder has to be on the path first
import argparse
import ast
import random
import sys
import sysconfig
from pathlib import Path
from unittest import mock

sys.path[0] = str(Path(__file__).resolve().parent / "suite")

import numpy as np
import server

import vectoracl
from vectoracl import Chunk, testing
from vectoracl.client.connect import VectorACL
from vectoracl.text.embedders import open_embedder
from vectoracl_pgvector import ranking, vector_search

K = 10
QUESTIONS = 100
WHO = testing.principal("bench", "python")


def texts(most: int) -> list[str]:
    """Return different paragraphs of 60 to 400 characters, shuffled."""
    found = set()
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if "site-packages" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                    flat = " ".join(paragraph.split())
                    if 60 <= len(flat) <= 400 and flat.count(" ") > 8:
                        found.add(flat)
    some = sorted(found)
    random.Random(4).shuffle(some)
    return some[:most]


def embedded(spec: str, some: list[str]) -> np.ndarray:
    model = open_embedder(spec)
    return np.vstack([model.embed_documents(some[start : start + 64]) for start in range(0, len(some), 64)])


def measure(one, spec: str, some: list[str], vectors: np.ndarray) -> None:
    """Print one row for each number of candidates, and one for what the adapter does."""
    database = server.bare(one, "bits_" + "".join(letter for letter in spec if letter.isalnum()))
    config = database.config(dimension=vectors.shape[1], metadata={}, bits=True, exact_rows=100)
    with VectorACL(config) as acl:
        operator = acl.operator()
        operator.provision()
        operator.close()
    questions, stored = vectors[:QUESTIONS], vectors[QUESTIONS:]
    with vectoracl.connect(config) as acl:
        docs = acl.scoped(WHO)
        docs.load([Chunk(f"c{i}", f"d{i // 20}", some[QUESTIONS + i], row) for i, row in enumerate(stored)])
        truth = [{hit.id for hit in docs.search(question, K, exact=True)} for question in questions]

    def found(count: int, *, widens: bool) -> str:
        sent = 0
        ranks = vector_search.reaches_far

        def far(rows):
            nonlocal sent
            wide = widens and ranks(rows)
            sent += wide
            return wide

        with mock.patch.object(ranking.Memory, "base", return_value=count), \
             mock.patch.object(vector_search, "reaches_far", far), vectoracl.connect(config) as acl:  # fmt: skip
            docs = acl.scoped(WHO)
            hits = [{hit.id for hit in docs.search(question, K)} for question in questions]
        share = np.mean([len(one & right) / K for one, right in zip(hits, truth, strict=True)])
        return f"{share:.3f}" + (f" ({sent / len(questions):.2f} widened)" if widens else "")

    cells = [found(count, widens=False) for count in (100, 200, 400, 800)] + [found(ranking.CANDIDATES, widens=True)]
    print(f"| {spec} | {vectors.shape[1]} | {len(stored):,} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("embedders", nargs="*", default=["hashed"])
    parser.add_argument("--texts", type=int, default=20_000)
    given = parser.parse_args()
    print(
        "| embedder | dimensions | chunks | 100 | 200 | 400 | 800 | 400, widened |\n|---|---|---|---|---|---|---|---|"
    )
    with server.server() as one:
        for spec in given.embedders:
            some = texts(given.texts)
            measure(one, spec, some, embedded(spec, some))


if __name__ == "__main__":
    main()
