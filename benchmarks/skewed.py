"""Labels from rare to common: does a bias per label, started at its log odds, decide?

Usage: python benchmarks/skewed.py FOLDER [--encoder efficientnet-lite0] [--seeds 3]

FOLDER holds Fashion-MNIST's own four files (Debian: dataset-fashion-mnist). Canvases of three by three cells are made
of them; each of the ten kinds is on a canvas by chance, the rarest on 1% of them, the most frequent on 60%. A frozen
network sees them. With a prior and without are the same model, but that the biases of the second stay 0. All are
calibrated on dev by the same code, then measured on test, once per seed, which draws everything anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from noise_class import FASHION_NAMES, RESULTS, fashion

import sigmax
from sigmax.arrays import Logits
from sigmax.comparison.baselines import OneAgainstRest
from sigmax.data import MatchDataset
from sigmax.data.pictures import Picture
from sigmax.encoders.build import build_towers
from sigmax.encoders.plan import Plan
from sigmax.evaluation import calibrate, evaluate

SHOWN = ("map", "precision@1", "log_loss", "micro_f1", "macro_f1")
SIZES = {"train": 3000, "dev": 500, "test": 1000}
#: Of the canvases, by kind.
PARTS = np.geomspace(0.01, 0.6, len(FASHION_NAMES))
CELLS, SIDE = 3, 32


def skewed(seed: int) -> MatchDataset:
    """Canvases of grey pieces; dev and train are of the training pictures, test of the test pictures."""
    random = np.random.default_rng(seed)
    files = {"train": fashion("train"), "t10k": fashion("t10k")}
    rarity = random.permutation(PARTS)  # which kinds are rare is chance
    queries: list[Picture] = []
    pairs: list[tuple[int, int]] = []
    splits: dict[str, Any] = {}
    for split, size in SIZES.items():
        images, kinds = files["t10k" if split == "test" else "train"]
        places = [np.flatnonzero(kinds == kind) for kind in range(len(PARTS))]
        splits[split] = np.arange(len(queries), len(queries) + size)
        for number in range(size):
            canvas = np.zeros((CELLS * SIDE, CELLS * SIDE), np.uint8)
            there = np.flatnonzero(random.random(len(PARTS)) < rarity)[: CELLS**2]
            for cell, kind in zip(random.permutation(CELLS**2), there, strict=False):
                top, left = cell // CELLS * SIDE + random.integers(5), cell % CELLS * SIDE + random.integers(5)
                canvas[top : top + 28, left : left + 28] = images[random.choice(places[kind])]
            pairs += [(len(queries), int(kind)) for kind in there]
            queries.append(Picture(f"{split} {number + 1}", canvas))
    return MatchDataset(f"skewed {seed}", queries, list(FASHION_NAMES), np.array(pairs), splits, labels=True)


class Frequency:
    """The labels' log odds, whatever the picture."""

    def __init__(self, data: MatchDataset) -> None:
        part = np.asarray(data.graph[data.split("train")].mean(0)).ravel()
        self.odds = np.log(part / (1 - part)).astype(np.float32)
        self.calibrator = None

    def logits(self, queries: Any, candidates: Any) -> Logits:
        """Give all queries the same."""
        return Logits(np.tile(self.odds, (len(queries), 1)))


def regression(data: MatchDataset, encoder: str, *, standardise: bool) -> OneAgainstRest:
    """One-vs-rest logistic regression with scikit-learn's own settings on the same vectors."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    frozen: Any = build_towers(encoder, data, Plan(frozen=True, head="linear")).query

    def make() -> Any:
        model = LogisticRegression(max_iter=1000)
        return make_pipeline(StandardScaler(), model) if standardise else model

    return OneAgainstRest(data, lambda queries: frozen.preprocess(queries)["vectors"].numpy(), make)


def ours(data: MatchDataset, seed: int, *, prior: bool, **settings: Any) -> Any:
    """A model with biases, or the same with biases that stay 0."""
    given = sigmax.Settings(seed=seed, **settings)
    if prior:
        return sigmax.train(data, given, calibrated=False, tell=False)
    with mock.patch("sigmax.training.train.start_priors", _without):
        return sigmax.train(data, given, calibrated=False, tell=False)


def _without(model: Any, batches: Any) -> None:
    model.candidate_encoder.biases.requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    os.environ["SIGMAX_FASHION"] = str(given.folder)
    rows: list[dict[str, Any]] = []
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()}
    file = RESULTS / f"{date.today()}-skewed-fashion.json"
    for seed in range(given.seeds):
        data = skewed(seed)
        ways: dict[str, Any] = {
            "label frequency": lambda data=data: Frequency(data),
            "logistic regression": lambda data=data: regression(data, given.encoder, standardise=False),
            "standardised, logistic regression": lambda data=data: regression(data, given.encoder, standardise=True),
        }
        for loss in ("sigmoid", "softmax-decoupled"):
            frozen = {"encoder": given.encoder, "frozen": True, "loss": loss}
            ways[f"{loss}, linear, solved"] = lambda data=data, s=frozen, n=seed: ours(data, n, prior=True, **s)
            for prior in (False, True):
                name = f"{loss}, cosine, {'with' if prior else 'without'} prior"
                ways[name] = lambda data=data, s=frozen, n=seed, p=prior: ours(data, n, prior=p, head="cosine", **s)
        for name, fit in ways.items():
            began = time.process_time()
            model = fit()
            seconds = time.process_time() - began
            calibrate(model, data)
            evaluation = evaluate(model, data)
            test = {metric: evaluation[metric].as_dict() for metric in SHOWN}
            rows.append({"seed": seed, "way": name, "processor_seconds": seconds, "test": test})
            values = "  ".join(f"{metric} {one['value']:.4f}" for metric, one in test.items())
            print(f"{seed} {name:40} {seconds:6.1f} s  {values}", flush=True)
            record = {"encoder": given.encoder, "parts": PARTS.round(3).tolist(), "sizes": SIZES, "machine": machine}
            file.write_text(json.dumps({**record, "results": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
