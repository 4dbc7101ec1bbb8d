"""What each command imports: nothing heavy before it is needed."""

import os
import subprocess
import sys

import pytest

#: Slow to import, each from 0.05 s to several seconds.
HEAVY = frozenset(
    [
        "PIL",
        "accelerate",
        "datasets",
        "fastapi",
        "huggingface_hub",
        "jinja2",
        "matplotlib",
        "numpy",
        "pandas",
        "pyarrow",
        "pytrec_eval",
        "safetensors",
        "scipy",
        "sentence_transformers",
        "sklearn",
        "tokenizers",
        "torch",
        "transformers",
        "triton",
        "uvicorn",
    ]
)
#: Runs the command line, then tells on stderr what it imported of these.
DUMP = """
import sys
from sigmax.cli.main import main
try:
    main()
finally:
    print("imported:", *sys.modules, file=sys.stderr)
"""
#: A registry that help names may lie beside functions over arrays, but never beside PyTorch.
ARRAYS = {"numpy", "scipy", "PIL"}
MODEL = {*ARRAYS, "torch", "safetensors"}


def imported(*words):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DUMP, *map(str, words)], env=environment, capture_output=True, text=True, check=False
    )
    return HEAVY & set(done.stderr.rpartition("imported:")[2].split())


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        ("--help", set()),
        ("nothing", set()),
        ("train --epoch 3", set()),
        ("match", set()),
        ("serve --help", set()),
        ("train --help", ARRAYS),
        ("compare --help", ARRAYS),
        ("match --help", ARRAYS),
        ("calibrate --help", ARRAYS),
        ("check --help", ARRAYS),
        ("train DATA -o OUT --loss sigmoids", ARRAYS),
        ("match MODEL sky", MODEL),
        pytest.param("match MODEL sky --json", MODEL, marks=pytest.mark.slow),
        pytest.param("explain MODEL sky", MODEL, marks=pytest.mark.slow),
        pytest.param("check DATA", MODEL, marks=pytest.mark.slow),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(words, allowed, data, model, tmp_path):
    places = {"DATA": data, "MODEL": model, "OUT": tmp_path / "out"}
    assert imported(*(places.get(word, word) for word in words.split())) <= allowed


@pytest.mark.slow
def test_what_is_imported_is_seen(model):
    """The test above would see an import."""
    assert {"numpy", "torch", "safetensors"} <= imported("match", model, "sky")
