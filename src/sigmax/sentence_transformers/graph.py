"""Which texts of a batch are right for which: the graph that a loss in sentence-transformers has to find for itself.

A loss there sees tokens, not texts. Two texts are the same if the encoder cannot tell them apart: equal tokens, hashed
to 64 bits. (Of n texts any two collide with a probability below n² / 2⁶⁴, 10⁻¹⁰ for 32,768.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from sigmax.errors import DataError
from sigmax.positives import Positives
from sigmax.processes import world_size

__all__ = ["BatchGraph", "Columns", "KnownPairs", "find_graph", "known_pairs", "text_keys"]

Features = dict[str, Any]
Keys = NDArray[np.int64]

#: Columns of a data set that hold no texts, as sentence-transformers names them.
LABELS = ("label", "labels", "score", "scores")
#: What an encoder reads beside tokens: images, audio, video, bags of words.
_MEDIA = ("pixel_values", "pixel_values_videos", "input_features", "input_values", "sentence_embedding")
#: Texts that are tokenised at a time where known pairs are read.
_CHUNK = 1024


# -- texts ---------------------------------------------------------------------------------------


def text_keys(features: Features) -> Tensor:
    """(b,) int64: a hash of each row's tokens, without padding; equal for equal rows.

    Args:
        features: what `model.preprocess` returns: padded, or all rows one after the other (static embeddings,
            flattened batches); or pictures and the like, whose numbers are hashed.

    Raises:
        ValueError: features that cannot be assigned to rows.
    """
    if "input_ids" not in features:
        return _media_keys(features, None)
    ids: Tensor = features["input_ids"]
    if "offsets" in features:
        starts = features["offsets"]
        lengths = torch.diff(starts, append=starts.new_tensor([len(ids)]))
    elif "cu_seq_lens_q" in features:
        ids, lengths = ids.flatten(), torch.diff(features["cu_seq_lens_q"])
    elif "attention_mask" in features:
        there = features["attention_mask"].bool()
        ids, lengths = ids[there], there.sum(1)
    else:
        ids, lengths = ids.flatten(), ids.new_full((len(ids),), ids.shape[1])
    lengths = lengths.to(torch.int64)
    row = torch.repeat_interleave(torch.arange(len(lengths), device=ids.device), lengths)
    place = torch.arange(len(ids), device=ids.device) - (lengths.cumsum(0) - lengths)[row]
    keys = torch.zeros(len(lengths), dtype=torch.int64, device=ids.device).index_add_(0, row, _mixed(ids, place))
    return _media_keys(features, keys)


def _media_keys(features: Features, keys: Tensor | None) -> Tensor:
    """Add the hash of what is no text; an encoder's output beside tokens is left alone."""
    media = [name for name in _MEDIA if name in features and not (keys is not None and name == "sentence_embedding")]
    if keys is None and not media:
        raise ValueError(f"Expected features with input_ids or one of {', '.join(_MEDIA)}, got {', '.join(features)}.")
    for name in media:
        value: Tensor = features[name]
        if keys is not None and len(keys) != len(value):
            raise ValueError(
                f"Expected `{name}` with one row an input, got {len(value)} rows for {len(keys)} inputs: nobody can "
                "say which rows belong together, so equal inputs cannot be recognised."
            )
        place = torch.arange(value[0].numel(), device=value.device)
        # Row by row: the integers are several times as large as a picture.
        found = torch.stack([_mixed(row.flatten().double().view(torch.int64), place).sum() for row in value])
        keys = found if keys is None else keys + found
    assert keys is not None
    return keys


def _mixed(value: Tensor, place: Tensor) -> Tensor:
    """A hash of each value and its place, by two rounds of multiply and shift (wrapping at 64 bits)."""
    mixed = (value.to(torch.int64) + 1) * -0x61C8864680B583EB + (place + 1) * -0x3D4D51C2D82B14B1
    for factor in (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15):
        mixed = (mixed ^ (mixed >> 30)) * factor
    return mixed ^ (mixed >> 31)


# -- known pairs ---------------------------------------------------------------------------------


def known_pairs(dataset: Any) -> dict[str, list[str]]:
    """Every anchor of a data set and all its right answers: the first two columns that hold texts.

    Args:
        dataset: a `datasets.Dataset` as the trainer takes it.

    Raises:
        DataError: fewer than two columns of texts.
    """
    columns = [name for name in dataset.column_names if name not in LABELS]
    if len(columns) < 2:
        raise DataError(
            f"Expected a data set with a column of anchors and one of positives, got {', '.join(columns) or 'none'}."
        )
    pairs: dict[str, list[str]] = {}
    for anchor, positive in zip(dataset[columns[0]], dataset[columns[1]], strict=True):
        pairs.setdefault(anchor, []).append(positive)
    return pairs


class KnownPairs:
    """Right pairs known beforehand, as keys of texts.

    Args:
        pairs: anchor -> the texts right for it, as the encoder is given them: with the prompt, if there is one.
        preprocess: the encoder's.

    Raises:
        TypeError: not a mapping of texts to lists of texts.
    """

    def __init__(self, pairs: Mapping[str, Iterable[str]], preprocess: Callable[[list[str]], Features]) -> None:
        if not isinstance(pairs, Mapping) or any(isinstance(texts, str) for texts in pairs.values()):
            raise TypeError(
                "Expected `positives` to be a mapping of each anchor to a list of right texts, as known_pairs(dataset) "
                f"makes it, got {type(pairs).__name__}{' of texts' if isinstance(pairs, Mapping) else ''}."
            )
        answers = [list(texts) for texts in pairs.values()]
        anchors = np.repeat(_keys(list(pairs), preprocess), [len(texts) for texts in answers])
        texts = _keys([text for some in answers for text in some], preprocess)
        order = np.argsort(anchors, kind="stable")
        self.anchors, self.answers = anchors[order], texts[order]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.anchors)

    def of(self, anchors: Keys) -> tuple[NDArray[np.int64], Keys]:
        """(n,) keys -> the place in `anchors` and the answer's key, of each known pair."""
        start, stop = (np.searchsorted(self.anchors, anchors, side) for side in ("left", "right"))
        counts = stop - start
        places = np.arange(counts.sum()) + np.repeat(start - (counts.cumsum() - counts), counts)
        return np.repeat(np.arange(len(anchors)), counts), self.answers[places]


def _keys(texts: list[str], preprocess: Callable[[list[str]], Features]) -> Keys:
    """Keys of texts; those of one length in characters lie near each other, so that padding stays short."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    keys = np.empty(len(texts), np.int64)
    for start in range(0, len(texts), _CHUNK):
        places = order[start : start + _CHUNK]
        keys[places] = text_keys(preprocess([texts[place] for place in places])).cpu().numpy()
    return keys


# -- the graph of a batch ------------------------------------------------------------------------


class Columns(NamedTuple):
    """What one process holds of a batch: keys of its texts, and ids where the data set gives them (below 0: none).

    Candidates stand column by column: all positives, then the first negative of each row, and so on.
    """

    anchors: Keys  #: (n,)
    anchor_ids: Keys  #: (n,)
    candidates: Keys  #: (n · columns,)
    candidate_ids: Keys  #: (n · columns,)

    @classmethod
    def of(cls, features: list[Features], labels: Tensor | None) -> Columns:
        """Read anchor, positive and any negatives, and a label of ids: (n, k), one id for each of the first k columns.

        Raises:
            ValueError: labels of another shape, or that are not integers; columns of different lengths.
        """
        keys = [text_keys(one).cpu().numpy() for one in features]
        n = len(keys[0])
        if any(len(column) != n for column in keys):
            raise ValueError(f"Expected columns of one length, got {', '.join(str(len(column)) for column in keys)}.")
        ids = np.full((n, len(keys)), -1, np.int64)
        if labels is not None:
            whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
            if labels.ndim != 2 or len(labels) != n or not 2 <= labels.shape[1] <= len(keys) or not whole:
                raise ValueError(
                    f"Expected a label column of integer ids, [anchor id, positive id] for each row, got "
                    f"{labels.dtype} of shape {tuple(labels.shape)} for {n} rows of {len(keys)} columns. Without ids, "
                    "remove the column: equal texts are recognised anyway."
                )
            ids[:, : labels.shape[1]] = labels.cpu().numpy()
        return cls(keys[0], ids[:, 0], np.concatenate(keys[1:]), ids[:, 1:].T.flatten())

    def gathered(self) -> list[Columns]:
        """Return those of all processes, in the order of ranks."""
        everyones: list[Columns] = [self] * world_size()
        if len(everyones) > 1:
            dist.all_gather_object(everyones, self)
        return everyones


@dataclass(frozen=True, eq=False)
class BatchGraph:
    """Which candidates of a batch remain when each is offered once, and which are right."""

    kept: Tensor | None  #: places of the candidates offered among this process's; None for all of them
    positives: Positives  #: (anchors of this process, candidates offered by all)
    right_rate: float  #: right pairs of all anchors, over all pairs

    @property
    def log_odds(self) -> float:
        """Log odds of a right pair, those of a whole batch being right cut at one wrong pair."""
        pairs = max(2, self.positives.shape[0] * self.positives.shape[1])
        rate = min(max(self.right_rate, 1 / pairs), 1 - 1 / pairs)
        return float(np.log(rate / (1 - rate)))


def find_graph(parts: list[Columns], rank: int, known: KnownPairs | None) -> BatchGraph:
    """Find what is right in a batch.

    Each row says that its positive is right for its anchor. Anchors of equal text or id are one query: what is right
    for one is right for all. Candidates of equal text or id are one candidate, offered once. A pair in `known` is
    right wherever it meets. A candidate with the anchor's own text, unless known to be right, is ignored: neither
    right nor wrong.

    Args:
        parts: what each process holds.
        rank: whose anchors.
        known: further right pairs.
    """
    anchors, anchor_ids, texts, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
    query = _same(anchors, anchor_ids)
    _, first, candidate = np.unique(_same(texts, ids), return_index=True, return_inverse=True)
    column = np.argsort(np.argsort(first))[candidate]  # columns in the order in which candidates first occur
    own_positive, start = [], 0
    for part in parts:
        own_positive.append(start + np.arange(len(part.anchors)))
        start += len(part.candidates)
    rows, columns = [query], [column[np.concatenate(own_positive)]]
    distinct_texts, where = np.unique(texts, return_index=True)
    if known is not None:
        of_anchor, answers = known.of(anchors)
        there, found = _find(distinct_texts, answers)
        rows.append(query[of_anchor[there]])
        columns.append(column[where[found]])
    shape = (int(query.max()) + 1, len(first))
    pairs = np.concatenate(rows), np.concatenate(columns)
    graph = sparse.csr_array((np.ones(len(pairs[0]), np.int64), pairs), shape=shape)
    before = sum(len(part.anchors) for part in parts[:rank])
    mine = slice(before, before + len(parts[rank].anchors))
    right_rows, right_columns = graph[query[mine]].nonzero()
    itself, found = _find(distinct_texts, anchors[mine])
    ignored = np.flatnonzero(itself), column[where[found]]
    known_right = np.isin(ignored[0] * shape[1] + ignored[1], right_rows * shape[1] + right_columns)
    offered = np.sort(first)
    start = sum(len(part.candidates) for part in parts[:rank])
    held = len(parts[rank].candidates)
    kept = offered[(offered >= start) & (offered < start + held)] - start
    counts = np.diff(graph.indptr)
    return BatchGraph(
        None if len(kept) == held else torch.from_numpy(kept),
        Positives(
            torch.from_numpy(right_rows.astype(np.int64)),
            torch.from_numpy(right_columns.astype(np.int64)),
            (len(parts[rank].anchors), shape[1]),
            (torch.from_numpy(ignored[0][~known_right]), torch.from_numpy(ignored[1][~known_right])),
        ),
        float(counts[query].sum()) / (len(query) * shape[1]),
    )


def _same(keys: Keys, ids: Keys) -> NDArray[np.int64]:
    """Number each row so that rows of equal key or equal id, directly or by way of others, have equal numbers."""
    _, by_key = np.unique(keys, return_inverse=True)
    has_id = ids >= 0
    if not has_id.any():
        return by_key
    _, by_id = np.unique(ids[has_id], return_inverse=True)
    count = int(by_key.max()) + 1
    joined = sparse.coo_array(
        (np.ones(len(by_id), np.int8), (by_key[has_id], count + by_id)), shape=(count + len(by_id),) * 2
    )
    component: NDArray[np.int64] = connected_components(joined, directed=False)[1][by_key]
    return np.unique(component, return_inverse=True)[1]


def _find(sorted_keys: Keys, keys: Keys) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which keys are there, and at which places those are."""
    places = np.searchsorted(sorted_keys, keys).clip(max=len(sorted_keys) - 1)
    there: NDArray[np.bool_] = sorted_keys[places] == keys
    return there, places[there]
