"""The Triton engine: tiles of logits in a GPU's registers, never in its memory.

What it computes is what `sigmax.kernels.tiled` defines, in two passes:

`reduce` makes each tile of logits once and keeps of it only A of its rows (and columns), which are then combined over
the tiles. `gradients` makes the tiles once more, turns them into G in place and writes G, in the vectors' dtype, to a
block of the matrix that is used again and again; the two products with G are the vendor's. Four products of 2·n·m·d
operations, three where one side needs no gradient.

`weighted_loss` needs three for the sigmoid: its act does not depend on A, so one pass makes A and G together.

Vectors are float32, float16 or bfloat16 (`DTYPES`); sums and exponentials are float32. Excluded pairs come as a list
sorted by tile, and a tile reads its own part of it. Right pairs, k of them, are worked on outside the tiles, in
float32: their logits are k products of rows.

`TRITON_INTERPRET=1`, set before Python starts, runs the kernels on the CPU: slow but exact.

The kernels themselves are in `triton_tiles`, imported with Triton when one is first wanted.
"""

from __future__ import annotations

import contextlib
import functools
import os
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sigmax.families import directed_loss
from sigmax.kernels.problem import Buckets, Gradients, Inputs, Problem, Reduction, Wants

__all__ = ["DTYPES", "TERMS", "Triton"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
#: Of `Partition.term`, those that the kernels add up.
TERMS = ("exp", "softplus")
#: Compute capability from which there is bfloat16 and enough shared memory: Ampere.
LEAST_CAPABILITY = (8, 0)
#: Bytes of A of tiles' rows, and as many of columns, before they are combined.
PARTIAL_BYTES = 32 * 2**20
#: Bytes of G. The larger the block, the fewer times the sums of products are read and written.
BLOCK_BYTES = 64 * 2**20
#: Bytes of right pairs' vectors, gathered, at a time.
GATHER_BYTES = 64 * 2**20


class Shape(NamedTuple):
    """What one program works on, and with how much of the GPU."""

    height: int  #: rows of a tile
    width: int  #: columns of a tile
    depth: int  #: coordinates of the vectors at a time
    warps: int
    stages: int  #: loads in flight


#: By precision of the products. With 128 threads of at most 255 registers and 96 KiB, two programs share a
#: multiprocessor of a Hopper (64 KiB on Ampere): one exponentiates while the other multiplies.
SHAPES = {
    "half": Shape(128, 128, 64, 4, 3),
    "tf32": Shape(128, 128, 32, 4, 3),
    "ieee": Shape(64, 64, 32, 4, 2),
}
#: Rows of tiles that are walked together, so that the candidates one reads are still in the cache for the next.
GROUP = 8


class Triton:
    """The engine for CUDA GPUs."""

    name = "triton"
    device: str | None = "cuda"

    def missing(self, inputs: Inputs, problem: Problem) -> str | None:
        """See `Engine`."""
        device, term = inputs.device, problem.objective.partition.term
        if term not in TERMS:
            return f"it has no loop for the partition {problem.objective.partition.name!r}"
        if inputs.queries.dtype not in DTYPES:
            return f"it works in {', '.join(map(str, DTYPES))}, and the vectors are {inputs.queries.dtype}"
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return f"it needs a CUDA GPU and the vectors are on {device.type!r} (to try it: TRITON_INTERPRET=1)"
        try:
            interpreted = _tiles().INTERPRETED
        except ImportError:
            return "Triton is not installed (Linux: pip install triton)"
        if interpreted:
            return None
        if device.type != "cuda":
            return f"it needs a CUDA GPU and the vectors are on {device.type!r}"
        found = _capability(device)
        if found < LEAST_CAPABILITY:
            least, ours = (".".join(map(str, version)) for version in (LEAST_CAPABILITY, found))
            return f"it needs a GPU of compute capability {least}, and this one has {ours}"
        return None

    @torch.no_grad()
    def reduce(self, inputs: Inputs, problem: Problem) -> Reduction:
        """See `Engine`."""
        n, m = problem.positives.shape
        logits = _Logits(inputs, problem)
        combine, empty = problem.objective.partition.combine, problem.objective.partition.empty
        rows = logits.full(n, empty)
        columns = logits.full(m, empty) if problem.columns else None
        if n and m:
            height, width = logits.shape[:2]
            down, across = logits.grid
            strip = min(down, max(1, PARTIAL_BYTES // (4 * across * max(height, width))))
            by_row = logits.full(across * strip * height, 0.0)
            by_column = logits.full(strip * across * width if problem.columns else 0, 0.0)
            kernel = _tiles().reduce_tiles
            for top in range(0, down, strip):
                tall = min(strip, down - top)
                logits.launch(kernel, (top, tall), (0, across), by_row, by_column, BOTH=problem.columns)
                here = slice(top * height, min(n, (top + tall) * height))
                rows[here] = logits.over(by_row[: across * tall * height].view(across, -1))[: here.stop - here.start]
                if columns is not None:
                    by_strip = logits.over(by_column[: tall * across * width].view(tall, -1))
                    columns = combine(columns, by_strip[:m])
        return Reduction(rows, columns, logits.pairs())

    @torch.no_grad()
    def gradients(
        self, inputs: Inputs, problem: Problem, totals: Reduction, arriving: Reduction, wants: Wants
    ) -> Gradients:
        """See `Engine`."""
        return _spread(_Logits(inputs, problem), totals, arriving, wants)[1]

    @torch.no_grad()
    def weighted_loss(
        self, inputs: Inputs, problem: Problem, weights: Tensor, wants: Wants
    ) -> tuple[Tensor, Gradients] | None:
        """See `Engine`; None unless act and ∂L/∂A are known before A is.

        Of a Lᵢ that is linear in A, Σ wᵢ Lᵢ = Σ wᵢ Lᵢ(A = 0) + Σ gᵢ Aᵢ with gᵢ = wᵢ ∂Lᵢ/∂A.
        """
        objective, positives = problem.objective, problem.positives
        if objective.partition.term != "softplus" or not objective.linear or not any(wants):
            return None
        logits = _Logits(inputs, problem)
        total, pairs = logits.full(positives.shape[0], 0.0).requires_grad_(), logits.pairs().requires_grad_()
        with torch.enable_grad():
            losses, _ = directed_loss(objective, total, pairs, positives.rows, positives.counts)
            weighed = (losses * weights).sum()
        arriving = torch.autograd.grad(weighed, (total, pairs), materialize_grads=True)
        total = total.detach()
        rest, by_inputs = _spread(
            logits, Reduction(total, None, total[:0]), Reduction(arriving[0], None, arriving[1]), wants, True
        )
        return weighed.detach() + rest, by_inputs


@functools.cache
def _tiles() -> ModuleType:
    """The kernels; ImportError where Triton is not installed."""
    from sigmax.kernels import triton_tiles

    return triton_tiles


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


# -- the passes ----------------------------------------------------------------------------------


def _spread(
    logits: _Logits, totals: Reduction, arriving: Reduction, wants: Wants, values: bool = False
) -> tuple[Tensor, Gradients]:
    """Σᵢ gᵢ Aᵢ if `values` (of the sigmoid), and the gradients."""
    problem = logits.problem
    n, m = problem.positives.shape
    queries, candidates = logits.queries, logits.candidates
    if totals.columns is None or arriving.columns is None:
        totals, arriving = totals._replace(columns=None), arriving._replace(columns=None)
    # G is written in the vectors' dtype: float16 loses what is below 6·10⁻⁸, so G is written in units that leave room.
    unit = _headroom(arriving) if queries.dtype == torch.float16 else logits.full((), 1.0)
    arriving = Reduction(
        (arriving.rows / unit).contiguous(),
        None if arriving.columns is None else (arriving.columns / unit).contiguous(),
        (arriving.pairs / unit).contiguous(),
    )
    totals = Reduction(
        totals.rows.contiguous(),
        None if totals.columns is None else totals.columns.contiguous(),
        totals.pairs.contiguous(),
    )

    visits_queries = wants.queries or (wants.scale and not wants.candidates)  # ∂scale is read off either side
    by_queries = torch.zeros_like(queries) if wants.queries else None
    by_candidates = logits.full(tuple(candidates.shape), 0.0) if wants.candidates else None
    by_scale, by_bias, value_sum = logits.full((), 0.0), arriving.pairs.sum(), logits.full((), 0.0)
    factor = logits.scale * unit

    if n and m and any(wants):
        (height, width), (down, across) = logits.shape[:2], logits.grid
        tall, wide = _block(down, across, height, width, queries.element_size())
        # Rows of the block stay wide · width apart at the right edge too: whole lines for the products to read.
        # The interpreter would cut bfloat16 off instead of rounding to it.
        dtype = torch.float32 if _tiles().INTERPRETED else queries.dtype
        block = torch.empty(tall * height, wide * width, dtype=dtype, device=queries.device)
        sums = logits.full(tall * wide if wants.bias else 0, 0.0)
        parts = logits.full(tall * wide if values else 0, 0.0)
        right = problem.right_by_tile(tall * height, wide * width)
        edges = right.starts.tolist()
        value = logits.pair_gradients(totals, arriving).to(queries.dtype)[right.order]
        number = 0
        for top in range(0, down, tall):
            rows = slice(top * height, min(n, (top + tall) * height))
            h = rows.stop - rows.start
            by_query = logits.full((h, queries.shape[1]), 0.0) if visits_queries else None
            for left in range(0, across, wide):
                columns = slice(left * width, min(m, (left + wide) * width))
                w = columns.stop - columns.start
                place = (top, min(tall, down - top)), (left, min(wide, across - left))
                tiles = place[0][1] * place[1][1]
                logits.launch(
                    _tiles().gradient_tiles,
                    *place,
                    block,
                    block.stride(0),
                    sums,
                    parts,
                    totals.rows,
                    arriving.rows,
                    totals.rows if totals.columns is None else totals.columns,
                    arriving.rows if arriving.columns is None else arriving.columns,
                    BOTH=arriving.columns is not None,
                    SUMS=wants.bias,
                    VALUES=values,
                )
                if wants.bias:
                    by_bias += sums[:tiles].sum()
                if values:
                    value_sum += parts[:tiles].sum()
                gradient, here = block[:h, :w].to(queries.dtype), slice(*edges[number : number + 2])
                gradient[right.rows[here], right.columns[here]] = value[here]
                if by_query is not None:
                    _add_product(by_query, gradient, candidates[columns])
                if by_candidates is not None:
                    _add_product(by_candidates[columns], gradient.T, queries[rows])
                number += 1
            if by_query is not None:
                if wants.scale:
                    by_scale += (by_query * queries[rows]).sum()
                if by_queries is not None:
                    by_queries[rows] = by_query.mul_(factor).to(by_queries.dtype)
    if wants.scale and not visits_queries and by_candidates is not None:
        for start in range(0, m, 4096):
            by_scale += (by_candidates[start : start + 4096] * candidates[start : start + 4096]).sum()
    return value_sum * unit, Gradients(
        by_queries,
        None if by_candidates is None else by_candidates.mul_(factor).to(candidates.dtype),
        by_scale * unit if wants.scale else None,
        by_bias * unit if wants.bias else None,
    )


def _block(down: int, across: int, height: int, width: int, itemsize: int) -> tuple[int, int]:
    """Tiles down and across of a block of G: as square as the matrix allows, so that sums are seldom added to."""
    entries = BLOCK_BYTES // itemsize
    tall = min(down, max(1, int(entries**0.5) // height))
    wide = min(across, max(1, entries // (tall * height * width)))
    return min(down, max(tall, entries // (wide * width * height))), wide


def _headroom(arriving: Reduction) -> Tensor:
    """What gradients are divided by for their largest to be 1024: G then lies well inside float16."""
    peaks = [x.abs().max() for x in arriving if x is not None and len(x)]
    if not peaks:
        return torch.ones_like(arriving.rows.sum())
    peak = torch.stack(peaks).max() / 1024
    return torch.where((peak > 0) & peak.isfinite(), peak, 1.0)


def _add_product(sums: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right, added up in float32 wherever the device has such a product of halves."""
    if left.dtype == sums.dtype or left.device.type == "cpu":
        sums.addmm_(left.to(sums.dtype), right.to(sums.dtype))
    elif _adds_halves(left.device, left.dtype):
        torch.addmm(sums, left, right, out_dtype=sums.dtype, out=sums)
    else:
        sums += left @ right


@functools.cache
def _adds_halves(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this PyTorch adds a product of halves to a float32 sum in place on this device."""
    ones, sums = torch.ones(16, 16, dtype=dtype, device=device), torch.ones(16, 16, device=device)
    try:
        torch.addmm(sums, ones, ones, out_dtype=torch.float32, out=sums)
    except (RuntimeError, TypeError):
        return False
    return bool((sums == 17).all())


class _Logits:
    """The arguments that all kernels share, and what is done with single pairs of vectors."""

    def __init__(self, inputs: Inputs, problem: Problem) -> None:
        queries, candidates, scale, bias = inputs
        for name, vectors in (("queries", queries), ("candidates", candidates)):
            if vectors.dtype not in DTYPES or vectors.dtype != queries.dtype:
                raise ValueError(
                    f"Expected queries and candidates of one dtype among {', '.join(map(str, DTYPES))}, got {name} of "
                    f"{vectors.dtype}. Try kernel='tiled', or convert them."
                )
        self.queries, self.candidates = queries.detach().contiguous(), candidates.detach().contiguous()
        self.problem, device = problem, queries.device
        self.scale = scale.detach().to(device, torch.float32)
        self.bias = self.full((), 0.0) if bias is None else bias.detach().to(device, torch.float32)
        shift = problem.shift
        self.shift = None if shift is None else shift.detach().to(device, torch.float32).contiguous()
        self.partition = problem.objective.partition
        self.softmax = self.partition.term == "exp"
        self.precision = _precision(queries.dtype)
        self.shape = SHAPES["half" if queries.dtype != torch.float32 else self.precision]
        n, m = problem.positives.shape
        self.grid = -(-n // self.shape.height), -(-m // self.shape.width)
        skip = problem.excluded_by_tile(self.shape.height, self.shape.width)
        self.skip = Buckets(*(index.to(device, torch.int32) for index in skip))

    def full(self, size: int | tuple[int, ...], value: float) -> Tensor:
        size = (size,) if isinstance(size, int) else size
        return torch.full(size, value, dtype=torch.float32, device=self.queries.device)

    def over(self, parts: Tensor) -> Tensor:
        """(p, r) A of p disjoint tiles -> (r,) A of their union."""
        return parts.logsumexp(0) if self.softmax else parts.sum(0)

    def launch(self, kernel: Any, down: tuple[int, int], across: tuple[int, int], *given: Any, **fixed: Any) -> None:
        """Run a kernel on the tiles from `down[0]` on, `down[1]` of them, and likewise `across`."""
        queries, candidates = self._padded
        shape = self.shape
        on = torch.cuda.device(queries.device) if queries.device.type == "cuda" else contextlib.nullcontext()
        with on:
            kernel[(down[1] * across[1],)](
                queries,
                candidates,
                self.scale,
                self.bias,
                self.bias if self.shift is None else self.shift,
                self.skip.rows,
                self.skip.columns,
                self.skip.starts,
                *self.problem.positives.shape,
                queries.shape[1],
                *down,
                *across,
                self.grid[1],
                *given,
                **fixed,
                SOFTMAX=self.softmax,
                SHIFTED=self.shift is not None,
                EXCLUDES=len(self.skip.rows) > 0,
                PRECISION=self.precision,
                HEIGHT=shape.height,
                WIDTH=shape.width,
                DEPTH=shape.depth,
                GROUP=GROUP,
                num_warps=shape.warps,
                num_stages=shape.stages,
                enable_fp_fusion=True,
            )

    @functools.cached_property
    def _padded(self) -> tuple[Tensor, Tensor]:
        """Vectors of a whole number of steps of `depth`: the kernels load without a mask."""
        queries, candidates = self.queries, self.candidates
        if (
            _tiles().INTERPRETED and queries.dtype == torch.bfloat16
        ):  # the interpreter would multiply the bits as integers
            queries, candidates = queries.float(), candidates.float()
        extra = -queries.shape[1] % self.shape.depth
        if not extra:
            return queries, candidates
        return torch.nn.functional.pad(queries, (0, extra)), torch.nn.functional.pad(candidates, (0, extra))

    def pairs(self) -> Tensor:
        """(k,) logits of the right pairs."""
        rows, columns = self.problem.positives.rows, self.problem.positives.columns
        found = self.full(len(rows), 0.0)
        step = max(1, GATHER_BYTES // (8 * max(1, self.queries.shape[1])))
        for start in range(0, len(rows), step):
            here = slice(start, start + step)
            found[here] = (self.queries[rows[here]].float() * self.candidates[columns[here]].float()).sum(1)
        found.mul_(self.scale).add_(self.bias)
        return found if self.shift is None else found.add_(self.shift[columns])

    def pair_gradients(self, totals: Reduction, arriving: Reduction) -> Tensor:
        """(k,) G of the right pairs."""
        rows, columns = self.problem.positives.rows, self.problem.positives.columns
        if self.problem.objective.against == "wrong":  # A does not look at them
            return arriving.pairs
        logits, act = self.pairs(), self.partition.act
        gradient = arriving.pairs + act(logits, totals.rows[rows]) * arriving.rows[rows]
        if totals.columns is not None and arriving.columns is not None:
            gradient += act(logits, totals.columns[columns]) * arriving.columns[columns]
        return gradient


def _precision(dtype: torch.dtype) -> str:
    """How float32 vectors are multiplied, as PyTorch's own products are."""
    if dtype != torch.float32:
        return "ieee"  # products of halves are exact in float32
    try:
        tf32 = torch.backends.cuda.matmul.allow_tf32
    except RuntimeError:  # set through the newer interface, which the older then refuses to read
        tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if tf32 else "ieee"
