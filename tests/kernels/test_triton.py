"""The Triton engine: compiled on a GPU, interpreted on the CPU where there is none (see conftest.py)."""

import logging
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from helpers import oracles
from helpers.precision import assert_within, bounds, gradient_bounds, reduced
from sigmax.families import OBJECTIVES
from sigmax.kernels import Inputs, Problem, Reduction, Wants, dispatch, reduce_logits, weighted_loss
from sigmax.kernels import triton as engine
from sigmax.kernels.tiled import Tiled
from sigmax.kernels.triton import Triton

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
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


def rounded(batch, dtype):
    batch.queries, batch.candidates = batch.queries.to(dtype), batch.candidates.to(dtype)
    return batch


def ran(batch, name, columns, **given):
    return reduced("triton", batch, OBJECTIVES[name], columns, device=DEVICE, **given)


def assert_near(batch, name, columns, **given):
    """float32 within its bounds; halves as near as the dense kernel, plus half of what a sum in halves would cost."""
    exact = oracles.Batch(batch.queries.double(), batch.candidates.double(), batch.cells)
    ours = ran(batch, name, columns, **given)
    truth = reduced("dense", exact, OBJECTIVES[name], columns, **given)
    bound = bounds(exact, OBJECTIVES[name], columns, **given)
    totals = 3 if columns else 2
    if batch.queries.dtype != torch.float32:  # G and the gradients are rounded to halves, in both kernels
        dense = reduced("dense", batch, OBJECTIVES[name], columns, **given)
        for place in range(totals, len(ours)):
            off, theirs = ((x.double() - truth[place]).norm() for x in (ours[place], dense[place]))
            low = 0.15 * torch.finfo(batch.queries.dtype).eps * truth[place].norm()
            assert off <= theirs + low + bound[place].norm(), (place, off / truth[place].norm())
        ours, truth, bound = ours[:totals], truth[:totals], bound[:totals]
    assert_within(ours, truth, bound)


# -- the same as dense ---------------------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
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
    rows, columns, *_ = ran(rounded(batch, torch.float32), "sigmoid", True, bias=bias)
    one = math.log1p(math.exp(bias))
    near = (40 + 8) * torch.finfo(torch.float32).eps / 2  # a sum of 40, each a few u off
    torch.testing.assert_close(rows, torch.full((20,), 40 * one), rtol=near, atol=0.0)
    torch.testing.assert_close(columns, torch.full((40,), 20 * one), rtol=near, atol=0.0)


@needs_triton
def test_a_wide_tile_of_zeros(monkeypatch):
    """2²⁵⁶ is not a float32: so many factors 1 + e⁰ cannot go to one logarithm."""
    monkeypatch.setattr(engine, "SHAPES", dict.fromkeys(engine.SHAPES, engine.Shape(16, 256, 16, 4, 2)))
    batch = rounded(oracles.random_batch(2, 256, 1, odds=(1.0, 0.0, 0.0)), torch.float32)
    batch.queries *= 0
    rows, *_ = ran(batch, "sigmoid", False, bias=None)
    torch.testing.assert_close(rows, torch.full((2,), 256 * math.log(2)))


@needs_triton
@pytest.mark.filterwarnings("ignore:All-NaN slice")  # of the interpreter
def test_not_a_number_is_not_hidden():
    batch = rounded(oracles.random_batch(20, 20, odds=(1.0, 0.0, 0.0)), torch.float32)
    batch.queries[3, 1] = float("nan")
    for name in ("softmax-average", "sigmoid"):
        rows, *_ = ran(batch, name, False)
        assert rows.isnan().nonzero().flatten().tolist() == [3]


# -- parts ---------------------------------------------------------------------------------------


@needs_triton
@pytest.mark.parametrize("name", ["softmax-decoupled", "sigmoid"])
@columns
def test_each_gradient_alone(name, columns):
    batch = rounded(oracles.random_batch(18, 34, 5), torch.float32)
    problem = Problem(batch.positives, OBJECTIVES[name], None, columns)
    exact = Inputs(batch.queries.double(), batch.candidates.double(), torch.tensor(0.7).double(), torch.tensor(-1.0))
    totals = Tiled().reduce(exact, problem)
    # as autograd hands them over: expanded, not contiguous
    arriving = Reduction(*(None if x is None else torch.full((), 0.3).expand(x.shape) for x in totals))
    truth = Tiled().gradients(exact, problem, totals, arriving, Wants(True, True, True, True))
    s = exact.queries @ exact.candidates.T * 0.7 - 1.0
    g = 0.3 * (1 + columns) * torch.ones_like(s)  # act is at most 1, and a right pair's own gradient is 0.3 more
    bound = gradient_bounds(g + 0.3 * problem.positives.to_dense(), *exact[:2], 0.7, -torch.ones(34), torch.float32)
    inputs = Inputs(*(x.to(DEVICE, torch.float32) for x in exact))
    on_device = Problem(problem.positives.to(DEVICE), problem.objective, None, columns)
    totals, arriving = (
        Reduction(*(None if x is None else x.to(DEVICE, torch.float32) for x in part)) for part in (totals, arriving)
    )
    for wanted in [(0, 1, 2, 3), (0,), (1,), (2,), (3,), (1, 2), ()]:
        wants = Wants(*(place in wanted for place in range(4)))
        found = Triton().gradients(inputs, on_device, totals, arriving, wants)
        assert [place for place in range(4) if found[place] is not None] == list(wanted)
        assert_within(
            *([x[place] for place in wanted] for x in ([y if y is None else y.cpu() for y in found], truth, bound))
        )


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
        problem = Problem(part.positives.to(DEVICE), OBJECTIVES["softmax-average"])
        rows, _, pairs = reduce_logits(Inputs(*leaves, scale), problem, kernel)
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
        inputs = Inputs(part.queries.to(DEVICE), part.candidates.to(DEVICE), one)
        mine = Triton().reduce(inputs, problem)
        totals = totals or mine
        arriving = Reduction(torch.ones_like(mine.rows), None, torch.zeros_like(mine.pairs))
        wants = Wants(False, True, False, False)
        found.append(Triton().gradients(inputs, problem, totals, arriving, wants).candidates)
    torch.testing.assert_close(found[1], found[0][:20])  # the same numbers, added up in the same order but for tiles


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
        value = weighted_loss(Inputs(*leaves), Problem(batch.positives.to(DEVICE), OBJECTIVES[name]), weights, kernel)
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
    inputs = Inputs(queries, candidates, torch.ones((), device=DEVICE))
    problem = Problem(batch.positives.to(DEVICE), OBJECTIVES["sigmoid"])
    weighted_loss(inputs, problem, torch.ones(20, device=DEVICE), "triton").backward()
    assert kernels_run == [engine._tiles().gradient_tiles]


@needs_triton
def test_dtypes_that_differ():
    batch = oracles.random_batch(3, 3)
    batch.queries, batch.candidates = batch.queries.float(), batch.candidates.half()
    with pytest.raises(ValueError, match=r"one dtype among torch.float32, .*, got candidates of torch.float16"):
        ran(batch, "sigmoid", False)


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


def chosen(kernel="auto", device=CUDA, dtype=torch.bfloat16, objective="sigmoid"):
    vectors = Vectors(device=device, dtype=dtype)
    problem = SimpleNamespace(objective=OBJECTIVES[objective])
    return dispatch._chosen(kernel, Inputs(vectors, vectors, torch.ones(())), problem)[0].name


@pytest.fixture
def compiled(monkeypatch):
    """Triton as it is on a machine with a GPU of compute capability 9.0."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(engine, "_tiles", lambda: SimpleNamespace(INTERPRETED=False))
    monkeypatch.setattr(engine, "_capability", lambda device: (9, 0))
    dispatch._tell.cache_clear()


def not_installed():
    raise ImportError


def test_auto_takes_triton_on_a_gpu(compiled):
    assert chosen() == chosen(dtype=torch.float16) == chosen(dtype=torch.float32) == "triton"
    assert chosen(dtype=torch.float64) == "tiled"
    assert chosen(device=torch.device("cpu")) in ("fused", "tiled")
    assert chosen("tiled") == "tiled"


def test_auto_says_once_why_it_falls_back(compiled, monkeypatch, caplog):
    monkeypatch.setattr(engine, "_capability", lambda device: (7, 5))
    with caplog.at_level(logging.INFO, logger="sigmax"):
        assert chosen() == chosen() == "tiled"
        monkeypatch.setattr(engine, "_tiles", not_installed)
        assert chosen() == "tiled"
    old, missing = [record.getMessage() for record in caplog.records]
    assert "'tiled' is used instead of 'triton'" in old and "compute capability 8.0, and this one has 7.5" in old
    assert "pip install triton" in missing


def test_triton_by_name_where_it_cannot_run(compiled, monkeypatch):
    """The message says of every engine why it cannot, or that it can."""
    with pytest.raises(
        ValueError, match=r"got 'triton'.* Try 'auto'.*\n  triton: it needs a CUDA GPU .*INTERPRET=1"
    ) as said:
        chosen("triton", device=torch.device("cpu"))
    assert "\n  tiled: can run here" in str(said.value)
    with pytest.raises(ValueError, match=r"triton: it works in torch.float32, .*, and the vectors are torch.float64"):
        chosen("triton", dtype=torch.float64)
    monkeypatch.setattr(engine, "_tiles", not_installed)
    with pytest.raises(ValueError, match=r"triton: Triton is not installed .*pip install triton"):
        chosen("triton")


WITHOUT = """
import sys
sys.modules["triton"] = None
import torch, sigmax
from sigmax.kernels import ENGINES, Inputs, Problem
from sigmax.families import OBJECTIVES
vectors = torch.zeros(600, 4)
positives = sigmax.Positives([0], [0], (600, 600))
inputs = Inputs(vectors, vectors, torch.ones(()))
for engine in ENGINES:
    print(engine.name, engine.missing(inputs, Problem(positives, OBJECTIVES["sigmoid"])))
sigmax.SoftmaxLoss()(vectors + 1, vectors + 1, positives)
"""


def test_without_triton():
    given = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, env=given)
    said = done.stdout.splitlines()
    assert "triton Triton is not installed (Linux: pip install triton)" in said, done.stderr
    assert "tiled None" in said


IMPORTS = """
import sys
import torch, sigmax
vectors = torch.ones(600, 4)
sigmax.SigmoidLoss()(vectors, vectors, sigmax.Positives([0], [0], (600, 600)))
print("triton" in sys.modules)
"""


def test_no_gpu_no_import_of_triton():
    given = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False, env=given)
    assert done.stdout == f"{torch.cuda.is_available()}\n", done.stderr


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sigmax.kernels import triton as engine
from sigmax.kernels import triton_tiles as tiles

for kernel, softmax in ((tiles.reduce_tiles, True), (tiles.gradient_tiles, False)):
    for capability, key, pointer in ((80, "half", "*bf16"), (90, "half", "*fp16")):
        shape = engine.SHAPES[key]
        fixed = dict(BOTH=softmax, SUMS=True, VALUES=True, SOFTMAX=softmax, SHIFTED=True, EXCLUDES=True,
                     PRECISION="ieee", GROUP=8, HEIGHT=shape.height, WIDTH=shape.width, DEPTH=shape.depth)
        fixed = {name: value for name, value in fixed.items() if name in kernel.arg_names}
        types = {name: "constexpr" if name in fixed else "i32" if name in (*tiles.SIZES, "d", "stride") else "*i32"
                 if name.startswith("skip") else pointer if name in ("queries", "candidates", "block") else "*fp32"
                 for name in kernel.arg_names}
        whole = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(kernel.arg_names)
                 if types[name] != "constexpr" and name not in tiles.SIZES}
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
