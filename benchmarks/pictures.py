"""Classifiers of pictures: how good, in what time, and whether the network waits for the reading.

python benchmarks/pictures.py fashion                  canvases of 0 to 4 pieces of Fashion-MNIST
python benchmarks/pictures.py cards                    $SIGMAX_DATA/data/playing_cards, ImageNet frozen and tuned
python benchmarks/pictures.py emoji                    $SIGMAX_DATA/data/emoji_images, 32 × 32, from scratch
python benchmarks/pictures.py reading                  pictures a second: reading, reading again, the network
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from noise_class import FASHION_NAMES, RESULTS, fashion
from PIL import Image

import sigmax
from sigmax.data.canvases import canvases
from sigmax.data.dataset import MatchDataset
from sigmax.data.pictures import Picture, pixel_batch
from sigmax.encoders import PictureEncoder

SHOWN = ("map", "micro_f1", "macro_f1", "log_loss", "none_auroc_logit", "none_auroc_any", "calibration_error")


def multi_fashion() -> MatchDataset:
    """The recipe of the built-in digits: 20,000 canvases of the training pictures, 4,000 of the test pictures."""
    (images, kinds), (test_images, test_kinds) = fashion("train"), fashion("t10k")
    drawn = np.random.default_rng(0).permutation(len(images))
    parts = {"train": drawn[:54_000], "dev": drawn[54_000:], "test": len(images) + np.arange(len(test_images))}
    sizes = {"train": 20_000, "dev": 2_000, "test": 4_000}
    both, which = np.concatenate([images, test_images]), np.concatenate([kinds, test_kinds])
    return canvases("multi_fashion", both, which, FASHION_NAMES, parts, sizes, slack=4)


def emoji_pictures(root: Path) -> MatchDataset:
    """Keywords of emoji pictures."""
    arrays = np.load(root / "data" / "emoji_images" / "emoji32.npz")
    rows = [json.loads(line) for line in (root / "data" / "emoji_images" / "labels.jsonl").open(encoding="utf-8")]
    labels = sorted({label for row in rows for label in row["labels"]})
    pairs = [(i, labels.index(label)) for i, row in enumerate(rows) for label in row["labels"]]
    queries = [Picture(row["name"], image) for row, image in zip(rows, arrays["images"], strict=True)]
    train = np.flatnonzero(arrays["split"] == "train")
    dev = np.arange(len(train)) % 8 == 0  # the set brings none
    splits = {"train": train[~dev], "dev": train[dev], "test": np.flatnonzero(arrays["split"] == "test")}
    return MatchDataset("emoji_images", queries, labels, np.array(pairs), splits, labels=True)


def trained(data: MatchDataset, **settings: Any) -> dict[str, Any]:
    """Train, measure, print."""
    begin = time.perf_counter()
    model = sigmax.train(data, sigmax.Settings(**settings), progress=_progress)
    seconds = time.perf_counter() - begin
    measured = sigmax.evaluate(model, data)
    made = {name: measured[name].as_dict() for name in SHOWN if name in measured.draws}
    print(
        f"\r{data.name} {settings}: {seconds:.0f} s",
        " ".join(f"{k} {v['value']:.4f}" for k, v in made.items()),
        flush=True,
    )
    return {"data": data.name, "settings": settings, "seconds": seconds, "test": made}


def _progress(at: int, of: int, latest: dict[str, float]) -> None:
    if sys.stderr.isatty():
        print(f"\r{at} of {of} steps", end="", file=sys.stderr)


def reading() -> dict[str, float]:
    """Pictures a second of 500 × 375 JPEGs: decoding, from memory, and what a training step takes of them."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        for i in range(512):
            small = random.integers(0, 256, (24, 32, 3), np.uint8)
            Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC).save(f"{folder}/{i}.jpg", quality=90)
        for network, size, batch in (("convnet", 64, 128), ("efficientnet-lite0", 224, 32)):
            pictures = [Picture(f"{i}", Path(folder, f"{i}.jpg")) for i in range(512)]
            for epoch in ("first", "later"):
                begin = time.perf_counter()
                for start in range(0, 512, batch):
                    pixel_batch(pictures[start : start + batch], size, "RGB")
                found[f"{network}: read, {epoch} epoch"] = 512 / (time.perf_counter() - begin)
            encoder = PictureEncoder(network, size=size, mode="RGB", trained=False).train()
            features = encoder.preprocess(pictures[:batch])
            seconds = []
            for _ in range(4):
                begin = time.perf_counter()
                encoder(dict(features))["sentence_embedding"].square().sum().backward()
                seconds.append(time.perf_counter() - begin)
            found[f"{network}: forward and backward"] = batch / statistics.median(seconds[1:])
    for name, value in found.items():
        print(f"{name:45} {value:8.0f} pictures a second")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fashion", "cards", "emoji", "reading"))
    parser.add_argument("--loss", default="sigmoid,softmax-average", help="losses, separated by commas")
    parser.add_argument("--epochs", type=float, default=None)
    parser.add_argument("--augment", default=None, help="fashion: what training does to pictures")
    given = parser.parse_args()
    losses = given.loss.split(",")
    root = Path(os.environ.get("SIGMAX_DATA", "."))
    if given.what == "reading":
        result: Any = reading()
    elif given.what == "fashion":
        data = multi_fashion()
        result = [trained(data, loss=loss, epochs=given.epochs, augment=given.augment) for loss in losses]
    elif given.what == "emoji":
        data = emoji_pictures(root)
        result = [trained(data, loss=loss, epochs=given.epochs or 20) for loss in losses]
    else:
        data = sigmax.load_data(root / "data" / "playing_cards")
        ways = (
            {"frozen": True},
            {"frozen": True, "head": "linear", "logit_scale": 1.0},
            {"epochs": given.epochs or 8, "batch_size": 32},
        )
        result = [trained(data, loss=loss, encoder="efficientnet-lite0", **way) for way in ways for loss in losses]
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    path = RESULTS / f"{datetime.date.today()}-pictures-{given.what}.json"
    path.write_text(json.dumps({"machine": machine, "load": os.getloadavg(), "result": result}, indent=1) + "\n")
    print(f"Written: {path}")


if __name__ == "__main__":
    main()
