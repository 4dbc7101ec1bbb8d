import gc
import logging
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from hypothesis import settings

from helpers.commands import Done
from helpers.data import THINGS, things
from sigmax.cli import main as cli

torch.set_num_threads(1)  # tensors this small lose more by waiting for threads than they gain
if not torch.cuda.is_available():  # read by Triton when a kernel is defined, so before anything imports one
    os.environ.setdefault("TRITON_INTERPRET", "1")
settings.register_profile("sigmax", deadline=None, max_examples=40, derandomize=True, database=None)
settings.load_profile("sigmax")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def frozen():
    """Trainer collects garbage at each start, which takes a while with all that is imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def nothing_installed():
    """What the encoder is chosen from is the same on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sigmax.encoders.choose.TEXT_ENCODERS", ())
        patch.setattr("sigmax.encoders.choose.PICTURE_ENCODERS", {})
        yield


@pytest.fixture(scope="session")
def static_folder(tmp_path_factory):
    """A folder of static vectors, as model2vec writes it: int8 vectors of whole words."""
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("static")
    texts = [*things(unanswered=True).queries, *THINGS]
    words = ["[UNK]", *sorted({word for text in texts for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    vectors = torch.randint(-127, 128, (len(words), 32), generator=torch.Generator().manual_seed(0))
    save_file({"embeddings": vectors.to(torch.int8)}, str(folder / "model.safetensors"))
    (folder / "config.json").write_text('{"model_type": "model2vec"}')
    return folder


@pytest.fixture(autouse=True, scope="module")
def messages():
    """The command line sends messages to stderr and quietens other libraries; here that ends with the tests of it."""
    logger = logging.getLogger("sigmax")
    before = (logger.handlers, logger.propagate, logger.level)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        patch.setenv("TRANSFORMERS_VERBOSITY", "error")
        patch.setenv("TQDM_DISABLE", "1")
        yield
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])


@pytest.fixture
def sigmax(capsys, monkeypatch):
    """The command line, in this process."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["sigmax", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Done(ended.value.code, *capsys.readouterr())

    return run
