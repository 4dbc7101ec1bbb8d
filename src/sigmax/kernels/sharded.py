"""The loss over what all processes hold, exact: candidates travel round a ring, no process ever holds them all.

Rank r holds n_r queries and m_r candidates; N and M are the sums. In W steps every shard of candidates visits every
rank and comes home, one shard being sent while the one before is worked on. Forward, A of the columns travels with its
shard; backward, ∂candidates does. A rank holds O((n_r + m_r) · d) numbers of vectors, and the few that a loss is
made of are gathered: N + M totals, K logits of right pairs and the K pairs. From there every rank computes the same
loss with the same code as one process would.

DistributedDataParallel averages gradients over W ranks, so each rank's gradients are W times its part of the whole
loss's: their average over the ranks is the gradient of the loss that one process would have on everything.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from sigmax.kernels.engine import Engine
from sigmax.kernels.function import apply
from sigmax.kernels.problem import Gradients, Inputs, Problem, Reduction, Wants
from sigmax.positives import Positives

__all__ = ["RankSizes", "agree", "reduce"]

#: What a rank tells the others of its inputs before any of them travel.
_FACTS = ("ok", "queries", "candidates", "width", "dtype", "rows", "columns", "right")
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class RankSizes(NamedTuple):
    """Sizes of every rank's part."""

    rank: int
    queries: list[int]  #: of each rank
    candidates: list[int]
    right: list[int]  #: right pairs of each rank's queries

    @property
    def world(self) -> int:
        """W."""
        return len(self.queries)


def agree(queries: Tensor, candidates: Tensor, positives: Positives, error: Exception | None) -> RankSizes:
    """Exchange sizes with the other ranks. All ranks go on, or all raise.

    Args:
        queries: (n_r, d) of this rank.
        candidates: (m_r, d) of this rank.
        positives: (n_r, M): this rank's queries against the candidates of all ranks, in the order of ranks.
        error: what is wrong with this rank's inputs, if something is.

    Raises:
        ValueError: on every rank, what is wrong on one of them.
    """
    device = queries.device if isinstance(queries, Tensor) else torch.device("cpu")
    if error is not None:
        facts = [0] * len(_FACTS)
    else:
        dtype = _DTYPES.index(queries.dtype)
        facts = [1, *map(len, (queries, candidates)), queries.shape[1], dtype, *positives.shape, len(positives)]
    mine = torch.tensor(facts, device=device)
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, mine)
    if error is not None:
        raise error
    table = [dict(zip(_FACTS, row, strict=True)) for row in torch.stack(gathered).tolist()]
    failed = [str(rank) for rank, row in enumerate(table) if not row["ok"]]
    if failed:
        raise ValueError(f"The loss was given up: see the error of rank {', '.join(failed)}.")
    for fact, what in (("width", "width d"), ("dtype", "dtype")):
        kinds = [row[fact] for row in table]
        if len(set(kinds)) > 1:
            shown = [str(_DTYPES[kind]) for kind in kinds] if fact == "dtype" else kinds
            raise ValueError(f"Expected vectors of one {what} on all ranks, got {', '.join(map(str, shown))}.")
    everyone = sum(row["candidates"] for row in table)
    for rank, row in enumerate(table):
        expected, got = (row["queries"], everyone), (row["rows"], row["columns"])
        if got != expected:
            raise ValueError(
                f"Expected `positives` of shape (queries of the rank, candidates of all ranks) = {expected} on rank "
                f"{rank}, got {got}."
            )
    return RankSizes(dist.get_rank(), *([row[fact] for row in table] for fact in ("queries", "candidates", "right")))


def reduce(engine: Engine, inputs: Inputs, problem: Problem, sizes: RankSizes) -> tuple[Reduction, Positives]:
    """A of all N queries (and M candidates) and the K right pairs' logits, and the graph of them all, on every rank.

    Args:
        engine: what works on one shard.
        inputs: (n_r, d) queries and (m_r, d) candidates of this rank; scale and bias are the same on all ranks.
        problem: positives of shape (n_r, M), shift of shape (m_r,).
        sizes: what `agree` returned.
    """
    shards = _shards(problem, sizes)
    rows, columns, pairs = apply(_Ring, *inputs, engine, problem, shards, sizes)
    return Reduction(rows, columns if problem.columns else None, pairs), _everyones(problem.positives, sizes)


class _Shard(NamedTuple):
    """One rank's candidates, as the queries of this rank see them."""

    problem: Problem
    pairs: Tensor  #: places of its right pairs in the order of this rank's positives
    columns: slice  #: its candidates among all


def _shards(problem: Problem, sizes: RankSizes) -> list[_Shard]:
    shift = None if problem.shift is None else _gather(problem.shift, sizes.candidates)
    made = []
    stop = 0
    for size in sizes.candidates:
        start, stop = stop, stop + size
        part, places = problem.positives.select_columns(start, stop)
        one = Problem(part, problem.objective, None if shift is None else shift[start:stop], problem.columns)
        made.append(_Shard(one, places, slice(start, stop)))
    return made


def _everyones(positives: Positives, sizes: RankSizes) -> Positives:
    """The graph of all ranks' queries against all candidates; ignored pairs are in the totals already."""
    rows = _gather(positives.rows + sum(sizes.queries[: sizes.rank]), sizes.right)
    columns = _gather(positives.columns, sizes.right)
    none = rows[:0]
    return Positives._made(rows, columns, none, none, shape=(sum(sizes.queries), sum(sizes.candidates)))


def _gather(mine: Tensor, sizes: list[int]) -> Tensor:
    """Each rank's vector, one after the other; `sizes` says how long they are."""
    longest = max(sizes)
    padded = mine.new_zeros(longest)
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        candidates: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        engine: Engine,
        problem: Problem,
        shards: list[_Shard],
        sizes: RankSizes,
    ) -> tuple[Tensor, Tensor, Tensor]:
        partition = problem.objective.partition
        rows = columns = pairs = None
        with torch.autocast(queries.device.type, enabled=False):
            visiting = candidates.contiguous()
            for step in range(sizes.world):
                owner = (sizes.rank - step) % sizes.world
                shard = shards[owner]
                following = _Travel(visiting, sizes, owner) if step < sizes.world - 1 else None
                found = engine.reduce(Inputs(queries, visiting, scale, bias), shard.problem)
                if rows is None or pairs is None:
                    rows, pairs = found.rows, found.pairs.new_empty(len(problem.positives))
                else:
                    rows = partition.combine(rows, found.rows)
                pairs[shard.pairs] = found.pairs
                if found.columns is not None:  # its totals so far have come along with the shard
                    columns = found.columns if columns is None else partition.combine(columns, found.columns)
                    columns = _Travel(columns, sizes, owner).arrive()
                if following is not None:
                    visiting = following.arrive()
        assert rows is not None and pairs is not None  # W is at least 1
        totals = [_gather(rows, sizes.queries), _gather(pairs, sizes.right)]
        all_columns = rows.new_empty(0) if columns is None else _gather(columns, sizes.candidates)
        ctx.save_for_backward(queries, candidates, scale, bias, rows, all_columns)
        ctx.engine, ctx.problem, ctx.shards, ctx.sizes = engine, problem, shards, sizes
        return totals[0], all_columns, totals[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *arriving: Tensor) -> tuple[Tensor | None, ...]:
        queries, candidates, scale, bias, rows, columns = ctx.saved_tensors
        sizes: RankSizes = ctx.sizes
        wants = Wants(*ctx.needs_input_grad[:4])
        by_row, by_column, by_pair = (gradient * sizes.world for gradient in arriving)
        by_row = _own(by_row, sizes.queries, sizes.rank)
        by_pair = _own(by_pair, sizes.right, sizes.rank)
        sums: list[Tensor | None] = [None, None, None]  # queries, scale, bias
        travelling: _Travel | None = None
        with torch.autocast(queries.device.type, enabled=False):
            visiting = candidates.contiguous()
            for step in range(sizes.world):
                owner = (sizes.rank - step) % sizes.world
                shard = ctx.shards[owner]
                following = _Travel(visiting, sizes, owner) if step < sizes.world - 1 else None
                column_totals = columns[shard.columns] if ctx.problem.columns else None
                column_gradients = by_column[shard.columns] if ctx.problem.columns else None
                to_queries, to_candidates, to_scale, to_bias = ctx.engine.gradients(
                    Inputs(queries, visiting, scale, bias),
                    shard.problem,
                    Reduction(rows, column_totals, rows[:0]),
                    Reduction(by_row, column_gradients, by_pair[shard.pairs]),
                    wants,
                )
                for place, part in enumerate((to_queries, to_scale, to_bias)):
                    before = sums[place]
                    sums[place] = part if before is None or part is None else before + part
                if to_candidates is not None:
                    if travelling is not None:  # what the ranks before have added to this shard's gradient
                        to_candidates = to_candidates + travelling.arrive()
                    travelling = _Travel(to_candidates, sizes, owner)
                if following is not None:
                    visiting = following.arrive()
        by_queries, by_scale, by_bias = sums
        by_candidates = None if travelling is None else travelling.arrive()
        by_inputs = Gradients(by_queries, by_candidates, by_scale, by_bias)
        return (*by_inputs.cast_to(Inputs(queries, candidates, scale, bias)), None, None, None, None)


def _own(everyones: Tensor, sizes: list[int], rank: int) -> Tensor:
    start = sum(sizes[:rank])
    return everyones[start : start + sizes[rank]]


class _Travel:
    """What belongs to `owner`'s shard on its way to the next rank, and the shard of the rank before coming in."""

    def __init__(self, outgoing: Tensor, sizes: RankSizes, owner: int) -> None:
        world, rank = sizes.world, sizes.rank
        incoming = sizes.candidates[(owner - 1) % world]
        self.buffer = outgoing.new_empty(incoming, *outgoing.shape[1:])
        self.outgoing = outgoing.contiguous()  # must live until it is sent
        self.works = []
        if world == 1:
            self.buffer = self.outgoing
            return
        operations = []
        if self.outgoing.numel():
            operations.append(dist.P2POp(dist.isend, self.outgoing, (rank + 1) % world))
        if self.buffer.numel():
            operations.append(dist.P2POp(dist.irecv, self.buffer, (rank - 1) % world))
        self.works = dist.batch_isend_irecv(operations) if operations else []

    def arrive(self) -> Tensor:
        for work in self.works:
            work.wait()
        return self.buffer
