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

`TRITON_INTERPRET=1`, set before Python starts, runs the kernels on the CPU: slow, and right.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sigmax.families import LOGSUMEXP, directed_loss
from sigmax.kernels.problem import Buckets, Problem, Reduction, Wants

try:
    import triton
    import triton.language as tl
except ImportError:  # it exists for Linux alone
    triton = None

__all__ = ["DTYPES", "gradients", "missing", "reduce", "weighted_loss"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
#: Compute capability from which there is bfloat16 and enough shared memory: Ampere.
LEAST_CAPABILITY = (8, 0)
#: Bytes of A of tiles' rows, and as many of columns, before they are combined.
PARTIAL_BYTES = 32 * 2**20
#: Bytes of G. The larger the block, the fewer times the sums of products are read and written.
BLOCK_BYTES = 64 * 2**20
#: Bytes of right pairs' vectors, gathered, at a time.
GATHER_BYTES = 64 * 2**20

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


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


def missing(device: torch.device) -> str | None:
    """Why the engine cannot run on `device`, and what to do; None where it can."""
    if triton is None:
        return "Triton is not installed (Linux: pip install triton)"
    if INTERPRETED:
        return None
    if device.type != "cuda":
        return f"it needs a CUDA GPU and the vectors are on {device.type!r} (to try it: TRITON_INTERPRET=1)"
    found = _capability(device)
    if found < LEAST_CAPABILITY:
        least, ours = (".".join(map(str, version)) for version in (LEAST_CAPABILITY, found))
        return f"it needs a GPU of compute capability {least}, and this one has {ours}"
    return None


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


# -- the passes ----------------------------------------------------------------------------------


@torch.no_grad()
def reduce(queries: Tensor, candidates: Tensor, scale: Tensor, bias: Tensor | None, problem: Problem) -> Reduction:
    """A of each row (and column), and the right pairs' logits. See `sigmax.kernels.reduce_logits`."""
    n, m = problem.positives.shape
    logits = _Logits(queries, candidates, scale, bias, problem)
    combine, empty = problem.objective.partition.combine, problem.objective.partition.empty
    rows = logits.full(n, empty)
    columns = logits.full(m, empty) if problem.columns else None
    if n and m:
        height, width = logits.shape[:2]
        down, across = logits.grid
        strip = min(down, max(1, PARTIAL_BYTES // (4 * across * max(height, width))))
        by_row = logits.full(across * strip * height, 0.0)
        by_column = logits.full(strip * across * width if problem.columns else 0, 0.0)
        for top in range(0, down, strip):
            tall = min(strip, down - top)
            logits.launch(_reduce_tiles, (top, tall), (0, across), by_row, by_column, BOTH=problem.columns)
            here = slice(top * height, min(n, (top + tall) * height))
            rows[here] = logits.over(by_row[: across * tall * height].view(across, -1))[: here.stop - here.start]
            if columns is not None:
                columns = combine(columns, logits.over(by_column[: tall * across * width].view(tall, -1))[:m])
    return Reduction(rows, columns, logits.pairs())


@torch.no_grad()
def gradients(
    queries: Tensor,
    candidates: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    problem: Problem,
    totals: Reduction,
    arriving: Reduction,
    wants: Wants,
) -> Gradients:
    """Gradients by queries, candidates, scale and bias, from those arriving at what `reduce` returned.

    Args:
        queries: (n, d).
        candidates: (m, d).
        scale: ().
        bias: () or None.
        problem: the same as for `reduce`.
        totals: A of rows and columns over all there is, which may be more than the pairs seen here.
        arriving: the gradients at rows, columns and pairs.
        wants: which of the four to compute; the others are None.
    """
    return _spread(_Logits(queries, candidates, scale, bias, problem), totals, arriving, wants)[1]


@torch.no_grad()
def weighted_loss(
    queries: Tensor,
    candidates: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    problem: Problem,
    weights: Tensor,
    wants: Wants,
) -> tuple[Tensor, Gradients] | None:
    """Σᵢ wᵢ Lᵢ and its gradients from one pass for the sigmoid family; None where there is nothing to gain.

    Lᵢ = Aᵢ − ⟨yᵢ, sᵢ⟩ is linear in A: its gradient by A is known before A is, and Σ wᵢ Lᵢ = Σ wᵢ Lᵢ(A = 0) + Σ gᵢ Aᵢ.

    Args:
        queries: (n, d).
        candidates: (m, d).
        scale: ().
        bias: () or None.
        problem: one direction: `problem.columns` is false.
        weights: (n,) constants.
        wants: which gradients to compute; the others are None.
    """
    if problem.objective.family != "sigmoid" or not any(wants):
        return None
    logits = _Logits(queries, candidates, scale, bias, problem)
    positives = problem.positives
    total, pairs = logits.full(positives.shape[0], 0.0).requires_grad_(), logits.pairs().requires_grad_()
    with torch.enable_grad():
        losses, _ = directed_loss(problem.objective, total, pairs, positives.rows, positives.counts)
        weighed = (losses * weights).sum()
    arriving = torch.autograd.grad(weighed, (total, pairs), materialize_grads=True)
    total = total.detach()
    rest, made = _spread(
        logits, Reduction(total, None, total[:0]), Reduction(arriving[0], None, arriving[1]), wants, True
    )
    return weighed.detach() + rest, made


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
    unit = _unit(arriving) if queries.dtype == torch.float16 else logits.full((), 1.0)
    arriving = Reduction(*(None if x is None else (x / unit).contiguous() for x in arriving))  # type: ignore[arg-type]
    totals = Reduction(*(None if x is None else x.contiguous() for x in totals))  # type: ignore[arg-type]

    asks_queries = wants.queries or (wants.scale and not wants.candidates)  # ∂scale is read off either side
    by_queries = torch.zeros_like(queries) if wants.queries else None
    by_candidates = logits.full(tuple(candidates.shape), 0.0) if wants.candidates else None
    by_scale, by_bias, value_sum = logits.full((), 0.0), arriving.pairs.sum(), logits.full((), 0.0)
    factor = logits.scale * unit

    if n and m and any(wants):
        (height, width), (down, across) = logits.shape[:2], logits.grid
        tall, wide = _block(down, across, height, width, queries.element_size())
        # Rows of the block stay wide · width apart at the right edge too: whole lines for the products to read.
        # The interpreter would cut bfloat16 off instead of rounding to it.
        dtype = torch.float32 if INTERPRETED else queries.dtype
        made = torch.empty(tall * height, wide * width, dtype=dtype, device=queries.device)
        sums = logits.full(tall * wide if wants.bias else 0, 0.0)
        parts = logits.full(tall * wide if values else 0, 0.0)
        right = problem.right_by_tile(tall * height, wide * width)
        edges = right.starts.tolist()
        value = logits.pair_gradients(totals, arriving).to(queries.dtype)[right.order]
        number = 0
        for top in range(0, down, tall):
            rows = slice(top * height, min(n, (top + tall) * height))
            h = rows.stop - rows.start
            by_query = logits.full((h, queries.shape[1]), 0.0) if asks_queries else None
            for left in range(0, across, wide):
                columns = slice(left * width, min(m, (left + wide) * width))
                w = columns.stop - columns.start
                place = (top, min(tall, down - top)), (left, min(wide, across - left))
                tiles = place[0][1] * place[1][1]
                logits.launch(
                    _gradient_tiles,
                    *place,
                    made,
                    made.stride(0),
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
                block, here = made[:h, :w].to(queries.dtype), slice(*edges[number : number + 2])
                block[right.rows[here], right.columns[here]] = value[here]
                if by_query is not None:
                    _add_product(by_query, block, candidates[columns])
                if by_candidates is not None:
                    _add_product(by_candidates[columns], block.T, queries[rows])
                number += 1
            if by_query is not None:
                if wants.scale:
                    by_scale += (by_query * queries[rows]).sum()
                if by_queries is not None:
                    by_queries[rows] = by_query.mul_(factor).to(by_queries.dtype)
    if wants.scale and not asks_queries and by_candidates is not None:
        for start in range(0, m, 4096):
            by_scale += (by_candidates[start : start + 4096] * candidates[start : start + 4096]).sum()
    return value_sum * unit, (
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


def _unit(arriving: Reduction) -> Tensor:
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

    def __init__(
        self, queries: Tensor, candidates: Tensor, scale: Tensor, bias: Tensor | None, problem: Problem
    ) -> None:
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
        self.softmax = self.partition is LOGSUMEXP
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
        if INTERPRETED and queries.dtype == torch.bfloat16:  # the interpreter would multiply the bits as integers
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
            asked, offered = self.queries[rows[here]].float(), self.candidates[columns[here]].float()
            found[here] = (asked * offered).sum(1)
        found.mul_(self.scale).add_(self.bias)
        return found if self.shift is None else found.add_(self.shift[columns])

    def pair_gradients(self, totals: Reduction, arriving: Reduction) -> Tensor:
        """(k,) G of the right pairs."""
        rows, columns = self.problem.positives.rows, self.problem.positives.columns
        if self.problem.objective.against == "wrong":  # A does not look at them
            return arriving.pairs
        logits, act = self.pairs(), self.partition.act
        made = arriving.pairs + act(logits, totals.rows[rows]) * arriving.rows[rows]
        if totals.columns is not None and arriving.columns is not None:
            made += act(logits, totals.columns[columns]) * arriving.columns[columns]
        return made


def _precision(dtype: torch.dtype) -> str:
    """How float32 vectors are multiplied, as PyTorch's own products are."""
    if dtype != torch.float32:
        return "ieee"  # products of halves are exact in float32
    try:
        tf32 = torch.backends.cuda.matmul.allow_tf32
    except RuntimeError:  # set through the newer interface, which the older then refuses to read
        tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if tf32 else "ieee"


# -- kernels -------------------------------------------------------------------------------------


#: Sizes for which no version of a kernel is compiled on its own.
SIZES = ["n", "m", "top", "tall", "left", "wide", "across"]


def _jit(kernel: Any) -> Any:
    return kernel if triton is None else triton.jit(kernel)


def _launched(kernel: Any) -> Any:
    return kernel if triton is None else triton.jit(kernel, do_not_specialize=SIZES)


@_jit
def _place(down, across, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Which tile is this program's: GROUP rows of tiles together, column after column of them."""
    program = tl.program_id(0)
    first = program // (GROUP * across) * GROUP
    tall = tl.minimum(down - first, GROUP)
    inside = program - first * across
    return first + inside % tall, inside // tall


@_jit
def _logits(  # type: ignore[no-untyped-def]
    queries,
    candidates,
    scale,
    bias,
    shift,
    skip_rows,
    skip_columns,
    skip_starts,
    n,
    m,
    d,
    tile_row,
    tile_column,
    across,
    SHIFTED: tl.constexpr,
    EXCLUDES: tl.constexpr,
    PRECISION: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """(HEIGHT, WIDTH) logits, −∞ where a pair is excluded or lies beyond the matrix."""
    down_here, across_here = tl.arange(0, HEIGHT), tl.arange(0, WIDTH)
    rows, columns = tile_row * HEIGHT + down_here, tile_column * WIDTH + across_here
    # Beyond the edge the last vector is read again, which needs no mask.
    near_columns = tl.minimum(columns, m - 1)
    depth = tl.arange(0, DEPTH)
    asked = queries + tl.minimum(rows, n - 1).to(tl.int64)[:, None] * d + depth[None, :]
    offered = candidates + near_columns.to(tl.int64)[None, :] * d + depth[:, None]
    products = tl.zeros((HEIGHT, WIDTH), tl.float32)
    for _ in range(0, d, DEPTH):
        products = tl.dot(tl.load(asked), tl.load(offered), products, input_precision=PRECISION)
        asked += DEPTH
        offered += DEPTH
    logits = products * tl.load(scale) + tl.load(bias)
    if SHIFTED:
        logits += tl.load(shift + near_columns)[None, :]
    logits = tl.where((rows < n)[:, None] & (columns < m)[None, :], logits, float("-inf"))
    if EXCLUDES:
        tile = tile_row * across + tile_column
        for at in range(tl.load(skip_starts + tile), tl.load(skip_starts + tile + 1)):
            row, column = tl.load(skip_rows + at), tl.load(skip_columns + at)
            logits = tl.where((down_here == row)[:, None] & (across_here == column)[None, :], float("-inf"), logits)
    return logits


@_jit
def _logsumexp(logits, AXIS: tl.constexpr):  # type: ignore[no-untyped-def]
    peak = tl.max(logits, AXIS)
    peak = tl.where(peak == float("-inf"), 0.0, peak)
    total = tl.sum(tl.exp(logits - tl.expand_dims(peak, AXIS)), AXIS)
    return tl.where(total == 0.0, float("-inf"), peak + tl.log(tl.where(total == 0.0, 1.0, total)))


@_jit
def _both(x, y):  # type: ignore[no-untyped-def]
    """(1 + x)(1 + y) − 1, all above 0."""
    return x + y + x * y


@_jit
def _log1p(x):  # type: ignore[no-untyped-def]
    """log(1 + x) for x ≥ 0: where 1 + x was rounded, so is what the logarithm is multiplied with."""
    rounded = 1.0 + x
    return tl.where(rounded == 1.0, x, tl.log(rounded) * (x / tl.where(rounded == 1.0, 1.0, rounded - 1.0)))


@_jit
def _softplus_rows(positive, e, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Σ softplus(s) = Σ max(s, 0) + Σ log(1 + e^−|s|) of each row: 64 exponentials, none above 1, to a logarithm."""
    MANY: tl.constexpr = WIDTH if WIDTH < 64 else 64
    parts = tl.reduce(tl.reshape(e, (HEIGHT, WIDTH // MANY, MANY)), 2, _both)
    return tl.sum(positive, 1) + tl.sum(_log1p(parts), 1)


@_jit
def _softplus_columns(positive, e, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    MANY: tl.constexpr = HEIGHT if HEIGHT < 64 else 64
    parts = tl.reduce(tl.reshape(e, (HEIGHT // MANY, MANY, WIDTH)), 1, _both)
    return tl.sum(positive, 0) + tl.sum(_log1p(parts), 0)


@_launched
def _reduce_tiles(  # type: ignore[no-untyped-def]
    queries,
    candidates,
    scale,
    bias,
    shift,
    skip_rows,
    skip_columns,
    skip_starts,
    n,
    m,
    d,
    top,
    tall,
    left,
    wide,
    across,
    by_row,
    by_column,
    BOTH: tl.constexpr,
    SOFTMAX: tl.constexpr,
    SHIFTED: tl.constexpr,
    EXCLUDES: tl.constexpr,
    PRECISION: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    """A of a tile's rows -> by_row (wide, tall · HEIGHT); of its columns -> by_column (tall, wide · WIDTH)."""
    row, column = _place(tall, wide, GROUP)
    logits = _logits(
        queries,
        candidates,
        scale,
        bias,
        shift,
        skip_rows,
        skip_columns,
        skip_starts,
        n,
        m,
        d,
        top + row,
        left + column,
        across,
        SHIFTED,
        EXCLUDES,
        PRECISION,
        HEIGHT,
        WIDTH,
        DEPTH,
    )
    row_places = by_row + (column * tall + row) * HEIGHT + tl.arange(0, HEIGHT)
    column_places = by_column + (row * wide + column) * WIDTH + tl.arange(0, WIDTH)
    if SOFTMAX:
        tl.store(row_places, _logsumexp(logits, 1))
        if BOTH:
            tl.store(column_places, _logsumexp(logits, 0))
    else:
        positive, e = tl.maximum(logits, 0.0), tl.exp(-tl.abs(logits))
        tl.store(row_places, _softplus_rows(positive, e, HEIGHT, WIDTH))
        if BOTH:
            tl.store(column_places, _softplus_columns(positive, e, HEIGHT, WIDTH))


@_launched
def _gradient_tiles(  # type: ignore[no-untyped-def]
    queries,
    candidates,
    scale,
    bias,
    shift,
    skip_rows,
    skip_columns,
    skip_starts,
    n,
    m,
    d,
    top,
    tall,
    left,
    wide,
    across,
    made,
    stride,
    sums,
    parts,
    row_totals,
    row_gradients,
    column_totals,
    column_gradients,
    BOTH: tl.constexpr,
    SUMS: tl.constexpr,
    VALUES: tl.constexpr,
    SOFTMAX: tl.constexpr,
    SHIFTED: tl.constexpr,
    EXCLUDES: tl.constexpr,
    PRECISION: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    """G of a tile -> made (tall · HEIGHT, stride), 0 beyond the matrix; Σ G -> sums (tall · wide); Σ gᵢ Aᵢ -> parts."""
    row, column = _place(tall, wide, GROUP)
    logits = _logits(
        queries,
        candidates,
        scale,
        bias,
        shift,
        skip_rows,
        skip_columns,
        skip_starts,
        n,
        m,
        d,
        top + row,
        left + column,
        across,
        SHIFTED,
        EXCLUDES,
        PRECISION,
        HEIGHT,
        WIDTH,
        DEPTH,
    )
    rows = (top + row) * HEIGHT + tl.arange(0, HEIGHT)
    columns = (left + column) * WIDTH + tl.arange(0, WIDTH)
    by_row = tl.load(row_gradients + rows, rows < n, 0.0)[:, None]
    by_column = tl.load(column_gradients + columns, columns < m, 0.0)[None, :] if BOTH else 0.0
    if SOFTMAX:
        total = tl.load(row_totals + rows, rows < n, 0.0)
        gradient = tl.exp(logits - tl.where(total == float("-inf"), 0.0, total)[:, None]) * by_row
        if BOTH:
            total = tl.load(column_totals + columns, columns < m, 0.0)
            gradient += tl.exp(logits - tl.where(total == float("-inf"), 0.0, total)[None, :]) * by_column
    else:
        e = tl.exp(-tl.abs(logits))
        if VALUES:
            total = _softplus_rows(tl.maximum(logits, 0.0), e, HEIGHT, WIDTH)
            tl.store(parts + row * wide + column, tl.sum(total * tl.load(row_gradients + rows, rows < n, 0.0)))
        gradient = tl.where(logits >= 0, 1.0, e) / (1.0 + e) * (by_row + by_column)
    if SUMS:
        tl.store(sums + row * wide + column, tl.sum(gradient))
    places = (row * HEIGHT + tl.arange(0, HEIGHT)).to(tl.int64)[:, None] * stride
    places += (column * WIDTH + tl.arange(0, WIDTH))[None, :]
    tl.store(made + places, gradient.to(made.dtype.element_ty))


#: Whether the kernels run on the CPU: decided once, when Triton reads them.
INTERPRETED = triton is not None and not isinstance(_reduce_tiles, triton.runtime.JITFunction)
