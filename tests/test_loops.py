"""The examples of loops of one's own run, and what they train is better than chance."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_plain_pytorch(capsys):
    example = runpy.run_path(str(EXAMPLES / "plain_pytorch.py"))
    data, loss = example["sigmax"].load_data("emoji"), example["sigmax"].SoftmaxLoss(positives="decoupled")
    encoder = example["train"](data, loss, epochs=2)
    values = [float(value) for value in re.findall(r"loss ([\d.]+)", capsys.readouterr().out)]
    assert values[1] < values[0]
    assert example["precision_at_1"](data, encoder, loss) > 0.1
    assert example["precision_at_1"](data, example["Encoder"](), loss) < 0.05


@pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers
def test_lightning(capsys, monkeypatch):
    pytest.importorskip("lightning")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(EXAMPLES / "lightning_loop.py"), run_name="__main__")
    assert float(re.search(r"precision@1 on test: ([\d.]+)", capsys.readouterr().out)[1]) > 0.25
