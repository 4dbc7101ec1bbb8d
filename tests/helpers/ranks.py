"""Real processes for `test_sharded.py`: each runs one of the functions below as a rank over gloo.

python tests/helpers/ranks.py FUNCTION RANK WORLD STORE OUT
"""

import datetime
import os
import sys
import time

import torch
import torch.distributed as dist

import sigmax
from helpers import oracles
from helpers.memory import Largest
from sigmax.encoders import rows
from sigmax.encoders.rows import rows_of
from sigmax.families import OBJECTIVES
from sigmax.kernels import tiled
from sigmax.losses import make_loss
from sigmax.training.row_adamw import RowAdamW

#: (queries of each rank, candidates of each rank) at W = 2, 3, 4: even, ragged, and a rank without any.
SHARES = {
    2: [([3, 3], [4, 4]), ([5, 1], [2, 7]), ([4, 0], [3, 3])],
    3: [([2, 2, 2], [3, 3, 3]), ([1, 4, 2], [5, 1, 3]), ([2, 3, 1], [0, 4, 2])],
    4: [([2, 1, 3, 2], [2, 4, 1, 3])],
}
WAYS = [
    (name, directions, reduction)
    for name in OBJECTIVES
    for directions in ("queries", "both")
    for reduction in ("mean", "sum", "none")
    if (OBJECTIVES[name].family, directions) != ("sigmoid", "both")
]


def build(name, directions, reduction):
    loss = make_loss(name, logit_scale=3.0, logit_bias=-1.0).double()
    loss.directions, loss.reduction = directions, reduction
    return loss


def whole(queries, candidates):
    """The batch, log q, and weights that make a scalar of the losses."""
    batch = oracles.random_batch(sum(queries), sum(candidates), 5, seed=7)
    generator = torch.Generator().manual_seed(1)
    log_q, weights = torch.rand(2, 64, generator=generator, dtype=torch.float64)
    return batch, log_q[: sum(candidates)].log(), weights


def scalar(value, weights):
    return value if value.ndim == 0 else value @ weights[: len(value)]


def gradients(rank, world):
    """Value and gradients of every loss over all ranks: what each rank has of them."""
    tiled._tile = oracles.tiles_of(2, 3)
    found = []
    for queries, candidates in SHARES[world]:
        batch, log_q, weights = whole(queries, candidates)
        rows = slice(sum(queries[:rank]), sum(queries[: rank + 1]))
        columns = slice(sum(candidates[:rank]), sum(candidates[: rank + 1]))
        mine = sigmax.Positives.from_dense(batch.cells[rows] == 1, batch.cells[rows] == 2)
        for way in WAYS:
            loss = build(*way)
            loss.gather_across_devices = True
            leaves = [x.clone().requires_grad_() for x in (batch.queries[rows], batch.candidates[columns])]
            value = loss(*leaves, mine, candidate_log_q=log_q[columns])
            made = torch.autograd.grad(scalar(value, weights), [*leaves, *loss.parameters()])
            found.append([value.detach(), *made])
    return found


#: Steps of `row_steps`.
STEPS = 40


def start():
    """The table of `row_steps`."""
    return torch.randn(60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def read(number, rank):
    """Rows that a process reads in a step, none, few or most of them, some of them twice; and the gradient there."""
    generator = torch.Generator().manual_seed(1000 * number + rank)
    many = number % 7 == 5 and rank == 1
    places = torch.arange(50) if many else torch.randint(60, (number % 6,), generator=generator)
    return places, torch.randn(len(places), 3, dtype=torch.float64, generator=generator)


def row_steps(rank, world):
    """A table after some steps with each process's own rows."""
    rows.SMALL = 0
    table = torch.nn.Parameter(start())
    optimizer = RowAdamW([{"params": [table], "lr": 0.01}], eps=1e-8, tables=[table])
    for number in range(STEPS):
        optimizer.zero_grad()
        places, arriving = read(number, rank)
        (rows_of(table, places) * arriving).sum().backward()
        optimizer.step()
    optimizer.settle()
    return table.detach()


def largest_tensor(rank, world):
    """Elements of the largest tensor made, at 64 queries and candidates a rank and 32 numbers a vector."""

    loss = build("softmax-average", "both", "mean")
    loss.gather_across_devices = True
    vectors = [torch.randn(64, 32, dtype=torch.float64).requires_grad_() for _ in range(2)]
    tiled._tile = oracles.tiles_of(16, 16)
    places = torch.arange(64)
    with Largest() as mode:
        loss(*vectors, sigmax.Positives(places, places + 64 * rank, (64, 64 * world))).backward()
    return mode.numel


def one_fails(rank, world, *kinds):
    """What every rank is told when rank 1 is given something bad, or ends, or hangs; one kind after the other."""
    return [told(rank, world, kind) for kind in kinds]


def told(rank, world, kind):
    loss = build("softmax-average", "queries", "mean")
    loss.gather_across_devices = True
    vectors = [torch.randn(4, 3, dtype=torch.float64).requires_grad_() for _ in range(2)]
    width = 4 * world
    if rank == 1:
        if kind == "shape":
            width += 1
        elif kind == "type":
            vectors[0] = torch.zeros(4, 3, dtype=torch.int64)
        elif kind == "dtype":
            vectors = [x.detach().float() for x in vectors]
        elif kind == "d":
            vectors = [x[:, :2] for x in vectors]
        elif kind == "nan":
            vectors[1] = vectors[1].detach().index_fill(0, torch.tensor([0]), float("nan"))
        elif kind == "death":
            os._exit(3)
        elif kind == "hang":
            time.sleep(60)
    try:
        loss(*vectors, sigmax.Positives([0, 1, 2, 3], [0, 1, 2, 3], (4, width))).backward()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def columns_of_texts(rank, world):
    """Value and gradients of sentence-transformers' losses, each rank holding some rows of a table of texts."""
    from helpers.texts import TABLE, features_of, static
    from sigmax.sentence_transformers import SigmoidLoss, SoftmaxLoss

    mine = [column[:3] if rank == 0 else column[3:] for column in TABLE]
    found = []
    for make in (SoftmaxLoss, SigmoidLoss):
        loss = make(static(), learnable=True, gather_across_devices=True)
        value = loss(features_of(loss.model, mine), None)
        value.backward()
        found.append([value.detach(), *(parameter.grad for parameter in loss.parameters())])
    return found


def main():
    function, rank, world, store, out = sys.argv[1:6]
    rank, world = int(rank), int(world)
    torch.set_num_threads(1)
    seconds = 4 if function.endswith("hang") else 60
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=seconds),
    )
    name, *arguments = function.split(":")
    torch.save(globals()[name](rank, world, *arguments), out)
    os._exit(0)  # without waiting for a rank that will not come


if __name__ == "__main__":
    main()
