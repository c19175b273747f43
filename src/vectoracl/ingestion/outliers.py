"""The validator `outliers`: vectors of an odd length, and vectors far from the rest of their document."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from vectoracl.adapter_api.settings import Model
from vectoracl.ingestion.validators import Ingestion, Verdict

Numbers = NDArray[np.float64]


class OutlierOptions(Model):
    """The options of `outliers`.

    `min_norm` and `max_norm` limit the length of every vector. The others compare a vector with the rest of its
    document, if that has at least `min_chunks` chunks in the write: its length with their median (`norm_ratio` times
    longer or shorter is odd; None for any), and the cosine distance to their mean direction (`max_distance`, from 0 to
    2; None for any). `answer` is what happens to an outlier.
    """

    min_norm: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    max_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    norm_ratio: float | None = Field(default=4.0, gt=1, allow_inf_nan=False)
    max_distance: float | None = Field(default=1.2, gt=0, le=2, allow_inf_nan=False)
    min_chunks: int = Field(default=4, ge=3, le=10_000)
    answer: Literal["refuse", "quarantine"] = "refuse"

    @model_validator(mode="before")
    @classmethod
    def _off(cls, given: Any) -> Any:
        """Read `false` as no limit: TOML has no null."""
        if not isinstance(given, dict):
            return given
        switches = ("norm_ratio", "max_distance")
        return {key: None if key in switches and value is False else value for key, value in given.items()}

    @model_validator(mode="after")
    def _order(self) -> OutlierOptions:
        if self.min_norm is not None and self.max_norm is not None and self.min_norm > self.max_norm:
            raise ValueError("min_norm is greater than max_norm")
        limits = (self.min_norm, self.max_norm, self.norm_ratio, self.max_distance)
        if all(one is None for one in limits):
            raise ValueError("outliers needs min_norm, max_norm, norm_ratio or max_distance")
        return self


class Outliers:
    """Looks for vectors that do not fit: by their length, or by their direction among those of the same document.

    Several outliers that agree with each other, and a document of a few chunks, are not noticed by direction.
    """

    def __init__(self, options: OutlierOptions) -> None:
        self._options = options

    def validate(self, ingestion: Ingestion) -> Verdict:
        """Look at the vectors of one document."""
        if not ingestion.chunks:
            return Verdict.accept()
        vectors = np.stack([np.asarray(one.vector, np.float64) for one in ingestion.chunks])
        norms = np.linalg.norm(vectors, axis=1)
        why = self._by_length(norms)
        if why is None and len(norms) >= self._options.min_chunks:
            why = self._by_ratio(norms) or self._by_direction(vectors, norms)
        return Verdict.accept() if why is None else Verdict(self._options.answer, why)

    def _by_length(self, norms: Numbers) -> str | None:
        low, high = self._options.min_norm, self._options.max_norm
        if low is not None and (short := norms < low).any():
            return f"the vector of chunk {_first(short)} has a length of {norms[short][0]:.4g}, less than {low:g}"
        if high is not None and (long := norms > high).any():
            return f"the vector of chunk {_first(long)} has a length of {norms[long][0]:.4g}, more than {high:g}"
        return None

    def _by_ratio(self, norms: Numbers) -> str | None:
        ratio = self._options.norm_ratio
        if ratio is None:
            return None
        medians = _medians_of_the_rest(norms)
        odd = (norms > medians * ratio) | (norms * ratio < medians)
        if not odd.any():
            return None
        return (
            f"the vector of chunk {_first(odd)} has a length of {norms[odd][0]:.4g}, the median of the others is "
            f"{medians[odd][0]:.4g}"
        )

    def _by_direction(self, vectors: Numbers, norms: Numbers) -> str | None:
        limit = self._options.max_distance
        if limit is None:
            return None
        units = vectors / np.where(norms == 0, 1, norms)[:, None]
        rest = units.sum(axis=0) - units
        lengths = np.linalg.norm(rest, axis=1)
        # Others that cancel each other out, and a vector without a direction, are near to nothing: a distance of 1.
        cosines = (units * rest).sum(axis=1) / np.where(lengths < 1e-9, 1, lengths)
        distances = 1 - np.where(lengths < 1e-9, 0, cosines)
        far = distances > limit
        if not far.any():
            return None
        return (
            f"the vector of chunk {_first(far)} has a distance of {distances[far][0]:.2f} from the rest of the "
            f"document, more than {limit:g}"
        )


def _first(odd: NDArray[np.bool_]) -> int:
    """Return the number of the first odd chunk, from 1."""
    return int(np.argmax(odd)) + 1


def _medians_of_the_rest(norms: Numbers) -> Numbers:
    """Return, for each number, the median of all the others."""
    order = np.argsort(norms, kind="stable")
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(norms))
    ordered = norms[order]

    def at(place: int) -> Numbers:
        """Return the number at *place* among the others, for each rank."""
        return np.asarray(np.where(place < ranks, ordered[place], ordered[min(place + 1, len(norms) - 1)]))

    half = (len(norms) - 1) // 2
    upper = at(half)
    return upper if len(norms) % 2 == 0 else (at(half - 1) + upper) * 0.5
