import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import oracles
from helpers.memory import Largest, Ledger
from helpers.precision import assert_within, bounds, reduced
from sigmax import Positives, SigmoidLoss, SoftmaxLoss
from sigmax.families import OBJECTIVES, sum_by_row
from sigmax.kernels import (
    Inputs,
    Problem,
    Wants,
    dense,
    dispatch,
    reduce_logits,
    tiled,
    weighted_loss,
    working_dtype,
)

names = pytest.mark.parametrize("name", list(OBJECTIVES))
columns = pytest.mark.parametrize("columns", [False, True], ids=["rows", "both"])
tiles = pytest.mark.parametrize("tile", [(1, 1), (2, 3), (3, 5), (5, 2), (64, 64)], ids=str)

SCALE, BIAS = 3.0, -1.0  # what `reduced` takes if not told otherwise


def scalars(scale=SCALE, bias=BIAS):
    """() tensors, which want a gradient."""
    return [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (scale, bias)]


def assert_equal(ours, theirs, largest_logit=1.0):
    """In float64, to 4500 of its eps: more than (d + n + m) · |largest logit| of them, see `helpers.precision`."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        # Where terms cancel, as a bias does in a softmax, what is left is compared with the terms.
        size = b[b.isfinite()].abs().max().item() if b.isfinite().any() else 0.0
        torch.testing.assert_close(a, b, rtol=0.0, atol=1e-12 * max(size, 1.0) * max(largest_logit, 1.0))


# -- tiled ≡ dense -------------------------------------------------------------------------------


@names
@columns
@tiles
@pytest.mark.parametrize("shape", [(7, 11), (6, 6), (1, 9), (9, 1), (1, 1), (0, 4), (4, 0), (0, 0)], ids=str)
def test_tiled_equals_dense(name, columns, tile, shape, monkeypatch):
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(*tile))
    batch = oracles.random_batch(*shape)
    shift = torch.linspace(-2, 1, shape[1], dtype=torch.float64)
    expected = reduced("dense", batch, OBJECTIVES[name], columns, shift=shift)
    assert_equal(reduced("tiled", batch, OBJECTIVES[name], columns, shift=shift), expected)


@names
@columns
@pytest.mark.parametrize(
    "odds", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.5, 0.5), (0.5, 0.0, 0.5)], ids=str
)
def test_tiled_equals_dense_for_graphs_of_one_kind(name, columns, odds, monkeypatch):
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(3, 4))
    batch = oracles.random_batch(7, 9, odds=odds)
    assert_equal(reduced("tiled", batch, OBJECTIVES[name], columns), reduced("dense", batch, OBJECTIVES[name], columns))


@names
@columns
@given(batch=oracles.batches(), tile=st.tuples(st.integers(1, 7), st.integers(1, 7)))
def test_tiled_equals_dense_for_any_graph(name, columns, batch, tile):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "_tile", oracles.tiles_of(*tile))
        assert_equal(
            reduced("tiled", batch, OBJECTIVES[name], columns), reduced("dense", batch, OBJECTIVES[name], columns)
        )


@names
@columns
def test_rows_of_every_kind_side_by_side(name, columns, monkeypatch):
    """Rows without right answers, of right answers only and of ignored pairs only, side by side."""
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(2, 3))
    batch = oracles.random_batch(5, 7)
    batch.cells[0], batch.cells[1], batch.cells[2] = 0, 1, 2
    batch.cells[:, 3], batch.cells[:, 4] = 1, 2
    assert_equal(reduced("tiled", batch, OBJECTIVES[name], columns), reduced("dense", batch, OBJECTIVES[name], columns))


@names
def test_rows_are_a_of_the_compared_pairs(name):
    batch = oracles.random_batch(5, 7)
    which = OBJECTIVES[name]
    rows, _, pairs, *_ = reduced("dense", batch, OBJECTIVES[name], True)
    s = batch.queries @ batch.candidates.T * SCALE + BIAS
    for i in range(5):
        offered = [j for j in range(7) if batch.cells[i, j] == 0 or (batch.cells[i, j] == 1 and which.against == "all")]
        torch.testing.assert_close(rows[i], which.partition.reduce(s[i, offered][None], 1)[0])
    torch.testing.assert_close(pairs, s[batch.cells == 1])


@pytest.mark.parametrize("kernel", ["dense", "tiled"])
def test_no_bias_is_a_bias_of_zero(kernel):
    batch = oracles.random_batch(5, 7)
    inputs, problem = (
        Inputs(batch.queries, batch.candidates, scalars()[0]),
        Problem(batch.positives, OBJECTIVES["sigmoid"]),
    )
    without = reduce_logits(inputs, problem, kernel)
    zero = reduce_logits(inputs._replace(bias=torch.zeros(()).double()), problem, kernel)
    assert without.columns is zero.columns is None
    torch.testing.assert_close(without.rows, zero.rows)
    torch.testing.assert_close(without.pairs, zero.pairs)


# -- logits of every size: exponentials as they are, or below a maximum -----------------------------

sizes = pytest.mark.parametrize(
    ("scale", "bias"), [(0.5, -1.0), (0.5, -35.0), (0.5, 35.0), (0.5, -90.0), (0.5, 90.0), (300.0, -10.0)], ids=str
)


@names
@columns
@sizes
def test_logits_of_every_size(name, columns, scale, bias, monkeypatch):
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(3, 4))
    batch = oracles.random_batch(7, 9)
    expected = reduced("dense", batch, OBJECTIVES[name], columns, scale=scale, bias=bias)
    largest = scale * (batch.queries.abs() @ batch.candidates.abs().T).max().item() + abs(bias)
    assert_equal(reduced("tiled", batch, OBJECTIVES[name], columns, scale=scale, bias=bias), expected, largest)


@names
@sizes
@given(batch=oracles.batches(), height=st.integers(1, 7), seed=st.integers(0, 9))
def test_weighted_loss_in_one_pass(name, scale, bias, batch, height, seed):
    """The weighted sum of `reduce_logits`' losses, whatever the graph; weights of 0 among them."""
    n, m = batch.shape
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randint(-1, 3, (n,), generator=generator).double() / 2
    shift = torch.rand(m, generator=generator, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "_tile", oracles.tiles_of(height, 3))
        ours, theirs = (weighed(kernel, batch, name, weights, scale, bias, shift) for kernel in ("tiled", "dense"))
        assert_equal(ours, theirs, 20 * scale + abs(bias))


def weighed(kernel, batch, name, weights, scale, bias, shift, objective=None):
    leaves = [*batch.leaves(), *scalars(scale, bias)]
    problem = Problem(batch.positives, objective or OBJECTIVES[name], shift)
    value = weighted_loss(Inputs(*leaves), problem, weights, kernel)
    return [value.detach(), *torch.autograd.grad(3 * value, leaves)]


def test_an_objective_whose_a_has_no_gradient():
    """Right pairs have one while their row's factor is 0."""
    plain = replace(OBJECTIVES["sigmoid"], row_loss=lambda total, s, rows, counts: -sum_by_row(s, rows, len(total)))
    batch = oracles.random_batch(5, 7)
    ours, theirs = (
        weighed(kernel, batch, None, torch.ones(5).double(), SCALE, BIAS, None, plain) for kernel in ("tiled", "dense")
    )
    assert_equal(ours, theirs)


def test_rows_too_wide_to_keep_take_two_passes(monkeypatch):
    monkeypatch.setattr(tiled, "TILE_BYTES", 64)
    monkeypatch.setattr(tiled, "HEIGHTS", (4, 2))
    batch = oracles.random_batch(9, 17)
    one, two = (
        [weighed(kernel, batch, "softmax-any", torch.ones(9).double(), SCALE, BIAS, None)]
        for kernel in ("dense", "tiled")
    )
    assert_equal(two[0], one[0])
    problem = Problem(batch.positives, OBJECTIVES["softmax-any"])
    inputs = Inputs(*batch.leaves(), *scalars())
    assert tiled.Tiled().weighted_loss(inputs, problem, torch.ones(9).double(), ALL) is None


# -- work ----------------------------------------------------------------------------------------

ALL = Wants(True, True, True, True)


@pytest.mark.parametrize(
    ("loss", "wants", "products"),
    [
        (SoftmaxLoss(kernel="tiled"), (True, True), 3),
        (SoftmaxLoss(kernel="tiled", positives="decoupled"), (True, True), 3),
        (SigmoidLoss(kernel="tiled"), (True, True), 3),
        (SigmoidLoss(kernel="tiled", reduction="none"), (True, True), 4),
        (SoftmaxLoss(kernel="tiled", directions="both"), (True, True), 4),
        (SoftmaxLoss(kernel="tiled"), (True, False), 2),
        (SoftmaxLoss(kernel="tiled"), (False, True), 2),
        (SoftmaxLoss(kernel="tiled", learnable=False), (False, True), 2),
        (SoftmaxLoss(kernel="tiled"), (False, False), 2),  # the scale's
        (SigmoidLoss(kernel="tiled", learnable=False), (False, False), 1),
        (SoftmaxLoss(kernel="tiled", directions="both"), (True, False), 3),
    ],
    ids=repr,
)
@pytest.mark.parametrize(("n", "m"), [(300, 310), (4, 1000), (1000, 4)])
def test_number_of_products(loss, wants, products, n, m):
    x, y = torch.randn(n, 8, requires_grad=wants[0]), torch.randn(m, 8, requires_grad=wants[1])
    positives = Positives(range(4), range(4), (n, m))
    with Ledger() as ledger:
        value = loss(x, y, positives)
        if value.requires_grad:
            value.sum().backward()
    assert ledger.multiplications == products * n * m * 8
    assert [x.grad is not None, y.grad is not None] == list(wants)


def test_no_products_of_gradients_nobody_asked_for():
    x = torch.randn(300, 8, requires_grad=True)
    with Ledger() as ledger, torch.no_grad():
        SoftmaxLoss(kernel="tiled")(x, x, Positives([0], [0], (300, 300)))
    assert ledger.multiplications == 300 * 300 * 8


@pytest.mark.parametrize(
    ("loss", "passes"),
    [
        (SoftmaxLoss(kernel="tiled"), 2),  # exp, sum
        (SoftmaxLoss(kernel="tiled", directions="both"), 6),  # exp and two sums; exp, the sum of both sides, times it
        (SigmoidLoss(kernel="tiled"), 6.5),  # exp; of x + y, x · y, e, log1p and their sum a half; 1 + x, division, sum
    ],
    ids=repr,
)
def test_number_of_passes(loss, passes):
    """Beside the products, so often do tensor operations go over the pairs: a guard against one more."""
    n, m, d = 500, 800, 2
    x, y = torch.randn(n, d, requires_grad=True), torch.randn(m, d, requires_grad=True)
    with Ledger() as ledger:
        loss(x, y, Positives(range(4), range(4), (n, m))).backward()
    assert passes <= ledger.touched / (n * m) < passes + 0.4  # what is left is of vectors and totals


@pytest.mark.parametrize(
    "loss", [SoftmaxLoss(kernel="tiled"), SigmoidLoss(kernel="tiled"), SoftmaxLoss(kernel="tiled", directions="both")]
)
def test_peak_of_memory(loss, monkeypatch):
    """Above the inputs: unit vectors, their gradients, the inputs' gradients, one tile, and what fits the cache."""
    n, d = 4000, 32
    x, y = torch.randn(n, d, requires_grad=True), torch.randn(n, d, requires_grad=True)
    monkeypatch.setattr(tiled, "TILE_BYTES", 2**20)
    monkeypatch.setattr(tiled, "HEIGHTS", (64, 16))
    monkeypatch.setattr(tiled, "CACHE_BYTES", 2**17)
    with Ledger() as ledger:
        loss(x, y, Positives(range(n), range(n), (n, n))).backward()
    vectors = n * d * 4
    assert ledger.peak < 2**20 + 2**18 + 6 * vectors + 20 * n * 8  # indices and totals: a few numbers a row
    assert ledger.peak > 2**20


# -- memory --------------------------------------------------------------------------------------


def largest(kernel, batch, name, columns):
    with Largest() as mode:
        reduced(kernel, batch, OBJECTIVES[name], columns)
    return mode.numel


@names
@columns
def test_tiled_never_holds_the_matrix(name, columns, monkeypatch):
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(64, 48))
    batch = oracles.random_batch(300, 310)
    batch.cells[:] = 0
    batch.cells.fill_diagonal_(1)
    batch.cells[:, 3] = 2
    positives = batch.positives
    monkeypatch.setattr(oracles.Batch, "positives", positives)
    assert largest("tiled", batch, name, columns) <= 64 * 48
    assert largest("dense", batch, name, columns) >= 300 * 310


# -- precision -----------------------------------------------------------------------------------


@names
@columns
@pytest.mark.parametrize("scale", [20.0, 300.0])
def test_float32_within_its_bounds(name, columns, scale, monkeypatch):
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(8, 8))
    exact = oracles.random_batch(100, 110, 16, odds=(0.9, 0.06, 0.04))
    batch = oracles.Batch(F.normalize(exact.queries).float(), F.normalize(exact.candidates).float(), exact.cells)
    exact.queries, exact.candidates = batch.queries.double(), batch.candidates.double()
    given = {"scale": scale, "bias": -10.0}
    truth, bound = (
        f(*x, OBJECTIVES[name], columns, **given) for f, x in ((reduced, ("dense", exact)), (bounds, (exact,)))
    )
    for kernel in ("dense", "tiled"):
        assert_within(reduced(kernel, batch, OBJECTIVES[name], columns, **given), truth, bound)


@names
@columns
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_halves_are_as_near_the_truth_as_dense(name, columns, dtype, monkeypatch):
    """Each part's and each gradient's distance; dense rounds G and the gradients to halves as well."""
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(8, 8))
    exact = oracles.random_batch(100, 110, 16, odds=(0.9, 0.06, 0.04))
    batch = oracles.Batch(F.normalize(exact.queries).to(dtype), F.normalize(exact.candidates).to(dtype), exact.cells)
    exact.queries, exact.candidates = batch.queries.double(), batch.candidates.double()
    given = {"scale": 20.0, "bias": -10.0}
    truth, ours, theirs = (
        reduced(kernel, part, OBJECTIVES[name], columns, **given)
        for kernel, part in (("dense", exact), ("tiled", batch), ("dense", batch))
    )
    bound = bounds(exact, OBJECTIVES[name], columns, **given)
    for a, b, true, most in zip(ours, theirs, truth, bound, strict=True):
        # Summing the tiles' gradients in half precision would add 0.3 of its eps.
        low = 0.15 * torch.finfo(dtype).eps * true.norm()
        assert (a.double() - true).norm() <= (b.double() - true).norm() + low + most.norm()


class Products(TorchDispatchMode):
    """The dtypes that matrix products ran in."""

    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.mm.default:
            self.dtypes |= {args[0].dtype, args[1].dtype}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kernel", ["dense", "tiled"])
def test_autocast_products_are_in_half_precision(kernel):
    batch = oracles.random_batch(4, 5)
    batch.queries, batch.candidates = batch.queries.float(), batch.candidates.float()
    with torch.autocast("cpu", dtype=torch.bfloat16), Products() as products:
        found = reduced(kernel, batch, OBJECTIVES["sigmoid"], False, scale=SCALE, bias=BIAS)
    assert products.dtypes == {torch.bfloat16}
    assert {part.dtype for part in found} == {torch.float32}


def test_working_dtype():
    half, single, double = (torch.zeros(1, dtype=dtype) for dtype in (torch.bfloat16, torch.float32, torch.float64))
    assert working_dtype(half) == working_dtype(half, single) == torch.float32
    assert working_dtype(half, double) == torch.float64


# -- the entry -----------------------------------------------------------------------------------


def test_auto_is_dense_while_the_matrix_is_small(monkeypatch):
    used = []

    def spy(name, reduce):
        def call(*args):
            used.append(name)
            return reduce(*args)

        return call

    monkeypatch.setattr(dense, "reduce", spy("dense", dense.reduce))
    monkeypatch.setattr(tiled.Tiled, "reduce", spy("tiled", tiled.Tiled.reduce))
    monkeypatch.setattr(dispatch, "DENSE_PAIRS", 12)
    for shape in [(3, 4), (3, 5)]:
        reduced("auto", oracles.random_batch(*shape), OBJECTIVES["sigmoid"], False)
    assert used == ["dense", "tiled"]


def test_unknown_kernel():
    with pytest.raises(ValueError, match=r"`kernel` to be one of .*dense.*, got 'tilled'\. Did you mean 'tiled'\?"):
        reduced("tilled", oracles.random_batch(2, 2), OBJECTIVES["sigmoid"], False)


def test_ignored_and_right_logits_reach_every_tile(monkeypatch):
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(2, 2))
    batch = oracles.random_batch(4, 4)
    batch.cells = torch.tensor([[1, 0, 0, 2], [0, 2, 1, 0], [2, 1, 0, 0], [0, 0, 2, 1]])
    rows, pairs, *_ = reduced("tiled", batch, OBJECTIVES["softmax-average"], False)
    s = (batch.queries @ batch.candidates.T * SCALE + BIAS).masked_fill(batch.cells == 2, -math.inf)
    torch.testing.assert_close(rows, s.logsumexp(1))
    torch.testing.assert_close(pairs, s[batch.cells == 1])
