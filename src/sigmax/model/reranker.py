"""A second look: a cross-encoder reads each query together with its best candidates."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from sigmax.arrays import Ints
from sigmax.data.normal import normal
from sigmax.data.texts import digest
from sigmax.encoders.pretrained import UnloadableError, find, is_static, on_hub
from sigmax.errors import DataError, check_least, first_line
from sigmax.metrics.ranking import best_first

__all__ = ["Reranker"]

log = logging.getLogger(__name__)

#: Pairs read at a time, of about the same length.
BATCH = 32
#: Pairs read between two looks at the clock.
PART = 512
#: Pairs whose logits are kept: choosing, calibrating and measuring on dev read the same ones.
KEPT = 2**18


class Reranker(nn.Module):
    r"""Logits that look twice.

    With sᵢⱼ the first stage's logits, Kᵢ the k candidates of query i where they are largest, and rᵢⱼ what the
    cross-encoder gives to query and candidate read together,

        s'ᵢⱼ = first · sᵢⱼ + second · rᵢⱼ               for j in Kᵢ
        s'ᵢⱼ = first · sᵢⱼ + second · min_{l∈Kᵢ} rᵢₗ    for the others

    Every candidate keeps a logit, so that shares, presences and P(any) are defined over all of them. Those beyond the
    best k stay in their order, and none of them comes before one of the k. A cross-encoder over k pairs per query costs
    k times what encoding a text does (Nogueira & Cho 2019).

    Args:
        encoder: a CrossEncoder of sentence-transformers with one output.
        depth: k.
        first: weight of the first stage's logit, above 0.
        second: weight of the cross-encoder's logit, at least 0.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, encoder: nn.Module, *, depth: int = 20, first: float = 1.0, second: float = 1.0) -> None:
        super().__init__()
        check_least(1, depth=depth)
        if not (first > 0 and second >= 0):
            raise ValueError(f"Expected `first` above 0 and `second` of at least 0, got {first} and {second}.")
        self.encoder = encoder
        self.depth, self.first, self.second = depth, first, second
        self._known: dict[bytes, float] = {}

    @classmethod
    def load(cls, name: str, *, depth: int = 20) -> Reranker:
        """Load a cross-encoder, or a transformer that gets one output more: a folder, a package's, or one of the hub.

        Raises:
            UnloadableError: no such model, or none that reads two texts and gives one number.
        """
        folder = find(name)
        if folder is not None and is_static(folder):
            raise UnloadableError(f"{name}: static vectors cannot read two texts together. Name a transformer.")
        place = str(folder or name)
        return cls(_cross_encoder(place, folder is not None or not on_hub(name, "cross-encoder")), depth=depth)

    @classmethod
    def read(cls, folder: Path, **settings: Any) -> Reranker:
        """Read what `save` wrote; `settings` are those of `config`.

        Raises:
            DataError: the cross-encoder does not load.
        """
        return cls(_cross_encoder(str(folder), True), **settings)

    def save(self, folder: Path) -> None:
        """Write the cross-encoder as sentence-transformers does."""
        cast(Any, self.encoder).save_pretrained(str(folder), create_model_card=False)

    def config(self) -> dict[str, Any]:
        """Return what `read` needs beside the folder."""
        return {"depth": self.depth, "first": self.first, "second": self.second}

    def train(self, mode: bool = True) -> Reranker:
        """Go into training mode, or out of it; training forgets what is known of pairs."""
        if mode:
            self._known.clear()
        return super().train(mode)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """(query, candidate) pairs -> (p,) r, without gradient; long ones say how far they are."""
        keys = [digest(f"{len(query)} {query}{candidate}") for query, candidate in pairs]
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._known}
        texts = [(normal(query), normal(candidate)) for query, candidate in new.values()]
        made = np.empty(len(texts), np.float32)
        order = np.argsort([-len(query) - len(candidate) for query, candidate in texts], kind="stable")
        began = last = time.monotonic()
        for start in range(0, len(order), PART):
            places = order[start : start + PART]
            made[places] = cast(Any, self.encoder).predict(
                [texts[place] for place in places],
                batch_size=BATCH,
                show_progress_bar=False,
                activation_fn=nn.Identity(),
            )
            if time.monotonic() - last > 5:
                last = time.monotonic()
                done = start + len(places)
                left = (last - began) * (len(order) - done) / done
                log.info("Second look, %d of %d pairs, %.0f s left.", done, len(order), left)
        if not np.isfinite(made).all():
            raise ValueError("The cross-encoder's logits are not finite: training diverged.")
        fresh = dict(zip(new, made.tolist(), strict=True))
        found = np.array([fresh[key] if key in fresh else self._known[key] for key in keys], np.float32)
        if len(self._known) + len(fresh) <= KEPT:
            self._known.update(fresh)
        return found

    def best(
        self, logits: NDArray[np.float32], queries: Sequence[str], candidates: Sequence[str]
    ) -> tuple[Ints, NDArray[np.float32]]:
        """Read the best candidates of each query.

        Args:
            logits: (n, m) of the first stage.
            queries: n.
            candidates: m.

        Returns:
            (n, k) their places, best first, and (n, k) r; k is `depth`, or m where there are fewer.
        """
        best: Ints = best_first(logits, min(self.depth, logits.shape[1]))
        pairs = [(queries[i], candidates[j]) for i, row in enumerate(best.tolist()) for j in row]
        return best, self.scores(pairs).reshape(best.shape)

    def combine(self, logits: NDArray[np.float32], best: Ints, scores: NDArray[np.float32]) -> None:
        """Turn (n, m) logits of the first stage into those of both, where they are."""
        chosen = np.take_along_axis(logits, best, 1)
        logits *= np.float32(self.first)
        logits += np.float32(self.second) * scores.min(1, keepdims=True)
        both = np.float32(self.first) * chosen + np.float32(self.second) * scores
        np.put_along_axis(logits, best, both, 1)

    def look(self, logits: NDArray[np.float32], queries: Sequence[Any], candidates: Sequence[Any]) -> None:
        """Read, and combine, some queries at a time; see `best` and `combine`."""
        self.combine(logits, *self.best(logits, queries, candidates))


def _cross_encoder(place: str, local: bool) -> nn.Module:
    from sentence_transformers import CrossEncoder

    try:
        made: Any = CrossEncoder(place, num_labels=1, device="cpu", local_files_only=local, activation_fn=nn.Identity())
    except (OSError, ValueError, RuntimeError, LookupError, ImportError, SafetensorError) as error:
        raise UnloadableError(f"The cross-encoder {place!r} did not load: {first_line(error)}") from error
    if made.num_labels != 1:
        raise DataError(f"{place}: expected a cross-encoder with one output, got {made.num_labels}.")
    encoder: nn.Module = made
    return encoder
