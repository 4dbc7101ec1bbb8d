"""Real processes, one per rank."""

import os
import subprocess
import sys
from pathlib import Path

import torch

HELPERS = Path(__file__).parent


def run(function, world, folder, *, waits_for=None):
    """Run `function` of ranks.py on every rank; what each returned, None where it was not waited for or died."""
    outputs = [folder / f"{rank}.pt" for rank in range(world)]
    processes = [
        subprocess.Popen(
            [sys.executable, "ranks.py", function, str(rank), str(world), str(folder / "store"), str(outputs[rank])],
            cwd=HELPERS,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        for rank in range(world) if waits_for is None else waits_for:
            _, error = processes[rank].communicate(timeout=100)
            assert processes[rank].returncode == 0, error
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stderr.close()
    return [torch.load(path) if path.exists() else None for path in outputs]
