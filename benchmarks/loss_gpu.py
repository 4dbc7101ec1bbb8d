"""Time and memory of the losses on a GPU, beside what the matrix products alone would take and beside other libraries.

Usage: python benchmarks/loss_gpu.py [--sizes 4096 … 65536] [--dim 512] [--dtype bfloat16] [--repeats 9]
                                     [--directions queries both] [--only NAME …]
       python benchmarks/loss_gpu.py --dry-run      the same lines of code on the CPU, Triton interpreted, in seconds:
                                                    nothing that it prints is a measurement, and nothing is written
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sigmax
from sigmax.families import OBJECTIVES
from sigmax.kernels import Inputs, Problem
from sigmax.kernels.triton import Triton

RESULTS = Path(__file__).parent / "results"
SCALE, BIAS = 1 / 0.07, -10.0
#: Matrix products of 2·n²·d operations that a loss and its gradients take at least, without holding the matrix.
NEEDED = {"softmax": 4, "sigmoid": 3}
#: Queries and candidates in the comparison with float64.
CHECKED_SIZE = 2048

Loss = Callable[[Tensor, Tensor], Tensor]


# -- what is measured ----------------------------------------------------------------------------


class Ours(NamedTuple):
    """A loss of this library and the graph it is measured on."""

    loss: sigmax.SoftmaxLoss | sigmax.SigmoidLoss
    positives: sigmax.Positives

    def __call__(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """() the loss of two (n, d) matrices."""
        return self.loss(queries, candidates, self.positives)


def ours(n: int, device: torch.device, directions: str) -> dict[str, tuple[str, Ours]]:
    """Name -> family, and the loss of two (n, d) matrices with one and with three right answers each."""
    one = torch.arange(n)
    three = torch.cat([one, (one + 1) % n, (one + n // 2) % n])
    made: dict[str, tuple[str, Ours]] = {}
    for graph, rows, columns in (("one right", one, one), ("three right", one.repeat(3), three)):
        positives = sigmax.Positives(rows, columns, (n, n)).to(device)
        for kind in ("average", "decoupled", "any"):
            loss = sigmax.SoftmaxLoss(SCALE, positives=kind, directions=directions, similarity="dot", kernel="triton")
            made[f"sigmax softmax-{kind}, {graph}"] = "softmax", Ours(loss.to(device), positives)
        if directions == "queries":  # the sum over all pairs is the same from either side
            sigmoid = sigmax.SigmoidLoss(SCALE, BIAS, similarity="dot", kernel="triton")
            made[f"sigmax sigmoid, {graph}"] = "sigmoid", Ours(sigmoid.to(device), positives)
    return made


def peers(n: int, device: torch.device, directions: str) -> dict[str, tuple[str, Loss]]:
    """The same for other libraries, through their public calls; one right answer, on the diagonal."""
    diagonal = torch.arange(n, device=device)
    scale = torch.tensor(SCALE, device=device, requires_grad=True)
    log_scale = torch.tensor(math.log(SCALE), device=device, requires_grad=True)
    bias = torch.tensor(BIAS, device=device, requires_grad=True)
    both = directions == "both"

    def dense_softmax(queries: Tensor, candidates: Tensor) -> Tensor:
        logits = queries @ candidates.T * scale.to(queries.dtype)
        loss = F.cross_entropy(logits.float(), diagonal)
        return (loss + F.cross_entropy(logits.T.float(), diagonal)) / 2 if both else loss

    def dense_sigmoid(queries: Tensor, candidates: Tensor) -> Tensor:
        logits = (queries @ candidates.T).float() * scale + bias
        target = torch.zeros_like(logits).fill_diagonal_(1.0)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / n

    made: dict[str, tuple[str, Loss]] = {"dense F.cross_entropy": ("softmax", dense_softmax)}
    if not both:
        made["dense F.binary_cross_entropy_with_logits"] = "sigmoid", dense_sigmoid
    try:
        from memeff import MemoryEfficientCLIPLoss
    except ImportError:
        pass
    else:
        if both:  # it knows no other. stable=True would rescale the gradients
            clip = MemoryEfficientCLIPLoss(temperature=1 / SCALE, normalized_inputs=True, stable=False)
            made["memeff MemoryEfficientCLIPLoss"] = "softmax", clip
    try:
        from siglip_kernel import fused_siglip_loss
    except ImportError:
        pass
    else:
        if not both:
            made["siglip-kernel fused_siglip_loss"] = (
                "sigmoid",
                lambda queries, candidates: fused_siglip_loss(queries, candidates, log_scale, bias),
            )
    try:
        from inf_cl import cal_inf_loss
    except ImportError:
        pass
    else:

        def inf(queries: Tensor, candidates: Tensor) -> Tensor:
            loss = cal_inf_loss(queries, candidates, scale=scale).mean()
            return (loss + cal_inf_loss(candidates, queries, scale=scale).mean()) / 2 if both else loss

        made["inf-cl cal_inf_loss"] = "softmax", inf
    try:
        from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss
    except ImportError:
        pass
    else:
        fused = LigerFusedLinearCrossEntropyLoss()

        def liger(queries: Tensor, candidates: Tensor) -> Tensor:
            loss = fused(candidates, queries * scale.to(queries.dtype), diagonal)
            return (loss + fused(queries, candidates * scale.to(queries.dtype), diagonal)) / 2 if both else loss

        made["liger-kernel LigerFusedLinearCrossEntropyLoss"] = "softmax", liger
    if hasattr(nn, "LinearCrossEntropyOptions"):  # newer versions of PyTorch have it; in chunks it needs little memory
        options = nn.LinearCrossEntropyOptions()

        def torchs(queries: Tensor, candidates: Tensor) -> Tensor:
            loss = F.linear_cross_entropy(queries * scale.to(queries.dtype), candidates, diagonal, options=options)
            if both:
                scaled = candidates * scale.to(queries.dtype)
                loss = (loss + F.linear_cross_entropy(scaled, queries, diagonal, options=options)) / 2
            return loss

        made["torch F.linear_cross_entropy"] = "softmax", torchs
    try:
        from cut_cross_entropy import linear_cross_entropy
    except ImportError:
        pass
    else:

        def cut(queries: Tensor, candidates: Tensor) -> Tensor:
            scaled = queries * scale.to(queries.dtype)
            loss = linear_cross_entropy(scaled, candidates, diagonal)
            if both:
                scaled = candidates * scale.to(queries.dtype)
                loss = (loss + linear_cross_entropy(scaled, queries, diagonal)) / 2
            return loss

        made["cut-cross-entropy linear_cross_entropy"] = "softmax", cut
    return made


# -- measuring -----------------------------------------------------------------------------------


def vectors(n: int, d: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    queries = torch.randn(n, d, device=device, generator=generator)
    candidates = 0.5 * queries + torch.randn(n, d, device=device, generator=generator)
    queries, candidates = (F.normalize(x, dim=1).to(dtype).requires_grad_() for x in (queries, candidates))
    return queries, candidates


def milliseconds(call: Callable[[], Any], repeats: int) -> list[float]:
    """Sorted times of single calls, after two that warm up (and compile)."""
    times = []
    if not torch.cuda.is_available():  # a dry run
        began = time.perf_counter()
        call()
        return [1e3 * (time.perf_counter() - began)]
    for turn in range(repeats + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        if turn >= 2:
            times.append(start.elapsed_time(end))
    return sorted(times)


def product_rate(dtype: torch.dtype, device: torch.device, repeats: int) -> float:
    """Operations a second of a large square product of random numbers."""
    size = 8192 if device.type == "cuda" else 128
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / (statistics.median(milliseconds(lambda: left @ right, repeats)) / 1e3)


def step(loss: Loss, queries: Tensor, candidates: Tensor) -> Tensor:
    queries.grad = candidates.grad = None
    value = loss(queries, candidates)
    value.backward()
    return value.detach()


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most memory that a call has above what there is before."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def measured(loss: Loss, n: int, given: argparse.Namespace, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Times in ms and the most memory above the inputs and their gradients, in MiB; or why there are none."""
    try:
        queries, candidates = vectors(n, given.dim, dtype, device)
        step(loss, queries, candidates)
        queries.grad = candidates.grad = None
        peak = peak_bytes(lambda: step(loss, queries, candidates)) if device.type == "cuda" else 0
        times = milliseconds(lambda: step(loss, queries, candidates), given.repeats)
    except Exception as error:  # of a peer, or out of memory: that too is a result
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]}
    return {"ms": statistics.median(times), "ms_all": times, "peak_mib": peak / 2**20}


def checked(given: argparse.Namespace, dtype: torch.dtype, device: torch.device) -> dict[str, dict[str, float]]:
    """Errors of value and gradients against the dense kernel in float64; ours and, for scale, the dense loss's.

    Raises:
        SystemExit: one of ours is farther off than twice the dense kernel in the same dtype.
    """
    found = {}
    for directions in given.directions:
        size = CHECKED_SIZE if device.type == "cuda" else max(given.sizes)
        for name, (_, loss) in ours(size, device, directions).items():
            queries, candidates = vectors(size, given.dim, dtype, device)
            results = []
            for kernel, precise in (("triton", dtype), ("dense", dtype), ("dense", torch.float64)):
                loss.loss.kernel = kernel
                leaves = [x.detach().to(precise).requires_grad_() for x in (queries, candidates)]
                results.append([step(loss, *leaves).double(), *(leaf.grad.double() for leaf in leaves)])
            errors = [
                max(float((a - b).norm() / b.norm()) for a, b in zip(result, results[2], strict=True))
                for result in results[:2]
            ]
            found[f"{name}, {directions}"] = {"triton": errors[0], "dense": errors[1]}
            print(f"{name}, {directions}: {errors[0]:.1e} from float64 (dense in {dtype}: {errors[1]:.1e})")
            if not errors[0] <= 2 * errors[1] + 1e-5:
                raise SystemExit(f"{name} is wrong on this device: nothing is timed.")
    return found


# -- the script ----------------------------------------------------------------------------------


def setting(device: torch.device | None) -> dict[str, Any]:
    """Date, machine and versions."""
    versions = {}
    for package in (
        "sigmax",
        "torch",
        "triton",
        "memeff",
        "siglip-kernel",
        "inf-cl",
        "cut-cross-entropy",
        "liger-kernel",
    ):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "date": datetime.date.today().isoformat(),
        "device": None if device is None else name_of(device),
        "python": platform.python_version(),
        "versions": versions,
    }


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, a dry run"


def write(result: dict[str, Any], about: str = "") -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result['date']}-loss-gpu{about}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"Wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 8192, 16384, 32768, 65536])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--directions", choices=["queries", "both"], nargs="+", default=["queries", "both"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=[""], help="measure what has one of these in its name")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    if given.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        given.sizes, given.dim, given.dtype, given.repeats = [40], 24, "float32", 1
    elif not torch.cuda.is_available():
        print("No CUDA GPU at hand: nothing is measured.")
        write({**setting(None), "claim": "no GPU at hand; nothing measured"})
        return
    device = torch.device("cpu") if given.dry_run else torch.device("cuda", torch.cuda.current_device())
    dtype = getattr(torch, given.dtype)
    probe = torch.ones(1, 1, dtype=dtype, device=device)
    problem = Problem(sigmax.Positives([0], [0], (1, 1)), OBJECTIVES["sigmoid"])
    reason = Triton().missing(Inputs(probe, probe, torch.ones((), device=device)), problem)
    if reason is not None:
        raise SystemExit(f"The Triton engine cannot run: {reason}.")
    errors = checked(given, dtype, device)
    rate = product_rate(dtype, device, given.repeats)
    print(f"\n{name_of(device)}: {rate / 1e12:.0f}·10¹² operations/s in a {given.dtype} product\n")
    print(f"{'n':>6}  {'directions':10}  {'loss':42}  {'ms':>9}  {'MiB':>9}  {'× products':>10}  {'× best peer':>11}")
    rows = []
    for n in given.sizes:
        for directions in given.directions:
            block = []
            for name, (family, loss) in {**ours(n, device, directions), **peers(n, device, directions)}.items():
                if not any(part in name for part in given.only):
                    continue
                found = measured(loss, n, given, dtype, device)
                needed = NEEDED[family] * 2 * n * n * given.dim / rate * 1e3
                row = {"n": n, "directions": directions, "loss": name, "family": family, "needed_ms": needed, **found}
                block.append(row)
            for row in block:
                if "ms" not in row:
                    print(f"{n:>6}  {row['directions']:10}  {row['loss']:42}  {row['error']}")
                    continue
                others = [
                    other["ms"]
                    for other in block
                    if "ms" in other and other["family"] == row["family"] and not other["loss"].startswith("sigmax")
                ]
                row["times_products"] = row["ms"] / row["needed_ms"]
                row["times_best_peer"] = row["ms"] / min(others) if others else None
                peer = f"{row['times_best_peer']:11.2f}" if others else f"{'–':>11}"
                print(
                    f"{n:>6}  {row['directions']:10}  {row['loss']:42}  {row['ms']:9.2f}  {row['peak_mib']:9.0f}  "
                    f"{row['times_products']:10.2f}  {peer}"
                )
            rows += block
    if given.dry_run:
        print("\nA dry run: the code runs; nothing was measured, and nothing is written.")
        return
    write(
        {
            **setting(device),
            "capability": torch.cuda.get_device_capability(device),
            "options": vars(given),
            "operations_per_s": rate,
            "checked_against_float64": {"n": CHECKED_SIZE, "relative_error": errors},
            "rows": rows,
        },
        f"-d{given.dim}",
    )


if __name__ == "__main__":
    main()
