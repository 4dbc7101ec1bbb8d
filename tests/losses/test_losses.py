import math
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from helpers import oracles
from sigmax import Positives, SigmoidLoss, SoftmaxLoss
from sigmax.families import OBJECTIVES
from sigmax.kernels import tiled
from sigmax.losses import MatchLoss, make_loss

SOFTMAX = [name for name in OBJECTIVES if OBJECTIVES[name].family == "softmax"]
names = pytest.mark.parametrize("name", list(OBJECTIVES))
softmaxes = pytest.mark.parametrize("name", SOFTMAX)
directions = pytest.mark.parametrize("directions", ["queries", "both"])
kernels = pytest.mark.parametrize("kernel", ["dense", "tiled"])
tiles = st.sampled_from([(1, 1), (2, 3), (3, 2), (4, 8)])


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(2, 3))


def build(name, *, scale=3.0, bias=-1.0, similarity="cosine", directions="queries", reduction="mean", kernel="dense"):
    """The module of any objective, in float64."""
    return MatchLoss(
        OBJECTIVES[name],
        scale,
        bias if OBJECTIVES[name].family == "sigmoid" else None,
        learnable=True,
        similarity=similarity,
        directions=directions,
        reduction=reduction,
        kernel=kernel,
    ).double()


def oracle(loss, batch, log_q=None):
    s = oracles.logits(
        batch.queries.tolist(),
        batch.candidates.tolist(),
        loss.logit_scale.item(),
        0.0 if loss.logit_bias is None else loss.logit_bias.item(),
        None if log_q is None else log_q.tolist(),
        loss.similarity,
    )
    return oracles.loss(
        loss.objective.name, s, batch.shape, batch.right, batch.ignored, loss.directions, loss.reduction
    )


def gradients(loss, batch, **kwargs):
    """The summed loss, and its gradient by every input."""
    queries, candidates = batch.leaves()
    value = loss(queries, candidates, batch.positives, **kwargs)
    return [value.detach(), *torch.autograd.grad(value.sum(), [queries, candidates, *loss.parameters()])]


# -- value and gradient --------------------------------------------------------------------------


@names
@directions
@kernels
@given(batch=oracles.batches(), tile=tiles, similarity=st.sampled_from(["cosine", "dot"]))
def test_equals_oracle(name, directions, kernel, batch, tile, similarity):
    with mock.patch.object(tiled, "_tile", oracles.tiles_of(*tile)):
        for reduction in ("mean", "sum", "none"):
            loss = build(name, similarity=similarity, directions=directions, reduction=reduction, kernel=kernel)
            value = loss(batch.queries, batch.candidates, batch.positives)
            assert value.tolist() == pytest.approx(oracle(loss, batch), rel=1e-12, abs=1e-12)


@names
@directions
@kernels
def test_gradcheck(name, directions, kernel):
    batch = oracles.random_batch(4, 5, 3, seed=3)
    loss = build(name, directions=directions, kernel=kernel)
    loss_names = [key for key, _ in loss.named_parameters()]

    def value(queries, candidates, *parameters):
        given = dict(zip(loss_names, parameters, strict=True))
        return torch.func.functional_call(loss, given, (queries, candidates, batch.positives))

    assert torch.autograd.gradcheck(value, (*batch.leaves(), *loss.parameters()))


@names
@directions
@kernels
def test_from_logits_agrees_with_forward(name, directions, kernel):
    batch = oracles.random_batch(5, 7)
    loss = build(name, directions=directions, kernel=kernel)
    value = loss.from_logits(loss.logits(batch.queries, batch.candidates), batch.positives)
    torch.testing.assert_close(value, loss(batch.queries, batch.candidates, batch.positives), rtol=1e-12, atol=0)


@names
@directions
@given(batch=oracles.batches(smallest=1))
def test_never_below_the_floor(name, directions, batch):
    loss = build(name, scale=10.0, directions=directions, reduction="sum")
    counts = batch.positives.counts.tolist()
    if directions == "both":
        counts += batch.positives.transpose().counts.tolist()
    floor = sum(oracles.FLOORS[name](max(k, 1)) for k in counts) / (1 + (directions == "both"))
    assert loss(batch.queries, batch.candidates, batch.positives).item() >= floor - 1e-12


# -- symmetries ----------------------------------------------------------------------------------


@names
@directions
@kernels
def test_order_does_not_matter(name, directions, kernel):
    batch = oracles.random_batch(5, 7, seed=2)
    loss = build(name, directions=directions, reduction="none", kernel=kernel)
    rows, columns = torch.randperm(5), torch.randperm(7)
    shuffled = oracles.Batch(batch.queries[rows], batch.candidates[columns], batch.cells[rows][:, columns])
    value, by_query, by_candidate, *others = gradients(loss, batch)
    new, new_by_query, new_by_candidate, *new_others = gradients(loss, shuffled)
    both = torch.cat([rows, 5 + columns]) if directions == "both" else rows
    torch.testing.assert_close(new, value[both])
    torch.testing.assert_close(new_by_query, by_query[rows])
    torch.testing.assert_close(new_by_candidate, by_candidate[columns])
    torch.testing.assert_close(new_others, others)


@names
@directions
@kernels
def test_ignored_is_absent(name, directions, kernel):
    batch = oracles.random_batch(5, 7, seed=4)
    rows, columns = [0, 2, 3], [1, 2, 4, 5, 6]
    kept = torch.zeros(5, 7, dtype=torch.bool)
    kept[torch.tensor(rows)[:, None], columns] = True
    masked = oracles.Batch(batch.queries, batch.candidates, batch.cells.where(kept, 2))
    sliced = oracles.Batch(batch.queries[rows], batch.candidates[columns], batch.cells[rows][:, columns])
    loss = build(name, directions=directions, reduction="sum", kernel=kernel)
    value, by_query, by_candidate, *others = gradients(loss, masked)
    expected, sliced_by_query, sliced_by_candidate, *sliced_others = gradients(loss, sliced)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(by_query, torch.zeros(5, 4).double().index_add(0, torch.tensor(rows), sliced_by_query))
    expected_by_candidate = torch.zeros(7, 4).double().index_add(0, torch.tensor(columns), sliced_by_candidate)
    torch.testing.assert_close(by_candidate, expected_by_candidate)
    torch.testing.assert_close(others, sliced_others)


@names
@kernels
def test_both_directions_are_the_mean_of_each(name, kernel):
    batch = oracles.random_batch(5, 7)
    turned = oracles.Batch(batch.candidates, batch.queries, batch.cells.T)
    one = build(name, kernel=kernel)
    both = build(name, directions="both", kernel=kernel)
    there = one(batch.queries, batch.candidates, batch.positives)
    back = one(turned.queries, turned.candidates, turned.positives)
    torch.testing.assert_close(both(batch.queries, batch.candidates, batch.positives), (there + back) / 2)


# -- reductions ----------------------------------------------------------------------------------


@names
@directions
@kernels
def test_reductions(name, directions, kernel):
    batch = oracles.random_batch(6, 5, seed=5)
    batch.cells[1] = 0
    batch.cells[:, 2] = 0

    def value(reduction):
        loss = build(name, directions=directions, reduction=reduction, kernel=kernel)
        return loss(batch.queries, batch.candidates, batch.positives)

    rows, columns = 6, 5
    if OBJECTIVES[name].needs_positive:
        rows, columns = int((batch.positives.counts > 0).sum()), int((batch.positives.transpose().counts > 0).sum())
        assert rows < 6
        assert columns < 5
    terms = value("none")
    assert terms.shape == ((11,) if directions == "both" else (6,))
    torch.testing.assert_close(value("sum"), terms.sum())
    torch.testing.assert_close(value("mean"), terms[:6].sum() / rows + terms[6:].sum() / columns)


@names
@kernels
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_multiply_the_loss_of_each_query(name, kernel, reduction):
    batch = oracles.random_batch(6, 5, seed=5)
    batch.cells[1] = 0
    weights = torch.tensor([0.0, 2.0, 0.5, 7.0, 1.0, 3.0])

    def value(reduction, **given):
        loss = build(name, reduction=reduction, kernel=kernel)
        return loss(batch.queries, batch.candidates, batch.positives, **given)

    each = value("none") * weights
    counted = int(OBJECTIVES[name].counted(batch.positives.counts).sum())
    expected = {"none": each, "sum": each.sum(), "mean": each.sum() / counted}[reduction]
    torch.testing.assert_close(value(reduction, weights=weights), expected)
    loss = build(name, reduction=reduction, kernel=kernel)
    logits = loss.logits(batch.queries, batch.candidates)
    torch.testing.assert_close(loss.from_logits(logits, batch.positives, weights=weights), expected)


def test_weights_that_do_not_fit():
    vectors, positives = torch.randn(3, 2), Positives([0], [0], (3, 3))
    for weights in (torch.ones(2), torch.tensor([1.0, -1.0, 1.0]), torch.tensor([1.0, math.nan, 1.0])):
        with pytest.raises(ValueError, match="Expected 3 finite `weights` that are not negative"):
            build("sigmoid")(vectors, vectors, positives, weights=weights)
    with pytest.raises(ValueError, match="`weights` with directions='queries'"):
        build("softmax-average", directions="both")(vectors, vectors, positives, weights=torch.ones(3))


@names
@kernels
def test_a_query_without_right_answers(name, kernel):
    batch = oracles.random_batch(4, 5, seed=6)
    batch.cells[2] = 0
    loss = build(name, reduction="none", kernel=kernel)
    value, by_query, *_ = gradients(loss, batch)
    if OBJECTIVES[name].family == "softmax":
        assert value[2] == 0
        assert (by_query[2] == 0).all()
    else:
        assert value[2] > 0
        assert (by_query[2] != 0).any()


@names
@directions
@kernels
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (1, 7), (7, 1), (3, 4)], ids=str)
@pytest.mark.parametrize("cell", [0, 1, 2], ids=["wrong", "right", "ignored"])
def test_batches_of_one_kind(name, directions, kernel, shape, cell):
    batch = oracles.random_batch(*shape)
    batch.cells[:] = cell
    for reduction in ("mean", "sum", "none"):
        loss = build(name, directions=directions, reduction=reduction, kernel=kernel)
        value, *slopes = gradients(loss, batch)
        assert value.tolist() == pytest.approx(oracle(loss, batch), rel=1e-12, abs=1e-12)
        assert all(slope.isfinite().all() for slope in slopes)
        if cell == 2:
            assert all((slope == 0).all() for slope in slopes)


# -- sampled candidates --------------------------------------------------------------------------


@names
@directions
@kernels
def test_log_q_is_taken_off_the_logits(name, directions, kernel):
    batch = oracles.random_batch(5, 7, seed=8)
    log_q = torch.linspace(-3, 0, 7, dtype=torch.float64)
    loss = build(name, directions=directions, kernel=kernel)
    value = loss(batch.queries, batch.candidates, batch.positives, candidate_log_q=log_q)
    assert value.item() == pytest.approx(oracle(loss, batch, log_q), rel=1e-12)
    shifted = loss.logits(batch.queries, batch.candidates) - log_q
    torch.testing.assert_close(loss.from_logits(shifted, batch.positives), value, rtol=1e-12, atol=0)
    given = loss.from_logits(loss.logits(batch.queries, batch.candidates), batch.positives, candidate_log_q=log_q)
    torch.testing.assert_close(given, value, rtol=1e-12, atol=0)


@names
@kernels
def test_a_rarely_offered_wrong_answer_weighs_more(name, kernel):
    batch = oracles.random_batch(1, 2)
    batch.cells = torch.tensor([[1, 0]])
    loss = build(name, kernel=kernel)
    rare = loss(batch.queries, batch.candidates, batch.positives, candidate_log_q=torch.tensor([0.0, -2.0]))
    assert rare > loss(batch.queries, batch.candidates, batch.positives)


@softmaxes
@kernels
def test_a_wrong_answer_offered_r_times_at_log_r_counts_once(name, kernel):
    batch = oracles.random_batch(3, 4)
    batch.cells = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]])
    times = torch.tensor([1, 1, 3, 5])
    often = oracles.Batch(
        batch.queries, batch.candidates.repeat_interleave(times, 0), batch.cells.repeat_interleave(times, 1)
    )
    loss = build(name, kernel=kernel)
    log_q = times.repeat_interleave(times).double().log()
    value, by_query, *_ = gradients(loss, batch)
    expected, often_by_query, *_ = gradients(loss, often, candidate_log_q=log_q)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(by_query, often_by_query)


def test_sigmoid_finds_the_odds_of_the_population_from_a_sample_of_its_wrong_pairs():
    """2 right and 8 wrong pairs of one logit, a quarter of the wrong ones offered: s = log(2 / 8) is the optimum."""
    s = torch.full((1, 4), math.log(2 / 8), dtype=torch.float64, requires_grad=True)
    loss = SigmoidLoss().from_logits(
        s, Positives([0, 0], [0, 1], (1, 4)), candidate_log_q=torch.full((4,), math.log(1 / 4))
    )
    (gradient,) = torch.autograd.grad(loss, s)
    assert gradient.sum().item() == pytest.approx(0.0, abs=1e-7)


# -- against others ------------------------------------------------------------------------------


@softmaxes
@kernels
def test_the_diagonal_is_in_batch_cross_entropy(name, kernel):
    batch = oracles.random_batch(6, 9)
    loss = build(name, kernel=kernel)
    scores = F.normalize(batch.queries) @ F.normalize(batch.candidates).T
    expected = F.cross_entropy(scores * loss.logit_scale, torch.arange(6))
    value = loss(batch.queries, batch.candidates, Positives(range(6), range(6), (6, 9)))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


@softmaxes
@kernels
def test_the_diagonal_is_multiple_negatives_ranking_loss(name, kernel):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    batch = oracles.random_batch(6, 12)
    loss = SoftmaxLoss(20.0, positives=name.removeprefix("softmax-"), kernel=kernel).double()
    theirs = MultipleNegativesRankingLoss(nn.Identity(), scale=loss.logit_scale.item())
    columns = [batch.queries, batch.candidates[:6], batch.candidates[6:]]
    expected = theirs.compute_loss_from_embeddings(columns, labels=None)
    value = loss(batch.queries, batch.candidates, Positives(range(6), range(6), (6, 12)))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


@kernels
def test_average_without_the_diagonal_is_supervised_contrastive(kernel):
    batch = oracles.random_batch(8, 1)
    labels = [0, 1, 0, 2, 1, 0, 3, 1]
    same = torch.tensor(labels)[:, None] == torch.tensor(labels)
    eye = torch.eye(8, dtype=torch.bool)
    loss = build("softmax-average", scale=10.0, kernel=kernel)
    value = loss(batch.queries, batch.queries, Positives.from_dense(same & ~eye, eye))
    expected = oracles.supcon(batch.queries.tolist(), labels, 1 / loss.logit_scale.item())
    assert value.item() == pytest.approx(expected, rel=1e-12)


@kernels
def test_sigmoid_is_binary_cross_entropy(kernel):
    batch = oracles.random_batch(6, 9, odds=(0.6, 0.4, 0.0))
    loss = build("sigmoid", scale=8.0, bias=-4.0, kernel=kernel)
    value = loss(batch.queries, batch.candidates, batch.positives)
    scores = F.normalize(batch.queries) @ F.normalize(batch.candidates).T * loss.logit_scale + loss.logit_bias
    expected = F.binary_cross_entropy_with_logits(scores, (batch.cells == 1).double(), reduction="sum") / 6
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


# -- numbers of every size -----------------------------------------------------------------------


@names
@directions
@kernels
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_extreme_scales(name, directions, kernel, scale):
    batch = oracles.random_batch(6, 9)
    loss = build(name, scale=scale, bias=-10.0, directions=directions, kernel=kernel).float()
    batch.queries, batch.candidates = batch.queries.float(), batch.candidates.float()
    value, *slopes = gradients(loss, batch)
    assert value.isfinite()
    assert all(slope.isfinite().all() for slope in slopes)


@names
@directions
def test_huge_logits_do_not_overflow(name, directions):
    logits = torch.tensor([[1e6, -1e6, 1e6], [-1e6, 1e6, -1e6]], requires_grad=True)
    loss = build(name, directions=directions).float()
    value = loss.from_logits(logits, Positives([0, 0, 1], [0, 1, 0], (2, 3)))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@names
@directions
def test_a_wrong_pair_of_minus_infinity_is_out(name, directions):
    batch = oracles.random_batch(4, 5)
    s = batch.queries @ batch.candidates.T
    loss = build(name, directions=directions)
    without = s.masked_fill(batch.cells == 2, -math.inf).requires_grad_()
    value = loss.from_logits(without, Positives.from_dense(batch.cells == 1))
    torch.testing.assert_close(value, loss.from_logits(s, batch.positives))
    (gradient,) = torch.autograd.grad(value, without)
    assert gradient.isfinite().all()


@names
@directions
@kernels
def test_autocast(name, directions, kernel):
    batch = oracles.random_batch(6, 9, 16)
    batch.queries, batch.candidates = batch.queries.float(), batch.candidates.float()
    loss = build(name, directions=directions, kernel=kernel).float()
    truth, *true_slopes = gradients(loss, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, *slopes = gradients(loss, batch)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, truth, rtol=0.02, atol=0.0)
    for slope, true in zip(slopes, true_slopes, strict=True):
        assert slope.dtype == torch.float32
        torch.testing.assert_close(slope, true, rtol=0.0, atol=0.02 * true.abs().max().item())


@names
@kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name, kernel, dtype):
    batch = oracles.random_batch(6, 9, 16)
    loss = build(name, kernel=kernel)
    half = oracles.Batch(batch.queries.to(dtype), batch.candidates.to(dtype), batch.cells)
    truth, *true_slopes = gradients(loss, batch)
    value, *slopes = gradients(loss.float(), half)
    assert value.dtype == torch.float32
    assert [slope.dtype for slope in slopes[:2]] == [dtype, dtype]
    torch.testing.assert_close(value.double(), truth, rtol=0.02, atol=0.0)
    for slope, true in zip(slopes, true_slopes, strict=True):
        torch.testing.assert_close(slope.double(), true, rtol=0.0, atol=0.03 * true.abs().max().item())


@names
@kernels
def test_strides_do_not_matter(name, kernel):
    batch = oracles.random_batch(5, 7)
    wide, tall = torch.zeros(5, 8).double(), batch.candidates.T.contiguous()
    wide[:, ::2] = batch.queries
    loss = build(name, kernel=kernel)
    strided = oracles.Batch(wide[:, ::2], tall.T, batch.cells)
    torch.testing.assert_close(gradients(loss, strided), gradients(loss, batch))


@names
@kernels
def test_inputs_need_no_gradient(name, kernel):
    batch = oracles.random_batch(5, 7)
    loss = build(name, kernel=kernel).requires_grad_(False)
    assert not loss(batch.queries, batch.candidates, batch.positives).requires_grad
    queries, candidates = batch.leaves()
    full = torch.autograd.grad(loss(queries, candidates, batch.positives), [queries, candidates])
    (alone,) = torch.autograd.grad(loss(queries, batch.candidates, batch.positives), [queries])
    torch.testing.assert_close(alone, full[0])
    (alone,) = torch.autograd.grad(loss(batch.queries, candidates, batch.positives), [candidates])
    torch.testing.assert_close(alone, full[1])


# -- the modules ---------------------------------------------------------------------------------


@names
def test_make_loss(name):
    loss = make_loss(name, logit_scale=7.0, logit_bias=-2.0, similarity="dot")
    assert loss.objective is OBJECTIVES[name]
    assert loss.similarity == "dot"
    assert loss.logit_scale.item() == pytest.approx(7.0)
    if OBJECTIVES[name].family == "softmax":
        assert isinstance(loss, SoftmaxLoss)
        assert loss.logit_bias is None
    else:
        assert isinstance(loss, SigmoidLoss)
        assert loss.logit_bias.item() == -2.0


@pytest.mark.parametrize("build", [SoftmaxLoss, SigmoidLoss])
def test_learnable(build):
    assert all(parameter.requires_grad for parameter in build().parameters())
    assert not any(parameter.requires_grad for parameter in build(learnable=False).parameters())


def test_state_dict_round_trip():
    loss, other = SigmoidLoss(30.0, -7.0), SigmoidLoss()
    other.load_state_dict(loss.state_dict())
    assert other.logit_scale.item() == pytest.approx(30.0)
    assert other.logit_bias.item() == -7.0


def test_repr():
    assert repr(SigmoidLoss()) == (
        "SigmoidLoss(sigmoid, logit_scale=10, logit_bias=-10, similarity='cosine', "
        "directions='queries', reduction='mean')"
    )
    assert repr(SoftmaxLoss(positives="any", directions="both")) == (
        "SoftmaxLoss(softmax-any, logit_scale=20, similarity='cosine', directions='both', reduction='mean')"
    )


# -- messages ------------------------------------------------------------------------------------

POSITIVES = Positives([0, 1], [0, 2], (2, 3))
losses = pytest.mark.parametrize("loss", [SoftmaxLoss(), SigmoidLoss()], ids=["softmax", "sigmoid"])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"positives": "averag"},
            r"`positives` to be one of any, average, decoupled, pairs, got 'averag'\. Did you mean 'av",
        ),
        ({"positives": "softmax-any"}, r"got 'softmax-any'\."),
        ({"directions": "queris"}, r"`directions` to be one of both, queries, got 'queris'\. Did you mean 'queries'\?"),
        ({"reduction": "avg"}, r"`reduction` to be one of mean, none, sum, got 'avg'"),
        ({"similarity": "cos"}, r"`similarity` to be one of cosine, dot, got 'cos'\. Did you mean 'cosine'\?"),
        ({"kernel": "tile"}, r"`kernel` to be one of auto, dense, .*tiled.*, got 'tile'\. Did you mean 'tiled'\?"),
        ({"logit_scale": 0.0}, r"`logit_scale` to be finite and above 0, got 0\.0"),
        ({"logit_scale": math.inf}, r"`logit_scale` to be finite and above 0, got inf"),
    ],
)
def test_wrong_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SoftmaxLoss(**kwargs)


def test_wrong_bias():
    with pytest.raises(ValueError, match="`logit_bias` to be finite, got nan"):
        SigmoidLoss(logit_bias=math.nan)


def test_unknown_objective():
    with pytest.raises(ValueError, match=r"got 'sigmoidal'\. Did you mean 'sigmoid'\?"):
        make_loss("sigmoidal", logit_scale=1.0, logit_bias=0.0)


@losses
@pytest.mark.parametrize(
    ("queries", "candidates", "message"),
    [
        (torch.ones(4), torch.ones(3, 4), r"`queries` to be a floating .* of shape \(rows, d\), got .* shape \(4,\)"),
        (torch.ones(2, 4), torch.ones(1, 3, 4), r"`candidates` to be a floating .* got .* of shape \(1, 3, 4\)"),
        (torch.ones(2, 4).int(), torch.ones(3, 4), r"`queries` to be a floating .* got torch\.int32"),
        (torch.ones(2, 4), torch.ones(3, 5), r"`queries` and `candidates` of one width d, got 4 and 5"),
        (torch.ones(2, 4), torch.ones(3, 4).double(), r"one dtype, got torch.float32 and torch.float64\. Cast one"),
        (torch.ones(2, 4), torch.ones(3, 4, device="meta"), r"`queries` and `candidates` on one device, got cpu and m"),
        (torch.ones(3, 4), torch.ones(2, 4), r"`positives` of shape \(queries, candidates\) = \(3, 2\), got \(2, 3\)"),
    ],
)
def test_wrong_vectors(loss, queries, candidates, message):
    with pytest.raises(ValueError, match=message):
        loss(queries, candidates, POSITIVES)


@losses
def test_wrong_positives(loss):
    message = r"`positives` to be a sigmax\.Positives, got Tensor\. Make one with .*Positives\.from_dense\(matrix\)"
    with pytest.raises(TypeError, match=message):
        loss(torch.ones(2, 4), torch.ones(3, 4), torch.eye(2, 3))
    with pytest.raises(TypeError, match=message):
        loss.from_logits(torch.ones(2, 3), torch.eye(2, 3))


@losses
@kernels
def test_nan_names_its_side(loss, kernel, monkeypatch):
    monkeypatch.setattr(loss, "kernel", kernel)
    good, bad = torch.ones(3, 4), torch.ones(3, 4)
    bad[1, 2], bad[2, 0] = math.nan, math.inf
    positives = Positives(range(3), range(3), (3, 3))
    with pytest.raises(ValueError, match=r"NaN or infinity in 2 of 3 `queries`\. Look at the encoder"):
        loss(bad, good, positives)
    with pytest.raises(ValueError, match="NaN or infinity in 2 of 3 `candidates`"):
        loss(good, bad, positives)


def test_an_infinite_scale_is_named():
    loss = SoftmaxLoss()
    loss.log_scale.data.fill_(1000.0)
    with pytest.raises(ValueError, match=r"not finite though the vectors are: logit_scale is inf\. Lower it"):
        loss(torch.eye(2), torch.eye(2), Positives([0], [0], (2, 2)))


@losses
@pytest.mark.parametrize(
    ("log_q", "message"),
    [
        (torch.zeros(2), r"`candidate_log_q` of shape \(3,\), one log rate per candidate, got \(2,\)"),
        (torch.zeros(3, 1), r"`candidate_log_q` of shape \(3,\), .* got \(3, 1\)"),
        (torch.tensor([0.0, 0.5, 0.0]).log(), r"finite `candidate_log_q`, got NaN or infinity\. A rate of 0 is never"),
    ],
)
def test_wrong_log_q(loss, log_q, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.ones(2, 4), torch.ones(3, 4), POSITIVES, candidate_log_q=log_q)
    with pytest.raises(ValueError, match=message):
        loss.from_logits(torch.ones(2, 3), POSITIVES, candidate_log_q=log_q)


@losses
def test_wrong_logits(loss):
    with pytest.raises(ValueError, match=r"`logits` to be an \(n, m\) floating point .* shape \(3,\)"):
        loss.from_logits(torch.ones(3), POSITIVES)
    with pytest.raises(ValueError, match=r"floating point tensor, got torch\.int64"):
        loss.from_logits(torch.ones(2, 3).long(), POSITIVES)
    with pytest.raises(ValueError, match=r"\(queries, candidates\) = \(3, 2\), got \(2, 3\)"):
        loss.from_logits(torch.ones(3, 2), POSITIVES)
    for bad, message in [
        (math.nan, r"got 1 NaN, 0 \+∞ and 0 right pairs with −∞"),
        (math.inf, r"got 0 NaN, 1 \+∞ and 0 right pairs with −∞"),
        (-math.inf, r"got 0 NaN, 0 \+∞ and 1 right pairs with −∞"),
    ]:
        logits = torch.zeros(2, 3)
        logits[0, 0] = bad
        with pytest.raises(ValueError, match=message):
            loss.from_logits(logits, POSITIVES)
