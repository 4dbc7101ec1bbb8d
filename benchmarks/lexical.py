"""Text pairs with and without shared words, beside ten lines of BM25; the time that words take per query.

    python benchmarks/lexical.py DATA [DATA …] --encoder ngrams --seeds 3 --without --keep runs/lexical
    python benchmarks/lexical.py DATA --encoder all-MiniLM-L6-v2 --frozen --seeds 1 --keep runs/lexical

Everything is chosen on dev, test is looked at once per seed; all differences are paired query by query. The sets are
public: SelQA (github.com/emorynlp/selqa), MedQuAD (github.com/abachaa/MedQuAD), TruthfulQA, WebQuestions, ProtoQA
(github.com/iesl/protoqa-data), definitions of WordNet, each as a BEIR folder; `emoji` comes with Sigmax.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import Stemmer

import sigmax
from sigmax.data import MatchDataset
from sigmax.encoders.bm25 import fit_lexical
from sigmax.evaluation import evaluate
from sigmax.metrics.intervals import bootstrap_weights, combine_seeds, difference, estimate, mean_statistic
from sigmax.metrics.ranking import ranking_values

#: Tried by the ten lines, on dev.
SATURATIONS = [(k1, b) for k1 in (0.9, 1.2, 1.5) for b in (0.4, 0.75)]
SHOWN = ("map", "mrr", "precision@1", "log_loss")
SPLITS = ("dev", "test")

Draws = dict[str, np.ndarray]


def ten_lines(data: MatchDataset) -> Draws:
    """MAP of BM25 as people write it, stemmed, k₁ and b from dev, each with its bootstrap draws."""
    stemmer = Stemmer.Stemmer("english")
    tokens = bm25s.tokenize(list(data.candidates), stemmer=stemmer, show_progress=False)
    found: dict[tuple[float, float, str], np.ndarray] = {}

    def values(k1: float, b: float, split: str) -> np.ndarray:
        rows = data.split(split)
        queries = bm25s.tokenize(
            [str(data.queries[i]) for i in rows], stemmer=stemmer, return_ids=False, show_progress=False
        )
        known = [[word for word in words if word in search.vocab_dict] for words in queries]
        scores = [search.get_scores(words) if words else np.zeros(len(data.candidates)) for words in known]
        right = data.graph[rows].toarray().astype(bool)
        return ranking_values(np.array(scores, np.float32), right)["map"]

    for k1, b in SATURATIONS:
        search = bm25s.BM25(k1=k1, b=b)
        search.index(tokens, show_progress=False)
        for split in SPLITS:
            found[k1, b, split] = values(k1, b, split)
    k1, b = max(SATURATIONS, key=lambda pair: np.nanmean(found[(*pair, "dev")]))
    return {
        f"{split} map": mean_statistic(found[k1, b, split])(bootstrap_weights(len(found[k1, b, split])))
        for split in SPLITS
    }


def trained(data: MatchDataset, settings: sigmax.Settings) -> Draws:
    """Metrics of a model with their bootstrap draws, and what it took."""
    begin, processor = time.perf_counter(), time.process_time()
    model = sigmax.train(data, settings)
    seconds = time.perf_counter() - begin, time.process_time() - processor
    found: Draws = {"seconds": np.array(seconds)}
    for split in SPLITS:
        evaluation = evaluate(model, data, split=split)
        found |= {f"{split} {name}": evaluation.draws[name] for name in SHOWN}
    return found


def milliseconds(data: MatchDataset) -> Draws:
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
    return {"count": np.array(statistics.median(count)), "score": np.array(statistics.median(score))}


def kept(file: Path | None, made: Any) -> Draws:
    """What was measured before, or is now."""
    if file is not None and file.exists():
        return dict(np.load(file))
    found: Draws = made()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **found)
    return found


def combined(runs: list[Draws]) -> dict[str, Any]:
    """Each run, and all of them together: their intervals cover other queries and other seeds."""
    each = [
        {
            "seed": seed,
            "train_seconds": float(run["seconds"][0]),
            "train_processor_seconds": float(run["seconds"][1]),
            **{split: {name: estimate(run[f"{split} {name}"]).as_dict() for name in SHOWN} for split in SPLITS},
        }
        for seed, run in enumerate(runs)
    ]
    together = {
        split: {name: estimate(combine_seeds([run[f"{split} {name}"] for run in runs])).as_dict() for name in SHOWN}
        for split in SPLITS
    }
    return {"seeds": each, **together}


def measured(data: MatchDataset, given: argparse.Namespace, encoder: str | None, file: Path) -> None:
    """Measure one data set, and write after each training what there is."""
    keep: Path | None = given.keep
    stem = f"{data.name}-{encoder or 'default'}{'-frozen' if given.frozen else ''}-{given.loss}"
    bm25 = kept(keep and keep / f"{data.name}-bm25s.npz", lambda: ten_lines(data))
    times = kept(keep and keep / f"{data.name}-times.npz", lambda: milliseconds(data))
    result: dict[str, Any] = {"data": data.name, "encoder": encoder, "frozen": given.frozen, "loss": given.loss}
    result["queries"] = {name: len(rows) for name, rows in data.splits.items()}
    result["candidates"] = len(data.candidates)
    result["bm25s_map"] = {split: estimate(bm25[f"{split} map"]).as_dict() for split in SPLITS}
    result["milliseconds_per_query"] = {name: float(value) for name, value in times.items()}
    print(data.name, "BM25, ten lines", result["bm25s_map"]["test"], result["milliseconds_per_query"], flush=True)
    runs: dict[str, list[Draws]] = {}
    for seed in range(given.seeds):
        for words in ("with_words", "without_words") if given.without else ("with_words",):
            settings = sigmax.Settings(
                loss=given.loss,
                encoder=given.encoder,
                frozen=given.frozen,
                lexical=words == "with_words",
                seed=seed,
            )
            runs.setdefault(words, []).append(
                kept(keep and keep / f"{stem}-{words}-{seed}.npz", lambda s=settings: trained(data, s))
            )
            maps = {name: combine_seeds([run["test map"] for run in made]) for name, made in runs.items()}
            result |= {name: combined(made) for name, made in runs.items()}
            result["map_less_bm25s"] = {
                name: difference(values, bm25["test map"]).as_dict() for name, values in maps.items()
            }
            if given.without and len({len(made) for made in runs.values()}) == 1 and len(runs) == 2:
                for name in SHOWN:
                    both = [combine_seeds([run[f"test {name}"] for run in made]) for made in runs.values()]
                    result.setdefault("words_less_none", {})[name] = difference(*both).as_dict()
            file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            last = runs[words][-1]
            print(
                stem,
                words,
                seed,
                " ".join(f"{split} {name} {last[f'{split} {name}'][0]:.4f}" for split in SPLITS for name in SHOWN),
                f"{last['seconds'][1]:.0f} s",
                flush=True,
            )
    print(json.dumps({name: result[name] for name in ("map_less_bm25s", "words_less_none") if name in result}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--encoder")
    parser.add_argument("--frozen", action="store_true", help="keep the encoder as it is")
    parser.add_argument("--loss", default="softmax-decoupled")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--without", action="store_true", help="train without words, too")
    parser.add_argument("--keep", type=Path, help="folder for what was measured: an interrupted run goes on from there")
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    for source in given.data:
        data = sigmax.load_data(source)
        encoder = given.encoder and Path(given.encoder).name
        frozen = "-frozen" if given.frozen else ""
        measured(
            data,
            given,
            encoder,
            given.o / f"{date.today()}-lexical-{data.name}-{encoder or 'default'}{frozen}-{given.loss}.json",
        )


if __name__ == "__main__":
    main()
