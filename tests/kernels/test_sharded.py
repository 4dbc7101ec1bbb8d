"""The loss over many processes, with real ones."""

import re
from pathlib import Path

import pytest
import torch

from helpers import ranks
from helpers.processes import run
from sigmax.positives import Positives
from sigmax.processes import world_size

TESTS = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3, 4])
def test_equals_one_process(world, tmp_path):
    """Value, and gradients averaged as DistributedDataParallel does, of every loss and share."""
    found = run("gradients", world, tmp_path)
    number = 0
    for queries, candidates in ranks.SHARES[world]:
        batch, log_q, weights = ranks.whole(queries, candidates)
        for way in ranks.WAYS:
            loss = ranks.build(*way)
            leaves = batch.leaves()
            value = loss(*leaves, batch.positives, candidate_log_q=log_q)
            expected = torch.autograd.grad(ranks.scalar(value, weights), [*leaves, *loss.parameters()])
            mine = [rank[number] for rank in found]
            for rank in mine:
                torch.testing.assert_close(rank[0], value.detach(), rtol=1e-12, atol=1e-12)
            # Vectors belong to one rank each, and the average over W is taken where their encoder's gradients meet.
            for place in (1, 2):
                together = torch.cat([rank[place] for rank in mine]) / world
                torch.testing.assert_close(together, expected[place - 1], rtol=0, atol=1e-12)
            for place in range(3, 1 + len(expected)):
                average = sum(rank[place] for rank in mine) / world
                torch.testing.assert_close(average, expected[place - 1], rtol=1e-12, atol=1e-12)
            number += 1
    assert number == len(found[0])


@pytest.mark.slow
def test_no_rank_holds_everything(tmp_path):
    found = run("largest_tensor", 4, tmp_path)
    assert max(found) == 64 * 32  # a shard of vectors; all of them would be 4 times that, a block of logits 8 times


TOLD = {  # of what is wrong on rank 1: what it says itself, what the others say
    "shape": (r"ValueError: .*\(4, 12\) on rank 1, got \(4, 13\)", r"ValueError: .*\(4, 12\) on rank 1, got"),
    "type": (r"ValueError: Expected `queries` to be a floating point", r"ValueError: .*see the error of rank 1"),
    "dtype": (r"ValueError: .*one dtype on all ranks, got torch.float64, torch.float32", r"ValueError: .*one dtype"),
    "nan": (
        r"ValueError: .*NaN or infinity in 1 of 4 `candidates`",
        r"ValueError: .*NaN or infinity on another|not fini",
    ),
    "d": (r"ValueError: .*one width d on all ranks, got 3, 2, 3", r"ValueError: .*one width d"),
}


@pytest.mark.slow
def test_one_rank_given_something_bad_stops_all(tmp_path):
    """With an error each, after which they can go on together."""
    found = run(f"one_fails:{':'.join([*TOLD, 'none'])}", 3, tmp_path)
    for rank, errors in enumerate(found):
        for (own, others), error in zip(TOLD.values(), errors[:-1], strict=True):
            assert re.match(own if rank == 1 else others, error), (rank, error)
        assert errors[-1] == "no error"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["death", "hang"])
def test_one_rank_ending_or_hanging_ends_all(how, tmp_path):
    found = run(f"one_fails:{how}", 3, tmp_path, waits_for=[0, 2])
    assert found[1] is None
    for rank in (0, 2):
        assert re.match(r"(RuntimeError|DistBackendError)", found[rank][0]), found[rank]


def test_one_process_needs_no_group():
    assert world_size() == 1
    loss = ranks.build("sigmoid", "queries", "mean")
    batch = ranks.whole([4], [5])[0]
    alone = loss(batch.queries, batch.candidates, batch.positives)
    loss.gather_across_devices = True
    assert loss(batch.queries, batch.candidates, batch.positives) == alone


def test_select_columns():
    positives = Positives([0, 0, 1, 2], [1, 3, 2, 4], (3, 5), ignored=([1, 2], [3, 0]))
    part, places = positives.select_columns(1, 4)
    assert part == Positives([0, 0, 1], [0, 2, 1], (3, 3), ignored=([1], [2]))
    assert places.tolist() == [0, 1, 2]
