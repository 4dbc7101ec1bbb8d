"""What a GPU does with one tile of logits, as Triton kernels. Importing this file imports Triton.

`reduce_tiles` makes A of a tile's rows and columns, `gradient_tiles` turns its logits into G. `triton` launches them.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["INTERPRETED", "SIZES", "gradient_tiles", "reduce_tiles"]

#: Sizes for which no version of a kernel is compiled on its own.
SIZES = ["n", "m", "top", "tall", "left", "wide", "across"]


def _launched(kernel):
    return triton.jit(kernel, do_not_specialize=SIZES)


@triton.jit
def _place(down, across, GROUP: tl.constexpr):
    """Which tile is this program's: GROUP rows of tiles together, column after column of them."""
    program = tl.program_id(0)
    first = program // (GROUP * across) * GROUP
    tall = tl.minimum(down - first, GROUP)
    inside = program - first * across
    return first + inside % tall, inside // tall


@triton.jit
def _logits(
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
    query_places = queries + tl.minimum(rows, n - 1).to(tl.int64)[:, None] * d + depth[None, :]
    candidate_places = candidates + near_columns.to(tl.int64)[None, :] * d + depth[:, None]
    products = tl.zeros((HEIGHT, WIDTH), tl.float32)
    for _ in range(0, d, DEPTH):
        products = tl.dot(tl.load(query_places), tl.load(candidate_places), products, input_precision=PRECISION)
        query_places += DEPTH
        candidate_places += DEPTH
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


@triton.jit
def _logsumexp(logits, AXIS: tl.constexpr):
    peak = tl.max(logits, AXIS)
    peak = tl.where(peak == float("-inf"), 0.0, peak)
    total = tl.sum(tl.exp(logits - tl.expand_dims(peak, AXIS)), AXIS)
    return tl.where(total == 0.0, float("-inf"), peak + tl.log(tl.where(total == 0.0, 1.0, total)))


@triton.jit
def _both(x, y):
    """(1 + x)(1 + y) − 1, all above 0."""
    return x + y + x * y


@triton.jit
def _log1p(x):
    """log(1 + x) for x ≥ 0: where 1 + x was rounded, so is what the logarithm is multiplied with."""
    rounded = 1.0 + x
    return tl.where(rounded == 1.0, x, tl.log(rounded) * (x / tl.where(rounded == 1.0, 1.0, rounded - 1.0)))


@triton.jit
def _softplus_rows(positive, e, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Σ softplus(s) = Σ max(s, 0) + Σ log(1 + e^−|s|) of each row: 64 exponentials, none above 1, to a logarithm."""
    MANY: tl.constexpr = WIDTH if WIDTH < 64 else 64
    parts = tl.reduce(tl.reshape(e, (HEIGHT, WIDTH // MANY, MANY)), 2, _both)
    return tl.sum(positive, 1) + tl.sum(_log1p(parts), 1)


@triton.jit
def _softplus_columns(positive, e, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    MANY: tl.constexpr = HEIGHT if HEIGHT < 64 else 64
    parts = tl.reduce(tl.reshape(e, (HEIGHT // MANY, MANY, WIDTH)), 1, _both)
    return tl.sum(positive, 0) + tl.sum(_log1p(parts), 0)


@_launched
def reduce_tiles(
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
def gradient_tiles(
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
    block,
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
    """G of a tile -> block (tall · HEIGHT, stride), 0 beyond the matrix; Σ G -> sums (tall · wide); Σ gᵢAᵢ -> parts."""
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
    tl.store(block + places, gradient.to(block.dtype.element_ty))


#: Whether the kernels run on the CPU: decided once, when Triton reads them.
INTERPRETED = not isinstance(reduce_tiles, triton.runtime.JITFunction)
