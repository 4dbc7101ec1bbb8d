"""What a place where candidates live must be able to do: find the best, draw a sample, tell whose vectors it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Ints
from sigmax.errors import DataError

__all__ = ["Found", "Picked", "Sample", "Store", "UnavailableError", "check_fingerprint"]


class UnavailableError(OSError):
    """A place where candidates live cannot be reached just now. Nothing is wrong with what was asked: try again."""


@dataclass(frozen=True, eq=False)
class Picked(Sequence[str]):
    """Some of many texts, by their places; each is read when it is asked for."""

    texts: Sequence[str]
    places: Ints

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: Any) -> Any:
        """Return one of them, or a list of several."""
        if isinstance(at, slice):
            return [self.texts[place] for place in self.places[at].tolist()]
        return self.texts[int(self.places[at])]


@dataclass(frozen=True, eq=False)
class Found:
    """The candidates found for one query, the highest inner product first."""

    places: Ints  #: (k,) which they are, by the store's own count
    products: NDArray[np.float32]  #: (k,) inner products with the query
    ids: Sequence[str]
    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, eq=False)
class Sample:
    """Candidates drawn from all that may be found, each as likely as any other, none twice."""

    places: Ints  #: (s,)
    vectors: NDArray[np.float32]  #: (s, d)
    texts: Sequence[str]


class Store(Protocol):
    """Where candidates live and are searched.

    Vectors are those of `DualEncoder.vectors`: prepared by the loss, so that a logit is
    logit_scale · ⟨query, candidate⟩ + logit_bias.
    """

    fingerprint: str  #: of what made the vectors, see `sigmax.model.fingerprints`

    @property
    def size(self) -> int:
        """How many candidates may be found."""

    def search(self, queries: NDArray[np.float32], k: int) -> list[Found]:
        """Find up to k candidates for each of (n, d) queries, with exact inner products.

        Raises:
            UnavailableError: it cannot be reached just now.
        """

    def sample(self, count: int) -> Sample:
        """Draw up to `count` candidates, the same each time while the candidates stay.

        Raises:
            UnavailableError: it cannot be reached just now.
        """

    def describe(self) -> dict[str, Any]:
        """Tell what it is, for people: kind, size and settings. No password."""


def check_fingerprint(store: Store, expected: str, what: str, remedy: str) -> None:
    """Check that a store holds vectors of the model that asks.

    Raises:
        DataError: another's.
    """
    if store.fingerprint != expected:
        raise DataError(
            f"{what}: holds vectors of another model, or of another state of it (fingerprint "
            f"{store.fingerprint[:12] or 'none'}, expected {expected[:12]}). {remedy}"
        )
