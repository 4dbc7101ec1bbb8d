"""Sigmax's losses in SentenceTransformerTrainer beside MultipleNegativesRankingLoss, at an equal budget.

    SIGMAX_DATA=… python benchmarks/sentence_transformers_losses.py quality nlupp protoqa truthfulqa clinc150 wordnet
    SIGMAX_DATA=… python benchmarks/sentence_transformers_losses.py speed
    SIGMAX_DATA=… python benchmarks/sentence_transformers_losses.py parts

quality: every contender trains on the same (anchor, positive) pairs, as many epochs, batches as large, each at the
learning rate of a common grid that is best on dev. MAP on test, over all candidates, with paired differences.
speed: the whole trainer at a batch of 4,096, each contender in a process of its own. parts: where the time goes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

import sigmax
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sigmax.encoders.pretrained import load_pretrained
from sigmax.metrics.intervals import bootstrap_weights, combine_seeds, difference, estimate, mean_statistic
from sigmax.metrics.ranking import ranking_values
from sigmax.sentence_transformers import MultiPositiveBatchSampler, SigmoidLoss, SoftmaxLoss, known_pairs

RESULTS = Path(__file__).parent / "results"
RATES = (3e-3, 1e-2, 3e-2)
BASELINE = "MNRL, no duplicates"


class Set(NamedTuple):
    """Where a data set is, and the budget of its trainings."""

    folder: str
    batch_size: int
    epochs: int


SETS = {
    "nlupp": Set("nlupp/beir", 128, 3),
    "protoqa": Set("protoqa", 128, 3),
    "truthfulqa": Set("truthfulqa", 128, 3),
    "clinc150": Set("clinc150", 128, 1),
    "wordnet": Set("wordnet_reverse", 512, 1),
}


class Contender(NamedTuple):
    """A loss and the sampler that goes with it."""

    loss: Callable[[SentenceTransformer, Dataset], torch.nn.Module]
    sampler: Any


CONTENDERS = {
    BASELINE: Contender(lambda model, pairs: MultipleNegativesRankingLoss(model), BatchSamplers.NO_DUPLICATES),
    "softmax, one line": Contender(lambda model, pairs: SoftmaxLoss(model), BatchSamplers.BATCH_SAMPLER),
    "softmax": Contender(
        lambda model, pairs: SoftmaxLoss(model, positives=known_pairs(pairs)), BatchSamplers.BATCH_SAMPLER
    ),
    "softmax, together": Contender(
        lambda model, pairs: SoftmaxLoss(model, positives=known_pairs(pairs)), MultiPositiveBatchSampler
    ),
    "sigmoid": Contender(
        lambda model, pairs: SigmoidLoss(model, positives=known_pairs(pairs)), BatchSamplers.BATCH_SAMPLER
    ),
}


def root() -> Path:
    given = os.environ.get("SIGMAX_DATA")
    if not given:
        sys.exit("Set SIGMAX_DATA to the folder that holds data/ and models/; see benchmarks/README.md.")
    return Path(given)


def encoder() -> SentenceTransformer:
    return load_pretrained(str(root() / "models" / "potion-base-4m-int8"))


def training_pairs(data: sigmax.MatchDataset) -> Dataset:
    pairs = data.pairs[np.isin(data.pairs[:, 0], data.split("train"))]
    return Dataset.from_dict(
        {"anchor": [data.queries[i] for i in pairs[:, 0]], "positive": [data.candidates[j] for j in pairs[:, 1]]}
    )


def train(
    contender: Contender,
    pairs: Dataset,
    *,
    batch_size: int,
    rate: float,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    **budget: Any,
) -> tuple[SentenceTransformer, float, int]:
    """The trained model, the seconds that the trainer took, and the pairs that it saw."""
    model = encoder()
    loss = contender.loss(model, pairs)
    seen = 0

    def count(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal seen
        seen += len(given[0][0]["offsets"])

    loss.register_forward_pre_hook(count)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=batch_size,
            learning_rate=rate,
            warmup_steps=0.1,
            batch_sampler=contender.sampler,
            seed=seed,
            data_seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
            **budget,
        )
        trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=pairs, loss=loss)
        start = clock()
        trainer.train()
        return model, clock() - start, seen


def average_precision(model: SentenceTransformer, data: sigmax.MatchDataset, split: str) -> np.ndarray:
    """(n,) of each query of the split over all candidates, NaN for a query without a right answer."""
    rows = data.split(split)
    how = {"convert_to_tensor": True, "normalize_embeddings": True, "batch_size": 512, "show_progress_bar": False}
    offered = model.encode(list(data.candidates), **how)
    asked = model.encode([data.queries[i] for i in rows], **how)
    found = [
        ranking_values((asked[start : start + 500] @ offered.T).numpy(), data.graph[part].toarray().astype(bool))["map"]
        for start in range(0, len(rows), 500)
        for part in [rows[start : start + 500]]
    ]
    return np.concatenate(found)


def quality(name: str, seeds: int, labels: list[str], batch_size: int | None, epochs: int | None) -> dict[str, Any]:
    folder = SETS[name].folder
    batch_size, epochs = batch_size or SETS[name].batch_size, epochs or SETS[name].epochs
    data = sigmax.load_data(root() / "data" / folder)
    pairs = training_pairs(data)
    answers = data.answer_counts[data.split("test")]
    groups = {"all": answers > 0, "one right answer": answers == 1, "several right answers": answers > 1}
    groups = {group: mask for group, mask in groups.items() if mask.sum() >= 20}
    weights = bootstrap_weights(len(answers))
    draws: dict[str, dict[str, np.ndarray]] = {}
    rows = {}
    for label in [BASELINE, *(label for label in labels if label != BASELINE)]:
        contender = CONTENDERS[label]
        on_dev = {}
        for rate in RATES:
            model, *_ = train(contender, pairs, batch_size=batch_size, rate=rate, num_train_epochs=epochs)
            on_dev[rate] = float(np.nanmean(average_precision(model, data, "dev")))
        best = max(on_dev, key=on_dev.__getitem__)
        per_seed, seconds, seen = [], 0.0, 0
        for seed in range(seeds):
            model, took, count = train(
                contender, pairs, batch_size=batch_size, rate=best, seed=seed, num_train_epochs=epochs
            )
            per_seed.append(average_precision(model, data, "test"))
            seconds, seen = seconds + took, seen + count
        draws[label] = {
            group: combine_seeds([mean_statistic(np.where(mask, one, np.nan))(weights) for one in per_seed])
            for group, mask in groups.items()
        }
        rows[label] = {
            "learning_rate": best,
            "dev_map": on_dev,
            "seconds": seconds / seeds,
            "pairs_a_second": seen / seconds,
            "pairs_seen": seen / seeds,
            "map": {group: estimate(one).as_dict() for group, one in draws[label].items()},
            "difference": {
                group: difference(one, draws[BASELINE][group]).as_dict() for group, one in draws[label].items()
            },
        }
        shown = "  ".join(
            f"{group} {row['value']:.4f} ({rows[label]['difference'][group]['value']:+.4f}, "
            f"{rows[label]['difference'][group]['low']:+.4f} to {rows[label]['difference'][group]['high']:+.4f})"
            for group, row in rows[label]["map"].items()
        )
        print(f"{name:11} {label:20} rate {best:g}  {seen / seconds:7.0f} pairs/s  MAP {shown}", flush=True)
    return {
        "batch_size": batch_size,
        "epochs": epochs,
        "training_pairs": len(pairs),
        "candidates": len(data.candidates),
        "test_queries": {group: int(mask.sum()) for group, mask in groups.items()},
        "contenders": rows,
    }


def speed(label: str, batch_size: int, steps: int) -> dict[str, float]:
    """Pairs a second of the whole trainer, sampler, tokens and optimiser included, and the memory it adds.

    Seconds are those of the processor, on one thread, so that what else the machine does counts for less.
    """
    torch.set_num_threads(1)
    data = sigmax.load_data(root() / "data" / SETS["wordnet"].folder)
    pairs = training_pairs(data)
    train(CONTENDERS[label], pairs, batch_size=256, rate=1e-3, max_steps=2)  # what is loaded on first use
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, seconds, seen = train(
        CONTENDERS[label], pairs, batch_size=batch_size, rate=1e-3, clock=time.process_time, max_steps=steps
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"pairs_a_second": seen / seconds, "seconds": seconds, "pairs": seen, "mib": (peak - before) / 1024}


def speeds(batch_size: int, steps: int, rounds: int, labels: list[str]) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {label: [] for label in labels}
    for _ in range(rounds):  # every contender once a round, so that what else the machine does meets all alike
        for label in labels:
            command = [sys.executable, __file__, "speed-of", label, str(batch_size), str(steps)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            found[label].append(json.loads(done.stdout.splitlines()[-1]))
    rows = {
        label: {key: float(np.median([one[key] for one in runs])) for key in runs[0]} for label, runs in found.items()
    }
    for label, row in rows.items():
        ratio = row["pairs_a_second"] / rows[BASELINE]["pairs_a_second"]
        print(f"{label:20} {row['pairs_a_second']:8.0f} pairs/s  × {ratio:.2f}  {row['mib']:7.0f} MiB", flush=True)
    return {"batch_size": batch_size, "steps": steps, "rounds": rounds, "contenders": rows, "runs": found}


def parts(batch_size: int = 4096, rounds: int = 5) -> dict[str, Any]:
    """Seconds of each part of a step, medians."""
    data = sigmax.load_data(root() / "data" / SETS["wordnet"].folder)
    pairs, model = training_pairs(data), encoder()
    ours, theirs = SoftmaxLoss(model, positives=known_pairs(pairs)), MultipleNegativesRankingLoss(model)
    rows = next(iter(MultiPositiveBatchSampler(pairs, batch_size, True)))
    batch = pairs[rows]
    features = [model.preprocess(batch[column]) for column in ("anchor", "positive")]

    def step(loss: torch.nn.Module) -> None:
        model.zero_grad()
        loss([dict(column) for column in features], None).backward()

    measured = {
        "rows of the data set": lambda: pairs[rows],
        "tokens": lambda: [model.preprocess(batch[column]) for column in ("anchor", "positive")],
        "which are right": lambda: ours._matches(features, None),
        "softmax, forward and backward": lambda: step(ours),
        "MNRL, forward and backward": lambda: step(theirs),
    }
    found = {}
    for name, work in measured.items():
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        found[name] = float(np.median(times))
        print(f"{name:32} {found[name] * 1000:8.1f} ms", flush=True)
    return {"batch_size": batch_size, "seconds": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["quality", "speed", "parts", "speed-of"])
    parser.add_argument("names", nargs="*", help="quality: data sets")
    parser.add_argument("--contenders", default=";".join(CONTENDERS), help="some of them, with ; between")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=None, help="default: 4,096; quality: that of the data set")
    parser.add_argument("--epochs", type=int, default=None, help="quality; default: those of the data set")
    parser.add_argument("--steps", type=int, default=11, help="speed: an epoch of wordnet at a batch of 4,096")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for noisy in ("sentence_transformers", "transformers", "datasets"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if given.what == "speed-of":
        label, batch_size, steps = given.names
        print(json.dumps(speed(label, int(batch_size), int(steps))))
        return
    if given.what == "quality":
        for name in given.names or SETS:
            found = quality(name, given.seeds, given.contenders.split(";"), given.batch_size, given.epochs)
            write(f"quality-{name}{f'-{given.batch_size}' if given.batch_size else ''}", found)
    elif given.what == "speed":
        write("speed", speeds(given.batch_size or 4096, given.steps, given.rounds, given.contenders.split(";")))
    else:
        write("parts", parts(given.batch_size or 4096))


def write(name: str, result: dict[str, Any]) -> None:
    about = {
        "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "system": platform.system(),
        },
        "versions": {name: metadata.version(name) for name in ("torch", "sentence-transformers", "transformers")},
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{about['date']}-sentence-transformers-{name}.json"
    file.write_text(json.dumps(about | result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
