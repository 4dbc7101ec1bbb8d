import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # tensors this small lose more by waiting for threads than they gain
if not torch.cuda.is_available():  # read by Triton when a kernel is defined, so before anything imports one
    os.environ.setdefault("TRITON_INTERPRET", "1")
settings.register_profile("sigmax", deadline=None, max_examples=40, derandomize=True, database=None)
settings.load_profile("sigmax")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
