import logging
import sys

import pytest

from helpers.commands import jsonl, rows
from sigmax.cli import main as cli


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return jsonl(tmp_path_factory.mktemp("cli") / "things.jsonl", rows(unanswered=True))


@pytest.fixture(scope="session")
def model(data):
    """A model that the command line trained; tests change copies of it."""
    folder = data.parent / "model"
    logger = logging.getLogger("sigmax")
    before = (logger.handlers, logger.propagate, logger.level)
    with pytest.MonkeyPatch.context() as patch:
        quiet = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
        for name, value in (quiet | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}).items():
            patch.setenv(name, value)  # what the command line sets ends here
        patch.setattr(sys, "argv", ["sigmax", "train", str(data), "-o", str(folder), "--loss", "sigmoid"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])
    return folder
