import pytest

from helpers.data import things
from sigmax.training.settings import Settings
from sigmax.training.train import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small calibrated model."""
    made = tmp_path_factory.mktemp("models") / "things"
    train(things(unanswered=True), Settings(loss="sigmoid")).save(made)
    return made
