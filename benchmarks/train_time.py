"""Where the time of one training goes, beside the ten lines that one writes today.

Usage: python benchmarks/train_time.py DATA=ENCODER,… [DATA=ENCODER,… …] [--rounds 3] [--network-steps 40]

DATA is anything that Sigmax reads; ENCODER is one of Sigmax's, a folder or a model by name, with ":frozen" to keep it
as it is, or one of the baselines: svm (LinearSVC, calibrated by scikit-learn), lr (its logistic regression), fasttext,
bm25s. Example:

    python benchmarks/train_time.py emoji=ngrams,bm25s clinc150=ngrams,ngrams-linear,svm,lr,fasttext

Each training runs in a process of its own, from its start to a model calibrated on dev, all in turn, `--rounds` times;
seconds are those of the processor, medians over rounds. A network over tokens or pictures gets `--network-steps` steps:
how its time divides, not how long it takes. Ranking on test (MAP, P@1 over the queries with a right answer) is measured
after the clock has stopped. Data that today's file holds already are replaced in it, others kept. fastText's wheel need
not be in the same environment: PYTHONPATH finds it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
START = "start-up"
REST = "rest"


class Clock:
    """Processor time by stage; what a stage calls that has a stage of its own is not counted twice."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.spent[START] = self.at = time.process_time()
        self.stack = [REST]

    def _switch(self) -> None:
        now = time.process_time()
        self.spent[self.stack[-1]] += now - self.at
        self.at = now

    def begin(self, stage: str) -> None:
        """Go into a stage."""
        self._switch()
        self.stack.append(stage)

    def end(self) -> None:
        """Go back to the stage before."""
        self._switch()
        self.stack.pop()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what the block takes under a stage."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Count the time of a function or method under a stage."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def timed(*args: Any, **named: Any) -> Any:
            with self.stage(stage):
                return inner(*args, **named)

        setattr(owner, name, timed)

    def done(self) -> dict[str, float]:
        """Return seconds by stage."""
        self._switch()
        return dict(self.spent)


def sigmax_training(data: str, encoder: str, steps: int) -> dict[str, Any]:
    """Train one model with its stages timed."""
    import torch

    import sigmax
    from sigmax.data.batches import Batches
    from sigmax.model.dual_encoder import DualEncoder

    train, trainer = (importlib.import_module(f"sigmax.training.{name}") for name in ("train", "trainer"))
    hooks: Any = importlib.import_module("torch.optim.optimizer")
    clock = Clock()
    with clock.stage("reading"):
        loaded = sigmax.load_data(data)
    clock.wrap(train, "build_model", "vocabulary, towers")
    for name in ("fit_lexical", "start_lexical", "nearest_wrong", "weigh_views"):
        clock.wrap(train, name, "shared words")
    clock.wrap(trainer._Steps, "__getitem__", "features of batches")
    clock.wrap(Batches, "__getitem__", "drawing batches")
    clock.wrap(DualEncoder, "forward", "forward")
    clock.wrap(torch.Tensor, "backward", "backward")
    hooks.register_optimizer_step_pre_hook(lambda *_: clock.begin("optimizer"))
    hooks.register_optimizer_step_post_hook(lambda *_: clock.end())
    clock.wrap(trainer, "quick_metrics", "dev metrics")
    clock.wrap(trainer._KeepBest, "on_evaluate", "best epoch kept")
    clock.wrap(train, "solve_with_names", "solver")
    for name in ("remember", "calibrate"):
        clock.wrap(train, name, "calibration")
    name, _, frozen = encoder.partition(":")
    settings = sigmax.Settings(encoder=name, frozen=bool(frozen))
    defaults = settings.filled(loaded).defaults
    short = not (defaults.quick or defaults.solved)
    made = train.train(loaded, sigmax.Settings(encoder=name, frozen=bool(frozen), steps=steps if short else None))
    seconds = clock.done()
    return {"seconds": seconds, "steps": made.facts["steps"], "short": short, "test": ranked(made, loaded)}


def ranked(model: Any, data: Any) -> dict[str, float]:
    """MAP and P@1 on test."""
    from sigmax.evaluation import quick_metrics

    found = quick_metrics(model, data, split="test")
    return {name: found[name] for name in ("map", "precision@1")}


# -- ten lines -----------------------------------------------------------------------------------


class Ranker:
    """Scores as Sigmax reads them."""

    calibrator = None

    def __init__(self, scores: Callable[[list[Any]], np.ndarray]) -> None:
        self.scores = scores

    def logits(self, queries: Any, candidates: Any) -> Any:
        """Return the scores as logits."""
        from sigmax.arrays import Logits

        return Logits(np.asarray(self.scores(list(queries)), np.float32))


def _train_part(data: Any) -> tuple[list[Any], np.ndarray, bool]:
    """Training queries, their labels, and whether each has exactly one; queries without a label are left out then."""
    rows = data.split("train")
    right = data.graph[rows].toarray().astype(bool)
    one = bool(right.sum(1).max() == 1)
    if one:
        rows, right = rows[right.any(1)], right[right.any(1)]
    return [data.queries[i] for i in rows], right, one


def linear(data: Any, make: Callable[[], Any]) -> Ranker:
    """Tf-idf of words and characters, or pixels, and a linear classifier of scikit-learn."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_union

    queries, right, one = _train_part(data)
    if data.pictures:
        read = lambda items: np.stack([np.asarray(item.image(), np.float32).ravel() / 255 for item in items])  # noqa: E731
    else:
        union = make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
        ).fit(queries)
        read = union.transform
    model = make() if one else OneVsRestClassifier(make())
    model.fit(read(queries), right.argmax(1) if one else right)
    known = model.classes_ if one else np.arange(right.shape[1])

    def scores(items: list[Any]) -> np.ndarray:
        found = np.full((len(items), right.shape[1]), -1e9, np.float32)
        found[:, known] = model.predict_proba(read(items))
        return found

    return Ranker(scores)


def svm(data: Any) -> Ranker:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import LinearSVC

    return linear(data, lambda: CalibratedClassifierCV(LinearSVC()))


def lr(data: Any) -> Ranker:
    from sklearn.linear_model import LogisticRegression

    return linear(data, lambda: LogisticRegression(C=30.0, max_iter=1000))


def fasttext(data: Any) -> Ranker:
    """As its tutorial ends: 25 epochs, word pairs, characters; one-against-all where there are several labels."""
    import fasttext as peer

    queries, right, one = _train_part(data)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "train.txt")
        lines = (
            " ".join([*(f"__label__{j}" for j in np.flatnonzero(row)), " ".join(str(query).split())])
            for query, row in zip(queries, right, strict=True)
            if row.any()
        )
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        loss = "softmax" if one else "ova"
        model = peer.train_supervised(
            str(file), epoch=25, lr=0.5, wordNgrams=2, minn=2, maxn=5, loss=loss, thread=1, verbose=0
        )

    def scores(items: list[Any]) -> np.ndarray:
        found = np.full((len(items), right.shape[1]), -1e9, np.float32)
        for row, item in enumerate(items):
            for share, label in model.f.predict(" ".join(str(item).split()) + "\n", right.shape[1], -1.0, "strict"):
                found[row, int(label.removeprefix("__label__"))] = share
        return found

    return Ranker(scores)


def bm25s(data: Any) -> Ranker:
    import bm25s as peer
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    index = peer.BM25()
    index.index(peer.tokenize(list(data.candidates), stemmer=stemmer, show_progress=False), show_progress=False)

    def scores(items: list[Any]) -> np.ndarray:
        known = index.vocab_dict
        words = peer.tokenize(items, stemmer=stemmer, show_progress=False, return_ids=False)
        found = [[word for word in one if word in known] for one in words]
        empty = np.zeros(len(data.candidates), np.float32)
        return np.stack([index.get_scores(one) if one else empty for one in found])

    return Ranker(scores)


#: The packages that are heavy to import, so that start-up can be told apart.
BASELINES: dict[str, tuple[Callable[[Any], Ranker], str]] = {
    "svm": (svm, "sklearn.svm sklearn.calibration sklearn.multiclass sklearn.feature_extraction.text"),
    "lr": (lr, "sklearn.linear_model sklearn.multiclass sklearn.feature_extraction.text"),
    "fasttext": (fasttext, "fasttext"),
    "bm25s": (bm25s, "bm25s Stemmer"),
}


def baseline(data: str, name: str) -> dict[str, Any]:
    """Fit a baseline; the data come in Sigmax's form, whose reading is counted apart."""
    fit, packages = BASELINES[name]
    for package in packages.split():
        importlib.import_module(package)
    clock = Clock()
    with clock.stage("reading"):
        import sigmax

        loaded = sigmax.load_data(data)
    with clock.stage("fitting"):
        model = fit(loaded)
    seconds = clock.done()
    return {"seconds": seconds, "test": ranked(model, loaded)}


# -- in turn -------------------------------------------------------------------------------------


def one(data: str, encoder: str, steps: int) -> dict[str, Any]:
    """Train in a process of its own."""
    words = [sys.executable, __file__, "--one", data, encoder, "--network-steps", str(steps)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{encoder} on {data} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def short_name(text: str) -> str:
    """A folder's or package's name without where it lies."""
    return Path(text.partition(":")[0]).name + ("" if ":" not in text else ", frozen")


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """What the processor calls itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", metavar="DATA=ENCODER,…")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network-steps", type=int, default=40)
    parser.add_argument("--note", default="", help="about the machine, such as that others use it")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        data, encoder = given.one
        made = baseline(data, encoder) if encoder in BASELINES else sigmax_training(data, encoder, given.network_steps)
        print(json.dumps(made))
        return
    asked = [
        (data, name) for pair in given.pairs for data, _, names in [pair.partition("=")] for name in names.split(",")
    ]
    if not asked:
        parser.error("expected DATA=ENCODER,…")
    rounds: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    file = RESULTS / f"{date}-train-time.json"
    before = json.loads(file.read_text(encoding="utf-8"))["results"] if file.exists() else []
    for number in range(given.rounds):
        for data, name in asked:
            found = one(data, name, given.network_steps)
            rounds[data, name].append(found)
            total = sum(found["seconds"].values())
            print(f"{number + 1}: {short_name(data)} {short_name(name)} {total:.2f} s {found['test']}", flush=True)
        results = [summary(data, name, made) for (data, name), made in rounds.items()]
        record = {
            "date": date,
            "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()},
            "note": given.note,
            "load": os.getloadavg()[0],
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "versions": {
                name: version_of(name) for name in ("sigmax", "torch", "scikit-learn", "bm25s", "fasttext-wheel")
            },
            "network_steps": given.network_steps,
            "results": [*(one for one in before if one["data"] not in {two["data"] for two in results}), *results],
        }
        RESULTS.mkdir(exist_ok=True)
        file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for result in results:
        spent = sorted(result["seconds"].items(), key=lambda item: -item[1])
        told = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in spent if seconds >= 0.005)
        print(f"{result['data']:16} {result['encoder']:24} {result['total']:7.2f} s: {told}")


def summary(data: str, name: str, made: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over rounds, and every round."""
    stages = dict.fromkeys(stage for one in made for stage in one["seconds"])
    seconds = {stage: statistics.median(one["seconds"].get(stage, 0.0) for one in made) for stage in stages}
    totals = [sum(one["seconds"].values()) for one in made]
    about = {key: made[0].get(key) for key in ("steps", "short", "test")}
    return {
        "data": short_name(data),
        "encoder": short_name(name),
        "baseline": name in BASELINES,
        "total": statistics.median(totals),
        "without_start": statistics.median(
            total - one["seconds"][START] for total, one in zip(totals, made, strict=True)
        ),
        "totals": totals,
        "seconds": seconds,
        **about,
    }


if __name__ == "__main__":
    main()
