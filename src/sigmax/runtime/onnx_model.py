"""OnnxModel: answers as `DualEncoder` does, from an exported model; NumPy, onnxruntime and tokenizers, no PyTorch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Logits, row_blocks
from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.familiar import Familiar
from sigmax.calibration.novelty import Novelty
from sigmax.calibration.record import Record
from sigmax.data.normal import normal
from sigmax.encoders.shared_words import Tokens
from sigmax.errors import DataError, extra, first_line
from sigmax.model.matcher import Matcher
from sigmax.model.matches import PAIR_BLOCK, Rated, rate
from sigmax.runtime.package import read_arrays, settings_of, split
from sigmax.runtime.reading import SharedWords, reader_of

__all__ = ["OnnxModel", "load"]

#: Texts encoded together, and numbers that the rows of their n-grams or tokens may take.
TEXTS, NUMBERS = 64, 2**24


@dataclass(frozen=True, eq=False)
class OnnxOffer:
    """Candidates with their vectors."""

    candidates: Sequence[str]
    candidate_ids: Sequence[str]
    vectors: NDArray[np.float32]  #: (m, d)
    tokens: Tokens | None  #: of the m texts, for the lexical view

    @property
    def size(self) -> int:
        """How many candidates there are."""
        return len(self.candidates)


class OnnxModel(Matcher):
    """Matches queries to the candidates that a model was exported with; see `load`.

    Args:
        session: of onnxruntime.
        settings: that were exported.
        arrays: that lie beside the network.
    """

    reranker = None

    def __init__(self, session: Any, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        self.session, self.settings = session, settings
        self.loss_name: str = settings["loss"]
        self.candidates, self.candidate_ids = (
            tuple(split(arrays[name], arrays[f"{name}_ends"])) for name in ("candidates", "candidate_ids")
        )
        self.reader = reader_of(settings["reader"], arrays)
        self.lexical = None if settings["lexical"] is None else SharedWords(settings["lexical"], arrays)
        tokens = None
        if self.lexical is not None:
            tokens = Tokens(arrays["tokens_keys"], arrays["tokens_values"], arrays["tokens_ends"])
        self._offer = OnnxOffer(self.candidates, self.candidate_ids, arrays["vectors"], tokens)
        record = {name.removeprefix("dev_"): array for name, array in arrays.items() if name.startswith("dev_")}
        self.calibrator = settings["calibrator"] and Calibrator.from_dict(
            settings["calibrator"], Record.from_tensors(record) if record else None, Familiar.from_tensors(record)
        )
        seen = {name.removeprefix("novelty_"): array for name, array in arrays.items() if name.startswith("novelty_")}
        self.novelty = Novelty.from_tensors(seen) if seen else None
        self._outputs = ["logits", "vectors", *(["none"] if settings["none"] else [])]

    @property
    def facts(self) -> dict[str, Any]:
        """What the model was trained on and how, and what was measured when it was exported."""
        return {**self.settings["facts"], "export": self.settings["export"]}

    def as_queries(self, items: Sequence[str]) -> list[str]:
        """Check texts.

        Raises:
            ValueError: something that is not a text, or an empty one.
        """
        for item in items:
            if not isinstance(item, str) or not item.strip():
                raise ValueError(f"Expected a text to match, got {item!r}.")
        return list(items)

    def offer(self, *, exact: bool = True) -> OnnxOffer:
        """Return the candidates, for `rate`; all of them are looked at, `exact` or not."""
        return self._offer

    def rate(self, queries: Sequence[Any], offer: OnnxOffer) -> Iterator[Rated]:
        """Rate every candidate of an offer for each query, some queries at a time.

        Raises:
            ValueError: logits that are not finite.
        """
        for rows in row_blocks((len(queries), len(offer.candidates)), PAIR_BLOCK):
            logits = self._logits(queries[rows], offer)
            yield from rate(logits, offer.candidates, offer.candidate_ids, self.calibrator)

    def logits(self, queries: Sequence[Any], candidates: Sequence[str]) -> Logits:
        """Return the logits of n queries over the m candidates, and of *none of these* where it was trained.

        Raises:
            DataError: other candidates than those that were exported.
            ValueError: logits that are not finite.
        """
        self._check_candidates(candidates)
        return self._logits(queries, self._offer)

    def logit_blocks(
        self, queries: Sequence[Any], candidates: Sequence[str], *, height: int
    ) -> Iterator[tuple[slice, Logits]]:
        """Make the logits of some queries over every candidate, then of the next; the scan reads them.

        Raises:
            DataError: other candidates than those that were exported.
            ValueError: logits that are not finite.
        """
        self._check_candidates(candidates)
        for top in range(0, len(queries), height):
            rows = slice(top, min(top + height, len(queries)))
            yield rows, self._logits(queries[rows], self._offer)

    def _check_candidates(self, candidates: Sequence[str]) -> None:
        if list(candidates) != list(self.candidates):
            raise DataError(
                "The data's candidates are not those that the model was exported with. Give the data that it was "
                "trained on; for others, sigmax calibrate DIR DATA and export again."
            )

    def _logits(self, queries: Sequence[Any], offer: OnnxOffer) -> Logits:
        texts = [normal(str(query)) for query in queries]
        parts = [self._part(texts[start : start + TEXTS], offer) for start in range(0, len(texts), TEXTS)]
        values = np.concatenate([np.zeros((0, len(offer.candidates)), np.float32), *(part[0] for part in parts)])
        if values.size and not np.isfinite([values.min(), values.max()]).all():
            raise ValueError("The model's logits are not finite. Export it again from a model whose logits are.")
        if not parts:
            return Logits(values)
        vectors, *none = [np.concatenate(pieces) for pieces in zip(*(part[1:] for part in parts), strict=True)]
        novelty = None if self.novelty is None else self.novelty.nearness(vectors)[:, None]
        return Logits(values, none[0] if none else None, novelty)

    def _part(self, texts: list[str], offer: OnnxOffer) -> list[NDArray[np.float32]]:
        feeds = self.reader.read(texts)
        largest = next(iter(feeds.values()))
        if largest.size * offer.vectors.shape[1] > NUMBERS and len(texts) > 1:  # one text is so long: others wait
            middle = len(texts) // 2
            halves = self._part(texts[:middle], offer), self._part(texts[middle:], offer)
            return [np.concatenate(pair) for pair in zip(*halves, strict=True)]
        feeds |= {"candidates": offer.vectors, "with_presence": np.array(False)}
        if self.lexical is not None and offer.tokens is not None:
            feeds["shared"] = self.lexical.scores(self.lexical.tokens(texts, "query"), offer.tokens)
        made: list[NDArray[np.float32]] = self.session.run(self._outputs, feeds)
        return made


def load(path: str | Path, *, threads: int | None = None) -> OnnxModel:
    """Read a model that `sigmax export` wrote: FILE.onnx, and FILE.npz beside it.

    Nothing of it is executed but the network's operations; PyTorch is not imported.

    Args:
        path: of the .onnx file.
        threads: that compute; None for as many as OMP_NUM_THREADS or the machine says.

    Raises:
        DataError: not such a file, damaged, of a newer format, or without its arrays.
        ImportError: onnxruntime is missing.
    """
    place = Path(path)
    with extra("onnx"):
        import onnxruntime

    if not place.is_file():
        raise DataError(f"{place}: expected a file, as `sigmax export DIR -o {place}` writes it, got none.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # who waits leaves the core to others
    try:
        session = onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types have no common base
        raise DataError(f"{place}: not an ONNX file that runs here ({first_line(error)}).") from error
    try:
        settings = settings_of(place, session.get_modelmeta().custom_metadata_map)
        return OnnxModel(session, settings, read_arrays(place, settings["fingerprint"]))
    except DataError:
        raise
    except (LookupError, TypeError, ValueError, json.JSONDecodeError) as error:
        raise DataError(f"{place}: damaged ({type(error).__name__}: {first_line(error)}). Export it again.") from error
