"""The loss on the CPU against the bare matrix products, and beside other libraries' losses.

    python benchmarks/loss_cpu.py                      the table, at 8,192 queries and candidates of d = 384
    python benchmarks/loss_cpu.py --d 128              (or 768)
    python benchmarks/loss_cpu.py --chart              time and memory from 256 to 65,536, d = 128
    python benchmarks/loss_cpu.py --clock processor    processor time, where others use the machine (OMP_NUM_THREADS=1)

All run in rounds, one after the other, so that what else the machine does meets all alike; a ratio is the median of the
ratios inside a round. Memory is the peak above inputs and gradients, each loss in a process of its own. AVX2 instead of
what the processor has: ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2
NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from process import status_bytes
from torch import Tensor, nn
from torch.nn import functional as F

import sigmax

RESULTS = Path(__file__).parent / "results"
HEIGHT = 512  # of the tiles of the bare products, the fastest of 128, 256, 512 and 1,024


# -- what is measured: each makes (queries, candidates) -> a function that runs forward and backward ---------------


def products(count: int, precision: str = "highest") -> Callable[..., Callable[[], None]]:
    """Only the matrix products, in tiles: the logits once (or twice), and a gradient to each side."""

    def make(queries: Tensor, candidates: Tensor) -> Callable[[], None]:
        q, c = queries.detach(), candidates.detach()
        logits, by_query, by_candidate = (
            torch.empty(HEIGHT, len(c)),
            torch.empty(HEIGHT, q.shape[1]),
            torch.zeros_like(c),
        )

        def run() -> None:
            torch.set_float32_matmul_precision(precision)
            for top in range(0, len(q), HEIGHT):
                asked = q[top : top + HEIGHT]
                here = logits[: len(asked)]
                for _ in range(count - 2):
                    torch.mm(asked, c.T, out=here)
                torch.mm(here, c, out=by_query[: len(asked)])
                by_candidate.addmm_(here.T, asked)
            torch.set_float32_matmul_precision("highest")

        return run

    return make


def graph(n: int, m: int, k: int, *, ignored: bool = False) -> sigmax.Positives:
    """Graph with k right answers a query, candidate i among them; with `ignored` as many ignored pairs."""
    rows = torch.arange(n).repeat_interleave(k)
    columns = (rows + 37 * torch.arange(k).repeat(n)) % m
    return sigmax.Positives(rows, columns, (n, m), (rows, (columns + 11) % m) if ignored else None)


def ours(loss: nn.Module, k: int = 1, *, ignored: bool = False, precision: str = "highest", frozen: bool = False):
    """Ours, on vectors as an encoder gives them: normalising is part of it."""

    def make(queries: Tensor, candidates: Tensor) -> Callable[[], None]:
        positives = graph(len(queries), len(candidates), k, ignored=ignored)
        offered = candidates.detach() if frozen else candidates

        def run() -> None:
            torch.set_float32_matmul_precision(precision)
            loss(queries, offered, positives).backward()
            torch.set_float32_matmul_precision("highest")

        return run

    return make


def dense_ce(queries: Tensor, candidates: Tensor) -> Callable[[], None]:
    target = torch.arange(len(queries))
    return lambda: F.cross_entropy(20 * F.normalize(queries) @ F.normalize(candidates).T, target).backward()


def linear_ce(queries: Tensor, candidates: Tensor) -> Callable[[], None]:
    target = torch.arange(len(queries))
    return lambda: F.linear_cross_entropy(20 * F.normalize(queries), F.normalize(candidates), target).backward()


def linear_ce_chunked(queries: Tensor, candidates: Tensor) -> Callable[[], None]:
    """In chunks of candidates, which need the memory of one."""
    target, options = torch.arange(len(queries)), nn.LinearCrossEntropyOptions()

    def run() -> None:
        rows = 20 * F.normalize(queries), F.normalize(candidates)
        F.linear_cross_entropy(*rows, target, options=options).backward()

    return run


def dense_bce(queries: Tensor, candidates: Tensor) -> Callable[[], None]:
    target = torch.eye(len(queries), len(candidates))

    def run() -> None:
        logits = 10 * F.normalize(queries) @ F.normalize(candidates).T - 10
        (F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(queries)).backward()

    return run


def mnrl(queries: Tensor, candidates: Tensor) -> Callable[[], None]:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    class Given(nn.Module):
        """An encoder whose vectors are there already."""

        def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            return features

    loss = MultipleNegativesRankingLoss(Given())
    features = [{"sentence_embedding": queries}, {"sentence_embedding": candidates}]
    return lambda: loss(features, None).backward()


def supcon(queries: Tensor, candidates: Tensor) -> Callable[[], None]:
    from pytorch_metric_learning.losses import SupConLoss

    loss, labels = SupConLoss(temperature=0.05), torch.arange(len(queries))
    return lambda: loss(queries, labels, ref_emb=candidates, ref_labels=labels).backward()


SOFTMAX, SIGMOID = sigmax.SoftmaxLoss(kernel="fused"), sigmax.SigmoidLoss(kernel="fused")
CONTENDERS: dict[str, Callable[..., Callable[[], None]]] = {
    "three products": products(3),
    "four products": products(4),
    "softmax": ours(SOFTMAX),
    "softmax, 5 right, 5 ignored": ours(SOFTMAX, 5, ignored=True),
    "softmax, 10 right": ours(SOFTMAX, 10),
    "softmax, both directions": ours(sigmax.SoftmaxLoss(directions="both", kernel="fused")),
    "softmax, frozen candidates": ours(SOFTMAX, frozen=True),
    "decoupled, 5 right": ours(sigmax.SoftmaxLoss(positives="decoupled", kernel="fused"), 5),
    "pairs, 5 right": ours(sigmax.SoftmaxLoss(positives="pairs", kernel="fused"), 5),
    "sigmoid": ours(SIGMOID),
    "sigmoid, 5 right, 5 ignored": ours(SIGMOID, 5, ignored=True),
    "softmax, tensor operations": ours(sigmax.SoftmaxLoss(kernel="tiled")),
    "softmax, both directions, tensor operations": ours(sigmax.SoftmaxLoss(directions="both", kernel="tiled")),
    "decoupled, 5 right, tensor operations": ours(sigmax.SoftmaxLoss(positives="decoupled", kernel="tiled"), 5),
    "sigmoid, tensor operations": ours(sigmax.SigmoidLoss(kernel="tiled")),
    "three products, medium precision": products(3, "medium"),
    "softmax, medium precision": ours(SOFTMAX, precision="medium"),
    "sigmoid, medium precision": ours(SIGMOID, precision="medium"),
    "dense F.cross_entropy": dense_ce,
    "dense BCE": dense_bce,
    "F.linear_cross_entropy": linear_ce,
    "F.linear_cross_entropy, chunked": linear_ce_chunked,
    "MultipleNegativesRankingLoss": mnrl,
    "SupConLoss": supcon,
}
CHARTED = ["three products", "four products", "softmax", "sigmoid", "dense F.cross_entropy", "dense BCE"]


def vectors(n: int, d: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(n, d, generator=generator)
    candidates = queries + torch.randn(n, d, generator=generator)
    return queries.requires_grad_(), candidates.requires_grad_()


# -- measuring ------------------------------------------------------------------------------------


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def timed(names: list[str], n: int, d: int, rounds: int, clock: str = "wall") -> dict[str, list[float]]:
    """Seconds of each, in rounds; a first round is thrown away."""
    now = CLOCKS[clock]
    queries, candidates = vectors(n, d)
    runs = {name: CONTENDERS[name](queries, candidates) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name, run in runs.items():
            queries.grad = candidates.grad = None
            started = now()
            run()
            if number:
                seconds[name].append(now() - started)
    return seconds


def memory(name: str, n: int, d: int) -> float:
    """MiB at the peak above inputs and gradients, in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", name, "--n", str(n), "--d", str(d)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak(name: str, n: int, d: int) -> float:
    CONTENDERS[name](*vectors(600, d))()  # whatever is loaded and kept on first use
    queries, candidates = vectors(n, d)
    run = CONTENDERS[name](queries, candidates)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = status_bytes("VmRSS")
    run()
    gradients = sum(x.grad.numel() * x.grad.element_size() for x in (queries, candidates) if x.grad is not None)
    return (status_bytes("VmHWM") - before - gradients) / 2**20


def machine() -> dict[str, object]:
    model = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), ""
    )
    return {
        "processor": model or platform.processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_instructions": torch.backends.cpu.get_cpu_capability(),
        "numba": importlib.metadata.version("numba"),
        "numba_target": os.environ.get("NUMBA_CPU_NAME", "this processor"),
        "sigmax": sigmax.__version__,
    }


def table(n: int, d: int, rounds: int, clock: str, name_ends: str, with_memory: bool) -> None:
    seconds = timed(list(CONTENDERS), n, d, rounds, clock)
    rows = []
    for name in CONTENDERS:
        ratios = {
            base: statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))
            for base in ("three products", "four products", "dense F.cross_entropy")
        }
        rows.append(
            {
                "name": name,
                "seconds": statistics.median(seconds[name]),
                "fastest": min(seconds[name]),
                "ratio": ratios,
                "fastest_ratio": {base: min(seconds[name]) / min(seconds[base]) for base in ratios},
                "mib": memory(name, n, d) if with_memory and "products" not in name else None,
                "all_seconds": seconds[name],
            }
        )
    print(f"n = m = {n}, d = {d}, float32, {rounds} rounds, {clock} time, {torch.get_num_threads()} threads")
    print(f"{'':44}{'seconds':>9}{'× three':>9}{'× four':>9}{'× dense CE':>12}{'MiB':>8}")
    for row in rows:
        mib = "" if row["mib"] is None else f"{row['mib']:8.0f}"
        print(
            f"{row['name']:44}{row['seconds']:9.3f}" + "".join(f"{x:9.2f}" for x in row["ratio"].values()) + f"   {mib}"
        )
    write(f"loss-cpu-n{n}-d{d}{name_ends}", {"n": n, "d": d, "rounds": rounds, "clock": clock, "rows": rows})


def chart(d: int) -> None:
    sizes = [256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
    points = []
    for n in sizes:
        names = [name for name in CHARTED if n <= 16384 or not name.startswith("dense")]
        seconds = timed(names, n, d, 1 if n > 16384 else 3 if n > 2048 else 15)
        for name in names:
            mib = None if "products" in name else memory(name, n, d)
            points.append({"name": name, "n": n, "seconds": statistics.median(seconds[name]), "mib": mib})
            print(points[-1], flush=True)
    path = write(f"loss-cpu-chart-d{d}", {"d": d, "points": points})
    draw(points, d, path.with_suffix(".png"))


def draw(points: list[dict[str, object]], d: int, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), constrained_layout=True)
    looks = {
        "three products": ("0.6", ":"),
        "four products": ("0.35", ":"),
        "softmax": ("#1f5fa8", "-"),
        "sigmoid": ("#c8571b", "-"),
        "dense F.cross_entropy": ("#1f5fa8", "--"),
        "dense BCE": ("#c8571b", "--"),
    }
    for name, (colour, line) in looks.items():
        mine = [point for point in points if point["name"] == name]
        left.plot([p["n"] for p in mine], [p["seconds"] for p in mine], line, color=colour, label=name, lw=2)
        held = [(p["n"], max(1.0, p["mib"])) for p in mine if p["mib"] is not None]
        if held:
            right.plot(*zip(*held, strict=True), line, color=colour, label=name, lw=2)
    for axis, title in ((left, "Seconds, forward + backward"), (right, "MiB above inputs and gradients")):
        axis.set(xscale="log", yscale="log", title=title, xlabel=f"queries = candidates (d = {d})")
        axis.set_xticks([2**k for k in range(8, 17, 2)], [f"{2**k:,}" for k in range(8, 17, 2)])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


def write(name: str, found: dict[str, object]) -> Path:
    path = RESULTS / f"{datetime.date.today()}-{name}.json"
    path.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n", encoding="utf-8")
    print(f"Written: {path}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=8192, help="queries, and as many candidates")
    parser.add_argument("--d", type=int, default=None, help="numbers a vector: 384, or 128 for the chart")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="what is measured")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="measure memory as well")
    parser.add_argument("--name-ends", default="", help="end of the result file's name")
    parser.add_argument("--chart", action="store_true", help="time and memory against the batch size")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        print(peak(given.memory_of, given.n, given.d))
    elif given.chart:
        chart(given.d or 128)
    else:
        table(given.n, given.d or 384, given.rounds, given.clock, given.name_ends, given.memory)


if __name__ == "__main__":
    main()
