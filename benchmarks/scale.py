"""How far it goes: memory and time of training, evaluation and matching against the number of candidates.

    python benchmarks/scale.py                        1,000, 20,000 and 100,000 candidates
    python benchmarks/scale.py --candidates 1000000
    python benchmarks/scale.py --stage step --candidates 20000 200000    a training step

Made data: titles of five words from a vocabulary of a third as many words as there are titles (at most 60,000), queries
of three words of one title in another order, one query in ten of words that no title has. Every stage is a process of
its own, so that its memory is its own: the largest resident size that the system reports. "product" is the bare
product of the queries' and the candidates' vectors, in blocks of rows, with nothing kept.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUERIES = 2000
STAGES = ("train", "evaluate", "match", "product")
#: Steps of each turn that are timed, and those before them.
STEPS, BEFORE = 40, 30


def made(candidates: int, *, train: int = 4000) -> object:
    """Titles and queries; the same for the same number."""
    import numpy as np

    from sigmax.data import MatchDataset

    random = np.random.default_rng(candidates)
    words = min(60_000, max(300, candidates // 3))
    titles = random.integers(words, size=(candidates, 5))
    names = [f"{number:x}".translate(str.maketrans("0123456789abcdef", "bcdfghjklmnpqrst")) for number in range(words)]
    names = [f"{name}{'aeiou'[place % 5]}{name[::-1]}" for place, name in enumerate(names)]
    total = train + 2 * QUERIES
    right = random.integers(candidates, size=total)
    answered = random.random(total) < 0.9
    texts, pairs = [], []
    for i in range(total):
        chosen = random.permutation(5)[:3]
        if answered[i]:
            texts.append(" ".join(names[word] for word in titles[right[i], chosen]))
            pairs.append((i, int(right[i])))
        else:
            texts.append(" ".join(f"{names[word]}xy" for word in random.integers(words, size=3)))
    splits = np.split(np.arange(total), [train, train + QUERIES])
    return MatchDataset(
        f"made-{candidates}",
        texts,
        [" ".join(names[word] for word in title) for title in titles],
        np.array(pairs),
        dict(zip(("train", "dev", "test"), splits, strict=True)),
        candidate_ids=[f"t{number}" for number in range(candidates)],
    )


def stage(name: str, candidates: int, folder: Path) -> dict[str, float]:
    """One stage, in this process: seconds beyond the imports."""
    import torch

    import sigmax
    from sigmax.evaluation import evaluate
    from sigmax.model.dual_encoder import load
    from sigmax.training.settings import Settings
    from sigmax.training.train import train

    data = made(candidates) if name != "match" else None
    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    begin = time.perf_counter()
    found: dict[str, float] = {}
    if name == "train":
        model = train(data, Settings(steps=40), stop_early=False, calibrated=False)
        found["train_seconds"] = time.perf_counter() - begin
        begin = time.perf_counter()
        sigmax.calibrate(model, data)
        found["calibrate_seconds"] = time.perf_counter() - begin
        begin = time.perf_counter()
        model.save(folder)
        found["save_seconds"] = time.perf_counter() - begin
    elif name == "evaluate":
        model = load(folder)
        found["load_seconds"] = time.perf_counter() - begin
        begin = time.perf_counter()
        result = evaluate(model, data)
        found["seconds"] = time.perf_counter() - begin
        found["map"] = result["map"].value
        found["log_loss"] = result["log_loss"].value
    elif name == "match":
        model = load(folder)
        found["load_seconds"] = time.perf_counter() - begin
        begin = time.perf_counter()
        model.match("bac cac dad")
        found["first_match_seconds"] = time.perf_counter() - begin
        begin = time.perf_counter()
        for _ in range(5):
            model.match("bac cac dad")
        found["next_match_seconds"] = (time.perf_counter() - begin) / 5
    else:
        model = load(folder)
        queries = model.vectors([data.queries[i] for i in data.split("test")]).dense
        vectors = model.candidate_vectors(data.candidates).dense
        height = max(1, 2**27 // len(vectors))
        begin = time.perf_counter()
        for top in range(0, len(queries), height):
            for left in range(0, len(vectors), 2**14):
                torch.mm(queries[top : top + height], vectors[left : left + 2**14].T)
        found["seconds"] = time.perf_counter() - begin
    found["imports_and_data_gb"] = imports
    found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def step(candidates: int) -> dict[str, object]:
    """A training step, in turn with dense gradients and dense AdamW, and with those of the rows read: milliseconds.

    Processor time of forward, backward and optimizer, one thread, without shared words; the median of the steps. The
    features of texts are there, as in every epoch but the first.
    """
    import numpy as np
    import torch

    from sigmax.data.batches import Batches
    from sigmax.encoders import rows
    from sigmax.training.settings import Settings
    from sigmax.training.train import build_model
    from sigmax.training.trainer import _Steps, make_optimizer

    torch.set_num_threads(1)
    data = made(candidates)
    settings = Settings(encoder="ngrams", steps=STEPS + BEFORE, lexical=False).filled(data)
    batches = Batches(data, batch_size=settings.batch_size, steps=settings.steps)
    model = build_model(data, settings, batches)
    items = _Steps(model, batches, None)
    start = {name: values.clone() for name, values in model.state_dict().items()}
    read = items[0]["queries"]["input_ids"], items[0]["candidates"]["input_ids"]
    found: dict[str, object] = {
        "ngrams": model.query_encoder.table.num_embeddings,
        "rows_of_a_batch": len(torch.cat(read).unique()),
    }
    default = rows.MANY
    for turn in range(2):
        for way, many in (("dense", 0.0), ("rows", default)):
            model.load_state_dict(start)
            model.train()
            rows.MANY = many
            optimizer = make_optimizer(model, settings)
            taken, assembled = [], []
            for number in range(STEPS + BEFORE):
                before = time.process_time()
                item = items[number]
                begin = time.process_time()
                model(**item)["loss"].backward()
                optimizer.step()
                optimizer.zero_grad()
                taken.append(time.process_time() - begin)
                assembled.append(begin - before)
            begin = time.process_time()
            optimizer.settle()
            found[f"{way}_{turn + 1}_settle_ms"] = 1e3 * (time.process_time() - begin)
            optimizer.close()
            found[f"{way}_{turn + 1}_ms"] = 1e3 * float(np.median(taken[BEFORE:]))
            found[f"{way}_{turn + 1}_features_ms"] = 1e3 * float(np.median(assembled[BEFORE:]))
    return found


def main() -> None:
    """Measure, print, and write the results beside the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, nargs="+", default=[1_000, 20_000, 100_000])
    parser.add_argument("--stage", choices=(*STAGES, "step"))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="write the results here, as JSON")
    given = parser.parse_args()
    if given.stage and given.stage != "step":
        print(json.dumps(stage(given.stage, given.candidates[0], given.folder)))
        return
    rows = []
    if given.stage:
        for candidates in given.candidates:
            rows.append({"candidates": candidates, **step(candidates)})
            print(json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in rows[-1].items()}), flush=True)
        write(given.output, rows)
        return
    with tempfile.TemporaryDirectory() as scratch:
        for candidates in given.candidates:
            for name in STAGES:
                command = [sys.executable, __file__, "--stage", name, "--candidates", str(candidates)]
                done = subprocess.run(
                    [*command, "--folder", str(Path(scratch, str(candidates)))],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    sys.exit(f"{name} at {candidates}: {done.stderr[-2000:]}")
                row = {"candidates": candidates, "stage": name, **json.loads(done.stdout.splitlines()[-1])}
                rows.append(row)
                print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}), flush=True)
    write(given.output, rows)


def write(output: Path | None, rows: list[dict[str, object]]) -> None:
    """Write results beside what they were measured on."""
    if output is None:
        return
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "queries": QUERIES,
        "rows": rows,
    }
    output.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
