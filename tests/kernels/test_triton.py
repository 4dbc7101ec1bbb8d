"""The Triton engine: compiled on a GPU, interpreted on the CPU where there is none (see conftest.py)."""

import logging
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from helpers import oracles
from sigmax import kernels
from sigmax.families import OBJECTIVES
from sigmax.kernels import Problem, Reduction, dispatch, tiled
from sigmax.kernels import triton as engine
from sigmax.kernels.dispatch import reduce_logits, weighted_loss
from sigmax.kernels.problem import Wants

needs_triton = pytest.mark.skipif(engine.triton is None, reason="Triton is not installed")
names = pytest.mark.parametrize("name", list(OBJECTIVES))
columns = pytest.mark.parametrize("columns", [False, True], ids=["rows", "both"])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Several tiles to a block, several blocks and strips to a matrix, all of them small."""
    shape = engine.Shape(16, 16, 16, 4, 2)
    monkeypatch.setattr(engine, "SHAPES", dict.fromkeys(engine.SHAPES, shape))
    monkeypatch.setattr(engine, "BLOCK_BYTES", 4 * 32 * 32)
    monkeypatch.setattr(engine, "PARTIAL_BYTES", 4 * 2 * 3 * 16)
    monkeypatch.setattr(engine, "GATHER_BYTES", 8 * 64 * 8)
    monkeypatch.setattr(engine, "GROUP", 2)


def reduced(kernel, batch, name, columns, *, scale=3.0, bias=-1.0, shift=None):
    """Each part of a reduction, then its gradients for random weights of it; in float64 if the batch is."""
    working = kernels.working_dtype(batch.queries)
    leaves = [x.to(DEVICE) for x in batch.leaves()]
    leaves += [torch.tensor(x, dtype=working, device=DEVICE) for x in (scale, bias) if x is not None]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    parts = reduce_logits(
        *leaves[:2],
        batch.positives.to(DEVICE),
        OBJECTIVES[name],
        logit_scale=leaves[2],
        logit_bias=leaves[3] if bias is not None else None,
        candidate_shift=None if shift is None else shift.to(DEVICE, working),
        columns=columns,
        kernel=kernel,
    )
    parts = [part for part in parts if part is not None]
    generator = torch.Generator().manual_seed(1)
    weighed = 0.0
    for part in parts:
        weight = torch.rand(part.shape, generator=generator, dtype=torch.float64).to(part)
        weighed = weighed + (weight * part)[part.detach().isfinite()].sum()
    return [part.detach().cpu() for part in parts] + [x.cpu() for x in torch.autograd.grad(weighed, leaves)]


def rounded(batch, dtype):
    batch.queries, batch.candidates = batch.queries.to(dtype), batch.candidates.to(dtype)
    return batch


def assert_near(batch, name, columns, **given):
    """As near as the dense kernel, plus a little, to the dense kernel in float64."""
    exact = oracles.Batch(batch.queries.double(), batch.candidates.double(), batch.cells)
    truth = reduced("dense", exact, name, columns, **given)
    ours, dense = reduced("triton", batch, name, columns, **given), reduced("dense", batch, name, columns, **given)
    assert len(ours) == len(dense) == len(truth)
    eps = torch.finfo(torch.float32).eps
    for place, (a, b, c) in enumerate(zip(ours, dense, truth, strict=True)):
        assert a.dtype == b.dtype and a.shape == b.shape == c.shape
        assert torch.equal(a.isfinite(), c.isfinite())
        far, theirs = ((x.double() - c)[c.isfinite()].norm() for x in (a, b))
        size = c[c.isfinite()].norm()
        if c.ndim == 0:  # a sum that cancels is as far off as its terms' rounding, not its own
            size = torch.maximum(size, truth[0][truth[0].isfinite()].norm())
        low = torch.finfo(batch.queries.dtype).eps if place >= (3 if columns else 2) else 0
        assert far <= theirs + (0.15 * low + 6 * eps) * size, (place, far / size, theirs / size)


# -- the same as dense ---------------------------------------------------------------------------


@needs_triton
@names
@columns
@dtypes
def test_equals_dense(name, columns, dtype):
    """Ragged in rows, columns and coordinates; rows of every kind side by side."""
    batch = oracles.random_batch(37, 42, 20, odds=(0.8, 0.12, 0.08))
    batch.queries, batch.candidates = F.normalize(batch.queries), F.normalize(batch.candidates)
    batch.cells[0], batch.cells[1], batch.cells[2] = 0, 1, 2
    batch.cells[:, 3], batch.cells[:, 4], batch.cells[:, 5] = 0, 1, 2
    assert_near(rounded(batch, dtype), name, columns, scale=12.0, bias=-4.0, shift=torch.linspace(-2, 1, 42).double())


@needs_triton
@names
@pytest.mark.parametrize(
    "shape", [(1, 17, 3), (17, 1, 16), (1, 1, 1), (16, 16, 16), (33, 2, 40), (0, 4, 3), (4, 0, 3), (0, 0, 3)], ids=str
)
def test_equals_dense_at_any_shape(name, shape):
    batch = oracles.random_batch(*shape)
    assert_near(rounded(batch, torch.float32), name, True, scale=0.5)


@needs_triton
@pytest.mark.parametrize("name", ["softmax-decoupled", "sigmoid"])
@pytest.mark.parametrize("odds", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.5, 0.5)], ids=str)
def test_graphs_of_one_kind(name, odds):
    assert_near(rounded(oracles.random_batch(18, 20, odds=odds), torch.float32), name, True)


@needs_triton
@names
def test_without_bias(name):
    assert_near(rounded(oracles.random_batch(18, 20), torch.float32), name, False, bias=None)


@needs_triton
@names
@pytest.mark.parametrize("sign", [1, -1])
def test_logits_in_the_hundreds(name, sign):
    """The largest of one tile is far above all of the next; some rows hold nothing but minus hundreds."""
    batch = oracles.random_batch(20, 40, 8)
    batch.queries, batch.candidates = F.normalize(batch.queries), F.normalize(batch.candidates)
    batch.queries[::3] *= 0.001
    batch.queries[::4, 0] = 5.0
    batch.candidates[:20, 0] = sign * 1.0
    assert_near(rounded(batch, torch.float32), name, True, scale=150.0, bias=-30.0)


@needs_triton
@pytest.mark.parametrize("bias", [-30.0, -10.0, 0.0])
def test_small_presences_are_exact(bias):
    """softplus(−30) = 9·10⁻¹⁴ is far below float32's 1 + ε."""
    batch = oracles.random_batch(20, 40, 8, odds=(1.0, 0.0, 0.0))
    batch.queries *= 0
    rows, columns, *_ = reduced("triton", rounded(batch, torch.float32), "sigmoid", True, bias=bias)
    one = math.log1p(math.exp(bias))
    torch.testing.assert_close(rows, torch.full((20,), 40 * one), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(columns, torch.full((40,), 20 * one), rtol=1e-6, atol=0.0)


@needs_triton
def test_a_wide_tile_of_zeros(monkeypatch):
    """2²⁵⁶ is not a float32: so many factors 1 + e⁰ cannot go to one logarithm."""
    monkeypatch.setattr(engine, "SHAPES", dict.fromkeys(engine.SHAPES, engine.Shape(16, 256, 16, 4, 2)))
    batch = rounded(oracles.random_batch(2, 256, 1, odds=(1.0, 0.0, 0.0)), torch.float32)
    batch.queries *= 0
    rows, *_ = reduced("triton", batch, "sigmoid", False, bias=None)
    torch.testing.assert_close(rows, torch.full((2,), 256 * math.log(2)))


@needs_triton
@pytest.mark.filterwarnings("ignore:All-NaN slice")  # of the interpreter
def test_not_a_number_is_not_hidden():
    batch = rounded(oracles.random_batch(20, 20, odds=(1.0, 0.0, 0.0)), torch.float32)
    batch.queries[3, 1] = float("nan")
    for name in ("softmax-average", "sigmoid"):
        rows, *_ = reduced("triton", batch, name, False)
        assert rows.isnan().nonzero().flatten().tolist() == [3]


# -- parts ---------------------------------------------------------------------------------------


@needs_triton
@pytest.mark.parametrize("name", ["softmax-decoupled", "sigmoid"])
@columns
def test_each_gradient_alone(name, columns):
    batch = rounded(oracles.random_batch(18, 34, 5), torch.float32)
    problem = Problem(batch.positives.to(DEVICE), OBJECTIVES[name], None, columns)
    given = [x.to(DEVICE) for x in (batch.queries, batch.candidates, torch.tensor(0.7), torch.tensor(-1.0))]
    totals = tiled.reduce(*given, problem)
    # as autograd hands them over: expanded, not contiguous
    arriving = Reduction(*(None if x is None else torch.full((), 0.3, device=DEVICE).expand(x.shape) for x in totals))
    expected = tiled.gradients(*given, problem, totals, arriving, Wants(True, True, True, True))
    for wanted in [(0, 1, 2, 3), (0,), (1,), (2,), (3,), (1, 2), ()]:
        made = engine.gradients(*given, problem, totals, arriving, Wants(*(place in wanted for place in range(4))))
        assert [place for place in range(4) if made[place] is not None] == list(wanted)
        for place in wanted:
            torch.testing.assert_close(made[place], expected[place], rtol=2e-5, atol=2e-5)


@needs_triton
def test_small_gradients_survive_float16():
    """A mean over 10⁶ queries and a large scale: G below the least float16, its products well inside."""
    batch = rounded(oracles.random_batch(20, 35, 5), torch.float16)
    batch.queries *= 2.0**-10
    exact = oracles.Batch(batch.queries.double(), batch.candidates.double(), batch.cells)
    found = []
    for kernel, part in (("triton", batch), ("dense", exact)):
        leaves = [x.to(DEVICE).requires_grad_() for x in part.leaves()]
        scale = torch.tensor(2.0**10, dtype=torch.float64, device=DEVICE)
        graph = part.positives.to(DEVICE), OBJECTIVES["softmax-average"]
        rows, _, pairs = reduce_logits(*leaves, *graph, logit_scale=scale, kernel=kernel)
        loss = (rows[rows.detach().isfinite()].sum() - pairs.sum()) * 2.0**-20
        found.append(torch.autograd.grad(loss, leaves[0])[0].double())
    torch.testing.assert_close(*found, rtol=0.02, atol=found[1].abs().max().item() / 500)


@needs_triton
def test_totals_over_more_than_is_here():
    """A of all candidates while this call sees half of them, as shards do."""
    batch = rounded(oracles.random_batch(20, 40, 5), torch.float32)
    half = oracles.Batch(batch.queries, batch.candidates[:20], batch.cells[:, :20])
    one = torch.ones((), device=DEVICE)
    found, totals = [], None
    for part in (batch, half):
        problem = Problem(part.positives.to(DEVICE), OBJECTIVES["softmax-average"])
        vectors = part.queries.to(DEVICE), part.candidates.to(DEVICE)
        mine = engine.reduce(*vectors, one, None, problem)
        totals = totals or mine
        arriving = Reduction(torch.ones_like(mine.rows), None, torch.zeros_like(mine.pairs))
        wants = Wants(False, True, False, False)
        found.append(engine.gradients(*vectors, one, None, problem, totals, arriving, wants)[1])
    torch.testing.assert_close(found[1], found[0][:20])


@needs_triton
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float32) for name in OBJECTIVES), ("sigmoid", torch.float16), ("sigmoid", torch.bfloat16)],
    ids=str,
)
def test_weighted_loss(name, dtype):
    """Value and every gradient; the sigmoid's come out of one pass."""
    batch = rounded(oracles.random_batch(20, 35, 5), dtype)
    found = []
    for kernel, precise in (("dense", torch.float64), ("triton", torch.float32)):
        leaves = [x.to(DEVICE) for x in (batch.queries, batch.candidates, torch.tensor(0.7), torch.tensor(-1.0))]
        leaves = [(x.double() if kernel == "dense" else x).requires_grad_() for x in leaves]
        weights = torch.linspace(0, 1, 20, device=DEVICE, dtype=precise)
        graph = batch.positives.to(DEVICE), OBJECTIVES[name]
        value = weighted_loss(*leaves[:2], *graph, weights, logit_scale=leaves[2], logit_bias=leaves[3], kernel=kernel)
        found.append([value.detach(), *torch.autograd.grad(value, leaves)])
    for place, (dense, ours) in enumerate(zip(*found, strict=True)):
        near = 2e-6 if place == 0 else 2e-6 + torch.finfo(dtype).eps
        size = found[0][0] if dense.ndim == 0 else dense.norm()
        assert (ours.double() - dense).norm() <= near * size, (place, (ours.double() - dense).norm() / size)


@needs_triton
def test_sigmoid_makes_its_logits_once(monkeypatch):
    kernels_run = []
    launch = engine._Logits.launch

    def spy(self, kernel, *given, **fixed):
        kernels_run.append(kernel)
        launch(self, kernel, *given, **fixed)

    monkeypatch.setattr(engine._Logits, "launch", spy)
    monkeypatch.setattr(engine, "BLOCK_BYTES", 2**20)
    batch = rounded(oracles.random_batch(20, 18, 5), torch.float32)
    queries, candidates = (x.to(DEVICE).requires_grad_() for x in (batch.queries, batch.candidates))
    graph = batch.positives.to(DEVICE), OBJECTIVES["sigmoid"], torch.ones(20, device=DEVICE)
    one = torch.ones((), device=DEVICE)
    weighted_loss(queries, candidates, *graph, logit_scale=one, kernel="triton").backward()
    assert kernels_run == [engine._gradient_tiles]


@needs_triton
def test_dtypes_that_differ():
    batch = oracles.random_batch(3, 3)
    batch.queries, batch.candidates = batch.queries.float(), batch.candidates.half()
    with pytest.raises(ValueError, match=r"one dtype among torch.float32, .*, got candidates of torch.float16"):
        reduced("triton", batch, "sigmoid", False)


def test_products_are_as_precise_as_pytorchs():
    before = torch.get_float32_matmul_precision()
    try:
        for setting, precision in (("highest", "ieee"), ("high", "tf32")):
            torch.set_float32_matmul_precision(setting)
            assert engine._precision(torch.float32) == precision
            assert engine._precision(torch.bfloat16) == "ieee"
    finally:
        torch.set_float32_matmul_precision(before)


# -- where it runs -------------------------------------------------------------------------------

CUDA = torch.device("cuda")


class Vectors(SimpleNamespace):
    def __len__(self):
        return 10**5


def chosen(kernel="auto", device=CUDA, dtype=torch.bfloat16):
    vectors = Vectors(device=device, dtype=dtype)
    return dispatch._chosen(kernel, vectors, vectors)


@pytest.fixture
def compiled(monkeypatch):
    """Triton as it is on a machine with a GPU of compute capability 9.0."""
    monkeypatch.setattr(engine, "triton", engine.triton or SimpleNamespace())
    monkeypatch.setattr(engine, "INTERPRETED", False)
    monkeypatch.setattr(engine, "_capability", lambda device: (9, 0))
    dispatch._tell.cache_clear()


def test_auto_takes_triton_on_a_gpu(compiled):
    assert chosen() == chosen(dtype=torch.float16) == chosen(dtype=torch.float32) == "triton"
    assert chosen(dtype=torch.float64) == chosen("triton", dtype=torch.float64) == "tiled"
    assert chosen(device=torch.device("cpu")) == "tiled"
    assert chosen("tiled") == "tiled"


def test_auto_says_once_why_it_falls_back(compiled, monkeypatch, caplog):
    monkeypatch.setattr(engine, "_capability", lambda device: (7, 5))
    with caplog.at_level(logging.WARNING, logger="sigmax"):
        assert chosen() == chosen() == "tiled"
        monkeypatch.setattr(engine, "triton", None)
        assert chosen() == "tiled"
    old, missing = [record.getMessage() for record in caplog.records]
    assert "'tiled' is used instead of 'triton'" in old and "compute capability 8.0, and this one has 7.5" in old
    assert "pip install triton" in missing


def test_triton_by_name_where_it_cannot_run(compiled, monkeypatch):
    with pytest.raises(ValueError, match=r"got 'triton': it needs a CUDA GPU .*TRITON_INTERPRET=1.* Try 'tiled'"):
        chosen("triton", device=torch.device("cpu"))
    monkeypatch.setattr(engine, "triton", None)
    with pytest.raises(ValueError, match=r"Triton is not installed .*pip install triton.* Try 'tiled' or 'auto'"):
        chosen("triton")


WITHOUT = """
import sys
sys.modules["triton"] = None
import torch, sigmax
from sigmax.kernels import triton
print(triton.missing(torch.device("cuda")), triton.INTERPRETED)
"""


def test_module_without_triton():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.stdout == "Triton is not installed (Linux: pip install triton) False\n", done.stderr


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sigmax.kernels import triton as engine

for kernel, softmax in ((engine._reduce_tiles, True), (engine._gradient_tiles, False)):
    for capability, key, pointer in ((80, "half", "*bf16"), (90, "half", "*fp16")):
        shape = engine.SHAPES[key]
        fixed = dict(BOTH=softmax, SUMS=True, VALUES=True, SOFTMAX=softmax, SHIFTED=True, EXCLUDES=True,
                     PRECISION="ieee", GROUP=8, HEIGHT=shape.height, WIDTH=shape.width, DEPTH=shape.depth)
        fixed = {name: value for name, value in fixed.items() if name in kernel.arg_names}
        types = {name: "constexpr" if name in fixed else "i32" if name in (*engine.SIZES, "d", "stride") else "*i32"
                 if name.startswith("skip") else pointer if name in ("queries", "candidates", "made") else "*fp32"
                 for name in kernel.arg_names}
        whole = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(kernel.arg_names)
                 if types[name] != "constexpr" and name not in engine.SIZES}
        options = {"num_warps": shape.warps, "num_stages": shape.stages, "enable_fp_fusion": True}
        made = triton.compile(ASTSource(kernel, types, fixed, whole), GPUTarget("cuda", capability, 32), options)
        assert 2 * made.metadata.shared <= {80: 163, 90: 227}[capability] * 1024, made.metadata.shared
        print("wgmma" in made.asm["ptx"], "mma.sync" in made.asm["ptx"])
"""


@needs_triton
@pytest.mark.slow
def test_kernels_compile_for_gpus_that_are_not_here(tmp_path):
    """To machine code, tensor cores and all: the interpreter accepts what the compiler refuses."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert done.stdout.splitlines() == 2 * ["False True", "True False"], done.stderr
