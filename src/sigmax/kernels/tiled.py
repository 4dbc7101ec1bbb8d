"""The PyTorch engine: tiles of logits, made in one buffer, used and forgotten. The n × m matrix is never held.

With g the gradients arriving at A and at the right pairs' logits,

    G = g_rows · act(s, A_rows) + g_columns · act(s, A_columns) + g_pairs on the right pairs
    ∂queries = scale · G @ candidates      ∂candidates = scale · Gᵀ @ queries
    ∂scale   = ⟨queries, G @ candidates⟩   ∂bias       = Σ G

`reduce` makes each tile once; `gradients` makes it once more and turns it into G in place: four products of 2·n·m·d
operations, three where one side needs no gradient.

`weighted_loss` needs three. A training step wants Σᵢ wᵢ Lᵢ with weights known beforehand: once a block of rows has met
all candidates its A is final, so the gradients arriving at A and at the right pairs are known, and the block's logits
become G before they are forgotten. Row i of G is then one factor times what the buffer holds anyway (exp s for the
softmax, never divided by its sum), and the factor goes to the rows of the small matrices.

Products run on whole tiles; what happens between them runs on slices that stay in the cache (`CACHE_BYTES`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sigmax.families import directed_loss
from sigmax.kernels.problem import Gradients, Inputs, Problem, Reduction, Tile, Wants, working_dtype

__all__ = ["Act", "Logits", "Tiled", "inverse"]

#: Bytes of a tile's logits. The products want tall and wide tiles, the memory does not.
TILE_BYTES = 16 * 2**20
#: Rows of a tile: at most, and at least where that lets a block of rows be kept whole.
HEIGHTS = (512, 128)
#: Bytes worked on between products: fits the level 2 caches of two cores.
CACHE_BYTES = 2**20
#: Up to this absolute value logits are exponentiated as they are: e⁴⁰ and its square are inside float32.
SAFE_LOGIT = 40.0


class Tiled:
    """The engine that runs wherever PyTorch does."""

    name = "tiled"
    device: str | None = None

    def missing(self, inputs: Inputs, problem: Problem) -> str | None:
        """Return None: it can everything."""
        return None

    def tiles(self, inputs: Inputs, problem: Problem, *, whole_rows: bool = False) -> Logits:
        """Return what makes the tiles of logits, and what happens between the products."""
        return Logits(inputs, problem, whole_rows=whole_rows)

    def reduce(self, inputs: Inputs, problem: Problem) -> Reduction:
        """See `Engine`."""
        n, m = problem.positives.shape
        logits = self.tiles(inputs, problem)
        combine, empty = problem.objective.partition.combine, problem.objective.partition.empty
        rows = logits.full(n, empty)
        columns = logits.full(m, empty) if problem.columns else None
        pairs = logits.full(len(problem.positives), 0.0)
        for tile in problem.tiles(*logits.tile):
            block, pairs[tile.pairs] = logits.make(tile)
            if columns is None:
                total = logits.act(block).total
            else:
                total, by_column = logits.totals(block)
                columns[tile.columns] = combine(columns[tile.columns], by_column)
            rows[tile.rows] = combine(rows[tile.rows], total)
        return Reduction(rows, columns, pairs)

    def gradients(
        self, inputs: Inputs, problem: Problem, totals: Reduction, arriving: Reduction, wants: Wants
    ) -> Gradients:
        """See `Engine`."""
        logits = self.tiles(inputs, problem)
        sums = _Sums(logits, wants)
        for tile in problem.tiles(*logits.tile):
            block, _ = logits.make(tile)
            logits.spread(block, totals, arriving, tile)
            block[tile.pair_rows, tile.pair_columns] += arriving.pairs[tile.pairs]
            sums.add(tile, block)
        return sums.result()

    def weighted_loss(
        self, inputs: Inputs, problem: Problem, weights: Tensor, wants: Wants
    ) -> tuple[Tensor, Gradients] | None:
        """See `Engine`; None where a block of rows is too wide to be kept whole."""
        _, m = problem.positives.shape
        logits = self.tiles(inputs, problem, whole_rows=True)
        if logits.tile[1] < m:
            return None
        sums = _Sums(logits, wants)
        counts = problem.positives.counts
        value = logits.full((), 0.0)
        for tile in problem.tiles(*logits.tile):
            block, pairs = logits.make(tile)
            total, unit, act_sum = logits.act(block)
            with torch.enable_grad():
                losses, _ = directed_loss(
                    problem.objective, total.requires_grad_(), pairs.requires_grad_(), tile.pair_rows, counts[tile.rows]
                )
                weighed = (losses * weights[tile.rows]).sum()
            value += weighed.detach()
            if not any(wants):
                continue
            by_total, by_pair = torch.autograd.grad(weighed, (total, pairs), materialize_grads=True)
            sums.bias += (by_total * act_sum).sum() + by_pair.sum()
            # The block holds act / unit: G = factor · block, once the right pairs have their part in the same units.
            factor = by_total * unit
            in_units = (by_pair / factor[tile.pair_rows]).masked_fill_(by_pair == 0, 0.0)
            if not bool(in_units.isfinite().all()):  # a row whose A has no gradient while its right pairs have one
                block *= factor[:, None]
                factor, in_units = torch.ones_like(factor), by_pair
            block[tile.pair_rows, tile.pair_columns] += in_units
            sums.add(tile, block, factor)
        return value, sums.result()


# -- tiles of logits -----------------------------------------------------------------------------


class Act(NamedTuple):
    """What becomes of a tile's rows."""

    total: Tensor  #: (r,) A
    unit: Tensor  #: (r,) what the buffer has to be multiplied with to be act
    act_sum: Tensor  #: (r,) Σⱼ act(sᵢⱼ)


class Logits:
    """Makes tiles of logits in one buffer, and what A and act are of them.

    `bias` is left out of the buffer: for the softmax it is one number added to A, for the sigmoid a factor of the
    exponentials. A partition without a `term` is computed by its own functions, one slice of rows at a time.
    """

    def __init__(self, inputs: Inputs, problem: Problem, *, whole_rows: bool = False) -> None:
        self.queries, self.candidates = inputs.queries.detach(), inputs.candidates.detach()
        self.dtype = working_dtype(self.queries)
        self.low = self.queries.dtype != self.dtype  # products of half-precision vectors; all between is float32
        self.scale = inputs.scale.detach().to(self.dtype)
        self.bias = 0.0 if inputs.bias is None else float(inputs.bias.detach())
        self.shift = problem.shift
        self.partition = problem.objective.partition
        self.tile = _tile(*problem.positives.shape, self.dtype.itemsize, whole_rows)
        self.buffer = torch.empty(math.prod(self.tile), dtype=self.dtype, device=inputs.device)
        self.largest = self._largest_logit()
        self.safe = self.largest <= SAFE_LOGIT
        self.scratch = torch.empty(0, dtype=self.dtype, device=inputs.device)

    def full(self, size: int | tuple[int, ...], value: float) -> Tensor:
        """Return a tensor of one value, in the dtype and on the device of the logits."""
        size = (size,) if isinstance(size, int) else size
        return torch.full(size, value, dtype=self.dtype, device=self.queries.device)

    def make(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """The tile's logits without bias, −∞ where a pair is excluded; and the whole logits of its right pairs."""
        queries, candidates = self.queries[tile.rows], self.candidates[tile.columns]
        block = self.buffer[: len(queries) * len(candidates)].view(len(queries), len(candidates))
        if self.low:
            block.copy_(queries @ candidates.T).mul_(self.scale)
        else:
            torch.mm(queries * self.scale, candidates.T, out=block)
        if self.shift is not None:
            block += self.shift[tile.columns]
        pairs = block[tile.pair_rows, tile.pair_columns] + self.bias
        block[tile.excluded_rows, tile.excluded_columns] = -math.inf
        return block, pairs

    def act(self, block: Tensor) -> Act:
        """(r, c) logits without bias -> A and unit of each row; the logits become act / unit, in place."""
        one = {"exp": self._softmax, "softplus": self._sigmoid}.get(str(self.partition.term), self._general)
        return Act(*(torch.cat(parts) for parts in zip(*map(one, self._slices(block)), strict=True)))

    def totals(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """(r, c) logits without bias -> (r,) A of the rows and (c,) A of the columns; the logits are used up."""
        by_row = []
        by_column = self.full(block.shape[1], 0.0 if self.plain else self.partition.empty)
        for part in self._slices(block):
            if self.plain:
                part.exp_()
                by_row.append(part.sum(1).log_().add_(self.bias))
                by_column += part.sum(0)
            else:
                part += self.bias
                by_row.append(self.partition.reduce(part, 1))
                by_column = self.partition.combine(by_column, self.partition.reduce(part, 0))
        return torch.cat(by_row), by_column.log_().add_(self.bias) if self.plain else by_column

    def spread(self, block: Tensor, totals: Reduction, arriving: Reduction, tile: Tile) -> None:
        """(r, c) logits without bias become Σ over directions of arriving · act(s, total), in place."""
        row_totals, by_row = totals.rows[tile.rows], arriving.rows[tile.rows]
        column_totals = None if totals.columns is None else totals.columns[tile.columns]
        by_column = None if arriving.columns is None else arriving.columns[tile.columns]
        if self.plain:  # act(s, A) = exp s · exp −A: one exponential for both directions
            by_row = by_row * inverse(row_totals, self.bias)
            if by_column is not None and column_totals is not None:
                by_column = by_column * inverse(column_totals, self.bias)
        start = 0
        for part in self._slices(block):
            here = slice(start, start := start + len(part))
            if self.plain:
                part.exp_()
            elif self.partition.term == "softplus":  # its act does not ask for A: one serves both directions
                part.add_(self.bias).sigmoid_()
            else:
                part += self.bias
                gradient = self.partition.act(part, row_totals[here, None]).mul_(by_row[here, None])
                if by_column is not None and column_totals is not None:
                    gradient += self.partition.act(part, column_totals).mul_(by_column)
                part.copy_(gradient)
                continue
            if by_column is None:
                part *= by_row[here, None]
            else:
                part *= torch.add(by_row[here, None], by_column, out=self._scratch(part))

    def _softmax(self, part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        peak = None
        if not self.safe and part.shape[1]:
            peak = part.amax(1)
            peak.masked_fill_(peak == -math.inf, 0.0)
            part.sub_(peak[:, None])
        total = part.exp_().sum(1)
        some = total != 0  # a row without candidates has no share to give
        unit = total.reciprocal().masked_fill_(~some, 0.0)
        total = total.log_().add_(self.bias)
        return total if peak is None else total.add_(peak), unit, some.to(self.dtype)

    def _sigmoid(self, part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.safe and part.numel() and max(float(part.amax()), 0.0) + abs(self.bias) > SAFE_LOGIT:
            part += self.bias
            total = part.clamp(min=0).add_(part.abs().neg_().exp_().log1p_()).sum(1)
            return total, torch.ones_like(total), part.sigmoid_().sum(1)
        e = math.exp(self.bias)
        part.exp_()
        # Σ log(1 + x) with one logarithm for two x, as it is the expensive part: (1 + x)(1 + y) = 1 + (x + y + x·y).
        half = part.shape[1] // 2
        x, y = part[:, :half], part[:, half : 2 * half]
        total = torch.add(x, y, out=self._scratch(x)).addcmul_(x, y, value=e).mul_(e).log1p_().sum(1)
        if part.shape[1] % 2:
            total += (part[:, -1] * e).log1p_()
        part.div_(torch.add(1.0, part, alpha=e, out=self._scratch(part)))
        act_sum = part.sum(1).mul_(e)
        return total, torch.full_like(total, e), act_sum

    def _general(self, part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        part += self.bias
        total = self.partition.reduce(part, 1) if part.shape[1] else self.full(len(part), self.partition.empty)
        part.copy_(self.partition.act(part, total[:, None]))
        return total, torch.ones_like(total), part.sum(1)

    @property
    def plain(self) -> bool:
        """Whether exp s needs no maximum subtracted, and so serves rows and columns alike."""
        return self.partition.term == "exp" and self.safe

    def _slices(self, block: Tensor) -> tuple[Tensor, ...]:
        """Rows that fit the cache together. On a GPU, all of them."""
        rows, width = block.shape
        fitting = CACHE_BYTES // max(1, width * self.dtype.itemsize) if block.device.type == "cpu" else rows
        height = max(1, min(fitting, rows))
        if len(self.scratch) < height * width:
            self.scratch = self.scratch.new_empty(height * width)
        return torch.split(block, height)

    def _scratch(self, like: Tensor) -> Tensor:
        return self.scratch[: like.numel()].view(like.shape)

    def _largest_logit(self) -> float:
        """A bound on every |s|, from the lengths of the vectors."""
        if not len(self.queries) or not len(self.candidates):
            return 0.0
        lengths = [torch.linalg.vector_norm(x, dim=1, dtype=self.dtype).max() for x in (self.queries, self.candidates)]
        bound = float(lengths[0] * lengths[1] * self.scale.abs()) + abs(self.bias)
        return bound if self.shift is None else bound + float(self.shift.abs().max())


def inverse(totals: Tensor, bias: float) -> Tensor:
    """e^(bias − A), and 0 for the A = −∞ of a row without candidates."""
    return (bias - totals).exp_().masked_fill_(totals == -math.inf, 0.0)


def _tile(n: int, m: int, itemsize: int, whole_rows: bool) -> tuple[int, int]:
    """Height and width of tiles."""
    most, least = HEIGHTS
    entries = TILE_BYTES // itemsize
    height = max(1, min(n, most))
    if whole_rows and height * m > entries:
        height = min(height, max(least, entries // m))
        entries *= 2
    return height, max(1, min(m, entries // height))


# -- sums of products ----------------------------------------------------------------------------


class _Sums:
    """Gradients by queries, candidates, scale and bias, added up tile by tile."""

    def __init__(self, logits: Logits, wants: Wants) -> None:
        self.logits, self.wants = logits, wants
        queries, candidates = logits.queries, logits.candidates
        self.visits_queries = wants.queries or (wants.scale and not wants.candidates)  # ∂scale is read off either side
        self.queries = torch.empty_like(queries, dtype=logits.dtype) if wants.queries else None
        self.candidates = torch.zeros_like(candidates, dtype=logits.dtype) if wants.candidates else None
        self.scale = logits.full((), 0.0)
        self.bias = logits.full((), 0.0)
        if self.queries is not None and not len(candidates):
            self.queries.zero_()

    def add(self, tile: Tile, gradient: Tensor, factor: Tensor | None = None) -> None:
        """Add what G = factor · gradient contributes; factor (rows,), or None for 1 (∂bias is then added as well)."""
        dtype, low, scale = self.logits.dtype, self.logits.low, self.logits.scale
        queries, candidates = self.logits.queries[tile.rows], self.logits.candidates[tile.columns]
        if factor is None:
            if self.wants.bias:
                self.bias += gradient.sum()
        elif low:
            gradient, factor = gradient.mul_(factor[:, None]), None
        gradient = gradient.to(queries.dtype)
        factor = scale if factor is None else (factor * scale)[:, None]
        if self.visits_queries:
            first = tile.columns.start == 0
            place = self.queries[tile.rows] if self.queries is not None else None
            if first and place is not None and not low:
                by_query = torch.mm(gradient, candidates, out=place)
            else:
                by_query = (gradient @ candidates).to(dtype)
            by_query *= factor
            if self.wants.scale:
                self.scale += torch.dot(by_query.view(-1), queries.to(dtype).reshape(-1))
            if place is not None and by_query is not place:
                place.copy_(by_query) if first else place.add_(by_query)
        if self.candidates is not None:
            sums = self.candidates[tile.columns]
            if low:
                sums += (gradient.T @ queries) * scale
            else:
                sums.addmm_(gradient.T, queries * factor)

    def result(self) -> Gradients:
        logits, wants = self.logits, self.wants
        if wants.scale and not self.visits_queries and self.candidates is not None:
            for start in range(0, len(self.candidates), 4096):
                rows = slice(start, start + 4096)
                self.scale += (self.candidates[rows] * logits.candidates[rows]).sum()
        return Gradients(
            None if self.queries is None else self.queries.to(logits.queries.dtype),
            None if self.candidates is None else self.candidates.to(logits.candidates.dtype),
            self.scale / logits.scale if wants.scale else None,
            self.bias if wants.bias else None,
        )
