"""The fused engine against the tensor operations that say what it computes, and what its loops compile to."""

import importlib.util
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers import oracles
from helpers.memory import Ledger
from helpers.precision import assert_within, bounds, reduced
from sigmax import Positives, SigmoidLoss, SoftmaxLoss
from sigmax.families import OBJECTIVES
from sigmax.kernels import Inputs, Problem, fused, tiled, weighted_loss

if importlib.util.find_spec("numba") is None:
    pytest.skip("Numba is not installed", allow_module_level=True)

try:
    from sigmax.kernels import fused_loops as loops
except OSError:
    pytest.skip("no libgomp", allow_module_level=True)

names = pytest.mark.parametrize("name", list(OBJECTIVES))
columns = pytest.mark.parametrize("columns", [False, True], ids=["rows", "both"])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Several tiles to a matrix, and a team of two where there is work for it."""
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(24, 40))
    monkeypatch.setattr(loops, "LEAST_WORK", 64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


# -- the same as dense ---------------------------------------------------------------------------


@names
@columns
@pytest.mark.parametrize(("scale", "bias"), [(12.0, -4.0), (0.5, -90.0), (0.5, 60.0), (300.0, -10.0)], ids=str)
def test_float32_within_its_bounds(name, columns, scale, bias):
    """Ragged tiles; rows of every kind side by side; logits of every size."""
    exact = oracles.random_batch(37, 150, 20, odds=(0.8, 0.12, 0.08))
    exact.cells[0], exact.cells[1], exact.cells[2] = 0, 1, 2
    exact.cells[:, 3], exact.cells[:, 4], exact.cells[:, 5] = 0, 1, 2
    batch = oracles.Batch(F.normalize(exact.queries).float(), F.normalize(exact.candidates).float(), exact.cells)
    exact.queries, exact.candidates = batch.queries.double(), batch.candidates.double()
    given = {"scale": scale, "bias": bias, "shift": torch.linspace(-2, 1, 150).double()}
    objective = OBJECTIVES[name]
    truth = reduced("dense", exact, objective, columns, **given)
    assert_within(
        reduced("fused", batch, objective, columns, **given), truth, bounds(exact, objective, columns, **given)
    )


@names
@pytest.mark.parametrize("shape", [(1, 17, 3), (17, 1, 16), (1, 1, 1), (33, 2, 40), (0, 4, 3), (4, 0, 3), (0, 0, 3)])
def test_any_shape(name, shape):
    exact = oracles.random_batch(*shape)
    batch = oracles.Batch(exact.queries.float(), exact.candidates.float(), exact.cells)
    exact.queries, exact.candidates = batch.queries.double(), batch.candidates.double()
    truth, bound = reduced("dense", exact, OBJECTIVES[name], True), bounds(exact, OBJECTIVES[name], True)
    assert_within(reduced("fused", batch, OBJECTIVES[name], True), truth, bound)


@names
@pytest.mark.parametrize("scale", [3.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weighted_loss_equals_tiled(name, scale, dtype, monkeypatch):
    """Value and gradients of one pass; both engines make the same logits, and round halves at the same places."""
    batch = oracles.random_batch(37, 150, 20, odds=(0.8, 0.12, 0.08))
    vectors = [F.normalize(x).to(dtype) for x in (batch.queries, batch.candidates)]
    problem, weights = Problem(batch.positives, OBJECTIVES[name]), torch.linspace(0, 1, 37)
    found = []
    for kernel in ("tiled", "fused"):
        leaves = [x.clone().requires_grad_() for x in (*vectors, torch.tensor(scale), torch.tensor(-1.0))]
        value = weighted_loss(Inputs(*leaves), problem, weights, kernel)
        found.append([value.detach(), *torch.autograd.grad(value, leaves)])
    # of logits up to `scale` in both, so twice the bound of helpers.precision: 2 · 4 (d + 4) u |logit|, and k u of sums
    near = (8 * 24 * (scale + 1) + 4 * 187) * torch.finfo(torch.float32).eps / 2 + 2 * torch.finfo(dtype).eps
    for ours, theirs in zip(found[1], found[0], strict=True):
        size = max(theirs.abs().max().item(), 1.0 if theirs.ndim == 0 else 0.0)
        assert (ours.float() - theirs.float()).abs().max().item() <= near * size


@pytest.mark.parametrize("objective", ["softmax-average", "sigmoid"])
def test_not_a_number_is_not_hidden(objective):
    batch = oracles.random_batch(20, 50, odds=(1.0, 0.0, 0.0))
    batch.queries, batch.candidates = batch.queries.float(), batch.candidates.float()
    batch.queries[3, 1] = math.nan
    for scale in (1.0, 100.0):
        rows, *_ = reduced("fused", batch, OBJECTIVES[objective], False, scale=scale)
        assert rows.isnan().nonzero().flatten().tolist() == [3]


def test_float64_is_refused_by_name_and_left_alone_by_auto(monkeypatch):
    monkeypatch.setattr("sigmax.kernels.dispatch.DENSE_PAIRS", 0)
    x = torch.randn(4, 3, dtype=torch.float64)
    positives = Positives(range(4), range(4), (4, 4))
    with pytest.raises(ValueError, match=r"fused: it works in float32 and the vectors are torch.float64\n  tiled: can"):
        SoftmaxLoss(kernel="fused").double()(x, x, positives)
    SoftmaxLoss().double()(x, x, positives)


# -- the functions -------------------------------------------------------------------------------

EPS = torch.finfo(torch.float32).eps


def test_exp():
    x = np.linspace(-87.3, 88.0, 200_001).astype(np.float32)
    e = x.copy()
    loops._exp_row(e, np.float32(0))
    true = np.exp(x.astype(np.float64))
    # the polynomial to 2 units in the last place, as its author states
    assert (np.abs(e - true) / true).max() <= 2 * EPS
    negative = np.linspace(-87.3, 0.0, 1001).astype(np.float32)
    true = np.exp(negative.astype(np.float64)).sum()
    assert loops._exp_row(negative, np.float32(0)) == pytest.approx(true, rel=1001 * EPS)
    edge = np.array([-np.inf, -1e30, -88.0, np.nan], np.float32)
    loops._exp_row(edge, np.float32(0))
    assert edge[:3].tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(edge[3])


def test_log1p():
    p = np.concatenate([[0.0], np.geomspace(1e-37, 2.0**40, 100_001)]).astype(np.float32)
    found = np.array([loops._logs(np.array([x], np.float32)) for x in p[::50]])
    true = np.log1p(p[::50].astype(np.float64))
    assert found[0] == 0.0
    assert (np.abs(found - true)[1:] / true[1:]).max() <= 3 * EPS
    assert np.isnan(loops._logs(np.array([np.nan], np.float32)))


def test_many_large_factors_do_not_overflow():
    """Every 1 + e is 2, and a lane of a row has 160 of them, which no float32 holds; the last lanes are not full."""
    wide = loops.LANES * loops.DEPTH * 5 + 5
    loss = SigmoidLoss(1.0, 0.0, kernel="fused", similarity="dot", reduction="sum")
    found = loss(torch.zeros(3, 2), torch.zeros(wide, 2), Positives([], [], (3, wide)))
    assert found.item() == pytest.approx(3 * wide * math.log(2), rel=wide * EPS)


# -- work ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "products", "passes", "others"),
    [
        (SoftmaxLoss(kernel="fused"), 3, 1, 0),
        (SoftmaxLoss(kernel="fused", positives="decoupled"), 3, 1, 0),
        (SigmoidLoss(kernel="fused"), 3, 1, 0),
        (SigmoidLoss(kernel="fused", reduction="none"), 4, 2, 1),  # the bias's gradient is the sum of all
        (SoftmaxLoss(kernel="fused", directions="both"), 4, 2, 0),
    ],
    ids=repr,
)
def test_number_of_passes(loss, products, passes, others, monkeypatch):
    """Each tile goes through one loop per pass, and beside the products hardly a tensor operation goes over a tile."""
    n, m, d = 500, 800, 2
    looped = []
    run = loops.run

    def spy(name, block, *given):
        looped.append(block.numel())
        return run(name, block, *given)

    monkeypatch.setattr(loops, "run", spy)
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(250, 400))
    x, y = torch.randn(n, d, requires_grad=True), torch.randn(m, d, requires_grad=True)
    with Ledger() as ledger:
        loss(x, y, Positives(range(4), range(4), (n, m))).sum().backward()
    assert others <= ledger.touched / (n * m) < others + 0.4  # what is left is of vectors and totals
    assert ledger.multiplications == products * n * m * d
    assert sum(looped) == passes * n * m


# -- what is compiled ----------------------------------------------------------------------------


def packed(function, instruction):
    """How many of the instructions of a compiled loop work on 8 floats or more."""
    return len(re.findall(rf"\b{instruction}ps\s.*[yz]mm", "\n".join(function.inspect_asm().values())))


FMA = "vfn?m(?:add|sub)[123]+"


@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="counts AVX instructions")
@pytest.mark.parametrize(
    ("row", "given", "least"),
    [
        (loops._exp_row, (0.0,), {FMA: 8}),
        (loops._exp_sum, ("columns",), {FMA: 8, "vadd": 1}),
        (loops._sigmoid_lanes, ("columns", 0.0), {FMA: 9, "vdiv": 1}),
        (loops._logs, (), {FMA: 8, "vdiv": 1}),
        (loops._spread_exp_row, (1.0, "columns"), {FMA: 8, "vmul": 1}),
        (loops._spread_exp_row_alone, (1.0,), {FMA: 8, "vmul": 1}),
        (loops._spread_shares_row, (1.0, 1.0, "columns", "columns"), {FMA: 16}),
        (loops._spread_shares_row_alone, (1.0, 1.0), {FMA: 8}),
        (loops._spread_sigmoid_row, (0.0, 1.0, "columns"), {FMA: 8, "vdiv": 1}),
        (loops._spread_sigmoid_row_alone, (0.0, 1.0), {FMA: 8, "vdiv": 1}),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_the_loops_are_vectorised(row, given, least):
    """A branch, a cast or an ordered sum would leave a loop to one logit at a time; exp alone takes 8 multiply-adds."""
    row(np.zeros(64, np.float32), *(np.ones(64, np.float32) if x == "columns" else np.float32(x) for x in given))
    found = {instruction: packed(row, instruction) for instruction in least}
    assert all(found[instruction] >= count for instruction, count in least.items()), found


CACHED = """
import os
import torch
from sigmax.kernels import fused_loops as loops
block = torch.zeros(4, 8)
loops.run("exp_rows", block, 0, torch.empty(4), torch.empty(4))
print(block.sum().item(), len(os.listdir(os.environ["NUMBA_CACHE_DIR"])) > 0)
print(sum(block.cache_hits for block in loops.BLOCKS.values()))
"""


@pytest.mark.slow
def test_compiled_once(tmp_path):
    given = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    hits = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", CACHED], capture_output=True, text=True, check=False, env=given
        )
        said = done.stdout.splitlines()
        assert said[0] == "32.0 True", done.stderr
        hits.append(int(said[1]))
    assert hits == [0, len(loops.BLOCKS)]


TEAM = """
import os
import torch
torch.set_num_threads(2)
torch.randn(600, 600) @ torch.randn(600, 600)
from sigmax.kernels import fused_loops as loops
before = len(os.listdir("/proc/self/task"))
block, peaks, sums = torch.zeros(64, 4096), torch.empty(64), torch.empty(64)
loops.run("exp_rows", block, 0, peaks, sums)
own = any("torch" in line and "libgomp" in line for line in open("/proc/self/maps"))
print(len(os.listdir("/proc/self/task")) - before if own else "another", sums.unique().tolist())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_threads_beside_pytorchs():
    """A second pool would wait spinning while the first works, and the other way about."""
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", TEAM], capture_output=True, text=True, check=False, env=given)
    new, sums = done.stdout.split(" ", 1)
    assert sums == "[4096.0]\n", done.stderr
    assert new in ("0", "another"), done.stdout


def test_without_numba():
    script = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch, sigmax\n"
        "from sigmax.kernels import fused, Inputs, Problem\n"
        "from sigmax.families import OBJECTIVES\n"
        "x = torch.ones(600, 4)\n"
        "positives = sigmax.Positives([0], [0], (600, 600))\n"
        "problem = Problem(positives, OBJECTIVES['sigmoid'])\n"
        "print(fused.Fused().missing(Inputs(x, x, torch.ones(())), problem))\n"
        "print(sigmax.SigmoidLoss()(x, x, positives) == sigmax.SigmoidLoss(kernel='tiled')(x, x, positives))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["Numba is not installed (pip install 'sigmax[fast]')", "tensor(True)"], (
        done.stderr
    )


def test_auto_takes_it():
    x = torch.ones(600, 4)
    problem = Problem(Positives([0], [0], (600, 600)), OBJECTIVES["sigmoid"])
    from sigmax.kernels import dispatch

    engine, _ = dispatch._chosen("auto", Inputs(x, x, torch.ones(())), problem)
    assert isinstance(engine, fused.Fused)
