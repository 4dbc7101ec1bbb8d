"""The noise class: five kinds of picture are wanted, pictures of other things come too. Four ways to train.

    python benchmarks/noise_class.py digits
    python benchmarks/noise_class.py fashion       Fashion-MNIST: $SIGMAX_FASHION, or Debian's dataset-fashion-mnist

(a) softmax, the other things are one more class; (b) softmax without them; (c) sigmoid without them; (d) sigmoid with
them, as pictures that have none of the labels. All see the same wanted pictures, get the same number of steps, and are
calibrated on the same dev pictures, other things included. Of the other things, three kinds are seen in training and
two only in test.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import sigmax
from sigmax.data.canvases import bundled_digits
from sigmax.data.dataset import SPLITS, MatchDataset
from sigmax.data.pictures import Picture
from sigmax.metrics.abstention import auroc_metric
from sigmax.metrics.intervals import bootstrap_weights, combine_seeds, difference, estimate

RESULTS = Path(__file__).parent / "results"
WANTED, SEEN, UNSEEN = (0, 1, 2, 3, 4), (5, 6, 7), (8, 9)
NOISE = "other"
WAYS = {
    "a": ("softmax, other things as a class", "softmax-average", "class"),
    "b": ("softmax without other things", "softmax-average", "left out"),
    "c": ("sigmoid without other things", "sigmoid", "left out"),
    "d": ("sigmoid, other things as none", "sigmoid", "none"),
}
FASHION_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def fashion(part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read Fashion-MNIST's own files: part is "train" or "t10k"."""
    folder = Path(os.environ.get("SIGMAX_FASHION", "/usr/share/datasets/fashion-mnist"))
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        kinds = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    return images, kinds


def pictures(name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64], dict[str, NDArray[np.int64]], tuple[str, ...]]:
    """Images, kinds, places of train, dev and test, names."""
    if name == "digits":
        return *bundled_digits(), tuple("0123456789")
    (images, kinds), (test_images, test_kinds) = fashion("train"), fashion("t10k")
    drawn = np.random.default_rng(0).permutation(len(images))
    parts = {"train": drawn[:10_000], "dev": drawn[10_000:12_000], "test": len(images) + np.arange(4_000)}
    return np.concatenate([images, test_images]), np.concatenate([kinds, test_kinds]), parts, FASHION_NAMES


def dataset(name: str, others: str) -> tuple[MatchDataset, NDArray[np.int64]]:
    """One way's data, and the kind of every query. Dev and test are the same for all."""
    images, kinds, parts, names = pictures(name)
    queries, pairs, splits, query_kinds = [], [], {}, []
    labels = [names[kind] for kind in WANTED] + ([NOISE] if others == "class" else [])
    for part in SPLITS:
        splits[part] = []
        for place in parts[part].tolist():
            kind = int(kinds[place])
            if (kind in UNSEEN and part != "test") or (part == "train" and kind in SEEN and others == "left out"):
                continue
            splits[part].append(len(queries))
            if kind in WANTED:
                pairs.append((len(queries), kind))
            elif others == "class":
                pairs.append((len(queries), len(WANTED)))
            query_kinds.append(kind)
            queries.append(Picture(f"{part} {place}", images[place]))
    arrays = {part: np.array(found) for part, found in splits.items()}
    return MatchDataset(f"{name}, others {others}", queries, labels, np.array(pairs), arrays, labels=True), np.array(
        query_kinds
    )


def measured(way: str, name: str, seed: int, steps: int) -> dict[str, NDArray[np.float64]]:
    """(1 + draws,) of each metric on test."""
    _, loss, others = WAYS[way]
    data, kinds = dataset(name, others)
    model = sigmax.train(data, sigmax.Settings(loss=loss, steps=steps, seed=seed), stop_early=False, calibrated=False)
    wanted_only = replace_candidates(data) if others == "class" else data
    # What the user sees are the wanted labels: presence and threshold are fitted for them, with the class or without.
    sigmax.calibrate(model, wanted_only)
    test = data.split("test")
    logits = model.logits([data.queries[i] for i in test], data.candidates).values
    kind = kinds[test]
    presence = model.calibrator.presence(logits[:, : len(WANTED)], wanted_only.candidate_ids)
    best = logits[:, : len(WANTED)].argmax(1)
    # With a class of its own, other things are refused by the class; else by the threshold that dev chose.
    threshold = model.calibrator.default_threshold
    by_threshold = presence.max(1) >= threshold
    claims = {"by threshold": by_threshold}
    if others == "class":
        claims["by class"] = logits.argmax(1) < len(WANTED)
    elif loss.startswith("softmax"):
        claims["always"] = np.ones(len(kind), bool)
    weights = bootstrap_weights(len(test), draws=1000, seed=0)
    wanted = np.isin(kind, WANTED)
    right = best == kind

    def share(truth: NDArray[np.bool_], among: NDArray[np.bool_]) -> NDArray[np.float64]:
        inside = weights[:, among]
        return (inside @ truth[among]) / inside.sum(1)

    found = {"right of wanted, nothing refused": share(right, wanted)}
    for how, claimed in claims.items():
        found[f"right of wanted, {how}"] = share(right & claimed, wanted)
        found[f"claimed of seen others, {how}"] = share(claimed, np.isin(kind, SEEN))
        found[f"claimed of unseen others, {how}"] = share(claimed, np.isin(kind, UNSEEN))
    for others, which in (("seen", SEEN), ("unseen", UNSEEN)):
        among = wanted | np.isin(kind, which)
        auroc = auroc_metric(presence.max(1)[among], wanted[among])
        found[f"AUROC of wanted against {others} others"] = auroc(weights[:, among])
    return found


def replace_candidates(data: MatchDataset) -> MatchDataset:
    """Take the class of other things away: its pictures have none of the labels."""
    hidden = np.array([name == NOISE for name in data.candidates])
    return replace(data.without_candidates(hidden, data.name), candidate_ids=())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("digits", "fashion"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400, help="batches of 128")
    given = parser.parse_args()
    table = {}
    draws = {}
    for way, (described, _, _) in WAYS.items():
        by_seed = [measured(way, given.data, seed, given.steps) for seed in range(given.seeds)]
        draws[way] = {metric: combine_seeds([one[metric] for one in by_seed]) for metric in by_seed[0]}
        table[way] = {"way": described, **{metric: estimate(d).as_dict() for metric, d in draws[way].items()}}
        print(f"({way}) {described}")
        for metric, one in draws[way].items():
            shown = estimate(one)
            print(f"    {metric:45} {shown.value:.3f}  {shown.low:.3f}–{shown.high:.3f}")
    compared = {}
    for a, b, metric in (
        ("a", "b", "right of wanted, nothing refused"),
        ("d", "c", "right of wanted, nothing refused"),
        ("d", "a", "right of wanted, by threshold"),
        ("d", "a", "claimed of seen others, by threshold"),
        ("d", "a", "claimed of unseen others, by threshold"),
        ("d", "b", "claimed of unseen others, by threshold"),
        ("c", "b", "claimed of seen others, by threshold"),
        ("d", "a", "AUROC of wanted against seen others"),
        ("d", "a", "AUROC of wanted against unseen others"),
        ("c", "b", "AUROC of wanted against unseen others"),
    ):
        compared[f"{a} - {b}: {metric}"] = difference(draws[a][metric], draws[b][metric]).as_dict()
        print(f"{a} − {b}, {metric}: {compared[f'{a} - {b}: {metric}']}")
    path = RESULTS / f"{datetime.date.today()}-noise-class-{given.data}.json"
    path.write_text(json.dumps({**vars(given), "ways": table, "differences": compared}, indent=1) + "\n")
    print(f"Written: {path}")


if __name__ == "__main__":
    main()
