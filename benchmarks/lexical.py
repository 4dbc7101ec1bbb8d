"""Text pairs with and without shared words, beside ten lines of BM25; the time that words take per query.

    python benchmarks/lexical.py DATA [DATA …] --encoder ngrams --seeds 3 -o benchmarks/results

Everything is chosen on dev, test is looked at once per seed. The sets are public: SelQA (github.com/emorynlp/selqa),
MedQuAD (github.com/abachaa/MedQuAD), TruthfulQA, WebQuestions, each as a BEIR folder; `emoji` comes with Sigmax.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from datetime import date
from pathlib import Path

import bm25s
import numpy as np
import Stemmer

import sigmax
from sigmax.encoders.bm25 import fit_lexical
from sigmax.evaluation import evaluate
from sigmax.metrics.ranking import ranking_values

#: Tried by the ten lines, on dev.
SATURATIONS = [(k1, b) for k1 in (0.9, 1.2, 1.5) for b in (0.4, 0.75)]


def ten_lines(data) -> float:
    """MAP on test of BM25 as people write it, stemmed, k₁ and b from dev."""
    tokens = bm25s.tokenize(list(data.candidates), stemmer=Stemmer.Stemmer("english"), show_progress=False)
    found = {}
    for k1, b in SATURATIONS:
        search = bm25s.BM25(k1=k1, b=b)
        search.index(tokens, show_progress=False)
        for split in ("dev", "test"):
            rows = data.split(split)
            queries = bm25s.tokenize(
                [str(data.queries[i]) for i in rows],
                stemmer=Stemmer.Stemmer("english"),
                return_ids=False,
                show_progress=False,
            )
            known = [[word for word in words if word in search.vocab_dict] for words in queries]
            scores = [search.get_scores(words) if words else np.zeros(len(data.candidates)) for words in known]
            right = data.graph[rows].toarray().astype(bool)
            found[k1, b, split] = float(np.nanmean(ranking_values(np.array(scores, np.float32), right)["map"]))
    k1, b = max(SATURATIONS, key=lambda pair: found[(*pair, "dev")])
    return found[k1, b, "test"]


def milliseconds(data) -> dict[str, float]:
    """Median time per query of counting its words and of scoring all candidates by them, one query at a time."""
    view = fit_lexical(data)
    offered = view.tokens(data.candidates, "candidate")
    view.scores(view.tokens(["a"], "query"), offered)
    count, score = [], []
    for i in data.split("test")[:500]:
        begin = time.perf_counter()
        asked = view.tokens([str(data.queries[i])], "query")
        between = time.perf_counter()
        view.scores(asked, offered)
        count.append(1e3 * (between - begin))
        score.append(1e3 * (time.perf_counter() - between))
    return {"count": statistics.median(count), "score": statistics.median(score)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--encoder")
    parser.add_argument("--loss", default="softmax-decoupled")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--without", action="store_true", help="train without words, too")
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    for source in given.data:
        data = sigmax.load_data(source)
        encoder = given.encoder and Path(given.encoder).name
        result = {"data": data.name, "encoder": encoder, "loss": given.loss, "bm25s_map": ten_lines(data)}
        result["milliseconds_per_query"] = milliseconds(data)
        for lexical in (True, False) if given.without else (True,):
            runs = []
            for seed in range(given.seeds):
                begin = time.perf_counter()
                settings = sigmax.Settings(loss=given.loss, encoder=given.encoder, lexical=lexical, seed=seed)
                model = sigmax.train(data, settings)
                seconds = time.perf_counter() - begin
                measured = {
                    split: {
                        name: one.as_dict()
                        for name in ("map", "mrr", "precision@1", "log_loss")
                        for one in [evaluate(model, data, split=split)[name]]
                    }
                    for split in ("dev", "test")
                }
                runs.append({"seed": seed, "train_seconds": seconds, **measured})
                print(data.name, "words" if lexical else "none", seed, measured["test"]["map"], f"{seconds:.0f} s")
            result["with_words" if lexical else "without"] = runs
        print(data.name, "BM25, ten lines", result["bm25s_map"], result["milliseconds_per_query"])
        name = f"{date.today()}-lexical-{data.name}-{encoder or 'default'}-{given.loss}.json"
        (given.o / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
