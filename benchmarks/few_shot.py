"""Few examples per label: Sigmax by default beside logistic regression on the same vectors, labels' names, and SetFit.

    python benchmarks/few_shot.py DATA --shots 1,5,10 --seeds 3 -o benchmarks/results
    python benchmarks/few_shot.py DATA --setfit --shots 1,5 --seeds 1 -o benchmarks/results

DATA holds texts with fixed labels: clinc150 (github.com/clinc/oos-eval), nlupp
(github.com/PolyAI-LDN/task-specific-datasets). For k shots, training queries are drawn until every label has k of them
(or all there are), and k with none of the labels; dev is drawn alike. Everything is chosen and calibrated on that small
dev; test is that of the data. The encoder is all-MiniLM-L6-v2 throughout. --setfit needs the package setfit.
The summary holds means over seeds with intervals over queries and seeds, and paired differences to logistic regression.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import sigmax
from sigmax.data import MatchDataset
from sigmax.encoders.build import build_towers, label_text
from sigmax.encoders.plan import Plan
from sigmax.evaluation import calibrate_logits, evaluate_logits
from sigmax.metrics.intervals import combine_seeds, difference, estimate
from sigmax.scan import SplitLogits
from sigmax.training.names import with_names

SHOWN = ("map", "precision@1", "log_loss", "brier", "micro_f1", "macro_f1")
ENCODER = "all-MiniLM-L6-v2"
MOST_TEST = 2000  #: test queries, so that encoding takes a minute
STEPS = 100  #: of SetFit's contrastive part, 16 pairs each


def shots(data: MatchDataset, split: str, k: int, seed: int) -> np.ndarray:
    """Queries of a split, drawn until every label has k of them, and k with no label where there are some."""
    rows = np.random.default_rng(seed).permutation(data.split(split))
    graph = data.graph[rows].toarray().astype(bool)
    have, none, kept = np.zeros(len(data.candidates), int), 0, []
    for place, right in enumerate(graph):
        wanted = none < k if not right.any() else (have[right] < k).any()
        if wanted:
            kept.append(rows[place])
            have += right
            none += not right.any()
    return np.sort(np.array(kept))


def only(data: MatchDataset, rows: np.ndarray) -> MatchDataset:
    """The data set with some of its queries, the splits as they are."""
    place = np.full(len(data.queries), -1)
    place[rows] = np.arange(len(rows))
    pairs = data.pairs[place[data.pairs[:, 0]] >= 0]
    return replace(
        data,
        queries=[data.queries[i] for i in rows],
        query_ids=(),
        pairs=np.stack([place[pairs[:, 0]], pairs[:, 1]], axis=1),
        splits={name: place[given][place[given] >= 0] for name, given in data.splits.items()},
    )


# -- the ways --------------------------------------------------------------------------------------

Logits = Callable[[np.ndarray], np.ndarray]  #: places of queries -> (n, m)


def ours(data: MatchDataset, loss: str) -> Logits:
    """`sigmax train`, by default but for the loss."""
    model = sigmax.train(data, sigmax.Settings(loss=loss), calibrated=False, tell=False)
    return lambda rows: model.logits([data.queries[i] for i in rows], data.candidates).values


def ten_lines(data: MatchDataset, vectors: np.ndarray) -> Logits:
    """What one writes today: scikit-learn's logistic regression with its own settings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    train = data.split("train")
    right = data.graph[train].toarray()
    if right.sum(1).max() == 1:
        answered = right.any(1)
        model = LogisticRegression(max_iter=1000).fit(vectors[train][answered], right[answered].argmax(1))
    else:
        model = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(vectors[train], right)
    return lambda rows: model.decision_function(vectors[rows])


def names_added(data: MatchDataset, vectors: np.ndarray, names: np.ndarray) -> Logits:
    """The same ten lines, each label's name being one example more."""
    n, m = len(vectors), len(names)
    both = ten_lines(with_names(data, 1), np.concatenate([vectors, names]))
    assert n + m == len(with_names(data, 1).queries)
    return both


def by_name(data: MatchDataset, vectors: np.ndarray, names: np.ndarray) -> Logits:
    """No example at all: the cosine to the label's name, scaled like the encoder's own training did."""
    return lambda rows: 20 * vectors[rows] @ names.T


def setfit(data: MatchDataset) -> Logits:
    """SetFit with its own settings, but for the number of steps: minutes on one core."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    from sigmax.encoders.pretrained import find

    train = data.split("train")
    right = data.graph[train].toarray()
    several = right.sum(1).max() > 1
    if not several:
        train, right = train[right.any(1)], right[right.any(1)]
    labels = right.tolist() if several else right.argmax(1).tolist()
    kind = {"multi_target_strategy": "one-vs-rest"} if several else {}
    model = SetFitModel.from_pretrained(str(find(ENCODER)), **kind)
    rows = Dataset.from_dict({"text": [str(data.queries[i]) for i in train], "label": labels})
    arguments = TrainingArguments(batch_size=16, max_steps=STEPS, output_dir="/dev/null", report_to="none")
    Trainer(model=model, args=arguments, train_dataset=rows).train()

    def logits(asked: np.ndarray) -> np.ndarray:
        return model.model_head.decision_function(model.encode([str(data.queries[i]) for i in asked]))

    return logits


def measured(data: MatchDataset, logits: Logits) -> dict[str, np.ndarray]:
    """Draws of metrics, calibrated on dev, measured on test."""
    split = {
        name: SplitLogits(
            logits(data.split(name)).astype(np.float32),
            data.graph[data.split(name)].toarray().astype(bool),
            data.candidate_ids,
            data=data.name,
            split=name,
        )
        for name in ("dev", "test")
    }
    evaluation = evaluate_logits(split["test"], calibrator=calibrate_logits(split["dev"]))
    return {name: evaluation.draws[name] for name in SHOWN if name in evaluation.draws}


def summary(draws: dict[int, dict[str, list[dict[str, np.ndarray]]]]) -> list[dict[str, Any]]:
    """Means over seeds with intervals, and differences to logistic regression."""
    rows = []
    for k, ways in draws.items():
        mean = {
            way: {name: combine_seeds([one[name] for one in runs]) for name in runs[0]} for way, runs in ways.items()
        }
        for way, values in mean.items():
            row: dict[str, Any] = {"shots": k, "way": way, "seeds": len(ways[way])}
            row["test"] = {name: estimate(value).as_dict() for name, value in values.items()}
            base = "logistic regression"
            if base in mean and way != base and len(ways[base]) == len(ways[way]):
                less = {name: difference(value, mean[base][name]).as_dict() for name, value in values.items()}
                row["less_logistic_regression"] = less
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--shots", default="1,5,10")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--setfit", action="store_true", help="SetFit alone")
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="    %(message)s")
    for noisy in ("sentence_transformers", "setfit", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    data = sigmax.load_data(given.data)
    numbers = [int(part) for part in given.shots.split(",")]
    drawn = {
        (k, seed): {split: shots(data, split, k, seed) for split in ("train", "dev")}
        for k in numbers
        for seed in range(given.seeds)
    }
    test = np.sort(np.random.default_rng(0).permutation(data.split("test"))[:MOST_TEST])
    rows = np.unique(np.concatenate([test, *(part for parts in drawn.values() for part in parts.values())]))
    data, place = only(data, rows), {int(row): i for i, row in enumerate(rows)}

    def at(parts: np.ndarray) -> np.ndarray:
        return np.array([place[int(row)] for row in parts])

    data = replace(data, splits={"train": data.split("train"), "dev": data.split("dev"), "test": at(test)})
    if not given.setfit:
        frozen: Any = build_towers(ENCODER, data, Plan(frozen=True, head="linear")).query  # encodes, or reads the cache
        vectors = frozen.preprocess(data.queries)["vectors"].numpy()
        names = frozen.preprocess([label_text(name) for name in data.candidates])["vectors"].numpy()
    results: list[dict[str, Any]] = []
    draws: dict[int, dict[str, list[dict[str, np.ndarray]]]] = {}
    for (k, seed), parts in drawn.items():
        few = replace(data, splits={name: at(part) for name, part in parts.items()} | {"test": at(test)})
        sizes = {name: len(part) for name, part in few.splits.items()}
        ways: dict[str, Callable[[], Logits]] = {"setfit": lambda few=few: setfit(few)}
        if not given.setfit:
            ways = {
                "sigmax, softmax-decoupled": lambda few=few: ours(few, "softmax-decoupled"),
                "sigmax, sigmoid": lambda few=few: ours(few, "sigmoid"),
                "logistic regression": lambda few=few: ten_lines(few, vectors),
                "logistic regression, names": lambda few=few: names_added(few, vectors, names),
                "names alone": lambda few=few: by_name(few, vectors, names),
            }
        for name, fit in ways.items():
            began = time.process_time()
            measures = measured(few, fit())
            seconds = time.process_time() - began
            draws.setdefault(k, {}).setdefault(name, []).append(measures)
            found = {metric: float(values[0]) for metric, values in measures.items()}
            results.append({"shots": k, "seed": seed, "way": name, "processor_seconds": seconds, **sizes, **found})
            shown = "  ".join(f"{metric} {value:.3f}" for metric, value in found.items())
            print(f"{k:2} shots, seed {seed}, {name:26} {seconds:5.1f} s  {shown}", flush=True)
            about: dict[str, Any] = {"date": str(date.today()), "data": data.name, "encoder": ENCODER}
            about |= {"summary": summary(draws), "results": results}
            kind = "setfit-" if given.setfit else ""
            file = given.o / f"{date.today()}-few-shot-{kind}{Path(given.data).name}.json"
            file.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
