"""A loss of another package, one of each family: one definition, and everything knows it."""

import subprocess
import sys

import pytest
import torch

import sigmax
from helpers.data import things
from sigmax.families import LOGSUMEXP, OBJECTIVES, SOFTPLUS, Objective, Paper, sum_by_row
from sigmax.losses import make_loss
from sigmax.training.settings import Settings


def _margin(total, s, rows, counts):
    return (1 + total - sum_by_row(s, rows, len(total)) / counts).clamp(min=0)


def _doubled(total, s, rows, counts):
    return 2 * (total - sum_by_row(s, rows, len(total)))


ENTRIES = [
    Objective(
        name="softmax-margin",
        family="softmax",
        formula="Lᵢ = max(0, 1 + log Σ_{j wrong} exp sᵢⱼ − (1/|Pᵢ|) Σ_{p∈Pᵢ} sᵢₚ)",
        partition=LOGSUMEXP,
        against="wrong",
        row_loss=_margin,
        floor=torch.zeros_like,
        summary="the mean right answer, a margin above the wrong ones",
        paper=Paper(key="a2026margin", title="M", authors="A", venue="V", year=2026, arxiv="2601.00001"),
    ),
    Objective(
        name="sigmoid-doubled",
        family="sigmoid",
        formula="Lᵢ = 2 (Σⱼ softplus(sᵢⱼ) − Σ_{p∈Pᵢ} sᵢₚ)",
        partition=SOFTPLUS,
        against="all",
        row_loss=_doubled,
        floor=torch.zeros_like,
        summary="twice the sigmoid loss",
        linear=True,
    ),
]


@pytest.fixture(params=ENTRIES, ids=lambda entry: entry.name)
def entry(request, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, request.param.name, request.param)
    return request.param


def test_it_is_a_loss(entry):
    by_name = make_loss(entry.name, logit_scale=5.0, logit_bias=-2.0)
    kind = {"softmax": sigmax.SoftmaxLoss, "sigmoid": sigmax.SigmoidLoss}[entry.family]
    by_class = kind(5.0, positives="margin") if entry.family == "softmax" else kind(5.0, -2.0, objective="doubled")
    assert type(by_name) is kind
    assert by_name.objective is by_class.objective is entry
    x = torch.randn(4, 6)
    positives = sigmax.Positives(range(4), range(4), (4, 4))
    assert by_name(x, x, positives) == by_class(x, x, positives)


def test_messages_name_it(entry):
    with pytest.raises(ValueError, match=rf"Did you mean '{entry.name}'"):
        make_loss(entry.name[:-1], logit_scale=1.0, logit_bias=0.0)
    with pytest.raises(ValueError, match=r"`loss` to be one of .*" + entry.name):
        Settings(loss="softplus")


def test_it_is_trained_saved_and_loaded(entry, tmp_path):
    data = things()
    model = sigmax.train(data, Settings(loss=entry.name, encoder="ngrams", epochs=1))
    assert model.loss.objective is entry
    model.save(tmp_path / "model")
    again = sigmax.load(tmp_path / "model")
    assert again.loss.objective is entry
    assert again.match(data.queries[0]).best[0].logit == pytest.approx(model.match(data.queries[0]).best[0].logit)


def test_the_model_card_cites_it(entry):
    from sigmax.sentence_transformers import SigmoidLoss, SoftmaxLoss

    loss = SoftmaxLoss(torch.nn.Identity()) if entry.family == "softmax" else SigmoidLoss(torch.nn.Identity())
    loss.match_loss = make_loss(entry.name, logit_scale=1.0, logit_bias=0.0)
    assert loss.citation == ("" if entry.paper is None else entry.paper.bibtex())


HELP = """
import torch
import sigmax.families as families
entry = families.OBJECTIVES["sigmoid"]
from dataclasses import replace
families.OBJECTIVES["sigmoid-mine"] = replace(entry, name="sigmoid-mine", summary="a loss of mine")
import sys
sys.argv = ["sigmax", "train", "--help"]
from sigmax.cli.main import main
main()
"""


def test_help_lists_it():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=False)
    assert "sigmoid-mine" in done.stdout, done.stderr


LIGHT = """
import sys
import sigmax.families
print([name for name in ("torch", "numpy", "sklearn") if name in sys.modules])
"""


def test_the_definitions_need_no_torch():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_bibtex():
    assert (
        OBJECTIVES["sigmoid"].paper.bibtex()
        == """
@inproceedings{zhai2023sigmoid,
    title={Sigmoid Loss for Language Image Pre-Training},
    author={Xiaohua Zhai and Basil Mustafa and Alexander Kolesnikov and Lucas Beyer},
    booktitle={IEEE/CVF International Conference on Computer Vision},
    year={2023},
    eprint={2303.15343},
    archivePrefix={arXiv},
}
"""
    )
