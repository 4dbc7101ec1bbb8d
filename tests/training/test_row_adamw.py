"""A step costs what its batch holds, and the model is the one that dense AdamW trains."""

import copy
import itertools
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from helpers import ranks
from helpers.data import things
from helpers.memory import Allocated
from helpers.processes import run
from sigmax.data.dataset import MatchDataset
from sigmax.encoders import rows
from sigmax.encoders.rows import add_rows, rows_of, watch
from sigmax.evaluation import quick_metrics
from sigmax.training import row_adamw, trainer
from sigmax.training.missed import NODES, WINDOW, Rates, gauss, missed
from sigmax.training.row_adamw import RowAdamW
from sigmax.training.settings import Settings
from sigmax.training.train import train

BETAS = (0.9, 0.999)
#: Largest error of what a row moves in missed steps, relative to that: see `test_missed_steps_are_those_of_a_loop`.
ERROR = 2.5e-6


@pytest.fixture(autouse=True, scope="module")
def tables_may_be_small():
    with mock.patch.object(rows, "SMALL", 0):
        yield


@pytest.fixture
def few(monkeypatch):
    """Every gradient counts as one of few rows."""
    monkeypatch.setattr(rows, "MANY", 2.0)


def rates_of(steps, warmup=1):
    """A rise and a fall, as in training."""
    made = Rates()
    for step in range(1, steps + 1):
        made.append(min(1.0, (step - 1) / warmup) * (1 - (step - 1) / steps))
    return made


# -- rows and their gradients --------------------------------------------------------------------


@given(st.lists(st.integers(0, 19), max_size=12), st.integers(1, 4), st.sampled_from(["sum", "mean"]), st.booleans())
def test_rows_and_sums_are_those_of_the_table(places, bags, mode, weighted):
    table = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    places = torch.tensor(places, dtype=torch.int64)
    starts = torch.linspace(0, len(places), bags + 1).long()[:-1]
    watch(table, lambda _: None)
    weights = torch.linspace(1, 2, len(places), dtype=torch.float64) if weighted and mode == "sum" else None
    for ours, theirs in (
        (rows_of(table, places), table[places]),
        (
            add_rows(table, places, starts, weights, mode=mode),
            F.embedding_bag(places, table, starts, mode=mode, per_sample_weights=weights),
        ),
    ):
        assert torch.equal(ours, theirs)
        arriving = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        (mine,) = torch.autograd.grad(ours, table, arriving)
        (expected,) = torch.autograd.grad(theirs, table, arriving)
        assert mine.is_sparse == (len(places.unique()) < 5)
        torch.testing.assert_close(mine.to_dense(), expected, rtol=1e-15, atol=1e-15)


def test_gradients_of_both_sides_add_up():
    """Queries and candidates read one table; one of them may read most of it."""
    table = torch.zeros(20, 2, requires_grad=True)
    watch(table, lambda _: None)
    for first, second in itertools.product((torch.tensor([3, 5]), torch.tensor([5, 7]), torch.arange(20)), repeat=2):
        table.grad = None
        (rows_of(table, first).sum() + 2 * rows_of(table, second).sum()).backward()
        expected = torch.zeros(20, 2)
        expected[first] += 1
        expected[second] += 2
        assert torch.equal(table.grad.to_dense(), expected)


# -- missed steps --------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 10**6))
def test_gauss_is_exact_for_polynomials(nodes, points, seed):
    random = np.random.default_rng(seed)
    x, weights = random.uniform(0.5, 2, (3, points)), random.uniform(0, 1, (3, points))
    weights[1] = 0.0
    found, shares = gauss(x, weights, nodes)
    assert (shares >= 0).all()
    for degree in range(2 * nodes):
        np.testing.assert_allclose((shares * found**degree).sum(1), (weights * x**degree).sum(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("warmup", [1, 300])
def test_missed_steps_are_those_of_a_loop(warmup):
    """At every place of σ = √v between the two ends at which the rule is exact, ε = 0 and v = 0."""
    rates = rates_of(3000, warmup)
    sigma = np.concatenate([[0.0], np.logspace(-7, 5, 60)])  # √v; ε is 1
    at = 0
    for up_to, nodes in NODES:
        lasts = [last for last in (1, 2, 3, 7, 20, at + 1, 300, 399, 1500) if at < last <= up_to]
        at = up_to
        for last, wait, paid in itertools.product(lasts, (1, 2, 9, 80, WINDOW, 1000), (0, 5)):
            now = last + wait
            if paid >= min(wait, WINDOW):
                continue
            points, weights = missed(np.array([last]), np.array([last + paid]), now, rates, nodes, BETAS)
            found = (weights / (sigma[:, None] + points)).sum(1)
            expected = np.zeros_like(sigma)
            for step in range(last + paid + 1, now + 1):
                k = step - last
                rate = float(rates[np.array(step)]) * BETAS[0] ** k / (1 - BETAS[0] ** step)
                expected += rate / (sigma * BETAS[1] ** (k / 2) / np.sqrt(1 - BETAS[1] ** step) + 1)
            np.testing.assert_allclose(found, expected, rtol=ERROR)


# -- the optimizer -------------------------------------------------------------------------------


def both(steps, eps, *, numbers=(9, 2), dtype=torch.float64, seed=0):
    """Dense AdamW and ours, with the same gradients: both tables, and what dense AdamW moved rows without a gradient.

    Args:
        steps: of each the rows read; None: a dense gradient; "settle": no step, but all rows brought up to date.
        eps: ε.
        numbers: shape of the table.
        dtype: of the table.
        seed: of the start and the gradients.
    """
    generator = torch.Generator().manual_seed(seed)
    dense = torch.nn.Parameter(torch.randn(numbers, dtype=dtype, generator=generator))
    ours = torch.nn.Parameter(dense.detach().clone())
    optimizers = (
        torch.optim.AdamW([dense], eps=eps, weight_decay=0.0),
        RowAdamW([{"params": [ours]}], eps=eps, tables=[ours]),
    )
    missed_moves, number = torch.zeros_like(dense), 0
    for read in steps:
        if isinstance(read, str):
            optimizers[1].settle()
            continue
        number += 1
        rate = 0.01 * min(1, (number - 1) / 10) * (1 - number / len(steps))
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
        places = torch.arange(numbers[0]) if read is None else torch.tensor(read)
        arriving = torch.randn(len(places), *numbers[1:], dtype=dtype, generator=generator)
        arriving *= 10 ** torch.randint(-6, 3, (len(places),), generator=generator).to(dtype).view(
            -1, *(1 for _ in numbers[1:])
        )
        (dense[places] * arriving).sum().backward()
        with mock.patch.object(rows, "MANY", 0.0 if read is None else 2.0):
            taken = rows_of(ours, places)
        assert ((taken - dense[places]).abs() <= ERROR * missed_moves[places] + 1e-13).all()  # as it is read
        (taken * arriving).sum().backward()
        before = dense.detach().clone()
        for optimizer in optimizers:
            optimizer.step()
        without = torch.ones(numbers[0], dtype=bool)
        without[places] = False
        missed_moves[without] += (dense.detach() - before).abs()[without]
    optimizers[1].settle()
    return dense.detach(), ours.detach(), missed_moves


one_step = st.one_of(
    st.lists(st.integers(0, 8), min_size=1, max_size=4), st.lists(st.integers(0, 8), min_size=1, max_size=4), st.none()
)


@pytest.fixture(params=["operations", "loops"])
def way(request, monkeypatch):
    """Tensor operations, and their compiled twin."""
    if request.param == "loops":
        pytest.importorskip("numba")
    monkeypatch.setattr(row_adamw, "LOOPS_FROM", 0 if request.param == "loops" else 2**62)
    return request.param


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(one_step, one_step, st.just("settle")), max_size=40), st.sampled_from([1e-8, 1e-4, 1e-2]))
@example([[0], *[[1]] * 30, "settle", [2], None, [0], [3, 3, 0]], 1e-2)
@example([None, [4], None, "settle", "settle", [4]], 1e-8)
def test_it_goes_where_dense_adamw_goes(way, steps, eps):
    dense, ours, moved = both(steps, eps)
    assert ((ours - dense).abs() <= ERROR * moved + 1e-13).all()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_over_many_steps(eps):
    """Rows that wait for hundreds of steps, in one part or in several."""
    random = np.random.default_rng(0)
    steps = [[int(r) for r in random.choice(9, 2, p=2.0 ** -np.arange(1, 10) / (1 - 2.0**-9))] for _ in range(450)]
    steps[150:150] = ["settle"]
    dense, ours, moved = both(steps, eps)
    assert ((ours - dense).abs() <= ERROR * moved + 1e-13).all()
    assert moved.min() > 1e-4


@pytest.mark.usefixtures("way")
def test_a_table_without_width():
    """As the weights of words are."""
    dense, ours, moved = both([[0], [1], [2], [0, 1], [2]], 1e-8, numbers=(9,))
    assert ((ours - dense).abs() <= ERROR * moved + 1e-13).all()


def test_a_step_makes_nothing_as_large_as_the_table():
    """But for a byte a row."""
    table = torch.nn.Parameter(torch.randn(50_000, 64))
    optimizer = RowAdamW([{"params": [table]}], eps=1e-8, tables=[table])
    places, starts = torch.randint(50_000, (600,)), torch.arange(0, 600, 20)

    def step():
        optimizer.zero_grad()
        add_rows(table, places, starts, torch.ones(600)).square().sum().backward()
        optimizer.step()

    step()  # makes the moments
    with Allocated() as largest:
        step()
        rows_of(table, torch.arange(700)).sum().backward()
    assert largest.numel <= 50_000


def test_a_state_is_taken_up_to_the_last_bit():
    def made(table):
        return RowAdamW([{"params": [table], "lr": 0.01}], eps=1e-8, tables=[table])

    def steps(table, optimizer, numbers):
        for number in numbers:
            optimizer.zero_grad()
            random = torch.Generator().manual_seed(number)
            places = torch.randint(100, (7,), generator=random)
            (rows_of(table, places) * torch.randn(7, 3, generator=random)).sum().backward()
            optimizer.step()

    first = torch.nn.Parameter(torch.randn(100, 3))
    optimizer = made(first)
    steps(first, optimizer, range(30))
    kept = copy.deepcopy(optimizer.state_dict())
    second = torch.nn.Parameter(first.detach().clone())
    again = made(second)
    again.load_state_dict(kept)
    for table, one in ((first, optimizer), (second, again)):
        steps(table, one, range(30, 60))
        one.settle()
    assert torch.equal(first, second)


def test_a_state_of_adamw_is_taken():
    random = torch.Generator().manual_seed(0)
    tables = [torch.nn.Parameter(torch.ones(40, 3)) for _ in range(2)]
    dense = torch.optim.AdamW(tables[:1], eps=1e-8, weight_decay=0.0)
    ours = RowAdamW([{"params": tables[1:]}], eps=1e-8, tables=tables[1:])
    optimizers = dense, ours
    for number in range(12):
        if number == 6:
            with torch.no_grad():
                tables[1].copy_(tables[0])
            ours.load_state_dict(copy.deepcopy(dense.state_dict()))
        places, arriving = torch.randint(40, (5,), generator=random), torch.randn(5, 3, generator=random)
        for table, optimizer in zip(tables, optimizers, strict=True):
            optimizer.zero_grad()
            (rows_of(table, places) * arriving).sum().backward()
            optimizer.step()
    ours.settle()
    torch.testing.assert_close(tables[1], tables[0], rtol=1e-5, atol=1e-7)


# -- training ------------------------------------------------------------------------------------


class Killed(BaseException):
    """Nothing catches it."""


def seen_sparse(monkeypatch):
    """Names of the tables that get sparse gradients in a training."""
    found = []
    made = trainer.make_optimizer

    def recorded(model, settings):
        optimizer = made(model, settings)
        names = {parameter: name for name, parameter in model.named_parameters()}
        step = optimizer.step

        def told(closure=None):
            found.extend(n for p, n in names.items() if p.grad is not None and p.grad.is_sparse)
            step()

        optimizer.step = told
        return optimizer

    monkeypatch.setattr(trainer, "make_optimizer", recorded)
    return found


@pytest.mark.parametrize(
    ("encoder", "labels", "two_towers", "parts"),
    [
        ("ngrams", False, True, 5),
        ("ngrams", True, False, None),
        ("static", False, False, 5),
        ("static", True, False, None),
    ],
)
def test_it_trains_the_model_of_dense_gradients(encoder, labels, two_towers, parts, static_folder, monkeypatch):
    chosen = Settings(
        loss="sigmoid",
        encoder=str(static_folder) if encoder == "static" else encoder,
        two_towers=two_towers,
        mini_batch_size=parts,
        epochs=2,
        batch_size=16,
        answers=1,
        negatives=1,
    )
    made = {}
    for share in (0.0, 2.0):
        monkeypatch.setattr(rows, "MANY", share)
        with monkeypatch.context() as patch:
            sparse = seen_sparse(patch)
            made[share] = train(things(labels=labels, unanswered=True), chosen, stop_early=False).state_dict()
        tables = {"query_encoder.embedding.weight" if encoder == "static" else "query_encoder.table.weight"}
        of_labels = {name for name in made[share] if name.startswith("candidate_encoder.")}
        tables |= of_labels if labels else {"lexical.theta"}
        tables |= {"candidate_encoder.table.weight"} if two_towers else set()
        assert set(sparse) == (tables if share else set())
    for name, weights in made[0.0].items():
        torch.testing.assert_close(made[2.0][name], weights, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("step", [3, 13])
def test_resume_equals_an_unbroken_run(step, tmp_path, monkeypatch):
    """To the last bit, killed within an epoch or at its end."""
    looks = itertools.count(1)
    monkeypatch.setattr(trainer, "quick_metrics", lambda *_, **__: {"map": float(next(looks))})
    chosen = Settings(loss="sigmoid", epochs=3, batch_size=16, patience=100, answers=1, negatives=1)
    unbroken = train(things(unanswered=True), chosen, stop_early=False)

    def progress(at, of, latest):
        if at == step:
            raise Killed

    with pytest.raises(Killed):
        train(things(unanswered=True), chosen, checkpoints=tmp_path, progress=progress)
    resumed = train(things(unanswered=True), chosen, checkpoints=tmp_path, resume=True)
    for name, weights in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weights), name


@pytest.mark.usefixtures("few")
def test_a_model_kept_of_an_earlier_epoch_is_not_moved_on(monkeypatch):
    """Nothing is owed to what comes back, and nobody watches it any longer."""
    values = iter([0.9, 0.1, 0.1, 0.1, 0.1])
    monkeypatch.setattr(trainer, "quick_metrics", lambda *_, **__: {"map": next(values)})
    chosen = Settings(epochs=5, batch_size=16, patience=2, answers=1, negatives=1)
    model = train(things(unanswered=True), chosen)
    # The rate of a longer training falls later: one epoch of this one is not one epoch of a training of one.
    values = iter([0.9, 0.1, 0.1])
    again = train(things(unanswered=True), chosen)
    for name, weights in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weights), name
    table = model.query_encoder.table.weight
    before = table.detach().clone()
    model.encode(["sky", "night"])
    assert torch.equal(table, before)
    model.query_encoder(model.preprocess(["sky"], "query"))["sentence_embedding"].sum().backward()
    assert not table.grad.is_sparse


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_processes_average_rows(world, tmp_path):
    """All have the same bits, those of one process with all their rows; some of them read most of the table."""
    found = run("row_steps", world, tmp_path)
    for other in found[1:]:
        assert torch.equal(other, found[0])
    table = torch.nn.Parameter(ranks.start())
    optimizer = torch.optim.AdamW([table], lr=0.01, eps=1e-8, weight_decay=0.0)
    for number in range(ranks.STEPS):
        optimizer.zero_grad()
        for rank in range(world):
            places, arriving = ranks.read(number, rank)
            ((table[places] * arriving).sum() / world).backward()
        optimizer.step()
    torch.testing.assert_close(found[0], table.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_a_hundred_thousand_labels(monkeypatch):
    """Of which a batch offers some hundred: its right answers and others drawn at random."""
    labels, known = 100_000, 600
    random = np.random.default_rng(0)
    right = random.choice(labels, known, replace=False)
    words = [str(number).translate(str.maketrans("0123456789", "bcdfghjklm")) for number in right]
    texts = [f"{ending}{word} {word}{ending}" for ending in ("a", "e", "o") for word in words]
    data = MatchDataset(
        "many",
        texts,
        [f"label {number}" for number in range(labels)],
        np.stack([np.arange(3 * known), np.tile(right, 3)], 1),
        {"train": np.arange(2 * known), "dev": np.arange(2 * known, 3 * known)},
        labels=True,
    )
    sparse = seen_sparse(monkeypatch)
    model = train(
        data, Settings(loss="sigmoid", encoder="ngrams", epochs=6, negatives=300), stop_early=False, calibrated=False
    )
    assert {"candidate_encoder.vectors", "candidate_encoder.biases"} <= set(sparse)
    found = quick_metrics(model, data)
    assert found["map"] > 0.5
