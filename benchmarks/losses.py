"""On which sets does which loss help? Every loss on the same data, encoder and seed, measured on dev.

    python benchmarks/losses.py emoji DATA… --losses softmax-average,softmax-decoupled,softmax-any,softmax-pairs,sigmoid

For choosing a loss, not for claims about models: test is not looked at. Differences are those to the decoupled softmax,
paired query by query and over seeds.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import sigmax
from sigmax.evaluation import evaluate
from sigmax.metrics.intervals import combine_seeds, difference, estimate

SHOWN = ("map", "precision@1", "log_loss", "micro_f1")
LOSSES = "softmax-decoupled,softmax-average,softmax-any,softmax-pairs,sigmoid"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--losses", default=LOSSES, help="the first is what the others are compared with")
    parser.add_argument("--encoder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    for source in given.data:
        data = sigmax.load_data(source)
        encoder = given.encoder and Path(given.encoder).name
        draws: dict[str, dict[str, list[np.ndarray]]] = {}
        result: dict[str, Any] = {"data": data.name, "encoder": encoder, "split": "dev", "results": {}}
        for seed in range(given.seeds):
            for loss in given.losses.split(","):
                model = sigmax.train(data, sigmax.Settings(loss=loss, encoder=given.encoder, seed=seed), tell=False)
                measured = evaluate(model, data, split="dev").draws
                for name in SHOWN:
                    draws.setdefault(loss, {}).setdefault(name, []).append(measured[name])
                print(data.name, loss, seed, *(f"{name} {measured[name][0]:.4f}" for name in SHOWN), flush=True)
            first = next(iter(draws))
            for loss, values in draws.items():
                both = {name: (combine_seeds(values[name]), combine_seeds(draws[first][name])) for name in SHOWN}
                result["results"][loss] = {
                    "seeds": seed + 1,
                    "dev": {name: estimate(mine).as_dict() for name, (mine, _) in both.items()},
                    f"less_{first}": {name: difference(*two).as_dict() for name, two in both.items()},
                }
            file = given.o / f"{date.today()}-losses-{data.name}-{encoder or 'default'}.json"
            file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
